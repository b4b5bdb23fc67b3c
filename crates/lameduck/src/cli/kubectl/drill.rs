//! `kubectl lameduck drill`.

use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;

use lameduck_cluster::plugin;
use lameduck_cluster::plugin::drill::workers::{self, MOST, Workers};
use lameduck_cluster::plugin::drill::{self, Deployment, Event, NotDrilled};
use lameduck_cluster::plugin::kube::Kube;
use lameduck_drill::profile::{ALL as PROFILES, RETRIES};
use lameduck_drill::{DrillResult, Plan, Profile, Progress, Retry, Template, live};

use super::super::drill::{Live, Outputs, set_up};
use super::super::flag::{self, Failure, Flag, Given, Verb};
use super::{COMMON, block, reach};
use crate::exit;

/// `lameduck kubectl drill`
pub const VERB: Verb = Verb {
    name: "kubectl drill",
    summary: "End pods of a live Deployment under load, and account for every request.",
    operands: "deployment/NAME",
    flags: &FLAGS,
    from_env: false,
    about: "It sends real requests and ends real pods. The load goes to pods' own addresses, as an ingress controller's does, so it has \
            to run where these are reached, or to be sent by --workers.\n\
            Exit status: 0 nothing was lost, 1 requests were lost, 2 usage, 3 inconclusive, 4 could not be set up.\n",
    usage_status: exit::USAGE,
};

/// What `deploy/chart/values.yaml` has too.
const IMAGE: &str = concat!("ghcr.io/lameduck-rs/lameduck:", env!("CARGO_PKG_VERSION"));

const FLAGS: [Flag; COMMON.len() + OWN.len()] = flag::joined(&[COMMON, OWN]);

const OWN: &[Flag] = &[
    Flag::value(
        "event",
        "EVENT",
        "What ends pods: roll, scale-down[=N] (to N, 1 where it is not said; put back afterwards), delete (one pod), evict (one pod), \
         drain-node (these pods of the node with most of them; uncordoned afterwards). Needed.",
    ),
    Flag::value(
        "service",
        "NAME",
        "The Service whose endpoints are sent to. Default: the first that selects the pods.",
    ),
    Flag::value("port", "PORT", "The name or number of the endpoints' port. Default: their first."),
    Flag::value("rate", "N", "Requests a second, open loop, to all pods together. Default: 100."),
    Flag::value(
        "workers",
        "N",
        "Let N pods of a Job in that namespace send the load, each its part, and merge their books. Default: this machine sends it.",
    ),
    Flag::value(
        "worker-image",
        "IMAGE",
        "Their image, with /bin/lameduck of this version. Default: the project's own of this version.",
    ),
    Flag::value("profile", "NAME", "What stands in front: glb, alb, nginx, envoy or go-client. Default: envoy."),
    Flag::value(
        "retry",
        "POLICY",
        "Retry as POLICY instead of the profile's own: none, idempotent-once, get-once, go, nginx, envoy-reset.",
    ),
    Flag::value(
        "lag",
        "TIME",
        "How long this load goes on after an endpoint was removed, as a slow hop does. Default: 0.",
    ),
    Flag::list(
        "request",
        "TEMPLATE",
        "METHOD PATH [WEIGHT] [BODY-BYTES] [KIND]; may be repeated. Default: GET / and some HEAD /.",
    ),
    Flag::value("timeout", "TIME", "The most time for one answer. Default: 15s."),
    Flag::value("json", "FILE", "Write the result as JSON, lameduck.drill/1 (- is standard output)."),
    Flag::value("junit", "FILE", "Write it as JUnit XML."),
    Flag::value("html", "FILE", "Write it as one self-contained page."),
    Flag::switch("quiet", "No progress."),
];

/// Runs the verb.
pub fn drill(args: &[OsString], env: &impl Fn(&str) -> Option<OsString>) -> Result<u8, Failure> {
    let given = flag::parse(&VERB, &flag::options_first(args, &FLAGS), env)?;
    let [operand] = given.operands.as_slice() else {
        return Err(given.usage("expected one Deployment, as in deployment/web"));
    };
    let name = operand.to_str().and_then(|text| text.split_once('/'));
    let name = name.filter(|(kind, name)| ["deployment", "deployments", "deploy"].contains(kind) && !name.is_empty());
    let Some((_, name)) = name else {
        return Err(given.usage(format!("read {:?}, expected a Deployment, as in deployment/web", operand.display())));
    };
    let event = given.one("event", "roll, scale-down[=N], delete, evict or drain-node", Event::from_id)?;
    let event = event.ok_or_else(|| given.usage("no --event was given: it ends real pods, so it has to be named"))?;
    let plan = plan(&given)?;
    let (kube, namespace) = reach(&given, env)?;
    let namespace = namespace.ok_or_else(|| given.usage("--all-namespaces: a drill is of one Deployment"))?;
    let (service, port) = (given.text("service")?, given.text("port")?);
    let workers = given.one("workers", &format!("a number from 1 to {MOST}"), |text| {
        text.parse::<usize>().ok().filter(|count| (1..=MOST).contains(count))
    })?;
    let image = given.text("worker-image")?;
    if workers.is_none() && image.is_some() {
        return Err(given.usage("--worker-image is whose --workers N are, and there are none"));
    }
    let workers = workers.map(|count| Workers {
        count,
        image: image.unwrap_or_else(|| IMAGE.to_owned()),
        namespace: namespace.clone(),
    });
    let deployment = block(drill::find(&kube, &namespace, name, service, port, workers.is_none()))?;
    let plan = Plan { replicas: deployment.replicas as usize, grace: deployment.grace, ..plan };
    let mut live = Live::new(given.switch("quiet")?);
    let done = match &workers {
        Some(workers) => from_inside(&kube, deployment, event, workers, &plan, &mut live),
        None => from_here(&kube, deployment, event, &plan, &mut live),
    };
    live.end();
    let (result, statuses) = done?;
    let statuses: Vec<String> = statuses.iter().map(ToString::to_string).collect();
    let seen = if statuses.is_empty() { "a status that was not seen".to_owned() } else { statuses.join(", ") };
    eprintln!("pods ended with {seen}");
    if workers.is_some() && result.tally.answered == 0 {
        eprintln!("no worker got an answer: does a NetworkPolicy keep pods of namespace {namespace} out?");
    }
    Outputs::of(&given).write(&result)?;
    Ok(result.exit_code())
}

fn setup(message: String) -> Failure {
    Failure::Error { message, status: exit::SETUP }
}

/// This machine sends the load.
fn from_here(
    kube: &Arc<Kube>,
    deployment: Deployment,
    event: Event,
    plan: &Plan,
    live: &mut Live,
) -> Result<(DrillResult, Vec<i64>), Failure> {
    let (sender, receiver) = live::channel();
    let (began, begins) = plugin::signal();
    let director = std::thread::spawn({
        let kube = Arc::clone(kube);
        move || plugin::block(drill::direct(kube, deployment, event, sender, begins))
    });
    let mut began = Some(began);
    let result = super::super::with_sockets(|| {
        lameduck_drill::follow(plan, receiver, |news| {
            if matches!(news, Progress::LoadBegan { .. })
                && let Some(began) = began.take()
            {
                let _ = began.send(());
            }
            live.tell(&news);
        })
    });
    // Where the load never began the director must not wait for it.
    drop(began);
    let directed = director.join().map_err(|_| setup("the drill's director ended".to_owned()))?;
    let directed = directed.map_err(|error| setup(format!("the runtime: {error}")))?;
    match (result, directed) {
        (Ok(result), Ok(statuses)) => Ok((result, statuses)),
        // Why the event could not be carried out says more than that nothing was routed to.
        (Err(error), Ok(_) | Err(NotDrilled::NoLoad)) => Err(set_up(error)),
        (_, Err(error)) => Err(setup(error.to_string())),
    }
}

/// Workers in the cluster send it.
fn from_inside(
    kube: &Arc<Kube>,
    deployment: Deployment,
    event: Event,
    workers: &Workers,
    plan: &Plan,
    live: &mut Live,
) -> Result<(DrillResult, Vec<i64>), Failure> {
    live.say(&format!("starting {} workers in namespace {}", workers.count, workers.namespace));
    let counts = |tick| live.tell(&Progress::Tick(tick));
    block(workers::drill(kube, deployment, event, workers, plan, counts))
}

fn plan(given: &Given) -> Result<Plan, Failure> {
    let default = Plan::default();
    let names = PROFILES.iter().map(|profile| profile.id).collect::<Vec<_>>().join(", ");
    let profile =
        given.one("profile", &format!("one of {names}"), Profile::from_id)?.or_else(|| Profile::from_id("envoy"));
    let mut profile = profile.unwrap_or(default.profile);
    let retries = RETRIES.map(|retry| retry.id).join(", ");
    if let Some(retry) = given.one("retry", &format!("one of {retries}"), Retry::from_id)? {
        profile.retry = retry;
    }
    let mut mix = Vec::new();
    for text in given.list("request", "a template", |text| Some(text.to_owned()))? {
        mix.push(text.parse::<Template>().map_err(|error| given.usage(format!("--request: {error}")))?);
    }
    let rate = given.one("rate", "a number above 0", |text| text.parse::<f64>().ok().filter(|rate| *rate > 0.0))?;
    Ok(Plan {
        rate: rate.unwrap_or(default.rate),
        profile,
        mix: if mix.is_empty() { default.mix } else { mix },
        lag: given.duration("lag")?.unwrap_or(Duration::ZERO),
        timeout: given.duration("timeout")?.unwrap_or(default.timeout),
        ..default
    })
}
