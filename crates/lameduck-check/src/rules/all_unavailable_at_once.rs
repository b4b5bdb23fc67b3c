use lameduck_core::{Cause, Severity};

use super::{Check, Subject};
use crate::finding::Finding;
use crate::edit::Edit;
use crate::predict::is_routed;

pub const CHECK: Check = Check::Workload(check);

fn check(subject: &Subject<'_>) -> Vec<Finding> {
    let workload = subject.workload;
    if !is_routed(subject.world, workload) {
        return Vec::new();
    }
    let mut found = Vec::new();
    if let Some(kind) = workload.strategy.kind.as_ref().filter(|kind| kind.value == "Recreate") {
        let message = "Recreate ends every pod before the first new one starts: every rollout is an outage";
        found.push(
            Finding::new(Cause::GoneAddress, Severity::Error, kind.at, message)
                .help("RollingUpdate, unless two versions must not run side by side"),
        );
    }
    let replicas = workload.replicas.as_ref().map_or(1.0, |replicas| replicas.value);
    if let Some(limit) = &workload.strategy.max_unavailable {
        let all = match limit.value.strip_suffix('%') {
            Some(percent) => percent.parse::<f64>().is_ok_and(|percent| percent >= 100.0),
            None => limit.value.parse::<f64>().is_ok_and(|count| count >= replicas && workload.kind.in_cluster()),
        };
        let surge = workload.strategy.max_surge.as_ref().is_some_and(|surge| surge.value != "0" && surge.value != "0%");
        if all && !(surge && replicas <= 1.0) {
            let message = format!("a rollout may end all {replicas} replicas before a new one is ready");
            found.push(
                Finding::new(Cause::GoneAddress, Severity::Error, limit.at, message).help("maxUnavailable: 0 with maxSurge: 1").fix(
                    false,
                    "a pod ends only when its successor is ready",
                    if workload.strategy.max_surge.as_ref().is_none_or(|surge| surge.value != "0") {
                        vec![Edit { file: limit.at.file, span: limit.at.span, text: "0".to_owned() }]
                    } else {
                        Vec::new()
                    },
                ),
            );
        }
    }
    found
}
