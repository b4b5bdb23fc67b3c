//! What a terminal shows at the end.

use std::fmt::Write as _;

use lameduck_core::Cause;
use lameduck_core::words::count;

use super::words::{percent, seconds};
use crate::evidence::LogKind;
use crate::result::{CompareResult, DrillResult, DrillVerdict, Loss, Retried, by_count};

/// How many losses are shown one by one.
const FIRST_LOSSES: usize = 8;

/// ANSI colours, or none.
#[derive(Clone, Copy)]
struct Paint {
    color: bool,
}

impl Paint {
    fn with(self, code: &str, text: &str) -> String {
        if self.color { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    fn verdict(self, verdict: DrillVerdict) -> String {
        match verdict {
            DrillVerdict::Clean => self.with("1;32", "CLEAN"),
            DrillVerdict::Lost => self.with("1;31", "LOST"),
            DrillVerdict::Inconclusive => self.with("1;33", "INCONCLUSIVE"),
        }
    }

    fn dim(self, text: &str) -> String {
        self.with("2", text)
    }
}

/// A drill in words.
pub fn text(result: &DrillResult, color: bool) -> String {
    let paint = Paint { color };
    let mut out = String::new();
    let _ = writeln!(out, "{}  {}", paint.verdict(result.verdict), result.because);
    let _ = writeln!(out);
    books(&mut out, result, paint);
    kinds(&mut out, result);
    causes(&mut out, result, paint);
    figures(&mut out, result);
    first_losses(&mut out, result, paint);
    out
}

/// The sum, as a sum.
fn books(out: &mut String, result: &DrillResult, paint: Paint) {
    let tally = &result.tally;
    let width = count(tally.sent).len();
    let _ = writeln!(out, "  {:>width$}  answered", count(tally.answered));
    let lost = format!("{:>width$}", count(tally.lost));
    let lost = if tally.lost > 0 { paint.with("31", &lost) } else { lost };
    let after = match (tally.lost, result.lost_after_retries) {
        (0, _) => String::new(),
        (..) if result.retries == 0 => "   (none of them was sent again)".into(),
        (_, after) => format!("   ({} after the retries of {})", count(after), result.plan.profile),
    };
    let _ = writeln!(out, "+ {lost}  lost{after}");
    let _ = writeln!(out, "+ {:>width$}  unknown", count(tally.unknown));
    let _ = writeln!(out, "= {:>width$}  sent", count(tally.sent));
    for (n, what) in [
        (result.unrouted, "had nowhere to go and were not sent"),
        (result.dropped, "were dropped by the client, at --max-connections"),
    ] {
        if n > 0 {
            let _ = writeln!(out, "  {:>width$}  more {what}", count(n));
        }
    }
    let _ = writeln!(out);
}

/// The same sum by kind, where there is more than one.
fn kinds(out: &mut String, result: &DrillResult) {
    if result.kinds.len() < 2 {
        return;
    }
    for (kind, tally) in &result.kinds {
        let open = if tally.unknown > 0 { format!(", {} unknown", count(tally.unknown)) } else { String::new() };
        let _ = writeln!(out, "  {:<12}  {} sent, {} lost{open}", kind, count(tally.sent), count(tally.lost));
    }
    let _ = writeln!(out);
}

fn causes(out: &mut String, result: &DrillResult, paint: Paint) {
    for (cause, n) in by_count(&result.tally.causes) {
        let _ =
            writeln!(out, "  {:>7}  {}  {}", count(n), paint.with("1", &format!("{:<22}", cause.id())), cause.what());
        let _ = writeln!(out, "           {:<22}  {}", "", paint.dim(&format!("cure: {}", cause.cure())));
    }
    if !result.tally.causes.is_empty() {
        let _ = writeln!(out);
    }
}

fn figures(out: &mut String, result: &DrillResult) {
    let rate = &result.loss_rate;
    let bounds = match rate.at_most {
        Some(most) => {
            format!("none seen in {}: at most {} at 95 % (rule of three)", count(result.tally.sent), percent(most))
        }
        None => format!("{} (95 %: {} to {})", percent(rate.share), percent(rate.low), percent(rate.high)),
    };
    let _ = writeln!(out, "  loss rate     {bounds}");
    let stop = &result.term_to_exit_s;
    if let (Some(p50), Some(max)) = (stop.p50, stop.max) {
        let _ = writeln!(out, "  TERM to exit  p50 {}, max {} ({} stops)", seconds(p50), seconds(max), stop.all.len());
    }
    let latency = &result.latency_s;
    if let (Some(p50), Some(p99), Some(max)) = (latency.p50, latency.p99, latency.max) {
        let figures = [p50, p99, max].map(seconds);
        let _ = writeln!(
            out,
            "  latency       p50 {}, p99 {}, max {} (from the intended send time)",
            figures[0], figures[1], figures[2]
        );
    }
    let proof = match result.server_log {
        LogKind::None => "shows no request ids: it proves nothing",
        LogKind::Some => "shows some request ids: it proves what was seen, not what was not",
        LogKind::EveryArrival => "shows every request as it arrives",
    };
    let _ = writeln!(out, "  server's log  {proof}");
}

fn first_losses(out: &mut String, result: &DrillResult, paint: Paint) {
    let shown = result.losses.iter().chain(&result.unknowns).take(FIRST_LOSSES);
    let all = result.losses.len() + result.unknowns.len();
    if all == 0 {
        return;
    }
    let _ = writeln!(out, "\n  The first of them:");
    for loss in shown {
        let _ = writeln!(out, "  {}", line(loss, paint));
    }
    if all > FIRST_LOSSES {
        let _ = writeln!(
            out,
            "  {}",
            paint.dim(&format!("and {} more: see --json or --html", count((all - FIRST_LOSSES) as u64)))
        );
    }
}

fn line(loss: &Loss, paint: Paint) -> String {
    let since = loss.since_term_s.map_or_else(String::new, |s| format!(" ({s:+.3} s from TERM)"));
    let retried = match loss.retried {
        Some(Retried::Answered) => "; a retry was answered",
        Some(Retried::Lost) => "; its retries were lost too",
        None => "",
    };
    let cause = if loss.cause == Cause::Unknown { "unknown" } else { loss.cause.id() };
    format!(
        "{:>8.3} s  {}  {} {} to {}{since}  {}",
        loss.at_s,
        paint.with("31", cause),
        loss.method,
        loss.path,
        loss.replica,
        paint.dim(&format!("{}{retried}", loss.grounds))
    )
}

/// A comparison in words.
pub fn compare_text(result: &CompareResult, color: bool) -> String {
    let paint = Paint { color };
    let (plain, cured) = (&result.plain, &result.cured);
    let mut out = String::new();
    let _ = writeln!(out, "{}  {}", paint.verdict(cured.verdict), super::words::headline(result));
    let _ = writeln!(out);
    let _ = writeln!(out, "  {:<26}{:>22}{:>22}", "", "plain", "cured");
    let mut row = |name: &str, of: &dyn Fn(&DrillResult) -> String| {
        let _ = writeln!(out, "  {name:<26}{:>22}{:>22}", of(plain), of(cured));
    };
    row("sent", &|r| count(r.tally.sent));
    row("answered", &|r| count(r.tally.answered));
    row("lost", &|r| count(r.tally.lost));
    row("unknown", &|r| count(r.tally.unknown));
    let mut both = plain.tally.causes.clone();
    for (cause, n) in &cured.tally.causes {
        *both.entry(*cause).or_default() += n;
    }
    for (cause, _) in by_count(&both) {
        row(&format!("  {}", cause.id()), &|r| count(r.tally.causes.get(&cause).copied().unwrap_or(0)));
    }
    row("lost after retries", &|r| count(r.lost_after_retries));
    row("loss rate", &|r| percent(r.loss_rate.share));
    row("  at 95 %", &|r| match r.loss_rate.at_most {
        Some(most) => format!("at most {}", percent(most)),
        None => format!("{} to {}", percent(r.loss_rate.low), percent(r.loss_rate.high)),
    });
    row("TERM to exit, p50 / max", &|r| match (r.term_to_exit_s.p50, r.term_to_exit_s.max) {
        (Some(p50), Some(max)) => format!("{} / {}", seconds(p50), seconds(max)),
        _ => "-".into(),
    });
    row("latency p99", &|r| r.latency_s.p99.map_or_else(|| "-".into(), seconds));
    let _ = writeln!(out);
    for (cause, _) in by_count(&cured.tally.causes) {
        let _ = writeln!(out, "  left under the cure: {}: {}", paint.with("1", cause.id()), cause.cure());
    }
    if cured.verdict == DrillVerdict::Inconclusive {
        let _ = writeln!(out, "  inconclusive: {}", cured.because);
    }
    out
}
