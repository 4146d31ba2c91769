//! An entry of the ledger: a signal that is not finished, and how it stands.

use std::sync::Arc;

use majordomo_model::{Envelope, Timestamp};

use super::rest::{Now, Rest};
use crate::storage::{FailureRow, LetterRow, OpenRow, OpenState};

/// A signal that is not finished.
#[derive(Clone, Debug)]
pub(in crate::outbox) struct Entry {
    /// The signal; without one it was pruned before it was handled.
    pub(in crate::outbox) signal: Option<Arc<Envelope>>,
    /// How often it was handed over, the attempt under way included.
    pub(in crate::outbox) attempts: u32,
    /// When it was handed over first.
    pub(in crate::outbox) first_at: Option<Timestamp>,
    /// The last failures, oldest first.
    pub(in crate::outbox) failures: Vec<FailureRow>,
    /// The dead letter that it is, if somebody asked for that to be tried again.
    pub(in crate::outbox) letter: Option<Box<LetterRow>>,
    /// Whether it is a letter that is tried again and holds up what follows it until it is done.
    pub(super) holds: bool,
    /// Whether it was told that the subscriber was started anew for it.
    pub(super) restart_told: bool,
    pub(super) phase: Phase,
    /// To be handed over by itself: it was in a batch that failed.
    pub(super) alone: bool,
    /// To be handed over with nothing else in hand, and not before the store knows: a process ended while it may have
    /// been in hand.
    pub(super) suspect: bool,
    /// Whether it is known that it was in hand, and nothing else, when a process or a thread was given up.
    pub(in crate::outbox) guilty: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Phase {
    Ready,
    Resting(Rest),
    InHand,
    Held,
}

impl Entry {
    /// The row of it.
    pub(super) fn row(&self, seq: u64, now: Now) -> OpenRow {
        let (state, not_before) = match self.phase {
            _ if self.holds => (OpenState::Held, None),
            Phase::Held => (OpenState::Held, None),
            Phase::InHand if self.suspect => (OpenState::InHand, None),
            Phase::Resting(Rest::Until(until)) => (OpenState::Waiting, Some(until)),
            Phase::Resting(Rest::Pause(until)) => {
                (OpenState::Waiting, Some(now.clock.plus(until.saturating_duration_since(now.instant))))
            }
            Phase::Ready | Phase::InHand => (OpenState::Waiting, None),
        };
        let deferred = matches!(self.phase, Phase::Resting(Rest::Until(_)));
        let (attempts, first_at, failures) = (self.attempts, self.first_at, self.failures.clone());
        OpenRow { seq, attempts, first_at, not_before, deferred, state, failures }
    }
}
