//! What an API server does with objects, as far as the webhook counts on it: `resourceVersion` decides between two writers
//! (409), a JSON Patch is applied whole or not at all, and whoever has no token is turned away.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use lameduck_cluster::api::{Access, Api};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// Objects by path.
#[derive(Clone)]
pub struct ApiServer {
    objects: Arc<Mutex<BTreeMap<String, Value>>>,
    url: String,
    token: Arc<tempfile::NamedTempFile>,
}

impl ApiServer {
    pub async fn start() -> ApiServer {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let token = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(token.path(), "secret\n").unwrap();
        let server = ApiServer {
            objects: Arc::default(),
            url: format!("http://{}", listener.local_addr().unwrap()),
            token: Arc::new(token),
        };
        let serving = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let server = serving.clone();
                let service = service_fn(move |request| {
                    let server = server.clone();
                    async move { Ok::<_, Infallible>(server.answer(request).await) }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        server
    }

    pub fn access(&self) -> Arc<Api> {
        let token = self.token.path().to_owned();
        Arc::new(Api::new(Access { url: self.url.clone(), authorities: Vec::new(), token }))
    }

    pub fn put(&self, path: &str, mut object: Value) {
        let mut objects = self.objects.lock().unwrap();
        let next = version(objects.get(path)) + 1;
        object["metadata"]["resourceVersion"] = json!(next.to_string());
        objects.insert(path.to_owned(), object);
    }

    pub fn get(&self, path: &str) -> Value {
        self.objects.lock().unwrap()[path].clone()
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let body: Value = serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap_or_default();
        if head.headers.get("authorization").is_none_or(|token| token != "Bearer secret") {
            return status(401, json!({"message": "Unauthorized"}));
        }
        let path = head.uri.path().to_owned();
        let Some(known) = self.objects.lock().unwrap().get(&path).cloned() else {
            return status(404, json!({"message": format!("{path} not found")}));
        };
        let kind = head.headers.get("content-type").map(|kind| kind.to_str().unwrap().to_owned()).unwrap_or_default();
        let after = match (&head.method, kind.as_str()) {
            (&Method::GET, "") => return status(200, known),
            (&Method::PUT, "application/json") => {
                if body["metadata"]["resourceVersion"] != known["metadata"]["resourceVersion"] {
                    return status(409, json!({"message": "the object has been modified"}));
                }
                body
            }
            (&Method::PATCH, "application/json-patch+json") => {
                let mut after = known;
                match serde_json::from_value::<json_patch::Patch>(body)
                    .map(|patch| json_patch::patch(&mut after, &patch))
                {
                    Ok(Ok(())) => after,
                    Ok(Err(_)) | Err(_) => return status(422, json!({"message": "the patch does not apply"})),
                }
            }
            (_, _) => return status(405, json!({"message": "not allowed"})),
        };
        self.put(&path, after);
        status(200, self.get(&path))
    }
}

fn version(object: Option<&Value>) -> u64 {
    object.and_then(|object| object["metadata"]["resourceVersion"].as_str()?.parse().ok()).unwrap_or(0)
}

fn status(status: u16, body: Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.to_string().into()));
    *response.status_mut() = hyper::StatusCode::from_u16(status).unwrap();
    response
}
