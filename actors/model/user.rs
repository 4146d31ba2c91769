//! A user as the app sees one: identity, contacts, profile, state; no secrets.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::{ContactId, SessionId, UserId};
use crate::request::Context;
use crate::time::Timestamp;
use crate::{Channel, Contact, Username};

/// The longest profile field, in bytes.
pub const PROFILE_FIELD_LIMIT: usize = 256;
/// The most that all attributes of a user may take as JSON, in bytes.
pub const ATTRIBUTES_LIMIT: usize = 16 * 1024;
/// How deep an attribute's value may be nested: far below what a stored row can be decoded with.
pub const ATTRIBUTE_DEPTH_LIMIT: usize = 64;
/// The most groups a user may be in.
pub const GROUPS_LIMIT: usize = 64;
/// The longest attribute or group name, in bytes.
pub const NAME_LIMIT: usize = 64;

/// A user at one version.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct User {
    /// The name for life.
    pub id: UserId,
    /// Grows by one with every change; what an optimistic update names.
    pub version: u64,
    /// When the user registered.
    pub created_at: Timestamp,
    /// Whether the user is let in.
    pub status: UserStatus,
    /// The username, if there is one.
    pub username: Option<Username>,
    /// Every address, proven or claimed, in the order they were added.
    pub contacts: Vec<UserContact>,
    /// Names and preferences.
    pub profile: Profile,
    /// The groups the user is in.
    pub groups: BTreeSet<String>,
    /// When the user last signed in.
    pub last_login_at: Option<Timestamp>,
}

impl User {
    /// The proven primary address of a channel.
    #[must_use]
    pub fn primary(&self, channel: Channel) -> Option<&UserContact> {
        self.contacts.iter().find(|contact| contact.primary && contact.address.channel() == channel)
    }

    /// Whether any address is proven.
    #[must_use]
    pub fn is_verified(&self) -> bool {
        self.contacts.iter().any(|contact| contact.proven_at.is_some())
    }
}

/// An address of a user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UserContact {
    /// The name of the contact.
    pub id: ContactId,
    /// The address.
    pub address: Contact,
    /// When it was proven; until then it is a claim, which opens nothing and blocks nobody.
    pub proven_at: Option<Timestamp>,
    /// Whether messages of its channel go here. Only a proven one is primary.
    pub primary: bool,
    /// The contact that it replaces once proven.
    pub replaces: Option<ContactId>,
}

/// Whether a user is let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum UserStatus {
    /// Let in.
    Active,
    /// Shut out, by an operator or the app.
    Disabled,
}

/// Names and preferences of a person, and the app's own attributes. Everything is optional.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Profile {
    /// The name shown to others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// The given name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub given_name: Option<String>,
    /// The family name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub family_name: Option<String>,
    /// The language tag (BCP 47), such as `de-AT`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locale: Option<String>,
    /// The time zone, such as `Europe/Vienna`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// What the app wants to keep beside the user: a name and any JSON value.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, serde_json::Value>,
}

impl Profile {
    /// The names of the fields that are not acceptable: longer than [`PROFILE_FIELD_LIMIT`], with control characters,
    /// an attribute name longer than [`NAME_LIMIT`] or not of letters, digits, `_`, `-`, `.`, a value nested deeper than
    /// [`ATTRIBUTE_DEPTH_LIMIT`], or attributes that take more than [`ATTRIBUTES_LIMIT`] as JSON.
    #[must_use]
    pub fn faults(&self) -> Vec<&'static str> {
        let texts = [
            ("display_name", &self.display_name),
            ("given_name", &self.given_name),
            ("family_name", &self.family_name),
            ("locale", &self.locale),
            ("time_zone", &self.time_zone),
        ];
        let unfit = |text: &Option<String>| text.as_ref().is_some_and(|text| !is_fit_text(text));
        let mut faults: Vec<_> = texts.into_iter().filter(|(_, text)| unfit(text)).map(|(name, _)| name).collect();
        let fit = |(name, value): (&String, _)| is_fit_name(name) && is_within_depth(value, ATTRIBUTE_DEPTH_LIMIT);
        let size = || serde_json::to_vec(&self.attributes).map_or(usize::MAX, |json| json.len());
        if !self.attributes.iter().all(fit) || size() > ATTRIBUTES_LIMIT {
            faults.push("attributes");
        }
        faults
    }
}

/// Shows which fields are there, not what they hold.
impl fmt::Debug for Profile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Profile").field("attributes", &self.attributes.len()).finish_non_exhaustive()
    }
}

fn is_fit_text(text: &str) -> bool {
    text.len() <= PROFILE_FIELD_LIMIT && !text.chars().any(char::is_control)
}

fn is_within_depth(value: &serde_json::Value, limit: usize) -> bool {
    let within = |inner| limit > 0 && is_within_depth(inner, limit.saturating_sub(1));
    match value {
        serde_json::Value::Array(values) => values.iter().all(within),
        serde_json::Value::Object(values) => values.values().all(within),
        _ => true,
    }
}

/// Whether a text may name an attribute or a group: 1 to [`NAME_LIMIT`] bytes of ASCII letters, digits, `_`, `-`, `.`.
#[must_use]
pub fn is_fit_name(name: &str) -> bool {
    let fit = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    (1..=NAME_LIMIT).contains(&name.len()) && name.bytes().all(fit)
}

/// A session as a list shows it; the secret that opens it is not here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Session {
    /// The public name.
    pub id: SessionId,
    /// Whose it is.
    pub user: UserId,
    /// When it was opened.
    pub created_at: Timestamp,
    /// When it was last checked, to the minute or so.
    pub last_seen_at: Timestamp,
    /// When it ends, however much it is used.
    pub expires_at: Timestamp,
    /// The request that opened it.
    pub context: Context,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profile_faults_name_the_fields() {
        let mut profile = Profile { display_name: Some("Ada\nLovelace".into()), ..Profile::default() };
        profile.attributes.insert("no spaces".into(), true.into());
        assert_eq!(profile.faults(), ["display_name", "attributes"]);
        assert_eq!(Profile::default().faults(), Vec::<&str>::new());
    }

    #[test]
    fn attributes_are_bounded_in_depth() {
        let nested = |depth| (0..depth).fold(serde_json::Value::Null, |inner, _| vec![inner].into());
        for (depth, faults) in [(64, [].as_slice()), (65, &["attributes"])] {
            let attributes = BTreeMap::from([("nested".to_owned(), nested(depth))]);
            assert_eq!(Profile { attributes, ..Profile::default() }.faults(), faults, "{depth}");
        }
    }

    #[test]
    fn attributes_are_bounded_as_json() {
        let mut profile = Profile::default();
        profile.attributes.insert("blob".into(), "x".repeat(ATTRIBUTES_LIMIT).into());
        assert_eq!(profile.faults(), ["attributes"]);
    }
}
