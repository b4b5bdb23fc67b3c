//! `kubectl lameduck`: which verb, which cluster, as whom.

mod check;
#[cfg(feature = "drill")]
mod drill;
#[cfg(feature = "explain")]
mod explain;
mod reports;

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lameduck_cluster::plugin;
use lameduck_cluster::plugin::kube::Kube;
use lameduck_cluster::plugin::kubeconfig::{self, Wanted};

use super::flag::{self, Failure, Flag, Given, Verb};
use crate::exit;

/// `lameduck kubectl`, and what kubectl starts for `kubectl lameduck`.
pub const VERB: Verb = Verb {
    name: "kubectl",
    summary: "The verbs on a live cluster: kubectl lameduck VERB, where this program is linked as kubectl-lameduck.",
    operands: "VERB [OPTIONS]",
    flags: COMMON,
    from_env: false,
    about: "Verbs:\n\
            \x20 check     Predict lost requests from the live objects of a namespace.\n\
            \x20 reports   Gather drain reports, and say what follows from them.\n\
            \x20 explain   Give every lost request of a namespace its cause.\n\
            \x20 drill     End pods of a live Deployment under load, and account for every request.\n\
            \nkubectl lameduck VERB --help tells more.\n",
    usage_status: exit::USAGE,
};

/// The verbs on a cluster, by the words that lead to each.
pub const VERBS: &[&Verb] = &[
    &check::VERB,
    &reports::VERB,
    #[cfg(feature = "explain")]
    &explain::VERB,
    #[cfg(feature = "drill")]
    &drill::VERB,
];

/// Which cluster, as whom, where.
pub(super) const COMMON: &[Flag] = &[
    Flag::value(
        "kubeconfig",
        "FILE",
        "The kubeconfig. Default: KUBECONFIG's files, else ~/.kube/config, else the pod's account.",
    ),
    Flag::value("context", "NAME", "The context of it. Default: the current one."),
    Flag::value("namespace", "NAME", "The namespace. Default: that of the context.").letter('n'),
    Flag::switch("all-namespaces", "All of them.").letter('A'),
];

/// Where Kubernetes puts the account of a pod (documentation, "Configure Service Accounts for Pods").
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Whether kubectl called it: plugins are found by their names.
pub fn is_meant(argv0: &OsStr) -> bool {
    Path::new(argv0).file_name().is_some_and(|name| name == "kubectl-lameduck" || name == "kubectl_lameduck")
}

/// Runs the verb.
pub fn kubectl(args: &[OsString], env: &impl Fn(&str) -> Option<OsString>) -> Result<u8, Failure> {
    let Some((verb, rest)) = split(args) else {
        let text = flag::help(&VERB);
        let asked = args.iter().any(|arg| arg == "--help" || arg == "-h");
        return Err(if asked { Failure::Help(text) } else { Failure::Error { message: text, status: exit::USAGE } });
    };
    match verb.to_str().unwrap_or_default() {
        "check" => check::check(&rest, env),
        "reports" => reports::reports(&rest, env),
        #[cfg(feature = "explain")]
        "explain" => explain::explain(&rest, env),
        #[cfg(feature = "drill")]
        "drill" => drill::drill(&rest, env),
        "help" => Err(Failure::Help(help(rest.first().and_then(|verb| verb.to_str())))),
        "version" => {
            println!("kubectl-lameduck {}", env!("CARGO_PKG_VERSION"));
            Ok(exit::OK)
        }
        unknown => {
            let words = VERBS.iter().filter_map(|verb| verb.name.split(' ').nth(1));
            let near =
                flag::nearest(unknown, words).map(|near| format!("; did you mean {near:?}?")).unwrap_or_default();
            let message = format!("{unknown:?} is no verb of kubectl lameduck{near}\n\n{}", flag::help(&VERB));
            Err(Failure::Error { message, status: exit::USAGE })
        }
    }
}

fn help(verb: Option<&str>) -> String {
    let found = VERBS.iter().find(|known| verb.is_some_and(|verb| known.name.ends_with(verb)));
    flag::help(found.copied().unwrap_or(&VERB))
}

/// The verb, and everything else: kubectl's people also write options before it.
fn split(args: &[OsString]) -> Option<(&OsString, Vec<OsString>)> {
    let ordered = flag::options_first(args, COMMON);
    let first = ordered.iter().position(|arg| arg == "--")? + 1;
    let verb = ordered.get(first)?;
    let at = args.iter().position(|arg| arg == verb)?;
    Some((&args[at], [&args[..at], &args[at + 1..]].concat()))
}

/// The cluster that is meant, and the namespace; none: all.
fn reach(given: &Given, env: &impl Fn(&str) -> Option<OsString>) -> Result<(Arc<Kube>, Option<String>), Failure> {
    let setup = |message: String| Failure::Error { message, status: exit::SETUP };
    let set = |name: &str| env(name).filter(|value| !value.is_empty());
    let files = match set("KUBECONFIG") {
        Some(paths) => std::env::split_paths(&paths).filter(|path| !path.as_os_str().is_empty()).collect(),
        None => set("HOME").map(|home| Path::new(&home).join(".kube/config")).into_iter().collect(),
    };
    let inside = set("KUBERNETES_SERVICE_HOST").and_then(|host| host.into_string().ok()).map(|host| {
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        let port =
            set("KUBERNETES_SERVICE_PORT").map_or_else(|| "443".into(), |port| port.to_string_lossy().into_owned());
        (format!("https://{host}:{port}"), PathBuf::from(ACCOUNT))
    });
    let wanted =
        Wanted { file: given.raw("kubeconfig").map(PathBuf::from), files, context: given.text("context")?, inside };
    let target = kubeconfig::target(&wanted).map_err(|error| setup(error.to_string()))?;
    let everywhere = given.switch("all-namespaces")?;
    let named = given.one("namespace", "the name of a namespace", |text| {
        let fits = !text.is_empty() && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        fits.then(|| text.to_owned())
    })?;
    if everywhere && named.is_some() {
        return Err(given.usage("--namespace and --all-namespaces exclude each other"));
    }
    let namespace = (!everywhere).then(|| named.unwrap_or_else(|| target.namespace.clone()));
    let kube = Kube::new(target).map_err(setup)?;
    Ok((Arc::new(kube), namespace))
}

/// Does the asynchronous part of a verb.
fn block<T, E: std::fmt::Display>(work: impl Future<Output = Result<T, E>>) -> Result<T, Failure> {
    let setup = |message: String| Failure::Error { message, status: exit::SETUP };
    let done = super::with_sockets(|| plugin::block(work)).map_err(|error| setup(format!("the runtime: {error}")))?;
    done.map_err(|error| setup(error.to_string()))
}

/// Writes an answer to a file, or to standard output.
fn write(given: &Given, text: &str) -> Result<(), Failure> {
    use std::io::Write;
    let (place, done) = if let Some(path) = given.raw("output").map(Path::new) {
        (path.display().to_string(), std::fs::write(path, text))
    } else {
        let mut out = std::io::stdout().lock();
        let done = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        // Whoever reads has seen enough.
        let enough = done.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe);
        ("standard output".to_owned(), if enough { Ok(()) } else { done })
    };
    let message = |error| format!("{place}: {error}; it could not be written");
    done.map_err(|error| Failure::Error { message: message(error), status: exit::SETUP })
}

/// Whether to write in colours.
fn color(given: &Given) -> bool {
    use std::io::IsTerminal;
    given.raw("output").is_none() && std::io::stdout().is_terminal() && super::no_color().is_none()
}
