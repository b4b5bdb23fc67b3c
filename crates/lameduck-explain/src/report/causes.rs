//! Each cause with its grounds, its cure, and examples with their evidence.

use std::collections::BTreeMap;

use lameduck_core::Cause;
use serde::Serialize;

use super::{Judged, cite, weight};
use crate::books::Books;
use crate::diagnose::Confidence;
use crate::fix;
use crate::record::Place;
use crate::time::{Micros, show};
use crate::world::World;

/// Examples of each cause.
const EXAMPLES: usize = 5;

/// One lost request, with its evidence.
#[derive(Debug, Clone, Serialize)]
pub struct Example {
    /// When it ended.
    pub at: String,
    /// Its id.
    pub id: String,
    /// Route.
    pub route: String,
    /// The server.
    pub backend: String,
    /// The status sent.
    pub status: u16,
    /// How long it took, seconds.
    pub took_s: Option<f64>,
    /// What was seen, in the log's words.
    pub seen: String,
    /// How many requests it stands for.
    pub weight: u64,
    /// What packets show.
    pub packets: Option<String>,
    /// How long the connection was idle when it was closed, seconds.
    pub idle_s: Option<f64>,
    /// Where it is said: `file:line`.
    pub cites: Vec<String>,
}

/// Why, and how many of it.
#[derive(Debug, Clone, Serialize)]
pub struct Ground {
    /// The evidence, or what is missing.
    pub grounds: String,
    /// How sure that makes it.
    pub confidence: Confidence,
    /// How many.
    pub requests: u64,
}

/// One cause.
#[derive(Debug, Clone, Serialize)]
pub struct CauseReport {
    /// Its id.
    pub cause: Cause,
    /// What happened.
    pub what: &'static str,
    /// How many requests.
    pub requests: u64,
    /// Of all losses, 0 to 1.
    pub share: f64,
    /// On which grounds.
    pub grounds: Vec<Ground>,
    /// What prevents it.
    pub fixes: Vec<String>,
    /// Some of them.
    pub examples: Vec<Example>,
}

fn example(one: &Judged<'_>, books: &Books, names: &[String]) -> Example {
    let loss = one.loss;
    let mut cites = vec![cite(loss.place, books, names)];
    let frames = loss.packets.as_ref().map(|packets| &packets.frames[..]).unwrap_or_default();
    cites.extend(
        frames
            .iter()
            .filter(|frame| **frame != loss.place.line)
            .map(|line| cite(Place { line: *line, ..loss.place }, books, names)),
    );
    cites.extend(loss.also.iter().chain(&one.cites).take(6).map(|place| cite(*place, books, names)));
    let seconds = |micros: Micros| micros as f64 / 1e6;
    let detail = books.symbols.text(loss.detail);
    Example {
        at: show(loss.end),
        id: loss.id.to_string(),
        route: books.symbols.text(loss.route),
        backend: books.symbols.text(loss.backend),
        status: loss.status,
        took_s: loss.took.map(seconds),
        seen: if detail.is_empty() { loss.signal.words().to_owned() } else { detail },
        weight: loss.weight,
        packets: loss.packets.as_ref().map(|packets| packets.story.clone()),
        idle_s: loss.packets.as_ref().and_then(|packets| packets.idle).map(seconds),
        cites,
    }
}

pub(super) fn causes(judged: &[Judged<'_>], books: &Books, names: &[String], world: &World) -> Vec<CauseReport> {
    let total = weight(judged).max(1);
    let mut found = Vec::new();
    for cause in Cause::ALL {
        let own: Vec<&Judged<'_>> = judged.iter().filter(|one| one.cause == cause).collect();
        if own.is_empty() {
            continue;
        }
        let requests = own.iter().map(|one| one.loss.weight).sum();
        let mut grounds: BTreeMap<(Confidence, &str), u64> = BTreeMap::new();
        for one in &own {
            *grounds.entry((one.confidence, one.grounds)).or_default() += one.loss.weight;
        }
        let mut grounds: Vec<Ground> = grounds
            .into_iter()
            .map(|((confidence, grounds), requests)| Ground { grounds: grounds.to_owned(), confidence, requests })
            .collect();
        grounds.sort_by_key(|ground| std::cmp::Reverse(ground.requests));
        // Those with packets say most; then spread over time.
        let step = (own.len() / EXAMPLES).max(1);
        let with_packets = own.iter().filter(|one| one.loss.packets.is_some()).take(EXAMPLES);
        let mut examples: Vec<Example> = with_packets.map(|one| example(one, books, names)).collect();
        let others = own.iter().step_by(step).filter(|one| one.loss.packets.is_none());
        examples.extend(others.take(EXAMPLES - examples.len()).map(|one| example(one, books, names)));
        found.push(CauseReport {
            cause,
            what: cause.what(),
            requests,
            share: requests as f64 / total as f64,
            grounds,
            fixes: fix::fixes(cause, &own, books, world),
            examples,
        });
    }
    found.sort_by_key(|cause| std::cmp::Reverse(cause.requests));
    found
}
