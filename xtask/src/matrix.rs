//! `cargo xtask matrix`: real servers, each rolled behind each balancer, and every request accounted for.
//!
//! One drill a run, by the release binary. What each showed is added to a file at once, and a run that is in the file is not
//! made again: a matrix of an hour can be made in pieces.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, bail, ensure};
use lameduck_drill::profile::ALL as PROFILES;
use lameduck_drill::servers::{ALL as SERVERS, Server};
use serde_json::{Value, json};

use crate::test::root;
use crate::{built, packages};

const SCHEMA: &str = "lameduck.matrix/1";
/// Servers drilled where none are named.
const DEFAULT_SERVERS: [&str; 6] = ["node", "puma", "gunicorn", "passenger", "go", "nginx"];
/// How long routing lags behind each stop.
const LAG_S: f64 = 5.0;
/// `lameduck run`'s default `--quiet`.
const QUIET_S: f64 = 2.0;
/// The longest request of the mix: a WebSocket's life.
const LONGEST_S: f64 = 2.0;
/// What a stop may take beyond lag, quiet and the longest request.
const MARGIN_S: f64 = 2.0;
/// The first argument of the front's process.
const FRONT: &str = "serve-front";

/// What stands before a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Nothing.
    Plain,
    /// `lameduck run`, looking on.
    Observe,
    /// `lameduck run --listen`, in the path.
    Front,
    /// The same, and its front is killed without a stop.
    FrontKilled,
}

const MODES: [Mode; 4] = [Mode::Plain, Mode::Observe, Mode::Front, Mode::FrontKilled];

impl Mode {
    const fn id(self) -> &'static str {
        match self {
            Mode::Plain => "plain",
            Mode::Observe => "observe",
            Mode::Front => "front",
            Mode::FrontKilled => "front-killed",
        }
    }

    /// The words before the server's command.
    fn before(self, lameduck: &Path) -> Vec<OsString> {
        let run = || vec![lameduck.into(), "run".into()];
        match self {
            Mode::Plain => Vec::new(),
            Mode::Observe => [run(), vec!["--".into()]].concat(),
            // The port that is drilled is the front's; the service gets one of its own in PORT.
            Mode::Front | Mode::FrontKilled => {
                [run(), ["--listen", "127.0.0.1:{port}", "--"].map(OsString::from).to_vec()].concat()
            }
        }
    }

    fn event(self) -> String {
        match self {
            Mode::Plain | Mode::Observe | Mode::Front => "roll@2s".to_owned(),
            Mode::FrontKilled => format!("kill-child={FRONT}@3s"),
        }
    }

    const fn has_front(self) -> bool {
        matches!(self, Mode::Front | Mode::FrontKilled)
    }
}

struct Options {
    runs: u64,
    rate: u64,
    seconds: u64,
    servers: Vec<Server>,
    profiles: Vec<&'static str>,
    mode: Mode,
    file: Option<PathBuf>,
}

fn options(args: &[String]) -> anyhow::Result<Options> {
    let (mut runs, mut rate, mut seconds) = (4, 500, 17);
    let mut servers: Vec<String> = DEFAULT_SERVERS.map(str::to_owned).to_vec();
    let mut profiles: Vec<String> = PROFILES.iter().map(|profile| profile.id.to_owned()).collect();
    let (mut mode, mut file) = (Mode::Front, None);
    let mut parser = lexopt::Parser::from_args(args);
    while let Some(arg) = parser.next()? {
        let lexopt::Arg::Long(name) = arg else { return Err(arg.unexpected().into()) };
        let name = name.to_owned();
        let value = parser.value()?.to_string_lossy().into_owned();
        let number = || value.parse::<u64>().with_context(|| format!("--{name} {value}: not a number"));
        let list = || value.split(',').map(str::to_owned).collect();
        match name.as_str() {
            "runs" => runs = number()?,
            "rate" => rate = number()?,
            "seconds" => seconds = number()?,
            "servers" => servers = list(),
            "profiles" => profiles = list(),
            "mode" => {
                let known = MODES.into_iter().find(|mode| mode.id() == value);
                mode = known.with_context(|| format!("--mode {value}: one of {}", MODES.map(Mode::id).join(", ")))?;
            }
            "json" => file = Some(PathBuf::from(value)),
            _ => bail!("no option --{name}"),
        }
    }
    let servers = servers.iter().map(|id| {
        let known = SERVERS.map(|server| server.id).join(", ");
        Server::from_id(id).with_context(|| format!("--servers {id}: one of {known}"))
    });
    let profiles = profiles.iter().map(|id| {
        let known = PROFILES.iter().find(|profile| profile.id == id);
        known.map(|profile| profile.id).with_context(|| format!("--profiles {id}: no such profile"))
    });
    Ok(Options {
        runs,
        rate,
        seconds,
        servers: servers.collect::<Result<_, _>>()?,
        profiles: profiles.collect::<Result<_, _>>()?,
        mode,
        file,
    })
}

/// Makes the runs that are missing, and the table of all.
pub fn matrix(args: &[String]) -> anyhow::Result<ExitCode> {
    let options = options(args)?;
    packages::provide();
    let lameduck = built::release(&["--package", "lameduck"], "lameduck")?;
    let mut document = read(options.file.as_deref())?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    let folder = target.join("matrix");
    for server in &options.servers {
        let missing: Vec<&str> = server.needs.iter().filter(|need| packages::find(need).is_none()).copied().collect();
        if !missing.is_empty() {
            println!("MISSING {}: {} is not drilled", missing.join(", "), server.title);
            continue;
        }
        let folder = set_up(server, &folder)?;
        for (profile, run) in
            options.profiles.iter().flat_map(|profile| (1..=options.runs).map(move |run| (profile, run)))
        {
            let key = json!({
                "server": server.id, "profile": profile, "mode": options.mode.id(), "run": run, "rate": options.rate,
                "seconds": options.seconds,
            });
            if runs_of(&document).iter().any(|seen| is(seen, &key)) {
                continue;
            }
            let entry = drill(&lameduck, server, &folder, &options, &key)?;
            println!("{}", line(&entry));
            if let Some(runs) = document["runs"].as_array_mut() {
                // One that could not be set up before is replaced.
                runs.retain(|seen| !has(seen, &key));
                runs.push(entry);
            }
            write(options.file.as_deref(), &document)?;
        }
    }
    let asked = |entry: &&Value| {
        entry["mode"] == options.mode.id()
            && options.servers.iter().any(|server| entry["server"] == server.id)
            && options.profiles.iter().any(|profile| entry["profile"] == *profile)
    };
    let runs: Vec<&Value> = runs_of(&document).iter().filter(asked).collect();
    println!("\n{}", table(&runs));
    ensure!(!runs.is_empty(), "nothing was drilled");
    Ok(if runs.iter().all(|entry| entry["met"] == true) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn runs_of(document: &Value) -> &[Value] {
    document["runs"].as_array().map_or(&[], Vec::as_slice)
}

/// Whether an entry is the run with this key. One that could not be set up is made again.
fn is(entry: &Value, key: &Value) -> bool {
    has(entry, key) && entry["verdict"] != "set-up"
}

fn has(entry: &Value, key: &Value) -> bool {
    key.as_object().is_some_and(|key| key.iter().all(|(name, value)| entry[name] == *value))
}

/// Writes and builds a server's files.
pub fn set_up(server: &Server, folder: &Path) -> anyhow::Result<PathBuf> {
    let folder = folder.join(server.id);
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    for (name, content) in server.files {
        fs::write(folder.join(name), content).with_context(|| name.to_string())?;
    }
    if let Some(build) = server.build_command(&folder) {
        let status = Command::new(&build[0]).args(&build[1..]).status().with_context(|| format!("{build:?}"))?;
        ensure!(status.success(), "{build:?}: {status}");
    }
    Ok(folder)
}

/// One drill, in the form of the file.
fn drill(lameduck: &Path, server: &Server, folder: &Path, options: &Options, key: &Value) -> anyhow::Result<Value> {
    let name = ["server", "profile", "mode", "run"].map(|part| key[part].to_string().replace('"', "")).join("-");
    let (result, logs) = (folder.join(format!("{name}.json")), folder.join(format!("{name}.logs")));
    let mut command = Command::new(lameduck);
    let text = |part: &str| key[part].to_string().replace('"', "");
    command.args(["drill", "--quiet", "--replicas", "3", "--grace", "30s", "--min-sample", "1000"]);
    command.arg(format!("--lag={LAG_S}s")).arg(format!("--event={}", options.mode.event()));
    command.arg(format!("--rate={}", options.rate)).arg(format!("--duration={}s", options.seconds));
    command.arg(format!("--profile={}", text("profile"))).arg(format!("--seed={}", text("run")));
    for template in server.mix(options.mode.has_front(), LONGEST_S) {
        command.arg("--request").arg(template);
    }
    command.arg("--json").arg(&result).arg("--logs").arg(&logs);
    command.arg("--").args(options.mode.before(lameduck)).args(server.command(folder));
    let output = command.stdin(Stdio::null()).output().context("lameduck drill")?;
    let mut entry = key.clone();
    let drilled = fs::read_to_string(&result).ok().filter(|_| output.status.code() != Some(4));
    let Some(drilled) = drilled else {
        entry["verdict"] = json!("set-up");
        // With how it ended: a drill that was killed has said nothing.
        let said = String::from_utf8_lossy(&output.stderr);
        entry["because"] = json!(format!("lameduck drill: {}: {}", output.status, said.trim()));
        entry["met"] = json!(false);
        return Ok(entry);
    };
    let drilled: Value = serde_json::from_str(&drilled).context("the drill's JSON")?;
    for field in ["verdict", "because", "sent", "answered", "lost", "unknown", "dropped", "unrouted", "causes", "kinds"]
    {
        entry[field] = drilled[field].clone();
    }
    let sum =
        |field: &str| drilled["rounds"].as_array().into_iter().flatten().filter_map(|r| r[field].as_f64()).sum::<f64>();
    let load_s = sum("ended_s") - sum("load_began_s");
    let bound_s = LAG_S + QUIET_S + LONGEST_S + MARGIN_S;
    let stop_s = drilled["term_to_exit_s"]["max"].as_f64();
    entry["term_to_exit_s"] = drilled["term_to_exit_s"].clone();
    entry["bound_s"] = json!(bound_s);
    entry["latency_s"] = drilled["latency_s"].clone();
    entry["load_s"] = json!((load_s * 1e3).round() / 1e3);
    entry["client_cpu"] = json!((sum("client_cpu_s") / load_s.max(1e-3) * 1e4).round() / 1e4);
    entry["refused"] = json!(refused(&drilled));
    entry["met"] = json!(met(options.mode, &entry, stop_s, bound_s));
    if entry["met"] == true {
        // Nothing in them is worth the space.
        let _ = (fs::remove_file(&result), fs::remove_dir_all(&logs));
    }
    Ok(entry)
}

/// Losses whose connection was refused.
fn refused(drilled: &Value) -> usize {
    drilled["losses"].as_array().into_iter().flatten().filter(|loss| loss["ending"] == "refused").count()
}

/// Whether a run shows what is asked.
fn met(mode: Mode, entry: &Value, stop_s: Option<f64>, bound_s: f64) -> bool {
    match mode {
        Mode::Plain | Mode::Observe | Mode::Front => {
            entry["verdict"] == "clean" && stop_s.is_some_and(|stop_s| stop_s <= bound_s)
        }
        // What was in flight in the front is lost, and accounted for by its end; nobody was refused.
        Mode::FrontKilled => {
            let other = entry["causes"].as_object().into_iter().flatten().any(|(cause, _)| cause != "crash-restart");
            entry["unknown"] == 0 && entry["dropped"] == 0 && entry["refused"] == 0 && !other
        }
    }
}

fn line(entry: &Value) -> String {
    let text = |field: &str| entry[field].to_string().replace('"', "");
    let run = format!("{} {} {} {}", text("mode"), text("server"), text("profile"), text("run"));
    if entry["verdict"] == "set-up" {
        return format!("{run}: NOT SET UP: {}", entry["because"].as_str().unwrap_or_default());
    }
    let causes = if entry["causes"].as_object().is_none_or(serde_json::Map::is_empty) {
        String::new()
    } else {
        format!(" {}", entry["causes"])
    };
    format!(
        "{run}: {} sent, {} lost{causes}, {} unknown; TERM to exit at most {} s of {} s; client CPU {:.1} %{}",
        text("sent"),
        text("lost"),
        text("unknown"),
        entry["term_to_exit_s"]["max"],
        text("bound_s"),
        entry["client_cpu"].as_f64().unwrap_or_default() * 100.0,
        if entry["met"] == true { "" } else { "  NOT MET" }
    )
}

/// The sums of one server behind one profile.
#[derive(Default)]
struct Row {
    runs: u64,
    sent: u64,
    lost: u64,
    unknown: u64,
    not_set_up: u64,
    stop_s: f64,
    bound_s: f64,
    met: bool,
}

/// The Markdown table: a row for each server behind each profile, and the sum.
fn table(runs: &[&Value]) -> String {
    let mut rows: BTreeMap<(String, String), Row> = BTreeMap::new();
    let mut sum = Row { met: true, ..Row::default() };
    for entry in runs {
        let text = |field: &str| entry[field].as_str().unwrap_or_default().to_owned();
        let row = rows.entry((text("server"), text("profile"))).or_insert(Row { met: true, ..Row::default() });
        for row in [row, &mut sum] {
            let count = |field: &str| entry[field].as_u64().unwrap_or_default();
            row.runs += 1;
            row.sent += count("sent");
            row.lost += count("lost");
            row.unknown += count("unknown");
            row.not_set_up += u64::from(entry["verdict"] == "set-up");
            row.stop_s = row.stop_s.max(entry["term_to_exit_s"]["max"].as_f64().unwrap_or_default());
            row.bound_s = entry["bound_s"].as_f64().unwrap_or(row.bound_s);
            row.met &= entry["met"] == true;
        }
    }
    let mut out = String::from(
        "| server | profile | runs | requests | lost, raw | unknown | TERM to exit, at most | bound | met |\n\
         |---|---|---|---|---|---|---|---|---|\n",
    );
    let mut put = |server: &str, profile: &str, row: &Row| {
        let met = match row {
            Row { met: true, .. } => "yes".to_owned(),
            Row { not_set_up: 0, .. } => "NO".to_owned(),
            Row { not_set_up, .. } => format!("NO, {not_set_up} not set up"),
        };
        let _ = writeln!(
            out,
            "| {server} | {profile} | {} | {} | {} | {} | {:.2} s | {:.1} s | {met} |",
            row.runs, row.sent, row.lost, row.unknown, row.stop_s, row.bound_s
        );
    };
    for ((server, profile), row) in &rows {
        put(server, profile, row);
    }
    put("all", "", &sum);
    out
}

fn read(file: Option<&Path>) -> anyhow::Result<Value> {
    let empty = || json!({ "schema": SCHEMA, "runs": [] });
    let Some(file) = file.filter(|file| file.exists()) else { return Ok(empty()) };
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let document: Value = serde_json::from_str(&text).with_context(|| file.display().to_string())?;
    ensure!(document["schema"] == SCHEMA, "{}: not {SCHEMA}", file.display());
    Ok(document)
}

/// Whole or not at all: an interrupted matrix keeps what it had.
fn write(file: Option<&Path>, document: &Value) -> anyhow::Result<()> {
    let Some(file) = file else { return Ok(()) };
    let beside = file.with_extension("part");
    fs::write(&beside, format!("{document:#}\n")).with_context(|| beside.display().to_string())?;
    fs::rename(&beside, file).with_context(|| file.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(lost: u64, stop_s: f64) -> Value {
        json!({
            "server": "node", "profile": "glb", "mode": "front", "run": 1, "rate": 500, "seconds": 17,
            "verdict": if lost == 0 { "clean" } else { "lost" }, "sent": 100, "lost": lost, "unknown": 0, "dropped": 0,
            "refused": 0, "causes": {}, "term_to_exit_s": {"max": stop_s}, "bound_s": 11.0, "met": lost == 0,
        })
    }

    #[test]
    fn a_mix_can_be_read_and_every_server_takes_it() {
        for (server, mode) in SERVERS.iter().flat_map(|server| MODES.map(|mode| (server, mode))) {
            let mix = server.mix(mode.has_front(), LONGEST_S);
            for line in &mix {
                assert!(line.parse::<lameduck_drill::Template>().is_ok(), "{line}");
            }
            assert_eq!(mix.iter().any(|line| line.contains("websocket=2s/200ms")), server.speaks_websocket);
            assert!(mode.event().parse::<lameduck_drill::Event>().is_ok());
        }
    }

    #[test]
    fn met_is_nothing_lost_and_out_in_time() {
        assert!(met(Mode::Front, &entry(0, 8.0), Some(8.0), 11.0));
        assert!(!met(Mode::Front, &entry(1, 8.0), Some(8.0), 11.0));
        assert!(!met(Mode::Front, &entry(0, 11.5), Some(11.5), 11.0));
        assert!(!met(Mode::Front, &entry(0, 0.0), None, 11.0));
        let with = |field: &str, value: Value| {
            let mut entry = entry(3, 0.0);
            entry[field] = value;
            met(Mode::FrontKilled, &entry, None, 11.0)
        };
        assert!(with("causes", json!({"crash-restart": 3})));
        assert!(!with("causes", json!({"crash-restart": 2, "unknown": 1})));
        assert!(!with("refused", json!(1)));
        assert!(!with("unknown", json!(1)));
    }

    #[test]
    fn the_table_sums_up_and_a_file_is_gone_on_with() {
        let (good, bad) = (entry(0, 8.0), entry(2, 9.0));
        let text = table(&[&good, &bad]);
        assert!(text.contains("| node | glb | 2 | 200 | 2 | 0 | 9.00 s | 11.0 s | NO |"), "{text}");
        assert!(text.contains("| all |  | 2 | 200 | 2 | 0 |"), "{text}");
        let key = json!({"server": "node", "profile": "glb", "mode": "front", "run": 1, "rate": 500, "seconds": 17});
        assert!(is(&good, &key));
        let mut other = key.clone();
        other["run"] = json!(2);
        assert!(!is(&good, &other));
        let mut failed = good.clone();
        failed["verdict"] = json!("set-up");
        assert!(!is(&failed, &key), "made again");
    }
}
