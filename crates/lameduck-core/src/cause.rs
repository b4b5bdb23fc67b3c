//! The closed taxonomy of causes. Every lost request has exactly one.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a request was lost.
///
/// The list is closed: a new cause is a new version of the contract. `Unknown` is an honest verdict for evidence that
/// does not decide; it is never a guess.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// The listener was closed while routing still sent new connections.
    RefusedWhileRouted,
    /// The server closed an idle keep-alive connection as a request was on its way.
    IdleCloseRace,
    /// The process exited, or gave the connection up, with a response in flight.
    CutMidResponse,
    /// SIGKILL at the end of the grace period.
    KilledAtDeadline,
    /// SIGTERM stopped at a PID 1 that neither handled nor forwarded it.
    SignalNotDelivered,
    /// Routed before it listened.
    NotReadyYet,
    /// Packets to an address that no longer exists.
    GoneAddress,
    /// A neighbour in the same pod had already left.
    PeerDown,
    /// The process died by itself, outside a termination.
    CrashRestart,
    /// The answer took longer than a hop's timeout.
    BackendTimeout,
    /// Queue or backlog full, or 503 by policy.
    Overload,
    /// The app itself answered 5xx.
    AppError,
    /// The evidence does not decide.
    Unknown,
}

impl Cause {
    /// Every cause, in the order of the documentation.
    pub const ALL: [Cause; 13] = [
        Cause::RefusedWhileRouted,
        Cause::IdleCloseRace,
        Cause::CutMidResponse,
        Cause::KilledAtDeadline,
        Cause::SignalNotDelivered,
        Cause::NotReadyYet,
        Cause::GoneAddress,
        Cause::PeerDown,
        Cause::CrashRestart,
        Cause::BackendTimeout,
        Cause::Overload,
        Cause::AppError,
        Cause::Unknown,
    ];

    /// The id used in every output and in the name of its documentation page.
    pub const fn id(self) -> &'static str {
        match self {
            Cause::RefusedWhileRouted => "refused-while-routed",
            Cause::IdleCloseRace => "idle-close-race",
            Cause::CutMidResponse => "cut-mid-response",
            Cause::KilledAtDeadline => "killed-at-deadline",
            Cause::SignalNotDelivered => "signal-not-delivered",
            Cause::NotReadyYet => "not-ready-yet",
            Cause::GoneAddress => "gone-address",
            Cause::PeerDown => "peer-down",
            Cause::CrashRestart => "crash-restart",
            Cause::BackendTimeout => "backend-timeout",
            Cause::Overload => "overload",
            Cause::AppError => "app-error",
            Cause::Unknown => "unknown",
        }
    }

    /// The cause with this id.
    pub fn from_id(id: &str) -> Option<Cause> {
        Cause::ALL.into_iter().find(|cause| cause.id() == id)
    }

    /// What happened, in one line.
    pub const fn what(self) -> &'static str {
        match self {
            Cause::RefusedWhileRouted => "the listener was closed while routing still sent new connections",
            Cause::IdleCloseRace => "the server closed an idle keep-alive connection as a request was on its way",
            Cause::CutMidResponse => "the process went away with a response in flight",
            Cause::KilledAtDeadline => "SIGKILL at the end of the grace period",
            Cause::SignalNotDelivered => "SIGTERM never reached the app; SIGKILL did",
            Cause::NotReadyYet => "routed before the process listened",
            Cause::GoneAddress => "packets to an address that no longer exists",
            Cause::PeerDown => "a neighbour in the same pod had already left",
            Cause::CrashRestart => "the process died by itself, outside a termination",
            Cause::BackendTimeout => "the answer took longer than a hop's timeout",
            Cause::Overload => "queue or backlog full, or 503 by policy",
            Cause::AppError => "the app itself answered with an error",
            Cause::Unknown => "the evidence does not decide",
        }
    }

    /// What prevents it, in one line.
    pub const fn cure(self) -> &'static str {
        match self {
            Cause::RefusedWhileRouted => "keep accepting until routing has stopped: lameduck run",
            Cause::IdleCloseRace => {
                "keep idle connections longer than the hop in front does; at shutdown tell clients first (the front)"
            }
            Cause::CutMidResponse => "wait for in-flight requests before the stop: lameduck run",
            Cause::KilledAtDeadline => "raise terminationGracePeriodSeconds, or stop sooner",
            Cause::SignalNotDelivered => "exec the app, or lameduck run as PID 1",
            Cause::NotReadyYet => "a readiness probe that answers only once the app serves",
            Cause::GoneAddress => "remove the endpoint before the address",
            Cause::PeerDown => "stop the neighbours in order: proxies last",
            Cause::CrashRestart => "find the crash; lameduck cannot drain a process that is already gone",
            Cause::BackendTimeout => "a timeout at the hop longer than the slowest answer",
            Cause::Overload => "capacity, or a longer queue",
            Cause::AppError => "the app's own log",
            Cause::Unknown => "more evidence: see the line that says which is missing",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_unique_kebab_case_and_round_trip() {
        for cause in Cause::ALL {
            assert_eq!(Cause::from_id(cause.id()), Some(cause));
            assert!(cause.id().chars().all(|c| c.is_ascii_lowercase() || c == '-'), "{cause}");
            assert_eq!(serde_json::to_string(&cause).unwrap(), format!("\"{}\"", cause.id()));
        }
        let mut ids: Vec<_> = Cause::ALL.iter().map(|c| c.id()).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), Cause::ALL.len());
    }
}
