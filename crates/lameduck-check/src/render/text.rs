//! For a terminal.

use std::fmt::Write;
use std::io;

use lameduck_core::{Lane, Severity};

use super::draw;
use crate::Outcome;
use crate::report::{self, FindingShown, WorkloadShown};
use crate::span::{FileId, Lined, Lines};

/// Findings with their lines, then the predicted ends, then what was not understood.
///
/// # Errors
///
/// What `out` says.
pub fn text(outcome: &Outcome, color: bool, mut out: impl io::Write) -> io::Result<()> {
    let files = &outcome.pass.files;
    let mut source: Option<(FileId, Lined)> = None;
    outcome.each_raw(|finding| {
        let at = finding.at;
        if source.as_ref().is_none_or(|(file, _)| *file != at.file) {
            source = files.seen(at.file).ok().map(|text| (at.file, Lined::new(at.file, text)));
        }
        let shown = report::finding(finding, files);
        let lines = source.as_ref().map(|(_, lined)| lined.lines());
        let line = lines.as_ref().map(|lines| lines.line(shown.line as usize)).filter(|_| shown.line > 0);
        let text = lines.as_ref().map_or("", Lines::text);
        let spanned = if shown.rendered_line.is_none() { at.span.of(text) } else { "" };
        let width = spanned.lines().next().map_or(1, |line| line.chars().count()).max(1);
        let mut piece = String::new();
        let place = format!("{}:{}:{}", shown.file, shown.line, shown.column);
        one(&mut piece, &shown, &place, line.map(|line| (line, width)), color);
        out.write_all(piece.as_bytes())
    })?;
    let mut done = Ok(());
    outcome.each_workload(|workload| {
        if done.is_ok() && worth_drawing(workload) {
            let mut piece = String::new();
            picture(&mut piece, workload, color);
            done = out.write_all(piece.as_bytes());
        }
    });
    done?;
    for unparsed in &outcome.document.unparsed {
        writeln!(out, "not understood: {}:{}: {}", unparsed.file, unparsed.line, unparsed.reason)?;
    }
    summary(&mut out, outcome)
}

fn paint(color: bool, code: &str, text: &str) -> String {
    if color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

fn severity_color(severity: &str) -> &'static str {
    match severity {
        "error" => "1;31",
        "warning" => "1;33",
        _ => "1;36",
    }
}

/// A finding at a place that is no line of a file, as in a cluster.
pub fn finding(finding: &FindingShown, place: &str, color: bool) -> String {
    let mut out = String::new();
    one(&mut out, &FindingShown { line: 0, ..finding.clone() }, place, None, color);
    out
}

/// A workload's predicted end, where there is a window in which requests are lost.
pub fn end(workload: &WorkloadShown, place: &str, color: bool) -> Option<String> {
    let mut out = String::new();
    let placed = WorkloadShown { file: place.to_owned(), ..workload.clone() };
    worth_drawing(workload).then(|| picture(&mut out, &placed, color)).map(|()| out)
}

fn one(out: &mut String, finding: &FindingShown, place: &str, line: Option<(&str, usize)>, color: bool) {
    let head = paint(color, severity_color(finding.severity), &format!("{}[{}]", finding.severity, finding.rule));
    let _ = writeln!(out, "{head}: {}", finding.message);
    let number = finding.line.to_string();
    let pad = " ".repeat(number.len());
    let bar = paint(color, "1;34", "|");
    let _ = writeln!(out, "{pad}{} {place}", paint(color, "1;34", "-->"));
    if let Some((line, width)) = line {
        let shown: String = line.chars().take(160).map(|c| if c.is_control() { ' ' } else { c }).collect();
        let at = (finding.column as usize).saturating_sub(1).min(159);
        let marks = "^".repeat(width.min(160 - at).min(shown.chars().count().saturating_sub(at)).max(1));
        let _ = writeln!(out, "{pad} {bar}");
        let _ = writeln!(out, "{} {bar} {shown}", paint(color, "1;34", &number));
        let _ =
            writeln!(out, "{pad} {bar} {}{}", " ".repeat(at), paint(color, severity_color(finding.severity), &marks));
    }
    let _ = writeln!(out, "{pad} = cause: {}, confidence {}", finding.cause, finding.confidence);
    if let Some(line) = finding.rendered_line {
        let _ = writeln!(out, "{pad} = found in what this is rendered to, at line {line} of that");
    }
    if !finding.help.is_empty() {
        let _ = writeln!(out, "{pad} = help: {}", finding.help);
    }
    if let Some(fix) = &finding.fix {
        let how = if fix.safe { "--fix" } else { "--fix=unsafe" };
        let _ = writeln!(out, "{pad} = {how}: {}", fix.changes);
    }
    out.push('\n');
}

fn worth_drawing(workload: &WorkloadShown) -> bool {
    !workload.loss_windows.is_empty() && workload.timeline.len() > 2
}

fn picture(out: &mut String, workload: &WorkloadShown, color: bool) {
    let title = format!("{} {} ({})", workload.kind, workload.name, workload.file);
    let _ = writeln!(out, "{}: TERM is {}", paint(color, "1", &title), workload.term.outcome);
    for line in draw::lanes(workload) {
        let _ = writeln!(out, "{line}");
    }
    let _ = writeln!(out, "    process: {}", draw::words(workload, Lane::Process));
    let routing = draw::words(workload, Lane::Routing);
    if !routing.is_empty() {
        let _ = writeln!(out, "    routing: {routing}");
    }
    for window in &workload.loss_windows {
        let length = match (window.length_s, window.length_max_s) {
            (_, Some(most)) if most <= 0.0 => "what is in flight then".to_owned(),
            (least, most) => format!("for {}", draw::when(least, most)),
        };
        let lost = match window.lost {
            Some((least, Some(most))) if (most - least).abs() < 0.5 => format!(": {least:.0} requests per termination"),
            Some((least, Some(most))) => format!(": {least:.0} to {most:.0} requests per termination"),
            Some((least, None)) => format!(": at least {least:.0} requests per termination"),
            None => String::new(),
        };
        let _ = writeln!(out, "    {} from {} s, {length}{lost}", window.cause, window.start_s);
    }
    out.push('\n');
}

fn summary(out: &mut impl io::Write, outcome: &Outcome) -> io::Result<()> {
    let document = &outcome.document;
    let slots = &outcome.findings.slots;
    let count = |severity: Severity| slots.iter().filter(|slot| slot.severity == severity).count();
    let fixable = slots.iter().filter(|slot| slot.safe_fix).count();
    writeln!(
        out,
        "{} files, {} workloads: {} errors, {} warnings, {} notes; {fixable} with a safe fix (--fix); {} ignored; {} not understood",
        document.files,
        outcome.count,
        count(Severity::Error),
        count(Severity::Warning),
        count(Severity::Note),
        document.ignored.len(),
        document.unparsed.len(),
    )
}

/// The chain that was found for each workload, and what could not be resolved.
///
/// # Errors
///
/// What `out` says.
pub fn links(outcome: &Outcome, mut out: impl io::Write) -> io::Result<()> {
    let mut done = Ok(());
    outcome.each(|told| {
        if done.is_ok() {
            let mut piece = format!("{} {}\n", told.shown.kind, told.shown.name);
            for link in &told.links {
                let _ = writeln!(piece, "  -> {link}");
            }
            done = out.write_all(piece.as_bytes());
        }
    });
    done
}
