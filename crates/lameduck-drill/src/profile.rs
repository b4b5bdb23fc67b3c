//! Load-balancer profiles: how each hop keeps, reuses and gives up connections, and what it sends again. Data only; the
//! figures and where they come from are in `docs/profiles.md`, which is generated from [`ALL`].

use std::time::Duration;

/// Which idle connection is used next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// The one used last: few connections stay hot, the rest age.
    Lifo,
    /// The one idle longest: all stay warm.
    Fifo,
}

/// To what a pool of connections belongs, so what happens to it when an endpoint is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// One pool an endpoint, chosen first. At removal its idle connections are closed.
    PerEndpointClosed,
    /// One pool an endpoint, chosen first. After removal its idle connections are left to their timeout, unused.
    PerEndpointLeft,
    /// One pool for the address of the Service: the endpoint behind it was chosen when connecting, and a connection is used
    /// on after its endpoint's removal until the server closes it or says so.
    PerService,
}

/// Which methods are sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Methods {
    /// None.
    Nothing,
    /// GET.
    Get,
    /// GET, HEAD, OPTIONS, TRACE: what Go's `isReplayable` lists.
    Safe,
    /// The safe ones, PUT and DELETE (RFC 9110, section 9.2.2).
    Idempotent,
    /// Any.
    Any,
}

impl Methods {
    fn has(self, method: &str) -> bool {
        match self {
            Methods::Nothing => false,
            Methods::Get => method == "GET",
            Methods::Safe => matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE"),
            Methods::Idempotent => Methods::Safe.has(method) || matches!(method, "PUT" | "DELETE"),
            Methods::Any => true,
        }
    }
}

/// What is sent again, by how the attempt failed. Never once a byte of the answer has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Its id, as in `--retry`.
    pub id: &'static str,
    /// When the connection could not be made: nothing was sent.
    pub connect: Methods,
    /// When a reused connection ended without an answer.
    pub reused: Methods,
    /// When a new connection ended without an answer.
    pub fresh: Methods,
    /// Whether a timeout counts as a failure to retry.
    pub on_timeout: bool,
    /// How often one request is sent again at most.
    pub limit: u32,
}

/// The connection of an attempt that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailedOn {
    /// None was made.
    Connecting,
    /// One that had answered before.
    Reused,
    /// A new one.
    Fresh,
}

/// How an attempt failed, as far as a retry policy looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// On which connection.
    pub on: FailedOn,
    /// Nothing arrived in time.
    pub timed_out: bool,
    /// Bytes of an answer had arrived.
    pub answer_began: bool,
    /// The server's protocol says that it was not processed: what resends anything resends this, whatever the method.
    pub not_processed: bool,
}

impl Retry {
    /// Whether a request is sent again after its `retries`-th retry (0: the first attempt) failed.
    pub fn allows(&self, method: &str, failure: Failure, retries: u32) -> bool {
        if retries >= self.limit || failure.answer_began || (failure.timed_out && !self.on_timeout) {
            return false;
        }
        if failure.not_processed {
            return true;
        }
        let methods = match failure.on {
            FailedOn::Connecting => self.connect,
            FailedOn::Reused => self.reused,
            FailedOn::Fresh => self.fresh,
        };
        methods.has(method)
    }

    /// The policy with this id.
    pub fn from_id(id: &str) -> Option<Retry> {
        RETRIES.into_iter().find(|retry| retry.id == id)
    }
}

const NONE: Retry = Retry {
    id: "none",
    connect: Methods::Nothing,
    reused: Methods::Nothing,
    fresh: Methods::Nothing,
    on_timeout: false,
    limit: 0,
};
const IDEMPOTENT_ONCE: Retry = Retry {
    id: "idempotent-once",
    connect: Methods::Any,
    reused: Methods::Idempotent,
    fresh: Methods::Idempotent,
    on_timeout: false,
    limit: 1,
};
const GET_ONCE: Retry = Retry {
    id: "get-once",
    connect: Methods::Get,
    reused: Methods::Get,
    fresh: Methods::Get,
    on_timeout: false,
    limit: 1,
};
/// Go's own loop has no count: it goes on while the connection was a reused one. The drill bounds it.
const GO: Retry = Retry {
    id: "go",
    connect: Methods::Nothing,
    reused: Methods::Safe,
    fresh: Methods::Nothing,
    on_timeout: false,
    limit: 8,
};
const NGINX: Retry = Retry {
    id: "nginx",
    connect: Methods::Any,
    reused: Methods::Idempotent,
    fresh: Methods::Idempotent,
    on_timeout: true,
    limit: 2,
};
const ENVOY_RESET: Retry = Retry {
    id: "envoy-reset",
    connect: Methods::Any,
    reused: Methods::Any,
    fresh: Methods::Any,
    on_timeout: false,
    limit: 1,
};

/// Every retry policy.
pub const RETRIES: [Retry; 6] = [NONE, IDEMPOTENT_ONCE, GET_ONCE, GO, NGINX, ENVOY_RESET];

/// One figure of a profile, and how it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fact {
    /// What it is about.
    pub what: &'static str,
    /// The figure.
    pub value: &'static str,
    /// `docs`, `source`, `measured`, `recalled` (not confirmed) or `assumed` (not published).
    pub evidence: &'static str,
    /// Where it is said.
    pub source: &'static str,
}

/// A hop in front of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Profile {
    /// Its id, as in `--profile`.
    pub id: &'static str,
    /// What it stands for.
    pub name: &'static str,
    /// How long an idle connection is kept.
    pub idle_timeout: Duration,
    /// Which idle connection is used next.
    pub reuse: Reuse,
    /// How many requests a connection carries.
    pub max_requests: Option<u32>,
    /// How old a connection grows.
    pub max_age: Option<Duration>,
    /// How many idle connections a pool keeps.
    pub max_idle: Option<usize>,
    /// To what a pool belongs.
    pub pooling: Pooling,
    /// What is sent again.
    pub retry: Retry,
    /// Where the figures come from.
    pub facts: &'static [Fact],
}

const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

const fn fact(what: &'static str, value: &'static str, evidence: &'static str, source: &'static str) -> Fact {
    Fact { what, value, evidence, source }
}

const GLB_DISTRIBUTION: &str = "https://cloud.google.com/load-balancing/docs/https/request-distribution";
const ALB_ATTRIBUTES: &str =
    "https://docs.aws.amazon.com/elasticloadbalancing/latest/application/edit-load-balancer-attributes.html";
const ALB_TARGETS: &str =
    "https://docs.aws.amazon.com/elasticloadbalancing/latest/application/edit-target-group-attributes.html";
const NGINX_KEEPALIVE: &str =
    "https://github.com/nginx/nginx/blob/release-1.31.4/src/http/modules/ngx_http_upstream_keepalive_module.c";
const INGRESS_NGINX: &str =
    "https://github.com/kubernetes/ingress-nginx/blob/main/docs/user-guide/nginx-configuration/configmap.md";
const ENVOY_TIMEOUTS: &str = "https://www.envoyproxy.io/docs/envoy/latest/faq/configuration/timeouts";
const GO_TRANSPORT: &str = "https://pkg.go.dev/net/http#Transport (go1.27.3 src/net/http/transport.go)";
const REUSE_TEST: &str = "a backend that closes instead of answering, behind each hop";

/// Every profile, in the order of the documentation.
pub const ALL: [Profile; 5] = [
    Profile {
        id: "glb",
        name: "Google Cloud external Application Load Balancer",
        idle_timeout: seconds(600),
        reuse: Reuse::Lifo,
        max_requests: None,
        max_age: None,
        max_idle: None,
        pooling: Pooling::PerEndpointClosed,
        retry: GET_ONCE,
        facts: &[
            fact("idle timeout to the backend", "600 s, fixed", "docs", GLB_DISTRIBUTION),
            fact(
                "retries",
                "GET once, before any byte of the answer",
                "recalled",
                "https://cloud.google.com/load-balancing/docs/https#timeouts_and_retries",
            ),
            fact("reuse order", "LIFO", "assumed", "not published"),
            fact(
                "after removal",
                "no new requests; requests in flight finish (connection draining)",
                "docs",
                "https://cloud.google.com/load-balancing/docs/enabling-connection-draining",
            ),
        ],
    },
    Profile {
        id: "alb",
        name: "AWS Application Load Balancer",
        idle_timeout: seconds(60),
        reuse: Reuse::Lifo,
        max_requests: None,
        max_age: None,
        max_idle: None,
        pooling: Pooling::PerEndpointClosed,
        retry: NONE,
        facts: &[
            fact("idle timeout to the target", "60 s (1-4000)", "docs", ALB_ATTRIBUTES),
            fact("retries", "none known for HTTP/1 resets: 502", "recalled", ALB_ATTRIBUTES),
            fact("reuse order", "LIFO", "assumed", "not published"),
            fact("after removal", "no new requests; requests in flight finish, 300 s", "docs", ALB_TARGETS),
        ],
    },
    Profile {
        id: "nginx",
        name: "nginx and ingress-nginx, upstream keep-alive",
        idle_timeout: seconds(60),
        reuse: Reuse::Lifo,
        max_requests: Some(1000),
        max_age: Some(seconds(3600)),
        max_idle: Some(320),
        pooling: Pooling::PerEndpointLeft,
        retry: NGINX,
        facts: &[
            fact("idle timeout to the upstream", "60 s", "source", NGINX_KEEPALIVE),
            fact("requests a connection", "1000 (ingress-nginx: 10000)", "source", NGINX_KEEPALIVE),
            fact("age of a connection", "1 h", "source", NGINX_KEEPALIVE),
            fact("idle connections kept", "320 a worker (ingress-nginx)", "docs", INGRESS_NGINX),
            fact("reuse order", "LIFO", "recalled", NGINX_KEEPALIVE),
            fact(
                "retries",
                "next upstream on error or timeout, 3 tries (ingress-nginx); not POST, LOCK, PATCH once sent",
                "docs",
                INGRESS_NGINX,
            ),
            fact(
                "retries on a reused connection",
                "GET, PUT, DELETE sent again; POST answered 502",
                "measured",
                REUSE_TEST,
            ),
            fact("after removal", "idle connections stay until their timeout, unused", "recalled", INGRESS_NGINX),
        ],
    },
    Profile {
        id: "envoy",
        name: "Envoy and Istio, HTTP/1 upstream",
        idle_timeout: seconds(3600),
        reuse: Reuse::Lifo,
        max_requests: None,
        max_age: None,
        max_idle: None,
        pooling: Pooling::PerEndpointClosed,
        retry: NONE,
        facts: &[
            fact("idle timeout to the upstream", "3600 s", "docs", ENVOY_TIMEOUTS),
            fact("retries", "none by default: 503", "measured", REUSE_TEST),
            fact("reuse order", "LIFO", "third-party", "https://github.com/envoyproxy/nighthawk/pull/198"),
            fact("after removal", "the host's pool drains: idle connections are closed", "recalled", ENVOY_TIMEOUTS),
        ],
    },
    Profile {
        id: "go-client",
        name: "Go net/http Transport through kube-proxy",
        idle_timeout: seconds(90),
        reuse: Reuse::Lifo,
        max_requests: None,
        max_age: None,
        max_idle: Some(2),
        pooling: Pooling::PerService,
        retry: GO,
        facts: &[
            fact("idle timeout", "90 s (DefaultTransport)", "source", GO_TRANSPORT),
            fact("idle connections kept", "2 a host", "source", GO_TRANSPORT),
            fact("reuse order", "LIFO", "recalled", GO_TRANSPORT),
            fact(
                "retries",
                "GET, HEAD, OPTIONS, TRACE on a reused connection; GET measured sent again, POST, PUT, DELETE not",
                "measured",
                REUSE_TEST,
            ),
            fact(
                "after removal",
                "conntrack keeps the connection to the endpoint: used until the server closes it or says so",
                "recalled",
                "https://kubernetes.io/docs/reference/networking/virtual-ips/",
            ),
        ],
    },
];

impl Profile {
    /// The profile with this id.
    pub fn from_id(id: &str) -> Option<Profile> {
        ALL.into_iter().find(|profile| profile.id == id)
    }
}

impl Default for Profile {
    fn default() -> Profile {
        ALL[0]
    }
}

/// The tables of `docs/profiles.md`; a test holds the page to them.
pub fn markdown() -> String {
    use std::fmt::Write as _;
    let mut out = String::new();
    for profile in &ALL {
        let _ = writeln!(out, "## `{}`: {}\n", profile.id, profile.name);
        let _ = writeln!(out, "| what | figure | evidence | source |\n|---|---|---|---|");
        for fact in profile.facts {
            let evidence = match fact.evidence {
                "recalled" => "recalled, unconfirmed",
                other => other,
            };
            let _ = writeln!(out, "| {} | {} | {evidence} | {} |", fact.what, fact.value, fact.source);
        }
        let _ = writeln!(out, "\nRetry policy: `{}`.\n", profile.retry.id);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_shows_the_table_in_use() {
        let docs = include_str!("../../../docs/profiles.md");
        assert!(docs.contains(&markdown()), "docs/profiles.md differs from profile::markdown():\n{}", markdown());
    }

    #[test]
    fn ids_round_trip() {
        for profile in ALL {
            assert_eq!(Profile::from_id(profile.id), Some(profile));
            assert_eq!(Retry::from_id(profile.retry.id), Some(profile.retry));
        }
        assert_eq!(Profile::from_id("f5"), None);
    }

    #[test]
    fn who_resends_what() {
        const REUSED: Failure =
            Failure { on: FailedOn::Reused, timed_out: false, answer_began: false, not_processed: false };
        const FRESH: Failure = Failure { on: FailedOn::Fresh, ..REUSED };
        const NOT_PROCESSED: Failure = Failure { not_processed: true, ..FRESH };
        const REFUSED: Failure = Failure { on: FailedOn::Connecting, ..FRESH };
        let check = |id: &str, method: &str, failure: Failure, expect: bool| {
            assert_eq!(Retry::from_id(id).unwrap().allows(method, failure, 0), expect, "{id} {method} {failure:?}");
        };
        // Measured on the real ones: see balancers' `retry_reused_conn_*`.
        check("nginx", "GET", REUSED, true);
        check("nginx", "DELETE", REUSED, true);
        check("nginx", "POST", REUSED, false);
        check("nginx", "POST", REFUSED, true);
        check("go", "GET", REUSED, true);
        check("go", "PUT", REUSED, false);
        check("go", "GET", FRESH, false);
        check("go", "GET", REFUSED, false);
        check("none", "GET", REUSED, false);
        check("envoy-reset", "POST", REUSED, true);
        check("get-once", "HEAD", REUSED, false);
        check("go", "POST", NOT_PROCESSED, true);
        check("get-once", "POST", NOT_PROCESSED, true);
        check("none", "GET", NOT_PROCESSED, false);
        for retry in RETRIES {
            let began = Failure { answer_began: true, ..REUSED };
            assert!(!retry.allows("GET", began, 0), "{}: an answer had begun", retry.id);
            assert!(!retry.allows("GET", REUSED, retry.limit), "{}: past its limit", retry.id);
            let late = Failure { timed_out: true, ..REUSED };
            assert_eq!(retry.allows("GET", late, 0), retry.id == "nginx", "{}: a timeout", retry.id);
        }
    }
}
