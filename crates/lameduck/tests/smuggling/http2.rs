//! The same over HTTP/2, which frames messages itself: what a field says of that must not come true on the HTTP/1.1 side
//! (RFC 9113 sections 8.1.1, 8.2 and 10.3). Frames are written by hand, since a client library refuses to send these.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::vectors::HIDDEN;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// A stream, and what the front is to make of it.
#[derive(Debug, Clone)]
pub struct Vector {
    pub name: String,
    /// The fields of its head, pseudo fields too, in this order.
    pub fields: Vec<(String, String)>,
    /// Its body, in frames; without any, it ends with its head.
    pub data: Vec<String>,
    pub trailers: Vec<(String, String)>,
    /// The body of the request that goes on to the app, if it is to.
    pub body: Option<String>,
    /// Whether the stream is reset after that, which may come first.
    pub is_reset: bool,
}

fn vector(name: &str, changes: &[(&str, &str)], data: &[&str], body: Option<&str>) -> Vector {
    let mut fields: Vec<(String, String)> =
        [(":method", "POST"), (":scheme", "http"), (":path", "/§"), (":authority", "x")].map(own).into();
    for (name, value) in changes {
        let added = name.strip_prefix('+');
        match fields.iter_mut().find(|(known, _)| known == name) {
            Some(field) if added.is_none() => *field = own((name, value)),
            Some(_) | None => fields.push(own((added.unwrap_or(name), value))),
        }
    }
    // A pseudo field is left out by this value.
    fields.retain(|(_, value)| value != "(none)");
    Vector {
        name: format!("{name}: {changes:?} {data:?}"),
        fields,
        data: data.iter().map(|&data| data.to_owned()).collect(),
        trailers: Vec::new(),
        body: body.map(str::to_owned),
        is_reset: false,
    }
}

fn own((name, value): (&str, &str)) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

/// All of them.
pub fn all() -> Vec<Vector> {
    let mut all = Vec::new();
    let mut refused = |name: &str, changes: &[(&str, &str)], data: &[&str]| all.push(vector(name, changes, data, None));
    fields(&mut refused);
    framing(&mut refused);
    pseudo_fields(&mut refused);
    served(|name, changes, data, body| all.push(vector(name, changes, data, Some(body))));
    // What is more than that comes to nothing.
    let nothing = vector("a length of nothing", &[("content-length", "0")], &["hello"], Some(""));
    all.push(Vector { is_reset: true, ..nothing });
    for (name, value, goes_on) in [
        ("a", "b", true),
        ("content-length", "0", true),
        ("host", "hidden", true),
        (":path", "/hidden", true),
        ("A", "b", false),
        ("a", "b\r\nc: d", false),
        ("transfer-encoding", "chunked", false),
        ("x-forwarded-for", "hidden", true),
    ] {
        let body = goes_on.then_some("hello");
        all.push(Vector {
            trailers: vec![own((name, value))],
            ..vector(&format!("trailer {name}"), &[], &["hello"], body)
        });
    }
    all
}

fn fields(refused: &mut impl FnMut(&str, &[(&str, &str)], &[&str])) {
    let split = format!("b\r\n\r\n{HIDDEN}");
    for value in ["b\r\nContent-Length: 44", "b\r\nTransfer-Encoding: chunked", "b\nc", "b\rc", "b\0c", "\x7f", &split]
    {
        for name in ["a", ":path", ":authority", ":method", "cookie", "host", "user-agent"] {
            let value = if name == ":path" { format!("/§{value}") } else { value.to_owned() };
            refused("in a value", &[(name, &value)], &[HIDDEN]);
        }
    }
    for name in [
        "A",
        "Content-Length",
        "a b",
        "a:b",
        ":a",
        "",
        "a\r\nb",
        "a\0",
        "a\n",
        " a",
        "a:",
        "a\x7f",
        "transfer-encoding: chunked\r\na",
    ] {
        refused("a name", &[(name, "44")], &[HIDDEN]);
    }
}

fn framing(refused: &mut impl FnMut(&str, &[(&str, &str)], &[&str])) {
    for (name, value) in [
        ("transfer-encoding", "chunked"),
        ("transfer-encoding", "identity"),
        ("connection", "close"),
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "close"),
        ("te", "gzip"),
        ("te", "chunked"),
        ("content_length", "0"),
        ("transfer_encoding", "chunked"),
        ("content.length", "0"),
    ] {
        refused("a field of HTTP/1.1", &[(name, value)], &[HIDDEN]);
    }
    for value in ["4", "6", "5,5", "5, 5", "+5", "-5", "", "0x5", "5 ", "a", "99999999999999999999"] {
        refused("a length", &[("content-length", value)], &["hello"]);
        refused("a length in two frames", &[("content-length", value)], &["hel", "lo"]);
    }
    refused("a length and no body", &[("content-length", "5")], &[]);
    refused("two lengths", &[("content-length", "5"), ("+content-length", "5")], &["hello"]);
    refused("two lengths", &[("content-length", "5"), ("+content-length", "0")], &["hello"]);
    refused("two lengths", &[("content-length", "0"), ("+content-length", "5")], &["hello"]);
}

fn pseudo_fields(refused: &mut impl FnMut(&str, &[(&str, &str)], &[&str])) {
    for path in
        ["(none)", "", "§", "?/§", "*", "/§ HTTP/1.1", "/§ /", "/§\t", "http://x/§", "x:80", "\\§", "/§\x01", " /§"]
    {
        refused("a path", &[(":path", path)], &[HIDDEN]);
        refused("a path", &[(":path", path), (":method", "GET")], &[]);
    }
    for method in ["(none)", "", "G T", "GET / HTTP/1.1", "G:", "CONNECT", "(", "GET\t"] {
        refused("a method", &[(":method", method)], &[HIDDEN]);
    }
    for authority in ["x y", "x/§", "x?", "x#", "u@x", "x\\", "x, y"] {
        refused("an authority", &[(":authority", authority)], &[]);
    }
    refused("no scheme", &[(":scheme", "(none)")], &[]);
    refused("two hosts", &[("host", "x"), ("+host", "y")], &[]);
    for (name, value) in [(":method", "GET"), (":path", "/hidden"), (":authority", "y"), (":scheme", "http")] {
        let name = format!("+{name}");
        refused("twice", &[(&name, value)], &[]);
        refused("too late", &[("a", "b"), (&name, value)], &[]);
    }
    refused("an answer's", &[(":status", "200")], &[]);
}

fn served(mut served: impl FnMut(&str, &[(&str, &str)], &[&str], &str)) {
    served("a body", &[], &[HIDDEN], HIDDEN);
    served("a body in frames", &[], &["", "hel", "", "lo", ""], "hello");
    served("a body with a length", &[("content-length", "5")], &["hel", "lo"], "hello");
    served("a body with a length", &[("content-length", "0")], &[""], "");
    served("no body", &[], &[], "");
    for method in ["GET", "HEAD", "DELETE", "OPTIONS", "get", "X"] {
        served("a method", &[(":method", method)], &[HIDDEN], HIDDEN);
        served("a method", &[(":method", method)], &[], "");
    }
    for (name, value) in [
        ("te", "trailers"),
        ("expect", "100-continue"),
        ("host", "y"),
        ("a", "\u{80}\u{ff}"),
        ("a", ""),
        ("trailer", "content-length"),
        ("a", "Transfer-Encoding: chunked"),
        ("x-content-length", "0"),
        ("http2-settings", "AAMAAABkAAQAAP__"),
    ] {
        served("a field", &[(name, value)], &[HIDDEN], HIDDEN);
    }
    for authority in ["x", "(none)"] {
        served("of all", &[(":method", "OPTIONS"), (":path", "*"), (":authority", authority)], &[], "");
        served("of the root", &[(":method", "OPTIONS"), (":path", "/"), (":authority", authority)], &[], "");
    }
    served("no authority", &[(":authority", "(none)"), ("host", "x")], &[HIDDEN], HIDDEN);
    served("neither authority nor host", &[(":authority", "(none)")], &[HIDDEN], HIDDEN);
}

/// What came of a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Heard {
    /// The bodies of streams 1 and 3, once they ended by themselves.
    pub first: Option<Vec<u8>>,
    pub marker: Option<Vec<u8>>,
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// A block of literal fields, none of them indexed nor compressed (RFC 7541 section 6.2.2).
fn block(fields: &[(String, String)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        out.push(0);
        for text in [name, value] {
            // Each character is the byte of its number.
            let bytes = text.chars().map(|c| c as u8);
            let length = bytes.clone().count();
            if length < 127 {
                out.push(length as u8);
            } else {
                assert!(length < 255, "two bytes of length are enough here");
                out.extend_from_slice(&[127, (length - 127) as u8]);
            }
            out.extend(bytes);
        }
    }
    out
}

/// Sends it on stream 1, and a request for `marker` on stream 3.
pub fn send(front: SocketAddr, vector: &Vector, marker: &str) -> Heard {
    let mut out = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    frame(&mut out, SETTINGS, 0, 0, &[]);
    let more = !vector.data.is_empty() || !vector.trailers.is_empty();
    frame(&mut out, HEADERS, END_HEADERS | if more { 0 } else { END_STREAM }, 1, &block(&vector.fields));
    for (at, data) in vector.data.iter().enumerate() {
        let last = at + 1 == vector.data.len() && vector.trailers.is_empty();
        frame(&mut out, DATA, u8::from(last), 1, data.as_bytes());
    }
    if !vector.trailers.is_empty() {
        frame(&mut out, HEADERS, END_HEADERS | END_STREAM, 1, &block(&vector.trailers));
    }
    let get = [(":method", "GET"), (":scheme", "http"), (":path", marker), (":authority", "x")].map(own);
    frame(&mut out, HEADERS, END_HEADERS | END_STREAM, 3, &block(&get));
    let mut stream = TcpStream::connect(front).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.write_all(&out).unwrap();
    listen(&mut stream)
}

fn listen(stream: &mut TcpStream) -> Heard {
    let mut heard = Heard::default();
    let (mut bodies, mut over) = ([Vec::new(), Vec::new()], [false; 2]);
    let mut prefix = [0; 9];
    while over != [true; 2] && stream.read_exact(&mut prefix).is_ok() {
        let length = u32::from_be_bytes([0, prefix[0], prefix[1], prefix[2]]) as usize;
        let mut payload = vec![0; length];
        if stream.read_exact(&mut payload).is_err() {
            break;
        }
        let (kind, flags, id) =
            (prefix[3], prefix[4], u32::from_be_bytes([prefix[5], prefix[6], prefix[7], prefix[8]]));
        if kind == GOAWAY {
            break;
        }
        if id != 1 && id != 3 {
            continue;
        }
        let which = (id / 2) as usize;
        match kind {
            DATA => bodies[which].extend_from_slice(&payload),
            RST_STREAM => over[which] = true,
            _ => {}
        }
        if matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
            over[which] = true;
            let body = Some(std::mem::take(&mut bodies[which]));
            if id == 1 {
                heard.first = body;
            } else {
                heard.marker = body;
            }
        }
    }
    heard
}
