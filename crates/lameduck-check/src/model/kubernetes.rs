//! Kubernetes objects: <https://kubernetes.io/docs/reference/kubernetes-api/>.

use super::objects::{
    Annotations, Backend, ControllerConfig, Gateway, Hpa, Ingress, Labels, Objects, Pdb, Restarter, Service,
};
use super::{Container, Hook, Ignore, Kind, PreStop, Probe, Strategy, Workload};
use crate::edit::Insert;
use crate::launch::Command;
use crate::shell::{exec, parse};
use crate::span::{Mapped, Sp};
use crate::yaml::Node;

/// Reads one document. Says whether it is a Kubernetes object at all.
pub fn read(root: Node<'_>, workloads: &mut Vec<Workload>, objects: &mut Objects) -> bool {
    let (Some(_), Some(kind)) = (root.str("apiVersion"), root.str("kind")) else { return false };
    if kind == "List" || kind.ends_with("List") && root.get("items").is_some() {
        for item in root.get("items").map(Node::items).unwrap_or_default() {
            read(item, workloads, objects);
        }
        return true;
    }
    let version = root.str("apiVersion").unwrap_or_default();
    match kind {
        "Deployment" => workload(root, Kind::Deployment, &["spec", "template"], workloads),
        "StatefulSet" => workload(root, Kind::StatefulSet, &["spec", "template"], workloads),
        "DaemonSet" => workload(root, Kind::DaemonSet, &["spec", "template"], workloads),
        "ReplicaSet" => workload(root, Kind::ReplicaSet, &["spec", "template"], workloads),
        "ReplicationController" => workload(root, Kind::ReplicationController, &["spec", "template"], workloads),
        "DeploymentConfig" => workload(root, Kind::DeploymentConfig, &["spec", "template"], workloads),
        "Rollout" if version.starts_with("argoproj.io") => {
            workload(root, Kind::Rollout, &["spec", "template"], workloads);
        }
        "Pod" => workload(root, Kind::Pod, &[], workloads),
        "Service" if version.starts_with("serving.knative.dev") => {
            workload(root, Kind::KnativeService, &["spec", "template"], workloads);
        }
        "Service" => objects.services.push(service(root)),
        "Ingress" => objects.ingresses.push(ingress(root)),
        "HTTPRoute" | "GRPCRoute" => objects.ingresses.push(route(root)),
        "Gateway" => objects.gateways.push(Gateway {
            name: name(root),
            class: root.path(&["spec", "gatewayClassName"]).and_then(Node::text).unwrap_or_default().to_owned(),
        }),
        "HorizontalPodAutoscaler" => objects.hpas.push(hpa(root)),
        "ScaledObject" => objects.hpas.push(keda(root)),
        "PodDisruptionBudget" => objects.pdbs.push(pdb(root)),
        "BackendConfig" | "GCPBackendPolicy" | "HealthCheckPolicy" => objects.backends.push(backend(root, kind)),
        // TLS and redirects: nothing that ends a connection with a pod.
        "FrontendConfig" => objects.google = true,
        "ConfigMap" => objects.configs.extend(config(root)),
        "CronJob" => objects.restarters.extend(restarter(root)),
        // Jobs end when their work does, and nothing is routed to them.
        _ => {}
    }
    true
}

fn name(root: Node<'_>) -> String {
    root.path(&["metadata", "name"]).and_then(Node::text).unwrap_or_default().to_owned()
}

fn namespace(root: Node<'_>) -> String {
    root.path(&["metadata", "namespace"]).and_then(Node::text).unwrap_or_default().to_owned()
}

fn own_at(root: Node<'_>) -> crate::span::At {
    root.path(&["metadata", "name"]).or_else(|| root.get("kind")).unwrap_or(root).at()
}

fn sp_number(node: Option<Node<'_>>) -> Option<Sp<f64>> {
    let node = node?;
    Some(Sp { value: node.number()?, at: node.at() })
}

fn sp_text(node: Option<Node<'_>>) -> Option<Sp<String>> {
    let node = node?;
    Some(Sp { value: node.text()?.to_owned(), at: node.at() })
}

fn labels(node: Option<Node<'_>>) -> Labels {
    let pairs = node.map(Node::pairs).unwrap_or_default();
    pairs.iter().filter_map(|(key, value)| Some((key.text()?.to_owned(), value.text()?.to_owned()))).collect()
}

fn annotations(node: Option<Node<'_>>) -> Annotations {
    let pairs = node.map(Node::pairs).unwrap_or_default();
    pairs
        .iter()
        .filter_map(|(key, value)| {
            Some((key.text()?.to_owned(), Sp { value: value.text()?.to_owned(), at: value.at() }))
        })
        .collect()
}

/// Where another key can stand in a block mapping: after the line of one of these scalars, else before its first key.
pub fn insert(map: Node<'_>, after: &[&str]) -> Option<Insert> {
    if !map.is_map() || map.is_flow() {
        return None;
    }
    let pairs = map.pairs();
    let (first, _) = pairs.first()?;
    let at = first.at();
    let lines = first.lines();
    let before = lines.line(at.line as usize);
    // Tabs, or a key that does not begin its line or its list item: no place is certain.
    let lead = before.get(..(at.column as usize).saturating_sub(1))?;
    if !lead.bytes().all(|byte| matches!(byte, b' ' | b'-')) {
        return None;
    }
    let indent = at.column - 1;
    for wanted in after {
        let Some((key, value)) = pairs.iter().find(|(key, _)| key.text() == Some(wanted)) else { continue };
        let (line, end) = (key.at().line, value.span().end as usize);
        let whole = lines.start_of(line as usize) + lines.line(line as usize).len();
        // On one line, and nothing behind it but blanks or a comment.
        let rest = lines.text().get(end..whole);
        let single = value.text().is_some()
            && rest.is_some_and(|rest| rest.trim().is_empty() || rest.trim_start().starts_with('#'));
        if single && value.at().line == line {
            return Some(Insert { file: at.file, offset: whole as u32, indent, after: true });
        }
    }
    Some(Insert { file: at.file, offset: at.span.start, indent, after: false })
}

fn ignores(root: Node<'_>) -> Vec<Ignore> {
    let all = annotations(root.path(&["metadata", "annotations"]));
    let mut out = Vec::new();
    for (_, text) in all.iter().filter(|(key, _)| key == "lameduck.dev/ignore") {
        // `rule: reason`, one a line or separated by semicolons.
        for part in text.value.split(['\n', ';']).map(str::trim).filter(|part| !part.is_empty()) {
            let (rule, reason) = part.split_once([':', ' ']).unwrap_or((part, ""));
            let (rule, reason) = (rule.trim().to_owned(), reason.trim().to_owned());
            out.push(Ignore { rule, reason, at: text.at, line: false });
        }
    }
    out
}

fn workload(root: Node<'_>, kind: Kind, template: &[&str], into: &mut Vec<Workload>) {
    let Some(template) = root.path(template) else { return };
    let Some(pod) = template.get("spec") else { return };
    let spec = root.get("spec").unwrap_or(root);
    let mut workload = Workload::new(kind, own_at(root), &name(root));
    workload.namespace = namespace(root);
    workload.labels = labels(template.path(&["metadata", "labels"]));
    if workload.labels.is_empty() && kind == Kind::ReplicationController {
        workload.labels = labels(spec.get("selector"));
    }
    workload.replicas = sp_number(spec.get("replicas")).filter(|_| kind != Kind::Pod);
    let strategy = spec.get("strategy").or_else(|| spec.get("updateStrategy"));
    let rolling = strategy.and_then(|strategy| {
        strategy.get("rollingUpdate").or_else(|| strategy.get("rollingParams")).or_else(|| strategy.get("canary"))
    });
    workload.strategy = Strategy {
        kind: sp_text(strategy.and_then(|strategy| strategy.get("type"))),
        max_unavailable: sp_text(rolling.and_then(|rolling| rolling.get("maxUnavailable"))),
        max_surge: sp_text(rolling.and_then(|rolling| rolling.get("maxSurge"))),
    };
    workload.min_ready = sp_number(spec.get("minReadySeconds"));
    workload.grace = sp_number(pod.get("terminationGracePeriodSeconds"));
    workload.share_pids = pod.get("shareProcessNamespace").filter(|node| node.bool() == Some(true)).map(Node::at);
    workload.readiness_gates = pod.get("readinessGates").is_some();
    workload.nodes = nodes(pod);
    workload.annotations = annotations(template.path(&["metadata", "annotations"]));
    workload.annotations.extend(annotations(root.path(&["metadata", "annotations"])));
    for node in pod.get("containers").map(Node::items).unwrap_or_default() {
        workload.containers.push(container(node));
    }
    for node in pod.get("initContainers").map(Node::items).unwrap_or_default() {
        if node.str("restartPolicy") == Some("Always") {
            workload.containers.push(Container { sidecar: true, ..container(node) });
        }
    }
    workload.insert = pod_insert(pod);
    workload.insert_outer = insert(spec, &["replicas"]);
    workload.ignores = ignores(root);
    into.push(workload);
}

/// Keys of the pod's spec go before `containers`, where everybody looks for them.
fn pod_insert(pod: Node<'_>) -> Option<Insert> {
    let fallback = insert(pod, &["serviceAccountName", "restartPolicy", "dnsPolicy"])?;
    let (key, _) = pod.pair("containers")?;
    let at = key.at();
    if at.column - 1 != fallback.indent {
        return Some(fallback);
    }
    Some(Insert { offset: at.span.start, after: false, ..fallback })
}

fn nodes(pod: Node<'_>) -> Vec<Sp<String>> {
    let mut out = Vec::new();
    for (key, value) in pod.get("nodeSelector").map(Node::pairs).unwrap_or_default() {
        if let (Some(key), Some(text)) = (key.text(), value.text()) {
            out.push(Sp { value: format!("{key}={text}"), at: value.at() });
        }
    }
    let required = ["affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms"];
    for term in pod.path(&required).map(Node::items).unwrap_or_default() {
        for expression in term.get("matchExpressions").map(Node::items).unwrap_or_default() {
            let Some(key) = expression.str("key").filter(|_| expression.str("operator") == Some("In")) else {
                continue;
            };
            for value in expression.get("values").map(Node::items).unwrap_or_default() {
                out.push(Sp { value: format!("{key}={}", value.text().unwrap_or_default()), at: value.at() });
            }
        }
    }
    out
}

fn argv(node: Option<Node<'_>>) -> Option<Command> {
    let node = node?;
    let words: Vec<Mapped> = node.items().into_iter().map(Node::mapped).collect();
    (!words.is_empty()).then(|| Command { words, at: node.items()[0].at(), shell_form: false })
}

fn container(node: Node<'_>) -> Container {
    let lifecycle = node.get("lifecycle");
    let limit = node.path(&["resources", "limits", "memory"]);
    let ports = node.get("ports").map(Node::items).unwrap_or_default();
    let mut env = Vec::new();
    for variable in node.get("env").map(Node::items).unwrap_or_default() {
        if let (Some(name), Some(value)) = (variable.str("name"), variable.str("value")) {
            env.push((name.to_owned(), value.to_owned()));
        }
    }
    Container {
        name: node.str("name").unwrap_or_default().to_owned(),
        at: node.get("name").unwrap_or(node).at(),
        image: sp_text(node.get("image")),
        command: argv(node.get("command")),
        args: argv(node.get("args")),
        env,
        ports: ports
            .iter()
            .filter(|port| port.str("protocol").is_none_or(|protocol| protocol == "TCP"))
            .filter_map(|port| Some(port.get("containerPort")?.number()? as u16))
            .collect(),
        readiness: node.get("readinessProbe").map(probe),
        liveness: node.get("livenessProbe").map(probe),
        pre_stop: lifecycle.and_then(|lifecycle| lifecycle.get("preStop")).and_then(pre_stop),
        lifecycle: lifecycle.and_then(|lifecycle| insert(lifecycle, &[])),
        memory_limit: limit.and_then(|limit| Some(Sp { value: quantity(limit.text()?)?, at: limit.at() })),
        insert: insert(node, &["image", "imagePullPolicy", "name"]),
        stop_signal: sp_text(lifecycle.and_then(|lifecycle| lifecycle.get("stopSignal"))),
        ..Container::default()
    }
}

fn probe(node: Node<'_>) -> Probe {
    let number = |key: &str, default: f64| node.get(key).and_then(Node::number).unwrap_or(default);
    let handler = ["httpGet", "tcpSocket", "exec", "grpc"].iter().find_map(|kind| {
        let handler = node.get(kind)?;
        let fields: Vec<String> = ["scheme", "host", "port", "path", "service"]
            .iter()
            .filter_map(|key| handler.str(key).map(|text| format!("{key} {text}")))
            .collect();
        let command = handler.get("command").map(Node::items).unwrap_or_default();
        let command: Vec<&str> = command.into_iter().filter_map(Node::text).collect();
        Some(format!("{kind} {} {}", fields.join(" "), command.join(" ")))
    });
    // Defaults: kubernetes/pkg/apis/core/v1/defaults.go, SetDefaults_Probe.
    Probe {
        at: node.pairs().first().map_or(node, |(key, _)| *key).at(),
        handler: handler.unwrap_or_default(),
        period: number("periodSeconds", 10.0),
        timeout: number("timeoutSeconds", 1.0),
        failures: number("failureThreshold", 3.0),
        initial_delay: number("initialDelaySeconds", 0.0),
        failures_at: node.get("failureThreshold").map(Node::at),
        insert: insert(node, &["periodSeconds", "initialDelaySeconds", "timeoutSeconds"]),
    }
}

fn pre_stop(node: Node<'_>) -> Option<PreStop> {
    if let Some(seconds) = node.path(&["sleep", "seconds"]) {
        let value = seconds.number()?;
        return Some(PreStop { hook: Hook::Sleep(value), at: seconds.at(), lasts: Some((value, value)) });
    }
    if let Some(get) = node.get("httpGet") {
        let path = get.str("path").unwrap_or_default().to_owned();
        return Some(PreStop { hook: Hook::Http(path), at: get.at(), lasts: None });
    }
    let words: Vec<Node<'_>> = node.path(&["exec", "command"])?.items();
    let argv: Vec<String> = words.iter().filter_map(|word| word.text().map(str::to_owned)).collect();
    let at = words.last()?.at();
    let lasts = hook_lasts(&argv);
    Some(PreStop { hook: Hook::Exec(argv), at, lasts })
}

/// How long a command sleeps; what it does besides takes no time that is written down.
pub fn hook_lasts(argv: &[String]) -> Option<(f64, f64)> {
    let words: Vec<&str> = argv.iter().map(String::as_str).collect();
    let text = match words.as_slice() {
        [name, time] if name.ends_with("sleep") => {
            let seconds = exec::seconds(time)?;
            return Some((seconds, seconds));
        }
        [shell, .., text] if shell.ends_with("sh") => text,
        _ => return None,
    };
    let script = parse::parse(text).ok()?;
    let mut simples = Vec::new();
    exec::simples(&script.list, &mut simples);
    let mut least = 0.0;
    let mut open = false;
    for simple in simples {
        let words: Vec<&str> = simple.words.iter().map(|word| word.text.as_str()).collect();
        match words.as_slice() {
            ["sleep" | "/bin/sleep", time] => least += exec::seconds(time)?,
            ["while" | "pgrep" | "wait" | "curl" | "wget", ..] => open = true,
            _ => {}
        }
    }
    // A loop that waits for something has no end that is written down.
    let looped = script.list.items.iter().any(|item| {
        matches!(
            item.and_or.first.commands.first().map(|command| &command.kind),
            Some(crate::shell::ast::Kind::While(..))
        )
    });
    if looped {
        return None;
    }
    Some((least, if open { f64::INFINITY } else { least }))
}

/// `512Mi`, `1G`, `1e9`: bytes.
pub fn quantity(text: &str) -> Option<f64> {
    let end = text.find(|c: char| c.is_ascii_alphabetic() && c != 'e').unwrap_or(text.len());
    let scale = match &text[end..] {
        "" => 1.0,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "Ki" => 1024.0,
        "Mi" => 1_048_576.0,
        "Gi" => 1_073_741_824.0,
        "Ti" => 1_099_511_627_776.0,
        "m" => 1e-3,
        _ => return None,
    };
    text[..end].parse::<f64>().ok().map(|n| n * scale)
}

fn service(root: Node<'_>) -> Service {
    let spec = root.get("spec");
    let get = |key: &str| spec.and_then(|spec| spec.get(key));
    let metadata = root.get("metadata");
    let own = metadata.and_then(|metadata| metadata.get("annotations"));
    let annotate = match own {
        Some(own) => insert(own, &[]).map(|insert| (insert, true)),
        None => metadata.and_then(|metadata| insert(metadata, &["name"])).map(|insert| (insert, false)),
    };
    Service {
        at: own_at(root),
        name: name(root),
        namespace: namespace(root),
        kind: get("type").and_then(Node::text).unwrap_or("ClusterIP").to_owned(),
        selector: labels(get("selector")),
        annotations: annotations(own),
        external_policy: sp_text(get("externalTrafficPolicy")),
        not_ready: get("publishNotReadyAddresses").and_then(|node| Some(Sp { value: node.bool()?, at: node.at() })),
        annotate,
    }
}

fn ingress(root: Node<'_>) -> Ingress {
    let annotations = annotations(root.path(&["metadata", "annotations"]));
    let class = root.path(&["spec", "ingressClassName"]).and_then(Node::text).map(str::to_owned);
    let by_annotation = annotations.iter().find(|(key, _)| key == "kubernetes.io/ingress.class");
    let class = class.or_else(|| by_annotation.map(|(_, value)| value.value.clone()));
    let mut services = Vec::new();
    let mut backend = |node: Node<'_>| {
        let name = node.path(&["service", "name"]).or_else(|| node.get("serviceName")).and_then(Node::text);
        services.extend(name.map(str::to_owned));
    };
    for key in ["defaultBackend", "backend"] {
        root.path(&["spec", key]).into_iter().for_each(&mut backend);
    }
    for rule in root.path(&["spec", "rules"]).map(Node::items).unwrap_or_default() {
        for path in rule.path(&["http", "paths"]).map(Node::items).unwrap_or_default() {
            path.get("backend").into_iter().for_each(&mut backend);
        }
    }
    services.sort();
    services.dedup();
    Ingress {
        at: own_at(root),
        name: name(root),
        namespace: namespace(root),
        class,
        route: false,
        annotations,
        services,
    }
}

fn route(root: Node<'_>) -> Ingress {
    let mut services = Vec::new();
    for rule in root.path(&["spec", "rules"]).map(Node::items).unwrap_or_default() {
        for backend in rule.get("backendRefs").map(Node::items).unwrap_or_default() {
            if backend.str("kind").is_none_or(|kind| kind == "Service") {
                services.extend(backend.str("name").map(str::to_owned));
            }
        }
    }
    let parents = root.path(&["spec", "parentRefs"]).map(Node::items).unwrap_or_default();
    let class = parents.first().and_then(|parent| parent.str("name")).map(str::to_owned);
    let annotations = annotations(root.path(&["metadata", "annotations"]));
    Ingress {
        at: own_at(root),
        name: name(root),
        namespace: namespace(root),
        class,
        route: true,
        annotations,
        services,
    }
}

fn hpa(root: Node<'_>) -> Hpa {
    let spec = root.get("spec").unwrap_or(root);
    let down = spec.path(&["behavior", "scaleDown"]);
    scaling(root, spec, down, spec.path(&["scaleTargetRef", "name"]), "minReplicas")
}

fn keda(root: Node<'_>) -> Hpa {
    let spec = root.get("spec").unwrap_or(root);
    let down = spec.path(&["advanced", "horizontalPodAutoscalerConfig", "behavior", "scaleDown"]);
    let target = spec.path(&["scaleTargetRef", "name"]);
    Hpa { insert: None, ..scaling(root, spec, down, target, "minReplicaCount") }
}

fn scaling(root: Node<'_>, spec: Node<'_>, down: Option<Node<'_>>, target: Option<Node<'_>>, min: &str) -> Hpa {
    let get = |key: &str| down.and_then(|down| down.get(key));
    let policies = get("policies").map(Node::items).unwrap_or_default();
    let policies = policies.into_iter().filter_map(|policy| {
        let (value, period) = (policy.get("value")?.number()?, policy.get("periodSeconds")?.number()?);
        Some((policy.str("type")?.to_owned(), value, period))
    });
    Hpa {
        at: own_at(root),
        namespace: namespace(root),
        target: target.and_then(Node::text).unwrap_or_default().to_owned(),
        min: sp_number(spec.get(min)),
        stabilization: sp_number(get("stabilizationWindowSeconds")),
        policies: policies.collect(),
        scale_down: down.map(|down| down.pairs().first().map_or(down, |(key, _)| *key).at()),
        disabled: get("selectPolicy").and_then(Node::text) == Some("Disabled"),
        behavior: spec.get("behavior").is_some(),
        insert: insert(spec, &["maxReplicas", "minReplicas"])
            .filter(|_| root.str("apiVersion").is_some_and(|version| version.contains("/v2"))),
    }
}

fn pdb(root: Node<'_>) -> Pdb {
    let spec = root.get("spec").unwrap_or(root);
    Pdb {
        at: own_at(root),
        namespace: namespace(root),
        selector: labels(spec.path(&["selector", "matchLabels"])),
        expressions: spec.path(&["selector", "matchExpressions"]).is_some(),
        min_available: sp_text(spec.get("minAvailable")),
        max_unavailable: sp_text(spec.get("maxUnavailable")),
    }
}

fn backend(root: Node<'_>, kind: &str) -> Backend {
    let spec = root.get("spec").unwrap_or(root);
    let inner = spec.get("default").unwrap_or(spec);
    let health = inner.get("healthCheck").unwrap_or(inner);
    Backend {
        at: own_at(root),
        kind: kind.to_owned(),
        name: name(root),
        namespace: namespace(root),
        target: spec.path(&["targetRef", "name"]).and_then(Node::text).map(str::to_owned),
        drain: sp_number(inner.path(&["connectionDraining", "drainingTimeoutSec"])),
        timeout: sp_number(inner.get("timeoutSec")),
        interval: sp_number(health.get("checkIntervalSec")),
        unhealthy: sp_number(health.get("unhealthyThreshold")),
        insert: insert(inner, &["timeoutSec"]),
    }
}

/// ingress-nginx's `ConfigMap`: its keys, in seconds.
fn config(root: Node<'_>) -> Option<ControllerConfig> {
    let data = root.get("data")?;
    let upstream_idle = sp_number(data.get("upstream-keepalive-timeout"));
    upstream_idle.is_some().then_some(ControllerConfig { upstream_idle })
}

fn restarter(root: Node<'_>) -> Option<Restarter> {
    if root.path(&["spec", "suspend"]).and_then(Node::bool) == Some(true) {
        return None;
    }
    let pod = root.path(&["spec", "jobTemplate", "spec", "template", "spec"])?;
    for container in pod.get("containers")?.items() {
        let words = |key: &str| container.get(key).map(Node::items).unwrap_or_default();
        let text: Vec<&str> = words("command").into_iter().chain(words("args")).filter_map(Node::text).collect();
        let text = text.join(" ");
        let restarts = text.contains("rollout restart")
            || (text.contains("kubectl") && (text.contains("delete pod") || text.contains("delete po ")));
        if restarts {
            let insert = root.get("spec").and_then(|spec| insert(spec, &["schedule"]));
            return Some(Restarter { at: own_at(root), name: name(root), command: text, insert });
        }
    }
    None
}
