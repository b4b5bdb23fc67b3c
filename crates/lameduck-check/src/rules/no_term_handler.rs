use lameduck_core::{Cause, Severity};

use super::{Check, Subject};
use crate::finding::{Confidence, Finding};
use crate::launch::Outcome;
use crate::predict::{handler_is_absent, is_pid1};
use crate::server::OnSignal;

pub const CHECK: Check = Check::Workload(check);

fn check(subject: &Subject<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    for container in &subject.workload.containers {
        let (Some(launch), Some(server)) = (&container.launch, &container.server) else { continue };
        if launch.outcome != Outcome::Graceful || server.on_stop != OnSignal::NoHandler || !handler_is_absent(container) {
            continue;
        }
        let at = server.node.as_ref().and_then(|node| node.server.as_ref()).map_or(server.at, |(at, _)| *at);
        let grace = subject.workload.grace_s();
        let (cause, message) = if is_pid1(&launch.node) {
            let what = format!("TERM reaches {}, which has no handler for it: the kernel drops it for PID 1, and SIGKILL follows after {grace} s", server.name);
            (Cause::SignalNotDelivered, what)
        } else {
            let what = format!("TERM reaches {}, which has no handler for it and dies with what is in flight", server.name);
            (Cause::CutMidResponse, what)
        };
        found.push(
            Finding::new(cause, Severity::Error, at, message)
                .confidence(Confidence::Medium)
                .help("process.on('SIGTERM', () => server.close()); or lameduck run in front with --stop-signal"),
        );
    }
    found
}
