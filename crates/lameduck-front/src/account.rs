//! The books: every request is entered when it comes and settled once.

use std::net::IpAddr;
use std::rc::Rc;

use lameduck_core::front::{FrontPhase, Slot};

use crate::access::{self, Ended};
use crate::clock;
use crate::message::request::{Request, Told};
use crate::state::Front;

/// The request's entry in the books: it is in flight as long as this lives.
#[derive(Debug)]
pub struct Account {
    /// Whose it is.
    pub front: Rc<Front>,
    /// The request.
    pub request: Request,
    /// How often it was sent again.
    pub retries: u32,
    told: Option<Told>,
    client: IpAddr,
    phase: FrontPhase,
    at_us: u64,
    app_us: u64,
    held_us: u64,
    protocol: &'static str,
}

impl Account {
    /// Enters a request.
    pub fn open(
        front: &Rc<Front>,
        client: IpAddr,
        request: Request,
        told: Option<Told>,
        at_us: u64,
        protocol: &'static str,
    ) -> Account {
        let phase = front.phase();
        if request.probe {
            front.page.add(Slot::Probes, 1);
        } else {
            front.page.add(Slot::InFlight, 1);
            front.arrived(clock::coarse_ms(), client);
            front.page.add(
                match phase {
                    FrontPhase::Serving => Slot::RequestsServing,
                    FrontPhase::LameDuck => Slot::RequestsLameDuck,
                    FrontPhase::Closing | FrontPhase::Closed => Slot::RequestsClosing,
                },
                1,
            );
        }
        let front = Rc::clone(front);
        Account { front, request, told, client, phase, at_us, app_us: 0, held_us: 0, retries: 0, protocol }
    }

    /// The app's answer has begun.
    pub fn answer_began(&mut self) {
        if self.told.is_some() && self.app_us == 0 {
            self.app_us = clock::precise_us();
        }
    }

    /// The request was held since then.
    pub fn held_since(&mut self, us: u64) {
        self.held_us += self.clock_us().saturating_sub(us);
    }

    /// The clock, where anybody wants to know.
    pub fn clock_us(&self) -> u64 {
        if self.told.is_some() { clock::precise_us() } else { 0 }
    }

    /// A part of the answer was sent.
    pub fn sent(&self, now_ms: u64) {
        if !self.request.probe {
            self.front.page.set(Slot::LastSent, now_ms);
        }
    }

    /// It is sent again.
    pub fn retried(&mut self) {
        self.retries += 1;
        self.front.page.add(Slot::RetriedReused, 1);
    }

    /// Settles it: the whole answer is the app's.
    pub fn answered(self, status: u16) {
        if !self.request.probe && status >= 500 {
            self.front.page.add(Slot::AppErrors, 1);
        }
        self.close(Ended::Answered, status);
    }

    /// Settles it.
    pub fn close(self, ended: Ended, status: u16) {
        if !self.request.probe {
            self.front.page.add(ended.slot(), 1);
        }
        let (Some(log), Some(told)) = (&self.front.log, &self.told) else { return };
        let now = clock::precise_us();
        let seconds = |us: u64| us as f64 / 1e6;
        log.add(
            &access::Line {
                schema: access::SCHEMA,
                time: seconds(clock::wall_us().saturating_sub(now.saturating_sub(self.at_us))),
                id: &told.id,
                client: self.client,
                protocol: self.protocol,
                method: &told.method,
                target: &told.target,
                status,
                phase: self.phase.name(),
                probe: self.request.probe,
                ended,
                took_s: seconds(now.saturating_sub(self.at_us)),
                app_s: (self.app_us > 0).then(|| seconds(self.app_us.saturating_sub(self.at_us))),
                held_s: seconds(self.held_us),
                retries: self.retries,
            },
            self.front.page,
        );
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        if !self.request.probe {
            self.front.page.sub(Slot::InFlight, 1);
        }
    }
}
