//! The pods and processes concerned, rebuilt from objects, events and their own words: who was alive when.

use std::collections::{BTreeMap, HashMap};

use crate::books::{Books, host};
use crate::record::{EventKind, Place};
use crate::time::{Micros, SECOND};

/// Events are stamped to the second.
const STAMP: Micros = SECOND;
/// Where nobody says how long a pod has to stop: Kubernetes' default.
const GRACE: Micros = 30 * SECOND;

/// One pod's, or process's, life.
#[derive(Debug, Clone, Default)]
pub struct Life {
    /// Its name.
    pub name: String,
    /// Its addresses, with or without a port.
    pub addresses: Vec<String>,
    /// Its node.
    pub node: Option<String>,
    /// When it was started.
    pub started: Option<Micros>,
    /// When it was ready.
    pub ready: Option<Micros>,
    /// When its stop was requested.
    pub stop: Option<Micros>,
    /// When its app said that it stops.
    pub app_stop: Option<Micros>,
    /// Which of its containers said so; none: the log's name does not tell.
    pub said_by: Vec<Option<String>>,
    /// Its containers, with their ports.
    pub containers: Vec<(String, Vec<u16>)>,
    /// The grace it has.
    pub grace: Option<Micros>,
    /// When it ended.
    pub ended: Option<Micros>,
    /// With which code.
    pub exit_code: Option<i64>,
    /// For which reason.
    pub reason: Option<String>,
    /// Whether grace ran out.
    pub grace_exceeded: Option<Micros>,
    /// Ends of its workers.
    pub worker_ends: Vec<Micros>,
    /// Ends nobody asked for.
    pub crashes: Vec<Micros>,
    /// Whether an object shows it, so that it is known to have been there in between.
    pub seen: bool,
    /// Where that is said.
    pub cites: Vec<Place>,
}

/// What it was at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Serving, and it goes on.
    Alive,
    /// Its stop was requested this long before.
    Terminating(Micros),
    /// It had ended, as it was told to, this long before.
    Stopped(Micros),
    /// Killed at the end of its grace, about then.
    Killed,
    /// It ended by itself, about then.
    Crashed,
    /// It had not been ready yet.
    Starting,
    /// Nothing is known of it.
    Unknown,
}

impl Life {
    /// Whether it ended by SIGKILL at its deadline.
    pub fn killed_at_deadline(&self) -> bool {
        if self.grace_exceeded.is_some() {
            return true;
        }
        let grace = self.grace.unwrap_or(GRACE);
        match (self.stop, self.ended, self.exit_code) {
            (Some(stop), Some(ended), Some(137)) => ended - stop + 2 * STAMP >= grace && !self.out_of_memory(),
            _ => false,
        }
    }

    /// Whether the app behind this port said that it stops. A neighbour in the same pod, whose log is told by its container's
    /// name, does not speak for it.
    pub fn said_stop(&self, port: Option<u16>) -> bool {
        let asked = port.and_then(|port| self.containers.iter().find(|(_, ports)| ports.contains(&port)));
        self.said_by.iter().any(|by| match (by, asked) {
            (Some(by), Some((name, _))) => by == name,
            (None, _) | (_, None) => true,
        })
    }

    fn out_of_memory(&self) -> bool {
        self.reason.as_deref() == Some("OOMKilled")
    }

    /// When it ended, as far as that is known.
    pub fn end(&self) -> Option<Micros> {
        self.ended.or(self.grace_exceeded)
    }

    /// Whether this is the second in which it became ready again, after an end that nobody asked for.
    pub fn came_back(&self, at: Micros) -> bool {
        let unasked = self.ended.filter(|_| self.stop.is_none() && self.app_stop.is_none());
        let mut ends = self.crashes.iter().chain(&unasked);
        self.ready.is_some_and(|ready| (ready..ready + STAMP).contains(&at) && ends.any(|end| *end <= ready))
    }

    /// What it was at a moment.
    pub fn state(&self, at: Micros) -> State {
        let near = |moment: Micros| (moment - STAMP..=moment + 2 * STAMP).contains(&at);
        if self.crashes.iter().chain(&self.worker_ends).any(|crash| near(*crash)) {
            return State::Crashed;
        }
        if let Some(stop) = self.stop.or(self.app_stop)
            && at >= stop
        {
            return match self.end() {
                Some(ended) if self.killed_at_deadline() && near(ended) => State::Killed,
                Some(ended) if at > ended => State::Stopped(at - ended),
                Some(_) | None => State::Terminating(at - stop),
            };
        }
        let asked = self.stop.is_some() || self.app_stop.is_some();
        if let Some(ended) = self.ended
            && !asked
            && at + STAMP >= ended
            && self.ready.is_none_or(|ready| ready < ended || at < ready)
        {
            return State::Crashed;
        }
        match self.ready.or(self.started) {
            Some(ready) if at < ready && self.ended.is_none() => State::Starting,
            Some(_) => State::Alive,
            None if self.seen => State::Alive,
            None => State::Unknown,
        }
    }
}

/// All lives, by address.
#[derive(Debug, Default)]
pub struct World {
    /// The lives.
    pub lives: Vec<Life>,
    by_address: HashMap<String, Vec<usize>>,
    by_name: HashMap<String, usize>,
}

impl World {
    /// From what was read. `names` are those of the inputs: an app's own log is told by the pod's name, or address, in its name.
    pub fn build(books: &Books, names: &[String]) -> World {
        let mut lives: BTreeMap<String, Life> = BTreeMap::new();
        for (place, facts) in &books.pods {
            let life = of(&mut lives, &facts.name);
            life.seen = true;
            life.cites.push(*place);
            if let Some(ip) = &facts.ip {
                let with_port = facts.ports.iter().map(|port| format!("{ip}:{port}"));
                for address in with_port.chain([ip.clone()]) {
                    if !life.addresses.contains(&address) {
                        life.addresses.push(address);
                    }
                }
            }
            if !facts.containers.is_empty() {
                life.containers.clone_from(&facts.containers);
            }
            life.node = facts.node.clone().or(life.node.take());
            life.started = facts.started.or(life.started);
            life.ready = facts.ready.or(life.ready);
            life.stop = earlier(life.stop, facts.deleted);
            life.grace = facts.grace.or(life.grace);
            life.ended = later(life.ended, facts.ended);
            life.exit_code = facts.exit_code.or(life.exit_code);
            life.reason = facts.reason.clone().or(life.reason.take());
            if facts.restarted && facts.deleted.is_none() {
                life.crashes.extend(facts.ended);
            }
        }
        for told in &books.events {
            let event = &told.event;
            let name = match event.subject.strip_prefix("Pod/") {
                Some(name) => name.to_owned(),
                None if event.subject.is_empty() => writer(&lives, names, told.place.input),
                None => continue,
            };
            let life = of(&mut lives, &name);
            if life.cites.len() < 16 {
                life.cites.push(told.place);
            }
            if event.kind == EventKind::AppStopping {
                let by = names.get(usize::from(told.place.input)).and_then(|file| life.container_of(file));
                life.said_by.push(by);
            }
            life.hear(event.kind, event.at);
        }
        let mut world =
            World { lives: lives.into_values().collect(), by_address: HashMap::new(), by_name: HashMap::new() };
        for (place, life) in world.lives.iter().enumerate() {
            if !life.name.is_empty() {
                world.by_name.insert(life.name.clone(), place);
            }
            for address in &life.addresses {
                world.by_address.entry(address.clone()).or_default().push(place);
            }
        }
        world
    }

    /// Whoever had an address at a moment. An address is used again: the life that fits the moment best counts.
    pub fn at(&self, address: &str, moment: Micros) -> Option<&Life> {
        let host = host(address.as_bytes());
        let host = std::str::from_utf8(host).unwrap_or(address);
        // Some logs have the name that the proxy's configuration gives a server: often the pod's.
        let named = |name: &str| self.by_name.get(name).map(std::slice::from_ref);
        let known = |name: &str| self.by_address.get(name).map(Vec::as_slice);
        let found = known(address).or_else(|| known(host)).or_else(|| named(address))?;
        let began = |life: &Life| life.started.or(life.ready).unwrap_or(Micros::MIN);
        // Several of one address at once (the host's network): none of them is known to be it.
        let fits = |life: &&Life| began(life) <= moment + 60 * SECOND;
        let mut fitting: Vec<&Life> = found.iter().map(|place| &self.lives[*place]).filter(fits).collect();
        fitting.sort_by_key(|life| began(life));
        match fitting[..] {
            [] => found.first().map(|place| &self.lives[*place]),
            [only] => Some(only),
            [.., before, last] if before.end().is_some_and(|end| end <= began(last)) => {
                // Until the next one is ready, to the second, what comes to the address is still meant for the one before.
                let ready = last.ready.or(last.started).unwrap_or(Micros::MIN);
                Some(if moment < ready + STAMP { before } else { last })
            }
            _ => None,
        }
    }
}

impl Life {
    /// The container whose log a file is, where its name has one container's behind the pod's: `POD_CONTAINER.log`,
    /// `POD_NAMESPACE_CONTAINER-ID.log`.
    fn container_of(&self, file: &str) -> Option<String> {
        let base = file.rsplit('/').next().unwrap_or(file);
        let rest = &base[base.find(&self.name)? + self.name.len()..];
        let mut found = self.containers.iter().map(|(name, _)| name).filter(|name| rest.contains(name.as_str()));
        // Of `app` and `app-sidecar` the longer one is meant.
        let first = found.next()?;
        Some(found.fold(first, |best, name| if name.len() > best.len() { name } else { best }).clone())
    }

    fn hear(&mut self, kind: EventKind, at: Micros) {
        match kind {
            EventKind::Stopping | EventKind::Evicted => self.stop = earlier(self.stop, Some(at)),
            EventKind::AppStopping => self.app_stop = earlier(self.app_stop, Some(at)),
            EventKind::Ended => self.ended = later(self.ended, Some(at)),
            EventKind::Crashed | EventKind::ProbeRestart => self.crashes.push(at),
            EventKind::WorkerEnded => self.worker_ends.push(at),
            EventKind::Started => self.started = earlier(self.started, Some(at)),
            EventKind::Ready => self.ready = earlier(self.ready, Some(at)),
            EventKind::GraceExceeded => self.grace_exceeded = Some(at),
            EventKind::NotReady
            | EventKind::ScaledDown
            | EventKind::ScaledUp
            | EventKind::NodeGone
            | EventKind::ProxyStopping => {}
        }
    }
}

fn of<'l>(lives: &'l mut BTreeMap<String, Life>, name: &str) -> &'l mut Life {
    lives.entry(name.to_owned()).or_insert_with(|| Life { name: name.to_owned(), ..Life::default() })
}

fn earlier(a: Option<Micros>, b: Option<Micros>) -> Option<Micros> {
    [a, b].into_iter().flatten().min()
}

fn later(a: Option<Micros>, b: Option<Micros>) -> Option<Micros> {
    [a, b].into_iter().flatten().max()
}

/// Whose log an input is: the pod whose name, or address, is in its name.
fn writer(lives: &BTreeMap<String, Life>, names: &[String], input: u16) -> String {
    let file = names.get(usize::from(input)).map_or("", String::as_str);
    let base = file.rsplit('/').next().unwrap_or(file);
    let whose = |life: &&Life| {
        base.contains(life.name.as_str()) || life.addresses.iter().any(|address| base.contains(address.as_str()))
    };
    lives
        .values()
        .filter(|life| !life.name.is_empty())
        .find(whose)
        .map_or_else(|| base.to_owned(), |life| life.name.clone())
}
