use lameduck_core::Cause;

use super::{Check, Subject, tree};
use crate::finding::Finding;
use crate::shell::exec::{How, Stays};

pub const CHECK: Check = Check::Workload(check);

fn check(subject: &Subject<'_>) -> Vec<Finding> {
    let shells = tree::launches(subject.workload).flat_map(tree::shells);
    shells
        .filter(|(shell, _)| shell.program.how == How::Child(Stays::Pipeline))
        .map(|(shell, _)| {
            let message = "every part of a pipeline is a child of the shell, also after `exec`: TERM stops at the shell";
            Finding::new(Cause::SignalNotDelivered, tree::severity(subject), shell.at, message)
                .help("let the app write to standard output by itself, or in bash: exec app > >(tee file)")
        })
        .collect()
}
