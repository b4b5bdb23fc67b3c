//! Every rule's page is a test: what it says is found is found, at its lines; what it says is fine is fine; and a fix
//! makes the finding go away without making another.
#![expect(clippy::unwrap_used, reason = "tests fail by panic")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use lameduck_check::{Options, Outcome, check, rule, rules};

/// A file of an example, and the lines at which the rule finds something.
struct File {
    name: String,
    text: String,
    lines: BTreeSet<u32>,
}

/// The files of a part of a page: fenced blocks, with `NAME` and `found=LINES` after the language.
fn files(page: &str, part: &str) -> Vec<File> {
    let Some((_, rest)) = page.split_once(&format!("\n## {part}\n")) else { return Vec::new() };
    let rest = rest.split("\n## ").next().unwrap();
    rest.split("\n```")
        .skip(1)
        .step_by(2)
        .map(|block| {
            let (head, text) = block.split_once('\n').unwrap();
            let words: Vec<&str> = head.split_whitespace().collect();
            let found = words.get(2).and_then(|word| word.strip_prefix("found=")).unwrap_or_default();
            let lines = found.split(',').filter(|line| !line.is_empty()).map(|line| line.parse().unwrap()).collect();
            File { name: words[1].to_owned(), text: format!("{text}\n"), lines }
        })
        .collect()
}

fn run(files: &[File], dir: &Path) -> Outcome {
    for file in files {
        fs::write(dir.join(&file.name), &file.text).unwrap();
    }
    check(&Options { paths: vec![dir.to_owned()], ..Options::default() })
}

fn found(outcome: &Outcome, rule: &str) -> BTreeSet<(String, u32)> {
    let of_rule = outcome.findings().unwrap().into_iter().filter(|finding| finding.rule == rule);
    of_rule.map(|finding| (finding.file.rsplit('/').next().unwrap().to_owned(), finding.line)).collect()
}

#[test]
fn every_page_is_whole() {
    let mut complaints = Vec::new();
    for (name, summary) in rules() {
        let page = rule(name).unwrap();
        for part in ["Why", "Found", "Fine", "What to do", "Sources"] {
            if !page.contains(&format!("\n## {part}\n")) {
                complaints.push(format!("{name}: no part {part}"));
            }
        }
        let sources = page.split_once("\n## Sources\n").map_or("", |(_, rest)| rest);
        if !sources.contains("<https://") {
            complaints.push(format!("{name}: no source"));
        }
        if !page.starts_with(&format!("# `{name}`\n\n")) || !summary.ends_with('.') {
            complaints.push(format!("{name}: the title is its name, and one sentence follows"));
        }
        let cause = page.split("Cause: `").nth(1).and_then(|rest| rest.split('`').next()).unwrap_or_default();
        if lameduck_core::Cause::from_id(cause).is_none() {
            complaints.push(format!("{name}: {cause:?} is no cause"));
        }
        if files(page, "Found").iter().all(|file| file.lines.is_empty()) || files(page, "Fine").is_empty() {
            complaints.push(format!("{name}: an example of each kind is needed"));
        }
    }
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn every_example_says_what_is_true() {
    let mut complaints = Vec::new();
    for (name, _) in rules() {
        let page = rule(name).unwrap();
        for part in ["Found", "Fine"] {
            let dir = tempfile::tempdir().unwrap();
            let example = files(page, part);
            let outcome = run(&example, dir.path());
            let expect: BTreeSet<(String, u32)> =
                example.iter().flat_map(|file| file.lines.iter().map(|line| (file.name.clone(), *line))).collect();
            let got = found(&outcome, name);
            if got != expect {
                let all: Vec<String> =
                    outcome.findings().unwrap().iter().map(|f| format!("{}:{} {}", f.file, f.line, f.rule)).collect();
                complaints.push(format!("{name}, {part}: expected {expect:?}, found {got:?}; all: {all:?}"));
            }
            if !outcome.document.unparsed.is_empty() {
                complaints.push(format!("{name}, {part}: not understood: {:?}", outcome.document.unparsed));
            }
        }
    }
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

/// All rules, before and after: a fix takes its finding away and brings no other.
#[test]
fn a_fix_removes_its_finding_and_makes_no_other() {
    let mut complaints = Vec::new();
    let mut fixed = 0;
    for (name, _) in rules() {
        let dir = tempfile::tempdir().unwrap();
        let before = run(&files(rule(name).unwrap(), "Found"), dir.path());
        let fixable = before.findings().unwrap().iter().any(|finding| finding.rule == name && finding.fix.is_some());
        if !fixable {
            continue;
        }
        fixed += 1;
        for _ in 0..3 {
            let outcome = check(&Options { paths: vec![dir.path().to_owned()], ..Options::default() });
            for change in outcome.changes(true).unwrap() {
                fs::write(&change.path, &change.after).unwrap();
            }
        }
        let after = check(&Options { paths: vec![dir.path().to_owned()], ..Options::default() });
        let old: BTreeSet<&str> = before.findings().unwrap().iter().map(|finding| finding.rule).collect();
        let new: BTreeSet<&str> = after.findings().unwrap().iter().map(|finding| finding.rule).collect();
        if new.contains(name) {
            complaints.push(format!("{name} is still there after its fix"));
        }
        if !new.is_subset(&old) {
            complaints.push(format!("{name}: the fix brought {:?}", new.difference(&old).collect::<Vec<_>>()));
        }
        if !after.document.unparsed.is_empty() {
            complaints.push(format!("{name}: the fixed files are not understood: {:?}", after.document.unparsed));
        }
    }
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
    assert!(fixed > 15, "{fixed}");
}
