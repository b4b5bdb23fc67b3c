//! The documentation can not drift: what the code has, the pages name; what the pages name, exists.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lameduck_core::Cause;
use lameduck_core::budget::{Budget, Shares};
use lameduck_core::duration::show;
use lameduck_core::front::Figures;
use lameduck_core::report::{
    DrainReport, EndedBy, Exit, FrontReport, NeighbourOutcome, NeighbourReport, OrderReport, Origin, Phase, PhaseUse,
    Processes, Relation, RoutingReport, RoutingState, SCHEMA, SourceCount, Traffic, TrafficSource,
};
use lameduck_core::timeline::{Moment, Provenance, Timeline};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the workspace")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every Markdown page that is ours: those of the root, and all of docs/.
fn pages() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![(root(), false), (root().join("docs"), true)];
    while let Some((folder, deep)) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder").flatten() {
            let path = entry.path();
            if path.is_dir() && deep {
                folders.push((path, true));
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Fails with all complaints at once.
fn none(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

/// Every verb, those on a cluster too.
fn verbs() -> Vec<&'static lameduck::cli::flag::Verb> {
    let mut all = lameduck::cli::VERBS.to_vec();
    #[cfg(feature = "cluster")]
    all.extend(lameduck::cli::kubectl::VERBS);
    all
}

#[test]
fn every_option_is_documented_with_its_variable() {
    let mut complaints = Vec::new();
    for verb in verbs() {
        // The verbs on a cluster share a page.
        let name = verb.name.split(' ').next().unwrap_or_default();
        let own = ["", "s"].map(|plural| format!("docs/{name}{plural}.md"));
        let path =
            own.into_iter().find(|own| root().join(own).exists()).unwrap_or_else(|| "docs/control.md".to_owned());
        let mut page = read(&path);
        if verb.name == "run" && page.contains("(front.md#options)") {
            page += &read("docs/front.md");
        }
        if !page.contains(&format!("`lameduck {}`", verb.name)) {
            complaints.push(format!("{path} does not name `lameduck {}`", verb.name));
        }
        for flag in verb.flags {
            let long = format!("`--{}", flag.long);
            if ![format!("{long}`"), format!("{long} ")].iter().any(|text| page.contains(text)) {
                complaints.push(format!("{path} lacks {long}` of lameduck {}", verb.name));
            }
            let variable = format!("`{}`", flag.variable());
            if verb.from_env && !page.contains(&variable) {
                complaints.push(format!("{path} lacks {variable}"));
            }
        }
    }
    none(&complaints);
}

#[test]
fn every_documented_variable_exists() {
    let known: BTreeSet<String> =
        lameduck::cli::VERBS.iter().flat_map(|verb| verb.flags).map(lameduck::cli::flag::Flag::variable).collect();
    // Without the verb there is nothing to compare with.
    if !lameduck::cli::VERBS.iter().any(|verb| verb.name == "run") {
        return;
    }
    for path in ["docs/run.md", "docs/front.md", "docs/control.md", "docs/observe.md", "docs/README.md"] {
        let page = read(path);
        for (at, _) in page.match_indices("LAMEDUCK_") {
            let name: String = page[at..].chars().take_while(|c| c.is_ascii_uppercase() || *c == '_').collect();
            // `LAMEDUCK_*` stands for all of them.
            assert!(name == "LAMEDUCK_" || known.contains(&name), "{path}: {name} is no variable of lameduck");
        }
    }
}

#[test]
fn every_cause_has_its_page_and_no_other_page_is_there() {
    let pages: BTreeSet<String> = fs::read_dir(root().join("docs/causes"))
        .expect("docs/causes")
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    let causes: BTreeSet<String> = Cause::ALL.iter().map(|cause| format!("{}.md", cause.id())).collect();
    assert_eq!(pages, causes);
    let index = read("docs/README.md");
    for cause in Cause::ALL {
        let page = read(&format!("docs/causes/{cause}.md"));
        assert!(page.starts_with(&format!("# `{cause}`\n")), "{cause}: the title is its id");
        for part in ["How it is seen", "Why", "With `lameduck run`", "In a drill", "Without lameduck"] {
            assert!(page.contains(&format!("\n## {part}\n")), "{cause}: no part {part:?}");
        }
        let line = format!("| [{cause}](causes/{cause}.md) | {} |", cause.what());
        assert!(index.contains(&line), "docs/README.md lacks: {line}");
    }
}

/// A report with every field present and every list filled.
fn report() -> DrainReport {
    let mut timeline = Timeline::default();
    timeline.record(Duration::ZERO, Moment::TermReceived, Provenance::Observed);
    DrainReport {
        schema: SCHEMA.to_owned(),
        version: String::new(),
        mode: String::new(),
        command: Vec::new(),
        origin: Origin::Signal,
        budget: Budget::divide(&Shares::default()).expect("the default fits"),
        phases: vec![PhaseUse {
            phase: Phase::LameDuck,
            budget: Duration::ZERO,
            used: Duration::ZERO,
            ended_by: EndedBy::Quiet,
        }],
        timeline,
        traffic: Traffic {
            source: TrafficSource::SockDiag,
            ports: vec![1],
            connections_at_start: Some(0),
            new_connections: Some(0),
            arrivals: Some(0),
            ignored: Some(0),
            last_arrival: Some(0.0),
            open_at_stop: Some(0),
            in_flight_at_stop: Some(0),
            forced_closes: Some(0),
            by_source: vec![SourceCount { address: std::net::Ipv4Addr::LOCALHOST.into(), arrivals: 0 }],
        },
        front: Some(FrontReport { would_have_been_502: 0, figures: Figures::default(), by_source: Vec::new() }),
        order: Some(OrderReport {
            name: String::new(),
            neighbours: vec![NeighbourReport {
                name: String::new(),
                relation: Relation::Stated,
                ports: vec![1],
                outcome: NeighbourOutcome::Left,
                waited: Duration::ZERO,
            }],
            held: Duration::ZERO,
        }),
        routing: Some(RoutingReport { state: RoutingState::Out, removed: Some(0.0) }),
        exit: Exit { status: 0, app_code: Some(0), app_signal: Some(0) },
        processes: Processes::default(),
        took: Duration::ZERO,
        unused_grace: Duration::ZERO,
    }
}

fn keys(value: &serde_json::Value, found: &mut BTreeSet<String>) {
    match value {
        serde_json::Value::Object(fields) => {
            for (name, value) in fields {
                found.insert(name.clone());
                keys(value, found);
            }
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| keys(item, found)),
        _ => {}
    }
}

#[test]
fn every_field_of_the_drain_report_is_documented() {
    let page = read("docs/drain-report.md");
    let (example, fields) = page.split_once("\n## Fields\n").expect("a part `Fields`");
    let mut names = BTreeSet::new();
    keys(&serde_json::to_value(report()).expect("plain data"), &mut names);
    let missing: Vec<String> = names
        .iter()
        .filter(|name| !fields.contains(&format!("`{name}`")))
        .map(|name| format!("docs/drain-report.md lacks `{name}`"))
        .collect();
    none(&missing);
    // The example is a report, with nothing left out and nothing made up.
    let json = example.split("```json\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
    let read: DrainReport = serde_json::from_str(json).expect("the example is a report");
    let again = serde_json::to_value(&read).expect("plain data");
    let mut shown = BTreeSet::new();
    keys(&serde_json::from_str(json).expect("the example is JSON"), &mut shown);
    let mut written = BTreeSet::new();
    keys(&again, &mut written);
    assert_eq!(shown, written);
}

/// The match fails to compile when a reason is added: then it belongs in the list, and in the page.
#[test]
fn every_reason_for_the_end_of_a_phase_is_documented() {
    let page = read("docs/drain-report.md");
    let all = [
        EndedBy::Quiet,
        EndedBy::NothingListens,
        EndedBy::MinimumPassed,
        EndedBy::NothingInFlight,
        EndedBy::BudgetSpent,
        EndedBy::AppExited,
        EndedBy::AllExited,
        EndedBy::Forced,
        EndedBy::NotActing,
    ];
    for by in all {
        match by {
            EndedBy::Quiet
            | EndedBy::NothingListens
            | EndedBy::MinimumPassed
            | EndedBy::NothingInFlight
            | EndedBy::BudgetSpent
            | EndedBy::AppExited
            | EndedBy::AllExited
            | EndedBy::Forced
            | EndedBy::NotActing => {}
        }
        let name = serde_json::to_value(by).expect("a name");
        let name = name.as_str().expect("a name");
        assert!(page.contains(&format!("\n| `{name}` |")), "docs/drain-report.md lacks {name}");
    }
}

#[test]
fn the_budget_table_is_the_budget() {
    let page = read("docs/run.md");
    let budgets = [30, 60, 120].map(|grace| {
        let shares = Shares { grace: Duration::from_secs(grace), ..Shares::default() };
        Budget::divide(&shares).expect("grace alone is never refused")
    });
    let check = |name: &str, share: fn(&Budget) -> Duration| {
        let cells = budgets.map(|budget| show(share(&budget)).replace('s', " s")).join(" | ");
        let found =
            page.lines().any(|line| line.starts_with(&format!("| {name}")) && line.ends_with(&format!("| {cells} |")));
        assert!(found, "docs/run.md: the row {name:?} should end with | {cells} |");
    };
    check("margin", |budget| budget.margin);
    check("lame duck, at most", |budget| budget.lame_duck);
    check("stopping", |budget| budget.stopping);
    check("draining", |budget| budget.draining);
    assert!(page.contains(&budgets[0].to_string()), "docs/run.md: the sum as it is printed");
}

#[test]
fn every_exit_code_is_documented() {
    let page = read("docs/exit-codes.md");
    let mut found = 0;
    for source in ["crates/lameduck/src/exit.rs", "crates/lameduck-run/src/lib.rs"] {
        for line in read(source).lines() {
            let Some((name, value)) = line.strip_prefix("pub const ").and_then(|rest| rest.split_once(": u8 = "))
            else {
                continue;
            };
            let row = format!("\n| {} | `{name}` |", value.trim_end_matches(';'));
            assert!(page.contains(&row), "docs/exit-codes.md lacks {} ({name} in {source})", row.trim());
            found += 1;
        }
    }
    assert!(found >= 8, "only {found} constants were found: are they written otherwise now?");
}

/// What may stand in a path.
fn in_path(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_-./".contains(c)
}

#[test]
fn every_path_named_exists() {
    let mut complaints = Vec::new();
    for page in pages() {
        let text = fs::read_to_string(&page).expect("a page");
        for folder in ["docs/", "crates/", "fuzz/", "xtask/"] {
            for (at, _) in text.match_indices(folder) {
                // Within a longer path, or an address of somebody else's.
                if text[..at].chars().next_back().is_some_and(|c| in_path(c) || c == ':') {
                    continue;
                }
                let named: String = text[at..].chars().take_while(|c| in_path(*c)).collect();
                let named = named.trim_end_matches(['.', '/']);
                // A word in capitals stands for another: `docs/causes/ID.md`.
                let stands_for = |part: &str| part.len() > 1 && part.chars().all(|c| c.is_ascii_uppercase());
                if named.split(['/', '.']).any(stands_for) || named == "fuzz/target" {
                    continue;
                }
                if !root().join(named).exists() {
                    complaints.push(format!("{}: {named} does not exist", page.display()));
                }
            }
        }
    }
    none(&complaints);
}

/// The anchor that a heading gets.
fn anchor(heading: &str) -> String {
    heading
        .to_lowercase()
        .chars()
        .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

#[test]
fn every_relative_link_leads_somewhere() {
    let mut complaints = Vec::new();
    for page in pages() {
        let text = fs::read_to_string(&page).expect("a page");
        for (at, _) in text.match_indices("](") {
            let target: String = text[at + 2..].chars().take_while(|c| *c != ')').collect();
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (file, fragment) = target.split_once('#').unwrap_or((&target, ""));
            let path = if file.is_empty() { page.clone() } else { page.with_file_name(file) };
            let leads = match fs::read_to_string(&path) {
                Ok(text) if !fragment.is_empty() => text
                    .lines()
                    .filter(|line| line.starts_with('#'))
                    .any(|line| anchor(line.trim_start_matches('#').trim()) == fragment),
                Ok(_) => true,
                Err(_) => fragment.is_empty() && path.exists(),
            };
            if !leads {
                complaints.push(format!("{}: {target} leads nowhere", page.display()));
            }
        }
    }
    none(&complaints);
}
