//! The one place that reads the clock. Everything else holds offsets from the start of a run.

use std::time::Duration;

use tokio::time::Instant;

/// The clock of one run. Its time is tokio's, so that a test can pause it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    origin: Instant,
}

impl Clock {
    /// Starts at zero now.
    pub(crate) fn start() -> Clock {
        Clock { origin: Instant::now() }
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
#[expect(clippy::disallowed_methods, reason = "an id must differ between runs on one machine; the clock does that")]
pub(crate) fn run_id() -> String {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let mut mixed = crate::rng::Rng::new(since_epoch.as_nanos() as u64 ^ u64::from(std::process::id()).rotate_left(40));
    format!("{:08x}", mixed.next_u64() as u32)
}
