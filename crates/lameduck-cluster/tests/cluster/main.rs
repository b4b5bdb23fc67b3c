//! The parts of the webhook that meet others: an API server's objects, TLS, registries. Over real sockets.
#![expect(
    clippy::disallowed_methods,
    clippy::needless_pass_by_value,
    clippy::unwrap_used,
    reason = "tests are at the edge: they read clocks and environments, and fail by panic"
)]

mod api_server;
mod certificates;
mod registries;
mod reviews;
