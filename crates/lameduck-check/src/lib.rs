//! Predicts lost requests before anything runs.
#![expect(dead_code, reason = "being built")]

#[cfg(test)]
mod oracle;
pub mod docker;
pub mod launch;
pub mod shell;
pub mod span;
