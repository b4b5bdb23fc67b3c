//! What the front answers itself.

use super::write_number;

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

/// Writes a whole answer of the front's own.
pub fn write(out: &mut Vec<u8>, status: u16, text: &str, keep: bool, head: bool) {
    out.extend_from_slice(b"HTTP/1.1 ");
    write_number(out, u64::from(status));
    out.push(b' ');
    out.extend_from_slice(reason(status).as_bytes());
    out.extend_from_slice(b"\r\n");
    let bodiless = matches!(status, 204 | 304);
    if !bodiless {
        out.extend_from_slice(b"Content-Type: text/plain; charset=utf-8\r\nContent-Length: ");
        write_number(out, text.len() as u64 + 1);
        out.extend_from_slice(b"\r\n");
    }
    match status {
        503 => {
            out.extend_from_slice(b"Retry-After: ");
            write_number(out, RETRY_AFTER_S);
            out.extend_from_slice(b"\r\n");
        }
        405 => out.extend_from_slice(b"Allow: GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH\r\n"),
        _ => {}
    }
    if !keep {
        out.extend_from_slice(b"Connection: close\r\n");
    }
    out.extend_from_slice(b"\r\n");
    if !bodiless && !head {
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
