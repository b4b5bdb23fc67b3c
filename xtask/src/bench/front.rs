//! What the front costs: processor time per request beside nginx, HAProxy and a bare TCP forwarder, interleaved, on the same
//! core; the load and the backend have the other one.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use super::{Row, end, median, quiet};
use crate::packages;
use crate::test::root;

/// Rounds; each measures every peer once with every load.
const ROUNDS: usize = 9;
/// How long one measurement takes, in s.
const SECONDS: &str = "0.8";
/// Connections of the loads that measure processor time.
const CONNECTIONS: &str = "32";
/// Idle connections whose memory is measured.
const IDLE: usize = 3000;
/// The core of whoever is measured, and that of the others.
const MEASURED: &str = "0";
const OTHERS: &str = "1";
const LOADS: [&str; 3] = ["get_small", "get_64k", "post_16k"];

/// A process in the path, and where it listens.
struct Peer {
    name: &'static str,
    address: String,
    child: Child,
}

impl Drop for Peer {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

fn free_address() -> anyhow::Result<String> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

fn pinned(core: &str, program: &Path, args: &[&str]) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", core]).arg(program).args(args);
    command
}

fn start(name: &'static str, address: String, mut command: Command) -> anyhow::Result<Peer> {
    let child = quiet(&mut command).spawn().with_context(|| name.to_owned())?;
    let peer = Peer { name, address, child };
    let until = Instant::now() + Duration::from_secs(10);
    while std::net::TcpStream::connect(&peer.address).is_err() {
        ensure!(Instant::now() < until, "{name} does not listen at {}", peer.address);
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(peer)
}

fn haproxy(folder: &Path, program: &Path, target: &str) -> anyhow::Result<Peer> {
    let address = free_address()?;
    let file = folder.join("haproxy.cfg");
    fs::write(
        &file,
        format!(
            "global\n  nbthread 1\n  maxconn 8000\ndefaults\n  mode http\n  timeout client 60s\n  timeout server 60s\n  \
             timeout connect 5s\n  http-reuse always\nfrontend f\n  bind {address}\n  default_backend b\nbackend b\n  \
             server s {target}\n"
        ),
    )?;
    let file = file.display().to_string();
    start("haproxy", address, pinned(MEASURED, program, &["-db", "-f", &file]))
}

fn nginx(folder: &Path, program: &Path, target: &str) -> anyhow::Result<Peer> {
    let address = free_address()?;
    let file = folder.join("nginx.conf");
    let at = folder.display();
    fs::write(
        &file,
        format!(
            "worker_processes 1; daemon off; pid {at}/pid; error_log stderr crit;\nevents {{ worker_connections 16000; }}\n\
             http {{ access_log off; keepalive_requests 1000000000; client_body_temp_path {at}/b; proxy_temp_path {at}/p;\n\
             fastcgi_temp_path {at}/f; uwsgi_temp_path {at}/u; scgi_temp_path {at}/s;\n\
             upstream u {{ server {target}; keepalive 64; keepalive_requests 1000000000; }}\n\
             server {{ listen {address}; location / {{ proxy_pass http://u; proxy_http_version 1.1; \
             proxy_set_header Connection \"\"; }} }} }}\n"
        ),
    )?;
    let file = file.display().to_string();
    start("nginx", address, pinned(MEASURED, program, &["-c", &file]))
}

/// The process and all below it.
fn tree(pid: u32) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let below = children.split_whitespace().filter_map(|word| word.parse().ok()).flat_map(tree);
    std::iter::once(pid).chain(below).collect()
}

/// Processor time used so far, in microseconds (`/proc/PID/schedstat`, first field, in ns).
fn processor_us(pid: u32) -> f64 {
    let of = |pid: u32| -> Option<f64> {
        fs::read_to_string(format!("/proc/{pid}/schedstat")).ok()?.split_whitespace().next()?.parse().ok()
    };
    tree(pid).into_iter().filter_map(of).sum::<f64>() / 1e3
}

/// A field of `/proc/PID/FILE` in KiB, over the whole tree.
fn kib(pid: u32, file: &str, field: &str) -> f64 {
    let of = |pid: u32| -> Option<f64> {
        let text = fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
        text.lines().find_map(|line| line.strip_prefix(field))?.split_whitespace().find_map(|word| word.parse().ok())
    };
    tree(pid).into_iter().filter_map(of).sum()
}

struct Loaded {
    requests: f64,
    p50_us: f64,
}

fn load(
    ends: &Path,
    core: &str,
    address: &str,
    kind: &str,
    connections: &str,
    seconds: &str,
) -> anyhow::Result<Loaded> {
    let out = pinned(core, ends, &["load", address, kind, connections, seconds]).output()?;
    ensure!(out.status.success(), "load {kind} at {address}: {}", String::from_utf8_lossy(&out.stderr));
    let value: Value = serde_json::from_slice(&out.stdout)?;
    let field = |name: &str| value[name].as_f64().with_context(|| name.to_owned());
    Ok(Loaded { requests: field("requests")?, p50_us: field("p50_us")? })
}

/// Memory per idle connection, in KiB, and what is resident before there is any.
fn memory(ends: &Path, peer: &Peer) -> anyhow::Result<f64> {
    let anonymous = || kib(peer.child.id(), "smaps_rollup", "Anonymous:");
    let before = anonymous();
    let mut idle = Command::new(ends)
        .args(["idle", &peer.address, &IDLE.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(idle.stdout.take().context("stdout")?.take(16)).read_line(&mut line)?;
    // What was only needed for the requests is given back by then.
    std::thread::sleep(Duration::from_secs(2));
    let each = (anonymous() - before) / IDLE as f64;
    end(&mut idle);
    ensure!(line.trim() == "open", "{}: {IDLE} idle connections could not be opened", peer.name);
    Ok(each)
}

/// The benchmark.
pub fn front(lameduck: &Path) -> anyhow::Result<Vec<Row>> {
    for program in ["taskset", "haproxy", "nginx"] {
        if packages::find(program).is_none() {
            bail!("bench front needs {program}");
        }
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--release", "-q", "-p", "lameduck-front", "--example", "bench_peer"])
        .current_dir(root())
        .status()?;
    ensure!(built.success(), "the other ends could not be built");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    let ends = target.join("release/examples/bench_peer");
    let folder = std::env::temp_dir().join(format!("lameduck-bench-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let rows = measure(lameduck, &ends, &folder);
    fs::remove_dir_all(&folder)?;
    rows
}

fn measure(lameduck: &Path, ends: &Path, folder: &Path) -> anyhow::Result<Vec<Row>> {
    let program = |name: &str| packages::find(name).with_context(|| name.to_owned());
    let backend_address = free_address()?;
    let backend = start("backend", backend_address.clone(), pinned(OTHERS, ends, &["backend", &backend_address]))?;
    let target = backend.address.as_str();
    let (at, forwarder_at) = (free_address()?, free_address()?);
    let ours = start(
        "lameduck",
        at.clone(),
        pinned(MEASURED, lameduck, &["front", "--grace", "2s", "--listen", &at, "--upstream", target]),
    )?;
    let resident = front_of(ours.child.id()).map_or(0.0, |pid| kib(pid, "status", "VmRSS:"));
    let peers = [
        ours,
        start("forwarder", forwarder_at.clone(), pinned(MEASURED, ends, &["forward", &forwarder_at, target]))?,
        haproxy(folder, &program("haproxy")?, target)?,
        nginx(folder, &program("nginx")?, target)?,
    ];
    let resident_of = |peer: &Peer| kib(peer.child.id(), "status", "VmRSS:");
    let idle_rss: Vec<f64> =
        peers.iter().map(|peer| if peer.name == "lameduck" { resident } else { resident_of(peer) }).collect();

    // (what, peer) -> one figure a round.
    let mut seen: BTreeMap<(&str, &str), Vec<f64>> = BTreeMap::new();
    for round in 0..ROUNDS {
        for kind in LOADS {
            for peer in &peers {
                let before = processor_us(peer.child.id());
                let loaded = load(ends, OTHERS, &peer.address, kind, CONNECTIONS, SECONDS)?;
                let used = processor_us(peer.child.id()) - before;
                seen.entry((kind, peer.name)).or_default().push(used / loaded.requests);
            }
        }
        let direct = load(ends, MEASURED, target, "get_small", "1", "0.4")?.p50_us;
        for peer in &peers {
            let through = load(ends, MEASURED, &peer.address, "get_small", "1", "0.4")?.p50_us;
            seen.entry(("p50", peer.name)).or_default().push(through - direct);
        }
        eprintln!("round {} of {ROUNDS}", round + 1);
    }
    let idle_memory = peers.iter().map(|peer| memory(ends, peer)).collect::<anyhow::Result<Vec<f64>>>()?;

    let mut rows = Vec::new();
    for (metric, kind, bar) in [
        ("cpu_get_small", "get_small", ("forwarder", 1.20)),
        ("cpu_get_64k", "get_64k", ("haproxy", 0.80)),
        ("cpu_post_16k", "post_16k", ("haproxy", 0.55)),
        ("p50_added_c1", "p50", ("nginx", 1.0)),
    ] {
        for peer in &peers[1..] {
            rows.push(compared(metric, &seen[&(kind, "lameduck")], peer.name, &seen[&(kind, peer.name)], bar));
        }
    }
    for (at, peer) in peers.iter().enumerate().skip(1) {
        let mut row = |metric: &str, ours: f64, theirs: f64, most: f64| {
            rows.push(Row {
                metric: metric.into(),
                ours,
                peer: peer.name.into(),
                theirs,
                goal: format!("at most {most} KiB"),
                met: ours <= most,
            });
        };
        row("mem_per_idle_conn", idle_memory[0], idle_memory[at], 1.0);
        row("rss_idle", idle_rss[0], idle_rss[at], 4096.0);
    }
    Ok(rows)
}

/// The front's own process below PID 1.
fn front_of(pid: u32) -> Option<u32> {
    let is_front = |pid: &u32| {
        fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| line.split(|byte| *byte == 0).nth(1) == Some(b"serve-front"))
    };
    tree(pid).into_iter().find(is_front)
}

/// Medians of each, and the median of the rounds' ratios: what disturbed a round disturbed both.
fn compared(metric: &str, ours: &[f64], peer: &str, theirs: &[f64], (against, most): (&str, f64)) -> Row {
    let mut ratios: Vec<f64> = ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect();
    let ratio = median(&mut ratios);
    let theirs = median(&mut theirs.to_vec());
    let is_goal = peer == against;
    Row {
        metric: metric.into(),
        ours: ratio * theirs,
        peer: peer.into(),
        theirs,
        goal: if is_goal { format!("ratio at most {most}") } else { "reported".into() },
        met: !is_goal || ratio <= most,
    }
}
