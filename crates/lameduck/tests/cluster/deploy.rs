//! What is shipped in deploy/ passes our own check, and says only what the program understands.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::real::{Cluster, folder_with, programs};
use super::webhook::LAMEDUCK;

pub fn deploy() -> PathBuf {
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

/// The chart, rendered; `None` where there is no helm, which the test says.
fn chart(test: &str, more: &[&str]) -> Option<String> {
    let built = folder_with("LAMEDUCK_HELM", &["helm"]).map(|folder| folder.join("helm"));
    let mut helm = Command::new(built.unwrap_or_else(|| "helm".into()));
    helm.args(["template", "lameduck", "--namespace", "lameduck"]).args(more).arg(deploy().join("chart"));
    let Ok(out) = helm.output() else {
        println!("SKIPPED {test}: needs helm, which is not installed; cargo xtask test builds it where Go is");
        return None;
    };
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    Some(String::from_utf8_lossy(&out.stdout).into_owned())
}

#[test]
fn our_own_chart_has_no_finding() {
    let Some(text) = chart("our_own_chart_has_no_finding", &[]) else { return };
    let (status, said) = found(&[Path::new("-")], Some(text));
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("1 workloads: 0 errors, 0 warnings, 0 notes"), "{said}");
    let all = ["--set", "defaults.log-format=json,registries={ghcr.io},noRegistry=true,enforce=error"];
    let text = chart("our_own_chart_has_no_finding", &all).unwrap();
    understood(&words(&text));
    for expect in ["--default=log-format=json", "--registry=ghcr.io", "--no-registry", "--enforce=error"] {
        assert!(text.contains(expect), "{expect}: {text}");
    }
}

/// As an API server of today takes them, with every field that it does not know refused: what the chart makes by default, in the namespace
/// `lameduck`, and the plain manifests are the same, object for object.
#[test]
fn the_chart_makes_the_plain_manifests() {
    const NAME: &str = "the_chart_makes_the_plain_manifests";
    let Some(programs) = programs(NAME) else { return };
    let Some(chart) = chart(NAME, &[]) else { return };
    let cluster = Cluster::start(programs);
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "lameduck"}});
    cluster.create(&namespace);
    let plain = std::fs::read_to_string(deploy().join("webhook.yaml")).unwrap();
    // helm makes the namespace, if it is asked to; here it is there already.
    let (first, rest) = plain.split_once("\n---\n").unwrap();
    assert!(first.contains("kind: Namespace"));
    let taken = |text: &str| {
        let (said, warned) =
            cluster.does(&["create", "--dry-run=server", "--validate=strict", "-o", "json", "-f", "-"], Some(text));
        assert_eq!(warned, "");
        objects(&said)
    };
    let (made, plain) = (taken(&chart), taken(rest));
    assert_eq!(made.keys().collect::<Vec<_>>(), plain.keys().collect::<Vec<_>>());
    for (name, object) in &plain {
        assert_eq!(made[name], *object, "{name}");
    }
    assert!(plain.len() >= 10, "{:?}", plain.keys());
    // Everything that can be set is taken, too.
    let all =
        "defaults.log-format=json,registries={ghcr.io},noRegistry=true,enforce=error,replicas=3,image.tag=2,grace=90";
    let all = format!("{all},failurePolicy=Fail,objectSelector.matchLabels.a=b,imagePullSecrets[0].name=pull");
    taken(&self::chart(NAME, &["--set", &all]).unwrap());
    // And this is how one that is wrong is told.
    let wrong = chart.replace("minReadySeconds", "minReadySecond");
    assert_ne!(wrong, chart);
    let out = cluster.kubectl(&["create", "--dry-run=server", "--validate=strict", "-f", "-"], Some(&wrong));
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(!out.status.success() && said.contains("unknown field \"spec.minReadySecond\""), "{said}");
}

/// By kind, namespace and name, without what each creation has of its own. kubectl writes one list, or one object behind the other.
fn objects(text: &str) -> BTreeMap<String, Value> {
    let read: Vec<Value> =
        serde_json::Deserializer::from_str(text).into_iter::<Value>().collect::<Result<_, _>>().unwrap();
    let lists = read.into_iter().flat_map(|object| match object["items"].as_array() {
        Some(items) => items.clone(),
        None => vec![object],
    });
    let named = lists.map(|mut object| {
        let metadata = object["metadata"].as_object_mut().unwrap();
        for own in ["creationTimestamp", "uid", "resourceVersion", "managedFields"] {
            metadata.remove(own);
        }
        if object["kind"] == "Service" {
            for own in ["clusterIP", "clusterIPs"] {
                object["spec"].as_object_mut().unwrap().remove(own);
            }
        }
        let of = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
        (format!("{} {}/{}", of("/kind"), of("/metadata/namespace"), of("/metadata/name")), object)
    });
    named.collect()
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
