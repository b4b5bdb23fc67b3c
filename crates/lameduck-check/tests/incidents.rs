//! The four incidents: their own files name their causes, at the right place, before anything runs; and the fix helps.
#![expect(clippy::unwrap_used, reason = "tests fail by panic")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use lameduck_check::{Options, Outcome, check};

/// Rule, cause, file, line, column.
type Expected = (&'static str, &'static str, &'static str, u32, u32);

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() { copy(&path, &target) } else { fs::copy(&path, &target).map(|_| ()).unwrap() }
    }
}

fn run(dir: &Path) -> Outcome {
    check(&Options { paths: vec![dir.to_owned()], ..Options::default() })
}

fn rules_at(outcome: &Outcome, dir: &Path) -> BTreeSet<(String, String)> {
    let place =
        |file: &str| file.strip_prefix(dir.to_str().unwrap()).unwrap_or(file).trim_start_matches('/').to_owned();
    outcome.findings().unwrap().iter().map(|finding| (finding.rule.to_owned(), place(&finding.file))).collect()
}

/// Finds what is expected; then makes the safe fixes, then all, and finds it no more, and nothing that was not there before.
fn incident(name: &str, expected: &[Expected]) {
    let dir = tempfile::tempdir().unwrap();
    copy(&files(name, "plain"), dir.path());
    found_and_fixed(name, dir.path(), expected);
}

/// A part of an incident's own files.
fn files(name: &str, part: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../incidents").join(name).join(part)
}

fn found_and_fixed(name: &str, dir: &Path, expected: &[Expected]) {
    let before = run(dir);
    assert!(before.document.unparsed.is_empty(), "{:?}", before.document.unparsed);
    let all: Vec<String> = before
        .findings()
        .unwrap()
        .iter()
        .map(|f| {
            format!(
                "{} {} {}:{}:{} fix {:?}",
                f.rule,
                f.cause,
                f.file,
                f.line,
                f.column,
                f.fix.as_ref().map(|fix| fix.safe)
            )
        })
        .collect();
    for (rule, cause, file, line, column) in expected {
        let found = before.findings().unwrap().iter().any(|finding| {
            finding.rule == *rule
                && finding.cause.id() == *cause
                && finding.file.ends_with(file)
                && (finding.line, finding.column) == (*line, *column)
        });
        assert!(found, "{name}: {rule} ({cause}) at {file}:{line}:{column} is not among\n{}", all.join("\n"));
    }
    for unsafe_too in [false, true] {
        for change in run(dir).changes(unsafe_too).unwrap() {
            fs::write(&change.path, &change.after).unwrap();
        }
        // Nothing safe ends restarts by the clock.
        let left = rules_at(&run(dir), dir);
        for (rule, _, file, ..) in expected.iter().filter(|(rule, ..)| unsafe_too || *rule != "forced-restart") {
            let still = left.iter().any(|(known, at)| known == rule && at.ends_with(file));
            assert!(!still, "{name}: {rule} is still in {file} (unsafe fixes too: {unsafe_too})");
        }
    }
    let after = run(dir);
    let (old, new) = (rules_at(&before, dir), rules_at(&after, dir));
    for (rule, _, file, ..) in expected {
        let still = new.iter().any(|(known, at)| known == rule && at.ends_with(file));
        let text = fs::read_to_string(dir.join(file)).unwrap();
        assert!(!still, "{name}: {rule} is still in {file} after the fix:\n{text}");
    }
    let brought: Vec<_> = new.difference(&old).collect();
    assert!(brought.is_empty(), "{name}: the fix brought {brought:?}");
    assert!(after.document.unparsed.is_empty(), "{name}: {:?}", after.document.unparsed);
}

#[test]
fn gitlab_pid1() {
    incident(
        "gitlab-pid1",
        &[
            ("shell-form-command", "signal-not-delivered", "gitlab-workhorse/Dockerfile", 10, 1),
            ("script-without-exec", "signal-not-delivered", "gitlab-workhorse/scripts/start-workhorse", 7, 1),
            ("neighbour-leaves-first", "peer-down", "deploy.yaml", 26, 17),
        ],
    );
}

#[test]
fn passenger_sigterm() {
    incident(
        "passenger-sigterm",
        &[
            ("stop-signal-cuts", "cut-mid-response", "Dockerfile", 6, 1),
            ("prestop-missing", "refused-while-routed", "deploy.yaml", 13, 15),
            ("scale-down-faster-than-drain", "cut-mid-response", "deploy.yaml", 34, 9),
        ],
    );
}

/// The story's own cure has no finding about its end; with the platform's grace it has the one that the story warns of.
#[test]
fn passenger_sigterm_cured() {
    let dir = tempfile::tempdir().unwrap();
    copy(&files("passenger-sigterm", "fixed"), dir.path());
    let rules: BTreeSet<_> = rules_at(&run(dir.path()), dir.path()).into_iter().map(|(rule, _)| rule).collect();
    assert_eq!(rules, BTreeSet::from(["scale-down-faster-than-drain".to_owned()]));

    let manifest = dir.path().join("deploy.yaml");
    let text = fs::read_to_string(&manifest).unwrap();
    let shorter: Vec<_> = text.lines().filter(|line| !line.contains("terminationGracePeriodSeconds")).collect();
    fs::write(&manifest, shorter.join("\n") + "\n").unwrap();
    let expected = [("trap-outlasts-grace", "killed-at-deadline", "script/entrypoint", 3, 1)];
    found_and_fixed("passenger-sigterm", dir.path(), &expected);
}

#[test]
fn taskcluster_glb() {
    incident(
        "taskcluster-glb",
        &[
            ("keepalive-order", "idle-close-race", "queue/src/main.js", 7, 1),
            ("stop-signal-cuts", "cut-mid-response", "queue/src/main.js", 11, 29),
            ("stop-signal-cuts", "cut-mid-response", "ingress/Dockerfile", 4, 1),
            ("prestop-missing", "refused-while-routed", "k8s.yaml", 18, 17),
            ("prestop-missing", "refused-while-routed", "ingress.yaml", 17, 17),
            ("neg-missing", "refused-while-routed", "k8s.yaml", 31, 9),
            ("drain-timeout-missing", "cut-mid-response", "k8s.yaml", 44, 9),
            ("scale-down-faster-than-drain", "cut-mid-response", "k8s.yaml", 70, 9),
            ("forced-restart", "crash-restart", "k8s.yaml", 89, 9),
        ],
    );
}

#[test]
fn gke_keepalive() {
    incident(
        "gke-keepalive",
        &[
            ("socket-timeout-not-keepalive", "idle-close-race", "server.js", 11, 3),
            ("keepalive-order", "idle-close-race", "server.js", 3, 1),
        ],
    );
}
