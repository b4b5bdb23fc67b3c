//! The pool of connections that many exchanges share: HTTP/2. Endpoints are chosen by the same router and removed from it
//! with the same lag; what a profile says of a pool holds here as far as it can.

use std::rc::Rc;
use std::time::Duration;

use crate::load::{Counted, Wire};
use crate::profile::{Pooling, Profile};
use crate::router::{EndpointId, Router};
use crate::wire::h2::Link;

/// A connection with what its pool must know.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) link: Link,
    /// Which of all connections of the run it is.
    pub(crate) id: u64,
    pub(crate) endpoint: EndpointId,
    /// When it was opened.
    pub(crate) opened: Duration,
    pub(crate) _counted: Counted,
}

/// What the next exchange takes.
#[derive(Debug)]
pub(crate) enum Place {
    /// A stream of this connection.
    Stream(Rc<Lane>),
    /// A new connection to this endpoint.
    Connect(EndpointId),
    /// Nothing: no endpoint is routed to, and no connection is left.
    Nowhere,
}

/// The pool.
#[derive(Debug)]
pub(crate) struct Links {
    profile: Profile,
    lanes: Vec<Rc<Lane>>,
}

impl Links {
    pub(crate) fn new(profile: Profile) -> Links {
        Links { profile, lanes: Vec::new() }
    }

    pub(crate) fn add(&mut self, lane: Rc<Lane>) {
        self.lanes.push(lane);
    }

    /// Routing has heard that the endpoint is gone. A connection with exchanges under way is closed when they have ended.
    pub(crate) fn remove(&mut self, endpoint: EndpointId) -> Vec<Rc<Lane>> {
        match self.profile.pooling {
            Pooling::PerEndpointClosed => self.lanes.extract_if(.., |lane| lane.endpoint == endpoint).collect(),
            Pooling::PerEndpointLeft | Pooling::PerService => Vec::new(),
        }
    }

    /// Chooses for the next exchange, and gives up what can carry none any more. `avoid` is the endpoint that has just
    /// failed it.
    pub(crate) fn take(
        &mut self,
        router: &mut Router<Wire>,
        now: Duration,
        avoid: Option<EndpointId>,
    ) -> (Place, Vec<Rc<Lane>>) {
        let profile = self.profile;
        let given_up = |lane: &mut Rc<Lane>| {
            let link = &lane.link;
            let expired = link.streams() == 0 && now.saturating_sub(link.idle_since.get()) >= profile.idle_timeout;
            let worn = profile.max_requests.is_some_and(|most| link.answered.get() >= most)
                || profile.max_age.is_some_and(|oldest| now.saturating_sub(lane.opened) >= oldest);
            link.is_leaving() || expired || worn
        };
        let given_up = self.lanes.extract_if(.., given_up).collect();
        // The last opened first, as HTTP/1.1 takes the last used.
        let with_room = |endpoint: Option<EndpointId>| {
            let of_it = |lane: &&Rc<Lane>| endpoint.is_none_or(|endpoint| lane.endpoint == endpoint);
            self.lanes.iter().rev().filter(of_it).find(|lane| lane.link.has_room()).map(Rc::clone)
        };
        let place = match profile.pooling {
            Pooling::PerService => with_room(None).map(Place::Stream),
            Pooling::PerEndpointClosed | Pooling::PerEndpointLeft => None,
        };
        let place = place.unwrap_or_else(|| match router.choose(avoid) {
            None => Place::Nowhere,
            Some(chosen) => {
                let own = if profile.pooling == Pooling::PerService { None } else { with_room(Some(chosen)) };
                own.map_or(Place::Connect(chosen), Place::Stream)
            }
        });
        (place, given_up)
    }
}
