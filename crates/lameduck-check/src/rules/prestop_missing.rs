use lameduck_core::{Cause, Severity};

use super::{Check, Subject, budget};
use crate::finding::{Confidence, Finding};
use crate::launch::{self, Node, Outcome};
use crate::model::Container;
use crate::predict::{End, When, end, is_routed, stop_words};

pub const CHECK: Check = Check::Workload(check);

fn check(subject: &Subject<'_>) -> Vec<Finding> {
    let workload = subject.workload;
    let (Some(container), Some(lag)) = (subject.main(), subject.prediction.lag) else { return Vec::new() };
    if !workload.kind.in_cluster() || !is_routed(subject.world, workload) || container.pre_stop.is_some() {
        return Vec::new();
    }
    // lameduck run tells the app nothing before its traffic is quiet.
    if container.launch.as_ref().is_some_and(|launch| matches!(&launch.node, Node::Init(init, _) if init.waits)) {
        return Vec::new();
    }
    // A trap that sleeps first is a preStop hook of its own.
    let told = container.launch.as_ref().map_or(0.0, |launch| launch::told(&launch.node).after_s);
    if lag.1.is_some_and(|most| most <= told) {
        return Vec::new();
    }
    let end = end(container);
    let Some(server) = container.server.as_ref().filter(|_| matches!(end, End::Drains | End::Dies)) else {
        // Whatever the app is, TERM and the removal of its endpoint start together.
        return unknown_server(subject, container, end, lag);
    };
    let message = format!(
        "TERM is sent as the endpoint is removed: {} {} at once, and routing sends them for {}",
        server.name,
        stop_words(server.new_connections),
        lag_words(lag),
    );
    vec![cure(Finding::new(Cause::RefusedWhileRouted, Severity::Error, container.at, message), subject, container, lag)]
}

/// TERM reaches an app whose own behaviour is not known.
fn unknown_server(subject: &Subject<'_>, container: &Container, end: End, lag: When) -> Vec<Finding> {
    let reached = container.launch.as_ref().is_some_and(|launch| launch.outcome != Outcome::Ignored);
    if end == End::Stays || (container.launch.is_some() && !reached) {
        return Vec::new();
    }
    let message = format!(
        "TERM is sent as the endpoint is removed: if the app stops accepting at TERM, it refuses what routing sends for {}",
        lag_words(lag)
    );
    let finding = Finding::new(Cause::RefusedWhileRouted, Severity::Warning, container.at, message);
    vec![cure(finding.confidence(Confidence::Low), subject, container, lag)]
}

fn lag_words(lag: When) -> String {
    match lag.1 {
        Some(most) if (most - lag.0).abs() < 1e-9 => format!("{most} s more"),
        Some(most) => format!("{} to {most} s more", lag.0),
        None => format!("at least {} s more", lag.0),
    }
}

fn cure(finding: Finding, subject: &Subject<'_>, container: &Container, lag: When) -> Finding {
    let sleep = lag.1.unwrap_or(30.0).max(budget::SLEEP - 2.0).ceil() + 2.0;
    let mut edits = budget::add_pre_stop(container, &budget::sleep_hook(sleep));
    // A proxy beside it that left at once would only move the loss.
    let proxies = subject.workload.containers.iter().filter(|other| other.name != container.name && !other.sidecar);
    for proxy in proxies.filter(|other| other.image.as_ref().is_some_and(|image| super::neighbour_leaves_first::is_proxy(&image.value))) {
        if !edits.is_empty() {
            edits.extend(budget::add_pre_stop(proxy, &budget::sleep_hook(sleep)));
        }
    }
    // The sleep comes out of the grace period: leave the app what it had.
    let stop = budget::own_stop(container).map_or(0.0, |stop| stop + budget::MARGIN);
    let needs = sleep + stop.max(subject.workload.grace_s()).max(2.0 * budget::MARGIN);
    if needs > subject.workload.grace_s() && !edits.is_empty() {
        edits.extend(budget::raise_grace(subject.workload, needs));
    }
    finding
        .help(format!("lifecycle.preStop.sleep.seconds: {sleep}, or lameduck run, which waits until traffic is quiet"))
        .fix(true, format!("TERM comes {sleep} s later, when nothing new is sent any more"), edits)
}
