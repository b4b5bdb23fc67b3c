//! Where WebSocket frames begin and end (RFC 6455, section 5.2), and nothing more: a tunnel is ended between two
//! frames, with a Close of our own. Payload is neither looked at nor changed, and whether the peers keep the rules is
//! theirs to judge.

/// The endpoint is going away, such as a server that goes down (RFC 6455, section 7.4.1).
pub const GOING_AWAY: u16 = 1001;

/// The opcode of a Close frame (RFC 6455 section 5.5.1).
pub const CLOSE: u8 = 0x8;

/// FIN: the last, or only, fragment of its message.
const FIN: u8 = 0x80;

/// MASK: a masking key follows the length, as in all that a client sends.
const MASKED: u8 = 0x80;

/// 7-bit lengths that stand for a longer one that follows.
const TWO_BYTES: u8 = 126;
const EIGHT_BYTES: u8 = 127;

/// What the next byte belongs to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Part {
    /// FIN, reserved bits and opcode.
    #[default]
    First,
    /// MASK and the 7-bit length.
    Second,
    /// The extended length, so many bytes left.
    Length(u8),
    /// The masking key, so many bytes left.
    Key(u8),
    /// The payload.
    Payload,
}

/// Walks over frames that arrive in any portions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Walker {
    /// Bytes of payload to come, or the part of their number that was read. All 64 bits count: a length beyond 63,
    /// which section 5.2 forbids, is a frame that does not end.
    payload: u64,
    part: Part,
    masked: bool,
    opcode: Option<u8>,
}

impl Walker {
    /// A walker before the first frame.
    pub fn new() -> Walker {
        Walker::default()
    }

    /// Goes on to the end of the current frame or of the input, whichever comes first; returns the bytes gone.
    pub fn advance(&mut self, input: &[u8]) -> usize {
        let mut at = 0;
        while at < input.len() {
            if self.part == Part::Payload {
                let take = self.payload.min((input.len() - at) as u64);
                self.payload -= take;
                at += take as usize;
            } else {
                self.part = self.header(input[at]);
                at += 1;
            }
            if self.part == Part::Payload && self.payload == 0 {
                self.part = Part::First;
                break;
            }
        }
        at
    }

    /// Takes one byte of a frame's header.
    fn header(&mut self, byte: u8) -> Part {
        match self.part {
            Part::First => {
                self.opcode = Some(peek_opcode(byte));
                Part::Second
            }
            Part::Second => {
                self.masked = byte & MASKED != 0;
                self.payload = 0;
                match byte & !MASKED {
                    TWO_BYTES => Part::Length(2),
                    EIGHT_BYTES => Part::Length(8),
                    length => {
                        self.payload = u64::from(length);
                        self.after_length()
                    }
                }
            }
            Part::Length(left) => {
                self.payload = self.payload << 8 | u64::from(byte);
                if left > 1 { Part::Length(left - 1) } else { self.after_length() }
            }
            Part::Key(left) if left > 1 => Part::Key(left - 1),
            Part::Key(_) | Part::Payload => Part::Payload,
        }
    }

    fn after_length(self) -> Part {
        if self.masked { Part::Key(4) } else { Part::Payload }
    }

    /// Whether it is between two frames, or at the very start.
    pub fn at_boundary(&self) -> bool {
        self.part == Part::First
    }

    /// The opcode of the frame under way or, at a boundary, of the one that just ended. None at the very start.
    pub fn opcode(&self) -> Option<u8> {
        self.opcode
    }

    /// Whether that frame is a Close (RFC 6455, section 5.5.1), after which its sender sends nothing more.
    pub fn is_close(&self) -> bool {
        self.opcode == Some(CLOSE)
    }
}

/// The opcode in a frame's first byte.
pub fn peek_opcode(first_byte: u8) -> u8 {
    first_byte & 0x0f
}

/// A Close frame with a status code and no reason (RFC 6455, section 5.5.1): its bytes and how many of them count. A
/// mask is given when it is sent as a client (section 5.1).
pub fn close_frame(code: u16, mask: Option<[u8; 4]>) -> ([u8; 8], usize) {
    let [high, low] = code.to_be_bytes();
    match mask {
        None => ([FIN | CLOSE, 2, high, low, 0, 0, 0, 0], 4),
        Some([a, b, c, d]) => ([FIN | CLOSE, MASKED | 2, a, b, c, d, high ^ a, low ^ b], 8),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A frame in the shortest or a longer form of its length: 7, 16 or 64 bits.
    fn frame(first: u8, masked: bool, payload: &[u8], bits: u8) -> Vec<u8> {
        let mask_bit = if masked { MASKED } else { 0 };
        let length = payload.len() as u64;
        let mut frame = vec![first];
        match bits {
            7 if length < 126 => frame.push(mask_bit | length as u8),
            7 | 16 => {
                frame.push(mask_bit | TWO_BYTES);
                frame.extend_from_slice(&(length as u16).to_be_bytes());
            }
            _ => {
                frame.push(mask_bit | EIGHT_BYTES);
                frame.extend_from_slice(&length.to_be_bytes());
            }
        }
        frame.extend_from_slice(if masked { &[1, 2, 3, 4] } else { &[] });
        frame.extend_from_slice(payload);
        frame
    }

    /// The ends of all frames, and their opcodes, when the input comes in portions of the given sizes.
    fn walk(wire: &[u8], cuts: &[usize]) -> (Vec<(usize, u8)>, Walker) {
        let mut walker = Walker::new();
        let (mut ends, mut at, mut cuts) = (Vec::new(), 0, cuts.iter().cycle());
        while at < wire.len() {
            let end = (at + cuts.next().unwrap()).min(wire.len());
            let gone = walker.advance(&wire[at..end]);
            assert!(gone > 0 && gone <= end - at);
            assert!(gone == end - at || walker.at_boundary());
            at += gone;
            if walker.at_boundary() {
                ends.push((at, walker.opcode().unwrap()));
            }
        }
        (ends, walker)
    }

    fn check(wire: &[u8], expect: &[(usize, u8)]) {
        assert_eq!(walk(wire, &[usize::MAX >> 1]).0, expect, "{wire:02x?}");
        assert_eq!(walk(wire, &[1]).0, expect, "{wire:02x?} byte by byte");
    }

    #[test]
    fn finds_the_ends_of_the_examples_in_rfc_6455_section_5_7() {
        check(b"\x81\x05\x48\x65\x6c\x6c\x6f", &[(7, 1)]);
        check(b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", &[(11, 1)]);
        check(b"\x01\x03\x48\x65\x6c\x80\x02\x6c\x6f", &[(5, 1), (9, 0)]);
        check(b"\x89\x05\x48\x65\x6c\x6c\x6f\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", &[(7, 9), (18, 10)]);
        check(&frame(0x82, false, &[0; 256], 16), &[(260, 2)]);
        check(&frame(0x82, false, &vec![0; 65_536], 64), &[(65_546, 2)]);
    }

    #[test]
    fn empty_frames_end_with_their_header() {
        check(b"\x81\x00\x81\x80\x01\x02\x03\x04\x81\x00", &[(2, 1), (8, 1), (10, 1)]);
        check(b"\x81\x7e\x00\x00\x81\x7f\x00\x00\x00\x00\x00\x00\x00\x00", &[(4, 1), (14, 1)]);
    }

    #[test]
    fn a_mask_does_not_leak_into_the_next_frame() {
        check(
            b"\x81\x80\x01\x02\x03\x04\x81\x7e\x00\x01x\x81\x7f\x00\x00\x00\x00\x00\x00\x00\x01x",
            &[(6, 1), (11, 1), (22, 1)],
        );
    }

    #[test]
    fn absurd_lengths_neither_overflow_nor_end() {
        for masked in [0x00, 0x80] {
            let mut walker = Walker::new();
            let head = [&[0x82, EIGHT_BYTES | masked][..], &[0xff; 8]].concat();
            assert_eq!(walker.advance(&head), head.len());
            for _ in 0..4 {
                assert_eq!(walker.advance(&[0x88; 1000]), 1000);
                assert!(!walker.at_boundary() && !walker.is_close());
            }
        }
    }

    #[test]
    fn knows_a_close() {
        let mut walker = Walker::new();
        assert!(walker.at_boundary() && !walker.is_close() && walker.opcode().is_none());
        assert_eq!(walker.advance(b""), 0);
        assert_eq!(walker.advance(b"\x88"), 1);
        assert!(!walker.at_boundary() && walker.is_close());
        assert_eq!(walker.advance(b"\x02\x03\xe8\x81"), 3);
        assert!(walker.at_boundary() && walker.is_close());
        assert_eq!(walker.advance(b"\x81"), 1);
        assert!(!walker.is_close());
    }

    #[test]
    fn closes_as_a_server_and_as_a_client() {
        assert_eq!(close_frame(GOING_AWAY, None), (*b"\x88\x02\x03\xe9\0\0\0\0", 4));
        assert_eq!(close_frame(GOING_AWAY, Some([0xff, 0x0f, 3, 4])), (*b"\x88\x82\xff\x0f\x03\x04\xfc\xe6", 8));
    }

    #[test]
    fn a_walker_is_small() {
        assert!(size_of::<Walker>() <= 16);
    }

    proptest! {
        #[test]
        fn any_split_finds_every_end(
            frames in prop::collection::vec(
                (
                    any::<u8>(), any::<bool>(), prop::collection::vec(any::<u8>(), 0..200),
                    prop::sample::select(vec![7, 16, 64]),
                ),
                0..8,
            ),
            cuts in prop::collection::vec(1usize..40, 1..20),
        ) {
            let (mut wire, mut expect) = (Vec::new(), Vec::new());
            for (first, masked, payload, bits) in &frames {
                wire.extend_from_slice(&frame(*first, *masked, payload, *bits));
                expect.push((wire.len(), first & 0xf));
            }
            let (ends, walker) = walk(&wire, &cuts);
            prop_assert_eq!(ends, expect);
            prop_assert!(walker.at_boundary());
        }

        #[test]
        fn any_split_of_any_bytes_gives_the_same(
            wire in prop::collection::vec(any::<u8>(), 0..300), cuts in prop::collection::vec(1usize..9, 1..20),
        ) {
            prop_assert_eq!(walk(&wire, &cuts), walk(&wire, &[usize::MAX >> 1]));
        }

        #[test]
        fn a_close_is_one_frame(code in any::<u16>(), mask in any::<Option<[u8; 4]>>()) {
            let (bytes, length) = close_frame(code, mask);
            let mut walker = Walker::new();
            prop_assert_eq!(walker.advance(&bytes[..length]), length);
            prop_assert!(walker.at_boundary() && walker.is_close());
            let key = mask.unwrap_or_default();
            prop_assert_eq!([bytes[length - 2] ^ key[0], bytes[length - 1] ^ key[1]], code.to_be_bytes());
        }
    }
}
