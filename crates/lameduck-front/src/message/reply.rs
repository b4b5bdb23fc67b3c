//! What the front answers itself.

use super::{write_field, write_number};

/// The time that was given has passed.
pub const TIME_OVER: &str = "this instance has to go away now";

/// The words of a status.
pub const fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        304 => "Not Modified",
        400 => "Bad Request",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

/// After how many seconds a client that was turned away may come again, to somebody else most likely.
pub const RETRY_AFTER_S: u64 = 1;

/// Whether an answer of this status has a body (RFC 9110 section 6.4.1).
pub const fn has_body(status: u16) -> bool {
    !matches!(status, 100..=199 | 204 | 304)
}

/// The fields of an answer of the front's own, over any version of HTTP.
pub fn each_field(status: u16, text: &str, mut field: impl FnMut(&str, &[u8])) {
    let mut digits = Vec::new();
    if has_body(status) {
        field("Content-Type", b"text/plain; charset=utf-8");
        write_number(&mut digits, text.len() as u64 + 1);
        field("Content-Length", &digits);
    }
    match status {
        503 => {
            digits.clear();
            write_number(&mut digits, RETRY_AFTER_S);
            field("Retry-After", &digits);
        }
        405 => field("Allow", b"GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH"),
        _ => {}
    }
}

/// Writes a whole answer of the front's own.
pub fn write(out: &mut Vec<u8>, status: u16, text: &str, keep: bool, head: bool) {
    out.extend_from_slice(b"HTTP/1.1 ");
    write_number(out, u64::from(status));
    out.push(b' ');
    out.extend_from_slice(reason(status).as_bytes());
    out.extend_from_slice(b"\r\n");
    each_field(status, text, |name, value| write_field(out, name.as_bytes(), value));
    if !keep {
        out.extend_from_slice(b"Connection: close\r\n");
    }
    out.extend_from_slice(b"\r\n");
    if has_body(status) && !head {
        out.extend_from_slice(text.as_bytes());
        out.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turned_away_with_a_time_to_come_again() {
        let mut out = Vec::new();
        write(&mut out, 503, "full", false, false);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 5\r\nRetry-After: 1\r\nConnection: close\r\n\r\nfull\n"
        );
    }
}
