//! The clock: milliseconds of `CLOCK_MONOTONIC`, which PID 1 reads too.

use rustix::time::{ClockId, clock_gettime};

/// Now, in ms, with the precision of a jiffy: enough for deadlines, and it costs next to nothing (`clock_gettime(2)`).
pub fn coarse_ms() -> u64 {
    ms(ClockId::MonotonicCoarse)
}

/// Now, in microseconds.
pub fn precise_us() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1000
}

/// The time of day, in microseconds since 1970.
pub fn wall_us() -> u64 {
    let now = clock_gettime(ClockId::Realtime);
    now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1000
}

fn ms(clock: ClockId) -> u64 {
    let now = clock_gettime(clock);
    now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000
}
