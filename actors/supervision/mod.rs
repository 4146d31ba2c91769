//! The supervising mechanism: children started in order, restarted with back-off, stopped in reverse.
//!
//! One for one: addresses survive a restart, so nobody follows a restarted neighbour. A supervisor may be the child of
//! another. What the tree consists of is said elsewhere, in a [`Plan`].

mod board;
mod plan;
mod slot;

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use ractor::{Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, ActorStatus, SpawnErr, SupervisionEvent};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::address::Reply;
use crate::clock::Clock;
use crate::gauge::LastFailure;
pub use board::Board;
pub use plan::{
    Child, ChildState, ChildStatus, Limits, Meltdown, OnMeltdown, Plan, Progress, Restart, SupervisionError,
    SupervisionNote, SupervisorState,
};
use plan::{NoteHook, Start, Starting};
use slot::Slot;

/// What a supervisor can be asked.
pub enum SupervisorMessage {
    /// How the children are.
    Observe(Reply<SupervisorState>),
    /// Start one more child, after the others. Answered when its first start has succeeded or failed; a failed start
    /// is tried again like any other. The child is forgotten when the supervisor itself is restarted.
    Add(Child, Reply<Result<(), SupervisionError>>),
    /// Stop a child and forget it. Answered when it has ended.
    Remove(String, Reply<Result<(), SupervisionError>>),
    /// Start a child that is in quarantine, with no failure on record. Answered as `Add`.
    Release(String, Reply<Result<(), SupervisionError>>),
    /// A back-off is over; only the supervisor itself can say so.
    Restart(RestartDue),
    /// The actor that a child is at present, for a test to kill.
    #[cfg(feature = "testing")]
    Actor(String, Reply<Option<ActorCell>>),
}

/// Which restart is due. The attempt tells a timer that something overtook it.
pub struct RestartDue {
    slot: u64,
    attempt: u64,
}

/// Starts a supervisor, under `parent` if there is one.
///
/// It returns before the children have started; the supervisor answers its first message after it tried to start each
/// of them once. The handle resolves when the supervisor and all its children have ended.
///
/// # Errors
/// [`SpawnErr`] if the parent is stopping.
pub async fn spawn_supervisor(
    plan: Plan,
    parent: Option<ActorCell>,
) -> Result<(ActorRef<SupervisorMessage>, JoinHandle<()>), SpawnErr> {
    match parent {
        Some(parent) => parent.spawn_linked(None, Supervisor, plan).await,
        None => Actor::spawn(None, Supervisor, plan).await,
    }
}

struct Supervisor;

#[ractor::actor(message = SupervisorMessage, state = Roster, arguments = Plan)]
impl Supervisor {
    async fn pre_start(&self, _myself: ActorRef<SupervisorMessage>, plan: Plan) -> Result<Roster, ActorProcessingErr> {
        Ok(Roster::new(plan))
    }

    // Not in `pre_start`, which runs in the parent's task and within the parent's limit for one start.
    async fn post_start(
        &self,
        myself: ActorRef<SupervisorMessage>,
        roster: &mut Roster,
    ) -> Result<(), ActorProcessingErr> {
        let ids: Vec<u64> = roster.slots.iter().map(|slot| slot.id).collect();
        for id in ids {
            let started = roster.start(id, &myself).await;
            roster.show();
            started?;
        }
        Ok(())
    }

    async fn handle(
        &self,
        myself: ActorRef<SupervisorMessage>,
        message: SupervisorMessage,
        roster: &mut Roster,
    ) -> Result<(), ActorProcessingErr> {
        let _handling = roster.board.gauge().begin();
        let handled = roster.obey(message, &myself).await;
        roster.show();
        Ok(handled?)
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<SupervisorMessage>,
        event: SupervisionEvent,
        roster: &mut Roster,
    ) -> Result<(), ActorProcessingErr> {
        let (actor, end) = match event {
            SupervisionEvent::ActorFailed(actor, error) => (actor, End::Failed(error.to_string())),
            SupervisionEvent::ActorTerminated(actor, state, reason) => {
                // Whatever the actor held is let go before anybody learns that it has ended.
                drop(state);
                (actor, End::from_reason(reason))
            }
            _ => return Ok(()),
        };
        let _handling = roster.board.gauge().begin();
        let handled = roster.ended(actor.get_id(), &end, &myself).await;
        roster.show();
        Ok(handled?)
    }

    async fn post_stop(
        &self,
        _myself: ActorRef<SupervisorMessage>,
        roster: &mut Roster,
    ) -> Result<(), ActorProcessingErr> {
        roster.stop_all().await;
        roster.show();
        Ok(())
    }
}

/// How an actor ended.
enum End {
    Failed(String),
    Stopped(String),
}

impl End {
    /// A killed actor is reported as terminated; only the reason tells.
    fn from_reason(reason: Option<String>) -> Self {
        match reason {
            Some(reason) if reason == "killed" || reason == "actor_task_cancelled" => Self::Failed(reason),
            Some(reason) => Self::Stopped(format!("stopped: {reason}")),
            None => Self::Stopped("stopped".to_owned()),
        }
    }
}

struct Roster {
    slots: Vec<Slot>,
    next_id: u64,
    limits: Limits,
    on_event: NoteHook,
    board: Board,
    clock: Clock,
}

impl Roster {
    fn new(plan: Plan) -> Self {
        let Plan { children, limits, on_event, board, clock } = plan;
        let mut roster = Self { slots: Vec::new(), next_id: 0, limits, on_event, board, clock };
        for child in children {
            roster.push(child);
        }
        roster
    }

    fn push(&mut self, child: Child) -> u64 {
        let id = self.next_id;
        self.next_id = id.wrapping_add(1);
        let earlier = self.board.earlier(&child.name);
        self.slots.push(Slot::new(id, child, earlier));
        id
    }

    fn observe(&self) -> SupervisorState {
        SupervisorState { children: self.slots.iter().map(Slot::observe).collect() }
    }

    fn show(&self) {
        self.board.show(self.observe());
    }

    async fn obey(&mut self, message: SupervisorMessage, myself: &ActorRef<SupervisorMessage>) -> Result<(), Meltdown> {
        match message {
            SupervisorMessage::Observe(reply) => reply.send(self.observe()),
            SupervisorMessage::Add(child, reply) => self.add(child, reply, myself).await?,
            SupervisorMessage::Remove(name, reply) => self.remove(&name, reply),
            SupervisorMessage::Release(name, reply) => self.release(&name, reply, myself).await?,
            SupervisorMessage::Restart(due) => self.restart(&due, myself).await?,
            #[cfg(feature = "testing")]
            SupervisorMessage::Actor(name, reply) => {
                reply.send(self.named(&name).and_then(|slot| slot.actor.clone()));
            }
        }
        Ok(())
    }

    fn slot(&mut self, id: u64) -> Option<&mut Slot> {
        self.slots.iter_mut().find(|slot| slot.id == id)
    }

    fn named(&mut self, name: &str) -> Option<&mut Slot> {
        self.slots.iter_mut().find(|slot| slot.child.name == name)
    }

    async fn add(
        &mut self,
        child: Child,
        reply: Reply<Result<(), SupervisionError>>,
        myself: &ActorRef<SupervisorMessage>,
    ) -> Result<(), Meltdown> {
        if self.named(&child.name).is_some() {
            reply.send(Err(SupervisionError::NameTaken));
            return Ok(());
        }
        let id = self.push(child);
        self.start(id, myself).await?;
        reply.send(Ok(()));
        Ok(())
    }

    fn remove(&mut self, name: &str, reply: Reply<Result<(), SupervisionError>>) {
        let limit = self.limits.stop_within;
        let Some(slot) = self.named(name).filter(|slot| slot.removal.is_none()) else {
            return reply.send(Err(SupervisionError::UnknownName));
        };
        if let Some(actor) = slot.actor.clone() {
            slot.status = ChildStatus::Stopping;
            slot.removal = Some(reply);
            // Its end arrives as an event; until then the supervisor stays responsive.
            tokio::spawn(stop(actor, slot.child.stop_within.unwrap_or(limit)));
        } else {
            self.slots.retain(|slot| slot.child.name != name);
            reply.send(Ok(()));
        }
    }

    async fn release(
        &mut self,
        name: &str,
        reply: Reply<Result<(), SupervisionError>>,
        myself: &ActorRef<SupervisorMessage>,
    ) -> Result<(), Meltdown> {
        let refusal = match self.named(name) {
            None => SupervisionError::UnknownName,
            Some(slot) if slot.status != ChildStatus::Quarantined => SupervisionError::NotQuarantined,
            Some(slot) => {
                slot.failures.clear();
                let id = slot.id;
                self.start(id, myself).await?;
                reply.send(Ok(()));
                return Ok(());
            }
        };
        reply.send(Err(refusal));
        Ok(())
    }

    async fn restart(&mut self, due: &RestartDue, myself: &ActorRef<SupervisorMessage>) -> Result<(), Meltdown> {
        let waits = |slot: &mut Slot| slot.status == ChildStatus::BackingOff && slot.attempt == due.attempt;
        if self.slot(due.slot).is_some_and(waits) { self.start(due.slot, myself).await } else { Ok(()) }
    }

    /// Starts one child; a start that fails, panics or takes too long is a failure of the child.
    async fn start(&mut self, id: u64, myself: &ActorRef<SupervisorMessage>) -> Result<(), Meltdown> {
        let limit = self.limits.start_within;
        let on_event = Arc::clone(&self.on_event);
        let Some(slot) = self.slot(id) else { return Ok(()) };
        let starting = start_caught(Arc::clone(&slot.child.start), myself.get_cell());
        let started = tokio::time::timeout(limit, starting).await.unwrap_or_else(|_| Err("start timed out".to_owned()));
        match started {
            Ok(actor) => {
                slot.actor = Some(actor);
                slot.status = ChildStatus::Running;
                if !slot.failures.is_empty() {
                    slot.restarts = slot.restarts.saturating_add(1);
                    on_event(SupervisionNote::Restarted {
                        name: slot.child.name.clone(),
                        attempt: slot.failures.len(),
                        failure: slot.last_failure.as_ref().map(|last| last.failure.clone()).unwrap_or_default(),
                    });
                }
                Ok(())
            }
            Err(failure) => {
                self.kill_strays(myself);
                self.failed(id, &failure, myself).await
            }
        }
    }

    /// A start that failed after it had spawned leaves an actor that nobody knows.
    fn kill_strays(&self, myself: &ActorRef<SupervisorMessage>) {
        let known = |id| self.slots.iter().filter_map(|slot| slot.actor.as_ref()).any(|actor| actor.get_id() == id);
        myself.get_children().iter().filter(|actor| !known(actor.get_id())).for_each(ActorCell::kill);
    }

    async fn ended(&mut self, actor: ActorId, end: &End, myself: &ActorRef<SupervisorMessage>) -> Result<(), Meltdown> {
        let is_it = |slot: &&mut Slot| slot.actor.as_ref().is_some_and(|cell| cell.get_id() == actor);
        let Some(slot) = self.slots.iter_mut().find(is_it) else { return Ok(()) };
        slot.actor = None;
        if let Some(removal) = slot.removal.take() {
            let id = slot.id;
            self.slots.retain(|slot| slot.id != id);
            removal.send(Ok(()));
            return Ok(());
        }
        let id = slot.id;
        match end {
            End::Stopped(_) if slot.child.restart == Restart::Transient => {
                slot.status = ChildStatus::Stopped;
                Ok(())
            }
            End::Stopped(failure) | End::Failed(failure) => self.failed(id, failure, myself).await,
        }
    }

    /// Schedules the restart of a child that is down, or draws the consequence of one failure too many.
    async fn failed(&mut self, id: u64, failure: &str, myself: &ActorRef<SupervisorMessage>) -> Result<(), Meltdown> {
        let limits = self.limits.clone();
        let (on_event, at) = (Arc::clone(&self.on_event), self.clock.now());
        let Some(slot) = self.slot(id) else { return Ok(()) };
        let name = slot.child.name.clone();
        slot.last_failure = Some(LastFailure { at, failure: failure.to_owned() });
        slot.attempt = slot.attempt.wrapping_add(1);
        // A draining supervisor can start nobody, and must not fail for it.
        if myself.get_status() >= ActorStatus::Draining {
            slot.status = ChildStatus::Stopped;
            return Ok(());
        }
        let failures = slot.count_failure(Instant::now(), limits.within);
        if failures <= limits.restarts {
            slot.status = ChildStatus::BackingOff;
            let due = RestartDue { slot: id, attempt: slot.attempt };
            let pause = back_off(&limits, failures, getrandom::u32().unwrap_or(u32::MAX));
            tracing::warn!(child = name, failures, failure, pause_ms = pause.as_millis(), "child failed");
            myself.send_after(pause, move || SupervisorMessage::Restart(due));
            return Ok(());
        }
        tracing::error!(child = name, failures, failure, "child failed too often");
        match slot.child.on_meltdown {
            OnMeltdown::Quarantine => {
                slot.status = ChildStatus::Quarantined;
                on_event(SupervisionNote::Quarantined { name, failure: failure.to_owned() });
                Ok(())
            }
            OnMeltdown::Escalate => {
                // A failing supervisor gets no `post_stop`, and its end would kill the neighbours.
                self.stop_all().await;
                Err(Meltdown { child: name, failures, within: limits.within, failure: failure.to_owned() })
            }
        }
    }

    /// Stops the children, last first.
    async fn stop_all(&mut self) {
        for slot in self.slots.iter_mut().filter(|slot| slot.actor.is_some()) {
            slot.status = ChildStatus::Stopping;
        }
        self.show();
        for slot in self.slots.iter_mut().rev() {
            slot.status = ChildStatus::Stopped;
            if let Some(actor) = slot.actor.take() {
                stop(actor, slot.child.stop_within.unwrap_or(self.limits.stop_within)).await;
            }
        }
    }
}

/// Lets an actor handle what is queued and stop; kills it when `limit` is over.
async fn stop(actor: ActorCell, limit: Duration) {
    // A refused drain means that the actor is ending already.
    let _ = actor.drain();
    if actor.wait(Some(limit)).await.is_err() {
        actor.kill();
        // A kill waits for the next `.await` of the actor, which one that blocks its thread never reaches.
        let _ = actor.wait(Some(limit)).await;
    }
}

/// Runs a start function, whose panic must not end the supervisor.
async fn start_caught(start: Start, supervisor: ActorCell) -> Result<ActorCell, String> {
    let mut starting: Starting = Box::pin(async move { start(supervisor).await });
    let outcome = poll_fn(move |context| {
        catch_unwind(AssertUnwindSafe(|| starting.as_mut().poll(context)))
            .map_or_else(|_| Poll::Ready(Err("the start function panicked".to_owned())), |polled| polled.map(Ok))
    });
    match outcome.await? {
        Ok(actor) => Ok(actor),
        Err(SpawnErr::StartupFailed(error)) => Err(format!("start failed: {error}")),
        Err(error) => Err(format!("start failed: {error}")),
    }
}

/// The pause before the restart that answers the n-th failure: the shortest one, and a random share (`jitter` of
/// `u32::MAX`) of what lies between it and its n-fold doubling, at most the longest.
fn back_off(limits: &Limits, failures: usize, jitter: u32) -> Duration {
    let factor = 2_u32.saturating_pow(u32::try_from(failures).unwrap_or(u32::MAX));
    let ceiling = limits.back_off_min.saturating_mul(factor).min(limits.back_off_max);
    let spread = ceiling.saturating_sub(limits.back_off_min);
    limits.back_off_min.saturating_add(spread.mul_f64(f64::from(jitter) / f64::from(u32::MAX)))
}

#[cfg(test)]
mod tests;
