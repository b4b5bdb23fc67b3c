use lameduck_core::{Cause, Severity};

use super::{Check, Subject};
use crate::finding::{Confidence, Finding};
use crate::predict::pre_stop;
use crate::world::{aws_setting, target_attribute};

pub const CHECK: Check = Check::Workload(check);

fn check(subject: &Subject<'_>) -> Vec<Finding> {
    let workload = subject.workload;
    let Some(container) = subject.main() else { return Vec::new() };
    let mut found = Vec::new();
    for (ingress, service) in subject.world.ingresses(workload) {
        // Nodes are taken out when they go, not when a pod does.
        let by_pod = aws_setting(ingress, service, "target-type").as_deref() == Some("ip");
        if !by_pod || subject.world.controller(ingress) != Some("aws-alb") {
            continue;
        }
        let Some(delay) = target_attribute(ingress, service, "deregistration_delay.timeout_seconds") else { continue };
        let serves = workload.grace_s();
        let (least, _) = pre_stop(container, serves);
        let message = if delay.value <= 0.0 {
            "deregistration_delay.timeout_seconds=0: the load balancer cuts what is in flight as soon as the pod is taken out".to_owned()
        } else if delay.value < least {
            format!(
                "deregistration_delay.timeout_seconds={}: the load balancer cuts requests {} s after the pod is taken out, while the pod serves on (preStop {least} s, grace {serves} s)",
                delay.value, delay.value
            )
        } else {
            continue;
        };
        found.push(
            Finding::new(Cause::CutMidResponse, Severity::Warning, delay.at, message)
                .confidence(Confidence::Medium)
                .help(format!("deregistration_delay.timeout_seconds={serves}: as long as the grace period")),
        );
    }
    found
}
