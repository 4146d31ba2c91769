//! The commit: what became of it, and who is told of its signals.

use std::sync::Arc;

use majordomo_model::Envelope;

use crate::address::AskError;

/// Why a batch was not committed, or is not known to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitError {
    /// The store is out; nothing was written.
    Unavailable,
    /// The writer's queue is full; nothing was written.
    Overloaded,
    /// The batch itself cannot be written.
    Failed,
    /// The storage actor died again and again with it, or the system stopped before a store that had failed was back:
    /// whether it was written is not known.
    Interrupted,
    /// The system is stopped.
    Stopped,
}

impl From<AskError> for CommitError {
    fn from(error: AskError) -> Self {
        match error {
            AskError::Overloaded => Self::Overloaded,
            AskError::Stopped => Self::Stopped,
            _ => Self::Interrupted,
        }
    }
}

/// What happens with the signals of a commit, called in the order of commits. Must be quick.
pub type CommitHook = Arc<dyn Fn(&Committed<'_>) + Send + Sync>;

/// Signals that were committed, with their places; never none.
#[derive(Debug)]
pub struct Committed<'a>(pub(super) &'a [(u64, &'a Envelope)]);

impl Committed<'_> {
    /// A copy of each, in the order of their places, for whoever listens; often nobody does.
    #[must_use]
    pub fn envelopes(&self) -> Vec<Arc<Envelope>> {
        let placed = |(seq, envelope): &(u64, &Envelope)| Arc::new(Envelope { seq: Some(*seq), ..(*envelope).clone() });
        self.0.iter().map(placed).collect()
    }
}
