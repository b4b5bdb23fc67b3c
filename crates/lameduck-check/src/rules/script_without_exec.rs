use lameduck_core::Cause;

use super::{Check, Subject, tree};
use crate::finding::Finding;
use crate::launch::{Outcome, Place};
use crate::shell::exec::{How, Stays};

pub const CHECK: Check = Check::Workload(check);

fn check(subject: &Subject<'_>) -> Vec<Finding> {
    let launches = tree::launches(subject.workload).filter(|launch| launch.outcome == Outcome::Ignored);
    let mut found = Vec::new();
    for (shell, init) in launches.flat_map(tree::shells) {
        let script = matches!(shell.place, Place::Script | Place::PackageJson);
        let How::Child(why) = shell.program.how else { continue };
        if !script || why == Stays::Pipeline || init.is_some() || shell.program.trap.is_some() {
            continue;
        }
        // Only where nothing comes after it does exec change nothing else.
        let last = why == Stays::NotExeced;
        let message = format!(
            "the shell of {} waits for this command and passes no signal on: TERM stops at the shell",
            tree::place(shell.place),
        );
        found.push(
            Finding::new(Cause::SignalNotDelivered, tree::severity(subject), shell.at, message)
                .help("put `exec` before the command, as the last of the script")
                .fix(last, "TERM reaches the app when it is sent, instead of never", if last { tree::put_exec(shell) } else { Vec::new() }),
        );
    }
    found
}
