//! When routing took this pod out, seen rather than guessed: the `EndpointSlices` of its namespace, listed and then watched.
//!
//! The protocol ("Efficient detection of changes" in Kubernetes' API concepts): a list has a version, a watch goes on from it and says
//! what changed; `BOOKMARK` is a newer version without a change; `410 Gone` asks for another list.

mod slices;
mod stream;

use std::time::Duration;

use hyper::StatusCode;
use serde_json::Value;

pub use slices::{Routed, SERVICE, Slices, Who};
use stream::{Answer, Peer};

use crate::api::Access;

/// The resource.
const RESOURCE: &str = "endpointslices.discovery.k8s.io";
/// Slices of one page of a list.
const PAGE: u32 = 500;
/// A page has at most so many bytes: a slice has a hundred endpoints by default, a thousand at the most.
const MOST_OF_A_PAGE: usize = 128 << 20;
/// One change has at most so many: etcd's limit of an object is 1.5 MiB.
const MOST_OF_A_CHANGE: usize = 8 << 20;
/// A list takes at most so long.
const LIST: Duration = Duration::from_secs(10);
/// The server ends a watch after so many seconds, and another goes on.
const WATCH: u64 = 60;
/// One that says nothing for so long, not even a bookmark, is broken.
const SILENCE: Duration = Duration::from_secs(WATCH + 15);
/// Between attempts: doubled up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LAST_PAUSE: Duration = Duration::from_secs(2);

/// What is watched, and who is told.
pub struct Watch {
    /// The API server.
    pub access: Access,
    /// The namespace.
    pub namespace: String,
    /// This pod. Without a name and addresses, the address from which the API server is asked is its own.
    pub who: Who,
    /// Is told of each change.
    pub tell: fn(Told<'_>),
}

/// What is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told<'a> {
    /// Whether routing sends to this pod; `None`: not known any more.
    Routed(Option<Routed>),
    /// Something to know.
    Say(&'a str),
    /// Something that failed, and what to do about it. Each text once.
    Warn(&'a str),
}

/// Why a list or a watch came to its end.
enum Ended {
    /// The server has ended a watch, as it does from time to time.
    Over,
    /// What was known is too old.
    Gone,
    /// It is not allowed: to try again changes nothing.
    Forbidden(String),
    /// It broke.
    Broken(String),
}

/// Whether to watch, or only to see whether that will work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// To see whether it will work.
    Check,
    /// To watch.
    Watch,
}

/// Does it, to its end.
pub fn run(task: Task, watch: Watch) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match task {
            Task::Check => check(watch).await,
            Task::Watch => follow(watch).await,
        }
    });
    Ok(())
}

/// Watches until this pod is known to be in no slice, or it is not allowed to watch.
async fn follow(watch: Watch) {
    let mut run =
        Run { peer: Peer::new(watch.access.clone()), watch, told: Known::Nothing, warned: false, pause: FIRST_PAUSE };
    while let Some(ended) = run.once().await {
        match ended {
            // Not at once: a server that says so each time would be asked without pause.
            Ended::Over | Ended::Gone => tokio::time::sleep(FIRST_PAUSE).await,
            Ended::Forbidden(why) => {
                run.warn(&why);
                run.tell(None);
                return;
            }
            Ended::Broken(why) => {
                run.warn(&why);
                // What was out is out. Whether what was in still is, nobody knows.
                if run.told == Known::Told(Some(Routed::In)) {
                    run.tell(None);
                }
                tokio::time::sleep(run.pause).await;
                run.pause = (run.pause * 2).min(LAST_PAUSE);
            }
        }
    }
}

/// Whether it will work: a list and a watch, each as short as can be. What does not is told.
async fn check(watch: Watch) {
    let run =
        Run { peer: Peer::new(watch.access.clone()), watch, told: Known::Nothing, warned: false, pause: FIRST_PAUSE };
    let list = format!("{}?limit=1", run.path());
    let follow = format!("{}?watch=true&timeoutSeconds=1", run.path());
    for (verb, path) in [("list", list), ("watch", follow)] {
        let tried = match run.peer.get(&path).await {
            Ok(answer) => run.accepted(verb, answer).await.map(|_| ()),
            Err(why) => Err(run.broken(verb, &why)),
        };
        if let Err(Ended::Forbidden(why) | Ended::Broken(why)) = tried {
            (run.watch.tell)(Told::Warn(&why));
            return;
        }
    }
}

/// What was told of routing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// Nothing yet.
    Nothing,
    /// This.
    Told(Option<Routed>),
}

struct Run {
    watch: Watch,
    peer: Peer,
    told: Known,
    warned: bool,
    pause: Duration,
}

impl Run {
    /// A list, and the watches that go on from it. `None`: there is nothing to watch.
    async fn once(&mut self) -> Option<Ended> {
        let listed = tokio::time::timeout(LIST, self.list()).await;
        let listed =
            listed.unwrap_or_else(|_| Err(self.broken("list", &format!("not over after {} s", LIST.as_secs()))));
        let (mut slices, mut version) = match listed {
            Ok(listed) => listed,
            Err(ended) => return Some(ended),
        };
        // One that was there and is not any more is out.
        if !slices.has_own() && self.told == Known::Nothing {
            let namespace = &self.watch.namespace;
            let said = format!(
                "this pod is in no EndpointSlice of namespace {namespace}: no service selects it, or POD_NAME or POD_IP is \
                 not its own; going on with --min"
            );
            (self.watch.tell)(Told::Say(&said));
            self.tell(None);
            return None;
        }
        self.tell(Some(slices.routed()));
        self.pause = FIRST_PAUSE;
        let services = slices.services().filter(|services| !services.is_empty());
        let selector = services.map(|names| format!("{SERVICE} in ({})", names.join(",")));
        loop {
            match self.follow(&mut slices, &mut version, selector.as_deref()).await {
                // Not at once: a server that ends each watch at its beginning would be asked without pause.
                Ended::Over => tokio::time::sleep(FIRST_PAUSE).await,
                ended => return Some(ended),
            }
        }
    }

    fn path(&self) -> String {
        format!("/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices", self.watch.namespace)
    }

    async fn list(&mut self) -> Result<(Slices, String), Ended> {
        let mut who = self.watch.who.clone();
        let mut slices: Option<Slices> = None;
        let mut next = String::new();
        loop {
            let mut path = format!("{}?limit={PAGE}", self.path());
            if !next.is_empty() {
                path.push_str("&continue=");
                path.push_str(&encoded(&next));
            }
            let answer = self.peer.get(&path).await.map_err(|why| self.broken("list", &why))?;
            let mut answer = self.accepted("list", answer).await?;
            if who == Who::default() {
                who.addresses.extend(answer.own_address);
            }
            let body = answer.whole(MOST_OF_A_PAGE).await.map_err(|why| self.broken("list", &why))?;
            let list: Value =
                serde_json::from_slice(&body).map_err(|error| self.broken("list", &format!("no JSON: {error}")))?;
            let slices = slices.get_or_insert_with(|| Slices::new(who.clone()));
            let Some(items) = list["items"].as_array() else { return Err(self.broken("list", "no items in it")) };
            for item in items {
                slices.put(item).map_err(|why| self.broken("list", &why.to_string()))?;
            }
            list["metadata"]["continue"].as_str().unwrap_or_default().clone_into(&mut next);
            if next.is_empty() {
                let version = list["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
                return Ok((std::mem::take(slices), version));
            }
        }
    }

    /// One watch, to its end.
    async fn follow(&mut self, slices: &mut Slices, version: &mut String, selector: Option<&str>) -> Ended {
        let mut path = format!(
            "{}?watch=true&allowWatchBookmarks=true&timeoutSeconds={WATCH}&resourceVersion={}",
            self.path(),
            encoded(version)
        );
        if let Some(selector) = selector {
            path.push_str("&labelSelector=");
            path.push_str(&encoded(selector));
        }
        let answer = match self.peer.get(&path).await {
            Ok(answer) => self.accepted("watch", answer).await,
            Err(why) => Err(self.broken("watch", &why)),
        };
        let mut answer = match answer {
            Ok(answer) => answer,
            Err(ended) => return ended,
        };
        let mut bytes: Vec<u8> = Vec::new();
        loop {
            let piece = match tokio::time::timeout(SILENCE, answer.piece()).await {
                Ok(Ok(Some(piece))) => piece,
                Ok(Ok(None)) if bytes.is_empty() => return Ended::Over,
                Ok(Ok(None)) => return self.broken("watch", "it ended in the middle of a change"),
                Ok(Err(why)) => return self.broken("watch", &why),
                Err(_) => return self.broken("watch", &format!("silent for {} s", SILENCE.as_secs())),
            };
            bytes.extend_from_slice(&piece);
            while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = bytes.drain(..=end).collect();
                match change(&line, slices, version) {
                    Ok(()) => self.tell(Some(slices.routed())),
                    Err(Ended::Broken(why)) => return self.broken("watch", &why),
                    Err(ended) => return ended,
                }
            }
            if bytes.len() > MOST_OF_A_CHANGE {
                return self.broken("watch", &format!("a change of more than {MOST_OF_A_CHANGE} bytes"));
            }
        }
    }

    /// The answer, if its status says yes.
    async fn accepted(&self, verb: &str, mut answer: Answer) -> Result<Answer, Ended> {
        if answer.status.is_success() {
            return Ok(answer);
        }
        let status = answer.status;
        let body = answer.whole(64 << 10).await.unwrap_or_default();
        let said: Value = serde_json::from_slice(&body).unwrap_or_default();
        let said: String = said["message"].as_str().unwrap_or("nothing more").chars().take(300).collect();
        Err(match status {
            StatusCode::GONE => Ended::Gone,
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Ended::Forbidden(format!(
                "may not {verb} {RESOURCE} in namespace {} ({}: {said}): give the pod's service account a Role with apiGroups \
                 [discovery.k8s.io], resources [endpointslices], verbs [list, watch]; going on with --min",
                self.watch.namespace,
                status.as_u16(),
            )),
            status => self.broken(verb, &format!("the answer was {}: {said}", status.as_u16())),
        })
    }

    fn broken(&self, verb: &str, why: &str) -> Ended {
        let (url, namespace) = (&self.watch.access.url, &self.watch.namespace);
        Ended::Broken(format!(
            "could not {verb} {RESOURCE} in namespace {namespace} at {url}: {why}; going on with --min, trying again"
        ))
    }

    fn tell(&mut self, routed: Option<Routed>) {
        if self.told != Known::Told(routed) {
            self.told = Known::Told(routed);
            (self.watch.tell)(Told::Routed(routed));
        }
    }

    fn warn(&mut self, why: &str) {
        if !std::mem::replace(&mut self.warned, true) {
            (self.watch.tell)(Told::Warn(why));
        }
    }
}

/// Takes one line of a watch in.
fn change(line: &[u8], slices: &mut Slices, version: &mut String) -> Result<(), Ended> {
    if line.trim_ascii().is_empty() {
        return Ok(());
    }
    let broken = |why: String| Ended::Broken(why);
    let event: Value =
        serde_json::from_slice(line).map_err(|error| broken(format!("a change that is no JSON: {error}")))?;
    let object = &event["object"];
    match event["type"].as_str().unwrap_or_default() {
        "ADDED" | "MODIFIED" => slices.put(object).map_err(|why| broken(why.to_string()))?,
        "DELETED" => slices.remove(object).map_err(|why| broken(why.to_string()))?,
        "BOOKMARK" => {}
        "ERROR" if object["code"] == 410 => return Err(Ended::Gone),
        "ERROR" => {
            return Err(broken(object["message"].as_str().unwrap_or("an error without a message").to_owned()));
        }
        other => return Err(broken(format!("a change of type {other:?}, which is none"))),
    }
    if let Some(newer) = object["metadata"]["resourceVersion"].as_str() {
        newer.clone_into(version);
    }
    Ok(())
}

/// A value in a query (RFC 3986 section 2.1).
fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ended(line: &str) -> String {
        let (mut slices, mut version) = (Slices::new(Who::default()), "1".to_owned());
        match change(line.as_bytes(), &mut slices, &mut version) {
            Ok(()) => version,
            Err(Ended::Gone) => "gone".to_owned(),
            Err(Ended::Broken(why)) => format!("broken: {why}"),
            Err(Ended::Over | Ended::Forbidden(_)) => "never".to_owned(),
        }
    }

    #[test]
    fn changes() {
        let check = |line: &str, expect: &str| assert_eq!(ended(line), expect, "{line}");
        check(r#"{"type":"ADDED","object":{"metadata":{"name":"a","resourceVersion":"7"}}}"#, "7");
        check(r#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"9"}}}"#, "9");
        check(r#"{"type":"DELETED","object":{"metadata":{"name":"a","resourceVersion":"8"}}}"#, "8");
        check(r#"{"type":"ERROR","object":{"code":410,"reason":"Expired"}}"#, "gone");
        check(r#"{"type":"ERROR","object":{"code":500,"message":"no"}}"#, "broken: no");
        check("\n", "1");
        assert!(ended("garbage").starts_with("broken: a change that is no JSON"));
        assert!(ended(r#"{"type":"PURPLE"}"#).starts_with("broken: a change of type \"PURPLE\""));
        assert!(ended(r#"{"type":"ADDED","object":{}}"#).starts_with("broken: an EndpointSlice without"));
    }

    #[test]
    fn queries() {
        assert_eq!(encoded("kubernetes.io/service-name in (a,b)"), "kubernetes.io%2Fservice-name%20in%20%28a%2Cb%29");
    }

    proptest! {
        #[test]
        fn arbitrary_lines_never_panic(line in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = change(&line, &mut Slices::new(Who::default()), &mut String::new());
        }
    }
}
