//! As text for a terminal or a ticket.

use std::fmt::Write as _;

use lameduck_core::words::count;

use super::{a_day, hours, percent, spent};
use crate::diagnose::Confidence;
use crate::report::{CauseReport, Explanation, Row};
use crate::time::span;

/// Rows of a table.
const ROWS: usize = 8;

/// The explanation as text.
pub fn text(explanation: &Explanation, color: bool) -> String {
    let bold = |text: &str| if color { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() };
    let mut out = String::new();
    let e = explanation;
    if let Some(followed) = &e.followed {
        follow(&mut out, followed, &bold);
    }
    let _ = writeln!(out, "{}", bold(&format!("{} lost of {} requests", count(e.lost), count(e.requests))));
    if let (Some(first), Some(last)) = (&e.first, &e.last) {
        let _ = writeln!(out, "from {first} to {last}");
    }
    if let Some(cost) = &e.cost {
        let _ = writeln!(
            out,
            "those {} waited {} together, {} each on average{}",
            count(cost.requests),
            hours(cost.hours),
            span((cost.mean_s * 1e6) as i64),
            a_day(cost)
        );
    }
    let others = [
        ("failed at one server and answered by another", e.masked),
        ("clients left", e.client_left),
        ("ended by a hop's own rule", e.policy),
        ("told of twice, counted once", e.duplicates),
        ("not kept for want of room", e.dropped),
    ];
    for (what, n) in others.iter().filter(|(_, n)| *n > 0) {
        let _ = writeln!(out, "{:>9}  {what}", count(*n));
    }
    for cause in &e.causes {
        one_cause(&mut out, cause, &bold);
    }
    table(&mut out, "what the logs said", &e.said, &bold);
    table(&mut out, "servers", &e.backends, &bold);
    table(&mut out, "routes", &e.routes, &bold);
    spikes(&mut out, e, &bold);
    if e.lost > 0 {
        let _ = writeln!(out, "\n{}: {}", bold("rhythm"), e.periodicity);
    }
    budget(&mut out, e, &bold);
    for offset in &e.offsets {
        let _ = writeln!(
            out,
            "clock: {} is {:+.3} s from {} (by {} requests)",
            offset.other,
            offset.ahead_s,
            offset.input,
            count(offset.requests)
        );
    }
    inputs(&mut out, e, &bold);
    out
}

fn follow(out: &mut String, followed: &crate::report::Followed, bold: &impl Fn(&str) -> String) {
    let _ = writeln!(out, "{}", bold(&format!("request {}", followed.id)));
    if followed.seen.is_empty() {
        let _ = writeln!(out, "  is in none of the inputs");
    }
    for (cite, line) in &followed.seen {
        let _ = writeln!(out, "  {cite}\n    {line}");
    }
    if let (Some(cause), Some(grounds)) = (followed.cause, &followed.grounds) {
        let _ = writeln!(out, "  {}: {grounds}", bold(cause.id()));
    }
    for fix in &followed.fixes {
        let _ = writeln!(out, "  fix: {fix}");
    }
    out.push('\n');
}

fn one_cause(out: &mut String, cause: &CauseReport, bold: &impl Fn(&str) -> String) {
    let _ = writeln!(
        out,
        "\n{:>9}  {}  {}  {}",
        count(cause.requests),
        bold(cause.cause.id()),
        percent(cause.share),
        cause.what
    );
    for ground in &cause.grounds {
        let sure = match ground.confidence {
            Confidence::Proven => "proven",
            Confidence::Likely => "likely",
            Confidence::Open => "open",
        };
        let _ = writeln!(out, "{:>9}    {sure}: {}", count(ground.requests), ground.grounds);
    }
    for example in cause.examples.iter().take(2) {
        let took = example.took_s.map_or_else(String::new, |took| format!(", {took:.3} s"));
        let id = if example.id.is_empty() { String::new() } else { format!(" id {}", example.id) };
        let _ = writeln!(
            out,
            "             e.g. {} {} at {}{took}{id}: {}",
            example.at, example.route, example.backend, example.seen
        );
        if let Some(packets) = &example.packets {
            let _ = writeln!(out, "                  {packets}");
        }
        let _ = writeln!(out, "                  {}", example.cites.join(", "));
    }
    for fix in &cause.fixes {
        let _ = writeln!(out, "             fix: {fix}");
    }
}

fn table(out: &mut String, title: &str, rows: &[Row], bold: &impl Fn(&str) -> String) {
    if rows.is_empty() {
        return;
    }
    let _ = writeln!(out, "\n{}", bold(title));
    for row in rows.iter().take(ROWS) {
        let causes: Vec<String> = row.causes.iter().map(|(cause, n)| format!("{cause} {}", count(*n))).collect();
        let _ = writeln!(out, "{:>9}  {}  ({})", count(row.lost), row.name, causes.join(", "));
    }
    if rows.len() > ROWS {
        let _ = writeln!(out, "           and {} more", rows.len() - ROWS);
    }
}

fn spikes(out: &mut String, e: &Explanation, bold: &impl Fn(&str) -> String) {
    if e.spikes.is_empty() {
        return;
    }
    let _ = writeln!(out, "\n{}", bold("spikes"));
    for spike in e.spikes.iter().take(ROWS) {
        let _ = writeln!(
            out,
            "{:>9}  {} for {} min, mostly {} (usual: {:.0} a minute)",
            count(spike.lost),
            spike.start,
            spike.length_s / 60,
            spike.cause,
            spike.usual_a_minute
        );
        for event in &spike.events {
            let how = if event.same_pod { "at the pods concerned" } else { "coincides with" };
            let _ = writeln!(
                out,
                "             {how}: {} {} x{} ({}) {}",
                event.subject,
                event.kind.words(),
                event.count,
                event.words,
                event.cite
            );
        }
    }
}

fn budget(out: &mut String, e: &Explanation, bold: &impl Fn(&str) -> String) {
    let Some(slo) = &e.slo else { return };
    let _ = writeln!(
        out,
        "\n{}: {} of the error budget spent ({} of {} requests may be lost)",
        bold(&format!("objective {}", percent(slo.objective))),
        spent(slo.spent),
        count(slo.budget.round() as u64),
        count(slo.requests)
    );
    for (cause, share) in &slo.by_cause {
        let _ = writeln!(out, "{:>9}  {cause}", spent(*share));
    }
    for burn in &slo.burn {
        match (burn.rate, &burn.start) {
            (Some(rate), Some(start)) => {
                let _ = writeln!(
                    out,
                    "           worst {} h: {rate:.1} times the allowed rate, from {start}",
                    burn.window_h
                );
            }
            (_, _) => {
                let _ = writeln!(out, "           worst {} h: the logs are shorter", burn.window_h);
            }
        }
    }
}

fn inputs(out: &mut String, e: &Explanation, bold: &impl Fn(&str) -> String) {
    let _ = writeln!(out, "\n{}", bold("inputs"));
    for input in &e.inputs {
        let formats: Vec<String> =
            input.formats.iter().map(|(format, lines)| format!("{format} {}", count(*lines))).collect();
        let _ = writeln!(out, "{:>9}  {}: {}", count(input.lines), input.name, formats.join(", "));
        if input.unparsed > 0 {
            let _ = writeln!(out, "{:>9}    not understood, as:", count(input.unparsed));
            for sample in &input.samples {
                let _ = writeln!(out, "             {}: {}", sample.line, sample.text);
            }
        }
    }
}
