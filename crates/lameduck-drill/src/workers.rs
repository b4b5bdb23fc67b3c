//! A load of many machines: each worker sends a part of it and keeps its own books, and one who directs them tells all of them
//! the same news and merges what they found.
//!
//! A worker reads lines of JSON: an [`Order`], then [`News`], and at last [`OVER`]. It writes lines of JSON, [`Said`], of which the last is its result or why there is
//! none. Where nobody tells it anything any more its load ends. Both ends are of one version: the schema says of which.

mod merge;

use std::io::{BufRead, BufReader, Read, Write};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::live::{self, News};
use crate::result::{DrillResult, Mark};
use crate::{Plan, Profile, Progress, Retry, Template, Tick, follow};

pub use merge::{NotMerged, merged};

/// The schema of [`Order`].
pub const SCHEMA: &str = "lameduck.work/1";
/// The line that says that nothing more is told: what a worker is to find is complete.
pub const OVER: &str = "\"over\"";
/// Answered requests that go into one line.
const MARKS_A_LINE: usize = 2000;
/// The counts are told in every so many-th of their steps: once a second.
const TICKS: u64 = 4;

/// A worker's part of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// [`SCHEMA`].
    pub schema: String,
    /// Replicas that have to be routed to before it begins.
    pub replicas: usize,
    /// Its requests a second.
    pub rate: f64,
    /// The profile's id.
    pub profile: String,
    /// The retry policy's id.
    pub retry: String,
    /// The work.
    pub mix: Vec<Template>,
    /// How long it goes on after an endpoint was removed.
    pub lag_s: f64,
    /// From the stop signal to SIGKILL.
    pub grace_s: f64,
    /// The most time for one answer.
    pub timeout_s: f64,
    /// What its load is drawn from.
    pub seed: u64,
}

/// Why an order can not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum BadOrder {
    /// There is none.
    #[error("standard input ended before an order came: this is started by lameduck kubectl drill --workers")]
    None,
    /// It can not be read.
    #[error("read {read:?}, expected an order of {SCHEMA} as JSON: {why}")]
    Unreadable {
        /// What was read, its beginning.
        read: String,
        /// Why not.
        why: String,
    },
    /// It is of another version.
    #[error(
        "read an order of {schema}, this is {SCHEMA}: let the image's lameduck be as new as the one that directs it"
    )]
    Schema {
        /// Its schema.
        schema: String,
    },
    /// It names what there is not.
    #[error("there is no {what} {name:?} here")]
    Unknown {
        /// Of what kind.
        what: &'static str,
        /// What it names.
        name: String,
    },
}

impl Order {
    /// The part of worker `n` of so many.
    pub fn of(plan: &Plan, n: usize, workers: usize) -> Order {
        Order {
            schema: SCHEMA.to_owned(),
            replicas: plan.replicas,
            rate: plan.rate / workers.max(1) as f64,
            profile: plan.profile.id.to_owned(),
            retry: plan.profile.retry.id.to_owned(),
            mix: plan.mix.clone(),
            lag_s: plan.lag.as_secs_f64(),
            grace_s: plan.grace.as_secs_f64(),
            timeout_s: plan.timeout.as_secs_f64(),
            // Else all of them would send the same at the same time.
            seed: plan.seed.wrapping_add(n as u64),
        }
    }

    fn read(line: &str) -> Result<Order, BadOrder> {
        let unreadable = |error: serde_json::Error| {
            let read = line.chars().take(80).collect();
            BadOrder::Unreadable { read, why: error.to_string() }
        };
        let value: serde_json::Value = serde_json::from_str(line).map_err(unreadable)?;
        match value["schema"].as_str() {
            Some(schema) if schema != SCHEMA => Err(BadOrder::Schema { schema: schema.to_owned() }),
            _ => serde_json::from_value(value).map_err(unreadable),
        }
    }

    fn plan(&self) -> Result<Plan, BadOrder> {
        let unknown = |what, name: &str| BadOrder::Unknown { what, name: name.to_owned() };
        let mut profile = Profile::from_id(&self.profile).ok_or_else(|| unknown("profile", &self.profile))?;
        profile.retry = Retry::from_id(&self.retry).ok_or_else(|| unknown("retry policy", &self.retry))?;
        let seconds = |s: f64| Duration::try_from_secs_f64(s).unwrap_or_default();
        Ok(Plan {
            replicas: self.replicas,
            rate: self.rate,
            profile,
            mix: self.mix.clone(),
            lag: seconds(self.lag_s),
            grace: seconds(self.grace_s),
            timeout: seconds(self.timeout_s),
            seed: self.seed,
            ..Plan::default()
        })
    }
}

/// What a worker says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "said")]
pub enum Said {
    /// Its load is on.
    Began,
    /// The counts so far.
    Counts(Tick),
    /// Answered requests: the place of its replica, when it was sent, how long it took, in seconds. They come before the result.
    Answered {
        /// Some of them.
        marks: Vec<(usize, f64, f64)>,
    },
    /// What it found, and nothing after it.
    Found {
        /// Its books.
        result: Box<DrillResult>,
    },
    /// It has found nothing, and says nothing more.
    Failed {
        /// Why.
        why: String,
    },
}

/// Carries out an order; whether there is a result. Blocks until the load is over.
///
/// # Errors
///
/// Where it can not say what it has to say.
pub fn work(input: impl Read + Send + 'static, mut output: impl Write) -> std::io::Result<bool> {
    let mut lines = BufReader::new(input).lines();
    let first = lines.next().transpose()?;
    let order = first.ok_or(BadOrder::None).and_then(|line| Order::read(&line));
    let plan = match order.and_then(|order| order.plan()) {
        Ok(plan) => plan,
        Err(error) => return failed(&mut output, &error),
    };
    let (sender, receiver) = live::channel();
    // Where the result comes first it ends with the process.
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok).take_while(|line| line != OVER) {
            if let Ok(piece) = serde_json::from_str::<News>(&line)
                && !sender.tell(piece)
            {
                break;
            }
        }
    });
    let mut ticks = 0;
    let mut trouble = Ok(());
    let result = follow(&plan, receiver, |piece| {
        let said = match piece {
            Progress::LoadBegan { .. } => Said::Began,
            Progress::Tick(tick) => {
                ticks += 1;
                if ticks % TICKS != 0 {
                    return;
                }
                Said::Counts(tick)
            }
            Progress::Began { .. } | Progress::Event { .. } | Progress::Moment { .. } => return,
        };
        if trouble.is_ok() {
            trouble = say(&mut output, &said);
        }
    });
    trouble?;
    match result {
        Ok(result) => {
            for some in result.marks.chunks(MARKS_A_LINE) {
                let marks = some.iter().map(|mark| (mark.replica, mark.at_s, mark.latency_s)).collect();
                say(&mut output, &Said::Answered { marks })?;
            }
            say(&mut output, &Said::Found { result: Box::new(result) })?;
            Ok(true)
        }
        Err(error) => failed(&mut output, &error),
    }
}

fn failed(output: &mut impl Write, error: &dyn std::error::Error) -> std::io::Result<bool> {
    say(output, &Said::Failed { why: error.to_string() })?;
    Ok(false)
}

fn say(output: &mut impl Write, said: &Said) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(said)?;
    line.push(b'\n');
    output.write_all(&line)?;
    output.flush()
}

/// What one worker has said so far.
#[derive(Debug, Default)]
pub struct Heard {
    /// Its load is on.
    pub began: bool,
    /// The counts so far.
    pub counts: Tick,
    /// What it found, or why there is nothing.
    pub end: Option<Result<Box<DrillResult>, String>>,
    marks: Vec<Mark>,
}

impl Heard {
    /// Takes a line.
    pub fn line(&mut self, line: &str) {
        match serde_json::from_str(line) {
            Ok(Said::Began) => self.began = true,
            Ok(Said::Counts(tick)) => self.counts = tick,
            Ok(Said::Answered { marks }) => {
                let mark = |(replica, at_s, latency_s)| Mark { round: 1, replica, at_s, latency_s };
                self.marks.extend(marks.into_iter().map(mark));
            }
            Ok(Said::Found { mut result }) => {
                result.marks = std::mem::take(&mut self.marks);
                self.end = Some(Ok(result));
            }
            Ok(Said::Failed { why }) => self.end = Some(Err(why)),
            Err(error) => {
                let read: String = line.chars().take(120).collect();
                self.end = Some(Err(format!("read {read:?}, expected what a worker says as JSON: {error}")));
            }
        }
    }
}
