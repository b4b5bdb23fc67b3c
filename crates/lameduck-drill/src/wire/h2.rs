//! HTTP/2 without TLS, by prior knowledge: connections that many exchanges share, and one exchange on one of them.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use lameduck_core::judge::Ending;
use tokio::net::TcpStream;

use super::exchange::{ClosedBy, Exchanged};
use super::response::Head;
use super::tap::{Heard, Tap};
use crate::clock::Clock;

/// The most streams opened at once on one connection: what RFC 9113, section 6.5.2, asks servers to allow at least, and the
/// default of Envoy.
pub(crate) const MOST_STREAMS: usize = 100;
/// What the server may send before it must wait for us, to a connection and to a stream.
const WINDOW: u32 = 1 << 20;

/// A connection that many exchanges share.
#[derive(Debug)]
pub(crate) struct Link {
    /// None where even the hello could not be sent.
    sender: Option<SendRequest<Bytes>>,
    heard: Rc<Heard>,
    /// The library refused a stream.
    spoilt: Cell<bool>,
    streams: Cell<usize>,
    /// Exchanges answered on it.
    pub(crate) answered: Cell<u32>,
    /// When the last exchange on it ended.
    pub(crate) idle_since: Cell<Duration>,
}

impl Link {
    /// Says hello. What is heard is delayed by `delay`. Must be called within a `LocalSet`.
    pub(crate) async fn open(stream: TcpStream, clock: Clock, delay: Duration) -> Link {
        let (tap, heard) = Tap::new(stream, clock, delay);
        let mut builder = h2::client::Builder::new();
        builder.enable_push(false).initial_window_size(WINDOW).initial_connection_window_size(WINDOW);
        let sender = match builder.handshake(tap).await {
            Ok((sender, connection)) => {
                // How it ended is heard by the tap.
                tokio::task::spawn_local(async move { drop(connection.await) });
                Some(sender)
            }
            Err(_) => None,
        };
        Link {
            sender,
            heard,
            spoilt: Cell::new(false),
            streams: Cell::new(0),
            answered: Cell::new(0),
            idle_since: Cell::new(clock.now()),
        }
    }

    /// Whether it takes no new stream any more: the server said so, or it has ended.
    pub(crate) fn is_leaving(&self) -> bool {
        self.sender.is_none() || self.spoilt.get() || self.heard.is_leaving()
    }

    /// Exchanges under way.
    pub(crate) fn streams(&self) -> usize {
        self.streams.get()
    }

    /// Whether another stream may be opened now.
    pub(crate) fn has_room(&self) -> bool {
        let most = self.sender.as_ref().map_or(0, SendRequest::current_max_send_streams);
        !self.is_leaving() && self.streams() < most.min(MOST_STREAMS)
    }

    /// Opens a stream, unless the connection takes none any more; then nothing has been sent.
    pub(crate) async fn begin(&self, request: http::Request<()>, body: bool) -> Option<Begun> {
        let begun = self.open_stream(request, body).await;
        self.spoilt.set(self.spoilt.get() || begun.is_none());
        begun
    }

    async fn open_stream(&self, request: http::Request<()>, body: bool) -> Option<Begun> {
        let mut sender = self.sender.clone()?.ready().await.ok()?;
        let (response, send) = sender.send_request(request, !body).ok()?;
        Some(Begun { response, send })
    }

    /// How a connection ended that took no stream at all.
    pub(crate) fn ended(&self) -> Ending {
        match self.heard.ended() {
            Some(ending) => ending,
            None if self.heard.is_leaving() => Ending::NotProcessed,
            None => Ending::Malformed,
        }
    }
}

/// A stream that has been opened.
pub(crate) struct Begun {
    response: ResponseFuture,
    send: SendStream<Bytes>,
}

/// What has come of an answer.
#[derive(Debug, Default)]
struct Answer {
    head: Option<Head>,
    bytes_in: u64,
}

/// The length of a frame's head: the least that a HEADERS frame takes.
const FRAME_HEAD: u64 = 9;

/// Sends the body and reads the answer. Bytes are those of content, and [`FRAME_HEAD`] for the head.
pub(crate) async fn exchange(
    link: &Link,
    begun: Begun,
    body: Bytes,
    id: &str,
    timeout: Duration,
    clock: Clock,
) -> Exchanged {
    link.streams.set(link.streams.get() + 1);
    let Begun { response, mut send } = begun;
    let stream = response.stream_id().as_u32();
    let mut answer = Answer::default();
    let (mut sent, length) = (0, body.len() as u64);
    let result = {
        // An answer may come before all of the body has gone out, and is an answer all the same.
        let upload = async {
            upload(&mut send, body, &mut sent).await;
            std::future::pending::<std::convert::Infallible>().await
        };
        let download = tokio::time::timeout(timeout, download(response, id, &mut answer));
        tokio::select! {
            biased;
            result = download => result,
            never = upload => match never {},
        }
    };
    let at = clock.now();
    let head = answer.head;
    let (ending, closed_by) = match (result, head) {
        (Ok(Ok(())), Some(head)) => (Ending::Complete { status: head.status }, None),
        (Ok(Ok(())), None) => (Ending::Malformed, Some(ClosedBy::Client)),
        (Ok(Err(error)), _) => ending_of(&error, stream, &link.heard),
        (Err(_), _) => {
            send.send_reset(Reason::CANCEL);
            (Ending::TimedOut, Some(ClosedBy::Client))
        }
    };
    let answered = matches!(ending, Ending::Complete { .. });
    link.answered.set(link.answered.get() + u32::from(answered));
    link.idle_since.set(at);
    link.streams.set(link.streams.get() - 1);
    Exchanged {
        ending,
        // GOAWAY is HTTP/2's `Connection: close`.
        head: head.map(|head| Head { said_close: link.is_leaving(), keep: !link.is_leaving(), ..head }),
        bytes_out: FRAME_HEAD + sent.min(length),
        bytes_in: answer.bytes_in,
        reusable: answered && !link.is_leaving(),
        closed_by,
        at,
    }
}

/// Sends the body as the server's windows allow. Where the stream ends first, the answer's side will say how.
async fn upload(stream: &mut SendStream<Bytes>, mut body: Bytes, sent: &mut u64) {
    while !body.is_empty() {
        stream.reserve_capacity(body.len());
        let Some(Ok(capacity)) = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await else { return };
        let piece = body.split_to(capacity.min(body.len()));
        *sent += piece.len() as u64;
        if stream.send_data(piece, body.is_empty()).is_err() {
            return;
        }
    }
}

async fn download(response: ResponseFuture, id: &str, answer: &mut Answer) -> Result<(), h2::Error> {
    let response = response.await?;
    let echoed = response.headers().get("x-request-id").is_some_and(|value| value.as_bytes() == id.as_bytes());
    let status = response.status().as_u16();
    answer.head = Some(Head { status, keep: true, said_close: false, echoed });
    answer.bytes_in = FRAME_HEAD;
    let mut body: RecvStream = response.into_body();
    while let Some(piece) = body.data().await {
        let length = piece?.len();
        answer.bytes_in += length as u64;
        // Fails only where the stream has ended, which the next read says.
        let _ = body.flow_control().release_capacity(length);
    }
    body.trailers().await.map(drop)
}

/// How a stream that failed ended, by what the server said and how the connection ended.
fn ending_of(error: &h2::Error, stream: u32, heard: &Heard) -> (Ending, Option<ClosedBy>) {
    let refused = error.is_reset() && error.is_remote() && error.reason() == Some(Reason::REFUSED_STREAM);
    if refused || heard.refuses(stream) {
        return (Ending::NotProcessed, Some(ClosedBy::Server));
    }
    if error.is_reset() && error.is_remote() {
        return (Ending::Aborted, Some(ClosedBy::Server));
    }
    match heard.ended() {
        Some(ending) if !error.is_library() => (ending, Some(ClosedBy::Server)),
        // What the library could not read: not HTTP/2, or against its rules.
        Some(_) | None => (Ending::Malformed, Some(ClosedBy::Client)),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    const ACKNOWLEDGED: &[u8] = &[0, 0, 0, 4, 1, 0, 0, 0, 0];
    /// `:status: 200`, the answer's only field, on stream 1.
    const OK: &[u8] = &[0, 0, 1, 1, 4, 0, 0, 0, 1, 0x88];
    const HALF: &[u8] = &[0, 0, 4, 0, 0, 0, 0, 0, 1, b'h', b'a', b'l', b'f'];
    const REST: &[u8] = &[0, 0, 1, 0, 1, 0, 0, 0, 1, b'.'];

    fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
        bytes.windows(wanted.len()).any(|window| window == wanted)
    }

    fn goaway(last: u32) -> Vec<u8> {
        [&[0, 0, 8, 7, 0, 0, 0, 0, 0][..], &last.to_be_bytes(), &[0; 4]].concat()
    }

    fn reset(reason: Reason) -> Vec<u8> {
        [&[0, 0, 4, 3, 0, 0, 0, 0, 1][..], &u32::from(reason).to_be_bytes()].concat()
    }

    /// What one exchange sees of a server that says hello, reads the request, and then does `serve`; and whether the
    /// connection has room for another.
    async fn sees(serve: impl AsyncFnOnce(&mut TcpStream)) -> (Exchanged, bool) {
        let tasks = tokio::task::LocalSet::new();
        tasks
            .run_until(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let address = listener.local_addr().unwrap();
                let (client, server) = tokio::join!(TcpStream::connect(address), listener.accept());
                let (client, mut peer) = (client.unwrap(), server.unwrap().0);
                let clock = Clock::start();
                let link = Link::open(client, clock, MS).await;
                let client = async {
                    let request =
                        http::Request::builder().method("POST").uri(format!("http://{address}/")).body(()).unwrap();
                    let begun = link.begin(request, true).await.unwrap();
                    let got = exchange(&link, begun, Bytes::from_static(b"body"), "x", MS * 300, clock).await;
                    (got, link.has_room())
                };
                let server = async move {
                    peer.write_all(SETTINGS).await.unwrap();
                    // The request, and the answer to our SETTINGS: what is left unread would make an RST of a close.
                    let mut read = Vec::new();
                    while !(contains(&read, b"body") && contains(&read, ACKNOWLEDGED)) {
                        assert!(peer.read_buf(&mut read).await.unwrap() > 0);
                    }
                    serve(&mut peer).await;
                };
                tokio::join!(client, server).0
            })
            .await
    }

    async fn ends(serve: impl AsyncFnOnce(&mut TcpStream), ending: Ending, answer_began: bool, by: Option<ClosedBy>) {
        let (got, _) = sees(serve).await;
        assert_eq!((got.ending, got.bytes_in > 0, got.closed_by), (ending, answer_began, by));
    }

    #[tokio::test]
    async fn a_whole_answer() {
        let (got, room) = sees(async |peer| peer.write_all(&[OK, HALF, REST].concat()).await.unwrap()).await;
        assert_eq!((got.ending, got.bytes_in, got.bytes_out), (Ending::Complete { status: 200 }, 14, 13));
        assert!(got.reusable && room);
    }

    #[tokio::test]
    async fn an_answer_after_goaway_is_an_answer_but_nothing_more_is_sent() {
        for last in [1, 0x7fff_ffff] {
            let (got, room) = sees(async |peer| {
                peer.write_all(&[&goaway(last), OK, HALF].concat()).await.unwrap();
                tokio::time::sleep(MS * 20).await;
                peer.write_all(REST).await.unwrap();
            })
            .await;
            assert_eq!(got.ending, Ending::Complete { status: 200 });
            assert!(!got.reusable && !room && got.head.is_some_and(|head| head.said_close));
        }
    }

    #[tokio::test]
    async fn what_the_server_says_it_did_not_process() {
        let by = Some(ClosedBy::Server);
        ends(async |peer| peer.write_all(&goaway(0)).await.unwrap(), Ending::NotProcessed, false, by).await;
        let refused = reset(Reason::REFUSED_STREAM);
        ends(async |peer| peer.write_all(&refused).await.unwrap(), Ending::NotProcessed, false, by).await;
    }

    #[tokio::test]
    async fn a_stream_that_is_reset_is_given_up() {
        let wire = [OK, HALF, &reset(Reason::INTERNAL_ERROR)].concat();
        ends(async |peer| peer.write_all(&wire).await.unwrap(), Ending::Aborted, true, Some(ClosedBy::Server)).await;
    }

    #[tokio::test]
    async fn a_connection_that_ends_in_the_middle() {
        let by = Some(ClosedBy::Server);
        ends(async |peer| peer.shutdown().await.unwrap(), Ending::Fin, false, by).await;
        let wire = [&goaway(1), OK, HALF].concat();
        ends(
            async |peer| {
                peer.write_all(&wire).await.unwrap();
                peer.shutdown().await.unwrap();
            },
            Ending::Fin,
            true,
            by,
        )
        .await;
        ends(async |peer| peer.set_zero_linger().unwrap(), Ending::Rst, false, by).await;
    }

    #[tokio::test]
    async fn silence_and_nonsense() {
        let by = Some(ClosedBy::Client);
        ends(async |_| tokio::time::sleep(MS * 400).await, Ending::TimedOut, false, by).await;
        let http1 = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
        ends(async |peer| peer.write_all(http1).await.unwrap(), Ending::Malformed, false, by).await;
    }
}
