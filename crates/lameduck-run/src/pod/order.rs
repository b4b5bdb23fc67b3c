//! Who leaves before whom: a pure account of what neighbours said.
//!
//! One leaves before another where the other was started with `--after` and its name, or where it has connections to a port at
//! which the other listens. What was learned from connections is no order where it goes round (two that call each other); what
//! was stated is kept even then, and the budget ends it.

use lameduck_core::report::{NeighbourOutcome, NeighbourReport, Relation};

use super::wire::{Announcement, Standing};
use crate::machine::{Ahead, Time};

/// Neighbours that are kept. A pod with more containers than that is none we know of.
pub const MOST: usize = 32;

/// A neighbour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    /// Its name.
    pub name: String,
    /// Its socket's name: no other container ever has it at the same time.
    pub address: String,
    /// What it last said.
    said: Option<Announcement>,
    /// It was found to be gone.
    gone: Option<Time>,
    /// Why it leaves first, as soon as that was once known: kept when it is gone.
    relation: Option<Relation>,
    /// The ports of this app that it connects to.
    ports: Vec<u16>,
    /// It was once heard to leave while it was ahead.
    was_leaving: bool,
    /// It is ahead by what was learned, and so are we of it.
    mutual: bool,
}

/// News worth a line in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// This neighbour leaves first.
    Ahead {
        /// Who.
        name: String,
        /// Why.
        relation: Relation,
        /// The ports of this app that it connects to.
        ports: Vec<u16>,
    },
    /// It has left, at this time.
    Left {
        /// Who.
        name: String,
        /// When.
        at: Time,
    },
    /// Each leaves before the other, by what was learned.
    Mutual {
        /// Who.
        name: String,
    },
    /// `--after` goes round.
    Cycle {
        /// The neighbour at which it does.
        name: String,
    },
}

/// The order, as seen from one container.
#[derive(Debug, Clone, Default)]
pub struct Order {
    /// The name of this one.
    pub name: String,
    /// The pod of this one.
    pub pod: Option<String>,
    /// Whom `--after` names.
    pub after: Vec<String>,
    /// Where this one listens.
    pub listens: Vec<u16>,
    /// To which of its neighbours' ports this one connects.
    pub connects: Vec<u16>,
    neighbours: Vec<Neighbour>,
    /// Addresses of those that said they are of another pod.
    strangers: Vec<String>,
    said_cycle: bool,
}

impl Order {
    /// Nobody was heard yet.
    pub fn new(name: String, pod: Option<String>, after: Vec<String>) -> Order {
        Order { name, pod, after, ..Order::default() }
    }

    /// The neighbours known.
    pub fn neighbours(&self) -> &[Neighbour] {
        &self.neighbours
    }

    /// These sockets are there, by their names and addresses.
    pub fn found(&mut self, sockets: &[(String, String)]) {
        for (name, address) in sockets {
            // Others are known once they have said something that can be understood.
            if self.after.contains(name) && !self.strangers.contains(address) {
                let _ = self.enter(name, address);
            }
        }
    }

    fn enter(&mut self, name: &str, address: &str) -> Option<&mut Neighbour> {
        let place = match self.neighbours.iter().position(|known| known.address == address) {
            Some(place) => place,
            None if self.neighbours.len() < MOST => {
                self.neighbours.push(Neighbour {
                    name: name.to_owned(),
                    address: address.to_owned(),
                    said: None,
                    gone: None,
                    relation: self.after.iter().any(|after| after == name).then_some(Relation::Stated),
                    ports: Vec::new(),
                    was_leaving: false,
                    mutual: false,
                });
                self.neighbours.len() - 1
            }
            None => return None,
        };
        self.neighbours.get_mut(place)
    }

    /// A neighbour said something. One of another pod, on a host's network, is none.
    pub fn hear(&mut self, name: &str, address: &str, said: Announcement) {
        if said.pod != self.pod {
            self.neighbours.retain(|known| known.address != address);
            if self.strangers.len() < MOST && !self.strangers.iter().any(|stranger| stranger == address) {
                self.strangers.push(address.to_owned());
            }
            return;
        }
        if let Some(neighbour) = self.enter(name, address) {
            neighbour.said = Some(said);
            neighbour.gone = None;
        }
    }

    /// Nobody listens at this address any more.
    pub fn gone(&mut self, now: Time, address: &str) {
        if let Some(neighbour) = self.neighbours.iter_mut().find(|known| known.address == address) {
            neighbour.gone.get_or_insert(now);
        }
    }

    /// Where this one stands, for others.
    pub fn announcement(&self, asks: bool, standing: Standing) -> Announcement {
        Announcement {
            asks,
            standing,
            pod: self.pod.clone(),
            listens: self.listens.clone(),
            connects: self.connects.clone(),
            after: self.after.clone(),
        }
    }

    /// Puts what was heard together: whether somebody leaves first, and what is new.
    pub fn settle(&mut self) -> (Ahead, Vec<News>) {
        let mut news = Vec::new();
        let mut ahead = Ahead::Nobody;
        let own = self.announcement(false, Standing::Leaving);
        let graph = Graph::of(&self.name, &own, &self.neighbours);
        for (n, neighbour) in self.neighbours.iter_mut().enumerate() {
            let node = n + 1;
            let was = (neighbour.relation, neighbour.ports.len());
            if let Some(at) = neighbour.gone {
                if std::mem::take(&mut neighbour.was_leaving) {
                    news.push(News::Left { name: neighbour.name.clone(), at });
                }
                continue;
            }
            if let Some(said) = &neighbour.said {
                for port in meeting(said, &own) {
                    if !neighbour.ports.contains(&port) {
                        neighbour.ports.push(port);
                    }
                }
            }
            let goes_round = graph.reaches(0, node, false);
            let learned = !neighbour.ports.is_empty();
            if neighbour.relation.is_none() && learned {
                neighbour.relation = Some(Relation::Proxies);
            }
            let Some(relation) = neighbour.relation else { continue };
            let leaving = neighbour.said.as_ref().is_some_and(|said| said.standing == Standing::Leaving);
            match relation {
                Relation::Stated => {
                    if graph.reaches(0, node, true) && !std::mem::replace(&mut self.said_cycle, true) {
                        news.push(News::Cycle { name: neighbour.name.clone() });
                    }
                    ahead = worse(ahead, if leaving { Ahead::Leaving } else { Ahead::Untold });
                }
                Relation::Proxies if goes_round => {
                    if !std::mem::replace(&mut neighbour.mutual, true) {
                        news.push(News::Mutual { name: neighbour.name.clone() });
                    }
                    neighbour.was_leaving = false;
                    continue;
                }
                Relation::Proxies if leaving => ahead = Ahead::Leaving,
                Relation::Proxies => {}
            }
            neighbour.mutual = false;
            let first = leaving && !std::mem::replace(&mut neighbour.was_leaving, leaving);
            if first || (leaving && was != (neighbour.relation, neighbour.ports.len())) {
                let (name, ports) = (neighbour.name.clone(), neighbour.ports.clone());
                news.push(News::Ahead { name, relation, ports });
            }
        }
        (ahead, news)
    }

    /// The names of those that are waited for now.
    pub fn waited_for(&self) -> Vec<&str> {
        self.neighbours
            .iter()
            .filter(|known| known.gone.is_none() && !known.mutual && known.relation.is_some())
            .filter(|known| known.was_leaving || known.relation == Some(Relation::Stated))
            .map(|known| known.name.as_str())
            .collect()
    }

    /// Whom it waited for, for the report: of a drain that began at `began` and waited until `until`.
    pub fn report(&self, began: Time, until: Time) -> Vec<NeighbourReport> {
        let mut lines: Vec<NeighbourReport> = Vec::new();
        for neighbour in &self.neighbours {
            let Some(relation) = neighbour.relation else { continue };
            let standing = neighbour.said.as_ref().map(|said| said.standing);
            let (outcome, end) = match (neighbour.gone, standing) {
                _ if neighbour.mutual => (NeighbourOutcome::Mutual, began),
                // Whoever left before the drain began, or after the wait was over, was not waited for until it left.
                (Some(gone), _) if gone <= until => (NeighbourOutcome::Left, gone),
                (_, Some(Standing::Leaving)) => (NeighbourOutcome::StillThere, until),
                (_, Some(Standing::Serving)) => (NeighbourOutcome::NotTold, began),
                (_, None) => (NeighbourOutcome::Silent, began),
            };
            lines.push(NeighbourReport {
                name: neighbour.name.clone(),
                relation,
                ports: neighbour.ports.clone(),
                outcome,
                waited: end.saturating_sub(began),
            });
        }
        for name in self.after.iter().filter(|name| !self.neighbours.iter().any(|known| known.name == **name)) {
            lines.push(NeighbourReport {
                name: name.clone(),
                relation: Relation::Stated,
                ports: Vec::new(),
                outcome: NeighbourOutcome::NotFound,
                waited: Time::ZERO,
            });
        }
        lines
    }
}

/// The ports at which `to` listens and `from` connects. A port that both hold is one container's own affair.
fn meeting(from: &Announcement, to: &Announcement) -> Vec<u16> {
    let meets = |port: &&u16| to.listens.contains(port) && !from.listens.contains(port);
    from.connects.iter().filter(meets).copied().collect()
}

fn worse(one: Ahead, other: Ahead) -> Ahead {
    match (one, other) {
        (Ahead::Leaving, _) | (_, Ahead::Leaving) => Ahead::Leaving,
        (Ahead::Untold, _) | (_, Ahead::Untold) => Ahead::Untold,
        (Ahead::Nobody, Ahead::Nobody) => Ahead::Nobody,
    }
}

/// Who leaves before whom, of all that were heard and are there. Node 0 is this one.
struct Graph {
    stated: Vec<u64>,
    any: Vec<u64>,
}

impl Graph {
    fn of(own_name: &str, own: &Announcement, neighbours: &[Neighbour]) -> Graph {
        let nodes: Vec<(&str, Option<&Announcement>)> = std::iter::once((own_name, Some(own)))
            .chain(neighbours.iter().map(|known| {
                let said = known.said.as_ref().filter(|_| known.gone.is_none());
                (known.name.as_str(), said)
            }))
            .collect();
        let mut graph = Graph { stated: vec![0; nodes.len()], any: vec![0; nodes.len()] };
        for (first, (name, said_first)) in nodes.iter().enumerate() {
            for (then, (_, said_then)) in nodes.iter().enumerate().filter(|(then, _)| *then != first) {
                let (Some(said_first), Some(said_then)) = (said_first, said_then) else { continue };
                let stated = said_then.after.iter().any(|after| after == name);
                let learned = !meeting(said_first, said_then).is_empty();
                graph.stated[first] |= u64::from(stated) << then;
                graph.any[first] |= u64::from(stated || learned) << then;
            }
        }
        graph
    }

    /// Whether `from` leaves before `to`, directly or by way of others.
    fn reaches(&self, from: usize, to: usize, stated_only: bool) -> bool {
        let edges = if stated_only { &self.stated } else { &self.any };
        let mut reached = edges.get(from).copied().unwrap_or_default();
        // Each round that is not the last adds a node.
        for _ in 0..edges.len() {
            let next = edges.iter().enumerate().filter(|(n, _)| reached & 1 << n != 0);
            reached = next.fold(reached, |reached, (_, edge)| reached | edge);
        }
        reached & 1 << to != 0
    }
}

#[cfg(test)]
mod tests;
