use lameduck_core::Cause;

use super::{Check, Subject, tree};
use crate::finding::Finding;
use crate::launch::{self, Launch};
use crate::shell::exec::How;

pub const CHECK: Check = Check::Workload(check);

fn check(subject: &Subject<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    let by_signal = |launch: &&Launch| !launch::told(&launch.node).by_command;
    for (shell, _) in tree::launches(subject.workload).filter(by_signal).flat_map(tree::shells) {
        let Some(trap) = &shell.program.trap else { continue };
        let How::Background { waits, .. } = shell.program.how else { continue };
        if waits != 1 || trap.waits || trap.ignores {
            continue;
        }
        let at = shell.trap_at.unwrap_or(shell.at);
        let message = "the trap interrupts the only `wait`, so the shell exits right after it and everything is killed";
        found.push(
            Finding::new(Cause::CutMidResponse, tree::severity(subject), at, message)
                .help("add a second `wait`, in the trap or at the end of the script"),
        );
    }
    found
}
