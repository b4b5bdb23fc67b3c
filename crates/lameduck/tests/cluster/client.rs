//! An API server's manners: HTTP/1.1 over TLS, connections kept and used again, one request on each at a time, no second
//! attempt.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// As `timeoutSeconds` in deploy/.
const TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Clone)]
pub struct Client(Arc<ClientConfig>);

pub struct Connection {
    stream: StreamOwned<ClientConnection, TcpStream>,
    pub to: SocketAddr,
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
    /// The connection ends with it.
    pub close: bool,
}

impl Client {
    pub fn new(authorities: &str) -> Client {
        let mut roots = RootCertStore::empty();
        for authority in CertificateDer::pem_slice_iter(authorities.as_bytes()) {
            roots.add(authority.unwrap()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        Client(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
    }

    pub fn connect(&self, to: SocketAddr) -> io::Result<Connection> {
        let stream = TcpStream::connect_timeout(&to, TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        let name = ServerName::from(to.ip());
        let session = ClientConnection::new(Arc::clone(&self.0), name).map_err(io::Error::other)?;
        Ok(Connection { stream: StreamOwned::new(session, stream), to })
    }

    pub fn once(&self, to: SocketAddr, path: &str, body: &str) -> io::Result<Answer> {
        self.connect(to)?.ask(path, body)
    }
}

impl Connection {
    /// Whether the other end has closed it meanwhile. Go's client looks, too, before it uses a connection again.
    pub fn is_closed(&self) -> bool {
        let socket = self.stream.get_ref();
        let mut byte = [0];
        socket.set_nonblocking(true).unwrap();
        let looked = socket.peek(&mut byte);
        socket.set_nonblocking(false).unwrap();
        // Whatever comes on an idle connection is the end of it; TLS tickets were read with the first answer.
        !matches!(looked, Err(error) if error.kind() == ErrorKind::WouldBlock)
    }

    /// A review.
    pub fn ask(&mut self, path: &str, body: &str) -> io::Result<Answer> {
        self.send(&format!("POST {path}?timeout=5s"), "", body)
    }

    /// Any request: method and path, further fields, each with its end of line, and a body.
    pub fn send(&mut self, what: &str, fields: &str, body: &str) -> io::Result<Answer> {
        let head = format!("{what} HTTP/1.1\r\nHost: webhook\r\n{fields}Content-Length: {}\r\n\r\n", body.len());
        // What is refused may be answered before it was all sent.
        let sent =
            self.stream.write_all(&[head.as_bytes(), body.as_bytes()].concat()).and_then(|()| self.stream.flush());
        let mut bytes: Vec<u8> = Vec::new();
        let end = loop {
            if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            if let Err(error) = self.more(&mut bytes) {
                return Err(sent.err().unwrap_or(error));
            }
        };
        let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
        let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let close = field("connection:").is_some_and(|connection| connection == "close");
        let status = status.ok_or_else(|| io::Error::other(head.clone()))?;
        let rest = bytes.split_off(end);
        let body = if field("transfer-encoding:") == Some("chunked") {
            self.chunks(rest)?
        } else {
            let length: usize = field("content-length:").and_then(|length| length.parse().ok()).unwrap_or(0);
            self.exactly(rest, length)?.0
        };
        Ok(Answer { status, body, close })
    }

    /// So many bytes, and what came behind them.
    fn exactly(&mut self, mut bytes: Vec<u8>, length: usize) -> io::Result<(Vec<u8>, Vec<u8>)> {
        while bytes.len() < length {
            self.more(&mut bytes)?;
        }
        let rest = bytes.split_off(length);
        Ok((bytes, rest))
    }

    /// A body in chunks (RFC 9112, section 7.1), as API servers send what is larger than 2 KiB. They send no trailers.
    fn chunks(&mut self, mut bytes: Vec<u8>) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let Some(end) = bytes.windows(2).position(|two| two == b"\r\n") else {
                self.more(&mut bytes)?;
                continue;
            };
            let size = String::from_utf8_lossy(&bytes[..end]).into_owned();
            let size =
                usize::from_str_radix(&size, 16).map_err(|_| io::Error::other(format!("a chunk of {size:?}")))?;
            let (chunk, rest) = self.exactly(bytes.split_off(end + 2), size + 2)?;
            if size == 0 {
                return Ok(body);
            }
            body.extend_from_slice(&chunk[..size]);
            bytes = rest;
        }
    }

    fn more(&mut self, bytes: &mut Vec<u8>) -> io::Result<()> {
        let mut buffer = [0; 16 << 10];
        match self.stream.read(&mut buffer)? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            read => {
                bytes.extend_from_slice(&buffer[..read]);
                Ok(())
            }
        }
    }
}
