//! An answer on its way from the app to a client that speaks HTTP/1.

use std::task::Context;

use crate::chunked;
use crate::exchange::Fin;
use crate::message::body::{Rest, take_length};
use crate::message::request::Request;
use crate::message::response::{self, Asked, Response};
use crate::sse::Payload;
use crate::state::Front;
use crate::wire::{Outgoing, Stream};

/// The answer on its way to the client.
#[derive(Debug)]
pub struct Answer {
    /// What was asked. Whether the client may stay is decided when the head comes.
    pub asked: Asked,
    /// A part of a head; after a switch of protocols, what followed it.
    pub partial: Vec<u8>,
    /// What the client has not taken yet.
    pub out: Outgoing,
    /// The answer, once its head has come.
    pub response: Option<Response>,
    rest: Rest,
    payload: Payload,
    /// Whether a byte of an answer has come, be it an interim one.
    pub began: bool,
    /// More came than the answer has.
    pub excess: bool,
    /// Whether all of it was taken in.
    pub complete: bool,
}

impl Answer {
    /// An answer that has not begun.
    pub fn new(front: &Front, request: &Request) -> Answer {
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
            payload: Payload::default(),
            began: false,
            excess: false,
            complete: false,
        }
    }

    /// Takes in what the app sent (nothing: it closed) and passes on what the client is to see.
    pub fn take(&mut self, bytes: &[u8], client: &mut Stream, cx: &mut Context<'_>) -> Result<(), Fin> {
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
            let Some(head) = response::read(bytes, self.asked, self.out.end()).map_err(|_| Fin::BadAnswer)? else {
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
            self.rest = Rest::of(head.framing);
            self.complete = self.rest.is_nothing();
            if head.events {
                self.payload.track();
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
        let chunked = self.response.is_some_and(|response| response.chunked_to(self.asked));
        let payload = &mut self.payload;
        match &mut self.rest {
            Rest::Nothing => Ok(&[]),
            Rest::Length(left) => {
                let n = take_length(left, bytes.len());
                self.complete = *left == 0;
                self.excess |= n < bytes.len();
                Ok(&bytes[..n])
            }
            Rest::UntilClose if !chunked => {
                let direct = payload.pass(bytes);
                self.complete = payload.is_cut();
                Ok(direct)
            }
            Rest::UntilClose => {
                chunked::encode_chunk(self.out.end(), payload.pass(bytes));
                self.end_if_cut();
                Ok(&[])
            }
            Rest::Chunked(decoder) => {
                let out = self.out.end();
                let taken = decoder.decode(bytes, &mut |piece| {
                    let piece = payload.pass(piece);
                    if chunked {
                        chunked::encode_chunk(out, piece);
                    } else {
                        out.extend_from_slice(piece);
                    }
                });
                if payload.is_cut() {
                    self.end_if_cut();
                    return Ok(&[]);
                }
                let n = taken.map_err(|_| Fin::CutByApp)?;
                if decoder.is_done() {
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

    /// Whether the client can tell the end of the body only by the end of the connection.
    pub fn ends_with_connection(&self) -> bool {
        self.response.is_some_and(|response| {
            let framed = matches!(response.framing, response::Framing::None | response::Framing::Length(_));
            !framed && !response.chunked_to(self.asked)
        })
    }

    /// An event stream is to end: now, if it is between two events, or else with the next one. One whose length was told
    /// ends by itself.
    pub fn end_events(&mut self) {
        if !self.complete && !matches!(self.rest, Rest::Length(_)) {
            self.payload.end();
            self.end_if_cut();
        }
    }

    fn end_if_cut(&mut self) {
        if self.payload.is_cut() {
            // To who gets no chunks the end of the connection is the end.
            if self.response.is_some_and(|response| response.chunked_to(self.asked)) {
                chunked::encode_end(self.out.end(), b"");
            }
            self.complete = true;
        }
    }

    /// Whether an event stream was ended by us.
    pub const fn cut_short(&self) -> bool {
        self.payload.is_cut()
    }

    fn app_closed(&mut self) -> Result<(), Fin> {
        match (&self.rest, self.response) {
            (_, None) => Err(if self.began { Fin::BadAnswer } else { Fin::AppDied }),
            (Rest::UntilClose, Some(response)) => {
                if response.chunked_to(self.asked) {
                    chunked::encode_end(self.out.end(), b"");
                }
                self.complete = true;
                Ok(())
            }
            (Rest::Nothing | Rest::Length(_) | Rest::Chunked(_), Some(_)) => Err(Fin::CutByApp),
        }
    }
}
