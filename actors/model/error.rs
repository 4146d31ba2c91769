//! What a caller gets instead of a reply.

use std::time::Duration;

use crate::denial_code::DenialCode;
use crate::request::Reason;

/// Why a request got no reply: the flow refused it, or the system could not do it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error<R: Reason> {
    /// The flow ran and refused.
    #[error("{0}")]
    Refused(R),
    /// There is no place for the request, or no hashing capacity; nothing was begun. Try again later.
    #[error("the system is overloaded")]
    Overloaded,
    /// Whoever asks has asked, or failed, too often; nothing was begun, and nothing is told of whether it would have succeeded.
    #[error("too many attempts; try again in {} s", retry_after.as_secs().saturating_add(1))]
    Throttled {
        /// How long until the next attempt is admitted, if nobody else uses it up.
        retry_after: Duration,
    },
    /// Storage is out; nothing is known about users until it is back. Nothing was changed.
    #[error("storage is unavailable")]
    StorageUnavailable,
    /// The time the caller gave is over. What was begun may still be done: repeat it under the same command id to learn.
    #[error("the deadline passed before the outcome was known")]
    DeadlineExceeded,
    /// An actor died with the question in its hands. Repeat it under the same command id.
    #[error("the request was interrupted before the outcome was known")]
    Interrupted,
    /// This command id was used before with other content; nothing was done.
    #[error("the command id was used before with other content")]
    CommandIdReused,
    /// The system has been shut down, or is about to be.
    #[error("the account system is stopped")]
    Stopped,
    /// The flow failed inside; its end tells `unexpected_exception`. Nothing was changed.
    #[error("the flow failed unexpectedly")]
    Unexpected,
    /// A guard of the app denied it, with a code of its own. Nothing was changed; asked again, it is judged again.
    #[error("a guard denied it: {0}")]
    Denied(DenialCode),
    /// A guard that must be heard gave no ruling. Nothing was changed. Try again later.
    #[error("a guard that must be heard gave no ruling")]
    GuardUnavailable,
    /// A guard asked the system in turn while it was being asked: refused at once, since it could wait for itself.
    #[error("a guard may not ask the system in turn")]
    CalledFromGuard,
}

impl<R: Reason> Error<R> {
    /// The stable snake_case name; a refusal shows the name of its reason.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Refused(reason) => reason.as_str(),
            Self::Overloaded => "overloaded",
            Self::Throttled { .. } => "throttled",
            Self::StorageUnavailable => "storage_unavailable",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::Interrupted => "interrupted",
            Self::CommandIdReused => "command_id_reused",
            Self::Stopped => "stopped",
            Self::Unexpected => "unexpected_exception",
            Self::Denied(_) => "denied",
            Self::GuardUnavailable => "guard_unavailable",
            Self::CalledFromGuard => "called_from_guard",
        }
    }

    /// Whether the same command, under the same id, may well succeed later.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Overloaded
                | Self::Throttled { .. }
                | Self::StorageUnavailable
                | Self::DeadlineExceeded
                | Self::Interrupted
                | Self::GuardUnavailable
        )
    }

    /// How long to wait before another attempt is admitted, if it was refused because there were too many. Of use in a
    /// `Retry-After` header (RFC 9110, 10.2.3), rounded up to seconds.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Throttled { retry_after } => Some(*retry_after),
            _ => None,
        }
    }

    /// Whether the outcome is unknown: the change may have been made. Repeating under the same command id tells.
    #[must_use]
    pub const fn is_unknown(&self) -> bool {
        matches!(self, Self::DeadlineExceeded | Self::Interrupted)
    }

    /// The flow's own reason, if the flow refused.
    #[must_use]
    pub const fn reason(&self) -> Option<&R> {
        match self {
            Self::Refused(reason) => Some(reason),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DisableReason;

    #[test]
    fn each_error_tells_what_to_do_about_it() {
        type Failed = Error<DisableReason>;
        // The name, whether it may succeed later, whether it may have been done.
        let table: [(Failed, &str, bool, bool); 11] = [
            (Error::Refused(DisableReason::NothingToDo), "nothing_to_do", false, false),
            (Error::Overloaded, "overloaded", true, false),
            (Error::StorageUnavailable, "storage_unavailable", true, false),
            (Error::DeadlineExceeded, "deadline_exceeded", true, true),
            (Error::Interrupted, "interrupted", true, true),
            (Error::CommandIdReused, "command_id_reused", false, false),
            (Error::Stopped, "stopped", false, false),
            (Error::Unexpected, "unexpected_exception", false, false),
            (Error::Denied(DenialCode::fitted("invite_required")), "denied", false, false),
            (Error::GuardUnavailable, "guard_unavailable", true, false),
            (Error::CalledFromGuard, "called_from_guard", false, false),
        ];
        for (error, word, transient, unknown) in table {
            assert_eq!((error.as_str(), error.is_transient(), error.is_unknown()), (word, transient, unknown));
            assert_eq!(error.reason().is_some(), matches!(error, Error::Refused(_)));
        }
        let refused: Failed = Error::Refused(DisableReason::UserNotFound);
        assert_eq!(refused.to_string(), "there is no such user");
        let denied: Failed = Error::Denied(DenialCode::fitted("invite_required"));
        assert_eq!(denied.to_string(), "a guard denied it: invite_required");
    }
}
