//! The other lameducks of the pod, seen from PID 1: answered whenever they ask, and asked in a lame duck.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use lameduck_core::duration::show;
use lameduck_core::report::{EndedBy, OrderReport, Origin, Relation};

use crate::log::Log;
use crate::machine::{Ahead, Event, State, Time};
use crate::options::{Mode, Options, Persona};
use crate::pod::identity::{Identity, name_of_command};
use crate::pod::links::Links;
use crate::pod::order::{News, Order};
use crate::pod::socket::{Heard, PodSocket, Sent};
use crate::pod::wire::Standing;
use crate::processes;

use super::{HOLDING, Init, monotonic};

/// How often neighbours are asked where they stand.
const ASK: Duration = Duration::from_millis(200);
/// The same while nothing else holds the lame duck.
const ASK_HELD: Duration = Duration::from_millis(50);
/// How often it is looked for new ones.
const FIND: Duration = Duration::from_secs(1);
/// Datagrams read in one turn; who sends more is not listened to for a while.
const MOST_HEARD: usize = 64;
/// For so long.
const MUTE: Duration = Duration::from_millis(100);

/// What is known of the pod.
#[derive(Debug)]
pub struct Pod {
    socket: PodSocket,
    order: Order,
    links: Links,
    found: Vec<(String, String)>,
    next_ask: Time,
    next_find: Time,
    next_look: Time,
    muted_until: Time,
    /// When neighbours were no longer waited for.
    wait_ended: Option<Time>,
    said_nonsense: bool,
    said_held: bool,
}

impl Pod {
    /// Binds this container's name, where neighbours are wanted.
    pub fn open(options: &Options, own_pid: i32, log: &mut Log) -> Option<Pod> {
        let wanted = options.persona == Persona::Lameduck && options.mode != Mode::Off && options.pod.order;
        if !wanted {
            return None;
        }
        let identity =
            std::fs::read_to_string("/proc/self/mountinfo").map(|text| Identity::of_mounts(&text)).unwrap_or_default();
        let command =
            || name_of_command(&options.command.first().map(|word| word.to_string_lossy()).unwrap_or_default());
        let default = || options.pod.default_name.map_or_else(command, str::to_owned);
        let name = options.pod.name.clone().or(identity.container).unwrap_or_else(default);
        let front_port = options.front.as_ref().and_then(|front| front.app_port);
        match PodSocket::bind(&name, own_pid) {
            Ok(socket) => Some(Pod {
                socket,
                order: Order::new(name, identity.pod, options.pod.after.clone()),
                links: Links::new(options.ports.clone(), front_port.into_iter().collect()),
                found: Vec::new(),
                next_ask: Duration::ZERO,
                next_find: Duration::ZERO,
                next_look: Duration::ZERO,
                muted_until: Duration::ZERO,
                wait_ended: None,
                said_nonsense: false,
                said_held: false,
            }),
            Err(error) => {
                log.warn(format_args!("neighbours in the pod will not be seen, nor see this one: no socket: {error}"));
                None
            }
        }
    }

    /// The descriptor to poll, unless somebody talks too much.
    pub fn descriptor(&self, now: Time) -> Option<BorrowedFd<'_>> {
        (now >= self.muted_until).then(|| self.socket.descriptor())
    }

    /// When something is due. In a lame duck neighbours are asked; otherwise nothing is, unless somebody talked too much.
    pub fn deadline(&self, now: Time, lame_duck: bool) -> Option<Time> {
        let muted = (now < self.muted_until).then_some(self.muted_until);
        [lame_duck.then_some(self.next_ask), muted].into_iter().flatten().min()
    }

    /// Neighbours are asked at once.
    pub fn ask_now(&mut self, now: Time) {
        (self.next_ask, self.next_find, self.next_look) = (now, now, now);
    }

    /// The report's part about it; none where there is nothing to tell.
    pub fn report(&self, began: Time, now: Time, held_since: Option<Time>) -> Option<OrderReport> {
        let until = self.wait_ended.unwrap_or(now);
        let neighbours = self.order.report(began, until);
        let held = held_since.map_or(Duration::ZERO, |since| until.saturating_sub(since));
        (!neighbours.is_empty()).then(|| OrderReport { name: self.order.name.clone(), neighbours, held })
    }

    fn hear(&mut self, now: Time, standing: Standing, draining: bool, log: &mut Log) -> bool {
        if now < self.muted_until {
            return false;
        }
        for _ in 0..MOST_HEARD {
            match self.socket.receive() {
                None => return draining,
                Some(Heard::Nonsense) => {
                    if !std::mem::replace(&mut self.said_nonsense, true) {
                        log.warn(format_args!(
                            "something that is no neighbour's wrote to this pod's socket; it and what comes after it of that kind is ignored"
                        ));
                    }
                }
                Some(Heard::Said { name, address, said }) => {
                    if said.asks {
                        self.socket.send(&address, &self.order.announcement(false, standing));
                    }
                    // Outside a drain nobody is kept: neighbours come and go.
                    if draining {
                        self.order.hear(&name, &address, said);
                    }
                }
            }
        }
        self.muted_until = now + MUTE;
        draining
    }

    fn ask(&mut self, now: Time, standing: Standing) {
        if now >= self.next_find {
            self.next_find = now + FIND;
            self.found = self.socket.find();
            self.order.found(&self.found);
        }
        let announcement = self.order.announcement(true, standing);
        let known = self.order.neighbours().iter().map(|known| known.address.clone());
        let mut addresses: Vec<String> = self.found.iter().map(|(_, address)| address.clone()).chain(known).collect();
        addresses.sort_unstable();
        addresses.dedup();
        for address in addresses {
            match self.socket.send(&address, &announcement) {
                Sent::Sent => {}
                Sent::Gone => {
                    self.order.gone(now, &address);
                    self.found.retain(|(_, found)| *found != address);
                }
            }
        }
    }
}

impl Init {
    /// What this lameduck says of itself. A drain that was asked for long ago was no preStop hook's: see [`crate::machine`].
    fn standing(&self) -> Standing {
        let Some(drain) = self.machine.drain() else { return Standing::Serving };
        let fresh = self.now() < drain.began + self.policy.budget.kill_at();
        match drain.origin {
            Origin::Request if drain.signal.is_none() && !fresh => Standing::Serving,
            Origin::Signal | Origin::Request | Origin::AppExit => Standing::Leaving,
        }
    }

    pub(super) fn hear_neighbours(&mut self) {
        let (now, standing) = (self.now(), self.standing());
        let in_lame_duck = self.machine.state() == State::LameDuck;
        let Some(pod) = &mut self.pod else { return };
        if pod.hear(now, standing, in_lame_duck, &mut self.log) {
            self.settle_order();
        }
    }

    /// In a lame duck: looks who proxies to whom, and asks.
    pub(super) fn ask_neighbours_if_due(&mut self) {
        let (now, standing) = (self.now(), self.standing());
        let in_lame_duck = self.machine.state() == State::LameDuck;
        if !in_lame_duck || self.pod.as_ref().is_none_or(|pod| now < pod.next_ask) {
            return;
        }
        self.learn_links(now);
        let holding = self.machine.drain().is_some_and(|drain| drain.waits_for_signal);
        let held = self.machine.held_since().is_some();
        let Some(pod) = &mut self.pod else { return };
        pod.next_ask = now
            + if held {
                ASK_HELD
            } else if holding {
                HOLDING
            } else {
                ASK
            };
        pod.ask(now, standing);
        self.settle_order();
    }

    fn learn_links(&mut self, now: Time) {
        let own = self.own_pid;
        let Some(pod) = self.pod.as_mut().filter(|pod| now >= pod.next_look) else { return };
        // Its helpers too: a front's connections are its app's.
        let mut all: Vec<i32> =
            processes::descendants(own, &[]).unwrap_or_default().iter().map(|process| process.pid).collect();
        all.push(own);
        pod.links.look(&all);
        pod.order.listens.clone_from(&pod.links.listens);
        pod.order.connects.clone_from(&pod.links.connects);
        let cost = monotonic().saturating_sub(self.epoch).saturating_sub(now);
        pod.next_look = now + Links::pace(cost);
    }

    fn settle_order(&mut self) {
        let began = self.machine.drain().map_or(Duration::ZERO, |drain| drain.began);
        let Some(pod) = &mut self.pod else { return };
        let (ahead, news) = pod.order.settle();
        for news in news {
            say(&news, began, &pod.order, &mut self.log);
        }
        self.apply(Event::Neighbours(ahead));
        self.say_if_held(ahead);
    }

    fn say_if_held(&mut self, ahead: Ahead) {
        let Some(drain) = self.machine.drain().filter(|_| self.machine.held_since().is_some()) else { return };
        let until = match ahead {
            Ahead::Nobody => return,
            Ahead::Untold => self.policy.budget.min,
            Ahead::Leaving => self.machine.held_until(drain).saturating_sub(drain.began),
        };
        let Some(pod) = &mut self.pod else { return };
        if !std::mem::replace(&mut pod.said_held, true) {
            let names = pod.order.waited_for().join(", ");
            self.log.info(format_args!(
                "the lame duck lasts for {names} alone: until it has left, {} at the most",
                show(until)
            ));
        }
    }

    pub(super) fn watch_neighbours(&mut self) {
        let now = self.now();
        if let Some(pod) = &mut self.pod {
            pod.ask_now(now);
        }
    }

    pub(super) fn order_report(&self, now: Time) -> Option<OrderReport> {
        let drain = self.machine.drain().filter(|drain| drain.origin != Origin::AppExit)?;
        self.pod.as_ref()?.report(drain.began, now, self.machine.held_since())
    }

    /// The lame duck is over, and so is the wait for neighbours.
    pub(super) fn leave_neighbours(&mut self, by: EndedBy) {
        let now = self.now();
        let held = self.machine.held_since().is_some();
        let Some(pod) = &mut self.pod else { return };
        pod.wait_ended.get_or_insert(now);
        let names = pod.order.waited_for().join(", ");
        if held && by == EndedBy::BudgetSpent && !names.is_empty() {
            self.log.warn(format_args!("{names}: still there, and no time is left to wait; going on"));
        }
    }
}

fn say(news: &News, began: Time, order: &Order, log: &mut Log) {
    match news {
        News::Ahead { name, relation: Relation::Proxies, ports } => {
            log.info(format_args!("{name} proxies to port {} of this app: it leaves first", list(ports)));
        }
        News::Ahead { name, relation: Relation::Stated, .. } => {
            log.info(format_args!("{name} leaves first, as --after says"));
        }
        News::Left { name, at } => {
            log.info(format_args!("{name} has left after {}", show(at.saturating_sub(began))));
        }
        News::Mutual { name } => log.info(format_args!(
            "{name} and this app connect to each other: there is no order between the two; --after states one"
        )),
        News::Cycle { name } => log.warn(format_args!(
            "--after goes round: {} leaves after {name}, which leaves after {}; each waits until its time is over: take one --after away",
            order.name, order.name
        )),
    }
}

fn list(ports: &[u16]) -> String {
    ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ")
}
