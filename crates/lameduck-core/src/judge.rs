//! From the evidence of one attempt to its cause. One law for every verb: `drill` applies it to what it saw, `explain` to
//! what the logs and captures left.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Cause;
use crate::ledger::Outcome;

/// How far apart two observations of one event may lie: a socket's close and the exit status that explains it reach the
/// observer by different ways.
pub const SLACK: Duration = Duration::from_millis(250);

/// How the attempt got its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "connection")]
pub enum Connection {
    /// The handshake was answered by RST.
    Refused,
    /// The handshake was not answered in time.
    TimedOut,
    /// Opened for this attempt.
    Fresh,
    /// Kept alive since an earlier answer.
    Reused {
        /// Time since the end of the last answer on it.
        #[serde(rename = "idle_s", with = "crate::duration::seconds")]
        idle: Duration,
        /// Requests answered on it before.
        requests_before: u32,
    },
    /// Used together with others at the time: a stream of HTTP/2 beside other streams.
    Shared {
        /// Requests answered on it before.
        requests_before: u32,
    },
}

/// How the attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "ending")]
pub enum Ending {
    /// A complete answer.
    Complete {
        /// The status.
        status: u16,
    },
    /// FIN, and no RST after it: the server's kernel had handed everything sent to the process before the close.
    Fin,
    /// RST, or FIN followed by RST: something sent was never read by the process, or it aborted the connection.
    Rst,
    /// No end of the answer in time.
    TimedOut,
    /// The server's protocol says that it was not processed and never will be: a stream above the last one of GOAWAY, or
    /// reset with `REFUSED_STREAM` (RFC 9113, sections 6.8 and 8.7).
    NotProcessed,
    /// The server gave up this one exchange by its protocol's own means: a stream's reset, a WebSocket's close code for an
    /// error, an upgrade that was answered but not granted.
    Aborted,
    /// Bytes that are not an HTTP answer.
    Malformed,
    /// Still open when the watch ended.
    Pending,
}

/// What one attempt left, as seen by the client. Times are offsets on one clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// When it began (before connecting).
    #[serde(rename = "began_s", with = "crate::duration::seconds")]
    pub began: Duration,
    /// When its end was seen.
    #[serde(rename = "ended_s", with = "crate::duration::seconds")]
    pub ended: Duration,
    /// How it got its connection.
    #[serde(flatten)]
    pub connection: Connection,
    /// How it ended.
    #[serde(flatten)]
    pub ending: Ending,
    /// Bytes of the answer that arrived.
    pub bytes_in: u64,
}

/// What is known of the server that the attempt went to. `None` is "not known", never "no".
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ServerSide {
    /// When it first accepted a connection.
    pub ready: Option<Duration>,
    /// When its stop was requested (TERM, or the deletion).
    pub stop_requested: Option<Duration>,
    /// Whether it reacted to the request to stop before it was killed: closed its listener, closed a connection, exited.
    pub reacted: Option<bool>,
    /// When it was killed by SIGKILL.
    pub killed: Option<Duration>,
    /// When it exited.
    pub exited: Option<Duration>,
    /// When one of its processes, not the one that stands for it, was ended without a request to stop.
    pub part_ended: Option<Duration>,
    /// Whether the server's own evidence (its log, an echo) shows this request.
    pub saw_request: Option<bool>,
    /// Whether the gateway that answered says itself that a neighbour in the same pod refused its connection.
    pub neighbour_refused: Option<bool>,
}

/// An outcome with its grounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// The outcome.
    pub outcome: Outcome,
    /// The evidence that decided, or for [`Cause::Unknown`] the evidence that is missing.
    pub grounds: &'static str,
}

fn lost(cause: Cause, grounds: &'static str) -> Verdict {
    Verdict { outcome: Outcome::Lost { cause }, grounds }
}

/// Gives an attempt its cause, or says which evidence is missing.
pub fn judge(attempt: &Attempt, server: &ServerSide) -> Verdict {
    match attempt.ending {
        Ending::Complete { status } => complete(status, server),
        Ending::Pending => Verdict { outcome: Outcome::Unknown, grounds: "missing: the end of the exchange" },
        Ending::Malformed => lost(Cause::AppError, "bytes that are not an HTTP answer"),
        Ending::NotProcessed => not_processed(attempt, server),
        Ending::Aborted => aborted(attempt, server),
        Ending::Fin | Ending::Rst | Ending::TimedOut => match attempt.connection {
            Connection::Refused => refused(attempt, server),
            Connection::TimedOut => unanswered_handshake(attempt, server),
            Connection::Fresh | Connection::Reused { .. } | Connection::Shared { .. } => broken(attempt, server),
        },
    }
}

fn not_processed(attempt: &Attempt, server: &ServerSide) -> Verdict {
    if by(server.stop_requested, attempt.ended) {
        lost(
            Cause::RefusedWhileRouted,
            "refused as a stream after the request to stop; the server says it was not processed",
        )
    } else {
        lost(Cause::IdleCloseRace, "refused as a stream: the server was closing the connection, and did not process it")
    }
}

fn aborted(attempt: &Attempt, server: &ServerSide) -> Verdict {
    if by(server.stop_requested, attempt.ended) {
        lost(Cause::CutMidResponse, "given up by the server in its protocol's own terms, while stopping")
    } else {
        lost(Cause::AppError, "given up by the server in its protocol's own terms, though not told to stop")
    }
}

fn complete(status: u16, server: &ServerSide) -> Verdict {
    match status {
        502 | 503 if server.neighbour_refused == Some(true) => lost(
            Cause::PeerDown,
            "a complete 5xx by the gateway in the pod; its own log says that its neighbour refused the connection",
        ),
        502 => lost(Cause::Unknown, "a complete 502; missing: the log of the gateway that wrote it"),
        503 => lost(Cause::Overload, "a complete 503"),
        504 => lost(Cause::BackendTimeout, "a complete 504"),
        500.. => lost(Cause::AppError, "a complete 5xx"),
        _ => Verdict { outcome: Outcome::Answered { status }, grounds: "a complete answer" },
    }
}

fn by(moment: Option<Duration>, at: Duration) -> bool {
    moment.is_some_and(|moment| moment <= at)
}

fn refused(attempt: &Attempt, server: &ServerSide) -> Verdict {
    let at = attempt.ended;
    if by(server.stop_requested, at) {
        lost(Cause::RefusedWhileRouted, "connect refused after the request to stop")
    } else if by(server.exited, at) {
        lost(Cause::CrashRestart, "connect refused after an exit that nobody asked for")
    } else if !by(server.ready, at) {
        lost(Cause::NotReadyYet, "connect refused before the first accept")
    } else if by(server.part_ended, at + SLACK) {
        lost(Cause::CrashRestart, "connect refused after the end of one of its processes, that nobody asked for")
    } else {
        lost(Cause::Unknown, "connect refused by a process that runs and was not told to stop; missing: its own log")
    }
}

fn unanswered_handshake(attempt: &Attempt, server: &ServerSide) -> Verdict {
    if by(server.exited, attempt.ended) {
        lost(Cause::GoneAddress, "handshake unanswered after the process had exited")
    } else if by(server.ready, attempt.began) {
        lost(Cause::Overload, "handshake unanswered by a process that listens: its backlog was full")
    } else {
        lost(Cause::Unknown, "handshake unanswered; missing: whether the address existed")
    }
}

/// The connection stood, the answer did not come or not whole.
fn broken(attempt: &Attempt, server: &ServerSide) -> Verdict {
    if let Some(verdict) = died(attempt, server) {
        return verdict;
    }
    let stopping = by(server.stop_requested, attempt.ended);
    if attempt.ending == Ending::TimedOut {
        return match (stopping, attempt.bytes_in, server.saw_request) {
            (true, 0, Some(false)) => {
                lost(Cause::RefusedWhileRouted, "accepted by the kernel while stopping, never by the process")
            }
            (true, 0, None) => {
                lost(Cause::Unknown, "no answer in time while stopping; missing: whether the process read the request")
            }
            _ => lost(Cause::BackendTimeout, "no whole answer in time"),
        };
    }
    if attempt.bytes_in > 0 {
        return lost(Cause::CutMidResponse, "closed with only a part of the answer sent");
    }
    match (attempt.connection, attempt.ending, server.saw_request) {
        (_, _, Some(true)) => {
            lost(Cause::CutMidResponse, "closed without an answer; the server's own log shows the request")
        }
        (Connection::Shared { .. }, Ending::Rst, None) => lost(
            Cause::Unknown,
            "RST on a connection that others shared; missing: whether the process had read this request",
        ),
        (Connection::Shared { .. }, _, Some(false)) => lost(
            Cause::IdleCloseRace,
            "the connection was closed as the request was on its way; the server's own log lacks it",
        ),
        // A close that crosses the request is answered by RST as the request arrives. One that comes long after it met a
        // connection that was open then: read and aborted, or left unread, look the same from here.
        (Connection::Reused { .. }, Ending::Rst, None) if attempt.ended > attempt.began + SLACK => {
            lost(Cause::Unknown, "RST long after the request was sent; missing: whether the process had read it")
        }
        (Connection::Reused { .. }, Ending::Rst, _) => {
            lost(Cause::IdleCloseRace, "RST on a connection idle since its last answer; the request was not read")
        }
        (Connection::Reused { .. }, _, Some(false)) => lost(
            Cause::IdleCloseRace,
            "FIN on a connection idle since its last answer; the server's own log lacks the request",
        ),
        (Connection::Reused { .. } | Connection::Shared { .. }, _, None) => {
            lost(Cause::CutMidResponse, "FIN without RST: the request had been read when the connection was closed")
        }
        (_, Ending::Rst, _) if stopping => lost(
            Cause::RefusedWhileRouted,
            "RST on a new connection while stopping: it was in the backlog, not accepted",
        ),
        (_, Ending::Rst, Some(false)) => {
            lost(Cause::Overload, "RST on a new connection that the process never accepted")
        }
        (_, Ending::Rst, None) => {
            lost(Cause::Unknown, "RST on a new connection; missing: whether the process had read the request")
        }
        (_, _, _) if stopping || server.saw_request.is_none() => {
            lost(Cause::CutMidResponse, "FIN on a new connection after the request had been read")
        }
        (_, _, _) => lost(Cause::Unknown, "FIN on a new connection; missing: why the server closed it"),
    }
}

/// The end of the process, where it explains the end of the connection.
fn died(attempt: &Attempt, server: &ServerSide) -> Option<Verdict> {
    if let Some(ended) = server.part_ended
        && attempt.ended + SLACK >= ended
        && attempt.ended <= ended + SLACK
        && attempt.ending != Ending::TimedOut
    {
        return Some(lost(Cause::CrashRestart, "closed by the end of one of its processes, that nobody asked for"));
    }
    let exited = server.exited?;
    // The exit explains a close at that time, and a connection that only timed out after it. Between SIGKILL and the exit
    // nothing else can close a connection, however long it takes.
    let began_to_die = server.killed.map_or(exited, |killed| killed.min(exited));
    let explains = attempt.ended + SLACK >= began_to_die && attempt.began <= exited + SLACK;
    let at_the_end = attempt.ended <= exited + SLACK || attempt.ending == Ending::TimedOut;
    if !explains || !at_the_end {
        return None;
    }
    let killed = server.killed.is_some_and(|killed| attempt.ended + SLACK >= killed);
    match (server.stop_requested, killed, server.reacted) {
        (None, _, _) => Some(lost(Cause::CrashRestart, "closed by an exit that nobody asked for")),
        (Some(_), true, Some(false)) => {
            Some(lost(Cause::SignalNotDelivered, "closed by SIGKILL; TERM had changed nothing before it"))
        }
        (Some(_), true, _) => Some(lost(Cause::KilledAtDeadline, "closed by SIGKILL at the end of the grace period")),
        (Some(_), false, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    const REUSED: Connection = Connection::Reused { idle: at(5), requests_before: 3 };

    /// A server that was ready at 1 s.
    const UP: ServerSide = ServerSide {
        ready: Some(at(1)),
        stop_requested: None,
        reacted: None,
        killed: None,
        exited: None,
        part_ended: None,
        saw_request: None,
        neighbour_refused: None,
    };
    /// The same, told to stop at 10 s.
    const STOPPING: ServerSide = ServerSide { stop_requested: Some(at(10)), ..UP };
    /// The same, killed at 40 s without having reacted.
    const DEAF: ServerSide =
        ServerSide { reacted: Some(false), killed: Some(at(40)), exited: Some(at(40)), ..STOPPING };

    fn attempt(connection: Connection, ending: Ending, bytes_in: u64, ended: u64) -> Attempt {
        Attempt { began: at(ended), ended: at(ended), connection, ending, bytes_in }
    }

    #[test]
    fn each_cause_from_its_evidence() {
        let check = |attempt: Attempt, server: ServerSide, expect: Cause| {
            let verdict = judge(&attempt, &server);
            assert_eq!(verdict.outcome, Outcome::Lost { cause: expect }, "{attempt:?} {server:?}: {}", verdict.grounds);
        };
        let seen = |saw: bool, server: ServerSide| ServerSide { saw_request: Some(saw), ..server };
        check(attempt(Connection::Refused, Ending::Rst, 0, 11), STOPPING, Cause::RefusedWhileRouted);
        check(attempt(Connection::Fresh, Ending::Rst, 0, 11), STOPPING, Cause::RefusedWhileRouted);
        let by_neighbour = ServerSide { neighbour_refused: Some(true), ..STOPPING };
        check(attempt(REUSED, Ending::Complete { status: 502 }, 9, 12), by_neighbour, Cause::PeerDown);
        check(attempt(REUSED, Ending::Complete { status: 502 }, 9, 12), STOPPING, Cause::Unknown);
        check(attempt(Connection::Refused, Ending::Rst, 0, 0), UP, Cause::NotReadyYet);
        check(
            attempt(Connection::Refused, Ending::Rst, 0, 9),
            ServerSide { exited: Some(at(8)), ..UP },
            Cause::CrashRestart,
        );
        check(attempt(Connection::Refused, Ending::Rst, 0, 9), UP, Cause::Unknown);
        check(attempt(REUSED, Ending::Rst, 0, 9), UP, Cause::IdleCloseRace);
        let late = Attempt { began: at(6), ..attempt(REUSED, Ending::Rst, 0, 9) };
        check(late, UP, Cause::Unknown);
        check(late, seen(false, UP), Cause::IdleCloseRace);
        check(attempt(REUSED, Ending::Fin, 0, 9), seen(false, UP), Cause::IdleCloseRace);
        check(attempt(REUSED, Ending::Fin, 0, 9), UP, Cause::CutMidResponse);
        check(attempt(REUSED, Ending::Rst, 0, 9), seen(true, UP), Cause::CutMidResponse);
        check(attempt(Connection::Fresh, Ending::Fin, 10, 11), STOPPING, Cause::CutMidResponse);
        check(attempt(Connection::Fresh, Ending::Rst, 0, 9), UP, Cause::Unknown);
        check(attempt(Connection::Fresh, Ending::Rst, 0, 9), seen(false, UP), Cause::Overload);
        check(attempt(Connection::Fresh, Ending::Fin, 5, 40), DEAF, Cause::SignalNotDelivered);
        // SIGKILL took a second, as it may on a busy machine: what was closed meanwhile was closed by it.
        let slow = ServerSide { exited: Some(at(42)), ..DEAF };
        check(attempt(REUSED, Ending::Rst, 0, 41), slow, Cause::SignalNotDelivered);
        let reacted = ServerSide { reacted: Some(true), ..DEAF };
        check(attempt(Connection::Fresh, Ending::Fin, 5, 40), reacted, Cause::KilledAtDeadline);
        let crashed = ServerSide { exited: Some(at(9)), ..UP };
        check(attempt(Connection::Fresh, Ending::Fin, 5, 9), crashed, Cause::CrashRestart);
        check(attempt(REUSED, Ending::TimedOut, 0, 9), UP, Cause::BackendTimeout);
        check(attempt(Connection::TimedOut, Ending::TimedOut, 0, 9), UP, Cause::Overload);
        check(attempt(Connection::TimedOut, Ending::TimedOut, 0, 41), DEAF, Cause::GoneAddress);
        let shared = Connection::Shared { requests_before: 3 };
        check(attempt(shared, Ending::Rst, 0, 11), STOPPING, Cause::Unknown);
        check(attempt(shared, Ending::Fin, 0, 11), STOPPING, Cause::CutMidResponse);
        check(attempt(shared, Ending::Rst, 0, 11), seen(false, STOPPING), Cause::IdleCloseRace);
        check(attempt(shared, Ending::NotProcessed, 0, 11), STOPPING, Cause::RefusedWhileRouted);
        check(attempt(shared, Ending::NotProcessed, 0, 9), UP, Cause::IdleCloseRace);
        check(attempt(shared, Ending::Aborted, 0, 11), STOPPING, Cause::CutMidResponse);
        check(attempt(shared, Ending::Aborted, 0, 9), UP, Cause::AppError);
        let part_ended = ServerSide { part_ended: Some(at(9)), ..UP };
        check(attempt(REUSED, Ending::Rst, 0, 9), part_ended, Cause::CrashRestart);
        check(attempt(REUSED, Ending::Rst, 0, 11), part_ended, Cause::IdleCloseRace);
        check(attempt(Connection::Refused, Ending::Rst, 0, 11), part_ended, Cause::CrashRestart);
        check(attempt(Connection::Refused, Ending::Rst, 0, 7), part_ended, Cause::Unknown);
        for (status, cause) in
            [(500, Cause::AppError), (503, Cause::Overload), (504, Cause::BackendTimeout), (502, Cause::Unknown)]
        {
            check(attempt(REUSED, Ending::Complete { status }, 100, 9), UP, cause);
        }
    }

    #[test]
    fn an_exit_on_request_explains_no_loss_by_itself() {
        let stopped = ServerSide { exited: Some(at(11)), reacted: Some(true), ..STOPPING };
        let verdict = judge(&attempt(REUSED, Ending::Rst, 0, 11), &stopped);
        assert_eq!(verdict.outcome, Outcome::Lost { cause: Cause::IdleCloseRace });
    }

    fn connection() -> impl Strategy<Value = Connection> {
        prop_oneof![
            Just(Connection::Refused),
            Just(Connection::TimedOut),
            Just(Connection::Fresh),
            (0u64..100, 1u32..9)
                .prop_map(|(idle, requests_before)| Connection::Reused { idle: at(idle), requests_before }),
            (0u32..9).prop_map(|requests_before| Connection::Shared { requests_before }),
        ]
    }

    fn ending() -> impl Strategy<Value = Ending> {
        prop_oneof![
            (100u16..600).prop_map(|status| Ending::Complete { status }),
            Just(Ending::Fin),
            Just(Ending::Rst),
            Just(Ending::TimedOut),
            Just(Ending::NotProcessed),
            Just(Ending::Aborted),
            Just(Ending::Malformed),
            Just(Ending::Pending),
        ]
    }

    fn moment() -> impl Strategy<Value = Option<Duration>> {
        prop::option::of((0u64..60).prop_map(at))
    }

    proptest! {
        #[test]
        fn every_verdict_has_grounds_and_unknown_says_what_is_missing(
            connection in connection(), ending in ending(), bytes_in in 0u64..3, began in 0u64..60, took in 0u64..30,
            ready in moment(), stop_requested in moment(), killed in moment(), exited in moment(),
            reacted in prop::option::of(any::<bool>()), saw_request in prop::option::of(any::<bool>()),
            part_ended in moment(), neighbour_refused in prop::option::of(any::<bool>()),
        ) {
            let attempt = Attempt { began: at(began), ended: at(began + took), connection, ending, bytes_in };
            let server = ServerSide { ready, stop_requested, reacted, killed, exited, part_ended, saw_request, neighbour_refused };
            let verdict = judge(&attempt, &server);
            prop_assert!(!verdict.grounds.is_empty());
            let open = matches!(verdict.outcome, Outcome::Unknown | Outcome::Lost { cause: Cause::Unknown });
            prop_assert_eq!(open, verdict.grounds.contains("missing: "), "{:?}", verdict);
            if let Ending::Complete { status: 100..500 } = ending {
                prop_assert!(matches!(verdict.outcome, Outcome::Answered { .. }), "{:?}", verdict);
            }
            if server.stop_requested.is_none() {
                let of_a_stop = [Cause::RefusedWhileRouted, Cause::KilledAtDeadline, Cause::SignalNotDelivered]
                    .map(|cause| Outcome::Lost { cause });
                prop_assert!(!of_a_stop.contains(&verdict.outcome));
            }
        }
    }
}
