//! The board: where a supervisor shows how its children are, readable without asking it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::plan::{ChildState, SupervisorState};
use crate::gauge::Gauge;

/// What a supervisor shows of itself. Cloning shares it.
///
/// It outlives the supervisor, and a supervisor that is started anew goes on counting the restarts of its children from
/// there. What it shows was true when the supervisor had last done something.
#[derive(Clone, Debug, Default)]
pub struct Board {
    gauge: Gauge,
    state: Arc<Mutex<SupervisorState>>,
}

impl Board {
    /// How the children were when the supervisor had last done something.
    #[must_use]
    pub fn state(&self) -> SupervisorState {
        self.shown().clone()
    }

    /// How long the supervisor takes over what it does.
    #[must_use]
    pub const fn gauge(&self) -> &Gauge {
        &self.gauge
    }

    pub(super) fn show(&self, state: SupervisorState) {
        *self.shown() = state;
    }

    /// What an earlier supervisor knew of a child of this name.
    pub(super) fn earlier(&self, name: &str) -> Option<ChildState> {
        self.shown().children.iter().find(|child| child.name == name).cloned()
    }

    fn shown(&self) -> MutexGuard<'_, SupervisorState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
