//! What is kept of a stream: sums, the losses one by one up to a limit, and remarks and events. Books of several readers add up,
//! whatever their order, so that blocks can be read side by side.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, DefaultHasher, Hasher};

use crate::read::FORMATS;
use crate::record::{Event, Hop, Line, Note, Place, PodFacts, Signal};
use crate::time::{Micros, SECOND};

/// Losses kept one by one; those beyond are kept as sums of like ones.
const LOSSES: usize = 250_000;
/// Remarks kept.
const NOTES: usize = 250_000;
/// Events kept.
const EVENTS: usize = 100_000;
/// Sums of like losses.
const SUMS: usize = 100_000;
/// Distinct texts kept; the rest are "(others)".
const SYMBOLS: usize = 60_000;
/// The longest text kept.
const SYMBOL_BYTES: usize = 240;
/// Hours in which a server is known to have answered, over all servers.
const HOURS: usize = 60_000;
/// Minutes with their sums.
const MINUTES: usize = 400_000;
/// Unparsed lines shown of each input.
const SAMPLES: usize = 3;

/// A text, by number. 0 is the empty one.
pub type Symbol = u32;

/// Texts by number, boundedly many.
#[derive(Debug, Clone)]
pub struct Symbols {
    texts: Vec<Box<[u8]>>,
    numbers: HashMap<Box<[u8]>, Symbol>,
}

/// Stands for all texts that there was no room for.
const OTHERS: Symbol = 1;

impl Default for Symbols {
    fn default() -> Self {
        let mut symbols = Symbols { texts: Vec::new(), numbers: HashMap::new() };
        symbols.of(b"");
        symbols.of(b"(others)");
        symbols
    }
}

impl Symbols {
    /// The number of a text.
    pub fn of(&mut self, text: &[u8]) -> Symbol {
        let text = &text[..text.len().min(SYMBOL_BYTES)];
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        if self.texts.len() >= SYMBOLS {
            return OTHERS;
        }
        let number = self.texts.len() as Symbol;
        self.texts.push(text.into());
        self.numbers.insert(text.into(), number);
        number
    }

    /// The text.
    pub fn text(&self, number: Symbol) -> String {
        self.texts.get(number as usize).map_or_else(String::new, |text| clean(text))
    }

    /// The number of a known text.
    pub fn find(&self, text: &[u8]) -> Option<Symbol> {
        self.numbers.get(text).copied()
    }
}

/// A hash of our own numbers, which nobody else chooses.
#[derive(Debug, Clone, Default)]
pub struct Own(u64);

impl Hasher for Own {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0 << 8 | u64::from(*byte);
        }
    }

    fn write_u32(&mut self, number: u32) {
        // An odd constant near 2^64 divided by the golden ratio spreads neighbours.
        self.0 = u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// A text for people: UTF-8, without control characters.
pub fn clean(text: &[u8]) -> String {
    String::from_utf8_lossy(text).chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// A key for joining: the same text gives the same number within one program.
pub fn key(parts: &[&[u8]]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for part in parts {
        hasher.write(part);
        hasher.write_u8(0xff);
    }
    hasher.finish()
}

/// Idle facts of a lost request that a capture shows.
#[derive(Debug, Clone, PartialEq)]
pub struct Packets {
    /// How long the connection had been idle when the server closed it.
    pub idle: Option<Micros>,
    /// Requests answered on it before.
    pub before: u32,
    /// From the close to the request.
    pub crossed: Option<Micros>,
    /// What the packets show, in words.
    pub story: String,
    /// The frames: request, close, reset.
    pub frames: Vec<u64>,
    /// Both ends, `client -> server`.
    pub stream: String,
    /// The server's own words in earlier answers: `Keep-Alive`, `Server`.
    pub server: String,
}

/// A lost request, or many alike.
#[derive(Debug, Clone)]
pub struct Loss {
    /// Where it stands.
    pub place: Place,
    /// Its format's place in the table.
    pub format: u8,
    /// When it ended.
    pub end: Micros,
    /// How long it took.
    pub took: Option<Micros>,
    /// How long the server had it.
    pub server_took: Option<Micros>,
    /// The status sent.
    pub status: u16,
    /// What was seen.
    pub signal: Signal,
    /// The server.
    pub backend: Symbol,
    /// The service.
    pub service: Symbol,
    /// The route: method and the first parts of the path.
    pub route: Symbol,
    /// The log's words.
    pub detail: Symbol,
    /// The id.
    pub id: Box<str>,
    /// Of method and target.
    pub request_key: u64,
    /// Of the client.
    pub client_key: u64,
    /// Attempts of the hop.
    pub attempts: u16,
    /// Whether hop and server share a pod.
    pub same_pod: bool,
    /// How many requests it stands for.
    pub weight: u64,
    /// Other places that tell of it.
    pub also: Vec<Place>,
    /// What a capture shows of it.
    pub packets: Option<Box<Packets>>,
}

/// A remark.
#[derive(Debug, Clone)]
pub struct Remark {
    /// Where.
    pub place: Place,
    /// When.
    pub at: Micros,
    /// What was seen.
    pub signal: Signal,
    /// The server.
    pub backend: Symbol,
    /// The route.
    pub route: Symbol,
    /// The words.
    pub detail: Symbol,
    /// Of method and target.
    pub request_key: u64,
    /// Of the client.
    pub client_key: u64,
}

/// An event, with where it stands.
#[derive(Debug, Clone)]
pub struct Told {
    /// Where.
    pub place: Place,
    /// What.
    pub event: Event,
}

/// What is known of one input.
#[derive(Debug, Clone, Default)]
pub struct InputBook {
    /// Lines, objects or frames.
    pub lines: u64,
    /// Those that no format knows.
    pub unparsed: u64,
    /// Some of them: line and text.
    pub samples: Vec<(u64, String)>,
    /// Lines by format.
    pub formats: Vec<u64>,
    /// Requests.
    pub requests: u64,
    /// The first and the last time in it.
    pub span: Option<(Micros, Micros)>,
}

/// Sums of a minute.
#[derive(Debug, Clone, Copy, Default)]
pub struct Minute {
    /// Requests.
    pub requests: u64,
    /// Lost ones, before hops are matched.
    pub lost: u64,
}

/// What is known of one server's address.
#[derive(Debug, Clone, Default)]
pub struct Backend {
    /// Requests sent to it.
    pub requests: u64,
    /// When the last of the requests that it answered began: until then it accepted what came.
    pub last_begun: Option<Micros>,
    /// Hours, each with the seconds in which it answered.
    pub answered: Vec<(i64, Box<[u64; 57]>)>,
}

impl Backend {
    /// The last second in which it answered.
    pub fn last_answer(&self) -> Option<i64> {
        let (hour, bits) = self.answered.iter().max_by_key(|(hour, _)| *hour)?;
        let word = bits.iter().rposition(|word| *word != 0)?;
        Some(hour * 3600 + word as i64 * 64 + 63 - i64::from(bits[word].leading_zeros()))
    }

    /// Whether it answered in any second from `from` to `to`.
    pub fn answered_between(&self, from: Micros, to: Micros) -> bool {
        (from.div_euclid(SECOND)..=to.div_euclid(SECOND)).take(7200).any(|second| {
            let (hour, of_hour) = (second.div_euclid(3600), second.rem_euclid(3600) as usize);
            self.answered.iter().any(|(known, bits)| *known == hour && bits[of_hour / 64] >> (of_hour % 64) & 1 == 1)
        })
    }
}

/// Everything that is kept.
#[derive(Debug, Clone, Default)]
pub struct Books {
    /// Texts.
    pub symbols: Symbols,
    /// Inputs.
    pub inputs: Vec<InputBook>,
    /// Sums by format and minute.
    pub minutes: HashMap<(u8, i64), Minute>,
    /// Servers by the number of their address.
    pub backends: HashMap<Symbol, Backend, BuildHasherDefault<Own>>,
    /// Losses.
    pub losses: Vec<Loss>,
    sums: HashMap<(u8, Signal, Symbol, Symbol, i64, u8), Loss>,
    /// Remarks.
    pub remarks: Vec<Remark>,
    /// Events.
    pub events: Vec<Told>,
    /// Pods.
    pub pods: Vec<(Place, PodFacts)>,
    /// Requests that failed at one server and were answered by another.
    pub masked: u64,
    /// Requests whose client left.
    pub client_left: u64,
    /// Requests that a hop's own rule ended.
    pub policy: u64,
    /// What there was no room for.
    pub dropped: u64,
    hours: usize,
    minute: Option<((u8, i64), Minute)>,
}

/// A quarter of a decade: losses of like duration are alike.
fn class(took: Option<Micros>) -> u8 {
    took.map_or(255, |took| ((took.max(1) as f64).log10() * 4.0) as u8)
}

/// A target without scheme and host, which one hop logs and another does not.
fn path(target: &[u8]) -> &[u8] {
    memchr::memmem::find(target, b"://").map_or(target, |at| {
        let rest = &target[at + 3..];
        &rest[memchr::memchr(b'/', rest).unwrap_or(rest.len())..]
    })
}

/// Method and the first parts of the path, with numbers and ids left out.
fn route(method: &[u8], target: &[u8]) -> Vec<u8> {
    let path = path(target);
    let path = &path[..memchr::memchr2(b'?', b'#', path).unwrap_or(path.len())];
    let mut out = method.to_vec();
    out.push(b' ');
    for part in path.split(|byte| *byte == b'/').skip(1).take(3) {
        out.push(b'/');
        let id = part.len() > 20 || part.iter().any(u8::is_ascii_digit) && !part.starts_with(b"v");
        out.extend_from_slice(if id { b"*" } else { part });
    }
    if out.ends_with(b" ") {
        out.push(b'/');
    }
    out
}

impl Books {
    /// The book of an input.
    pub fn input(&mut self, input: u16) -> &mut InputBook {
        let place = usize::from(input);
        if self.inputs.len() <= place {
            self.inputs.resize_with(place + 1, InputBook::default);
        }
        let book = &mut self.inputs[place];
        if book.formats.is_empty() {
            book.formats = vec![0; FORMATS.len() + 2];
        }
        book
    }

    /// Enters a line that a format has read.
    pub fn enter(&mut self, place: Place, format: u8, line: Line<'_>) {
        self.input(place.input).formats[usize::from(format)] += 1;
        match line {
            Line::Hop(hop) => self.hop(place, format, &hop),
            Line::Note(note) => self.note(place, &note),
            Line::Events(events) => {
                for event in events {
                    self.spread(place.input, event.at);
                    if self.events.len() < EVENTS {
                        self.events.push(Told { place, event });
                    } else {
                        self.dropped += 1;
                    }
                }
            }
            Line::Pod(facts) => {
                if self.pods.len() < EVENTS {
                    self.pods.push((place, *facts));
                } else {
                    self.dropped += 1;
                }
            }
            Line::Nothing => {}
        }
    }

    /// Enters a line that no format knows.
    pub fn unparsed(&mut self, place: Place, line: &[u8]) {
        let book = self.input(place.input);
        book.unparsed += 1;
        if book.samples.len() < SAMPLES {
            book.samples.push((place.line, clean(&line[..line.len().min(160)])));
        }
    }

    fn spread(&mut self, input: u16, at: Micros) {
        let book = self.input(input);
        book.span = Some(book.span.map_or((at, at), |(first, last)| (first.min(at), last.max(at))));
    }

    fn hop(&mut self, place: Place, format: u8, hop: &Hop<'_>) {
        let end = hop.end.unwrap_or(0);
        let book = self.input(place.input);
        book.requests += 1;
        book.span = Some(book.span.map_or((end, end), |(first, last)| (first.min(end), last.max(end))));
        let lost = hop.signal.is_loss();
        self.count_minute(format, end, lost);
        let backend = self.symbols.of(hop.backend);
        if backend > OTHERS {
            let answered = matches!(hop.signal, Signal::Answered | Signal::AppError);
            self.see_backend(backend, end, answered, hop.took);
        }
        match hop.signal {
            Signal::Answered => self.masked += u64::from(hop.attempts > 1),
            Signal::ClientLeft => self.client_left += 1,
            Signal::Policy => self.policy += 1,
            Signal::AppError
            | Signal::Refused
            | Signal::Unroutable
            | Signal::ConnectTimeout
            | Signal::ConnectFailed
            | Signal::ClosedBeforeAnswer
            | Signal::CutMidAnswer
            | Signal::Timeout
            | Signal::NoServer
            | Signal::Overload
            | Signal::Failed
            | Signal::ClosedIdle
            | Signal::ClosedUnanswered
            | Signal::Silent => {
                let entry = self.loss(place, format, hop, backend);
                self.add(entry);
            }
        }
    }

    fn count_minute(&mut self, format: u8, end: Micros, lost: bool) {
        let at = (format, end.div_euclid(60 * SECOND));
        if let Some((known, sums)) = &mut self.minute
            && *known == at
        {
            sums.requests += 1;
            sums.lost += u64::from(lost);
            return;
        }
        self.settle_minute();
        self.minute = Some((at, Minute { requests: 1, lost: u64::from(lost) }));
    }

    fn settle_minute(&mut self) {
        if let Some((at, sums)) = self.minute.take() {
            self.add_minute(at, sums);
        }
    }

    fn add_minute(&mut self, at: (u8, i64), sums: Minute) {
        // A log whose times are all over the place has them as one.
        let at = if self.minutes.len() < MINUTES || self.minutes.contains_key(&at) { at } else { (at.0, 0) };
        let minute = self.minutes.entry(at).or_default();
        minute.requests += sums.requests;
        minute.lost += sums.lost;
    }

    fn see_backend(&mut self, backend: Symbol, end: Micros, answered: bool, took: Option<Micros>) {
        let book = self.backends.entry(backend).or_default();
        book.requests += 1;
        if !answered {
            return;
        }
        if let Some(took) = took {
            book.last_begun = book.last_begun.max(Some(end.saturating_sub(took)));
        }
        let second = end.div_euclid(SECOND);
        let (hour, of_hour) = (second.div_euclid(3600), second.rem_euclid(3600) as usize);
        let place = match book.answered.iter().rposition(|(known, _)| *known == hour) {
            Some(place) => place,
            None if self.hours < HOURS => {
                self.hours += 1;
                book.answered.push((hour, Box::new([0; 57])));
                book.answered.len() - 1
            }
            None => return,
        };
        book.answered[place].1[of_hour / 64] |= 1 << (of_hour % 64);
    }

    fn loss(&mut self, place: Place, format: u8, hop: &Hop<'_>, backend: Symbol) -> Loss {
        Loss {
            place,
            format,
            end: hop.end.unwrap_or(0),
            took: hop.took,
            server_took: hop.server_took,
            status: hop.status,
            signal: hop.signal,
            backend,
            service: self.symbols.of(hop.service),
            route: self.symbols.of(&route(hop.method, hop.target)),
            detail: self.symbols.of(hop.detail),
            id: clean(&hop.id[..hop.id.len().min(128)]).into_boxed_str(),
            request_key: key(&[hop.method, path(hop.target)]),
            client_key: key(&[host(hop.client)]),
            attempts: hop.attempts,
            same_pod: hop.same_pod,
            weight: 1,
            also: Vec::new(),
            packets: None,
        }
    }

    /// Enters a loss; beyond the limit it joins one that is like it.
    pub fn add(&mut self, loss: Loss) {
        if self.losses.len() < LOSSES {
            self.losses.push(loss);
            return;
        }
        let minute = loss.end.div_euclid(60 * SECOND);
        let like = (loss.format, loss.signal, loss.backend, loss.service, minute, class(loss.took));
        let like = if self.sums.len() < SUMS || self.sums.contains_key(&like) {
            like
        } else {
            (loss.format, loss.signal, OTHERS, OTHERS, 0, 0)
        };
        let weight = loss.weight;
        self.sums.entry(like).and_modify(|sum| sum.weight += weight).or_insert(loss);
    }

    fn note(&mut self, place: Place, note: &Note<'_>) {
        self.spread(place.input, note.at);
        if !note.signal.is_loss() || self.remarks.len() >= NOTES {
            self.dropped += u64::from(note.signal.is_loss());
            return;
        }
        let remark = Remark {
            place,
            at: note.at,
            signal: note.signal,
            backend: self.symbols.of(note.backend),
            route: self.symbols.of(&route(note.method, note.target)),
            detail: self.symbols.of(note.detail),
            request_key: key(&[note.method, path(note.target)]),
            client_key: key(&[host(note.client)]),
        };
        self.remarks.push(remark);
    }

    /// Adds the books of another reader.
    pub fn merge(&mut self, mut other: Books) {
        other.settle_minute();
        self.settle_minute();
        let map: Vec<Symbol> = other.symbols.texts.iter().map(|text| self.symbols.of(text)).collect();
        let of = |symbol: Symbol| map[symbol as usize];
        for (input, theirs) in other.inputs.into_iter().enumerate() {
            self.input(input as u16).merge(theirs);
        }
        for (at, sums) in other.minutes {
            self.add_minute(at, sums);
        }
        for (backend, theirs) in other.backends {
            let book = self.backends.entry(of(backend)).or_default();
            book.requests += theirs.requests;
            book.last_begun = book.last_begun.max(theirs.last_begun);
            for (hour, bits) in theirs.answered {
                match book.answered.iter_mut().find(|(known, _)| *known == hour) {
                    Some((_, ours)) => ours.iter_mut().zip(bits.iter()).for_each(|(ours, theirs)| *ours |= theirs),
                    None if self.hours < HOURS => {
                        self.hours += 1;
                        book.answered.push((hour, bits));
                    }
                    None => {}
                }
            }
        }
        for mut loss in other.losses.into_iter().chain(other.sums.into_values()) {
            for symbol in [&mut loss.backend, &mut loss.service, &mut loss.route, &mut loss.detail] {
                *symbol = of(*symbol);
            }
            self.add(loss);
        }
        for mut remark in other.remarks {
            for symbol in [&mut remark.backend, &mut remark.route, &mut remark.detail] {
                *symbol = of(*symbol);
            }
            self.remarks.push(remark);
        }
        self.events.extend(other.events);
        self.pods.extend(other.pods);
        let over = |len: usize, most: usize| len.saturating_sub(most) as u64;
        self.dropped +=
            over(self.remarks.len(), NOTES) + over(self.events.len(), EVENTS) + over(self.pods.len(), EVENTS);
        self.remarks.truncate(NOTES);
        self.events.truncate(EVENTS);
        self.pods.truncate(EVENTS);
        self.masked += other.masked;
        self.client_left += other.client_left;
        self.policy += other.policy;
        self.dropped += other.dropped;
    }

    /// Puts all in order of time; nothing can be entered after it.
    pub fn close(&mut self) {
        self.settle_minute();
        self.losses.extend(std::mem::take(&mut self.sums).into_values());
        self.losses.sort_by_key(|loss| (loss.end, loss.place));
        self.remarks.sort_by_key(|remark| (remark.at, remark.place));
        self.events.sort_by_key(|told| (told.event.at, told.place));
    }
}

impl InputBook {
    fn merge(&mut self, theirs: InputBook) {
        self.lines += theirs.lines;
        self.unparsed += theirs.unparsed;
        self.requests += theirs.requests;
        self.samples.extend(theirs.samples);
        self.samples.sort();
        self.samples.truncate(SAMPLES);
        for (ours, theirs) in self.formats.iter_mut().zip(theirs.formats) {
            *ours += theirs;
        }
        self.span = match (self.span, theirs.span) {
            (Some((a, b)), Some((c, d))) => Some((a.min(c), b.max(d))),
            (ours, theirs) => ours.or(theirs),
        };
    }
}

/// An address without its port, and without brackets.
pub fn host(address: &[u8]) -> &[u8] {
    if let Some(inner) = address.strip_prefix(b"[") {
        return &inner[..memchr::memchr(b']', inner).unwrap_or(inner.len())];
    }
    match memchr::memchr(b':', address) {
        // More than one colon is IPv6.
        Some(at) if memchr::memchr(b':', &address[at + 1..]).is_none() => &address[..at],
        Some(_) | None => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_has_no_ids() {
        let check = |target: &str, expect: &str| {
            assert_eq!(String::from_utf8(route(b"GET", target.as_bytes())).unwrap(), expect);
        };
        check("https://example.com/api/v1/users/17?x=1", "GET /api/v1/users");
        check("/tasks/8f3a/artifacts", "GET /tasks/*/artifacts");
        check("/", "GET /");
        check("https://example.com", "GET /");
    }

    #[test]
    fn hosts() {
        let check = |text: &str, expect: &str| assert_eq!(host(text.as_bytes()), expect.as_bytes());
        check("10.0.0.4:80", "10.0.0.4");
        check("[fe80::1]:80", "fe80::1");
        check("fe80::1", "fe80::1");
        check("web-1", "web-1");
    }

    #[test]
    fn beyond_the_limit_losses_are_counted_by_likeness() {
        let mut books = Books::default();
        let hop = Hop {
            signal: Signal::Refused,
            status: 502,
            end: Some(1_000_000_000),
            backend: b"10.0.0.4:80",
            ..Hop::EMPTY
        };
        let all = LOSSES as u64 + 5000;
        for line in 0..all {
            books.enter(Place { input: 0, line }, 0, Line::Hop(hop));
        }
        let mut whole = Books::default();
        whole.merge(books);
        whole.close();
        assert_eq!(whole.losses.iter().map(|loss| loss.weight).sum::<u64>(), all);
        assert!(whole.losses.len() <= LOSSES + 1);
    }
}
