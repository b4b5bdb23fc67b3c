//! Traps 2, 3, 5, 6 and 13: what is on its way when the drain begins, or when the time is over.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lameduck_core::front::Command;
use lameduck_front::Config;

use super::super::rig::{Client, Front, until};
use super::{SLACK, close, ends_clean, get, post, quick, start, start_with};

fn pipelined(many: usize) -> String {
    // The last one takes its time, so that a drain begun at any answer before it is there when it is answered.
    let last = get("/slow/300");
    (1..many)
        .map(|n| if n % 2 == 1 { get(&format!("/slow/5-{n}")) } else { post(&format!("/p{n}"), "body") })
        .chain([last])
        .collect()
}

#[test]
fn pipelining_all_that_came_is_answered_and_the_last_one_says_close() {
    for drained_at in [0, 1, 7, 19] {
        for command in [Command::LameDuck, Command::Close] {
            let (app, mut front) = start();
            let mut client = front.client();
            client.send(pipelined(20));
            for n in 0..20 {
                if n == drained_at {
                    front.tell(command);
                }
                let answer = client.answer();
                assert_eq!(answer.status, 200);
                assert_eq!(answer.closes(), n == 19, "answer {n}, drained at {drained_at}");
            }
            ends_clean(&mut client);
            assert_eq!(app.seen.requests(), 20);
            drop(client);
            front.tell(Command::Close);
            front.ends_within(SLACK);
        }
    }
}

/// The requests come one by one, so nobody knows which is the last: a stop is clean, with `close` on the last answer.
#[test]
fn pipelining_what_comes_after_the_marked_answer_is_not_executed() {
    for round in 0..20 {
        let (app, mut front) = start();
        let mut client = front.client();
        let mut to_front = client.stream.try_clone().unwrap();
        // As long as no answer says that it is the last: however late the command is heard, there is one to say it on.
        let over = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&over);
        let writes = std::thread::spawn(move || {
            for n in (0..).take_while(|_| !told.load(Ordering::SeqCst)) {
                std::io::Write::write_all(&mut to_front, post(&format!("/w{n}"), "body").as_bytes()).unwrap();
            }
        });
        let mut answered = 0;
        loop {
            if answered == round {
                front.say(Command::LameDuck);
            }
            let answer = client.answer();
            assert_eq!((answer.status, answer.text()), (200, format!("w{answered} 4").as_str()));
            answered += 1;
            if answer.closes() {
                break;
            }
        }
        over.store(true, Ordering::SeqCst);
        ends_clean(&mut client);
        writes.join().unwrap();
        assert_eq!(app.seen.requests(), answered, "executed as many as were answered");
    }
}

#[test]
fn pipelining_half_a_request_at_the_close_is_told_that_it_is_too_late() {
    let (app, mut front) = start();
    let mut client = front.client();
    client.send(get("/whole") + "GET /half HTTP/1.1\r\nHo");
    assert_eq!(client.answer().text(), "whole 0");
    close(&mut front);
    let answer = client.answer();
    assert_eq!((answer.status, answer.closes()), (408, true));
    ends_clean(&mut client);
    assert_eq!(app.seen.requests(), 1);
}

#[test]
fn streaming_already_is_finished_and_the_connection_shed_after_it() {
    let (_app, mut front) = start();
    let mut client = front.client();
    client.send(get("/stream/10"));
    let head = client.head().unwrap();
    close(&mut front);
    assert!(!head.to_ascii_lowercase().contains("connection"), "it was too late for the header: {head}");
    assert_eq!(client.chunks().unwrap(), b"part\n".repeat(10));
    // Idle from now on, so it is shed. A new connection is still accepted meanwhile.
    assert!(front.client().get("/meanwhile").closes());
    ends_clean(&mut client);
    drop(client);
    let page = front.page;
    front.ends_within(SLACK);
    assert_eq!((page.figures().shed_idle, page.figures().forced), (1, 0));
}

#[test]
fn streaming_already_and_then_one_marked_answer() {
    let (_app, mut front) = start();
    let mut client = front.client();
    client.send(get("/stream/10"));
    client.head().unwrap();
    front.tell(Command::LameDuck);
    assert_eq!(client.chunks().unwrap(), b"part\n".repeat(10));
    assert!(client.get("/next").closes());
    ends_clean(&mut client);
}

#[test]
fn an_early_answer_to_a_chunked_upload_is_not_reset() {
    for drained in [false, true] {
        let (_app, mut front) = start_with(Config { linger: Duration::from_secs(5), ..quick() });
        if drained {
            front.tell(Command::LameDuck);
        }
        let mut client = front.client();
        client.send("POST /early HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n10000\r\n");
        let answer = client.answer();
        assert_eq!((answer.status, answer.text(), answer.closes()), (413, "early", true));
        client.send("x".repeat(0x10000) + "\r\n");
        for _ in 0..50 {
            client.send(format!("10000\r\n{}\r\n", "x".repeat(0x10000)));
        }
        client.send("0\r\n\r\n");
        client.half_close();
        ends_clean(&mut client);
        let figures = front.figures();
        assert_eq!(figures.resets_sent, 0);
        // The rest of a body is no request.
        assert_eq!(figures.crossed_close, 0);
    }
}

const EXPECT: &str = "POST /e HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";

fn continued(client: &mut Client) {
    assert!(client.head().unwrap().starts_with("HTTP/1.1 100 "));
}

#[test]
fn expect_100_continue_before_and_after_the_drain_begins() {
    for command in [Command::LameDuck, Command::Close] {
        let (app, mut front) = start();
        let (mut before, mut between, mut after) = (front.client(), front.client(), front.client());
        before.send(EXPECT);
        continued(&mut before);
        between.send(&EXPECT[..30]);
        front.tell(command);
        between.send(&EXPECT[30..]);
        after.send(EXPECT);
        for client in [&mut between, &mut after] {
            continued(client);
        }
        for client in [&mut before, &mut between, &mut after] {
            client.send("abc");
            let answer = client.answer();
            assert_eq!((answer.text(), answer.closes()), ("e 3", true));
            ends_clean(client);
        }
        assert_eq!(app.seen.requests(), 3);
        drop((before, between, after));
        front.tell(Command::Close);
        front.ends_within(SLACK);
    }
}

/// The client has done all that it may: it is the app that is waited for.
#[test]
fn expect_100_continue_that_comes_late_in_the_drain_is_waited_for() {
    let (app, mut front) = start();
    let mut client = front.client();
    client.send("POST /late/2500 HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
    until("it is with the app", || !app.seen.heads.lock().unwrap().is_empty());
    front.tell(Command::LameDuck);
    assert!(client.head().unwrap().starts_with("HTTP/1.1 100 "));
    client.send("body");
    assert_eq!(client.answer().text(), "late 4");
    until("the books are closed", || front.figures().answered == 1);
}

#[test]
fn expect_100_continue_and_then_no_body_does_not_hold_the_drain() {
    let (app, mut front) = start();
    let mut client = front.client();
    client.send(EXPECT);
    continued(&mut client);
    close(&mut front);
    let answer = client.answer();
    assert_eq!((answer.status, answer.closes()), (408, true));
    ends_clean(&mut client);
    drop(client);
    front.ends_within(SLACK);
    assert_eq!(app.seen.requests(), 0);
}

/// Waiting, streaming, uploading, idle, silent, a WebSocket: all at once.
struct Everybody {
    waiting: Client,
    streaming: Client,
    mute: Client,
    uploading: Client,
    idle: Client,
    silent: Client,
    websocket: Client,
}

fn everybody(front: &Front) -> Everybody {
    let mut all = Everybody {
        waiting: front.client(),
        streaming: front.client(),
        mute: front.client(),
        uploading: front.client(),
        idle: front.client(),
        silent: front.client(),
        websocket: front.client(),
    };
    all.waiting.send(post("/silent", "body"));
    all.streaming.send(get("/stream/1000"));
    all.streaming.head().unwrap();
    all.mute.send(get("/mute"));
    all.mute.head().unwrap();
    all.uploading.send("POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nsome");
    assert_eq!(all.idle.get("/before").status, 200);
    all.websocket.send("GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n");
    all.websocket.head().unwrap();
    until("all are in flight", || front.figures().in_flight == 5 && front.figures().connections == 7);
    all
}

#[test]
fn shortened_time_those_who_wait_are_told_and_those_who_stream_are_cut_and_counted() {
    for commands in
        [&[Command::End][..], &[Command::LameDuck, Command::End], &[Command::LameDuck, Command::Close, Command::End]]
    {
        let (_app, mut front) = start_with(Config {
            first_byte_grace: Duration::from_secs(30),
            stream_grace: Duration::from_secs(30),
            websocket_grace: Duration::from_secs(30),
            ..quick()
        });
        let mut all = everybody(&front);
        for command in commands {
            front.say(*command);
        }
        for client in [&mut all.waiting, &mut all.uploading] {
            let answer = client.answer();
            assert_eq!((answer.status, answer.closes()), (503, true));
            assert!(answer.head.contains("\r\nRetry-After: "), "{}", answer.head);
            ends_clean(client);
        }
        for client in [&mut all.idle, &mut all.silent] {
            ends_clean(client);
        }
        // A body in chunks without its end: nobody can take it for the whole.
        assert!(all.streaming.chunks().is_err());
        assert!(all.mute.chunks().is_err());
        drop(all);
        let page = front.page;
        front.ends_within(SLACK);
        let figures = page.figures();
        assert_eq!((figures.shed, figures.resets_sent, figures.in_flight), (2, 0, 0), "{commands:?}");
        assert_eq!((figures.forced, figures.cut_at_deadline), (3, 3), "{commands:?}: {figures:#?}");
    }
}

#[test]
fn shortened_time_who_comes_now_is_told_and_a_probe_is_too() {
    let (app, mut front) = start_with(Config { linger: Duration::from_secs(5), ..quick() });
    let mut waiting = front.client();
    waiting.send(get("/silent"));
    until("it is in flight", || app.seen.requests() == 1);
    front.tell(Command::LameDuck);
    front.say(Command::End);
    assert_eq!(waiting.answer().status, 503);
    // As long as this one does not close its side, the front is there.
    for agent in ["curl/8", "kube-probe/1.30"] {
        let mut late = front.client();
        late.send(format!("GET /silent HTTP/1.1\r\nHost: x\r\nUser-Agent: {agent}\r\n\r\n"));
        let answer = late.answer();
        assert_eq!((answer.status, answer.closes()), (503, true));
        assert_eq!(answer.text(), "this instance has to go away now\n");
        ends_clean(&mut late);
    }
    drop(waiting);
    front.ends_within(SLACK);
    assert_eq!(app.seen.requests(), 1);
}

#[test]
fn shortened_time_a_cut_answer_without_framing_is_a_reset_not_an_end() {
    let (_app, mut front) = start();
    let mut client = front.client();
    client.send("GET /stream/1000 HTTP/1.0\r\n\r\n");
    let head = client.head().unwrap();
    assert!(!head.to_ascii_lowercase().contains("content-length"), "{head}");
    close(&mut front);
    front.say(Command::End);
    // To HTTP/1.0 the end of the connection is the end of the body (RFC 9112 section 8).
    assert!(client.end().is_err(), "it looks whole, and is not");
    drop(client);
    let page = front.page;
    front.ends_within(SLACK);
    assert_eq!((page.figures().forced, page.figures().resets_sent), (1, 1));
}

#[test]
fn shortened_time_many_are_told_at_once() {
    const MANY: usize = 150;
    let (_app, mut front) = start_with(Config { stream_grace: Duration::from_secs(30), ..quick() });
    let mut clients: Vec<Client> = (0..MANY).map(|_| front.client()).collect();
    for client in &mut clients {
        client.send(get("/mute"));
    }
    for client in &mut clients {
        client.head().unwrap();
    }
    // Nothing that the clock says to them meanwhile makes one of them stay.
    front.tell(Command::LameDuck);
    front.say(Command::End);
    let page = front.page;
    front.ends_within(SLACK);
    assert_eq!((page.figures().forced, page.figures().cut_at_deadline), (MANY as u64, MANY as u64));
}
