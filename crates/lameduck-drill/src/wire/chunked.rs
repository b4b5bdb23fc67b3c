//! The chunked transfer coding (RFC 9112, section 7.1), to find where a body ends. Strict: a bare LF is malformed.

/// Where in the coding the next byte belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// In a chunk's size, with so many digits read.
    Size { value: u64, digits: u8 },
    /// In a chunk's extension, which is skipped.
    Extension { value: u64 },
    /// The LF after a size.
    SizeLf { value: u64 },
    /// In a chunk's data, so many bytes left.
    Data { left: u64 },
    /// The CR after the data.
    DataCr,
    /// The LF after the data.
    DataLf,
    /// At the start of a trailer line, or of the final CRLF.
    TrailerStart,
    /// In a trailer line.
    Trailer,
    /// The LF of a trailer line.
    TrailerLf,
    /// The final LF.
    EndLf,
    /// The whole body was read.
    Done,
}

/// Bytes that are not chunked coding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotChunked;

/// Lengths of lines that no honest peer exceeds: extensions and trailers together.
const MOST_OVERHEAD: u32 = 64 << 10;

/// Finds the end of a chunked body in bytes that arrive in any portions.
#[derive(Debug, Clone)]
pub(crate) struct Decoder {
    state: State,
    overhead: u32,
    /// Bytes of content so far.
    pub(crate) content: u64,
}

impl Decoder {
    pub(crate) fn new() -> Decoder {
        Decoder { state: State::Size { value: 0, digits: 0 }, overhead: 0, content: 0 }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Takes what belongs to the body; returns how many bytes that were. Fewer than given only at the end of the body.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<usize, NotChunked> {
        let mut at = 0;
        while at < bytes.len() && !self.is_done() {
            if let State::Data { left } = self.state {
                let take = left.min((bytes.len() - at) as u64);
                at += take as usize;
                self.content += take;
                self.state = if take == left { State::DataCr } else { State::Data { left: left - take } };
            } else {
                self.state = self.step(bytes[at])?;
                at += 1;
            }
        }
        Ok(at)
    }

    fn step(&mut self, byte: u8) -> Result<State, NotChunked> {
        let skipped = matches!(self.state, State::Extension { .. } | State::Trailer);
        self.overhead += u32::from(skipped);
        if self.overhead > MOST_OVERHEAD {
            return Err(NotChunked);
        }
        Ok(match (self.state, byte) {
            (State::Size { value, digits }, b) if b.is_ascii_hexdigit() => {
                // 15 digits cannot overflow, and no body is that long.
                if digits >= 15 {
                    return Err(NotChunked);
                }
                let digit = (b as char).to_digit(16).unwrap_or_default();
                State::Size { value: value * 16 + u64::from(digit), digits: digits + 1 }
            }
            (State::Size { digits: 0, .. }, _) => return Err(NotChunked),
            (State::Size { value, .. }, b';' | b' ' | b'\t') => State::Extension { value },
            (State::Size { value, .. } | State::Extension { value }, b'\r') => State::SizeLf { value },
            (State::Extension { value }, b) if b != b'\n' => State::Extension { value },
            (State::SizeLf { value: 0 } | State::TrailerLf, b'\n') => State::TrailerStart,
            (State::SizeLf { value }, b'\n') => State::Data { left: value },
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size { value: 0, digits: 0 },
            (State::TrailerStart, b'\r') => State::EndLf,
            (State::Trailer, b'\r') => State::TrailerLf,
            (State::TrailerStart | State::Trailer, b) if b != b'\n' => State::Trailer,
            (State::EndLf, b'\n') => State::Done,
            (
                State::Size { .. }
                | State::Extension { .. }
                | State::SizeLf { .. }
                | State::Data { .. }
                | State::DataCr
                | State::DataLf
                | State::TrailerStart
                | State::Trailer
                | State::TrailerLf
                | State::EndLf
                | State::Done,
                _,
            ) => return Err(NotChunked),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, expect: Result<(usize, bool), NotChunked>) {
        let mut decoder = Decoder::new();
        assert_eq!(decoder.feed(text.as_bytes()).map(|n| (n, decoder.is_done())), expect, "{text:?}");
    }

    #[test]
    fn finds_the_end() {
        check("5\r\nhello\r\n0\r\n\r\n", Ok((15, true)));
        check("5\r\nhello\r\n0\r\n\r\nHTTP/1.1", Ok((15, true)));
        check("5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n", Ok((25, true)));
        check("0\r\n\r\n", Ok((5, true)));
        check("A\r\n0123456789\r\n", Ok((15, false)));
        check("5\r\nhel", Ok((6, false)));
    }

    #[test]
    fn refuses_what_is_not_chunked() {
        for bad in
            ["\r\n", "x\r\n", "5\nhello", "5\r\nhelloX", "-1\r\n", "fffffffffffffffff\r\n", "0\r\n\n", "0\r\nA\n\r\n"]
        {
            check(bad, Err(NotChunked));
        }
        check(&format!("1;{}", "x".repeat(MOST_OVERHEAD as usize + 1)), Err(NotChunked));
    }

    proptest! {
        #[test]
        fn any_split_of_any_body_gives_the_same_end(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..8),
            cuts in prop::collection::vec(1usize..9, 1..60), rest in prop::collection::vec(any::<u8>(), 0..10),
        ) {
            let mut wire = Vec::new();
            for chunk in &chunks {
                wire.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                wire.extend_from_slice(chunk);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(b"0\r\n\r\n");
            let length = wire.len();
            wire.extend_from_slice(&rest);
            let mut decoder = Decoder::new();
            let (mut at, mut cuts) = (0, cuts.iter().cycle());
            while at < wire.len() && !decoder.is_done() {
                let end = (at + cuts.next().unwrap()).min(wire.len());
                at += decoder.feed(&wire[at..end]).unwrap();
            }
            prop_assert!(decoder.is_done());
            prop_assert_eq!(at, length);
            prop_assert_eq!(decoder.content, chunks.iter().map(Vec::len).sum::<usize>() as u64);
        }

        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Decoder::new().feed(&bytes);
        }
    }
}
