//! Real nginx in the node, before the pods of a drill. It is told of their endpoints as they come and go, by a file that it includes and
//! a reload, as ingress controllers tell it.

use std::collections::BTreeSet;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use lameduck_core::duration::show;
use lameduck_pod::Signal;

use super::stage::{Broken, started};
use super::{disk, node};

/// How often the endpoints are looked at.
const LOOK: Duration = Duration::from_millis(10);
/// How long nginx may take to listen, and to end once told.
const PATIENCE: Duration = Duration::from_secs(10);
/// What it writes, below its folder.
pub const ACCESS: &str = "nginx-access.log";
/// See [`ACCESS`].
pub const ERRORS: &str = "nginx-error.log";

/// Where nginx listens, by its configuration.
pub fn address() -> SocketAddr {
    SocketAddr::from((node::ADDRESS, 80))
}

/// It runs, and ends with this.
pub struct Ingress {
    master: Child,
    over: Arc<AtomicBool>,
    follower: Option<JoinHandle<()>>,
}

impl Ingress {
    /// Starts nginx with a configuration below `folder`, its upstream being these pods until all of them had an endpoint in `endpoints`,
    /// and from then on whoever has one.
    pub fn start(
        config: &Path,
        upstream: &'static str,
        folder: &Path,
        pods: &[SocketAddr],
        endpoints: PathBuf,
    ) -> Result<Ingress, Broken> {
        disk::folder(folder)?;
        disk::copy(config, &folder.join("nginx.conf"))?;
        let first: BTreeSet<String> = pods.iter().map(SocketAddr::to_string).collect();
        let list = folder.join("upstream.conf");
        disk::write(&list, &block(upstream, &first))?;
        let errors = folder.join(ERRORS);
        let mut command = Command::new("nginx");
        command.arg("-p").arg(folder).arg("-e").arg(&errors).args(["-c", "nginx.conf"]);
        // Its error log has local times, and no zone.
        command.env("TZ", "UTC").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let master = started("nginx", command.spawn())?;
        let mut ingress = Ingress { master, over: Arc::default(), follower: None };
        let began = Instant::now();
        while TcpStream::connect_timeout(&address(), LOOK).is_err() {
            let ended = ingress.master.try_wait().ok().flatten();
            if ended.is_some() || began.elapsed() > PATIENCE {
                let said = fs::read_to_string(&errors).unwrap_or_default();
                let how = ended.map_or_else(
                    || format!("does not listen at {} after {}", address(), show(PATIENCE)),
                    |status| format!("ended at once: {status}"),
                );
                return Err(Broken(format!("nginx {how}; {}: {}", errors.display(), said.trim())));
            }
            thread::sleep(LOOK);
        }
        let (over, master) = (Arc::clone(&ingress.over), ingress.master.id());
        ingress.follower = Some(thread::spawn(move || follow(&over, master, upstream, &list, first, &endpoints)));
        Ok(ingress)
    }
}

impl Drop for Ingress {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(follower) = self.follower.take() {
            // It holds nothing that a panic could leave behind.
            let _ = follower.join();
        }
        // QUIT waits for its workers, so that its logs are whole.
        lameduck_pod::signal(self.master.id() as i32, Signal::QUIT);
        let began = Instant::now();
        while matches!(self.master.try_wait(), Ok(None)) && began.elapsed() < PATIENCE {
            thread::sleep(LOOK);
        }
        let _ = self.master.kill().and_then(|()| self.master.wait());
    }
}

/// Tells nginx of each change, for as long as the drill lasts.
fn follow(over: &AtomicBool, master: u32, name: &str, list: &Path, first: BTreeSet<String>, endpoints: &Path) {
    let (mut known, mut whole) = (first, false);
    while !over.load(Ordering::Relaxed) {
        thread::sleep(LOOK);
        let now = listed(endpoints);
        whole |= known.is_subset(&now);
        // nginx does not start with an upstream that has no server.
        if whole && now != known && !now.is_empty() && disk::write(list, &block(name, &now)).is_ok() {
            lameduck_pod::signal(master as i32, Signal::HUP);
            known = now;
        }
    }
}

/// The endpoints: a file for each, whose name does not begin with a dot once it is whole.
fn listed(endpoints: &Path) -> BTreeSet<String> {
    let Ok(entries) = fs::read_dir(endpoints) else { return BTreeSet::new() };
    let whole = entries.flatten().filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'));
    // One that goes while it is read is gone.
    whole.filter_map(|entry| Some(fs::read_to_string(entry.path()).ok()?.trim().to_owned())).collect()
}

/// nginx's upstream. A server that failed is asked again: behind a Service there is no other to be asked.
fn block(name: &str, servers: &BTreeSet<String>) -> String {
    let servers = servers.iter().fold(String::new(), |all, server| all + &format!("  server {server} max_fails=0;\n"));
    format!("upstream {name} {{\n{servers}}}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_whole_is_listed() {
        let dir = tempfile::tempdir().unwrap();
        assert!(listed(&dir.path().join("none")).is_empty());
        disk::write(&dir.path().join("shop-b"), "10.88.1.11:5000\n").unwrap();
        disk::write(&dir.path().join("shop-a"), "10.88.1.10:5000\n").unwrap();
        disk::write(&dir.path().join(".shop-c"), "10.88.1.1").unwrap();
        assert_eq!(
            block("shop", &listed(dir.path())),
            "upstream shop {\n  server 10.88.1.10:5000 max_fails=0;\n  server 10.88.1.11:5000 max_fails=0;\n}\n"
        );
    }
}
