//! What the proxies are configured with.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context;
use serde_json::json;

/// A line of nginx's for each request.
const NGINX_JSON: &str = r#"'{"id":"$http_x_request_id","upstream":"$upstream_addr","status":"$upstream_status"}'"#;

/// Puts a file in another's place: who reads it reads the one or the other.
pub fn replace(path: &Path, text: &str) -> anyhow::Result<()> {
    let half = path.with_extension("half");
    fs::write(&half, text).and_then(|()| fs::rename(&half, path)).with_context(|| path.display().to_string())
}

/// nginx as ingress-nginx configures it: `proxy_next_upstream error timeout`, three tries, 320 kept connections of 60 s and 10000
/// requests (<https://github.com/kubernetes/ingress-nginx/blob/main/docs/user-guide/nginx-configuration/configmap.md>).
/// ingress-nginx itself changes endpoints by Lua; here the configuration is loaded again, as F5's controller does.
pub fn nginx(dir: &Path, at: SocketAddr, pods: &BTreeSet<SocketAddr>) -> String {
    let servers = pods.iter().fold(String::new(), |all, pod| all + &format!("server {pod} max_fails=0; "));
    // As ingress-nginx answers where no pod is ready. An upstream block needs a server, which is never asked.
    let (servers, nobody) =
        if pods.is_empty() { ("server 127.0.0.1:1;".to_owned(), "return 503;") } else { (servers, "") };
    let dir = dir.display();
    format!(
        "daemon off; user root; worker_processes 1; pid {dir}/nginx.pid; error_log {dir}/error.log error;\n\
         events {{ worker_connections 4096; }}\n\
         http {{\n  log_format attempts escape=json {NGINX_JSON};\n  access_log {dir}/access.json attempts;\n\
         client_body_temp_path {dir}/b; proxy_temp_path {dir}/p; fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u; \
         scgi_temp_path {dir}/s;\n\
         map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}\n\
         upstream pods {{ {servers} keepalive 320; keepalive_requests 10000; keepalive_timeout 60s; }}\n\
         server {{ listen {at}; location / {{ {nobody} proxy_pass http://pods; proxy_http_version 1.1; \
         proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade; \
         proxy_next_upstream error timeout; proxy_next_upstream_tries 3; proxy_connect_timeout 5s; \
         proxy_read_timeout 60s; proxy_buffering off; }} }}\n}}\n"
    )
}

/// The file that Envoy takes its endpoints from.
pub fn endpoints(pods: &BTreeSet<SocketAddr>) -> String {
    let endpoints: Vec<_> = pods.iter().map(|pod| json!({ "endpoint": { "address": address(*pod) } })).collect();
    json!({ "resources": [{
        "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
        "cluster_name": "pods", "endpoints": [{ "lb_endpoints": endpoints }],
    }] })
    .to_string()
}

fn address(of: SocketAddr) -> serde_json::Value {
    json!({ "socket_address": { "address": of.ip().to_string(), "port_value": of.port() } })
}

/// Envoy with what is its default, WebSockets allowed.
pub fn envoy(dir: &Path, at: SocketAddr) -> String {
    let typed = |name: &str| format!("type.googleapis.com/envoy.extensions.{name}");
    let names = [
        ("id", "%REQ(X-REQUEST-ID)%"),
        ("flags", "%RESPONSE_FLAGS%"),
        ("details", "%RESPONSE_CODE_DETAILS%"),
        ("failure", "%UPSTREAM_TRANSPORT_FAILURE_REASON%"),
        ("upstream", "%UPSTREAM_HOST%"),
        ("connection", "%UPSTREAM_CONNECTION_ID%"),
    ];
    let format: serde_json::Map<_, _> =
        names.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
    let log = json!({
        "@type": typed("access_loggers.file.v3.FileAccessLog"),
        "path": dir.join("access.json"), "log_format": { "json_format": format },
    });
    let manager = json!({
        "@type": typed("filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "pods", "generate_request_id": false, "preserve_external_request_id": true,
        "access_log": [{ "name": "attempts", "typed_config": log }],
        "upgrade_configs": [{ "upgrade_type": "websocket" }],
        "http_filters": [{ "name": "router", "typed_config": { "@type": typed("filters.http.router.v3.Router") } }],
        "route_config": { "virtual_hosts": [{ "name": "pods", "domains": ["*"], "routes": [
            { "match": { "prefix": "/" }, "route": { "cluster": "pods" } },
        ] }] },
    });
    json!({
        "node": { "id": "drill", "cluster": "drill" },
        "static_resources": {
            "listeners": [{ "name": "web", "address": address(at), "filter_chains": [{ "filters": [
                { "name": "http", "typed_config": manager },
            ] }] }],
            "clusters": [{
                "name": "pods", "type": "EDS", "connect_timeout": "5s",
                "eds_cluster_config": { "eds_config": {
                    "resource_api_version": "V3",
                    "path_config_source": { "path": dir.join("endpoints.json") },
                } },
            }],
        },
    })
    .to_string()
}
