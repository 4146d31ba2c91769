//! The pace: how long a hash lasts, and with it how many jobs may wait; first assumed, then measured.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::parameters::HashParameters;

/// How many hashes are timed. The shortest counts: whatever made the others longer was not the hash.
pub(super) const TIMED: usize = 4;

/// What a machine is assumed to need at least for a KiB in one pass, until it is known better.
const ASSUMED_MICROS: u64 = 1;

/// Times the first hashes with the parameters of new ones that somebody asked for, so that no start waits for it.
pub(super) struct Pace {
    patience: Duration,
    workers: usize,
    lasted: Mutex<Vec<Duration>>,
}

impl Pace {
    pub(super) const fn new(patience: Duration, workers: usize) -> Self {
        Self { patience, workers, lasted: Mutex::new(Vec::new()) }
    }

    /// How many jobs may wait before anything is measured.
    pub(super) fn assumed_bound(&self, parameters: &HashParameters) -> usize {
        let micros = u64::from(parameters.memory_kib).saturating_mul(parameters.passes.into());
        self.bound(Duration::from_micros(micros.saturating_mul(ASSUMED_MICROS)))
    }

    /// Takes note of how long a hash lasted. The last one that is timed tells how many jobs may wait from then on.
    pub(super) fn measured_bound(&self, lasted: Duration) -> Option<usize> {
        let mut all = self.lasted.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() == TIMED {
            return None;
        }
        all.push(lasted);
        let shortest = all.iter().min().filter(|_| all.len() == TIMED)?;
        Some(self.bound(*shortest))
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
    fn the_shortest_of_the_first_hashes_counts_and_no_later_one() {
        let pace = Pace::new(SECOND, 2);
        let bounds = [30, 20, 40, 25, 1].map(|millis| pace.measured_bound(Duration::from_millis(millis)));
        assert_eq!(bounds, [None, None, None, Some(80), None]);
    }
}
