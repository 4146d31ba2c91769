//! Which passwords a person may choose.

use std::fmt;

use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use unicode_normalization::UnicodeNormalization;

use crate::Password;
use crate::common_passwords::is_common;
use crate::password_names::{ForbiddenWords, Name, Searched, letter_for};
use crate::secret::wiped_into_secret;

/// Code points below which no setting goes (NIST SP 800-63B-4, section 3.1.1.2, with a second factor).
const FLOOR_CODE_POINTS: u32 = 8;

/// Bytes below which no cap goes: 64 characters must fit (OWASP ASVS 6.2.9).
const FLOOR_MAX_BYTES: u32 = 64;

/// Bytes that a login is always allowed, so that a lower cap shuts nobody out.
const DEFAULT_MAX_BYTES: u32 = 1024;

/// The rules for a password: long, not known to everybody, not one's own name or the app's. Any character is welcome, and none is required.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PasswordRules {
    /// The least number of Unicode code points, counted after NFC. Default 15, for accounts without a second factor; a value
    /// below 8 counts as 8.
    pub min_code_points: u32,
    /// The greatest number of bytes of UTF-8, counted before anything else is done. Default 1,024; a value below 64 counts
    /// as 64.
    pub max_bytes: u32,
    /// Words of the app, which are refused as the user's own names are. Default none; with messages configured, the app's
    /// name that they give counts as one all the same.
    pub words: ForbiddenWords,
}

impl Default for PasswordRules {
    fn default() -> Self {
        Self { min_code_points: 15, max_bytes: DEFAULT_MAX_BYTES, words: ForbiddenWords::default() }
    }
}

/// Why a password may not be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PasswordProblem {
    /// Fewer code points than the rules ask for.
    #[error("the password is too short")]
    TooShort,
    /// More bytes than the rules allow.
    #[error("the password is too long")]
    TooLong,
    /// One of the passwords that are tried first, or one of them made longer in an obvious way.
    #[error("the password is too common")]
    Common,
    /// One of the user's own names or of the app's words, or mostly one.
    #[error("the password is made of the user's own name or the app's")]
    ContainsOwnName,
    /// Known from a breach, as the service says that the host has asked. The rules alone never say so.
    #[error("the password is known from a breach")]
    Breached,
}

impl PasswordProblem {
    /// The problem as a stable word, the same as its serialised form.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TooShort => "too_short",
            Self::TooLong => "too_long",
            Self::Common => "common",
            Self::ContainsOwnName => "contains_own_name",
            Self::Breached => "breached",
        }
    }
}

/// A password in NFC, whose bytes go to the hasher whole.
///
/// It prints as `[REDACTED]`, is never serialised, offers no comparison, and is wiped from memory when dropped.
#[derive(Clone)]
pub struct NormalisedPassword(SecretString);

impl NormalisedPassword {
    fn new(password: &str) -> Self {
        // NFC takes at most three times the bytes of its input: the buffer never moves, so no copy of the secret is left behind.
        let mut text = String::with_capacity(password.len().saturating_mul(3));
        if password.is_ascii() {
            // NFC changes nothing there.
            text.push_str(password);
        } else {
            text.extend(password.nfc());
        }
        Self(wiped_into_secret(text))
    }

    /// The bytes to hash. Keep them no longer than the call that needs them.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.expose_secret().as_bytes()
    }
}

impl fmt::Debug for NormalisedPassword {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("NormalisedPassword([REDACTED])")
    }
}

impl PasswordRules {
    /// Judges a password somebody wants to set, and makes it ready for the hasher.
    ///
    /// `own_names` are the names of the account it is for: username, e-mail addresses, phone numbers. Of an e-mail address the local
    /// part counts as well as the whole. Digits and signs that stand for letters (`@` for `a`, `0` for `o`) are read as these too, in
    /// common passwords, names and words; accents count for nothing in names and words.
    ///
    /// # Errors
    ///
    /// The first [`PasswordProblem`] in the order: too long, too short, common, own name.
    pub fn check(&self, password: &Password, own_names: &[&str]) -> Result<NormalisedPassword, PasswordProblem> {
        if exceeds(password, self.max_bytes.max(FLOOR_MAX_BYTES)) {
            return Err(PasswordProblem::TooLong);
        }
        let normalised = NormalisedPassword::new(password.expose());
        let text = normalised.0.expose_secret();
        let code_points = text.chars().count();
        if code_points < widened(self.min_code_points.max(FLOOR_CODE_POINTS)) {
            return Err(PasswordProblem::TooShort);
        }
        let folded = Zeroizing::new(text.to_lowercase());
        if is_common(&folded, &[&respelled(&folded, 'i'), &respelled(&folded, 'l')]) {
            return Err(PasswordProblem::Common);
        }
        let searched = Searched::new(&folded, code_points);
        let own =
            own_names.iter().flat_map(|name| [Some(*name), name.split_once('@').map(|(local, _)| local)]).flatten();
        let is_own = own.into_iter().any(|name| searched.is_mostly(&Name::new(name)));
        if is_own || self.words.names().any(|word| searched.is_mostly(word)) {
            return Err(PasswordProblem::ContainsOwnName);
        }
        Ok(normalised)
    }

    /// Makes a password ready for comparing with a stored one. It is only measured, never judged: rules that grew stricter, or a
    /// cap that shrank below its default, shut nobody out.
    ///
    /// `None` when it has more bytes than any accepted password can have.
    #[must_use]
    pub fn normalise_for_login(&self, password: &Password) -> Option<NormalisedPassword> {
        let fits = !exceeds(password, self.max_bytes.max(DEFAULT_MAX_BYTES));
        fits.then(|| NormalisedPassword::new(password.expose()))
    }
}

fn exceeds(password: &Password, max_bytes: u32) -> bool {
    password.expose().len() > widened(max_bytes)
}

fn widened(limit: u32) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX)
}

/// The password with letters for the digits and signs that stand for them, in as many bytes.
fn respelled(folded: &str, one: char) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(folded.len()));
    text.extend(folded.chars().map(|character| letter_for(character, one).unwrap_or(character)));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(password: &str, own_names: &[&str]) -> Result<Vec<u8>, PasswordProblem> {
        let rules = PasswordRules::default();
        rules.check(&Password::new(password), own_names).map(|normalised| normalised.as_bytes().to_vec())
    }

    fn distinct(length: usize) -> String {
        (0..).flat_map(|number: u32| format!("{number},").into_bytes()).map(char::from).take(length).collect()
    }

    #[test]
    fn long_passwords_reach_the_hasher_whole() {
        for length in [64, 73, 1024] {
            let password = distinct(length);
            assert_eq!(check(&password, &[]).unwrap(), password.as_bytes());
        }
        assert_eq!(check(&distinct(1025), &[]), Err(PasswordProblem::TooLong));
        assert_eq!(check(&"\u{fb2c}".repeat(400), &[]), Err(PasswordProblem::TooLong));
    }

    #[test]
    fn login_measures_and_never_judges() {
        let strict = PasswordRules { min_code_points: 100, max_bytes: 64, ..PasswordRules::default() };
        let login = |password: &str| strict.normalise_for_login(&Password::new(password));
        assert_eq!(login("password").unwrap().as_bytes(), b"password");
        assert_eq!(login("").unwrap().as_bytes(), b"");
        assert!(login(&distinct(1024)).is_some());
        assert!(login(&distinct(1025)).is_none());
        assert!(login(&"a".repeat(1 << 20)).is_none());
        let wide = PasswordRules { max_bytes: 2048, ..PasswordRules::default() };
        assert!(wide.normalise_for_login(&Password::new(distinct(2048))).is_some());
    }

    #[test]
    fn nfc_and_nothing_else_is_done() {
        assert_eq!(check("caf\u{e9} tide lemon", &[]), check("cafe\u{301} tide lemon", &[]));
        assert_ne!(check("Tide lemon rocket", &[]), check("tide lemon rocket", &[]));
        assert_ne!(check("tide lemon rocket ", &[]), check("tide lemon rocket", &[]));
        assert_ne!(check("\u{ff54}ide lemon rocket", &[]), check("tide lemon rocket", &[]));
        let longest_growth = "\u{1d160}\u{390}\u{fb2c}".repeat(20);
        let expected: String = longest_growth.nfc().collect();
        assert_eq!(check(&longest_growth, &[]).unwrap(), expected.as_bytes());
    }

    #[test]
    fn length_is_counted_in_code_points_after_nfc() {
        assert_eq!(check("tide lemon 927", &[]), Err(PasswordProblem::TooShort));
        assert!(check("tide lemon 9275", &[]).is_ok());
        assert!(check("🦀🐢🐙🦑🐚🐠🐬🐳🦈🐊🦎🐍🐲🦕🦖", &[]).is_ok());
        assert_eq!(check("🦀🐢🐙🦑🐚🐠🐬🐳🦈🐊🦎🐍🐲🦕", &[]), Err(PasswordProblem::TooShort));
        assert_eq!(check("tide lemon caf\u{65}\u{301}", &[]), check("tide lemon caf\u{e9}", &[]));
        assert_eq!(check("tide lemon ce\u{301}", &[]), Err(PasswordProblem::TooShort));
        assert_eq!(check("ide lemon caf\u{65}\u{301}", &[]), Err(PasswordProblem::TooShort));
    }

    #[test]
    fn no_setting_goes_below_its_floor() {
        let lax = PasswordRules { min_code_points: 0, max_bytes: 0, ..PasswordRules::default() };
        assert_eq!(lax.check(&Password::new("t1de7gx"), &[]).unwrap_err(), PasswordProblem::TooShort);
        assert!(lax.check(&Password::new("t1de7gxq"), &[]).is_ok());
        assert!(lax.check(&Password::new(distinct(64)), &[]).is_ok());
        assert_eq!(lax.check(&Password::new(distinct(65)), &[]).unwrap_err(), PasswordProblem::TooLong);
        assert_eq!(lax.check(&Password::new("PassWord"), &[]).unwrap_err(), PasswordProblem::Common);
    }

    #[test]
    fn common_passwords_are_refused_in_any_case() {
        for password in ["CorrectHorseBatteryStaple", "Password1234567", "PASSWORDpassword", "qwertyuiopasdfghjkl"] {
            assert_eq!(check(password, &[]), Err(PasswordProblem::Common), "{password}");
        }
    }

    #[test]
    fn every_listed_password_that_the_policy_admits_is_refused_as_common_in_any_case() {
        let rules = |min_code_points| PasswordRules { min_code_points, ..PasswordRules::default() };
        let mut refused = [0, 0];
        for line in include_str!("data/common_passwords.txt").lines() {
            let alternating: String = line
                .char_indices()
                .map(|(place, letter)| if place % 2 == 0 { letter.to_ascii_uppercase() } else { letter })
                .collect();
            for text in [line, &line.to_uppercase(), &alternating] {
                for (rules, count) in [rules(8), rules(15)].iter().zip(&mut refused) {
                    match rules.check(&Password::new(text), &[]) {
                        Err(PasswordProblem::Common) => *count += 1,
                        other => assert_eq!(other.unwrap_err(), PasswordProblem::TooShort, "{text}"),
                    }
                }
            }
        }
        assert_eq!(refused, [6_036 * 3, 3_086 * 3]);
    }

    #[test]
    fn a_common_password_in_digits_and_signs_is_common() {
        for password in ["c0rrecth0rseb4tterystaple", "P@ssw0rdP@ssw0rd", "p4$$word1234567", "qwer7yuiopasdfghjk1"] {
            assert_eq!(check(password, &[]), Err(PasswordProblem::Common), "{password}");
        }
        for password in ["t1de lem0n r0cke7", "c0rrect staple of 4 batteries", "4815162342 1081523"] {
            assert!(check(password, &[]).is_ok(), "{password}");
        }
    }

    #[test]
    fn twenty_times_the_same_letter_with_an_accent_is_accepted() {
        assert_eq!(check(&"e\u{301}".repeat(20), &[]).unwrap(), "\u{e9}".repeat(20).as_bytes());
        assert_eq!(check(&"e".repeat(20), &[]), Err(PasswordProblem::Common), "lists hold that one");
    }

    #[test]
    fn words_of_the_app_are_refused_as_own_names_are() {
        let words = ForbiddenWords::new(["Majordomo", "example.org"]);
        let rules = PasswordRules { words, ..PasswordRules::default() };
        for password in
            ["majordomo-2026-12", "M@j0rd0m0!!!!!!", "my majordomo now", "example.org 123456", "ex4mple.0rg.admin"]
        {
            let refused = rules.check(&Password::new(password), &[]).unwrap_err();
            assert_eq!(refused, PasswordProblem::ContainsOwnName, "{password}");
        }
        for password in ["a majordomo opens the door", "for example the organ plays"] {
            assert!(rules.check(&Password::new(password), &[]).is_ok(), "{password}");
        }
    }

    #[test]
    fn own_names_are_refused() {
        let names = ["Alice.Smith", "alice.smith@example.org", "+447911123456", "Ünal", "", "..."];
        for password in [
            "alice.smith2026!",
            "Alice-Smith-2026",
            "2026 ALICE smith",
            "alicesmithalice",
            "my alice.smith x",
            "alice.smith@example.org",
            "+44 7911 123456",
            "447911123456abc",
            "ünal-1998-04-03",
            "U\u{308}nal-1998-04-03",
        ] {
            assert_eq!(check(password, &names), Err(PasswordProblem::ContainsOwnName), "{password}");
        }
        for password in ["tide lemon rocket", "what alice.smith never said", "ünal climbs a mountain"] {
            assert!(check(password, &names).is_ok(), "{password}");
        }
        assert_eq!(check("bob.............2026", &["Bob"]), Err(PasswordProblem::ContainsOwnName));
    }

    #[test]
    fn rules_and_problems_are_words_in_json() {
        assert_eq!(serde_json::from_str::<PasswordRules>("{}").unwrap(), PasswordRules::default());
        let rules: PasswordRules = serde_json::from_str(r#"{"min_code_points": 8}"#).unwrap();
        assert_eq!(rules, PasswordRules { min_code_points: 8, ..PasswordRules::default() });
        assert!(serde_json::from_str::<PasswordRules>(r#"{"min_length": 8}"#).is_err());
        for problem in [
            PasswordProblem::TooShort,
            PasswordProblem::TooLong,
            PasswordProblem::Common,
            PasswordProblem::ContainsOwnName,
            PasswordProblem::Breached,
        ] {
            assert_eq!(serde_json::to_value(problem).unwrap(), problem.as_str());
        }
    }

    #[test]
    fn naughty_strings_are_answered_and_normalise_once() {
        let rules = PasswordRules::default();
        for naughty in naughty_strings::BLNS {
            let _ = rules.check(&Password::new(*naughty), &[naughty, "alice"]);
            if let Some(once) = rules.normalise_for_login(&Password::new(*naughty)) {
                let text = String::from_utf8(once.as_bytes().to_vec()).unwrap();
                let twice = rules.normalise_for_login(&Password::new(text)).unwrap();
                assert_eq!(once.as_bytes(), twice.as_bytes());
            }
        }
    }

    #[test]
    fn debug_tells_nothing() {
        assert_eq!(format!("{:?}", NormalisedPassword::new("hunter2")), "NormalisedPassword([REDACTED])");
    }
}
