//! A finding: something that will lose, or has lost, requests, with where it is and what to do.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Cause;

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Worth knowing; loses nothing by itself.
    Note,
    /// Loses requests under some conditions.
    Warning,
    /// Loses requests at every termination.
    Error,
}

/// A place in something that was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Location {
    /// A file's path, or another name of the source (`-`, `pod/web-1`).
    pub source: String,
    /// The line, from 1; 0 where the source has no lines.
    pub line: u32,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// The rule's name, such as `prestop-exceeds-grace`.
    pub rule: String,
    /// The cause of the loss it leads to.
    pub cause: Cause,
    /// How much it matters.
    pub severity: Severity,
    /// What is wrong, in one sentence with the figures.
    pub message: String,
    /// Where.
    pub location: Option<Location>,
    /// How long the loss window is, where the arithmetic gives one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub window: Option<Duration>,
    /// What to do.
    pub fix: String,
}
