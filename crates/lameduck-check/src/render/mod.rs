//! The answer, written: for people, for programs, for the services that show findings.

mod draw;
mod formats;
mod html;
mod text;

pub use formats::{github, json, junit, sarif};
pub use html::html;
pub use text::{end, finding, links, text};
