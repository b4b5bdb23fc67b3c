//! One run: replicas up, load on, events, everything down again, and what was seen of it.

use std::cell::{Cell, RefCell};
use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use lameduck_core::judge::Ending;
use lameduck_core::timeline::Moment;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::LocalSet;

use crate::clock::{Clock, run_id};
use crate::evidence::{Log, LogKind};
use crate::links::Links;
use crate::load::{Load, Wire};
use crate::plan::Plan;
use crate::progress::{Progress, Tick};
use crate::record::{Book, Record};
use crate::replica::{self, Fleet, Life, Replica, Starter};
use crate::router::Router;
use crate::stall::{self, Stalls};
use crate::wire::exchange::{Connected, connect, exchange};
use crate::wire::response::Reader;
use crate::{SetupError, aftermath, events, live, proc};

/// How often the counts are told.
const TICK: Duration = Duration::from_millis(250);
/// How often a replica that starts is asked whether it is ready.
const READY_POLL: Duration = Duration::from_millis(20);
/// The most time for one answer to that question.
const READY_ANSWER: Duration = Duration::from_secs(2);
/// Ports from which replicas get theirs: below the range that Linux gives to outgoing connections (32768 on).
const PORTS: std::ops::Range<u16> = 18_000..32_000;

/// What one run left: the raw material of a result.
#[derive(Debug)]
pub(crate) struct Observation {
    /// The clock's zero, since 1970.
    pub(crate) origin: Duration,
    pub(crate) records: Vec<Record>,
    pub(crate) lives: Vec<Observed>,
    pub(crate) book: Book,
    pub(crate) log: Log,
    pub(crate) events: Vec<(Duration, String)>,
    pub(crate) load_began: Duration,
    pub(crate) ended: Duration,
    pub(crate) log_kind: LogKind,
    /// CPU time that the drill itself took.
    pub(crate) client_cpu: Option<Duration>,
    /// When the drill itself was held up.
    pub(crate) stalls: Stalls,
}

/// A replica, as it was seen.
#[derive(Debug)]
pub(crate) struct Observed {
    pub(crate) name: String,
    pub(crate) port: u16,
    pub(crate) address: SocketAddr,
    pub(crate) life: Life,
}

/// What the tasks of a run share. One thread: nothing here is borrowed across an await.
pub(crate) struct Shared {
    pub(crate) plan: Plan,
    pub(crate) clock: Clock,
    pub(crate) router: RefCell<Router<Wire>>,
    pub(crate) links: RefCell<Links>,
    pub(crate) fleet: RefCell<Fleet>,
    pub(crate) book: RefCell<Book>,
    pub(crate) log: Rc<RefCell<Log>>,
    pub(crate) starter: Starter,
    pub(crate) notices: mpsc::UnboundedSender<Progress>,
    pub(crate) events: RefCell<Vec<(Duration, String)>>,
    stalls: Rc<RefCell<Stalls>>,
    next_port: Cell<u16>,
    cpu_before: Option<Duration>,
}

/// A port that no other run of this process was given lately. Two processes begin their search apart.
fn next_of_process() -> u16 {
    static GIVEN: AtomicU16 = AtomicU16::new(0);
    let span = u32::from(PORTS.end - PORTS.start);
    let given = u32::from(GIVEN.fetch_add(1, Ordering::Relaxed));
    PORTS.start + (std::process::id().wrapping_mul(97).wrapping_add(given) % span) as u16
}

/// Carries out the plan once, with `command` as the service.
pub(crate) fn observe(
    plan: &Plan,
    command: Vec<OsString>,
    folder: Option<&str>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Observation, SetupError> {
    carry_out(plan, command, folder, async |shared| whole(shared).await, progress)
}

/// The same, with the load going to replicas that run elsewhere.
pub(crate) fn observe_elsewhere(
    plan: &Plan,
    news: live::Receiver,
    progress: &mut dyn FnMut(Progress),
) -> Result<Observation, SetupError> {
    carry_out(plan, Vec::new(), None, async |shared| live::whole(shared, news).await, progress)
}

fn carry_out(
    plan: &Plan,
    command: Vec<OsString>,
    folder: Option<&str>,
    work: impl AsyncFnOnce(&Rc<Shared>) -> Result<Duration, SetupError>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Observation, SetupError> {
    aftermath::prepare(plan)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(SetupError::Runtime)?;
    let tasks = LocalSet::new();
    let result = tasks.block_on(&runtime, async {
        let (notices, mut news) = mpsc::unbounded_channel();
        let shared = Rc::new(Shared::new(plan, command, folder, notices));
        tokio::task::spawn_local(stall::watch(shared.clock, Rc::clone(&shared.stalls)));
        let result = attend(&shared, work(&shared), &mut news, progress).await;
        let replicas = shared.fleet.borrow().replicas.clone();
        let result = result.map(|load_began| shared.observation(&replicas, load_began));
        replica::end(&replicas).await;
        result
    });
    // Tasks that still hold a connection or a pipe end here, with their runtime.
    drop(tasks);
    if let Ok(seen) = &result {
        aftermath::leave(plan, seen)?;
    }
    result
}

/// Drives the run and tells its news; every event of it passes through here, one at a time.
async fn attend(
    shared: &Rc<Shared>,
    work: impl Future<Output = Result<Duration, SetupError>>,
    news: &mut mpsc::UnboundedReceiver<Progress>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Duration, SetupError> {
    let interrupts = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
    let [Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)] = interrupts else {
        return Err(SetupError::Runtime(std::io::Error::other("signal handlers could not be installed")));
    };
    tokio::pin!(work);
    let mut ticks = tokio::time::interval(TICK);
    let result = loop {
        tokio::select! {
            result = &mut work => break result,
            Some(piece) = news.recv() => progress(piece),
            _ = ticks.tick() => progress(Progress::Tick(shared.tick())),
            _ = interrupt.recv() => break Err(SetupError::Interrupted),
            _ = terminate.recv() => break Err(SetupError::Interrupted),
            _ = hangup.recv() => break Err(SetupError::Interrupted),
        }
    };
    while let Ok(piece) = news.try_recv() {
        progress(piece);
    }
    progress(Progress::Tick(shared.tick()));
    result
}

/// The run from start to end; returns when the load began.
async fn whole(shared: &Rc<Shared>) -> Result<Duration, SetupError> {
    let mut starting = Vec::new();
    for _ in 0..shared.plan.replicas {
        starting.push(shared.start(None)?);
    }
    for replica in &starting {
        shared.serve(replica).await?;
    }
    let load_began = shared.clock.now();
    let _ = shared.notices.send(Progress::LoadBegan { at: load_began });
    let load = Load::new(Rc::clone(shared), load_began);
    let events = async {
        let result = events::run(shared, &load, load_began).await;
        if result.is_ok() {
            shared.routing_settled().await;
            let least = load_began + shared.plan.duration;
            shared.clock.until(least.max(shared.clock.now() + shared.plan.tail)).await;
        }
        load.stop();
        result
    };
    let (result, ()) = tokio::join!(events, load.run());
    result?;
    load.finish().await;
    Ok(load_began)
}

impl Shared {
    fn new(
        plan: &Plan,
        command: Vec<OsString>,
        folder: Option<&str>,
        notices: mpsc::UnboundedSender<Progress>,
    ) -> Shared {
        let (run, clock) = (run_id(), Clock::start());
        let log = Rc::new(RefCell::new(Log::new(&run)));
        let logs = plan.logs.as_ref().map(|logs| folder.map_or_else(|| logs.clone(), |folder| logs.join(folder)));
        let starter = Starter {
            run,
            clock,
            command,
            env: plan.env.clone(),
            in_pods: plan.pods.is_some(),
            logs,
            log: Rc::clone(&log),
            notices: notices.clone(),
        };
        Shared {
            plan: plan.clone(),
            clock,
            router: RefCell::new(Router::new(plan.profile, plan.seed)),
            links: RefCell::new(Links::new(plan.profile)),
            fleet: RefCell::default(),
            book: RefCell::default(),
            log,
            starter,
            notices,
            events: RefCell::default(),
            stalls: Rc::default(),
            next_port: Cell::new(plan.port_base),
            cpu_before: proc::own_cpu(),
        }
    }

    fn tick(&self) -> Tick {
        let book = self.book.borrow();
        Tick {
            at: self.clock.now(),
            sent: book.sent,
            answered: book.answered,
            failed: book.failed,
            unrouted: book.unrouted,
            dropped: book.dropped,
        }
    }

    /// Starts a replica, at `address` or the next free one. It gets no requests yet.
    pub(crate) fn start(&self, address: Option<SocketAddr>) -> Result<Rc<Replica>, SetupError> {
        let index = self.router.borrow_mut().add();
        let address = match (address, self.plan.pods) {
            (Some(address), _) => address,
            (None, Some(pods)) => pods.address(index),
            (None, None) => SocketAddr::new(self.plan.host, self.free_port()?),
        };
        let replica = self.starter.start(index, address)?;
        self.fleet.borrow_mut().replicas.push(Rc::clone(&replica));
        Ok(replica)
    }

    fn free_port(&self) -> Result<u16, SetupError> {
        for _ in 0..1000 {
            let port = match self.next_port.get() {
                0 => next_of_process(),
                asked => {
                    self.next_port.set(asked.checked_add(1).unwrap_or(PORTS.start));
                    asked
                }
            };
            // Any address: a service that listens on all of them must find it free as well.
            let any: IpAddr = std::net::Ipv4Addr::UNSPECIFIED.into();
            if TcpListener::bind(SocketAddr::new(any, port)).is_ok() {
                return Ok(port);
            }
        }
        Err(SetupError::NoFreePort)
    }

    /// Waits until a replica answers, then routes to it.
    pub(crate) async fn serve(self: &Rc<Self>, replica: &Rc<Replica>) -> Result<(), SetupError> {
        let began = self.clock.now();
        loop {
            let last = tokio::select! {
                biased;
                () = replica.exit() => return Err(SetupError::ExitedAtStart {
                    replica: replica.name(),
                    status: replica.life.borrow().status.map_or_else(|| "an unknown status".into(), |s| s.to_string()),
                    tail: replica.tail(),
                }),
                answer = self.ask_ready(replica) => match answer {
                    Ok(()) => break,
                    Err(why) => why,
                },
            };
            if self.clock.now() >= began + self.plan.ready_timeout {
                let (replica, tail) = (replica.name(), replica.tail());
                return Err(SetupError::NotReady { replica, waited: self.plan.ready_timeout, last, tail });
            }
            tokio::time::sleep(READY_POLL).await;
        }
        replica.record(self.clock.now(), Moment::Ready);
        replica.note_family();
        self.router.borrow_mut().route(replica.index);
        tokio::task::spawn_local(events::watch_crash(Rc::clone(self), Rc::clone(replica)));
        Ok(())
    }

    /// One readiness probe, on a connection of its own: any whole answer below 500 is ready.
    async fn ask_ready(&self, replica: &Replica) -> Result<(), String> {
        let mut stream = match connect(replica.address, READY_ANSWER).await {
            Connected::Open(stream) => stream,
            Connected::Refused => return Err("connection refused".into()),
            Connected::TimedOut => return Err("connection timed out".into()),
            Connected::OwnFault(error) => return Err(error.to_string()),
        };
        let (path, address) = (&self.plan.ready_path, replica.address);
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: kube-probe/lameduck-drill\r\nConnection: close\r\n\r\n"
        );
        let got =
            exchange(&mut stream, request.as_bytes().into(), Reader::new(false, ""), READY_ANSWER, self.clock).await;
        match got.ending {
            Ending::Complete { status } if status < 500 => Ok(()),
            Ending::Complete { status } => Err(format!("GET {path} answered {status}")),
            Ending::Malformed | Ending::NotProcessed | Ending::Aborted => {
                Err(format!("GET {path} was not answered in HTTP/1"))
            }
            Ending::Fin | Ending::Rst => Err(format!("the connection was closed on GET {path}")),
            Ending::TimedOut | Ending::Pending => Err(format!("GET {path} was not answered in time")),
        }
    }

    /// The newest replica that serves and was not told to stop.
    pub(crate) fn newest(&self) -> Option<Rc<Replica>> {
        self.serving().pop()
    }

    /// All replicas that serve and were not told to stop, oldest first.
    pub(crate) fn serving(&self) -> Vec<Rc<Replica>> {
        let serves = |replica: &&Rc<Replica>| {
            let life = replica.life.borrow();
            life.at(Moment::Ready).is_some() && life.at(Moment::TermReceived).is_none() && !replica.has_exited()
        };
        self.fleet.borrow().replicas.iter().filter(serves).map(Rc::clone).collect()
    }

    /// Waits until routing has heard of every end there was.
    async fn routing_settled(&self) {
        let told = |replica: &Rc<Replica>| {
            let life = replica.life.borrow();
            let ended = life.at(Moment::TermReceived).is_some() || replica.has_exited();
            !ended || life.at(Moment::EndpointRemoved).is_some()
        };
        while !self.fleet.borrow().replicas.iter().all(told) {
            tokio::time::sleep(READY_POLL).await;
        }
    }

    /// Takes what was seen out of the run.
    fn observation(&self, replicas: &[Rc<Replica>], load_began: Duration) -> Observation {
        let mut book = self.book.take();
        let log = self.log.replace(Log::new("done"));
        let records = std::mem::take(&mut book.records);
        // Behind a proxy a failure may be the proxy's own answer, which no replica ever had.
        let own = |status: u16| status < 500 || self.plan.via.is_none();
        let whole = |record: &&Record| matches!(record.attempt.ending, Ending::Complete { status } if own(status));
        let log_kind = log.kind(records.iter().filter(whole).map(|record| (record.id, record.attempt.ended)));
        let lives = replicas.iter().map(|replica| Observed {
            name: replica.name(),
            port: replica.port,
            address: replica.address,
            life: replica.life.replace(Life::new(lameduck_core::Timeline::default())),
        });
        Observation {
            origin: self.clock.origin(),
            records,
            lives: lives.collect(),
            book,
            log,
            events: self.events.take(),
            load_began,
            ended: self.clock.now(),
            log_kind,
            client_cpu: proc::own_cpu().zip(self.cpu_before).map(|(now, before)| now.saturating_sub(before)),
            stalls: self.stalls.take(),
        }
    }
}
