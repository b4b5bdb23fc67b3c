//! The report as text and JSON.

use std::fmt::Write as _;

use crate::Report;
use crate::term::Term;

/// As JSON, `lameduck.probe/1`.
pub fn json(report: &Report) -> String {
    serde_json::to_string_pretty(report).unwrap_or_default()
}

/// As text.
pub fn text(report: &Report) -> String {
    let mut out = String::new();
    let longest = format!("not within {} s", report.most_idle_s);
    let seconds = |at: Option<f64>| at.map_or_else(|| longest.clone(), |at| format!("{at:.2} s"));
    let mut row = |name: &str, value: String| {
        let _ = writeln!(out, "{name:32} {value}");
    };
    row("idle before the first request", seconds(report.idle_before_first_request_s));
    row("idle after an answer", seconds(report.idle_after_response_s));
    if report.idle_times_differ {
        row("", "they differ: a test without a request does not see the second".into());
    }
    let limit = match (report.requests_per_connection, report.limit_announced) {
        (Some(n), Some(true)) => format!("{n}, announced by Connection: close"),
        (Some(n), _) => format!("{n}, not announced"),
        (None, _) => format!("no limit up to {}", report.most_requests),
    };
    row("requests on one connection", limit);
    for (name, value) in [("Keep-Alive", &report.keep_alive), ("Server", &report.server)] {
        if let Some(value) = value {
            row(name, value.clone());
        }
    }
    if let Some(met) = &report.meeting_the_close {
        row(
            "requests that met the close",
            format!(
                "{} sent: {} answered, {} closed unanswered, {} reset",
                met.sent, met.answered, met.closed, met.reset
            ),
        );
    }
    if !report.resembles.is_empty() {
        row("the idle time of", report.resembles.join("; "));
    }
    for behind in &report.behind {
        row(&format!("behind {}", behind.caller), behind.words.clone());
    }
    if let Some(term) = &report.term {
        at_term(&mut out, term);
    }
    out
}

fn at_term(out: &mut String, term: &Term) {
    let mut row = |name: &str, value: &str| {
        let _ = writeln!(out, "{name:32} {value}");
    };
    let after = |at: Option<f64>| at.map_or_else(|| "never".to_owned(), |at| format!("{at:.2} s after TERM"));
    row("\nTERM goes to", &term.main);
    let listener = term.listener.as_deref().unwrap_or("not found");
    match term.main_is_listener {
        Some(true) => row("who listens", "the same"),
        Some(false) => row("who listens", &format!("{listener}: another process; the first one has to pass TERM on")),
        None => row("who listens", listener),
    }
    if term.main_handles_term == Some(false) {
        row("", "it has no handler for TERM: as PID 1 of a container it would ignore it");
    }
    row("TERM reaches the app", if term.reaches_app { "yes" } else { "no" });
    row("new connections answered until", &after(term.accepted_until_s));
    row("refused from", &after(term.refused_from_s));
    if term.hung > 0 {
        row("taken, never answered", &term.hung.to_string());
    }
    row("idle connection closed", &after(term.idle_closed_s));
    if let Some(ended) = term.request_on_idle {
        let close = match term.says_close {
            Some(true) => ", with Connection: close",
            Some(false) => ", without Connection: close",
            None => "",
        };
        row("request on an idle connection", &format!("{}{close}", word(ended)));
    }
    row(
        "request in flight",
        &term.in_flight.map_or_else(|| "not tried: --slow-path".to_owned(), |ended| word(ended).to_owned()),
    );
    let code = term.exit_code.map_or_else(|| "?".to_owned(), |code| code.to_string());
    row(
        "exit",
        &format!(
            "{}, status {code}{}",
            after(term.exit_s),
            if term.killed { ", killed at the end of the grace" } else { "" }
        ),
    );
    if !term.left_over.is_empty() {
        row("left over", &format!("{} ({} zombies)", term.left_over.join(", "), term.zombies));
    }
}

const fn word(ended: crate::wire::Ended) -> &'static str {
    use crate::wire::Ended;
    match ended {
        Ended::Answered => "answered",
        Ended::Closed => "closed without an answer",
        Ended::Reset => "reset",
        Ended::Cut => "cut in the answer",
        Ended::TimedOut => "no answer in time",
        Ended::Refused => "refused",
    }
}
