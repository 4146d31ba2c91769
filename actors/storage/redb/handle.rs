//! A shared way to the store that can be taken away and given back.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::Notify;

use super::Engine;
use super::error::{CommitError, EngineError};
use super::view::{ReadView, WriteView};

/// A cloneable handle to an engine that one owner may revoke and install anew.
///
/// A store can be reopened only when nothing of it is open any more, so nobody holds an [`Engine`] of their own: all
/// work runs in closures, and [`EngineHandle::revoke`] waits for those that have begun. A closure must not use a
/// handle to the same store again, nor wait for anything but the store.
#[derive(Clone, Default)]
pub(crate) struct EngineHandle(Arc<Shared>);

#[derive(Default)]
struct Shared {
    engine: RwLock<Option<Engine>>,
    /// Turned off before the lock is asked for, so that newcomers are refused instead of waiting.
    available: AtomicBool,
    /// How many engines were installed.
    generation: AtomicU64,
    /// The generation that a reader last found broken.
    suspected: AtomicU64,
    suspicion: Notify,
}

impl EngineHandle {
    /// A handle without an engine yet: unavailable.
    pub(crate) fn unavailable() -> Self {
        Self::default()
    }

    /// Makes `engine` the one that closures see from now on; one that was there is closed.
    pub(crate) fn install(&self, engine: Engine) {
        let mut place = self.0.engine.write().unwrap_or_else(PoisonError::into_inner);
        *place = Some(engine);
        self.0.generation.fetch_add(1, Ordering::AcqRel);
        self.0.available.store(true, Ordering::Release);
    }

    /// Refuses every closure from now on, waits for those that run, and closes the engine.
    ///
    /// # Errors
    /// The fault of closing. The handle is revoked and the store released even then.
    pub(crate) fn revoke(&self) -> Result<(), EngineError> {
        self.0.available.store(false, Ordering::Release);
        // Closed under the lock: whoever revokes at the same time is answered when the store is released, not before.
        let mut engine = self.0.engine.write().unwrap_or_else(PoisonError::into_inner);
        engine.take().map_or(Ok(()), Engine::close)
    }

    /// The number of the engine that is installed, or was last.
    pub(crate) fn generation(&self) -> u64 {
        self.0.generation.load(Ordering::Acquire)
    }

    /// Notes that the engine of this number answers nothing useful any more, for whoever owns it.
    pub(crate) fn suspect(&self, generation: u64) {
        self.0.suspected.fetch_max(generation, Ordering::AcqRel);
        self.0.suspicion.notify_one();
    }

    /// Waits until somebody suspects the engine that is installed.
    pub(crate) async fn suspected(&self) {
        loop {
            let is_current = self.0.suspected.load(Ordering::Acquire) == self.generation();
            if self.is_available() && is_current {
                return;
            }
            self.0.suspicion.notified().await;
        }
    }

    /// Whether an engine is installed.
    pub(crate) fn is_available(&self) -> bool {
        self.0.available.load(Ordering::Acquire)
    }

    /// Runs `work` on the engine.
    ///
    /// # Errors
    /// [`EngineError::is_unavailable`] where there is none, and what `work` answers.
    pub(crate) fn with_engine<T, E: From<EngineError>>(
        &self,
        work: impl FnOnce(&Engine) -> Result<T, E>,
    ) -> Result<T, E> {
        if !self.is_available() {
            return Err(EngineError::unavailable().into());
        }
        let engine = self.0.engine.read().unwrap_or_else(PoisonError::into_inner);
        work(engine.as_ref().ok_or_else(EngineError::unavailable)?)
    }

    /// Reads one snapshot, as [`Engine::read`].
    ///
    /// # Errors
    /// [`EngineError::is_unavailable`], the fault of the store, and what `look` answers.
    pub(crate) fn read<T, E: From<EngineError>>(&self, look: impl FnOnce(&ReadView) -> Result<T, E>) -> Result<T, E> {
        self.with_engine(|engine| engine.read(look))
    }

    /// Runs one durable transaction, as [`Engine::write`].
    ///
    /// # Errors
    /// As [`Engine::write`]; where there is no engine, [`CommitError::Failed`] with [`EngineError::is_unavailable`].
    pub(crate) fn write<T, E>(
        &self,
        change: impl FnOnce(&mut WriteView<'_>) -> Result<T, E>,
    ) -> Result<T, CommitError<E>> {
        self.with_engine(|engine| engine.write(change))
    }
}

impl fmt::Debug for EngineHandle {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("EngineHandle").field("available", &self.is_available()).finish_non_exhaustive()
    }
}
