//! The one place that reads the clock. Everything else holds offsets from the start of a run.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// The clock of one run. Its time is tokio's, so that a test can pause it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    origin: Instant,
    /// The same moment, since 1970: for what is written beside other people's logs.
    wall: Duration,
}

impl Clock {
    /// Starts at zero now.
    pub(crate) fn start() -> Clock {
        Clock { origin: Instant::now(), wall: since_epoch() }
    }

    /// Its zero, since 1970.
    pub(crate) fn origin(self) -> Duration {
        self.wall
    }

    /// Time since the start.
    pub(crate) fn now(self) -> Duration {
        self.origin.elapsed()
    }

    /// Waits until `at`; returns at once where that has passed.
    pub(crate) async fn until(self, at: Duration) {
        tokio::time::sleep_until(self.origin + at).await;
    }
}

/// A number that differs from run to run, for the ids of requests. It decides nothing that is measured.
pub(crate) fn run_id() -> String {
    let mut mixed =
        crate::rng::Rng::new(since_epoch().as_nanos() as u64 ^ u64::from(std::process::id()).rotate_left(40));
    format!("{:08x}", mixed.next_u64() as u32)
}

#[expect(
    clippy::disallowed_methods,
    reason = "ids that differ between runs, and logs beside others', need the day's time"
)]
fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
