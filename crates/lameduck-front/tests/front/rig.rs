//! A front in a thread, an app that does what the path says, and clients that show every byte.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use lameduck_core::front::{Command, Figures, FrontPhase, Page, WORDS};
use lameduck_front::config::Upstream;
use lameduck_front::{Config, Handover};

/// A front that serves.
pub struct Front {
    pub address: SocketAddr,
    pub page: Page,
    commands: Option<UnixStream>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

pub fn page() -> Page {
    Page::new(Box::leak(Box::new([const { AtomicU64::new(0) }; WORDS])))
}

impl Front {
    pub fn start(upstream: SocketAddr, config: Config) -> Front {
        Front::with(Config { upstream: Upstream::Tcp(upstream), ..config })
    }

    pub fn with(config: Config) -> Front {
        Front::on(TcpListener::bind("127.0.0.1:0").unwrap(), config)
    }

    pub fn on(listener: TcpListener, config: Config) -> Front {
        let address = listener.local_addr().unwrap();
        let (commands, theirs) = UnixStream::pair().unwrap();
        let page = page();
        let handover = Handover { listeners: vec![OwnedFd::from(listener)], commands: theirs.into(), page };
        let thread = thread::spawn(move || lameduck_front::serve(config, handover));
        Front { address, page, commands: Some(commands), thread: Some(thread) }
    }

    /// Tells, and does not wait until it is heard.
    pub fn say(&mut self, command: Command) {
        self.commands.as_mut().unwrap().write_all(&[command.byte()]).unwrap();
    }

    pub fn tell(&mut self, command: Command) {
        self.say(command);
        let phase = match command {
            Command::LameDuck => FrontPhase::LameDuck,
            Command::Close | Command::End => FrontPhase::Closing,
            Command::NotReady | Command::AppGone => FrontPhase::Serving,
        };
        until("the command is heard", || self.page.phase() >= phase);
    }

    pub fn figures(&self) -> Figures {
        self.page.figures()
    }

    pub fn client(&self) -> Client {
        Client::connect(self.address)
    }

    /// Waits until everybody has left and the front ends by itself.
    pub fn ends_within(&mut self, limit: Duration) -> Duration {
        let began = Instant::now();
        let thread = self.thread.take().unwrap();
        while !thread.is_finished() {
            assert!(began.elapsed() < limit, "not over after {limit:?}: {:#?}", self.figures());
            thread::sleep(Duration::from_millis(2));
        }
        thread.join().unwrap().unwrap();
        began.elapsed()
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        // The front ends when PID 1 does.
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(20), "waited in vain: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// A client.
pub struct Client {
    pub stream: TcpStream,
    reader: BufReader<TcpStream>,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn closes(&self) -> bool {
        self.head.to_ascii_lowercase().contains("\r\nconnection: close\r\n")
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

impl Client {
    pub fn connect(address: SocketAddr) -> Client {
        Client::over(TcpStream::connect(address).unwrap())
    }

    pub fn over(stream: TcpStream) -> Client {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Client { reader: BufReader::new(stream.try_clone().unwrap()), stream }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    pub fn get(&mut self, path: &str) -> Answer {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
        self.answer()
    }

    pub fn post(&mut self, path: &str, body: &str) -> Answer {
        self.send(format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
        self.answer()
    }

    pub fn head(&mut self) -> io::Result<String> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.reader.read_line(&mut head)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(head)
    }

    pub fn answer(&mut self) -> Answer {
        self.try_answer(false).unwrap()
    }

    /// `head`: the answer to HEAD.
    pub fn try_answer(&mut self, to_head: bool) -> io::Result<Answer> {
        let head = self.head()?;
        let status: u16 = head[9..12].parse().unwrap();
        let lower = head.to_ascii_lowercase();
        let mut body = Vec::new();
        if to_head || status < 200 || status == 204 || status == 304 {
        } else if let Some(at) = lower.find("content-length: ") {
            let length: usize = lower[at + 16..].lines().next().unwrap().parse().unwrap();
            body.resize(length, 0);
            self.reader.read_exact(&mut body)?;
        } else if lower.contains("transfer-encoding: chunked") {
            body = self.chunks()?;
        } else {
            self.reader.read_to_end(&mut body)?;
        }
        Ok(Answer { status, head, body })
    }

    pub fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let mut line = String::new();
            if self.reader.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let size = usize::from_str_radix(line.trim_end(), 16).unwrap();
            if size == 0 {
                while line != "\r\n" {
                    line.clear();
                    self.reader.read_line(&mut line)?;
                    body.extend_from_slice(if line == "\r\n" { b"" } else { line.as_bytes() });
                }
                return Ok(body);
            }
            let at = body.len();
            body.resize(at + size + 2, 0);
            self.reader.read_exact(&mut body[at..])?;
            body.truncate(at + size);
        }
    }

    pub fn read_exact(&mut self, n: usize) -> Vec<u8> {
        let mut bytes = vec![0; n];
        self.reader.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// Whether the connection ended before another byte; a reset is an error.
    pub fn is_over(&mut self) -> io::Result<bool> {
        Ok(self.reader.fill_buf()?.is_empty())
    }

    /// How the connection ends, when nothing more is expected: `Ok` is FIN, `Err` is a reset.
    pub fn end(&mut self) -> io::Result<Vec<u8>> {
        let mut rest = Vec::new();
        self.reader.read_to_end(&mut rest)?;
        Ok(rest)
    }

    pub fn half_close(&self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }
}

/// An app that does what the path says, one thread a connection.
pub struct App {
    pub address: SocketAddr,
    pub seen: Arc<Seen>,
    open: Arc<Mutex<Vec<Weak<TcpStream>>>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
pub struct Seen {
    pub requests: AtomicU64,
    pub connections: AtomicU64,
    pub heads: Mutex<Vec<String>>,
    pub bodies: Mutex<Vec<Vec<u8>>>,
    /// With what codes WebSockets were closed.
    pub codes: Mutex<Vec<u16>>,
}

impl Seen {
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }

    pub fn closes(&self) -> Vec<u16> {
        self.codes.lock().unwrap().clone()
    }

    /// The paths that were asked for.
    pub fn paths(&self) -> Vec<String> {
        let heads = self.heads.lock().unwrap();
        heads.iter().filter_map(|head| head.split(' ').nth(1)).map(String::from).collect()
    }

    pub fn count(&self, path: &str) -> usize {
        self.heads.lock().unwrap().iter().filter(|head| head.split(' ').nth(1) == Some(path)).count()
    }
}

impl App {
    pub fn start() -> App {
        App::on(TcpListener::bind("127.0.0.1:0").unwrap())
    }

    pub fn on(listener: TcpListener) -> App {
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Seen::default());
        let open = Arc::new(Mutex::new(Vec::new()));
        let over = Arc::new(AtomicBool::new(false));
        let (shared, all, ends) = (Arc::clone(&seen), Arc::clone(&open), Arc::clone(&over));
        let thread = thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if ends.load(Ordering::SeqCst) {
                    return;
                }
                shared.connections.fetch_add(1, Ordering::SeqCst);
                let shared = Arc::clone(&shared);
                let stream = Arc::new(stream);
                all.lock().unwrap().push(Arc::downgrade(&stream));
                thread::spawn(move || {
                    let _ = converse(&stream, &shared);
                });
            }
        });
        App { address, seen, open, over, thread: Some(thread) }
    }

    /// Ends as a process does: its listener and all its connections with it.
    pub fn stop(mut self) {
        self.over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        self.thread.take().unwrap().join().unwrap();
        for stream in self.open.lock().unwrap().iter().filter_map(Weak::upgrade) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn converse(accepted: &TcpStream, seen: &Seen) -> io::Result<()> {
    let mut stream = accepted.try_clone()?;
    stream.set_nodelay(true)?;
    let mut client = Client { reader: BufReader::new(stream.try_clone()?), stream: stream.try_clone()? };
    loop {
        let head = client.head()?;
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let lower = head.to_ascii_lowercase();
        seen.heads.lock().unwrap().push(head.clone());
        if path == "/deaf" {
            // It never takes the body.
            thread::sleep(Duration::from_secs(10));
            return Ok(());
        }
        if path == "/early" {
            stream.write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 5\r\n\r\nearly")?;
            seen.requests.fetch_add(1, Ordering::SeqCst);
            thread::sleep(Duration::from_millis(300));
            return Ok(());
        }
        if lower.contains("expect: 100-continue") {
            // As late as the path says.
            let late = path.strip_prefix("/late/").and_then(|ms| ms.parse().ok()).unwrap_or(0);
            thread::sleep(Duration::from_millis(late));
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let body = if lower.contains("transfer-encoding: chunked") {
            client.chunks()?
        } else if let Some(at) = lower.find("content-length: ") {
            let length = lower[at + 16..].lines().next().unwrap().parse().unwrap();
            let mut body = vec![0; length];
            client.reader.read_exact(&mut body)?;
            body
        } else {
            Vec::new()
        };
        seen.bodies.lock().unwrap().push(body.clone());
        seen.requests.fetch_add(1, Ordering::SeqCst);
        let (verb, value) = path.trim_start_matches('/').split_once('/').unwrap_or((&path[1..], ""));
        match verb {
            "slow" => {
                thread::sleep(Duration::from_millis(value.parse().unwrap_or(200)));
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nslow\n")?;
            }
            "stream" => {
                stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
                for _ in 0..value.parse().unwrap_or(10) {
                    stream.write_all(b"5\r\npart\n\r\n")?;
                    thread::sleep(Duration::from_millis(50));
                }
                stream.write_all(b"0\r\n\r\n")?;
            }
            "events" | "plain-events" | "packed-events" | "mute" | "silent" | "ws" | "ws-parts" | "flood" => {
                return go_on(verb, &mut client, &mut stream, seen);
            }
            "close" => {
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nuntil the end")?;
                return Ok(());
            }
            "hints" => stream.write_all(
                b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            )?,
            "big" => {
                let size: usize = value.parse().unwrap();
                stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n").as_bytes())?;
                stream.write_all(&vec![b'x'; size])?;
            }
            "sloppy" => {
                // The content comes a moment after the head, and to HEAD too.
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n")?;
                thread::sleep(Duration::from_millis(5));
                stream.write_all(b"sloppy")?;
            }
            "once" => {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nonce")?;
                // Closed without a word, as servers with an idle timeout do.
                thread::sleep(Duration::from_millis(value.parse().unwrap_or(0)));
                return Ok(());
            }
            "die" => return Ok(()),
            "cut" => {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this")?;
                return Ok(());
            }
            "raw" => stream.write_all(percent(value).as_bytes())?,
            _ => {
                let answer = format!("{verb} {}", body.len());
                let length = answer.len();
                let content = if head.starts_with("HEAD") { "" } else { &answer };
                stream.write_all(
                    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nX-App: yes\r\n\r\n{content}").as_bytes(),
                )?;
            }
        }
    }
}

/// What the app goes on with until the connection ends.
fn go_on(verb: &str, client: &mut Client, stream: &mut TcpStream, seen: &Seen) -> io::Result<()> {
    match verb {
        // Until it closes: without chunks.
        "plain-events" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")?;
            loop {
                stream.write_all(b"data: a")?;
                thread::sleep(Duration::from_millis(30));
                stream.write_all(b"b\n\n")?;
                thread::sleep(Duration::from_millis(30));
            }
        }
        "events" | "packed-events" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n")?;
            if verb == "packed-events" {
                stream.write_all(b"Content-Encoding: gzip\r\n")?;
            }
            stream.write_all(b"Transfer-Encoding: chunked\r\n\r\n")?;
            loop {
                // An event in two parts, so that an end between them shows.
                stream.write_all(b"7\r\ndata: a\r\n")?;
                thread::sleep(Duration::from_millis(30));
                stream.write_all(b"3\r\nb\n\n\r\n")?;
                thread::sleep(Duration::from_millis(30));
            }
        }
        // An event that is not complete and never will be.
        "mute" => {
            stream.write_all(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
            )?;
            stream.write_all(b"7\r\ndata: a\r\n")?;
            client.end().map(|_| ())
        }
        "ws" => {
            stream
                .write_all(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")?;
            echo_frames(&mut client.reader, stream, seen)
        }
        "ws-parts" => {
            stream
                .write_all(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")?;
            // One byte of a frame, the rest of it a little later, for as long as nobody says anything.
            stream.set_read_timeout(Some(Duration::from_millis(40)))?;
            loop {
                stream.write_all(b"\x82\x06a")?;
                thread::sleep(Duration::from_millis(40));
                stream.write_all(b"bcdef")?;
                if !client.reader.fill_buf().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
                    return echo_frames(&mut client.reader, stream, seen);
                }
            }
        }
        "flood" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            loop {
                stream.write_all(&[b"4000\r\n", [b'x'; 0x4000].as_slice(), b"\r\n"].concat())?;
            }
        }
        _ => client.end().map(|_| ()),
    }
}

/// `_` for a blank, `~` for CRLF: enough to write an answer into a path.
fn percent(text: &str) -> String {
    text.replace('_', " ").replace('~', "\r\n")
}

/// Echoes WebSocket messages unmasked; answers Close with Close and ends.
fn echo_frames(reader: &mut impl Read, stream: &mut TcpStream, seen: &Seen) -> io::Result<()> {
    loop {
        let mut start = [0; 2];
        reader.read_exact(&mut start)?;
        assert!(start[1] & 0x80 != 0, "a client's frames are masked");
        let length = usize::from(start[1] & 0x7f);
        assert!(length < 126);
        let mut mask = [0; 4];
        reader.read_exact(&mut mask)?;
        let mut payload = vec![0; length];
        reader.read_exact(&mut payload)?;
        payload.iter_mut().enumerate().for_each(|(at, byte)| *byte ^= mask[at % 4]);
        let mut frame = vec![start[0], length as u8];
        frame.extend_from_slice(&payload);
        stream.write_all(&frame)?;
        if start[0] & 0x0f == 8 {
            seen.codes.lock().unwrap().push(u16::from_be_bytes([payload[0], payload[1]]));
            return Ok(());
        }
    }
}

/// A masked frame, as a client sends it.
pub fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode, 0x80 | payload.len() as u8, 1, 2, 3, 4];
    frame.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ [1, 2, 3, 4][at % 4]));
    frame
}
