//! The cluster: an admission webhook that puts lameduck into pods which ask for it, and says what would be lost as objects
//! are applied.
//!
//! [`inject::inject`] is the heart, and pure. Around it: [`review`] reads and writes what the API server says, [`webhook`] goes
//! from a question to an answer, [`serve`] is the server, [`keeper`] keeps its certificate good, [`registry`] asks what images
//! start. [`plugin`] is `kubectl lameduck`.

pub mod advise;
pub mod annotation;
pub mod api;
pub mod cert;
mod clock;
pub mod endpoints;
pub mod http;
pub mod image;
pub mod inject;
pub mod keeper;
pub mod patch;
pub mod plugin;
pub mod registry;
pub mod review;
pub mod serve;
pub mod webhook;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lameduck_core::Severity;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use api::{Access, Api};
use cert::Served;
use keeper::Source;
use registry::{Images, Registries};
use serve::Server;
use webhook::Webhook;

/// A registry's manifest or configuration has at most so many bytes.
const MOST_OF_A_REGISTRY: usize = 4 << 20;

/// What the webhook does.
#[derive(Debug)]
pub struct Options {
    /// Where API servers come in.
    pub listen: SocketAddr,
    /// Where probes come in.
    pub health: SocketAddr,
    /// What to put into pods.
    pub settings: inject::Settings,
    /// From which severity on objects are refused.
    pub enforce: Option<Severity>,
    /// The registries to ask; without any no image's command is looked up.
    pub registries: Registries,
    /// The API server; without it what namespaces say is not known.
    pub access: Option<Access>,
    /// Where the certificate comes from.
    pub certificate: Certificate,
    /// Who is told what happens.
    pub log: keeper::Log,
}

/// Where the certificate comes from.
#[derive(Debug)]
pub enum Certificate {
    /// It is made here, and kept in a Secret.
    Made {
        /// The Secret's namespace.
        namespace: String,
        /// The Secret.
        secret: String,
        /// The webhook configurations.
        configuration: String,
        /// What it is for.
        names: Vec<String>,
        /// For how long it is good.
        lifetime: Duration,
    },
    /// `tls.crt` and `tls.key` in this folder, which somebody else keeps.
    Folder(PathBuf),
}

/// Why there is no webhook.
#[derive(Debug, thiserror::Error)]
pub enum NotServing {
    /// The runtime did not start.
    #[error("the runtime: {0}")]
    Runtime(io::Error),
    /// An address is not to be had.
    #[error("{address}: {error}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// A certificate of our own needs the API server.
    #[error("a certificate is kept in a Secret, and no API server is known: give --tls-dir, or run in a cluster")]
    NoApi,
}

/// Serves until TERM or INT.
pub fn serve(options: Options) -> Result<(), NotServing> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(NotServing::Runtime)?;
    runtime.block_on(run(options))
}

async fn run(options: Options) -> Result<(), NotServing> {
    let mut terms = signal(SignalKind::terminate()).map_err(NotServing::Runtime)?;
    let mut interrupts = signal(SignalKind::interrupt()).map_err(NotServing::Runtime)?;
    let api = options.access.map(|access| Arc::new(Api::new(access)));
    let (source, every) = match options.certificate {
        Certificate::Folder(folder) => (Source::Folder(folder), keeper::LOOK_AT_FILES),
        Certificate::Made { namespace, secret, configuration, names, lifetime } => {
            let api = Arc::clone(api.as_ref().ok_or(NotServing::NoApi)?);
            let secret = keeper::Secret { api, namespace, name: secret, configuration, names, lifetime };
            (Source::Secret(secret), keeper::look_every(lifetime))
        }
    };
    let listener = bind(options.listen).await?;
    let health = bind(options.health).await?;
    let asks = !options.registries.hosts.is_empty() || !options.registries.plain.is_empty();
    let images = asks.then(|| {
        let roots = rustls_native_certs::load_native_certs();
        if roots.certs.is_empty() && options.registries.plain.is_empty() {
            (options.log)("no certificate authorities are installed: no registry can be asked what images start");
        }
        Images::new(options.registries, http::Client::new(roots.certs, MOST_OF_A_REGISTRY))
    });
    let pair = Arc::new(Served::default());
    let server = Server::new(Webhook::new(options.settings, images, api, options.enforce), Arc::clone(&pair));
    let (stop, stopped) = watch::channel(false);
    (options.log)(&format!("listening at {}, probes at {}", shown(&listener), shown(&health)));
    let keeper = tokio::spawn(keeper::keep(source, every, pair, options.log));
    let probes = tokio::spawn(Arc::clone(&server).serve_health(health));
    let serving = server.serve(listener, stopped);
    tokio::pin!(serving);
    tokio::select! {
        () = &mut serving => {}
        _ = terms.recv() => {}
        _ = interrupts.recv() => {}
    }
    (options.log)("leaving: what comes is still answered, until nobody comes");
    let _ = stop.send(true);
    serving.await;
    keeper.abort();
    probes.abort();
    (options.log)("gone");
    Ok(())
}

async fn bind(address: SocketAddr) -> Result<TcpListener, NotServing> {
    TcpListener::bind(address).await.map_err(|error| NotServing::Listen { address, error })
}

fn shown(listener: &TcpListener) -> String {
    listener.local_addr().map(|address| address.to_string()).unwrap_or_default()
}
