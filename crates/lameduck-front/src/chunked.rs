//! The chunked transfer coding (RFC 9112, section 7.1).
//!
//! Strict, because the next server on the path may read doubtful framing in another way than we do, and then takes the
//! rest of a body for a request (RFC 9112, section 11.2): a line ends with CRLF and nothing else, a size is bare
//! hexadecimal digits, and a trailer line is exactly the grammar's. Chunk extensions are read and dropped, as section
//! 7.1.1 allows; what goes on is encoded anew.

use self::State as S;

/// A size has at most so many digits, which a `u64` holds. Longer ones, even of zeros, are what other parsers wrap
/// around.
const MOST_DIGITS: u8 = 16;

/// Chunk extensions run ahead of the payload by at most so many bytes. RFC 9112 section 7.1.1 asks for such a limit:
/// nobody sees what is dropped here, so without one a client keeps us busy for nothing (CVE-2023-39326,
/// CVE-2024-22019). Payload makes up for it byte by byte, so that a stream with a few bytes of extension in every chunk
/// may go on for ever.
pub const MOST_EXTENSION_BYTES: u64 = 4 << 10;

/// Bytes of a trailer section on the wire, without its final CRLF. They are kept until the end: about a head's worth.
pub const MOST_TRAILER_BYTES: u32 = 16 << 10;

/// Fields that mean nothing, or harm, behind the content (RFC 9110, section 6.5.1): those of framing, routing, request
/// modification, authentication, response control and content format, as RFC 7230 section 4.1.2 lists them; and those
/// in which a proxy vouches for the client, because some servers merge trailers into the head.
const FORBIDDEN_IN_TRAILERS: [&str; 48] = [
    "age",
    "authorization",
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-location",
    "content-range",
    "content-type",
    "cookie",
    "date",
    "expect",
    "expires",
    "forwarded",
    "host",
    "http2-settings",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "keep-alive",
    "location",
    "max-forwards",
    "pragma",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "range",
    "retry-after",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "vary",
    "via",
    "warning",
    "www-authenticate",
    "x-forwarded-by",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-proto",
    "x-forwarded-server",
    "x-real-ip",
    "x-request-id",
];

/// Why bytes are not the chunked coding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// Where a size should begin.
    #[error("a chunk begins with {:?}, expected a hexadecimal digit of its size", char::from(*.0))]
    NoSize(u8),
    /// After the digits of a size.
    #[error("{:?} after the digits of a chunk's size, expected ';' or CRLF", char::from(*.0))]
    AfterSize(u8),
    /// More than 16 digits.
    #[error("a chunk's size has more than {MOST_DIGITS} digits")]
    TooManyDigits,
    /// More than a signed 64-bit number holds.
    #[error("a chunk's size is {0:#x}, expected at most 0x7fffffffffffffff")]
    TooLarge(u64),
    /// A control character in an extension.
    #[error("{:?} in a chunk's extension, expected visible characters, spaces and tabs up to a CRLF", char::from(*.0))]
    Extension(u8),
    /// Extensions without end.
    #[error("chunk extensions have more than {MOST_EXTENSION_BYTES} bytes beyond those of the payload")]
    ExtensionsTooLong,
    /// A CR that no LF follows.
    #[error("{:?} after a CR, expected LF", char::from(*.0))]
    NoLf(u8),
    /// More data than the size announced.
    #[error("{:?} after the last byte of a chunk's data, expected CRLF", char::from(*.0))]
    AfterData(u8),
    /// In the name of a trailer field, or where it should begin.
    #[error("{:?} in the name of a trailer field, expected a token and a colon", char::from(*.0))]
    TrailerName(u8),
    /// A control character in the value of a trailer field.
    #[error("{:?} in the value of a trailer field, expected visible characters, spaces and tabs", char::from(*.0))]
    TrailerValue(u8),
    /// A trailer section without end.
    #[error("the trailer section has more than {MOST_TRAILER_BYTES} bytes")]
    TrailersTooLong,
}

/// What the next byte belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A chunk's size, with so many digits read.
    Size { value: u64, digits: u8 },
    /// A chunk's extension.
    Extension { value: u64 },
    /// The LF after a size.
    SizeLf { value: u64 },
    /// A chunk's data, so many bytes left.
    Data { left: u64 },
    /// The CR after the data.
    DataCr,
    /// The LF after the data.
    DataLf,
    /// A trailer line, or the final CRLF.
    TrailerStart,
    /// The name of a trailer field.
    TrailerName,
    /// The white space before a value.
    BeforeValue { keep: bool },
    /// The value of a trailer field.
    Value { keep: bool },
    /// The LF of a trailer line.
    TrailerLf,
    /// The final LF.
    EndLf,
    /// Something else: the whole body was read.
    Done,
    /// Nobody knows.
    Failed(Wrong),
}

/// Takes the coding off a body that arrives in any portions.
#[derive(Debug, Clone)]
pub struct Decoder {
    state: State,
    /// By how many bytes extensions are ahead of the payload.
    extension_bytes: u64,
    /// Bytes of the trailer section on the wire.
    trailer_bytes: u32,
    /// Where the last line of `trailers` begins.
    line: u32,
    trailers: Vec<u8>,
}

impl Default for Decoder {
    fn default() -> Decoder {
        Decoder {
            state: S::Size { value: 0, digits: 0 },
            extension_bytes: 0,
            trailer_bytes: 0,
            line: 0,
            trailers: Vec::new(),
        }
    }
}

impl Decoder {
    /// A decoder before the first chunk's size.
    pub fn new() -> Decoder {
        Decoder::default()
    }

    /// Decodes `input`; calls `data` with every piece of payload, in order and never empty. Returns how many bytes were
    /// consumed: all, unless the body ended within `input`. What was wrong once stays wrong.
    pub fn decode<'a>(&mut self, input: &'a [u8], data: &mut impl FnMut(&'a [u8])) -> Result<usize, Wrong> {
        let mut at = 0;
        while at < input.len() && !self.is_done() {
            if let S::Data { left } = self.state {
                let take = left.min((input.len() - at) as u64);
                let end = at + take as usize;
                data(&input[at..end]);
                at = end;
                self.extension_bytes = self.extension_bytes.saturating_sub(take);
                self.state = if take == left { S::DataCr } else { S::Data { left: left - take } };
                continue;
            }
            self.state = self.step(input[at]).unwrap_or_else(S::Failed);
            if let S::Failed(wrong) = self.state {
                return Err(wrong);
            }
            at += 1;
        }
        Ok(at)
    }

    /// Whether the final CRLF, after the last chunk and the trailers, was read.
    pub fn is_done(&self) -> bool {
        self.state == S::Done
    }

    /// The trailer section as `Name: value\r\n` lines, without the final empty line and without the fields that do not
    /// belong there (RFC 9110, section 6.5.1). Empty until the body is done.
    pub fn trailers(&self) -> &[u8] {
        if self.is_done() { &self.trailers } else { &[] }
    }

    /// Takes one byte that is not payload.
    fn step(&mut self, byte: u8) -> Result<State, Wrong> {
        match self.state {
            S::Size { value, digits } => size(value, digits, byte),
            S::Extension { value } => self.extension(value, byte),
            S::SizeLf { value: 0 } => lf(byte, S::TrailerStart),
            S::SizeLf { value } => lf(byte, S::Data { left: value }),
            S::DataCr if byte == b'\r' => Ok(S::DataLf),
            S::Data { .. } | S::DataCr => Err(Wrong::AfterData(byte)),
            S::DataLf => lf(byte, S::Size { value: 0, digits: 0 }),
            S::TrailerLf => {
                self.count_trailer()?;
                lf(byte, S::TrailerStart)
            }
            S::TrailerStart if byte == b'\r' => Ok(S::EndLf),
            S::TrailerName if byte == b':' => Ok(S::BeforeValue { keep: self.end_name()? }),
            S::TrailerStart | S::TrailerName => self.trailer_name(byte),
            S::BeforeValue { keep } if byte == b' ' || byte == b'\t' => {
                self.count_trailer()?;
                Ok(S::BeforeValue { keep })
            }
            S::BeforeValue { keep } | S::Value { keep } => self.trailer_value(keep, byte),
            S::EndLf => lf(byte, S::Done),
            S::Done => Ok(S::Done),
            S::Failed(wrong) => Err(wrong),
        }
    }

    fn extension(&mut self, value: u64, byte: u8) -> Result<State, Wrong> {
        match byte {
            b'\r' => Ok(S::SizeLf { value }),
            _ if !in_text(byte) => Err(Wrong::Extension(byte)),
            _ if self.extension_bytes >= MOST_EXTENSION_BYTES => Err(Wrong::ExtensionsTooLong),
            _ => {
                self.extension_bytes += 1;
                Ok(S::Extension { value })
            }
        }
    }

    /// Every byte of a trailer line counts, with its CRLF.
    fn count_trailer(&mut self) -> Result<(), Wrong> {
        self.trailer_bytes += 1;
        if self.trailer_bytes > MOST_TRAILER_BYTES { Err(Wrong::TrailersTooLong) } else { Ok(()) }
    }

    /// A field's name is a token, and its colon follows at once (RFC 9112, section 5.1). A line that begins with white
    /// space would be an obs-fold (section 5.2); it begins with no token, so it is refused.
    fn trailer_name(&mut self, byte: u8) -> Result<State, Wrong> {
        if !in_token(byte) {
            return Err(Wrong::TrailerName(byte));
        }
        self.count_trailer()?;
        self.trailers.push(byte);
        Ok(S::TrailerName)
    }

    /// Whether the field whose name was just read is kept.
    fn end_name(&mut self) -> Result<bool, Wrong> {
        self.count_trailer()?;
        let name = &self.trailers[self.line as usize..];
        let keep = may_trail(name);
        if keep {
            self.trailers.extend_from_slice(b": ");
        } else {
            self.trailers.truncate(self.line as usize);
        }
        Ok(keep)
    }

    fn trailer_value(&mut self, keep: bool, byte: u8) -> Result<State, Wrong> {
        if byte != b'\r' && !in_text(byte) {
            return Err(Wrong::TrailerValue(byte));
        }
        self.count_trailer()?;
        match (byte, keep) {
            (b'\r', true) => self.end_value(),
            (_, true) => self.trailers.push(byte),
            (_, false) => {}
        }
        Ok(if byte == b'\r' { S::TrailerLf } else { S::Value { keep } })
    }

    /// White space after a value is not of the value (RFC 9112, section 5.1). What stands before a value is not in
    /// `trailers`, but for the space after the colon, which an empty one has too.
    fn end_value(&mut self) {
        while matches!(self.state, S::Value { .. }) && matches!(self.trailers.last(), Some(b' ' | b'\t')) {
            self.trailers.pop();
        }
        self.trailers.extend_from_slice(b"\r\n");
        self.line = self.trailers.len() as u32;
    }
}

fn size(value: u64, digits: u8, byte: u8) -> Result<State, Wrong> {
    match ((byte as char).to_digit(16), byte) {
        (Some(_), _) if digits == MOST_DIGITS => Err(Wrong::TooManyDigits),
        // 16 digits are 64 bits.
        (Some(digit), _) => Ok(S::Size { value: value << 4 | u64::from(digit), digits: digits + 1 }),
        (None, _) if digits == 0 => Err(Wrong::NoSize(byte)),
        (None, _) if value > i64::MAX as u64 => Err(Wrong::TooLarge(value)),
        (None, b';') => Ok(S::Extension { value }),
        (None, b'\r') => Ok(S::SizeLf { value }),
        (None, _) => Err(Wrong::AfterSize(byte)),
    }
}

fn lf(byte: u8, then: State) -> Result<State, Wrong> {
    if byte == b'\n' { Ok(then) } else { Err(Wrong::NoLf(byte)) }
}

/// Whether a field may stand behind the content.
pub fn may_trail(name: &[u8]) -> bool {
    !FORBIDDEN_IN_TRAILERS.iter().any(|field| name.eq_ignore_ascii_case(field.as_bytes()))
}

/// `tchar` (RFC 9110, section 5.6.2).
fn in_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// VCHAR, obs-text, SP or HTAB: what may stand in a field's value (RFC 9110, section 5.5).
fn in_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// Appends one chunk; nothing for an empty payload, which would end the body.
pub fn encode_chunk(out: &mut Vec<u8>, payload: &[u8]) {
    if payload.is_empty() {
        return;
    }
    let digits = (usize::BITS - payload.len().leading_zeros()).div_ceil(4);
    out.reserve(digits as usize + payload.len() + 4);
    out.extend((0..digits).rev().map(|digit| b"0123456789abcdef"[payload.len() >> (4 * digit) & 0xf]));
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(payload);
    out.extend_from_slice(b"\r\n");
}

/// Appends the last chunk, the trailers as [`Decoder::trailers`] gives them, and the final CRLF.
pub fn encode_end(out: &mut Vec<u8>, trailers: &[u8]) {
    out.extend_from_slice(b"0\r\n");
    out.extend_from_slice(trailers);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What decoding came to: the payload, the bytes consumed, and the trailers if the body is done.
    type Read = (Vec<u8>, usize, Option<Vec<u8>>);

    const WHOLE: usize = usize::MAX >> 1;

    /// Feeds portions of the given sizes, over and over.
    fn decode(wire: &[u8], cuts: &[usize]) -> Result<Read, Wrong> {
        let mut decoder = Decoder::new();
        let (mut payload, mut at, mut cuts) = (Vec::new(), 0, cuts.iter().cycle());
        while at < wire.len() && !decoder.is_done() {
            let end = (at + cuts.next().unwrap()).min(wire.len());
            let consumed = decoder.decode(&wire[at..end], &mut |piece| {
                assert!(!piece.is_empty());
                payload.extend_from_slice(piece);
            })?;
            assert!(consumed == end - at || (consumed < end - at && decoder.is_done()));
            at += consumed;
        }
        Ok((payload, at, decoder.is_done().then(|| decoder.trailers().to_vec())))
    }

    /// All of `wire` belongs to the body, and nothing after it if the body is done.
    fn check(wire: &str, payload: &str, trailers: Option<&str>) {
        let expect = Ok((payload.into(), wire.len(), trailers.map(Into::into)));
        assert_eq!(decode(wire.as_bytes(), &[WHOLE]), expect, "{wire:?}");
        assert_eq!(decode(wire.as_bytes(), &[1]), expect, "{wire:?} byte by byte");
        if trailers.is_some() {
            assert_eq!(
                decode(format!("{wire}GET / HTTP/1.1\r\n").as_bytes(), &[WHOLE]),
                expect,
                "{wire:?} and a request"
            );
        }
    }

    fn refused(wire: impl AsRef<[u8]>, expect: Wrong) {
        let wire = wire.as_ref();
        assert_eq!(decode(wire, &[WHOLE]), Err(expect), "{:?}", wire.escape_ascii().to_string());
        assert_eq!(decode(wire, &[1]), Err(expect), "{:?} byte by byte", wire.escape_ascii().to_string());
    }

    #[test]
    fn finds_payload_and_end() {
        check("5\r\nhello\r\n0\r\n\r\n", "hello", Some(""));
        check("A\r\n0123456789\r\na\r\n0123456789\r\n", "01234567890123456789", None);
        check("5\r\nhel", "hel", None);
        check("0\r\n\r\n", "", Some(""));
        check("0\r\n", "", None);
        check("000\r\n\r\n", "", Some(""));
        check("0000000000000001\r\nx\r\n", "x", None);
        check("7fffffffffffffff\r\nx", "x", None);
    }

    #[test]
    fn extensions_are_dropped() {
        check("5;a=b\r\nhello\r\n0;last\r\n\r\n", "hello", Some(""));
        check("5;a=\"b\u{e4} ;\"\t;\r\nhello\r\n", "hello", None);
        check(&format!("1;{}\r\nx\r\n", "e".repeat(4096)), "x", None);
        refused(format!("1;{}\r\n", "e".repeat(4097)), Wrong::ExtensionsTooLong);
        // Two chunks have one allowance, and get back what payload came.
        let half = |size: usize| format!("{size:x};{}\r\n{}\r\n", "e".repeat(2048), "x".repeat(size));
        refused(format!("{}{}0;eee", half(1), half(1)), Wrong::ExtensionsTooLong);
        check(&half(2048).repeat(100), &"x".repeat(204_800), None);
    }

    #[test]
    fn sizes_are_bare_digits() {
        for first in ["\r", "\n", " ", "\t", "+", "-", "x", ";", "g", "\0"] {
            refused(format!("{first}5\r\nhello\r\n"), Wrong::NoSize(first.as_bytes()[0]));
        }
        for after in [" ", "\t", "\n", "x", "_", "\0", ",", "h", "."] {
            refused(format!("5{after}\r\nhello\r\n"), Wrong::AfterSize(after.as_bytes()[0]));
            refused(format!("5{after};a\r\nhello\r\n"), Wrong::AfterSize(after.as_bytes()[0]));
        }
        refused("0x5\r\nhello\r\n", Wrong::AfterSize(b'x'));
        refused("5 ;a=b\r\nhello\r\n", Wrong::AfterSize(b' '));
        refused("8000000000000000\r\n", Wrong::TooLarge(1 << 63));
        refused("ffffffffffffffff\r\n", Wrong::TooLarge(u64::MAX));
        refused("00000000000000005\r\n", Wrong::TooManyDigits);
        refused("10000000000000005\r\n", Wrong::TooManyDigits);
    }

    #[test]
    fn lines_end_with_crlf_only() {
        refused("5\nhello\r\n", Wrong::AfterSize(b'\n'));
        refused("5\rhello\r\n", Wrong::NoLf(b'h'));
        refused("5\r\r\nhello\r\n", Wrong::NoLf(b'\r'));
        refused("5;a\nhello\r\n", Wrong::Extension(b'\n'));
        refused("5;a\rb\r\nhello\r\n", Wrong::NoLf(b'b'));
        // A quoted string cannot hide the end of a line: quoted-string has no CR or LF (RFC 9110, section 5.6.4).
        refused("5;\"a\r\nhello\"\r\n", Wrong::AfterData(b'"'));
        refused("0\r\n\n", Wrong::TrailerName(b'\n'));
        refused("0\r\n\rX", Wrong::NoLf(b'X'));
        refused("0\r\nA: b\n\r\n", Wrong::TrailerValue(b'\n'));
        refused("0\r\nA: b\rc\r\n\r\n", Wrong::NoLf(b'c'));
    }

    #[test]
    fn data_is_as_long_as_announced() {
        refused("5\r\nhelloX", Wrong::AfterData(b'X'));
        refused("5\r\nhello\n0\r\n", Wrong::AfterData(b'\n'));
        refused("5\r\nhello0\r\n\r\n", Wrong::AfterData(b'0'));
        refused("5\r\nhello\r0\r\n\r\n", Wrong::NoLf(b'0'));
        refused("5\r\nhell\r\n0\r\n\r\n", Wrong::AfterData(b'\n'));
    }

    #[test]
    fn control_characters_are_refused() {
        for byte in (0..32).chain([127]).filter(|byte| !b"\t\r\n".contains(byte)) {
            refused([b"5;a", &[byte][..], b"\r\n"].concat(), Wrong::Extension(byte));
            refused([b"0\r\nA: b", &[byte][..], b"\r\n\r\n"].concat(), Wrong::TrailerValue(byte));
            refused([b"0\r\nA", &[byte][..], b": b\r\n\r\n"].concat(), Wrong::TrailerName(byte));
        }
    }

    #[test]
    fn trailers_become_canonical() {
        check("0\r\nX:y\r\n\r\n", "", Some("X: y\r\n"));
        check("0\r\nX: \t y \t\r\nz-1:\r\n\r\n", "", Some("X: y\r\nz-1: \r\n"));
        check("0\r\nX: \t \r\n\r\n", "", Some("X: \r\n"));
        check("0\r\nX: a: \t\r\n\r\n", "", Some("X: a:\r\n"));
        check("0\r\nX: a b\tc\r\n\r\n", "", Some("X: a b\tc\r\n"));
        check("0\r\ngrpc-status: 0\r\n\r\n", "", Some("grpc-status: 0\r\n"));
        check("0\r\nX: y\r\n", "", None);
    }

    #[test]
    fn trailers_that_belong_in_the_head_are_dropped() {
        check("0\r\nContent-Length: 5\r\nX: y\r\nHOST: h\r\n\r\n", "", Some("X: y\r\n"));
        check("0\r\ntransfer-Encoding:chunked\r\n\r\n", "", Some(""));
        check("0\r\nHosts: h\r\nhos: h\r\n\r\n", "", Some("Hosts: h\r\nhos: h\r\n"));
        for field in FORBIDDEN_IN_TRAILERS {
            let wire = format!("0\r\n{field}: 1\r\n\r\n");
            check(&wire, "", Some(""));
        }
        refused("0\r\nHost: \0\r\n\r\n", Wrong::TrailerValue(0));
    }

    #[test]
    fn trailers_are_fields() {
        refused("0\r\n X: folded\r\n\r\n", Wrong::TrailerName(b' '));
        refused("0\r\nA: b\r\n c\r\n\r\n", Wrong::TrailerName(b' '));
        refused("0\r\nA: b\r\n\tc\r\n\r\n", Wrong::TrailerName(b'\t'));
        refused("0\r\nA : b\r\n\r\n", Wrong::TrailerName(b' '));
        refused("0\r\nA\t: b\r\n\r\n", Wrong::TrailerName(b'\t'));
        refused("0\r\nA\r\n\r\n", Wrong::TrailerName(b'\r'));
        refused("0\r\n: b\r\n\r\n", Wrong::TrailerName(b':'));
        refused("0\r\nGET / HTTP/1.1\r\n\r\n", Wrong::TrailerName(b' '));
    }

    #[test]
    fn trailers_are_bounded() {
        let most = MOST_TRAILER_BYTES as usize;
        let filled = |bytes: usize| format!("0\r\nX:{}\r\n\r\n", "y".repeat(bytes - 4));
        check(&filled(most), "", Some(&format!("X: {}\r\n", "y".repeat(most - 4))));
        refused(filled(most + 1), Wrong::TrailersTooLong);
        refused(format!("0\r\n{}", "Host:\r\n".repeat(most / 7 + 1)), Wrong::TrailersTooLong);
        refused(format!("0\r\n{}", "x".repeat(most + 1)), Wrong::TrailersTooLong);
    }

    #[test]
    fn what_was_wrong_once_stays_wrong() {
        let mut decoder = Decoder::new();
        for input in ["5\n", "5\r\nhello", "0\r\n\r\n"] {
            assert_eq!(decoder.decode(input.as_bytes(), &mut |_| panic!("no payload")), Err(Wrong::AfterSize(b'\n')));
        }
        assert!(!decoder.is_done());
        assert_eq!(
            Wrong::AfterSize(b'\n').to_string(),
            "'\\n' after the digits of a chunk's size, expected ';' or CRLF"
        );
    }

    #[test]
    fn a_done_decoder_takes_nothing_more() {
        let mut decoder = Decoder::new();
        assert_eq!(decoder.decode(b"0\r\n\r\n", &mut |_| ()), Ok(5));
        assert_eq!(decoder.decode(b"5\r\nhello", &mut |_| panic!("no payload")), Ok(0));
    }

    #[test]
    fn an_empty_payload_does_not_end_the_body() {
        let mut out = Vec::new();
        encode_chunk(&mut out, b"");
        assert_eq!(out, b"");
        encode_chunk(&mut out, &[b'x'; 0x10f]);
        assert!(out.starts_with(b"10f\r\nx") && out.ends_with(b"x\r\n") && out.len() == 0x10f + 7);
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..8),
            trailers in "([A-Za-z]{3}-[0-9]: ([!-~]([ -~]{0,8}[!-~])?)\r\n){0,4}",
            rest in prop::collection::vec(any::<u8>(), 0..10),
            cuts in prop::collection::vec(1usize..9, 1..20),
        ) {
            let mut wire = Vec::new();
            for chunk in &chunks {
                encode_chunk(&mut wire, chunk);
            }
            encode_end(&mut wire, trailers.as_bytes());
            let length = wire.len();
            wire.extend_from_slice(&rest);
            prop_assert_eq!(decode(&wire, &cuts), Ok((chunks.concat(), length, Some(trailers.into_bytes()))));
        }

        #[test]
        fn any_split_gives_the_same(
            wire in prop::collection::vec(
                prop::sample::select(vec![
                    "0", "1", "a", "2\r\nxy\r\n", "\r\n", "\r", "\n", ";e=1", ":", " ", "\t", "X: y\r\n", "0\r\n", "te: t",
                    "\0",
                ]),
                0..12,
            ),
            cuts in prop::collection::vec(1usize..9, 1..20),
        ) {
            let wire = wire.concat();
            prop_assert_eq!(decode(wire.as_bytes(), &cuts), decode(wire.as_bytes(), &[WHOLE]));
        }

        #[test]
        fn never_panics(
            bytes in prop::collection::vec(any::<u8>(), 0..200), cuts in prop::collection::vec(1usize..9, 1..20),
        ) {
            prop_assert_eq!(decode(&bytes, &cuts), decode(&bytes, &[WHOLE]));
        }

        #[test]
        fn what_is_accepted_is_canonical_after_one_turn(
            wire in "(1(;e?)?\r\nx\r\n){0,2}0\r\n([a-z]{1,3}:[ \t]{0,2}[a-z: \t]{0,5}\r\n){0,3}\r\n",
        ) {
            let (payload, _, trailers) = decode(wire.as_bytes(), &[1]).unwrap();
            let mut again = Vec::new();
            encode_chunk(&mut again, &payload);
            encode_end(&mut again, trailers.as_deref().unwrap());
            prop_assert_eq!(decode(&again, &[1]), Ok((payload, again.len(), trailers)));
        }
    }
}
