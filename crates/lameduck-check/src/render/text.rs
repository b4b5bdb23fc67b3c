//! For a terminal.

use std::fmt::Write;

use lameduck_core::Lane;

use super::draw;
use crate::Outcome;
use crate::report::{FindingShown, WorkloadShown};

/// Findings with their lines, then the predicted ends, then what was not understood.
pub fn text(outcome: &Outcome, color: bool) -> String {
    let mut out = String::new();
    let mut source: Option<(String, String)> = None;
    for (n, finding) in outcome.document.findings.iter().enumerate() {
        if source.as_ref().is_none_or(|(file, _)| *file != finding.file) {
            source = outcome.source(&finding.file).map(|text| (finding.file.clone(), text));
        }
        let line = source.as_ref().and_then(|(_, text)| text.lines().nth(finding.line.saturating_sub(1) as usize));
        one(&mut out, finding, line, outcome.width(n), color);
    }
    outcome.each_workload(|workload| {
        if worth_drawing(workload) {
            picture(&mut out, workload, color);
        }
    });
    for unparsed in &outcome.document.unparsed {
        let _ = writeln!(out, "not understood: {}:{}: {}", unparsed.file, unparsed.line, unparsed.reason);
    }
    summary(&mut out, outcome);
    out
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

fn one(out: &mut String, finding: &FindingShown, line: Option<&str>, width: usize, color: bool) {
    let head = paint(color, severity_color(finding.severity), &format!("{}[{}]", finding.severity, finding.rule));
    let _ = writeln!(out, "{head}: {}", finding.message);
    let number = finding.line.to_string();
    let pad = " ".repeat(number.len());
    let bar = paint(color, "1;34", "|");
    let _ = writeln!(out, "{pad}{} {}:{}:{}", paint(color, "1;34", "-->"), finding.file, finding.line, finding.column);
    if let Some(line) = line {
        let shown: String = line.chars().take(160).map(|c| if c.is_control() { ' ' } else { c }).collect();
        let at = (finding.column as usize - 1).min(159);
        let marks = "^".repeat(width.min(160 - at).min(shown.chars().count().saturating_sub(at)).max(1));
        let _ = writeln!(out, "{pad} {bar}");
        let _ = writeln!(out, "{} {bar} {shown}", paint(color, "1;34", &number));
        let _ =
            writeln!(out, "{pad} {bar} {}{}", " ".repeat(at), paint(color, severity_color(finding.severity), &marks));
    }
    let _ = writeln!(out, "{pad} = cause: {}, confidence {}", finding.cause, finding.confidence);
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

fn summary(out: &mut String, outcome: &Outcome) {
    let document = &outcome.document;
    let count = |severity: &str| document.findings.iter().filter(|finding| finding.severity == severity).count();
    let fixable = document.findings.iter().filter(|finding| finding.fix.as_ref().is_some_and(|fix| fix.safe)).count();
    let _ = writeln!(
        out,
        "{} files, {} workloads: {} errors, {} warnings, {} notes; {fixable} with a safe fix (--fix); {} ignored; {} not understood",
        document.files,
        outcome.count,
        count("error"),
        count("warning"),
        count("note"),
        document.ignored.len(),
        document.unparsed.len(),
    );
}

/// The chain that was found for each workload, and what could not be resolved.
pub fn links(outcome: &Outcome) -> String {
    let mut out = String::new();
    outcome.each(|told| {
        let _ = writeln!(out, "{} {}", told.shown.kind, told.shown.name);
        for link in &told.links {
            let _ = writeln!(out, "  -> {link}");
        }
    });
    out
}
