//! One page that tells each story with this run's figures beside the story's. No script, no network.

use std::fmt::Write;

use lameduck_core::words::Escaped;
use lameduck_drill::{DrillResult, render};

use super::{Incident, Told};

const STYLE: &str = include_str!("page.css");

/// The page of a run: each incident with what it told, or why it could not be run to its end.
pub fn page(incidents: &[(&Incident, &Told, Option<&str>)], short: bool) -> String {
    let mut body = String::new();
    let passed = incidents.iter().filter(|(_, told, broken)| broken.is_none() && told.passed()).count();
    let _ = write!(
        body,
        "<header><p class=kicker>lameduck incident{}</p><h1>{passed} of {} passed</h1>{}</header>",
        if short { " --short" } else { "" },
        incidents.len(),
        if short { "<p>Short form: wherever the story waits, this run waited a fifth of it.</p>" } else { "" },
    );
    if incidents.len() > 1 {
        summary(&mut body, incidents);
    }
    for (incident, told, broken) in incidents {
        section(&mut body, incident, told, *broken);
    }
    format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <title>lameduck incident</title><style>{STYLE}</style><body>{body}</body></html>\n"
    )
}

/// A line for each incident: as it was, and cured.
fn summary(out: &mut String, incidents: &[(&Incident, &Told, Option<&str>)]) {
    out.push_str(
        "<table><tr><th>incident<th class=n>lost, as it was<th>by cause<th class=n>lost, cured<th class=n>TERM to exit\
         <th class=n>the story's wait",
    );
    for (incident, told, broken) in incidents {
        let seconds = |time: Option<f64>| time.map_or_else(|| "-".into(), |s| format!("{s:.1} s"));
        let name = escaped(incident.name);
        let _ = write!(out, "<tr><td><a href=\"#{name}\">{name}</a>");
        match (broken, told.drill("plain"), told.drill("cured")) {
            (None, Some(plain), Some(cured)) => {
                let good = |lost: u64| if lost == 0 { "good" } else { "bad" };
                let (was, is) = (plain.tally.lost, cured.tally.lost + cured.tally.unknown);
                let _ = write!(
                    out,
                    "<td class=\"n {}\">{was} of {}<td>{}<td class=\"n {}\">{is} of {}<td class=n>{}<td class=n>{}",
                    good(was),
                    plain.tally.sent,
                    causes(plain),
                    good(is),
                    cured.tally.sent,
                    seconds(cured.term_to_exit_s.max),
                    seconds(told.story_sleep_s),
                );
            }
            (why, _, _) => {
                let _ = write!(out, "<td colspan=5>{}", escaped(why.unwrap_or("not run to its end")));
            }
        }
    }
    out.push_str("</table>");
}

fn section(out: &mut String, incident: &Incident, told: &Told, broken: Option<&str>) {
    let verdict = match broken {
        Some(why) => format!("<p class=bad>{}</p>", escaped(why)),
        None if told.passed() => "<p class=good>passed</p>".to_owned(),
        None => "<p class=bad>did not pass</p>".to_owned(),
    };
    let _ = write!(
        out,
        "<section id=\"{name}\"><h2>{name}: {title}</h2>{verdict}<p class=story>{story} <cite>{source}</cite></p>",
        name = escaped(incident.name),
        title = escaped(incident.title),
        story = escaped(incident.story),
        source = escaped(incident.source),
    );
    results(out, told);
    facts(out, told);
    list(
        out,
        "What had to hold",
        told.expectations.iter().map(|one| {
            let (class, word) = if one.holds { ("good", "ok") } else { ("bad", "not so") };
            format!("<span class={class}>{word}</span> {}", escaped(&one.what))
        }),
    );
    predicted(out, told);
    explained(out, told);
    for (title, text) in &told.shown {
        let _ = write!(out, "<h3>{}</h3><pre>{}</pre>", escaped(title), escaped(text));
    }
    for (id, title, result) in &told.drills {
        // A drill's page stands by itself, with its own style.
        let _ = write!(
            out,
            "<details{}><summary>{}: the two lanes</summary><iframe srcdoc=\"{}\" title=\"{}\"></iframe></details>",
            if ["plain", "cured"].contains(&id.as_str()) { " open" } else { "" },
            escaped(title),
            escaped(&render::html(result)),
            escaped(title),
        );
    }
    list(out, "Not real here", incident.simulated.iter().map(|what| escaped(what)));
    list(out, "Skipped", told.skipped.iter().map(|what| escaped(what)));
    out.push_str("</section>");
}

fn results(out: &mut String, told: &Told) {
    if told.drills.is_empty() {
        return;
    }
    out.push_str("<table><tr><th>run<th class=n>sent<th class=n>lost<th>by cause<th class=n>TERM to exit");
    for (_, title, result) in &told.drills {
        let class = if result.tally.lost == 0 { "good" } else { "bad" };
        let _ = write!(
            out,
            "<tr><td>{}<td class=n>{}<td class=\"n {class}\">{}<td>{}<td class=n>{}",
            escaped(title),
            result.tally.sent,
            result.tally.lost,
            causes(result),
            result.term_to_exit_s.max.map_or_else(|| "-".into(), |s| format!("{s:.1} s")),
        );
    }
    if let Some(sleep) = told.story_sleep_s {
        let _ = write!(out, "<tr><td>the story's fixed wait, on this run's clock<td><td><td><td class=n>{sleep:.1} s");
    }
    out.push_str("</table>");
}

fn causes(result: &DrillResult) -> String {
    let causes: Vec<_> = result.tally.causes.iter().map(|(cause, n)| format!("{n} {cause}")).collect();
    escaped(&causes.join(", "))
}

fn facts(out: &mut String, told: &Told) {
    if told.facts.is_empty() {
        return;
    }
    out.push_str("<table><tr><th>what<th>in the story<th>in this run");
    for fact in &told.facts {
        let _ = write!(out, "<tr><td>{}<td>{}<td>{}", escaped(&fact.what), escaped(&fact.story), escaped(&fact.here));
    }
    out.push_str("</table>");
}

fn predicted(out: &mut String, told: &Told) {
    list(
        out,
        "Predicted by check, before anything ran",
        told.check.iter().map(|finding| {
            let text = |name: &str| escaped(finding[name].as_str().unwrap_or_default());
            let place = format!("{}:{}:{}", text("file"), finding["line"], finding["column"]);
            format!("<code>{place}</code> <b>{}</b> ({}): {}", text("rule"), text("cause"), text("message"))
        }),
    );
}

fn explained(out: &mut String, told: &Told) {
    list(
        out,
        "Explained afterwards, from what the run left behind",
        told.explain.iter().flat_map(|explanation| {
            let variant = escaped(explanation["variant"].as_str().unwrap_or_default());
            let causes = explanation["causes"].as_array().cloned().unwrap_or_default();
            let followed = &explanation["followed"];
            let one = followed.is_object().then(|| {
                let text = |name: &str| escaped(followed[name].as_str().unwrap_or("not known"));
                format!("--id {}: <b>{}</b>, {}", text("id"), text("cause"), text("grounds"))
            });
            let line = move |cause: &serde_json::Value| {
                let grounds = cause["grounds"][0]["grounds"].as_str().unwrap_or_default();
                let cites = cause["examples"][0]["cites"][0].as_str().unwrap_or_default();
                let cite = cites.rsplit('/').next().unwrap_or_default();
                format!(
                    "{variant}: {} <b>{}</b>, {} <code>{}</code>",
                    cause["requests"],
                    escaped(cause["cause"].as_str().unwrap_or_default()),
                    escaped(grounds),
                    escaped(cite)
                )
            };
            causes.iter().map(line).chain(one).collect::<Vec<_>>()
        }),
    );
}

fn list(out: &mut String, title: &str, items: impl Iterator<Item = String>) {
    let items: Vec<_> = items.collect();
    if items.is_empty() {
        return;
    }
    let _ = write!(out, "<h3>{title}</h3><ul>");
    for item in items {
        let _ = write!(out, "<li>{item}");
    }
    out.push_str("</ul>");
}

fn escaped(text: &str) -> String {
    Escaped(text).to_string()
}
