//! A pod without a cluster, for [`hold`] to run: its containers share a network namespace and have a pid namespace each, so that
//! PID 1 is real; it is ended in the kubelet's order, and what a cluster would have recorded of it is written down.
//!
//! Namespaces are made by `unshare` and `nsenter` of util-linux, addresses by `ip` of iproute2. Nothing of the host changes: all
//! of it goes with the last process.

mod clock;
mod container;
mod hold;
mod network;
mod probe;
mod record;
mod spec;
pub mod tree;

pub use clock::rfc3339;
pub use container::{ROOT_SCRIPT, in_namespaces, signal};
pub use hold::{KILLED, SANDBOX, delete, hold};
pub use network::{BRIDGE, disconnect, node_script};
pub use rustix::process::Signal;
pub use spec::{Check, Container, PodSpec, Probe};

/// Why a pod could not be held.
#[derive(Debug, thiserror::Error)]
pub enum PodError {
    /// A program failed.
    #[error("{command}: {why}")]
    Program {
        /// The command line.
        command: String,
        /// What it said.
        why: String,
    },
    /// A file.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The runtime.
    #[error("could not run: {0}")]
    Runtime(#[from] std::io::Error),
}
