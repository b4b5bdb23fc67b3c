//! What can be changed about a fleet, each a change of its data and of nothing else.

use std::time::Duration;

use lameduck_core::{Budget, Shares};

use crate::fleet::{Amount, Fleet, Policy, Pooling, Range, Scaling, Service, Stop};

/// One change. Where several are made, they are made in this order, whatever the order they were asked for in: what a sleep has to
/// outlast, for one, depends on who is in front.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fix {
    /// Callers send to pods instead of nodes.
    ContainerNative,
    /// Servers keep idle connections for longer than who is in front of them.
    KeepAliveOrder,
    /// TERM reaches the app, and it drains.
    Drain,
    /// A sleep before TERM that outlasts routing, and a grace period longer by as much.
    PreStop,
    /// `lameduck run`.
    Run,
    /// A grace period as long as the longest answers take.
    Grace,
    /// A readiness probe.
    Readiness,
    /// No container is ended by the clock.
    Restarts,
    /// The balancer lets what is in flight finish.
    DrainTimeout,
    /// The autoscaler takes pods out slowly.
    ScaleDown,
    /// The number of nodes stays as it is.
    NodeScaling,
}

/// What a grace period or a drain has to last where times have no bound: so few requests a million are longer.
const BEYOND: f64 = 1e-6;
/// The shortest drain timeout that is set.
const DRAIN_S: f64 = 60.0;

impl Fix {
    /// Every fix, in the order in which they are made.
    pub const ALL: [Fix; 11] = [
        Fix::ContainerNative,
        Fix::KeepAliveOrder,
        Fix::Drain,
        Fix::PreStop,
        Fix::Run,
        Fix::Grace,
        Fix::Readiness,
        Fix::Restarts,
        Fix::DrainTimeout,
        Fix::ScaleDown,
        Fix::NodeScaling,
    ];

    /// The id, as in `--fix`.
    pub const fn id(self) -> &'static str {
        match self {
            Fix::ContainerNative => "container-native",
            Fix::KeepAliveOrder => "keep-alive-order",
            Fix::Drain => "drain",
            Fix::PreStop => "pre-stop",
            Fix::Run => "run",
            Fix::Grace => "grace",
            Fix::Readiness => "readiness",
            Fix::Restarts => "restarts",
            Fix::DrainTimeout => "drain-timeout",
            Fix::ScaleDown => "scale-down",
            Fix::NodeScaling => "node-scaling",
        }
    }

    /// The fix with this id.
    pub fn from_id(id: &str) -> Option<Fix> {
        Fix::ALL.into_iter().find(|fix| fix.id() == id)
    }

    /// What it changes, in a line.
    pub const fn what(self) -> &'static str {
        match self {
            Fix::ContainerNative => "the balancer sends to pods, not to nodes",
            Fix::KeepAliveOrder => "servers keep idle connections 20 s longer than who is in front of them",
            Fix::Drain => "TERM reaches the app, which finishes what is in flight",
            Fix::PreStop => "a sleep before TERM, 5 s longer than routing takes; the grace period grows by as much",
            Fix::Run => "lameduck run as PID 1: accepts until traffic is quiet",
            Fix::Grace => "the grace period, and the server's own limit, outlast the longest answers",
            Fix::Readiness => "a readiness probe, 1 s x 3",
            Fix::Restarts => "no container is ended by the clock",
            Fix::DrainTimeout => "connection draining at the balancer, 60 s or what the longest answers take",
            Fix::ScaleDown => "at most a tenth of the pods goes in a minute, or in a grace period where that is longer",
            Fix::NodeScaling => "no node is removed to save cost",
        }
    }

    fn apply(self, fleet: &mut Fleet) {
        if self == Fix::NodeScaling {
            fleet.nodes.removed_a_day = 0.0;
        }
        let nodes = fleet.nodes.count.max(1.0);
        for service in &mut fleet.services {
            self.apply_to(service, nodes);
        }
    }

    fn apply_to(self, service: &mut Service, nodes: f64) {
        let server = &mut service.server;
        match self {
            Fix::ContainerNative => {
                if let Some(via) = service.routing.via_nodes.take() {
                    service.routing.lag = via.direct_lag;
                    service.caller.pooling = Pooling::PerEndpointClosed;
                    service.caller.pools = (service.caller.pools / nodes).max(1.0);
                }
            }
            Fix::KeepAliveOrder => {
                let closes_with_each = |idle: Range| idle.most <= 0.0;
                if let Some(idle) = server.idle.filter(|idle| !closes_with_each(*idle)) {
                    let needs = service.caller.idle_s + 20.0;
                    server.idle = Some(Range::between(idle.least.max(needs), idle.most.max(needs)));
                }
            }
            Fix::Drain => match server.stop {
                Stop::Dies | Stop::Stays { .. } => server.stop = Stop::Drains,
                Stop::Drains | Stop::Measured { .. } => {}
            },
            Fix::PreStop => {
                let needs = (service.routing.lag.most + 5.0).ceil();
                if server.pre_stop.least < needs {
                    server.grace_s += needs - server.pre_stop.least;
                    server.pre_stop = Range::exactly(needs);
                }
            }
            Fix::Run => {
                let shares = Shares { grace: Duration::from_secs_f64(server.grace_s), ..Shares::default() };
                if let Ok(budget) = Budget::divide(&shares) {
                    let share = budget.lame_duck.as_secs_f64() / server.grace_s;
                    server.stop = Stop::Measured { quiet_s: budget.quiet.as_secs_f64(), share };
                }
            }
            Fix::Grace => {
                let longest = longest(service);
                let server = &mut service.server;
                server.grace_s = server.grace_s.max(server.pre_stop.most + server.reaction.most + longest);
                server.finish_s = server.finish_s.map(|finish| finish.max(longest));
            }
            Fix::Readiness => server.readiness_s = server.readiness_s.or(Some(3.0)),
            Fix::Restarts => service.events.restarts_a_day = 0.0,
            Fix::DrainTimeout => {
                let needs = longest(service).max(DRAIN_S);
                service.routing.drain_s = service.routing.drain_s.map(|drain| drain.max(needs));
            }
            Fix::ScaleDown => {
                let period_s = server.grace_s.max(60.0);
                if let Some(scaling) = &mut service.scaling {
                    slow(scaling, period_s);
                }
            }
            Fix::NodeScaling => {}
        }
    }
}

fn slow(scaling: &mut Scaling, period_s: f64) {
    let a_second = |policy: &Policy| match policy.amount {
        Amount::Share(share) => share / policy.period_s,
        Amount::Pods(count) => count / f64::from(scaling.least.max(1)) / policy.period_s,
    };
    if scaling.policies.is_empty() || scaling.policies.iter().map(a_second).fold(0.0, f64::max) > 0.1 / period_s {
        scaling.policies = vec![Policy { amount: Amount::Share(0.1), period_s }];
    }
}

/// The time that only a few requests a million take longer than.
fn longest(service: &Service) -> f64 {
    let time = &service.traffic.service_time;
    let mut longest = 1.0;
    while time.beyond(longest) > BEYOND * time.mean() && longest < 3600.0 {
        longest = f64::min(longest * 1.25, 3600.0);
    }
    longest.ceil()
}

/// The fleet with these fixes made.
pub fn fixed(fleet: &Fleet, fixes: &[Fix]) -> Fleet {
    let mut fleet = fleet.clone();
    for fix in Fix::ALL.into_iter().filter(|fix| fixes.contains(fix)) {
        fix.apply(&mut fleet);
    }
    fleet
}
