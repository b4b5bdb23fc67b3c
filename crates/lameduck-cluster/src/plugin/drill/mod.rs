//! `kubectl lameduck drill`: a live Deployment under load from this machine, or from [`workers`] in the cluster, through what ends its pods.
//!
//! Routing is what the `EndpointSlice`s say, as a proxy hears it; ends are what the pods say; what the servers saw is in their
//! logs. All of it is told to [`lameduck_drill::follow`], which sends the load and keeps the books.

pub mod event;
pub mod workers;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lameduck_drill::live::slices::{self, Slices};
use lameduck_drill::live::{News, Sender};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::kube::{Ask, Kube, Refused, escaped};
use super::resource::{DEPLOYMENTS, PODS, Resource, SERVICES, SLICES};
pub use event::Event;

/// Load before an event, and after all that it ended has ended.
const AROUND: Duration = Duration::from_secs(3);
/// How long a replacement may take to be ready.
const READY: Duration = Duration::from_mins(2);
/// How often one looks whether something has happened.
const POLL: Duration = Duration::from_millis(100);
/// How long a pod may take to be reached from here.
const REACH: Duration = Duration::from_secs(3);

/// Why there is no drill.
#[derive(Debug, thiserror::Error)]
pub enum NotDrilled {
    /// The API server refuses.
    #[error("{0}")]
    Refused(#[from] Refused),
    /// What is asked for is not there.
    #[error("{0}")]
    NotThere(String),
    /// There are no pods.
    #[error("the Deployment has no running pod to end")]
    NoPods,
    /// The event ends no pod.
    #[error("scale-down={to}: the Deployment has {replicas} replicas, so that none would end: give a smaller number")]
    NothingEnds {
        /// How many there are.
        replicas: u64,
        /// How many there were to be.
        to: u64,
    },
    /// A disruption budget does not allow an eviction.
    #[error(
        "a PodDisruptionBudget has refused the eviction of {pod} for {seconds} s: have more replicas, or a budget that lets one go"
    )]
    BudgetRefuses {
        /// The pod.
        pod: String,
        /// For how long.
        seconds: u64,
    },
    /// The load can not get there.
    #[error(
        "pods are not reached from this machine: {address}: {why}; the load goes to pods' own addresses: have it sent from inside the cluster \
         (--workers N), or run this on a node or in a pod"
    )]
    Unreachable {
        /// A pod's address.
        address: String,
        /// Why not.
        why: String,
    },
    /// It does not come to an end.
    #[error("{open} pods had not ended after {seconds} s, or their successors were not ready")]
    NoEnd {
        /// How many.
        open: usize,
        /// After how long.
        seconds: u64,
    },
    /// The load never began.
    #[error("the load did not begin")]
    NoLoad,
    /// The workers do not run.
    #[error(
        "job/{job} of namespace {namespace}: {running} of {wanted} workers run, and {seconds} s are the most that is waited{why}; the job was deleted"
    )]
    NoWorkers {
        /// Their Job.
        job: String,
        /// Where it is.
        namespace: String,
        /// How many run.
        running: usize,
        /// How many were asked for.
        wanted: usize,
        /// The longest that is waited.
        seconds: u64,
        /// What the others wait for.
        why: String,
    },
    /// A worker has no result.
    #[error("worker {pod}: {why}")]
    Worker {
        /// Its pod.
        pod: String,
        /// Why not.
        why: String,
    },
    /// What the workers found is not one result.
    #[error("{0}")]
    NotMerged(#[from] lameduck_drill::workers::NotMerged),
    /// The drill was told to stop.
    #[error("interrupted; the workers' job was deleted")]
    Interrupted,
}

/// The Deployment, as far as the drill needs it.
#[derive(Debug, Clone)]
pub struct Deployment {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// How many replicas it wants.
    pub replicas: u64,
    /// From the deletion to SIGKILL.
    pub grace: Duration,
    /// The labels of its pods, as a selector.
    pub selector: String,
    /// The Service before it.
    pub service: String,
    /// The port that is sent to; none: the slice's first.
    pub port: Option<String>,
}

/// Finds the Deployment and its Service, and whether its pods are reached, where that has to be `from_here`.
///
/// # Errors
///
/// What is not there, and what to do.
pub async fn find(
    kube: &Kube,
    namespace: &str,
    name: &str,
    service: Option<String>,
    port: Option<String>,
    from_here: bool,
) -> Result<Deployment, NotDrilled> {
    let ask = Ask { verb: "get", resource: &DEPLOYMENTS, sub: "", namespace: Some(namespace), name: Some(name) };
    let object = kube.json(&ask, "", None).await?;
    let template = &object["spec"]["template"];
    let labels = |value: &Value| -> Vec<String> {
        let pairs = value.as_object().into_iter().flatten();
        pairs.filter_map(|(key, value)| Some(format!("{key}={}", value.as_str()?))).collect()
    };
    let own = labels(&template["metadata"]["labels"]);
    let service = if let Some(service) = service {
        service
    } else {
        let services = kube.list(&SERVICES, Some(namespace), "").await?;
        let selects = |service: &&Value| {
            let selector = labels(&service["spec"]["selector"]);
            !selector.is_empty() && selector.iter().all(|label| own.contains(label))
        };
        let found = services.iter().find(selects).and_then(|service| service["metadata"]["name"].as_str());
        let none = || {
            format!("no Service of namespace {namespace} selects the pods of deployment/{name}: give --service NAME")
        };
        found.map(str::to_owned).ok_or_else(|| NotDrilled::NotThere(none()))?
    };
    let selector = labels(&object["spec"]["selector"]["matchLabels"]).join(",");
    let deployment = Deployment {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        replicas: object["spec"]["replicas"].as_u64().unwrap_or(1),
        grace: Duration::from_secs(template["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap_or(30)),
        selector,
        service,
        port,
    };
    let address = routed(kube, &deployment).await?;
    if from_here {
        reach(address).await?;
    }
    Ok(deployment)
}

/// Where one of its pods is.
async fn routed(kube: &Kube, deployment: &Deployment) -> Result<SocketAddr, NotDrilled> {
    let of_service = format!("kubernetes.io/service-name={}", deployment.service);
    let slices = kube.list(&SLICES, Some(&deployment.namespace), &of_service).await?;
    let ready = slices.iter().flat_map(|slice| slices::ready(slice, deployment.port.as_deref())).next();
    let none = || {
        let Deployment { service, namespace, .. } = deployment;
        NotDrilled::NotThere(format!(
            "service/{service} of namespace {namespace} has no ready endpoint with that port: are the pods ready, and is --port right?"
        ))
    };
    ready.map(|(_, address)| address).ok_or_else(none)
}

async fn reach(address: SocketAddr) -> Result<(), NotDrilled> {
    let unreachable = |why: String| NotDrilled::Unreachable { address: address.to_string(), why };
    let connected = tokio::time::timeout(REACH, TcpStream::connect(address)).await;
    connected
        .map_err(|_| unreachable(format!("no answer within {} s", REACH.as_secs())))?
        .map_err(|error| unreachable(error.to_string()))?;
    Ok(())
}

/// How far a pod is known to be.
#[derive(Debug, Clone, Copy, Default)]
struct Pod {
    followed: bool,
    stopping: bool,
    exited: bool,
    status: Option<i64>,
}

struct Known {
    kube: Arc<Kube>,
    deployment: Deployment,
    news: Sender,
    pods: Mutex<BTreeMap<String, Pod>>,
}

/// Tells the load of the Deployment, does what ends pods, and waits for their ends. Gives with what they ended.
///
/// # Errors
///
/// Where the event can not be carried out, or does not end.
pub async fn direct(
    kube: Arc<Kube>,
    deployment: Deployment,
    event: Event,
    news: Sender,
    began: oneshot::Receiver<()>,
) -> Result<Vec<i64>, NotDrilled> {
    let known =
        Arc::new(Known { kube: Arc::clone(&kube), deployment: deployment.clone(), news, pods: Mutex::default() });
    // All of it ends with this set, and with it the load.
    let mut watches = JoinSet::new();
    watches.spawn(watch_slices(Arc::clone(&known)));
    watches.spawn(watch_pods(Arc::clone(&known)));
    tokio::select! {
        began = began => began.map_err(|_| NotDrilled::NoLoad)?,
        Some(Ok(refused)) = watches.join_next() => return Err(refused.into()),
    }
    tokio::time::sleep(AROUND).await;
    known.news.tell(News::Event { what: event.id().to_owned() });
    let pods = running(&kube, &deployment).await?;
    let done = event::carry_out(&kube, &deployment, event, &pods).await;
    let ended = match &done {
        Ok(done) => known.ended(done.ends).await,
        Err(_) => Ok(()),
    };
    if let Ok(done) = &done {
        event::undo(&kube, &deployment, done).await?;
    }
    done?;
    ended?;
    ready(&kube, &deployment).await?;
    tokio::time::sleep(AROUND).await;
    known.news.tell(News::Enough);
    // What is still written of it is heard.
    tokio::time::sleep(AROUND).await;
    Ok(known.lock().values().filter_map(|pod| pod.status).collect())
}

/// The pods that an event may end.
async fn running(kube: &Kube, deployment: &Deployment) -> Result<Vec<Value>, NotDrilled> {
    let mut pods = kube.list(&PODS, Some(&deployment.namespace), &deployment.selector).await?;
    pods.retain(|pod| pod["metadata"]["deletionTimestamp"].is_null() && pod["status"]["phase"] == "Running");
    Ok(pods)
}

/// Waits until the Deployment is as it is wanted, as `kubectl rollout status` does.
async fn ready(kube: &Kube, deployment: &Deployment) -> Result<(), NotDrilled> {
    let Deployment { namespace, name, .. } = deployment;
    let ask = Ask { verb: "get", resource: &DEPLOYMENTS, sub: "", namespace: Some(namespace), name: Some(name) };
    let waiting = async {
        loop {
            let object = kube.json(&ask, "", None).await?;
            let (status, wanted) = (&object["status"], &object["spec"]["replicas"]);
            let is = |key: &str| status[key] == *wanted;
            let heard = status["observedGeneration"].as_u64() >= object["metadata"]["generation"].as_u64();
            if heard && is("replicas") && is("updatedReplicas") && is("availableReplicas") {
                return Ok(());
            }
            tokio::time::sleep(POLL * 5).await;
        }
    };
    let no_end = NotDrilled::NoEnd { open: 0, seconds: READY.as_secs() };
    tokio::time::timeout(READY, waiting).await.unwrap_or(Err(no_end))
}

/// Watches until it may not: a watch ends now and then, and the next one begins with all that there is.
async fn watch(known: &Known, resource: &Resource, selector: &str, mut hear: impl FnMut(&Value)) -> Refused {
    let namespace = Some(known.deployment.namespace.as_str());
    let ask = Ask { verb: "watch", resource, sub: "", namespace, name: None };
    let query = format!("watch=true&labelSelector={}", escaped(selector));
    loop {
        let watched = known.kube.lines(&ask, &query, |line| {
            hear(&serde_json::from_str(line).unwrap_or_default());
            true
        });
        match watched.await {
            Err(refused) if matches!(refused.status(), Some(401 | 403)) => return refused,
            Err(_) => tokio::time::sleep(POLL).await,
            Ok(()) => {}
        }
    }
}

async fn watch_slices(known: Arc<Known>) -> Refused {
    let mut slices = Slices::of(known.deployment.port.clone());
    let selector = format!("kubernetes.io/service-name={}", known.deployment.service);
    let hear = |event: &Value| {
        for piece in slices.hear(event) {
            known.news.tell(piece);
        }
    };
    watch(&known, &SLICES, &selector, hear).await
}

async fn watch_pods(known: Arc<Known>) -> Refused {
    // The logs are followed for as long as the pods are watched.
    let mut logs = JoinSet::new();
    let hear = |event: &Value| {
        for (pod, container) in known.pod(event) {
            logs.spawn(follow_log(Arc::clone(&known), pod, container));
        }
    };
    watch(&known, &PODS, &known.deployment.selector, hear).await
}

/// What a container writes, line by line, as long as it writes.
async fn follow_log(known: Arc<Known>, pod: String, container: String) {
    let namespace = Some(known.deployment.namespace.as_str());
    let ask = Ask { verb: "get", resource: &PODS, sub: "log", namespace, name: Some(&pod) };
    let query = format!("container={}&follow=true&tailLines=0", escaped(&container));
    // Without the right to read it, less is known of what servers saw; the books balance all the same.
    let _ = known
        .kube
        .lines(&ask, &query, |line| known.news.tell(News::Log { name: pod.clone(), line: line.to_owned() }))
        .await;
}

impl Known {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Pod>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is known of a pod; returns what it was.
    fn change(&self, name: &str, change: impl FnOnce(&mut Pod)) -> Pod {
        let mut pods = self.lock();
        let pod = pods.entry(name.to_owned()).or_default();
        let before = *pod;
        change(pod);
        before
    }

    /// Hears of a pod; gives the containers whose logs are to be followed from now on.
    fn pod(&self, event: &Value) -> Vec<(String, String)> {
        let object = &event["object"];
        let Some(name) = object["metadata"]["name"].as_str().map(str::to_owned) else { return Vec::new() };
        if object["metadata"]["deletionTimestamp"].is_string()
            && !self.change(&name, |pod| pod.stopping = true).stopping
        {
            self.news.tell(News::Stopping { name: name.clone() });
        }
        let containers = object["status"]["containerStatuses"].as_array().map(Vec::as_slice).unwrap_or_default();
        let mut follow = Vec::new();
        let runs = |one: &&Value| one["state"]["running"].is_object();
        if containers.iter().any(|one| runs(&one)) && !self.change(&name, |pod| pod.followed = true).followed {
            let own = containers.iter().filter(runs).filter_map(|one| one["name"].as_str());
            follow = own.map(|container| (name.clone(), container.to_owned())).collect();
        }
        // It has ended when all of it has; its status is the first container's, which people put first.
        let ended = |one: &Value| one["state"]["terminated"].is_object();
        let code = containers.first().and_then(|one| one["state"]["terminated"]["exitCode"].as_i64());
        if !containers.is_empty() && containers.iter().all(ended) {
            self.exited(&name);
        }
        if let Some(code) = code
            && self.change(&name, |pod| pod.status = Some(code)).status.is_none()
        {
            self.news.tell(News::Status { name: name.clone(), code: code as i32 });
        }
        if event["type"] == "DELETED" {
            self.exited(&name);
        }
        follow
    }

    fn exited(&self, name: &str) {
        if !self.change(name, |pod| pod.exited = true).exited {
            self.news.tell(News::Exited { name: name.to_owned() });
        }
    }

    /// Waits until so many were told to stop, and all that were have ended.
    async fn ended(&self, ends: usize) -> Result<(), NotDrilled> {
        let count = |which: fn(&Pod) -> bool| self.lock().values().filter(|pod| which(pod)).count();
        let longest = READY + (self.deployment.grace + READY / 4) * u32::try_from(ends).unwrap_or(1);
        let waiting = async {
            while count(|pod| pod.stopping) < ends || count(|pod| pod.stopping && !pod.exited) > 0 {
                tokio::time::sleep(POLL).await;
            }
        };
        let open = || NotDrilled::NoEnd { open: count(|pod| pod.stopping && !pod.exited), seconds: longest.as_secs() };
        tokio::time::timeout(longest, waiting).await.map_err(|_| open())
    }
}
