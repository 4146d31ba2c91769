//! Reset password: a token or code buys a new password.

use super::{PasswordReplaced, Proof, flow};
use crate::reason::reasons;
use crate::secret::Password;

/// Sets a new password by the link or code of a reset message. When the reply comes, the token is used, and the old
/// password, every session, every other reset token, and every address that was asked for and not proven are dead. It
/// opens no session.
#[derive(Clone)]
pub struct ResetPassword {
    /// The link or the code.
    pub proof: Proof,
    /// The password to be.
    pub new: Password,
}

reasons! {
    /// Why a password was not reset.
    ResetPasswordReason {
        InvalidToken = "invalid_token": "the link or code is wrong, used, expired or superseded",
        PasswordTooShort = "password_too_short": "the new password is too short",
        PasswordTooLong = "password_too_long": "the new password is too long",
        PasswordCommon = "password_common": "the new password is a common one",
        PasswordContainsOwnName = "password_contains_own_name": "the new password repeats a name of its owner or a word of the app",
        PasswordBreached = "password_breached": "the password is known from a breach",
    }
}

flow!(ResetPassword, ResetPassword, PasswordReplaced, ResetPasswordReason, |m| m.proof.visible());
