//! `cargo xtask truth record`: real proxies before real servers, ended under load, with the drill's verdict on each loss beside what the proxies
//! wrote. The test of `lameduck explain` reads what this leaves.
//!
//! All of it happens in a network namespace of its own, so that one command makes the fixtures anew wherever root may create one.

mod proxy;
mod scenario;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use lameduck_core::Cause;
use lameduck_drill::servers::Server;
use lameduck_drill::{DrillResult, Event, Plan, Profile, Retry, SetupError, Via, parse_request_file};
use serde_json::{Value, json};

use crate::packages;
use crate::test::root;
use proxy::{ALL as PROXIES, Proxy};
use scenario::{ALL as SCENARIOS, Scenario};

const SCHEMA: &str = "lameduck.truth/1";
/// Set in the namespace.
const INSIDE: &str = "LAMEDUCK_TRUTH_INSIDE";
/// The address that is taken away; its namespace has the other end.
const GONE: [u8; 4] = [10, 203, 7, 2];
/// How many runs go on side by side.
const AT_ONCE: usize = 4;
/// Held by the run that has the namespace with that address.
static PODS: Mutex<()> = Mutex::new(());

/// What is asked for.
struct Options {
    /// `google`, `nginx`, `haproxy`, `haproxy-more`, `envoy`.
    proxies: Vec<String>,
    /// Parts of scenario names.
    only: Vec<String>,
    envoy: Option<PathBuf>,
}

/// Runs the task.
pub fn truth(args: &[String]) -> anyhow::Result<ExitCode> {
    let Some((word, rest)) = args.split_first() else {
        bail!("cargo xtask truth record [--proxies a,b] [--only a,b] [--envoy PATH]")
    };
    ensure!(word == "record", "no task {word:?}: record");
    let mut options = Options { proxies: Vec::new(), only: Vec::new(), envoy: packages::find("envoy") };
    for pair in rest.chunks(2) {
        let [name, value] = pair else { bail!("{} takes a value", pair[0]) };
        let list = || value.split(',').map(str::to_owned).collect();
        match name.as_str() {
            "--proxies" => options.proxies = list(),
            "--only" => options.only = list(),
            "--envoy" => options.envoy = Some(value.into()),
            _ => bail!("no option {name}"),
        }
    }
    if std::env::var_os(INSIDE).is_none() {
        return inside(args);
    }
    record(&options)
}

/// The same in a network namespace, with a folder for more of them.
fn inside(args: &[String]) -> anyhow::Result<ExitCode> {
    let set_up = "mount -t tmpfs none /run && ip link set lo up && exec \"$0\" truth \"$@\"";
    let status = Command::new("unshare")
        .args(["--net", "--mount", "--", "sh", "-c", set_up])
        .arg(std::env::current_exe()?)
        .args(args)
        .env(INSIDE, "1")
        .status()
        .context("unshare: as root, with util-linux and iproute2")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn record(options: &Options) -> anyhow::Result<ExitCode> {
    let mut port = 21_000;
    for proxy in
        PROXIES.iter().filter(|proxy| options.proxies.is_empty() || options.proxies.iter().any(|id| id == proxy.id))
    {
        let Some(program) = proxy.program(options.envoy.as_deref()) else {
            println!("{}: not installed, nothing recorded", proxy.id);
            continue;
        };
        let path = root().join(format!("crates/lameduck/tests/explain/data/truth-{}.json.gz", proxy.id));
        // With --only what is there already stays.
        let mut runs: BTreeMap<String, Value> = if options.only.is_empty() { BTreeMap::new() } else { unpack(&path)? };
        let mut all = Vec::new();
        for scenario in SCENARIOS.iter().filter(|scenario| scenario.is_for(proxy.id)) {
            // The same program with another format: one server of each.
            let few = if proxy.id == "haproxy-more" { 1 } else { scenario.servers.len() };
            for server in &scenario.servers[..few] {
                let name = format!("{}-{server}", scenario.id);
                if options.only.is_empty() || options.only.iter().any(|part| name.contains(part.as_str())) {
                    port += 20;
                    all.push((name, Run { proxy, program: &program, scenario, server, port }));
                }
            }
        }
        let interrupted = several_at_once(all, &mut runs);
        pack(&path, proxy, &runs)?;
        ensure!(!interrupted, "interrupted; what was recorded until then is kept");
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs wait more than they work. Returns whether they were interrupted.
fn several_at_once(all: Vec<(String, Run<'_>)>, runs: &mut BTreeMap<String, Value>) -> bool {
    let (queue, recorded) = (Mutex::new(all.into_iter()), Mutex::new(runs));
    let interrupted = AtomicBool::new(false);
    let work = || {
        while !interrupted.load(Ordering::SeqCst) {
            let next = queue.lock().ok().and_then(|mut queue| queue.next());
            let Some((name, run)) = next else { return };
            match run.record() {
                Ok(found) => {
                    println!("{} {name}: {}", run.proxy.id, found["causes"]);
                    if let Ok(mut runs) = recorded.lock() {
                        runs.insert(name, found);
                    }
                }
                Err(error) => {
                    println!("{} {name}: NOT RECORDED: {error:#}", run.proxy.id);
                    let ended = matches!(error.downcast_ref::<SetupError>(), Some(SetupError::Interrupted));
                    interrupted.fetch_or(ended, Ordering::SeqCst);
                }
            }
        }
    };
    std::thread::scope(|scope| (0..AT_ONCE).for_each(|_| drop(scope.spawn(work))));
    interrupted.into_inner()
}

fn unpack(path: &Path) -> anyhow::Result<BTreeMap<String, Value>> {
    if !path.exists() {
        return Ok(BTreeMap::new());
    }
    let output = Command::new("gzip").arg("-dc").arg(path).output()?;
    let whole: Value = serde_json::from_slice(&output.stdout).with_context(|| path.display().to_string())?;
    Ok(whole["runs"].as_object().into_iter().flatten().map(|(name, run)| (name.clone(), run.clone())).collect())
}

fn pack(path: &Path, proxy: &Proxy, runs: &BTreeMap<String, Value>) -> anyhow::Result<()> {
    let whole = json!({"schema": SCHEMA, "proxy": proxy.id, "runs": runs});
    let plain = path.with_extension("");
    fs::write(&plain, serde_json::to_vec(&whole)?)?;
    ensure!(Command::new("gzip").args(["-9nf"]).arg(&plain).status()?.success(), "gzip failed");
    println!("{}: {} runs, {} bytes", path.display(), runs.len(), fs::metadata(path)?.len());
    Ok(())
}

/// One drill behind one proxy.
struct Run<'r> {
    proxy: &'r Proxy,
    program: &'r Path,
    scenario: &'r Scenario,
    server: &'r str,
    port: u16,
}

impl Run<'_> {
    fn record(&self) -> anyhow::Result<Value> {
        let dir = std::env::temp_dir().join(format!("lameduck-truth-{}-{}", std::process::id(), self.port));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir)?;
        let result = self.record_in(&dir);
        let _ = fs::remove_dir_all(&dir);
        result
    }

    fn record_in(&self, dir: &Path) -> anyhow::Result<Value> {
        let namespace = self.scenario.gone.then(Namespace::create).transpose()?;
        let plan = self.plan(dir)?;
        let mut running = None;
        if plan.via.is_some() {
            running = Some(self.proxy.start(self.program, dir, &plan, self.scenario)?);
        }
        let result = lameduck_drill::run(&plan, |_| {});
        if let Some(running) = running {
            running.stop();
        }
        drop(namespace);
        let result = result?;
        ensure!(result.tally.lost > 0, "nothing was lost");
        let mut logs = self.proxy.logs(dir)?;
        if self.scenario.sidecar {
            // The sidecars are in the path: what each wrote is its pod's log.
            for replica in &result.replicas {
                for kind in ["error", "access"] {
                    let text = fs::read_to_string(dir.join(format!("{}.{kind}.log", replica.port)))?;
                    for files in logs.values_mut() {
                        files.insert(format!("drill-{}.{kind}.log", replica.name), text.clone());
                    }
                }
            }
        }
        let labels = self.labels(&result);
        let mut causes = BTreeMap::<Cause, u64>::new();
        for (_, _, cause) in &labels {
            *causes.entry(*cause).or_default() += 1;
        }
        let labels: Vec<Value> = labels.into_iter().map(|(id, replica, cause)| json!([id, replica, cause])).collect();
        let cluster = fs::read_to_string(dir.join("cluster.json"))?;
        let cluster: Value = serde_json::from_str(&cluster)?;
        Ok(json!({
            "server": self.server, "scenario": self.scenario.id, "sent": result.tally.sent, "causes": causes,
            "losses": labels, "cluster": cluster.to_string(), "logs": logs,
        }))
    }

    /// Id, replica and cause of each loss. A 502 that a sidecar wrote after the stop is the neighbour's: the pod's own script ended the app at once, and
    /// the app's log lacks the id.
    fn labels(&self, result: &DrillResult) -> Vec<(String, String, Cause)> {
        let label = |loss: &lameduck_drill::result::Loss| {
            let by_sidecar = self.scenario.sidecar && loss.status == Some(502) && loss.server_saw != Some(true);
            let stopping = loss.since_term_s.is_some_and(|since| since > 0.0);
            let cause = if by_sidecar && stopping { Cause::PeerDown } else { loss.cause };
            (loss.id.clone(), loss.replica.clone(), cause)
        };
        result.losses.iter().map(label).collect()
    }

    fn plan(&self, dir: &Path) -> anyhow::Result<Plan> {
        let scenario = self.scenario;
        let command = self.command(dir)?;
        let mut env: Vec<(OsString, OsString)> = scenario
            .env
            .iter()
            .map(|(name, value)| {
                (name.into(), value.replace("{late}", &(self.port + scenario.replicas).to_string()).into())
            })
            .collect();
        env.push(("DIR".into(), dir.into()));
        let direct = self.proxy.id == "google";
        let mut host: IpAddr = [127, 0, 0, 1].into();
        if scenario.gone {
            host = GONE.into();
            env.push(("HOST".into(), host.to_string().into()));
        }
        let mut profile = Profile::from_id("glb").context("a profile")?;
        profile.retry = Retry::from_id("none").context("a policy")?;
        let connect_timeout = Duration::from_millis(scenario.connect_ms);
        let via = Via { address: ([127, 0, 0, 1], self.port + 19).into(), keeps: scenario.keeps, connect_timeout };
        if !direct {
            // A connection of its own for each request: HAProxy does not log what fails on a client's kept connection, it only hangs up.
            profile.max_requests = Some(1);
        }
        let events = scenario.event.map(str::parse::<Event>).transpose()?;
        Ok(Plan {
            command,
            env,
            replicas: usize::from(scenario.replicas),
            rate: scenario.rate,
            duration: Duration::from_millis(scenario.duration_ms),
            tail: Duration::ZERO,
            profile,
            mix: parse_request_file(scenario.mix)?,
            events: events.into_iter().collect(),
            lag: Duration::from_millis(scenario.lag_ms),
            grace: Duration::from_secs(scenario.grace_s),
            timeout: Duration::from_millis(if direct { scenario.answer_ms } else { 15_000 }),
            connect_timeout: if direct { connect_timeout } else { Duration::from_secs(3) },
            rtt: Duration::from_millis(if direct { scenario.rtt_ms } else { 0 }),
            port_base: self.port,
            host,
            id_in_query: true,
            min_sample: 1,
            via: (!direct).then_some(via),
            lb_log: direct.then(|| dir.join("lb.json")),
            cluster_log: Some(dir.join("cluster.json")),
            ..Plan::default()
        })
    }

    /// The server's files and the command that starts it.
    fn command(&self, dir: &Path) -> anyhow::Result<Vec<OsString>> {
        if let Some(command) = scenario::own(self.server) {
            for (name, text) in scenario::FILES {
                fs::write(dir.join(name), text)?;
            }
            return Ok(command.iter().map(|word| word.replace("{dir}", &dir.to_string_lossy()).into()).collect());
        }
        let server = Server::from_id(self.server).with_context(|| format!("no server {}", self.server))?;
        let missing: Vec<_> = server.needs.iter().filter(|program| packages::find(program).is_none()).collect();
        ensure!(missing.is_empty(), "needs {missing:?}");
        for (name, text) in server.files {
            fs::write(dir.join(name), text)?;
        }
        if let Some(build) = server.build_command(dir) {
            ensure!(Command::new(&build[0]).args(&build[1..]).status()?.success(), "{build:?} failed");
        }
        Ok(server.command(dir))
    }
}

/// A namespace with the address that will be gone, reached by a cable whose other end is here. Our end knows the hardware address for
/// good: as in a cloud's network, packets are sent and nobody is there.
struct Namespace {
    _held: MutexGuard<'static, ()>,
}

impl Namespace {
    fn create() -> anyhow::Result<Namespace> {
        let namespace = Namespace { _held: PODS.lock().unwrap_or_else(PoisonError::into_inner) };
        let address = IpAddr::from(GONE).to_string();
        let script = format!(
            "ip netns add pods && ip link add cable type veth peer name eth0 netns pods && ip address add 10.203.7.1/24 dev cable && \
             ip link set cable up && ip -n pods address add {address}/24 dev eth0 && ip -n pods link set lo up && ip -n pods link set eth0 up && \
             ip neigh replace {address} lladdr $(ip -n pods -o link show eth0 | sed 's|.*link/ether \\([0-9a-f:]*\\).*|\\1|') dev cable nud permanent"
        );
        ensure!(Command::new("sh").args(["-c", &script]).status()?.success(), "the namespace could not be made");
        Ok(namespace)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("sh").args(["-c", "ip link del cable; ip netns del pods"]).stderr(Stdio::null()).status();
    }
}
