//! A service for tests: what they do not change is here.

use crate::fleet::{Caller, Events, Pooling, Range, Resends, Routing, Server, Service, Stop, Traffic};
use crate::service_time::ServiceTime;

pub fn service() -> Service {
    Service {
        name: "service".into(),
        replicas: 4,
        scaling: None,
        traffic: Traffic {
            rate: 200.0,
            swing: 0.0,
            peak_hour: 14.0,
            noise: 0.0,
            noise_s: 600.0,
            service_time: ServiceTime::Exponential { mean: 0.05 },
        },
        caller: Caller {
            name: "balancer".into(),
            idle_s: 60.0,
            max_requests: None,
            max_age_s: None,
            pooling: Pooling::PerEndpointClosed,
            pools: 1.0,
            window_s: 0.01,
            resends: Resends::default(),
        },
        server: Server {
            name: "server".into(),
            idle: Some(Range::exactly(120.0)),
            stop: Stop::Drains,
            pre_stop: Range::exactly(0.0),
            reaction: Range::exactly(0.0),
            finish_s: None,
            grace_s: 30.0,
            startup: Range::exactly(1.0),
            readiness_s: Some(3.0),
        },
        routing: Routing { lag: Range::exactly(3.0), drain_s: None, via_nodes: None },
        events: Events { rollouts_a_day: 0.0, batch: 0.25, restarts_a_day: 0.0, crashes_a_day: 0.0 },
    }
}
