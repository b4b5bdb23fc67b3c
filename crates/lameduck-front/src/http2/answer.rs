//! An answer on its way from an app that speaks HTTP/1.1 to a client that speaks HTTP/2.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, SendStream};
use http::{HeaderMap, Response, StatusCode};

use super::head;
use super::stream::Fin;
use crate::clock;
use crate::message::body::{Rest, take_length};
use crate::message::response::{self, Asked};
use crate::sse::Payload;

/// The answer on its way to the client.
pub struct Answer {
    asked: Asked,
    /// Where it goes.
    pub respond: SendResponse<Bytes>,
    /// The same, once its head was sent.
    pub send: Option<SendStream<Bytes>>,
    /// What flow control has not let through yet.
    pub pending: Bytes,
    partial: Vec<u8>,
    rest: Rest,
    payload: Payload,
    trailers: Option<HeaderMap>,
    /// The answer, once its head has come.
    pub response: Option<response::Response>,
    /// Whether a byte of an answer has come, be it an interim one.
    pub began: bool,
    /// Whether all of it was taken in.
    pub complete: bool,
    /// More came than the answer has.
    pub excess: bool,
    /// When a part of it was last moved on, in ms.
    pub moved_ms: u64,
}

impl Answer {
    /// An answer that has not begun.
    pub fn new(to_head: bool, respond: SendResponse<Bytes>) -> Answer {
        Answer {
            asked: Asked { head: to_head, http10: false, keep_alive: true, upgrade: false },
            respond,
            send: None,
            pending: Bytes::new(),
            partial: Vec::new(),
            rest: Rest::Nothing,
            payload: Payload::default(),
            trailers: None,
            response: None,
            began: false,
            complete: false,
            excess: false,
            moved_ms: clock::coarse_ms(),
        }
    }

    /// Something of it has come.
    pub fn moved(&mut self) {
        self.moved_ms = clock::coarse_ms();
    }

    /// Whether the client has reset the stream.
    pub fn is_unwanted(&mut self, cx: &mut Context<'_>) -> bool {
        match &mut self.send {
            Some(send) => send.poll_reset(cx).is_ready(),
            None => self.respond.poll_reset(cx).is_ready(),
        }
    }

    /// Sends what flow control lets through (RFC 9113 section 5.2). Ready: everything is sent, the end too if it is there.
    pub fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
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
                    self.moved_ms = clock::coarse_ms();
                    if last {
                        self.send_ended();
                        return Poll::Ready(Ok(()));
                    }
                }
                Some(Err(error)) => return Poll::Ready(Err(error)),
                None => return Poll::Ready(Err(h2::Error::from(Reason::CANCEL))),
            }
        }
        if self.complete && !self.rest.is_nothing() {
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
    pub fn take(&mut self, bytes: &[u8]) -> Result<(), Fin> {
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
            self.rest = Rest::of(head.framing);
            self.complete = self.rest.is_nothing();
            if head.events {
                self.payload.track();
            }
            self.send = Some(self.respond.send_response(response, self.complete).map_err(|_| Fin::ClientGone)?);
            return if bytes.is_empty() { Ok(()) } else { self.body(bytes) };
        }
    }

    fn body(&mut self, bytes: &[u8]) -> Result<(), Fin> {
        if self.complete {
            self.excess = true;
            return Ok(());
        }
        let payload = &mut self.payload;
        match &mut self.rest {
            Rest::Nothing => {}
            Rest::UntilClose => {
                self.pending = Bytes::copy_from_slice(payload.pass(bytes));
                self.complete = payload.is_cut();
            }
            Rest::Length(left) => {
                let n = take_length(left, bytes.len());
                self.pending = Bytes::copy_from_slice(&bytes[..n]);
                self.complete = *left == 0;
                self.excess |= n < bytes.len();
            }
            Rest::Chunked(decoder) => {
                let mut data = Vec::with_capacity(bytes.len());
                let taken = decoder.decode(bytes, &mut |piece| data.extend_from_slice(payload.pass(piece)));
                if payload.is_cut() {
                    self.complete = true;
                } else {
                    let n = taken.map_err(|_| Fin::CutByApp(None))?;
                    if decoder.is_done() {
                        self.trailers = head::trailers(decoder.trailers());
                        self.complete = true;
                        self.excess |= n < bytes.len();
                    }
                }
                self.pending = data.into();
            }
        }
        Ok(())
    }

    /// An event stream is to end: now, if it is between two events, or else with the next one. One whose length was told
    /// ends by itself.
    pub fn end_events(&mut self) {
        if !self.complete && !matches!(self.rest, Rest::Length(_)) {
            self.payload.end();
            self.complete = self.payload.is_cut();
        }
    }

    /// Whether an event stream was ended by us.
    pub const fn cut_short(&self) -> bool {
        self.payload.is_cut()
    }

    fn app_closed(&mut self) -> Result<(), Fin> {
        match (&self.rest, self.response.is_some()) {
            (_, false) => Err(if self.began { Fin::BadAnswer } else { Fin::AppDied }),
            (Rest::UntilClose, true) => {
                self.complete = true;
                Ok(())
            }
            (Rest::Nothing | Rest::Length(_) | Rest::Chunked(_), true) => Err(Fin::CutByApp(None)),
        }
    }
}
