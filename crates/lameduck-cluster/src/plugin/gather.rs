//! What a namespace has of an incident, written to a folder as `lameduck explain` reads it: events, pods, who had which address,
//! and logs, those before a restart too.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::kube::{Ask, Kube, Refused, escaped};
use super::resource::{EVENTS, PODS, Resource, SLICES};

/// A log is read up to so many bytes.
const MOST: usize = 64 << 20;
/// So many logs are read at once.
const TOGETHER: usize = 8;

/// What to gather.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Where.
    pub namespaces: Vec<String>,
    /// From how long ago on.
    pub since: Duration,
    /// Whether a line is written without the time that the kubelet put before it: access logs have their own.
    pub bare: fn(&str) -> bool,
}

/// What was gathered.
#[derive(Debug, Default)]
pub struct Gathered {
    /// How many events.
    pub events: usize,
    /// How many pods.
    pub pods: usize,
    /// How many logs, and their lines.
    pub logs: (usize, u64),
    /// What could not be read, or not whole, and why.
    pub notes: Vec<String>,
}

/// A log.
#[derive(Debug, Clone)]
struct Log {
    namespace: String,
    pod: String,
    container: String,
    previous: bool,
}

/// Why there is nothing.
#[derive(Debug, thiserror::Error)]
pub enum NotGathered {
    /// The API server does not give it.
    #[error("{0}")]
    Refused(#[from] Refused),
    /// It can not be kept.
    #[error("{path}: {error}; what is gathered is kept there")]
    Folder {
        /// Where.
        path: PathBuf,
        /// Why not.
        error: std::io::Error,
    },
}

/// Gathers it into a folder that exists.
///
/// # Errors
///
/// Where pods can not be listed, or the folder not be written.
pub async fn gather(kube: &Arc<Kube>, wanted: &Wanted, folder: &Path) -> Result<Gathered, NotGathered> {
    let mut all = Gathered::default();
    let mut logs = Vec::new();
    for namespace in &wanted.namespaces {
        let pods = kube.list(&PODS, Some(namespace), "").await?;
        all.pods += pods.len();
        logs.extend(pods.iter().flat_map(|pod| self::logs(namespace, pod)));
        keep(folder, namespace, "pods", pods.iter().map(pod))?;
        let mut others = |list: Result<Vec<Value>, Refused>| {
            list.unwrap_or_else(|error| {
                all.notes.push(format!("not read: {error}"));
                Vec::new()
            })
        };
        let list = |resource: &'static Resource| kube.list(resource, Some(namespace), "");
        let events = others(list(&EVENTS).await);
        let slices = others(list(&SLICES).await);
        all.events += events.len();
        keep(folder, namespace, "addresses", addresses(&events, &pods))?;
        keep(folder, namespace, "events", events)?;
        keep(folder, namespace, "endpointslices", slices.iter().flat_map(endpoints))?;
    }
    for some in logs.chunks(TOGETHER) {
        let mut work = JoinSet::new();
        for log in some {
            let log = log.clone();
            let (kube, folder, wanted) = (Arc::clone(kube), folder.to_owned(), wanted.clone());
            work.spawn(async move { read(&kube, &log, &wanted, &folder).await });
        }
        while let Some(done) = work.join_next().await {
            match done {
                Ok(Ok((lines, cut))) => {
                    all.logs.0 += usize::from(lines > 0);
                    all.logs.1 += lines;
                    all.notes.extend(cut);
                }
                // A container that has not run has no log, and one that is gone meanwhile has it no more.
                Ok(Err(NotGathered::Refused(error))) if matches!(error.status(), Some(400 | 404)) => {}
                Ok(Err(NotGathered::Refused(error))) => all.notes.push(format!("not read: {error}")),
                Ok(Err(error)) => return Err(error),
                Err(_) => {}
            }
        }
    }
    all.notes.sort();
    all.notes.dedup();
    Ok(all)
}

fn keep(folder: &Path, namespace: &str, what: &str, items: impl IntoIterator<Item = Value>) -> Result<(), NotGathered> {
    let path = folder.join(format!("{namespace}.{what}.json"));
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items.into_iter().collect::<Vec<_>>()});
    std::fs::write(&path, list.to_string()).map_err(|error| NotGathered::Folder { path, error })
}

/// A pod as far as its life says: its environment, where secrets may be, is left out.
fn pod(pod: &Value) -> Value {
    let mut metadata = json!({});
    for key in ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        metadata[key] = pod["metadata"][key].clone();
    }
    let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
    let containers: Vec<Value> =
        containers.map(|container| json!({"name": container["name"], "ports": container["ports"]})).collect();
    let spec = json!({
        "nodeName": pod["spec"]["nodeName"], "containers": containers,
        "terminationGracePeriodSeconds": pod["spec"]["terminationGracePeriodSeconds"],
    });
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": pod["status"]})
}

/// A slice with one endpoint each.
fn endpoints(slice: &Value) -> Vec<Value> {
    let one = |endpoint: &Value| {
        json!({"apiVersion": slice["apiVersion"], "kind": slice["kind"], "metadata": {"name": slice["metadata"]["name"]},
            "ports": slice["ports"], "endpoints": [endpoint]})
    };
    slice["endpoints"].as_array().into_iter().flatten().map(one).collect()
}

/// Which address pods had that are gone: a probe's failure names it, nothing else that stays does. As a slice has it.
fn addresses(events: &[Value], pods: &[Value]) -> Vec<Value> {
    let known: BTreeSet<&str> = pods.iter().filter_map(|pod| pod["metadata"]["name"].as_str()).collect();
    let probed =
        events.iter().filter(|event| event["reason"] == "Unhealthy" && event["involvedObject"]["kind"] == "Pod");
    let found: BTreeSet<(&str, &str)> = probed
        .filter_map(|event| {
            let name = event["involvedObject"]["name"].as_str().filter(|name| !known.contains(name))?;
            let message = event["message"].as_str()?;
            let host =
                message.split_once("://").map(|(_, rest)| rest).or_else(|| Some(message.split_once("dial tcp ")?.1))?;
            let whole = host.split(['/', '"', ' ']).next()?.trim_end_matches(':');
            let host = whole.rsplit_once(':').map_or(whole, |(host, _)| host).trim_matches(['[', ']']);
            host.parse::<std::net::IpAddr>().ok().map(|_| (name, host))
        })
        .collect();
    let slice = |(name, address): (&str, &str)| {
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"name": "from-events"},
            "endpoints": [{"addresses": [address], "targetRef": {"kind": "Pod", "name": name}}]})
    };
    found.into_iter().map(slice).collect()
}

/// The logs that a pod has: of each container, and of what it was before a restart.
fn logs(namespace: &str, pod: &Value) -> Vec<Log> {
    let statuses = ["containerStatuses", "initContainerStatuses"].map(|key| pod["status"][key].as_array());
    let one = |status: &Value| {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let before = status["restartCount"].as_u64().is_some_and(|count| count > 0);
        let log = Log {
            namespace: namespace.to_owned(),
            pod: text(&pod["metadata"]["name"]),
            container: text(&status["name"]),
            previous: false,
        };
        [Some(log.clone()), before.then_some(Log { previous: true, ..log })].into_iter().flatten().collect::<Vec<_>>()
    };
    statuses.into_iter().flatten().flatten().flat_map(one).collect()
}

/// Reads a log into its file. Gives how many lines it has, and what is to be said of it.
async fn read(kube: &Kube, log: &Log, wanted: &Wanted, folder: &Path) -> Result<(u64, Option<String>), NotGathered> {
    let Log { namespace, pod, container, previous } = log;
    let ask = Ask { verb: "get", resource: &PODS, sub: "log", namespace: Some(namespace), name: Some(pod) };
    let mut query = format!("container={}&timestamps=true&limitBytes={MOST}", escaped(container));
    let _ = write!(query, "&sinceSeconds={}&previous={previous}", wanted.since.as_secs().max(1));
    let name = format!("{pod}_{container}{}.log", if *previous { "_previous" } else { "" });
    let path = folder.join(&name);
    let wrong = |error| NotGathered::Folder { path: path.clone(), error };
    let mut file = None;
    let (mut lines, mut bytes) = (0, 0);
    let mut written = Ok(());
    let heard = kube.lines(&ask, &query, |line| {
        let shown = line.split_once(' ').map_or(line, |(_, rest)| if (wanted.bare)(rest) { rest } else { line });
        if file.is_none() {
            match File::create_new(&path) {
                Ok(new) => file = Some(BufWriter::new(new)),
                Err(error) => written = Err(error),
            }
        }
        if let Some(file) = &mut file {
            written = writeln!(file, "{shown}");
        }
        lines += 1;
        bytes += line.len() + 1;
        written.is_ok()
    });
    heard.await?;
    written.and_then(|()| file.map_or(Ok(()), |mut file| file.flush())).map_err(wrong)?;
    let cut = bytes + 1 >= MOST;
    let cut =
        cut.then(|| format!("{name}: only its first {} MiB since then were read: give a shorter --since", MOST >> 20));
    Ok((lines, cut))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_leaves_the_cluster_and_no_endpoint_is_left_behind() {
        let whole = json!({
            "metadata": {"name": "web-1", "annotations": {"a": "SECRET"}},
            "spec": {"nodeName": "n1", "containers": [{"name": "app", "env": [{"name": "K", "value": "SECRET"}], "ports": [{"containerPort": 80}]}]},
            "status": {"podIP": "10.0.0.1", "containerStatuses": [{"name": "app", "restartCount": 1}]},
        });
        let told = pod(&whole).to_string();
        assert!(!told.contains("SECRET") && told.contains("10.0.0.1") && told.contains("containerPort"), "{told}");
        let names: Vec<_> = logs("shop", &whole).iter().map(|log| (log.container.clone(), log.previous)).collect();
        assert_eq!(names, [("app".to_owned(), false), ("app".to_owned(), true)]);
        let slice = json!({"kind": "EndpointSlice", "metadata": {"name": "s"}, "endpoints": [{"addresses": ["1"]}, {"addresses": ["2"]}]});
        assert_eq!(endpoints(&slice).len(), 2);
    }

    #[test]
    fn a_probe_that_failed_names_the_address_of_a_pod_that_is_gone() {
        let event = |name: &str, message: &str| json!({"reason": "Unhealthy", "involvedObject": {"kind": "Pod", "name": name}, "message": message});
        let events = [
            event(
                "web-1",
                "Readiness probe failed: Get \"http://10.0.0.7:8080/\": dial tcp 10.0.0.7:8080: connect: connection refused",
            ),
            event("web-2", "Liveness probe failed: dial tcp [fd00::1]:80: i/o timeout"),
            event("web-3", "Readiness probe failed: Get \"http://10.0.0.9:8080/\": EOF"),
            event("web-4", "Readiness probe failed: command exited with 1"),
        ];
        let found = addresses(&events, &[json!({"metadata": {"name": "web-3"}})]);
        let found: Vec<String> = found.iter().map(|slice| slice["endpoints"][0].to_string()).collect();
        assert!(found.len() == 2 && found[0].contains("10.0.0.7") && found[1].contains("fd00::1"), "{found:?}");
    }
}
