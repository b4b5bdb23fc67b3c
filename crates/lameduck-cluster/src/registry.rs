//! Asks registries what images start: the OCI distribution API, with an anonymous token at most.
//!
//! Whoever creates a pod chooses the image's name, and so whom this program would connect to: only registries that were
//! named to it are asked, and nothing of an answer but words of the command is passed on.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use hyper::header::{ACCEPT, AUTHORIZATION, LOCATION, WWW_AUTHENTICATE};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::http::{Answer, Client};
use crate::image::{Challenge, Config, Manifest, Reference};

/// Registries that everybody may ask.
pub const PUBLIC: [&str; 8] = [
    "docker.io",
    "gcr.io",
    "ghcr.io",
    "mcr.microsoft.com",
    "public.ecr.aws",
    "quay.io",
    "registry.gitlab.com",
    "registry.k8s.io",
];

const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

/// A whole look-up, with all of its redirections.
const LOOK_UP: Duration = Duration::from_secs(20);
const REDIRECTIONS: usize = 4;
/// How long an answer counts: a tag can be moved.
const FRESH: Duration = Duration::from_mins(5);
/// How long a failure counts.
const FAILED: Duration = Duration::from_secs(30);
/// So many images are remembered.
const REMEMBERED: usize = 1024;
/// So many look-ups go on at once.
const AT_ONCE: usize = 8;
/// So many wait for their turn; the pods of those above that go without.
const WAITING: usize = 256;

/// What an image starts, or why that is not known.
pub type Known = Result<Config, String>;

/// Whom may be asked, and how.
#[derive(Debug, Clone)]
pub struct Registries {
    /// By name, in lower case.
    pub hosts: Vec<String>,
    /// Those spoken to without TLS.
    pub plain: Vec<String>,
}

/// Registries, and what they said.
#[derive(Debug)]
pub struct Images {
    registries: Registries,
    client: Client,
    known: Mutex<HashMap<String, (Instant, Known)>>,
    slots: Semaphore,
    places: Arc<Semaphore>,
}

impl Images {
    /// Nobody was asked yet.
    pub fn new(registries: Registries, client: Client) -> Arc<Images> {
        let (slots, places) = (Semaphore::new(AT_ONCE), Arc::new(Semaphore::new(WAITING)));
        Arc::new(Images { registries, client, known: Mutex::default(), slots, places })
    }

    /// What these images start. After `patience` those that are not known yet are looked up further, for the next one who
    /// asks.
    pub async fn all(self: &Arc<Images>, names: &[String], patience: Duration) -> crate::inject::Images {
        let until = Instant::now() + patience;
        let mut asked = Vec::new();
        for name in names.iter().take(64) {
            if self.remembered(name).is_some() {
                continue;
            }
            let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else { break };
            let (images, name) = (Arc::clone(self), name.clone());
            asked.push(tokio::spawn(async move {
                images.look_up(name).await;
                drop(place);
            }));
        }
        for task in asked {
            let _ = tokio::time::timeout_at(until, task).await;
        }
        let late = || Err("its registry did not answer in time; it may have, by the next pod".to_owned());
        names.iter().map(|name| (name.clone(), self.remembered(name).unwrap_or_else(late))).collect()
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, (Instant, Known)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remembered(&self, name: &str) -> Option<Known> {
        self.known().get(name).filter(|(until, _)| *until > Instant::now()).map(|(_, known)| known.clone())
    }

    async fn look_up(&self, name: String) {
        let Ok(_slot) = self.slots.acquire().await else { return };
        if self.remembered(&name).is_some() {
            return;
        }
        let known = match tokio::time::timeout(LOOK_UP, self.ask(&name)).await {
            Ok(known) => known,
            Err(_) => Err("its registry did not answer in time".to_owned()),
        };
        let until = Instant::now() + if known.is_ok() { FRESH } else { FAILED };
        let mut all = self.known();
        if all.len() >= REMEMBERED {
            let now = Instant::now();
            all.retain(|_, (until, _)| *until > now);
        }
        if all.len() >= REMEMBERED {
            all.clear();
        }
        all.insert(name, (until, known));
    }

    async fn ask(&self, name: &str) -> Known {
        let reference = Reference::parse(name).ok_or("its image's name can not be read")?;
        let host = &reference.host;
        let plain = self.registries.plain.contains(host);
        if !plain && !self.registries.hosts.contains(host) {
            return Err(format!("{host} is not among the registries that are asked (--registry)"));
        }
        let at = if host == "docker.io" { "registry-1.docker.io" } else { host };
        let base = format!("{}://{at}/v2/{}", if plain { "http" } else { "https" }, reference.path);
        let mut session = Session { images: self, path: &reference.path, plain, token: None };
        let mut version = reference.version.clone();
        for _ in 0..2 {
            let manifest = session.get(&format!("{base}/manifests/{version}")).await?;
            match Manifest::parse(&manifest, architecture()).ok_or("its manifest can not be read")? {
                Manifest::Platform(digest) => version = digest,
                Manifest::Image(digest) => {
                    let config = session.get(&format!("{base}/blobs/{digest}")).await?;
                    return Config::parse(&config).ok_or_else(|| "its configuration can not be read".to_owned());
                }
            }
        }
        Err("its manifest is a list of lists".to_owned())
    }
}

/// As registries name it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// One look-up.
struct Session<'a> {
    images: &'a Images,
    path: &'a str,
    plain: bool,
    token: Option<String>,
}

impl Session<'_> {
    async fn get(&mut self, url: &str) -> Result<Bytes, String> {
        let mut url = url.to_owned();
        let mut own = true;
        for _ in 0..REDIRECTIONS {
            let answer = self.once(&url, own).await?;
            match answer.status.as_u16() {
                200 => return Ok(answer.body),
                401 if own && self.token.is_none() => self.token = Some(self.fetch_token(&answer).await?),
                301 | 302 | 303 | 307 | 308 => {
                    let next = answer.headers.get(LOCATION).and_then(|next| next.to_str().ok()).unwrap_or_default();
                    self.may_follow(next)?;
                    url = next.to_owned();
                    // The token is for the registry, not for where it keeps its blobs.
                    own = false;
                }
                401 | 403 => return Err("its registry asks for credentials, and the webhook has none".to_owned()),
                404 => return Err("its registry does not know it".to_owned()),
                status => return Err(format!("its registry answered {status}")),
            }
        }
        Err("its registry sends from one place to the next".to_owned())
    }

    fn may_follow(&self, url: &str) -> Result<(), String> {
        if url.starts_with("https://") || (self.plain && url.starts_with("http://")) {
            Ok(())
        } else {
            Err("its registry sends to where no TLS is".to_owned())
        }
    }

    async fn once(&self, url: &str, with_token: bool) -> Result<Answer, String> {
        let mut headers = vec![(ACCEPT, MANIFESTS.to_owned())];
        if let Some(token) = self.token.as_ref().filter(|_| with_token) {
            headers.push((AUTHORIZATION, format!("Bearer {token}")));
        }
        let answer = self.images.client.ask(Method::GET, url, &headers, Bytes::new()).await;
        answer.map_err(|error| format!("its registry could not be asked: {}", error.why))
    }

    async fn fetch_token(&self, refused: &Answer) -> Result<String, String> {
        let header = refused.headers.get(WWW_AUTHENTICATE).and_then(|header| header.to_str().ok());
        let none = "its registry asks for credentials, and the webhook has none";
        let challenge = header.and_then(Challenge::parse).ok_or(none)?;
        self.may_follow(&challenge.realm)?;
        let join = if challenge.realm.contains('?') { '&' } else { '?' };
        let service = challenge
            .service
            .filter(|service| service.chars().all(|c| c.is_ascii_alphanumeric() || ".-_:/".contains(c)));
        let service = service.map(|service| format!("service={service}&")).unwrap_or_default();
        let url = format!("{}{join}{service}scope=repository:{}:pull", challenge.realm, self.path);
        let answer = self.once(&url, false).await?;
        let json: serde_json::Value = serde_json::from_slice(&answer.body).map_err(|_| none)?;
        let token = json.get("token").or_else(|| json.get("access_token")).and_then(serde_json::Value::as_str);
        Ok(token.ok_or(none)?.to_owned())
    }
}
