//! A WebSocket session (RFC 6455) as a client keeps it: messages that must come back, and an end that was said.
//!
//! The session is one entry in the ledger. It is answered where every message came back and the end was a Close frame, ours
//! or the server's; messages that crossed the server's Close are not counted, since after it the server may not send.

use std::collections::VecDeque;
use std::time::Duration;

use lameduck_core::judge::{Ending, SLACK};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::exchange::{ClosedBy, Exchanged, fin_or_rst, is_reset};
use super::response::Head;
use crate::clock::Clock;
use crate::rng::Rng;

/// The key of every handshake: the sample of RFC 6455, section 1.3. A browser's is random, so that a cache cannot take one
/// handshake's answer for another's; with a known one, the answer is known without computing SHA-1.
pub(crate) const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// What a server answers to [`KEY`].
pub(crate) const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
/// The longest head accepted, in bytes.
const LONGEST_HEAD: usize = 64 << 10;
/// The longest message accepted, in bytes: longer than any sent.
const LONGEST_MESSAGE: usize = 1 << 20;
/// How long the server may take to close the connection after both Close frames. It is the server that closes first
/// (RFC 6455, section 7.1.1).
const LINGER: Duration = Duration::from_secs(1);

/// The kinds of frames (RFC 6455, section 5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

impl Opcode {
    fn from_bits(bits: u8) -> Option<Opcode> {
        match bits {
            0 => Some(Opcode::Continuation),
            1 => Some(Opcode::Text),
            2 => Some(Opcode::Binary),
            8 => Some(Opcode::Close),
            9 => Some(Opcode::Ping),
            10 => Some(Opcode::Pong),
            _ => None,
        }
    }

    const fn bits(self) -> u8 {
        match self {
            Opcode::Continuation => 0,
            Opcode::Text => 1,
            Opcode::Binary => 2,
            Opcode::Close => 8,
            Opcode::Ping => 9,
            Opcode::Pong => 10,
        }
    }

    const fn is_control(self) -> bool {
        matches!(self, Opcode::Close | Opcode::Ping | Opcode::Pong)
    }
}

/// Bytes that are not a server's frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct NotFrames;

/// What a server said.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Said {
    Message(Vec<u8>),
    Ping(Vec<u8>),
    Close(Option<u16>),
}

/// Reads a server's frames from bytes that arrive in any portions.
#[derive(Debug, Default)]
struct Frames {
    buffer: Vec<u8>,
    /// The parts of a message whose last part has not come.
    message: Option<Vec<u8>>,
}

impl Frames {
    fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next thing said in full; a pong is skipped.
    fn next(&mut self) -> Result<Option<Said>, NotFrames> {
        while let Some((last, opcode, payload)) = self.frame()? {
            match (opcode, self.message.take()) {
                (Opcode::Close, _) => return Ok(Some(Said::Close(close_code(&payload)?))),
                (Opcode::Ping, message) => {
                    self.message = message;
                    return Ok(Some(Said::Ping(payload)));
                }
                (Opcode::Pong, message) => self.message = message,
                (Opcode::Text | Opcode::Binary, None) if last => return Ok(Some(Said::Message(payload))),
                (Opcode::Text | Opcode::Binary, None) => self.message = Some(payload),
                (Opcode::Continuation, Some(mut message)) => {
                    message.extend_from_slice(&payload);
                    if message.len() > LONGEST_MESSAGE {
                        return Err(NotFrames);
                    }
                    if last {
                        return Ok(Some(Said::Message(message)));
                    }
                    self.message = Some(message);
                }
                (Opcode::Continuation, None) | (Opcode::Text | Opcode::Binary, Some(_)) => return Err(NotFrames),
            }
        }
        Ok(None)
    }

    /// The next frame, if all of it is there: whether it ends its message, its kind, its payload.
    fn frame(&mut self) -> Result<Option<(bool, Opcode, Vec<u8>)>, NotFrames> {
        let &[first, second, ref rest @ ..] = self.buffer.as_slice() else { return Ok(None) };
        let opcode = Opcode::from_bits(first & 0x0f).ok_or(NotFrames)?;
        let last = first & 0x80 != 0;
        // No extension was agreed on, and a server never masks (section 5.1).
        if first & 0x70 != 0 || second & 0x80 != 0 || (opcode.is_control() && (!last || second > 125)) {
            return Err(NotFrames);
        }
        let (length, head) = match (second, rest) {
            (126, &[a, b, ..]) => (usize::from(u16::from_be_bytes([a, b])), 4),
            (127, rest) if rest.len() >= 8 => {
                let length = rest[..8].iter().fold(0u64, |length, byte| length << 8 | u64::from(*byte));
                (usize::try_from(length).map_err(|_| NotFrames)?, 10)
            }
            (126 | 127, _) => return Ok(None),
            (short, _) => (usize::from(short), 2),
        };
        if length > LONGEST_MESSAGE {
            return Err(NotFrames);
        }
        if self.buffer.len() < head + length {
            return Ok(None);
        }
        let rest = self.buffer.split_off(head + length);
        let payload = std::mem::replace(&mut self.buffer, rest).split_off(head);
        Ok(Some((last, opcode, payload)))
    }
}

/// The code of a Close; it may say none (section 5.5.1).
fn close_code(payload: &[u8]) -> Result<Option<u16>, NotFrames> {
    match payload {
        [] => Ok(None),
        [_] => Err(NotFrames),
        [a, b, ..] => Ok(Some(u16::from_be_bytes([*a, *b]))),
    }
}

/// Whether a server that closes with this code ends the session in order: normal closure, going away, service restart
/// (section 7.4.1 and the IANA registry), or no code.
const fn in_order(code: Option<u16>) -> bool {
    matches!(code, None | Some(1000 | 1001 | 1012))
}

/// The bit before a length that says that the payload is masked (section 5.2).
const MASKED: u8 = 0x80;

/// Appends a client's frame: whole, masked.
fn put(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8], rng: &mut Rng) {
    out.push(0x80 | opcode.bits());
    match payload.len() {
        short @ 0..126 => out.push(MASKED + short as u8),
        middle @ 126..65_536 => {
            out.push(MASKED + 126);
            out.extend_from_slice(&(middle as u16).to_be_bytes());
        }
        long => {
            out.push(MASKED + 127);
            out.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    let mask = (rng.next_u64() as u32).to_be_bytes();
    out.extend_from_slice(&mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

/// What a session does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan<'p> {
    /// The request that asks for the upgrade.
    pub(crate) request: &'p [u8],
    /// The id, which every message begins with.
    pub(crate) id: &'p str,
    /// How long messages are sent.
    pub(crate) life: Duration,
    /// The time from one to the next.
    pub(crate) pace: Duration,
    /// The least length of a message.
    pub(crate) message_bytes: usize,
    /// The most time for an answer: to the upgrade, to each message, to our Close.
    pub(crate) timeout: Duration,
    /// The simulated round trip: what was sent within it may have crossed the server's Close.
    pub(crate) rtt: Duration,
    /// What masks are drawn from.
    pub(crate) seed: u64,
}

/// Where a session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The upgrade has been asked for.
    Upgrading,
    /// Messages go back and forth.
    Open,
    /// Our Close has been sent.
    Closing,
}

/// How a session ended, before the sockets are asked for more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// With a Close, and by whom.
    InOrder(Option<ClosedBy>),
    /// With a Close, though something sent long before it never came back.
    EchoMissing,
    /// The upgrade was answered, not granted.
    NotGranted,
    /// With a Close that says that something went wrong.
    Aborted,
    Eof,
    Reset,
    Malformed,
    Late,
}

struct Session<'p> {
    plan: Plan<'p>,
    stage: Stage,
    head: Option<Head>,
    frames: Frames,
    out: Vec<u8>,
    rng: Rng,
    /// When each message that has not come back was sent, and which it was.
    awaited: VecDeque<(Duration, u64)>,
    sent_messages: u64,
    /// When the first message was due.
    opened: Duration,
    /// When what we wait for must have come.
    deadline: Duration,
}

impl Session<'_> {
    fn message(&self, number: u64) -> Vec<u8> {
        let mut text = format!("{} {number} ", self.plan.id).into_bytes();
        text.resize(text.len().max(self.plan.message_bytes), b'x');
        text
    }

    /// When there is something to do without being told.
    fn due(&self) -> Duration {
        let next = self.opened + self.plan.pace * self.sent_messages as u32;
        match self.stage {
            Stage::Open if next < self.opened + self.plan.life => next.min(self.deadline),
            // Nothing is left to send: the end of the life, or the last messages to come back.
            Stage::Open if self.awaited.is_empty() => self.opened + self.plan.life,
            Stage::Upgrading | Stage::Open | Stage::Closing => self.deadline,
        }
    }

    /// Sends what is due now.
    fn act(&mut self, now: Duration) -> Option<Ended> {
        let waits = self.stage != Stage::Open || !self.awaited.is_empty();
        if waits && now >= self.deadline {
            return Some(Ended::Late);
        }
        if self.stage != Stage::Open {
            return None;
        }
        let next = self.opened + self.plan.pace * self.sent_messages as u32;
        if next < self.opened + self.plan.life {
            if now >= next {
                let message = self.message(self.sent_messages);
                put(&mut self.out, Opcode::Text, &message, &mut self.rng);
                if self.awaited.is_empty() {
                    self.deadline = now + self.plan.timeout;
                }
                self.awaited.push_back((now, self.sent_messages));
                self.sent_messages += 1;
            }
        } else if self.awaited.is_empty() && now >= self.opened + self.plan.life {
            put(&mut self.out, Opcode::Close, &1000u16.to_be_bytes(), &mut self.rng);
            self.stage = Stage::Closing;
            self.deadline = now + self.plan.timeout;
        }
        None
    }

    /// Takes bytes from the server.
    fn read(&mut self, bytes: &[u8], now: Duration) -> Option<Ended> {
        self.frames.feed(bytes);
        if self.stage == Stage::Upgrading {
            match upgraded(&mut self.frames.buffer, self.plan.id) {
                Err(NotFrames) => return Some(Ended::Malformed),
                Ok(None) => return None,
                Ok(Some(head)) => {
                    self.head = Some(head);
                    if head.status != 101 {
                        return Some(Ended::NotGranted);
                    }
                    (self.stage, self.opened, self.deadline) = (Stage::Open, now, now + self.plan.timeout);
                }
            }
        }
        loop {
            match self.frames.next() {
                Err(NotFrames) => return Some(Ended::Malformed),
                Ok(None) => return None,
                Ok(Some(Said::Ping(payload))) => put(&mut self.out, Opcode::Pong, &payload, &mut self.rng),
                Ok(Some(Said::Message(payload))) => match self.awaited.pop_front() {
                    Some((_, number)) if payload == self.message(number) => {
                        self.deadline = self.awaited.front().map_or(now, |(sent, _)| *sent) + self.plan.timeout;
                    }
                    Some(_) | None => return Some(Ended::Malformed),
                },
                Ok(Some(Said::Close(_))) if self.stage == Stage::Closing => return Some(Ended::InOrder(None)),
                Ok(Some(Said::Close(code))) => return Some(self.closed_by_server(code, now)),
            }
        }
    }

    fn closed_by_server(&mut self, code: Option<u16>, now: Duration) -> Ended {
        let echo = code.map(u16::to_be_bytes);
        put(&mut self.out, Opcode::Close, echo.as_ref().map_or(&[], |code| &code[..]), &mut self.rng);
        let crossing = self.plan.rtt + SLACK;
        let missing = self.awaited.iter().any(|(sent, _)| *sent + crossing < now);
        match (in_order(code), missing) {
            (false, _) => Ended::Aborted,
            (true, true) => Ended::EchoMissing,
            (true, false) => Ended::InOrder(Some(ClosedBy::Server)),
        }
    }
}

/// Takes the final head of the handshake's answer out of `buffer`, if all of it is there.
fn upgraded(buffer: &mut Vec<u8>, id: &str) -> Result<Option<Head>, NotFrames> {
    loop {
        let mut fields = [httparse::EMPTY_HEADER; 128];
        let mut response = httparse::Response::new(&mut fields);
        let httparse::Status::Complete(length) = response.parse(buffer).map_err(|_| NotFrames)? else {
            return if buffer.len() > LONGEST_HEAD { Err(NotFrames) } else { Ok(None) };
        };
        let status = response.code.ok_or(NotFrames)?;
        let value = |name: &str| {
            let field = response.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name));
            field.map(|field| field.value)
        };
        let accepted = value("sec-websocket-accept") == Some(ACCEPT.as_bytes())
            && value("upgrade").is_some_and(|to| to.eq_ignore_ascii_case(b"websocket"));
        let echoed = value("x-request-id") == Some(id.as_bytes());
        buffer.drain(..length);
        match status {
            101 if !accepted => return Err(NotFrames),
            100 | 102..200 => {}
            status => return Ok(Some(Head { status, keep: false, said_close: false, echoed })),
        }
    }
}

/// Keeps a session on a connection from its request to its end.
pub(crate) async fn session(stream: &mut TcpStream, plan: Plan<'_>, clock: Clock) -> Exchanged {
    let began = clock.now();
    let mut session = Session {
        plan,
        stage: Stage::Upgrading,
        head: None,
        frames: Frames::default(),
        out: plan.request.to_vec(),
        rng: Rng::new(plan.seed),
        awaited: VecDeque::new(),
        sent_messages: 0,
        opened: began,
        deadline: began + plan.timeout,
    };
    let (mut written, mut received, mut reset) = (0u64, 0u64, false);
    let mut buffer = vec![0u8; 4 << 10];
    let ended = loop {
        if reset {
            session.out.clear();
        }
        let (mut read_half, mut write_half) = stream.split();
        tokio::select! {
            biased;
            wrote = write_half.write(&session.out), if !session.out.is_empty() => match wrote {
                Ok(n) => {
                    session.out.drain(..n);
                    written += n as u64;
                }
                // What the server sent before it closed may still be read.
                Err(_) => reset = true,
            },
            read = read_half.read(&mut buffer) => match read {
                Ok(0) => break Ended::Eof,
                Ok(n) => {
                    received += n as u64;
                    if let Some(ended) = session.read(&buffer[..n], clock.now()) {
                        break ended;
                    }
                }
                Err(error) => break if is_reset(&error) { Ended::Reset } else { Ended::Eof },
            },
            () = clock.until(session.due()) => {
                if let Some(ended) = session.act(clock.now()) {
                    break ended;
                }
            }
        }
    };
    let at = clock.now();
    let status = session.head.map_or(0, |head| head.status);
    let (ending, closed_by) = match ended {
        Ended::InOrder(by) => (Ending::Complete { status }, by),
        // The rest of the conversation is what did not come: a cut, though a polite one.
        Ended::EchoMissing => (Ending::Fin, Some(ClosedBy::Server)),
        Ended::NotGranted if status >= 500 => (Ending::Complete { status }, None),
        Ended::NotGranted | Ended::Aborted => (Ending::Aborted, Some(ClosedBy::Server)),
        Ended::Eof => (fin_or_rst(stream, reset).await, Some(ClosedBy::Server)),
        Ended::Reset => (Ending::Rst, Some(ClosedBy::Server)),
        Ended::Malformed => (Ending::Malformed, Some(ClosedBy::Client)),
        Ended::Late => (Ending::TimedOut, Some(ClosedBy::Client)),
    };
    if matches!(ended, Ended::InOrder(_) | Ended::EchoMissing | Ended::Aborted) {
        // The session is over either way; a server that does not close is not waited for.
        let _ = tokio::time::timeout(LINGER, farewell(stream, &session.out)).await;
    }
    Exchanged { ending, head: session.head, bytes_out: written, bytes_in: received, reusable: false, closed_by, at }
}

/// Sends our Close, where it is still to be sent, and reads until the server closes.
async fn farewell(stream: &mut TcpStream, close: &[u8]) {
    let mut rest = [0u8; 512];
    if stream.write_all(close).await.is_ok() {
        while matches!(stream.read(&mut rest).await, Ok(1..)) {}
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::net::TcpListener;

    use super::*;
    use crate::rng::Rng;

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    const MS: Duration = Duration::from_millis(1);

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap());
        let (client, server) = tokio::join!(client, listener.accept());
        (client.unwrap(), server.unwrap().0)
    }

    /// The other end, on the same socket as a real server's.
    struct Peer {
        stream: TcpStream,
        pending: Vec<u8>,
    }

    impl Peer {
        async fn say(&mut self, bytes: &[u8]) {
            self.stream.write_all(bytes).await.unwrap();
        }

        async fn more(&mut self) -> bool {
            let mut buffer = [0u8; 1024];
            let n = self.stream.read(&mut buffer).await.unwrap_or(0);
            self.pending.extend_from_slice(&buffer[..n]);
            n > 0
        }

        async fn grant(&mut self) {
            while !self.pending.ends_with(b"\r\n\r\n") {
                assert!(self.more().await);
            }
            self.pending.clear();
            let head = format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
            );
            self.say(head.as_bytes()).await;
        }

        /// The next frame of the client, unmasked: opcode and payload. None of a test is longer than 125 bytes.
        async fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
            loop {
                if let [first, second, rest @ ..] = self.pending.as_slice() {
                    let length = usize::from(second & 0x7f);
                    if rest.len() >= length + 4 {
                        let payload = rest[4..4 + length].iter().zip(rest[..4].iter().cycle()).map(|(b, m)| b ^ m);
                        let frame = (first & 0x0f, payload.collect());
                        self.pending.drain(..length + 6);
                        return Some(frame);
                    }
                }
                if !self.more().await {
                    return None;
                }
            }
        }

        async fn send(&mut self, opcode: u8, payload: &[u8]) {
            self.say(&[&[0x80 | opcode, payload.len() as u8], payload].concat()).await;
        }

        /// Sends so many messages back.
        async fn echo(&mut self, times: usize) {
            for _ in 0..times {
                let (opcode, payload) = self.frame().await.unwrap();
                assert_eq!(opcode, 1);
                self.send(1, &payload).await;
            }
        }
    }

    /// What a session of 3 messages in 30 ms sees of a server that upgrades and then does `serve`.
    async fn sees(serve: impl AsyncFnOnce(&mut Peer)) -> Exchanged {
        let (mut client, server) = pair().await;
        let plan = Plan {
            request: REQUEST,
            id: "ld-x-1",
            life: MS * 30,
            pace: MS * 10,
            message_bytes: 40,
            timeout: MS * 400,
            rtt: Duration::ZERO,
            seed: 7,
        };
        let server = async {
            let mut peer = Peer { stream: server, pending: Vec::new() };
            serve(&mut peer).await;
        };
        tokio::join!(session(&mut client, plan, Clock::start()), server).0
    }

    fn is_answered(got: &Exchanged, by: Option<ClosedBy>) {
        assert_eq!((got.ending, got.closed_by), (Ending::Complete { status: 101 }, by));
        assert!(!got.reusable);
    }

    #[tokio::test]
    async fn all_echoed_and_closed_by_us() {
        let got = sees(async |peer| {
            peer.grant().await;
            peer.send(9, b"are you there").await;
            let mut seen = Vec::new();
            while let Some((opcode, payload)) = peer.frame().await {
                seen.push(opcode);
                match opcode {
                    1 => peer.send(1, &payload).await,
                    8 => {
                        assert_eq!(payload, 1000u16.to_be_bytes());
                        peer.send(8, &payload).await;
                        break;
                    }
                    _ => assert_eq!(payload, b"are you there"),
                }
            }
            seen.sort_unstable();
            assert_eq!(seen, [1, 1, 1, 8, 10]);
        })
        .await;
        is_answered(&got, None);
    }

    #[tokio::test]
    async fn closed_by_the_server_in_order() {
        for code in [1000u16, 1001, 1012] {
            let got = sees(async |peer| {
                peer.grant().await;
                peer.echo(1).await;
                peer.send(8, &code.to_be_bytes()).await;
                while let Some((opcode, payload)) = peer.frame().await {
                    if opcode == 8 {
                        assert_eq!(payload, code.to_be_bytes());
                        return;
                    }
                }
                panic!("the Close is answered");
            })
            .await;
            is_answered(&got, Some(ClosedBy::Server));
        }
    }

    #[tokio::test]
    async fn a_message_that_crossed_the_close_is_not_counted() {
        let got = sees(async |peer| {
            peer.grant().await;
            peer.frame().await.unwrap();
            peer.send(8, &1001u16.to_be_bytes()).await;
        })
        .await;
        is_answered(&got, Some(ClosedBy::Server));
    }

    #[tokio::test]
    async fn a_message_long_before_the_close_is() {
        let got = sees(async |peer| {
            peer.grant().await;
            tokio::time::sleep(MS * 320).await;
            peer.send(8, &1001u16.to_be_bytes()).await;
        })
        .await;
        assert_eq!(got.ending, Ending::Fin);
        assert!(got.bytes_in > 0);
    }

    #[tokio::test]
    async fn a_close_for_an_error_is_the_servers_own() {
        let got = sees(async |peer| {
            peer.grant().await;
            peer.send(8, &1011u16.to_be_bytes()).await;
        })
        .await;
        assert_eq!(got.ending, Ending::Aborted);
    }

    #[tokio::test]
    async fn cut_without_a_close() {
        // Between frames, in the middle of one, and after our own Close.
        for (echoes, rest) in [(1, &b""[..]), (1, b"\x81\x20half"), (3, b"")] {
            let got = sees(async |peer| {
                peer.grant().await;
                peer.echo(echoes).await;
                // What is left unread would make an RST of the close.
                if echoes == 3 {
                    assert_eq!(peer.frame().await.unwrap().0, 8);
                }
                peer.say(rest).await;
            })
            .await;
            assert!(matches!(got.ending, Ending::Fin | Ending::Rst), "{got:?}");
            assert_eq!((got.closed_by, got.bytes_in > 0), (Some(ClosedBy::Server), true));
        }
    }

    #[tokio::test]
    async fn an_upgrade_that_is_not_granted() {
        let check = async |answer: &[u8], expect: Ending| {
            let got = sees(async |peer| {
                peer.more().await;
                peer.say(answer).await;
            })
            .await;
            assert_eq!(got.ending, expect);
        };
        check(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Ending::Aborted).await;
        check(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", Ending::Complete { status: 503 }).await;
        check(b"HTTP/1.1 101 Go\r\nUpgrade: websocket\r\n\r\n", Ending::Malformed).await;
        check(b"220 smtp\r\n", Ending::Malformed).await;
        check(b"", Ending::Fin).await;
    }

    #[tokio::test]
    async fn silence_is_a_timeout_and_another_message_is_not_ours() {
        let got = sees(async |peer| {
            peer.grant().await;
            tokio::time::sleep(MS * 600).await;
        })
        .await;
        assert_eq!((got.ending, got.closed_by), (Ending::TimedOut, Some(ClosedBy::Client)));
        let got = sees(async |peer| {
            peer.grant().await;
            peer.frame().await.unwrap();
            peer.send(1, b"ld-x-1 9 ").await;
        })
        .await;
        assert_eq!(got.ending, Ending::Malformed);
    }

    #[test]
    fn frames_of_a_server() {
        let check = |wire: &[u8], expect: &[Said]| {
            let mut frames = Frames::default();
            frames.feed(wire);
            let mut seen = Vec::new();
            while let Some(said) = frames.next().unwrap() {
                seen.push(said);
            }
            assert_eq!(seen, expect, "{wire:?}");
        };
        check(b"\x81\x02hi", &[Said::Message(b"hi".to_vec())]);
        check(b"\x01\x01h\x89\x01p\x8a\x00\x80\x01i", &[Said::Ping(b"p".to_vec()), Said::Message(b"hi".to_vec())]);
        check(b"\x88\x00", &[Said::Close(None)]);
        check(b"\x88\x02\x03\xe9", &[Said::Close(Some(1001))]);
        check(b"\x81\x03hi", &[]);
        let long = [&b"\x82\x7e\x01\x00"[..], &[7; 256]].concat();
        check(&long, &[Said::Message(vec![7; 256])]);
        for bad in [
            &b"\x81\x82mask"[..], // masked
            b"\xc1\x00",          // an extension's bit
            b"\x83\x00",          // no such opcode
            b"\x80\x00",          // continues nothing
            b"\x09\x00",          // a control frame in parts
            b"\x88\x01x",         // half a code
            b"\x82\x7f\x00\x00\x00\x01\x00\x00\x00\x00",
        ] {
            let mut frames = Frames::default();
            frames.feed(bad);
            assert_eq!(frames.next(), Err(NotFrames), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_split_reads_the_same(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..5), cut in 1usize..40,
        ) {
            let mut wire = Vec::new();
            for message in &messages {
                wire.push(0x82);
                match message.len() {
                    short @ 0..126 => wire.push(short as u8),
                    long => wire.extend([&[126][..], &(long as u16).to_be_bytes()].concat()),
                }
                wire.extend(message);
            }
            let (mut frames, mut seen) = (Frames::default(), Vec::new());
            for piece in wire.chunks(cut) {
                frames.feed(piece);
                while let Some(said) = frames.next().unwrap() {
                    seen.push(said);
                }
            }
            prop_assert_eq!(seen, messages.into_iter().map(Said::Message).collect::<Vec<_>>());
            prop_assert!(frames.buffer.is_empty());
        }

        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut frames = Frames::default();
            frames.feed(&bytes);
            while let Ok(Some(_)) = frames.next() {}
            let _ = upgraded(&mut bytes.clone(), "x");
        }

        #[test]
        fn a_masked_frame_is_what_it_was(payload in prop::collection::vec(any::<u8>(), 0..70_000), seed in any::<u64>()) {
            let mut wire = Vec::new();
            put(&mut wire, Opcode::Binary, &payload, &mut Rng::new(seed));
            let head = match payload.len() { 0..126 => 2, 126..65_536 => 4, _ => 10 };
            let mask = wire[head..head + 4].to_vec();
            let back: Vec<u8> = wire[head + 4..].iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m).collect();
            prop_assert!(back == payload && wire[0] == 0x82 && wire[1] & 0x80 != 0);
        }
    }
}
