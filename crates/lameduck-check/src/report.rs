//! What a check says, ready to be written.

use lameduck_core::Cause;
use serde::Serialize;

use crate::files::Files;
use crate::finding::{Finding, severity_id};
use crate::predict::{Prediction, When};
use crate::read::Unparsed;

/// The schema of [`Document`].
pub const SCHEMA: &str = "lameduck.check/1";

/// A fix, as shown.
#[derive(Debug, Clone, Serialize)]
pub struct FixShown {
    /// `--fix` makes it; otherwise only `--fix=unsafe`.
    pub safe: bool,
    /// What it changes on the timeline.
    pub changes: String,
    /// The files it edits.
    pub files: Vec<String>,
}

/// A finding, as shown.
#[derive(Debug, Clone, Serialize)]
pub struct FindingShown {
    /// The rule's name.
    pub rule: &'static str,
    /// The cause of the loss it leads to.
    pub cause: Cause,
    /// `note`, `warning`, `error`.
    pub severity: &'static str,
    /// `low`, `medium`, `high`.
    pub confidence: &'static str,
    /// The path.
    pub file: String,
    /// From 1.
    pub line: u32,
    /// In characters, from 1.
    pub column: u32,
    /// What is wrong, with the figures.
    pub message: String,
    /// What to do.
    pub help: String,
    /// What `--fix` would do; null where nothing is certain enough.
    pub fix: Option<FixShown>,
    /// The workload it is about.
    pub workload: String,
    /// The finding is about what a template was rendered to, at this line of it; `line` is the template's line that this
    /// comes from, as far as the two texts show.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rendered_line: Option<u32>,
}

/// What TERM does.
#[derive(Debug, Clone, Serialize)]
pub struct TermShown {
    /// `graceful`, `ignored`, `killed-now`, `told-then-killed`, `unknown`.
    pub outcome: &'static str,
    /// The command line of PID 1.
    pub pid1: Option<String>,
    /// The app's.
    pub app: Option<String>,
    /// Why the outcome is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unknown_because: Option<String>,
}

/// A moment of the timeline.
#[derive(Debug, Clone, Serialize)]
pub struct EntryShown {
    /// `process` or `routing`.
    pub lane: lameduck_core::Lane,
    /// What happens.
    pub moment: lameduck_core::Moment,
    /// Seconds after the deletion, at the earliest.
    pub at_s: f64,
    /// At the latest; null: not known.
    pub until_s: Option<f64>,
}

/// A loss window.
#[derive(Debug, Clone, Serialize)]
pub struct WindowShown {
    /// Why requests are lost in it.
    pub cause: Cause,
    /// Seconds after the deletion.
    pub start_s: f64,
    /// At least; 0: what is in flight at that moment.
    pub length_s: f64,
    /// At most; null: not known.
    pub length_max_s: Option<f64>,
    /// At `--rate`: requests lost per termination, at least and at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost: Option<(f64, Option<f64>)>,
}

/// A workload, as shown.
#[derive(Debug, Clone, Serialize)]
pub struct WorkloadShown {
    /// Its name; a Dockerfile's is its path.
    pub name: String,
    /// The path.
    pub file: String,
    /// Its kind.
    pub kind: &'static str,
    /// From the deletion to SIGKILL.
    pub grace_s: f64,
    /// What TERM does.
    pub term: TermShown,
    /// The two lanes.
    pub timeline: Vec<EntryShown>,
    /// When requests are lost.
    pub loss_windows: Vec<WindowShown>,
}

/// Something that was not understood.
#[derive(Debug, Clone, Serialize)]
pub struct UnparsedShown {
    /// The path.
    pub file: String,
    /// The line; 0 for the whole file.
    pub line: u32,
    /// Why.
    pub reason: String,
}

/// A finding that somebody took out, and why.
#[derive(Debug, Clone, Serialize)]
pub struct IgnoredShown {
    /// The rule.
    pub rule: &'static str,
    /// The path.
    pub file: String,
    /// The line.
    pub line: u32,
    /// The reason given.
    pub reason: String,
}

/// A workload, and the chain of links that was found for it.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    pub shown: WorkloadShown,
    pub links: Vec<String>,
}

/// The answer without findings and workloads, of which there may be many.
#[derive(Debug, Clone)]
pub struct Document {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// What was not understood.
    pub unparsed: Vec<UnparsedShown>,
    /// What was found and does not matter, by somebody's word.
    pub ignored: Vec<IgnoredShown>,
    /// How many files were read.
    pub files: usize,
}

pub(crate) fn finding(finding: Finding, files: &Files) -> FindingShown {
    // What stands in no file can not be edited.
    let fix = finding.fix.as_ref().filter(|_| !files.is_held(finding.at.file)).map(|fix| {
        let mut files: Vec<String> = fix.edits.iter().map(|edit| files.show(edit.file)).collect();
        files.sort();
        files.dedup();
        FixShown { safe: fix.safe, changes: fix.what.clone(), files }
    });
    let origin = files.origin(finding.at);
    let (line, column) = origin.unwrap_or((finding.at.line, finding.at.column));
    FindingShown {
        rule: finding.rule,
        cause: finding.cause,
        severity: severity_id(finding.severity),
        confidence: finding.confidence.id(),
        file: files.show(finding.at.file),
        line,
        column,
        message: finding.message,
        help: finding.help,
        fix,
        workload: finding.workload,
        rendered_line: origin.map(|_| finding.at.line),
    }
}

pub(crate) fn timeline(prediction: &Prediction) -> Vec<EntryShown> {
    let round = |at: f64| (at * 1000.0).round() / 1000.0;
    let shown = prediction.entries.iter().map(|entry| EntryShown {
        lane: entry.moment.lane(),
        moment: entry.moment,
        at_s: round(entry.at.0),
        until_s: entry.at.1.filter(|until| until.is_finite()).map(round),
    });
    shown.collect()
}

pub(crate) fn windows(prediction: &Prediction, rate: Option<f64>) -> Vec<WindowShown> {
    let shown = prediction.windows.iter().map(|window| {
        let (least, most): When = window.length;
        let lost = rate.filter(|_| most != Some(0.0)).map(|rate| (least * rate, most.map(|most| most * rate)));
        WindowShown { cause: window.cause, start_s: window.start, length_s: least, length_max_s: most, lost }
    });
    shown.collect()
}

pub(crate) fn unparsed(list: &[Unparsed]) -> Vec<UnparsedShown> {
    let shown =
        list.iter().map(|one| UnparsedShown { file: one.file.clone(), line: one.line, reason: one.why.clone() });
    shown.collect()
}
