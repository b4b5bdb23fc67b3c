use lameduck_core::Cause;

use super::{Check, Subject, tree};
use crate::finding::Finding;
use crate::shell::exec::How;

pub const CHECK: Check = Check::Workload(check);

fn check(subject: &Subject<'_>) -> Vec<Finding> {
    let shells = tree::launches(subject.workload).flat_map(tree::shells);
    shells
        .filter(|(shell, _)| matches!(shell.program.how, How::Background { .. }) && shell.program.trap.is_none())
        .map(|(shell, _)| {
            let message = "it runs in the background of a shell that has no trap: nobody passes TERM on to it";
            Finding::new(Cause::SignalNotDelivered, tree::severity(subject), shell.at, message)
                .help("exec the app as the last command; what runs beside it belongs into a container of its own")
        })
        .collect()
}
