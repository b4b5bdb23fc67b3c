//! From runs to figures: what is expected, what a day may bring, and what each fix gives.

use lameduck_core::Cause;
use serde::Serialize;

use crate::engine::{self, CAUSES, EndKind, Run, Seed};
use crate::fix::{Fix, fixed};
use crate::fleet::Fleet;

/// How to simulate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Options {
    /// Days a run.
    pub days: u32,
    /// Where all numbers come from.
    pub seed: u64,
    /// Runs, each with its own events, facts and draws: they give the intervals.
    pub runs: u32,
}

impl Default for Options {
    fn default() -> Options {
        Options { days: 1, seed: 1, runs: 40 }
    }
}

/// A figure a day, with the interval in which 90 of 100 days lie.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Figure {
    /// The mean.
    pub mean: f64,
    /// 5 of 100 days are below.
    pub low: f64,
    /// 5 of 100 are above.
    pub high: f64,
}

impl Figure {
    /// The mean is that of `means`, which has less noise; the interval that of `drawn`.
    pub fn of(means: &[f64], drawn: &[f64]) -> Figure {
        let mut sorted = drawn.to_vec();
        sorted.sort_by(f64::total_cmp);
        let mean = means.iter().sum::<f64>() / means.len().max(1) as f64;
        Figure { mean, low: quantile(&sorted, 0.05), high: quantile(&sorted, 0.95) }
    }
}

/// Between the two nearest of what is sorted (Hyndman and Fan 1996, type 7).
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let place = share * last as f64;
    let below = sorted[place.floor() as usize];
    let above = sorted[(place.ceil() as usize).min(last)];
    below + (above - below) * place.fract()
}

/// What one cause takes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct CauseFigure {
    /// The cause.
    pub cause: Cause,
    /// Lost a day.
    #[serde(flatten)]
    pub lost: Figure,
    /// Its share of all that is lost, 0 to 1.
    pub share: f64,
}

/// What one service loses.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ServiceFigure {
    /// Its name.
    pub name: String,
    /// Lost a day, on average.
    pub lost: f64,
}

/// How often something ends pods.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EndFigure {
    /// Its id.
    pub kind: &'static str,
    /// Pods a day.
    pub pods: f64,
}

/// What is to be expected of a fleet, a day.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Estimate {
    /// Requests sent.
    pub sent: f64,
    /// Requests lost.
    pub lost: Figure,
    /// Requests lost once and answered when sent again.
    pub masked: f64,
    /// By cause, the most first; causes that take nothing are left out.
    pub causes: Vec<CauseFigure>,
    /// By service, the most first.
    pub services: Vec<ServiceFigure>,
    /// What ended pods.
    pub ends: Vec<EndFigure>,
    /// Changes by autoscalers, up or down.
    pub scalings: f64,
    /// Lost by the hour of the day, on average.
    pub hours: [f64; 24],
}

/// Simulates, and sums up.
pub fn estimate(fleet: &Fleet, options: Options) -> Estimate {
    let seed = |run| Seed { seed: options.seed, run };
    let runs: Vec<Run> =
        (0..u64::from(options.runs.max(1))).map(|run| engine::run(fleet, options.days.max(1), seed(run))).collect();
    sum_up(fleet, options, &runs)
}

fn sum_up(fleet: &Fleet, options: Options, runs: &[Run]) -> Estimate {
    let days = f64::from(options.days.max(1));
    let count = runs.len() as f64;
    let each = |what: &dyn Fn(&Run) -> f64| -> Vec<f64> { runs.iter().map(|run| what(run) / days).collect() };
    let mean = |what: &dyn Fn(&Run) -> f64| each(what).iter().sum::<f64>() / count;
    let lost = Figure::of(&each(&|run| run.expected.iter().sum()), &each(&|run| run.total() as f64));
    let mut causes: Vec<CauseFigure> = (0..CAUSES)
        .map(|n| {
            let figure = Figure::of(&each(&|run| run.expected[n]), &each(&|run| run.lost[n] as f64));
            let share = if lost.mean > 0.0 { figure.mean / lost.mean } else { 0.0 };
            CauseFigure { cause: Cause::ALL[n], lost: figure, share }
        })
        .filter(|one| one.lost.mean > 0.0)
        .collect();
    causes.sort_by(|a, b| b.lost.mean.total_cmp(&a.lost.mean));
    let mut services: Vec<ServiceFigure> = fleet
        .services
        .iter()
        .enumerate()
        .map(|(n, service)| ServiceFigure {
            name: service.name.clone(),
            lost: mean(&|run| run.by_service.get(n).copied().unwrap_or(0.0)),
        })
        .collect();
    services.sort_by(|a, b| b.lost.total_cmp(&a.lost));
    let ends = EndKind::ALL
        .into_iter()
        .map(|kind| EndFigure { kind: kind.id(), pods: mean(&|run| run.ends[kind as usize] as f64) });
    let mut hours = [0.0; 24];
    for (n, hour) in hours.iter_mut().enumerate() {
        *hour = mean(&|run| run.by_hour[n]);
    }
    Estimate {
        sent: mean(&|run| run.sent as f64),
        lost,
        masked: mean(&|run| run.masked.iter().sum::<u64>() as f64),
        causes,
        services,
        ends: ends.filter(|end| end.pods > 0.0).collect(),
        scalings: mean(&|run| run.scalings as f64),
        hours,
    }
}

/// What a fix leads to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Step {
    /// The fix; none: the fleet as it is.
    pub fix: Option<&'static str>,
    /// What it changes.
    pub what: &'static str,
    /// Lost a day with it, and with those before it.
    pub lost: Figure,
    /// By cause.
    pub causes: Vec<CauseFigure>,
}

fn step(fleet: &Fleet, fixes: &[Fix], fix: Option<Fix>, options: Options) -> Step {
    let Estimate { lost, causes, .. } = estimate(&fixed(fleet, fixes), options);
    Step { fix: fix.map(Fix::id), what: fix.map_or("as it is", Fix::what), lost, causes }
}

/// Each fix by itself, on top of those that are made already; what gives the most first. Fixes that change nothing are left out.
pub fn effects(fleet: &Fleet, made: &[Fix], options: Options) -> Vec<Step> {
    let now = fixed(fleet, made);
    let mut all: Vec<Step> = Vec::new();
    for fix in Fix::ALL.into_iter().filter(|fix| !made.contains(fix)) {
        let with: Vec<Fix> = made.iter().copied().chain([fix]).collect();
        if fixed(fleet, &with) != now {
            all.push(step(fleet, &with, Some(fix), options));
        }
    }
    all.sort_by(|a, b| a.lost.mean.total_cmp(&b.lost.mean));
    all
}

/// The fixes one after another, each on top of those before it, from the fleet as it is. Without an order given, whichever gives
/// the most comes next, until none gives a hundredth of what is left.
pub fn staircase(fleet: &Fleet, order: &[Fix], options: Options) -> Vec<Step> {
    let mut steps = vec![step(fleet, &[], None, options)];
    if !order.is_empty() {
        for n in 1..=order.len() {
            steps.push(step(fleet, &order[..n], order.get(n - 1).copied(), options));
        }
        return steps;
    }
    let mut made: Vec<Fix> = Vec::new();
    loop {
        let Some(best) = effects(fleet, &made, options).into_iter().next() else { return steps };
        let left = steps.last().map_or(0.0, |step| step.lost.mean);
        if best.lost.mean > left * 0.99 {
            return steps;
        }
        made.extend(best.fix.and_then(Fix::from_id));
        steps.push(best);
    }
}
