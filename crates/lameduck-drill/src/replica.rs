//! One process of the service: started, watched, told to stop, and gone at the end whatever happens.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::File;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::rc::Rc;
use std::time::Duration;

use lameduck_core::timeline::{Moment, Provenance, Timeline};
use rustix::process::Signal;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};

use crate::clock::Clock;
use crate::evidence::{Log, Whose};
use crate::proc::Family;
use crate::progress::Progress;
use crate::{SetupError, proc};

/// Lines of output kept to show why a replica did not start.
const TAIL_LINES: usize = 12;
/// The longest line kept whole; a longer one is taken in parts.
const LONGEST_LINE: usize = 64 << 10;
/// How long processes that got SIGKILL may take to be gone.
const KILL_TAKES: Duration = Duration::from_secs(5);

/// Whether something changed between the stop signal and SIGKILL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reaction {
    /// Nothing did.
    None,
    /// Something did, that happens without a stop as well: an old idle connection was closed.
    Perhaps,
    /// Something did.
    Certain,
}

/// What has happened to a replica so far. Times are on the run's clock.
#[derive(Debug)]
pub(crate) struct Life {
    pub(crate) timeline: Timeline,
    pub(crate) status: Option<ExitStatus>,
    pub(crate) reaction: Reaction,
    /// The same shortly before its grace was over, where somebody else kills it: what comes with SIGKILL is no reaction to TERM.
    pub(crate) before_deadline: Option<Reaction>,
    /// Whether an answer before the stop signal left its connection open: only then is a `close` after it a reaction.
    pub(crate) kept_alive: bool,
    /// When one of its processes was killed by an event, the last time.
    pub(crate) part_ended: Option<Duration>,
    /// Whether its address no longer answered after its end, not even by a refusal. Only asked where a proxy stands between.
    pub(crate) unreachable: bool,
    /// How late the stop signal may have become known here.
    pub(crate) told_late: Duration,
    /// Whether a listener that closed would have been noticed: else that nothing was seen to change does not mean that nothing did.
    pub(crate) listener_watched: bool,
}

impl Life {
    pub(crate) fn new(timeline: Timeline) -> Life {
        Life {
            timeline,
            status: None,
            reaction: Reaction::None,
            before_deadline: None,
            kept_alive: false,
            part_ended: None,
            unreachable: false,
            told_late: Duration::ZERO,
            listener_watched: true,
        }
    }

    pub(crate) fn at(&self, moment: Moment) -> Option<Duration> {
        self.timeline.at(moment)
    }

    pub(crate) fn record(&mut self, at: Duration, moment: Moment) {
        self.timeline.record(at, moment, Provenance::Observed);
    }
}

/// A process of the service.
#[derive(Debug)]
pub(crate) struct Replica {
    /// `r0`, `r1`... in the order started; also its place in the routing table.
    pub(crate) index: usize,
    pub(crate) port: u16,
    pub(crate) address: SocketAddr,
    /// Whether its command holds a pod, with a network of its own.
    pub(crate) in_pod: bool,
    name: String,
    /// Its processes; none where it is on another machine.
    local: Option<Local>,
    pub(crate) life: RefCell<Life>,
    tail: RefCell<VecDeque<String>>,
    exited: watch::Receiver<bool>,
    notices: mpsc::UnboundedSender<Progress>,
}

/// The processes of a replica on this machine.
#[derive(Debug)]
struct Local {
    pid: i32,
    family: RefCell<Family>,
}

/// What is needed to start replicas of one run.
pub(crate) struct Starter {
    pub(crate) run: String,
    pub(crate) clock: Clock,
    pub(crate) command: Vec<OsString>,
    pub(crate) env: Vec<(OsString, OsString)>,
    pub(crate) in_pods: bool,
    pub(crate) logs: Option<PathBuf>,
    pub(crate) log: Rc<RefCell<Log>>,
    pub(crate) notices: mpsc::UnboundedSender<Progress>,
}

impl Starter {
    /// Starts a process that is to serve at `address`. Must be called within a `LocalSet`.
    pub(crate) fn start(&self, index: usize, address: SocketAddr) -> Result<Rc<Replica>, SetupError> {
        let mark = format!("{}-r{index}", self.run);
        let mut words = self.command.iter().map(|word| proc::with_address(word, address));
        let program = words.next().unwrap_or_default();
        let mut command = Command::new(&program);
        command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.envs(self.env.iter().map(|(name, value)| (name, proc::with_address(value, address))));
        command.env("PORT", address.port().to_string()).env(proc::MARKER, &mark);
        // A group of its own: a ^C at the terminal ends the drill, which then ends the replicas.
        command.process_group(0).kill_on_drop(true);
        let file = self.logs.as_deref().map(|folder| log_file(folder, index)).transpose()?;
        let mut child = command
            .spawn()
            .map_err(|source| SetupError::Spawn { program: program.to_string_lossy().into_owned(), source })?;
        let (exited_sender, exited) = watch::channel(false);
        let mut timeline = Timeline::default();
        timeline.record(self.clock.now(), Moment::Started, Provenance::Observed);
        let pid = child.id().map_or(0, |pid| pid as i32);
        let replica = Rc::new(Replica {
            index,
            port: address.port(),
            address,
            in_pod: self.in_pods,
            name: format!("r{index}"),
            local: Some(Local { pid, family: RefCell::new(Family::new(pid, mark)) }),
            life: RefCell::new(Life::new(timeline)),
            tail: RefCell::default(),
            exited,
            notices: self.notices.clone(),
        });
        let file = Rc::new(RefCell::new(file));
        if let Some(stdout) = child.stdout.take() {
            self.follow(&replica, stdout, &file);
        }
        if let Some(stderr) = child.stderr.take() {
            self.follow(&replica, stderr, &file);
        }
        tokio::task::spawn_local(watch_exit(Rc::clone(&replica), child, self.clock, exited_sender));
        Ok(replica)
    }

    /// Reads one stream of output to its end, line by line.
    fn follow(
        &self,
        replica: &Rc<Replica>,
        mut stream: impl AsyncRead + Unpin + 'static,
        file: &Rc<RefCell<Option<File>>>,
    ) {
        let (clock, log) = (self.clock, Rc::clone(&self.log));
        let (replica, file) = (Rc::clone(replica), Rc::clone(file));
        tokio::task::spawn_local(async move {
            let mut pending = Vec::new();
            let mut buffer = vec![0u8; 8 << 10];
            while let Ok(n @ 1..) = stream.read(&mut buffer).await {
                if let Some(file) = file.borrow_mut().as_mut() {
                    // A full disk loses the copy, not the evidence.
                    let _ = file.write_all(&buffer[..n]);
                }
                pending.extend_from_slice(&buffer[..n]);
                while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = pending.drain(..=end).collect();
                    take_line(&replica, &log, &line, clock.now());
                }
                if pending.len() > LONGEST_LINE {
                    take_line(&replica, &log, &std::mem::take(&mut pending), clock.now());
                }
            }
            take_line(&replica, &log, &pending, clock.now());
        });
    }
}

fn log_file(folder: &Path, index: usize) -> Result<File, SetupError> {
    let path = folder.join(format!("r{index}.log"));
    std::fs::create_dir_all(folder)
        .and_then(|()| File::create(&path))
        .map_err(|source| SetupError::Logs { path: path.clone(), source })
}

fn take_line(replica: &Replica, log: &RefCell<Log>, line: &[u8], at: Duration) {
    if line.is_empty() {
        return;
    }
    log.borrow_mut().line(Whose::Replica(replica.index), line, at);
    let mut tail = replica.tail.borrow_mut();
    if tail.len() == TAIL_LINES {
        tail.pop_front();
    }
    tail.push_back(String::from_utf8_lossy(&line[..line.len().min(400)]).trim_end().to_owned());
}

/// Waits for the direct child, the container's PID 1; what it leaves behind ends with it, as a container's rest does.
async fn watch_exit(replica: Rc<Replica>, mut child: Child, clock: Clock, exited: watch::Sender<bool>) {
    let status = child.wait().await;
    let at = clock.now();
    replica.kill_others();
    {
        let mut life = replica.life.borrow_mut();
        life.status = status.ok();
        life.record(at, Moment::Exited);
    }
    replica.tell(at, Moment::Exited);
    // Nobody may be waiting any more.
    let _ = exited.send(true);
}

impl Replica {
    /// One that runs elsewhere: it is neither started nor ended here. Whoever says that it has exited holds the sender.
    pub(crate) fn elsewhere(
        index: usize,
        name: String,
        address: SocketAddr,
        notices: mpsc::UnboundedSender<Progress>,
    ) -> (Rc<Replica>, watch::Sender<bool>) {
        let (sender, exited) = watch::channel(false);
        let life = RefCell::new(Life { listener_watched: false, ..Life::new(Timeline::default()) });
        let (local, tail) = (None, RefCell::default());
        let port = address.port();
        (Rc::new(Replica { index, port, address, in_pod: false, name, local, life, tail, exited, notices }), sender)
    }

    pub(crate) fn name(&self) -> String {
        self.name.clone()
    }

    pub(crate) fn has_exited(&self) -> bool {
        *self.exited.borrow()
    }

    /// Waits for the exit.
    pub(crate) async fn exit(&self) {
        let mut exited = self.exited.clone();
        // The sender is dropped only after it has sent, or with the whole run.
        let _ = exited.wait_for(|exited| *exited).await;
    }

    /// Waits for the exit after SIGKILL. A process that is stuck in the kernel is not waited for without end.
    pub(crate) async fn killed(&self) {
        let _ = tokio::time::timeout(KILL_TAKES, self.exit()).await;
    }

    /// Notes a moment and reports it.
    pub(crate) fn record(&self, at: Duration, moment: Moment) {
        self.life.borrow_mut().record(at, moment);
        self.tell(at, moment);
    }

    fn tell(&self, at: Duration, moment: Moment) {
        let _ = self.notices.send(Progress::Moment { at, replica: self.name(), moment });
    }

    /// Notes a sign that the stop signal had an effect.
    pub(crate) fn reacted(&self, reaction: Reaction) {
        let mut life = self.life.borrow_mut();
        // What comes with SIGKILL, or after it, is no answer to the signal before it.
        if life.at(Moment::TermReceived).is_some() && life.at(Moment::Killed).is_none() {
            life.reaction = life.reaction.max(reaction);
        }
    }

    /// Sends a signal to the direct child only, as a container runtime does to PID 1.
    pub(crate) fn signal(&self, number: i32) {
        // The pid is ours until its exit has been collected.
        if !self.has_exited()
            && let Some(signal) = Signal::from_named_raw(number)
            && let Some(local) = &self.local
        {
            proc::signal(local.pid, signal);
        }
    }

    /// SIGKILL to the direct child and everything below it.
    pub(crate) fn kill(&self) {
        // Looked for before, killed after PID 1: its end is what hides them, and none may see a sibling go and act on it.
        self.note_family();
        self.signal(9);
        self.kill_others();
    }

    /// The end of its grace: SIGKILL, in a pod by whoever holds it.
    pub(crate) fn kill_at_deadline(&self) {
        if self.in_pod {
            self.signal(Signal::USR1.as_raw());
        } else {
            self.kill();
        }
    }

    /// Remembers the processes below PID 1, while they can still be told.
    pub(crate) fn note_family(&self) {
        self.others();
    }

    /// The processes below PID 1.
    fn others(&self) -> Vec<i32> {
        self.local.as_ref().map(|local| local.family.borrow_mut().look()).unwrap_or_default()
    }

    /// SIGKILL to the processes below PID 1 whose first argument is `word`; whether there was one.
    pub(crate) fn kill_child(&self, word: &str, now: Duration) -> bool {
        let pids = self.others();
        let mut killed = false;
        for pid in pids.into_iter().filter(|pid| proc::first_argument_is(*pid, word)) {
            killed |= proc::signal(pid, Signal::KILL);
        }
        if killed {
            self.life.borrow_mut().part_ended = Some(now);
        }
        killed
    }

    /// Returns how many there were.
    fn kill_others(&self) -> usize {
        let others = self.others();
        for pid in &others {
            proc::signal(*pid, Signal::KILL);
        }
        others.len()
    }

    /// Whether its processes listen, where that can be seen.
    fn listens(&self) -> Option<bool> {
        self.local.as_ref().and_then(|local| proc::listens(local.pid, self.port))
    }

    /// Notes that the listener is closed, if it is.
    pub(crate) fn look_at_listener(&self, now: Duration) -> bool {
        let gone = if self.in_pod { self.listens() == Some(false) } else { proc::listener_is_gone(self.address) };
        if gone {
            self.listener_closed(now);
        }
        gone
    }

    /// The same, at any cost: before SIGKILL nothing may be overlooked.
    pub(crate) fn look_hard_at_listener(&self, now: Duration) {
        if self.listens() == Some(false) {
            self.listener_closed(now);
        }
    }

    /// The listener is known to be closed.
    pub(crate) fn listener_closed(&self, now: Duration) {
        let known =
            [Moment::StoppedAccepting, Moment::Killed, Moment::Exited].map(|moment| self.life.borrow().at(moment));
        if known.iter().all(Option::is_none) {
            self.reacted(Reaction::Certain);
            self.record(now, Moment::StoppedAccepting);
        }
    }

    /// The last lines of output, to show beside an error.
    pub(crate) fn tail(&self) -> String {
        self.tail.borrow().iter().fold(String::new(), |all, line| all + "\n  | " + line)
    }
}

/// All replicas of a run. Dropping it kills them: no way out of a run leaves a process behind.
#[derive(Debug, Default)]
pub(crate) struct Fleet {
    pub(crate) replicas: Vec<Rc<Replica>>,
}

/// Kills everything and waits until it is gone, for a bounded time.
pub(crate) async fn end(replicas: &[Rc<Replica>]) {
    for replica in replicas {
        replica.kill();
    }
    let gone = async {
        for replica in replicas {
            replica.exit().await;
            while replica.kill_others() > 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    };
    // Past this, a process is stuck in the kernel, and no signal can end it.
    let _ = tokio::time::timeout(KILL_TAKES, gone).await;
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for replica in &self.replicas {
            replica.kill();
        }
    }
}
