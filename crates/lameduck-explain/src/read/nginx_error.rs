//! nginx's error log, and what ingress-nginx's controller writes between. Source: `ngx_http_log_error`,
//! `ngx_http_upstream.c`; the words of each action are in its source.

use super::Context;
use super::field::split_request;
use super::words::{any, has};
use crate::record::{Event, EventKind, Line, Note, Signal};
use crate::time;

/// What a message means, where it is about a request to a server.
fn signal(message: &[u8]) -> Option<Signal> {
    let connecting = has(message, "while connecting to upstream");
    let body = has(message, "while reading upstream");
    let signal = if has(message, "upstream timed out") {
        if connecting { Signal::ConnectTimeout } else { Signal::Timeout }
    } else if has(message, "no live upstreams") || has(message, "no peer was returned") {
        Signal::NoServer
    } else if has(message, "client prematurely closed connection") {
        Signal::ClientLeft
    } else if has(message, "connect() failed") || has(message, "connect() to unix:") {
        if any(message, &["(111:", "(2:"]) {
            Signal::Refused
        } else if any(message, &["(113:", "(101:"]) {
            Signal::Unroutable
        } else if has(message, "(11:") {
            // A unix socket whose backlog is full.
            Signal::Overload
        } else {
            Signal::ConnectFailed
        }
    } else if has(message, "upstream prematurely closed connection") || any(message, &["(104:", "(32:"]) {
        if body { Signal::CutMidAnswer } else { closed(message) }
    } else if any(message, &["upstream sent too big header", "upstream sent invalid", "upstream sent no valid"]) {
        Signal::AppError
    } else {
        return None;
    };
    has(message, "upstream").then_some(signal).or((signal == Signal::NoServer).then_some(signal))
}

/// How the connection was closed: nginx says "prematurely closed" where it read FIN, and 104 (`ECONNRESET`) where RST came without one
/// (`ngx_http_upstream_process_header`, `ngx_unix_recv`). Of a `FastCGI` or `uWSGI` server neither is told apart: its own messages may
/// lie unread; nor is RST to a request with a body, of which a part may lie unread while the request is worked on.
fn closed(message: &[u8]) -> Signal {
    let header = has(message, "while reading response header from upstream");
    if !header || !part(message, "upstream").starts_with(b"http://") {
        return Signal::ClosedBeforeAnswer;
    }
    if has(message, "upstream prematurely closed connection") {
        return Signal::FinBeforeAnswer;
    }
    let (method, _) = split_request(part(message, "request"));
    let bodyless = matches!(method, b"GET" | b"HEAD" | b"OPTIONS");
    if has(message, "(104:") && bodyless { Signal::ResetBeforeAnswer } else { Signal::ClosedBeforeAnswer }
}

/// What stands behind `, name: `, without quotes.
fn part<'a>(line: &'a [u8], name: &str) -> &'a [u8] {
    let key = format!(", {name}: ");
    let Some(at) = memchr::memmem::find(line, key.as_bytes()) else { return b"" };
    let rest = &line[at + key.len()..];
    if rest.first() == Some(&b'"') {
        return &rest[1..memchr::memchr(b'"', &rest[1..]).map_or(rest.len(), |end| end + 1)];
    }
    &rest[..memchr::memchr(b',', rest).unwrap_or(rest.len())]
}

/// The address of `http://ADDR:PORT/uri`.
fn address(upstream: &[u8]) -> &[u8] {
    let rest = memchr::memmem::find(upstream, b"://").map_or(upstream, |at| &upstream[at + 3..]);
    if rest.starts_with(b"unix:") {
        return &rest[..memchr::memchr(b':', &rest[5..]).map_or(rest.len(), |end| end + 5)];
    }
    &rest[..memchr::memchr(b'/', rest).unwrap_or(rest.len())]
}

/// Reads a line.
pub fn read(line: &[u8], context: Context) -> Option<Line<'_>> {
    if let Some(line) = klog(line) {
        return Some(line);
    }
    let at = time::slashed(line, context.zone)?;
    let rest = line.get(20..)?;
    (rest.first() == Some(&b'[')).then_some(())?;
    let level_end = memchr::memchr(b']', rest)?;
    let body = &rest[level_end + 1..];
    if let Some(kind) = lifecycle(body) {
        let words = String::from_utf8_lossy(body.trim_ascii()).into_owned();
        return Some(Line::Events(vec![Event { at, kind, subject: String::new(), words }]));
    }
    let Some(signal) = signal(body) else { return Some(Line::Nothing) };
    let (method, target) = split_request(part(body, "request"));
    let from = memchr::memchr(b'*', body).map_or(0, |star| star);
    let message = &body[from..memchr::memmem::find(body, b", client:").unwrap_or(body.len())];
    let detail = memchr::memchr(b' ', message).map_or(message, |space| &message[space + 1..]);
    let (backend, client) = (address(part(body, "upstream")), part(body, "client"));
    Some(Line::Note(Note { at, signal, backend, client, method, target, detail }))
}

/// nginx's own end. TERM and INT are its fast way out: requests in flight are cut.
fn lifecycle(body: &[u8]) -> Option<EventKind> {
    if any(body, &["signal 15 (SIGTERM) received", "signal 2 (SIGINT) received", "signal 3 (SIGQUIT) received"]) {
        Some(EventKind::AppStopping)
    } else if any(body, &["exited on signal 9", "exited on signal 11"]) {
        Some(EventKind::WorkerEnded)
    } else if has(body, "signal 1 (SIGHUP) received") {
        Some(EventKind::ProxyStopping)
    } else {
        None
    }
}

/// `I1121 18:10:40.123456       7 controller.go:188] message`: understood, but it has no year.
fn klog(line: &[u8]) -> Option<Line<'static>> {
    let head = line.get(..6)?;
    let is =
        matches!(head[0], b'I' | b'W' | b'E' | b'F') && head[1..5].iter().all(u8::is_ascii_digit) && head[5] == b' ';
    (is && line.get(8) == Some(&b':') && memchr::memchr(b']', line).is_some()).then_some(Line::Nothing)
}
