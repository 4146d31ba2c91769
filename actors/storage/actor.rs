//! The storage actor: admits batches into a bounded queue that its writer empties.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SpawnErr};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::batch::{Batch, Prepared, Verdict};
use super::writer::{Pending, Writer};
use super::{CommitError, Shared};
use crate::address::Reply;

/// What the storage actor is asked.
pub enum StorageMessage {
    /// Commit this batch.
    Commit {
        /// The batch.
        prepared: Work,
        /// How long it may wait for company.
        patience: Duration,
        /// Answered once the verdict is durable.
        reply: Reply<Result<Verdict, CommitError>>,
    },
    /// Commit this batch with the next one.
    CommitWithNext {
        /// The batch.
        prepared: Work,
        /// Answered once it waits for the writer.
        reply: Reply<()>,
    },
    /// Commit all that waits.
    Flush {
        /// Answered once it is durable.
        reply: Reply<()>,
    },
}

/// A batch on its way to the writer. Cloning shares it.
#[derive(Clone)]
pub struct Work(pub(super) Arc<Prepared>);

impl Work {
    /// Encodes what is told, on the thread of whoever asks.
    ///
    /// # Errors
    /// [`CommitError::Failed`]: it cannot be written.
    pub(crate) fn prepare(batch: Batch) -> Result<Self, CommitError> {
        Prepared::new(batch).map(Self).map_err(|_| CommitError::Failed)
    }
}

impl fmt::Debug for Work {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Work").field(&self.0.batch.flow).finish()
    }
}

/// Starts an incarnation.
pub(super) async fn start(shared: Arc<Shared>, supervisor: ActorCell) -> Result<ActorRef<StorageMessage>, SpawnErr> {
    let (actor, _) = Actor::spawn_linked(None, StorageActor, shared, supervisor).await?;
    Ok(actor)
}

struct StorageActor;

struct State {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Pending>,
    writer: tokio::task::JoinHandle<()>,
}

impl State {
    /// Puts work into the writer's queue, or says at once why not.
    fn admit(&self, pending: Pending) {
        match self.queue.try_send(pending) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(pending)) => pending.refuse(&self.shared, CommitError::Overloaded),
            Err(mpsc::error::TrySendError::Closed(pending)) => pending.refuse(&self.shared, CommitError::Stopped),
        }
    }
}

#[ractor::actor(message = StorageMessage, state = State, arguments = Arc<Shared>)]
impl StorageActor {
    async fn pre_start(
        &self,
        myself: ActorRef<StorageMessage>,
        shared: Arc<Shared>,
    ) -> Result<State, ActorProcessingErr> {
        let (queue, inbox) = mpsc::channel(shared.settings.queue.clamp(1, Semaphore::MAX_PERMITS));
        let writer = Writer::new(Arc::clone(&shared), inbox);
        // A writer that panics takes its actor with it, so that the supervisor starts both anew.
        let mut guard = KillOnPanic(Some(myself.get_cell()));
        let writer = tokio::spawn(async move {
            writer.run().await;
            // Dropped, not forgotten: a mailbox lives as long as its cell, with a question that slipped in last.
            drop(guard.0.take());
        });
        Ok(State { shared, queue, writer })
    }

    async fn handle(
        &self,
        _myself: ActorRef<StorageMessage>,
        message: StorageMessage,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            StorageMessage::Commit { reply, .. } if !state.shared.engine.is_available() => {
                reply.send(Err(CommitError::Unavailable));
            }
            StorageMessage::Commit { prepared, patience, reply } => {
                state.admit(Pending::asked(&state.shared, prepared.0, patience, reply));
            }
            StorageMessage::CommitWithNext { prepared, reply } => {
                state.admit(Pending::with_next(&state.shared, prepared.0));
                reply.send(());
            }
            StorageMessage::Flush { reply } if !state.shared.engine.is_available() => reply.send(()),
            StorageMessage::Flush { reply } => {
                let (flushed, done) = oneshot::channel();
                state.admit(Pending::flush(flushed));
                tokio::spawn(async move {
                    let _ = done.await;
                    reply.send(());
                });
            }
        }
        Ok(())
    }

    async fn post_stop(&self, _myself: ActorRef<StorageMessage>, state: &mut State) -> Result<(), ActorProcessingErr> {
        let (closed, _) = mpsc::channel(1);
        drop(std::mem::replace(&mut state.queue, closed));
        let _ = (&mut state.writer).await;
        Ok(())
    }
}

/// Kills the actor when its writer unwinds.
struct KillOnPanic(Option<ActorCell>);

impl Drop for KillOnPanic {
    fn drop(&mut self) {
        if let Some(actor) = self.0.take() {
            actor.kill();
        }
    }
}
