//! The API server, asked as kubectl asks it. Every request has ten seconds until its answer begins, and says, where it fails,
//! whom was asked for what, and what to do.

use std::io::ErrorKind;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

pub use super::ask::{Ask, Refused, escaped};
use super::credential::{self, Shown};
use super::kubeconfig::Target;
use super::resource::Resource;
use super::tls;

/// Until an answer begins, and for one that is read as a whole also until its end.
pub const LIMIT: Duration = Duration::from_secs(10);
/// Objects are asked for in portions, as kubectl does.
const PORTION: usize = 500;
/// A portion of objects has at most so many bytes: 500 of etcd's largest would be more, and are no cluster's.
const MOST_BYTES: usize = 256 << 20;

/// A body, and what it is.
pub type Body<'a> = Option<(&'static str, &'a Value)>;

/// The API server.
#[derive(Debug)]
pub struct Kube {
    target: Target,
    session: Mutex<Session>,
}

#[derive(Clone)]
struct Session {
    tls: TlsConnector,
    token: Option<String>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

impl Session {
    fn begin(target: &Target) -> Result<Session, String> {
        let shown: Shown = credential::shown(&target.user)?;
        let tls = TlsConnector::from(tls::config(target, &shown)?);
        Ok(Session { tls, token: shown.token })
    }
}

impl Kube {
    /// Nothing is asked yet, but a credential plugin.
    ///
    /// # Errors
    ///
    /// Where the credentials can not be had.
    pub fn new(target: Target) -> Result<Kube, String> {
        let session = Mutex::new(Session::begin(&target)?);
        Ok(Kube { target, session })
    }

    /// The API server.
    pub fn server(&self) -> &str {
        &self.target.server
    }

    /// The namespace where nothing else is said.
    pub fn namespace(&self) -> &str {
        &self.target.namespace
    }

    pub(super) fn failed(&self, ask: &Ask<'_>, why: impl Into<String>) -> Refused {
        Refused::Failed { server: self.target.server.clone(), what: ask.words(), why: why.into() }
    }

    /// Asks, and gives what it says as a whole.
    pub async fn json(&self, ask: &Ask<'_>, query: &str, body: Body<'_>) -> Result<Value, Refused> {
        let whole = async {
            let answer = self.open(ask, query, &[], body).await?;
            let bytes = self.bytes(ask, answer, MOST_BYTES).await?;
            serde_json::from_slice(&bytes).map_err(|error| self.failed(ask, format!("its answer is not JSON: {error}")))
        };
        tokio::time::timeout(LIMIT, whole).await.map_err(|_| self.late(ask))?
    }

    fn late(&self, ask: &Ask<'_>) -> Refused {
        let why = format!(
            "no answer within {} s; is it reached from here (`kubectl get --raw /readyz`), or is it overloaded?",
            LIMIT.as_secs()
        );
        self.failed(ask, why)
    }

    async fn bytes(&self, ask: &Ask<'_>, mut answer: Response<Incoming>, most: usize) -> Result<Vec<u8>, Refused> {
        let mut bytes = Vec::new();
        while let Some(frame) = answer.body_mut().frame().await {
            let frame = frame.map_err(|error| self.failed(ask, format!("its answer broke off: {error}")))?;
            bytes.extend_from_slice(frame.data_ref().map(Bytes::as_ref).unwrap_or_default());
            if bytes.len() > most {
                return Err(self.failed(ask, format!("its answer has more than {} MiB", most >> 20)));
            }
        }
        Ok(bytes)
    }

    /// All objects of a kind, with their kind written into them. `selector` is one of labels, or empty.
    pub async fn list(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        selector: &str,
    ) -> Result<Vec<Value>, Refused> {
        let ask = Ask { verb: "list", resource, sub: "", namespace, name: None };
        let mut all = Vec::new();
        let mut next = String::new();
        loop {
            let mut query = format!("limit={PORTION}");
            if !selector.is_empty() {
                query = format!("{query}&labelSelector={}", escaped(selector));
            }
            if !next.is_empty() {
                query = format!("{query}&continue={}", escaped(&next));
            }
            let mut list = self.json(&ask, &query, None).await?;
            let items = list["items"].as_array_mut().map(std::mem::take).unwrap_or_default();
            for mut item in items {
                if let Some(object) = item.as_object_mut() {
                    object.insert("apiVersion".to_owned(), resource.api_version().into());
                    object.insert("kind".to_owned(), resource.kind.into());
                }
                all.push(item);
            }
            list["metadata"]["continue"].as_str().unwrap_or_default().clone_into(&mut next);
            if next.is_empty() {
                return Ok(all);
            }
        }
    }

    /// A text as a whole, its last `most` bytes at the most being asked for by whoever asks.
    pub async fn text(&self, ask: &Ask<'_>, query: &str, most: usize) -> Result<String, Refused> {
        let whole = async {
            let answer = self.open(ask, query, &[], None).await?;
            let bytes = self.bytes(ask, answer, most).await?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        tokio::time::timeout(LIMIT, whole).await.map_err(|_| self.late(ask))?
    }

    /// The lines of an answer that goes on, until it ends or nobody wants more.
    pub async fn lines(&self, ask: &Ask<'_>, query: &str, mut take: impl FnMut(&str) -> bool) -> Result<(), Refused> {
        let opened = tokio::time::timeout(LIMIT, self.open(ask, query, &[], None)).await;
        let mut answer = opened.map_err(|_| self.late(ask))??;
        let mut rest: Vec<u8> = Vec::new();
        while let Some(frame) = answer.body_mut().frame().await {
            let frame = frame.map_err(|error| self.failed(ask, format!("its answer broke off: {error}")))?;
            rest.extend_from_slice(frame.data_ref().map(Bytes::as_ref).unwrap_or_default());
            let mut from = 0;
            while let Some(end) = rest[from..].iter().position(|byte| *byte == b'\n') {
                if !take(&String::from_utf8_lossy(&rest[from..from + end])) {
                    return Ok(());
                }
                from += end + 1;
            }
            rest.drain(..from);
            if rest.len() > MOST_BYTES {
                return Err(self.failed(ask, format!("a line of more than {} MiB", MOST_BYTES >> 20)));
            }
        }
        if !rest.is_empty() {
            take(&String::from_utf8_lossy(&rest));
        }
        Ok(())
    }

    /// Asks; gives the beginning of the answer where it is a good one.
    pub(super) async fn open(
        &self,
        ask: &Ask<'_>,
        query: &str,
        headers: &[(HeaderName, HeaderValue)],
        body: Body<'_>,
    ) -> Result<Response<Incoming>, Refused> {
        let mut renewed = false;
        loop {
            let session = self.session.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let sent = self.send(&session, ask, query, headers, body).await;
            let answer = sent.map_err(|why| self.failed(ask, why))?;
            if answer.status().is_success() || answer.status() == StatusCode::SWITCHING_PROTOCOLS {
                return Ok(answer);
            }
            let user = &self.target.user;
            // What a file or a program gives is good for a time.
            let can_renew = user.token_file.is_some() || user.exec.is_some();
            if answer.status() == StatusCode::UNAUTHORIZED && can_renew && !renewed {
                let session = Session::begin(&self.target).map_err(|why| self.failed(ask, why))?;
                *self.session.lock().unwrap_or_else(PoisonError::into_inner) = session;
                renewed = true;
                continue;
            }
            return Err(self.refused(ask, answer).await);
        }
    }

    async fn refused(&self, ask: &Ask<'_>, answer: Response<Incoming>) -> Refused {
        let status = answer.status().as_u16();
        let bytes = self.bytes(ask, answer, 1 << 20).await.unwrap_or_default();
        let said: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let said = said["message"].as_str().map_or_else(|| String::from_utf8_lossy(&bytes).into_owned(), str::to_owned);
        let message: String = said.trim().chars().take(400).collect();
        let (server, what) = (self.target.server.clone(), ask.words());
        // An eviction may be refused with 403 by others than those who look after rights.
        if status == 403 && (ask.sub != "eviction" || message.contains("cannot")) {
            let sub = if ask.sub.is_empty() { String::new() } else { format!("/{}", ask.sub) };
            let group = ask.resource.group;
            let of_group = if group.is_empty() { String::new() } else { format!(" of group `{group}`") };
            // A WebSocket takes two verbs, of which it names the one that is missing.
            let named = message.split_once("cannot ").and_then(|(_, rest)| rest.split_once(' ')).map(|(verb, _)| verb);
            let verb = named.unwrap_or(ask.verb);
            let right = format!("verb `{verb}` on resource `{}{sub}`{of_group}{}", ask.resource.plural, ask.place());
            return Refused::Forbidden { server, what, right, message };
        }
        let hint = match status {
            401 => {
                "; it does not know who asks: the credentials of this context are missing or have expired (`kubectl auth whoami`)"
            }
            429 | 503 => "; it is busy: ask again in a moment",
            _ => "",
        };
        Refused::Status { server, what, status, message, hint }
    }

    async fn send(
        &self,
        session: &Session,
        ask: &Ask<'_>,
        query: &str,
        headers: &[(HeaderName, HeaderValue)],
        body: Body<'_>,
    ) -> Result<Response<Incoming>, String> {
        let uri: Uri = self.target.server.parse().map_err(|error| format!("no address: {error}"))?;
        let host = uri.host().ok_or("an address without a host")?;
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let secure = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let stream = TcpStream::connect((bare, port)).await.map_err(|error| {
            let hint = match error.kind() {
                ErrorKind::ConnectionRefused => {
                    "nothing listens there: is the cluster up, and is it the right --context?"
                }
                _ => "is the server's name right, and is it reached from here?",
            };
            format!("connect: {error}; {hint}")
        })?;
        let request = request(&uri, session, ask, query, headers, body)?;
        if !secure {
            return exchange(TokioIo::new(stream), request).await;
        }
        let name = self.target.tls_name.as_deref().unwrap_or(bare).to_owned();
        let name = ServerName::try_from(name).map_err(|error| error.to_string())?;
        let stream = session.tls.connect(name, stream).await.map_err(|error| {
            format!("TLS: {error}; does certificate-authority of this context belong to this server?")
        })?;
        exchange(TokioIo::new(stream), request).await
    }
}

fn request(
    server: &Uri,
    session: &Session,
    ask: &Ask<'_>,
    query: &str,
    headers: &[(HeaderName, HeaderValue)],
    body: Body<'_>,
) -> Result<Request<Full<Bytes>>, String> {
    let mut path = format!("{}{}", server.path().trim_end_matches('/'), ask.path());
    if !query.is_empty() {
        path = format!("{path}?{query}");
    }
    let method = match (ask.verb, ask.sub) {
        // A WebSocket begins with GET.
        ("create", "exec" | "attach") => Method::GET,
        ("create", _) => Method::POST,
        ("patch", _) => Method::PATCH,
        ("delete", _) => Method::DELETE,
        _ => Method::GET,
    };
    let value = |text: &str| HeaderValue::from_str(text).map_err(|_| "a header that can not be sent".to_owned());
    let bytes = body.map(|(_, value)| serde_json::to_vec(value)).transpose().map_err(|error| error.to_string())?;
    let mut request = Request::new(Full::new(Bytes::from(bytes.unwrap_or_default())));
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().map_err(|error| format!("no address: {error}"))?;
    let own = request.headers_mut();
    own.insert(HOST, value(server.authority().map(http::uri::Authority::as_str).unwrap_or_default())?);
    own.insert(USER_AGENT, HeaderValue::from_static(concat!("kubectl-lameduck/", env!("CARGO_PKG_VERSION"))));
    own.insert(ACCEPT, HeaderValue::from_static("application/json, */*"));
    if let Some((kind, _)) = body {
        own.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    }
    if let Some(token) = &session.token {
        own.insert(AUTHORIZATION, value(&format!("Bearer {token}"))?);
    }
    for (name, value) in headers {
        own.insert(name.clone(), value.clone());
    }
    Ok(request)
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, String>
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(stream).await.map_err(|error| error.to_string())?;
    // It ends with the answer: nobody has the sender any more.
    tokio::spawn(connection.with_upgrades());
    sender.send_request(request).await.map_err(|error| format!("it closed the connection: {error}"))
}
