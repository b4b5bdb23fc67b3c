//! The engine against closed forms, against the same model one request at a time, and against itself.

use std::time::Duration;

use lameduck_core::{Cause, law};
use lameduck_simulate::engine::{self, EndKind, Scheduled, Seed};
use lameduck_simulate::fleet::{
    Amount, Caller, Events, Fleet, Nodes, Policy, Pooling, Range, Resends, Routing, Scaling, Server, Service, Stop,
    Traffic, ViaNodes,
};
use lameduck_simulate::rng::Rng;
use lameduck_simulate::service_time::ServiceTime;
use lameduck_simulate::{Fix, Options, estimate, exact, fixed};
use proptest::prelude::*;

fn service() -> Service {
    Service {
        name: "service".into(),
        replicas: 4,
        scaling: None,
        traffic: Traffic {
            rate: 400.0,
            swing: 0.0,
            peak_hour: 14.0,
            noise: 0.0,
            noise_s: 600.0,
            service_time: ServiceTime::Exponential { mean: 0.05 },
        },
        caller: Caller {
            name: "balancer".into(),
            idle_s: 600.0,
            max_requests: None,
            max_age_s: None,
            pooling: Pooling::PerEndpointClosed,
            pools: 2.0,
            window_s: 0.02,
            resends: Resends::default(),
        },
        server: Server {
            name: "server".into(),
            idle: None,
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

fn fleet(services: Vec<Service>) -> Fleet {
    let nodes = Nodes { count: 10.0, removed_a_day: 0.0, reclaimed_a_day: 0.0, notice_s: 30.0 };
    Fleet { services, nodes }
}

/// Five standard deviations of what is counted about its mean; a count of nothing is exact.
fn agrees(what: &str, counted: f64, mean: f64) {
    assert!((counted - mean).abs() <= 5.0 * mean.sqrt() + 1e-6, "{what}: counted {counted}, by the law {mean}");
}

/// Single requests and the engine on the same plan: every cause within five standard deviations.
fn single_requests_agree(what: &str, service: &Service, length: f64, schedule: &[Scheduled], rounds: u64) {
    let mut counted = [0.0; engine::CAUSES];
    let mut expected = [0.0; engine::CAUSES];
    for round in 0..rounds {
        let counts = exact::run(service, length, schedule, &mut Rng::stream(&[round, 99]));
        assert_eq!(counts.sent, counts.answered + counts.lost.iter().sum::<u64>(), "{what}: the books");
        let run = engine::run_schedule(service, length, schedule, Seed { seed: 1, run: round });
        for n in 0..engine::CAUSES {
            counted[n] += counts.lost[n] as f64;
            expected[n] += run.expected[n];
        }
    }
    for (n, cause) in Cause::ALL.into_iter().enumerate() {
        agrees(&format!("{what}, {cause}"), counted[n], expected[n]);
    }
    assert!(expected.iter().sum::<f64>() > 20.0, "{what}: too little is lost to tell: {expected:?}");
}

fn term(at: f64) -> Scheduled {
    Scheduled { at, count: 1, others: 4, kind: EndKind::ScaleDown }
}

#[test]
fn ends_are_those_of_single_requests() {
    let check = |what: &str, change: fn(&mut Service)| {
        let mut service = service();
        change(&mut service);
        single_requests_agree(what, &service, 60.0, &[term(10.0)], 8);
    };
    check("drains at once", |_| {});
    check("dies", |service| service.server.stop = Stop::Dies);
    check("dies after a sleep", |service| {
        service.server.stop = Stop::Dies;
        service.server.pre_stop = Range::exactly(1.0);
        service.traffic.service_time = ServiceTime::Exponential { mean: 0.3 };
    });
    check("killed at the end of a short grace", |service| {
        service.server.grace_s = 2.0;
        service.traffic.service_time = ServiceTime::Exponential { mean: 1.5 };
    });
    check("its own limit", |service| {
        service.server.finish_s = Some(0.5);
        service.traffic.service_time = ServiceTime::by_percentiles(0.2, 5.0);
    });
    check("nobody tells it", |service| {
        service.server.stop = Stop::Stays { delivered: false };
        service.server.grace_s = 2.0;
    });
    check("killed while routing goes on", |service| {
        service.server.stop = Stop::Stays { delivered: false };
        service.server.grace_s = 5.0;
        service.routing.lag = Range::exactly(6.0);
    });
    check("a client of the service chooses among endpoints only for a new connection", |service| {
        service.caller.pooling = Pooling::PerService;
        service.caller.pools = 400.0;
        service.routing.lag = Range::exactly(6.0);
        service.traffic.service_time = ServiceTime::Exponential { mean: 0.01 };
    });
    check("a client of the service, whose connections often idle for too long", |service| {
        service.caller.pooling = Pooling::PerService;
        service.caller.pools = 400.0;
        service.caller.idle_s = 0.7;
        service.caller.max_requests = Some(5);
        service.routing.lag = Range::exactly(6.0);
        service.traffic.service_time = ServiceTime::Exponential { mean: 0.01 };
    });
    check("a sleep longer than the grace period", |service| {
        service.server.pre_stop = Range::exactly(10.0);
        service.server.grace_s = 1.0;
    });
}

/// Each side draws its own lags: 80/s to the pod, uniform over 3 s, over all rounds of both.
#[test]
fn lags_that_differ_are_those_of_single_requests() {
    let mut service = service();
    service.routing.lag = Range::between(1.0, 4.0);
    let (rounds, refused) = (40, Cause::RefusedWhileRouted as usize);
    let (mut counted, mut expected) = (0.0, 0.0);
    for round in 0..rounds {
        counted += exact::run(&service, 20.0, &[term(10.0)], &mut Rng::stream(&[round, 98])).lost[refused] as f64;
        expected += engine::run_schedule(&service, 20.0, &[term(10.0)], Seed { seed: 1, run: round }).expected[refused];
    }
    let spread = 80.0 * 3.0 / 12.0f64.sqrt();
    let deviation = (expected + 2.0 * rounds as f64 * spread * spread).sqrt();
    assert!((counted - expected).abs() < 5.0 * deviation, "{counted} {expected} +- {deviation}");
}

#[test]
fn several_that_end_at_once_share_what_comes() {
    let service = service();
    let schedule = [Scheduled { count: 3, ..term(10.0) }];
    single_requests_agree("three at once", &service, 60.0, &schedule, 8);
}

#[test]
fn the_idle_race_is_that_of_single_requests() {
    let check = |what: &str, length: f64, change: fn(&mut Service)| {
        let mut service = service();
        service.server.idle = Some(Range::exactly(1.0));
        change(&mut service);
        single_requests_agree(what, &service, length, &[], 1);
    };
    // λ at which it is worst, one connection a pool.
    check("sparse", 40_000.0, |service| {
        service.traffic.rate = 8.0;
        service.traffic.service_time = ServiceTime::Exponential { mean: 0.005 };
    });
    // Several requests in flight in each pool: deeper connections are used rarely, and race.
    check("dense, a pool an endpoint", 4_000.0, |service| {
        service.traffic.rate = 80.0;
        service.traffic.service_time = ServiceTime::Exponential { mean: 0.1 };
    });
    check("a client of the service", 8_000.0, |service| {
        service.traffic.rate = 20.0;
        service.caller.pooling = Pooling::PerService;
        service.traffic.service_time = ServiceTime::Exponential { mean: 0.05 };
    });
    check("connections that wear out", 20_000.0, |service| {
        service.traffic.rate = 16.0;
        service.traffic.service_time = ServiceTime::Exponential { mean: 0.005 };
        service.caller.max_requests = Some(5);
    });
}

#[test]
fn no_race_where_the_caller_gives_up_first() {
    let mut service = service();
    service.server.idle = Some(Range::exactly(1.0));
    service.caller.idle_s = 0.9;
    let run = engine::run_schedule(&service, 1000.0, &[], Seed { seed: 1, run: 0 });
    assert_eq!(run.total(), 0);
    let counts = exact::run(&service, 1000.0, &[], &mut Rng::stream(&[1]));
    assert_eq!(counts.lost, [0; engine::CAUSES]);
}

/// A day of one connection a pod whose answers take no time: λ·w·exp(-λT) of all requests.
#[test]
fn a_day_of_races_is_the_closed_form() {
    let mut service = service();
    service.replicas = 10;
    service.traffic.rate = 0.2 * 10.0;
    service.traffic.service_time = ServiceTime::Fixed { mean: 0.0 };
    service.caller.pools = 1.0;
    service.caller.window_s = 0.01;
    service.server.idle = Some(Range::exactly(5.0));
    let run = engine::run(&fleet(vec![service]), 1, Seed { seed: 3, run: 0 });
    let each = law::idle_race_per_request(0.2, Duration::from_millis(10), Duration::from_secs(5));
    let closed = each * 2.0 * 86_400.0;
    let expected = run.expected[Cause::IdleCloseRace as usize];
    // The law is taken at the middle of the window, and λ from a grid of 1/32 in its logarithm.
    assert!((expected / closed - 1.0).abs() < 0.03, "{expected} {closed}");
    agrees("drawn", run.lost[Cause::IdleCloseRace as usize] as f64, expected);
}

/// rate * max(0, propagation - serving), for each pod of each rollout.
#[test]
fn a_day_of_rollouts_is_the_closed_form() {
    let mut service = service();
    service.events.rollouts_a_day = 20.0;
    service.server.startup = Range::exactly(60.0);
    service.caller.window_s = 0.0;
    let run = engine::run(&fleet(vec![service]), 1, Seed { seed: 4, run: 0 });
    let ends = run.ends[EndKind::Rollout as usize];
    assert!(ends > 0 && ends.is_multiple_of(4), "{ends}");
    // Four stay beside the one that leaves: 400/s by five. Rollouts that overlap share, which takes a little away.
    let closed = law::refused_per_termination(80.0, Duration::from_secs(3), Duration::ZERO) * ends as f64;
    let refused = run.expected[Cause::RefusedWhileRouted as usize];
    assert!(refused <= closed * 1.000_001 && refused > closed * 0.95, "{refused} {closed}");
}

#[test]
fn reclaimed_nodes_give_no_longer_grace_than_their_notice() {
    let mut service = service();
    service.server.grace_s = 300.0;
    service.server.pre_stop = Range::exactly(40.0);
    service.traffic.service_time = ServiceTime::Fixed { mean: 0.1 };
    service.caller.pooling = Pooling::PerService;
    let mut fleet = fleet(vec![service]);
    fleet.nodes.count = 4.0;
    fleet.nodes.reclaimed_a_day = 20.0;
    let run = engine::run(&fleet, 1, Seed { seed: 5, run: 0 });
    let ends = run.ends[EndKind::NodeReclaimed as usize] as f64;
    // 100/s to each pod, of which three stay: in flight for 0.1 s when SIGKILL comes at 30 s.
    let killed = run.expected[Cause::KilledAtDeadline as usize];
    assert!(ends > 0.0 && (killed - ends * 10.0).abs() < 1e-6, "{ends} {killed}");
}

#[test]
fn a_crash_costs_what_is_in_flight_and_the_time_until_it_is_back() {
    let mut service = service();
    service.events.restarts_a_day = 1.0;
    service.caller.window_s = 0.0;
    let run = engine::run(&fleet(vec![service]), 1, Seed { seed: 6, run: 0 });
    // 100/s to each of four pods: 1 s until it is back, 50 ms in flight.
    let expected = run.expected[Cause::CrashRestart as usize];
    assert!((expected - 4.0 * (100.0 + 5.0)).abs() < 1e-6, "{expected}");
}

#[test]
fn a_node_that_goes_unseen_takes_its_share() {
    let mut service = service();
    service.caller.pooling = Pooling::PerService;
    service.routing.via_nodes = Some(ViaNodes { detects: Range::exactly(10.0), direct_lag: Range::exactly(3.0) });
    let mut fleet = fleet(vec![service]);
    fleet.nodes.removed_a_day = 20.0;
    let with = engine::run(&fleet, 1, Seed { seed: 7, run: 0 });
    let gone = with.expected[Cause::GoneAddress as usize];
    // 400/s over ten nodes, for 10 s and what was in flight for 50 ms: 402 each.
    assert!(gone > 0.0 && (gone / 402.0).fract().min(1.0 - (gone / 402.0).fract()) < 1e-6, "{gone}");
    let without = engine::run(&fixed(&fleet, &[Fix::ContainerNative]), 1, Seed { seed: 7, run: 0 });
    assert_eq!(without.lost[Cause::GoneAddress as usize], 0);
}

/// Scaling follows the curve, and not faster than its policy lets it.
#[test]
fn scale_downs_keep_to_their_policy() {
    let mut service = service();
    service.replicas = 100;
    service.traffic.swing = 0.8;
    let policy = Policy { amount: Amount::Share(0.05), period_s: 60.0 };
    service.scaling = Some(Scaling { least: 2, stabilization_s: 300.0, policies: vec![policy] });
    let run = engine::run(&fleet(vec![service.clone()]), 1, Seed { seed: 8, run: 0 });
    let ends = run.ends[EndKind::ScaleDown as usize];
    // From the peak at 180 to the trough at 20, once a day, within the tolerance of a tenth at both ends.
    assert!((130..=200).contains(&ends), "{ends}");
    let never = Policy { amount: Amount::Pods(0.0), period_s: 60.0 };
    service.scaling = Some(Scaling { least: 2, stabilization_s: 300.0, policies: vec![never] });
    let run = engine::run(&fleet(vec![service]), 1, Seed { seed: 8, run: 0 });
    assert_eq!(run.ends[EndKind::ScaleDown as usize], 0);
}

#[test]
fn what_the_caller_sends_again_is_masked_and_not_lost() {
    let mut service = service();
    service.events.rollouts_a_day = 10.0;
    service.caller.resends = Resends { connect: 0.75, reused: 0.0, fresh: 0.0, limit: 1 };
    service.server.startup = Range::exactly(60.0);
    let run = engine::run(&fleet(vec![service.clone()]), 1, Seed { seed: 9, run: 0 });
    service.caller.resends = Resends::default();
    let raw = engine::run(&fleet(vec![service]), 1, Seed { seed: 9, run: 0 });
    let refused = Cause::RefusedWhileRouted as usize;
    let all = raw.expected[refused];
    assert!((run.expected[refused] - all * 0.25).abs() < all * 0.01, "{} {all}", run.expected[refused]);
    agrees("masked", run.masked[refused] as f64, all * 0.75);
}

#[test]
fn the_same_seed_gives_the_same_day_and_another_another() {
    let mut service = service();
    service.events.rollouts_a_day = 5.0;
    service.events.crashes_a_day = 1.0;
    service.traffic.noise = 0.2;
    service.server.idle = Some(Range::between(1.0, 2.0));
    let fleet = fleet(vec![service.clone(), service]);
    let run = |seed| engine::run(&fleet, 1, Seed { seed, run: 0 });
    assert_eq!(run(1), run(1));
    assert_ne!(run(1).lost, run(2).lost);
    // What one service goes through does not hang on another.
    let alone = Fleet { services: vec![fleet.services[0].clone()], nodes: fleet.nodes };
    let first = engine::run(&alone, 1, Seed { seed: 1, run: 0 }).by_service[0];
    assert!((first - run(1).by_service[0]).abs() < 1e-9);
}

/// Of 90 % intervals that are made of runs, further runs lie in 90 of 100: within five standard deviations of that.
#[test]
fn the_interval_holds_nine_of_ten_days() {
    let mut service = service();
    service.events.rollouts_a_day = 3.0;
    let fleet = fleet(vec![service]);
    let interval = estimate(&fleet, Options { days: 1, seed: 1, runs: 1000 }).lost;
    let others = (0..1000u64).map(|run| engine::run(&fleet, 1, Seed { seed: 2, run }).total() as f64);
    let within = others.filter(|lost| (interval.low..=interval.high).contains(lost)).count();
    // Both the interval and the count are of 1000 days: sqrt(2 * 1000 * 0.9 * 0.1) = 13.4.
    assert!((833..=967).contains(&within), "{within}: {interval:?}");
}

fn stop() -> impl Strategy<Value = Stop> {
    prop_oneof![
        Just(Stop::Drains),
        Just(Stop::Dies),
        any::<bool>().prop_map(|delivered| Stop::Stays { delivered }),
        (0.0f64..5.0, 0.1f64..1.0).prop_map(|(quiet_s, share)| Stop::Measured { quiet_s, share }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Whatever the fleet: the books balance, and no fix adds to what is lost by itself (but `pre-stop`, `grace` and `run`,
    /// which make pods live on, and clients of the service go on using them).
    #[test]
    fn the_books_balance(
        stop in stop(), rate in 1.0f64..5000.0, replicas in 1u32..50, pre_stop in 0.0f64..60.0, grace in 1.0f64..90.0,
        idle in 0.0f64..700.0, rollouts in 0.0f64..5.0, crashes in 0.0f64..2.0, swing in 0.0f64..1.0, seed in 0u64..1000,
        readiness in prop::option::of(1.0f64..30.0), resends in 0.0f64..1.0,
    ) {
        let mut service = service();
        service.replicas = replicas;
        service.traffic.rate = rate;
        service.traffic.swing = swing;
        service.server.stop = stop;
        service.server.pre_stop = Range::between(pre_stop / 2.0, pre_stop);
        service.server.grace_s = grace;
        service.server.idle = Some(Range::exactly(idle));
        service.server.readiness_s = readiness;
        service.events.rollouts_a_day = rollouts;
        service.events.crashes_a_day = crashes;
        service.caller.resends = Resends { connect: resends, reused: resends, fresh: resends, limit: 1 };
        let fleet = fleet(vec![service]);
        let run = engine::run(&fleet, 1, Seed { seed, run: 0 });
        prop_assert_eq!(run.sent, run.answered + run.total());
        prop_assert!(run.expected.iter().all(|mean| mean.is_finite() && *mean >= 0.0), "{:?}", run.expected);
        prop_assert!((run.expected.iter().sum::<f64>() - run.by_hour.iter().sum::<f64>()).abs() < 1e-6 * (1.0 + run.sent as f64));
        for fix in [Fix::KeepAliveOrder, Fix::Restarts, Fix::Readiness] {
            let after = engine::run(&fixed(&fleet, &[fix]), 1, Seed { seed, run: 0 });
            let (before, after) = (run.expected.iter().sum::<f64>(), after.expected.iter().sum::<f64>());
            prop_assert!(after <= before * 1.000_001 + 1e-9, "{}: {before} {after}", fix.id());
        }
    }
}
