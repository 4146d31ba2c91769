//! Import: a user of another system comes with the password hash that is stored there.

use std::collections::BTreeSet;

use super::{flow, name_only_debug};
use crate::reason::reasons;
use crate::secret::PasswordHash;
use crate::user::Profile;
use crate::{Accepted, Channel};

/// Makes a user of somebody who had a password in another system. It is for the operator, not for a form: it answers
/// who is there, whatever the mode of registration.
///
/// The hash is stored as it is and compared with what is typed at the login, as typed; the first login that matches
/// puts a hash of our own in its place. Which identifiers are allowed and required is the same configuration as for a
/// registration. No guard is asked. `docs/IMPORT.md` has the shapes of hashes and their ceilings.
#[derive(Clone)]
pub struct Import {
    /// The username, as typed.
    pub username: Option<String>,
    /// The e-mail address, as typed.
    pub email: Option<ImportedAddress>,
    /// The phone number in E.164, as typed.
    pub phone: Option<ImportedAddress>,
    /// The password hash, in the text that the other system stores.
    pub hash: PasswordHash,
    /// What else is known of the person.
    pub profile: Profile,
    /// The groups that the user is in; `None` for those that new users join. At most 64.
    pub groups: Option<BTreeSet<String>>,
}

/// An address that comes with a user.
#[derive(Clone, PartialEq, Eq)]
pub enum ImportedAddress {
    /// The app vouches that the user has proven it to the other system: it is the user's at once, and no message is sent.
    Proven(String),
    /// A claim as that of a registration: a message that proves it goes out, and the policy's `must_verify` and
    /// `unverified_lifetime` hold for the user if no address is proven.
    Claimed(String),
}

name_only_debug! { ImportedAddress }

impl ImportedAddress {
    /// The address, as typed.
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            Self::Proven(text) | Self::Claimed(text) => text,
        }
    }

    /// Whether the app vouches for it.
    #[must_use]
    pub const fn is_proven(&self) -> bool {
        matches!(self, Self::Proven(_))
    }
}

impl Import {
    /// An import with this hash and nothing else, to be completed by struct update syntax.
    #[must_use]
    pub fn new(hash: impl Into<String>) -> Self {
        let hash = PasswordHash::new(hash);
        Self { username: None, email: None, phone: None, hash, profile: Profile::default(), groups: None }
    }

    /// The address of a channel.
    #[must_use]
    pub const fn address(&self, channel: Channel) -> Option<&ImportedAddress> {
        match channel {
            Channel::Email => self.email.as_ref(),
            Channel::Phone => self.phone.as_ref(),
        }
    }
}

reasons! {
    /// Why an import was refused.
    ImportReason {
        UsernameRequired = "username_required": "a username is required",
        EmailRequired = "email_required": "an e-mail address is required",
        PhoneRequired = "phone_required": "a phone number is required",
        IdentifierRequired = "identifier_required": "a username, an e-mail address or a phone number is required",
        IdentifierNotAllowed = "identifier_not_allowed": "this kind of identifier is not allowed here",
        UsernameInvalid = "username_invalid": "the username is not acceptable",
        UsernameReserved = "username_reserved": "the username, or one that looks the same, is nobody's to take",
        EmailInvalid = "email_invalid": "the e-mail address is not acceptable",
        PhoneInvalid = "phone_invalid": "the phone number is not acceptable",
        HashUnrecognised = "hash_unrecognised": "the hash has no shape that is read",
        HashTooDear = "hash_too_dear": "checking the hash would cost more than is allowed",
        HashNotBuiltIn = "hash_not_built_in": "hashes of that kind need the feature foreign-hashes",
        ProfileInvalid = "profile_invalid": "a profile field or attribute is not acceptable",
        GroupInvalid = "group_invalid": "a group name is not acceptable, or there are too many",
        UsernameTaken = "username_taken": "the username, or one that looks the same, is taken",
        EmailTaken = "email_taken": "the e-mail address is proven by another user, or kept for one",
        PhoneTaken = "phone_taken": "the phone number is proven by another user, or kept for one",
    }
}

flow!(Import, Import, Accepted, ImportReason, |m| (
    &m.username,
    [&m.email, &m.phone].map(|address| address.as_ref().map(|address| (address.text(), address.is_proven()))),
    serde_json::to_string(&m.profile).ok(),
    &m.groups,
));
