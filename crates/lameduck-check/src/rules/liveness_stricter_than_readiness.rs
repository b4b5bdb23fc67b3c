use lameduck_core::{Cause, Severity};

use super::{Check, Subject};
use crate::finding::Finding;

pub const CHECK: Check = Check::Workload(check);

fn check(subject: &Subject<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    for container in &subject.workload.containers {
        let (Some(live), Some(ready)) = (&container.liveness, &container.readiness) else { continue };
        if live.reacts_s() >= ready.reacts_s() || live.handler == ready.handler {
            continue;
        }
        let message = format!(
            "liveness gives up after {} s, readiness after {} s: a slow pod is killed while it is still routed to",
            live.reacts_s(), ready.reacts_s()
        );
        found.push(
            Finding::new(Cause::CrashRestart, Severity::Warning, live.at, message)
                .help("let readiness fail first: a higher failureThreshold or periodSeconds for liveness"),
        );
    }
    found
}
