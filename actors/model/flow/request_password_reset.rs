//! Request password reset: a message that permits a new password is asked for.

use serde::{Deserialize, Serialize};

use super::flow;
use crate::contact::Channel;
use crate::id::TokenId;
use crate::reason::reasons;
use crate::time::Timestamp;

/// Asks for a message that permits a new password, to a proven address of the user; earlier ones stop working.
///
/// The answer is the same whether or not there is such a user, and as quick; the signals tell the truth. Nothing about
/// the account changes until the link or code is presented.
#[derive(Clone)]
pub struct RequestPasswordReset {
    /// The username, e-mail address or phone number, as typed.
    pub identifier: String,
    /// Where the message goes: the address itself if one was typed, else the user's primary one of this channel.
    pub channel: Channel,
}

/// A password reset was accepted, if there is anything to reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResetRequested {
    /// What the code in the message answers.
    pub challenge: TokenId,
    /// When the link ends.
    pub expires_at: Timestamp,
    /// When the code ends.
    pub code_expires_at: Timestamp,
}

reasons! {
    /// Why a password reset was not accepted.
    RequestPasswordResetReason {
        IdentifierInvalid = "identifier_invalid": "that is no username, e-mail address or phone number",
    }
}

flow!(RequestPasswordReset, RequestPasswordReset, ResetRequested, RequestPasswordResetReason, |m| (
    &m.identifier,
    m.channel
));
