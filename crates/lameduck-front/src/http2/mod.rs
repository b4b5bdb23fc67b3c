//! HTTP/2 with prior knowledge (RFC 9113), by the `h2` crate. The connection is here; what all its streams have in common is
//! [`stream`]. [`translate`] serves those to an app that speaks HTTP/1.1, [`relay`] those to one that speaks HTTP/2 itself.

mod answer;
mod head;
mod relay;
mod stream;
mod translate;

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::{Connection, SendResponse};
use http::Request;
use lameduck_core::front::{FrontPhase, Slot};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::spawn_local;

use crate::clock;
use crate::connection::Client;
use crate::state::{Conn, Doing, Front, Order};
use crate::wire::Stream;

/// Streams at a time on one connection (RFC 9113 section 6.5.2 recommends no less than 100).
const MOST_STREAMS: u32 = 256;
/// What a client may send ahead on one stream, and on the whole connection, in bytes.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;
/// Streams that were reset before they were served: more is an attack (CVE-2023-44487, rapid reset).
const MOST_RESET: usize = 64;
/// How long streams have to say that the time is over.
const LAST_WORDS: Duration = Duration::from_millis(250);

/// How long a client that was told to leave may still open streams, so that none that crosses our word is turned away: while
/// there is time, and when there is none left to wait for.
const NOTICE: Duration = Duration::from_secs(5);
const SHORT_NOTICE: Duration = Duration::from_millis(500);

/// GOAWAY with the highest stream id and no error: no more streams, please, but those that come are served (RFC 9113 section
/// 6.8).
const PLEASE_LEAVE: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0];

/// A connection, with what was read of it already, and with a word of our own between two frames.
struct Io {
    stream: Stream,
    first: Vec<u8>,
    written: Frames,
    notice: Option<Rc<Cell<bool>>>,
    /// What of [`PLEASE_LEAVE`] is not written yet.
    left: usize,
}

impl Io {
    /// A connection on which nothing is said but what the protocol says.
    fn plain(stream: Stream) -> Io {
        Io { stream, first: Vec::new(), written: Frames::default(), notice: None, left: 0 }
    }

    /// Writes our word where it is wanted and a frame has ended. Ready: there is nothing of it to write.
    fn poll_notice(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.written.at_boundary() && self.notice.as_ref().is_some_and(|notice| notice.replace(false)) {
            self.left = PLEASE_LEAVE.len();
        }
        while self.left > 0 {
            let at = PLEASE_LEAVE.len() - self.left;
            self.left -= std::task::ready!(self.stream.poll_write(cx, &PLEASE_LEAVE[at..]))?;
        }
        Poll::Ready(Ok(()))
    }
}

/// Where frames begin and end (RFC 9113 section 4.1).
#[derive(Debug, Default)]
struct Frames {
    head: [u8; 3],
    /// Bytes of the nine of a frame's head that have gone by.
    head_gone: usize,
    payload_left: usize,
    /// The preface of a client is no frame; a server has none.
    begun: bool,
}

impl Frames {
    const HEAD: usize = 9;

    /// Whether a frame has ended and none has begun.
    const fn at_boundary(&self) -> bool {
        self.begun && self.head_gone == 0 && self.payload_left == 0
    }

    fn advance(&mut self, mut bytes: &[u8]) {
        self.begun |= !bytes.is_empty();
        while let Some(byte) = bytes.first() {
            if self.payload_left > 0 {
                let n = self.payload_left.min(bytes.len());
                self.payload_left -= n;
                bytes = &bytes[n..];
                continue;
            }
            if let Some(length) = self.head.get_mut(self.head_gone) {
                *length = *byte;
            }
            self.head_gone += 1;
            bytes = &bytes[1..];
            if self.head_gone == Frames::HEAD {
                let [a, b, c] = self.head.map(usize::from);
                (self.head_gone, self.payload_left) = (0, a << 16 | b << 8 | c);
            }
        }
    }
}

impl AsyncRead for Io {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.first.is_empty() {
            let n = self.first.len().min(buffer.remaining());
            buffer.put_slice(&self.first[..n]);
            self.first.drain(..n);
            return Poll::Ready(Ok(()));
        }
        self.stream.poll_read(cx, buffer)
    }
}

impl AsyncWrite for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        std::task::ready!(self.poll_notice(cx))?;
        let n = std::task::ready!(self.stream.poll_write(cx, bytes))?;
        if self.notice.is_some() {
            self.written.advance(&bytes[..n]);
        }
        Poll::Ready(Ok(n))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_notice(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.close_write();
        Poll::Ready(Ok(()))
    }
}

/// How far the client's leaving has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaving {
    /// It was not asked.
    No,
    /// It was, at this time, in ms; streams that cross that are served.
    Told(u64),
    /// The last GOAWAY is on its way, or will be when the client has answered a PING.
    Finishing,
}

/// What the connection and its streams share.
struct Shared {
    front: Rc<Front>,
    conn: Rc<Conn>,
    /// Streams that are open.
    open: Cell<usize>,
    leaving: Cell<Leaving>,
    notice: Rc<Cell<bool>>,
}

impl Shared {
    /// Sets the deadline that goes with how things stand.
    fn arm(&self) {
        let now = clock::coarse_ms();
        let idle = self.open.get() == 0;
        let front = &self.front;
        match self.leaving.get() {
            // Each stream says to its client that the time is over; there is a moment for that.
            _ if front.ended() => self.conn.expire_after(now, LAST_WORDS),
            Leaving::No if idle => self.conn.expire_after(now, front.config.idle_timeout),
            Leaving::Finishing if idle => self.conn.expire_within(now, front.config.first_byte_grace),
            Leaving::No | Leaving::Finishing => self.conn.expire_after(now, Duration::ZERO),
            Leaving::Told(told) => {
                let notice = if front.phase() < FrontPhase::Closing { NOTICE } else { SHORT_NOTICE };
                self.conn.deadline_ms.set(told + notice.as_millis() as u64);
            }
        }
    }
}

/// Serves a connection to its end.
pub async fn serve(front: &Rc<Front>, client: Client) {
    let Client { stream, carry, peer, seat, .. } = client;
    let conn = Rc::clone(&seat.conn);
    conn.now_doing(Doing::Http2, clock::coarse_ms());
    let notice = Rc::new(Cell::new(false));
    let io = Io { first: carry, notice: Some(Rc::clone(&notice)), ..Io::plain(stream) };
    let mut handshake = Box::pin(
        h2::server::Builder::new()
            .max_concurrent_streams(MOST_STREAMS)
            .max_header_list_size(front.config.head_bytes as u32)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buffer_size(crate::wire::SCRATCH)
            .max_pending_accept_reset_streams(MOST_RESET)
            .max_concurrent_reset_streams(MOST_RESET)
            .handshake(io),
    );
    let shaken = poll_fn(|cx| {
        conn.keep_waker(cx.waker());
        match conn.take_order() {
            Some(Order::Expired | Order::End) => Poll::Ready(None),
            Some(Order::Leave | Order::Look) | None => handshake.as_mut().poll(cx).map(Result::ok),
        }
    })
    .await;
    let Some(connection) = shaken else { return };
    let shared =
        Rc::new(Shared { front: Rc::clone(front), conn, open: Cell::new(0), leaving: Cell::new(Leaving::No), notice });
    shared.arm();
    let mut connection = Http2 { connection, shared, served: false };
    while let Some((request, respond)) = poll_fn(|cx| connection.next(cx)).await {
        connection.served = true;
        let open = Open::enter(&connection.shared);
        spawn_local(one(Rc::clone(front), peer, request, respond, open));
    }
    drop(seat);
}

/// A stream that is open, counted for as long as this lives.
struct Open {
    shared: Rc<Shared>,
}

impl Open {
    fn enter(shared: &Rc<Shared>) -> Open {
        shared.open.set(shared.open.get() + 1);
        shared.arm();
        Open { shared: Rc::clone(shared) }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.shared.open.set(self.shared.open.get() - 1);
        self.shared.arm();
    }
}

struct Http2 {
    connection: Connection<Io, Bytes>,
    shared: Rc<Shared>,
    /// Whether it has carried a request.
    served: bool,
}

impl Http2 {
    /// The next request; `None`: the connection is over.
    fn next(&mut self, cx: &mut Context<'_>) -> Poll<Option<(Request<RecvStream>, SendResponse<Bytes>)>> {
        self.shared.conn.keep_waker(cx.waker());
        let front = Rc::clone(&self.shared.front);
        match (self.shared.conn.take_order(), self.shared.leaving.get()) {
            (Some(Order::Expired), Leaving::Finishing) => return Poll::Ready(None),
            (Some(Order::End), _) | (Some(Order::Expired), Leaving::Told(_)) => self.finish(),
            (Some(Order::Expired | Order::Leave), Leaving::No) => self.tell(),
            // The phase has changed, and with it how long there is.
            (Some(Order::Look | Order::Leave), _) => self.shared.arm(),
            (None, _) => {}
        }
        // A client that has not had an answer yet would come right back.
        if front.draining() && self.served && self.shared.leaving.get() == Leaving::No {
            self.tell();
        }
        match self.connection.poll_accept(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(Ok(request))) => Poll::Ready(Some(request)),
            Poll::Ready(Some(Err(_)) | None) => Poll::Ready(None),
        }
    }

    /// GOAWAY in steps (RFC 9113 section 6.8). First with the highest stream id: streams that are opened all the same, because
    /// they cross it, are served.
    fn tell(&mut self) {
        self.shared.notice.set(true);
        self.shared.leaving.set(Leaving::Told(clock::coarse_ms()));
        self.shared.conn.doing.set(Doing::Leaving);
        self.shared.front.page.add(Slot::ShedByGoaway, 1);
        self.shared.arm();
    }

    /// Then the same with a PING, and once that is answered with the last stream that was opened: the connection ends with the
    /// last of them.
    fn finish(&mut self) {
        if self.shared.leaving.replace(Leaving::Finishing) == Leaving::No {
            self.shared.front.page.add(Slot::ShedByGoaway, 1);
        }
        self.shared.conn.doing.set(Doing::Leaving);
        self.connection.graceful_shutdown();
        self.shared.arm();
    }
}

/// Serves one stream.
async fn one(front: Rc<Front>, peer: IpAddr, request: Request<RecvStream>, respond: SendResponse<Bytes>, open: Open) {
    if relay::wanted(&front, &request) {
        relay::run(&front, peer, request, respond).await;
    } else {
        translate::run(&front, peer, request, respond).await;
    }
    drop(open);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_end_where_they_say() {
        let data = [&[0, 0, 5, 0, 1, 0, 0, 0, 1][..], b"hello", &[0, 0, 0, 4, 1, 0, 0, 0, 0]].concat();
        let ends = [0, 14, 23];
        let mut whole = Frames::default();
        for (at, byte) in data.iter().enumerate() {
            assert_eq!(whole.at_boundary(), at > 0 && ends.contains(&at), "{at}");
            whole.advance(std::slice::from_ref(byte));
        }
        assert!(whole.at_boundary());
        let mut at_once = Frames::default();
        at_once.advance(&data);
        assert!(at_once.at_boundary());
    }
}
