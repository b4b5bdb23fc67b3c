use lameduck_core::{Cause, Severity};

use super::Check;
use crate::finding::Finding;
use crate::world::World;

pub const CHECK: Check = Check::Budgets(check);

fn check(world: &World) -> Vec<Finding> {
    let mut found = Vec::new();
    for (pdb, covered) in world.budgets().filter(|(pdb, _)| !pdb.expressions && !pdb.selector.is_empty()) {
        let zero = pdb.max_unavailable.as_ref().filter(|limit| matches!(limit.value.as_str(), "0" | "0%"));
        let whole = pdb.min_available.as_ref().filter(|limit| {
            limit.value == "100%" || limit.value.parse::<f64>().is_ok_and(|n| covered.replicas.is_some_and(|replicas| n >= replicas))
        });
        let Some(limit) = zero.or_else(|| whole.filter(|limit| limit.value == "100%" || !covered.scaled)) else { continue };
        let message = "no pod may be evicted: a node drain waits for ever, until somebody deletes pods without their budget";
        found.push(
            Finding::new(Cause::GoneAddress, Severity::Warning, limit.at, message)
                .help("maxUnavailable: 1, with at least two replicas"),
        );
    }
    found
}
