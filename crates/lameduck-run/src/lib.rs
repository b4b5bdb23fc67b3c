//! `lameduck run`: PID 1 that drains.
//!
//! [`machine`] decides, as a pure function of time and events; [`observe`] looks at the kernel's sockets; [`pid1`] is the
//! loop between them and the world. [`control`] is how the other verbs reach it, [`admin`] the HTTP endpoints, in a
//! process of their own; [`pod`] how those of one pod find each other. [`sys`] holds the only unsafe code.

pub mod admin;
pub mod control;
pub mod log;
pub mod machine;
pub mod observe;
pub mod options;
pub mod persona;
pub mod pid1;
pub mod pod;
pub mod processes;
pub mod signal;
pub mod sys;

pub use options::Options;

/// lameduck itself failed: bad options, an impossible budget, no way to start. As `env`, `nohup` and `timeout` have it.
pub const EXIT_OWN_FAILURE: u8 = 125;
/// The command was found but could not be executed (POSIX.1-2017, XCU 2.8.2).
pub const EXIT_NOT_EXECUTABLE: u8 = 126;
/// The command was not found (POSIX.1-2017, XCU 2.8.2).
pub const EXIT_NOT_FOUND: u8 = 127;
