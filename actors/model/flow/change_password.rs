//! Change password: a new password, the old one being known.

use serde::{Deserialize, Serialize};

use super::flow;
use crate::id::{SessionId, UserId};
use crate::reason::reasons;
use crate::secret::Password;

/// Replaces a password. When the reply comes, the old password, every reset token and every session but `keep` are dead,
/// and so is every address that was asked for and not proven, unless it is what the user registered with and none is
/// proven.
#[derive(Clone)]
pub struct ChangePassword {
    /// Whose.
    pub user: UserId,
    /// The password in force.
    pub current: Password,
    /// The password to be.
    pub new: Password,
    /// The session to keep, usually the one the user acts in.
    pub keep: Option<SessionId>,
}

/// A password was replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PasswordReplaced {
    /// Whose.
    pub user: UserId,
    /// How many sessions ended with the old one.
    pub sessions_revoked: u32,
}

reasons! {
    /// Why a password was not changed.
    ChangePasswordReason {
        UserNotFound = "user_not_found": "there is no such user",
        UserInactive = "user_inactive": "the user is disabled",
        IncorrectPassword = "incorrect_password": "the current password is wrong",
        PasswordTooShort = "password_too_short": "the new password is too short",
        PasswordTooLong = "password_too_long": "the new password is too long",
        PasswordCommon = "password_common": "the new password is a common one",
        PasswordContainsOwnName = "password_contains_own_name": "the new password repeats a name of its owner or a word of the app",
        PasswordBreached = "password_breached": "the password is known from a breach",
    }
}

flow!(ChangePassword, ChangePassword, PasswordReplaced, ChangePasswordReason, |m| (m.user, m.keep));
