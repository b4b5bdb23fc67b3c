//! Traps 7, 8 and 11: clients that do not read, do not write, or do not count.

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use lameduck_core::front::{Command, Figures};
use lameduck_front::Config;

use super::super::rig::{Client, until};
use super::{SLACK, close, ends_clean, get, quick, start, start_with};

/// How often a request in flight looks at its client.
const LOOK: Duration = Duration::from_secs(1);

#[test]
fn a_client_that_never_reads_does_not_hold_the_drain() {
    let grace = quick().first_byte_grace;
    for path in ["/big/50000000", "/flood"] {
        let (app, mut front) = start();
        let mut client = front.client();
        client.send(get(path));
        until("it is in flight", || app.seen.requests() == 1);
        // It was an arrival when it came, and is none while it does not read.
        let arrival = front.figures().last_arrival_ms;
        close(&mut front);
        let page = front.page;
        // The first look sees that the kernel's buffers are full, the second one that nobody empties them.
        front.ends_within(grace + 2 * LOOK + SLACK);
        let figures = page.figures();
        assert_eq!((figures.client_gone, figures.last_arrival_ms), (1, arrival), "{path}");
        drop(client);
    }
}

/// Steadily, never as long between two reads as the grace. What it has read shows late: a socket is writable again only
/// once a third of its buffer is free.
#[test]
fn a_client_that_reads_slowly_is_no_client_that_never_reads() {
    const PIECE: usize = 50_000;
    let grace = Duration::from_millis(500);
    let (_app, mut front) = start_with(Config { first_byte_grace: grace, ..quick() });
    let mut client = front.client();
    rustix::net::sockopt::set_socket_recv_buffer_size(&client.stream, PIECE).unwrap();
    client.send(get("/big/8000000"));
    client.head().unwrap();
    close(&mut front);
    let began = Instant::now();
    let mut left = 8_000_000;
    while left > 0 {
        let piece = if began.elapsed() < 3 * LOOK + grace { PIECE } else { left };
        client.read_exact(piece.min(left));
        left -= piece.min(left);
        thread::sleep(Duration::from_millis(50));
    }
    ends_clean(&mut client);
    drop(client);
    let page = front.page;
    front.ends_within(SLACK);
    assert_eq!((page.figures().answered, page.figures().client_gone), (1, 0));
}

#[test]
fn an_upload_that_stalls_does_not_hold_the_drain() {
    let (app, mut front) = start();
    for head in ["Content-Length: 100\r\n\r\nsome", "Transfer-Encoding: chunked\r\n\r\n5\r\nso"] {
        let mut client = front.client();
        client.send(format!("POST /p HTTP/1.1\r\nHost: x\r\n{head}"));
        until("it is in flight", || front.figures().in_flight == 1);
        front.tell(Command::LameDuck);
        let answer = client.answer();
        assert_eq!((answer.status, answer.closes()), (408, true));
        ends_clean(&mut client);
        until("it is over", || front.figures().in_flight == 0);
    }
    front.tell(Command::Close);
    front.ends_within(SLACK);
    assert_eq!(app.seen.requests(), 0);
}

/// Sends a byte of a head every now and then, until nobody takes it.
fn drip(client: &Client) -> thread::JoinHandle<()> {
    let mut stream = client.stream.try_clone().unwrap();
    thread::spawn(move || {
        let head = b"GET /slow-head HTTP/1.1\r\nHost: x\r\n".iter().chain(b"X: y\r\n".iter().cycle());
        for byte in head {
            if stream.write_all(&[*byte]).is_err() {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
    })
}

#[test]
fn slow_heads_do_not_hold_the_drain_and_do_not_count() {
    let (app, mut front) = start();
    assert_eq!(front.client().get("/before").status, 200);
    until("the client has left", || front.figures().connections == 0);
    let mut client = front.client();
    client.send("\r\n");
    let drips = drip(&client);
    until("it is there", || front.figures().connections == 1);
    let before = front.figures();
    front.tell(Command::LameDuck);
    thread::sleep(Duration::from_millis(300));
    assert_eq!(front.figures().connections, 1, "in the lame duck everything is still accepted");
    front.tell(Command::Close);
    let began = Instant::now();
    let answer = client.answer();
    assert_eq!((answer.status, answer.closes()), (408, true));
    assert!(began.elapsed() < quick().first_byte_grace + SLACK);
    drop(client);
    drips.join().unwrap();
    let page = front.page;
    front.ends_within(SLACK);
    let after = page.figures();
    assert_eq!((after.last_arrival_ms, after.in_flight), (before.last_arrival_ms, 0));
    assert_eq!(requests(&after), 1);
    assert_eq!(app.seen.requests(), 1);
}

#[test]
fn slow_heads_while_serving_are_told_that_they_are_too_slow() {
    let (_app, front) = start_with(Config { head_timeout: Duration::from_millis(500), ..quick() });
    let mut client = front.client();
    let drips = drip(&client);
    let answer = client.answer();
    assert_eq!((answer.status, answer.closes()), (408, true));
    drop(client);
    drips.join().unwrap();
    // The same where the slow head comes with the request before it.
    let mut client = front.client();
    client.send(get("/whole") + "GET /half HTTP/1.1\r\nHo");
    assert_eq!(client.answer().text(), "whole 0");
    assert_eq!(client.answer().status, 408);
}

#[test]
fn a_silent_connection_has_the_grace_of_a_first_byte() {
    let grace = Duration::from_millis(1500);
    let config = Config { first_byte_grace: grace, ..quick() };
    let (_app, mut front) = start_with(config.clone());
    let began = Instant::now();
    let (mut silent, mut late) = (front.client(), front.client());
    until("they are there", || front.figures().connections == 2);
    close(&mut front);
    // Well within the grace: served.
    thread::sleep(Duration::from_millis(300));
    assert_eq!(late.get("/late").status, 200);
    ends_clean(&mut silent);
    let waited = began.elapsed();
    assert!(waited + Duration::from_millis(10) >= grace, "closed after {waited:?}, before {grace:?}");
    assert!(waited < grace + SLACK, "still there after {waited:?}");
    drop((silent, late));
    let page = front.page;
    front.ends_within(SLACK);
    assert_eq!(page.figures().resets_sent, 0);
}

#[test]
fn a_silent_connection_that_comes_in_the_drain_has_it_too() {
    let (_app, mut front) = start();
    let mut holds = front.client();
    holds.send(get("/slow/1500"));
    until("it is in flight", || front.figures().in_flight == 1);
    close(&mut front);
    let began = Instant::now();
    let mut silent = front.client();
    ends_clean(&mut silent);
    let waited = began.elapsed();
    let grace = quick().first_byte_grace;
    assert!(waited + Duration::from_millis(10) >= grace && waited < grace + SLACK, "{waited:?}");
    assert_eq!(holds.answer().status, 200);
}

fn requests(figures: &Figures) -> u64 {
    figures.requests_serving + figures.requests_lame_duck + figures.requests_closing
}

const PROBES: [&str; 4] = ["kube-probe/1.30", "GoogleHC/1.0", "ELB-HealthChecker/2.0", "mine/1"];

#[test]
fn probes_are_answered_and_never_count() {
    let mut config = quick();
    config.probe_agents.push("mine/".into());
    config.health_path = Some("/healthz".into());
    let (app, mut front) = start_with(config);
    assert_eq!(front.client().get("/traffic").status, 200);
    until("the client has left", || front.figures().connections == 0 && front.figures().answered == 1);
    let before = front.figures();
    for command in [None, Some(Command::LameDuck)] {
        if let Some(command) = command {
            front.tell(command);
        }
        for agent in PROBES {
            let mut probe = front.client();
            probe.send(format!("GET /healthz HTTP/1.1\r\nHost: x\r\nUser-Agent: {agent}\r\n\r\n"));
            let answer = probe.answer();
            assert_eq!((answer.status, answer.closes()), (200, command.is_some()), "{agent}");
        }
    }
    // Readiness is told by who has to know. Whoever else asks there is a probe too, and no failure of the app.
    front.say(Command::NotReady);
    for agent in PROBES.into_iter().chain(["curl/8"]) {
        let mut probe = front.client();
        probe.send(format!("GET /healthz HTTP/1.1\r\nHost: x\r\nUser-Agent: {agent}\r\n\r\n"));
        assert_eq!(probe.answer().status, 503, "{agent}");
    }
    let after = front.figures();
    assert_eq!((after.probes, after.app_errors), (13, 0));
    assert_eq!(requests(&after), requests(&before));
    assert_eq!((after.answered, after.last_arrival_ms), (before.answered, before.last_arrival_ms));
    assert_eq!((after.last_sent_ms, after.in_flight), (before.last_sent_ms, 0));
    assert!(front.page.sources().is_empty());
    assert_eq!(app.seen.requests(), 9, "once not ready, the front answers itself");
}

#[test]
fn probes_do_not_count_when_held_open() {
    let (_app, mut front) = start();
    let mut probe = front.client();
    probe.send("GET /slow/1000 HTTP/1.1\r\nHost: x\r\nUser-Agent: kube-probe/1.30\r\n\r\n");
    until("it has come", || front.figures().probes == 1);
    let mut keeps = front.client();
    keeps.send("GET /a HTTP/1.1\r\nHost: x\r\nUser-Agent: GoogleHC/1.0\r\n\r\n");
    assert!(!keeps.answer().closes());
    front.tell(Command::LameDuck);
    assert_eq!(probe.answer().text(), "slow\n");
    let figures = front.figures();
    assert_eq!((figures.in_flight, figures.last_arrival_ms, figures.last_sent_ms), (0, 0, 0));
    assert_eq!((figures.probes, requests(&figures)), (2, 0));
    // Nor do they hold the close.
    front.tell(Command::Close);
    ends_clean(&mut keeps);
    drop((keeps, probe));
    front.ends_within(SLACK);
}
