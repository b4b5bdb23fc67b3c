use lameduck_core::{Cause, Severity};

use super::{Check, Subject};
use crate::finding::Finding;
use crate::predict::is_routed;

pub const CHECK: Check = Check::Workload(check);

fn check(subject: &Subject<'_>) -> Vec<Finding> {
    // From the notice to the end: GKE 15 s for ordinary pods (kubelet graceful shutdown), Azure 30 s, EC2 120 s.
    const NOTICE: [(&str, f64, &str); 6] = [
        ("cloud.google.com/gke-spot=true", 15.0, "GKE"),
        ("cloud.google.com/gke-preemptible=true", 15.0, "GKE"),
        ("kubernetes.azure.com/scalesetpriority=spot", 30.0, "AKS"),
        ("eks.amazonaws.com/capacityType=SPOT", 120.0, "EC2"),
        ("karpenter.sh/capacity-type=spot", 120.0, "EC2"),
        ("node.kubernetes.io/lifecycle=spot", 120.0, "EC2"),
    ];
    let workload = subject.workload;
    let grace = workload.grace_s();
    let mut found = Vec::new();
    for node in &workload.nodes {
        let Some((_, notice, who)) = NOTICE.iter().find(|(key, ..)| node.value == *key) else { continue };
        if grace <= *notice || !is_routed(subject.world, workload) {
            continue;
        }
        let message = format!("{who} gives {notice} s before it takes the node away; preStop and draining have {grace} s planned");
        found.push(
            Finding::new(Cause::KilledAtDeadline, Severity::Warning, node.at, message)
                .help(format!("plan for {notice} s, or keep this workload off spot nodes")),
        );
    }
    found
}
