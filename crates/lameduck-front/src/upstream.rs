//! A connection to the app: from the pool, or new; waited for where the app does not listen yet, or any more.

use std::borrow::Cow;
use std::future::poll_fn;
use std::io;
use std::task::Poll;
use std::time::Duration;

use lameduck_core::front::Slot;
use tokio::net::{TcpStream, UnixStream};

use crate::access::Ended;
use crate::clock;
use crate::config::Upstream;
use crate::message::reply;
use crate::state::Front;
use crate::wire::Stream;

/// The first pause between two attempts to connect.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
/// The longest.
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// Why there is no connection to the app.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoApp {
    /// It did not listen for as long as a request may be held.
    NotListening,
    /// As much is held as may be.
    Full,
    /// The app has ended for good.
    Gone,
    /// It listens, and takes no request over HTTP/2.
    NotHttp2,
    /// The time is over.
    Ended,
    /// The client left meanwhile.
    ClientGone,
}

impl NoApp {
    /// What the client is told, with 503, and how its request ended.
    pub fn words(self, upstream: &Upstream) -> (Cow<'static, str>, Ended) {
        match self {
            NoApp::NotListening => (format!("the app does not listen at {upstream}").into(), Ended::BadGateway),
            NoApp::Full => ("too many requests wait for the app".into(), Ended::Shed),
            NoApp::Gone => ("the app has ended".into(), Ended::BadGateway),
            NoApp::NotHttp2 => (format!("the app at {upstream} takes no HTTP/2").into(), Ended::BadGateway),
            NoApp::Ended => (reply::TIME_OVER.into(), Ended::Shed),
            NoApp::ClientGone => ("".into(), Ended::ClientGone),
        }
    }
}

/// Goes on with it until the time is over.
pub async fn in_time<T>(front: &Front, work: impl Future<Output = T>) -> Result<T, NoApp> {
    let over = front.over.notified();
    let (mut over, mut work) = (std::pin::pin!(over), std::pin::pin!(work));
    poll_fn(|cx| match work.as_mut().poll(cx) {
        Poll::Ready(done) => Poll::Ready(Ok(done)),
        Poll::Pending if over.as_mut().poll(cx).is_ready() || front.ended() => Poll::Ready(Err(NoApp::Ended)),
        Poll::Pending => Poll::Pending,
    })
    .await
}

/// A new connection to the app, for a request of which so many bytes are held meanwhile. A connect that failed has sent
/// nothing, so it is repeated for any request. `client_left` tells whether it is still worth it.
pub async fn open(front: &Front, bytes: usize, client_left: impl Fn() -> bool) -> Result<Stream, NoApp> {
    let mut held: Option<Held<'_>> = None;
    let began = clock::coarse_ms();
    let mut pause = FIRST_PAUSE;
    loop {
        let tried =
            tokio::time::timeout(front.config.hold.max(Duration::from_secs(1)), connect(&front.config.upstream));
        // An address that answers nothing would outlast the time there is.
        if let Ok(Ok(stream)) = in_time(front, tried).await? {
            front.page.add(Slot::UpstreamConnects, 1);
            return Ok(stream);
        }
        front.page.add(Slot::RetriedConnect, 1);
        front.pool.clear();
        let waited = clock::coarse_ms().saturating_sub(began);
        if front.ended() {
            return Err(NoApp::Ended);
        }
        if front.app_gone() {
            return Err(NoApp::Gone);
        }
        if waited >= front.config.hold.as_millis() as u64 {
            front.page.add(Slot::HeldExpired, 1);
            return Err(NoApp::NotListening);
        }
        if client_left() {
            return Err(NoApp::ClientGone);
        }
        if held.is_none() {
            held = Some(Held::begin(front, bytes).ok_or(NoApp::Full)?);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn connect(upstream: &Upstream) -> io::Result<Stream> {
    match upstream {
        Upstream::Tcp(address) => {
            let stream = TcpStream::connect(address).await?;
            // Messages are written whole; waiting for more of them would only delay (tcp(7), TCP_NODELAY).
            let _ = stream.set_nodelay(true);
            Ok(Stream::Tcp(stream))
        }
        Upstream::Unix(path) => UnixStream::connect(path).await.map(Stream::Unix),
    }
}

/// A request that is held, counted for as long as this lives.
struct Held<'a> {
    front: &'a Front,
    bytes: usize,
}

impl<'a> Held<'a> {
    fn begin(front: &'a Front, bytes: usize) -> Option<Held<'a>> {
        // Made only where it counts: its end counts too.
        front.hold(bytes).then(|| Held { front, bytes })
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.front.let_go(self.bytes);
    }
}
