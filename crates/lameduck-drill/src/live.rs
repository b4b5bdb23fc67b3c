//! Replicas that run elsewhere, in a cluster for instance: the load follows what routing says of them, and what is known of
//! their ends is told from outside.

pub mod slices;

use std::cell::Cell;
use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::rc::Rc;
use std::time::Duration;

use lameduck_core::judge::SLACK;
use lameduck_core::timeline::Moment;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};

use crate::evidence::Whose;
use crate::load::Load;
use crate::progress::Progress;
use crate::replica::{Reaction, Replica};
use crate::run::Shared;
use crate::{SetupError, events};

/// The most news that can wait to be read.
const MOST_NEWS: usize = 100_000;

/// What is heard of a replica. Its name is its own for good: a successor has another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "news")]
pub enum News {
    /// Routing sends to it from now on, again where it had left it: a readiness probe fails on a busy machine, and passes.
    Routed {
        /// Which.
        name: String,
        /// Where it is.
        address: SocketAddr,
    },
    /// Routing does not send to it any more.
    Unrouted {
        /// Which.
        name: String,
    },
    /// Its end was asked for.
    Stopping {
        /// Which.
        name: String,
    },
    /// Its first process has ended.
    Exited {
        /// Which.
        name: String,
    },
    /// The status that it ended with, which may become known later.
    Status {
        /// Which.
        name: String,
        /// As a container's: 128 and the signal where a signal ended it.
        code: i32,
    },
    /// A line of a replica's own output: what it says of requests is evidence.
    Log {
        /// Whose.
        name: String,
        /// The line.
        line: String,
    },
    /// No more load. What is still heard after it counts as before.
    Enough,
    /// Something that somebody did, to be shown on the timeline.
    Event {
        /// In words.
        what: String,
    },
}

/// Tells the load what is new. All ends once nobody can tell anything any more.
#[derive(Debug, Clone)]
pub struct Sender(mpsc::Sender<News>);

impl Sender {
    /// Tells it; whether it is still heard. May be called from any thread, and never waits.
    pub fn tell(&self, news: News) -> bool {
        self.0.try_send(news).is_ok()
    }
}

/// What the load hears.
#[derive(Debug)]
pub struct Receiver(mpsc::Receiver<News>);

impl Receiver {
    /// The next of it; none once nobody can tell anything any more.
    pub async fn next(&mut self) -> Option<News> {
        self.0.recv().await
    }
}

/// The two ends of what is told.
pub fn channel() -> (Sender, Receiver) {
    let (sender, receiver) = mpsc::channel(MOST_NEWS);
    (Sender(sender), Receiver(receiver))
}

/// The replicas heard of.
struct Known {
    shared: Rc<Shared>,
    by_name: HashMap<String, One>,
    strangers: HashMap<String, usize>,
}

struct One {
    replica: Rc<Replica>,
    exited: watch::Sender<bool>,
    /// Whether routing sends to it.
    routed: Rc<Cell<bool>>,
}

/// The run from start to end; returns when the load began.
pub(crate) async fn whole(shared: &Rc<Shared>, mut news: Receiver) -> Result<Duration, SetupError> {
    let (wanted, patience) = (shared.plan.replicas, shared.plan.ready_timeout);
    let mut known = Known { shared: Rc::clone(shared), by_name: HashMap::new(), strangers: HashMap::new() };
    let enough = async {
        while shared.serving().len() < wanted
            && let Some(piece) = news.0.recv().await
        {
            known.hear(piece);
        }
    };
    let _ = tokio::time::timeout(patience, enough).await;
    let found = shared.serving().len();
    if found < wanted {
        return Err(SetupError::NotRouted { found, wanted, waited: patience });
    }
    let load_began = shared.clock.now();
    let _ = shared.notices.send(Progress::LoadBegan { at: load_began });
    let load = Load::new(Rc::clone(shared), load_began);
    let listening = async {
        while let Some(piece) = news.0.recv().await {
            match piece {
                News::Enough => load.stop(),
                piece => known.hear(piece),
            }
        }
        load.stop();
    };
    let sending = async {
        load.run().await;
        load.finish().await;
    };
    tokio::join!(listening, sending);
    Ok(load_began)
}

impl Known {
    fn hear(&mut self, news: News) {
        let shared = Rc::clone(&self.shared);
        let now = shared.clock.now();
        match news {
            News::Routed { name, address } => self.route(name, address, now),
            News::Unrouted { name } => {
                if let Some(One { replica, routed, .. }) = self.by_name.get(&name) {
                    shared.router.borrow_mut().leave(replica.index);
                    routed.set(false);
                    let (replica, routed) = (Rc::clone(replica), Rc::clone(routed));
                    tokio::task::spawn_local(async move {
                        tokio::time::sleep(shared.plan.lag).await;
                        if !routed.get() {
                            events::remove(&shared, &replica);
                        }
                    });
                }
            }
            News::Stopping { name } => self.note(&name, Moment::TermReceived, now),
            News::Exited { name } => {
                if let Some(replica) = self.replica(&name) {
                    // What it closed before its end, nobody may have looked at yet.
                    events::look_at_idle(&shared, &replica);
                }
                self.note(&name, Moment::Exited, now);
                if let Some(one) = self.by_name.get(&name) {
                    let _ = one.exited.send(true);
                }
            }
            News::Status { name, code } => self.status(&name, code),
            News::Log { name, line } => {
                let whose = match self.replica(&name) {
                    Some(replica) => Whose::Replica(replica.index),
                    None => Whose::Stranger(self.stranger(name)),
                };
                shared.log.borrow_mut().line(whose, line.as_bytes(), now);
            }
            News::Enough => {}
            News::Event { what } => {
                shared.events.borrow_mut().push((now, what.clone()));
                let _ = shared.notices.send(Progress::Event { at: now, event: what });
            }
        }
    }

    /// The place of one that writes and is not routed to, as far as is known here.
    fn stranger(&mut self, name: String) -> usize {
        let next = self.strangers.len();
        *self.strangers.entry(name).or_insert(next)
    }

    fn replica(&self, name: &str) -> Option<Rc<Replica>> {
        self.by_name.get(name).map(|one| Rc::clone(&one.replica))
    }

    fn route(&mut self, name: String, address: SocketAddr, now: Duration) {
        if let Some(One { replica, routed, .. }) = self.by_name.get(&name) {
            routed.set(true);
            return self.shared.router.borrow_mut().route(replica.index);
        }
        let index = self.shared.router.borrow_mut().add();
        let (replica, exited) = Replica::elsewhere(index, name.clone(), address, self.shared.notices.clone());
        replica.life.borrow_mut().told_late = SLACK;
        self.shared.fleet.borrow_mut().replicas.push(Rc::clone(&replica));
        replica.record(now, Moment::Ready);
        self.shared.router.borrow_mut().route(index);
        // It stays among them, so that the places of others stay theirs.
        if let Some(stranger) = self.strangers.get(&name) {
            self.shared.log.borrow_mut().introduce(*stranger, index);
        }
        self.by_name.insert(name, One { replica, exited, routed: Rc::new(Cell::new(true)) });
    }

    /// Notes a moment, once.
    fn note(&self, name: &str, moment: Moment, now: Duration) {
        if let Some(replica) = self.replica(name)
            && replica.life.borrow().at(moment).is_none()
        {
            replica.record(now, moment);
            if moment == Moment::TermReceived {
                self.note_before_deadline(replica);
            }
        }
    }

    /// A kubelet's SIGKILL is known from the status, afterwards. Its closes are seen first, and would pass for a reaction. Whether it
    /// still listens then, as if nothing had been said, only a connect can tell from here.
    fn note_before_deadline(&self, replica: Rc<Replica>) {
        let until = self.shared.plan.grace.saturating_sub(SLACK * 2);
        tokio::task::spawn_local(async move {
            tokio::time::sleep(until).await;
            if replica.life.borrow().at(Moment::Exited).is_some() {
                return;
            }
            let connected = tokio::time::timeout(SLACK, TcpStream::connect(replica.address)).await;
            let mut life = replica.life.borrow_mut();
            if life.at(Moment::Exited).is_some() {
                return;
            }
            match connected {
                Ok(Ok(_)) => life.listener_watched = true,
                Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => life.reaction = Reaction::Certain,
                Ok(Err(_)) | Err(_) => {}
            }
            life.before_deadline = Some(life.reaction);
        });
    }

    fn status(&self, name: &str, code: i32) {
        let Some(replica) = self.replica(name) else { return };
        let mut life = replica.life.borrow_mut();
        // How wait() would have given it.
        let status = if (129..192).contains(&code) { code - 128 } else { code << 8 };
        life.status = Some(ExitStatus::from_raw(status));
        if let (Some(_), Some(exited), 137) = (life.at(Moment::TermReceived), life.at(Moment::Exited), code)
            && life.at(Moment::Killed).is_none()
        {
            life.record(exited, Moment::Killed);
            life.reaction = life.before_deadline.unwrap_or(life.reaction);
        }
    }
}
