use lameduck_core::{Cause, Severity};

use super::Check;
use crate::finding::Finding;
use crate::world::World;
use crate::model::Workload;
use crate::shell::exec::seconds;

pub const CHECK: Check = Check::Around { world: jobs, each: timeouts };

fn jobs(world: &World) -> Vec<Finding> {
    let mut found: Vec<Finding> = Vec::new();
    for job in &world.objects.restarters {
        let message = format!("{} ends pods by the clock: `{}`", job.name, job.command);
        found.push(
            Finding::new(Cause::CrashRestart, Severity::Warning, job.at, message)
                .help("find what the restarts are there for; each of them is a termination of every pod")
                .fix(false, "no pod ends by the clock", job.insert.map(|insert| insert.lines(&["suspend: true".to_owned()])).into_iter().collect()),
        );
    }
    found
}

fn timeouts(_: &World, workload: &Workload) -> Vec<Finding> {
    let mut found: Vec<Finding> = Vec::new();
    for container in &workload.containers {
        let Some(command) = container.command.as_ref() else { continue };
        let argv = command.argv();
        let Some(at) = argv.iter().position(|word| word.ends_with("timeout")).filter(|at| *at == 0) else { continue };
        let Some(limit) = argv[at + 1..].iter().find(|word| !word.starts_with('-')).and_then(|word| seconds(word)) else { continue };
        let message = format!("`timeout` ends the app after {limit} s, whatever it serves then, and without the pod being taken out of routing first");
        found.push(
            Finding::new(Cause::CrashRestart, Severity::Warning, command.at, message)
                .help("let a rollout end pods, not the container itself"),
        );
    }
    found
}
