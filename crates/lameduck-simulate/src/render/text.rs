//! Tables for a terminal.

use std::fmt::Write as _;

use super::{count, names, percent};
use crate::estimate::{Figure, Step};
use crate::report::Document;

/// How wide a bar is at most.
const BAR: f64 = 28.0;

/// The report.
pub fn text(document: &Document, color: bool) -> String {
    let mut out = String::new();
    head(&mut out, document, color);
    causes(&mut out, document);
    if document.fleet.services.len() > 1 {
        services(&mut out, document);
    }
    staircase(&mut out, document);
    effects(&mut out, document);
    ends(&mut out, document);
    assumed(&mut out, document);
    out
}

fn bold(text: &str, color: bool) -> String {
    if color { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() }
}

fn bar(share: f64) -> String {
    let cells = share.clamp(0.0, 1.0) * BAR;
    let eighths = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let part = ((cells.fract() * 8.0) as usize).min(7);
    format!("{}{}", "█".repeat(cells as usize), eighths[part])
}

fn interval(figure: &Figure) -> String {
    format!("{} to {}", count(figure.low), count(figure.high))
}

fn head(out: &mut String, document: &Document, color: bool) {
    let fleet = &document.fleet;
    let pods: f64 = fleet.services.iter().map(|service| f64::from(service.replicas)).sum();
    let rate: f64 = fleet.services.iter().map(|service| service.traffic.rate).sum();
    let options = &document.options;
    let _ = writeln!(
        out,
        "{} service{}, {} pods, {} requests/s; {} runs of {} day{}, seed {}",
        fleet.services.len(),
        if fleet.services.len() == 1 { "" } else { "s" },
        count(pods),
        count(rate),
        options.runs,
        options.days,
        if options.days == 1 { "" } else { "s" },
        options.seed
    );
    if !document.fixes.is_empty() {
        let _ = writeln!(out, "with {}", document.fixes.join(", "));
    }
    let estimate = &document.estimate;
    let lost = &estimate.lost;
    let headline = format!("{} lost a day", count(lost.mean));
    let _ = writeln!(
        out,
        "\n{}  (9 of 10 days: {}), {} of {} sent",
        bold(&headline, color),
        interval(lost),
        percent(lost.mean / estimate.sent.max(1.0)),
        count(estimate.sent)
    );
    if estimate.masked > 0.0 {
        let _ = writeln!(
            out,
            "{} more failed once, and were answered when their caller sent them again",
            count(estimate.masked)
        );
    }
}

fn causes(out: &mut String, document: &Document) {
    if document.estimate.causes.is_empty() {
        return;
    }
    let _ = writeln!(out, "\n{:22} {:>12}  {:>24}  {:>7}", "cause", "lost a day", "9 of 10 days", "share");
    for one in &document.estimate.causes {
        let _ = writeln!(
            out,
            "{:22} {:>12}  {:>24}  {:>7}  {}",
            one.cause,
            count(one.lost.mean),
            interval(&one.lost),
            percent(one.share),
            bar(one.share)
        );
    }
}

fn services(out: &mut String, document: &Document) {
    const SHOWN: usize = 10;
    let estimate = &document.estimate;
    let _ = writeln!(out, "\n{:22} {:>12}  {:>7}", "service", "lost a day", "share");
    for one in estimate.services.iter().take(SHOWN) {
        let share = if estimate.lost.mean > 0.0 { one.lost / estimate.lost.mean } else { 0.0 };
        let _ = writeln!(out, "{:22} {:>12}  {:>7}  {}", one.name, count(one.lost), percent(share), bar(share));
    }
    let rest = estimate.services.get(SHOWN..).unwrap_or_default();
    if !rest.is_empty() {
        let lost: f64 = rest.iter().map(|one| one.lost).sum();
        let _ = writeln!(out, "{:22} {:>12}", format!("{} more", rest.len()), count(lost));
    }
}

fn staircase(out: &mut String, document: &Document) {
    let Some(first) = document.staircase.first() else { return };
    let _ = writeln!(out, "\n{:22} {:>12}  {:>24}", "one after another", "lost a day", "9 of 10 days");
    for (n, step) in document.staircase.iter().enumerate() {
        let name = step.fix.map_or_else(|| step.what.to_owned(), |fix| format!("+ {fix}"));
        let share = if first.lost.mean > 0.0 { step.lost.mean / first.lost.mean } else { 0.0 };
        let _ = writeln!(
            out,
            "{:22} {:>12}  {:>24}  {:>7}  {}",
            name,
            count(step.lost.mean),
            interval(&step.lost),
            if n == 0 { String::new() } else { percent(share) },
            bar(share)
        );
    }
}

fn effects(out: &mut String, document: &Document) {
    let now = document.estimate.lost.mean;
    let useful: Vec<&Step> = document.effects.iter().filter(|step| step.lost.mean < now * 0.9999).collect();
    if useful.is_empty() {
        return;
    }
    let _ = writeln!(out, "\n{:22} {:>12}  {:>12}", "each fix by itself", "lost a day", "fewer");
    for step in useful {
        let _ = writeln!(
            out,
            "{:22} {:>12}  {:>12}  {:>7}  {}",
            step.fix.unwrap_or_default(),
            count(step.lost.mean),
            count(now - step.lost.mean),
            percent((now - step.lost.mean) / now),
            step.what
        );
    }
}

fn ends(out: &mut String, document: &Document) {
    let ends: Vec<String> =
        document.estimate.ends.iter().map(|end| format!("{} {}", end.kind, count(end.pods))).collect();
    if !ends.is_empty() {
        let _ = writeln!(out, "\npods that end a day: {}", ends.join(", "));
    }
    if document.estimate.scalings > 0.0 {
        let _ = writeln!(out, "changes by autoscalers a day: {}", count(document.estimate.scalings));
    }
}

fn assumed(out: &mut String, document: &Document) {
    if !document.assumed.is_empty() {
        let _ = writeln!(out, "\nassumed, as neither the files nor --traffic say");
        for one in &document.assumed {
            let _ = writeln!(out, "  {}: {} ({})", one.what, one.value, names(&one.services));
        }
    }
    if !document.left_out.is_empty() {
        let _ = writeln!(out, "\nleft out");
        for one in &document.left_out {
            let _ = writeln!(out, "  {}: {}", one.name, one.reason);
        }
    }
}
