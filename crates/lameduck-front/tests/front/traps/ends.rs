//! Trap 10: WebSockets, event streams and long polls end in their own terms.

use std::time::{Duration, Instant};

use lameduck_core::front::Command;
use lameduck_front::Config;
use lameduck_front::config::LongPoll;

use super::super::rig::{Client, Front, frame, until};
use super::{SLACK, close, ends_clean, get, quick, start, start_with};

fn websocket(front: &Front, path: &str) -> Client {
    let mut client = front.client();
    client.send(format!(
        "GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ));
    assert!(client.head().unwrap().starts_with("HTTP/1.1 101 "));
    client
}

/// 1001, going away.
const GOING_AWAY: [u8; 4] = [0x88, 2, 0x03, 0xe9];

#[test]
fn websockets_are_closed_with_1001_and_are_in_flight_until_they_are() {
    let (app, mut front) = start_with(Config { websocket_grace: Duration::from_millis(300), ..quick() });
    let mut client = websocket(&front, "/ws");
    front.tell(Command::LameDuck);
    let began = Instant::now();
    client.send(frame(1, b"hello"));
    assert_eq!(client.read_exact(7), b"\x81\x05hello");
    assert_eq!(front.figures().in_flight, 1);
    assert_eq!(client.read_exact(4), GOING_AWAY);
    assert!(began.elapsed() >= Duration::from_millis(290) && began.elapsed() < SLACK);
    // Its handler in the app is done, and it is still in flight.
    until("the app was told 1001", || app.seen.closes() == [1001]);
    assert_eq!(front.figures().in_flight, 1);
    client.send(frame(8, &1001u16.to_be_bytes()));
    ends_clean(&mut client);
    until("it is over", || front.figures().in_flight == 0);
    let figures = front.figures();
    assert_eq!((figures.shed_websocket, figures.answered, figures.forced), (1, 1, 0));
    drop(client);
    front.tell(Command::Close);
    front.ends_within(SLACK);
}

#[test]
fn websockets_are_closed_at_the_boundary_of_a_frame_of_the_client() {
    let (app, mut front) = start();
    let mut client = websocket(&front, "/ws");
    let whole = frame(1, b"in two parts");
    client.send(&whole[..9]);
    front.tell(Command::LameDuck);
    // The app is told only after the frame; or else the rest of it would be taken for a frame of its own.
    std::thread::sleep(Duration::from_millis(400));
    assert!(app.seen.closes().is_empty());
    client.send(&whole[9..]);
    assert_eq!(client.read_exact(14), [&[0x81, 12], &b"in two parts"[..]].concat());
    assert_eq!(client.read_exact(4), GOING_AWAY);
    client.send(frame(8, &1001u16.to_be_bytes()));
    ends_clean(&mut client);
    assert_eq!(app.seen.closes(), [1001]);
}

#[test]
fn websockets_are_closed_at_the_boundary_of_a_frame_of_the_app() {
    let (_app, mut front) = start();
    // The app sends a frame in two parts, with a pause between them, for as long as it is not told to end.
    let mut client = websocket(&front, "/ws-parts");
    assert_eq!(client.read_exact(3), [0x82, 6, b'a']);
    close(&mut front);
    let mut rest = b"\x82\x06a".to_vec();
    while !rest.ends_with(&GOING_AWAY) {
        rest.extend(client.read_exact(1));
    }
    let mut frames = rest[..rest.len() - 4].chunks_exact(8);
    assert!(frames.all(|frame| frame == b"\x82\x06abcdef"), "{rest:?}");
    assert_eq!(frames.remainder(), b"");
    client.send(frame(8, &1001u16.to_be_bytes()));
    ends_clean(&mut client);
    drop(client);
    let page = front.page;
    front.ends_within(SLACK);
    assert_eq!((page.figures().shed_websocket, page.figures().forced), (1, 0));
}

#[test]
fn websockets_whose_client_never_confirms_do_not_hold_the_drain() {
    let (_app, mut front) = start();
    let mut client = websocket(&front, "/ws");
    close(&mut front);
    assert_eq!(client.read_exact(4), GOING_AWAY);
    ends_clean(&mut client);
    let page = front.page;
    // A second each to tell the app and the client.
    front.ends_within(Duration::from_secs(2) + quick().linger + SLACK);
    assert_eq!((page.figures().shed_websocket, page.figures().resets_sent), (1, 0));
}

#[test]
fn websockets_that_end_by_themselves_are_left_alone() {
    let (app, mut front) = start_with(Config { websocket_grace: Duration::from_secs(30), ..quick() });
    let mut client = websocket(&front, "/ws");
    front.tell(Command::LameDuck);
    client.send(frame(8, &1000u16.to_be_bytes()));
    assert_eq!(client.read_exact(4), [0x88, 2, 0x03, 0xe8]);
    ends_clean(&mut client);
    assert_eq!((app.seen.closes(), front.figures().shed_websocket), (vec![1000], 0));
}

#[test]
fn websockets_whose_app_is_gone_do_not_wait_for_their_client() {
    let (app, front) = start();
    let mut client = websocket(&front, "/ws");
    client.send(frame(1, b"hello"));
    assert_eq!(client.read_exact(7), b"\x81\x05hello");
    app.stop();
    assert!(client.is_over().unwrap());
    // It stays all the same.
    until("it is given up", || front.figures().in_flight == 0 && front.figures().connections == 0);
    assert_eq!(front.figures().answered, 1);
}

#[test]
fn event_streams_end_at_the_end_of_an_event() {
    let (_app, mut front) = start();
    for round in 0..4 {
        let mut client = front.client();
        client.send(get("/events"));
        client.head().unwrap();
        client.read_exact(1);
        if round == 0 {
            front.tell(Command::LameDuck);
        }
        let mut body = vec![0];
        body.extend(client.end().unwrap());
        // A whole body of whole events: the first character of its first chunk's size was read above.
        let text = String::from_utf8(body.split_off(1)).unwrap();
        let text = text.strip_suffix("0\r\n\r\n").expect("the end of the chunks");
        let events: String = text.split("\r\n").skip(1).step_by(2).collect();
        assert!(events.ends_with("data: ab\n\n"), "{events:?}");
        assert_eq!(events.replace("data: ab\n\n", ""), "", "{events:?}");
    }
    until("the books are closed", || front.figures().in_flight == 0);
    let figures = front.figures();
    assert_eq!((figures.shed_stream, figures.answered, figures.forced), (4, 4, 0));
}

#[test]
fn event_streams_are_in_flight_until_they_end() {
    let (_app, mut front) = start_with(Config { stream_grace: Duration::from_millis(500), ..quick() });
    let mut client = front.client();
    client.send(get("/events"));
    client.head().unwrap();
    let began = Instant::now();
    front.tell(Command::LameDuck);
    assert_eq!(front.figures().in_flight, 1);
    client.end().unwrap();
    assert!(began.elapsed() >= Duration::from_millis(490), "it has its grace");
    until("it is over", || front.figures().in_flight == 0);
}

/// What nginx speaks with its upstream unless told otherwise: the end of the connection is the end of the stream.
#[test]
fn event_streams_of_http_1_0_end_at_the_end_of_an_event() {
    let (_app, mut front) = start();
    for (round, path) in ["/events", "/plain-events"].into_iter().enumerate() {
        let mut client = front.client();
        client.send(format!("GET {path} HTTP/1.0\r\n\r\n"));
        client.head().unwrap();
        client.read_exact(1);
        if round == 0 {
            front.tell(Command::LameDuck);
        }
        let rest = String::from_utf8(client.end().unwrap()).unwrap();
        let events = format!("d{rest}");
        assert!(events.ends_with("data: ab\n\n"), "{events:?}");
        assert_eq!(events.replace("data: ab\n\n", ""), "", "{events:?}");
    }
    until("the books are closed", || front.figures().in_flight == 0);
    let figures = front.figures();
    assert_eq!((figures.shed_stream, figures.answered, figures.resets_sent), (2, 2, 0));
}

/// Where an event ends in what is packed can not be seen: it is not cut and called whole.
#[test]
fn event_streams_that_are_packed_go_on_until_the_time_is_over() {
    let (_app, mut front) = start();
    let mut client = front.client();
    client.send(get("/packed-events"));
    client.head().unwrap();
    front.tell(Command::LameDuck);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!((front.figures().shed_stream, front.figures().in_flight), (0, 1));
    front.tell(Command::End);
    until("it is cut", || front.figures().in_flight == 0);
    let figures = front.figures();
    assert_eq!((figures.shed_stream, figures.cut_at_deadline, figures.forced), (0, 1, 1));
}

fn polling() -> Config {
    Config { long_polls: vec![LongPoll { prefix: "/silent".into(), status: 204 }], ..quick() }
}

#[test]
fn long_polls_are_answered_with_the_configured_status() {
    let (app, mut front) = start_with(polling());
    let mut client = front.client();
    client.send(get("/silent/4"));
    until("it is in flight", || app.seen.requests() == 1);
    front.tell(Command::LameDuck);
    let answer = client.answer();
    assert_eq!((answer.status, answer.closes()), (204, true));
    ends_clean(&mut client);
    until("the books are closed", || front.figures().answered == 1);
    assert_eq!((front.figures().shed_long_poll, front.figures().app_errors), (1, 0));
}

/// The status is ours, whatever it is: the app has no part in it.
#[test]
fn long_polls_that_end_with_5xx_are_no_errors_of_the_app() {
    let (app, mut front) =
        start_with(Config { long_polls: vec![LongPoll { prefix: "/silent".into(), status: 503 }], ..quick() });
    let mut client = front.client();
    client.send(get("/silent/4"));
    until("it is in flight", || app.seen.requests() == 1);
    front.tell(Command::LameDuck);
    assert_eq!(client.answer().status, 503);
    until("the books are closed", || front.figures().answered == 1);
    assert_eq!((front.figures().shed_long_poll, front.figures().app_errors), (1, 0));
}

#[test]
fn long_polls_without_a_policy_are_waited_for() {
    let (_app, mut front) = start();
    let mut client = front.client();
    client.send(get("/slow/1500"));
    until("it is in flight", || front.figures().in_flight == 1);
    close(&mut front);
    let answer = client.answer();
    assert_eq!((answer.text(), answer.closes()), ("slow\n", true));
    drop(client);
    let page = front.page;
    front.ends_within(SLACK);
    assert_eq!((page.figures().shed_long_poll, page.figures().answered), (0, 1));
}
