use lameduck_core::{Cause, Severity};

use super::Check;
use crate::finding::{Confidence, Finding};
use crate::link::World;
use crate::model::objects::Pdb;

pub const CHECK: Check = Check::World(check);

fn check(world: &World) -> Vec<Finding> {
    let mut found = Vec::new();
    for pdb in &world.objects.pdbs {
        let zero = pdb.min_available.as_ref().filter(|limit| matches!(limit.value.as_str(), "0" | "0%"));
        let all = pdb.max_unavailable.as_ref().filter(|limit| limit.value == "100%");
        if let Some(limit) = zero.or(all) {
            let message = "this budget allows everything: all pods may be evicted at once";
            found.push(Finding::new(Cause::GoneAddress, Severity::Note, limit.at, message).help("minAvailable: 1, or maxUnavailable: 1"));
        } else if !pdb.selector.is_empty() && !pdb.expressions && world.covered(pdb).next().is_none() && near(world, pdb) {
            let message = "this budget covers no workload among the files: no pod has these labels";
            found.push(
                Finding::new(Cause::GoneAddress, Severity::Note, pdb.at, message)
                    .confidence(Confidence::Low)
                    .help("the selector must match the labels of the pod template"),
            );
        }
    }
    found
}

/// There are workloads in its file or namespace that it could have been meant for.
fn near(world: &World, pdb: &Pdb) -> bool {
    world.workloads.iter().any(|workload| workload.kind.in_cluster() && workload.file == pdb.at.file)
}
