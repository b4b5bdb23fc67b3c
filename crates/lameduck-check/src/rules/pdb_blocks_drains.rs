use lameduck_core::{Cause, Severity};

use super::Check;
use crate::finding::Finding;
use crate::link::World;

pub const CHECK: Check = Check::World(check);

fn check(world: &World) -> Vec<Finding> {
    let mut found = Vec::new();
    for pdb in world.objects.pdbs.iter().filter(|pdb| !pdb.expressions && !pdb.selector.is_empty()) {
        let zero = pdb.max_unavailable.as_ref().filter(|limit| matches!(limit.value.as_str(), "0" | "0%"));
        let whole = pdb.min_available.as_ref().filter(|limit| {
            let least = world.covered(pdb).filter_map(|workload| workload.replicas.as_ref()).map(|n| n.value).reduce(f64::min);
            limit.value == "100%" || limit.value.parse::<f64>().is_ok_and(|n| least.is_some_and(|replicas| n >= replicas))
        });
        let scaled = world.covered(pdb).any(|workload| world.hpas(workload).next().is_some());
        let Some(limit) = zero.or_else(|| whole.filter(|limit| limit.value == "100%" || !scaled)) else { continue };
        let message = "no pod may be evicted: a node drain waits for ever, until somebody deletes pods without their budget";
        found.push(
            Finding::new(Cause::GoneAddress, Severity::Warning, limit.at, message)
                .help("maxUnavailable: 1, with at least two replicas"),
        );
    }
    found
}
