use lameduck_core::{Cause, Severity};

use super::{Check, Subject};
use crate::finding::{Confidence, Finding};

pub const CHECK: Check = Check::Workload(check);

fn check(subject: &Subject<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    for container in &subject.workload.containers {
        let Some(node) = container.server.as_ref().and_then(|server| server.node.as_ref()) else { continue };
        let (Some(idle), Some(headers)) = (&node.keep_alive, &node.headers_timeout) else { continue };
        if headers.value > idle.value {
            continue;
        }
        let message = format!(
            "headersTimeout ({} s) is not above keepAliveTimeout ({} s): up to Node 16 it cuts idle connections first",
            headers.value, idle.value
        );
        found.push(
            Finding::new(Cause::IdleCloseRace, Severity::Note, headers.at, message)
                .confidence(Confidence::Medium)
                .help(format!("headersTimeout above {} s", idle.value)),
        );
    }
    found
}
