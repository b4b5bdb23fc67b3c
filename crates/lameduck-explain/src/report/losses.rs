//! The losses one by one, and one that is followed.

use lameduck_core::Cause;
use serde::Serialize;

use super::{Judged, cite};
use crate::books::Books;
use crate::diagnose::Confidence;
use crate::fix;
use crate::stream::Sighting;
use crate::world::World;

/// One lost request, briefly.
#[derive(Debug, Clone, Serialize)]
pub struct LossReport {
    /// When it ended, seconds since 1970.
    pub at_s: f64,
    /// Its id.
    pub id: String,
    /// Its cause.
    pub cause: Cause,
    /// How sure.
    pub confidence: Confidence,
    /// The server.
    pub backend: String,
    /// How many requests it stands for.
    pub weight: u64,
    /// Where it is said.
    pub cite: String,
}

/// One request, followed.
#[derive(Debug, Clone, Serialize)]
pub struct Followed {
    /// The id.
    pub id: String,
    /// Its verdict, where it was lost.
    pub cause: Option<Cause>,
    /// On which grounds.
    pub grounds: Option<String>,
    /// What prevents it.
    pub fixes: Vec<String>,
    /// Where it was seen: `file:line`, and the line.
    pub seen: Vec<(String, String)>,
}

pub(super) fn brief(one: &Judged<'_>, books: &Books, names: &[String]) -> LossReport {
    LossReport {
        at_s: one.loss.end as f64 / 1e6,
        id: one.loss.id.to_string(),
        cause: one.cause,
        confidence: one.confidence,
        backend: books.symbols.text(one.loss.backend),
        weight: one.loss.weight,
        cite: cite(one.loss.place, books, names),
    }
}

pub(super) fn followed(
    id: &str,
    judged: &[Judged<'_>],
    books: &Books,
    names: &[String],
    sightings: &[Sighting],
) -> Followed {
    let seen: Vec<(String, String)> =
        sightings.iter().map(|sighting| (cite(sighting.place, books, names), sighting.text.clone())).collect();
    let own = judged.iter().find(|one| {
        !id.is_empty()
            && (one.loss.id.contains(id)
                || sightings
                    .iter()
                    .any(|sighting| sighting.place == one.loss.place || one.loss.also.contains(&sighting.place)))
    });
    Followed {
        id: id.to_owned(),
        cause: own.map(|one| one.cause),
        grounds: own.map(|one| {
            one.loss
                .packets
                .as_ref()
                .map_or_else(|| one.grounds.to_owned(), |packets| format!("{}: {}", one.grounds, packets.story))
        }),
        fixes: own.map(|one| fix::fixes(one.cause, &[one], books, &World::default())).unwrap_or_default(),
        seen,
    }
}
