use lameduck_core::{Cause, Severity};

use super::{Check, Subject};
use crate::finding::{Confidence, Finding};
use crate::predict::pre_stop;

pub const CHECK: Check = Check::Workload(check);

fn check(subject: &Subject<'_>) -> Vec<Finding> {
    let workload = subject.workload;
    let Some(container) = subject.main() else { return Vec::new() };
    let serves = pre_stop(container, workload.grace_s()).1;
    let mut found = Vec::new();
    for service in subject.world.services(workload) {
        let neg = service.annotations.iter().any(|(key, _)| key == "cloud.google.com/neg");
        for backend in subject.world.backends(service) {
            let (Some(interval), unhealthy) = (&backend.interval, backend.unhealthy.as_ref().map_or(2.0, |n| n.value)) else { continue };
            let notices = interval.value * unhealthy;
            if neg || notices <= serves {
                continue;
            }
            let message = format!(
                "the load balancer notices a pod that is gone after {} x {unhealthy} = {notices} s, and it serves for {serves} s after its deletion",
                interval.value
            );
            found.push(
                Finding::new(Cause::RefusedWhileRouted, Severity::Warning, interval.at, message)
                    .confidence(Confidence::Medium)
                    .help("container-native load balancing (the neg annotation), a shorter interval, or a longer preStop sleep"),
            );
        }
    }
    found
}
