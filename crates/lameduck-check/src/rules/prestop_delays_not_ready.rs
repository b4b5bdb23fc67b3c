use lameduck_core::{Cause, Severity};

use super::{Check, Subject};
use crate::finding::{Confidence, Finding};

/// A load balancer's own check notices within this, so that a shorter delay changes nothing: 3 checks of 5 s.
const NOTICED: f64 = 15.0;

pub const CHECK: Check = Check::Workload(check);

fn check(subject: &Subject<'_>) -> Vec<Finding> {
    let workload = subject.workload;
    let Some((container, hook)) = subject.main().and_then(|container| Some((container, container.pre_stop.as_ref()?))) else {
        return Vec::new();
    };
    let (Some((least, _)), Some(_)) = (hook.lasts, &container.readiness) else { return Vec::new() };
    // Only a load balancer that asks nodes or pods itself notices readiness that late.
    let asks = subject.world.services(workload).find(|service| {
        service.kind == "LoadBalancer" && service.external_policy.as_ref().is_some_and(|policy| policy.value == "Local")
    });
    let Some(service) = asks.filter(|_| least >= NOTICED) else { return Vec::new() };
    let message = format!(
        "the app only learns of its end after {least} s of preStop: until then it answers the load balancer's checks (service {}) as healthy",
        service.name
    );
    vec![
        Finding::new(Cause::RefusedWhileRouted, Severity::Note, hook.at, message)
            .confidence(Confidence::Medium)
            .help("let the hook itself begin the drain (lameduck drain --wait), so that checks fail from the first second"),
    ]
}
