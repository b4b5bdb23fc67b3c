//! What drain reports say together. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use lameduck_core::budget::{Budget, Shares};
use lameduck_core::report::{DrainReport, EndedBy, Origin, Phase, TrafficSource};
use serde::Serialize;

/// The schema of [`Estate`].
pub const SCHEMA: &str = "lameduck.reports/1";
/// With fewer drains nothing is advised that waits for less than what is the default.
const ENOUGH: usize = 20;
/// `lameduck run`'s defaults.
const MIN: f64 = 5.0;
const QUIET: f64 = 2.0;
/// A gap this many times the mean one comes by chance once in `e^5` = 148 (arrivals taken as Poisson's).
const GAPS: f64 = 5.0;

/// A report, and whose.
#[derive(Debug, Clone, PartialEq)]
pub struct Gathered {
    /// Where: the namespace, or the file.
    pub namespace: String,
    /// Whose: `Deployment/web`.
    pub workload: String,
    /// The pod.
    pub pod: String,
    /// The container.
    pub container: String,
    /// What it says.
    pub report: DrainReport,
}

/// Of some figures: nearest rank.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// The median.
    pub p50: f64,
    /// Of a hundred, 99 are at most this.
    pub p99: f64,
    /// The most.
    pub max: f64,
}

impl Spread {
    fn of(mut all: Vec<f64>) -> Option<Spread> {
        all.sort_by(f64::total_cmp);
        let rank = |part: f64| all.get(((all.len() as f64 * part).ceil() as usize).saturating_sub(1)).copied();
        Some(Spread { p50: rank(0.5)?, p99: rank(0.99)?, max: rank(1.0)? })
    }
}

/// What was lost in spite of all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Lost {
    /// By a front: 502, 504, cut.
    pub requests: u64,
    /// Connections still open when the app was killed.
    pub forced_closes: u64,
    /// Processes that had to be killed.
    pub killed: u64,
}

/// What the reports of one workload say.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Workload {
    /// Where.
    pub namespace: String,
    /// Whose.
    pub workload: String,
    /// Its container.
    pub container: String,
    /// Drains: ends that were asked for.
    pub drains: usize,
    /// Ends by itself, with a status that is not 0.
    pub crashes: usize,
    /// Requests that an exit at TERM would have lost, at least.
    pub would_have_been_502: u64,
    /// What was lost.
    pub lost: Lost,
    /// From TERM to the exit.
    pub drain_s: Option<Spread>,
    /// From TERM to the last arrival.
    pub last_arrival_s: Option<Spread>,
    /// The least grace that was left.
    pub unused_grace_s: Option<f64>,
    /// Whether it has a front; it is as the last report says.
    pub front: bool,
    /// Why it needs one.
    pub needs_front: Vec<String>,
    /// What `--min` is, and what it should be; null: nothing can be said.
    pub min_s: (f64, Option<f64>),
    /// The same of `--quiet`.
    pub quiet_s: (f64, Option<f64>),
    /// What else is to be said.
    pub notes: Vec<String>,
}

/// What all reports say.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Estate {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// The API server; null: files were read.
    pub server: Option<String>,
    /// The namespace; null: all, or files.
    pub namespace: Option<String>,
    /// How many reports.
    pub reports: usize,
    /// Reports of which a part is missing.
    pub cut: usize,
    /// Containers, or files, that were looked into.
    pub searched: usize,
    /// What could not be read, and why.
    pub not_read: Vec<String>,
    /// Drains: ends that were asked for.
    pub drains: usize,
    /// Requests that an exit at TERM would have lost, at least.
    pub would_have_been_502: u64,
    /// What was lost.
    pub lost: Lost,
    /// From TERM to the exit.
    pub drain_s: Option<Spread>,
    /// By workload, the most requests first.
    pub workloads: Vec<Workload>,
}

/// Requests that an exit at TERM would have lost: by the front's count, else at least one an arrival.
fn saved(report: &DrainReport) -> u64 {
    let front = report.front.as_ref().map(|front| front.would_have_been_502);
    front.unwrap_or_else(|| report.traffic.arrivals.map_or(0, u64::from))
}

fn lost(report: &DrainReport) -> Lost {
    let by_front = report.front.as_ref().map(|front| &front.figures).map_or(0, |figures| {
        figures.bad_gateway
            + figures.gateway_timeout
            + figures.cut_by_app
            + figures.cut_at_deadline
            + figures.lost_with_front
    });
    let forced_closes = report.traffic.forced_closes.map_or(0, u64::from);
    Lost { requests: by_front, forced_closes, killed: u64::from(report.processes.killed) }
}

impl Lost {
    fn add(self, other: Lost) -> Lost {
        Lost {
            requests: self.requests + other.requests,
            forced_closes: self.forced_closes + other.forced_closes,
            killed: self.killed + other.killed,
        }
    }
}

fn is_drain(report: &DrainReport) -> bool {
    report.origin != Origin::AppExit
}

/// The lame duck ended because its share was spent: clients never stopped.
fn is_spent(report: &DrainReport) -> bool {
    report.phases.iter().any(|phase| phase.phase == Phase::LameDuck && phase.ended_by == EndedBy::BudgetSpent)
}

impl Estate {
    /// Of these, each told once.
    pub fn of(mut gathered: Vec<Gathered>) -> Estate {
        let mut once: Vec<Gathered> = Vec::new();
        for one in gathered.drain(..) {
            if !once.contains(&one) {
                once.push(one);
            }
        }
        let mut by_workload: BTreeMap<(String, String, String), Vec<&DrainReport>> = BTreeMap::new();
        for one in &once {
            let key = (one.namespace.clone(), one.workload.clone(), one.container.clone());
            by_workload.entry(key).or_default().push(&one.report);
        }
        let mut workloads: Vec<Workload> = by_workload.into_iter().map(|(key, all)| Workload::of(key, &all)).collect();
        workloads.sort_by_key(|workload| std::cmp::Reverse(workload.would_have_been_502));
        let drains = || once.iter().map(|one| &one.report).filter(|report| is_drain(report));
        Estate {
            schema: SCHEMA,
            server: None,
            namespace: None,
            reports: once.len(),
            cut: 0,
            searched: 0,
            not_read: Vec::new(),
            drains: drains().count(),
            would_have_been_502: once.iter().map(|one| saved(&one.report)).sum(),
            lost: once.iter().map(|one| lost(&one.report)).fold(Lost::default(), Lost::add),
            drain_s: Spread::of(drains().map(|report| report.took.as_secs_f64()).collect()),
            workloads,
        }
    }
}

impl Workload {
    fn of((namespace, workload, container): (String, String, String), all: &[&DrainReport]) -> Workload {
        let drains: Vec<&DrainReport> = all.iter().copied().filter(|report| is_drain(report)).collect();
        let crashed = |report: &&&DrainReport| !is_drain(report) && report.exit.status != 0;
        let budget = all.last().map(|report| report.budget);
        let seconds = |of: fn(&Budget) -> Duration| budget.as_ref().map_or(0.0, |budget| of(budget).as_secs_f64());
        let (min, quiet, mut notes) = advice(&drains, budget.as_ref());
        let unmeasured = drains.iter().filter(|report| report.traffic.source == TrafficSource::None).count();
        if unmeasured > 0 {
            notes.push(format!("{unmeasured} drains did not see the traffic: give --port"));
        }
        Workload {
            namespace,
            workload,
            container,
            drains: drains.len(),
            crashes: all.iter().filter(crashed).count(),
            would_have_been_502: all.iter().map(|report| saved(report)).sum(),
            lost: all.iter().map(|report| lost(report)).fold(Lost::default(), Lost::add),
            drain_s: Spread::of(drains.iter().map(|report| report.took.as_secs_f64()).collect()),
            last_arrival_s: Spread::of(drains.iter().filter_map(|report| report.traffic.last_arrival).collect()),
            unused_grace_s: drains.iter().map(|report| report.unused_grace.as_secs_f64()).reduce(f64::min),
            front: all.last().is_some_and(|report| report.front.is_some()),
            needs_front: needs_front(&drains),
            min_s: (seconds(|budget| budget.min), min),
            quiet_s: (seconds(|budget| budget.quiet), quiet),
            notes,
        }
    }
}

/// docs/observe-or-front.md, as far as a report can tell.
fn needs_front(drains: &[&DrainReport]) -> Vec<String> {
    let without: Vec<&&DrainReport> = drains.iter().filter(|report| report.front.is_none()).collect();
    let many = |which: &dyn Fn(&DrainReport) -> bool| without.iter().filter(|report| which(report)).count();
    let of = without.len();
    let mut reasons = Vec::new();
    let spent = many(&is_spent);
    if spent > 0 {
        let busiest =
            without.iter().filter(|report| is_spent(report)).find_map(|report| report.traffic.by_source.first());
        let who = busiest.map(|source| format!(", {} with {} arrivals among them", source.address, source.arrivals));
        let who = who.unwrap_or_default();
        reasons.push(format!("in {spent} of {of} drains clients never stopped sending (budget-spent){who}"));
    }
    let open = many(&|report| report.traffic.in_flight_at_stop.is_some_and(|n| n > 0));
    if open > 0 {
        reasons.push(format!("in {open} of {of} drains requests were in flight as the app was told to stop"));
    }
    let forced = many(&|report| report.traffic.forced_closes.is_some_and(|n| n > 0));
    if forced > 0 {
        reasons.push(format!("in {forced} of {of} drains connections were open as the app was killed"));
    }
    reasons
}

/// What `--min` and `--quiet` should be, and what stands against it.
fn advice(drains: &[&DrainReport], budget: Option<&Budget>) -> (Option<f64>, Option<f64>, Vec<String>) {
    // Where clients never stopped, the last arrival is only that of the lame duck's end.
    let told: Vec<&&DrainReport> = drains.iter().filter(|report| !is_spent(report)).collect();
    let last = told.iter().filter_map(|report| report.traffic.last_arrival).reduce(f64::max);
    let gaps = told.iter().filter_map(|report| {
        let arrivals = report.traffic.arrivals.filter(|arrivals| *arrivals > 1)?;
        Some(report.traffic.last_arrival? / f64::from(arrivals))
    });
    let gap = gaps.reduce(f64::max);
    let floor = if told.len() >= ENOUGH { 1.0 } else { MIN };
    let min = last.map(|last| last.ceil().max(floor));
    let quiet = gap.map(|gap| (GAPS * gap).ceil().max(QUIET));
    let mut notes = Vec::new();
    if let (Some(min), Some(quiet), Some(budget)) = (min, quiet, budget) {
        let time = Duration::from_secs_f64;
        let shares = Shares {
            grace: budget.grace,
            margin: Some(budget.margin),
            min: Some(time(min)),
            quiet: Some(time(quiet)),
            ..Shares::default()
        };
        if let Err(impossible) = Budget::divide(&shares) {
            notes.push(format!("{impossible}: raise terminationGracePeriodSeconds, and --grace with it"));
        }
    }
    if !told.is_empty() && told.len() < ENOUGH {
        notes.push(format!("{} drains are few: nothing below the defaults is advised before {ENOUGH}", told.len()));
    }
    (min, quiet, notes)
}

#[cfg(test)]
mod tests {
    use super::super::scan::tests::REPORT;
    use super::*;

    fn gathered(workload: &str, n: usize, change: impl Fn(&mut DrainReport)) -> Vec<Gathered> {
        let one = |n: usize| {
            let mut report: DrainReport = serde_json::from_str(REPORT).unwrap();
            report.took += Duration::from_millis(n as u64 * 100);
            change(&mut report);
            let (namespace, pod) = ("shop".to_owned(), format!("{workload}-{n}"));
            Gathered { namespace, workload: workload.to_owned(), pod, container: "app".to_owned(), report }
        };
        (0..n).map(one).collect()
    }

    #[test]
    fn what_drains_say_together() {
        let mut all = gathered("Deployment/web", 10, |_| {});
        // The termination message and the log say the same.
        all.extend(all[..3].to_vec());
        all.extend(gathered("Deployment/grpc", 2, |report| {
            report.phases[0].ended_by = EndedBy::BudgetSpent;
            report.traffic.arrivals = Some(1000);
        }));
        let estate = Estate::of(all);
        assert_eq!((estate.reports, estate.drains, estate.would_have_been_502), (12, 12, 2360));
        let spread = estate.drain_s.unwrap();
        assert!((spread.p50 - 5.8).abs() < 0.01 && (spread.max - 6.4).abs() < 0.01, "{spread:?}");
        let [grpc, web] = &estate.workloads[..] else { panic!("{estate:?}") };
        assert!(grpc.needs_front[0].contains("2 of 2 drains clients never stopped"), "{grpc:?}");
        // What clients do that never stop says nothing of when traffic is quiet.
        assert_eq!((grpc.min_s.1, grpc.quiet_s.1), (None, None));
        assert_eq!((web.min_s, web.quiet_s, web.needs_front.len()), ((5.0, Some(5.0)), (2.0, Some(2.0)), 0));
    }

    #[test]
    fn min_and_quiet_follow_what_was_seen_and_have_to_fit() {
        let check = |n: usize, last: f64, arrivals: u32, expect: (f64, f64)| {
            let all = gathered("Deployment/web", n, |report| {
                (report.traffic.last_arrival, report.traffic.arrivals) = (Some(last), Some(arrivals));
            });
            let one = Estate::of(all).workloads.remove(0);
            assert_eq!((one.min_s.1, one.quiet_s.1), (Some(expect.0), Some(expect.1)), "{one:?}");
            one.notes
        };
        // Few drains: nothing below the defaults. Many: what they needed.
        assert_eq!(check(3, 0.4, 50, (5.0, 2.0)).len(), 1);
        assert_eq!(check(20, 0.4, 50, (1.0, 2.0)), [""; 0]);
        // One request in 1.5 s: 2 s without one say little.
        check(20, 9.1, 6, (10.0, 8.0));
        let notes = check(20, 40.0, 400, (40.0, 2.0));
        assert!(
            notes[0].contains("impossible budget") && notes[0].contains("terminationGracePeriodSeconds"),
            "{notes:?}"
        );
    }

    #[test]
    fn a_crash_is_no_drain() {
        let all = gathered("Deployment/web", 1, |report| {
            report.origin = Origin::AppExit;
            report.exit.status = 1;
        });
        let estate = Estate::of(all);
        assert_eq!((estate.drains, estate.drain_s, estate.workloads[0].crashes), (0, None, 1));
    }
}
