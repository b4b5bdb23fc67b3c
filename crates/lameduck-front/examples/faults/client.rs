//! The clients: one session each, of a kind that chance picks.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::time::sleep;

use crate::app::{Kind, VERBS};
use crate::wire::{Wire, chunks, frame};
use crate::{World, content, http2};

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    pub verb: &'static str,
    pub kind: Kind,
    pub id: u64,
    pub size: usize,
}

impl Asked {
    pub fn any(world: &World) -> Asked {
        // Half of all is as it should be.
        let (verb, kind) = if world.chance(50) { VERBS[0] } else { *world.pick(VERBS) };
        Asked::of(world, verb, kind)
    }

    pub fn good(world: &World) -> Asked {
        Asked::of(world, "ok", Kind::Good)
    }

    pub fn of(world: &World, verb: &'static str, kind: Kind) -> Asked {
        let size = [world.below(300), world.below(20_000), world.below(150_000)][world.below(3) as usize] as usize;
        Asked { verb, kind, id: world.id(), size }
    }

    pub fn path(&self) -> String {
        format!("/{}/{}/{}", self.verb, self.id, self.size)
    }

    pub fn head(&self, method: &str, fields: &str) -> Vec<u8> {
        format!("{method} {} HTTP/1.1\r\nHost: soak\r\n{fields}\r\n", self.path()).into_bytes()
    }

    /// Holds a whole answer against what was asked for.
    pub fn check(&self, world: &World, status: u16, body: &[u8]) {
        world.saw(format!("{:?}: {status}", self.kind).to_lowercase());
        let right = match (self.kind, status) {
            (Kind::Good, 200) => body == content(self.id, self.size),
            // The app restarts in the middle of things, or does not listen.
            (_, 502..=504) => true,
            (Kind::Good | Kind::Cut | Kind::Bad, _) => false,
        };
        if !right {
            world.wrong(format!("{} got a whole answer {status} of {} bytes", self.path(), body.len()));
        }
    }
}

fn status(head: &str) -> u16 {
    head.get(9..12).and_then(|status| status.parse().ok()).unwrap_or(0)
}

/// The head of the answer behind interim ones.
async fn final_head(wire: &mut Wire) -> io::Result<String> {
    loop {
        let head = wire.head().await?;
        if !(100..200).contains(&status(&head)) || status(&head) == 101 {
            return Ok(head);
        }
    }
}

/// Reads an answer and holds it against what was asked for; whether the connection goes on.
async fn answered(world: &World, wire: &mut Wire, asked: &Asked) -> io::Result<bool> {
    let head = final_head(wire).await?;
    let body = wire.body(&head, true).await?;
    asked.check(world, status(&head), &body);
    Ok(!head.to_ascii_lowercase().contains("\r\nconnection: close\r\n"))
}

pub async fn session(world: &Rc<World>, front: &str) {
    let (kind, result) = match world.below(20) {
        0..=4 => ("kept", kept(world, front).await),
        5 => ("pipelined", pipelined(world, front).await),
        6 | 7 => ("upload", upload(world, front).await),
        8 => ("slow-head", slow_head(world, front).await),
        9 => ("slow-body", slow_body(world, front).await),
        10 => ("slow-reader", slow_reader(world, front).await),
        11 | 12 => ("vanishing", vanishing(world, front).await),
        13 => ("half-closed", half_closed(world, front).await),
        14 => ("early", early(world, front).await),
        15 => ("nonsense", nonsense(world, front).await),
        16 => ("websocket", websocket(world, front).await),
        17 => ("events", events(world, front).await),
        _ => ("http2", http2::session(world, front).await),
    };
    world.saw(format!("session {kind}: {}", if result.is_ok() { "done" } else { "cut" }));
}

/// Request after request on one connection.
async fn kept(world: &World, front: &str) -> io::Result<()> {
    let mut wire = Wire::connect(front).await?;
    let agent = if world.chance(10) { "User-Agent: kube-probe/1.30\r\n" } else { "" };
    for _ in 0..=world.below(8) {
        let asked = Asked::any(world);
        wire.send(asked.head("GET", agent)).await?;
        if !answered(world, &mut wire, &asked).await? {
            return Ok(());
        }
        world.pause(150).await;
    }
    if world.chance(30) {
        // Idle for longer than the front allows.
        let _ = wire.more().await;
    }
    Ok(())
}

/// Many at once, answers in their order.
async fn pipelined(world: &World, front: &str) -> io::Result<()> {
    let mut wire = Wire::connect(front).await?;
    let all: Vec<Asked> = (0..2 + world.below(7))
        .map(|_| if world.chance(90) { Asked::good(world) } else { Asked::any(world) })
        .collect();
    let bytes: Vec<u8> = all.iter().flat_map(|asked| asked.head("GET", "")).collect();
    for part in bytes.chunks(1 + world.below(bytes.len() as u64) as usize) {
        wire.send(part).await?;
        world.pause(10).await;
    }
    for asked in &all {
        if world.chance(3) {
            return wire.reset();
        }
        if !answered(world, &mut wire, asked).await? {
            break;
        }
    }
    Ok(())
}

async fn upload(world: &World, front: &str) -> io::Result<()> {
    let mut wire = Wire::connect(front).await?;
    for _ in 0..=world.below(4) {
        let asked = Asked::any(world);
        let body = content(asked.id, world.below(120_000) as usize);
        let expect = if world.chance(20) { "Expect: 100-continue\r\n" } else { "" };
        let (framing, coded) = if world.chance(50) {
            (format!("Content-Length: {}\r\n{expect}", body.len()), body)
        } else {
            (format!("Transfer-Encoding: chunked\r\n{expect}"), chunks(&body, 1 + world.below(9000) as usize))
        };
        wire.send(asked.head("POST", &framing)).await?;
        if !expect.is_empty() {
            world.pause(50).await;
        }
        for part in coded.chunks(1 + world.below(100_000) as usize) {
            wire.send(part).await?;
        }
        if !answered(world, &mut wire, &asked).await? {
            break;
        }
    }
    Ok(())
}

/// A head a byte at a time, some of them slower than is allowed.
async fn slow_head(world: &World, front: &str) -> io::Result<()> {
    let mut wire = Wire::connect(front).await?;
    let asked = Asked::good(world);
    let (head, pause) = (asked.head("GET", ""), world.below(120));
    for byte in head.chunks(1) {
        wire.send(byte).await?;
        sleep(Duration::from_millis(pause)).await;
    }
    let head = final_head(&mut wire).await?;
    let body = wire.body(&head, true).await?;
    if status(&head) != 408 {
        asked.check(world, status(&head), &body);
    }
    Ok(())
}

/// A body in drops, some of which stop.
async fn slow_body(world: &World, front: &str) -> io::Result<()> {
    let mut wire = Wire::connect(front).await?;
    let asked = Asked::good(world);
    let body = content(asked.id, 4000);
    let (framing, coded) = if world.chance(50) {
        ("Content-Length: 4000\r\n", body)
    } else {
        ("Transfer-Encoding: chunked\r\n", chunks(&body, 300))
    };
    wire.send(asked.head("POST", framing)).await?;
    let stops = world.below(40) as usize;
    for (n, part) in coded.chunks(200).enumerate() {
        if n == stops {
            // Until the front has had enough.
            let head = final_head(&mut wire).await?;
            world.saw(format!("stopped upload: {}", status(&head)));
            return Ok(());
        }
        wire.send(part).await?;
        world.pause(100).await;
    }
    answered(world, &mut wire, &asked).await.map(|_| ())
}

/// Takes a large answer in sips; some stop.
async fn slow_reader(world: &World, front: &str) -> io::Result<()> {
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(4096)?;
    let address = front.parse().map_err(io::Error::other)?;
    let mut wire = Wire::new(socket.connect(address).await?);
    let verb = *world.pick(&["ok", "chunked", "close"]);
    let asked = Asked { size: 1 << 20, ..Asked::of(world, verb, Kind::Good) };
    wire.send(asked.head("GET", "")).await?;
    for _ in 0..world.below(40) {
        wire.more().await?;
        world.pause(30).await;
    }
    match world.below(3) {
        0 => answered(world, &mut wire, &asked).await.map(|_| ()),
        1 => wire.reset(),
        // Stays, and reads no more.
        _ => {
            sleep(Duration::from_secs(4)).await;
            Ok(())
        }
    }
}

/// Leaves without a word, wherever it is.
async fn vanishing(world: &World, front: &str) -> io::Result<()> {
    let mut wire = Wire::connect(front).await?;
    let asked = Asked::any(world);
    let post = world.chance(50);
    let mut all = if post { asked.head("POST", "Content-Length: 50000\r\n") } else { asked.head("GET", "") };
    if post {
        all.extend(content(asked.id, 50_000));
    }
    let stage = world.below(5);
    if stage == 0 {
        all.truncate(world.below(60) as usize);
    } else if stage == 1 {
        all.truncate(all.len() - world.below(all.len() as u64) as usize);
    }
    wire.send(&all).await?;
    match stage {
        0 | 1 => world.pause(100).await,
        2 => {}
        3 => {
            wire.head().await?;
        }
        _ => {
            let _ = answered(world, &mut wire, &asked).await;
        }
    }
    if world.chance(70) { wire.reset() } else { Ok(()) }
}

/// Sends no more, and waits for what it asked for.
async fn half_closed(world: &World, front: &str) -> io::Result<()> {
    let mut wire = Wire::connect(front).await?;
    if world.chance(20) {
        wire.send("GET /ok HT").await?;
        wire.stream.shutdown().await?;
        return wire.more().await;
    }
    let asked = Asked::any(world);
    wire.send(asked.head("GET", "")).await?;
    wire.stream.shutdown().await?;
    answered(world, &mut wire, &asked).await?;
    let _ = wire.more().await;
    Ok(())
}

/// Is answered before it has sent everything.
async fn early(world: &World, front: &str) -> io::Result<()> {
    let mut wire = Wire::connect(front).await?;
    let asked = Asked::of(world, if world.chance(70) { "early" } else { "unread" }, Kind::Good);
    let body = content(asked.id, 1 << 20);
    wire.send(asked.head("POST", "Content-Length: 1048576\r\n")).await?;
    for part in body.chunks(64 << 10) {
        if wire.send(part).await.is_err() {
            break;
        }
        world.pause(10).await;
    }
    let head = final_head(&mut wire).await?;
    world.saw(format!("{}: {}", asked.verb, status(&head)));
    Ok(())
}

/// What is no request, or is not one that may be forwarded.
async fn nonsense(world: &World, front: &str) -> io::Result<()> {
    let mut wire = Wire::connect(front).await?;
    let id = world.id();
    let post =
        |fields: &str, body: &str| format!("POST /ok/{id}/0 HTTP/1.1\r\nHost: x\r\n{fields}\r\n{body}").into_bytes();
    let bytes = match world.below(9) {
        0 => Vec::new(),
        1 => (0..=world.below(2000)).map(|_| world.below(256) as u8).collect(),
        2 => b"GET / HTTP/1.1\nHost: x\n\n".to_vec(),
        3 => post(&format!("A: {}\r\n", "a".repeat(100_000)), ""),
        4 => post(&"A: b\r\n".repeat(200), ""),
        5 => post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        6 => post("Transfer-Encoding: chunked\r\n", "xyz\r\n\r\n"),
        7 => post("Transfer-Encoding: chunked\r\n", "5\r\nhello!!\r\n0\r\n\r\n"),
        _ => b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nand then nothing of the kind".to_vec(),
    };
    wire.send(bytes).await?;
    while wire.more().await.is_ok() {}
    Ok(())
}

async fn websocket(world: &World, front: &str) -> io::Result<()> {
    let mut wire = Wire::connect(front).await?;
    let asked = Asked::of(world, "ws", Kind::Good);
    wire.send(asked.head("GET", "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n")).await?;
    let head = final_head(&mut wire).await?;
    if status(&head) != 101 {
        return Ok(());
    }
    for n in 0..world.below(30) {
        let payload = content(asked.id + n, 100);
        wire.send(frame(1, &payload, true)).await?;
        let (opcode, echoed) = wire.next_frame().await?;
        if opcode == 1 && echoed != payload {
            world.wrong(format!("{} was echoed something else", asked.path()));
        }
        world.pause(60).await;
    }
    match world.below(5) {
        0 => wire.reset(),
        1 => Ok(()),
        // Half of a frame.
        2 => wire.send(&frame(1, b"never whole", true)[..5]).await,
        3 => {
            wire.stream.shutdown().await?;
            wire.next_frame().await.map(|_| ())
        }
        _ => {
            wire.send(frame(8, &1000_u16.to_be_bytes(), true)).await?;
            wire.next_frame().await.map(|_| ())
        }
    }
}

async fn events(world: &World, front: &str) -> io::Result<()> {
    let mut wire = Wire::connect(front).await?;
    wire.send(Asked::of(world, "sse", Kind::Good).head("GET", "")).await?;
    final_head(&mut wire).await?;
    for _ in 0..world.below(60) {
        wire.more().await?;
    }
    if world.chance(50) { wire.reset() } else { Ok(()) }
}
