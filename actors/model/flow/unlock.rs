//! Unlock: a lock on an account is lifted before its time.

use serde::{Deserialize, Serialize};

use super::{Proof, flow};
use crate::id::UserId;
use crate::reason::reasons;

/// Lifts the lock that too many failed logins put on an account, and forgets those failures.
///
/// A password that is reset or changed lifts it as well, and it ends by itself (`Policy::lock_lifetime`).
#[derive(Clone)]
pub enum Unlock {
    /// By the link that the message about the lock encloses. It works once, until the lock ends; presented again it says
    /// so ([`Unlocked::already`]). Let the page behind the link send this when its visitor confirms (POST), never when it
    /// is only opened.
    Link(Proof),
    /// By an operator, who is not asked for a proof.
    Operator(UserId),
}

/// There is no lock any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unlocked {
    /// Whose account it is.
    pub user: UserId,
    /// Whether there was none before.
    pub already: bool,
}

reasons! {
    /// Why a lock was not lifted.
    UnlockReason {
        InvalidToken = "invalid_token": "the link is wrong, expired, or for a lock that is over",
        UserNotFound = "user_not_found": "there is no such user",
    }
}

impl Unlock {
    fn visible(&self) -> String {
        match self {
            Self::Link(proof) => format!("link {}", proof.visible()),
            Self::Operator(user) => format!("operator {user}"),
        }
    }
}

flow!(Unlock, Unlock, Unlocked, UnlockReason, |m| m.visible());
