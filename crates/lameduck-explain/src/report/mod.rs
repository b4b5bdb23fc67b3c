//! The explanation: the contract `lameduck.explain/1`, documented in `docs/explain.md`. Fields are only ever added within a version.

mod causes;
mod inputs;
mod losses;
mod pods;
mod tables;

use std::collections::BTreeMap;

pub use causes::{CauseReport, Example, Ground};
pub use inputs::{InputReport, Offset, Sample};
use lameduck_core::Cause;
pub use losses::{Followed, LossReport};
pub use pods::PodReport;
use serde::Serialize;
pub use tables::{Bin, Cost, Row};

use crate::books::{Books, Loss};
use crate::diagnose::{Confidence, Refusals, verdict};
use crate::join::Joined;
use crate::read;
use crate::record::Place;
use crate::slo::{self, Slo};
use crate::spikes::{self, Spike};
use crate::stream::Sighting;
use crate::time::{Micros, parts, show};
use crate::world::World;

/// The schema of [`Explanation`].
pub const SCHEMA: &str = "lameduck.explain/1";
/// Losses listed one by one.
const LOSSES: usize = 50_000;

/// Everything.
#[derive(Debug, Clone, Serialize)]
pub struct Explanation {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// Inputs.
    pub inputs: Vec<InputReport>,
    /// Requests, as the hop that saw most of them counts.
    pub requests: u64,
    /// Lost ones.
    pub lost: u64,
    /// Attempts that failed and were made good by another.
    pub masked: u64,
    /// Requests whose client left.
    pub client_left: u64,
    /// Requests that a hop's own rule ended.
    pub policy: u64,
    /// Lines that tell of a loss another line had told of.
    pub duplicates: u64,
    /// What there was no room for.
    pub dropped: u64,
    /// From when.
    pub first: Option<String>,
    /// To when.
    pub last: Option<String>,
    /// By cause.
    pub causes: Vec<CauseReport>,
    /// By what the logs said.
    pub said: Vec<Row>,
    /// By status.
    pub statuses: BTreeMap<u16, u64>,
    /// By server.
    pub backends: Vec<Row>,
    /// By service.
    pub services: Vec<Row>,
    /// By route.
    pub routes: Vec<Row>,
    /// Length of a bin, seconds.
    pub bin_s: i64,
    /// Over time.
    pub bins: Vec<Bin>,
    /// By hour of the day, UTC.
    pub hours: [u64; 24],
    /// What the days have in common.
    pub periodicity: String,
    /// Spikes.
    pub spikes: Vec<Spike>,
    /// Cost.
    pub cost: Option<Cost>,
    /// Clocks.
    pub offsets: Vec<Offset>,
    /// Error budget.
    pub slo: Option<Slo>,
    /// Pods with losses.
    pub pods: Vec<PodReport>,
    /// The losses one by one, the first 50,000.
    pub losses: Vec<LossReport>,
    /// One request.
    pub followed: Option<Followed>,
}

/// What was asked.
#[derive(Debug, Clone, Default)]
pub struct Question {
    /// The id to follow.
    pub id: Option<String>,
    /// The objective, as a share of 1.
    pub slo: Option<f64>,
    /// What a loss costs its client beside what the log shows: retries, backoff.
    pub client_wait: Micros,
}

/// A loss with its verdict.
pub struct Judged<'b> {
    /// The loss.
    pub loss: &'b Loss,
    /// Its cause.
    pub cause: Cause,
    /// How sure.
    pub confidence: Confidence,
    /// Why.
    pub grounds: &'static str,
    /// Further evidence.
    pub cites: Vec<Place>,
}

/// The explanation of closed and joined books.
pub fn explain(
    books: &Books,
    names: &[String],
    joined: &Joined,
    sightings: &[Sighting],
    question: &Question,
) -> Explanation {
    let world = World::build(books, names);
    let refusals = Refusals::of(books);
    let judged: Vec<Judged<'_>> = books
        .losses
        .iter()
        .map(|loss| {
            let (verdict, cites) = verdict(loss, books, &world, &refusals);
            Judged { loss, cause: verdict.cause, confidence: verdict.confidence, grounds: verdict.grounds, cites }
        })
        .collect();
    let span = books.inputs.iter().filter(|input| input.requests > 0).filter_map(|input| input.span);
    let span = span.reduce(|(a, b), (c, d)| (a.min(c), b.max(d)));
    let minutes = tables::main_minutes(books);
    let (step_s, pictured) = tables::bins(&judged, &minutes, span);
    let requests = minutes.values().map(|minute| minute.requests).sum::<u64>();
    let (hours, periodicity) = spikes::periodicity(&judged, span);
    Explanation {
        schema: SCHEMA,
        inputs: inputs::inputs(books, names),
        requests: requests.max(weight(&judged)),
        lost: weight(&judged),
        masked: books.masked + joined.masked,
        client_left: books.client_left,
        policy: books.policy,
        duplicates: joined.duplicates,
        dropped: books.dropped,
        first: span.map(|(first, _)| show(first)),
        last: span.map(|(_, last)| show(last)),
        causes: causes::causes(&judged, books, names, &world),
        said: tables::rows(&judged, |loss| {
            let text = books.symbols.text(loss.detail);
            if text.is_empty() { loss.signal.words().to_owned() } else { text }
        }),
        statuses: tables::statuses(&judged),
        backends: tables::rows(&judged, |loss| books.symbols.text(loss.backend)),
        services: tables::rows(&judged, |loss| books.symbols.text(loss.service)),
        routes: tables::rows(&judged, |loss| books.symbols.text(loss.route)),
        bin_s: step_s,
        bins: pictured,
        hours,
        periodicity,
        spikes: spikes::find(&judged, books, names, &world),
        cost: tables::cost(&judged, span, question.client_wait),
        offsets: inputs::offsets(joined, names),
        slo: question.slo.map(|objective| slo::slo(objective, &judged, &minutes)),
        pods: pods::pods(&judged, books, &world),
        losses: judged.iter().take(LOSSES).map(|one| losses::brief(one, books, names)).collect(),
        followed: question.id.as_ref().map(|id| losses::followed(id, &judged, books, names, sightings)),
    }
}

fn weight(judged: &[Judged<'_>]) -> u64 {
    judged.iter().map(|one| one.loss.weight).sum()
}

/// `file:line`, or in a capture `file frame N`.
pub fn cite(place: Place, books: &Books, names: &[String]) -> String {
    let name = names.get(usize::from(place.input)).map_or("?", String::as_str);
    let capture = books
        .inputs
        .get(usize::from(place.input))
        .is_some_and(|input| input.formats.get(read::CAPTURE).is_some_and(|n| *n > 0));
    if capture { format!("{name} frame {}", place.line) } else { format!("{name}:{}", place.line) }
}

/// The hour of the day, UTC.
pub fn hour_of_day(at: Micros) -> usize {
    usize::from(parts(at).3)
}
