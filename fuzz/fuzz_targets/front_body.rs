//! Any bytes behind a request's head, in any portions: the app gets the same body, and the next request begins at the same byte.
#![no_main]

use lameduck_front::chunked::{Decoder, Wrong};
use lameduck_front::message::body::Body;
use lameduck_front::message::request::Framing;
use libfuzzer_sys::fuzz_target;

#[derive(Debug, PartialEq)]
struct Taken {
    consumed: usize,
    whole: bool,
    /// What the app gets, without its coding, and its trailers.
    payload: Vec<u8>,
    trailers: Vec<u8>,
}

fn take(framing: Framing, wire: &[u8], cuts: &[u8]) -> Result<Taken, Wrong> {
    let (mut body, mut out, mut consumed) = (Body::of(framing), Vec::new(), 0);
    let mut cuts = cuts.iter().map(|&cut| usize::from(cut) + 1).cycle();
    while consumed < wire.len() && !body.is_done() {
        let rest = &wire[consumed..];
        let portion = &rest[..cuts.next().unwrap_or(usize::MAX).min(rest.len())];
        let taken = body.take(portion, &mut out)?;
        assert!(taken == portion.len() || (taken < portion.len() && body.is_done()));
        consumed += taken;
    }
    let whole = body.is_done();
    if framing != Framing::Chunked {
        assert_eq!(out, wire[..consumed]);
        return Ok(Taken { consumed, whole, payload: out, trailers: Vec::new() });
    }
    let (mut decoder, mut payload) = (Decoder::new(), Vec::new());
    let read = decoder.decode(&out, &mut |piece| payload.extend_from_slice(piece));
    assert_eq!((read, decoder.is_done()), (Ok(out.len()), whole), "what the app gets is what was understood");
    let trailers = if whole { decoder.trailers().to_vec() } else { Vec::new() };
    Ok(Taken { consumed, whole, payload, trailers })
}

fuzz_target!(|input: (Option<u16>, &[u8], &[u8])| {
    let (length, cuts, wire) = input;
    let framing = length.map_or(Framing::Chunked, |length| Framing::Length(length.into()));
    let expect = take(framing, wire, &[]);
    assert_eq!(take(framing, wire, cuts), expect);
    assert_eq!(take(framing, wire, &[0]), expect);
    if let (Some(length), Ok(taken)) = (length, &expect) {
        assert_eq!(taken.consumed, wire.len().min(length.into()));
        assert_eq!(taken.whole, taken.consumed == usize::from(length));
    }
    assert_eq!(take(Framing::None, wire, cuts).map(|taken| (taken.consumed, taken.whole)), Ok((0, true)));
});
