//! The books of all workers as one.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use lameduck_core::timeline::{Moment, Provenance, Timeline};

use crate::Plan;
use crate::evidence::LogKind;
use crate::result::{DrillResult, Loss, PlanReport, ReplicaReport, WorkerReport};
use crate::settle;

/// Why books can not be merged.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotMerged {
    /// There are none.
    #[error("no worker has books")]
    None,
    /// A worker did not hear of the event, by which clocks are compared.
    #[error("{worker} was not told of the event, so its times can not be put beside the others'")]
    NoEvent {
        /// Which.
        worker: String,
    },
    /// One request is in two books.
    #[error("the request {id} is in the books of two workers")]
    Twice {
        /// Its id.
        id: String,
    },
    /// A worker's books do not balance by themselves.
    #[error("the books of {worker} do not balance")]
    Unbalanced {
        /// Which.
        worker: String,
    },
}

/// Merges the books of workers, each with its name. Times are put on the first one's clock, by when each heard of the event.
///
/// # Errors
///
/// Where that would not be the truth.
pub fn merged(plan: &Plan, books: Vec<(String, DrillResult)>) -> Result<DrillResult, NotMerged> {
    let mut books = books.into_iter();
    let (name, first) = books.next().ok_or(NotMerged::None)?;
    let zero = event_s(&name, &first)?;
    let mut whole = DrillResult { plan: PlanReport::of(plan, &["elsewhere".into()]), ..first.clone() };
    whole.min_sample = plan.min_sample;
    whole.workers.push(checked(name, &first, 0.0)?);
    for (name, mut one) in books {
        let ahead = zero - event_s(&name, &one)?;
        whole.workers.push(checked(name, &one, ahead)?);
        let place = places(&mut whole, &one, ahead);
        sum(&mut whole, &one);
        for loss in one.losses.iter_mut().chain(&mut one.unknowns) {
            shift(loss, ahead);
        }
        whole.losses.append(&mut one.losses);
        whole.unknowns.append(&mut one.unknowns);
        whole.marks.extend(one.marks.into_iter().map(|mut mark| {
            mark.at_s += ahead;
            mark.replica = place.get(mark.replica).copied().unwrap_or(mark.replica);
            mark
        }));
        if let (Some(round), Some(other)) = (whole.rounds.first_mut(), one.rounds.first()) {
            round.load_began_s = round.load_began_s.min(other.load_began_s + ahead);
            round.ended_s = round.ended_s.max(other.ended_s + ahead);
            round.client_cpu_s = round.client_cpu_s.zip(other.client_cpu_s).map(|(a, b)| a + b);
        }
    }
    let mut ids = HashSet::new();
    if let Some(twice) = whole.losses.iter().chain(&whole.unknowns).find(|loss| !ids.insert(loss.id.as_str())) {
        return Err(NotMerged::Twice { id: twice.id.clone() });
    }
    for losses in [&mut whole.losses, &mut whole.unknowns] {
        losses.sort_by(|a, b| a.sent_s.total_cmp(&b.sent_s));
    }
    settle::sum_up(&mut whole);
    Ok(whole)
}

/// When a worker heard of the event, on its own clock.
fn event_s(worker: &str, one: &DrillResult) -> Result<f64, NotMerged> {
    let event = one.events.first().map(|event| event.at_s);
    event.ok_or_else(|| NotMerged::NoEvent { worker: worker.to_owned() })
}

fn checked(name: String, one: &DrillResult, ahead_s: f64) -> Result<WorkerReport, NotMerged> {
    if !one.balances() {
        return Err(NotMerged::Unbalanced { worker: name });
    }
    let client_cpu_s = one.rounds.first().and_then(|round| round.client_cpu_s);
    Ok(WorkerReport { name, ahead_s, tally: one.tally.clone(), latency_s: one.latency_s, client_cpu_s })
}

/// What is only added.
fn sum(whole: &mut DrillResult, one: &DrillResult) {
    whole.tally.merge(&one.tally);
    for (kind, tally) in &one.kinds {
        whole.kinds.entry(kind.clone()).or_default().merge(tally);
    }
    whole.lost_after_retries += one.lost_after_retries;
    whole.retries += one.retries;
    whole.scheduled += one.scheduled;
    whole.unrouted += one.unrouted;
    whole.dropped += one.dropped;
    whole.noticed_closes += one.noticed_closes;
    whole.own_fault = whole.own_fault.take().or_else(|| one.own_fault.clone());
    whole.server_log = LogKind::weaker(whole.server_log, one.server_log);
}

/// Enters a worker's replicas; where each of them stands among the whole's.
fn places(whole: &mut DrillResult, one: &DrillResult, ahead: f64) -> Vec<usize> {
    let known: HashMap<String, usize> =
        whole.replicas.iter().enumerate().map(|(n, replica)| (replica.name.clone(), n)).collect();
    let place = |replica: &ReplicaReport| {
        let Some(&n) = known.get(&replica.name) else {
            let timeline = moved(&replica.timeline, ahead, |_| true);
            whole.replicas.push(ReplicaReport { timeline, ..replica.clone() });
            return whole.replicas.len() - 1;
        };
        let own = &mut whole.replicas[n];
        own.tally.merge(&replica.tally);
        own.timeline = later(&own.timeline, &moved(&replica.timeline, ahead, |_| true));
        n
    };
    one.replicas.iter().map(place).collect()
}

/// A timeline on another clock.
fn moved(timeline: &Timeline, ahead: f64, keep: impl Fn(Moment) -> bool) -> Timeline {
    let mut new = Timeline::default();
    for entry in timeline.entries().iter().filter(|entry| keep(entry.moment)) {
        let at = Duration::try_from_secs_f64(entry.at.as_secs_f64() + ahead).unwrap_or_default();
        new.record(at, entry.moment, entry.provenance);
    }
    new
}

/// The moments as the first worker heard of them, but the last request of all workers.
fn later(own: &Timeline, other: &Timeline) -> Timeline {
    const LAST: [Moment; 2] = [Moment::LastNewConnection, Moment::LastRequest];
    let mut timeline = moved(own, 0.0, |moment| !LAST.contains(&moment));
    for moment in LAST {
        if let Some(at) = own.at(moment).max(other.at(moment)) {
            timeline.record(at, moment, Provenance::Observed);
        }
    }
    timeline
}

fn shift(loss: &mut Loss, ahead: f64) {
    for time in [&mut loss.at_s, &mut loss.intended_s, &mut loss.sent_s] {
        *time += ahead;
    }
}

#[cfg(test)]
mod tests {
    use lameduck_core::Tally;

    use super::*;
    use crate::result::{EventReport, Mark};

    fn book(event_s: f64, sent: u64, losses: &[(&str, f64)]) -> DrillResult {
        use lameduck_core::{Cause, Outcome};
        let plan = Plan { command: vec!["x".into()], ..Plan::default() };
        let mut result = settle::settle(&plan, &plan.command, Vec::new());
        let tally = &mut result.tally;
        for _ in losses {
            tally.add(Outcome::Lost { cause: Cause::RefusedWhileRouted });
        }
        for _ in losses.len() as u64..sent {
            tally.add(Outcome::Answered { status: 200 });
        }
        let tally = result.tally.clone();
        result.scheduled = sent;
        result.kinds.insert("http1".to_owned(), tally.clone());
        let mut timeline = Timeline::default();
        timeline.record(Duration::from_secs_f64(event_s), Moment::TermReceived, Provenance::Observed);
        timeline.record(Duration::from_secs_f64(event_s + sent as f64), Moment::LastRequest, Provenance::Observed);
        let replica =
            ReplicaReport { name: "web-1".to_owned(), round: 1, port: 80, timeline, exit: None, reacted: None, tally };
        result.replicas.push(replica);
        result.events.push(EventReport { round: 1, at_s: event_s, event: "roll".to_owned() });
        result.marks = (losses.len() as u64..sent)
            .map(|n| Mark { round: 1, replica: 0, at_s: event_s, latency_s: n as f64 })
            .collect();
        result.losses = losses.iter().map(|(id, at_s)| loss(id, *at_s)).collect();
        result
    }

    fn loss(id: &str, at_s: f64) -> Loss {
        serde_json::from_value(serde_json::json!({
            "id": id, "round": 1, "method": "GET", "path": "/", "cause": "refused-while-routed", "grounds": "", "at_s": at_s,
            "intended_s": at_s, "sent_s": at_s, "since_term_s": null, "replica": "web-1", "connection": null, "reused": false,
            "requests_before": 0, "idle_s": null, "bytes_out": 0, "bytes_in": 0, "ending": "refused", "closed_by": null,
            "status": null, "server_saw": null, "retried": null
        }))
        .unwrap()
    }

    fn merge(books: Vec<DrillResult>) -> Result<DrillResult, NotMerged> {
        let named = books.into_iter().enumerate().map(|(n, book)| (format!("w{n}"), book)).collect();
        merged(&Plan { rate: 300.0, min_sample: 5, ..Plan::default() }, named)
    }

    #[test]
    fn books_add_up_and_times_are_on_one_clock() {
        let whole = merge(vec![book(10.0, 4, &[("a-1", 12.0)]), book(3.0, 6, &[("b-1", 4.0)])]).unwrap();
        assert!(whole.balances());
        assert_eq!((whole.tally.sent, whole.tally.lost, whole.plan.rate), (10, 2, 300.0));
        // The second worker's clock was 7 s behind.
        let at: Vec<_> = whole.losses.iter().map(|loss| (loss.id.as_str(), loss.at_s)).collect();
        assert_eq!(at, [("b-1", 11.0), ("a-1", 12.0)]);
        let [replica] = whole.replicas.as_slice() else { panic!("{:?}", whole.replicas) };
        assert_eq!(replica.timeline.at(Moment::TermReceived), Some(Duration::from_secs(10)));
        assert_eq!(replica.timeline.at(Moment::LastRequest), Some(Duration::from_secs(16)), "of both, the later");
        assert_eq!(whole.marks.len(), 8);
        assert!(whole.marks.iter().all(|mark| (mark.at_s - 10.0).abs() < 1e-9));
        assert_eq!(whole.latency_s.max, Some(5.0));
        assert_eq!(whole.because, "2 of 10 requests lost");
        let workers: Vec<_> = whole.workers.iter().map(|worker| (worker.name.as_str(), worker.tally.sent)).collect();
        assert_eq!(workers, [("w0", 4), ("w1", 6)]);
    }

    #[test]
    fn what_would_not_be_true_is_refused() {
        assert_eq!(merge(Vec::new()), Err(NotMerged::None));
        let twice = merge(vec![book(1.0, 2, &[("a-1", 2.0)]), book(1.0, 2, &[("a-1", 2.0)])]);
        assert_eq!(twice, Err(NotMerged::Twice { id: "a-1".to_owned() }));
        let deaf = DrillResult { events: Vec::new(), ..book(1.0, 2, &[]) };
        assert_eq!(merge(vec![book(1.0, 2, &[]), deaf]), Err(NotMerged::NoEvent { worker: "w1".to_owned() }));
        let mut wrong = book(1.0, 2, &[]);
        wrong.tally.sent += 1;
        assert_eq!(merge(vec![wrong]), Err(NotMerged::Unbalanced { worker: "w0".to_owned() }));
    }

    #[test]
    fn a_replica_that_only_one_worker_sent_to_is_kept() {
        let mut other = book(1.0, 3, &[]);
        other.replicas[0].name = "web-2".to_owned();
        let whole = merge(vec![book(1.0, 2, &[]), other]).unwrap();
        assert!(whole.balances());
        assert_eq!(whole.replicas.len(), 2);
        assert_eq!(whole.marks.iter().filter(|mark| mark.replica == 1).count(), 3);
    }

    /// One clean worker does not make up for another's fault.
    #[test]
    fn the_verdict_is_of_the_whole() {
        let mut other = book(1.0, 3, &[]);
        other.dropped = 1;
        other.scheduled += 1;
        let whole = merge(vec![book(1.0, 20, &[]), other]).unwrap();
        assert_eq!(whole.verdict, crate::DrillVerdict::Inconclusive);
        assert_eq!(merge(vec![book(1.0, 2, &[]), book(1.0, 3, &[])]).unwrap().verdict, crate::DrillVerdict::Clean);
        let few: Tally = merge(vec![book(1.0, 2, &[]), book(1.0, 2, &[])]).unwrap().tally;
        assert_eq!(few.sent, 4);
    }
}
