//! The two lanes of a workload's end, by arithmetic over what was read; and the windows in which requests are lost.

use lameduck_core::{Cause, Moment};

use crate::launch::{self, Node, Outcome};
use crate::model::{Container, Kind, Workload};
use crate::server::{NewConnections, OnSignal, Server};
use crate::world::World;

/// Seconds, from when to when; no upper end is "not known".
pub type When = (f64, Option<f64>);

/// From the deletion until kube-proxy sends nothing new: the `EndpointSlice` controller, the watch and kube-proxy, 0 to 1 s each.
const ENDPOINTS: When = (1.0, Some(3.0));

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Entry {
    pub moment: Moment,
    pub at: When,
}

/// A time in which requests are lost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Window {
    pub cause: Cause,
    pub start: f64,
    /// 0: what is in flight at that moment.
    pub length: When,
}

#[derive(Debug, Clone, Default)]
pub struct Prediction {
    pub entries: Vec<Entry>,
    pub windows: Vec<Window>,
    /// How long routing goes on sending new connections; `None`: nothing is known of routing.
    pub lag: Option<When>,
    /// From when to when it stops accepting; `None`: not known.
    pub stops: Option<When>,
}

/// What can be set from outside.
#[derive(Debug, Clone, Copy, Default)]
pub struct Settings {
    /// Requests a second to one replica.
    pub rate: Option<f64>,
    /// How long routing goes on, where the files do not say.
    pub lag: Option<f64>,
}

/// The container whose end decides: the one that serves.
pub fn main_container(workload: &Workload) -> Option<&Container> {
    let apps = || workload.containers.iter().filter(|container| !container.sidecar);
    apps()
        .find(|container| container.readiness.is_some() && !container.ports.is_empty())
        .or_else(|| apps().find(|container| !container.ports.is_empty()))
        .or_else(|| apps().next())
}

/// The seconds that preStop takes before TERM, at least and at most.
pub fn pre_stop(container: &Container, grace: f64) -> (f64, f64) {
    match container.pre_stop.as_ref().map(|hook| hook.lasts) {
        None => (0.0, 0.0),
        Some(None) => (0.0, grace),
        Some(Some((least, most))) => (least.min(grace), most.min(grace)),
    }
}

/// The seconds until the app is told: preStop, and what a trap sleeps before it passes anything on.
pub fn told(container: &Container, grace: f64) -> (f64, f64) {
    let (least, most) = pre_stop(container, grace);
    let after = container.launch.as_ref().map_or(0.0, |launch| launch::told(&launch.node).after_s);
    ((least + after).min(grace), (most + after).min(grace))
}

/// What TERM does to a container, all told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It stops accepting, finishes, exits.
    Drains,
    /// It is gone at once.
    Dies,
    /// Nothing happens until SIGKILL.
    Stays,
    Unknown,
}

pub fn end(container: &Container) -> End {
    let Some(launch) = &container.launch else { return End::Unknown };
    match launch.outcome {
        Outcome::Ignored => End::Stays,
        Outcome::KilledNow | Outcome::ToldThenKilled => End::Dies,
        Outcome::Unknown => End::Unknown,
        Outcome::Graceful if launch::told(&launch.node).by_command => End::Drains,
        Outcome::Graceful => match container.server.as_ref().map(|server| server.on_stop) {
            Some(OnSignal::Graceful) => End::Drains,
            Some(OnSignal::Immediate) => End::Dies,
            Some(OnSignal::GoesOn) => End::Stays,
            // As PID 1 the kernel drops a signal that has no handler; under an init it ends the process. Without all of
            // its sources it is not known whether there is one.
            Some(OnSignal::NoHandler) if handler_is_absent(container) => {
                if is_pid1(&launch.node) {
                    End::Stays
                } else {
                    End::Dies
                }
            }
            Some(OnSignal::NoHandler | OnSignal::Unknown) | None => End::Unknown,
        },
    }
}

/// The app's sources were read, all of them, and no handler for TERM is in them.
pub fn handler_is_absent(container: &Container) -> bool {
    let node = container.server.as_ref().and_then(|server: &Server| server.node.as_ref());
    node.is_some_and(|node| node.complete && !node.handles_term)
}

/// The app itself is PID 1.
pub fn is_pid1(node: &Node) -> bool {
    match node {
        Node::App { .. } => true,
        Node::Shell(shell) => shell.program.how == crate::shell::exec::How::Exec && is_pid1(&shell.child),
        Node::Init(..) | Node::Runner { .. } | Node::Unknown { .. } => false,
    }
}

/// How long routing goes on sending new connections after a deletion.
pub fn lag(world: &World, workload: &Workload, settings: Settings) -> Option<When> {
    if let Some(lag) = settings.lag {
        return Some((lag, Some(lag)));
    }
    if !workload.kind.in_cluster() || world.services(workload).next().is_none() {
        return None;
    }
    let mut all = ENDPOINTS;
    for hop in world.hops(workload) {
        all = (all.0, all.1.zip(hop.balancer.lag.1).map(|(a, b)| a.max(b)));
    }
    Some(all)
}

/// Predicts the end of a workload.
pub fn predict(world: &World, workload: &Workload, settings: Settings) -> Prediction {
    let mut prediction = Prediction { lag: lag(world, workload, settings), ..Prediction::default() };
    let grace = workload.grace_s();
    let Some(container) = main_container(workload) else { return prediction };
    let before = pre_stop(container, grace);
    let exact = |at: f64| (at, Some(at));
    let mut enter = |moment, at: When| prediction.entries.push(Entry { moment, at });
    enter(Moment::Deleted, exact(0.0));
    enter(Moment::TermReceived, (before.0, Some(before.1)));
    let before = told(container, grace);
    let end = if before.0 >= grace { End::Stays } else { end(container) };
    let (stops, exits): (Option<When>, When) = match end {
        End::Drains => {
            let most = container.server.as_ref().and_then(|server| server.shutdown).map(|(_, most)| most);
            enter(Moment::AppSignalled, (before.0, Some(before.1)));
            let latest = most.map_or(grace, |most| (before.1 + most).min(grace));
            (Some((before.0, Some(before.1))), (before.0, Some(latest)))
        }
        End::Dies => (Some((before.0, Some(before.1))), (before.0, Some(before.1))),
        End::Stays => {
            enter(Moment::Killed, exact(grace));
            (Some(exact(grace)), exact(grace))
        }
        End::Unknown => (None, (before.0, Some(grace))),
    };
    if let Some(stops) = stops {
        enter(Moment::StoppedAccepting, stops);
    }
    enter(Moment::Exited, exits);
    if let Some(lag) = prediction.lag {
        enter(Moment::EndpointRemoved, lag);
        enter(Moment::LastNewConnection, lag);
    }
    prediction.stops = stops;
    prediction.entries.sort_by(|a, b| {
        (a.moment.lane() as u8, a.at.0)
            .partial_cmp(&(b.moment.lane() as u8, b.at.0))
            .unwrap_or(std::cmp::Ordering::Equal)
    });
    prediction.windows = windows(workload, container, end, stops, prediction.lag, before);
    prediction
}

fn windows(
    workload: &Workload,
    container: &Container,
    end: End,
    stops: Option<When>,
    lag: Option<When>,
    before: (f64, f64),
) -> Vec<Window> {
    let mut out = Vec::new();
    let grace = workload.grace_s();
    let in_flight = |cause, start| Window { cause, start, length: (0.0, Some(0.0)) };
    match end {
        End::Stays => {
            let delivered = container.launch.as_ref().is_some_and(|launch| launch.outcome == Outcome::Graceful);
            let handler = container.server.as_ref().is_some_and(|server| server.on_stop == OnSignal::NoHandler);
            let cause = if before.0 >= grace || (delivered && !handler) {
                Cause::KilledAtDeadline
            } else {
                Cause::SignalNotDelivered
            };
            out.push(in_flight(cause, grace));
        }
        End::Dies => out.push(in_flight(Cause::CutMidResponse, before.0)),
        End::Drains => {
            let most = container.server.as_ref().and_then(|server| server.shutdown).map(|(_, most)| most);
            // How long a command takes that tells it otherwise is not the server's time for a signal.
            let by_command = container.launch.as_ref().is_some_and(|launch| launch::told(&launch.node).by_command);
            if !by_command && most.is_some_and(|most| most.is_finite() && before.0 + most > grace) {
                out.push(in_flight(Cause::KilledAtDeadline, grace));
            }
        }
        End::Unknown => {}
    }
    let keeps = container.server.as_ref().and_then(|server| server.idle).is_some_and(|(_, most)| most > 0.0);
    if let (Some(stops), Some(lag)) = (stops, lag) {
        // With the listener go the idle connections, and what was on its way on one of them.
        if keeps && matches!(end, End::Drains | End::Dies) && lag.1.is_none_or(|lag| lag > stops.0) {
            out.push(in_flight(Cause::IdleCloseRace, stops.0));
        }
        let least = (lag.0 - stops.1.unwrap_or(stops.0)).max(0.0);
        let most = lag.1.map(|lag| (lag - stops.0).max(0.0));
        if most.is_none_or(|most| most > 0.0) {
            out.push(Window { cause: Cause::RefusedWhileRouted, start: stops.0, length: (least, most) });
        }
    }
    out
}

/// Whether requests are sent to it at all, as far as the files show.
pub fn is_routed(world: &World, workload: &Workload) -> bool {
    world.services(workload).next().is_some() || workload.kind == Kind::KnativeService
}

/// What a server does to new connections while it stops, in words.
pub fn stop_words(kind: NewConnections) -> &'static str {
    match kind {
        NewConnections::Refused => "refuses new connections",
        NewConnections::HangThenReset => "lets new connections hang and resets them",
        NewConnections::Unknown => "no longer serves new connections",
    }
}

/// The outcome of a workload's main container.
pub fn outcome(workload: &Workload) -> (Outcome, Option<String>, Option<String>) {
    let Some(launch) = main_container(workload).and_then(|container| container.launch.as_ref()) else {
        return (Outcome::Unknown, None, None);
    };
    let app = launch::app(&launch.node).map(|(argv, _)| argv.join(" "));
    (launch.outcome, Some(launch.pid1.clone()), app)
}
