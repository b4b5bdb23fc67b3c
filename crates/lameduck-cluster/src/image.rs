//! Images: their names, and what registries say of them. Parsers only; [`crate::registry`] asks.

use serde::Deserialize;

/// What an image says about its process: `config` of the OCI image configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// ENTRYPOINT.
    pub entrypoint: Vec<String>,
    /// CMD.
    pub cmd: Vec<String>,
    /// STOPSIGNAL.
    pub stop_signal: Option<String>,
}

impl Config {
    /// Reads an image configuration.
    pub fn parse(bytes: &[u8]) -> Option<Config> {
        #[derive(Deserialize)]
        struct File {
            #[serde(default)]
            config: Option<Inner>,
        }
        #[derive(Default, Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Inner {
            #[serde(default)]
            entrypoint: Option<Vec<String>>,
            #[serde(default)]
            cmd: Option<Vec<String>>,
            #[serde(default)]
            stop_signal: Option<String>,
        }
        let inner = serde_json::from_slice::<File>(bytes).ok()?.config.unwrap_or_default();
        Some(Config {
            entrypoint: inner.entrypoint.unwrap_or_default(),
            cmd: inner.cmd.unwrap_or_default(),
            stop_signal: inner.stop_signal.filter(|signal| !signal.is_empty()),
        })
    }
}

/// Where an image is: `[HOST/]PATH[:TAG][@DIGEST]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The registry as people name it.
    pub host: String,
    /// The repository.
    pub path: String,
    /// A tag, or a digest where there is one.
    pub version: String,
}

impl Reference {
    /// Reads a name as container runtimes do: without a host it is Docker Hub's, without a path there it is `library`'s.
    pub fn parse(text: &str) -> Option<Reference> {
        if text.len() > 512 {
            return None;
        }
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest)),
            None => (text, None),
        };
        let (name, tag) = match name.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            Some(_) | None => (name, None),
        };
        let (host, path) = match name.split_once('/') {
            Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => (host, path.to_owned()),
            Some(_) => ("docker.io", name.to_owned()),
            None => ("docker.io", format!("library/{name}")),
        };
        let version = digest.or(tag).unwrap_or("latest").to_owned();
        let host = host.to_ascii_lowercase();
        // Nothing that could end up elsewhere in an address than where it belongs.
        let plain = |text: &str, also: &str| {
            let fits = |c: char| c.is_ascii_alphanumeric() || also.contains(c);
            !text.is_empty()
                && !text.starts_with('/')
                && !text.ends_with(['/', ':'])
                && text.chars().all(fits)
                && !text.contains("..")
        };
        let whole = plain(&host, ".-:") && plain(&path, "._-/") && plain(&version, "._-:");
        whole.then_some(Reference { host, path, version })
    }

    /// Whether it names its content, which then never changes.
    pub fn is_digest(&self) -> bool {
        self.version.contains(':')
    }
}

/// What a registry answers for a tag: the image, or a list with one for each platform.
#[derive(Debug, PartialEq, Eq)]
pub enum Manifest {
    /// The digest of the configuration.
    Image(String),
    /// The digest of the manifest for our platform.
    Platform(String),
}

impl Manifest {
    /// Reads a manifest. Of several platforms ours is taken, then any for Linux: what an image starts seldom depends on it.
    pub fn parse(bytes: &[u8], architecture: &str) -> Option<Manifest> {
        #[derive(Deserialize)]
        struct Descriptor {
            digest: String,
            platform: Option<Platform>,
        }
        #[derive(Deserialize)]
        struct Platform {
            architecture: String,
            os: String,
        }
        #[derive(Deserialize)]
        struct File {
            config: Option<Descriptor>,
            #[serde(default)]
            manifests: Vec<Descriptor>,
        }
        let file: File = serde_json::from_slice(bytes).ok()?;
        if let Some(config) = file.config {
            return digest(config.digest).map(Manifest::Image);
        }
        let linux: Vec<(Descriptor, String)> = file
            .manifests
            .into_iter()
            .filter_map(|mut one| one.platform.take().filter(|on| on.os == "linux").map(|on| (one, on.architecture)))
            .collect();
        let at = linux.iter().position(|(_, on)| on == architecture).unwrap_or(0);
        digest(linux.into_iter().nth(at)?.0.digest).map(Manifest::Platform)
    }
}

/// `ALGORITHM:HEX`, and nothing that could be another path.
fn digest(text: String) -> Option<String> {
    let (algorithm, hex) = text.split_once(':')?;
    let fits = algorithm.chars().all(|c| c.is_ascii_alphanumeric())
        && (32..=128).contains(&hex.len())
        && hex.chars().all(|c| c.is_ascii_hexdigit());
    fits.then_some(text)
}

/// Where an anonymous token is to be had: `WWW-Authenticate: Bearer realm="...",service="...",scope="..."`
/// (distribution specification, token authentication).
#[derive(Debug, PartialEq, Eq)]
pub struct Challenge {
    /// An address.
    pub realm: String,
    /// What to add to it.
    pub service: Option<String>,
}

impl Challenge {
    /// Reads the header's value.
    pub fn parse(header: &str) -> Option<Challenge> {
        let (scheme, rest) = header.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let value = |wanted: &str| {
            let mut rest = rest;
            while let Some((key, after)) = rest.split_once("=\"") {
                let (value, next) = after.split_once('"')?;
                if key.trim_matches([' ', ',']).eq_ignore_ascii_case(wanted) {
                    return Some(value.to_owned());
                }
                rest = next;
            }
            None
        };
        Some(Challenge { realm: value("realm")?, service: value("service") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let check = |text: &str, expect: Option<(&str, &str, &str)>| {
            let read = Reference::parse(text);
            let read = read.as_ref().map(|read| (read.host.as_str(), read.path.as_str(), read.version.as_str()));
            assert_eq!(read, expect, "{text}");
        };
        check("nginx", Some(("docker.io", "library/nginx", "latest")));
        check("nginx:1.29", Some(("docker.io", "library/nginx", "1.29")));
        check("acme/web:1", Some(("docker.io", "acme/web", "1")));
        check("registry.example/acme/web", Some(("registry.example", "acme/web", "latest")));
        check("localhost:5000/web:1", Some(("localhost:5000", "web", "1")));
        check("127.0.0.1:5000/web", Some(("127.0.0.1:5000", "web", "latest")));
        check("ghcr.io/a/b:1@sha256:00ff", Some(("ghcr.io", "a/b", "sha256:00ff")));
        for bad in ["", "a b", "x/../../y", "host.example/", "web:", "host.example/web?x", "web@", "a\nb", "http://x/y"]
        {
            check(bad, None);
        }
    }

    #[test]
    fn configurations() {
        let check = |text: &str, expect: Option<Config>| assert_eq!(Config::parse(text.as_bytes()), expect, "{text}");
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let nginx = r#"{"config":{"Entrypoint":["/docker-entrypoint.sh"],"Cmd":["nginx"],"StopSignal":"SIGQUIT"}}"#;
        let stop_signal = Some("SIGQUIT".to_owned());
        let entrypoint = words(&["/docker-entrypoint.sh"]);
        check(nginx, Some(Config { entrypoint, cmd: words(&["nginx"]), stop_signal }));
        check(r#"{"config":{"Entrypoint":null,"Cmd":null}}"#, Some(Config::default()));
        check("{}", Some(Config::default()));
        check(r#"{"config":{"Cmd":"sh"}}"#, None);
        check("", None);
    }

    #[test]
    fn manifests() {
        let check = |text: &str, expect: Option<Manifest>| {
            assert_eq!(Manifest::parse(text.as_bytes(), "amd64"), expect, "{text}");
        };
        let (a, b) = ("sha256:".to_owned() + &"a".repeat(64), "sha256:".to_owned() + &"b".repeat(64));
        check(&format!(r#"{{"config":{{"digest":"{a}"}}}}"#), Some(Manifest::Image(a.clone())));
        let on = |digest: &str, os: &str, on: &str| {
            format!(r#"{{"digest":"{digest}","platform":{{"os":"{os}","architecture":"{on}"}}}}"#)
        };
        let list = |of: &[String]| format!(r#"{{"manifests":[{}]}}"#, of.join(","));
        let ours = list(&[on(&a, "linux", "arm64"), on(&b, "linux", "amd64")]);
        check(&ours, Some(Manifest::Platform(b.clone())));
        check(&list(&[on(&a, "windows", "amd64"), on(&b, "linux", "s390x")]), Some(Manifest::Platform(b)));
        check(&list(&[on(&a, "windows", "amd64")]), None);
        check(r#"{"config":{"digest":"../../secret"}}"#, None);
        check("[]", None);
    }

    #[test]
    fn challenges() {
        let check = |text: &str, expect: Option<(&str, Option<&str>)>| {
            let read = Challenge::parse(text);
            let read = read.as_ref().map(|read| (read.realm.as_str(), read.service.as_deref()));
            assert_eq!(read, expect, "{text}");
        };
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="x""#;
        check(hub, Some(("https://auth.docker.io/token", Some("registry.docker.io"))));
        check(r#"bearer service="s", realm="https://r/""#, Some(("https://r/", Some("s"))));
        check(r#"Basic realm="x""#, None);
        check("Bearer", None);
        check(r#"Bearer realm="x"#, None);
    }
}
