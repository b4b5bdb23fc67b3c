//! What a rule says.

use lameduck_core::{Cause, Severity};
use serde::{Deserialize, Serialize};

use crate::edit::{Edit, Fix};
use crate::span::At;

/// How certain a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Confidence {
    /// A link or a version was taken as likely.
    Low,
    Medium,
    /// Everything it rests on was read or measured.
    High,
}

impl Confidence {
    pub const fn id(self) -> &'static str {
        match self {
            Confidence::Low => "low",
            Confidence::Medium => "medium",
            Confidence::High => "high",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// Filled in by the registry.
    #[serde(skip)]
    pub rule: &'static str,
    pub cause: Cause,
    pub severity: Severity,
    pub confidence: Confidence,
    pub at: At,
    pub message: String,
    pub help: String,
    pub fix: Option<Fix>,
    /// The workload it was found in.
    pub workload: String,
}

impl Finding {
    pub fn new(cause: Cause, severity: Severity, at: At, message: impl Into<String>) -> Finding {
        Finding {
            rule: "",
            cause,
            severity,
            confidence: Confidence::High,
            at,
            message: message.into(),
            help: String::new(),
            fix: None,
            workload: String::new(),
        }
    }

    #[must_use]
    pub fn help(self, help: impl Into<String>) -> Finding {
        Finding { help: help.into(), ..self }
    }

    #[must_use]
    pub fn confidence(self, confidence: Confidence) -> Finding {
        Finding { confidence, ..self }
    }

    /// With a fix, if there is something to edit.
    #[must_use]
    pub fn fix(self, safe: bool, what: impl Into<String>, edits: Vec<Edit>) -> Finding {
        let fix = (!edits.is_empty()).then(|| Fix { safe, what: what.into(), edits });
        Finding { fix, ..self }
    }
}

/// The id of a severity in every output.
pub const fn severity_id(severity: Severity) -> &'static str {
    match severity {
        Severity::Note => "note",
        Severity::Warning => "warning",
        Severity::Error => "error",
    }
}
