//! What a run tells while it lasts.

use std::time::Duration;

use lameduck_core::timeline::Moment;
use serde::{Deserialize, Serialize};

/// One piece of news. Times are on the run's clock, which starts with the first replica.
#[derive(Debug, Clone, PartialEq)]
pub enum Progress {
    /// A run begins.
    Began {
        /// Whether the command runs under the plan's wrap.
        wrapped: bool,
        /// Which round, from 1.
        round: usize,
        /// Of how many.
        rounds: usize,
    },
    /// The load begins.
    LoadBegan {
        /// When.
        at: Duration,
    },
    /// An event begins.
    Event {
        /// When.
        at: Duration,
        /// Which, as in the plan.
        event: String,
    },
    /// Something happened to a replica.
    Moment {
        /// When.
        at: Duration,
        /// Its name.
        replica: String,
        /// What.
        moment: Moment,
    },
    /// Every quarter of a second: the counts so far.
    Tick(Tick),
}

/// The counts so far. Verdicts come at the end, with the whole evidence; until then a broken exchange is `failed`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tick {
    /// When.
    #[serde(rename = "at_s", with = "lameduck_core::duration::seconds")]
    pub at: Duration,
    /// Requests sent.
    pub sent: u64,
    /// First attempts that a whole answer below 500 ended.
    pub answered: u64,
    /// First attempts that ended any other way.
    pub failed: u64,
    /// Requests that nothing was routed to.
    pub unrouted: u64,
    /// Requests for which no connection was left.
    pub dropped: u64,
}

impl Tick {
    /// First attempts without an end yet.
    pub fn in_flight(&self) -> u64 {
        self.sent - self.answered - self.failed
    }

    /// The counts of several loads together, at the latest of their times.
    pub fn together(ticks: impl IntoIterator<Item = Tick>) -> Tick {
        ticks.into_iter().fold(Tick::default(), |all, tick| Tick {
            at: all.at.max(tick.at),
            sent: all.sent + tick.sent,
            answered: all.answered + tick.answered,
            failed: all.failed + tick.failed,
            unrouted: all.unrouted + tick.unrouted,
            dropped: all.dropped + tick.dropped,
        })
    }
}
