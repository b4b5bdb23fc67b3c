use lameduck_core::{Cause, Severity};

use super::{Check, Subject};
use crate::finding::Finding;
use crate::model::Hook;

pub const CHECK: Check = Check::Workload(check);

fn check(subject: &Subject<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    for container in subject.workload.containers.iter().filter(|container| container.shell_absent) {
        let Some(hook) = &container.pre_stop else { continue };
        let Hook::Exec(argv) = &hook.hook else { continue };
        let name = argv.first().and_then(|word| word.rsplit('/').next()).unwrap_or_default();
        if !matches!(name, "sh" | "bash" | "ash" | "dash" | "sleep" | "echo" | "curl" | "wget") {
            continue;
        }
        let message = format!("the image has no `{name}`: the hook fails at once, and TERM is sent without the pause");
        found.push(
            Finding::new(Cause::RefusedWhileRouted, Severity::Error, hook.at, message)
                .help("use the sleep action: lifecycle.preStop.sleep.seconds (on by default since Kubernetes 1.30)"),
        );
    }
    found
}
