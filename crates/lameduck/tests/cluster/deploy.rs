//! What is shipped in deploy/ passes our own check, and says only what the program understands.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::webhook::LAMEDUCK;

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy")
}

fn found(args: &[&Path], stdin: Option<String>) -> (Option<i32>, String) {
    use std::io::Write;
    use std::process::Stdio;
    let mut check = Command::new(LAMEDUCK);
    check.args(["check", "--fail-on", "note", "--no-render"]).args(args).stdout(Stdio::piped()).stdin(Stdio::piped());
    let mut child = check.spawn().unwrap();
    child.stdin.take().unwrap().write_all(stdin.unwrap_or_default().as_bytes()).unwrap();
    let out = child.wait_with_output().unwrap();
    (out.status.code(), String::from_utf8_lossy(&out.stdout).into_owned())
}

#[test]
fn our_own_manifests_have_no_finding() {
    let (status, said) = found(&[&deploy().join("webhook.yaml")], None);
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("1 workloads: 0 errors, 0 warnings, 0 notes") && said.contains("0 not understood"), "{said}");
}

/// The chart with its defaults, in the namespace `lameduck`: no finding, and the same objects as the plain manifests.
#[test]
fn our_own_chart_has_no_finding() {
    let template = |more: &[&str]| {
        let mut helm = Command::new("helm");
        helm.args(["template", "lameduck", "--namespace", "lameduck"]).args(more).arg(deploy().join("chart"));
        helm.output().ok()
    };
    let Some(out) = template(&[]) else {
        println!("SKIPPED our_own_chart_has_no_finding: needs helm, which is not installed");
        return;
    };
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let (status, said) = found(&[Path::new("-")], Some(text.clone()));
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("1 workloads: 0 errors, 0 warnings, 0 notes"), "{said}");
    let plain = std::fs::read_to_string(deploy().join("webhook.yaml")).unwrap();
    let kinds = |text: &str| {
        let mut kinds: Vec<String> =
            text.lines().filter_map(|line| line.strip_prefix("kind: ")).map(str::to_owned).collect();
        kinds.sort();
        kinds
    };
    let mut expect = kinds(&plain);
    // helm makes the namespace, if it is asked to.
    expect.retain(|kind| kind != "Namespace");
    assert_eq!(kinds(&text), expect);
    let all = ["--set", "defaults.log-format=json,registries={ghcr.io},noRegistry=true,enforce=error"];
    let out = template(&all).unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    understood(&words(&text));
    for expect in ["--default=log-format=json", "--registry=ghcr.io", "--no-registry", "--enforce=error"] {
        assert!(text.contains(expect), "{expect}: {text}");
    }
}

#[test]
fn the_arguments_in_the_manifests_are_options() {
    let plain = std::fs::read_to_string(deploy().join("webhook.yaml")).unwrap();
    understood(&words(&plain));
    let chart = std::fs::read_to_string(deploy().join("chart/templates/webhook.yaml")).unwrap();
    understood(&words(&chart));
}

fn words(text: &str) -> Vec<String> {
    let end = |c: char| !(c.is_ascii_lowercase() || c == '-');
    text.split("--").skip(1).filter_map(|word| word.split(end).next()).map(str::to_owned).collect()
}

fn understood(words: &[String]) {
    // The `--` of `lameduck run --`, and of `---`.
    let words: Vec<&String> = words.iter().filter(|word| !word.is_empty() && *word != "-").collect();
    assert!(words.iter().any(|word| *word == "image"), "{words:?}");
    let verb = lameduck::cli::VERBS.iter().find(|verb| verb.name == "webhook").unwrap();
    for word in words {
        assert!(verb.flags.iter().any(|flag| flag.long == word), "--{word} is no option of lameduck webhook");
    }
}

#[test]
fn every_annotation_is_documented() {
    let page = std::fs::read_to_string(deploy().join("../docs/webhook.md")).unwrap();
    for (name, meaning) in lameduck_cluster::annotation::OWN {
        let row = page.lines().find(|line| line.starts_with(&format!("| `lameduck.dev/{name}` | ")));
        let row = row.unwrap_or_else(|| panic!("docs/webhook.md lacks lameduck.dev/{name}"));
        let begins: String = meaning.split(':').next().unwrap_or_default().chars().take(20).collect();
        assert!(row.contains(&begins), "{row} does not say {meaning}");
    }
    for host in lameduck_cluster::registry::PUBLIC {
        assert!(page.contains(host), "docs/webhook.md lacks {host}");
    }
}
