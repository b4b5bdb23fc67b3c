//! `HAProxy`'s PROXY protocol, versions 1 and 2 (<https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt>): who
//! the client is, told by a proxy in front of us in the first bytes of a connection.
//!
//! Sections are those of that document. It leaves no room for leniency: "Any sequence which does not exactly match the
//! protocol must be discarded and cause the receiver to abort the connection" (section 2.1). Whoever may connect can
//! claim any address, so a header is only read where the operator said that one comes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use memchr::memchr2;

/// The longest header: the other parts of version 2 are what its own length says, bounded by us.
pub const LONGEST: usize = V2_FIXED + V2_MOST;

/// The longest line of version 1, with its CRLF (section 2.1).
const V1_LONGEST: usize = 107;

/// What version 1 begins with.
const V1_START: &[u8] = b"PROXY ";

/// What version 2 begins with (section 2.2).
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The signature, version and command, family and protocol, length.
const V2_FIXED: usize = 16;

/// Bytes of addresses and TLVs that we wait for. The document expects a header to fit a TCP segment; a page leaves room
/// for the names and certificate fields that some load balancers add.
const V2_MOST: usize = 4 << 10;

/// A whole header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Bytes of the header; what follows is the client's.
    pub length: usize,
    /// The client's address. None where the connection's own counts: the proxy speaks for itself (LOCAL, such as for a
    /// health check), or the client came by something that is neither IPv4 nor IPv6.
    pub source: Option<SocketAddr>,
    /// The address the client connected to; given if `source` is.
    pub destination: Option<SocketAddr>,
}

/// Why bytes are not a PROXY header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// Something else begins the connection.
    #[error("the connection begins with neither \"PROXY \" nor the signature of version 2")]
    NoHeader,
    /// No CRLF where one should be.
    #[error("a PROXY line has no CRLF within {V1_LONGEST} bytes")]
    LineTooLong,
    /// A CR or LF that is not in a CRLF.
    #[error("a PROXY line has a CR or LF by itself, expected one CRLF at its end")]
    BareLineEnd,
    /// Not one of the three words.
    #[error("a PROXY line has another family than TCP4, TCP6 and UNKNOWN")]
    Family,
    /// Too few or too many, or more than one space.
    #[error(
        "a PROXY line has other fields than source and destination address, source and destination port, one space each"
    )]
    Fields,
    /// Not an address, or one of another family.
    #[error("a PROXY line has an address that is not of the family it states")]
    Address,
    /// Not a port.
    #[error("a PROXY line has a port that is not a number of 0 to 65535 without leading zeros")]
    Port,
    /// The version in the 13th byte.
    #[error("a binary PROXY header has version {0}, expected 2")]
    Version(u8),
    /// The command in the 13th byte.
    #[error("a binary PROXY header has command {0}, expected 0 (LOCAL) or 1 (PROXY)")]
    Command(u8),
    /// The 14th byte.
    #[error("a binary PROXY header has family and protocol {0:#04x}, expected 0 to 3 and 0 to 2")]
    FamilyByte(u8),
    /// Addresses do not fit.
    #[error(
        "a binary PROXY header has {given} bytes after its first {V2_FIXED}, expected at least {needed} of addresses"
    )]
    TooShort {
        /// What the header says.
        given: u16,
        /// What its family needs.
        needed: u16,
    },
    /// More than anybody has to say.
    #[error("a binary PROXY header has {0} bytes after its first {V2_FIXED}, expected at most {V2_MOST}")]
    TooLong(u16),
}

/// Reads the header that begins a connection. `Ok(None)`: so far it is one, but not all of it is there yet. The header
/// is at most [`LONGEST`] bytes.
pub fn parse(input: &[u8]) -> Result<Option<Header>, Wrong> {
    if begins(input, V1_START) {
        parse_v1(input)
    } else if begins(input, V2_SIGNATURE) {
        parse_v2(input)
    } else {
        Err(Wrong::NoHeader)
    }
}

/// Whether the input begins with `start`, as far as it goes.
fn begins(input: &[u8], start: &[u8]) -> bool {
    input.iter().zip(start).all(|(a, b)| a == b)
}

/// The line of section 2.1.
fn parse_v1(input: &[u8]) -> Result<Option<Header>, Wrong> {
    let line = &input[..input.len().min(V1_LONGEST)];
    let Some(end) = memchr2(b'\r', b'\n', line) else {
        return if line.len() < V1_LONGEST { Ok(None) } else { Err(Wrong::LineTooLong) };
    };
    match (line[end], line.get(end + 1)) {
        (b'\r', Some(b'\n')) => {}
        (b'\r', None) if line.len() < V1_LONGEST => return Ok(None),
        (b'\r', None) => return Err(Wrong::LineTooLong),
        _ => return Err(Wrong::BareLineEnd),
    }
    let length = end + 2;
    let mut fields = line[V1_START.len()..end].split(|&byte| byte == b' ');
    let endpoints = match fields.next().unwrap_or_default() {
        b"TCP4" => Some(endpoints_v1::<Ipv4Addr>(fields)?),
        b"TCP6" => Some(endpoints_v1::<Ipv6Addr>(fields)?),
        // "the receiver must ignore anything presented before the CRLF is found"
        b"UNKNOWN" => None,
        _ => return Err(Wrong::Family),
    };
    Ok(Some(Header { length, source: endpoints.map(|(source, _)| source), destination: endpoints.map(|(_, to)| to) }))
}

/// Source and destination, from the fields after the family.
fn endpoints_v1<'a, A: FromStr + Into<IpAddr>>(
    mut fields: impl Iterator<Item = &'a [u8]>,
) -> Result<(SocketAddr, SocketAddr), Wrong> {
    let mut field = || fields.next().ok_or(Wrong::Fields);
    let [source, destination, source_port, destination_port] = [field()?, field()?, field()?, field()?];
    if fields.next().is_some() {
        return Err(Wrong::Fields);
    }
    let endpoint = |ip, port| Ok(SocketAddr::new(address::<A>(ip)?.into(), self::port(port)?));
    Ok((endpoint(source, source_port)?, endpoint(destination, destination_port)?))
}

/// The standard library refuses leading zeros, signs, white space and scopes, as the document does. IPv4 in IPv6
/// (`::ffff:192.0.2.1`) is accepted, since `inet_ntop(3)` writes it so.
fn address<A: FromStr>(field: &[u8]) -> Result<A, Wrong> {
    str::from_utf8(field).ok().and_then(|text| text.parse().ok()).ok_or(Wrong::Address)
}

fn port(field: &[u8]) -> Result<u16, Wrong> {
    let canonical = match field {
        [b'0'] => true,
        [b'0', ..] | [] => false,
        digits => digits.iter().all(u8::is_ascii_digit),
    };
    let port = str::from_utf8(field).ok().and_then(|text| text.parse().ok());
    port.filter(|_| canonical).ok_or(Wrong::Port)
}

/// The binary header of section 2.2. What is wrong is said as soon as it is there.
fn parse_v2(input: &[u8]) -> Result<Option<Header>, Wrong> {
    const LOCAL: u8 = 0;
    const PROXY: u8 = 1;
    let Some(&version_command) = input.get(12) else { return Ok(None) };
    let (version, command) = (version_command >> 4, version_command & 0xf);
    if version != 2 {
        return Err(Wrong::Version(version));
    }
    if command != LOCAL && command != PROXY {
        return Err(Wrong::Command(command));
    }
    let Some(&kind) = input.get(13) else { return Ok(None) };
    // LOCAL: "discard the protocol block including the family which is ignored"
    let needed = if command == LOCAL { 0 } else { address_bytes(kind)? };
    let Some(&[high, low]) = input.get(14..V2_FIXED).and_then(<[u8]>::as_array) else { return Ok(None) };
    let given = u16::from_be_bytes([high, low]);
    if given < needed {
        return Err(Wrong::TooShort { given, needed });
    }
    if usize::from(given) > V2_MOST {
        return Err(Wrong::TooLong(given));
    }
    let length = V2_FIXED + usize::from(given);
    let Some(block) = input.get(V2_FIXED..length) else { return Ok(None) };
    let endpoints = match needed {
        INET_BYTES => endpoints_v2::<4>(block),
        INET6_BYTES => endpoints_v2::<16>(block),
        _ => None,
    };
    Ok(Some(Header { length, source: endpoints.map(|(source, _)| source), destination: endpoints.map(|(_, to)| to) }))
}

const INET_BYTES: u16 = 2 * 4 + 2 * 2;
const INET6_BYTES: u16 = 2 * 16 + 2 * 2;
const UNIX_BYTES: u16 = 2 * 108;

/// Bytes of addresses, by the family and protocol in the 14th byte; 0 where either is unspecified, and addresses, if
/// any, are to be ignored. A client that came by UDP (such as HTTP/3) has an address like others.
fn address_bytes(kind: u8) -> Result<u16, Wrong> {
    match (kind >> 4, kind & 0xf) {
        (0, 0..=2) | (1..=3, 0) => Ok(0),
        (1, 1 | 2) => Ok(INET_BYTES),
        (2, 1 | 2) => Ok(INET6_BYTES),
        (3, 1 | 2) => Ok(UNIX_BYTES),
        _ => Err(Wrong::FamilyByte(kind)),
    }
}

/// Source address, destination address, source port, destination port, in network byte order; TLVs follow.
fn endpoints_v2<const N: usize>(block: &[u8]) -> Option<(SocketAddr, SocketAddr)>
where
    IpAddr: From<[u8; N]>,
{
    let (source, rest) = block.split_first_chunk::<N>()?;
    let (destination, rest) = rest.split_first_chunk::<N>()?;
    let (source_port, rest) = rest.split_first_chunk()?;
    let destination_port = rest.first_chunk()?;
    let endpoint = |ip: &[u8; N], port: &[u8; 2]| SocketAddr::new(IpAddr::from(*ip), u16::from_be_bytes(*port));
    Some((endpoint(source, source_port), endpoint(destination, destination_port)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A header, followed by a request or not; and no part of it is a header or wrong.
    fn check(header: &[u8], endpoints: Option<(&str, &str)>) {
        let endpoint = |text: &str| text.parse().unwrap();
        let expect = Ok(Some(Header {
            length: header.len(),
            source: endpoints.map(|(source, _)| endpoint(source)),
            destination: endpoints.map(|(_, destination)| endpoint(destination)),
        }));
        let shown = header.escape_ascii().to_string();
        assert_eq!(parse(header), expect, "{shown}");
        assert_eq!(parse(&[header, b"GET / HTTP/1.1\r\n\r\n"].concat()), expect, "{shown} and a request");
        for end in 0..header.len() {
            assert_eq!(parse(&header[..end]), Ok(None), "{end} bytes of {shown}");
        }
    }

    fn refused(header: impl AsRef<[u8]>, expect: Wrong) {
        assert_eq!(parse(header.as_ref()), Err(expect), "{}", header.as_ref().escape_ascii());
    }

    /// A binary header that says how long `block` is.
    fn v2(version_command: u8, kind: u8, block: &[u8]) -> Vec<u8> {
        [V2_SIGNATURE, &[version_command, kind], &(block.len() as u16).to_be_bytes(), block].concat()
    }

    #[test]
    fn reads_lines() {
        let v4 = Some(("192.168.0.1:56324", "192.168.0.11:443"));
        check(b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n", v4);
        check(b"PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n", Some(("0.0.0.0:0", "255.255.255.255:65535")));
        check(b"PROXY TCP6 2001:DB8::1 ::1 1 2\r\n", Some(("[2001:db8::1]:1", "[::1]:2")));
        check(b"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n", Some(("[::ffff:192.0.2.1]:1", "[::1]:2")));
    }

    #[test]
    fn an_unknown_client_has_no_address() {
        check(b"PROXY UNKNOWN\r\n", None);
        check(b"PROXY UNKNOWN \xff\0 whatever 1.2.3.4\r\n", None);
        let address = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
        let longest = format!("PROXY UNKNOWN {address} {address} 65535 65535\r\n");
        assert_eq!(longest.len(), V1_LONGEST);
        check(longest.as_bytes(), None);
        refused(longest.replace("\r\n", "x\r\n"), Wrong::LineTooLong);
        refused(longest.replace("\r\n", "xx"), Wrong::LineTooLong);
    }

    #[test]
    fn lines_end_with_crlf_only() {
        refused("PROXY UNKNOWN\n", Wrong::BareLineEnd);
        refused("PROXY UNKNOWN\rX", Wrong::BareLineEnd);
        refused("PROXY UNKNOWN \r \r\n", Wrong::BareLineEnd);
        refused("PROXY \n", Wrong::BareLineEnd);
    }

    #[test]
    fn fields_are_as_written_down() {
        for family in ["", "TCP", "TCP5", "tcp4", "UDP4", "UNKNOWNX", " TCP4", "\tTCP4"] {
            refused(format!("PROXY {family} 1.2.3.4 1.2.3.5 1 2\r\n"), Wrong::Family);
        }
        for rest in ["", " 1.2.3.4", " 1.2.3.4 1.2.3.5 1", " 1.2.3.4 1.2.3.5 1 2 3", " 1.2.3.4 1.2.3.5 1 2 "] {
            refused(format!("PROXY TCP4{rest}\r\n"), Wrong::Fields);
        }
        refused("PROXY TCP4 1.2.3.4 1.2.3.5  1 2\r\n", Wrong::Fields);
        refused("PROXY TCP4 1.2.3.4\t1.2.3.5 1 2\r\n", Wrong::Fields);
    }

    #[test]
    fn addresses_are_of_their_family() {
        for address in ["1.2.3", "1.2.3.256", "01.2.3.4", "+1.2.3.4", "1.2.3.4.5", "::1", "a", "1.2.3.4\0", "0x1.2.3.4"]
        {
            refused(format!("PROXY TCP4 {address} 1.2.3.5 1 2\r\n"), Wrong::Address);
            refused(format!("PROXY TCP4 1.2.3.5 {address} 1 2\r\n"), Wrong::Address);
        }
        for address in ["1.2.3.4", "[::1]", "::1%eth0", "1::2::3", "1:2:3:4:5:6:7", "::12345", ":", "g::", "\u{e4}::"] {
            refused(format!("PROXY TCP6 {address} ::1 1 2\r\n"), Wrong::Address);
        }
    }

    #[test]
    fn ports_are_plain_numbers() {
        for port in ["+1", "-1", "01", "00", "65536", "99999999999", "1x", "0x1", "\u{661}"] {
            refused(format!("PROXY TCP4 1.2.3.4 1.2.3.5 {port} 2\r\n"), Wrong::Port);
            refused(format!("PROXY TCP4 1.2.3.4 1.2.3.5 2 {port}\r\n"), Wrong::Port);
        }
    }

    #[test]
    fn reads_binary_headers() {
        let v4 = b"\xc0\0\x02\x01\xc0\0\x02\x02\xdc\x04\x01\xbb";
        let expect = Some(("192.0.2.1:56324", "192.0.2.2:443"));
        check(&v2(0x21, 0x11, v4), expect);
        check(&v2(0x21, 0x12, v4), expect);
        check(&v2(0x21, 0x11, &[&v4[..], b"\x04\0\x03abc"].concat()), expect);
        let mut v6 = [0; 36];
        (v6[15], v6[31], v6[33], v6[35]) = (1, 2, 3, 4);
        check(&v2(0x21, 0x21, &v6), Some(("[::1]:3", "[::2]:4")));
        check(&v2(0x21, 0x22, &[&v6[..], &[0; 100]].concat()), Some(("[::1]:3", "[::2]:4")));
    }

    #[test]
    fn what_has_no_internet_address_is_skipped_by_its_length() {
        check(&v2(0x20, 0x00, b""), None);
        check(&v2(0x20, 0x00, b"abcdef"), None);
        // The family of LOCAL is ignored, and so is whether addresses fit.
        check(&v2(0x20, 0x11, b"\x7f\0\0\x01\x7f\0\0\x01\0\x01\0\x02"), None);
        check(&v2(0x20, 0x11, b""), None);
        check(&v2(0x20, 0xff, b""), None);
        check(&v2(0x21, 0x00, b""), None);
        check(&v2(0x21, 0x00, b"abc"), None);
        check(&v2(0x21, 0x10, b"abc"), None);
        check(&v2(0x21, 0x31, &[b'a'; 216]), None);
        check(&v2(0x21, 0x32, &[b'a'; 220]), None);
        check(&v2(0x21, 0x00, &vec![0; V2_MOST]), None);
    }

    #[test]
    fn binary_headers_are_as_written_down() {
        refused(v2(0x11, 0x11, &[0; 12]), Wrong::Version(1));
        refused(v2(0x31, 0x11, &[0; 12]), Wrong::Version(3));
        refused(v2(0x22, 0x11, &[0; 12]), Wrong::Command(2));
        refused(v2(0x2f, 0x11, &[0; 12]), Wrong::Command(15));
        for kind in [0x03, 0x13, 0x1f, 0x33, 0x40, 0x41, 0xf1] {
            refused(v2(0x21, kind, &[0; 300]), Wrong::FamilyByte(kind));
        }
        refused(v2(0x21, 0x11, &[0; 11]), Wrong::TooShort { given: 11, needed: 12 });
        refused(v2(0x21, 0x21, &[0; 35]), Wrong::TooShort { given: 35, needed: 36 });
        refused(v2(0x21, 0x31, &[0; 215]), Wrong::TooShort { given: 215, needed: 216 });
        refused(&v2(0x21, 0x11, &vec![0; V2_MOST + 1])[..V2_FIXED], Wrong::TooLong(4097));
        refused(&v2(0x20, 0x11, &vec![0; 65_535])[..V2_FIXED], Wrong::TooLong(65_535));
    }

    #[test]
    fn what_is_no_header_is_refused_at_its_first_byte() {
        for start in ["G", "PROXX", "PROXY\t", "PROXY\r\n", "\n", "\r\nG", "\r\n\r\n\0\r\nQUIX", "proxy ", " PROXY "] {
            refused(start, Wrong::NoHeader);
        }
    }

    proptest! {
        #[test]
        fn reads_what_was_written(
            source in any::<SocketAddr>(), to in any::<[u8; 16]>(), to_port in any::<u16>(), tlvs in 0usize..300,
        ) {
            // Neither version has a place for flow and scope.
            let source = SocketAddr::new(source.ip(), source.port());
            let (ip, kind): (IpAddr, _) = match source.ip() {
                IpAddr::V4(_) => (<[u8; 4]>::try_from(&to[..4]).unwrap().into(), 1),
                IpAddr::V6(_) => (to.into(), 2),
            };
            let to = SocketAddr::new(ip, to_port);
            let endpoints = Some((source.to_string(), to.to_string()));
            let endpoints = endpoints.as_ref().map(|(source, to)| (source.as_str(), to.as_str()));
            let family = if kind == 1 { 4 } else { 6 };
            let (from_port, source) = (source.port(), source.ip());
            check(format!("PROXY TCP{family} {source} {ip} {from_port} {to_port}\r\n").as_bytes(), endpoints);
            let octets = |ip| match ip {
                IpAddr::V4(ip) => ip.octets().to_vec(),
                IpAddr::V6(ip) => ip.octets().to_vec(),
            };
            let ports = [from_port.to_be_bytes(), to_port.to_be_bytes()].concat();
            check(&v2(0x21, kind << 4 | 1, &[octets(source), octets(ip), ports, vec![0; tlvs]].concat()), endpoints);
        }

        #[test]
        fn never_panics_and_never_reads_past_the_end(
            start in prop::sample::select(vec![&b""[..], b"PROXY ", b"PROXY TCP4 ", b"PROXY TCP6 ", V2_SIGNATURE]),
            rest in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let input = [start, &rest].concat();
            match parse(&input) {
                Ok(Some(header)) => {
                    prop_assert!(header.length <= input.len().min(LONGEST));
                    prop_assert_eq!(parse(&input[..header.length]), Ok(Some(header)));
                    prop_assert_eq!(parse(&input[..header.length - 1]), Ok(None));
                }
                Ok(None) => prop_assert!(input.len() < LONGEST),
                Err(wrong) => prop_assert!(!wrong.to_string().is_empty()),
            }
        }
    }
}
