//! Expected lost requests a day of a whole fleet, by cause, and what each fix gives.
//!
//! [`fleet`] is what is simulated, as data; [`engine`] simulates a run; [`estimate`](mod@estimate) makes figures of runs; [`fix`] changes a fleet;
//! [`traffic`] reads what no manifest says; [`render`] writes. [`exact`] does the same one request at a time: it is what tests
//! hold the engine to.
//!
//! Ends of pods are single events. Requests are not: what they lose between events is drawn from its exact law, see [`ending`]
//! and [`race`]. No I/O, no clock: a program gives the same figures for the same fleet and seed.

pub mod ending;
pub mod engine;
pub mod estimate;
pub mod exact;
pub mod fix;
pub mod fleet;
pub mod race;
pub mod render;
pub mod report;
pub mod rng;
pub mod service_time;
#[cfg(test)]
mod testing;
pub mod traffic;

pub use estimate::{Estimate, Figure, Options, Step, effects, estimate, staircase};
pub use fix::{Fix, fixed};
pub use fleet::{Fleet, Service};
