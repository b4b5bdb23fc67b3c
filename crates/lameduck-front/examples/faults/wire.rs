//! HTTP/1.1 by hand, for both sides: what a library would not do is what is wanted here.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Nobody waits longer than this for bytes.
const PATIENCE: Duration = Duration::from_secs(20);
const LONGEST_HEAD: usize = 256 << 10;

/// A connection, with what was read and is not used yet.
pub struct Wire {
    pub stream: TcpStream,
    rest: Vec<u8>,
}

impl Wire {
    pub fn new(stream: TcpStream) -> Wire {
        let _ = stream.set_nodelay(true);
        Wire { stream, rest: Vec::new() }
    }

    pub async fn connect(address: &str) -> io::Result<Wire> {
        TcpStream::connect(address).await.map(Wire::new)
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        timeout(PATIENCE, self.stream.write_all(bytes.as_ref())).await?
    }

    /// Reads at least a byte.
    pub async fn more(&mut self) -> io::Result<()> {
        self.rest.reserve(16 << 10);
        match timeout(PATIENCE, self.stream.read_buf(&mut self.rest)).await?? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    async fn until(&mut self, end: &[u8]) -> io::Result<Vec<u8>> {
        let mut searched = 0;
        loop {
            let found = self.rest[searched..].windows(end.len()).position(|at| at == end);
            if let Some(at) = found {
                return Ok(self.rest.drain(..searched + at + end.len()).collect());
            }
            if self.rest.len() > LONGEST_HEAD {
                return Err(io::ErrorKind::InvalidData.into());
            }
            searched = self.rest.len().saturating_sub(end.len());
            self.more().await?;
        }
    }

    pub async fn exact(&mut self, n: usize) -> io::Result<Vec<u8>> {
        while self.rest.len() < n {
            self.more().await?;
        }
        Ok(self.rest.drain(..n).collect())
    }

    pub async fn head(&mut self) -> io::Result<String> {
        self.until(b"\r\n\r\n").await.map(|head| String::from_utf8_lossy(&head).into_owned())
    }

    /// The first bytes of a connection, left where they are.
    pub async fn starts_with(&mut self, preface: &[u8]) -> io::Result<bool> {
        while preface.starts_with(&self.rest) && self.rest.len() < preface.len() {
            self.more().await?;
        }
        Ok(self.rest.starts_with(preface))
    }

    /// The stream, and what was read from it.
    pub fn into_parts(self) -> (TcpStream, Vec<u8>) {
        (self.stream, self.rest)
    }

    /// A body as its head says. `to_end`: without a length it goes on to the end of the connection.
    pub async fn body(&mut self, head: &str, to_end: bool) -> io::Result<Vec<u8>> {
        let head = head.to_ascii_lowercase();
        if let Some(at) = head.find("\r\ncontent-length: ") {
            let length = head[at + 18..].lines().next().and_then(|length| length.parse().ok());
            return self.exact(length.ok_or(io::ErrorKind::InvalidData)?).await;
        }
        if !head.contains("\r\ntransfer-encoding: chunked\r\n") {
            if !to_end {
                return Ok(Vec::new());
            }
            loop {
                match self.more().await {
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
                    more => more?,
                }
            }
            return Ok(std::mem::take(&mut self.rest));
        }
        let mut body = Vec::new();
        loop {
            let line = self.until(b"\r\n").await?;
            let size = std::str::from_utf8(&line).ok().and_then(|line| usize::from_str_radix(line.trim_end(), 16).ok());
            let size = size.ok_or(io::ErrorKind::InvalidData)?;
            if size == 0 {
                while self.until(b"\r\n").await? != b"\r\n" {}
                return Ok(body);
            }
            body.extend(self.exact(size + 2).await?);
            body.truncate(body.len() - 2);
        }
    }

    /// Ends with a reset (`SO_LINGER`, socket(7)).
    pub fn reset(self) -> io::Result<()> {
        Ok(rustix::net::sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO))?)
    }
}

/// In chunks of this many bytes.
pub fn chunks(content: &[u8], size: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for chunk in content.chunks(size.max(1)) {
        out.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        out.extend_from_slice(chunk);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"0\r\n\r\n");
    out
}

/// A WebSocket frame of at most 125 bytes; the mask of a client's is all zeros.
pub fn frame(opcode: u8, payload: &[u8], from_client: bool) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode, payload.len() as u8 | if from_client { 0x80 } else { 0 }];
    frame.extend_from_slice(if from_client { &[0; 4] } else { &[] });
    frame.extend_from_slice(payload);
    frame
}

impl Wire {
    /// The next frame of at most 125 bytes: its opcode and payload.
    pub async fn next_frame(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let head = self.exact(2).await?;
        if head[1] & 0x80 != 0 {
            let mask = self.exact(4).await?;
            let mut payload = self.exact(usize::from(head[1] & 0x7f)).await?;
            payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
            return Ok((head[0] & 0xf, payload));
        }
        Ok((head[0] & 0xf, self.exact(usize::from(head[1])).await?))
    }
}
