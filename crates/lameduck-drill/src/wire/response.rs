//! Reads one HTTP/1 answer from bytes that arrive in any portions, and says where it ends (RFC 9112, section 6.3).

use super::chunked::Decoder;

/// The longest head accepted, in bytes.
const LONGEST_HEAD: usize = 64 << 10;
/// The most header fields accepted.
const MOST_FIELDS: usize = 128;

/// Bytes that are not an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

#[derive(Debug, Clone)]
enum Body {
    /// So many bytes left.
    Length(u64),
    Chunked(Decoder),
    UntilClose,
}

/// What the head of an answer said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) status: u16,
    /// Whether the connection may be used again, as far as the head says.
    pub(crate) keep: bool,
    /// Whether `Connection: close` was said (not merely implied).
    pub(crate) said_close: bool,
    /// Whether the id sent in `X-Request-Id` came back.
    pub(crate) echoed: bool,
}

/// One answer, as far as it has been read.
#[derive(Debug)]
pub(crate) struct Reader<'r> {
    /// Whether the request was HEAD: an answer to it has no body.
    to_head: bool,
    /// The id sent.
    id: &'r str,
    buffer: Vec<u8>,
    head: Option<(Head, Body)>,
    done: bool,
    /// How often `100 Continue` came.
    continues: u32,
    /// Bytes came after the end of the answer: the connection is not used again.
    surplus: bool,
}

impl<'r> Reader<'r> {
    pub(crate) fn new(to_head: bool, id: &'r str) -> Reader<'r> {
        Reader { to_head, id, buffer: Vec::new(), head: None, done: false, continues: 0, surplus: false }
    }

    /// What the head said, once it is there.
    pub(crate) fn head(&self) -> Option<Head> {
        self.head.as_ref().map(|(head, _)| *head)
    }

    /// Whether the server has asked for a body that was held back.
    pub(crate) fn continued(&self) -> bool {
        self.continues > 0
    }

    /// Whether the connection can carry another request.
    pub(crate) fn reusable(&self) -> bool {
        self.done && !self.surplus && self.head().is_some_and(|head| head.keep)
    }

    /// Takes bytes from the connection. Returns whether the answer is whole.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<bool, Malformed> {
        if self.done {
            self.surplus |= !bytes.is_empty();
            return Ok(true);
        }
        if self.head.is_some() {
            self.body(bytes)?;
            return Ok(self.done);
        }
        self.buffer.extend_from_slice(bytes);
        while self.head.is_none() && !self.buffer.is_empty() {
            let Some((length, head)) = parse_head(&self.buffer, self.to_head, self.id)? else {
                return if self.buffer.len() > LONGEST_HEAD { Err(Malformed) } else { Ok(false) };
            };
            let rest = self.buffer.split_off(length);
            // An interim answer (1xx) is skipped; 101 would be final, but nothing here asks for an upgrade.
            self.continues += u32::from(head.is_none() && self.buffer.get(9..12) == Some(b"100"));
            self.head = head;
            self.buffer = rest;
        }
        if self.head.is_some() {
            let rest = std::mem::take(&mut self.buffer);
            self.body(&rest)?;
        }
        Ok(self.done)
    }

    fn body(&mut self, bytes: &[u8]) -> Result<(), Malformed> {
        let Some((_, body)) = &mut self.head else { return Ok(()) };
        let taken = match body {
            Body::Length(left) => {
                let take = (*left).min(bytes.len() as u64);
                *left -= take;
                self.done = *left == 0;
                take as usize
            }
            Body::Chunked(decoder) => {
                let taken = decoder.feed(bytes).map_err(|_| Malformed)?;
                self.done = decoder.is_done();
                taken
            }
            Body::UntilClose => bytes.len(),
        };
        self.surplus |= taken < bytes.len();
        Ok(())
    }

    /// The server closed. Returns whether that is the end of a whole answer, not a cut.
    pub(crate) fn end_of_stream(&mut self) -> bool {
        if let Some((head, Body::UntilClose)) = &mut self.head {
            head.keep = false;
            self.done = true;
        }
        self.done
    }
}

/// A head and its length in bytes; `None` inside for an interim answer; `None` outside where more bytes are needed.
type ParsedHead = Option<(usize, Option<(Head, Body)>)>;

fn parse_head(bytes: &[u8], to_head: bool, id: &str) -> Result<ParsedHead, Malformed> {
    let mut fields = [httparse::EMPTY_HEADER; MOST_FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(length) = response.parse(bytes).map_err(|_| Malformed)? else { return Ok(None) };
    let status = response.code.ok_or(Malformed)?;
    if (100..200).contains(&status) {
        return if status == 101 { Err(Malformed) } else { Ok(Some((length, None))) };
    }
    let fields: &[httparse::Header<'_>] = response.headers;
    let named = |name: &'static str| fields.iter().filter(move |field| field.name.eq_ignore_ascii_case(name));
    let has_token = |name: &'static str, token: &str| {
        named(name).any(|field| {
            field.value.split(|b| *b == b',').any(|t| t.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
        })
    };

    let said_close = has_token("connection", "close");
    let mut keep = !said_close && (response.version == Some(1) || has_token("connection", "keep-alive"));
    let echoed = named("x-request-id").any(|field| field.value == id.as_bytes());
    let codings = named("transfer-encoding").count();
    let body = if to_head || status == 204 || status == 304 {
        Body::Length(0)
    } else if codings > 0 {
        // Both ways of framing at once is how answers get smuggled: read it, but never reuse the connection.
        keep &= named("content-length").next().is_none();
        let last = named("transfer-encoding").next_back().map_or(&b""[..], |field| field.value);
        let last = last.rsplit(|b| *b == b',').next().unwrap_or_default().trim_ascii();
        if last.eq_ignore_ascii_case(b"chunked") { Body::Chunked(Decoder::new()) } else { Body::UntilClose }
    } else {
        match content_length(named("content-length").map(|field| field.value))? {
            Some(length) => Body::Length(length),
            None => Body::UntilClose,
        }
    };
    keep &= !matches!(body, Body::UntilClose);
    Ok(Some((length, Some((Head { status, keep, said_close, echoed }, body)))))
}

/// The length said. Several that agree are one; several that differ are malformed (RFC 9112, section 6.3).
fn content_length<'f>(values: impl Iterator<Item = &'f [u8]>) -> Result<Option<u64>, Malformed> {
    let mut found = None;
    for value in values.flat_map(|value| value.split(|b| *b == b',')) {
        let value = value.trim_ascii();
        let digits = !value.is_empty() && value.len() < 19 && value.iter().all(u8::is_ascii_digit);
        let length = str::from_utf8(value).ok().filter(|_| digits).and_then(|v| v.parse().ok()).ok_or(Malformed)?;
        if found.is_some_and(|found| found != length) {
            return Err(Malformed);
        }
        found = Some(length);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Feeds `wire` whole, then the end of the stream: (status, whole before the end, whole after it, reusable).
    fn read(wire: &str, to_head: bool) -> Result<(u16, bool, bool, bool), Malformed> {
        let mut reader = Reader::new(to_head, "ld-x-1");
        let whole = reader.feed(wire.as_bytes())?;
        let reusable = reader.reusable();
        let at_end = reader.end_of_stream();
        Ok((reader.head().map_or(0, |head| head.status), whole, at_end, reusable))
    }

    #[test]
    fn framing() {
        let check = |wire: &str, expect: (u16, bool, bool, bool)| assert_eq!(read(wire, false), Ok(expect), "{wire:?}");
        check("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", (200, true, true, true));
        check("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi", (200, false, false, false));
        check("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nhi", (200, true, true, false)); // a surplus byte
        check(
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive, Close\r\n\r\nhi",
            (200, true, true, false),
        );
        check("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", (200, true, true, false));
        check("HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nhi", (200, true, true, true));
        check("HTTP/1.1 200 OK\r\n\r\nhi", (200, false, true, false)); // until close
        check("HTTP/1.1 204 No Content\r\n\r\n", (204, true, true, true));
        check("HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", (304, true, true, true));
        check("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", (200, true, true, true));
        check("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n", (200, false, false, false));
        check("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nhi", (200, false, true, false));
        check(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
            (200, true, true, false),
        );
        check(
            "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n",
            (404, true, true, true),
        );
        check("HTTP/1.1 200 O", (0, false, false, false));
        assert_eq!(read("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", true), Ok((200, true, true, true)));
    }

    #[test]
    fn what_is_not_an_answer() {
        for bad in [
            "SSH-2.0-OpenSSH\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1x\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz",
        ] {
            assert_eq!(read(bad, false), Err(Malformed), "{bad:?}");
        }
        assert_eq!(read(&format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(LONGEST_HEAD)), false), Err(Malformed));
    }

    #[test]
    fn an_echoed_id_is_evidence() {
        let mut reader = Reader::new(false, "ld-x-1");
        reader.feed(b"HTTP/1.1 200 OK\r\nX-Request-ID: ld-x-1\r\nContent-Length: 9\r\n\r\n").unwrap();
        assert!(reader.head().unwrap().echoed && !reader.done);
    }

    proptest! {
        #[test]
        fn any_split_reads_the_same(
            body in prop::collection::vec(any::<u8>(), 0..100), chunked in any::<bool>(), interim in any::<bool>(),
            cuts in prop::collection::vec(1usize..30, 1..50), keep_bytes in 0usize..400,
        ) {
            let mut wire = Vec::new();
            if interim {
                wire.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
            }
            if chunked {
                wire.extend_from_slice(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
                for chunk in body.chunks(7) {
                    wire.extend_from_slice(format!("{:X}\r\n", chunk.len()).as_bytes());
                    wire.extend_from_slice(chunk);
                    wire.extend_from_slice(b"\r\n");
                }
                wire.extend_from_slice(b"0\r\n\r\n");
            } else {
                wire.extend_from_slice(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes());
                wire.extend_from_slice(&body);
            }
            let whole = keep_bytes >= wire.len();
            wire.truncate(keep_bytes);
            let mut reader = Reader::new(false, "x");
            let (mut at, mut cuts) = (0, cuts.iter().cycle());
            while at < wire.len() {
                let end = (at + cuts.next().unwrap()).min(wire.len());
                prop_assert_eq!(reader.feed(&wire[at..end]).unwrap(), end == wire.len() && whole);
                at = end;
            }
            prop_assert_eq!(reader.end_of_stream(), whole);
            prop_assert_eq!(reader.reusable(), whole);
        }

        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut wire = b"HTTP/1.1 200 OK\r\n".to_vec();
            wire.extend_from_slice(&bytes);
            let _ = Reader::new(false, "x").feed(&wire);
            let _ = Reader::new(false, "x").feed(&bytes);
        }
    }
}
