//! Books add up, whatever their order.

use super::symbols::Symbol;
use super::{Books, HOURS, InputBook, SAMPLES};

impl Books {
    /// Adds the books of another reader.
    pub fn merge(&mut self, mut other: Books) {
        other.settle_minute();
        self.settle_minute();
        let map: Vec<Symbol> = other.symbols.iter().map(|text| self.symbols.of(text)).collect();
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
            book.closes |= theirs.closes;
            book.keeps |= theirs.keeps;
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
        self.dropped += over(self.remarks.len(), self.room.notes)
            + over(self.events.len(), self.room.events)
            + over(self.pods.len(), self.room.events);
        self.remarks.truncate(self.room.notes);
        self.events.truncate(self.room.events);
        self.pods.truncate(self.room.events);
        self.masked += other.masked;
        self.client_left += other.client_left;
        self.policy += other.policy;
        self.dropped += other.dropped;
    }
}

impl InputBook {
    fn merge(&mut self, theirs: InputBook) {
        self.lines += theirs.lines;
        self.unparsed += theirs.unparsed;
        self.requests += theirs.requests;
        self.ids += theirs.ids;
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
