//! A response head, from the app to the client.

use std::mem::MaybeUninit;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::fields::{self, Kind, Options};
use super::{Field, MOST_FIELDS, write_field, write_number};

/// The longest response head, in bytes.
pub const LONGEST: usize = 128 << 10;

/// How long a response's body is (RFC 9112 section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    None,
    /// This many bytes.
    Length(u64),
    /// Chunks.
    Chunked,
    /// All until the app closes.
    UntilClose,
}

/// Why a response is not passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// Not an HTTP/1 head.
    #[error("the app's answer is not an HTTP/1.1 response head: {0}")]
    Syntax(httparse::Error),
    /// Larger than [`LONGEST`], or more than [`MOST_FIELDS`] fields.
    #[error("the app's response head is too large")]
    TooLarge,
    /// Lengths that contradict each other.
    #[error("the app's answer has lengths that contradict each other")]
    Length,
    /// A transfer coding other than chunked.
    #[error("the app's answer has a transfer coding other than chunked")]
    Encoding,
    /// A switch of protocols that nobody asked for.
    #[error("the app switched protocols without being asked to")]
    Switch,
}

/// What is known of the request that is being answered.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "independent properties of the request")]
pub struct Asked {
    /// It was `HEAD`.
    pub head: bool,
    /// The client speaks HTTP/1.0.
    pub http10: bool,
    /// The client may keep its connection.
    pub keep_alive: bool,
    /// It asked for an upgrade.
    pub upgrade: bool,
}

/// What there is to know of a response once its head is written out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Response {
    /// The bytes of its head.
    pub length: usize,
    /// Its status.
    pub status: u16,
    /// Its body, as the app sends it.
    pub framing: Framing,
    /// Whether the app keeps the connection.
    pub app_keeps: bool,
    /// The app's idle timeout, in s, where it says so (`Keep-Alive: timeout=5`).
    pub idle_hint_s: Option<u64>,
    /// Whether the client was told that its connection ends.
    pub closes: bool,
    /// Whether it is a stream of events (`text/event-stream`) whose ends can be seen.
    pub events: bool,
}

impl Response {
    /// Whether another response follows this one (RFC 9110 section 15.2).
    pub const fn is_interim(&self) -> bool {
        self.status < 200 && self.status != 101
    }

    /// Whether the body goes to the client in chunks.
    pub const fn chunked_to(&self, asked: Asked) -> bool {
        !asked.http10 && matches!(self.framing, Framing::Chunked | Framing::UntilClose)
    }
}

/// Reads a response head from the beginning of `input` and writes it to `out` as the client is to see it. `Ok(None)`: there
/// is more of it to come.
pub fn read(input: &[u8], asked: Asked, out: &mut Vec<u8>) -> Result<Option<Response>, Wrong> {
    let head = parse(input, asked, |reason, all, seen, response| write(out, reason, all, seen, response, asked))?;
    Ok(head.map(|(response, ())| response))
}

/// The same for a client that speaks HTTP/2: `None` for a field that HTTP/2 does not know.
pub fn read_for_http2(input: &[u8], asked: Asked) -> Result<Option<(Response, HeaderMap)>, Wrong> {
    parse(input, asked, |_, all, seen, response| {
        let mut fields = HeaderMap::with_capacity(all.len());
        let mut add = |name: &[u8], value: &[u8]| {
            if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
                fields.append(name, value);
            }
        };
        for field in all {
            if goes_on(field, seen) {
                add(field.name.as_bytes(), field.value);
            }
        }
        if let Some(length) = stated_length(response, seen) {
            let mut digits = Vec::new();
            write_number(&mut digits, length);
            add(b"content-length", &digits);
        }
        fields
    })
}

/// The length that an answer states, be it that of the body it would have (RFC 9110 section 8.6); 1xx and 204 have none.
fn stated_length(response: &Response, seen: &Seen<'_>) -> Option<u64> {
    match response.framing {
        Framing::Length(length) => Some(length),
        Framing::None if response.status >= 200 && response.status != 204 && !seen.chunked => seen.length,
        Framing::None | Framing::Chunked | Framing::UntilClose => None,
    }
}

/// Whether a field goes on to the client as it is.
fn goes_on(field: &Field<'_>, seen: &Seen<'_>) -> bool {
    !fields::kind(field.name.as_bytes()).is_for_one_hop() && !seen.options.names(field)
}

fn parse<R>(
    input: &[u8],
    asked: Asked,
    with: impl FnOnce(&str, &[Field<'_>], &Seen<'_>, &Response) -> R,
) -> Result<Option<(Response, R)>, Wrong> {
    let mut storage = [const { MaybeUninit::uninit() }; MOST_FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let parser = httparse::ParserConfig::default();
    let length = match parser.parse_response_with_uninit_headers(&mut parsed, input, &mut storage) {
        Ok(httparse::Status::Complete(length)) if length <= LONGEST => length,
        Ok(httparse::Status::Partial) if input.len() <= LONGEST => return Ok(None),
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(Wrong::TooLarge),
        Err(error) => return Err(Wrong::Syntax(error)),
    };
    // Below 100 there is no status (RFC 9110 section 15): neither an interim answer nor one with a body.
    let (Some(status @ 100..), Some(version)) = (parsed.code, parsed.version) else {
        return Err(Wrong::Syntax(httparse::Error::Status));
    };
    let seen = Seen::of(parsed.headers)?;
    if status == 101 && !asked.upgrade {
        return Err(Wrong::Switch);
    }
    let framing = match (status, seen.chunked, seen.length) {
        (100..=199 | 204 | 304, _, _) => Framing::None,
        _ if asked.head => Framing::None,
        (_, true, _) => Framing::Chunked,
        (_, false, Some(length)) => Framing::Length(length),
        (_, false, None) => Framing::UntilClose,
    };
    // Some apps send the body to which this length belongs all the same, and a moment later: it is not to be taken for the
    // next answer.
    let may_send_body = framing == Framing::None && (seen.chunked || seen.length.is_some_and(|length| length > 0));
    // Chunks beside a length, or in HTTP/1.0, which has none: who sends that is not to be believed in what follows either (RFC
    // 9112 sections 6.1 and 6.3).
    let is_doubtful = seen.chunked && (seen.length.is_some() || version == 0);
    let mut response = Response {
        length,
        status,
        framing,
        app_keeps: framing != Framing::UntilClose
            && !may_send_body
            && !is_doubtful
            && if version == 0 { seen.options.keep_alive } else { !seen.options.close },
        idle_hint_s: seen.idle_hint_s,
        closes: false,
        events: seen.events && !seen.encoded,
    };
    response.closes = !response.is_interim()
        && status != 101
        && (!asked.keep_alive || (asked.http10 && matches!(framing, Framing::Chunked | Framing::UntilClose)));
    let made = with(parsed.reason.unwrap_or_default(), parsed.headers, &seen, &response);
    Ok(Some((response, made)))
}

fn write(out: &mut Vec<u8>, reason: &str, all: &[Field<'_>], seen: &Seen<'_>, response: &Response, asked: Asked) {
    out.extend_from_slice(b"HTTP/1.1 ");
    write_number(out, u64::from(response.status));
    out.push(b' ');
    out.extend_from_slice(reason.as_bytes());
    out.extend_from_slice(b"\r\n");
    for field in all {
        if goes_on(field, seen) {
            write_field(out, field.name.as_bytes(), field.value);
        }
    }
    if let Some(length) = stated_length(response, seen) {
        write_length(out, length);
    } else if matches!(response.framing, Framing::Chunked | Framing::UntilClose) && !asked.http10 {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    }
    if response.status == 101 {
        write_field(out, b"Connection", b"Upgrade");
        write_field(out, b"Upgrade", seen.upgrade);
    } else if response.closes {
        out.extend_from_slice(b"Connection: close\r\n");
    } else if asked.http10 && !response.is_interim() {
        out.extend_from_slice(b"Connection: keep-alive\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// Whether a `Content-Type` is that of a stream of events (HTML Standard, section 9.2).
pub fn is_event_stream(content_type: &[u8]) -> bool {
    let name = content_type.split(|byte| *byte == b';').next().unwrap_or_default();
    name.trim_ascii().eq_ignore_ascii_case(b"text/event-stream")
}

fn write_length(out: &mut Vec<u8>, length: u64) {
    out.extend_from_slice(b"Content-Length: ");
    write_number(out, length);
    out.extend_from_slice(b"\r\n");
}

#[derive(Debug)]
struct Seen<'a> {
    options: Options<'a>,
    length: Option<u64>,
    chunked: bool,
    upgrade: &'a [u8],
    idle_hint_s: Option<u64>,
    events: bool,
    encoded: bool,
}

impl<'a> Seen<'a> {
    fn of(all: &[Field<'a>]) -> Result<Seen<'a>, Wrong> {
        let mut seen = Seen {
            options: Options::default(),
            length: None,
            chunked: false,
            upgrade: b"",
            idle_hint_s: None,
            events: false,
            encoded: false,
        };
        for field in all {
            match fields::kind(field.name.as_bytes()) {
                Kind::Connection => {
                    if !seen.options.add(field.value) {
                        return Err(Wrong::TooLarge);
                    }
                }
                Kind::ContentLength => {
                    let value = fields::length(field.value).ok_or(Wrong::Length)?;
                    if seen.length.replace(value).is_some_and(|before| before != value) {
                        return Err(Wrong::Length);
                    }
                }
                Kind::TransferEncoding => {
                    if seen.chunked || !field.value.eq_ignore_ascii_case(b"chunked") {
                        return Err(Wrong::Encoding);
                    }
                    seen.chunked = true;
                }
                Kind::Upgrade => seen.upgrade = field.value,
                Kind::HopByHop if field.name.eq_ignore_ascii_case("keep-alive") => {
                    seen.idle_hint_s = fields::members(field.value).find_map(|member| {
                        let value = member.strip_prefix(b"timeout=")?;
                        fields::length(value)
                    });
                }
                Kind::ContentType => seen.events = is_event_stream(field.value),
                Kind::ContentEncoding => seen.encoded |= !field.value.eq_ignore_ascii_case(b"identity"),
                Kind::Host
                | Kind::Te
                | Kind::HopByHop
                | Kind::Expect
                | Kind::UserAgent
                | Kind::RequestId
                | Kind::ForwardedFor
                | Kind::ForwardedProto
                | Kind::ForwardedHost
                | Kind::Forwarded
                | Kind::Disguised
                | Kind::Other => {}
            }
        }
        Ok(seen)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ASKED: Asked = Asked { head: false, http10: false, keep_alive: true, upgrade: false };

    fn read_one(input: &str, asked: Asked) -> Result<(Response, String), Wrong> {
        let mut out = Vec::new();
        read(input.as_bytes(), asked, &mut out)
            .map(|response| (response.expect("the head is whole"), String::from_utf8(out).unwrap()))
    }

    fn check(input: &str, asked: Asked, expect: &str) -> Response {
        let (response, written) = read_one(input, asked).unwrap();
        assert_eq!(written, expect);
        response
    }

    #[test]
    fn written_anew() {
        let response = check(
            "HTTP/1.1 200 OK\r\nA: b\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\nContent-Length: 3\r\n\r\n",
            ASKED,
            "HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 3\r\n\r\n",
        );
        assert_eq!((response.framing, response.idle_hint_s), (Framing::Length(3), Some(5)));
        assert!(response.app_keeps && !response.closes);
        check("HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", ASKED, "HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n");
    }

    #[test]
    fn a_client_that_is_to_leave_is_told() {
        let asked = Asked { keep_alive: false, ..ASKED };
        let response = check(
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            asked,
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        );
        assert!(response.closes && response.app_keeps);
    }

    #[test]
    fn bodies() {
        let framing = |fields: &str, asked: Asked| {
            read_one(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n"), asked).map(|(response, _)| response.framing)
        };
        assert_eq!(framing("Transfer-Encoding: chunked\r\n", ASKED), Ok(Framing::Chunked));
        assert_eq!(framing("", ASKED), Ok(Framing::UntilClose));
        assert_eq!(framing("Content-Length: 5\r\nContent-Length: 5\r\n", ASKED), Ok(Framing::Length(5)));
        assert_eq!(framing("Content-Length: 5\r\n", Asked { head: true, ..ASKED }), Ok(Framing::None));
        assert_eq!(framing("Content-Length: 5\r\nContent-Length: 6\r\n", ASKED), Err(Wrong::Length));
        assert_eq!(framing("Transfer-Encoding: gzip\r\n", ASKED), Err(Wrong::Encoding));
        let both = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n";
        let (response, written) = read_one(both, ASKED).unwrap();
        assert!(!response.app_keeps && !written.contains("Content-Length"), "{written}");
    }

    #[test]
    fn below_100_there_is_no_status() {
        for status in ["099", "000"] {
            let wrong = read_one(&format!("HTTP/1.1 {status} X\r\nContent-Length: 5\r\n\r\n"), ASKED).unwrap_err();
            assert_eq!(wrong, Wrong::Syntax(httparse::Error::Status));
        }
    }

    #[test]
    fn an_app_that_sends_chunks_by_http_1_0_is_not_used_again() {
        let head = "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n";
        let (response, _) = read_one(head, ASKED).unwrap();
        assert!(!response.app_keeps);
    }

    #[test]
    fn http_1_0_gets_no_chunks() {
        let asked = Asked { http10: true, ..ASKED };
        let response = check(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            asked,
            "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
        );
        assert!(!response.chunked_to(asked));
        check(
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n",
            asked,
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: keep-alive\r\n\r\n",
        );
    }

    #[test]
    fn interim_and_switching() {
        let asked = Asked { keep_alive: false, ..ASKED };
        assert!(
            check("HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n", asked, "HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n")
                .is_interim()
        );
        assert_eq!(read_one("HTTP/1.1 101 S\r\nUpgrade: a\r\n\r\n", ASKED), Err(Wrong::Switch));
        check(
            "HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n",
            Asked { upgrade: true, ..ASKED },
            "HTTP/1.1 101 S\r\nSec-WebSocket-Accept: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        );
    }

    #[test]
    fn events() {
        let (response, _) =
            read_one("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n\r\n", ASKED).unwrap();
        assert!(response.events);
        let packed = "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Type: text/event-stream\r\n\r\n";
        assert!(!read_one(packed, ASKED).unwrap().0.events, "where an event ends can not be seen");
    }

    /// Lines of which every one means something, now and then with something in between.
    fn head() -> impl Strategy<Value = Vec<u8>> {
        let line =
            proptest::sample::select(vec!["HTTP/1.1 200 OK", "HTTP/1.0 304", "HTTP/1.1 103 A", "HTTP/1.1 101 S"]);
        let field = proptest::sample::select(vec![
            "Content-Length: 07",
            "Transfer-Encoding: Chunked",
            "Connection: A, keep-alive",
            "Connection: close",
            "Upgrade: websocket",
            "Keep-Alive: timeout=5",
            "Content-Type: text/event-stream",
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
        fn what_is_accepted_reads_back_as_itself(bytes in head(), asked in any::<[bool; 4]>()) {
            let [head, http10, keep_alive, upgrade] = asked;
            let asked = Asked { head, http10, keep_alive, upgrade };
            let (mut out, mut again) = (Vec::new(), Vec::new());
            let whole = read(&bytes, asked, &mut out);
            let over_http2 = read_for_http2(&bytes, asked).map(|head| head.map(|(response, _)| response));
            prop_assert_eq!(over_http2, whole);
            if let Ok(Some(response)) = whole {
                for end in 0..response.length {
                    prop_assert_eq!(read(&bytes[..end], asked, &mut Vec::new()), Ok(None));
                }
                let same = read(&out, asked, &mut again).unwrap().unwrap();
                prop_assert_eq!(out.escape_ascii().to_string(), again.escape_ascii().to_string());
                prop_assert_eq!((same.length, same.status, same.closes), (out.len(), response.status, response.closes));
                let text = String::from_utf8_lossy(&out).to_ascii_lowercase();
                let count = |name: &str| text.matches(&format!("\r\n{name}: ")).count();
                prop_assert!(count("content-length") + count("transfer-encoding") <= 1);
                prop_assert_eq!(count("transfer-encoding") == 1, response.chunked_to(asked));
                prop_assert_eq!(count("keep-alive"), 0);
            }
        }
    }
}
