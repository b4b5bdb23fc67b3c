//! Limits, and what is told of a request: to the app, and in the access log.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use lameduck_core::front::Command;
use lameduck_front::Config;
use lameduck_front::config::{AccessLog, Forwarded, Upstream};
use serde_json::Value;

use super::super::rig::{App, Client, Front, until};
use super::{SLACK, close, ends_clean, get, post, quick, start, start_with};

#[test]
fn who_is_one_connection_too_many_is_told() {
    let (app, front) = start_with(Config { max_connections: 3, ..quick() });
    let mut within: Vec<Client> = (0..3).map(|_| front.client()).collect();
    for client in &mut within {
        assert_eq!(client.get("/in").status, 200);
    }
    for _ in 0..20 {
        let mut beyond = front.client();
        beyond.send(post("/beyond", "body"));
        let answer = beyond.answer();
        assert_eq!((answer.status, answer.closes()), (503, true));
        assert!(answer.head.contains("\r\nRetry-After: "), "{}", answer.head);
        ends_clean(&mut beyond);
    }
    assert_eq!((front.figures().shed, front.figures().resets_sent), (20, 0));
    drop(within);
    until("there is room", || front.figures().connections == 0);
    assert_eq!(front.client().get("/in").status, 200);
    assert_eq!((app.seen.count("/beyond"), app.seen.count("/in")), (0, 4));
}

/// All are accepted in one turn.
#[test]
fn a_crowd_that_comes_at_once_is_counted_as_it_comes() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut crowd: Vec<Client> = (0..40).map(|_| Client::connect(address)).collect();
    for client in &mut crowd {
        client.send(get("/in"));
    }
    let app = App::start();
    let upstream = Upstream::Tcp(app.address);
    let front = Front::on(listener, Config { upstream, max_connections: 3, ..quick() });
    let statuses: Vec<u16> = crowd.iter_mut().map(|client| client.answer().status).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 3, "{statuses:?}");
    assert_eq!((app.seen.count("/in"), front.figures().shed), (3, 37));
}

#[test]
fn who_is_one_request_too_many_is_told_and_may_stay() {
    let (app, front) = start_with(Config { max_requests: 2, ..quick() });
    let mut within: Vec<Client> = (0..2).map(|_| front.client()).collect();
    for client in &mut within {
        client.send(get("/slow/400"));
    }
    until("both are in flight", || front.figures().in_flight == 2);
    let mut beyond = front.client();
    let answer = beyond.post("/beyond", "body");
    assert_eq!((answer.status, answer.closes()), (503, false));
    assert!(answer.head.contains("\r\nRetry-After: "), "{}", answer.head);
    // A probe is no load.
    beyond.send("GET /probe HTTP/1.1\r\nHost: x\r\nUser-Agent: kube-probe/1.30\r\n\r\n");
    assert_eq!(beyond.answer().status, 200);
    for client in &mut within {
        assert_eq!(client.answer().text(), "slow\n");
    }
    until("both are done", || front.figures().in_flight == 0);
    assert_eq!(beyond.post("/within", "body").status, 200);
    until("it is in the books", || front.figures().shed == 1);
    assert_eq!(app.seen.count("/beyond"), 0);
}

#[test]
fn no_linger_is_no_wait_for_ever() {
    let (_app, mut front) = start_with(Config { linger: Duration::ZERO, ..quick() });
    let mut client = front.client();
    assert_eq!(client.get("/a").status, 200);
    close(&mut front);
    // The client never closes.
    front.ends_within(SLACK);
    ends_clean(&mut client);
}

#[test]
fn http_2_begins_with_the_connection_or_not_at_all() {
    let (_app, front) = start();
    for after in [get("/a"), get("/a") + "P"] {
        let mut client = front.client();
        client.send(&after);
        assert_eq!(client.answer().status, 200);
        let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
        client.send(if after.ends_with('P') { &preface[1..] } else { preface });
        assert_eq!(client.answer().status, 505);
    }
    assert_eq!(front.figures().refused, 2);
}

#[test]
fn a_probe_without_a_proxy_header_is_nothing_refused() {
    let (_app, front) = start_with(Config { proxy_protocol: true, ..quick() });
    drop(front.client());
    until("it is gone", || front.figures().accepted == 1 && front.figures().connections == 0);
    assert_eq!(front.figures().refused, 0);
}

#[test]
fn an_old_connection_is_asked_to_leave() {
    let age = Duration::from_millis(600);
    let (_app, front) = start_with(Config { max_connection_age: age, ..quick() });
    let began = Instant::now();
    let mut client = front.client();
    while !client.get("/a").closes() {
        assert!(began.elapsed() < age + SLACK);
        thread::sleep(Duration::from_millis(10));
    }
    // A tenth more or less.
    assert!(began.elapsed() + Duration::from_millis(10) >= age * 9 / 10, "{:?}", began.elapsed());
    ends_clean(&mut client);
    assert_eq!(front.figures().shed_by_header, 0, "it is no part of a drain");
}

fn last_head(app: &App) -> String {
    app.seen.heads.lock().unwrap().last().unwrap().clone()
}

fn field<'a>(head: &'a str, name: &str) -> Vec<&'a str> {
    let of = |line: &'a str| {
        let (field, value) = line.split_once(": ")?;
        field.eq_ignore_ascii_case(name).then_some(value)
    };
    head.lines().filter_map(of).collect()
}

#[test]
fn who_the_client_is_comes_by_the_proxy_protocol() {
    let config = Config { proxy_protocol: true, forwarded: Forwarded::XForwarded, ..quick() };
    let (app, mut front) = start_with(config);
    let v2 = {
        let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
        header.extend([203, 0, 113, 7, 10, 0, 0, 1, 0x1f, 0x90, 0, 80]);
        header
    };
    let v1 = b"PROXY TCP4 203.0.113.7 10.0.0.1 8080 80\r\n".to_vec();
    let v1_ipv6 = b"PROXY TCP6 2001:db8::7 2001:db8::1 8080 80\r\n".to_vec();
    for (header, client) in [(v1, "203.0.113.7"), (v2, "203.0.113.7"), (v1_ipv6, "2001:db8::7")] {
        let mut connection = front.client();
        // In two parts, the second with the request behind it.
        connection.send(&header[..10]);
        connection.send([&header[10..], get("/a").as_bytes()].concat());
        assert_eq!(connection.answer().status, 200);
        assert_eq!(field(&last_head(&app), "x-forwarded-for"), [client]);
        assert_eq!(connection.get("/b").status, 200);
        assert_eq!(field(&last_head(&app), "x-forwarded-for"), [client]);
    }
    front.tell(Command::LameDuck);
    let mut connection = front.client();
    connection.send("PROXY TCP4 203.0.113.9 10.0.0.1 8080 80\r\n".to_owned() + &get("/c"));
    assert!(connection.answer().closes());
    assert_eq!(front.page.sources(), [("203.0.113.9".parse().unwrap(), 1)]);
    // Who does not say who it is is nobody.
    let mut without = front.client();
    without.send(get("/d"));
    assert!(without.is_over().unwrap_or(true));
    assert_eq!(app.seen.count("/d"), 0);
}

#[test]
fn who_the_client_is_is_told_to_the_app() {
    let check = |forwarded: Forwarded, sent: &str, expect: &[(&str, &[&str])]| {
        let (app, front) = start_with(Config { forwarded, ..quick() });
        let mut client = front.client();
        client.send(format!("GET /a HTTP/1.1\r\nHost: example.com\r\n{sent}\r\n"));
        assert_eq!(client.answer().status, 200);
        let head = last_head(&app);
        for (name, values) in expect {
            assert_eq!(field(&head, name), *values, "{head}");
        }
    };
    let sent = "X-Forwarded-For: 203.0.113.7\r\nX-Forwarded-Proto: https\r\nForwarded: for=203.0.113.7\r\n";
    check(
        Forwarded::Off,
        sent,
        &[("x-forwarded-for", &["203.0.113.7"]), ("forwarded", &["for=203.0.113.7"]), ("x-forwarded-host", &[])],
    );
    check(
        Forwarded::XForwarded,
        sent,
        &[
            ("x-forwarded-for", &["203.0.113.7, 127.0.0.1"]),
            ("x-forwarded-proto", &["https"]),
            ("x-forwarded-host", &["example.com"]),
        ],
    );
    check(
        Forwarded::XForwarded,
        "",
        &[("x-forwarded-for", &["127.0.0.1"]), ("x-forwarded-proto", &["http"]), ("forwarded", &[])],
    );
    check(Forwarded::Forwarded, sent, &[("forwarded", &["for=203.0.113.7, for=127.0.0.1;proto=http"])]);
}

#[test]
fn a_request_has_an_id() {
    let (app, front) = start_with(Config { request_id: true, ..quick() });
    let mut client = front.client();
    let mut ids = Vec::new();
    for _ in 0..3 {
        client.get("/a");
        ids.extend(field(&last_head(&app), "x-request-id").into_iter().map(String::from));
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 3, "{ids:?}");
    assert!(ids.iter().all(|id| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())), "{ids:?}");
    client.send("GET /a HTTP/1.1\r\nHost: x\r\nX-Request-Id: mine\r\n\r\n");
    client.answer();
    assert_eq!(field(&last_head(&app), "x-request-id"), ["mine"]);
}

#[test]
fn health_is_told_by_the_front_once_it_is_not_ready() {
    let (app, mut front) = start_with(Config { health_path: Some("/healthz".into()), ..quick() });
    let mut client = front.client();
    assert_eq!(client.get("/healthz").status, 200);
    front.tell(Command::LameDuck);
    // The policy is PID 1's: the lame duck alone changes nothing.
    assert_eq!(front.client().get("/healthz?verbose").status, 200);
    front.say(Command::NotReady);
    until("it is heard", || front.client().get("/healthz").status == 503);
    assert_eq!(front.client().get("/healthz?verbose").status, 503);
    assert_eq!(front.client().get("/healthz-of-another").status, 200);
    assert_eq!(front.client().get("/a").status, 200);
    assert!(app.seen.count("/healthz") >= 1);
}

#[test]
fn ipv6() {
    let Ok(listener) = TcpListener::bind("[::1]:0") else {
        eprintln!("SKIPPED ipv6: needs ::1");
        return;
    };
    let app = App::on(TcpListener::bind("[::1]:0").unwrap());
    let config = Config { upstream: Upstream::Tcp(app.address), forwarded: Forwarded::Forwarded, ..quick() };
    let mut front = Front::on(listener, config);
    let mut client = front.client();
    assert_eq!(client.get("/a").status, 200);
    assert!(field(&last_head(&app), "forwarded")[0].contains("for=\"[::1]\""), "{}", last_head(&app));
    front.tell(Command::LameDuck);
    assert!(client.get("/a").closes());
    assert_eq!(front.page.sources(), [("::1".parse().unwrap(), 1)]);
}

fn lines(path: &Path) -> Vec<Value> {
    std::fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn the_access_log_has_a_line_for_each_request_and_says_how_it_ended() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    let config = Config { access_log: Some(AccessLog::File(path.clone())), request_id: true, ..quick() };
    let (_app, mut front) = start_with(config);
    for path in ["/a", "/die", "/raw/HTTP/1.1_500_No~Content-Length:_0~~"] {
        let _ = front.client().get(path);
    }
    let mut cut = front.client();
    cut.send(get("/cut"));
    assert!(cut.try_answer(false).is_err());
    let mut bad = front.client();
    bad.send("POST /bad HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
    until("it is in flight", || front.figures().in_flight == 1);
    bad.send("no size\r\n");
    assert_eq!(bad.answer().status, 400);
    let mut gone = front.client();
    gone.send("POST /gone HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nsome");
    until("it is in flight", || front.figures().in_flight == 1);
    drop(gone);
    until("it is gone", || front.figures().client_gone == 1);
    let mut probe = front.client();
    probe.send("GET /probe HTTP/1.1\r\nHost: x\r\nUser-Agent: kube-probe/1.30\r\n\r\n");
    assert_eq!(probe.answer().status, 200);
    front.tell(Command::LameDuck);
    let mut named = front.client();
    named.send("GET /named?q=\"1\" HTTP/1.1\r\nHost: x\r\nX-Request-Id: mine\r\n\r\n");
    assert_eq!(named.answer().status, 200);
    let (mut waiting, mut streaming) = (front.client(), front.client());
    waiting.send(get("/silent"));
    streaming.send(get("/stream/1000"));
    streaming.head().unwrap();
    until("both are in flight", || front.figures().in_flight == 2);
    front.tell(Command::Close);
    front.say(Command::End);
    assert_eq!(waiting.answer().status, 503);
    drop((waiting, streaming, cut, bad, probe, named));
    front.ends_within(SLACK);

    let lines = lines(&path);
    let by_target: BTreeMap<&str, &Value> = lines.iter().map(|line| (line["target"].as_str().unwrap(), line)).collect();
    assert_eq!(by_target.len(), lines.len(), "one line each");
    let check = |target: &str, status: u64, ended: &str, phase: &str| {
        let line = by_target[target];
        let told = (line["status"].as_u64().unwrap(), line["ended"].as_str().unwrap(), line["phase"].as_str().unwrap());
        assert_eq!(told, (status, ended, phase), "{line}");
        assert_eq!((line["schema"].as_str(), line["protocol"].as_str()), (Some("lameduck.access/1"), Some("HTTP/1.1")));
        assert_eq!(line["client"].as_str(), Some("127.0.0.1"));
        assert!(line["id"].as_str().is_some_and(|id| !id.is_empty()), "{line}");
        let (took, time) = (line["took_s"].as_f64().unwrap(), line["time"].as_f64().unwrap());
        assert!((0.0..60.0).contains(&took) && time > 1.7e9, "{line}");
    };
    check("/a", 200, "answered", "serving");
    check("/die", 502, "bad-gateway", "serving");
    check("/raw/HTTP/1.1_500_No~Content-Length:_0~~", 500, "answered", "serving");
    check("/cut", 200, "cut-by-app", "serving");
    check("/bad", 400, "refused", "serving");
    check("/gone", 0, "client-gone", "serving");
    check("/probe", 200, "answered", "serving");
    check("/named?q=\"1\"", 200, "answered", "lame-duck");
    check("/silent", 503, "shed", "lame-duck");
    check("/stream/1000", 200, "cut-at-deadline", "lame-duck");
    assert_eq!(lines.len(), 10);
    assert_eq!(by_target["/named?q=\"1\""]["id"], "mine");
    assert_eq!((&by_target["/probe"]["probe"], &by_target["/a"]["probe"]), (&Value::Bool(true), &Value::Bool(false)));
    assert!(by_target["/a"]["app_s"].as_f64().is_some() && by_target["/silent"]["app_s"].is_null());
    assert_eq!(by_target["/bad"]["method"], "POST");
}

#[test]
fn the_access_log_tells_of_holding_and_of_sending_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut front = Front::start(address, Config { access_log: Some(AccessLog::File(path.clone())), ..quick() });
    let mut client = front.client();
    client.send(get("/held"));
    until("it is held", || front.figures().held == 1);
    thread::sleep(Duration::from_millis(100));
    let _app = App::on(TcpListener::bind(address).unwrap());
    assert_eq!(client.answer().status, 200);
    // Executed by an app that dies of it: over the connection that is kept, and over a new one.
    assert_eq!(client.get("/die").status, 502);
    let _ = client.stream.flush();
    drop(client);
    close(&mut front);
    front.ends_within(SLACK);
    let lines = lines(&path);
    assert_eq!(lines.len(), 2);
    assert!(lines[0]["held_s"].as_f64().unwrap() >= 0.1 && lines[0]["retries"] == 0, "{}", lines[0]);
    assert!(lines[1]["held_s"].as_f64().unwrap() < 0.1 && lines[1]["retries"] == 1, "{}", lines[1]);
}

/// A pipe that nobody empties, as a container's standard output can become.
#[test]
fn an_access_log_that_nobody_reads_holds_nobody_up() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
    let _reader = std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let (_app, front) = start_with(Config { access_log: Some(AccessLog::File(path)), ..quick() });
    let mut client = front.client();
    let long = "x".repeat(20_000);
    // More than a pipe holds (64 KiB) and the front keeps (1 MiB).
    for _ in 0..70 {
        assert_eq!(client.get(&format!("/{long}")).status, 200);
    }
    assert!(front.figures().log_lost > 0, "what was lost is counted");
}
