//! Any bytes in any portions: the same ends of frames as when each frame's header is read at once, and never more bytes gone
//! than came.
#![no_main]

use lameduck_front::websocket::{Walker, peek_opcode};
use libfuzzer_sys::fuzz_target;

/// The ends of frames, each with its opcode.
fn walk(wire: &[u8], cuts: &[u8]) -> Vec<(usize, u8)> {
    let (mut walker, mut ends, mut at) = (Walker::new(), Vec::new(), 0);
    let mut cuts = cuts.iter().map(|&cut| usize::from(cut) + 1).cycle();
    while at < wire.len() {
        let rest = &wire[at..];
        let portion = &rest[..cuts.next().unwrap_or(usize::MAX).min(rest.len())];
        let gone = walker.advance(portion);
        assert!(gone == portion.len() || (gone > 0 && gone < portion.len() && walker.at_boundary()));
        at += gone;
        if walker.at_boundary() {
            ends.push((at, walker.opcode().expect("a frame ended")));
            assert_eq!(walker.is_close(), walker.opcode() == Some(8));
        }
    }
    ends
}

/// The same, by RFC 6455 section 5.2 with the whole input at hand.
fn by_the_book(wire: &[u8]) -> Vec<(usize, u8)> {
    let (mut ends, mut at) = (Vec::new(), 0);
    while let Some([first, second]) = wire.get(at..at + 2).and_then(|head| head.first_chunk()) {
        let field = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let Some(long) = wire.get(at + 2..at + 2 + field) else { break };
        let long = long.iter().fold(0, |length: u128, &byte| length << 8 | u128::from(byte));
        let payload = if field == 0 { u128::from(second & 0x7f) } else { long };
        let key = if second & 0x80 == 0 { 0 } else { 4 };
        let end = (at + 2 + field + key) as u128 + payload;
        if end > wire.len() as u128 {
            break;
        }
        at = end as usize;
        ends.push((at, peek_opcode(*first)));
    }
    ends
}

fuzz_target!(|input: (&[u8], &[u8])| {
    let (cuts, wire) = input;
    let ends = by_the_book(wire);
    assert_eq!(walk(wire, &[]), ends);
    assert_eq!(walk(wire, cuts), ends);
    assert_eq!(walk(wire, &[0]), ends);
});
