//! One TCP connection: its requests, its closes, and the rule that tells an idle close from a cut.
//!
//! The rule: take the server's first closing segment after its last whole answer, and its acknowledgement. If that is not beyond the
//! request's first byte, the server had received nothing of the request when it closed.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::http::{self, Body};
use super::packet::{ACK, FIN, RST, SYN, Segment};
use crate::books::Packets;
use crate::record::Signal;
use crate::time::{Micros, SECOND, span};

/// Segments kept that came too early.
const EARLY: usize = 16;
/// What is kept of each.
const EARLY_BYTES: usize = 2048;
/// Silence after which a connection whose close was seen is over.
const OVER: Micros = 60 * SECOND;

/// `a` is at or before `b`, in sequence space.
fn at_or_before(a: u32, b: u32) -> bool {
    b.wrapping_sub(a) < 1 << 31
}

/// A closing segment.
#[derive(Debug, Clone, Copy)]
struct Close {
    rst: bool,
    /// None: the segment had no acknowledgement.
    ack: Option<u32>,
    at: Micros,
    frame: u64,
}

/// Who is who.
#[derive(Debug, Clone, Copy)]
pub struct Side {
    /// The client.
    pub client: SocketAddr,
    /// The server.
    pub server: SocketAddr,
}

/// One direction.
#[derive(Debug, Default)]
struct Flow {
    next: Option<u32>,
    early: BTreeMap<u32, (u32, Vec<u8>)>,
    early_bytes: usize,
    /// Bytes were skipped that the capture does not have.
    hole: bool,
    /// Up to where the other side has acknowledged, be it captured or not.
    acked: Option<u32>,
}

/// A request and what became of it.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts about bytes, each set where it is seen")]
pub struct Exchange {
    /// The frame of its first byte.
    pub frame: u64,
    seq: u32,
    /// When it began.
    pub began: Micros,
    /// When it ended.
    pub ended: Micros,
    /// Method.
    pub method: String,
    /// Target.
    pub target: String,
    /// Id.
    pub id: String,
    /// The status of the answer.
    pub status: u16,
    /// What became of it.
    pub signal: Signal,
    /// Whether it has the id that is followed.
    pub sighted: bool,
    head: Vec<u8>,
    answer: Vec<u8>,
    cut: bool,
    answered: u64,
    whole: bool,
    body: Option<(u64, Body)>,
    tail: Vec<u8>,
    sent: u32,
    resent: u32,
    acked: bool,
    before: u32,
    new: bool,
    idle: Option<Micros>,
    close: Option<Close>,
    reset: Option<Close>,
    server: String,
}

/// One connection.
#[derive(Debug)]
pub struct Connection {
    side: Option<Side>,
    first: Side,
    client: Flow,
    server: Flow,
    isn: Option<u32>,
    syns: u32,
    established: bool,
    began: Micros,
    /// When it was last heard of.
    pub last: Micros,
    open: Option<Exchange>,
    answers: u32,
    last_answer: Option<Micros>,
    close: Option<Close>,
    client_close: Option<Micros>,
    names: String,
    /// Exchanges that have ended.
    pub done: Vec<Exchange>,
    syn_frame: u64,
    opaque: bool,
}

impl Connection {
    /// With its first segment seen.
    pub fn new(segment: &Segment<'_>, at: Micros) -> Connection {
        let (from, to) = (segment.from, segment.to);
        let side = match segment.flags & (SYN | ACK) {
            SYN => Some(Side { client: from, server: to }),
            flags if flags == SYN | ACK => Some(Side { client: to, server: from }),
            _ => None,
        };
        // Without a handshake: the lower port is rather the server's, until somebody speaks.
        let guess =
            if from.port() < to.port() { Side { client: to, server: from } } else { Side { client: from, server: to } };
        Connection {
            side,
            first: guess,
            client: Flow::default(),
            server: Flow::default(),
            isn: None,
            syns: 0,
            established: side.is_none(),
            began: at,
            last: at,
            open: None,
            answers: 0,
            last_answer: None,
            close: None,
            client_close: None,
            names: String::new(),
            done: Vec::new(),
            syn_frame: 0,
            opaque: false,
        }
    }

    /// Whether a SYN is that of another connection on the same ports.
    pub fn is_another(&self, segment: &Segment<'_>) -> bool {
        self.isn.is_some_and(|isn| isn != segment.seq) || self.isn.is_none() && self.last != self.began
    }

    /// Who is who.
    pub fn side(&self) -> Side {
        self.side.unwrap_or(self.first)
    }

    /// Whether nothing more is expected.
    pub fn is_over(&self, now: Micros) -> bool {
        self.close.is_some() && now - self.last > OVER
    }

    /// Bytes that it holds.
    pub fn held(&self) -> usize {
        let open = self.open.as_ref().map_or(0, |open| open.head.len() + open.answer.len());
        self.client.early_bytes + self.server.early_bytes + open
    }

    /// Takes a segment.
    pub fn take(&mut self, frame: u64, at: Micros, segment: &Segment<'_>, id: Option<&str>) {
        self.last = at;
        if self.side.is_none() {
            if http::begins_request(segment.payload) {
                self.side = Some(Side { client: segment.from, server: segment.to });
            } else if segment.payload.starts_with(b"HTTP/1.") {
                self.side = Some(Side { client: segment.to, server: segment.from });
            }
        }
        let from_client = segment.from == self.side().client;
        if segment.flags & SYN != 0 {
            self.handshake(frame, segment, from_client);
            return;
        }
        if from_client {
            self.established |= segment.flags & RST == 0;
            self.client_sent(frame, at, segment, id);
        } else {
            self.server_sent(frame, at, segment);
        }
    }

    fn handshake(&mut self, frame: u64, segment: &Segment<'_>, from_client: bool) {
        if from_client {
            if self.syns == 0 {
                self.syn_frame = frame;
            }
            self.syns += 1;
            self.isn = Some(segment.seq);
            self.client.next = Some(segment.seq.wrapping_add(1));
        } else {
            self.server.next = Some(segment.seq.wrapping_add(1));
            self.established = true;
        }
    }

    fn client_sent(&mut self, frame: u64, at: Micros, segment: &Segment<'_>, id: Option<&str>) {
        self.server.acknowledged(segment);
        if segment.len > 0 {
            let mut new = Vec::new();
            let fresh = self.client.accept(segment, &mut new);
            if fresh {
                for (seq, len, bytes) in new {
                    self.request_bytes(frame, at, seq, len, &bytes, id);
                }
            } else if let Some(open) = &mut self.open {
                open.resent += 1;
            }
        }
        if segment.flags & (FIN | RST) != 0 && self.client_close.is_none() {
            self.client_close = Some(at);
            // Its own FIN can be a half close; only a RST, or the end, says that it has given up.
            if segment.flags & RST != 0 {
                self.give_up(at);
            }
        }
    }

    fn request_bytes(&mut self, frame: u64, at: Micros, seq: u32, len: u32, bytes: &[u8], id: Option<&str>) {
        let says = http::begins_request(bytes);
        let over = self
            .open
            .as_ref()
            .is_none_or(|open| open.whole || open.answered > 0 && (says || self.opaque || bytes.is_empty()));
        if over && (says || self.open.is_none() || self.opaque) {
            if let Some(open) = self.open.take() {
                self.settle(open);
            }
            self.opaque |= !says && !bytes.is_empty();
            let idle = self.last_answer.map(|last| at - last);
            let head = http::request(bytes);
            let exchange = Exchange {
                frame,
                seq,
                began: at,
                ended: at,
                method: if says { head.method } else { String::new() },
                target: if says { head.target } else { String::new() },
                id: head.id,
                status: 0,
                signal: Signal::Answered,
                sighted: false,
                head: Vec::new(),
                answer: Vec::new(),
                cut: false,
                answered: 0,
                whole: false,
                body: None,
                tail: Vec::new(),
                sent: 0,
                resent: 0,
                acked: false,
                before: self.answers,
                new: self.isn.is_some_and(|isn| seq == isn.wrapping_add(1)),
                idle,
                close: self.close,
                reset: None,
                server: self.names.clone(),
            };
            self.open = Some(exchange);
        }
        if let Some(open) = &mut self.open {
            open.sent += len;
            if open.head.len() < http::HEAD {
                open.head.extend_from_slice(&bytes[..bytes.len().min(http::HEAD - open.head.len())]);
                let head = http::request(&open.head);
                open.id = head.id;
                if let Some(id) = id.filter(|id| !id.is_empty()) {
                    open.sighted |= memchr::memmem::find(&open.head, id.as_bytes()).is_some();
                }
            }
        }
    }

    fn server_sent(&mut self, frame: u64, at: Micros, segment: &Segment<'_>) {
        self.client.acknowledged(segment);
        if segment.flags & ACK != 0
            && let Some(open) = &mut self.open
        {
            open.acked |= !at_or_before(segment.ack, open.seq);
        }
        if segment.len > 0 {
            let mut new = Vec::new();
            if self.server.accept(segment, &mut new) {
                for (_, len, bytes) in new {
                    self.answer_bytes(at, len, &bytes);
                }
            }
        }
        if segment.flags & (FIN | RST) == 0 {
            return;
        }
        let rst = segment.flags & RST != 0;
        let close = Close { rst, ack: (segment.flags & ACK != 0).then_some(segment.ack), at, frame };
        if rst && !self.established && self.syns > 0 {
            self.refused(at, close);
            return;
        }
        if self.close.is_none() {
            self.close = Some(close);
            if let Some(open) = self.open.as_mut().filter(|open| !open.whole) {
                open.close = Some(close);
                open.ended = at;
            }
        }
        if rst && let Some(open) = self.open.as_mut().filter(|open| !open.whole && open.reset.is_none()) {
            open.reset = Some(close);
            open.ended = at;
        }
        if rst && let Some(open) = self.open.take() {
            self.settle(open);
        }
    }

    fn refused(&mut self, at: Micros, close: Close) {
        let mut exchange = self.unsent(at, Signal::Refused);
        exchange.close = Some(close);
        self.close = Some(close);
        self.syns = 0;
        self.done.push(exchange);
    }

    /// A request that was never sent: connecting failed.
    fn unsent(&self, at: Micros, signal: Signal) -> Exchange {
        Exchange {
            frame: self.syn_frame.max(1),
            seq: self.isn.unwrap_or(0),
            began: self.began,
            ended: at,
            method: String::new(),
            target: String::new(),
            id: String::new(),
            status: 0,
            signal,
            sighted: false,
            head: Vec::new(),
            answer: Vec::new(),
            cut: false,
            answered: 0,
            whole: true,
            body: None,
            tail: Vec::new(),
            sent: 0,
            resent: self.syns.saturating_sub(1),
            acked: false,
            before: 0,
            new: true,
            idle: None,
            close: None,
            reset: None,
            server: String::new(),
        }
    }

    fn answer_bytes(&mut self, at: Micros, len: u32, bytes: &[u8]) {
        let hole = self.server.hole;
        let Some(open) = &mut self.open else {
            // To a request that the capture does not have.
            self.answers += u32::from(bytes.starts_with(b"HTTP/1."));
            self.last_answer = Some(at);
            return;
        };
        open.answered += u64::from(len);
        open.ended = at;
        let short = bytes.len() < len as usize;
        if open.body.is_none() {
            open.cut |= short;
            let room = http::HEAD - open.answer.len().min(http::HEAD);
            open.answer.extend_from_slice(&bytes[..bytes.len().min(room)]);
            if let Some(head) = http::answer(&open.answer, &open.method, open.cut) {
                if (100..200).contains(&head.status) && head.status != 101 {
                    // An interim answer is none; what follows it is.
                    open.answer.drain(..(head.len as usize).min(open.answer.len()));
                    open.answered -= head.len.min(open.answered);
                    if open.answered == 0 {
                        return;
                    }
                } else {
                    open.answer = Vec::new();
                    open.status = head.status;
                    open.body = Some((head.len, head.body));
                    if !head.server.is_empty() {
                        self.names.clone_from(&head.server);
                        open.server = head.server;
                    }
                }
            }
        }
        open.tail.extend_from_slice(&bytes[bytes.len().saturating_sub(8)..]);
        let from = open.tail.len().saturating_sub(8);
        open.tail.drain(..from);
        open.cut |= short && matches!(open.body, Some((_, Body::Chunked)));
        let whole = match open.body {
            Some((head, Body::Length(length))) => open.answered >= head.saturating_add(length),
            Some((_, Body::Chunked)) => open.cut || hole || open.tail.ends_with(b"0\r\n\r\n"),
            Some((_, Body::UntilClose)) => false,
            // What was not kept can not be framed: it counts as an answer.
            Some((_, Body::Unknown)) => true,
            None => self.opaque,
        };
        if whole {
            open.whole = true;
            self.last_answer = Some(at);
            self.answers += 1;
        }
    }

    /// The client has given up.
    fn give_up(&mut self, at: Micros) {
        if let Some(mut open) = self.open.take_if(|open| !open.whole && open.close.is_none()) {
            open.ended = at;
            open.signal =
                if open.answered == 0 && !open.acked && open.resent > 0 { Signal::Silent } else { Signal::ClientLeft };
            self.done.push(open);
        }
    }

    /// Gives an exchange that has ended its signal.
    fn settle(&mut self, mut open: Exchange) {
        open.signal = match (open.close, open.answered) {
            _ if open.whole => {
                if open.status >= 500 {
                    Signal::AppError
                } else {
                    Signal::Answered
                }
            }
            (Some(close), _) if !close.rst && matches!(open.body, Some((_, Body::UntilClose))) => Signal::Answered,
            (Some(_), 1..) => Signal::CutMidAnswer,
            (Some(close), 0) => match close.ack {
                Some(ack) if !close.rst && at_or_before(ack, open.seq) => Signal::ClosedIdle,
                Some(ack) if !close.rst && !at_or_before(ack, open.seq) => Signal::ClosedUnanswered,
                // A RST: the socket was gone, or it was closed with the request unread.
                Some(_) | None => Signal::ClosedBeforeAnswer,
            },
            (None, _) => {
                // Nobody closed, and it is not whole: the capture ends here, or does not have it.
                if open.answered == 0 && !open.acked && open.resent > 1 { Signal::Silent } else { return }
            }
        };
        self.done.push(open);
    }

    /// The end of the capture, or of the ports' use.
    pub fn finish(&mut self) {
        if let Some(open) = self.open.take() {
            self.settle(open);
        } else if !self.established && self.syns > 1 && self.close.is_none() {
            let exchange = self.unsent(self.last, Signal::ConnectTimeout);
            self.done.push(exchange);
        }
    }
}

impl Flow {
    /// Takes a segment's data: what is new and in order comes out. False: it had all been there.
    fn accept(&mut self, segment: &Segment<'_>, out: &mut Vec<(u32, u32, Vec<u8>)>) -> bool {
        let next = *self.next.get_or_insert(segment.seq);
        let end = segment.seq.wrapping_add(segment.len);
        if at_or_before(end, next) {
            return false;
        }
        if at_or_before(segment.seq, next) {
            let skip = next.wrapping_sub(segment.seq);
            let bytes = segment.payload.get(skip as usize..).unwrap_or(&[]).to_vec();
            out.push((next, segment.len - skip, bytes));
            self.next = Some(end);
        } else {
            let bytes = segment.payload[..segment.payload.len().min(EARLY_BYTES)].to_vec();
            self.keep(segment.seq, segment.len, bytes);
        }
        while let Some(next) = self.next
            && let Some((seq, (len, bytes))) = self.early.pop_first()
        {
            self.early_bytes -= bytes.len();
            if !at_or_before(seq, next) {
                // What is missing before it never comes: it has arrived without the capture, or it is waited for long enough.
                if !self.has_arrived(seq) && self.early.len() + 1 < EARLY {
                    self.keep(seq, len, bytes);
                    break;
                }
                self.hole = true;
                self.next = Some(seq);
            }
            let next = self.next.unwrap_or(seq);
            let skip = next.wrapping_sub(seq);
            if skip < len {
                out.push((next, len - skip, bytes.get(skip as usize..).unwrap_or(&[]).to_vec()));
                self.next = Some(seq.wrapping_add(len));
            }
        }
        true
    }
}

impl Flow {
    /// Notes what the other side has of this one.
    fn acknowledged(&mut self, segment: &Segment<'_>) {
        if segment.flags & ACK != 0 && self.acked.is_none_or(|acked| at_or_before(acked, segment.ack)) {
            self.acked = Some(segment.ack);
        }
    }

    /// Whether everything before this byte has arrived.
    fn has_arrived(&self, seq: u32) -> bool {
        self.acked.is_some_and(|acked| at_or_before(seq, acked))
    }

    /// Keeps what came too early.
    fn keep(&mut self, seq: u32, len: u32, bytes: Vec<u8>) {
        self.early_bytes += bytes.len();
        if let Some((_, old)) = self.early.insert(seq, (len, bytes)) {
            self.early_bytes -= old.len();
        }
    }
}

impl Exchange {
    /// How long the connection had been idle when the server closed it.
    fn idle_at_close(&self) -> Option<Micros> {
        let idle = self.idle?;
        Some(self.close.map_or(idle, |close| (idle + close.at - self.began).max(0)))
    }

    /// What the packets show, in words.
    pub fn story(&self, side: &Side) -> String {
        let frame = |close: &Close| format!("frame {}", close.frame);
        let idle = self.idle_at_close().map_or_else(String::new, |idle| format!(", after {} idle", span(idle)));
        match (self.signal, &self.close) {
            (Signal::ClosedIdle, Some(close)) => {
                let crossed = self.began - close.at;
                let reset = self.reset.as_ref().filter(|reset| reset.frame != close.frame);
                let reset = reset.map_or_else(String::new, |reset| {
                    format!("; the request was answered by RST (frame {})", reset.frame)
                });
                let order = if crossed >= 0 { "after" } else { "before" };
                format!(
                    "the server {} closed the connection (FIN, {}){idle}; its acknowledgement shows that no byte of the request \
                     (frame {}, sent {} {order} it) had arrived{reset}",
                    side.server,
                    frame(close),
                    self.frame,
                    span(crossed.abs())
                )
            }
            (Signal::ClosedUnanswered, Some(close)) => format!(
                "the server {} had the request (frame {}) when it closed (FIN, {}), {} later, without a byte of an answer",
                side.server,
                self.frame,
                frame(close),
                span(close.at - self.began)
            ),
            (Signal::ClosedBeforeAnswer, Some(close)) => format!(
                "the server {} reset the connection ({}) {} after the request (frame {}){idle}",
                side.server,
                frame(close),
                span(close.at - self.began),
                self.frame
            ),
            (Signal::CutMidAnswer, Some(close)) => format!(
                "the server {} closed ({}, {}) after {} bytes of an answer that was to be longer",
                side.server,
                if close.rst { "RST" } else { "FIN" },
                frame(close),
                self.answered
            ),
            (Signal::Refused, Some(close)) => format!("{} refused the connection (RST, {})", side.server, frame(close)),
            (Signal::ConnectTimeout, _) => {
                format!("{} did not answer SYN, sent {} times", side.server, self.resent + 1)
            }
            (Signal::Silent, _) => {
                format!("{} acknowledged nothing, though the request was sent {} times", side.server, self.resent + 1)
            }
            (Signal::Answered | Signal::AppError, _) => format!("answered by {} with {}", side.server, self.status),
            (other, _) => other.words().to_owned(),
        }
    }

    /// The facts for the law.
    pub fn packets(&self, side: &Side) -> Packets {
        let frames = [Some(self.frame), self.close.map(|close| close.frame), self.reset.map(|reset| reset.frame)];
        let mut frames: Vec<u64> = frames.into_iter().flatten().collect();
        frames.sort_unstable();
        frames.dedup();
        Packets {
            idle: self.idle_at_close(),
            before: self.before,
            new: self.new,
            crossed: self.close.map(|close| self.began - close.at),
            story: self.story(side),
            frames,
            stream: format!("{} -> {}", side.client, side.server),
            server: self.server.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: &str = "10.88.0.1:56540";
    const SERVER: &str = "10.88.2.11:8080";

    fn play(segments: &[(bool, u8, u32, u32, &str)]) -> Vec<Exchange> {
        let (client, server): (SocketAddr, SocketAddr) = (CLIENT.parse().unwrap(), SERVER.parse().unwrap());
        let mut connection = None::<Connection>;
        for (frame, (from_client, flags, seq, ack, text)) in segments.iter().enumerate() {
            let (from, to) = if *from_client { (client, server) } else { (server, client) };
            let (seq, ack, flags, len) = (*seq, *ack, *flags, text.len() as u32);
            let segment = Segment { from, to, seq, ack, flags, len, payload: text.as_bytes() };
            let at = frame as Micros * 1000;
            let connection = connection.get_or_insert_with(|| Connection::new(&segment, at));
            connection.take(frame as u64 + 1, at, &segment, None);
        }
        let mut connection = connection.unwrap();
        connection.finish();
        connection.done
    }

    #[test]
    fn a_request_after_one_that_the_capture_lost_is_seen() {
        let (answer, second) =
            ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "GET /b HTTP/1.1\r\nX-Request-Id: b\r\n\r\n");
        let end = 1 + answer.len() as u32;
        let done = play(&[
            (true, SYN, 0, 0, ""),
            (false, SYN | ACK, 0, 1, ""),
            (true, ACK, 1, 1, ""),
            // The first request, 132 bytes, is not there; its answer acknowledges it.
            (false, ACK, 1, 133, answer),
            (false, FIN | ACK, end, 133, ""),
            (true, ACK, 133, end + 1, second),
            (false, RST, end + 1, 0, ""),
        ]);
        let seen: Vec<_> = done.iter().map(|one| (one.id.as_str(), one.signal, one.before, one.new)).collect();
        assert_eq!(seen, [("b", Signal::ClosedIdle, 1, false)]);
    }

    /// The server closed it unused, as the request was on its way.
    #[test]
    fn a_connection_is_new_where_its_beginning_says_so() {
        let request = "GET /a HTTP/1.1\r\nX-Request-Id: a\r\n\r\n";
        let handshake = [(true, SYN, 0, 0, ""), (false, SYN | ACK, 0, 1, ""), (true, ACK, 1, 1, "")];
        let closed = |seq| [(false, FIN | ACK, 1, seq, ""), (true, ACK, seq, 2, request), (false, RST, 2, 0, "")];
        let check = |segments: &[(bool, u8, u32, u32, &str)], new: bool| {
            let seen: Vec<_> = play(segments).iter().map(|one| (one.signal, one.before, one.new)).collect();
            assert_eq!(seen, [(Signal::ClosedIdle, 0, new)]);
        };
        check(&[handshake, closed(1)].concat(), true);
        // The capture began later.
        check(&closed(1), false);
        // 99 bytes came before that it has not, and were acknowledged.
        check(&[handshake, closed(100)].concat(), false);
    }

    #[test]
    fn what_nobody_has_acknowledged_may_still_come() {
        let (first, second) = ("GET /a HTTP/1.1\r\nX-Request", "-Id: a\r\n\r\n");
        let cut = 1 + first.len() as u32;
        let done = play(&[
            (true, SYN, 0, 0, ""),
            (false, SYN | ACK, 0, 1, ""),
            (true, ACK, cut, 1, second),
            (true, ACK, 1, 1, first),
            (false, ACK, 1, cut + second.len() as u32, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        ]);
        let seen: Vec<_> = done.iter().map(|one| (one.id.as_str(), one.signal)).collect();
        assert_eq!(seen, [("a", Signal::Answered)]);
    }
}
