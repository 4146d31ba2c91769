//! Request email verification: a message that proves an e-mail address is asked for, again.

use serde::{Deserialize, Serialize};

use super::flow;
use crate::id::{ContactId, TokenId, UserId};
use crate::reason::reasons;
use crate::time::Timestamp;

/// Asks for a fresh message that proves an e-mail address; earlier ones for the same address stop working.
///
/// The answer is the same whether or not there is anything to send; the signals tell the truth.
#[derive(Clone)]
pub struct RequestEmailVerification {
    /// Whose address.
    pub claimant: Claimant,
}

/// Whose address is to be verified.
#[derive(Clone, PartialEq, Eq)]
pub enum Claimant {
    /// The address that somebody typed: of its owner, or, as long as nobody has proven it, of the user who registered
    /// last among those who claim it. Any number of users may claim an address; whoever it is that asks, the message
    /// goes to the address itself, and an older claimant is served by [`Claimant::User`].
    Address(String),
    /// A user's contact; the first unproven one of the channel if `contact` is `None`.
    User {
        /// The user.
        user: UserId,
        /// The contact.
        contact: Option<ContactId>,
    },
}

/// A verification message was accepted for sending, if there is anything to verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerificationRequested {
    /// What the code in the message answers.
    pub challenge: TokenId,
    /// When the link ends.
    pub expires_at: Timestamp,
    /// When the code ends.
    pub code_expires_at: Timestamp,
}

reasons! {
    /// Why a verification message was not accepted for sending.
    RequestEmailVerificationReason {
        EmailInvalid = "email_invalid": "the e-mail address is not acceptable",
    }
}

flow!(RequestEmailVerification, RequestEmailVerification, VerificationRequested, RequestEmailVerificationReason, |m| m
    .claimant
    .visible());

impl Claimant {
    /// What tells one claimant from another.
    pub(crate) fn visible(&self) -> String {
        match self {
            Self::Address(address) => format!("address {address:?}"),
            Self::User { user, contact } => format!("user {user} {contact:?}"),
        }
    }
}

super::name_only_debug! { Claimant }
