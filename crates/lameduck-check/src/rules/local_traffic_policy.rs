use lameduck_core::{Cause, Severity};

use super::{Check, Subject};
use crate::finding::{Confidence, Finding};
use crate::predict::pre_stop;

pub const CHECK: Check = Check::Workload(check);

fn check(subject: &Subject<'_>) -> Vec<Finding> {
    let workload = subject.workload;
    let Some((container, service)) = subject.main().zip(subject.world.services(workload).find(|service| {
        service.kind == "LoadBalancer" && service.external_policy.as_ref().is_some_and(|policy| policy.value == "Local")
    })) else {
        return Vec::new();
    };
    let Some(policy) = &service.external_policy else { return Vec::new() };
    let serves = pre_stop(container, workload.grace_s()).1;
    if serves >= 20.0 {
        return Vec::new();
    }
    let message = format!(
        "with externalTrafficPolicy: Local a node whose last pod ends drops traffic until the load balancer's health check fails, and {} serves for {serves} s after its deletion",
        workload.name
    );
    vec![
        Finding::new(Cause::RefusedWhileRouted, Severity::Warning, policy.at, message)
            .confidence(Confidence::Medium)
            .help("a preStop sleep longer than health-check interval x threshold, or externalTrafficPolicy: Cluster"),
    ]
}
