//! Observes a termination: starts a real service, drives it like a load balancer does, ends it in the middle, and accounts
//! for every request.
//!
//! [`run`] carries out a [`Plan`] and returns a [`DrillResult`]; [`compare`] does so plain and under a wrap, interleaved.
//! [`render`] turns results into text, JSON, `JUnit` and HTML. Nothing here prints, exits or reads the environment.

mod aftermath;
mod behind;
mod clock;
pub mod demo;
mod events;
mod evidence;
mod links;
pub mod live;
mod load;
pub mod mix;
pub mod naive;
pub mod plan;
mod proc;
pub mod profile;
pub mod progress;
mod record;
pub mod render;
mod replica;
pub mod result;
mod rng;
mod router;
mod run;
pub mod schedule;
pub mod servers;
mod settle;
mod stall;
mod wire;
pub mod workers;

use std::path::PathBuf;
use std::time::Duration;

use lameduck_core::duration::show;

pub use evidence::LogKind;
pub use mix::{Kind, Template, parse_request_file};
pub use plan::{Action, Event, Plan, Pods, Via};
pub use profile::{Profile, Retry};
pub use progress::{Progress, Tick};
pub use result::{CompareResult, DrillResult, DrillVerdict};
pub use wire::exchange::ClosedBy;

/// Why a drill could not be set up: it says nothing about the service under load. Exit code 4.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The plan cannot be carried out.
    #[error("{0}")]
    Plan(#[from] plan::BadPlan),
    /// The service could not be started.
    #[error("{program}: could not be started: {source}")]
    Spawn {
        /// The program.
        program: String,
        /// Why.
        source: std::io::Error,
    },
    /// A replica ended before it was ready.
    #[error("{replica} ended before it was ready: {status}{tail}")]
    ExitedAtStart {
        /// Its name.
        replica: String,
        /// Its exit status.
        status: String,
        /// Its last lines, each after a line break.
        tail: String,
    },
    /// A replica was not ready in time.
    #[error("{replica} was not ready after {}: {last}; does it listen on $PORT (or {{port}} in an argument)?{tail}", show(*waited))]
    NotReady {
        /// Its name.
        replica: String,
        /// How long it was asked.
        waited: Duration,
        /// What the last question met.
        last: String,
        /// Its last lines, each after a line break.
        tail: String,
    },
    /// The process that an event was to kill is not there: a drill without it would prove nothing.
    #[error("kill-child={word}: no process below {replica} has that word as its first argument")]
    NoSuchChild {
        /// The replica.
        replica: String,
        /// The word.
        word: String,
    },
    /// Nothing was routed to, so there was nothing to send the load to.
    #[error("only {found} of {wanted} replicas were routed to within {}", show(*waited))]
    NotRouted {
        /// How many were.
        found: usize,
        /// How many were to be.
        wanted: usize,
        /// How long they were waited for.
        waited: Duration,
    },
    /// No port is free.
    #[error("no free port among the 1000 tried from --port-base on")]
    NoFreePort,
    /// A replica's output, or another file that was asked for, could not be kept.
    #[error("{}: {source}", path.display())]
    Logs {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The drill was told to stop.
    #[error("interrupted; all replicas were ended")]
    Interrupted,
    /// The runtime could not be built.
    #[error("could not run: {0}")]
    Runtime(std::io::Error),
}

/// Carries out a plan once. Blocks; the replicas are gone when it returns, whatever it returns.
pub fn run(plan: &Plan, mut progress: impl FnMut(Progress)) -> Result<DrillResult, SetupError> {
    plan.check()?;
    progress(Progress::Began { wrapped: false, round: 1, rounds: 1 });
    let seen = run::observe(plan, plan.command.clone(), None, &mut progress)?;
    Ok(settle::settle(plan, &plan.command, vec![seen]))
}

/// Sends a plan's load to replicas that somebody else runs, from when as many as planned are routed to until it is told that it
/// is enough. The plan's command, events, duration and what else concerns starting and stopping do not count.
pub fn follow(
    plan: &Plan,
    news: live::Receiver,
    mut progress: impl FnMut(Progress),
) -> Result<DrillResult, SetupError> {
    let named = Plan { command: vec!["elsewhere".into()], events: Vec::new(), ..plan.clone() };
    named.check()?;
    let seen = run::observe_elsewhere(&named, news, &mut progress)?;
    Ok(settle::settle(&named, &named.command, vec![seen]))
}

/// Carries out a plan plain and under its wrap, `rounds` times each, interleaved so that a change of the machine in
/// between touches both alike.
pub fn compare(plan: &Plan, rounds: usize, mut progress: impl FnMut(Progress)) -> Result<CompareResult, SetupError> {
    plan.check()?;
    if plan.wrap.is_empty() {
        return Err(plan::BadPlan::new("nothing to compare with: the plan has no wrap").into());
    }
    if plan.lb_log.is_some() || plan.cluster_log.is_some() {
        return Err(plan::BadPlan::new("--lb-log and --cluster-log are of one run: not with --compare").into());
    }
    let wrapped: Vec<_> = plan.wrap.iter().chain(&plan.command).cloned().collect();
    let (mut of_plain, mut of_cured) = (Vec::new(), Vec::new());
    for round in 1..=rounds.max(1) {
        let variants = [(false, &plan.command, &mut of_plain), (true, &wrapped, &mut of_cured)];
        for (under_wrap, command, seen) in variants {
            progress(Progress::Began { wrapped: under_wrap, round, rounds: rounds.max(1) });
            let folder = format!("{}-{round}", if under_wrap { "cured" } else { "plain" });
            seen.push(run::observe(plan, command.clone(), Some(&folder), &mut progress)?);
        }
    }
    Ok(CompareResult {
        schema: result::COMPARE_SCHEMA.to_owned(),
        plain: settle::settle(plan, &plan.command, of_plain),
        cured: settle::settle(plan, &wrapped, of_cured),
    })
}
