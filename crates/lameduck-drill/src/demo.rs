//! The embedded default of `lameduck demo`: no other program, no flags, under a minute.

use std::ffi::OsString;
use std::time::Duration;

use crate::mix::Template;
use crate::plan::{Action, Event, Plan};

/// How long the plain and the cured variant of [`plan`] take together at most, for a progress line.
pub const TAKES: Duration = Duration::from_secs(30);

/// Two replicas of a service, rolled one after the other at 200 requests a second behind a load balancer that learns of
/// each end 2 s late. `service` starts one replica; `wrap` is what it is compared with.
///
/// Plain, the losses are certain by arithmetic: each of two exits leaves its endpoint routed for 2 s, and one request
/// in six takes 200 ms, so that some are always in flight.
pub fn plan(service: Vec<OsString>, wrap: Vec<OsString>) -> Plan {
    let template = |method: &str, path: &str, weight, body_bytes| Template {
        method: method.into(),
        path: path.into(),
        weight,
        body_bytes,
    };
    Plan {
        command: service,
        wrap,
        replicas: 2,
        rate: 200.0,
        duration: Duration::from_secs(9),
        mix: vec![
            template("GET", "/", 9, 0),
            template("GET", "/slow?ms=200", 3, 0),
            template("POST", "/", 4, 512),
            template("HEAD", "/", 1, 0),
        ],
        events: vec![Event { at: Duration::from_secs(1), action: Action::Roll }],
        lag: Duration::from_secs(2),
        grace: Duration::from_secs(15),
        timeout: Duration::from_secs(5),
        ready_timeout: Duration::from_secs(10),
        ..Plan::default()
    }
}

/// The cure: this program as PID 1. It waits for measured quiet, so its bounds can be short here.
pub fn wrap(lameduck: OsString) -> Vec<OsString> {
    let flags = ["run", "--grace", "15s", "--min", "1s", "--quiet", "1s", "--"];
    std::iter::once(lameduck).chain(flags.map(OsString::from)).collect()
}
