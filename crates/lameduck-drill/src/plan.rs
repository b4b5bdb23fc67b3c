//! What a drill does: every value resolved, nothing read from anywhere else.

use std::ffi::OsString;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use lameduck_core::duration;

use crate::mix::{Kind, Template, default_mix};
use crate::profile::Profile;
use crate::schedule::Spacing;

/// The most requests that one run may schedule: what its records need is kept in memory, about 200 bytes each.
pub const MOST_REQUESTS: f64 = 5e6;

/// What happens to the replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// The newest replica gets the stop signal.
    Term,
    /// Each replica in turn: a replacement is started and routed to, then the old one gets the stop signal.
    Roll,
    /// The newest replicas get the stop signal at once.
    ScaleDown {
        /// How many.
        count: usize,
    },
    /// The newest replica is killed by SIGKILL, without a word before it.
    Kill,
    /// Further replicas are started and routed to at once, whether they listen or not: as without a readiness probe.
    ScaleUp {
        /// How many.
        count: usize,
    },
    /// One process below the newest replica is killed by SIGKILL, while the replica itself is not told to stop.
    KillChild {
        /// The first argument of that process, exactly.
        word: String,
    },
    /// The newest replica gets the stop signal and, once it has exited, is started again on the same port.
    Restart,
    /// Connections are opened, nothing is sent for a time, then each is used once more around that time.
    Idle {
        /// How long each connection is idle: the server's idle timeout, to meet its close.
        quiet: Duration,
    },
}

/// An action on the timeline, `ACTION[=VALUE][@AT]`: `term`, `roll@5s`, `scale-down=2@3s`, `idle=5s@2s`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// When, after the load began. An event waits for the end of the one before it.
    pub at: Duration,
    /// What.
    pub action: Action,
}

/// Why a text is not an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not an event: {wrong}; expected ACTION[=VALUE][@AT], as in term, roll@5s, scale-down=2@3s, idle=5s@2s"
)]
pub struct NotAnEvent {
    text: String,
    wrong: String,
}

/// When an event happens where it does not say.
pub const DEFAULT_AT: Duration = Duration::from_secs(2);
/// How long `idle` is quiet where it does not say: the idle timeout of Node, uvicorn and Apache.
pub const DEFAULT_QUIET: Duration = Duration::from_secs(5);

impl FromStr for Event {
    type Err = NotAnEvent;

    fn from_str(text: &str) -> Result<Event, NotAnEvent> {
        let wrong = |wrong: String| NotAnEvent { text: text.to_owned(), wrong };
        let (what, at) = match text.rsplit_once('@') {
            Some((what, at)) => (what, duration::parse(at).map_err(|error| wrong(error.to_string()))?),
            None => (text, DEFAULT_AT),
        };
        let (name, value) = what.split_once('=').map_or((what, None), |(name, value)| (name, Some(value)));
        let action = match (name, value) {
            ("term", None) => Action::Term,
            ("roll", None) => Action::Roll,
            ("kill", None) => Action::Kill,
            ("restart", None) => Action::Restart,
            ("kill-child", Some(word)) if !word.is_empty() && !word.contains(char::is_whitespace) => {
                Action::KillChild { word: word.to_owned() }
            }
            ("kill-child", _) => return Err(wrong("kill-child=WORD takes the first argument of a process".into())),
            ("scale-down", None) => Action::ScaleDown { count: 1 },
            ("scale-down", Some(count)) => match count.parse() {
                Ok(count) if count > 0 => Action::ScaleDown { count },
                Ok(_) | Err(_) => return Err(wrong(format!("{count:?} is not a number of replicas"))),
            },
            ("scale-up", None) => Action::ScaleUp { count: 1 },
            ("scale-up", Some(count)) => match count.parse() {
                Ok(count) if (1..=100).contains(&count) => Action::ScaleUp { count },
                Ok(_) | Err(_) => return Err(wrong(format!("{count:?} is not a number of replicas"))),
            },
            ("idle", None) => Action::Idle { quiet: DEFAULT_QUIET },
            ("idle", Some(quiet)) => {
                Action::Idle { quiet: duration::parse(quiet).map_err(|error| wrong(error.to_string()))? }
            }
            ("term" | "roll" | "kill" | "restart", Some(_)) => return Err(wrong(format!("{name} takes no value"))),
            _ => {
                return Err(wrong(format!(
                    "no action {name:?} (term, roll, scale-down, scale-up, kill, kill-child, restart, idle)"
                )));
            }
        };
        Ok(Event { at, action })
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::Term => write!(f, "term"),
            Action::Roll => write!(f, "roll"),
            Action::ScaleDown { count } => write!(f, "scale-down={count}"),
            Action::ScaleUp { count } => write!(f, "scale-up={count}"),
            Action::Kill => write!(f, "kill"),
            Action::KillChild { word } => write!(f, "kill-child={word}"),
            Action::Restart => write!(f, "restart"),
            Action::Idle { quiet } => write!(f, "idle={}", duration::show(*quiet)),
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.action, duration::show(self.at))
    }
}

/// A proxy that balances over the replicas, which the load goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Via {
    /// Its address.
    pub address: SocketAddr,
    /// Whether it keeps connections to the replicas for later requests.
    pub keeps: bool,
    /// How long it tries to connect.
    pub connect_timeout: Duration,
}

/// Replicas that are pods. Each has an address of its own, so they share one port; the command holds the pod, and is told by
/// SIGUSR1 that its grace is over instead of being killed itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pods {
    /// The first replica's address; each further one has the next.
    pub first: Ipv4Addr,
    /// The port at which every pod serves.
    pub port: u16,
}

impl Pods {
    /// The address of the replica started `index`-th, from 0.
    pub fn address(&self, index: usize) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::from(u32::from(self.first).wrapping_add(index as u32)), self.port))
    }
}

/// Everything a drill needs to know.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The service: program and arguments. `{port}` in an argument becomes the replica's port, `{host}` its address.
    pub command: Vec<OsString>,
    /// Put before the command where the wrapped variant is run, as in `lameduck run --`. Only [`crate::compare`] uses it.
    pub wrap: Vec<OsString>,
    /// Further environment of the replicas; `{port}` in a value becomes the port. `PORT` is always set.
    pub env: Vec<(OsString, OsString)>,
    /// How many replicas serve. Default 3.
    pub replicas: usize,
    /// Requests a second, to all replicas together. Default 100.
    pub rate: f64,
    /// How they are spaced. Default constant.
    pub spacing: Spacing,
    /// The least time under load; it goes on until every event is done. Default 10 s.
    pub duration: Duration,
    /// How long the load goes on after the last event and the last change of routing. Default 1 s.
    pub tail: Duration,
    /// What stands in front. Default `glb`.
    pub profile: Profile,
    /// The work. Default GET / and, one in ten, HEAD /.
    pub mix: Vec<Template>,
    /// What happens. Default one `roll`, after 2 s.
    pub events: Vec<Event>,
    /// How long routing goes on sending to a replica after its stop signal. Default 3 s.
    pub lag: Duration,
    /// From the stop signal to SIGKILL. Default 30 s.
    pub grace: Duration,
    /// The stop signal's number. Default 15, SIGTERM.
    pub stop_signal: i32,
    /// The most time for one answer. Default 15 s.
    pub timeout: Duration,
    /// The most time for one handshake. Default 3 s.
    pub connect_timeout: Duration,
    /// The round trip simulated between choosing a connection and the request's arrival: the time in which a close
    /// and a request can cross. Default 1 ms.
    pub rtt: Duration,
    /// The path asked until a replica is ready. Default `/`.
    pub ready_path: String,
    /// The most time until a replica is ready. Default 30 s.
    pub ready_timeout: Duration,
    /// The address replicas are reached at. Default 127.0.0.1.
    pub host: IpAddr,
    /// The first port tried; 0 chooses one by the process id. Each replica takes the next free one.
    pub port_base: u16,
    /// Where each replica is a pod: their addresses. Default none: all replicas are reached at `host`.
    pub pods: Option<Pods>,
    /// How many connections the event `idle` opens for each replica. Default 16.
    pub idle_connections: usize,
    /// What the load is drawn from. Default 1.
    pub seed: u64,
    /// The least number of requests sent for a verdict. Default 300: with no loss, at most 1 % at 95 % confidence.
    pub min_sample: u64,
    /// The most connections open at once; a request that would need one more is dropped and shown. Default 1000.
    pub max_connections: usize,
    /// Whether the id is also sent as the query parameter `lameduck-id`. Default no: the header only.
    pub id_in_query: bool,
    /// Where the replicas' output is kept, a file each. Default nowhere; it is searched for ids all the same.
    pub logs: Option<PathBuf>,
    /// The proxy in the path. It has to know the replicas, so their ports are fixed or they are pods, and routing is its own affair. Default none.
    pub via: Option<Via>,
    /// Where the log of a Google load balancer in the drill's place is written. Default nowhere.
    pub lb_log: Option<PathBuf>,
    /// Where is written what a cluster records of the replicas' lives. Default nowhere.
    pub cluster_log: Option<PathBuf>,
}

impl Default for Plan {
    fn default() -> Plan {
        let seconds = Duration::from_secs;
        Plan {
            command: Vec::new(),
            wrap: Vec::new(),
            env: Vec::new(),
            replicas: 3,
            rate: 100.0,
            spacing: Spacing::default(),
            duration: seconds(10),
            tail: seconds(1),
            profile: Profile::default(),
            mix: default_mix(),
            events: vec![Event { at: DEFAULT_AT, action: Action::Roll }],
            lag: seconds(3),
            grace: seconds(30),
            stop_signal: 15,
            timeout: seconds(15),
            connect_timeout: seconds(3),
            rtt: Duration::from_millis(1),
            ready_path: "/".into(),
            ready_timeout: seconds(30),
            host: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port_base: 0,
            pods: None,
            idle_connections: 16,
            seed: 1,
            min_sample: 300,
            max_connections: 1000,
            id_in_query: false,
            logs: None,
            via: None,
            lb_log: None,
            cluster_log: None,
        }
    }
}

/// Why a plan cannot be carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadPlan(String);

impl BadPlan {
    pub(crate) fn new(message: &str) -> BadPlan {
        BadPlan(message.to_owned())
    }
}

impl Plan {
    /// Refuses what cannot be meant, naming the option.
    pub fn check(&self) -> Result<(), BadPlan> {
        let refuse = |wrong: bool, message: String| if wrong { Err(BadPlan(message)) } else { Ok(()) };
        refuse(self.command.is_empty(), "no command: give the service to start after --".into())?;
        refuse(!(1..=100).contains(&self.replicas), format!("--replicas {}: 1 to 100", self.replicas))?;
        let rate = self.rate;
        refuse(
            !(rate.is_finite() && rate > 0.0 && rate <= 20_000.0),
            format!("--rate {rate}: above 0, at most 20000"),
        )?;
        refuse(
            self.via.is_some() && ((self.port_base == 0 && self.pods.is_none()) || self.lb_log.is_some()),
            "--via: the proxy has to know the replicas' ports (--port-base), and writes its own log (no --lb-log)"
                .into(),
        )?;
        refuse(self.mix.is_empty(), "--requests: the mix is empty".into())?;
        refuse(self.grace.is_zero(), "--grace 0s: SIGKILL would come with the stop signal; use the event kill".into())?;
        refuse(!(1..=31).contains(&self.stop_signal), format!("--stop-signal {}: 1 to 31", self.stop_signal))?;
        refuse(!self.ready_path.starts_with('/'), format!("--ready-path {:?}: starts with /", self.ready_path))?;
        refuse(self.max_connections == 0, "--max-connections 0: at least 1".into())?;
        let longest = self.longest().as_secs_f64() * rate;
        refuse(
            longest > MOST_REQUESTS,
            format!("up to {longest:.0} requests (--rate times the longest run): at most {MOST_REQUESTS:.0}"),
        )?;
        let gone: usize = self.events.iter().map(|event| gone(&event.action)).sum();
        refuse(
            gone > self.replicas,
            format!("the events end {gone} replicas for good, but --replicas is {}", self.replicas),
        )
    }

    /// The longest that one exchange may take: the bound on an answer, and a WebSocket's life with that bound at its end.
    pub fn longest_exchange(&self) -> Duration {
        let lives = self.mix.iter().map(|template| match template.kind {
            Kind::Http1 | Kind::Expect | Kind::H2 => Duration::ZERO,
            Kind::WebSocket { life, .. } => life + self.timeout * 2,
        });
        lives.max().unwrap_or_default() + self.timeout
    }

    /// The longest that the load can last, by the bounds on each event.
    pub fn longest(&self) -> Duration {
        let start_and_stop = self.ready_timeout + self.grace;
        let events = self.events.iter().map(|event| match &event.action {
            Action::Roll => start_and_stop * self.replicas as u32,
            Action::Term | Action::ScaleDown { .. } | Action::Kill => self.grace,
            Action::Restart => start_and_stop,
            Action::ScaleUp { .. } => self.ready_timeout,
            Action::KillChild { .. } => Duration::ZERO,
            Action::Idle { quiet } => *quiet + self.timeout,
        });
        let last_at = self.events.iter().map(|event| event.at).max().unwrap_or_default();
        (last_at + events.sum::<Duration>()).max(self.duration) + self.lag + self.tail
    }
}

/// How many replicas an action ends without a successor.
fn gone(action: &Action) -> usize {
    match action {
        Action::Term | Action::Kill => 1,
        Action::ScaleDown { count } => *count,
        Action::Roll | Action::Restart | Action::ScaleUp { .. } | Action::KillChild { .. } | Action::Idle { .. } => 0,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn events_read_as_they_are_written() {
        let check = |text: &str, at: u64, action: Action| {
            assert_eq!(text.parse(), Ok(Event { at: Duration::from_millis(at), action }), "{text}");
        };
        check("term", 2000, Action::Term);
        check("roll@500ms", 500, Action::Roll);
        check("scale-down=2@3s", 3000, Action::ScaleDown { count: 2 });
        check("scale-down", 2000, Action::ScaleDown { count: 1 });
        check("scale-up=2@3s", 3000, Action::ScaleUp { count: 2 });
        check("kill-child=serve-front@3s", 3000, Action::KillChild { word: "serve-front".into() });
        check("idle=6s@1", 1000, Action::Idle { quiet: Duration::from_secs(6) });
        for bad in [
            "",
            "stop",
            "term=1",
            "scale-down=0",
            "scale-down=x",
            "scale-up=0",
            "idle=x",
            "kill-child",
            "kill-child=",
            "term@",
            "term@x",
        ] {
            let error = bad.parse::<Event>().unwrap_err().to_string();
            assert!(error.contains("expected ACTION[=VALUE][@AT]"), "{error}");
        }
    }

    #[test]
    fn impossible_plans_are_refused_by_option() {
        let good = Plan { command: vec!["x".into()], ..Plan::default() };
        assert_eq!(good.check(), Ok(()));
        let check = |plan: Plan, expect: &str| {
            let error = plan.check().unwrap_err().to_string();
            assert!(error.contains(expect), "{error}");
        };
        check(Plan { command: Vec::new(), ..good.clone() }, "no command");
        check(Plan { replicas: 0, ..good.clone() }, "--replicas 0");
        check(Plan { rate: f64::NAN, ..good.clone() }, "--rate NaN");
        check(Plan { mix: Vec::new(), ..good.clone() }, "mix is empty");
        check(Plan { grace: Duration::ZERO, ..good.clone() }, "--grace");
        check(Plan { rate: 10_000.0, duration: Duration::from_hours(1), ..good.clone() }, "at most 5000000");
        let four = Event { at: DEFAULT_AT, action: Action::ScaleDown { count: 4 } };
        check(Plan { events: vec![four], ..good }, "end 4 replicas for good");
    }

    proptest! {
        #[test]
        fn events_round_trip(at in 0u64..100_000, which in 0usize..8, n in 1u64..100, word in "[a-z][a-z-]{0,12}") {
            let quiet = Duration::from_millis(n * 10);
            let actions = [Action::Term, Action::Roll, Action::ScaleDown { count: n as usize }, Action::ScaleUp { count: n as usize }, Action::Kill, Action::Restart, Action::Idle { quiet }, Action::KillChild { word }];
            let event = Event { at: Duration::from_millis(at), action: actions[which].clone() };
            prop_assert_eq!(event.to_string().parse(), Ok(event));
        }

        #[test]
        fn reading_an_event_never_panics(text in ".{0,20}") {
            let _ = text.parse::<Event>();
        }
    }
}
