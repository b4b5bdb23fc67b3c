//! Results as text, JSON, `JUnit` and HTML: pure functions of a result.

mod html;
mod json;
mod junit;
mod svg;
mod text;
pub(crate) mod words;

pub use html::{compare_html, html};
pub use json::{compare_json, json};
pub use junit::{compare_junit, junit};
pub use text::{compare_text, text};
