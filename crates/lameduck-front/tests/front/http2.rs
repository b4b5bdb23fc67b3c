//! HTTP/2 with prior knowledge.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, Request, Response};
use lameduck_core::front::Command;
use lameduck_front::Config;
use lameduck_front::config::{AccessLog, Forwarded, LongPoll, UpstreamProtocol};
use tokio::net::{TcpListener, TcpStream};

use super::rig::{App, Front, until};

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(async { tokio::time::timeout(Duration::from_secs(30), future).await.unwrap() })
}

type Ended = tokio::task::JoinHandle<Result<(), h2::Error>>;

async fn connect(address: SocketAddr) -> (SendRequest<Bytes>, Ended) {
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    (sender, tokio::spawn(connection))
}

fn get(path: &str) -> Request<()> {
    Request::get(format!("http://x{path}")).body(()).unwrap()
}

async fn read(response: Response<h2::RecvStream>) -> (u16, Vec<u8>, Option<HeaderMap>) {
    let status = response.status().as_u16();
    let mut body = response.into_body();
    let mut all = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        all.extend_from_slice(&data);
    }
    let trailers = body.trailers().await.unwrap();
    (status, all, trailers)
}

async fn fetch(sender: &SendRequest<Bytes>, path: &str) -> (u16, Vec<u8>) {
    let mut sender = sender.clone().ready().await.unwrap();
    let (response, _) = sender.send_request(get(path), true).unwrap();
    let (status, body, _) = read(response.await.unwrap()).await;
    (status, body)
}

async fn post(sender: &SendRequest<Bytes>, path: &str, body: Vec<u8>, trailers: Option<HeaderMap>) -> (u16, Vec<u8>) {
    let mut sender = sender.clone().ready().await.unwrap();
    let request = Request::post(format!("http://x{path}")).body(()).unwrap();
    let (response, mut stream) = sender.send_request(request, false).unwrap();
    let upload = async {
        let mut body = Bytes::from(body);
        while !body.is_empty() {
            stream.reserve_capacity(body.len());
            let n = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await.unwrap().unwrap();
            stream.send_data(body.split_to(n.min(body.len())), false).unwrap();
        }
        match trailers {
            Some(trailers) => stream.send_trailers(trailers).unwrap(),
            None => stream.send_data(Bytes::new(), true).unwrap(),
        }
    };
    let (response, ()) = tokio::join!(response, upload);
    let (status, body, _) = read(response.unwrap()).await;
    (status, body)
}

#[test]
fn many_streams_at_once() {
    let app = App::start();
    let front = Front::start(app.address, Config::default());
    block_on(async {
        let (sender, _) = connect(front.address).await;
        let all = (0..100).map(|n| {
            let sender = sender.clone();
            tokio::spawn(async move { fetch(&sender, &format!("/n{n}")).await })
        });
        for (n, one) in all.collect::<Vec<_>>().into_iter().enumerate() {
            assert_eq!(one.await.unwrap(), (200, format!("n{n} 0").into_bytes()));
        }
        assert_eq!(fetch(&sender, "/big/5000000").await.1.len(), 5_000_000);
        assert_eq!(fetch(&sender, "/stream/3").await, (200, b"part\npart\npart\n".to_vec()));
        assert_eq!(fetch(&sender, "/close").await, (200, b"until the end".to_vec()));
        assert_eq!(fetch(&sender, "/hints").await, (200, b"ok".to_vec()));
        assert_eq!(fetch(&sender, "/die").await.0, 502);
    });
    until("the books are closed", || front.figures().in_flight == 0 && front.figures().answered == 104);
    assert_eq!(front.figures().bad_gateway, 1);
}

#[test]
fn bodies_and_trailers_reach_the_app() {
    let app = App::start();
    let front = Front::start(app.address, Config::default());
    block_on(async {
        let (sender, _) = connect(front.address).await;
        assert_eq!(post(&sender, "/p", vec![b'x'; 1_000_000], None).await, (200, b"p 1000000".to_vec()));
        let mut trailers = HeaderMap::new();
        trailers.insert("trail", "er".parse().unwrap());
        assert_eq!(post(&sender, "/t", b"abc".to_vec(), Some(trailers)).await, (200, b"t 14".to_vec()));
    });
    assert_eq!(app.seen.bodies.lock().unwrap()[1], b"abctrail: er\r\n");
}

#[test]
fn an_answer_cut_by_the_app_is_a_reset_stream_not_a_short_answer() {
    let app = App::start();
    let front = Front::start(app.address, Config::default());
    block_on(async {
        let (sender, _) = connect(front.address).await;
        let mut sender = sender.ready().await.unwrap();
        let (response, _) = sender.send_request(get("/cut"), true).unwrap();
        // Where it breaks is a matter of time: before the head is out, or after a part of the body.
        if let Ok(response) = response.await {
            let mut body = response.into_body();
            let mut failed = false;
            while let Some(data) = body.data().await {
                failed |= data.is_err();
                if failed {
                    break;
                }
            }
            assert!(failed);
        }
    });
    until("it is counted", || front.figures().cut_by_app == 1);
}

/// Trap 9: GOAWAY in two steps; what is opened before the second one runs.
#[test]
fn streams_opened_while_the_drain_begins_are_served() {
    let app = App::start();
    let mut front = Front::start(app.address, Config::default());
    block_on(async {
        let (sender, ended) = connect(front.address).await;
        assert_eq!(fetch(&sender, "/a").await.0, 200);
        let slow = tokio::spawn({
            let sender = sender.clone();
            async move { fetch(&sender, "/slow/400").await }
        });
        tokio::time::sleep(Duration::from_millis(50)).await;
        front.tell(Command::LameDuck);
        // The client has not heard of it yet: this one is on its way.
        assert_eq!(fetch(&sender, "/b").await.0, 200);
        assert_eq!(slow.await.unwrap(), (200, b"slow\n".to_vec()));
        drop(sender);
        ended.await.unwrap().unwrap();
        // Whoever comes now is served all the same, and told after its first answer.
        let (sender, ended) = connect(front.address).await;
        assert_eq!(fetch(&sender, "/c").await.0, 200);
        drop(sender);
        ended.await.unwrap().unwrap();
    });
    assert_eq!(front.figures().shed_by_goaway, 2);
    front.tell(Command::Close);
    front.ends_within(Duration::from_secs(3));
}

#[test]
fn the_time_being_over_is_said() {
    let app = App::start();
    let mut front = Front::start(app.address, Config::default());
    block_on(async {
        let (sender, _) = connect(front.address).await;
        let slow = tokio::spawn({
            let sender = sender.clone();
            async move { fetch(&sender, "/slow/5000").await.0 }
        });
        while app.seen.requests() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        front.tell(Command::End);
        assert_eq!(slow.await.unwrap(), 503);
    });
    front.ends_within(Duration::from_secs(3));
}

#[test]
fn an_old_connection_is_asked_to_leave() {
    let app = App::start();
    let config = Config { max_connection_age: Duration::from_secs(1), ..Config::default() };
    let front = Front::start(app.address, config);
    block_on(async {
        let (sender, _) = connect(front.address).await;
        assert_eq!(fetch(&sender, "/a").await.0, 200);
        assert_eq!(front.figures().shed_by_goaway, 0);
        while front.figures().shed_by_goaway == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    until("it has left", || front.figures().connections == 0);
}

/// gRPC goes to an app that speaks HTTP/2, with its trailers.
#[test]
fn grpc_is_relayed_with_its_trailers() {
    block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(async move {
                    let mut connection = h2::server::handshake(stream).await.unwrap();
                    while let Some(Ok((request, mut respond))) = connection.accept().await {
                        tokio::spawn(async move {
                            assert_eq!(request.headers()["te"], "trailers");
                            assert_eq!(request.uri().authority().unwrap().as_str(), "x");
                            let mut body = request.into_body();
                            let mut length = 0;
                            while let Some(Ok(data)) = body.data().await {
                                body.flow_control().release_capacity(data.len()).unwrap();
                                length += data.len();
                            }
                            let response = Response::builder().header("content-type", "application/grpc");
                            let mut stream = respond.send_response(response.body(()).unwrap(), false).unwrap();
                            stream.send_data(Bytes::from(format!("{length}")), false).unwrap();
                            let mut trailers = HeaderMap::new();
                            trailers.insert("grpc-status", "0".parse().unwrap());
                            stream.send_trailers(trailers).unwrap();
                        });
                    }
                });
            }
        });
        let front = Front::start(address, Config::default());
        let (sender, _) = connect(front.address).await;
        for _ in 0..20 {
            let request = Request::post("http://x/pkg.Service/Method")
                .header("content-type", "application/grpc+proto")
                .header("te", "trailers")
                .body(())
                .unwrap();
            let mut sender = sender.clone().ready().await.unwrap();
            let (response, mut stream) = sender.send_request(request, false).unwrap();
            stream.send_data(Bytes::from(vec![0; 1000]), false).unwrap();
            stream.send_data(Bytes::from(vec![0; 500]), true).unwrap();
            let (status, body, trailers) = read(response.await.unwrap()).await;
            assert_eq!((status, body.as_slice()), (200, &b"1500"[..]));
            assert_eq!(trailers.unwrap()["grpc-status"], "0");
        }
        assert_eq!(front.figures().upstream_connects, 1);
        // The front ends with its command socket, on a thread of its own.
        tokio::task::spawn_blocking(move || drop(front)).await.unwrap();
    });
}

/// What HTTP/1.1 has no words for is refused, not written into a request line.
#[test]
fn targets_without_a_form_in_http_1_1_are_refused() {
    let app = App::start();
    let front = Front::start(app.address, Config::default());
    block_on(async {
        let (sender, _) = connect(front.address).await;
        assert_eq!(fetch(&sender, "/a?b").await.0, 200);
        let check = async |request: http::request::Builder, status: u16| {
            let mut sender = sender.clone().ready().await.unwrap();
            let (response, _) = sender.send_request(request.body(()).unwrap(), true).unwrap();
            assert_eq!(response.await.unwrap().status(), status);
        };
        check(Request::get("http://user@x/a"), 400).await;
        check(Request::get("http://x/a").header("content-length", "0").header("content-length", "0"), 400).await;
        check(Request::options("*"), 200).await;
    });
    assert_eq!(app.seen.count("*"), 1);
    assert_eq!(app.seen.requests(), 2);
}

/// The same fields as behind chunks.
#[test]
fn trailers_that_would_frame_do_not_reach_the_app() {
    let app = App::start();
    let front = Front::start(app.address, Config::default());
    block_on(async {
        let (sender, _) = connect(front.address).await;
        let mut trailers = HeaderMap::new();
        for (name, value) in [("content-length", "44"), ("host", "hidden"), ("x-forwarded-for", "hidden"), ("a", "b")] {
            trailers.insert(name, value.parse().unwrap());
        }
        assert_eq!(post(&sender, "/t", b"abc".to_vec(), Some(trailers)).await.0, 200);
    });
    assert_eq!(app.seen.bodies.lock().unwrap()[0], b"abca: b\r\n");
}

#[test]
fn a_held_stream_that_is_reset_is_held_no_longer() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let front = Front::start(nobody, Config { hold: Duration::from_secs(20), ..Config::default() });
    block_on(async {
        let (sender, _) = connect(front.address).await;
        let mut sender = sender.ready().await.unwrap();
        let mut grpc = get("/held");
        grpc.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
        let (first, mut stream) = sender.send_request(get("/held"), true).unwrap();
        let (second, mut other) = sender.send_request(grpc, true).unwrap();
        while front.figures().held < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        stream.send_reset(h2::Reason::CANCEL);
        other.send_reset(h2::Reason::CANCEL);
        assert!(first.await.is_err() && second.await.is_err());
        while front.figures().held + front.figures().in_flight > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    assert_eq!((front.figures().client_gone, front.figures().held_expired), (2, 0));
}

#[test]
fn an_app_that_does_not_answer_in_time_is_504_over_http2_too() {
    let app = App::start();
    let config = Config { upstream_timeout: Duration::from_millis(500), ..Config::default() };
    let front = Front::start(app.address, config);
    block_on(async {
        let (sender, _) = connect(front.address).await;
        assert_eq!(fetch(&sender, "/silent").await.0, 504);
    });
    until("the books are closed", || front.figures().in_flight == 0);
    assert_eq!(front.figures().gateway_timeout, 1);
}

#[test]
fn a_stream_whose_client_neither_sends_nor_reads_is_given_up() {
    let app = App::start();
    let front = Front::start(app.address, Config { body_timeout: Duration::from_millis(500), ..Config::default() });
    block_on(async {
        let (sender, _) = connect(front.address).await;
        let mut sender = sender.ready().await.unwrap();
        let (response, _stream) = sender.send_request(Request::post("http://x/p").body(()).unwrap(), false).unwrap();
        assert_eq!(response.await.unwrap().status(), 408);
        let (response, _) = sender.send_request(get("/big/5000000"), true).unwrap();
        let mut body = response.await.unwrap().into_body();
        loop {
            match body.data().await.unwrap() {
                // Nothing is given back: the window closes.
                Ok(_) => {}
                Err(error) => break assert_eq!(error.reason(), Some(h2::Reason::CANCEL)),
            }
        }
    });
    until("the books are closed", || front.figures().in_flight == 0);
    assert_eq!(front.figures().client_gone, 2);
}

/// In the front's own name, as in the app's: HEAD is answered with the fields that GET would be, and with nothing else.
#[test]
fn an_answer_to_head_has_no_body() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let front = Front::start(nobody, Config { hold: Duration::ZERO, ..Config::default() });
    block_on(async {
        let (sender, _) = connect(front.address).await;
        let lengths = async |request: http::request::Builder, content_type: &str| {
            let mut sender = sender.clone().ready().await.unwrap();
            let request = request.header("content-type", content_type).body(()).unwrap();
            let (response, _) = sender.send_request(request, true).unwrap();
            let response = response.await.unwrap();
            let stated = response.headers()["content-length"].to_str().unwrap().parse::<usize>().unwrap();
            let ended = response.body().is_end_stream();
            let (status, body, _) = read(response).await;
            (status, stated, body.len(), ended)
        };
        for content_type in ["text/plain", "application/grpc"] {
            let (status, length, came, _) = lengths(Request::get("http://x/a"), content_type).await;
            assert_eq!((status, length), (503, came));
            assert_eq!(lengths(Request::head("http://x/a"), content_type).await, (503, length, 0, true));
        }
        let (status, length, came, _) = lengths(Request::get("http://user@x/a"), "text/plain").await;
        assert_eq!((status, length), (400, came));
        assert_eq!(lengths(Request::head("http://user@x/a"), "text/plain").await, (400, length, 0, true));
    });
}

/// Each reason has its words, whatever the app speaks.
#[test]
fn what_is_wrong_with_the_app_is_said() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for protocol in [UpstreamProtocol::Http1, UpstreamProtocol::Http2] {
        let check = |config: Config, gone: bool, expect: &str| {
            let mut front = Front::start(nobody, Config { upstream_protocol: protocol, ..config });
            if gone {
                front.tell(Command::AppGone);
            }
            block_on(async {
                let (sender, _) = connect(front.address).await;
                if gone {
                    // The command is heard some time.
                    while fetch(&sender, "/a").await.1 != expect.as_bytes() {}
                }
                assert_eq!(fetch(&sender, "/a").await, (503, expect.as_bytes().to_vec()));
            });
        };
        let brief = Config { hold: Duration::ZERO, ..Config::default() };
        check(brief.clone(), false, &format!("the app does not listen at {nobody}\n"));
        check(Config { hold_requests: 0, ..Config::default() }, false, "too many requests wait for the app\n");
        check(brief, true, "the app has ended\n");
    }
}

/// With a short drain.
fn brief(config: Config) -> Config {
    let (stream_grace, shed_spread) = (Duration::from_millis(100), Duration::from_millis(100));
    Config { stream_grace, shed_spread, ..config }
}

#[test]
fn event_streams_end_at_the_end_of_an_event_over_http2_too() {
    let app = App::start();
    let mut front = Front::start(app.address, brief(Config::default()));
    block_on(async {
        let (sender, _) = connect(front.address).await;
        let streams: Vec<_> = ["/events", "/plain-events"]
            .map(|path| {
                let sender = sender.clone();
                tokio::spawn(async move { fetch(&sender, path).await })
            })
            .into();
        while app.seen.requests() < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        front.say(Command::LameDuck);
        for stream in streams {
            let (status, body) = stream.await.unwrap();
            let events = String::from_utf8(body).unwrap();
            assert_eq!((status, events.replace("data: ab\n\n", "").as_str()), (200, ""), "{events:?}");
            assert!(!events.is_empty());
        }
        // What was cut off is not taken for the next answer.
        let (sender, _) = connect(front.address).await;
        assert_eq!(fetch(&sender, "/a").await, (200, b"a 0".to_vec()));
    });
    until("the books are closed", || front.figures().in_flight == 0);
    let figures = front.figures();
    assert_eq!((figures.shed_stream, figures.answered, figures.forced), (2, 3, 0));
    assert_eq!(app.seen.connections.load(std::sync::atomic::Ordering::SeqCst), 3);
}

#[test]
fn long_polls_are_answered_over_http2_too() {
    let app = App::start();
    let long_polls = vec![LongPoll { prefix: "/silent".into(), status: 204 }];
    let mut front = Front::start(app.address, brief(Config { long_polls, ..Config::default() }));
    block_on(async {
        let (sender, _) = connect(front.address).await;
        let mut sender = sender.ready().await.unwrap();
        let (response, _) = sender.send_request(get("/silent"), true).unwrap();
        while app.seen.requests() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        front.say(Command::LameDuck);
        let response = response.await.unwrap();
        assert!(response.body().is_end_stream() && !response.headers().contains_key("content-length"));
        assert_eq!(response.status(), 204);
    });
    until("the books are closed", || front.figures().in_flight == 0);
    assert_eq!((front.figures().shed_long_poll, front.figures().answered), (1, 1));
}

/// An app that speaks HTTP/2 and answers each request by the path, with what it was told in the body.
async fn http2_app() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((request, respond))) = connection.accept().await {
                    tokio::spawn(answer_over_http2(request, respond));
                }
            });
        }
    });
    address
}

async fn answer_over_http2(request: Request<h2::RecvStream>, mut respond: h2::server::SendResponse<Bytes>) {
    match request.uri().path() {
        "/silent" => drop(std::future::poll_fn(|cx| respond.poll_reset(cx)).await),
        "/mute" => {
            let mut stream = respond.send_response(Response::new(()), false).unwrap();
            let _ = std::future::poll_fn(|cx| stream.poll_reset(cx)).await;
        }
        "/events" => {
            let response = Response::builder().header("content-type", "text/event-stream").body(()).unwrap();
            let mut stream = respond.send_response(response, false).unwrap();
            for part in ["data: a", "b\n\n"].iter().cycle() {
                if stream.send_data(Bytes::from_static(part.as_bytes()), false).is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        _ => {
            let field = |name: &str| request.headers().get(name).map_or("-", |value| value.to_str().unwrap());
            let said = format!("{} {}", field("x-forwarded-for"), field("x-request-id").len());
            let mut stream = respond.send_response(Response::new(()), false).unwrap();
            stream.send_data(Bytes::from(said), true).unwrap();
        }
    }
}

/// Runs with a front before an app that speaks HTTP/2. The front ends with its command socket, on a thread of its own.
fn before_http2(config: Config, run: impl AsyncFnOnce(&mut Front)) {
    block_on(async {
        let address = http2_app().await;
        let config = Config { upstream_protocol: UpstreamProtocol::Http2, ..config };
        let mut front = Front::start(address, config);
        run(&mut front).await;
        while front.figures().in_flight > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::task::spawn_blocking(move || drop(front)).await.unwrap();
    });
}

#[test]
fn an_app_that_speaks_http2_is_told_who_the_client_is() {
    let config = Config { forwarded: Forwarded::XForwarded, request_id: true, ..Config::default() };
    before_http2(config, async |front| {
        let (sender, _) = connect(front.address).await;
        let mut sender = sender.ready().await.unwrap();
        let request = Request::get("http://x/who").header("x-forwarded-for", "203.0.113.7").body(()).unwrap();
        let (response, _) = sender.send_request(request, true).unwrap();
        let (_, body, _) = read(response.await.unwrap()).await;
        assert_eq!(String::from_utf8(body).unwrap(), "203.0.113.7, 127.0.0.1 32");
    });
}

#[test]
fn event_streams_and_long_polls_of_an_app_that_speaks_http2_end_too() {
    let long_polls = vec![LongPoll { prefix: "/silent".into(), status: 204 }];
    before_http2(brief(Config { long_polls, ..Config::default() }), async |front| {
        let (sender, _) = connect(front.address).await;
        let all = ["/events", "/silent"].map(|path| {
            let sender = sender.clone();
            tokio::spawn(async move { fetch(&sender, path).await })
        });
        while front.figures().in_flight < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // Something of the events comes before the end of them is asked for.
        tokio::time::sleep(Duration::from_millis(200)).await;
        front.say(Command::LameDuck);
        let [events, poll] = all;
        let (status, body) = events.await.unwrap();
        let events = String::from_utf8(body).unwrap();
        assert_eq!((status, events.replace("data: ab\n\n", "").as_str()), (200, ""), "{events:?}");
        assert_eq!(poll.await.unwrap(), (204, Vec::new()));
        while front.figures().in_flight > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let figures = front.figures();
        assert_eq!((figures.shed_stream, figures.shed_long_poll, figures.answered), (1, 1, 2));
    });
}

/// What is sent is what the app has to say, not the clock of who looks whether it says something.
#[test]
fn a_silent_stream_sends_nothing() {
    before_http2(Config::default(), async |front| {
        let (sender, _) = connect(front.address).await;
        let mut sender = sender.ready().await.unwrap();
        let (response, mut stream) = sender.send_request(get("/mute"), true).unwrap();
        let _response = response.await.unwrap();
        let sent = front.figures().last_sent_ms;
        tokio::time::sleep(Duration::from_millis(2500)).await;
        assert_eq!(front.figures().last_sent_ms, sent);
        stream.send_reset(h2::Reason::CANCEL);
    });
}

/// `application/grpc-web` has its trailers in the body, for apps that speak HTTP/1.1.
#[test]
fn grpc_for_browsers_needs_no_http2() {
    let app = App::start();
    let front = Front::start(app.address, Config::default());
    block_on(async {
        let (sender, _) = connect(front.address).await;
        let mut sender = sender.ready().await.unwrap();
        let request =
            Request::post("http://x/a").header("content-type", "application/grpc-web+proto").body(()).unwrap();
        let (response, _) = sender.send_request(request, true).unwrap();
        assert_eq!(read(response.await.unwrap()).await.1, b"a 0");
    });
}

/// Who waits for leave to send its body gets it from the app.
#[test]
fn expect_100_continue_passes() {
    let app = App::start();
    let front = Front::start(app.address, Config::default());
    block_on(async {
        let (sender, _) = connect(front.address).await;
        let mut sender = sender.ready().await.unwrap();
        let request = Request::post("http://x/a").header("expect", "100-continue").body(()).unwrap();
        let (mut response, mut stream) = sender.send_request(request, false).unwrap();
        let leave = std::future::poll_fn(|cx| response.poll_informational(cx)).await.unwrap().unwrap();
        assert_eq!(leave.status(), 100);
        stream.send_data(Bytes::from_static(b"body"), true).unwrap();
        assert_eq!(read(response.await.unwrap()).await.1, b"a 4");
    });
}

/// The id that was made is in the log.
#[test]
fn the_access_log_has_the_id_that_the_app_was_given() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let app = App::start();
    let config = Config { access_log: Some(AccessLog::File(path.clone())), request_id: true, ..Config::default() };
    let front = Front::start(app.address, config);
    block_on(async {
        let (sender, _) = connect(front.address).await;
        assert_eq!(fetch(&sender, "/a").await.0, 200);
    });
    drop(front);
    let head = app.seen.heads.lock().unwrap()[0].to_ascii_lowercase();
    let id = head.split("x-request-id: ").nth(1).unwrap().lines().next().unwrap();
    assert_eq!(id.len(), 32);
    let log = std::fs::read_to_string(&path).unwrap();
    assert!(log.contains(&format!("\"id\":\"{id}\"")), "{log}");
}
