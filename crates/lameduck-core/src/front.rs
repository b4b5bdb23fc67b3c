//! What PID 1 and the front tell each other: commands by bytes, figures by a page of counters they share.
//!
//! The front writes the page as it works and PID 1 reads it when it wants to know: no message is parsed in PID 1, the
//! figures outlive a front that dies, and what was in flight in it is known to the last request.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

/// The words on the page: 4 KiB of them.
pub const WORDS: usize = 512;

/// What PID 1 tells the front: one byte each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// The lame duck begins: everything is still accepted, clients are asked to leave.
    LameDuck,
    /// Health checks are to be told that this is not ready.
    NotReady,
    /// No more is to come: idle connections are shed, what is in flight finishes, then the listeners close.
    Close,
    /// The time is over: who still waits for an answer gets 503, what still streams is cut.
    End,
    /// The app has ended and will not come back: nobody is to be held for it.
    AppGone,
}

impl Command {
    /// Every command.
    pub const ALL: [Command; 5] =
        [Command::LameDuck, Command::NotReady, Command::Close, Command::End, Command::AppGone];

    /// Its byte.
    pub const fn byte(self) -> u8 {
        match self {
            Command::LameDuck => b'l',
            Command::NotReady => b'n',
            Command::Close => b'c',
            Command::End => b'e',
            Command::AppGone => b'g',
        }
    }

    /// The command of a byte.
    pub fn from_byte(byte: u8) -> Option<Command> {
        Command::ALL.into_iter().find(|command| command.byte() == byte)
    }
}

/// Where in the drain the front is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FrontPhase {
    /// It serves.
    #[default]
    Serving,
    /// Clients are asked to leave.
    LameDuck,
    /// Idle connections are shed, requests in flight finish.
    Closing,
    /// No connection is left and no listener is open.
    Closed,
}

impl FrontPhase {
    const ALL: [FrontPhase; 4] = [FrontPhase::Serving, FrontPhase::LameDuck, FrontPhase::Closing, FrontPhase::Closed];

    /// Its name, as in the access log and the metrics.
    pub const fn name(self) -> &'static str {
        match self {
            FrontPhase::Serving => "serving",
            FrontPhase::LameDuck => "lame-duck",
            FrontPhase::Closing => "closing",
            FrontPhase::Closed => "closed",
        }
    }
}

macro_rules! slots {
    ($($(#[doc = $doc:literal])+ $slot:ident => $field:ident,)+) => {
        /// A word of the page.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(usize)]
        pub enum Slot {
            $($(#[doc = $doc])+ $slot,)+
        }

        impl Slot {
            /// Every slot, with its name in the reports and what it counts.
            pub const ALL: &[(Slot, &'static str, &'static str)] =
                &[$((Slot::$slot, stringify!($field), concat!($($doc),+))),+];
        }

        /// The page at one moment. Counts since the start, but for the gauges `connections`, `in_flight` and `held`.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default)]
        pub struct Figures {
            $($(#[doc = $doc])+ pub $field: u64,)+
        }

        impl Page {
            /// What stands on the page.
            pub fn figures(&self) -> Figures {
                Figures { $($field: self.get(Slot::$slot)),+ }
            }
        }
    };
}

slots! {
    /// Client connections open now.
    Connections => connections,
    /// Requests in flight now, WebSockets and other tunnels included.
    InFlight => in_flight,
    /// Requests held now, while the app does not listen.
    Held => held,
    /// Phase of the drain: 0 serving, 1 lame duck, 2 closing, 3 closed.
    Phase => phase,
    /// Last arrival of a connection or a request that is no probe, in ms of `CLOCK_MONOTONIC`; 0: none.
    LastArrival => last_arrival_ms,
    /// Last time a part of an answer that is no probe's was sent, in ms of `CLOCK_MONOTONIC`; 0: none.
    LastSent => last_sent_ms,
    /// Client connections accepted.
    Accepted => accepted,
    /// Client connections accepted after the lame duck began.
    AcceptedLate => accepted_late,
    /// Requests received before the lame duck began.
    RequestsServing => requests_serving,
    /// Requests received in the lame duck.
    RequestsLameDuck => requests_lame_duck,
    /// Requests received after it.
    RequestsClosing => requests_closing,
    /// Requests by probes; they are in no other figure.
    Probes => probes,
    /// Answered completely, by the app or in its name.
    Answered => answered,
    /// Of those answered, with a status of 500 or more by the app.
    AppErrors => app_errors,
    /// Refused with 4xx: not a request that can be forwarded.
    Refused => refused,
    /// Turned away with 503 and `Retry-After`: a limit or the budget was reached.
    Shed => shed,
    /// Answered with 502: the app took the connection and broke it before its answer, or can not be reached.
    BadGateway => bad_gateway,
    /// Answered with 504: the app did not answer in time.
    GatewayTimeout => gateway_timeout,
    /// The answer was cut: the app broke off in the middle of it.
    CutByApp => cut_by_app,
    /// The client left before its answer was complete.
    ClientGone => client_gone,
    /// Cut by the front itself, because the time was over.
    CutAtDeadline => cut_at_deadline,
    /// In flight in a front that died.
    LostWithFront => lost_with_front,
    /// Connects to the app that failed and were repeated.
    RetriedConnect => retried_connect,
    /// Requests sent again because the reused connection died before a byte of the answer.
    RetriedReused => retried_reused,
    /// Requests that were held because the app did not listen.
    HeldTotal => held_total,
    /// Of those, given up with 503.
    HeldExpired => held_expired,
    /// Connections that were asked to leave by `Connection: close` on an answer.
    ShedByHeader => shed_by_header,
    /// HTTP/2 connections that were asked to leave by GOAWAY.
    ShedByGoaway => shed_by_goaway,
    /// Idle connections that were closed.
    ShedIdle => shed_idle,
    /// WebSockets that were ended with 1001.
    ShedWebsocket => shed_websocket,
    /// Event streams that were ended at an event's boundary.
    ShedStream => shed_stream,
    /// Long polls that were answered with the configured status.
    ShedLongPoll => shed_long_poll,
    /// Connections cut because the time was over: each is a counted failure.
    Forced => forced,
    /// Connections reset by the front.
    ResetsSent => resets_sent,
    /// Requests that arrived after the front had closed its side: not executed, so safe to send again.
    CrossedClose => crossed_close,
    /// Connections to the app that were opened.
    UpstreamConnects => upstream_connects,
    /// Idle connections to the app that the app closed first.
    UpstreamClosedIdle => upstream_closed_idle,
    /// The app's idle timeout as learned, in ms; 0: not known.
    UpstreamIdleMs => upstream_idle_ms,
    /// Times that no descriptor was left to accept a connection with.
    AcceptPaused => accept_paused,
    /// Fronts that died and were started again.
    Restarts => restarts,
    /// Lines of the access log that could not be written.
    LogLost => log_lost,
}

/// The most source addresses told apart in a drain.
pub const SOURCES: usize = 64;
/// Where the table of sources begins: three words each, the address in two (IPv4 mapped into IPv6) and its count.
const SOURCES_AT: usize = WORDS - SOURCES * 3;

const _: () = assert!(Slot::ALL.len() <= SOURCES_AT);

/// The page that PID 1 and the front share.
#[derive(Debug, Clone, Copy)]
pub struct Page {
    words: &'static [AtomicU64; WORDS],
}

impl Page {
    /// A page over shared memory, or over any other words that live for ever.
    pub const fn new(words: &'static [AtomicU64; WORDS]) -> Page {
        Page { words }
    }

    /// Reads a word.
    pub fn get(&self, slot: Slot) -> u64 {
        self.words[slot as usize].load(Ordering::Relaxed)
    }

    /// Writes a word.
    pub fn set(&self, slot: Slot, value: u64) {
        self.words[slot as usize].store(value, Ordering::Relaxed);
    }

    /// Adds to a word. There is one writer at a time: the front while it lives, PID 1 when it does not.
    pub fn add(&self, slot: Slot, by: u64) {
        self.set(slot, self.get(slot).wrapping_add(by));
    }

    /// Takes from a word.
    pub fn sub(&self, slot: Slot, by: u64) {
        self.set(slot, self.get(slot).saturating_sub(by));
    }

    /// The phase the front is in.
    pub fn phase(&self) -> FrontPhase {
        FrontPhase::ALL.get(self.get(Slot::Phase) as usize).copied().unwrap_or_default()
    }

    /// Writes the phase.
    pub fn set_phase(&self, phase: FrontPhase) {
        self.set(Slot::Phase, phase as u64);
    }

    /// Counts an arrival from an address. Where the table is full, it is not told apart.
    pub fn count_source(&self, address: std::net::IpAddr) {
        let bits = match address {
            std::net::IpAddr::V4(address) => u128::from(address.to_ipv6_mapped()),
            std::net::IpAddr::V6(address) => u128::from(address),
        };
        let (high, low) = ((bits >> 64) as u64, bits as u64);
        for entry in self.words[SOURCES_AT..].chunks_exact(3) {
            let count = entry[2].load(Ordering::Relaxed);
            let same = entry[0].load(Ordering::Relaxed) == high && entry[1].load(Ordering::Relaxed) == low;
            if count == 0 {
                entry[0].store(high, Ordering::Relaxed);
                entry[1].store(low, Ordering::Relaxed);
            }
            if count == 0 || same {
                entry[2].store(count + 1, Ordering::Relaxed);
                return;
            }
        }
    }

    /// The addresses counted and their counts, busiest first.
    pub fn sources(&self) -> Vec<(std::net::IpAddr, u64)> {
        let mut found: Vec<_> = self.words[SOURCES_AT..]
            .chunks_exact(3)
            .filter_map(|entry| {
                let [high, low, count] = [0, 1, 2].map(|word| entry[word].load(Ordering::Relaxed));
                let bits = u128::from(high) << 64 | u128::from(low);
                (count > 0).then(|| (std::net::IpAddr::from(std::net::Ipv6Addr::from(bits)).to_canonical(), count))
            })
            .collect();
        found.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        found
    }
}

/// Moves what was in flight in a front that died to the losses, and its gauges to nothing: a new one begins.
pub fn front_died(page: Page) {
    page.add(Slot::LostWithFront, page.get(Slot::InFlight));
    for gauge in [Slot::Connections, Slot::InFlight, Slot::Held] {
        page.set(gauge, 0);
    }
    page.add(Slot::Restarts, 1);
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use super::*;

    fn page() -> Page {
        Page::new(Box::leak(Box::new([const { AtomicU64::new(0) }; WORDS])))
    }

    #[test]
    fn commands_round_trip() {
        for command in Command::ALL {
            assert_eq!(Command::from_byte(command.byte()), Some(command));
        }
        assert_eq!(Command::from_byte(0), None);
    }

    #[test]
    fn a_front_that_dies_leaves_its_figures_and_what_was_in_flight_as_lost() {
        let page = page();
        page.add(Slot::Connections, 5);
        page.add(Slot::InFlight, 3);
        page.add(Slot::Answered, 40);
        front_died(page);
        let figures = page.figures();
        assert_eq!((figures.connections, figures.in_flight, figures.held), (0, 0, 0));
        assert_eq!((figures.lost_with_front, figures.restarts, figures.answered), (3, 1, 40));
    }

    #[test]
    fn sources_are_counted_apart_and_a_full_table_is_no_harm() {
        let page = page();
        let busy = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 9));
        for n in 0..100 {
            page.count_source(IpAddr::V6(Ipv6Addr::from(n + (1 << 100))));
            page.count_source(busy);
        }
        let sources = page.sources();
        assert_eq!((sources.len(), sources[0]), (SOURCES, (busy, 100)));
    }

    #[test]
    fn every_slot_has_its_own_word_and_a_name() {
        for (index, (slot, name, help)) in Slot::ALL.iter().enumerate() {
            assert_eq!(*slot as usize, index, "{name}");
            assert!(help.len() > 10, "{name}");
        }
    }
}
