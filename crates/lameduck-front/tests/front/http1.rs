//! HTTP/1.1, while all is well.

use lameduck_core::front::Command;
use lameduck_front::Config;

use super::rig::{App, Front, frame, until};

fn start() -> (App, Front) {
    let app = App::start();
    let front = Front::start(app.address, Config::default());
    (app, front)
}

#[test]
fn requests_on_one_connection_use_one_connection_to_the_app() {
    let (app, front) = start();
    let mut client = front.client();
    for n in 0..20 {
        let answer = client.get(&format!("/a{n}"));
        assert_eq!((answer.status, answer.text()), (200, format!("a{n} 0").as_str()));
        assert!(answer.head.contains("\r\nX-App: yes\r\n") && !answer.closes(), "{}", answer.head);
    }
    assert_eq!(app.seen.connections.load(std::sync::atomic::Ordering::SeqCst), 1);
    until("the books are closed", || front.figures().answered == 20 && front.figures().in_flight == 0);
}

#[test]
fn bodies_go_both_ways() {
    let (app, front) = start();
    let mut client = front.client();
    let body = "b".repeat(300_000);
    assert_eq!(client.post("/p", &body).text(), "p 300000");
    client.send("POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3;ext=1\r\nabc\r\n");
    client.send("2\r\nde\r\n0\r\nTrail: er\r\n\r\n");
    assert_eq!(client.answer().text(), "c 16");
    assert_eq!(app.seen.bodies.lock().unwrap()[1], b"abcdeTrail: er\r\n");
    assert_eq!(client.get("/stream/3").text(), "part\npart\npart\n");
    assert_eq!(client.get("/big/3000000").body.len(), 3_000_000);
    let answer = client.get("/close");
    assert_eq!(answer.text(), "until the end");
    assert!(answer.head.contains("chunked"), "an app that closes does not close the client: {}", answer.head);
    assert_eq!(client.get("/again").status, 200);
}

#[test]
fn heads_without_bodies() {
    let (_app, front) = start();
    let mut client = front.client();
    client.send("HEAD /h HTTP/1.1\r\nHost: x\r\n\r\n");
    let answer = client.try_answer(true).unwrap();
    assert!(answer.head.contains("Content-Length: 3"), "{}", answer.head);
    assert_eq!(client.get("/raw/HTTP/1.1_204_No~~").status, 204);
    assert_eq!(client.get("/raw/HTTP/1.1_304_Same~Content-Length:_7~~").status, 304);
    assert_eq!(client.get("/a").status, 200);
}

#[test]
fn a_body_in_answer_to_head_is_not_the_next_answer() {
    let (_app, front) = start();
    for _ in 0..10 {
        let mut client = front.client();
        client.send("HEAD /sloppy HTTP/1.1\r\nHost: x\r\n\r\nGET /a HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(client.try_answer(true).unwrap().head.contains("Content-Length: 6"));
        assert_eq!(client.answer().text(), "a 0");
    }
    assert_eq!(front.figures().bad_gateway, 0);
}

#[test]
fn interim_answers_come_through() {
    let (_app, front) = start();
    let mut client = front.client();
    client.send("GET /hints HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(client.head().unwrap().starts_with("HTTP/1.1 103 "));
    assert_eq!(client.answer().text(), "ok");
    client.send("POST /e HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n");
    assert!(client.head().unwrap().starts_with("HTTP/1.1 100 "));
    client.send("abc");
    assert_eq!(client.answer().text(), "e 3");
}

#[test]
fn an_early_answer_arrives_whole_while_the_client_still_sends() {
    let (_app, front) = start();
    let mut client = front.client();
    client.send("POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 50000000\r\n\r\n");
    let answer = client.answer();
    assert_eq!((answer.status, answer.text()), (413, "early"));
    assert!(answer.closes());
    // What is still sent is read, not answered by a reset.
    let body = vec![b'x'; 5_000_000];
    client.send(&body);
    client.half_close();
    assert_eq!(client.end().unwrap(), b"");
    assert_eq!(front.figures().resets_sent, 0);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let (_app, front) = start();
    let mut client = front.client();
    let all: String = (0..50).fold(String::new(), |all, n| all + &format!("GET /n{n} HTTP/1.1\r\nHost: x\r\n\r\n"));
    client.send(&all);
    for n in 0..50 {
        assert_eq!(client.answer().text(), format!("n{n} 0"));
    }
}

#[test]
fn http_1_0() {
    let (_app, front) = start();
    let mut client = front.client();
    client.send("GET /stream/2 HTTP/1.0\r\n\r\n");
    let answer = client.answer();
    assert_eq!((answer.text(), answer.closes()), ("part\npart\n", true));
    assert_eq!(client.end().unwrap(), b"");
    let mut client = front.client();
    client.send("GET /k HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert!(client.answer().head.contains("\r\nConnection: keep-alive\r\n"));
    client.send("GET /k HTTP/1.0\r\n\r\n");
    assert!(client.answer().closes());
}

#[test]
fn a_client_that_has_closed_its_side_gets_its_answer() {
    let (_app, front) = start();
    let mut client = front.client();
    client.send("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n");
    client.half_close();
    assert_eq!(client.answer().text(), "slow\n");
    assert_eq!(client.end().unwrap(), b"");
}

#[test]
fn refusals_are_said_and_the_connection_ends() {
    let (app, front) = start();
    let check = |sent: &str, status: u16| {
        let mut client = front.client();
        client.send(sent);
        let answer = client.answer();
        assert_eq!(answer.status, status, "{sent:?}");
        assert!(answer.closes());
        client.half_close();
        assert_eq!(client.end().unwrap(), b"");
    };
    check("GET / HTTP/1.1\r\n\r\n", 400);
    check("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", 405);
    check("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400);
    check("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n", 400);
    assert_eq!(app.seen.requests(), 0);
    assert_eq!(front.figures().refused, 4);
}

#[test]
fn what_the_app_does_wrong_is_told_from_what_it_answers() {
    let (_app, front) = start();
    let mut client = front.client();
    assert_eq!(client.get("/die").status, 502);
    assert_eq!(client.get("/raw/nonsense~~").status, 502);
    let mut cut = front.client();
    cut.send("GET /cut HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(cut.try_answer(false).is_err());
    assert_eq!(client.get("/raw/HTTP/1.1_500_No~Content-Length:_0~~").status, 500);
    let counted = || {
        let figures = front.figures();
        (figures.bad_gateway, figures.cut_by_app, figures.app_errors)
    };
    until("the books are closed", || counted() == (2, 1, 1));
}

#[test]
fn websockets_pass() {
    let (_app, front) = start();
    let mut client = front.client();
    client.send(
        "GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\r\n",
    );
    assert!(client.head().unwrap().starts_with("HTTP/1.1 101 "));
    client.send(frame(1, b"hello"));
    assert_eq!(client.read_exact(7), b"\x81\x05hello");
    assert_eq!(front.figures().in_flight, 1);
    client.send(frame(8, &1000u16.to_be_bytes()));
    assert_eq!(client.read_exact(4), b"\x88\x02\x03\xe8");
    client.half_close();
    assert_eq!(client.end().unwrap(), b"");
    until("it is over", || front.figures().in_flight == 0);
}

#[test]
fn slow_readers_are_waited_for_without_much_memory() {
    let (_app, front) = start();
    let mut client = front.client();
    client.send("GET /big/50000000 HTTP/1.1\r\nHost: x\r\n\r\n");
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(client.answer().body.len(), 50_000_000);
}

#[test]
fn an_idle_front_closes_at_once() {
    let (_app, mut front) = start();
    assert_eq!(front.client().get("/a").status, 200);
    front.tell(Command::LameDuck);
    front.tell(Command::Close);
    front.ends_within(std::time::Duration::from_secs(3));
}
