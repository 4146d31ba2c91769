//! The code of a denial: the word by which a guard says why, for programs to branch on.

use std::fmt;

use serde::{Deserialize, Serialize};

const LIMIT: usize = 32;

/// A word of a guard's own, such as `invite_required`: 1 to 32 of `a-z 0-9 _`.
///
/// It goes to the caller and into the log, so it holds no personal data and no secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DenialCode([u8; LIMIT]);

/// A text that is no code of a denial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a denial code has 1 to 32 of a-z 0-9 _")]
pub struct InvalidDenialCode;

impl DenialCode {
    /// The code of this text.
    ///
    /// # Errors
    /// The text is not 1 to 32 of `a-z 0-9 _`.
    pub fn parse(text: &str) -> Result<Self, InvalidDenialCode> {
        let fitted = Self::fitted(text);
        if fitted.as_str() == text { Ok(fitted) } else { Err(InvalidDenialCode) }
    }

    /// The code that is nearest to a text: letters in lower case, `_` for what does not fit, cut after 32 bytes, and
    /// `denied` for nothing.
    #[must_use]
    pub fn fitted(text: &str) -> Self {
        let fit = |byte: u8| match byte.to_ascii_lowercase() {
            fit @ (b'a'..=b'z' | b'0'..=b'9') => fit,
            _ => b'_',
        };
        let text = if text.is_empty() { "denied" } else { text };
        let mut letters = [0; LIMIT];
        for (place, byte) in letters.iter_mut().zip(text.bytes()) {
            *place = fit(byte);
        }
        Self(letters)
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let length = self.0.iter().position(|byte| *byte == 0).unwrap_or(LIMIT);
        self.0.get(..length).and_then(|letters| std::str::from_utf8(letters).ok()).unwrap_or_default()
    }
}

impl fmt::Display for DenialCode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl fmt::Debug for DenialCode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "DenialCode({self})")
    }
}

impl TryFrom<String> for DenialCode {
    type Error = InvalidDenialCode;

    fn try_from(text: String) -> Result<Self, InvalidDenialCode> {
        Self::parse(&text)
    }
}

impl From<DenialCode> for String {
    fn from(code: DenialCode) -> Self {
        code.as_str().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_code_is_a_short_word() {
        for text in ["x", "invite_required", "0_9", &"a".repeat(32)] {
            let code = DenialCode::parse(text).unwrap();
            assert_eq!((code.as_str(), code.to_string()), (text, text.to_owned()));
            assert_eq!(serde_json::to_value(code).unwrap(), text);
        }
        for text in ["", "Invite", "a-b", "a b", "é", "a\0", &"a".repeat(33)] {
            assert_eq!(DenialCode::parse(text), Err(InvalidDenialCode), "{text:?}");
            assert!(serde_json::from_value::<DenialCode>(text.into()).is_err(), "{text:?}");
        }
        assert_eq!(DenialCode::fitted("Invite required!").as_str(), "invite_required_");
        assert_eq!(DenialCode::fitted("").as_str(), "denied");
    }

    proptest! {
        #[test]
        fn whatever_is_fitted_is_a_code(text in any::<String>()) {
            let code = DenialCode::fitted(&text);
            prop_assert_eq!(DenialCode::parse(code.as_str()), Ok(code));
            prop_assert_eq!(rmp_serde::from_slice::<DenialCode>(&rmp_serde::to_vec(&code).unwrap()).unwrap(), code);
        }
    }
}
