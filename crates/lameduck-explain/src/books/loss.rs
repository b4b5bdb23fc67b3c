//! A lost request, and a remark about one.

use super::symbols::Symbol;
use crate::record::{Place, Signal};
use crate::time::Micros;

/// Idle facts of a lost request that a capture shows.
#[derive(Debug, Clone, PartialEq)]
pub struct Packets {
    /// How long the connection had been idle when the server closed it.
    pub idle: Option<Micros>,
    /// Requests answered on it before.
    pub before: u32,
    /// Whether it is known to be the first on its connection: the handshake is there, and its first byte is the first after it.
    pub new: bool,
    /// From the close to the request.
    pub crossed: Option<Micros>,
    /// What the packets show, in words.
    pub story: String,
    /// The frames: request, close, reset.
    pub frames: Vec<u64>,
    /// Both ends, `client -> server`.
    pub stream: String,
    /// The server's own words in earlier answers: `Keep-Alive`, `Server`.
    pub server: String,
}

/// A lost request, or many alike.
#[derive(Debug, Clone)]
pub struct Loss {
    /// Where it stands.
    pub place: Place,
    /// Its format's place in the table.
    pub format: u8,
    /// When it ended.
    pub end: Micros,
    /// How long it took.
    pub took: Option<Micros>,
    /// How long the server had it.
    pub server_took: Option<Micros>,
    /// The status sent.
    pub status: u16,
    /// What was seen.
    pub signal: Signal,
    /// The server.
    pub backend: Symbol,
    /// The service.
    pub service: Symbol,
    /// The route: method and the first parts of the path.
    pub route: Symbol,
    /// The log's words.
    pub detail: Symbol,
    /// The id.
    pub id: Box<str>,
    /// Of method and target.
    pub request_key: u64,
    /// Of the client.
    pub client_key: u64,
    /// Attempts of the hop.
    pub attempts: u16,
    /// Whether hop and server share a pod.
    pub same_pod: bool,
    /// Whether the same server had, by then, answered a request that began after this one.
    pub overtaken: bool,
    /// How many requests it stands for.
    pub weight: u64,
    /// Other places that tell of it.
    pub also: Vec<Place>,
    /// What a capture shows of it.
    pub packets: Option<Box<Packets>>,
}

/// A remark.
#[derive(Debug, Clone)]
pub struct Remark {
    /// Where.
    pub place: Place,
    /// When.
    pub at: Micros,
    /// What was seen.
    pub signal: Signal,
    /// The server.
    pub backend: Symbol,
    /// The route.
    pub route: Symbol,
    /// The words.
    pub detail: Symbol,
    /// Of method and target.
    pub request_key: u64,
    /// Of the client.
    pub client_key: u64,
}

/// A target without scheme and host, which one hop logs and another does not.
pub(super) fn path(target: &[u8]) -> &[u8] {
    memchr::memmem::find(target, b"://").map_or(target, |at| {
        let rest = &target[at + 3..];
        &rest[memchr::memchr(b'/', rest).unwrap_or(rest.len())..]
    })
}

/// Method and the first parts of the path, with numbers and ids left out.
pub(super) fn route(method: &[u8], target: &[u8]) -> Vec<u8> {
    let path = path(target);
    let path = &path[..memchr::memchr2(b'?', b'#', path).unwrap_or(path.len())];
    let mut out = method.to_vec();
    out.push(b' ');
    for part in path.split(|byte| *byte == b'/').skip(1).take(3) {
        out.push(b'/');
        let id = part.len() > 20 || part.iter().any(u8::is_ascii_digit) && !part.starts_with(b"v");
        out.extend_from_slice(if id { b"*" } else { part });
    }
    if out.ends_with(b" ") {
        out.push(b'/');
    }
    out
}

/// A quarter of a decade: losses of like duration are alike.
pub(super) fn class(took: Option<Micros>) -> u8 {
    took.map_or(255, |took| ((took.max(1) as f64).log10() * 4.0) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_has_no_ids() {
        let check = |target: &str, expect: &str| {
            assert_eq!(String::from_utf8(route(b"GET", target.as_bytes())).unwrap(), expect);
        };
        check("https://example.com/api/v1/users/17?x=1", "GET /api/v1/users");
        check("/tasks/8f3a/artifacts", "GET /tasks/*/artifacts");
        check("/", "GET /");
        check("https://example.com", "GET /");
    }
}
