//! Trap 4: real clients. Each sends a steady stream of requests while its server goes and another one takes over: one
//! request after `close` at most on the way, then a new connection, and not one failure.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command as Program, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use lameduck_core::front::{Command, Figures};

use super::super::rig::{App, Client, Front, until};
use super::{SLACK, quick};

/// Workers of a client, a connection each.
const WORKERS: u64 = 4;

/// Sends new connections to one of two fronts, as a load balancer's list of endpoints does. What is connected stays.
struct Switch {
    address: SocketAddr,
    second: Arc<AtomicBool>,
}

impl Switch {
    fn start(fronts: [SocketAddr; 2]) -> Switch {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let second = Arc::new(AtomicBool::new(false));
        let chosen = Arc::clone(&second);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let to = fronts[usize::from(chosen.load(Ordering::SeqCst))];
                let Ok(front) = TcpStream::connect(to) else { continue };
                for (from, to) in [(&stream, &front), (&front, &stream)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    thread::spawn(move || pass(from, to));
                }
            }
        });
        Switch { address, second }
    }
}

/// Passes bytes on as they come, and the end of them as what it is: an end or a reset.
fn pass(mut from: TcpStream, mut to: TcpStream) {
    let _ = to.set_nodelay(true);
    let mut buffer = [0; 16 << 10];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => {
                let _ = to.shutdown(Shutdown::Write);
                return;
            }
            Ok(n) => {
                if to.write_all(&buffer[..n]).is_err() {
                    return;
                }
            }
            Err(_) => {
                let _ = rustix::net::sockopt::set_socket_linger(&to, Some(Duration::ZERO));
                let _ = to.shutdown(Shutdown::Both);
                return;
            }
        }
    }
}

/// What a client says at its end.
#[derive(Debug)]
struct Told {
    sent: u64,
    failed: u64,
}

/// A program, killed where the test fails.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn find(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// Whether the programs are there; said where they are not.
fn has(client: &str, needs: &[&str]) -> bool {
    let missing: Vec<&&str> = needs.iter().filter(|program| !find(program)).collect();
    if !missing.is_empty() {
        eprintln!("SKIPPED {client}: needs {missing:?}");
    }
    missing.is_empty()
}

/// One server goes, the other one takes over, while `client` sends to the address it is given until it is told to stop.
/// `marked`: it keeps to one connection a worker, so that it shows that each is left after its marked answer.
fn handover(name: &str, marked: bool, client: impl FnOnce(SocketAddr, &mut dyn FnMut()) -> Told) {
    let app = App::start();
    let (mut goes, comes) = (Front::start(app.address, quick()), Front::start(app.address, quick()));
    let switch = Switch::start([goes.address, comes.address]);
    let (first, second) = (goes.page, comes.page);
    let late = |figures: &Figures| figures.requests_lame_duck + figures.requests_closing;
    let mut drain = || {
        until("the client is at work", || first.figures().answered >= 400);
        goes.tell(Command::LameDuck);
        until("it came back in the lame duck", || late(&first.figures()) >= 10 * WORKERS);
        switch.second.store(true, Ordering::SeqCst);
        until("it went to the other one", || second.figures().answered >= 400);
        goes.tell(Command::Close);
        goes.ends_within(SLACK);
        until("it goes on there", || second.figures().answered >= 800);
    };
    let told = client(switch.address, &mut drain);
    let figures = first.figures();
    eprintln!("{name}: {told:?}, of these {} in the lame duck", late(&figures));
    assert_eq!(told.failed, 0, "{name}");
    assert!(told.sent >= 1200 && app.seen.requests() == told.sent, "{name}: {} of {}", app.seen.requests(), told.sent);
    assert_eq!((figures.resets_sent, figures.forced, figures.crossed_close), (0, 0, 0), "{name}: {figures:#?}");
    until("the books are closed", || first.figures().answered + second.figures().answered == told.sent);
    if marked {
        assert!(
            figures.shed_by_header >= late(&figures),
            "{name}: each answer said it, and was the last: {figures:#?}"
        );
        assert!(figures.accepted_late + WORKERS >= figures.shed_by_header, "{name}: {figures:#?}");
    }
}

/// A program that is given an address, sends to it until its input ends, and then prints how many it sent and how many
/// failed.
fn by_itself(mut program: Program) -> impl FnOnce(SocketAddr, &mut dyn FnMut()) -> Told {
    move |address, drain| {
        program.arg(format!("http://{address}")).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut running = Running(program.spawn().unwrap());
        let out = BufReader::new(running.0.stdout.take().unwrap());
        drain();
        drop(running.0.stdin.take());
        for line in out.lines().map_while(Result::ok) {
            if let Some(("told", numbers)) = line.split_once(' ') {
                let numbers: Vec<u64> = numbers.split(' ').map(|number| number.parse().unwrap()).collect();
                return Told { sent: numbers[0], failed: numbers[1] };
            }
            eprintln!("{line}");
        }
        panic!("it ended without a word");
    }
}

fn script(dir: &Path, name: &str, text: &str) -> std::path::PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn node_with_an_agent_that_keeps_connections() {
    if !has("node", &["node"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut program = Program::new("node");
    program.arg(script(dir.path(), "client.js", include_str!("clients/client.js")));
    handover("node", true, by_itself(program));
}

#[test]
fn python_with_http_client() {
    if !has("http.client", &["python3"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut program = Program::new("python3");
    program.arg(script(dir.path(), "client.py", include_str!("clients/client.py"))).arg("http.client");
    handover("http.client", true, by_itself(program));
}

#[test]
fn python_with_urllib3() {
    let there = Program::new("python3").args(["-c", "import urllib3"]).stderr(Stdio::null()).status();
    if !there.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED urllib3: needs python3 with urllib3");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut program = Program::new("python3");
    program.arg(script(dir.path(), "client.py", include_str!("clients/client.py"))).arg("urllib3");
    handover("urllib3", true, by_itself(program));
}

#[test]
fn go_with_net_http() {
    if !has("go", &["go"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let source = script(dir.path(), "client.go", include_str!("clients/client.go"));
    let binary = dir.path().join("client");
    let built = Program::new("go").args(["build", "-o"]).arg(&binary).arg(&source).status().unwrap();
    assert!(built.success());
    handover("go", true, by_itself(Program::new(binary)));
}

#[test]
fn java_with_its_http_client() {
    if !has("java", &["java"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut program = Program::new("java");
    program.arg(script(dir.path(), "Load.java", include_str!("clients/Load.java")));
    handover("java", true, by_itself(program));
}

/// Our own clients through a proxy that keeps connections to its servers.
fn through(
    config: impl FnOnce(SocketAddr, SocketAddr) -> Program,
) -> impl FnOnce(SocketAddr, &mut dyn FnMut()) -> Told {
    move |upstream, drain| {
        let listen = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let _proxy = Running(config(listen, upstream).stdin(Stdio::null()).spawn().unwrap());
        until("it listens", || TcpStream::connect(listen).is_ok());
        let over = AtomicBool::new(false);
        let (sent, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for worker in 0..WORKERS {
                let (over, sent, failed) = (&over, &sent, &failed);
                scope.spawn(move || {
                    let mut client = Client::connect(listen);
                    let mut n = 0;
                    while !over.load(Ordering::SeqCst) {
                        n += 1;
                        let path = format!("/c{worker}-{n}");
                        let answer = if n % 2 == 0 { client.get(&path) } else { client.post(&path, "body") };
                        sent.fetch_add(1, Ordering::SeqCst);
                        if answer.status != 200 {
                            eprintln!("{}", answer.head);
                            failed.fetch_add(1, Ordering::SeqCst);
                        }
                        if answer.closes() {
                            client = Client::connect(listen);
                        }
                        thread::sleep(Duration::from_millis(5));
                    }
                });
            }
            let stop = StopAtEnd(&over);
            drain();
            drop(stop);
        });
        Told { sent: sent.into_inner() as u64, failed: failed.into_inner() as u64 }
    }
}

/// Whatever becomes of the drain, the workers stop.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn nginx_that_keeps_connections_to_its_upstream() {
    if !has("nginx", &["nginx"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().display().to_string();
    handover(
        "nginx",
        false,
        through(|listen, upstream| {
            let text = include_str!("clients/nginx.conf");
            let text = text
                .replace("DIR", &place)
                .replace("LISTEN", &listen.to_string())
                .replace("UPSTREAM", &upstream.to_string());
            let mut program = Program::new("nginx");
            program.arg("-p").arg(dir.path()).arg("-e").arg("stderr").arg("-c");
            program.arg(script(dir.path(), "nginx.conf", &text));
            program
        }),
    );
}

#[test]
fn haproxy_that_keeps_connections_to_its_server() {
    if !has("haproxy", &["haproxy"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    handover(
        "haproxy",
        false,
        through(|listen, upstream| {
            let text = include_str!("clients/haproxy.cfg");
            let text = text.replace("LISTEN", &listen.to_string()).replace("UPSTREAM", &upstream.to_string());
            let mut program = Program::new("haproxy");
            program.arg("-db").arg("-q").arg("-f").arg(script(dir.path(), "haproxy.cfg", &text));
            program
        }),
    );
}

fn envoy(protocol: &str) {
    if !has("envoy", &["envoy"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    handover(
        &format!("envoy, {protocol}"),
        false,
        through(|listen, upstream| {
            let text = include_str!("clients/envoy.yaml").replace("PROTOCOL", protocol);
            let text = [("LISTEN", listen), ("UPSTREAM", upstream)].into_iter().fold(text, |text, (name, address)| {
                text.replace(&format!("{name}_HOST"), &address.ip().to_string())
                    .replace(&format!("{name}_PORT"), &address.port().to_string())
            });
            let mut program = Program::new("envoy");
            program.args(["--disable-hot-restart", "--concurrency", "1", "--log-level", "error", "-c"]);
            program.arg(script(dir.path(), "envoy.yaml", &text));
            program
        }),
    );
}

#[test]
fn envoy_that_keeps_connections_over_http_1() {
    envoy("http_protocol_options");
}

#[test]
fn envoy_that_keeps_connections_over_http_2() {
    envoy("http2_protocol_options");
}
