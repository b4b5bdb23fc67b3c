//! Each incident once, in its short form: what it showed is what the story says, and the cure loses nothing.
#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "tests fail by panic, and say what they skip")]

use std::process::Command;
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

/// One at a time: each of them measures times.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Runs an incident; none where a component, or the right to make namespaces, is missing.
fn run(name: &str) -> Option<Value> {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("result.json");
    let output = Command::new(env!("CARGO_BIN_EXE_lameduck"))
        .args(["incident", name, "--short", "--quiet", "--json"])
        .arg(&json)
        .arg("--html")
        .arg(folder.path().join("page.html"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(4) && said.contains("skipped: ") {
        eprintln!("SKIPPED {name}: {}", said.trim());
        return None;
    }
    assert_eq!(output.status.code(), Some(0), "{said}");
    let result: Value = serde_json::from_str(&std::fs::read_to_string(json).unwrap()).unwrap();
    assert_eq!(result["schema"], "lameduck.incident/1");
    let page = std::fs::read_to_string(folder.path().join("page.html")).unwrap();
    assert!(page.contains(name) && page.contains("in the story"), "the page tells the story");
    Some(result["incidents"][0].clone())
}

fn lost(drill: &Value, cause: &str) -> u64 {
    drill["causes"][cause].as_u64().unwrap_or(0)
}

fn check(name: &str, causes: &[&str]) {
    let Some(result) = run(name) else { return };
    assert_eq!(result["passed"], true);
    for cause in causes {
        assert!(lost(&result["plain"], cause) > 0, "plain: {cause}");
        let in_files = result["check"].as_array().unwrap();
        assert!(in_files.iter().any(|finding| finding["cause"] == *cause), "check: {cause}");
        let explained = result["explain"].as_array().unwrap();
        let names = |report: &Value| report["causes"].as_array().unwrap().iter().any(|found| found["cause"] == *cause);
        let skipped = result["skipped"].as_array().unwrap();
        assert!(explained.iter().any(names) || !skipped.is_empty(), "explain: {cause}");
    }
    assert_eq!(result["cured"]["lost"], 0);
    assert_eq!(result["cured"]["unknown"], 0);
}

#[test]
fn gitlab_pid1() {
    check("gitlab-pid1", &["signal-not-delivered", "peer-down"]);
}

#[test]
fn passenger_sigterm() {
    check("passenger-sigterm", &["cut-mid-response", "refused-while-routed"]);
}

#[test]
fn taskcluster_glb() {
    check("taskcluster-glb", &["idle-close-race", "refused-while-routed", "cut-mid-response", "crash-restart"]);
}

#[test]
fn gke_keepalive() {
    check("gke-keepalive", &["idle-close-race"]);
}

#[test]
fn what_is_missing_is_said_and_fails_if_asked() {
    let run = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_lameduck")).args(args).env("PATH", "/nowhere").output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (status, said) = run(&["incident", "gke-keepalive", "--short"]);
    assert_eq!(status, Some(4), "{said}");
    assert!(said.contains("skipped: not in PATH: unshare (Debian: util-linux)"), "{said}");
    assert_eq!(run(&["incident", "gke-keepalive", "--strict"]).0, Some(1));
    let (status, said) = run(&["incident", "--list"]);
    assert_eq!(status, Some(0));
    assert!(said.contains("gke-keepalive") && said.contains("can not be run here"), "{said}");
    assert_eq!(run(&["incident", "no-such"]).0, Some(2));
    assert_eq!(run(&["incident"]).0, Some(2));
}
