//! The webhook, beside the cluster: it puts lameduck into the drill's pods as it does into anybody's.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::{Kubectl, STATE, image, net};
use crate::built;

/// Its objects, and the namespace of the drill's pods.
const NAME: &str = "lameduck-drill";
const PORT: u16 = 18_443;
/// The most time until it serves.
const PATIENCE: Duration = Duration::from_secs(30);
/// Where one looks again.
const POLL: Duration = Duration::from_millis(50);

/// One that runs; killed when dropped.
pub struct Webhook {
    child: Child,
    log: PathBuf,
    kubectl: Kubectl,
}

impl Webhook {
    /// Builds and starts it, and tells the API server to ask it about the pods of the namespace.
    pub fn start(kubectl: &Kubectl, dir: &Path) -> anyhow::Result<Webhook> {
        let program = built::debug()?;
        kubectl.apply(&objects())?;
        let config = format!("{STATE}/kubeconfig");
        let config: Value = serde_json::from_slice(&fs::read(&config).context(config)?)?;
        fs::create_dir_all(dir)?;
        let (token, log) = (dir.join("token"), dir.join("webhook.log"));
        fs::write(&token, config["users"][0]["user"]["token"].as_str().context("the token of the kubeconfig")?)?;
        let cluster = &config["clusters"][0]["cluster"];
        let said =
            |name: &str| cluster[name].as_str().map(str::to_owned).with_context(|| format!("{name} of the kubeconfig"));
        let mut command = Command::new(program);
        command.args(["webhook", "--no-registry", "--image", image::OURS, "--namespace", NAME, "--secret", NAME]);
        command.args(["--configuration", NAME, "--host", net::HOST, "--listen", &format!("{}:{PORT}", net::HOST)]);
        command.args(["--health", &format!("{}:{}", net::HOST, PORT + 1)]);
        command.args(["--api-server", &said("server")?, "--api-ca", &said("certificate-authority")?]);
        command.arg("--api-token").arg(&token).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(fs::File::create(&log)?);
        let child = command.spawn().context("lameduck webhook")?;
        let mut webhook = Webhook { child, log, kubectl: kubectl.clone() };
        webhook.served()?;
        Ok(webhook)
    }

    /// Waits until the API server trusts its certificate.
    fn served(&mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            let told = self.kubectl.get(&["mutatingwebhookconfiguration", NAME])?;
            if told["webhooks"][0]["clientConfig"]["caBundle"].is_string() && self.says("the certificate is served") {
                return Ok(());
            }
            let runs = self.child.try_wait()?.is_none();
            ensure!(runs && began.elapsed() < PATIENCE, "the webhook does not serve: {}", self.said());
            thread::sleep(POLL);
        }
    }

    fn says(&self, what: &str) -> bool {
        self.said().contains(what)
    }

    fn said(&self) -> String {
        let mut text = String::new();
        let _ = fs::File::open(&self.log).and_then(|mut file| file.read_to_string(&mut text));
        text
    }
}

impl Drop for Webhook {
    fn drop(&mut self) {
        let _ = self.kubectl.run(&["delete", "mutatingwebhookconfiguration", NAME, "--ignore-not-found"]);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Makes the namespace of the drill's pods; how to ask for what is in it.
pub fn namespace(kubectl: Kubectl) -> anyhow::Result<Kubectl> {
    kubectl.apply(&json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": NAME } }))?;
    Ok(kubectl.within(NAME))
}

/// As in `deploy/webhook.yaml`, for a webhook that is not in the cluster; and a pod that it could not be asked about is not made.
fn objects() -> Value {
    let secret = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": NAME }, "type": "Opaque" });
    let configuration = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
        "metadata": { "name": NAME },
        "webhooks": [{
            "name": "inject.lameduck.dev", "admissionReviewVersions": ["v1"], "sideEffects": "None",
            "clientConfig": { "url": format!("https://{}:{PORT}/mutate", net::HOST) },
            "failurePolicy": "Fail", "reinvocationPolicy": "IfNeeded", "timeoutSeconds": 5,
            "rules": [{
                "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"],
                "scope": "Namespaced",
            }],
            "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": NAME } },
        }],
    });
    json!({ "apiVersion": "v1", "kind": "List", "items": [secret, configuration] })
}
