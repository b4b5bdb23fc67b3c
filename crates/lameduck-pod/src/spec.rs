//! What a pod is made of.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A pod, as its file says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PodSpec {
    /// What its name begins with; its address makes it one of many.
    pub name: String,
    /// A process in the node's network, to which the pod's is connected.
    pub node: u32,
    /// Where records and logs are written.
    pub folder: PathBuf,
    /// From the deletion to SIGKILL, seconds.
    pub grace_s: f64,
    /// From the deletion until the endpoint is taken out, seconds.
    pub lag_s: f64,
    /// From the deletion until the kubelet has heard of it and acts, seconds.
    pub kubelet_s: f64,
    /// The port that its endpoint has.
    pub port: u16,
    /// Whether SIGUSR1 says when the grace is over: whoever watches then decides the moment, and knows it.
    pub told_deadline: bool,
    /// Whether packets at `port` are captured, where `tcpdump` is.
    pub capture: bool,
    /// Native sidecars: started before the containers, stopped after the last of them, in reverse order.
    pub sidecars: Vec<Container>,
    /// Its containers.
    pub containers: Vec<Container>,
}

/// A container.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// What its image adds to the machine's own files: each entry appears at the root.
    pub image: Option<PathBuf>,
    /// What becomes its PID 1.
    pub command: Vec<String>,
    /// Its environment, besides the machine's.
    pub env: BTreeMap<String, String>,
    /// Where it starts.
    pub workdir: Option<String>,
    /// Its preStop hook, which grace pays for.
    pub pre_stop: Option<Vec<String>>,
    /// When it is ready.
    pub readiness: Option<Probe>,
    /// Ports that it declares.
    pub ports: Vec<u16>,
}

/// A readiness probe.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Probe {
    /// What is asked.
    pub check: Check,
    /// `periodSeconds`
    pub period_s: f64,
    /// `timeoutSeconds`
    pub timeout_s: f64,
    /// `failureThreshold`
    pub failures: u32,
}

impl Probe {
    /// How often.
    pub fn period(&self) -> Duration {
        seconds(self.period_s)
    }

    /// How long an answer may take.
    pub fn timeout(&self) -> Duration {
        seconds(self.timeout_s)
    }
}

/// What a probe asks.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    /// A GET that is answered by 200 to 399.
    Http {
        /// The port.
        port: u16,
        /// The path.
        path: String,
    },
    /// A command in the container that exits with 0.
    Exec {
        /// Its words.
        command: Vec<String>,
    },
}

/// A number of seconds that somebody wrote.
pub(crate) fn seconds(number: f64) -> Duration {
    Duration::try_from_secs_f64(number).unwrap_or_default()
}
