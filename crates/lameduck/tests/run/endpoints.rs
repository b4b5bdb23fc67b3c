//! `--watch-endpoints` before a small API server: what it says, and how it fails. A real one is in tests/cluster.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, SystemTime};

use lameduck_cluster::cert::Pair;
use lameduck_core::report::{DrainReport, EndedBy, RoutingState};
use lameduck_core::timeline::Moment;
use rustix::process::Signal;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use crate::support::{Duck, LAMEDUCK, PATIENCE, SERVER, clean, free_port, listening, root, until};

/// An account's files where Kubernetes puts them, in a mount namespace of their own; then the command.
const WITH_ACCOUNT: &str = "
account=/var/run/secrets/kubernetes.io/serviceaccount
mount -t tmpfs account /run && mkdir -p $account && cp \"$1\"/* $account && shift && exec \"$@\"";

/// One part of an answer to a watch.
enum Part {
    Wait(Duration),
    Line(String),
    /// Bytes that are no whole line; then the connection is cut.
    Cut(&'static str),
}

/// What the server does with requests of one kind, the first first; the last goes on.
#[derive(Default)]
struct Script {
    lists: VecDeque<(u16, Value)>,
    watches: VecDeque<Vec<Part>>,
    asked: Vec<String>,
}

/// An API server.
struct Server {
    address: SocketAddr,
    account: tempfile::TempDir,
    script: Arc<Mutex<Script>>,
}

impl Server {
    fn start(lists: Vec<(u16, Value)>, watches: Vec<Vec<Part>>) -> Server {
        let names = ["127.0.0.1".to_owned()];
        let pair = Pair::make(&names, SystemTime::now(), Duration::from_hours(1), None).unwrap();
        let account = tempfile::tempdir().unwrap();
        for (file, text) in [("ca.crt", &pair.authorities[..]), ("token", "secret\n"), ("namespace", "shop")] {
            std::fs::write(account.path().join(file), text).unwrap();
        }
        let chain = CertificateDer::pem_slice_iter(pair.certificate.as_bytes()).map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let script = Arc::new(Mutex::new(Script { lists: lists.into(), watches: watches.into(), asked: Vec::new() }));
        let (config, shared) = (Arc::new(config), Arc::clone(&script));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (config, shared) = (Arc::clone(&config), Arc::clone(&shared));
                // A client that hangs up is no failure of the test.
                thread::spawn(move || answer(stream.unwrap(), config, &shared));
            }
        });
        Server { address, account, script }
    }

    fn asked(&self, part: &str) -> usize {
        self.script.lock().unwrap().asked.iter().filter(|line| line.contains(part)).count()
    }

    /// An app in the pod at 10.9.0.1, which answers requests and gets none.
    fn pod(&self, options: &[&str]) -> Duck {
        let port = free_port().to_string();
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", WITH_ACCOUNT, "container", self.account.path().to_str().unwrap()]);
        command.args([LAMEDUCK, "run", "--watch-endpoints", "--quiet", "300ms"]).args(options);
        command.args(["--", "python3", "-c", SERVER, &port]);
        clean(&mut command);
        command.env("KUBERNETES_SERVICE_HOST", "127.0.0.1").env("POD_IP", "10.9.0.1");
        command.env("KUBERNETES_SERVICE_PORT", self.address.port().to_string());
        let duck = Duck::start(command);
        listening(port.parse().unwrap());
        duck
    }

    /// The same, told to stop once the watch was tried; its report.
    fn drained(&self, options: &[&str]) -> (Duck, DrainReport) {
        let mut duck = self.pod(options);
        // What the check found was said by then.
        until("checked", || self.asked("limit=1 ") >= 1);
        thread::sleep(Duration::from_millis(300));
        duck.signal(Signal::TERM);
        duck.wait();
        let report = duck.report();
        (duck, report)
    }
}

fn answer(stream: TcpStream, config: Arc<ServerConfig>, shared: &Mutex<Script>) -> Option<()> {
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let mut stream = StreamOwned::new(ServerConnection::new(config).ok()?, stream);
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).ok()?;
    assert!(head.to_lowercase().contains("authorization: bearer secret\r\n"), "{head}");
    let line = head.lines().next()?.to_owned();
    let watch = line.contains("watch=true");
    let check = line.contains("limit=1 ") || line.contains("timeoutSeconds=1 ");
    let mut script = shared.lock().unwrap();
    script.asked.push(line);
    if watch {
        let parts = if check || script.watches.is_empty() { Vec::new() } else { script.watches.pop_front()? };
        drop(script);
        write!(stream, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").ok()?;
        for part in parts {
            match part {
                Part::Wait(time) => thread::sleep(time),
                Part::Line(line) => write!(stream, "{:x}\r\n{line}\n\r\n", line.len() + 1).ok()?,
                Part::Cut(bytes) => {
                    write!(stream, "{:x}\r\n{bytes}\r\n", bytes.len()).ok()?;
                    stream.flush().ok()?;
                    return Some(());
                }
            }
            stream.flush().ok()?;
        }
        write!(stream, "0\r\n\r\n").ok()?;
    } else {
        let last = script.lists.len() == 1 || check;
        let (status, body) = if last { script.lists.front()?.clone() } else { script.lists.pop_front()? };
        drop(script);
        let body = body.to_string();
        write!(stream, "HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{body}", body.len()).ok()?;
    }
    stream.conn.send_close_notify();
    stream.flush().ok()
}

fn slice(version: &str, own: Option<Value>, other: bool) -> Value {
    let own = own.map(|conditions| json!({"addresses": ["10.9.0.1"], "conditions": conditions}));
    let other = other.then(|| json!({"addresses": ["10.9.0.2"], "conditions": {"ready": true}}));
    json!({
        "metadata": {"name": "web-1", "resourceVersion": version, "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4", "endpoints": own.into_iter().chain(other).collect::<Vec<_>>(),
    })
}

fn ready() -> Value {
    json!({"ready": true, "serving": true, "terminating": false})
}

fn terminating() -> Value {
    json!({"ready": false, "serving": true, "terminating": true})
}

fn list(slices: &[Value]) -> (u16, Value) {
    (200, json!({"metadata": {"resourceVersion": "5"}, "items": slices}))
}

fn event(kind: &str, object: &Value) -> Part {
    Part::Line(json!({"type": kind, "object": object}).to_string())
}

const fn wait(millis: u64) -> Part {
    Part::Wait(Duration::from_millis(millis))
}

#[test]
fn the_least_time_ends_where_routing_lets_go() {
    if !root("the_least_time_ends_where_routing_lets_go") {
        return;
    }
    let bookmark = json!({"metadata": {"resourceVersion": "9"}});
    let watches = vec![
        // Over after a bookmark: the next one goes on from there.
        vec![event("BOOKMARK", &bookmark)],
        vec![wait(1000), event("MODIFIED", &slice("11", Some(terminating()), true)), wait(20_000)],
    ];
    let server = Server::start(vec![list(&[slice("4", Some(ready()), true)])], watches);
    let (mut duck, report) = server.drained(&["--grace", "60s", "--min", "15s"]);
    duck.hear("routing took this pod out, by its EndpointSlices, after");
    let routing = report.routing.clone().unwrap();
    let removed = routing.removed.unwrap();
    assert_eq!(routing.state, RoutingState::Out);
    assert!((1.0..10.0).contains(&removed), "{routing:?}");
    assert!(report.timeline.at(Moment::EndpointRemoved).is_some());
    assert_eq!(report.phases[0].ended_by, EndedBy::Quiet);
    assert!(report.took < Duration::from_secs(14), "{report:?}");
    assert_eq!(server.asked("resourceVersion=5&labelSelector=kubernetes.io%2Fservice-name%20in%20%28web%29"), 1);
    assert_eq!(server.asked("resourceVersion=9&"), 1);
}

#[test]
fn who_is_still_sent_to_stays_longer_than_the_least_time() {
    if !root("who_is_still_sent_to_stays_longer_than_the_least_time") {
        return;
    }
    let server = Server::start(vec![list(&[slice("4", Some(ready()), true)])], vec![vec![wait(30_000)]]);
    let (_, report) = server.drained(&["--min", "500ms", "--max", "4s"]);
    assert_eq!(report.phases[0].ended_by, EndedBy::BudgetSpent);
    let routing = report.routing.unwrap();
    assert_eq!((routing.state, routing.removed), (RoutingState::In, None));
}

#[test]
fn the_last_resort_of_a_service_takes_the_least_time() {
    if !root("the_last_resort_of_a_service_takes_the_least_time") {
        return;
    }
    let server = Server::start(vec![list(&[slice("4", Some(terminating()), false)])], vec![vec![wait(30_000)]]);
    let (mut duck, report) = server.drained(&["--min", "2s"]);
    duck.hear("no other endpoint is ready: routing still sends here as the last resort");
    assert_eq!(report.phases[0].ended_by, EndedBy::Quiet);
    assert!(report.took >= Duration::from_secs(2), "{report:?}");
    assert_eq!(report.routing.unwrap().state, RoutingState::LastResort);
}

/// Too old, cut in the middle, garbage, an error, and no list at all: each time it lists again, and says once that it had to.
#[test]
fn whatever_happens_to_a_watch_it_lists_again() {
    if !root("whatever_happens_to_a_watch_it_lists_again") {
        return;
    }
    let gone = json!({"kind": "Status", "code": 410, "reason": "Expired"});
    let failed = json!({"kind": "Status", "code": 500, "message": "etcdserver: leader changed"});
    let watches = vec![
        vec![event("ERROR", &gone)],
        vec![Part::Cut("{\"type\":\"MODI")],
        vec![Part::Line("HTTP/1.1 200 nonsense \u{0} {".to_owned())],
        vec![event("ERROR", &failed)],
        vec![event("MODIFIED", &json!({"metadata": {}}))],
        vec![wait(60_000)],
    ];
    let there = list(&[slice("4", Some(ready()), true)]);
    let not_now = (503, json!({"message": "not now"}));
    let too_old = (410, json!({"message": "too old"}));
    let lists = vec![
        there.clone(),
        too_old,
        there.clone(),
        not_now,
        there.clone(),
        there.clone(),
        there,
        (200, json!("a list?")),
        list(&[slice("8", None, true)]),
    ];
    let server = Server::start(lists, watches);
    let (mut duck, report) = server.drained(&["--grace", "120s", "--min", "60s"]);
    assert_eq!(report.routing.unwrap().state, RoutingState::Out, "absent is out");
    assert_eq!(server.asked("limit=500 "), 9);
    let said = duck.rest();
    let warned: Vec<_> = said.iter().filter(|line| line.contains("could not")).collect();
    assert!(warned.len() == 1 && warned[0].contains("endpointslices.discovery.k8s.io in namespace shop"), "{said:#?}");
}

#[test]
fn what_is_not_allowed_is_said_once_with_the_role_that_allows_it() {
    if !root("what_is_not_allowed_is_said_once_with_the_role_that_allows_it") {
        return;
    }
    let server = Server::start(vec![(403, json!({"message": "endpointslices is forbidden"}))], vec![]);
    let (mut duck, report) = server.drained(&["--min", "1s"]);
    let said = duck.rest();
    let warned: Vec<_> = said.iter().filter(|line| line.contains("may not list")).collect();
    assert_eq!(warned.len(), 1, "{said:#?}");
    for part in
        ["endpointslices.discovery.k8s.io in namespace shop", "403", "resources [endpointslices], verbs [list, watch]"]
    {
        assert!(warned[0].contains(part), "{part}: {warned:?}");
    }
    assert!((1.0..10.0).contains(&report.took.as_secs_f64()), "--min: {report:?}");
    assert_eq!(report.routing.unwrap().state, RoutingState::Unknown);
}

#[test]
fn where_nobody_answers_the_least_time_holds() {
    if !root("where_nobody_answers_the_least_time_holds") {
        return;
    }
    let mut server = Server::start(vec![list(&[])], vec![]);
    server.address.set_port(free_port());
    let mut duck = server.pod(&["--min", "1s"]);
    duck.hear("could not list endpointslices.discovery.k8s.io");
    duck.signal(Signal::TERM);
    duck.wait();
    let said = duck.rest();
    assert_eq!(said.iter().filter(|line| line.contains("could not list")).count(), 1, "{said:#?}");
    assert!(duck.report().took >= Duration::from_secs(1));
}

#[test]
fn a_pod_that_no_service_selects_takes_the_least_time() {
    if !root("a_pod_that_no_service_selects_takes_the_least_time") {
        return;
    }
    let server = Server::start(vec![list(&[slice("4", None, true)])], vec![]);
    let (mut duck, report) = server.drained(&["--min", "2s"]);
    duck.hear("this pod is in no EndpointSlice of namespace shop");
    assert!(report.took >= Duration::from_secs(2), "{report:?}");
}

/// Its process is nobody's but lameduck's: the end of the app is the end, and the process that was killed is not the app's.
#[test]
fn an_app_that_exits_does_not_wait_for_the_watch() {
    if !root("an_app_that_exits_does_not_wait_for_the_watch") {
        return;
    }
    let server = Server::start(vec![list(&[slice("4", Some(ready()), true)])], vec![vec![wait(60_000)]]);
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", WITH_ACCOUNT, "container", server.account.path().to_str().unwrap()]);
    command.args([LAMEDUCK, "run", "--watch-endpoints", "--", "sh", "-c", "sleep 0.3; exit 7"]);
    clean(&mut command);
    command.env("KUBERNETES_SERVICE_HOST", "127.0.0.1");
    command.env("KUBERNETES_SERVICE_PORT", server.address.port().to_string());
    let mut duck = Duck::start(command);
    assert_eq!(duck.code(), 7);
}

#[test]
fn outside_a_pod_it_is_said() {
    let mut command = crate::support::run(&["--watch-endpoints", "--", "sleep", "1"]);
    clean(&mut command);
    let mut duck = Duck::start(command);
    duck.hear(
        "--watch-endpoints: KUBERNETES_SERVICE_HOST is not set: this is no pod of Kubernetes; going on with --min",
    );
    assert_eq!(duck.code(), 0);
}
