//! Every exit status of lameduck, in one place. They are a contract: docs/exit-codes.md.
//!
//! `lameduck run` exits as its command does (128 + n where signal n ended it), with 125, 126 and 127 for its own failures,
//! as `env(1)`, `nohup(1)` and `timeout(1)` have them.

/// Done; for a drill: nothing was lost.
pub const OK: u8 = 0;
/// For `ready`: not ready. For a drill: requests were lost.
pub const NEGATIVE: u8 = 1;
/// The command line can not be understood.
pub const USAGE: u8 = 2;
/// For a drill: the evidence does not suffice.
pub const INCONCLUSIVE: u8 = 3;
/// For a check: something could not be read; the rest was checked.
pub const UNREADABLE: u8 = 3;
/// What was asked could not be set up or reached.
pub const SETUP: u8 = 4;
