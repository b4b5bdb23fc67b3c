//! `lameduck webhook`, the program: as API servers meet it, and where there is one, before a real one.
#![expect(
    clippy::disallowed_methods,
    clippy::needless_pass_by_value,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests are at the edge: they read clocks and environments, and fail by panic"
)]

mod client;
mod deploy;
mod endpoints;
mod kubectl;
mod real;
mod rights;
mod rolling;
mod survives;
mod webhook;
