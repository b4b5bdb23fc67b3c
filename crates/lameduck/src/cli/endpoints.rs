//! The process behind `lameduck run --watch-endpoints`: started by PID 1, which reads what it writes line by line.

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::path::Path;

use lameduck_cluster::api::Access;
use lameduck_cluster::endpoints::{self, Routed, Task, Told, Watch, Who};
use lameduck_run::signal::Signal;
use lameduck_run::sys;

use super::flag::Failure;
use super::webhook::ACCOUNT;
use crate::exit;

/// The hidden verb; `check` or `watch` follows.
pub const VERB: &str = "serve-endpoints";

/// Watches, or sees whether it could.
pub fn serve_endpoints(args: &[OsString], env: &impl Fn(&str) -> Option<OsString>) -> Result<u8, Failure> {
    let wrong = |message: String| Failure::Error { message, status: exit::USAGE };
    let task = match args.first().and_then(|word| word.to_str()) {
        Some("check") => Task::Check,
        Some("watch") => Task::Watch,
        Some(_) | None => return Err(wrong(format!("{VERB} is for lameduck run --watch-endpoints only"))),
    };
    // It has no life of its own.
    let _ = sys::set_parent_death_signal(Signal::KILL);
    let watch = match watch(env) {
        Ok(watch) => watch,
        Err(why) => {
            tell(Told::Warn(&format!("{why}; going on with --min")));
            return Ok(exit::SETUP);
        }
    };
    super::with_sockets(|| endpoints::run(task, watch)).map_err(|error| wrong(error.to_string()))?;
    Ok(exit::OK)
}

/// One line each. Whoever does not read them any more has no need of this process.
fn tell(told: Told<'_>) {
    let line = |word: &str, text: &str| format!("{word} {}\n", text.replace(['\n', '\r'], " "));
    let line = match told {
        Told::Routed(routed) => format!("{}\n", routed.map_or("unknown", Routed::name)),
        Told::Say(text) => line("say", text),
        Told::Warn(text) => line("warn", text),
    };
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
}

/// What Kubernetes gives a pod: the API server by variables, its account by files, itself by the downward API, where that was asked
/// for.
fn watch(env: &impl Fn(&str) -> Option<OsString>) -> Result<Watch, String> {
    let text = |name: &str| env(name).and_then(|value| value.into_string().ok()).filter(|value| !value.is_empty());
    let host =
        text("KUBERNETES_SERVICE_HOST").ok_or("KUBERNETES_SERVICE_HOST is not set: this is no pod of Kubernetes")?;
    let port = text("KUBERNETES_SERVICE_PORT").unwrap_or_else(|| "443".to_owned());
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    let file = |name: &str| Path::new(ACCOUNT).join(name);
    let read = |name: &str| {
        let unread = |error| {
            format!(
                "{}: {error}: expected the pod's service account (automountServiceAccountToken)",
                file(name).display()
            )
        };
        fs::read(file(name)).map_err(unread)
    };
    let authorities = read("ca.crt")?;
    let namespace = text("POD_NAMESPACE").map_or_else(|| read("namespace"), |name| Ok(name.into_bytes()))?;
    let namespace = String::from_utf8_lossy(&namespace).trim().to_owned();
    if !namespace.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') || namespace.is_empty() {
        return Err(format!("{namespace:?} is no namespace: expected its name in {}", file("namespace").display()));
    }
    let addresses = [text("POD_IPS"), text("POD_IP")].into_iter().flatten().next().unwrap_or_default();
    let addresses = addresses.split(',').filter_map(|address| address.trim().parse::<IpAddr>().ok()).collect();
    Ok(Watch {
        access: Access { url: format!("https://{host}:{port}"), authorities, token: file("token") },
        namespace,
        who: Who { name: text("POD_NAME"), addresses },
        tell,
    })
}
