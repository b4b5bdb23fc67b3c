//! From what was seen to the result: every attempt judged by the one law, every request in the books once.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::time::Duration;

use lameduck_core::judge::{Connection, Ending};
use lameduck_core::timeline::{Moment, Provenance};
use lameduck_core::{Cause, Ledger, Outcome, ServerSide, Tally, Verdict, judge};

use crate::behind;
use crate::evidence::LogKind;
use crate::plan::Plan;
use crate::record::Record;
use crate::replica::{Life, Reaction};
use crate::result::{
    DrillResult, DrillVerdict, EndingId, EventReport, Latency, Loss, Mark, PlanReport, ReplicaReport, Retried,
    RoundReport, SCHEMA, Spread, loss_rate, percentile,
};
use crate::run::Observation;

/// Sums up one or more runs of a plan.
pub(crate) fn settle(plan: &Plan, command: &[OsString], observations: Vec<Observation>) -> DrillResult {
    let mut result = empty(plan, command);
    let mut ledger = Ledger::default();
    for (n, observation) in observations.into_iter().enumerate() {
        settle_round(plan, n + 1, observation, &mut ledger, &mut result);
    }
    result.tally = ledger.tally();
    sum_up(&mut result);
    result
}

/// What follows from the books as they are.
pub(crate) fn sum_up(result: &mut DrillResult) {
    result.loss_rate = loss_rate(&result.tally);
    let mut latencies: Vec<f64> = result.marks.iter().map(|mark| mark.latency_s).collect();
    latencies.sort_unstable_by(f64::total_cmp);
    let at = |share| percentile(&latencies, share);
    result.latency_s = Latency { p50: at(0.5), p90: at(0.9), p99: at(0.99), max: at(1.0) };
    let mut stops = result.term_to_exit_s.all.clone();
    stops.sort_unstable_by(f64::total_cmp);
    result.term_to_exit_s.p50 = percentile(&stops, 0.5);
    result.term_to_exit_s.max = stops.last().copied();
    (result.verdict, result.because) = verdict(result);
    assert!(result.balances(), "the books of a drill balance: {:?}", result.tally);
}

fn empty(plan: &Plan, command: &[OsString]) -> DrillResult {
    DrillResult {
        schema: SCHEMA.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        verdict: DrillVerdict::Inconclusive,
        because: String::new(),
        tally: Tally::default(),
        kinds: BTreeMap::new(),
        lost_after_retries: 0,
        retries: 0,
        scheduled: 0,
        unrouted: 0,
        dropped: 0,
        own_fault: None,
        noticed_closes: 0,
        min_sample: plan.min_sample,
        loss_rate: loss_rate(&Tally::default()),
        term_to_exit_s: Spread::default(),
        latency_s: Latency::default(),
        server_log: LogKind::None,
        plan: PlanReport::of(plan, command),
        rounds: Vec::new(),
        workers: Vec::new(),
        events: Vec::new(),
        replicas: Vec::new(),
        losses: Vec::new(),
        unknowns: Vec::new(),
        marks: Vec::new(),
    }
}

/// Microseconds are what the clock is good for; more digits would be noise in the JSON.
fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e6
}

/// Seconds from `origin` to `at`, which may lie before it.
fn signed(at: Duration, origin: Duration) -> f64 {
    if at >= origin { seconds(at.saturating_sub(origin)) } else { -seconds(origin.saturating_sub(at)) }
}

fn settle_round(plan: &Plan, round: usize, mut seen: Observation, ledger: &mut Ledger, result: &mut DrillResult) {
    let verdicts = verdicts(plan, &mut seen);
    let retried = last_attempts(&seen.records, &verdicts);
    let mut tallies = vec![Tally::default(); seen.lives.len()];
    for (record, (verdict, saw)) in seen.records.iter().zip(&verdicts) {
        if record.id.1 > 0 {
            result.retries += 1;
            continue;
        }
        let entry = ledger.open();
        // A request just opened has no outcome yet, so this cannot be refused.
        let entered = ledger.settle(entry, verdict.outcome);
        debug_assert_eq!(entered, Ok(()));
        tallies[record.replica].add(verdict.outcome);
        result.kinds.entry(plan.mix[record.template].kind.name().to_owned()).or_default().add(verdict.outcome);
        let retried = retried.get(&record.id.0).copied();
        match verdict.outcome {
            Outcome::Answered { .. } => result.marks.push(Mark {
                round,
                replica: record.replica,
                at_s: seconds(record.attempt.began),
                latency_s: seconds(record.attempt.ended.saturating_sub(record.intended)),
            }),
            Outcome::Lost { cause } => {
                result.lost_after_retries += u64::from(retried != Some(Retried::Answered));
                result.losses.push(loss(plan, round, record, (cause, verdict.grounds), *saw, retried, &seen));
            }
            Outcome::Unknown => {
                result.unknowns.push(loss(
                    plan,
                    round,
                    record,
                    (Cause::Unknown, verdict.grounds),
                    *saw,
                    retried,
                    &seen,
                ));
            }
        }
    }
    note_routing(&mut seen);
    result.scheduled += seen.book.scheduled;
    result.unrouted += seen.book.unrouted;
    result.dropped += seen.book.dropped;
    result.noticed_closes += seen.book.noticed_closes;
    result.own_fault = result.own_fault.take().or(seen.book.own_fault);
    result.server_log = if round == 1 { seen.log_kind } else { LogKind::weaker(result.server_log, seen.log_kind) };
    result.rounds.push(RoundReport {
        round,
        origin_s: seconds(seen.origin),
        load_began_s: seconds(seen.load_began),
        ended_s: seconds(seen.ended),
        client_cpu_s: seen.client_cpu.map(seconds),
    });
    result.events.extend(seen.events.into_iter().map(|(at, event)| EventReport { round, at_s: seconds(at), event }));
    for (replica, tally) in seen.lives.into_iter().zip(tallies) {
        let life = replica.life;
        if let (Some(term), Some(exit)) = (life.at(Moment::TermReceived), life.at(Moment::Exited)) {
            result.term_to_exit_s.all.push(seconds(exit.saturating_sub(term)));
        }
        result.replicas.push(ReplicaReport {
            name: replica.name,
            round,
            port: replica.port,
            reacted: reacted(&life),
            exit: life.status.map(|status| status.to_string()),
            timeline: life.timeline,
            tally,
        });
    }
}

/// Each attempt before the law. Behind a proxy it is told here which replica it went to; where that is not known it stands in
/// the first one's books.
fn verdicts(plan: &Plan, seen: &mut Observation) -> Vec<(Verdict, Option<bool>)> {
    let Some(via) = plan.via else { return seen.records.iter().map(|record| judged(record, seen)).collect() };
    let mut records = std::mem::take(&mut seen.records);
    let judge = |record: &mut Record| {
        let found = behind::judged(record, via, seen);
        record.replica = found.replica.unwrap_or(0);
        (found.verdict, found.saw)
    };
    let verdicts = records.iter_mut().map(judge).collect();
    seen.records = records;
    verdicts
}

/// One attempt before the law, with what its server is known to have done.
fn judged(record: &Record, seen: &Observation) -> (Verdict, Option<bool>) {
    let life = &seen.lives[record.replica].life;
    let saw = match (record.echoed || seen.log.saw(record.id).is_some(), seen.log_kind) {
        (true, _) => Some(true),
        (false, LogKind::EveryArrival) => Some(false),
        (false, LogKind::None | LogKind::Some) => None,
    };
    // What was seen late happened earlier, the end of a connection as well as the exit that explains it; but what was seen after the
    // drill's own SIGKILL not before that.
    let killed = life.at(Moment::Killed);
    let earliest = |at| seen.stalls.earliest_after(killed, at);
    let server = ServerSide {
        neighbour_refused: seen.log.neighbour_refused(record.id),
        exited: life.at(Moment::Exited).map(earliest),
        ..server_side(life, saw)
    };
    let mut attempt = record.attempt;
    if matches!(attempt.ending, Ending::Fin | Ending::Rst) {
        attempt.ended = earliest(attempt.ended).max(attempt.began);
    }
    (judge(&attempt, &server), saw)
}

/// What is known of a replica.
pub(crate) fn server_side(life: &Life, saw: Option<bool>) -> ServerSide {
    ServerSide {
        ready: life.at(Moment::Ready),
        stop_requested: life.at(Moment::TermReceived).map(|heard| heard.saturating_sub(life.told_late)),
        reacted: reacted(life),
        killed: life.at(Moment::Killed),
        exited: life.at(Moment::Exited),
        part_ended: life.part_ended,
        saw_request: saw,
        neighbour_refused: None,
    }
}

/// Whether the stop signal had an effect before SIGKILL.
fn reacted(life: &Life) -> Option<bool> {
    life.at(Moment::TermReceived)?;
    let exited_by_itself = life.at(Moment::Exited).is_some() && life.at(Moment::Killed).is_none();
    match life.reaction {
        Reaction::Certain => Some(true),
        Reaction::None | Reaction::Perhaps if exited_by_itself => Some(true),
        Reaction::None if life.at(Moment::Killed).is_some() && life.listener_watched => Some(false),
        Reaction::None | Reaction::Perhaps => None,
    }
}

/// What became of each request that was sent again.
fn last_attempts(records: &[Record], verdicts: &[(Verdict, Option<bool>)]) -> HashMap<u64, Retried> {
    let mut last: HashMap<u64, (u32, Retried)> = HashMap::new();
    for (record, (verdict, _)) in records.iter().zip(verdicts).filter(|(record, _)| record.id.1 > 0) {
        let outcome = match verdict.outcome {
            Outcome::Answered { .. } => Retried::Answered,
            Outcome::Lost { .. } | Outcome::Unknown => Retried::Lost,
        };
        let (number, retry) = record.id;
        let entry = last.entry(number).or_insert((retry, outcome));
        if retry >= entry.0 {
            *entry = (retry, outcome);
        }
    }
    last.into_iter().map(|(number, (_, outcome))| (number, outcome)).collect()
}

fn loss(
    plan: &Plan,
    round: usize,
    record: &Record,
    (cause, grounds): (Cause, &str),
    server_saw: Option<bool>,
    retried: Option<Retried>,
    seen: &Observation,
) -> Loss {
    let template = &plan.mix[record.template];
    let replica = &seen.lives[record.replica];
    let attempt = &record.attempt;
    let (idle_s, requests_before) = match attempt.connection {
        Connection::Reused { idle, requests_before } => (Some(seconds(idle)), requests_before),
        Connection::Shared { requests_before } => (Some(0.0), requests_before),
        Connection::Refused | Connection::TimedOut | Connection::Fresh => (None, 0),
    };
    let ending = match (attempt.ending, attempt.connection) {
        (Ending::Rst, Connection::Refused) => EndingId::Refused,
        (Ending::TimedOut, Connection::TimedOut) => EndingId::ConnectTimedOut,
        (Ending::Complete { .. }, _) => EndingId::Complete,
        (Ending::Fin, _) => EndingId::Fin,
        (Ending::Rst, _) => EndingId::Rst,
        (Ending::TimedOut, _) => EndingId::TimedOut,
        (Ending::NotProcessed, _) => EndingId::NotProcessed,
        (Ending::Aborted, _) => EndingId::Aborted,
        (Ending::Malformed, _) => EndingId::Malformed,
        (Ending::Pending, _) => EndingId::Pending,
    };
    Loss {
        id: seen.log.id(record.id),
        round,
        kind: template.kind.name().to_owned(),
        method: template.method.clone(),
        path: template.path.clone(),
        cause,
        grounds: grounds.to_owned(),
        at_s: seconds(attempt.ended),
        intended_s: seconds(record.intended),
        sent_s: seconds(attempt.began),
        since_term_s: replica.life.at(Moment::TermReceived).map(|term| signed(attempt.ended, term)),
        replica: replica.name.clone(),
        connection: record.connection,
        reused: idle_s.is_some(),
        requests_before,
        idle_s,
        bytes_out: record.bytes_out,
        bytes_in: attempt.bytes_in,
        ending,
        closed_by: record.closed_by,
        status: record.status,
        server_saw,
        retried,
    }
}

/// Adds the last new connection and the last request to the lanes of each replica that routing left.
fn note_routing(seen: &mut Observation) {
    for (n, replica) in seen.lives.iter_mut().enumerate() {
        let life = &mut replica.life;
        if life.at(Moment::TermReceived).is_none() {
            continue;
        }
        let of_it = || seen.records.iter().filter(|record| record.replica == n).map(|record| &record.attempt);
        let fresh = |attempt: &&lameduck_core::Attempt| {
            !matches!(attempt.connection, Connection::Reused { .. } | Connection::Shared { .. })
        };
        if let Some(last) = of_it().filter(fresh).map(|attempt| attempt.began).max() {
            life.timeline.record(last, Moment::LastNewConnection, Provenance::Observed);
        }
        if let Some(last) = of_it().map(|attempt| attempt.began).max() {
            life.timeline.record(last, Moment::LastRequest, Provenance::Observed);
        }
    }
}

fn verdict(result: &DrillResult) -> (DrillVerdict, String) {
    let Tally { sent, lost, unknown, .. } = result.tally;
    let inconclusive = |why: String| (DrillVerdict::Inconclusive, why);
    if lost > 0 {
        (DrillVerdict::Lost, format!("{lost} of {sent} requests lost"))
    } else if let Some(fault) = &result.own_fault {
        inconclusive(format!("the client could not open connections: {fault}"))
    } else if unknown > 0 {
        inconclusive(format!("{unknown} requests were still open when the watch ended"))
    } else if result.dropped > 0 {
        inconclusive(format!("{} requests could not be sent: the client was at --max-connections", result.dropped))
    } else if sent < result.min_sample {
        inconclusive(format!("{sent} requests are fewer than the {} of --min-sample", result.min_sample))
    } else {
        (DrillVerdict::Clean, format!("0 of {sent} requests lost"))
    }
}
