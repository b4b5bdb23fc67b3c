//! `cargo xtask drills`: short drills of real servers, each plan another, for `lameduck simulate` to be held to. What each showed
//! is a few figures in a file, by which a test says how often its 90 % interval was right.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use lameduck_drill::profile::Profile;
use lameduck_drill::result::EndingId;
use lameduck_drill::schedule::Spacing;
use lameduck_drill::servers::{SLOW, Server};
use lameduck_drill::{Plan, Progress};
use serde_json::{Value, json};

use crate::test::root;
use crate::{matrix, packages};

const SCHEMA: &str = "lameduck.drills/1";
/// Where the test looks.
const FILE: &str = "crates/lameduck/tests/simulate/drills.json";

/// One plan. The first is the one that is calibrated on.
struct Planned {
    server: &'static str,
    profile: &'static str,
    replicas: usize,
    rate: f64,
    seconds: u64,
    lag_ms: u64,
    rtt_ms: u64,
    event: Option<&'static str>,
    path: &'static str,
}

const fn planned(server: &'static str, profile: &'static str, replicas: usize, rate: f64, lag_ms: u64) -> Planned {
    Planned { server, profile, replicas, rate, seconds: 8, lag_ms, rtt_ms: 1, event: Some("term@2s"), path: "/" }
}

/// Nobody ends anything: what is lost is the idle race.
const fn idling(server: &'static str, profile: &'static str, replicas: usize, rate: f64, rtt_ms: u64) -> Planned {
    Planned { seconds: 30, rtt_ms, event: None, ..planned(server, profile, replicas, rate, 0) }
}

const PLANS: [Planned; 15] = [
    planned("uvicorn", "glb", 3, 150.0, 2000),
    planned("uvicorn", "alb", 4, 100.0, 3500),
    planned("node", "glb", 3, 120.0, 2500),
    Planned { path: SLOW, ..planned("node", "alb", 2, 100.0, 1000) },
    Planned { event: Some("scale-down=2@2s"), ..planned("node", "nginx", 5, 200.0, 1500) },
    planned("nginx", "envoy", 3, 300.0, 1000),
    Planned { event: Some("scale-down=3@2s"), ..planned("nginx", "glb", 6, 200.0, 4000) },
    planned("puma", "alb", 2, 80.0, 3000),
    Planned { path: SLOW, ..planned("puma", "glb", 3, 60.0, 500) },
    planned("go", "nginx", 4, 250.0, 1500),
    planned("gunicorn", "envoy", 3, 90.0, 2000),
    planned("node-close", "glb", 3, 150.0, 3000),
    idling("gunicorn", "glb", 4, 3.0, 200),
    idling("uvicorn", "envoy", 6, 1.8, 400),
    idling("node", "alb", 6, 1.5, 400),
];

/// Makes the drills that the file lacks.
pub fn drills(args: &[String]) -> anyhow::Result<ExitCode> {
    let (mut file, mut most) = (root().join(FILE), PLANS.len());
    let mut parser = lexopt::Parser::from_args(args);
    while let Some(arg) = parser.next()? {
        match arg {
            lexopt::Arg::Long("json") => file = PathBuf::from(parser.value()?),
            lexopt::Arg::Long("most") => most = parser.value()?.to_string_lossy().parse()?,
            other => return Err(other.unexpected().into()),
        }
    }
    packages::provide();
    let mut document = match fs::read_to_string(&file) {
        Ok(text) => serde_json::from_str(&text).with_context(|| file.display().to_string())?,
        Err(_) => json!({ "schema": SCHEMA, "drills": [] }),
    };
    ensure!(document["schema"] == SCHEMA, "{}: not {SCHEMA}", file.display());
    let mut made = 0;
    for (number, planned) in PLANS.iter().enumerate() {
        let Some(known) = document["drills"].as_array_mut() else { bail!("{}: no drills", file.display()) };
        if known.iter().any(|drill| drill["plan"] == key(number, planned)) || made >= most {
            continue;
        }
        let entry = drill(number, planned)?;
        println!("{entry}");
        known.retain(|drill| drill["plan"]["number"] != number);
        known.push(entry);
        known.sort_by_key(|drill| drill["plan"]["number"].as_u64());
        fs::write(&file, format!("{document:#}\n")).with_context(|| file.display().to_string())?;
        made += 1;
    }
    Ok(ExitCode::SUCCESS)
}

fn key(number: usize, planned: &Planned) -> Value {
    json!({
        "number": number, "server": planned.server, "profile": planned.profile, "replicas": planned.replicas,
        "rate": planned.rate, "seconds": planned.seconds, "lag_ms": planned.lag_ms, "rtt_ms": planned.rtt_ms,
        "event": planned.event, "path": planned.path,
    })
}

fn drill(number: usize, planned: &Planned) -> anyhow::Result<Value> {
    let server = Server::from_id(planned.server).with_context(|| planned.server.to_owned())?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    let folder: PathBuf = matrix::set_up(&server, Path::new(&target.join("drills")))?;
    let events = planned.event.map(str::parse::<lameduck_drill::Event>).transpose().context("an event")?;
    let plan = Plan {
        command: server.command(&folder),
        replicas: planned.replicas,
        rate: planned.rate,
        spacing: Spacing::Exponential,
        duration: Duration::from_secs(planned.seconds),
        tail: Duration::from_millis(500),
        profile: Profile::from_id(planned.profile).with_context(|| planned.profile.to_owned())?,
        mix: vec![format!("GET {}", planned.path).parse::<lameduck_drill::Template>().context("a template")?],
        events: events.into_iter().collect(),
        lag: Duration::from_millis(planned.lag_ms),
        rtt: Duration::from_millis(planned.rtt_ms),
        seed: 100 + number as u64,
        ..Plan::default()
    };
    let result = lameduck_drill::run(&plan, |_: Progress| {}).with_context(|| planned.server.to_owned())?;
    ensure!(result.dropped == 0 && result.own_fault.is_none(), "{}: this side was at its limit", planned.server);
    let load_s: f64 = result.rounds.iter().map(|round| round.ended_s - round.load_began_s).sum();
    // By then the stop signal had its effect.
    let refused = result.losses.iter().filter(|loss| loss.ending == EndingId::Refused);
    let first_refused_s = refused.filter_map(|loss| loss.since_term_s).reduce(f64::min);
    Ok(json!({
        "first_refused_s": first_refused_s,
        "plan": key(number, planned),
        "sent": result.tally.sent,
        "lost": result.tally.lost,
        "unknown": result.tally.unknown,
        "causes": result.tally.causes,
        "load_s": (load_s * 1e3).round() / 1e3,
        "p50_s": result.latency_s.p50,
        "p99_s": result.latency_s.p99,
    }))
}
