use lameduck_core::{Cause, Severity};

use super::{Check, Subject};
use crate::finding::{Confidence, Finding};
use crate::predict::is_routed;

pub const CHECK: Check = Check::Workload(check);

fn check(subject: &Subject<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    let workload = subject.workload;
    let grace = workload.grace_s();
    for hpa in subject.world.hpas(workload).filter(|hpa| !hpa.disabled && is_routed(subject.world, workload)) {
        // The default policy: 100 % in 15 s.
        let (percent, period) = match hpa.policies.as_slice() {
            [] => (100.0, 15.0),
            policies => {
                let fastest = policies.iter().filter(|(kind, ..)| kind == "Percent").map(|(_, value, period)| (*value, *period));
                fastest.fold((0.0, f64::INFINITY), |a: (f64, f64), b| if b.0 / b.1 > a.0 / a.1 { b } else { a })
            }
        };
        if percent < 50.0 || period >= grace {
            continue;
        }
        let message = format!(
            "{percent} % of the pods above the minimum may be ended within {period} s, each of which drains for up to {grace} s: many drain at once and the rest must carry all traffic"
        );
        let lines: Vec<String> = [
            "behavior:",
            "  scaleDown:",
            "    policies:",
            "    - type: Percent",
            "      value: 10",
        ]
        .into_iter()
        .map(str::to_owned)
        .chain([format!("      periodSeconds: {}", (grace.ceil() as u64).clamp(30, 1800))])
        .collect();
        let edits = hpa.insert.filter(|_| !hpa.behavior).map(|insert| insert.lines(&lines));
        found.push(
            Finding::new(Cause::CutMidResponse, Severity::Warning, hpa.scale_down.unwrap_or(hpa.at), message)
                .confidence(Confidence::Medium)
                .help(format!("behavior.scaleDown.policies: 10 % in {} s", grace.max(30.0)))
                .fix(true, format!("at most 10 % of the pods end in {} s", grace.max(30.0)), edits.into_iter().collect()),
        );
    }
    found
}
