//! How long servers keep an idle connection, and how long those in front of them do: the two timeouts whose order decides about
//! the idle race. Each row says how it is known; a row that was only recalled is not here.

/// How a figure is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// Measured on the server itself.
    Measured,
    /// Read in its source or its installed package.
    Source,
    /// Its own documentation says so.
    Documented,
}

impl Known {
    /// In a word.
    pub const fn id(self) -> &'static str {
        match self {
            Known::Measured => "measured",
            Known::Source => "source",
            Known::Documented => "documented",
        }
    }
}

/// A server.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Server {
    /// Its id.
    pub id: &'static str,
    /// Its name, with the versions meant.
    pub name: &'static str,
    /// After how many seconds of idling it closes; none: never.
    pub idle_s: Option<f64>,
    /// The setting.
    pub setting: &'static str,
    /// The setting with a value that outlives a load balancer of 600 s.
    pub cure: &'static str,
    /// How the figure is known.
    pub known: Known,
}

/// Somebody in front.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Caller {
    /// Its id.
    pub id: &'static str,
    /// Its name.
    pub name: &'static str,
    /// How long it keeps an idle connection, seconds.
    pub idle_s: f64,
    /// How the figure is known.
    pub known: Known,
}

const fn server(
    id: &'static str,
    name: &'static str,
    idle_s: f64,
    setting: &'static str,
    cure: &'static str,
    known: Known,
) -> Server {
    Server { id, name, idle_s: if idle_s < 0.0 { None } else { Some(idle_s) }, setting, cure, known }
}

const fn caller(id: &'static str, name: &'static str, idle_s: f64, known: Known) -> Caller {
    Caller { id, name, idle_s, known }
}

/// Servers. 0 is a server that closes after each answer.
pub const SERVERS: &[Server] = &[
    server(
        "node",
        "Node.js before 20.20",
        5.0,
        "server.keepAliveTimeout",
        "server.keepAliveTimeout = 620e3 (and server.headersTimeout above it)",
        Known::Measured,
    ),
    server(
        "node",
        "Node.js 20.20 and later (1 s after the timeout it announces)",
        6.0,
        "server.keepAliveTimeout",
        "server.keepAliveTimeout = 620e3 (and server.headersTimeout above it)",
        Known::Measured,
    ),
    server(
        "fastify",
        "Fastify on Node before 20.20",
        72.0,
        "keepAliveTimeout",
        "Fastify({ keepAliveTimeout: 620000 })",
        Known::Source,
    ),
    server(
        "fastify",
        "Fastify on Node 20.20 and later (1 s after the timeout it announces)",
        73.0,
        "keepAliveTimeout",
        "Fastify({ keepAliveTimeout: 620000 })",
        Known::Measured,
    ),
    server(
        "bun",
        "Bun 1.4",
        12.0,
        "idleTimeout",
        "Bun.serve({ idleTimeout: 255 }), its most; behind 600 s put a proxy between",
        Known::Measured,
    ),
    server("puma", "Puma before 7", 20.0, "persistent_timeout", "persistent_timeout 620", Known::Source),
    server("puma", "Puma 7 and later", 65.0, "persistent_timeout", "persistent_timeout 620", Known::Measured),
    server("webrick", "WEBrick", 30.0, "RequestTimeout", "RequestTimeout: 620", Known::Measured),
    server(
        "gunicorn-sync",
        "gunicorn, sync workers",
        0.0,
        "--worker-class",
        "--worker-class gthread --keep-alive 620",
        Known::Measured,
    ),
    server(
        "gunicorn",
        "gunicorn, gthread and gevent workers",
        2.0,
        "--keep-alive",
        "--keep-alive 620",
        Known::Measured,
    ),
    server("uvicorn", "uvicorn", 5.0, "--timeout-keep-alive", "--timeout-keep-alive 620", Known::Measured),
    server("hypercorn", "hypercorn", 5.0, "--keep-alive", "--keep-alive 620", Known::Measured),
    server(
        "granian",
        "granian",
        30.0,
        "--http1-header-read-timeout",
        "--http1-header-read-timeout 620000",
        Known::Measured,
    ),
    server(
        "aiohttp",
        "aiohttp, web.run_app",
        75.0,
        "keepalive_timeout",
        "web.run_app(app, keepalive_timeout=620)",
        Known::Measured,
    ),
    server("daphne", "Daphne", 60.0, "--http-timeout", "--http-timeout 620", Known::Measured),
    server(
        "tomcat",
        "Tomcat, embedded",
        60.0,
        "keepAliveTimeout",
        "server.tomcat.keep-alive-timeout=620s",
        Known::Measured,
    ),
    server(
        "tomcat",
        "Tomcat, stock server.xml",
        20.0,
        "keepAliveTimeout",
        "<Connector keepAliveTimeout=\"620000\">",
        Known::Measured,
    ),
    server("jetty", "Jetty", 30.0, "jetty.http.idleTimeout", "jetty.http.idleTimeout=620000", Known::Source),
    server(
        "kestrel",
        "Kestrel",
        130.0,
        "KeepAliveTimeout",
        "KestrelServerLimits.KeepAliveTimeout = 620 s",
        Known::Documented,
    ),
    server("apache", "Apache httpd", 5.0, "KeepAliveTimeout", "KeepAliveTimeout 620", Known::Measured),
    server(
        "lighttpd",
        "lighttpd",
        5.0,
        "server.max-keep-alive-idle",
        "server.max-keep-alive-idle = 620",
        Known::Measured,
    ),
    server("nginx", "nginx", 75.0, "keepalive_timeout", "keepalive_timeout 620s", Known::Measured),
    server("caddy", "Caddy", 300.0, "idle", "servers { timeouts { idle 620s } }", Known::Source),
    server(
        "traefik",
        "Traefik",
        180.0,
        "respondingTimeouts.idleTimeout",
        "respondingTimeouts.idleTimeout = 620s",
        Known::Source,
    ),
    server(
        "actix-web",
        "actix-web",
        5.0,
        "HttpServer::keep_alive",
        "HttpServer::keep_alive(Duration::from_secs(620))",
        Known::Measured,
    ),
    server("cowboy", "Cowboy", 5.0, "request_timeout", "request_timeout => 620000", Known::Documented),
    server("bandit", "Bandit", 60.0, "read_timeout", "thousand_island_options: [read_timeout: 620_000]", Known::Source),
    server(
        "go",
        "Go net/http",
        -1.0,
        "http.Server.IdleTimeout",
        "leave IdleTimeout at 0, or above 600 s",
        Known::Source,
    ),
    server("axum", "axum", -1.0, "", "", Known::Measured),
];

/// Those in front.
pub const CALLERS: &[Caller] = &[
    caller("glb", "Google Cloud load balancer", 600.0, Known::Documented),
    caller("alb", "AWS ALB", 60.0, Known::Documented),
    caller("nlb", "AWS NLB", 350.0, Known::Documented),
    caller("cloudfront", "AWS CloudFront", 5.0, Known::Documented),
    caller("cloudflare", "Cloudflare", 900.0, Known::Documented),
    caller("ingress-nginx", "ingress-nginx", 60.0, Known::Documented),
    caller("nginx", "nginx upstream", 60.0, Known::Source),
    caller("haproxy", "HAProxy", 5.0, Known::Source),
    caller("envoy", "Envoy, Istio", 3600.0, Known::Documented),
    caller("traefik", "Traefik", 90.0, Known::Source),
    caller("caddy", "Caddy", 120.0, Known::Source),
    caller("kong", "Kong", 60.0, Known::Source),
    caller("skipper", "Skipper", 20.0, Known::Source),
    caller("linkerd", "Linkerd", 3.0, Known::Source),
    caller("go-client", "Go http.Transport", 90.0, Known::Source),
];

/// Servers whose idle timeout is this, within half a second.
pub fn servers_idle_for(seconds: f64) -> impl Iterator<Item = &'static Server> {
    SERVERS.iter().filter(move |server| server.idle_s.is_some_and(|idle| idle > 0.0 && (idle - seconds).abs() <= 0.5))
}

/// The server of this id.
pub fn server_of(id: &str) -> Option<&'static Server> {
    SERVERS.iter().find(|server| server.id == id)
}

/// The caller of this id.
pub fn caller_of(id: &str) -> Option<&'static Caller> {
    CALLERS.iter().find(|caller| caller.id == id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_time_names_its_candidates() {
        let names: Vec<_> = servers_idle_for(5.02).map(|server| server.id).collect();
        assert_eq!(names, ["node", "uvicorn", "hypercorn", "apache", "lighttpd", "actix-web", "cowboy"]);
        assert_eq!(servers_idle_for(6.0).map(|server| server.id).collect::<Vec<_>>(), ["node"]);
        assert_eq!(caller_of("glb").map(|caller| caller.idle_s), Some(600.0));
    }
}
