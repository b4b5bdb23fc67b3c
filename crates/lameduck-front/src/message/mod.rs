//! HTTP/1.1 messages: read strictly, written anew (RFC 9112). What reaches the other side is never the bytes that were
//! received but what they were understood to mean, so that both sides understand the same.

pub mod body;
pub mod fields;
pub mod reply;
pub mod request;
pub mod response;

/// The most fields in a head.
pub const MOST_FIELDS: usize = 128;

/// A field of a head, as both parsers give it.
type Field<'a> = httparse::Header<'a>;

/// Whether every line ends with CRLF. A lone LF is a line's end to some and not to others (RFC 9112 section 2.2), and so a
/// way to smuggle; a lone CR is refused by the parser.
fn lines_end_with_crlf(head: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', head).all(|at| at > 0 && head[at - 1] == b'\r')
}

/// Writes a field line.
pub fn write_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Writes a decimal number.
fn write_number(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        for number in [0, 7, 10, 65_536, u64::MAX] {
            let mut out = Vec::new();
            write_number(&mut out, number);
            assert_eq!(out, number.to_string().as_bytes());
        }
    }

    #[test]
    fn line_ends() {
        assert!(lines_end_with_crlf(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert!(!lines_end_with_crlf(b"GET / HTTP/1.1\nHost: x\r\n\r\n"));
        assert!(!lines_end_with_crlf(b"\nGET / HTTP/1.1\r\n\r\n"));
    }
}
