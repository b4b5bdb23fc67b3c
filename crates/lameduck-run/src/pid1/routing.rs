//! The process that watches `EndpointSlices` (`--watch-endpoints`), seen from PID 1: one that checks at the start whether it will work,
//! and one in a lame duck. What they find they write to a pipe, a line each; nobody else has its other end.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use lameduck_core::duration::show;
use lameduck_core::report::{RoutingReport, RoutingState};
use lameduck_core::timeline::{Moment, Provenance};
use rustix::fs::OFlags;
use rustix::process::Pid;

use crate::log::Log;
use crate::machine::{Event, OnStop, Routing, State, Time};
use crate::sys::{self, ALL_SIGNALS, Session, Start};

use super::{Init, pipe};

/// The longest line that is read whole.
const LINE: usize = 1024;
/// Lines taken in one turn.
const MOST_LINES: usize = 64;

/// What the process is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Task {
    Check,
    Watch,
}

/// The watch.
#[derive(Debug)]
pub struct Watcher {
    /// The words that start it, after the program's own.
    words: Vec<OsString>,
    pid: Option<Pid>,
    output: Option<OwnedFd>,
    line: Vec<u8>,
    checked: bool,
    watched: bool,
    state: RoutingState,
    /// When routing was first told to be out, for good as far as is known.
    removed: Option<Time>,
    /// The last thing that was said: the same is not said again.
    said: String,
}

/// A line, read.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Routed(RoutingState),
    Say(String),
    Warn(String),
}

impl Watcher {
    /// Nothing runs yet.
    pub fn new(words: Vec<OsString>) -> Watcher {
        Watcher {
            words,
            pid: None,
            output: None,
            line: Vec::new(),
            checked: false,
            watched: false,
            state: RoutingState::Unknown,
            removed: None,
            said: String::new(),
        }
    }

    /// Its process.
    pub fn pid(&self) -> Option<Pid> {
        self.pid
    }

    /// The descriptor to poll.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.output.as_ref().map(AsFd::as_fd)
    }

    fn start(&mut self, task: Task, self_exe: &Path, log: &mut Log) {
        self.stop();
        match self.spawn(task, self_exe) {
            Ok(()) => {}
            Err(error) => {
                log.warn(format_args!(
                    "EndpointSlices can not be watched: no process for it: {error}; going on with --min"
                ));
            }
        }
    }

    fn spawn(&mut self, task: Task, self_exe: &Path) -> io::Result<()> {
        let mut words: Vec<OsString> = vec![self_exe.into()];
        words.extend(self.words.iter().cloned());
        words.push(if task == Task::Check { "check" } else { "watch" }.into());
        let command = sys::Command::new(&words).ok_or(io::ErrorKind::InvalidInput)?;
        let (read, write) = pipe()?;
        let (_read, status) = pipe()?;
        rustix::fs::fcntl_setfl(&read, OFlags::NONBLOCK)?;
        let pid = sys::spawn(&Start {
            command: &command,
            // Only PID 1 ends it.
            mask: ALL_SIGNALS,
            ignore_chld: false,
            session: Session::Background,
            foreground: false,
            directory: None,
            output: Some(write.as_fd()),
            hand: &[],
            status: status.as_fd(),
        })?;
        self.pid = Some(pid);
        self.output = Some(read);
        self.line.clear();
        Ok(())
    }

    /// Ends it; the reaper finds it.
    pub fn stop(&mut self) {
        if let Some(pid) = self.pid {
            let _ = sys::kill(pid, false, crate::signal::Signal::KILL);
        }
        self.output = None;
    }

    /// A process ended: was it this one?
    pub fn ended(&mut self, pid: Pid) -> bool {
        self.pid.take_if(|own| *own == pid).is_some()
    }

    /// Whole lines that have come.
    fn read(&mut self) -> Vec<Told> {
        let mut told = Vec::new();
        let mut chunk = [0; 4096];
        while let Some(output) = self.output.as_ref().filter(|_| told.len() < MOST_LINES) {
            match rustix::io::read(output, &mut chunk) {
                Ok(0) => {
                    self.output = None;
                    self.line.clear();
                }
                Ok(n) => {
                    for byte in &chunk[..n] {
                        if *byte == b'\n' {
                            told.extend(understand(&self.line));
                            self.line.clear();
                        } else if self.line.len() < LINE {
                            self.line.push(*byte);
                        }
                    }
                }
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => break,
                Err(_) => self.output = None,
            }
        }
        told
    }

    /// The report's part about it; times count from `began`.
    pub fn report(&self, began: Time) -> Option<RoutingReport> {
        let removed = self.removed.map(|at| (at.saturating_sub(began).as_secs_f64() * 1e3).round() / 1e3);
        self.watched.then_some(RoutingReport { state: self.state, removed })
    }
}

fn understand(line: &[u8]) -> Option<Told> {
    let text = String::from_utf8_lossy(line);
    match text.split_once(' ') {
        None => match &*text {
            "in" => Some(Told::Routed(RoutingState::In)),
            "last-resort" => Some(Told::Routed(RoutingState::LastResort)),
            "out" => Some(Told::Routed(RoutingState::Out)),
            "unknown" => Some(Told::Routed(RoutingState::Unknown)),
            _ => None,
        },
        Some(("say", text)) => Some(Told::Say(text.to_owned())),
        Some(("warn", text)) => Some(Told::Warn(text.to_owned())),
        // What it writes else is a failure of its own.
        Some(_) => Some(Told::Warn(text.into_owned())),
    }
}

impl Init {
    /// Starts what is due: the check once the command runs, the watch as the lame duck begins; ends it with the lame duck.
    pub(super) fn keep_routing(&mut self) {
        let state = self.machine.state();
        let acts = self.policy.on_stop == OnStop::Drain;
        let Some(watcher) = self.routing.as_mut().filter(|_| acts) else { return };
        match state {
            State::Serving if !watcher.checked => {
                watcher.checked = true;
                watcher.start(Task::Check, &self.self_exe, &mut self.log);
            }
            State::LameDuck if !watcher.watched => {
                (watcher.checked, watcher.watched) = (true, true);
                watcher.start(Task::Watch, &self.self_exe, &mut self.log);
            }
            State::Draining | State::Stopping | State::Killing if watcher.output.is_some() => watcher.stop(),
            State::Starting
            | State::Serving
            | State::LameDuck
            | State::Draining
            | State::Stopping
            | State::Killing
            | State::Exited { .. } => {}
        }
    }

    pub(super) fn hear_routing(&mut self) {
        let Some(watcher) = &mut self.routing else { return };
        let open = watcher.output.is_some();
        let told = watcher.read();
        let closed = open && watcher.output.is_none() && watcher.watched && watcher.state == RoutingState::In;
        for told in told {
            self.take_in_routing(told);
        }
        if closed {
            // It is gone, and was to tell more.
            self.take_in_routing(Told::Routed(RoutingState::Unknown));
        }
    }

    fn take_in_routing(&mut self, told: Told) {
        let now = self.now();
        let began = self.machine.drain().map_or(Duration::ZERO, |drain| drain.began);
        let in_lame_duck = self.machine.state() == State::LameDuck;
        let Some(watcher) = &mut self.routing else { return };
        match told {
            Told::Say(text) | Told::Warn(text) if text == watcher.said => {}
            Told::Say(text) => {
                self.log.info(format_args!("{text}"));
                watcher.said = text;
            }
            Told::Warn(text) => {
                self.log.warn(format_args!("--watch-endpoints: {text}"));
                watcher.said = text;
            }
            Told::Routed(state) if in_lame_duck => {
                let was = std::mem::replace(&mut watcher.state, state);
                if state == RoutingState::Out && was != state {
                    watcher.removed = Some(now);
                    self.book.timeline.record(now, Moment::EndpointRemoved, Provenance::Observed);
                    let took = now.saturating_sub(began);
                    self.log
                        .info(format_args!("routing took this pod out, by its EndpointSlices, after {}", show(took)));
                } else if state == RoutingState::LastResort && was != state {
                    self.log.info(format_args!(
                        "no other endpoint is ready: routing still sends here as the last resort; --min holds"
                    ));
                }
                if state != RoutingState::Out {
                    watcher.removed = None;
                }
                self.apply(Event::Routing(match state {
                    RoutingState::In => Routing::In,
                    RoutingState::Out => Routing::Out,
                    RoutingState::LastResort | RoutingState::Unknown => Routing::Unknown,
                }));
            }
            // Of the check, or too late.
            Told::Routed(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let check = |line: &str, expect: Option<Told>| assert_eq!(understand(line.as_bytes()), expect, "{line:?}");
        check("in", Some(Told::Routed(RoutingState::In)));
        check("last-resort", Some(Told::Routed(RoutingState::LastResort)));
        check("out", Some(Told::Routed(RoutingState::Out)));
        check("unknown", Some(Told::Routed(RoutingState::Unknown)));
        check("say hello there", Some(Told::Say("hello there".into())));
        check("warn no", Some(Told::Warn("no".into())));
        check("thread 'main' panicked", Some(Told::Warn("thread 'main' panicked".into())));
        check("", None);
        check("gone", None);
    }
}
