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

/// Idle before the first request.
pub fn before_first(target: &Target, most: Duration) -> Option<f64> {
    let mut stream = target.connect(ANSWER).ok()?;
    until_closed(&mut stream, now(), most)
}

/// Idle after an answer, and what the server says of itself.
pub fn after_answer(target: &Target, most: Duration) -> (Option<f64>, Option<Answer>) {
    let Ok(mut stream) = target.connect(ANSWER) else { return (None, None) };
    let (ended, answer) = target.ask(&mut stream, &target.path, ANSWER);
    if ended != Ended::Answered {
        return (None, None);
    }
    (until_closed(&mut stream, now(), most), Some(answer))
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
