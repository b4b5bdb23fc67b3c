//! `cargo xtask cluster`: a real Kubernetes on this machine, for tests, and nothing left of it afterwards.
//!
//! All of it runs in namespaces of its own: processes, mounts and the network below one `unshare`, which `down` kills. The kernel
//! then takes away what was in them: containers, mounts, bridges, rules. What is left for `down` to remove is one folder, the
//! cgroups, and what the kubelet set in `/proc/sys`.
//!
//! ```text
//! this machine                room (control plane)          n1, n2 (kubelet, containerd, kube-proxy)
//! lameduck-host 10.213.0.1 -- bridge fabric 10.213.0.2 ---- eth0 10.213.0.11 -- bridge pods 10.213.65.0/24
//! ```

mod client;
mod deployment;
pub mod drill;
mod event;
mod hop;
mod hour;
mod image;
mod incident;
mod inject;
mod kubectl;
mod net;
mod node;
pub mod programs;
mod room;
mod stall;
mod table;
pub mod test;
mod watch;
mod workers;

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

pub use kubectl::Kubectl;

/// Everything the cluster writes. There is one cluster a machine.
pub const STATE: &str = "/var/cache/lameduck-cluster";
/// The cgroup that all its containers are under.
const CGROUP: &str = "lameduck-cluster";
/// How many nodes there are: one can be drained, and its pods go to the other.
const NODES: u8 = 2;
/// The most time from the start until the nodes are Ready.
const UP_TAKES: Duration = Duration::from_mins(1);
/// The most time that the end takes.
const DOWN_TAKES: Duration = Duration::from_secs(30);
/// Where one looks again whether something has happened.
const POLL: Duration = Duration::from_millis(50);
/// What the kubelet sets for the whole machine; `down` puts it back.
const SYSCTLS: [&str; 6] = [
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
];

const HELP: &str = "\
cargo xtask cluster up|status|down|drill|incident|first-hour|workers

  up       Builds Kubernetes (once: some ten minutes), starts it, and says how kubectl reaches it. Root.
  status   Whether it is up, its nodes and its pods.
  down     Ends it; says what is left of it, if anything is.
  drill    Deployments of real servers, plain and with lameduck, through rollout restart, scale down, delete and drain, under
           loads that follow EndpointSlices or come through nginx, Envoy and kube-proxy: every request accounted for.
           [--servers a,b] [--events a,b] [--modes plain,observe,front] [--clients slices,nginx,envoy,kube-proxy]
           [--by webhook|command] [--rate 300, of all clients together] [--runs 1] [--lag SECONDS] [--profile envoy]
           [--envoy PATH] [--json FILE] [--table FILE: only the table of what such a file has]
  workers  kubectl lameduck drill --workers, plain and with lameduck.
  incident gitlab-pid1
           The incident's own files as two containers of each pod, plain and cured, one pod of three deleted under load.
  first-hour [--write]
           The commands of docs/first-hour.md, as a newcomer types them. --write: the page gets what they print.
";

/// The task's words.
pub fn cluster(args: &[String]) -> anyhow::Result<ExitCode> {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["up"] => {
            let took = up()?;
            println!("up in {:.1} s\n{}", took.as_secs_f64(), Kubectl::new()?.how());
        }
        ["down"] => {
            down()?;
            println!("down; nothing is left");
        }
        ["status"] => return status(),
        ["drill", ..] => return drill::drill(&args[1..]),
        ["first-hour", ..] => return hour::task(&args[1..]),
        ["incident", name] => return incident::incident(name),
        ["workers"] => workers::send_the_load(&Kubectl::new()?)?,
        // What `up` starts in the new namespaces.
        ["room"] => room::room()?,
        ["node", number] => node::node(number.parse()?)?,
        _ => {
            eprint!("{HELP}");
            return Ok(ExitCode::from(2));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Starts the cluster, unless it is up; how long it took, once all was built. Where it does not come up nothing is left of it
/// either.
pub fn up() -> anyhow::Result<Duration> {
    ensure!(rustix::process::geteuid().is_root(), "cluster up needs root: it creates namespaces, bridges and cgroups");
    if is_up() {
        return Ok(Duration::ZERO);
    }
    programs::provide()?;
    let programs = programs::build()?;
    let leftovers = left();
    ensure!(leftovers.is_empty(), "an earlier cluster left {}; `cargo xtask cluster down` first", leftovers.join(", "));
    let images = image::stock()?;
    let began = Instant::now();
    let result = start(&programs, &images);
    if let Err(error) = result {
        let logs = last_lines();
        down().context(format!("after: {error:#}"))?;
        return Err(error.context(logs));
    }
    Ok(began.elapsed())
}

fn start(programs: &Path, images: &[image::Image]) -> anyhow::Result<()> {
    let state = Path::new(STATE);
    for folder in ["log", "pki", "images"] {
        fs::create_dir_all(state.join(folder)).with_context(|| format!("{STATE}/{folder}"))?;
    }
    // The key to everything is in it.
    fs::set_permissions(state, fs::Permissions::from_mode(0o700))?;
    std::os::unix::fs::symlink(programs, state.join("bin")).context("the programs")?;
    fs::write(state.join("sysctls"), sysctls()).context("sysctls")?;
    for image in images {
        image.write(&state.join("images"))?;
    }
    let log = fs::File::create(state.join("log/room.log"))?;
    let mut room = Command::new("setsid");
    room.args([
        "unshare",
        "--fork",
        "--pid",
        "--mount",
        "--net",
        "--kill-child=KILL",
        "--propagation",
        "private",
        "--",
    ]);
    room.arg(std::env::current_exe()?).args(["cluster", "room"]).current_dir("/");
    room.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    // setsid replaces itself: the process is unshare, and its end is that of all.
    let mut room = room.spawn().context("setsid unshare")?;
    fs::write(state.join("pid"), lifetime(room.id())?)?;
    let began = Instant::now();
    let mut reached = false;
    loop {
        std::thread::sleep(POLL);
        if let Some(status) = room.try_wait()? {
            bail!("the cluster ended before it was ready: {status}");
        }
        ensure!(!state.join("ended").exists(), "a part of the cluster ended before it was ready");
        if !reached && let Ok(pid) = fs::read_to_string(state.join("room")) {
            let pid = pid.trim();
            fs::write(state.join("inner"), lifetime(pid.parse()?)?)?;
            net::reach(pid)?;
            reached = true;
        }
        if reached && state.join("ready").exists() {
            return Ok(());
        }
        ensure!(began.elapsed() < UP_TAKES, "not ready after {} s", UP_TAKES.as_secs());
    }
}

/// A pid with the start of its process: a later process of the same number is another one.
fn lifetime(pid: u32) -> anyhow::Result<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, after) = stat.rsplit_once(')').context("/proc/PID/stat")?;
    // One that only waits to be collected, perhaps by us, has ended.
    ensure!(!after.trim_start().starts_with(['Z', 'X']), "{pid} has ended");
    Ok(format!("{pid} {}", after.split_whitespace().nth(19).context("/proc/PID/stat: the start time")?))
}

/// The pid kept in a file of ours, while its process lives.
fn living(file: &str) -> Option<u32> {
    let kept = fs::read_to_string(Path::new(STATE).join(file)).ok()?;
    let pid = kept.split(' ').next()?.parse().ok()?;
    lifetime(pid).is_ok_and(|now| now == kept).then_some(pid)
}

fn is_up() -> bool {
    living("pid").is_some() && Path::new(STATE).join("ready").exists()
}

fn status() -> anyhow::Result<ExitCode> {
    if !is_up() {
        let leftovers = left();
        println!(
            "down{}",
            if leftovers.is_empty() { String::new() } else { format!("; left: {}", leftovers.join(", ")) }
        );
        return Ok(ExitCode::FAILURE);
    }
    if let Ok(ended) = fs::read_to_string(Path::new(STATE).join("ended")) {
        println!("ended by themselves:\n{ended}");
    }
    let kubectl = Kubectl::new()?;
    print!("{}", kubectl.run(&["get", "nodes", "-o", "wide"])?);
    print!("{}", kubectl.run(&["get", "pods", "--all-namespaces", "-o", "wide"])?);
    println!("{}", kubectl.how());
    Ok(ExitCode::SUCCESS)
}

/// Ends the cluster, whatever is left of it, and fails where something stays.
pub fn down() -> anyhow::Result<()> {
    ensure!(rustix::process::geteuid().is_root(), "cluster down needs root");
    let began = Instant::now();
    for file in ["pid", "inner"] {
        if let Some(pid) = living(file).and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed())) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
    // The first process of the pid namespace is gone only once all others in it are.
    while living("pid").is_some() || living("inner").is_some() {
        ensure!(began.elapsed() < DOWN_TAKES, "the cluster's processes do not end: see {STATE}/pid");
        std::thread::sleep(POLL);
    }
    restore();
    loop {
        net::unreach();
        remove_cgroups();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        // Never through a mount into what is not ours.
        if !mounts.contains(STATE) && Path::new(STATE).exists() {
            fs::remove_dir_all(STATE).with_context(|| format!("{STATE} could not be removed"))?;
        }
        let leftovers = left();
        if leftovers.is_empty() {
            return Ok(());
        }
        ensure!(began.elapsed() < DOWN_TAKES, "left: {}", leftovers.join(", "));
        std::thread::sleep(POLL);
    }
}

/// Everything of a cluster that is on this machine outside of its namespaces.
pub fn left() -> Vec<String> {
    let mut found = Vec::new();
    if Path::new(STATE).exists() {
        found.push(STATE.to_owned());
    }
    found.extend(cgroups().iter().map(|path| path.display().to_string()));
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    found.extend(mounts.lines().filter(|line| line.contains(STATE)).map(|line| format!("mount {line}")));
    found.extend(net::left());
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let own = std::process::id().to_string();
    for process in processes.filter(|process| process.file_name() != own.as_str()) {
        // They have its folder in their arguments; so have people's own kubectls.
        let arguments = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let arguments = String::from_utf8_lossy(&arguments).replace('\0', " ");
        let program = arguments.split(' ').next().unwrap_or_default();
        if arguments.contains(STATE) && !program.ends_with("kubectl") {
            found.push(format!("process {}: {arguments}", process.file_name().to_string_lossy()));
        }
    }
    found
}

/// Our cgroups' roots: one in version 2, one a controller in version 1.
fn cgroups() -> Vec<PathBuf> {
    let top = Path::new("/sys/fs/cgroup");
    let controllers = fs::read_dir(top).into_iter().flatten().flatten().map(|entry| entry.path());
    std::iter::once(top.to_owned())
        .chain(controllers)
        .map(|path| path.join(CGROUP))
        .filter(|path| path.is_dir())
        .collect()
}

fn remove_cgroups() {
    fn remove(path: &Path) {
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                remove(&entry.path());
            }
        }
        // What is busy is left for the next round.
        let _ = fs::remove_dir(path);
    }
    for path in &cgroups() {
        remove(path);
    }
}

fn sysctls() -> String {
    let value = |name: &&str| Some(format!("{name} {}", fs::read_to_string(format!("/proc/sys/{name}")).ok()?));
    SYSCTLS.iter().filter_map(value).collect()
}

fn restore() {
    let kept = fs::read_to_string(Path::new(STATE).join("sysctls")).unwrap_or_default();
    for (name, value) in kept.lines().filter_map(|line| line.split_once(' ')) {
        if SYSCTLS.contains(&name) && fs::write(format!("/proc/sys/{name}"), value).is_err() {
            eprintln!("xtask: /proc/sys/{name} could not be set back to {value}");
        }
    }
}

/// What each program said last.
fn last_lines() -> String {
    let mut text = String::from("the cluster did not come up");
    for log in fs::read_dir(Path::new(STATE).join("log")).into_iter().flatten().flatten() {
        let said = fs::read_to_string(log.path()).unwrap_or_default();
        let lines: Vec<&str> = said.lines().collect();
        let last = lines[lines.len().saturating_sub(6)..].join("\n  ");
        // Writing to a String can not fail.
        let _ = write!(text, "\n{}:\n  {last}", log.file_name().to_string_lossy());
    }
    text
}

/// Runs a command to its end; what it wrote to standard error is the error.
fn run(program: &str, args: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output().with_context(|| program.to_owned())?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {}: {}: {}", args.join(" "), output.status, said.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
