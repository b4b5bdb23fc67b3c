//! One server's true manners, measured: how long it keeps an idle connection before the first request and after an answer (Node
//! has two), how many requests one takes, and what the command does at TERM.

mod clock;
pub mod idle;
pub mod process;
pub mod render;
pub mod term;
pub mod wire;

use std::ffi::OsString;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use lameduck_core::catalog::{self, Caller};
use serde::Serialize;

use idle::{Idle, Meeting};
use term::{Running, Term};
use wire::Target;

/// The schema of [`Report`].
pub const SCHEMA: &str = "lameduck.probe/1";

/// What is measured, and how long at most.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The server; with a command, the address where it will listen.
    pub target: Target,
    /// The command; none: the server runs already.
    pub command: Vec<OsString>,
    /// A path that takes a while, for a request in flight at TERM.
    pub slow: Option<String>,
    /// The longest idle time waited for.
    pub most_idle: Duration,
    /// The most requests sent on one connection.
    pub most_requests: u32,
    /// From TERM to KILL.
    pub grace: Duration,
    /// Until the command answers.
    pub ready: Duration,
    /// Who stands in front.
    pub behind: Vec<&'static Caller>,
}

/// Why nothing could be measured.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// No such address.
    #[error("{url}: {why}; expected http://HOST[:PORT][/PATH]")]
    Url {
        /// What was given.
        url: String,
        /// What is wrong.
        why: String,
    },
    /// No command.
    #[error("no command to start")]
    NoCommand,
    /// It did not start.
    #[error("{command}: {error}; is it installed, and in PATH?")]
    Start {
        /// The command.
        command: String,
        /// Why.
        error: std::io::Error,
    },
    /// It ended at once.
    #[error(
        "the command ended before it answered: {status}; does it listen on 127.0.0.1:$PORT ({{port}} in an argument is replaced)?"
    )]
    Exited {
        /// How.
        status: String,
    },
    /// It took a request and did not answer it.
    #[error(
        "{address} took a request and did not answer it within 10 s; nothing can be measured of a server that does not answer"
    )]
    NoAnswer {
        /// Where.
        address: String,
    },
    /// It never answered.
    #[error(
        "nothing answered at {address} within {seconds} s; does it listen on 127.0.0.1:$PORT ({{port}} in an argument is replaced)?"
    )]
    NotReady {
        /// Where.
        address: String,
        /// How long.
        seconds: f64,
    },
}

/// A comparison with somebody in front.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Behind {
    /// Who.
    pub caller: &'static str,
    /// How long they keep an idle connection.
    pub keeps_s: f64,
    /// Whether the server closes first; none: it was not seen to close.
    pub race: Option<bool>,
    /// In words.
    pub words: String,
}

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// Where.
    pub address: String,
    /// The command.
    pub command: Vec<String>,
    /// Until an unused connection was closed; null: not within `most_idle_s`.
    pub idle_before_first_request_s: Option<f64>,
    /// Until a connection was closed after an answer; null: not within `most_idle_s`.
    pub idle_after_response_s: Option<f64>,
    /// Whether the two differ by more than half a second: the naive test sees only the first.
    pub idle_times_differ: bool,
    /// The longest that was waited.
    pub most_idle_s: f64,
    /// Requests on one connection; null: no limit up to `most_requests`.
    pub requests_per_connection: Option<u32>,
    /// The most that were tried.
    pub most_requests: u32,
    /// Whether the last answer before that limit said so.
    pub limit_announced: Option<bool>,
    /// The server's `Keep-Alive` header.
    pub keep_alive: Option<String>,
    /// The server's `Server` header.
    pub server: Option<String>,
    /// What requests that met the idle close came to.
    pub meeting_the_close: Option<Meeting>,
    /// What the command does at TERM.
    pub term: Option<Term>,
    /// Servers whose known idle time this is.
    pub resembles: Vec<&'static str>,
    /// Against those in front.
    pub behind: Vec<Behind>,
}

/// The target of `http://HOST[:PORT][/PATH]`.
pub fn target(url: &str) -> Result<Target, ProbeError> {
    let wrong = |why: &str| ProbeError::Url { url: url.to_owned(), why: why.to_owned() };
    if url.starts_with("https://") {
        return Err(wrong("TLS is not spoken; probe the server behind it, where it speaks plain HTTP"));
    }
    let rest = url.strip_prefix("http://").unwrap_or(url);
    let (host, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    let name = if host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
        host.to_owned()
    } else {
        format!("{host}:80")
    };
    let address =
        name.to_socket_addrs().map_err(|error| wrong(&error.to_string()))?.next().ok_or_else(|| wrong("no address"))?;
    Ok(Target { address, host: host.to_owned(), path: path.to_owned() })
}

/// A target on loopback, at a port that nobody listens on.
pub fn local(path: &str) -> std::io::Result<Target> {
    let address: SocketAddr = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    Ok(Target { address, host: address.to_string(), path: path.to_owned() })
}

/// Measures. `tell` hears what is being done.
pub fn probe(plan: &Plan, tell: &mut dyn FnMut(&str)) -> Result<Report, ProbeError> {
    let running =
        if plan.command.is_empty() { None } else { Some(Running::start(&plan.command, &plan.target, plan.ready)?) };
    let target = &plan.target;
    if running.is_none()
        && let Err(error) = target.connect(Duration::from_secs(5))
    {
        return Err(ProbeError::Url { url: target.address.to_string(), why: error.to_string() });
    }
    tell("requests on one connection");
    let (requests, announced) = idle::requests(target, plan.most_requests);
    tell("idle before the first request, and after an answer");
    let Idle { before_first: before, after_answer: after, answer } = idle::idle(target, plan.most_idle);
    let Some(answer) = answer else {
        return Err(ProbeError::NoAnswer { address: target.address.to_string() });
    };
    let met = after.filter(|idle| *idle > 0.05).map(|idle| {
        tell("requests that meet the close");
        idle::meet(target, idle)
    });
    let term = running.map(|running| {
        tell("TERM");
        running.term(target, plan.slow.as_deref(), plan.grace)
    });
    let mut resembles: Vec<&'static str> =
        after.into_iter().flat_map(catalog::servers_idle_for).map(|server| server.name).collect();
    resembles.dedup();
    Ok(Report {
        schema: SCHEMA,
        address: target.address.to_string(),
        command: plan.command.iter().map(|word| word.to_string_lossy().into_owned()).collect(),
        idle_before_first_request_s: before.map(millis),
        idle_after_response_s: after.map(millis),
        idle_times_differ: match (before, after) {
            (Some(before), Some(after)) => (before - after).abs() > 0.5,
            (None, None) => false,
            (Some(_), None) | (None, Some(_)) => true,
        },
        most_idle_s: plan.most_idle.as_secs_f64(),
        requests_per_connection: requests,
        most_requests: plan.most_requests,
        limit_announced: announced,
        keep_alive: answer.keep_alive,
        server: answer.server,
        meeting_the_close: met,
        term,
        resembles,
        behind: plan.behind.iter().map(|caller| behind(caller, after, plan.most_idle)).collect(),
    })
}

fn millis(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

fn behind(caller: &Caller, idle: Option<f64>, waited: Duration) -> Behind {
    let keeps = caller.idle_s;
    let (race, words) = match idle {
        Some(idle) if idle < 0.05 => {
            (Some(false), format!("this server closes after each answer; {} never reuses a connection", caller.name))
        }
        Some(idle) if idle <= keeps => {
            (Some(true), format!("this server closes at {idle:.1} s; {} keeps {keeps} s: race", caller.name))
        }
        Some(idle) => {
            (Some(false), format!("this server closes at {idle:.1} s; {} gives up first, at {keeps} s", caller.name))
        }
        None if waited.as_secs_f64() > keeps => (
            Some(false),
            format!(
                "this server keeps longer than {:.0} s; {} gives up first, at {keeps} s",
                waited.as_secs_f64(),
                caller.name
            ),
        ),
        None => (
            None,
            format!(
                "this server was not seen to close within {:.0} s; {} keeps {keeps} s: wait longer to know",
                waited.as_secs_f64(),
                caller.name
            ),
        ),
    };
    Behind { caller: caller.id, keeps_s: keeps, race, words }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_closes_first() {
        let glb = catalog::caller_of("glb").unwrap();
        let check = |idle: Option<f64>, waited: u64, race: Option<bool>| {
            assert_eq!(behind(glb, idle, Duration::from_secs(waited)).race, race, "{idle:?}");
        };
        check(Some(5.0), 90, Some(true));
        check(Some(620.0), 700, Some(false));
        check(None, 90, None);
        check(None, 700, Some(false));
        assert_eq!(
            behind(glb, Some(5.0), Duration::from_secs(90)).words,
            "this server closes at 5.0 s; Google Cloud load balancer keeps 600 s: race"
        );
    }

    #[test]
    fn targets() {
        let read = target("http://127.0.0.1:8080/a?b").unwrap();
        assert_eq!((read.address.to_string().as_str(), read.path.as_str()), ("127.0.0.1:8080", "/a?b"));
        assert!(target("https://127.0.0.1/").is_err());
    }
}
