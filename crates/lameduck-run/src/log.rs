//! What lameduck says while it runs: one line at a time, to standard error only, and never at the price of blocking.

use std::fmt::{self, Write};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::time::{ClockId, clock_gettime};

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `lameduck: message`.
    Text,
    /// `{"ts":...,"level":...,"msg":...}`.
    Json,
}

/// How much a line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// What was done.
    Info,
    /// What went wrong, and what was done instead.
    Warn,
}

/// The longest line that a pipe takes whole or not at all (`PIPE_BUF`, pipe(7)).
const LINE: usize = 4096;

/// Writes lines to standard error.
#[derive(Debug)]
pub struct Log {
    format: Format,
    dropped: u64,
    /// Standard error, opened once more: not to block is then a property of ours alone, not of the child's too. `None` where
    /// it can not be opened (a socket, or another user's).
    own: Option<OwnedFd>,
}

impl Log {
    /// A log of this format.
    pub fn new(format: Format) -> Log {
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::APPEND;
        let own = rustix::fs::open("/proc/self/fd/2", flags, Mode::empty()).ok();
        Log { format, dropped: 0, own }
    }

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        match &self.own {
            Some(own) => write_all(own.as_fd(), bytes),
            None => write_all(rustix::stdio::stderr(), bytes),
        }
    }

    /// Writes one line. If the reader of standard error does not keep up, the line is dropped and the next one says so:
    /// PID 1 must not wait for a log collector.
    pub fn line(&mut self, level: Level, message: fmt::Arguments<'_>) {
        if self.dropped > 0 {
            let dropped = std::mem::take(&mut self.dropped);
            self.one(Level::Warn, format_args!("{dropped} lines dropped: nobody reads standard error"));
        }
        self.one(level, message);
    }

    /// Writes an informative line.
    pub fn info(&mut self, message: fmt::Arguments<'_>) {
        self.line(Level::Info, message);
    }

    /// Writes a warning.
    pub fn warn(&mut self, message: fmt::Arguments<'_>) {
        self.line(Level::Warn, message);
    }

    /// Writes the drain report, which may be longer than a line; waits for the reader up to `patience`.
    pub fn report(&mut self, json: &str, patience: Duration) {
        let line = match self.format {
            Format::Text => format!("lameduck: report {json}\n"),
            Format::Json => {
                format!("{{\"ts\":\"{}\",\"level\":\"info\",\"msg\":\"report\",\"report\":{json}}}\n", Utc::now())
            }
        };
        for chunk in line.as_bytes().chunks(LINE) {
            if !writable(patience) || self.write(chunk).is_err() {
                return;
            }
        }
    }

    fn one(&mut self, level: Level, message: fmt::Arguments<'_>) {
        let mut line = Line::default();
        // Writing to a `Line` cuts, it does not fail.
        let _ = match self.format {
            Format::Text if level == Level::Warn => write!(line, "lameduck: warning: {message}"),
            Format::Text => write!(line, "lameduck: {message}"),
            Format::Json => {
                let name = if level == Level::Warn { "warn" } else { "info" };
                let _ = write!(line, "{{\"ts\":\"{}\",\"level\":\"{name}\",\"msg\":\"", Utc::now());
                let _ = write!(Escaped(&mut line), "{message}");
                line.close("\"}");
                Ok(())
            }
        };
        line.end();
        if !writable(Duration::ZERO) || self.write(line.bytes()).is_err() {
            self.dropped += 1;
        }
    }
}

/// Writes raw bytes to standard error, as the personalities do.
pub fn raw(message: fmt::Arguments<'_>) {
    let mut line = Line::default();
    let _ = write!(line, "{message}");
    line.end();
    if writable(Duration::ZERO) {
        let _ = write_all(rustix::stdio::stderr(), line.bytes());
    }
}

/// A pipe that reports room has room for `PIPE_BUF` bytes (pipe(7)), so a write of one line does not block.
fn writable(patience: Duration) -> bool {
    let stderr = rustix::stdio::stderr();
    let mut fds = [PollFd::new(&stderr, PollFlags::OUT)];
    let timeout = Timespec { tv_sec: patience.as_secs() as i64, tv_nsec: i64::from(patience.subsec_nanos()) };
    matches!(poll(&mut fds, Some(&timeout)), Ok(1)) && fds[0].revents().contains(PollFlags::OUT)
}

fn write_all(to: BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let n = rustix::io::write(to, bytes)?;
        bytes = &bytes[n..];
    }
    Ok(())
}

/// A line in a fixed buffer; what does not fit is cut.
struct Line {
    buffer: [u8; LINE],
    length: usize,
}

impl Default for Line {
    fn default() -> Self {
        Line { buffer: [0; LINE], length: 0 }
    }
}

impl Line {
    /// Room kept for a closing text and the newline.
    const TAIL: usize = 8;

    fn close(&mut self, text: &str) {
        for byte in text.bytes() {
            self.buffer[self.length] = byte;
            self.length += 1;
        }
    }

    fn end(&mut self) {
        self.buffer[self.length] = b'\n';
        self.length += 1;
    }

    fn bytes(&self) -> &[u8] {
        &self.buffer[..self.length]
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = (LINE - Line::TAIL).saturating_sub(self.length);
        let cut = text.floor_char_boundary(room);
        self.buffer[self.length..self.length + cut].copy_from_slice(&text.as_bytes()[..cut]);
        self.length += cut;
        Ok(())
    }
}

/// Escapes a text for the inside of a JSON string (RFC 8259 section 7).
struct Escaped<'a>(&'a mut Line);

impl Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut plain = 0;
        for (at, byte) in text.bytes().enumerate() {
            if byte == b'"' || byte == b'\\' || byte < 0x20 {
                // An escape is written whole or not at all.
                if LINE - Line::TAIL - self.0.length < at - plain + 6 {
                    return Ok(());
                }
                self.0.write_str(&text[plain..at])?;
                write!(self.0, "\\u{byte:04x}")?;
                plain = at + 1;
            }
        }
        self.0.write_str(&text[plain..])
    }
}

/// A time of day in UTC (RFC 3339), to the millisecond.
struct Utc {
    seconds: i64,
    millis: i64,
}

impl Utc {
    fn now() -> Utc {
        let now = clock_gettime(ClockId::Realtime);
        Utc { seconds: now.tv_sec, millis: now.tv_nsec / 1_000_000 }
    }
}

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Days since 1970 to a civil date: the era is 400 years of 146,097 days, the year begins in March.
        let (days, second) = (self.seconds.div_euclid(86_400), self.seconds.rem_euclid(86_400));
        let shifted = days + 719_468;
        let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        let year = era * 400 + year_of_era + i64::from(month <= 2);
        let (hour, minute, second, millis) = (second / 3600, second / 60 % 60, second % 60, self.millis);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn civil_dates() {
        let check = |seconds, expect: &str| assert_eq!(Utc { seconds, millis: 7 }.to_string(), expect);
        check(0, "1970-01-01T00:00:00.007Z");
        check(951_782_400, "2000-02-29T00:00:00.007Z");
        check(1_795_219_200, "2026-11-21T00:00:00.007Z");
        check(4_107_542_399, "2100-02-28T23:59:59.007Z");
    }

    proptest! {
        /// Whatever the message, a JSON line is one line of valid JSON, cut where it must be.
        #[test]
        fn json_lines_are_json(message in prop::collection::vec(any::<char>(), 0..3000)) {
            let message: String = message.into_iter().collect();
            let mut line = Line::default();
            line.write_str("{\"msg\":\"").unwrap();
            write!(Escaped(&mut line), "{message}").unwrap();
            line.close("\"}");
            line.end();
            let value: serde_json::Value = serde_json::from_slice(line.bytes()).unwrap();
            let read = value["msg"].as_str().unwrap();
            prop_assert!(message.starts_with(read));
            prop_assert_eq!(line.bytes().iter().position(|b| *b == b'\n'), Some(line.bytes().len() - 1));
        }
    }
}
