//! The error budget: how much of it each cause has spent, and how fast it went.

use std::collections::BTreeMap;

use lameduck_core::Cause;
use serde::Serialize;

use crate::books::Minute;
use crate::report::Judged;
use crate::time::{SECOND, show};

/// The windows of the usual alerts, in hours.
const WINDOWS: [i64; 3] = [1, 6, 72];

/// An error budget.
#[derive(Debug, Clone, Serialize)]
pub struct Slo {
    /// The objective, 0 to 1.
    pub objective: f64,
    /// Requests.
    pub requests: u64,
    /// Requests that may be lost.
    pub budget: f64,
    /// What is spent of it; 1 is all.
    pub spent: f64,
    /// By cause.
    pub by_cause: BTreeMap<Cause, f64>,
    /// The worst of each window.
    pub burn: Vec<Burn>,
}

/// The fastest burn in a window.
#[derive(Debug, Clone, Serialize)]
pub struct Burn {
    /// Length, hours.
    pub window_h: i64,
    /// How many times faster than the budget allows; none where the logs are shorter than the window.
    pub rate: Option<f64>,
    /// When that window began.
    pub start: Option<String>,
}

/// The budget of an objective.
pub fn slo(objective: f64, judged: &[Judged<'_>], minutes: &BTreeMap<i64, Minute>) -> Slo {
    let allowed = 1.0 - objective;
    let requests: u64 = minutes.values().map(|minute| minute.requests).sum();
    let budget = requests as f64 * allowed;
    let mut lost: BTreeMap<i64, u64> = BTreeMap::new();
    let mut by_cause: BTreeMap<Cause, f64> = BTreeMap::new();
    for one in judged {
        *lost.entry(one.loss.end.div_euclid(60 * SECOND)).or_default() += one.loss.weight;
        *by_cause.entry(one.cause).or_default() += one.loss.weight as f64 / budget;
    }
    Slo {
        objective,
        requests,
        budget,
        spent: lost.values().sum::<u64>() as f64 / budget,
        by_cause,
        burn: WINDOWS.into_iter().map(|hours| burn(hours, allowed, &lost, minutes)).collect(),
    }
}

fn burn(window_h: i64, allowed: f64, failures: &BTreeMap<i64, u64>, minutes: &BTreeMap<i64, Minute>) -> Burn {
    let length = window_h * 60;
    let none = Burn { window_h, rate: None, start: None };
    let (Some((first, _)), Some((newest, _))) = (minutes.first_key_value(), minutes.last_key_value()) else {
        return none;
    };
    if newest - first + 1 < length {
        return none;
    }
    let (mut requests, mut failed, mut best) = (0u64, 0u64, (0.0, *first));
    for (minute, sums) in minutes {
        requests += sums.requests;
        failed += failures.get(minute).copied().unwrap_or(0);
        if let Some(gone) = minutes.get(&(minute - length)) {
            requests -= gone.requests;
            failed -= failures.get(&(minute - length)).copied().unwrap_or(0).min(failed);
        }
        let rate = failed as f64 / requests.max(1) as f64 / allowed;
        if rate > best.0 && minute - first + 1 >= length {
            best = (rate, minute - length + 1);
        }
    }
    Burn { window_h, rate: Some(best.0), start: Some(show(best.1 * 60 * SECOND)) }
}
