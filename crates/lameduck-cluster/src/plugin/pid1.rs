//! Who really is PID 1 in a running container, and what it does with TERM, as its kernel says it (`proc_pid_status(5)`).
//!
//! Nothing is put into the pod: one file is read by a program that the image has, whichever of [`READERS`] is there; where the
//! container runs under lameduck, lameduck itself says so. Else it is not known.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::exec::{self, Ended};
use super::kube::Kube;
use super::live::{Object, Objects, controller};

/// What the first process of a container does with TERM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Term {
    /// It has a handler. What that does, the kernel does not say.
    Caught,
    /// It is blocked, for who takes it by `sigwait(3)` or `signalfd(2)`, as inits do.
    Awaited,
    /// It is ignored.
    Ignored,
    /// It has no handler, and for PID 1 the kernel then drops it (`pid_namespaces(7)`).
    Dropped,
    /// It is not known.
    Unknown,
}

/// How that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// The image's `cat`, of `/proc/1/status`.
    Cat,
    /// What its shell has built in.
    Shell,
    /// Its Node.js.
    Node,
    /// Its Python.
    Python,
    /// lameduck, which is PID 1, was asked for its status.
    Lameduck,
    /// It was not.
    None,
}

/// Programs that can write a file to standard output, as images have them.
const READERS: [(Way, &[&str]); 4] = [
    (Way::Cat, &["cat", "/proc/1/status", "/proc/1/cmdline"]),
    (Way::Shell, &["sh", "-c", "while IFS= read -r line; do printf '%s\\n' \"$line\"; done < /proc/1/status"]),
    (
        Way::Node,
        &[
            "node",
            "-e",
            "for (const f of ['status', 'cmdline']) process.stdout.write(require('fs').readFileSync('/proc/1/' + f))",
        ],
    ),
    (
        Way::Python,
        &["python3", "-c", "import sys\nfor f in 'status', 'cmdline': sys.stdout.write(open('/proc/1/' + f).read())"],
    ),
];

/// The first process of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Pid1 {
    /// The pod.
    pub pod: Object,
    /// Its owner's kind and name, as in `ReplicaSet/web-1`; empty where it has none.
    pub owner: String,
    /// The container.
    pub container: String,
    /// Its first words; null: not known. Those that follow may be secrets.
    pub command: Option<String>,
    /// What it does with TERM.
    pub term: Term,
    /// How that was found.
    pub way: Way,
    /// Why it is not known; null where it is.
    pub because: Option<String>,
}

impl Pid1 {
    /// Whether TERM has no effect.
    pub fn is_deaf(&self) -> bool {
        matches!(self.term, Term::Ignored | Term::Dropped)
    }
}

/// Looks at one running pod of each owner, the newest.
pub async fn look(kube: &Kube, objects: &Objects) -> Vec<Pid1> {
    let mut found = Vec::new();
    for (pod, owner) in chosen(&objects.pods) {
        let shared = if pod["spec"]["shareProcessNamespace"] == true {
            Some("the pod shares one process namespace, in which PID 1 is the pod's own pause")
        } else if pod["spec"]["hostPID"] == true {
            Some("the pod is in the node's process namespace, in which PID 1 is the node's")
        } else {
            None
        };
        for container in running(pod) {
            let unknown = |because: String| (None, Term::Unknown, Way::None, Some(because));
            let (command, term, way, because) = match shared {
                Some(why) => unknown(why.to_owned()),
                None => ask(kube, pod, container).await.unwrap_or_else(unknown),
            };
            let container = container["name"].as_str().unwrap_or_default().to_owned();
            found.push(Pid1 { pod: Object::of(pod), owner: owner.clone(), container, command, term, way, because });
        }
    }
    found
}

/// The newest running pod of each owner.
fn chosen(pods: &[Value]) -> Vec<(&Value, String)> {
    let mut newest: BTreeMap<(String, String), &Value> = BTreeMap::new();
    let runs = |pod: &&Value| pod["status"]["phase"] == "Running" && pod["metadata"]["deletionTimestamp"].is_null();
    for pod in pods.iter().filter(runs) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let key = match controller(pod) {
            // The kubelet's own pods are each another.
            Some(owner) if owner["kind"] != "Node" => (text(&owner["kind"]), text(&owner["name"])),
            _ => (String::new(), text(&pod["metadata"]["name"])),
        };
        let key = (format!("{}/{}", text(&pod["metadata"]["namespace"]), key.0), key.1);
        let made = |pod: &Value| text(&pod["metadata"]["creationTimestamp"]);
        let known = newest.entry(key).or_insert(pod);
        if made(known) < made(pod) {
            *known = pod;
        }
    }
    let owner = |pod: &Value| {
        controller(pod).map_or_else(String::new, |owner| {
            format!("{}/{}", owner["kind"].as_str().unwrap_or_default(), owner["name"].as_str().unwrap_or_default())
        })
    };
    newest.into_values().map(|pod| (pod, owner(pod))).collect()
}

/// The containers that run now, sidecars included.
fn running(pod: &Value) -> Vec<&Value> {
    let list = |path: &str| pod.pointer(path).and_then(Value::as_array).into_iter().flatten();
    let runs = |container: &&Value| {
        let states = list("/status/containerStatuses").chain(list("/status/initContainerStatuses"));
        let mut own = states.filter(|state| state["name"] == container["name"]);
        own.any(|state| state["state"]["running"].is_object())
    };
    let sidecars = list("/spec/initContainers").filter(|container| container["restartPolicy"] == "Always");
    list("/spec/containers").chain(sidecars).filter(runs).collect()
}

type Answer = (Option<String>, Term, Way, Option<String>);

async fn ask(kube: &Kube, pod: &Value, container: &Value) -> Result<Answer, String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (namespace, name) = (text(&pod["metadata"]["namespace"]), text(&pod["metadata"]["name"]));
    let own = text(&container["name"]);
    let run =
        async |argv: &[&str]| exec::exec(kube, &namespace, &name, &own, argv).await.map_err(|error| error.to_string());
    let lameduck = container["command"][0].as_str().filter(|path| path.rsplit('/').next() == Some("lameduck"));
    if let Some(path) = lameduck {
        let said = run(&[path, "ready"]).await?;
        let status: Value = serde_json::from_slice(&said.output).unwrap_or_default();
        if status["schema"] == "lameduck.status/1" {
            let argv: Vec<String> = container["command"].as_array().into_iter().flatten().map(text).collect();
            return Ok((Some(words(&argv)), Term::Awaited, Way::Lameduck, None));
        }
    }
    let mut why = String::new();
    for (way, argv) in READERS {
        match run(argv).await? {
            Ended { output, failure: None } => {
                let (command, term) = status(&output).ok_or("/proc/1/status says nothing of signals")?;
                if term == Term::Caught && is_node(&command) {
                    return Ok((Some(command), Term::Unknown, way, Some(OF_NODE.to_owned())));
                }
                return Ok((Some(command), term, way, None));
            }
            Ended { failure: Some(failure), .. } => why = failure,
        }
    }
    if why.contains("not found") || why.contains("no such file") {
        return Err("the image has no cat, no shell, no Node.js and no Python to read /proc/1/status with".to_owned());
    }
    Err(format!("/proc/1/status could not be read: {}", why.trim().chars().take(200).collect::<String>()))
}

/// `node::ResetSignalHandlers` and `SignalExit` in Node's src/node.cc: it catches TERM to put the terminal right, and raises it
/// again by default, which the kernel drops for PID 1.
const OF_NODE: &str = "Node.js has a handler of its own, which does nothing in PID 1; whether the app has another, the kernel \
                       does not say";

fn is_node(command: &str) -> bool {
    let first = command.split(' ').next().unwrap_or_default();
    let name = first.rsplit('/').next().unwrap_or_default();
    ["node", "nodejs", "npm", "npx", "yarn", "pnpm"].contains(&name) || name.starts_with("node-Main")
}

/// The first words of a command line; more may be secrets.
fn words(argv: &[String]) -> String {
    let mut shown = argv.iter().take(3).map(|word| word.chars().take(60).collect::<String>()).collect::<Vec<_>>();
    if argv.len() > 3 {
        shown.push("...".to_owned());
    }
    shown.join(" ")
}

/// Reads `/proc/1/status`, and behind it `/proc/1/cmdline`.
fn status(output: &[u8]) -> Option<(String, Term)> {
    const TERM: u32 = 15;
    let text = String::from_utf8_lossy(output);
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(str::trim)
    };
    let has = |name: &str| {
        let mask = u64::from_str_radix(field(name)?, 16).ok()?;
        Some(mask >> (TERM - 1) & 1 == 1)
    };
    let term = match (has("SigCgt")?, has("SigBlk")?, has("SigIgn")?) {
        (true, ..) => Term::Caught,
        (false, true, _) => Term::Awaited,
        (false, false, true) => Term::Ignored,
        (false, false, false) => Term::Dropped,
    };
    // The last line of the status; what follows is the command line, without a line break.
    let behind = text.split_once("\nnonvoluntary_ctxt_switches:").and_then(|(_, rest)| rest.split_once('\n'));
    let argv: Vec<String> =
        behind.map_or("", |(_, rest)| rest).split('\0').filter(|word| !word.is_empty()).map(str::to_owned).collect();
    let command = if argv.is_empty() { field("Name")?.to_owned() } else { words(&argv) };
    Some((command, term))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_masks_say_what_becomes_of_term() {
        let check = |caught: &str, blocked: &str, ignored: &str, expect: Term| {
            let text = format!(
                "Name:\tnode\nSigBlk:\t{blocked}\nSigIgn:\t{ignored}\nSigCgt:\t{caught}\nnonvoluntary_ctxt_switches:\t1\n\
                 node\0server.js\0--port\x008080\0"
            );
            assert_eq!(status(text.as_bytes()), Some(("node server.js --port ...".to_owned(), expect)), "{text}");
        };
        let (none, term) = ("0000000000000000", "0000000000004000");
        check(term, none, none, Term::Caught);
        check("0000000108000202", none, "0000000001001000", Term::Dropped);
        check(none, none, term, Term::Ignored);
        // tini, dumb-init and lameduck take signals by sigwait(3) and signalfd(2).
        check(none, "fffffffe7ffbfeff", none, Term::Awaited);
        assert_eq!(status(b"cat: /proc/1/status: Permission denied"), None);
        assert!(is_node("/usr/bin/node server.js") && is_node("npm start") && !is_node("nodemanager"));
    }

    #[test]
    fn of_each_owner_the_newest_that_runs_is_looked_at() {
        let pod = |name: &str, made: &str, phase: &str, owner: Option<&str>| {
            let owners = owner.map(|name| json!([{"kind": "ReplicaSet", "name": name, "controller": true}]));
            json!({"metadata": {"namespace": "shop", "name": name, "creationTimestamp": made, "ownerReferences": owners},
                   "status": {"phase": phase}})
        };
        let pods = [
            pod("web-a", "2026-01-01T00:00:00Z", "Running", Some("web")),
            pod("web-b", "2026-01-02T00:00:00Z", "Running", Some("web")),
            pod("web-c", "2026-01-03T00:00:00Z", "Pending", Some("web")),
            pod("alone", "2026-01-01T00:00:00Z", "Running", None),
        ];
        let names: Vec<_> = chosen(&pods).iter().map(|(pod, _)| pod["metadata"]["name"].clone()).collect();
        assert_eq!(names, ["alone", "web-b"]);
    }
}
