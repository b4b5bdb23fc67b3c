//! A stream of HTTP/2, whatever the app speaks: how it begins, what it waits for, how it ends.

use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use lameduck_core::front::Slot;
use tokio::time::{Instant, Sleep};

use super::head;
use crate::access::Ended;
use crate::account::Account;
use crate::clock;
use crate::message::reply;
use crate::state::{Front, LOOK};
use crate::upstream::NoApp;

/// A stream whose request is in the books, and is for the app.
pub struct Entered {
    /// The request's head.
    pub parts: Parts,
    /// Its body.
    pub body: RecvStream,
    /// Where its answer goes.
    pub respond: SendResponse<Bytes>,
    /// Its entry in the books.
    pub account: Account,
}

/// Enters a request; `None`: the front has answered it.
pub fn enter(
    front: &Rc<Front>,
    peer: IpAddr,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) -> Option<Entered> {
    let (mut parts, body) = request.into_parts();
    let what = match head::describe(front, &parts, body.is_end_stream()) {
        Ok(what) => what,
        Err(status) => {
            front.page.add(Slot::Refused, 1);
            let to_head = parts.method == Method::HEAD;
            say(&mut respond, to_head, status, "not a request that can be forwarded");
            return None;
        }
    };
    head::add_who(front, &mut parts, peer);
    let told = front.log.is_some().then(|| head::told(&parts));
    let at_us = if told.is_some() { clock::precise_us() } else { 0 };
    let account = Account::open(front, peer, what, told, at_us, "HTTP/2");
    if let Some((text, ended)) = front.turns_away(&what) {
        say(&mut respond, what.head, 503, text);
        account.close(ended, 503);
        return None;
    }
    Some(Entered { parts, body, respond, account })
}

/// Answers in the front's own name.
fn say(respond: &mut SendResponse<Bytes>, to_head: bool, status: u16, text: &str) {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    reply::each_field(status, text, |name, value| {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value)) {
            response.headers_mut().insert(name, value);
        }
    });
    let bodiless = to_head || !reply::has_body(status);
    // A client that is gone needs no answer.
    if let Ok(mut stream) = respond.send_response(response, bodiless)
        && !bodiless
    {
        let _ = stream.send_data(Bytes::from(format!("{text}\n")), true);
    }
}

/// Goes on for as long as the client has not reset the stream.
pub async fn while_wanted<T>(
    respond: &mut SendResponse<Bytes>,
    work: impl Future<Output = Result<T, NoApp>>,
) -> Result<T, NoApp> {
    let mut work = std::pin::pin!(work);
    poll_fn(|cx| {
        if respond.poll_reset(cx).is_ready() {
            return Poll::Ready(Err(NoApp::ClientGone));
        }
        work.as_mut().poll(cx)
    })
    .await
}

/// Ends a stream for which there is no app.
pub fn without_app(front: &Front, account: Account, respond: &mut SendResponse<Bytes>, no_app: NoApp) {
    let (text, ended) = no_app.words(&front.config.upstream);
    if ended == Ended::ClientGone {
        return account.close(ended, 0);
    }
    say(respond, account.request.head, 503, &text);
    account.close(ended, 503);
}

/// How a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fin {
    /// The answer is with the client, as far as flow control let it.
    Done,
    /// The same, and it was ended after an event.
    EndedEvents,
    /// The app broke off before a byte of its answer.
    AppDied,
    /// The app's answer makes no sense, or ended in its head.
    BadAnswer,
    /// The app's answer ended too early, or by this reset.
    CutByApp(Option<Reason>),
    /// The client left.
    ClientGone,
    /// The app has not answered in time.
    AppTimeout,
    /// The client neither sends nor reads.
    ClientStalled,
    /// The time is over.
    TimeOver,
    /// A long poll is answered by us.
    LongPoll(u16),
}

/// A request and its answer, on their ways.
pub trait Exchange {
    /// Moves both on.
    fn poll(&mut self, cx: &mut Context<'_>, account: &mut Account) -> Poll<Fin>;
    /// Whether it makes sense to go on, once in a while.
    fn look(&mut self, front: &Front) -> Option<Fin>;
}

/// Moves it on to its end.
pub async fn drive(front: &Front, exchange: &mut impl Exchange, account: &mut Account) -> Fin {
    let over = front.over.notified();
    let mut over = std::pin::pin!(over);
    let mut look = Look::new();
    poll_fn(|cx| {
        if front.ended() || over.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Fin::TimeOver);
        }
        loop {
            match exchange.poll(cx, account) {
                Poll::Pending if look.is_due(cx) => {
                    if let Some(fin) = exchange.look(front) {
                        return Poll::Ready(fin);
                    }
                }
                polled => return polled,
            }
        }
    })
    .await
}

/// The clock of looking.
struct Look(Pin<Box<Sleep>>);

impl Look {
    fn new() -> Look {
        Look(Box::pin(tokio::time::sleep(LOOK)))
    }

    /// Whether it is time to look; then it is again after a while.
    fn is_due(&mut self, cx: &mut Context<'_>) -> bool {
        let mut due = false;
        while self.0.as_mut().poll(cx).is_ready() {
            due = true;
            self.0.as_mut().reset(Instant::now() + LOOK);
        }
        due
    }
}

/// How long a stream has gone on, where it is one that ends in its own terms in a drain.
pub struct Term {
    since_ms: u64,
    jitter: u16,
}

impl Term {
    /// From now on.
    pub fn begin(front: &Front) -> Term {
        Term { since_ms: clock::coarse_ms(), jitter: front.random() as u16 }
    }

    /// It begins anew: the answer has come, and is a stream of events.
    pub fn begin_again(&mut self) {
        self.since_ms = clock::coarse_ms();
    }

    /// Whether it has had its grace.
    pub fn is_over(&self, front: &Front) -> bool {
        front.grace_is_over(clock::coarse_ms(), self.since_ms, front.config.stream_grace, self.jitter)
    }
}

/// Settles the books, and the stream where the client is still to be told. `send`: the answer has begun, with this status.
pub fn settle(
    front: &Front,
    account: Account,
    mut respond: SendResponse<Bytes>,
    send: Option<SendStream<Bytes>>,
    status: u16,
    fin: Fin,
) {
    let to_head = account.request.head;
    let mut tell = |status, text, ended| {
        say(&mut respond, to_head, status, text);
        (ended, status)
    };
    let (ended, status) = match (fin, send) {
        (Fin::Done, _) => return account.answered(status),
        (Fin::EndedEvents, _) => {
            front.page.add(Slot::ShedStream, 1);
            return account.answered(status);
        }
        (Fin::AppDied | Fin::BadAnswer | Fin::CutByApp(_), None) => {
            tell(502, "the app broke off before it answered", Ended::BadGateway)
        }
        (Fin::AppTimeout, None) => tell(504, "the app did not answer in time", Ended::GatewayTimeout),
        (Fin::ClientStalled, None) => tell(408, "the request's body did not come in time", Ended::ClientGone),
        (Fin::TimeOver, None) => tell(503, reply::TIME_OVER, Ended::Shed),
        (Fin::LongPoll(status), None) => {
            front.page.add(Slot::ShedLongPoll, 1);
            tell(status, "poll again", Ended::Answered)
        }
        (Fin::CutByApp(Some(reason)), Some(mut send)) => {
            send.send_reset(reason);
            (Ended::CutByApp, status)
        }
        (Fin::AppDied | Fin::BadAnswer | Fin::CutByApp(None) | Fin::AppTimeout, Some(mut send)) => {
            send.send_reset(Reason::INTERNAL_ERROR);
            (Ended::CutByApp, status)
        }
        (Fin::ClientStalled | Fin::LongPoll(_), Some(mut send)) => {
            send.send_reset(Reason::CANCEL);
            (Ended::ClientGone, status)
        }
        (Fin::TimeOver, Some(mut send)) => {
            send.send_reset(Reason::CANCEL);
            front.page.add(Slot::Forced, 1);
            (Ended::CutAtDeadline, status)
        }
        (Fin::ClientGone, _) => (Ended::ClientGone, status),
    };
    account.close(ended, status);
}
