//! Packets of any link type, after a header that makes them a capture.
#![no_main]

use std::io::Cursor;

use lameduck_explain::capture::file::Capture;
use lameduck_explain::capture::packet::segment;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &[u8])| {
    let (link, bytes) = input;
    for link in [u32::from(link), 0, 1, 12, 113, 228, 229, 276] {
        let _ = segment(link, bytes);
    }
    let mut file = vec![0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, link, 0, 0, 0];
    file.extend_from_slice(bytes);
    for whole in [&file[..], bytes] {
        if let Ok(mut capture) = Capture::open(Cursor::new(whole)) {
            while let Some(Ok(_)) = capture.next_frame() {}
        }
    }
});
