//! Predictions of drills that were made with real servers (`cargo xtask drills`), calibrated on the first and nothing else; and how
//! often the 90 % interval was right, which docs/simulate.md has to say.

use std::fmt::Write as _;
use std::time::Duration;

use lameduck_core::Cause;
use lameduck_drill::plan::{Action, Event};
use lameduck_drill::profile::{Pooling as DrillPooling, Profile};
use lameduck_simulate::Figure;
use lameduck_simulate::engine::{self, EndKind, Scheduled, Seed};
use lameduck_simulate::fleet::{Caller, Events, Pooling, Range, Resends, Routing, Server, Service, Stop, Traffic};
use lameduck_simulate::service_time::ServiceTime;
use serde_json::Value;

const RUNS: u64 = 1000;
/// What is compared: these, and their sum.
const CAUSES: [Cause; 3] = [Cause::RefusedWhileRouted, Cause::IdleCloseRace, Cause::CutMidResponse];

/// What is known of each server, from `lameduck check`'s catalogue: what TERM does, and the idle timeout of any version.
fn server(id: &str) -> (Stop, Option<Range>) {
    match id {
        "uvicorn" => (Stop::Drains, Some(Range::exactly(5.0))),
        // Without a handler, and not as PID 1: TERM ends it. 5 s, 6 s since 20.20.
        "node" => (Stop::Dies, Some(Range::between(5.0, 6.0))),
        "node-close" => (Stop::Drains, Some(Range::between(5.0, 6.0))),
        "nginx" => (Stop::Dies, Some(Range::exactly(75.0))),
        "puma" => (Stop::Drains, Some(Range::between(20.0, 65.0))),
        "gunicorn" => (Stop::Drains, Some(Range::exactly(2.0))),
        // net/http closes nothing for idling.
        "go" => (Stop::Drains, None),
        other => panic!("{other}: what is known of it?"),
    }
}

struct Drill {
    plan: Value,
    sent: f64,
    lost: f64,
    load_s: f64,
    causes: [f64; CAUSES.len()],
    p50_s: f64,
    p99_s: f64,
    /// Counted from the stop signal.
    first_refused_s: Option<f64>,
}

fn drills() -> Vec<Drill> {
    let file = super::root().join("crates/lameduck/tests/simulate/drills.json");
    let document: Value = serde_json::from_slice(&std::fs::read(file).expect("drills.json")).expect("JSON");
    let number = |value: &Value| value.as_f64().expect("a number");
    let drill = |one: &Value| Drill {
        plan: one["plan"].clone(),
        sent: number(&one["sent"]),
        lost: number(&one["lost"]),
        load_s: number(&one["load_s"]),
        causes: CAUSES.map(|cause| one["causes"][cause.id()].as_f64().unwrap_or_default()),
        p50_s: number(&one["p50_s"]),
        p99_s: number(&one["p99_s"]),
        first_refused_s: one["first_refused_s"].as_f64(),
    };
    document["drills"].as_array().expect("drills").iter().map(drill).collect()
}

/// What the first drill taught: from TERM to the closed listener, and how long an answer takes.
struct Calibrated {
    reaction: Range,
    p50_s: f64,
    p99_s: f64,
}

fn calibrate(drill: &Drill) -> Calibrated {
    Calibrated {
        // By the first refusal it had taken effect.
        reaction: Range::between(0.0, drill.first_refused_s.expect("something was refused")),
        p50_s: drill.p50_s,
        p99_s: drill.p99_s,
    }
}

fn service(drill: &Drill, calibrated: &Calibrated, others: u32) -> Service {
    let number = |field: &str| drill.plan[field].as_f64().expect("a number");
    let text = |field: &str| drill.plan[field].as_str().expect("a text");
    let profile = Profile::from_id(text("profile")).expect("a profile");
    let (stop, idle) = server(text("server"));
    let service_time = if text("path") == "/" {
        ServiceTime::by_percentiles(calibrated.p50_s, calibrated.p99_s)
    } else {
        // lameduck_drill::servers::SLOW: 200 ms, and what any answer takes.
        ServiceTime::Fixed { mean: 0.2 + calibrated.p50_s }
    };
    Service {
        name: text("server").to_owned(),
        replicas: others,
        scaling: None,
        traffic: Traffic { rate: number("rate"), swing: 0.0, peak_hour: 0.0, noise: 0.0, noise_s: 600.0, service_time },
        caller: Caller {
            name: profile.id.to_owned(),
            idle_s: profile.idle_timeout.as_secs_f64(),
            max_requests: profile.max_requests,
            max_age_s: profile.max_age.map(|age| age.as_secs_f64()),
            pooling: match profile.pooling {
                DrillPooling::PerEndpointClosed => Pooling::PerEndpointClosed,
                DrillPooling::PerEndpointLeft => Pooling::PerEndpointLeft,
                DrillPooling::PerService => Pooling::PerService,
            },
            pools: 1.0,
            window_s: number("rtt_ms") / 1000.0,
            // The drill's books are of first attempts.
            resends: Resends::default(),
        },
        server: Server {
            name: text("server").to_owned(),
            idle,
            stop,
            pre_stop: Range::exactly(0.0),
            reaction: calibrated.reaction,
            finish_s: None,
            grace_s: 30.0,
            startup: Range::exactly(1.0),
            readiness_s: Some(3.0),
        },
        routing: Routing { lag: Range::exactly(number("lag_ms") / 1000.0), drain_s: None, via_nodes: None },
        events: Events { rollouts_a_day: 0.0, batch: 0.25, restarts_a_day: 0.0, crashes_a_day: 0.0 },
    }
}

/// The interval of what is lost in all, then by cause.
fn predict(drill: &Drill, calibrated: &Calibrated) -> [Figure; 1 + CAUSES.len()] {
    let replicas = drill.plan["replicas"].as_u64().expect("a number") as u32;
    let event: Option<Event> = drill.plan["event"].as_str().map(|text| text.parse().expect("an event"));
    let (count, at) = match &event {
        None => (0, Duration::ZERO),
        Some(Event { at, action: Action::Term }) => (1, *at),
        Some(Event { at, action: Action::ScaleDown { count } }) => (*count as u32, *at),
        Some(other) => panic!("{other} is not predicted"),
    };
    let others = replicas - count;
    let service = service(drill, calibrated, others);
    let end = Scheduled { at: at.as_secs_f64(), count, others, kind: EndKind::ScaleDown };
    let schedule: &[Scheduled] = if count > 0 { &[end] } else { &[] };
    let run = |run| engine::run_schedule(&service, drill.load_s, schedule, Seed { seed: 1, run });
    let runs: Vec<engine::Run> = (0..RUNS).map(run).collect();
    let figure = |of: &dyn Fn(&engine::Run) -> f64, drawn: &dyn Fn(&engine::Run) -> f64| {
        Figure::of(&runs.iter().map(of).collect::<Vec<_>>(), &runs.iter().map(drawn).collect::<Vec<_>>())
    };
    let by_cause = |cause: Cause| figure(&|run| run.expected[cause as usize], &|run| run.lost[cause as usize] as f64);
    let all = figure(&|run| run.expected.iter().sum(), &|run| run.total() as f64);
    [all, by_cause(CAUSES[0]), by_cause(CAUSES[1]), by_cause(CAUSES[2])]
}

fn within(figure: &Figure, seen: f64) -> bool {
    (figure.low.floor()..=figure.high.ceil()).contains(&seen)
}

/// The table of docs/simulate.md, and how many of how many intervals held: of sums, and of causes.
fn table() -> (String, [usize; 4]) {
    let drills = drills();
    let calibrated = calibrate(&drills[0]);
    let mut out = format!(
        "Calibrated on the first: TERM takes effect after {:.0} to {:.0} ms, an answer takes {:.1} ms, one in a hundred {:.1} ms.\n\n",
        calibrated.reaction.least * 1e3,
        calibrated.reaction.most * 1e3,
        calibrated.p50_s * 1e3,
        calibrated.p99_s * 1e3
    );
    out.push_str("| server | in front | replicas | rate | lag | round trip | event | sent | lost | predicted, 90 % | held |\n|---|---|---|---|---|---|---|---|---|---|---|\n");
    let mut held = [0; 4];
    for (n, drill) in drills.iter().enumerate() {
        let predicted = predict(drill, &calibrated);
        let of_sum = within(&predicted[0], drill.lost);
        if n > 0 {
            held[0] += usize::from(of_sum);
            held[1] += 1;
            for (figure, seen) in predicted[1..].iter().zip(drill.causes) {
                // Nothing foretold and nothing seen says nothing.
                if figure.mean > 0.05 || seen > 0.0 {
                    held[2] += usize::from(within(figure, seen));
                    held[3] += 1;
                }
            }
        }
        let plan = &drill.plan;
        let text = |field: &str| plan[field].as_str().unwrap_or("-").to_owned();
        let path = if text("path") == "/" { String::new() } else { format!(", {}", text("path")) };
        let _ = writeln!(
            out,
            "| {}{path} | {} | {} | {}/s | {} s | {} ms | {} | {} | {} | {:.0} to {:.0} | {} |",
            text("server"),
            text("profile"),
            plan["replicas"],
            plan["rate"],
            plan["lag_ms"].as_f64().unwrap_or_default() / 1e3,
            plan["rtt_ms"],
            text("event"),
            drill.sent,
            drill.lost,
            predicted[0].low.floor(),
            predicted[0].high.ceil(),
            match (n, of_sum) {
                (0, _) => "calibrated",
                (_, true) => "yes",
                (_, false) => "no",
            }
        );
    }
    (out, held)
}

#[test]
fn the_coverage_of_the_interval_is_what_the_page_says() {
    let (table, [sums, of_sums, causes, of_causes]) = table();
    let summary = format!(
        "The 90 % interval held the sum in {sums} of {of_sums} held-out drills ({:.0} %), and the count of a cause in {causes} of {of_causes} ({:.0} %).",
        sums as f64 / of_sums as f64 * 100.0,
        causes as f64 / of_causes as f64 * 100.0
    );
    let page = std::fs::read_to_string(super::root().join("docs/simulate.md")).expect("docs/simulate.md");
    let expect = format!("{table}\n{summary}");
    assert!(page.contains(&expect), "docs/simulate.md lacks:\n\n{expect}\n");
    assert!(of_sums >= 12, "only {of_sums} drills were held out");
}
