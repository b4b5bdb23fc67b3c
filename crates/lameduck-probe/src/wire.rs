//! A client that sends one request and shows how it ended.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde::Serialize;

/// The most of an answer that is read.
const MOST: usize = 16 << 20;

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ended {
    /// A whole answer.
    Answered,
    /// FIN before a byte of an answer.
    Closed,
    /// RST before a byte of an answer.
    Reset,
    /// A part of an answer, then the end.
    Cut,
    /// Nothing in time.
    TimedOut,
    /// Connecting was refused.
    Refused,
}

/// An answer's head, as far as it matters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Whether the server says that it closes.
    pub closes: bool,
    /// `Keep-Alive`, as sent.
    pub keep_alive: Option<String>,
    /// `Server`, as sent.
    pub server: Option<String>,
}

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Target {
    /// Where.
    pub address: SocketAddr,
    /// The value of `Host`.
    pub host: String,
    /// The path.
    pub path: String,
}

impl Target {
    /// A connection.
    pub fn connect(&self, timeout: Duration) -> io::Result<TcpStream> {
        let stream = TcpStream::connect_timeout(&self.address, timeout)?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// Sends a request for `path`.
    pub fn send(&self, stream: &mut TcpStream, path: &str) -> io::Result<()> {
        let text =
            format!("GET {path} HTTP/1.1\r\nHost: {}\r\nUser-Agent: lameduck-probe\r\nAccept: */*\r\n\r\n", self.host);
        stream.write_all(text.as_bytes())
    }

    /// A request and its answer.
    pub fn ask(&self, stream: &mut TcpStream, path: &str, timeout: Duration) -> (Ended, Answer) {
        if let Err(error) = self.send(stream, path) {
            return (of_error(&error), Answer::default());
        }
        read_answer(stream, timeout)
    }
}

fn of_error(error: &io::Error) -> Ended {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Ended::TimedOut,
        ErrorKind::ConnectionRefused => Ended::Refused,
        _ => Ended::Reset,
    }
}

/// Reads one answer.
pub fn read_answer(stream: &mut TcpStream, timeout: Duration) -> (Ended, Answer) {
    let mut bytes = Vec::new();
    let mut answer = Answer::default();
    let mut whole = None;
    let mut buffer = vec![0; 16 << 10];
    if stream.set_read_timeout(Some(timeout)).is_err() {
        return (Ended::Reset, answer);
    }
    loop {
        match stream.read(&mut buffer) {
            Ok(0) if whole == Some(Length::UntilClose) => return (Ended::Answered, answer),
            Ok(0) => return (if bytes.is_empty() { Ended::Closed } else { Ended::Cut }, answer),
            Ok(got) => bytes.extend_from_slice(&buffer[..got]),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => {
                let ended = of_error(&error);
                return (if bytes.is_empty() || ended == Ended::TimedOut { ended } else { Ended::Cut }, answer);
            }
        }
        if whole.is_none()
            && let Some((read, length)) = head(&bytes)
        {
            answer = read;
            whole = Some(length);
        }
        let done = match whole {
            Some(Length::Bytes(all)) => bytes.len() >= all,
            Some(Length::Chunked) => bytes.ends_with(b"0\r\n\r\n"),
            Some(Length::UntilClose) | None => false,
        };
        if done {
            return (Ended::Answered, answer);
        }
        if bytes.len() > MOST {
            return (Ended::TimedOut, answer);
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Length {
    /// Head and body together.
    Bytes(usize),
    Chunked,
    UntilClose,
}

fn head(bytes: &[u8]) -> Option<(Answer, Length)> {
    let end = bytes.windows(4).position(|part| part == b"\r\n\r\n")?;
    let text = String::from_utf8_lossy(&bytes[..end]);
    let mut lines = text.split("\r\n");
    let first = lines.next().unwrap_or_default();
    let status = first.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let mut answer = Answer { status, closes: first.starts_with("HTTP/1.0"), ..Answer::default() };
    let mut length = if matches!(status, 204 | 304) { Length::Bytes(end + 4) } else { Length::UntilClose };
    for line in lines {
        let Some((name, value)) = line.split_once(':') else { continue };
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = Length::Bytes(end + 4 + value.parse::<usize>().unwrap_or(0)),
            "transfer-encoding" if value.to_ascii_lowercase().contains("chunked") => length = Length::Chunked,
            "connection" => answer.closes = value.to_ascii_lowercase().contains("close"),
            "keep-alive" => answer.keep_alive = Some(value.to_owned()),
            "server" => answer.server = Some(value.to_owned()),
            _ => {}
        }
    }
    Some((answer, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads() {
        let (answer, length) = head(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok").unwrap();
        assert_eq!((answer.status, answer.closes, length), (200, true, Length::Bytes(59)));
        assert_eq!(head(b"HTTP/1.1 200 OK\r\n\r\n").unwrap().1, Length::UntilClose);
        assert_eq!(head(b"HTTP/1.1 200 OK\r\n"), None);
    }
}
