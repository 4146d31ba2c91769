//! Identifiers: UUIDv7 values that tell what they name.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A text that is no identifier: not a UUID in any of its usual spellings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an identifier: expected a UUID")]
pub struct ParseIdError;

macro_rules! identifiers {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        ///
        /// A UUIDv7 (RFC 9562): sixteen bytes that sort by the time they were made. It is public and never a secret.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(transparent))]
        #[serde(transparent)]
        pub struct $name(#[cfg_attr(feature = "schema", schemars(with = "String"))] Uuid);

        impl $name {
            /// A fresh identifier, later in order than every one made before it by this process.
            #[must_use]
            #[allow(clippy::new_without_default, reason = "two calls never answer the same")]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }

            /// The identifier with these bytes, as storage and tokens carry it.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }

            /// The sixteen bytes, most significant first, so that their order is the identifier's order.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, formatter)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                Uuid::parse_str(text).map(Self).map_err(|_| ParseIdError)
            }
        }
    )*};
}

identifiers! {
    /// Names a user for life, whatever becomes of username and contacts.
    UserId
    /// Names one contact (an e-mail address or a phone number) of one user.
    ContactId
    /// Names a session in lists and signals; the secret that opens it is another value.
    SessionId
    /// Names the row of a one-time token, and is the challenge that a code answers.
    TokenId
    /// Names one run of one flow; every signal of that run carries it.
    FlowId
    /// Names a signal for life: the idempotency key of whoever passes it on.
    SignalId
    /// Names a command, so that the same command sent twice is done once.
    CommandId
    /// Names a store for life, and every copy of it.
    StoreId
    /// Names one running account system of this process.
    SystemId
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fresh_identifiers_ascend_and_round_trip() {
        let (first, second) = (UserId::new(), UserId::new());
        assert!(first < second);
        assert_eq!(first.to_string().parse(), Ok(first));
        assert_eq!(UserId::from_bytes(*first.as_bytes()), first);
        assert_eq!("no".parse::<UserId>(), Err(ParseIdError));
    }
}
