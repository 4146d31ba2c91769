//! Confirm phone: a phone number is proven.

use super::{Confirmed, Proof, flow};
use crate::reason::reasons;

/// Proves a phone number by the link or the code of its message. When the reply comes, the address is the user's, and whoever
/// else claimed it can no longer prove it. A used link presented again says so ([`Confirmed::already`]).
#[derive(Clone)]
pub struct ConfirmPhone {
    /// The link or the code.
    pub proof: Proof,
}

reasons! {
    /// Why the phone number was not proven.
    ConfirmPhoneReason {
        InvalidToken = "invalid_token": "the link or code is wrong, used, expired or superseded",
    }
}

flow!(ConfirmPhone, ConfirmPhone, Confirmed, ConfirmPhoneReason, |m| m.proof.visible());
