//! One request and its answer, over HTTP/1.1 on both sides. [`run`] is the path of a request, from top to bottom.

use std::borrow::Cow;
use std::future::poll_fn;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use lameduck_core::front::Slot;

use crate::access::Ended;
use crate::account::Account;
use crate::answer::Answer;
use crate::clock;
use crate::connection::{Client, leaving};
use crate::message::body::{Body, take_length};
use crate::message::reply;
use crate::message::request::{self, Request, Told};
use crate::state::{Conn, Doing, Front, LOOK, Order, Waits};
use crate::upstream::{self, NoApp};
use crate::wire::{Outgoing, Stream};

/// Times that a request is sent again.
pub const MOST_RETRIES: u32 = 3;

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

/// What becomes of the client's connection.
#[derive(Debug)]
pub enum After {
    /// The next request.
    Keep,
    /// Our side is closed, what still comes is read.
    Linger,
    /// The same, and what still comes is the rest of what was answered already.
    Discard,
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
pub enum Fin {
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

/// Serves one request.
pub async fn run(front: &std::rc::Rc<Front>, client: &mut Client, incoming: Box<Incoming>) -> After {
    let Incoming { request, bytes, body, told, at_us } = *incoming;
    let conn = std::rc::Rc::clone(client.conn());
    let mut account = Account::open(front, client.peer, request, told, at_us, "HTTP/1.1");
    if let Some((text, ended)) = front.turns_away(&request) {
        front.recycle(bytes);
        return say(client, account, Words { status: 503, text: text.into(), ended, all_read: body.is_done() }).await;
    }
    let now = clock::coarse_ms();
    conn.now_doing(if request.long_poll.is_some() { Doing::LongPoll } else { Doing::Exchange }, now);
    // The deadline of the head, or of being idle, is kept: it is none of a request that is held.
    conn.expire_after(now, Duration::ZERO);
    // With the whole request in hand it can be sent once more.
    let may_repeat = request.idempotent && body.is_done() && request.upgrade.is_none();
    let mut upload = Upload { out: Outgoing::new(bytes), body, broken: false };
    loop {
        let asked_us = account.clock_us();
        let held = upload.out.bytes().len();
        let kept = if account.retries == 0 { front.pool.take(clock::coarse_ms(), may_repeat) } else { None };
        let reused = kept.is_some();
        // What is rare is kept out of the way: a request that finds a connection needs no memory for one that does not.
        let taken = match kept {
            Some(app) => Ok(app),
            None => Box::pin(upstream::open(front, held, || client.stream.is_broken())).await,
        };
        account.held_since(asked_us);
        let app = match taken {
            Ok(app) => app,
            Err(NoApp::ClientGone) => {
                account.close(Ended::ClientGone, 0);
                return After::Close;
            }
            Err(no_app) => {
                let (text, ended) = no_app.words(&front.config.upstream);
                let all_read = upload.body.is_done();
                return say(client, account, Words { status: 503, text, ended, all_read }).await;
            }
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
        return match settle(client, account, app, answer, after_upload, fin) {
            Ok(after) => after,
            Err((account, words)) => say(client, account, words).await,
        };
    }
}

const BAD_BODY: &str = "the request's body is not properly chunked";

/// Refuses a request whose body went wrong where it came, with its head.
pub async fn refuse(front: &std::rc::Rc<Front>, client: &mut Client, incoming: Box<Incoming>) -> After {
    let Incoming { request, told, at_us, .. } = *incoming;
    let account = Account::open(front, client.peer, request, told, at_us, "HTTP/1.1");
    say(client, account, Words { status: 400, text: BAD_BODY.into(), ended: Ended::Refused, all_read: false }).await
}

/// What the front answers in its own name.
struct Words {
    status: u16,
    text: Cow<'static, str>,
    ended: Ended,
    /// Whether the request was read to its end, so that another one may follow.
    all_read: bool,
}

/// Settles the books and the two connections, where there is nothing to be said to the client any more.
#[expect(clippy::result_large_err, reason = "what is not settled yet goes on, once, to who says it")]
fn settle(
    client: &mut Client,
    account: Account,
    app: Stream,
    answer: Answer,
    upload: Upload,
    fin: Fin,
) -> Result<After, (Account, Words)> {
    let front = std::rc::Rc::clone(&account.front);
    let request = account.request;
    let all_sent = upload.is_done();
    let status = answer.response.map_or(0, |response| response.status);
    let say_it = |account, status, text: &'static str, ended| {
        let text = text.into();
        let all_read = all_sent && !matches!(fin, Fin::BadBody | Fin::ClientStalled);
        Err((account, Words { status, text, ended, all_read }))
    };
    if !matches!(fin, Fin::Done | Fin::ClientGone) && answer.ends_with_connection() {
        // To the client the end of the connection is the end of the body: a reset tells that it is not (RFC 9112 section 8).
        client.stream.reset_at_close();
        front.page.add(Slot::ResetsSent, 1);
    }
    match (fin, answer.response) {
        (Fin::Done, Some(response)) => {
            let cut_short = answer.cut_short();
            if response.app_keeps && all_sent && !answer.excess && !cut_short {
                front.pool.give_back(app, response.idle_hint_s, clock::coarse_ms());
            }
            front.page.add(Slot::ShedStream, u64::from(cut_short));
            front.recycle(upload.out.into_bytes());
            front.recycle(answer.out.into_bytes());
            account.answered(status);
            let leaves = response.closes || cut_short;
            if response.closes && request.keep_alive && front.draining() {
                front.page.add(Slot::ShedByHeader, 1);
            }
            Ok(match (all_sent, leaves) {
                (false, _) => After::Discard,
                (true, true) => After::Linger,
                (true, false) => After::Keep,
            })
        }
        (Fin::Switched, Some(_)) => Ok(After::Tunnel(Box::new(Switched {
            app,
            upgrade: request.upgrade.unwrap_or(request::Upgrade::Other),
            first: answer.partial,
            account,
        }))),
        (Fin::AppDied | Fin::BadAnswer, None) => {
            let text = "the app ended the connection before it answered";
            say_it(account, 502, text, Ended::BadGateway)
        }
        (Fin::AppTimeout, None) => say_it(account, 504, "the app did not answer in time", Ended::GatewayTimeout),
        (Fin::LongPoll(status), None) => {
            front.page.add(Slot::ShedLongPoll, 1);
            say_it(account, status, "poll again", Ended::Answered)
        }
        (Fin::BadBody, None) => say_it(account, 400, BAD_BODY, Ended::Refused),
        (Fin::ClientStalled, None) => {
            say_it(account, 408, "the request's body did not come in time", Ended::ClientGone)
        }
        (Fin::TimeOver, None) => say_it(account, 503, reply::TIME_OVER, Ended::Shed),
        (Fin::TimeOver, Some(_)) => {
            front.page.add(Slot::Forced, 1);
            account.close(Ended::CutAtDeadline, status);
            Ok(After::Close)
        }
        (Fin::CutByApp | Fin::AppDied | Fin::BadAnswer | Fin::AppTimeout, _) => {
            account.close(Ended::CutByApp, status);
            Ok(After::Close)
        }
        (Fin::Done | Fin::Switched | Fin::ClientGone | Fin::BadBody | Fin::ClientStalled | Fin::LongPoll(_), _) => {
            account.close(Ended::ClientGone, status);
            Ok(After::Close)
        }
    }
}

/// Answers in the front's own name and settles the books. Rare, so it has its memory to itself.
async fn say(client: &mut Client, account: Account, words: Words) -> After {
    let Words { status, text, ended, all_read } = words;
    let after = Box::pin(write_words(client, &account, status, &text, all_read)).await;
    account.close(ended, status);
    after
}

async fn write_words(client: &mut Client, account: &Account, status: u16, text: &str, all_read: bool) -> After {
    let (front, request) = (&account.front, account.request);
    let keep =
        all_read && request.keep_alive && status != 400 && !leaving(front, client.conn(), client.carry.is_empty());
    let mut out = Outgoing::default();
    reply::write(out.end(), status, text, keep, request.head);
    client.conn().expire_within(clock::coarse_ms(), front.config.linger);
    let written = poll_fn(|cx| {
        client.conn().keep_waker(cx.waker());
        // Written before it is looked for an order, which may be older than the answer.
        match out.poll_flush(&mut client.stream, cx) {
            Poll::Ready(flushed) => Poll::Ready(flushed.is_ok()),
            Poll::Pending if client.conn().take_order() == Some(Order::Expired) => Poll::Ready(false),
            Poll::Pending => Poll::Pending,
        }
    });
    match (written.await, keep) {
        (false, _) => After::Close,
        (true, true) => After::Keep,
        (true, false) if all_read => After::Linger,
        (true, false) => After::Discard,
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
                    let n = take_length(left, bytes.len());
                    carry.extend_from_slice(&bytes[n..]);
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
            if self.answer.response.is_some_and(|response| response.events) && self.conn.doing.get() == Doing::Exchange
            {
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
    fn look(&mut self, client: &Client, account: &Account) -> Option<Fin> {
        let now = clock::coarse_ms();
        self.conn.expire_after(now, LOOK);
        let front = &account.front;
        if client.stream.is_broken() {
            return Some(Fin::ClientGone);
        }
        if !self.answer.out.is_empty() && self.answer.out.press(&client.stream) {
            self.moved_ms = now;
            account.sent(now);
        }
        // A buffer that was needed once is given back: what goes on for long waits most of the time.
        front.recycle(self.answer.out.unused());
        let waits = self.waits();
        let given_up = front.gives_up(waits, now.saturating_sub(self.moved_ms));
        given_up.then_some(match waits {
            Waits::Client | Waits::Leave => Fin::ClientStalled,
            Waits::Taking | Waits::Answer | Waits::More => Fin::AppTimeout,
        })
    }

    fn waits(&self) -> Waits {
        if !self.answer.out.is_empty() {
            return Waits::Client;
        }
        if self.answer.response.is_some() {
            return Waits::More;
        }
        match (self.upload.is_done() || self.upload.broken, self.upload.out.is_empty()) {
            (true, _) => Waits::Answer,
            (false, false) => Waits::Taking,
            // An interim answer, 100 above all, is what a client that goes on to send nothing has got.
            (false, true) if self.request.expects_continue && !self.answer.began => Waits::Leave,
            (false, true) => Waits::Client,
        }
    }
}
