//! What is known of a server's address: how much was sent there, and in which seconds it answered.

use std::hash::Hasher;

use super::symbols::GOLDEN;
use crate::time::{Micros, SECOND};

/// What is known of one server's address.
#[derive(Debug, Clone, Default)]
pub struct Backend {
    /// Requests sent to it.
    pub requests: u64,
    /// When the last of the requests that it answered began: until then it accepted what came.
    pub last_begun: Option<Micros>,
    /// Hours, each with the seconds in which it answered.
    pub answered: Vec<(i64, Box<[u64; 57]>)>,
    /// Whether one of its answers said that the connection is closed after it.
    pub closes: bool,
    /// Whether one of them did not say so.
    pub keeps: bool,
    /// Its last answers.
    pub(super) recent: Recent,
}

/// The last answers of a server in the part of a log that is being read: when each began and ended. Parts are read side by side and
/// in any order, so that each begins anew: what is found does not depend on who reads which.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Recent {
    page: u64,
    next: u8,
    spans: [(Micros, Micros); 4],
}

impl Recent {
    /// An answer.
    pub(super) fn add(&mut self, page: u64, begun: Micros, end: Micros) {
        if self.page != page {
            *self = Recent { page, ..Recent::default() };
        }
        self.spans[usize::from(self.next)] = (begun, end);
        self.next = (self.next + 1) % self.spans.len() as u8;
    }

    /// Whether one of them began after `begun` and had ended by `end`.
    pub(super) fn within(&self, page: u64, begun: Micros, end: Micros) -> bool {
        self.page == page && self.spans.iter().any(|(from, to)| *from > begun && *to <= end)
    }
}

impl Backend {
    /// The last second in which it answered.
    pub fn last_answer(&self) -> Option<i64> {
        let (hour, bits) = self.answered.iter().max_by_key(|(hour, _)| *hour)?;
        let word = bits.iter().rposition(|word| *word != 0)?;
        Some(hour * 3600 + word as i64 * 64 + 63 - i64::from(bits[word].leading_zeros()))
    }

    /// Whether each of its answers said that the connection is closed after it: then whoever sends to it keeps no connection, and
    /// every request comes on a new one (RFC 9112, section 9.6).
    pub const fn keeps_none(&self) -> bool {
        self.closes && !self.keeps
    }

    /// Whether it answered in any second from `from` to `to`.
    pub fn answered_between(&self, from: Micros, to: Micros) -> bool {
        (from.div_euclid(SECOND)..=to.div_euclid(SECOND)).take(7200).any(|second| {
            let (hour, of_hour) = (second.div_euclid(3600), second.rem_euclid(3600) as usize);
            self.answered.iter().any(|(known, bits)| *known == hour && bits[of_hour / 64] >> (of_hour % 64) & 1 == 1)
        })
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
        self.0 = u64::from(number).wrapping_mul(GOLDEN);
    }
}
