//! Undo change: whoever reads the old address takes a change back.

use serde::{Deserialize, Serialize};

use super::{Proof, ResetRequested, flow};
use crate::id::UserId;
use crate::reason::reasons;

/// Takes back a change of how a user is reached or signs in, by the link that the address from before it was sent.
///
/// The user's proven addresses are again what they were before the change, whatever followed it: the old ones are back,
/// those that came since are gone. Every session, reset link, pending address and the password end with it, and so do
/// the links to undo what came later. Who the user is must be shown anew: unless the user is disabled, a message that
/// permits a new password goes to the address whose link it was. No earlier password comes back.
///
/// The link works for `Policy::undo_lifetime`, once; presented again it says so ([`Undone::already`]). A code does not
/// do. Let the page behind the link send this when its visitor confirms (POST), never when it is only opened.
#[derive(Clone)]
pub struct UndoChange {
    /// The link.
    pub proof: Proof,
}

/// A change is undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undone {
    /// Whose it was.
    pub user: UserId,
    /// How many sessions ended with it.
    pub sessions_revoked: u32,
    /// The message that permits a new password, which is on its way; none to a user who is disabled, or if it was
    /// undone before.
    pub reset: Option<ResetRequested>,
    /// Whether it had been undone before by the same link.
    pub already: bool,
}

reasons! {
    /// Why a change was not undone.
    UndoChangeReason {
        InvalidToken = "invalid_token": "the link is wrong, expired, or void because an earlier change was undone",
    }
}

flow!(UndoChange, UndoChange, Undone, UndoChangeReason, |m| m.proof.visible());
