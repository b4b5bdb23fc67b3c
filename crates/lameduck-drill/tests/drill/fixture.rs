//! Services for the drill to run: this test binary started again as one. Each logs what it did to its standard output; the
//! tests read that log, never the drill's own account of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lameduck_drill::Plan;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

const KIND: &str = "LAMEDUCK_DRILL_FIXTURE";

/// A plan for a service of this file.
pub fn plan(kind: &str) -> Plan {
    let this = std::env::current_exe().unwrap();
    Plan {
        command: [this.as_os_str(), "--exact".as_ref(), "fixture::service".as_ref(), "--nocapture".as_ref()]
            .map(Into::into)
            .to_vec(),
        env: vec![(KIND.into(), kind.into())],
        rtt: Duration::ZERO,
        min_sample: 1,
        ..Plan::default()
    }
}

/// Not a test: where a replica begins. Without the variable it does nothing.
#[test]
#[expect(clippy::disallowed_methods, reason = "the fixture is a program: its settings come by the environment")]
fn service() {
    let Ok(kind) = std::env::var(KIND) else { return };
    let port: u16 = std::env::var("PORT").unwrap().parse().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    match kind.as_str() {
        "naive" => {
            let listener = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
            let error = lameduck_drill::naive::serve(listener, Duration::from_secs(5)).unwrap_err();
            panic!("{error}");
        }
        kind if kind.starts_with("h2") => runtime.block_on(serve_h2(kind, port)),
        kind => runtime.block_on(serve(kind, port)),
    }
}

/// Writes one line of the service's log, at once: standard output may be a pipe.
fn say(line: &str) {
    use std::io::Write as _;
    let _ = std::io::stdout().lock().write_all(format!("{line}\n").as_bytes());
}

struct State {
    /// Whether TERM is ignored altogether.
    deaf: bool,
    /// Whether requests in flight hold up the exit after TERM for ever.
    stuck: bool,
    /// How long a connection may be idle.
    idle: Duration,
    stopping: AtomicBool,
    stop: Notify,
}

/// `injecting`: closes its listener at TERM and stays until it is killed. `deaf`: ignores TERM. `idle=MS`: closes idle
/// connections after so many milliseconds.
async fn serve(kind: &str, port: u16) {
    let idle = kind.strip_prefix("idle=").map_or(600_000, |ms| ms.parse().unwrap());
    let state = Arc::new(State {
        deaf: kind == "deaf",
        stuck: kind == "injecting",
        idle: Duration::from_millis(idle),
        stopping: AtomicBool::new(false),
        stop: Notify::new(),
    });
    let mut term = signal(SignalKind::terminate()).unwrap();
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    loop {
        tokio::select! {
            biased;
            _ = term.recv() => {
                if state.deaf {
                    continue;
                }
                state.stopping.store(true, Ordering::SeqCst);
                break;
            }
            accepted = listener.accept() => {
                let (stream, _) = accepted.unwrap();
                stream.set_nodelay(true).unwrap();
                tokio::spawn(converse(stream, Arc::clone(&state)));
            }
        }
    }
    drop(listener);
    say("listener closed");
    if state.stuck {
        std::future::pending::<()>().await;
    }
    state.stop.notified().await;
}

/// Answers requests on one connection. A path under `/inject/` says which loss to bring about.
async fn converse(mut stream: TcpStream, state: Arc<State>) {
    let mut pending = Vec::new();
    loop {
        let request = tokio::time::timeout(state.idle, read_request(&mut stream, &mut pending)).await;
        let Ok(Some((method, path, id))) = request else { return };
        // The id is logged as the request arrives, with what will be done to it.
        let what = path.strip_prefix("/inject/").unwrap_or("answer");
        say(&format!("{what} {id}"));
        match what {
            "reset" => {
                stream.set_zero_linger().unwrap();
                return;
            }
            "half" => {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf").await;
                return;
            }
            "hang" => std::future::pending::<()>().await,
            _ => {}
        }
        if path == "/chat" || what.starts_with("ws-") {
            chat(stream, pending, what).await;
            return;
        }
        if path.starts_with("/slow") {
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
        let body = if method == "HEAD" { "" } else { "quack" };
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{body}");
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
        if what == "idle-close" {
            // The close that crosses the next request, made certain: it waits until that request is in the kernel, and
            // closes without reading it. To the client this is the race; to the process the request never was.
            let mut byte = [0u8; 1];
            if let Ok(1) = stream.peek(&mut byte).await {
                say("crossed");
            }
            return;
        }
    }
}

/// Sends WebSocket messages back until the client closes. `ws-cut` ends the connection after the first, between frames;
/// `ws-half` in the middle of one.
async fn chat(mut stream: TcpStream, mut pending: Vec<u8>, what: &str) {
    // The answer to the one key that the drill uses: RFC 6455, section 1.3.
    let head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    if stream.write_all(head.as_bytes()).await.is_err() {
        return;
    }
    let mut buffer = [0u8; 4096];
    loop {
        while let [first, second, rest @ ..] = pending.as_slice() {
            let length = usize::from(second & 0x7f);
            assert!(length < 126, "the tests' messages are short");
            if rest.len() < length + 4 {
                break;
            }
            let payload = rest[4..4 + length].iter().zip(rest[..4].iter().cycle()).map(|(byte, mask)| byte ^ mask);
            let mut frame = vec![*first, length as u8];
            frame.extend(payload);
            let closing = first & 0x0f == 8;
            pending.drain(..length + 6);
            if what == "ws-half" {
                frame.truncate(length / 2);
            }
            if stream.write_all(&frame).await.is_err() || closing || what.starts_with("ws-") {
                return;
            }
        }
        match stream.read(&mut buffer).await {
            Ok(n @ 1..) => pending.extend_from_slice(&buffer[..n]),
            Ok(0) | Err(_) => return,
        }
    }
}

/// HTTP/2. `h2`: at TERM each connection is told to leave in two steps (RFC 9113, section 6.8), as is each that comes later;
/// ends 900 ms after it. `h2-cut`: dies of TERM. A probe in HTTP/1.1 is answered as well.
async fn serve_h2(kind: &str, port: u16) {
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut term = signal(SignalKind::terminate()).unwrap();
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let end = tokio::time::sleep(Duration::from_hours(1));
    tokio::pin!(end);
    loop {
        tokio::select! {
            _ = term.recv() => {
                if kind == "h2-cut" {
                    return;
                }
                stop.send(true).unwrap();
                end.as_mut().reset(tokio::time::Instant::now() + Duration::from_millis(900));
            }
            () = &mut end => return,
            accepted = listener.accept() => {
                let (stream, _) = accepted.unwrap();
                stream.set_nodelay(true).unwrap();
                tokio::spawn(converse_h2(stream, stopped.clone()));
            }
        }
    }
}

async fn converse_h2(mut stream: TcpStream, mut stopped: tokio::sync::watch::Receiver<bool>) {
    let mut first = [0u8; 3];
    if !matches!(stream.peek(&mut first).await, Ok(3)) || &first != b"PRI" {
        let _ = read_request(&mut stream, &mut Vec::new()).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
        return;
    }
    say("connection");
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    let mut leaving = false;
    loop {
        tokio::select! {
            accepted = connection.accept() => {
                let Some(Ok((request, respond))) = accepted else { return };
                tokio::spawn(answer_h2(request, respond));
            }
            _ = stopped.wait_for(|stopped| *stopped), if !leaving => {
                connection.graceful_shutdown();
                leaving = true;
            }
        }
    }
}

async fn answer_h2(request: http::Request<h2::RecvStream>, mut respond: h2::server::SendResponse<bytes::Bytes>) {
    let id = request.headers().get("x-request-id").map(|id| id.to_str().unwrap().to_owned());
    say(&format!("answer {}", id.unwrap_or_default()));
    let slow = request.uri().path().starts_with("/slow");
    if request.method() == "HEAD" {
        let _ = respond.send_response(http::Response::new(()), true);
        return;
    }
    let mut body = request.into_body();
    let mut length = 0;
    while let Some(Ok(piece)) = body.data().await {
        length += piece.len();
        let _ = body.flow_control().release_capacity(piece.len());
    }
    let Ok(mut answer) = respond.send_response(http::Response::new(()), false) else { return };
    for _ in 0..if slow { 5 } else { 1 } {
        let _ = answer.send_data(format!("{length} bytes\n").into(), false);
        tokio::time::sleep(Duration::from_millis(if slow { 20 } else { 0 })).await;
    }
    let _ = answer.send_trailers(http::HeaderMap::new());
}

/// Reads one request with its body: method, path and id. `None` at the end of the stream.
async fn read_request(stream: &mut TcpStream, pending: &mut Vec<u8>) -> Option<(String, String, String)> {
    let mut buffer = [0u8; 4096];
    loop {
        if let Some(end) = pending.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8(pending[..end].to_vec()).unwrap();
            let field =
                |name: &str| head.lines().find_map(|line| line.strip_prefix(name).map(|value| value.trim().to_owned()));
            let length: usize = field("Content-Length:").map_or(0, |length| length.parse().unwrap());
            if pending.len() >= end + 4 + length {
                pending.drain(..end + 4 + length);
                let mut words = head.split(' ');
                let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
                return Some((method, path, field("X-Request-Id:").unwrap_or_default()));
            }
        }
        match stream.read(&mut buffer).await {
            Ok(n @ 1..) => pending.extend_from_slice(&buffer[..n]),
            Ok(0) | Err(_) => return None,
        }
    }
}
