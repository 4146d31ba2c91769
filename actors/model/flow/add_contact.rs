//! Add contact: a user claims a further address.

use serde::{Deserialize, Serialize};

use super::{Authority, flow, name_only_debug};
use crate::contact::Channel;
use crate::id::{ContactId, TokenId, UserId};
use crate::reason::reasons;
use crate::time::Timestamp;

/// Claims a further e-mail address or phone number for a user, and sends the message that proves it.
///
/// When the reply comes, the claim is durable; it is of no use until it is proven.
#[derive(Clone)]
pub struct AddContact {
    /// Whose.
    pub user: UserId,
    /// The address.
    pub address: ContactClaim,
    /// Who permits it.
    pub authority: Authority,
}

/// An address as typed.
#[derive(Clone, PartialEq, Eq)]
pub enum ContactClaim {
    /// An e-mail address.
    Email(String),
    /// A phone number.
    Phone(String),
}

impl ContactClaim {
    /// The channel it belongs to.
    #[must_use]
    pub const fn channel(&self) -> Channel {
        match self {
            Self::Email(_) => Channel::Email,
            Self::Phone(_) => Channel::Phone,
        }
    }

    /// The address as typed.
    #[must_use]
    pub fn typed(&self) -> &str {
        match self {
            Self::Email(typed) | Self::Phone(typed) => typed,
        }
    }
}

name_only_debug! { ContactClaim }

/// An address is claimed, and the message that proves it is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContactClaimed {
    /// The contact.
    pub contact: ContactId,
    /// What the code in the message answers.
    pub challenge: TokenId,
    /// When the link ends.
    pub expires_at: Timestamp,
    /// When the code ends.
    pub code_expires_at: Timestamp,
}

reasons! {
    /// Why an address was not added.
    AddContactReason {
        UserNotFound = "user_not_found": "there is no such user",
        UserInactive = "user_inactive": "the user is disabled",
        NotAuthorised = "not_authorised": "the password is wrong, or the session not recent enough",
        EmailInvalid = "email_invalid": "the e-mail address is not acceptable",
        PhoneInvalid = "phone_invalid": "the phone number is not acceptable",
        IdentifierNotAllowed = "identifier_not_allowed": "this kind of address is not allowed here",
        ContactExists = "contact_exists": "the user has this address already",
        ContactLimitReached = "contact_limit_reached": "the user has as many addresses as are allowed",
        EmailTaken = "email_taken": "the e-mail address is taken (told in open mode only)",
        PhoneTaken = "phone_taken": "the phone number is taken (told in open mode only)",
    }
}

flow!(AddContact, AddContact, ContactClaimed, AddContactReason, |m| (m.user, m.address.channel(), m.address.typed()));
