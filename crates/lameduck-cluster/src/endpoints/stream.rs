//! One request to the API server whose answer is read as it comes: [`crate::http`] reads answers whole.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, AUTHORIZATION, HOST, HeaderValue, USER_AGENT};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use crate::api::Access;
use crate::http;

/// From the connect to the head of the answer.
const TO_ANSWER: Duration = Duration::from_secs(5);

/// The API server.
pub struct Peer {
    tls: TlsConnector,
    access: Access,
}

/// An answer that has begun.
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// The address from which it was asked: the pod's own.
    pub own_address: Option<IpAddr>,
    body: Incoming,
    connection: JoinHandle<()>,
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Peer {
    /// Nothing is asked yet.
    pub fn new(access: Access) -> Peer {
        let roots = CertificateDer::pem_slice_iter(&access.authorities).filter_map(Result::ok);
        Peer { tls: http::tls(roots), access }
    }

    /// Asks.
    pub async fn get(&self, path: &str) -> Result<Answer, String> {
        let asked = tokio::time::timeout(TO_ANSWER, self.ask(path)).await;
        asked.unwrap_or_else(|_| Err(format!("no answer for {} s", TO_ANSWER.as_secs())))
    }

    async fn ask(&self, path: &str) -> Result<Answer, String> {
        let token = &self.access.token;
        // It is replaced from time to time.
        let token = std::fs::read_to_string(token).map_err(|error| format!("{}: {error}", token.display()))?;
        let uri: Uri = self.access.url.parse().map_err(|error| format!("{}: {error}", self.access.url))?;
        let host = uri.host().ok_or("an address without a host")?;
        let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let stream = TcpStream::connect((bare.as_str(), uri.port_u16().unwrap_or(443))).await;
        let stream = stream.map_err(|error| format!("connect: {error}"))?;
        let own_address = stream.local_addr().ok().map(|address| address.ip().to_canonical());
        let name = ServerName::try_from(bare).map_err(|error| error.to_string())?;
        let stream = self.tls.connect(name, stream).await.map_err(|error| format!("TLS: {error}"))?;
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.uri_mut() = path.parse().map_err(|error| format!("{path}: {error}"))?;
        let value = |text: &str| HeaderValue::from_str(text).map_err(|_| "a header that can not be sent".to_owned());
        let authority = uri.authority().map_or(host, hyper::http::uri::Authority::as_str);
        for (field, text) in [
            (HOST, authority),
            (USER_AGENT, "lameduck"),
            (ACCEPT, "application/json"),
            (AUTHORIZATION, &format!("Bearer {}", token.trim())),
        ] {
            request.headers_mut().insert(field, value(text)?);
        }
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        let connection = tokio::spawn(async move {
            // How it ended, whoever reads the body is told.
            let _ = connection.await;
        });
        let (head, body) = sender.send_request(request).await.map_err(|error| error.to_string())?.into_parts();
        Ok(Answer { status: head.status, own_address, body, connection })
    }
}

impl Answer {
    /// The next piece of the body; `None` at its end.
    pub async fn piece(&mut self) -> Result<Option<Bytes>, String> {
        loop {
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(error)) => return Err(error.to_string()),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// The whole body, of at most so many bytes.
    pub async fn whole(&mut self, most: usize) -> Result<Vec<u8>, String> {
        let mut all = Vec::new();
        while let Some(piece) = self.piece().await? {
            all.extend_from_slice(&piece);
            if all.len() > most {
                return Err(format!("an answer of more than {most} bytes"));
            }
        }
        Ok(all)
    }
}
