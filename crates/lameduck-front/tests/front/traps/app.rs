//! Traps 12 and 14: all replicas go at once; the app exits first, or restarts.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::thread;
use std::time::{Duration, Instant};

use lameduck_core::front::Command;
use lameduck_front::Config;
use lameduck_front::config::Upstream;

use super::super::rig::{App, Client, Front, until};
use super::{SLACK, ends_clean, get, post, quick, start_with};

#[test]
fn all_replicas_terminating_go_on_to_serve() {
    let app = App::start();
    let mut fronts: Vec<Front> = (0..3).map(|_| Front::start(app.address, quick())).collect();
    let mut before: Vec<Client> = fronts.iter().map(Front::client).collect();
    for client in &mut before {
        assert_eq!(client.get("/before").status, 200);
    }
    for front in &mut fronts {
        front.tell(Command::LameDuck);
        front.say(Command::NotReady);
    }
    // There is nowhere else to go: everybody comes back, with a new connection each time.
    for n in 0..100 {
        for front in &fronts {
            let mut client = front.client();
            let answer = if n % 2 == 0 { client.get("/still") } else { client.post("/still", "body") };
            assert_eq!((answer.status, answer.closes()), (200, true));
            ends_clean(&mut client);
        }
    }
    for client in &mut before {
        let answer = client.get("/kept");
        assert_eq!((answer.status, answer.closes()), (200, true));
    }
    drop(before);
    for front in &mut fronts {
        // As long as a request is in flight, who comes is served, be it in the close.
        let mut holds = front.client();
        holds.send(get("/slow/300"));
        until("it is in flight", || front.figures().in_flight == 1);
        front.tell(Command::Close);
        assert!(front.client().get("/last").closes());
        assert_eq!(holds.answer().text(), "slow\n");
        drop(holds);
        let page = front.page;
        front.ends_within(SLACK);
        let figures = page.figures();
        assert_eq!((figures.requests_lame_duck, figures.requests_closing, figures.accepted_late), (102, 1, 102));
        assert_eq!((figures.answered, figures.resets_sent, figures.forced), (104, 0, 0));
    }
}

/// An address where nobody listens, and somebody can.
fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[test]
fn an_app_that_does_not_listen_yet_is_waited_for() {
    let address = nobody();
    let front = Front::start(address, quick());
    let (mut reads, mut writes) = (front.client(), front.client());
    reads.send(get("/a"));
    writes.send(post("/b", "body"));
    until("both are held", || front.figures().held == 2);
    let app = App::on(TcpListener::bind(address).unwrap());
    assert_eq!((reads.answer().text(), writes.answer().text()), ("a 0", "b 4"));
    let figures = front.figures();
    assert_eq!((figures.held, figures.held_total, figures.held_expired), (0, 2, 0));
    assert_eq!((app.seen.count("/a"), app.seen.count("/b")), (1, 1));
    assert!(figures.retried_connect >= 2);
}

#[test]
fn an_app_that_restarts_during_the_drain_is_waited_for_again_and_again() {
    const WAITING: u64 = 10;
    let mut app = App::start();
    let address = app.address;
    let mut front = Front::start(address, quick());
    assert_eq!(front.client().get("/before").status, 200);
    front.tell(Command::LameDuck);
    for restart in 0..5 {
        // Idle connections to the app, which end with it.
        let mut warm: Vec<Client> = (0..WAITING).map(|_| front.client()).collect();
        for client in &mut warm {
            client.send(get("/slow/20"));
        }
        for client in &mut warm {
            assert_eq!(client.answer().text(), "slow\n");
        }
        app.stop();
        let mut waiting: Vec<Client> = (0..WAITING).map(|_| front.client()).collect();
        let path = |n: usize| format!("/r{restart}-{n}");
        for (n, client) in waiting.iter_mut().enumerate() {
            client.send(if n % 2 == 0 { get(&path(n)) } else { post(&path(n), "body") });
        }
        until("all are held", || front.figures().held == WAITING);
        app = App::on(TcpListener::bind(address).unwrap());
        for (n, client) in waiting.iter_mut().enumerate() {
            let answer = client.answer();
            assert_eq!((answer.status, answer.closes()), (200, true), "{}", path(n));
            assert_eq!(app.seen.count(&path(n)), 1, "{}", path(n));
        }
    }
    until("the books are closed", || front.figures().answered == 1 + 5 * 2 * WAITING);
    let figures = front.figures();
    assert_eq!((figures.bad_gateway, figures.held_expired), (0, 0));
    assert_eq!((figures.held_total, figures.retried_reused), (5 * WAITING, 0));
}

#[test]
fn an_app_that_exits_first_and_comes_back_is_held_for_in_the_close_too() {
    let app = App::start();
    let address = app.address;
    let mut front = Front::start(address, quick());
    let mut client = front.client();
    assert_eq!(client.get("/before").status, 200);
    app.stop();
    client.send(post("/b", "body"));
    until("it is held", || front.figures().held == 1);
    front.tell(Command::LameDuck);
    front.tell(Command::Close);
    let app = App::on(TcpListener::bind(address).unwrap());
    let answer = client.answer();
    assert_eq!((answer.text(), answer.closes()), ("b 4", true));
    assert_eq!(app.seen.count("/b"), 1);
    drop(client);
    front.ends_within(SLACK);
}

#[test]
fn a_request_is_held_as_long_as_configured_and_then_told() {
    let hold = Duration::from_millis(1200);
    let app = App::start();
    // Shorter than the hold: a request that is held is not idle.
    let config =
        Config { hold, idle_timeout: Duration::from_millis(300), head_timeout: Duration::from_millis(300), ..quick() };
    let mut front = Front::start(app.address, config);
    let mut kept = front.client();
    assert_eq!(kept.get("/before").status, 200);
    let address = app.address;
    app.stop();
    let mut new = front.client();
    for client in [&mut kept, &mut new] {
        client.send(post("/b", "body"));
    }
    let began = Instant::now();
    until("both are held", || front.figures().held == 2);
    front.tell(Command::LameDuck);
    for client in [&mut kept, &mut new] {
        let answer = client.answer();
        assert_eq!((answer.status, answer.closes()), (503, true));
        assert_eq!(answer.text(), format!("the app does not listen at {address}\n"));
        assert!(answer.head.contains("\r\nRetry-After: "), "{}", answer.head);
        assert!(began.elapsed() + Duration::from_millis(10) >= hold && began.elapsed() < hold + SLACK);
        ends_clean(client);
    }
    until("the books are closed", || front.figures().bad_gateway == 2);
    assert_eq!((front.figures().held, front.figures().held_expired), (0, 2));
}

#[test]
fn an_app_that_is_gone_is_not_waited_for() {
    let app = App::start();
    let mut front = Front::start(app.address, Config { hold: Duration::from_mins(10), ..quick() });
    assert_eq!(front.client().get("/before").status, 200);
    app.stop();
    let mut held = front.client();
    held.send(post("/b", "body"));
    until("it is held", || front.figures().held == 1);
    front.tell(Command::LameDuck);
    let began = Instant::now();
    front.say(Command::AppGone);
    let mut late = front.client();
    late.send(get("/late"));
    for client in [&mut held, &mut late] {
        let answer = client.answer();
        assert_eq!((answer.status, answer.closes()), (503, true));
        assert!(answer.head.contains("\r\nRetry-After: "), "{}", answer.head);
    }
    assert!(began.elapsed() < SLACK, "it took {:?}", began.elapsed());
    drop((held, late));
    front.tell(Command::Close);
    front.ends_within(SLACK);
}

#[test]
fn shortened_time_ends_a_hold() {
    let address = nobody();
    let mut front = Front::start(address, Config { hold: Duration::from_mins(10), ..quick() });
    let mut held = front.client();
    held.send(post("/b", "body"));
    until("it is held", || front.figures().held == 1);
    front.tell(Command::LameDuck);
    front.say(Command::End);
    let answer = held.answer();
    assert_eq!((answer.status, answer.closes()), (503, true));
    drop(held);
    let page = front.page;
    front.ends_within(SLACK);
    assert_eq!((page.figures().shed, page.figures().held), (1, 0));
}

#[test]
fn holding_has_limits() {
    let check = |config: Config| {
        let address = nobody();
        let front = Front::start(address, config);
        let mut held: Vec<Client> = (0..2).map(|_| front.client()).collect();
        for client in &mut held {
            client.send(post("/b", &"b".repeat(1000)));
        }
        until("two are held", || front.figures().held == 2);
        let answer = front.client().post("/b", &"b".repeat(1000));
        assert_eq!(answer.status, 503);
        assert!(answer.head.contains("\r\nRetry-After: "), "{}", answer.head);
        until("it is in the books", || front.figures().shed == 1);
        assert_eq!(front.figures().held, 2);
        let _app = App::on(TcpListener::bind(address).unwrap());
        for client in &mut held {
            assert_eq!(client.answer().text(), "b 1000");
        }
        until("the books are closed", || front.figures().answered == 2 && front.figures().held == 0);
    };
    check(Config { hold_requests: 2, ..quick() });
    check(Config { hold_bytes: 2500, ..quick() });
}

#[test]
fn an_app_at_a_socket_in_the_file_system() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.sock");
    let mut front = Front::with(Config { upstream: Upstream::Unix(path.clone()), ..quick() });
    let mut client = front.client();
    client.send(post("/b", "body"));
    until("it is held", || front.figures().held == 1);
    let listener = UnixListener::bind(&path).unwrap();
    let app = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut seen = 0;
        let mut buffer = [0; 4096];
        while let n @ 1.. = stream.read(&mut buffer).unwrap() {
            assert!(buffer[..n].ends_with(b"\r\n\r\nbody"));
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
            seen += 1;
        }
        seen
    });
    assert_eq!(client.answer().text(), "ok");
    assert_eq!(client.post("/b", "body").text(), "ok");
    front.tell(Command::LameDuck);
    assert!(client.post("/b", "body").closes());
    drop(client);
    front.tell(Command::Close);
    front.ends_within(SLACK);
    assert_eq!(app.join().unwrap(), 3, "over one connection");
}

#[test]
fn an_app_that_does_not_take_a_body_is_not_waited_for_for_ever() {
    let (_app, front) = start_with(Config { body_timeout: Duration::from_millis(500), ..quick() });
    let mut client = front.client();
    client.send("POST /deaf HTTP/1.1\r\nHost: x\r\nContent-Length: 40000000\r\n\r\n");
    let mut writer = client.stream.try_clone().unwrap();
    let upload = thread::spawn(move || {
        let part = vec![b'x'; 100_000];
        while writer.write_all(&part).is_ok() {}
    });
    assert_eq!(client.answer().status, 504);
    drop(client);
    until("the books are closed", || front.figures().in_flight == 0);
    assert_eq!(front.figures().gateway_timeout, 1);
    drop(front);
    upload.join().unwrap();
}

/// An address whose backlog is full answers nothing.
#[test]
fn shortened_time_ends_a_connect() {
    let deaf = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None).unwrap();
    rustix::net::bind(&deaf, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    rustix::net::listen(&deaf, 0).unwrap();
    let deaf = TcpListener::from(deaf);
    let address = deaf.local_addr().unwrap();
    let mut within = Vec::new();
    while let Ok(stream) = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
        within.push(stream);
    }
    let mut front = Front::start(address, Config { hold: Duration::from_secs(20), ..quick() });
    let mut client = front.client();
    client.send(post("/a", "body"));
    until("it is in flight", || front.figures().in_flight == 1);
    thread::sleep(Duration::from_millis(100));
    let began = Instant::now();
    front.tell(Command::End);
    let answer = client.answer();
    assert!(began.elapsed() < SLACK, "it took {:?}", began.elapsed());
    assert_eq!((answer.status, answer.text()), (503, "this instance has to go away now\n"));
    drop(client);
    front.ends_within(SLACK);
}
