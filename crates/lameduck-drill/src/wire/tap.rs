//! The drill's ear on an HTTP/2 connection: what the h2 library does not tell. When the server's bytes arrive, which stream
//! GOAWAY named last, and whether the connection ended with FIN or RST.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use lameduck_core::judge::Ending;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::exchange::RST_TRAILS_FIN;
use crate::clock::Clock;

/// What has been heard.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    /// The last stream that the server's last GOAWAY names; none without one.
    last_stream: Cell<Option<u32>>,
    /// How the connection ended.
    ended: Cell<Option<Ending>>,
}

impl Heard {
    /// Whether no new stream may be opened (RFC 9113, section 6.8).
    pub(crate) fn is_leaving(&self) -> bool {
        self.last_stream.get().is_some() || self.ended.get().is_some()
    }

    /// Whether the server said that it does not and will not process this stream.
    pub(crate) fn refuses(&self, stream: u32) -> bool {
        self.last_stream.get().is_some_and(|last| stream > last)
    }

    /// FIN or RST; none while the connection is open.
    pub(crate) fn ended(&self) -> Option<Ending> {
        self.ended.get()
    }
}

/// A connection that is listened to, and whose server is half the simulated round trip away in the one way that matters: what
/// it says is heard that much later, so that streams and a GOAWAY can cross.
pub(crate) struct Tap {
    stream: TcpStream,
    heard: Rc<Heard>,
    clock: Clock,
    delay: Duration,
    /// What has arrived, and when it may be heard.
    arriving: VecDeque<(Duration, Vec<u8>)>,
    /// The end of the stream has arrived, and when it may be heard.
    end: Option<(Duration, Ending)>,
    write_failed: bool,
    sleep: Pin<Box<tokio::time::Sleep>>,
    walker: Walker,
}

impl Tap {
    pub(crate) fn new(stream: TcpStream, clock: Clock, delay: Duration) -> (Tap, Rc<Heard>) {
        let heard = Rc::new(Heard::default());
        let tap = Tap {
            stream,
            heard: Rc::clone(&heard),
            clock,
            delay,
            arriving: VecDeque::new(),
            end: None,
            write_failed: false,
            sleep: Box::pin(tokio::time::sleep(Duration::ZERO)),
            walker: Walker::default(),
        };
        (tap, heard)
    }

    /// Takes in all that the kernel has.
    fn take_in(&mut self, cx: &mut Context<'_>) {
        let mut space = [0u8; 8 << 10];
        while self.end.is_none() {
            let mut buffer = ReadBuf::new(&mut space);
            let Poll::Ready(read) = Pin::new(&mut self.stream).poll_read(cx, &mut buffer) else { return };
            let at = self.clock.now() + self.delay;
            match (read, buffer.filled()) {
                (Err(_), _) => self.end = Some((at, Ending::Rst)),
                // Whether an RST follows is asked when the end is heard.
                (Ok(()), []) => self.end = Some((at + RST_TRAILS_FIN, Ending::Fin)),
                (Ok(()), bytes) => self.arriving.push_back((at, bytes.to_vec())),
            }
        }
    }

    fn poll_until(&mut self, at: Duration, cx: &mut Context<'_>) -> Poll<()> {
        let left = at.saturating_sub(self.clock.now());
        if left.is_zero() {
            return Poll::Ready(());
        }
        self.sleep.as_mut().reset(tokio::time::Instant::now() + left);
        self.sleep.as_mut().poll(cx)
    }
}

impl AsyncRead for Tap {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.take_in(cx);
        if let Some(&(at, _)) = this.arriving.front() {
            ready!(this.poll_until(at, cx));
            let Some((_, mut bytes)) = this.arriving.pop_front() else { return Poll::Pending };
            if bytes.len() > buf.remaining() {
                let rest = bytes.split_off(buf.remaining());
                this.arriving.push_front((at, rest));
            }
            if let Some(last_stream) = this.walker.feed(&bytes) {
                this.heard.last_stream.set(Some(last_stream));
            }
            buf.put_slice(&bytes);
            return Poll::Ready(Ok(()));
        }
        let Some((at, mut ending)) = this.end else { return Poll::Pending };
        ready!(this.poll_until(at, cx));
        if this.write_failed || matches!(this.stream.take_error(), Ok(Some(_))) {
            ending = Ending::Rst;
        }
        this.heard.ended.set(Some(ending));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tap {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let wrote = ready!(Pin::new(&mut self.stream).poll_write(cx, buf));
        Poll::Ready(Ok(self.or_swallowed(wrote, buf.len())))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, bufs));
        Poll::Ready(Ok(self.or_swallowed(wrote, bufs.iter().map(|buf| buf.len()).sum())))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

impl Tap {
    /// A write that fails met an RST. The library would give up at once; but what the server sent before it closed may still
    /// be read, and the end of that will be heard.
    fn or_swallowed(&mut self, wrote: io::Result<usize>, length: usize) -> usize {
        self.write_failed |= wrote.is_err();
        wrote.unwrap_or(length)
    }
}

/// The type of a GOAWAY frame (RFC 9113, section 6.8).
const GOAWAY: u8 = 7;

/// Walks over frames by their heads (RFC 9113, section 4.1) in bytes that arrive in any portions.
#[derive(Debug, Default)]
struct Walker {
    head: Vec<u8>,
    /// Bytes of the frame's payload to come.
    left: usize,
    /// The start of the payload, of a GOAWAY.
    payload: Vec<u8>,
}

impl Walker {
    /// The last stream of the last GOAWAY in these bytes.
    fn feed(&mut self, mut bytes: &[u8]) -> Option<u32> {
        let mut found = None;
        while !bytes.is_empty() {
            if self.left == 0 && self.head.len() < 9 {
                let take = bytes.len().min(9 - self.head.len());
                self.head.extend_from_slice(&bytes[..take]);
                bytes = &bytes[take..];
                if let &[a, b, c, ..] = self.head.as_slice()
                    && self.head.len() == 9
                {
                    self.left = u32::from_be_bytes([0, a, b, c]) as usize;
                    self.payload.clear();
                }
            }
            if self.head.len() == 9 {
                let take = bytes.len().min(self.left);
                if self.head[3] == GOAWAY && self.payload.len() < 4 {
                    let more = take.min(4 - self.payload.len());
                    self.payload.extend_from_slice(&bytes[..more]);
                    if let &[a, b, c, d] = self.payload.as_slice() {
                        found = Some(u32::from_be_bytes([a & 0x7f, b, c, d]));
                    }
                }
                self.left -= take;
                bytes = &bytes[take..];
                if self.left == 0 {
                    self.head.clear();
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let length = (payload.len() as u32).to_be_bytes();
        [&length[1..], &[kind, 0, 0, 0, 0, 0], payload].concat()
    }

    proptest! {
        #[test]
        fn finds_every_goaway_however_it_is_split(
            frames in prop::collection::vec((0u8..10, prop::collection::vec(any::<u8>(), 8..40)), 0..8), cut in 1usize..20,
        ) {
            let wire: Vec<u8> = frames.iter().flat_map(|(kind, payload)| frame(*kind, payload)).collect();
            let mut expect = frames.iter().filter(|(kind, _)| *kind == GOAWAY).map(|(_, payload)| {
                u32::from_be_bytes([payload[0] & 0x7f, payload[1], payload[2], payload[3]])
            });
            let mut walker = Walker::default();
            let found = wire.chunks(cut).filter_map(|piece| walker.feed(piece)).last();
            prop_assert_eq!(found, expect.next_back());
        }

        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let mut walker = Walker::default();
            for piece in bytes.chunks(7) {
                let _ = walker.feed(piece);
            }
        }
    }

    #[test]
    fn empty_frames_are_walked_over() {
        let wire = [frame(4, b""), frame(0, b""), frame(GOAWAY, b"\x80\x00\x00\x05\x00\x00\x00\x00")].concat();
        assert_eq!(Walker::default().feed(&wire), Some(5));
    }
}
