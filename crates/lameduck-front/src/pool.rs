//! Idle connections to the app, and what is known of how long it keeps them.

use std::cell::{Cell, RefCell};

use lameduck_core::front::{Page, Slot};

use crate::wire::Stream;

/// Idle connections kept.
const MOST: usize = 4096;
/// Kept this long where the app's idle timeout is not known, in ms.
const UNKNOWN_MS: u64 = 60_000;
/// A request that must not be sent twice goes only over a connection used within this, in ms.
const FRESH_MS: u64 = 1000;
/// How long an app may be held up between what arrives and its look at the clock, in ms. Gunicorn closes a connection whose
/// 2 s are over though a request waits in it unread, and on a machine with too much to do they soon are.
const HELD_UP_MS: u64 = 4000;

/// The pool: last in, first out, so that what is not needed grows old.
#[derive(Debug)]
pub struct Pool {
    idle: RefCell<Vec<Idle>>,
    /// The app's idle timeout as learned, in ms; 0: not known.
    timeout_ms: Cell<u64>,
    page: Page,
}

#[derive(Debug)]
struct Idle {
    stream: Stream,
    since_ms: u64,
}

impl Pool {
    /// An empty pool.
    pub fn new(page: Page) -> Pool {
        Pool { idle: RefCell::default(), timeout_ms: Cell::new(0), page }
    }

    /// A connection that is still open, as far as can be known.
    pub fn take(&self, now_ms: u64, may_repeat: bool) -> Option<Stream> {
        let limit = if may_repeat { self.limit_ms() } else { self.once_ms() };
        if limit == 0 {
            return None;
        }
        let mut idle = self.idle.borrow_mut();
        while let Some(last) = idle.last() {
            if now_ms.saturating_sub(last.since_ms) > limit {
                return None;
            }
            let last = idle.pop()?;
            if last.stream.is_quiet() {
                return Some(last.stream);
            }
            self.closed_by_app(now_ms, last.since_ms);
        }
        None
    }

    /// Takes a connection back after an answer, and learns what the app said with it of how long it keeps one, in s.
    pub fn give_back(&self, stream: Stream, idle_hint_s: Option<u64>, now_ms: u64) {
        if let Some(timeout_s) = idle_hint_s {
            self.learn_ms(timeout_s.saturating_mul(1000));
        }
        let mut idle = self.idle.borrow_mut();
        if idle.len() < MOST && self.limit_ms() > 0 {
            idle.push(Idle { stream, since_ms: now_ms });
        }
    }

    fn learn_ms(&self, timeout_ms: u64) {
        let known = self.timeout_ms.get();
        if known == 0 || timeout_ms < known {
            self.timeout_ms.set(timeout_ms.max(1));
            self.page.set(Slot::UpstreamIdleMs, timeout_ms.max(1));
        }
    }

    /// A connection ended while it was idle: the app keeps them no longer than this. (An app that restarts closes all of
    /// them at once, whatever their age; to believe that of its timeout costs connects, not requests.)
    fn closed_by_app(&self, now_ms: u64, since_ms: u64) {
        self.page.add(Slot::UpstreamClosedIdle, 1);
        let idle_ms = now_ms.saturating_sub(since_ms);
        if idle_ms >= FRESH_MS {
            self.learn_ms(idle_ms);
        }
    }

    /// How long a connection may be idle and still be used: below the app's own timeout by a fifth, at most 1 s.
    fn limit_ms(&self) -> u64 {
        match self.timeout_ms.get() {
            0 => UNKNOWN_MS,
            timeout => timeout - (timeout / 5).min(1000),
        }
    }

    /// The same for a request that must not be sent twice; 0: it gets a connection of its own.
    fn once_ms(&self) -> u64 {
        match self.timeout_ms.get() {
            0 => FRESH_MS,
            timeout => timeout.saturating_sub(HELD_UP_MS).min(FRESH_MS),
        }
    }

    /// Lets go of connections that are too old, or ended.
    pub fn tick(&self, now_ms: u64) {
        let limit = self.limit_ms();
        self.idle.borrow_mut().retain(|idle| {
            if !idle.stream.is_quiet() {
                self.closed_by_app(now_ms, idle.since_ms);
                return false;
            }
            now_ms.saturating_sub(idle.since_ms) <= limit
        });
    }

    /// Lets go of all: the app was asked for a new connection and refused, so the old ones are of another life, and so is
    /// what they told of its timeout.
    pub fn clear(&self) {
        self.idle.borrow_mut().clear();
        self.timeout_ms.set(0);
    }
}
