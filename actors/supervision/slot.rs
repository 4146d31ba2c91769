//! The slot: what a supervisor keeps of one child.

use std::collections::VecDeque;
use std::time::Duration;

use ractor::ActorCell;
use tokio::time::Instant;

use super::plan::{Child, ChildState, ChildStatus, SupervisionError};
use crate::address::Reply;
use crate::gauge::LastFailure;

pub(super) struct Slot {
    pub(super) id: u64,
    pub(super) child: Child,
    pub(super) status: ChildStatus,
    pub(super) actor: Option<ActorCell>,
    pub(super) attempt: u64,
    pub(super) failures: VecDeque<Instant>,
    pub(super) progress_seen: u64,
    pub(super) restarts: u64,
    pub(super) last_failure: Option<LastFailure>,
    pub(super) removal: Option<Reply<Result<(), SupervisionError>>>,
}

impl Slot {
    pub(super) fn new(id: u64, child: Child, earlier: Option<ChildState>) -> Self {
        let (restarts, last_failure) =
            earlier.map(|earlier| (earlier.restarts, earlier.last_failure)).unwrap_or_default();
        Self {
            id,
            progress_seen: child.progress.count(),
            child,
            status: ChildStatus::Stopped,
            actor: None,
            attempt: 0,
            failures: VecDeque::new(),
            restarts,
            last_failure,
            removal: None,
        }
    }

    /// Puts a failure on record, and says how many count now.
    pub(super) fn count_failure(&mut self, now: Instant, within: Duration) -> usize {
        let progress = self.child.progress.count();
        if progress != self.progress_seen {
            self.progress_seen = progress;
            self.failures.clear();
        }
        self.failures.retain(|failure| now.duration_since(*failure) < within);
        self.failures.push_back(now);
        self.failures.len()
    }

    pub(super) fn observe(&self) -> ChildState {
        ChildState {
            name: self.child.name.clone(),
            status: self.status,
            restarts: self.restarts,
            recent_failures: self.failures.len(),
            last_failure: self.last_failure.clone(),
        }
    }
}
