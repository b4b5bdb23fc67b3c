//! Spring Boot's settings: `application.yml` or `application.properties` among the sources.

use super::{CONTEXT, OnSignal, Server, from_catalogue};
use crate::launch::Opened;
use crate::model::proxy::time;
use crate::span::{At, Lines, Mapped, Sp, Span};

/// The server that the settings belong to. Without settings it is not known to be Spring Boot at all.
pub fn read(open: &dyn Fn(&str) -> Opened) -> Option<Server> {
    let find = |name: &str| match open(&format!("{CONTEXT}src/main/resources/{name}")) {
        Opened::Text { text, .. } => Some(text),
        Opened::Missing => None,
    };
    let settings = find("application.yml").or_else(|| find("application.yaml")).map(|text| of_yaml(&text));
    let settings = settings.or_else(|| find("application.properties").map(|text| of_properties(&text)))?;
    let mut server = from_catalogue("spring-boot")?;
    let get = |key: &str| settings.iter().find(|(name, _)| name == key).map(|(_, value)| value);
    // Graceful by default from 3.4 on, immediate before: without the setting the version decides.
    server.on_stop = match get("server.shutdown").map(|value| value.value.as_str()) {
        Some("graceful") => OnSignal::Graceful,
        Some("immediate") => OnSignal::Immediate,
        Some(_) | None => OnSignal::Unknown,
    };
    server.sure = get("server.shutdown").is_some();
    if let Some((limit, at)) =
        get("spring.lifecycle.timeout-per-shutdown-phase").and_then(|v| Some((time(&v.value)?, v.at)))
    {
        server.shutdown = Some((limit, limit));
        server.shutdown_at = Some(at);
    }
    if let Some((idle, at)) = get("server.tomcat.keep-alive-timeout").and_then(|v| Some((millis(&v.value)?, v.at))) {
        server.idle = Some((idle, idle));
        server.idle_at = Some(at);
    }
    Some(server)
}

/// A number without a unit is milliseconds there.
fn millis(text: &str) -> Option<f64> {
    text.parse::<f64>().ok().map(|ms| ms / 1000.0).or_else(|| time(text))
}

type Settings = Vec<(String, Sp<String>)>;

fn of_yaml(text: &Mapped) -> Settings {
    const KEYS: [&str; 3] =
        ["server.shutdown", "spring.lifecycle.timeout-per-shutdown-phase", "server.tomcat.keep-alive-timeout"];
    let lines = Lines::new(text.file, &text.text);
    let mut out = Settings::new();
    for (start, document) in crate::yaml::split(&text.text) {
        let Ok(Some(document)) = crate::yaml::read(&lines, start, document) else { continue };
        for key in KEYS {
            let path: Vec<&str> = key.split('.').collect();
            // Keys may be nested, or written with their dots.
            let node = document.root().path(&path).or_else(|| document.root().get(key));
            if let Some((node, value)) = node.and_then(|node| Some((node, node.text()?))) {
                out.push((key.to_owned(), Sp { value: value.to_owned(), at: node.at() }));
            }
        }
    }
    out
}

fn of_properties(text: &Mapped) -> Settings {
    let lines = Lines::new(text.file, &text.text);
    let (mut out, mut offset) = (Settings::new(), 0);
    for line in text.text.split_inclusive('\n') {
        if let Some((key, value)) = line.split_once('=').filter(|_| !line.trim_start().starts_with('#')) {
            let at: At = lines.at(Span::new(offset, offset + line.trim_end().len()));
            out.push((key.trim().to_owned(), Sp { value: value.trim().to_owned(), at }));
        }
        offset += line.len();
    }
    out
}
