//! Usernames: case-mapped, and told apart by how they look.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::LazyLock;

use precis_profiles::UsernameCaseMapped;
use precis_profiles::precis_core::profile::PrecisFastInvocation;
use serde::{Deserialize, Serialize};
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::canonical_combining_class;
use unicode_security::confusable_detection::skeleton;

use crate::InvalidIdentifier;
use crate::phone::is_phone_separator;

/// Bytes of input above which nothing is even looked at: what 64 code points can take.
const MAX_INPUT_BYTES: usize = 256;

/// Code points of a canonical username.
const MAX_CODE_POINTS: usize = 64;

/// Rounds within which the skeleton of a skeleton must stop changing.
const MAX_SKELETON_ROUNDS: usize = 8;

/// A username: 1 to 64 code points, without spaces, with no `@`, not looking like a phone number.
///
/// Two usernames are equal when their canonical forms are. Distinct usernames that look alike (`paypal` with a Latin or a
/// Cyrillic `а`) share their [`skeleton`](Self::skeleton), which is what has to be unique among users.
///
/// Serialised as it was typed, and parsed again when deserialised.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Username {
    canonical: String,
    original: String,
    skeleton: String,
}

impl Username {
    /// Parses what a person typed.
    ///
    /// The canonical form is the `UsernameCaseMapped` profile of PRECIS (RFC 8265, section 3.3): full-width forms narrowed,
    /// lower case, NFC.
    ///
    /// # Errors
    ///
    /// [`Empty`](InvalidIdentifier::Empty), [`TooLong`](InvalidIdentifier::TooLong),
    /// [`LooksLikeEmail`](InvalidIdentifier::LooksLikeEmail), [`LooksLikePhone`](InvalidIdentifier::LooksLikePhone), or
    /// [`DisallowedCharacter`](InvalidIdentifier::DisallowedCharacter) for what the profile refuses.
    pub fn parse(input: &str) -> Result<Self, InvalidIdentifier> {
        if input.is_empty() {
            return Err(InvalidIdentifier::Empty);
        }
        if input.len() > MAX_INPUT_BYTES {
            return Err(InvalidIdentifier::TooLong);
        }
        let canonical = enforce(input)?;
        if canonical.chars().count() > MAX_CODE_POINTS {
            return Err(InvalidIdentifier::TooLong);
        }
        if canonical.contains('@') {
            return Err(InvalidIdentifier::LooksLikeEmail);
        }
        let numeric = |character: char| character.is_numeric() || is_phone_separator(character);
        if canonical.starts_with('+') || canonical.chars().all(numeric) {
            return Err(InvalidIdentifier::LooksLikePhone);
        }
        // A canonical form that has another one would let two accounts trade places.
        if enforce(&canonical)? != canonical {
            return Err(InvalidIdentifier::DisallowedCharacter);
        }
        let skeleton = stable_skeleton(&canonical)?;
        Ok(Self { canonical, original: input.to_owned(), skeleton })
    }

    /// A username from a stored row, which [`parse`](Self::parse) accepted when it was written. Nothing is checked.
    #[must_use]
    pub const fn from_stored(canonical: String, original: String, skeleton: String) -> Self {
        Self { canonical, original, skeleton }
    }

    /// The form that is compared and looked up.
    #[must_use]
    pub fn canonical(&self) -> &str {
        &self.canonical
    }

    /// The form that was typed, for showing to its owner.
    #[must_use]
    pub fn original(&self) -> &str {
        &self.original
    }

    /// What the canonical form looks like (the skeleton of UTS 39, section 4, lower-cased): equal for usernames that can be
    /// mistaken for each other. For comparing only, never for showing.
    #[must_use]
    pub fn skeleton(&self) -> &str {
        &self.skeleton
    }

    /// The first character and `***`: for logs.
    #[must_use]
    pub fn redacted(&self) -> String {
        self.canonical.chars().take(1).chain("***".chars()).collect()
    }
}

pub(crate) fn enforce(input: &str) -> Result<String, InvalidIdentifier> {
    if input.is_ascii() {
        // Of ASCII, the profile maps case alone, and refuses what shows nothing.
        let shows = input.bytes().all(|byte| byte.is_ascii_graphic());
        return shows.then(|| input.to_ascii_lowercase()).ok_or(InvalidIdentifier::DisallowedCharacter);
    }
    enforce_any(input)
}

fn enforce_any(input: &str) -> Result<String, InvalidIdentifier> {
    UsernameCaseMapped::enforce(input)
        .map(std::borrow::Cow::into_owned)
        .map_err(|_| InvalidIdentifier::DisallowedCharacter)
}

/// The stable skeletons of those ASCII characters that look like ASCII, by their code. A text of these alone has no
/// combinations: its skeleton is theirs, one after the other.
static ASCII_SKELETONS: LazyLock<[Option<String>; 128]> = LazyLock::new(|| {
    std::array::from_fn(|code| {
        let mut current = char::from(u8::try_from(code).ok()?).to_string();
        for _ in 0..MAX_SKELETON_ROUNDS {
            let next = look(&current);
            if !next.is_ascii() {
                return None;
            }
            if next == current {
                return Some(next);
            }
            current = next;
        }
        None
    })
});

pub(crate) fn stable_skeleton(canonical: &str) -> Result<String, InvalidIdentifier> {
    let of_ascii = |byte: u8| ASCII_SKELETONS.get(usize::from(byte)).and_then(Option::as_deref);
    canonical.bytes().map(of_ascii).collect::<Option<String>>().map_or_else(|| stable_skeleton_of_any(canonical), Ok)
}

/// Lower-casing a skeleton can make it confusable again (`0` looks like `O`), so the two steps repeat until nothing changes.
fn stable_skeleton_of_any(canonical: &str) -> Result<String, InvalidIdentifier> {
    let mut current = canonical.to_owned();
    for _ in 0..MAX_SKELETON_ROUNDS {
        let next = look(&current);
        if next == current {
            return Ok(next);
        }
        current = next;
    }
    Err(InvalidIdentifier::DisallowedCharacter)
}

/// One round: what a text looks like, in lower case.
fn look(text: &str) -> String {
    without_second_dots(skeleton(text).collect::<String>().to_lowercase().nfd()).nfc().collect()
}

/// A letter with a dot shows none beside one that stands above it: `i` looks like `i` with U+0307. Unicode calls such letters
/// soft-dotted. Those without a dot are among them here, for with one they look the same. Of a decomposed text.
fn without_second_dots(text: impl Iterator<Item = char>) -> impl Iterator<Item = char> {
    const DOT_ABOVE: char = '\u{307}';
    let mut is_dotted = false;
    text.filter(move |&character| {
        if character == DOT_ABOVE && is_dotted {
            return false;
        }
        is_dotted = match canonical_combining_class(character) {
            0 => is_soft_dotted(character),
            // Another mark stands above the letter, and the dot above that.
            ABOVE => false,
            _ => is_dotted,
        };
        true
    })
}

/// Where marks above a letter stand, by their combining class.
const ABOVE: u8 = 230;

/// Whether it is soft-dotted (`PropList.txt` of Unicode 16; what decomposes, and what no username can hold, left out), or
/// such a letter without its dot.
const fn is_soft_dotted(letter: char) -> bool {
    matches!(
        letter,
        'i' | 'j'
            | 'ı'
            | 'ȷ'
            | '\u{249}'
            | '\u{268}'
            | '\u{29d}'
            | '\u{3f3}'
            | '\u{456}'
            | '\u{458}'
            | '\u{1d96}'
            | '\u{1df1a}'
    )
}

impl PartialEq for Username {
    fn eq(&self, other: &Self) -> bool {
        self.canonical == other.canonical
    }
}

impl Eq for Username {}

impl Hash for Username {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.canonical.hash(state);
    }
}

impl fmt::Debug for Username {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Username({})", self.redacted())
    }
}

impl TryFrom<String> for Username {
    type Error = InvalidIdentifier;

    fn try_from(input: String) -> Result<Self, InvalidIdentifier> {
        Self::parse(&input)
    }
}

impl From<Username> for String {
    fn from(username: Username) -> Self {
        username.original
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn skeleton_of(input: &str) -> String {
        Username::parse(input).unwrap().skeleton().to_owned()
    }

    fn assert_stable(username: &Username) {
        let again = Username::parse(username.canonical()).unwrap();
        assert_eq!(again.canonical(), username.canonical());
        assert_eq!(again.skeleton(), username.skeleton());
        assert_eq!(stable_skeleton(username.skeleton()).unwrap(), username.skeleton());
    }

    #[test]
    fn spellings_of_one_name_are_equal() {
        let name = Username::parse("Bücher.Wurm").unwrap();
        assert_eq!(name.canonical(), "bücher.wurm");
        assert_eq!(name.original(), "Bücher.Wurm");
        assert_eq!(name, Username::parse("bu\u{308}cher.WURM").unwrap());
        assert_eq!(Username::parse("ｂｏｂ").unwrap().canonical(), "bob");
    }

    #[test]
    fn look_alikes_share_a_skeleton() {
        for (latin, look_alike) in
            [("paypal", "раypal"), ("admin", "аdmin"), ("mike", "mıke"), ("bob", "b0b"), ("modern", "rnodern")]
        {
            let (first, second) = (Username::parse(latin).unwrap(), Username::parse(look_alike).unwrap());
            assert_ne!(first, second, "{latin}");
            assert_eq!(first.skeleton(), second.skeleton(), "{latin}");
        }
        assert_eq!(skeleton_of("ADMIN"), skeleton_of("admin"));
        assert_ne!(skeleton_of("admin"), skeleton_of("adnin"));
    }

    #[test]
    fn a_dot_above_a_letter_that_has_one_makes_no_other_name() {
        for (plain, dotted) in [
            ("admin", "admi\u{307}n"),
            ("admin", "adm\u{131}\u{307}n"),
            ("admin", "adm\u{456}\u{307}n"),
            ("admin", "admi\u{307}\u{307}n"),
            ("istanbul", "İstanbul"),
            ("jim", "j\u{307}im"),
            ("jim", "\u{237}\u{307}im"),
            ("jim", "\u{458}\u{307}im"),
            ("\u{268}x", "\u{268}\u{307}x"),
            // A mark below stands between the two.
            ("\u{1ecb}x", "i\u{323}\u{307}x"),
            ("\u{1ecb}x", "i\u{307}\u{323}x"),
        ] {
            assert_eq!(skeleton_of(plain), skeleton_of(dotted), "{dotted}");
            assert_stable(&Username::parse(dotted).unwrap());
        }
        // Where the dot is seen, it tells two names apart.
        for (one, other) in [("ada", "a\u{307}da"), ("p\u{ed}x", "p\u{ed}\u{307}x"), ("sam", "s\u{307}am")] {
            assert_ne!(skeleton_of(one), skeleton_of(other), "{other}");
        }
    }

    #[test]
    fn refusals_name_their_reason() {
        for (input, reason) in [
            ("", InvalidIdentifier::Empty),
            ("two words", InvalidIdentifier::DisallowedCharacter),
            ("bob ", InvalidIdentifier::DisallowedCharacter),
            ("bob\0", InvalidIdentifier::DisallowedCharacter),
            ("bo\u{200b}b", InvalidIdentifier::DisallowedCharacter),
            ("ᴮᴵᴳᴮᴵᴿᴰ", InvalidIdentifier::DisallowedCharacter),
            ("a@b", InvalidIdentifier::LooksLikeEmail),
            ("a＠b", InvalidIdentifier::LooksLikeEmail),
            ("+44bob", InvalidIdentifier::LooksLikePhone),
            ("＋bob", InvalidIdentifier::LooksLikePhone),
            ("0791-123.456", InvalidIdentifier::LooksLikePhone),
            ("०१२३", InvalidIdentifier::LooksLikePhone),
        ] {
            assert_eq!(Username::parse(input).unwrap_err(), reason, "{input:?}");
        }
    }

    #[test]
    fn length_is_counted_in_code_points() {
        assert!(Username::parse(&"é".repeat(64)).is_ok());
        assert!(Username::parse(&"𐐨".repeat(64)).is_ok());
        assert_eq!(Username::parse(&"a".repeat(65)).unwrap_err(), InvalidIdentifier::TooLong);
        assert_eq!(Username::parse(&"\0".repeat(257)).unwrap_err(), InvalidIdentifier::TooLong);
    }

    #[test]
    fn debug_is_redacted_and_serde_keeps_the_original() {
        let name = Username::parse("Alice").unwrap();
        assert_eq!(format!("{name:?}"), "Username(a***)");
        let json = serde_json::to_string(&name).unwrap();
        assert_eq!(json, "\"Alice\"");
        assert_eq!(serde_json::from_str::<Username>(&json).unwrap().original(), "Alice");
        let error = serde_json::from_str::<Username>("\"two words\"").unwrap_err().to_string();
        assert!(!error.contains("two words"), "{error}");
    }

    #[test]
    fn naughty_strings_are_stable_or_refused() {
        let accepted: Vec<_> = naughty_strings::BLNS.iter().filter_map(|input| Username::parse(input).ok()).collect();
        assert!(accepted.len() > 100, "{}", accepted.len());
        accepted.iter().for_each(assert_stable);
    }

    #[test]
    fn most_ascii_characters_have_a_skeleton_of_their_own() {
        let without: String = (' '..='~').filter(|shown| ASCII_SKELETONS[*shown as usize].is_none()).collect();
        assert!(!without.contains(|shown: char| shown.is_ascii_alphanumeric() || "._-".contains(shown)), "{without}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn the_way_of_ascii_leads_where_every_text_goes(
            text in prop_oneof!["[ -~]{1,20}", "[\\x00-\\x7f]{1,8}", "[0OolI1|m`'\"%,.-]{1,64}"],
        ) {
            prop_assert_eq!(enforce(&text), enforce_any(&text));
            prop_assert_eq!(stable_skeleton(&text), stable_skeleton_of_any(&text));
        }

        #[test]
        fn canonical_and_skeleton_are_stable(input in prop_oneof!["\\PC{1,12}", "\\p{L}{1,8}", "[a-zA-Z0-9İıſßΣς._-]{1,16}", "[ijıȷіјɨ\u{307}\u{301}\u{323}]{1,8}"]) {
            if let Ok(username) = Username::parse(&input) {
                assert_stable(&username);
            }
        }
    }
}
