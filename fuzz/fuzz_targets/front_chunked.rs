//! Any bytes in any portions: the same payload, end and trailers, or the same complaint, as in one piece; and what was
//! accepted can be encoded and read again.
#![no_main]

use lameduck_front::chunked::{Decoder, Wrong, encode_chunk, encode_end};
use libfuzzer_sys::fuzz_target;

#[derive(Debug, Default, PartialEq)]
struct Read {
    payload: Vec<u8>,
    consumed: usize,
    trailers: Option<Vec<u8>>,
}

fn decode(wire: &[u8], cuts: &[u8]) -> Result<Read, Wrong> {
    let (mut decoder, mut read) = (Decoder::new(), Read::default());
    let mut cuts = cuts.iter().map(|&cut| usize::from(cut) + 1).cycle();
    while read.consumed < wire.len() && !decoder.is_done() {
        let rest = &wire[read.consumed..];
        let portion = &rest[..cuts.next().unwrap_or(usize::MAX).min(rest.len())];
        let consumed = decoder.decode(portion, &mut |piece| {
            assert!(!piece.is_empty());
            read.payload.extend_from_slice(piece);
        })?;
        assert!(consumed == portion.len() || (consumed < portion.len() && decoder.is_done()));
        read.consumed += consumed;
    }
    read.trailers = decoder.is_done().then(|| decoder.trailers().to_vec());
    Ok(read)
}

fuzz_target!(|input: (&[u8], &[u8])| {
    let (cuts, wire) = input;
    let read = decode(wire, &[]);
    assert_eq!(decode(wire, cuts), read);
    assert_eq!(decode(wire, &[0]), read);
    let Ok(Read { payload, trailers: Some(trailers), .. }) = read else { return };
    for line in trailers.split_inclusive(|&byte| byte == b'\n') {
        assert!(line.ends_with(b"\r\n") && line.windows(2).any(|pair| pair == b": "));
    }
    let mut again = Vec::new();
    encode_chunk(&mut again, &payload);
    encode_end(&mut again, &trailers);
    let consumed = again.len();
    assert_eq!(decode(&again, cuts), Ok(Read { payload, consumed, trailers: Some(trailers) }));
});
