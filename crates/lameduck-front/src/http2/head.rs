//! The head of a request that came over HTTP/2: what it is to us, and how it goes on.

use std::net::IpAddr;

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::config::Forwarded;
use crate::message::fields::{self, Kind};
use crate::message::request::{self, Framing, Request, Told};
use crate::message::write_field;
use crate::state::Front;

/// What the request is to us; or the status to refuse it with. `ended`: nothing follows its head.
pub fn describe(front: &Front, parts: &Parts, ended: bool) -> Result<Request, u16> {
    if parts.method == Method::CONNECT {
        return Err(405);
    }
    let disguised = |name: &HeaderName| fields::kind(name.as_str().as_bytes()) == Kind::Disguised;
    let several = |name: &str| parts.headers.get_all(name).iter().count() > 1;
    if parts.headers.keys().any(disguised) || several("host") || several("content-length") {
        return Err(400);
    }
    let path = parts.uri.path();
    // What HTTP/1.1 has no request line for (RFC 9112 section 3.2): a query alone, and `*` for other methods than OPTIONS.
    let has_form = path.starts_with('/') && !target(parts).starts_with('?');
    let star = path == "*" && parts.method == Method::OPTIONS;
    // No user is named in an authority (RFC 9113 section 8.3.1).
    let names_user = parts.uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
    if !(has_form || star) || names_user {
        return Err(400);
    }
    let length = match parts.headers.get("content-length") {
        Some(length) => Some(fields::length(length.as_bytes()).ok_or(400_u16)?),
        None => None,
    };
    let framing = match (ended, length) {
        // The app would take what follows for the body.
        (true, Some(1..)) => return Err(400),
        (true, None) => Framing::None,
        (_, Some(length)) => Framing::Length(length),
        (false, None) => Framing::Chunked,
    };
    let agent = parts.headers.get("user-agent").map_or(&b""[..], HeaderValue::as_bytes);
    let health = front.config.health_path.as_deref() == Some(path);
    let expects = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    Ok(Request {
        length: 0,
        framing,
        http10: false,
        keep_alive: true,
        idempotent: request::is_idempotent(parts.method.as_str().as_bytes()),
        head: parts.method == Method::HEAD,
        expects_continue: !ended && parts.headers.get("expect").is_some_and(expects),
        upgrade: None,
        probe: health || front.config.probe_agents.iter().any(|probe| agent.starts_with(probe.as_bytes())),
        health,
        long_poll: front.config.long_polls.iter().find(|poll| path.starts_with(&poll.prefix)).map(|poll| poll.status),
    })
}

/// What the access log says of it.
pub fn told(parts: &Parts) -> Told {
    Told {
        method: parts.method.to_string(),
        target: target(parts).to_owned(),
        id: parts.headers.get("x-request-id").and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned(),
    }
}

/// `:path`, as it was received.
fn target(parts: &Parts) -> &str {
    parts.uri.path_and_query().map_or("/", |path| path.as_str())
}

/// The authority, or else the `Host`.
fn host(parts: &Parts) -> Option<&[u8]> {
    let authority = parts.uri.authority().map(|authority| authority.as_str().as_bytes());
    authority.or_else(|| parts.headers.get("host").map(HeaderValue::as_bytes))
}

/// Adds what tells the app who the client is, in place of what it grows from.
pub fn add_who(front: &Front, parts: &mut Parts, client: IpAddr) {
    if front.config.forwarded == Forwarded::Off && !front.config.request_id {
        return;
    }
    let mut lines = Vec::new();
    request::write_who(&mut lines, front, &parts.headers, host(parts), client);
    each_line(&lines, |name, value| {
        parts.headers.insert(name, value);
    });
}

/// Trailers from their lines; `None` where there are none.
pub fn trailers(lines: &[u8]) -> Option<HeaderMap> {
    let mut fields = HeaderMap::new();
    each_line(lines, |name, value| {
        fields.append(name, value);
    });
    (!fields.is_empty()).then_some(fields)
}

fn each_line(lines: &[u8], mut field: impl FnMut(HeaderName, HeaderValue)) {
    for line in lines.split(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let Some(colon) = memchr::memchr(b':', line) else { continue };
        let (name, value) = (HeaderName::from_bytes(&line[..colon]), line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value)) {
            field(name, value);
        }
    }
}

/// Writes it for HTTP/1.1 (RFC 9113 section 8.3.1, the other way round).
pub fn write(out: &mut Vec<u8>, parts: &Parts, what: &Request, front: &Front) {
    out.extend_from_slice(parts.method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(target(parts).as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    match host(parts) {
        Some(host) => write_field(out, b"Host", host),
        None => request::write_own_host(out, &front.config.upstream),
    }
    // Crumbs of a cookie become one field again (RFC 9113 section 8.2.3).
    let crumbs: Vec<&[u8]> = parts.headers.get_all("cookie").iter().map(HeaderValue::as_bytes).collect();
    if !crumbs.is_empty() {
        write_field(out, b"cookie", &crumbs.join(&b"; "[..]));
    }
    let mut trailers = false;
    for (name, value) in &parts.headers {
        let kind = fields::kind(name.as_str().as_bytes());
        trailers |= kind == Kind::Te && value.as_bytes().eq_ignore_ascii_case(b"trailers");
        let written = kind == Kind::Host || name.as_str() == "cookie";
        // Who sends no body has nothing to wait with.
        let idle = kind == Kind::Expect && !what.expects_continue;
        if !kind.is_for_one_hop() && !written && !idle {
            write_field(out, name.as_str().as_bytes(), value.as_bytes());
        }
    }
    match what.framing {
        Framing::None => {}
        Framing::Length(length) => write_field(out, b"content-length", length.to_string().as_bytes()),
        Framing::Chunked => write_field(out, b"transfer-encoding", b"chunked"),
    }
    if trailers {
        write_field(out, b"connection", b"TE");
        write_field(out, b"te", b"trailers");
    }
    out.extend_from_slice(b"\r\n");
}
