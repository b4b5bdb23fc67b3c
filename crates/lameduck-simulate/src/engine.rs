//! One run: what happens to every pod of a fleet, and what that costs.
//!
//! Ends of pods, scalings and nodes are single events in time. Requests are not: between events they are Poisson streams whose
//! losses are drawn from their exact conditional laws, so that a run costs by its ends and not by its requests.

use std::collections::HashMap;

use lameduck_core::Cause;

use crate::ending::{self, Connects, Ending, Failed, Loss};
use crate::fleet::{Amount, Caller, Fleet, Pooling, Range, Scaling, Service};
use crate::race::idle_density;
use crate::rng::Rng;

const DAY_S: f64 = 86_400.0;
/// The autoscaler looks so often (kube-controller-manager, `--horizontal-pod-autoscaler-sync-period`).
const SYNC_S: f64 = 15.0;
/// It leaves deviations below this alone (the same, `--horizontal-pod-autoscaler-tolerance`).
const TOLERANCE: f64 = 0.1;
/// How many causes there are.
pub const CAUSES: usize = Cause::ALL.len();

/// What ended a pod, or a container in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EndKind {
    /// The autoscaler.
    ScaleDown,
    /// A rollout.
    Rollout,
    /// Its node was drained.
    NodeRemoved,
    /// Its node was taken back.
    NodeReclaimed,
    /// A clock.
    Restart,
    /// Itself.
    Crash,
}

impl EndKind {
    /// Every kind.
    pub const ALL: [EndKind; 6] = [
        EndKind::ScaleDown,
        EndKind::Rollout,
        EndKind::NodeRemoved,
        EndKind::NodeReclaimed,
        EndKind::Restart,
        EndKind::Crash,
    ];

    /// Its id.
    pub const fn id(self) -> &'static str {
        match self {
            EndKind::ScaleDown => "scale-down",
            EndKind::Rollout => "rollout",
            EndKind::NodeRemoved => "node-removed",
            EndKind::NodeReclaimed => "node-reclaimed",
            EndKind::Restart => "restart",
            EndKind::Crash => "crash",
        }
    }
}

/// An end of some pods at a given time: for a schedule that is known, as a drill's is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scheduled {
    /// When, seconds.
    pub at: f64,
    /// How many pods.
    pub count: u32,
    /// Pods that are routed to beside them.
    pub others: u32,
    /// Why.
    pub kind: EndKind,
}

/// What one run gave.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Run {
    /// Requests sent.
    pub sent: u64,
    /// Requests answered, at the first attempt or when sent again.
    pub answered: u64,
    /// Requests lost for good, by the place of the cause in [`Cause::ALL`].
    pub lost: [u64; CAUSES],
    /// Requests that were lost once and answered when the caller sent them again.
    pub masked: [u64; CAUSES],
    /// What `lost` is on average, given the events of this run.
    pub expected: [f64; CAUSES],
    /// The same by service.
    pub by_service: Vec<f64>,
    /// The same by hour of the day.
    pub by_hour: [f64; 24],
    /// How many pods ended, by the place of the kind in [`EndKind::ALL`].
    pub ends: [u64; EndKind::ALL.len()],
    /// How often the autoscalers changed something, up or down.
    pub scalings: u64,
}

impl Run {
    /// Lost, over all causes.
    pub fn total(&self) -> u64 {
        self.lost.iter().sum()
    }
}

/// A number of pods that end together.
#[derive(Debug, Clone, Copy)]
struct Batch {
    at: f64,
    count: f64,
    others: f64,
    kind: EndKind,
    rate: f64,
}

/// The streams of random numbers, one for each purpose.
#[derive(Debug, Clone, Copy)]
enum Stream {
    Facts,
    Noise,
    Rollouts,
    Restarts,
    Crashes,
    Nodes,
    Ends,
    Races,
    Answers,
}

/// Where a run's numbers come from.
#[derive(Debug, Clone, Copy)]
pub struct Seed {
    /// Given.
    pub seed: u64,
    /// Which run.
    pub run: u64,
}

impl Seed {
    fn stream(self, service: usize, stream: Stream) -> Rng {
        Rng::stream(&[self.seed, self.run, service as u64, stream as u64])
    }
}

/// Simulates so many days of a fleet.
pub fn run(fleet: &Fleet, days: u32, seed: Seed) -> Run {
    let length = f64::from(days) * DAY_S;
    let nodes = node_ends(fleet, length, seed);
    let mut out = Run::default();
    for (place, service) in fleet.services.iter().enumerate() {
        let mut simulation = Simulation::new(service, place, seed, fleet.nodes.notice_s);
        let walk = simulation.walk(length);
        let mut batches = walk.scale_downs.clone();
        simulation.rollouts(&walk, length, &mut batches);
        simulation.nodes(fleet, &walk, &nodes, &mut batches);
        batches.sort_by(|a, b| a.at.total_cmp(&b.at));
        simulation.ends(&batches);
        simulation.crashes(&walk, length);
        simulation.settle(walk.sent);
        merge(&mut out, &simulation);
    }
    out
}

/// Simulates one service for so many seconds with ends at given times, at its mean rate: what a drill does.
pub fn run_schedule(service: &Service, length: f64, schedule: &[Scheduled], seed: Seed) -> Run {
    let mut simulation = Simulation::new(service, 0, seed, f64::INFINITY);
    let flat = simulation.flat(length);
    let batch = |end: &Scheduled| Batch {
        at: end.at,
        count: f64::from(end.count),
        others: f64::from(end.others),
        kind: end.kind,
        rate: service.traffic.rate,
    };
    let mut batches: Vec<Batch> = schedule.iter().map(batch).collect();
    batches.sort_by(|a, b| a.at.total_cmp(&b.at));
    simulation.ends(&batches);
    simulation.settle(flat);
    let mut out = Run::default();
    merge(&mut out, &simulation);
    out
}

fn merge(out: &mut Run, simulation: &Simulation<'_>) {
    let one = &simulation.out;
    out.sent += one.sent;
    out.answered += one.answered;
    out.scalings += one.scalings;
    for n in 0..CAUSES {
        out.lost[n] += one.lost[n];
        out.masked[n] += one.masked[n];
        out.expected[n] += one.expected[n];
    }
    for (sum, n) in out.ends.iter_mut().zip(one.ends) {
        *sum += n;
    }
    for (sum, n) in out.by_hour.iter_mut().zip(one.by_hour) {
        *sum += n;
    }
    out.by_service.push(one.expected.iter().sum());
}

/// A node that ends.
#[derive(Debug, Clone, Copy)]
struct NodeEnd {
    at: f64,
    kind: EndKind,
}

fn node_ends(fleet: &Fleet, length: f64, seed: Seed) -> Vec<NodeEnd> {
    let mut rng = seed.stream(usize::MAX, Stream::Nodes);
    let mut all = Vec::new();
    let kinds =
        [(EndKind::NodeRemoved, fleet.nodes.removed_a_day), (EndKind::NodeReclaimed, fleet.nodes.reclaimed_a_day)];
    for (kind, a_day) in kinds {
        for _ in 0..rng.poisson(a_day * length / DAY_S) {
            all.push(NodeEnd { at: rng.unit() * length, kind });
        }
    }
    all
}

/// The rate and the pods over time.
struct Walk {
    step: f64,
    rate: Vec<f64>,
    pods: Vec<f64>,
    sent: f64,
    scale_downs: Vec<Batch>,
}

impl Walk {
    fn at(&self, at: f64) -> (f64, f64) {
        let place = ((at / self.step) as usize).min(self.rate.len().saturating_sub(1));
        (self.rate.get(place).copied().unwrap_or(0.0), self.pods.get(place).copied().unwrap_or(1.0))
    }
}

/// One service in one run.
struct Simulation<'f> {
    service: &'f Service,
    place: usize,
    seed: Seed,
    /// How long before it is gone a node that is taken back says so.
    notice: f64,
    /// When this run's server closes an idle connection.
    idle: Option<f64>,
    /// The share of requests that meet the close, by the logarithm of the rate to a pool in steps of 1/32.
    races: HashMap<i64, f64>,
    /// What `masked` is on average.
    masked: f64,
    out: Run,
}

impl<'f> Simulation<'f> {
    fn new(service: &'f Service, place: usize, seed: Seed, notice: f64) -> Simulation<'f> {
        let mut facts = seed.stream(place, Stream::Facts);
        let idle = service.server.idle.map(|idle| idle.draw(&mut facts));
        Simulation { service, place, seed, notice, idle, races: HashMap::new(), masked: 0.0, out: Run::default() }
    }

    fn stream(&self, stream: Stream) -> Rng {
        self.seed.stream(self.place, stream)
    }

    /// Goes through the day: the rate by its curve and by chance, the pods after it, and the idle race all along.
    fn walk(&mut self, length: f64) -> Walk {
        let service = self.service;
        let traffic = &service.traffic;
        let step = if service.scaling.is_some() {
            SYNC_S
        } else if traffic.noise > 0.0 {
            60.0
        } else {
            300.0
        };
        let steps = (length / step).round() as usize;
        let mut walk = Walk {
            step,
            rate: Vec::with_capacity(steps),
            pods: Vec::with_capacity(steps),
            sent: 0.0,
            scale_downs: Vec::new(),
        };
        let mut noise = self.stream(Stream::Noise);
        let keep = (-step / traffic.noise_s.max(1e-9)).exp();
        let fresh = traffic.noise * (1.0 - keep * keep).sqrt();
        // The mean of a log-normal is above its median: taken off, so that the mean rate is what was said.
        let centre = -traffic.noise * traffic.noise / 2.0;
        let mut deviation = if traffic.noise > 0.0 { traffic.noise * noise.normal() } else { 0.0 };
        let mut autoscaler = service.scaling.as_ref().map(|scaling| Autoscaler::new(scaling, service));
        let mut pods = f64::from(service.replicas);
        let mut races = [0.0; 24];
        for n in 0..steps {
            let now = n as f64 * step;
            let mut rate = traffic.rate_at(now).max(0.0);
            if traffic.noise > 0.0 {
                deviation = deviation * keep + fresh * noise.normal();
                rate *= (deviation + centre).exp();
            }
            if let Some(autoscaler) = &mut autoscaler {
                let wanted = autoscaler.step(now, rate);
                // The first look sets the scene.
                if n > 0 && (wanted - pods).abs() > 0.5 {
                    self.out.scalings += 1;
                    if wanted < pods {
                        let count = pods - wanted;
                        walk.scale_downs.push(Batch { at: now, count, others: wanted, kind: EndKind::ScaleDown, rate });
                    } else {
                        self.not_ready(now, wanted - pods, rate / wanted);
                    }
                }
                pods = wanted;
            }
            walk.rate.push(rate);
            walk.pods.push(pods);
            walk.sent += rate * step;
            races[hour(now)] += rate * step * self.race(rate, pods);
        }
        self.enter_races(&races);
        walk
    }

    /// The same without a day: the mean rate for a while.
    fn flat(&mut self, length: f64) -> f64 {
        let rate = self.service.traffic.rate;
        let mut races = [0.0; 24];
        races[0] = rate * length * self.race(rate, f64::from(self.service.replicas));
        self.enter_races(&races);
        rate * length
    }

    fn enter_races(&mut self, races: &[f64; 24]) {
        let mut rng = self.stream(Stream::Races);
        for (hour, mean) in races.iter().enumerate() {
            let loss = Loss { cause: Cause::IdleCloseRace, failed: Failed::Reused, mean: *mean };
            self.enter(&mut rng, hour, &loss, 0.0);
        }
    }

    /// The share of requests that meet the server's idle close.
    fn race(&mut self, rate: f64, pods: f64) -> f64 {
        let Some(idle) = self.idle else { return 0.0 };
        let caller = &self.service.caller;
        let pools = match caller.pooling {
            Pooling::PerEndpointClosed | Pooling::PerEndpointLeft => caller.pools * pods,
            Pooling::PerService => caller.pools,
        };
        let to_pool = rate / pools.max(1e-9);
        if to_pool <= 0.0 {
            return 0.0;
        }
        let key = (to_pool.ln() * 32.0).round() as i64;
        let time = self.service.traffic.service_time.mean();
        *self.races.entry(key).or_insert_with(|| race_share(caller, idle, (key as f64 / 32.0).exp(), time))
    }

    /// Pods that are routed to before they serve.
    fn not_ready(&mut self, at: f64, count: f64, rate: f64) {
        if self.service.server.readiness_s.is_some() {
            return;
        }
        let mut rng = Rng::stream(&[self.seed.seed, self.seed.run, self.place as u64, at.to_bits()]);
        let mean = count * rate * self.service.server.startup.draw(&mut rng);
        let loss = Loss { cause: Cause::NotReadyYet, failed: Failed::Connecting, mean };
        self.enter(&mut rng, hour(at), &loss, 0.0);
    }

    fn rollouts(&mut self, walk: &Walk, length: f64, batches: &mut Vec<Batch>) {
        let events = &self.service.events;
        let mut rng = self.stream(Stream::Rollouts);
        for _ in 0..rng.poisson(events.rollouts_a_day * length / DAY_S) {
            let mut at = rng.unit() * length;
            let (_, pods) = walk.at(at);
            let size = (pods * events.batch).ceil().max(1.0);
            let mut left = pods;
            while left > 0.0 {
                let count = size.min(left);
                let (rate, _) = walk.at(at);
                self.not_ready(at, count, rate / (pods + count));
                // The replacements serve before the old ones are deleted.
                at += self.service.server.startup.draw(&mut rng);
                batches.push(Batch { at, count, others: pods, kind: EndKind::Rollout, rate });
                left -= count;
            }
        }
    }

    fn nodes(&mut self, fleet: &Fleet, walk: &Walk, ends: &[NodeEnd], batches: &mut Vec<Batch>) {
        let mut rng = self.stream(Stream::Nodes);
        let nodes = fleet.nodes.count.max(1.0);
        for end in ends {
            let (rate, pods) = walk.at(end.at);
            let count = whole(&mut rng, pods / nodes).min(pods);
            if count > 0.0 {
                batches.push(Batch { at: end.at, count, others: pods - count, kind: end.kind, rate });
            }
            if let Some(via) = self.service.routing.via_nodes {
                // Whatever goes through it, to pods of any node, is lost until nothing more is sent there.
                let time = via.detects.draw(&mut rng) + self.service.traffic.service_time.mean();
                let loss = Loss { cause: Cause::GoneAddress, failed: Failed::TimedOut, mean: rate / nodes * time };
                self.enter(&mut rng, hour(end.at), &loss, 0.0);
            }
        }
    }

    /// Goes through the ends of pods. Those whose times overlap are routed to at once, and share.
    fn ends(&mut self, batches: &[Batch]) {
        let mut rng = self.stream(Stream::Ends);
        let service = self.service;
        let routed = f64::midpoint(service.routing.lag.least, service.routing.lag.most);
        for (n, batch) in batches.iter().enumerate() {
            let before = batches[..n].iter().rev().take_while(|other| batch.at - other.at < routed);
            let after = batches[n + 1..].iter().take_while(|other| other.at - batch.at < routed);
            let share = |other: &Batch| other.count * (1.0 - (other.at - batch.at).abs() / routed);
            let leaving = batch.count + before.chain(after).map(share).sum::<f64>();
            let endpoints = batch.others + leaving;
            // The chance that whoever sends again meets another one that is leaving.
            let again = if endpoints > 1.0 { (leaving - 1.0).max(0.0) / (endpoints - 1.0) } else { 1.0 };
            self.out.ends[batch.kind as usize] += batch.count as u64;
            for loss in self.batch(&mut rng, batch, endpoints.max(1.0)) {
                self.enter(&mut rng, hour(batch.at), &loss, again);
            }
        }
    }

    /// Which requests need a new connection. Of a pool that belongs to the service a request takes a kept one where it can: what has
    /// idled for too long or is worn out is not there, nor what an end has closed.
    fn connects(&self, rate: f64, endpoints: f64) -> Connects {
        let caller = &self.service.caller;
        match caller.pooling {
            Pooling::PerEndpointClosed | Pooling::PerEndpointLeft => Connects::Each,
            Pooling::PerService => {
                let to_pool = rate / caller.pools.max(1.0);
                let idle = self.idle.unwrap_or(f64::INFINITY).min(caller.idle_s);
                let new = ((-to_pool * idle).exp() + worn(caller, idle, to_pool)).min(1.0);
                Connects::Some { churn: rate * new / endpoints, to_pool, endpoints }
            }
        }
    }

    /// The losses of pods that end together, each with times of its own.
    fn batch(&self, rng: &mut Rng, batch: &Batch, endpoints: f64) -> [Loss; 3] {
        let service = self.service;
        let rate = batch.rate / endpoints;
        let connects = self.connects(batch.rate, endpoints);
        let server = &service.server;
        let fixed = |range: Range| range.most - range.least < 1e-9;
        let alike = fixed(service.routing.lag) && fixed(server.pre_stop) && fixed(server.reaction);
        let (times, weight) = if alike { (1, batch.count) } else { (batch.count as usize, 1.0) };
        let mut sum: Option<[Loss; 3]> = None;
        for _ in 0..times.max(1) {
            let grace = match batch.kind {
                EndKind::NodeReclaimed => server.grace_s.min(self.notice),
                EndKind::ScaleDown | EndKind::Rollout | EndKind::NodeRemoved | EndKind::Restart | EndKind::Crash => {
                    server.grace_s
                }
            };
            let ending = Ending {
                rate,
                lag: service.routing.lag.draw(rng),
                signal: server.pre_stop.draw(rng) + server.reaction.draw(rng),
                grace,
                connects,
            };
            let mut one =
                ending::losses(&ending, server, &service.caller, &service.routing, &service.traffic.service_time);
            for loss in &mut one {
                loss.mean *= weight;
            }
            match &mut sum {
                None => sum = Some(one),
                Some(sum) => sum.iter_mut().zip(one).for_each(|(sum, one)| sum.mean += one.mean),
            }
        }
        sum.unwrap_or([Loss { cause: Cause::Unknown, failed: Failed::TimedOut, mean: 0.0 }; 3])
    }

    /// Containers that are ended by the clock, or by themselves.
    fn crashes(&mut self, walk: &Walk, length: f64) {
        let events = &self.service.events;
        let days = length / DAY_S;
        let mut rng = self.stream(Stream::Restarts);
        // The clock strikes at the same time every day, and containers that began together end together.
        let strikes = rng.unit() * DAY_S;
        let n = whole(&mut rng, f64::from(self.service.replicas) * events.restarts_a_day * days);
        for _ in 0..n as u64 {
            let day = rng.below(days as usize) as f64;
            let at = (day * DAY_S + strikes + rng.unit() * 1800.0) % length;
            self.crash(&mut rng, walk, at, EndKind::Restart);
        }
        let mut rng = self.stream(Stream::Crashes);
        for _ in 0..rng.poisson(f64::from(self.service.replicas) * events.crashes_a_day * days) {
            let at = rng.unit() * length;
            self.crash(&mut rng, walk, at, EndKind::Crash);
        }
    }

    fn crash(&mut self, rng: &mut Rng, walk: &Walk, at: f64, kind: EndKind) {
        let service = self.service;
        let (rate, pods) = walk.at(at);
        let startup = service.server.startup.draw(rng);
        self.out.ends[kind as usize] += 1;
        let (server, caller, time) = (&service.server, &service.caller, &service.traffic.service_time);
        for loss in ending::crash(rate / pods.max(1.0), startup, server, caller, time) {
            self.enter(rng, hour(at), &loss, 0.0);
        }
    }

    /// Enters losses: so many on average, of which the caller sends some again, which fail again with the chance `again`.
    fn enter(&mut self, rng: &mut Rng, hour: usize, loss: &Loss, again: f64) {
        if loss.mean <= 0.0 {
            return;
        }
        let resends = &self.service.caller.resends;
        let resent = match loss.failed {
            Failed::Connecting => resends.connect,
            Failed::Reused => resends.reused,
            // Where something of the answer had come nothing is sent again; how often that is, is not known.
            Failed::Answering => resends.reused.min(resends.fresh),
            Failed::TimedOut => 0.0,
        };
        let tries = i32::try_from(resends.limit).unwrap_or(i32::MAX);
        let saved = if tries > 0 { resent * (1.0 - again.powi(tries)) } else { 0.0 };
        let cause = loss.cause as usize;
        let for_good = loss.mean * (1.0 - saved);
        self.out.expected[cause] += for_good;
        self.out.by_hour[hour] += for_good;
        // A Poisson stream that is split by chance is two of them.
        self.masked += loss.mean * saved;
        self.out.lost[cause] += rng.poisson(for_good);
        self.out.masked[cause] += rng.poisson(loss.mean * saved);
    }

    /// What was neither lost nor masked was answered: the rest of the stream, drawn by itself.
    fn settle(&mut self, sent: f64) {
        let mut rng = self.stream(Stream::Answers);
        let lost = self.out.expected.iter().sum::<f64>();
        let masked: u64 = self.out.masked.iter().sum();
        self.out.answered = rng.poisson((sent - lost - self.masked).max(0.0)) + masked;
        self.out.sent = self.out.answered + self.out.total();
    }
}

/// The share of a pool's requests that meet the server's idle close.
pub(crate) fn race_share(caller: &Caller, idle: f64, rate: f64, time: f64) -> f64 {
    // A request that is sent `window` or less before the close meets it; the caller sends on nothing older than its own timeout.
    let window = (idle.min(caller.idle_s) - (idle - caller.window_s).max(0.0)).clamp(0.0, caller.window_s);
    if window <= 0.0 || idle <= 0.0 {
        return 0.0;
    }
    idle_density(rate, time, idle - window / 2.0) * window * (1.0 - worn(caller, idle, rate))
}

/// The share of answers after which a connection is given up for its number of requests or its age, so that it is not there to be
/// closed. It is one of `most` where connections live that long; most that idle often are closed for that before.
fn worn(caller: &Caller, idle: f64, rate: f64) -> f64 {
    let by_age = caller.max_age_s.map_or(f64::INFINITY, |oldest| (rate * oldest).max(1.0));
    let most = caller.max_requests.map_or(by_age, |most| f64::from(most.max(1)).min(by_age));
    if most.is_infinite() {
        return 0.0;
    }
    let goes_on = 1.0 - (-rate * idle).exp();
    if goes_on > 1.0 - 1e-9 {
        1.0 / most
    } else {
        goes_on.powf(most - 1.0) * (1.0 - goes_on) / (1.0 - goes_on.powf(most))
    }
}

fn hour(at: f64) -> usize {
    ((at / 3600.0) as usize) % 24
}

/// A whole number with this mean.
fn whole(rng: &mut Rng, mean: f64) -> f64 {
    mean.floor() + f64::from(u8::from(rng.unit() < mean.fract()))
}

/// The autoscaler of one service.
struct Autoscaler<'f> {
    scaling: &'f Scaling,
    target: f64,
    pods: f64,
    /// Recommendations not yet older than the stabilization window.
    recent: std::collections::VecDeque<(f64, f64)>,
    /// What went down, and when.
    removed: std::collections::VecDeque<(f64, f64)>,
    begun: bool,
}

impl<'f> Autoscaler<'f> {
    fn new(scaling: &'f Scaling, service: &Service) -> Autoscaler<'f> {
        let pods = f64::from(service.replicas.max(1));
        let target = service.traffic.rate / pods;
        Autoscaler { scaling, target, pods, recent: [].into(), removed: [].into(), begun: false }
    }

    /// The number of pods from now on.
    fn step(&mut self, now: f64, rate: f64) -> f64 {
        let least = f64::from(self.scaling.least.max(1));
        if !self.begun {
            self.begun = true;
            self.pods = (rate / self.target).ceil().max(least);
            return self.pods;
        }
        let ratio = rate / (self.pods * self.target);
        let wanted = if (ratio - 1.0).abs() <= TOLERANCE { self.pods } else { (self.pods * ratio).ceil().max(least) };
        while self.recent.front().is_some_and(|(at, _)| now - at > self.scaling.stabilization_s) {
            self.recent.pop_front();
        }
        self.recent.push_back((now, wanted));
        let highest = self.recent.iter().map(|(_, pods)| *pods).fold(wanted, f64::max);
        if wanted > self.pods {
            // Scale-up is at once; the default policy doubles in 15 s.
            self.pods = wanted.min((self.pods * 2.0).max(self.pods + 4.0));
        } else if highest < self.pods {
            let next = highest.max(self.floor(now)).max(least).min(self.pods);
            self.removed.push_back((now, self.pods - next));
            self.pods = next;
        }
        self.pods
    }

    /// The lowest that the policies allow now.
    fn floor(&mut self, now: f64) -> f64 {
        let pods = self.pods;
        let longest = self.scaling.policies.iter().map(|policy| policy.period_s).fold(0.0, f64::max);
        while self.removed.front().is_some_and(|(at, _)| now - at > longest) {
            self.removed.pop_front();
        }
        if self.scaling.policies.is_empty() {
            return 0.0;
        }
        let floor = |policy: &crate::fleet::Policy| {
            let within = self.removed.iter().filter(|(at, _)| now - at <= policy.period_s);
            let before = pods + within.map(|(_, count)| count).sum::<f64>();
            match policy.amount {
                Amount::Share(share) => before * (1.0 - share),
                Amount::Pods(count) => before - count,
            }
        };
        self.scaling.policies.iter().map(floor).fold(f64::INFINITY, f64::min).max(0.0).ceil()
    }
}
