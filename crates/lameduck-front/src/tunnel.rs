//! A connection whose protocol was switched: bytes both ways. A WebSocket is ended in its own terms (RFC 6455 section 7).

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use lameduck_core::front::Slot;

use crate::access::Ended;
use crate::clock;
use crate::connection::Client;
use crate::exchange::Switched;
use crate::message::request::Upgrade;
use crate::state::{Conn, Doing, Front, Order};
use crate::websocket::{self, Walker};
use crate::wire::{Outgoing, Stream};

/// How long the app, told that the WebSocket ends, may still send, and how long the client may take to confirm the end.
const CLOSING: Duration = Duration::from_secs(1);

/// How far a WebSocket's end has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// It goes on.
    No,
    /// It is to end; the app is told at the next boundary of what the client sends.
    TellApp,
    /// The app was told; what it still sends goes to the client, its Close does not.
    AppTold,
    /// The client is told at the next boundary of what the app sends.
    TellClient,
    /// The client was told; its Close is waited for.
    ClientTold,
    /// One of them has ended it by itself.
    ByItself,
}

struct Tunnel<'a> {
    client: &'a mut Client,
    app: Stream,
    pipes: Pipes<'a>,
    client_done: bool,
    app_done: bool,
}

/// What goes both ways, and where its frames end.
struct Pipes<'a> {
    front: &'a Front,
    is_websocket: bool,
    ending: Ending,
    to_app: Outgoing,
    to_client: Outgoing,
    from_client: Walker,
    from_app: Walker,
    /// The client has confirmed the end.
    confirmed: bool,
}

/// Runs until both sides are done, or it is ended.
pub async fn run(front: &Rc<Front>, client: &mut Client, switched: Switched) {
    let Switched { app, upgrade, first, account } = switched;
    let conn = Rc::clone(client.conn());
    let now = clock::coarse_ms();
    let is_websocket = upgrade == Upgrade::WebSocket;
    conn.now_doing(if is_websocket { Doing::WebSocket } else { Doing::Tunnel }, now);
    conn.expire_after(now, Duration::ZERO);
    let carry = std::mem::take(&mut client.carry);
    let mut tunnel =
        Tunnel { client, app, pipes: Pipes::new(front, is_websocket), client_done: false, app_done: false };
    tunnel.pipes.take_from_client(&carry);
    tunnel.pipes.take_from_app(&first);
    drop((carry, first));
    let ended = poll_fn(|cx| tunnel.poll(front, &conn, cx)).await;
    if tunnel.pipes.ending == Ending::ClientTold {
        front.page.add(Slot::ShedWebsocket, 1);
    }
    account.close(ended, 101);
}

impl Tunnel<'_> {
    fn poll(&mut self, front: &Front, conn: &Conn, cx: &mut Context<'_>) -> Poll<Ended> {
        conn.keep_waker(cx.waker());
        if let Some(order) = conn.take_order()
            && let Some(ended) = self.obey(front, conn, order)
        {
            return Poll::Ready(ended);
        }
        let before = self.pipes.ending;
        let broken = !self.poll_to_app(cx) | !self.poll_to_client(cx);
        self.pipes.give_back_buffers();
        let Pipes { ending, is_websocket, .. } = self.pipes;
        let (to_app, to_client) = (&self.pipes.to_app, &self.pipes.to_client);
        if ending != before && ending != Ending::ByItself {
            conn.expire_after(clock::coarse_ms(), CLOSING);
            // What a side was told is on its way only once it is written.
            cx.waker().wake_by_ref();
        }
        let orphaned = self.app_done && to_client.is_empty() && ending != Ending::ClientTold;
        if is_websocket && orphaned && conn.deadline_ms.get() == 0 {
            // Without its app a WebSocket is over, and has nothing left to tell a client that does not leave.
            conn.expire_within(clock::coarse_ms(), front.config.linger);
        }
        if broken {
            return Poll::Ready(if ending == Ending::No { Ended::ClientGone } else { Ended::Answered });
        }
        let flushed = to_app.is_empty() && to_client.is_empty();
        let over = match ending {
            Ending::ClientTold => (self.client_done || self.pipes.confirmed) && to_client.is_empty(),
            Ending::No | Ending::ByItself | Ending::TellApp | Ending::AppTold | Ending::TellClient => {
                self.client_done && self.app_done && flushed
            }
        };
        if over { Poll::Ready(Ended::Answered) } else { Poll::Pending }
    }

    fn obey(&mut self, front: &Front, conn: &Conn, order: Order) -> Option<Ended> {
        match (order, self.pipes.ending) {
            (Order::Leave, ending) if self.pipes.is_websocket => {
                conn.doing.set(Doing::Leaving);
                conn.expire_after(clock::coarse_ms(), CLOSING);
                if ending == Ending::No {
                    self.pipes.ending = Ending::TellApp;
                    self.pipes.take_from_client(&[]);
                }
                None
            }
            // What is tunnelled otherwise can not be ended in its own terms.
            (Order::Leave | Order::Look, _) => None,
            (Order::Expired, Ending::No) => self.app_done.then_some(Ended::Answered),
            // The app has not confirmed: the client is told all the same, as soon as a frame ends.
            (Order::Expired, Ending::TellApp | Ending::AppTold) => {
                conn.expire_after(clock::coarse_ms(), CLOSING);
                self.pipes.ending = Ending::TellClient;
                self.pipes.take_from_app(&[]);
                None
            }
            (Order::Expired, Ending::ClientTold | Ending::ByItself) => Some(Ended::Answered),
            (Order::Expired, Ending::TellClient) | (Order::End, _) => {
                front.page.add(Slot::Forced, 1);
                Some(Ended::CutAtDeadline)
            }
        }
    }

    /// Client to app; `false`: one of them is gone.
    fn poll_to_app(&mut self, cx: &mut Context<'_>) -> bool {
        let Tunnel { client, app, pipes, .. } = self;
        loop {
            match pipes.to_app.poll_flush(app, cx) {
                Poll::Pending => return true,
                // An app that closes without a word is seen by who reads from it.
                Poll::Ready(Err(_)) => pipes.to_app.clear(),
                Poll::Ready(Ok(())) => {}
            }
            if self.client_done || pipes.confirmed {
                return true;
            }
            let taken = client.stream.poll_take(cx, |bytes, _| {
                pipes.take_from_client(bytes);
                bytes.len()
            });
            match taken {
                Poll::Pending => return true,
                Poll::Ready(Err(_)) => return false,
                Poll::Ready(Ok(0)) => {
                    self.client_done = true;
                    app.close_write();
                    return true;
                }
                Poll::Ready(Ok(_)) => {}
            }
        }
    }

    /// App to client; `false`: one of them is gone.
    fn poll_to_client(&mut self, cx: &mut Context<'_>) -> bool {
        loop {
            let Tunnel { client, app, pipes, .. } = self;
            match pipes.to_client.poll_flush(&mut client.stream, cx) {
                Poll::Pending => return true,
                Poll::Ready(Err(_)) => return false,
                Poll::Ready(Ok(())) => {}
            }
            if self.app_done {
                return true;
            }
            let taken = app.poll_take(cx, |bytes, _| {
                pipes.take_from_app(bytes);
                bytes.len()
            });
            match taken {
                Poll::Pending => return true,
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Ok(0) | Err(_)) => self.app_ended(),
            }
        }
    }

    /// The app has closed: without a Close where it was told to close, the client gets ours.
    fn app_ended(&mut self) {
        self.app_done = true;
        let pipes = &mut self.pipes;
        match pipes.ending {
            Ending::TellApp | Ending::AppTold | Ending::TellClient if pipes.from_app.at_boundary() => {
                pipes.tell_client();
            }
            Ending::No | Ending::ByItself | Ending::TellApp | Ending::AppTold | Ending::TellClient => {
                self.client.stream.close_write();
            }
            Ending::ClientTold => {}
        }
    }
}

impl<'a> Pipes<'a> {
    fn new(front: &'a Front, is_websocket: bool) -> Pipes<'a> {
        Pipes {
            front,
            is_websocket,
            ending: Ending::No,
            to_app: Outgoing::default(),
            to_client: Outgoing::default(),
            from_client: Walker::new(),
            from_app: Walker::new(),
            confirmed: false,
        }
    }

    /// Nothing is on its way most of the time, and then no buffer is needed.
    fn give_back_buffers(&mut self) {
        self.front.recycle(self.to_app.unused());
        self.front.recycle(self.to_client.unused());
    }

    fn for_app(&mut self) -> &mut Vec<u8> {
        end_of(&mut self.to_app, self.front)
    }

    fn for_client(&mut self) -> &mut Vec<u8> {
        end_of(&mut self.to_client, self.front)
    }

    fn tell_client(&mut self) {
        let (frame, length) = websocket::close_frame(websocket::GOING_AWAY, None);
        self.for_client().extend_from_slice(&frame[..length]);
        self.ending = Ending::ClientTold;
    }

    fn take_from_client(&mut self, mut bytes: &[u8]) {
        if !self.is_websocket {
            self.for_app().extend_from_slice(bytes);
            return;
        }
        loop {
            if self.ending == Ending::TellApp && self.from_client.at_boundary() {
                // Masked, as everything that a client sends (RFC 6455 section 5.3). The mask is no secret here.
                let (frame, length) = websocket::close_frame(websocket::GOING_AWAY, Some([0x6c, 0x64, 0x75, 0x6b]));
                self.for_app().extend_from_slice(&frame[..length]);
                self.ending = Ending::AppTold;
            }
            if bytes.is_empty() {
                return;
            }
            let gone = self.from_client.advance(bytes);
            match self.ending {
                // After a Close nothing may follow (RFC 6455 section 5.5.1). The client learns in a moment that this was not
                // heard: it is told to go away with nothing in answer.
                Ending::AppTold | Ending::TellClient => {}
                Ending::ClientTold => {
                    if self.from_client.is_close() && self.from_client.at_boundary() {
                        self.confirmed = true;
                    }
                }
                Ending::No | Ending::TellApp | Ending::ByItself => {
                    self.for_app().extend_from_slice(&bytes[..gone]);
                    if self.from_client.is_close() && self.ending != Ending::ByItself {
                        self.ending = Ending::ByItself;
                    }
                }
            }
            bytes = &bytes[gone..];
        }
    }

    fn take_from_app(&mut self, mut bytes: &[u8]) {
        if !self.is_websocket {
            self.for_client().extend_from_slice(bytes);
            return;
        }
        loop {
            if self.ending == Ending::TellClient && self.from_app.at_boundary() {
                self.tell_client();
            }
            if bytes.is_empty() {
                return;
            }
            let starts_close = self.from_app.at_boundary() && websocket::peek_opcode(bytes[0]) == websocket::CLOSE;
            let gone = self.from_app.advance(bytes);
            match self.ending {
                Ending::AppTold | Ending::TellApp if starts_close || self.from_app.is_close() => {
                    // Its Close confirms ours. The client is to hear that this server goes away, not that all is done.
                    if self.from_app.at_boundary() {
                        self.tell_client();
                    }
                }
                Ending::ClientTold => {}
                Ending::No | Ending::ByItself | Ending::TellApp | Ending::AppTold | Ending::TellClient => {
                    self.for_client().extend_from_slice(&bytes[..gone]);
                    if starts_close && self.ending == Ending::No {
                        self.ending = Ending::ByItself;
                    }
                }
            }
            bytes = &bytes[gone..];
        }
    }
}

/// Where to add bytes, in a buffer of those that all share.
fn end_of<'o>(out: &'o mut Outgoing, front: &Front) -> &'o mut Vec<u8> {
    if !out.is_ready() {
        *out = Outgoing::new(front.buffer());
    }
    out.end()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use lameduck_core::front::{Page, WORDS};

    use super::*;
    use crate::config::Config;

    #[test]
    fn a_tunnel_on_which_nothing_is_under_way_owns_no_buffer() {
        let words = Box::leak(Box::new([const { AtomicU64::new(0) }; WORDS]));
        let front = Front::new(Config::default(), Page::new(words), None, 1);
        let mut pipes = Pipes::new(&front, false);
        pipes.take_from_client(&vec![0; 100_000]);
        pipes.take_from_app(b"some");
        pipes.to_app.clear();
        pipes.give_back_buffers();
        assert!(!pipes.to_app.is_ready() && pipes.to_client.bytes() == b"some");
        pipes.to_client.clear();
        pipes.give_back_buffers();
        assert!(!pipes.to_client.is_ready());
    }
}
