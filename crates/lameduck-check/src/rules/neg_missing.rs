use lameduck_core::{Cause, Severity};

use super::Check;
use crate::finding::{Confidence, Finding};
use crate::world::World;

pub const CHECK: Check = Check::World(check);

fn check(world: &World) -> Vec<Finding> {
    let mut found: Vec<Finding> = Vec::new();
    for ingress in world.own_ingresses().iter().filter(|ingress| !ingress.route) {
        if world.controller(ingress) != Some("gcp-global-alb") {
            continue;
        }
        for service in ingress.services.iter().flat_map(|name| world.named(name, &ingress.namespace)) {
            let neg = service.annotations.iter().find(|(key, _)| key == "cloud.google.com/neg");
            if neg.is_some_and(|(_, text)| text.value.contains("ingress")) || found.iter().any(|known| known.at == service.at) {
                continue;
            }
            let line = "cloud.google.com/neg: '{\"ingress\": true}'";
            let edit = match service.annotate.filter(|_| neg.is_none()) {
                Some((insert, true)) => vec![insert.lines(&[line.to_owned()])],
                Some((insert, false)) => vec![insert.lines(&["annotations:".to_owned(), format!("  {line}")])],
                None => Vec::new(),
            };
            let message = "no container-native load balancing: the load balancer sends to nodes, which pass on, and does not see a pod end";
            found.push(
                Finding::new(Cause::RefusedWhileRouted, Severity::Warning, service.at, message)
                    .confidence(Confidence::Medium)
                    .help(format!("annotate the service: {line} (the default for services made on VPC-native clusters since GKE 1.17.6)"))
                    .fix(true, "the load balancer knows pods, and takes each out when it ends", edit),
            );
        }
    }
    found
}
