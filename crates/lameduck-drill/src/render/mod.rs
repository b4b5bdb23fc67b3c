//! Results as text, JSON, `JUnit` and HTML: pure functions of a result.

mod json;
mod text;
pub(crate) mod words;

pub use json::{compare_json, json};
pub use text::{compare_text, text};
