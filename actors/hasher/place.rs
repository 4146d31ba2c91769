//! The place: room in the line that is kept for a job, so that nobody who was let in is turned away there.

use std::sync::Arc;

use super::crew::Shared;
use super::queue::Priority;

/// Room in the line for one job, given back unless the job comes.
pub(crate) struct Place {
    shared: Arc<Shared>,
    priority: Priority,
    is_kept: bool,
}

impl Place {
    /// Keeps room for a job of this priority, if there is any.
    pub(super) fn keep(shared: &Arc<Shared>, priority: Priority) -> Option<Self> {
        shared.queue.reserve(priority).then(|| Self { shared: Arc::clone(shared), priority, is_kept: true })
    }

    /// For whom it is kept.
    pub(super) const fn priority(&self) -> Priority {
        self.priority
    }

    /// Gives itself to a job, if it is for one of this priority; answers whether it is.
    pub(super) fn give_to(mut self, priority: Priority) -> bool {
        if self.priority != priority {
            return false;
        }
        self.is_kept = false;
        true
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.is_kept {
            self.shared.queue.release(self.priority);
        }
    }
}
