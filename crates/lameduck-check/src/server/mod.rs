//! What is known of the servers that containers run: the catalogue, and what their command lines and settings change.

mod options;
mod spring;

use std::sync::OnceLock;

use serde::Deserialize;

use crate::model::node::NodeFacts;
use crate::span::{At, Sp};

pub use options::{is_server, recognise};

/// In front of a path that is meant in the build context, not in the image: what a build tool packs is not copied.
pub const CONTEXT: &str = "context:";

/// A range of seconds. Both ends are the same where the value is known; infinity is "never".
pub type Range = (f64, f64);

/// What a signal does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnSignal {
    /// Requests in flight are finished.
    Graceful,
    /// They are cut.
    Immediate,
    /// No handler: as PID 1 the kernel drops the signal, elsewhere it kills.
    NoHandler,
    /// It reloads, or is ignored: the process goes on.
    GoesOn,
    Unknown,
}

/// What happens to new connections once it stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewConnections {
    Refused,
    /// Accepted by the kernel, never answered, reset at the exit.
    HangThenReset,
    Unknown,
}

#[derive(Debug, Clone)]
pub struct Server {
    pub id: &'static str,
    pub name: &'static str,
    /// What the stop signal does.
    pub on_stop: OnSignal,
    /// The signal that drains, without SIG.
    pub graceful_signal: Option<&'static str>,
    pub new_connections: NewConnections,
    /// How long an idle keep-alive connection lives.
    pub idle: Option<Range>,
    pub idle_at: Option<At>,
    /// The longest it takes to stop by its own rules.
    pub shutdown: Option<Range>,
    pub shutdown_at: Option<At>,
    /// The longest request it lets run.
    pub request: Option<Sp<f64>>,
    /// Restarts of workers by count of requests.
    pub max_requests: Option<Sp<f64>>,
    pub jitter: bool,
    pub node: Option<NodeFacts>,
    /// The command line of the app.
    pub argv: Vec<String>,
    pub at: At,
    /// Facts of other versions than the one in use are not ruled out.
    pub sure: bool,
    /// Where the fact about its stop comes from.
    pub source: &'static str,
}

#[derive(Debug, Deserialize)]
struct Catalogue {
    #[serde(alias = "balancer")]
    server: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
struct Entry {
    id: String,
    name: String,
    fact: Vec<Fact>,
}

#[derive(Debug, Deserialize)]
struct Fact {
    key: String,
    value: String,
    num: Option<f64>,
    versions: String,
    source: String,
}

const SERVERS: &str = include_str!("../../data/servers.toml");
const BALANCERS: &str = include_str!("../../data/balancers.toml");

fn load(text: &'static str, cell: &'static OnceLock<Vec<Entry>>) -> &'static [Entry] {
    cell.get_or_init(|| toml::from_str::<Catalogue>(text).map(|catalogue| catalogue.server).unwrap_or_default())
}

fn servers() -> &'static [Entry] {
    static CELL: OnceLock<Vec<Entry>> = OnceLock::new();
    load(SERVERS, &CELL)
}

fn entry(id: &str) -> Option<&'static Entry> {
    servers().iter().find(|entry| entry.id == id)
}

impl Entry {
    fn facts<'e>(&'e self, key: &'e str) -> impl Iterator<Item = &'e Fact> {
        self.fact.iter().filter(move |fact| fact.key == key)
    }

    /// The least and the most that any version does.
    fn range(&self, key: &str, keep: impl Fn(&Fact) -> bool) -> Option<Range> {
        let values = self.facts(key).filter(|fact| keep(fact)).filter_map(|fact| fact.num);
        let values: Vec<f64> = values.map(|n| if n < 0.0 { f64::INFINITY } else { n }).collect();
        let least = values.iter().copied().reduce(f64::min)?;
        Some((least, values.iter().copied().fold(least, f64::max)))
    }
}

/// The server as the catalogue has it, every version taken together.
fn from_catalogue(id: &str) -> Option<Server> {
    let entry = entry(id)?;
    let signals: Vec<OnSignal> = entry.facts("sigterm").map(|fact| on_signal(&fact.value)).collect();
    let same = signals.windows(2).all(|pair| pair[0] == pair[1]);
    let on_stop = if same { signals.first().copied().unwrap_or(OnSignal::Unknown) } else { OnSignal::Unknown };
    let source = entry.facts("sigterm").next().map_or("", |fact| fact.source.as_str());
    let kinds: Vec<&str> = entry.facts("new_conns_during_stop").map(|fact| fact.value.as_str()).collect();
    let new_connections = match kinds.as_slice() {
        [] => NewConnections::Unknown,
        all if all.iter().all(|kind| kind.starts_with("hang")) => NewConnections::HangThenReset,
        all if all.iter().all(|kind| kind.starts_with("refused") || kind.starts_with("hang")) => {
            NewConnections::Refused
        }
        _ => NewConnections::Unknown,
    };
    Some(Server {
        id: &entry.id,
        name: &entry.name,
        on_stop,
        graceful_signal: graceful(id),
        new_connections,
        idle: entry.range("idle_keepalive_s", |_| true),
        idle_at: None,
        shutdown: entry.range("shutdown_timeout_s", |_| true),
        shutdown_at: None,
        request: None,
        max_requests: None,
        jitter: false,
        node: None,
        argv: Vec::new(),
        at: At::default(),
        sure: same,
        source,
    })
}

fn on_signal(value: &str) -> OnSignal {
    match value {
        "graceful" => OnSignal::Graceful,
        "immediate" => OnSignal::Immediate,
        "default_kill" => OnSignal::NoHandler,
        "reload" | "ignored" => OnSignal::GoesOn,
        _ => OnSignal::Unknown,
    }
}

/// The signal that drains, where TERM does not; the catalogue's `graceful_signal`.
fn graceful(id: &str) -> Option<&'static str> {
    match id {
        "nginx" | "unicorn" | "php-fpm" => Some("QUIT"),
        "apache-httpd" => Some("WINCH"),
        "haproxy" => Some("USR1"),
        _ => None,
    }
}

/// How a load balancer, proxy or client treats connections to what is behind it.
#[derive(Debug, Clone, PartialEq)]
pub struct Balancer {
    pub id: &'static str,
    pub name: &'static str,
    /// How long it keeps an unused connection to a backend.
    pub idle: Option<Range>,
    pub request_timeout: Option<f64>,
    /// From the deletion until it sends nothing new: what is published. `None`: nothing is.
    pub lag: (f64, Option<f64>),
}

pub fn balancer(id: &str) -> Option<Balancer> {
    static CELL: OnceLock<Vec<Entry>> = OnceLock::new();
    let entry = load(BALANCERS, &CELL).iter().find(|entry| entry.id == id)?;
    // EndpointSlice controller and kube-proxy: 1 to 3 s (kubernetes.toml, endpointslice, practical_latency).
    let lag = match id {
        // --sync-rate-limit 0.3, besides the endpoints' own way.
        "ingress-nginx" => (1.0, Some(6.3)),
        // providersThrottleDuration 2 s.
        "traefik-upstream" => (1.0, Some(5.0)),
        // Google's own article uses a preStop sleep of 40 s; no other number is published.
        "gcp-global-alb" | "gke-ingress-neg" => (1.0, Some(40.0)),
        "aws-alb" | "aws-nlb" => (1.0, None),
        _ => (1.0, Some(3.0)),
    };
    Some(Balancer {
        id: &entry.id,
        name: &entry.name,
        idle: entry.range("upstream_idle_s", |fact| !fact.versions.starts_with('<')),
        request_timeout: entry.facts("request_timeout_s").find_map(|fact| fact.num),
        lag,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogues_can_be_read() {
        assert!(servers().len() > 40, "{}", servers().len());
        for entry in servers() {
            assert!(from_catalogue(&entry.id).is_some());
            assert!(entry.fact.iter().all(|fact| !fact.source.is_empty() && !fact.versions.is_empty()), "{}", entry.id);
        }
        assert_eq!(balancer("gcp-global-alb").and_then(|balancer| balancer.idle), Some((600.0, 600.0)));
        assert_eq!(from_catalogue("nginx").map(|server| server.on_stop), Some(OnSignal::Immediate));
        assert_eq!(from_catalogue("puma").and_then(|server| server.idle), Some((20.0, 65.0)));
    }
    /// The names of `explain` and `probe` for what the catalogues have.
    const SAME: &[(&str, &str)] = &[
        ("node", "node-http"),
        ("aiohttp", "aiohttp-server"),
        ("gunicorn", "gunicorn-gthread"),
        ("apache", "apache-httpd"),
        ("go", "go-net-http"),
        ("glb", "gcp-global-alb"),
        ("alb", "aws-alb"),
        ("nlb", "aws-nlb"),
        ("cloudfront", "aws-cloudfront"),
        ("nginx", "nginx-upstream"),
        ("haproxy", "haproxy-upstream"),
        ("envoy", "envoy-upstream"),
        ("traefik", "traefik-upstream"),
        ("caddy", "caddy-upstream"),
        ("go-client", "go-transport"),
        ("requests", "python-requests"),
        ("httpx", "python-httpx"),
        ("java-client", "java-httpclient"),
    ];

    fn ours(id: &'static str, has: impl Fn(&str) -> bool) -> &'static str {
        if has(id) { id } else { SAME.iter().find(|(known, _)| *known == id).map_or(id, |(_, ours)| ours) }
    }

    #[test]
    fn explain_and_check_know_the_same_of_idle_connections() {
        use lameduck_core::catalog::{CALLERS, SERVERS};
        let mut apart = Vec::new();
        for theirs in SERVERS {
            let id = ours(theirs.id, |id| entry(id).is_some());
            let wanted = theirs.idle_s.unwrap_or(f64::INFINITY);
            // The setting, or the close that was seen, which may come later.
            let known: Vec<f64> = ["idle_keepalive_s", "idle_close_observed_s"]
                .into_iter()
                .flat_map(|key| entry(id).into_iter().flat_map(move |entry| entry.facts(key)))
                .filter_map(|fact| fact.num)
                .collect();
            let known: Vec<f64> = known.into_iter().map(|n| if n < 0.0 { f64::INFINITY } else { n }).collect();
            if !known.contains(&wanted) {
                apart.push(format!("{} ({id}): {wanted} s there, {known:?} here", theirs.name));
            }
        }
        for theirs in CALLERS {
            let id = ours(theirs.id, |id| balancer(id).is_some());
            let known = balancer(id).and_then(|balancer| balancer.idle);
            if !known.is_some_and(|(least, most)| least <= theirs.idle_s && theirs.idle_s <= most) {
                apart.push(format!("{} ({id}): {} s there, {known:?} here", theirs.name, theirs.idle_s));
            }
        }
        assert!(apart.is_empty(), "{}", apart.join("\n"));
    }
}
