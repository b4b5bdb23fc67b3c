//! What is asked of the API server, and how it is said that it refused.

use super::resource::Resource;

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// As rights name it: `get`, `list`, `watch`, `create`, `patch`, `delete`.
    pub verb: &'static str,
    /// Of what.
    pub resource: &'a Resource,
    /// `log`, `exec`, `eviction`, or nothing.
    pub sub: &'static str,
    /// Where; none: everywhere.
    pub namespace: Option<&'a str>,
    /// Which; none: all.
    pub name: Option<&'a str>,
}

/// What the API server did not do.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Refused {
    /// A right is missing.
    #[error(
        "{server}: {what}: forbidden: the right that is missing is {right}. Have it granted (docs/kubectl.md#rights has the \
         roles), or choose another --context. The server says: {message}"
    )]
    Forbidden {
        /// The server.
        server: String,
        /// What was asked.
        what: String,
        /// The right: its verb, its resource, where.
        right: String,
        /// What the server said.
        message: String,
    },
    /// It said no, for another reason.
    #[error("{server}: {what}: it answered {status}: {message}{hint}")]
    Status {
        /// The server.
        server: String,
        /// What was asked.
        what: String,
        /// The status.
        status: u16,
        /// What it said.
        message: String,
        /// What to do.
        hint: &'static str,
    },
    /// It did not say anything of use.
    #[error("{server}: {what}: {why}")]
    Failed {
        /// The server.
        server: String,
        /// What was asked.
        what: String,
        /// What went wrong, and what to do.
        why: String,
    },
}

impl Refused {
    /// The status, where there is one.
    pub fn status(&self) -> Option<u16> {
        match self {
            Refused::Forbidden { .. } => Some(403),
            Refused::Status { status, .. } => Some(*status),
            Refused::Failed { .. } => None,
        }
    }
}

impl Ask<'_> {
    /// `list deployments.apps in namespace shop`.
    pub(super) fn words(&self) -> String {
        let sub = if self.sub.is_empty() { String::new() } else { format!("/{}", self.sub) };
        let name = self.name.map(|name| format!(" {name}")).unwrap_or_default();
        format!("{} {}{sub}{name}{}", self.verb, self.resource.full(), self.place())
    }

    pub(super) fn place(&self) -> String {
        self.namespace.map_or_else(|| " in all namespaces".to_owned(), |name| format!(" in namespace {name}"))
    }

    pub(super) fn path(&self) -> String {
        let mut path = self.resource.path(self.namespace);
        for part in [self.name.unwrap_or_default(), self.sub].into_iter().filter(|part| !part.is_empty()) {
            path = format!("{path}/{part}");
        }
        path
    }
}

/// For a query: everything but what RFC 3986 leaves unreserved is escaped.
pub fn escaped(text: &str) -> String {
    use std::fmt::Write;
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte as char);
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}
