use lameduck_core::{Cause, Severity};

use super::Check;
use crate::finding::{Confidence, Finding};
use crate::world::World;
use crate::model::Workload;
use crate::edit::Edit;
use crate::predict::main_container;

pub const CHECK: Check = Check::Around { world: |_| Vec::new(), each: check };

fn check(world: &World, workload: &Workload) -> Vec<Finding> {
    let mut found = Vec::new();
    let Some(container) = main_container(workload) else { return found };
    for pool in &world.pools {
        let services: Vec<&str> = world.services(workload).map(|service| service.name.as_str()).collect();
        let named = |host: &String| {
            let first = host.split('.').next().unwrap_or_default();
            if workload.kind.in_cluster() { services.contains(&first) } else { workload.name == first }
        };
        if !pool.hosts.iter().any(named) {
            continue;
        }
        let Some(server) = &container.server else { continue };
        let Some((least, most)) = server.idle.filter(|(_, most)| *most > 0.0) else { continue };
        if least > pool.idle {
            continue;
        }
        let message = format!(
            "{} keeps unused connections to {} for {} s, and {} closes them after {least} s: a request that meets the close is lost",
            pool.proxy, workload.name, pool.idle, server.name
        );
        let shorter = (least - 1.0).max(1.0);
        let edits = if pool.stated && pool.proxy == "nginx" {
            vec![Edit { file: pool.at.file, span: pool.at.span, text: format!("keepalive_timeout {shorter}s") }]
        } else {
            Vec::new()
        };
        found.push(
            Finding::new(Cause::IdleCloseRace, Severity::Warning, pool.at, message)
                .confidence(if most > pool.idle { Confidence::Low } else { Confidence::Medium })
                .help(format!("a pool timeout below {least} s, or a server that keeps connections longer"))
                .fix(true, format!("the proxy lets go after {shorter} s, before the server does"), edits),
        );
    }
    found
}
