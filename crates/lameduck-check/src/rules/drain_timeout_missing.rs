use lameduck_core::{Cause, Severity};

use super::Check;
use crate::finding::Finding;
use crate::world::World;
use crate::edit::Edit;

pub const CHECK: Check = Check::World(check);

fn check(world: &World) -> Vec<Finding> {
    let mut found: Vec<Finding> = Vec::new();
    for ingress in world.own_ingresses() {
        if world.controller(ingress) != Some("gcp-global-alb") {
            continue;
        }
        for service in ingress.services.iter().flat_map(|name| world.named(name, &ingress.namespace)) {
            let settings: Vec<_> = world.backends(service).filter(|backend| backend.kind != "HealthCheckPolicy").collect();
            let drains = settings.iter().any(|backend| backend.drain.as_ref().is_some_and(|drain| drain.value > 0.0));
            if drains || found.iter().any(|known| known.workload == service.name) {
                continue;
            }
            let backend = settings.first();
            let at = backend.map_or(service.at, |backend| backend.at);
            let lines = ["connectionDraining:".to_owned(), "  drainingTimeoutSec: 60".to_owned()];
            let edit = backend.and_then(|backend| match &backend.drain {
                Some(drain) => Some(Edit { file: drain.at.file, span: drain.at.span, text: "60".to_owned() }),
                None => backend.insert.map(|insert| insert.lines(&lines)),
            });
            let message = "connection draining is off: when an endpoint is taken out, the load balancer cuts what is in flight on it";
            let mut finding = Finding::new(Cause::CutMidResponse, Severity::Warning, at, message)
                .help("a BackendConfig (Ingress) or GCPBackendPolicy (Gateway) with connectionDraining.drainingTimeoutSec: 60")
                .fix(true, "requests in flight have 60 s after the endpoint is taken out", edit.into_iter().collect());
            finding.workload.clone_from(&service.name);
            found.push(finding);
        }
    }
    found
}
