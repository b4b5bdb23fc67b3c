//! When each request is meant to be sent: fixed by the seed before anything is sent, whatever the service then does.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::rng::Rng;

/// How intended send times are spaced.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Spacing {
    /// One every `1/rate` seconds.
    #[default]
    Constant,
    /// Poisson arrivals: exponential gaps with mean `1/rate`.
    Exponential,
}

impl Spacing {
    /// The spacing with this id: `constant` or `exponential`.
    pub fn from_id(id: &str) -> Option<Spacing> {
        match id {
            "constant" => Some(Spacing::Constant),
            "exponential" => Some(Spacing::Exponential),
            _ => None,
        }
    }
}

/// The intended send times, one after another, for ever.
#[derive(Debug, Clone)]
pub(crate) struct Schedule {
    rng: Rng,
    spacing: Spacing,
    rate: f64,
    sent: u64,
    at_s: f64,
}

impl Schedule {
    pub(crate) fn new(rate: f64, spacing: Spacing, seed: u64) -> Schedule {
        Schedule { rng: Rng::new(seed), spacing, rate, sent: 0, at_s: 0.0 }
    }

    /// The next intended time, an offset from the start of the load.
    pub(crate) fn next(&mut self) -> Duration {
        self.sent += 1;
        self.at_s = match self.spacing {
            // From the count, not by adding up: sums of 1/rate drift.
            Spacing::Constant => self.sent as f64 / self.rate,
            Spacing::Exponential => self.at_s + self.rng.exponential() / self.rate,
        };
        Duration::from_secs_f64(self.at_s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_depend_on_the_seed_alone_and_keep_the_rate() {
        for spacing in [Spacing::Constant, Spacing::Exponential] {
            let times = |seed| {
                let mut schedule = Schedule::new(200.0, spacing, seed);
                (0..10_000).map(|_| schedule.next()).collect::<Vec<_>>()
            };
            let first = times(1);
            assert_eq!(first, times(1));
            assert!(first.is_sorted());
            let length = first[9_999].as_secs_f64();
            assert!((length - 50.0).abs() < 2.0, "{spacing:?}: {length}");
            assert_eq!(first == times(2), spacing == Spacing::Constant);
        }
    }
}
