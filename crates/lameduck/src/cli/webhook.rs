//! `lameduck webhook`: from the command line to [`lameduck_cluster::Options`].

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lameduck_cluster::api::Access;
use lameduck_cluster::inject::Settings;
use lameduck_cluster::registry::{PUBLIC, Registries};
use lameduck_cluster::{Certificate, Options};

use super::flag::{self, Failure, Flag, Given, Verb};
use super::run;
use crate::exit;

/// `lameduck webhook`
pub const VERB: Verb = Verb {
    name: "webhook",
    summary: "Put lameduck into the pods of a cluster that ask for it, and say what would be lost as objects are applied.",
    operands: "",
    flags: FLAGS,
    from_env: false,
    about: "It runs in the cluster, below lameduck run; deploy/ has the manifests and a chart.\n\
            Exit status: 0 ended by TERM or INT, 2 usage, 4 what it needs could not be had.\n",
    usage_status: exit::USAGE,
};

const FLAGS: &[Flag] = &[
    Flag::value("image", "IMAGE", "The image with this program, for the init container that copies it. Needed."),
    Flag::value("listen", "ADDRESS", "Where API servers come in. Default: :8443."),
    Flag::value("health", "ADDRESS", "Where /livez, /readyz and /metrics are. Default: :8081."),
    Flag::list(
        "default",
        "OPTION=VALUE",
        "An option of lameduck run for every pod, as in log-format=json. May be repeated.",
    ),
    Flag::value(
        "enforce",
        "SEVERITY",
        "note, warning, error or off: from where on findings of lameduck check refuse an object that says nothing itself. \
         Default: off.",
    ),
    Flag::list(
        "registry",
        "HOST",
        "A registry to ask what images start; may be repeated. Default: the large public ones.",
    ),
    Flag::list("plain-registry", "HOST", "A registry to ask without TLS; may be repeated."),
    Flag::switch("no-registry", "Ask none: containers without a command are left alone."),
    Flag::value("service", "NAME", "The service that API servers come through. Default: lameduck-webhook."),
    Flag::value("namespace", "NAME", "Its namespace. Default: the one that the pod's account is of."),
    Flag::list("host", "NAME", "Another name or address that the certificate is for; may be repeated."),
    Flag::value("secret", "NAME", "The Secret that keeps the certificate. Default: lameduck-webhook."),
    Flag::value(
        "configuration",
        "NAME",
        "The webhook configurations to keep the CA bundle of. Default: lameduck-webhook.",
    ),
    Flag::value(
        "certificate-lifetime",
        "TIME",
        "How long a certificate is good; another is made after two thirds. Default: 2160h.",
    ),
    Flag::value(
        "tls-dir",
        "DIR",
        "Serve tls.crt and tls.key from there, kept by somebody else, and make no certificate.",
    ),
    Flag::value("api-server", "URL", "Default: the cluster's own (KUBERNETES_SERVICE_HOST)."),
    Flag::value("api-ca", "FILE", "The authorities of the API server's certificate. Default: the pod's account's."),
    Flag::value("api-token", "FILE", "A bearer token for the API server. Default: the pod's account's."),
];

/// Where Kubernetes puts the account of a pod (documentation, "Configure Service Accounts for Pods").
pub(super) const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const DEFAULT_NAME: &str = "lameduck-webhook";
const DEFAULT_LIFETIME: Duration = Duration::from_hours(90 * 24);
/// Below that it would be made anew all the time.
const SHORTEST_LIFETIME: Duration = Duration::from_secs(30);

/// Runs the verb.
pub fn webhook(args: &[OsString], env: &impl Fn(&str) -> Option<OsString>) -> Result<u8, Failure> {
    let given = flag::parse(&VERB, args, env)?;
    if let Some(word) = given.operands.first() {
        return Err(given.usage(format!("{} is one word too many: only options are expected", word.display())));
    }
    let options = options(&given, env)?;
    match super::with_sockets(|| lameduck_cluster::serve(options)) {
        Ok(()) => Ok(exit::OK),
        Err(error) => Err(Failure::Error { message: error.to_string(), status: exit::SETUP }),
    }
}

fn log(line: &str) {
    eprintln!("lameduck: webhook: {line}");
}

fn options(given: &Given, env: &impl Fn(&str) -> Option<OsString>) -> Result<Options, Failure> {
    let address = |long, default: &str| -> Result<_, Failure> {
        let address = given.one(long, "an address with a port, as in :8443 or 127.0.0.1:8443", run::address)?;
        address.or_else(|| run::address(default)).ok_or_else(|| given.usage("no address"))
    };
    let enforce = given.one("enforce", "note, warning, error or off", |text| match text {
        "off" => Some(None),
        text => lameduck_check::severity(text).map(Some),
    })?;
    Ok(Options {
        listen: address("listen", ":8443")?,
        health: address("health", ":8081")?,
        settings: settings(given)?,
        enforce: enforce.flatten(),
        registries: registries(given)?,
        access: access(given, env)?,
        certificate: certificate(given)?,
        log,
    })
}

fn settings(given: &Given) -> Result<Settings, Failure> {
    let image = given.text("image")?.filter(|image| !image.is_empty()).ok_or_else(|| {
        given.usage(
            "no --image was given: expected the image with this program, as in --image ghcr.io/OWNER/lameduck:0.1.0",
        )
    })?;
    let options: Vec<&'static str> = run::VERB.flags.iter().map(|flag| flag.long).collect();
    let known = |text: &str| {
        let (option, value) = text.split_once('=')?;
        options.contains(&option).then(|| (option.to_owned(), value.to_owned()))
    };
    let defaults =
        given.list("default", "OPTION=VALUE with an option of lameduck run, as in log-format=json", known)?;
    let defaults: BTreeMap<String, String> = defaults.into_iter().collect();
    let variables = |(option, value): (&String, &String)| {
        (format!("LAMEDUCK_{}", option.to_ascii_uppercase().replace('-', "_")), value.clone())
    };
    accept(&defaults.iter().map(variables).collect()).map_err(|why| given.usage(format!("--default: {why}")))?;
    Ok(Settings { image, defaults, options, accept })
}

/// Whether `lameduck run` would start with these variables.
pub fn accept(variables: &BTreeMap<String, String>) -> Result<(), String> {
    let env = |name: &str| variables.get(name).map(OsString::from);
    match run::options(&["true".into()], &env) {
        Ok(_) => Ok(()),
        Err(Failure::Help(_)) => Err("it asks for help".to_owned()),
        Err(Failure::Error { message, .. }) => Err(message.lines().next().unwrap_or_default().to_owned()),
    }
}

fn registries(given: &Given) -> Result<Registries, Failure> {
    let host = |text: &str| {
        let fits = |c: char| c.is_ascii_alphanumeric() || ".-:".contains(c);
        (!text.is_empty() && text.chars().all(fits)).then(|| text.to_ascii_lowercase())
    };
    let expected = "a registry as images name it, as in ghcr.io or registry.example:5000";
    let mut hosts = given.list("registry", expected, host)?;
    let plain = given.list("plain-registry", expected, host)?;
    if given.switch("no-registry")? {
        return Ok(Registries { hosts: Vec::new(), plain: Vec::new() });
    }
    if given.source("registry").is_none() {
        hosts = PUBLIC.map(str::to_owned).to_vec();
    }
    Ok(Registries { hosts, plain })
}

fn access(given: &Given, env: &impl Fn(&str) -> Option<OsString>) -> Result<Option<Access>, Failure> {
    let text = |name: &str| env(name).and_then(|value| value.into_string().ok()).filter(|value| !value.is_empty());
    let own = || {
        let host = text("KUBERNETES_SERVICE_HOST")?;
        let port = text("KUBERNETES_SERVICE_PORT").unwrap_or_else(|| "443".to_owned());
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        Some(format!("https://{host}:{port}"))
    };
    let Some(url) = given.text("api-server")?.or_else(own) else { return Ok(None) };
    let file = |long: &str, name: &str| given.raw(long).map_or_else(|| Path::new(ACCOUNT).join(name), PathBuf::from);
    let authorities = file("api-ca", "ca.crt");
    let authorities = fs::read(&authorities).map_err(|error| unread(&authorities, &error))?;
    Ok(Some(Access { url: url.trim_end_matches('/').to_owned(), authorities, token: file("api-token", "token") }))
}

fn unread(path: &Path, error: &std::io::Error) -> Failure {
    Failure::Error { message: format!("{}: {error}", path.display()), status: exit::SETUP }
}

fn certificate(given: &Given) -> Result<Certificate, Failure> {
    if let Some(folder) = given.raw("tls-dir") {
        return Ok(Certificate::Folder(folder.into()));
    }
    let name_of = |long| Ok(given.text(long)?.unwrap_or_else(|| DEFAULT_NAME.to_owned()));
    let namespace = if let Some(namespace) = given.text("namespace")? {
        namespace
    } else {
        let path = Path::new(ACCOUNT).join("namespace");
        let read = fs::read_to_string(&path).map_err(|error| {
            given.usage(format!("no --namespace was given, and {} could not be read: {error}", path.display()))
        });
        read?.trim().to_owned()
    };
    let service: String = name_of("service")?;
    let mut hosts = vec![format!("{service}.{namespace}.svc")];
    hosts.extend(given.list("host", "a name or an address", |text| (!text.is_empty()).then(|| text.to_owned()))?);
    let lifetime = given.duration("certificate-lifetime")?.unwrap_or(DEFAULT_LIFETIME);
    if lifetime < SHORTEST_LIFETIME {
        return Err(given.usage("--certificate-lifetime: expected at least 30s"));
    }
    let (secret, configuration) = (name_of("secret")?, name_of("configuration")?);
    Ok(Certificate::Made { namespace, secret, configuration, names: hosts, lifetime })
}
