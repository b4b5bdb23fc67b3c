//! What application servers and runtimes say at their end. Each line is a fact about the process that wrote it; whose log
//! that is, the name of the file has to say.

use super::Context;
use super::own::stamp;
use super::words::has;
use crate::record::{Event, EventKind, Line};
use crate::time;

/// What a server's words mean.
struct Saying {
    /// What stands in the line.
    words: &'static str,
    /// What it means.
    means: EventKind,
}

const fn saying(words: &'static str, means: EventKind) -> Saying {
    Saying { words, means }
}

/// The table. Sources: the servers' own sources and real logs; see `docs/explain.md`.
const SAYINGS: &[Saying] = &[
    saying("Gracefully stopping, waiting for requests to finish", EventKind::AppStopping),
    saying("Gracefully shutting down workers", EventKind::AppStopping),
    saying("=== puma shutdown:", EventKind::AppStopping),
    saying("Goodbye!", EventKind::Ended),
    saying("Terminating timed out worker", EventKind::WorkerEnded),
    saying("WORKER TIMEOUT", EventKind::WorkerEnded),
    saying("was sent SIGKILL! Perhaps out of memory?", EventKind::WorkerEnded),
    saying("Handling signal: term", EventKind::AppStopping),
    saying("Handling signal: quit", EventKind::AppStopping),
    saying("Shutting down: Master", EventKind::Ended),
    saying("Waiting for connections to close. (CTRL+C to force quit)", EventKind::AppStopping),
    saying("INFO:     Shutting down", EventKind::AppStopping),
    saying("Finished server process [", EventKind::Ended),
    saying("Signal received. Gracefully shutting down", EventKind::AppStopping),
    saying("Received command to shutdown gracefully", EventKind::AppStopping),
    saying("JavaScript heap out of memory", EventKind::Crashed),
    saying("npm ERR! signal SIGTERM", EventKind::AppStopping),
    // npm 10 and later.
    saying("npm error signal SIGTERM", EventKind::AppStopping),
    saying("Commencing graceful shutdown. Waiting for active requests to complete", EventKind::AppStopping),
    saying("Graceful shutdown complete", EventKind::Ended),
    saying("Application is shutting down...", EventKind::AppStopping),
    saying("caught SIGTERM, shutting down", EventKind::AppStopping),
    saying("caught SIGWINCH, shutting down gracefully", EventKind::AppStopping),
    saying("shutdown initiated", EventKind::AppStopping),
];

/// What servers say while they live; understood, of no interest.
const SMALL_TALK: &[&str] = &[
    "Started server process [",
    "Waiting for application",
    "Application startup complete",
    "Uvicorn running on",
    "Application shutdown complete",
    "Starting gunicorn",
    "Listening at: ",
    "Listening on ",
    "Using worker: ",
    "Booting worker with pid",
    "Worker exiting (pid",
    "Puma starting in",
    "* Puma version",
    "Use Ctrl-C to stop",
    "lameduck: ",
];

/// The time of a line: its own, or what the runtime put before it.
fn when(line: &[u8], zone: time::Micros) -> Option<time::Micros> {
    // `=== puma shutdown: 2021-10-18 06:59:25 +0000 ===`
    let from = memchr::memmem::find(line, b"shutdown: ").map_or(0, |at| at + 10);
    stamp(&line[from..], zone).or_else(|| stamp(line, zone)).or_else(|| apache(line, zone))
}

/// Apache's `[Sat Nov 21 18:10:40.123456 2026]`.
fn apache(line: &[u8], zone: time::Micros) -> Option<time::Micros> {
    let inside = line.strip_prefix(b"[")?;
    let inside = std::str::from_utf8(&inside[..memchr::memchr(b']', inside)?]).ok()?;
    let mut words = inside.split_ascii_whitespace().skip(1);
    let (month, day, clock, year) = (words.next()?, words.next()?, words.next()?, words.next()?);
    time::common(format!("{day:0>2}/{month}/{year}:{clock}").as_bytes(), zone)
}

/// Reads a line.
pub fn read(line: &[u8], context: Context) -> Option<Line<'_>> {
    let Some(saying) = SAYINGS.iter().find(|saying| has(line, saying.words)) else {
        return SMALL_TALK.iter().any(|words| has(line, words)).then_some(Line::Nothing);
    };
    // Without a time it can not be put beside anything.
    let Some(at) = when(line, context.zone) else { return Some(Line::Nothing) };
    let words = String::from_utf8_lossy(&line[..line.len().min(200)]).trim().to_owned();
    Some(Line::Events(vec![Event { at, kind: saying.means, subject: String::new(), words }]))
}
