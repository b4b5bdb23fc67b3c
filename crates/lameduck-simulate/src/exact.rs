//! The same model one request at a time: pools of connections, each with its age, and servers that close. Slow, and with nothing
//! in it that the engine's laws assume. Tests hold the one to the other.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use lameduck_core::Cause;

use crate::engine::{CAUSES, Scheduled};
use crate::fleet::{Pooling, Service, Stop};
use crate::rng::Rng;

/// What one run gave.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests sent.
    pub sent: u64,
    /// Requests answered.
    pub answered: u64,
    /// First attempts lost, by the place of the cause in [`Cause::ALL`].
    pub lost: [u64; CAUSES],
}

/// A pod and its two lanes.
#[derive(Debug, Clone, Copy)]
struct Pod {
    routed_until: f64,
    accepts_until: f64,
    /// What is in flight then is cut.
    ends: f64,
    cut: Cause,
}

/// A kept connection.
#[derive(Debug, Clone, Copy)]
struct Kept {
    pod: usize,
    idle_since: f64,
    opened: f64,
    answered: u32,
}

/// An answer that comes.
#[derive(Debug, Clone, Copy)]
struct Answer {
    at: f64,
    pool: usize,
    kept: Kept,
}

impl PartialEq for Answer {
    fn eq(&self, other: &Answer) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Answer {}

impl PartialOrd for Answer {
    fn partial_cmp(&self, other: &Answer) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Answer {
    fn cmp(&self, other: &Answer) -> Ordering {
        // The earliest first.
        other.at.total_cmp(&self.at)
    }
}

/// Simulates one service for so many seconds at its mean rate, with pods that end at given times.
///
/// The number of pods that a schedule names beside those that end is the service's own `replicas`.
pub fn run(service: &Service, length: f64, schedule: &[Scheduled], rng: &mut Rng) -> Counts {
    let mut exact = Exact::new(service, schedule, rng);
    let mut now = 0.0;
    loop {
        now += rng.exponential() / service.traffic.rate;
        if now >= length {
            return exact.counts;
        }
        exact.request(now, rng);
    }
}

struct Exact<'f> {
    service: &'f Service,
    pods: Vec<Pod>,
    /// Idle connections, the one used last at the end: by caller, and by pod where a pool belongs to one.
    pools: Vec<Vec<Kept>>,
    callers: usize,
    idle: f64,
    busy: BinaryHeap<Answer>,
    counts: Counts,
}

impl<'f> Exact<'f> {
    fn new(service: &'f Service, schedule: &[Scheduled], rng: &mut Rng) -> Exact<'f> {
        let stays =
            Pod { routed_until: f64::INFINITY, accepts_until: f64::INFINITY, ends: f64::INFINITY, cut: Cause::Unknown };
        let mut pods = vec![stays; service.replicas as usize];
        for end in schedule {
            for _ in 0..end.count {
                pods.push(pod(service, end.at, rng));
            }
        }
        let callers = service.caller.pools.round().max(1.0) as usize;
        let pools = match service.caller.pooling {
            Pooling::PerService => callers,
            Pooling::PerEndpointClosed | Pooling::PerEndpointLeft => callers * pods.len(),
        };
        Exact {
            service,
            pods,
            pools: vec![Vec::new(); pools],
            callers,
            idle: service.server.idle.map_or(f64::INFINITY, |idle| idle.draw(rng)),
            busy: BinaryHeap::new(),
            counts: Counts::default(),
        }
    }

    fn request(&mut self, now: f64, rng: &mut Rng) {
        while self.busy.peek().is_some_and(|answer| answer.at <= now) {
            if let Some(answer) = self.busy.pop() {
                self.give_back(answer);
            }
        }
        self.counts.sent += 1;
        let routed: Vec<usize> = (0..self.pods.len()).filter(|pod| self.pods[*pod].routed_until > now).collect();
        let target = routed[rng.below(routed.len())];
        let caller = rng.below(self.callers);
        let pool = match self.service.caller.pooling {
            Pooling::PerService => caller,
            Pooling::PerEndpointClosed | Pooling::PerEndpointLeft => caller * self.pods.len() + target,
        };
        let window = self.service.caller.window_s;
        let arrives = now + window;
        while let Some(kept) = self.pools[pool].pop() {
            let pod = self.pods[kept.pod];
            // Closed, and the close has been seen; or given up by the caller itself.
            let closes = (kept.idle_since + self.idle).min(pod.accepts_until);
            let worn = self.service.caller.max_age_s.is_some_and(|oldest| now - kept.opened >= oldest);
            if closes <= now || now - kept.idle_since >= self.service.caller.idle_s || worn {
                continue;
            }
            if closes <= arrives {
                self.counts.lost[Cause::IdleCloseRace as usize] += 1;
                return;
            }
            self.serve(now, pool, kept, rng);
            return;
        }
        if self.pods[target].accepts_until <= now {
            self.counts.lost[Cause::RefusedWhileRouted as usize] += 1;
            return;
        }
        let fresh = Kept { pod: target, idle_since: now, opened: now, answered: 0 };
        self.serve(now, pool, fresh, rng);
    }

    fn serve(&mut self, now: f64, pool: usize, kept: Kept, rng: &mut Rng) {
        let at = now + self.service.traffic.service_time.draw(rng);
        let pod = self.pods[kept.pod];
        if at > pod.ends {
            self.counts.lost[pod.cut as usize] += 1;
            return;
        }
        self.counts.answered += 1;
        self.busy.push(Answer { at, pool, kept: Kept { idle_since: at, answered: kept.answered + 1, ..kept } });
    }

    fn give_back(&mut self, answer: Answer) {
        let Answer { at, pool, kept } = answer;
        let full = self.service.caller.max_requests.is_some_and(|most| kept.answered >= most);
        let closed = self.pods[kept.pod].accepts_until <= at;
        if !full && !closed {
            self.pools[pool].push(kept);
        }
    }
}

fn pod(service: &Service, at: f64, rng: &mut Rng) -> Pod {
    let server = &service.server;
    let lag = service.routing.lag.draw(rng);
    let signal = server.pre_stop.draw(rng) + server.reaction.draw(rng);
    let grace = server.grace_s;
    let (accepts, ends, cut) = if signal >= grace {
        (grace, grace, Cause::KilledAtDeadline)
    } else {
        match server.stop {
            Stop::Drains => match server.finish_s {
                Some(finish) if signal + finish < grace => (signal, signal + finish, Cause::CutMidResponse),
                Some(_) | None => (signal, grace, Cause::KilledAtDeadline),
            },
            Stop::Dies => (signal, signal, Cause::CutMidResponse),
            Stop::Stays { delivered: true } => (grace, grace, Cause::KilledAtDeadline),
            Stop::Stays { delivered: false } => (grace, grace, Cause::SignalNotDelivered),
            Stop::Measured { quiet_s, share } => {
                let accepts = (lag.max(signal) + quiet_s).min(signal + (grace - signal) * share);
                (accepts, grace, Cause::KilledAtDeadline)
            }
        }
    };
    Pod { routed_until: at + lag, accepts_until: at + accepts, ends: at + ends, cut }
}
