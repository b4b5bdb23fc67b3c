//! The termination timeline, as data and laws.
//!
//! The end of a process that serves traffic is a race of two lanes: the *process lane* (deletion, preStop, SIGTERM,
//! stop accepting, exit) and the *routing lane* (endpoint removed, no new connections, no new requests). A request is
//! lost exactly when the routing lane still sends what the process lane no longer serves.
//!
//! Every verb of lameduck speaks these types: `check` predicts a [`Timeline`], `run` enacts one, `drill` observes one and
//! `explain` reconstructs one. This crate does no I/O, reads no clock and no environment, so nothing in it can fail for
//! a reason outside its arguments.

pub mod budget;
pub mod catalog;
pub mod cause;
pub mod duration;
pub mod finding;
pub mod front;
pub mod judge;
pub mod law;
pub mod ledger;
pub mod report;
pub mod timeline;
pub mod words;

pub use budget::{Budget, Impossible, Shares};
pub use cause::Cause;
pub use finding::{Finding, Location, Severity};
pub use judge::{Attempt, ServerSide, Verdict, judge};
pub use ledger::{Ledger, Outcome, Tally};
pub use timeline::{Lane, Moment, Provenance, Timeline};
