//! `kubectl lameduck`: what the verbs do on files and processes, on a live cluster.
//!
//! [`kubeconfig`] says which cluster and as whom, [`kube`] asks it. Each verb is a module: [`live`] checks, [`reports`] counts
//! what drains have written, [`gather`] fetches what explain reads, [`drill`] tells the load of a Deployment.

pub mod ask;
pub mod credential;
pub mod drill;
pub mod exec;
pub mod gather;
pub mod kube;
pub mod kubeconfig;
pub mod live;
pub mod pid1;
pub mod reports;
pub mod resource;
mod tls;
mod websocket;

use std::future::Future;
use std::io;

/// Does asynchronous work to its end, on this thread.
///
/// # Errors
///
/// Where the runtime does not start.
pub fn block<F: Future>(work: F) -> io::Result<F::Output> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(work))
}

/// A word from one thread to work on another.
pub fn signal() -> (tokio::sync::oneshot::Sender<()>, tokio::sync::oneshot::Receiver<()>) {
    tokio::sync::oneshot::channel()
}
