//! Arithmetic with the grace period that several rules share.

use crate::edit::Edit;
use crate::model::{Container, Kind, Workload};

/// Kept between the last thing that should happen and SIGKILL.
pub const MARGIN: f64 = 5.0;

/// A preStop sleep that outlasts the propagation of endpoints, where nothing slower stands in front.
pub const SLEEP: f64 = 10.0;

/// Sets the grace period.
pub fn raise_grace(workload: &Workload, seconds: f64) -> Vec<Edit> {
    let value = seconds.ceil();
    if let Some(grace) = &workload.grace {
        let unit = if workload.kind == Kind::Compose { "s" } else { "" };
        return vec![Edit { file: grace.at.file, span: grace.at.span, text: format!("{value}{unit}") }];
    }
    let key = match workload.kind {
        Kind::Compose => format!("stop_grace_period: {value}s"),
        Kind::Image | Kind::Procfile => return Vec::new(),
        Kind::Deployment
        | Kind::StatefulSet
        | Kind::DaemonSet
        | Kind::Pod
        | Kind::ReplicaSet
        | Kind::Rollout
        | Kind::KnativeService
        | Kind::DeploymentConfig
        | Kind::ReplicationController => format!("terminationGracePeriodSeconds: {value}"),
    };
    workload.insert.map(|insert| insert.lines(&[key])).into_iter().collect()
}

/// Adds a preStop hook of these lines to a container that has none.
pub fn add_pre_stop(container: &Container, hook: &[String]) -> Vec<Edit> {
    if container.pre_stop.is_some() {
        return Vec::new();
    }
    let indented = |by: usize| hook.iter().map(move |line| format!("{}{line}", " ".repeat(by)));
    if let Some(insert) = container.lifecycle {
        let lines: Vec<String> = std::iter::once("preStop:".to_owned()).chain(indented(2)).collect();
        return vec![insert.lines(&lines)];
    }
    let Some(insert) = container.insert else { return Vec::new() };
    let head = ["lifecycle:".to_owned(), "  preStop:".to_owned()];
    let lines: Vec<String> = head.into_iter().chain(indented(4)).collect();
    vec![insert.lines(&lines)]
}

/// The sleep action: no shell is needed (on by default since Kubernetes 1.30).
pub fn sleep_hook(seconds: f64) -> Vec<String> {
    vec!["sleep:".to_owned(), format!("  seconds: {}", seconds.ceil())]
}

/// How long a server takes to stop by its own limit, where it has one.
pub fn own_stop(container: &Container) -> Option<f64> {
    let server = container.server.as_ref()?;
    let graceful = server.on_stop == crate::server::OnSignal::Graceful;
    server.shutdown.map(|(_, most)| most).filter(|most| graceful && most.is_finite())
}
