//! Performance claims, side by side with their peers in one run. Ratios carry between machines; the figures do not.

mod explain;
mod front;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::{bench_check, bench_simulate, packages, slim};

/// One measured figure against a peer's and against its goal.
pub struct Row {
    pub metric: String,
    pub ours: f64,
    pub peer: String,
    pub theirs: f64,
    /// What is asked, in words; `met` says whether it holds.
    pub goal: String,
    pub met: bool,
}

/// Runs one benchmark.
pub fn bench(args: &[String]) -> anyhow::Result<ExitCode> {
    let mut name = None;
    let mut file = None;
    let mut parser = lexopt::Parser::from_args(args);
    while let Some(arg) = parser.next()? {
        match arg {
            lexopt::Arg::Long("json") => file = Some(PathBuf::from(parser.value()?)),
            lexopt::Arg::Value(word) if name.is_none() => name = Some(word.to_string_lossy().into_owned()),
            other => return Err(other.unexpected().into()),
        }
    }
    let name = name.unwrap_or_default();
    let rows = match name.as_str() {
        "check" => bench_check::check(&bench_check::build()?)?,
        "init" => init(&with_peers()?)?,
        "early-term" => early_term(&with_peers()?)?,
        "front" => front::front(&with_peers()?)?,
        "explain" => {
            packages::provide();
            explain::explain()?
        }
        "simulate" => bench_simulate::simulate(&bench_check::build()?)?,
        _ => bail!("no benchmark is called {name:?}; there are init, early-term, front, check, explain and simulate"),
    };
    show(&rows);
    if let Some(file) = file {
        fs::write(&file, format!("{:#}\n", document(&name, &rows))).with_context(|| file.display().to_string())?;
    }
    Ok(if rows.iter().all(|row| row.met) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The slim build, with the inits it is compared with at hand.
fn with_peers() -> anyhow::Result<PathBuf> {
    packages::provide();
    slim::slim()
}

/// Schema `lameduck.bench/1`.
fn document(name: &str, rows: &[Row]) -> Value {
    let rows: Vec<Value> = rows
        .iter()
        .map(|row| {
            json!({
                "metric": row.metric, "ours": row.ours, "peer": row.peer, "theirs": row.theirs,
                "ratio": ratio(row), "goal": row.goal, "met": row.met,
            })
        })
        .collect();
    json!({ "schema": "lameduck.bench/1", "name": name, "rows": rows })
}

/// Ours to theirs; `None` where theirs is 0.
fn ratio(row: &Row) -> Option<f64> {
    (row.theirs != 0.0).then(|| (row.ours / row.theirs * 1000.0).round() / 1000.0)
}

fn show(rows: &[Row]) {
    println!("{:34} {:>12} {:>16} {:>12} {:>7}  goal", "metric", "ours", "peer", "theirs", "ratio");
    for row in rows {
        let ratio = ratio(row).map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
        let met = if row.met { "met" } else { "NOT MET" };
        println!(
            "{:34} {:>12.3} {:>16} {:>12.3} {ratio:>7}  {} ({met})",
            row.metric, row.ours, row.peer, row.theirs, row.goal
        );
    }
}

/// The inits compared with: those that are installed.
fn peers() -> Vec<(&'static str, PathBuf)> {
    ["tini", "dumb-init", "catatonit"].into_iter().filter_map(|name| Some((name, packages::find(name)?))).collect()
}

fn quiet(command: &mut Command) -> &mut Command {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null())
}

/// Size, memory, wake-ups, and what it adds to a start.
fn init(lameduck: &Path) -> anyhow::Result<Vec<Row>> {
    let peers = peers();
    ensure!(!peers.is_empty(), "no peer is installed: tini, dumb-init or catatonit");
    let mut rows = Vec::new();
    let ours = measure_idle(&run_words(lameduck, &["sleep", "60"]))?;
    let bytes = size(lameduck)?;
    let mut idle = Vec::new();
    for (name, path) in &peers {
        idle.push((*name, size(path)?, measure_idle(&words(path, &["--", "sleep", "60"]))?));
    }
    for (name, their_bytes, theirs) in idle {
        let mut row = |metric: &str, ours: f64, theirs: f64, goal: &str, met: bool| {
            rows.push(Row { metric: metric.into(), ours, peer: name.into(), theirs, goal: goal.into(), met });
        };
        row("binary, KiB", bytes / 1024.0, their_bytes / 1024.0, "at most 2048", bytes <= 2_097_152.0);
        row("RSS while idle, KiB", ours.rss_kib, theirs.rss_kib, "at most 2048", ours.rss_kib <= 2048.0);
        row("wake-ups in 10 s of idling", ours.wakeups, theirs.wakeups, "0", ours.wakeups == 0.0);
    }
    rows.extend(spawn_overhead(lameduck, &peers)?);
    Ok(rows)
}

fn size(path: &Path) -> anyhow::Result<f64> {
    Ok(fs::metadata(path).with_context(|| path.display().to_string())?.len() as f64)
}

fn words(program: &Path, rest: &[&str]) -> Vec<String> {
    std::iter::once(program.display().to_string()).chain(rest.iter().map(|word| (*word).to_owned())).collect()
}

fn run_words(lameduck: &Path, rest: &[&str]) -> Vec<String> {
    words(lameduck, &[&["run", "--"], rest].concat())
}

struct Idle {
    rss_kib: f64,
    wakeups: f64,
}

/// Memory and wake-ups of a supervisor whose child sleeps.
fn measure_idle(words: &[String]) -> anyhow::Result<Idle> {
    let mut child = quiet(Command::new(&words[0]).args(&words[1..])).spawn().with_context(|| words[0].clone())?;
    std::thread::sleep(Duration::from_millis(500));
    let field = |name: &str| -> anyhow::Result<f64> {
        let text = fs::read_to_string(format!("/proc/{}/status", child.id()))?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)).context("no such field")?;
        Ok(line.trim_start_matches(':').trim().trim_end_matches(" kB").parse()?)
    };
    let switches = || Ok::<_, anyhow::Error>(field("voluntary_ctxt_switches")? + field("nonvoluntary_ctxt_switches")?);
    let before = switches()?;
    std::thread::sleep(Duration::from_secs(10));
    let idle = Idle { rss_kib: field("VmRSS")?, wakeups: switches()? - before };
    end(&mut child);
    Ok(idle)
}

fn end(child: &mut Child) {
    let _ = kill_process(Pid::from_child(child), Signal::TERM);
    let until = Instant::now() + Duration::from_secs(2);
    while Instant::now() < until {
        if matches!(child.try_wait(), Ok(Some(_))) {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// Start of `/bin/true` to its reaping, with each init in front and with none, interleaved; medians.
fn spawn_overhead(lameduck: &Path, peers: &[(&'static str, PathBuf)]) -> anyhow::Result<Vec<Row>> {
    const ROUNDS: usize = 500;
    let mut candidates =
        vec![("none", vec!["/bin/true".to_owned()]), ("lameduck", run_words(lameduck, &["/bin/true"]))];
    candidates.extend(peers.iter().map(|(name, path)| (*name, words(path, &["--", "/bin/true"]))));
    let mut times: Vec<Vec<f64>> = vec![Vec::with_capacity(ROUNDS); candidates.len()];
    for _ in 0..ROUNDS {
        for ((_, words), times) in candidates.iter().zip(&mut times) {
            let began = Instant::now();
            quiet(Command::new(&words[0]).args(&words[1..])).status()?;
            times.push(began.elapsed().as_secs_f64() * 1e3);
        }
    }
    let medians: Vec<f64> = times.iter_mut().map(|times| median(times)).collect();
    let bare = medians[0];
    let ours = medians[1] - bare;
    let tini = candidates.iter().position(|(name, _)| *name == "tini").map(|at| medians[at] - bare);
    Ok(candidates
        .iter()
        .zip(&medians)
        .skip(2)
        .map(|((name, _), median)| Row {
            metric: "added to spawn + exit, ms".into(),
            ours,
            peer: (*name).into(),
            theirs: median - bare,
            goal: "at most tini's + 0.5".into(),
            met: tini.is_none_or(|tini| ours <= tini + 0.5),
        })
        .collect())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// TERM 0 to 4 ms after exec, lost, as PID 1 of a new namespace and not; interleaved.
fn early_term(lameduck: &Path) -> anyhow::Result<Vec<Row>> {
    const ROUNDS: u32 = 10_000;
    /// What loses many is measured on fewer: each loss costs its waiting.
    const PEER_ROUNDS: u32 = 500;
    ensure!(rustix::process::geteuid().is_root(), "early-term makes pid namespaces: it needs root");
    let folder = std::env::temp_dir().join(format!("lameduck-early-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let as_tini = folder.join("tini");
    symlink(lameduck, &as_tini)?;
    let ours = words(&as_tini, &["--", "sleep", "20"]);
    let drains = run_words(lameduck, &["sleep", "20"]);
    let peers: Vec<(&str, Vec<String>)> =
        peers().into_iter().map(|(name, path)| (name, words(&path, &["--", "sleep", "20"]))).collect();

    let (mut lost, mut lost_plain) = (0u32, 0u32);
    let mut theirs = vec![0u32; peers.len()];
    for n in 0..ROUNDS {
        let delay = Duration::from_micros(u64::from(n) * 7919 % 4000);
        lost += u32::from(!takes_term(&ours, delay, true));
        lost_plain += u32::from(!takes_term(&drains, delay, false));
        if n % (ROUNDS / PEER_ROUNDS) == 0 {
            for ((_, words), lost) in peers.iter().zip(&mut theirs) {
                *lost += u32::from(!takes_term(words, delay, true));
            }
        }
    }
    fs::remove_dir_all(&folder)?;
    let per_10_000 = |lost: u32, rounds: u32| f64::from(lost) * 10_000.0 / f64::from(rounds);
    let mut rows = vec![Row {
        metric: "TERM lost, not PID 1, of 10,000".into(),
        ours: f64::from(lost_plain),
        peer: "none".into(),
        theirs: 0.0,
        goal: "0".into(),
        met: lost_plain == 0,
    }];
    rows.extend(peers.iter().zip(theirs).map(|((name, _), theirs)| Row {
        metric: "TERM lost as PID 1, per 10,000".into(),
        ours: f64::from(lost),
        peer: (*name).into(),
        theirs: per_10_000(theirs, PEER_ROUNDS),
        goal: "at most 5, and fewer than the peer".into(),
        met: lost <= 5 && f64::from(lost) < per_10_000(theirs, PEER_ROUNDS),
    }));
    Ok(rows)
}

/// Starts a command, sends TERM `delay` later, and tells whether it ended by it.
fn takes_term(words: &[String], delay: Duration, as_pid_1: bool) -> bool {
    let words = words.to_vec();
    let thread = std::thread::spawn(move || {
        if as_pid_1 {
            unshare_pids()?;
        }
        let mut child = quiet(Command::new(&words[0]).args(&words[1..])).spawn()?;
        wait_for_exec(&child)?;
        std::thread::sleep(delay);
        kill_process(Pid::from_child(&child), Signal::TERM)?;
        let until = Instant::now() + Duration::from_millis(600);
        while Instant::now() < until {
            if child.try_wait()?.is_some() {
                return Ok(true);
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        child.kill()?;
        child.wait()?;
        Ok::<bool, anyhow::Error>(false)
    });
    matches!(thread.join(), Ok(Ok(true)))
}

/// Waits until execve is over in the child. The spawning call returns in the middle of it, when the old memory is given up;
/// the last thing before the new program's first instruction is to set what `/proc/PID/cmdline` shows.
fn wait_for_exec(child: &Child) -> anyhow::Result<()> {
    let path = format!("/proc/{}/cmdline", child.id());
    while fs::read(&path).with_context(|| path.clone())?.is_empty() {}
    Ok(())
}

/// unshare(2) with `CLONE_NEWPID`: of the calling thread's children only.
#[expect(unsafe_code, reason = "rustix marks unshare unsafe because of CLONE_FILES, which is not used")]
fn unshare_pids() -> anyhow::Result<()> {
    // SAFETY: CLONE_NEWPID changes nothing in this process but where this thread's next children are born.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWPID) }.context("unshare: root is needed")
}

#[cfg(test)]
mod tests {
    use super::{Row, document};

    #[test]
    fn the_document_is_the_contract() {
        let row = |theirs: f64| Row {
            metric: "m".into(),
            ours: 1.0,
            peer: "tini".into(),
            theirs,
            goal: "at most 2".into(),
            met: true,
        };
        let value = document("init", &[row(4.0), row(0.0)]);
        assert_eq!(value["schema"], "lameduck.bench/1");
        assert_eq!(value["name"], "init");
        assert_eq!(value["rows"][0]["ratio"], 0.25);
        assert!(value["rows"][1]["ratio"].is_null());
        for field in ["metric", "ours", "peer", "theirs", "ratio", "goal", "met"] {
            assert!(value["rows"][0].get(field).is_some(), "{field}");
        }
    }
}
