//! The one place that reads the clock.

use std::time::Instant;

/// Now.
#[expect(clippy::disallowed_methods, reason = "measuring is what this crate is for; all of it reads the clock here")]
pub fn now() -> Instant {
    Instant::now()
}
