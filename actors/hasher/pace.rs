//! The pace: how long a hash lasts, and with it how many jobs may wait; first assumed, then measured.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::parameters::HashParameters;

/// How many hashes are timed before any counts. The shortest does: whatever made the others longer was not the hash.
pub(super) const TIMED: u32 = 4;

/// How much of what is known each later hash replaces: a part in so many.
const INERTIA: u32 = 16;

/// What a machine is assumed to need at least for a KiB in one pass, until it is known better.
const ASSUMED_MICROS: u64 = 1;

/// Times the hashes with the parameters of new ones that somebody asked for, so that no start waits for it.
pub(super) struct Pace {
    patience: Duration,
    workers: usize,
    measured: Mutex<Measured>,
}

/// How many hashes were timed, and how long one lasts by that.
#[derive(Default)]
struct Measured {
    timed: u32,
    one_hash: Duration,
}

impl Pace {
    pub(super) const fn new(patience: Duration, workers: usize) -> Self {
        Self { patience, workers, measured: Mutex::new(Measured { timed: 0, one_hash: Duration::MAX }) }
    }

    /// How many jobs may wait before anything is measured.
    pub(super) fn assumed_bound(&self, parameters: &HashParameters) -> usize {
        let micros = u64::from(parameters.memory_kib).saturating_mul(parameters.passes.into());
        self.bound(Duration::from_micros(micros.saturating_mul(ASSUMED_MICROS)))
    }

    /// Takes note of how long a hash lasted. From the last of the first ones on it is known how many jobs may wait; what
    /// the machine does beside, and no longer does, is followed slowly.
    pub(super) fn measured_bound(&self, lasted: Duration) -> Option<usize> {
        let mut measured = self.measured.lock().unwrap_or_else(PoisonError::into_inner);
        if measured.timed < TIMED {
            measured.timed += 1;
            measured.one_hash = measured.one_hash.min(lasted);
        } else {
            measured.one_hash = measured.one_hash.saturating_mul(INERTIA - 1).saturating_add(lasted) / INERTIA;
        }
        (measured.timed == TIMED).then(|| self.bound(measured.one_hash))
    }

    /// How many jobs the workers finish within four fifths of the patience, and never fewer than there are workers. The
    /// rest is for the last one's own hash, for its commit, and for hashes that take longer beside other work.
    fn bound(&self, one_hash: Duration) -> usize {
        let finished =
            (self.patience.as_nanos() / 5 * 4).saturating_mul(self.workers as u128) / one_hash.as_nanos().max(1);
        usize::try_from(finished).unwrap_or(usize::MAX).max(self.workers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_queue_holds_what_is_finished_within_patience() {
        assert_eq!(Pace::new(SECOND, 2).bound(Duration::from_millis(20)), 80);
        assert_eq!(Pace::new(SECOND, 4).bound(Duration::from_secs(60)), 4);
        assert_eq!(Pace::new(Duration::ZERO, 3).bound(Duration::from_millis(20)), 3);
        assert_eq!(Pace::new(Duration::MAX, 8).bound(Duration::ZERO), usize::MAX);
    }

    #[test]
    fn until_then_a_hash_is_assumed_to_be_slow() {
        let pace = Pace::new(SECOND, 2);
        assert_eq!(pace.assumed_bound(&HashParameters::default()), 41);
        let dearest = HashParameters { memory_kib: u32::MAX, passes: u32::MAX, lanes: 1 };
        assert_eq!(pace.assumed_bound(&dearest), 2);
    }

    #[test]
    fn the_shortest_of_the_first_hashes_counts_and_later_ones_are_followed_slowly() {
        let pace = Pace::new(SECOND, 2);
        let measured = |millis| pace.measured_bound(Duration::from_millis(millis));
        assert_eq!([30, 20, 40, 25].map(measured), [None, None, None, Some(80)]);
        assert_eq!([20, 84, 20].map(measured), [Some(80), Some(66), Some(67)]);
        let settles_at = |millis| (0..200).fold(None, |_, _| measured(millis));
        assert!(settles_at(40).is_some_and(|bound| (39..=41).contains(&bound)));
        assert!(settles_at(10).is_some_and(|bound| (155..=160).contains(&bound)));
    }
}
