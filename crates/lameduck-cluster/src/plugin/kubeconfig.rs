//! Which cluster, as whom: kubeconfig files as kubectl reads them (`client-go/tools/clientcmd`), else the pod's own account.
//!
//! Of several files the first that sets a value wins; a path in a file is relative to that file's folder.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

/// What the command line and the environment say.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// `--kubeconfig`: this file, and no other.
    pub file: Option<PathBuf>,
    /// `KUBECONFIG`'s files, else `~/.kube/config`. Those that do not exist are passed over.
    pub files: Vec<PathBuf>,
    /// `--context`.
    pub context: Option<String>,
    /// The API server and the folder of the pod's account, where this runs in a cluster.
    pub inside: Option<(String, PathBuf)>,
}

/// The cluster, and as whom it is asked.
#[derive(Debug, Clone, Default)]
pub struct Target {
    /// `https://HOST:PORT`, and a path where the server is behind one.
    pub server: String,
    /// The authorities of its certificate, PEM; without any those of the system.
    pub authorities: Option<Vec<u8>>,
    /// The certificate is not looked at.
    pub insecure: bool,
    /// What the certificate is for, where that is not the host.
    pub tls_name: Option<String>,
    /// The namespace where nothing else is said.
    pub namespace: String,
    /// As whom.
    pub user: User,
}

/// As whom.
#[derive(Debug, Clone, Default)]
pub struct User {
    /// A bearer token.
    pub token: Option<String>,
    /// A file with one, which is replaced from time to time.
    pub token_file: Option<PathBuf>,
    /// A client certificate and its key, PEM.
    pub certificate: Option<(Vec<u8>, Vec<u8>)>,
    /// A program that knows.
    pub exec: Option<Exec>,
}

/// A credential plugin: <https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins>.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exec {
    /// The version that it speaks.
    pub version: String,
    /// A name that is looked for as the shell does, or a path.
    pub command: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// What its environment has beside ours.
    pub env: Vec<(String, String)>,
    /// What to do where it is missing.
    pub hint: Option<String>,
    /// It may ask on the terminal.
    pub interactive: bool,
    /// It is told of the cluster: what it wants, as JSON.
    pub cluster: Option<Value>,
}

/// Why it is not known which cluster, or as whom.
#[derive(Debug, thiserror::Error)]
pub enum NoTarget {
    /// A file can not be read.
    #[error("{path}: {why}; expected a kubeconfig file, as `kubectl config view` shows it")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// There is none.
    #[error(
        "no cluster is known: there is no {looked}, and this does not run in a pod with an account; \
         give --kubeconfig FILE or set KUBECONFIG"
    )]
    Nowhere {
        /// Where it was looked for.
        looked: String,
    },
    /// What is named does not exist.
    #[error("kubeconfig: there is no {kind} {name:?}; there is {known}")]
    Unknown {
        /// context, cluster or user
        kind: &'static str,
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// No context is chosen.
    #[error("kubeconfig: no context is current and none was given: expected --context NAME, one of {known}")]
    NoContext {
        /// What there is.
        known: String,
    },
    /// Something is written that is not followed here.
    #[error("kubeconfig: {what}")]
    Unsupported {
        /// What, and what to do.
        what: String,
    },
}

/// A list of the file, each with the folder that its paths are relative to.
#[derive(Debug, Default)]
struct Merged {
    contexts: Vec<(String, Value)>,
    clusters: Vec<(String, Value, PathBuf)>,
    users: Vec<(String, Value, PathBuf)>,
    current: Option<String>,
}

/// The cluster that is meant.
pub fn target(wanted: &Wanted) -> Result<Target, NoTarget> {
    let files = match &wanted.file {
        Some(file) => vec![file.clone()],
        None => wanted.files.iter().filter(|file| file.exists()).cloned().collect(),
    };
    if files.is_empty() {
        return inside(wanted);
    }
    let mut merged = Merged::default();
    for file in &files {
        merged.add(file)?;
    }
    let names = |list: &mut dyn Iterator<Item = &String>| {
        let names: Vec<&str> = list.map(String::as_str).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    };
    let known = names(&mut merged.contexts.iter().map(|(name, _)| name));
    let name = wanted.context.clone().or(merged.current.clone()).filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| NoTarget::NoContext { known: known.clone() })?;
    let context = merged.contexts.iter().find(|(own, _)| *own == name).map(|(_, context)| context);
    let context = context.ok_or(NoTarget::Unknown { kind: "context", name, known })?;
    let wants = |key: &str| context[key].as_str().unwrap_or_default().to_owned();
    let find = |list: &[(String, Value, PathBuf)], kind: &'static str, name: String| {
        let found =
            list.iter().find(|(own, ..)| *own == name).map(|(_, value, folder)| (value.clone(), folder.clone()));
        found.ok_or_else(|| NoTarget::Unknown { kind, name, known: names(&mut list.iter().map(|(name, ..)| name)) })
    };
    let (cluster, folder) = find(&merged.clusters, "cluster", wants("cluster"))?;
    let mut target = cluster_of(&cluster, &folder)?;
    let namespace = context["namespace"].as_str().filter(|text| !text.is_empty());
    namespace.unwrap_or("default").clone_into(&mut target.namespace);
    // A context without a user is somebody whom the server does not know.
    if !wants("user").is_empty() {
        let (user, folder) = find(&merged.users, "user", wants("user"))?;
        target.user = user_of(&user, &folder, &target)?;
    }
    Ok(target)
}

fn inside(wanted: &Wanted) -> Result<Target, NoTarget> {
    let Some((server, account)) = &wanted.inside else {
        let looked: Vec<String> = wanted.files.iter().map(|file| file.display().to_string()).collect();
        let looked = if looked.is_empty() { "home directory with .kube/config".to_owned() } else { looked.join(", ") };
        return Err(NoTarget::Nowhere { looked });
    };
    let read = |name: &str| {
        let path = account.join(name);
        std::fs::read(&path).map_err(|error| NoTarget::Unreadable { path, why: error.to_string() })
    };
    let namespace = String::from_utf8_lossy(&read("namespace")?).trim().to_owned();
    let user = User { token_file: Some(account.join("token")), ..User::default() };
    Ok(Target { server: server.clone(), authorities: Some(read("ca.crt")?), namespace, user, ..Target::default() })
}

impl Merged {
    fn add(&mut self, file: &Path) -> Result<(), NoTarget> {
        let wrong = |why: String| NoTarget::Unreadable { path: file.to_owned(), why };
        let text = std::fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
        let documents = lameduck_check::yaml_values(&text).map_err(wrong)?;
        let Some(config) = documents.into_iter().next() else { return Ok(()) };
        if !config.is_object() {
            return Err(wrong("it is no mapping".to_owned()));
        }
        let folder = file.parent().map(Path::to_owned).unwrap_or_default();
        let named = |list: &str, inner: &str| -> Vec<(String, Value)> {
            let all = config[list].as_array().into_iter().flatten();
            all.filter_map(|one| Some((one["name"].as_str()?.to_owned(), one[inner].clone()))).collect()
        };
        for (name, value) in named("contexts", "context") {
            if self.contexts.iter().all(|(own, _)| *own != name) {
                self.contexts.push((name, value));
            }
        }
        for (into, list, inner) in [(&mut self.clusters, "clusters", "cluster"), (&mut self.users, "users", "user")] {
            for (name, value) in named(list, inner) {
                if into.iter().all(|(own, ..)| *own != name) {
                    into.push((name, value, folder.clone()));
                }
            }
        }
        let current = config["current-context"].as_str().filter(|text| !text.is_empty());
        self.current = self.current.take().or(current.map(str::to_owned));
        Ok(())
    }
}

/// What stands in the file itself (`NAME-data`, base64), else in the file that it names.
fn data(value: &Value, name: &str, folder: &Path) -> Result<Option<Vec<u8>>, NoTarget> {
    let key = format!("{name}-data");
    if let Some(text) = value[&key].as_str().filter(|text| !text.is_empty()) {
        let bytes = STANDARD.decode(text.split_whitespace().collect::<String>());
        return bytes
            .map(Some)
            .map_err(|error| NoTarget::Unsupported { what: format!("{key} is not base64: {error}") });
    }
    let Some(path) = value[name].as_str().filter(|text| !text.is_empty()) else { return Ok(None) };
    let path = folder.join(path);
    std::fs::read(&path).map(Some).map_err(|error| NoTarget::Unreadable { path, why: error.to_string() })
}

fn cluster_of(cluster: &Value, folder: &Path) -> Result<Target, NoTarget> {
    let server = cluster["server"].as_str().unwrap_or_default().trim_end_matches('/').to_owned();
    if !(server.starts_with("https://") || server.starts_with("http://")) {
        return Err(NoTarget::Unsupported { what: format!("server: read {server:?}, expected https://HOST:PORT") });
    }
    if cluster["proxy-url"].is_string() {
        return Err(NoTarget::Unsupported {
            what: "proxy-url is not followed here: name a server that is reached directly, or run `kubectl proxy` and \
                   name that"
                .to_owned(),
        });
    }
    Ok(Target {
        server,
        authorities: data(cluster, "certificate-authority", folder)?,
        insecure: cluster["insecure-skip-tls-verify"].as_bool() == Some(true),
        tls_name: cluster["tls-server-name"].as_str().filter(|text| !text.is_empty()).map(str::to_owned),
        ..Target::default()
    })
}

fn user_of(user: &Value, folder: &Path, target: &Target) -> Result<User, NoTarget> {
    for key in ["username", "auth-provider", "as", "as-uid", "as-groups"] {
        if !user[key].is_null() {
            let what = format!("a user's {key} is not followed here: use a token, a client certificate or exec");
            return Err(NoTarget::Unsupported { what });
        }
    }
    let text = |key: &str| user[key].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let certificate = match (data(user, "client-certificate", folder)?, data(user, "client-key", folder)?) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        (certificate, _) => {
            let missing = if certificate.is_none() { "client-certificate" } else { "client-key" };
            return Err(NoTarget::Unsupported { what: format!("a user's {missing} is missing beside its other half") });
        }
    };
    // The file goes before the token, as in client-go.
    let token_file = text("tokenFile").map(|path| folder.join(path));
    let exec = user["exec"].is_object().then(|| exec_of(&user["exec"], folder, target));
    Ok(User { token: text("token"), token_file, certificate, exec })
}

fn exec_of(exec: &Value, folder: &Path, target: &Target) -> Exec {
    let text = |key: &str| exec[key].as_str().unwrap_or_default().to_owned();
    let command = text("command");
    // A path is relative to the file; a name is looked for.
    let command = if command.contains('/') { folder.join(command) } else { PathBuf::from(command) };
    let args = exec["args"].as_array().into_iter().flatten().filter_map(|one| one.as_str().map(str::to_owned));
    let env = exec["env"].as_array().into_iter().flatten();
    let env = env.filter_map(|one| Some((one["name"].as_str()?.to_owned(), one["value"].as_str()?.to_owned())));
    let tells = exec["provideClusterInfo"].as_bool() == Some(true);
    let cluster = tells.then(|| {
        let authorities = target.authorities.as_ref().map(|bytes| STANDARD.encode(bytes));
        let mut cluster = serde_json::json!({"server": target.server});
        if let Some(authorities) = authorities {
            cluster["certificate-authority-data"] = authorities.into();
        }
        if let Some(name) = &target.tls_name {
            cluster["tls-server-name"] = name.as_str().into();
        }
        if target.insecure {
            cluster["insecure-skip-tls-verify"] = true.into();
        }
        cluster
    });
    Exec {
        version: text("apiVersion"),
        command,
        args: args.collect(),
        env: env.collect(),
        hint: exec["installHint"].as_str().map(str::to_owned),
        interactive: exec["interactiveMode"].as_str() != Some("Never"),
        cluster,
    }
}
