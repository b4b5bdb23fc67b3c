//! A hop that logged the lost request as answered. Which of all the answered ones that is can only be told once the losses are
//! known, so the inputs that name their requests are read again, for these ids alone.

use std::collections::{HashMap, HashSet};

use crate::books::{Books, key};
use crate::record::{Hop, Place, Signal};
use crate::time::{Micros, SECOND};

/// How far the two accounts may be apart: the same id later is another request.
const APART: Micros = 600 * SECOND;

/// An answer to a request that somebody else says is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Answer {
    /// Where it is said.
    pub place: Place,
    /// Of the request's id.
    pub id_key: u64,
    /// When it ended.
    pub end: Option<Micros>,
}

/// The ids that are looked for.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    ids: HashSet<u64>,
}

/// A key for an id as it is kept of a loss.
fn id_key(id: &[u8]) -> u64 {
    key(&[id])
}

impl Wanted {
    /// The ids of the losses.
    pub fn of(books: &Books) -> Wanted {
        let losses = books.losses.iter().filter(|loss| !loss.id.is_empty() && loss.weight == 1);
        Wanted { ids: losses.map(|loss| id_key(loss.id.as_bytes())).collect() }
    }

    /// Whether there is anything to look for.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The answer that a line tells of, if it is to one of these.
    pub fn look(&self, place: Place, hop: &Hop<'_>) -> Option<Answer> {
        if hop.id.is_empty() || !matches!(hop.signal, Signal::Answered) {
            return None;
        }
        let id_key = id_key(hop.id);
        self.ids.contains(&id_key).then_some(Answer { place, id_key, end: hop.end })
    }
}

/// Joins the answers to their losses; gives how many.
pub fn join(books: &mut Books, mut answers: Vec<Answer>) -> u64 {
    answers.sort_unstable();
    let mut by_id: HashMap<u64, Vec<Answer>> = HashMap::new();
    for answer in answers {
        by_id.entry(answer.id_key).or_default().push(answer);
    }
    let detail = books.symbols.of(b"closed before any answer, which the server's own log says it gave");
    let mut joined = 0;
    for loss in books.losses.iter_mut().filter(|loss| !loss.id.is_empty() && loss.weight == 1) {
        let Some(found) = by_id.get(&id_key(loss.id.as_bytes())) else { continue };
        let near = |answer: &&Answer| answer.end.is_none_or(|end| (end - loss.end).abs() <= APART);
        let places: Vec<Place> = found.iter().filter(near).map(|answer| answer.place).take(4).collect();
        // Where the hop that lost it tells of an answer too, somebody has sent it again, and the answer is to that.
        if places.is_empty() || places.iter().any(|place| place.input == loss.place.input) {
            continue;
        }
        joined += 1;
        // Whoever has answered a request had read it: the connection was no idle one.
        if loss.signal.is_closed_before_answer() && loss.packets.is_none() {
            loss.signal = Signal::CutMidAnswer;
            loss.detail = detail;
        }
        loss.also.extend(places);
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read::{Context, FORMATS, by_id};
    use crate::record::Line;

    #[test]
    fn the_server_says_that_it_answered() {
        let mut books = Books::default();
        let google = by_id("google-lb").unwrap();
        let line = FORMATS[google].example.replace("\"resource\"", "\"trace\":\"projects/p/traces/cc21\",\"resource\"");
        let said = (FORMATS[google].read)(line.as_bytes(), Context::default()).unwrap();
        books.enter(Place { input: 0, line: 1 }, google as u8, said);
        books.close();
        let wanted = Wanted::of(&books);
        let envoy = by_id("envoy-json").unwrap();
        let own =
            FORMATS[envoy].example.replace("503", "200").replace("URX,UF", "-").replace("upstream_reset_before", "via");
        let look = |own: &str| match (FORMATS[envoy].read)(own.as_bytes(), Context::default()) {
            Some(Line::Hop(hop)) => wanted.look(Place { input: 1, line: 9 }, &hop),
            other => panic!("{other:?}"),
        };
        assert_eq!(look(&own.replace("cc21", "another")), None);
        // Sent again: the same hop has both.
        let again = Answer { place: Place { input: 0, line: 2 }, ..look(&own).unwrap() };
        assert_eq!(join(&mut books, vec![look(&own).unwrap(), again]), 0);
        assert_eq!(join(&mut books, vec![look(&own).unwrap()]), 1);
        let seen: Vec<_> = books.losses.iter().map(|loss| (loss.signal, loss.also.clone())).collect();
        assert_eq!(seen, [(Signal::CutMidAnswer, vec![Place { input: 1, line: 9 }])]);
    }
}
