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
