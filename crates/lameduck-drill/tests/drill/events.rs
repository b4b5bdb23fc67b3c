//! Each event, each cause of an end, against services whose behaviour is known.

use std::time::Duration;

use lameduck_core::Cause;
use lameduck_core::law::idle_race_per_request;
use lameduck_core::timeline::Moment;
use lameduck_drill::result::{EndingId, ReplicaReport, Retried};
use lameduck_drill::{DrillResult, DrillVerdict, Plan, Profile, SetupError, parse_request_file, render, run};

use crate::fixture;

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A short run of a service at 200 requests a second, with one event after half a second.
fn plan(kind: &str, event: &str) -> Plan {
    Plan {
        replicas: 2,
        rate: 200.0,
        duration: ms(1500),
        tail: ms(200),
        lag: ms(400),
        profile: Profile::from_id("alb").unwrap(),
        mix: parse_request_file("GET / 8\nGET /slow?ms=60 2\nPOST / 2 200\nHEAD /").unwrap(),
        events: vec![format!("{event}@500ms").parse().unwrap()],
        ..fixture::plan(kind)
    }
}

fn drill(plan: &Plan) -> DrillResult {
    let result = run(plan, |_| {}).unwrap();
    assert!(result.balances());
    result
}

fn lost_to(result: &DrillResult, cause: Cause) -> u64 {
    result.tally.causes.get(&cause).copied().unwrap_or(0)
}

fn only(result: &DrillResult, causes: &[Cause]) {
    for (cause, n) in &result.tally.causes {
        assert!(causes.contains(cause), "{n} {cause}: {:#?}", result.losses);
    }
}

fn at(replica: &ReplicaReport, moment: Moment) -> Duration {
    replica.timeline.at(moment).unwrap_or_else(|| panic!("no {moment:?} in {replica:?}"))
}

#[test]
fn rolling_a_naive_service_loses_what_the_arithmetic_says() {
    // Some 12 requests in flight at each exit: that none is, has a chance of one in 100,000.
    let mix = parse_request_file("GET / 2\nGET /slow?ms=200 3").unwrap();
    let result = drill(&Plan { mix, ..plan("naive", "roll") });
    assert_eq!((result.verdict, result.exit_code()), (DrillVerdict::Lost, 1));
    only(&result, &[Cause::RefusedWhileRouted, Cause::CutMidResponse, Cause::IdleCloseRace]);
    // Two exits, each routed to for 0.4 s more, a quarter to a half of 200 requests a second to each.
    let refused = lost_to(&result, Cause::RefusedWhileRouted);
    assert!((30..=100).contains(&refused), "{refused}");
    assert!(lost_to(&result, Cause::CutMidResponse) > 0, "{:?}", result.tally);
    assert_eq!(result.replicas.len(), 4);
    assert_eq!(result.term_to_exit_s.all.len(), 2);
    assert!(result.term_to_exit_s.max.unwrap() < 0.2);
    for replica in &result.replicas[..2] {
        assert_eq!(replica.exit.as_deref(), Some("signal: 15 (SIGTERM)"));
        let lag = at(replica, Moment::EndpointRemoved).checked_sub(at(replica, Moment::TermReceived)).unwrap();
        assert!((ms(399)..ms(550)).contains(&lag), "{lag:?}");
    }
    rendered(&result);
}

/// What every rendering owes its reader.
fn rendered(result: &DrillResult) {
    let text = render::text(result, false);
    assert!(text.starts_with("LOST  ") && !text.contains('\u{1b}'), "{text}");
    let sum = format!("= {}  sent", result.tally.sent);
    assert!(text.contains(&sum) && text.contains("cure: ") && text.contains("TERM to exit"), "{text}");
    assert!(render::text(result, true).contains("\u{1b}[1;31mLOST"));

    let json: serde_json::Value = serde_json::from_str(&render::json(result)).unwrap();
    assert_eq!(json["schema"], "lameduck.drill/1");
    for key in ["sent", "answered", "lost", "unknown", "lost_after_retries"] {
        assert!(json[key].is_u64(), "{key}");
    }
    assert_eq!(json["causes"]["refused-while-routed"], lost_to(result, Cause::RefusedWhileRouted));
    assert!(json["term_to_exit_s"]["p50"].is_f64() && json["term_to_exit_s"]["max"].is_f64());
    assert_eq!(json["losses"].as_array().unwrap().len() as u64, result.tally.lost);
    let read: DrillResult = serde_json::from_value(json).unwrap();
    assert!(render::json(&read) == render::json(result), "what is written can be read, and says the same");

    let page = render::html(result);
    assert!(
        !page.contains("http://") && !page.contains("https://") && !page.contains("<script"),
        "no network, no script"
    );
    assert!(page.contains("refused-while-routed") && page.contains("prefers-color-scheme:dark"));

    let junit = render::junit(result);
    assert!(junit.contains("tests=\"3\" failures=\"3\" errors=\"0\""), "{junit}");
}

#[test]
fn no_process_is_left_behind() {
    // Work done by a grandchild in a session of its own, without the drill's mark, as far from it as a process can get: r1's
    // parent dies of TERM, r0's with the run.
    let mut plan = plan("naive", "term");
    let shell =
        "env -i PORT=$PORT LAMEDUCK_DRILL_FIXTURE=naive LAMEDUCK_TEST_LEFT=behind-$PORT setsid \"$0\" \"$@\" & wait";
    plan.command = ["sh", "-c", shell].map(Into::into).into_iter().chain(plan.command).collect();
    let result = drill(&plan);
    let ports: Vec<u16> = result.replicas.iter().map(|replica| replica.port).collect();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        for port in &ports {
            let mark = format!("LAMEDUCK_TEST_LEFT=behind-{port}");
            let found = environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes());
            assert!(!found, "{} is left", entry.path().display());
        }
    }
}

#[test]
fn a_deaf_service_is_told_from_a_slow_one() {
    let mix = parse_request_file("GET / 8\nGET /inject/hang").unwrap();
    let check = |kind: &str, expect: Cause, reacted: bool| {
        let plan = Plan { mix: mix.clone(), grace: ms(900), replicas: 1, ..plan(kind, "term") };
        let result = drill(&plan);
        let ended = &result.replicas[0];
        assert_eq!(ended.reacted, Some(reacted), "{ended:?}");
        only(&result, &[expect, Cause::RefusedWhileRouted]);
        assert!(lost_to(&result, expect) > 5, "{kind}: {:?}", result.tally);
        assert_eq!(ended.exit.as_deref(), Some("signal: 9 (SIGKILL)"));
        let grace = at(ended, Moment::Killed).checked_sub(at(ended, Moment::TermReceived)).unwrap();
        // Late on a busy machine; never early.
        assert!((ms(900)..ms(2000)).contains(&grace), "SIGKILL at the end of the grace period: {grace:?}");
        // Nothing was routed to the only replica once it was removed: not sent, not lost, shown.
        assert!(result.unrouted > 0);
        assert_eq!(result.scheduled, result.tally.sent + result.unrouted);
    };
    std::thread::scope(|scope| {
        scope.spawn(|| check("deaf", Cause::SignalNotDelivered, false));
        scope.spawn(|| check("injecting", Cause::KilledAtDeadline, true));
    });
}

/// What dies with SIGKILL is no answer to the signal before it, though routing goes on and meets what it left.
#[test]
fn a_shell_that_keeps_term_to_itself_is_deaf_even_where_routing_outlives_the_grace() {
    let mut plan = Plan { lag: ms(1200), grace: ms(600), replicas: 1, ..plan("naive", "term") };
    plan.mix = parse_request_file("GET / 5\nGET /slow?ms=300 5").unwrap();
    plan.command =
        ["sh", "-c", "trap '' TERM; \"$0\" \"$@\"; :"].map(Into::into).into_iter().chain(plan.command).collect();
    let result = drill(&plan);
    assert_eq!(result.replicas[0].reacted, Some(false), "{:?}", result.replicas[0]);
    assert!(lost_to(&result, Cause::SignalNotDelivered) > 5, "{:?}", result.tally);
    only(&result, &[Cause::SignalNotDelivered, Cause::RefusedWhileRouted]);
}

#[test]
fn a_replica_that_is_routed_to_before_it_listens_refuses() {
    let mut plan = plan("naive", "scale-up=2");
    plan.command = ["sh", "-c", "[ -e \"$HERE\" ] && sleep 0.5; exec \"$0\" \"$@\""]
        .map(Into::into)
        .into_iter()
        .chain(plan.command)
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let late = folder.path().join("late");
    plan.env.push(("HERE".into(), late.clone().into()));
    let result = run(&plan, |news| {
        if matches!(news, lameduck_drill::Progress::LoadBegan { .. }) {
            std::fs::write(&late, "").unwrap();
        }
    })
    .unwrap();
    only(&result, &[Cause::NotReadyYet]);
    // Half of 200 requests a second for the half second in which both new ones sleep.
    assert!((20..=100).contains(&lost_to(&result, Cause::NotReadyYet)), "{:?}", result.tally);
    assert!(result.replicas[2].tally.answered > 10, "{:?}", result.replicas[2]);
}

#[test]
fn the_logs_of_others_say_what_they_would_have_seen() {
    let folder = tempfile::tempdir().unwrap();
    let [balancer, cluster] = ["lb.json", "cluster.json"].map(|name| folder.path().join(name));
    let mut plan = Plan { lb_log: Some(balancer.clone()), cluster_log: Some(cluster.clone()), ..plan("naive", "term") };
    plan.events.push("scale-down=1@1200ms".parse().unwrap());
    plan.profile.retry = lameduck_drill::Retry::from_id("none").unwrap();
    plan.id_in_query = true;
    let result = drill(&plan);
    let text = std::fs::read_to_string(&balancer).unwrap();
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len() as u64, result.tally.sent + result.unrouted);
    let of = |line: &serde_json::Value, pointer: &str| line.pointer(pointer).unwrap().as_str().unwrap_or("").to_owned();
    let details = |line: &serde_json::Value| of(line, "/jsonPayload/statusDetails");
    let unpicked = lines.iter().filter(|line| details(line) == "failed_to_pick_backend").count();
    assert!(unpicked as u64 == result.unrouted && unpicked > 0);
    let answered = lines.iter().filter(|line| details(line) == "response_sent_by_backend").count();
    assert_eq!(answered as u64, result.tally.answered);
    for loss in &result.losses {
        let line = lines.iter().find(|line| of(line, "/trace").ends_with(&format!("/{}", loss.id))).unwrap();
        let said = details(line);
        let expect = if loss.ending == EndingId::Refused {
            "failed_to_connect_to_backend"
        } else if loss.status.is_some() {
            "backend_connection_closed_after_partial_response_sent"
        } else {
            "backend_connection_closed_before_data_sent_to_client"
        };
        assert_eq!(said, expect, "{line} {loss:?}");
        assert!(of(line, "/httpRequest/requestUrl").contains(&format!("lameduck-id={}", loss.id)), "{line}");
        let port: u16 = of(line, "/httpRequest/serverIp").rsplit(':').next().unwrap().parse().unwrap();
        assert_eq!(Some(port), result.replicas.iter().find(|one| one.name == loss.replica).map(|one| one.port));
    }
    let cluster: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&cluster).unwrap()).unwrap();
    let items = cluster["items"].as_array().unwrap();
    let kinds = |kind: &str| items.iter().filter(|item| item["kind"] == kind).count();
    assert_eq!((kinds("Pod"), kinds("EndpointSlice")), (2, 0), "both were told to stop, and routing has heard");
    assert_eq!(items.iter().filter(|item| item["reason"] == "Killing").count(), 2);
    let pod = items.iter().find(|item| item["kind"] == "Pod").unwrap();
    assert_eq!(pod["metadata"]["deletionGracePeriodSeconds"], 30);
    assert_eq!(pod.pointer("/status/containerStatuses/0/state/terminated/exitCode").unwrap(), 143);
    let finished = pod.pointer("/status/containerStatuses/0/state/terminated/finishedAt").unwrap().as_str().unwrap();
    assert_eq!(finished.len(), "2026-11-21T18:00:00Z".len(), "a cluster tells no parts of a second: {finished}");
}

#[test]
fn a_kill_is_a_crash() {
    let result = drill(&plan("naive", "kill"));
    only(&result, &[Cause::CrashRestart, Cause::IdleCloseRace]);
    assert!(lost_to(&result, Cause::CrashRestart) > 20, "{:?}", result.tally);
    let killed = &result.replicas[1];
    assert_eq!(killed.timeline.at(Moment::TermReceived), None);
    assert!(at(killed, Moment::EndpointRemoved) > at(killed, Moment::Exited));
    assert_eq!(result.term_to_exit_s.max, None);
}

#[test]
fn a_restart_comes_back_on_its_port() {
    let result = drill(&plan("naive", "restart"));
    let names: Vec<_> = result.replicas.iter().map(|replica| (replica.name.as_str(), replica.port)).collect();
    assert_eq!(names.len(), 3);
    assert_eq!(names[2].1, names[1].1);
    assert!(result.replicas[2].tally.answered > 20, "{:?}", result.replicas[2]);
    // What is sent to the address after that is the new process's to answer.
    let (old, new) = (&result.replicas[1], &result.replicas[2]);
    assert!(at(old, Moment::EndpointRemoved) < at(new, Moment::Ready) + ms(20), "{old:?} {new:?}");
}

#[test]
fn scaling_down_ends_several_at_once() {
    let result = drill(&Plan { replicas: 3, ..plan("naive", "scale-down=2") });
    let ended: Vec<_> = result.replicas.iter().filter(|replica| replica.exit.is_some()).collect();
    assert_eq!(ended.iter().map(|replica| replica.name.as_str()).collect::<Vec<_>>(), ["r1", "r2"]);
    let apart = at(ended[0], Moment::TermReceived).abs_diff(at(ended[1], Moment::TermReceived));
    assert!(apart < ms(50), "{apart:?}");
}

#[test]
fn the_profile_decides_what_is_sent_again_and_to_whom() {
    let seeded = |profile: &str, kind: &str, seed: u64| {
        drill(&Plan { profile: Profile::from_id(profile).unwrap(), grace: ms(1200), seed, ..plan(kind, "term") })
    };
    let with = |profile: &str, kind: &str| seeded(profile, kind, 1);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let nginx = with("nginx", "naive");
            assert!(nginx.retries > 0 && nginx.lost_after_retries < nginx.tally.lost, "{:?}", nginx.tally);
            // A refused connection took nothing with it: any method goes to the other replica, which answers.
            let refused = nginx.losses.iter().filter(|loss| loss.ending == EndingId::Refused);
            assert!(refused.into_iter().all(|loss| loss.retried == Some(Retried::Answered)), "{:#?}", nginx.losses);
        });
        scope.spawn(|| {
            // The client of a Service keeps its connections to an endpoint that is gone from routing.
            let removed_but_used = |result: &DrillResult| {
                let ended = &result.replicas[1];
                at(ended, Moment::LastRequest) > at(ended, Moment::EndpointRemoved)
            };
            // It takes the connection used last, so whether an old one is used again is chance; over some runs it is.
            assert!((1..=5).any(|seed| removed_but_used(&seeded("go-client", "deaf", seed))));
            assert!(!removed_but_used(&with("envoy", "deaf")));
        });
    });
}

/// A closed form and the drill agree: on one connection, with Poisson arrivals at λ, an idle timeout T and a round trip w,
/// a share of λ·w·exp(-λT) of the requests meets the close.
#[test]
fn the_idle_race_is_as_frequent_as_its_law_says() {
    let (rate, rtt, timeout) = (40.0, ms(6), ms(25));
    let tally = std::sync::Mutex::new(lameduck_core::Tally::default());
    std::thread::scope(|scope| {
        for seed in 0..6 {
            let tally = &tally;
            scope.spawn(move || {
                let result = drill(&Plan {
                    replicas: 1,
                    rate,
                    rtt,
                    spacing: lameduck_drill::schedule::Spacing::Exponential,
                    duration: Duration::from_secs(6),
                    events: Vec::new(),
                    mix: parse_request_file("GET /").unwrap(),
                    seed,
                    ..plan("idle=25", "term")
                });
                only(&result, &[Cause::IdleCloseRace]);
                assert!(result.noticed_closes > 0, "most closes are seen before reuse");
                tally.lock().unwrap().merge(&result.tally);
            });
        }
    });
    let tally = tally.into_inner().unwrap();
    let share = tally.lost as f64 / tally.sent as f64;
    let law = idle_race_per_request(rate, rtt, timeout);
    assert!((law * 0.6..law * 1.7).contains(&share), "{share:.4} against {law:.4}: {tally:?}");
}

#[test]
fn an_idle_event_meets_the_idle_close() {
    let mut plan = Plan { rtt: ms(20), ..plan("idle=600", "idle=600ms") };
    plan.duration = ms(2000);
    let result = drill(&plan);
    only(&result, &[Cause::IdleCloseRace]);
    // 32 connections, used again within 20 ms of the close, with 20 ms for both to cross.
    assert!((4..=32).contains(&result.tally.lost), "{:?}", result.tally);
    for loss in &result.losses {
        assert!(loss.reused && loss.bytes_in == 0 && loss.since_term_s.is_none(), "{loss:?}");
        assert!((0.55..0.63).contains(&loss.idle_s.unwrap()), "{loss:?}");
    }
}

#[test]
fn a_client_at_its_limit_is_inconclusive_not_clean() {
    let mix = parse_request_file("GET /slow").unwrap();
    let result = drill(&Plan { max_connections: 2, events: Vec::new(), mix, ..plan("injecting", "term") });
    assert!(result.dropped > 50 && result.tally.lost == 0);
    assert_eq!((result.verdict, result.exit_code()), (DrillVerdict::Inconclusive, 3));
    assert!(result.because.contains("--max-connections"), "{}", result.because);
}

#[test]
fn too_small_a_sample_is_inconclusive() {
    let result = drill(&Plan { min_sample: 100_000, events: Vec::new(), ..plan("naive", "term") });
    assert_eq!(result.verdict, DrillVerdict::Inconclusive);
    let clean = drill(&Plan { events: Vec::new(), duration: ms(300), ..plan("naive", "term") });
    assert_eq!((clean.verdict, clean.exit_code()), (DrillVerdict::Clean, 0));
    assert!(clean.loss_rate.at_most.is_some());
}

#[test]
fn what_cannot_be_set_up_says_why() {
    let fails = |command: &[&str]| {
        let plan =
            Plan { command: command.iter().map(Into::into).collect(), ready_timeout: ms(300), ..plan("naive", "term") };
        run(&plan, |_| {}).unwrap_err()
    };
    assert!(matches!(fails(&["/no/such/program"]), SetupError::Spawn { .. }));
    let ended = fails(&["sh", "-c", "echo no module named web >&2; exit 3"]).to_string();
    assert!(ended.contains("exit status: 3") && ended.contains("| no module named web"), "{ended}");
    let silent = fails(&["sleep", "20"]).to_string();
    assert!(silent.contains("connection refused") && silent.contains("$PORT"), "{silent}");
}

#[test]
fn under_a_wrap_that_waits_nothing_is_lost() {
    assert!(matches!(lameduck_drill::compare(&plan("naive", "roll"), 1, |_| {}), Err(SetupError::Plan(_))));
    // A stand-in for a PID 1 that keeps the service up until routing has moved on.
    let wrap = "\"$0\" \"$@\" & pid=$!; trap 'sleep 0.8; kill $pid' TERM; wait $pid; wait $pid";
    let plan = Plan { wrap: ["sh", "-c", wrap].map(Into::into).to_vec(), ..plan("naive", "roll") };
    let result = lameduck_drill::compare(&plan, 2, |_| {}).unwrap();
    assert!(result.plain.tally.lost > 0);
    assert_eq!(result.cured.tally.lost, 0, "{:#?}", result.cured.losses);
    assert_eq!((result.plain.exit_code(), result.exit_code()), (1, 0));
    assert_eq!((result.plain.rounds.len(), result.cured.rounds.len()), (2, 2));
    assert!(result.cured.term_to_exit_s.p50.unwrap() > 0.8);
    let json: serde_json::Value = serde_json::from_str(&render::compare_json(&result)).unwrap();
    assert_eq!(json["schema"], "lameduck.compare/1");
    assert_eq!(json["cured"]["schema"], "lameduck.drill/1");
    let text = render::compare_text(&result, false);
    assert!(text.contains("→ 0 of"), "{text}");
    assert!(render::compare_html(&result).contains("sum of 2 rounds"));
}
