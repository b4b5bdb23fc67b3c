//! A real API server, with etcd behind it, and the manifests of deploy/ as they are but for where the webhook is. Its programs are
//! those of `cargo xtask cluster`, or in the folder that `LAMEDUCK_KUBERNETES` names.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant, SystemTime};

use lameduck_cluster::cert::Pair;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::webhook::{LAMEDUCK, Running, free, names, wait_until};

pub const TOKEN: &str = "for-tests-only";

/// Where etcd, kube-apiserver and kubectl are.
pub fn programs() -> Option<PathBuf> {
    let whole = |folder: &PathBuf| ["etcd", "kube-apiserver", "kubectl"].iter().all(|name| folder.join(name).exists());
    let named = std::env::var_os("LAMEDUCK_KUBERNETES").map(PathBuf::from);
    let built = std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache/lameduck/cluster"));
    let built = built.and_then(|folder| std::fs::read_dir(folder).ok()).into_iter().flatten().flatten();
    named.into_iter().chain(built.map(|entry| entry.path())).find(whole)
}

pub struct Cluster {
    /// Ended before their folder goes.
    _parts: Vec<Running>,
    programs: PathBuf,
    folder: tempfile::TempDir,
    pub url: String,
}

impl Cluster {
    pub fn start(programs: PathBuf) -> Cluster {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        // The key of any certificate will do to sign accounts' tokens, and the certificate to verify them.
        let keys = Pair::make(&names(), SystemTime::now(), Duration::from_hours(1), None).unwrap();
        std::fs::write(path("accounts.key"), keys.key).unwrap();
        std::fs::write(path("accounts.crt"), keys.certificate).unwrap();
        std::fs::write(path("tokens.csv"), format!("{TOKEN},admin,admin,system:masters\n")).unwrap();
        let (store, peers, server) = (free(), free(), free());
        let start = |name: &str, args: &[String]| {
            let mut command = Command::new(programs.join(name));
            command.args(args).current_dir(folder.path()).env("HOME", folder.path());
            Running::start(command)
        };
        let etcd = [
            format!("--data-dir={}", path("etcd")),
            format!("--listen-client-urls=http://{store}"),
            format!("--advertise-client-urls=http://{store}"),
            format!("--listen-peer-urls=http://{peers}"),
            "--unsafe-no-fsync".to_owned(),
        ];
        let api = [
            format!("--etcd-servers=http://{store}"),
            "--bind-address=127.0.0.1".to_owned(),
            // Nobody is told of it (RFC 5737).
            "--advertise-address=192.0.2.1".to_owned(),
            format!("--secure-port={}", server.port()),
            format!("--cert-dir={}", path("pki")),
            format!("--token-auth-file={}", path("tokens.csv")),
            "--authorization-mode=RBAC".to_owned(),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--service-account-key-file={}", path("accounts.crt")),
            format!("--service-account-signing-key-file={}", path("accounts.key")),
            "--service-cluster-ip-range=10.0.0.0/24".to_owned(),
            // Nobody is here to create the accounts of namespaces.
            "--disable-admission-plugins=ServiceAccount".to_owned(),
        ];
        let parts = vec![start("etcd", &etcd), start("kube-apiserver", &api)];
        let url = format!("https://127.0.0.1:{}", server.port());
        let cluster = Cluster { _parts: parts, programs, folder, url };
        wait_until("the API server is ready", || cluster.kubectl(&["get", "--raw", "/readyz"], None).status.success());
        cluster
    }

    pub fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    pub fn kubectl(&self, args: &[&str], stdin: Option<&str>) -> Output {
        let mut kubectl = Command::new(self.programs.join("kubectl"));
        kubectl.args([
            "--server",
            &self.url,
            "--token",
            TOKEN,
            "--certificate-authority",
            &self.path("pki/apiserver.crt"),
        ]);
        kubectl.args(args).env("HOME", self.folder.path()).env("KUBECONFIG", "/dev/null");
        let mut child =
            kubectl.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("kubectl");
        let text = stdin.unwrap_or_default().to_owned();
        let mut pipe = child.stdin.take().unwrap();
        let writer = std::thread::spawn(move || pipe.write_all(text.as_bytes()));
        let output = child.wait_with_output().unwrap();
        let _ = writer.join();
        output
    }

    /// Does it, and gives what kubectl wrote to standard output and to standard error.
    pub fn does(&self, args: &[&str], stdin: Option<&str>) -> (String, String) {
        let out = self.kubectl(args, stdin);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(out.status.success(), "{args:?}: {}", text(&out.stderr));
        (text(&out.stdout), text(&out.stderr))
    }

    pub fn get(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.does(&[["get", "-o", "json"].as_slice(), args].concat(), None).0).unwrap()
    }

    pub fn create(&self, object: &Value) -> (String, String) {
        self.does(&["create", "-f", "-"], Some(&object.to_string()))
    }

    /// deploy/webhook.yaml, for a webhook that is not in the cluster.
    fn deploy(&self, webhook: SocketAddr) {
        let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/webhook.yaml");
        let mut text = std::fs::read_to_string(manifests).unwrap();
        for path in ["/mutate", "/validate"] {
            let service = format!("service: {{name: lameduck-webhook, namespace: lameduck, path: {path}, port: 443}}");
            assert!(text.contains(&service));
            text = text.replace(&service, &format!("url: https://{webhook}{path}"));
        }
        self.does(&["apply", "-f", "-"], Some(&text));
        let (token, _) = self.does(&["create", "token", "lameduck-webhook", "-n", "lameduck"], None);
        std::fs::write(self.path("token"), token).unwrap();
    }

    fn webhook(&self, listen: SocketAddr) -> Running {
        let mut command = Command::new(LAMEDUCK);
        command.args(["webhook", "--image=example/lameduck:1", "--no-registry", "--namespace=lameduck"]);
        command.args(["--host=127.0.0.1", "--listen", &listen.to_string(), "--health", &free().to_string()]);
        command.args(["--api-server", &self.url, "--api-ca", &self.path("pki/apiserver.crt")]);
        command.args(["--api-token", &self.path("token")]);
        let mut running = Running::start(command);
        running.hear("the certificate is served");
        running
    }
}

fn pod(name: &str, namespace: &str, annotations: Value) -> Value {
    let security = json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "annotations": annotations},
        "spec": {
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [
                {"name": "web", "image": "acme/web", "command": ["node", "server.js"], "securityContext": security},
            ],
        },
    })
}

fn deployment(name: &str, annotations: Value) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "namespace": "shop", "annotations": annotations},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {
                    "terminationGracePeriodSeconds": 10,
                    "containers": [{
                        "name": "web", "image": "acme/web", "command": ["node", "server.js"],
                        "lifecycle": {"preStop": {"exec": {"command": ["sleep", "15"]}}},
                    }],
                },
            },
        },
    })
}

fn command(pod: &Value) -> &Value {
    &pod["spec"]["containers"][0]["command"]
}

#[test]
fn a_real_api_server_and_the_manifests_as_they_are() {
    let Some(programs) = programs() else {
        println!(
            "SKIPPED a_real_api_server_and_the_manifests_as_they_are: needs kube-apiserver; cargo xtask cluster up builds it"
        );
        return;
    };
    let cluster = Cluster::start(programs);
    let listen = free();
    cluster.deploy(listen);
    let mut webhook = cluster.webhook(listen);
    // The other replica takes what the first has made.
    let _other = cluster.webhook(free());
    // Whoever injects is asked about every pod, and told of the namespace by the rights in the manifests. A namespace that asks
    // what no pod may do that is not hardened.
    let labels = json!({"lameduck.dev/inject": "true", "pod-security.kubernetes.io/enforce": "restricted"});
    cluster.create(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "strict", "labels": labels}}));
    cluster.create(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}));
    wait_until("the API server has learnt whom to trust", || {
        let dry = ["create", "--dry-run=server", "-o", "json", "-f", "-"];
        let (made, _) = cluster.does(&dry, Some(&pod("dry", "strict", json!({})).to_string()));
        let made: Value = serde_json::from_str(&made).unwrap();
        command(&made)[0] == "/.lameduck/lameduck"
    });
    cluster.create(&pod("web", "strict", json!({"lameduck.dev/quiet": "3s"})));
    let made = cluster.get(&["pod", "web", "-n", "strict"]);
    assert_eq!(command(&made), &json!(["/.lameduck/lameduck", "run", "--", "node", "server.js"]));
    assert_eq!(made["spec"]["initContainers"][0]["command"], json!(["/lameduck", "copy-to", "/.lameduck"]));
    assert_eq!(made["metadata"]["annotations"]["lameduck.dev/injected"], "web");
    let env = json!([{"name": "LAMEDUCK_GRACE", "value": "30s"}, {"name": "LAMEDUCK_QUIET", "value": "3s"}]);
    assert_eq!(made["spec"]["containers"][0]["env"], env);
    // Somebody makes another of what was injected: once is enough.
    let mut again = pod("again", "strict", json!({}));
    again["spec"] = made["spec"].clone();
    cluster.create(&again);
    assert_eq!(cluster.get(&["pod", "again", "-n", "strict"])["spec"]["containers"], made["spec"]["containers"]);
    cluster.create(&pod("plain", "shop", json!({})));
    assert_eq!(command(&cluster.get(&["pod", "plain", "-n", "shop"])), &json!(["node", "server.js"]));

    warned_and_refused(&cluster);
    rights(&cluster);
    many(&cluster);
    expired(&cluster, &mut webhook);
    webhook.signal(Signal::TERM);
    assert_eq!(webhook.wait().code(), Some(0));
    // Without a webhook a pod is still made.
    cluster.create(&pod("alone", "strict", json!({})));
}

fn warned_and_refused(cluster: &Cluster) {
    let (_, said) = cluster.create(&deployment("told", json!({})));
    assert!(said.contains("Warning: lameduck: error prestop-exceeds-grace: preStop takes 15 s"), "{said}");
    let strict = deployment("refused", json!({"lameduck.dev/enforce": "error"}));
    let out = cluster.kubectl(&["create", "-f", "-"], Some(&strict.to_string()));
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(!out.status.success() && said.contains("denied the request: lameduck check"), "{said}");
    // What was there before can still be scaled and annotated.
    cluster.does(&["annotate", "deployment/told", "-n", "shop", "lameduck.dev/enforce=error"], None);
    cluster.does(&["scale", "deployment/told", "-n", "shop", "--replicas=2"], None);
    cluster.does(&["annotate", "deployment/told", "-n", "shop", "note=1"], None);
}

/// Not more than it needs.
fn rights(cluster: &Cluster) {
    let may = |words: &[&str]| {
        let account = "--as=system:serviceaccount:lameduck:lameduck-webhook";
        cluster.kubectl(&[["auth", "can-i", account].as_slice(), words].concat(), None).status.success()
    };
    assert!(may(&["get", "secrets/lameduck-webhook", "-n", "lameduck"]));
    assert!(may(&["get", "namespaces"]));
    for words in [
        ["get", "secrets/other", "-n", "lameduck"].as_slice(),
        &["list", "secrets", "-n", "lameduck"],
        &["get", "secrets/lameduck-webhook", "-n", "shop"],
        &["create", "secrets", "-n", "lameduck"],
        &["list", "namespaces"],
        &["get", "pods", "-n", "shop"],
        &["patch", "mutatingwebhookconfigurations/other"],
        &["update", "mutatingwebhookconfigurations/lameduck-webhook"],
    ] {
        assert!(!may(words), "{words:?}");
    }
}

/// A thousand pods within a minute, every one injected.
fn many(cluster: &Cluster) {
    let pods: Vec<Value> = (0..1000).map(|n| pod(&format!("many-{n}"), "strict", json!({}))).collect();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": pods});
    let began = Instant::now();
    cluster.create(&list);
    let took = began.elapsed();
    let all = cluster.get(&["pods", "-n", "strict"]);
    let injected =
        all["items"].as_array().unwrap().iter().filter(|pod| command(pod)[0] == "/.lameduck/lameduck").count();
    assert_eq!(injected, 1002);
    let (metrics, _) = cluster.does(&["get", "--raw", "/metrics"], None);
    let calls = |line: &&str| {
        line.starts_with("apiserver_admission_webhook_admission_duration_seconds") && line.contains("lameduck.dev")
    };
    let seen: Vec<&str> = metrics.lines().filter(calls).collect();
    println!("1000 pods in {took:?}; as the API server saw it:\n{}", seen.join("\n"));
}

/// An expired certificate is replaced, and the API server told.
fn expired(cluster: &Cluster, webhook: &mut Running) {
    use base64::Engine;
    let then = SystemTime::now() - Duration::from_hours(48);
    let names = ["lameduck-webhook.lameduck.svc".to_owned(), "127.0.0.1".to_owned()];
    let pair = Pair::make(&names, then, Duration::from_hours(24), None).unwrap();
    let encoded = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let data = json!({"data": {
        "ca.crt": encoded(&pair.authorities), "tls.crt": encoded(&pair.certificate), "tls.key": encoded(&pair.key),
    }});
    cluster.does(&["patch", "secret", "lameduck-webhook", "-n", "lameduck", "-p", &data.to_string()], None);
    webhook.hear("another certificate is served");
    let secret = cluster.get(&["secret", "lameduck-webhook", "-n", "lameduck"]);
    assert_ne!(secret["data"]["tls.crt"], encoded(&pair.certificate));
    let configuration = cluster.get(&["mutatingwebhookconfiguration", "lameduck-webhook"]);
    assert_eq!(configuration["webhooks"][0]["clientConfig"]["caBundle"], secret["data"]["ca.crt"]);
    wait_until("the API server trusts the new one", || {
        let dry = ["create", "--dry-run=server", "-o", "json", "-f", "-"];
        let (made, _) = cluster.does(&dry, Some(&pod("dry", "strict", json!({})).to_string()));
        command(&serde_json::from_str(&made).unwrap())[0] == "/.lameduck/lameduck"
    });
}
