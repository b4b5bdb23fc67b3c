//! What a hop itself wrote of its attempts, and what it decides: how a connection to a pod was had is known to it alone.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::time::Duration;

use lameduck_core::judge::{Attempt, Connection, Ending, SLACK};
use lameduck_core::timeline::Moment;
use lameduck_core::{Cause, Outcome, ServerSide, Verdict, judge};
use lameduck_drill::DrillResult;
use lameduck_drill::result::{Loss, ReplicaReport};
use serde_json::Value;

/// How an attempt at a pod failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    /// The handshake was refused.
    Refused,
    /// The handshake was not answered, or the address is not there.
    Unanswered,
    /// The connection was closed.
    Closed {
        /// Whether it had answered before; not every hop says.
        kept: Option<bool>,
        /// Whether a part of the answer had come.
        begun: bool,
    },
}

/// The last attempt of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Last {
    /// The pod, where the hop knows it.
    upstream: Option<SocketAddr>,
    how: How,
}

/// What a hop wrote.
#[derive(Debug, Default)]
pub struct Attempts {
    failed: HashMap<String, Last>,
    /// Requests that it answered itself, since no pod was routed to.
    nobody: HashSet<String>,
    /// How many it sent again, by its own rules.
    pub resent: u64,
}

/// nginx's line for each request, and its error log, which has the id in the path.
pub fn nginx(access: &str, errors: &str) -> Attempts {
    let mut upstreams = HashMap::new();
    let mut attempts = Attempts::default();
    for line in access.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        let tried: Vec<&str> = line["upstream"].as_str().unwrap_or_default().split(", ").collect();
        attempts.resent += tried.len() as u64 - 1;
        if tried == [""] {
            attempts.nobody.insert(text(&line["id"]));
        }
        upstreams.insert(text(&line["id"]), tried.last().and_then(|last| last.parse().ok()));
    }
    for line in errors.lines() {
        let how = if line.contains("while connecting to upstream") {
            if line.contains("(111:") { How::Refused } else { How::Unanswered }
        } else if line.contains("prematurely closed") || line.contains("(104:") || line.contains("(32:") {
            How::Closed { kept: None, begun: line.contains("while reading upstream") }
        } else {
            continue;
        };
        if let Some((_, after)) = line.split_once("lameduck-id=") {
            let id: String =
                after.chars().take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.')).collect();
            let upstream = upstreams.get(&id).copied().flatten();
            attempts.failed.insert(id, Last { upstream, how });
        }
    }
    attempts
}

/// Envoy's line for each request, in the order in which they ended.
pub fn envoy(access: &str) -> Attempts {
    let mut attempts = Attempts::default();
    let mut connections = HashSet::new();
    for line in access.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        let kept = !connections.insert(line["connection"].to_string());
        let (flags, details) = (text(&line["flags"]), text(&line["details"]));
        let failure = format!("{details} {}", text(&line["failure"])).to_lowercase();
        let has = |flag: &str| flags.split(',').any(|one| one == flag);
        if has("UH") {
            attempts.nobody.insert(text(&line["id"]));
        }
        let how = if has("UF") {
            if failure.contains("refused") { How::Refused } else { How::Unanswered }
        } else if has("UC") {
            How::Closed { kept: Some(kept), begun: details.contains("after_response_started") }
        } else {
            continue;
        };
        attempts.failed.insert(text(&line["id"]), Last { upstream: text(&line["upstream"]).parse().ok(), how });
    }
    attempts
}

/// The gateway's line for each request that failed or took more than one connection. The pod behind a Service is not known to it.
pub fn gateway(output: &str) -> Attempts {
    let mut attempts = Attempts::default();
    for line in output.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        attempts.resent += line["connections"].as_u64().unwrap_or_default().saturating_sub(1);
        let error = text(&line["error"]);
        let how = if error.is_empty() {
            continue;
        } else if error.contains("connection refused") {
            How::Refused
        } else if error.starts_with("dial") || error.contains("no route to host") {
            How::Unanswered
        } else {
            How::Closed { kept: line["reused"].as_bool(), begun: false }
        };
        attempts.failed.insert(text(&line["id"]), Last { upstream: None, how });
    }
    attempts
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

impl Attempts {
    /// Takes out of the losses what no pod was routed to for, and says how many that were: they are no part of the experiment, as with
    /// the client of slices. Gives what the client alone could not decide to the same law once more, with what the hop knows. The
    /// tallies of the result stay as they were.
    pub fn settle(&self, result: &mut DrillResult, addresses: &BTreeMap<String, SocketAddr>) -> u64 {
        let before = result.losses.len();
        result.losses.retain(|loss| !self.nobody.contains(&loss.id));
        let nobody = (before - result.losses.len()) as u64;
        let replicas = &result.replicas;
        for loss in result.losses.iter_mut().filter(|loss| loss.cause == Cause::Unknown) {
            let Some(last) = self.failed.get(&loss.id) else { continue };
            if let Some(Verdict { outcome: Outcome::Lost { cause }, grounds }) =
                verdict(*last, loss, replicas, addresses)
            {
                (loss.cause, loss.grounds) = (cause, grounds.to_owned());
            }
        }
        nobody
    }
}

fn verdict(
    last: Last,
    loss: &Loss,
    replicas: &[ReplicaReport],
    addresses: &BTreeMap<String, SocketAddr>,
) -> Option<Verdict> {
    let (began, ended) = (Duration::from_secs_f64(loss.sent_s), Duration::from_secs_f64(loss.at_s));
    let saw = loss.server_saw;
    let known = last.upstream.and_then(|at| replicas.iter().find(|replica| addresses.get(&replica.name) == Some(&at)));
    let mut stopping = replicas.iter().filter(|replica| {
        let at = |moment| replica.timeline.at(moment);
        at(Moment::TermReceived).is_some_and(|term| term <= ended + SLACK)
            && at(Moment::Exited).is_none_or(|exited| began <= exited + SLACK)
    });
    // Where the hop does not know it and several are stopping, what is said of one is true of all.
    let server = known.or_else(|| stopping.next()).map(|replica| server(replica, saw));
    let (connection, ending) = match last.how {
        How::Refused => (Connection::Refused, Ending::Rst),
        How::Unanswered => (Connection::TimedOut, Ending::TimedOut),
        // Read or not: without the server's own word a close says nothing here.
        How::Closed { begun: false, .. } if saw.is_none() => return None,
        How::Closed { kept: Some(false), .. } => (Connection::Fresh, Ending::Rst),
        How::Closed { kept: Some(true), .. } => {
            (Connection::Reused { idle: Duration::ZERO, requests_before: 1 }, Ending::Rst)
        }
        // A pod that is not stopping closes no new connection.
        How::Closed { kept: None, .. }
            if server.is_some_and(|server| server.stop_requested.is_none_or(|stop| stop > ended)) =>
        {
            (Connection::Reused { idle: Duration::ZERO, requests_before: 1 }, Ending::Rst)
        }
        How::Closed { kept: None, .. } => return None,
    };
    let in_part = matches!(last.how, How::Closed { begun: true, .. });
    let attempt = Attempt { began, ended, connection, ending, bytes_in: u64::from(in_part) };
    Some(judge(&attempt, &server.unwrap_or(ServerSide { saw_request: saw, ..ServerSide::default() })))
}

/// What the drill knows of a pod; its deletion was heard of late.
fn server(replica: &ReplicaReport, saw_request: Option<bool>) -> ServerSide {
    let at = |moment| replica.timeline.at(moment);
    ServerSide {
        ready: at(Moment::Ready),
        stop_requested: at(Moment::TermReceived).map(|heard| heard.saturating_sub(SLACK)),
        reacted: replica.reacted,
        killed: at(Moment::Killed),
        exited: at(Moment::Exited),
        saw_request,
        ..ServerSide::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last(attempts: &Attempts, id: &str) -> Option<Last> {
        attempts.failed.get(id).copied()
    }

    const POD: &str = "10.0.0.1:8080";

    fn failed(how: How) -> Last {
        Last { upstream: Some(POD.parse().unwrap()), how }
    }

    #[test]
    fn what_nginx_says() {
        let access = r#"{"id":"ld-a-1","upstream":"10.0.0.2:8080, 10.0.0.1:8080","status":"502, 502"}
{"id":"ld-a-2","upstream":"10.0.0.1:8080","status":"502"}
{"id":"ld-a-3","upstream":"10.0.0.1:8080","status":"200"}
{"id":"ld-a-4","upstream":"","status":""}"#;
        let errors = r#"2026/11/21 10:00:00 [error] 7#7: *1 connect() failed (111: Connection refused) while connecting to upstream, client: 127.0.0.1, request: "GET /?lameduck-id=ld-a-1 HTTP/1.1", upstream: "http://10.0.0.1:8080/"
2026/11/21 10:00:00 [error] 7#7: *2 upstream prematurely closed connection while reading response header from upstream, client: 127.0.0.1, request: "POST /?lameduck-id=ld-a-2 HTTP/1.1""#;
        let attempts = nginx(access, errors);
        assert_eq!(attempts.resent, 1);
        assert_eq!(last(&attempts, "ld-a-1"), Some(failed(How::Refused)));
        assert_eq!(last(&attempts, "ld-a-2"), Some(failed(How::Closed { kept: None, begun: false })));
        assert_eq!(last(&attempts, "ld-a-3"), None);
        assert_eq!(attempts.nobody, HashSet::from(["ld-a-4".to_owned()]));
    }

    #[test]
    fn what_envoy_says() {
        let access = r#"{"id":"ld-a-1","flags":"-","details":"via_upstream","upstream":"10.0.0.1:8080","connection":"7"}
{"id":"ld-a-2","flags":"UC","details":"upstream_reset_before_response_started{connection_termination}","upstream":"10.0.0.1:8080","connection":"7"}
{"id":"ld-a-3","flags":"UF","details":"upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Connection_refused}","upstream":"10.0.0.1:8080","connection":"8"}
{"id":"ld-a-4","flags":"UH","details":"no_healthy_upstream","upstream":null,"connection":"0"}"#;
        let attempts = envoy(access);
        assert_eq!(last(&attempts, "ld-a-1"), None);
        assert_eq!(last(&attempts, "ld-a-2"), Some(failed(How::Closed { kept: Some(true), begun: false })));
        assert_eq!(last(&attempts, "ld-a-3"), Some(failed(How::Refused)));
        assert_eq!(attempts.nobody, HashSet::from(["ld-a-4".to_owned()]));
    }

    #[test]
    fn what_the_gateway_says() {
        let output = r#"{"id":"ld-a-1","reused":false,"connections":2}
{"id":"ld-a-2","error":"dial tcp 10.0.0.9:80: connect: connection refused","reused":false,"connections":0}
{"id":"ld-a-3","error":"http: server closed idle connection","reused":true,"connections":1}"#;
        let attempts = gateway(output);
        assert_eq!(attempts.resent, 1);
        assert_eq!(last(&attempts, "ld-a-1"), None);
        assert_eq!(last(&attempts, "ld-a-2").map(|last| last.how), Some(How::Refused));
        assert_eq!(
            last(&attempts, "ld-a-3").map(|last| last.how),
            Some(How::Closed { kept: Some(true), begun: false })
        );
    }
}
