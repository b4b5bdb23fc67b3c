use lameduck_core::{Cause, Severity};

use super::{Check, Subject};
use crate::finding::{Confidence, Finding};
use crate::model::Kind;
use crate::predict::is_routed;

pub const CHECK: Check = Check::Workload(check);

fn check(subject: &Subject<'_>) -> Vec<Finding> {
    let workload = subject.workload;
    let several = workload.replicas.as_ref().is_some_and(|replicas| replicas.value >= 2.0);
    let kind = matches!(workload.kind, Kind::Deployment | Kind::StatefulSet | Kind::Rollout);
    if !several || !kind || !is_routed(subject.world, workload) {
        return Vec::new();
    }
    // Only where budgets are kept among the files at all is one that is missing a finding.
    if !subject.world.budgets_by_label || subject.world.pdbs(workload).next().is_some() {
        return Vec::new();
    }
    let message = "other workloads have a PodDisruptionBudget, this one has none: a node drain may end all its pods at once";
    vec![
        Finding::new(Cause::GoneAddress, Severity::Note, workload.at, message)
            .confidence(Confidence::Medium)
            .help("a PodDisruptionBudget with maxUnavailable: 1"),
    ]
}
