//! What is done to whom: one cause each, or the mixture that a plain end of a real server is.

/// A scenario.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    /// Its id.
    pub id: &'static str,
    /// The servers that it is tried with: of the drill's table, or of [`own`].
    pub servers: &'static [&'static str],
    /// Proxies that it is not for.
    pub not_for: &'static [&'static str],
    /// Environment; `{late}` is the first port behind the first replicas'.
    pub env: &'static [(&'static str, &'static str)],
    /// The event.
    pub event: Option<&'static str>,
    /// The load.
    pub mix: &'static str,
    /// Requests a second.
    pub rate: f64,
    /// Replicas.
    pub replicas: u16,
    /// Replicas that come later, which the proxy knows from the start.
    pub later: u16,
    /// The grace.
    pub grace_s: u64,
    /// How long the drill's own balancer goes on sending. A proxy goes on for ever.
    pub lag_ms: u64,
    /// The load's time.
    pub duration_ms: u64,
    /// The hop's time for connecting.
    pub connect_ms: u64,
    /// Its time for an answer.
    pub answer_ms: u64,
    /// The simulated round trip, without a proxy.
    pub rtt_ms: u64,
    /// Whether the proxy keeps connections.
    pub keeps: bool,
    /// How many requests a replica may have at once, by the proxy's rule.
    pub most: Option<u32>,
    /// Whether the replicas' address goes with them.
    pub gone: bool,
    /// Whether each replica is a pod with a sidecar.
    pub sidecar: bool,
}

impl Scenario {
    /// Whether it is for a proxy.
    pub fn is_for(&self, proxy: &str) -> bool {
        !self.not_for.contains(&proxy)
    }
}

/// The files of the servers below.
pub const FILES: [(&str, &str); 5] = [
    ("app.js", include_str!("app.js")),
    ("gone.sh", include_str!("gone.sh")),
    ("gone.sh.js", include_str!("app.js")),
    ("pod.sh", include_str!("pod.sh")),
    ("sidecar.conf.in", include_str!("sidecar.conf.in")),
];

/// Servers of our own.
pub fn own(id: &str) -> Option<&'static [&'static str]> {
    Some(match id {
        "app" => &["node", "{dir}/app.js"],
        "deaf-shell" => &["sh", "-c", "trap '' TERM; node \"$0\"; :", "{dir}/app.js"],
        "deaf-pid1" => &["unshare", "--pid", "--fork", "--kill-child", "sh", "-c", "node \"$0\"; :", "{dir}/app.js"],
        "gone" => &["sh", "{dir}/gone.sh"],
        "pod" => &["sh", "{dir}/pod.sh"],
        _ => return None,
    })
}

const PLAIN: Scenario = Scenario {
    id: "",
    servers: &["app"],
    not_for: &[],
    env: &[],
    event: None,
    mix: "GET / 6\nGET /slow 5\nGET /stream 1",
    rate: 90.0,
    replicas: 3,
    later: 0,
    grace_s: 10,
    lag_ms: 1500,
    duration_ms: 2600,
    connect_ms: 1500,
    answer_ms: 10_000,
    rtt_ms: 2,
    keeps: false,
    most: None,
    gone: false,
    sidecar: false,
};

/// All but the drill's own balancer.
const REAL: &[&str] = &["nginx", "haproxy", "haproxy-more", "envoy"];
/// The servers of the drill's table.
const SPINE: &[&str] =
    &["node", "node-close", "puma", "gunicorn", "gunicorn-sync", "uvicorn", "passenger", "go", "nginx"];

/// Every scenario.
pub const ALL: &[Scenario] = &[
    Scenario { id: "term", servers: SPINE, event: Some("term@1s"), ..PLAIN },
    Scenario { id: "kill", servers: &["app", "puma", "gunicorn"], event: Some("kill@1s"), ..PLAIN },
    Scenario {
        id: "deadline",
        env: &[("STOP", "close")],
        event: Some("term@1500ms"),
        mix: "GET / 6\nGET /late 5",
        grace_s: 2,
        lag_ms: 1000,
        ..PLAIN
    },
    Scenario {
        id: "deaf",
        servers: &["deaf-shell", "deaf-pid1"],
        event: Some("term@1500ms"),
        mix: "GET / 6\nGET /late 5",
        grace_s: 2,
        lag_ms: 2500,
        ..PLAIN
    },
    Scenario {
        id: "not-ready",
        env: &[("LATE_FROM", "{late}"), ("LATE_MS", "1500")],
        event: Some("scale-up=1@500ms"),
        mix: "GET /\nGET /slow",
        later: 1,
        ..PLAIN
    },
    Scenario {
        id: "timeout",
        event: Some("term@300ms"),
        mix: "GET / 5\nGET /slow 2\nGET /hang 2",
        answer_ms: 1200,
        ..PLAIN
    },
    Scenario {
        id: "app-error",
        event: Some("term@300ms"),
        mix: "GET / 5\nGET /slow 2\nGET /error 2",
        duration_ms: 2000,
        ..PLAIN
    },
    Scenario {
        id: "busy",
        event: Some("term@300ms"),
        mix: "GET / 5\nGET /slow 2\nGET /busy 2",
        duration_ms: 2000,
        ..PLAIN
    },
    Scenario {
        id: "limit",
        not_for: &["google", "nginx"],
        mix: "GET / 2\nGET /slow 5",
        most: Some(2),
        duration_ms: 2000,
        ..PLAIN
    },
    Scenario {
        id: "backlog",
        env: &[("BACKLOG", "1"), ("STALL_MS", "4000")],
        mix: "GET / 40\nGET /slow 40\nGET /stall 1",
        rate: 30.0,
        replicas: 2,
        duration_ms: 4000,
        ..PLAIN
    },
    Scenario {
        id: "gone",
        servers: &["gone"],
        event: Some("term@1s"),
        mix: "GET /\nGET /slow",
        rate: 40.0,
        replicas: 1,
        lag_ms: 2500,
        duration_ms: 3500,
        gone: true,
        ..PLAIN
    },
    Scenario {
        id: "idle",
        not_for: &["google"],
        env: &[("IDLE_MS", "60")],
        mix: "GET / 3\nGET /slow 1",
        rate: 50.0,
        keeps: true,
        duration_ms: 4000,
        ..PLAIN
    },
    Scenario {
        id: "idle",
        servers: &["uvicorn"],
        not_for: REAL,
        event: Some("idle=5s@1s"),
        mix: "GET / 3\nGET /slow 1",
        rtt_ms: 40,
        ..PLAIN
    },
    // Node 20.20 closes a second after the 5 s that it announces.
    Scenario {
        id: "idle",
        servers: &["node"],
        not_for: REAL,
        event: Some("idle=6s@1s"),
        mix: "GET / 3\nGET /slow 1",
        rtt_ms: 80,
        ..PLAIN
    },
    Scenario {
        id: "idle",
        servers: &["gunicorn"],
        not_for: REAL,
        event: Some("idle=2s@1s"),
        mix: "GET / 3\nGET /slow 1",
        rtt_ms: 80,
        ..PLAIN
    },
    Scenario { id: "restart", event: Some("restart@1s"), ..PLAIN },
    Scenario {
        id: "peer",
        sidecar: true,
        servers: &["pod"],
        not_for: REAL,
        event: Some("term@1s"),
        mix: "GET /\nGET /slow",
        ..PLAIN
    },
];
