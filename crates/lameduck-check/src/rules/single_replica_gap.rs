use lameduck_core::{Cause, Severity};

use super::{Check, Subject};
use crate::finding::Finding;
use crate::model::Kind;
use crate::predict::is_routed;

pub const CHECK: Check = Check::Workload(check);

fn check(subject: &Subject<'_>) -> Vec<Finding> {
    let workload = subject.workload;
    let one = workload.replicas.as_ref().map_or(1.0, |replicas| replicas.value) <= 1.0;
    let scaled = subject.world.hpas(workload).any(|hpa| hpa.min.as_ref().is_none_or(|min| min.value > 1.0));
    let kind = matches!(workload.kind, Kind::StatefulSet | Kind::Deployment | Kind::Rollout);
    if !kind || !one || scaled || !is_routed(subject.world, workload) {
        return Vec::new();
    }
    // A Deployment's default surge starts the new pod first; a node drain and a StatefulSet do not.
    let severity = if workload.kind == Kind::StatefulSet { Severity::Warning } else { Severity::Note };
    let at = workload.replicas.as_ref().map_or(workload.at, |replicas| replicas.at);
    let message = "with one replica nobody serves between its end and its successor's start, at least at every node drain";
    vec![Finding::new(Cause::GoneAddress, severity, at, message).help("replicas: 2, or accept the gap and say so with an ignore")]
}
