//! The wire form of `sock_diag(7)`: requests written and answers read, byte by byte, without trust.
//!
//! Layouts: `struct nlmsghdr` and `struct nlattr` (netlink(7)), `struct inet_diag_req_v2` and `struct inet_diag_msg`
//! (`sock_diag(7)`), `struct tcp_info` (include/uapi/linux/tcp.h). Netlink is in the machine's own byte order; ports and
//! addresses are in the network's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Activity, Socket, TcpState};

/// `SOCK_DIAG_BY_FAMILY`.
const BY_FAMILY: u16 = 20;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST_DUMP: u16 = 0x301;
const HEADER: usize = 16;
const MESSAGE: usize = 72;
const ATTRIBUTE: usize = 4;
const INET_DIAG_INFO: u16 = 2;
const INET_DIAG_CGROUP_ID: u16 = 21;
const IPPROTO_TCP: u8 = 6;

/// `AF_INET`.
pub const INET: u8 = 2;
/// `AF_INET6`.
pub const INET6: u8 = 10;

/// Multicast groups of destroyed TCP sockets, IPv4 and IPv6, as a netlink bind mask (`SKNLGRP_INET_TCP_DESTROY` is 1,
/// `SKNLGRP_INET6_TCP_DESTROY` is 3).
pub const DESTROYED: u32 = 1 | 1 << 2;

/// The length of a dump request.
pub const REQUEST: usize = HEADER + 56;

/// A request for all TCP sockets of `family` in the given states (a mask, bit n for state n), with their `tcp_info`.
pub fn dump_request(family: u8, states: u32) -> [u8; REQUEST] {
    let mut out = [0; REQUEST];
    out[0..4].copy_from_slice(&(REQUEST as u32).to_ne_bytes());
    out[4..6].copy_from_slice(&BY_FAMILY.to_ne_bytes());
    out[6..8].copy_from_slice(&NLM_F_REQUEST_DUMP.to_ne_bytes());
    out[16] = family;
    out[17] = IPPROTO_TCP;
    out[18] = 1 << (INET_DIAG_INFO - 1);
    out[20..24].copy_from_slice(&states.to_ne_bytes());
    out
}

/// Whether an answer goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// More is to come.
    More,
    /// The dump is complete.
    Done,
    /// The kernel refused, with this errno.
    Refused(i32),
    /// Bytes that are not what the kernel writes.
    Malformed,
}

/// Reads one datagram and gives each socket in it to `each`.
pub fn parse(mut datagram: &[u8], mut each: impl FnMut(Socket)) -> Answer {
    while datagram.len() >= HEADER {
        let length = u32_at(datagram, 0) as usize;
        let kind = u16_at(datagram, 4);
        let Some(message) = datagram.get(HEADER..length) else { return Answer::Malformed };
        match kind {
            NLMSG_DONE => return Answer::Done,
            NLMSG_ERROR if message.len() >= 4 => return Answer::Refused((u32_at(message, 0) as i32).wrapping_neg()),
            BY_FAMILY => match socket(message) {
                Some(socket) => each(socket),
                None => return Answer::Malformed,
            },
            _ => {}
        }
        datagram = datagram.get(align4(length)..).unwrap_or_default();
    }
    if datagram.is_empty() { Answer::More } else { Answer::Malformed }
}

fn socket(message: &[u8]) -> Option<Socket> {
    let (fixed, mut attributes) = message.split_at_checked(MESSAGE)?;
    let address = |at: usize| -> Option<IpAddr> {
        match fixed[0] {
            INET => Some(Ipv4Addr::from(<[u8; 4]>::try_from(&fixed[at..at + 4]).ok()?).into()),
            INET6 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(&fixed[at..at + 16]).ok()?).to_canonical()),
            _ => None,
        }
    };
    let mut socket = Socket {
        state: TcpState(fixed[1]),
        local_port: u16::from_be_bytes([fixed[4], fixed[5]]),
        remote_port: u16::from_be_bytes([fixed[6], fixed[7]]),
        local: address(8)?,
        remote: address(24)?,
        cookie: u64::from(u32_at(fixed, 44)) | u64::from(u32_at(fixed, 48)) << 32,
        expires_ms: u32_at(fixed, 52),
        received: u32_at(fixed, 56),
        unsent: u32_at(fixed, 60),
        inode: u32_at(fixed, 68),
        cgroup: None,
        activity: None,
    };
    while attributes.len() >= ATTRIBUTE {
        let length = u16_at(attributes, 0) as usize;
        let value = attributes.get(ATTRIBUTE..length)?;
        match u16_at(attributes, 2) {
            INET_DIAG_INFO => socket.activity = activity(value),
            INET_DIAG_CGROUP_ID => socket.cgroup = value.get(..8).map(|_| u64_at(value, 0)),
            _ => {}
        }
        attributes = attributes.get(align4(length)..).unwrap_or_default();
    }
    Some(socket)
}

/// From `struct tcp_info`. `tcpi_bytes_received` is there since Linux 4.1, `tcpi_bytes_sent` since 4.19 (before that,
/// what was acknowledged has to do); a shorter structure is an older kernel's.
fn activity(info: &[u8]) -> Option<Activity> {
    (info.len() >= 136).then(|| Activity {
        since_sent_ms: u32_at(info, 44),
        since_received_ms: u32_at(info, 52),
        bytes_received: u64_at(info, 128),
        bytes_sent: u64_at(info, if info.len() >= 208 { 200 } else { 120 }),
    })
}

const fn align4(length: usize) -> usize {
    (length + 3) & !3
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let (low, high) = (u64::from(u32_at(bytes, at)), u64::from(u32_at(bytes, at + 4)));
    if cfg!(target_endian = "little") { low | high << 32 } else { high | low << 32 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// One message as the kernel writes it.
    fn message(family: u8, attributes: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let mut body = vec![0u8; MESSAGE];
        body[0] = family;
        body[1] = 1;
        body[4..6].copy_from_slice(&8080u16.to_be_bytes());
        body[6..8].copy_from_slice(&40_000u16.to_be_bytes());
        body[24..28].copy_from_slice(&[127, 0, 0, 9]);
        body[44..48].copy_from_slice(&7u32.to_ne_bytes());
        body[68..72].copy_from_slice(&4242u32.to_ne_bytes());
        for (kind, value) in attributes {
            body.extend(((ATTRIBUTE + value.len()) as u16).to_ne_bytes());
            body.extend(kind.to_ne_bytes());
            body.extend(value);
            body.resize(align4(body.len()), 0);
        }
        let mut out = ((HEADER + body.len()) as u32).to_ne_bytes().to_vec();
        out.extend(BY_FAMILY.to_ne_bytes());
        out.extend([0; 10]);
        out.extend(body);
        out
    }

    #[test]
    fn reads_a_socket_with_its_activity() {
        let mut info = vec![0u8; 240];
        info[44..48].copy_from_slice(&1500u32.to_ne_bytes());
        info[52..56].copy_from_slice(&1600u32.to_ne_bytes());
        info[128..136].copy_from_slice(&77u64.to_ne_bytes());
        let datagram = message(INET, &[(21, 5u64.to_ne_bytes().to_vec()), (INET_DIAG_INFO, info)]);
        let mut seen = Vec::new();
        assert_eq!(parse(&datagram, |socket| seen.push(socket)), Answer::More);
        let [socket] = seen[..] else { panic!("{seen:?}") };
        assert_eq!((socket.local_port, socket.remote_port, socket.inode), (8080, 40_000, 4242));
        assert_eq!(socket.remote, IpAddr::from([127, 0, 0, 9]));
        assert_eq!((socket.cookie, socket.cgroup), (7, Some(5)));
        let activity = socket.activity.unwrap();
        assert_eq!((activity.since_sent_ms, activity.since_received_ms, activity.bytes_received), (1500, 1600, 77));
    }

    #[test]
    fn an_error_number_that_has_no_opposite_is_no_overflow() {
        let mut datagram = 20u32.to_ne_bytes().to_vec();
        datagram.extend(NLMSG_ERROR.to_ne_bytes());
        datagram.extend([0; 10]);
        datagram.extend(i32::MIN.to_ne_bytes());
        assert_eq!(parse(&datagram, |_| {}), Answer::Refused(i32::MIN));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = parse(&bytes, |_| {});
        }

        /// A valid message cut or changed anywhere is read, refused or called malformed, never a panic.
        #[test]
        fn damaged_messages_never_panic(at in 0usize..400, to in any::<u8>(), cut in 0usize..400) {
            let mut datagram = message(INET6, &[(INET_DIAG_INFO, vec![1; 240]), (21, vec![0; 8])]);
            let at = at % datagram.len();
            datagram[at] = to;
            datagram.truncate(cut.max(1));
            let _ = parse(&datagram, |_| {});
        }
    }
}
