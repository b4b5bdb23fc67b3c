//! A command in a container, over a WebSocket (RFC 6455) as kubectl has done it since 1.30: one byte of each message is the
//! channel, `v4.channel.k8s.io` and `v5.channel.k8s.io` (KEP-4006).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{CONNECTION, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{HeaderName, HeaderValue};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::kube::{Ask, Kube, LIMIT, Refused, escaped};
use super::resource::PODS;

/// What a command may write.
const MOST: usize = 1 << 20;

/// How a command ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ended {
    /// What it wrote to standard output.
    pub output: Vec<u8>,
    /// Why it failed, if it did; where it could not be started, the runtime's words.
    pub failure: Option<String>,
}

/// Runs a command to its end, without input.
///
/// # Errors
///
/// Where the API server does not let it, or breaks off.
pub async fn exec(kube: &Kube, namespace: &str, pod: &str, container: &str, argv: &[&str]) -> Result<Ended, Refused> {
    let ask = Ask { verb: "create", resource: &PODS, sub: "exec", namespace: Some(namespace), name: Some(pod) };
    let mut query = format!("container={}&stdout=true&stderr=true", escaped(container));
    for word in argv {
        query = format!("{query}&command={}", escaped(word));
    }
    let failed = |why: String| kube.failed(&ask, why);
    let whole = async {
        let key = key();
        let headers: [(HeaderName, HeaderValue); 5] = [
            (CONNECTION, HeaderValue::from_static("Upgrade")),
            (UPGRADE, HeaderValue::from_static("websocket")),
            (SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13")),
            (SEC_WEBSOCKET_KEY, HeaderValue::from_str(&key).map_err(|error| failed(error.to_string()))?),
            (SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("v5.channel.k8s.io, v4.channel.k8s.io")),
        ];
        let answer = kube.open(&ask, &query, &headers, None).await?;
        let stream = hyper::upgrade::on(answer).await.map_err(|error| failed(format!("no WebSocket: {error}")))?;
        read(TokioIo::new(stream)).await.map_err(failed)
    };
    let late = || failed(format!("{} had not ended after {} s", argv.first().unwrap_or(&""), LIMIT.as_secs()));
    tokio::time::timeout(LIMIT, whole).await.map_err(|_| late())?
}

/// Sixteen bytes that nobody has used before (RFC 6455, 4.1).
fn key() -> String {
    let mut bytes = [0; 16];
    // Where there is no randomness, TLS has failed before.
    let _ = rustls::crypto::ring::default_provider().secure_random.fill(&mut bytes);
    STANDARD.encode(bytes)
}

/// One frame: whether it is the last of its message, what it is, and its content.
async fn frame(stream: &mut (impl AsyncRead + Unpin)) -> Result<(bool, u8, Vec<u8>), String> {
    let broke = |error: std::io::Error| format!("the connection broke off: {error}");
    let head = stream.read_u16().await.map_err(broke)?;
    if head & 0x80 != 0 {
        return Err("a server must not mask its frames (RFC 6455, 5.1)".to_owned());
    }
    let length = match head & 0x7f {
        126 => u64::from(stream.read_u16().await.map_err(broke)?),
        127 => stream.read_u64().await.map_err(broke)?,
        short => u64::from(short),
    };
    if length > MOST as u64 {
        return Err(format!("a frame of {length} bytes"));
    }
    let mut content = vec![0; length as usize];
    stream.read_exact(&mut content).await.map_err(broke)?;
    Ok((head & 0x8000 != 0, (head >> 8) as u8 & 0x0f, content))
}

/// Reads until the status is told, or the other end closes.
async fn read(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> Result<Ended, String> {
    const CLOSE: u8 = 8;
    const PING: u8 = 9;
    const PONG: u8 = 10;
    let mut ended = Ended::default();
    let mut message: Vec<u8> = Vec::new();
    loop {
        let (last, kind, content) = frame(&mut stream).await?;
        match kind {
            CLOSE => return Ok(ended),
            PING => {
                // Ours are masked; by nothing will do.
                let mut pong = vec![0x80 | PONG, 0x80 | content.len().min(125) as u8, 0, 0, 0, 0];
                pong.extend(content.iter().take(125));
                stream.write_all(&pong).await.map_err(|error| error.to_string())?;
            }
            PONG => {}
            _ => {
                message.extend(content);
                if message.len() + ended.output.len() > MOST {
                    return Err(format!("more than {} KiB of output", MOST >> 10));
                }
                if last && told(&std::mem::take(&mut message), &mut ended) {
                    return Ok(ended);
                }
            }
        }
    }
}

/// Takes a message; whether it was the last.
fn told(message: &[u8], ended: &mut Ended) -> bool {
    match message.split_first() {
        Some((1, rest)) => ended.output.extend(rest),
        // A Status (API conventions, "Response Status Kind").
        Some((3, rest)) => {
            let status: Value = serde_json::from_slice(rest).unwrap_or_default();
            if status["status"] != "Success" {
                let said = status["message"]
                    .as_str()
                    .map_or_else(|| String::from_utf8_lossy(rest).into_owned(), str::to_owned);
                ended.failure = Some(said);
            }
            return true;
        }
        _ => {}
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn check(bytes: &[u8], expect: Result<Ended, &str>) {
        let (ours, mut theirs) = tokio::io::duplex(4096);
        theirs.write_all(bytes).await.unwrap();
        let answered = tokio::spawn(async move {
            let _ = theirs.shutdown().await;
            let mut pongs = Vec::new();
            let _ = theirs.read_to_end(&mut pongs).await;
            pongs
        });
        match (read(ours).await, expect) {
            (Ok(ended), Ok(expect)) => assert_eq!(ended, expect),
            (Err(error), Err(expect)) => assert!(error.contains(expect), "{error}"),
            (read, expect) => panic!("{read:?}, not {expect:?}"),
        }
        answered.await.unwrap();
    }

    #[tokio::test]
    async fn output_in_pieces_and_how_it_ended() {
        let fine = |output: &[u8]| Ok(Ended { output: output.to_vec(), failure: None });
        let success = b"\x82\x16\x03{\"status\":\"Success\"} ";
        // A message of two frames with a ping between them, standard error, the status.
        let bytes = [b"\x02\x03\x01ab\x89\x01p\x80\x01c\x82\x03\x02no".as_slice(), success].concat();
        check(&bytes, fine(b"abc")).await;
        let failed = br#"{"status":"Failure","message":"exit 1"}"#;
        let bytes = [[0x82, failed.len() as u8 + 1, 3].as_slice(), failed].concat();
        check(&bytes, Ok(Ended { output: Vec::new(), failure: Some("exit 1".to_owned()) })).await;
        check(b"\x82\x02\x01a\x88\x00", fine(b"a")).await;
        check(b"\x82\x82\x00\x00\x00\x00\x01a", Err("must not mask")).await;
        check(b"\x82\x7f\x00\x00\x00\x00\x40\x00\x00\x00", Err("a frame of")).await;
        check(b"\x82\x05\x01a", Err("broke off")).await;
    }
}
