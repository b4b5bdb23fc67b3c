//! PID 1 as a pure, total state machine: `step(machine, now, event) -> (machine, actions)`.
//!
//! `Starting -> Serving -> LameDuck -> Draining -> Stopping -> Killing -> Exited`. States only ever move to the right. No
//! clock is read and nothing is done here: time comes in with each event, and what is to be done goes out as [`Action`]s.
//! The phases share one clock, so time that one does not use goes to the next.

use std::time::Duration;

use lameduck_core::budget::Budget;
use lameduck_core::front::Command;
use lameduck_core::report::{EndedBy, Origin, Phase};
use lameduck_core::timeline::Moment;

use crate::signal::{Rewrites, Signal};

/// A point in time: an offset on whatever clock the caller uses, never going back.
pub type Time = Duration;

/// How often SIGKILL is repeated while processes are left: a fork may have slipped through.
const KILL_AGAIN: Duration = Duration::from_millis(50);

/// What the machine is told to do, fixed at the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "independent switches, each an option of its own")]
pub struct Policy {
    /// The grace period, divided.
    pub budget: Budget,
    /// What a stop signal leads to.
    pub on_stop: OnStop,
    /// The signals that begin a stop, as a kernel signal set.
    pub stop_signals: u64,
    /// What becomes of each signal before it is passed on.
    pub rewrites: Rewrites,
    /// The signal that tells the app to stop, instead of the one received.
    pub stop_with: Option<Signal>,
    /// What the end of the main process leads to.
    pub on_main_end: OnMainEnd,
    /// Whether processes other than the main one are ever signalled.
    pub descendants: bool,
    /// Whether a repeated stop signal cuts the drain short.
    pub force_on_repeat: bool,
    /// Whether the least time in lame duck was asked for.
    pub min_is_asked: bool,
    /// Whether there are pre-stop commands.
    pub pre_stop: bool,
    /// Whether there is a stop command.
    pub stop_command: bool,
    /// Whether TSTP, TTIN and TTOU suspend lameduck too, after they were passed on.
    pub suspend_self: bool,
    /// Whether there is a front: clients are told to leave, and the app only once the front has closed.
    pub front: bool,
}

/// What a stop signal leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnStop {
    /// The drain.
    Drain,
    /// It is passed on like any other; the drain that would have been is only reported (`--mode observe`).
    Report,
    /// It is passed on like any other (called as `tini` or `dumb-init`).
    Forward,
}

/// What the end of the main process leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnMainEnd {
    /// The other processes are told to stop and waited for.
    StopOthers,
    /// The other processes go on; the last one to end is the end.
    WaitForAll,
    /// The end, at once (called as `tini`).
    Exit,
    /// This signal to the others, then the end, at once (called as `dumb-init`).
    SignalAndExit(Signal),
}

/// How the main process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It exited with this code.
    Code(u8),
    /// This signal ended it.
    Killed(Signal),
}

impl Ending {
    /// The exit status a shell would report: the code, or 128 + the signal's number.
    pub const fn status(self) -> u8 {
        match self {
            Ending::Code(code) => code,
            Ending::Killed(signal) => 128 + signal.number(),
        }
    }
}

/// What is known of the traffic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// Listening sockets of the app, or of the front where there is one; `None` where that can not be known.
    pub listeners: Option<u32>,
    /// The last arrival of a connection or of data, probes excluded.
    pub last_arrival: Option<Time>,
    /// The last time data was sent on a connection, probes excluded: an answer that streams is no quiet.
    pub last_sent: Option<Time>,
    /// Requests in flight.
    pub in_flight: u32,
    /// Client connections of the front; without one it is 0 and says nothing.
    pub connections: u32,
}

/// Whether neighbours in the pod are to leave before the app.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Ahead {
    /// Nobody is.
    #[default]
    Nobody,
    /// Somebody is, who was not told to stop, as far as is known: the least time in lame duck is waited for that.
    Untold,
    /// Somebody is, and is about to.
    Leaving,
}

/// Whether routing still sends to this pod.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Routing {
    /// Nobody knows, or it does as a last resort: the least time in lame duck has to do.
    #[default]
    Unknown,
    /// It does, so the least time is not over.
    In,
    /// It does not, so the least time is over.
    Out,
}

/// Where in its life the app is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The command has not been executed yet.
    Starting,
    /// It runs.
    Serving,
    /// Everything is still accepted; clients are asked to leave; quiet is waited for.
    LameDuck,
    /// Requests in flight are waited for.
    Draining,
    /// The app was told to stop.
    Stopping,
    /// What is left is being killed.
    Killing,
    /// Over.
    Exited {
        /// The exit status, before `--map-exit`.
        status: u8,
    },
}

/// What can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The command was executed.
    Started,
    /// It could not be executed.
    StartFailed {
        /// 126 or 127.
        status: u8,
    },
    /// A signal arrived at lameduck.
    Signal(Signal),
    /// A drain was asked for (`lameduck drain`, `POST /drain`).
    DrainRequested,
    /// The traffic was looked at.
    Traffic(Seen),
    /// The neighbours were heard.
    Neighbours(Ahead),
    /// Routing was seen.
    Routing(Routing),
    /// The last pre-stop command ended.
    PreStopEnded,
    /// The stop command ended.
    StopCommandEnded {
        /// Whether it exited with 0.
        success: bool,
    },
    /// The main process ended.
    MainEnded(Ending),
    /// No process of the app is left.
    AllEnded,
    /// Time passed.
    Tick,
}

/// What is to be done, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Pass a signal on to the app.
    Forward(Signal),
    /// Stop lameduck itself, as its child was.
    SuspendSelf,
    /// Begin to watch the traffic.
    Watch,
    /// Look at the traffic at once: what is known of it may be old.
    LookNow,
    /// Start the pre-stop commands.
    RunPreStop,
    /// End the pre-stop commands: the app is gone.
    EndPreStop,
    /// Start the stop command.
    RunStopCommand,
    /// Tell the front.
    TellFront(Command),
    /// Signal the main process (or its group), and wake it if it is stopped.
    SignalMain(Signal),
    /// Signal every other process of the app, and wake it if it is stopped.
    SignalOthers(Signal),
    /// SIGKILL to every process of the app.
    KillAll,
    /// A moment for the timeline.
    Record(Moment),
    /// A phase ended.
    PhaseEnded {
        /// Which.
        phase: Phase,
        /// What it used.
        used: Duration,
        /// Why it ended.
        by: EndedBy,
    },
    /// A drain that was asked for is over: those who wait may be told.
    TellWaiters,
    /// End with this status.
    Exit(u8),
}

/// Actions in order, without allocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Actions {
    slots: [Option<Action>; Actions::MOST],
    len: usize,
}

impl Actions {
    /// The most that one step can ask for.
    pub const MOST: usize = 16;

    const fn none() -> Actions {
        Actions { slots: [None; Actions::MOST], len: 0 }
    }

    fn push(&mut self, action: Action) {
        // A step that asked for more than MOST would lose the last one; the property test shows that none does.
        if let Some(slot) = self.slots.get_mut(self.len) {
            *slot = Some(action);
            self.len += 1;
        }
    }

    /// The actions, in order.
    pub fn iter(&self) -> impl Iterator<Item = Action> + '_ {
        self.slots[..self.len].iter().filter_map(|slot| *slot)
    }

    /// Whether the array was filled to the end.
    pub fn is_full(&self) -> bool {
        self.len == Actions::MOST
    }
}

/// A drain under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drain {
    /// When it began; the grace period counts from here.
    pub began: Time,
    /// What began it.
    pub origin: Origin,
    /// The stop signal, once it has come.
    pub signal: Option<Signal>,
    /// When the present phase began.
    pub phase_began: Time,
    /// A drain on request is over and waits for the stop signal.
    pub waits_for_signal: bool,
    /// It was over once, before the stop signal came: the least time has been served.
    pub was_over: bool,
}

/// The machine: the policy, the state, and what has to be remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each remembers one thing done; together they are no state of their own"
)]
pub struct Machine {
    policy: Policy,
    state: State,
    drain: Option<Drain>,
    main: Option<Ending>,
    seen: Seen,
    pre_stop_runs: bool,
    main_signalled: bool,
    others_signalled: bool,
    /// Half of the time to stop is over, and whoever had not been told was.
    reminded: bool,
    /// The front was told to close.
    front_told: bool,
    ahead: Ahead,
    routing: Routing,
    /// Since when nothing but neighbours holds the lame duck.
    held_since: Option<Time>,
    kill_again: Time,
}

/// One step of the machine. Total: every event has a meaning in every state, if only that it changes nothing.
#[must_use]
pub fn step(mut machine: Machine, now: Time, event: Event) -> (Machine, Actions) {
    let mut actions = Actions::none();
    machine.on(now, event, &mut actions);
    (machine, actions)
}

impl Machine {
    /// A machine at the start.
    pub const fn new(policy: Policy) -> Machine {
        Machine {
            policy,
            state: State::Starting,
            drain: None,
            main: None,
            seen: Seen { listeners: None, last_arrival: None, last_sent: None, in_flight: 0, connections: 0 },
            pre_stop_runs: false,
            main_signalled: false,
            others_signalled: false,
            reminded: false,
            front_told: false,
            ahead: Ahead::Nobody,
            routing: Routing::Unknown,
            held_since: None,
            kill_again: Duration::ZERO,
        }
    }

    /// The state.
    pub const fn state(&self) -> State {
        self.state
    }

    /// The drain under way, if there is one.
    pub const fn drain(&self) -> Option<&Drain> {
        self.drain.as_ref()
    }

    /// How the main process ended, once it has.
    pub const fn main(&self) -> Option<Ending> {
        self.main
    }

    /// Whether traffic has to be looked at from time to time.
    pub fn watches(&self) -> bool {
        match self.state {
            State::LameDuck | State::Draining => true,
            // A front has closed by then, or is not to be waited for.
            State::Stopping | State::Killing => {
                self.drain.is_some() && self.policy.on_stop != OnStop::Forward && !self.policy.front
            }
            State::Starting | State::Serving | State::Exited { .. } => false,
        }
    }

    /// When the machine wants a [`Event::Tick`] at the latest, whatever else happens; `None`: never.
    pub fn deadline(&self) -> Option<Time> {
        let drain = self.drain?;
        let Budget { lame_duck, draining, .. } = self.policy.budget;
        match self.state {
            State::LameDuck if drain.waits_for_signal => None,
            State::LameDuck if self.ahead == Ahead::Leaving => Some(self.held_until(&drain)),
            State::LameDuck => Some(drain.began + lame_duck),
            State::Draining => Some(drain.began + lame_duck + draining),
            State::Stopping if self.policy.on_stop != OnStop::Drain => None,
            State::Stopping if !self.reminded => Some(self.halfway(&drain)),
            State::Stopping => Some(self.kill_at(&drain)),
            State::Killing => Some(self.kill_again),
            State::Starting | State::Serving | State::Exited { .. } => None,
        }
    }

    /// Since when nothing but neighbours holds the lame duck, if that is so.
    pub const fn held_since(&self) -> Option<Time> {
        self.held_since
    }

    /// Until when neighbours that leave first are waited for. What was meant for draining is theirs too, but for a quarter of it:
    /// a front of ours needs that to close. The app's own time to stop is never given away.
    pub fn held_until(&self, drain: &Drain) -> Time {
        let Budget { lame_duck, draining, .. } = self.policy.budget;
        drain.began + lame_duck + draining * 3 / 4
    }

    /// When what is left is killed.
    fn kill_at(&self, drain: &Drain) -> Time {
        drain.began + self.policy.budget.kill_at()
    }

    /// When those are told that were not: the other processes although the main one has not ended (a shell that waits for
    /// its child before it runs its trap would wait for ever), the main one although the stop command said it was done.
    fn halfway(&self, drain: &Drain) -> Time {
        drain.phase_began + self.kill_at(drain).saturating_sub(drain.phase_began) / 2
    }

    fn on(&mut self, now: Time, event: Event, actions: &mut Actions) {
        if let State::Exited { .. } = self.state {
            return;
        }
        match event {
            Event::Started => {
                if self.state == State::Starting {
                    self.state = State::Serving;
                    actions.push(Action::Record(Moment::Started));
                }
            }
            Event::StartFailed { status } => self.exit(now, status, actions),
            Event::Signal(signal) => self.on_signal(now, signal, actions),
            Event::DrainRequested => self.on_drain_request(now, actions),
            Event::Traffic(seen) => {
                self.seen = seen;
                self.advance(now, actions);
            }
            Event::Neighbours(ahead) => {
                self.ahead = ahead;
                self.advance(now, actions);
            }
            Event::Routing(routing) => {
                self.routing = routing;
                self.advance(now, actions);
            }
            Event::PreStopEnded => {
                self.pre_stop_runs = false;
                self.advance(now, actions);
            }
            Event::StopCommandEnded { success } => {
                if self.state == State::Stopping && !success {
                    self.signal_next(actions);
                }
            }
            Event::MainEnded(ending) => self.on_main_ended(now, ending, actions),
            Event::AllEnded => {
                let status = self.main.map_or(0, Ending::status);
                self.exit(now, status, actions);
            }
            Event::Tick => self.advance(now, actions),
        }
    }

    fn on_signal(&mut self, now: Time, signal: Signal, actions: &mut Actions) {
        let stops = self.policy.stop_signals & signal.bit() != 0;
        match (stops, self.policy.on_stop) {
            (true, OnStop::Drain) => self.on_stop_signal(now, signal, actions),
            (true, OnStop::Report) => {
                if self.drain.is_none() {
                    self.begin_drain(now, Origin::Signal, Some(signal), actions);
                    self.end_phase(now, Phase::LameDuck, EndedBy::NotActing, actions);
                    self.state = State::Stopping;
                    actions.push(Action::Record(Moment::AppSignalled));
                }
                self.forward(signal, actions);
            }
            (false, _) | (true, OnStop::Forward) => self.forward(signal, actions),
        }
    }

    fn forward(&mut self, signal: Signal, actions: &mut Actions) {
        if let Some(signal) = self.policy.rewrites.apply(signal) {
            actions.push(Action::Forward(signal));
        }
        if self.policy.suspend_self && [Signal::TSTP, Signal::TTIN, Signal::TTOU].contains(&signal) {
            actions.push(Action::SuspendSelf);
        }
    }

    fn on_stop_signal(&mut self, now: Time, signal: Signal, actions: &mut Actions) {
        let Some(mut drain) = self.drain else {
            self.begin_drain(now, Origin::Signal, Some(signal), actions);
            return;
        };
        if drain.signal.is_none() {
            actions.push(Action::Record(Moment::TermReceived));
            // A drain on request counts against the grace period when a preStop hook asked for it, and is long over when
            // an operator did.
            if now >= self.kill_at(&drain) {
                drain.began = now;
            }
            drain.signal = Some(signal);
            drain.was_over = drain.waits_for_signal;
            drain.waits_for_signal = false;
            self.drain = Some(drain);
            actions.push(Action::LookNow);
        } else if self.policy.force_on_repeat {
            match self.state {
                State::LameDuck => self.leave(now, Phase::LameDuck, EndedBy::Forced, actions),
                State::Draining => self.leave(now, Phase::Draining, EndedBy::Forced, actions),
                State::Stopping => self.kill(now, EndedBy::Forced, actions),
                State::Starting | State::Serving | State::Killing | State::Exited { .. } => {}
            }
        }
    }

    fn on_drain_request(&mut self, now: Time, actions: &mut Actions) {
        match self.drain {
            None if self.policy.on_stop == OnStop::Drain => self.begin_drain(now, Origin::Request, None, actions),
            None => actions.push(Action::TellWaiters),
            Some(drain) if drain.waits_for_signal => actions.push(Action::TellWaiters),
            Some(_) => {}
        }
    }

    fn begin_drain(&mut self, now: Time, origin: Origin, signal: Option<Signal>, actions: &mut Actions) {
        self.drain =
            Some(Drain { began: now, origin, signal, phase_began: now, waits_for_signal: false, was_over: false });
        actions.push(Action::Record(match origin {
            Origin::Signal => Moment::TermReceived,
            Origin::Request | Origin::AppExit => Moment::DrainRequested,
        }));
        actions.push(Action::Watch);
        if self.policy.on_stop == OnStop::Drain {
            self.state = State::LameDuck;
            actions.push(Action::Record(Moment::LameDuckBegan));
            self.tell_front(Command::LameDuck, actions);
            if self.policy.pre_stop {
                self.pre_stop_runs = true;
                actions.push(Action::RunPreStop);
            }
        }
    }

    /// Moves on where the time or the traffic says so.
    fn advance(&mut self, now: Time, actions: &mut Actions) {
        let Some(drain) = self.drain else { return };
        let Budget { lame_duck, draining, .. } = self.policy.budget;
        match self.state {
            State::LameDuck => {
                let Some(by) = self.lame_duck_over(now, &drain) else {
                    self.held_since = None;
                    return;
                };
                if !self.is_held(now, &drain) {
                    self.lame_duck_ended(now, by, actions);
                } else if now >= self.held_until(&drain) {
                    self.lame_duck_ended(now, EndedBy::BudgetSpent, actions);
                } else {
                    self.held_since.get_or_insert(now);
                }
            }
            State::Draining => {
                if self.drained() {
                    self.leave(now, Phase::Draining, EndedBy::NothingInFlight, actions);
                } else if now >= drain.began + lame_duck + draining {
                    self.leave(now, Phase::Draining, EndedBy::BudgetSpent, actions);
                }
            }
            State::Stopping if self.policy.on_stop == OnStop::Drain => {
                if now >= self.kill_at(&drain) {
                    self.kill(now, EndedBy::BudgetSpent, actions);
                } else if !self.reminded && now >= self.halfway(&drain) {
                    self.reminded = true;
                    if !self.others_signalled {
                        self.signal_next(actions);
                    }
                }
            }
            State::Killing => {
                if now >= drain.began + self.policy.budget.grace {
                    // Something can not be killed (an uninterruptible sleep). Waiting longer would only lose the status.
                    self.exit(now, self.main.map_or(128 + Signal::KILL.number(), Ending::status), actions);
                } else if now >= self.kill_again {
                    self.kill_again = now + KILL_AGAIN;
                    actions.push(Action::KillAll);
                }
            }
            State::Starting | State::Serving | State::Stopping | State::Exited { .. } => {}
        }
    }

    /// Whether neighbours are still to be waited for.
    fn is_held(&self, now: Time, drain: &Drain) -> bool {
        match self.ahead {
            Ahead::Nobody => false,
            Ahead::Untold => !drain.was_over && now.saturating_sub(drain.began) < self.policy.budget.min,
            Ahead::Leaving => true,
        }
    }

    /// Whether draining has nothing left to wait for.
    fn drained(&self) -> bool {
        let closed = self.seen.listeners == Some(0) && self.seen.connections == 0;
        self.seen.in_flight == 0 && (closed || !self.policy.front)
    }

    fn lame_duck_over(&self, now: Time, drain: &Drain) -> Option<EndedBy> {
        let Budget { lame_duck, min, quiet, .. } = self.policy.budget;
        if drain.waits_for_signal {
            return None;
        }
        let elapsed = now.saturating_sub(drain.began);
        let spent = (elapsed >= lame_duck).then_some(EndedBy::BudgetSpent);
        if self.pre_stop_runs {
            return spent;
        }
        // What was seen counts in place of what was guessed; whether the traffic is quiet is asked all the same.
        let (min_passed, seen_out) = match self.routing {
            Routing::Unknown => (elapsed >= min, false),
            Routing::In => (false, false),
            Routing::Out => (elapsed >= min, true),
        };
        let min_passed = drain.was_over || min_passed;
        let over = match self.seen.listeners {
            // Somebody who names a least time has traffic that is not TCP: a unix socket, UDP.
            Some(0) if self.seen.in_flight == 0 => {
                (!self.policy.min_is_asked || min_passed).then_some(EndedBy::NothingListens)
            }
            Some(_) => {
                let since = if drain.was_over { Duration::ZERO } else { drain.began };
                let last = [self.seen.last_arrival, self.seen.last_sent].into_iter().flatten().fold(since, Time::max);
                let calm = self.seen.in_flight == 0 && now.saturating_sub(last) >= quiet;
                (calm && (min_passed || seen_out)).then_some(EndedBy::Quiet)
            }
            None => min_passed.then_some(EndedBy::MinimumPassed),
        };
        over.or(spent)
    }

    fn lame_duck_ended(&mut self, now: Time, by: EndedBy, actions: &mut Actions) {
        if by == EndedBy::Quiet {
            actions.push(Action::Record(Moment::Quiet));
        }
        actions.push(Action::TellWaiters);
        match &mut self.drain {
            // Whoever asked for the drain did not ask for the end: that takes the signal.
            Some(drain) if drain.signal.is_none() => drain.waits_for_signal = true,
            Some(_) | None => self.leave(now, Phase::LameDuck, by, actions),
        }
    }

    /// From lame duck or draining to what comes next.
    fn leave(&mut self, now: Time, phase: Phase, by: EndedBy, actions: &mut Actions) {
        self.end_phase(now, phase, by, actions);
        // A front always has something to do first: it sheds its idle connections and closes.
        let waits = match by {
            EndedBy::AppExited | EndedBy::Forced => false,
            EndedBy::BudgetSpent => self.seen.in_flight > 0 || self.policy.front,
            EndedBy::Quiet
            | EndedBy::NothingListens
            | EndedBy::MinimumPassed
            | EndedBy::NothingInFlight
            | EndedBy::AllExited
            | EndedBy::NotActing => self.policy.front,
        };
        if phase == Phase::LameDuck && waits {
            self.state = State::Draining;
            actions.push(Action::Record(Moment::DrainingBegan));
            self.close_front(actions);
            return;
        }
        self.close_front(actions);
        // The front of an app that exited by itself still has answers to give; it gets its time at the very end.
        if by != EndedBy::AppExited {
            self.tell_front(Command::End, actions);
        }
        self.begin_stopping(actions);
    }

    fn tell_front(&self, command: Command, actions: &mut Actions) {
        if self.policy.front {
            actions.push(Action::TellFront(command));
        }
    }

    fn close_front(&mut self, actions: &mut Actions) {
        if !std::mem::replace(&mut self.front_told, true) {
            self.tell_front(Command::Close, actions);
        }
    }

    fn begin_stopping(&mut self, actions: &mut Actions) {
        self.state = State::Stopping;
        actions.push(Action::Record(Moment::AppSignalled));
        let by_itself = self.drain.is_some_and(|drain| drain.origin == Origin::AppExit);
        if self.policy.stop_command && !by_itself {
            actions.push(Action::RunStopCommand);
        } else {
            self.signal_next(actions);
        }
    }

    /// The main process first, then the others.
    fn signal_next(&mut self, actions: &mut Actions) {
        if self.main.is_some() || self.main_signalled {
            self.signal_others(actions);
        } else {
            self.signal_app(actions);
        }
    }

    fn signal_app(&mut self, actions: &mut Actions) {
        self.main_signalled = true;
        if let Some(signal) = self.stop_signal() {
            actions.push(Action::SignalMain(signal));
        }
    }

    fn signal_others(&mut self, actions: &mut Actions) {
        self.others_signalled = true;
        if let Some(signal) = self.stop_signal().filter(|_| self.policy.descendants) {
            actions.push(Action::SignalOthers(signal));
        }
    }

    /// What tells the app to stop: `--stop-signal`, or the signal received, rewritten.
    fn stop_signal(&self) -> Option<Signal> {
        let received = self.drain.and_then(|drain| drain.signal).unwrap_or(Signal::TERM);
        self.policy.stop_with.or_else(|| self.policy.rewrites.apply(received))
    }

    fn kill(&mut self, now: Time, by: EndedBy, actions: &mut Actions) {
        self.end_phase(now, Phase::Stopping, by, actions);
        self.state = State::Killing;
        self.kill_again = now + KILL_AGAIN;
        actions.push(Action::Record(Moment::Killed));
        actions.push(Action::KillAll);
    }

    fn on_main_ended(&mut self, now: Time, ending: Ending, actions: &mut Actions) {
        self.main = Some(ending);
        match self.policy.on_main_end {
            OnMainEnd::Exit => self.exit(now, ending.status(), actions),
            OnMainEnd::SignalAndExit(signal) => {
                if let Some(signal) = self.policy.rewrites.apply(signal) {
                    actions.push(Action::Forward(signal));
                }
                self.exit(now, ending.status(), actions);
            }
            OnMainEnd::StopOthers => self.app_ended(now, actions),
            OnMainEnd::WaitForAll => {
                if self.state == State::Stopping {
                    self.signal_others(actions);
                }
            }
        }
    }

    /// The main process ended by itself or on request; the others follow.
    fn app_ended(&mut self, now: Time, actions: &mut Actions) {
        match self.state {
            State::Starting | State::Serving | State::LameDuck | State::Draining => {
                self.tell_front(Command::AppGone, actions);
                self.close_front(actions);
            }
            State::Stopping | State::Killing | State::Exited { .. } => {}
        }
        match self.state {
            State::Starting | State::Serving => {
                self.drain = Some(Drain {
                    began: now,
                    origin: Origin::AppExit,
                    signal: None,
                    phase_began: now,
                    waits_for_signal: false,
                    was_over: false,
                });
                self.begin_stopping(actions);
            }
            State::LameDuck => {
                if std::mem::take(&mut self.pre_stop_runs) {
                    actions.push(Action::EndPreStop);
                }
                actions.push(Action::TellWaiters);
                self.leave(now, Phase::LameDuck, EndedBy::AppExited, actions);
            }
            State::Draining => self.leave(now, Phase::Draining, EndedBy::AppExited, actions),
            State::Stopping => self.signal_others(actions),
            State::Killing | State::Exited { .. } => {}
        }
    }

    fn end_phase(&mut self, now: Time, phase: Phase, by: EndedBy, actions: &mut Actions) {
        if let Some(drain) = &mut self.drain {
            let used = now.saturating_sub(drain.phase_began);
            drain.phase_began = now;
            actions.push(Action::PhaseEnded { phase, used, by });
        }
    }

    fn exit(&mut self, now: Time, status: u8, actions: &mut Actions) {
        let phase = match self.state {
            State::LameDuck => Some(Phase::LameDuck),
            State::Draining => Some(Phase::Draining),
            State::Stopping => Some(Phase::Stopping),
            State::Killing => Some(Phase::Killing),
            State::Starting | State::Serving | State::Exited { .. } => None,
        };
        if let Some(phase) = phase {
            self.end_phase(now, phase, EndedBy::AllExited, actions);
        }
        self.state = State::Exited { status };
        actions.push(Action::Record(Moment::Exited));
        actions.push(Action::TellWaiters);
        actions.push(Action::Exit(status));
    }
}

#[cfg(test)]
mod tests;
