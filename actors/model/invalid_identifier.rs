//! Why a text is no username, e-mail address or phone number.

use serde::{Deserialize, Serialize};

/// Why a text was refused as a username, an e-mail address or a phone number.
///
/// It never carries the text, so it may be logged and shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum InvalidIdentifier {
    /// Nothing was given.
    #[error("the identifier is empty")]
    Empty,
    /// Longer than its kind allows: see the limits of each type.
    #[error("the identifier is longer than its kind allows")]
    TooLong,
    /// A character, or a sequence of them, that this kind of identifier may not hold.
    #[error("the identifier holds a character that is not allowed in it")]
    DisallowedCharacter,
    /// A username with `@` in it could be taken for an e-mail address.
    #[error("a username must not look like an e-mail address")]
    LooksLikeEmail,
    /// A username that starts with `+`, or is made of digits and phone punctuation only, could be taken for a phone number.
    #[error("a username must not look like a phone number")]
    LooksLikePhone,
    /// An e-mail address without `@`.
    #[error("an e-mail address needs an `@`")]
    MissingAtSign,
    /// An e-mail address whose local part holds characters beyond ASCII.
    #[error("the part before the `@` must be ASCII")]
    NotAsciiLocalPart,
    /// An e-mail address whose local part is in quotes.
    #[error("a quoted part before the `@` is not accepted")]
    QuotedLocalPart,
    /// An e-mail address whose local part is empty, or starts or ends with a dot, or has two dots in a row.
    #[error("the part before the `@` must be words joined by single dots")]
    InvalidLocalPart,
    /// An e-mail address at an IP address instead of a domain name.
    #[error("an IP address is not accepted as the domain of an e-mail address")]
    IpLiteral,
    /// An e-mail address at a domain of one label.
    #[error("the domain of an e-mail address needs a dot")]
    MissingDomainDot,
    /// An e-mail address at a domain that is no valid internationalised host name (UTS 46), or whose last label is a number.
    #[error("the domain of the e-mail address is not valid")]
    InvalidDomain,
    /// A phone number that is not `+` followed by 7 to 15 digits.
    #[error("a phone number is `+`, the country code and the number: 7 to 15 digits")]
    NotE164,
    /// A phone number that no numbering plan hands out.
    #[error("no country hands out this phone number")]
    ImpossibleNumber,
}

impl InvalidIdentifier {
    /// The reason as a stable word, the same as its serialised form.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::TooLong => "too_long",
            Self::DisallowedCharacter => "disallowed_character",
            Self::LooksLikeEmail => "looks_like_email",
            Self::LooksLikePhone => "looks_like_phone",
            Self::MissingAtSign => "missing_at_sign",
            Self::NotAsciiLocalPart => "not_ascii_local_part",
            Self::QuotedLocalPart => "quoted_local_part",
            Self::InvalidLocalPart => "invalid_local_part",
            Self::IpLiteral => "ip_literal",
            Self::MissingDomainDot => "missing_domain_dot",
            Self::InvalidDomain => "invalid_domain",
            Self::NotE164 => "not_e164",
            Self::ImpossibleNumber => "impossible_number",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_the_serialised_form() {
        use InvalidIdentifier as Reason;
        for reason in [
            Reason::Empty,
            Reason::TooLong,
            Reason::DisallowedCharacter,
            Reason::LooksLikeEmail,
            Reason::LooksLikePhone,
            Reason::MissingAtSign,
            Reason::NotAsciiLocalPart,
            Reason::QuotedLocalPart,
            Reason::InvalidLocalPart,
            Reason::IpLiteral,
            Reason::MissingDomainDot,
            Reason::InvalidDomain,
            Reason::NotE164,
            Reason::ImpossibleNumber,
        ] {
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
        }
    }
}
