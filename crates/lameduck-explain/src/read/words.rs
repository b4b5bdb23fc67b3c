//! What error texts mean, whoever writes them.

use crate::record::Signal;

/// Whether `part` stands in `text`.
pub fn has(text: &[u8], part: &str) -> bool {
    memchr::memmem::find(text, part.as_bytes()).is_some()
}

/// Whether one of them does.
pub fn any(text: &[u8], parts: &[&str]) -> bool {
    parts.iter().any(|part| has(text, part))
}

/// An error of Go's `net` and `net/http`, as proxies written in Go log it.
pub fn go_error(text: &[u8]) -> Signal {
    let dial = has(text, "dial ");
    if any(text, &["connection refused", "no such file or directory"]) {
        Signal::Refused
    } else if any(text, &["no route to host", "network is unreachable", "no such host"]) {
        Signal::Unroutable
    } else if dial && any(text, &["i/o timeout", "deadline exceeded"]) {
        Signal::ConnectTimeout
    } else if has(text, "context canceled") {
        Signal::ClientLeft
    } else if any(text, &["unexpected EOF", "aborting with incomplete response"]) {
        Signal::CutMidAnswer
    } else if any(text, &["EOF", "reset by peer", "broken pipe", "server closed idle connection"]) {
        Signal::ClosedBeforeAnswer
    } else if any(text, &["deadline exceeded", "timeout awaiting response headers", "i/o timeout"]) {
        Signal::Timeout
    } else if any(text, &["no upstreams available", "no available server"]) {
        Signal::NoServer
    } else {
        Signal::Failed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_go() {
        let check = |text: &str, expect: Signal| assert_eq!(go_error(text.as_bytes()), expect, "{text}");
        check("dial tcp 127.0.0.1:8080: connect: connection refused", Signal::Refused);
        check("dial unix /srv/gitlab.socket: connect: no such file or directory", Signal::Refused);
        check("dial tcp 10.0.0.4:80: i/o timeout", Signal::ConnectTimeout);
        check("read tcp 10.0.0.1:1->10.0.0.4:80: read: connection reset by peer", Signal::ClosedBeforeAnswer);
        check("EOF", Signal::ClosedBeforeAnswer);
        check("unexpected EOF", Signal::CutMidAnswer);
        check("context canceled", Signal::ClientLeft);
        check("net/http: timeout awaiting response headers", Signal::Timeout);
        check("no upstreams available", Signal::NoServer);
        check("something else", Signal::Failed);
    }
}
