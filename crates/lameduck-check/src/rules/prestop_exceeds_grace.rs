use lameduck_core::{Cause, Severity};

use super::{Check, Subject, budget};
use crate::finding::Finding;

pub const CHECK: Check = Check::Workload(check);

fn check(subject: &Subject<'_>) -> Vec<Finding> {
    let workload = subject.workload;
    let grace = workload.grace_s();
    let mut found = Vec::new();
    for container in &workload.containers {
        let Some(hook) = &container.pre_stop else { continue };
        let Some((least, _)) = hook.lasts.filter(|(least, _)| *least > 0.0 && *least >= grace) else { continue };
        let stop = budget::own_stop(container).unwrap_or(30.0);
        let needs = least + stop + budget::MARGIN;
        let message = format!(
            "preStop takes {least} s of a grace period of {grace} s: TERM and SIGKILL come together, and nothing is drained"
        );
        found.push(
            Finding::new(Cause::KilledAtDeadline, Severity::Error, hook.at, message)
                .help(format!("terminationGracePeriodSeconds: {needs} ({least} preStop + {stop} stop + {} margin)", budget::MARGIN))
                .fix(true, format!("SIGKILL at {needs} s instead of {grace} s"), budget::raise_grace(workload, needs)),
        );
    }
    found
}
