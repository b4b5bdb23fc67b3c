//! The proxies: how each is configured, started and stopped, and what it leaves.

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use lameduck_drill::Plan;
use serde_json::json;

use super::scenario::Scenario;
use crate::packages;

/// A proxy.
#[derive(Debug)]
pub struct Proxy {
    /// Its id.
    pub id: &'static str,
    program: &'static str,
    args: &'static [&'static str],
    config: &'static str,
    /// Kinds of log, each with its files.
    logs: &'static [(&'static str, &'static [&'static str])],
}

/// Every proxy. The first is the drill's own balancer.
pub const ALL: [Proxy; 5] = [
    Proxy { id: "google", program: "", args: &[], config: "", logs: &[("google-lb", &["lb.json"])] },
    Proxy {
        id: "nginx",
        program: "nginx",
        args: &["-c"],
        config: "nginx.conf",
        logs: &[("nginx-default", &["access.log", "error.log"]), ("nginx-recommended", &["access.json", "error.log"])],
    },
    Proxy {
        id: "haproxy",
        program: "haproxy",
        args: &["-db", "-f"],
        config: "haproxy.cfg",
        logs: &[("haproxy-default", &["haproxy.log"])],
    },
    Proxy {
        id: "haproxy-more",
        program: "haproxy",
        args: &["-db", "-f"],
        config: "haproxy.cfg",
        logs: &[("haproxy-recommended", &["haproxy.log"])],
    },
    Proxy {
        id: "envoy",
        program: "envoy",
        args: &["--disable-hot-restart", "--concurrency", "1", "--log-level", "error", "-c"],
        config: "envoy.json",
        logs: &[("envoy-default", &["access.log"]), ("envoy-recommended", &["access.json"])],
    },
];

/// nginx's format, as docs/explain.md recommends it.
const NGINX_JSON: &str = r#"'{"msec":"$msec","remote_addr":"$remote_addr","request":"$request","status":"$status","request_time":"$request_time",'
    '"upstream_addr":"$upstream_addr","upstream_status":"$upstream_status","upstream_connect_time":"$upstream_connect_time",'
    '"upstream_response_time":"$upstream_response_time","upstream_response_length":"$upstream_response_length",'
    '"upstream_http_connection":"$upstream_http_connection","request_id":"$http_x_request_id"}'"#;
/// HAProxy's own `option httplog`, and the server's address behind it.
const HAPROXY_MORE: &str = r#"log-format "%ci:%cp [%tr] %ft %b/%s %TR/%Tw/%Tc/%Tr/%Ta %ST %B %CC %CS %tsc %ac/%fc/%bc/%sc/%rc %sq/%bq %hr %hs %{+Q}r %si:%sp""#;

/// One that runs; killed when dropped.
pub struct Running(Child);

impl Running {
    /// Stops it, so that its logs are whole.
    pub fn stop(mut self) {
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let until = Instant::now() + Duration::from_secs(10);
        while Instant::now() < until && matches!(self.0.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Proxy {
    /// Where its program is; for the drill's own it does not matter.
    pub fn program(&self, envoy: Option<&Path>) -> Option<PathBuf> {
        match self.program {
            "" => Some(PathBuf::new()),
            "envoy" => envoy.map(Path::to_owned),
            program => packages::find(program),
        }
    }

    /// Writes its configuration and starts it.
    pub fn start(&self, program: &Path, dir: &Path, plan: &Plan, scenario: &Scenario) -> anyhow::Result<Running> {
        let via = plan.via.context("a proxy in the path")?;
        let backends: Vec<SocketAddr> =
            (0..scenario.replicas + scenario.later).map(|n| SocketAddr::new(plan.host, plan.port_base + n)).collect();
        let config = match self.id {
            "nginx" => nginx(dir, via.address, &backends, scenario),
            "haproxy" => haproxy(via.address, &backends, scenario, "option httplog"),
            "haproxy-more" => haproxy(via.address, &backends, scenario, HAPROXY_MORE),
            _ => envoy(dir, via.address, &backends, scenario),
        };
        let path = dir.join(self.config);
        fs::write(&path, config)?;
        let mut command = Command::new(program);
        command.args(self.args).arg(&path).stdin(Stdio::null());
        command.stdout(fs::File::create(dir.join("haproxy.log"))?).stderr(fs::File::create(dir.join("proxy.err"))?);
        let mut running = Running(command.spawn().with_context(|| program.display().to_string())?);
        let until = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(via.address).is_err() {
            let said = || fs::read_to_string(dir.join("proxy.err")).unwrap_or_default();
            ensure!(running.0.try_wait()?.is_none() && Instant::now() < until, "{} did not start: {}", self.id, said());
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(running)
    }

    /// What it wrote, by kind of log and name of file.
    pub fn logs(&self, dir: &Path) -> anyhow::Result<BTreeMap<&'static str, BTreeMap<String, String>>> {
        let mut all = BTreeMap::new();
        for (kind, names) in self.logs {
            let mut files = BTreeMap::new();
            for name in *names {
                let path = dir.join(name);
                let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
                files.insert((*name).to_owned(), text);
            }
            all.insert(*kind, files);
        }
        Ok(all)
    }
}

fn nginx(dir: &Path, at: SocketAddr, backends: &[SocketAddr], scenario: &Scenario) -> String {
    let servers: String =
        backends.iter().fold(String::new(), |all, server| all + &format!("server {server} max_fails=0; "));
    let (keepalive, version) = if scenario.keeps {
        ("keepalive 64;", "proxy_http_version 1.1; proxy_set_header Connection \"\";")
    } else {
        ("", "")
    };
    let dir = dir.display();
    let (connect, answer) = (scenario.connect_ms, scenario.answer_ms);
    format!(
        "daemon off; user root; worker_processes 1; pid {dir}/nginx.pid; error_log {dir}/error.log error;\n\
         events {{ worker_connections 4096; }}\n\
         http {{\n  log_format recommended escape=json {NGINX_JSON};\n\
         access_log {dir}/access.log; access_log {dir}/access.json recommended;\n\
         client_body_temp_path {dir}/b; proxy_temp_path {dir}/p; fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;\n\
         upstream drill {{ {servers}{keepalive} }}\n\
         server {{ listen {at}; location / {{ proxy_pass http://drill; proxy_next_upstream off; proxy_connect_timeout {connect}ms; \
         proxy_read_timeout {answer}ms; {version} }} }}\n}}\n"
    )
}

fn haproxy(at: SocketAddr, backends: &[SocketAddr], scenario: &Scenario, log: &str) -> String {
    let most = scenario.most.map_or(String::new(), |most| format!(" maxconn {most}"));
    // As an ingress controller may: a server is called what its pod is called.
    let servers = backends.iter().enumerate();
    let servers =
        servers.fold(String::new(), |all, (n, server)| all + &format!("  server drill-r{n} {server}{most}\n"));
    let keeping = if scenario.keeps { "http-reuse always" } else { "option http-server-close" };
    let (connect, answer) = (scenario.connect_ms, scenario.answer_ms);
    format!(
        "global\n  log stdout format raw local0\n  maxconn 4000\ndefaults\n  mode http\n  log global\n  {log}\n  timeout connect {connect}ms\n\
         timeout client 30s\n  timeout server {answer}ms\n  timeout queue 50ms\n  retries 0\n  {keeping}\n\
         frontend web\n  bind {at}\n  default_backend drill\nbackend drill\n  balance roundrobin\n{servers}"
    )
}

fn envoy(dir: &Path, at: SocketAddr, backends: &[SocketAddr], scenario: &Scenario) -> String {
    let address =
        |of: &SocketAddr| json!({"socket_address": {"address": of.ip().to_string(), "port_value": of.port()}});
    let typed = |name: &str| format!("type.googleapis.com/envoy.extensions.{name}");
    let endpoints: Vec<_> = backends.iter().map(|server| json!({"endpoint": {"address": address(server)}})).collect();
    let seconds = |ms: u64| format!("{}.{:03}s", ms / 1000, ms % 1000);
    let file = "access_loggers.file.v3.FileAccessLog";
    let names = [
        ("start_time", "%START_TIME%"),
        ("method", "%REQ(:METHOD)%"),
        ("path", "%REQ(:PATH)%"),
        ("response_code", "%RESPONSE_CODE%"),
        ("response_flags", "%RESPONSE_FLAGS%"),
        ("response_code_details", "%RESPONSE_CODE_DETAILS%"),
        ("upstream_transport_failure_reason", "%UPSTREAM_TRANSPORT_FAILURE_REASON%"),
        ("duration", "%DURATION%"),
        ("request_id", "%REQ(X-REQUEST-ID)%"),
        ("upstream_host", "%UPSTREAM_HOST%"),
        ("upstream_cluster", "%UPSTREAM_CLUSTER%"),
    ];
    let format: serde_json::Map<_, _> =
        names.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
    let most = if scenario.keeps { json!({}) } else { json!({"max_requests_per_connection": 1}) };
    let breakers = scenario.most.map_or(json!({}), |most| {
        json!({"thresholds": [{"max_connections": most * 3, "max_pending_requests": 1, "max_requests": most * 3}]})
    });
    let manager = json!({
        "@type": typed("filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "drill", "generate_request_id": false, "preserve_external_request_id": true,
        "access_log": [
            {"name": "text", "typed_config": {"@type": typed(file), "path": dir.join("access.log")}},
            {"name": "json", "typed_config": {"@type": typed(file), "path": dir.join("access.json"), "log_format": {"json_format": format}}},
        ],
        "http_filters": [{"name": "router", "typed_config": {"@type": typed("filters.http.router.v3.Router")}}],
        "route_config": {"virtual_hosts": [{"name": "drill", "domains": ["*"], "routes": [
            {"match": {"prefix": "/"}, "route": {"cluster": "drill", "timeout": seconds(scenario.answer_ms)}},
        ]}]},
    });
    let options = "upstreams.http.v3.HttpProtocolOptions";
    json!({"static_resources": {
        "listeners": [{"name": "web", "address": address(&at), "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}]}],
        "clusters": [{
            "name": "drill", "type": "STATIC", "connect_timeout": seconds(scenario.connect_ms), "circuit_breakers": breakers,
            "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": typed(options), "common_http_protocol_options": most, "explicit_http_config": {"http_protocol_options": {}},
            }},
            "load_assignment": {"cluster_name": "drill", "endpoints": [{"lb_endpoints": endpoints}]},
        }],
    }})
    .to_string()
}
