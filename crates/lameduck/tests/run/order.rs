//! The containers of a pod leave in order: real processes, each container with a pid namespace and a `/proc` of its own, all in
//! one network namespace.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use lameduck_core::report::{EndedBy, NeighbourOutcome, NeighbourReport, Phase, Relation};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::support::{Duck, LAMEDUCK, PATIENCE, SERVER, clean, descendants, root, status_field, until};

/// A proxy that keeps a connection to the app for each of its clients': 502 where it can not have an answer.
const PROXY: &str = "
import http.client, http.server, sys
class H(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_GET(self):
        try:
            if not hasattr(self, 'up'): self.up = http.client.HTTPConnection('127.0.0.1', 8080, timeout=9)
            self.up.request('GET', self.path); answer = self.up.getresponse(); body = answer.read(); status = answer.status
        except Exception as error: body, status = repr(error).encode(), 502
        self.send_response(status); self.send_header('Content-Length', str(len(body))); self.end_headers(); self.wfile.write(body)
    def log_message(self, *a): pass
http.server.ThreadingHTTPServer(('127.0.0.1', 8000), H).serve_forever()
";

/// Who says nonsense, as nobody and in a neighbour's place, without pause.
const STRANGER: &str = "
import os, socket, time
names = lambda: [l.split()[7][1:] for l in open('/proc/net/unix') if '@lameduck/pod/app/' in l]
while not names(): time.sleep(.05)
to = '\\0' + names()[0]
plain = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); plain.setblocking(False)
posing = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); posing.bind('\\0lameduck/pod/posing/x-1'); posing.setblocking(False)
words = [b'', b'\\0', b'lameduck.pod/1 ask', b'lameduck.pod/1 ask leaving connects=8080', b'\\xff' * 9000, os.urandom(200),
         b'lameduck.pod/1 ask leaving connects=8080\\n']
print('talks', flush=True)
while True:
    for word in words:
        for sock in (plain, posing):
            try: sock.sendto(word, to)
            except OSError: time.sleep(.0005)
";

/// What makes a container's view: its own `/proc`, then it becomes the command, as PID 1.
const CONTAINER: &str = "mount -t proc proc /proc && exec \"$@\"";

/// A network namespace with loopback, for containers to share.
struct Pod {
    holder: Child,
}

/// A container of it.
struct Container {
    duck: Duck,
    pid: Pid,
}

impl Pod {
    fn new() -> Pod {
        let mut command = Command::new("unshare");
        command.args(["--net", "--kill-child", "--fork", "sh", "-c", "ip link set lo up && echo up && exec sleep 120"]);
        let mut holder = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "up\n");
        Pod { holder }
    }

    fn net(&self) -> String {
        // What was forked is in it, and so is whoever forked it.
        format!("/proc/{}/ns/net", self.holder.id())
    }

    /// Starts a container whose PID 1 is this command.
    fn start(&self, words: &[&str]) -> Container {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.net()));
        command.args(["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", CONTAINER, "container"]);
        command.args(words);
        clean(&mut command);
        let duck = Duck::start(command);
        let outer = duck.child.id() as i32;
        let mut pid = None;
        until("it runs", || {
            let became = |pid: &i32| {
                let first = status_field(*pid, "NSpid").is_some_and(|pids| pids.ends_with("\t1"));
                let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                first && !line.is_empty() && !line.starts_with(b"sh\0-c\0mount")
            };
            pid = descendants(outer).into_iter().find(became);
            pid.is_some()
        });
        Container { duck, pid: Pid::from_raw(pid.unwrap()).unwrap() }
    }

    /// `lameduck run` in a container, quick to find quiet.
    fn run(&self, options: &[&str], command: &[&str]) -> Container {
        let quick = ["run", "--min", "500ms", "--quiet", "300ms"];
        self.start(&[&[LAMEDUCK], &quick[..], options, &["--"], command].concat())
    }

    /// The app at 8080, which knows nothing of TERM.
    fn app(&self, options: &[&str]) -> Container {
        let app = self.run(options, &["python3", "-c", SERVER, "8080"]);
        self.listening(8080);
        app
    }

    /// The proxy at 8000; it has a connection to the app, by way of the client's, which is returned.
    fn proxy(&self, options: &[&str]) -> (Container, Client) {
        let proxy = self.run(options, &["python3", "-c", PROXY]);
        self.listening(8000);
        let mut client = self.client(8000);
        assert_eq!(client.get("/"), 200);
        (proxy, client)
    }

    /// Does something in the network namespace of the pod.
    fn inside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        let net = std::fs::File::open(self.net()).unwrap();
        thread::spawn(move || {
            move_into_link_name_space(std::os::fd::AsFd::as_fd(&net), Some(LinkNameSpaceType::Network)).unwrap();
            work()
        })
    }

    fn connect(&self, port: u16) -> std::io::Result<TcpStream> {
        self.inside(move || TcpStream::connect(("127.0.0.1", port))).join().unwrap()
    }

    fn listening(&self, port: u16) {
        until("it listens", || self.connect(port).is_ok());
    }

    fn client(&self, port: u16) -> Client {
        let stream = self.connect(port).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Client { stream: BufReader::new(stream) }
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

impl Container {
    fn signal(&self, signal: Signal) {
        kill_process(self.pid, signal).unwrap();
    }

    /// The neighbours of its report.
    fn neighbours(&mut self) -> Vec<NeighbourReport> {
        self.duck.report().order.map(|order| order.neighbours).unwrap_or_default()
    }
}

/// A client that keeps its connection.
struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    /// The status; 0 where there is no answer.
    fn get(&mut self, path: &str) -> u16 {
        self.try_get(path).unwrap_or(0)
    }

    fn try_get(&mut self, path: &str) -> Option<u16> {
        write!(self.stream.get_mut(), "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").ok()?;
        let (mut status, mut length) = (None, 0);
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if status.is_none() {
                status = line.split(' ').nth(1).and_then(|word| word.parse().ok());
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
                length = value.trim().parse().ok()?;
            }
            if line == "\r\n" {
                self.stream.read_exact(&mut vec![0; length]).ok()?;
                return status;
            }
        }
    }

    /// A request now and then, for as long as routing still sends some: their statuses.
    fn go_on(mut self, time: Duration) -> JoinHandle<Vec<u16>> {
        thread::spawn(move || {
            let end = Instant::now() + time;
            let mut statuses = Vec::new();
            while Instant::now() < end {
                statuses.push(self.get("/"));
                thread::sleep(Duration::from_millis(700));
            }
            statuses
        })
    }
}

/// The proxy serves for 3 s after TERM, with pauses in which the app alone would find quiet.
fn pair(app_options: &[&str]) -> (Container, Container, Vec<u16>) {
    let pod = Pod::new();
    let mut app = pod.app(&[&["--name", "webservice"], app_options].concat());
    let (mut proxy, client) = pod.proxy(&["--min", "3s"]);
    let requests = client.go_on(Duration::from_millis(2200));
    app.signal(Signal::TERM);
    proxy.signal(Signal::TERM);
    let statuses = requests.join().unwrap();
    proxy.duck.wait();
    app.duck.wait();
    (app, proxy, statuses)
}

/// GitLab's pair: Workhorse in front of Puma, two containers of one pod, told to stop at once.
#[test]
fn the_app_stays_until_the_proxy_in_front_of_it_has_left() {
    if !root("the_app_stays_until_the_proxy_in_front_of_it_has_left") {
        return;
    }
    let (mut app, mut proxy, statuses) = pair(&[]);
    assert!(statuses.len() >= 3 && statuses.iter().all(|status| *status == 200), "{statuses:?}");
    app.duck.hear("python3 proxies to port 8080 of this app: it leaves first");
    app.duck.hear("python3 has left after");
    let report = app.duck.report();
    let order = report.order.clone().unwrap();
    assert_eq!(order.name, "webservice");
    let [line] = &order.neighbours[..] else { panic!("{order:?}") };
    assert_eq!((&line.name[..], line.relation, &line.ports[..]), ("python3", Relation::Proxies, &[8080][..]));
    assert_eq!(line.outcome, NeighbourOutcome::Left);
    assert!(line.waited >= Duration::from_secs(3) && order.held > Duration::ZERO, "{order:?}");
    assert!(report.took < Duration::from_secs(6), "{report:?}");
    assert_eq!(proxy.neighbours(), [], "it waits for nobody");
}

/// The same, with what this is for left out: the test above can fail.
#[test]
fn without_order_the_proxy_has_nobody_to_ask() {
    if !root("without_order_the_proxy_has_nobody_to_ask") {
        return;
    }
    let (mut app, _, statuses) = pair(&["--order", "off"]);
    assert!(statuses.contains(&502), "{statuses:?}");
    assert!(app.duck.report().order.is_none());
}

#[test]
fn a_front_is_known_by_its_upstream_without_a_connection() {
    if !root("a_front_is_known_by_its_upstream_without_a_connection") {
        return;
    }
    let pod = Pod::new();
    let mut app = pod.app(&[]);
    let listen = ["--listen", "127.0.0.1:8000", "--upstream", "127.0.0.1:8080"];
    let mut front = pod.start(&[&[LAMEDUCK, "front", "--min", "2s", "--quiet", "300ms"], &listen[..]].concat());
    pod.listening(8000);
    app.signal(Signal::TERM);
    front.signal(Signal::TERM);
    front.duck.wait();
    app.duck.wait();
    let [line] = &app.neighbours()[..] else { panic!("one") };
    assert_eq!((&line.name[..], line.outcome), ("front", NeighbourOutcome::Left));
    assert!(line.waited >= Duration::from_secs(2), "{line:?}");
}

#[test]
fn a_neighbour_that_is_killed_is_not_waited_for() {
    if !root("a_neighbour_that_is_killed_is_not_waited_for") {
        return;
    }
    let pod = Pod::new();
    let mut app = pod.app(&[]);
    let (proxy, client) = pod.proxy(&["--min", "12s"]);
    app.signal(Signal::TERM);
    proxy.signal(Signal::TERM);
    app.duck.hear("the lame duck lasts for python3 alone");
    let killed = Instant::now();
    proxy.signal(Signal::KILL);
    drop(client);
    app.duck.wait();
    assert!(killed.elapsed() < Duration::from_secs(2), "{:?}", killed.elapsed());
    assert_eq!(app.neighbours()[0].outcome, NeighbourOutcome::Left);
}

/// One that said it leaves, and then does nothing any more.
#[test]
fn a_neighbour_that_hangs_holds_no_longer_than_the_budget() {
    if !root("a_neighbour_that_hangs_holds_no_longer_than_the_budget") {
        return;
    }
    let pod = Pod::new();
    let mut app = pod.app(&["--grace", "6s"]);
    let (proxy, _client) = pod.proxy(&["--min", "12s"]);
    proxy.signal(Signal::TERM);
    app.signal(Signal::TERM);
    app.duck.hear("python3 proxies to port 8080");
    proxy.signal(Signal::STOP);
    app.duck.wait();
    app.duck.hear("python3: still there, and no time is left to wait; going on");
    let report = app.duck.report();
    // 3.24 s of lame duck, three quarters of 1.08 s of draining; the app's own time to stop is left.
    let lame_duck = report.phases[0];
    assert_eq!((lame_duck.phase, lame_duck.ended_by), (Phase::LameDuck, EndedBy::BudgetSpent));
    assert!((4.0..4.8).contains(&lame_duck.used.as_secs_f64()), "{lame_duck:?}");
    assert_eq!(report.exit.status, 143, "told, not killed");
    assert_eq!(report.order.unwrap().neighbours[0].outcome, NeighbourOutcome::StillThere);
    proxy.signal(Signal::CONT);
}

/// A native sidecar, which the kubelet stops after all others; or only this container is restarted.
#[test]
fn a_neighbour_that_was_not_told_to_stop_is_not_waited_for() {
    if !root("a_neighbour_that_was_not_told_to_stop_is_not_waited_for") {
        return;
    }
    let pod = Pod::new();
    let mut app = pod.app(&["--after", "sidecar"]);
    let (_proxy, _client) = pod.proxy(&["--name", "sidecar"]);
    app.signal(Signal::TERM);
    app.duck.wait();
    let report = app.duck.report();
    assert!(report.took < Duration::from_secs(4), "{report:?}");
    let [line] = &report.order.unwrap().neighbours[..] else { panic!("one") };
    assert_eq!((line.outcome, line.waited), (NeighbourOutcome::NotTold, Duration::ZERO));
}

#[test]
fn a_neighbour_that_is_no_lameduck_is_not_seen() {
    if !root("a_neighbour_that_is_no_lameduck_is_not_seen") {
        return;
    }
    let pod = Pod::new();
    let mut app = pod.app(&["--after", "proxy"]);
    let _proxy = pod.start(&["python3", "-c", PROXY]);
    pod.listening(8000);
    let mut client = pod.client(8000);
    assert_eq!(client.get("/"), 200);
    app.signal(Signal::TERM);
    app.duck.wait();
    let report = app.duck.report();
    assert!(report.took < Duration::from_secs(4), "{report:?}");
    let [line] = &report.order.unwrap().neighbours[..] else { panic!("one") };
    assert_eq!((&line.name[..], line.outcome), ("proxy", NeighbourOutcome::NotFound));
}

/// Who says nonsense, who says it in a neighbour's place, and who says very much of it.
#[test]
fn a_stranger_that_talks_nonsense_changes_nothing() {
    if !root("a_stranger_that_talks_nonsense_changes_nothing") {
        return;
    }
    let pod = Pod::new();
    let mut app = pod.app(&["--name", "app"]);
    let mut stranger = pod.start(&["python3", "-c", STRANGER]);
    assert_eq!(stranger.duck.line(), "talks");
    app.duck.hear("something that is no neighbour's wrote to this pod's socket");
    let mut client = pod.client(8080);
    assert_eq!(client.get("/"), 200);
    let before = cpu(app.pid);
    thread::sleep(Duration::from_secs(1));
    assert!(cpu(app.pid).saturating_sub(before) < Duration::from_millis(300), "a flood takes no core");
    app.signal(Signal::TERM);
    app.duck.wait();
    let report = app.duck.report();
    assert!(report.took < Duration::from_secs(4), "{report:?}");
    assert!(report.order.is_none(), "{report:?}");
}

/// User and system time.
fn cpu(pid: Pid) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap();
    let ticks: Vec<u64> =
        stat.rsplit(')').next().unwrap().split_whitespace().skip(11).take(2).map(|t| t.parse().unwrap()).collect();
    Duration::from_millis(ticks.iter().sum::<u64>() * 10)
}

#[test]
fn an_order_that_goes_round_is_said_and_ends_with_the_budget() {
    if !root("an_order_that_goes_round_is_said_and_ends_with_the_budget") {
        return;
    }
    let pod = Pod::new();
    let quick = ["--grace", "4s"];
    let mut one = pod.app(&[&quick[..], &["--name", "one", "--after", "two"]].concat());
    let mut two = pod.run(&[&quick[..], &["--name", "two", "--after", "one"]].concat(), &["sleep", "60"]);
    two.duck.hear("lameduck: on:");
    one.signal(Signal::TERM);
    two.signal(Signal::TERM);
    for (container, own, other) in [(&mut one, "one", "two"), (&mut two, "two", "one")] {
        container.duck.wait();
        container.duck.hear(&format!("--after goes round: {own} leaves after {other}, which leaves after {own}"));
        let report = container.duck.report();
        assert!(report.took < Duration::from_millis(3900), "{report:?}");
        assert_eq!(report.exit.status, 143, "told, not killed: {report:?}");
    }
}

/// What listens on nothing leaves in order too: a shipper of logs after the app.
#[test]
fn a_stated_order_needs_no_ports() {
    if !root("a_stated_order_needs_no_ports") {
        return;
    }
    let pod = Pod::new();
    let mut app = pod.app(&["--name", "app", "--min", "2s"]);
    // Without --min, which would have it wait anyway.
    let mut shipper = pod.start(&[LAMEDUCK, "run", "--after", "app", "--", "sleep", "60"]);
    shipper.duck.hear("lameduck: on:");
    shipper.signal(Signal::TERM);
    thread::sleep(Duration::from_millis(200));
    app.signal(Signal::TERM);
    app.duck.wait();
    shipper.duck.wait();
    shipper.duck.hear("app leaves first, as --after says");
    let [line] = &shipper.neighbours()[..] else { panic!("one") };
    assert_eq!((line.outcome, line.relation), (NeighbourOutcome::Left, Relation::Stated));
    assert!(line.waited >= Duration::from_secs(2), "{line:?}");
}
