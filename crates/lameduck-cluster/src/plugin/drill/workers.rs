//! The load from inside the cluster: an Indexed Job of workers, each of which sends a part of it. This end directs them over
//! the standard input and output of their containers, as `kubectl attach` does, so that they need no rights of their own.

use std::sync::Arc;
use std::time::Duration;

use lameduck_drill::live::{self, News, Receiver};
use lameduck_drill::workers::{Heard, OVER, Order, merged};
use lameduck_drill::{DrillResult, Plan, Tick};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::super::exec::attach;
use super::super::kube::{Ask, Kube, Refused};
use super::super::resource::{JOBS, PODS};
use super::{Deployment, Event, NotDrilled, POLL, direct};

/// The most workers.
pub const MOST: usize = 100;
/// The label by which Jobs know their pods (Kubernetes documentation, "Well-Known Labels").
const JOB_NAME: &str = "batch.kubernetes.io/job-name";
/// How long images may take to be pulled, and pods to start.
const START: Duration = Duration::from_mins(2);
/// How long a worker may take to say what it found.
const SAYS: Duration = Duration::from_secs(30);
/// A worker that nobody directs any more ends by itself; the cluster ends one that does not.
const LONGEST: Duration = Duration::from_hours(1);
/// How long a Job that could not be deleted stays.
const KEPT: Duration = Duration::from_mins(10);

/// Who sends the load.
#[derive(Debug, Clone)]
pub struct Workers {
    /// How many.
    pub count: usize,
    /// What they are: an image with `/bin/lameduck`, as `deploy/Dockerfile` makes it.
    pub image: String,
    /// Where they are; the Deployment's namespace.
    pub namespace: String,
}

impl Workers {
    fn job(&self) -> Value {
        let name = "lameduck-drill";
        let labels = json!({"app.kubernetes.io/name": name, "app.kubernetes.io/component": "worker"});
        let container = json!({
            "name": "worker", "image": self.image, "command": ["/bin/lameduck", "drill-worker"],
            // It ends with whom it listens to.
            "stdin": true, "stdinOnce": true,
            "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
            "securityContext": {"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}},
        });
        let spread = json!([{"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": labels}}]);
        // A sidecar in the path would answer for the pods; and a worker is nobody's app.
        let left_alone = json!({"lameduck.dev/inject": "false", "sidecar.istio.io/inject": "false", "linkerd.io/inject": "disabled"});
        let pod = json!({
            "restartPolicy": "Never", "automountServiceAccountToken": false, "enableServiceLinks": false,
            "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
            "topologySpreadConstraints": spread, "containers": [container],
        });
        json!({
            "apiVersion": JOBS.api_version(), "kind": JOBS.kind,
            "metadata": {"generateName": format!("{name}-"), "labels": labels},
            "spec": {
                "completionMode": "Indexed", "completions": self.count, "parallelism": self.count, "backoffLimit": 0,
                "activeDeadlineSeconds": LONGEST.as_secs(), "ttlSecondsAfterFinished": KEPT.as_secs(),
                "template": {"metadata": {"labels": labels, "annotations": left_alone}, "spec": pod},
            },
        })
    }
}

/// Has workers send a plan's load, each its part, does what ends pods, and gives the workers' books as one, with what the pods
/// ended with. `counts` hears how far they are.
///
/// # Errors
///
/// Where the workers do not start, one of them breaks off, what they say is not one result, or the event can not be carried
/// out. Their Job is deleted in any case.
pub async fn drill(
    kube: &Arc<Kube>,
    deployment: Deployment,
    event: Event,
    workers: &Workers,
    plan: &Plan,
    counts: impl FnMut(Tick),
) -> Result<(DrillResult, Vec<i64>), NotDrilled> {
    let (sender, receiver) = live::channel();
    let (began, begins) = oneshot::channel();
    let load = load(kube, workers, plan, receiver, began, counts);
    match tokio::join!(load, direct(Arc::clone(kube), deployment, event, sender, begins)) {
        (Ok(result), Ok(statuses)) => Ok((result, statuses)),
        // Neither goes on without the other: the one that ended first knows why.
        (Err(error), Ok(_) | Err(NotDrilled::NoLoad)) | (_, Err(error)) => Err(error),
    }
}

/// Sends the load from when all workers have begun (then `began` is told) until the news say that it is enough.
async fn load(
    kube: &Arc<Kube>,
    workers: &Workers,
    plan: &Plan,
    news: Receiver,
    began: oneshot::Sender<()>,
    counts: impl FnMut(Tick),
) -> Result<DrillResult, NotDrilled> {
    let namespace = Some(workers.namespace.as_str());
    let ask = Ask { verb: "create", resource: &JOBS, sub: "", namespace, name: None };
    let job = kube.json(&ask, "", Some(("application/json", &workers.job()))).await?;
    let job = job["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let found = tokio::select! {
        found = directed(kube, workers, &job, plan, news, began, counts) => found,
        () = told_to_end() => Err(NotDrilled::Interrupted),
    };
    let gone = delete(kube, workers, &job).await;
    let found = found?;
    gone?;
    Ok(found)
}

/// As a drill from here is: by INT, TERM or HUP.
async fn told_to_end() {
    let of = |kind| async move {
        match signal(kind) {
            Ok(mut signal) => drop(signal.recv().await),
            // It then ends the process, as it does by default.
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = of(SignalKind::interrupt()) => {}
        () = of(SignalKind::terminate()) => {}
        () = of(SignalKind::hangup()) => {}
    }
}

async fn delete(kube: &Kube, workers: &Workers, job: &str) -> Result<(), Refused> {
    let ask = Ask { verb: "delete", resource: &JOBS, sub: "", namespace: Some(&workers.namespace), name: Some(job) };
    kube.json(&ask, "propagationPolicy=Background", None).await.map(|_| ())
}

/// What a worker said, or why it says nothing more.
enum From {
    Line(String),
    End(Result<Option<String>, Refused>),
}

async fn directed(
    kube: &Arc<Kube>,
    workers: &Workers,
    job: &str,
    plan: &Plan,
    mut news: Receiver,
    began: oneshot::Sender<()>,
    mut counts: impl FnMut(Tick),
) -> Result<DrillResult, NotDrilled> {
    let pods = running(kube, workers, job).await?;
    let (says, mut said) = mpsc::unbounded_channel();
    // All of them end with this set.
    let mut attached = JoinSet::new();
    let mut inputs = Vec::new();
    for (n, pod) in pods.iter().enumerate() {
        let (tell, lines) = mpsc::unbounded_channel();
        // The other end is there as long as the container.
        let _ = tell.send(line(&Order::of(plan, n, pods.len())));
        inputs.push(tell);
        let (kube, says, pod, namespace) = (Arc::clone(kube), says.clone(), pod.clone(), workers.namespace.clone());
        attached.spawn(async move {
            let hear = |line: &str| drop(says.send((n, From::Line(line.to_owned()))));
            let end = attach(&kube, &namespace, &pod, "worker", lines, hear).await;
            drop(says.send((n, From::End(end))));
        });
    }
    let mut heard: Vec<Heard> = pods.iter().map(|_| Heard::default()).collect();
    let mut began = Some(began);
    // News end after it was enough: else whoever directs has given up.
    let (mut enough, mut over) = (false, false);
    let patience = tokio::time::sleep(Duration::ZERO);
    tokio::pin!(patience);
    loop {
        tokio::select! {
            () = &mut patience, if over => {
                let late = heard.iter().position(|one| one.end.is_none()).unwrap_or_default();
                let why = "its load was over, and it said nothing more".to_owned();
                return Err(NotDrilled::Worker { pod: pods[late].clone(), why });
            }
            piece = news.next(), if !over => {
                let line = match piece {
                    Some(piece) => {
                        enough |= piece == News::Enough;
                        line(&piece)
                    }
                    None if enough => {
                        over = true;
                        patience.as_mut().reset(tokio::time::Instant::now() + plan.longest_exchange() + SAYS);
                        OVER.to_owned()
                    }
                    None => return Err(NotDrilled::NoLoad),
                };
                for input in &inputs {
                    let _ = input.send(line.clone());
                }
            }
            Some((n, from)) = said.recv() => {
                match from {
                    From::Line(line) => heard[n].line(&line),
                    From::End(_) if heard[n].end.is_some() => {}
                    From::End(Ok(why)) => heard[n].end = Some(Err(why.unwrap_or_else(|| "it ended without a result".to_owned()))),
                    From::End(Err(refused)) => heard[n].end = Some(Err(refused.to_string())),
                }
                if let (pod, Some(Err(why))) = (&pods[n], &heard[n].end) {
                    return Err(NotDrilled::Worker { pod: pod.clone(), why: why.clone() });
                }
                if heard.iter().all(|one| one.began) && let Some(began) = began.take() {
                    let _ = began.send(());
                }
                counts(Tick::together(heard.iter().map(|one| one.counts)));
                if heard.iter().all(|one| one.end.is_some()) {
                    break;
                }
            }
        }
    }
    let books = pods.into_iter().zip(heard).filter_map(|(pod, one)| Some((pod, *one.end?.ok()?))).collect();
    Ok(merged(plan, books)?)
}

fn line<T: serde::Serialize>(what: &T) -> String {
    // Neither has a map whose keys are no strings, which is all that could fail.
    serde_json::to_string(what).unwrap_or_default()
}

/// The Job's pods, once all of them run.
async fn running(kube: &Kube, workers: &Workers, job: &str) -> Result<Vec<String>, NotDrilled> {
    let selector = format!("{JOB_NAME}={job}");
    let mut last = Vec::new();
    let waiting = async {
        loop {
            last = kube.list(&PODS, Some(&workers.namespace), &selector).await?;
            let pods: Vec<String> = last.iter().filter(|pod| runs(pod)).filter_map(name).collect();
            if pods.len() == workers.count || last.iter().any(|pod| pod["status"]["phase"] == "Failed") {
                return Ok::<_, Refused>(pods);
            }
            tokio::time::sleep(POLL * 5).await;
        }
    };
    let pods = tokio::time::timeout(START, waiting).await;
    match pods {
        Ok(Ok(pods)) if pods.len() == workers.count => Ok(pods),
        Ok(Err(refused)) => Err(refused.into()),
        Ok(Ok(_)) | Err(_) => Err(NotDrilled::NoWorkers {
            job: job.to_owned(),
            namespace: workers.namespace.clone(),
            running: last.iter().filter(|pod| runs(pod)).count(),
            wanted: workers.count,
            seconds: START.as_secs(),
            why: last.iter().find_map(waits_for).map(|why| format!(": {why}")).unwrap_or_default(),
        }),
    }
}

fn name(pod: &Value) -> Option<String> {
    pod["metadata"]["name"].as_str().map(str::to_owned)
}

fn runs(pod: &Value) -> bool {
    let states = pod["status"]["containerStatuses"].as_array();
    states.is_some_and(|all| !all.is_empty() && all.iter().all(|one| one["state"]["running"].is_object()))
}

/// Why a pod does not run, in the cluster's words.
fn waits_for(pod: &Value) -> Option<String> {
    let name = name(pod)?;
    if runs(pod) {
        return None;
    }
    let said = |what: &Value| {
        let words = [&what["reason"], &what["message"]].map(|word| word.as_str().unwrap_or_default());
        let words = words.join(": ").trim_matches([':', ' ']).to_owned();
        (!words.is_empty()).then_some(words)
    };
    let state = &pod["status"]["containerStatuses"][0]["state"];
    let scheduled = pod["status"]["conditions"].as_array().into_iter().flatten();
    let not_scheduled =
        scheduled.filter(|one| one["type"] == "PodScheduled" && one["status"] == "False").find_map(said);
    // The Job goes, and its logs with it: what can be said of it is said now.
    let ended = |words: String| {
        let code =
            state["terminated"]["exitCode"].as_i64().map_or_else(String::new, |code| format!(", exit code {code}"));
        format!("{words}{code}: has its image /bin/lameduck of version {}?", env!("CARGO_PKG_VERSION"))
    };
    let why = said(&state["waiting"]).or_else(|| said(&state["terminated"]).map(ended)).or(not_scheduled);
    Some(format!("{name}: {}", why.unwrap_or_else(|| "no reason is told".to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_asks_for_nothing_that_it_does_not_need() {
        let workers = Workers { count: 4, image: "x:1".to_owned(), namespace: "shop".to_owned() };
        let job = workers.job();
        let (spec, pod) = (&job["spec"], &job["spec"]["template"]["spec"]);
        assert_eq!(
            (&spec["completionMode"], &spec["parallelism"], &spec["completions"]),
            (&json!("Indexed"), &json!(4), &json!(4))
        );
        assert_eq!(pod["automountServiceAccountToken"], false, "it asks the API server nothing");
        assert_eq!(pod["containers"][0]["command"], json!(["/bin/lameduck", "drill-worker"]));
        assert_eq!(pod["restartPolicy"], "Never", "one that starts again would know nothing of the event");
    }

    #[test]
    fn why_a_worker_does_not_run_is_in_the_clusters_words() {
        let check = |status: Value, expect: Option<&str>| {
            let pod = json!({"metadata": {"name": "w-0"}, "status": status});
            assert_eq!(waits_for(&pod).as_deref(), expect);
        };
        let pulls = json!({"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}});
        check(json!({"containerStatuses": [{"state": pulls}]}), Some("w-0: ImagePullBackOff: no such image"));
        let full =
            json!([{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2 nodes"}]);
        check(json!({"conditions": full}), Some("w-0: Unschedulable: 0/2 nodes"));
        let ended = json!({"terminated": {"reason": "Error", "exitCode": 2}});
        let expect =
            format!("w-0: Error, exit code 2: has its image /bin/lameduck of version {}?", env!("CARGO_PKG_VERSION"));
        check(json!({"phase": "Failed", "containerStatuses": [{"state": ended}]}), Some(&expect));
        check(json!({"containerStatuses": [{"state": {"running": {}}}]}), None);
        check(json!({}), Some("w-0: no reason is told"));
    }
}
