//! What a command does at TERM: whether it reaches the app, what becomes of new, idle and busy connections, and how it ends.

use std::ffi::OsString;
use std::io::Read;
use std::net::TcpStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde::Serialize;

use crate::ProbeError;
use crate::clock::now;
use crate::process::{self, Process};
use crate::wire::{Ended, Target, read_answer};

/// How often it is looked.
const LOOK: Duration = Duration::from_millis(20);

/// What was seen.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Term {
    /// Who gets the signal: the command's first process.
    pub main: String,
    /// Who listens.
    pub listener: Option<String>,
    /// Whether the one who gets the signal is the one who listens.
    pub main_is_listener: Option<bool>,
    /// Whether the first process has a handler for TERM. As PID 1 of a container one without ignores it.
    pub main_handles_term: Option<bool>,
    /// Whether TERM made any difference to whoever listens, before the grace was over.
    pub reaches_app: bool,
    /// The last new connection that was answered, seconds after TERM; none: none was.
    pub accepted_until_s: Option<f64>,
    /// When connecting was first refused.
    pub refused_from_s: Option<f64>,
    /// New connections that were taken and never answered.
    pub hung: u32,
    /// When the idle connection was closed; none: it never was.
    pub idle_closed_s: Option<f64>,
    /// What a request on an idle connection came to, sent 100 ms after TERM.
    pub request_on_idle: Option<Ended>,
    /// Whether its answer said `Connection: close`.
    pub says_close: Option<bool>,
    /// What became of a request in flight; none where no slow path was given.
    pub in_flight: Option<Ended>,
    /// From TERM to the exit.
    pub exit_s: Option<f64>,
    /// Its exit code; 128 + n where signal n ended it.
    pub exit_code: Option<i32>,
    /// Whether it had to be killed at the end of the grace.
    pub killed: bool,
    /// Processes that were left over when the first one had ended.
    pub left_over: Vec<String>,
    /// Of those, zombies.
    pub zombies: u32,
}

/// A running command, that is killed where it is forgotten.
pub struct Running {
    child: Child,
    group: Pid,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = kill_process_group(self.group, Signal::KILL);
        let _ = self.child.wait();
    }
}

impl Running {
    /// Starts a command in a group of its own, with `PORT` in its environment, and waits until it answers.
    pub fn start(command: &[OsString], target: &Target, ready: Duration) -> Result<Running, ProbeError> {
        let port = target.address.port().to_string();
        let words: Vec<OsString> = command
            .iter()
            .map(|word| word.to_str().map_or_else(|| word.clone(), |text| text.replace("{port}", &port).into()))
            .collect();
        let (program, args) = words.split_first().ok_or(ProbeError::NoCommand)?;
        let child = Command::new(program)
            .args(args)
            .env("PORT", &port)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(|error| ProbeError::Start { command: program.to_string_lossy().into_owned(), error })?;
        let group = Pid::from_child(&child);
        let mut running = Running { child, group };
        let from = now();
        loop {
            if let Ok(mut stream) = target.connect(Duration::from_secs(1)) {
                let (ended, _) = target.ask(&mut stream, &target.path, Duration::from_secs(2));
                if ended == Ended::Answered {
                    return Ok(running);
                }
            }
            if let Ok(Some(status)) = running.child.try_wait() {
                return Err(ProbeError::Exited { status: status.to_string() });
            }
            if from.elapsed() > ready {
                return Err(ProbeError::NotReady { address: target.address.to_string(), seconds: ready.as_secs_f64() });
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Ends it by TERM, and watches.
    pub fn term(mut self, target: &Target, slow: Option<&str>, grace: Duration) -> Term {
        let group = self.group.as_raw_nonzero().get();
        let before = process::family(group);
        let listeners = process::listeners(target.address.port(), &before);
        let main = before.iter().find(|process| process.pid == group);
        let word = |process: &Process| format!("{} ({})", process.name, process.pid);
        let mut term = Term {
            main: main.map_or_else(String::new, word),
            listener: listeners.first().map(word),
            main_is_listener: (!listeners.is_empty()).then(|| listeners.iter().any(|process| process.pid == group)),
            main_handles_term: process::handles_term(group),
            ..Term::default()
        };
        let idle = answered(target);
        let asked = answered(target);
        let busy = slow.and_then(|path| {
            let mut stream = target.connect(grace).ok()?;
            target.send(&mut stream, path).ok()?;
            Some(stream)
        });
        // The slow request is to be read before the signal comes.
        std::thread::sleep(Duration::from_millis(100));
        let began = now();
        let over = AtomicBool::new(false);
        let _ = kill_process(self.group, Signal::TERM);
        std::thread::scope(|scope| {
            let over = &over;
            let idle = idle.map(|stream| scope.spawn(move || closed_at(stream, began, over)));
            let asked = asked.map(|stream| scope.spawn(move || ask_later(target, stream, began)));
            let busy = busy.map(|mut stream| scope.spawn(move || read_answer(&mut stream, grace).0));
            let newcomers = scope.spawn(move || newcomers(target, began, over));
            self.wait(&mut term, began, grace, group);
            over.store(true, Ordering::Relaxed);
            term.idle_closed_s = idle.and_then(|thread| thread.join().ok().flatten());
            if let Some((ended, closes)) = asked.and_then(|thread| thread.join().ok()) {
                term.request_on_idle = Some(ended);
                term.says_close = (ended == Ended::Answered).then_some(closes);
            }
            term.in_flight = busy.and_then(|thread| thread.join().ok());
            if let Ok((accepted, refused, hung)) = newcomers.join() {
                (term.accepted_until_s, term.refused_from_s, term.hung) = (accepted, refused, hung);
            }
        });
        let changed = term.refused_from_s.or(term.idle_closed_s).is_some() || term.says_close == Some(true);
        term.reaches_app =
            !term.killed || changed && term.refused_from_s.is_some_and(|at| at + 0.1 < grace.as_secs_f64());
        term
    }

    fn wait(&mut self, term: &mut Term, began: Instant, grace: Duration, group: i32) {
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => {
                    term.exit_s.get_or_insert(began.elapsed().as_secs_f64());
                    term.exit_code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
                    let left: Vec<Process> =
                        process::family(group).into_iter().filter(|process| process.pid != group).collect();
                    term.zombies = left.iter().filter(|process| process.state == 'Z').count() as u32;
                    term.left_over = left.iter().map(|process| format!("{} ({})", process.name, process.pid)).collect();
                    return;
                }
                Ok(None) if began.elapsed() > grace && !term.killed => {
                    term.killed = true;
                    let _ = kill_process_group(self.group, Signal::KILL);
                }
                Ok(None) => std::thread::sleep(Duration::from_millis(2)),
                Err(_) => return,
            }
        }
    }
}

/// A connection that has had an answer.
fn answered(target: &Target) -> Option<TcpStream> {
    let mut stream = target.connect(Duration::from_secs(2)).ok()?;
    let (ended, answer) = target.ask(&mut stream, &target.path, Duration::from_secs(10));
    (ended == Ended::Answered && !answer.closes).then_some(stream)
}

fn closed_at(mut stream: TcpStream, began: Instant, over: &AtomicBool) -> Option<f64> {
    stream.set_read_timeout(Some(LOOK)).ok()?;
    let mut buffer = [0; 512];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Some(began.elapsed().as_secs_f64()),
            Ok(_) => {}
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut | std::io::ErrorKind::Interrupted
                ) =>
            {
                if over.load(Ordering::Relaxed) {
                    return None;
                }
            }
            Err(_) => return Some(began.elapsed().as_secs_f64()),
        }
    }
}

fn ask_later(target: &Target, mut stream: TcpStream, began: Instant) -> (Ended, bool) {
    std::thread::sleep(Duration::from_millis(100).saturating_sub(began.elapsed()));
    let (ended, answer) = target.ask(&mut stream, &target.path, Duration::from_secs(5));
    (ended, answer.closes)
}

/// New connections, one after the other: the last answered, the first refused, and those that hung.
fn newcomers(target: &Target, began: Instant, over: &AtomicBool) -> (Option<f64>, Option<f64>, u32) {
    let (mut accepted, mut refused, mut hung) = (None, None, 0);
    while !over.load(Ordering::Relaxed) {
        let at = began.elapsed().as_secs_f64();
        let ended = match target.connect(Duration::from_secs(1)) {
            Ok(mut stream) => target.ask(&mut stream, &target.path, Duration::from_secs(1)).0,
            Err(_) => Ended::Refused,
        };
        match ended {
            Ended::Answered => accepted = Some(at),
            Ended::Refused => {
                refused.get_or_insert(at);
            }
            Ended::Closed | Ended::Reset | Ended::Cut | Ended::TimedOut => hung += 1,
        }
        std::thread::sleep(LOOK);
    }
    (accepted, refused, hung)
}
