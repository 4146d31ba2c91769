//! A gauge: the few figures that every actor offers, readable from anywhere without asking the actor; and its last failure.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use majordomo_model::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// The figures of one actor. Cloning shares them, and they outlive its restarts.
///
/// Each figure is exact; a [`Gauge::reading`] taken during a change may show some figures before it and some after.
#[derive(Clone, Debug, Default)]
pub struct Gauge {
    figures: Arc<Figures>,
}

#[derive(Debug, Default)]
struct Figures {
    queue_depth: AtomicU64,
    handled: AtomicU64,
    last_micros: AtomicU64,
    max_micros: AtomicU64,
}

/// What a [`Gauge`] showed at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GaugeReading {
    /// Questions that waited or were being handled, as the actor last saw it.
    pub queue_depth: u64,
    /// Questions handled since the gauge was made.
    pub handled: u64,
    /// How long the last one took, in microseconds.
    pub last_micros: u64,
    /// How long the slowest one took, in microseconds.
    pub max_micros: u64,
}

/// What went wrong last, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastFailure {
    /// When.
    pub at: Timestamp,
    /// What went wrong.
    pub failure: String,
}

/// One question under way; dropping it records the time that it took, however the handling ended.
#[derive(Debug)]
#[must_use = "dropping it ends the measurement"]
pub struct Handling {
    gauge: Gauge,
    began: Instant,
}

impl Gauge {
    /// A gauge that shows zeros.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes how many questions wait or are being handled.
    pub fn set_queue_depth(&self, depth: usize) {
        self.figures.queue_depth.store(u64::try_from(depth).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Begins to measure, by the monotonic clock, one question.
    pub fn begin(&self) -> Handling {
        Handling { gauge: self.clone(), began: Instant::now() }
    }

    /// The figures now.
    #[must_use]
    pub fn reading(&self) -> GaugeReading {
        GaugeReading {
            queue_depth: self.figures.queue_depth.load(Ordering::Relaxed),
            handled: self.figures.handled.load(Ordering::Relaxed),
            last_micros: self.figures.last_micros.load(Ordering::Relaxed),
            max_micros: self.figures.max_micros.load(Ordering::Relaxed),
        }
    }

    fn record(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.figures.last_micros.store(micros, Ordering::Relaxed);
        self.figures.max_micros.fetch_max(micros, Ordering::Relaxed);
        self.figures.handled.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Handling {
    fn drop(&mut self) {
        self.gauge.record(self.began.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_gauge_keeps_the_last_and_the_slowest() {
        let gauge = Gauge::new();
        gauge.set_queue_depth(7);
        for millis in [3, 9, 5] {
            let _handling = gauge.begin();
            tokio::time::advance(Duration::from_millis(millis)).await;
        }
        let expected = GaugeReading { queue_depth: 7, handled: 3, last_micros: 5_000, max_micros: 9_000 };
        assert_eq!(gauge.reading(), expected);
        let json = serde_json::to_string(&gauge.reading()).unwrap();
        assert_eq!(json, r#"{"queue_depth":7,"handled":3,"last_micros":5000,"max_micros":9000}"#);
    }

    #[test]
    fn clones_share_and_a_panic_is_recorded() {
        let gauge = Gauge::new();
        let shared = gauge.clone();
        let thread = std::thread::spawn(move || {
            let _handling = shared.begin();
            panic!("handling failed");
        });
        assert!(thread.join().is_err());
        assert_eq!(gauge.reading().handled, 1);
    }
}
