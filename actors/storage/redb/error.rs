//! What can go wrong in the byte store, behind one type with questions to ask it.

use std::fmt;
use std::io;

/// A fault of the byte store.
///
/// A caller asks what it must do (`needs_reopen`, `is_full`, ...) and never which variant of which library it was.
#[derive(Debug)]
pub(crate) struct EngineError {
    cause: Cause,
    outcome_unknown: bool,
}

#[derive(Debug, thiserror::Error)]
enum Cause {
    #[error("the storage device failed ({})", .0.kind())]
    Io(#[source] io::Error),
    #[error("the store is shut after an earlier fault of the storage device, until it is reopened")]
    EarlierIo,
    #[error("the store is corrupt: {0}")]
    Corrupt(String),
    #[error("the store is open already, here or in another process")]
    AlreadyOpen,
    #[error("the file is no majordomo store")]
    NotADatabase(#[source] io::Error),
    #[error("the store has a file format that this version cannot read: {0}")]
    UnsupportedFormat(String),
    #[error("the store is closed")]
    Closed,
    #[error("a lock inside the store was poisoned by a panic")]
    LockPoisoned,
    #[error("the transaction was left half done and is rolled back")]
    TransactionPoisoned,
    #[error("a value of {0} bytes is too large to be stored")]
    ValueTooLarge(usize),
    #[error("the file to be written exists already")]
    TargetExists,
    #[error("storage is unavailable while it is being reopened")]
    Unavailable,
    #[error("the store refused the operation")]
    Other(#[source] Box<redb::Error>),
}

impl EngineError {
    /// The file at a backup's target exists.
    pub(super) fn target_exists() -> Self {
        Cause::TargetExists.into()
    }

    /// The file is in the right format, and another application's.
    pub(super) fn foreign() -> Self {
        Cause::NotADatabase(io::Error::new(io::ErrorKind::InvalidData, "its tables are those of another application"))
            .into()
    }

    /// The store was taken away from its readers.
    pub(crate) fn unavailable() -> Self {
        Cause::Unavailable.into()
    }

    /// The content contradicts itself, in the words of `finding`.
    pub(super) fn corrupt(finding: impl Into<String>) -> Self {
        Cause::Corrupt(finding.into()).into()
    }

    /// Any error of the engine below.
    pub(super) fn from_redb(error: impl Into<redb::Error>) -> Self {
        let cause = match error.into() {
            redb::Error::Io(error) => Cause::Io(error),
            redb::Error::PreviousIo => Cause::EarlierIo,
            redb::Error::Corrupted(finding) => Cause::Corrupt(finding),
            redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => Cause::AlreadyOpen,
            redb::Error::UpgradeRequired(version) => Cause::UnsupportedFormat(format!("version {version} is too old")),
            redb::Error::DatabaseClosed => Cause::Closed,
            redb::Error::LockPoisoned(_) => Cause::LockPoisoned,
            redb::Error::TransactionPoisoned => Cause::TransactionPoisoned,
            redb::Error::ValueTooLarge(length) => Cause::ValueTooLarge(length),
            other => Cause::Other(Box::new(other)),
        };
        cause.into()
    }

    /// An error while opening, where the engine speaks of foreign and newer files in general terms.
    pub(super) fn from_opening(error: impl Into<redb::Error>) -> Self {
        match error.into() {
            redb::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => Cause::NotADatabase(error).into(),
            redb::Error::Corrupted(finding) if finding.starts_with("Expected file format version") => {
                Cause::UnsupportedFormat(finding).into()
            }
            other => Self::from_redb(other),
        }
    }

    /// An error of the final commit, after which the transaction may be in the store or not.
    pub(super) fn from_commit(error: redb::CommitError) -> Self {
        let error = Self::from_redb(error);
        let outcome_unknown = !matches!(error.cause, Cause::TransactionPoisoned);
        Self { outcome_unknown, ..error }
    }

    /// The content contradicts itself and could not be repaired.
    pub(crate) fn is_corruption(&self) -> bool {
        matches!(self.cause, Cause::Corrupt(_))
    }

    /// Somebody has the store open: another process, or a handle of this one that still lives.
    pub(crate) fn is_already_open(&self) -> bool {
        matches!(self.cause, Cause::AlreadyOpen)
    }

    /// The file holds something else.
    pub(crate) fn is_not_a_database(&self) -> bool {
        matches!(self.cause, Cause::NotADatabase(_))
    }

    /// The file was written by a version too new or too old for this one.
    pub(crate) fn is_unsupported_format(&self) -> bool {
        matches!(self.cause, Cause::UnsupportedFormat(_))
    }

    /// The store is revoked; asking again later may succeed.
    pub(crate) fn is_unavailable(&self) -> bool {
        matches!(self.cause, Cause::Unavailable)
    }

    /// The commit itself failed, so only reopening and looking tells whether the transaction is there.
    pub(crate) fn is_outcome_unknown(&self) -> bool {
        self.outcome_unknown
    }

    /// This open store answers nothing useful any more: close it, then open it again.
    pub(crate) fn needs_reopen(&self) -> bool {
        match self.cause {
            Cause::Io(_)
            | Cause::EarlierIo
            | Cause::Corrupt(_)
            | Cause::Closed
            | Cause::LockPoisoned
            | Cause::TransactionPoisoned => true,
            Cause::AlreadyOpen
            | Cause::NotADatabase(_)
            | Cause::UnsupportedFormat(_)
            | Cause::ValueTooLarge(_)
            | Cause::TargetExists
            | Cause::Unavailable
            | Cause::Other(_) => false,
        }
    }
}

/// What only tests ask.
#[cfg(test)]
impl EngineError {
    /// The device failed, now or earlier.
    pub(crate) fn is_io(&self) -> bool {
        matches!(self.cause, Cause::Io(_) | Cause::EarlierIo)
    }

    /// The device has no room left. Only the first error after it says so; later ones are an earlier fault.
    pub(crate) fn is_full(&self) -> bool {
        let Cause::Io(error) = &self.cause else { return false };
        matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }

    /// A file stands where a new one was to be made.
    pub(crate) fn is_target_exists(&self) -> bool {
        matches!(self.cause, Cause::TargetExists)
    }
}

impl From<Cause> for EngineError {
    fn from(cause: Cause) -> Self {
        Self { cause, outcome_unknown: false }
    }
}

impl From<io::Error> for EngineError {
    fn from(error: io::Error) -> Self {
        Cause::Io(error).into()
    }
}

impl fmt::Display for EngineError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.cause, formatter)?;
        if self.outcome_unknown { formatter.write_str("; whether the commit took place is unknown") } else { Ok(()) }
    }
}

impl std::error::Error for EngineError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause.source()
    }
}

/// Why a write transaction was not acknowledged.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommitError<E> {
    /// The closure answered this error; the transaction left no trace.
    #[error("the transaction was aborted")]
    Aborted(E),
    /// The store failed. Where [`EngineError::is_outcome_unknown`] holds, the transaction may be there after reopening;
    /// otherwise it left no trace.
    #[error(transparent)]
    Failed(EngineError),
}

impl<E> From<EngineError> for CommitError<E> {
    fn from(error: EngineError) -> Self {
        Self::Failed(error)
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;

    #[test]
    fn an_error_tells_its_cause_in_words_and_in_its_source() {
        let error = EngineError::from(io::Error::new(io::ErrorKind::StorageFull, "no room for 4096 bytes"));
        assert!(error.is_full() && error.is_io() && error.needs_reopen() && !error.is_outcome_unknown());
        assert_eq!(error.to_string(), "the storage device failed (no storage space)");
        assert_eq!(error.source().unwrap().to_string(), "no room for 4096 bytes");
    }

    #[test]
    fn only_a_failed_commit_leaves_the_outcome_unknown() {
        let failed = EngineError::from_commit(redb::StorageError::PreviousIo.into());
        assert!(failed.is_outcome_unknown() && failed.to_string().ends_with("is unknown"));
        let rolled_back = EngineError::from_commit(redb::CommitError::TransactionPoisoned);
        assert!(!rolled_back.is_outcome_unknown() && rolled_back.needs_reopen());
    }
}
