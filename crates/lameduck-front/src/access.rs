//! The access log: a line of JSON for each request, schema `lameduck.access/1`.

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;

use lameduck_core::front::{Page, Slot};
use serde::Serialize;

use crate::config;

/// The schema of [`Line`].
pub const SCHEMA: &str = "lameduck.access/1";

/// Written at once above this, in bytes; else with the next tick of the clock.
const WRITE_AT: usize = 16 << 10;
/// Lines that cannot be written are dropped, and counted, above this.
const MOST: usize = 1 << 20;

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ended {
    /// Answered completely.
    Answered,
    /// Refused: not a request that can be forwarded.
    Refused,
    /// Turned away: a limit or the budget was reached.
    Shed,
    /// The app broke the connection before its answer, or can not be reached.
    BadGateway,
    /// The app did not answer in time.
    GatewayTimeout,
    /// The app broke off in the middle of its answer.
    CutByApp,
    /// The client left.
    ClientGone,
    /// The time was over.
    CutAtDeadline,
}

impl Ended {
    /// Where it is counted.
    pub const fn slot(self) -> Slot {
        match self {
            Ended::Answered => Slot::Answered,
            Ended::Refused => Slot::Refused,
            Ended::Shed => Slot::Shed,
            Ended::BadGateway => Slot::BadGateway,
            Ended::GatewayTimeout => Slot::GatewayTimeout,
            Ended::CutByApp => Slot::CutByApp,
            Ended::ClientGone => Slot::ClientGone,
            Ended::CutAtDeadline => Slot::CutAtDeadline,
        }
    }
}

/// One request.
#[derive(Debug, Clone, Serialize)]
pub struct Line<'a> {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// When it arrived, seconds since 1970.
    pub time: f64,
    /// Its `X-Request-Id`.
    pub id: &'a str,
    /// Who sent it.
    pub client: IpAddr,
    /// `HTTP/1.1` or `HTTP/2`.
    pub protocol: &'static str,
    /// The method.
    pub method: &'a str,
    /// The target.
    pub target: &'a str,
    /// The status of the answer; 0: there was none.
    pub status: u16,
    /// The phase of the drain when it arrived.
    pub phase: &'static str,
    /// Whether a probe sent it.
    pub probe: bool,
    /// How it ended.
    pub ended: Ended,
    /// From its arrival to its end.
    pub took_s: f64,
    /// From its arrival until the app's answer began.
    pub app_s: Option<f64>,
    /// How long it was held while the app did not listen.
    pub held_s: f64,
    /// How many times it was sent again.
    pub retries: u32,
}

/// The log.
#[derive(Debug)]
pub struct AccessLog {
    file: File,
    buffer: RefCell<Vec<u8>>,
}

impl AccessLog {
    /// Opens it. Nobody who reads it holds up the requests: a pipe does not block, and standard output, which the app has too,
    /// is opened once more for that where it can be.
    pub fn open(to: &config::AccessLog) -> io::Result<AccessLog> {
        let mut options = OpenOptions::new();
        options.append(true).custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed());
        let file = match to {
            config::AccessLog::Stdout => match options.open("/proc/self/fd/1") {
                Ok(own) => own,
                Err(_) => File::from(io::stdout().as_fd().try_clone_to_owned()?),
            },
            config::AccessLog::File(path) => options.create(true).open(path)?,
        };
        Ok(AccessLog { file, buffer: RefCell::default() })
    }

    /// Adds a line.
    pub fn add(&self, line: &Line<'_>, page: Page) {
        let mut buffer = self.buffer.borrow_mut();
        if buffer.len() > MOST {
            page.add(Slot::LogLost, 1);
            return;
        }
        // Plain data; a failure would leave half a line, which the line's end closes.
        let _ = serde_json::to_writer(&mut *buffer, line);
        buffer.push(b'\n');
        let full = buffer.len() >= WRITE_AT;
        drop(buffer);
        if full {
            self.flush(page);
        }
    }

    /// Writes what there is.
    pub fn flush(&self, page: Page) {
        let mut buffer = self.buffer.borrow_mut();
        let mut written = 0;
        while written < buffer.len() {
            match (&self.file).write(&buffer[written..]) {
                Ok(0) => break,
                Ok(n) => written += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A pipe that nobody empties: what is left is tried again with the next tick.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => {
                    page.add(Slot::LogLost, memchr::memchr_iter(b'\n', &buffer[written..]).count() as u64);
                    written = buffer.len();
                }
            }
        }
        buffer.drain(..written);
    }
}
