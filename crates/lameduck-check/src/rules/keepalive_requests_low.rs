use lameduck_core::{Cause, Severity};

use super::{Check, Subject};
use crate::finding::{Confidence, Finding};

pub const CHECK: Check = Check::Workload(check);

fn check(subject: &Subject<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    for container in &subject.workload.containers {
        let Some(server) = container.server.as_ref().filter(|server| server.id.starts_with("gunicorn")) else { continue };
        let Some(limit) = server.max_requests.as_ref().filter(|limit| limit.value < 1000.0) else { continue };
        let message = format!(
            "a worker is replaced every {} requests; with it go its connections, and what it has accepted and not answered",
            limit.value
        );
        found.push(
            Finding::new(Cause::CrashRestart, Severity::Note, limit.at, message)
                .confidence(Confidence::Medium)
                .help("a limit in the thousands, with max_requests_jitter; or find the leak it is there for"),
        );
    }
    found
}
