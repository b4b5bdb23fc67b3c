//! One request and its answer, over HTTP/1.1 on both sides. [`run`] is the path of a request, from top to bottom.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use lameduck_core::front::{FrontPhase, Slot};

use crate::access::{self, Ended};
use crate::chunked::{self, Decoder};
use crate::clock;
use crate::connection::{Client, leaving};
use crate::message::request::{self, Request, Told};
use crate::message::response::{self, Asked, Response};
use crate::message::reply;
use crate::sse::Events;
use crate::state::{Conn, Doing, Front, Order};
use crate::upstream::{self, NoApp, Taken};
use crate::wire::{Outgoing, Stream};

/// How often a request in flight looks whether its client is still there, and moves.
const LOOK: Duration = Duration::from_secs(1);
/// Times that a request is sent again.
const MOST_RETRIES: u32 = 3;

/// A request whose head has come.
#[derive(Debug)]
pub struct Incoming {
    /// What it is.
    pub request: Request,
    /// Its head as the app is to see it, and what came of its body with it.
    pub bytes: Vec<u8>,
    /// What is still to come of its body.
    pub body: Body,
    /// For the access log.
    pub told: Option<Told>,
    /// When it came, in microseconds; only where there is a log.
    pub at_us: u64,
}

/// What is still to come of a request's body.
#[derive(Debug)]
pub enum Body {
    /// Nothing.
    Done,
    /// This many bytes.
    Length(u64),
    /// Chunks.
    Chunked(Box<Decoder>),
}

impl Body {
    /// What a request's head promises.
    pub fn of(framing: request::Framing) -> Body {
        match framing {
            request::Framing::None | request::Framing::Length(0) => Body::Done,
            request::Framing::Length(length) => Body::Length(length),
            request::Framing::Chunked => Body::Chunked(Box::default()),
        }
    }

    const fn is_done(&self) -> bool {
        matches!(self, Body::Done)
    }

    /// Takes what belongs to the body from the beginning of `input` and adds it to `out` as the app is to see it. Returns
    /// how much that was.
    pub fn take(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<usize, chunked::Wrong> {
        match self {
            Body::Done => Ok(0),
            Body::Length(left) => {
                let n = input.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                out.extend_from_slice(&input[..n]);
                *left -= n as u64;
                if *left == 0 {
                    *self = Body::Done;
                }
                Ok(n)
            }
            Body::Chunked(decoder) => {
                let n = decoder.decode(input, &mut |piece| chunked::encode_chunk(out, piece))?;
                if decoder.is_done() {
                    chunked::encode_end(out, decoder.trailers());
                    *self = Body::Done;
                }
                Ok(n)
            }
        }
    }
}

/// What becomes of the client's connection.
#[derive(Debug)]
pub enum After {
    /// The next request.
    Keep,
    /// Our side is closed, what still comes is read.
    Linger,
    /// The end.
    Close,
    /// It is a tunnel now.
    Tunnel(Box<Switched>),
}

/// A connection whose protocol was switched.
#[derive(Debug)]
pub struct Switched {
    /// The app's side.
    pub app: Stream,
    /// To what.
    pub upgrade: request::Upgrade,
    /// What the app has sent in the new protocol already.
    pub first: Vec<u8>,
    /// Its request, which is in flight as long as the tunnel is.
    pub account: Account,
}

/// How an attempt at an exchange ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fin {
    /// The answer is with the client.
    Done,
    /// The protocol was switched.
    Switched,
    /// The app closed before a byte of its answer.
    AppDied,
    /// The app's answer makes no sense, or ended in its head.
    BadAnswer,
    /// The app's answer ended too early.
    CutByApp,
    /// The client is gone.
    ClientGone,
    /// The request's body is not what it should be.
    BadBody,
    /// The app has not answered in time.
    AppTimeout,
    /// The client neither sends nor reads.
    ClientStalled,
    /// The time is over.
    TimeOver,
    /// A long poll is answered by us.
    LongPoll(u16),
}

/// The request's entry in the books: it is in flight as long as this lives.
#[derive(Debug)]
pub struct Account {
    front: std::rc::Rc<Front>,
    request: Request,
    told: Option<Told>,
    client: std::net::IpAddr,
    phase: FrontPhase,
    at_us: u64,
    app_us: u64,
    held_us: u64,
    retries: u32,
    protocol: &'static str,
}

impl Account {
    /// Enters a request.
    pub fn open(
        front: &std::rc::Rc<Front>,
        client: std::net::IpAddr,
        request: Request,
        told: Option<Told>,
        at_us: u64,
        protocol: &'static str,
    ) -> Account {
        let phase = front.phase();
        if request.probe {
            front.page.add(Slot::Probes, 1);
        } else {
            front.page.add(Slot::InFlight, 1);
            front.arrived(clock::coarse_ms(), client);
            front.page.add(
                match phase {
                    FrontPhase::Serving => Slot::RequestsServing,
                    FrontPhase::LameDuck => Slot::RequestsLameDuck,
                    FrontPhase::Closing | FrontPhase::Closed => Slot::RequestsClosing,
                },
                1,
            );
        }
        let front = std::rc::Rc::clone(front);
        Account { front, request, told, client, phase, at_us, app_us: 0, held_us: 0, retries: 0, protocol }
    }

    /// The app's answer has begun.
    pub fn answer_began(&mut self) {
        if self.told.is_some() && self.app_us == 0 {
            self.app_us = clock::precise_us();
        }
    }

    /// The request was held since then.
    pub fn held_since(&mut self, us: u64) {
        self.held_us = clock::precise_us().saturating_sub(us);
    }

    /// A part of the answer was sent.
    pub fn sent(&self, now_ms: u64) {
        if !self.request.probe {
            self.front.page.set(Slot::LastSent, now_ms);
        }
    }

    /// It is sent again.
    pub fn retried(&mut self) {
        self.retries += 1;
        self.front.page.add(Slot::RetriedReused, 1);
    }

    /// Settles it.
    pub fn close(self, ended: Ended, status: u16) {
        if !self.request.probe {
            self.front.page.add(ended.slot(), 1);
            if ended == Ended::Answered && status >= 500 {
                self.front.page.add(Slot::AppErrors, 1);
            }
        }
        let (Some(log), Some(told)) = (&self.front.log, &self.told) else { return };
        let now = clock::precise_us();
        let seconds = |us: u64| us as f64 / 1e6;
        log.add(
            &access::Line {
                schema: access::SCHEMA,
                time: seconds(clock::wall_us().saturating_sub(now.saturating_sub(self.at_us))),
                id: &told.id,
                client: self.client,
                protocol: self.protocol,
                method: &told.method,
                target: &told.target,
                status,
                phase: self.phase.name(),
                probe: self.request.probe,
                ended,
                took_s: seconds(now.saturating_sub(self.at_us)),
                app_s: (self.app_us > 0).then(|| seconds(self.app_us.saturating_sub(self.at_us))),
                held_s: seconds(self.held_us),
                retries: self.retries,
            },
            self.front.page,
        );
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        if !self.request.probe {
            self.front.page.sub(Slot::InFlight, 1);
        }
    }
}

/// Serves one request.
pub async fn run(front: &std::rc::Rc<Front>, client: &mut Client, incoming: Box<Incoming>) -> After {
    let Incoming { request, bytes, body, told, at_us } = *incoming;
    let conn = std::rc::Rc::clone(client.conn());
    let mut account = Account::open(front, client.peer, request, told, at_us, "HTTP/1.1");
    let over_limit = front.config.max_requests > 0 && front.page.get(Slot::InFlight) > front.config.max_requests as u64;
    let late = front.ended();
    if (request.health && front.not_ready()) || ((over_limit || late) && !request.probe) {
        front.recycle(bytes);
        let (text, ended) = if request.health && front.not_ready() {
            ("this instance is going away", Ended::Answered)
        } else {
            ("too many requests here: try again", Ended::Shed)
        };
        let after = say(front, client, &request, body.is_done(), 503, text).await;
        account.close(ended, 503);
        return after;
    }
    conn.now_doing(if request.long_poll.is_some() { Doing::LongPoll } else { Doing::Exchange }, clock::coarse_ms());
    // With the whole request in hand it can be sent once more.
    let may_repeat = request.idempotent && body.is_done() && request.upgrade.is_none();
    let mut upload = Upload { out: Outgoing::new(bytes), body, broken: false };
    loop {
        let asked_us = if account.told.is_some() { clock::precise_us() } else { 0 };
        let held = upload.out.bytes().len();
        let taken = if account.retries == 0 {
            upstream::take(front, &conn, held, may_repeat, || client.stream.is_broken()).await
        } else {
            let left = || client.stream.is_broken();
            upstream::open(front, &conn, held, left).await.map(|stream| Taken { stream, reused: false })
        };
        if account.told.is_some() {
            account.held_since(asked_us);
        }
        let Taken { stream: app, reused } = match taken {
            Ok(taken) => taken,
            Err(no_app) => return without_app(front, client, &request, account, &upload, no_app).await,
        };
        conn.expire_after(clock::coarse_ms(), LOOK);
        let mut exchange = Exchange {
            app,
            answer: Answer::new(front, &request),
            upload,
            conn: &conn,
            request: &request,
            moved_ms: clock::coarse_ms(),
        };
        let fin = poll_fn(|cx| exchange.poll(cx, client, &mut account)).await;
        let Exchange { app, answer, upload: after_upload, .. } = exchange;
        if fin == Fin::AppDied && reused && may_repeat && account.retries < MOST_RETRIES {
            account.retried();
            upload = after_upload;
            upload.out.rewind();
            upload.broken = false;
            continue;
        }
        return settle(front, client, account, app, answer, after_upload, fin).await;
    }
}

/// Settles the books and the two connections.
async fn settle(
    front: &std::rc::Rc<Front>,
    client: &mut Client,
    account: Account,
    app: Stream,
    answer: Answer,
    upload: Upload,
    fin: Fin,
) -> After {
    let request = account.request;
    let all_sent = upload.is_done();
    let status = answer.response.map_or(0, |response| response.status);
    match (fin, answer.response) {
        (Fin::Done, Some(response)) => {
            if response.app_keeps && all_sent && !answer.excess && !answer.cut_short {
                if let Some(seconds) = response.idle_hint_s {
                    front.pool.learn_s(seconds);
                }
                front.pool.put(app, clock::coarse_ms());
            }
            if answer.cut_short {
                front.page.add(Slot::ShedStream, 1);
            }
            front.recycle(upload.out.into_bytes());
            front.recycle(answer.out.into_bytes());
            account.close(Ended::Answered, status);
            if response.closes || answer.cut_short || !all_sent {
                if response.closes && request.keep_alive && front.draining() {
                    front.page.add(Slot::ShedByHeader, 1);
                }
                After::Linger
            } else {
                After::Keep
            }
        }
        (Fin::Switched, Some(_)) => After::Tunnel(Box::new(Switched {
            app,
            upgrade: request.upgrade.unwrap_or(request::Upgrade::Other),
            first: answer.partial,
            account,
        })),
        (Fin::AppDied | Fin::BadAnswer, None) => {
            let text = "the app ended the connection before it answered";
            let after = say(front, client, &request, all_sent, 502, text).await;
            account.close(Ended::BadGateway, 502);
            after
        }
        (Fin::AppTimeout, None) => {
            let after = say(front, client, &request, all_sent, 504, "the app did not answer in time").await;
            account.close(Ended::GatewayTimeout, 504);
            after
        }
        (Fin::LongPoll(status), None) => {
            let after = say(front, client, &request, all_sent, status, "poll again").await;
            front.page.add(Slot::ShedLongPoll, 1);
            account.close(Ended::Answered, status);
            after
        }
        (Fin::BadBody, None) => {
            let _ = say(front, client, &request, false, 400, "the request's body is not properly chunked").await;
            account.close(Ended::Refused, 400);
            After::Linger
        }
        (Fin::ClientStalled, None) => {
            let _ = say(front, client, &request, false, 408, "the request's body did not come in time").await;
            account.close(Ended::ClientGone, 408);
            After::Linger
        }
        (Fin::TimeOver, None) => {
            let after = say(front, client, &request, false, 503, "this instance has to go away now").await;
            account.close(Ended::Shed, 503);
            after
        }
        (Fin::TimeOver, Some(_)) => {
            front.page.add(Slot::Forced, 1);
            account.close(Ended::CutAtDeadline, status);
            After::Close
        }
        (Fin::CutByApp | Fin::AppDied | Fin::BadAnswer | Fin::AppTimeout, _) => {
            account.close(Ended::CutByApp, status);
            After::Close
        }
        (
            Fin::Done
            | Fin::Switched
            | Fin::ClientGone
            | Fin::BadBody
            | Fin::ClientStalled
            | Fin::LongPoll(_),
            _,
        ) => {
            account.close(Ended::ClientGone, status);
            After::Close
        }
    }
}

async fn without_app(
    front: &Front,
    client: &mut Client,
    request: &Request,
    account: Account,
    upload: &Upload,
    no_app: NoApp,
) -> After {
    let (status, text, ended) = match no_app {
        NoApp::NotListening => (503, "the app does not listen", Ended::BadGateway),
        NoApp::Full => (503, "too many requests wait for the app", Ended::Shed),
        NoApp::Gone => (503, "the app has ended", Ended::BadGateway),
        NoApp::Ended => (503, "this instance has to go away now", Ended::Shed),
        NoApp::ClientGone => {
            account.close(Ended::ClientGone, 0);
            return After::Close;
        }
    };
    let after = say(front, client, request, upload.body.is_done(), status, text).await;
    account.close(ended, status);
    after
}

/// Answers in the front's own name. `all_read`: the request was read to its end, so that another one may follow.
async fn say(
    front: &Front,
    client: &mut Client,
    request: &Request,
    all_read: bool,
    status: u16,
    text: &str,
) -> After {
    let keep = all_read && request.keep_alive && status != 400 && !leaving(front, client.conn(), client.carry.is_empty());
    let mut out = Outgoing::default();
    reply::write(out.end(), status, text, keep, request.head);
    client.conn().expire_after(clock::coarse_ms(), front.config.linger);
    let written = poll_fn(|cx| {
        client.conn().keep_waker(cx.waker());
        match client.conn().take_order() {
            Some(Order::Expired) => Poll::Ready(false),
            _ => out.poll_flush(&mut client.stream, cx).map(|flushed| flushed.is_ok()),
        }
    });
    match (written.await, keep) {
        (false, _) => After::Close,
        (true, true) => After::Keep,
        (true, false) => After::Linger,
    }
}

/// The request on its way to the app.
#[derive(Debug)]
struct Upload {
    /// What is to be written. The first part is kept until the answer begins, to be sent again where that is safe.
    out: Outgoing,
    body: Body,
    /// The app does not take it any more. It may have answered all the same.
    broken: bool,
}

impl Upload {
    const fn is_done(&self) -> bool {
        self.body.is_done() && self.out.is_empty()
    }
}

/// The answer on its way to the client.
#[derive(Debug)]
struct Answer {
    asked: Asked,
    /// A part of a head; after a switch of protocols, what followed it.
    partial: Vec<u8>,
    out: Outgoing,
    response: Option<Response>,
    rest: Rest,
    events: Events,
    /// An event stream ends with its next event.
    ends_with_event: bool,
    /// It did.
    cut_short: bool,
    /// Whether a byte of an answer has come, be it an interim one.
    began: bool,
    /// More came than the answer has.
    excess: bool,
    complete: bool,
}

/// What is still to come of the answer's body.
#[derive(Debug)]
enum Rest {
    Nothing,
    Length(u64),
    Chunked(Box<Decoder>),
    UntilClose,
}

impl Answer {
    fn new(front: &Front, request: &Request) -> Answer {
        Answer {
            asked: Asked {
                head: request.head,
                http10: request.http10,
                keep_alive: request.keep_alive,
                upgrade: request.upgrade.is_some(),
            },
            partial: Vec::new(),
            out: Outgoing::new(front.buffer()),
            response: None,
            rest: Rest::Nothing,
            events: Events::new(),
            ends_with_event: false,
            cut_short: false,
            began: false,
            excess: false,
            complete: false,
        }
    }

    /// Takes in what the app sent (nothing: it closed) and passes on what the client is to see.
    fn take(&mut self, bytes: &[u8], client: &mut Stream, cx: &mut Context<'_>) -> Result<(), Fin> {
        if bytes.is_empty() {
            return self.app_closed();
        }
        self.began = true;
        if self.response.is_some() {
            let direct = self.body(bytes)?;
            return self.out.send(client, cx, direct).map_err(|_| Fin::ClientGone);
        }
        if self.partial.is_empty() {
            let direct = self.heads(bytes)?;
            return self.out.send(client, cx, direct).map_err(|_| Fin::ClientGone);
        }
        let mut all = std::mem::take(&mut self.partial);
        all.extend_from_slice(bytes);
        let direct = self.heads(&all)?;
        self.out.send(client, cx, direct).map_err(|_| Fin::ClientGone)
    }

    /// Reads interim heads and the head of the answer; returns what of the body can be written from where it is.
    fn heads<'a>(&mut self, mut bytes: &'a [u8]) -> Result<&'a [u8], Fin> {
        loop {
            let Some(head) = response::read(bytes, &self.asked, self.out.end()).map_err(|_| Fin::BadAnswer)? else {
                self.partial.extend_from_slice(bytes);
                return Ok(&[]);
            };
            bytes = &bytes[head.length..];
            if head.is_interim() {
                // HTTP/1.0 knows none (RFC 9110 section 15.2).
                if self.asked.http10 {
                    self.out.clear();
                }
                if bytes.is_empty() {
                    return Ok(&[]);
                }
                continue;
            }
            self.response = Some(head);
            if head.status == 101 {
                self.partial.extend_from_slice(bytes);
                self.complete = true;
                return Ok(&[]);
            }
            self.rest = match head.framing {
                response::Framing::None | response::Framing::Length(0) => Rest::Nothing,
                response::Framing::Length(length) => Rest::Length(length),
                response::Framing::Chunked => Rest::Chunked(Box::default()),
                response::Framing::UntilClose => Rest::UntilClose,
            };
            if matches!(self.rest, Rest::Nothing) {
                self.complete = true;
            }
            return self.body(bytes);
        }
    }

    /// Takes in a part of the body; returns what of it can be written from where it is.
    fn body<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], Fin> {
        if self.complete {
            self.excess |= !bytes.is_empty();
            return Ok(&[]);
        }
        let chunked = self.response.is_some_and(|response| response.chunked_to(&self.asked));
        let events = self.response.is_some_and(|response| response.events);
        match &mut self.rest {
            Rest::Nothing => Ok(&[]),
            Rest::Length(left) => {
                let n = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= n as u64;
                self.complete = *left == 0;
                self.excess |= n < bytes.len();
                Ok(&bytes[..n])
            }
            Rest::UntilClose if !chunked => Ok(bytes),
            Rest::UntilClose => {
                let ended = pass(bytes, events, self.ends_with_event, &mut self.events, self.out.end());
                self.end_with_event(ended);
                Ok(&[])
            }
            Rest::Chunked(decoder) => {
                let mut ended = false;
                let out = self.out.end();
                let (tracker, ends) = (&mut self.events, self.ends_with_event);
                let decoded = decoder.decode(bytes, &mut |piece| {
                    if ended {
                    } else if chunked {
                        ended = pass(piece, events, ends, tracker, out);
                    } else {
                        out.extend_from_slice(piece);
                    }
                });
                let n = decoded.map_err(|_| Fin::CutByApp)?;
                if ended {
                    self.end_with_event(true);
                } else if decoder.is_done() {
                    if chunked {
                        chunked::encode_end(self.out.end(), decoder.trailers());
                    }
                    self.excess |= n < bytes.len();
                    self.complete = true;
                }
                Ok(&[])
            }
        }
    }

    /// An event stream is to end: now, if it is between two events, or else with the next one.
    fn end_events(&mut self) {
        self.ends_with_event = true;
        let events = self.response.is_some_and(|response| response.events && response.chunked_to(&self.asked));
        if events && !self.complete && self.events.at_boundary() {
            self.end_with_event(true);
        }
    }

    fn end_with_event(&mut self, ended: bool) {
        if ended {
            chunked::encode_end(self.out.end(), b"");
            (self.complete, self.cut_short) = (true, true);
        }
    }

    fn app_closed(&mut self) -> Result<(), Fin> {
        match (&self.rest, self.response) {
            (_, None) => Err(if self.began { Fin::BadAnswer } else { Fin::AppDied }),
            (Rest::UntilClose, Some(response)) => {
                if response.chunked_to(&self.asked) {
                    chunked::encode_end(self.out.end(), b"");
                }
                self.complete = true;
                Ok(())
            }
            (Rest::Nothing | Rest::Length(_) | Rest::Chunked(_), Some(_)) => Err(Fin::CutByApp),
        }
    }
}

/// Passes payload on as a chunk; where it is a stream of events that is to end, only up to the end of an event: then `true`.
fn pass(payload: &[u8], events: bool, ends: bool, tracker: &mut Events, out: &mut Vec<u8>) -> bool {
    if events && ends {
        let end = tracker.next_boundary(payload);
        chunked::encode_chunk(out, &payload[..end.unwrap_or(payload.len())]);
        return end.is_some();
    }
    if events {
        tracker.advance(payload);
    }
    chunked::encode_chunk(out, payload);
    false
}

/// A request and its answer, on their ways.
struct Exchange<'a> {
    app: Stream,
    upload: Upload,
    answer: Answer,
    conn: &'a Conn,
    request: &'a Request,
    /// When anything last moved, in ms.
    moved_ms: u64,
}

impl Exchange<'_> {
    fn poll(&mut self, cx: &mut Context<'_>, client: &mut Client, account: &mut Account) -> Poll<Fin> {
        self.conn.keep_waker(cx.waker());
        if let Some(order) = self.conn.take_order()
            && let Some(fin) = self.obey(order, client, account)
        {
            return Poll::Ready(fin);
        }
        if let Some(fin) = self.poll_upload(cx, client) {
            return Poll::Ready(fin);
        }
        self.poll_answer(cx, client, account)
    }

    /// Moves the request's body on. What came of a dead app is seen by who reads its answer.
    fn poll_upload(&mut self, cx: &mut Context<'_>, client: &mut Client) -> Option<Fin> {
        while !self.upload.is_done() && !self.upload.broken {
            match self.upload.out.poll_write(&mut self.app, cx) {
                Poll::Pending => return None,
                Poll::Ready(Err(_)) => {
                    self.upload.broken = true;
                    return None;
                }
                Poll::Ready(Ok(())) => {}
            }
            if self.upload.body.is_done() {
                return None;
            }
            self.upload.out.clear();
            let Upload { out, body, .. } = &mut self.upload;
            let (carry, app) = (&mut client.carry, &mut self.app);
            let taken = client.stream.poll_take(cx, |bytes, cx| {
                if bytes.is_empty() {
                    return Err(Fin::ClientGone);
                }
                if let Body::Length(left) = body {
                    let n = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    carry.extend_from_slice(&bytes[n..]);
                    *left -= n as u64;
                    if *left == 0 {
                        *body = Body::Done;
                    }
                    return out.send(app, cx, &bytes[..n]).map_err(|_| Fin::AppDied);
                }
                let n = body.take(bytes, out.end()).map_err(|_| Fin::BadBody)?;
                carry.extend_from_slice(&bytes[n..]);
                Ok(())
            });
            match taken {
                Poll::Pending => return None,
                Poll::Ready(Err(_)) => return Some(Fin::ClientGone),
                Poll::Ready(Ok(Err(Fin::AppDied))) => self.upload.broken = true,
                Poll::Ready(Ok(Err(fin))) => return Some(fin),
                Poll::Ready(Ok(Ok(()))) => self.moved_ms = clock::coarse_ms(),
            }
        }
        None
    }

    /// Moves the answer on.
    fn poll_answer(&mut self, cx: &mut Context<'_>, client: &mut Client, account: &mut Account) -> Poll<Fin> {
        loop {
            if !self.answer.out.is_empty() {
                if ready!(self.answer.out.poll_flush(&mut client.stream, cx)).is_err() {
                    return Poll::Ready(Fin::ClientGone);
                }
                self.moved(account);
            }
            if self.answer.complete {
                let switched = self.answer.response.is_some_and(|response| response.status == 101);
                return Poll::Ready(if switched { Fin::Switched } else { Fin::Done });
            }
            if self.answer.response.is_none() {
                let may_keep = self.request.keep_alive && self.upload.is_done();
                let leaves = leaving(&account.front, self.conn, client.carry.is_empty());
                self.answer.asked.keep_alive = may_keep && !leaves;
            }
            let Exchange { app, answer, .. } = self;
            let stream = &mut client.stream;
            match ready!(app.poll_take(cx, |bytes, cx| answer.take(bytes, stream, cx))) {
                Ok(Ok(())) => {}
                Ok(Err(fin)) => return Poll::Ready(fin),
                Err(_) if self.answer.began => {
                    let fin = if self.answer.response.is_some() { Fin::CutByApp } else { Fin::BadAnswer };
                    return Poll::Ready(fin);
                }
                Err(_) => return Poll::Ready(Fin::AppDied),
            }
            self.moved(account);
            if self.answer.response.is_some_and(|response| response.events) && self.conn.doing.get() == Doing::Exchange {
                self.conn.now_doing(Doing::Events, clock::coarse_ms());
            }
        }
    }

    fn moved(&mut self, account: &mut Account) {
        self.moved_ms = clock::coarse_ms();
        account.sent(self.moved_ms);
        account.answer_began();
    }

    fn obey(&mut self, order: Order, client: &Client, account: &Account) -> Option<Fin> {
        match order {
            Order::End => Some(Fin::TimeOver),
            Order::Leave => {
                self.conn.doing.set(Doing::Leaving);
                if self.answer.response.is_some() {
                    self.answer.end_events();
                    None
                } else {
                    self.request.long_poll.map(Fin::LongPoll)
                }
            }
            Order::Look | Order::Expired => self.look(client, account),
        }
    }

    /// Whether it makes sense to go on.
    fn look(&self, client: &Client, account: &Account) -> Option<Fin> {
        let now = clock::coarse_ms();
        self.conn.expire_after(now, LOOK);
        let front = &account.front;
        if client.stream.is_broken() {
            return Some(Fin::ClientGone);
        }
        let still_ms = now.saturating_sub(self.moved_ms);
        let over = |limit: Duration| !limit.is_zero() && still_ms >= limit.as_millis() as u64;
        let waits_for_reader = !self.answer.out.is_empty();
        let waits_for_body = !self.upload.body.is_done() && self.upload.out.is_empty() && !self.upload.broken;
        if waits_for_reader || (waits_for_body && !self.answer.began) {
            let stalls = over(front.config.body_timeout)
                || (front.draining() && over(front.config.first_byte_grace));
            return stalls.then_some(Fin::ClientStalled);
        }
        let waits_for_app = self.answer.response.is_none() && self.upload.is_done();
        (waits_for_app && over(front.config.upstream_timeout)).then_some(Fin::AppTimeout)
    }
}
