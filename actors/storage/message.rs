//! Messages that were asked for: what is remembered of them, so that they are not asked for without end.

use majordomo_model::{Timestamp, TokenId};
use serde::{Deserialize, Serialize};

/// What is remembered of messages, under a keyed hash: of what was typed, or of the address that they go to. Nothing
/// in it tells whether that names anybody.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessagesRow {
    /// What the last request was answered.
    #[serde(default)]
    pub answered: Option<Answered>,
    /// When messages were started, oldest first: the latest ones, as many as count.
    #[serde(default)]
    pub started: Vec<Timestamp>,
    /// When the row goes.
    pub expires_at: Timestamp,
}

/// What a request for a message was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered {
    /// When.
    pub at: Timestamp,
    /// The token of the message, somebody's or nobody's.
    pub challenge: TokenId,
    /// When its link ends.
    pub expires_at: Timestamp,
    /// When its code ends.
    pub code_expires_at: Timestamp,
}
