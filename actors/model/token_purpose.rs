//! What a one-time token is for.

use serde::{Deserialize, Serialize};

/// What a one-time token, or the code that stands for it, lets its bearer do.
///
/// A token opens the door that its purpose names and no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TokenPurpose {
    /// Proves that an e-mail address belongs to the user.
    VerifyEmail,
    /// Proves that a phone number belongs to the user.
    VerifyPhone,
    /// Sets a new password; sent to an e-mail address.
    ResetByEmail,
    /// Sets a new password; sent to a phone number.
    ResetByPhone,
    /// Takes back a change of how the user is reached or signs in; sent to the address from before it.
    UndoChange,
    /// Lifts the lock that too many failed logins put on an account.
    Unlock,
}

impl TokenPurpose {
    /// The stable name, as signals and token derivation carry it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::VerifyEmail => "verify_email",
            Self::VerifyPhone => "verify_phone",
            Self::ResetByEmail => "reset_by_email",
            Self::ResetByPhone => "reset_by_phone",
            Self::UndoChange => "undo_change",
            Self::Unlock => "unlock",
        }
    }

    /// Whether the token sets a new password.
    #[must_use]
    pub const fn is_reset(self) -> bool {
        matches!(self, Self::ResetByEmail | Self::ResetByPhone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_the_serialized_form() {
        use TokenPurpose::{ResetByEmail, ResetByPhone, UndoChange, Unlock, VerifyEmail, VerifyPhone};
        for (purpose, is_reset) in [
            (VerifyEmail, false),
            (VerifyPhone, false),
            (ResetByEmail, true),
            (ResetByPhone, true),
            (UndoChange, false),
            (Unlock, false),
        ] {
            assert_eq!(serde_json::to_value(purpose).unwrap(), purpose.as_str());
            assert_eq!(serde_json::from_value::<TokenPurpose>(purpose.as_str().into()).unwrap(), purpose);
            assert_eq!(purpose.is_reset(), is_reset);
        }
    }
}
