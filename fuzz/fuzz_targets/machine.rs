//! Any policy, any events at any times: states only move to the right, there is one exit, no step overflows its actions,
//! and ticking at the deadlines it asks for always brings an ordered stop to its end within the grace period.
#![no_main]

use std::time::Duration;

use lameduck_core::budget::{Budget, Shares};
use lameduck_core::front::Command;
use lameduck_run::machine::{
    Action, Ahead, Ending, Event, Machine, OnMainEnd, OnStop, Policy, Routing, Seen, State, Time, step,
};
use lameduck_run::signal::{Rewrites, Signal};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

#[derive(Debug, Arbitrary)]
struct Input {
    grace_ms: u32,
    min_ms: Option<u16>,
    quiet_ms: Option<u16>,
    max_ms: Option<u32>,
    on_stop: u8,
    on_main_end: u8,
    stop_signals: u64,
    rewrites: Vec<(u8, u8)>,
    stop_with: Option<u8>,
    descendants: bool,
    force_on_repeat: bool,
    pre_stop: bool,
    stop_command: bool,
    suspend_self: bool,
    front: bool,
    events: Vec<(u16, Happening)>,
}

#[derive(Debug, Arbitrary)]
enum Happening {
    Started,
    StartFailed(u8),
    Signal(u8),
    DrainRequested,
    Traffic {
        listeners: Option<u8>,
        ago_ms: Option<u16>,
        sent_ago_ms: Option<u16>,
        in_flight: u8,
        connections: u8,
    },
    Neighbours(u8),
    Routing(u8),
    PreStopEnded,
    StopCommandEnded(bool),
    MainExited(u8),
    MainKilled(u8),
    AllEnded,
    Tick,
    /// Time passes until the machine's own deadline.
    UntilDeadline,
}

fn signal(number: u8) -> Signal {
    Signal::new(number % 64 + 1).expect("1 to 64")
}

fn policy(input: &Input) -> Option<Policy> {
    let millis = |n: u32| Duration::from_millis(u64::from(n));
    let shares = Shares {
        grace: millis(input.grace_ms),
        min: input.min_ms.map(u32::from).map(millis),
        quiet: input.quiet_ms.map(u32::from).map(millis),
        max: input.max_ms.map(millis),
        ..Shares::default()
    };
    let mut rewrites = Rewrites::default();
    for (from, to) in &input.rewrites {
        rewrites.set(signal(*from), Signal::new(to % 65));
    }
    Some(Policy {
        budget: Budget::divide(&shares).ok()?,
        on_stop: [OnStop::Drain, OnStop::Report, OnStop::Forward][usize::from(input.on_stop % 3)],
        stop_signals: input.stop_signals,
        rewrites,
        stop_with: input.stop_with.map(signal),
        on_main_end: [
            OnMainEnd::StopOthers,
            OnMainEnd::WaitForAll,
            OnMainEnd::Exit,
            OnMainEnd::SignalAndExit(Signal::TERM),
        ][usize::from(input.on_main_end % 4)],
        descendants: input.descendants,
        force_on_repeat: input.force_on_repeat,
        min_is_asked: input.min_ms.is_some(),
        pre_stop: input.pre_stop,
        stop_command: input.stop_command,
        suspend_self: input.suspend_self,
        front: input.front,
    })
}

fn place(state: State) -> u8 {
    match state {
        State::Starting => 0,
        State::Serving => 1,
        State::LameDuck => 2,
        State::Draining => 3,
        State::Stopping => 4,
        State::Killing => 5,
        State::Exited { .. } => 6,
    }
}

struct Watch {
    machine: Machine,
    policy: Policy,
    exits: u32,
    /// The front was told to close.
    closed: bool,
}

impl Watch {
    fn step(&mut self, now: Time, event: Event) {
        let before = self.machine.state();
        let (machine, actions) = step(self.machine, now, event);
        assert!(place(machine.state()) >= place(before), "{before:?} to {:?} by {event:?}", machine.state());
        assert!(!actions.is_full(), "{event:?} in {before:?} filled the actions");
        for action in actions.iter() {
            match action {
                Action::Exit(status) => {
                    self.exits += 1;
                    assert_eq!(machine.state(), State::Exited { status });
                }
                Action::TellFront(command) => {
                    assert!(self.policy.front, "there is none");
                    self.closed |= command == Command::Close;
                }
                Action::SignalMain(_) | Action::SignalOthers(_) | Action::RunStopCommand => {
                    let front = self.policy.front && self.policy.on_stop == OnStop::Drain;
                    assert!(!front || self.closed, "{action:?} before the front was told to close");
                }
                _ => {}
            }
        }
        assert_eq!(self.exits, u32::from(matches!(machine.state(), State::Exited { .. })), "one exit, once");
        self.machine = machine;
    }
}

fuzz_target!(|input: Input| {
    let Some(policy) = policy(&input) else { return };
    let mut watch = Watch { machine: Machine::new(policy), policy, exits: 0, closed: false };
    let mut now = Duration::ZERO;
    for (after_ms, happening) in &input.events {
        now += Duration::from_millis(u64::from(*after_ms));
        let event = match *happening {
            Happening::Started => Event::Started,
            Happening::StartFailed(status) => Event::StartFailed { status },
            Happening::Signal(number) => Event::Signal(signal(number)),
            Happening::DrainRequested => Event::DrainRequested,
            Happening::Traffic { listeners, ago_ms, sent_ago_ms, in_flight, connections } => Event::Traffic(Seen {
                listeners: listeners.map(u32::from),
                last_arrival: ago_ms.map(|ago| now.saturating_sub(Duration::from_millis(u64::from(ago)))),
                last_sent: sent_ago_ms.map(|ago| now.saturating_sub(Duration::from_millis(u64::from(ago)))),
                in_flight: u32::from(in_flight),
                connections: u32::from(connections),
            }),
            Happening::Neighbours(ahead) => {
                Event::Neighbours([Ahead::Nobody, Ahead::Untold, Ahead::Leaving][usize::from(ahead % 3)])
            }
            Happening::Routing(routing) => {
                Event::Routing([Routing::Unknown, Routing::In, Routing::Out][usize::from(routing % 3)])
            }
            Happening::PreStopEnded => Event::PreStopEnded,
            Happening::StopCommandEnded(success) => Event::StopCommandEnded { success },
            Happening::MainExited(code) => Event::MainEnded(Ending::Code(code)),
            Happening::MainKilled(number) => Event::MainEnded(Ending::Killed(signal(number))),
            Happening::AllEnded => Event::AllEnded,
            Happening::Tick => Event::Tick,
            Happening::UntilDeadline => {
                now = watch.machine.deadline().map_or(now, |deadline| deadline.max(now));
                Event::Tick
            }
        };
        watch.step(now, event);
    }
    // Whatever happened before: a stop that was ordered ends by itself.
    let ordered = watch.machine.drain().is_some_and(|drain| !drain.waits_for_signal) && policy.on_stop == OnStop::Drain;
    if !ordered {
        return;
    }
    let requested_only = watch.machine.drain().is_some_and(|drain| drain.signal.is_none())
        && matches!(watch.machine.state(), State::LameDuck);
    for _ in 0..16 {
        let Some(deadline) = watch.machine.deadline() else { break };
        now = deadline.max(now);
        // Killing repeats itself; what matters is that it gives up at the end of the grace period.
        if let (State::Killing, Some(drain)) = (watch.machine.state(), watch.machine.drain()) {
            now = now.max(drain.began + policy.budget.grace);
        }
        watch.step(now, Event::Tick);
    }
    let waits = watch.machine.drain().is_some_and(|drain| drain.waits_for_signal);
    assert!(watch.exits == 1 || (requested_only && waits), "{:?} has no end", watch.machine.state());
});
