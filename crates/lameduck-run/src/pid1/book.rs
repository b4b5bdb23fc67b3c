//! What PID 1 writes down, and the report it makes of it.

use std::fs::File;
use std::io::Write;
use std::time::Duration;

use lameduck_core::duration::show;
use lameduck_core::report::{
    DrainReport, EndedBy, Exit, Origin, Phase, PhaseUse, Processes, SCHEMA, Traffic, TrafficSource,
};
use lameduck_core::timeline::{Moment, Provenance, Timeline};

use super::front::Front;
use crate::log::Log;
use crate::machine::{Ending, Machine, Policy, Time};
use crate::observe::Observer;
use crate::observe::traffic::Figures;
use crate::options::Options;

/// How long the exit waits for whoever reads standard error.
const PATIENCE: Duration = Duration::from_millis(200);

/// What has seen the traffic.
#[derive(Debug, Clone, Copy)]
pub struct Watched<'a> {
    pub observer: Option<&'a Observer>,
    pub front: Option<&'a Front>,
    /// The machine's beginning on the monotonic clock, by which the front tells its times.
    pub epoch: Duration,
}

/// The book.
#[derive(Debug)]
pub struct Book {
    pub timeline: Timeline,
    pub phases: Vec<PhaseUse>,
    pub reaped: u64,
    pub killed: u32,
    pub at_stop: Option<Figures>,
    pub at_kill: Option<Figures>,
    shares: [Duration; 4],
    file: Option<File>,
}

impl Book {
    /// An empty book; `file` is where the report goes besides standard error.
    pub fn new(policy: &Policy, file: Option<File>) -> Book {
        let budget = &policy.budget;
        Book {
            timeline: Timeline::with_room(),
            phases: Vec::with_capacity(4),
            reaped: 0,
            killed: 0,
            at_stop: None,
            at_kill: None,
            shares: [budget.lame_duck, budget.draining, budget.stopping, budget.margin],
            file,
        }
    }

    /// Enters a phase's use.
    pub fn phase_ended(&mut self, phase: Phase, used: Duration, ended_by: EndedBy, origin: Origin, log: &mut Log) {
        let share = match phase {
            Phase::LameDuck => self.shares[0],
            Phase::Draining => self.shares[1],
            Phase::Stopping => self.shares[2],
            Phase::Killing => self.shares[3],
        };
        self.phases.push(PhaseUse { phase, budget: share, used, ended_by });
        if origin == Origin::AppExit && ended_by == EndedBy::AllExited {
            return;
        }
        let name = match phase {
            Phase::LameDuck => "lame duck",
            Phase::Draining => "draining",
            Phase::Stopping => "stopping",
            Phase::Killing => "killing",
        };
        let why = match ended_by {
            EndedBy::Quiet => "traffic is quiet",
            EndedBy::NothingListens => "nothing listens",
            EndedBy::MinimumPassed => "--min has passed; quiet could not be measured",
            EndedBy::NothingInFlight => "nothing is in flight",
            EndedBy::BudgetSpent => "its share of the grace period is spent",
            EndedBy::AppExited => "the app exited by itself",
            EndedBy::AllExited => "every process has exited",
            EndedBy::Forced => "the stop signal came again",
            EndedBy::NotActing => "--mode observe does not drain",
        };
        log.info(format_args!("{name} over after {}: {why}", show(used)));
    }

    /// The report. The front's figures are final: it has ended.
    pub fn report(
        &self,
        options: &Options,
        policy: &Policy,
        machine: &Machine,
        watched: Watched<'_>,
        now: Time,
        status: u8,
    ) -> DrainReport {
        let began = machine.drain().map_or(now, |drain| drain.began);
        let took = now.saturating_sub(began);
        let (app_code, app_signal) = match machine.main() {
            Some(Ending::Code(code)) => (Some(code), None),
            Some(Ending::Killed(signal)) => (None, Some(signal.number())),
            None => (None, None),
        };
        DrainReport {
            schema: SCHEMA.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            mode: options.mode.name().to_owned(),
            command: options.command.iter().map(|word| word.to_string_lossy().into_owned()).collect(),
            origin: machine.drain().map_or(Origin::AppExit, |drain| drain.origin),
            budget: policy.budget,
            phases: self.phases.clone(),
            timeline: self.timeline_since(began, watched),
            traffic: match watched.front {
                Some(front) => front.traffic(began + watched.epoch),
                None => self.traffic(watched.observer, began),
            },
            front: watched.front.map(|front| front.report(machine.drain().map(|drain| drain.origin))),
            order: None,
            routing: None,
            exit: Exit { status, app_code, app_signal },
            processes: Processes { reaped: self.reaped, killed: self.killed },
            took,
            unused_grace: policy.budget.grace.saturating_sub(took),
        }
    }

    /// The timeline with the drain's beginning as its origin.
    fn timeline_since(&self, began: Time, watched: Watched<'_>) -> Timeline {
        let mut timeline = Timeline::with_room();
        for entry in self.timeline.entries() {
            if let Some(at) = entry.at.checked_sub(began) {
                timeline.record(at, entry.moment, entry.provenance);
            }
        }
        let last = match (watched.front, watched.observer) {
            (Some(front), _) => front.last_arrival(watched.epoch),
            (None, observer) => observer.and_then(|observer| observer.tracker().figures().last_arrival),
        };
        if let Some(at) = last.and_then(|last| last.checked_sub(began)) {
            timeline.record(at, Moment::LastRequest, Provenance::Observed);
        }
        timeline
    }

    fn traffic(&self, observer: Option<&Observer>, began: Time) -> Traffic {
        let measured = observer.filter(|observer| observer.source() != TrafficSource::None);
        let figures = measured.map(|observer| observer.tracker().figures());
        let last = figures.and_then(|figures| figures.last_arrival?.checked_sub(began));
        Traffic {
            source: observer.map_or(TrafficSource::None, Observer::source),
            ports: observer.map(|observer| observer.app_ports().to_vec()).unwrap_or_default(),
            connections_at_start: figures.map(|figures| figures.at_start),
            new_connections: figures.map(|figures| figures.new),
            arrivals: figures.map(|figures| figures.arrivals),
            ignored: figures.map(|figures| figures.ignored),
            last_arrival: last.map(|last| (last.as_secs_f64() * 1e3).round() / 1e3),
            open_at_stop: figures.and(self.at_stop).map(|figures| figures.open),
            in_flight_at_stop: figures.and(self.at_stop).map(|figures| figures.in_flight),
            forced_closes: figures.map(|_| self.at_kill.map_or(0, |figures| figures.open)),
            by_source: measured.map(|observer| observer.tracker().by_source(16)).unwrap_or_default(),
        }
    }

    /// Writes the report: a line for people, one for machines, and the file.
    pub fn publish(&mut self, report: &DrainReport, log: &mut Log) {
        let grace = show(report.unused_grace);
        if let Some(front) = &report.front {
            let f = &front.figures;
            log.info(format_args!(
                "{} requests that would have been 502s; in all {} answered, {} turned away with 503, {} failed at the app, {} lost by the front",
                front.would_have_been_502,
                f.answered,
                f.shed,
                f.bad_gateway + f.gateway_timeout + f.cut_by_app,
                f.cut_at_deadline + f.lost_with_front,
            ));
        }
        match (report.origin, report.traffic.arrivals) {
            (Origin::AppExit, _) => {}
            (_, Some(arrivals)) => log.info(format_args!(
                "{} arrivals after the drain began ({} new connections), last at {}s; {} forced closes; exit {}; {grace} of grace unused",
                arrivals,
                report.traffic.new_connections.unwrap_or_default(),
                report.traffic.last_arrival.unwrap_or_default(),
                report.traffic.forced_closes.unwrap_or_default(),
                report.exit.status,
            )),
            (_, None) => log.info(format_args!("traffic not measured; exit {}; {grace} of grace unused", report.exit.status)),
        }
        // Serializing plain data to a string can not fail; if it did, there would be nothing to write.
        let Ok(json) = serde_json::to_string(report) else { return };
        log.report(&json, PATIENCE);
        if let Some(file) = &mut self.file
            && let Err(error) = file.write_all(json.as_bytes()).and_then(|()| file.write_all(b"\n"))
        {
            log.warn(format_args!("the report could not be written to --report: {error}"));
        }
    }
}
