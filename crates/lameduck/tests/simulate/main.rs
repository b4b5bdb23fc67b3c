//! `lameduck simulate` as a program, its staircase, and its intervals against drills of real servers.

mod heldout;
mod staircase;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Runs the verb with an empty environment.
fn simulate(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lameduck"))
        .arg("simulate")
        .args(args)
        .current_dir(folder)
        .env_clear()
        .output()
        .expect("lameduck")
}

fn json(folder: &Path, args: &[&str]) -> Value {
    let out = simulate(folder, &[args, &["--format", "json"]].concat());
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).expect("JSON")
}

const MANIFEST: &str = "apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 4
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
        - name: app
          command: [gunicorn, --worker-class, gthread, app:app]
          ports: [{containerPort: 8000}]
          readinessProbe: {httpGet: {path: /, port: 8000}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: batch}
spec:
  template:
    metadata: {labels: {app: batch}}
    spec: {containers: [{name: app, image: batch}]}
";

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("web.yaml"), MANIFEST).expect("a file");
    folder
}

#[test]
fn the_same_seed_says_the_same_and_options_may_follow_paths() {
    let folder = folder();
    let run = |args: &[&str]| simulate(folder.path(), args).stdout;
    let first = run(&["--seed", "7", "--runs", "3", "."]);
    assert!(!first.is_empty());
    assert_eq!(first, run(&[".", "--seed", "7", "--runs", "3"]));
    assert_ne!(first, run(&["--seed", "8", "--runs", "3", "."]));
}

#[test]
fn what_files_say_is_used_what_they_do_not_is_told_and_what_cannot_be_is_left_out() {
    let folder = folder();
    let report = json(folder.path(), &["--runs", "3", "--lag", "4s", "--rate", "80"]);
    assert_eq!(report["schema"], "lameduck.simulate/1");
    let service = &report["fleet"]["services"][0];
    assert_eq!((service["replicas"].as_f64(), service["traffic"]["rate"].as_f64()), (Some(4.0), Some(80.0)));
    // gunicorn's threads close after 2 s; check's lag is that of --lag.
    assert_eq!(service["server"]["idle"]["least"], 2.0);
    assert_eq!(service["routing"]["lag"]["most"], 4.0);
    assert_eq!(service["server"]["readiness_s"], 30.0);
    let told = |what: &str| report["assumed"].as_array().into_iter().flatten().any(|one| one["what"] == what);
    assert!(told("rollouts a day") && told("who is in front"), "{}", report["assumed"]);
    assert!(!told("routing lag") && !told("requests a second to each replica"), "{}", report["assumed"]);
    assert_eq!(report["left_out"][0]["name"], "batch");
}

#[test]
fn a_fix_that_is_made_is_no_longer_offered() {
    let folder = folder();
    let offered = |report: &Value| -> Vec<String> {
        let all = report["effects"].as_array().into_iter().flatten();
        all.filter_map(|step| step["fix"].as_str().map(str::to_owned)).collect()
    };
    let plain = json(folder.path(), &["--runs", "3"]);
    let fixed = json(folder.path(), &["--runs", "3", "--fix", "keep-alive-order", "--fix", "pre-stop"]);
    assert!(offered(&plain).contains(&"keep-alive-order".to_owned()), "{:?}", offered(&plain));
    assert!(!offered(&fixed).contains(&"keep-alive-order".to_owned()), "{:?}", offered(&fixed));
    assert!(fixed["lost"]["mean"].as_f64() < plain["lost"]["mean"].as_f64());
}

#[test]
fn complaints_say_what_was_expected_and_statuses_are_those_of_the_contract() {
    let folder = folder();
    let check = |args: &[&str], status: i32, expect: &str| {
        let out = simulate(folder.path(), args);
        let said = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(status), "{args:?}: {said}");
        assert!(said.contains(expect), "{args:?}: {said}");
    };
    check(&["--fix", "sleep"], 2, "expected one of container-native, keep-alive-order");
    check(&["--runs", "0"], 2, "expected a number from 1");
    check(&["--traffic", "none.toml"], 4, "none.toml");
    check(&["nowhere"], 4, "nowhere");
    check(&["--output", "/dev/null/x"], 4, "could not be written");
    std::fs::write(folder.path().join("t.toml"), "[default]\nspeed = 1\n").expect("a file");
    check(&["--traffic", "t.toml"], 2, "unknown field `speed`");
    std::fs::create_dir(folder.path().join("empty")).expect("a folder");
    check(&["empty"], 3, "nothing to simulate");
}

#[test]
fn the_page_is_one_file_and_every_cause_in_it_has_a_colour() {
    let folder = folder();
    let out = simulate(folder.path(), &["--runs", "3", "--staircase", "--format", "html"]);
    let page = String::from_utf8(out.stdout).expect("UTF-8");
    for outside in ["<script", "src=", "href=", "url(", "@import"] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert!(page.contains("prefers-color-scheme:dark") && page.contains("<svg"));
    for cause in lameduck_core::Cause::ALL {
        assert!(page.contains(&format!(".{cause}{{fill:")), "{cause}");
    }
}
