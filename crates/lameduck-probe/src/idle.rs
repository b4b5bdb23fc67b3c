//! How long a connection is kept, how many requests it takes, and what becomes of a request that meets the close.

use std::io::Read;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::clock::now;
use crate::wire::{Answer, Ended, Target};

/// For an answer.
const ANSWER: Duration = Duration::from_secs(10);
/// Requests sent to meet the close, spread around it.
const MEETING: usize = 16;

/// What a request that met the close came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Meeting {
    /// Sent.
    pub sent: u32,
    /// Answered.
    pub answered: u32,
    /// Closed without an answer.
    pub closed: u32,
    /// Reset.
    pub reset: u32,
}

/// How long until the server closes, in seconds; none: it had not after `most`.
fn until_closed(stream: &mut TcpStream, from: Instant, most: Duration) -> Option<f64> {
    let left = most.saturating_sub(from.elapsed()).max(Duration::from_millis(1));
    stream.set_read_timeout(Some(left)).ok()?;
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Some(from.elapsed().as_secs_f64()),
            // A 408 before the close is part of it.
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                return None;
            }
            Err(_) => return Some(from.elapsed().as_secs_f64()),
        }
    }
}

/// How long a connection is kept before its first request, and after an answer; and what the server says of itself.
#[derive(Debug, Clone, Default)]
pub struct Idle {
    /// Until an unused connection was closed.
    pub before_first: Option<f64>,
    /// Until one was closed after an answer.
    pub after_answer: Option<f64>,
    /// That answer; none: there was none.
    pub answer: Option<Answer>,
}

/// Both, side by side. The answer comes first: a connection that is never used can be all that a worker looks at.
pub fn idle(target: &Target, most: Duration) -> Idle {
    let Ok(mut used) = target.connect(ANSWER) else { return Idle::default() };
    let (ended, answer) = target.ask(&mut used, &target.path, ANSWER);
    let answered = now();
    if ended != Ended::Answered {
        return Idle::default();
    }
    std::thread::scope(|scope| {
        let before = scope.spawn(|| {
            let mut unused = target.connect(ANSWER).ok()?;
            until_closed(&mut unused, now(), most)
        });
        let after_answer = until_closed(&mut used, answered, most);
        drop(used);
        Idle { before_first: before.join().unwrap_or(None), after_answer, answer: Some(answer) }
    })
}

/// Requests on one connection, up to `most`, and whether the last answer announced the close.
pub fn requests(target: &Target, most: u32) -> (Option<u32>, Option<bool>) {
    let Ok(mut stream) = target.connect(ANSWER) else { return (None, None) };
    for n in 0..most {
        let (ended, answer) = target.ask(&mut stream, &target.path, ANSWER);
        if ended != Ended::Answered {
            return (Some(n), Some(false));
        }
        if answer.closes {
            return (Some(n + 1), Some(true));
        }
    }
    (None, None)
}

/// Requests sent just around the moment of the close.
pub fn meet(target: &Target, idle: f64) -> Meeting {
    let outcomes: Vec<Ended> = std::thread::scope(|scope| {
        let sent: Vec<_> = (0..MEETING)
            .map(|n| {
                // From 8 ms before to 7 ms after.
                let early = 0.008 - n as f64 * 0.001;
                scope.spawn(move || meet_once(target, idle - early))
            })
            .collect();
        sent.into_iter().filter_map(|thread| thread.join().ok().flatten()).collect()
    });
    let mut meeting = Meeting { sent: outcomes.len() as u32, ..Meeting::default() };
    for ended in outcomes {
        match ended {
            Ended::Answered => meeting.answered += 1,
            Ended::Closed | Ended::Cut | Ended::TimedOut => meeting.closed += 1,
            Ended::Reset | Ended::Refused => meeting.reset += 1,
        }
    }
    meeting
}

fn meet_once(target: &Target, wait: f64) -> Option<Ended> {
    let mut stream = target.connect(ANSWER).ok()?;
    let (ended, _) = target.ask(&mut stream, &target.path, ANSWER);
    let from = now();
    if ended != Ended::Answered {
        return None;
    }
    let wait = Duration::try_from_secs_f64(wait).ok()?;
    std::thread::sleep(wait.saturating_sub(from.elapsed()));
    Some(target.ask(&mut stream, &target.path, ANSWER).0)
}
