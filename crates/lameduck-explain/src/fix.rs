//! What to set, and to which value, for the server that the evidence names.

use std::collections::BTreeSet;

use lameduck_core::Cause;
use lameduck_core::catalog::{self, Server};

use crate::books::Books;
use crate::read;
use crate::report::Judged;
use crate::time::{Micros, SECOND};
use crate::world::World;

/// The servers that name themselves, or that close after just the idle time that was seen. A time alone gives candidates.
fn servers(own: &[&Judged<'_>]) -> (Vec<&'static Server>, bool) {
    let mut named = BTreeSet::new();
    let mut idles: Vec<Micros> = Vec::new();
    for packets in own.iter().filter_map(|one| one.loss.packets.as_deref()).take(1000) {
        if let Some(id) = named_by(&packets.server) {
            named.insert(id);
        }
        idles.extend(packets.idle.filter(|idle| *idle > SECOND / 2));
    }
    if !named.is_empty() {
        idles.sort_unstable();
        let seen = idles.get(idles.len() / 2).map_or(0.0, |idle| *idle as f64 / 1e6);
        // Versions differ in their time: the one that was seen, else the first.
        let version =
            |id| catalog::servers_idle_for(seen).find(|server| server.id == id).or_else(|| catalog::server_of(id));
        return (named.into_iter().filter_map(version).collect(), true);
    }
    idles.sort_unstable();
    let Some(median) = idles.get(idles.len() / 2) else { return (Vec::new(), false) };
    (catalog::servers_idle_for(*median as f64 / 1e6).collect(), false)
}

/// Which server writes such headers. Node names itself by none, but announces its timeout without a `max`.
fn named_by(headers: &str) -> Option<&'static str> {
    let lower = headers.to_ascii_lowercase();
    let names = [
        "gunicorn",
        "uvicorn",
        "hypercorn",
        "apache",
        "nginx",
        "caddy",
        "daphne",
        "granian",
        "jetty",
        "kestrel",
        "cowboy",
        "webrick",
    ];
    let server = lower.split(", ").find_map(|part| part.strip_prefix("server: "));
    match server {
        Some(server) => names.into_iter().find(|name| server.contains(name)),
        None if lower.contains("keep-alive: timeout=") && !lower.contains("max=") => Some("node"),
        None => None,
    }
}

/// How long the hop in front keeps connections, by its log's format.
fn hop_keeps(own: &[&Judged<'_>]) -> Option<&'static catalog::Caller> {
    let id = own.iter().find_map(|one| match read::name(usize::from(one.loss.format)) {
        "google-lb" => Some("glb"),
        "aws-alb" => Some("alb"),
        "ingress-nginx" => Some("ingress-nginx"),
        "nginx" | "nginx-json" | "nginx-error" => Some("nginx"),
        "haproxy" => Some("haproxy"),
        "envoy" | "envoy-json" => Some("envoy"),
        "traefik" | "traefik-text" => Some("traefik"),
        "caddy" => Some("caddy"),
        _ => None,
    })?;
    catalog::caller_of(id)
}

/// What prevents it here.
pub fn fixes(cause: Cause, own: &[&Judged<'_>], books: &Books, world: &World) -> Vec<String> {
    let _ = books;
    let mut out = Vec::new();
    match cause {
        Cause::IdleCloseRace => {
            let hop = hop_keeps(own);
            if let Some(hop) = hop {
                out.push(format!(
                    "{} keeps idle connections {} s: the server has to keep them longer, say {} s",
                    hop.name, hop.idle_s, (hop.idle_s * 1.034).round()
                ));
            }
            let (servers, named) = servers(own);
            let seen = own.iter().filter_map(|one| one.loss.packets.as_deref()?.idle).max();
            for server in &servers {
                let why = if named { "names itself in its answers".to_owned() } else {
                    format!("closes after just the {:.1} s seen", seen.unwrap_or(0) as f64 / 1e6)
                };
                out.push(format!("{} ({why}): {} is the setting: {}", server.name, server.setting, server.cure));
            }
            out.push("without touching the app: lameduck run --listen, which keeps connections 620 s and tells clients before it closes".into());
        }
        Cause::KilledAtDeadline => {
            let grace = world.lives.iter().filter_map(|life| life.grace).max().unwrap_or(30 * SECOND);
            out.push(format!(
                "terminationGracePeriodSeconds is {} s: raise it above the longest request, or let the server stop sooner",
                grace / SECOND
            ));
        }
        Cause::RefusedWhileRouted => {
            out.push("lameduck run as PID 1: it keeps accepting until traffic is measured quiet (a preStop sleep is the guess at the same)".into());
        }
        Cause::GoneAddress => {
            out.push("the address outlives its pod in routing: container-native load balancing (NEG, ip targets) with a drain timeout, e.g. BackendConfig connectionDraining.drainingTimeoutSec: 60".into());
        }
        Cause::BackendTimeout => out.push("the hop's timeout is below the slowest answer: raise it (Google: BackendConfig timeoutSec; nginx: proxy_read_timeout; ALB: idle_timeout.timeout_seconds)".into()),
        Cause::CutMidResponse
        | Cause::SignalNotDelivered
        | Cause::NotReadyYet
        | Cause::PeerDown
        | Cause::CrashRestart
        | Cause::Overload
        | Cause::AppError
        | Cause::Unknown => out.push(cause.cure().to_owned()),
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_name_themselves() {
        let check = |headers: &str, expect: Option<&str>| assert_eq!(named_by(headers), expect, "{headers}");
        check("keep-alive: timeout=5", Some("node"));
        check("server: gunicorn", Some("gunicorn"));
        check("server: Apache/2.4, keep-alive: timeout=5, max=100", Some("apache"));
        check("keep-alive: timeout=5, max=100", None);
        check("", None);
    }
}
