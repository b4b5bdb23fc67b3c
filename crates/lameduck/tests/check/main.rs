//! `lameduck check` and `lameduck rule` as contracts: exit statuses, formats, fixes, and files that are refused.
#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests are at the edge, and fail by panic")]

mod formats;
mod helm;
mod measured;
mod schema;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

const LAMEDUCK: &str = env!("CARGO_BIN_EXE_lameduck");

fn lameduck(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(LAMEDUCK);
    command.args(args).current_dir(dir).env_clear().env("PATH", std::env::var_os("PATH").unwrap());
    command.output().unwrap()
}

fn stdout(out: &Output) -> String {
    String::from_utf8(out.stdout.clone()).unwrap()
}

/// A folder of files.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::create_dir_all(dir.path().join(name).parent().unwrap()).unwrap();
        fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

const BAD: &str = "FROM debian:12\nCMD /server --port 8080\n";
const GOOD: &str = "FROM debian:12\nCMD [\"/server\", \"--port\", \"8080\"]\n";

#[test]
fn exit_statuses() {
    let check = |files: &[(&str, &str)], args: &[&str], status: i32| {
        let out = lameduck(folder(files).path(), args);
        assert_eq!(
            out.status.code(),
            Some(status),
            "{args:?}: {}{}",
            stdout(&out),
            String::from_utf8_lossy(&out.stderr)
        );
        out
    };
    check(&[("Dockerfile", GOOD)], &["check"], 0);
    check(&[("Dockerfile", BAD)], &["check"], 1);
    check(&[("Dockerfile", BAD)], &["check", ".", "--fail-on", "never"], 0);
    check(&[("Dockerfile", BAD)], &["check", "--fail-on=error", "Dockerfile"], 1);
    check(&[("Dockerfile", BAD)], &["check", "--fail-on", "sometimes"], 2);
    check(&[("Dockerfile", BAD)], &["check", "--farmat", "json"], 2);
    let out = check(&[("Dockerfile", BAD)], &["check", "Dockerfile", "missing.yaml"], 3);
    assert!(stdout(&out).contains("shell-form-command"), "the rest is checked: {}", stdout(&out));
    assert!(stdout(&out).contains("missing.yaml"), "{}", stdout(&out));
    check(&[("lameduck.toml", "[check]\nfail_on = \"error\"\n")], &["check"], 2);
    check(&[("Dockerfile", BAD), ("lameduck.toml", "[check]\nfail-on = \"never\"\n")], &["check"], 0);
}

#[test]
fn rules_explain_themselves() {
    let dir = folder(&[]);
    let list = stdout(&lameduck(dir.path(), &["rule", "--list"]));
    assert!(list.lines().count() > 40, "{list}");
    let page = stdout(&lameduck(dir.path(), &["rule", "prestop-missing"]));
    assert!(page.starts_with("# `prestop-missing`") && page.contains("## Sources"), "{page}");
    let wrong = lameduck(dir.path(), &["rule", "prestop-mising"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("did you mean prestop-missing"));
}

#[test]
fn every_rule_is_in_the_book() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/check.md")).unwrap();
    for (name, summary) in lameduck_check::rules() {
        let row = format!("| [{name}](../crates/lameduck-check/src/rules/{}.md) | {summary} |", name.replace('-', "_"));
        assert!(page.contains(&row), "docs/check.md lacks: {row}");
    }
}

/// The words of a text that begin with `--`, and the variables that stand for options.
fn options_in(text: &str) -> Vec<String> {
    let words = text.split_whitespace().map(|word| word.trim_matches(['"', '\'', ';']));
    let stated = words.clone().filter_map(|word| word.strip_prefix("--")).map(str::to_owned);
    let set = words.filter_map(|word| word.strip_prefix("LAMEDUCK_")?.strip_suffix(':'));
    stated.chain(set.map(|name| name.to_lowercase().replace('_', "-"))).collect()
}

#[test]
fn the_action_and_the_hook_name_options_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let help = stdout(&lameduck(folder(&[]).path(), &["check", "--help"]));
    for (name, least) in [("action.yml", 4), (".pre-commit-hooks.yaml", 0)] {
        let text = fs::read_to_string(root.join(name)).unwrap();
        assert!(text.contains("lameduck check"), "{name}");
        let options = options_in(&text);
        assert!(options.len() >= least, "{name}: {options:?}");
        for option in options {
            assert!(help.contains(&format!("--{option}")), "{name}: check has no --{option}");
        }
    }
}

/// More workloads than are kept: their files are read again for the output, in the same order.
#[test]
fn many_workloads_are_all_told_in_order() {
    let pod = |n: usize| {
        let name = format!("pod-{n:03}");
        let text = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  containers: [{{name: c, image: nginx}}]\n"
        );
        (format!("{name}.yaml"), text)
    };
    let pods: Vec<_> = (0..300).map(pod).collect();
    let mut files: Vec<(&str, &str)> = pods.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    files.push(("z.Dockerfile", GOOD));
    let dir = folder(&files);
    let out = stdout(&lameduck(dir.path(), &["check", "--format", "json"]));
    let told: serde_json::Value = serde_json::from_str(&out).unwrap();
    let names: Vec<&str> = told["workloads"].as_array().unwrap().iter().map(|w| w["name"].as_str().unwrap()).collect();
    assert_eq!((names.len(), names[0], names[1], names[300]), (301, "z.Dockerfile", "pod-000", "pod-299"));
    let text = stdout(&lameduck(dir.path(), &["check"]));
    assert!(text.contains("301 files, 301 workloads"), "{text}");
}

#[test]
fn ignores_need_a_reason() {
    let with = |reason: &str| {
        let text = format!("FROM debian:12\n# lameduck: ignore[shell-form-command]{reason}\nCMD /server\n");
        let dir = folder(&[("Dockerfile", &text)]);
        let out = lameduck(dir.path(), &["check", "--format", "json"]);
        serde_json::from_str::<serde_json::Value>(&stdout(&out)).unwrap()
    };
    let followed = with(" it runs under docker run --init only");
    assert_eq!(followed["findings"].as_array().unwrap().len(), 0);
    assert_eq!(followed["ignored"][0]["rule"], "shell-form-command");
    let not = with("");
    assert_eq!(not["findings"].as_array().unwrap().len(), 1);
    assert!(not["unparsed"][0]["reason"].as_str().unwrap().contains("has no reason"));
}

#[test]
fn a_baseline_hides_what_is_known() {
    let dir = folder(&[("Dockerfile", BAD)]);
    assert_eq!(lameduck(dir.path(), &["check", "--write-baseline", "known.json"]).status.code(), Some(1));
    assert_eq!(lameduck(dir.path(), &["check", "--baseline", "known.json"]).status.code(), Some(0));
    fs::write(dir.path().join("x.Dockerfile"), BAD).unwrap();
    assert_eq!(lameduck(dir.path(), &["check", "--baseline", "known.json"]).status.code(), Some(1));
}

/// Comments, quoting, order, blanks and line ends stay; only what a finding is about changes.
#[test]
fn a_fix_changes_what_it_has_to_and_nothing_else() {
    let manifest = "# ours\r\napiVersion: apps/v1\r\nkind: Deployment\r\nmetadata: {name: \"web\"}   # kept\r\nspec:\r\n  \
                    template:\r\n    spec:\r\n      terminationGracePeriodSeconds:   30 # the default\r\n      containers:\r\n      \
                    - name: web\r\n        image: 'x'\r\n        lifecycle: {preStop: {sleep: {seconds: 30}}}\r\n";
    let dir = folder(&[("deploy.yaml", manifest), ("Dockerfile", BAD)]);
    let before = (manifest.to_owned(), BAD.to_owned());
    let diff = stdout(&lameduck(dir.path(), &["check", "--fix", "--diff"]));
    assert!(diff.contains("+CMD exec /server --port 8080") && diff.contains("-CMD /server --port 8080"), "{diff}");
    assert_eq!(fs::read_to_string(dir.path().join("deploy.yaml")).unwrap(), before.0, "--diff writes nothing");
    lameduck(dir.path(), &["check", "--fix"]);
    let manifest = fs::read_to_string(dir.path().join("deploy.yaml")).unwrap();
    assert_eq!(manifest, before.0.replace("  30 # the", "  65 # the"));
    assert_eq!(fs::read_to_string(dir.path().join("Dockerfile")).unwrap(), before.1.replace("CMD /", "CMD exec /"));
    lameduck(dir.path(), &["check", "--fix"]);
    assert_eq!(fs::read_to_string(dir.path().join("deploy.yaml")).unwrap(), manifest, "a second run changes nothing");
}

/// Refused with a reason, in bounded time.
#[test]
fn pathological_yaml_is_refused() {
    let mut laughs = String::from("apiVersion: v1\nkind: ConfigMap\na: &a [x, x, x, x, x, x, x, x, x]\n");
    for (name, before) in ('b'..='z').zip('a'..='y') {
        let _ = writeln!(laughs, "{name}: &{name} [{}]", vec![format!("*{before}"); 9].join(", "));
    }
    let many = format!("a: &a 1\nb: [{}]\n", "*a, ".repeat(20_000));
    let cases = [
        ("[".repeat(1_000_000), Some("recursion limit")),
        ("{a: ".repeat(1_000_000), Some("recursion limit")),
        ("- ".repeat(500_000), Some("nested more than")),
        ("a: &a [*a]\n".to_owned(), Some("")),
        (many, Some("aliases")),
        (format!("a: [{}]\n", "1,".repeat(3_000_000)), Some("nodes")),
        // Nine to the twenty-fifth elements, if anybody counted them; nobody does.
        (laughs, None),
        ("\"".to_owned() + &"a\n".repeat(400_000), Some("")),
    ];
    for (text, expect) in cases {
        let dir = folder(&[("x.yaml", &text)]);
        let began = Instant::now();
        let out = lameduck(dir.path(), &["check", "--format", "json"]);
        let took = began.elapsed();
        let shown: String = text.chars().take(20).collect();
        assert!(took < Duration::from_secs(20), "{shown:?} took {took:?}");
        assert_eq!(out.status.code(), Some(0), "{shown:?}");
        let json: serde_json::Value = serde_json::from_str(&stdout(&out)).unwrap();
        let reason = json["unparsed"][0]["reason"].as_str();
        assert_eq!(reason.is_some(), expect.is_some(), "{shown:?}: {reason:?}");
        assert!(reason.unwrap_or_default().contains(expect.unwrap_or_default()), "{shown:?}: {reason:?}");
    }
}

#[test]
fn standard_input_and_templates() {
    let dir = folder(&[
        ("Dockerfile.j2", "FROM {{ base }}\n"),
        ("chart/Chart.yaml", "name: x\n"),
        ("chart/templates/a.yaml", "{{ x }}"),
    ]);
    let out = stdout(&lameduck(dir.path(), &["check"]));
    assert!(out.contains("Dockerfile.j2:1: a template"), "{out}");
    assert!(out.contains("a Helm chart") || out.contains("helm"), "{out}");
    let mut command = Command::new(LAMEDUCK);
    command
        .args(["check", "-", "--format", "json"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), BAD.as_bytes()).unwrap();
    let out = child.wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(1));
    assert!(String::from_utf8(out.stdout).unwrap().contains("\"file\": \"-\""));
}
