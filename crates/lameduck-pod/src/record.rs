//! What a cluster would have recorded: the pod as `kubectl get pods -o json` shows it, and its events. Times are to the second.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::PodError;
use crate::clock::{now, rfc3339};
use crate::spec::PodSpec;

/// One container's life so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct ContainerState {
    pub(crate) started: Option<Duration>,
    pub(crate) ready: bool,
    pub(crate) ended: Option<(Duration, i32)>,
    /// The end before the last start.
    pub(crate) ended_before: Option<(Duration, Duration, i32)>,
    pub(crate) restarts: u32,
}

/// The records of one pod.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) name: String,
    address: Ipv4Addr,
    grace: u64,
    folder: PathBuf,
    events: File,
    created: Duration,
    deleted: Option<Duration>,
    /// Since when all are ready, or are not any more.
    ready: (bool, Duration),
    ports: Vec<(String, Vec<u16>)>,
    pub(crate) containers: Vec<ContainerState>,
}

impl Record {
    pub(crate) fn new(spec: &PodSpec, address: Ipv4Addr) -> Result<Record, PodError> {
        let [_, _, high, low] = address.octets();
        let name = format!("{}-{high:02x}{low:02x}", spec.name);
        let path = spec.folder.join(format!("{name}-events.json"));
        let events = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(|source| PodError::File { path: path.display().to_string(), source })?;
        let ports = spec.sidecars.iter().chain(&spec.containers);
        let ports: Vec<_> = ports.map(|one| (one.name.clone(), one.ports.clone())).collect();
        Ok(Record {
            name,
            address,
            grace: spec.grace_s.ceil() as u64,
            folder: spec.folder.clone(),
            events,
            created: now(),
            deleted: None,
            ready: (false, now()),
            containers: vec![ContainerState::default(); ports.len()],
            ports,
        })
    }

    /// The file that a container's output goes to.
    pub(crate) fn log(&self, container: usize) -> PathBuf {
        self.folder.join(format!("{}_{}.log", self.name, self.ports[container].0))
    }

    /// A file of this pod.
    pub(crate) fn file(&self, ending: &str) -> PathBuf {
        self.folder.join(format!("{}{ending}", self.name))
    }

    /// Writes an event about this pod.
    pub(crate) fn event(&mut self, kind: &str, reason: &str, message: &str) {
        let at = rfc3339(now());
        let event = json!({
            "apiVersion": "v1", "kind": "Event", "type": kind, "reason": reason, "message": message, "count": 1,
            "involvedObject": {"apiVersion": "v1", "kind": "Pod", "namespace": "default", "name": self.name},
            "metadata": {"name": format!("{}.{}", self.name, now().as_nanos()), "namespace": "default", "creationTimestamp": at},
            "firstTimestamp": at, "lastTimestamp": at, "source": {"component": "kubelet", "host": "lameduck-node"},
        });
        // A full disk loses the record, not the pod.
        let _ = writeln!(self.events, "{event}");
    }

    /// The pod's deletion.
    pub(crate) fn delete(&mut self) {
        self.deleted = Some(now());
    }

    /// Whether all containers are ready.
    pub(crate) fn is_ready(&self) -> bool {
        self.containers.iter().all(|container| container.ready)
    }

    /// Writes the pod as it is.
    pub(crate) fn write(&mut self) {
        if self.is_ready() != self.ready.0 {
            self.ready = (self.is_ready(), now());
        }
        // Whoever reads finds the old one or the new one.
        let (path, next) = (self.file(".json"), self.file(".json.new"));
        let _ = fs::write(&next, format!("{}\n", self.pod())).and_then(|()| fs::rename(&next, &path));
    }

    fn pod(&self) -> Value {
        let mut metadata = json!({
            "name": self.name, "namespace": "default", "creationTimestamp": rfc3339(self.created),
        });
        if let Some(at) = self.deleted {
            metadata["deletionTimestamp"] = rfc3339(at + Duration::from_secs(self.grace)).into();
            metadata["deletionGracePeriodSeconds"] = self.grace.into();
        }
        let containers: Vec<Value> = self
            .ports
            .iter()
            .map(|(name, ports)| {
                let ports: Vec<Value> = ports.iter().map(|port| json!({"containerPort": port})).collect();
                json!({"name": name, "ports": ports})
            })
            .collect();
        let statuses: Vec<Value> =
            self.ports.iter().zip(&self.containers).map(|((name, _), state)| status(name, state)).collect();
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": metadata,
            "spec": {"nodeName": "lameduck-node", "terminationGracePeriodSeconds": self.grace, "containers": containers},
            "status": {
                "podIP": self.address.to_string(), "startTime": rfc3339(self.created), "phase": "Running",
                "conditions": [{
                    "type": "Ready", "status": if self.ready.0 { "True" } else { "False" },
                    "lastTransitionTime": rfc3339(self.ready.1),
                }],
                "containerStatuses": statuses,
            },
        })
    }
}

fn status(name: &str, container: &ContainerState) -> Value {
    let ended = |started: Duration, at: Duration, code: i32| {
        let reason = if code == 0 { "Completed" } else { "Error" };
        json!({"terminated": {
            "startedAt": rfc3339(started), "finishedAt": rfc3339(at), "exitCode": code, "reason": reason,
        }})
    };
    let started = container.started.unwrap_or_default();
    let state = match (container.ended, container.started) {
        (Some((at, code)), _) => ended(started, at, code),
        (None, Some(started)) => json!({"running": {"startedAt": rfc3339(started)}}),
        (None, None) => json!({"waiting": {"reason": "ContainerCreating"}}),
    };
    let before = container.ended_before.map(|(started, at, code)| ended(started, at, code));
    json!({
        "name": name, "ready": container.ready, "restartCount": container.restarts, "state": state,
        "lastState": before.unwrap_or_else(|| json!({})),
    })
}

/// Adds to a file.
pub(crate) fn appender(path: &Path) -> Result<File, PodError> {
    let file = OpenOptions::new().create(true).append(true).open(path);
    file.map_err(|source| PodError::File { path: path.display().to_string(), source })
}
