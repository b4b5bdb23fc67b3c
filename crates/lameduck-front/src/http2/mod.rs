//! HTTP/2 with prior knowledge (RFC 9113), by the `h2` crate. The connection is here; its streams are in [`stream`] (to an
//! app that speaks HTTP/1.1) and [`relay`] (to one that speaks HTTP/2 itself).

mod relay;
mod stream;

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
use lameduck_core::front::Slot;
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

/// A connection, with what was read of it already.
struct Io {
    stream: Stream,
    first: Vec<u8>,
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
        self.stream.poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.close_write();
        Poll::Ready(Ok(()))
    }
}

/// How long a client that was told to leave may stay without a stream.
fn patience(front: &Front, conn: &Conn) {
    conn.expire_after(clock::coarse_ms(), front.config.first_byte_grace);
}

/// Serves a connection to its end.
pub async fn serve(front: &Rc<Front>, client: Client) {
    let Client { stream, carry, peer, seat } = client;
    let conn = Rc::clone(&seat.conn);
    conn.now_doing(Doing::Http2, clock::coarse_ms());
    let mut handshake = Box::pin(
        h2::server::Builder::new()
            .max_concurrent_streams(MOST_STREAMS)
            .max_header_list_size(front.config.head_bytes as u32)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buffer_size(crate::wire::SCRATCH)
            .max_pending_accept_reset_streams(MOST_RESET)
            .max_concurrent_reset_streams(MOST_RESET)
            .handshake(Io { stream, first: carry }),
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
    let mut connection = Http2 { connection, conn, open: Rc::new(Cell::new(0)), served: false, told: false };
    connection.conn.expire_after(clock::coarse_ms(), front.config.idle_timeout);
    while let Some((request, respond)) = poll_fn(|cx| connection.next(front, cx)).await {
        connection.served = true;
        spawn_local(one(Rc::clone(front), peer, request, respond, connection.enter(front)));
    }
    drop(seat);
}

/// A stream that is open, counted for as long as this lives.
struct Open {
    count: Rc<Cell<usize>>,
    conn: Rc<Conn>,
    front: Rc<Front>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.count.set(self.count.get() - 1);
        if self.count.get() == 0 {
            let told = self.conn.doing.get() == Doing::Leaving;
            let patience = if told { self.front.config.first_byte_grace } else { self.front.config.idle_timeout };
            self.conn.expire_after(clock::coarse_ms(), patience);
        }
    }
}

struct Http2 {
    connection: Connection<Io, Bytes>,
    conn: Rc<Conn>,
    open: Rc<Cell<usize>>,
    /// Whether it has carried a request.
    served: bool,
    /// Whether the client was told to leave.
    told: bool,
}

impl Http2 {
    fn enter(&self, front: &Rc<Front>) -> Open {
        self.open.set(self.open.get() + 1);
        if !front.ended() {
            self.conn.deadline_ms.set(0);
        }
        Open { count: Rc::clone(&self.open), conn: Rc::clone(&self.conn), front: Rc::clone(front) }
    }

    /// The next request; `None`: the connection is over.
    fn next(
        &mut self,
        front: &Front,
        cx: &mut Context<'_>,
    ) -> Poll<Option<(Request<RecvStream>, SendResponse<Bytes>)>> {
        self.conn.keep_waker(cx.waker());
        match self.conn.take_order() {
            // Each stream says so to its client; there is a moment for that.
            Some(Order::End) => {
                self.tell(front);
                self.conn.expire_after(clock::coarse_ms(), LAST_WORDS);
            }
            Some(Order::Expired) if self.told => return Poll::Ready(None),
            Some(Order::Expired | Order::Leave) => self.tell(front),
            Some(Order::Look) | None => {}
        }
        // A client that has not had an answer yet would come right back.
        if front.draining() && self.served {
            self.tell(front);
        }
        match self.connection.poll_accept(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(Ok(request))) => Poll::Ready(Some(request)),
            Poll::Ready(Some(Err(_)) | None) => Poll::Ready(None),
        }
    }

    /// GOAWAY in two steps (RFC 9113 section 6.8): first with the highest stream id and a PING; once that is answered, with
    /// the last stream that was opened. Streams opened in between are served, and the connection ends with the last of them.
    fn tell(&mut self, front: &Front) {
        if !std::mem::replace(&mut self.told, true) {
            self.connection.graceful_shutdown();
            self.conn.doing.set(Doing::Leaving);
            front.page.add(Slot::ShedByGoaway, 1);
            if self.open.get() == 0 {
                patience(front, &self.conn);
            }
        }
    }
}

/// Serves one stream.
async fn one(front: Rc<Front>, peer: IpAddr, request: Request<RecvStream>, respond: SendResponse<Bytes>, open: Open) {
    if relay::wanted(&front, &request) {
        relay::run(&front, peer, request, respond).await;
    } else {
        stream::run(&front, peer, request, respond).await;
    }
    drop(open);
}
