//! The PHC string format for argon2: `$argon2id$v=19$m=19456,t=2,p=1$salt$tag`.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use super::parameters::{Ceiling, HashParameters};

/// The salt of every new hash, in bytes (RFC 9106, 3.1 recommends 16).
pub(super) const SALT_BYTES: usize = 16;
/// The tag of every new hash, in bytes.
pub(super) const TAG_BYTES: usize = 32;

/// Longer strings are not looked at: the longest that the limits below allow has 225 bytes.
const MAX_TEXT_BYTES: usize = 256;
/// The shortest salt that argon2 takes is 8 bytes; the PHC string format ends at 48, other writers at 64.
const SALT_RANGE: std::ops::RangeInclusive<usize> = 8..=64;
/// The PHC string format allows argon2 tags of 12 to 64 bytes.
const TAG_RANGE: std::ops::RangeInclusive<usize> = 12..=64;

/// A password hash in the PHC string format. It is a secret: an attacker who reads it can guess at leisure.
#[derive(Clone, PartialEq, Eq)]
pub struct PhcString(String);

impl PhcString {
    /// The text, for the credential record and nothing else.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text as an owned string, for the credential record and nothing else.
    #[must_use]
    pub fn into_string(self) -> String {
        self.0
    }
}

impl fmt::Debug for PhcString {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("PhcString([REDACTED])")
    }
}

/// The variants of argon2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    Argon2d,
    Argon2i,
    Argon2id,
}

impl Algorithm {
    const fn name(self) -> &'static str {
        match self {
            Self::Argon2d => "argon2d",
            Self::Argon2i => "argon2i",
            Self::Argon2id => "argon2id",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [Self::Argon2d, Self::Argon2i, Self::Argon2id].into_iter().find(|algorithm| algorithm.name() == name)
    }
}

/// The versions of argon2, by their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    V16 = 16,
    V19 = 19,
}

/// How a tag is computed from a password and a salt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Recipe {
    pub(super) algorithm: Algorithm,
    pub(super) version: Version,
    pub(super) parameters: HashParameters,
}

impl Recipe {
    /// The recipe of every new hash.
    pub(super) const fn current(parameters: HashParameters) -> Self {
        Self { algorithm: Algorithm::Argon2id, version: Version::V19, parameters }
    }

    /// The recipe that a class of stored costs stands for: a stored hash without its `$` in front, its salt and its tag.
    /// `None` of another scheme, and as for [`StoredHash::parse`].
    pub(super) fn of_class(class: &str, ceiling: &Ceiling) -> Option<Self> {
        let mut fields = class.split('$');
        let recipe = Self::read(&mut fields, ceiling)?;
        fields.next().is_none().then_some(recipe)
    }

    fn read<'a>(fields: &mut impl Iterator<Item = &'a str>, ceiling: &Ceiling) -> Option<Self> {
        let algorithm = Algorithm::from_name(fields.next()?)?;
        let mut costs = fields.next()?;
        let mut version = Version::V16; // What the reference implementation assumes where the field is missing.
        if let Some(number) = costs.strip_prefix("v=") {
            version = match number {
                "16" => Version::V16,
                "19" => Version::V19,
                _ => return None,
            };
            costs = fields.next()?;
        }
        let parameters = parse_costs(costs)?;
        if !parameters.is_computable() || !ceiling.admits(&parameters) {
            return None;
        }
        Some(Self { algorithm, version, parameters })
    }
}

/// A stored hash, taken apart.
pub(super) struct StoredHash {
    pub(super) recipe: Recipe,
    pub(super) salt: Vec<u8>,
    pub(super) tag: Vec<u8>,
}

impl StoredHash {
    /// Reads `text`. `None` when it is not in the format, when argon2 is not defined for its costs, and when they are
    /// above `ceiling`; in each case before anything is allocated for them.
    pub(super) fn parse(text: &str, ceiling: &Ceiling) -> Option<Self> {
        if text.len() > MAX_TEXT_BYTES {
            return None;
        }
        let mut fields = text.strip_prefix('$')?.split('$');
        let recipe = Recipe::read(&mut fields, ceiling)?;
        let salt = decode(fields.next()?, &SALT_RANGE)?;
        let tag = decode(fields.next()?, &TAG_RANGE)?;
        fields.next().is_none().then_some(Self { recipe, salt, tag })
    }

    /// Writes the hash as a PHC string.
    pub(super) fn to_phc(&self) -> PhcString {
        let HashParameters { memory_kib, passes, lanes } = self.recipe.parameters;
        let algorithm = self.recipe.algorithm.name();
        let version = self.recipe.version as u32;
        let salt = STANDARD_NO_PAD.encode(&self.salt);
        let tag = STANDARD_NO_PAD.encode(&self.tag);
        PhcString(format!("${algorithm}$v={version}$m={memory_kib},t={passes},p={lanes}${salt}${tag}"))
    }

    /// Whether a new hash would be made exactly like this one.
    pub(super) fn is_current(&self, parameters: &HashParameters) -> bool {
        self.recipe == Recipe::current(*parameters) && self.salt.len() == SALT_BYTES && self.tag.len() == TAG_BYTES
    }
}

/// Whether a text, if it is read as a hash under the default ceiling, is one that is written and read as the same.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn reads_phc_as_written(text: &str) -> bool {
    let ceiling = Ceiling::default();
    let Some(read) = StoredHash::parse(text, &ceiling) else { return true };
    let again = StoredHash::parse(read.to_phc().as_str(), &ceiling);
    let is_same = |again: &StoredHash| again.recipe == read.recipe && again.salt == read.salt && again.tag == read.tag;
    ceiling.admits(&read.recipe.parameters) && again.is_some_and(|again| is_same(&again))
}

fn parse_costs(costs: &str) -> Option<HashParameters> {
    let mut costs = costs.split(',');
    let memory_kib = decimal(costs.next()?.strip_prefix("m=")?)?;
    let passes = decimal(costs.next()?.strip_prefix("t=")?)?;
    let lanes = decimal(costs.next()?.strip_prefix("p=")?)?;
    costs.next().is_none().then_some(HashParameters { memory_kib, passes, lanes })
}

/// Reads a decimal number in its one spelling: digits only, no leading zero.
fn decimal(text: &str) -> Option<u32> {
    let canonical = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if canonical { text.parse().ok() } else { None }
}

fn decode(text: &str, lengths: &std::ops::RangeInclusive<usize>) -> Option<Vec<u8>> {
    STANDARD_NO_PAD.decode(text).ok().filter(|bytes| lengths.contains(&bytes.len()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHQ$eP4eyR+zqlZX1y5xCFTkw9m5GYx0L5YWwvCFvtlbLow";

    fn parse(text: &str) -> Option<StoredHash> {
        StoredHash::parse(text, &Ceiling::default())
    }

    #[test]
    fn what_is_read_is_written_back() {
        let stored = parse(GOOD).unwrap();
        assert_eq!(stored.salt, b"somesalt");
        assert_eq!(stored.tag.len(), TAG_BYTES);
        assert_eq!(stored.recipe, Recipe::current(HashParameters::default()));
        assert_eq!(stored.to_phc().as_str(), GOOD);
    }

    #[test]
    fn every_variant_and_both_versions_are_read() {
        for (name, algorithm) in
            [("argon2i", Algorithm::Argon2i), ("argon2d", Algorithm::Argon2d), ("argon2id", Algorithm::Argon2id)]
        {
            let stored = parse(&GOOD.replace("argon2id", name)).unwrap();
            assert_eq!(stored.recipe.algorithm, algorithm);
        }
        assert_eq!(parse(&GOOD.replace("v=19", "v=16")).unwrap().recipe.version, Version::V16);
        assert_eq!(parse(&GOOD.replace("$v=19", "")).unwrap().recipe.version, Version::V16);
    }

    #[test]
    fn only_a_hash_made_like_a_new_one_is_current() {
        let parameters = HashParameters::default();
        let current = StoredHash { recipe: Recipe::current(parameters), salt: vec![0; 16], tag: vec![0; 32] };
        assert!(current.is_current(&parameters));
        let text = current.to_phc().into_string();
        assert!(parse(&text).unwrap().is_current(&parameters));
        let short_salt = StoredHash { salt: vec![0; 8], ..parse(&text).unwrap() };
        let long_tag = StoredHash { tag: vec![0; 33], ..parse(&text).unwrap() };
        assert!(!short_salt.is_current(&parameters) && !long_tag.is_current(&parameters));
        for (from, to) in
            [("argon2id", "argon2i"), ("v=19", "v=16"), ("m=19456", "m=19457"), ("t=2", "t=3"), ("p=1", "p=2")]
        {
            assert!(!parse(&text.replace(from, to)).unwrap().is_current(&parameters), "{to}");
        }
    }

    #[test]
    fn a_class_of_costs_is_read_as_a_hash_of_it_would_be() {
        let of_class = |class: &str| Recipe::of_class(class, &Ceiling::default());
        let class = "argon2id$v=19$m=19456,t=2,p=1";
        assert_eq!(of_class(class), parse(GOOD).map(|stored| stored.recipe));
        let earlier = of_class("argon2i$m=64,t=3,p=2").unwrap();
        assert_eq!((earlier.algorithm, earlier.version), (Algorithm::Argon2i, Version::V16));
        for refused in
            ["", "2b$12", "argon2id", "argon2id$v=19$m=262145,t=2,p=1", &format!("{class}$c29tZXNhbHQ"), GOOD]
        {
            assert_eq!(of_class(refused), None, "{refused}");
        }
    }

    #[test]
    fn strings_out_of_format_are_refused() {
        assert!(parse("").is_none());
        assert!(parse("password").is_none());
        assert!(parse(&GOOD[1..]).is_none());
        assert!(parse(&format!("{GOOD}$")).is_none());
        assert!(parse(&format!("{GOOD} ")).is_none());
        assert!(parse(&format!("{GOOD}=")).is_none());
        assert!(parse(&format!("{GOOD}{}", "A".repeat(400))).is_none());
        let edits = [
            ("argon2id", "argon2x"),
            ("argon2id", "Argon2id"),
            ("v=19", "v=18"),
            ("v=19", "v=019"),
            ("m=19456,t=2", "t=2,m=19456"),
            ("m=19456", "m=+19456"),
            ("m=19456", "m=019456"),
            ("m=19456", "m="),
            ("m=19456", "m=-1"),
            ("m=19456", "m=99999999999"),
            ("m=19456", "m=7"),
            ("t=2", "t=0"),
            ("p=1", "p=0"),
            ("p=1", "p=1,keyid=8PDw8A"),
            ("$c29tZXNhbHQ", "$"),
            ("$c29tZXNhbHQ", "$c29tZXM"),
            ("$c29tZXNhbHQ", "$c29tZXNhbHR"),
            ("$eP4eyR+zqlZX1y5xCFTkw9m5GYx0L5YWwvCFvtlbLow", ""),
            ("$eP4eyR+zqlZX1y5xCFTkw9m5GYx0L5YWwvCFvtlbLow", "$eP4eyR"),
        ];
        for (from, to) in edits {
            assert!(parse(&GOOD.replacen(from, to, 1)).is_none(), "{from} -> {to}");
        }
    }

    #[test]
    fn costs_above_the_ceiling_are_refused() {
        for (from, to) in [("m=19456", "m=4194304"), ("m=19456", "m=262145"), ("t=2", "t=11"), ("p=1", "p=9")] {
            assert!(parse(&GOOD.replace(from, to)).is_none(), "{to}");
        }
        for (from, to) in [("m=19456", "m=262144"), ("t=2", "t=10"), ("p=1", "p=8")] {
            assert!(parse(&GOOD.replace(from, to)).is_some(), "{to}");
        }
    }

    #[test]
    fn a_phc_string_does_not_show_itself() {
        let phc = parse(GOOD).unwrap().to_phc();
        assert_eq!(format!("{phc:?}"), "PhcString([REDACTED])");
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn no_damage_to_a_good_string_makes_it_panic_or_exceed_the_ceiling(
            at in 0..GOOD.len(),
            cut in 0_usize..4,
            inserted in "[$,=+0-9a-zA-Z/ß]{0,6}",
        ) {
            let (head, tail) = GOOD.split_at(at);
            let damaged = format!("{head}{inserted}{}", tail.get(cut..).unwrap_or_default());
            if let Some(stored) = parse(&damaged) {
                prop_assert!(Ceiling::default().admits(&stored.recipe.parameters));
                prop_assert!(stored.recipe.parameters.is_computable());
            }
        }
    }
}
