//! One self-contained HTML page: no script, no network, readable in light and dark.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use lameduck_core::Cause;
use lameduck_core::words::{Escaped, count};

use super::svg;
use super::words::{percent, seconds};
use crate::result::{CompareResult, DrillResult, DrillVerdict, Loss, Retried, by_count};

/// How many losses the table shows; the JSON has all.
const TABLE_ROWS: usize = 200;

/// A drill as a page.
pub fn html(result: &DrillResult) -> String {
    let mut body = String::new();
    let title = format!("{} of {} lost", count(result.tally.lost), count(result.tally.sent));
    let _ = write!(
        body,
        "<header><p class=kicker>lameduck drill</p><h1 class={}>{}</h1><p class=sub>{}</p></header>",
        class(result.verdict),
        headline(result),
        plan_line(result)
    );
    section(&mut body, "", result, svg::span(result), None);
    kinds(&mut body, result);
    causes(&mut body, &[("lost", result)]);
    losses(&mut body, &[("", result)]);
    page(&title, &body)
}

/// A comparison as a page: both on one scale of time, one above the other.
pub fn compare_html(result: &CompareResult) -> String {
    let (plain, cured) = (&result.plain, &result.cured);
    let of = |r: &DrillResult| format!("{} <small>of {} lost</small>", count(r.tally.lost), count(r.tally.sent));
    let mut body = String::new();
    let _ = write!(
        body,
        "<header><p class=kicker>lameduck drill, plain and cured</p><h1><span class={}>{}</span>\
         <span class=arrow> → </span><span class={}>{}</span></h1><p class=sub>{}</p></header>",
        class(plain.verdict),
        of(plain),
        class(cured.verdict),
        of(cured),
        plan_line(plain)
    );
    let span = svg::span(plain).max(svg::span(cured));
    section(&mut body, "Plain", plain, span, Some(&plain.plan.command));
    section(&mut body, "Cured", cured, span, Some(&cured.plan.command));
    causes(&mut body, &[("plain", plain), ("cured", cured)]);
    losses(&mut body, &[("Plain", plain), ("Cured", cured)]);
    page(&super::words::headline(result), &body)
}

fn class(verdict: DrillVerdict) -> &'static str {
    match verdict {
        DrillVerdict::Clean => "good",
        DrillVerdict::Lost => "bad",
        DrillVerdict::Inconclusive => "open",
    }
}

fn headline(result: &DrillResult) -> String {
    let of = format!("<small>of {} lost</small>", count(result.tally.sent));
    match result.verdict {
        DrillVerdict::Clean => format!("0 {of}"),
        DrillVerdict::Lost => format!("{} {of}", count(result.tally.lost)),
        DrillVerdict::Inconclusive => format!("Inconclusive <small>{}</small>", Escaped(&result.because)),
    }
}

fn plan_line(result: &DrillResult) -> String {
    let plan = &result.plan;
    let s = |n: f64| format!("{n} s");
    format!(
        "{} {}, {} requests/s as <b>{}</b>, routing {} behind, grace {}, round trip {}, {}{}",
        plan.replicas,
        if plan.replicas == 1 { "replica" } else { "replicas" },
        plan.rate,
        Escaped(&plan.profile),
        s(plan.lag_s),
        s(plan.grace_s),
        seconds(plan.rtt_s),
        if plan.events.is_empty() { "no event".into() } else { Escaped(&plan.events.join(", ")).to_string() },
        if result.rounds.len() > 1 {
            format!("; sum of {} rounds, the first is drawn", result.rounds.len())
        } else {
            String::new()
        }
    )
}

fn section(out: &mut String, title: &str, result: &DrillResult, span: f64, command: Option<&[String]>) {
    out.push_str("<section>");
    if !title.is_empty() {
        let _ = write!(out, "<h2 class={}>{title}</h2>", class(result.verdict));
    }
    let command = command.unwrap_or(&result.plan.command).join(" ");
    let _ = write!(out, "<p class=command><code>{}</code></p>", Escaped(&command));
    tiles(out, result);
    svg::timeline(out, result, span);
    svg::latency(out, result, span);
    out.push_str("</section>");
}

fn tiles(out: &mut String, result: &DrillResult) {
    let tally = &result.tally;
    out.push_str("<div class=tiles>");
    let mut tile = |name: &str, class: &str, value: &str, note: &str| {
        // A figure stays on one line with its unit.
        let units = |text: &str| text.replace(" %", "\u{a0}%").replace(" ms", "\u{a0}ms").replace(" s ", "\u{a0}s ");
        let (value, note) = (units(value), units(note));
        let _ = write!(
            out,
            "<div class=tile><span class=name>{name}</span><span class=\"value {class}\">{value}</span><span class=note>{note}</span></div>"
        );
    };
    let lost_class = if tally.lost > 0 { "bad" } else { "good" };
    let after = if tally.lost > 0 {
        format!("{} after the client's retries", count(result.lost_after_retries))
    } else {
        "before any retry".into()
    };
    tile("answered", "", &count(tally.answered), &format!("of {} sent", count(tally.sent)));
    tile("lost", lost_class, &count(tally.lost), &after);
    let open_class = if tally.unknown > 0 { "open" } else { "" };
    let unsent = match (result.unrouted, result.dropped) {
        (0, 0) => "nothing left open".into(),
        (unrouted, dropped) => format!("not sent: {} unrouted, {} dropped", count(unrouted), count(dropped)),
    };
    tile("unknown", open_class, &count(tally.unknown), &unsent);
    let rate = &result.loss_rate;
    let bounds = match rate.at_most {
        Some(most) => format!("at most {} at 95 %", percent(most)),
        None => format!("{} to {} at 95 %", percent(rate.low), percent(rate.high)),
    };
    tile("loss rate", "", &percent(rate.share), &bounds);
    let stop = &result.term_to_exit_s;
    if let (Some(p50), Some(max)) = (stop.p50, stop.max) {
        tile("TERM to exit", "", &seconds(p50), &format!("median of {}; at most {}", stop.all.len(), seconds(max)));
    }
    let latency = &result.latency_s;
    if let (Some(p50), Some(p99), Some(max)) = (latency.p50, latency.p99, latency.max) {
        tile("latency p50", "", &seconds(p50), &format!("p99 {}, max {}", seconds(p99), seconds(max)));
    }
    out.push_str("</div>");
}

/// The same sum by kind, where there is more than one.
fn kinds(out: &mut String, result: &DrillResult) {
    if result.kinds.len() < 2 {
        return;
    }
    out.push_str(
        "<section><h2>Kinds</h2><div class=scroll><table><thead><tr><th>kind</th><th class=n>sent</th><th class=n>answered</th>\
         <th class=n>lost</th><th class=n>unknown</th></tr></thead><tbody>",
    );
    for (kind, tally) in &result.kinds {
        let [sent, answered, lost, unknown] = [tally.sent, tally.answered, tally.lost, tally.unknown].map(count);
        let _ = write!(
            out,
            "<tr><td>{}</td><td class=n>{sent}</td><td class=n>{answered}</td><td class=n>{lost}</td><td class=n>{unknown}</td></tr>",
            Escaped(kind)
        );
    }
    out.push_str("</tbody></table></div></section>");
}

fn causes(out: &mut String, results: &[(&str, &DrillResult)]) {
    let mut all: BTreeMap<Cause, u64> = BTreeMap::new();
    for (_, result) in results {
        for (cause, n) in &result.tally.causes {
            *all.entry(*cause).or_default() += n;
        }
    }
    out.push_str("<section><h2>Causes</h2>");
    if all.is_empty() {
        out.push_str("<p class=sub>Nothing was lost, so there is no cause to show.</p></section>");
        return;
    }
    out.push_str("<div class=scroll><table><thead><tr><th>cause</th>");
    for (name, _) in results {
        let _ = write!(out, "<th class=n>{name}</th>");
    }
    out.push_str("<th>what happened</th><th>what prevents it</th></tr></thead><tbody>");
    for (cause, _) in by_count(&all) {
        let _ = write!(out, "<tr><td class=nowrap><i class=\"dot {}\"></i>{}</td>", cause.id(), cause.id());
        for (_, result) in results {
            let _ = write!(out, "<td class=n>{}</td>", count(result.tally.causes.get(&cause).copied().unwrap_or(0)));
        }
        let _ = write!(out, "<td>{}</td><td>{}</td></tr>", Escaped(cause.what()), Escaped(cause.cure()));
    }
    out.push_str("</tbody></table></div></section>");
}

fn losses(out: &mut String, results: &[(&str, &DrillResult)]) {
    for (name, result) in results {
        let all = result.losses.len() + result.unknowns.len();
        if all == 0 {
            continue;
        }
        let shown = match all {
            0..=TABLE_ROWS => format!("All {}", count(all as u64)),
            _ => format!("The first {TABLE_ROWS} of {}", count(all as u64)),
        };
        let _ = write!(
            out,
            "<section><h2>{}</h2><p class=sub>{shown}, in the order sent.{}</p>\
             <div class=\"scroll tall\"><table class=losses><thead><tr><th class=n>at</th><th class=n>from TERM</th><th>cause</th>\
             <th>request</th><th>replica</th><th>connection</th><th class=n>out / in</th><th>ending</th><th>server's log</th>\
             <th>sent again</th><th>grounds</th></tr></thead><tbody>",
            if name.is_empty() { "Losses".into() } else { format!("Losses, {}", name.to_lowercase()) },
            if all > TABLE_ROWS { " The JSON has them all." } else { "" }
        );
        for loss in result.losses.iter().chain(&result.unknowns).take(TABLE_ROWS) {
            row(out, loss);
        }
        out.push_str("</tbody></table></div></section>");
    }
}

fn row(out: &mut String, loss: &Loss) {
    let connection = match (loss.connection, loss.idle_s) {
        (None, _) => "none".into(),
        (Some(id), Some(idle)) => {
            format!("#{id}, request {}, idle {}", loss.requests_before + 1, seconds(idle))
        }
        (Some(id), None) => format!("#{id}, new"),
    };
    let saw = match loss.server_saw {
        Some(true) => "shows it",
        Some(false) => "lacks it",
        None => "-",
    };
    let retried = match loss.retried {
        Some(Retried::Answered) => "answered",
        Some(Retried::Lost) => "lost",
        None => "-",
    };
    let status = loss.status.map_or_else(String::new, |status| format!(" {status}"));
    let kind = if matches!(loss.kind.as_str(), "" | "http1") { "" } else { &format!(" [{}]", Escaped(&loss.kind)) };
    let since = loss.since_term_s.map_or_else(|| "-".into(), |since| format!("{since:+.3} s"));
    let _ = write!(
        out,
        "<tr><td class=n>{:.3} s</td><td class=n>{since}</td><td class=nowrap><i class=\"dot {}\"></i>{}</td>\
         <td class=nowrap title=\"{}\">{} {}{kind}</td><td>{}</td><td class=nowrap>{connection}</td><td class=\"n nowrap\">{} / {}</td>\
         <td class=nowrap>{}{status}</td><td class=nowrap>{saw}</td><td>{retried}</td><td>{}</td></tr>",
        loss.at_s,
        loss.cause.id(),
        loss.cause.id(),
        Escaped(&loss.id),
        Escaped(&loss.method),
        Escaped(&loss.path),
        loss.replica,
        loss.bytes_out,
        loss.bytes_in,
        loss.ending.id(),
        Escaped(&loss.grounds)
    );
}

fn page(title: &str, body: &str) -> String {
    let (style, version) = (include_str!("page.css"), env!("CARGO_PKG_VERSION"));
    format!(
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <meta name=color-scheme content=\"light dark\"><title>{}</title><style>{style}</style></head><body><main>{body}\
         <footer>lameduck {version}. Times are seconds from the start of the first replica. Raw loss counts first attempts; \
         how each loss got its cause is in its grounds.</footer></main></body></html>\n",
        Escaped(title)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_service_or_a_command_line_says_stays_text() {
        let hostile = "</title><script>alert('x & \"y\"')</script>";
        let page = page(hostile, "");
        assert!(!page.contains("<script"), "{page}");
        assert!(page.contains("&lt;script&gt;alert(&#39;x &amp; &quot;y&quot;&#39;)"), "{page}");
    }
}
