//! The pods concerned: their two lanes, rebuilt.

use std::collections::BTreeMap;

use lameduck_core::Cause;
use serde::Serialize;

use super::Judged;
use crate::books::{Backend, Books};
use crate::record::EventKind;
use crate::world::World;

/// Losses drawn of each pod.
const LOSSES_DRAWN: usize = 500;
/// Pods drawn.
const PODS: usize = 24;

/// A pod's two lanes, rebuilt.
#[derive(Debug, Clone, Serialize)]
pub struct PodReport {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<String>,
    /// Seconds since 1970 of each moment that is known.
    pub moments: BTreeMap<&'static str, f64>,
    /// Exit code.
    pub exit_code: Option<i64>,
    /// The last second in which it answered.
    pub last_answer_s: Option<i64>,
    /// Its losses: seconds since 1970, and cause. At most 500.
    pub losses: Vec<(f64, Cause)>,
    /// How many there are.
    pub lost: u64,
}

/// Losses of a pod with their times, and how many there are.
type OfPod = (Vec<(f64, Cause)>, u64);

pub(super) fn pods(judged: &[Judged<'_>], books: &Books, world: &World) -> Vec<PodReport> {
    let mut by_pod: BTreeMap<&str, OfPod> = BTreeMap::new();
    for one in judged {
        let address = books.symbols.text(one.loss.backend);
        if let Some(life) = world.at(&address, one.loss.end) {
            let (losses, lost) = by_pod.entry(&life.name).or_default();
            *lost += one.loss.weight;
            losses.push((one.loss.end as f64 / 1e6, one.cause));
        }
    }
    let mut found = Vec::new();
    for life in &world.lives {
        let (losses, lost) = by_pod.remove(life.name.as_str()).unwrap_or_default();
        if life.stop.is_none() && life.app_stop.is_none() && life.end().is_none() && lost == 0 {
            continue;
        }
        let moments = [
            (EventKind::Started.words(), life.started),
            (EventKind::Ready.words(), life.ready),
            (EventKind::Stopping.words(), life.stop),
            (EventKind::AppStopping.words(), life.app_stop),
            (EventKind::GraceExceeded.words(), life.grace_exceeded),
            (EventKind::Ended.words(), life.ended),
        ];
        let answered =
            life.addresses.iter().filter_map(|address| books.backends.get(&books.symbols.find(address.as_bytes())?));
        let last_answer_s = answered.filter_map(Backend::last_answer).max();
        found.push(PodReport {
            name: life.name.clone(),
            addresses: life.addresses.clone(),
            // Evenly thinned, so that the first and the last stay.
            losses: losses.iter().step_by(losses.len().div_ceil(LOSSES_DRAWN).max(1)).copied().collect(),
            moments: moments.into_iter().filter_map(|(name, at)| Some((name, at? as f64 / 1e6))).collect(),
            exit_code: life.exit_code,
            last_answer_s,
            lost,
        });
    }
    found.sort_by(|a, b| b.lost.cmp(&a.lost).then_with(|| a.name.cmp(&b.name)));
    found.truncate(PODS);
    found
}
