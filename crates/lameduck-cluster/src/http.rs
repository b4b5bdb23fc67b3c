//! A small HTTP client for two peers: the API server and registries. One connection for each request, bounded in bytes.
//!
//! It has no time limit of its own: whoever calls has one.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderMap, HeaderValue, USER_AGENT};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[error("{url}: {why}")]
pub struct Failed {
    /// What was asked.
    pub url: String,
    /// What went wrong.
    pub why: String,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its fields.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// Whom to trust.
#[derive(Clone)]
pub struct Client {
    tls: TlsConnector,
    most_bytes: usize,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("most_bytes", &self.most_bytes).finish_non_exhaustive()
    }
}

impl Client {
    /// Trusts these; an answer's body may have so many bytes.
    pub fn new(roots: impl IntoIterator<Item = CertificateDer<'static>>, most_bytes: usize) -> Client {
        Client { tls: tls(roots), most_bytes }
    }

    /// Asks, and reads the whole answer.
    pub async fn ask(
        &self,
        method: Method,
        url: &str,
        headers: &[(http::HeaderName, String)],
        body: Bytes,
    ) -> Result<Answer, Failed> {
        self.exchange(method, url, headers, body).await.map_err(|why| Failed { url: shortened(url), why })
    }

    async fn exchange(
        &self,
        method: Method,
        url: &str,
        headers: &[(http::HeaderName, String)],
        body: Bytes,
    ) -> Result<Answer, String> {
        let uri: Uri = url.parse().map_err(|error| format!("no address: {error}"))?;
        let host = uri.host().ok_or("an address without a host")?;
        let secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            other => return Err(format!("{} is not spoken here", other.unwrap_or("no scheme"))),
        };
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let stream = TcpStream::connect((bare, port)).await.map_err(|error| format!("connect: {error}"))?;
        let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().map_err(|error| format!("no address: {error}"))?;
        let authority = uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
        let value = |text: &str| HeaderValue::from_str(text).map_err(|_| "a header that can not be sent".to_owned());
        request.headers_mut().insert(HOST, value(authority)?);
        request.headers_mut().insert(USER_AGENT, HeaderValue::from_static("lameduck"));
        for (name, text) in headers {
            request.headers_mut().insert(name, value(text)?);
        }
        if secure {
            let name = ServerName::try_from(bare.to_owned()).map_err(|error| error.to_string())?;
            let stream = self.tls.connect(name, stream).await.map_err(|error| format!("TLS: {error}"))?;
            self.send(TokioIo::new(stream), request).await
        } else {
            self.send(TokioIo::new(stream), request).await
        }
    }

    async fn send<S>(&self, stream: S, request: Request<Full<Bytes>>) -> Result<Answer, String>
    where
        S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    {
        let (mut sender, connection) = http1::handshake(stream).await.map_err(|error| error.to_string())?;
        // It lives for this one exchange, and is polled beside it: nothing outlives the caller's patience.
        tokio::pin!(connection);
        let exchange = async {
            let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, self.most_bytes).collect().await.map_err(|error| error.to_string())?;
            Ok(Answer { status: head.status, headers: head.headers, body: body.to_bytes() })
        };
        tokio::pin!(exchange);
        let mut open = true;
        loop {
            tokio::select! {
                done = &mut exchange => return done,
                _ = &mut connection, if open => open = false,
            }
        }
    }
}

/// TLS to whom these vouch for.
///
/// # Panics
///
/// Where rustls and ring have no version of TLS in common: never.
pub(crate) fn tls(roots: impl IntoIterator<Item = CertificateDer<'static>>) -> TlsConnector {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(roots);
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has the versions that rustls has")
        .with_root_certificates(store)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

/// Without what may be secret, and not without end.
fn shortened(url: &str) -> String {
    url.split('?').next().unwrap_or_default().chars().take(200).collect()
}
