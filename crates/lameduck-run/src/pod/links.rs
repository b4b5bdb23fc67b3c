//! Who proxies to whom, from the kernel: at which ports this container listens, and to which ports of its neighbours it connects.
//!
//! Both ends of a connection within a pod are in one network namespace, so `sock_diag(7)` shows both. Whose a socket is, its
//! inode in `/proc/PID/fd` tells; where a process can not be looked into, its cgroup (see [`crate::observe`]).

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use crate::observe::table::Table;
use crate::observe::{Socket, TcpState, own_cgroup, procfs};

use super::wire::MOST_PORTS;

/// Established, a handshake of ours under way, closed by the other side, listening (`include/net/tcp_states.h`).
const WATCHED: u32 = 1 << 1 | 1 << 2 | 1 << 8 | 1 << 10;
/// A socket that is none of ours is looked for so often: its process may have been forked since they were listed.
const TRIES: u8 = 3;

/// What was learned so far.
#[derive(Debug)]
pub struct Links {
    table: Table,
    own_cgroup: Option<u64>,
    known: Vec<Known>,
    /// Ports at which this container listens, or did.
    pub listens: Vec<u16>,
    /// Ports of neighbours to which it connects, or did.
    pub connects: Vec<u16>,
}

/// Whose a socket is, as far as was found out.
#[derive(Debug, Clone, Copy)]
struct Known {
    inode: u32,
    ours: bool,
    tries: u8,
}

impl Links {
    /// Nothing is learned yet, but what is known without looking: the ports that were named, and a front's upstream.
    pub fn new(listens: Vec<u16>, connects: Vec<u16>) -> Links {
        Links { table: Table::default(), own_cgroup: own_cgroup(), known: Vec::new(), listens, connects }
    }

    /// Looks once. `processes`: all of this container's, lameduck's own too.
    pub fn look(&mut self, processes: &[i32]) {
        let _ = self.table.read(WATCHED);
        let sockets = std::mem::take(&mut self.table.sockets);
        let listening: Vec<u16> = sockets.iter().filter(|socket| is_listener(socket)).map(|s| s.local_port).collect();
        let mut wanted: Vec<&Socket> = sockets
            .iter()
            .filter(|socket| socket.inode != 0 && (is_listener(socket) || connects_within(socket, &listening)))
            // What is known already is not looked for again.
            .filter(|socket| {
                let (ports, port) = if is_listener(socket) {
                    (&self.listens, socket.local_port)
                } else {
                    (&self.connects, socket.remote_port)
                };
                !ports.contains(&port)
            })
            .collect();
        // By inode, to find each among many: a neighbour may have thousands.
        wanted.sort_unstable_by_key(|socket| socket.inode);
        self.resolve(&wanted, processes);
        for socket in &wanted {
            if !self.find(socket.inode).is_ok_and(|at| self.known[at].ours) {
                continue;
            }
            let (ports, port) = if is_listener(socket) {
                (&mut self.listens, socket.local_port)
            } else {
                (&mut self.connects, socket.remote_port)
            };
            if ports.len() < MOST_PORTS && !ports.contains(&port) {
                ports.push(port);
            }
        }
        drop(wanted);
        // Its own front or workers connect to its own app: nobody else's business.
        let listens = &self.listens;
        self.connects.retain(|port| !listens.contains(port));
        self.table.sockets = sockets;
    }

    /// How long to wait until the next look, after one that took so long: about 2 % of one core at the most.
    pub fn pace(cost: Duration) -> Duration {
        (cost * 50).clamp(Duration::from_millis(100), Duration::from_secs(1))
    }

    /// The place of what is known of this inode, or where it would be.
    fn find(&self, inode: u32) -> Result<usize, usize> {
        self.known.binary_search_by_key(&inode, |known| known.inode)
    }

    /// Finds out whose these sockets are; they are sorted by inode.
    fn resolve(&mut self, wanted: &[&Socket], processes: &[i32]) {
        self.known.retain(|known| place(wanted, known.inode).is_some());
        let is_open = |known: &Known| !known.ours && known.tries < TRIES;
        let unknown: Vec<&Socket> = wanted
            .iter()
            .copied()
            .filter(|socket| self.find(socket.inode).map_or(true, |at| is_open(&self.known[at])))
            .collect();
        if unknown.is_empty() {
            return;
        }
        let mut ours = vec![false; unknown.len()];
        let mut unreadable = false;
        for pid in processes {
            let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else {
                unreadable = true;
                continue;
            };
            for descriptor in descriptors.flatten() {
                let Ok(link) = fs::read_link(descriptor.path()) else { continue };
                let inode = procfs::socket_inode(link.as_os_str().as_bytes());
                if let Some(at) = inode.and_then(|inode| place(&unknown, inode)) {
                    ours[at] = true;
                }
            }
        }
        let mut new = Vec::new();
        for (socket, held) in unknown.iter().zip(ours) {
            let same_cgroup = unreadable && socket.cgroup.is_some() && socket.cgroup == self.own_cgroup;
            let ours = held || same_cgroup;
            match self.find(socket.inode) {
                Ok(at) => {
                    let known = &mut self.known[at];
                    (known.ours, known.tries) = (ours, known.tries.saturating_add(1));
                }
                Err(_) => new.push(Known { inode: socket.inode, ours, tries: 1 }),
            }
        }
        self.known.append(&mut new);
        self.known.sort_unstable_by_key(|known| known.inode);
    }
}

/// The place of an inode among sockets sorted by it.
fn place(sockets: &[&Socket], inode: u32) -> Option<usize> {
    sockets.binary_search_by_key(&inode, |socket| socket.inode).ok()
}

fn is_listener(socket: &Socket) -> bool {
    socket.state == TcpState::LISTEN
}

/// Whether this is the client's end of a connection to a listener in this network namespace.
fn connects_within(socket: &Socket, listening: &[u16]) -> bool {
    let local = socket.remote.is_loopback() || socket.remote == socket.local;
    local && listening.contains(&socket.remote_port) && !listening.contains(&socket.local_port)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_connection_to_a_neighbours_port_is_a_link_and_to_an_own_one_is_none() {
        let own = std::process::id() as i32;
        let ours = TcpListener::bind("127.0.0.1:0").unwrap();
        let our_port = ours.local_addr().unwrap().port();
        // A neighbour: a process of another container.
        let script = "import socket,sys,time\ns=socket.socket();s.bind(('127.0.0.1',0));s.listen()\nprint(s.getsockname()[1],flush=True)\ntime.sleep(30)";
        let mut neighbour = std::process::Command::new("python3")
            .args(["-c", script])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(neighbour.stdout.take().unwrap()), &mut line).unwrap();
        let their_port: u16 = line.trim().parse().unwrap();
        let _to_them = TcpStream::connect(("127.0.0.1", their_port)).unwrap();
        let _to_us = TcpStream::connect(("127.0.0.1", our_port)).unwrap();
        let mut links = Links::new(Vec::new(), Vec::new());
        links.look(&[own]);
        assert!(links.listens.contains(&our_port) && !links.listens.contains(&their_port), "{links:?}");
        assert!(links.connects.contains(&their_port) && !links.connects.contains(&our_port), "{links:?}");
        let mut theirs = Links::new(Vec::new(), Vec::new());
        theirs.look(&[neighbour.id() as i32]);
        assert_eq!((&theirs.listens[..], &theirs.connects[..]), (&[their_port][..], &[][..]));
        neighbour.kill().unwrap();
        neighbour.wait().unwrap();
    }
}
