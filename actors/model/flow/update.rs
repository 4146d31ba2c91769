//! Update: profile, attributes or username change.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Authority, flow};
use crate::id::UserId;
use crate::reason::reasons;

/// Changes the named fields of a user and no other. A change of the username is told to the user's first address.
#[derive(Clone)]
pub struct Update {
    /// Whose.
    pub user: UserId,
    /// The version that the change is based on; refused if the user has changed since. `None`: whatever it is now.
    pub version: Option<u64>,
    /// The username.
    pub username: Change<String>,
    /// The name shown to others.
    pub display_name: Change<String>,
    /// The given name.
    pub given_name: Change<String>,
    /// The family name.
    pub family_name: Change<String>,
    /// The language tag (BCP 47), such as `de-AT`.
    pub locale: Change<String>,
    /// The time zone, such as `Europe/Vienna`.
    pub time_zone: Change<String>,
    /// Free attributes to set, or to clear.
    pub attributes: BTreeMap<String, Change<serde_json::Value>>,
    /// Who permits a change of the username: needed unless an operator or the system asks ([`Actor`](crate::Actor)), and
    /// looked at for nothing else.
    pub authority: Option<Authority>,
}

impl Update {
    /// An update that changes nothing yet, to be completed by struct update syntax.
    #[must_use]
    pub const fn new(user: UserId) -> Self {
        Self {
            user,
            version: None,
            username: Change::Keep,
            display_name: Change::Keep,
            given_name: Change::Keep,
            family_name: Change::Keep,
            locale: Change::Keep,
            time_zone: Change::Keep,
            attributes: BTreeMap::new(),
            authority: None,
        }
    }
}

/// What becomes of a field.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Change<T> {
    /// It stays.
    #[default]
    Keep,
    /// It becomes this.
    Set(T),
    /// It becomes empty.
    Clear,
}

/// A user was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// The user's version after the change.
    pub version: u64,
}

reasons! {
    /// Why a user was not updated.
    UpdateReason {
        UserNotFound = "user_not_found": "there is no such user",
        VersionConflict = "version_conflict": "the user has changed since that version",
        NotAuthorised = "not_authorised": "the username is the user's to change: the password is missing or wrong, or the session not recent enough",
        UsernameInvalid = "username_invalid": "the username is not acceptable",
        UsernameReserved = "username_reserved": "the username, or one that looks the same, is nobody's to take",
        UsernameTaken = "username_taken": "the username, or one that looks the same, is taken",
        UsernameRequired = "username_required": "a username is required",
        IdentifierNotAllowed = "identifier_not_allowed": "usernames are not allowed here",
        ProfileInvalid = "profile_invalid": "a profile field or attribute is not acceptable",
        NothingToDo = "nothing_to_do": "nothing would change",
    }
}

flow!(Update, Update, Changed, UpdateReason, |m| (
    (m.user, m.version, &m.username, &m.display_name, &m.given_name),
    (&m.family_name, &m.locale, &m.time_zone, &m.attributes)
));
