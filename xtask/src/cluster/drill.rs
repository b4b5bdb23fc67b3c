//! `cargo xtask cluster drill`: real servers in Deployments of three, through what ends pods, under loads that reach them by the ways
//! that loads do.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use lameduck_drill::profile::Profile;
use lameduck_drill::servers::Server;

use super::Kubectl;
use super::client::{self, CLIENTS, Client, Heard, Place, Seen, Work};
use super::deployment::{By, GRACE, MODES, Mode, PORT, REPLICAS, begin, end, manifest, whole};
use super::event::{self, EVENTS, Event};
use super::image::SERVERS;
use super::inject::{self, Webhook};
use super::stall::Stalls;
use super::table;
use super::watch::{self, Watch};

/// After the load: what pods still write.
const AFTER: Duration = Duration::from_secs(2);
/// A run in which this machine stood still for longer, or in which pods' probes failed, says little about anything else, and is made again.
const MOST_STALL: Duration = Duration::from_secs(1);
/// How often, at most; where none of them was better there is no run.
const AGAIN: usize = 2;

/// What to drill.
#[derive(Debug, Clone)]
struct Options {
    servers: Vec<Server>,
    events: Vec<Event>,
    modes: Vec<Mode>,
    clients: Vec<Client>,
    by: By,
    /// Of all clients together.
    rate: f64,
    runs: usize,
    profile: Profile,
    lag: Duration,
    envoy: Option<PathBuf>,
    json: Option<PathBuf>,
    /// No drill: only the table of what a file has.
    table: Option<PathBuf>,
}

/// What one drill showed.
pub struct Run {
    pub server: Server,
    pub event: Event,
    pub mode: Mode,
    pub by: By,
    pub lag: Duration,
    pub seen: Vec<Seen>,
    /// With what the pods that ended did end.
    pub statuses: Vec<i64>,
    /// The longest that this machine stood still.
    pub stall: Duration,
    /// Pods whose probes failed though nobody ended them.
    pub came_back: usize,
    /// It is made again for that, and does not count.
    pub again: bool,
}

/// What all loads saw of one event.
struct Loaded {
    seen: Vec<Seen>,
    statuses: Vec<i64>,
    came_back: usize,
}

/// The task: every server, event and mode, so many runs of each. Fails where a request was lost under `lameduck run`.
pub fn drill(args: &[String]) -> anyhow::Result<ExitCode> {
    let options = options(args)?;
    if let Some(path) = &options.table {
        print!("{}", table::markdown(&table::read(path)?)?);
        return Ok(ExitCode::SUCCESS);
    }
    let kubectl = inject::namespace(Kubectl::new()?)?;
    let dir = std::env::temp_dir().join(format!("lameduck-cluster-drill-{}", std::process::id()));
    let injected = options.by == By::Webhook && options.modes.iter().any(|mode| *mode != Mode::Plain);
    let webhook = injected.then(|| Webhook::start(&kubectl, &dir)).transpose()?;
    let all = every(&kubectl, &options, &dir);
    drop(webhook);
    let _ = std::fs::remove_dir_all(&dir);
    let runs = all?;
    let with = runs.iter().filter(|run| run.mode != Mode::Plain && !run.again);
    let clean = with.flat_map(|run| &run.seen).all(|seen| seen.lost() == 0);
    if runs.len() > 1 {
        print!("\n{}", table::markdown(&table::all(&runs))?);
    }
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn every(kubectl: &Kubectl, options: &Options, dir: &Path) -> anyhow::Result<Vec<Run>> {
    let mut runs = Vec::new();
    println!("{}", table::HEAD);
    for _ in 0..options.runs {
        for server in &options.servers {
            for mode in &options.modes {
                with_deployment(kubectl, options, server, *mode, |name| {
                    for event in &options.events {
                        for _ in 0..=AGAIN {
                            let mut run = one(kubectl, options, dir, server, *event, *mode, name)?;
                            run.again = run.stall > MOST_STALL || run.came_back > 0;
                            print!("{}", table::rows(&run));
                            if let Some(path) = &options.json {
                                table::keep(path, &run)?;
                            }
                            let again = run.again;
                            runs.push(run);
                            if !again {
                                break;
                            }
                        }
                    }
                    Ok(())
                })?;
            }
        }
    }
    Ok(runs)
}

fn options(args: &[String]) -> anyhow::Result<Options> {
    use lexopt::prelude::*;
    let mut options = Options {
        servers: SERVERS.into_iter().filter_map(Server::from_id).collect(),
        events: EVENTS.to_vec(),
        modes: MODES.to_vec(),
        clients: CLIENTS.to_vec(),
        by: By::Webhook,
        rate: 300.0,
        runs: 1,
        profile: Profile::from_id("envoy").context("a profile")?,
        lag: Duration::ZERO,
        envoy: None,
        json: None,
        table: None,
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
            Long("modes") => options.modes = listed(&parser.value()?.string()?, Mode::from_id)?,
            Long("clients") => options.clients = listed(&parser.value()?.string()?, Client::from_id)?,
            Long("by") => {
                options.by = match parser.value()?.string()?.as_str() {
                    "command" => By::Command,
                    "webhook" => By::Webhook,
                    other => bail!("--by {other:?}: command, webhook"),
                };
            }
            Long("rate") => options.rate = parser.value()?.parse()?,
            Long("runs") => options.runs = parser.value()?.parse()?,
            Long("lag") => options.lag = Duration::from_secs_f64(parser.value()?.parse()?),
            Long("profile") => {
                let id = parser.value()?.string()?;
                options.profile = Profile::from_id(&id).with_context(|| format!("{id:?} is no profile"))?;
            }
            Long("envoy") => options.envoy = Some(parser.value()?.into()),
            Long("json") => options.json = Some(parser.value()?.into()),
            Long("table") => options.table = Some(parser.value()?.into()),
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
    let chosen = ["--rate", "100", "--clients", "slices", "--by", "command"];
    let options = options(&chosen.map(str::to_owned))?;
    let dir = std::env::temp_dir();
    let (mode, of) = (Mode::Observe, &options);
    let run = with_deployment(kubectl, of, server, mode, |name| one(kubectl, of, &dir, server, event, mode, name))?;
    let lost = run.seen.iter().flat_map(|seen| seen.result.losses.iter().chain(&seen.result.unknowns));
    Ok(lost.map(|loss| format!("{} {} ({}: {})", loss.method, loss.path, loss.cause.id(), loss.grounds)).collect())
}

/// Makes a Deployment, has something done with it, and takes it away.
fn with_deployment<T>(
    kubectl: &Kubectl,
    options: &Options,
    server: &Server,
    mode: Mode,
    work: impl FnOnce(&str) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let name = format!("{}-{}", server.id, mode.id());
    let deployment = manifest(server, mode, options.by, &name, REPLICAS);
    let result = begin(kubectl, &deployment, &name).and_then(|()| work(&name));
    end(kubectl, &name)?;
    result.context(name)
}

/// One event; what became of each request, and how the pods that it ended did end.
fn one(
    kubectl: &Kubectl,
    options: &Options,
    dir: &Path,
    server: &Server,
    event: Event,
    mode: Mode,
    name: &str,
) -> anyhow::Result<Run> {
    whole(kubectl, name)
        .and_then(|()| {
            let stalls = Stalls::watch();
            let loaded = under_load(kubectl, options, dir, server, event, name);
            let stall = stalls.longest();
            let Loaded { seen, statuses, came_back } = loaded?;
            let (server, by, lag) = (*server, options.by, options.lag);
            Ok(Run { server, event, mode, by, lag, seen, statuses, stall, came_back, again: false })
        })
        .context(event.id())
}

/// All clients' loads on one Deployment, and the event that all of them see.
fn under_load(
    kubectl: &Kubectl,
    options: &Options,
    dir: &Path,
    server: &Server,
    event: Event,
    name: &str,
) -> anyhow::Result<Loaded> {
    let work = Work {
        replicas: REPLICAS,
        port: PORT,
        grace: GRACE,
        rate: options.rate / options.clients.len() as f64,
        profile: options.profile,
        lag: options.lag,
    };
    let service = kubectl.get(&["service", name])?;
    let service = service["spec"]["clusterIP"].as_str().context("clusterIP")?.parse().context("clusterIP")?;
    let place = Place {
        envoy: options.envoy.as_deref(),
        dir,
        service: SocketAddr::new(service, 80),
        routed: watch::routed(kubectl, name)?,
    };
    let heard = Arc::new(Mutex::new(Heard::default()));
    let (loads, tell) = client::prepare(&options.clients, server, work, &place, &heard)?;
    let watch = Watch::begin(kubectl, name, tell)?;
    let (began, begins) = mpsc::channel();
    let (kubectl, name, count) = (kubectl.clone(), name.to_owned(), loads.len());
    // The loads end with the watch.
    let director = thread::spawn(move || {
        let done = event::direct(&kubectl, &watch, event, &name, &begins, count);
        watch.enough();
        thread::sleep(AFTER);
        let statuses = watch.statuses();
        watch.stop();
        done.map(|()| statuses)
    });
    let run = |load: client::Load| {
        let (began, heard) = (began.clone(), Arc::clone(&heard));
        thread::spawn(move || load.run(&began, &heard))
    };
    let running: Vec<_> = loads.into_iter().map(run).collect();
    // Where no load began the director must not wait for it.
    drop(began);
    let ended = |what: &str| anyhow::anyhow!("{what} ended");
    let seen: Vec<_> = running.into_iter().map(|load| load.join().map_err(|_| ended("a load"))?).collect();
    let statuses = director.join().map_err(|_| ended("the director"))?;
    let seen = seen.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    ensure!(!seen.is_empty(), "--clients names none");
    let came_back = heard.lock().unwrap_or_else(PoisonError::into_inner).came_back.len();
    Ok(Loaded { seen, statuses: statuses?, came_back })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_drill() {
        let read = |line: &str| options(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        let chosen =
            read("--servers gunicorn --events drain,delete --modes front --lag 0.5 --clients kube-proxy").unwrap();
        assert_eq!((chosen.servers[0].id, chosen.events), ("gunicorn", vec![Event::Drain, Event::Delete]));
        assert_eq!((chosen.modes, chosen.lag), (vec![Mode::Front], Duration::from_millis(500)));
        assert_eq!(chosen.clients[0].id(), "kube-proxy");
        for bad in ["--servers tomcat", "--events stop", "--modes half", "--what", "--clients all", "--by hand"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
