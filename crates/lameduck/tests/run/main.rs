//! `lameduck run` with real children, most of them misbehaving.
#![expect(clippy::disallowed_methods, reason = "tests are at the edge: they read clocks and environments")]

mod children;
mod control;
mod drain;
mod early;
mod stand_in;
mod storm;
mod support;
mod terminal;
