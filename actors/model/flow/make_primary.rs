//! Make primary: an address becomes the first of its channel.

use super::{Authority, Changed, flow};
use crate::id::{ContactId, UserId};
use crate::reason::reasons;

/// Makes a proven address the one that messages go to.
#[derive(Clone)]
pub struct MakePrimary {
    /// Whose.
    pub user: UserId,
    /// Which.
    pub contact: ContactId,
    /// Who permits it.
    pub authority: Authority,
}

reasons! {
    /// Why an address did not become primary.
    MakePrimaryReason {
        UserNotFound = "user_not_found": "there is no such user",
        UserInactive = "user_inactive": "the user is disabled",
        ContactNotFound = "contact_not_found": "the user has no such contact",
        ContactNotVerified = "contact_not_verified": "the address is not proven",
        NotAuthorised = "not_authorised": "the password is wrong, or the session not recent enough",
        NothingToDo = "nothing_to_do": "the address is primary already",
    }
}

flow!(MakePrimary, MakePrimary, Changed, MakePrimaryReason, |m| (m.user, m.contact));
