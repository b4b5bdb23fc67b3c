//! Losses by what they have in common, over time, and what they cost.

use std::collections::{BTreeMap, HashMap};

use lameduck_core::Cause;
use serde::Serialize;

use super::Judged;
use crate::books::{Books, Loss, Minute};
use crate::time::{Micros, SECOND};

/// Rows of each table.
const ROWS: usize = 20;

/// A row of a table.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Of what.
    pub name: String,
    /// Losses.
    pub lost: u64,
    /// By cause.
    pub causes: BTreeMap<Cause, u64>,
}

/// A span of time with its losses.
#[derive(Debug, Clone, Serialize)]
pub struct Bin {
    /// Its beginning, seconds since 1970.
    pub start_s: i64,
    /// Requests.
    pub requests: u64,
    /// Losses by cause.
    pub causes: BTreeMap<Cause, u64>,
}

/// What it cost those who waited.
#[derive(Debug, Clone, Serialize)]
pub struct Cost {
    /// Losses of known duration.
    pub requests: u64,
    /// What they waited together, hours.
    pub hours: f64,
    /// The same for a day.
    pub hours_a_day: f64,
    /// The mean, seconds.
    pub mean_s: f64,
}

/// Requests by minute, of the kind of log that has most: hops in a row see the same requests.
pub(super) fn main_minutes(books: &Books) -> BTreeMap<i64, Minute> {
    let mut sums: HashMap<u8, u64> = HashMap::new();
    for ((format, _), minute) in &books.minutes {
        *sums.entry(*format).or_default() += minute.requests;
    }
    let Some((main, _)) = sums.into_iter().max_by_key(|(format, requests)| (*requests, *format)) else {
        return BTreeMap::new();
    };
    books
        .minutes
        .iter()
        .filter(|((format, _), _)| *format == main)
        .map(|((_, minute), sums)| (*minute, *sums))
        .collect()
}

pub(super) fn rows(judged: &[Judged<'_>], name: impl Fn(&Loss) -> String) -> Vec<Row> {
    let mut sums: HashMap<String, BTreeMap<Cause, u64>> = HashMap::new();
    for one in judged {
        let name = name(one.loss);
        let name = if name.is_empty() { "(not in the log)".to_owned() } else { name };
        *sums.entry(name).or_default().entry(one.cause).or_default() += one.loss.weight;
    }
    let mut rows: Vec<Row> =
        sums.into_iter().map(|(name, causes)| Row { name, lost: causes.values().sum(), causes }).collect();
    rows.sort_by(|a, b| b.lost.cmp(&a.lost).then_with(|| a.name.cmp(&b.name)));
    rows.truncate(ROWS);
    rows
}

pub(super) fn statuses(judged: &[Judged<'_>]) -> BTreeMap<u16, u64> {
    let mut sums = BTreeMap::new();
    for one in judged {
        *sums.entry(one.loss.status).or_default() += one.loss.weight;
    }
    sums
}

/// Bins of a length that gives a picture between 60 and 300 of them.
pub(super) fn bins(
    judged: &[Judged<'_>],
    minutes: &BTreeMap<i64, Minute>,
    span: Option<(Micros, Micros)>,
) -> (i64, Vec<Bin>) {
    let Some((first, last)) = span else { return (60, Vec::new()) };
    let seconds = ((last - first) / SECOND).max(1);
    let lengths = [1, 2, 5, 10, 30, 60, 300, 600, 900, 1800, 3600, 10_800, 21_600, 86_400];
    let step_s =
        lengths.into_iter().find(|step| seconds / step <= 300).unwrap_or(86_400 * (1 + seconds / 86_400 / 300));
    let begin = first.div_euclid(SECOND).div_euclid(step_s);
    let count = (last.div_euclid(SECOND).div_euclid(step_s) - begin + 1).clamp(1, 400);
    let mut bins: Vec<Bin> =
        (0..count).map(|n| Bin { start_s: (begin + n) * step_s, requests: 0, causes: BTreeMap::new() }).collect();
    let place = |second: i64| usize::try_from(second.div_euclid(step_s) - begin).ok();
    for (minute, sums) in minutes {
        if let Some(bin) = place(minute * 60).and_then(|place| bins.get_mut(place)) {
            bin.requests += sums.requests;
        }
    }
    for one in judged {
        if let Some(bin) = place(one.loss.end.div_euclid(SECOND)).and_then(|place| bins.get_mut(place)) {
            *bin.causes.entry(one.cause).or_default() += one.loss.weight;
        }
    }
    (step_s, bins)
}

pub(super) fn cost(judged: &[Judged<'_>], span: Option<(Micros, Micros)>, client_wait: Micros) -> Option<Cost> {
    let (mut requests, mut waited) = (0, 0.0);
    for one in judged {
        if one.loss.took.is_some() || client_wait > 0 {
            let each = one.loss.took.unwrap_or(0) + client_wait;
            requests += one.loss.weight;
            waited += each as f64 / 1e6 * one.loss.weight as f64;
        }
    }
    let days = span.map_or(1.0, |(first, last)| ((last - first) as f64 / 86_400e6).max(1.0));
    (requests > 0).then(|| Cost {
        requests,
        hours: waited / 3600.0,
        hours_a_day: waited / 3600.0 / days,
        mean_s: waited / requests as f64,
    })
}
