//! Where server-sent events end (HTML Standard, section 9.2.6, "Interpreting an event stream"), so that a stream is
//! ended after a whole event: a client drops an event that no empty line follows, and its `Last-Event-ID` then asks for
//! the next one.
//!
//! A line ends with CRLF, LF or CR (section 9.2.5, "Parsing an event stream"). The byte order mark that may open a
//! stream counts as a character like others: a stream that consists of it alone is within a line.

use memchr::memchr2;

/// Where in the stream the next byte stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    /// At the start of an event: after an empty line, or at the start of the stream.
    #[default]
    Between,
    /// The same, after a CR, whose LF may follow.
    BetweenCr,
    /// In a comment line, with nothing of an event before it.
    Comment,
    /// At the start of an event, after a comment line.
    Commented,
    /// The same, after a CR.
    CommentedCr,
    /// In a line of an event.
    Line,
    /// At the start of another line of an event.
    LineEnd,
    /// The same, after a CR.
    LineEndCr,
}

/// Follows a stream that is sent in any portions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Events {
    state: State,
}

impl Default for Events {
    fn default() -> Events {
        Events::new()
    }
}

/// An answer's payload on its way, which may be a stream of events that is to end after one of them.
#[derive(Debug, Default)]
pub struct Payload {
    tracked: bool,
    events: Events,
    ends: bool,
    cut: bool,
}

impl Payload {
    /// It is a stream of events, with nothing sent yet.
    pub const fn track(&mut self) {
        self.tracked = true;
    }

    /// It is to end: now, if it is between two events, or else with the next one. Any other payload ends by itself.
    pub fn end(&mut self) {
        self.ends = true;
        self.cut |= self.tracked && self.events.at_boundary();
    }

    /// What of this goes on: all of it, or what there is up to the end of the last event.
    pub fn pass<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        if self.cut {
            return &[];
        }
        if !self.tracked {
            return bytes;
        }
        if !self.ends {
            self.events.advance(bytes);
            return bytes;
        }
        let end = self.events.next_boundary(bytes);
        self.cut = end.is_some();
        &bytes[..end.unwrap_or(bytes.len())]
    }

    /// Whether it has ended before the app's answer has.
    pub const fn is_cut(&self) -> bool {
        self.cut
    }
}

impl Events {
    /// At a boundary: nothing has been sent yet.
    pub fn new() -> Events {
        Events { state: State::Between }
    }

    /// Goes through all of `input`.
    pub fn advance(&mut self, input: &[u8]) {
        let mut rest = input;
        while let Some(end) = self.next_boundary(rest) {
            rest = &rest[end..];
        }
    }

    /// Whether nothing of an event is under way. It is so after a whole comment line too: servers keep a stream alive
    /// with these, and not all of them send an empty line after each.
    pub fn at_boundary(&self) -> bool {
        match self.state {
            State::Between | State::BetweenCr | State::Commented | State::CommentedCr => true,
            State::Comment | State::Line | State::LineEnd | State::LineEndCr => false,
        }
    }

    /// Goes on until an event ends, which is after an empty line; returns the offset after it, or None if none ended
    /// within `input` (then all of it was consumed).
    ///
    /// When the empty line's CR is the last byte of `input`, the event ends there. If the LF of this CR comes next, it
    /// is no empty line of its own.
    pub fn next_boundary(&mut self, input: &[u8]) -> Option<usize> {
        let mut at = 0;
        while at < input.len() {
            if matches!(self.state, State::Line | State::Comment) {
                at += memchr2(b'\r', b'\n', &input[at..])?;
            }
            let ends = self.step(input[at]);
            at += 1;
            if ends {
                if self.state == State::BetweenCr && input.get(at) == Some(&b'\n') {
                    self.state = State::Between;
                    at += 1;
                }
                return Some(at);
            }
        }
        None
    }

    /// Takes one byte; returns whether it ends an empty line.
    fn step(&mut self, byte: u8) -> bool {
        use State as S;
        let (state, ends) = match (self.state, byte) {
            (S::BetweenCr, b'\n') => (S::Between, false),
            (S::Comment | S::CommentedCr, b'\n') => (S::Commented, false),
            (S::Comment, b'\r') => (S::CommentedCr, false),
            (S::Line | S::LineEndCr, b'\n') => (S::LineEnd, false),
            (S::Line, b'\r') => (S::LineEndCr, false),
            (S::Between | S::Commented | S::LineEnd, b'\n') => (S::Between, true),
            (S::Between | S::BetweenCr | S::Commented | S::CommentedCr | S::LineEnd | S::LineEndCr, b'\r') => {
                (S::BetweenCr, true)
            }
            (S::Between | S::BetweenCr | S::Commented | S::CommentedCr, b':') | (S::Comment, _) => (S::Comment, false),
            (S::Between | S::BetweenCr | S::Commented | S::CommentedCr | S::Line | S::LineEnd | S::LineEndCr, _) => {
                (S::Line, false)
            }
        };
        self.state = state;
        ends
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn boundaries(stream: &[u8]) -> Vec<usize> {
        let (mut events, mut at, mut found) = (Events::new(), 0, Vec::new());
        while let Some(end) = events.next_boundary(&stream[at..]) {
            at += end;
            found.push(at);
        }
        found
    }

    fn check(stream: &str, expect: &[usize], at_boundary: bool) {
        assert_eq!(boundaries(stream.as_bytes()), expect, "{stream:?}");
        let (mut whole, mut bytewise) = (Events::new(), Events::new());
        whole.advance(stream.as_bytes());
        assert_eq!(whole.at_boundary(), at_boundary, "{stream:?}");
        stream.bytes().for_each(|byte| bytewise.advance(&[byte]));
        assert_eq!(bytewise, whole, "{stream:?} byte by byte");
    }

    #[test]
    fn payload_ends_after_an_event_and_nothing_follows() {
        let mut payload = Payload::default();
        payload.track();
        assert_eq!(payload.pass(b"data: 1\n\nda"), b"data: 1\n\nda");
        payload.end();
        assert!(!payload.is_cut());
        assert_eq!(payload.pass(b"ta: 2\n"), b"ta: 2\n");
        assert_eq!(payload.pass(b"\ndata: 3\n\n"), b"\n");
        assert!(payload.is_cut());
        assert_eq!(payload.pass(b"data: 4\n\n"), b"");
    }

    #[test]
    fn payload_between_two_events_ends_at_once_and_other_payload_does_not_end() {
        let mut payload = Payload::default();
        payload.track();
        payload.pass(b"data: 1\n\n");
        payload.end();
        assert!(payload.is_cut());
        let mut other = Payload::default();
        other.end();
        assert_eq!(other.pass(b"data: 1\n\n"), b"data: 1\n\n");
        assert!(!other.is_cut());
    }

    #[test]
    fn events_end_at_an_empty_line() {
        check("", &[], true);
        check("data: 1\n\n", &[9], true);
        check("data: 1\r\n\r\n", &[11], true);
        check("data: 1\r\r", &[9], true);
        check("data: 1\n\ndata: 2\n\n", &[9, 18], true);
        check("id: 1\ndata: a\ndata: b\n\n", &[23], true);
        check("\n\r\n\r", &[1, 3, 4], true);
    }

    #[test]
    fn an_event_under_way_is_no_boundary() {
        check("d", &[], false);
        check("data: 1", &[], false);
        check("data: 1\n", &[], false);
        check("data: 1\r", &[], false);
        check("data: 1\r\n", &[], false);
        check("data: 1\n\nid: 2\n", &[9], false);
        check("data: 1\n:comment\n", &[], false);
    }

    #[test]
    fn line_ends_may_be_mixed() {
        check("data: 1\n\r\n", &[10], true);
        check("data: 1\r\n\n", &[10], true);
        check("data: 1\r\n\r", &[10], true);
        check("data: 1\n\r", &[9], true);
        check("data: 1\r\r\n", &[10], true);
        check("data: 1\r\r\ndata: 2", &[10], false);
    }

    #[test]
    fn a_comment_between_events_is_no_event() {
        check(":", &[], false);
        check(": ping", &[], false);
        check(": ping\n", &[], true);
        check(": ping\r", &[], true);
        check(": ping\r\n", &[], true);
        check(": ping\r\n\r\n", &[10], true);
        check(": ping\n: ping\n", &[], true);
        check(": ping\ndata: 1\n", &[], false);
        check(": ping\rdata: 1\n\n", &[16], true);
    }

    #[test]
    fn the_lf_of_a_cr_that_ended_an_event_belongs_to_it() {
        let mut events = Events::new();
        assert_eq!(events.next_boundary(b"data: 1\r\n\r"), Some(10));
        assert!(events.at_boundary());
        assert_eq!(events.next_boundary(b"\n"), None);
        assert!(events.at_boundary());
        assert_eq!(events.next_boundary(b"\n"), Some(1));
        assert_eq!(events.next_boundary(b"data: 2\r"), None);
        assert_eq!(events.next_boundary(b"\n"), None);
        assert!(!events.at_boundary());
        assert_eq!(events.next_boundary(b"\r\ndata: 3"), Some(2));
    }

    /// The standard's own words: lines first, then what an empty one ends.
    fn lines_then_events(stream: &str) -> Vec<usize> {
        let (mut ends, mut at) = (Vec::new(), 0);
        while let Some(length) = stream[at..].find(['\r', '\n']) {
            let end = at + length + if stream[at + length..].starts_with("\r\n") { 2 } else { 1 };
            if length == 0 {
                ends.push(end);
            }
            at = end;
        }
        ends
    }

    proptest! {
        #[test]
        fn agrees_with_splitting_into_lines(stream in "[ab:\r\n]{0,60}") {
            prop_assert_eq!(boundaries(stream.as_bytes()), lines_then_events(&stream));
        }

        #[test]
        fn any_split_gives_the_same(stream in "[ab:\r\n]{0,60}", cuts in prop::collection::vec(1usize..9, 1..20)) {
            let (mut split, mut whole) = (Events::new(), Events::new());
            whole.advance(stream.as_bytes());
            let (mut at, mut portions, mut found) = (0, cuts.iter().cycle(), Vec::new());
            while at < stream.len() {
                let end = (at + portions.next().unwrap()).min(stream.len());
                match split.next_boundary(&stream.as_bytes()[at..end]) {
                    Some(gone) => {
                        at += gone;
                        prop_assert!(split.at_boundary());
                        found.push(at);
                    }
                    None => at = end,
                }
            }
            prop_assert_eq!(split, whole);
            // Only an LF that comes later than its CR moves an end, by itself.
            let expect = lines_then_events(&stream);
            prop_assert_eq!(found.len(), expect.len());
            for (found, expect) in found.into_iter().zip(expect) {
                prop_assert!(found == expect || (found + 1 == expect && &stream[found - 1..expect] == "\r\n"));
            }
        }

        #[test]
        fn never_panics(stream in prop::collection::vec(any::<u8>(), 0..200)) {
            Events::new().advance(&stream);
        }
    }
}
