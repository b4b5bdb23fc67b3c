//! Commands that lameduck runs beside the app: `--pre-stop`, one after another, and `--stop-command`.

use std::collections::VecDeque;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use lameduck_core::duration::show;
use rustix::fs::OFlags;
use rustix::process::Pid;

use super::pipe;
use crate::log::Log;
use crate::machine::{Ending, Event, Time};
use crate::options::command_words;
use crate::signal::Signal;
use crate::sys::{self, Command, Session, Start};

/// What a task is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    PreStop,
    Stop,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Kind::PreStop => "pre-stop",
            Kind::Stop => "stop-command",
        }
    }
}

#[derive(Debug)]
struct Task {
    kind: Kind,
    text: String,
    pid: Pid,
    until: Option<Time>,
    /// Tells of a failed exec.
    exec_status: OwnedFd,
}

/// The task that runs, those that wait, and what they say.
#[derive(Debug)]
pub struct Tasks {
    running: Option<Task>,
    waiting: VecDeque<String>,
    timeout: Duration,
    mask: u64,
    /// Where they run: the app's own directory.
    directory: CString,
    output: Option<OwnedFd>,
    kind_of_output: Option<Kind>,
    line: Vec<u8>,
}

/// The longest line of a task's output that is logged whole.
const LINE: usize = 1024;

impl Tasks {
    /// No tasks yet. They will have this signal mask, and run where the app with this pid does.
    pub fn new(mask: u64, app: Pid) -> Tasks {
        Tasks {
            running: None,
            waiting: VecDeque::new(),
            timeout: Duration::ZERO,
            mask,
            // Through /proc nothing is pinned, as an open directory would be.
            directory: CString::new(format!("/proc/{}/cwd", app.as_raw_nonzero())).unwrap_or_default(),
            output: None,
            kind_of_output: None,
            line: Vec::new(),
        }
    }

    /// The app is gone: what would still run before its stop has no use.
    pub fn end_pre_stop(&mut self) {
        self.waiting.clear();
        if let Some(task) = &self.running {
            let _ = sys::kill(task.pid, true, Signal::KILL);
        }
    }

    /// The pid of the task that runs.
    pub fn pid(&self) -> Option<i32> {
        self.running.as_ref().map(|task| task.pid.as_raw_nonzero().get())
    }

    /// The descriptors to poll.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.output.iter().map(AsFd::as_fd)
    }

    /// When the running task is overdue.
    pub fn deadline(&self) -> Option<Time> {
        self.running.as_ref().and_then(|task| task.until)
    }

    /// Starts the pre-stop commands. An event if there is nothing to wait for.
    pub fn run_pre_stop(
        &mut self,
        commands: Vec<String>,
        timeout: Duration,
        now: Time,
        log: &mut Log,
    ) -> Option<Event> {
        self.waiting = commands.into();
        self.timeout = timeout;
        self.next_pre_stop(now, log)
    }

    /// Starts the stop command. An event if it could not be started.
    pub fn run_stop_command(&mut self, command: &str, now: Time, log: &mut Log) -> Option<Event> {
        self.waiting.clear();
        let started = self.start(Kind::Stop, command.to_owned(), None, now, log);
        (!started).then_some(Event::StopCommandEnded { success: false })
    }

    fn next_pre_stop(&mut self, now: Time, log: &mut Log) -> Option<Event> {
        while let Some(command) = self.waiting.pop_front() {
            if self.start(Kind::PreStop, command, Some(self.timeout), now, log) {
                return None;
            }
        }
        Some(Event::PreStopEnded)
    }

    fn start(&mut self, kind: Kind, text: String, timeout: Option<Duration>, now: Time, log: &mut Log) -> bool {
        let name = kind.name();
        self.flush(log);
        match spawn(&text, self.mask, &self.directory) {
            Ok((pid, output, exec_status)) => {
                log.info(format_args!("{name}: running {text:?} (pid {})", pid.as_raw_nonzero()));
                self.output = Some(output);
                self.kind_of_output = Some(kind);
                let until = timeout.map(|timeout| now + timeout);
                self.running = Some(Task { kind, text, pid, until, exec_status });
                true
            }
            Err(error) => {
                log.warn(format_args!("{name}: {text:?} could not be started: {error}; going on without it"));
                false
            }
        }
    }

    /// A process ended: was it a task?
    pub fn ended(&mut self, now: Time, pid: Pid, ending: Ending, log: &mut Log) -> Option<Event> {
        let task = self.running.take_if(|task| task.pid == pid)?;
        self.read_output(log);
        let name = task.kind.name();
        let success = ending == Ending::Code(0);
        let mut failed_exec = [0; 5];
        match ending {
            Ending::Code(127) if rustix::io::read(&task.exec_status, &mut failed_exec) == Ok(5) => {
                let errno = i32::from_ne_bytes([failed_exec[1], failed_exec[2], failed_exec[3], failed_exec[4]]);
                let error = std::io::Error::from_raw_os_error(errno);
                log.warn(format_args!("{name}: {:?} could not be executed: {error}; going on without it", task.text));
            }
            Ending::Code(0) => log.info(format_args!("{name}: {:?} ended", task.text)),
            Ending::Code(code) => log.warn(format_args!("{name}: {:?} exited with {code}; going on", task.text)),
            Ending::Killed(signal) => {
                log.warn(format_args!("{name}: {:?} was ended by SIG{signal}; going on", task.text));
            }
        }
        match task.kind {
            Kind::PreStop => self.next_pre_stop(now, log),
            Kind::Stop => Some(Event::StopCommandEnded { success }),
        }
    }

    /// Ends a task whose time is over; the reaper finds it.
    pub fn kill_overdue(&mut self, now: Time, log: &mut Log) {
        let Some(task) = self.running.as_mut().filter(|task| task.until.is_some_and(|until| now >= until)) else {
            return;
        };
        task.until = None;
        log.warn(format_args!("{}: {:?} took longer than {}: killed", task.kind.name(), task.text, show(self.timeout)));
        // Its group: what it started goes with it.
        let _ = sys::kill(task.pid, true, Signal::KILL);
    }

    /// Logs what the task says, line by line.
    pub fn read_output(&mut self, log: &mut Log) {
        let Some(output) = &self.output else { return };
        let mut chunk = [0; 4096];
        let mut over = false;
        let mut heard = Vec::new();
        loop {
            match rustix::io::read(output, &mut chunk) {
                Ok(0) => {
                    over = true;
                    break;
                }
                Ok(n) => heard.extend_from_slice(&chunk[..n]),
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => break,
                Err(_) => {
                    over = true;
                    break;
                }
            }
            // What does not fit a pipe at once is read at the next turn.
            if heard.len() >= 65_536 {
                break;
            }
        }
        for byte in heard {
            if byte == b'\n' || self.line.len() >= LINE {
                self.flush(log);
            }
            if byte != b'\n' {
                self.line.push(byte);
            }
        }
        if over {
            self.flush(log);
            self.output = None;
        }
    }

    fn flush(&mut self, log: &mut Log) {
        if let Some(kind) = self.kind_of_output.filter(|_| !self.line.is_empty()) {
            log.info(format_args!("{}: {}", kind.name(), String::from_utf8_lossy(&self.line)));
        }
        self.line.clear();
    }
}

/// Starts a command in a group of its own, its output going to the pipe returned.
fn spawn(text: &str, mask: u64, directory: &CStr) -> std::io::Result<(Pid, OwnedFd, OwnedFd)> {
    let words = command_words(text);
    let command = Command::new(&words).ok_or(std::io::ErrorKind::InvalidInput)?;
    let (read, write) = pipe()?;
    let (exec_status, status) = pipe()?;
    rustix::fs::fcntl_setfl(&read, OFlags::NONBLOCK)?;
    rustix::fs::fcntl_setfl(&exec_status, OFlags::NONBLOCK)?;
    let start = Start {
        command: &command,
        mask,
        ignore_chld: false,
        session: Session::Background,
        foreground: false,
        directory: Some(directory),
        output: Some(write.as_fd()),
        hand: &[],
        status: status.as_fd(),
    };
    Ok((sys::spawn(&start)?, read, exec_status))
}
