//! Disable: a user is shut out.

use super::{Changed, flow};
use crate::id::UserId;
use crate::reason::reasons;

/// Shuts a user out. When the reply comes, sessions and reset tokens are dead, as are addresses that were asked for and
/// not proven (as with a changed password), and no password opens the account.
#[derive(Clone)]
pub struct Disable {
    /// Who.
    pub user: UserId,
}

reasons! {
    /// Why a user was not disabled.
    DisableReason {
        UserNotFound = "user_not_found": "there is no such user",
        NothingToDo = "nothing_to_do": "it is so already",
    }
}

flow!(Disable, Disable, Changed, DisableReason, |m| m.user);
