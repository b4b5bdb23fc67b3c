//! `lameduck run` with real children, most of them misbehaving.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "tests are at the edge: they read clocks and environments, and fail by panic"
)]

mod children;
mod control;
mod drain;
mod early;
#[cfg(feature = "cluster")]
mod endpoints;
#[cfg(feature = "front")]
mod front;
mod order;
mod stand_in;
mod storm;
mod support;
mod terminal;
