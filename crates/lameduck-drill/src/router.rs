//! Which endpoint, and which connection to it, the next request takes: the routing lane, as one profile sees it.

use std::collections::VecDeque;
use std::time::Duration;

use crate::profile::{Pooling, Profile, Reuse};
use crate::rng::Rng;

/// A place of the routing table, in the order added.
pub(crate) type EndpointId = usize;

/// Where an endpoint stands in the routing table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Routing {
    /// Gets requests.
    In,
    /// Its end has been asked for, but routing has not heard yet: gets requests like any other.
    Leaving,
    /// Gets no new connection.
    Out,
}

/// A connection with what its pool must know.
#[derive(Debug)]
pub(crate) struct Pooled<C> {
    pub(crate) connection: C,
    /// Which of all connections of the run it is, from 0.
    pub(crate) id: u64,
    pub(crate) endpoint: EndpointId,
    /// When it was opened.
    pub(crate) opened: Duration,
    /// When its last answer ended.
    pub(crate) idle_since: Duration,
    /// Requests answered on it.
    pub(crate) answered: u32,
}

#[derive(Debug)]
struct Endpoint<C> {
    routing: Routing,
    idle: VecDeque<Pooled<C>>,
}

/// What the next request takes.
#[derive(Debug)]
pub(crate) enum Target<C> {
    /// An idle connection.
    Reuse(Pooled<C>),
    /// A new connection to this endpoint.
    Connect(EndpointId),
    /// Nothing: no endpoint is routed to, and no connection is left.
    Nowhere,
}

/// The routing table and its pools, generic in the connection so that its laws can be tested without one.
#[derive(Debug)]
pub(crate) struct Router<C> {
    profile: Profile,
    endpoints: Vec<Endpoint<C>>,
    turn: usize,
    rng: Rng,
}

impl<C> Router<C> {
    pub(crate) fn new(profile: Profile, seed: u64) -> Router<C> {
        Router { profile, endpoints: Vec::new(), turn: 0, rng: Rng::new(seed) }
    }

    /// Adds an endpoint that gets no requests yet.
    pub(crate) fn add(&mut self) -> EndpointId {
        self.endpoints.push(Endpoint { routing: Routing::Out, idle: VecDeque::new() });
        self.endpoints.len() - 1
    }

    /// Routing has heard that the endpoint is ready.
    pub(crate) fn route(&mut self, id: EndpointId) {
        self.endpoints[id].routing = Routing::In;
    }

    /// The endpoint's end was asked for. It stays a target until [`Router::remove`].
    pub(crate) fn leave(&mut self, id: EndpointId) {
        if self.endpoints[id].routing == Routing::In {
            self.endpoints[id].routing = Routing::Leaving;
        }
    }

    /// Routing has heard that the endpoint is gone. Returns the idle connections that are closed with it.
    pub(crate) fn remove(&mut self, id: EndpointId) -> Vec<Pooled<C>> {
        let endpoint = &mut self.endpoints[id];
        endpoint.routing = Routing::Out;
        match self.profile.pooling {
            Pooling::PerEndpointClosed => endpoint.idle.drain(..).collect(),
            Pooling::PerEndpointLeft | Pooling::PerService => Vec::new(),
        }
    }

    /// Chooses for the next request. `avoid` is the endpoint that has just failed it: another is taken where there is one.
    /// `usable` looks at an idle connection before it is reused; those that are not are returned to be counted.
    pub(crate) fn take(
        &mut self,
        now: Duration,
        avoid: Option<EndpointId>,
        mut usable: impl FnMut(&C) -> bool,
    ) -> (Target<C>, Vec<Pooled<C>>) {
        let mut discarded = self.expire(now);
        if self.profile.pooling == Pooling::PerService {
            while let Some(pooled) = self.take_from_service() {
                if usable(&pooled.connection) {
                    return (Target::Reuse(pooled), discarded);
                }
                discarded.push(pooled);
            }
        }
        let Some(chosen) = self.choose(avoid) else { return (Target::Nowhere, discarded) };
        if self.profile.pooling != Pooling::PerService {
            while let Some(pooled) = self.take_from_endpoint(chosen) {
                if usable(&pooled.connection) {
                    return (Target::Reuse(pooled), discarded);
                }
                discarded.push(pooled);
            }
        }
        (Target::Connect(chosen), discarded)
    }

    /// Takes a particular idle connection out, by its id; one that has been idle for too long is no longer there.
    pub(crate) fn take_connection(&mut self, connection: u64, now: Duration) -> Option<Pooled<C>> {
        let timeout = self.profile.idle_timeout;
        self.endpoints.iter_mut().find_map(|endpoint| {
            let kept = |pooled: &Pooled<C>| now.saturating_sub(pooled.idle_since) < timeout;
            let place = endpoint.idle.iter().position(|pooled| pooled.id == connection && kept(pooled))?;
            endpoint.idle.remove(place)
        })
    }

    /// The ids of all idle connections that a request may be sent on, and since when they are idle.
    pub(crate) fn idle(&self) -> Vec<(u64, Duration)> {
        self.endpoints
            .iter()
            .filter(|endpoint| endpoint.routing != Routing::Out || self.profile.pooling == Pooling::PerService)
            .flat_map(|endpoint| endpoint.idle.iter().map(|pooled| (pooled.id, pooled.idle_since)))
            .collect()
    }

    /// The idle connections to one endpoint.
    pub(crate) fn idle_at(&self, id: EndpointId) -> impl Iterator<Item = &Pooled<C>> {
        self.endpoints[id].idle.iter()
    }

    /// Gives a connection back after an answer. Returns the one that is closed because of it, if one is.
    pub(crate) fn give_back(&mut self, pooled: Pooled<C>, now: Duration) -> Option<Pooled<C>> {
        let profile = &self.profile;
        let worn = profile.max_requests.is_some_and(|most| pooled.answered >= most)
            || profile.max_age.is_some_and(|oldest| now.saturating_sub(pooled.opened) >= oldest);
        let endpoint = &self.endpoints[pooled.endpoint];
        let unrouted = endpoint.routing == Routing::Out && profile.pooling != Pooling::PerService;
        let kept = match profile.pooling {
            Pooling::PerService => self.endpoints.iter().map(|endpoint| endpoint.idle.len()).sum(),
            Pooling::PerEndpointClosed | Pooling::PerEndpointLeft => endpoint.idle.len(),
        };
        if worn || unrouted {
            return Some(pooled);
        }
        let full = profile.max_idle.is_some_and(|most| kept >= most);
        // Go closes the connection given back to a full pool; nginx the one idle longest.
        if full && profile.pooling == Pooling::PerService {
            return Some(pooled);
        }
        let endpoint = &mut self.endpoints[pooled.endpoint];
        let evicted = if full { endpoint.idle.pop_front() } else { None };
        endpoint.idle.push_back(pooled);
        evicted
    }

    /// Takes out what has been idle for too long.
    fn expire(&mut self, now: Duration) -> Vec<Pooled<C>> {
        let timeout = self.profile.idle_timeout;
        let mut expired = Vec::new();
        for endpoint in &mut self.endpoints {
            // The front has been idle longest.
            while endpoint.idle.front().is_some_and(|pooled| now.saturating_sub(pooled.idle_since) >= timeout) {
                expired.extend(endpoint.idle.pop_front());
            }
        }
        expired
    }

    fn take_from_endpoint(&mut self, id: EndpointId) -> Option<Pooled<C>> {
        let idle = &mut self.endpoints[id].idle;
        match self.profile.reuse {
            Reuse::Lifo => idle.pop_back(),
            Reuse::Fifo => idle.pop_front(),
        }
    }

    fn take_from_service(&mut self) -> Option<Pooled<C>> {
        let with_idle = self.endpoints.iter().enumerate().filter(|(_, endpoint)| !endpoint.idle.is_empty());
        let (id, _) = match self.profile.reuse {
            Reuse::Lifo => with_idle.max_by_key(|(_, endpoint)| endpoint.idle.back().map(|p| p.idle_since))?,
            Reuse::Fifo => with_idle.min_by_key(|(_, endpoint)| endpoint.idle.front().map(|p| p.idle_since))?,
        };
        self.take_from_endpoint(id)
    }

    /// The endpoint for a new request: round robin for a proxy, at random for kube-proxy.
    pub(crate) fn choose(&mut self, avoid: Option<EndpointId>) -> Option<EndpointId> {
        let of = |endpoints: &[Endpoint<C>], wanted: &dyn Fn(EndpointId, Routing) -> bool| {
            let ids = endpoints.iter().enumerate().filter(|(id, endpoint)| wanted(*id, endpoint.routing));
            ids.map(|(id, _)| id).collect::<Vec<_>>()
        };
        let all = of(&self.endpoints, &|_, routing| routing != Routing::Out);
        let others = of(&self.endpoints, &|id, routing| routing != Routing::Out && Some(id) != avoid);
        let among = if others.is_empty() { all } else { others };
        if among.is_empty() {
            return None;
        }
        let place = match self.profile.pooling {
            // A retry takes no turn: it would shift the turns of all requests after it.
            _ if avoid.is_some() => self.rng.below(among.len()),
            Pooling::PerService => self.rng.below(among.len()),
            Pooling::PerEndpointClosed | Pooling::PerEndpointLeft => {
                self.turn = self.turn.wrapping_add(1);
                self.turn % among.len()
            }
        };
        Some(among[place])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn router(id: &str, endpoints: usize) -> Router<&'static str> {
        let mut router = Router::new(Profile::from_id(id).unwrap(), 1);
        for _ in 0..endpoints {
            let id = router.add();
            router.route(id);
        }
        router
    }

    fn pooled(endpoint: EndpointId, id: u64, idle_since: u64, answered: u32) -> Pooled<&'static str> {
        Pooled { connection: "open", id, endpoint, opened: at(0), idle_since: at(idle_since), answered }
    }

    /// What the next request takes, in short: `reuse ID`, `connect ENDPOINT` or `nowhere`.
    fn next(router: &mut Router<&'static str>, now: u64, avoid: Option<EndpointId>) -> String {
        match router.take(at(now), avoid, |connection| *connection == "open").0 {
            Target::Reuse(pooled) => format!("reuse {}", pooled.id),
            Target::Connect(endpoint) => format!("connect {endpoint}"),
            Target::Nowhere => "nowhere".into(),
        }
    }

    #[test]
    fn proxies_take_turns_and_skip_the_endpoint_that_failed() {
        let mut router = router("alb", 3);
        let turns: Vec<_> = (0..4).map(|_| next(&mut router, 1, None)).collect();
        assert_eq!(turns, ["connect 1", "connect 2", "connect 0", "connect 1"]);
        for _ in 0..6 {
            assert_ne!(next(&mut router, 1, Some(2)), "connect 2");
        }
    }

    #[test]
    fn a_leaving_endpoint_gets_requests_until_it_is_removed() {
        let mut router = router("alb", 1);
        router.leave(0);
        assert_eq!(next(&mut router, 1, None), "connect 0");
        assert!(router.give_back(pooled(0, 7, 1, 1), at(1)).is_none());
        assert_eq!(router.remove(0).len(), 1);
        assert_eq!(next(&mut router, 2, None), "nowhere");
        // In flight at the removal: closed when its answer has come.
        assert_eq!(router.give_back(pooled(0, 8, 2, 1), at(2)).map(|p| p.id), Some(8));
    }

    #[test]
    fn a_client_of_the_service_uses_its_connection_after_the_removal() {
        let mut router = router("go-client", 2);
        assert!(router.give_back(pooled(0, 7, 1, 1), at(1)).is_none());
        router.leave(0);
        assert!(router.remove(0).is_empty());
        assert_eq!(next(&mut router, 2, None), "reuse 7");
        assert_eq!(next(&mut router, 2, None), "connect 1");
    }

    #[test]
    fn last_used_first_and_idle_ones_expire() {
        let mut router = router("alb", 1);
        for (id, idle_since) in [(1, 0), (2, 30), (3, 59)] {
            assert!(router.give_back(pooled(0, id, idle_since, 1), at(idle_since)).is_none());
        }
        assert_eq!(next(&mut router, 60, None), "reuse 3");
        assert_eq!(next(&mut router, 60, None), "reuse 2");
        assert_eq!(next(&mut router, 60, None), "connect 0"); // 1 had been idle for the 60 s
    }

    #[test]
    fn a_chosen_connection_expires_like_any_other() {
        let mut router = router("alb", 1);
        for id in [1, 2] {
            assert!(router.give_back(pooled(0, id, 0, 1), at(0)).is_none());
        }
        assert_eq!(router.take_connection(1, at(59)).map(|p| p.id), Some(1));
        assert!(router.take_connection(2, at(60)).is_none());
    }

    #[test]
    fn closed_ones_are_discarded_before_reuse() {
        let mut router = router("alb", 1);
        let closed = Pooled { connection: "closed", ..pooled(0, 1, 1, 1) };
        router.give_back(closed, at(1));
        let (target, discarded) = router.take(at(2), None, |connection| *connection == "open");
        assert!(matches!(target, Target::Connect(0)));
        assert_eq!(discarded.len(), 1);
    }

    #[test]
    fn worn_out_connections_and_full_pools() {
        let mut nginx = router("nginx", 1);
        assert!(nginx.give_back(pooled(0, 1, 1, 999), at(1)).is_none());
        assert_eq!(nginx.give_back(pooled(0, 2, 1, 1000), at(1)).map(|p| p.id), Some(2));
        assert_eq!(nginx.give_back(pooled(0, 3, 1, 1), at(3600)).map(|p| p.id), Some(3));
        for id in 10..329 {
            assert!(nginx.give_back(pooled(0, id, 2, 1), at(2)).is_none(), "{id}");
        }
        assert_eq!(nginx.give_back(pooled(0, 400, 2, 1), at(2)).map(|p| p.id), Some(1), "the one idle longest goes");
        let mut go = router("go-client", 2);
        assert!(go.give_back(pooled(0, 1, 1, 1), at(1)).is_none());
        assert!(go.give_back(pooled(1, 2, 1, 1), at(1)).is_none());
        assert_eq!(
            go.give_back(pooled(0, 3, 1, 1), at(1)).map(|p| p.id),
            Some(3),
            "two for the host, whatever endpoint"
        );
    }
}
