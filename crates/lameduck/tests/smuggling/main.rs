//! Request smuggling: does what is behind the front see the messages that the front has seen? Each vector goes through the
//! front to an app that reads narrowly, and to nginx, `HAProxy` and gunicorn where they are installed. A tap between the two
//! shows what the front writes; the app says what it was given; every answer says to which request it belongs.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "tests are at the edge: they read environments, and fail by panic"
)]

mod app;
mod backends;
mod http2;
mod strict;
mod vectors;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use app::{Record, Seen, echo_of};
use backends::Server;
use strict::{Answers, Request, field};

/// A front before an app, and everything that is known of what goes by.
struct Rig {
    front: SocketAddr,
    child: Child,
    log: tempfile::TempDir,
    record: Arc<Mutex<Record>>,
    seen: Seen,
    /// The server under test, if the app itself is not.
    _server: Option<Server>,
    /// Whether the app writes methods as they came.
    keeps_methods: bool,
    wrong: Vec<String>,
    vectors: usize,
}

impl Rig {
    fn new(at: SocketAddr, seen: Seen, server: Option<Server>, keeps_methods: bool) -> Rig {
        let (tap, record) = app::tap(at);
        let front = backends::free();
        let log = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_lameduck"));
        command.arg("front").args(["--listen", &front.to_string(), "--upstream", &tap.to_string()]);
        command.arg("--access-log").arg(log.path().join("log")).args(["--min", "1ms", "--quiet", "1ms"]);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap());
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        backends::listening(front);
        let wrong = Vec::new();
        Rig { front, child, log, record, seen, _server: server, keeps_methods, wrong, vectors: 0 }
    }

    fn forwarded(&self) -> usize {
        self.record.lock().unwrap().requests.len()
    }

    /// Sends one vector, and a marker after it; then others ask, each of whom must get its own answer. Returns what was
    /// forwarded of it.
    fn send(&mut self, name: &str, parts: &[&[u8]], gets: impl Fn(&[u8]) -> Vec<u8>) -> Vec<Request> {
        self.vectors += 1;
        let before = self.forwarded();
        let mut heard = Vec::new();
        let mut client = TcpStream::connect(self.front).unwrap();
        client.set_nodelay(true).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut bytes = parts.iter().map(|part| gets(part)).collect::<Vec<_>>();
        bytes.push(format!("GET /marker{} HTTP/1.1\r\nHost: x\r\n\r\n", self.vectors).into_bytes());
        if let [.., last, marker] = &mut bytes[..] {
            last.append(marker);
        }
        for part in bytes {
            if client.write_all(&part).is_err() {
                break;
            }
            if parts.len() > 1 {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        let _ = client.shutdown(Shutdown::Write);
        let ended = client.read_to_end(&mut heard);
        let forwarded: Vec<Request> =
            self.record.lock().unwrap().requests[before..].iter().map(|(request, _)| request.clone()).collect();
        let mut answers = Answers::default();
        answers.asked.extend(forwarded.iter().map(|request| request.method.clone()));
        let answered = answers.feed(&heard).map(|answers| answers.len());
        // The last answer may be a refusal of the front's own. A request that the app did not answer is answered by the front.
        let fits = answered.as_ref().is_ok_and(|n| (forwarded.len()..=forwarded.len() + 1).contains(n));
        if ended.is_err() || !fits || !answers.is_empty() {
            let heard = String::from_utf8_lossy(&heard).into_owned();
            self.wrong.push(format!("{name}\n  forwarded {forwarded:?}\n  answers {answered:?} {ended:?} {heard:?}"));
        }
        self.others_get_theirs(name);
        forwarded
    }

    fn send_http2(&mut self, vector: &http2::Vector) -> (Vec<Request>, http2::Heard) {
        self.vectors += 1;
        let before = self.forwarded();
        let heard = http2::send(self.front, vector, &format!("/marker{}", self.vectors));
        let forwarded =
            self.record.lock().unwrap().requests[before..].iter().map(|(request, _)| request.clone()).collect();
        self.others_get_theirs(&vector.name);
        (forwarded, heard)
    }

    fn others_get_theirs(&mut self, name: &str) {
        for n in 0..3 {
            let path = format!("/other{}-{n}", self.vectors);
            let mut client = TcpStream::connect(self.front).unwrap();
            client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            write!(client, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
            let mut answer = Vec::new();
            let ended = client.read_to_end(&mut answer);
            let answer = String::from_utf8_lossy(&answer);
            if ended.is_err() || !answer.starts_with("HTTP/1.1 200 ") || !answer.ends_with(&format!("\r\n\r\n{path}")) {
                self.wrong.push(format!("{name}\n  another client that asked for {path} got {answer:?}"));
            }
        }
    }

    /// Compares all that the front wrote with all that was seen behind it, and with the log.
    fn compare(mut self, backend: &str) {
        // What clients gave up is on its way for a moment, and the log is written by the clock.
        let (record, began) = (Arc::clone(&self.record), Instant::now());
        let mut differs = self.differences();
        while !differs.is_empty() && began.elapsed() < Duration::from_secs(3) {
            std::thread::sleep(Duration::from_millis(100));
            differs = self.differences();
        }
        self.wrong.append(&mut differs);
        let record = record.lock().unwrap();
        self.wrong.extend(record.wrong.iter().cloned());
        let refused = record
            .requests
            .iter()
            .filter(|(_, answer)| answer.as_ref().is_some_and(|answer| field(&answer.fields, "x-echo").is_none()));
        eprintln!(
            "{backend}: {} vectors, {} requests forwarded, {} of them refused there, {} disagreements",
            self.vectors,
            record.requests.len(),
            refused.count(),
            self.wrong.len()
        );
        assert!(self.wrong.is_empty(), "{}", self.wrong.join("\n"));
    }

    fn differences(&self) -> Vec<String> {
        let record = self.record.lock().unwrap();
        let (mut wrong, mut unanswered) = (Vec::new(), Vec::new());
        let mut balance: BTreeMap<Request, i64> = BTreeMap::new();
        let mut written: BTreeMap<(String, String), i64> = BTreeMap::new();
        let begun = |method: &str, target: &str| {
            let begins = format!("{method} {target} ");
            record.unfinished.iter().any(|bytes| bytes.starts_with(begins.as_bytes()))
        };
        for (request, answer) in &record.requests {
            *written.entry((request.method.clone(), request.target.clone())).or_default() += 1;
            let request = self.as_seen(request);
            let Some(answer) = answer else {
                // The client gave it up meanwhile.
                unanswered.push(request);
                continue;
            };
            let Some(echo) = field(&answer.fields, "x-echo") else { continue };
            if echo != echo_of(&request).as_bytes() {
                wrong.push(format!("{request:?} was answered with {:?}", String::from_utf8_lossy(echo)));
            }
            *balance.entry(request).or_default() += 1;
        }
        for (_, request) in &*self.seen.lock().unwrap() {
            *balance.entry(request.clone()).or_default() -= 1;
        }
        for (request, n) in balance {
            if n < 0 && unanswered.contains(&request) {
                continue;
            }
            if n != 0 && !begun(&request.method, &request.target) {
                wrong.push(format!("forwarded and answered less seen, {n}: {request:?}"));
            }
        }
        for line in std::fs::read_to_string(self.log.path().join("log")).unwrap().lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            let (method, target) = (line["method"].as_str().unwrap(), line["target"].as_str().unwrap());
            let origin = target
                .get(..7)
                .filter(|scheme| scheme.eq_ignore_ascii_case("http://"))
                .map_or(target, |_| target[7..].find('/').map_or("/", |at| &target[7 + at..]));
            let key = (method.to_owned(), origin.to_owned());
            if line["ended"] == "client-gone" {
                // It may have come that far, or not.
                written.remove(&key);
                continue;
            }
            let times = 1 + line["retries"].as_i64().unwrap();
            let asked = matches!(line["ended"].as_str().unwrap(), "answered" | "bad-gateway" | "cut-by-app");
            if asked && !begun(method, origin) {
                *written.entry(key).or_default() -= times;
            }
        }
        let differs = written.iter().filter(|((method, target), n)| **n != 0 && !begun(method, target));
        wrong.extend(differs.map(|(request, n)| format!("forwarded less logged, {n}: {request:?}")));
        wrong
    }

    fn as_seen(&self, request: &Request) -> Request {
        let method = if self.keeps_methods { request.method.clone() } else { request.method.to_uppercase() };
        Request { method, ..request.clone() }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if let Some(pid) = rustix::process::Pid::from_raw(self.child.id() as i32) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.child.wait();
    }
}

/// Each vector whole, and in two parts: the head, or a part of it, and then the rest.
fn sends(vector: &vectors::Vector) -> [Vec<&[u8]>; 2] {
    let bytes = &vector.bytes[..];
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").map_or(bytes.len() / 2, |at| at + 4);
    let end = if end == bytes.len() { bytes.len() / 2 } else { end };
    [vec![bytes], vec![&bytes[..end], &bytes[end..]]]
}

/// Runs everything; `exact`: the app refuses nothing, so that the front's own reading shows.
fn run(mut rig: Rig, backend: &str, exact: bool) {
    let own = |part: &[u8], n: usize| {
        let path = format!("v{n}");
        part.iter()
            .flat_map(|byte| if *byte == 0xa7 { path.as_bytes() } else { std::slice::from_ref(byte) }.to_vec())
            .collect()
    };
    for vector in vectors::all() {
        for parts in sends(&vector) {
            let n = rig.vectors;
            let forwarded = rig.send(&vector.name, &parts, |part| own(part, n));
            let last = forwarded.last().is_some_and(|request| request.target.starts_with("/marker"));
            let bodies: Vec<_> = forwarded.iter().map(|request| request.body.clone()).collect();
            let mut expect = vector.bodies.clone();
            expect.extend(vector.goes_on.then(Vec::new));
            if exact && (bodies != expect || last != vector.goes_on) {
                rig.wrong.push(format!("{}\n  in {} parts: forwarded {forwarded:?}", vector.name, parts.len()));
            }
        }
    }
    for mut vector in http2::all() {
        let path = format!("v{}", rig.vectors);
        for (_, value) in &mut vector.fields {
            *value = value.replace('§', &path);
        }
        let (forwarded, heard) = rig.send_http2(&vector);
        let bodies: Vec<_> = forwarded
            .iter()
            .filter(|request| !request.target.starts_with("/marker"))
            .map(|request| &request.body)
            .collect();
        let expect: Vec<_> = vector.body.iter().map(String::as_bytes).collect();
        if exact && bodies != expect && !(vector.is_reset && bodies.is_empty()) {
            rig.wrong.push(format!("HTTP/2 {}\n  forwarded {forwarded:?}, heard {heard:?}", vector.name));
        }
    }
    rig.compare(backend);
}

#[test]
fn an_app_that_reads_narrowly() {
    let (app, seen) = app::start();
    run(Rig::new(app, seen, None, true), "the app itself", true);
}

/// Behind the front, and before an app: what that sees is what the server has understood.
fn proxy(name: &str, start: impl FnOnce(SocketAddr, SocketAddr) -> Option<Server>) {
    let (app, seen) = app::start();
    let at = backends::free();
    let Some(server) = start(at, app) else { return };
    run(Rig::new(at, seen, Some(server), true), name, false);
}

#[test]
fn nginx() {
    proxy("nginx", backends::nginx);
}

#[test]
fn haproxy() {
    proxy("haproxy", backends::haproxy);
}

#[test]
fn gunicorn() {
    let (at, seen) = (backends::free(), Seen::default());
    let Some(server) = backends::gunicorn(at, &seen) else { return };
    run(Rig::new(at, seen, Some(server), false), "gunicorn", false);
}
