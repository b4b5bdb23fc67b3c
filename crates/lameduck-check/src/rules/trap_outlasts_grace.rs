use lameduck_core::{Cause, Severity};

use super::{Check, Subject, tree};
use crate::edit::Edit;
use crate::finding::Finding;

pub const CHECK: Check = Check::Workload(check);

fn check(subject: &Subject<'_>) -> Vec<Finding> {
    let workload = subject.workload;
    let grace = workload.grace_s();
    let mut found = Vec::new();
    for (shell, _) in tree::launches(workload).flat_map(tree::shells) {
        let Some(trap) = shell.program.trap.as_ref().filter(|trap| trap.sleeps > 0.0 && trap.sleeps >= grace) else { continue };
        let at = shell.trap_at.unwrap_or(shell.at);
        let needs = (trap.sleeps + 30.0).ceil();
        let message = format!(
            "the trap sleeps {} s, the grace period is {grace} s: SIGKILL comes before the command after the sleep",
            trap.sleeps
        );
        let edits: Vec<Edit> = super::budget::raise_grace(workload, needs);
        found.push(
            Finding::new(Cause::KilledAtDeadline, Severity::Error, at, message)
                .help(format!("set terminationGracePeriodSeconds above the sleep and the stop that follows it: {needs}"))
                .fix(true, format!("SIGKILL at {needs} s instead of {grace} s"), edits),
        );
    }
    found
}
