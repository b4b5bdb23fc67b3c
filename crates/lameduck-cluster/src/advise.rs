//! What `lameduck check` finds in one object, as warnings.

use std::path::PathBuf;

use lameduck_check::{Options, Rendered, severity};
use lameduck_core::Severity;
use serde_json::Value;

/// A finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advice {
    /// How bad it is.
    pub severity: Severity,
    /// In one line.
    pub text: String,
}

/// The kinds that have pods, and where their template is.
pub fn template(kind: &str) -> Option<&'static str> {
    match kind {
        "Pod" => Some(""),
        "CronJob" => Some("/spec/jobTemplate/spec/template"),
        "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "ReplicationController" | "Job" => {
            Some("/spec/template")
        }
        _ => None,
    }
}

/// Whether somebody else made it, who was told already.
pub fn has_controller(object: &Value) -> bool {
    let owners = object.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    owners.into_iter().flatten().any(|owner| owner.get("controller").and_then(Value::as_bool) == Some(true))
}

/// The findings, the worst first.
pub fn advise(object: &Value) -> Vec<Advice> {
    // A name below what is no folder: files that the object names can not be read, wherever they would be.
    let nowhere = PathBuf::from("/dev/null/a/b/c/d/e/f/object.yaml");
    let rendered = Rendered { path: nowhere, from_template: false, text: object.to_string() };
    let options = Options { rendered: vec![rendered], ..Options::default() };
    // One object is held in memory: there is nothing that could not be read again.
    let found = lameduck_check::check(&options).findings().unwrap_or_default();
    let mut findings: Vec<Advice> = found
        .iter()
        .filter_map(|finding| {
            let text = format!("{} {}: {}; {}", finding.severity, finding.rule, finding.message, finding.help);
            Some(Advice { severity: severity(finding.severity)?, text })
        })
        .collect();
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    findings
}
