//! PID 1 itself: one thread, one poll, one reaper. [`run`] is the whole story, from top to bottom.

mod book;
mod front;
mod neighbours;
mod routing;
mod send;
mod start;
mod tasks;
mod tell;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use lameduck_core::front::Command;
use lameduck_core::report::{Origin, TrafficSource};
use lameduck_core::timeline::{Moment, Provenance};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, WaitOptions, WaitStatus};
use rustix::time::{ClockId, clock_gettime};

use crate::control;
use crate::log::{self, Log};
use crate::machine::{self, Action, Ending, Event, Machine, OnStop, Policy, Seen, State, Time};
use crate::observe::Observer;
use crate::options::{Options, Persona};
use crate::processes::{self, Process};
use crate::signal::Signal;
use crate::sys;
use book::{Book, Watched};
use front::Front;
pub use front::{COMMANDS_DESCRIPTOR, LISTENERS_DESCRIPTOR, MOST_LISTENERS, PAGE_DESCRIPTOR};
use neighbours::Pod;
use routing::Watcher;
pub use start::{ADMIN_DESCRIPTOR, Begin, StartError};
use tasks::Tasks;

/// How often traffic is looked at while a quiet lame duck waits for the signal that may never come.
const HOLDING: Duration = Duration::from_millis(500);
/// Signals taken in one turn.
const MOST_SIGNALS: usize = 256;
/// An admin process that ended is started again after this.
const ADMIN_AGAIN: Duration = Duration::from_secs(1);

/// Everything PID 1 holds.
struct Init {
    options: Options,
    policy: Policy,
    machine: Machine,
    epoch: Duration,
    log: Log,
    book: Book,
    signals: OwnedFd,
    control: Option<control::Server>,
    /// Signals taken off the descriptor ahead of time.
    early: Vec<(Signal, u32)>,
    main: Pid,
    /// Open until the command was executed, or failed to be.
    exec_status: Option<OwnedFd>,
    tasks: Tasks,
    admin: Option<Admin>,
    front: Option<Front>,
    pod: Option<Pod>,
    routing: Option<Watcher>,
    observer: Option<Observer>,
    seen: Seen,
    next_look: Time,
    mask: u64,
    self_exe: PathBuf,
    own_pid: i32,
    /// No child is left: wait(2) said so.
    childless: bool,
    /// The process group was told to stop; an app that ended by itself leaves it untold.
    group_told: bool,
    /// It was said that `/proc` can not be used.
    said_proc: bool,
}

/// The process that serves the admin endpoints.
struct Admin {
    listener: OwnedFd,
    pid: Option<Pid>,
    again: Time,
}

/// Runs the command to its end; returns the exit status. With `--mode off` it only returns if the command can not be
/// executed.
pub fn run(options: Options, begin: &Begin) -> Result<u8, StartError> {
    let mut init = start::start(options, begin)?;
    loop {
        init.wait();
        init.hear_of_exec();
        init.hear_signals();
        init.reap();
        init.serve_control();
        init.hear_neighbours();
        init.hear_routing();
        init.read_tasks();
        init.keep_admin();
        init.keep_front();
        init.keep_routing();
        // Before the first look: what listens on nothing would be over at it.
        init.ask_neighbours_if_due();
        init.look_if_due();
        init.tick();
        if let State::Exited { status } = init.machine.state() {
            return Ok(init.end(status));
        }
    }
}

fn monotonic() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

impl Init {
    fn now(&self) -> Time {
        monotonic().saturating_sub(self.epoch)
    }

    /// Sleeps until something happens or is due. While the app serves nothing is ever due.
    fn wait(&mut self) {
        if !self.early.is_empty() && self.exec_status.is_none() {
            return;
        }
        let admin = self.admin.as_ref().filter(|admin| admin.pid.is_none()).map(|admin| admin.again);
        let front = self.front.as_ref().and_then(Front::deadline);
        let looks = (self.machine.watches() && self.sees()).then_some(self.next_look);
        let control = self.control.as_ref().and_then(control::Server::deadline);
        let now = self.now();
        let lame_duck = self.machine.state() == State::LameDuck;
        let pod = self.pod.as_ref().and_then(|pod| pod.deadline(now, lame_duck));
        let due = [self.machine.deadline(), looks, control, self.tasks.deadline(), admin, front, pod];
        let due = due.into_iter().flatten().min();
        let timeout = due.map(|due| {
            let left = due.saturating_sub(self.now());
            Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) }
        });
        let mut fds: Vec<PollFd<'_>> = Vec::with_capacity(24);
        // Signals wait until the command was executed: before that they would meet our own code in the child.
        let first = self.exec_status.as_ref().unwrap_or(&self.signals).as_fd();
        let control = self.control.iter().flat_map(control::Server::descriptors);
        let pod = self.pod.as_ref().and_then(|pod| pod.descriptor(now));
        let routing = self.routing.as_ref().and_then(Watcher::descriptor);
        let all = std::iter::once(first).chain(control).chain(self.tasks.descriptors()).chain(pod).chain(routing);
        fds.extend(all.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        // A failed or interrupted poll is as good as one that timed out: everything is looked at anyway.
        let _ = poll(&mut fds, timeout.as_ref());
    }

    /// Takes in an event and does what follows from it.
    fn apply(&mut self, event: Event) {
        let (machine, actions) = machine::step(self.machine, self.now(), event);
        self.machine = machine;
        for action in actions.iter() {
            self.perform(action);
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Forward(signal) => self.forward(signal),
            Action::SuspendSelf => {
                self.verbose(format_args!("suspending"));
                let own = Pid::from_raw(self.own_pid).unwrap_or(Pid::INIT);
                let _ = sys::kill(own, false, Signal::STOP);
            }
            Action::Watch if self.front.is_some() => {
                self.next_look = self.now();
                self.watch_neighbours();
                if let Some(front) = &mut self.front {
                    front.mark_start();
                }
            }
            Action::Watch => {
                let (ports, ignore) = (self.options.ports.clone(), self.options.ignore_from.clone());
                self.observer = Some(Observer::new(ports, ignore));
                self.next_look = self.now();
                self.watch_neighbours();
            }
            Action::LookNow => {
                self.next_look = self.now();
                self.tell_readiness();
            }
            Action::TellFront(command) => self.tell_front(command),
            Action::RunPreStop => self.run_pre_stop(),
            Action::EndPreStop => self.tasks.end_pre_stop(),
            Action::RunStopCommand => self.run_stop_command(),
            Action::SignalMain(signal) => {
                self.log.info(format_args!("telling the app to stop: {signal} to {}", self.target()));
                self.signal_main(signal, true);
                self.group_told = self.in_group();
            }
            Action::SignalOthers(signal) => self.signal_others(signal),
            Action::KillAll => self.kill_all(),
            Action::Record(moment) => self.record(moment),
            Action::PhaseEnded { phase, used, by } => {
                let origin = self.machine.drain().map_or(Origin::AppExit, |drain| drain.origin);
                self.book.phase_ended(phase, used, by, origin, &mut self.log);
                self.leave_neighbours(by);
            }
            Action::TellWaiters => {
                let reply = self.status();
                if let Some(control) = &mut self.control {
                    control.tell_waiters(&reply);
                }
            }
            // The loop sees the state.
            Action::Exit(_) => {}
        }
    }

    fn record(&mut self, moment: Moment) {
        let now = self.now();
        self.book.timeline.record(now, moment, Provenance::Observed);
        match moment {
            Moment::TermReceived => {
                let signal = self.machine.drain().and_then(|drain| drain.signal).unwrap_or(Signal::TERM);
                self.log.info(format_args!("{signal} received; {}", self.policy.budget));
            }
            Moment::DrainRequested => {
                self.log.info(format_args!("drain requested; {}", self.policy.budget));
            }
            Moment::AppSignalled => {
                self.leave_front();
                self.book.at_stop = self.observer.as_ref().map(|observer| observer.tracker().figures());
            }
            Moment::Killed => self.book.at_kill = self.observer.as_ref().map(|observer| observer.tracker().figures()),
            _ => {}
        }
    }

    fn hear_of_exec(&mut self) {
        let Some(status) = &self.exec_status else { return };
        let mut message = [0; 5];
        match rustix::io::read(status, &mut message) {
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            Ok(5) => {
                self.exec_status = None;
                let errno = i32::from_ne_bytes([message[1], message[2], message[3], message[4]]);
                let status = start::exec_failed(&self.options, message[0], errno, &mut self.log);
                self.apply(Event::StartFailed { status });
            }
            // Closed by exec. (A child killed before its exec closes it too, and is then reaped like any other.)
            Ok(_) | Err(_) => {
                self.exec_status = None;
                self.apply(Event::Started);
            }
        }
    }

    fn hear_signals(&mut self) {
        if self.exec_status.is_some() {
            return;
        }
        for (signal, sender) in std::mem::take(&mut self.early) {
            self.on_signal(signal, sender);
        }
        let mut record = [0; sys::SIGNALFD_RECORD];
        // Bounded, so that a flood of signals can not keep the loop from its other work.
        for _ in 0..MOST_SIGNALS {
            let Ok(sys::SIGNALFD_RECORD) = rustix::io::read(&self.signals, &mut record) else { return };
            if let Some((signal, sender)) = sys::signalfd_record(&record) {
                self.on_signal(signal, sender);
            }
        }
    }

    fn on_signal(&mut self, signal: Signal, sender: u32) {
        // Ours: a write to a closed standard error.
        if signal == Signal::PIPE && sender == self.own_pid as u32 {
            return;
        }
        self.verbose(format_args!("Received signal {}.", signal.number()));
        if signal != Signal::CHLD {
            self.apply(Event::Signal(signal));
        }
    }

    /// The one reaper. It collects every status there is: SIGCHLDs that came together count as one (signal(7)).
    fn reap(&mut self) {
        if self.exec_status.is_some() || matches!(self.machine.state(), State::Exited { .. }) {
            return;
        }
        let mut reaped = false;
        let mut main_ended = None;
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => {
                    reaped = true;
                    main_ended = self.on_ended(pid, status).or(main_ended);
                }
                Ok(None) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => {
                    // ECHILD: nothing is left at all.
                    self.childless = true;
                    break;
                }
            }
        }
        if let Some(ending) = main_ended {
            self.say_main_ended(ending);
            self.apply(Event::MainEnded(ending));
        }
        let over = self.machine.main().is_some() && (self.childless || (reaped && self.nothing_left()));
        if over {
            self.apply(Event::AllEnded);
        }
    }

    /// Takes in the end of a process; returns that of the main one, which is news only once all statuses are in.
    fn on_ended(&mut self, pid: Pid, status: WaitStatus) -> Option<Ending> {
        let now = self.now();
        self.book.reaped += 1;
        let ending = match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Ending::Code(code as u8),
            (None, signal) => {
                Ending::Killed(signal.and_then(|signal| Signal::new(signal as u8)).unwrap_or(Signal::KILL))
            }
        };
        if pid == self.main && self.machine.main().is_none() {
            return Some(ending);
        }
        let front = self.front.as_mut().is_some_and(|front| front.ended(now, pid, ending, &mut self.log));
        if front {
            // Whether that is the end of a wait, the next look tells.
            self.next_look = now;
        } else if self.admin.as_ref().is_some_and(|admin| admin.pid == Some(pid)) {
            let again = self.now() + ADMIN_AGAIN;
            if let Some(admin) = &mut self.admin {
                (admin.pid, admin.again) = (None, again);
            }
        } else if self.routing.as_mut().is_some_and(|watcher| watcher.ended(pid)) {
            // What it last wrote is still in the pipe.
        } else if let Some(event) = self.tasks.ended(now, pid, ending, &mut self.log) {
            self.apply(event);
        } else if let Persona::Tini { warn_on_reap: true, .. } = self.options.persona {
            log::raw(format_args!(
                "[WARN  tini ({})] Reaped zombie process with pid={}",
                self.own_pid,
                pid.as_raw_nonzero()
            ));
        }
        None
    }

    /// Whether no process of the app is left, once its main one has ended. The helpers do not count.
    fn nothing_left(&mut self) -> bool {
        // Without a helper of ours, wait(2) tells by itself; a look at every process of the machine is not needed.
        if self.admin.is_none() && self.front.is_none() && self.routing.is_none() {
            return false;
        }
        let Ok(left) = processes::descendants(self.own_pid, &self.helpers()) else {
            // What is left can not be told while a helper of ours lives; without it, wait(2) tells.
            self.finish_front();
            if let Some(watcher) = &mut self.routing {
                watcher.stop();
            }
            if let Some(pid) = self.admin.as_ref().and_then(|admin| admin.pid) {
                let _ = sys::kill(pid, false, Signal::KILL);
            }
            return false;
        };
        // One that has ended and is not reaped yet is still to be reaped: its status is not lost either.
        left.is_empty()
    }

    /// Processes of lameduck's own.
    fn helpers(&self) -> Vec<i32> {
        let admin = self.admin.as_ref().and_then(|admin| admin.pid);
        let front = self.front.as_ref().and_then(Front::pid);
        let routing = self.routing.as_ref().and_then(Watcher::pid);
        [admin, front, routing].into_iter().flatten().map(|pid| pid.as_raw_nonzero().get()).collect()
    }

    /// The processes of the app; `None` where `/proc` does not tell.
    fn app(&mut self) -> Option<Vec<Process>> {
        let mut helpers = self.helpers();
        helpers.extend(self.tasks.pid());
        match processes::descendants(self.own_pid, &helpers) {
            Ok(app) => Some(app),
            Err(error) => {
                if !std::mem::replace(&mut self.said_proc, true) {
                    self.log.warn(format_args!("/proc can not be used ({error}): mount it for this container"));
                }
                None
            }
        }
    }

    fn look_if_due(&mut self) {
        if !self.machine.watches() || !self.sees() || self.now() < self.next_look {
            return;
        }
        let began = self.now();
        let holding = self.machine.drain().is_some_and(|drain| drain.waits_for_signal);
        if let Some(front) = &mut self.front {
            self.next_look = began + if holding { HOLDING } else { front.pace() };
            let seen = front.look(self.epoch);
            self.take_in(began, seen);
            return;
        }
        let app = self.app();
        let Some(observer) = &mut self.observer else { return };
        let first = observer.source() == TrafficSource::None;
        let seen = observer.look(began, app.as_deref());
        let took = monotonic().saturating_sub(self.epoch).saturating_sub(began);
        observer.took(took);
        self.next_look = began + if holding { HOLDING } else { observer.pace() };
        if first {
            self.say_what_is_seen(seen);
        }
        self.take_in(began, seen);
    }

    /// Whether there is something to look at.
    fn sees(&self) -> bool {
        self.observer.is_some() || self.front.is_some()
    }

    fn take_in(&mut self, began: Time, seen: Seen) {
        if seen.listeners == Some(0) && self.seen.listeners.is_some_and(|before| before > 0) {
            self.book.timeline.record(began, Moment::StoppedAccepting, Provenance::Observed);
        }
        self.seen = seen;
        self.apply(Event::Traffic(seen));
    }

    fn tick(&mut self) {
        let now = self.now();
        self.tasks.kill_overdue(now, &mut self.log);
        if self.machine.deadline().is_some_and(|deadline| now >= deadline) {
            self.apply(Event::Tick);
        }
    }

    /// The last thing: the report, then everything of ours is ended.
    fn end(mut self, status: u8) -> u8 {
        let status = self.options.mapped(status);
        self.finish_front();
        if let Some(watcher) = &mut self.routing {
            watcher.stop();
        }
        if let Some(pid) = self.admin.as_ref().and_then(|admin| admin.pid) {
            let _ = sys::kill(pid, false, Signal::KILL);
        }
        match self.options.persona {
            // The command was never executed: there is nothing to report.
            Persona::Lameduck
                if self.machine.main().is_none() && self.book.reaped == 0 && self.machine.drain().is_none() => {}
            Persona::Lameduck => {
                let now = self.now();
                let watched =
                    Watched { observer: self.observer.as_ref(), front: self.front.as_ref(), epoch: self.epoch };
                let mut report = self.book.report(&self.options, &self.policy, &self.machine, watched, now, status);
                report.order = self.order_report(now);
                let began = self.machine.drain().map_or(now, |drain| drain.began);
                report.routing = self.routing.as_ref().and_then(|watcher| watcher.report(began));
                self.book.publish(&report, &mut self.log);
            }
            Persona::DumbInit { .. } => {
                self.verbose(format_args!("Child exited with status {status}. Goodbye."));
            }
            Persona::Tini { .. } => {}
        }
        status
    }

    /// dumb-init's debugging lines.
    fn verbose(&self, message: std::fmt::Arguments<'_>) {
        if let Persona::DumbInit { verbose: true, .. } = self.options.persona {
            log::raw(format_args!("[dumb-init] {message}"));
        }
    }

    fn keep_admin(&mut self) {
        let now = self.now();
        let over = matches!(self.machine.state(), State::Exited { .. });
        let Some(admin) = &mut self.admin else { return };
        if over || admin.pid.is_some() || now < admin.again {
            return;
        }
        match start::spawn_admin(&self.self_exe, &admin.listener, self.own_pid, self.mask) {
            Ok(pid) => admin.pid = Some(pid),
            Err(error) => {
                admin.again = now + ADMIN_AGAIN;
                self.log.warn(format_args!("the admin endpoints could not be started: {error}; trying again"));
            }
        }
    }

    fn keep_front(&mut self) {
        let now = self.now();
        if let (Some(front), false) = (&mut self.front, matches!(self.machine.state(), State::Exited { .. })) {
            front.keep(now, &mut self.log);
        }
    }

    fn tell_front(&mut self, command: Command) {
        if let Some(front) = &mut self.front {
            front.tell(command);
        }
        if command == Command::LameDuck {
            self.tell_readiness();
        }
    }

    /// The front answers health checks as readiness has it. Once it was told that this is not ready, it stays so.
    fn tell_readiness(&mut self) {
        let ready = self.ready_while_draining();
        if let Some(front) = self.front.as_mut().filter(|_| !ready) {
            front.tell(Command::NotReady);
        }
    }

    /// The app is told to stop: what would still connect is refused rather than left waiting. With `--mode observe` the
    /// front goes on until the app is gone.
    fn leave_front(&mut self) {
        let acts = self.policy.on_stop == OnStop::Drain;
        if let Some(front) = &mut self.front {
            front.mark_start();
            front.mark_stop();
            if acts {
                front.close();
            }
        }
    }

    /// Gives the front its last moment, within what is left of the grace period.
    fn finish_front(&mut self) {
        let elapsed = self.machine.drain().map_or(Duration::ZERO, |drain| self.now().saturating_sub(drain.began));
        let left = match self.machine.drain().map(|drain| drain.origin) {
            Some(Origin::Signal | Origin::Request) => self.policy.budget.grace.saturating_sub(elapsed),
            Some(Origin::AppExit) | None => Duration::MAX,
        };
        if let Some(front) = &mut self.front {
            front.finish(left / 4);
        }
    }

    fn run_pre_stop(&mut self) {
        let commands = self.options.pre_stop.clone();
        let (now, timeout) = (self.now(), self.options.pre_stop_timeout);
        if let Some(event) = self.tasks.run_pre_stop(commands, timeout, now, &mut self.log) {
            self.apply(event);
        }
    }

    fn run_stop_command(&mut self) {
        let Some(command) = self.options.stop_command.clone() else { return };
        let now = self.now();
        if let Some(event) = self.tasks.run_stop_command(&command, now, &mut self.log) {
            self.apply(event);
        }
    }

    fn read_tasks(&mut self) {
        self.tasks.read_output(&mut self.log);
    }
}

/// A pipe whose ends are closed on exec.
fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    use rustix::pipe::{PipeFlags, pipe_with};
    Ok(pipe_with(PipeFlags::CLOEXEC)?)
}
