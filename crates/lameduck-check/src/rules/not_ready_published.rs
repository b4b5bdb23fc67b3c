use lameduck_core::{Cause, Severity};

use super::{Check, Subject};
use crate::finding::Finding;
use crate::edit::Edit;

pub const CHECK: Check = Check::Workload(check);

fn check(subject: &Subject<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    for service in subject.world.services(subject.workload) {
        let Some(flag) = service.not_ready.as_ref().filter(|flag| flag.value) else { continue };
        // Headless services publish peers to each other, as databases need it.
        let http = subject.world.ingresses(subject.workload).any(|(_, routed)| routed.name == service.name);
        if !http && service.kind == "ClusterIP" {
            continue;
        }
        let message = "endpoints are published before they are ready and after they are not: traffic goes to pods that start and that end";
        found.push(
            Finding::new(Cause::NotReadyYet, Severity::Error, flag.at, message).help("publishNotReadyAddresses: false").fix(
                true,
                "pods are routed to from their readiness on, and no longer than that",
                vec![Edit { file: flag.at.file, span: flag.at.span, text: "false".to_owned() }],
            ),
        );
    }
    found
}
