//! What all connections of the front share, and the one clock work that ends them.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::task::Waker;
use std::time::Duration;

use lameduck_core::front::{Command, FrontPhase, Page, Slot};

use crate::access::{AccessLog, Ended};
use crate::clock;
use crate::config::Config;
use crate::message::reply;
use crate::message::request::Request;
use crate::pool::Pool;

/// How often connections are looked through while the front serves.
pub const SERVING_TICK: Duration = Duration::from_secs(1);
/// The same in a drain.
pub const DRAIN_TICK: Duration = Duration::from_millis(20);
/// An idle connection is not shed before it was idle for this long: its client may be about to use it.
const LEAST_IDLE_MS: u64 = 250;
/// A probe that only connects is gone again within this.
const PROBE_MS: u64 = 100;
/// How often a request in flight looks whether it makes sense to go on.
pub const LOOK: Duration = Duration::from_secs(1);

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doing {
    /// Nothing has come on it yet.
    New,
    /// A part of a request head has come.
    Reading,
    /// It is between two requests.
    Idle,
    /// A request is in flight.
    Exchange,
    /// A request is in flight that waits long by design.
    LongPoll,
    /// A stream of events is in flight.
    Events,
    /// It is a WebSocket.
    WebSocket,
    /// It is another tunnel.
    Tunnel,
    /// It speaks HTTP/2.
    Http2,
    /// It was told to leave and does.
    Leaving,
    /// Our side is closed; what the client still sends is read.
    Lingering,
}

/// What a connection is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Its deadline has passed.
    Expired,
    /// It is to end in its own terms, soon.
    Leave,
    /// The time is over.
    End,
    /// It is to look at what has changed.
    Look,
}

/// What a request in flight waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waits {
    /// For the client, to take its answer or to send the rest of its request.
    Client,
    /// For the client to send what it waits for leave to send (`Expect: 100-continue`).
    Leave,
    /// For the app to take the request.
    Taking,
    /// For the app to begin its answer.
    Answer,
    /// For the app to go on with its answer: as long as it likes.
    More,
}

/// A connection, as everybody else sees it.
#[derive(Debug)]
pub struct Conn {
    /// What it is doing.
    pub doing: Cell<Doing>,
    /// Since when, in ms.
    pub since_ms: Cell<u64>,
    /// When it is over, in ms; 0: never.
    pub deadline_ms: Cell<u64>,
    /// When it was accepted, in ms.
    pub opened_ms: u64,
    /// Spreads what is done to many.
    pub jitter: u16,
    /// Whether its coming was counted as an arrival.
    counted: Cell<bool>,
    order: Cell<Option<Order>>,
    waker: RefCell<Option<Waker>>,
}

impl Conn {
    /// Says what it does now.
    pub fn now_doing(&self, doing: Doing, now_ms: u64) {
        self.doing.set(doing);
        self.since_ms.set(now_ms);
    }

    /// Sets its deadline, counted from now; zero: none.
    pub fn expire_after(&self, now_ms: u64, after: Duration) {
        self.deadline_ms.set(if after.is_zero() { 0 } else { now_ms + after.as_millis() as u64 });
    }

    /// Sets its deadline, counted from now; zero: at once.
    pub fn expire_within(&self, now_ms: u64, after: Duration) {
        self.deadline_ms.set((now_ms + after.as_millis() as u64).max(1));
    }

    /// Whether it is older than a connection may be (zero: never), a tenth more or less: connections that came together are
    /// not to leave together.
    pub fn is_old(&self, now_ms: u64, most: Duration) -> bool {
        let most = most.as_millis() as u64;
        let most = most - most / 10 + most / 5 * u64::from(self.jitter) / (1 << 16);
        most > 0 && now_ms.saturating_sub(self.opened_ms) >= most
    }

    /// What it was told, once.
    pub fn take_order(&self) -> Option<Order> {
        self.order.take()
    }

    /// Tells it, and wakes it. That the time is over is said only once, so nothing else takes its place.
    pub fn tell(&self, order: Order) {
        if self.order.get() != Some(Order::End) {
            self.order.set(Some(order));
        }
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// Keeps the waker of the task that it is. A task has one for all its life.
    pub fn keep_waker(&self, waker: &Waker) {
        let mut kept = self.waker.borrow_mut();
        if kept.as_ref().is_none_or(|kept| !kept.will_wake(waker)) {
            *kept = Some(waker.clone());
        }
    }
}

/// Everything that connections share.
#[derive(Debug)]
pub struct Front {
    /// The options.
    pub config: Config,
    /// The counters.
    pub page: Page,
    /// Idle connections to the app.
    pub pool: Pool,
    /// The access log, where there is one.
    pub log: Option<AccessLog>,
    phase: Cell<FrontPhase>,
    phase_since_ms: Cell<u64>,
    not_ready: Cell<bool>,
    app_gone: Cell<bool>,
    ended: Cell<bool>,
    conns: RefCell<Vec<Option<Rc<Conn>>>>,
    free: RefCell<Vec<u32>>,
    buffers: RefCell<Vec<Vec<u8>>>,
    held_bytes: Cell<usize>,
    seed: Cell<u64>,
    /// Tells streams of HTTP/2, which are connections to nobody else, that the time is over.
    pub over: tokio::sync::Notify,
    /// The connection to an app that speaks HTTP/2.
    pub http2: RefCell<Option<h2::client::SendRequest<bytes::Bytes>>>,
}

/// Buffers kept for the next request.
const MOST_BUFFERS: usize = 32;
/// The largest buffer that is kept.
const LARGEST_KEPT: usize = 32 << 10;

impl Front {
    /// A front that serves.
    pub fn new(config: Config, page: Page, log: Option<AccessLog>, seed: u64) -> Rc<Front> {
        page.set_phase(FrontPhase::Serving);
        Rc::new(Front {
            pool: Pool::new(page),
            config,
            page,
            log,
            phase: Cell::new(FrontPhase::Serving),
            phase_since_ms: Cell::new(clock::coarse_ms()),
            not_ready: Cell::new(false),
            app_gone: Cell::new(false),
            ended: Cell::new(false),
            conns: RefCell::default(),
            free: RefCell::default(),
            buffers: RefCell::default(),
            held_bytes: Cell::new(0),
            seed: Cell::new(seed | 1),
            over: tokio::sync::Notify::new(),
            http2: RefCell::new(None),
        })
    }

    /// The phase.
    pub fn phase(&self) -> FrontPhase {
        self.phase.get()
    }

    /// Whether clients are to be asked to leave.
    pub fn draining(&self) -> bool {
        self.phase.get() != FrontPhase::Serving
    }

    /// Whether health checks are to be told that this is not ready.
    pub fn not_ready(&self) -> bool {
        self.not_ready.get()
    }

    /// Whether the app has ended for good.
    pub fn app_gone(&self) -> bool {
        self.app_gone.get()
    }

    /// Whether the time is over.
    pub fn ended(&self) -> bool {
        self.ended.get()
    }

    /// Whether a request is not for the app, by the readiness, the budget or a limit: what it is told instead, with 503, and
    /// how it ended. It is in the books already.
    pub fn turns_away(&self, request: &Request) -> Option<(&'static str, Ended)> {
        if request.health && self.not_ready() {
            return Some(("this instance is going away", Ended::Answered));
        }
        if self.ended() {
            return Some((reply::TIME_OVER, Ended::Shed));
        }
        let limit = self.config.max_requests as u64;
        let over_limit = limit > 0 && !request.probe && self.page.get(Slot::InFlight) > limit;
        over_limit.then_some(("too many requests here: try again", Ended::Shed))
    }

    /// Whether a request that has not moved for so long is given up.
    pub fn gives_up(&self, waits: Waits, still_ms: u64) -> bool {
        let over = |limit: Duration| !limit.is_zero() && still_ms >= limit.as_millis() as u64;
        match waits {
            // A look is the least that a client has in a drain: what is looked at has just moved, it may be.
            Waits::Client => {
                let grace = if self.config.first_byte_grace.is_zero() { LOOK } else { self.config.first_byte_grace };
                over(self.config.body_timeout) || (self.draining() && over(grace))
            }
            Waits::Leave | Waits::Taking => over(self.config.body_timeout),
            Waits::Answer => over(self.config.upstream_timeout),
            Waits::More => false,
        }
    }

    /// Whether what goes on since then has had its grace in a drain, from the beginning of the lame duck or its own where that
    /// came later. `jitter` spreads what would end all at once.
    pub fn grace_is_over(&self, now_ms: u64, since_ms: u64, grace: Duration, jitter: u16) -> bool {
        match self.phase.get() {
            FrontPhase::Serving => false,
            FrontPhase::LameDuck => {
                let had = now_ms.saturating_sub(since_ms.max(self.phase_since_ms.get()));
                had >= grace.as_millis() as u64 + self.spread(jitter)
            }
            FrontPhase::Closing | FrontPhase::Closed => true,
        }
    }

    /// A part of the time over which connections are shed, in ms.
    fn spread(&self, jitter: u16) -> u64 {
        (self.config.shed_spread.as_millis() as u64 * u64::from(jitter)) >> 16
    }

    /// The next of a row of numbers that nobody can foresee enough to matter (xorshift64*; Marsaglia 2003).
    pub fn random(&self) -> u64 {
        let mut x = self.seed.get();
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.seed.set(x);
        x.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A buffer with nothing in it.
    pub fn buffer(&self) -> Vec<u8> {
        self.buffers.borrow_mut().pop().unwrap_or_else(|| Vec::with_capacity(1024))
    }

    /// Takes a buffer back.
    pub fn recycle(&self, mut buffer: Vec<u8>) {
        let mut buffers = self.buffers.borrow_mut();
        if buffers.len() < MOST_BUFFERS && buffer.capacity() <= LARGEST_KEPT && buffer.capacity() > 0 {
            buffer.clear();
            buffers.push(buffer);
        }
    }

    /// Whether so many more bytes may be held; if so they are counted until [`Front::let_go`].
    pub fn hold(&self, bytes: usize) -> bool {
        let held = self.held_bytes.get() + bytes;
        let fits = held <= self.config.hold_bytes
            && self.page.get(Slot::Held) < self.config.hold_requests as u64
            && !self.app_gone();
        if fits {
            self.held_bytes.set(held);
            self.page.add(Slot::Held, 1);
            self.page.add(Slot::HeldTotal, 1);
        }
        fits
    }

    /// The end of a hold.
    pub fn let_go(&self, bytes: usize) {
        self.held_bytes.set(self.held_bytes.get() - bytes);
        self.page.sub(Slot::Held, 1);
    }

    /// A new connection.
    pub fn open(self: &Rc<Front>) -> Seat {
        let now = clock::coarse_ms();
        let conn = Rc::new(Conn {
            doing: Cell::new(Doing::New),
            since_ms: Cell::new(now),
            deadline_ms: Cell::new(0),
            opened_ms: now,
            jitter: self.random() as u16,
            counted: Cell::new(false),
            order: Cell::new(None),
            waker: RefCell::new(None),
        });
        conn.expire_after(now, self.config.head_timeout);
        let mut conns = self.conns.borrow_mut();
        let index = self.free.borrow_mut().pop().unwrap_or_else(|| {
            conns.push(None);
            (conns.len() - 1) as u32
        });
        conns[index as usize] = Some(Rc::clone(&conn));
        self.page.add(Slot::Connections, 1);
        Seat { conn, index, front: Rc::clone(self) }
    }

    /// An arrival that is no probe's.
    pub fn arrived(&self, now_ms: u64, from: IpAddr) {
        self.page.set(Slot::LastArrival, now_ms);
        if self.draining() {
            self.page.count_source(from);
        }
    }

    /// Carries out what PID 1 says.
    pub fn command(&self, command: Command) {
        match command {
            Command::LameDuck => self.enter(FrontPhase::LameDuck),
            Command::NotReady => self.not_ready.set(true),
            Command::Close => self.enter(FrontPhase::Closing),
            Command::End => {
                self.ended.set(true);
                self.enter(FrontPhase::Closing);
                self.each(|conn| conn.tell(Order::End));
                self.over.notify_waiters();
            }
            Command::AppGone => {
                self.app_gone.set(true);
                self.each(|conn| conn.tell(Order::Look));
            }
        }
    }

    fn enter(&self, phase: FrontPhase) {
        if phase > self.phase.get() {
            self.phase.set(phase);
            self.phase_since_ms.set(clock::coarse_ms());
            self.page.set_phase(phase);
            self.each(|conn| {
                if matches!(conn.doing.get(), Doing::Http2 | Doing::Leaving) {
                    conn.tell(Order::Look);
                }
            });
        }
    }

    fn each(&self, mut tell: impl FnMut(&Conn)) {
        for conn in self.conns.borrow().iter().flatten() {
            tell(conn);
        }
    }

    /// Looks through all connections: who is over, who is to leave.
    pub fn tick(&self) {
        let now = clock::coarse_ms();
        self.each(|conn| {
            if let Some(order) = self.due(conn, now) {
                conn.tell(order);
            }
            self.count_if_silent(conn, now);
        });
        self.pool.tick(now);
        if let Some(log) = &self.log {
            log.flush(self.page);
        }
    }

    /// A connection on which nothing comes is an arrival all the same: somebody is still sent here. One that is closed at
    /// once is a probe's.
    fn count_if_silent(&self, conn: &Conn, now: u64) {
        let silent = conn.doing.get() == Doing::New && now.saturating_sub(conn.opened_ms) >= PROBE_MS;
        if silent && !conn.counted.replace(true) {
            self.page.set(Slot::LastArrival, self.page.get(Slot::LastArrival).max(conn.opened_ms));
        }
    }

    fn due(&self, conn: &Conn, now: u64) -> Option<Order> {
        let deadline = conn.deadline_ms.get();
        if deadline != 0 && now >= deadline {
            return Some(Order::Expired);
        }
        let doing = conn.doing.get();
        let age = now.saturating_sub(conn.since_ms.get());
        if self.phase.get() == FrontPhase::Serving {
            let old = doing == Doing::Http2 && conn.is_old(now, self.config.max_connection_age);
            return old.then_some(Order::Leave);
        }
        let drained = now.saturating_sub(self.phase_since_ms.get());
        let closing = self.phase.get() == FrontPhase::Closing;
        let spread = self.spread(conn.jitter);
        let first_byte = self.config.first_byte_grace.as_millis() as u64;
        let after = |grace: Duration| self.grace_is_over(now, conn.since_ms.get(), grace, conn.jitter);
        match doing {
            Doing::New | Doing::Reading => (closing && age >= first_byte).then_some(Order::Leave),
            Doing::Idle => {
                let calm = age >= LEAST_IDLE_MS && drained >= spread;
                (closing && calm).then_some(Order::Leave)
            }
            Doing::LongPoll | Doing::Events => after(self.config.stream_grace).then_some(Order::Leave),
            Doing::WebSocket | Doing::Tunnel => after(self.config.websocket_grace).then_some(Order::Leave),
            Doing::Http2 => (closing && drained >= spread).then_some(Order::Leave),
            Doing::Exchange | Doing::Leaving | Doing::Lingering => None,
        }
    }
}

/// A connection's place among all; given up when the connection is over.
#[derive(Debug)]
pub struct Seat {
    /// The connection.
    pub conn: Rc<Conn>,
    index: u32,
    front: Rc<Front>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.front.conns.borrow_mut()[self.index as usize] = None;
        self.front.free.borrow_mut().push(self.index);
        self.front.page.sub(Slot::Connections, 1);
    }
}
