//! What one end of a pod costs, in closed form: the expected losses by cause, given when things happen. Every formula is that of
//! a Poisson stream of requests: what falls into a window is rate times its length, and what is in flight at a moment is rate
//! times the integral of the tail of service times.

use lameduck_core::Cause;

use crate::fleet::{Caller, Pooling, Routing, Server, Stop};
use crate::service_time::ServiceTime;

/// How a request failed, as far as resending looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failed {
    /// No connection.
    Connecting,
    /// On a kept connection.
    Reused,
    /// After it had been read, before its answer was whole.
    Answering,
    /// Nothing came back at all.
    TimedOut,
}

/// An expected number of lost requests.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Loss {
    /// Why.
    pub cause: Cause,
    /// How.
    pub failed: Failed,
    /// How many on average.
    pub mean: f64,
}

/// A pod that is deleted, with everything drawn that is drawn. Times count from the deletion.
#[derive(Debug, Clone, Copy)]
pub struct Ending {
    /// Requests a second to it, as long as it is routed to.
    pub rate: f64,
    /// When nothing new is sent any more.
    pub lag: f64,
    /// When the stop signal has its effect.
    pub signal: f64,
    /// When SIGKILL comes.
    pub grace: f64,
    /// Which requests to it need a new connection, once it has closed those that it had.
    pub connects: Connects,
}

/// New connections to a pod that has closed its own.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Connects {
    /// The endpoint is chosen first: each request to it.
    Each,
    /// The connection is chosen first, and only a new one chooses among endpoints.
    Some {
        /// New connections a second to each endpoint that are made at any time: others were too old, worn out or closed.
        churn: f64,
        /// Requests a second to a pool: a connection that was closed is missed when its pool is next asked.
        to_pool: f64,
        /// How many endpoints a new connection chooses among.
        endpoints: f64,
    },
}

impl Connects {
    /// How many are made to the pod within `time` after it closed its own; `rate` went to it before.
    fn within(self, time: f64, rate: f64) -> f64 {
        match self {
            Connects::Each => rate * time,
            Connects::Some { churn, to_pool, endpoints } => {
                let missed = if to_pool * time > 1e-9 { (1.0 - (-to_pool * time).exp()) / to_pool } else { time };
                churn * time + rate * missed / endpoints.max(1.0)
            }
        }
    }
}

/// What the process does, on the same clock.
struct Lane {
    /// It accepts, and keeps its connections, until then.
    accepts: f64,
    /// Whatever is in flight then is cut.
    ends: f64,
    /// The cause of what is cut then.
    cut: Cause,
}

fn lane(ending: &Ending, server: &Server) -> Lane {
    let grace = ending.grace;
    // preStop alone uses the grace period up: there is no stop signal that anybody could follow.
    if ending.signal >= grace {
        return Lane { accepts: grace, ends: grace, cut: Cause::KilledAtDeadline };
    }
    let finishing = |accepts: f64| match server.finish_s {
        Some(finish) if accepts + finish < grace => {
            Lane { accepts, ends: accepts + finish, cut: Cause::CutMidResponse }
        }
        Some(_) | None => Lane { accepts, ends: grace, cut: Cause::KilledAtDeadline },
    };
    match server.stop {
        Stop::Drains => finishing(ending.signal),
        Stop::Dies => Lane { accepts: ending.signal, ends: ending.signal, cut: Cause::CutMidResponse },
        Stop::Stays { delivered: false } => Lane { accepts: grace, ends: grace, cut: Cause::SignalNotDelivered },
        Stop::Stays { delivered: true } => Lane { accepts: grace, ends: grace, cut: Cause::KilledAtDeadline },
        Stop::Measured { quiet_s, share } => {
            let quiet = ending.lag.max(ending.signal) + quiet_s;
            let most = ending.signal + (grace - ending.signal) * share;
            Lane { accepts: quiet.min(most), ends: grace, cut: Cause::KilledAtDeadline }
        }
    }
}

/// The expected losses of one end.
pub fn losses(ending: &Ending, server: &Server, caller: &Caller, routing: &Routing, time: &ServiceTime) -> [Loss; 3] {
    let Ending { rate, lag, .. } = *ending;
    let lane = lane(ending, server);
    let used_on = caller.pooling == Pooling::PerService;
    // New connections that routing still sends to a closed listener.
    let refused = ending.connects.within((lag - lane.accepts).max(0.0), rate);
    // With the listener go the idle connections, and what was on its way on one of them, where they were still in use.
    let race = if lane.accepts < lag || used_on { rate * caller.window_s } else { 0.0 };
    // The last requests that it took: everything in flight began before.
    let last = if used_on { lane.accepts } else { lane.accepts.min(lag) };
    let by_process = (lane.ends - last, lane.cut);
    // Without connection draining the balancer itself cuts what is in flight once it has heard.
    let by_balancer = match routing.drain_s {
        Some(drain) if !used_on => (lag + drain - last, Cause::CutMidResponse),
        Some(_) | None => (f64::INFINITY, Cause::CutMidResponse),
    };
    let (after, cause) = if by_balancer.0 < by_process.0 { by_balancer } else { by_process };
    let in_flight = rate * time.beyond(after);
    [
        Loss { cause: Cause::RefusedWhileRouted, failed: Failed::Connecting, mean: refused },
        Loss { cause: Cause::IdleCloseRace, failed: Failed::Reused, mean: race },
        Loss { cause, failed: Failed::Answering, mean: in_flight },
    ]
}

/// The expected losses where a process dies unasked and is started again in its place after `startup` seconds: all
/// [`Cause::CrashRestart`], and refused until the readiness probe has failed for long enough, or it is back.
pub fn crash(rate: f64, startup: f64, server: &Server, caller: &Caller, time: &ServiceTime) -> [Loss; 3] {
    let down = server.readiness_s.map_or(startup, |reacts| reacts.min(startup));
    let loss = |failed, mean| Loss { cause: Cause::CrashRestart, failed, mean };
    [
        loss(Failed::Connecting, rate * down),
        loss(Failed::Reused, rate * caller.window_s),
        loss(Failed::Answering, rate * time.mean()),
    ]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use lameduck_core::law;

    use super::*;
    use crate::testing;

    fn by_cause(ending: &Ending, change: impl FnOnce(&mut crate::fleet::Service)) -> Vec<(Cause, f64)> {
        let mut service = testing::service();
        change(&mut service);
        let all = losses(ending, &service.server, &service.caller, &service.routing, &service.traffic.service_time);
        all.into_iter().filter(|loss| loss.mean > 0.0).map(|loss| (loss.cause, loss.mean)).collect()
    }

    const ENDING: Ending = Ending { rate: 200.0, lag: 5.0, signal: 2.0, grace: 30.0, connects: Connects::Each };

    #[test]
    fn refused_is_the_closed_form() {
        let got = by_cause(&ENDING, |_| {});
        let expect = law::refused_per_termination(200.0, Duration::from_secs(5), Duration::from_secs(2));
        assert_eq!(got[0], (Cause::RefusedWhileRouted, expect));
        // 200/s in a window of 10 ms.
        assert_eq!(got[1], (Cause::IdleCloseRace, 2.0));
    }

    /// rate times the integral from G to infinity of P(service time > u) du, with exponential times in closed form.
    #[test]
    fn cut_at_grace_is_the_closed_form() {
        let time = ServiceTime::Exponential { mean: 10.0 };
        let got = by_cause(&ENDING, |service| {
            service.server.pre_stop = crate::fleet::Range::exactly(2.0);
            service.traffic.service_time = time;
        });
        let expect = 200.0 * 10.0 * (-28.0f64 / 10.0).exp();
        let (cause, mean) = got[2];
        assert_eq!(cause, Cause::KilledAtDeadline);
        assert!((mean - expect).abs() < 1e-9, "{mean} {expect}");
    }

    #[test]
    fn what_each_stop_loses() {
        use Cause::{CutMidResponse, IdleCloseRace, KilledAtDeadline, RefusedWhileRouted, SignalNotDelivered};
        let check = |ending: Ending, stop: Stop, change: fn(&mut crate::fleet::Service), expect: &[(Cause, f64)]| {
            let got = by_cause(&ending, |service| {
                service.server.stop = stop;
                service.traffic.service_time = ServiceTime::Fixed { mean: 0.5 };
                change(service);
            });
            assert_eq!(got.len(), expect.len(), "{stop:?}: {got:?}");
            for ((cause, mean), (known, expect)) in got.iter().zip(expect) {
                assert!(cause == known && (mean - expect).abs() < 1e-9, "{stop:?}: {got:?}");
            }
        };
        let nothing = |_: &mut crate::fleet::Service| {};
        // 100 in flight when it dies, 600 refused after.
        let dies = [(RefusedWhileRouted, 600.0), (IdleCloseRace, 2.0), (CutMidResponse, 100.0)];
        check(ENDING, Stop::Dies, nothing, &dies);
        // Routing has long heard, and a pool an endpoint is empty by then.
        let late = Ending { signal: 10.0, ..ENDING };
        check(late, Stop::Dies, nothing, &[]);
        check(late, Stop::Drains, nothing, &[]);
        // A client of the service uses its connection on, until it is closed under it.
        let used_on = |service: &mut crate::fleet::Service| service.caller.pooling = Pooling::PerService;
        check(late, Stop::Drains, used_on, &[(IdleCloseRace, 2.0)]);
        check(ENDING, Stop::Stays { delivered: false }, nothing, &[]);
        let stays = [(IdleCloseRace, 2.0), (SignalNotDelivered, 100.0)];
        check(ENDING, Stop::Stays { delivered: false }, used_on, &stays);
        let short = Ending { grace: 1.0, ..ENDING };
        let killed = [(RefusedWhileRouted, 800.0), (IdleCloseRace, 2.0), (KilledAtDeadline, 100.0)];
        check(short, Stop::Drains, nothing, &killed);
        check(ENDING, Stop::Measured { quiet_s: 1.0, share: 0.8 }, nothing, &[]);
        // The balancer cuts when it has heard: in flight at 10 s.
        let drains_late = Ending { signal: 20.0, lag: 10.0, ..ENDING };
        let cuts = |service: &mut crate::fleet::Service| service.routing.drain_s = Some(0.0);
        check(drains_late, Stop::Drains, cuts, &[(CutMidResponse, 100.0)]);
        let waits = |service: &mut crate::fleet::Service| service.routing.drain_s = Some(60.0);
        check(drains_late, Stop::Drains, waits, &[]);
    }
}
