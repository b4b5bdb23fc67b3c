//! Ten thousand idle connections, and a drain in the middle of them.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command as Program, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use lameduck_core::front::{Command, Figures};
use lameduck_front::config::Upstream;
use lameduck_front::{Config, Handover};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::super::rig::{App, Client, page};
use super::{SLACK, get, quick};

const MANY: usize = 10_000;
/// Of these, some use their connection in the lame duck.
const USED: usize = 500;
const SPREAD: Duration = Duration::from_secs(2);
/// An idle connection is not shed before it was idle for this long.
const LEAST_IDLE: Duration = Duration::from_millis(250);
/// Where the front's own process is told where the app is.
const UPSTREAM: &str = "LAMEDUCK_TEST_UPSTREAM";

/// What is freed is given back at once, or it would not show (glibc's manual, "Memory Allocation Tunables").
const TUNABLES: &str =
    "glibc.malloc.mxfast=0:glibc.malloc.tcache_count=0:glibc.malloc.trim_threshold=65536:glibc.malloc.arena_max=1";

/// A front in a process of its own: so that its memory is its own, and its descriptors. It is this test's program once more,
/// told where the app is.
struct Apart {
    process: Child,
    out: BufReader<std::process::ChildStdout>,
    commands: UnixStream,
    address: SocketAddr,
}

impl Apart {
    fn start(upstream: SocketAddr) -> Apart {
        let (commands, theirs) = UnixStream::pair().unwrap();
        let mut process = Program::new(std::env::current_exe().unwrap())
            .args(["--exact", "traps::many::ten_thousand_idle_connections_and_a_drain", "--nocapture"])
            .env(UPSTREAM, upstream.to_string())
            .env("GLIBC_TUNABLES", TUNABLES)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(process.stdout.take().unwrap());
        let address = said(&mut out, "listens at ").parse().unwrap();
        Apart { process, out, commands, address }
    }

    fn tell(&mut self, command: Command) {
        self.commands.write_all(&[command.byte()]).unwrap();
    }

    /// Anonymous memory, in bytes (`proc_pid_status(5)`).
    fn memory(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What follows these words in what is printed.
fn said(out: &mut impl BufRead, words: &str) -> String {
    let mut line = String::new();
    while out.read_line(&mut line).unwrap() > 0 {
        // The harness prints the name of the test, without an end of the line.
        if let Some((_, rest)) = line.split_once(words) {
            return rest.trim_end().to_owned();
        }
        line.clear();
    }
    panic!("it ended and never said: {words}");
}

/// What that process does.
fn be_a_front(upstream: &str) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut out = io::stdout();
    writeln!(out, "listens at {}", listener.local_addr().unwrap()).unwrap();
    let config = Config {
        upstream: Upstream::Tcp(upstream.parse().unwrap()),
        max_connections: MANY + 1000,
        shed_spread: SPREAD,
        ..quick()
    };
    let commands = io::stdin().as_fd().try_clone_to_owned().unwrap();
    let page = page();
    let handover = Handover { listeners: vec![listener.into()], commands: commands.try_clone().unwrap(), page };
    lameduck_front::serve(config, handover).unwrap();
    writeln!(out, "figures {}", serde_json::to_string(&page.figures()).unwrap()).unwrap();
    // Until its memory was looked at.
    let mut commands = UnixStream::from(commands);
    commands.set_nonblocking(false).unwrap();
    let _ = commands.read(&mut [0]);
}

/// As many descriptors as may be; whether that is enough.
fn raise_limit() -> bool {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    getrlimit(Resource::Nofile).current.is_none_or(|limit| limit >= MANY as u64 + 1500)
}

/// A client's connection that was used once.
fn used(address: SocketAddr) -> TcpStream {
    let mut client = Client::connect(address);
    assert_eq!(client.get("/a").status, 200);
    client.stream
}

#[test]
fn ten_thousand_idle_connections_and_a_drain() {
    if let Ok(upstream) = std::env::var(UPSTREAM) {
        return be_a_front(&upstream);
    }
    if !raise_limit() {
        eprintln!("SKIPPED ten_thousand_idle_connections_and_a_drain: needs {} descriptors", MANY + 1500);
        return;
    }
    let app = App::start();
    let mut front = Apart::start(app.address);
    drop((0..100).map(|_| used(front.address)).collect::<Vec<_>>());
    let before = front.memory();
    let mut streams: Vec<TcpStream> = (0..MANY).map(|_| used(front.address)).collect();
    let with = front.memory();

    front.tell(Command::LameDuck);
    // The marked answer, and the end after it.
    for mut stream in streams.drain(..USED) {
        stream.write_all(get("/b").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.contains("\r\nConnection: close\r\n"), "{answer}");
    }
    let began = Instant::now();
    front.tell(Command::Close);
    // To look through so many takes its time too.
    let limit = LEAST_IDLE + SPREAD + 3 * SLACK;
    let mut ends: Vec<Duration> = Vec::new();
    for stream in &streams {
        stream.set_nonblocking(true).unwrap();
    }
    while !streams.is_empty() {
        assert!(began.elapsed() < limit, "{} are still open", streams.len());
        streams.retain_mut(|stream| match stream.read(&mut [0]) {
            Ok(0) => {
                ends.push(began.elapsed());
                false
            }
            Ok(_) => panic!("nothing was asked for"),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => true,
            Err(error) => panic!("closed with {error}"),
        });
        thread::sleep(Duration::from_millis(1));
    }
    let figures: Figures = serde_json::from_str(&said(&mut front.out, "figures ")).unwrap();
    let took = began.elapsed();
    let after = front.memory();
    eprintln!(
        "{} bytes for each idle connection; {before} before, {with} with all of them, {after} after; over in {took:?}",
        (with.saturating_sub(before)) / MANY
    );
    assert!(took < limit, "{took:?}");
    assert_eq!((figures.shed_by_header, figures.shed_idle), (USED as u64, (MANY - USED) as u64));
    assert_eq!((figures.resets_sent, figures.forced, figures.connections), (0, 0, 0));
    assert_eq!((figures.crossed_close, figures.client_gone), (0, 0));
    // Spread, not all at once: in each quarter of the spread about a quarter of them.
    for quarter in 1..4u32 {
        let until_then = ends.iter().filter(|end| **end < SPREAD * quarter / 4).count();
        let even = ends.len() * quarter as usize / 4;
        assert!(until_then < even + ends.len() / 8, "{until_then} of {} in {quarter} quarters", ends.len());
    }
    assert!(after < before + (with - before) / 4, "{after} bytes after, {before} before");
}
