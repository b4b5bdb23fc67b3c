//! A connection that ended before a byte of the answer: idle, cut, or never taken by the process. How it ended, and on what kind of
//! connection, decides where the log tells it.

use lameduck_core::Cause;

use super::{Around, Verdict, killed, likely, open};
use crate::books::{Loss, Packets};
use crate::record::Signal;
use crate::time::{Micros, SECOND};
use crate::world::{Life, State};

/// A close this soon after the request began met it on its way: nothing had been worked on.
const QUICK: Micros = 100_000;
/// The longest that a request and a close are on their way to each other, where a pod that is stopping may have closed for other reasons too.
const CROSSING: Micros = 25_000;
/// The slack of the law, in microseconds.
const SLACK: Micros = lameduck_core::judge::SLACK.as_micros() as Micros;

pub(super) fn closed(loss: &Loss, state: State, life: Option<&Life>, around: Around) -> Verdict {
    match state {
        // What SIGKILL found unread may have been sent after it, to a process that took a while to die.
        State::Killed if loss.signal == Signal::ResetBeforeAnswer && loss.packets.is_none() => {
            return open(
                "reset unread as the pod was killed at its deadline; missing: whether it was sent before that (a capture, or the server's log)",
            );
        }
        State::Killed => return killed(life, around),
        State::Crashed => {
            return likely(Cause::CrashRestart, "closed as the process, or its worker, ended by itself");
        }
        State::Alive | State::Terminating(_) | State::Stopped(_) | State::Starting | State::Unknown => {}
    }
    if let Some(packets) = loss.packets.as_deref() {
        return reset_in_capture(packets, state);
    }
    if loss.signal == Signal::ResetBeforeAnswer {
        return reset(loss, state, around);
    }
    let quick = loss.server_took.or(loss.took).map(|elapsed| elapsed <= QUICK);
    match state {
        State::Terminating(_) | State::Stopped(_) => closed_at_the_stop(loss, quick, life, around),
        State::Alive | State::Starting | State::Unknown | State::Killed | State::Crashed => {
            closed_by_the_living(loss, quick, state, around)
        }
    }
}

fn closed_at_the_stop(loss: &Loss, quick: Option<bool>, life: Option<&Life>, around: Around) -> Verdict {
    let fin = loss.signal == Signal::FinBeforeAnswer;
    match quick {
        Some(_) if around.accepted => likely(
            Cause::CutMidResponse,
            "closed by a pod that was stopping, and that had answered a request which came after this one",
        ),
        // A new connection that the process has not taken is reset; a FIN is its own, and leaves nothing unread.
        _ if fin && around.new_connections => likely(
            Cause::CutMidResponse,
            "FIN on a new connection, with nothing unread, by a pod that was stopping: the request had been read",
        ),
        // The longest that a close is on its way has passed: it did not cross the request.
        Some(false) if fin => likely(
            Cause::CutMidResponse,
            "FIN, with nothing unread, by a pod that was stopping, a while after the request was sent: it had been read",
        ),
        Some(true) if around.new_connections => open(
            "closed at once, on a new connection, as the pod stopped: a request just read, or one that it had not yet taken; missing: a capture, or the server's log",
        ),
        Some(true) if at_its_end(loss, life) => open(
            "closed at once, as the pod stopped or its process ended: an idle connection, or a request just begun; missing: a capture, or the server's log",
        ),
        // What crosses is answered within a round trip. Later it may be the backlog, reset as the process ended.
        Some(true) if loss.server_took.or(loss.took).is_some_and(|elapsed| elapsed <= CROSSING) => likely(
            Cause::IdleCloseRace,
            "closed at once by a pod that was stopping: an idle connection, closed at the stop",
        ),
        Some(true) => open(
            "closed soon by a pod that was stopping: an idle connection, or one that it had not taken; missing: a capture, or the server's log",
        ),
        Some(false) if began_before_the_stop(loss, life) => {
            likely(Cause::CutMidResponse, "closed by a pod that was stopping, after it had had the request for a while")
        }
        Some(false) => open(
            "closed by a pod that was stopping, after a while; missing: whether it had still accepted the connection (its log, or a capture)",
        ),
        None => open("closed by a pod that was stopping; missing: how long the request had been with it"),
    }
}

fn closed_by_the_living(loss: &Loss, quick: Option<bool>, state: State, around: Around) -> Verdict {
    let (alive, fin) = (state == State::Alive, loss.signal == Signal::FinBeforeAnswer);
    let took = loss.server_took.or(loss.took);
    match quick {
        _ if around.refused => open(
            "closed, and connecting refused right after: the process ended; missing: whether it was told to (kubectl get events,pods -o json)",
        ),
        Some(_) if alive && fin && around.new_connections => likely(
            Cause::CutMidResponse,
            "FIN on a new connection, with nothing unread, by a pod that lived on: it gave the request up",
        ),
        Some(true) if around.new_connections => open(
            "closed at once on a new connection by a server that lived on; missing: whether it had read the request (its log)",
        ),
        Some(true) if alive => {
            likely(Cause::IdleCloseRace, "closed at once by a pod that lived on: its idle timeout met the request")
        }
        // Up to the law's slack a busy machine may have told of an idle close so late.
        Some(false) if alive && took.is_some_and(|took| took > SLACK) => {
            likely(Cause::CutMidResponse, "given up by a pod that lived on, after it had had the request for a while")
        }
        Some(true) if around.lived => {
            likely(Cause::IdleCloseRace, "closed at once by a server that answered others just before and just after")
        }
        Some(_) | None => {
            open("closed before an answer: an idle close or an end; missing: the server's state then, or a capture")
        }
    }
}

/// RST without a FIN before, as the hop's own log says. On a new connection of a pod that stops it is the end of the backlog: the
/// process had not taken it (as in `lameduck_core::judge`). On a kept one it can be an idle connection's end. Which it is shows in
/// the server's answers, where each of them closes its connection.
fn reset(loss: &Loss, state: State, around: Around) -> Verdict {
    let elapsed = loss.server_took.or(loss.took);
    let (quick, slow) =
        (elapsed.is_some_and(|elapsed| elapsed <= QUICK), elapsed.is_some_and(|elapsed| elapsed > QUICK));
    match state {
        State::Terminating(_) | State::Stopped(_) if around.accepted => open(
            "reset, so that something was unread, by a pod that had answered a request which came after this one: these contradict each other; missing: a capture, or the server's log",
        ),
        State::Terminating(_) | State::Stopped(_) if around.new_connections => likely(
            Cause::RefusedWhileRouted,
            "RST on a new connection while stopping: it was in the backlog, not accepted",
        ),
        State::Terminating(_) | State::Stopped(_) => open(
            "reset unread as the pod stopped or its process ended; missing: whether the connection was new or kept (a capture, or the server's Connection header in the log)",
        ),
        State::Alive | State::Starting | State::Unknown | State::Killed | State::Crashed if around.refused => open(
            "reset, and connecting refused right after: the process ended; missing: whether it was told to (kubectl get events,pods -o json)",
        ),
        // A process that has read a request and then closes, or dies, sends FIN: RST shows what a short time only suggests. One that
        // came after a while was no close on its way, and may be the abort of a request that had been read.
        State::Alive if !slow && !around.new_connections => likely(
            Cause::IdleCloseRace,
            "reset, the request unread, by a pod that lived on and refused nobody: its idle timeout met the request",
        ),
        State::Unknown | State::Starting if quick && around.lived && !around.new_connections => {
            likely(Cause::IdleCloseRace, "reset at once by a server that answered others just before and just after")
        }
        State::Alive | State::Starting | State::Unknown | State::Killed | State::Crashed => open(
            "reset before an answer; missing: how long the request had been with it, or whether the process had read it (its log)",
        ),
    }
}

/// A RST that a capture shows, with the request arrived: whether the process had read it does not follow from it alone. The limits are
/// those of `lameduck_core::judge`.
fn reset_in_capture(packets: &Packets, state: State) -> Verdict {
    let after = packets.crossed.map_or(0, |crossed| -crossed);
    match (packets.new, state) {
        (true, State::Terminating(_) | State::Stopped(_)) => likely(
            Cause::RefusedWhileRouted,
            "RST on a new connection while stopping: it was in the backlog, not accepted",
        ),
        (true, _) => open("RST on a new connection; missing: whether the process had read the request (its log)"),
        (false, _) if packets.before == 0 => {
            open("RST on a connection whose beginning the capture lacks; missing: whether it was new or kept")
        }
        (false, _) if after <= SLACK => {
            likely(Cause::IdleCloseRace, "RST on a connection idle since its last answer, as the request arrived")
        }
        (false, _) => open("RST long after the request was sent; missing: whether the process had read it (its log)"),
    }
}

/// Whether it ended as its pod began to stop, or as the process ended: to the second that both are known to.
fn at_its_end(loss: &Loss, life: Option<&Life>) -> bool {
    let (stop, end) = (life.and_then(|life| life.stop), life.and_then(Life::end));
    stop.is_some_and(|stop| (stop..stop + SECOND).contains(&loss.end))
        || end.is_some_and(|end| (end - SECOND..=end + 2 * SECOND).contains(&loss.end))
}

/// Whether it was sent before the pod was told to stop, when it accepted what came.
fn began_before_the_stop(loss: &Loss, life: Option<&Life>) -> bool {
    let stop = life.and_then(|life| life.stop.or(life.app_stop));
    stop.zip(loss.took).is_some_and(|(stop, took)| loss.end.saturating_sub(took) < stop)
}
