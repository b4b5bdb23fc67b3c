//! From what files say of a workload, and what a traffic file adds, to a [`Fleet`]. What neither says is assumed, and each
//! assumption is told.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::fleet::{
    Caller, Events, Fleet, Nodes, Pooling, Range, Resends, Routing, Scaling, Server, Service, Stop, Traffic, ViaNodes,
};
use crate::service_time::ServiceTime;

/// What no manifest says: `--traffic FILE`. Unknown keys are refused, so that a misspelt one does not pass for a setting. Times
/// are seconds.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct TrafficFile {
    /// `[nodes]`
    #[serde(default)]
    pub nodes: NodesStated,
    /// `[default]`: for every service.
    #[serde(default)]
    pub default: Stated,
    /// `[service.NAME]`: for one, before what `[default]` says.
    #[serde(default)]
    pub service: BTreeMap<String, Stated>,
}

/// `[nodes]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct NodesStated {
    /// How many.
    pub count: Option<f64>,
    /// Drained and removed a day.
    pub removed_a_day: Option<f64>,
    /// Taken back a day.
    pub reclaimed_a_day: Option<f64>,
    /// With so much notice.
    pub notice: Option<f64>,
}

/// A value, or the least and the most.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum Span {
    /// Exactly.
    One(f64),
    /// Between.
    Two([f64; 2]),
}

impl From<Span> for Range {
    fn from(span: Span) -> Range {
        match span {
            Span::One(value) => Range::exactly(value),
            Span::Two([least, most]) => Range::between(least, most.max(least)),
        }
    }
}

/// What the stop signal does, as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StopStated {
    /// It drains.
    Graceful,
    /// It is gone at once.
    Dies,
    /// Nobody tells it.
    Ignored,
}

/// What is said of a service.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Stated {
    /// Requests a second, on average.
    pub rate: Option<f64>,
    /// How far the day swings about the mean, 0 to 1.
    pub swing: Option<f64>,
    /// The hour of the peak.
    pub peak_hour: Option<f64>,
    /// The standard deviation of what chance adds, as a share.
    pub noise: Option<f64>,
    /// How long such a deviation lasts.
    pub noise_time: Option<f64>,
    /// The median time of an answer.
    pub duration: Option<f64>,
    /// The time that one answer in a hundred takes longer than.
    pub duration_p99: Option<f64>,
    /// The share of each method.
    pub methods: Option<BTreeMap<String, f64>>,
    /// Who is in front: a profile of `lameduck drill`.
    pub profile: Option<String>,
    /// Its pools.
    pub pools: Option<f64>,
    /// The time in which a close and a request cross.
    pub window: Option<f64>,
    /// Pods at the mean rate.
    pub replicas: Option<u32>,
    /// After how long the server closes an idle connection; below 0: never.
    pub idle: Option<Span>,
    /// What the stop signal does.
    pub stop: Option<StopStated>,
    /// From the deletion to the stop signal.
    pub pre_stop: Option<Span>,
    /// From the stop signal to its effect.
    pub reaction: Option<Span>,
    /// The longest it works on what is in flight; below 0: no limit.
    pub finish: Option<f64>,
    /// From the deletion to SIGKILL.
    pub grace: Option<f64>,
    /// From a start to the first answer.
    pub startup: Option<Span>,
    /// From a deletion until nothing new is sent.
    pub lag: Option<Span>,
    /// Connection draining at the balancer; below 0: as long as it takes.
    pub drain: Option<f64>,
    /// The balancer sends to nodes.
    pub via_nodes: Option<bool>,
    /// From the end of a node until nothing more is sent to it.
    pub node_detection: Option<Span>,
    /// Rollouts a day.
    pub rollouts_a_day: Option<f64>,
    /// Ends by the clock, a container and day.
    pub restarts_a_day: Option<f64>,
    /// Ends by itself, a container and day.
    pub crashes_a_day: Option<f64>,
}

/// A hop, as its profile has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Hop {
    /// The profile's id.
    pub id: &'static str,
    /// How long it keeps idle connections.
    pub idle_s: f64,
    /// Requests a connection.
    pub max_requests: Option<u32>,
    /// The age of a connection.
    pub max_age_s: Option<f64>,
    /// What becomes of idle connections.
    pub pooling: Pooling,
    /// What it sends again.
    pub resends: Vec<Resent>,
    /// How often.
    pub limit: u32,
}

/// Whether a method is sent again, by how it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resent {
    /// The method.
    pub method: &'static str,
    /// After a connection that could not be made.
    pub connect: bool,
    /// On a kept connection.
    pub reused: bool,
    /// On a new one.
    pub fresh: bool,
}

/// What files say of a workload. None is "they do not say".
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// Its name.
    pub name: String,
    /// Pods.
    pub replicas: Option<u32>,
    /// The autoscaler.
    pub scaling: Option<Scaling>,
    /// The server's name.
    pub server: Option<String>,
    /// After how long it closes idle connections; the inner none: never.
    pub idle: Option<Option<Range>>,
    /// What the stop signal does; or why that is not known.
    pub stop: Option<Stop>,
    /// Why it is not.
    pub stop_unknown: Option<String>,
    /// From the deletion to the stop signal.
    pub pre_stop: Option<Range>,
    /// The server's own limit.
    pub finish_s: Option<f64>,
    /// The grace period.
    pub grace_s: f64,
    /// A readiness probe, and how long it fails before anybody acts.
    pub readiness_s: Option<f64>,
    /// Who is in front, by profile.
    pub profile: Option<&'static str>,
    /// How long it keeps idle connections, where that is configured.
    pub caller_idle_s: Option<f64>,
    /// From the deletion until nothing new is sent.
    pub lag: Option<Range>,
    /// The balancer knows nodes: the lag of one that knows pods.
    pub via_nodes: Option<Range>,
    /// Connection draining: the inner none is "as long as it takes".
    pub drain_s: Option<Option<f64>>,
    /// Ends by the clock.
    pub restarts_a_day: f64,
}

/// Something that nobody said.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Assumption {
    /// What.
    pub what: String,
    /// The value.
    pub value: String,
    /// Of whom.
    pub services: Vec<String>,
}

/// What cannot be simulated, and why.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NotATraffic(String);

impl TrafficFile {
    /// Reads one.
    pub fn parse(text: &str) -> Result<TrafficFile, NotATraffic> {
        let file: TrafficFile = toml::from_str(text).map_err(|error| NotATraffic(error.to_string()))?;
        for (name, stated) in
            file.service.iter().map(|(name, stated)| (name.as_str(), stated)).chain([("", &file.default)])
        {
            let place = if name.is_empty() { "[default]".to_owned() } else { format!("[service.{name}]") };
            stated.check().map_err(|wrong| NotATraffic(format!("{place}: {wrong}")))?;
        }
        Ok(file)
    }
}

impl Stated {
    fn check(&self) -> Result<(), String> {
        let above = |key: &str, value: Option<f64>, least: f64| match value {
            Some(value) if value.is_nan() || value < least => Err(format!("{key} = {value}: at least {least}")),
            Some(_) | None => Ok(()),
        };
        above("rate", self.rate, 0.0)?;
        above("swing", self.swing, 0.0)?;
        above("noise", self.noise, 0.0)?;
        above("noise-time", self.noise_time, 1.0)?;
        above("duration", self.duration, 0.0)?;
        above("duration-p99", self.duration_p99, self.duration.unwrap_or(0.0))?;
        above("pools", self.pools, 1.0)?;
        above("window", self.window, 0.0)?;
        above("grace", self.grace, 0.0)?;
        above("rollouts-a-day", self.rollouts_a_day, 0.0)?;
        above("restarts-a-day", self.restarts_a_day, 0.0)?;
        above("crashes-a-day", self.crashes_a_day, 0.0)?;
        if self.swing.is_some_and(|swing| swing > 1.0) {
            return Err("swing: at most 1, where nothing comes at night".to_owned());
        }
        if self.replicas == Some(0) {
            return Err("replicas = 0: at least 1".to_owned());
        }
        if let Some(methods) = &self.methods
            && (methods.values().any(|share| *share < 0.0) || (methods.values().sum::<f64>() - 1.0).abs() > 1e-6)
        {
            return Err("methods: shares that add up to 1".to_owned());
        }
        Ok(())
    }
}

/// One service's sources: what is said of it, and what of all.
struct Sources<'s> {
    own: Option<&'s Stated>,
    all: &'s Stated,
}

impl Sources<'_> {
    fn stated<T>(&self, of: impl Fn(&Stated) -> Option<T>) -> Option<T> {
        self.own.and_then(&of).or_else(|| of(self.all))
    }
}

/// Gathers assumptions: the same one of many services is told once.
#[derive(Default)]
struct Assumed {
    all: BTreeMap<(String, String), Vec<String>>,
}

impl Assumed {
    fn add(&mut self, service: &str, what: &str, value: impl Into<String>) {
        self.all.entry((what.to_owned(), value.into())).or_default().push(service.to_owned());
    }

    fn or<T: std::fmt::Display>(&mut self, service: &str, stated: Option<T>, what: &str, default: T) -> T {
        stated.unwrap_or_else(|| {
            self.add(service, what, default.to_string());
            default
        })
    }

    fn range(&mut self, service: &str, stated: Option<Range>, what: &str, default: Range) -> Range {
        stated.unwrap_or_else(|| {
            let Range { least, most } = default;
            let text = if most > least { format!("{least} to {most} s") } else { format!("{least} s") };
            self.add(service, what, text);
            default
        })
    }
}

/// Requests a second to each replica, where nobody says.
const RATE_A_REPLICA: f64 = 10.0;
/// The `EndpointSlice` controller, the watch and kube-proxy.
const LAG: Range = Range::between(1.0, 3.0);

/// The fleet, and what was assumed for it. `rate` is that of the whole fleet, shared by replicas among those services that the
/// traffic file gives none.
pub fn assemble(
    known: &[Known],
    file: &TrafficFile,
    rate: Option<f64>,
    hops: &[Hop],
) -> Result<(Fleet, Vec<Assumption>), NotATraffic> {
    if let Some(name) = file.service.keys().find(|name| !known.iter().any(|one| one.name == **name)) {
        let names: Vec<&str> = known.iter().map(|one| one.name.as_str()).collect();
        return Err(NotATraffic(format!(
            "[service.{name}]: no such workload among what was read ({})",
            names.join(", ")
        )));
    }
    let mut assumed = Assumed::default();
    let sources = |one: &Known| Sources { own: file.service.get(&one.name), all: &file.default };
    let replicas: Vec<u32> = known
        .iter()
        .map(|one| {
            let stated = sources(one).stated(|stated| stated.replicas).or(one.replicas);
            assumed.or(&one.name, stated, "replicas", 1)
        })
        .collect();
    let own_rate = |one: &Known| sources(one).stated(|stated| stated.rate);
    let shared: f64 =
        known.iter().zip(&replicas).filter(|(one, _)| own_rate(one).is_none()).map(|(_, n)| f64::from(*n)).sum();
    let mut services = Vec::new();
    for (one, replicas) in known.iter().zip(&replicas) {
        let count = f64::from(*replicas);
        let rate = match (own_rate(one), rate) {
            (Some(rate), _) => rate,
            (None, Some(rate)) => rate * count / shared,
            (None, None) => {
                assumed.add(&one.name, "requests a second to each replica", RATE_A_REPLICA.to_string());
                RATE_A_REPLICA * count
            }
        };
        services.push(service(one, &sources(one), *replicas, rate, hops, &mut assumed)?);
    }
    let nodes = nodes(&file.nodes, &services, &mut assumed);
    // A balancer that knows nodes has its pools to each of them.
    for service in &mut services {
        if service.routing.via_nodes.is_some() {
            service.caller.pools *= nodes.count;
        }
    }
    let all = assumed.all.into_iter().map(|((what, value), services)| Assumption { what, value, services });
    Ok((Fleet { services, nodes }, all.collect()))
}

fn nodes(stated: &NodesStated, services: &[Service], assumed: &mut Assumed) -> Nodes {
    let pods: f64 = services.iter().map(|service| f64::from(service.replicas)).sum();
    Nodes {
        count: assumed.or("the nodes", stated.count, "nodes, one for ten pods", (pods / 10.0).ceil().max(1.0)),
        removed_a_day: assumed.or("the nodes", stated.removed_a_day, "nodes drained a day", 0.0),
        reclaimed_a_day: assumed.or("the nodes", stated.reclaimed_a_day, "nodes taken back a day", 0.0),
        notice_s: stated.notice.unwrap_or(30.0),
    }
}

fn traffic(one: &Known, from: &Sources<'_>, rate: f64, assumed: &mut Assumed) -> Traffic {
    let name = &one.name;
    let median = assumed.or(name, from.stated(|stated| stated.duration), "time of an answer, median, s", 0.05);
    let p99 = from.stated(|stated| stated.duration_p99);
    let p99 = assumed.or(name, p99, "time of an answer, 99th percentile over median", median * 10.0);
    Traffic {
        rate,
        swing: assumed.or(name, from.stated(|stated| stated.swing), "swing of the day", 0.3),
        peak_hour: from.stated(|stated| stated.peak_hour).unwrap_or(14.0),
        noise: assumed.or(name, from.stated(|stated| stated.noise), "noise of the rate", 0.1),
        noise_s: from.stated(|stated| stated.noise_time).unwrap_or(600.0),
        service_time: ServiceTime::by_percentiles(median, p99),
    }
}

fn caller(one: &Known, from: &Sources<'_>, hops: &[Hop], assumed: &mut Assumed) -> Result<Caller, NotATraffic> {
    let name = &one.name;
    let stated = from.stated(|stated| stated.profile.clone());
    let id = stated.as_deref().or(one.profile);
    let id = assumed.or(name, id.map(str::to_owned), "who is in front", "go-client".to_owned());
    let Some(hop) = hops.iter().find(|hop| hop.id == id) else {
        let ids: Vec<&str> = hops.iter().map(|hop| hop.id).collect();
        return Err(NotATraffic(format!("{name}: profile {id:?}: expected one of {}", ids.join(", "))));
    };
    let methods = from.stated(|stated| stated.methods.clone()).unwrap_or_else(|| {
        assumed.add(name, "methods", "GET 0.8, POST 0.2");
        BTreeMap::from([("GET".to_owned(), 0.8), ("POST".to_owned(), 0.2)])
    });
    let share = |of: fn(&Resent) -> bool| -> f64 {
        let resent = |method: &str| hop.resends.iter().any(|resent| resent.method == method && of(resent));
        methods.iter().filter(|(method, _)| resent(method)).map(|(_, share)| share).sum()
    };
    Ok(Caller {
        name: hop.id.to_owned(),
        idle_s: one.caller_idle_s.unwrap_or(hop.idle_s),
        max_requests: hop.max_requests,
        max_age_s: hop.max_age_s,
        pooling: hop.pooling,
        pools: assumed.or(name, from.stated(|stated| stated.pools), "pools of the caller", 4.0),
        window_s: assumed.or(name, from.stated(|stated| stated.window), "window of the idle race, s", 0.002),
        resends: Resends {
            connect: share(|resent| resent.connect),
            reused: share(|resent| resent.reused),
            fresh: share(|resent| resent.fresh),
            limit: hop.limit,
        },
    })
}

fn server(one: &Known, from: &Sources<'_>, assumed: &mut Assumed) -> Server {
    let name = &one.name;
    let stop = from.stated(|stated| stated.stop).map(|stop| match stop {
        StopStated::Graceful => Stop::Drains,
        StopStated::Dies => Stop::Dies,
        StopStated::Ignored => Stop::Stays { delivered: false },
    });
    let stop = stop.or(one.stop).unwrap_or_else(|| {
        let why = one.stop_unknown.as_deref().unwrap_or("the server is not known");
        assumed.add(name, "what TERM does", format!("drains: a lower bound, as {why}"));
        Stop::Drains
    });
    let never_below_0 = |span: Span| Some(Range::from(span)).filter(|range| range.least >= 0.0);
    let idle = from.stated(|stated| stated.idle).map(never_below_0).or(one.idle).unwrap_or_else(|| {
        assumed.add(name, "idle timeout of the server", "never closes: a lower bound, as the server is not known");
        None
    });
    Server {
        name: one.server.clone().unwrap_or_else(|| "not known".to_owned()),
        idle,
        stop,
        pre_stop: from
            .stated(|stated| stated.pre_stop)
            .map(Range::from)
            .or(one.pre_stop)
            .unwrap_or(Range::exactly(0.0)),
        reaction: from.stated(|stated| stated.reaction).map_or(Range::exactly(0.0), Range::from),
        finish_s: from
            .stated(|stated| stated.finish)
            .map_or(one.finish_s, Some)
            .filter(|finish| finish.is_finite() && *finish >= 0.0),
        grace_s: from.stated(|stated| stated.grace).unwrap_or(one.grace_s),
        startup: assumed.range(
            name,
            from.stated(|stated| stated.startup).map(Range::from),
            "start-up",
            Range::between(2.0, 5.0),
        ),
        readiness_s: one.readiness_s,
    }
}

fn service(
    one: &Known,
    from: &Sources<'_>,
    replicas: u32,
    rate: f64,
    hops: &[Hop],
    assumed: &mut Assumed,
) -> Result<Service, NotATraffic> {
    let name = &one.name;
    let mut caller = caller(one, from, hops, assumed)?;
    let stated_lag = from.stated(|stated| stated.lag).map(Range::from);
    let direct = one.via_nodes.filter(|_| from.stated(|stated| stated.via_nodes) != Some(false));
    let mut lag = assumed.range(name, stated_lag.or(one.lag), "routing lag", LAG);
    let via_nodes = match direct {
        Some(direct_lag) => {
            let stated = from.stated(|stated| stated.node_detection).map(Range::from);
            let detects = assumed.range(name, stated, "a node's end goes unseen", Range::between(5.0, 30.0));
            // A connection goes on to the pod that was chosen when it was made: kube-proxy decides, and the balancer does not know.
            caller.pooling = Pooling::PerService;
            if stated_lag.is_none() {
                lag = LAG;
            }
            Some(ViaNodes { detects, direct_lag })
        }
        None => None,
    };
    let drain = from.stated(|stated| stated.drain).map(|drain| Some(drain).filter(|drain| *drain >= 0.0));
    Ok(Service {
        name: name.clone(),
        replicas,
        scaling: one.scaling.clone(),
        traffic: traffic(one, from, rate, assumed),
        caller,
        server: server(one, from, assumed),
        routing: Routing { lag, drain_s: drain.or(one.drain_s).flatten(), via_nodes },
        events: Events {
            rollouts_a_day: assumed.or(name, from.stated(|stated| stated.rollouts_a_day), "rollouts a day", 1.0),
            batch: 0.25,
            restarts_a_day: from.stated(|stated| stated.restarts_a_day).unwrap_or(one.restarts_a_day),
            crashes_a_day: assumed.or(
                name,
                from.stated(|stated| stated.crashes_a_day),
                "crashes a container and day",
                0.0,
            ),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hop() -> Hop {
        Hop {
            id: "go-client",
            idle_s: 90.0,
            max_requests: None,
            max_age_s: None,
            pooling: Pooling::PerService,
            resends: vec![Resent { method: "GET", connect: false, reused: true, fresh: false }],
            limit: 8,
        }
    }

    #[test]
    fn what_is_said_of_one_comes_before_what_is_said_of_all() {
        let file = "[default]\nrate = 5\nmethods = { GET = 0.25, POST = 0.75 }\n[service.a]\nrate = 7\n";
        let file = TrafficFile::parse(file).unwrap();
        let known = ["a", "b"].map(|name| Known { name: name.into(), grace_s: 30.0, ..Known::default() });
        let (fleet, assumed) = assemble(&known, &file, None, &[hop()]).unwrap();
        let rates: Vec<f64> = fleet.services.iter().map(|service| service.traffic.rate).collect();
        assert_eq!(rates, [7.0, 5.0]);
        assert!((fleet.services[0].caller.resends.reused - 0.25).abs() < 1e-12);
        let told = |what: &str| assumed.iter().find(|one| one.what == what).map(|one| one.services.join(" "));
        assert_eq!(told("rollouts a day").as_deref(), Some("a b"), "one assumption, told once");
        assert_eq!(told("requests a second to each replica"), None);
    }

    #[test]
    fn the_rate_of_the_fleet_is_shared_by_replicas() {
        let known = [("a", 1), ("b", 3)].map(|(name, n)| Known {
            name: name.into(),
            replicas: Some(n),
            grace_s: 30.0,
            ..Known::default()
        });
        let (fleet, _) = assemble(&known, &TrafficFile::default(), Some(400.0), &[hop()]).unwrap();
        let rates: Vec<f64> = fleet.services.iter().map(|service| service.traffic.rate).collect();
        assert_eq!(rates, [100.0, 300.0]);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let check = |text: &str, expect: &str| {
            let error = TrafficFile::parse(text).unwrap_err().to_string();
            assert!(error.contains(expect), "{error}");
        };
        check("[default]\nrat = 1\n", "unknown field `rat`");
        check("[service.x]\nswing = 1.5\n", "[service.x]: swing");
        check("[service.x]\nmethods = { GET = 0.5 }\n", "[service.x]: methods: shares that add up to 1");
        let known = [Known { name: "web".into(), ..Known::default() }];
        let file = TrafficFile::parse("[service.wbe]\nrate = 1\n").unwrap();
        let error = assemble(&known, &file, None, &[hop()]).unwrap_err().to_string();
        assert!(error.contains("[service.wbe]: no such workload") && error.contains("web"), "{error}");
    }
}
