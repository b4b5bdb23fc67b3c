//! One self-contained page: the timelines drawn, then the findings.

use std::fmt::Write;
use std::io;

use lameduck_core::Moment;
use lameduck_core::words::Escaped;

use super::draw;
use crate::Outcome;
use crate::report::WorkloadShown;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b1f24;background:#fff}\
h1{font-size:1.4rem}h2{font-size:1.1rem;margin:2rem 0 .3rem}svg{width:100%;height:auto}code{background:#f2f4f6;padding:0 .25em}\
.f{border-left:4px solid #888;padding:.2rem .8rem;margin:.8rem 0}.error{border-color:#c62828}.warning{border-color:#b26a00}.note{border-color:#1565c0}\
small{color:#57606a}@media(prefers-color-scheme:dark){body{background:#15181c;color:#e3e6ea}code{background:#262b31}small{color:#9aa4ae}}";

/// The page.
///
/// # Errors
///
/// What `out` says.
pub fn html(outcome: &Outcome, mut out: impl io::Write) -> io::Result<()> {
    let document = &outcome.document;
    writeln!(
        out,
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>lameduck check</title><style>{STYLE}</style>\n<h1>lameduck check: {} findings in {} files</h1>",
        outcome.findings.slots.len(),
        document.files
    )?;
    let mut done = Ok(());
    outcome.each_workload(|workload| {
        if done.is_ok() && !workload.loss_windows.is_empty() {
            let mut piece = String::new();
            picture(&mut piece, workload);
            done = out.write_all(piece.as_bytes());
        }
    });
    done?;
    out.write_all(b"<h2>Findings</h2>\n")?;
    outcome.each_finding(|finding| {
        writeln!(
            out,
            "<div class=\"f {}\"><b>{}</b> <small>{}:{}:{} &middot; {} &middot; confidence {}</small><br>{}<br><small>{}</small></div>",
            finding.severity,
            finding.rule,
            Escaped(&finding.file),
            finding.line,
            finding.column,
            finding.cause,
            finding.confidence,
            Escaped(&finding.message),
            Escaped(&finding.help),
        )
    })?;
    if !document.unparsed.is_empty() {
        out.write_all(b"<h2>Not understood</h2>\n<ul>\n")?;
        for one in &document.unparsed {
            writeln!(out, "<li><code>{}:{}</code> {}</li>", Escaped(&one.file), one.line, Escaped(&one.reason))?;
        }
        out.write_all(b"</ul>\n")?;
    }
    out.write_all(b"</html>\n")
}

fn picture(out: &mut String, workload: &WorkloadShown) {
    let whole = draw::span(workload) * 1.05;
    let x = |at: f64| 90.0 + (at.min(whole) / whole) * 700.0;
    let title = format!("{} {}", workload.kind, workload.name);
    let _ = writeln!(
        out,
        "<h2>{}</h2><small>{} &middot; TERM is {} &middot; grace {} s</small>\n\
         <svg viewBox=\"0 0 800 120\" role=\"img\" aria-label=\"the two lanes of {}\" font-size=\"12\" fill=\"currentColor\">",
        Escaped(&title),
        Escaped(&workload.file),
        workload.term.outcome,
        workload.grace_s,
        Escaped(&title),
    );
    let mut bar = |y: f64, from: f64, to: f64, color: &str, opacity: f64| {
        let _ = writeln!(
            out,
            "<rect x=\"{:.1}\" y=\"{y}\" width=\"{:.1}\" height=\"18\" fill=\"{color}\" opacity=\"{opacity}\"/>",
            x(from),
            (x(to) - x(from)).max(2.0)
        );
    };
    let exit = draw::at(workload, Moment::Exited).and_then(|(_, until)| until).unwrap_or(whole);
    let (sure, perhaps) =
        draw::at(workload, Moment::StoppedAccepting).map_or((0.0, exit), |(from, until)| (from, until.unwrap_or(exit)));
    bar(15.0, 0.0, perhaps, "#2e7d32", 0.4);
    bar(15.0, 0.0, sure, "#2e7d32", 1.0);
    if let Some((from, until)) = draw::at(workload, Moment::EndpointRemoved) {
        bar(40.0, 0.0, until.unwrap_or(whole), "#1565c0", 0.4);
        bar(40.0, 0.0, from, "#1565c0", 1.0);
    }
    for window in &workload.loss_windows {
        bar(65.0, window.start_s, window.start_s + window.length_max_s.unwrap_or(whole), "#c62828", 0.4);
        bar(65.0, window.start_s, window.start_s + window.length_s, "#c62828", 1.0);
    }
    for (y, name) in [(29, "serves"), (54, "routed"), (79, "lost")] {
        let _ = writeln!(out, "<text x=\"5\" y=\"{y}\">{name}</text>");
    }
    for (moment, name) in [(Moment::TermReceived, "TERM"), (Moment::Killed, "KILL")] {
        if let Some((at, _)) = draw::at(workload, moment) {
            let _ = writeln!(out, "<text x=\"{:.1}\" y=\"11\">{name} {at} s</text>", x(at));
        }
    }
    let _ = writeln!(out, "<text x=\"90\" y=\"105\">0 s</text><text x=\"750\" y=\"105\">{whole:.0} s</text></svg>");
    for window in &workload.loss_windows {
        let length = draw::when(window.length_s, window.length_max_s);
        let _ = writeln!(out, "<p><code>{}</code> from {} s, length {length}</p>", window.cause, window.start_s);
    }
}
