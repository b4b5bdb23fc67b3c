//! A stream of HTTP/2 to an app that speaks HTTP/1.1.

use std::future::poll_fn;
use std::net::IpAddr;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use lameduck_core::front::Slot;

use crate::access::Ended;
use crate::account::Account;
use crate::chunked::{self, Decoder};
use crate::clock;
use crate::config::Forwarded;
use crate::message::fields::{self, Kind};
use crate::message::request::{self, Told};
use crate::message::response::{self, Asked, Framing};
use crate::message::{reply, write_field};
use crate::state::Front;
use crate::upstream::{self, NoApp, Taken};
use crate::wire::{Outgoing, Stream};

/// Times that a request is sent again.
const MOST_RETRIES: u32 = 3;

/// Why a stream ended otherwise than by its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fin {
    Done,
    AppDied,
    BadAnswer,
    CutByApp,
    ClientGone,
    TimeOver,
}

/// What the request is to us.
pub fn describe(front: &Front, parts: &Parts, ended: bool) -> Result<(request::Request, Option<Told>), u16> {
    if parts.method == Method::CONNECT {
        return Err(405);
    }
    let disguised = |name: &HeaderName| fields::kind(name.as_str().as_bytes()) == Kind::Disguised;
    let several = |name: &str| parts.headers.get_all(name).iter().count() > 1;
    if parts.headers.keys().any(disguised) || several("host") || several("content-length") {
        return Err(400);
    }
    let path = parts.uri.path();
    // What HTTP/1.1 has no request line for (RFC 9112 section 3.2): a query alone, and `*` for other methods than OPTIONS.
    let has_form = path.starts_with('/') && !target(parts).starts_with('?');
    let star = path == "*" && parts.method == Method::OPTIONS;
    // No user is named in an authority (RFC 9113 section 8.3.1).
    let names_user = parts.uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
    if !(has_form || star) || names_user {
        return Err(400);
    }
    let length = parts.headers.get("content-length").and_then(|length| fields::length(length.as_bytes()));
    let agent = parts.headers.get("user-agent").map_or(&b""[..], HeaderValue::as_bytes);
    let told = front.log.is_some().then(|| Told {
        method: parts.method.to_string(),
        target: target(parts).to_owned(),
        id: parts.headers.get("x-request-id").and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned(),
    });
    let health = front.config.health_path.as_deref() == Some(path);
    let request = request::Request {
        length: 0,
        framing: match (ended, length) {
            (true, None) => request::Framing::None,
            (_, Some(length)) => request::Framing::Length(length),
            (false, None) => request::Framing::Chunked,
        },
        http10: false,
        keep_alive: true,
        idempotent: request::is_idempotent(parts.method.as_str().as_bytes()),
        head: parts.method == Method::HEAD,
        expects_continue: false,
        upgrade: None,
        probe: health || front.config.probe_agents.iter().any(|probe| agent.starts_with(probe.as_bytes())),
        health,
        long_poll: front.config.long_polls.iter().find(|poll| path.starts_with(&poll.prefix)).map(|poll| poll.status),
    };
    Ok((request, told))
}

/// `:path`, as it was received.
fn target(parts: &Parts) -> &str {
    parts.uri.path_and_query().map_or("/", |path| path.as_str())
}

/// Answers in the front's own name.
pub fn say(respond: &mut SendResponse<Bytes>, status: u16, text: &str) {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    let fields = response.headers_mut();
    fields.insert("content-type", HeaderValue::from_static("text/plain; charset=utf-8"));
    if status == 503 {
        fields.insert("retry-after", HeaderValue::from(reply::RETRY_AFTER_S));
    }
    // A client that is gone needs no answer.
    if let Ok(mut stream) = respond.send_response(response, false) {
        let _ = stream.send_data(Bytes::from(format!("{text}\n")), true);
    }
}

/// Turns a request away where a limit, the budget or the readiness says so: what was answered.
pub fn turned_away(front: &Front, request: &request::Request) -> Option<(&'static str, Ended)> {
    if request.health && front.not_ready() {
        return Some(("this instance is going away", Ended::Answered));
    }
    let limit = front.config.max_requests as u64;
    let over = limit > 0 && front.page.get(Slot::InFlight) > limit;
    ((over && !request.probe) || front.ended()).then_some(("too many requests here: try again", Ended::Shed))
}

/// Serves it.
pub async fn run(front: &Rc<Front>, peer: IpAddr, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let (parts, body) = request.into_parts();
    let (what, told) = match describe(front, &parts, body.is_end_stream()) {
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
    let mut head = front.buffer();
    write_head(&mut head, &parts, &what, front, peer);
    let may_repeat = what.idempotent && body.is_end_stream();
    let mut exchange = Exchange {
        upload: Upload {
            out: Outgoing::new(head),
            chunked: what.framing == request::Framing::Chunked,
            done: body.is_end_stream(),
            data_done: false,
            broken: false,
            credit: 0,
            body,
        },
        answer: Answer {
            asked: Asked { head: what.head, http10: false, keep_alive: true, upgrade: false },
            respond,
            send: None,
            pending: Bytes::new(),
            partial: Vec::new(),
            rest: Rest::Nothing,
            trailers: None,
            response: None,
            began: false,
            complete: false,
            excess: false,
        },
    };
    let fin = loop {
        let asked_us = account.clock_us();
        let bytes = exchange.upload.out.bytes().len();
        let taken = if account.retries == 0 {
            upstream::take(front, bytes, may_repeat, || false).await
        } else {
            upstream::open(front, bytes, || false).await.map(|stream| Taken { stream, reused: false })
        };
        account.held_since(asked_us);
        let Taken { stream: mut app, reused } = match taken {
            Ok(taken) => taken,
            Err(no_app) => {
                let ended = if matches!(no_app, NoApp::Full | NoApp::Ended) { Ended::Shed } else { Ended::BadGateway };
                say(&mut exchange.answer.respond, 503, "the app does not listen");
                return account.close(ended, 503);
            }
        };
        let over = front.over.notified();
        let mut over = std::pin::pin!(over);
        let fin = poll_fn(|cx| {
            if front.ended() || over.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Fin::TimeOver);
            }
            exchange.poll(cx, &mut app, &mut account)
        })
        .await;
        if fin == Fin::AppDied && reused && may_repeat && account.retries < MOST_RETRIES {
            account.retried();
            exchange.upload.out.rewind();
            exchange.upload.broken = false;
            continue;
        }
        if let (Fin::Done, Some(response)) = (fin, exchange.answer.response)
            && response.app_keeps
            && exchange.upload.is_done()
            && !exchange.answer.excess
        {
            if let Some(seconds) = response.idle_hint_s {
                front.pool.learn_s(seconds);
            }
            front.pool.put(app, clock::coarse_ms());
        }
        break fin;
    };
    settle(front, account, exchange, fin);
}

fn settle(front: &Front, account: Account, exchange: Exchange, fin: Fin) {
    let Exchange { upload, mut answer } = exchange;
    front.recycle(upload.out.into_bytes());
    let status = answer.response.map_or(0, |response| response.status);
    match (fin, &mut answer.send) {
        (Fin::Done, _) => account.close(Ended::Answered, status),
        (Fin::AppDied | Fin::BadAnswer | Fin::CutByApp, None) => {
            say(&mut answer.respond, 502, "the app ended the connection before it answered");
            account.close(Ended::BadGateway, 502);
        }
        (Fin::TimeOver, None) => {
            say(&mut answer.respond, 503, "this instance has to go away now");
            account.close(Ended::Shed, 503);
        }
        (Fin::AppDied | Fin::BadAnswer | Fin::CutByApp, Some(send)) => {
            send.send_reset(Reason::INTERNAL_ERROR);
            account.close(Ended::CutByApp, status);
        }
        (Fin::TimeOver, Some(send)) => {
            send.send_reset(Reason::CANCEL);
            front.page.add(Slot::Forced, 1);
            account.close(Ended::CutAtDeadline, status);
        }
        (Fin::ClientGone, _) => account.close(Ended::ClientGone, status),
    }
}

/// The request's head for HTTP/1.1 (RFC 9113 section 8.3.1, the other way round).
fn write_head(out: &mut Vec<u8>, parts: &Parts, what: &request::Request, front: &Front, peer: IpAddr) {
    out.extend_from_slice(parts.method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(target(parts).as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let authority = parts.uri.authority().map(|authority| authority.as_str().as_bytes());
    let host = authority.or_else(|| parts.headers.get("host").map(HeaderValue::as_bytes));
    match host {
        Some(host) => write_field(out, b"Host", host),
        None => request::write_own_host(out, &front.config.upstream),
    }
    // Crumbs of a cookie become one field again (RFC 9113 section 8.2.3).
    let crumbs: Vec<&[u8]> = parts.headers.get_all("cookie").iter().map(HeaderValue::as_bytes).collect();
    if !crumbs.is_empty() {
        write_field(out, b"cookie", &crumbs.join(&b"; "[..]));
    }
    let mut trailers = false;
    for (name, value) in &parts.headers {
        match fields::kind(name.as_str().as_bytes()) {
            Kind::Te => trailers |= value.as_bytes().eq_ignore_ascii_case(b"trailers"),
            Kind::Host
            | Kind::Connection
            | Kind::ContentLength
            | Kind::TransferEncoding
            | Kind::Upgrade
            | Kind::HopByHop
            // The body is on its way already: there is nothing to continue.
            | Kind::Expect
            | Kind::Disguised => {}
            Kind::ForwardedFor if front.config.forwarded == Forwarded::XForwarded => {}
            Kind::Forwarded if front.config.forwarded == Forwarded::Forwarded => {}
            Kind::UserAgent
            | Kind::RequestId
            | Kind::ForwardedFor
            | Kind::ForwardedProto
            | Kind::ForwardedHost
            | Kind::Forwarded
            | Kind::ContentType
            | Kind::Other => {
                if name.as_str() != "cookie" {
                    write_field(out, name.as_str().as_bytes(), value.as_bytes());
                }
            }
        }
    }
    request::write_who(out, front, &parts.headers, host, peer);
    match what.framing {
        request::Framing::None => {}
        request::Framing::Length(length) => write_field(out, b"content-length", length.to_string().as_bytes()),
        request::Framing::Chunked => write_field(out, b"transfer-encoding", b"chunked"),
    }
    if trailers {
        write_field(out, b"connection", b"TE");
        write_field(out, b"te", b"trailers");
    }
    out.extend_from_slice(b"\r\n");
}

struct Exchange {
    upload: Upload,
    answer: Answer,
}

/// The request's body on its way to the app.
#[expect(clippy::struct_excessive_bools, reason = "independent facts about an upload")]
struct Upload {
    body: RecvStream,
    out: Outgoing,
    chunked: bool,
    data_done: bool,
    done: bool,
    broken: bool,
    /// Bytes that the client may send again once these are with the app.
    credit: usize,
}

impl Upload {
    const fn is_done(&self) -> bool {
        self.done && self.out.is_empty()
    }

    fn poll(&mut self, cx: &mut Context<'_>, app: &mut Stream) -> Option<Fin> {
        while !self.is_done() && !self.broken {
            match self.out.poll_write(app, cx) {
                Poll::Pending => return None,
                Poll::Ready(Err(_)) => {
                    self.broken = true;
                    return None;
                }
                Poll::Ready(Ok(())) => {}
            }
            if self.credit > 0 {
                let _ = self.body.flow_control().release_capacity(std::mem::take(&mut self.credit));
            }
            if self.done {
                return None;
            }
            self.out.clear();
            if !self.data_done {
                match self.body.poll_data(cx) {
                    Poll::Pending => return None,
                    Poll::Ready(Some(Err(_))) => return Some(Fin::ClientGone),
                    Poll::Ready(None) => self.data_done = true,
                    Poll::Ready(Some(Ok(data))) => {
                        self.credit = data.len();
                        if self.chunked {
                            chunked::encode_chunk(self.out.end(), &data);
                        } else {
                            self.out.end().extend_from_slice(&data);
                        }
                        continue;
                    }
                }
            }
            match self.body.poll_trailers(cx) {
                Poll::Pending => return None,
                Poll::Ready(Err(_)) => return Some(Fin::ClientGone),
                Poll::Ready(Ok(trailers)) => {
                    if self.chunked {
                        let mut lines = Vec::new();
                        for (name, value) in trailers.iter().flatten() {
                            if chunked::may_trail(name.as_str().as_bytes()) {
                                write_field(&mut lines, name.as_str().as_bytes(), value.as_bytes());
                            }
                        }
                        chunked::encode_end(self.out.end(), &lines);
                    }
                    self.done = true;
                }
            }
        }
        None
    }
}

/// What is still to come of the answer's body.
enum Rest {
    Nothing,
    Length(u64),
    Chunked(Box<Decoder>),
    UntilClose,
}

/// The answer on its way to the client.
struct Answer {
    asked: Asked,
    respond: SendResponse<Bytes>,
    send: Option<SendStream<Bytes>>,
    /// What flow control has not let through yet.
    pending: Bytes,
    partial: Vec<u8>,
    rest: Rest,
    trailers: Option<HeaderMap>,
    response: Option<response::Response>,
    began: bool,
    complete: bool,
    excess: bool,
}

impl Exchange {
    fn poll(&mut self, cx: &mut Context<'_>, app: &mut Stream, account: &mut Account) -> Poll<Fin> {
        if let Some(fin) = self.upload.poll(cx, app) {
            return Poll::Ready(fin);
        }
        let reset = match &mut self.answer.send {
            Some(send) => send.poll_reset(cx),
            None => self.answer.respond.poll_reset(cx),
        };
        if reset.is_ready() {
            return Poll::Ready(Fin::ClientGone);
        }
        loop {
            if ready!(self.answer.poll_send(cx)).is_err() {
                return Poll::Ready(Fin::ClientGone);
            }
            if self.answer.complete {
                return Poll::Ready(Fin::Done);
            }
            let answer = &mut self.answer;
            match ready!(app.poll_take(cx, |bytes, _| answer.take(bytes))) {
                Ok(Ok(())) => {}
                Ok(Err(fin)) => return Poll::Ready(fin),
                Err(_) => return Poll::Ready(if self.answer.began { Fin::CutByApp } else { Fin::AppDied }),
            }
            account.sent(clock::coarse_ms());
            account.answer_began();
        }
    }
}

impl Answer {
    /// Sends what flow control lets through (RFC 9113 section 5.2). Ready: everything is sent, the end too if it is there.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        let Some(send) = &mut self.send else { return Poll::Ready(Ok(())) };
        while !self.pending.is_empty() {
            send.reserve_capacity(self.pending.len());
            let capacity = match send.capacity() {
                0 => ready!(send.poll_capacity(cx)),
                n => Some(Ok(n)),
            };
            match capacity {
                Some(Ok(0)) => {}
                Some(Ok(n)) => {
                    let part = self.pending.split_to(n.min(self.pending.len()));
                    let last = self.pending.is_empty() && self.complete && self.trailers.is_none();
                    send.send_data(part, last)?;
                    if last {
                        self.send_ended();
                        return Poll::Ready(Ok(()));
                    }
                }
                Some(Err(error)) => return Poll::Ready(Err(error)),
                None => return Poll::Ready(Err(h2::Error::from(Reason::CANCEL))),
            }
        }
        if self.complete && !matches!(self.rest, Rest::Nothing) {
            match self.trailers.take() {
                Some(trailers) => send.send_trailers(trailers)?,
                None => send.send_data(Bytes::new(), true)?,
            }
            self.send_ended();
        }
        Poll::Ready(Ok(()))
    }

    fn send_ended(&mut self) {
        self.rest = Rest::Nothing;
    }

    /// Takes in what the app sent (nothing: it closed).
    fn take(&mut self, bytes: &[u8]) -> Result<(), Fin> {
        if bytes.is_empty() {
            return self.app_closed();
        }
        self.began = true;
        if self.response.is_some() {
            return self.body(bytes);
        }
        if self.partial.is_empty() {
            return self.heads(bytes);
        }
        let mut all = std::mem::take(&mut self.partial);
        all.extend_from_slice(bytes);
        self.heads(&all)
    }

    fn heads(&mut self, mut bytes: &[u8]) -> Result<(), Fin> {
        loop {
            let head = response::read_for_http2(bytes, self.asked).map_err(|_| Fin::BadAnswer)?;
            let Some((head, fields)) = head else {
                self.partial.extend_from_slice(bytes);
                return Ok(());
            };
            bytes = &bytes[head.length..];
            let mut response = Response::new(());
            *response.status_mut() = StatusCode::from_u16(head.status).map_err(|_| Fin::BadAnswer)?;
            *response.headers_mut() = fields;
            if head.is_interim() {
                self.respond.send_informational(response).map_err(|_| Fin::ClientGone)?;
                if bytes.is_empty() {
                    return Ok(());
                }
                continue;
            }
            self.response = Some(head);
            self.rest = match head.framing {
                Framing::None | Framing::Length(0) => Rest::Nothing,
                Framing::Length(length) => Rest::Length(length),
                Framing::Chunked => Rest::Chunked(Box::default()),
                Framing::UntilClose => Rest::UntilClose,
            };
            self.complete = matches!(self.rest, Rest::Nothing);
            self.send = Some(self.respond.send_response(response, self.complete).map_err(|_| Fin::ClientGone)?);
            return if bytes.is_empty() { Ok(()) } else { self.body(bytes) };
        }
    }

    fn body(&mut self, bytes: &[u8]) -> Result<(), Fin> {
        if self.complete {
            self.excess = true;
            return Ok(());
        }
        match &mut self.rest {
            Rest::Nothing => {}
            Rest::UntilClose => self.pending = Bytes::copy_from_slice(bytes),
            Rest::Length(left) => {
                let n = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= n as u64;
                self.pending = Bytes::copy_from_slice(&bytes[..n]);
                self.complete = *left == 0;
                self.excess |= n < bytes.len();
            }
            Rest::Chunked(decoder) => {
                let mut payload = Vec::with_capacity(bytes.len());
                let n =
                    decoder.decode(bytes, &mut |piece| payload.extend_from_slice(piece)).map_err(|_| Fin::CutByApp)?;
                if decoder.is_done() {
                    self.trailers = trailers(decoder.trailers());
                    self.complete = true;
                    self.excess |= n < bytes.len();
                }
                self.pending = payload.into();
            }
        }
        Ok(())
    }

    fn app_closed(&mut self) -> Result<(), Fin> {
        match (&self.rest, self.response.is_some()) {
            (_, false) => Err(if self.began { Fin::BadAnswer } else { Fin::AppDied }),
            (Rest::UntilClose, true) => {
                self.complete = true;
                Ok(())
            }
            (Rest::Nothing | Rest::Length(_) | Rest::Chunked(_), true) => Err(Fin::CutByApp),
        }
    }
}

/// Trailers from their lines; `None` where there are none.
fn trailers(lines: &[u8]) -> Option<HeaderMap> {
    let mut fields = HeaderMap::new();
    for line in lines.split(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let Some(colon) = memchr::memchr(b':', line) else { continue };
        let (name, value) = (HeaderName::from_bytes(&line[..colon]), line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value)) {
            fields.append(name, value);
        }
    }
    (!fields.is_empty()).then_some(fields)
}
