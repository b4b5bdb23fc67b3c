//! Any bytes in any portions: events end where the standard's lines are empty, and one portion or many come to the same.
#![no_main]

use lameduck_front::sse::Events;
use libfuzzer_sys::fuzz_target;

/// The ends of events, and the state behind them.
fn ends(stream: &[u8], cuts: &[u8]) -> (Vec<usize>, Events) {
    let (mut events, mut ends, mut at) = (Events::new(), Vec::new(), 0);
    let mut cuts = cuts.iter().map(|&cut| usize::from(cut) + 1).cycle();
    while at < stream.len() {
        let rest = &stream[at..];
        let portion = &rest[..cuts.next().unwrap_or(usize::MAX).min(rest.len())];
        let end = events.next_boundary(portion);
        at += end.unwrap_or(portion.len());
        if let Some(end) = end {
            assert!(end > 0 && end <= portion.len() && events.at_boundary());
            // Behind its CR or behind the LF after it: which of them depends on the portions.
            let late_lf = stream[at - 1] == b'\r' && stream.get(at) == Some(&b'\n');
            ends.push(at + usize::from(late_lf));
        }
    }
    (ends, events)
}

/// The ends of empty lines, with the whole stream at hand.
fn by_the_book(stream: &[u8]) -> Vec<usize> {
    let (mut ends, mut at) = (Vec::new(), 0);
    while let Some(length) = stream[at..].iter().position(|byte| b"\r\n".contains(byte)) {
        let line_end = &stream[at + length..];
        let end = at + length + if line_end.starts_with(b"\r\n") { 2 } else { 1 };
        if length == 0 {
            ends.push(end);
        }
        at = end;
    }
    ends
}

fuzz_target!(|input: (&[u8], &[u8])| {
    let (cuts, stream) = input;
    let mut whole = Events::new();
    whole.advance(stream);
    let expect = (by_the_book(stream), whole);
    assert_eq!(ends(stream, &[]), expect);
    assert_eq!(ends(stream, cuts), expect);
    assert_eq!(ends(stream, &[0]), expect);
});
