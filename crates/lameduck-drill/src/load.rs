//! The load: open loop, each request sent when its time has come, whatever became of those before it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use lameduck_core::judge::{Connection, Ending};
use lameduck_core::timeline::Moment;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::evidence::AttemptId;
use crate::links::{Lane, Place};
use crate::mix::{Kind, Template, draw};
use crate::profile::{FailedOn, Failure};
use crate::record::{Nowhere, Record, begun};
use crate::replica::{Reaction, Replica};
use crate::rng::Rng;
use crate::router::{EndpointId, Pooled, Target};
use crate::run::Shared;
use crate::schedule::Schedule;
use crate::wire::exchange::{ClosedBy, Connected, Exchanged, IdleState, Outgoing, connect, exchange, idle_state};
use crate::wire::h2::{self, Begun, Link};
use crate::wire::response::Reader;
use crate::wire::websocket;

/// An idle connection closed by the server sooner than this after an answer was not closed by any idle timeout in use.
const NO_IDLE_TIMEOUT: Duration = Duration::from_secs(1);

/// The load of one run.
pub(crate) struct Load {
    shared: Rc<Shared>,
    began: Duration,
    stop: Notify,
    /// While set nothing is sent by the schedule; what was meant for that time is sent after it, at the same distances.
    silent: Cell<bool>,
    resume: Notify,
    draws: RefCell<Rng>,
    flight: Rc<Flight>,
}

/// Requests under way.
#[derive(Default)]
struct Flight {
    up: Cell<u64>,
    /// Connections open: being made, in use or idle.
    connections: Rc<Cell<usize>>,
    next_connection: Cell<u64>,
    landed: Notify,
}

/// A connection, counted as long as it is open.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) stream: TcpStream,
    _counted: Counted,
}

/// Counts a connection as long as it is open.
#[derive(Debug)]
pub(crate) struct Counted(Rc<Cell<usize>>);

impl Counted {
    fn new(open: &Rc<Cell<usize>>) -> Counted {
        open.set(open.get() + 1);
        Counted(Rc::clone(open))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Load {
    pub(crate) fn new(shared: Rc<Shared>, began: Duration) -> Load {
        // Another stream of numbers than the schedule's.
        let draws = RefCell::new(Rng::new(shared.plan.seed ^ 0x006d_6978));
        Load {
            shared,
            began,
            stop: Notify::new(),
            silent: Cell::new(false),
            resume: Notify::new(),
            draws,
            flight: Rc::default(),
        }
    }

    /// Sends until stopped.
    pub(crate) async fn run(&self) {
        let plan = &self.shared.plan;
        let mut schedule = Schedule::new(plan.rate, plan.spacing, plan.seed);
        let mut shift = self.began;
        loop {
            let offset = schedule.next();
            let mut due = shift + offset;
            tokio::select! {
                biased;
                () = self.stop.notified() => return,
                () = self.shared.clock.until(due) => {}
            }
            if self.silent.get() {
                // A loop: the notice of an earlier silence's end may still lie there.
                while self.silent.get() {
                    tokio::select! {
                        biased;
                        () = self.stop.notified() => return,
                        () = self.resume.notified() => {}
                    }
                }
                let now = self.shared.clock.now();
                shift += now.saturating_sub(due);
                due = now;
            }
            self.send(self.template(|_| true), due, None);
        }
    }

    /// Ends the sending.
    pub(crate) fn stop(&self) {
        self.stop.notify_one();
    }

    /// Waits for what is under way, at most as long as it may take.
    pub(crate) async fn finish(&self) {
        let plan = &self.shared.plan;
        let longest = (plan.longest_exchange() + plan.connect_timeout) * (plan.profile.retry.limit + 1) + plan.rtt;
        let _ = tokio::time::timeout(longest, self.landed()).await;
    }

    async fn landed(&self) {
        while self.flight.up.get() > 0 {
            self.flight.landed.notified().await;
        }
    }

    /// Opens `count` idle connections, is silent, and uses each once more at about `quiet` after its last answer.
    pub(crate) async fn idle(&self, quiet: Duration, count: usize) {
        self.silent.set(true);
        let _ = tokio::time::timeout(self.shared.plan.timeout, self.landed()).await;
        for _ in 0..count {
            self.send(self.template(leaves_it_idle), self.shared.clock.now(), None);
        }
        let _ = tokio::time::timeout(self.shared.plan.timeout, self.landed()).await;
        let spread = (quiet / 50).max(Duration::from_millis(20));
        let mut uses: Vec<(Duration, u64)> = {
            let mut draws = self.draws.borrow_mut();
            let idle = self.shared.router.borrow().idle();
            idle.into_iter()
                .map(|(connection, since)| {
                    (since + quiet.saturating_sub(spread) + (spread * 2).mul_f64(draws.unit()), connection)
                })
                .collect()
        };
        uses.sort_unstable();
        for (at, connection) in uses {
            self.shared.clock.until(at).await;
            self.send(self.template(|_| true), at, Some(connection));
        }
        self.silent.set(false);
        self.resume.notify_one();
    }

    fn template(&self, fits: impl Fn(&Template) -> bool) -> usize {
        draw(&self.shared.plan.mix, &mut self.draws.borrow_mut(), fits)
    }

    /// Sends one request now, on a given idle connection or as the profile chooses.
    fn send(&self, template: usize, intended: Duration, connection: Option<u64>) {
        let number = {
            let mut book = self.shared.book.borrow_mut();
            book.scheduled += 1;
            book.scheduled
        };
        let request =
            Request { shared: Rc::clone(&self.shared), flight: Rc::clone(&self.flight), number, template, intended };
        self.flight.up.set(self.flight.up.get() + 1);
        tokio::task::spawn_local(async move {
            request.through(connection).await;
            request.flight.up.set(request.flight.up.get() - 1);
            request.flight.landed.notify_one();
        });
    }
}

/// Not one that takes its connection for itself, and lives on while the others close.
fn leaves_it_idle(template: &Template) -> bool {
    !matches!(template.kind, Kind::WebSocket { .. })
}

/// A new connection, which of all it is, and what counts it.
type Made = (TcpStream, u64, Counted);

/// One request and its attempts.
struct Request {
    shared: Rc<Shared>,
    flight: Rc<Flight>,
    number: u64,
    template: usize,
    intended: Duration,
}

impl Request {
    /// Sends the request, and again where it fails and the profile would.
    async fn through(&self, mut connection: Option<u64>) {
        let plan = &self.shared.plan;
        let (mut avoid, mut retry) = (None, 0);
        loop {
            let Some(place) = self.attempt(retry, avoid, connection.take()).await else { return };
            let failure = {
                let book = self.shared.book.borrow();
                let record = &book.records[place];
                avoid = Some(record.replica);
                failure_of(record)
            };
            match failure {
                Some(failure) if plan.profile.retry.allows(&self.template().method, failure, retry) => retry += 1,
                Some(_) | None => return,
            }
        }
    }

    fn template(&self) -> &Template {
        &self.shared.plan.mix[self.template]
    }

    /// One attempt; its place in the book, or `None` where there was nothing to send it on.
    async fn attempt(&self, retry: u32, avoid: Option<EndpointId>, connection: Option<u64>) -> Option<usize> {
        match self.template().kind {
            Kind::Http1 | Kind::Expect | Kind::WebSocket { .. } => self.attempt_alone(retry, avoid, connection).await,
            Kind::H2 => self.attempt_shared(retry, avoid).await,
        }
    }

    /// An attempt on a connection of its own.
    async fn attempt_alone(&self, retry: u32, avoid: Option<EndpointId>, connection: Option<u64>) -> Option<usize> {
        match self.target(avoid, connection) {
            Target::Nowhere => {
                self.nowhere(retry);
                None
            }
            Target::Reuse(pooled) => {
                let now = self.shared.clock.now();
                let reused = Connection::Reused {
                    idle: now.saturating_sub(pooled.idle_since),
                    requests_before: pooled.answered,
                };
                let place = self.open(retry, pooled.endpoint, reused, Some(pooled.id));
                self.converse(place, pooled).await;
                Some(place)
            }
            Target::Connect(endpoint) => self.connect(retry, endpoint).await,
        }
    }

    /// No endpoint was left. A retry that has nowhere to go leaves its request as it was.
    fn nowhere(&self, retry: u32) {
        if retry == 0 {
            let at = self.shared.clock.now();
            let mut book = self.shared.book.borrow_mut();
            book.unrouted += 1;
            book.nowhere.push(Nowhere { number: self.number, template: self.template, at });
        }
    }

    fn target(&self, avoid: Option<EndpointId>, connection: Option<u64>) -> Target<Wire> {
        let now = self.shared.clock.now();
        let (target, discarded) = {
            let mut router = self.shared.router.borrow_mut();
            let pinned = connection.and_then(|id| router.take_connection(id, now));
            match pinned {
                Some(pooled) if idle_state(&pooled.connection.stream) == IdleState::Quiet => {
                    (Target::Reuse(pooled), Vec::new())
                }
                pinned => {
                    let usable = |wire: &Wire| idle_state(&wire.stream) == IdleState::Quiet;
                    let (target, mut discarded) = router.take(now, avoid, usable);
                    discarded.extend(pinned);
                    (target, discarded)
                }
            }
        };
        for pooled in discarded {
            self.discard(&pooled, now);
        }
        target
    }

    /// An idle connection is given up: it expired, or the server had closed it.
    fn discard(&self, pooled: &Pooled<Wire>, now: Duration) {
        if idle_state(&pooled.connection.stream) == IdleState::Unusable {
            self.shared.book.borrow_mut().noticed_closes += 1;
            let young = now.saturating_sub(pooled.idle_since) < NO_IDLE_TIMEOUT;
            self.react(pooled.endpoint, if young { Reaction::Certain } else { Reaction::Perhaps });
        }
    }

    fn react(&self, endpoint: EndpointId, reaction: Reaction) {
        if let Some(replica) = self.replica(endpoint) {
            replica.reacted(reaction);
        }
    }

    /// An attempt as a stream of a connection that others share.
    async fn attempt_shared(&self, retry: u32, avoid: Option<EndpointId>) -> Option<usize> {
        loop {
            let now = self.shared.clock.now();
            let (place, given_up) =
                self.shared.links.borrow_mut().take(&mut self.shared.router.borrow_mut(), now, avoid);
            for lane in given_up {
                self.give_up(&lane, now);
            }
            match place {
                Place::Nowhere => {
                    self.nowhere(retry);
                    return None;
                }
                Place::Connect(endpoint) => return self.connect_shared(retry, endpoint).await,
                Place::Stream(lane) => {
                    let link = &lane.link;
                    let requests_before = link.answered.get();
                    let how = match link.streams() {
                        0 => Connection::Reused { idle: now.saturating_sub(link.idle_since.get()), requests_before },
                        _ => Connection::Shared { requests_before },
                    };
                    // Where it has stopped taking streams meanwhile nothing was sent, and another is chosen.
                    if let Some(begun) = self.begin(&lane, retry).await {
                        let place = self.open(retry, lane.endpoint, how, Some(lane.id));
                        self.converse_shared(place, &lane, begun).await;
                        return Some(place);
                    }
                }
            }
        }
    }

    async fn connect_shared(&self, retry: u32, endpoint: EndpointId) -> Option<usize> {
        let (place, made) = self.make_connection(retry, endpoint).await?;
        let Some((stream, id, counted)) = made else { return Some(place) };
        let clock = self.shared.clock;
        let link = Link::open(stream, clock, self.shared.plan.rtt).await;
        let lane = Rc::new(Lane { link, id, endpoint, opened: clock.now(), _counted: counted });
        self.shared.links.borrow_mut().add(Rc::clone(&lane));
        match self.begin(&lane, retry).await {
            Some(begun) => self.converse_shared(place, &lane, begun).await,
            None => self.unconnected(place, Connection::Fresh, lane.link.ended(), ClosedBy::Server),
        }
        Some(place)
    }

    /// A shared connection is given up: it expired, or the server is leaving it.
    fn give_up(&self, lane: &Lane, now: Duration) {
        let link = &lane.link;
        if link.is_leaving() {
            self.shared.book.borrow_mut().noticed_closes += u64::from(link.streams() == 0);
            let young = now.saturating_sub(link.idle_since.get()) < NO_IDLE_TIMEOUT;
            self.react(lane.endpoint, if young { Reaction::Certain } else { Reaction::Perhaps });
        }
    }

    /// Opens a stream for the request.
    async fn begin(&self, lane: &Lane, retry: u32) -> Option<Begun> {
        let id = self.shared.log.borrow().id((self.number, retry));
        let address = self.shared.fleet.borrow().replicas.get(lane.endpoint)?.address;
        let template = self.template();
        let request = http::Request::builder()
            .method(template.method.as_str())
            .uri(format!("http://{address}{}", target(template, &id, self.shared.plan.id_in_query)))
            .header("x-request-id", &id)
            .header("user-agent", "lameduck-drill")
            .header("accept", "*/*");
        let request = match template.body_bytes {
            0 => request,
            length => request.header("content-type", "application/octet-stream").header("content-length", length),
        };
        lane.link.begin(request.body(()).ok()?, template.body_bytes > 0).await
    }

    /// Sees a stream to its end, and enters how it ended.
    async fn converse_shared(&self, place: usize, lane: &Lane, begun: Begun) {
        let shared = &self.shared;
        let attempt = shared.book.borrow().records[place].id;
        let id = shared.log.borrow().id(attempt);
        let body = Bytes::from(vec![b'x'; self.template().body_bytes]);
        let got = h2::exchange(&lane.link, begun, body, &id, shared.plan.timeout, shared.clock).await;
        self.enter(place, &got, got.at);
        self.learn(lane.endpoint, attempt, &got);
    }

    async fn connect(&self, retry: u32, endpoint: EndpointId) -> Option<usize> {
        let (place, made) = self.make_connection(retry, endpoint).await?;
        if let Some((stream, id, counted)) = made {
            let now = self.shared.clock.now();
            let pooled = Pooled {
                connection: Wire { stream, _counted: counted },
                id,
                endpoint,
                opened: now,
                idle_since: now,
                answered: 0,
            };
            self.converse(place, pooled).await;
        }
        Some(place)
    }

    /// Enters an attempt and makes a connection for it; the connection is `None` where it could not be made, which has then
    /// been entered. `None` in all where this side could not try.
    async fn make_connection(&self, retry: u32, endpoint: EndpointId) -> Option<(usize, Option<Made>)> {
        if self.flight.connections.get() >= self.shared.plan.max_connections {
            self.shared.book.borrow_mut().dropped += u64::from(retry == 0);
            return None;
        }
        let counted = Counted::new(&self.flight.connections);
        let place = self.open(retry, endpoint, Connection::Fresh, None);
        let address = self.address(endpoint);
        match connect(address, self.shared.plan.connect_timeout).await {
            Connected::Open(stream) => {
                let id = self.flight.next_connection.get();
                self.flight.next_connection.set(id + 1);
                self.shared.book.borrow_mut().records[place].connection = Some(id);
                return Some((place, Some((stream, id, counted))));
            }
            Connected::Refused => {
                self.refused_by(endpoint);
                self.unconnected(place, Connection::Refused, Ending::Rst, ClosedBy::Server);
            }
            Connected::TimedOut => self.unconnected(place, Connection::TimedOut, Ending::TimedOut, ClosedBy::Client),
            Connected::OwnFault(error) => {
                // The request stays in the books without an end: its fate is unknown, and the verdict inconclusive.
                self.shared.book.borrow_mut().own_fault.get_or_insert_with(|| error.to_string());
                return None;
            }
        }
        Some((place, None))
    }

    /// Where it is sent: to the replica, or to the proxy before all of them.
    fn address(&self, endpoint: EndpointId) -> std::net::SocketAddr {
        let replica = || self.shared.fleet.borrow().replicas[endpoint].address;
        self.shared.plan.via.map_or_else(replica, |via| via.address)
    }

    /// The replica that a connection is to, if that is known.
    fn replica(&self, endpoint: EndpointId) -> Option<Rc<Replica>> {
        if self.shared.plan.via.is_some() {
            return None;
        }
        // Once the run is over the fleet is gone, and its evidence has been taken.
        self.shared.fleet.borrow().replicas.get(endpoint).map(Rc::clone)
    }

    /// A refused handshake says that nobody listens, the moment it is refused.
    fn refused_by(&self, endpoint: EndpointId) {
        if let Some(replica) = self.replica(endpoint) {
            let stopping = replica.life.borrow().at(Moment::TermReceived).is_some();
            if stopping && !replica.has_exited() {
                replica.listener_closed(self.shared.clock.now());
            }
        }
    }

    fn open(&self, retry: u32, replica: EndpointId, how: Connection, connection: Option<u64>) -> usize {
        self.shared.book.borrow_mut().open(Record {
            id: (self.number, retry),
            template: self.template,
            replica,
            intended: self.intended,
            attempt: begun(self.shared.clock.now(), how),
            connection,
            bytes_out: 0,
            closed_by: None,
            status: None,
            echoed: false,
        })
    }

    fn unconnected(&self, place: usize, how: Connection, ending: Ending, by: ClosedBy) {
        let mut book = self.shared.book.borrow_mut();
        let record = &mut book.records[place];
        record.attempt.connection = how;
        record.attempt.ending = ending;
        record.attempt.ended = self.shared.clock.now();
        record.closed_by = Some(by);
        book.count(place);
    }

    /// Sends the request on a connection, enters how it ended, and keeps the connection where it can be kept.
    async fn converse(&self, place: usize, mut pooled: Pooled<Wire>) {
        let shared = &self.shared;
        let attempt = shared.book.borrow().records[place].id;
        let id = shared.log.borrow().id(attempt);
        let address = self.address(pooled.endpoint);
        let wire = wire(self.template(), &address.to_string(), &id, shared.plan.id_in_query);
        if !shared.plan.rtt.is_zero() {
            // On its way: what the server does in this time, the request does not know.
            tokio::time::sleep(shared.plan.rtt).await;
        }
        let got = self.on_the_wire(&mut pooled.connection.stream, &wire, &id).await;
        let now = got.at;
        self.enter(place, &got, now);
        self.learn(pooled.endpoint, attempt, &got);
        if got.reusable {
            pooled.idle_since = now;
            pooled.answered += 1;
            // What the pool does not keep is closed by being dropped.
            drop(shared.router.borrow_mut().give_back(pooled, now));
        }
    }

    /// One HTTP/1.1 exchange, in the template's manner.
    async fn on_the_wire(&self, stream: &mut TcpStream, wire: &[u8], id: &str) -> Exchanged {
        let (plan, clock, template) = (&self.shared.plan, self.shared.clock, self.template());
        let outgoing = match template.kind {
            Kind::Http1 | Kind::H2 => Outgoing::from(wire),
            Kind::Expect => Outgoing { bytes: wire, at_once: wire.len() - template.body_bytes },
            Kind::WebSocket { life, pace } => {
                let session = websocket::Plan {
                    request: wire,
                    id,
                    life,
                    pace,
                    message_bytes: template.body_bytes,
                    timeout: plan.timeout,
                    rtt: plan.rtt,
                    seed: plan.seed ^ self.number,
                };
                return websocket::session(stream, session, clock).await;
            }
        };
        exchange(stream, outgoing, Reader::new(template.method == "HEAD", id), plan.timeout, clock).await
    }

    fn enter(&self, place: usize, got: &Exchanged, now: Duration) {
        let mut book = self.shared.book.borrow_mut();
        let record = &mut book.records[place];
        record.attempt.ended = now;
        record.attempt.ending = got.ending;
        record.attempt.bytes_in = got.bytes_in;
        record.bytes_out = got.bytes_out;
        record.closed_by = got.closed_by;
        record.status = got.head.map(|head| head.status);
        record.echoed = got.head.is_some_and(|head| head.echoed);
        book.count(place);
    }

    /// What an exchange says about whether its replica has heard the stop signal.
    fn learn(&self, endpoint: EndpointId, attempt: AttemptId, got: &Exchanged) {
        debug_assert_eq!(attempt.0, self.number);
        let Some(replica) = self.replica(endpoint) else { return };
        let stopping = replica.life.borrow().at(Moment::TermReceived).is_some();
        let said_close = got.head.is_some_and(|head| head.said_close);
        if !stopping {
            replica.life.borrow_mut().kept_alive |= got.reusable;
        } else if !replica.life.borrow().kept_alive {
            // It closes every connection anyway.
        } else if said_close || (got.closed_by == Some(ClosedBy::Server) && !replica.has_exited()) {
            replica.reacted(Reaction::Certain);
        }
    }
}

/// How a retry policy sees an attempt; `None` where it was answered, or the answer is the service's own error.
fn failure_of(record: &Record) -> Option<Failure> {
    let on = match record.attempt.connection {
        Connection::Refused | Connection::TimedOut => FailedOn::Connecting,
        Connection::Reused { .. } | Connection::Shared { .. } => FailedOn::Reused,
        Connection::Fresh => FailedOn::Fresh,
    };
    let failure =
        |timed_out| Failure { on, timed_out, answer_began: record.attempt.bytes_in > 0, not_processed: false };
    match record.attempt.ending {
        Ending::Complete { .. } | Ending::Pending | Ending::Malformed | Ending::Aborted => None,
        Ending::NotProcessed => Some(Failure { not_processed: true, ..failure(false) }),
        Ending::Fin | Ending::Rst => Some(failure(false)),
        // A handshake that is not answered is a failure to connect for every policy.
        Ending::TimedOut => Some(failure(on != FailedOn::Connecting)),
    }
}

/// Path and query, with the id where it is wanted there.
pub(crate) fn target(template: &Template, id: &str, id_in_query: bool) -> String {
    let path = &template.path;
    match (id_in_query, path.contains('?')) {
        (false, _) => path.clone(),
        (true, false) => format!("{path}?lameduck-id={id}"),
        (true, true) => format!("{path}&lameduck-id={id}"),
    }
}

/// The bytes of a request.
fn wire(template: &Template, host: &str, id: &str, id_in_query: bool) -> Vec<u8> {
    let Template { method, kind, .. } = template;
    let target = target(template, id, id_in_query);
    let body_bytes = match kind {
        Kind::Http1 | Kind::Expect | Kind::H2 => template.body_bytes,
        Kind::WebSocket { .. } => 0,
    };
    let takes_body = body_bytes > 0 || matches!(method.as_str(), "POST" | "PUT" | "PATCH");
    let body_fields = if takes_body {
        format!("Content-Type: application/octet-stream\r\nContent-Length: {body_bytes}\r\n")
    } else {
        String::new()
    };
    let kind_fields = match kind {
        Kind::Http1 | Kind::H2 => String::new(),
        Kind::Expect => "Expect: 100-continue\r\n".to_owned(),
        Kind::WebSocket { .. } => format!(
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {}\r\n",
            websocket::KEY
        ),
    };
    let head = format!(
        "{method} {target} HTTP/1.1\r\nHost: {host}\r\nX-Request-Id: {id}\r\nUser-Agent: lameduck-drill\r\nAccept: */*\r\n{body_fields}{kind_fields}\r\n"
    );
    let mut wire = head.into_bytes();
    wire.resize(wire.len() + body_bytes, b'x');
    wire
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_as_it_goes_out() {
        let template: Template = "POST /orders?a=b 1 3".parse().unwrap();
        let text = String::from_utf8(wire(&template, "h:1", "ld-x-7", true)).unwrap();
        assert_eq!(
            text,
            "POST /orders?a=b&lameduck-id=ld-x-7 HTTP/1.1\r\nHost: h:1\r\nX-Request-Id: ld-x-7\r\nUser-Agent: lameduck-drill\r\n\
             Accept: */*\r\nContent-Type: application/octet-stream\r\nContent-Length: 3\r\n\r\nxxx"
        );
        let get = String::from_utf8(wire(&"GET /".parse().unwrap(), "h:1", "ld-x-7", false)).unwrap();
        assert!(get.starts_with("GET / HTTP/1.1\r\n") && !get.contains("Content-Length"));
    }
}
