use lameduck_core::{Cause, Severity};

use super::{Check, Subject, budget};
use crate::finding::Finding;
use crate::predict::pre_stop;
use crate::span::At;

pub const CHECK: Check = Check::Workload(check);

fn check(subject: &Subject<'_>) -> Vec<Finding> {
    let workload = subject.workload;
    let grace = workload.grace_s();
    let mut found = Vec::new();
    let Some(container) = subject.main().filter(|_| workload.kind.in_cluster()) else { return found };
    let left = grace - pre_stop(container, grace).0;
    let longest = |value: f64, at: At, who: &str| {
        let message = format!("{who} lets a request run for {value} s, and {left:.0} s are left between TERM and SIGKILL");
        let needs = grace - left + value + budget::MARGIN;
        Finding::new(Cause::KilledAtDeadline, Severity::Warning, at, message)
            .help(format!("terminationGracePeriodSeconds: {needs}, or a shorter limit for requests"))
            .fix(true, format!("SIGKILL at {needs} s instead of {grace} s"), budget::raise_grace(workload, needs))
    };
    if let Some((server, limit)) = container.server.as_ref().and_then(|server| Some((server, server.request.as_ref()?)))
        && limit.value > left
    {
        found.push(longest(limit.value, limit.at, server.name));
    }
    for (ingress, service) in subject.world.ingresses(workload) {
        let stated = ingress.annotations.iter().find(|(key, _)| key == "nginx.ingress.kubernetes.io/proxy-read-timeout");
        if let Some((_, text)) = stated
            && let Some(value) = text.value.parse::<f64>().ok().filter(|value| *value > left)
        {
            found.push(longest(value, text.at, "the ingress"));
        }
        for backend in subject.world.backends(service) {
            if let Some(timeout) = backend.timeout.as_ref().filter(|timeout| timeout.value > left) {
                found.push(longest(timeout.value, timeout.at, "the load balancer"));
            }
        }
    }
    found.truncate(1);
    found
}
