//! A request's body, from the client to the app.

use super::request::Framing;
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
