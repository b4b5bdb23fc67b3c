//! The traffic of the app, seen from the kernel: no proxy, nothing on the data path.

pub mod diag;
pub mod procfs;
pub mod table;
pub mod traffic;

use std::fs;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use lameduck_core::report::TrafficSource;
use rustix::net::RecvFlags;

use crate::machine::{Seen, Time};
use crate::processes::Process;
use crate::sys;
use table::Table;
use traffic::{Figures, Tracker};

/// A TCP state, as the kernel numbers them (`include/net/tcp_states.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpState(pub u8);

impl TcpState {
    /// Open.
    pub const ESTABLISHED: TcpState = TcpState(1);
    /// The handshake is under way.
    pub const SYN_RECV: TcpState = TcpState(3);
    /// Closed by the app; the kernel waits for late packets.
    pub const TIME_WAIT: TcpState = TcpState(6);
    /// Closed by the client, not yet by the app.
    pub const CLOSE_WAIT: TcpState = TcpState(8);
    /// A listener.
    pub const LISTEN: TcpState = TcpState(10);
}

const WATCHED: u32 = 1 << 1 | 1 << 3 | 1 << 6 | 1 << 8 | 1 << 10;

/// A TCP socket, as the kernel shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Socket {
    /// Its state.
    pub state: TcpState,
    /// The local port.
    pub local_port: u16,
    /// The remote port.
    pub remote_port: u16,
    /// The local address.
    pub local: IpAddr,
    /// The remote address.
    pub remote: IpAddr,
    /// The kernel's identity of it, never used twice.
    pub cookie: u64,
    /// In `TIME_WAIT`: milliseconds left of it.
    pub expires_ms: u32,
    /// Bytes received and not yet read; for a listener, connections not yet accepted.
    pub received: u32,
    /// Bytes written and not yet acknowledged; for a listener, the limit of its backlog.
    pub unsent: u32,
    /// The inode; 0 while no process has accepted it.
    pub inode: u32,
    /// The cgroup (v2) it was made in, where the kernel tells (Linux 5.9).
    pub cgroup: Option<u64>,
    /// When data moved on it, where known.
    pub activity: Option<Activity>,
}

/// From `struct tcp_info`. Times are milliseconds ago, with a jiffy's precision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Activity {
    /// Data was last sent.
    pub since_sent_ms: u32,
    /// Data was last received.
    pub since_received_ms: u32,
    /// Bytes received in all.
    pub bytes_received: u64,
    /// Bytes sent in all.
    pub bytes_sent: u64,
}

/// A range of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    address: IpAddr,
    bits: u8,
}

impl Cidr {
    /// Reads `10.0.0.0/8`, `fd00::/8`, or a single address.
    pub fn parse(text: &str) -> Option<Cidr> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse::<u8>().ok()?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(most);
        (bits <= most).then_some(Cidr { address, bits })
    }

    /// Whether an address lies in it. IPv4 in IPv6 counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(range), IpAddr::V4(address)) => {
                let shift = 32 - u32::from(self.bits);
                (u32::from(range) ^ u32::from(address)).checked_shr(shift).unwrap_or(0) == 0
            }
            (IpAddr::V6(range), IpAddr::V6(address)) => {
                let shift = 128 - u32::from(self.bits);
                (u128::from(range) ^ u128::from(address)).checked_shr(shift).unwrap_or(0) == 0
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

/// Whose a listener is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    App,
    Other,
    /// A process of the app can not be looked into, and nothing else decides.
    Undecided,
}

/// Looks at the app's sockets.
#[derive(Debug)]
pub struct Observer {
    ports: Vec<u16>,
    source: TrafficSource,
    table: Table,
    destroyed: Option<OwnedFd>,
    buffer: Vec<u8>,
    owners: Vec<(u32, Owner)>,
    /// Looks since a listener was last seen for the first time.
    settled: u8,
    own_cgroup: Option<u64>,
    tracker: Tracker,
    app_ports: Vec<u16>,
    /// How many ports the filter on `destroyed` names.
    filtered: usize,
    cost: Duration,
}

/// One netlink datagram of a dump is at most this (`net/netlink/af_netlink.c`).
const DATAGRAM: usize = 32 * 1024;

impl Observer {
    /// An observer of the listeners of the app, or of `ports` where given.
    pub fn new(ports: Vec<u16>, ignore: Vec<Cidr>) -> Observer {
        Observer {
            app_ports: ports.clone(),
            ports,
            source: TrafficSource::None,
            table: Table::default(),
            destroyed: sys::sock_diag_socket(diag::DESTROYED).ok(),
            buffer: vec![0; DATAGRAM],
            owners: Vec::new(),
            settled: 0,
            own_cgroup: own_cgroup(),
            tracker: Tracker::new(ignore),
            filtered: 0,
            cost: Duration::ZERO,
        }
    }

    /// Where the figures come from; `None` before the first look.
    pub const fn source(&self) -> TrafficSource {
        self.source
    }

    /// The app's ports.
    pub fn app_ports(&self) -> &[u16] {
        &self.app_ports
    }

    /// What was found so far.
    pub const fn tracker(&self) -> &Tracker {
        &self.tracker
    }

    /// How long to wait until the next look: about 2 % of one core at the most.
    pub fn pace(&self) -> Duration {
        (self.cost * 50).clamp(Duration::from_millis(50), Duration::from_millis(500))
    }

    /// Tells how long the last look took.
    pub const fn took(&mut self, cost: Duration) {
        self.cost = cost;
    }

    /// Looks once. `app` are the processes of the app; `None` where they can not be known.
    pub fn look(&mut self, now: Time, app: Option<&[Process]>) -> Seen {
        self.tracker.begin_look(now);
        // Before the dump: a connection that ends in between is in the dump, and its end is read at the next look.
        self.read_destroyed(now);
        self.source = self.table.read(WATCHED);
        if self.source == TrafficSource::None {
            return Seen::default();
        }
        let listeners = self.find_listeners(app);
        let sockets = std::mem::take(&mut self.table.sockets);
        for socket in sockets.iter().filter(|socket| self.app_ports.contains(&socket.local_port)) {
            if socket.state != TcpState::LISTEN {
                self.tracker.see(now, socket);
            }
        }
        let unaccepted = sockets
            .iter()
            .filter(|socket| socket.state == TcpState::LISTEN && self.app_ports.contains(&socket.local_port))
            .map(|socket| socket.received)
            .sum::<u32>();
        self.table.sockets = sockets;
        self.tracker.end_look();
        let Figures { last_arrival, last_sent, in_flight, .. } = self.tracker.figures();
        Seen { listeners, last_arrival, last_sent, in_flight: in_flight.max(unaccepted), connections: 0 }
    }

    /// Connections that came and went since the last look.
    fn read_destroyed(&mut self, now: Time) {
        let Some(socket) = &self.destroyed else { return };
        if self.filtered != self.app_ports.len() && sys::filter_ports(socket.as_fd(), &self.app_ports).is_ok() {
            self.filtered = self.app_ports.len();
        }
        // Bounded: what a flood leaves in the queue is read at the next look.
        for _ in 0..4096 {
            let length = match rustix::net::recv(socket, self.buffer.as_mut_slice(), RecvFlags::DONTWAIT) {
                Ok((length, _)) => length,
                // The buffer was full, so some were missed (netlink(7)): the app's, if the filter is in place.
                Err(rustix::io::Errno::NOBUFS) => {
                    if self.filtered > 0 {
                        self.tracker.missed_some(now);
                    }
                    continue;
                }
                Err(_) => return,
            };
            let (tracker, ports) = (&mut self.tracker, &self.app_ports);
            diag::parse(&self.buffer[..length], |socket| {
                if ports.contains(&socket.local_port) && socket.state != TcpState::LISTEN {
                    tracker.destroyed(now, &socket);
                }
            });
        }
    }

    /// How many listeners the app has, and on which ports. `None`: that can not be known.
    fn find_listeners(&mut self, app: Option<&[Process]>) -> Option<u32> {
        let listening: Vec<Socket> =
            self.table.sockets.iter().filter(|socket| socket.state == TcpState::LISTEN).copied().collect();
        if !self.ports.is_empty() {
            return Some(listening.iter().filter(|socket| self.ports.contains(&socket.local_port)).count() as u32);
        }
        self.owners.retain(|(inode, _)| listening.iter().any(|socket| socket.inode == *inode));
        let unresolved = |owners: &[(u32, Owner)], socket: &Socket| {
            !owners.iter().any(|(inode, owner)| *inode == socket.inode && *owner != Owner::Undecided)
        };
        if listening.iter().any(|socket| !self.owners.iter().any(|(inode, _)| *inode == socket.inode)) {
            self.settled = 0;
        }
        // A process that was forked and bound between the look at the processes and that at the sockets is found at the
        // next look, so a stranger's listener is looked at more than once.
        if self.settled < 3 || listening.iter().any(|socket| unresolved(&self.owners, socket)) {
            self.settled = self.settled.saturating_add(1);
            self.resolve(&listening, app);
        }
        let of = |owners: &[(u32, Owner)], socket: &Socket| {
            owners.iter().find(|(inode, _)| *inode == socket.inode).map_or(Owner::Undecided, |(_, owner)| *owner)
        };
        let undecided = listening.iter().any(|socket| of(&self.owners, socket) == Owner::Undecided);
        let mut count = 0;
        for socket in listening.iter().filter(|socket| of(&self.owners, socket) == Owner::App) {
            count += 1;
            // A port stays the app's after its listener is gone: its connections go on.
            if !self.app_ports.contains(&socket.local_port) {
                self.app_ports.push(socket.local_port);
            }
        }
        if count == 0 && undecided { None } else { Some(count) }
    }

    /// Finds out whose the listeners are: by inode through `/proc/PID/fd`, else by cgroup.
    fn resolve(&mut self, listening: &[Socket], app: Option<&[Process]>) {
        let mut app_inodes = Vec::new();
        let mut unreadable = app.is_none();
        for process in app.unwrap_or_default() {
            let Ok(descriptors) = fs::read_dir(format!("/proc/{}/fd", process.pid)) else {
                unreadable |= process.alive();
                continue;
            };
            for descriptor in descriptors.flatten() {
                let Ok(link) = fs::read_link(descriptor.path()) else { continue };
                app_inodes.extend(
                    procfs::socket_inode(link.as_os_str().as_bytes())
                        .filter(|inode| listening.iter().any(|socket| socket.inode == *inode)),
                );
            }
        }
        self.owners = listening
            .iter()
            .map(|socket| {
                let same_cgroup = match (socket.cgroup, self.own_cgroup) {
                    (Some(theirs), Some(ours)) => Some(theirs == ours),
                    _ => None,
                };
                let owner = match (app_inodes.contains(&socket.inode), unreadable, same_cgroup) {
                    (true, _, _) | (false, true, Some(true)) => Owner::App,
                    (false, false, _) | (false, true, Some(false)) => Owner::Other,
                    (false, true, None) => Owner::Undecided,
                };
                (socket.inode, owner)
            })
            .collect();
    }
}

/// The id of the cgroup (v2) that this container sees as its root: sockets made in it carry it.
pub(crate) fn own_cgroup() -> Option<u64> {
    let v2 = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
        .into_iter()
        .find(|root| fs::exists(format!("{root}/cgroup.procs")).unwrap_or(false))?;
    // The file's inode number is the id (kernfs). Outside a cgroup namespace the root is everybody's and decides nothing.
    let path = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = path.lines().find_map(|line| line.strip_prefix("0::"))?;
    let root = fs::metadata(format!("{v2}{own}")).ok()?.ino();
    (root > 1).then_some(root)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cidrs() {
        let check = |cidr: &str, address: &str, expect: bool| {
            assert_eq!(Cidr::parse(cidr).unwrap().contains(address.parse().unwrap()), expect, "{address} in {cidr}");
        };
        check("10.0.0.0/8", "10.200.3.4", true);
        check("10.0.0.0/8", "11.0.0.1", false);
        check("0.0.0.0/0", "1.2.3.4", true);
        check("0.0.0.0/0", "::1", false);
        check("10.0.0.1", "10.0.0.1", true);
        check("10.0.0.1", "::ffff:10.0.0.1", true);
        check("fd00::/8", "fd12::1", true);
        check("::/0", "fe80::1", true);
        for bad in ["", "10.0.0.0/33", "10.0.0/8", "fd00::/129", "x", "10.0.0.0/"] {
            assert_eq!(Cidr::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn sees_a_real_listener_and_its_connections() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut observer = Observer::new(vec![port], Vec::new());
        let seen = observer.look(Duration::from_secs(1), Some(&[]));
        assert_eq!(observer.source(), TrafficSource::SockDiag);
        assert_eq!((seen.listeners, seen.in_flight), (Some(1), 0));
        let mut client = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (_server, _) = listener.accept().unwrap();
        std::io::Write::write_all(&mut client, b"GET").unwrap();
        let seen = observer.look(Duration::from_secs(2), Some(&[]));
        assert_eq!(seen.in_flight, 1, "unread data is a request in flight");
        let figures = observer.tracker().figures();
        assert_eq!((figures.new, figures.arrivals, figures.open), (1, 1, 1));
        assert!(seen.last_arrival > Some(Duration::from_millis(1900)));
        drop((client, listener));
        assert_eq!(observer.look(Duration::from_secs(3), Some(&[])).listeners, Some(0));
    }

    #[test]
    fn a_listener_is_the_apps_by_its_inode() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let own = Process { pid: std::process::id() as i32, started: 0, group: 0, zombie: false };
        let mut observer = Observer::new(Vec::new(), Vec::new());
        observer.look(Duration::from_secs(1), Some(&[own]));
        assert!(observer.app_ports().contains(&port));
        let mut stranger = Observer::new(Vec::new(), Vec::new());
        stranger.look(Duration::from_secs(1), Some(&[]));
        assert!(!stranger.app_ports().contains(&port));
    }
}
