//! A client's connection: request after request, until one side leaves. [`serve`] is its life.

use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::task::{Context, Poll};

use lameduck_core::front::{FrontPhase, Slot};
use tokio::net::TcpStream;

use crate::clock;
use crate::exchange::{self, After, Incoming};
use crate::message::body::Body;
use crate::message::reply;
use crate::message::request::{self, Refusal, Told};
use crate::proxy_protocol;
use crate::state::{Conn, Doing, Front, Order, Seat};
use crate::tunnel;
use crate::wire::{Outgoing, Stream};

/// What an HTTP/2 connection begins with (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The client's side.
#[derive(Debug)]
pub struct Client {
    /// Its socket.
    pub stream: Stream,
    /// What was read and is not used yet: the next request, or a part of one.
    pub carry: Vec<u8>,
    /// Its address, or the one that a PROXY protocol header gave.
    pub peer: IpAddr,
    /// Its place among all.
    pub seat: Seat,
    /// Whether a request has come on it already: it speaks HTTP/1 then.
    pub asked: bool,
}

impl Client {
    fn new(stream: TcpStream, peer: SocketAddr, seat: Seat) -> Client {
        // Messages are written whole; waiting for more of them would only delay (tcp(7), TCP_NODELAY).
        let _ = stream.set_nodelay(true);
        let peer = peer.ip().to_canonical();
        Client { stream: Stream::Tcp(stream), carry: Vec::new(), peer, seat, asked: false }
    }

    /// The connection, as everybody else sees it.
    pub const fn conn(&self) -> &Rc<Conn> {
        &self.seat.conn
    }
}

/// Whether a client is to be told with this answer that its connection ends. In the lame duck it is, unless more requests
/// of its are here already: then the last of them tells it.
pub fn leaving(front: &Front, conn: &Conn, nothing_more_is_here: bool) -> bool {
    match front.phase() {
        FrontPhase::Serving => conn.is_old(clock::coarse_ms(), front.config.max_connection_age),
        FrontPhase::LameDuck => nothing_more_is_here,
        FrontPhase::Closing | FrontPhase::Closed => nothing_more_is_here || front.ended(),
    }
}

/// What comes next on a connection.
enum Next {
    Request(Box<Incoming>),
    Http2,
    Refused(Refusal),
    BadBody(Box<Incoming>),
    /// The head did not come in time.
    TooSlow,
    /// Nothing more: our side may be closed.
    Quiet,
    /// The client is gone.
    Gone,
}

/// Serves a connection to its end.
pub async fn serve(front: Rc<Front>, stream: TcpStream, peer: SocketAddr, seat: Seat) {
    let mut client = Client::new(stream, peer, seat);
    if front.config.proxy_protocol && !Box::pin(read_proxy_header(&mut client)).await {
        // Who says nothing is a probe, or waits for us: nothing was refused.
        front.page.add(Slot::Refused, u64::from(!client.carry.is_empty()));
        return;
    }
    loop {
        let next = poll_fn(|cx| next(&front, &mut client, cx)).await;
        client.asked = true;
        let after = match next {
            Next::Request(incoming) => Box::pin(exchange::run(&front, &mut client, incoming)).await,
            Next::Http2 => {
                Box::pin(crate::http2::serve(&front, client)).await;
                return;
            }
            Next::Refused(Refusal::NotHttp) => {
                front.page.add(Slot::Refused, 1);
                After::Linger
            }
            Next::Refused(refusal) => {
                front.page.add(Slot::Refused, 1);
                Box::pin(refuse(&front, &mut client, refusal.status(), &refusal.to_string())).await
            }
            Next::BadBody(incoming) => Box::pin(exchange::refuse(&front, &mut client, incoming)).await,
            Next::TooSlow => Box::pin(refuse(&front, &mut client, 408, "the request head did not come in time")).await,
            Next::Quiet => {
                front.page.add(Slot::ShedIdle, u64::from(front.draining()));
                After::Linger
            }
            Next::Gone => After::Close,
        };
        match after {
            After::Keep => {
                let now = clock::coarse_ms();
                // The next request may have come already, or the beginning of its head.
                let (doing, limit) = if client.carry.is_empty() {
                    (Doing::Idle, front.config.idle_timeout)
                } else {
                    (Doing::Reading, front.config.head_timeout)
                };
                client.conn().now_doing(doing, now);
                client.conn().expire_after(now, limit);
            }
            After::Linger => {
                Box::pin(linger(&front, &mut client, true)).await;
                return;
            }
            After::Discard => {
                Box::pin(linger(&front, &mut client, false)).await;
                return;
            }
            After::Tunnel(switched) => {
                Box::pin(tunnel::run(&front, &mut client, *switched)).await;
                Box::pin(linger(&front, &mut client, false)).await;
                return;
            }
            After::Close => return,
        }
    }
}

/// Tells a client that there are too many of them.
pub async fn turn_away(front: Rc<Front>, stream: TcpStream, peer: SocketAddr, seat: Seat) {
    let mut client = Client::new(stream, peer, seat);
    front.page.add(Slot::Shed, 1);
    refuse(&front, &mut client, 503, "too many connections here: try again").await;
    linger(&front, &mut client, false).await;
}

/// The next request: parsed where it lies, in the buffer that all connections share.
fn next(front: &Rc<Front>, client: &mut Client, cx: &mut Context<'_>) -> Poll<Next> {
    client.seat.conn.keep_waker(cx.waker());
    if !client.carry.is_empty() {
        let mut carry = std::mem::take(&mut client.carry);
        let (next, used) = parse_at(front, client.peer, !client.asked, &carry);
        if let Some(next) = next {
            carry.drain(..used);
            client.carry = if carry.is_empty() { Vec::new() } else { carry };
            return Poll::Ready(next);
        }
        client.carry = carry;
    }
    loop {
        if let Some(next) = client.seat.conn.take_order().and_then(|order| obey(client, order)) {
            return Poll::Ready(next);
        }
        let Client { stream, carry, peer, asked, .. } = client;
        let first = !*asked;
        let polled = stream.poll_take(cx, |bytes, _| {
            if bytes.is_empty() {
                return Some(Next::Gone);
            }
            if carry.is_empty() {
                let (next, used) = parse_at(front, *peer, first, bytes);
                carry.extend_from_slice(&bytes[used..]);
                next
            } else {
                // A line has to end for the head to end: most drops of a slow head need no second look.
                let more = memchr::memchr(b'\n', bytes).is_some() || carry.len() > front.config.head_bytes;
                carry.extend_from_slice(bytes);
                let (next, used) = if more { parse_at(front, *peer, first, carry) } else { (None, 0) };
                carry.drain(..used);
                next
            }
        });
        match polled {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(_)) => return Poll::Ready(Next::Gone),
            Poll::Ready(Ok(Some(next))) => {
                if client.carry.is_empty() {
                    client.carry = Vec::new();
                }
                return Poll::Ready(next);
            }
            Poll::Ready(Ok(None)) => {
                let now = clock::coarse_ms();
                let conn = &client.seat.conn;
                if conn.doing.get() != Doing::Reading {
                    conn.now_doing(Doing::Reading, now);
                    conn.expire_after(now, front.config.head_timeout);
                }
            }
        }
    }
}

/// Reads a request from the beginning of `bytes`; returns it and how much of them it used. `first`: nothing has come before
/// it, so it may be HTTP/2.
fn parse_at(front: &Rc<Front>, peer: IpAddr, first: bool, bytes: &[u8]) -> (Option<Next>, usize) {
    if first && bytes[0] == b'P' && PREFACE.starts_with(&bytes[..bytes.len().min(PREFACE.len())]) {
        // The preface is left where it is: it is part of what HTTP/2 reads.
        return (if bytes.len() >= PREFACE.len() { Some(Next::Http2) } else { None }, 0);
    }
    let mut out = front.buffer();
    let mut told = front.log.is_some().then(Told::default);
    let new_id =
        if front.config.request_id { u128::from(front.random()) << 64 | u128::from(front.random()) } else { 0 };
    let context = request::Context { config: &front.config, client: peer, new_id };
    let request = match request::read(bytes, &context, &mut out, told.as_mut()) {
        Ok(Some(request)) => request,
        Ok(None) => {
            front.recycle(out);
            return (None, 0);
        }
        Err(refusal) => return (Some(Next::Refused(refusal)), bytes.len()),
    };
    if let Some(told) = &mut told {
        told.id = request::id_of(&out);
    }
    let mut body = Body::of(request.framing);
    let taken = body.take(&bytes[request.length..], &mut out);
    let at_us = if told.is_some() { clock::precise_us() } else { 0 };
    let incoming = Box::new(Incoming { request, bytes: out, body, told, at_us });
    match taken {
        Ok(taken) => (Some(Next::Request(incoming)), request.length + taken),
        Err(_) => (Some(Next::BadBody(incoming)), bytes.len()),
    }
}

/// What an order means to a connection on which no request is in flight.
fn obey(client: &Client, order: Order) -> Option<Next> {
    let doing = client.seat.conn.doing.get();
    match (order, doing) {
        (Order::Look, _) => None,
        // What is on its way is served: only a connection on which nothing has come is closed.
        (Order::Expired | Order::Leave | Order::End, _) if client.stream.has_unread() => None,
        (Order::Expired | Order::Leave | Order::End, Doing::Reading) => Some(Next::TooSlow),
        (Order::Expired | Order::Leave | Order::End, _) => Some(Next::Quiet),
    }
}

/// Refuses what is not a request, or is not there. Nothing on this connection is to be understood any more.
async fn refuse(front: &Front, client: &mut Client, status: u16, text: &str) -> After {
    let mut out = Outgoing::default();
    reply::write(out.end(), status, text, false, false);
    let now = clock::coarse_ms();
    client.conn().now_doing(Doing::Leaving, now);
    client.conn().expire_within(now, front.config.linger);
    poll_fn(|cx| {
        client.seat.conn.keep_waker(cx.waker());
        match out.poll_flush(&mut client.stream, cx) {
            Poll::Pending if client.seat.conn.take_order().is_none() => Poll::Pending,
            Poll::Pending | Poll::Ready(_) => Poll::Ready(()),
        }
    })
    .await;
    After::Discard
}

/// Closes our side and reads what the client still sends, so that nothing of it turns our last answer into a reset
/// (RFC 9112 section 9.6). What comes now is not served: where it is `requests`, the client sees the end and may send it
/// again elsewhere.
async fn linger(front: &Front, client: &mut Client, requests: bool) {
    client.stream.close_write();
    // What was said before was said of what was before.
    client.conn().take_order();
    let now = clock::coarse_ms();
    client.conn().now_doing(Doing::Lingering, now);
    client.conn().expire_within(now, front.config.linger);
    let mut crossed = false;
    let mut cross = || {
        front.page.add(Slot::CrossedClose, u64::from(requests && !crossed));
        crossed = true;
    };
    if !std::mem::take(&mut client.carry).is_empty() {
        cross();
    }
    poll_fn(|cx| {
        let conn = &client.seat.conn;
        conn.keep_waker(cx.waker());
        loop {
            match client.stream.poll_take(cx, |bytes, _| bytes.len()) {
                Poll::Ready(Ok(1..)) => cross(),
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
                Poll::Pending => break,
            }
        }
        match conn.take_order() {
            Some(Order::Expired | Order::End) => Poll::Ready(()),
            Some(Order::Leave | Order::Look) | None => Poll::Pending,
        }
    })
    .await;
    if client.stream.has_unread() && !client.stream.is_broken() {
        let mut byte = [0];
        let peek = rustix::net::RecvFlags::PEEK | rustix::net::RecvFlags::DONTWAIT;
        let unread = rustix::net::recv(&client.stream, &mut byte[..], peek).is_ok_and(|(n, _)| n > 0);
        // Closing over unread bytes makes the kernel send a reset.
        front.page.add(Slot::ResetsSent, u64::from(unread));
    }
}

/// Reads the PROXY protocol header that has to come first; `false`: there was none, or none in time.
async fn read_proxy_header(client: &mut Client) -> bool {
    poll_fn(|cx| {
        client.seat.conn.keep_waker(cx.waker());
        loop {
            if client.seat.conn.take_order().is_some_and(|order| order != Order::Look) {
                return Poll::Ready(false);
            }
            let carry = &mut client.carry;
            match client.stream.poll_take(cx, |bytes, _| {
                carry.extend_from_slice(bytes);
                !bytes.is_empty()
            }) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false) | Err(_)) => return Poll::Ready(false),
            }
            match proxy_protocol::parse(&client.carry) {
                Ok(None) => {}
                Ok(Some(header)) => {
                    client.carry.drain(..header.length);
                    if let Some(source) = header.source {
                        client.peer = source.ip().to_canonical();
                    }
                    return Poll::Ready(true);
                }
                Err(_) => return Poll::Ready(false),
            }
        }
    })
    .await
}
