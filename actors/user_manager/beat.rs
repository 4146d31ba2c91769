//! The beat: answers that must not tell whether somebody exists are given at fixed instants after the question.

use std::time::Duration;

use tokio::time::Instant;

/// Between two instants at which such answers are given. What known and unknown differ by is a small part of it.
const BEAT: Duration = Duration::from_millis(5);

/// Waits until the next instant at which an answer may be given, unless its caller would not wait for it.
pub(super) async fn next(asked: Instant, deadline: Option<Instant>) {
    let at = asked + due(asked.elapsed());
    if deadline.is_none_or(|deadline| at < deadline) {
        tokio::time::sleep_until(at).await;
    }
}

/// How long after the question the next beat is.
fn due(elapsed: Duration) -> Duration {
    let beats = elapsed.as_nanos().div_ceil(BEAT.as_nanos()).max(1);
    BEAT.saturating_mul(u32::try_from(beats).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_by_less_than_a_beat_is_answered_at_the_same_instant() {
        let micros = |micros| due(Duration::from_micros(micros)).as_micros();
        assert_eq!([0, 1, 900, 1_100, 5_000].map(micros), [5_000; 5]);
        assert_eq!([5_001, 9_999, 10_000, 10_001].map(micros), [10_000, 10_000, 10_000, 15_000]);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_beyond_a_deadline() {
        let asked = Instant::now();
        tokio::time::advance(Duration::from_millis(6)).await;
        next(asked, Some(asked + Duration::from_millis(9))).await;
        assert_eq!(asked.elapsed(), Duration::from_millis(6));
        next(asked, None).await;
        assert_eq!(asked.elapsed(), Duration::from_millis(10));
    }
}
