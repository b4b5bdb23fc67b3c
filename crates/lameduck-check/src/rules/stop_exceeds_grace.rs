use lameduck_core::{Cause, Severity};

use super::{Check, Subject, budget};
use crate::finding::Finding;
use crate::launch::Outcome;
use crate::predict::pre_stop;

pub const CHECK: Check = Check::Workload(check);

fn check(subject: &Subject<'_>) -> Vec<Finding> {
    let workload = subject.workload;
    let grace = workload.grace_s();
    let mut found = Vec::new();
    for container in &workload.containers {
        let reached = container.launch.as_ref().is_some_and(|launch| launch.outcome == Outcome::Graceful);
        let before = pre_stop(container, grace).0;
        let Some(stop) = budget::own_stop(container).filter(|stop| reached && before < grace && before + stop > grace) else { continue };
        let server = container.server.as_ref().map_or("the server", |server| server.name);
        let needs = before + stop + budget::MARGIN;
        let at = container.pre_stop.as_ref().map_or_else(
            || workload.grace.as_ref().map_or(container.at, |grace| grace.at),
            |hook| hook.at,
        );
        let message = format!(
            "{server} may take {stop} s to stop, after {before} s of preStop: {} s in all, and SIGKILL comes at {grace} s",
            before + stop
        );
        found.push(
            Finding::new(Cause::KilledAtDeadline, Severity::Warning, at, message)
                .help(format!("terminationGracePeriodSeconds: {needs}, or a shorter timeout of the server's own"))
                .fix(true, format!("SIGKILL at {needs} s instead of {grace} s"), budget::raise_grace(workload, needs)),
        );
    }
    found
}
