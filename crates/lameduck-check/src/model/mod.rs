//! What the files say, without their syntax. Small on purpose: it outlives the files' texts.

pub mod compose;
pub mod kubernetes;
pub mod node;
pub mod objects;
pub mod proxy;

use crate::edit::Insert;
use crate::launch::{Command, Launch};
use crate::server::Server;
use crate::span::{At, FileId, Sp};

/// What kind of thing ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Deployment,
    StatefulSet,
    DaemonSet,
    Pod,
    ReplicaSet,
    Rollout,
    KnativeService,
    DeploymentConfig,
    ReplicationController,
    /// A service of a Compose file.
    Compose,
    /// A Dockerfile by itself.
    Image,
    /// A line of a Procfile.
    Procfile,
}

impl Kind {
    /// Kubernetes ends it: there is a grace period, and endpoints.
    pub fn in_cluster(self) -> bool {
        match self {
            Kind::Deployment
            | Kind::StatefulSet
            | Kind::DaemonSet
            | Kind::Pod
            | Kind::ReplicaSet
            | Kind::Rollout
            | Kind::KnativeService
            | Kind::DeploymentConfig
            | Kind::ReplicationController => true,
            Kind::Compose | Kind::Image | Kind::Procfile => false,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Kind::Deployment => "Deployment",
            Kind::StatefulSet => "StatefulSet",
            Kind::DaemonSet => "DaemonSet",
            Kind::Pod => "Pod",
            Kind::ReplicaSet => "ReplicaSet",
            Kind::Rollout => "Rollout",
            Kind::KnativeService => "KnativeService",
            Kind::DeploymentConfig => "DeploymentConfig",
            Kind::ReplicationController => "ReplicationController",
            Kind::Compose => "Compose",
            Kind::Image => "Image",
            Kind::Procfile => "Procfile",
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Probe {
    pub at: At,
    /// What it asks, for comparison.
    pub handler: String,
    pub period: f64,
    pub timeout: f64,
    pub failures: f64,
    pub initial_delay: f64,
    /// Where `failureThreshold` is, or where it can stand.
    pub failures_at: Option<At>,
    pub insert: Option<Insert>,
}

impl Probe {
    /// How long it fails before anybody acts on it.
    pub fn reacts_s(&self) -> f64 {
        self.period * self.failures
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum Hook {
    /// The sleep action.
    Sleep(f64),
    /// A command.
    Exec(Vec<String>),
    Http(String),
}

#[derive(Debug, Clone, PartialEq)]
pub struct PreStop {
    pub hook: Hook,
    pub at: At,
    /// The seconds it sleeps, where they are written down: shortest and longest.
    pub lasts: Option<(f64, f64)>,
}

#[derive(Debug, Clone, Default)]
pub struct Container {
    pub name: String,
    pub at: At,
    pub image: Option<Sp<String>>,
    pub command: Option<Command>,
    pub args: Option<Command>,
    pub env: Vec<(String, String)>,
    pub ports: Vec<u16>,
    pub readiness: Option<Probe>,
    pub liveness: Option<Probe>,
    pub pre_stop: Option<PreStop>,
    /// A `lifecycle` is there, and this is its first key.
    pub lifecycle: Option<Insert>,
    pub memory_limit: Option<Sp<f64>>,
    /// An init container with `restartPolicy: Always`.
    pub sidecar: bool,
    pub insert: Option<Insert>,
    /// Filled in by linking.
    pub launch: Option<Launch>,
    pub server: Option<Server>,
    pub stop_signal: Option<Sp<String>>,
    /// The image has no shell.
    pub shell_absent: bool,
    /// The Dockerfile it was linked to.
    pub dockerfile: Option<FileId>,
    /// Where STOPSIGNAL can be added.
    pub image_end: Option<At>,
    /// Links by name are likely, not certain.
    pub link_sure: bool,
}

#[derive(Debug, Clone, Default)]
pub struct Strategy {
    pub kind: Option<Sp<String>>,
    pub max_unavailable: Option<Sp<String>>,
    pub max_surge: Option<Sp<String>>,
}

#[derive(Debug, Clone)]
pub struct Workload {
    pub kind: Kind,
    pub file: FileId,
    pub at: At,
    pub name: String,
    pub namespace: String,
    pub labels: Vec<(String, String)>,
    pub replicas: Option<Sp<f64>>,
    pub strategy: Strategy,
    pub min_ready: Option<Sp<f64>>,
    pub grace: Option<Sp<f64>>,
    pub share_pids: Option<At>,
    pub readiness_gates: bool,
    /// Node selectors, affinity terms and tolerations, as `key=value`.
    pub nodes: Vec<Sp<String>>,
    pub annotations: Vec<(String, Sp<String>)>,
    pub containers: Vec<Container>,
    /// Where a key of the pod's spec can stand.
    pub insert: Option<Insert>,
    /// Where a key of the object's spec can stand.
    pub insert_outer: Option<Insert>,
    pub ignores: Vec<Ignore>,
}

impl Workload {
    pub fn new(kind: Kind, at: At, name: &str) -> Workload {
        Workload {
            kind,
            file: at.file,
            at,
            name: name.to_owned(),
            namespace: String::new(),
            labels: Vec::new(),
            replicas: None,
            strategy: Strategy::default(),
            min_ready: None,
            grace: None,
            share_pids: None,
            readiness_gates: false,
            nodes: Vec::new(),
            annotations: Vec::new(),
            containers: Vec::new(),
            insert: None,
            insert_outer: None,
            ignores: Vec::new(),
        }
    }

    /// Seconds from the deletion to SIGKILL.
    pub fn grace_s(&self) -> f64 {
        let default = match self.kind {
            // docker stop's own default.
            Kind::Compose | Kind::Image => 10.0,
            Kind::Deployment
            | Kind::StatefulSet
            | Kind::DaemonSet
            | Kind::Pod
            | Kind::ReplicaSet
            | Kind::Rollout
            | Kind::KnativeService
            | Kind::DeploymentConfig
            | Kind::ReplicationController
            | Kind::Procfile => 30.0,
        };
        self.grace.as_ref().map_or(default, |grace| grace.value)
    }
}

/// Somebody has said why a finding does not matter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ignore {
    pub rule: String,
    pub reason: String,
    pub at: At,
    /// It is for the line it stands on and the one below; otherwise for the whole object.
    pub line: bool,
}
