use lameduck_core::{Cause, Severity};

use super::{Check, Subject, tree};
use crate::finding::Finding;
use crate::launch::Node;
use crate::shell::exec::How;

pub const CHECK: Check = Check::Workload(check);

fn check(subject: &Subject<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    for launch in tree::launches(subject.workload) {
        let init = match &launch.node {
            Node::Init(init, _) => Some(init),
            Node::Shell(shell) if shell.program.how == How::Exec => match shell.child.as_ref() {
                Node::Init(init, _) => Some(init),
                Node::App { .. } | Node::Shell(_) | Node::Runner { .. } | Node::Unknown { .. } => None,
            },
            Node::Shell(_) | Node::App { .. } | Node::Runner { .. } | Node::Unknown { .. } => None,
        };
        let shared = subject.workload.share_pids.zip(init);
        if let Some((at, init)) = shared {
            let message = format!(
                "with shareProcessNamespace the pause container is PID 1: {} is not, and orphans of this container are not its to reap",
                init.name
            );
            found.push(
                Finding::new(Cause::SignalNotDelivered, Severity::Note, at, message)
                    .help("drop the init, or shareProcessNamespace, or tell the init: tini -s"),
            );
        }
        for (shell, _) in tree::shells(launch) {
            let Node::Init(init, _) = shell.child.as_ref() else { continue };
            let message = format!("{} is started by a shell that stays PID 1: it gets no signal to pass on", init.name);
            found.push(
                Finding::new(Cause::SignalNotDelivered, Severity::Error, shell.at, message)
                    .help("start it first, in array form: [\"tini\", \"--\", \"app\"]")
                    .fix(true, "the init is PID 1 and gets TERM", tree::put_exec(shell)),
            );
        }
    }
    found
}
