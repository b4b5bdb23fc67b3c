//! The drill reports exactly what was injected: for each cause the server's own log against the drill's books.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lameduck_core::Cause;
use lameduck_drill::{DrillResult, Event, LogKind, Plan, Profile, parse_request_file, run};

use crate::fixture;

/// What the server's log says it did: for each word the ids after it.
fn log(folder: &std::path::Path) -> BTreeMap<String, Vec<String>> {
    let text = std::fs::read_to_string(folder.join("r0.log")).unwrap();
    let mut seen: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in text.lines() {
        let (what, id) = line.split_once(' ').unwrap_or((line, ""));
        seen.entry(what.to_owned()).or_default().push(id.to_owned());
    }
    seen
}

fn plan(seed: u64, logs: &std::path::Path) -> Plan {
    let mix = "GET / 20\nHEAD / 3\nPOST / 5 300\nGET /slow 4\nGET /inject/idle-close 2\nPOST /inject/reset 1 40\n\
               GET /inject/half 1\nGET /inject/hang 2\nGET /chat 2 websocket=200ms/40ms\n\
               GET /inject/ws-cut 1 websocket=200ms/40ms\nGET /inject/ws-half 1 websocket=200ms/40ms";
    Plan {
        replicas: 1,
        rate: 300.0,
        spacing: lameduck_drill::schedule::Spacing::Exponential,
        duration: Duration::from_secs(2),
        tail: Duration::from_millis(100),
        profile: Profile::from_id("alb").unwrap(),
        mix: parse_request_file(mix).unwrap(),
        events: vec!["term@600ms".parse::<Event>().unwrap()],
        lag: Duration::from_millis(350),
        grace: Duration::from_millis(900),
        timeout: Duration::from_secs(10),
        seed,
        logs: Some(logs.to_owned()),
        ..fixture::plan("injecting")
    }
}

fn check(seed: u64) -> DrillResult {
    let folder = tempfile::tempdir().unwrap();
    let result = run(&plan(seed, folder.path()), |_| {}).unwrap();
    let log = log(folder.path());
    let injected = |what: &str| log.get(what).map_or(0, Vec::len) as u64;
    // The server knows each request that it read; those of the readiness probes carry no id.
    let read: BTreeSet<&String> = log.values().flatten().filter(|id| id.starts_with("ld-")).collect();
    let crossed = injected("crossed");
    let expect: BTreeMap<Cause, u64> = [
        // Neither read by the process nor closed on by it: the kernel refused it, for want of a listener.
        (Cause::RefusedWhileRouted, result.tally.sent - read.len() as u64 - crossed),
        (Cause::IdleCloseRace, crossed),
        // A session that ends without a Close, between two frames or in one, is cut like an answer.
        (Cause::CutMidResponse, ["reset", "half", "ws-cut", "ws-half"].map(injected).iter().sum()),
        (Cause::KilledAtDeadline, injected("hang")),
    ]
    .into();
    assert_eq!(result.tally.causes, expect, "seed {seed}: {:#?}", result.losses);
    assert!(expect.values().all(|n| *n > 0), "seed {seed} injects each: {expect:?}");
    assert!(result.balances());
    assert_eq!(result.server_log, LogKind::EveryArrival);

    // Not only how many, but which: ids of each kind, against the server's own list.
    let ids = |cause: Cause| -> BTreeSet<&String> {
        result.losses.iter().filter(|loss| loss.cause == cause).map(|loss| &loss.id).collect()
    };
    let of = |what: &str| log.get(what).into_iter().flatten();
    assert_eq!(ids(Cause::KilledAtDeadline), of("hang").collect());
    assert_eq!(ids(Cause::CutMidResponse), ["reset", "half", "ws-cut", "ws-half"].into_iter().flat_map(of).collect());
    let sessions = &result.kinds["websocket"];
    assert_eq!(sessions.causes.get(&Cause::CutMidResponse), Some(&(injected("ws-cut") + injected("ws-half"))));
    assert!(sessions.answered > 0, "{sessions:?}");
    for loss in &result.losses {
        assert_eq!(loss.server_saw, Some(read.contains(&loss.id)), "{loss:?}");
    }
    result
}

#[test]
fn exactly_what_was_injected_over_20_seeds() {
    let next = std::sync::atomic::AtomicU64::new(1);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    if seed > 20 {
                        return;
                    }
                    check(seed);
                }
            });
        }
    });
}
