//! From a frame to a TCP segment: Ethernet with VLAN tags, Linux cooked v1 and v2, raw, BSD loopback; IPv4, IPv6, and the
//! tunnels that carry pods' packets between nodes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A segment.
#[derive(Debug, Clone, Copy)]
pub struct Segment<'a> {
    /// From.
    pub from: SocketAddr,
    /// To.
    pub to: SocketAddr,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement; meaningless without the flag.
    pub ack: u32,
    /// Flags.
    pub flags: u8,
    /// Payload bytes on the wire.
    pub len: u32,
    /// What was kept of them.
    pub payload: &'a [u8],
}

/// FIN.
pub const FIN: u8 = 1;
/// SYN.
pub const SYN: u8 = 2;
/// RST.
pub const RST: u8 = 4;
/// ACK.
pub const ACK: u8 = 16;

/// Tunnels within tunnels, at most.
const DEPTH: u8 = 4;

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// The segment in a frame, if there is one.
pub fn segment(link: u32, frame: &[u8]) -> Option<Segment<'_>> {
    match link {
        // BSD loopback, in the byte order of whoever captured; AF_INET6 differs between systems.
        0 | 108 => match (frame.first()?, frame.get(3)?) {
            (2, 0) | (0, 2) => ip4(frame.get(4..)?, 0),
            _ => ip6(frame.get(4..)?, 0),
        },
        1 => ethernet(frame, 0),
        12 | 14 | 101 => ip(frame, 0),
        228 => ip4(frame, 0),
        229 => ip6(frame, 0),
        113 => network(be16(frame, 14)?, frame.get(16..)?, 0),
        276 => network(be16(frame, 0)?, frame.get(20..)?, 0),
        _ => None,
    }
}

fn ethernet(frame: &[u8], depth: u8) -> Option<Segment<'_>> {
    let mut at = 12;
    while matches!(be16(frame, at)?, 0x8100 | 0x88a8 | 0x9100) {
        at += 4;
    }
    network(be16(frame, at)?, frame.get(at + 2..)?, depth)
}

fn network(protocol: u16, packet: &[u8], depth: u8) -> Option<Segment<'_>> {
    match protocol {
        0x0800 => ip4(packet, depth),
        0x86dd => ip6(packet, depth),
        _ => None,
    }
}

fn ip(packet: &[u8], depth: u8) -> Option<Segment<'_>> {
    match packet.first()? >> 4 {
        4 => ip4(packet, depth),
        6 => ip6(packet, depth),
        _ => None,
    }
}

fn ip4(packet: &[u8], depth: u8) -> Option<Segment<'_>> {
    let head = usize::from(packet.first()? & 0xf) * 4;
    if packet[0] >> 4 != 4 || head < 20 {
        return None;
    }
    // Only the first fragment has ports; the rest can not be told apart.
    if be16(packet, 6)? & 0x1fff != 0 {
        return None;
    }
    let body = packet.get(head..)?;
    // Segmentation offload leaves 0 here; then what was captured is all there is to go by.
    let total = match usize::from(be16(packet, 2)?) {
        0 => packet.len(),
        total => total,
    };
    let address = |at: usize| packet.get(at..at + 4).and_then(|b| <[u8; 4]>::try_from(b).ok()).map(Ipv4Addr::from);
    let (from, to) = (address(12)?.into(), address(16)?.into());
    upper(*packet.get(9)?, from, to, body, total.checked_sub(head)?, depth)
}

fn ip6(packet: &[u8], depth: u8) -> Option<Segment<'_>> {
    if packet.first()? >> 4 != 6 {
        return None;
    }
    let address = |at: usize| packet.get(at..at + 16).and_then(|b| <[u8; 16]>::try_from(b).ok()).map(Ipv6Addr::from);
    let (from, to) = (address(8)?.into(), address(24)?.into());
    let mut next = *packet.get(6)?;
    let mut at = 40;
    let total = match usize::from(be16(packet, 4)?) {
        0 => packet.len(),
        payload => 40 + payload,
    };
    // Hop-by-hop, routing, destination options; a fragment after the first has no ports.
    for _ in 0..8 {
        match next {
            0 | 43 | 60 => {
                next = *packet.get(at)?;
                at += (usize::from(*packet.get(at + 1)?) + 1) * 8;
            }
            44 => {
                if be16(packet, at + 2)? & 0xfff8 != 0 {
                    return None;
                }
                next = *packet.get(at)?;
                at += 8;
            }
            _ => break,
        }
    }
    upper(next, from, to, packet.get(at..)?, total.checked_sub(at)?, depth)
}

fn upper(protocol: u8, from: IpAddr, to: IpAddr, body: &[u8], len: usize, depth: u8) -> Option<Segment<'_>> {
    match protocol {
        6 => tcp(from, to, body, len),
        4 if depth < DEPTH => ip4(body, depth + 1),
        41 if depth < DEPTH => ip6(body, depth + 1),
        17 if depth < DEPTH => match be16(body, 2)? {
            // VXLAN (its own port and Linux's), Geneve.
            4789 | 8472 => ethernet(body.get(16..)?, depth + 1),
            6081 => {
                let options = usize::from(*body.get(8)? & 0x3f) * 4;
                ethernet(body.get(16 + options..)?, depth + 1)
            }
            _ => None,
        },
        _ => None,
    }
}

fn tcp(from: IpAddr, to: IpAddr, body: &[u8], len: usize) -> Option<Segment<'_>> {
    let head = usize::from(*body.get(12)? >> 4) * 4;
    if head < 20 {
        return None;
    }
    let on_wire = len.checked_sub(head)?;
    let kept = body.get(head.min(body.len())..)?;
    Some(Segment {
        from: SocketAddr::new(from, be16(body, 0)?),
        to: SocketAddr::new(to, be16(body, 2)?),
        seq: be32(body, 4)?,
        ack: be32(body, 8)?,
        flags: *body.get(13)?,
        len: u32::try_from(on_wire).ok()?,
        // Short frames are padded.
        payload: &kept[..kept.len().min(on_wire)],
    })
}
