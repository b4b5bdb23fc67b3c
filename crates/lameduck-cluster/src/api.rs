//! The Kubernetes API, as far as the webhook needs it: four paths, by name, with the pod's own account.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;

use crate::http::Client;

/// A request to the API server takes at most so long.
const LIMIT: Duration = Duration::from_secs(10);
/// A Secret or namespace has at most 1.5 MiB (etcd's limit of a request).
const MOST_BYTES: usize = 4 << 20;

/// Where the API server is, and who asks.
#[derive(Debug, Clone)]
pub struct Access {
    /// `https://HOST:PORT`.
    pub url: String,
    /// The authorities of its certificate, PEM.
    pub authorities: Vec<u8>,
    /// A file with a bearer token; it is replaced from time to time, so it is read each time.
    pub token: PathBuf,
}

/// What the API server did not do.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// It said no.
    #[error("{path}: the API server answered {status}: {message}")]
    Status {
        /// What was asked for.
        path: String,
        /// The status.
        status: u16,
        /// What it said.
        message: String,
    },
    /// It did not say anything of use.
    #[error("{path}: {why}")]
    Failed {
        /// What was asked for.
        path: String,
        /// What went wrong.
        why: String,
    },
}

impl Refused {
    /// The status, where there is one.
    pub fn status(&self) -> Option<u16> {
        match self {
            Refused::Status { status, .. } => Some(*status),
            Refused::Failed { .. } => None,
        }
    }
}

/// The API server.
#[derive(Debug)]
pub struct Api {
    access: Access,
    client: Client,
}

impl Api {
    /// Nothing is asked yet.
    pub fn new(access: Access) -> Api {
        let roots: Vec<_> = CertificateDer::pem_slice_iter(&access.authorities).filter_map(Result::ok).collect();
        Api { client: Client::new(roots, MOST_BYTES), access }
    }

    /// Reads an object.
    pub async fn get(&self, path: &str) -> Result<Value, Refused> {
        self.ask(Method::GET, path, None).await
    }

    /// Replaces an object. With its `resourceVersion` in it, only if nobody else has meanwhile: 409.
    pub async fn replace(&self, path: &str, object: &Value) -> Result<Value, Refused> {
        self.ask(Method::PUT, path, Some(("application/json", object))).await
    }

    /// Changes an object by a JSON Patch.
    pub async fn patch(&self, path: &str, operations: &Value) -> Result<Value, Refused> {
        self.ask(Method::PATCH, path, Some(("application/json-patch+json", operations))).await
    }

    async fn ask(&self, method: Method, path: &str, body: Option<(&str, &Value)>) -> Result<Value, Refused> {
        let failed = |why: String| Refused::Failed { path: path.to_owned(), why };
        let token = std::fs::read_to_string(&self.access.token)
            .map_err(|error| failed(format!("{}: {error}", self.access.token.display())))?;
        let mut headers =
            vec![(ACCEPT, "application/json".to_owned()), (AUTHORIZATION, format!("Bearer {}", token.trim()))];
        let mut bytes = Bytes::new();
        if let Some((kind, value)) = body {
            headers.push((CONTENT_TYPE, kind.to_owned()));
            bytes = serde_json::to_vec(value).map_err(|error| failed(error.to_string()))?.into();
        }
        let url = format!("{}{path}", self.access.url);
        let answer = tokio::time::timeout(LIMIT, self.client.ask(method, &url, &headers, bytes)).await;
        let answer = answer
            .map_err(|_| failed(format!("the API server did not answer for {} s", LIMIT.as_secs())))?
            .map_err(|error| failed(error.why))?;
        let json: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        if answer.status.is_success() {
            return Ok(json);
        }
        let message = json.get("message").and_then(Value::as_str).unwrap_or("nothing more");
        let (status, message) = (answer.status.as_u16(), message.chars().take(300).collect());
        Err(Refused::Status { path: path.to_owned(), status, message })
    }
}
