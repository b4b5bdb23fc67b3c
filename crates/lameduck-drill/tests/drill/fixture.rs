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
