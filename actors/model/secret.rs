//! Secrets that people and apps hand in: readable on purpose only, wiped when dropped.

use std::fmt;

use secrecy::zeroize::Zeroize;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer};

/// Moves the text into a secret and wipes what it leaves behind: shrinking a `String` would copy it and free the rest as is.
pub(crate) fn wiped_into_secret(mut text: String) -> SecretString {
    if text.len() == text.capacity() {
        return SecretString::from(text);
    }
    let secret = SecretString::from(text.as_str());
    text.zeroize();
    secret
}

macro_rules! secrets {
    ($($(#[$doc:meta])* $name:ident = $prepare:expr;)*) => {$(
        $(#[$doc])*
        ///
        /// It prints as `[REDACTED]`, is never serialised, offers no comparison, and is wiped from memory when dropped.
        #[derive(Clone)]
        pub struct $name(SecretString);

        impl $name {
            /// Takes charge of the secret.
            #[must_use]
            pub fn new(text: impl Into<String>) -> Self {
                let prepare: fn(String) -> String = $prepare;
                Self(wiped_into_secret(prepare(text.into())))
            }

            /// The secret in clear. Keep it no longer than the call that needs it.
            #[must_use]
            pub fn expose(&self) -> &str {
                self.0.expose_secret()
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(concat!(stringify!($name), "([REDACTED])"))
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer).map(Self::new)
            }
        }
    )*};
}

secrets! {
    /// A password exactly as it was typed: nothing is trimmed, folded or cut.
    Password = |text| text;
    /// The secret that opens a session: whoever holds it acts as its user.
    SessionToken = |text| text;
    /// What tells a device from which its user signed in before: whoever holds it is spared a lock on the account, and needs
    /// the password all the same.
    DeviceToken = |text| text;
    /// The secret of a link that works once, for verifying a contact or resetting a password.
    OneTimeToken = |text| text;
    /// A short code that a person copies by hand; white space and hyphens, which help reading it, are dropped.
    OneTimeCode = without_spacing;
    /// A password hash as another system stored it: whoever reads it can guess the password at leisure.
    PasswordHash = |text| text;
    /// What opens a service to the app that calls it: an API key, a token, a password.
    ServiceSecret = |text| text;
}

fn without_spacing(mut text: String) -> String {
    if !text.contains(is_spacing) {
        return text;
    }
    let mut bare = String::with_capacity(text.len());
    bare.extend(text.chars().filter(|character| !is_spacing(*character)));
    text.zeroize();
    bare
}

fn is_spacing(character: char) -> bool {
    character == '-' || character.is_whitespace()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_tells_nothing() {
        let shown = format!(
            "{:?} {:#?} {:?} {:?} {:?} {:?} {:?}",
            Password::new("hunter2"),
            SessionToken::new("hunter2"),
            DeviceToken::new("hunter2"),
            OneTimeToken::new("hunter2"),
            OneTimeCode::new("hunter2"),
            PasswordHash::new("hunter2"),
            ServiceSecret::new("hunter2"),
        );
        assert_eq!(
            shown,
            "Password([REDACTED]) SessionToken([REDACTED]) DeviceToken([REDACTED]) OneTimeToken([REDACTED]) \
             OneTimeCode([REDACTED]) PasswordHash([REDACTED]) ServiceSecret([REDACTED])"
        );
    }

    #[test]
    fn only_a_code_is_touched() {
        assert_eq!(Password::new(" a-b ").expose(), " a-b ");
        assert_eq!(SessionToken::new("a-b").expose(), "a-b");
        assert_eq!(OneTimeToken::new("a-b").expose(), "a-b");
        assert_eq!(OneTimeCode::new(" 123\u{a0}4-56\n").expose(), "123456");
        assert_eq!(OneTimeCode::new("123456").expose(), "123456");
    }

    #[test]
    fn spare_capacity_is_no_difference() {
        let mut text = String::with_capacity(100);
        text.push_str("correct horse");
        assert_eq!(Password::new(text).expose(), "correct horse");
    }

    #[test]
    fn request_bodies_carry_secrets_in() {
        assert_eq!(serde_json::from_str::<Password>("\" pässword \"").unwrap().expose(), " pässword ");
        assert_eq!(serde_json::from_str::<OneTimeCode>("\"12 34\"").unwrap().expose(), "1234");
        assert!(serde_json::from_str::<Password>("12").is_err());
    }
}
