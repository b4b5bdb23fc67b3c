//! `lameduck run --watch-endpoints` before a real API server. Who writes the slices is not there, so the test does.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::real::{Cluster, programs};
use super::webhook::{LAMEDUCK, Running, free};

/// An account's files where Kubernetes puts them, in a mount namespace of their own; then the command.
const WITH_ACCOUNT: &str = "
account=/var/run/secrets/kubernetes.io/serviceaccount
mount -t tmpfs account /run && mkdir -p $account && cp \"$1\"/* $account && shift && exec \"$@\"";

const ADDRESS: &str = "10.9.0.1";

fn slice(conditions: Value) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "web-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "ports": [{"port": 8080}],
        "endpoints": [
            {"addresses": [ADDRESS], "conditions": conditions},
            {"addresses": ["10.9.0.2"], "conditions": {"ready": true}},
        ],
    })
}

/// The account's files, as the kubelet would mount them.
fn account(cluster: &Cluster, name: &str) -> String {
    let folder = cluster.path(name);
    std::fs::create_dir_all(&folder).unwrap();
    let (token, _) = cluster.does(&["create", "token", name, "-n", "shop"], None);
    std::fs::write(Path::new(&folder).join("token"), token).unwrap();
    std::fs::write(Path::new(&folder).join("namespace"), "shop").unwrap();
    std::fs::copy(cluster.path("pki/apiserver.crt"), Path::new(&folder).join("ca.crt")).unwrap();
    folder
}

/// A server of that pod, with a least time far beyond the test's patience, or a short one.
fn pod(cluster: &Cluster, account: &str, min: &str) -> Running {
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", WITH_ACCOUNT, "container", account, LAMEDUCK, "run", "--watch-endpoints"]);
    command.args(["--grace", "60s", "--quiet", "300ms", "--min", min, "--report", &cluster.path("report")]);
    command.args(["--", "python3", "-m", "http.server", "--bind", "127.0.0.1", &free().port().to_string()]);
    let port = cluster.url.rsplit(':').next().unwrap();
    command.env("KUBERNETES_SERVICE_HOST", "127.0.0.1").env("KUBERNETES_SERVICE_PORT", port).env("POD_IP", ADDRESS);
    Running::start(command)
}

#[test]
fn a_real_api_server_tells_when_routing_lets_go() {
    const TEST: &str = "a_real_api_server_tells_when_routing_lets_go";
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED {TEST}: needs root");
        return;
    }
    let Some(programs) = programs(TEST) else { return };
    let cluster = Cluster::start(programs);
    cluster.create(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}));
    for name in ["web", "nobody"] {
        let metadata = json!({"name": name, "namespace": "shop"});
        cluster.create(&json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}));
    }
    // The page's own manifest, for the account of this test.
    let page = include_str!("../../../../docs/watch-endpoints.md");
    let role = page.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    cluster.does(&["apply", "-n", "shop", "-f", "-"], Some(role));
    cluster.create(&slice(json!({"ready": true, "serving": true, "terminating": false})));

    // Who may not is told what would let it.
    let mut refused = pod(&cluster, &account(&cluster, "nobody"), "1s");
    let said = refused.hear("may not list endpointslices.discovery.k8s.io in namespace shop (403:");
    assert!(said.contains("system:serviceaccount:shop:nobody") && said.contains("verbs [list, watch]"), "{said}");
    refused.signal(Signal::TERM);
    refused.wait();

    let mut allowed = pod(&cluster, &account(&cluster, "web"), "30s");
    allowed.hear("lameduck: on:");
    std::thread::sleep(Duration::from_secs(2));
    let began = Instant::now();
    allowed.signal(Signal::TERM);
    std::thread::sleep(Duration::from_secs(3));
    let terminating = slice(json!({"ready": false, "serving": true, "terminating": true}));
    cluster.does(&["apply", "-f", "-"], Some(&terminating.to_string()));
    allowed.hear("routing took this pod out, by its EndpointSlices, after");
    allowed.wait();
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    let report: Value = serde_json::from_str(&std::fs::read_to_string(cluster.path("report")).unwrap()).unwrap();
    assert_eq!(report["routing"]["state"], "out");
    assert!(report["routing"]["removed_s"].as_f64().unwrap() >= 3.0, "{report}");
}
