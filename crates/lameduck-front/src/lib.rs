//! The front: a draining HTTP proxy in the path of the traffic.
//!
//! It is a process of its own, started by PID 1 with the listening sockets as inherited descriptors, so that neither a crash
//! nor a restart of it loses a connection. It tells clients that never leave by themselves to leave, from the first
//! millisecond of a drain, and loses nothing that they send meanwhile.

pub mod chunked;
pub mod config;
pub mod proxy_protocol;
pub mod sse;
pub mod websocket;

use std::io;
use std::os::fd::OwnedFd;

use lameduck_core::front::Page;

pub use config::Config;

/// What PID 1 hands to the front.
#[derive(Debug)]
pub struct Handover {
    /// Listening sockets, ready to accept.
    pub listeners: Vec<OwnedFd>,
    /// A stream socket (unix(7)) on which [`Command`](lameduck_core::front::Command) bytes come. Its end is PID 1's end.
    pub commands: OwnedFd,
    /// The counters that PID 1 reads.
    pub page: Page,
}

/// Serves until PID 1 says that it is over.
pub fn serve(_config: Config, _handover: Handover) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
