//! From a question to an answer.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lameduck_core::Severity;
use serde_json::Value;
use tokio::time::Instant;

use crate::advise::{self, Advice};
use crate::annotation::{ENFORCE, PREFIX, Said};
use crate::api::Api;
use crate::inject::{self, Settings};
use crate::registry;
use crate::review::{self, Request, Verdict};

/// How long an answer may take: well within the API server's `timeoutSeconds` of 5. What takes longer is let through as it is.
pub const DEADLINE: Duration = Duration::from_secs(3);
/// How long registries have of that.
const PATIENCE: Duration = Duration::from_millis(1500);
/// How long the API server has of that, to tell a namespace.
const NAMESPACE: Duration = Duration::from_secs(1);
/// How long what a namespace says is believed.
const BELIEVED: Duration = Duration::from_secs(10);
/// So many namespaces are remembered.
const REMEMBERED: usize = 4096;
/// Objects above this are not checked, in bytes; etcd refuses those above 1.5 MiB.
const LARGEST_CHECKED: usize = 512 << 10;
/// So many checks go on at once; they take a processor each.
const CHECKS: usize = 2;

/// Answers.
#[derive(Debug)]
pub struct Webhook {
    settings: Settings,
    images: Option<Arc<registry::Images>>,
    namespaces: Option<Namespaces>,
    enforce: Option<Severity>,
    checks: Arc<tokio::sync::Semaphore>,
    counts: Counts,
}

/// What was done, since the start.
#[derive(Debug, Default)]
pub struct Counts {
    injected: AtomicU64,
    passed: AtomicU64,
    denied: AtomicU64,
    malformed: AtomicU64,
    late: AtomicU64,
}

impl Counts {
    /// In Prometheus' text format.
    pub fn metrics(&self) -> String {
        let rows = [
            ("injected", &self.injected),
            ("passed", &self.passed),
            ("denied", &self.denied),
            ("malformed", &self.malformed),
            ("late", &self.late),
        ];
        let mut out = String::from(
            "# HELP lameduck_webhook_reviews_total Admission reviews, by what became of them.\n\
             # TYPE lameduck_webhook_reviews_total counter\n",
        );
        for (outcome, count) in rows {
            let count = count.load(Ordering::Relaxed);
            let _ = writeln!(out, "lameduck_webhook_reviews_total{{outcome=\"{outcome}\"}} {count}");
        }
        out
    }
}

impl Webhook {
    /// Without `images` no registry is asked; without an API server no namespace.
    pub fn new(
        settings: Settings,
        images: Option<Arc<registry::Images>>,
        api: Option<Arc<Api>>,
        enforce: Option<Severity>,
    ) -> Webhook {
        let namespaces = api.map(|api| Namespaces { api, known: Mutex::default() });
        let checks = Arc::new(tokio::sync::Semaphore::new(CHECKS));
        Webhook { settings, images, namespaces, enforce, checks, counts: Counts::default() }
    }

    /// What was done.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The answer to a body that came to a path: a status and a body.
    pub async fn answer(&self, path: &str, body: &[u8]) -> (u16, Vec<u8>) {
        let mutate = match path {
            "/mutate" => true,
            "/validate" => false,
            _ => return (404, b"expected /mutate or /validate\n".to_vec()),
        };
        let request = match review::read(body) {
            Ok(request) => request,
            Err(error) => {
                self.counts.malformed.fetch_add(1, Ordering::Relaxed);
                return (400, format!("{error}\n").into_bytes());
            }
        };
        let work = async { if mutate { self.mutate(&request).await } else { self.validate(&request).await } };
        let verdict = tokio::time::timeout(DEADLINE, work).await.unwrap_or_else(|_| {
            self.counts.late.fetch_add(1, Ordering::Relaxed);
            let warning = "it took too long, so the object is let through as it is".to_owned();
            Verdict { warnings: vec![warning], ..Verdict::default() }
        });
        let count = match (&verdict.denied, verdict.patch.is_empty()) {
            (Some(_), _) => &self.counts.denied,
            (None, true) => &self.counts.passed,
            (None, false) => &self.counts.injected,
        };
        count.fetch_add(1, Ordering::Relaxed);
        (200, review::write(&request.uid, &verdict))
    }

    async fn mutate(&self, request: &Request) -> Verdict {
        let pod = &request.object;
        let whole = request.sub_resource.as_deref().is_none_or(str::is_empty);
        if request.kind.kind != "Pod" || !request.kind.group.is_empty() || request.operation != "CREATE" || !whole {
            return Verdict::default();
        }
        let (said, warning) = self.namespace(&request.namespace).await;
        let images = self.images(pod, &said).await;
        let injection = inject::inject(pod, &said, &images, &self.settings);
        let mut warnings = injection.warnings;
        warnings.extend(warning);
        Verdict { denied: None, patch: injection.patch, warnings }
    }

    async fn validate(&self, request: &Request) -> Verdict {
        let whole = request.sub_resource.as_deref().is_none_or(str::is_empty);
        let Some(template) = advise::template(&request.kind.kind).filter(|_| whole) else { return Verdict::default() };
        if !matches!(request.operation.as_str(), "CREATE" | "UPDATE") || advise::has_controller(&request.object) {
            return Verdict::default();
        }
        // What was there before is nobody's fault now: controllers change such objects too, and must be able to.
        let before = request.old_object.pointer(template);
        if request.operation == "UPDATE" && before.is_some() && before == request.object.pointer(template) {
            return Verdict::default();
        }
        let (namespace, warning) = self.namespace(&request.namespace).await;
        let mut warnings: Vec<String> = warning.into_iter().collect();
        let mut object = request.object.clone();
        // What would become of its pods: whoever makes the Deployment is not there when the pods are made.
        if let Some(pod) = object.pointer(template).filter(|_| !template.is_empty()).cloned() {
            let images = self.images(&pod, &namespace).await;
            let injection = inject::inject(&pod, &namespace, &images, &self.settings);
            warnings.extend(injection.warnings);
            if let Some(place) = object.pointer_mut(template) {
                *place = injection.pod;
            }
        }
        let enforce = self.enforcement(&request.object, template, &namespace, &mut warnings);
        let found = match self.check(object).await {
            Ok(found) => found,
            Err(why) => {
                warnings.push(why);
                return Verdict { warnings, ..Verdict::default() };
            }
        };
        let reasons: Vec<&str> = found
            .iter()
            .filter(|advice| enforce.is_some_and(|least| advice.severity >= least))
            .map(|advice| advice.text.as_str())
            .collect();
        let denied = (!reasons.is_empty()).then(|| {
            let shown: Vec<&str> = reasons.iter().copied().take(8).collect();
            format!("lameduck check: {}. {PREFIX}{ENFORCE}: off lets it through", shown.join(" | "))
        });
        warnings.extend(found.into_iter().map(|advice| advice.text));
        Verdict { denied, patch: Vec::new(), warnings }
    }

    /// From which severity on the object is refused: its own word, its template's, its namespace's, and the webhook's.
    fn enforcement(
        &self,
        object: &Value,
        template: &str,
        namespace: &Said,
        warnings: &mut Vec<String>,
    ) -> Option<Severity> {
        let own = Said::of(object.get("metadata"));
        let inner = Said::of(object.pointer(template).and_then(|template| template.get("metadata")));
        let said = [&own, &inner, namespace].into_iter().find_map(|said| said.get(ENFORCE));
        match said {
            None => self.enforce,
            Some("off") => None,
            Some(text) => {
                let severity = lameduck_check::severity(text);
                if severity.is_none() {
                    let text: String = text.chars().take(40).collect();
                    warnings.push(format!(
                        "{PREFIX}{ENFORCE}: read {text:?}, expected \"note\", \"warning\", \"error\" or \"off\""
                    ));
                }
                severity.or(self.enforce)
            }
        }
    }

    async fn check(&self, object: Value) -> Result<Vec<Advice>, String> {
        let Ok(permit) = Arc::clone(&self.checks).acquire_owned().await else { return Ok(Vec::new()) };
        let done = tokio::task::spawn_blocking(move || {
            // It is kept until the check ends, whether or not somebody still waits for it.
            let _permit = permit;
            if object.to_string().len() > LARGEST_CHECKED {
                return Err(format!("not checked: larger than {} KiB", LARGEST_CHECKED >> 10));
            }
            Ok(advise::advise(&object))
        });
        done.await.unwrap_or_else(|_| Err("not checked: lameduck check failed; please report it".to_owned()))
    }

    async fn images(&self, pod: &Value, namespace: &Said) -> inject::Images {
        let names = inject::images(pod, namespace);
        match &self.images {
            Some(images) if !names.is_empty() => images.all(&names, PATIENCE).await,
            Some(_) | None => {
                let why = "the webhook was told to ask no registry";
                names.into_iter().map(|name| (name, Err(why.to_owned()))).collect()
            }
        }
    }

    /// What a namespace says, and what to say where that is not known.
    async fn namespace(&self, name: &str) -> (Said, Option<String>) {
        let Some(namespaces) = self.namespaces.as_ref().filter(|_| !name.is_empty()) else {
            return (Said::default(), None);
        };
        match namespaces.get(name).await {
            Ok(said) => (said, None),
            Err(why) => {
                let warning =
                    format!("namespace {name} could not be read, so only the object's own word counts: {why}");
                (Said::default(), Some(warning))
            }
        }
    }
}

/// What namespaces say.
#[derive(Debug)]
struct Namespaces {
    api: Arc<Api>,
    known: Mutex<HashMap<String, (Instant, Said)>>,
}

impl Namespaces {
    async fn get(&self, name: &str) -> Result<Said, String> {
        let now = Instant::now();
        {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((_, said)) = known.get(name).filter(|(until, _)| *until > now) {
                return Ok(said.clone());
            }
        }
        // A name is a DNS label; the API server has checked it, but whoever talks to us need not be one.
        if !name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-') {
            return Err("that is no name of a namespace".to_owned());
        }
        let path = format!("/api/v1/namespaces/{name}");
        let object = tokio::time::timeout(NAMESPACE, self.api.get(&path)).await;
        let object = object.map_err(|_| "the API server did not answer in time".to_owned())?;
        let said = Said::of(object.map_err(|error| error.to_string())?.get("metadata"));
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(name.to_owned(), (now + BELIEVED, said.clone()));
        Ok(said)
    }
}
