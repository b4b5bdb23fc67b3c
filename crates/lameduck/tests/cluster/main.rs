//! `lameduck webhook`, the program: as API servers meet it, and where there is one, before a real one.

mod client;
mod deploy;
mod real;
mod rolling;
mod webhook;
