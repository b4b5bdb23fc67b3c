//! The front: a draining HTTP proxy in the path of the traffic.
//!
//! It is a process of its own, started by PID 1 with the listening sockets as inherited descriptors, so that neither a crash
//! nor a restart of it loses a connection. It tells clients that never leave by themselves to leave, from the first
//! millisecond of a drain, and loses nothing that they send meanwhile.

mod access;
mod account;
mod answer;
pub mod chunked;
mod clock;
pub mod config;
mod connection;
mod exchange;
mod http2;
pub mod message;
mod pool;
pub mod proxy_protocol;
pub mod sse;
mod state;
mod tunnel;
mod upstream;
pub mod websocket;
mod wire;

use std::future::poll_fn;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use lameduck_core::front::{Command, FrontPhase, Page, Slot};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::{TcpListener, UnixStream};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{Instant, Sleep};

use access::AccessLog;
pub use access::SCHEMA as ACCESS_SCHEMA;
pub use config::Config;
use state::Front;

/// What PID 1 hands to the front.
#[derive(Debug)]
pub struct Handover {
    /// Listening sockets, ready to accept.
    pub listeners: Vec<OwnedFd>,
    /// A stream socket (unix(7)) on which [`Command`] bytes come. Its end is PID 1's end.
    pub commands: OwnedFd,
    /// The counters that PID 1 reads.
    pub page: Page,
}

/// Descriptors that are not for connections: standard ones, the log, the runtime's, what a hook may open.
const OTHER_DESCRIPTORS: u64 = 64;
/// Connections that may be told that there are too many; further ones wait in the backlog.
const TURNED_AWAY_AT_ONCE: u64 = 64;
/// Connections accepted in one turn.
const MOST_ACCEPTS: usize = 64;
/// How long no connection is accepted after there was no descriptor for one.
const PAUSE: Duration = Duration::from_millis(20);

/// Serves until PID 1 says that it is over, and everybody has left.
pub fn serve(config: Config, handover: Handover) -> io::Result<()> {
    let log = config.access_log.as_ref().map(AccessLog::open).transpose()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    LocalSet::new().block_on(&runtime, run(config, handover, log))
}

async fn run(config: Config, handover: Handover, log: Option<AccessLog>) -> io::Result<()> {
    let page = handover.page;
    let descriptors = raise_descriptor_limit();
    let limit = match config.max_connections {
        // One for the client, one for the app.
        0 => (descriptors.saturating_sub(OTHER_DESCRIPTORS) / 2).max(16),
        limit => limit as u64,
    };
    let commands = StdUnixStream::from(handover.commands);
    commands.set_nonblocking(true)?;
    let mut master = Master {
        front: Front::new(config, page, log, RandomState::new().hash_one(page.get(Slot::Restarts))),
        listeners: handover.listeners.into_iter().map(listener).collect::<io::Result<_>>()?,
        commands: UnixStream::from_std(commands)?,
        tick: Box::pin(tokio::time::sleep(Duration::ZERO)),
        limit,
        paused: false,
    };
    poll_fn(|cx| master.poll(cx)).await;
    let Master { front, listeners, .. } = master;
    drop(listeners);
    page.set_phase(FrontPhase::Closed);
    if let Some(log) = &front.log {
        log.flush(page);
    }
    Ok(())
}

fn listener(socket: OwnedFd) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::from(socket);
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// As many descriptors as the hard limit allows (getrlimit(2)): this process has no `select` that more would break.
fn raise_descriptor_limit() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let now = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: now.maximum, maximum: now.maximum };
    let _ = setrlimit(Resource::Nofile, raised);
    getrlimit(Resource::Nofile).current.unwrap_or(1 << 20)
}

/// Accepts, listens to PID 1 and keeps the clock.
struct Master {
    front: Rc<Front>,
    listeners: Vec<TcpListener>,
    commands: UnixStream,
    tick: Pin<Box<Sleep>>,
    limit: u64,
    /// Nobody is accepted until the next tick.
    paused: bool,
}

impl Master {
    /// Ready: everybody has left, or PID 1 has.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.poll_commands(cx).is_ready() {
            return Poll::Ready(());
        }
        while self.tick.as_mut().poll(cx).is_ready() {
            self.paused = false;
            self.front.tick();
            let next = if self.front.draining() || self.paused { state::DRAIN_TICK } else { state::SERVING_TICK };
            self.tick.as_mut().reset(Instant::now() + next);
        }
        let accepted = self.poll_accept(cx);
        let nobody = self.front.page.get(Slot::Connections) == 0;
        if !accepted && nobody && self.front.phase() == FrontPhase::Closing {
            return Poll::Ready(());
        }
        Poll::Pending
    }

    /// Ready: PID 1 is gone, and with it whoever would end this process.
    fn poll_commands(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let mut bytes = [0; 16];
            let mut read = ReadBuf::new(&mut bytes);
            match Pin::new(&mut self.commands).poll_read(cx, &mut read) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(())) if read.filled().is_empty() => return Poll::Ready(()),
                Poll::Ready(Ok(())) => {}
            }
            for command in read.filled().iter().filter_map(|byte| Command::from_byte(*byte)) {
                self.front.command(command);
            }
            // From now on the clock goes faster.
            self.tick.as_mut().reset(Instant::now());
        }
    }

    /// Accepts who waits; whether there was anybody.
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> bool {
        let mut accepted = false;
        for listener in &self.listeners {
            for turn in 0..=MOST_ACCEPTS {
                if self.paused {
                    return accepted;
                }
                if turn == MOST_ACCEPTS {
                    cx.waker().wake_by_ref();
                    break;
                }
                match listener.poll_accept(cx) {
                    Poll::Pending => break,
                    Poll::Ready(Ok((stream, peer))) => {
                        accepted = true;
                        let front = &self.front;
                        let open = front.page.get(Slot::Connections);
                        front.page.add(Slot::Accepted, 1);
                        front.page.add(Slot::AcceptedLate, u64::from(front.draining()));
                        // Counted from here on: many may come in one turn.
                        let seat = front.open();
                        if open < self.limit {
                            spawn_local(connection::serve(Rc::clone(front), stream, peer, seat));
                        } else {
                            self.paused = open >= self.limit + TURNED_AWAY_AT_ONCE;
                            spawn_local(connection::turn_away(Rc::clone(front), stream, peer, seat));
                        }
                    }
                    Poll::Ready(Err(error)) => {
                        // accept(2): a connection that is gone already is no matter. No descriptor, no memory: those who
                        // wait in the backlog go on waiting.
                        let errno = rustix::io::Errno::from_io_error(&error);
                        if !matches!(errno, Some(rustix::io::Errno::CONNABORTED | rustix::io::Errno::INTR)) {
                            self.front.page.add(Slot::AcceptPaused, 1);
                            self.paused = true;
                        }
                    }
                }
            }
        }
        if self.paused {
            self.tick.as_mut().reset(Instant::now() + PAUSE);
        }
        accepted
    }
}
