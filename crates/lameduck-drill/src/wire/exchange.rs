//! One request on one connection, and how it ended.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use lameduck_core::judge::Ending;
use rustix::net::RecvFlags;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::response::{Head, Reader};
use crate::clock::Clock;

/// How long an RST may trail the FIN it follows. On one machine both are queued before the client wakes; the wait covers a
/// kernel that was busy elsewhere.
pub(crate) const RST_TRAILS_FIN: Duration = Duration::from_millis(5);

/// Who ended the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClosedBy {
    /// The server: FIN, RST or a refused handshake.
    Server,
    /// The client: its timeout, or an answer that it could not read.
    Client,
}

/// What an exchange left.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Exchanged {
    pub(crate) ending: Ending,
    pub(crate) head: Option<Head>,
    pub(crate) bytes_out: u64,
    pub(crate) bytes_in: u64,
    /// Whether the connection can carry another request.
    pub(crate) reusable: bool,
    pub(crate) closed_by: Option<ClosedBy>,
    /// When the end was seen; telling FIN from RST takes a little longer.
    pub(crate) at: Duration,
}

/// How a connection attempt ended.
#[derive(Debug)]
pub(crate) enum Connected {
    Open(TcpStream),
    Refused,
    TimedOut,
    /// This side could not even try: no file descriptor or local port left. Says nothing about the service.
    OwnFault(io::Error),
}

/// Opens a connection.
pub(crate) async fn connect(to: SocketAddr, timeout: Duration) -> Connected {
    match tokio::time::timeout(timeout, TcpStream::connect(to)).await {
        Err(_) => Connected::TimedOut,
        Ok(Ok(stream)) => match stream.set_nodelay(true) {
            // EINVAL here means the peer has already reset the connection: the exchange will see it.
            Ok(()) | Err(_) => Connected::Open(stream),
        },
        Ok(Err(error)) => match error.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => Connected::Refused,
            io::ErrorKind::TimedOut | io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
                Connected::TimedOut
            }
            _ => Connected::OwnFault(error),
        },
    }
}

/// What is known of a connection that nobody is using.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IdleState {
    /// Open, nothing to read.
    Quiet,
    /// The server closed it, or sent something that nobody asked for.
    Unusable,
}

/// Looks at an idle connection the way a proxy's event loop would have: a FIN that has arrived is seen before reuse.
pub(crate) fn idle_state(stream: &TcpStream) -> IdleState {
    // Asked of the kernel directly: tokio's own readiness is as old as its last poll.
    let mut byte = [0u8; 1];
    match rustix::net::recv(stream, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT) {
        Err(rustix::io::Errno::AGAIN) => IdleState::Quiet,
        Ok(_) | Err(_) => IdleState::Unusable,
    }
}

pub(crate) fn is_reset(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionAborted
    )
}

/// How long the body is held back where the server does not ask for it (RFC 9110, section 10.1.1, leaves it open; curl
/// waits as long).
const UNASKED: Duration = Duration::from_secs(1);

/// A request as it goes out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outgoing<'w> {
    pub(crate) bytes: &'w [u8],
    /// How much of it goes out at once; the rest waits for `100 Continue`.
    pub(crate) at_once: usize,
}

impl<'w> From<&'w [u8]> for Outgoing<'w> {
    fn from(bytes: &'w [u8]) -> Outgoing<'w> {
        Outgoing { bytes, at_once: bytes.len() }
    }
}

/// Sends a request and reads the answer. Never sends anything twice.
pub(crate) async fn exchange(
    stream: &mut TcpStream,
    outgoing: Outgoing<'_>,
    mut reader: Reader<'_>,
    timeout: Duration,
    clock: Clock,
) -> Exchanged {
    let (mut sent, mut received, mut reset) = (0, 0u64, false);
    let mut buffer = vec![0u8; 16 << 10];
    let (wire, mut released) = (outgoing.bytes, outgoing.at_once);
    let deadline = tokio::time::sleep(timeout);
    tokio::pin!(deadline);
    let ended = {
        let (mut read_half, mut write_half) = stream.split();
        loop {
            tokio::select! {
                // Written first: a request that is on its way goes out even where a FIN has just come in.
                biased;
                wrote = write_half.write(&wire[sent..released]), if sent < released && !reset => match wrote {
                    Ok(n) => sent += n,
                    // What the server sent before it closed may still be read.
                    Err(error) => reset = is_reset(&error) || error.kind() != io::ErrorKind::Interrupted,
                },
                read = read_half.read(&mut buffer) => match read {
                    Ok(0) => break Ended::Eof,
                    Ok(n) => {
                        received += n as u64;
                        match reader.feed(&buffer[..n]) {
                            Ok(true) => break Ended::Whole,
                            Ok(false) if reader.continued() => released = wire.len(),
                            Ok(false) => {}
                            Err(_) => break Ended::Malformed,
                        }
                    }
                    Err(_) => break Ended::Reset,
                },
                () = tokio::time::sleep(UNASKED), if released < wire.len() => released = wire.len(),
                () = &mut deadline => break Ended::Late,
            }
        }
    };
    let at = clock.now();
    let whole_at_close = ended == Ended::Eof && reader.end_of_stream();
    let (ending, closed_by) = match (ended, reader.head()) {
        (Ended::Whole, Some(head)) => (Ending::Complete { status: head.status }, None),
        (Ended::Eof, Some(head)) if whole_at_close => {
            (Ending::Complete { status: head.status }, Some(ClosedBy::Server))
        }
        (Ended::Eof, _) => (fin_or_rst(stream, reset).await, Some(ClosedBy::Server)),
        (Ended::Reset, _) => (Ending::Rst, Some(ClosedBy::Server)),
        (Ended::Malformed | Ended::Whole, _) => (Ending::Malformed, Some(ClosedBy::Client)),
        (Ended::Late, _) => (Ending::TimedOut, Some(ClosedBy::Client)),
    };
    Exchanged {
        ending,
        head: reader.head(),
        bytes_out: sent as u64,
        bytes_in: received,
        // An answer that came before the whole request was written leaves the rest in the way of the next one.
        reusable: ended == Ended::Whole && sent == wire.len() && reader.reusable(),
        closed_by,
        at,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Whole,
    Eof,
    Reset,
    Malformed,
    Late,
}

/// Tells a FIN from a FIN that an RST followed.
///
/// In CLOSE-WAIT (FIN received) Linux reports a later RST as `EPIPE` in `SO_ERROR`, while reads go on returning 0
/// (`tcp_reset()` in `net/ipv4/tcp_input.c`). An RST here means the server's kernel had no process to hand the request to.
pub(crate) async fn fin_or_rst(stream: &TcpStream, reset: bool) -> Ending {
    if reset {
        return Ending::Rst;
    }
    for wait in [Duration::ZERO, RST_TRAILS_FIN] {
        tokio::time::sleep(wait).await;
        if let Ok(Some(_)) = stream.take_error() {
            return Ending::Rst;
        }
    }
    Ending::Fin
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    const HALF: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf";

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap());
        let (client, server) = tokio::join!(client, listener.accept());
        (client.unwrap(), server.unwrap().0)
    }

    async fn read_request(server: &mut TcpStream) {
        let mut got = vec![0; REQUEST.len()];
        server.read_exact(&mut got).await.unwrap();
        assert_eq!(got, REQUEST);
    }

    async fn go(client: &mut TcpStream) -> Exchanged {
        exchange(client, REQUEST.into(), Reader::new(false, "x"), Duration::from_millis(300), Clock::start()).await
    }

    /// Runs the exchange against what `server` does, and returns how it ended.
    async fn ends<F: Future<Output = ()>>(server: impl FnOnce(TcpStream) -> F) -> Exchanged {
        let (mut client, peer) = pair().await;
        tokio::join!(go(&mut client), server(peer)).0
    }

    #[tokio::test]
    async fn closed_after_reading_is_fin() {
        let got = ends(async |mut peer: TcpStream| read_request(&mut peer).await).await;
        assert_eq!((got.ending, got.bytes_in, got.closed_by), (Ending::Fin, 0, Some(ClosedBy::Server)));
    }

    #[tokio::test]
    async fn closed_with_the_request_unread_is_rst() {
        let got = ends(async |peer: TcpStream| {
            peer.readable().await.unwrap();
            drop(peer);
        })
        .await;
        assert_eq!((got.ending, got.bytes_out), (Ending::Rst, REQUEST.len() as u64));
    }

    /// The idle-close race itself: FIN is on its way when the request is sent, RST answers the request.
    #[tokio::test]
    async fn a_fin_that_crossed_the_request_is_rst() {
        for _ in 0..50 {
            let (mut client, peer) = pair().await;
            drop(peer);
            assert_eq!(idle_state(&client), IdleState::Unusable);
            let got = go(&mut client).await;
            assert_eq!((got.ending, got.bytes_in), (Ending::Rst, 0));
        }
    }

    #[tokio::test]
    async fn aborted_after_reading_is_rst() {
        let got = ends(async |mut peer: TcpStream| {
            read_request(&mut peer).await;
            peer.set_zero_linger().unwrap();
        })
        .await;
        assert_eq!(got.ending, Ending::Rst);
    }

    #[tokio::test]
    async fn half_a_body_is_not_an_answer() {
        let got = ends(async |mut peer: TcpStream| {
            read_request(&mut peer).await;
            peer.write_all(HALF).await.unwrap();
        })
        .await;
        assert_eq!((got.ending, got.bytes_in), (Ending::Fin, HALF.len() as u64));
        assert_eq!(got.head.map(|head| head.status), Some(200));
    }

    #[tokio::test]
    async fn silence_is_a_timeout() {
        let (mut client, _peer) = pair().await;
        let got = go(&mut client).await;
        assert_eq!((got.ending, got.closed_by), (Ending::TimedOut, Some(ClosedBy::Client)));
    }

    #[tokio::test]
    async fn nonsense_is_malformed() {
        let got = ends(async |mut peer: TcpStream| {
            read_request(&mut peer).await;
            peer.write_all(b"220 smtp ready\r\n").await.unwrap();
        })
        .await;
        assert_eq!(got.ending, Ending::Malformed);
    }

    #[tokio::test]
    async fn an_early_answer_to_a_long_upload_is_an_answer() {
        let (mut client, mut peer) = pair().await;
        let mut wire = b"POST / HTTP/1.1\r\nContent-Length: 50000000\r\n\r\n".to_vec();
        wire.resize(50_000_000, b'x');
        let answer = async {
            peer.write_all(b"HTTP/1.1 413 No\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        };
        let (got, ()) = tokio::join!(
            exchange(
                &mut client,
                Outgoing::from(&wire[..]),
                Reader::new(false, "x"),
                Duration::from_secs(5),
                Clock::start()
            ),
            answer
        );
        assert_eq!(got.ending, Ending::Complete { status: 413 });
        assert!(!got.reusable && got.bytes_out < wire.len() as u64);
    }

    const EXPECTS: &[u8] = b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\nbody";

    /// What the client sees, and the peer reads, of a body that is held back.
    async fn expects(serve: impl AsyncFnOnce(&mut TcpStream)) -> Exchanged {
        let (mut client, mut peer) = pair().await;
        let outgoing = Outgoing { bytes: EXPECTS, at_once: EXPECTS.len() - 4 };
        let reader = Reader::new(false, "x");
        let exchange = exchange(&mut client, outgoing, reader, Duration::from_secs(5), Clock::start());
        tokio::join!(exchange, serve(&mut peer)).0
    }

    #[tokio::test]
    async fn the_body_waits_for_100_continue() {
        for asked in [true, false] {
            let got = expects(async |peer| {
                let mut head = vec![0u8; EXPECTS.len()];
                let n = peer.read(&mut head).await.unwrap();
                assert_eq!(n, EXPECTS.len() - 4, "the head alone");
                if asked {
                    peer.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.unwrap();
                }
                peer.read_exact(&mut head[n..]).await.unwrap();
                peer.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
            })
            .await;
            assert_eq!((got.ending, got.reusable), (Ending::Complete { status: 200 }, true));
        }
    }

    #[tokio::test]
    async fn a_final_answer_instead_of_100_is_an_answer() {
        let got = expects(async |peer| {
            peer.write_all(b"HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        })
        .await;
        assert_eq!((got.ending, got.reusable), (Ending::Complete { status: 417 }, false));
    }

    #[tokio::test]
    async fn an_open_idle_connection_is_quiet() {
        let (client, mut peer) = pair().await;
        assert_eq!(idle_state(&client), IdleState::Quiet);
        peer.write_all(b"HTTP/1.1 408 Request Timeout\r\n\r\n").await.unwrap();
        client.readable().await.unwrap();
        assert_eq!(idle_state(&client), IdleState::Unusable);
    }

    #[tokio::test]
    async fn nobody_listening_is_refused() {
        let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        assert!(matches!(connect(address, Duration::from_secs(1)).await, Connected::Refused));
    }
}
