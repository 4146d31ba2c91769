//! The mark of the normalisation that a password went through before it was hashed.

use majordomo_model::Timestamp;
use zeroize::Zeroizing;

use super::credential::CredentialRow;

/// That of this build: NFC and nothing else. Text of assigned characters composes alike in every later version of Unicode,
/// so its versions share the number; another normalisation gets another one.
pub const NORMALISATION: u8 = 1;

/// That of rows from before the mark.
pub(super) const fn first() -> u8 {
    1
}

impl CredentialRow {
    /// A hash of a password that went through the normalisation of this build.
    pub fn new(phc: impl Into<String>, revision: u64, set_at: Timestamp) -> Self {
        Self { phc: Zeroizing::new(phc.into()), revision, set_at, norm: NORMALISATION }
    }
}
