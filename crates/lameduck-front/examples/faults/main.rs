//! The other ends of `cargo xtask soak`: an app and clients that do to the front what apps and clients do to a proxy in a bad
//! year. What may fail here is anything but the truth: an answer that is complete is the answer to its request.
//!
//! `faults FRONT APP SECONDS SESSIONS_A_SECOND SEED`; prints what was seen as a line of JSON.
#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program at the edge, for one test"
)]

mod app;
mod client;
mod http2;
mod wire;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::task::{LocalSet, spawn_local};
use tokio::time::sleep;

/// How long sessions have to end by themselves when the load is over; then they end with their process.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// What everybody shares.
pub struct World {
    seed: Cell<u64>,
    ids: Cell<u64>,
    open: Cell<u64>,
    seen: RefCell<BTreeMap<String, u64>>,
    wrong: RefCell<Vec<String>>,
}

impl World {
    /// A number below `n` (xorshift64*; Marsaglia 2003).
    pub fn below(&self, n: u64) -> u64 {
        let mut x = self.seed.get();
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.seed.set(x);
        (x.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % n
    }

    /// Whether it happens, so many times of a hundred.
    pub fn chance(&self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of them.
    pub fn pick<'a, T>(&self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len() as u64) as usize]
    }

    /// Waits for less than this.
    pub async fn pause(&self, most_ms: u64) {
        sleep(Duration::from_millis(self.below(most_ms))).await;
    }

    /// A name for a request that no other has.
    pub fn id(&self) -> u64 {
        self.ids.set(self.ids.get() + 1);
        self.ids.get()
    }

    /// Counts.
    pub fn saw(&self, what: impl Into<String>) {
        *self.seen.borrow_mut().entry(what.into()).or_default() += 1;
    }

    /// What must never be.
    pub fn wrong(&self, what: String) {
        self.saw("WRONG");
        let mut wrong = self.wrong.borrow_mut();
        if wrong.len() < 20 {
            wrong.push(what);
        }
    }
}

/// The content of a request or an answer: no other has the same.
pub fn content(id: u64, length: usize) -> Vec<u8> {
    (0..length as u64).map(|at| b'a' + ((id * 31 + at * 7 + at / 26 * id) % 26) as u8).collect()
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [front, app, seconds, rate, seed] = &args[..] else { panic!("faults FRONT APP SECONDS RATE SEED") };
    let seed: u64 = seed.parse().unwrap();
    let until = Instant::now() + Duration::from_secs_f64(seconds.parse().unwrap());
    let every = Duration::from_secs_f64(1.0 / rate.parse::<f64>().unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let world = Rc::new(World {
        seed: Cell::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
        ids: Cell::new(seed << 32),
        open: Cell::new(0),
        seen: RefCell::default(),
        wrong: RefCell::default(),
    });
    LocalSet::new().block_on(&runtime, async {
        spawn_local(app::run(Rc::clone(&world), app.clone()));
        let mut next = Instant::now();
        while Instant::now() < until {
            let (world, front) = (Rc::clone(&world), front.clone());
            world.open.set(world.open.get() + 1);
            spawn_local(async move {
                client::session(&world, &front).await;
                world.open.set(world.open.get() - 1);
            });
            next += every;
            sleep(next.saturating_duration_since(Instant::now())).await;
        }
        let over = Instant::now() + LAST_WORDS;
        while world.open.get() > 0 && Instant::now() < over {
            sleep(Duration::from_millis(20)).await;
        }
    });
    let summary = serde_json::json!({
        "open_at_end": world.open.get(), "seen": *world.seen.borrow(), "wrong": *world.wrong.borrow(),
    });
    println!("{summary}");
}
