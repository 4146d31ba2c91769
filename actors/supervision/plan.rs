//! The words of supervision: what to supervise, how patiently, and what came of it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ractor::{ActorCell, SpawnErr};
use serde::Serialize;

use super::board::Board;
use crate::clock::Clock;
use crate::gauge::LastFailure;

pub(super) type Starting = Pin<Box<dyn Future<Output = Result<ActorCell, SpawnErr>> + Send>>;
pub(super) type Start = Arc<dyn Fn(ActorCell) -> Starting + Send + Sync>;
pub(super) type NoteHook = Arc<dyn Fn(SupervisionNote) + Send + Sync>;

/// Whether a child that stopped of its own accord is started again. A failed or killed one always is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// It is: this child has no end of its own.
    Permanent,
    /// It is not: stopping is how this child finishes.
    Transient,
}

/// What happens when a child fails more often than [`Limits::restarts`] allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnMeltdown {
    /// The supervisor stops its children and fails with [`Meltdown`]; its own supervisor counts that as one failure.
    Escalate,
    /// The child stays stopped until it is released; its neighbours notice nothing.
    Quarantine,
}

/// A count of work done that a child shares with its supervisor: a child that advanced between two failures starts
/// afresh, with the shortest back-off and no failure on record. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    count: Arc<AtomicU64>,
}

impl Progress {
    /// Notes that a piece of work is done for good.
    pub fn advance(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

/// How patient a supervisor is with each of its children.
#[derive(Clone, Debug)]
pub struct Limits {
    /// How many failures within [`Limits::within`] are answered by a restart; one more is a meltdown.
    pub restarts: usize,
    /// The window in which failures count.
    pub within: Duration,
    /// The shortest pause before a restart. Above zero, since an actor's state is dropped just after its failure is
    /// known, and a restart may need what that state held.
    pub back_off_min: Duration,
    /// The longest pause before a restart.
    pub back_off_max: Duration,
    /// How long a start may take; the supervisor does nothing else meanwhile.
    pub start_within: Duration,
    /// How long a child may take to handle what is queued and stop, before it is killed.
    pub stop_within: Duration,
}

impl Default for Limits {
    /// Five restarts within a minute, 50 ms to 5 s apart; 10 s to start, 5 s to stop.
    fn default() -> Self {
        Self {
            restarts: 5,
            within: Duration::from_secs(60),
            back_off_min: Duration::from_millis(50),
            back_off_max: Duration::from_secs(5),
            start_within: Duration::from_secs(10),
            stop_within: Duration::from_secs(5),
        }
    }
}

/// How to start one actor, and how to treat its ends.
#[derive(Clone)]
pub struct Child {
    pub(super) name: String,
    pub(super) start: Start,
    pub(super) restart: Restart,
    pub(super) on_meltdown: OnMeltdown,
    pub(super) progress: Progress,
    pub(super) stop_within: Option<Duration>,
}

impl Child {
    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A permanent child whose meltdown escalates. The name is unique under its supervisor.
    ///
    /// `start` is given the supervisor's cell, spawns one actor linked to it, binds the actor's address and returns
    /// its cell; it is called again for every restart. The actor's `pre_start` runs in the supervisor's task and must
    /// not ask the supervisor anything.
    ///
    /// ```ignore
    /// Child::new("storage", move |supervisor| {
    ///     let (binder, arguments) = (binder.clone(), arguments.clone());
    ///     async move {
    ///         let (actor, _) = supervisor.spawn_linked(None, Storage, arguments).await?;
    ///         Ok(binder.bind(actor))
    ///     }
    /// })
    /// ```
    pub fn new<F, S>(name: impl Into<String>, start: S) -> Self
    where
        S: Fn(ActorCell) -> F + Send + Sync + 'static,
        F: Future<Output = Result<ActorCell, SpawnErr>> + Send + 'static,
    {
        Self {
            name: name.into(),
            start: Arc::new(move |supervisor| Box::pin(start(supervisor))),
            restart: Restart::Permanent,
            on_meltdown: OnMeltdown::Escalate,
            progress: Progress::default(),
            stop_within: None,
        }
    }

    /// Sets whether it is started again after it stopped of its own accord.
    #[must_use]
    pub fn restart(self, restart: Restart) -> Self {
        Self { restart, ..self }
    }

    /// Sets what happens when it fails too often.
    #[must_use]
    pub fn on_meltdown(self, on_meltdown: OnMeltdown) -> Self {
        Self { on_meltdown, ..self }
    }

    /// Sets the counter by which it shows that it advances.
    #[must_use]
    pub fn progress(self, progress: Progress) -> Self {
        Self { progress, ..self }
    }

    /// Sets its own limit in place of [`Limits::stop_within`]. A child that is a supervisor needs the sum of its
    /// children's limits, for when it is killed they are killed with it.
    #[must_use]
    pub fn stop_within(self, limit: Duration) -> Self {
        Self { stop_within: Some(limit), ..self }
    }
}

/// What a supervisor supervises.
#[derive(Clone)]
pub struct Plan {
    pub(super) children: Vec<Child>,
    pub(super) limits: Limits,
    pub(super) on_event: NoteHook,
    pub(super) board: Board,
    pub(super) clock: Clock,
}

impl Plan {
    /// A plan without children.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let (board, clock) = (Board::default(), Clock::system());
        Self { children: Vec::new(), limits, on_event: Arc::new(|_| {}), board, clock }
    }

    /// Adds a child: started after those added before it, stopped before them.
    #[must_use]
    pub fn child(mut self, child: Child) -> Self {
        self.children.push(child);
        self
    }

    /// Sets who hears of restarts and quarantines. It is called by the supervisor itself: it must neither block nor
    /// panic.
    #[must_use]
    pub fn on_event(self, hook: impl Fn(SupervisionNote) + Send + Sync + 'static) -> Self {
        Self { on_event: Arc::new(hook), ..self }
    }

    /// Sets where the supervisor shows how its children are.
    #[must_use]
    pub fn board(self, board: Board) -> Self {
        Self { board, ..self }
    }

    /// Sets the clock that tells when a child failed.
    #[must_use]
    pub fn clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }
}

/// Something that a supervisor did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SupervisionNote {
    /// A child runs again.
    Restarted {
        /// The child.
        name: String,
        /// How many failures in a row this restart answers, from 1.
        attempt: usize,
        /// What ended the last incarnation or the last start.
        failure: String,
    },
    /// A child failed too often and stays stopped until it is released.
    Quarantined {
        /// The child.
        name: String,
        /// Its last failure.
        failure: String,
    },
}

/// A child failed more often than its supervisor tolerates.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("meltdown: {child} failed {failures} times within {within:?}, last with: {failure}")]
pub struct Meltdown {
    /// The child.
    pub child: String,
    /// How often it failed within the window.
    pub failures: usize,
    /// The window.
    pub within: Duration,
    /// Its last failure.
    pub failure: String,
}

/// Why a supervisor refused an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum SupervisionError {
    /// A child of that name exists, or is still being removed.
    #[error("a child of that name exists")]
    NameTaken,
    /// There is no child of that name, or it is being removed already.
    #[error("no child of that name exists")]
    UnknownName,
    /// The child is not in quarantine.
    #[error("the child is not in quarantine")]
    NotQuarantined,
}

impl SupervisionError {
    /// The stable name, in `snake_case`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NameTaken => "name_taken",
            Self::UnknownName => "unknown_name",
            Self::NotQuarantined => "not_quarantined",
        }
    }
}

/// How a child is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ChildStatus {
    /// It runs.
    Running,
    /// It failed and waits for its restart.
    BackingOff,
    /// It failed too often and waits for its release.
    Quarantined,
    /// It is being stopped: removed, or with its supervisor.
    Stopping,
    /// It stopped of its own accord, or with its supervisor.
    Stopped,
}

/// What a supervisor knows of a child.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChildState {
    /// Its name.
    pub name: String,
    /// How it is.
    pub status: ChildStatus,
    /// How often it was restarted, in all.
    pub restarts: u64,
    /// Its failures within the window and since it last advanced.
    pub recent_failures: usize,
    /// What ended its last incarnation or its last start, and when.
    pub last_failure: Option<LastFailure>,
}

/// The children of a supervisor, in the order of their start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SupervisorState {
    /// The children.
    pub children: Vec<ChildState>,
}
