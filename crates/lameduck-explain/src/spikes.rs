//! When it was worst, and what happened then. That something happened at the same time names no cause: it coincides.

use std::collections::BTreeMap;

use lameduck_core::Cause;
use serde::Serialize;

use crate::books::Books;
use crate::record::EventKind;
use crate::report::{Judged, cite, hour_of_day};
use crate::time::{Micros, SECOND, show};
use crate::world::World;

/// Spikes shown.
const MOST: usize = 24;
/// An event up to this long before a spike can be part of it: endpoints propagate slowly.
const BEFORE: Micros = 180 * SECOND;
/// Events told of a spike.
const EVENTS: usize = 6;

/// A spike.
#[derive(Debug, Clone, Serialize)]
pub struct Spike {
    /// From when.
    pub start: String,
    /// The same, seconds since 1970.
    pub start_s: i64,
    /// How long, seconds.
    pub length_s: i64,
    /// Losses in it.
    pub lost: u64,
    /// What a minute outside of spikes has.
    pub usual_a_minute: f64,
    /// Most of its losses have this cause.
    pub cause: Cause,
    /// What happened then.
    pub events: Vec<Coincidence>,
}

/// Events of one kind near a spike.
#[derive(Debug, Clone, Serialize)]
pub struct Coincidence {
    /// What.
    pub kind: EventKind,
    /// How many.
    pub count: u64,
    /// Of whom, the first.
    pub subject: String,
    /// In whose words.
    pub words: String,
    /// When, the first.
    pub at: String,
    /// Whether losses of the spike were at that very pod; else it only coincides.
    pub same_pod: bool,
    /// Where it is said.
    pub cite: String,
}

/// The spikes, the largest first.
pub fn find(judged: &[Judged<'_>], books: &Books, names: &[String], world: &World) -> Vec<Spike> {
    let mut minutes: BTreeMap<i64, u64> = BTreeMap::new();
    for one in judged {
        *minutes.entry(one.loss.end.div_euclid(60 * SECOND)).or_default() += one.loss.weight;
    }
    let (Some((first, _)), Some((newest, _))) = (minutes.first_key_value(), minutes.last_key_value()) else {
        return Vec::new();
    };
    let whole = (newest - first + 1) as usize;
    // The median over all minutes, those without a loss too.
    let mut counts: Vec<u64> = minutes.values().copied().collect();
    counts.sort_unstable();
    let quiet = whole.saturating_sub(counts.len());
    let at = |rank: usize| if rank < quiet { 0 } else { counts.get(rank - quiet).copied().unwrap_or(0) };
    let usual = at(whole / 2) as f64;
    // 1.4826 times the median distance is a standard deviation where things are normal.
    let mut distances: Vec<f64> = counts.iter().map(|count| (*count as f64 - usual).abs()).collect();
    distances.extend(std::iter::repeat_n(usual, quiet.min(1_000_000)));
    distances.sort_by(f64::total_cmp);
    let scatter = 1.4826 * distances.get(distances.len() / 2).copied().unwrap_or(0.0);
    let least = (usual + 5.0 * scatter).max(usual * 2.0).max(10.0);
    let mut runs: Vec<(i64, i64)> = Vec::new();
    for (minute, count) in &minutes {
        if (*count as f64) < least {
            continue;
        }
        match runs.last_mut() {
            Some((_, end)) if *minute <= *end + 3 => *end = *minute,
            _ => runs.push((*minute, *minute)),
        }
    }
    let mut spikes: Vec<Spike> =
        runs.into_iter().filter_map(|run| spike(run, usual, judged, books, names, world)).collect();
    spikes.sort_by_key(|spike| std::cmp::Reverse(spike.lost));
    spikes.truncate(MOST);
    spikes
}

fn spike(
    (start, end): (i64, i64),
    usual: f64,
    judged: &[Judged<'_>],
    books: &Books,
    names: &[String],
    world: &World,
) -> Option<Spike> {
    let (from, to) = (start * 60 * SECOND, (end + 1) * 60 * SECOND);
    let first = judged.partition_point(|one| one.loss.end < from);
    let own = &judged[first..first + judged[first..].partition_point(|one| one.loss.end < to)];
    let mut causes: BTreeMap<Cause, u64> = BTreeMap::new();
    let mut pods: BTreeMap<&str, u64> = BTreeMap::new();
    for one in own {
        *causes.entry(one.cause).or_default() += one.loss.weight;
        let address = books.symbols.text(one.loss.backend);
        if let Some(life) = world.at(&address, one.loss.end) {
            *pods.entry(&life.name).or_default() += one.loss.weight;
        }
    }
    let (cause, _) = causes.iter().max_by_key(|(_, count)| **count)?;
    let mut events: Vec<Coincidence> = Vec::new();
    let near = books.events.partition_point(|told| told.event.at < from - BEFORE);
    for told in books.events[near..].iter().take_while(|told| told.event.at < to) {
        let event = &told.event;
        // What begins after the worst is over explains nothing.
        if matches!(event.kind, EventKind::Started | EventKind::Ready | EventKind::NotReady) {
            continue;
        }
        let same_pod = event.subject.strip_prefix("Pod/").is_some_and(|name| pods.contains_key(name));
        if let Some(known) = events.iter_mut().find(|known| known.kind == event.kind) {
            known.count += 1;
            known.same_pod |= same_pod;
        } else if events.len() < EVENTS {
            events.push(Coincidence {
                kind: event.kind,
                count: 1,
                subject: event.subject.clone(),
                words: event.words.clone(),
                at: show(event.at),
                same_pod,
                cite: cite(told.place, books, names),
            });
        }
    }
    Some(Spike {
        start: show(from),
        start_s: start * 60,
        length_s: (end - start + 1) * 60,
        lost: own.iter().map(|one| one.loss.weight).sum(),
        usual_a_minute: usual,
        cause: *cause,
        events,
    })
}

/// Losses by hour of the day, and whether the days are alike.
pub fn periodicity(judged: &[Judged<'_>], span: Option<(Micros, Micros)>) -> ([u64; 24], String) {
    let mut hours = [0; 24];
    let mut by_hour: BTreeMap<i64, f64> = BTreeMap::new();
    for one in judged {
        hours[hour_of_day(one.loss.end)] += one.loss.weight;
        *by_hour.entry(one.loss.end.div_euclid(3600 * SECOND)).or_default() += one.loss.weight as f64;
    }
    let Some((first, last)) = span else { return (hours, "no losses".into()) };
    let (first, last) = (first.div_euclid(3600 * SECOND), last.div_euclid(3600 * SECOND));
    if last - first < 47 {
        return (hours, "less than two days: whether it repeats daily can not be told".into());
    }
    let series: Vec<f64> =
        (first..=last).take(24 * 400).map(|hour| by_hour.get(&hour).copied().unwrap_or(0.0)).collect();
    let mean = series.iter().sum::<f64>() / series.len() as f64;
    let variance: f64 = series.iter().map(|n| (n - mean).powi(2)).sum();
    let shifted: f64 = series.iter().zip(&series[24..]).map(|(a, b)| (a - mean) * (b - mean)).sum();
    let alike =
        if variance > 0.0 { shifted / variance * series.len() as f64 / (series.len() - 24) as f64 } else { 0.0 };
    let words = if alike > 0.5 { "the days are alike: look for what runs daily" } else { "no daily rhythm" };
    (hours, format!("{words} (correlation with the day before {alike:.2})"))
}
