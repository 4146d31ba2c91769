//! Foreign hashes: those that other systems made, read in the shapes that these store, and checked at a bounded cost.
//!
//! A foreign hash is compared with the password *as it was typed*: none of these systems normalises it as we do. One
//! that matches is replaced by a hash of our own at once, so each is computed here as often as its user mistypes it.

mod ceilings;
#[cfg(feature = "foreign-hashes")]
mod families;
#[cfg(test)]
mod tests;

use zeroize::Zeroizing;

#[cfg(feature = "foreign-hashes")]
use super::kernel::Refused;
use super::parameters::Ceiling;
use super::phc::StoredHash;

/// Longer texts are not looked at: the longest of the shapes, that of Firebase, has 300 bytes.
const MAX_TEXT_BYTES: usize = 512;

/// What stands before a PHC string of argon2 that another system made: the shape that Django stores.
const ARGON2_PREFIX: &str = "argon2";

/// Every family but argon2: what its texts begin with, and what signals call it.
const FAMILIES: &[(&str, &str)] = &[
    ("$2a$", "bcrypt"),
    ("$2b$", "bcrypt"),
    ("$2y$", "bcrypt"),
    ("{TRUNCATE72}$2", "bcrypt"),
    ("bcrypt$$2", "bcrypt"),
    ("bcrypt_sha256$$2", "bcrypt-sha256"),
    ("$scrypt$", "scrypt"),
    ("scrypt$", "scrypt"),
    ("$firebase-scrypt$", "firebase-scrypt"),
    ("$pbkdf2$", "pbkdf2"),
    ("$pbkdf2-sha256$", "pbkdf2"),
    ("$pbkdf2-sha512$", "pbkdf2"),
    ("pbkdf2_sha1$", "pbkdf2"),
    ("pbkdf2_sha256$", "pbkdf2"),
    ("$5$", "sha256-crypt"),
    ("$6$", "sha512-crypt"),
    ("$1$", "md5-crypt"),
    ("$P$", "phpass"),
    ("$H$", "phpass"),
    ("{SSHA}", "ldap-ssha"),
    ("{SSHA256}", "ldap-ssha"),
    ("{SSHA512}", "ldap-ssha"),
    // Base64 of what begins with the byte 0 or 1; nothing else of this list begins with a capital letter.
    ("A", "aspnet-identity"),
];

/// Why a text is no hash that can be checked here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HashProblem {
    /// It has none of the shapes, or not quite.
    Unrecognised,
    /// Checking it would cost more than its family may.
    TooDear,
    /// It looks like a family that is built in with the feature `foreign-hashes` only.
    #[cfg_attr(feature = "foreign-hashes", allow(dead_code, reason = "every family is built in"))]
    NotBuiltIn,
}

/// A hash that was taken in: the text to store, and what signals call its family.
#[derive(PartialEq, Eq)]
pub(crate) struct TakenIn {
    /// The text, for the credential record and nothing else.
    pub(crate) text: Zeroizing<String>,
    /// The family.
    pub(crate) scheme: &'static str,
}

/// A hash that another system made, taken apart.
pub(super) enum ForeignHash {
    /// Computed by the kernel of the thread, as our own.
    Argon2(StoredHash),
    /// Computed by its family.
    #[cfg(feature = "foreign-hashes")]
    Other(Box<dyn Compare>),
}

/// What a family makes of a text.
#[cfg(feature = "foreign-hashes")]
pub(super) trait Compare: Send {
    /// Whether a password is the one that was hashed, compared in constant time.
    ///
    /// # Errors
    /// The machine has no memory for it.
    fn matches(&self, password: &[u8]) -> Result<bool, Refused>;
}

impl ForeignHash {
    /// Reads a stored text; nothing is allocated for its costs before they are held to the ceilings.
    pub(super) fn parse(text: &str, ceiling: &Ceiling) -> Result<Self, HashProblem> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(HashProblem::Unrecognised);
        }
        match text.strip_prefix(ARGON2_PREFIX) {
            Some(phc) => parse_argon2(phc, ceiling).map(Self::Argon2),
            None => Self::parse_other(text, ceiling),
        }
    }

    #[cfg(feature = "foreign-hashes")]
    fn parse_other(text: &str, ceiling: &Ceiling) -> Result<Self, HashProblem> {
        families::parse(text, ceiling).map(Self::Other)
    }

    #[cfg(not(feature = "foreign-hashes"))]
    fn parse_other(text: &str, _ceiling: &Ceiling) -> Result<Self, HashProblem> {
        Err(family(text).map_or(HashProblem::Unrecognised, |_| HashProblem::NotBuiltIn))
    }
}

fn parse_argon2(phc: &str, ceiling: &Ceiling) -> Result<StoredHash, HashProblem> {
    // What only a higher ceiling reads is too dear.
    let any = Ceiling { memory_kib: u32::MAX, passes: u32::MAX, lanes: u32::MAX };
    match (StoredHash::parse(phc, ceiling), StoredHash::parse(phc, &any)) {
        (Some(stored), _) => Ok(stored),
        (None, Some(_)) => Err(HashProblem::TooDear),
        (None, None) => Err(HashProblem::Unrecognised),
    }
}

/// What signals call the family of a text, by how it begins.
fn family(text: &str) -> Option<&'static str> {
    FAMILIES.iter().find(|(prefix, _)| text.starts_with(prefix)).map(|(_, name)| *name)
}

/// Judges a hash that is to be taken in, by shape and cost. Nothing is computed.
///
/// A PHC string of argon2 is stored in Django's shape: as ours, it would be compared with the normalised password. A
/// hash behind `{CRYPT}` is stored without it.
pub(super) fn take_in(text: &str, ceiling: &Ceiling) -> Result<TakenIn, HashProblem> {
    let bare = text.strip_prefix("{CRYPT}").filter(|bare| bare.starts_with('$')).unwrap_or(text);
    let text = if bare.starts_with("$argon2") { format!("{ARGON2_PREFIX}{bare}") } else { bare.to_owned() };
    let text = Zeroizing::new(text);
    ForeignHash::parse(&text, ceiling)?;
    let scheme = if text.starts_with(ARGON2_PREFIX) { Some(ARGON2_PREFIX) } else { family(&text) };
    Ok(TakenIn { text, scheme: scheme.ok_or(HashProblem::Unrecognised)? })
}

/// Whether a text, if it is taken in under the default ceiling, is read again as it is stored then.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn reads_as_taken_in(text: &str) -> bool {
    let ceiling = Ceiling::default();
    let Ok(taken) = take_in(text, &ceiling) else { return true };
    let again = take_in(&taken.text, &ceiling);
    ForeignHash::parse(&taken.text, &ceiling).is_ok() && again.is_ok_and(|again| again == taken)
}
