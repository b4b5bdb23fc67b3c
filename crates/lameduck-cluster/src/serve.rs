//! The server: TLS for the API server, plain HTTP for probes.
//!
//! A connection that is older than [`AGE`] is ended by its next answer (`Connection: close`), never while it is idle: API
//! servers so spread over replicas anew all the time, and nobody sends to one that is about to leave. That, and not the end,
//! is what makes a rolling update cost nothing: `lameduck run` in front of it waits until nobody comes any more.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Incoming};
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use crate::cert::Served;
use crate::webhook::Webhook;

/// A connection older than this is ended by its next answer.
pub const AGE: Duration = Duration::from_secs(5);
/// How long an idle connection is kept: longer than an API server keeps it, 90 s (Go, `DefaultTransport.IdleConnTimeout`), so
/// that it is always the API server who closes. A head that comes slowly has as long.
const IDLE: Duration = Duration::from_mins(2);
/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// How long a body may take: API servers send it at once.
const BODY: Duration = Duration::from_secs(2);
/// The largest body: two objects of 3 MiB, the API server's limit of a request, and what is around them.
pub const MOST_BYTES: usize = 8 << 20;
const TOO_LARGE: &str = "expected a whole body of at most 8 MiB\n";
/// So many connections at once.
const CONNECTIONS: usize = 1024;
/// All bodies in memory, in KiB. What is made of one takes some four times as much.
const BODIES: usize = 40 << 10;
/// At the end: nobody came for so long.
const QUIET: Duration = Duration::from_millis(500);
/// At the end: at most so long.
const LEAVING: Duration = Duration::from_secs(10);

/// What all connections share.
#[derive(Debug)]
pub struct Server {
    webhook: Webhook,
    served: Arc<Served>,
    leaving: AtomicBool,
    in_flight: AtomicUsize,
    /// Milliseconds from the start to the last request.
    last: AtomicU64,
    start: Instant,
    bodies: Semaphore,
}

impl Server {
    /// Nothing is served yet.
    pub fn new(webhook: Webhook, served: Arc<Served>) -> Arc<Server> {
        Arc::new(Server {
            webhook,
            served,
            leaving: AtomicBool::new(false),
            in_flight: AtomicUsize::new(0),
            last: AtomicU64::new(0),
            start: Instant::now(),
            bodies: Semaphore::new(BODIES),
        })
    }

    /// Serves until `stop` is true and nobody comes any more.
    ///
    /// # Panics
    ///
    /// Where rustls and ring have no version of TLS in common: never.
    pub async fn serve(self: Arc<Server>, listener: TcpListener, mut stop: watch::Receiver<bool>) {
        let tls = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring has the versions that rustls has")
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&self.served) as Arc<_>);
        let tls = TlsAcceptor::from(Arc::new(tls));
        let slots = Arc::new(Semaphore::new(CONNECTIONS));
        // Dropped when the listener is, so that each connection ends as it becomes idle.
        let (ended, end) = watch::channel(false);
        let accept = async {
            loop {
                let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
                match listener.accept().await {
                    Ok((stream, _)) => {
                        let (server, tls, end) = (Arc::clone(&self), tls.clone(), end.clone());
                        tokio::spawn(async move {
                            let _slot = slot;
                            server.connection(stream, tls, end).await;
                        });
                    }
                    // Out of descriptors, or the client has gone: neither is the listener's end.
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        };
        tokio::select! {
            () = accept => {}
            () = self.nobody_comes(&mut stop) => {}
        }
        drop(listener);
        let _ = ended.send(true);
        let until = Instant::now() + LEAVING;
        while slots.available_permits() < CONNECTIONS && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn nobody_comes(&self, stop: &mut watch::Receiver<bool>) {
        if stop.wait_for(|stop| *stop).await.is_err() {
            // Nobody can stop it any more.
            std::future::pending::<()>().await;
        }
        self.leaving.store(true, Ordering::Relaxed);
        let began = Instant::now();
        while began.elapsed() < LEAVING {
            tokio::time::sleep(QUIET / 10).await;
            let last = self.start + Duration::from_millis(self.last.load(Ordering::Relaxed));
            if self.in_flight.load(Ordering::Relaxed) == 0 && last.max(began).elapsed() >= QUIET {
                return;
            }
        }
    }

    async fn connection(self: Arc<Server>, stream: TcpStream, tls: TlsAcceptor, mut end: watch::Receiver<bool>) {
        let _ = stream.set_nodelay(true);
        let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await else { return };
        let opened = Instant::now();
        let server = Arc::clone(&self);
        let service = service_fn(move |request| {
            let server = Arc::clone(&server);
            async move { Ok::<_, Infallible>(server.request(request, opened).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE)
            .max_buf_size(64 << 10)
            .serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        tokio::select! {
            _ = connection.as_mut() => return,
            _ = end.wait_for(|ended| *ended) => {}
        }
        connection.as_mut().graceful_shutdown();
        let _ = connection.await;
    }

    async fn request(&self, request: Request<Incoming>, opened: Instant) -> Response<Full<Bytes>> {
        let _counted = Counted::new(self);
        let mut response = self.review(request).await;
        if self.leaving.load(Ordering::Relaxed) || opened.elapsed() >= AGE {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    async fn review(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        if request.method() != Method::POST {
            return plain(StatusCode::METHOD_NOT_ALLOWED, "expected POST\n");
        }
        let path = request.uri().path().to_owned();
        // Without a length it may be as large as any.
        let length = request.body().size_hint().upper().unwrap_or(MOST_BYTES as u64);
        if length > MOST_BYTES as u64 {
            return closing(StatusCode::PAYLOAD_TOO_LARGE, TOO_LARGE);
        }
        let Ok(_room) = self.bodies.acquire_many(1 + (length >> 10) as u32).await else {
            return plain(StatusCode::SERVICE_UNAVAILABLE, "leaving\n");
        };
        let body = Limited::new(request.into_body(), MOST_BYTES).collect();
        let body = match tokio::time::timeout(BODY, body).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(_)) => return closing(StatusCode::PAYLOAD_TOO_LARGE, TOO_LARGE),
            Err(_) => return closing(StatusCode::REQUEST_TIMEOUT, "the body did not come\n"),
        };
        let (status, answer) = self.webhook.answer(&path, &body).await;
        let mut response = Response::new(Full::new(answer.into()));
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }

    /// Answers probes, for ever.
    pub async fn serve_health(self: Arc<Server>, listener: TcpListener) {
        let slots = Arc::new(Semaphore::new(32));
        loop {
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            };
            let server = Arc::clone(&self);
            tokio::spawn(async move {
                let _slot = slot;
                let service = service_fn(move |request: Request<Incoming>| {
                    let server = Arc::clone(&server);
                    async move { Ok::<_, Infallible>(server.health(request.uri().path())) }
                });
                let connection =
                    http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(stream), service);
                let _ = tokio::time::timeout(BODY, connection).await;
            });
        }
    }

    fn health(&self, path: &str) -> Response<Full<Bytes>> {
        match path {
            "/livez" => plain(StatusCode::OK, "alive\n"),
            // A certificate is all that it needs; leaving is no reason to fail: what comes is still answered.
            "/readyz" if self.served.is_set() => plain(StatusCode::OK, "ready\n"),
            "/readyz" => plain(StatusCode::SERVICE_UNAVAILABLE, "no certificate yet\n"),
            "/metrics" => plain(StatusCode::OK, &self.webhook.counts().metrics()),
            _ => plain(StatusCode::NOT_FOUND, "expected /livez, /readyz or /metrics\n"),
        }
    }
}

/// A request in flight.
struct Counted<'a>(&'a Server);

impl Counted<'_> {
    fn new(server: &Server) -> Counted<'_> {
        server.in_flight.fetch_add(1, Ordering::Relaxed);
        Counted(server)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.last.store(self.0.start.elapsed().as_millis() as u64, Ordering::Relaxed);
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

fn plain(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::copy_from_slice(text.as_bytes())));
    *response.status_mut() = status;
    response
}

/// What is left of the body is not read.
fn closing(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let mut response = plain(status, text);
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}
