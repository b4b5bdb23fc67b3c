//! The life of a pod, from its network to the exit of its last container.

use std::cell::RefCell;
use std::fs;
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::rc::Rc;
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::LocalSet;

use crate::clock::now;
use crate::container::{self, Running};
use crate::record::{Record, appender};
use crate::spec::{Container, PodSpec, seconds};
use crate::{PodError, network, probe, tree};

/// What the exit of a pod says that was killed at its deadline, as a container's status does.
pub const KILLED: u8 = 137;
/// How long the words of a process may still be read after its end.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// How long past the grace the word that it is over is waited for.
const UNTOLD: Duration = Duration::from_secs(5);
/// How long a capture may take to begin.
const CAPTURE_BEGINS: Duration = Duration::from_secs(3);
/// How long the pod's network outlives its last container: the kubelet takes the sandbox down after that, and the node's tables follow.
pub const SANDBOX: Duration = Duration::from_secs(1);
/// A container that ends by itself again is started again after this; the first time at once.
const BACK_OFF: Duration = Duration::from_secs(10);

/// Where a pod is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Serving,
    /// Deleted: the kubelet has not heard of it yet.
    Deleted,
    /// Its containers are told to stop.
    Stopping,
    /// The grace is over.
    Deadline,
}

struct Pod {
    spec: PodSpec,
    address: Ipv4Addr,
    record: RefCell<Record>,
    phase: watch::Sender<Phase>,
    killed: std::cell::Cell<bool>,
    /// PID 1 of each container that runs, by its number here.
    pids: RefCell<Vec<i32>>,
    out: Rc<RefCell<Box<dyn Write>>>,
}

/// Holds a pod in this process's own network namespace, connected to the node's. What the containers say goes to `out` too.
/// Gives the status to exit with: [`KILLED`] where a container did not end in its grace.
pub fn hold(spec: PodSpec, address: Ipv4Addr, out: Box<dyn Write>) -> Result<u8, PodError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let mut term = signal(SignalKind::terminate())?;
        let mut over = signal(SignalKind::user_defined1())?;
        network::connect(spec.node, address)?;
        let record = RefCell::new(Record::new(&spec, address)?);
        let count = spec.sidecars.len() + spec.containers.len();
        let pod = Rc::new(Pod {
            address,
            record,
            phase: watch::Sender::new(Phase::Serving),
            killed: false.into(),
            pids: RefCell::new(vec![0; count]),
            out: Rc::new(RefCell::new(out)),
            spec,
        });
        let capture = pod.capture().await;
        let whole = pod.clone().whole();
        tokio::pin!(whole);
        loop {
            tokio::select! {
                result = &mut whole => {
                    result?;
                    break;
                }
                _ = term.recv() => pod.delete(),
                _ = over.recv() => { pod.phase.send_replace(Phase::Deadline); }
            }
        }
        // Packets of the end are still on their way to the file.
        if let Some(mut capture) = capture {
            tokio::time::sleep(LAST_WORDS).await;
            if let Some(pid) = capture.id() {
                container::signal(pid as i32, Signal::INT);
            }
            let _ = tokio::time::timeout(LAST_WORDS * 5, capture.wait()).await;
        }
        network::linger(SANDBOX);
        Ok(if pod.killed.get() { KILLED } else { 0 })
    })
}

/// Deletes a pod, by the process that holds it.
pub fn delete(holder: u32) {
    container::signal(holder as i32, Signal::TERM);
}

impl Pod {
    /// The place of a container in the lists: sidecars first.
    fn of(&self, place: usize) -> &Container {
        let sidecars = self.spec.sidecars.len();
        if place < sidecars { &self.spec.sidecars[place] } else { &self.spec.containers[place - sidecars] }
    }

    /// Everything, until the last container has ended.
    async fn whole(self: Rc<Self>) -> Result<(), PodError> {
        self.record.borrow_mut().event("Normal", "Scheduled", "Successfully assigned to lameduck-node");
        let (sidecars, all) = (self.spec.sidecars.len(), self.pids.borrow().len());
        let mut lives = Vec::new();
        for place in 0..all {
            let stops_after = watch::Sender::new(place >= sidecars);
            lives.push((Rc::clone(&self).start(place, stops_after.subscribe()), stops_after));
        }
        let mut of_sidecars: Vec<_> = lives.drain(..sidecars).collect();
        for (life, _) in lives {
            join(life).await?;
        }
        while let Some((life, may_stop)) = of_sidecars.pop() {
            may_stop.send_replace(true);
            join(life).await?;
        }
        Ok(())
    }

    fn start(
        self: Rc<Self>,
        place: usize,
        may_stop: watch::Receiver<bool>,
    ) -> tokio::task::JoinHandle<Result<(), PodError>> {
        tokio::task::spawn_local(async move { self.life(place, may_stop).await })
    }

    /// The pod's deletion: from here on everything ends.
    fn delete(self: &Rc<Self>) {
        if *self.phase.borrow() != Phase::Serving {
            return;
        }
        self.draw_trees();
        {
            let mut record = self.record.borrow_mut();
            record.delete();
            record.write();
        }
        let (lag, grace) = (seconds(self.spec.lag_s), seconds(self.spec.grace_s));
        self.phase.send_replace(Phase::Deleted);
        let (pod, kubelet) = (Rc::clone(self), seconds(self.spec.kubelet_s));
        tokio::task::spawn_local(async move {
            tokio::time::sleep(kubelet).await;
            pod.phase.send_if_modified(|phase| {
                let waits = *phase == Phase::Deleted;
                *phase = (*phase).max(Phase::Stopping);
                waits
            });
        });
        let pod = Rc::clone(self);
        tokio::task::spawn_local(async move {
            tokio::time::sleep(lag).await;
            pod.route(false);
        });
        let pod = Rc::clone(self);
        let wait = if self.spec.told_deadline { grace + UNTOLD } else { grace };
        tokio::task::spawn_local(async move {
            tokio::time::sleep(wait).await;
            pod.phase.send_replace(Phase::Deadline);
        });
    }

    /// One container, started again where it ends by itself.
    async fn life(self: Rc<Self>, place: usize, mut may_stop: watch::Receiver<bool>) -> Result<(), PodError> {
        let container = self.of(place).clone();
        let mut phase = self.phase.subscribe();
        loop {
            let mut running = container::start(&container).await?;
            self.began(place, &container, &mut running)?;
            let probing = tokio::task::spawn_local(Rc::clone(&self).probe(place, running.pid));
            let told = async {
                // Neither sender goes before this does.
                let _ = phase.wait_for(|phase| *phase >= Phase::Stopping).await;
                let _ = may_stop.wait_for(|may| *may).await;
            };
            let by_itself = tokio::select! {
                status = running.child.wait() => Some(code(status?)),
                () = told => None,
            };
            let code = match by_itself {
                Some(code) => code,
                None => self.stop(&container, &mut running).await?,
            };
            probing.abort();
            self.ended(place, code);
            if *self.phase.borrow() >= Phase::Stopping {
                return Ok(());
            }
            self.again(place).await;
        }
    }

    fn began(&self, place: usize, container: &Container, running: &mut Running) -> Result<(), PodError> {
        self.pids.borrow_mut()[place] = running.pid;
        let log = self.record.borrow().log(place);
        for stream in
            [running.child.stdout.take().map(boxed), running.child.stderr.take().map(boxed)].into_iter().flatten()
        {
            let (file, name) = (appender(&log)?, container.name.clone());
            // Its end is the end of the stream.
            tokio::task::spawn_local(follow(file, name, stream, Rc::clone(&self.out)));
        }
        let mut record = self.record.borrow_mut();
        let state = &mut record.containers[place];
        (state.started, state.ended, state.ready) = (Some(now()), None, container.readiness.is_none());
        record.event("Normal", "Started", &format!("Started container {}", container.name));
        record.write();
        drop(record);
        self.route_if_ready();
        Ok(())
    }

    fn ended(&self, place: usize, code: i32) {
        self.pids.borrow_mut()[place] = 0;
        let mut record = self.record.borrow_mut();
        let state = &mut record.containers[place];
        (state.ended, state.ready) = (Some((now(), code)), false);
        record.write();
    }

    /// Waits as the kubelet does before it starts a container again.
    async fn again(&self, place: usize) {
        let restarts = {
            let mut record = self.record.borrow_mut();
            let state = &mut record.containers[place];
            if let (Some(started), Some((at, code))) = (state.started, state.ended) {
                state.ended_before = Some((started, at, code));
            }
            state.restarts += 1;
            let restarts = state.restarts;
            if restarts > 1 {
                let message = format!("Back-off restarting failed container {}", self.of(place).name);
                record.event("Warning", "BackOff", &message);
            }
            restarts
        };
        self.route(false);
        if restarts > 1 {
            tokio::time::sleep(BACK_OFF).await;
        }
    }

    /// The kubelet's order for one container: hook, TERM, the rest of the grace, KILL. Gives its exit code.
    async fn stop(&self, container: &Container, running: &mut Running) -> Result<i32, PodError> {
        let mut phase = self.phase.subscribe();
        self.record.borrow_mut().event("Normal", "Killing", &format!("Stopping container {}", container.name));
        if let Some(hook) = &container.pre_stop {
            let mut hook = container::inside(running.pid, hook);
            tokio::select! {
                _ = hook.status() => {}
                status = running.child.wait() => return Ok(code(status?)),
                _ = phase.wait_for(|phase| *phase == Phase::Deadline) => {}
            }
        }
        container::signal(running.pid, Signal::TERM);
        tokio::select! {
            status = running.child.wait() => return Ok(code(status?)),
            _ = phase.wait_for(|phase| *phase == Phase::Deadline) => {}
        }
        self.killed.set(true);
        container::signal(running.pid, Signal::KILL);
        // `unshare` can not end itself by KILL, so its own status does not say it.
        running.child.wait().await?;
        Ok(i32::from(KILLED))
    }

    /// Asks a container whether it is ready, for as long as it runs.
    async fn probe(self: Rc<Self>, place: usize, pid: i32) {
        let Some(readiness) = self.of(place).readiness.clone() else { return };
        let mut failures = 0;
        loop {
            let answer = probe::ask(&readiness, self.address, pid).await;
            let was = self.record.borrow().containers[place].ready;
            failures = if answer.is_ok() { 0 } else { failures + 1 };
            let is = answer.is_ok() || (was && failures < readiness.failures);
            if let Err(why) = &answer
                && was
            {
                self.record.borrow_mut().event("Warning", "Unhealthy", &format!("Readiness probe failed: {why}"));
            }
            if is != was {
                let mut record = self.record.borrow_mut();
                record.containers[place].ready = is;
                record.write();
                drop(record);
                if is {
                    self.route_if_ready();
                } else {
                    self.route(false);
                }
            }
            // Until it was ready once, a probe comes sooner than its period, as the kubelet's startup does not wait for it.
            let wait = if is || was { readiness.period() } else { readiness.period().min(Duration::from_millis(100)) };
            tokio::time::sleep(wait).await;
        }
    }

    fn route_if_ready(&self) {
        if self.record.borrow().is_ready() && *self.phase.borrow() == Phase::Serving {
            self.draw_trees();
            self.route(true);
        }
    }

    /// The endpoint appears, or goes: a file that whoever dials the Service looks for.
    fn route(&self, to_it: bool) {
        let record = self.record.borrow();
        let folder = self.spec.folder.join("endpoints");
        let file = folder.join(&record.name);
        let done = if to_it {
            let next = folder.join(format!(".{}", record.name));
            fs::create_dir_all(&folder)
                .and_then(|()| fs::write(&next, format!("{}:{}\n", self.address, self.spec.port)))
                .and_then(|()| fs::rename(&next, &file))
        } else {
            fs::remove_file(&file)
        };
        // Gone already is gone.
        let _ = done;
    }

    fn draw_trees(&self) {
        for (place, pid) in self.pids.borrow().iter().enumerate().filter(|(_, pid)| **pid > 0) {
            let path = self.record.borrow().log(place).with_extension("tree");
            let _ = fs::write(path, tree::show(&tree::below(*pid)));
        }
    }

    /// Captures what goes through the pod's interface, if that is asked for and there is a program for it.
    async fn capture(&self) -> Option<Child> {
        if !self.spec.capture {
            return None;
        }
        let path = self.record.borrow().file(".pcap");
        let mut command = Command::new("setpriv");
        command.args([
            "--pdeathsig",
            "KILL",
            "tcpdump",
            "-i",
            "eth0",
            "-U",
            // Without it the kernel hands packets over in blocks, of which the last is lost at the end.
            "--immediate-mode",
            // A head, and many of them: in that mode a packet takes a place of its whole length, whatever is in it.
            "-s",
            "2048",
            "-B",
            "8192",
            "-Z",
            "root",
            "-w",
        ]);
        command.arg(path).args(["tcp", "port", &self.spec.port.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().ok()?;
        let mut words = BufReader::new(child.stderr.take()?).lines();
        let begun = async {
            while let Ok(Some(line)) = words.next_line().await {
                if line.contains("listening on") {
                    return true;
                }
            }
            false
        };
        let begun = tokio::time::timeout(CAPTURE_BEGINS, begun).await.unwrap_or(false);
        // Its counts at the end have to go somewhere.
        tokio::task::spawn_local(async move { while let Ok(Some(_)) = words.next_line().await {} });
        begun.then_some(child)
    }
}

/// The exit code that a runtime gives: 128 and the signal's number, where one ended it.
fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

type Stream = Box<dyn AsyncRead + Unpin>;

fn boxed(stream: impl AsyncRead + Unpin + 'static) -> Stream {
    Box::new(stream)
}

/// Copies what a container says, line by line: into its log as it is, and beside the others' with its name before it.
async fn follow(mut file: fs::File, name: String, stream: Stream, out: Rc<RefCell<Box<dyn Write>>>) {
    let mut lines = BufReader::new(stream);
    let mut line = Vec::new();
    while let Ok(1..) = lines.read_until(b'\n', &mut line).await {
        // A full disk, or nobody who reads, loses the words and not the pod.
        let _ = file.write_all(&line);
        let mut out = out.borrow_mut();
        let _ = write!(out, "{name}: ").and_then(|()| out.write_all(&line)).and_then(|()| out.flush());
        line.clear();
    }
}

async fn join(life: tokio::task::JoinHandle<Result<(), PodError>>) -> Result<(), PodError> {
    life.await.map_err(std::io::Error::other)?
}
