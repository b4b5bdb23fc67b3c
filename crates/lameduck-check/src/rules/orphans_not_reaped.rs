use lameduck_core::{Cause, Severity};

use super::{Check, Subject, tree};
use crate::finding::{Confidence, Finding};
use crate::launch::{Node, Outcome};
use crate::shell::exec::How;

pub const CHECK: Check = Check::Workload(check);

fn check(subject: &Subject<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    for launch in tree::launches(subject.workload).filter(|launch| launch.outcome == Outcome::Graceful) {
        let Node::Shell(shell) = &launch.node else { continue };
        let (Some(at), How::Exec) = (shell.helper_at, &shell.program.how) else { continue };
        // An init below would reap.
        if subject.workload.share_pids.is_some() || matches!(shell.child.as_ref(), Node::Init(..)) {
            continue;
        }
        let message = "it is left in the background, then the app takes the shell's place: the app inherits a child it does not know, and nobody tells that child to stop";
        found.push(
            Finding::new(Cause::CutMidResponse, Severity::Note, at, message)
                .confidence(Confidence::Medium)
                .help("give it a container of its own, or put an init (or lameduck run) in front"),
        );
    }
    found
}
