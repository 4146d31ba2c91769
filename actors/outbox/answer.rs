//! What operating subscriptions answers: dead letters, moves, rebuilds, subscriptions without a subscriber, refusals.

use majordomo_model::{Envelope, Timestamp};
use serde::Serialize;

use crate::storage::{CommitError, LetterState};

/// A signal that a subscription gave up.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DeadLetter {
    /// The signal's place in the log, which is the letter's name within its subscription.
    pub place: u64,
    /// The signal, kept with the letter when the log has forgotten it; personal data opened where its user lives.
    pub envelope: Envelope,
    /// Why it was given up.
    pub reason: String,
    /// How often it was handed over, over its whole life.
    pub attempts: u32,
    /// The last failed attempts, oldest first.
    pub failures: Vec<FailedAttempt>,
    /// When it was given up.
    pub dead_at: Timestamp,
    /// How it stands.
    pub state: LetterState,
}

/// One failed attempt at a signal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FailedAttempt {
    /// When.
    pub at: Timestamp,
    /// What went wrong, as the handler said it, cut to 200 bytes.
    pub failure: String,
}

/// Where a subscription was, and where it is now: each the first place that was not finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Moved {
    /// Where it was.
    pub from: u64,
    /// Where it is.
    pub to: u64,
}

/// What a rebuild of a projection goes through. Both ends belong to it; there is nothing to go through where `to` lies
/// before `from`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct RebuildStarted {
    /// The first place: the oldest that is kept.
    pub from: u64,
    /// The last place: the last that was finished before the rebuild.
    pub to: u64,
    /// Whether the log still holds every signal there ever was. If not, values that came from signals that are pruned
    /// are missing once the rebuild is done.
    pub complete: bool,
}

/// A subscription that the store knows and that has no subscriber in this process: its cursor waits, its letters stay,
/// and it keeps the log from being pruned until it lapses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UnattachedSubscription {
    /// Its name.
    pub name: String,
    /// Every signal up to and with this place is finished.
    pub floor: u64,
    /// How many places lie between that and the log's last signal, those it did not ask for included.
    pub lag: u64,
    /// How many dead letters it has.
    pub dead_letters: u64,
    /// Since when it no longer keeps the log from being pruned.
    pub lapsed_at: Option<Timestamp>,
}

/// Why an operation on a subscription was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum OperationError {
    /// No subscription of that name is attached, and the store knows none.
    #[error("there is no such subscription")]
    UnknownSubscription,
    /// The subscription is attached and has no cursor yet: it has just been added, or the store was out.
    #[error("the subscription has not been started yet")]
    NotStarted,
    /// The subscription has no dead letter of that place.
    #[error("there is no such dead letter")]
    NoSuchLetter,
    /// The dead letter is to be tried again already, or is being tried.
    #[error("the dead letter is to be tried again already")]
    AlreadyDue,
    /// The subscription has a subscriber in this process.
    #[error("the subscription is still attached")]
    StillAttached,
    /// The subscription's projection is a record in its own right, such as the trail of the auditor: a rebuild would put
    /// what the log still holds in its place, and forgetting it would lose it.
    #[error("the subscription's projection is kept: it is neither rebuilt nor forgotten")]
    ProjectionKept,
    /// The subscription's projection is being rebuilt, which a move would leave with holes.
    #[error("the subscription's projection is being rebuilt")]
    Rebuilding,
    /// Storage is out. What an operation on many rows has done so far stays done; repeat it for the rest.
    #[error("storage is unavailable")]
    StorageUnavailable,
    /// The writer's queue is full.
    #[error("the system is overloaded")]
    Overloaded,
    /// The storage actor died with the question in its hands, and whether it was done is not known. Every operation can
    /// be repeated.
    #[error("the operation was interrupted before its outcome was known")]
    Interrupted,
    /// The change itself could not be written, which is a defect; the log of the process tells more.
    #[error("the operation failed unexpectedly")]
    Unexpected,
    /// The system has been shut down.
    #[error("the account system is stopped")]
    Stopped,
}

impl OperationError {
    /// The stable snake_case name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UnknownSubscription => "unknown_subscription",
            Self::NotStarted => "not_started",
            Self::NoSuchLetter => "no_such_letter",
            Self::AlreadyDue => "already_due",
            Self::StillAttached => "still_attached",
            Self::ProjectionKept => "projection_kept",
            Self::Rebuilding => "rebuilding",
            Self::StorageUnavailable => "storage_unavailable",
            Self::Overloaded => "overloaded",
            Self::Interrupted => "interrupted",
            Self::Unexpected => "unexpected_exception",
            Self::Stopped => "stopped",
        }
    }

    /// Whether the same operation may well succeed later without anybody doing anything else.
    #[must_use]
    pub const fn is_transient(self) -> bool {
        matches!(
            self,
            Self::NotStarted | Self::Rebuilding | Self::StorageUnavailable | Self::Overloaded | Self::Interrupted
        )
    }
}

impl From<CommitError> for OperationError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Unavailable => Self::StorageUnavailable,
            CommitError::Overloaded => Self::Overloaded,
            CommitError::Failed => Self::Unexpected,
            CommitError::Interrupted => Self::Interrupted,
            CommitError::Stopped => Self::Stopped,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_refusal_has_a_name_of_its_own_and_tells_whether_to_wait() {
        use OperationError::*;
        let lasting =
            [UnknownSubscription, NoSuchLetter, AlreadyDue, StillAttached, ProjectionKept, Unexpected, Stopped];
        let transient = [NotStarted, Rebuilding, StorageUnavailable, Overloaded, Interrupted];
        assert!(transient.iter().all(|error| error.is_transient()));
        assert!(!lasting.iter().any(|error| error.is_transient()));
        let all: Vec<_> = lasting.iter().chain(&transient).collect();
        let names: BTreeSet<_> = all.iter().map(|error| error.as_str()).collect();
        assert_eq!(names.len(), all.len());
    }
}
