//! What a simulation says: the contract `lameduck.simulate/1`, documented in `docs/simulate.md`.

use serde::Serialize;

use crate::estimate::{Estimate, Options, Step};
use crate::fleet::Fleet;
use crate::traffic::Assumption;

/// The schema of [`Document`].
pub const SCHEMA: &str = "lameduck.simulate/1";

/// A workload that could not be simulated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// Its name.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// Everything there is to say.
#[derive(Debug, Clone, Serialize)]
pub struct Document {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// The program's version.
    pub version: &'static str,
    /// How it was simulated.
    pub options: Options,
    /// The fixes that are made from the start.
    pub fixes: Vec<&'static str>,
    /// The fleet, with these fixes.
    pub fleet: Fleet,
    /// What was assumed.
    pub assumed: Vec<Assumption>,
    /// What was left out.
    pub left_out: Vec<LeftOut>,
    /// What is to be expected.
    #[serde(flatten)]
    pub estimate: Estimate,
    /// Each further fix by itself, what gives the most first.
    pub effects: Vec<Step>,
    /// One fix on top of the other; empty where it was not asked for.
    pub staircase: Vec<Step>,
}
