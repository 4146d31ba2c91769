//! What one hash costs, which stored costs are honoured, and the other settings.

use std::num::NonZero;
use std::thread::available_parallelism;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The weakest settings that OWASP's Password Storage Cheat Sheet holds to be equal: memory in KiB, and passes.
const FLOOR: [(u32, u32); 5] = [(47_104, 1), (19_456, 2), (12_288, 3), (9_216, 4), (7_168, 5)];

/// The cost of one argon2id hash (RFC 9106).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HashParameters {
    /// Memory in KiB (`m`). Default: 19,456.
    pub memory_kib: u32,
    /// Passes over the memory (`t`). Default: 2.
    pub passes: u32,
    /// Lanes (`p`), computed one after the other by the same thread. Default: 1.
    pub lanes: u32,
}

impl Default for HashParameters {
    fn default() -> Self {
        Self { memory_kib: 19_456, passes: 2, lanes: 1 }
    }
}

impl HashParameters {
    /// Parameters that cost next to nothing: 64 KiB and one pass. The floor lets exactly these through, and only in
    /// builds that test.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub const fn cheap_for_tests() -> Self {
        Self { memory_kib: 64, passes: 1, lanes: 1 }
    }

    /// Checks that argon2 can compute these parameters and that they are no weaker than the floor: at least one of
    /// 47,104 KiB x 1 pass, 19,456 x 2, 12,288 x 3, 9,216 x 4 or 7,168 x 5 (OWASP Password Storage Cheat Sheet).
    ///
    /// # Errors
    /// [`HasherSettingsError::NotComputable`] or [`HasherSettingsError::BelowFloor`].
    pub fn validate(&self) -> Result<(), HasherSettingsError> {
        if !self.is_computable() {
            return Err(HasherSettingsError::NotComputable);
        }
        let reaches = |&(memory_kib, passes): &(u32, u32)| self.memory_kib >= memory_kib && self.passes >= passes;
        if FLOOR.iter().any(reaches) || self.is_cheap_for_tests() {
            return Ok(());
        }
        Err(HasherSettingsError::BelowFloor)
    }

    /// Whether argon2 is defined for these parameters: a pass, 1 to 2^24 - 1 lanes, 8 KiB for each (RFC 9106, 3.1).
    pub(super) fn is_computable(&self) -> bool {
        let lanes_fit = (1..1 << 24).contains(&self.lanes);
        lanes_fit && self.passes >= 1 && self.memory_kib >= self.lanes.saturating_mul(8)
    }

    #[cfg(any(test, feature = "testing"))]
    fn is_cheap_for_tests(&self) -> bool {
        *self == Self::cheap_for_tests()
    }

    #[cfg(not(any(test, feature = "testing")))]
    fn is_cheap_for_tests(&self) -> bool {
        false
    }
}

/// The dearest *stored* parameters that are honoured. A stored string that asks for more is treated as malformed,
/// before any memory is taken for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ceiling {
    /// Memory in KiB. Every worker may take this much while it checks such a hash. Default: 262,144.
    pub memory_kib: u32,
    /// Passes over the memory. Default: 10.
    pub passes: u32,
    /// Lanes. Default: 8.
    pub lanes: u32,
}

impl Default for Ceiling {
    fn default() -> Self {
        Self { memory_kib: 262_144, passes: 10, lanes: 8 }
    }
}

impl Ceiling {
    /// Whether no part of `parameters` is above this ceiling.
    #[must_use]
    pub fn admits(&self, parameters: &HashParameters) -> bool {
        parameters.memory_kib <= self.memory_kib && parameters.passes <= self.passes && parameters.lanes <= self.lanes
    }
}

/// The settings of a [`Hasher`](super::Hasher).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HasherSettings {
    /// Threads that hash, at least 1. Default: one for each core.
    pub workers: Option<usize>,
    /// Jobs that may wait, at least 1; a quarter as many logins on known devices may beside them. Default: as many as the workers finish within four fifths of `patience`, by how
    /// long hashes take; until four were computed, one is taken to need 1 us for every KiB and pass.
    pub queue: Option<usize>,
    /// How long a login may take in a full line, from its question to its answer; it sizes the queue where `queue` is not
    /// given. Default: 1 second.
    pub patience: Duration,
    /// The cost of every new hash.
    pub parameters: HashParameters,
    /// The dearest stored hash that is still checked.
    pub ceiling: Ceiling,
}

impl Default for HasherSettings {
    fn default() -> Self {
        Self {
            workers: None,
            queue: None,
            patience: Duration::from_secs(1),
            parameters: HashParameters::default(),
            ceiling: Ceiling::default(),
        }
    }
}

impl HasherSettings {
    /// Checks every value, and that new hashes stay below the ceiling for stored ones.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn validate(&self) -> Result<(), HasherSettingsError> {
        self.parameters.validate()?;
        if !self.ceiling.admits(&self.parameters) {
            return Err(HasherSettingsError::AboveCeiling);
        }
        if self.workers == Some(0) {
            return Err(HasherSettingsError::NoWorkers);
        }
        if self.queue == Some(0) {
            return Err(HasherSettingsError::NoQueue);
        }
        Ok(())
    }

    /// The number of threads: the setting, or one for each core.
    pub(super) fn worker_count(&self) -> usize {
        self.workers.unwrap_or_else(|| available_parallelism().map_or(1, NonZero::get))
    }
}

/// Why settings were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HasherSettingsError {
    /// Argon2 is not defined for these parameters.
    #[error("argon2 needs at least one pass, one lane and 8 KiB of memory for each lane")]
    NotComputable,
    /// The parameters are weaker than the floor.
    #[error("the hash parameters are weaker than the floor")]
    BelowFloor,
    /// New hashes would be dearer than the ceiling for stored ones, and no password would ever match again.
    #[error("the hash parameters are above the ceiling for stored hashes")]
    AboveCeiling,
    /// `workers` is zero.
    #[error("the hasher needs at least one worker")]
    NoWorkers,
    /// `queue` is zero.
    #[error("the hasher's queue needs at least one place")]
    NoQueue,
}

impl HasherSettingsError {
    /// The stable name of this error.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotComputable => "not_computable",
            Self::BelowFloor => "below_floor",
            Self::AboveCeiling => "above_ceiling",
            Self::NoWorkers => "no_workers",
            Self::NoQueue => "no_queue",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(memory_kib: u32, passes: u32, lanes: u32) -> HashParameters {
        HashParameters { memory_kib, passes, lanes }
    }

    #[test]
    fn the_floor_admits_what_owasp_holds_equal_and_nothing_weaker() {
        assert_eq!(HashParameters::default().validate(), Ok(()));
        for (memory_kib, passes) in FLOOR {
            assert_eq!(parameters(memory_kib, passes, 1).validate(), Ok(()));
            assert_eq!(parameters(memory_kib - 1, passes, 1).validate(), Err(HasherSettingsError::BelowFloor));
        }
        assert_eq!(parameters(19_456, 1, 1).validate(), Err(HasherSettingsError::BelowFloor));
    }

    #[test]
    fn only_the_test_parameters_pass_below_the_floor() {
        assert_eq!(HashParameters::cheap_for_tests().validate(), Ok(()));
        assert_eq!(parameters(65, 1, 1).validate(), Err(HasherSettingsError::BelowFloor));
    }

    #[test]
    fn what_argon2_cannot_compute_is_refused() {
        for broken in [parameters(19_456, 0, 1), parameters(19_456, 2, 0), parameters(19_456, 2, 2_433)] {
            assert_eq!(broken.validate(), Err(HasherSettingsError::NotComputable));
        }
        assert_eq!(parameters(u32::MAX, 2, u32::MAX).validate(), Err(HasherSettingsError::NotComputable));
    }

    #[test]
    fn settings_name_the_rule_that_they_break() {
        let settings = |change: fn(&mut HasherSettings)| {
            let mut settings = HasherSettings::default();
            change(&mut settings);
            settings.validate().map_err(HasherSettingsError::as_str)
        };
        assert_eq!(settings(|_| {}), Ok(()));
        assert_eq!(settings(|it| it.ceiling.passes = 1), Err("above_ceiling"));
        assert_eq!(settings(|it| it.workers = Some(0)), Err("no_workers"));
        assert_eq!(settings(|it| it.queue = Some(0)), Err("no_queue"));
        assert_eq!(settings(|it| it.parameters.memory_kib = 8), Err("below_floor"));
    }

    #[test]
    fn settings_are_read_with_defaults_and_without_strangers() {
        let settings: HasherSettings = serde_json::from_str(r#"{"workers":3,"parameters":{"passes":4}}"#).unwrap();
        let expected = HasherSettings {
            workers: Some(3),
            parameters: HashParameters { passes: 4, ..HashParameters::default() },
            ..HasherSettings::default()
        };
        assert_eq!(settings, expected);
        assert!(serde_json::from_str::<HasherSettings>(r#"{"wrokers":3}"#).is_err());
    }
}
