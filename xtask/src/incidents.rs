//! `cargo xtask incidents`: each incident many times, and what all these runs showed, as the table of `docs/incidents.md`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::built;

const NAMES: [&str; 4] = ["gitlab-pid1", "passenger-sigterm", "taskcluster-glb", "gke-keepalive"];
const SCHEMA: &str = "lameduck.incident/1";

/// Makes the runs that the folder lacks, and prints the table. Fails where a run did not pass.
pub fn incidents(args: &[String]) -> anyhow::Result<ExitCode> {
    let (mut runs, mut names, mut whole) = (20, NAMES.map(str::to_owned).to_vec(), false);
    let mut folder = built::target().join("incidents");
    let mut parser = lexopt::Parser::from_args(args);
    while let Some(arg) = parser.next()? {
        match arg {
            lexopt::Arg::Long("runs") => runs = parser.value()?.to_string_lossy().parse()?,
            lexopt::Arg::Long("names") => {
                names = parser.value()?.to_string_lossy().split(',').map(str::to_owned).collect();
            }
            lexopt::Arg::Long("whole") => whole = true,
            lexopt::Arg::Long("folder") => folder = PathBuf::from(parser.value()?),
            other => return Err(other.unexpected().into()),
        }
    }
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let mut failed = 0;
    let mut rows = Vec::new();
    for name in &names {
        let mut shown = Vec::new();
        for run in 1..=runs {
            let path = folder.join(format!("{name}-{run}.json"));
            if !path.exists() {
                play(name, whole, &path)?;
            }
            shown.push(read(&path, name)?);
        }
        failed += shown.iter().filter(|run| run["passed"] != true).count();
        rows.extend(["", "-ingress"].iter().filter_map(|hop| row(name, hop, &shown)));
    }
    print!("{HEAD}{}", rows.concat());
    println!("\n{failed} of {} runs did not pass", runs * names.len());
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

const HEAD: &str = "\
| incident | passed | plain: lost, by cause | the story's fix: lost; TERM to exit | other variants: lost | cured: lost | cured: TERM to exit | the story's wait, on the same clock |
|---|---|---|---|---|---|---|---|
";

/// Runs one, and leaves its JSON.
fn play(name: &str, whole: bool, path: &Path) -> anyhow::Result<()> {
    let lameduck = built::release(&["-p", "lameduck"], "lameduck")?;
    let mut command = Command::new(lameduck);
    command.args(["incident", name, "--quiet", "--strict", "--json"]).arg(path);
    if !whole {
        command.arg("--short");
    }
    let status = command.status().context("lameduck incident")?;
    ensure!(path.exists(), "lameduck incident {name}: {status}, and no result");
    Ok(())
}

fn read(path: &Path, name: &str) -> anyhow::Result<Value> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let value: Value = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
    let run = value["incidents"][0].clone();
    ensure!(
        value["schema"] == SCHEMA && run["name"] == name,
        "{}: expected {SCHEMA} with one run of {name}",
        path.display()
    );
    Ok(run)
}

/// What all runs showed of one hop; none where the incident does not have it.
fn row(name: &str, hop: &str, runs: &[Value]) -> Option<String> {
    let of = |id: &str| -> Vec<&Value> {
        let id = format!("{id}{hop}");
        let found = |run| -> Option<&Value> {
            let run: &Value = run;
            let drill = run.get(&id).or_else(|| run["variants"].get(&id))?;
            drill.is_object().then_some(drill)
        };
        runs.iter().filter_map(found).collect()
    };
    let (plain, fixed, cured) = (of("plain"), of("fixed"), of("cured"));
    if plain.is_empty() {
        return None;
    }
    let passed = runs.iter().filter(|run| run["passed"] == true).count();
    let title = if hop.is_empty() { format!("`{name}`") } else { format!("the same, its {}", &hop[1..]) };
    let others = ["as-dumb-init", "fixed-late", "zones"].into_iter().filter(|_| hop.is_empty());
    let others: Vec<String> = others
        .filter_map(|id| {
            let drills = of(id);
            (!drills.is_empty()).then(|| format!("`{id}` {}", lost(&drills)))
        })
        .collect();
    let wait = runs.iter().find_map(|run| run["story_sleep_s"].as_f64());
    Some(format!(
        "| {title} | {passed} of {} | {} | {}; {} | {} | {} of {} | {} | {} |\n",
        runs.len(),
        causes(&plain),
        lost(&fixed),
        exits(&fixed),
        if others.is_empty() { "-".to_owned() } else { others.join("; ") },
        lost(&cured),
        span(&cured.iter().filter_map(|drill| drill["sent"].as_u64()).collect::<Vec<_>>()),
        exits(&cured),
        wait.map_or_else(|| "none".to_owned(), |wait| format!("{wait} s")),
    ))
}

/// Least, median and most of each cause; where a run has none of it, that is 0.
fn causes(drills: &[&Value]) -> String {
    let mut by_cause: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for drill in drills {
        for cause in drill["causes"].as_object().into_iter().flatten().map(|(cause, _)| cause) {
            by_cause.entry(cause).or_default();
        }
    }
    for (cause, counts) in &mut by_cause {
        *counts = drills.iter().map(|drill| drill["causes"][*cause].as_u64().unwrap_or(0)).collect();
        counts.sort_unstable();
    }
    let mut all: Vec<_> = by_cause.into_iter().collect();
    all.sort_by_key(|(_, counts)| std::cmp::Reverse(counts[counts.len() / 2]));
    let words = all.iter().map(|(cause, counts)| {
        format!("{}, {}, {} `{cause}`", counts[0], counts[counts.len() / 2], counts[counts.len() - 1])
    });
    words.collect::<Vec<_>>().join("; ")
}

fn lost(drills: &[&Value]) -> String {
    span(&drills.iter().filter_map(|drill| drill["lost"].as_u64()).collect::<Vec<_>>())
}

fn span(counts: &[u64]) -> String {
    match (counts.iter().min(), counts.iter().max()) {
        (Some(least), Some(most)) if least == most => format!("{least}"),
        (Some(least), Some(most)) => format!("{least} to {most}"),
        _ => "-".to_owned(),
    }
}

fn exits(drills: &[&Value]) -> String {
    let times: Vec<f64> = drills.iter().filter_map(|drill| drill["term_to_exit_s"]["max"].as_f64()).collect();
    let (least, most) = times.iter().fold((f64::MAX, f64::MIN), |(a, b), time| (a.min(*time), b.max(*time)));
    if times.is_empty() { "-".to_owned() } else { format!("{least:.1} to {most:.1} s") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_table_counts_what_the_runs_showed() {
        let run = |refused: u64, exit: f64, passed: bool| {
            json!({
                "name": "a", "passed": passed, "story_sleep_s": 6.0,
                "plain": {"lost": refused, "sent": 9, "causes": {"refused-while-routed": refused}, "term_to_exit_s": {"max": 1.0}},
                "cured": {"lost": 0, "sent": 340, "causes": {}, "term_to_exit_s": {"max": exit}},
                "variants": {"as-dumb-init": {"lost": 0, "sent": 9, "causes": {}}},
            })
        };
        let runs = [run(4, 1.8, true), run(5, 2.2, true), run(9, 2.0, false)];
        let row = row("a", "", &runs).unwrap();
        assert_eq!(
            row,
            "| `a` | 2 of 3 | 4, 5, 9 `refused-while-routed` | -; - | `as-dumb-init` 0 | 0 of 340 | 1.8 to 2.2 s | 6 s |\n"
        );
        assert_eq!(super::row("a", "-ingress", &runs), None);
    }
}
