//! A stream of HTTP/2 to an app that speaks HTTP/1.1.

use std::net::IpAddr;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::Request;

use super::answer::Answer;
use super::head;
use super::stream::{self, Entered, Fin, Term, enter, settle, while_wanted};
use crate::account::Account;
use crate::chunked;
use crate::clock;
use crate::exchange::MOST_RETRIES;
use crate::message::request::{self, Framing};
use crate::message::write_field;
use crate::state::{Front, Waits};
use crate::upstream;
use crate::wire::{Outgoing, Stream};

/// Serves it.
pub async fn run(front: &Rc<Front>, peer: IpAddr, request: Request<RecvStream>, respond: SendResponse<Bytes>) {
    let Some(Entered { parts, body, respond, mut account }) = enter(front, peer, request, respond) else { return };
    let what = account.request;
    let mut head = front.buffer();
    head::write(&mut head, &parts, &what, front);
    let may_repeat = what.idempotent && body.is_end_stream();
    let mut upload = Upload {
        out: Outgoing::new(head),
        chunked: what.framing == Framing::Chunked,
        done: body.is_end_stream(),
        data_done: false,
        broken: false,
        credit: 0,
        body,
        moved_ms: clock::coarse_ms(),
    };
    let mut answer = Answer::new(what.head, respond);
    loop {
        let asked_us = account.clock_us();
        let bytes = upload.out.bytes().len();
        let kept = if account.retries == 0 { front.pool.take(clock::coarse_ms(), may_repeat) } else { None };
        let reused = kept.is_some();
        let taken = match kept {
            Some(app) => Ok(app),
            None => while_wanted(&mut answer.respond, upstream::open(front, bytes, || false)).await,
        };
        account.held_since(asked_us);
        let app = match taken {
            Ok(app) => app,
            Err(no_app) => return stream::without_app(front, account, &mut answer.respond, no_app),
        };
        answer.moved();
        let mut exchange = Exchange { app, upload, answer, term: Term::begin(front), what };
        let fin = stream::drive(front, &mut exchange, &mut account).await;
        let Exchange { app, upload: after_upload, answer: after_answer, .. } = exchange;
        (upload, answer) = (after_upload, after_answer);
        if fin == Fin::AppDied && reused && may_repeat && account.retries < MOST_RETRIES {
            account.retried();
            upload.out.rewind();
            upload.broken = false;
            continue;
        }
        if let (Fin::Done, Some(response)) = (fin, answer.response)
            && response.app_keeps
            && upload.is_done()
            && !answer.excess
        {
            front.pool.give_back(app, response.idle_hint_s, clock::coarse_ms());
        }
        front.recycle(upload.out.into_bytes());
        let status = answer.response.map_or(0, |response| response.status);
        return settle(front, account, answer.respond, answer.send, status, fin);
    }
}

/// A request and its answer, on their ways.
struct Exchange {
    app: Stream,
    upload: Upload,
    answer: Answer,
    term: Term,
    what: request::Request,
}

impl stream::Exchange for Exchange {
    fn poll(&mut self, cx: &mut Context<'_>, account: &mut Account) -> Poll<Fin> {
        let Exchange { app, upload, answer, term, .. } = self;
        if let Some(fin) = upload.poll(cx, app) {
            return Poll::Ready(fin);
        }
        if answer.is_unwanted(cx) {
            return Poll::Ready(Fin::ClientGone);
        }
        loop {
            if ready!(answer.poll_send(cx)).is_err() {
                return Poll::Ready(Fin::ClientGone);
            }
            if answer.complete {
                return Poll::Ready(if answer.cut_short() { Fin::EndedEvents } else { Fin::Done });
            }
            let began = answer.response.is_some();
            match ready!(app.poll_take(cx, |bytes, _| answer.take(bytes))) {
                Ok(Ok(())) => {}
                Ok(Err(fin)) => return Poll::Ready(fin),
                Err(_) => return Poll::Ready(if answer.began { Fin::CutByApp(None) } else { Fin::AppDied }),
            }
            if !began && answer.response.is_some_and(|response| response.events) {
                term.begin_again();
            }
            answer.moved();
            account.sent(answer.moved_ms);
            account.answer_began();
        }
    }

    fn look(&mut self, front: &Front) -> Option<Fin> {
        if self.term.is_over(front) {
            match (self.answer.response, self.what.long_poll) {
                (Some(_), _) => self.answer.end_events(),
                (None, Some(status)) => return Some(Fin::LongPoll(status)),
                (None, None) => {}
            }
        }
        let moved_ms = self.upload.moved_ms.max(self.answer.moved_ms);
        let waits = self.waits();
        let given_up = front.gives_up(waits, clock::coarse_ms().saturating_sub(moved_ms));
        given_up.then_some(match waits {
            Waits::Client | Waits::Leave => Fin::ClientStalled,
            Waits::Taking | Waits::Answer | Waits::More => Fin::AppTimeout,
        })
    }
}

impl Exchange {
    /// As a request over HTTP/1.1 does.
    fn waits(&self) -> Waits {
        let Exchange { upload, answer, .. } = self;
        if !answer.pending.is_empty() {
            return Waits::Client;
        }
        if answer.response.is_some() {
            return Waits::More;
        }
        match (upload.is_done() || upload.broken, upload.out.is_empty()) {
            (true, _) => Waits::Answer,
            (false, false) => Waits::Taking,
            (false, true) if self.what.expects_continue && !answer.began => Waits::Leave,
            (false, true) => Waits::Client,
        }
    }
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
    /// When something was last moved on, in ms.
    moved_ms: u64,
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
                        self.moved_ms = clock::coarse_ms();
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
