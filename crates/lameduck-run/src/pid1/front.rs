//! The front, seen from PID 1: its listeners, its process, the commands that hold, and the page it writes.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use lameduck_core::front::{self, Command, Figures, FrontPhase, Page, Slot};
use lameduck_core::report::{FrontReport, Origin, SourceCount, Traffic, TrafficSource};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socketpair};
use rustix::process::Pid;

use super::start::{StartError, listen};
use super::{monotonic, pipe};
use crate::log::Log;
use crate::machine::{Ending, Seen, Time};
use crate::options::FrontPlan;
use crate::signal::Signal;
use crate::sys::{self, ALL_SIGNALS, Session, Start};

/// The number of the command socket in the front's process.
pub const COMMANDS_DESCRIPTOR: RawFd = 3;
/// The number of the shared page there.
pub const PAGE_DESCRIPTOR: RawFd = 4;
/// The number of the first listener there; the others follow.
pub const LISTENERS_DESCRIPTOR: RawFd = 5;
/// The most addresses to listen at.
pub const MOST_LISTENERS: usize = 32;
/// The variable that tells the app where to listen.
pub const PORT: &str = "PORT";

/// Connections that the kernel keeps until they are accepted, if `net.core.somaxconn` allows as many (listen(2)).
const BACKLOG: i32 = 4096;
/// How often its page is looked at while clients are asked to leave.
const PACE: Duration = Duration::from_millis(50);
/// The same while it closes: until it has, connections may still arrive at the listener that PID 1 holds.
const PACE_CLOSING: Duration = Duration::from_millis(10);
/// A front that died this soon after another is started again only after a pause.
const TOO_SOON: Duration = Duration::from_secs(1);
/// The first pause; it doubles.
const PAUSE: Duration = Duration::from_millis(100);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// At the very end, how long it may finish by itself.
const TO_FINISH: Duration = Duration::from_millis(200);
/// How long it then may cut what is left.
const TO_CUT: Duration = Duration::from_millis(100);

/// The front.
#[derive(Debug)]
pub struct Front {
    /// The words that start it.
    words: Vec<OsString>,
    /// Held here too, so that nothing of it is lost with a front that dies. Empty once the front has closed.
    listeners: Vec<OwnedFd>,
    addresses: Vec<SocketAddr>,
    upstream: String,
    /// The port of this host at which the app listens.
    app_port: Option<u16>,
    /// The app was told of it.
    hands_port: bool,
    /// Standard output, where it writes to it: PID 1 itself lets go of it.
    stdout: Option<OwnedFd>,
    page: Page,
    page_file: OwnedFd,
    /// Our end of the socket on which it is told.
    commands: Option<OwnedFd>,
    pid: Option<Pid>,
    /// What it was told: another front in its place is told the same.
    told: Vec<Command>,
    died: Option<Time>,
    again: Time,
    pause: Duration,
    /// The page when the drain began.
    at_start: Option<Figures>,
    /// The page when the app was told to stop.
    at_stop: Option<Figures>,
}

impl fmt::Display for Front {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "front:")?;
        for address in &self.addresses {
            write!(f, " {address}")?;
        }
        write!(f, " to {}", self.upstream)?;
        if self.hands_port { write!(f, ", handed to the app as PORT") } else { Ok(()) }
    }
}

impl Front {
    /// Opens its listeners and its page; tells the app where to listen, if nobody else has.
    pub fn open(plan: &FrontPlan, self_exe: &Path) -> Result<Front, StartError> {
        let system = |call| move |error| StartError::System(call, error);
        let mut listeners = Vec::with_capacity(plan.listen.len());
        let mut addresses = Vec::with_capacity(plan.listen.len());
        for address in &plan.listen {
            let listener = listen("--listen", *address)?;
            rustix::net::listen(&listener, BACKLOG).map_err(|error| StartError::System("listen", error.into()))?;
            addresses.push(listener.local_addr().unwrap_or(*address));
            listeners.push(OwnedFd::from(listener));
        }
        let (page_file, words) = sys::shared_page().map_err(system("memfd_create"))?;
        let mut argv: Vec<OsString> = vec![PathBuf::from(self_exe).into()];
        argv.extend(plan.words.iter().cloned());
        argv.push(listeners.len().to_string().into());
        let (upstream, app_port) = if let Some(upstream) = &plan.upstream {
            (upstream.clone(), plan.app_port)
        } else {
            let port = free_port().map_err(system("bind"))?;
            sys::set_variable(PORT, &port.to_string());
            argv.push(port.to_string().into());
            (format!("127.0.0.1:{port}"), Some(port))
        };
        let stdout = plan.stdout.then(|| rustix::stdio::stdout().try_clone_to_owned()).transpose();
        Ok(Front {
            words: argv,
            listeners,
            addresses,
            upstream,
            app_port,
            hands_port: plan.upstream.is_none(),
            stdout: stdout.map_err(system("dup"))?,
            page: Page::new(words),
            page_file,
            commands: None,
            pid: None,
            told: Vec::with_capacity(Command::ALL.len()),
            died: None,
            again: Duration::ZERO,
            pause: Duration::ZERO,
            at_start: None,
            at_stop: None,
        })
    }

    /// Its process.
    pub fn pid(&self) -> Option<Pid> {
        self.pid
    }

    /// The port of this host at which the app listens.
    pub fn app_port(&self) -> Option<u16> {
        self.app_port
    }

    /// The ports it listens on.
    fn ports(&self) -> Vec<u16> {
        let mut ports: Vec<u16> = self.addresses.iter().map(SocketAddr::port).collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    }

    /// The drain begins: what comes from here on is counted apart.
    pub fn mark_start(&mut self) {
        self.at_start.get_or_insert_with(|| self.page.figures());
    }

    /// The app is told to stop.
    pub fn mark_stop(&mut self) {
        self.at_stop = Some(self.page.figures());
    }

    /// How soon the page is to be looked at again.
    pub fn pace(&self) -> Duration {
        if self.told.contains(&Command::Close) { PACE_CLOSING } else { PACE }
    }

    /// When it is to be started again.
    pub fn deadline(&self) -> Option<Time> {
        (self.pid.is_none() && self.wanted()).then_some(self.again)
    }

    /// Whether it should live.
    fn wanted(&self) -> bool {
        !self.listeners.is_empty() && !self.told.contains(&Command::End)
    }

    /// Starts it where it should live and does not.
    pub fn keep(&mut self, now: Time, log: &mut Log) {
        if self.deadline().is_none_or(|again| now < again) {
            return;
        }
        if let Err(error) = self.spawn() {
            self.pause = longer(self.pause);
            self.again = now + self.pause;
            log.warn(format_args!("the front could not be started: {error}; trying again"));
        }
    }

    fn spawn(&mut self) -> io::Result<()> {
        let command = sys::Command::new(&self.words).ok_or(io::ErrorKind::InvalidInput)?;
        let (_read, status) = pipe()?;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        for command in &self.told {
            write_command(&ours, *command);
        }
        let mut hand: Vec<(BorrowedFd<'_>, RawFd)> =
            vec![(theirs.as_fd(), COMMANDS_DESCRIPTOR), (self.page_file.as_fd(), PAGE_DESCRIPTOR)];
        hand.extend(self.listeners.iter().map(AsFd::as_fd).zip(LISTENERS_DESCRIPTOR..));
        hand.extend(self.stdout.iter().map(|stdout| (stdout.as_fd(), 1)));
        let pid = sys::spawn(&Start {
            command: &command,
            // Only PID 1 ends it: a signal to the container's process group, or to every process, must not.
            mask: ALL_SIGNALS,
            ignore_chld: false,
            session: Session::Background,
            foreground: false,
            directory: None,
            output: None,
            hand: &hand,
            status: status.as_fd(),
        })?;
        self.pid = Some(pid);
        self.commands = Some(ours);
        Ok(())
    }

    /// Tells it something, now and whenever it is started again.
    pub fn tell(&mut self, command: Command) {
        if self.told.contains(&command) {
            return;
        }
        self.told.push(command);
        if let Some(commands) = &self.commands {
            write_command(commands, command);
        }
    }

    /// A process ended: was it the front's?
    pub fn ended(&mut self, now: Time, pid: Pid, ending: Ending, log: &mut Log) -> bool {
        if self.pid != Some(pid) {
            return false;
        }
        self.pid = None;
        self.commands = None;
        let closing = self.told.contains(&Command::Close);
        let done = self.page.phase() == FrontPhase::Closed || (closing && ending == Ending::Code(0));
        if done || !self.wanted() {
            self.close();
            self.clear_gauges();
            return true;
        }
        let lost = self.page.get(Slot::InFlight);
        front::front_died(self.page);
        let soon = self.died.is_some_and(|died| now.saturating_sub(died) < TOO_SOON + self.pause);
        self.died = Some(now);
        self.pause = if soon { longer(self.pause) } else { Duration::ZERO };
        self.again = now + self.pause;
        let how = match ending {
            Ending::Code(code) => format!("exited with {code}"),
            Ending::Killed(signal) => format!("was ended by SIG{signal}"),
        };
        let when = match self.again.saturating_sub(now) {
            Duration::ZERO => String::from("at once"),
            pause => format!("in {}", lameduck_core::duration::show(pause)),
        };
        log.warn(format_args!("the front {how} with {lost} requests in flight; starting it again {when}"));
        true
    }

    fn clear_gauges(&self) {
        self.page.add(Slot::LostWithFront, self.page.get(Slot::InFlight));
        for gauge in [Slot::Connections, Slot::InFlight, Slot::Held] {
            self.page.set(gauge, 0);
        }
    }

    /// Closes the listeners here too, so that nobody connects to where nobody accepts.
    pub fn close(&mut self) {
        self.listeners.clear();
    }

    /// The traffic, by its page. `epoch` is the machine's beginning on the monotonic clock.
    pub fn look(&mut self, epoch: Duration) -> Seen {
        if self.page.phase() == FrontPhase::Closed {
            self.close();
        }
        let figures = self.page.figures();
        // A time before the epoch is as good as the epoch.
        let time = |millis: u64| (millis > 0).then(|| Duration::from_millis(millis).saturating_sub(epoch));
        let narrow = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
        Seen {
            listeners: Some(self.listeners.len() as u32),
            last_arrival: time(figures.last_arrival_ms),
            last_sent: time(figures.last_sent_ms),
            // What is held is in flight too.
            in_flight: narrow(figures.in_flight.max(figures.held)),
            connections: narrow(figures.connections),
        }
    }

    /// The very end: the front may answer those who wait, for a moment, and is then ended. What it had to leave undone is
    /// counted.
    pub fn finish(&mut self, patience: Duration) {
        for command in [Command::AppGone, Command::Close] {
            self.tell(command);
        }
        self.close();
        self.wait_until(TO_FINISH.min(patience), |page| page.phase() == FrontPhase::Closed);
        self.tell(Command::End);
        self.wait_until(TO_CUT.min(patience), |_| false);
        if let Some(pid) = self.pid.take() {
            let closed = self.page.phase() == FrontPhase::Closed;
            let _ = sys::kill(pid, false, Signal::KILL);
            if !closed {
                self.page.add(Slot::Forced, self.page.get(Slot::Connections));
                self.clear_gauges();
            }
        }
    }

    /// Waits until something holds or its process has ended, which its end of the socket tells.
    fn wait_until(&self, patience: Duration, holds: impl Fn(Page) -> bool) {
        let until = monotonic() + patience;
        let Some(commands) = &self.commands else { return };
        while !holds(self.page) && monotonic() < until {
            let mut fds = [PollFd::new(commands, PollFlags::RDHUP)];
            let slice = Timespec { tv_sec: 0, tv_nsec: 2_000_000 };
            if poll(&mut fds, Some(&slice)).is_ok_and(|ready| ready > 0) {
                return;
            }
        }
    }
}

/// What the front has seen since the drain began.
#[derive(Debug, Clone, Copy)]
pub struct Since {
    start: Figures,
    now: Figures,
}

impl Since {
    fn count(&self, figure: impl Fn(&Figures) -> u64) -> u64 {
        figure(&self.now).saturating_sub(figure(&self.start))
    }

    fn requests(&self) -> u64 {
        self.count(|figures| figures.requests_serving + figures.requests_lame_duck + figures.requests_closing)
    }

    /// For the status: open, in flight, new, arrivals.
    pub fn of_drain(&self) -> [u64; 4] {
        [self.now.connections, self.now.in_flight, self.count(|figures| figures.accepted), self.requests()]
    }
}

/// What the page says, told to others.
impl Front {
    /// What it has seen since the drain began.
    pub fn since_start(&self) -> Since {
        let now = self.page.figures();
        Since { start: self.at_start.unwrap_or(now), now }
    }

    /// The page as part of the status, with the phase by its name.
    pub fn status(&self) -> serde_json::Value {
        let mut status = serde_json::to_value(self.page.figures()).unwrap_or_default();
        status["phase"] = self.page.phase().name().into();
        status["pid"] = self.pid.map(|pid| pid.as_raw_nonzero().get()).into();
        status
    }

    /// The last arrival on the machine's clock.
    pub fn last_arrival(&self, epoch: Duration) -> Option<Time> {
        let millis = self.page.get(Slot::LastArrival);
        (millis > 0).then(|| Duration::from_millis(millis).saturating_sub(epoch))
    }

    /// The report's part about traffic. `began`: the start of the drain on the monotonic clock.
    pub fn traffic(&self, began: Duration) -> Traffic {
        let since = self.since_start();
        let last = Duration::from_millis(since.now.last_arrival_ms).checked_sub(began);
        let narrow = |count: u64| Some(u32::try_from(count).unwrap_or(u32::MAX));
        let at_stop = |figure: fn(&Figures) -> u64| self.at_stop.as_ref().map(figure).and_then(narrow);
        let mut by_source = self.by_source();
        by_source.truncate(16);
        Traffic {
            source: TrafficSource::Front,
            ports: self.ports(),
            connections_at_start: narrow(since.start.connections),
            new_connections: narrow(since.count(|figures| figures.accepted)),
            arrivals: narrow(since.requests()),
            ignored: narrow(since.count(|figures| figures.probes)),
            last_arrival: last.map(|last| (last.as_secs_f64() * 1e3).round() / 1e3),
            open_at_stop: at_stop(|figures| figures.connections),
            in_flight_at_stop: at_stop(|figures| figures.in_flight),
            forced_closes: narrow(since.count(|figures| figures.forced)),
            by_source,
        }
    }

    fn by_source(&self) -> Vec<SourceCount> {
        let narrow = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
        let sources = self.page.sources().into_iter();
        sources.map(|(address, count)| SourceCount { address, arrivals: narrow(count) }).collect()
    }

    /// The report's part about the front.
    pub fn report(&self, origin: Option<Origin>) -> FrontReport {
        let since = self.since_start();
        let start = &since.start;
        let saved = (start.held_total + start.retried_reused).saturating_sub(start.held_expired + start.held);
        let late = match origin {
            Some(Origin::Signal | Origin::Request) => start.in_flight + since.requests(),
            Some(Origin::AppExit) | None => 0,
        };
        FrontReport { would_have_been_502: saved + late, figures: since.now, by_source: self.by_source() }
    }
}

fn longer(pause: Duration) -> Duration {
    (pause * 2).clamp(PAUSE, LONGEST_PAUSE)
}

/// Five commands fit any socket's buffer; a front that is gone has no need of them.
fn write_command(commands: &OwnedFd, command: Command) {
    let _ = send(commands, &[command.byte()], SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
}

/// A port that nobody listens on, and below those that the kernel hands out by itself (ip(7), `ip_local_port_range`): of
/// those one could be taken for an outgoing connection before the app listens, or even be connected to itself (RFC 9293
/// section 3.5, simultaneous open) by a front that tries again and again.
fn free_port() -> io::Result<u16> {
    const LOWEST: u16 = 10_000;
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let first = range.split_ascii_whitespace().next().and_then(|port| port.parse().ok()).unwrap_or(32_768u16);
    let many = first.saturating_sub(LOWEST);
    if many > 0 {
        // Replicas that share a network begin at different places.
        let begin = (std::process::id().wrapping_mul(2_654_435_761) ^ monotonic().subsec_nanos()) % u32::from(many);
        for n in 0..200 {
            let port = LOWEST + ((begin + n) % u32::from(many)) as u16;
            if is_free(port) {
                return Ok(port);
            }
        }
    }
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// Whether an app could listen on it at whichever address.
fn is_free(port: u16) -> bool {
    let everywhere = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port));
    let without_v6 = |error: &io::Error| matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL));
    match everywhere {
        Ok(_) => true,
        Err(error) if without_v6(&error) => TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok(),
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_free_port_is_free_and_none_of_the_kernels_own() {
        let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
        let first: u16 = range.split_whitespace().next().unwrap().parse().unwrap();
        let port = free_port().unwrap();
        assert!(port < first || first <= 10_000, "{port}");
        let _taken = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        assert!(!is_free(port));
    }

    #[test]
    fn pauses_double_up_to_a_second() {
        let millis: Vec<u128> = std::iter::successors(Some(Duration::ZERO), |pause| Some(longer(*pause)))
            .map(|pause| pause.as_millis())
            .take(7)
            .collect();
        assert_eq!(millis, [0, 100, 200, 400, 800, 1000, 1000]);
    }
}
