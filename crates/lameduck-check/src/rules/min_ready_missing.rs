use lameduck_core::{Cause, Severity};

use super::{Check, Subject};
use crate::finding::{Confidence, Finding};
use crate::model::Kind;

pub const CHECK: Check = Check::Workload(check);

fn check(subject: &Subject<'_>) -> Vec<Finding> {
    let workload = subject.workload;
    let slow = subject.world.hops(workload).into_iter().find(|hop| hop.balancer.lag.1.is_none_or(|lag| lag > 10.0));
    let Some(hop) = slow.filter(|_| matches!(workload.kind, Kind::Deployment | Kind::Rollout)) else { return Vec::new() };
    if workload.min_ready.is_some() || workload.readiness_gates || workload.replicas.as_ref().is_some_and(|n| n.value < 1.0) {
        return Vec::new();
    }
    let message = format!(
        "a rollout goes on as soon as a pod is ready, before {} has taken it in: old pods can be gone while new ones get nothing",
        hop.balancer.name
    );
    let edits = workload.insert_outer.map(|insert| insert.lines(&["minReadySeconds: 30".to_owned()]));
    vec![
        Finding::new(Cause::NotReadyYet, Severity::Note, workload.at, message)
            .confidence(Confidence::Medium)
            .help("minReadySeconds: 30, or the load balancer's pod readiness gate")
            .fix(false, "an old pod ends at least 30 s after its successor became ready", edits.into_iter().collect()),
    ]
}
