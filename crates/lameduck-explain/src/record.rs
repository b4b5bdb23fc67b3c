//! What a line can say: a request as a hop saw it, a remark about one, an event, or nothing of interest.

use serde::Serialize;

use crate::time::Micros;

/// Where something was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Place {
    /// The input, in the order read.
    pub input: u16,
    /// Its line, or in a capture its frame, from 1.
    pub line: u64,
}

/// What a hop saw of a request's end. It is what the log says, not yet why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Signal {
    /// A whole answer that is no server error.
    Answered,
    /// A whole answer from the app, and a server error.
    AppError,
    /// Connecting was refused.
    Refused,
    /// There is no way to the address.
    Unroutable,
    /// Connecting was not answered in time.
    ConnectTimeout,
    /// Connecting failed; the hop does not say how.
    ConnectFailed,
    /// The connection was closed, or reset, before a byte of the answer; the log does not tell which.
    ClosedBeforeAnswer,
    /// It was closed by FIN before a byte of the answer: a process that closes with something unread sends RST instead
    /// (RFC 1122, section 4.2.2.13), so whatever had arrived had been read.
    FinBeforeAnswer,
    /// It was reset before a byte of the answer, without a FIN before: what had been sent was not read, or the process aborted.
    ResetBeforeAnswer,
    /// It was closed with a part of the answer sent.
    CutMidAnswer,
    /// No answer in the hop's time.
    Timeout,
    /// The hop had no server to send it to.
    NoServer,
    /// A queue or a limit of the hop was full.
    Overload,
    /// The hop failed and does not say how.
    Failed,
    /// The hop's own rule, or a misconfiguration: no server was concerned.
    Policy,
    /// The client left.
    ClientLeft,
    /// Idle: the server closed the connection before it had received a byte of the request (only a capture shows that).
    ClosedIdle,
    /// The server had the request and closed without a byte of an answer (only a capture shows that).
    ClosedUnanswered,
    /// The address stopped answering.
    Silent,
}

impl Signal {
    /// Every signal.
    pub const ALL: [Signal; 19] = [
        Signal::Answered,
        Signal::AppError,
        Signal::Refused,
        Signal::Unroutable,
        Signal::ConnectTimeout,
        Signal::ConnectFailed,
        Signal::ClosedBeforeAnswer,
        Signal::FinBeforeAnswer,
        Signal::ResetBeforeAnswer,
        Signal::CutMidAnswer,
        Signal::Timeout,
        Signal::NoServer,
        Signal::Overload,
        Signal::Failed,
        Signal::Policy,
        Signal::ClientLeft,
        Signal::ClosedIdle,
        Signal::ClosedUnanswered,
        Signal::Silent,
    ];

    /// Whether the connection ended before a byte of the answer, however much the log tells of how.
    pub const fn is_closed_before_answer(self) -> bool {
        matches!(self, Signal::ClosedBeforeAnswer | Signal::FinBeforeAnswer | Signal::ResetBeforeAnswer)
    }

    /// Whether the request is lost: the server's side failed it.
    pub const fn is_loss(self) -> bool {
        !matches!(self, Signal::Answered | Signal::Policy | Signal::ClientLeft)
    }

    /// How much it says about why; of two accounts of one request the better counts.
    pub const fn tells(self) -> u8 {
        match self {
            Signal::Answered | Signal::Policy | Signal::ClientLeft => 0,
            Signal::Failed => 1,
            Signal::AppError => 2,
            Signal::ConnectFailed | Signal::NoServer => 3,
            Signal::Timeout | Signal::Overload => 4,
            // Of several attempts the last counts, however each was closed.
            Signal::ClosedBeforeAnswer | Signal::FinBeforeAnswer | Signal::ResetBeforeAnswer => 5,
            Signal::Refused | Signal::Unroutable | Signal::ConnectTimeout => 6,
            Signal::CutMidAnswer => 7,
            Signal::ClosedIdle | Signal::ClosedUnanswered | Signal::Silent => 8,
        }
    }

    /// In words.
    pub const fn words(self) -> &'static str {
        match self {
            Signal::Answered => "answered",
            Signal::AppError => "the server's own error",
            Signal::Refused => "connect refused",
            Signal::Unroutable => "no route to the address",
            Signal::ConnectTimeout => "connect timed out",
            Signal::ConnectFailed => "connect failed",
            Signal::ClosedBeforeAnswer => "closed before any answer",
            Signal::FinBeforeAnswer => "closed before any answer, with nothing unread",
            Signal::ResetBeforeAnswer => "reset before any answer",
            Signal::CutMidAnswer => "cut in the answer",
            Signal::Timeout => "no answer in time",
            Signal::NoServer => "no server to send it to",
            Signal::Overload => "queue or limit full",
            Signal::Failed => "failed, the log does not say how",
            Signal::Policy => "the hop's own rule",
            Signal::ClientLeft => "the client left",
            Signal::ClosedIdle => "closed while idle, the request unread",
            Signal::ClosedUnanswered => "closed with the request read",
            Signal::Silent => "the address fell silent",
        }
    }
}

/// A request as one hop saw it. Texts are as logged; empty where the log has none.
#[derive(Debug, Clone, Copy)]
pub struct Hop<'a> {
    /// When it ended.
    pub end: Option<Micros>,
    /// From its first byte to its end.
    pub took: Option<Micros>,
    /// How long the server had it, where that is told apart.
    pub server_took: Option<Micros>,
    /// The status sent to the client; 0: none.
    pub status: u16,
    /// What was seen.
    pub signal: Signal,
    /// The server's address.
    pub backend: &'a [u8],
    /// What the hop calls the service.
    pub service: &'a [u8],
    /// The method.
    pub method: &'a [u8],
    /// The target, or the whole address asked for.
    pub target: &'a [u8],
    /// The request's id.
    pub id: &'a [u8],
    /// The client's address.
    pub client: &'a [u8],
    /// What the log said about the end, in its own words.
    pub detail: &'a [u8],
    /// How many attempts the hop made; more than one is a masked loss where the last was answered.
    pub attempts: u16,
    /// Whether hop and server share a pod.
    pub same_pod: bool,
    /// Whether the server's answer said that the connection is closed after it (`Connection: close`).
    pub closes: bool,
}

impl Hop<'_> {
    /// Nothing known yet.
    pub const EMPTY: Hop<'static> = Hop {
        end: None,
        took: None,
        server_took: None,
        status: 0,
        signal: Signal::Answered,
        backend: b"",
        service: b"",
        method: b"",
        target: b"",
        id: b"",
        client: b"",
        detail: b"",
        attempts: 1,
        same_pod: false,
        closes: false,
    };
}

/// A remark about one attempt, as in nginx's error log. It has no id: request, client and second join it to an access line.
#[derive(Debug, Clone, Copy)]
pub struct Note<'a> {
    /// When.
    pub at: Micros,
    /// What was seen.
    pub signal: Signal,
    /// The server's address.
    pub backend: &'a [u8],
    /// The client's address.
    pub client: &'a [u8],
    /// Method.
    pub method: &'a [u8],
    /// Target.
    pub target: &'a [u8],
    /// The message.
    pub detail: &'a [u8],
}

/// What happened to a process, a pod, a node or a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    /// The stop was requested: the pod deleted, the container being stopped.
    Stopping,
    /// The app itself says that it was told to stop.
    AppStopping,
    /// It ended.
    Ended,
    /// It ended although nobody asked: a crash, out of memory.
    Crashed,
    /// One of its workers ended.
    WorkerEnded,
    /// A failed liveness or startup probe: it will be restarted.
    ProbeRestart,
    /// It was started.
    Started,
    /// It is ready.
    Ready,
    /// It is not ready.
    NotReady,
    /// The grace period ran out.
    GraceExceeded,
    /// A deployment has fewer replicas than before.
    ScaledDown,
    /// More.
    ScaledUp,
    /// A node goes, or is gone.
    NodeGone,
    /// Evicted or preempted.
    Evicted,
    /// A proxy was reloaded or stopped.
    ProxyStopping,
}

impl EventKind {
    /// In words.
    pub const fn words(self) -> &'static str {
        match self {
            EventKind::Stopping => "is being stopped",
            EventKind::AppStopping => "says it stops",
            EventKind::Ended => "ended",
            EventKind::Crashed => "crashed",
            EventKind::WorkerEnded => "lost a worker",
            EventKind::ProbeRestart => "is restarted: a probe failed",
            EventKind::Started => "was started",
            EventKind::Ready => "is ready",
            EventKind::NotReady => "is not ready",
            EventKind::GraceExceeded => "ran out of grace",
            EventKind::ScaledDown => "was scaled down",
            EventKind::ScaledUp => "was scaled up",
            EventKind::NodeGone => "node goes",
            EventKind::Evicted => "was evicted",
            EventKind::ProxyStopping => "proxy reloads or stops",
        }
    }
}

/// An event. `subject` is a pod, node or deployment; empty: whoever wrote this file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// When.
    pub at: Micros,
    /// What.
    pub kind: EventKind,
    /// Of whom: `Pod/name`, `Node/name`...
    pub subject: String,
    /// In the words of whoever told.
    pub words: String,
}

/// A pod as an object says it is, or was.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodFacts {
    /// Its name.
    pub name: String,
    /// Its address.
    pub ip: Option<String>,
    /// The ports of its containers: pods on the host's network share an address.
    pub ports: Vec<u16>,
    /// Its containers, with their ports.
    pub containers: Vec<(String, Vec<u16>)>,
    /// Its node.
    pub node: Option<String>,
    /// When it was started.
    pub started: Option<Micros>,
    /// When it became ready.
    pub ready: Option<Micros>,
    /// When its deletion was asked for.
    pub deleted: Option<Micros>,
    /// The grace it was given.
    pub grace: Option<Micros>,
    /// When its container ended.
    pub ended: Option<Micros>,
    /// The container's exit code.
    pub exit_code: Option<i64>,
    /// `OOMKilled`, `Error`...
    pub reason: Option<String>,
    /// Whether the container was started again after that end.
    pub restarted: bool,
    /// When the object was read; it was as told until then.
    pub seen: Option<Micros>,
}

/// What one line, or object, says.
#[derive(Debug, Clone)]
pub enum Line<'a> {
    /// A request.
    Hop(Hop<'a>),
    /// A remark about one.
    Note(Note<'a>),
    /// Events.
    Events(Vec<Event>),
    /// A pod's state.
    Pod(Box<PodFacts>),
    /// Understood, and of no interest.
    Nothing,
}
