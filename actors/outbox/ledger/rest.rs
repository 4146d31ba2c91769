//! The rest of a signal that was handed over in vain, or put off.

use std::time::Duration;

use majordomo_model::Timestamp;
use tokio::time::Instant;

/// The longest rest: what lies further ahead is looked at again by then.
pub(in crate::outbox) const REST_LIMIT: Duration = Duration::from_secs(24 * 3600);

/// Until when a signal rests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::outbox) enum Rest {
    /// A pause between attempts.
    Pause(Instant),
    /// A time of the system's clock.
    Until(Timestamp),
}

/// What time it is, by both clocks.
#[derive(Clone, Copy, Debug)]
pub(in crate::outbox) struct Now {
    pub(in crate::outbox) instant: Instant,
    pub(in crate::outbox) clock: Timestamp,
}

impl Rest {
    pub(super) fn is_over(self, now: Now) -> bool {
        match self {
            Self::Pause(until) => until <= now.instant,
            Self::Until(until) => until <= now.clock,
        }
    }

    pub(super) fn end(self, now: Now) -> Instant {
        match self {
            Self::Pause(until) => until,
            Self::Until(until) => now.instant + until.since(now.clock).min(REST_LIMIT),
        }
    }
}
