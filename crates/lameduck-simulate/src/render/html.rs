//! One self-contained page: no script, no network, readable in light and dark.

use std::fmt::Write as _;

use lameduck_core::words::Escaped;

use super::{count, names, percent, svg};
use crate::estimate::Figure;
use crate::report::Document;

fn interval(figure: &Figure) -> String {
    format!("{} to {}", count(figure.low), count(figure.high))
}

/// The report as a page.
pub fn html(document: &Document) -> String {
    let mut body = String::new();
    header(&mut body, document);
    if !document.staircase.is_empty() {
        body.push_str("<section><h2>One fix after another</h2><p class=sub>Lost requests a day as each fix lands. The thin line spans nine of ten days.</p>");
        svg::staircase(&mut body, &document.staircase);
        steps(&mut body, document);
        body.push_str("</section>");
    }
    causes(&mut body, document);
    effects(&mut body, document);
    body.push_str("<section><h2>By the hour</h2><p class=sub>Lost requests, on average, from midnight on.</p>");
    svg::hours(&mut body, &document.estimate.hours);
    body.push_str("</section><div class=two>");
    services(&mut body, document);
    ends(&mut body, document);
    body.push_str("</div>");
    assumed(&mut body, document);
    let options = &document.options;
    let title = format!("{} lost a day", count(document.estimate.lost.mean));
    format!(
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <meta name=color-scheme content=\"light dark\"><title>{title}</title><style>{}</style></head><body><main>{body}\
         <footer>lameduck {} simulate, {} runs of {} day{}, seed {}. Ends of pods are simulated one by one; requests between them are drawn \
         from the laws of docs/simulate.md. What no file says is assumed, and listed.</footer></main></body></html>\n",
        include_str!("page.css"),
        document.version,
        options.runs,
        options.days,
        if options.days == 1 { "" } else { "s" },
        options.seed,
    )
}

fn header(out: &mut String, document: &Document) {
    let estimate = &document.estimate;
    let fleet = &document.fleet;
    let _ = write!(
        out,
        "<header><p class=kicker>lameduck simulate</p><h1>{} <small>requests lost a day</small></h1>",
        count(estimate.lost.mean)
    );
    if let Some(top) = estimate.causes.first() {
        let last = document
            .staircase
            .last()
            .map_or_else(String::new, |step| format!(" With every fix of the staircase: {}.", count(step.lost.mean)));
        let _ = write!(out, "<p class=lead>{} of them: {}.{last}</p>", percent(top.share), top.cause.what());
    }
    if !document.fixes.is_empty() {
        let _ = write!(out, "<p class=sub>With {}</p>", document.fixes.join(", "));
    }
    out.push_str("</header>");
    let pods: f64 = fleet.services.iter().map(|service| f64::from(service.replicas)).sum();
    let rate: f64 = fleet.services.iter().map(|service| service.traffic.rate).sum();
    let ended: f64 = estimate.ends.iter().map(|end| end.pods).sum();
    let tiles = [
        (
            "9 of 10 days",
            interval(&estimate.lost),
            format!("{} of what is sent", percent(estimate.lost.mean / estimate.sent.max(1.0))),
        ),
        ("sent a day", count(estimate.sent), format!("{} a second", count(rate))),
        ("masked a day", count(estimate.masked), "failed once, answered when sent again".to_owned()),
        ("pods", count(pods), format!("in {} services; {} ends a day", fleet.services.len(), count(ended))),
    ];
    out.push_str("<div class=tiles>");
    for (name, value, note) in tiles {
        let _ = write!(
            out,
            "<div class=tile><span class=name>{name}</span><span class=value>{value}</span><span class=note>{note}</span></div>"
        );
    }
    out.push_str("</div>");
}

fn steps(out: &mut String, document: &Document) {
    out.push_str("<table><thead><tr><th>step<th>what it changes<th class=n>lost a day<th class=n>9 of 10 days</tr></thead><tbody>");
    for step in &document.staircase {
        let _ = write!(
            out,
            "<tr><td>{}<td>{}<td class=n>{}<td class=n>{}</tr>",
            step.fix.unwrap_or("as it is"),
            if step.fix.is_some() { step.what } else { "" },
            count(step.lost.mean),
            interval(&step.lost)
        );
    }
    out.push_str("</tbody></table>");
}

fn causes(out: &mut String, document: &Document) {
    let estimate = &document.estimate;
    if estimate.causes.is_empty() {
        return;
    }
    out.push_str("<section><h2>Why</h2><div class=share>");
    for one in &estimate.causes {
        let _ = write!(
            out,
            "<i class={} style=\"flex:{:.6}\" title=\"{}\"></i>",
            one.cause.id(),
            one.share,
            one.cause.id()
        );
    }
    out.push_str("</div><table><thead><tr><th>cause<th>what happens<th class=n>lost a day<th class=n>9 of 10 days<th class=n>share</tr></thead><tbody>");
    for one in &estimate.causes {
        let _ = write!(
            out,
            "<tr><td><i class=\"dot {0}\"></i>{0}<td>{1}<td class=n>{2}<td class=n>{3}<td class=n>{4}</tr>",
            one.cause.id(),
            Escaped(one.cause.what()),
            count(one.lost.mean),
            interval(&one.lost),
            percent(one.share)
        );
    }
    out.push_str("</tbody></table></section>");
}

fn effects(out: &mut String, document: &Document) {
    let now = document.estimate.lost.mean;
    let useful: Vec<_> = document.effects.iter().filter(|step| step.lost.mean < now * 0.9999).collect();
    if useful.is_empty() {
        return;
    }
    out.push_str("<section><h2>What each fix gives</h2><p class=sub>Each by itself.</p><table><thead><tr><th>fix<th>what it changes<th class=n>lost a day<th class=n>fewer<th></tr></thead><tbody>");
    for step in useful {
        let fewer = (now - step.lost.mean) / now;
        let _ = write!(
            out,
            "<tr><td>{}<td>{}<td class=n>{}<td class=n>{}<td class=meter><i style=\"width:{:.1}%\"></i></tr>",
            step.fix.unwrap_or_default(),
            step.what,
            count(step.lost.mean),
            percent(fewer),
            fewer * 100.0
        );
    }
    out.push_str("</tbody></table></section>");
}

fn services(out: &mut String, document: &Document) {
    const SHOWN: usize = 20;
    out.push_str("<section><h2>Services</h2><table><thead><tr><th>service<th class=n>lost a day</tr></thead><tbody>");
    for one in document.estimate.services.iter().take(SHOWN) {
        let _ = write!(out, "<tr><td>{}<td class=n>{}</tr>", Escaped(&one.name), count(one.lost));
    }
    let rest = document.estimate.services.get(SHOWN..).unwrap_or_default();
    if !rest.is_empty() {
        let lost: f64 = rest.iter().map(|one| one.lost).sum();
        let _ = write!(out, "<tr><td>{} more<td class=n>{}</tr>", rest.len(), count(lost));
    }
    out.push_str("</tbody></table></section>");
}

fn ends(out: &mut String, document: &Document) {
    out.push_str(
        "<section><h2>What ends pods</h2><table><thead><tr><th>event<th class=n>pods a day</tr></thead><tbody>",
    );
    for end in &document.estimate.ends {
        let _ = write!(out, "<tr><td>{}<td class=n>{}</tr>", end.kind, count(end.pods));
    }
    if document.estimate.scalings > 0.0 {
        let scalings = count(document.estimate.scalings);
        let _ = write!(out, "<tr><td>changes by autoscalers, up or down<td class=n>{scalings}</tr>");
    }
    out.push_str("</tbody></table></section>");
}

fn assumed(out: &mut String, document: &Document) {
    if !document.assumed.is_empty() {
        out.push_str(
            "<section><h2>Assumed</h2><p class=sub>Neither the files nor the traffic file say.</p><table><tbody>",
        );
        for one in &document.assumed {
            let _ = write!(
                out,
                "<tr><td>{}<td>{}<td>{}</tr>",
                Escaped(&one.what),
                Escaped(&one.value),
                Escaped(&names(&one.services))
            );
        }
        out.push_str("</tbody></table></section>");
    }
    if !document.left_out.is_empty() {
        out.push_str("<section><h2>Left out</h2><table><tbody>");
        for one in &document.left_out {
            let _ = write!(out, "<tr><td>{}<td>{}</tr>", Escaped(&one.name), Escaped(&one.reason));
        }
        out.push_str("</tbody></table></section>");
    }
}
