//! Double-entry book-keeping of requests: `sent = answered + lost + unknown`, always.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Cause;

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "outcome")]
pub enum Outcome {
    /// A complete answer that is not a server error.
    Answered {
        /// The status.
        status: u16,
    },
    /// No answer, a truncated one, or a server error.
    Lost {
        /// Why.
        cause: Cause,
    },
    /// Its fate was still open when the watch ended.
    Unknown,
}

/// A request's number in its ledger, from 0, in the order of intended send times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestId(pub u64);

/// Refused entries: each would break the sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LedgerError {
    /// The request was never opened.
    NotOpened(RequestId),
    /// The request already has an outcome.
    AlreadySettled(RequestId),
}

impl std::fmt::Display for LedgerError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LedgerError::NotOpened(RequestId(id)) => write!(f, "request {id} was never opened in this ledger"),
            LedgerError::AlreadySettled(RequestId(id)) => write!(f, "request {id} already has an outcome"),
        }
    }
}

impl std::error::Error for LedgerError {}

/// One line a request.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    outcomes: Vec<Option<Outcome>>,
}

impl Ledger {
    /// Opens a request, before anything is sent for it.
    pub fn open(&mut self) -> RequestId {
        self.outcomes.push(None);
        RequestId(self.outcomes.len() as u64 - 1)
    }

    /// Enters a request's outcome, once.
    pub fn settle(&mut self, id: RequestId, outcome: Outcome) -> Result<(), LedgerError> {
        let slot = self.outcomes.get_mut(id.0 as usize).ok_or(LedgerError::NotOpened(id))?;
        if slot.is_some() {
            return Err(LedgerError::AlreadySettled(id));
        }
        *slot = Some(outcome);
        Ok(())
    }

    /// The balance. A request without an outcome is unknown.
    pub fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        for outcome in &self.outcomes {
            tally.add(outcome.unwrap_or(Outcome::Unknown));
        }
        tally
    }
}

/// The balance of a ledger.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Requests opened.
    pub sent: u64,
    /// Requests answered.
    pub answered: u64,
    /// Requests lost.
    pub lost: u64,
    /// Requests whose fate is open.
    pub unknown: u64,
    /// Lost requests by cause.
    pub causes: BTreeMap<Cause, u64>,
}

impl Tally {
    /// Counts one request.
    pub fn add(&mut self, outcome: Outcome) {
        self.sent += 1;
        match outcome {
            Outcome::Answered { .. } => self.answered += 1,
            Outcome::Lost { cause } => {
                self.lost += 1;
                *self.causes.entry(cause).or_default() += 1;
            }
            Outcome::Unknown => self.unknown += 1,
        }
    }

    /// Adds another balance to this one.
    pub fn merge(&mut self, other: &Tally) {
        self.sent += other.sent;
        self.answered += other.answered;
        self.lost += other.lost;
        self.unknown += other.unknown;
        for (cause, n) in &other.causes {
            *self.causes.entry(*cause).or_default() += n;
        }
    }

    /// Whether the books balance: `sent = answered + lost + unknown` and `lost` is the sum over the causes.
    pub fn balances(&self) -> bool {
        self.sent == self.answered + self.lost + self.unknown && self.lost == self.causes.values().sum::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn outcome() -> impl Strategy<Value = Outcome> {
        prop_oneof![
            (100u16..500).prop_map(|status| Outcome::Answered { status }),
            (0..Cause::ALL.len()).prop_map(|n| Outcome::Lost { cause: Cause::ALL[n] }),
            Just(Outcome::Unknown),
        ]
    }

    proptest! {
        /// Whatever is entered, in whatever order, twice or never: the books balance and nothing is counted twice.
        #[test]
        fn the_books_always_balance(opened in 0u64..60, entries in prop::collection::vec((0u64..80, outcome()), 0..200)) {
            let mut ledger = Ledger::default();
            for n in 0..opened {
                prop_assert_eq!(ledger.open(), RequestId(n));
            }
            let mut settled = std::collections::BTreeSet::new();
            for (id, outcome) in entries {
                let expect = match (id < opened, settled.insert(id)) {
                    (false, _) => Err(LedgerError::NotOpened(RequestId(id))),
                    (true, false) => Err(LedgerError::AlreadySettled(RequestId(id))),
                    (true, true) => Ok(()),
                };
                prop_assert_eq!(ledger.settle(RequestId(id), outcome), expect);
            }
            let tally = ledger.tally();
            prop_assert_eq!(tally.sent, opened);
            prop_assert!(tally.balances());
            let mut twice = tally.clone();
            twice.merge(&tally);
            prop_assert!(twice.balances());
        }
    }
}
