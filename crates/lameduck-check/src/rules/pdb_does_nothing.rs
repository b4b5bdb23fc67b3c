use lameduck_core::{Cause, Severity};

use super::Check;
use crate::finding::{Confidence, Finding};
use crate::world::World;

pub const CHECK: Check = Check::Budgets(check);

fn check(world: &World) -> Vec<Finding> {
    let mut found = Vec::new();
    for (pdb, covered) in world.budgets() {
        let zero = pdb.min_available.as_ref().filter(|limit| matches!(limit.value.as_str(), "0" | "0%"));
        let all = pdb.max_unavailable.as_ref().filter(|limit| limit.value == "100%");
        if let Some(limit) = zero.or(all) {
            let message = "this budget allows everything: all pods may be evicted at once";
            found.push(Finding::new(Cause::GoneAddress, Severity::Note, limit.at, message).help("minAvailable: 1, or maxUnavailable: 1"));
        } else if !pdb.selector.is_empty() && !pdb.expressions && !covered.any && world.has_workload {
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
