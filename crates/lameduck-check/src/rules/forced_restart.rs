use lameduck_core::{Cause, Severity};

use super::Check;
use crate::finding::Finding;
use crate::model::{Container, Workload};
use crate::world::World;
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

/// After how long the container's own command ends it.
pub fn limit(container: &Container) -> Option<f64> {
    let argv = container.command.as_ref()?.argv();
    let (first, rest) = argv.split_first()?;
    let limit = first.ends_with("timeout").then(|| rest.iter().find(|word| !word.starts_with('-')))??;
    seconds(limit)
}

fn timeouts(_: &World, workload: &Workload) -> Vec<Finding> {
    let mut found: Vec<Finding> = Vec::new();
    for container in &workload.containers {
        let (Some(command), Some(limit)) = (container.command.as_ref(), limit(container)) else { continue };
        let message = format!("`timeout` ends the app after {limit} s, whatever it serves then, and without the pod being taken out of routing first");
        found.push(
            Finding::new(Cause::CrashRestart, Severity::Warning, command.at, message)
                .help("let a rollout end pods, not the container itself"),
        );
    }
    found
}
