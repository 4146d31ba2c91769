//! The words of a subscription: where it starts, how it retries, what it waits for, and what it may miss.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// Where in the log a subscription begins, or is moved to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// With the first signal after now.
    Now,
    /// With the oldest signal that is kept.
    Beginning,
    /// With the signal at this place. Of places that are not kept any more its subscriber is told as a [`Gap`].
    Seq(u64),
    /// With the first signal of the log whose time is not before this one.
    Time(Timestamp),
}

/// Signals that a subscription did not get and will not get: they were pruned before it came to them. Both ends belong
/// to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The first place that is missing.
    pub from: u64,
    /// The last place that is missing.
    pub to: u64,
}

/// When a signal that was not handled is handed over again, and when it is given up.
///
/// The pause grows from `first` up to `cap`. The default gives a signal up after 20 attempts, which takes about an
/// hour: long enough for most outages, short enough to be noticed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetryPolicy {
    /// How often it is handed over at most; at least 1. `None` is without end. Default 20.
    pub attempts: Option<u32>,
    /// The pause after the first failure. Default 200 ms.
    pub first: Duration,
    /// How many times as long as the one before it each pause is, 1 to 10. Default 2.
    pub growth: u32,
    /// The longest pause. Default 5 minutes.
    pub cap: Duration,
    /// How much of a pause is left to chance, 0 to 1: failures of the same moment are not tried again at the same moment.
    /// Default 0.5.
    pub jitter: f64,
    /// How long after its first attempt it is given up, however many attempts that were. Default none.
    pub horizon: Option<Duration>,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        let (first, cap) = (Duration::from_millis(200), Duration::from_secs(300));
        Self { attempts: Some(20), first, growth: 2, cap, jitter: 0.5, horizon: None }
    }
}

impl RetryPolicy {
    /// Tries again without end, at most 30 seconds apart: for a subscriber that must not miss anything, and that decides
    /// by itself what it gives up.
    #[must_use]
    pub fn endless() -> Self {
        Self { attempts: None, cap: Duration::from_secs(30), ..Self::default() }
    }

    /// The pause after the n-th failure (the first is 1), given a random share of `u32::MAX`.
    #[must_use]
    pub fn pause(&self, failures: u32, share: u32) -> Duration {
        let growths = failures.saturating_sub(1).min(30);
        let times = self.growth.clamp(1, 10).saturating_pow(growths);
        let whole = self.first.saturating_mul(times).min(self.cap.max(self.first));
        let chance = self.jitter.clamp(0.0, 1.0) * f64::from(share) / f64::from(u32::MAX);
        whole.mul_f64(1.0 - chance)
    }

    /// Whether a signal is given up after so many attempts, the first of them so long ago.
    #[must_use]
    pub fn is_exhausted(&self, attempts: u32, since_first: Duration) -> bool {
        self.attempts.is_some_and(|limit| attempts >= limit.max(1))
            || self.horizon.is_some_and(|horizon| since_first >= horizon)
    }
}

/// What a signal that was not handled holds up, and what becomes of it once it is given up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OnFailure {
    /// What follows in its lane waits while it is retried. Given up, it is a dead letter, and the lane goes on.
    #[default]
    SkipToDeadLetter,
    /// What follows in its lane waits while it is retried, and when it is given up too: until an operator has the dead
    /// letter retried with success, or discards it.
    StallLane,
    /// Everything that follows waits, whatever its lane: signals are handled one at a time in the order of the log.
    StallAll,
}

/// How far a subscription may lie behind before it lapses: it then no longer keeps the log from being pruned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MaxLag {
    /// The age of the oldest signal that it has not handled.
    pub age: Option<Duration>,
    /// The size of what it has not handled, in bytes of the log.
    pub bytes: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_cap_and_jitter_only_shortens_them() {
        let policy =
            RetryPolicy { first: Duration::from_millis(100), cap: Duration::from_secs(2), ..RetryPolicy::default() };
        let millis = |failures, share| policy.pause(failures, share).as_millis();
        assert_eq!([1, 2, 3, 5, 6, 99].map(|failures| millis(failures, 0)), [100, 200, 400, 1_600, 2_000, 2_000]);
        assert_eq!([1, 2, 6].map(|failures| millis(failures, u32::MAX)), [50, 100, 1_000]);
        let steep = RetryPolicy { growth: 4, ..policy.clone() };
        assert_eq!([1, 2, 3, 4].map(|failures| steep.pause(failures, 0).as_millis()), [100, 400, 1_600, 2_000]);
        assert_eq!(RetryPolicy { growth: 0, ..policy.clone() }.pause(9, 0), policy.first);
        assert_eq!(RetryPolicy { jitter: 7.0, ..policy }.pause(1, u32::MAX), Duration::ZERO);
    }

    #[test]
    fn a_signal_is_given_up_by_count_or_by_time() {
        let hour = Duration::from_secs(3_600);
        let policy = RetryPolicy { attempts: Some(3), horizon: Some(hour), ..RetryPolicy::default() };
        assert!(!policy.is_exhausted(2, Duration::ZERO));
        assert!(policy.is_exhausted(3, Duration::ZERO));
        assert!(policy.is_exhausted(1, hour));
        assert!(!RetryPolicy::endless().is_exhausted(u32::MAX, hour));
        assert!(RetryPolicy { attempts: Some(0), ..RetryPolicy::default() }.is_exhausted(1, Duration::ZERO));
    }
}
