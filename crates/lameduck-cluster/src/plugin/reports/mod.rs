//! `kubectl lameduck reports`: the drain reports of a namespace, and what they say together.
//!
//! A report is written as a container ends. It is found in the termination message, in the log of what has ended and is still
//! there, in the log before a restart, and, while pods end, by following their logs: with a pod its log goes.

pub mod estate;
mod scan;
mod text;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinSet;

use super::kube::{Ask, Kube, Refused, escaped};
use super::live::controller;
use super::resource::PODS;
pub use estate::{Estate, Gathered};
pub use scan::Scanned;
pub use text::text;

/// The report is the last that lameduck writes; other processes of the container may write after it.
const LINES: usize = 50;
/// A log's end has at most so many bytes.
const MOST: usize = 4 << 20;
/// How long pods that end are still heard once the time is over, beside their own grace.
const AFTER: Duration = Duration::from_secs(10);

/// A container of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Container {
    namespace: String,
    pod: String,
    uid: String,
    name: String,
    workload: String,
}

/// What was gathered so far.
#[derive(Debug, Default)]
struct Basket {
    gathered: Vec<Gathered>,
    cut: usize,
    searched: HashSet<Container>,
    not_read: Vec<String>,
}

type Shared = Arc<Mutex<Basket>>;

impl Basket {
    fn take(&mut self, container: &Container, scanned: Scanned) {
        self.cut += scanned.cut;
        for report in scanned.reports {
            let Container { namespace, pod, name, workload, .. } = container.clone();
            self.gathered.push(Gathered { namespace, workload, pod, container: name, report });
        }
    }

    fn miss(&mut self, error: &Refused) {
        let why = error.to_string();
        // A pod that is gone meanwhile is none that could not be read.
        if error.status() != Some(404) && self.not_read.len() < 20 && !self.not_read.contains(&why) {
            self.not_read.push(why);
        }
    }
}

fn lock(basket: &Shared) -> std::sync::MutexGuard<'_, Basket> {
    basket.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Gathers what is there; with `during`, also what ends in that time.
///
/// # Errors
///
/// Where pods can not be listed or watched.
pub async fn gather(kube: &Arc<Kube>, namespace: Option<&str>, during: Option<Duration>) -> Result<Estate, Refused> {
    let basket = Shared::default();
    let mut work = JoinSet::new();
    for pod in kube.list(&PODS, namespace, "").await? {
        for (container, state) in containers(&pod) {
            lock(&basket).searched.insert(container.clone());
            ended(kube, &basket, &pod, &container, &state, &mut work);
        }
    }
    while work.join_next().await.is_some() {}
    if let Some(time) = during {
        follow(kube, namespace, time, &basket).await?;
    }
    let mut basket = std::mem::take(&mut *lock(&basket));
    basket.not_read.sort();
    let estate = Estate::of(basket.gathered);
    Ok(Estate {
        server: Some(kube.server().to_owned()),
        namespace: namespace.map(str::to_owned),
        cut: basket.cut,
        searched: basket.searched.len(),
        not_read: basket.not_read,
        ..estate
    })
}

/// Of files: what a log store kept. The name of each stands for the workload.
///
/// # Errors
///
/// Which file can not be read, and why.
pub fn of_files(files: &[std::path::PathBuf]) -> Result<Estate, String> {
    let mut basket = Basket::default();
    for path in files {
        let text = std::fs::read(path)
            .map_err(|error| format!("{}: {error}; expected a log with drain reports", path.display()))?;
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let container = Container {
            namespace: "file".to_owned(),
            pod: String::new(),
            uid: path.display().to_string(),
            name: "any".to_owned(),
            workload: name,
        };
        basket.take(&container, Scanned::of(&String::from_utf8_lossy(&text)));
        basket.searched.insert(container);
    }
    // Of a file, two reports that say the same are two.
    for (n, one) in basket.gathered.iter_mut().enumerate() {
        one.pod = n.to_string();
    }
    Ok(Estate { cut: basket.cut, searched: basket.searched.len(), ..Estate::of(basket.gathered) })
}

/// The containers of a pod, each with its status.
fn containers(pod: &Value) -> Vec<(Container, Value)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let workload = workload(pod);
    let statuses = ["containerStatuses", "initContainerStatuses"].map(|key| pod["status"][key].as_array());
    let one = |status: &Value| {
        let metadata = &pod["metadata"];
        let container = Container {
            namespace: text(&metadata["namespace"]),
            pod: text(&metadata["name"]),
            uid: text(&metadata["uid"]),
            name: text(&status["name"]),
            workload: workload.clone(),
        };
        (container, status.clone())
    };
    statuses.into_iter().flatten().flatten().map(one).collect()
}

/// Who made a pod: `Deployment/web`. A `ReplicaSet` of a Deployment has its name and the hash that its pods have as a label.
pub fn workload(pod: &Value) -> String {
    let Some(owner) = controller(pod) else {
        return format!("Pod/{}", pod["metadata"]["name"].as_str().unwrap_or_default());
    };
    let (kind, name) = (owner["kind"].as_str().unwrap_or_default(), owner["name"].as_str().unwrap_or_default());
    let hash = pod["metadata"]["labels"]["pod-template-hash"].as_str().unwrap_or_default();
    match name.strip_suffix(hash).and_then(|name| name.strip_suffix('-')) {
        Some(name) if kind == "ReplicaSet" && !hash.is_empty() => format!("Deployment/{name}"),
        _ => format!("{kind}/{name}"),
    }
}

/// Reads what has ended: the messages at once, the logs in the background.
fn ended(
    kube: &Arc<Kube>,
    basket: &Shared,
    pod: &Value,
    container: &Container,
    status: &Value,
    work: &mut JoinSet<()>,
) {
    for state in ["state", "lastState"] {
        let message = status[state]["terminated"]["message"].as_str().unwrap_or_default();
        lock(basket).take(container, Scanned::of(message));
    }
    let over = status["state"]["terminated"].is_object() || pod["metadata"]["deletionTimestamp"].is_string();
    let before = status["lastState"]["terminated"].is_object();
    for previous in [over.then_some(false), before.then_some(true)].into_iter().flatten() {
        let (kube, basket, container) = (Arc::clone(kube), Arc::clone(basket), container.clone());
        work.spawn(async move {
            let Container { namespace, pod, name, .. } = &container;
            let ask = Ask { verb: "get", resource: &PODS, sub: "log", namespace: Some(namespace), name: Some(pod) };
            let query = format!("container={}&tailLines={LINES}&previous={previous}", escaped(name));
            match kube.text(&ask, &query, MOST).await {
                Ok(text) => lock(&basket).take(&container, Scanned::of(&text)),
                // What the kubelet has cleaned away is 400.
                Err(error) if error.status() == Some(400) => {}
                Err(error) => lock(&basket).miss(&error),
            }
        });
    }
}

/// Watches, and follows the logs of what is told to end, until the time is over and all of that has ended.
async fn follow(kube: &Arc<Kube>, namespace: Option<&str>, time: Duration, basket: &Shared) -> Result<(), Refused> {
    let ask = Ask { verb: "watch", resource: &PODS, sub: "", namespace, name: None };
    let followed: Arc<Mutex<HashSet<Container>>> = Arc::default();
    let mut followers = JoinSet::new();
    let grace = Mutex::new(Duration::from_secs(30));
    let deadline = tokio::time::Instant::now() + time;
    let mut first: Result<(), Refused> = Ok(());
    let watching = async {
        loop {
            // Without a version it begins with all that there is. It ends now and then by itself.
            let watched = kube.lines(&ask, "watch=true", |line| {
                let event: Value = serde_json::from_str(line).unwrap_or_default();
                let pod = &event["object"];
                if !pod["metadata"]["deletionTimestamp"].is_string() {
                    return true;
                }
                let own = pod["metadata"]["deletionGracePeriodSeconds"].as_u64().unwrap_or(30);
                let mut longest = grace.lock().unwrap_or_else(PoisonError::into_inner);
                *longest = (*longest).max(Duration::from_secs(own.min(3600)));
                for (container, status) in containers(pod) {
                    let message = status["state"]["terminated"]["message"].as_str().unwrap_or_default();
                    lock(basket).take(&container, Scanned::of(message));
                    if followed.lock().unwrap_or_else(PoisonError::into_inner).insert(container.clone()) {
                        lock(basket).searched.insert(container.clone());
                        followers.spawn(follow_log(Arc::clone(kube), Arc::clone(basket), container));
                    }
                }
                true
            });
            if let Err(error) = watched.await {
                // Whoever may not watch, or has no server any more, need not try again.
                if error.status().is_some_and(|status| status == 401 || status == 403) {
                    return Err(error);
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    };
    if let Ok(ended) = tokio::time::timeout_at(deadline, watching).await {
        first = ended;
    }
    let patience = *grace.lock().unwrap_or_else(PoisonError::into_inner) + AFTER;
    let all = async { while followers.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(patience, all).await;
    first
}

/// Follows a log to its end. The report is in its last lines, whenever these come.
async fn follow_log(kube: Arc<Kube>, basket: Shared, container: Container) {
    let Container { namespace, pod, name, .. } = &container;
    let ask = Ask { verb: "get", resource: &PODS, sub: "log", namespace: Some(namespace), name: Some(pod) };
    let query = format!("container={}&tailLines={LINES}&follow=true", escaped(name));
    let mut scanned = Scanned::default();
    let heard = kube.lines(&ask, &query, |line| {
        scanned.line(line);
        true
    });
    let heard = heard.await;
    let mut basket = lock(&basket);
    // What broke off after the report had come said all.
    if let Err(error) = heard
        && scanned.reports.is_empty()
    {
        basket.miss(&error);
    }
    basket.take(&container, scanned);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn whose_pod_it_is() {
        let check = |kind: &str, name: &str, hash: &str, expect: &str| {
            let pod = json!({"metadata": {"name": "p", "labels": {"pod-template-hash": hash},
                "ownerReferences": [{"kind": kind, "name": name, "controller": true}]}});
            assert_eq!(workload(&pod), expect);
        };
        check("ReplicaSet", "web-5bc79bc66", "5bc79bc66", "Deployment/web");
        check("ReplicaSet", "by-hand", "", "ReplicaSet/by-hand");
        check("StatefulSet", "store", "", "StatefulSet/store");
        assert_eq!(workload(&json!({"metadata": {"name": "alone"}})), "Pod/alone");
    }
}
