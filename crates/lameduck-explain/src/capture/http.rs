//! The heads of HTTP/1.1 messages in a capture, as far as they were kept.

/// The most of a head that is kept.
pub const HEAD: usize = 8 << 10;

const METHODS: [&[u8]; 9] =
    [b"GET ", b"POST ", b"PUT ", b"HEAD ", b"DELETE ", b"PATCH ", b"OPTIONS ", b"CONNECT ", b"TRACE "];

/// Headers that carry an id, the more particular first.
const IDS: [&str; 8] = [
    "x-request-id",
    "x-my-uuid",
    "x-lameduck-id",
    "x-correlation-id",
    "x-amzn-trace-id",
    "x-cloud-trace-context",
    "traceparent",
    "lameduck-id",
];

/// Whether a payload begins a request.
pub fn begins_request(payload: &[u8]) -> bool {
    METHODS.iter().any(|method| payload.starts_with(&method[..method.len().min(payload.len())]) && payload.len() >= 3)
}

/// A request's head.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestHead {
    /// The method.
    pub method: String,
    /// The target.
    pub target: String,
    /// Its id.
    pub id: String,
}

/// Reads a request's head, whole or not.
pub fn request(bytes: &[u8]) -> RequestHead {
    let line = bytes.split(|byte| *byte == b'\r' || *byte == b'\n').next().unwrap_or(b"");
    let (method, target) = crate::read::field::split_request(line);
    let id = IDS.iter().find_map(|name| header(bytes, name)).unwrap_or_default();
    RequestHead {
        method: crate::books::clean(&method[..method.len().min(16)]),
        target: crate::books::clean(&target[..target.len().min(200)]),
        id,
    }
}

/// A header's value; only of a line that was kept whole.
pub fn header(bytes: &[u8], name: &str) -> Option<String> {
    for line in bytes.split(|byte| *byte == b'\n').skip(1) {
        let Some(line) = line.strip_suffix(b"\r") else { continue };
        if line.is_empty() {
            return None;
        }
        if let Some(colon) = memchr::memchr(b':', line)
            && line[..colon].eq_ignore_ascii_case(name.as_bytes())
        {
            return Some(crate::books::clean(line[colon + 1..].trim_ascii()));
        }
    }
    None
}

/// How long a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// This many bytes after the head.
    Length(u64),
    /// Chunks, up to the empty one.
    Chunked,
    /// Until the connection is closed.
    UntilClose,
    /// The head was not kept.
    Unknown,
}

/// An answer's head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnswerHead {
    /// The status; 0 where it was not kept.
    pub status: u16,
    /// Bytes of the head, its empty line included; 0 where it was not kept whole.
    pub len: u64,
    /// The body.
    pub body: Body,
    /// `Server` and `Keep-Alive`, as the server names itself.
    pub server: String,
}

/// Reads an answer's head. None: more of it is to come.
pub fn answer(bytes: &[u8], method: &str, cut: bool) -> Option<AnswerHead> {
    let end = memchr::memmem::find(bytes, b"\r\n\r\n");
    if end.is_none() && !cut && bytes.len() < HEAD {
        return None;
    }
    let status = bytes.get(9..12).and_then(|text| std::str::from_utf8(text).ok()).and_then(|text| text.parse().ok());
    let status: u16 = if bytes.starts_with(b"HTTP/1.") { status.unwrap_or(0) } else { 0 };
    let Some(end) = end else {
        return Some(AnswerHead { status, len: 0, body: Body::Unknown, server: String::new() });
    };
    let head = &bytes[..end + 2];
    let none = method == "HEAD" || status == 204 || status == 304 || (100..200).contains(&status);
    let chunked = header(head, "transfer-encoding").is_some_and(|value| value.to_ascii_lowercase().contains("chunked"));
    let body = if none {
        Body::Length(0)
    } else if chunked {
        Body::Chunked
    } else {
        match header(head, "content-length").map(|value| value.parse()) {
            Some(Ok(length)) => Body::Length(length),
            Some(Err(_)) => Body::Unknown,
            None => Body::UntilClose,
        }
    };
    let names = ["server", "keep-alive"].map(|name| header(head, name).map(|value| format!("{name}: {value}")));
    let server = names.into_iter().flatten().collect::<Vec<_>>().join(", ");
    Some(AnswerHead { status, len: end as u64 + 4, body, server })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads() {
        let read = request(b"POST /a HTTP/1.1\r\nHost: x\r\nX-My-Uuid: 12-34\r\n\r\nbody");
        assert_eq!((read.method.as_str(), read.target.as_str(), read.id.as_str()), ("POST", "/a", "12-34"));
        assert_eq!(request(b"GET /cut-of").target, "/cut-of");
        let head =
            answer(b"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=5\r\nContent-Length: 3\r\n\r\nabc", "GET", false).unwrap();
        assert_eq!((head.status, head.body, head.server.as_str()), (200, Body::Length(3), "keep-alive: timeout=5"));
        assert_eq!(answer(b"HTTP/1.1 200 O", "GET", false), None);
        assert_eq!(answer(b"HTTP/1.1 200 O", "GET", true).map(|head| head.body), Some(Body::Unknown));
        assert_eq!(
            answer(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", "HEAD", false).unwrap().body,
            Body::Length(0)
        );
    }
}
