//! What happens to the replicas: the process lane, and when the routing lane hears of it.

use std::rc::Rc;
use std::time::Duration;

use lameduck_core::timeline::Moment;

use crate::SetupError;
use crate::load::Load;
use crate::plan::Action;
use crate::progress::Progress;
use crate::replica::{Reaction, Replica};
use crate::run::Shared;
use crate::wire::exchange::{Connected, IdleState, connect, idle_state};

/// How often a stopping replica's listener is looked at.
const LISTENER_POLL: Duration = Duration::from_millis(5);
/// The same in a pod, where the kernel's table has to be read for it.
const POD_LISTENER_POLL: Duration = Duration::from_millis(50);

/// Carries out the plan's events, one after another.
pub(crate) async fn run(shared: &Rc<Shared>, load: &Load, load_began: Duration) -> Result<(), SetupError> {
    let mut events = shared.plan.events.clone();
    events.sort_by_key(|event| event.at);
    for event in events {
        shared.clock.until(load_began + event.at).await;
        let at = shared.clock.now();
        shared.events.borrow_mut().push((at, event.action.to_string()));
        let _ = shared.notices.send(Progress::Event { at, event: event.action.to_string() });
        act(shared, load, &event.action).await?;
    }
    Ok(())
}

async fn act(shared: &Rc<Shared>, load: &Load, action: &Action) -> Result<(), SetupError> {
    match action {
        Action::Term => {
            if let Some(replica) = shared.newest() {
                terminate(shared, &replica).await;
            }
        }
        Action::ScaleDown { count } => {
            let serving = shared.serving();
            let leaving = serving.iter().rev().take(*count);
            let all: Vec<_> = leaving.map(|replica| spawn_terminate(shared, replica)).collect();
            for one in all {
                // A task of ours ends only by finishing; a panic in it is ours to show.
                one.await.map_err(|error| SetupError::Runtime(std::io::Error::other(error)))?;
            }
        }
        Action::Roll => {
            for old in shared.serving() {
                let new = shared.start(None)?;
                shared.serve(&new).await?;
                terminate(shared, &old).await;
            }
        }
        Action::ScaleUp { count } => {
            let mut new = Vec::new();
            for _ in 0..*count {
                let replica = shared.start(None)?;
                shared.router.borrow_mut().route(replica.index);
                new.push(replica);
            }
            for replica in &new {
                shared.serve(replica).await?;
            }
        }
        Action::Restart => {
            if let Some(old) = shared.newest() {
                terminate(shared, &old).await;
                let new = shared.start(Some(old.address))?;
                shared.serve(&new).await?;
                // The same address: from here on it is the new process that answers there.
                remove(shared, &old);
            }
        }
        Action::Kill => {
            if let Some(replica) = shared.newest() {
                // Nobody asked for this end: routing hears of it when the exit is seen.
                replica.record(shared.clock.now(), Moment::Killed);
                replica.kill();
                replica.killed().await;
            }
        }
        Action::KillChild { word } => {
            if let Some(replica) = shared.newest() {
                let at = shared.clock.now();
                if !replica.kill_child(word, at) {
                    return Err(SetupError::NoSuchChild { replica: replica.name(), word: word.clone() });
                }
            }
        }
        Action::Idle { quiet } => load.idle(*quiet, shared.plan.idle_connections * shared.serving().len()).await,
    }
    Ok(())
}

fn spawn_terminate(shared: &Rc<Shared>, replica: &Rc<Replica>) -> tokio::task::JoinHandle<()> {
    let (shared, replica) = (Rc::clone(shared), Rc::clone(replica));
    tokio::task::spawn_local(async move { terminate(&shared, &replica).await })
}

/// The end of a replica as the kubelet brings it: stop signal, grace, SIGKILL; routing hears of it `lag` later.
async fn terminate(shared: &Rc<Shared>, replica: &Rc<Replica>) {
    let plan = &shared.plan;
    replica.note_family();
    shared.router.borrow_mut().leave(replica.index);
    let at = shared.clock.now();
    replica.record(at, Moment::TermReceived);
    replica.signal(plan.stop_signal);
    tokio::task::spawn_local(remove_after_lag(Rc::clone(shared), Rc::clone(replica)));
    tokio::select! {
        // The exit first: an exit is not also a closed listener.
        biased;
        () = replica.exit() => {}
        () = watch_listener(shared, replica) => {}
        () = tokio::time::sleep(plan.grace) => {
            look_at_idle(shared, replica);
            replica.look_hard_at_listener(shared.clock.now());
            replica.record(shared.clock.now(), Moment::Killed);
            replica.kill_at_deadline();
            replica.killed().await;
        }
    }
}

/// Notes when the listener is closed. Never returns: the exit or the deadline ends it.
async fn watch_listener(shared: &Shared, replica: &Replica) {
    let poll = if replica.in_pod { POD_LISTENER_POLL } else { LISTENER_POLL };
    while !replica.look_at_listener(shared.clock.now()) {
        tokio::time::sleep(poll).await;
    }
    std::future::pending::<()>().await;
}

async fn remove_after_lag(shared: Rc<Shared>, replica: Rc<Replica>) {
    tokio::time::sleep(shared.plan.lag).await;
    remove(&shared, &replica);
}

/// Routing hears that a replica is gone.
pub(crate) fn remove(shared: &Shared, replica: &Replica) {
    let now = shared.clock.now();
    if replica.life.borrow().at(Moment::EndpointRemoved).is_none() {
        replica.record(now, Moment::EndpointRemoved);
    }
    if shared.plan.via.is_some() {
        // The proxy's routing is its own.
        return;
    }
    let closed = shared.router.borrow_mut().remove(replica.index);
    let lanes = shared.links.borrow_mut().remove(replica.index);
    for pooled in closed {
        note_idle(replica, idle_state(&pooled.connection.stream), now.saturating_sub(pooled.idle_since));
    }
    for lane in lanes {
        let state = if lane.link.is_leaving() { IdleState::Unusable } else { IdleState::Quiet };
        note_idle(replica, state, now.saturating_sub(lane.link.idle_since.get()));
    }
}

/// Whether the replica closed idle connections that nobody has looked at since.
pub(crate) fn look_at_idle(shared: &Shared, replica: &Replica) {
    let now = shared.clock.now();
    for pooled in shared.router.borrow().idle_at(replica.index) {
        note_idle(replica, idle_state(&pooled.connection.stream), now.saturating_sub(pooled.idle_since));
    }
}

fn note_idle(replica: &Replica, state: IdleState, idle: Duration) {
    match state {
        IdleState::Quiet => {}
        IdleState::Unusable if idle < Duration::from_secs(1) => replica.reacted(Reaction::Certain),
        IdleState::Unusable => replica.reacted(Reaction::Perhaps),
    }
}

/// Where a replica ends without having been told to, routing hears of it after the same lag.
pub(crate) async fn watch_crash(shared: Rc<Shared>, replica: Rc<Replica>) {
    replica.exit().await;
    if let Some(via) = shared.plan.via {
        let (shared, replica) = (Rc::clone(&shared), Rc::clone(&replica));
        tokio::task::spawn_local(async move {
            let silent = matches!(connect(replica.address, via.connect_timeout).await, Connected::TimedOut);
            // A successor on the same port answers for itself.
            let alone = !shared.fleet.borrow().replicas.iter().any(|one| one.port == replica.port && !one.has_exited());
            replica.life.borrow_mut().unreachable = silent && alone;
        });
    }
    if replica.life.borrow().at(Moment::TermReceived).is_none() {
        shared.router.borrow_mut().leave(replica.index);
        remove_after_lag(shared, replica).await;
    }
}
