//! Labelled truth: real servers ended by `lameduck drill`, behind its own balancer and behind real proxies. The drill knows the cause of each
//! loss, because it saw both sides; explain gets what the balancer, the proxy or a capture left, and of the replicas' lives only what a cluster
//! records, to the second. `cargo xtask truth record` makes the fixtures of logs anew.
//!
//! The bar is held in two readings: each loss once, by the best of the logs that tell of it, and each loss in each log by itself.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{data, explain};

/// What became of the losses of some kind.
#[derive(Debug, Clone, Copy, Default)]
struct Score {
    right: u64,
    /// Called `unknown`.
    open: u64,
    /// Not seen at all.
    unseen: u64,
    wrong: u64,
}

impl Score {
    fn losses(self) -> u64 {
        self.right + self.open + self.unseen + self.wrong
    }
}

/// All that was found.
#[derive(Debug, Default)]
struct Totals {
    all: Score,
    by_cause: BTreeMap<String, Score>,
    by_server: BTreeMap<String, Score>,
    by_log: BTreeMap<String, Score>,
    /// Different requests: one that two logs tell of counts once.
    distinct: u64,
    /// Of these, those whose cause at least one of the logs that tell of them gave away.
    named: u64,
    /// Losses of which the drill itself does not know the cause.
    unlabelled: u64,
    complaints: Vec<String>,
}

impl Totals {
    fn count(&mut self, log: &str, server: &str, cause: &str, count: impl Fn(&mut Score)) {
        count(&mut self.all);
        count(self.by_cause.entry(cause.to_owned()).or_default());
        count(self.by_server.entry(server.to_owned()).or_default());
        count(self.by_log.entry(log.to_owned()).or_default());
    }

    /// One loss: what it is, and what it was called.
    fn judge(&mut self, (log, server, run): (&str, &str, &str), id: &str, cause: &str, called: Option<&str>) {
        match called {
            Some(called) if called == cause => self.count(log, server, cause, |score| score.right += 1),
            Some("unknown") => self.count(log, server, cause, |score| score.open += 1),
            None => self.count(log, server, cause, |score| score.unseen += 1),
            Some(called) => {
                self.count(log, server, cause, |score| score.wrong += 1);
                self.complaints.push(format!("{log}, {run}: {id} is {cause} and was called {called}"));
            }
        }
    }
}

fn array(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// The line that a loss is cited by.
fn cited<'t>(cite: &str, files: &'t HashMap<String, Vec<String>>) -> Option<&'t str> {
    let (name, line) = cite.rsplit_once(':')?;
    let lines = files.get(name.rsplit('/').next()?)?;
    lines.get(line.trim().parse::<usize>().ok()?.checked_sub(1)?).map(String::as_str)
}

/// The id in it.
fn id(line: &str) -> Option<&str> {
    let from = line.find("ld-")?;
    let end = line[from..].find(|c: char| !c.is_ascii_alphanumeric() && c != '-')?;
    Some(&line[from..from + end])
}

/// A run behind a balancer or proxy, by each kind of log that it left.
fn behind(proxy: &Value, totals: &mut Totals) {
    for (name, run) in proxy["runs"].as_object().expect("runs") {
        let server = run["server"].as_str().expect("a server");
        let labels: Vec<(&str, &str)> = array(&run["losses"])
            .map(|loss| (loss[0].as_str().unwrap_or(""), loss[2].as_str().unwrap_or("")))
            .collect();
        let known = labels.iter().filter(|(_, cause)| *cause != "unknown").count() as u64;
        totals.distinct += known;
        totals.unlabelled += labels.len() as u64 - known;
        let mut named = HashSet::new();
        for (log, files) in run["logs"].as_object().expect("logs") {
            let called = called(run, files);
            for (id, cause) in &labels {
                if *cause != "unknown" {
                    if called.get(*id).is_some_and(|called| called == cause) {
                        named.insert(*id);
                    }
                    totals.judge((log.as_str(), server, name.as_str()), id, cause, called.get(*id).map(String::as_str));
                }
            }
            // What nobody was left to be sent to is in a balancer's log, and not in the drill's books: nothing is to be named there.
            let others =
                called.iter().filter(|(id, cause)| *cause != "unknown" && !labels.iter().any(|(label, _)| label == id));
            for (id, cause) in others {
                totals.complaints.push(format!("{log}, {name}: {id} was answered and was called {cause}"));
            }
        }
        totals.named += named.len() as u64;
    }
}

/// What explain calls each loss.
fn called(run: &Value, files: &Value) -> HashMap<String, String> {
    let folder = tempfile::tempdir().expect("a folder");
    let mut texts = HashMap::new();
    for (name, text) in files.as_object().expect("files") {
        let text = text.as_str().expect("text");
        std::fs::write(folder.path().join(name), text).expect("a file");
        texts.insert(name.clone(), text.lines().map(str::to_owned).collect());
    }
    std::fs::write(folder.path().join("cluster.json"), run["cluster"].as_str().expect("a cluster")).expect("a file");
    let explanation = explain(&[], &[folder.path()]);
    let mut called = HashMap::new();
    for loss in array(&explanation["losses"]) {
        let cite = loss["cite"].as_str().unwrap_or("");
        let line = cited(cite, &texts).unwrap_or_else(|| panic!("no such line: {loss}"));
        let Some(id) = id(line) else {
            assert!(line.contains("kube-probe"), "no id where {loss} is cited");
            continue;
        };
        let before = called.insert(id.to_owned(), loss["cause"].as_str().unwrap_or("").to_owned());
        assert_eq!(before, None, "one request is one loss: {loss}");
    }
    called
}

/// A drill with a capture beside it.
fn captured(name: &str, totals: &mut Totals) {
    let [capture, cluster, truth] =
        ["pcap.gz", "k8s.json", "truth.json"].map(|end| data(&format!("drill-{name}.{end}")));
    let inputs: [&Path; 2] = [&capture, &cluster];
    let explanation = explain(&[], &inputs);
    let mut found: Vec<Option<&Value>> = array(&explanation["losses"]).map(Some).collect();
    let truth: Value = serde_json::from_str(&std::fs::read_to_string(truth).expect("the labels")).expect("JSON");
    let server = name.split('-').next().unwrap_or(name);
    for label in array(&truth) {
        // A request that was never sent has no id in the packets: its server and its moment tell which it was.
        let is = |loss: &&Value| {
            let near = (loss["at_s"].as_f64().unwrap_or(0.0) - label["at_s"].as_f64().unwrap_or(0.0)).abs() < 0.1;
            if loss["id"] == "" {
                label["ending"] == "refused" && loss["backend"] == label["backend"] && near
            } else {
                loss["id"] == label["id"]
            }
        };
        let place = found.iter().position(|loss| loss.as_ref().is_some_and(is));
        let called = place.and_then(|place| found[place].take()).and_then(|loss| loss["cause"].as_str());
        let (id, cause) = (label["id"].as_str().unwrap_or(""), label["cause"].as_str().unwrap_or(""));
        totals.distinct += 1;
        totals.named += u64::from(called == Some(cause));
        totals.judge(("capture", server, name), id, cause, called);
    }
}

fn unpack(path: &Path) -> Value {
    let packed = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut text = String::new();
    flate2::read::GzDecoder::new(packed.as_slice()).read_to_string(&mut text).expect("gzip");
    serde_json::from_str(&text).expect("JSON")
}

/// The tables of docs/explain.md.
fn tables(totals: &Totals) -> String {
    let mut text = String::new();
    for (title, rows) in [("cause", &totals.by_cause), ("server", &totals.by_server), ("log", &totals.by_log)] {
        let _ = writeln!(text, "| {title} | losses | right | `unknown` | wrong |\n|---|---|---|---|---|");
        for (name, score) in rows {
            let open = score.open + score.unseen;
            let _ = writeln!(text, "| `{name}` | {} | {} | {open} | {} |", score.losses(), score.right, score.wrong);
        }
        text.push('\n');
    }
    text
}

#[test]
fn every_cause_every_server_every_log() {
    let mut totals = Totals::default();
    for name in ["node-roll", "node-kill", "node-restart", "puma-roll", "gunicorn-roll"] {
        captured(name, &mut totals);
    }
    for proxy in ["google", "nginx", "haproxy", "haproxy-more", "envoy"] {
        behind(&unpack(&data(&format!("truth-{proxy}.json.gz"))), &mut totals);
    }
    let tables = tables(&totals);
    let Totals { all, distinct, named, unlabelled, .. } = totals;
    let share = all.right as f64 * 100.0 / all.losses() as f64;
    let sum = format!(
        "{distinct} losses, told of {} times; {named} are named rightly by at least one of the logs that tell of them. Counted log by log, each format by itself, {} of the {} are right, {share:.2} %, and the others `unknown`. Of {unlabelled} more the drill does not know the cause.",
        all.losses(),
        all.right,
        all.losses(),
    );
    assert!(totals.complaints.is_empty(), "{tables}{sum}\n{all:?}\n{}", totals.complaints.join("\n"));
    assert!(all.wrong == 0 && distinct >= 2000, "{tables}{sum}\n{all:?}");
    assert!(named * 100 >= 99 * distinct, "each loss once, by its best log:\n{tables}{sum}\n{all:?}");
    assert!(all.right * 100 >= 99 * all.losses(), "each log by itself:\n{tables}{sum}\n{all:?}");
    let missing: Vec<&str> = CAUSES.into_iter().filter(|cause| !totals.by_cause.contains_key(*cause)).collect();
    assert!(missing.is_empty(), "no loss of {missing:?}\n{tables}");
    let missing: Vec<&str> = SERVERS.into_iter().filter(|server| !totals.by_server.contains_key(*server)).collect();
    assert!(missing.is_empty(), "no loss of {missing:?}\n{tables}");
    let page = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/explain.md"));
    let page = std::fs::read_to_string(page).expect("the page");
    assert!(
        page.contains(&sum) && page.contains(&tables),
        "docs/explain.md has other figures than:\n{sum}\n\n{tables}"
    );
}

/// Every cause that can be named.
const CAUSES: [&str; 12] = [
    "refused-while-routed",
    "idle-close-race",
    "cut-mid-response",
    "killed-at-deadline",
    "signal-not-delivered",
    "not-ready-yet",
    "gone-address",
    "peer-down",
    "crash-restart",
    "backend-timeout",
    "overload",
    "app-error",
];

/// The servers of the drill's table.
const SERVERS: [&str; 9] =
    ["node", "node-close", "puma", "gunicorn", "gunicorn-sync", "uvicorn", "passenger", "go", "nginx"];
