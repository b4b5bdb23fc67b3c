use lameduck_core::{Cause, Severity};

use super::{Check, Subject};
use crate::finding::Finding;
use crate::edit::Edit;

pub const CHECK: Check = Check::Workload(check);

fn check(subject: &Subject<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    for container in &subject.workload.containers {
        let (Some(live), Some(ready)) = (&container.liveness, &container.readiness) else { continue };
        let same = !live.handler.trim().is_empty() && live.handler == ready.handler && !live.handler.starts_with("tcpSocket");
        if !same || live.reacts_s() > ready.reacts_s() {
            continue;
        }
        let failures = (2.0 * ready.reacts_s() / live.period).ceil().max(live.failures + 1.0);
        let edits = match (live.failures_at, live.insert) {
            (Some(at), _) => vec![Edit { file: at.file, span: at.span, text: failures.to_string() }],
            (None, Some(insert)) => vec![insert.lines(&[format!("failureThreshold: {failures}")])],
            (None, None) => Vec::new(),
        };
        let message = "liveness asks what readiness asks, and no later: a pod that should only leave routing is restarted";
        found.push(
            Finding::new(Cause::CrashRestart, Severity::Warning, live.at, message)
                .help("give liveness an endpoint of its own that fails only when a restart helps, or let it react later")
                .fix(false, format!("liveness reacts after {} s, readiness after {} s", failures * live.period, ready.reacts_s()), edits),
        );
    }
    found
}
