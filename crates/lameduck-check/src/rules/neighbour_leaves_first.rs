use lameduck_core::{Cause, Severity};

use super::{Check, Subject};
use crate::finding::{Confidence, Finding};
use crate::model::Container;
use crate::predict::{End, end, pre_stop};

pub const CHECK: Check = Check::Workload(check);

fn check(subject: &Subject<'_>) -> Vec<Finding> {
    let workload = subject.workload;
    let grace = workload.grace_s();
    let mut found = Vec::new();
    let stays: Vec<&Container> = workload.containers.iter().filter(|container| end(container) == End::Stays).collect();
    let leaves = workload.containers.iter().find(|container| {
        matches!(end(container), End::Drains | End::Dies) && pre_stop(container, grace).1 < grace
    });
    if let Some(leaves) = leaves {
        for container in stays.iter().filter(|container| !container.ports.is_empty()) {
            let message = format!(
                "{} goes on until SIGKILL at {grace} s, while its neighbour {} leaves at TERM: what {} still accepts has nobody behind it",
                container.name, leaves.name, container.name
            );
            found.push(
                Finding::new(Cause::PeerDown, Severity::Error, container.at, message)
                    .help("let TERM reach it: its process tree has a finding of its own"),
            );
        }
    }
    // A proxy beside the app, as an ordinary container, is told at the same time and is faster.
    let proxy = workload.containers.iter().filter(|container| !container.sidecar && container.pre_stop.is_none());
    let proxy = proxy.filter(|container| container.image.as_ref().is_some_and(|image| is_proxy(&image.value)));
    for proxy in proxy.filter(|_| workload.kind.in_cluster() && workload.containers.len() > 1) {
        let delayed = workload.containers.iter().find(|container| container.pre_stop.is_some() && container.name != proxy.name);
        let Some(app) = delayed else { continue };
        let message = format!(
            "{} gets TERM at once, while {} is held by its preStop hook: what {} still sends or needs has lost its proxy",
            proxy.name, app.name, app.name
        );
        found.push(
            Finding::new(Cause::PeerDown, Severity::Warning, proxy.at, message)
                .confidence(Confidence::Medium)
                .help("make it a native sidecar (an init container with restartPolicy: Always), or give it the same preStop"),
        );
    }
    found
}

/// Images that stand between an app and others.
pub fn is_proxy(image: &str) -> bool {
    let name = crate::docker::base::reference(image).name;
    ["envoy", "proxyv2", "cloud-sql-proxy", "cloudsql-proxy", "gce-proxy", "linkerd", "oauth2-proxy", "nginx", "haproxy", "traefik"]
        .iter()
        .any(|known| name.contains(known))
}
