//! Confirm email: an e-mail address is proven.

use serde::{Deserialize, Serialize};

use super::{Proof, flow};
use crate::id::{ContactId, UserId};
use crate::reason::reasons;

/// Proves an e-mail address by the link or the code of its message. When the reply comes, the address is the user's, and whoever
/// else claimed it can no longer prove it. A used link presented again says so ([`Confirmed::already`]).
#[derive(Clone)]
pub struct ConfirmEmail {
    /// The link or the code.
    pub proof: Proof,
}

/// An address is proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmed {
    /// Whose it is.
    pub user: UserId,
    /// Which contact of the user it is.
    pub contact: ContactId,
    /// Whether it had been proven before by the same link.
    pub already: bool,
}

reasons! {
    /// Why the e-mail address was not proven.
    ConfirmEmailReason {
        InvalidToken = "invalid_token": "the link or code is wrong, used, expired or superseded",
    }
}

flow!(ConfirmEmail, ConfirmEmail, Confirmed, ConfirmEmailReason, |m| m.proof.visible());
