//! The files of packet captures: pcap in both byte orders and units, pcapng with several interfaces and sections.
//! Source: <https://www.ietf.org/archive/id/draft-ietf-opsawg-pcap-04.html>, draft-ietf-opsawg-pcapng.

use std::io::Read;

use crate::input::fill;
use crate::time::Micros;

/// The largest packet or block believed.
const MOST: usize = 16 << 20;
/// Interfaces of one section.
const INTERFACES: usize = 4096;

/// A packet as captured.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// Its number, from 1.
    pub number: u64,
    /// When.
    pub at: Micros,
    /// Its link type.
    pub link: u32,
    /// What was kept of it.
    pub bytes: &'a [u8],
    /// How long it was.
    pub original: u32,
}

/// What ended a capture before its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CaptureError {
    /// The file stops within a packet, as one does that is copied while it is written.
    #[error("the capture stops in the middle of frame {0}; what came before it was read")]
    Truncated(u64),
    /// A length that nothing has.
    #[error("frame {frame}: a length of {length} bytes is not believed; what came before it was read")]
    Absurd {
        /// The frame.
        frame: u64,
        /// The length.
        length: u64,
    },
    /// Not a capture after all.
    #[error("not a pcap or pcapng header: {0}")]
    Header(&'static str),
}

#[derive(Debug, Clone, Copy)]
struct Interface {
    link: u32,
    /// Ticks a second.
    ticks: u64,
    offset: i64,
}

/// Reads a capture as a stream.
pub struct Capture<R> {
    from: R,
    kind: Kind,
    big: bool,
    number: u64,
    buffer: Vec<u8>,
    /// Bytes read so far.
    pub bytes: u64,
    /// Packets that the capturing machine dropped, where the file says so.
    pub dropped: u64,
}

enum Kind {
    Pcap { link: u32, nanos: bool, modified: bool },
    Pcapng(Vec<Interface>),
}

impl<R: Read> Capture<R> {
    /// Reads the header.
    pub fn open(mut from: R) -> Result<Capture<R>, CaptureError> {
        let mut magic = [0; 4];
        let short = CaptureError::Header("shorter than its header");
        if fill(&mut from, &mut magic).ok() != Some(4) {
            return Err(short);
        }
        let mut capture = Capture {
            from,
            kind: Kind::Pcapng(Vec::new()),
            big: false,
            number: 0,
            buffer: Vec::new(),
            bytes: 4,
            dropped: 0,
        };
        if magic == [0x0a, 0x0d, 0x0d, 0x0a] {
            capture.section()?;
            return Ok(capture);
        }
        let (big, plain) = match magic {
            [0xa1, 0xb2, ..] => (true, u32::from_be_bytes(magic)),
            _ => (false, u32::from_le_bytes(magic)),
        };
        let (nanos, modified) = match plain {
            0xa1b2_c3d4 => (false, false),
            0xa1b2_3c4d => (true, false),
            0xa1b2_cd34 => (false, true),
            _ => return Err(CaptureError::Header("an unknown magic number")),
        };
        capture.big = big;
        if !capture.load(20) {
            return Err(short);
        }
        // The upper bits are about a frame check sequence.
        let link = capture.word(16) & 0xffff;
        capture.kind = Kind::Pcap { link, nanos, modified };
        Ok(capture)
    }

    /// Whether so many bytes were there.
    fn load(&mut self, len: usize) -> bool {
        self.buffer.resize(len, 0);
        self.bytes += len as u64;
        fill(&mut self.from, &mut self.buffer).ok() == Some(len)
    }

    fn word(&self, at: usize) -> u32 {
        let Some(bytes) = self.buffer.get(at..at + 4).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok()) else {
            return 0;
        };
        if self.big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    }

    fn half(&self, at: usize) -> u16 {
        let Some(bytes) = self.buffer.get(at..at + 2).and_then(|bytes| <[u8; 2]>::try_from(bytes).ok()) else {
            return 0;
        };
        if self.big { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }
    }

    /// The rest of a section's header, after its type.
    fn section(&mut self) -> Result<(), CaptureError> {
        let mut head = [0; 8];
        if fill(&mut self.from, &mut head).ok() != Some(8) {
            return Err(CaptureError::Header("a section header cut short"));
        }
        self.big = match [head[4], head[5], head[6], head[7]] {
            [0x1a, 0x2b, 0x3c, 0x4d] => true,
            [0x4d, 0x3c, 0x2b, 0x1a] => false,
            _ => return Err(CaptureError::Header("an unknown byte-order magic")),
        };
        let length = [head[0], head[1], head[2], head[3]];
        let length = if self.big { u32::from_be_bytes(length) } else { u32::from_le_bytes(length) } as usize;
        if !(28..MOST).contains(&length) || !self.load(length - 12) {
            return Err(CaptureError::Header("a section header of impossible length"));
        }
        self.kind = Kind::Pcapng(Vec::new());
        Ok(())
    }

    /// The next packet; none at the end.
    pub fn next_frame(&mut self) -> Option<Result<Frame<'_>, CaptureError>> {
        let found = match &self.kind {
            Kind::Pcap { link, nanos, modified } => {
                let (link, nanos, modified) = (*link, *nanos, *modified);
                self.next_pcap(link, nanos, modified)
            }
            Kind::Pcapng(_) => self.next_block(),
        };
        match found? {
            Ok((at, link, from, len, original)) => {
                let bytes = self.buffer.get(from..from + len).unwrap_or(&[]);
                Some(Ok(Frame { number: self.number, at, link, bytes, original }))
            }
            Err(error) => Some(Err(error)),
        }
    }

    #[expect(
        clippy::type_complexity,
        reason = "time, link type, place, length, original length; the buffer is borrowed after"
    )]
    fn next_pcap(
        &mut self,
        link: u32,
        nanos: bool,
        modified: bool,
    ) -> Option<Result<(Micros, u32, usize, usize, u32), CaptureError>> {
        let head = if modified { 24 } else { 16 };
        self.buffer.resize(head, 0);
        match fill(&mut self.from, &mut self.buffer) {
            Ok(0) | Err(_) => return None,
            Ok(got) if got < head => return Some(Err(CaptureError::Truncated(self.number + 1))),
            Ok(_) => self.bytes += head as u64,
        }
        let (seconds, fraction, length, original) = (self.word(0), self.word(4), self.word(8), self.word(12));
        self.number += 1;
        if length as usize > MOST {
            return Some(Err(CaptureError::Absurd { frame: self.number, length: u64::from(length) }));
        }
        if !self.load(length as usize) {
            return Some(Err(CaptureError::Truncated(self.number)));
        }
        let micros = if nanos { i64::from(fraction) / 1000 } else { i64::from(fraction) };
        Some(Ok((i64::from(seconds) * 1_000_000 + micros, link, 0, length as usize, original)))
    }

    #[expect(clippy::type_complexity, reason = "as above")]
    fn next_block(&mut self) -> Option<Result<(Micros, u32, usize, usize, u32), CaptureError>> {
        loop {
            let mut head = [0; 8];
            let mut got = fill(&mut self.from, &mut head[..4]).ok()?;
            if got == 0 {
                return None;
            }
            if head[..4] == [0x0a, 0x0d, 0x0d, 0x0a] {
                if let Err(error) = self.section() {
                    return Some(Err(error));
                }
                continue;
            }
            got += fill(&mut self.from, &mut head[4..]).ok()?;
            let read = |bytes: [u8; 4]| if self.big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) };
            let kind = read([head[0], head[1], head[2], head[3]]);
            let length = read([head[4], head[5], head[6], head[7]]) as usize;
            if got < 8 {
                return Some(Err(CaptureError::Truncated(self.number + 1)));
            }
            if !(12..=MOST).contains(&length) {
                return Some(Err(CaptureError::Absurd { frame: self.number + 1, length: length as u64 }));
            }
            self.bytes += 8;
            if !self.load(length - 8) {
                return Some(Err(CaptureError::Truncated(self.number + 1)));
            }
            match kind {
                1 => self.interface(),
                3 => return Some(self.simple(length)),
                6 => return Some(self.enhanced()),
                5 => self.statistics(),
                _ => {}
            }
        }
    }

    /// The options from `at` on: code and value.
    fn option(&self, mut at: usize, code: u16) -> Option<(usize, usize)> {
        while at + 4 <= self.buffer.len() {
            let (found, len) = (self.half(at), usize::from(self.half(at + 2)));
            if found == 0 {
                return None;
            }
            if found == code && at + 4 + len <= self.buffer.len() {
                return Some((at + 4, len));
            }
            at += 4 + len.div_ceil(4) * 4;
        }
        None
    }

    fn interface(&mut self) {
        let link = u32::from(self.half(0));
        let resolution = self.option(8, 9).filter(|(_, len)| *len >= 1).map_or(6, |(at, _)| self.buffer[at]);
        let power = u32::from(resolution & 0x7f);
        let ticks = if resolution & 0x80 == 0 { 10u64.checked_pow(power) } else { 2u64.checked_pow(power) };
        let offset = self.option(8, 14).filter(|(_, len)| *len >= 8).map_or(0, |(at, _)| {
            let (first, second) = (u64::from(self.word(at)), u64::from(self.word(at + 4)));
            (if self.big { first << 32 | second } else { second << 32 | first }) as i64
        });
        if let Kind::Pcapng(interfaces) = &mut self.kind
            && interfaces.len() < INTERFACES
        {
            interfaces.push(Interface { link, ticks: ticks.unwrap_or(1_000_000), offset });
        }
    }

    fn interface_of(&self, id: u32) -> Option<Interface> {
        match &self.kind {
            Kind::Pcapng(interfaces) => interfaces.get(id as usize).copied(),
            Kind::Pcap { .. } => None,
        }
    }

    fn enhanced(&mut self) -> Result<(Micros, u32, usize, usize, u32), CaptureError> {
        self.number += 1;
        let (id, length, original) = (self.word(0), self.word(12) as usize, self.word(16));
        let Some(interface) = self.interface_of(id) else {
            return Err(CaptureError::Header("a packet of an interface that was not described"));
        };
        if 20 + length > self.buffer.len() {
            return Err(CaptureError::Absurd { frame: self.number, length: length as u64 });
        }
        let ticks = u128::from(self.word(4)) << 32 | u128::from(self.word(8));
        let micros = (ticks * 1_000_000 / u128::from(interface.ticks.max(1))) as i64;
        // A clock that stands beyond the year 9999 is none.
        let at = micros.saturating_add(interface.offset.saturating_mul(1_000_000)).clamp(0, 253_402_300_799_000_000);
        Ok((at, interface.link, 20, length, original))
    }

    fn simple(&mut self, length: usize) -> Result<(Micros, u32, usize, usize, u32), CaptureError> {
        self.number += 1;
        let original = self.word(0);
        let Some(interface) = self.interface_of(0) else {
            return Err(CaptureError::Header("a packet of an interface that was not described"));
        };
        let kept = (original as usize).min(length.saturating_sub(16));
        Ok((0, interface.link, 4, kept, original))
    }

    fn statistics(&mut self) {
        if let Some((at, len)) = self.option(12, 5)
            && len >= 8
        {
            let (first, second) = (u64::from(self.word(at)), u64::from(self.word(at + 4)));
            self.dropped += if self.big { first << 32 | second } else { second << 32 | first };
        }
    }
}
