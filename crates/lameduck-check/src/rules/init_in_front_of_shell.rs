use lameduck_core::{Cause, Severity};

use super::{Check, Subject, tree};
use crate::finding::Finding;
use crate::launch::Outcome;
use crate::shell::exec::{How, Stays};

pub const CHECK: Check = Check::Workload(check);

fn check(subject: &Subject<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    let dying = [Outcome::KilledNow, Outcome::ToldThenKilled];
    for launch in tree::launches(subject.workload).filter(|launch| dying.contains(&launch.outcome)) {
        for (shell, init) in tree::shells(launch) {
            let Some(init) = init else { continue };
            let told = if init.group { "the app is told and killed as soon as the shell is gone" } else { "the app is never told" };
            let message = format!("{} ends when the shell does, and the shell dies of TERM at once: {told}", init.name);
            let exec = shell.program.how == How::Child(Stays::NotExeced);
            found.push(
                Finding::new(Cause::CutMidResponse, Severity::Error, shell.at, message)
                    .help("an init does not replace `exec`: put it before the command")
                    .fix(exec, "the app gets TERM and finishes what is in flight", if exec { tree::put_exec(shell) } else { Vec::new() }),
            );
        }
    }
    found
}
