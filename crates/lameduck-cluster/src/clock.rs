//! Where this crate reads the clock.

use std::time::SystemTime;

/// The time by which certificates are judged.
#[expect(clippy::disallowed_methods, reason = "this crate's one place for it")]
pub fn now() -> SystemTime {
    SystemTime::now()
}
