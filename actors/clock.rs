//! The clock: the one place that reads wall time.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use majordomo_model::Timestamp;

/// Where wall time comes from. Cloning shares it.
///
/// It never runs backwards: an instant once shown, and an instant once stored, is a floor for every later one, so a
/// clock set back cannot revive an expired token.
#[derive(Clone, Debug)]
pub struct Clock {
    source: Source,
    high_water: Arc<AtomicI64>,
}

#[derive(Clone, Debug)]
enum Source {
    System,
    Manual(Arc<AtomicI64>),
}

impl Clock {
    /// The machine's clock.
    #[must_use]
    pub fn system() -> Self {
        Self { source: Source::System, high_water: Arc::new(AtomicI64::new(i64::MIN)) }
    }

    /// A clock that stands still at `start` until [`Clock::advance`] moves it.
    #[must_use]
    pub fn manual(start: Timestamp) -> Self {
        let source = Source::Manual(Arc::new(AtomicI64::new(start.as_micros())));
        Self { source, high_water: Arc::new(AtomicI64::new(i64::MIN)) }
    }

    /// The present instant.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let raw = match &self.source {
            Source::System => system_micros(),
            Source::Manual(micros) => micros.load(Ordering::SeqCst),
        };
        let floor = self.high_water.fetch_max(raw, Ordering::SeqCst);
        Timestamp::from_micros(raw.max(floor))
    }

    /// Makes `floor` the earliest instant that this clock shows from now on.
    pub(crate) fn raise_to(&self, floor: Timestamp) {
        self.high_water.fetch_max(floor.as_micros(), Ordering::SeqCst);
    }

    /// Moves a manual clock forward; the machine's clock is not moved.
    pub fn advance(&self, span: Duration) {
        if let Source::Manual(micros) = &self.source {
            let now = Timestamp::from_micros(micros.load(Ordering::SeqCst));
            micros.store(now.plus(span).as_micros(), Ordering::SeqCst);
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "this file is where wall time is read")]
fn system_micros() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_never_runs_backwards() {
        let clock = Clock::manual(Timestamp::from_micros(1_000));
        assert_eq!(clock.now().as_micros(), 1_000);
        clock.raise_to(Timestamp::from_micros(5_000));
        assert_eq!(clock.now().as_micros(), 5_000);
        clock.advance(Duration::from_millis(1));
        assert_eq!(clock.now().as_micros(), 5_000);
        clock.advance(Duration::from_millis(10));
        assert_eq!(clock.now().as_micros(), 12_000);
    }
}
