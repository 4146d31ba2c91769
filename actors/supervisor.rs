//! The supervisor: spawns every actor, restarts what fails, and knows the whole tree.

mod health;
mod operation;
mod plan;
mod setup;
mod tree;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use majordomo_model::{Command, Error, Flow, RefusalCause, Session, SessionToken, SystemId, User};
use ractor::{ActorCell, SpawnErr};
use tokio::time::Instant;

pub use self::health::{Health, HealthFault};
pub use self::operation::{ANSWER_WITHIN, OrderError};
pub use self::setup::Setup;
pub use self::tree::{ActorDetail, ActorState, ActorStatus, Tree, UserManagerState};
use crate::address::{Address, AskError, Binder};
use crate::breach::Lookout;
use crate::clock::Clock;
use crate::guard::{GuardState, Panel};
use crate::hasher::{Hasher, HasherSettingsError};
use crate::live::LiveGroup;
use crate::outbox::{Doorbell, Outbox, RegistrationError, Subscription};
use crate::storage::{CommitHook, OpenError, Reader, Storage, Unreadable};
use crate::supervision::{Board, Child, ChildStatus, SupervisorMessage, SupervisorState, spawn_supervisor};
use crate::token::Tokens;
use crate::user_manager::{
    Answer, Budget, Manager, Policy, Question, Rehashes, Services, Throttle, UserManagerMessage, session,
};

/// How long the shutdown waits for each child of the tree, once flows have drained.
const CHILD_STOP: Duration = Duration::from_secs(5);

/// Why a system was not spawned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// The store.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The hasher's settings.
    #[error(transparent)]
    Hashing(#[from] HasherSettingsError),
    /// A subscription.
    #[error("subscription {name:?}: {fault}")]
    Subscription {
        /// Its name.
        name: String,
        /// What is wrong with it.
        fault: RegistrationError,
    },
    /// An actor did not start.
    #[error("an actor did not start: {0}")]
    Actor(String),
}

impl From<SpawnErr> for SpawnError {
    fn from(error: SpawnErr) -> Self {
        Self::Actor(error.to_string())
    }
}

/// A running account system. Cloning shares it; it runs until [`System::shutdown`].
#[derive(Clone)]
pub struct System(Arc<Parts>);

struct Parts {
    id: SystemId,
    services: Arc<Services>,
    manager: Manager,
    address: Address<UserManagerMessage>,
    admission: Binder<UserManagerMessage>,
    outbox: Outbox,
    root: Supervised,
    subscribers: Supervised,
    roster: Arc<Mutex<Vec<Child>>>,
    root_cell: ActorCell,
    patience: Duration,
    /// Held by whoever looks at the store on behalf of an operator.
    looking: Arc<tokio::sync::Mutex<()>>,
}

/// A supervisor that can be asked, and what it shows unasked.
#[derive(Clone)]
struct Supervised {
    address: Address<SupervisorMessage>,
    binder: Binder<SupervisorMessage>,
    board: Board,
}

impl Supervised {
    fn new() -> Self {
        let (address, binder) = Address::new(64);
        Self { address, binder, board: Board::default() }
    }

    async fn observe(&self) -> Option<SupervisorState> {
        self.address.ask(Some(Instant::now() + CHILD_STOP), SupervisorMessage::Observe).await.ok()
    }

    #[cfg(feature = "testing")]
    async fn kill(&self, name: &str) -> bool {
        let found = self.address.ask(None, |reply| SupervisorMessage::Actor(name.to_owned(), reply)).await;
        let Ok(Some(actor)) = found else { return false };
        actor.kill_and_wait(None).await.is_ok()
    }
}

impl System {
    /// Opens the store, spawns every actor, and answers once all of them run.
    ///
    /// # Errors
    /// Any [`SpawnError`]; nothing is left running then.
    pub async fn spawn(setup: Setup) -> Result<Self, SpawnError> {
        let id = SystemId::new();
        let (live, doorbell, tokens) = (LiveGroup::new(id), Doorbell::new(id), Tokens::new(setup.keys.clone()));
        let hashing = setup.hashing.clone();
        let hasher = blocking(move || Hasher::new(&hashing)).await??;
        let storage = open_storage(&setup, commit_hook(live.clone(), doorbell.clone())).await?;
        let reader = storage.reader();
        live.know_groups(Box::new(move |user| reader.groups_of(user).unwrap_or_default()));
        let outbox =
            Outbox::new(storage.clone(), tokens.clone(), setup.clock.clone(), doorbell, setup.policy.code_lifetime);
        let roster = match enrolled(&outbox, setup.subscriptions) {
            Ok(children) => Arc::new(Mutex::new(children)),
            Err(fault) => {
                release(&storage, &hasher).await;
                return Err(fault);
            }
        };
        let services = Arc::new(Services {
            reader: storage.reader(),
            storage,
            hasher,
            tokens,
            keys: setup.keys,
            budget: Budget::new(setup.policy.failures_per_source),
            throttle: Throttle::default(),
            policy: setup.policy,
            clock: setup.clock,
            live,
            guards: Panel::new(setup.guards),
            breaches: setup.breaches.map(Lookout::new).unwrap_or_default(),
            rehashes: Rehashes::new(),
        });
        let (address, admission) = Address::new(setup.places);
        let (manager, root, subscribers) = (Manager::new(Arc::clone(&services)), Supervised::new(), Supervised::new());
        let plan = plan::plan(&services, &manager, &admission, (&root, &subscribers), &roster);
        let (supervisor, ended) = match spawn_supervisor(plan, None).await {
            Ok(spawned) => spawned,
            Err(error) => {
                release(&services.storage, &services.hasher).await;
                return Err(error.into());
            }
        };
        let root_cell = root.binder.bind(supervisor);
        let parts = Parts {
            id,
            services,
            manager,
            address,
            admission,
            outbox,
            root,
            subscribers,
            roster,
            root_cell,
            patience: setup.patience,
            looking: Arc::default(),
        };
        Self(Arc::new(parts)).started(ended).await
    }

    /// Waits until every core actor runs, and sees to it that nobody is left hanging when the root ends.
    async fn started(self, ended: tokio::task::JoinHandle<()>) -> Result<Self, SpawnError> {
        if let Some(failure) = self.failure_to_start().await {
            self.shutdown(CHILD_STOP).await;
            return Err(SpawnError::Actor(failure));
        }
        self.0.subscribers.observe().await;
        tokio::spawn(self.clone().close_after(ended));
        Ok(self)
    }

    /// The root ends by a shutdown, or because a core actor failed too often: nobody is left hanging then.
    async fn close_after(self, root: tokio::task::JoinHandle<()>) {
        let _ = root.await;
        self.close().await;
    }

    /// Answers everybody that it is stopped, and closes the file.
    async fn close(&self) -> bool {
        let parts = &self.0;
        parts.admission.close();
        parts.manager.close();
        parts.services.storage.close();
        parts.services.hasher.close();
        parts.root.binder.close();
        parts.subscribers.binder.close();
        let storage = parts.services.storage.clone();
        tokio::task::spawn_blocking(move || storage.release()).await.is_ok()
    }

    /// What kept a core actor from starting.
    async fn failure_to_start(&self) -> Option<String> {
        let Some(state) = self.0.root.observe().await else { return Some("the root does not answer".to_owned()) };
        let down = state.children.into_iter().find(|child| child.status != ChildStatus::Running)?;
        Some(format!("{}: {}", down.name, down.last_failure.map(|last| last.failure).unwrap_or_default()))
    }

    /// Runs a flow and waits for its answer.
    ///
    /// A question that died inside an actor is asked again under the same command id, so it is done once.
    ///
    /// # Errors
    /// The flow's own reason, or why it could not be done.
    pub async fn ask<F: Question>(&self, command: Command<F>) -> Answer<F> {
        let parts = &self.0;
        parts.services.refuse_guards()?;
        let deadline = Instant::now().checked_add(command.deadline.unwrap_or(parts.patience));
        // A stopped system has closed its store too, and that is not worth another try.
        if !parts.address.is_closed() && !parts.services.storage.is_available() {
            return Err(parts.services.refused_without_storage());
        }
        let command = Arc::new(command);
        let asked = parts.address.ask_repeatable(deadline, |reply| F::question(Arc::clone(&command), reply)).await;
        asked.unwrap_or_else(|error| Err(self.refusal::<F>(error)))
    }

    /// Sends a message without waiting: an actor may await the receiver elsewhere, or drop it (fire and forget).
    ///
    /// # Errors
    /// [`Error::Overloaded`], [`Error::Stopped`] or [`Error::CalledFromGuard`]; nothing was sent then.
    pub fn tell<F: Question>(
        &self,
        command: Command<F>,
    ) -> Result<tokio::sync::oneshot::Receiver<Answer<F>>, Error<F::Reason>> {
        self.0.services.refuse_guards()?;
        let command = Arc::new(command);
        self.0.address.tell(|reply| F::question(command, reply)).map_err(|error| self.refusal::<F>(error))
    }

    fn refusal<F: Flow>(&self, error: AskError) -> Error<F::Reason> {
        let budget = &self.0.services.budget;
        match error {
            AskError::Overloaded => {
                budget.refused(RefusalCause::Overloaded);
                Error::Overloaded
            }
            AskError::Stopped => {
                budget.refused(RefusalCause::Stopped);
                Error::Stopped
            }
            AskError::DeadlineExceeded => Error::DeadlineExceeded,
            _ => Error::Interrupted,
        }
    }

    /// Adds a subscription to the running system; the signals from its start on reach it.
    ///
    /// # Errors
    /// [`SpawnError::Subscription`], or [`SpawnError::Actor`] if the subscribers' supervisor does not answer.
    pub async fn subscribe(&self, registration: Subscription) -> Result<(), SpawnError> {
        let name = registration.name().to_owned();
        let fault = |fault| SpawnError::Subscription { name, fault };
        let child = self.0.outbox.register(registration).map_err(fault)?;
        let deadline = Some(Instant::now() + self.0.patience);
        let add = |reply| SupervisorMessage::Add(child.clone(), reply);
        match self.0.subscribers.address.ask(deadline, add).await {
            Ok(Ok(())) => {
                locked(&self.0.roster).push(child);
                Ok(())
            }
            Ok(Err(error)) => {
                self.0.outbox.withdraw(child.name());
                Err(SpawnError::Actor(error.to_string()))
            }
            Err(error) => Err(SpawnError::Actor(error.to_string())),
        }
    }

    /// Reading.
    #[must_use]
    pub fn reader(&self) -> &Reader {
        &self.0.services.reader
    }

    /// The session that a token opens, and its user, if it is alive. Its use is noted, to the minute.
    ///
    /// # Errors
    /// [`Unreadable`] while storage is out.
    pub fn check_session(&self, token: &SessionToken) -> Result<Option<(Session, User)>, Unreadable> {
        session::check(&self.0.services, token)
    }

    /// The subscriptions.
    #[must_use]
    pub fn outbox(&self) -> &Outbox {
        &self.0.outbox
    }

    /// The live members.
    #[must_use]
    pub fn live(&self) -> &LiveGroup {
        &self.0.services.live
    }

    /// The storage actor's handle.
    #[must_use]
    pub fn storage(&self) -> &Storage {
        &self.0.services.storage
    }

    /// The hasher's handle.
    #[must_use]
    pub fn hasher(&self) -> &Hasher {
        &self.0.services.hasher
    }

    /// How the guards are.
    #[must_use]
    pub fn guards(&self) -> Vec<GuardState> {
        self.0.services.guards.observe()
    }

    /// The policy in force.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.0.services.policy
    }

    /// The clock.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.0.services.clock
    }

    /// Waits until no password is hashed anew, and every subscription has handled what is in the log, and what it emitted.
    pub async fn drained(&self) {
        self.0.manager.rehashed().await;
        self.0.manager.tell();
        self.storage().flush().await;
        let _ = self.0.outbox.drained(0).await;
        self.storage().flush().await;
    }

    /// Removes what has ended by time, deletes accounts that were never verified, and prunes the log; what the system
    /// does by itself once a minute.
    pub async fn sweep(&self) {
        self.0.manager.sweep().await;
    }

    /// Kills an actor of the tree as a crash would; answers whether one of that name was running.
    #[cfg(feature = "testing")]
    pub async fn kill(&self, name: &str) -> bool {
        self.0.root.kill(name).await || self.0.subscribers.kill(name).await
    }

    /// Admits nothing more, lets flows end, commits what waits, stops every actor and closes the file. What takes longer
    /// than `limit` is cut off; everything answered is durable in any case.
    ///
    /// Answers whether all of it was done in time. A second call does nothing more.
    pub async fn shutdown(&self, limit: Duration) -> bool {
        let parts = &self.0;
        let until = Instant::now() + limit;
        parts.admission.close();
        parts.manager.close();
        let mut in_time = tokio::time::timeout_at(until, parts.manager.idle()).await.is_ok();
        parts.root_cell.stop(None);
        in_time &= tokio::time::timeout_at(until, parts.root_cell.wait(None)).await.is_ok();
        if !in_time {
            parts.root_cell.kill();
        }
        self.close().await & in_time
    }
}

impl fmt::Debug for System {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("System").field("id", &self.0.id).finish_non_exhaustive()
    }
}

/// After each commit: wake the subscriptions, tell the live members.
fn commit_hook(live: LiveGroup, doorbell: Doorbell) -> CommitHook {
    Arc::new(move |committed| {
        doorbell.ring();
        if !live.is_empty() {
            live.publish(&committed.envelopes());
        }
    })
}

async fn open_storage(setup: &Setup, hook: CommitHook) -> Result<Storage, SpawnError> {
    let (location, settings) = (setup.location.clone(), setup.storage.clone());
    let (keys, clock) = (setup.keys.clone(), setup.clock.clone());
    Ok(blocking(move || Storage::open(location, settings, &keys, clock, hook)).await??)
}

/// The children that run the subscriptions.
fn enrolled(outbox: &Outbox, subscriptions: Vec<Subscription>) -> Result<Vec<Child>, SpawnError> {
    let enrol = |subscription: Subscription| {
        let name = subscription.name().to_owned();
        outbox.register(subscription).map_err(|fault| SpawnError::Subscription { name, fault })
    };
    subscriptions.into_iter().map(enrol).collect()
}

/// Undoes what was done before there was a tree to stop.
async fn release(storage: &Storage, hasher: &Hasher) {
    hasher.close();
    storage.close();
    let storage = storage.clone();
    let _ = tokio::task::spawn_blocking(move || storage.release()).await;
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, SpawnError> {
    tokio::task::spawn_blocking(work).await.map_err(|panicked| SpawnError::Actor(panicked.to_string()))
}

fn locked(roster: &Mutex<Vec<Child>>) -> MutexGuard<'_, Vec<Child>> {
    roster.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
