//! When this machine stood still: a thread that wants to run every 10 ms, and says how late it was at the worst.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How often it looks.
const EVERY: Duration = Duration::from_millis(10);

/// A watch, until it is asked.
pub struct Stalls {
    over: Arc<AtomicBool>,
    longest_ms: Arc<AtomicU64>,
}

impl Stalls {
    /// Begins to watch.
    pub fn watch() -> Stalls {
        let stalls = Stalls { over: Arc::default(), longest_ms: Arc::default() };
        let (over, longest) = (Arc::clone(&stalls.over), Arc::clone(&stalls.longest_ms));
        thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                let before = Instant::now();
                thread::sleep(EVERY);
                let late = before.elapsed().saturating_sub(EVERY).as_millis() as u64;
                longest.fetch_max(late, Ordering::Relaxed);
            }
        });
        stalls
    }

    /// Ends it; the longest that nothing ran.
    pub fn longest(self) -> Duration {
        self.over.store(true, Ordering::Relaxed);
        Duration::from_millis(self.longest_ms.load(Ordering::Relaxed))
    }
}
