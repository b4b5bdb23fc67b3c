//! The result of a drill: the contract `lameduck.drill/1`, documented in `docs/drill.md`.
//!
//! Fields are only ever added within a schema version. Times are seconds (`_s`) on the clock of their run, which starts
//! with its first replica.

use std::collections::BTreeMap;

use lameduck_core::timeline::Timeline;
use lameduck_core::{Cause, Tally, law};
use serde::{Deserialize, Serialize};

use crate::evidence::LogKind;
use crate::plan::Plan;
use crate::wire::exchange::ClosedBy;

/// The schema of [`DrillResult`].
pub const SCHEMA: &str = "lameduck.drill/1";
/// The schema of [`CompareResult`].
pub const COMPARE_SCHEMA: &str = "lameduck.compare/1";

/// What a drill showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DrillVerdict {
    /// Nothing was lost, in a sample large enough to say so.
    Clean,
    /// Something was lost.
    Lost,
    /// Nothing was seen to be lost, but not everything was seen, or too little was sent.
    Inconclusive,
}

/// The exit code where a drill could not be set up.
pub const EXIT_SETUP: u8 = 4;

impl DrillVerdict {
    /// The exit code: 0 clean, 1 lost, 3 inconclusive.
    pub const fn exit_code(self) -> u8 {
        match self {
            DrillVerdict::Clean => 0,
            DrillVerdict::Lost => 1,
            DrillVerdict::Inconclusive => 3,
        }
    }
}

/// A share with its bounds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct LossRate {
    /// Lost of sent, 0 to 1.
    pub share: f64,
    /// The 95 % Wilson interval, lower end.
    pub low: f64,
    /// The 95 % Wilson interval, upper end.
    pub high: f64,
    /// Where nothing was lost: at most this at 95 % confidence, by the rule of three.
    pub at_most: Option<f64>,
}

/// From the stop signal to the exit, over all replicas that were told to stop and exited.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The median; absent where none was told to stop.
    pub p50: Option<f64>,
    /// The longest.
    pub max: Option<f64>,
    /// All, in the order of the stops.
    pub all: Vec<f64>,
}

/// From the intended send time to the end of the answer, of first attempts that were answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Half of the answers took at most this.
    pub p50: Option<f64>,
    /// 90 %.
    pub p90: Option<f64>,
    /// 99 %.
    pub p99: Option<f64>,
    /// The longest.
    pub max: Option<f64>,
}

/// How an attempt ended, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EndingId {
    /// The handshake was answered by RST.
    Refused,
    /// The handshake was not answered in time.
    ConnectTimedOut,
    /// FIN, and no RST after it.
    Fin,
    /// RST, alone or after a FIN.
    Rst,
    /// No whole answer in time.
    TimedOut,
    /// The server's protocol says that it was not processed.
    NotProcessed,
    /// The server gave up this one exchange: a stream's reset, a WebSocket's close for an error, an upgrade not granted.
    Aborted,
    /// Bytes that are not an HTTP answer.
    Malformed,
    /// A whole answer that is a loss: 5xx.
    Complete,
    /// Open when the watch ended.
    Pending,
}

impl EndingId {
    /// The word.
    pub const fn id(self) -> &'static str {
        match self {
            EndingId::Refused => "refused",
            EndingId::ConnectTimedOut => "connect-timed-out",
            EndingId::Fin => "fin",
            EndingId::Rst => "rst",
            EndingId::TimedOut => "timed-out",
            EndingId::NotProcessed => "not-processed",
            EndingId::Aborted => "aborted",
            EndingId::Malformed => "malformed",
            EndingId::Complete => "complete",
            EndingId::Pending => "pending",
        }
    }
}

/// What became of a lost request when it was sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Retried {
    /// A later attempt was answered.
    Answered,
    /// No later attempt was.
    Lost,
}

/// One lost request, or one whose fate is open.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Loss {
    /// The id that it carried.
    pub id: String,
    /// The round, from 1.
    pub round: usize,
    /// The kind of its template: `http1`, `expect`, `h2`, `websocket`.
    #[serde(default)]
    pub kind: String,
    /// The method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Why it was lost; `unknown` where the evidence does not decide.
    pub cause: Cause,
    /// The evidence that decided, or what is missing.
    pub grounds: String,
    /// When its end was seen.
    pub at_s: f64,
    /// When it was meant to be sent.
    pub intended_s: f64,
    /// When it was sent (before connecting).
    pub sent_s: f64,
    /// `at_s` after its replica's stop signal; absent where that had none.
    pub since_term_s: Option<f64>,
    /// Its replica.
    pub replica: String,
    /// Which of all connections of the round; absent where none was made.
    pub connection: Option<u64>,
    /// Whether the connection had answered before.
    pub reused: bool,
    /// Requests answered on the connection before.
    pub requests_before: u32,
    /// Time since the last answer on the connection; absent on a new one.
    pub idle_s: Option<f64>,
    /// Bytes of the request that the kernel took.
    pub bytes_out: u64,
    /// Bytes of the answer that came.
    pub bytes_in: u64,
    /// How it ended.
    pub ending: EndingId,
    /// Who closed the connection.
    pub closed_by: Option<ClosedBy>,
    /// The status, where the head of an answer came.
    pub status: Option<u16>,
    /// Whether the server's own evidence shows the request; absent where it proves nothing.
    pub server_saw: Option<bool>,
    /// What became of it when it was sent again; absent where it was not.
    pub retried: Option<Retried>,
}

/// One replica.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReplicaReport {
    /// `r0`, `r1`... in the order started.
    pub name: String,
    /// The round, from 1.
    pub round: usize,
    /// Its port.
    pub port: u16,
    /// Both lanes.
    pub timeline: Timeline,
    /// Its exit status in words; absent where the drill ended it after the end.
    pub exit: Option<String>,
    /// Whether the stop signal had an effect before SIGKILL; absent where that is not known.
    pub reacted: Option<bool>,
    /// Its share of the books.
    #[serde(flatten)]
    pub tally: Tally,
}

/// An event, as it happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventReport {
    /// The round, from 1.
    pub round: usize,
    /// When it began.
    pub at_s: f64,
    /// Which.
    pub event: String,
}

/// One run of the plan.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RoundReport {
    /// The round, from 1.
    pub round: usize,
    /// The clock's zero, seconds since 1970: what to add to a `_s` to put it beside another log.
    #[serde(default)]
    pub origin_s: f64,
    /// When the load began.
    pub load_began_s: f64,
    /// When the watch ended.
    pub ended_s: f64,
    /// CPU time that the drill itself took; absent where the kernel does not say.
    #[serde(default)]
    pub client_cpu_s: Option<f64>,
}

/// One of several that sent the load.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerReport {
    /// Its pod.
    pub name: String,
    /// What was added to its times, to have them on the first worker's clock.
    pub ahead_s: f64,
    /// Its share of the books.
    #[serde(flatten)]
    pub tally: Tally,
    /// Of the answers it got.
    pub latency_s: Latency,
    /// CPU time that it took; absent where the kernel does not say.
    pub client_cpu_s: Option<f64>,
}

/// What was planned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanReport {
    /// The command that was run, wrap included.
    pub command: Vec<String>,
    /// Replicas.
    pub replicas: usize,
    /// Requests a second.
    pub rate: f64,
    /// Their spacing.
    pub spacing: crate::schedule::Spacing,
    /// The profile's id.
    pub profile: String,
    /// The retry policy's id.
    pub retry: String,
    /// The mix.
    pub mix: Vec<crate::mix::Template>,
    /// The events.
    pub events: Vec<String>,
    /// How long routing lags behind the stop signal.
    pub lag_s: f64,
    /// From the stop signal to SIGKILL.
    pub grace_s: f64,
    /// The stop signal's number.
    pub stop_signal: i32,
    /// The most time for an answer.
    pub timeout_s: f64,
    /// The simulated round trip.
    pub rtt_s: f64,
    /// The seed.
    pub seed: u64,
}

impl PlanReport {
    pub(crate) fn of(plan: &Plan, command: &[std::ffi::OsString]) -> PlanReport {
        PlanReport {
            command: command.iter().map(|word| word.to_string_lossy().into_owned()).collect(),
            replicas: plan.replicas,
            rate: plan.rate,
            spacing: plan.spacing,
            profile: plan.profile.id.to_owned(),
            retry: plan.profile.retry.id.to_owned(),
            mix: plan.mix.clone(),
            events: plan.events.iter().map(ToString::to_string).collect(),
            lag_s: plan.lag.as_secs_f64(),
            grace_s: plan.grace.as_secs_f64(),
            stop_signal: plan.stop_signal,
            timeout_s: plan.timeout.as_secs_f64(),
            rtt_s: plan.rtt.as_secs_f64(),
            seed: plan.seed,
        }
    }
}

/// An answered request, for drawing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mark {
    /// The round, from 1.
    pub round: usize,
    /// The place of its replica among the round's.
    pub replica: usize,
    /// When it was sent.
    pub at_s: f64,
    /// From its intended time to the end of its answer.
    pub latency_s: f64,
}

/// The result of a drill.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DrillResult {
    /// [`SCHEMA`].
    pub schema: String,
    /// lameduck's version.
    pub version: String,
    /// What it showed.
    pub verdict: DrillVerdict,
    /// In words: what made it so.
    pub because: String,
    /// The books: `sent`, `answered`, `lost`, `unknown`, `causes`. First attempts only: raw loss.
    #[serde(flatten)]
    pub tally: Tally,
    /// The same by kind of request; their sum is the whole.
    #[serde(default)]
    pub kinds: BTreeMap<String, Tally>,
    /// Requests whose last attempt was lost.
    pub lost_after_retries: u64,
    /// Further attempts made.
    pub retries: u64,
    /// Requests whose turn came: `sent + unrouted + dropped`.
    pub scheduled: u64,
    /// Requests that nothing was routed to; they are not part of the experiment.
    pub unrouted: u64,
    /// Requests not sent because the client was at its limit: the verdict is inconclusive.
    pub dropped: u64,
    /// Why this side could not open a connection, where that happened.
    pub own_fault: Option<String>,
    /// Idle connections found closed in time, and so not used: what the idle-close race is drawn from.
    pub noticed_closes: u64,
    /// The least number of requests for a verdict.
    pub min_sample: u64,
    /// Raw loss.
    pub loss_rate: LossRate,
    /// From the stop signal to the exit.
    pub term_to_exit_s: Spread,
    /// Of the answers.
    pub latency_s: Latency,
    /// What the replicas' own log could prove.
    pub server_log: LogKind,
    /// What was planned.
    pub plan: PlanReport,
    /// Each run of it.
    pub rounds: Vec<RoundReport>,
    /// Who sent the load, where that was not this process.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub workers: Vec<WorkerReport>,
    /// What happened.
    pub events: Vec<EventReport>,
    /// To whom.
    pub replicas: Vec<ReplicaReport>,
    /// All lost requests, in the order sent.
    pub losses: Vec<Loss>,
    /// All requests whose fate is open.
    pub unknowns: Vec<Loss>,
    /// Answered requests, to draw them. Not part of the JSON.
    #[serde(skip)]
    pub marks: Vec<Mark>,
}

impl DrillResult {
    /// The exit code: 0 clean, 1 lost, 3 inconclusive.
    pub fn exit_code(&self) -> u8 {
        self.verdict.exit_code()
    }

    /// Whether every request is accounted for, in all, for each replica and for each kind.
    pub fn balances(&self) -> bool {
        let mut of_replicas = Tally::default();
        for replica in &self.replicas {
            of_replicas.merge(&replica.tally);
        }
        let mut of_kinds = Tally::default();
        for tally in self.kinds.values() {
            of_kinds.merge(tally);
        }
        self.tally.balances()
            && of_kinds == self.tally
            && of_replicas == self.tally
            && self.scheduled == self.tally.sent + self.unrouted + self.dropped
            && self.losses.len() as u64 == self.tally.lost
            && self.unknowns.len() as u64 == self.tally.unknown
    }
}

/// The same plan plain and under the wrap.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CompareResult {
    /// [`COMPARE_SCHEMA`].
    pub schema: String,
    /// The command as it is.
    pub plain: DrillResult,
    /// The command under the wrap.
    pub cured: DrillResult,
}

impl CompareResult {
    /// The exit code of the cured variant: what is asked is whether the cure holds.
    pub fn exit_code(&self) -> u8 {
        self.cured.exit_code()
    }
}

pub(crate) fn loss_rate(tally: &Tally) -> LossRate {
    let (low, high) = law::wilson(tally.lost, tally.sent);
    let share = if tally.sent == 0 { 0.0 } else { tally.lost as f64 / tally.sent as f64 };
    // Nine digits are more than any sample is good for, and a number this short is read back as it was written.
    let short = |share: f64| (share * 1e9).round() / 1e9;
    let at_most = (tally.lost == 0).then(|| short(law::rule_of_three(tally.sent)));
    LossRate { share: short(share), low: short(low), high: short(high), at_most }
}

/// The value at a share of sorted values, by nearest rank.
pub(crate) fn percentile(sorted: &[f64], share: f64) -> Option<f64> {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).or(sorted.last()).copied()
}

/// Counts by cause, most first.
pub(crate) fn by_count(causes: &BTreeMap<Cause, u64>) -> Vec<(Cause, u64)> {
    let mut causes: Vec<_> = causes.iter().map(|(cause, n)| (*cause, *n)).collect();
    causes.sort_by_key(|(cause, n)| (std::cmp::Reverse(*n), *cause));
    causes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_rank() {
        let values = [1.0, 2.0, 3.0, 4.0];
        let check = |share: f64, expect: f64| assert_eq!(percentile(&values, share), Some(expect), "{share}");
        check(0.5, 2.0);
        check(0.99, 4.0);
        check(1.0, 4.0);
        check(0.0, 1.0);
        assert_eq!(percentile(&[], 0.5), None);
    }

    #[test]
    fn a_loss_rate_has_bounds_and_zero_has_the_rule_of_three() {
        let rate = |lost, answered| loss_rate(&Tally { sent: lost + answered, lost, answered, ..Tally::default() });
        let none = rate(0, 30_000);
        assert_eq!(none.at_most, Some(1e-4));
        let some = rate(10, 90);
        assert_eq!(some.at_most, None);
        assert!(some.low < 0.1 && 0.1 < some.high);
    }
}
