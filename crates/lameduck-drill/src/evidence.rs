//! The server's side of the story: which requests its own log shows, and since when.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How much earlier than the end of its answer a line must come to show that the service logs requests as they arrive.
const CLEARLY_BEFORE: Duration = Duration::from_millis(10);

/// One attempt: the number of the request, and of the retry.
pub(crate) type AttemptId = (u64, u32);

/// What a service's log can prove.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogKind {
    /// No answered request's id was seen in it: it proves nothing.
    #[default]
    None,
    /// It shows requests, but only once they are answered, or not all of them: a request in it was seen by the service;
    /// one that is not in it may have been seen or not.
    Some,
    /// It shows every request, and shows it before it is answered: one that is not in it was not seen.
    EveryArrival,
}

impl LogKind {
    /// What both of two logs can prove.
    pub(crate) fn weaker(a: LogKind, b: LogKind) -> LogKind {
        match (a, b) {
            (LogKind::None, _) | (_, LogKind::None) => LogKind::None,
            (LogKind::EveryArrival, LogKind::EveryArrival) => LogKind::EveryArrival,
            (LogKind::Some | LogKind::EveryArrival, LogKind::Some | LogKind::EveryArrival) => LogKind::Some,
        }
    }
}

/// Whose line it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose {
    /// A replica's, by its place in the routing table.
    Replica(usize),
    /// One's of whom routing has not spoken yet, by its place among these: whoever routes there heard of it first.
    Stranger(usize),
}

/// Finds request ids in the lines of the replicas' output.
#[derive(Debug)]
pub(crate) struct Log {
    prefix: String,
    /// When an id was first seen, and whose line that was.
    seen: HashMap<AttemptId, (Duration, Whose)>,
    /// Attempts whose line says that a neighbour refused the connection.
    refused_by_neighbour: HashSet<AttemptId>,
}

impl Log {
    pub(crate) fn new(run: &str) -> Log {
        Log { prefix: format!("ld-{run}-"), seen: HashMap::new(), refused_by_neighbour: HashSet::new() }
    }

    /// The id sent with an attempt: `ld-RUN-N`, and `ld-RUN-N.R` for retry R.
    pub(crate) fn id(&self, (number, retry): AttemptId) -> String {
        if retry == 0 { format!("{}{number}", self.prefix) } else { format!("{}{number}.{retry}", self.prefix) }
    }

    /// Takes a line of a replica, or a part of one, seen at `at`.
    pub(crate) fn line(&mut self, whose: Whose, line: &[u8], at: Duration) {
        let prefix = self.prefix.as_bytes();
        let neighbour_refused = says_neighbour_refused(line);
        let mut rest = line;
        while let Some(found) = rest.windows(prefix.len()).position(|window| window == prefix) {
            rest = &rest[found + prefix.len()..];
            if let Some((number, after)) = digits(rest) {
                let retry = after.strip_prefix(b".").and_then(digits).map_or(0, |(retry, _)| retry);
                self.seen.entry((number, retry as u32)).or_insert((at, whose));
                if neighbour_refused {
                    self.refused_by_neighbour.insert((number, retry as u32));
                }
            }
        }
    }

    pub(crate) fn saw(&self, attempt: AttemptId) -> Option<Duration> {
        self.seen.get(&attempt).map(|(at, _)| *at)
    }

    /// The replica whose log shows it.
    pub(crate) fn whose(&self, attempt: AttemptId) -> Option<usize> {
        match self.seen.get(&attempt)? {
            (_, Whose::Replica(replica)) => Some(*replica),
            (_, Whose::Stranger(_)) => None,
        }
    }

    /// A stranger is one no more.
    pub(crate) fn introduce(&mut self, stranger: usize, replica: usize) {
        for (_, whose) in self.seen.values_mut().filter(|(_, whose)| *whose == Whose::Stranger(stranger)) {
            *whose = Whose::Replica(replica);
        }
    }

    /// Whether a gateway among the replica's processes says of an attempt that its neighbour on loopback refused the connection.
    pub(crate) fn neighbour_refused(&self, attempt: AttemptId) -> Option<bool> {
        self.refused_by_neighbour.contains(&attempt).then_some(true)
    }

    /// What the log can prove, judged by the answered attempts and when their answers ended.
    pub(crate) fn kind(&self, answered: impl Iterator<Item = (AttemptId, Duration)>) -> LogKind {
        let (mut any, mut all, mut on_arrival) = (false, true, false);
        for (attempt, ended) in answered {
            match self.saw(attempt) {
                Some(at) => {
                    any = true;
                    on_arrival |= at + CLEARLY_BEFORE <= ended;
                }
                None => all = false,
            }
        }
        match (any, all && on_arrival) {
            (false, _) => LogKind::None,
            (true, false) => LogKind::Some,
            (true, true) => LogKind::EveryArrival,
        }
    }
}

/// Go's `dial tcp 127.0.0.1:8080: connect: connection refused`, nginx's `connect() failed (111: Connection refused) while
/// connecting to upstream, ... upstream: "http://127.0.0.1:8080/"`.
fn says_neighbour_refused(line: &[u8]) -> bool {
    let has = |words: &[u8]| line.windows(words.len()).any(|window| window.eq_ignore_ascii_case(words));
    has(b"connection refused") && [&b"127.0.0.1"[..], b"[::1]", b"localhost"].into_iter().any(has)
}

/// The number at the start of some bytes, and what follows it.
fn digits(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let end = bytes.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(bytes.len());
    Some((str::from_utf8(&bytes[..end]).ok()?.parse().ok()?, &bytes[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn log(lines: &[(&str, u64)]) -> Log {
        let mut log = Log::new("ab");
        for (line, at) in lines {
            log.line(Whose::Replica(0), line.as_bytes(), ms(*at));
        }
        log
    }

    #[test]
    fn a_stranger_is_nobodys_replica_until_routing_speaks_of_it() {
        let mut log = Log::new("ab");
        log.line(Whose::Stranger(0), b"ld-ab-1", Duration::ZERO);
        log.line(Whose::Stranger(1), b"ld-ab-2", Duration::ZERO);
        assert_eq!((log.saw((1, 0)), log.whose((1, 0))), (Some(Duration::ZERO), None));
        log.introduce(0, 7);
        assert_eq!((log.whose((1, 0)), log.whose((2, 0))), (Some(7), None));
    }

    #[test]
    fn finds_ids_wherever_they_stand() {
        let log = log(&[
            ("GET / ld-ab-12 ld-ab-3.2\"", 5),
            ("again ld-ab-12", 9),
            ("ld-ab- ld-cd-7 ld-ab-99999999999999999999999", 9),
        ]);
        assert_eq!(log.saw((12, 0)), Some(ms(5)));
        assert_eq!(log.saw((3, 2)), Some(ms(5)));
        assert_eq!(log.saw((1, 0)), None);
        assert_eq!(log.saw((7, 0)), None);
        assert_eq!(log.seen.len(), 2);
        assert_eq!((log.id((12, 0)), log.id((3, 2))), ("ld-ab-12".into(), "ld-ab-3.2".into()));
    }

    #[test]
    fn a_gateway_says_that_its_neighbour_refused() {
        let log = log(&[
            (
                r#"{"correlation_id":"ld-ab-1","error":"badgateway: dial tcp 127.0.0.1:8080: connect: connection refused"}"#,
                5,
            ),
            (
                r#"{"correlation_id":"ld-ab-2","error":"badgateway: dial tcp 10.0.0.7:8080: connect: connection refused"}"#,
                5,
            ),
            (r#"{"correlation_id":"ld-ab-3","status":200,"remote_ip":"127.0.0.1"}"#, 5),
        ]);
        let said = [1, 2, 3].map(|number| log.neighbour_refused((number, 0)));
        assert_eq!(said, [Some(true), None, None]);
    }

    #[test]
    fn absence_is_evidence_only_where_every_arrival_is_logged() {
        let check = |lines: &[(&str, u64)], expect: LogKind| {
            let answered = [((1, 0), ms(30)), ((2, 0), ms(31))];
            assert_eq!(log(lines).kind(answered.into_iter()), expect, "{lines:?}");
        };
        check(&[("ld-ab-1", 1), ("ld-ab-2", 31)], LogKind::EveryArrival);
        check(&[("ld-ab-1", 30), ("ld-ab-2", 31)], LogKind::Some); // an access log: written with the answer
        check(&[("ld-ab-1", 1)], LogKind::Some); // sampled
        check(&[("ready", 1)], LogKind::None);
    }
}
