//! The drain report: what every exit of `lameduck run` writes, as JSON. Schema `lameduck.drain/1`.
//!
//! Fields are only ever added within a schema version. Times are seconds (`_s`) after the start of the drain.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::budget::Budget;
use crate::duration::seconds;
use crate::front::Figures;
use crate::timeline::Timeline;

/// The schema of [`DrainReport`].
pub const SCHEMA: &str = "lameduck.drain/1";

/// What began the drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// A stop signal.
    Signal,
    /// `lameduck drain`, or the admin request.
    Request,
    /// The app exited by itself; nothing was drained.
    AppExit,
}

/// Where the figures about traffic come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TrafficSource {
    /// `sock_diag(7)`: connections, and when data last moved on each.
    SockDiag,
    /// The front, through which it all went.
    Front,
    /// `/proc/net/tcp{,6}`: connections, but not when data moved.
    ProcNetTcp,
    /// Neither could be read: quiet was not measured.
    None,
}

/// A phase of a drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Everything is still accepted; clients are asked to leave.
    LameDuck,
    /// Requests in flight finish.
    Draining,
    /// The app stops.
    Stopping,
    /// What is left is killed.
    Killing,
}

/// Why a phase ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EndedBy {
    /// Traffic was measured quiet with nothing in flight.
    Quiet,
    /// Nothing listens, so nothing can arrive.
    NothingListens,
    /// Quiet could not be measured and the least time had passed.
    MinimumPassed,
    /// Nothing was in flight.
    NothingInFlight,
    /// The phase's share of the budget was spent.
    BudgetSpent,
    /// The app exited by itself.
    AppExited,
    /// Every process of the app exited.
    AllExited,
    /// The stop signal came again and `--force-on-repeat` was given.
    Forced,
    /// The mode does not drain (`observe`).
    NotActing,
}

/// A phase's share and use of the budget.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PhaseUse {
    /// Which.
    pub phase: Phase,
    /// Its share.
    #[serde(rename = "budget_s", with = "seconds")]
    pub budget: Duration,
    /// What it used.
    #[serde(rename = "used_s", with = "seconds")]
    pub used: Duration,
    /// Why it ended.
    pub ended_by: EndedBy,
}

/// What was seen of traffic after the drain began. Where `source` is `none`, every figure is absent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Traffic {
    /// Where the figures come from.
    pub source: TrafficSource,
    /// The app's listening ports.
    pub ports: Vec<u16>,
    /// Connections open when the drain began.
    pub connections_at_start: Option<u32>,
    /// Connections opened after that.
    pub new_connections: Option<u32>,
    /// Times data arrived on a connection: at least this many requests were served that an exit on TERM would have lost.
    pub arrivals: Option<u32>,
    /// Probe connections and those of ignored sources; they are not in the other figures.
    pub ignored: Option<u32>,
    /// The last arrival, seconds after the drain began.
    #[serde(rename = "last_arrival_s")]
    pub last_arrival: Option<f64>,
    /// Connections open when the app was told to stop.
    pub open_at_stop: Option<u32>,
    /// Requests in flight when the app was told to stop.
    pub in_flight_at_stop: Option<u32>,
    /// Connections still open when the app was killed: each is a forced close, a counted failure.
    pub forced_closes: Option<u32>,
    /// Arrivals by source address, busiest first; at most 16.
    pub by_source: Vec<SourceCount>,
}

/// Arrivals from one address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceCount {
    /// The address.
    pub address: std::net::IpAddr,
    /// How many.
    pub arrivals: u32,
}

/// What the front did, since it was first started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrontReport {
    /// Requests that an app without a front, which leaves at the stop signal, would have lost: those in flight when
    /// the drain began, those that arrived after that, and those before it that were held for an app which did not listen,
    /// or sent again because a reused connection had died, and so were answered. Probes are none of them. It does not say
    /// how they ended; the other figures do. Where the app exited by itself, only the last two kinds count.
    pub would_have_been_502: u64,
    /// The page at the end.
    #[serde(flatten)]
    pub figures: Figures,
    /// Requests after the drain began by source address, busiest first; at most 64.
    pub by_source: Vec<SourceCount>,
}

/// How the app ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// lameduck's own exit status, after `--map-exit`.
    pub status: u8,
    /// The app's exit code, where it exited.
    pub app_code: Option<u8>,
    /// The signal that ended the app, where one did.
    pub app_signal: Option<u8>,
}

/// The processes of the app.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Processes {
    /// Statuses collected, the main process and every orphan.
    pub reaped: u64,
    /// Processes killed by SIGKILL.
    pub killed: u32,
}

/// Why a neighbour in the pod is to leave first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Relation {
    /// `--after` names it.
    Stated,
    /// It has connections to a port of this app.
    Proxies,
}

/// What became of the wait for a neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NeighbourOutcome {
    /// It left, and was waited for until then.
    Left,
    /// It was told to stop and was still there when the wait ended.
    StillThere,
    /// It was there and not told to stop: a native sidecar, a preStop hook of its own, or only this container is stopped.
    NotTold,
    /// It was there and never answered.
    Silent,
    /// Nobody of that name was there.
    NotFound,
    /// Each was to leave before the other, by what was learned: there is no order between the two.
    Mutual,
}

/// A neighbour in the pod that is to leave first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NeighbourReport {
    /// Its name.
    pub name: String,
    /// Why it is to leave first.
    pub relation: Relation,
    /// The ports of this app that it has connections to.
    pub ports: Vec<u16>,
    /// What became of the wait.
    pub outcome: NeighbourOutcome,
    /// From the start of the drain until it had left, or until the wait ended; zero where it was not waited for.
    #[serde(rename = "waited_s", with = "seconds")]
    pub waited: Duration,
}

/// The order in which the containers of the pod leave, as far as it concerned this one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OrderReport {
    /// The name by which neighbours know this one.
    pub name: String,
    /// Whom it waited for, or would have.
    pub neighbours: Vec<NeighbourReport>,
    /// How much longer than by its own traffic the lame duck lasted, because of neighbours.
    #[serde(rename = "held_s", with = "seconds")]
    pub held: Duration,
}

/// Whether routing sent to this pod, as its `EndpointSlices` say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RoutingState {
    /// It did.
    In,
    /// Only for a service that had nobody else.
    LastResort,
    /// It did not.
    Out,
    /// That could not be known.
    Unknown,
}

/// What was seen of routing (`--watch-endpoints`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RoutingReport {
    /// Where it stood when the lame duck was over.
    pub state: RoutingState,
    /// When it was seen to have taken this pod out, seconds after the drain began; absent where it was not.
    #[serde(rename = "removed_s")]
    pub removed: Option<f64>,
}

/// The whole report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DrainReport {
    /// [`SCHEMA`].
    pub schema: String,
    /// lameduck's version.
    pub version: String,
    /// `on` or `observe`.
    pub mode: String,
    /// The command, as given.
    pub command: Vec<String>,
    /// What began the drain.
    pub origin: Origin,
    /// The division of the grace period.
    pub budget: Budget,
    /// What each phase used of it, in order.
    pub phases: Vec<PhaseUse>,
    /// The process lane, and what was seen of the routing lane.
    pub timeline: Timeline,
    /// What was seen of traffic.
    pub traffic: Traffic,
    /// What the front did, where there was one.
    #[serde(default)]
    pub front: Option<FrontReport>,
    /// Which neighbours in the pod were to leave first; absent where there was none.
    #[serde(default)]
    pub order: Option<OrderReport>,
    /// What was seen of routing; absent where it was not watched.
    #[serde(default)]
    pub routing: Option<RoutingReport>,
    /// How the app ended.
    pub exit: Exit,
    /// Its processes.
    pub processes: Processes,
    /// From the start of the drain to the exit.
    #[serde(rename = "took_s", with = "seconds")]
    pub took: Duration,
    /// Grace left at the exit, margin included.
    #[serde(rename = "unused_grace_s", with = "seconds")]
    pub unused_grace: Duration,
}
