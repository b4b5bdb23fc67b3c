//! Verdicts where a proxy stands between: the client sees the proxy's answer, and which replica an attempt went to is told by the replicas' own
//! logs and lives. The law is the same; what is not known of the attempt is not made up.

use std::time::Duration;

use lameduck_core::judge::{Attempt, Connection, Ending, SLACK};
use lameduck_core::timeline::Moment;
use lameduck_core::{Cause, Outcome, ServerSide, Verdict, judge};

use crate::evidence::LogKind;
use crate::plan::Via;
use crate::record::Record;
use crate::run::{Observation, Observed};
use crate::settle::server_side;

/// What is known of a request behind a proxy.
pub(crate) struct Behind {
    pub(crate) verdict: Verdict,
    /// Whether a replica had it.
    pub(crate) saw: Option<bool>,
    /// Which, or which it was meant for.
    pub(crate) replica: Option<usize>,
}

/// Judges one request.
pub(crate) fn judged(record: &Record, via: Via, seen: &Observation) -> Behind {
    let whose = seen.log.whose(record.id);
    let in_a_log = seen.log.saw(record.id).is_some();
    let saw = match (record.echoed || in_a_log, seen.log_kind) {
        (true, _) => Some(true),
        (false, LogKind::EveryArrival) => Some(false),
        (false, LogKind::None | LogKind::Some) => None,
    };
    let attempt = record.attempt;
    let suspects = suspects(&attempt, seen);
    let replica = whose.or(match suspects[..] {
        // Who had it is somebody else, that routing never spoke of.
        [only] if !in_a_log => Some(only),
        _ => None,
    });
    let verdict = match (attempt.ending, saw) {
        (Ending::Complete { status: ..500 } | Ending::Pending, _) => judge(&attempt, &ServerSide::default()),
        // An answer that carries the id back is the service's own.
        (Ending::Complete { .. }, _) if record.echoed => judge(&attempt, &ServerSide::default()),
        (Ending::Complete { status: 504 }, Some(true)) => judge(&attempt, &ServerSide::default()),
        (_, Some(true)) => {
            let cut =
                Attempt { connection: Connection::Fresh, ending: Ending::Fin, bytes_in: part(&attempt), ..attempt };
            replica.map_or(NOBODY, |replica| {
                judge(&at_its_end(cut, replica, seen), &server_side(&seen.lives[replica].life, saw))
            })
        }
        // A part of an answer is a replica's: a proxy writes its own in one piece.
        (Ending::Fin | Ending::Rst | Ending::Aborted, None) if attempt.bytes_in > 0 => {
            let cut = Attempt { connection: Connection::Fresh, ending: Ending::Fin, ..attempt };
            replica.map_or(NOBODY, |replica| {
                judge(&at_its_end(cut, replica, seen), &server_side(&seen.lives[replica].life, saw))
            })
        }
        (_, Some(false)) => unread(&attempt, &suspects, via, seen),
        (_, None) => match suspects[..] {
            [one] if gone(one, attempt.began, seen) => unread(&attempt, &suspects, via, seen),
            _ => open("failed behind the proxy; missing: whether a replica had read it (its log)"),
        },
    };
    Behind { verdict, saw, replica }
}

const NOBODY: Verdict = open("failed behind the proxy; missing: which replica it went to");

const fn open(grounds: &'static str) -> Verdict {
    Verdict { outcome: Outcome::Lost { cause: Cause::Unknown }, grounds }
}

/// The bytes that came of the replica's answer; a whole answer for a failure is the proxy's.
fn part(attempt: &Attempt) -> u64 {
    match attempt.ending {
        Ending::Complete { .. } => 0,
        Ending::Fin
        | Ending::Rst
        | Ending::TimedOut
        | Ending::NotProcessed
        | Ending::Aborted
        | Ending::Malformed
        | Ending::Pending => attempt.bytes_in,
    }
}

/// The replicas that were not simply serving while it was under way.
fn suspects(attempt: &Attempt, seen: &Observation) -> Vec<usize> {
    let by = |at: Option<Duration>, end: Duration| at.is_some_and(|at| at <= end);
    let suspect = |replica: &usize| {
        let life = &seen.lives[*replica].life;
        let stopping =
            by(life.at(Moment::TermReceived), attempt.ended) || by(life.at(Moment::Exited), attempt.ended + SLACK);
        // Of those that have an address one after another it is the last that was ready, and the first until one is.
        let address = |other: &&Observed| other.address == seen.lives[*replica].address;
        let mut others = seen.lives[replica + 1..].iter().filter(address);
        let taken = others.any(|later| by(later.life.at(Moment::Ready), attempt.began));
        let ready = by(life.at(Moment::Ready), attempt.ended);
        let first = !seen.lives[..*replica].iter().any(|other| address(&other));
        !taken && (ready || first) && (stopping || !ready)
    };
    (0..seen.lives.len()).filter(suspect).collect()
}

/// A connection ends with its process, whenever the proxy tells of it.
fn at_its_end(attempt: Attempt, replica: usize, seen: &Observation) -> Attempt {
    match seen.lives[replica].life.at(Moment::Exited) {
        Some(exited) if attempt.began <= exited => Attempt { ended: attempt.ended.min(exited), ..attempt },
        Some(_) | None => attempt,
    }
}

fn gone(replica: usize, at: Duration, seen: &Observation) -> bool {
    let life = &seen.lives[replica].life;
    life.at(Moment::Exited).is_some_and(|exited| exited + SLACK < at)
        || life.at(Moment::Ready).is_none_or(|ready| at < ready)
}

/// No replica read it.
fn unread(attempt: &Attempt, suspects: &[usize], via: Via, seen: &Observation) -> Verdict {
    let took = attempt.ended.saturating_sub(attempt.began);
    // The proxy's own timer rounds.
    let unanswered = took + Duration::from_millis(20) >= via.connect_timeout;
    let how = |connection, ending| Attempt { connection, ending, bytes_in: 0, ..*attempt };
    match suspects {
        [one] => {
            let life = &seen.lives[*one].life;
            let server = server_side(life, Some(false));
            // Once its listener is closed, and until its connections are, a kept one may have been the way.
            let closing = life.at(Moment::TermReceived).is_some() && !gone(*one, attempt.began, seen);
            // A proxy may give up together with others that have waited longer.
            let after = life.at(Moment::Exited).is_some_and(|exited| exited <= attempt.began);
            let silent = life.unreachable && (after || took > SLACK);
            if unanswered || silent {
                judge(&how(Connection::TimedOut, Ending::TimedOut), &server)
            } else if via.keeps && closing {
                open(
                    "not read by a replica that was stopping; missing: whether it came on a kept connection (a capture)",
                )
            } else {
                judge(&how(Connection::Refused, Ending::Rst), &server)
            }
        }
        [] if unanswered => {
            // Every replica listened and none had it.
            let up = ServerSide { ready: Some(Duration::ZERO), ..ServerSide::default() };
            judge(&how(Connection::TimedOut, Ending::TimedOut), &up)
        }
        [] if via.keeps && took <= SLACK => {
            let reused = Connection::Reused { idle: Duration::ZERO, requests_before: 1 };
            judge(&how(reused, Ending::Rst), &ServerSide { saw_request: Some(false), ..ServerSide::default() })
        }
        // Nothing was wrong with any of them, and no kept connection can have been: the proxy's own rule.
        [] if !via.keeps && attempt.ending == (Ending::Complete { status: 503 }) => {
            judge(attempt, &ServerSide::default())
        }
        [] | [_, ..] => NOBODY,
    }
}
