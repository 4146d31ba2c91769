//! Remove contact: a user gives up an address.

use super::{Authority, Changed, flow};
use crate::id::{ContactId, UserId};
use crate::reason::reasons;

/// Removes an address of a user. When the reply comes, its tokens are dead. One that was proven is told of it, with a link
/// that takes it back ([`UndoChange`](super::UndoChange)), and free for others once that ends; one that was not is free at
/// once.
#[derive(Clone)]
pub struct RemoveContact {
    /// Whose.
    pub user: UserId,
    /// Which.
    pub contact: ContactId,
    /// Who permits it.
    pub authority: Authority,
}

reasons! {
    /// Why an address was not removed.
    RemoveContactReason {
        UserNotFound = "user_not_found": "there is no such user",
        UserInactive = "user_inactive": "the user is disabled",
        ContactNotFound = "contact_not_found": "the user has no such contact",
        NotAuthorised = "not_authorised": "the password is wrong, or the session not recent enough",
        LastIdentifier = "last_identifier": "the user could not sign in, or is required to have it",
    }
}

flow!(RemoveContact, RemoveContact, Changed, RemoveContactReason, |m| (m.user, m.contact));
