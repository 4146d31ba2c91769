//! Enable: a user is let in again.

use super::{Changed, flow};
use crate::id::UserId;
use crate::reason::reasons;

/// Lets a disabled user in again, by the same password. What a disable killed stays dead.
#[derive(Clone)]
pub struct Enable {
    /// Who.
    pub user: UserId,
}

reasons! {
    /// Why a user was not enabled.
    EnableReason {
        UserNotFound = "user_not_found": "there is no such user",
        NothingToDo = "nothing_to_do": "it is so already",
    }
}

flow!(Enable, Enable, Changed, EnableReason, |m| m.user);
