//! What the front is told to do: every value resolved. It travels from PID 1 to the front's process as JSON.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use lameduck_core::duration::seconds;
use serde::{Deserialize, Serialize};

/// Where the app listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Upstream {
    /// An address.
    Tcp(SocketAddr),
    /// A socket in the file system (unix(7)).
    Unix(PathBuf),
}

impl Upstream {
    /// Reads `127.0.0.1:3000`, `[::1]:3000`, `localhost:3000`, `:3000` (this host), or `unix:/run/app.sock`.
    pub fn parse(text: &str) -> Option<Upstream> {
        if let Some(path) = text.strip_prefix("unix:") {
            return (!path.is_empty()).then(|| Upstream::Unix(path.into()));
        }
        let local = text.strip_prefix("localhost").unwrap_or(text);
        let address = match local.strip_prefix(':') {
            Some(port) => (std::net::Ipv4Addr::LOCALHOST, port.parse().ok()?).into(),
            None => text.parse::<SocketAddr>().ok()?,
        };
        (address.port() > 0).then_some(Upstream::Tcp(address))
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Upstream::Tcp(address) => write!(f, "{address}"),
            Upstream::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Which protocol is spoken with the app.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UpstreamProtocol {
    /// HTTP/2 for gRPC (`application/grpc`), which needs it; HTTP/1.1 for everything else.
    #[default]
    Auto,
    /// HTTP/1.1 for everything.
    Http1,
    /// HTTP/2 with prior knowledge (RFC 9113 section 3.3) for everything that came over HTTP/2.
    Http2,
}

/// Which fields tell the app who the client is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Forwarded {
    /// None is added and none is changed: whoever is in front has set them, and counts its hops.
    #[default]
    Off,
    /// `X-Forwarded-For`, `-Proto`, `-Host`.
    XForwarded,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// Where the access log goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AccessLog {
    /// To standard output.
    Stdout,
    /// To the end of a file.
    File(PathBuf),
}

/// A path whose requests wait long for their answer by design.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LongPoll {
    /// What the path begins with.
    pub prefix: String,
    /// The status that ends the wait in a drain.
    pub status: u16,
}

impl LongPoll {
    /// Reads `/poll=204`.
    pub fn parse(text: &str) -> Option<LongPoll> {
        let (prefix, status) = text.rsplit_once('=')?;
        let status = status.parse().ok().filter(|status| (200..600).contains(status))?;
        prefix.starts_with('/').then(|| LongPoll { prefix: prefix.to_owned(), status })
    }
}

/// The front's options.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Where the app listens.
    pub upstream: Upstream,
    /// Which protocol is spoken with it.
    pub upstream_protocol: UpstreamProtocol,
    /// How long the app may take to begin its answer; zero: for ever.
    #[serde(with = "seconds")]
    pub upstream_timeout: Duration,
    /// How long a request waits for an app that does not listen yet, or any more.
    #[serde(with = "seconds")]
    pub hold: Duration,
    /// The most requests held at a time.
    pub hold_requests: usize,
    /// The most bytes of requests held at a time.
    pub hold_bytes: usize,
    /// How long a client connection may be idle between requests.
    #[serde(with = "seconds")]
    pub idle_timeout: Duration,
    /// How long a new connection may be silent, and how long a request head may take.
    #[serde(with = "seconds")]
    pub head_timeout: Duration,
    /// How long a body may make no progress, in either direction; zero: for ever.
    #[serde(with = "seconds")]
    pub body_timeout: Duration,
    /// The longest request head, in bytes.
    pub head_bytes: usize,
    /// The most client connections; 0: what the descriptors allow.
    pub max_connections: usize,
    /// The most requests in flight; 0: no limit.
    pub max_requests: usize,
    /// After this, a connection is asked to leave, jittered by a tenth; zero: never.
    #[serde(with = "seconds")]
    pub max_connection_age: Duration,
    /// How long a silent new connection is waited for in a drain.
    #[serde(with = "seconds")]
    pub first_byte_grace: Duration,
    /// Over how long idle connections are shed.
    #[serde(with = "seconds")]
    pub shed_spread: Duration,
    /// How long, after its side was closed, a connection is read from (RFC 9112 section 9.6).
    #[serde(with = "seconds")]
    pub linger: Duration,
    /// How long `WebSockets` may go on in a drain.
    #[serde(with = "seconds")]
    pub websocket_grace: Duration,
    /// How long event streams may go on in a drain.
    #[serde(with = "seconds")]
    pub stream_grace: Duration,
    /// Long polls that are answered in a drain rather than waited for.
    pub long_polls: Vec<LongPoll>,
    /// What the `User-Agent` of probes begins with.
    pub probe_agents: Vec<String>,
    /// The path of health checks that the front answers itself, 503, once it is told that this is not ready.
    pub health_path: Option<String>,
    /// Whether each connection begins with a PROXY protocol header.
    pub proxy_protocol: bool,
    /// Which fields tell the app who the client is.
    pub forwarded: Forwarded,
    /// Whether requests without `X-Request-Id` are given one.
    pub request_id: bool,
    /// Where the access log goes.
    pub access_log: Option<AccessLog>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            upstream: Upstream::Tcp((std::net::Ipv4Addr::LOCALHOST, 3000).into()),
            upstream_protocol: UpstreamProtocol::Auto,
            upstream_timeout: Duration::ZERO,
            hold: Duration::from_secs(10),
            hold_requests: 1024,
            hold_bytes: 64 << 20,
            // Google's load balancers keep idle connections for 600 s, and it is not configurable.
            idle_timeout: Duration::from_secs(620),
            head_timeout: Duration::from_mins(1),
            body_timeout: Duration::from_mins(5),
            head_bytes: 64 << 10,
            max_connections: 0,
            max_requests: 0,
            max_connection_age: Duration::ZERO,
            first_byte_grace: Duration::from_secs(5),
            shed_spread: Duration::from_secs(1),
            linger: Duration::from_secs(2),
            websocket_grace: Duration::from_secs(5),
            stream_grace: Duration::from_secs(5),
            long_polls: Vec::new(),
            probe_agents: ["kube-probe/", "GoogleHC/", "ELB-HealthChecker/"].map(String::from).to_vec(),
            health_path: None,
            proxy_protocol: false,
            forwarded: Forwarded::Off,
            request_id: false,
            access_log: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstreams() {
        let check = |text: &str, expect: Option<&str>| {
            assert_eq!(Upstream::parse(text).map(|upstream| upstream.to_string()).as_deref(), expect, "{text}");
        };
        check("127.0.0.1:3000", Some("127.0.0.1:3000"));
        check(":3000", Some("127.0.0.1:3000"));
        check("localhost:3000", Some("127.0.0.1:3000"));
        check("[::1]:3000", Some("[::1]:3000"));
        check("unix:/run/app.sock", Some("unix:/run/app.sock"));
        for bad in ["", "3000", "unix:", ":0", "127.0.0.1", "http://localhost:3000", "example.com:80"] {
            check(bad, None);
        }
    }

    #[test]
    fn long_polls() {
        assert_eq!(LongPoll::parse("/poll=204"), Some(LongPoll { prefix: "/poll".into(), status: 204 }));
        for bad in ["poll=204", "/poll", "/poll=99", "/poll=600", "=204"] {
            assert_eq!(LongPoll::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn travels_as_json() {
        let config = Config { health_path: Some("/healthz".into()), ..Config::default() };
        let json = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<Config>(&json).unwrap(), config);
        assert_eq!(serde_json::from_str::<Config>("{}").unwrap(), Config::default());
    }
}
