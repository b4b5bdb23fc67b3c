use lameduck_core::{Cause, Severity};

use super::{Check, Subject};
use crate::finding::{Confidence, Finding};

pub const CHECK: Check = Check::Workload(check);

fn check(subject: &Subject<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    for container in &subject.workload.containers {
        let Some(server) = &container.server else { continue };
        let Some(limit) = server.max_requests.as_ref().filter(|_| !server.jitter) else { continue };
        let message = format!("every worker is replaced after {} requests, all at about the same time", limit.value);
        found.push(
            Finding::new(Cause::CrashRestart, Severity::Note, limit.at, message)
                .confidence(Confidence::Medium)
                .help("--max-requests-jitter, a tenth of --max-requests"),
        );
    }
    found
}
