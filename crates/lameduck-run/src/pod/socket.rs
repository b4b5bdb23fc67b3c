//! The socket by which neighbours reach each other: `\0lameduck/pod/NAME/MOUNTS-PID`, for datagrams.
//!
//! The mount namespace and the pid keep two containers of one name apart. Whether a neighbour is still there, the kernel tells:
//! a name that nobody holds refuses (unix(7)), however its holder ended.

use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use super::identity::is_name;
use super::wire::{Announcement, LONGEST};
use crate::observe::procfs;
use crate::sys;

/// What all names begin with.
const PREFIX: &str = "lameduck/pod/";
/// Sockets that are asked. A stranger may have made some of them.
const MOST_FOUND: usize = 128;
/// Of `/proc/net/unix`, so much is read.
const MOST_TABLE: u64 = 4 << 20;
/// How far up a process's ancestors are followed.
const MOST_ANCESTORS: usize = 64;

/// This lameduck's socket.
#[derive(Debug)]
pub struct PodSocket {
    socket: UnixDatagram,
    address: String,
    own_pid: i32,
}

/// Something that was received.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// A neighbour said this.
    Said {
        /// Its name.
        name: String,
        /// Its address.
        address: String,
        /// What it said.
        said: Announcement,
    },
    /// It was nobody's we know, or not what they say.
    Nonsense,
}

/// What became of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// It arrived, or it did not fit into the other's queue: whoever does not read is not gone.
    Sent,
    /// Nobody holds that name.
    Gone,
}

impl PodSocket {
    /// Binds this container's name.
    pub fn bind(name: &str, own_pid: i32) -> io::Result<PodSocket> {
        let link = fs::read_link("/proc/self/ns/mnt")?;
        let inode: String = link.to_string_lossy().chars().filter(char::is_ascii_digit).collect();
        let address = format!("{PREFIX}{name}/{inode}-{own_pid}");
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&address)?)?;
        socket.set_nonblocking(true)?;
        sys::want_credentials(socket.as_fd())?;
        Ok(PodSocket { socket, address, own_pid })
    }

    /// The descriptor to poll for input.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// The names and addresses of the sockets of this kind in the network namespace, but for this one.
    pub fn find(&self) -> Vec<(String, String)> {
        let Ok(table) = fs::File::open("/proc/net/unix") else { return Vec::new() };
        let lines = BufReader::new(table.take(MOST_TABLE)).lines().map_while(Result::ok);
        let mut found: Vec<(String, String)> = Vec::new();
        for address in
            lines.filter_map(|line| Some(line.split_ascii_whitespace().nth(7)?.strip_prefix('@')?.to_owned()))
        {
            let new = address != self.address && !found.iter().any(|(_, known)| *known == address);
            if let Some(name) = name_in(&address).filter(|_| new && found.len() < MOST_FOUND) {
                found.push((name.to_owned(), address));
            }
        }
        found
    }

    /// Says something to a neighbour. Never blocks.
    pub fn send(&self, address: &str, said: &Announcement) -> Sent {
        let Ok(to) = SocketAddr::from_abstract_name(address) else { return Sent::Gone };
        match self.socket.send_to_addr(said.encode().as_bytes(), &to) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Sent::Gone,
            Ok(_) | Err(_) => Sent::Sent,
        }
    }

    /// The next datagram, if there is one.
    pub fn receive(&self) -> Option<Heard> {
        let mut buffer = [0; LONGEST + 1];
        let datagram = match sys::receive_with_credentials(self.socket.as_fd(), &mut buffer) {
            Ok(datagram) => datagram,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
            Err(_) => return None,
        };
        Some(self.understand(&datagram.from, datagram.pid, &buffer[..datagram.length]).unwrap_or(Heard::Nonsense))
    }

    /// A neighbour speaks from an address of this kind, which names its own pid where that can be seen from here (0: another pid
    /// namespace), and is neither this lameduck's app nor what this lameduck is the app of.
    fn understand(&self, from: &[u8], pid: i32, bytes: &[u8]) -> Option<Heard> {
        let address = std::str::from_utf8(from).ok()?;
        let name = name_in(address)?;
        let said = Announcement::decode(bytes)?;
        let numbers_agree = pid == 0 || address.rsplit('-').next()?.parse() == Ok(pid);
        let related = pid != 0 && (descends(pid, self.own_pid) || descends(self.own_pid, pid));
        (numbers_agree && !related).then(|| Heard::Said { name: name.to_owned(), address: address.to_owned(), said })
    }
}

/// The container's name in an address of this kind.
fn name_in(address: &str) -> Option<&str> {
    let (name, rest) = address.strip_prefix(PREFIX)?.split_once('/')?;
    let (mounts, pid) = rest.split_once('-')?;
    let number = |text: &str| !text.is_empty() && text.len() < 16 && text.bytes().all(|byte| byte.is_ascii_digit());
    (is_name(name) && number(mounts) && number(pid)).then_some(name)
}

/// Whether one process descends from another, as far as `/proc` shows.
fn descends(pid: i32, from: i32) -> bool {
    let mut at = pid;
    for _ in 0..MOST_ANCESTORS {
        if at == from {
            return true;
        }
        let Some(stat) = fs::read(format!("/proc/{at}/stat")).ok().and_then(|text| procfs::stat(&text)) else {
            return false;
        };
        at = stat.parent;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::super::wire::Standing;
    use super::*;

    fn hello() -> Announcement {
        Announcement {
            asks: true,
            standing: Standing::Leaving,
            pod: None,
            listens: vec![80],
            connects: Vec::new(),
            after: Vec::new(),
        }
    }

    #[test]
    fn names_in_addresses() {
        let check = |address: &str, expect: Option<&str>| assert_eq!(name_in(address), expect, "{address}");
        check("lameduck/pod/web/4026531840-1", Some("web"));
        check("lameduck/pod/web.2_x-y/1-77", Some("web.2_x-y"));
        for bad in
            ["lameduck/pod/web", "lameduck/pod//1-1", "lameduck/pod/web/1", "lameduck/pod/web/x-1", "lameduck/4026/1"]
        {
            check(bad, None);
        }
        check("lameduck/pod/web/1-1/x", None);
    }

    #[test]
    fn processes_above_and_below() {
        let own = std::process::id() as i32;
        let mut child = std::process::Command::new("sleep").arg("30").spawn().unwrap();
        assert!(descends(child.id() as i32, own) && !descends(own, child.id() as i32));
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// In one process: it is related to itself, so what it hears is refused, and that the other is gone is seen.
    #[test]
    fn strangers_relatives_and_those_that_are_gone() {
        let own = std::process::id() as i32;
        let one = PodSocket::bind("one", own).unwrap();
        let two = PodSocket::bind("two", own).unwrap();
        assert!(one.find().contains(&("two".to_owned(), two.address.clone())));
        assert!(!one.find().iter().any(|(_, address)| *address == one.address));
        assert_eq!(one.send(&two.address, &hello()), Sent::Sent);
        assert_eq!(two.receive(), Some(Heard::Nonsense), "of its own process");
        assert_eq!(two.receive(), None);
        let stranger = UnixDatagram::unbound().unwrap();
        let address = SocketAddr::from_abstract_name(&two.address).unwrap();
        for nonsense in [&b""[..], b"\0\xff", hello().encode().as_bytes(), &[b'x'; 5000]] {
            stranger.send_to_addr(nonsense, &address).unwrap();
            assert_eq!(two.receive(), Some(Heard::Nonsense));
        }
        let two_was = two.address.clone();
        drop(two);
        assert_eq!(one.send(&two_was, &hello()), Sent::Gone);
    }
}
