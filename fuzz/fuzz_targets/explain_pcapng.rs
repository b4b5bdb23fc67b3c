//! Blocks of a pcapng file, of any kind and with any body, in both byte orders, cut anywhere.
#![no_main]

use std::io::Cursor;

use lameduck_explain::capture::file::Capture;
use lameduck_explain::capture::packet::segment;
use libfuzzer_sys::fuzz_target;

/// A block: what kind, how far its length lies beside the truth, its body.
type Block<'b> = (u8, u8, &'b [u8]);

fn block(out: &mut Vec<u8>, big: bool, kind: u32, lie: u8, body: &[u8]) {
    let word = |n: u32| if big { n.to_be_bytes() } else { n.to_le_bytes() };
    let padded = body.len().next_multiple_of(4);
    let length = 12 + padded as u32;
    // Most lengths are true, or nothing after the first block would be reached.
    let told = if lie > 250 { length.wrapping_sub(u32::from(lie) - 251) } else { length };
    out.extend_from_slice(&word(kind));
    out.extend_from_slice(&word(told));
    out.extend_from_slice(body);
    out.resize(out.len() + padded - body.len(), 0);
    out.extend_from_slice(&word(length));
}

fuzz_target!(|input: (bool, u16, Vec<Block<'_>>)| {
    let (big, cut, blocks) = input;
    let mut file = Vec::new();
    let magic: [u8; 4] = if big { [0x1a, 0x2b, 0x3c, 0x4d] } else { [0x4d, 0x3c, 0x2b, 0x1a] };
    block(
        &mut file,
        big,
        0x0a0d_0d0a,
        0,
        &[&magic[..], &[0, 1, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255]].concat(),
    );
    block(&mut file, big, 1, 0, &[0, 1, 0, 0, 0, 0, 0, 0]);
    for (kind, lie, body) in blocks {
        let kind = [1, 3, 5, 6, 6, 6, 0x0a0d_0d0a, 7][usize::from(kind) % 8];
        block(&mut file, big, kind, lie, body);
    }
    file.truncate(file.len().saturating_sub(usize::from(cut) % 64));
    if let Ok(mut capture) = Capture::open(Cursor::new(file)) {
        while let Some(Ok(frame)) = capture.next_frame() {
            let _ = segment(frame.link, frame.bytes);
        }
    }
});
