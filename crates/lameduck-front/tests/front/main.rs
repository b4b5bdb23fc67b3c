//! The front on real sockets: an app in threads, clients that look at every byte.
#![expect(
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "tests are at the edge: they read clocks, and fail by panic"
)]

mod http1;
mod http2;
mod rig;
mod traps;
