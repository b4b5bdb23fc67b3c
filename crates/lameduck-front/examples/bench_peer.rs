//! The other ends of `cargo xtask bench front`: a backend, a load, and the bare TCP forwarder that the front is held against.
//! One thread each, on tokio as the front is.
#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program at the edge, for one benchmark"
)]

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, spawn_local};

const SMALL: usize = 512;
const LARGE: usize = 64 << 10;
const POSTED: usize = 16 << 10;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        match words[..] {
            ["backend", listen] => backend(listen).await,
            ["forward", listen, target] => forward(listen, target).await,
            ["load", target, kind, connections, seconds] => {
                load(target, kind, connections.parse().unwrap(), seconds.parse().unwrap()).await;
            }
            ["idle", target, connections] => idle(target, connections.parse().unwrap()).await,
            _ => {
                panic!("backend LISTEN | forward LISTEN TARGET | load TARGET KIND CONNECTIONS SECONDS | idle TARGET N")
            }
        }
    });
}

async fn backend(listen: &str) {
    let listener = TcpListener::bind(listen).await.unwrap();
    let answer = |length: usize| {
        let mut bytes =
            format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n").into_bytes();
        bytes.resize(bytes.len() + length, b'x');
        Rc::new(bytes)
    };
    let (small, large) = (answer(SMALL), answer(LARGE));
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (small, large) = (Rc::clone(&small), Rc::clone(&large));
        spawn_local(async move {
            let mut buffer = vec![0; 64 << 10];
            let mut have = 0;
            loop {
                let Ok(n @ 1..) = stream.read(&mut buffer[have..]).await else { return };
                have += n;
                let Some(end) = buffer[..have].windows(4).position(|at| at == b"\r\n\r\n") else { continue };
                let whole = end + 4 + if buffer.starts_with(b"POST") { POSTED } else { 0 };
                if have < whole {
                    continue;
                }
                let answer = if buffer.starts_with(b"GET /64k") { &large } else { &small };
                have = 0;
                if stream.write_all(answer).await.is_err() {
                    return;
                }
            }
        });
    }
}

async fn forward(listen: &str, target: &str) {
    let listener = TcpListener::bind(listen).await.unwrap();
    let target = target.to_owned();
    loop {
        let (mut client, _) = listener.accept().await.unwrap();
        client.set_nodelay(true).unwrap();
        let target = target.clone();
        spawn_local(async move {
            let Ok(mut server) = TcpStream::connect(&target).await else { return };
            server.set_nodelay(true).unwrap();
            let _ = copy_bidirectional(&mut client, &mut server).await;
        });
    }
}

/// Closed loop, as many requests as the connections bear; prints `{"requests":N,"p50_us":F}`.
async fn load(target: &str, kind: &str, connections: usize, seconds: f64) {
    let (head, body, answer) = match kind {
        "get_small" => ("GET /small HTTP/1.1\r\nHost: bench\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n", 0, SMALL),
        "get_64k" => ("GET /64k HTTP/1.1\r\nHost: bench\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n", 0, LARGE),
        "post_16k" => (
            "POST /p HTTP/1.1\r\nHost: bench\r\nUser-Agent: bench\r\nAccept: */*\r\nContent-Length: 16384\r\n\r\n",
            POSTED,
            SMALL,
        ),
        _ => panic!("get_small, get_64k or post_16k"),
    };
    let mut request = head.as_bytes().to_vec();
    request.resize(request.len() + body, b'b');
    let request = Rc::new(request);
    let latencies = Rc::new(RefCell::new(Vec::with_capacity(1 << 20)));
    let until = Instant::now() + Duration::from_secs_f64(seconds);
    let tasks: Vec<_> = (0..connections)
        .map(|_| {
            let (request, latencies, target) = (Rc::clone(&request), Rc::clone(&latencies), target.to_owned());
            spawn_local(async move {
                let mut stream = TcpStream::connect(&target).await.unwrap();
                stream.set_nodelay(true).unwrap();
                let mut buffer = vec![0; 128 << 10];
                let mut whole = 0;
                while Instant::now() < until {
                    let began = Instant::now();
                    stream.write_all(&request).await.unwrap();
                    let mut have = 0;
                    while whole == 0 || have < whole {
                        let n = stream.read(&mut buffer[have..]).await.unwrap();
                        assert!(n > 0, "closed in the middle");
                        have += n;
                        if whole == 0
                            && let Some(end) = buffer[..have].windows(4).position(|at| at == b"\r\n\r\n")
                        {
                            assert!(buffer.starts_with(b"HTTP/1.1 200"), "not 200");
                            whole = end + 4 + answer;
                        }
                    }
                    assert_eq!(have, whole);
                    latencies.borrow_mut().push(began.elapsed().as_nanos() as u32);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let mut latencies = latencies.borrow_mut();
    latencies.sort_unstable();
    let p50 = f64::from(latencies[latencies.len() / 2]) / 1e3;
    println!("{{\"requests\":{},\"p50_us\":{p50}}}", latencies.len());
}

/// Opens connections, sends a request on each, and keeps them idle until standard input ends.
async fn idle(target: &str, connections: usize) {
    let mut kept = Vec::with_capacity(connections);
    for _ in 0..connections {
        let mut stream = TcpStream::connect(target).await.unwrap();
        stream.write_all(b"GET /small HTTP/1.1\r\nHost: bench\r\n\r\n").await.unwrap();
        let mut buffer = [0; 2048];
        let mut have = 0;
        while have < SMALL {
            have += stream.read(&mut buffer).await.unwrap();
        }
        kept.push(stream);
    }
    println!("open");
    let _ = std::io::Read::read(&mut std::io::stdin(), &mut [0]);
}
