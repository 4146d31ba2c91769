//! E-mail addresses: an ASCII local part at an internationalised domain.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::InvalidIdentifier;

/// Bytes of a whole address (RFC 5321, section 4.5.3.1.3, less its angle brackets).
const MAX_BYTES: usize = 254;

/// Bytes of a local part (RFC 5321, section 4.5.3.1.1).
const MAX_LOCAL_BYTES: usize = 64;

/// An e-mail address: at most 254 bytes, as typed and in its A-label form, of which 64 before the `@`.
///
/// The local part is an ASCII dot-atom (RFC 5322, section 3.2.3); the domain is a host name with at least one dot. Two addresses
/// are equal when their canonical forms are: case is no difference, nor is the way an international domain is written.
///
/// Serialised as it was typed, and parsed again when deserialised.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Email {
    canonical: String,
    original: String,
}

impl Email {
    /// Parses what a person typed. Nothing is trimmed.
    ///
    /// The canonical form is the local part in lower case, at the domain as lower-case A-labels (UTS 46, strict).
    ///
    /// # Errors
    ///
    /// [`Empty`](InvalidIdentifier::Empty), [`TooLong`](InvalidIdentifier::TooLong),
    /// [`MissingAtSign`](InvalidIdentifier::MissingAtSign); for the local part
    /// [`QuotedLocalPart`](InvalidIdentifier::QuotedLocalPart), [`NotAsciiLocalPart`](InvalidIdentifier::NotAsciiLocalPart),
    /// [`InvalidLocalPart`](InvalidIdentifier::InvalidLocalPart),
    /// [`DisallowedCharacter`](InvalidIdentifier::DisallowedCharacter); for the domain
    /// [`IpLiteral`](InvalidIdentifier::IpLiteral), [`MissingDomainDot`](InvalidIdentifier::MissingDomainDot),
    /// [`InvalidDomain`](InvalidIdentifier::InvalidDomain), also for characters in it that show nothing.
    pub fn parse(input: &str) -> Result<Self, InvalidIdentifier> {
        if input.is_empty() {
            return Err(InvalidIdentifier::Empty);
        }
        if input.len() > MAX_BYTES {
            return Err(InvalidIdentifier::TooLong);
        }
        let (local, domain) = input.rsplit_once('@').ok_or(InvalidIdentifier::MissingAtSign)?;
        check_local_part(local)?;
        let domain = canonical_domain(domain)?;
        let canonical = format!("{}@{domain}", local.to_ascii_lowercase());
        if canonical.len() > MAX_BYTES {
            return Err(InvalidIdentifier::TooLong);
        }
        Ok(Self { canonical, original: input.to_owned() })
    }

    /// An address from a stored row, which [`parse`](Self::parse) accepted when it was written. Nothing is checked.
    #[must_use]
    pub const fn from_stored(canonical: String, original: String) -> Self {
        Self { canonical, original }
    }

    /// The form that is compared and looked up. Mail goes to [`deliverable`](Self::deliverable).
    #[must_use]
    pub fn canonical(&self) -> &str {
        &self.canonical
    }

    /// The form that was typed, for showing to its owner.
    #[must_use]
    pub fn original(&self) -> &str {
        &self.original
    }

    /// The address that mail is sent to: the local part as typed, since only its own host may fold its case (RFC 5321,
    /// section 2.4), at the canonical domain. ASCII throughout.
    #[must_use]
    pub fn deliverable(&self) -> String {
        match (self.original.rsplit_once('@'), self.canonical.rsplit_once('@')) {
            (Some((local, _)), Some((_, domain))) => format!("{local}@{domain}"),
            _ => self.canonical.clone(),
        }
    }

    /// The first character of the local part, the first of the domain, and the last label, as in `a***@e***.com`: for logs.
    #[must_use]
    pub fn redacted(&self) -> String {
        let (local, domain) = self.canonical.rsplit_once('@').unwrap_or(("", ""));
        let (_, last_label) = domain.rsplit_once('.').unwrap_or(("", ""));
        let first = |text: &str| text.chars().take(1).collect::<String>();
        format!("{}***@{}***.{last_label}", first(local), first(domain))
    }
}

fn check_local_part(local: &str) -> Result<(), InvalidIdentifier> {
    if local.starts_with('"') {
        return Err(InvalidIdentifier::QuotedLocalPart);
    }
    if !local.is_ascii() {
        return Err(InvalidIdentifier::NotAsciiLocalPart);
    }
    if local.len() > MAX_LOCAL_BYTES {
        return Err(InvalidIdentifier::TooLong);
    }
    if local.split('.').any(str::is_empty) {
        return Err(InvalidIdentifier::InvalidLocalPart);
    }
    let atom = |byte: u8| byte.is_ascii_alphanumeric() || b".!#$%&'*+-/=?^_`{|}~".contains(&byte);
    if local.bytes().all(atom) { Ok(()) } else { Err(InvalidIdentifier::DisallowedCharacter) }
}

/// The domain as lower-case A-labels.
fn canonical_domain(domain: &str) -> Result<String, InvalidIdentifier> {
    if domain.starts_with('[') {
        return Err(InvalidIdentifier::IpLiteral);
    }
    if domain.chars().any(is_dropped) {
        return Err(InvalidIdentifier::InvalidDomain);
    }
    let ascii = idna::domain_to_ascii_strict(domain).map_err(|_| InvalidIdentifier::InvalidDomain)?;
    if ascii.parse::<Ipv4Addr>().is_ok() {
        return Err(InvalidIdentifier::IpLiteral);
    }
    let (_, last_label) = ascii.rsplit_once('.').ok_or(InvalidIdentifier::MissingDomainDot)?;
    // The second pass holds the promise that a canonical domain is its own canonical form.
    let stable = idna::domain_to_ascii_strict(&ascii).is_ok_and(|again| again == ascii);
    if !stable || last_label.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(InvalidIdentifier::InvalidDomain);
    }
    Ok(ascii)
}

/// Whether UTS 46 makes nothing of a character, such as a soft hyphen or a space without width. Nobody means to type it.
fn is_dropped(character: char) -> bool {
    !character.is_ascii()
        && idna::domain_to_ascii(character.encode_utf8(&mut [0; 4])).is_ok_and(|mapped| mapped.is_empty())
}

impl PartialEq for Email {
    fn eq(&self, other: &Self) -> bool {
        self.canonical == other.canonical
    }
}

impl Eq for Email {}

impl Hash for Email {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.canonical.hash(state);
    }
}

impl fmt::Debug for Email {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Email({})", self.redacted())
    }
}

impl TryFrom<String> for Email {
    type Error = InvalidIdentifier;

    fn try_from(input: String) -> Result<Self, InvalidIdentifier> {
        Self::parse(&input)
    }
}

impl From<Email> for String {
    fn from(email: Email) -> Self {
        email.original
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn assert_stable(email: &Email) {
        let again = Email::parse(email.canonical()).unwrap();
        assert_eq!(again.canonical(), email.canonical());
        let delivered = Email::parse(&email.deliverable()).unwrap();
        assert_eq!(&delivered, email);
        assert_eq!(delivered.deliverable(), email.deliverable());
        assert!(email.deliverable().is_ascii());
    }

    #[test]
    fn spellings_of_one_address_are_equal() {
        let email = Email::parse("Alice.Smith+news@Bücher.Example").unwrap();
        assert_eq!(email.canonical(), "alice.smith+news@xn--bcher-kva.example");
        assert_eq!(email.original(), "Alice.Smith+news@Bücher.Example");
        assert_eq!(email.deliverable(), "Alice.Smith+news@xn--bcher-kva.example");
        for spelling in [
            "alice.smith+news@BU\u{308}CHER.example",
            "ALICE.SMITH+NEWS@xn--bcher-kva.example",
            "alice.smith+news@bücher。example",
        ] {
            assert_eq!(Email::parse(spelling).unwrap(), email, "{spelling}");
        }
        assert_ne!(Email::parse("mike@example.org").unwrap(), Email::parse("mike@exampIe.org").unwrap());
    }

    #[test]
    fn refusals_name_their_reason() {
        use InvalidIdentifier as Reason;
        for (input, reason) in [
            ("", Reason::Empty),
            ("alice", Reason::MissingAtSign),
            ("@example.org", Reason::InvalidLocalPart),
            (".alice@example.org", Reason::InvalidLocalPart),
            ("alice.@example.org", Reason::InvalidLocalPart),
            ("a..b@example.org", Reason::InvalidLocalPart),
            (" alice@example.org", Reason::DisallowedCharacter),
            ("alice@bob@example.org", Reason::DisallowedCharacter),
            ("alice(x)@example.org", Reason::DisallowedCharacter),
            ("alice\r\nBcc:bob@example.org", Reason::DisallowedCharacter),
            ("alice\0@example.org", Reason::DisallowedCharacter),
            ("Alice <alice@example.org>", Reason::DisallowedCharacter),
            ("mıke@example.org", Reason::NotAsciiLocalPart),
            ("\"a b\"@example.org", Reason::QuotedLocalPart),
            ("alice@[127.0.0.1]", Reason::IpLiteral),
            ("alice@[IPv6:::1]", Reason::IpLiteral),
            ("alice@127.0.0.1", Reason::IpLiteral),
            ("alice@１２７.0.0.1", Reason::IpLiteral),
            ("alice@localhost", Reason::MissingDomainDot),
            ("alice@example.123", Reason::InvalidDomain),
            ("alice@example.org.", Reason::InvalidDomain),
            ("alice@example..org", Reason::InvalidDomain),
            ("alice@.example.org", Reason::InvalidDomain),
            ("alice@-example.org", Reason::InvalidDomain),
            ("alice@exa_mple.org", Reason::InvalidDomain),
            ("alice@example.org ", Reason::InvalidDomain),
            ("alice@example.org\r\n", Reason::InvalidDomain),
            ("alice@xn--a.org", Reason::InvalidDomain),
            ("alice@", Reason::InvalidDomain),
        ] {
            assert_eq!(Email::parse(input).unwrap_err(), reason, "{input:?}");
        }
    }

    #[test]
    fn lengths_end_where_smtp_does() {
        let label = "d".repeat(63);
        assert!(Email::parse(&format!("{}@example.org", "a".repeat(64))).is_ok());
        assert_eq!(Email::parse(&format!("{}@example.org", "a".repeat(65))).unwrap_err(), InvalidIdentifier::TooLong);
        assert!(Email::parse(&format!("a@{label}.org")).is_ok());
        assert_eq!(Email::parse(&format!("a@d{label}.org")).unwrap_err(), InvalidIdentifier::InvalidDomain);
        let longest = format!("{}@{label}.{label}.{}.org", "a".repeat(64), "d".repeat(57));
        assert_eq!(longest.len(), 254);
        assert!(Email::parse(&longest).is_ok());
        assert_eq!(Email::parse(&longest.replace(".org", ".info")).unwrap_err(), InvalidIdentifier::TooLong);
    }

    #[test]
    fn debug_is_redacted_and_serde_keeps_the_original() {
        let email = Email::parse("Alice@Mail.Example.com").unwrap();
        assert_eq!(email.redacted(), "a***@m***.com");
        assert_eq!(format!("{email:?}"), "Email(a***@m***.com)");
        let json = serde_json::to_string(&email).unwrap();
        assert_eq!(json, "\"Alice@Mail.Example.com\"");
        assert_eq!(serde_json::from_str::<Email>(&json).unwrap().original(), email.original());
        assert!(serde_json::from_str::<Email>("\"alice\"").is_err());
        let stored = Email::from_stored(email.canonical().to_owned(), email.original().to_owned());
        assert_eq!(stored.deliverable(), "Alice@mail.example.com");
    }

    #[test]
    fn naughty_strings_are_stable_or_refused() {
        let mut accepted = 0;
        for naughty in naughty_strings::BLNS {
            for input in [(*naughty).to_owned(), format!("{naughty}@example.org"), format!("alice@{naughty}.org")] {
                if let Ok(email) = Email::parse(&input) {
                    assert_stable(&email);
                    accepted += 1;
                }
            }
        }
        assert!(accepted > 50, "{accepted}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn canonical_is_stable(local in "[a-zA-Z0-9.+]{1,8}", domain in prop_oneof!["\\PC{1,8}", "\\p{L}{1,6}", "[a-zßſé-]{1,9}"]) {
            if let Ok(email) = Email::parse(&format!("{local}@{domain}.Org")) {
                assert_stable(&email);
            }
        }

        #[test]
        fn any_text_is_answered(input in "\\PC{0,40}") {
            if let Ok(email) = Email::parse(&input) {
                assert_stable(&email);
            }
        }
    }
}
