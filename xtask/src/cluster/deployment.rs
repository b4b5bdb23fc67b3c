//! The drill's Deployment: what it is made of, how it begins and ends.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use lameduck_drill::servers::Server;
use serde_json::{Value, json};

use super::Kubectl;
use super::image::{Image, LAMEDUCK};

/// Pods of a Deployment.
pub const REPLICAS: usize = 3;
/// Where each server listens.
pub const PORT: u16 = 8080;
/// `terminationGracePeriodSeconds`, and `lameduck run`'s default `--grace`.
pub const GRACE: Duration = Duration::from_secs(30);
/// How often one looks whether something has happened.
const POLL: Duration = Duration::from_millis(500);

/// What the pods have of lameduck.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Nothing.
    Plain,
    /// `lameduck run`, without an option.
    Observe,
    /// `lameduck run` with `LAMEDUCK_LISTEN`: the front before the server.
    Front,
}

/// All of them.
pub const MODES: [Mode; 3] = [Mode::Plain, Mode::Observe, Mode::Front];

impl Mode {
    /// Its word.
    pub const fn id(self) -> &'static str {
        match self {
            Mode::Plain => "plain",
            Mode::Observe => "observe",
            Mode::Front => "front",
        }
    }

    /// The mode of that word.
    pub fn from_id(id: &str) -> anyhow::Result<Mode> {
        let found = MODES.into_iter().find(|mode| mode.id() == id);
        found.with_context(|| format!("{id:?} is no mode: plain, observe, front"))
    }
}

/// Who puts it there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// The drill, by another command.
    Command,
    /// The webhook, by annotations.
    Webhook,
}

impl By {
    /// Its word.
    pub const fn id(self) -> &'static str {
        match self {
            By::Command => "command",
            By::Webhook => "webhook",
        }
    }
}

/// Makes good what an event before may have left: fewer pods, a node that takes none, all pods on one node.
pub fn whole(kubectl: &Kubectl, name: &str) -> anyhow::Result<()> {
    take_pods(kubectl)?;
    let deployment = format!("deployment/{name}");
    kubectl.run(&["scale", &deployment, &format!("--replicas={REPLICAS}")])?;
    kubectl.run(&["rollout", "status", &deployment, "--timeout=60s"])?;
    if nodes_of(kubectl, name)?.iter().collect::<BTreeSet<_>>().len() > 1 {
        return Ok(());
    }
    kubectl.run(&["rollout", "restart", &deployment])?;
    kubectl.run(&["rollout", "status", &deployment, "--timeout=60s"])?;
    let began = Instant::now();
    while nodes_of(kubectl, name)?.len() > REPLICAS {
        ensure!(began.elapsed() < GRACE * 2, "the pods of before still have not ended");
        thread::sleep(POLL);
    }
    Ok(())
}

/// The node of each pod, of those too that are ending.
fn nodes_of(kubectl: &Kubectl, name: &str) -> anyhow::Result<Vec<String>> {
    let pods = kubectl.get(&["pods", &format!("--selector=app={name}")])?;
    let pods = pods["items"].as_array().context("no pods")?.iter();
    Ok(pods.map(|pod| pod["spec"]["nodeName"].as_str().unwrap_or_default().to_owned()).collect())
}

/// Every node takes pods again.
fn take_pods(kubectl: &Kubectl) -> anyhow::Result<()> {
    let nodes: Vec<String> = (1..=super::NODES).map(|node| format!("n{node}")).collect();
    let words: Vec<&str> = std::iter::once("uncordon").chain(nodes.iter().map(String::as_str)).collect();
    kubectl.run(&words)?;
    Ok(())
}

/// Makes a Deployment and its Service, and waits until all is ready.
pub fn begin(kubectl: &Kubectl, manifest: &Value, name: &str) -> anyhow::Result<()> {
    kubectl.apply(manifest)?;
    kubectl.run(&["rollout", "status", &format!("deployment/{name}"), "--timeout=60s"])?;
    Ok(())
}

/// Takes all of it away, and makes every node take pods again.
pub fn end(kubectl: &Kubectl, name: &str) -> anyhow::Result<()> {
    let selector = format!("--selector=app={name}");
    // Their owners go without them: else they would have their whole grace.
    kubectl.run(&["delete", "service,deployment", name, "--cascade=orphan", "--ignore-not-found", "--timeout=30s"])?;
    kubectl.run(&["delete", "replicasets", &selector, "--cascade=orphan", "--timeout=30s"])?;
    kubectl.run(&["delete", "pods", &selector, "--grace-period=1", "--timeout=60s"])?;
    take_pods(kubectl)
}

/// The Deployment as most people write it, and its Service.
pub fn manifest(server: &Server, mode: Mode, by: By, name: &str, replicas: usize) -> Value {
    let mut command = Image::command_of(server);
    let mut env = vec![json!({ "name": "PORT", "value": PORT.to_string() })];
    let mut annotations = json!({});
    let listen = format!(":{PORT}");
    match (mode, by) {
        (Mode::Plain, _) => {}
        (Mode::Observe | Mode::Front, By::Command) => {
            command.splice(0..0, [LAMEDUCK.into(), "run".into(), "--".into()]);
            if mode == Mode::Front {
                env.push(json!({ "name": "LAMEDUCK_LISTEN", "value": listen }));
            }
        }
        (Mode::Observe | Mode::Front, By::Webhook) => {
            annotations["lameduck.dev/inject"] = "true".into();
            if mode == Mode::Front {
                annotations["lameduck.dev/listen"] = listen.into();
            }
        }
    }
    let labels = json!({ "app": name });
    let container = json!({
        "name": "app", "image": Image::name_of(server), "imagePullPolicy": "Never", "command": command, "env": env,
        "ports": [{ "containerPort": PORT }],
        "readinessProbe": { "httpGet": { "path": "/", "port": PORT }, "periodSeconds": 1 },
    });
    // Else all three may come to be on one node, and its drain ends the service.
    let spread = json!([{
        "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": { "matchLabels": labels }, "matchLabelKeys": ["pod-template-hash"],
    }]);
    let pod = json!({
        "topologySpreadConstraints": spread,
        "terminationGracePeriodSeconds": GRACE.as_secs(), "enableServiceLinks": false,
        "automountServiceAccountToken": false, "dnsPolicy": "Default", "containers": [container],
    });
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": name },
        "spec": {
            "replicas": replicas, "selector": { "matchLabels": labels },
            "strategy": { "rollingUpdate": { "maxSurge": 1, "maxUnavailable": 0 } },
            "template": { "metadata": { "labels": labels, "annotations": annotations }, "spec": pod },
        },
    });
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": name },
        "spec": { "selector": labels, "ports": [{ "port": 80, "targetPort": PORT }] },
    });
    json!({ "apiVersion": "v1", "kind": "List", "items": [deployment, service] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deployment_and_its_service() {
        let server = Server::from_id("node").unwrap();
        let made = |mode, by| manifest(&server, mode, by, "node-x", 3);
        let template = |made: &Value| made["items"][0]["spec"]["template"].clone();
        let command = |made: &Value| template(made)["spec"]["containers"][0]["command"].clone();
        let observed = made(Mode::Observe, By::Command);
        assert_eq!(command(&observed), json!([LAMEDUCK, "run", "--", "node", "/app/app.js"]));
        assert_eq!(observed["items"][1]["spec"]["selector"], template(&observed)["metadata"]["labels"]);
        assert_eq!(command(&made(Mode::Plain, By::Webhook)), json!(["node", "/app/app.js"]));
        let injected = made(Mode::Front, By::Webhook);
        assert_eq!(command(&injected), json!(["node", "/app/app.js"]));
        let annotations = json!({ "lameduck.dev/inject": "true", "lameduck.dev/listen": ":8080" });
        assert_eq!(template(&injected)["metadata"]["annotations"], annotations);
    }
}
