//! Phone numbers: E.164, checked against the numbering plans.

use std::fmt;
use std::hash::{Hash, Hasher};

use rlibphonenumber::{PHONE_NUMBER_UTIL, PhoneNumberFormat};
use serde::{Deserialize, Serialize};

use crate::InvalidIdentifier;

/// Bytes of input above which nothing is looked at: 15 digits and generous punctuation.
const MAX_INPUT_BYTES: usize = 64;

/// Numbers whose plans take longest to load, the shared plan of North America before all.
const WARM_UP_NUMBERS: [&str; 4] = ["+15551234567", "+447911123456", "+79123456789", "+4915112345678"];

/// A phone number in international form: `+` and 7 to 15 digits (ITU-T E.164) that the plan of their country hands out.
///
/// Two numbers are equal when their canonical forms are. Numbers that plans reserve for films and examples, such as
/// `+44 7700 900112`, are not handed out and thus refused.
///
/// Serialised as it was typed, and parsed again when deserialised.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Phone {
    canonical: String,
    original: String,
}

impl Phone {
    /// Parses what a person typed: `+`, then digits, in which spaces, `-`, `.`, `(` and `)` may stand. At most 64 bytes.
    ///
    /// The canonical form is E.164: `+` and digits only. The first call of a process loads the numbering plans: see
    /// [`warm_up`](Self::warm_up).
    ///
    /// # Errors
    ///
    /// [`Empty`](InvalidIdentifier::Empty), [`TooLong`](InvalidIdentifier::TooLong),
    /// [`DisallowedCharacter`](InvalidIdentifier::DisallowedCharacter) for letters, extensions and any other character,
    /// [`NotE164`](InvalidIdentifier::NotE164) for a missing or second `+` and a wrong count of digits,
    /// [`ImpossibleNumber`](InvalidIdentifier::ImpossibleNumber) for a number no plan hands out.
    pub fn parse(input: &str) -> Result<Self, InvalidIdentifier> {
        check_shape(input)?;
        let canonical = e164(input)?;
        // What a plan strips on the way (a trunk zero) it may strip once only.
        if e164(&canonical)? != canonical || check_shape(&canonical).is_err() {
            return Err(InvalidIdentifier::ImpossibleNumber);
        }
        Ok(Self { canonical, original: input.to_owned() })
    }

    /// A number from a stored row, which [`parse`](Self::parse) accepted when it was written. Nothing is checked.
    #[must_use]
    pub const fn from_stored(canonical: String, original: String) -> Self {
        Self { canonical, original }
    }

    /// Loads the numbering plans, so that no person's first request waits for it: about 0.1 s optimised, 0.6 s not.
    ///
    /// It blocks; call it once at start, beside other work.
    pub fn warm_up() {
        for number in WARM_UP_NUMBERS {
            let _ = Self::parse(number);
        }
    }

    /// The number in E.164: the form that is compared, looked up, and sent to.
    #[must_use]
    pub fn canonical(&self) -> &str {
        &self.canonical
    }

    /// The form that was typed, for showing to its owner.
    #[must_use]
    pub fn original(&self) -> &str {
        &self.original
    }

    /// The first three characters and the last two digits, as in `+44***12`: for logs.
    #[must_use]
    pub fn redacted(&self) -> String {
        let length = self.canonical.chars().count();
        let start = self.canonical.chars().take(3);
        let end = self.canonical.chars().skip(length.saturating_sub(2).max(3));
        start.chain("***".chars()).chain(end).collect()
    }
}

/// Whether the character may stand between the digits of a phone number.
pub(crate) const fn is_phone_separator(character: char) -> bool {
    matches!(character, ' ' | '-' | '.' | '(' | ')')
}

/// The strict part: the numbering plans' own parser takes NUL, letters, extensions and any number of `+`.
fn check_shape(input: &str) -> Result<(), InvalidIdentifier> {
    if input.is_empty() {
        return Err(InvalidIdentifier::Empty);
    }
    if input.len() > MAX_INPUT_BYTES {
        return Err(InvalidIdentifier::TooLong);
    }
    let allowed = |character: char| character.is_ascii_digit() || character == '+' || is_phone_separator(character);
    if !input.chars().all(allowed) {
        return Err(InvalidIdentifier::DisallowedCharacter);
    }
    let digits = input.chars().filter(char::is_ascii_digit).count();
    let one_plus = input.starts_with('+') && input.chars().filter(|character| *character == '+').count() == 1;
    if one_plus && (7..=15).contains(&digits) { Ok(()) } else { Err(InvalidIdentifier::NotE164) }
}

fn e164(input: &str) -> Result<String, InvalidIdentifier> {
    let number = PHONE_NUMBER_UTIL.parse(input, None).map_err(|_| InvalidIdentifier::ImpossibleNumber)?;
    if !PHONE_NUMBER_UTIL.is_valid_number(&number) {
        return Err(InvalidIdentifier::ImpossibleNumber);
    }
    Ok(PHONE_NUMBER_UTIL.format(&number, PhoneNumberFormat::E164).into_owned())
}

impl PartialEq for Phone {
    fn eq(&self, other: &Self) -> bool {
        self.canonical == other.canonical
    }
}

impl Eq for Phone {}

impl Hash for Phone {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.canonical.hash(state);
    }
}

impl fmt::Debug for Phone {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Phone({})", self.redacted())
    }
}

impl TryFrom<String> for Phone {
    type Error = InvalidIdentifier;

    fn try_from(input: String) -> Result<Self, InvalidIdentifier> {
        Self::parse(&input)
    }
}

impl From<Phone> for String {
    fn from(phone: Phone) -> Self {
        phone.original
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn assert_stable(phone: &Phone) {
        assert_eq!(Phone::parse(phone.canonical()).unwrap().canonical(), phone.canonical());
    }

    #[test]
    fn spellings_of_one_number_are_equal() {
        let phone = Phone::parse("+44 (0)7911 123-456").unwrap();
        assert_eq!(phone.canonical(), "+447911123456");
        assert_eq!(phone.original(), "+44 (0)7911 123-456");
        assert_eq!(Phone::parse("+447911.123.456").unwrap(), phone);
        assert_eq!(Phone::parse("+39 06 1234 5678").unwrap().canonical(), "+390612345678");
    }

    #[test]
    fn what_the_parser_behind_would_take_is_refused() {
        use InvalidIdentifier as Reason;
        for (input, reason) in [
            ("", Reason::Empty),
            ("+12024561111\0", Reason::DisallowedCharacter),
            ("+1 800 FLOWERS", Reason::DisallowedCharacter),
            ("+12024561111 ext. 5", Reason::DisallowedCharacter),
            ("+12024561111x5", Reason::DisallowedCharacter),
            ("+12024561111;ext=5", Reason::DisallowedCharacter),
            ("+12024561111#", Reason::DisallowedCharacter),
            ("tel:+12024561111", Reason::DisallowedCharacter),
            ("＋12024561111", Reason::DisallowedCharacter),
            ("+１2024561111", Reason::DisallowedCharacter),
            ("+12024561111\n", Reason::DisallowedCharacter),
            ("++12024561111", Reason::NotE164),
            ("+1202+4561111", Reason::NotE164),
            (" +12024561111", Reason::NotE164),
            ("12024561111", Reason::NotE164),
            ("0012024561111", Reason::NotE164),
            ("+123456", Reason::NotE164),
            ("+1234567890123456", Reason::NotE164),
            ("+1 2 3 4 5 6 7 8", Reason::ImpossibleNumber),
            ("+447700900112", Reason::ImpossibleNumber),
            ("+99912345678", Reason::ImpossibleNumber),
        ] {
            assert_eq!(Phone::parse(input).unwrap_err(), reason, "{input:?}");
        }
        assert_eq!(Phone::parse(&format!("+{}", " ".repeat(64))).unwrap_err(), Reason::TooLong);
    }

    #[test]
    fn debug_is_redacted_and_serde_keeps_the_original() {
        let phone = Phone::parse("+44 7911 123412").unwrap();
        assert_eq!(format!("{phone:?}"), "Phone(+44***12)");
        let json = serde_json::to_string(&phone).unwrap();
        assert_eq!(json, "\"+44 7911 123412\"");
        assert_eq!(serde_json::from_str::<Phone>(&json).unwrap().original(), phone.original());
        assert!(serde_json::from_str::<Phone>("\"+1\"").is_err());
        assert_eq!(Phone::from_stored("+4".to_owned(), String::new()).redacted(), "+4***");
    }

    #[test]
    fn warming_up_uses_numbers_that_reach_the_plans() {
        Phone::warm_up();
        for number in WARM_UP_NUMBERS {
            assert_eq!(check_shape(number), Ok(()));
        }
    }

    #[test]
    fn naughty_strings_are_stable_or_refused() {
        for naughty in naughty_strings::BLNS {
            for input in [(*naughty).to_owned(), format!("+{naughty}")] {
                if let Ok(phone) = Phone::parse(&input) {
                    assert_stable(&phone);
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn canonical_is_stable(input in prop_oneof!["\\+[1-9][0-9() .-]{7,18}", "\\+(44|1|49|39|86|54)[0-9]{8,11}", "\\PC{0,20}"]) {
            if let Ok(phone) = Phone::parse(&input) {
                assert_stable(&phone);
            }
        }
    }
}
