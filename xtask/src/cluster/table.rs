//! What drills showed: a row for each as it ends, a file of all, and the table of runs of the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};
use lameduck_core::duration::show;
use lameduck_drill::DrillResult;
use lameduck_drill::servers::Server;
use serde_json::{Value, json};

use super::client::{Client, Seen};
use super::drill::Run;

const SCHEMA: &str = "lameduck.cluster-drill/2";

/// The head of the rows.
pub const HEAD: &str = "| server | event | client | mode | lag | sent | lost | causes | sent again | unrouted | stop, at most | exit | stall |\n\
    |---|---|---|---|---|---|---|---|---|---|---|---|---|";

fn causes(result: &DrillResult) -> BTreeMap<String, u64> {
    let mut causes = BTreeMap::new();
    for loss in result.losses.iter().chain(&result.unknowns) {
        *causes.entry(loss.cause.id().to_owned()).or_default() += 1;
    }
    causes
}

fn listed(causes: &BTreeMap<String, u64>) -> String {
    let mut by_count: Vec<_> = causes.iter().collect();
    by_count.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    by_count.iter().map(|(cause, count)| format!("{count} {cause}")).collect::<Vec<_>>().join(", ")
}

/// A run's rows, one a client.
pub fn rows(run: &Run) -> String {
    let statuses: BTreeSet<String> = run.statuses.iter().map(ToString::to_string).collect();
    let exits = statuses.into_iter().collect::<Vec<_>>().join(", ");
    let probes = if run.came_back > 0 { format!(", {} pods' probes failed", run.came_back) } else { String::new() };
    let stall = format!("{}{probes}{}", show(run.stall), if run.again { ", made again" } else { "" });
    let row = |seen: &Seen| {
        let Seen { client, result, resent, .. } = seen;
        let cells = [
            run.server.title.to_owned(),
            run.event.id().to_owned(),
            client.title().to_owned(),
            run.mode.id().to_owned(),
            show(run.lag),
            seen.sent().to_string(),
            seen.lost().to_string(),
            listed(&causes(result)),
            resent.to_string(),
            seen.unrouted().to_string(),
            result.term_to_exit_s.max.map_or_else(String::new, |longest| format!("{longest:.1} s")),
            exits.clone(),
            stall.clone(),
        ];
        format!("| {} |\n", cells.join(" | "))
    };
    run.seen.iter().map(row).collect()
}

fn written(run: &Run) -> Vec<Value> {
    let of = |seen: &Seen| {
        let Seen { client, result, resent, .. } = seen;
        json!({
            "server": run.server.id, "event": run.event.id(), "mode": run.mode.id(), "by": run.by.id(), "client": client.id(),
            "lag_s": run.lag.as_secs_f64(), "rate": result.plan.rate, "profile": result.plan.profile,
            "sent": seen.sent(), "lost": seen.lost(), "unrouted": seen.unrouted(), "resent": resent, "causes": causes(result), "server_log": result.server_log,
            "term_to_exit_s": result.term_to_exit_s.all, "statuses": run.statuses,
            "stall_s": run.stall.as_secs_f64(), "came_back": run.came_back, "made_again": run.again, "losses": result.losses,
        })
    };
    run.seen.iter().map(of).collect()
}

/// What a file has.
pub fn read(path: &Path) -> anyhow::Result<Value> {
    let text = fs::read(path).with_context(|| path.display().to_string())?;
    let all: Value = serde_json::from_slice(&text).with_context(|| path.display().to_string())?;
    ensure!(all["schema"] == SCHEMA, "{}: its schema is {}, expected {SCHEMA:?}", path.display(), all["schema"]);
    Ok(all)
}

/// All of some runs, as in a file.
pub fn all(runs: &[Run]) -> Value {
    json!({ "schema": SCHEMA, "runs": runs.iter().flat_map(written).collect::<Vec<_>>() })
}

/// Adds a run to a file.
pub fn keep(path: &Path, run: &Run) -> anyhow::Result<()> {
    let mut known = if path.exists() { read(path)? } else { all(&[]) };
    known["runs"].as_array_mut().context("runs")?.extend(written(run));
    fs::write(path, known.to_string()).with_context(|| path.display().to_string())
}

/// Runs of the same.
#[derive(Debug, Default)]
struct Same {
    requests: u64,
    lost: Vec<u64>,
    causes: BTreeMap<String, u64>,
    resent: u64,
    longest: f64,
    again: u64,
}

impl Same {
    fn add(&mut self, run: &Value) {
        let count = |name: &str| run[name].as_u64().unwrap_or_default();
        if run["made_again"] == true {
            self.again += 1;
            return;
        }
        self.requests += count("sent");
        self.lost.push(count("lost"));
        self.resent += count("resent");
        for (cause, count) in run["causes"].as_object().into_iter().flatten() {
            *self.causes.entry(cause.clone()).or_default() += count.as_u64().unwrap_or_default();
        }
        let stops = run["term_to_exit_s"].as_array().into_iter().flatten().filter_map(Value::as_f64);
        self.longest = stops.fold(self.longest, f64::max);
    }

    /// The least, the median and the most of a run.
    fn spread(&self) -> String {
        let mut lost = self.lost.clone();
        lost.sort_unstable();
        match lost[..] {
            [] => String::new(),
            [.., 0] => "**0**".to_owned(),
            [least, ..] => format!("{least} / {} / {}", lost[lost.len() / 2], lost[lost.len() - 1]),
        }
    }

    fn cells(&self) -> [String; 4] {
        let again = if self.again > 0 { format!(", {} made again", self.again) } else { String::new() };
        let resent = (self.resent > 0).then(|| format!("({} sent again)", self.resent));
        let causes = (!self.causes.is_empty()).then(|| listed(&self.causes));
        [
            self.spread(),
            format!("{} in {}{again}", self.requests, self.lost.len()),
            causes.into_iter().chain(resent).collect::<Vec<_>>().join(" "),
            if self.longest > 0.0 { format!("{:.1} s", self.longest) } else { String::new() },
        ]
    }
}

/// The table: a row for each server, event and client; for each mode that there are runs of, what was lost in them.
pub fn markdown(all: &Value) -> anyhow::Result<String> {
    let mut rows: BTreeMap<[String; 3], BTreeMap<(bool, String), Same>> = BTreeMap::new();
    for run in all["runs"].as_array().context("runs")? {
        let word = |name: &str| run[name].as_str().map(str::to_owned).with_context(|| name.to_owned());
        let mode = match (word("mode")?, word("by")?) {
            (mode, _) if mode == "plain" => (false, mode),
            (mode, by) => (true, format!("{mode}, by {by}")),
        };
        let row = [word("server")?, word("event")?, word("client")?];
        rows.entry(row).or_default().entry(mode).or_default().add(run);
    }
    let modes: BTreeSet<&(bool, String)> = rows.values().flat_map(BTreeMap::keys).collect();
    let mut text = String::from("| server | event | client |");
    for (_, mode) in &modes {
        write!(
            text,
            " {mode}: lost in a run, least / median / most | requests in runs | causes, all runs | stop, at most |"
        )?;
    }
    writeln!(text, "\n|---|---|---|{}", "---|---|---|---|".repeat(modes.len()))?;
    for ([server, event, client], of) in &rows {
        let server = Server::from_id(server).map_or(server.as_str(), |server| server.title);
        let client = Client::from_id(client).map_or_else(|_| client.clone(), |client| client.title().to_owned());
        write!(text, "| {server} | {event} | {client} |")?;
        for mode in &modes {
            let cells = of.get(mode).map_or_else(Default::default, Same::cells);
            write!(text, " {} |", cells.join(" | "))?;
        }
        text.push('\n');
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_the_same_are_a_row() {
        let run = |mode: &str, lost: u64, again: bool| {
            let causes = if lost > 0 { json!({ "idle-close-race": lost }) } else { json!({}) };
            json!({
                "server": "go", "event": "drain", "client": "nginx", "mode": mode, "by": "webhook", "sent": 100, "lost": lost,
                "resent": 1, "causes": causes, "term_to_exit_s": [1.0, 2.5], "made_again": again,
            })
        };
        let runs = [run("plain", 5, false), run("plain", 1, false), run("plain", 90, true), run("plain", 2, false)];
        let runs = [&runs[..], &[run("front", 0, false)]].concat();
        let all = json!({ "runs": runs });
        let text = markdown(&all).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[0].contains("| client | plain: lost") && lines[0].contains("| front, by webhook: lost"),
            "{text}"
        );
        assert_eq!(
            lines[2..],
            [
                "| Go net/http | drain | nginx | 1 / 2 / 5 | 300 in 3, 1 made again | 8 idle-close-race (3 sent again) | 2.5 s \
              | **0** | 100 in 1 | (1 sent again) | 2.5 s |"
            ]
        );
    }
}
