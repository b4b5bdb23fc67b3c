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
        let simple = matches!(shell.program.how, How::Child(Stays::NotExeced | Stays::Compound | Stays::NotLast | Stays::Trap));
        let in_line = matches!(shell.place, Place::ShellForm | Place::Inline);
        if !simple || !in_line || init.is_some() || shell.program.trap.is_some() {
            continue;
        }
        let last = matches!(shell.program.how, How::Child(Stays::NotExeced));
        let at = if shell.place == Place::ShellForm { shell.whole } else { shell.at };
        let message = format!(
            "`{}` stays PID 1 and passes no signal on: TERM never reaches `{}`, which is killed after {} s",
            shell.name,
            shell.program.words.first().map(|word| word.text.as_str()).unwrap_or_default(),
            subject.workload.grace_s(),
        );
        found.push(
            Finding::new(Cause::SignalNotDelivered, tree::severity(subject), at, message)
                .help("put `exec` before the command, or use the array form: [\"program\", \"argument\"]")
                .fix(last, "TERM reaches the app when it is sent, instead of never", if last { tree::put_exec(shell) } else { Vec::new() }),
        );
    }
    found
}
