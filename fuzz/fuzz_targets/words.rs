//! Heads made of words that mean something to a proxy: chance alone finds few of them.

const WORDS: [&[u8]; 48] = [
    b"GET / HTTP/1.1\r\n",
    b"POST /a?b HTTP/1.1\r\n",
    b"HEAD / HTTP/1.0\r\n",
    b"OPTIONS * HTTP/1.1\r\n",
    b"GET http://a:1/b HTTP/1.1\r\n",
    b"OPTIONS https://a HTTP/1.0\r\n",
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.0 404 No\r\n",
    b"HTTP/1.1 100 Continue\r\n",
    b"HTTP/1.1 101 Switching\r\n",
    b"HTTP/1.1 204 \r\n",
    b"HTTP/1.1 304\r\n",
    b"HTTP/1.1 099 X\r\n",
    b"Host: x\r\n",
    b"host:\r\n",
    b"Content-Length: ",
    b"content-length: 7\r\n",
    b"Content_Length: 7\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"transfer-encoding: ",
    b"Transfer.Encoding: chunked\r\n",
    b"Connection: ",
    b"Connection: close\r\n",
    b"Connection: keep-alive\r\n",
    b"Connection: Upgrade\r\n",
    b"Connection: Host, Content-Length\r\n",
    b"Connection: X-Request-Id, X-Forwarded-Proto\r\n",
    b"Upgrade: websocket\r\n",
    b"Upgrade: h2c\r\n",
    b"Upgrade: ",
    b"TE: trailers\r\n",
    b"Keep-Alive: timeout=5\r\n",
    b"Proxy-Connection: close\r\n",
    b"HTTP2-Settings: AAA\r\n",
    b"Expect: 100-continue\r\n",
    b"X-Request-Id: 1\r\n",
    b"X-Forwarded-For: 1.1.1.1\r\n",
    b"X-Forwarded-Proto: https\r\n",
    b"X-Forwarded-Host: y\r\n",
    b"Forwarded: for=a\r\n",
    b"User-Agent: kube-probe/1\r\n",
    b"Content-Type: text/event-stream\r\n",
    b"A: b\r\n",
    b"A:  \t b \t\r\n",
    b"chunked",
    b"X-A",
    b", ",
    b"\r\n",
];

/// `plain`: as it is. Else bytes from 0xc0 on stand for a word each.
pub fn spell(plain: bool, bytes: &[u8]) -> Vec<u8> {
    if plain {
        return bytes.to_vec();
    }
    let mut spelt = Vec::new();
    for byte in bytes {
        match byte.checked_sub(0xc0).and_then(|at| WORDS.get(usize::from(at))) {
            Some(word) => spelt.extend_from_slice(word),
            None => spelt.push(*byte),
        }
    }
    spelt
}

/// The fields of a head as written: names in lower case, and values. Panics where a line is not exactly a field.
pub fn fields(head: &[u8]) -> Vec<(String, Vec<u8>)> {
    let text = head.strip_suffix(b"\r\n\r\n").expect("a head ends with an empty line");
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") {
        lines.push(&rest[..end]);
        rest = &rest[end + 2..];
    }
    lines.push(rest);
    for line in &lines {
        assert!(!line.is_empty() && !line.iter().any(|byte| b"\r\n\0".contains(byte)), "{}", line.escape_ascii());
    }
    let field = |line: &&[u8]| {
        let colon = line.windows(2).position(|pair| pair == b": ").expect("a colon and a space");
        let name = String::from_utf8(line[..colon].to_ascii_lowercase()).expect("a name is a token");
        assert!(!name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':'), "{name}");
        let value = &line[colon + 2..];
        assert_eq!(value.trim_ascii(), value, "no blanks around a value");
        (name, value.to_vec())
    };
    lines[1..].iter().map(field).collect()
}

/// How often a field is there.
pub fn count(fields: &[(String, Vec<u8>)], name: &str) -> usize {
    fields.iter().filter(|(seen, _)| seen == name).count()
}
