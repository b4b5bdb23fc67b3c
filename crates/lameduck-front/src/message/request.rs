//! A request head, from the client to the app.

use std::mem::MaybeUninit;
use std::net::IpAddr;

use super::fields::{self, Kind, Options};
use super::{Field, MOST_FIELDS, lines_end_with_crlf, write_field, write_number};
use crate::config::{Config, Forwarded, Upstream};
use crate::state::Front;

/// How long a request's body is (RFC 9112 section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    None,
    /// This many bytes.
    Length(u64),
    /// Chunks.
    Chunked,
}

/// Why a request is not forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not an HTTP/1 head.
    #[error("not an HTTP/1.1 request head: {0}")]
    Syntax(httparse::Error),
    /// Another protocol: who does not speak HTTP can not read an answer in it.
    #[error("the first line names no version of HTTP")]
    NotHttp,
    /// A version that is not spoken here.
    #[error("expected HTTP/1.0 or HTTP/1.1")]
    Version,
    /// A line that ends with LF alone.
    #[error("a line ends with LF alone; expected CRLF (RFC 9112 section 2.2)")]
    LineEnd,
    /// More than [`Config::head_bytes`], or more than [`MOST_FIELDS`] fields.
    #[error("the request head is too large")]
    TooLarge,
    /// `CONNECT`.
    #[error("CONNECT is not for a server (RFC 9110 section 9.3.6)")]
    Connect,
    /// A target of no form that there is.
    #[error("the request target has none of the forms of RFC 9112 section 3.2")]
    Target,
    /// No `Host`, or several.
    #[error("expected exactly one Host field (RFC 9112 section 3.2)")]
    Host,
    /// A `Content-Length` that is no length, or several.
    #[error("expected at most one Content-Length, of digits (RFC 9112 section 6.3)")]
    Length,
    /// `Content-Length` and `Transfer-Encoding`.
    #[error("Content-Length and Transfer-Encoding exclude each other (RFC 9112 section 6.1)")]
    LengthAndEncoding,
    /// A `Transfer-Encoding` in HTTP/1.0.
    #[error("HTTP/1.0 has no Transfer-Encoding (RFC 9112 section 6.1)")]
    EncodingInHttp10,
    /// A transfer coding other than chunked.
    #[error("expected the transfer coding chunked, once (RFC 9112 section 7)")]
    Encoding,
    /// A field that some servers take for one that frames the message.
    #[error("a field name that some servers take for Content-Length or Transfer-Encoding")]
    Disguised,
    /// Too many options in `Connection`.
    #[error("too many options in Connection")]
    Options,
}

impl Refusal {
    /// The status to refuse with.
    pub const fn status(self) -> u16 {
        match self {
            Refusal::Version => 505,
            Refusal::TooLarge => 431,
            Refusal::Connect => 405,
            Refusal::Encoding => 501,
            Refusal::Syntax(_)
            | Refusal::NotHttp
            | Refusal::LineEnd
            | Refusal::Target
            | Refusal::Host
            | Refusal::Length
            | Refusal::LengthAndEncoding
            | Refusal::EncodingInHttp10
            | Refusal::Disguised
            | Refusal::Options => 400,
        }
    }
}

/// What a protocol is to be upgraded to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upgrade {
    /// RFC 6455.
    WebSocket,
    /// Something of which only the bytes are known.
    Other,
}

/// What there is to know of a request once its head is written out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "independent properties of a request")]
pub struct Request {
    /// The bytes of its head.
    pub length: usize,
    /// Its body.
    pub framing: Framing,
    /// Whether it is HTTP/1.0.
    pub http10: bool,
    /// Whether the client wants to keep the connection.
    pub keep_alive: bool,
    /// Whether it may be repeated (RFC 9110 section 9.2.2).
    pub idempotent: bool,
    /// Whether it is `HEAD`, whose answer has no body.
    pub head: bool,
    /// Whether the client waits for 100 before it sends the body.
    pub expects_continue: bool,
    /// What it asks to be upgraded to.
    pub upgrade: Option<Upgrade>,
    /// Whether a probe sent it: by its agent, or since it asks for health.
    pub probe: bool,
    /// Whether it is for [`Config::health_path`].
    pub health: bool,
    /// The status that ends its wait in a drain, where it is a long poll.
    pub long_poll: Option<u16>,
}

/// Who is asked where a request does not say: HTTP/1.0 needs no `Host`, HTTP/1.1 does, and nginx takes no empty one.
pub const NO_HOST: &str = "localhost";

/// What the access log says of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// The method.
    pub method: String,
    /// The target, as it was received.
    pub target: String,
    /// `X-Request-Id`.
    pub id: String,
}

/// What goes into the head besides what the client sent.
#[derive(Debug)]
pub struct Context<'a> {
    /// The options.
    pub config: &'a Config,
    /// The client's address.
    pub client: IpAddr,
    /// A new request id, taken only where one is made.
    pub new_id: u128,
}

/// Whether a method may be repeated (RFC 9110 section 9.2.2).
pub fn is_idempotent(method: &[u8]) -> bool {
    [&b"GET"[..], b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"].contains(&method)
}

/// Reads a request head from the beginning of `input` and writes it to `out` as the app is to see it. `Ok(None)`: there is
/// more of it to come. `told` is filled for the access log.
pub fn read(
    input: &[u8],
    context: &Context<'_>,
    out: &mut Vec<u8>,
    told: Option<&mut Told>,
) -> Result<Option<Request>, Refusal> {
    let mut storage = [const { MaybeUninit::uninit() }; MOST_FIELDS];
    let mut parsed = httparse::Request::new(&mut []);
    let length = match parsed.parse_with_uninit_headers(input, &mut storage) {
        Ok(httparse::Status::Complete(length)) if length <= context.config.head_bytes => length,
        Ok(httparse::Status::Partial) if input.len() <= context.config.head_bytes => return Ok(None),
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(Refusal::TooLarge),
        Err(httparse::Error::Version) if names_http(input) => return Err(Refusal::Version),
        Err(httparse::Error::Version) => return Err(Refusal::NotHttp),
        Err(error) => return Err(Refusal::Syntax(error)),
    };
    if !lines_end_with_crlf(&input[..length]) {
        return Err(Refusal::LineEnd);
    }
    let (Some(method), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(Refusal::Syntax(httparse::Error::Token));
    };
    let seen = Seen::of(parsed.headers, version == 0)?;
    let (path, authority) = place(method, target)?;
    if let Some(told) = told {
        method.clone_into(&mut told.method);
        target.clone_into(&mut told.target);
    }
    let health = context.config.health_path.as_deref().is_some_and(|health| without_query(path) == health);
    let request = Request {
        length,
        framing: seen.framing,
        http10: version == 0,
        keep_alive: if version == 0 { seen.options.keep_alive && !seen.options.close } else { !seen.options.close },
        idempotent: is_idempotent(method.as_bytes()),
        head: method == "HEAD",
        expects_continue: seen.expects_continue && version == 1,
        upgrade: seen.upgrade.filter(|_| version == 1 && seen.framing == Framing::None).map(|(upgrade, _)| upgrade),
        probe: health || context.config.probe_agents.iter().any(|agent| seen.agent.starts_with(agent.as_bytes())),
        health,
        long_poll: context.config.long_polls.iter().find(|poll| path.starts_with(&poll.prefix)).map(|poll| poll.status),
    };
    out.extend_from_slice(method.as_bytes());
    out.push(b' ');
    out.extend_from_slice(path.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    write_fields(out, parsed.headers, &seen, authority, context);
    match seen.framing {
        Framing::None => {}
        Framing::Length(length) => {
            out.extend_from_slice(b"Content-Length: ");
            write_number(out, length);
            out.extend_from_slice(b"\r\n");
        }
        Framing::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
    }
    match (request.upgrade, seen.upgrade) {
        (Some(_), Some((_, protocol))) => {
            write_field(out, b"Connection", b"Upgrade");
            write_field(out, b"Upgrade", protocol);
        }
        (Some(_) | None, _) if seen.trailers => {
            write_field(out, b"Connection", b"TE");
            write_field(out, b"TE", b"trailers");
        }
        (Some(_) | None, _) => {}
    }
    out.extend_from_slice(b"\r\n");
    Ok(Some(request))
}

/// Whether the third word of the first line begins as a version of HTTP does.
fn names_http(input: &[u8]) -> bool {
    let line = input.trim_ascii_start().split(|byte| *byte == b'\n').next().unwrap_or_default();
    line.split(|byte| *byte == b' ').nth(2).is_some_and(|version| version.starts_with(b"HTTP/"))
}

fn without_query(path: &str) -> &str {
    path.split('?').next().unwrap_or(path)
}

/// The target in origin form or `*`, and the authority where the target had one (RFC 9112 section 3.2).
fn place<'a>(method: &str, target: &'a str) -> Result<(&'a str, Option<&'a str>), Refusal> {
    if method == "CONNECT" {
        return Err(Refusal::Connect);
    }
    if target.contains('#') {
        return Err(Refusal::Target);
    }
    if target.starts_with('/') || (target == "*" && method == "OPTIONS") {
        return Ok((target, None));
    }
    let scheme = target.get(..7).filter(|scheme| scheme.eq_ignore_ascii_case("http://")).map_or_else(
        || target.get(..8).filter(|scheme| scheme.eq_ignore_ascii_case("https://")).map(str::len),
        |scheme| Some(scheme.len()),
    );
    let rest = &target[scheme.ok_or(Refusal::Target)?..];
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if authority.is_empty() || authority.contains('@') {
        return Err(Refusal::Target);
    }
    match path {
        "" if method == "OPTIONS" => Ok(("*", Some(authority))),
        "" => Ok(("/", Some(authority))),
        // A query without a path has no origin form without inventing one.
        path if path.starts_with('?') => Err(Refusal::Target),
        path => Ok((path, Some(authority))),
    }
}

/// What the fields of a head say.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts about a head")]
struct Seen<'a> {
    framing: Framing,
    options: Options<'a>,
    upgrade: Option<(Upgrade, &'a [u8])>,
    expects_continue: bool,
    trailers: bool,
    agent: &'a [u8],
    has_host: bool,
    has_id: bool,
}

impl<'a> Seen<'a> {
    fn of(all: &[Field<'a>], http10: bool) -> Result<Seen<'a>, Refusal> {
        let mut seen = Seen {
            framing: Framing::None,
            options: Options::default(),
            upgrade: None,
            expects_continue: false,
            trailers: false,
            agent: b"",
            has_host: false,
            has_id: false,
        };
        let (mut hosts, mut length, mut chunked, mut protocol) = (0, None, false, None);
        for field in all {
            match fields::kind(field.name.as_bytes()) {
                Kind::Host => hosts += 1,
                Kind::Connection => {
                    if !seen.options.add(field.value) {
                        return Err(Refusal::Options);
                    }
                }
                Kind::ContentLength => {
                    let value = fields::length(field.value).ok_or(Refusal::Length)?;
                    if length.replace(value).is_some() {
                        return Err(Refusal::Length);
                    }
                }
                Kind::TransferEncoding => {
                    if chunked || !field.value.eq_ignore_ascii_case(b"chunked") {
                        return Err(Refusal::Encoding);
                    }
                    chunked = true;
                }
                Kind::Upgrade => protocol = Some(field.value),
                Kind::Te => {
                    seen.trailers |= fields::members(field.value).any(|te| te.eq_ignore_ascii_case(b"trailers"));
                }
                Kind::Expect => seen.expects_continue |= field.value.eq_ignore_ascii_case(b"100-continue"),
                Kind::UserAgent => seen.agent = field.value,
                Kind::RequestId => seen.has_id = true,
                Kind::Disguised => return Err(Refusal::Disguised),
                Kind::HopByHop
                | Kind::ForwardedFor
                | Kind::ForwardedProto
                | Kind::ForwardedHost
                | Kind::Forwarded
                | Kind::ContentType
                | Kind::ContentEncoding
                | Kind::Other => {}
            }
        }
        if hosts > 1 || (hosts == 0 && !http10) {
            return Err(Refusal::Host);
        }
        seen.has_host = hosts > 0;
        seen.framing = match (length, chunked) {
            (Some(_), true) => return Err(Refusal::LengthAndEncoding),
            (None, true) if http10 => return Err(Refusal::EncodingInHttp10),
            (None, true) => Framing::Chunked,
            (Some(length), false) => Framing::Length(length),
            (None, false) => Framing::None,
        };
        // An upgrade to HTTP/2 is obsolete (RFC 9113 section 3.1), and is not ours to pass on: it would change hands midway.
        seen.upgrade = protocol.filter(|_| seen.options.upgrade).and_then(|protocol| {
            let h2c = fields::members(protocol).any(|name| name.eq_ignore_ascii_case(b"h2c"));
            let kind = if protocol.eq_ignore_ascii_case(b"websocket") { Upgrade::WebSocket } else { Upgrade::Other };
            (!h2c).then_some((kind, protocol))
        });
        Ok(seen)
    }
}

/// Writes the fields that go on to the app, all but those that frame the message and the connection. `Connection` takes away
/// what it names, but not what vouches for the client: that would be the client's to take away (CVE-2022-31813).
fn write_fields(out: &mut Vec<u8>, all: &[Field<'_>], seen: &Seen<'_>, authority: Option<&str>, context: &Context<'_>) {
    let forwarded = context.config.forwarded;
    let host = all.iter().find(|field| fields::kind(field.name.as_bytes()) == Kind::Host);
    let asked = authority.map(str::as_bytes).or(host.map(|host| host.value));
    match (host, asked) {
        (Some(_), _) => {}
        (None, Some(asked)) => write_field(out, b"Host", asked),
        (None, None) => write_own_host(out, &context.config.upstream),
    }
    for field in all {
        let name = field.name.as_bytes();
        let kind = fields::kind(name);
        let replaced = match forwarded {
            Forwarded::Off => false,
            Forwarded::XForwarded => kind == Kind::ForwardedFor,
            Forwarded::Forwarded => kind == Kind::Forwarded,
        };
        let vouches = matches!(
            kind,
            Kind::RequestId | Kind::ForwardedFor | Kind::ForwardedProto | Kind::ForwardedHost | Kind::Forwarded
        );
        if kind == Kind::Host {
            write_field(out, name, asked.unwrap_or_default());
        } else if !kind.is_for_one_hop() && !replaced && (vouches || !seen.options.names(field)) {
            write_field(out, name, field.value);
        }
    }
    if context.config.request_id && !seen.has_id {
        out.extend_from_slice(format!("X-Request-Id: {:032x}\r\n", context.new_id).as_bytes());
    }
    match forwarded {
        Forwarded::Off => {}
        Forwarded::XForwarded => write_x_forwarded(out, all, asked, context.client),
        Forwarded::Forwarded => write_forwarded(out, all, context.client),
    }
}

/// `Host` where the client names none, as in HTTP/1.0: HTTP/1.1, in which the request goes on, has to have one (RFC 9112
/// section 3.2), and an empty one is refused by many.
pub fn write_own_host(out: &mut Vec<u8>, upstream: &Upstream) {
    match upstream {
        Upstream::Tcp(address) => write_field(out, b"Host", address.to_string().as_bytes()),
        Upstream::Unix(_) => write_field(out, b"Host", NO_HOST.as_bytes()),
    }
}

/// `X-Forwarded-For` grows by the client; `-Proto` and `-Host` are kept where somebody has set them.
fn write_x_forwarded(out: &mut Vec<u8>, all: &[Field<'_>], host: Option<&[u8]>, client: IpAddr) {
    let of = |wanted: Kind| all.iter().filter(move |field| fields::kind(field.name.as_bytes()) == wanted);
    out.extend_from_slice(b"X-Forwarded-For: ");
    for field in of(Kind::ForwardedFor) {
        out.extend_from_slice(field.value);
        out.extend_from_slice(b", ");
    }
    out.extend_from_slice(client.to_string().as_bytes());
    out.extend_from_slice(b"\r\n");
    if of(Kind::ForwardedProto).next().is_none() {
        write_field(out, b"X-Forwarded-Proto", b"http");
    }
    if of(Kind::ForwardedHost).next().is_none()
        && let Some(host) = host
    {
        write_field(out, b"X-Forwarded-Host", host);
    }
}

/// RFC 7239: one element a hop; an IPv6 address is quoted and in brackets.
fn write_forwarded(out: &mut Vec<u8>, all: &[Field<'_>], client: IpAddr) {
    out.extend_from_slice(b"Forwarded: ");
    for field in all.iter().filter(|field| fields::kind(field.name.as_bytes()) == Kind::Forwarded) {
        out.extend_from_slice(field.value);
        out.extend_from_slice(b", ");
    }
    let element = match client {
        IpAddr::V4(client) => format!("for={client};proto=http\r\n"),
        IpAddr::V6(client) => format!("for=\"[{client}]\";proto=http\r\n"),
    };
    out.extend_from_slice(element.as_bytes());
}

/// Who the client is, for a request that came over HTTP/2.
pub fn write_who(out: &mut Vec<u8>, front: &Front, all: &http::HeaderMap, host: Option<&[u8]>, client: IpAddr) {
    let fields: Vec<Field<'_>> =
        all.iter().map(|(name, value)| Field { name: name.as_str(), value: value.as_bytes() }).collect();
    if front.config.request_id && !all.contains_key("x-request-id") {
        let id = u128::from(front.random()) << 64 | u128::from(front.random());
        out.extend_from_slice(format!("x-request-id: {id:032x}\r\n").as_bytes());
    }
    match front.config.forwarded {
        Forwarded::Off => {}
        Forwarded::XForwarded => write_x_forwarded(out, &fields, host, client),
        Forwarded::Forwarded => write_forwarded(out, &fields, client),
    }
}

/// The request id in a head that was written by [`read`].
pub fn id_of(written: &[u8]) -> String {
    let name = b"x-request-id: ";
    written
        .split(|byte| *byte == b'\n')
        .find(|line| line.len() > name.len() && line[..name.len()].eq_ignore_ascii_case(name))
        .map(|line| String::from_utf8_lossy(line[name.len()..].trim_ascii()).into_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    fn with(config: &Config, input: &str) -> Result<(Request, String), Refusal> {
        let context = Context { config, client: Ipv4Addr::new(10, 0, 0, 9).into(), new_id: 7 };
        let mut out = Vec::new();
        read(input.as_bytes(), &context, &mut out, None)
            .map(|request| (request.expect("the head is whole"), String::from_utf8(out).unwrap()))
    }

    fn check(input: &str, expect: &str) {
        let (_, written) = with(&Config::default(), input).unwrap();
        assert_eq!(written, expect);
    }

    fn refused(input: &str, expect: u16) {
        let refusal = with(&Config::default(), input).unwrap_err();
        assert_eq!(refusal.status(), expect, "{input:?}: {refusal}");
    }

    #[test]
    fn written_anew_without_what_is_for_one_hop() {
        check("GET /a?b HTTP/1.1\r\nHost: x\r\nA:  b \r\n\r\n", "GET /a?b HTTP/1.1\r\nHost: x\r\nA: b\r\n\r\n");
        check(
            "GET / HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, X-Hop\r\nKeep-Alive: 5\r\nX-Hop: 1\r\nX-End: 2\r\nProxy-Connection: close\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\nX-End: 2\r\n\r\n",
        );
        check(
            "GET / HTTP/1.1\r\nHost: x\r\nTE: trailers, deflate\r\nConnection: TE\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\nConnection: TE\r\nTE: trailers\r\n\r\n",
        );
    }

    #[test]
    fn the_body_is_framed_once() {
        check(
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 007\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 7\r\n\r\n",
        );
        check(
            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
        );
        let post = |fields: &str, status| refused(&format!("POST / HTTP/1.1\r\nHost: x\r\n{fields}\r\n"), status);
        post("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", 400);
        post("Content-Length: 1\r\nContent-Length: 1\r\n", 400);
        post("Content-Length: 1, 1\r\n", 400);
        post("Content-Length: +1\r\n", 400);
        post("Content-Length:\r\n", 400);
        post("Content_Length: 1\r\n", 400);
        post("Transfer-Encoding: gzip, chunked\r\n", 501);
        post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 501);
        post("Transfer-Encoding: xchunked\r\n", 501);
        post("Transfer-Encoding:\x0bchunked\r\n", 400);
        refused("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400);
    }

    #[test]
    fn doubtful_heads_are_refused() {
        refused("GET / HTTP/1.1\nHost: x\n\n", 400);
        refused("GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n", 400);
        refused("GET / HTTP/1.1\r\nHost : x\r\n\r\n", 400);
        refused("GET / HTTP/1.1\r\nHost: x\rA: b\r\n\r\n", 400);
        refused("GET / HTTP/1.1\r\n\r\n", 400);
        refused("GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400);
        refused("GET x HTTP/1.1\r\nHost: x\r\n\r\n", 400);
        refused("GET * HTTP/1.1\r\nHost: x\r\n\r\n", 400);
        refused("GET /#a HTTP/1.1\r\nHost: x\r\n\r\n", 400);
        refused("GET http://u@h/ HTTP/1.1\r\nHost: x\r\n\r\n", 400);
        refused("CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n", 405);
        refused("GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505);
        assert_eq!(with(&Config::default(), "INVALID CONNECTION PREFACE\r\n\r\n").unwrap_err(), Refusal::NotHttp);
        refused(&format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(70_000)), 431);
        refused(&format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "A: b\r\n".repeat(200)), 431);
    }

    #[test]
    fn absolute_targets_take_the_place_of_host() {
        check("GET http://a:1/b?c HTTP/1.1\r\nHost: x\r\n\r\n", "GET /b?c HTTP/1.1\r\nHost: a:1\r\n\r\n");
        check("OPTIONS http://a HTTP/1.1\r\nHost: x\r\n\r\n", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n");
    }

    #[test]
    fn a_request_without_a_host_goes_on_with_one() {
        check("GET /b HTTP/1.0\r\n\r\n", "GET /b HTTP/1.1\r\nHost: 127.0.0.1:3000\r\n\r\n");
        check("GET http://a:1/b HTTP/1.0\r\n\r\n", "GET /b HTTP/1.1\r\nHost: a:1\r\n\r\n");
    }

    #[test]
    fn the_host_that_is_passed_on_is_the_one_that_was_asked() {
        let config = Config { forwarded: Forwarded::XForwarded, ..Config::default() };
        let (_, written) = with(&config, "GET http://a/ HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        assert!(written.contains("\r\nX-Forwarded-Host: a\r\n"), "{written}");
    }

    #[test]
    fn connection_does_not_take_away_who_the_client_is() {
        let fields = "X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-Proto: https\r\nX-Request-Id: 5\r\nForwarded: for=a\r\n";
        let names = "X-Forwarded-For, X-Forwarded-Proto, X-Request-Id, Forwarded";
        check(
            &format!("GET / HTTP/1.1\r\nHost: x\r\nConnection: {names}\r\n{fields}\r\n"),
            &format!("GET / HTTP/1.1\r\nHost: x\r\n{fields}\r\n"),
        );
    }

    #[test]
    fn upgrades() {
        let head = |fields: &str| format!("GET / HTTP/1.1\r\nHost: x\r\n{fields}\r\n");
        let (request, written) =
            with(&Config::default(), &head("Upgrade: WebSocket\r\nConnection: Upgrade\r\n")).unwrap();
        assert_eq!(request.upgrade, Some(Upgrade::WebSocket));
        assert!(written.ends_with("Connection: Upgrade\r\nUpgrade: WebSocket\r\n\r\n"), "{written}");
        let none = |fields: &str| {
            let (request, written) = with(&Config::default(), &head(fields)).unwrap();
            assert_eq!((request.upgrade, written.contains("pgrade")), (None, false), "{written}");
        };
        none("Upgrade: websocket\r\n");
        none("Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAA\r\n");
    }

    #[test]
    fn who_the_client_is() {
        let config = Config { forwarded: Forwarded::XForwarded, request_id: true, ..Config::default() };
        let (_, written) =
            with(&config, "GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 1.1.1.1\r\nX-Forwarded-Proto: https\r\n\r\n")
                .unwrap();
        assert!(written.contains("\r\nX-Forwarded-For: 1.1.1.1, 10.0.0.9\r\n"), "{written}");
        assert!(written.contains("\r\nX-Forwarded-Host: x\r\n"), "{written}");
        assert_eq!(written.matches("X-Forwarded-Proto").count(), 1, "{written}");
        assert_eq!(id_of(written.as_bytes()), format!("{:032x}", 7));
        let config = Config { forwarded: Forwarded::Forwarded, ..Config::default() };
        let (_, written) = with(&config, "GET / HTTP/1.1\r\nHost: x\r\nForwarded: for=a\r\n\r\n").unwrap();
        assert!(written.contains("\r\nForwarded: for=a, for=10.0.0.9;proto=http\r\n"), "{written}");
    }

    #[test]
    fn what_it_is_to_us() {
        let config = Config {
            health_path: Some("/healthz".into()),
            long_polls: vec![crate::config::LongPoll { prefix: "/poll".into(), status: 204 }],
            ..Config::default()
        };
        let of = |head: &str| with(&config, head).unwrap().0;
        assert!(of("GET / HTTP/1.1\r\nHost: x\r\nUser-Agent: kube-probe/1.30\r\n\r\n").probe);
        assert!(of("GET /healthz?a HTTP/1.1\r\nHost: x\r\n\r\n").health);
        assert_eq!(of("GET /poll/7 HTTP/1.1\r\nHost: x\r\n\r\n").long_poll, Some(204));
        assert!(!of("GET / HTTP/1.0\r\n\r\n").keep_alive);
        assert!(of("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").keep_alive);
        assert!(!of("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").keep_alive);
        assert!(!of("POST / HTTP/1.1\r\nHost: x\r\n\r\n").idempotent);
    }

    #[test]
    fn a_part_is_not_a_head() {
        let config = Config::default();
        let context = Context { config: &config, client: Ipv4Addr::LOCALHOST.into(), new_id: 0 };
        let whole = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
        for end in 0..whole.len() {
            assert_eq!(read(&whole[..end], &context, &mut Vec::new(), None), Ok(None), "{end}");
        }
    }

    /// Lines of which every one means something, now and then with something in between.
    fn head() -> impl Strategy<Value = Vec<u8>> {
        let line = proptest::sample::select(vec!["GET / HTTP/1.1", "POST http://a/b HTTP/1.1", "HEAD /?c HTTP/1.0"]);
        let field = proptest::sample::select(vec![
            "Host: x",
            "Content-Length: 07",
            "Transfer-Encoding: Chunked",
            "Connection: A, Host, upgrade",
            "Connection: close",
            "Upgrade: websocket",
            "TE: trailers",
            "Keep-Alive: 5",
            "Expect: 100-continue",
            "X-Request-Id: 1",
            "A: \t b \t",
            "",
        ]);
        let fields = proptest::collection::vec(field, 0..6);
        (line, fields, proptest::option::of((any::<usize>(), any::<u8>()))).prop_map(|(line, fields, odd)| {
            let mut head = format!("{line}\r\n{}\r\n\r\n", fields.join("\r\n")).into_bytes();
            if let Some((at, byte)) = odd {
                let at = at % head.len();
                head.insert(at, byte);
            }
            head
        })
    }

    proptest! {
        #[test]
        fn what_is_accepted_reads_back_as_itself(head in head()) {
            let config = Config::default();
            let context = Context { config: &config, client: Ipv4Addr::LOCALHOST.into(), new_id: 0 };
            let (mut out, mut again) = (Vec::new(), Vec::new());
            if let Ok(Some(request)) = read(&head, &context, &mut out, None) {
                for end in 0..request.length {
                    prop_assert_eq!(read(&head[..end], &context, &mut Vec::new(), None), Ok(None));
                }
                let same = read(&out, &context, &mut again, None).unwrap().unwrap();
                prop_assert_eq!(out.escape_ascii().to_string(), again.escape_ascii().to_string());
                prop_assert_eq!((same.length, same.framing, same.upgrade), (out.len(), request.framing, request.upgrade));
                let text = String::from_utf8_lossy(&out).to_ascii_lowercase();
                let count = |name: &str| text.matches(&format!("\r\n{name}: ")).count();
                prop_assert_eq!(count("host"), 1);
                let framed = usize::from(request.framing != Framing::None);
                prop_assert_eq!(count("content-length") + count("transfer-encoding"), framed);
            }
        }
    }
}
