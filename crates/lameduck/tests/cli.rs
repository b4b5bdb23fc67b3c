//! The command line as a contract: exit codes, JSON, and errors that say what to do.
#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests are at the edge, and fail by panic")]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

const LAMEDUCK: &str = env!("CARGO_BIN_EXE_lameduck");

fn lameduck(args: &[&str]) -> Output {
    let mut command = Command::new(LAMEDUCK);
    command.args(args).env_clear().env("PATH", std::env::var_os("PATH").unwrap());
    command.output().unwrap()
}

/// Runs, expects this status, and this on standard error.
fn check(args: &[&str], status: i32, says: &str) -> Output {
    let out = lameduck(args);
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(status), "{args:?}: {stderr}");
    assert!(stderr.contains(says), "{args:?}: {stderr}");
    out
}

#[test]
fn errors_say_what_was_read_and_what_was_expected() {
    check(&[], 2, "Usage: lameduck VERB");
    check(&["dril"], 2, "did you mean \"drill\"?");
    check(&["run"], 125, "no command was given");
    check(&["run", "--grce", "3", "--", "x"], 125, "did you mean --grace?");
    check(&["run", "--grace", "soon", "--", "x"], 125, "--grace: read \"soon\", expected seconds, or a number with ms");
    check(&["run", "--rewrite", "15", "--", "x"], 125, "expected FROM:TO");
    check(&["run", "--min", "40s", "--", "x"], 125, "= 42s, but --grace is 30s");
    check(
        &["run", "--hold", "3s", "--", "x"],
        125,
        "--hold is an option of the front, and there is none: give --listen",
    );
    check(&["run", "--listen", "8080", "--", "x"], 125, "--listen: read \"8080\", expected an address with a port");
    check(&["run", "--listen", ":1", "--upstream", "app:80", "--", "x"], 125, "names are not looked up");
    check(&["run", "--listen", ":1", "--long-poll", "/a", "--", "x"], 125, "expected PREFIX=STATUS");
    check(&["run", "--listen", ":1", "--hold-bytes", "much", "--", "x"], 125, "as in 65536, 64k or 64M");
    check(
        &["run", "--mode", "off", "--listen", ":1", "--upstream", ":2", "--", "x"],
        125,
        "nothing would listen at --listen [::]:1 and pass on to --upstream 127.0.0.1:2; leave --upstream out",
    );
    check(&["front"], 125, "no --listen was given");
    check(&["front", "--listen", ":1"], 125, "no --upstream was given");
    check(&["front", "--listen", ":1", "--upstream", ":2", "--", "x"], 125, "use lameduck run --listen");
    check(&["serve-front"], 2, "is for lameduck run --listen and lameduck front only");
    check(&["drill"], 2, "no command");
    check(&["drill", "--event", "explode", "--", "x"], 2, "no action \"explode\"");
    check(&["drill", "--profile", "f5", "--", "x"], 2, "expected one of glb, alb, nginx, envoy, go-client");
    check(&["drill", "--quiet", "--", "/does/not/exist"], 4, "could not be started");
    check(&["drain", "--pid", "999999999"], 4, "no lameduck runs here");
    check(&["ready", "--pid", "999999999"], 1, "no lameduck runs here");
    check(&["demo", "--app", "cobol"], 2, "expected one of node, puma, gunicorn, go");
}

#[test]
fn variables_are_options_and_service_links_are_not() {
    let with = |name: &str, value: &str, args: &[&str]| {
        let mut command = Command::new(LAMEDUCK);
        command.args(args).env_clear().env("PATH", std::env::var_os("PATH").unwrap()).env(name, value);
        command.output().unwrap()
    };
    let run: &[&str] = &["run", "--", "true"];
    let wrong = with("LAMEDUCK_GRACE", "soon", run);
    assert_eq!(wrong.status.code(), Some(125));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("LAMEDUCK_GRACE: read \"soon\""));
    assert_eq!(
        with("LAMEDUCK_GRACE", "soon", &["run", "--grace", "5", "--", "true"]).status.code(),
        Some(0),
        "options win"
    );
    assert_eq!(with("LAMEDUCK_PORT", "tcp://10.0.0.1:80", run).status.code(), Some(0), "a service called lameduck");
    assert_eq!(with("LAMEDUCK_PORT", "eighty", run).status.code(), Some(125));
    assert_eq!(with("LAMEDUCK_FORCE_ON_REPEAT", "maybe", run).status.code(), Some(125));
    assert_eq!(with("LAMEDUCK_MAP_EXIT", "7=0\n8=0", &["run", "--", "sh", "-c", "exit 8"]).status.code(), Some(0));
    let alone = with("LAMEDUCK_HOLD", "3", run);
    assert!(String::from_utf8_lossy(&alone.stderr).contains("LAMEDUCK_HOLD is an option of the front"));
    assert_eq!(with("LAMEDUCK_MODE", "off", &["run", "--", "sh", "-c", "exit 3"]).status.code(), Some(3));
}

#[test]
fn help_is_help() {
    for verb in ["run", "front", "drain", "ready", "drill", "demo", "check", "rule"] {
        let out = lameduck(&[verb, "--help"]);
        assert_eq!(out.status.code(), Some(0), "{verb}");
        assert_eq!(out.stdout, lameduck(&["help", verb]).stdout);
        let text = String::from_utf8(out.stdout).unwrap();
        assert!(text.contains(&format!("Usage: lameduck {verb}")), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 125), "{text}");
    }
    assert!(String::from_utf8(lameduck(&["--version"]).stdout).unwrap().starts_with("lameduck "));
}

fn balances(drill: &Value) {
    let n = |field: &str| drill[field].as_u64().unwrap_or_else(|| panic!("{field} in {drill}"));
    assert_eq!(drill["schema"], "lameduck.drill/1");
    assert_eq!(n("sent"), n("answered") + n("lost") + n("unknown"));
    let causes: u64 = drill["causes"].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum();
    assert_eq!(n("lost"), causes);
    assert!(drill["losses"].is_array() && drill["lost_after_retries"].is_u64());
    assert!(drill["term_to_exit_s"]["p50"].is_number() && drill["term_to_exit_s"]["max"].is_number());
}

#[test]
fn a_drill_that_loses_says_so_in_every_form() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (json, junit, html) = (file("r.json"), file("r.xml"), file("r.html"));
    let args = [
        &[
            "drill",
            "--quiet",
            "--replicas",
            "2",
            "--rate",
            "200",
            "--duration",
            "2s",
            "--event",
            "term@500ms",
            "--lag",
            "1s",
        ][..],
        &["--min-sample", "100", "--json", &json, "--junit", &junit, "--html", &html, "--", LAMEDUCK, "serve-naive"],
    ]
    .concat();
    let out = check(&args, 1, "");
    assert!(String::from_utf8(out.stdout).unwrap().contains("refused-while-routed"));
    let result: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    balances(&result);
    assert!(result["causes"]["refused-while-routed"].as_u64() > Some(50), "{}", result["causes"]);
    assert!(std::fs::read_to_string(&junit).unwrap().contains("<failure"));
    let page = std::fs::read_to_string(&html).unwrap();
    assert!(page.contains("<svg") && !page.contains("http://") && !page.contains("src=\"http"), "self-contained");
}

#[test]
fn a_drill_that_is_too_small_is_inconclusive() {
    let load = [
        "drill",
        "--quiet",
        "--replicas",
        "2",
        "--rate",
        "20",
        "--duration",
        "2s",
        "--event",
        "term@500ms",
        "--lag",
        "500ms",
    ];
    let service =
        ["--json", "-", "--", LAMEDUCK, "run", "--min", "1s", "--quiet", "500ms", "--", LAMEDUCK, "serve-naive"];
    let out = check(&[&load[..], &service].concat(), 3, "");
    let result: Value = serde_json::from_slice(&out.stdout).unwrap();
    balances(&result);
    assert_eq!(result["lost"], 0);
    assert!(result["sent"].as_u64() < Some(300), "{}", result["sent"]);
}

/// The first command of the README.
#[test]
fn the_demo_loses_plain_and_not_under_lameduck() {
    let dir = tempfile::tempdir().unwrap();
    let began = std::time::Instant::now();
    let mut command = Command::new(LAMEDUCK);
    command.args(["demo", "--quiet", "--json", "demo.json"]).current_dir(dir.path());
    let out = command.output().unwrap();
    assert_eq!(out.status.code(), Some(0), "{}", String::from_utf8_lossy(&out.stdout));
    assert!(began.elapsed() < std::time::Duration::from_mins(1), "{:?}", began.elapsed());
    let result: Value = serde_json::from_slice(&std::fs::read(dir.path().join("demo.json")).unwrap()).unwrap();
    assert_eq!(result["schema"], "lameduck.compare/1");
    balances(&result["plain"]);
    balances(&result["cured"]);
    assert!(result["plain"]["lost"].as_u64() > Some(0));
    assert_eq!(result["cured"]["lost"], 0);
    assert!(Path::new(&dir.path().join("lameduck-demo.html")).exists());
}
