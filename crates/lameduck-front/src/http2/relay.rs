//! A stream of HTTP/2 to an app that speaks HTTP/2 itself: gRPC, which needs its trailers, and whatever was asked for.

use std::future::poll_fn;
use std::net::IpAddr;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::client::SendRequest;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{Request, Response, Uri, Version};
use lameduck_core::front::Slot;
use tokio::task::spawn_local;

use super::Io;
use super::stream::{describe, say, turned_away};
use crate::access::Ended;
use crate::account::Account;
use crate::clock;
use crate::config::UpstreamProtocol;
use crate::message::request::NO_HOST;
use crate::state::Front;
use crate::upstream::{self, NoApp};

/// What the app may send ahead on one stream, and on the connection that all share, in bytes.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 4 << 20;
/// Attempts to find a connection that takes the request.
const MOST_ATTEMPTS: usize = 3;

/// Whether a request goes to the app over HTTP/2.
pub fn wanted(front: &Front, request: &Request<RecvStream>) -> bool {
    match front.config.upstream_protocol {
        UpstreamProtocol::Http1 => false,
        UpstreamProtocol::Http2 => true,
        UpstreamProtocol::Auto => request
            .headers()
            .get("content-type")
            .is_some_and(|content| content.as_bytes().starts_with(b"application/grpc")),
    }
}

/// Serves it.
pub async fn run(front: &Rc<Front>, peer: IpAddr, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let (parts, body) = request.into_parts();
    let ended = body.is_end_stream();
    let (what, told) = match describe(front, &parts, ended) {
        Ok(described) => described,
        Err(status) => {
            front.page.add(Slot::Refused, 1);
            return say(&mut respond, status, "not a request that can be forwarded");
        }
    };
    let at_us = if told.is_some() { clock::precise_us() } else { 0 };
    let mut account = Account::open(front, peer, what, told, at_us, "HTTP/2");
    if let Some((text, ended)) = turned_away(front, &what) {
        say(&mut respond, 503, text);
        return account.close(ended, 503);
    }
    let mut forwarded = Request::new(());
    *forwarded.method_mut() = parts.method;
    *forwarded.version_mut() = Version::HTTP_2;
    *forwarded.headers_mut() = parts.headers;
    *forwarded.uri_mut() = absolute(&parts.uri, forwarded.headers().get("host").and_then(|host| host.to_str().ok()));
    forwarded.headers_mut().remove("host");
    let sent = match send(front, &forwarded, ended).await {
        Ok(sent) => sent,
        Err(no_app) => {
            let how = if matches!(no_app, Some(NoApp::Full | NoApp::Ended)) { Ended::Shed } else { Ended::BadGateway };
            say(&mut respond, 503, "the app does not listen");
            return account.close(how, 503);
        }
    };
    let (response, to_app) = sent;
    let mut both = Both {
        up: Way { from: Some(body), to: Some(to_app), pending: Bytes::new(), data_done: false, done: ended },
        response,
        respond,
        down: None,
        status: 0,
    };
    let over = front.over.notified();
    let mut over = std::pin::pin!(over);
    let fin = poll_fn(|cx| {
        if front.ended() || over.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Fin::TimeOver);
        }
        both.poll(cx, &mut account)
    })
    .await;
    settle(front, account, both, fin);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fin {
    Done,
    ClientGone,
    App(Option<Reason>),
    TimeOver,
}

fn settle(front: &Front, account: Account, both: Both, fin: Fin) {
    let Both { mut respond, down, status, .. } = both;
    let send = down.and_then(|down| down.to);
    match (fin, send) {
        (Fin::Done, _) => account.close(Ended::Answered, status),
        (Fin::ClientGone, _) => account.close(Ended::ClientGone, status),
        (Fin::App(_), None) => {
            say(&mut respond, 502, "the app ended the stream before it answered");
            account.close(Ended::BadGateway, 502);
        }
        (Fin::App(reason), Some(mut send)) => {
            send.send_reset(reason.unwrap_or(Reason::INTERNAL_ERROR));
            account.close(Ended::CutByApp, status);
        }
        (Fin::TimeOver, None) => {
            say(&mut respond, 503, "this instance has to go away now");
            account.close(Ended::Shed, 503);
        }
        (Fin::TimeOver, Some(mut send)) => {
            send.send_reset(Reason::CANCEL);
            front.page.add(Slot::Forced, 1);
            account.close(Ended::CutAtDeadline, status);
        }
    }
}

/// A request of HTTP/2 names its scheme and authority.
fn absolute(uri: &Uri, host: Option<&str>) -> Uri {
    let mut parts = uri.clone().into_parts();
    parts.scheme = parts.scheme.or(Some(http::uri::Scheme::HTTP));
    parts.authority = parts
        .authority
        .or_else(|| host.and_then(|host| host.parse().ok()))
        .or_else(|| Some(http::uri::Authority::from_static(NO_HOST)));
    parts.path_and_query = parts.path_and_query.or_else(|| Some(http::uri::PathAndQuery::from_static("/")));
    Uri::from_parts(parts).unwrap_or_else(|_| uri.clone())
}

type Sent = (h2::client::ResponseFuture, SendStream<Bytes>);

/// Sends the head over the connection there is, or a new one. A connection that does not take it has not sent it.
async fn send(front: &Rc<Front>, request: &Request<()>, ended: bool) -> Result<Sent, Option<NoApp>> {
    for _ in 0..MOST_ATTEMPTS {
        let kept = front.http2.borrow().clone();
        let ready = match kept {
            Some(sender) => sender.ready().await.ok(),
            None => None,
        };
        let mut sender = match ready {
            Some(sender) => sender,
            None => match connect(front).await? {
                Some(sender) => sender,
                None => continue,
            },
        };
        if let Ok(sent) = sender.send_request(request.clone(), ended) {
            return Ok(sent);
        }
        *front.http2.borrow_mut() = None;
    }
    Err(None)
}

async fn connect(front: &Rc<Front>) -> Result<Option<SendRequest<Bytes>>, Option<NoApp>> {
    let stream = upstream::open(front, 0, || false).await.map_err(Some)?;
    let shaken = h2::client::Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .enable_push(false)
        .handshake::<_, Bytes>(Io::plain(stream))
        .await;
    let Ok((sender, connection)) = shaken else { return Ok(None) };
    // It lives as long as its streams and whoever can open more.
    spawn_local(async move {
        let _ = connection.await;
    });
    *front.http2.borrow_mut() = Some(sender.clone());
    Ok(sender.ready().await.ok())
}

struct Both {
    up: Way,
    response: h2::client::ResponseFuture,
    respond: SendResponse<Bytes>,
    down: Option<Way>,
    status: u16,
}

impl Both {
    fn poll(&mut self, cx: &mut Context<'_>, account: &mut Account) -> Poll<Fin> {
        match self.up.poll(cx) {
            Poll::Ready(Err(Broken::From(_))) => return Poll::Ready(Fin::ClientGone),
            // An app that has heard enough may still answer.
            Poll::Ready(Err(Broken::To)) => self.up.done = true,
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        let reset = match self.down.as_mut().and_then(|down| down.to.as_mut()) {
            Some(send) => send.poll_reset(cx),
            None => self.respond.poll_reset(cx),
        };
        if reset.is_ready() && self.down.as_ref().is_none_or(|down| !down.done) {
            return Poll::Ready(Fin::ClientGone);
        }
        if self.down.is_none() {
            match ready!(std::pin::Pin::new(&mut self.response).poll(cx)) {
                Err(error) => return Poll::Ready(Fin::App(error.reason())),
                Ok(response) => {
                    account.answer_began();
                    let (parts, body) = response.into_parts();
                    self.status = parts.status.as_u16();
                    let ended = body.is_end_stream();
                    match self.respond.send_response(Response::from_parts(parts, ()), ended) {
                        Err(_) => return Poll::Ready(Fin::ClientGone),
                        Ok(send) => {
                            self.down = Some(Way {
                                from: Some(body),
                                to: Some(send),
                                pending: Bytes::new(),
                                data_done: false,
                                done: ended,
                            });
                        }
                    }
                }
            }
        }
        let Some(down) = &mut self.down else { return Poll::Pending };
        let polled = down.poll(cx);
        account.sent(clock::coarse_ms());
        match polled {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(())) => Poll::Ready(Fin::Done),
            Poll::Ready(Err(Broken::From(reason))) => Poll::Ready(Fin::App(reason)),
            Poll::Ready(Err(Broken::To)) => Poll::Ready(Fin::ClientGone),
        }
    }
}

/// Which end of a way broke.
enum Broken {
    From(Option<Reason>),
    To,
}

/// One direction of a stream: what one side sends is taken from it as fast as the other takes it (RFC 9113 section 5.2).
struct Way {
    from: Option<RecvStream>,
    to: Option<SendStream<Bytes>>,
    pending: Bytes,
    data_done: bool,
    done: bool,
}

impl Way {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        let (Some(from), Some(to)) = (&mut self.from, &mut self.to) else { return Poll::Ready(Ok(())) };
        while !self.done {
            while !self.pending.is_empty() {
                to.reserve_capacity(self.pending.len());
                let capacity = match to.capacity() {
                    0 => ready!(to.poll_capacity(cx)),
                    n => Some(Ok(n)),
                };
                match capacity {
                    Some(Ok(0)) => {}
                    Some(Ok(n)) => {
                        let part = self.pending.split_to(n.min(self.pending.len()));
                        let length = part.len();
                        if to.send_data(part, false).is_err() {
                            return Poll::Ready(Err(Broken::To));
                        }
                        let _ = from.flow_control().release_capacity(length);
                    }
                    Some(Err(_)) | None => return Poll::Ready(Err(Broken::To)),
                }
            }
            if !self.data_done {
                match ready!(from.poll_data(cx)) {
                    Some(Ok(data)) => {
                        self.pending = data;
                        continue;
                    }
                    Some(Err(error)) => return Poll::Ready(Err(Broken::From(error.reason()))),
                    None => self.data_done = true,
                }
            }
            let ended = match ready!(from.poll_trailers(cx)) {
                Ok(Some(trailers)) => to.send_trailers(trailers),
                Ok(None) => to.send_data(Bytes::new(), true),
                Err(error) => return Poll::Ready(Err(Broken::From(error.reason()))),
            };
            if ended.is_err() {
                return Poll::Ready(Err(Broken::To));
            }
            self.done = true;
        }
        Poll::Ready(Ok(()))
    }
}
