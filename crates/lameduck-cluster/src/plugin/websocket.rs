//! A WebSocket (RFC 6455) into a container, as kubectl has used it since 1.30: one byte of each message is the channel,
//! `v4.channel.k8s.io` and `v5.channel.k8s.io` (KEP-4006).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{CONNECTION, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{HeaderName, HeaderValue};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::kube::{Ask, Kube, Refused};

/// What is written to a container's standard input.
pub const INPUT: u8 = 0;
/// What it writes to standard output.
pub const OUTPUT: u8 = 1;
/// What it writes to standard error.
pub const ERRORS: u8 = 2;
/// How it ended.
pub const STATUS: u8 = 3;

/// The largest frame.
const MOST: u64 = 1 << 20;

/// The bit of a masked frame, and the lengths that say how many bytes have the length.
const MASKED: u8 = 0x80;
const TWO: u8 = 0x7e;
const EIGHT: u8 = 0x7f;

const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// Opens one.
///
/// # Errors
///
/// Where the API server does not let it.
pub async fn open(kube: &Kube, ask: &Ask<'_>, query: &str) -> Result<TokioIo<Upgraded>, Refused> {
    let key = STANDARD.encode(random::<16>());
    let key = HeaderValue::from_str(&key).map_err(|error| kube.failed(ask, error.to_string()))?;
    let headers: [(HeaderName, HeaderValue); 5] = [
        (CONNECTION, HeaderValue::from_static("Upgrade")),
        (UPGRADE, HeaderValue::from_static("websocket")),
        (SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13")),
        (SEC_WEBSOCKET_KEY, key),
        (SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("v5.channel.k8s.io, v4.channel.k8s.io")),
    ];
    let answer = kube.open(ask, query, &headers, None).await?;
    let stream = hyper::upgrade::on(answer).await;
    stream.map(TokioIo::new).map_err(|error| kube.failed(ask, format!("no WebSocket: {error}")))
}

/// Bytes that nobody has used before.
fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // Where there is no randomness, TLS has failed before.
    let _ = rustls::crypto::ring::default_provider().secure_random.fill(&mut bytes);
    bytes
}

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// A message: its channel, and what is in it.
    Message(u8, Vec<u8>),
    /// To be answered by [`pong`].
    Ping(Vec<u8>),
    /// The other end has closed.
    Closed,
}

/// Reads pieces. A reader that is dropped in the middle of one has lost it.
#[derive(Debug)]
pub struct Pieces<R> {
    stream: R,
    message: Vec<u8>,
    most: usize,
}

impl<R: AsyncRead + Unpin> Pieces<R> {
    /// Messages have so many bytes at the most.
    pub const fn of(stream: R, most: usize) -> Pieces<R> {
        Pieces { stream, message: Vec::new(), most }
    }

    /// The next one.
    pub async fn next(&mut self) -> Result<Piece, String> {
        loop {
            let (last, kind, content) = self.frame().await?;
            match kind {
                CLOSE => return Ok(Piece::Closed),
                PING => return Ok(Piece::Ping(content)),
                PONG => {}
                _ => {
                    self.message.extend(content);
                    if self.message.len() > self.most {
                        return Err(format!("more than {} KiB of output", self.most >> 10));
                    }
                    let message = last.then(|| std::mem::take(&mut self.message));
                    if let Some((channel, content)) = message.as_deref().and_then(<[u8]>::split_first) {
                        return Ok(Piece::Message(*channel, content.to_vec()));
                    }
                }
            }
        }
    }

    /// One frame: whether it is the last of its message, what it is, and its content.
    async fn frame(&mut self) -> Result<(bool, u8, Vec<u8>), String> {
        let broke = |error: std::io::Error| format!("the connection broke off: {error}");
        let head = self.stream.read_u16().await.map_err(broke)?;
        if head & 0x80 != 0 {
            return Err("a server must not mask its frames (RFC 6455, 5.1)".to_owned());
        }
        let length = match head & 0x7f {
            126 => u64::from(self.stream.read_u16().await.map_err(broke)?),
            127 => self.stream.read_u64().await.map_err(broke)?,
            short => u64::from(short),
        };
        if length > MOST {
            return Err(format!("a frame of {length} bytes"));
        }
        let mut content = vec![0; length as usize];
        self.stream.read_exact(&mut content).await.map_err(broke)?;
        Ok((head & 0x8000 != 0, (head >> 8) as u8 & 0x0f, content))
    }
}

/// A frame with a message for a channel.
pub fn message(channel: u8, content: &[u8]) -> Vec<u8> {
    masked(BINARY, &[&[channel], content].concat())
}

/// The frame that answers a ping.
pub fn pong(content: &[u8]) -> Vec<u8> {
    masked(PONG, &content[..content.len().min(125)])
}

/// A whole frame of ours: masked, as RFC 6455, 5.3 asks of clients.
fn masked(kind: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let mut frame = vec![0x80 | kind];
    match length {
        0..=125 => frame.push(MASKED | length as u8),
        126..=0xffff => {
            frame.push(MASKED | TWO);
            frame.extend((length as u16).to_be_bytes());
        }
        _ => {
            frame.push(MASKED | EIGHT);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    let mask = random::<4>();
    frame.extend(mask);
    frame.extend(content.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]));
    frame
}

/// Why what ended did not end well, if it did not: a Status (API conventions, "Response Status Kind").
pub fn failure(status: &[u8]) -> Option<String> {
    let told: Value = serde_json::from_slice(status).unwrap_or_default();
    if told["status"] == "Success" {
        return None;
    }
    let words = told["message"].as_str().map(str::to_owned);
    Some(words.unwrap_or_else(|| String::from_utf8_lossy(status).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a server reads of ours: kind and content.
    fn read(frame: &[u8]) -> (u8, Vec<u8>) {
        let (long, at) = match frame[1] & 0x7f {
            126 => (u64::from(u16::from_be_bytes([frame[2], frame[3]])), 4),
            127 => (u64::from_be_bytes(frame[2..10].try_into().unwrap()), 10),
            short => (u64::from(short), 2),
        };
        assert!(frame[0] & 0x80 != 0 && frame[1] & 0x80 != 0, "whole and masked");
        let (mask, content) = frame[at..].split_at(4);
        assert_eq!(content.len() as u64, long);
        (frame[0] & 0x0f, content.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]).collect())
    }

    #[test]
    fn ours_are_whole_and_masked() {
        for length in [0, 1, 124, 125, 126, 65_534, 65_535, 70_000] {
            let content: Vec<u8> = (0..length).map(|n| (n % 251) as u8).collect();
            assert_eq!(read(&message(INPUT, &content)), (BINARY, [&[INPUT], content.as_slice()].concat()), "{length}");
        }
        assert_eq!(read(&pong(&[7; 300])), (PONG, vec![7; 125]));
    }

    async fn check(bytes: &[u8], expect: &[Result<Piece, &str>]) {
        let mut pieces = Pieces::of(bytes, 4096);
        for expect in expect {
            match (pieces.next().await, expect) {
                (Ok(piece), Ok(expect)) => assert_eq!(piece, *expect),
                (Err(error), Err(expect)) => assert!(error.contains(expect), "{error}"),
                (piece, expect) => panic!("{piece:?}, not {expect:?}"),
            }
        }
    }

    #[tokio::test]
    async fn messages_in_pieces() {
        let of = |channel, content: &[u8]| Ok(Piece::Message(channel, content.to_vec()));
        // A message of two frames with a ping between them, an empty one, and the end.
        let bytes = b"\x02\x03\x01ab\x89\x01p\x80\x01c\x82\x00\x82\x02\x02n\x88\x00";
        let ping = Ok(Piece::Ping(b"p".to_vec()));
        check(bytes, &[ping, of(OUTPUT, b"abc"), of(ERRORS, b"n"), Ok(Piece::Closed)]).await;
        check(b"\x82\x82\x00\x00\x00\x00\x01a", &[Err("must not mask")]).await;
        check(b"\x82\x7f\x00\x00\x00\x00\x40\x00\x00\x00", &[Err("a frame of")]).await;
        check(b"\x82\x05\x01a", &[Err("broke off")]).await;
        let large = [b"\x02\x7e\x0f\xff".as_slice(), &[1; 0xfff], b"\x80\x02ab"].concat();
        check(&large, &[Err("more than 4 KiB")]).await;
    }

    #[test]
    fn how_it_ended() {
        assert_eq!(failure(br#"{"status":"Success"}"#), None);
        assert_eq!(failure(br#"{"status":"Failure","message":"exit 1"}"#).as_deref(), Some("exit 1"));
        assert_eq!(failure(b"no JSON").as_deref(), Some("no JSON"));
    }
}
