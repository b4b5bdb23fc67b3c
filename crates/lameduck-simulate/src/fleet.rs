//! What is simulated: services, what stands in front of each, and what ends their pods. Data only. Times are seconds.

use serde::Serialize;

use crate::rng::Rng;
use crate::service_time::ServiceTime;

/// From the least to the most; what is drawn from it is uniform.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Range {
    /// At least.
    pub least: f64,
    /// At most.
    pub most: f64,
}

impl Range {
    /// One value.
    pub const fn exactly(value: f64) -> Range {
        Range { least: value, most: value }
    }

    /// Between two values.
    pub const fn between(least: f64, most: f64) -> Range {
        Range { least, most }
    }

    pub(crate) fn draw(self, rng: &mut Rng) -> f64 {
        self.least + (self.most - self.least) * rng.unit()
    }
}

/// Everything that is simulated together.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Fleet {
    /// The services.
    pub services: Vec<Service>,
    /// What they run on.
    pub nodes: Nodes,
}

/// The machines.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Nodes {
    /// How many.
    pub count: f64,
    /// How many are drained and removed a day, evicted pods having their grace period.
    pub removed_a_day: f64,
    /// How many are taken back a day with a short notice.
    pub reclaimed_a_day: f64,
    /// That notice: no grace period is longer.
    pub notice_s: f64,
}

/// A service: pods that are alike, and one kind of caller.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Pods at the mean rate.
    pub replicas: u32,
    /// How their number follows the rate; none: it does not.
    pub scaling: Option<Scaling>,
    /// What is asked of it.
    pub traffic: Traffic,
    /// Who asks.
    pub caller: Caller,
    /// What a pod does.
    pub server: Server,
    /// How callers learn of its end.
    pub routing: Routing,
    /// What ends it.
    pub events: Events,
}

/// Requests.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Traffic {
    /// Requests a second, on average over the day.
    pub rate: f64,
    /// How far the daily curve swings about the mean, as a share of it: 0 is flat, 1 is nothing at night.
    pub swing: f64,
    /// The hour of the peak.
    pub peak_hour: f64,
    /// The standard deviation of the logarithm of what comes on top of the curve by chance.
    pub noise: f64,
    /// How long such a deviation lasts.
    pub noise_s: f64,
    /// How long answers take.
    pub service_time: ServiceTime,
}

impl Traffic {
    /// The curve's rate at a time of the day, without noise.
    pub fn rate_at(&self, seconds: f64) -> f64 {
        let angle = (seconds / 3600.0 - self.peak_hour) / 24.0 * std::f64::consts::TAU;
        self.rate * (1.0 + self.swing * angle.cos())
    }
}

/// What happens to a caller's idle connections when routing hears of an end; as in the profiles of `lameduck drill`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pooling {
    /// One pool an endpoint; its idle connections are closed.
    PerEndpointClosed,
    /// One pool an endpoint; they are left to their timeout, unused.
    PerEndpointLeft,
    /// One pool for the service: they are used on.
    PerService,
}

/// What stands in front of a service.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Caller {
    /// Its name.
    pub name: String,
    /// How long it keeps an idle connection.
    pub idle_s: f64,
    /// How many requests it sends on one.
    pub max_requests: Option<u32>,
    /// How old one grows.
    pub max_age_s: Option<f64>,
    /// What becomes of the idle ones at an end.
    pub pooling: Pooling,
    /// How many pools there are, each by itself: machines, processes or workers of the caller.
    pub pools: f64,
    /// The time in which a close and a request can cross: about one round trip.
    pub window_s: f64,
    /// What it sends again.
    pub resends: Resends,
}

/// The share of requests that are sent again, by how the first attempt failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Resends {
    /// No connection could be made.
    pub connect: f64,
    /// A kept connection ended without an answer.
    pub reused: f64,
    /// A new one did.
    pub fresh: f64,
    /// How often at most.
    pub limit: u32,
}

/// What the stop signal does.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Stop {
    /// It stops accepting, closes idle connections, finishes what is in flight, exits.
    Drains,
    /// It is gone at once.
    Dies,
    /// Nothing until SIGKILL.
    Stays {
        /// The signal reached the app, which goes on.
        delivered: bool,
    },
    /// `lameduck run`: it accepts until traffic has been quiet for so long, or a part of the grace period is spent.
    Measured {
        /// Seconds without a request.
        quiet_s: f64,
        /// The share of the grace period after which it goes on all the same.
        share: f64,
    },
}

/// One pod's server.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Server {
    /// Its name.
    pub name: String,
    /// After how long it closes an idle connection; none: never. Where versions differ, each run draws one.
    pub idle: Option<Range>,
    /// What the stop signal does.
    pub stop: Stop,
    /// From the deletion to the stop signal.
    pub pre_stop: Range,
    /// From the stop signal to its effect.
    pub reaction: Range,
    /// The longest it works on what is in flight by its own rules; none: no limit.
    pub finish_s: Option<f64>,
    /// From the deletion to SIGKILL.
    pub grace_s: f64,
    /// From the start of the process to its first answer.
    pub startup: Range,
    /// A readiness probe: how long it fails before routing is told. None: there is no probe, and a pod is routed to at once.
    pub readiness_s: Option<f64>,
}

/// How callers learn of the end of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Routing {
    /// From the deletion until nothing new is sent.
    pub lag: Range,
    /// What is in flight has so long once routing has heard; none: as long as it takes.
    pub drain_s: Option<f64>,
    /// The caller sends to nodes, which pass on; none: to pods.
    pub via_nodes: Option<ViaNodes>,
}

/// A caller that knows nodes, not pods: it does not hear of the end of a pod, and a connection of its goes through a node to
/// whichever pod was chosen when it was made.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ViaNodes {
    /// From the end of a node until nothing more is sent to it.
    pub detects: Range,
    /// What [`Routing::lag`] would be if it sent to pods.
    pub direct_lag: Range,
}

/// What ends pods, besides scaling and nodes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Events {
    /// Rollouts a day.
    pub rollouts_a_day: f64,
    /// The share of the pods that a rollout replaces at a time.
    pub batch: f64,
    /// How often a day each container is ended by the clock, without its pod being taken out of routing.
    pub restarts_a_day: f64,
    /// How often a day each container dies by itself.
    pub crashes_a_day: f64,
}

/// A horizontal autoscaler (kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale, "Algorithm details").
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Scaling {
    /// The fewest pods.
    pub least: u32,
    /// Scale-down goes to the highest recommendation of so many seconds.
    pub stabilization_s: f64,
    /// How many may go in how long; the one that lets the most go counts.
    pub policies: Vec<Policy>,
}

/// One policy of scale-down.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Policy {
    /// How many: of the pods as a share, or a number of them.
    pub amount: Amount,
    /// In how many seconds.
    pub period_s: f64,
}

/// An amount of pods.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Amount {
    /// A share, 0 to 1.
    Share(f64),
    /// A number.
    Pods(f64),
}
