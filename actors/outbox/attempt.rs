//! An attempt: a handler in a task of its own, and the pause after one in vain.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinHandle;

/// Told instead of a panic's own words, which may hold anything.
pub(super) const PANICKED: &str = "the handler panicked";

const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// What a future comes to in a task of its own; `None` if it panics. Dropping this aborts the task.
pub(super) async fn caught<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> Option<T> {
    let mut task = AbortOnDrop::new(tokio::spawn(future));
    (&mut task.0).await.ok()
}

/// A task that ends with whoever holds it.
pub(super) struct AbortOnDrop<T>(JoinHandle<T>);

impl<T> AbortOnDrop<T> {
    pub(super) const fn new(task: JoinHandle<T>) -> Self {
        Self(task)
    }
}

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The pause after the n-th failure in a row: half of a span that doubles from 200 ms on, and a random share (`jitter`
/// of `u32::MAX`) of the other half; 100 ms to 30 s.
pub(super) fn pause_after(failures: u32, jitter: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let half = PAUSE_MIN.saturating_mul(1 << doublings).min(PAUSE_MAX / 2);
    half + half.mul_f64(f64::from(jitter) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_within_their_bounds() {
        let millis = |failures, jitter| pause_after(failures, jitter).as_millis();
        assert_eq!([1, 2, 3, 4].map(|failures| millis(failures, 0)), [100, 200, 400, 800]);
        assert_eq!([1, 2, 3, 4].map(|failures| millis(failures, u32::MAX)), [200, 400, 800, 1_600]);
        assert_eq!([9, 100, u32::MAX].map(|failures| millis(failures, u32::MAX)), [30_000; 3]);
        assert_eq!(millis(0, 0), 100);
    }
}
