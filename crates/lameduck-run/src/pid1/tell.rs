//! What PID 1 tells: whoever asks over the control socket, and whoever reads its log.

use lameduck_core::duration::show;
use lameduck_core::report::{Origin, TrafficSource};
use serde_json::json;

use crate::control::Request;
use crate::machine::{Ending, Event, Seen, State};
use crate::observe::Observer;
use crate::options::{Persona, Readiness};

use super::Init;
use super::front::Front;

impl Init {
    pub(super) fn serve_control(&mut self) {
        let Some(mut control) = self.control.take() else { return };
        let now = self.now();
        control.serve(now, |request| match request {
            Request::Status => Some(self.status()),
            Request::Drain => {
                self.apply(Event::DrainRequested);
                Some(self.status())
            }
            Request::DrainAndWait => {
                self.apply(Event::DrainRequested);
                let over = self.machine.drain().is_none_or(|drain| drain.waits_for_signal);
                let further = !matches!(self.machine.state(), State::LameDuck);
                (over || further).then(|| self.status())
            }
        });
        self.control = Some(control);
    }

    /// Where things stand, as one line of JSON: schema `lameduck.status/1`.
    pub(super) fn status(&mut self) -> String {
        let serving = matches!(self.machine.state(), State::Serving);
        if serving {
            // Nothing is watched while the app serves; whoever asks makes us look.
            self.look_once();
        }
        let name = match self.machine.state() {
            State::Starting => "starting",
            State::Serving => "serving",
            State::LameDuck => "lame-duck",
            State::Draining => "draining",
            State::Stopping => "stopping",
            State::Killing => "killing",
            State::Exited { .. } => "exited",
        };
        let front = self.front.as_ref().map(Front::status);
        let figures = self.observer.as_ref().map(|observer| observer.tracker().figures()).unwrap_or_default();
        let drain = self.machine.drain().map(|drain| {
            let [open, in_flight, new, arrivals] = match self.front.as_ref().map(Front::since_start) {
                Some(since) => since.of_drain(),
                None => [figures.open, figures.in_flight, figures.new, figures.arrivals].map(u64::from),
            };
            json!({
                "origin": drain.origin,
                "elapsed_s": self.now().saturating_sub(drain.began).as_secs_f64(),
                "quiet": drain.waits_for_signal,
                "open": open,
                "in_flight": in_flight,
                "new": new,
                "arrivals": arrivals,
            })
        });
        let status = json!({
            "schema": "lameduck.status/1",
            "state": name,
            "ready": self.ready(),
            "listeners": self.seen.listeners,
            "reaped": self.book.reaped,
            "drain": drain,
            "front": front,
        });
        format!("{status}\n")
    }

    /// Looks whether the app listens. With a front it is known where; an app elsewhere is not looked at, but the front is.
    fn look_once(&mut self) {
        let mut ports = self.options.ports.clone();
        if let Some(front) = &mut self.front {
            match front.app_port() {
                Some(port) if ports.is_empty() => ports.push(port),
                Some(_) => {}
                None => {
                    self.seen = front.look(self.epoch);
                    return;
                }
            }
        }
        let (now, app) = (self.now(), self.app());
        self.seen = Observer::new(ports, Vec::new()).look(now, app.as_deref());
    }

    pub(super) fn ready(&self) -> bool {
        let listens = self.seen.listeners != Some(0);
        match self.machine.state() {
            State::Serving => listens,
            State::LameDuck | State::Draining => listens && self.ready_while_draining(),
            State::Starting | State::Stopping | State::Killing | State::Exited { .. } => false,
        }
    }

    /// What `--readiness` says of a drain like this one.
    pub(super) fn ready_while_draining(&self) -> bool {
        let by_request = self.machine.drain().is_some_and(|drain| drain.origin == Origin::Request);
        match self.options.readiness {
            Readiness::Fail => false,
            Readiness::Keep => true,
            Readiness::Auto => self.options.in_kubernetes && !by_request,
        }
    }

    pub(super) fn say_what_is_seen(&mut self, seen: Seen) {
        let Some(observer) = &self.observer else { return };
        let ports = observer.app_ports();
        match (observer.source(), seen.listeners) {
            (TrafficSource::None, _) => self.log.warn(format_args!(
                "traffic can not be measured: neither sock_diag(7) nor /proc/net/tcp can be read; waiting for --min {}",
                show(self.policy.budget.min)
            )),
            (_, None) => self.log.warn(format_args!(
                "whose the listening ports are can not be told (its processes can not be looked into: another \
                 user's without CAP_SYS_PTRACE, or no /proc); waiting for --min {}: name them with --port",
                show(self.policy.budget.min)
            )),
            (_, Some(0)) => self.log.info(format_args!("the app listens on no port: no traffic to wait for")),
            (TrafficSource::ProcNetTcp, Some(_)) => self.log.warn(format_args!(
                "sock_diag(7) can not be used: on ports {ports:?} new connections are seen, data on open ones is not"
            )),
            (TrafficSource::SockDiag | TrafficSource::Front, Some(_)) => {
                self.log.info(format_args!("watching the traffic on ports {ports:?}"));
            }
        }
    }

    pub(super) fn say_main_ended(&mut self, ending: Ending) {
        let pid = self.main.as_raw_nonzero();
        match (ending, &self.options.persona) {
            (Ending::Code(code), Persona::DumbInit { .. }) => {
                self.verbose(format_args!("A child with PID {pid} exited with exit status {code}."));
            }
            (Ending::Killed(signal), Persona::DumbInit { .. }) => {
                self.verbose(format_args!("A child with PID {pid} was terminated by signal {}.", signal.number()));
            }
            (_, Persona::Tini { .. }) => {}
            (Ending::Code(code), Persona::Lameduck) => self.log.info(format_args!("the app exited with {code}")),
            (Ending::Killed(signal), Persona::Lameduck) => {
                self.log.info(format_args!("the app was ended by SIG{signal}"));
            }
        }
    }
}
