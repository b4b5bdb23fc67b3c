//! What is kept of a stream: sums, the losses one by one up to a limit, and remarks and events. Books of several readers add up,
//! whatever their order, so that blocks can be read side by side.

mod backend;
mod loss;
mod merge;
mod symbols;

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

pub use backend::{Backend, Own};
pub use loss::{Loss, Packets, Remark};
pub use symbols::{Symbol, Symbols, clean, host, key};

use crate::read::FORMATS;
use crate::record::{Event, Hop, Line, Note, Place, PodFacts, Signal};
use crate::time::{Micros, SECOND};
use loss::{class, path, route};
use symbols::OTHERS;

/// How much is kept.
#[derive(Debug, Clone, Copy)]
struct Room {
    /// Losses one by one; those beyond are kept as sums of like ones.
    losses: usize,
    /// Sums of like losses.
    sums: usize,
    /// Remarks.
    notes: usize,
    /// Events, and as many pods.
    events: usize,
}

impl Room {
    const ALL: Room = Room { losses: 250_000, sums: 100_000, notes: 250_000, events: 100_000 };
}

impl Default for Room {
    fn default() -> Self {
        Room::ALL
    }
}

/// Hours in which a server is known to have answered, over all servers.
const HOURS: usize = 60_000;
/// Logs round begin and end to milliseconds.
pub const ROUNDING: Micros = 2_000;
/// Minutes with their sums.
const MINUTES: usize = 400_000;
/// The longest text kept of an event or of a pod.
const WORDS: usize = 400;
/// Unparsed lines shown of each input.
const SAMPLES: usize = 3;

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
    /// Those that are named by an id.
    pub ids: u64,
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
    room: Room,
    hours: usize,
    minute: Option<((u8, i64), Minute)>,
    /// Counts the parts of logs, each of which is read by one reader from its beginning to its end.
    page: u64,
}

/// At most [`WORDS`] bytes of it: whoever writes an event's message may write any amount.
fn clip(text: &mut String) {
    if text.len() > WORDS {
        text.truncate(text.floor_char_boundary(WORDS));
        text.shrink_to_fit();
    }
}

impl Books {
    /// The books of one of so many readers, which together keep as much as one would.
    pub fn of_one_in(readers: usize) -> Books {
        let share = |all: usize| all / readers.max(1);
        let all = Room::ALL;
        let room = Room {
            losses: share(all.losses),
            sums: share(all.sums),
            notes: share(all.notes),
            events: share(all.events),
        };
        Books { room, ..Books::default() }
    }

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

    /// Another part of a log begins, which may be read by anybody.
    pub fn turn_page(&mut self) {
        self.page += 1;
    }

    /// Enters a line that a format has read.
    pub fn enter(&mut self, place: Place, format: u8, line: Line<'_>) {
        self.input(place.input).formats[usize::from(format)] += 1;
        match line {
            Line::Hop(hop) => self.hop(place, format, &hop),
            Line::Note(note) => self.note(place, &note),
            Line::Events(events) => {
                for mut event in events {
                    self.spread(place.input, event.at);
                    if self.events.len() < self.room.events {
                        clip(&mut event.subject);
                        clip(&mut event.words);
                        self.events.push(Told { place, event });
                    } else {
                        self.dropped += 1;
                    }
                }
            }
            Line::Pod(mut facts) => {
                if self.pods.len() < self.room.events {
                    let others = [&mut facts.ip, &mut facts.node, &mut facts.reason];
                    others.into_iter().flatten().chain([&mut facts.name]).for_each(clip);
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
        book.ids += u64::from(!hop.id.is_empty());
        if let Some(end) = hop.end {
            book.span = Some(book.span.map_or((end, end), |(first, last)| (first.min(end), last.max(end))));
        }
        let lost = hop.signal.is_loss();
        self.count_minute(format, end, lost);
        let backend = self.symbols.of(hop.backend);
        if backend > OTHERS {
            let answered = matches!(hop.signal, Signal::Answered | Signal::AppError);
            self.see_backend(backend, end, answered, hop);
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
            | Signal::FinBeforeAnswer
            | Signal::ResetBeforeAnswer
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

    fn see_backend(&mut self, backend: Symbol, end: Micros, answered: bool, hop: &Hop<'_>) {
        let book = self.backends.entry(backend).or_default();
        book.requests += 1;
        if !answered {
            return;
        }
        book.closes |= hop.closes;
        book.keeps |= !hop.closes;
        if let Some(took) = hop.took {
            let begun = end.saturating_sub(took);
            book.last_begun = book.last_begun.max(Some(begun));
            book.recent.add(self.page, begun, end);
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
        let overtaken = match (self.backends.get(&backend), hop.end, hop.took) {
            (Some(book), Some(end), Some(took)) => {
                book.recent.within(self.page, end.saturating_sub(took).saturating_add(ROUNDING), end)
            }
            (_, _, _) => false,
        };
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
            overtaken,
            weight: 1,
            also: Vec::new(),
            packets: None,
        }
    }

    /// Enters a loss; beyond the limit it joins one that is like it.
    pub fn add(&mut self, loss: Loss) {
        if self.losses.len() < self.room.losses {
            self.losses.push(loss);
            return;
        }
        let minute = loss.end.div_euclid(60 * SECOND);
        let like = (loss.format, loss.signal, loss.backend, loss.service, minute, class(loss.took));
        let like = if self.sums.len() < self.room.sums || self.sums.contains_key(&like) {
            like
        } else {
            (loss.format, loss.signal, OTHERS, OTHERS, 0, 0)
        };
        let weight = loss.weight;
        self.sums.entry(like).and_modify(|sum| sum.weight += weight).or_insert(loss);
    }

    fn note(&mut self, place: Place, note: &Note<'_>) {
        self.spread(place.input, note.at);
        if !note.signal.is_loss() || self.remarks.len() >= self.room.notes {
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

    /// Puts all in order of time; nothing can be entered after it.
    pub fn close(&mut self) {
        self.settle_minute();
        self.losses.extend(std::mem::take(&mut self.sums).into_values());
        self.losses.sort_by_key(|loss| (loss.end, loss.place));
        self.remarks.sort_by_key(|remark| (remark.at, remark.place));
        self.events.sort_by_key(|told| (told.event.at, told.place));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let all = Room::ALL.losses as u64 + 5000;
        for line in 0..all {
            books.enter(Place { input: 0, line }, 0, Line::Hop(hop));
        }
        let mut whole = Books::default();
        whole.merge(books);
        whole.close();
        assert_eq!(whole.losses.iter().map(|loss| loss.weight).sum::<u64>(), all);
        assert!(whole.losses.len() <= Room::ALL.losses + 1);
    }
}
