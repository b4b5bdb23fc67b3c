//! `lameduck simulate`: what `check` reads, behind the profiles that `drill` has, as a fleet; and the figures to a terminal or a
//! file.

use std::ffi::OsString;
use std::fs;
use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use lameduck_check::facts::{HopFacts, HpaFacts, TermFact, WorkloadFacts};
use lameduck_drill::profile::{self, FailedOn, Failure as Failed, Profile, Reuse};
use lameduck_simulate::fleet::{Amount, Policy, Pooling, Range, Scaling, Stop};
use lameduck_simulate::report::{Document, LeftOut, SCHEMA};
use lameduck_simulate::traffic::{Hop, Known, Resent, TrafficFile, assemble};
use lameduck_simulate::{Fix, Options, effects, estimate, fixed, render, staircase};

use super::flag::{self, Failure, Flag, Given, Verb};
use crate::exit;

/// `lameduck simulate`
pub const VERB: Verb = Verb {
    name: "simulate",
    summary: "Expected lost requests a day of a whole fleet, by cause, and what each fix gives.",
    operands: "[PATH...]",
    flags: FLAGS,
    from_env: true,
    about: "PATH is a file, a folder or - for standard input, as for lameduck check; without one, the current folder.\n\
            Fixes: container-native, keep-alive-order, drain, pre-stop, run, grace, readiness, restarts, drain-timeout,\n\
            scale-down, node-scaling.\n\
            Exit status: 0 simulated, whatever is lost, 2 usage, 3 nothing to simulate, 4 a file could not be read or written.\n",
    usage_status: exit::USAGE,
};

const FORMATS: [&str; 3] = ["text", "json", "html"];

const FLAGS: &[Flag] = &[
    Flag::value(
        "rate",
        "N",
        "Requests a second to the whole fleet, shared by replicas among the services that --traffic gives none.",
    ),
    Flag::value("traffic", "FILE", "What no manifest says: rates, durations, callers, rollouts (TOML)."),
    Flag::value(
        "lag",
        "TIME",
        "How long routing goes on sending after a deletion. Default: what is known of what stands in front.",
    ),
    Flag::value("days", "N", "Days a run. Default: 1."),
    Flag::value("runs", "N", "Runs: they give the intervals. Default: 40."),
    Flag::value("seed", "N", "What everything is drawn from. Default: 1."),
    Flag::list("fix", "FIX", "Simulate with this fix made; with --staircase, the next step. May be repeated."),
    Flag::switch(
        "staircase",
        "One fix on top of the other: those of --fix in their order, or whichever gives the most next.",
    ),
    Flag::value("format", "FORMAT", "text, json or html. Default: text."),
    Flag::value("output", "FILE", "Write the answer there instead of to standard output."),
    Flag::switch("no-render", "Do not run helm or kubectl for charts and kustomizations."),
];

/// Runs the verb.
pub fn simulate(args: &[OsString], env: &impl Fn(&str) -> Option<OsString>) -> Result<u8, Failure> {
    let given = flag::parse(&VERB, &flag::options_first(args, FLAGS), env)?;
    let format = given.one("format", &format!("one of {}", FORMATS.join(", ")), |text| {
        FORMATS.into_iter().find(|known| *known == text)
    })?;
    let options = options(&given)?;
    let expected = format!("one of {}", Fix::ALL.map(Fix::id).join(", "));
    let fixes = given.list("fix", &expected, Fix::from_id)?;
    let file = traffic_file(&given)?;
    let outcome = read(&given)?;
    let (known, left_out) = workloads(&outcome);
    if known.is_empty() {
        let reasons: Vec<String> = left_out.iter().map(|one| format!("{}: {}", one.name, one.reason)).collect();
        let reasons = if reasons.is_empty() { "no workload was found".to_owned() } else { reasons.join("; ") };
        let message =
            format!("nothing to simulate: {reasons}. Give manifests of something that requests are routed to.");
        return Err(Failure::Error { message, status: exit::UNREADABLE });
    }
    let rate = given.one("rate", "a number above 0", |text| text.parse::<f64>().ok().filter(|rate| *rate > 0.0))?;
    let hops: Vec<Hop> = profile::ALL.iter().filter_map(hop).collect();
    let (fleet, assumed) =
        assemble(&known, &file, rate, &hops).map_err(|error| given.usage(format!("--traffic: {error}")))?;
    let stairs = given.switch("staircase")?;
    // With a staircase the fixes are its steps, and what it begins with is the fleet as it is.
    let made: &[Fix] = if stairs { &[] } else { &fixes };
    let document = Document {
        schema: SCHEMA,
        version: env!("CARGO_PKG_VERSION"),
        options,
        fixes: made.iter().map(|fix| fix.id()).collect(),
        estimate: estimate(&fixed(&fleet, made), options),
        effects: effects(&fleet, made, options),
        staircase: if stairs { staircase(&fleet, &fixes, options) } else { Vec::new() },
        fleet: fixed(&fleet, made),
        assumed,
        left_out,
    };
    let to_file = given.raw("output").map(Path::new);
    let color = to_file.is_none() && std::io::stdout().is_terminal() && super::no_color().is_none();
    let text = match format.unwrap_or("text") {
        "json" => render::json(&document),
        "html" => render::html(&document),
        _ => render::text(&document, color),
    };
    match to_file {
        Some(path) => fs::write(path, text).map_err(|error| unreached(path, &error, "it could not be written"))?,
        None => std::io::stdout()
            .write_all(text.as_bytes())
            .map_err(|error| unreached(Path::new("standard output"), &error, "it could not be written"))?,
    }
    Ok(exit::OK)
}

fn unreached(path: &Path, error: &std::io::Error, what: &str) -> Failure {
    Failure::Error { message: format!("{}: {error}; {what}", path.display()), status: exit::SETUP }
}

fn options(given: &Given) -> Result<Options, Failure> {
    let count = |name: &str, most: u32| {
        given.one(name, &format!("a number from 1 to {most}"), |text| {
            text.parse::<u32>().ok().filter(|n| (1..=most).contains(n))
        })
    };
    let default = Options::default();
    Ok(Options {
        days: count("days", 366)?.unwrap_or(default.days),
        runs: count("runs", 10_000)?.unwrap_or(default.runs),
        seed: given.one("seed", "a whole number", |text| text.parse().ok())?.unwrap_or(default.seed),
    })
}

fn traffic_file(given: &Given) -> Result<TrafficFile, Failure> {
    let Some(path) = given.raw("traffic").map(Path::new) else { return Ok(TrafficFile::default()) };
    let text = fs::read_to_string(path).map_err(|error| unreached(path, &error, "it could not be read"))?;
    TrafficFile::parse(&text).map_err(|error| given.usage(format!("{}: {error}", path.display())))
}

/// Reads the files as `check` does.
fn read(given: &Given) -> Result<lameduck_check::Outcome, Failure> {
    let lag = given.duration("lag")?.map(|lag| lag.as_secs_f64());
    let mut options = lameduck_check::Options { lag, ..lameduck_check::Options::default() };
    for operand in &given.operands {
        if operand == "-" {
            let mut text = String::new();
            std::io::stdin()
                .read_to_string(&mut text)
                .map_err(|error| unreached(Path::new("standard input"), &error, "it could not be read as text"))?;
            options.stdin = Some(text);
        } else {
            let path = PathBuf::from(operand);
            fs::metadata(&path).map_err(|error| unreached(&path, &error, "it could not be read"))?;
            options.paths.push(path);
        }
    }
    if given.operands.is_empty() {
        options.paths.push(PathBuf::from("."));
    }
    if !given.switch("no-render")? {
        super::check::render_all(&mut options, None);
    }
    Ok(lameduck_check::check(&options))
}

/// What can be simulated, and what can not.
fn workloads(outcome: &lameduck_check::Outcome) -> (Vec<Known>, Vec<LeftOut>) {
    let (mut known, mut left_out) = (Vec::<Known>::new(), Vec::new());
    outcome.each_facts(|facts| {
        let mut leave = |reason: &str| left_out.push(LeftOut { name: facts.name.clone(), reason: reason.to_owned() });
        if !facts.in_cluster {
            leave("no manifest runs it: there is nothing that ends its pods, and nothing routed to it");
        } else if !facts.routed {
            leave("nothing is routed to it: no Service selects it");
        } else if facts.replicas.is_some_and(|replicas| replicas < 1.0) {
            leave("it has no replicas");
        } else if known.iter().any(|one| one.name == facts.name) {
            leave("another workload has the same name");
        } else {
            known.push(of_facts(&facts));
        }
    });
    (known, left_out)
}

fn of_facts(facts: &WorkloadFacts) -> Known {
    let (stop, stop_unknown) = match &facts.term {
        TermFact::Drains => (Some(Stop::Drains), None),
        TermFact::Dies => (Some(Stop::Dies), None),
        TermFact::Stays { delivered } => (Some(Stop::Stays { delivered: *delivered }), None),
        TermFact::Unknown { because } => (None, Some(because.clone())),
    };
    let hop = facts.hops.first();
    let lag = |(least, most): (f64, Option<f64>)| most.map(|most| Range::between(least, most.max(least)));
    Known {
        name: facts.name.clone(),
        replicas: facts.replicas.map(|replicas| replicas as u32),
        scaling: facts.hpa.as_ref().map(scaling),
        server: facts.server.map(str::to_owned),
        idle: facts.idle_s.map(|(least, most)| most.is_finite().then(|| Range::between(least, most))),
        stop,
        stop_unknown,
        pre_stop: Some(Range::between(facts.pre_stop_s.0, facts.pre_stop_s.1)),
        finish_s: facts.finish_s,
        grace_s: facts.grace_s,
        readiness_s: facts.readiness_s,
        profile: hop.and_then(profile_of),
        caller_idle_s: hop.and_then(|hop| hop.idle_s),
        lag: facts.lag_s.and_then(lag),
        via_nodes: hop.filter(|hop| hop.knows_nodes).and_then(|hop| lag(hop.lag_s)),
        drain_s: hop.and_then(|hop| hop.drain_s).map(|drain| Some(drain.unwrap_or(0.0))),
        restarts_a_day: facts.ends_itself_s.map_or(0.0, |seconds| 86_400.0 / seconds.max(1.0)),
    }
}

/// Defaults: kubernetes.io, horizontal pod autoscaling, "Default behavior": all surplus pods in 15 s, after 300 s.
fn scaling(hpa: &HpaFacts) -> Scaling {
    let policy = |&(percent, value, period_s): &(bool, f64, f64)| Policy {
        amount: if percent { Amount::Share(value / 100.0) } else { Amount::Pods(value) },
        period_s,
    };
    let policies = match (hpa.disabled, hpa.policies.as_slice()) {
        (true, _) => vec![Policy { amount: Amount::Pods(0.0), period_s: 15.0 }],
        (false, []) => vec![Policy { amount: Amount::Share(1.0), period_s: 15.0 }],
        (false, policies) => policies.iter().map(policy).collect(),
    };
    Scaling {
        least: hpa.least.map_or(1, |least| least as u32),
        stabilization_s: hpa.stabilization_s.unwrap_or(300.0),
        policies,
    }
}

/// The drill's profile for a hop of the catalogue.
fn profile_of(hop: &HopFacts) -> Option<&'static str> {
    match hop.id {
        "gcp-global-alb" | "gke-ingress-neg" => Some("glb"),
        "aws-alb" => Some("alb"),
        "ingress-nginx" | "kong" => Some("nginx"),
        "envoy-upstream" | "istio" | "contour" => Some("envoy"),
        _ => None,
    }
}

/// A profile as the simulation has it; none where it reuses connections in an order that is not simulated.
fn hop(profile: &Profile) -> Option<Hop> {
    match profile.reuse {
        Reuse::Lifo => {}
        Reuse::Fifo => return None,
    }
    let methods = ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "POST", "PATCH"];
    let resent = |method| {
        let after = |on| {
            let failure = Failed { on, timed_out: false, answer_began: false, not_processed: false };
            profile.retry.allows(method, failure, 0)
        };
        Resent {
            method,
            connect: after(FailedOn::Connecting),
            reused: after(FailedOn::Reused),
            fresh: after(FailedOn::Fresh),
        }
    };
    Some(Hop {
        id: profile.id,
        idle_s: profile.idle_timeout.as_secs_f64(),
        max_requests: profile.max_requests,
        max_age_s: profile.max_age.map(|age| age.as_secs_f64()),
        pooling: match profile.pooling {
            profile::Pooling::PerEndpointClosed => Pooling::PerEndpointClosed,
            profile::Pooling::PerEndpointLeft => Pooling::PerEndpointLeft,
            profile::Pooling::PerService => Pooling::PerService,
        },
        resends: methods.map(resent).to_vec(),
        limit: profile.retry.limit,
    })
}
