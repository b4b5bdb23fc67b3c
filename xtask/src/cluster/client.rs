//! Who asks the pods, and by which way.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use anyhow::{Context, ensure};
use lameduck_drill::live::{self, News};
use lameduck_drill::profile::{Profile, Retry};
use lameduck_drill::servers::Server;
use lameduck_drill::{DrillResult, Plan, Progress};

use super::hop::{Hop, Kind, Routed};
use super::watch::Tell;

/// A way to the pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// The drill's own balancer, which follows `EndpointSlice`s.
    Slices,
    /// Through a proxy, or through kube-proxy with a gateway.
    Through(Kind),
}

/// All of them.
pub const CLIENTS: [Client; 4] =
    [Client::Slices, Client::Through(Kind::Nginx), Client::Through(Kind::Envoy), Client::Through(Kind::Gateway)];

impl Client {
    /// Its word.
    pub const fn id(self) -> &'static str {
        match self {
            Client::Slices => "slices",
            Client::Through(Kind::Nginx) => "nginx",
            Client::Through(Kind::Envoy) => "envoy",
            Client::Through(Kind::Gateway) => "kube-proxy",
        }
    }

    /// In words.
    pub const fn title(self) -> &'static str {
        match self {
            Client::Slices => "EndpointSlices",
            Client::Through(Kind::Nginx) => "nginx",
            Client::Through(Kind::Envoy) => "Envoy",
            Client::Through(Kind::Gateway) => "Go, kube-proxy",
        }
    }

    /// The client of that word.
    pub fn from_id(id: &str) -> anyhow::Result<Client> {
        let found = CLIENTS.into_iter().find(|client| client.id() == id);
        found.with_context(|| format!("{id:?} is no client: slices, nginx, envoy, kube-proxy"))
    }
}

/// What is asked, and how often.
#[derive(Debug, Clone, Copy)]
pub struct Work {
    /// Pods at the start.
    pub replicas: usize,
    pub port: u16,
    pub grace: Duration,
    /// Requests a second of each client.
    pub rate: f64,
    /// How the client of slices keeps its connections, and how late it acts.
    pub profile: Profile,
    pub lag: Duration,
}

/// What hops are started with.
pub struct Place<'p> {
    pub envoy: Option<&'p Path>,
    /// For their files.
    pub dir: &'p Path,
    pub service: SocketAddr,
    pub routed: Routed,
}

/// A client with its load.
pub struct Load {
    client: Client,
    plan: Plan,
    news: live::Receiver,
    hop: Option<Hop>,
}

/// What a load saw.
pub struct Seen {
    pub client: Client,
    pub result: DrillResult,
    /// What the hop sent again by itself.
    pub resent: u64,
    /// What a hop answered itself, since no pod was routed to; still in the tally of the result.
    pub nobody: u64,
}

impl Seen {
    /// Requests that somebody was routed to for.
    pub fn sent(&self) -> u64 {
        self.result.tally.sent - self.nobody
    }

    /// Those of them that were lost, or whose fate is open.
    pub fn lost(&self) -> u64 {
        self.result.tally.lost + self.result.tally.unknown - self.nobody
    }

    /// Requests that nobody was routed to for.
    pub fn unrouted(&self) -> u64 {
        self.result.unrouted + self.nobody
    }
}

/// What was heard of pods, by name.
#[derive(Debug, Default)]
pub struct Heard {
    /// Where each is.
    pub addresses: BTreeMap<String, SocketAddr>,
    unrouted: BTreeSet<String>,
    /// Those that routing left and came back to: nobody ended them, their probes failed. So it is where a machine can not bear the load.
    pub came_back: BTreeSet<String>,
}

impl Heard {
    fn hear(&mut self, news: &News) {
        match news {
            News::Routed { name, address } => {
                self.addresses.insert(name.clone(), *address);
                if self.unrouted.contains(name) {
                    self.came_back.insert(name.clone());
                }
            }
            News::Unrouted { name } => drop(self.unrouted.insert(name.clone())),
            _ => {}
        }
    }
}

/// Makes each client ready; and how they are told what is new.
pub fn prepare(
    clients: &[Client],
    server: &Server,
    work: Work,
    place: &Place<'_>,
    heard: &Arc<Mutex<Heard>>,
) -> anyhow::Result<(Vec<Load>, Tell)> {
    let Place { envoy, dir, service, routed } = place;
    let (mut loads, mut senders, mut listeners) = (Vec::new(), Vec::new(), Vec::new());
    for client in clients.iter().copied() {
        let hop = match client {
            Client::Slices => None,
            Client::Through(kind) => {
                Some(Hop::start(kind, *envoy, dir.join(client.id()), *service, routed.clone()).context(client.id())?)
            }
        };
        let (sender, news) = live::channel();
        senders.push(sender);
        listeners.extend(hop.as_ref().and_then(Hop::listener));
        loads.push(Load { client, plan: plan(server, work, hop.as_ref())?, news, hop });
    }
    let (listeners, heard) = (Mutex::new(listeners), Arc::clone(heard));
    let tell = move |news: News| {
        heard.lock().unwrap_or_else(PoisonError::into_inner).hear(&news);
        if matches!(news, News::Routed { .. } | News::Unrouted { .. }) {
            for listener in listeners.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                let _ = listener.send(news.clone());
            }
        }
        for sender in &senders {
            sender.tell(news.clone());
        }
    };
    Ok((loads, Box::new(tell)))
}

fn plan(server: &Server, work: Work, hop: Option<&Hop>) -> anyhow::Result<Plan> {
    let mix = server.mix(false, 2.0);
    // What nginx and Go's Transport speak to pods is HTTP/1.
    let mix = mix.iter().filter(|line| hop.is_none() || !line.ends_with(" h2"));
    let plan = Plan {
        replicas: work.replicas,
        rate: work.rate,
        profile: work.profile,
        lag: work.lag,
        grace: work.grace,
        mix: mix.map(|line| line.parse()).collect::<Result<_, _>>().context("the mix")?,
        ..Plan::default()
    };
    let Some(hop) = hop else { return Ok(plan) };
    // To the hop each request has a connection of its own: what is asked is what becomes of those behind it.
    let profile = Profile { max_requests: Some(1), retry: Retry::from_id("none").context("a policy")?, ..work.profile };
    Ok(Plan {
        profile,
        lag: Duration::ZERO,
        rtt: Duration::ZERO,
        port_base: work.port,
        // nginx's error log has the path, and no header.
        id_in_query: true,
        via: Some(hop.via()),
        ..plan
    })
}

impl Load {
    /// Sends it until it is told that it is enough; says on `began` that it has begun.
    pub fn run(self, began: &mpsc::Sender<()>, heard: &Mutex<Heard>) -> anyhow::Result<Seen> {
        let Load { client, plan, news, hop } = self;
        let result = lameduck_drill::follow(&plan, news, |news| {
            if let Progress::LoadBegan { .. } = news {
                let _ = began.send(());
            }
        });
        let mut result = result.context(client.id())?;
        ensure!(result.balances(), "{}: the books do not balance", client.id());
        let (mut resent, mut nobody) = (result.retries, 0);
        if let Some(hop) = hop {
            let attempts = hop.stop().context(client.id())?;
            nobody = attempts.settle(&mut result, &heard.lock().unwrap_or_else(PoisonError::into_inner).addresses);
            resent = attempts.resent;
        }
        Ok(Seen { client, result, resent, nobody })
    }
}
