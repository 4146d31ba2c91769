//! Change contact: a user replaces an address, once the new one is proven.

use super::{Authority, ContactClaim, ContactClaimed, flow};
use crate::id::{ContactId, UserId};
use crate::reason::reasons;

/// Replaces an address by another of the same channel. The old one stays in force until the new one is proven; then
/// they change places in one commit, and the old address is told, with a link that takes it back for a while
/// ([`UndoChange`](super::UndoChange)). A new password and a disabling call it off.
#[derive(Clone)]
pub struct ChangeContact {
    /// Whose.
    pub user: UserId,
    /// The contact to be replaced.
    pub contact: ContactId,
    /// The new address.
    pub address: ContactClaim,
    /// Who permits it.
    pub authority: Authority,
}

reasons! {
    /// Why an address is not being replaced.
    ChangeContactReason {
        UserNotFound = "user_not_found": "there is no such user",
        UserInactive = "user_inactive": "the user is disabled",
        ContactNotFound = "contact_not_found": "the user has no such contact in this channel",
        NotAuthorised = "not_authorised": "the password is wrong, or the session not recent enough",
        EmailInvalid = "email_invalid": "the e-mail address is not acceptable",
        PhoneInvalid = "phone_invalid": "the phone number is not acceptable",
        ContactExists = "contact_exists": "the user has this address already",
        ContactLimitReached = "contact_limit_reached": "the user has as many addresses as are allowed",
        EmailTaken = "email_taken": "the e-mail address is taken (told in open mode only)",
        PhoneTaken = "phone_taken": "the phone number is taken (told in open mode only)",
    }
}

flow!(ChangeContact, ChangeContact, ContactClaimed, ChangeContactReason, |m| (
    m.user,
    m.contact,
    m.address.channel(),
    m.address.typed()
));
