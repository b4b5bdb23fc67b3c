//! From looks at the kernel's sockets to arrivals, requests in flight, and what was only a probe. Pure.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::Duration;

use lameduck_core::report::SourceCount;

use super::{Activity, Cidr, Socket, TcpState};
use crate::machine::Time;

/// Connections and sources followed at the most; beyond that new ones are counted, not followed. It bounds the memory.
const MOST_CONNECTIONS: usize = 65_536;
const MOST_SOURCES: usize = 1_024;

/// The kernel's times are in jiffies, up to 10 ms each: a difference below this is no new arrival.
const JIFFY: Duration = Duration::from_millis(12);

/// A connection that ended within this, after one request or none, may have been a probe.
const ONE_SHOT: Duration = Duration::from_secs(1);

/// Probes come at their own pace: never faster than once a second (`periodSeconds` is a whole number of at least 1,
/// Kubernetes API, `Probe`), and as regularly as a ticker.
const FASTEST_PROBE: Duration = Duration::from_millis(900);
const PROBE_JITTER: Duration = Duration::from_millis(250);

/// A closed connection stays in `TIME_WAIT` this long (include/net/tcp.h, `TCP_TIMEWAIT_LEN`).
const TIME_WAIT: Duration = Duration::from_mins(1);

/// What the tracker has found so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// Connections open at the first look.
    pub at_start: u32,
    /// Connections opened since.
    pub new: u32,
    /// Times that data arrived.
    pub arrivals: u32,
    /// Probe connections and those of ignored sources.
    pub ignored: u32,
    /// Connections open at the last look.
    pub open: u32,
    /// Requests in flight at the last look.
    pub in_flight: u32,
    /// The last arrival, probes excluded.
    pub last_arrival: Option<Time>,
    /// The last time data was sent, probes excluded.
    pub last_sent: Option<Time>,
}

#[derive(Debug, Clone, Copy)]
struct Connection {
    remote: IpAddr,
    /// When it was first known to exist.
    since: Time,
    /// Opened after the watch began.
    new: bool,
    last_arrival: Time,
    bytes_received: u64,
    arrivals: u32,
    /// The look at which it was last seen.
    look: u32,
}

/// One-shot connections of one address.
#[derive(Debug, Clone, Copy, Default)]
struct Source {
    arrivals: u32,
    /// The last three one-shot connections, oldest first.
    one_shots: [Option<Time>; 3],
    /// The last arrival on a connection that may have been a probe.
    last_one_shot: Option<Time>,
    /// How many of `new` and `arrivals` came by one-shot connections.
    one_shot_count: u32,
}

impl Source {
    fn one_shot(&mut self, at: Time) {
        self.one_shots = [self.one_shots[1], self.one_shots[2], Some(at)];
        self.last_one_shot = Some(at);
    }

    /// Whether its one-shot connections come as a prober's do: regularly, and not faster than once a second.
    fn probes(&self) -> bool {
        let [Some(a), Some(b), Some(c)] = self.one_shots else { return false };
        let (first, second) = (b.saturating_sub(a), c.saturating_sub(b));
        first >= FASTEST_PROBE && second >= FASTEST_PROBE && first.abs_diff(second) <= PROBE_JITTER
    }
}

/// Follows the connections to a set of ports.
#[derive(Debug, Default)]
pub struct Tracker {
    ignore: Vec<Cidr>,
    began: Option<Time>,
    look: u32,
    connections: HashMap<u64, Connection>,
    sources: HashMap<IpAddr, Source>,
    /// Connections from ignored sources, each counted once.
    ignored: HashSet<u64>,
    /// The last arrival on a connection that is no one-shot.
    last_arrival: Option<Time>,
    figures: Figures,
}

impl Tracker {
    /// A tracker for which connections from `ignore` are no traffic.
    pub fn new(ignore: Vec<Cidr>) -> Tracker {
        Tracker { ignore, ..Tracker::default() }
    }

    /// Begins a look.
    pub fn begin_look(&mut self, now: Time) {
        self.began.get_or_insert(now);
        self.look += 1;
        self.figures.in_flight = 0;
        self.figures.open = 0;
    }

    /// One connection of the app, as the kernel shows it at `now`.
    pub fn see(&mut self, now: Time, socket: &Socket) {
        let first_look = self.look == 1;
        if self.ignore.iter().any(|cidr| cidr.contains(socket.remote)) {
            if self.ignored.len() < MOST_CONNECTIONS && self.ignored.insert(socket.cookie) {
                self.figures.ignored += 1;
            }
            return;
        }
        match socket.state {
            TcpState::TIME_WAIT if first_look => self.remember_closed(now, socket),
            TcpState::ESTABLISHED | TcpState::SYN_RECV | TcpState::CLOSE_WAIT => self.see_open(now, socket, first_look),
            _ => {}
        }
    }

    fn see_open(&mut self, now: Time, socket: &Socket, first_look: bool) {
        self.figures.open += 1;
        let arrival = arrival(now, socket.activity.as_ref());
        let known = self.connections.contains_key(&socket.cookie);
        let Some(connection) = self.follow(now, socket, first_look) else {
            // Too many to follow: each look at it counts as an arrival, so the drain errs towards waiting.
            self.last_arrival = Some(now);
            return;
        };
        let moved = match socket.activity {
            Some(activity) => {
                arrival > connection.last_arrival + JIFFY || activity.bytes_received > connection.bytes_received
            }
            None => socket.received > 0,
        };
        if known && moved {
            connection.last_arrival = arrival.max(connection.last_arrival);
            connection.bytes_received = socket.activity.map_or(0, |activity| activity.bytes_received);
            connection.arrivals += 1;
        }
        let Connection { since, new, arrivals, last_arrival, .. } = *connection;
        let has_data = socket.activity.is_none_or(|activity| activity.bytes_received > 0);
        if (known && moved) || (!known && new && has_data) {
            self.count_arrival(socket.remote);
        }
        let young = new && arrivals <= 1 && now.saturating_sub(since) < ONE_SHOT;
        let of_a_prober = young && self.sources.get(&socket.remote).is_some_and(Source::probes);
        if !of_a_prober {
            // A connection open at the first look may have been idle for long; its last data is no arrival of this drain,
            // but quiet is measured from it all the same.
            self.last_arrival = self.last_arrival.max(Some(last_arrival).filter(|_| !young));
            if let Some(activity) = socket.activity.filter(|activity| activity.bytes_sent > 0) {
                let sent = now.saturating_sub(Duration::from_millis(u64::from(activity.since_sent_ms)));
                self.figures.last_sent = self.figures.last_sent.max(Some(sent));
            }
            if young && (self.sources.len() < MOST_SOURCES || self.sources.contains_key(&socket.remote)) {
                let source = self.sources.entry(socket.remote).or_default();
                source.last_one_shot = source.last_one_shot.max(Some(last_arrival));
            }
            self.figures.in_flight += u32::from(in_flight(socket));
        }
    }

    /// A connection destroyed between two looks (or after one).
    pub fn destroyed(&mut self, now: Time, socket: &Socket) {
        if self.ignore.iter().any(|cidr| cidr.contains(socket.remote)) {
            self.ignored.remove(&socket.cookie);
            return;
        }
        let has_data = socket.activity.is_some_and(|activity| activity.bytes_received > 0);
        let Some(connection) = self.connections.remove(&socket.cookie) else {
            // Came and went between two looks. One without data was no request: a TCP probe, or a port scan.
            if self.began.is_some() && has_data {
                self.figures.new += 1;
                self.count_arrival(socket.remote);
                self.ended(socket.remote, now, true, 1, arrival(now, socket.activity.as_ref()));
            }
            return;
        };
        let short = now.saturating_sub(connection.since) < ONE_SHOT + Duration::from_millis(500);
        self.ended(
            connection.remote,
            connection.since,
            connection.new && short,
            connection.arrivals,
            connection.last_arrival,
        );
    }

    /// More connections came and went than could be heard of.
    pub fn missed_some(&mut self, now: Time) {
        self.last_arrival = Some(now);
    }

    /// Ends a look: what was not seen in it nor in the one before is gone. One look's patience, because the message of its
    /// end may still be on its way, and would be taken for that of a connection never seen.
    pub fn end_look(&mut self) {
        let look = self.look;
        let mut gone = Vec::new();
        self.connections.retain(|_, connection| {
            let kept = connection.look + 1 >= look;
            if !kept {
                gone.push(*connection);
            }
            kept
        });
        for Connection { remote, since, new, arrivals, last_arrival, .. } in gone {
            self.ended(remote, since, new, arrivals, last_arrival);
        }
    }

    /// The figures so far.
    pub fn figures(&self) -> Figures {
        let one_shot =
            self.sources.values().filter(|source| !source.probes()).filter_map(|source| source.last_one_shot).max();
        let probes: u32 =
            self.sources.values().filter(|source| source.probes()).map(|source| source.one_shot_count).sum();
        Figures {
            last_arrival: self.last_arrival.max(one_shot),
            new: self.figures.new.saturating_sub(probes),
            arrivals: self.figures.arrivals.saturating_sub(probes),
            ignored: self.figures.ignored + probes,
            ..self.figures
        }
    }

    /// The busiest sources, at most `most`.
    pub fn by_source(&self, most: usize) -> Vec<SourceCount> {
        let mut all: Vec<_> = self
            .sources
            .iter()
            .filter(|(_, source)| !source.probes() && source.arrivals > 0)
            .map(|(address, source)| SourceCount { address: *address, arrivals: source.arrivals })
            .collect();
        all.sort_by_key(|count| (std::cmp::Reverse(count.arrivals), count.address));
        all.truncate(most);
        all
    }

    fn follow(&mut self, now: Time, socket: &Socket, first_look: bool) -> Option<&mut Connection> {
        let look = self.look;
        if !self.connections.contains_key(&socket.cookie) {
            if self.connections.len() >= MOST_CONNECTIONS {
                return None;
            }
            if first_look {
                self.figures.at_start += 1;
            } else {
                self.figures.new += 1;
            }
        }
        let connection = self.connections.entry(socket.cookie).or_insert_with(|| Connection {
            remote: socket.remote,
            since: now,
            new: !first_look,
            last_arrival: if socket.activity.is_some() || !first_look {
                arrival(now, socket.activity.as_ref())
            } else {
                Duration::ZERO
            },
            bytes_received: socket.activity.map_or(0, |activity| activity.bytes_received),
            arrivals: u32::from(!first_look && socket.activity.is_none_or(|activity| activity.bytes_received > 0)),
            look,
        });
        connection.look = look;
        Some(connection)
    }

    fn count_arrival(&mut self, remote: IpAddr) {
        self.figures.arrivals += 1;
        if self.sources.len() < MOST_SOURCES || self.sources.contains_key(&remote) {
            self.sources.entry(remote).or_default().arrivals += 1;
        }
    }

    /// A connection ended: was it a one-shot?
    fn ended(&mut self, remote: IpAddr, since: Time, short: bool, arrivals: u32, last_arrival: Time) {
        if !short || arrivals > 1 || last_arrival.saturating_sub(since) > ONE_SHOT {
            return;
        }
        if arrivals == 0 {
            // It sent nothing: no request, so it delayed nothing but its own first-byte time.
            if let Some(source) = self.sources.get_mut(&remote) {
                source.last_one_shot = source.one_shots[2];
            }
            return;
        }
        if self.sources.len() >= MOST_SOURCES && !self.sources.contains_key(&remote) {
            self.last_arrival = self.last_arrival.max(Some(last_arrival));
            return;
        }
        let source = self.sources.entry(remote).or_default();
        source.one_shot(last_arrival);
        source.one_shot_count += 1;
    }

    /// A connection in `TIME_WAIT` at the first look: the app closed it, less than a minute ago. It shows a prober's pace
    /// before the drain, so that the first probe of the drain is known for one.
    fn remember_closed(&mut self, now: Time, socket: &Socket) {
        let ago = TIME_WAIT.saturating_sub(Duration::from_millis(u64::from(socket.expires_ms)));
        let Some(at) = now.checked_sub(ago) else { return };
        if self.sources.len() >= MOST_SOURCES && !self.sources.contains_key(&socket.remote) {
            return;
        }
        let source = self.sources.entry(socket.remote).or_default();
        // The kernel lists them in no order.
        let mut times: Vec<Time> = source.one_shots.iter().flatten().copied().chain([at]).collect();
        times.sort_unstable();
        let latest = times.len().saturating_sub(3);
        source.one_shots = std::array::from_fn(|n| times.get(latest..).and_then(|times| times.get(n)).copied());
        if times.len() < 3 {
            source.one_shots.rotate_right(3 - times.len());
        }
    }
}

/// When data last arrived, or, before any did, when the connection came (the kernel starts both clocks then).
fn arrival(now: Time, activity: Option<&Activity>) -> Time {
    now.saturating_sub(Duration::from_millis(activity.map_or(0, |activity| u64::from(activity.since_received_ms))))
}

/// Whether a request is in flight: data that the app has not read, an answer that the client has not acknowledged, or data
/// that came after the last answer went out.
///
/// The kernel's times are jiffies. A request that comes in the very jiffy of the answer before it looks answered; nothing
/// the kernel tells decides that case, and taking it for unanswered would hold every drain of a fast service to its end.
fn in_flight(socket: &Socket) -> bool {
    let unanswered = socket.activity.is_some_and(|activity| {
        activity.bytes_received > 0 && (activity.since_received_ms < activity.since_sent_ms || activity.bytes_sent == 0)
    });
    socket.received > 0 || socket.unsent > 0 || (unanswered && socket.state == TcpState::ESTABLISHED)
}

#[cfg(test)]
mod tests;
