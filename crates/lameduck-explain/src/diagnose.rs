//! From what was seen of a loss, and what its server was at that moment, to its cause: the attribution matrix. A time that fits is never
//! enough: the server has to be the one that the request went to.

mod closed;

use lameduck_core::Cause;
use serde::Serialize;

use crate::books::{Backend, Books, Loss, ROUNDING};
use crate::record::{Place, Signal};
use crate::time::{Micros, SECOND};
use crate::world::{Life, State, World};

/// How near a server's other answers must be to show that it lived.
const NEAR: Micros = 3 * SECOND;

/// How sure a cause is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Confidence {
    /// The evidence of this very request decides.
    Proven,
    /// What was seen has one explanation in the state that its server was in.
    Likely,
    /// It does not decide.
    Open,
}

/// A cause with its grounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Verdict {
    /// The cause.
    pub cause: Cause,
    /// How sure.
    pub confidence: Confidence,
    /// The evidence that decided; for `unknown`, what is missing.
    pub grounds: &'static str,
}

const fn proven(cause: Cause, grounds: &'static str) -> Verdict {
    Verdict { cause, confidence: Confidence::Proven, grounds }
}

const fn likely(cause: Cause, grounds: &'static str) -> Verdict {
    Verdict { cause, confidence: Confidence::Likely, grounds }
}

const fn open(missing: &'static str) -> Verdict {
    Verdict { cause: Cause::Unknown, confidence: Confidence::Open, grounds: missing }
}

/// What the logs themselves show of a server around a moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "independent observations")]
struct Around {
    /// It answered shortly before and shortly after, and nobody was refused in between.
    lived: bool,
    /// Connections to it were refused shortly after.
    refused: bool,
    /// It had never answered before, though the log goes back.
    new: bool,
    /// Connecting to it went unanswered just before.
    silent: bool,
    /// It answered a request that began after this one, so it had accepted this one too.
    accepted: bool,
    /// It answered shortly before, and has refused nobody since its stop was requested.
    served_on: bool,
    /// Its app, and not a neighbour's, said that it stops.
    said_stop: bool,
    /// Each of its answers closed its connection: what is sent to it comes on new ones.
    new_connections: bool,
}

/// Moments at which each server refused a connection, for those who ask about its neighbours.
#[derive(Debug, Default)]
pub struct Refusals {
    by_backend: std::collections::HashMap<u32, Vec<Micros>>,
    /// Of these, those in which connecting went unanswered for a while.
    slow: std::collections::HashMap<u32, Vec<Micros>>,
}

impl Refusals {
    /// From all losses, in order of time.
    pub fn of(books: &Books) -> Refusals {
        let mut by_backend = std::collections::HashMap::<u32, Vec<Micros>>::new();
        let mut slow = std::collections::HashMap::<u32, Vec<Micros>>::new();
        for loss in &books.losses {
            if matches!(
                loss.signal,
                Signal::Refused | Signal::ConnectFailed | Signal::Unroutable | Signal::ConnectTimeout
            ) {
                by_backend.entry(loss.backend).or_default().push(loss.end);
                if unanswered(loss) {
                    slow.entry(loss.backend).or_default().push(loss.end);
                }
            }
        }
        Refusals { by_backend, slow }
    }

    /// Whether connecting had gone unanswered there until then. Envoy gives up whoever waits together with the first whose time is over.
    fn silent(&self, backend: u32, at: Micros) -> bool {
        let Some(moments) = self.slow.get(&backend) else { return false };
        let first = moments.partition_point(|moment| *moment < at - NEAR);
        moments.get(first).is_some_and(|moment| *moment <= at + 5_000)
    }

    fn within(&self, backend: u32, from: Micros, to: Micros) -> bool {
        let Some(moments) = self.by_backend.get(&backend) else { return false };
        let first = moments.partition_point(|moment| *moment < from);
        moments.get(first).is_some_and(|moment| *moment <= to)
    }
}

fn around(loss: &Loss, books: &Books, refusals: &Refusals, stop: Option<Micros>) -> Around {
    if loss.backend <= 1 {
        return Around::default();
    }
    // Some logs name the server of a failure only: then nothing is known of its answers.
    let backend = books.backends.get(&loss.backend);
    let answered = |from, to| backend.is_some_and(|backend| backend.answered_between(from, to));
    let at = loss.end;
    let refused = refusals.within(loss.backend, at - SECOND, at + NEAR);
    let (before, after) = (answered(at - NEAR, at), answered(at + 1, at + NEAR));
    let new = !answered(at - 600 * SECOND, at) && answered(at, at + 600 * SECOND);
    let heard = stop.is_none_or(|stop| refusals.within(loss.backend, stop, at - SECOND / 10));
    // That it was still routed to shows in its answers, or in the refusals after its end.
    let routed = refusals.within(loss.backend, at, at + NEAR);
    let served_on = !heard && (routed || answered(at - 3 * SECOND / 2, at));
    let begun = loss.took.zip(backend.and_then(|backend| backend.last_begun));
    let accepted =
        begun.is_some_and(|(took, begun)| (at.saturating_sub(took).saturating_add(ROUNDING)..=at).contains(&begun));
    let silent = refusals.silent(loss.backend, at);
    let new_connections = backend.is_some_and(Backend::keeps_none);
    let (accepted, lived) = (accepted || loss.overtaken, before && after && !refused);
    Around { accepted, lived, refused, new, served_on, silent, said_stop: false, new_connections }
}

/// Gives a loss its cause.
pub fn verdict(loss: &Loss, books: &Books, world: &World, refusals: &Refusals) -> (Verdict, Vec<Place>) {
    let address = books.symbols.text(loss.backend);
    let life = if address.is_empty() { None } else { world.at(&address, loss.end) };
    let state = life.map_or(State::Unknown, |life| life.state(loss.end));
    let port = address.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    let said_stop = life.is_some_and(|life| life.said_stop(port));
    let around = Around { said_stop, ..around(loss, books, refusals, life.and_then(|life| life.stop)) };
    let verdict = match loss.signal {
        Signal::ClosedIdle => closed_idle(loss, state, life, around),
        Signal::ClosedUnanswered => read_and_closed(state, life, around),
        Signal::Refused | Signal::ConnectFailed if loss.same_pod => {
            proven(Cause::PeerDown, "refused by the neighbour in the same pod")
        }
        Signal::Refused | Signal::ConnectFailed => refused(loss, state, life, around),
        Signal::Unroutable => proven(Cause::GoneAddress, "no way to the address: it no longer exists"),
        Signal::ConnectTimeout | Signal::Silent => silent(state),
        Signal::ClosedBeforeAnswer | Signal::FinBeforeAnswer | Signal::ResetBeforeAnswer => {
            closed::closed(loss, state, life, around)
        }
        Signal::CutMidAnswer => cut(state, life, around),
        Signal::Timeout => match state {
            State::Stopped(_) => likely(Cause::GoneAddress, "no answer from a pod that had ended"),
            State::Alive
            | State::Terminating(_)
            | State::Killed
            | State::Crashed
            | State::Starting
            | State::Unknown => proven(Cause::BackendTimeout, "the hop gave up waiting for the answer"),
        },
        Signal::NoServer => no_server(loss, books, world),
        Signal::Overload => proven(Cause::Overload, "the hop's own limit or queue was full"),
        Signal::AppError => own_answer(loss.status),
        Signal::Failed => failed(loss),
        Signal::Answered | Signal::Policy | Signal::ClientLeft => open("missing: this is no loss"),
    };
    (verdict, life.map(|life| life.cites.iter().take(3).copied().collect()).unwrap_or_default())
}

/// A whole 5xx of the server itself; what each status stands for is as in `lameduck_core::judge`.
fn own_answer(status: u16) -> Verdict {
    match status {
        502 => open("a whole 502, sent by the server itself; missing: the log of the gateway in it that wrote it"),
        503 => proven(Cause::Overload, "a whole 503, sent by the server itself"),
        504 => proven(Cause::BackendTimeout, "a whole 504, sent by the server itself"),
        _ => proven(Cause::AppError, "a whole answer, sent by the server itself"),
    }
}

fn closed_idle(loss: &Loss, state: State, life: Option<&Life>, around: Around) -> Verdict {
    match state {
        // As in `lameduck_core::judge`: what routing sends to a pod that is stopping finds no connection there.
        State::Terminating(_) | State::Stopped(_) if loss.packets.as_ref().is_some_and(|packets| packets.new) => {
            proven(
                Cause::RefusedWhileRouted,
                "a new connection, closed by a server that was stopping before the request reached it",
            )
        }
        State::Terminating(_) | State::Stopped(_) => {
            proven(Cause::IdleCloseRace, "idle connections were closed at the stop, a request on its way")
        }
        State::Crashed => proven(Cause::CrashRestart, "the process ended by itself and its idle connections with it"),
        State::Killed => killed(life, around),
        State::Alive | State::Starting | State::Unknown => {
            proven(Cause::IdleCloseRace, "the server's close left before a byte of the request had reached it")
        }
    }
}

/// The deadline's two forms: a server that served on as if nothing had been said never heard of it.
fn killed(life: Option<&Life>, around: Around) -> Verdict {
    match life {
        Some(_) if around.said_stop => {
            likely(Cause::KilledAtDeadline, "cut by SIGKILL at the end of the grace; its log says that it was stopping")
        }
        Some(_) if around.served_on => likely(
            Cause::SignalNotDelivered,
            "cut by SIGKILL; until then it answered and refused nobody, as if TERM had never come",
        ),
        Some(_) | None => likely(Cause::KilledAtDeadline, "cut by SIGKILL at the end of the grace"),
    }
}

fn read_and_closed(state: State, life: Option<&Life>, around: Around) -> Verdict {
    match state {
        State::Killed => killed(life, around),
        State::Crashed => {
            proven(Cause::CrashRestart, "the process, or its worker, ended by itself with the request read")
        }
        State::Terminating(_) | State::Stopped(_) => {
            proven(Cause::CutMidResponse, "closed while stopping, with the request read and no answer sent")
        }
        State::Alive | State::Starting | State::Unknown => {
            proven(Cause::CutMidResponse, "the server had the request and closed without a byte of an answer")
        }
    }
}

/// A failure to connect that took too long for a refusal.
fn unanswered(loss: &Loss) -> bool {
    loss.signal == Signal::ConnectFailed && loss.took.is_some_and(|took| took > SECOND)
}

fn refused(loss: &Loss, state: State, life: Option<&Life>, around: Around) -> Verdict {
    let slow = unanswered(loss) || loss.signal == Signal::ConnectFailed && around.silent;
    match state {
        State::Terminating(_) if slow => {
            likely(Cause::GoneAddress, "connecting went unanswered while the pod was ending")
        }
        State::Terminating(_) => likely(Cause::RefusedWhileRouted, "refused by a pod that had been told to stop"),
        State::Stopped(_) | State::Killed if slow => {
            likely(Cause::GoneAddress, "connecting went unanswered after the pod had ended")
        }
        State::Stopped(_) | State::Killed => {
            likely(Cause::RefusedWhileRouted, "refused after the pod had ended; routing still sent")
        }
        State::Crashed => likely(Cause::CrashRestart, "refused after an end that nobody asked for"),
        State::Starting => likely(Cause::NotReadyYet, "refused before the pod was ready"),
        State::Alive if slow => {
            likely(Cause::Overload, "connecting went unanswered by a pod that runs: its backlog was full")
        }
        State::Alive if life.is_some_and(|life| life.came_back(loss.end)) => likely(
            Cause::CrashRestart,
            "refused within the second in which the pod was ready again, after an end that nobody asked for",
        ),
        State::Alive if life.and_then(|life| life.ready).is_some_and(|ready| loss.end < ready + SECOND) => {
            likely(Cause::NotReadyYet, "refused within the second in which the pod became ready")
        }
        State::Alive => open("refused by a pod that runs and was not told to stop; missing: its own log"),
        State::Unknown if around.new && loss.signal == Signal::Refused => {
            likely(Cause::NotReadyYet, "refused by an address that had never answered and did so later")
        }
        State::Unknown => open("connect failed; missing: the server's state then (kubectl get pods,events -o json)"),
    }
}

fn silent(state: State) -> Verdict {
    match state {
        State::Stopped(_) | State::Killed | State::Terminating(_) => {
            likely(Cause::GoneAddress, "the address was silent while or after its pod ended")
        }
        State::Alive => likely(Cause::Overload, "connecting went unanswered by a pod that runs: its backlog was full"),
        State::Crashed => likely(Cause::GoneAddress, "the address was silent after a crash"),
        State::Starting => likely(Cause::NotReadyYet, "connecting went unanswered before the pod was ready"),
        State::Unknown => {
            open("connecting went unanswered; missing: whether the pod still existed (kubectl get pods,events -o json)")
        }
    }
}

fn cut(state: State, life: Option<&Life>, around: Around) -> Verdict {
    match state {
        State::Killed => killed(life, around),
        State::Crashed => likely(Cause::CrashRestart, "cut as the process, or its worker, ended by itself"),
        State::Alive | State::Starting | State::Unknown => {
            proven(Cause::CutMidResponse, "only a part of the answer was sent")
        }
        State::Terminating(_) | State::Stopped(_) => {
            proven(Cause::CutMidResponse, "only a part of the answer was sent by a pod that was stopping")
        }
    }
}

/// Nobody to send it to. That pods were being replaced then coincides; what decides is the state of the service's own pods.
fn no_server(loss: &Loss, books: &Books, world: &World) -> Verdict {
    let service = books.symbols.text(loss.service);
    let own: Vec<&Life> =
        world.lives.iter().filter(|life| !life.name.is_empty() && belongs(&life.name, &service)).collect();
    let states: Vec<State> = own.iter().map(|life| life.state(loss.end)).collect();
    let some = |wanted: fn(&State) -> bool| states.iter().any(wanted);
    if states.is_empty() {
        open(
            "no server to send it to; missing: the states of the service's pods (kubectl get pods,endpointslices -o json)",
        )
    } else if some(|state| *state == State::Alive) {
        open("no server to send it to, though a pod ran; missing: its readiness probe's history")
    } else if some(|state| *state == State::Starting) {
        likely(Cause::NotReadyYet, "every pod of the service was still starting")
    } else if some(|state| *state == State::Crashed) {
        likely(Cause::CrashRestart, "every pod of the service had ended by itself")
    } else {
        open("no server to send it to; missing: the states of the service's pods then")
    }
}

/// `ns-web-80` and `web-7d4b9c-x2x` are of one service, by the names that workloads give.
fn belongs(pod: &str, service: &str) -> bool {
    let stem = pod.rsplit('-').skip(if pod.matches('-').count() >= 2 { 2 } else { 1 }).collect::<Vec<_>>();
    let stem = stem.into_iter().rev().collect::<Vec<_>>().join("-");
    !stem.is_empty()
        && service
            .split(['|', '_', '/', '.'])
            .any(|part| part == stem || part.contains(&format!("-{stem}-")) || part.ends_with(&format!("-{stem}")))
}

fn failed(loss: &Loss) -> Verdict {
    match loss.status {
        503 => open("503 by the hop; missing: why (its error log)"),
        504 => likely(Cause::BackendTimeout, "504 by the hop"),
        _ => open(
            "the hop's log does not tell a refused connection from a closed one; missing: its error log, or a capture",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Event, EventKind, Hop, Line, PodFacts};

    const T: Micros = 1_795_284_000 * SECOND;
    const POD: &str = "web-7d4b9c-x2x";

    /// One loss at `T` at a pod that lives as told.
    fn check(signal: Signal, took_ms: i64, events: &[(i64, EventKind)], expect: Cause) {
        after(&[], signal, took_ms, events, expect);
    }

    /// The same, where the pod had answered some: each with its begin and end, in milliseconds from `T`, and whether its answer closed
    /// the connection.
    fn after(answers: &[(i64, i64, bool)], signal: Signal, took_ms: i64, events: &[(i64, EventKind)], expect: Cause) {
        let mut books = Books::default();
        let facts = PodFacts {
            name: POD.into(),
            ip: Some("10.8.1.7".into()),
            started: Some(T - 3600 * SECOND),
            ready: Some(T - 3500 * SECOND),
            ..PodFacts::default()
        };
        books.enter(Place::default(), 0, Line::Pod(Box::new(facts)));
        for (seconds, kind) in events {
            let event =
                Event { at: T + seconds * SECOND, kind: *kind, subject: format!("Pod/{POD}"), words: String::new() };
            books.enter(Place::default(), 0, Line::Events(vec![event]));
        }
        for (begun, ended, closes) in answers {
            let (end, took) = (Some(T + ended * 1000), Some((ended - begun) * 1000));
            let hop = Hop { status: 200, end, took, backend: b"10.8.1.7:80", closes: *closes, ..Hop::EMPTY };
            books.enter(Place::default(), 0, Line::Hop(hop));
        }
        let took = Some(took_ms * 1000);
        let hop = Hop { signal, status: 502, end: Some(T), took, backend: b"10.8.1.7:80", ..Hop::EMPTY };
        books.enter(Place::default(), 0, Line::Hop(hop));
        books.close();
        let world = World::build(&books, &[]);
        let (verdict, _) = verdict(&books.losses[0], &books, &world, &Refusals::of(&books));
        assert_eq!(verdict.cause, expect, "{signal:?} {took_ms} ms {events:?} {answers:?}: {}", verdict.grounds);
    }

    #[test]
    fn the_matrix() {
        use EventKind::{Crashed, Ended, GraceExceeded, Stopping};
        check(Signal::ClosedBeforeAnswer, 4, &[], Cause::IdleCloseRace);
        check(Signal::ClosedBeforeAnswer, 4, &[(-2, Stopping)], Cause::IdleCloseRace);
        check(Signal::ClosedBeforeAnswer, 4, &[(0, Stopping)], Cause::Unknown);
        check(Signal::ClosedBeforeAnswer, 4, &[(-5, Stopping), (0, Ended)], Cause::Unknown);
        check(Signal::ClosedBeforeAnswer, 4000, &[(-3, Stopping)], Cause::CutMidResponse);
        check(Signal::ClosedBeforeAnswer, 4000, &[(-5, Stopping)], Cause::Unknown);
        check(Signal::ClosedBeforeAnswer, 4000, &[(-30, Stopping), (0, GraceExceeded)], Cause::KilledAtDeadline);
        check(Signal::ClosedBeforeAnswer, 4000, &[(0, Crashed)], Cause::CrashRestart);
        check(Signal::Refused, 1, &[(-5, Stopping)], Cause::RefusedWhileRouted);
        check(Signal::Refused, 1, &[(-50, Stopping), (-20, Ended)], Cause::RefusedWhileRouted);
        check(Signal::Refused, 1, &[(-1, Crashed)], Cause::CrashRestart);
        check(Signal::Refused, 1, &[], Cause::Unknown);
        check(Signal::ConnectFailed, 10_000, &[(-50, Stopping), (-20, Ended)], Cause::GoneAddress);
        check(Signal::ConnectTimeout, 3000, &[], Cause::Overload);
        check(Signal::Unroutable, 3000, &[], Cause::GoneAddress);
        check(Signal::CutMidAnswer, 500, &[(-5, Stopping)], Cause::CutMidResponse);
        check(Signal::Timeout, 30_000, &[], Cause::BackendTimeout);
        check(Signal::Overload, 0, &[], Cause::Overload);
        check(Signal::AppError, 0, &[], Cause::Unknown);
        check(Signal::Failed, 4, &[(-2, Stopping)], Cause::Unknown);
    }

    /// The law of the drill: RST on a new connection while stopping is no idle connection's end.
    #[test]
    fn a_new_connection_that_a_stopping_pod_closed_was_not_idle() {
        let mut books = Books::default();
        let hop = Hop { signal: Signal::ClosedIdle, end: Some(T), backend: b"10.8.1.7:80", ..Hop::EMPTY };
        books.enter(Place::default(), 0, Line::Hop(hop));
        let mut loss = books.losses[0].clone();
        let mut check = |new: Option<bool>, state: State, expect: Cause| {
            let packets = |new| crate::books::Packets {
                idle: None,
                before: 0,
                new,
                crossed: Some(1),
                story: String::new(),
                frames: Vec::new(),
                stream: String::new(),
                server: String::new(),
            };
            loss.packets = new.map(|new| Box::new(packets(new)));
            assert_eq!(closed_idle(&loss, state, None, Around::default()).cause, expect, "{new:?} {state:?}");
        };
        check(Some(true), State::Terminating(1), Cause::RefusedWhileRouted);
        check(Some(true), State::Stopped(1), Cause::RefusedWhileRouted);
        check(Some(false), State::Terminating(1), Cause::IdleCloseRace);
        check(None, State::Terminating(1), Cause::IdleCloseRace);
        check(Some(true), State::Alive, Cause::IdleCloseRace);
    }

    #[test]
    fn a_pod_that_is_slow_to_come_back_is_still_the_crashed_one() {
        let check = |ready: Micros, crashed: Option<Micros>, at: Micros, expect: Cause| {
            let life =
                Life { ready: Some(ready), crashes: crashed.into_iter().collect(), seen: true, ..Life::default() };
            let hop = Hop { signal: Signal::Refused, end: Some(at), backend: b"10.8.1.7:80", ..Hop::EMPTY };
            let mut books = Books::default();
            books.enter(Place::default(), 0, Line::Hop(hop));
            let verdict = refused(&books.losses[0], life.state(at), Some(&life), Around::default());
            assert_eq!(verdict.cause, expect, "{}", verdict.grounds);
        };
        // It took four seconds; the object says to the second when it was ready.
        check(T + 4 * SECOND, Some(T), T + 4 * SECOND + 17_000, Cause::CrashRestart);
        check(T + 4 * SECOND, None, T + 4 * SECOND + 17_000, Cause::NotReadyYet);
        check(T + 4 * SECOND, Some(T), T + 5 * SECOND, Cause::Unknown);
    }

    #[test]
    fn how_it_was_closed_and_on_what_connection() {
        use EventKind::{Crashed, Ended, GraceExceeded, Stopping};
        use Signal::{ClosedBeforeAnswer, FinBeforeAnswer, ResetBeforeAnswer};
        let [new, kept] = [[(-90_000, -89_990, true)], [(-90_000, -89_990, false)]];
        let mixed = [(-91_000, -90_990, true), (-90_000, -89_990, false)];
        let stop: &[(i64, EventKind)] = &[(0, Stopping), (0, Ended)];
        // A FIN leaves nothing unread, a RST was the backlog's end; but only where no connection is kept.
        after(&new, FinBeforeAnswer, 4, stop, Cause::CutMidResponse);
        after(&new, ResetBeforeAnswer, 4, stop, Cause::RefusedWhileRouted);
        after(&new, ClosedBeforeAnswer, 4, stop, Cause::Unknown);
        for answers in [&kept[..], &mixed, &[]] {
            for signal in [FinBeforeAnswer, ResetBeforeAnswer, ClosedBeforeAnswer] {
                after(answers, signal, 4, stop, Cause::Unknown);
            }
        }
        // Whether it was told to stop decides as before.
        after(&new, ResetBeforeAnswer, 4, &[(0, Crashed)], Cause::CrashRestart);
        after(&new, ResetBeforeAnswer, 4, &[(-30, Stopping), (0, GraceExceeded)], Cause::Unknown);
        after(&new, FinBeforeAnswer, 4, &[(-30, Stopping), (0, GraceExceeded)], Cause::KilledAtDeadline);
        after(&new, ResetBeforeAnswer, 4, &[], Cause::Unknown);
        after(&new, ClosedBeforeAnswer, 4, &[], Cause::Unknown);
        after(&kept, ResetBeforeAnswer, 4, &[], Cause::IdleCloseRace);
        after(&kept, ResetBeforeAnswer, 4, &[(-5, Stopping)], Cause::Unknown);
        // The backlog of a pod that takes a while to end is reset then, however soon after the request.
        after(&kept, ResetBeforeAnswer, 43, &[(-1, Stopping)], Cause::Unknown);
        after(&kept, ClosedBeforeAnswer, 43, &[(-5, Stopping)], Cause::Unknown);
        after(&kept, ClosedBeforeAnswer, 154, &[], Cause::Unknown);
        after(&kept, ClosedBeforeAnswer, 251, &[], Cause::CutMidResponse);
        after(&new, ClosedBeforeAnswer, 4, &[(-5, Stopping)], Cause::Unknown);
        // After a while nothing crosses any more: read where nothing is unread, and where something is, who knows.
        after(&kept, FinBeforeAnswer, 4000, stop, Cause::CutMidResponse);
        after(&kept, ResetBeforeAnswer, 4000, stop, Cause::Unknown);
        after(&kept, ResetBeforeAnswer, 4000, &[], Cause::Unknown);
        after(&kept, ResetBeforeAnswer, 4000, &[(-3, Stopping)], Cause::Unknown);
    }

    #[test]
    fn a_request_that_others_overtook_had_been_accepted() {
        use EventKind::{Ended, Stopping};
        use Signal::{ClosedBeforeAnswer, ResetBeforeAnswer};
        let stop: &[(i64, EventKind)] = &[(0, Stopping), (0, Ended)];
        after(&[(-60, -50, false)], ClosedBeforeAnswer, 90, stop, Cause::CutMidResponse);
        // It was started again under the same address, and answers: the last request that it answered came long after.
        let again = (300, 310, false);
        after(&[(-60, -50, false), again], ClosedBeforeAnswer, 90, stop, Cause::CutMidResponse);
        // The other came before it, or at the same moment, or was still under way: nothing follows.
        after(&[(-100, -50, false)], ClosedBeforeAnswer, 90, stop, Cause::Unknown);
        after(&[(-89, -50, false)], ClosedBeforeAnswer, 90, stop, Cause::Unknown);
        after(&[(-100, -50, false), again], ClosedBeforeAnswer, 90, stop, Cause::Unknown);
        // Unread though it was accepted: these contradict each other.
        after(&[(-60, -50, true)], ResetBeforeAnswer, 90, stop, Cause::Unknown);
    }

    #[test]
    fn a_time_that_fits_at_another_pod_names_nothing() {
        let mut books = Books::default();
        let event = Event { at: T, kind: EventKind::Stopping, subject: "Pod/other".into(), words: String::new() };
        books.enter(Place::default(), 0, Line::Events(vec![event]));
        let hop = Hop { signal: Signal::Refused, end: Some(T), backend: b"10.8.1.7:80", ..Hop::EMPTY };
        books.enter(Place::default(), 0, Line::Hop(hop));
        books.close();
        let world = World::build(&books, &[]);
        let (verdict, _) = verdict(&books.losses[0], &books, &world, &Refusals::of(&books));
        assert_eq!((verdict.cause, verdict.confidence), (Cause::Unknown, Confidence::Open));
    }

    #[test]
    fn a_neighbour_that_stops_does_not_speak_for_the_one_that_never_heard() {
        let check = |file: &str, expect: bool| {
            let mut books = Books::default();
            let containers = vec![("app".to_owned(), vec![8080]), ("door".to_owned(), vec![8181])];
            let facts = PodFacts { name: POD.into(), containers, ..PodFacts::default() };
            books.enter(Place::default(), 0, Line::Pod(Box::new(facts)));
            let said = Event { at: T, kind: EventKind::AppStopping, subject: String::new(), words: String::new() };
            books.enter(Place::default(), 0, Line::Events(vec![said]));
            books.close();
            let world = World::build(&books, &[file.to_owned()]);
            let life = world.lives.iter().find(|life| life.name == POD).unwrap();
            assert_eq!(life.said_stop(Some(8181)), expect, "{file}");
        };
        check(&format!("logs/{POD}_app.log"), false);
        check(&format!("logs/{POD}_default_app-0123.log"), false);
        check(&format!("logs/{POD}_door.log"), true);
        check(&format!("logs/{POD}.log"), true);
    }

    #[test]
    fn services_and_their_pods() {
        assert!(belongs(POD, "shop-web-80"));
        assert!(belongs(POD, "outbound|80||web.shop.svc.cluster.local"));
        assert!(!belongs(POD, "shop-webhook-80"));
    }
}
