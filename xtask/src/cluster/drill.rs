//! `cargo xtask cluster drill`: real servers in Deployments of three, through what ends pods, under a load that follows `EndpointSlice`s.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use lameduck_core::duration::show;
use lameduck_drill::profile::Profile;
use lameduck_drill::servers::Server;
use lameduck_drill::{DrillResult, Plan, Progress, live};
use serde_json::{Value, json};

use super::Kubectl;
use super::image::{Image, LAMEDUCK, SERVERS};
use super::watch::Watch;

const SCHEMA: &str = "lameduck.cluster-drill/1";
/// Pods of a Deployment.
const REPLICAS: usize = 3;
/// Where each server listens.
const PORT: u16 = 8080;
/// `terminationGracePeriodSeconds`, and `lameduck run`'s default `--grace`.
const GRACE: Duration = Duration::from_secs(30);
/// Load before an event, and after all that it ended has ended.
const AROUND: Duration = Duration::from_secs(3);
/// The most time that an event takes: every pod one after another, each with its grace and its start.
const LONGEST: Duration = Duration::from_mins(3);
/// How often one looks whether something has happened.
const POLL: Duration = Duration::from_millis(100);

/// What ends pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// `kubectl rollout restart`.
    Restart,
    /// `kubectl scale`, from three to one.
    Scale,
    /// `kubectl delete pod`.
    Delete,
    /// `kubectl drain`: the node with most of the pods.
    Drain,
}

const EVENTS: [Event; 4] = [Event::Restart, Event::Scale, Event::Delete, Event::Drain];

impl Event {
    const fn id(self) -> &'static str {
        match self {
            Event::Restart => "restart",
            Event::Scale => "scale-down",
            Event::Delete => "delete",
            Event::Drain => "drain",
        }
    }

    fn from_id(id: &str) -> anyhow::Result<Event> {
        EVENTS
            .into_iter()
            .find(|event| event.id() == id)
            .with_context(|| format!("{id:?} is no event: restart, scale-down, delete, drain"))
    }

    /// How many pods end by it at least.
    const fn ends(self) -> usize {
        match self {
            Event::Restart => REPLICAS,
            Event::Scale | Event::Drain => REPLICAS - 1,
            Event::Delete => 1,
        }
    }

    fn carry_out(self, kubectl: &Kubectl, name: &str) -> anyhow::Result<()> {
        let deployment = format!("deployment/{name}");
        let selector = format!("--selector=app={name}");
        match self {
            Event::Restart => kubectl.run(&["rollout", "restart", &deployment])?,
            Event::Scale => kubectl.run(&["scale", &deployment, "--replicas=1"])?,
            Event::Delete => {
                let pods = kubectl.get(&["pods", &selector])?;
                let pod = pods["items"][0]["metadata"]["name"].as_str().context("no pod to delete")?.to_owned();
                kubectl.run(&["delete", "pod", &pod, "--wait=false"])?
            }
            Event::Drain => {
                let node = fullest_node(kubectl, &selector)?;
                kubectl.run(&["drain", &node, &format!("--pod-selector=app={name}"), "--force", "--timeout=120s"])?
            }
        };
        Ok(())
    }
}

/// The node with most of the pods.
fn fullest_node(kubectl: &Kubectl, selector: &str) -> anyhow::Result<String> {
    let pods = kubectl.get(&["pods", selector])?;
    let mut pods_of: BTreeMap<&str, usize> = BTreeMap::new();
    for pod in pods["items"].as_array().context("no pods")? {
        *pods_of.entry(pod["spec"]["nodeName"].as_str().unwrap_or_default()).or_default() += 1;
    }
    let fullest = pods_of.into_iter().max_by_key(|(_, pods)| *pods).context("no pods")?;
    Ok(fullest.0.to_owned())
}

/// What to drill.
#[derive(Debug, Clone)]
struct Options {
    servers: Vec<Server>,
    events: Vec<Event>,
    /// Whether under `lameduck run`.
    modes: Vec<bool>,
    rate: f64,
    runs: usize,
    profile: Profile,
    lag: Duration,
    json: Option<PathBuf>,
}

const fn mode(wrapped: bool) -> &'static str {
    if wrapped { "lameduck" } else { "plain" }
}

/// What one drill showed.
struct Run {
    server: Server,
    event: Event,
    wrapped: bool,
    lag: Duration,
    result: DrillResult,
    /// With what the pods that ended did end.
    statuses: Vec<i64>,
}

/// The task: every server, event and mode, so many runs of each. Fails where a request was lost under `lameduck run`.
pub fn drill(args: &[String]) -> anyhow::Result<ExitCode> {
    let options = options(args)?;
    let kubectl = Kubectl::new()?;
    let mut clean = true;
    println!("| server | event | lag | mode | sent | lost | causes | unrouted | stop, at most | exit |");
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for server in &options.servers {
        for event in &options.events {
            for wrapped in &options.modes {
                for _ in 0..options.runs {
                    let run = one(&kubectl, &options, server, *event, *wrapped)?;
                    println!("{}", run.row());
                    clean &= !wrapped || run.result.exit_code() == 0;
                    if let Some(path) = &options.json {
                        run.keep(path)?;
                    }
                }
            }
        }
    }
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn options(args: &[String]) -> anyhow::Result<Options> {
    use lexopt::prelude::*;
    let mut options = Options {
        servers: SERVERS.into_iter().filter_map(Server::from_id).collect(),
        events: EVENTS.to_vec(),
        modes: vec![false, true],
        rate: 300.0,
        runs: 1,
        profile: Profile::from_id("envoy").context("a profile")?,
        lag: Duration::ZERO,
        json: None,
    };
    let mut parser = lexopt::Parser::from_args(args);
    while let Some(arg) = parser.next()? {
        match arg {
            Long("servers") => {
                let server = |id: &str| Server::from_id(id).filter(|server| SERVERS.contains(&server.id));
                options.servers = listed(&parser.value()?.string()?, |id| {
                    server(id).with_context(|| format!("no image of {id:?}: there are {}", SERVERS.join(", ")))
                })?;
            }
            Long("events") => options.events = listed(&parser.value()?.string()?, Event::from_id)?,
            Long("modes") => {
                options.modes = listed(&parser.value()?.string()?, |id| match id {
                    "plain" => Ok(false),
                    "lameduck" => Ok(true),
                    _ => bail!("{id:?} is no mode: plain, lameduck"),
                })?;
            }
            Long("rate") => options.rate = parser.value()?.parse()?,
            Long("runs") => options.runs = parser.value()?.parse()?,
            Long("lag") => options.lag = Duration::from_secs_f64(parser.value()?.parse()?),
            Long("profile") => {
                let id = parser.value()?.string()?;
                options.profile = Profile::from_id(&id).with_context(|| format!("{id:?} is no profile"))?;
            }
            Long("json") => options.json = Some(parser.value()?.into()),
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(options)
}

fn listed<T>(text: &str, one: impl Fn(&str) -> anyhow::Result<T>) -> anyhow::Result<Vec<T>> {
    text.split(',').map(one).collect()
}

/// One drill under `lameduck run` with what is the default; what was lost.
pub fn under_lameduck(kubectl: &Kubectl, server: &Server, event: Event) -> anyhow::Result<Vec<String>> {
    let options = options(&["--rate".to_owned(), "100".to_owned()])?;
    let Run { result, .. } = one(kubectl, &options, server, event, true)?;
    ensure!(result.losses.len() as u64 == result.tally.lost, "the books do not balance");
    let lost = result.losses.iter().chain(&result.unknowns);
    Ok(lost.map(|loss| format!("{} {} ({}: {})", loss.method, loss.path, loss.cause.id(), loss.grounds)).collect())
}

/// One Deployment from its start to its end; what became of each request, and how its pods ended.
fn one(kubectl: &Kubectl, options: &Options, server: &Server, event: Event, wrapped: bool) -> anyhow::Result<Run> {
    let name = format!("{}-{}", server.id, mode(wrapped));
    let begun = begin(kubectl, server, wrapped, &name, REPLICAS);
    let result = begun.and_then(|()| under_load(kubectl, options, server, event, &name));
    end(kubectl, &name)?;
    let (result, statuses) = result.with_context(|| format!("{name}, {}", event.id()))?;
    Ok(Run { server: *server, event, wrapped, lag: options.lag, result, statuses })
}

/// Makes the Deployment and its Service, and waits until all is ready.
pub fn begin(kubectl: &Kubectl, server: &Server, wrapped: bool, name: &str, replicas: usize) -> anyhow::Result<()> {
    kubectl.apply(&manifest(server, wrapped, name, replicas))?;
    kubectl.run(&["rollout", "status", &format!("deployment/{name}"), "--timeout=60s"])?;
    Ok(())
}

/// Takes all of it away, and makes every node take pods again.
pub fn end(kubectl: &Kubectl, name: &str) -> anyhow::Result<()> {
    let selector = format!("--selector=app={name}");
    // Their owners go without them: else they would have their whole grace.
    kubectl.run(&["delete", "service,deployment", name, "--cascade=orphan", "--ignore-not-found", "--timeout=30s"])?;
    kubectl.run(&["delete", "replicasets", &selector, "--cascade=orphan", "--timeout=30s"])?;
    kubectl.run(&["delete", "pods", &selector, "--grace-period=1", "--timeout=60s"])?;
    for node in 1..=super::NODES {
        kubectl.run(&["uncordon", &format!("n{node}")])?;
    }
    Ok(())
}

/// The Deployment as most people write it, and its Service.
fn manifest(server: &Server, wrapped: bool, name: &str, replicas: usize) -> Value {
    let own = Image::command_of(server);
    let command = if wrapped { [vec![LAMEDUCK.into(), "run".into(), "--".into()], own].concat() } else { own };
    let labels = json!({ "app": name });
    let container = json!({
        "name": "app", "image": Image::name_of(server), "imagePullPolicy": "Never", "command": command,
        "env": [{ "name": "PORT", "value": PORT.to_string() }],
        "ports": [{ "containerPort": PORT }],
        "readinessProbe": { "httpGet": { "path": "/", "port": PORT }, "periodSeconds": 1 },
    });
    let pod = json!({
        "terminationGracePeriodSeconds": GRACE.as_secs(), "enableServiceLinks": false,
        "automountServiceAccountToken": false, "dnsPolicy": "Default", "containers": [container],
    });
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": name },
        "spec": {
            "replicas": replicas, "selector": { "matchLabels": labels },
            "strategy": { "rollingUpdate": { "maxSurge": 1, "maxUnavailable": 0 } },
            "template": { "metadata": { "labels": labels }, "spec": pod },
        },
    });
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": name },
        "spec": { "selector": labels, "ports": [{ "port": 80, "targetPort": PORT }] },
    });
    json!({ "apiVersion": "v1", "kind": "List", "items": [deployment, service] })
}

fn under_load(
    kubectl: &Kubectl,
    options: &Options,
    server: &Server,
    event: Event,
    name: &str,
) -> anyhow::Result<(DrillResult, Vec<i64>)> {
    let mix = server.mix(false, 2.0);
    let plan = Plan {
        replicas: REPLICAS,
        rate: options.rate,
        profile: options.profile,
        lag: options.lag,
        grace: GRACE,
        mix: mix.iter().map(|line| line.parse()).collect::<Result<_, _>>().context("the mix")?,
        ..Plan::default()
    };
    let (sender, receiver) = live::channel();
    let watch = Watch::begin(kubectl, name, sender)?;
    let (began, begins) = mpsc::channel();
    let (kubectl, name) = (kubectl.clone(), name.to_owned());
    // The load ends with the watch.
    let director = thread::spawn(move || {
        let done = direct(&kubectl, &watch, event, &name, &begins);
        watch.enough();
        thread::sleep(AROUND);
        let statuses = watch.statuses();
        watch.stop();
        done.map(|()| statuses)
    });
    let result = lameduck_drill::follow(&plan, receiver, |news| {
        if let Progress::LoadBegan { .. } = news {
            let _ = began.send(());
        }
    });
    // Where the load never began the director must not wait for it.
    drop(began);
    let directed = director.join().map_err(|_| anyhow::anyhow!("the director ended"))?;
    let result = result?;
    let statuses = directed?;
    ensure!(result.balances(), "the books do not balance");
    Ok((result, statuses))
}

/// Lets the load run, does what ends pods, and waits for their ends.
fn direct(
    kubectl: &Kubectl,
    watch: &Watch,
    event: Event,
    name: &str,
    begins: &mpsc::Receiver<()>,
) -> anyhow::Result<()> {
    begins.recv().context("the load did not begin")?;
    thread::sleep(AROUND);
    watch.tell(event.id());
    event.carry_out(kubectl, name)?;
    let began = Instant::now();
    while watch.stopping() < event.ends() || watch.open() > 0 {
        ensure!(began.elapsed() < LONGEST, "{} of {} pods still have not ended", watch.open(), watch.stopping());
        thread::sleep(POLL);
    }
    kubectl.run(&["rollout", "status", &format!("deployment/{name}"), "--timeout=60s"])?;
    thread::sleep(AROUND);
    Ok(())
}

fn causes(result: &DrillResult) -> BTreeMap<String, u64> {
    let mut causes = BTreeMap::new();
    for loss in result.losses.iter().chain(&result.unknowns) {
        *causes.entry(loss.cause.id().to_owned()).or_default() += 1;
    }
    causes
}

impl Run {
    /// A row of the table.
    fn row(&self) -> String {
        let Run { result, .. } = self;
        let causes: Vec<String> = causes(result).iter().map(|(cause, count)| format!("{count} {cause}")).collect();
        let stop = result.term_to_exit_s.max.map_or_else(String::new, |longest| format!("{longest:.1} s"));
        let statuses: BTreeSet<String> = self.statuses.iter().map(ToString::to_string).collect();
        let cells = [
            self.server.title.to_owned(),
            self.event.id().to_owned(),
            show(self.lag),
            mode(self.wrapped).to_owned(),
            result.tally.sent.to_string(),
            (result.tally.lost + result.tally.unknown).to_string(),
            causes.join(", "),
            result.unrouted.to_string(),
            stop,
            statuses.into_iter().collect::<Vec<_>>().join(", "),
        ];
        format!("| {} |", cells.join(" | "))
    }

    /// Adds it to a file.
    fn keep(&self, path: &Path) -> anyhow::Result<()> {
        let empty = || json!({ "schema": SCHEMA, "runs": [] });
        let mut all: Value = fs::read(path).ok().map_or_else(|| Ok(empty()), |text| serde_json::from_slice(&text))?;
        let result = &self.result;
        let run = json!({
            "server": self.server.id, "event": self.event.id(), "mode": mode(self.wrapped), "lag_s": self.lag.as_secs_f64(),
            "rate": result.plan.rate, "profile": result.plan.profile, "sent": result.tally.sent, "lost": result.tally.lost,
            "unknown": result.tally.unknown, "unrouted": result.unrouted, "causes": causes(result),
            "server_log": result.server_log, "term_to_exit_s": result.term_to_exit_s.all, "statuses": self.statuses,
            "losses": result.losses,
        });
        all["runs"].as_array_mut().context("runs")?.push(run);
        fs::write(path, all.to_string()).with_context(|| path.display().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deployment_and_its_service() {
        let server = Server::from_id("node").unwrap();
        let made = manifest(&server, true, "node-lameduck", 3);
        let pod = &made["items"][0]["spec"]["template"]["spec"];
        let command = &pod["containers"][0]["command"];
        assert_eq!(command, &json!([LAMEDUCK, "run", "--", "node", "/app/app.js"]));
        assert_eq!(made["items"][1]["spec"]["selector"], made["items"][0]["spec"]["template"]["metadata"]["labels"]);
        assert_eq!(
            manifest(&server, false, "x", 1)["items"][0]["spec"]["template"]["spec"]["containers"][0]["command"][0],
            "node"
        );
    }

    #[test]
    fn what_to_drill() {
        let read = |line: &str| options(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        let chosen = read("--servers gunicorn --events drain,delete --modes lameduck --lag 0.5").unwrap();
        assert_eq!((chosen.servers[0].id, chosen.events), ("gunicorn", vec![Event::Drain, Event::Delete]));
        assert_eq!((chosen.modes, chosen.lag), (vec![true], Duration::from_millis(500)));
        for bad in ["--servers tomcat", "--events stop", "--modes half", "--what"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
