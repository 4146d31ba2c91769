//! The fault: why a flow could not decide, what its end tells of it, and what its caller is told.

use majordomo_model::{Error, Failure, Reason};

use crate::hasher::HashError;
use crate::storage::{CommitError, Unreadable};

/// Why a flow could not decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Storage is out.
    Storage,
    /// Storage or the hasher has no place.
    Overloaded,
    /// The hasher failed.
    Hashing,
    /// The deadline passed.
    Deadline,
    /// The same rows changed again and again.
    Contended,
    /// The system stops.
    Stopped,
    /// Storage died again and again with the batch: whether it is committed is unknown.
    Interrupted,
    /// The command was done by another run in the meantime.
    CommandIdReused,
    /// The operating system gave no randomness.
    Random,
    /// A panic.
    Panicked,
}

impl Fault {
    /// What the signals call it.
    pub(crate) const fn failure(self) -> Failure {
        match self {
            Self::Storage => Failure::RepositoryError,
            Self::Overloaded => Failure::Overloaded,
            Self::Hashing => Failure::PasswordHashingError,
            Self::Deadline => Failure::DeadlineExceeded,
            Self::Contended => Failure::Contended,
            Self::Stopped | Self::Interrupted => Failure::Interrupted,
            Self::CommandIdReused => Failure::CommandIdReused,
            Self::Random | Self::Panicked => Failure::UnexpectedException,
        }
    }

    /// What the caller is told.
    pub(crate) const fn error<R: Reason>(self) -> Error<R> {
        match self {
            Self::Storage => Error::StorageUnavailable,
            Self::Overloaded | Self::Contended => Error::Overloaded,
            Self::Deadline => Error::DeadlineExceeded,
            Self::Stopped => Error::Stopped,
            Self::Interrupted => Error::Interrupted,
            Self::CommandIdReused => Error::CommandIdReused,
            Self::Hashing | Self::Random | Self::Panicked => Error::Unexpected,
        }
    }
}

impl From<Unreadable> for Fault {
    fn from(_: Unreadable) -> Self {
        Self::Storage
    }
}

impl From<CommitError> for Fault {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Unavailable | CommitError::Failed => Self::Storage,
            CommitError::Interrupted => Self::Interrupted,
            CommitError::Overloaded => Self::Overloaded,
            CommitError::Stopped => Self::Stopped,
        }
    }
}

impl From<HashError> for Fault {
    fn from(error: HashError) -> Self {
        match error {
            HashError::Overloaded => Self::Overloaded,
            HashError::DeadlineExceeded => Self::Deadline,
            HashError::Stopped => Self::Stopped,
            _ => Self::Hashing,
        }
    }
}

impl From<getrandom::Error> for Fault {
    fn from(_: getrandom::Error) -> Self {
        Self::Random
    }
}
