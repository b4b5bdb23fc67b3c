//! The books of a run: every attempt, entered before anything is sent for it.

use std::time::Duration;

use lameduck_core::judge::{Attempt, Connection, Ending};

use crate::evidence::AttemptId;
use crate::wire::exchange::ClosedBy;

/// Everything known of one attempt.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) id: AttemptId,
    /// The place of its template in the mix.
    pub(crate) template: usize,
    pub(crate) replica: usize,
    /// When it was meant to be sent.
    pub(crate) intended: Duration,
    /// What the law judges.
    pub(crate) attempt: Attempt,
    /// Which of all connections; none where none was made.
    pub(crate) connection: Option<u64>,
    pub(crate) bytes_out: u64,
    pub(crate) closed_by: Option<ClosedBy>,
    /// The status, also of an answer that was cut.
    pub(crate) status: Option<u16>,
    /// Whether the head of the answer carried the id back.
    pub(crate) echoed: bool,
}

/// A request that nothing was routed to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Nowhere {
    pub(crate) number: u64,
    pub(crate) template: usize,
    pub(crate) at: Duration,
}

/// All records of a run, and what was not sent.
#[derive(Debug, Default)]
pub(crate) struct Book {
    pub(crate) records: Vec<Record>,
    /// Requests whose turn came.
    pub(crate) scheduled: u64,
    /// Requests that nothing was routed to.
    pub(crate) unrouted: u64,
    /// Which they were.
    pub(crate) nowhere: Vec<Nowhere>,
    /// Requests for which no connection was left, or none could be made on this side.
    pub(crate) dropped: u64,
    /// Idle connections found closed by the server in time, and so not used.
    pub(crate) noticed_closes: u64,
    /// Why this side could not open a connection, the first time.
    pub(crate) own_fault: Option<String>,
    pub(crate) answered: u64,
    pub(crate) failed: u64,
    pub(crate) sent: u64,
}

impl Book {
    /// Enters an attempt. Its end is open.
    pub(crate) fn open(&mut self, record: Record) -> usize {
        self.sent += u64::from(record.id.1 == 0);
        self.records.push(record);
        self.records.len() - 1
    }

    /// Counts a first attempt that has ended.
    pub(crate) fn count(&mut self, place: usize) {
        let record = &self.records[place];
        if record.id.1 > 0 {
            return;
        }
        match record.attempt.ending {
            Ending::Complete { status } if status < 500 => self.answered += 1,
            Ending::Complete { .. }
            | Ending::Fin
            | Ending::Rst
            | Ending::TimedOut
            | Ending::NotProcessed
            | Ending::Aborted
            | Ending::Malformed => {
                self.failed += 1;
            }
            Ending::Pending => {}
        }
    }
}

/// An attempt that has begun.
pub(crate) fn begun(at: Duration, connection: Connection) -> Attempt {
    Attempt { began: at, ended: at, connection, ending: Ending::Pending, bytes_in: 0 }
}
