//! What is still to come of a message's body.

use super::request::Framing;
use super::response;
use crate::chunked::{self, Decoder};

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
    pub fn of(framing: Framing) -> Body {
        match framing {
            Framing::None | Framing::Length(0) => Body::Done,
            Framing::Length(length) => Body::Length(length),
            Framing::Chunked => Body::Chunked(Box::default()),
        }
    }

    /// Whether nothing is to come any more.
    pub const fn is_done(&self) -> bool {
        matches!(self, Body::Done)
    }

    /// Takes what belongs to the body from the beginning of `input` and adds it to `out` as the app is to see it. Returns
    /// how much that was.
    pub fn take(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<usize, chunked::Wrong> {
        match self {
            Body::Done => Ok(0),
            Body::Length(left) => {
                let n = take_length(left, input.len());
                out.extend_from_slice(&input[..n]);
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

/// What is still to come of an answer's body.
#[derive(Debug)]
pub enum Rest {
    /// Nothing.
    Nothing,
    /// This many bytes.
    Length(u64),
    /// Chunks.
    Chunked(Box<Decoder>),
    /// All until the app closes.
    UntilClose,
}

impl Rest {
    /// What an answer's head promises.
    pub fn of(framing: response::Framing) -> Rest {
        match framing {
            response::Framing::None | response::Framing::Length(0) => Rest::Nothing,
            response::Framing::Length(length) => Rest::Length(length),
            response::Framing::Chunked => Rest::Chunked(Box::default()),
            response::Framing::UntilClose => Rest::UntilClose,
        }
    }

    /// Whether nothing is to come any more.
    pub const fn is_nothing(&self) -> bool {
        matches!(self, Rest::Nothing)
    }
}

/// How many of so many bytes belong to a body of which so many are left; they are taken off.
pub fn take_length(left: &mut u64, bytes: usize) -> usize {
    let n = bytes.min(usize::try_from(*left).unwrap_or(usize::MAX));
    *left -= n as u64;
    n
}
