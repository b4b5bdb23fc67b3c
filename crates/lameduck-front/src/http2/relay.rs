//! A stream of HTTP/2 to an app that speaks HTTP/2 itself: gRPC, which needs its trailers, and whatever was asked for.

use std::net::IpAddr;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::client::SendRequest;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Request, Response, Uri, Version};
use tokio::task::spawn_local;

use super::Io;
use super::stream::{self, Entered, Fin, Term, enter, settle, while_wanted};
use crate::account::Account;
use crate::clock;
use crate::config::UpstreamProtocol;
use crate::message::request::NO_HOST;
use crate::message::response::is_event_stream;
use crate::sse::Payload;
use crate::state::{Front, Waits};
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
        UpstreamProtocol::Auto => request.headers().get("content-type").is_some_and(is_grpc),
    }
}

/// Whether a content type is gRPC's. Its like for browsers, `application/grpc-web`, needs no trailers and so no HTTP/2.
fn is_grpc(content_type: &HeaderValue) -> bool {
    let rest = content_type.as_bytes().strip_prefix(b"application/grpc");
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';' | b' ')))
}

/// Serves it.
pub async fn run(front: &Rc<Front>, peer: IpAddr, request: Request<RecvStream>, respond: SendResponse<Bytes>) {
    let Some(Entered { parts, body, mut respond, mut account }) = enter(front, peer, request, respond) else { return };
    let ended = body.is_end_stream();
    let mut forwarded = Request::new(());
    *forwarded.method_mut() = parts.method;
    *forwarded.version_mut() = Version::HTTP_2;
    *forwarded.headers_mut() = parts.headers;
    *forwarded.uri_mut() = absolute(&parts.uri, forwarded.headers().get("host").and_then(|host| host.to_str().ok()));
    forwarded.headers_mut().remove("host");
    let asked_us = account.clock_us();
    let sent = while_wanted(&mut respond, send(front, &forwarded, ended)).await;
    account.held_since(asked_us);
    let (response, to_app) = match sent {
        Ok(sent) => sent,
        Err(no_app) => return stream::without_app(front, account, &mut respond, no_app),
    };
    let long_poll = account.request.long_poll;
    let up = Way::new(body, to_app, ended);
    let mut both = Both { up, response, respond, down: None, status: 0, long_poll, term: Term::begin(front) };
    let fin = stream::drive(front, &mut both, &mut account).await;
    let Both { respond, down, status, .. } = both;
    settle(front, account, respond, down.map(|down| down.to), status, fin);
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
async fn send(front: &Rc<Front>, request: &Request<()>, ended: bool) -> Result<Sent, NoApp> {
    for _ in 0..MOST_ATTEMPTS {
        let kept = front.http2.borrow().clone();
        let ready = match kept {
            // It waits where the app takes no more streams at a time.
            Some(sender) => upstream::in_time(front, sender.ready()).await?.ok(),
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
    Err(NoApp::NotHttp2)
}

async fn connect(front: &Rc<Front>) -> Result<Option<SendRequest<Bytes>>, NoApp> {
    let stream = upstream::open(front, 0, || false).await?;
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
    Ok(upstream::in_time(front, sender.ready()).await?.ok())
}

/// A request and its answer, on their ways.
struct Both {
    up: Way,
    response: h2::client::ResponseFuture,
    respond: SendResponse<Bytes>,
    down: Option<Way>,
    status: u16,
    long_poll: Option<u16>,
    term: Term,
}

impl stream::Exchange for Both {
    fn poll(&mut self, cx: &mut Context<'_>, account: &mut Account) -> Poll<Fin> {
        match self.up.poll(cx) {
            Poll::Ready(Err(Broken::From(_))) => return Poll::Ready(Fin::ClientGone),
            // An app that has heard enough may still answer.
            Poll::Ready(Err(Broken::To)) => self.up.done = true,
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        let reset = match &mut self.down {
            Some(down) => down.to.poll_reset(cx),
            None => self.respond.poll_reset(cx),
        };
        if reset.is_ready() && self.down.as_ref().is_none_or(|down| !down.done) {
            return Poll::Ready(Fin::ClientGone);
        }
        if self.down.is_none()
            && let Err(fin) = ready!(self.poll_head(cx, account))
        {
            return Poll::Ready(fin);
        }
        let Some(down) = &mut self.down else { return Poll::Pending };
        let before_ms = down.moved_ms;
        let polled = down.poll(cx);
        if down.moved_ms != before_ms {
            account.sent(down.moved_ms);
        }
        polled.map(|ended| match ended {
            Ok(()) if down.payload.is_cut() => Fin::EndedEvents,
            Ok(()) => Fin::Done,
            Err(Broken::From(reason)) => Fin::CutByApp(reason),
            Err(Broken::To) => Fin::ClientGone,
        })
    }

    /// A client may have nothing to say for as long as it likes: streams of gRPC are so.
    fn look(&mut self, front: &Front) -> Option<Fin> {
        if self.term.is_over(front) {
            match (&mut self.down, self.long_poll) {
                (Some(down), _) => down.payload.end(),
                (None, Some(status)) => return Some(Fin::LongPoll(status)),
                (None, None) => {}
            }
        }
        let (waits, moved_ms) = match &self.down {
            Some(down) if !down.pending.is_empty() => (Waits::Client, down.moved_ms),
            None if self.up.done => (Waits::Answer, self.up.moved_ms),
            None if !self.up.pending.is_empty() => (Waits::Taking, self.up.moved_ms),
            Some(_) | None => (Waits::More, 0),
        };
        let given_up = front.gives_up(waits, clock::coarse_ms().saturating_sub(moved_ms));
        given_up.then_some(if waits == Waits::Client { Fin::ClientStalled } else { Fin::AppTimeout })
    }
}

impl Both {
    /// Passes the head of the answer on.
    fn poll_head(&mut self, cx: &mut Context<'_>, account: &mut Account) -> Poll<Result<(), Fin>> {
        let response = match ready!(std::pin::Pin::new(&mut self.response).poll(cx)) {
            Ok(response) => response,
            Err(error) => return Poll::Ready(Err(Fin::CutByApp(error.reason()))),
        };
        account.answer_began();
        account.sent(clock::coarse_ms());
        let (parts, body) = response.into_parts();
        self.status = parts.status.as_u16();
        let ended = body.is_end_stream();
        let events = ends_can_be_seen(&parts.headers);
        let Ok(send) = self.respond.send_response(Response::from_parts(parts, ()), ended) else {
            return Poll::Ready(Err(Fin::ClientGone));
        };
        let down = self.down.insert(Way::new(body, send, ended));
        if events {
            down.payload.track();
            self.term.begin_again();
        }
        Poll::Ready(Ok(()))
    }
}

/// Whether an answer is a stream of events whose ends can be seen, and after each of which it may end: its length was not told.
fn ends_can_be_seen(fields: &HeaderMap) -> bool {
    let encoded = |encoding: &HeaderValue| !encoding.as_bytes().eq_ignore_ascii_case(b"identity");
    fields.get("content-type").is_some_and(|content| is_event_stream(content.as_bytes()))
        && !fields.contains_key("content-length")
        && !fields.get_all("content-encoding").iter().any(encoded)
}

/// Which end of a way broke.
enum Broken {
    From(Option<Reason>),
    To,
}

/// One direction of a stream: what one side sends is taken from it as fast as the other takes it (RFC 9113 section 5.2).
struct Way {
    from: RecvStream,
    to: SendStream<Bytes>,
    pending: Bytes,
    payload: Payload,
    data_done: bool,
    done: bool,
    /// When something was last moved on, in ms.
    moved_ms: u64,
}

impl Way {
    /// `done`: nothing follows the head.
    fn new(from: RecvStream, to: SendStream<Bytes>, done: bool) -> Way {
        let (pending, payload) = (Bytes::new(), Payload::default());
        Way { from, to, pending, payload, data_done: false, done, moved_ms: clock::coarse_ms() }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        while !self.done {
            ready!(self.poll_pending(cx))?;
            if self.payload.is_cut() {
                self.end_with(None)?;
                break;
            }
            if !self.data_done {
                match ready!(self.from.poll_data(cx)) {
                    Some(Ok(data)) => {
                        self.moved_ms = clock::coarse_ms();
                        let passed = self.payload.pass(&data).len();
                        self.pending = data.slice(..passed);
                        continue;
                    }
                    Some(Err(error)) => return Poll::Ready(Err(Broken::From(error.reason()))),
                    None => self.data_done = true,
                }
            }
            match ready!(self.from.poll_trailers(cx)) {
                Ok(trailers) => self.end_with(trailers)?,
                Err(error) => return Poll::Ready(Err(Broken::From(error.reason()))),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Sends what the other side takes. Ready: nothing is left.
    fn poll_pending(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        while !self.pending.is_empty() {
            self.to.reserve_capacity(self.pending.len());
            let capacity = match self.to.capacity() {
                0 => ready!(self.to.poll_capacity(cx)),
                n => Some(Ok(n)),
            };
            match capacity {
                Some(Ok(0)) => {}
                Some(Ok(n)) => {
                    let part = self.pending.split_to(n.min(self.pending.len()));
                    let length = part.len();
                    if self.to.send_data(part, false).is_err() {
                        return Poll::Ready(Err(Broken::To));
                    }
                    let _ = self.from.flow_control().release_capacity(length);
                    self.moved_ms = clock::coarse_ms();
                }
                Some(Err(_)) | None => return Poll::Ready(Err(Broken::To)),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn end_with(&mut self, trailers: Option<HeaderMap>) -> Result<(), Broken> {
        let ended = match trailers {
            Some(trailers) => self.to.send_trailers(trailers),
            None => self.to.send_data(Bytes::new(), true),
        };
        self.done = true;
        self.moved_ms = clock::coarse_ms();
        ended.map_err(|_| Broken::To)
    }
}
