//! What a password may not be made of: the names of its user, and words of the app.

use secrecy::zeroize::Zeroizing;
use serde::{Deserialize, Serialize};
use unicode_normalization::UnicodeNormalization;

/// Code points from which a name inside a password is told from a coincidence.
const MIN_NAME_CODE_POINTS: usize = 4;

/// The most words, which each new password is held against.
const WORDS_LIMIT: usize = 64;

/// The most code points of a word.
const WORD_LIMIT: usize = 100;

/// Words of the app that nobody's password may be made of, as nobody's may be of their own names: the app's name, its
/// product, its domain. At most 64, each with a letter or digit and of 100 code points at most.
///
/// In a configuration it is a list of texts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<String>", into = "Vec<String>")]
pub struct ForbiddenWords(Vec<(String, Name)>);

impl ForbiddenWords {
    /// Takes these words.
    #[must_use]
    pub fn new(words: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let named = |word: String| {
            let name = Name::new(&word);
            (word, name)
        };
        Self(words.into_iter().map(Into::into).map(named).collect())
    }

    /// With one more.
    #[must_use]
    pub fn and(mut self, word: impl Into<String>) -> Self {
        self.0.extend(Self::new([word]).0);
        self
    }

    /// The words as they were given.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(word, _)| word.as_str())
    }

    /// Every fault, as sentences for whoever wrote the configuration.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.0.len() > WORDS_LIMIT {
            faults.push(format!("{WORDS_LIMIT} words at most"));
        }
        let unfit = |word: &&str| word.chars().count() > WORD_LIMIT || !word.chars().any(char::is_alphanumeric);
        faults.extend(self.iter().filter(unfit).map(|word| {
            let start: String = word.chars().take(WORD_LIMIT).collect();
            format!("{start:?} has no letter or digit, or more than {WORD_LIMIT} code points")
        }));
        faults
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &Name> {
        self.0.iter().map(|(_, name)| name)
    }
}

impl From<Vec<String>> for ForbiddenWords {
    fn from(words: Vec<String>) -> Self {
        Self::new(words)
    }
}

impl From<ForbiddenWords> for Vec<String> {
    fn from(words: ForbiddenWords) -> Self {
        words.0.into_iter().map(|(word, _)| word).collect()
    }
}

/// A name in the form that passwords are searched for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Name {
    plain: Vec<char>,
    respelled: Vec<char>,
}

impl Name {
    pub(crate) fn new(name: &str) -> Self {
        let folded = name.nfc().collect::<String>().to_lowercase();
        let characters = |reading: &[Sign]| reading.iter().map(|sign| sign.0).collect();
        Self { plain: characters(&plain(&folded)), respelled: characters(&respelled(&folded)) }
    }
}

/// A character as it is compared, and whether a letter was typed for it.
type Sign = (char, bool);

/// A password to be searched for names.
pub(crate) struct Searched {
    code_points: usize,
    plain: Zeroizing<Vec<Sign>>,
    respelled: Zeroizing<Vec<Sign>>,
}

impl Searched {
    /// Of a password in lower case and NFC.
    pub(crate) fn new(folded: &str, code_points: usize) -> Self {
        Self { code_points, plain: plain(folded), respelled: respelled(folded) }
    }

    /// Whether the password is the name with nothing but digits and punctuation around it, or the name is half of it or
    /// more; so too if digits and signs stand for some of its letters, unless the name is short.
    pub(crate) fn is_mostly(&self, name: &Name) -> bool {
        self.is_around(&self.plain, &name.plain, |_| true)
            || (name.respelled.len() >= MIN_NAME_CODE_POINTS
                && self.is_around(&self.respelled, &name.respelled, |found| found.iter().any(|sign| sign.1)))
    }

    fn is_around(&self, text: &[Sign], name: &[char], counts: impl Fn(&[Sign]) -> bool) -> bool {
        if name.is_empty() {
            return false;
        }
        let bulk = name.len() >= MIN_NAME_CODE_POINTS && name.len() * 2 >= self.code_points;
        text.windows(name.len()).enumerate().any(|(start, found)| {
            let is_there = found.iter().map(|sign| &sign.0).eq(name) && counts(found);
            let mut around = text.iter().take(start).chain(text.iter().skip(start + name.len()));
            is_there && (bulk || around.all(|sign| !sign.1))
        })
    }
}

/// Letters and digits, without accents.
fn plain(folded: &str) -> Zeroizing<Vec<Sign>> {
    let kept = |character: char| character.is_alphanumeric().then_some((character, !character.is_numeric()));
    read(folded, kept)
}

/// As [`plain`], each digit and sign that may stand for a letter taken for that one; the letters that one of them may
/// stand for are taken for each other.
fn respelled(folded: &str) -> Zeroizing<Vec<Sign>> {
    let kept = |character: char| {
        let letter = match letter_for(character, 'i') {
            Some(letter) => Some((letter, false)),
            None if character.is_alphanumeric() => Some((character, !character.is_numeric())),
            None => None,
        };
        letter.map(|(letter, is_letter)| (if letter == 'l' { 'i' } else { letter }, is_letter))
    };
    read(folded, kept)
}

fn read(folded: &str, kept: impl Fn(char) -> Option<Sign>) -> Zeroizing<Vec<Sign>> {
    // No text comes apart into more characters than it has bytes: the buffer never moves, so no copy is left behind.
    let mut signs = Zeroizing::new(Vec::with_capacity(folded.len()));
    let is_accent = |character: &char| ('\u{300}'..='\u{36f}').contains(character);
    signs.extend(folded.nfd().filter(|character| !is_accent(character)).filter_map(kept));
    signs
}

/// The letter that a digit or sign is often typed for; `one` is what 1 and its likes stand for. All are ASCII.
pub(crate) const fn letter_for(character: char, one: char) -> Option<char> {
    Some(match character {
        '@' | '4' => 'a',
        '0' => 'o',
        '1' | '!' | '|' => one,
        '3' => 'e',
        '5' | '$' => 's',
        '7' | '+' => 't',
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_mostly(password: &str, name: &str) -> bool {
        Searched::new(&password.to_lowercase(), password.chars().count()).is_mostly(&Name::new(name))
    }

    #[test]
    fn digits_and_signs_are_read_as_the_letters_that_they_stand_for() {
        for (password, name) in [
            ("@lic3.5mith2026!", "alice.smith"),
            ("4L1CE-smith-2026", "alice.smith"),
            ("a!ice.smith2026!", "alice.smith"),
            ("maj0rd0m0 maj0rd", "Majordomo"),
            ("c0mpany!!!!!!!!!", "Company"),
            ("jos\u{e9}.garc\u{ed}a.1987", "jose.garcia"),
            ("jose.garcia.1987", "Jos\u{e9}.Garc\u{ed}a"),
            ("sm1th4711smith4711", "smith4711"),
        ] {
            assert!(is_mostly(password, name), "{password} {name}");
        }
    }

    #[test]
    fn what_only_looks_like_a_name_from_afar_is_none() {
        for (password, name) in [
            // Digits alone are no name.
            ("17 283 92 58273 928", "it"),
            ("1773 2839 2582 8292", "itte"),
            ("50 50 50 50 50 50 50", "soso"),
            // A short name is not looked for behind digits.
            ("b0b.............2026", "Bob"),
            ("what alice.smith never said", "alice.smith"),
            ("what @lice.sm1th never said", "alice.smith"),
            ("a majordomo opens the door at noon", "majordomo"),
            ("tide lemon rocket", ""),
            ("tide lemon rocket", "..."),
        ] {
            assert!(!is_mostly(password, name), "{password} {name}");
        }
    }

    #[test]
    fn words_are_bounded_and_a_list_in_json() {
        let words = ForbiddenWords::new(["Majordomo", "example.org"]);
        assert_eq!(serde_json::to_value(&words).unwrap(), serde_json::json!(["Majordomo", "example.org"]));
        assert_eq!(serde_json::from_str::<ForbiddenWords>(r#"["Majordomo", "example.org"]"#).unwrap(), words);
        assert_eq!(words.clone().and("x").iter().collect::<Vec<_>>(), ["Majordomo", "example.org", "x"]);
        assert_eq!(words.faults(), Vec::<String>::new());
        let most = ForbiddenWords::new(vec!["\u{e9}".repeat(WORD_LIMIT); WORDS_LIMIT]);
        assert_eq!(most.faults(), Vec::<String>::new());
        assert_eq!(most.and("one more").faults().len(), 1);
        assert_eq!(ForbiddenWords::new(["", " !", &"x".repeat(WORD_LIMIT + 1)]).faults().len(), 3);
    }
}
