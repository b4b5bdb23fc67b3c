//! Clients that share a connection, and clients that stay: how they are told to leave, and what they see where they are not.

use std::time::Duration;

use lameduck_core::Cause;
use lameduck_core::timeline::Moment;
use lameduck_drill::result::EndingId;
use lameduck_drill::{DrillResult, Plan, Profile, SetupError, parse_request_file, run};

use crate::fixture;

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn plan(kind: &str, event: &str, mix: &str) -> Plan {
    Plan {
        replicas: 2,
        rate: 300.0,
        duration: ms(2500),
        lag: ms(400),
        profile: Profile::from_id("alb").unwrap(),
        mix: parse_request_file(mix).unwrap(),
        events: vec![format!("{event}@500ms").parse().unwrap()],
        rtt: ms(1),
        ..fixture::plan(kind)
    }
}

fn drill(plan: &Plan) -> DrillResult {
    let result = run(plan, |_| {}).unwrap();
    assert!(result.balances());
    result
}

const STREAMS: &str = "GET / 4 h2\nGET /slow 2 h2\nPOST / 2 100000 h2\nHEAD / 1 h2";

#[test]
fn streams_told_to_leave_in_two_steps_are_answered_or_known_not_to_be_processed() {
    for profile in ["alb", "go-client", "nginx"] {
        let folder = tempfile::tempdir().unwrap();
        let logs = Some(folder.path().to_owned());
        let profile = Profile::from_id(profile).unwrap();
        let result = drill(&Plan { profile, logs, ..plan("h2", "roll", STREAMS) });
        // The fixture says the last stream as soon as its PING is answered, and a busy client's next stream may stand in the
        // queue behind that answer: it crosses the last GOAWAY, which says that it was not processed (RFC 9113, section 6.8).
        for loss in &result.losses {
            let crossed = (EndingId::NotProcessed, Cause::RefusedWhileRouted, Some(false));
            assert_eq!((loss.ending, loss.cause, loss.server_saw), crossed, "{loss:#?}");
        }
        assert_eq!(result.tally.unknown, 0, "{:#?}", result.unknowns);
        assert_eq!(result.kinds.keys().collect::<Vec<_>>(), ["h2"]);
        assert!(result.tally.lost * 20 <= result.tally.sent, "what crosses is few: {:#?}", result.losses);
        // Hundreds of requests shared a connection, until it was to be left: one a replica, and some for the last 400 ms.
        let log = std::fs::read_to_string(folder.path().join("r0.log")).unwrap();
        let connections = log.lines().filter(|line| *line == "connection").count();
        assert!(connections < 60, "{connections} connections for {} requests", result.tally.sent);
    }
}

#[test]
fn streams_cut_by_an_exit_are_lost_each_with_its_cause() {
    let result = drill(&plan("h2-cut", "term", STREAMS));
    let lost_to = |cause: Cause| result.tally.causes.get(&cause).copied().unwrap_or(0);
    assert!(lost_to(Cause::CutMidResponse) > 0, "{:?}", result.tally);
    assert!(lost_to(Cause::RefusedWhileRouted) > 0, "{:?}", result.tally);
    for loss in &result.losses {
        assert_eq!((loss.kind.as_str(), loss.replica.as_str()), ("h2", "r1"), "{loss:?}");
        let known = [Cause::CutMidResponse, Cause::RefusedWhileRouted, Cause::IdleCloseRace];
        assert!(known.contains(&loss.cause), "{loss:?}");
    }
}

#[test]
fn sessions_cut_by_an_exit_are_lost() {
    let result = drill(&plan("injecting", "kill", "GET / 5\nGET /chat 1 websocket=500ms/50ms"));
    let sessions = &result.kinds["websocket"];
    assert!(sessions.causes[&Cause::CrashRestart] > 5, "{sessions:?}");
    assert!(sessions.answered > 20, "{sessions:?}");
}

#[test]
fn a_child_is_killed_by_its_first_argument_and_its_losses_are_its_end() {
    // The shell is the replica's PID 1, and the service below it is chosen by its first argument. The shell starts it again.
    let mut plan = plan("naive", "kill-child=--exact", "GET / 3\nGET /slow?ms=100 3");
    let service = std::mem::take(&mut plan.command);
    plan.command = ["sh", "-c", "while :; do \"$0\" \"$@\"; done"].map(Into::into).into_iter().chain(service).collect();
    plan.replicas = 1;
    plan.duration = ms(1500);
    let result = drill(&plan);
    assert!(result.tally.causes[&Cause::CrashRestart] > 5, "{:?}", result.tally);
    // What came before it listened again was refused; nobody had asked it to stop.
    assert!(result.replicas[0].timeline.at(Moment::TermReceived).is_none());
    let known = [Cause::CrashRestart, Cause::Unknown];
    assert!(result.tally.causes.keys().all(|cause| known.contains(cause)), "{:#?}", result.losses);
    plan.events = vec!["kill-child=--exac@100ms".parse().unwrap()];
    let error = run(&plan, |_| {}).unwrap_err();
    assert!(matches!(error, SetupError::NoSuchChild { .. }), "{error}");
    assert!(error.to_string().contains("no process below r0"), "{error}");
}
