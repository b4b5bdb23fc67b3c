//! `kubectl lameduck check`: the rules of `lameduck check`, on the objects of a live cluster.
//!
//! They are checked as one text, as if they had been exported, so that both say the same. Nothing of this machine's files is
//! read for it.

mod objects;
mod text;

use std::path::PathBuf;
use std::sync::Arc;

use lameduck_check::report::{FindingShown, IgnoredShown, UnparsedShown, WorkloadShown};
use lameduck_check::{Options, Rendered, render, severity};
use lameduck_core::Severity;
use serde::Serialize;
use serde_json::Value;

use super::kube::{Kube, Refused};
use super::pid1::{Pid1, Term, Way};
pub use objects::{Objects, controller, place, read};
use text::Text;

/// The schema of [`Checked`].
pub const SCHEMA: &str = "lameduck.live-check/1";
/// A text has about so many bytes at most; `lameduck check` reads files of 32 MiB.
const LARGEST: usize = 24 << 20;
/// A place below what is no folder: files that objects name can not be read, wherever they would be.
const NOWHERE: &str = "/dev/null/a/b/c/d/e/f";

/// How to check.
#[derive(Debug, Clone, Copy, Default)]
pub struct Settings {
    /// Requests a second to one replica.
    pub rate: Option<f64>,
    /// Seconds for which routing goes on after a deletion.
    pub lag: Option<f64>,
}

/// An object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Object {
    /// Its namespace; empty where it is in none.
    pub namespace: String,
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
}

impl Object {
    /// Which object this is.
    pub fn of(object: &Value) -> Object {
        let text = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
        Object { namespace: text("/metadata/namespace"), kind: text("/kind"), name: text("/metadata/name") }
    }
}

impl std::fmt::Display for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.namespace.is_empty() {
            write!(f, "{}/", self.namespace)?;
        }
        write!(f, "{}/{}", self.kind, self.name)
    }
}

/// A finding, and where.
#[derive(Debug, Clone, Serialize)]
pub struct Found {
    /// The rule's name.
    pub rule: &'static str,
    /// The cause of the loss it leads to.
    pub cause: lameduck_core::Cause,
    /// `note`, `warning`, `error`.
    pub severity: &'static str,
    /// `low`, `medium`, `high`.
    pub confidence: &'static str,
    /// In which object.
    pub object: Object,
    /// At which field.
    pub field: String,
    /// What is wrong, with the figures.
    pub message: String,
    /// What to do.
    pub help: String,
    /// The workload it is about.
    pub workload: String,
    #[serde(skip)]
    shown: FindingShown,
}

/// A workload, and which object it is.
#[derive(Debug, Clone, Serialize)]
pub struct Ends {
    /// Which.
    pub object: Object,
    /// How it ends.
    #[serde(flatten)]
    pub shown: WorkloadShown,
}

/// The answer.
#[derive(Debug, Serialize)]
pub struct Checked {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// The API server.
    pub server: String,
    /// The namespace; null: all.
    pub namespace: Option<String>,
    /// What is found.
    pub findings: Vec<Found>,
    /// How workloads end.
    pub workloads: Vec<Ends>,
    /// Who is PID 1 in running pods; null: not looked at.
    pub pid1: Option<Vec<Pid1>>,
    /// What could not be read, and why.
    pub not_read: Vec<String>,
    /// What was not understood.
    pub unparsed: Vec<UnparsedShown>,
    /// What was found and does not matter, by somebody's word.
    pub ignored: Vec<IgnoredShown>,
    /// How many objects were checked.
    pub objects: usize,
    /// How many were left to their owners.
    pub owned: usize,
}

impl Checked {
    /// How many findings are at least this severe. A PID 1 that TERM does not reach counts as a warning.
    pub fn count_from(&self, least: Severity) -> usize {
        let severe = |found: &&Found| severity(found.severity).is_some_and(|own| own >= least);
        let deaf = self.pid1.iter().flatten().filter(|pid1| pid1.is_deaf() && least <= Severity::Warning);
        self.findings.iter().filter(severe).count() + deaf.count()
    }
}

/// Reads a namespace, or all, and checks it.
///
/// # Errors
///
/// Where nothing could be read.
pub async fn check(
    kube: &Arc<Kube>,
    namespace: Option<&str>,
    settings: Settings,
) -> Result<(Checked, Objects), Refused> {
    let objects = read(kube, namespace).await?;
    let (server, namespace) = (kube.server().to_owned(), namespace.map(str::to_owned));
    let not_read = objects.missing.clone();
    Ok((Checked { server, namespace, not_read, owned: objects.owned, ..judge(&objects.kept, settings) }, objects))
}

/// What the rules say of these objects.
pub fn judge(objects: &[Value], settings: Settings) -> Checked {
    let portions = portions(objects);
    let texts: Vec<Text> = portions.iter().map(|portion| Text::of(portion)).collect();
    let path = |n: usize| PathBuf::from(format!("{NOWHERE}/{n}.yaml"));
    let rendered = texts.iter().enumerate();
    let rendered =
        rendered.map(|(n, text)| Rendered { path: path(n), from_template: false, text: text.text.clone() }).collect();
    let options = Options { rendered, rate: settings.rate, lag: settings.lag, ..Options::default() };
    let outcome = lameduck_check::check(&options);
    let at = |file: &str, line: u32| {
        let n = (0..texts.len()).find(|n| path(*n).display().to_string() == file)?;
        let (inner, field) = texts[n].at(portions[n], line)?;
        Some((Object::of(&portions[n][inner]), field))
    };
    let nowhere = || (Object { namespace: String::new(), kind: String::new(), name: String::new() }, String::new());
    let found = |shown: FindingShown| {
        let (object, field) = at(&shown.file, shown.line).unwrap_or_else(nowhere);
        let FindingShown { rule, cause, severity, confidence, .. } = shown;
        let (message, help, workload) = (shown.message.clone(), shown.help.clone(), shown.workload.clone());
        Found { rule, cause, severity, confidence, object, field, message, help, workload, shown }
    };
    // What is held in memory can be read again.
    let findings = outcome.findings().unwrap_or_default().into_iter().map(found).collect();
    let mut candidates = objects.iter();
    let mut workloads = Vec::new();
    outcome.each_workload(|shown| {
        // They come in the order of the objects.
        let kind = if shown.kind == "KnativeService" { "Service" } else { shown.kind };
        let mut object = candidates.by_ref().map(Object::of);
        if let Some(object) = object.find(|object| object.kind == kind && object.name == shown.name) {
            workloads.push(Ends { shown: WorkloadShown { file: object.to_string(), ..shown.clone() }, object });
        }
    });
    let shown = |file: &str, line: u32| {
        at(file, line).map_or_else(|| file.to_owned(), |(object, field)| format!("{object}: {field}"))
    };
    let unparsed = outcome.document.unparsed.iter();
    let unparsed = unparsed.map(|one| UnparsedShown { file: shown(&one.file, one.line), ..one.clone() }).collect();
    let ignored = outcome.document.ignored.iter();
    let ignored = ignored.map(|one| IgnoredShown { file: shown(&one.file, one.line), ..one.clone() }).collect();
    Checked {
        schema: SCHEMA,
        server: String::new(),
        namespace: None,
        findings,
        workloads,
        pid1: None,
        not_read: Vec::new(),
        unparsed,
        ignored,
        objects: objects.len(),
        owned: 0,
    }
}

/// All of them together where that is not too much.
fn portions(objects: &[Value]) -> Vec<&[Value]> {
    let mut portions = Vec::new();
    let (mut from, mut size) = (0, 0);
    for (n, object) in objects.iter().enumerate() {
        // With one field a line, a text is about twice as long.
        let own = object.to_string().len() * 2;
        if size + own > LARGEST && n > from {
            portions.push(&objects[from..n]);
            (from, size) = (n, 0);
        }
        size += own;
    }
    portions.push(&objects[from..]);
    portions
}

/// A line on a container's first process.
fn pid1(one: &Pid1, color: bool) -> String {
    let what = match one.term {
        Term::Caught => "has a handler for TERM",
        Term::Awaited => "takes TERM by waiting for it, as inits do",
        Term::Ignored => "ignores TERM: signal-not-delivered",
        Term::Dropped => "has no handler for TERM, which the kernel then drops for PID 1: signal-not-delivered",
        Term::Unknown if one.command.is_some() => "may or may not hear TERM",
        Term::Unknown => "is not known",
    };
    let way = match one.way {
        Way::Cat => " (by the image's cat)",
        Way::Shell => " (by the image's shell)",
        Way::Node => " (by the image's Node.js)",
        Way::Python => " (by the image's Python)",
        Way::Lameduck => " (lameduck says so itself)",
        Way::None => "",
    };
    let command = one.command.as_ref().map(|command| format!(" {command:?}")).unwrap_or_default();
    let because = one.because.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    let owner = if one.owner.is_empty() { String::new() } else { format!(" of {}", one.owner) };
    let head = if one.is_deaf() && color { "\x1b[1;33mPID 1\x1b[0m" } else { "PID 1" };
    format!("{head}{command} {what}{way}{because}\n  --> {}{owner}, container {}", one.pod, one.container)
}

/// For a terminal.
pub fn text(checked: &Checked, color: bool) -> String {
    use std::fmt::Write;
    let mut out = String::new();
    for found in &checked.findings {
        let place = format!("{}: {}", found.object, found.field);
        out += &render::finding(&found.shown, &place, color);
    }
    for workload in &checked.workloads {
        out += &render::end(&workload.shown, &workload.object.namespace, color).unwrap_or_default();
    }
    for one in checked.pid1.iter().flatten() {
        let _ = writeln!(out, "{}", pid1(one, color));
    }
    for one in &checked.unparsed {
        let _ = writeln!(out, "not understood: {}: {}", one.file, one.reason);
    }
    for why in &checked.not_read {
        let _ = writeln!(out, "not read: {why}");
    }
    let unknown = checked.workloads.iter().filter(|workload| workload.shown.term.outcome == "unknown").count();
    if unknown > 0 && checked.pid1.is_none() {
        let _ =
            writeln!(out, "what TERM does in {unknown} of these workloads their manifests do not say: --pid1 looks");
    }
    let count = |severity: &str| checked.findings.iter().filter(|found| found.severity == severity).count();
    let _ = writeln!(
        out,
        "{}, {}: {} objects ({} more left to their owners), {} workloads: {} errors, {} warnings, {} notes; {} ignored; \
         {} not understood; {} kinds not read",
        checked.server,
        checked.namespace.as_ref().map_or_else(|| "all namespaces".to_owned(), |name| format!("namespace {name}")),
        checked.objects,
        checked.owned,
        checked.workloads.len(),
        count("error"),
        count("warning"),
        count("note"),
        checked.ignored.len(),
        checked.unparsed.len(),
        checked.not_read.len(),
    );
    out
}
