//! A small service that does nothing right at its end, for `lameduck demo`: it has no handler for SIGTERM, so it dies of it
//! at once, and it closes idle connections after a few seconds, as many real ones do by default.

use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The idle timeout of Node, uvicorn, actix, Apache and Cowboy.
pub const DEFAULT_IDLE: Duration = Duration::from_secs(5);
/// The longest head read, in bytes.
const LONGEST_HEAD: usize = 16 << 10;
/// The longest `ms` that `/slow` takes.
const SLOWEST: u64 = 60_000;

/// Serves HTTP/1.1 until the process ends: `/` at once, `/slow?ms=N` after N milliseconds (default 300), a POST with the
/// length of its body. Logs nothing. Idle connections are closed after `idle`.
pub fn serve(listener: TcpListener, idle: Duration) -> io::Result<Infallible> {
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        loop {
            // A connection that was reset before it was accepted, or no descriptor left: the next one may be better.
            match listener.accept().await {
                Ok((stream, _)) => {
                    tokio::spawn(async move {
                        // Its peer is gone: nobody is left to tell.
                        let _ = converse(stream, idle).await;
                    });
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    })
}

struct Request {
    head: bool,
    path: String,
    close: bool,
    body_bytes: u64,
}

async fn converse(mut stream: TcpStream, idle: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut pending = Vec::new();
    loop {
        let Ok(request) = tokio::time::timeout(idle, read_request(&mut stream, &mut pending)).await else {
            return Ok(());
        };
        let Some(request) = request? else { return Ok(()) };
        let body = answer(&request).await;
        let connection = if request.close { "close" } else { "keep-alive" };
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: {connection}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await?;
        if !request.head {
            stream.write_all(body.as_bytes()).await?;
        }
        if request.close {
            return Ok(());
        }
    }
}

async fn answer(request: &Request) -> String {
    let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    match path {
        "/slow" => {
            let ms = query.split('&').find_map(|pair| pair.strip_prefix("ms=")?.parse().ok()).unwrap_or(300);
            tokio::time::sleep(Duration::from_millis(SLOWEST.min(ms))).await;
            format!("slept {ms} ms\n")
        }
        _ if request.body_bytes > 0 => format!("{} bytes\n", request.body_bytes),
        _ => "quack\n".to_owned(),
    }
}

/// Reads one request with its body; `None` at the end of the stream or for what is not a request.
async fn read_request(stream: &mut TcpStream, pending: &mut Vec<u8>) -> io::Result<Option<Request>> {
    let mut buffer = vec![0u8; 4 << 10];
    let (length, request) = loop {
        match parse(pending) {
            Ok(Some(parsed)) => break parsed,
            Ok(None) if pending.len() <= LONGEST_HEAD => {}
            Ok(None) | Err(_) => return Ok(None),
        }
        match stream.read(&mut buffer).await? {
            0 => return Ok(None),
            n => pending.extend_from_slice(&buffer[..n]),
        }
    };
    pending.drain(..length);
    let mut left = request.body_bytes;
    loop {
        let take = left.min(pending.len() as u64);
        pending.drain(..take as usize);
        left -= take;
        if left == 0 {
            return Ok(Some(request));
        }
        match stream.read(&mut buffer).await? {
            0 => return Ok(None),
            n => pending.extend_from_slice(&buffer[..n]),
        }
    }
}

fn parse(bytes: &[u8]) -> Result<Option<(usize, Request)>, httparse::Error> {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut fields);
    let httparse::Status::Complete(length) = request.parse(bytes)? else { return Ok(None) };
    let value = |name: &str| {
        let field = request.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name));
        field.and_then(|field| str::from_utf8(field.value).ok())
    };
    let parsed = Request {
        head: request.method == Some("HEAD"),
        path: request.path.unwrap_or("/").to_owned(),
        close: value("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
            || request.version == Some(0),
        body_bytes: value("content-length").and_then(|value| value.parse().ok()).unwrap_or(0),
    };
    Ok(Some((length, parsed)))
}
