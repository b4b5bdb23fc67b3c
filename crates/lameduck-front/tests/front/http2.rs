//! HTTP/2 with prior knowledge.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, Request, Response};
use lameduck_core::front::Command;
use lameduck_front::Config;
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
