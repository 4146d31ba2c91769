//! An identifier: what a person types to say who they are.

use serde::{Deserialize, Serialize};

use crate::phone::is_phone_separator;
use crate::{Contact, Email, InvalidIdentifier, Phone, Username};

/// Which of the three an identifier is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum IdentifierKind {
    /// A username.
    Username,
    /// An e-mail address.
    Email,
    /// A phone number.
    Phone,
}

impl IdentifierKind {
    /// The kind as a stable word, the same as its serialised form.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Username => "username",
            Self::Email => "email",
            Self::Phone => "phone",
        }
    }
}

/// A username, an e-mail address or a phone number.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Identifier {
    /// A username.
    Username(Username),
    /// An e-mail address.
    Email(Email),
    /// A phone number.
    Phone(Phone),
}

impl Identifier {
    /// Tells from its shape which kind the input is, and parses it as that: with `@` it is an e-mail address; with `+` at its
    /// start, or made of digits and phone punctuation only, a phone number; otherwise a username. No username has the shape of
    /// another kind.
    ///
    /// # Errors
    ///
    /// What the parser of that kind answers, and [`Empty`](InvalidIdentifier::Empty).
    pub fn guess(input: &str) -> Result<Self, InvalidIdentifier> {
        let phone_like = |character: char| character.is_ascii_digit() || is_phone_separator(character);
        if input.is_empty() {
            Err(InvalidIdentifier::Empty)
        } else if input.contains('@') {
            Email::parse(input).map(Self::Email)
        } else if input.starts_with('+') || input.chars().all(phone_like) {
            Phone::parse(input).map(Self::Phone)
        } else {
            Username::parse(input).map(Self::Username)
        }
    }

    /// Which of the three this is.
    #[must_use]
    pub const fn kind(&self) -> IdentifierKind {
        match self {
            Self::Username(_) => IdentifierKind::Username,
            Self::Email(_) => IdentifierKind::Email,
            Self::Phone(_) => IdentifierKind::Phone,
        }
    }

    /// The form that is compared and looked up; no two kinds share one.
    #[must_use]
    pub fn canonical(&self) -> &str {
        match self {
            Self::Username(username) => username.canonical(),
            Self::Email(email) => email.canonical(),
            Self::Phone(phone) => phone.canonical(),
        }
    }

    /// The identifier with most of it left out: for logs.
    #[must_use]
    pub fn redacted(&self) -> String {
        match self {
            Self::Username(username) => username.redacted(),
            Self::Email(email) => email.redacted(),
            Self::Phone(phone) => phone.redacted(),
        }
    }
}

impl From<Username> for Identifier {
    fn from(username: Username) -> Self {
        Self::Username(username)
    }
}

impl From<Email> for Identifier {
    fn from(email: Email) -> Self {
        Self::Email(email)
    }
}

impl From<Phone> for Identifier {
    fn from(phone: Phone) -> Self {
        Self::Phone(phone)
    }
}

impl From<Contact> for Identifier {
    fn from(contact: Contact) -> Self {
        match contact {
            Contact::Email(email) => Self::Email(email),
            Contact::Phone(phone) => Self::Phone(phone),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn assert_stable(identifier: &Identifier) {
        let again = Identifier::guess(identifier.canonical()).unwrap();
        assert_eq!(again.kind(), identifier.kind());
        assert_eq!(again.canonical(), identifier.canonical());
    }

    #[test]
    fn shape_tells_the_kind() {
        for (input, kind, canonical) in [
            ("Alice", IdentifierKind::Username, "alice"),
            ("1alice", IdentifierKind::Username, "1alice"),
            ("Alice@Example.org", IdentifierKind::Email, "alice@example.org"),
            ("+44 7911 123456", IdentifierKind::Phone, "+447911123456"),
        ] {
            let identifier = Identifier::guess(input).unwrap();
            assert_eq!((identifier.kind(), identifier.canonical()), (kind, canonical));
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        }
        for (input, reason) in [
            ("", InvalidIdentifier::Empty),
            ("@", InvalidIdentifier::InvalidLocalPart),
            ("07911 123456", InvalidIdentifier::NotE164),
            ("+alice", InvalidIdentifier::DisallowedCharacter),
        ] {
            assert_eq!(Identifier::guess(input).unwrap_err(), reason, "{input:?}");
        }
    }

    #[test]
    fn naughty_strings_are_stable_or_refused() {
        naughty_strings::BLNS.iter().filter_map(|input| Identifier::guess(input).ok()).for_each(|identifier| {
            assert_stable(&identifier);
        });
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn every_accepted_text_has_one_kind(input in prop_oneof!["\\PC{1,12}", "[0-9+@＠＋.()a-]{1,14}"]) {
            if let Ok(identifier) = Identifier::guess(&input) {
                assert_stable(&identifier);
            }
            if Username::parse(&input).is_ok() {
                prop_assert!(Email::parse(&input).is_err() && Phone::parse(&input).is_err());
            }
        }
    }
}
