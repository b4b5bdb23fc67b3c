//! What `/proc` says, read without trust (proc(5)).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Socket, TcpState};

/// A process, from `/proc/PID/stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Its pid.
    pub pid: i32,
    /// Its parent's.
    pub parent: i32,
    /// Its process group.
    pub group: i32,
    /// Its state, a letter; `Z` has ended and waits to be reaped.
    pub state: u8,
    /// When it started, in clock ticks: with the pid, its identity.
    pub started: u64,
}

/// Reads `/proc/PID/stat`. The command in the second field may hold spaces, newlines and parentheses: the last `)` ends it.
pub fn stat(text: &[u8]) -> Option<Stat> {
    let open = text.iter().position(|b| *b == b'(')?;
    let close = text.iter().rposition(|b| *b == b')')?;
    let pid = number(text.get(..open)?)?;
    let mut fields = text.get(close + 1..)?.split(u8::is_ascii_whitespace).filter(|field| !field.is_empty());
    let state = *fields.next()?.first()?;
    let parent = number(fields.next()?)?;
    let group = number(fields.next()?)?;
    // Field 22 is the start time; the state was field 3, the parent field 4, the group field 5.
    let started = number(fields.nth(16)?)?;
    Some(Stat { pid, parent, group, state, started })
}

fn number<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok()?.trim().parse().ok()
}

/// The inode in a descriptor's link, `socket:[12345]`.
pub fn socket_inode(link: &[u8]) -> Option<u32> {
    number(link.strip_prefix(b"socket:[")?.strip_suffix(b"]")?)
}

/// Reads one line of `/proc/net/tcp` or `/proc/net/tcp6`. `None` for the headline and for what is neither.
pub fn tcp_line(line: &str) -> Option<Socket> {
    let mut fields = line.split_ascii_whitespace();
    let (local, local_port) = endpoint(fields.nth(1)?)?;
    let (remote, remote_port) = endpoint(fields.next()?)?;
    let state = u8::from_str_radix(fields.next()?, 16).ok()?;
    let (unsent, received) = fields.next()?.split_once(':')?;
    let unsent = u32::from_str_radix(unsent, 16).ok()?;
    let received = u32::from_str_radix(received, 16).ok()?;
    let inode = fields.nth(4)?.parse().ok()?;
    Some(Socket {
        state: TcpState(state),
        local_port,
        remote_port,
        local,
        remote,
        cookie: identity(remote, remote_port, local_port),
        expires_ms: 0,
        received,
        unsent,
        inode,
        cgroup: None,
        activity: None,
    })
}

/// `/proc/net/tcp` has no cookie; the addresses serve, as long as the connection lasts.
fn identity(remote: IpAddr, remote_port: u16, local_port: u16) -> u64 {
    let octets = match remote {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    };
    let ports = [remote_port.to_be_bytes(), local_port.to_be_bytes()].concat();
    // FNV-1a: two connections that fall together are counted as one, which only delays the end of the drain.
    octets
        .iter()
        .chain(&ports)
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

/// `0100007F:1F90`, or 32 digits for IPv6: each 32-bit word in the machine's own byte order.
fn endpoint(text: &str) -> Option<(IpAddr, u16)> {
    let (address, port) = text.split_once(':')?;
    if !address.is_ascii() {
        return None;
    }
    let word = |at: usize| u32::from_str_radix(address.get(at..at + 8)?, 16).ok().map(u32::to_ne_bytes);
    let ip = match address.len() {
        8 => Ipv4Addr::from(word(0)?).into(),
        32 => {
            let mut octets = [0; 16];
            for n in 0..4 {
                octets[n * 4..n * 4 + 4].copy_from_slice(&word(n * 8)?);
            }
            Ipv6Addr::from(octets).to_canonical()
        }
        _ => return None,
    };
    Some((ip, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn stat_survives_any_command_name() {
        let check = |name: &str| {
            let line = format!("42 ({name}) S 7 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 1000 10");
            let expect = Stat { pid: 42, parent: 7, group: 42, state: b'S', started: 98765 };
            assert_eq!(stat(line.as_bytes()), Some(expect), "{name:?}");
        };
        for name in ["nginx", "a b", "a) S 1", ")", "(", "a\nb", ""] {
            check(name);
        }
    }

    #[test]
    fn tcp_lines() {
        let v4 =
            "   1: 0100007F:1F90 0900007F:9C40 01 00000000:00000012 00:00000000 00000000  1000        0 4242 1 0 20";
        let socket = tcp_line(v4).unwrap();
        assert_eq!(
            (socket.local_port, socket.remote, socket.remote_port),
            (8080, IpAddr::from([127, 0, 0, 9]), 40_000)
        );
        assert_eq!(
            (socket.received, socket.unsent, socket.inode, socket.state),
            (0x12, 0, 4242, TcpState::ESTABLISHED)
        );
        let v6 = "   0: 0000000000000000FFFF00000100007F:1F90 0000000000000000FFFF00000900007F:9C40 0A 00000000:00000003 00:00000000 00000000     0        0 9 1";
        let socket = tcp_line(v6).unwrap();
        assert_eq!((socket.remote, socket.state), (IpAddr::from([127, 0, 0, 9]), TcpState::LISTEN));
        assert_eq!(
            tcp_line(
                "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode"
            ),
            None
        );
    }

    #[test]
    fn links() {
        assert_eq!(socket_inode(b"socket:[4242]"), Some(4242));
        for other in ["pipe:[1]", "socket:[]", "socket:[x]", "/dev/null", "socket:[1", ""] {
            assert_eq!(socket_inode(other.as_bytes()), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in ".{0,200}") {
            let _ = stat(text.as_bytes());
            let _ = tcp_line(&text);
            let _ = socket_inode(text.as_bytes());
        }

        #[test]
        fn numbers_of_any_size_never_panic(text in "[0-9A-F: ()]{0,120}") {
            let _ = stat(text.as_bytes());
            let _ = tcp_line(&text);
        }
    }
}
