use lameduck_core::budget::Shares;
use proptest::prelude::*;

use super::*;

fn policy() -> Policy {
    Policy {
        budget: Budget::divide(&Shares::default()).unwrap(),
        on_stop: OnStop::Drain,
        stop_signals: Signal::TERM.bit(),
        rewrites: Rewrites::default(),
        stop_with: None,
        on_main_end: OnMainEnd::StopOthers,
        descendants: true,
        force_on_repeat: false,
        min_is_asked: false,
        pre_stop: false,
        stop_command: false,
        suspend_self: true,
        front: false,
    }
}

const fn at(millis: u64) -> Time {
    Duration::from_millis(millis)
}

/// A machine in a story: each line is a time, an event, and the actions that must follow.
struct Story {
    machine: Machine,
}

impl Story {
    fn of(policy: Policy) -> Story {
        let mut story = Story { machine: Machine::new(policy) };
        story.when(0, Event::Started, &[Action::Record(Moment::Started)]);
        story
    }

    fn when(&mut self, millis: u64, event: Event, expect: &[Action]) {
        let (machine, actions) = step(self.machine, at(millis), event);
        let got: Vec<_> = actions.iter().collect();
        assert_eq!(got, expect, "at {millis} ms, {event:?}");
        self.machine = machine;
    }

    /// The same, where the actions are not the point.
    fn after(&mut self, millis: u64, event: Event) {
        self.machine = step(self.machine, at(millis), event).0;
    }
}

fn traffic(last_arrival: u64, in_flight: u32) -> Event {
    Event::Traffic(Seen { listeners: Some(1), last_arrival: Some(at(last_arrival)), in_flight, ..Seen::default() })
}

const TERM: Event = Event::Signal(Signal::TERM);

fn ended(phase: Phase, used: u64, by: EndedBy) -> Action {
    Action::PhaseEnded { phase, used: at(used), by }
}

const DRAIN_BEGINS: [Action; 3] =
    [Action::Record(Moment::TermReceived), Action::Watch, Action::Record(Moment::LameDuckBegan)];

#[test]
fn quiet_ends_the_lame_duck_then_the_app_is_told() {
    let mut story = Story::of(policy());
    story.when(1000, TERM, &DRAIN_BEGINS);
    story.when(4000, traffic(3990, 0), &[]);
    story.when(5990, traffic(3990, 0), &[]); // quiet for 2 s, but not yet --min
    story.when(
        6000,
        traffic(3990, 0),
        &[
            Action::Record(Moment::Quiet),
            Action::TellWaiters,
            ended(Phase::LameDuck, 5000, EndedBy::Quiet),
            Action::Record(Moment::AppSignalled),
            Action::SignalMain(Signal::TERM),
        ],
    );
    story.when(6100, Event::MainEnded(Ending::Code(0)), &[Action::SignalOthers(Signal::TERM)]);
    story.when(
        6200,
        Event::AllEnded,
        &[
            ended(Phase::Stopping, 200, EndedBy::AllExited),
            Action::Record(Moment::Exited),
            Action::TellWaiters,
            Action::Exit(0),
        ],
    );
    assert_eq!(story.machine.state(), State::Exited { status: 0 });
}

#[test]
fn a_request_in_flight_holds_the_lame_duck_then_draining_then_the_stop_comes_anyway() {
    let mut story = Story::of(policy());
    story.when(0, TERM, &DRAIN_BEGINS);
    story.when(10_000, traffic(100, 1), &[]);
    story.when(
        17_400,
        traffic(100, 1),
        &[
            Action::TellWaiters,
            ended(Phase::LameDuck, 17_400, EndedBy::BudgetSpent),
            Action::Record(Moment::DrainingBegan),
        ],
    );
    assert_eq!(story.machine.deadline(), Some(at(23_200)));
    story.when(
        23_200,
        Event::Tick,
        &[
            ended(Phase::Draining, 5_800, EndedBy::BudgetSpent),
            Action::Record(Moment::AppSignalled),
            Action::SignalMain(Signal::TERM),
        ],
    );
}

#[test]
fn nothing_listens_so_nothing_is_waited_for() {
    let mut story = Story::of(policy());
    story.after(0, TERM);
    story.when(
        1,
        Event::Traffic(Seen { listeners: Some(0), ..Seen::default() }),
        &[
            Action::TellWaiters,
            ended(Phase::LameDuck, 1, EndedBy::NothingListens),
            Action::Record(Moment::AppSignalled),
            Action::SignalMain(Signal::TERM),
        ],
    );
}

#[test]
fn unmeasured_traffic_takes_the_minimum() {
    let mut story = Story::of(policy());
    story.after(0, TERM);
    story.when(4999, Event::Traffic(Seen::default()), &[]);
    story.after(5000, Event::Traffic(Seen::default()));
    assert_eq!(story.machine.state(), State::Stopping);
}

#[test]
fn an_answer_that_streams_is_no_quiet() {
    let mut story = Story::of(policy());
    story.after(0, TERM);
    let streams = |sent: u64| {
        Event::Traffic(Seen {
            listeners: Some(1),
            last_arrival: Some(at(0)),
            last_sent: Some(at(sent)),
            ..Seen::default()
        })
    };
    story.when(8000, streams(7900), &[]);
    story.after(9900, streams(7900));
    assert_eq!(story.machine.state(), State::Stopping);
}

#[test]
fn a_least_time_that_was_asked_for_is_served_although_nothing_listens() {
    let mut story = Story::of(Policy { min_is_asked: true, ..policy() });
    story.after(0, TERM);
    let nothing = Event::Traffic(Seen { listeners: Some(0), ..Seen::default() });
    story.when(4900, nothing, &[]);
    story.after(5000, nothing);
    assert_eq!(story.machine.state(), State::Stopping);
}

#[test]
fn a_stop_command_that_says_it_is_done_and_is_not() {
    let mut story = Story::of(Policy { stop_command: true, ..policy() });
    story.after(0, TERM);
    story.after(5000, traffic(0, 0));
    story.when(5100, Event::StopCommandEnded { success: true }, &[]);
    story.when(17_000, Event::Tick, &[Action::SignalMain(Signal::TERM)]);
    assert_eq!(story.machine.deadline(), Some(at(29_000)));
}

#[test]
fn an_app_that_exits_ends_the_pre_stop_commands() {
    let mut story = Story::of(Policy { pre_stop: true, ..policy() });
    story.after(0, TERM);
    let (_, actions) = step(story.machine, at(100), Event::MainEnded(Ending::Code(0)));
    assert_eq!(actions.iter().next(), Some(Action::EndPreStop));
}

#[test]
fn an_app_that_exits_by_itself_ends_any_wait_at_once() {
    let mut story = Story::of(policy());
    story.after(0, TERM);
    story.when(
        100,
        Event::MainEnded(Ending::Code(3)),
        &[
            Action::TellWaiters,
            ended(Phase::LameDuck, 100, EndedBy::AppExited),
            Action::Record(Moment::AppSignalled),
            Action::SignalOthers(Signal::TERM),
        ],
    );
    story.after(101, Event::AllEnded);
    assert_eq!(story.machine.state(), State::Exited { status: 3 });
}

#[test]
fn what_does_not_stop_is_killed_a_margin_before_the_platform_does() {
    let mut story = Story::of(policy());
    story.after(0, TERM);
    story.after(5000, traffic(0, 0));
    assert_eq!(story.machine.deadline(), Some(at(17_000)), "halfway to the kill, the others are told too");
    story.when(17_000, Event::Tick, &[Action::SignalOthers(Signal::TERM)]);
    assert_eq!(story.machine.deadline(), Some(at(29_000)));
    story.when(
        29_000,
        Event::Tick,
        &[ended(Phase::Stopping, 24_000, EndedBy::BudgetSpent), Action::Record(Moment::Killed), Action::KillAll],
    );
    story.when(29_050, Event::Tick, &[Action::KillAll]);
    story.after(29_060, Event::MainEnded(Ending::Killed(Signal::KILL)));
    story.after(29_070, Event::AllEnded);
    assert_eq!(story.machine.state(), State::Exited { status: 137 });
}

#[test]
fn what_can_not_be_killed_does_not_outlive_the_grace() {
    let mut story = Story::of(policy());
    story.after(0, TERM);
    story.after(5000, traffic(0, 0));
    story.after(29_000, Event::Tick);
    story.after(30_000, Event::Tick);
    assert_eq!(story.machine.state(), State::Exited { status: 137 });
}

#[test]
fn a_second_term_changes_nothing_unless_it_may() {
    let mut patient = Story::of(policy());
    patient.after(0, TERM);
    patient.when(100, TERM, &[]);
    let mut forced = Story::of(Policy { force_on_repeat: true, ..policy() });
    forced.after(0, TERM);
    forced.when(
        100,
        TERM,
        &[
            ended(Phase::LameDuck, 100, EndedBy::Forced),
            Action::Record(Moment::AppSignalled),
            Action::SignalMain(Signal::TERM),
        ],
    );
    forced.when(
        200,
        TERM,
        &[ended(Phase::Stopping, 100, EndedBy::Forced), Action::Record(Moment::Killed), Action::KillAll],
    );
}

#[test]
fn a_drain_on_request_waits_for_the_signal_and_then_does_not_wait_again() {
    let mut story = Story::of(policy());
    story.when(
        0,
        Event::DrainRequested,
        &[Action::Record(Moment::DrainRequested), Action::Watch, Action::Record(Moment::LameDuckBegan)],
    );
    story.when(5000, traffic(0, 0), &[Action::Record(Moment::Quiet), Action::TellWaiters]);
    story.when(5100, Event::DrainRequested, &[Action::TellWaiters]);
    story.when(9000, traffic(0, 0), &[]);
    story.when(10_000, TERM, &[Action::Record(Moment::TermReceived), Action::LookNow]);
    story.when(
        10_000,
        traffic(0, 0),
        &[
            Action::Record(Moment::Quiet),
            Action::TellWaiters,
            ended(Phase::LameDuck, 10_000, EndedBy::Quiet),
            Action::Record(Moment::AppSignalled),
            Action::SignalMain(Signal::TERM),
        ],
    );
    assert_eq!(story.machine.deadline().map(|t| t < at(29_000)), Some(true), "the grace counts from the request");
}

#[test]
fn a_drain_on_request_long_ago_does_not_eat_the_grace() {
    let mut story = Story::of(policy());
    story.after(0, Event::DrainRequested);
    story.after(5000, traffic(0, 0));
    story.after(600_000, TERM);
    assert_eq!(story.machine.state(), State::LameDuck, "a fresh look decides");
    story.after(600_010, traffic(599_000, 0));
    assert_eq!(story.machine.state(), State::LameDuck, "somebody came 1 s ago");
    story.after(601_000, traffic(599_000, 0));
    assert_eq!(story.machine.state(), State::Stopping, "--min was served long ago");
    assert!(story.machine.deadline() > Some(at(601_000)), "and the grace counts from the signal");
}

#[test]
fn pre_stop_commands_hold_the_lame_duck_and_a_failed_stop_command_falls_back_to_the_signal() {
    let mut story = Story::of(Policy { pre_stop: true, stop_command: true, ..policy() });
    let mut begins = DRAIN_BEGINS.to_vec();
    begins.push(Action::RunPreStop);
    story.when(0, TERM, &begins);
    story.when(9000, traffic(0, 0), &[]);
    story.when(
        9100,
        Event::PreStopEnded,
        &[
            Action::Record(Moment::Quiet),
            Action::TellWaiters,
            ended(Phase::LameDuck, 9100, EndedBy::Quiet),
            Action::Record(Moment::AppSignalled),
            Action::RunStopCommand,
        ],
    );
    story.when(9200, Event::StopCommandEnded { success: false }, &[Action::SignalMain(Signal::TERM)]);
}

#[test]
fn rewrites_reach_the_stop_and_a_swallowed_stop_signal_is_not_sent() {
    let rewritten = |to| {
        let mut rewrites = Rewrites::default();
        rewrites.set(Signal::TERM, to);
        Policy { rewrites, ..policy() }
    };
    let last = |policy: Policy| {
        let mut story = Story::of(policy);
        story.after(0, TERM);
        let (_, actions) = step(story.machine, at(5000), traffic(0, 0));
        actions.iter().last()
    };
    assert_eq!(last(rewritten(Some(Signal::QUIT))), Some(Action::SignalMain(Signal::QUIT)));
    assert_eq!(last(rewritten(None)), Some(Action::Record(Moment::AppSignalled)));
    let stop_with = Policy { stop_with: Some(Signal::INT), ..policy() };
    assert_eq!(last(stop_with), Some(Action::SignalMain(Signal::INT)));
}

#[test]
fn personalities_forward_at_once_and_end_with_the_main_process() {
    let plain = Policy { on_stop: OnStop::Forward, on_main_end: OnMainEnd::Exit, ..policy() };
    let mut tini = Story::of(plain);
    tini.when(0, TERM, &[Action::Forward(Signal::TERM)]);
    tini.when(1, Event::Signal(Signal::HUP), &[Action::Forward(Signal::HUP)]);
    tini.after(2, Event::MainEnded(Ending::Killed(Signal::TERM)));
    assert_eq!(tini.machine.state(), State::Exited { status: 143 });

    let mut dumb = Story::of(Policy { on_main_end: OnMainEnd::SignalAndExit(Signal::TERM), ..plain });
    dumb.when(
        0,
        Event::MainEnded(Ending::Code(7)),
        &[Action::Forward(Signal::TERM), Action::Record(Moment::Exited), Action::TellWaiters, Action::Exit(7)],
    );
}

#[test]
fn observe_forwards_at_once_never_kills_and_still_watches() {
    let mut story = Story::of(Policy { on_stop: OnStop::Report, on_main_end: OnMainEnd::Exit, ..policy() });
    story.when(
        0,
        TERM,
        &[
            Action::Record(Moment::TermReceived),
            Action::Watch,
            ended(Phase::LameDuck, 0, EndedBy::NotActing),
            Action::Record(Moment::AppSignalled),
            Action::Forward(Signal::TERM),
        ],
    );
    assert!(story.machine.watches());
    assert_eq!(story.machine.deadline(), None);
    story.when(100_000, Event::Tick, &[]);
    story.when(100_001, TERM, &[Action::Forward(Signal::TERM)]);
}

fn fronted() -> Policy {
    Policy { front: true, ..policy() }
}

const FRONTED_DRAIN_BEGINS: [Action; 4] = [
    Action::Record(Moment::TermReceived),
    Action::Watch,
    Action::Record(Moment::LameDuckBegan),
    Action::TellFront(Command::LameDuck),
];

fn closing(connections: u32) -> Event {
    let listeners = Some(u32::from(connections > 0));
    Event::Traffic(Seen { listeners, connections, ..Seen::default() })
}

#[test]
fn a_front_closes_before_the_app_is_told() {
    let mut story = Story::of(fronted());
    story.when(0, TERM, &FRONTED_DRAIN_BEGINS);
    story.when(
        5000,
        traffic(0, 0),
        &[
            Action::Record(Moment::Quiet),
            Action::TellWaiters,
            ended(Phase::LameDuck, 5000, EndedBy::Quiet),
            Action::Record(Moment::DrainingBegan),
            Action::TellFront(Command::Close),
        ],
    );
    story.when(5500, closing(3), &[]);
    story.when(
        6000,
        closing(0),
        &[
            ended(Phase::Draining, 1000, EndedBy::NothingInFlight),
            Action::TellFront(Command::End),
            Action::Record(Moment::AppSignalled),
            Action::SignalMain(Signal::TERM),
        ],
    );
    assert!(!story.machine.watches(), "there is nothing left to look at");
}

#[test]
fn a_front_that_does_not_empty_is_ended_when_its_share_is_spent() {
    let mut story = Story::of(fronted());
    story.after(0, TERM);
    story.after(5000, traffic(0, 0));
    assert_eq!(story.machine.deadline(), Some(at(23_200)));
    story.after(23_000, closing(1));
    story.when(
        23_200,
        Event::Tick,
        &[
            ended(Phase::Draining, 18_200, EndedBy::BudgetSpent),
            Action::TellFront(Command::End),
            Action::Record(Moment::AppSignalled),
            Action::SignalMain(Signal::TERM),
        ],
    );
}

#[test]
fn a_front_hears_of_an_app_that_exited_by_itself() {
    let mut serving = Story::of(fronted());
    serving.when(
        100,
        Event::MainEnded(Ending::Code(1)),
        &[
            Action::TellFront(Command::AppGone),
            Action::TellFront(Command::Close),
            Action::Record(Moment::AppSignalled),
            Action::SignalOthers(Signal::TERM),
        ],
    );
    let mut lame = Story::of(fronted());
    lame.after(0, TERM);
    lame.when(
        100,
        Event::MainEnded(Ending::Code(1)),
        &[
            Action::TellFront(Command::AppGone),
            Action::TellFront(Command::Close),
            Action::TellWaiters,
            ended(Phase::LameDuck, 100, EndedBy::AppExited),
            Action::Record(Moment::AppSignalled),
            Action::SignalOthers(Signal::TERM),
        ],
    );
}

#[test]
fn a_forced_stop_closes_and_ends_the_front() {
    let mut story = Story::of(Policy { force_on_repeat: true, ..fronted() });
    story.after(0, TERM);
    story.when(
        100,
        TERM,
        &[
            ended(Phase::LameDuck, 100, EndedBy::Forced),
            Action::TellFront(Command::Close),
            Action::TellFront(Command::End),
            Action::Record(Moment::AppSignalled),
            Action::SignalMain(Signal::TERM),
        ],
    );
}

#[test]
fn observe_tells_the_front_nothing() {
    let mut story = Story::of(Policy { on_stop: OnStop::Report, on_main_end: OnMainEnd::Exit, ..fronted() });
    let (next, actions) = step(story.machine, at(0), TERM);
    assert!(actions.iter().all(|action| !matches!(action, Action::TellFront(_))));
    assert!(!next.watches(), "its page is read at the end");
    story.after(1, TERM);
}

#[test]
fn job_control_suspends_lameduck_too() {
    let mut story = Story::of(policy());
    story.when(0, Event::Signal(Signal::TSTP), &[Action::Forward(Signal::TSTP), Action::SuspendSelf]);
}

fn ahead(ahead: Ahead) -> Event {
    Event::Neighbours(ahead)
}

#[test]
fn a_neighbour_that_leaves_first_holds_the_lame_duck_until_it_has_left() {
    let mut story = Story::of(policy());
    story.after(0, TERM);
    story.when(100, ahead(Ahead::Leaving), &[]);
    story.when(6000, traffic(1000, 0), &[]); // quiet, and --min has passed
    assert_eq!(story.machine.held_since(), Some(at(6000)));
    story.when(
        9000,
        ahead(Ahead::Nobody),
        &[
            Action::Record(Moment::Quiet),
            Action::TellWaiters,
            ended(Phase::LameDuck, 9000, EndedBy::Quiet),
            Action::Record(Moment::AppSignalled),
            Action::SignalMain(Signal::TERM),
        ],
    );
}

#[test]
fn a_neighbour_that_never_leaves_holds_no_longer_than_its_part_of_the_budget() {
    let mut story = Story::of(policy());
    story.after(0, TERM);
    story.after(100, ahead(Ahead::Leaving));
    story.when(17_400, traffic(1000, 0), &[]); // the lame duck's own share is spent
    assert_eq!(story.machine.deadline(), Some(at(21_750)));
    story.when(
        21_750,
        Event::Tick,
        &[
            Action::TellWaiters,
            ended(Phase::LameDuck, 21_750, EndedBy::BudgetSpent),
            Action::Record(Moment::AppSignalled),
            Action::SignalMain(Signal::TERM),
        ],
    );
}

#[test]
fn a_neighbour_that_was_not_told_is_waited_for_as_long_as_the_least_time() {
    let mut story = Story::of(policy());
    story.after(0, TERM);
    story.after(10, ahead(Ahead::Untold));
    let nothing_listens = Event::Traffic(Seen { listeners: Some(0), ..Seen::default() });
    story.when(20, nothing_listens, &[]);
    story.when(4990, nothing_listens, &[]);
    story.after(5000, nothing_listens);
    assert_eq!(story.machine.state(), State::Stopping);
}

#[test]
fn who_asked_for_a_drain_is_told_once_the_neighbours_have_left_too() {
    let mut story = Story::of(policy());
    story.after(0, Event::DrainRequested);
    story.after(10, ahead(Ahead::Leaving));
    story.when(6000, traffic(1000, 0), &[]);
    story.when(7000, ahead(Ahead::Nobody), &[Action::Record(Moment::Quiet), Action::TellWaiters]);
    // The signal finds the waiting done; a neighbour that came back meanwhile is waited for again.
    story.after(7500, ahead(Ahead::Leaving));
    story.when(8000, TERM, &[Action::Record(Moment::TermReceived), Action::LookNow]);
    story.when(8100, traffic(1000, 0), &[]);
    story.after(8200, ahead(Ahead::Nobody));
    assert_eq!(story.machine.state(), State::Stopping);
}

#[test]
fn routing_that_was_seen_counts_in_place_of_the_least_time() {
    let ends = |routing: Routing, quiet_at: u64| {
        let mut story = Story::of(policy());
        story.after(0, TERM);
        story.after(10, Event::Routing(Routing::In));
        story.after(1000, traffic(10, 0));
        story.after(1500, Event::Routing(routing));
        story.after(quiet_at, traffic(10, 0));
        story.machine.state() == State::Stopping
    };
    // Quiet takes 2 s from the last arrival, whatever routing does.
    assert!(!ends(Routing::Out, 1900) && ends(Routing::Out, 2100));
    assert!(!ends(Routing::Unknown, 4900) && ends(Routing::Unknown, 5100), "--min, 5 s");
    assert!(!ends(Routing::In, 12_000), "it is still sent to");
    assert!(ends(Routing::In, 17_400), "the share is spent");
}

#[test]
fn where_quiet_is_not_measured_the_least_time_holds() {
    let mut story = Story::of(policy());
    story.after(0, TERM);
    story.after(100, Event::Routing(Routing::Out));
    story.when(4900, Event::Traffic(Seen::default()), &[]);
    story.after(5000, Event::Traffic(Seen::default()));
    assert_eq!(story.machine.state(), State::Stopping);
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        Just(Event::Started),
        Just(Event::StartFailed { status: 127 }),
        (1u8..=64).prop_map(|n| Event::Signal(Signal::new(n).unwrap())),
        Just(TERM),
        Just(Event::DrainRequested),
        (prop::option::of(0u32..3), prop::option::of(0u64..40_000), 0u32..3, 0u32..3).prop_map(
            |(listeners, last, in_flight, connections)| {
                let last = last.map(at);
                Event::Traffic(Seen { listeners, last_arrival: last, last_sent: last, in_flight, connections })
            }
        ),
        prop_oneof![Just(Ahead::Nobody), Just(Ahead::Untold), Just(Ahead::Leaving)].prop_map(Event::Neighbours),
        prop_oneof![Just(Routing::Unknown), Just(Routing::In), Just(Routing::Out)].prop_map(Event::Routing),
        Just(Event::PreStopEnded),
        any::<bool>().prop_map(|success| Event::StopCommandEnded { success }),
        any::<u8>().prop_map(|code| Event::MainEnded(Ending::Code(code))),
        Just(Event::AllEnded),
        Just(Event::Tick),
    ]
}

fn any_policy() -> impl Strategy<Value = Policy> {
    let on_stop = prop_oneof![Just(OnStop::Drain), Just(OnStop::Drain), Just(OnStop::Report), Just(OnStop::Forward)];
    let on_main_end = prop_oneof![
        Just(OnMainEnd::StopOthers),
        Just(OnMainEnd::WaitForAll),
        Just(OnMainEnd::Exit),
        Just(OnMainEnd::SignalAndExit(Signal::TERM)),
    ];
    (on_stop, on_main_end, any::<[bool; 5]>(), 1u64..60).prop_map(|(on_stop, on_main_end, flags, grace)| Policy {
        budget: Budget::divide(&Shares { grace: Duration::from_secs(grace), ..Shares::default() }).unwrap(),
        on_stop,
        on_main_end,
        descendants: flags[0],
        force_on_repeat: flags[1],
        pre_stop: flags[2],
        stop_command: flags[3],
        front: flags[4],
        ..policy()
    })
}

const fn rank(state: State) -> u8 {
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Any events in any order: states only move to the right, the end comes once and says its status, and no step asks
    /// for more than an [`Actions`] can hold.
    #[test]
    fn total_and_monotonic(policy in any_policy(), story in prop::collection::vec((0u64..3000, event()), 1..60)) {
        let mut machine = Machine::new(policy);
        let mut now = Duration::ZERO;
        let mut exits = 0;
        for (wait, event) in story {
            now += at(wait);
            let before = machine.state();
            let (next, actions) = step(machine, now, event);
            prop_assert!(rank(next.state()) >= rank(before), "{before:?} -> {:?}", next.state());
            prop_assert!(!actions.is_full());
            for action in actions.iter() {
                if let Action::Exit(status) = action {
                    exits += 1;
                    prop_assert_eq!(next.state(), State::Exited { status });
                }
            }
            if let State::Exited { .. } = before {
                prop_assert_eq!(actions.iter().count(), 0);
            }
            machine = next;
        }
        prop_assert_eq!(exits, u32::from(rank(machine.state()) == 6));
    }

    /// With a front, whatever happens: its commands come once each and in order, and nobody of the app is told to stop
    /// before the front was told to close. Without one it is told nothing.
    #[test]
    fn the_app_is_not_told_before_the_front(
        policy in any_policy(), story in prop::collection::vec((0u64..3000, event()), 1..60)
    ) {
        let policy = Policy { on_stop: OnStop::Drain, ..policy };
        let mut machine = Machine::new(policy);
        let mut now = Duration::ZERO;
        let mut told: Vec<Command> = Vec::new();
        for (wait, event) in story {
            now += at(wait);
            let (next, actions) = step(machine, now, event);
            for action in actions.iter() {
                match action {
                    Action::TellFront(command) => {
                        prop_assert!(policy.front);
                        prop_assert!(!told.contains(&command), "{command:?} twice");
                        prop_assert!(command != Command::LameDuck || told.is_empty());
                        prop_assert!(command != Command::End || told.contains(&Command::Close));
                        told.push(command);
                    }
                    Action::SignalMain(_) | Action::SignalOthers(_) | Action::RunStopCommand => {
                        prop_assert!(!policy.front || told.contains(&Command::Close), "{action:?} first");
                    }
                    _ => {}
                }
            }
            machine = next;
        }
    }

    /// Whatever is said of neighbours, the app is told to stop while its own time to stop is left.
    #[test]
    fn neighbours_never_take_the_time_to_stop(
        policy in any_policy(), story in prop::collection::vec((0u64..2000, event()), 0..40)
    ) {
        let policy = Policy { on_stop: OnStop::Drain, ..policy };
        let mut machine = step(Machine::new(policy), Duration::ZERO, Event::Started).0;
        machine = step(machine, Duration::ZERO, TERM).0;
        let mut now = Duration::ZERO;
        for (wait, event) in story {
            let next = now + at(wait);
            while let Some(deadline) = machine.deadline().filter(|deadline| *deadline <= next) {
                now = now.max(deadline);
                let stepped = step(machine, now, Event::Tick).0;
                prop_assert!(stepped != machine, "stuck in {:?} at {now:?}", machine.state());
                machine = stepped;
            }
            now = next;
            machine = step(machine, now, event).0;
            let told_by = policy.budget.lame_duck + policy.budget.draining;
            prop_assert!(now < told_by || rank(machine.state()) >= 4, "{:?} at {now:?}", machine.state());
        }
    }

    /// Whatever the traffic does, a drain that a signal began is over at the end of the grace period, and what is left was
    /// killed before it.
    #[test]
    fn never_outlives_its_grace(
        policy in any_policy(), story in prop::collection::vec((0u64..2000, event()), 0..40)
    ) {
        let policy = Policy { on_stop: OnStop::Drain, ..policy };
        let mut machine = step(Machine::new(policy), Duration::ZERO, Event::Started).0;
        machine = step(machine, Duration::ZERO, TERM).0;
        let mut now = Duration::ZERO;
        let mut killed = false;
        for (wait, event) in story {
            now += at(wait);
            machine = step(machine, now, event).0;
        }
        // From here on only time passes.
        while let Some(deadline) = machine.deadline() {
            now = now.max(deadline);
            let (next, actions) = step(machine, now, Event::Tick);
            killed |= actions.iter().any(|action| action == Action::KillAll);
            prop_assert!(next != machine, "stuck in {:?} at {now:?}", machine.state());
            machine = next;
        }
        prop_assert!(rank(machine.state()) == 6, "{:?}", machine.state());
        prop_assert!(now <= policy.budget.grace.max(at(80_000)));
        let _ = killed;
    }
}
