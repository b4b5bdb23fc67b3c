//! From options to a running child.

use std::ffi::{CStr, OsString};
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use lameduck_core::budget::Impossible;
use rustix::fs::OFlags;
use rustix::process::Pid;

use super::book::Book;
use super::front::{Front, PORT};
use super::neighbours::Pod;
use super::routing::Watcher;
use super::tasks::Tasks;
use super::{Admin, Init, monotonic, pipe};
use crate::control;
use crate::log::{self, Log};
use crate::machine::{Machine, Seen};
use crate::options::{FrontPlan, Mode, Options, Persona};
use crate::signal::Signal;
use crate::sys::{self, Command, Session, Start};
use crate::{EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND};

/// What the process was given before any of our code chose.
#[derive(Debug)]
pub struct Begin {
    /// The signal mask it was started with (see [`sys::block_all_signals`]).
    pub mask: u64,
    /// This program, for its helpers.
    pub self_exe: PathBuf,
}

/// Why nothing was started.
#[derive(Debug)]
pub enum StartError {
    /// The budget does not add up.
    Budget(Impossible),
    /// The command line can not be executed as it is.
    Command(OsString),
    /// The report's file can not be written.
    Report(PathBuf, io::Error),
    /// An address can not be listened on: the option that named it, and which.
    Listen(&'static str, SocketAddr, io::Error),
    /// A system call failed that always works.
    System(&'static str, io::Error),
    /// `--mode off`: the command could not be executed.
    Exec(OsString, io::Error),
}

impl StartError {
    /// The exit status that tells of it.
    pub fn status(&self) -> u8 {
        match self {
            StartError::Exec(_, error) => exec_status(error.raw_os_error().unwrap_or(0)),
            _ => crate::EXIT_OWN_FAILURE,
        }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Budget(impossible) => write!(f, "{impossible}"),
            StartError::Command(word) => write!(f, "the command {} is empty or has a NUL byte in it", word.display()),
            StartError::Report(path, error) => {
                write!(f, "--report {}: {error}; expected a path that can be written to", path.display())
            }
            StartError::Listen(option, address, error) => {
                write!(f, "{option} {address}: {error}; expected an address of this host with a free port")
            }
            StartError::System(call, error) => write!(f, "{call}: {error}"),
            StartError::Exec(word, error) => write!(f, "{}: {error}", word.display()),
        }
    }
}

impl std::error::Error for StartError {}

/// 127 for a command that is not there, 126 for one that can not be executed (POSIX.1-2017, XCU 2.8.2).
fn exec_status(errno: i32) -> u8 {
    if errno == libc::ENOENT || errno == libc::ENOTDIR { EXIT_NOT_FOUND } else { EXIT_NOT_EXECUTABLE }
}

/// Says why the command could not be executed; returns the status to exit with.
pub(super) fn exec_failed(options: &Options, step: u8, errno: i32, log: &mut Log) -> u8 {
    let error = error_text(errno);
    let command = options.command.first().cloned().unwrap_or_default();
    let command = command.display();
    match options.persona {
        Persona::DumbInit { .. } if step == sys::STEP_SETSID => {
            log::raw(format_args!("[dumb-init] setsid: {error}"));
            1
        }
        Persona::DumbInit { .. } => {
            log::raw(format_args!("[dumb-init] {command}: {error}"));
            2
        }
        Persona::Tini { .. } => {
            log::raw(format_args!("[FATAL tini ({})] exec {command}: {error}", std::process::id()));
            match errno {
                libc::ENOENT => EXIT_NOT_FOUND,
                libc::EACCES => EXIT_NOT_EXECUTABLE,
                _ => 1,
            }
        }
        Persona::Lameduck => {
            log.warn(format_args!("{command} can not be executed: {error}"));
            exec_status(errno)
        }
    }
}

/// The C library's words for an error number, without std's "(os error N)".
fn error_text(errno: i32) -> String {
    let text = io::Error::from_raw_os_error(errno).to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

pub(super) fn start(options: Options, begin: &Begin) -> Result<Init, StartError> {
    let command = Command::new(&options.command)
        .ok_or_else(|| StartError::Command(options.command.first().cloned().unwrap_or_default()))?;
    if options.mode == Mode::Off {
        if let Some(FrontPlan { listen, upstream: None, .. }) = &options.front
            && let Some(address) = listen.first()
        {
            sys::set_variable(PORT, &address.port().to_string());
        }
        sys::set_signal_mask(begin.mask);
        return Err(StartError::Exec(options.command[0].clone(), command.exec()));
    }
    let policy = options.policy().map_err(StartError::Budget)?;
    sys::fill_standard_descriptors();
    let system = |call| move |error| StartError::System(call, error);
    // Before any descriptor of ours is opened.
    let inherited = inherited_descriptors();
    let mut log = Log::new(options.log_format);
    let own_pid = std::process::id() as i32;
    // Ignored, it would make the kernel reap our children for us (wait(2)).
    let ignore_chld = sys::set_ignored(Signal::CHLD, false).map_err(system("sigaction"))?;
    let file = options.report.as_ref().map(|path| create(path)).transpose()?;
    let admin = options.admin.map(|address| listen("--admin", address)).transpose()?.map(OwnedFd::from);
    let front = options.front.as_ref().map(|plan| Front::open(plan, &begin.self_exe)).transpose()?;
    adopt_orphans(&options, own_pid, &mut log);

    let signals = sys::signalfd(sys::ALL_SIGNALS).map_err(system("signalfd"))?;
    let control = match (&options.persona, control::Server::bind(own_pid)) {
        (Persona::Lameduck, Ok(server)) => Some(server),
        (Persona::Lameduck, Err(error)) => {
            log.warn(format_args!("`lameduck drain` and `ready` will not work here: no control socket: {error}"));
            None
        }
        (Persona::Tini { .. } | Persona::DumbInit { .. }, _) => None,
    };
    let pod = Pod::open(&options, own_pid, &mut log);
    let early = match options.persona {
        Persona::DumbInit { setsid: true, .. } => hand_off_terminal(&options, &signals),
        Persona::DumbInit { .. } | Persona::Tini { .. } | Persona::Lameduck => Vec::new(),
    };

    let (exec_status, status) = pipe().map_err(system("pipe"))?;
    rustix::fs::fcntl_setfl(&exec_status, OFlags::NONBLOCK)
        .map_err(|error| StartError::System("fcntl", error.into()))?;
    let session = options.session();
    let main = sys::spawn(&Start {
        command: &command,
        mask: begin.mask,
        ignore_chld,
        session,
        foreground: sys::has_foreground(),
        directory: None,
        output: None,
        hand: &[],
        status: status.as_fd(),
    })
    .map_err(system("fork"))?;
    drop(status);
    if session == Session::Group {
        // Here and in the child: whoever is first, the group is there when a signal comes. After exec it is refused, done.
        let _ = rustix::process::setpgid(Some(main), Some(main));
    }
    let verbose = matches!(options.persona, Persona::DumbInit { verbose: true, .. });
    if verbose {
        log::raw(format_args!("[dumb-init] Child spawned with PID {}.", main.as_raw_nonzero()));
        if session == Session::Own {
            log::raw(format_args!("[dumb-init] setsid complete."));
        }
    }
    let_go(&options, &inherited);
    if options.persona == Persona::Lameduck && options.mode == Mode::On && nothing_stops(&options) {
        log.warn(format_args!("--rewrite takes the stop signal from the app and no --stop-command or --stop-signal replaces it: it will be killed"));
    }
    if options.persona == Persona::Lameduck {
        log.info(format_args!("{}: pid {}; {}", options.mode.name(), main.as_raw_nonzero(), policy.budget));
        if let Some(front) = &front {
            log.info(format_args!("{front}"));
        }
    }
    Ok(Init {
        machine: Machine::new(policy),
        book: Book::new(&policy, file),
        epoch: monotonic(),
        log,
        signals,
        control,
        early,
        main,
        exec_status: Some(exec_status),
        tasks: Tasks::new(begin.mask, main),
        admin: admin.map(|listener| Admin { listener, pid: None, again: Duration::ZERO }),
        front,
        pod,
        routing: options.watch_endpoints.clone().map(Watcher::new),
        observer: None,
        seen: Seen::default(),
        next_look: Duration::ZERO,
        mask: begin.mask,
        self_exe: begin.self_exe.clone(),
        own_pid,
        childless: false,
        group_told: false,
        said_proc: false,
        policy,
        options,
    })
}

/// Whether the drain would end with nothing that tells the app to stop.
fn nothing_stops(options: &Options) -> bool {
    let swallowed = options.drain_on.iter().all(|signal| options.rewrites.apply(*signal).is_none());
    swallowed && options.stop_command.is_none() && options.stop_signal.is_none()
}

fn create(path: &Path) -> Result<File, StartError> {
    File::create(path).map_err(|error| StartError::Report(path.to_owned(), error))
}

pub(super) fn listen(option: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    let every_v4 = (std::net::Ipv4Addr::UNSPECIFIED, address.port());
    let listener = TcpListener::bind(address).or_else(|error| match error.raw_os_error() {
        // `:PORT` is every address; a kernel without IPv6 has those of IPv4.
        Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL) if address.ip() == std::net::Ipv6Addr::UNSPECIFIED => {
            TcpListener::bind(every_v4)
        }
        _ => Err(error),
    });
    listener.map_err(|error| StartError::Listen(option, address, error))
}

/// Makes orphans ours where we are not PID 1, which gets them anyway.
fn adopt_orphans(options: &Options, own_pid: i32, log: &mut Log) {
    let wanted = match options.persona {
        Persona::Lameduck => own_pid != 1,
        Persona::Tini { subreaper, .. } => subreaper,
        Persona::DumbInit { .. } => false,
    };
    if wanted && let Err(error) = rustix::process::set_child_subreaper(Some(Pid::INIT)) {
        log.warn(format_args!("orphans of the app will not be found: PR_SET_CHILD_SUBREAPER: {error}"));
    }
    if let Persona::Tini { parent_death, verbosity, .. } = options.persona {
        if let Some(signal) = parent_death
            && let Err(error) = sys::set_parent_death_signal(signal)
        {
            log.warn(format_args!("PR_SET_PDEATHSIG: {error}"));
        }
        let adopts = own_pid == 1 || rustix::process::child_subreaper().is_ok_and(|reaper| reaper.is_some());
        if !adopts && verbosity > 0 {
            log::raw(format_args!(
                "[WARN  tini ({own_pid})] not PID 1 and no subreaper, so zombie reaping won't work: use -s or TINI_SUBREAPER"
            ));
        }
    }
}

/// Gives up the terminal for the child's session. The kernel then sends HUP and CONT to the foreground group of a session
/// leader's terminal (`tty_ioctl(4)`, `TIOCNOTTY`): those two are not meant for the child. What else was pending is kept.
fn hand_off_terminal(options: &Options, signals: &OwnedFd) -> Vec<(Signal, u32)> {
    let verbose = matches!(options.persona, Persona::DumbInit { verbose: true, .. });
    let mut kept = read_pending(signals);
    if !sys::give_up_terminal() {
        return kept;
    }
    for (signal, sender) in read_pending(signals) {
        if signal == Signal::HUP || signal == Signal::CONT {
            if verbose {
                log::raw(format_args!("[dumb-init] Ignoring tty hand-off signal {}.", signal.number()));
            }
        } else {
            kept.push((signal, sender));
        }
    }
    kept
}

fn read_pending(signals: &OwnedFd) -> Vec<(Signal, u32)> {
    let mut pending = Vec::new();
    let mut record = [0; sys::SIGNALFD_RECORD];
    while let Ok(sys::SIGNALFD_RECORD) = rustix::io::read(signals, &mut record) {
        pending.extend(sys::signalfd_record(&record));
    }
    pending
}

/// Descriptors that were open before ours: the child's business.
fn inherited_descriptors() -> Vec<RawFd> {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else { return Vec::new() };
    let mut found: Vec<RawFd> =
        entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(|fd| *fd > 2).collect();
    // The directory's own descriptor was among them and is closed by now.
    found.retain(|fd| fs::exists(format!("/proc/self/fd/{fd}")).unwrap_or(false));
    found
}

/// Lets go of what only the child should hold: a pipe or a directory held here would never be seen closed or unmounted.
fn let_go(options: &Options, inherited: &[RawFd]) {
    sys::close_inherited(inherited);
    match options.persona {
        Persona::Lameduck | Persona::DumbInit { .. } => {
            let _ = rustix::process::chdir("/");
        }
        Persona::Tini { .. } => {}
    }
    if options.persona == Persona::Lameduck
        && let Ok(null) = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, rustix::fs::Mode::empty())
    {
        let _ = rustix::stdio::dup2_stdin(&null);
        let _ = rustix::stdio::dup2_stdout(&null);
    }
}

/// The number of the listener in the admin process.
pub const ADMIN_DESCRIPTOR: RawFd = 3;
/// The hidden verb of the admin process; the pid of the lameduck it serves follows.
pub const ADMIN_VERB: &CStr = c"serve-admin";

pub(super) fn spawn_admin(self_exe: &Path, listener: &OwnedFd, own_pid: i32, mask: u64) -> io::Result<Pid> {
    let words: [OsString; 3] =
        [self_exe.into(), ADMIN_VERB.to_string_lossy().into_owned().into(), own_pid.to_string().into()];
    let command = Command::new(&words).ok_or(io::ErrorKind::InvalidInput)?;
    let (_read, status) = pipe()?;
    sys::spawn(&Start {
        command: &command,
        mask,
        ignore_chld: false,
        session: Session::Background,
        foreground: false,
        directory: None,
        output: None,
        hand: &[(listener.as_fd(), ADMIN_DESCRIPTOR)],
        status: status.as_fd(),
    })
}
