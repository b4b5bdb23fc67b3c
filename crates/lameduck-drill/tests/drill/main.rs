//! The drill against servers whose losses are known.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking, helpers included")]

mod elsewhere;
mod events;
mod fixture;
mod injected;
mod protocols;
