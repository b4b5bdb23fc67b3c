//! What `lameduck run` was asked to do, resolved: nothing here is read from the environment or the command line.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use lameduck_core::budget::{Budget, Impossible, Shares};

use crate::log::Format;
use crate::machine::{OnMainEnd, OnStop, Policy};
use crate::observe::Cidr;
use crate::signal::{Rewrites, Signal};
use crate::sys::Session;

/// How far lameduck goes: for rolling it out zone by zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Becomes the command. lameduck leaves no trace.
    Off,
    /// Passes signals on like any init, and reports what it would have done.
    Observe,
    /// Acts.
    On,
}

impl Mode {
    /// Its name, as in `--mode`.
    pub const fn name(self) -> &'static str {
        match self {
            Mode::Off => "off",
            Mode::Observe => "observe",
            Mode::On => "on",
        }
    }
}

/// Who gets the signals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The main process first; once it has ended, or half of the time is over, every other process of the app.
    Tree,
    /// The process group of the main process.
    Group,
    /// The main process, never another.
    Single,
}

/// What readiness says while the drain is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// Not ready.
    Fail,
    /// Ready until the app is told to stop.
    Keep,
    /// In Kubernetes: not ready where a drain was asked for ahead of the signal (nobody else knows of it), ready after the
    /// signal (the endpoint is terminating already, and failing readiness would opt it out of kube-proxy's fallback to
    /// terminating endpoints). Elsewhere: not ready, since the health check is the only signal there is.
    Auto,
}

/// The front, as far as PID 1 has to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrontPlan {
    /// Where it listens.
    pub listen: Vec<SocketAddr>,
    /// The words that start it, after the program's own: a verb and what it reads its options from.
    pub words: Vec<OsString>,
    /// Where the app listens, for people. `None`: where PID 1 tells it to, by the variable `PORT`.
    pub upstream: Option<String>,
    /// The port of this host at which the app listens, where it was said: whether somebody does tells readiness.
    pub app_port: Option<u16>,
    /// Whether it writes to standard output.
    pub stdout: bool,
}

/// The other containers of the pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodPlan {
    /// Whether they are looked for, and may find this one.
    pub order: bool,
    /// The name by which they know this one.
    pub name: Option<String>,
    /// Its name where none was given and the kubelet's mounts have none; else the command's.
    pub default_name: Option<&'static str>,
    /// Those that leave before this one.
    pub after: Vec<String>,
}

impl Default for PodPlan {
    fn default() -> Self {
        PodPlan { order: true, name: None, default_name: None, after: Vec::new() }
    }
}

/// Whose manners lameduck takes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Persona {
    /// Its own.
    Lameduck,
    /// Called as `tini`.
    Tini {
        /// `-s`, or `TINI_SUBREAPER`.
        subreaper: bool,
        /// `-p`: the signal to get when the parent ends.
        parent_death: Option<Signal>,
        /// `-v`, or `TINI_VERBOSITY`.
        verbosity: u32,
        /// `-w`: tell of each process reaped.
        warn_on_reap: bool,
    },
    /// Called as `dumb-init`.
    DumbInit {
        /// A session for the child (not `-c`).
        setsid: bool,
        /// `-v`, or `DUMB_INIT_DEBUG=1`.
        verbose: bool,
    },
}

/// The options of `lameduck run`.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// The command.
    pub command: Vec<OsString>,
    /// How far to go.
    pub mode: Mode,
    /// The division of the grace period, as asked for.
    pub shares: Shares,
    /// The app's ports; empty: found out.
    pub ports: Vec<u16>,
    /// Sources that are no traffic.
    pub ignore_from: Vec<Cidr>,
    /// What becomes of signals.
    pub rewrites: Rewrites,
    /// The signals that begin the drain.
    pub drain_on: Vec<Signal>,
    /// The signal that tells the app to stop.
    pub stop_signal: Option<Signal>,
    /// The command that stops the app, instead of a signal.
    pub stop_command: Option<String>,
    /// Commands to run when the drain begins.
    pub pre_stop: Vec<String>,
    /// The timeout of each.
    pub pre_stop_timeout: Duration,
    /// Whether a repeated stop signal cuts the drain short.
    pub force_on_repeat: bool,
    /// Who gets the signals.
    pub scope: Scope,
    /// Whether the end of the main process is the end of the app, or only the end of all is.
    pub wait_for_all: bool,
    /// Exit statuses to replace.
    pub map_exit: Vec<(u8, u8)>,
    /// How log lines look.
    pub log_format: Format,
    /// Where the drain report goes besides standard error.
    pub report: Option<PathBuf>,
    /// Where the admin endpoints are served.
    pub admin: Option<SocketAddr>,
    /// What readiness says while draining.
    pub readiness: Readiness,
    /// Whether this is a pod (`KUBERNETES_SERVICE_HOST` is set).
    pub in_kubernetes: bool,
    /// Whose manners.
    pub persona: Persona,
    /// The front, where there is one.
    pub front: Option<FrontPlan>,
    /// The other containers of the pod.
    pub pod: PodPlan,
    /// The words that start the process which watches `EndpointSlices`, after the program's own.
    pub watch_endpoints: Option<Vec<OsString>>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            command: Vec::new(),
            mode: Mode::On,
            shares: Shares::default(),
            ports: Vec::new(),
            ignore_from: Vec::new(),
            rewrites: Rewrites::default(),
            drain_on: vec![Signal::TERM],
            stop_signal: None,
            stop_command: None,
            pre_stop: Vec::new(),
            pre_stop_timeout: Duration::from_secs(5),
            force_on_repeat: false,
            scope: Scope::Tree,
            wait_for_all: false,
            map_exit: Vec::new(),
            log_format: Format::Text,
            report: None,
            admin: None,
            readiness: Readiness::Auto,
            in_kubernetes: false,
            persona: Persona::Lameduck,
            front: None,
            pod: PodPlan::default(),
            watch_endpoints: None,
        }
    }
}

impl Options {
    /// What the state machine has to know.
    pub fn policy(&self) -> Result<Policy, Impossible> {
        let pre_stop = self.pre_stop_timeout * self.pre_stop.len() as u32;
        let budget = Budget::divide(&Shares { pre_stop, ..self.shares })?;
        let (on_stop, on_main_end) = match (&self.persona, self.mode) {
            (Persona::Tini { .. }, _) => (OnStop::Forward, OnMainEnd::Exit),
            (Persona::DumbInit { .. }, _) => (OnStop::Forward, OnMainEnd::SignalAndExit(Signal::TERM)),
            (Persona::Lameduck, Mode::Off | Mode::Observe) => (OnStop::Report, OnMainEnd::Exit),
            (Persona::Lameduck, Mode::On) if self.wait_for_all => (OnStop::Drain, OnMainEnd::WaitForAll),
            (Persona::Lameduck, Mode::On) => (OnStop::Drain, OnMainEnd::StopOthers),
        };
        Ok(Policy {
            budget,
            on_stop,
            stop_signals: self.drain_on.iter().fold(0, |set, signal| set | signal.bit()),
            rewrites: self.rewrites,
            stop_with: self.stop_signal,
            on_main_end,
            descendants: self.scope != Scope::Single,
            force_on_repeat: self.force_on_repeat,
            min_is_asked: self.shares.min.is_some(),
            pre_stop: !self.pre_stop.is_empty(),
            stop_command: self.stop_command.is_some(),
            suspend_self: !matches!(self.persona, Persona::Tini { .. }),
            front: self.front.is_some(),
        })
    }

    /// The session of the main process.
    pub const fn session(&self) -> Session {
        match self.persona {
            Persona::Lameduck | Persona::Tini { .. } => Session::Group,
            Persona::DumbInit { setsid: true, .. } => Session::Own,
            Persona::DumbInit { setsid: false, .. } => Session::Shared,
        }
    }

    /// The status to exit with.
    pub fn mapped(&self, status: u8) -> u8 {
        self.map_exit.iter().find(|(from, _)| *from == status).map_or(status, |(_, to)| *to)
    }
}

/// A command line given as one text: its words, or, if it needs a shell, `/bin/sh -c` with it. So simple commands work in
/// images that have no shell.
pub fn command_words(text: &str) -> Vec<OsString> {
    if text.contains(|c: char| "|&;<>()$`\\\"'*?[]#~=%{}!\n".contains(c)) {
        vec!["/bin/sh".into(), "-c".into(), text.into()]
    } else {
        text.split_ascii_whitespace().map(OsString::from).collect()
    }
}

/// Reads one `--map-exit` value: `143=0`.
pub fn parse_map_exit(text: &str) -> Option<(u8, u8)> {
    let (from, to) = text.split_once('=')?;
    Some((from.parse().ok()?, to.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_only_where_it_is_needed() {
        assert_eq!(command_words("passenger stop --port 5000"), ["passenger", "stop", "--port", "5000"]);
        assert_eq!(command_words("sleep 5; nginx -s quit"), ["/bin/sh", "-c", "sleep 5; nginx -s quit"]);
        assert_eq!(command_words("  "), [""; 0]);
    }

    #[test]
    fn exit_maps() {
        let options = Options { map_exit: vec![(143, 0)], ..Options::default() };
        assert_eq!((options.mapped(143), options.mapped(1)), (0, 1));
        assert_eq!(parse_map_exit("143=0"), Some((143, 0)));
        for bad in ["", "143", "143=", "=0", "256=0", "143=0=1", "a=b", "-1=0"] {
            assert_eq!(parse_map_exit(bad), None, "{bad}");
        }
    }

    #[test]
    fn pre_stop_timeouts_count_against_the_budget() {
        let options = Options { pre_stop: vec!["a".into(); 6], ..Options::default() };
        assert!(options.policy().unwrap_err().to_string().contains("--pre-stop timeouts 30s"));
    }
}
