//! The fields that a proxy must understand (RFC 9110 section 7.6, RFC 9112 sections 6, 7 and 9).

use super::Field;

/// What a field is to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `Host`.
    Host,
    /// `Connection`.
    Connection,
    /// `Content-Length`.
    ContentLength,
    /// `Transfer-Encoding`.
    TransferEncoding,
    /// `Upgrade`.
    Upgrade,
    /// `TE`.
    Te,
    /// `Keep-Alive`, `Proxy-Connection`, `HTTP2-Settings`: for one connection, and of no meaning to us otherwise.
    HopByHop,
    /// `Expect`.
    Expect,
    /// `User-Agent`.
    UserAgent,
    /// `X-Request-Id`.
    RequestId,
    /// `X-Forwarded-For`.
    ForwardedFor,
    /// `X-Forwarded-Proto`.
    ForwardedProto,
    /// `X-Forwarded-Host`.
    ForwardedHost,
    /// `Forwarded`.
    Forwarded,
    /// `Content-Type`.
    ContentType,
    /// `Content-Encoding`.
    ContentEncoding,
    /// Not to be told from `Content-Length` or `Transfer-Encoding` by a server that takes `_` for `-`.
    Disguised,
    /// Any other.
    Other,
}

impl Kind {
    /// Whether a field is about the connection or the framing of a message. Each hop makes these anew (RFC 9110 section
    /// 7.6.1), so none is passed on as it came.
    pub const fn is_for_one_hop(self) -> bool {
        match self {
            Kind::Connection
            | Kind::ContentLength
            | Kind::TransferEncoding
            | Kind::Upgrade
            | Kind::Te
            | Kind::HopByHop
            | Kind::Disguised => true,
            Kind::Host
            | Kind::Expect
            | Kind::UserAgent
            | Kind::RequestId
            | Kind::ForwardedFor
            | Kind::ForwardedProto
            | Kind::ForwardedHost
            | Kind::Forwarded
            | Kind::ContentType
            | Kind::ContentEncoding
            | Kind::Other => false,
        }
    }
}

/// What a field is, by its name.
pub fn kind(name: &[u8]) -> Kind {
    let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
    match name.len() {
        2 if is(b"te") => Kind::Te,
        4 if is(b"host") => Kind::Host,
        6 if is(b"expect") => Kind::Expect,
        7 if is(b"upgrade") => Kind::Upgrade,
        9 if is(b"forwarded") => Kind::Forwarded,
        10 if is(b"connection") => Kind::Connection,
        10 if is(b"user-agent") => Kind::UserAgent,
        10 if is(b"keep-alive") => Kind::HopByHop,
        12 if is(b"x-request-id") => Kind::RequestId,
        12 if is(b"content-type") => Kind::ContentType,
        14 if is(b"content-length") => Kind::ContentLength,
        14 if is(b"http2-settings") => Kind::HopByHop,
        14 if disguises(name, b"content-length") => Kind::Disguised,
        15 if is(b"x-forwarded-for") => Kind::ForwardedFor,
        16 if is(b"x-forwarded-host") => Kind::ForwardedHost,
        16 if is(b"content-encoding") => Kind::ContentEncoding,
        16 if is(b"proxy-connection") => Kind::HopByHop,
        17 if is(b"transfer-encoding") => Kind::TransferEncoding,
        17 if is(b"x-forwarded-proto") => Kind::ForwardedProto,
        17 if disguises(name, b"transfer-encoding") => Kind::Disguised,
        _ => Kind::Other,
    }
}

fn disguises(name: &[u8], known: &[u8]) -> bool {
    name.iter().zip(known).all(|(a, b)| a.eq_ignore_ascii_case(b) || (*b == b'-' && !a.is_ascii_alphanumeric()))
}

/// The members of a comma-separated list, without blanks around them, empty ones left out (RFC 9110 section 5.6.1).
pub fn members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|member| !member.is_empty())
}

/// The most options told apart in all `Connection` fields of a head.
const MOST_OPTIONS: usize = 16;

/// What the `Connection` fields of a head say.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options<'a> {
    /// `close`.
    pub close: bool,
    /// `keep-alive`.
    pub keep_alive: bool,
    /// `upgrade`.
    pub upgrade: bool,
    named: [&'a [u8]; MOST_OPTIONS],
    count: usize,
}

impl<'a> Options<'a> {
    /// Takes in one `Connection` field; `false`: there are too many options in it.
    pub fn add(&mut self, value: &'a [u8]) -> bool {
        for option in members(value) {
            if option.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if option.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            } else if option.eq_ignore_ascii_case(b"upgrade") {
                self.upgrade = true;
            } else if self.count < MOST_OPTIONS {
                self.named[self.count] = option;
                self.count += 1;
            } else {
                return false;
            }
        }
        true
    }

    /// Whether a field is named here, and so meant for this connection only.
    pub fn names(&self, field: &Field<'_>) -> bool {
        self.named[..self.count].iter().any(|named| named.eq_ignore_ascii_case(field.name.as_bytes()))
    }
}

/// A `Content-Length`: digits and nothing else (RFC 9110 section 8.6).
pub fn length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 18 || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(value.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds() {
        assert_eq!(kind(b"HOST"), Kind::Host);
        assert_eq!(kind(b"Content-length"), Kind::ContentLength);
        assert_eq!(kind(b"Content_Length"), Kind::Disguised);
        assert_eq!(kind(b"transfer_encoding"), Kind::Disguised);
        assert_eq!(kind(b"Transfer.Encoding"), Kind::Disguised);
        assert_eq!(kind(b"X-Content-Lengt"), Kind::Other);
        for name in ["Connection", "keep-alive", "TE", "Transfer-Encoding", "Content-Length", "HTTP2-Settings"] {
            assert!(kind(name.as_bytes()).is_for_one_hop(), "{name}");
        }
        assert!(!kind(b"Content-Encoding").is_for_one_hop() && !kind(b"Host").is_for_one_hop());
    }

    #[test]
    fn lengths() {
        assert_eq!(length(b"0"), Some(0));
        assert_eq!(length(b"0042"), Some(42));
        for bad in [&b""[..], b"+1", b"-1", b"1 ", b"0x1", b"1,1", b"1234567890123456789"] {
            assert_eq!(length(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn connection_options() {
        let mut options = Options::default();
        assert!(options.add(b"close, X-Foo,,Upgrade"));
        assert!(options.close && options.upgrade && !options.keep_alive);
        assert!(options.names(&Field { name: "x-foo", value: b"" }));
        assert!(!options.names(&Field { name: "x-bar", value: b"" }));
        assert!(!options.add(b"a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q"));
    }
}
