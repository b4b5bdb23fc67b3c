//! Bytes in and out of sockets. One buffer for all reads of the thread, held by nobody between two polls: a connection that
//! waits owns no buffer at all.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use rustix::net::{RecvFlags, SendFlags, Shutdown};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// The most bytes read at once, and so the most that a connection whose other side does not read has to keep.
pub const SCRATCH: usize = 128 << 10;
/// Bytes up to this are copied behind what is to be written; above, they are written from where they are.
const COPY: usize = 8 << 10;

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into_boxed_slice());
}

/// A connection.
#[derive(Debug)]
pub enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// A socket in the file system.
    Unix(UnixStream),
}

impl Stream {
    /// Reads once and gives `take` what was read, which is empty at the end of the stream.
    pub fn poll_take<R>(
        &mut self,
        cx: &mut Context<'_>,
        take: impl FnOnce(&[u8], &mut Context<'_>) -> R,
    ) -> Poll<io::Result<R>> {
        BUFFER.with_borrow_mut(|buffer| {
            let mut read = ReadBuf::new(buffer);
            let polled = match self {
                Stream::Tcp(stream) => Pin::new(stream).poll_read(cx, &mut read),
                Stream::Unix(stream) => Pin::new(stream).poll_read(cx, &mut read),
            };
            match polled {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) => Poll::Ready(Ok(take(read.filled(), cx))),
            }
        })
    }

    /// Reads into a buffer of the caller's.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Stream::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }

    /// Writes.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Stream::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_two(&mut self, cx: &mut Context<'_>, first: &[u8], second: &[u8]) -> Poll<io::Result<usize>> {
        let slices = [IoSlice::new(first), IoSlice::new(second)];
        match self {
            Stream::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, &slices),
            Stream::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, &slices),
        }
    }

    /// Says that no more will be sent (shutdown(2)). An error is the peer's having gone already.
    pub fn close_write(&self) {
        let _ = rustix::net::shutdown(self, Shutdown::Write);
    }

    /// From now on its end is a reset (`SO_LINGER`, socket(7)).
    pub fn reset_at_close(&self) {
        let _ = rustix::net::sockopt::set_socket_linger(self, Some(std::time::Duration::ZERO));
    }

    /// Whether nothing has come since it was last read, as far as the runtime knows: no system call while all is quiet.
    pub fn is_quiet(&self) -> bool {
        let mut byte = [0];
        let read = match self {
            Stream::Tcp(stream) => stream.try_read(&mut byte),
            Stream::Unix(stream) => stream.try_read(&mut byte),
        };
        matches!(read, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Whether the kernel has something that was not read yet: bytes, or the end of the stream.
    pub fn has_unread(&self) -> bool {
        let mut byte = [0];
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        !matches!(
            rustix::net::recv(self, &mut byte[..], flags),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR)
        )
    }

    /// Whether it was reset, or broke otherwise (`SO_ERROR`, socket(7)).
    pub fn is_broken(&self) -> bool {
        rustix::net::sockopt::socket_error(self).is_ok_and(|error| error.is_err())
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Stream::Tcp(stream) => stream.as_fd(),
            Stream::Unix(stream) => stream.as_fd(),
        }
    }
}

/// Bytes on their way out that the socket has not taken yet.
#[derive(Debug, Default)]
pub struct Outgoing {
    bytes: Vec<u8>,
    sent: usize,
    /// Whether the kernel's buffer is kept full.
    pressing: bool,
}

impl Outgoing {
    /// Starting with these bytes.
    pub const fn new(bytes: Vec<u8>) -> Outgoing {
        Outgoing { bytes, sent: 0, pressing: false }
    }

    /// Whether everything was taken.
    pub const fn is_empty(&self) -> bool {
        self.sent == self.bytes.len()
    }

    /// Where to add bytes.
    pub fn end(&mut self) -> &mut Vec<u8> {
        if self.is_empty() {
            self.clear();
        }
        &mut self.bytes
    }

    /// Begins again with the first byte: only where nothing was cleared since.
    pub const fn rewind(&mut self) {
        self.sent = 0;
    }

    /// Forgets what was sent.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.sent = 0;
    }

    /// The buffer, for another use, where nothing is in it.
    pub fn unused(&mut self) -> Vec<u8> {
        if !self.is_empty() {
            return Vec::new();
        }
        self.sent = 0;
        std::mem::take(&mut self.bytes)
    }

    /// Whether it has a buffer.
    pub const fn is_ready(&self) -> bool {
        self.bytes.capacity() > 0
    }

    /// The buffer, for another use.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Everything there is, sent or not.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Writes what there is, and forgets nothing. Ready: everything was taken.
    pub fn poll_write(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.bytes.len() {
            match stream.poll_write(cx, &self.bytes[self.sent..]) {
                Poll::Pending if self.pressing && self.push(stream) => {}
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(n)) => self.sent += n,
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Writes what the kernel takes at once; whether it took any. It is not waited to be told that it takes more: that is
    /// told only when a third of its buffer is free, and for that a slow reader takes long. From now on its buffer is kept
    /// full, so that whatever it takes is what the client has read.
    pub fn press(&mut self, stream: &Stream) -> bool {
        self.pressing = true;
        self.push(stream)
    }

    fn push(&mut self, stream: &Stream) -> bool {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let taken = rustix::net::send(stream, &self.bytes[self.sent..], flags).unwrap_or(0);
        self.sent += taken;
        taken > 0
    }

    /// Writes what there is and forgets it. Ready: everything was taken.
    pub fn poll_flush(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.poll_write(stream, cx))?;
        self.clear();
        Poll::Ready(Ok(()))
    }

    /// Writes what there is and then `more`; keeps what the socket does not take.
    pub fn send(&mut self, stream: &mut Stream, cx: &mut Context<'_>, mut more: &[u8]) -> io::Result<()> {
        if more.len() > COPY {
            let waiting = self.bytes.len() - self.sent;
            match stream.poll_write_two(cx, &self.bytes[self.sent..], more) {
                Poll::Pending => {}
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Ready(Ok(n)) => {
                    self.sent += n.min(waiting);
                    more = &more[n.saturating_sub(waiting)..];
                }
            }
        }
        self.end().extend_from_slice(more);
        match self.poll_flush(stream, cx) {
            Poll::Ready(Err(error)) => Err(error),
            Poll::Ready(Ok(())) | Poll::Pending => Ok(()),
        }
    }
}
