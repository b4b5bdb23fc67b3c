//! One self-contained page: no script, no network, readable in light and dark.

use std::fmt::Write as _;

use lameduck_core::Cause;
use lameduck_core::words::{Escaped, count};

use super::{a_day, hours, percent, spent, svg};
use crate::diagnose::Confidence;
use crate::report::{CauseReport, Explanation, Row};
use crate::time::span;

/// The explanation as a page.
pub fn html(e: &Explanation) -> String {
    let mut body = String::new();
    header(&mut body, e);
    tiles(&mut body, e);
    if let Some(followed) = &e.followed {
        follow(&mut body, followed);
    }
    if e.lost > 0 {
        cures(&mut body, e);
        body.push_str("<section><h2>When</h2><p class=sub>Lost requests over time (UTC), by cause. Flags name what coincided with a spike.</p>");
        svg::over_time(&mut body, e);
        body.push_str("</section>");
        causes(&mut body, e);
        spikes(&mut body, e);
        body.push_str("<div class=two><section><h2>By hour of the day</h2>");
        let _ = write!(body, "<p class=sub>UTC; {}</p>", Escaped(&e.periodicity));
        svg::hours(&mut body, e);
        body.push_str("</section>");
        table(&mut body, "What the logs said", &e.said);
        body.push_str("</div><div class=two>");
        table(&mut body, "Servers", &e.backends);
        table(&mut body, "Routes", &e.routes);
        body.push_str("</div>");
        budget(&mut body, e);
        pods(&mut body, e);
    }
    inputs(&mut body, e);
    let style = include_str!("page.css");
    let title = format!("{} lost of {}", count(e.lost), count(e.requests));
    format!(
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <meta name=color-scheme content=\"light dark\"><title>{title}</title><style>{style}</style></head><body><main>{body}\
         <footer>lameduck {} explain. A cause is proven by the request's own evidence, or likely by what was seen and the state its server was in; \
         what only happened at the same time is said to coincide. Logs that are sampled make these figures lower bounds.</footer>\
         </main></body></html>\n",
        env!("CARGO_PKG_VERSION")
    )
}

fn header(out: &mut String, e: &Explanation) {
    let _ = write!(
        out,
        "<header><p class=kicker>lameduck explain</p><h1>{} <small>of {} requests lost</small></h1>",
        count(e.lost),
        count(e.requests)
    );
    if let Some(top) = e.causes.first() {
        let waited = e.cost.as_ref().filter(|cost| cost.hours >= 1.0 / 60.0).map_or_else(String::new, |cost| {
            format!(" People and programs waited {} for answers that never came.", hours(cost.hours))
        });
        let _ = write!(out, "<p class=lead>{} of them: {}.{waited}</p>", percent(top.share), Escaped(top.what));
    }
    if let (Some(first), Some(last)) = (&e.first, &e.last) {
        // `2026-11-21T18:10:40.123Z`; the day is said once.
        let day = |at: &str| at.get(..10).unwrap_or(at).to_owned();
        let clock = |at: &str| at.get(11..16).unwrap_or("").to_owned();
        let end = if day(first) == day(last) { clock(last) } else { format!("{} {}", day(last), clock(last)) };
        let _ = write!(out, "<p class=sub>{} {} to {end} UTC</p>", day(first), clock(first));
    }
    out.push_str("</header>");
}

fn tiles(out: &mut String, e: &Explanation) {
    let rate = e.lost as f64 / e.requests.max(1) as f64;
    let mut parts: Vec<(&str, String, String)> =
        vec![("lost", count(e.lost), format!("{} of all requests", percent(rate)))];
    if let Some(cost) = &e.cost {
        parts.push((
            "time waited for nothing",
            hours(cost.hours),
            format!("{} each{}", span((cost.mean_s * 1e6) as i64), a_day(cost)),
        ));
    }
    let statuses: u64 = e.statuses.values().sum();
    if let Some((status, n)) = e.statuses.iter().max_by_key(|(_, n)| **n) {
        let words = if *status == 0 { "without a status".into() } else { format!("answered {status}") };
        parts.push(("clients saw", percent(*n as f64 / statuses.max(1) as f64), words));
    }
    parts.push((
        "spikes",
        count(e.spikes.len() as u64),
        format!("{} requests in them", count(e.spikes.iter().map(|spike| spike.lost).sum())),
    ));
    if e.masked > 0 {
        parts.push(("masked", count(e.masked), "failed once, answered by another try".into()));
    }
    if let Some(slo) = &e.slo {
        parts.push(("error budget spent", spent(slo.spent), format!("of an objective of {}", percent(slo.objective))));
    }
    out.push_str("<div class=tiles>");
    for (name, value, note) in parts {
        let _ = write!(
            out,
            "<div class=tile><span class=name>{name}</span><span class=value>{value}</span><span class=note>{note}</span></div>"
        );
    }
    out.push_str("</div>");
}

/// What would have prevented most of them, for whoever reads no further.
fn cures(out: &mut String, e: &Explanation) {
    // The app's own errors have nothing to do with how processes come and go.
    let known =
        e.causes.iter().filter(|cause| !matches!(cause.cause, Cause::Unknown | Cause::AppError) && cause.share >= 0.01);
    let cures: Vec<_> = known.filter_map(|cause| Some((cause, cause.fixes.first()?))).take(4).collect();
    if cures.is_empty() {
        return;
    }
    out.push_str("<section><h2>What prevents them</h2><table><tbody>");
    for (cause, fix) in cures {
        let _ = write!(
            out,
            "<tr><td class=figure>{}</td><td class=wide><i class=\"dot {1}\"></i>{1}<br><b>{2}</b></td></tr>",
            percent(cause.share),
            cause.cause.id(),
            Escaped(fix)
        );
    }
    out.push_str("</tbody></table></section>");
}

/// The folder that all inputs are in, with its slash: citations are told without it.
fn folder(e: &Explanation) -> &str {
    common_folder(e.inputs.iter().map(|input| input.name.as_str()))
}

fn common_folder<'n>(mut names: impl Iterator<Item = &'n str>) -> &'n str {
    let Some(first) = names.next() else { return "" };
    let mut common = first.rfind('/').map_or("", |slash| &first[..=slash]);
    for name in names {
        while !name.starts_with(common) {
            common = common[..common.len() - 1].rfind('/').map_or("", |slash| &common[..=slash]);
        }
    }
    common
}

fn follow(out: &mut String, followed: &crate::report::Followed) {
    let _ = write!(out, "<section><h2>Request <code>{}</code></h2>", Escaped(&followed.id));
    if let (Some(cause), Some(grounds)) = (followed.cause, &followed.grounds) {
        let _ = write!(out, "<p><i class=\"dot {0}\"></i><b>{0}</b>: {1}</p>", cause.id(), Escaped(grounds));
    }
    for fix in &followed.fixes {
        let _ = write!(out, "<p class=fix>{}</p>", Escaped(fix));
    }
    for (cite, line) in &followed.seen {
        let _ = write!(out, "<p class=sub>{}<br><code>{}</code></p>", Escaped(cite), Escaped(line));
    }
    out.push_str("</section>");
}

fn causes(out: &mut String, e: &Explanation) {
    out.push_str("<section><h2>Why</h2>");
    svg::shares(out, e);
    for cause in &e.causes {
        one_cause(out, cause, folder(e));
    }
    out.push_str("</section>");
}

fn one_cause(out: &mut String, cause: &CauseReport, folder: &str) {
    let _ = write!(
        out,
        "<h3><i class=\"dot {0}\"></i>{0} <span class=pill>{1}</span><span class=pill>{2}</span></h3><p class=sub>{3}</p>",
        cause.cause.id(),
        count(cause.requests),
        percent(cause.share),
        Escaped(cause.what)
    );
    for ground in &cause.grounds {
        let sure = match ground.confidence {
            Confidence::Proven => "proven",
            Confidence::Likely => "likely",
            Confidence::Open => "open",
        };
        let _ = write!(
            out,
            "<div><span class=pill>{} {sure}</span>{}</div>",
            count(ground.requests),
            Escaped(&ground.grounds)
        );
    }
    for fix in &cause.fixes {
        let _ = write!(out, "<p class=fix>{}</p>", Escaped(fix));
    }
    out.push_str("<details><summary>examples, with the evidence</summary><table><tbody>");
    for example in &cause.examples {
        let took = example.took_s.map_or_else(String::new, |took| format!("{took:.3} s"));
        let packets = example.packets.as_deref().unwrap_or("");
        let _ = write!(
            out,
            "<tr><td class=n>{}</td><td class=wide>{} at {} {}<br>{}<br>{}</td><td class=n>{took}</td><td class=wide><code>{}</code></td></tr>",
            Escaped(&example.at),
            Escaped(&example.route),
            Escaped(&example.backend),
            Escaped(&example.id),
            Escaped(&example.seen),
            Escaped(packets),
            Escaped(
                &example
                    .cites
                    .iter()
                    .map(|cite| cite.strip_prefix(folder).unwrap_or(cite))
                    .collect::<Vec<_>>()
                    .join(", ")
            )
        );
    }
    out.push_str("</tbody></table></details>");
}

fn spikes(out: &mut String, e: &Explanation) {
    if e.spikes.is_empty() {
        return;
    }
    out.push_str(
        "<section><h2>Spikes, and what happened then</h2><div class=scroll><table><thead><tr><th>from</th><th class=n>for</th><th class=n>lost</th>\
         <th>mostly</th><th>events</th></tr></thead><tbody>",
    );
    for spike in &e.spikes {
        let _ = write!(
            out,
            "<tr><td class=n>{}</td><td class=n>{} min</td><td class=n>{}</td><td><i class=\"dot {4}\"></i>{4}</td><td class=wide>{3}",
            &spike.start[..16].replace('T', " "),
            spike.length_s / 60,
            count(spike.lost),
            if spike.events.is_empty() { "none in the inputs" } else { "" },
            spike.cause.id()
        );
        for event in &spike.events {
            let how = if event.same_pod { "at the pods concerned" } else { "coincides" };
            let times = if event.count > 1 { format!(" and {} more", event.count - 1) } else { String::new() };
            let _ = write!(
                out,
                "<div><span class=pill>{how}</span>{} {}{times} <code>{}</code></div>",
                Escaped(&event.subject),
                event.kind.words(),
                Escaped(event.cite.strip_prefix(folder(e)).unwrap_or(&event.cite))
            );
        }
        out.push_str("</td></tr>");
    }
    out.push_str("</tbody></table></div></section>");
}

fn table(out: &mut String, title: &str, rows: &[Row]) {
    let _ = write!(out, "<section><h2>{title}</h2><table><tbody>");
    let most = rows.first().map_or(1, |row| row.lost).max(1) as f64;
    for row in rows.iter().take(12) {
        let _ = write!(
            out,
            "<tr><td class=wide>{}<div class=share style=\"height:6px;margin:4px 0 0;width:{:.1}%\">",
            Escaped(&row.name),
            (row.lost as f64 / most * 100.0).max(1.0)
        );
        for (cause, n) in &row.causes {
            let _ = write!(
                out,
                "<i class={} style=\"flex:{n}\" title=\"{} {}\"></i>",
                svg::class(*cause),
                cause.id(),
                count(*n)
            );
        }
        let _ = write!(out, "</div></td><td class=n>{}</td></tr>", count(row.lost));
    }
    out.push_str("</tbody></table></section>");
}

fn budget(out: &mut String, e: &Explanation) {
    let Some(slo) = &e.slo else { return };
    let _ = write!(
        out,
        "<section><h2>Error budget</h2><p class=sub>{} of {} requests may be lost at {}; {} of that is spent.</p><table><tbody>",
        count(slo.budget.round() as u64),
        count(slo.requests),
        percent(slo.objective),
        spent(slo.spent)
    );
    for (cause, share) in &slo.by_cause {
        let _ = write!(
            out,
            "<tr><td><i class=\"dot {0}\"></i>{0}</td><td class=n>{1}</td></tr>",
            cause.id(),
            spent(*share)
        );
    }
    for burn in &slo.burn {
        let words =
            burn.rate.map_or_else(|| "the logs are shorter".into(), |rate| format!("{rate:.1} times the allowed rate"));
        let _ = write!(
            out,
            "<tr><td>worst {} h{}</td><td class=n>{words}</td></tr>",
            burn.window_h,
            burn.start.as_ref().map_or_else(String::new, |start| format!(", from {}", start[..16].replace('T', " ")))
        );
    }
    out.push_str("</tbody></table></section>");
}

fn pods(out: &mut String, e: &Explanation) {
    if e.pods.is_empty() {
        return;
    }
    out.push_str("<section><h2>Pods, two lanes each</h2><p class=sub>What the process did, above; what was still sent to it, below. A request is lost where the lower lane outlives the upper.</p>\
        <div class=legend><span><i class=\"dot lane\"></i>serves</span><span><i class=\"dot lane stopping\"></i>told to stop</span>\
        <span><i class=\"dot lane routed\"></i>is sent requests</span><span>each stroke a lost request, in its cause's colour</span></div>");
    for pod in e.pods.iter().take(12) {
        svg::lanes(out, pod);
    }
    out.push_str("</section>");
}

fn inputs(out: &mut String, e: &Explanation) {
    out.push_str("<section><h2>Inputs</h2><div class=scroll><table><thead><tr><th>input</th><th>read as</th><th class=n>lines</th><th class=n>not understood</th></tr></thead><tbody>");
    for input in &e.inputs {
        let formats: Vec<String> =
            input.formats.iter().map(|(format, lines)| format!("{format} {}", count(*lines))).collect();
        let _ = write!(out, "<tr><td class=wide>{}", Escaped(&input.name));
        for sample in &input.samples {
            let _ = write!(out, "<br><code>{}: {}</code>", sample.line, Escaped(&sample.text));
        }
        let _ = write!(
            out,
            "</td><td>{}</td><td class=n>{}</td><td class=n>{}</td></tr>",
            formats.join(", "),
            count(input.lines),
            count(input.unparsed)
        );
    }
    out.push_str("</tbody></table></div>");
    for offset in &e.offsets {
        let _ = write!(
            out,
            "<p class=sub>Clock: {} is {:+.3} s from {}, by {} requests.</p>",
            Escaped(&offset.other),
            offset.ahead_s,
            Escaped(&offset.input),
            count(offset.requests)
        );
    }
    out.push_str("</section>");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_that_all_are_in() {
        let check = |names: &[&str], expect: &str| assert_eq!(common_folder(names.iter().copied()), expect);
        check(&["/var/log/a.log", "/var/log/b/c.log"], "/var/log/");
        check(&["/var/log/a.log", "/srv/b.log"], "/");
        check(&["a.log", "/srv/b.log"], "");
        check(&["logs/a.log"], "logs/");
    }
}
