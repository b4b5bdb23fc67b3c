use lameduck_core::{Cause, Severity};

use super::{Check, Subject};
use crate::finding::{Confidence, Finding};
use crate::edit::Edit;
use crate::predict::is_routed;

pub const CHECK: Check = Check::Workload(check);

fn check(subject: &Subject<'_>) -> Vec<Finding> {
    let workload = subject.workload;
    let Some(container) = subject.main().filter(|_| is_routed(subject.world, workload)) else { return Vec::new() };
    let Some(probe) = &container.readiness else { return Vec::new() };
    let grace = workload.grace_s();
    if probe.reacts_s() < grace {
        return Vec::new();
    }
    let message = format!(
        "readiness is taken back after {} x {} s = {} s of failing: not within the {grace} s that the end takes",
        probe.failures, probe.period, probe.reacts_s()
    );
    let severity = if workload.containers.len() > 1 { Severity::Warning } else { Severity::Note };
    let failures = ((grace / 3.0) / probe.period).floor().max(1.0);
    let edits = match (probe.failures_at, probe.insert) {
        (Some(at), _) => vec![Edit { file: at.file, span: at.span, text: failures.to_string() }],
        (None, Some(insert)) => vec![insert.lines(&[format!("failureThreshold: {failures}")])],
        (None, None) => Vec::new(),
    };
    let fits = failures * probe.period < grace;
    vec![
        Finding::new(Cause::PeerDown, severity, probe.at, message)
            .confidence(Confidence::Medium)
            .help("deletion takes the endpoint out at once; a neighbour or an app that fails before it is noticed only by the probe: lower failureThreshold or periodSeconds")
            .fix(false, format!("readiness is taken back after {} s", failures * probe.period), if fits { edits } else { Vec::new() }),
    ]
}
