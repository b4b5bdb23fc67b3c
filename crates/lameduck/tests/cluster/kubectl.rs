//! `kubectl lameduck` before a real API server: what it says of live objects is what `lameduck check` says of their export.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::{Value, json};

use super::real::{Cluster, TOKEN, programs};
use super::webhook::LAMEDUCK;

/// As people export a namespace.
const EXPORTED: &str = "deployments,statefulsets,daemonsets,replicasets,replicationcontrollers,pods,services,ingresses,\
    horizontalpodautoscalers,poddisruptionbudgets,cronjobs,configmaps";

/// The plugin as kubectl finds it, and its kubeconfig.
struct Plugin {
    folder: tempfile::TempDir,
    program: PathBuf,
}

impl Plugin {
    fn new(cluster: &Cluster, user: &Value) -> Plugin {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("kubectl-lameduck");
        symlink(LAMEDUCK, &program).unwrap();
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "here",
            "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u", "namespace": "shop"}}],
            "clusters": [{"name": "c", "cluster": {
                "server": cluster.url, "certificate-authority": cluster.path("pki/apiserver.crt")}}],
            "users": [{"name": "u", "user": user}],
        });
        std::fs::write(folder.path().join("config"), config.to_string()).unwrap();
        Plugin { folder, program }
    }

    fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new(&self.program);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).env("TMPDIR", self.folder.path());
        command.env("KUBECONFIG", self.folder.path().join("config")).args(args).output().unwrap()
    }

    /// The status, and what it wrote: to standard output, to standard error.
    fn says(&self, args: &[&str]) -> (Option<i32>, String, String) {
        let out = self.run(args);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (out.status.code(), text(&out.stdout), text(&out.stderr))
    }

    fn json(&self, args: &[&str]) -> Value {
        let (status, out, err) = self.says(&[args, &["--format", "json"]].concat());
        assert!(matches!(status, Some(0 | 1)), "{args:?}: {status:?} {err}");
        serde_json::from_str(&out).unwrap()
    }
}

fn check_export(path: &str, text: Option<&str>) -> Value {
    use std::io::Write;
    use std::process::Stdio;
    let mut check = Command::new(LAMEDUCK);
    check.args(["check", "--no-render", "--format", "json", path]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = check.spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    let text = text.unwrap_or_default().to_owned();
    let writer = std::thread::spawn(move || pipe.write_all(text.as_bytes()));
    let out = child.wait_with_output().unwrap();
    let _ = writer.join();
    serde_json::from_slice(&out.stdout).unwrap()
}

/// What makes two findings the same, wherever each was read, and how often it is there.
fn gist(findings: &Value, place: impl Fn(&Value) -> String) -> BTreeMap<String, usize> {
    let mut all = BTreeMap::new();
    for finding in findings.as_array().unwrap() {
        let words = ["rule", "cause", "severity", "confidence", "workload", "message", "help"];
        let words: Vec<&str> = words.iter().map(|key| finding[key].as_str().unwrap()).collect();
        *all.entry(format!("{} {}", place(finding), words.join(" | "))).or_default() += 1;
    }
    all
}

fn pod_spec(image: &str, command: &[&str], more: &Value) -> Value {
    let mut container = json!({"name": "app", "image": image, "command": command, "ports": [{"containerPort": 8080}]});
    container.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"metadata": {"labels": {"app": command[0]}}, "spec": {"containers": [container]}})
}

fn workload(kind: &str, name: &str, spec: &Value) -> Value {
    let mut spec = spec.clone();
    spec["selector"] = json!({"matchLabels": {"app": name}});
    spec["template"]["metadata"]["labels"] = json!({"app": name});
    json!({"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name, "namespace": "shop"}, "spec": spec})
}

/// A namespace with something wrong in many places.
fn furnish(cluster: &Cluster) {
    for name in ["shop", "many", "empty"] {
        cluster.create(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}));
    }
    let hook = json!({"lifecycle": {"preStop": {"exec": {"command": ["sleep", "45"]}}}});
    let probes = json!({
        "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 30, "failureThreshold": 5},
        "livenessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 5, "failureThreshold": 1},
    });
    let node = pod_spec("acme/web", &["sh", "-c", "node server.js # a \"quoted\" text: {x}\nexit 0"], &hook);
    let gunicorn = pod_spec("acme/api", &["gunicorn", "app:app", "--keep-alive", "2"], &probes);
    let all = [
        workload("Deployment", "web", &json!({"replicas": 3, "template": node})),
        workload("Deployment", "api", &json!({"replicas": 1, "template": gunicorn})),
        workload("StatefulSet", "store", &json!({"replicas": 2, "serviceName": "store", "template": node})),
        workload("DaemonSet", "agent", &json!({"template": gunicorn})),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "api"},
            "spec": {"type": "LoadBalancer", "selector": {"app": "api"}, "externalTrafficPolicy": "Local", "ports": [{"port": 80}]}}),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
            "spec": {"selector": {"app": "web"}, "publishNotReadyAddresses": true, "ports": [{"port": 80}]}}),
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "all"}, "spec": {
            "ingressClassName": "nginx", "rules": [{"http": {"paths": [
                {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "api", "port": {"number": 80}}}}]}}]}}),
        json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "web"}, "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}, "minReplicas": 1, "maxReplicas": 9,
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0,
                "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]}},
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 60}}}]}}),
        json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "api"},
            "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "api"}}}}),
        json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "nobody"},
            "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "nobody"}}}}),
        json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "nightly"}, "spec": {
            "schedule": "0 3 * * *", "jobTemplate": {"spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [
                {"name": "k", "image": "acme/kubectl", "command": ["kubectl", "rollout", "restart", "deployment/web"]}]}}}}}}),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ingress"}, "data": {"upstream-keepalive-timeout": "75"}}),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "other"}, "data": {"text": "a: [\n\"b"}}),
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "alone", "labels": {"app": "alone"}}, "spec": node["spec"]}),
    ];
    cluster.does(
        &["create", "-n", "shop", "-f", "-"],
        Some(&json!({"apiVersion": "v1", "kind": "List", "items": all}).to_string()),
    );
    // No controller runs here: what they would have made is made by hand.
    let owner = |kind: &str, version: &str, name: &str| {
        let uid = cluster.get(&[kind, name, "-n", "shop"])["metadata"]["uid"].clone();
        json!([{"apiVersion": version, "kind": kind, "name": name, "uid": uid, "controller": true}])
    };
    let mut set = workload("ReplicaSet", "web-1", &json!({"replicas": 3, "template": node}));
    set["metadata"]["ownerReferences"] = owner("Deployment", "apps/v1", "web");
    cluster.create(&set);
    let child = |name: &str, owners: Value| {
        json!({"apiVersion": "v1", "kind": "Pod", "spec": node["spec"],
            "metadata": {"name": name, "namespace": "shop", "labels": {"app": "web"}, "ownerReferences": owners}})
    };
    for name in ["web-1-a", "web-1-b"] {
        cluster.create(&child(name, owner("ReplicaSet", "apps/v1", "web-1")));
    }
    cluster.create(&child("store-0", owner("StatefulSet", "apps/v1", "store")));
}

fn agrees(cluster: &Cluster, plugin: &Plugin) {
    let live = plugin.json(&["check"]);
    let owned = ["web-1", "web-1-a", "web-1-b", "store-0"];
    let is_owned = |finding: &Value| owned.contains(&finding["workload"].as_str().unwrap());
    let without = |mut findings: Value| {
        findings.as_array_mut().unwrap().retain(|finding| !is_owned(finding));
        findings
    };
    let of_live = &live["findings"];
    assert!(of_live.as_array().unwrap().len() > 12 && of_live.as_array().unwrap().iter().all(|one| !is_owned(one)));
    let rules: std::collections::BTreeSet<&str> =
        of_live.as_array().unwrap().iter().map(|one| one["rule"].as_str().unwrap()).collect();
    println!("{} findings of {} rules: {rules:?}", of_live.as_array().unwrap().len(), rules.len());
    assert_eq!((live["owned"].as_u64(), live["namespace"].as_str()), (Some(4), Some("shop")));
    // As one export.
    let (yaml, _) = cluster.does(&["get", EXPORTED, "-n", "shop", "-o", "yaml"], None);
    let export = check_export("-", Some(&yaml));
    let nowhere = |_: &Value| String::new();
    assert_eq!(gist(of_live, nowhere), gist(&without(export["findings"].clone()), nowhere));
    assert!(gist(&export["findings"], nowhere).len() > gist(of_live, nowhere).len(), "the owned ones are there too");
    // A file an object: the file is the place.
    let folder = tempfile::tempdir().unwrap();
    for object in cluster.get(&[EXPORTED, "-n", "shop"])["items"].as_array().unwrap() {
        let words = [&object["kind"], &object["metadata"]["name"]].map(|word| word.as_str().unwrap());
        std::fs::write(folder.path().join(format!("{}.yaml", words.join("_"))), object.to_string()).unwrap();
    }
    let export = check_export(folder.path().to_str().unwrap(), None);
    let file = |finding: &Value| {
        let name = finding["file"].as_str().unwrap().rsplit('/').next().unwrap();
        name.trim_end_matches(".yaml").to_owned()
    };
    let object = |finding: &Value| {
        assert_eq!(finding["object"]["namespace"], "shop");
        format!("{}_{}", finding["object"]["kind"].as_str().unwrap(), finding["object"]["name"].as_str().unwrap())
    };
    // This budget's own file has no workload, so that nothing is said of it there.
    let mut in_files = without(of_live.clone());
    in_files.as_array_mut().unwrap().retain(|finding| finding["object"]["name"] != "nobody");
    assert_eq!(gist(&in_files, object), gist(&without(export["findings"].clone()), file));
    let long = of_live.as_array().unwrap().iter().find(|one| one["rule"] == "prestop-exceeds-grace").unwrap();
    let field = "spec.template.spec.containers{app}.lifecycle.preStop.exec.command[1]";
    assert_eq!((long["field"].as_str(), long["object"]["kind"].as_str()), (Some(field), Some("Deployment")));
    let (status, text, _) = plugin.says(&["check", "--fail-on", "never"]);
    assert!(status == Some(0) && text.contains(&format!(" --> shop/Deployment/web: {field}\n")), "{text}");
    let everywhere = plugin.json(&["check", "-A"]);
    assert_eq!(gist(&everywhere["findings"], nowhere), gist(of_live, nowhere));
    // Only some of it may be in another namespace; nothing is in this one.
    let empty = plugin.json(&["-n", "empty", "check"]);
    assert_eq!((empty["objects"].as_u64(), empty["findings"].as_array().unwrap().len()), (Some(0), 0));
}

/// More than the API server gives at once.
fn portions(cluster: &Cluster, plugin: &Plugin) {
    let one = |n: usize| {
        let mut one = workload(
            "Deployment",
            &format!("d{n}"),
            &json!({"template": pod_spec("acme/web", &["node", "x.js"], &json!({}))}),
        );
        one["metadata"]["namespace"] = "many".into();
        one
    };
    let all: Vec<Value> = (0..501).map(one).collect();
    cluster.create(&json!({"apiVersion": "v1", "kind": "List", "items": all}));
    let live = plugin.json(&["check", "--namespace", "many"]);
    assert_eq!((live["objects"].as_u64(), live["workloads"].as_array().unwrap().len()), (Some(501), 501));
    assert_eq!(live["workloads"][0]["object"], json!({"namespace": "many", "kind": "Deployment", "name": "d0"}));
}

/// Who may not read something is told which right is missing, and who may not read anything too.
fn rights(cluster: &Cluster) {
    let role = |rules: Value| json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "some", "namespace": "shop"}, "rules": rules});
    cluster.does(&["create", "serviceaccount", "who", "-n", "shop"], None);
    let (token, _) = cluster.does(&["create", "token", "who", "-n", "shop"], None);
    std::fs::write(cluster.path("who"), token).unwrap();
    let plugin = Plugin::new(cluster, &json!({"tokenFile": cluster.path("who")}));
    let (status, _, said) = plugin.says(&["check"]);
    let expect = "the right that is missing is verb `list` on resource `deployments` of group `apps` in namespace shop";
    assert!(status == Some(4) && said.contains(expect) && said.contains(&cluster.url), "{status:?} {said}");
    cluster.create(&role(json!([{"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["list"]}])));
    cluster.does(&["create", "rolebinding", "some", "-n", "shop", "--role=some", "--serviceaccount=shop:who"], None);
    super::webhook::wait_until("the right is known", || plugin.run(&["check"]).status.code() == Some(3));
    let (_, text, _) = plugin.says(&["check"]);
    assert!(text.contains("not read: ") && text.contains("resource `statefulsets` of group `apps`"), "{text}");
    assert!(text.contains("shop/Deployment/web"), "what may be read is checked: {text}");
}

/// As people's kubeconfigs are.
fn credentials(cluster: &Cluster) {
    let script = cluster.path("plugin.sh");
    let answer = json!({"kind": "ExecCredential", "status": {"token": TOKEN}}).to_string();
    std::fs::write(&script, format!("#!/bin/sh\n[ \"$1\" = get ] && echo '{answer}'\n")).unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let exec = json!({"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": script, "args": ["get"], "interactiveMode": "Never"}});
    let plugin = Plugin::new(cluster, &exec);
    assert_eq!(plugin.json(&["check", "-n", "empty"])["objects"], 0);
    let wrong = Plugin::new(cluster, &json!({"token": "wrong"}));
    let (status, _, said) = wrong.says(&["check"]);
    assert!(status == Some(4) && said.contains("it does not know who asks"), "{said}");
    let (status, _, said) = plugin.says(&["check", "--context", "there"]);
    assert!(status == Some(4) && said.contains("no context \"there\"; there is here"), "{said}");
    // Nobody is there.
    let text = std::fs::read_to_string(plugin.folder.path().join("config")).unwrap();
    let nobody = super::webhook::free();
    std::fs::write(plugin.folder.path().join("config"), text.replace(&cluster.url, &format!("https://{nobody}")))
        .unwrap();
    let (status, _, said) = plugin.says(&["check"]);
    assert!(
        status == Some(4) && said.contains("nothing listens there") && said.contains(&nobody.to_string()),
        "{said}"
    );
}

/// What a kubelet would have written of a pod.
fn status(cluster: &Cluster, name: &str, status: &Value) {
    let change = json!({"status": status}).to_string();
    cluster.does(&["patch", "pod", name, "-n", "shop", "--subresource=status", "--type=merge", "-p", &change], None);
}

/// In a termination message; there is no kubelet here that would have logs.
fn reports(cluster: &Cluster, plugin: &Plugin) {
    let (code, text, _) = plugin.says(&["reports"]);
    assert!(code == Some(3) && text.contains("no report was found"), "{text}");
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/drain-report.md")).unwrap();
    let report: Value =
        serde_json::from_str(page.split("```json").nth(1).unwrap().split("```").next().unwrap()).unwrap();
    let ended = |message: String| {
        json!({"phase": "Running", "containerStatuses": [{
            "name": "app", "image": "acme/web", "imageID": "x", "ready": true, "restartCount": 1, "state": {"running": {}},
            "lastState": {"terminated": {"exitCode": 143, "message": message}}}]})
    };
    status(cluster, "web-1-a", &ended(format!("lameduck: report {report}")));
    status(cluster, "web-1-b", &ended(report.to_string()[200..].to_owned()));
    let (code, text, err) = plugin.says(&["reports", "--json"]);
    let estate: Value = serde_json::from_str(&text).unwrap();
    // The pods have no node: the API server can not ask for logs, which is 400, and no reason to complain.
    assert_eq!((code, &estate["not_read"], &estate["cut"]), (Some(0), &json!([]), &json!(1)), "{text} {err}");
    assert_eq!((&estate["drains"], &estate["would_have_been_502"]), (&json!(1), &json!(36)));
    let one = &estate["workloads"][0];
    assert_eq!((&one["workload"], &one["min_s"]), (&json!("ReplicaSet/web-1"), &json!([5.0, 5.0])), "{text}");
    // The same from a file, without a cluster.
    let log = plugin.folder.path().join("web.log");
    std::fs::write(&log, format!("x\nlameduck: report {report}\nlameduck: report {report}\n")).unwrap();
    let (code, text, _) = plugin.says(&["reports", log.to_str().unwrap(), "--kubeconfig", "/nowhere"]);
    assert!(
        code == Some(0) && text.starts_with("2 drains of 1 workload\nrequests that would have been 502s: 72"),
        "{text}"
    );
}

/// The pod's life is the cluster's word, the loss a proxy's log's.
fn explains(cluster: &Cluster, plugin: &Plugin) {
    let address = json!({"phase": "Running", "podIP": "10.8.1.7", "podIPs": [{"ip": "10.8.1.7"}], "startTime": "2026-11-21T10:00:00Z"});
    status(cluster, "alone", &address);
    let event = |name: &str, about: &str, reason: &str, message: &str| {
        json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": name, "namespace": "shop"}, "reason": reason, "message": message,
            "involvedObject": {"kind": "Pod", "name": about, "namespace": "shop"}, "type": "Normal",
            "firstTimestamp": "2026-11-21T18:00:00Z", "lastTimestamp": "2026-11-21T18:00:00Z"})
    };
    cluster.create(&event("a", "alone", "Killing", "Stopping container app"));
    // Of this pod nothing is left but its events.
    let probe = "Readiness probe failed: Get \"http://10.8.1.8:8080/\": EOF";
    cluster.create(&event("b", "gone", "Unhealthy", probe));
    cluster.create(&event("c", "gone", "Killing", "Stopping container app"));
    let line = |address: &str, n: u32| {
        format!(
            "2026/11/21 18:00:02 [error] 29#29: *{n} connect() failed (111: Connection refused) while connecting to upstream, \
             client: 1.2.3.4, server: _, request: \"GET /{n} HTTP/1.1\", upstream: \"http://{address}:8080/{n}\", host: \"h\"\n"
        )
    };
    let log = plugin.folder.path().join("error.log");
    std::fs::write(&log, line("10.8.1.7", 1) + &line("10.8.1.8", 2)).unwrap();
    let report = plugin.json(&["explain", log.to_str().unwrap(), "--since", "1h"]);
    let text = report.to_string();
    assert!(text.contains("refused-while-routed") && !text.contains("\"unknown\":"), "{text}");
    let (_, said, err) = plugin.says(&["explain", log.to_str().unwrap()]);
    assert!(said.contains("2  refused-while-routed") && err.contains("3 events"), "{said} {err}");
    let (code, _, err) = plugin.says(&["explain", "-A"]);
    assert!(code == Some(2) && err.contains("--and"), "{err}");
    let left = std::fs::read_dir(plugin.folder.path()).unwrap().flatten();
    assert!(left.into_iter().all(|entry| !entry.file_name().to_string_lossy().starts_with("lameduck-explain-")));
}

/// Nothing is ended where nothing could be learnt.
fn drills(plugin: &Plugin) {
    let check = |args: &[&str], status: i32, expect: &str| {
        let (code, _, err) = plugin.says(&[&["drill"], args].concat());
        assert!(code == Some(status) && err.contains(expect), "{args:?}: {code:?} {err}");
    };
    check(&["deployment/web"], 2, "no --event was given");
    check(&["web", "--event", "roll"], 2, "expected a Deployment");
    check(&["deployment/web", "--event", "explode"], 2, "roll, scale-down[=N], delete, evict or drain-node");
    check(
        &["deployment/nobody", "--event", "roll"],
        4,
        "get deployments.apps nobody in namespace shop: it answered 404",
    );
    check(&["deployment/web", "--event", "roll"], 4, "service/web of namespace shop has no ready endpoint");
}

#[test]
fn what_is_said_of_live_objects_is_what_is_said_of_their_export() {
    let Some(programs) = programs("what_is_said_of_live_objects_is_what_is_said_of_their_export") else { return };
    let cluster = Cluster::start(programs);
    furnish(&cluster);
    let plugin = Plugin::new(&cluster, &json!({"token": TOKEN}));
    agrees(&cluster, &plugin);
    portions(&cluster, &plugin);
    rights(&cluster);
    credentials(&cluster);
    reports(&cluster, &plugin);
    explains(&cluster, &plugin);
    drills(&plugin);
}

#[test]
fn a_server_that_says_nothing_is_given_up_after_ten_seconds() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config");
    let text = format!(
        "current-context: x\ncontexts:\n- name: x\n  context: {{cluster: x}}\nclusters:\n- name: x\n  cluster:\n    server: http://{}\n",
        listener.local_addr().unwrap()
    );
    std::fs::write(&config, text).unwrap();
    let began = std::time::Instant::now();
    let out =
        Command::new(LAMEDUCK).args(["kubectl", "check", "--kubeconfig"]).arg(config).env_clear().output().unwrap();
    let (said, took) = (String::from_utf8_lossy(&out.stderr).into_owned(), began.elapsed());
    assert!(out.status.code() == Some(4) && said.contains("no answer within 10 s"), "{said}");
    assert!((9..15).contains(&took.as_secs()), "{took:?}");
}
