//! The app: it does what the path says, `/VERB/ID/SIZE`, and goes away from time to time.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use crate::wire::{Wire, chunks, frame};
use crate::{World, content, http2};

/// What the client may expect of a verb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The whole answer.
    Good,
    /// An answer that is broken off: it must not look whole.
    Cut,
    /// None: 5xx in its place.
    Bad,
}

pub const VERBS: &[(&str, Kind)] = &[
    ("ok", Kind::Good),
    ("chunked", Kind::Good),
    ("close", Kind::Good),
    ("slow", Kind::Good),
    ("drip", Kind::Good),
    ("hints", Kind::Good),
    ("last-fin", Kind::Good),
    ("last-rst", Kind::Good),
    ("hint", Kind::Good),
    ("excess", Kind::Good),
    ("cut-fin", Kind::Cut),
    ("cut-rst", Kind::Cut),
    ("cut-chunked", Kind::Cut),
    ("cut-close", Kind::Cut),
    ("cut-stall", Kind::Cut),
    ("bad-chunk", Kind::Cut),
    ("die-fin", Kind::Bad),
    ("die-rst", Kind::Bad),
    ("half-head", Kind::Bad),
    ("half-head-rst", Kind::Bad),
    ("stall", Kind::Bad),
    ("garbage", Kind::Bad),
    ("oversize", Kind::Bad),
    ("many-fields", Kind::Bad),
    ("lengths", Kind::Bad),
    ("gzip", Kind::Bad),
    ("no-status", Kind::Bad),
    ("switch", Kind::Bad),
];

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Listens for a while, then ends with all its connections, as a process does, and comes again.
pub async fn run(world: Rc<World>, address: String) {
    loop {
        let Ok(listener) = TcpListener::bind(&address).await else {
            sleep(Duration::from_millis(20)).await;
            continue;
        };
        let until = Instant::now() + Duration::from_millis(2000 + world.below(15_000));
        let mut connections = JoinSet::new();
        while let Ok(accepted) = timeout_at(until, listener.accept()).await {
            let Ok((stream, _)) = accepted else { continue };
            let world = Rc::clone(&world);
            connections.spawn_local(async move {
                let _ = converse(&world, stream).await;
            });
            while connections.try_join_next().is_some() {}
        }
        drop((listener, connections));
        world.saw("app: restarted");
        world.pause(1500).await;
    }
}

/// The parts of `/VERB/ID/SIZE`.
pub fn parts(path: &str) -> (&str, u64, usize) {
    let mut parts = path.trim_start_matches('/').split('/');
    let verb = parts.next().unwrap_or_default();
    let mut number = || parts.next().and_then(|part| part.parse().ok()).unwrap_or(0);
    (verb, number(), number() as usize)
}

async fn converse(world: &Rc<World>, stream: TcpStream) -> io::Result<()> {
    let mut wire = Wire::new(stream);
    if wire.starts_with(PREFACE).await? {
        return http2::converse(world, wire).await;
    }
    loop {
        let head = wire.head().await?;
        let (verb, id, size) = parts(head.split(' ').nth(1).unwrap_or_default());
        world.saw(format!("app: {verb}"));
        match verb {
            // Answers before it has read what is sent to it.
            "early" => {
                wire.send("HTTP/1.1 413 Too Large\r\nContent-Length: 5\r\n\r\nearly").await?;
                return match world.below(3) {
                    0 => wire.reset(),
                    1 => Ok(()),
                    _ => loop {
                        wire.exact(1).await?;
                    },
                };
            }
            // Does not read, and then answers or does not.
            "unread" => {
                sleep(Duration::from_millis(300)).await;
                if world.chance(50) {
                    return wire.reset();
                }
                wire.send("HTTP/1.1 503 Full\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await?;
                return Ok(());
            }
            "ws" => return websocket(world, wire).await,
            "sse" => return events(world, wire).await,
            _ => {}
        }
        if head.to_ascii_lowercase().contains("\r\nexpect: 100-continue\r\n") {
            wire.send("HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        let body = wire.body(&head, false).await?;
        if body != content(id, body.len()) {
            world.wrong(format!("the app got a body of {} bytes that is not that of {verb} {id}", body.len()));
        }
        if !answer(world, &mut wire, verb, &content(id, size)).await? {
            if verb.ends_with("rst") || world.chance(20) && verb != "close" {
                return wire.reset();
            }
            return Ok(());
        }
    }
}

/// Answers; whether the connection goes on.
async fn answer(world: &World, wire: &mut Wire, verb: &str, content: &[u8]) -> io::Result<bool> {
    let size = content.len();
    let head = |fields: &str| format!("HTTP/1.1 200 OK\r\n{fields}\r\n").into_bytes();
    let sized = |fields: &str| head(&format!("{fields}Content-Length: {size}\r\n"));
    let half = &content[..size / 2];
    match verb {
        "chunked" => wire.send([head("Transfer-Encoding: chunked\r\n"), chunks(content, 1000)].concat()).await?,
        "close" => {
            wire.send([&head("")[..], content].concat()).await?;
            // Its end is the end of the answer, so it must not be a reset.
            return wire.stream.shutdown().await.map(|()| false);
        }
        "slow" => {
            world.pause(400).await;
            wire.send([&sized("")[..], content].concat()).await?;
        }
        "drip" => {
            wire.send(head("Transfer-Encoding: chunked\r\n")).await?;
            for byte in chunks(content, 7).chunks(size / 8 + 1) {
                wire.send(byte).await?;
                world.pause(20).await;
            }
        }
        "hints" => {
            for _ in 0..world.below(50) {
                wire.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n").await?;
            }
            wire.send([&sized("")[..], content].concat()).await?;
        }
        "last-fin" | "last-rst" => {
            wire.send([&sized("")[..], content].concat()).await?;
            world.pause(300).await;
            // A reset would take what is on its way with it.
            sleep(Duration::from_millis(20)).await;
            return Ok(false);
        }
        "hint" => wire.send([&sized("Keep-Alive: timeout=3\r\n")[..], content].concat()).await?,
        "excess" => {
            wire.send([&sized("")[..], content, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"].concat()).await?;
        }
        "cut-fin" | "cut-rst" => {
            wire.send([&head(&format!("Content-Length: {}\r\n", size + 1))[..], half].concat()).await?;
            world.pause(50).await;
            return Ok(false);
        }
        "cut-chunked" => {
            let mut chunked = chunks(content, 100);
            chunked.truncate(chunked.len() - 3 - world.below(10) as usize);
            wire.send([head("Transfer-Encoding: chunked\r\n"), chunked].concat()).await?;
            return Ok(false);
        }
        "cut-close" => {
            wire.send([&head("")[..], half].concat()).await?;
            sleep(Duration::from_millis(20)).await;
            rustix::net::sockopt::set_socket_linger(&wire.stream, Some(Duration::ZERO))?;
            return Ok(false);
        }
        "cut-stall" => {
            wire.send([&head(&format!("Content-Length: {}\r\n", size + 1))[..], half].concat()).await?;
            world.pause(4000).await;
            return Ok(false);
        }
        "bad-chunk" => {
            let wrong = *world.pick(&["zz\r\n", "-1\r\n", "5\r\nhello!\r\n", "5;a=\0\r\n", "fffffffffffffffff\r\n"]);
            let body = [chunks(half, 100).strip_suffix(b"0\r\n\r\n").unwrap_or_default(), wrong.as_bytes()].concat();
            wire.send([head("Transfer-Encoding: chunked\r\n"), body].concat()).await?;
            world.pause(100).await;
            return Ok(false);
        }
        "die-fin" | "die-rst" => return Ok(false),
        "half-head" | "half-head-rst" => {
            wire.send("HTTP/1.1 200 OK\r\nContent-Le").await?;
            world.pause(100).await;
            return Ok(false);
        }
        "stall" => {
            world.pause(4000).await;
            return Ok(false);
        }
        "garbage" => {
            let bytes: Vec<u8> = (0..=world.below(3000)).map(|_| world.below(256) as u8).collect();
            wire.send(bytes).await?;
            return Ok(false);
        }
        "oversize" => wire.send(head(&format!("A: {}\r\n", "a".repeat(200 << 10)))).await?,
        "many-fields" => wire.send(sized(&"A: b\r\n".repeat(300))).await?,
        "lengths" => wire.send(sized("Content-Length: 0\r\nContent-Length: 9\r\n")).await?,
        "gzip" => wire.send(head("Transfer-Encoding: gzip, chunked\r\n")).await?,
        "no-status" => {
            wire.send(format!(
                "HTTP/1.1 099 Odd\r\nContent-Length: 38\r\n\r\n{}",
                "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
            ))
            .await?;
        }
        "switch" => wire.send("HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n").await?,
        _ => wire.send([&sized("")[..], content].concat()).await?,
    }
    Ok(true)
}

/// Echoes, until somebody has had enough.
async fn websocket(world: &World, mut wire: Wire) -> io::Result<()> {
    wire.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n").await?;
    loop {
        let (opcode, payload) = wire.next_frame().await?;
        if opcode == 8 {
            return wire.send(frame(8, &payload, false)).await;
        }
        match world.below(20) {
            0 => return wire.reset(),
            1 => return Ok(()),
            2 => return wire.send(frame(8, &1000_u16.to_be_bytes(), false)).await,
            // Half of a frame, and then nothing.
            3 => return wire.send(&frame(1, &payload, false)[..1]).await,
            _ => wire.send(frame(opcode, &payload, false)).await?,
        }
    }
}

/// Events without end, but for accidents.
async fn events(world: &World, mut wire: Wire) -> io::Result<()> {
    wire.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n").await?;
    loop {
        wire.send("9\r\ndata: a\n\n\r\n").await?;
        world.pause(60).await;
        match world.below(200) {
            0 => return wire.reset(),
            1 => return Ok(()),
            2 => return wire.send("0\r\n\r\n").await,
            _ => {}
        }
    }
}
