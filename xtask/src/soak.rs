//! `cargo xtask soak`: the front between an app and clients that fail in every way there is, and nothing may be left of it.
//!
//! The load comes in parts. After each of them everybody has gone, so descriptors and the gauges have to be where they
//! began; what memory there is then is compared between parts, where the load itself has no share in it. The access log
//! goes through here: every request has one line in it, and the page of counters has to say the same.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::built;

const SCHEMA: &str = "lameduck.soak/1";
/// The first of them shows what the front needs, the later ones whether that is enough.
const PARTS: u64 = 4;
const SAMPLE_EVERY: Duration = Duration::from_secs(2);
/// Longer than anything that the front's options below let it wait for.
const SETTLES_WITHIN: Duration = Duration::from_secs(15);
/// What an allocator may keep more of after the last part than after the first, in KiB: pages that hold one small thing that
/// lives on. What leaks a few bytes a request passes this within the ten minutes.
const SLACK_KIB: u64 = 1024;
/// Below these the part of the time that is waited for would never come.
const OPTIONS: &[&str] = &[
    "--upstream-timeout=1s",
    "--hold=1s",
    "--idle-timeout=3s",
    "--head-timeout=2s",
    "--body-timeout=2s",
    "--linger=1s",
    "--first-byte-grace=1s",
    "--forwarded=x-forwarded",
    "--request-id",
    "--access-log=-",
    "--grace=20s",
];
/// The outcomes of requests: in the access log, and on the page.
const OUTCOMES: [&str; 8] =
    ["answered", "refused", "shed", "bad-gateway", "gateway-timeout", "cut-by-app", "client-gone", "cut-at-deadline"];

/// What is run, and for how long.
struct Plan {
    lameduck: PathBuf,
    faults: PathBuf,
    part_s: f64,
    rate: f64,
    seed: u64,
}

/// Runs it as the command line says.
pub fn soak(args: &[String]) -> anyhow::Result<ExitCode> {
    let (mut minutes, mut rate, mut seed, mut file) = (10.0, 60.0, 1, None);
    let mut parser = lexopt::Parser::from_args(args);
    while let Some(arg) = parser.next()? {
        let lexopt::Arg::Long(name) = arg else { return Err(arg.unexpected().into()) };
        let name = name.to_owned();
        let value = parser.value()?.to_string_lossy().into_owned();
        let number = || value.parse::<f64>().with_context(|| format!("--{name} {value}: not a number"));
        match name.as_str() {
            "minutes" => minutes = number()?,
            "rate" => rate = number()?,
            "seed" => seed = number()? as u64,
            "json" => file = Some(PathBuf::from(value)),
            _ => bail!("no option --{name}"),
        }
    }
    let plan = Plan {
        lameduck: built::release(&["--package", "lameduck"], "lameduck")?,
        faults: faults()?,
        part_s: minutes * 60.0 / PARTS as f64,
        rate,
        seed,
    };
    let document = run(&plan)?;
    println!("\n{}", table(&document));
    if let Some(file) = file {
        fs::write(&file, format!("{document:#}\n")).with_context(|| file.display().to_string())?;
    }
    Ok(if document["met"] == true { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn faults() -> anyhow::Result<PathBuf> {
    built::release(&["--package", "lameduck-front", "--example", "faults"], "faults")
}

/// The short form, with the program that is tested: what is left over, if anything is.
pub fn short(lameduck: &Path) -> anyhow::Result<()> {
    let plan = Plan { lameduck: lameduck.to_owned(), faults: faults()?, part_s: 5.0, rate: 60.0, seed: 1 };
    let document = run(&plan)?;
    ensure!(document["met"] == true, "{}", table(&document));
    Ok(())
}

fn run(plan: &Plan) -> anyhow::Result<Value> {
    let [front, app, admin] = free_addresses()?;
    let mut command = Command::new(&plan.lameduck);
    command.args(["front", &format!("--listen={front}"), &format!("--upstream={app}"), &format!("--admin={admin}")]);
    command.args(OPTIONS).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = Running { child: command.spawn().context("lameduck front")? };
    let books = running.child.stdout.take().map(|log| thread::spawn(move || Books::read(BufReader::new(log))));
    let said =
        running.child.stderr.take().map(|said| {
            thread::spawn(move || BufReader::new(said).lines().map_while(Result::ok).collect::<Vec<String>>())
        });
    let watch = Watch { lameduck: running.child.id(), admin };
    let start = watch.first()?;
    let began = Instant::now();
    let (mut samples, mut calms, mut peers) = (Vec::new(), Vec::new(), Vec::new());
    for part in 0..PARTS {
        let mut load = Command::new(&plan.faults)
            .args([front.to_string(), app.to_string(), plan.part_s.to_string(), plan.rate.to_string()])
            .arg((plan.seed * PARTS + part).to_string())
            .stdout(Stdio::piped())
            .spawn()
            .map(|child| Running { child })
            .context("faults")?;
        while load.child.try_wait()?.is_none() {
            thread::sleep(SAMPLE_EVERY.min(Duration::from_secs_f64(plan.part_s / 4.0)));
            samples.push(watch.sample(began)?);
        }
        let mut seen = String::new();
        load.child.stdout.take().context("no output")?.read_to_string(&mut seen)?;
        peers.push(serde_json::from_str::<Value>(&seen).context("what the other ends saw")?);
        calms.push(watch.settled(began, &start)?);
    }
    let figures = watch.figures()?;
    kill_process(Pid::from_child(&running.child), Signal::TERM)?;
    let status = running.child.wait()?;
    let books = books.context("no access log")?;
    let said = said.context("no standard error")?;
    let (books, said) = (joined(books)?, joined(said)?);
    let mut checks = Checks::default();
    checks.of_calms(&start, &calms);
    checks.of_books(&figures, &books);
    let wrong: Vec<&Value> = peers.iter().filter_map(|seen| seen["wrong"].as_array()).flatten().collect();
    checks.add("every whole answer is the right one", wrong.is_empty(), format!("{wrong:?}"));
    let panics: Vec<&String> = said.iter().filter(|line| line.contains("panicked")).collect();
    checks.add("no panic", panics.is_empty() && figure(&figures, "restarts_total") == 0, format!("{panics:?}"));
    checks.add("a stop ends it", status.success(), status.to_string());
    Ok(json!({
        "schema": SCHEMA,
        "part_s": plan.part_s, "parts": PARTS, "rate": plan.rate, "seed": plan.seed,
        "start": start, "calms": calms, "samples": samples, "figures": figures,
        "logged": books.outcomes, "seen": sum(&peers),
        "checks": checks.0, "met": checks.0.iter().all(|check| check["met"] == true),
    }))
}

fn joined<T>(thread: JoinHandle<T>) -> anyhow::Result<T> {
    thread.join().map_err(|_| anyhow::anyhow!("a reader panicked"))
}

/// A process that ends when nobody wants it any more.
struct Running {
    child: Child,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Three addresses of this host that nobody has, below the ports that the kernel uses for outgoing connections: a client that
/// connects to an app which is away must not meet itself.
fn free_addresses() -> anyhow::Result<[SocketAddr; 3]> {
    let first = 20_000 + (std::process::id() % 8_000) as u16;
    let found: Vec<TcpListener> =
        (first..first + 100).filter_map(|port| TcpListener::bind(("127.0.0.1", port)).ok()).take(3).collect();
    let addresses: Vec<SocketAddr> = found.iter().filter_map(|found| found.local_addr().ok()).collect();
    addresses.try_into().ok().context("no ports are free")
}

type Figures = BTreeMap<String, u64>;

fn figure(figures: &Figures, name: &str) -> u64 {
    figures.get(name).copied().unwrap_or_default()
}

/// Who looks at the front from outside.
struct Watch {
    lameduck: u32,
    admin: SocketAddr,
}

impl Watch {
    /// The front's process: the child that serves. It has another one's number after a crash.
    fn front(&self) -> anyhow::Result<u32> {
        let children = format!("/proc/{0}/task/{0}/children", self.lameduck);
        let children = fs::read_to_string(&children).context(children)?;
        let serves = |pid: &&str| {
            fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| line.windows(11).any(|word| word == b"serve-front"))
        };
        let pid = children.split_whitespace().find(serves).context("there is no front")?;
        Ok(pid.parse()?)
    }

    /// The metrics of the front, by their names with labels, without their prefix.
    fn figures(&self) -> anyhow::Result<Figures> {
        let mut stream = TcpStream::connect(self.admin)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let line = |line: &str| {
            let (name, value) = line.strip_prefix("lameduck_front_")?.split_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        Ok(text.lines().filter_map(line).collect())
    }

    fn sample(&self, began: Instant) -> anyhow::Result<Value> {
        let front = self.front()?;
        let status = fs::read_to_string(format!("/proc/{front}/status"))?;
        let anonymous = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).context("no RssAnon")?;
        let anonymous: u64 = anonymous.trim().trim_end_matches(" kB").parse()?;
        let figures = self.figures()?;
        Ok(json!({
            "at_s": (began.elapsed().as_secs_f64() * 10.0).round() / 10.0,
            "descriptors": fs::read_dir(format!("/proc/{front}/fd"))?.count(),
            "anonymous_kib": anonymous,
            "connections": figure(&figures, "connections"),
            "in_flight": figure(&figures, "in_flight"),
            "held": figure(&figures, "held"),
        }))
    }

    /// How it is before anybody has come.
    fn first(&self) -> anyhow::Result<Value> {
        let began = Instant::now();
        loop {
            match self.sample(began) {
                Ok(sample) => return Ok(sample),
                Err(error) if began.elapsed() > SETTLES_WITHIN => return Err(error),
                Err(_) => thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    /// How it is once all is as it was at the start, or the time for that is over.
    fn settled(&self, began: Instant, start: &Value) -> anyhow::Result<Value> {
        let since = Instant::now();
        loop {
            let mut sample = self.sample(began)?;
            if LEVELS.iter().all(|level| sample[*level] == start[*level]) || since.elapsed() > SETTLES_WITHIN {
                sample["settled_s"] = json!((since.elapsed().as_secs_f64() * 10.0).round() / 10.0);
                return Ok(sample);
            }
            thread::sleep(Duration::from_millis(100));
        }
    }
}

/// What has to be at the start's level when everybody has gone.
const LEVELS: [&str; 4] = ["descriptors", "connections", "in_flight", "held"];

/// What the access log says.
#[derive(Default)]
struct Books {
    outcomes: BTreeMap<String, u64>,
    requests: u64,
    twice: u64,
}

impl Books {
    fn read(log: impl BufRead) -> Books {
        let (mut books, mut known) = (Books::default(), HashSet::new());
        for line in log.lines().map_while(Result::ok) {
            let Ok(line) = serde_json::from_str::<Value>(&line) else { continue };
            let (Some(target), Some(ended)) = (line["target"].as_str(), line["ended"].as_str()) else { continue };
            // A client asks for nothing twice.
            let mut hasher = DefaultHasher::new();
            target.hash(&mut hasher);
            books.twice += u64::from(!known.insert(hasher.finish()));
            if line["probe"] != true {
                books.requests += 1;
                *books.outcomes.entry(ended.to_owned()).or_default() += 1;
            }
        }
        books
    }
}

#[derive(Default)]
struct Checks(Vec<Value>);

impl Checks {
    fn add(&mut self, what: &str, met: bool, found: String) {
        self.0.push(json!({"what": what, "met": met, "found": Value::String(found)}));
    }

    fn of_calms(&mut self, start: &Value, calms: &[Value]) {
        for level in LEVELS {
            let after: Vec<&Value> = calms.iter().map(|calm| &calm[level]).collect();
            let met = after.iter().all(|after| **after == start[level]);
            self.add(&format!("{level} as at the start"), met, format!("{} -> {after:?}", start[level]));
        }
        let memory: Vec<u64> = calms.iter().filter_map(|calm| calm["anonymous_kib"].as_u64()).collect();
        let met = memory.first().zip(memory.last()).is_some_and(|(first, last)| *last <= most_kib(*first));
        self.add("memory at rest no more than after the first part", met, format!("{memory:?} KiB"));
    }

    fn of_books(&mut self, figures: &Figures, books: &Books) {
        let requests: u64 = figures.iter().filter(|(name, _)| name.starts_with("requests_total")).map(|(_, n)| n).sum();
        self.add("one line for each request", requests == books.requests, format!("{requests}, {}", books.requests));
        self.add("no request has two lines", books.twice == 0, books.twice.to_string());
        let mut differ = String::new();
        for outcome in OUTCOMES {
            let counted = figure(figures, &format!("outcomes_total{{outcome=\"{outcome}\"}}"));
            let logged = books.outcomes.get(outcome).copied().unwrap_or_default();
            // What is refused by its head is no request yet, and has no line.
            if !(counted == logged || outcome == "refused" && counted > logged) {
                let _ = write!(differ, "{outcome}: {counted} counted, {logged} logged; ");
            }
        }
        self.add("every request has one outcome", differ.is_empty(), differ);
        let met = ["answered", "bad-gateway", "gateway-timeout", "cut-by-app", "client-gone", "refused"];
        let never: Vec<&str> = met.into_iter().filter(|outcome| !books.outcomes.contains_key(*outcome)).collect();
        self.add("every fault was met", never.is_empty(), format!("never: {never:?}"));
        let lost = figure(figures, "log_lost_total");
        self.add("no line is missing", lost == 0, lost.to_string());
    }
}

const fn most_kib(first: u64) -> u64 {
    let tenth = first / 10;
    first + if tenth > SLACK_KIB { tenth } else { SLACK_KIB }
}

fn sum(peers: &[Value]) -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    for (what, n) in peers.iter().filter_map(|seen| seen["seen"].as_object()).flatten() {
        *all.entry(what.clone()).or_default() += n.as_u64().unwrap_or_default();
    }
    all
}

fn table(document: &Value) -> String {
    let mut out = String::from("after      descriptors  connections  in flight  held  anonymous KiB  settled in\n");
    let rests = std::iter::once(&document["start"]).chain(document["calms"].as_array().into_iter().flatten());
    for rest in rests {
        let text = |field: &str| rest[field].to_string();
        let _ = writeln!(
            out,
            "{:>7} s  {:>11}  {:>11}  {:>9}  {:>4}  {:>13}  {:>8} s",
            text("at_s"),
            text("descriptors"),
            text("connections"),
            text("in_flight"),
            text("held"),
            text("anonymous_kib"),
            text("settled_s").replace("null", "-"),
        );
    }
    let most = |field: &str| {
        document["samples"].as_array().into_iter().flatten().filter_map(|sample| sample[field].as_u64()).max()
    };
    let _ = writeln!(
        out,
        "at most, under load: {} descriptors, {} connections, {} in flight, {} held, {} KiB",
        most("descriptors").unwrap_or_default(),
        most("connections").unwrap_or_default(),
        most("in_flight").unwrap_or_default(),
        most("held").unwrap_or_default(),
        most("anonymous_kib").unwrap_or_default()
    );
    let _ = writeln!(out, "requests by their ends: {}", document["logged"]);
    for check in document["checks"].as_array().into_iter().flatten() {
        let (what, found) = (check["what"].as_str().unwrap_or_default(), check["found"].as_str().unwrap_or_default());
        let _ = writeln!(out, "{} {what}: {found}", if check["met"] == true { "ok    " } else { "NOT OK" });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn books() {
        let log = concat!(
            "lameduck: hello\n",
            "{\"target\":\"/a\",\"ended\":\"answered\",\"probe\":false}\n",
            "{\"target\":\"/b\",\"ended\":\"answered\",\"probe\":true}\n",
            "{\"target\":\"/a\",\"ended\":\"client-gone\",\"probe\":false}\n",
        );
        let books = Books::read(log.as_bytes());
        assert_eq!((books.requests, books.twice, books.outcomes["answered"]), (2, 1, 1));
    }

    #[test]
    fn what_is_left_over_is_found() {
        let rest = |descriptors: u64, kib: u64| json!({"descriptors": descriptors, "anonymous_kib": kib});
        let met = |calms: &[Value]| {
            let mut checks = Checks::default();
            checks.of_calms(&rest(9, 500), calms);
            checks.0.iter().all(|check| check["met"] == true)
        };
        assert!(met(&[rest(9, 3000), rest(9, 4000)]));
        assert!(!met(&[rest(9, 3000), rest(10, 3000)]));
        assert!(!met(&[rest(9, 3000), rest(9, 4100)]));
        assert!(met(&[rest(9, 30_000), rest(9, 33_000)]));
    }
}
