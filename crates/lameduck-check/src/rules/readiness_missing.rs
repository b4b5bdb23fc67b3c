use lameduck_core::{Cause, Severity};

use super::{Check, Subject};
use crate::finding::Finding;
use crate::model::Kind;
use crate::predict::is_routed;

pub const CHECK: Check = Check::Workload(check);

fn check(subject: &Subject<'_>) -> Vec<Finding> {
    let workload = subject.workload;
    let Some(container) = subject.main().filter(|_| workload.kind.in_cluster() && is_routed(subject.world, workload)) else {
        return Vec::new();
    };
    if container.readiness.is_some() || container.ports.is_empty() || workload.kind == Kind::KnativeService {
        return Vec::new();
    }
    let message = format!("{} is routed to as soon as its process runs: nothing asks whether it listens yet", container.name);
    vec![
        Finding::new(Cause::NotReadyYet, Severity::Warning, container.at, message)
            .help("add a readinessProbe; what it asks is the app's own matter, so there is no automatic fix"),
    ]
}
