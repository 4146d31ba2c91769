//! Delete: a user and what belongs to them is removed.

use serde::{Deserialize, Serialize};

use super::flow;
use crate::id::UserId;
use crate::reason::{DeletionCause, reasons};

/// Removes a user, with credential, indexes, tokens and sessions, and destroys the key that their signals are sealed
/// with. When the reply comes, username and addresses are free.
#[derive(Clone)]
pub struct Delete {
    /// Who.
    pub user: UserId,
    /// Why; part of the signal.
    pub cause: DeletionCause,
}

impl Delete {
    /// A deletion that somebody asked for.
    #[must_use]
    pub const fn new(user: UserId) -> Self {
        Self { user, cause: DeletionCause::Requested }
    }
}

/// A user was deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deleted {
    /// How many sessions ended with it.
    pub sessions_revoked: u32,
}

reasons! {
    /// Why a user was not deleted.
    DeleteReason {
        UserNotFound = "user_not_found": "there is no such user",
        NothingToDo = "nothing_to_do": "the user verified an address in the meantime (only for the cause never_verified)",
    }
}

flow!(Delete, Delete, Deleted, DeleteReason, |m| (m.user, m.cause));
