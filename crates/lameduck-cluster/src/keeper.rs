//! Keeps the served certificate good: in a Secret that all replicas agree through, or in files that somebody else keeps.
//!
//! In the order in which nobody is ever shown a certificate that it does not trust: the Secret has the new pair and both
//! authorities; the webhook configurations trust both; only then is the new certificate served. A replica that has not looked
//! yet serves the old one, which is trusted too.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::api::{Api, Refused};
use crate::cert::{Pair, Served};
use crate::clock;

/// How often a Secret is looked at, at the least.
const LOOK: Duration = Duration::from_secs(20);
/// How often files are looked at.
pub const LOOK_AT_FILES: Duration = Duration::from_secs(2);
/// API servers learn of a changed configuration by their watch, within moments. The certificate waits a little longer.
const LEARNED: Duration = Duration::from_secs(3);
/// Where another replica was faster, its pair is read; more often than so something else is wrong.
const ATTEMPTS: usize = 5;

/// Where the certificate comes from.
#[derive(Debug)]
pub enum Source {
    /// A Secret, kept by the replicas themselves.
    Secret(Secret),
    /// `tls.crt` and `tls.key` in a folder, kept by somebody else.
    Folder(PathBuf),
}

/// A Secret, and who is told of its authorities.
#[derive(Debug)]
pub struct Secret {
    /// The API server.
    pub api: Arc<Api>,
    /// Its namespace.
    pub namespace: String,
    /// Its name. It exists already; empty is enough.
    pub name: String,
    /// The name of the webhook configurations, mutating and validating.
    pub configuration: String,
    /// What the certificate is for.
    pub names: Vec<String>,
    /// For how long each is good.
    pub lifetime: Duration,
}

/// How often a Secret is looked at whose certificates are good for so long. There are several looks in the last third, when another is
/// due: one that fails costs nothing.
pub fn look_every(lifetime: Duration) -> Duration {
    LOOK.min(lifetime / 10)
}

/// What there is to tell.
pub type Log = fn(&str);

/// Looks every so often, and sees to it that the served certificate is good, for ever.
pub async fn keep(source: Source, every: Duration, served: Arc<Served>, log: Log) {
    let mut last_said = String::new();
    let mut serving = None;
    loop {
        let looked = match &source {
            Source::Secret(secret) => secret.look(&served, &mut serving, log).await,
            Source::Folder(folder) => look_at_files(folder, &served, &mut serving, log),
        };
        // Said once, and not again every time.
        let said = looked.err().unwrap_or_default();
        if !said.is_empty() && said != last_said {
            log(&said);
        }
        last_said = said;
        tokio::time::sleep(if served.is_set() { every } else { every.min(Duration::from_secs(1)) }).await;
    }
}

fn look_at_files(folder: &Path, served: &Served, serving: &mut Option<Pair>, log: Log) -> Result<(), String> {
    let read = |name: &str| {
        let path = folder.join(name);
        std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))
    };
    let pair = Pair { authorities: String::new(), certificate: read("tls.crt")?, key: read("tls.key")? };
    serve(pair, served, serving, log).map_err(|error| format!("{}: {error}", folder.display()))
}

fn serve(pair: Pair, served: &Served, serving: &mut Option<Pair>, log: Log) -> Result<(), String> {
    if serving.as_ref() != Some(&pair) {
        served.set(&pair).map_err(|error| error.to_string())?;
        log(if serving.is_some() { "another certificate is served" } else { "the certificate is served" });
        *serving = Some(pair);
    }
    Ok(())
}

impl Secret {
    async fn look(&self, served: &Served, serving: &mut Option<Pair>, log: Log) -> Result<(), String> {
        let pair = self.pair(log).await?;
        let mut told = false;
        for kind in ["mutatingwebhookconfigurations", "validatingwebhookconfigurations"] {
            told |= self.tell(kind, &pair.authorities).await?;
        }
        let now = clock::now();
        let can_wait = serving.as_ref().is_some_and(|serving| serving.holds_now(&self.names, now, &pair));
        if told && can_wait {
            tokio::time::sleep(LEARNED).await;
        }
        serve(pair, served, serving, log)
    }

    fn path(&self) -> String {
        format!("/api/v1/namespaces/{}/secrets/{}", self.namespace, self.name)
    }

    /// The pair that all replicas agree on.
    async fn pair(&self, log: Log) -> Result<Pair, String> {
        for _ in 0..ATTEMPTS {
            let mut secret = match self.api.get(&self.path()).await {
                Ok(secret) => secret,
                Err(error) if error.status() == Some(404) => {
                    return Err(format!("{error}: it is part of the manifests, and has to exist"));
                }
                Err(error) => return Err(error.to_string()),
            };
            let now = clock::now();
            let known = stored(&secret);
            if let Some(known) = known.as_ref().filter(|known| !known.is_due(&self.names, now, self.lifetime)) {
                return Ok(known.clone());
            }
            let made =
                Pair::make(&self.names, now, self.lifetime, known.as_ref()).map_err(|error| error.to_string())?;
            let encoded = |text: &str| STANDARD.encode(text);
            secret["data"] = json!({
                "ca.crt": encoded(&made.authorities),
                "tls.crt": encoded(&made.certificate),
                "tls.key": encoded(&made.key),
            });
            // With the version that was read: of two replicas one is first, and the other reads again.
            match self.api.replace(&self.path(), &secret).await {
                Ok(_) => {
                    log("a new certificate was made");
                    return Ok(made);
                }
                Err(error) if error.status() == Some(409) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        Err(format!("{}: somebody else changes it all the time", self.path()))
    }

    /// Has the API servers trust these authorities. Gives whether that was new to them.
    async fn tell(&self, kind: &str, authorities: &str) -> Result<bool, String> {
        let path = format!("/apis/admissionregistration.k8s.io/v1/{kind}/{}", self.configuration);
        let object = match self.api.get(&path).await {
            Ok(object) => object,
            // Whoever only injects, or only warns, has one of them.
            Err(Refused::Status { status: 404, .. }) => return Ok(false),
            Err(error) => return Err(error.to_string()),
        };
        let operations = told(&object, &STANDARD.encode(authorities));
        if operations.is_empty() {
            return Ok(false);
        }
        self.api.patch(&path, &Value::Array(operations)).await.map_err(|error| error.to_string())?;
        Ok(true)
    }
}

impl Pair {
    /// Whether those who trust `new` still take this one.
    fn holds_now(&self, names: &[String], now: std::time::SystemTime, new: &Pair) -> bool {
        Pair { authorities: new.authorities.clone(), ..self.clone() }.holds(names, now)
    }
}

/// The pair in a Secret, if there is one.
fn stored(secret: &Value) -> Option<Pair> {
    let text = |key: &str| {
        let encoded = secret.get("data")?.get(key)?.as_str()?;
        String::from_utf8(STANDARD.decode(encoded).ok()?).ok()
    };
    Some(Pair { authorities: text("ca.crt")?, certificate: text("tls.crt")?, key: text("tls.key")? })
}

/// What makes every webhook of a configuration trust these. By its name, so that none is taken for another.
fn told(configuration: &Value, bundle: &str) -> Vec<Value> {
    let webhooks = configuration.get("webhooks").and_then(Value::as_array);
    let differing = webhooks
        .into_iter()
        .flatten()
        .enumerate()
        .filter(|(_, webhook)| webhook.pointer("/clientConfig/caBundle").and_then(Value::as_str) != Some(bundle));
    differing
        .flat_map(|(n, webhook)| {
            let name = webhook.get("name").cloned().unwrap_or_default();
            [
                json!({"op": "test", "path": format!("/webhooks/{n}/name"), "value": name}),
                json!({"op": "add", "path": format!("/webhooks/{n}/clientConfig/caBundle"), "value": bundle}),
            ]
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_does_not_know_it_is_told() {
        let configuration = json!({"webhooks": [
            {"name": "a", "clientConfig": {"caBundle": "NEW"}},
            {"name": "b", "clientConfig": {"caBundle": "OLD"}},
            {"name": "c", "clientConfig": {}},
        ]});
        let paths: Vec<_> = told(&configuration, "NEW").iter().map(|one| one["path"].clone()).collect();
        let expect = ["/webhooks/1/name", "/webhooks/1/clientConfig/caBundle", "/webhooks/2/name"];
        assert_eq!(&paths[..3], &expect);
        assert_eq!(paths.len(), 4);
        assert!(told(&json!({"webhooks": 7}), "NEW").is_empty());
    }

    #[test]
    fn an_empty_secret_has_no_pair() {
        for data in [json!({}), json!({"tls.crt": "%"}), json!(null), json!({"tls.crt": 7})] {
            assert!(stored(&json!({"data": data})).is_none());
        }
    }
}
