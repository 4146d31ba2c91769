//! The rate of a transport: at most so many messages within any span of a length.

use std::collections::VecDeque;
use std::time::Duration;

use majordomo_model::Timestamp;

/// When messages were sent lately. The caller brings the time.
#[derive(Debug)]
pub(super) struct Rate {
    messages: usize,
    per: Duration,
    /// The last ones, as many as are allowed within the span at most.
    sent: VecDeque<Timestamp>,
    /// When the last of those that were turned away was told to come back.
    hinted: Timestamp,
}

impl Rate {
    pub(super) fn new(messages: u32, per: Duration) -> Self {
        let messages = usize::try_from(messages).unwrap_or(usize::MAX);
        Self { messages, per, sent: VecDeque::new(), hinted: Timestamp::from_micros(i64::MIN) }
    }

    /// When the next message may be sent; not later than `now` if it may be sent at once.
    pub(super) fn next(&self, now: Timestamp) -> Timestamp {
        match self.sent.front() {
            Some(first) if self.sent.len() >= self.messages => first.plus(self.per),
            _ => now,
        }
    }

    /// Counts a message that is sent now.
    pub(super) fn count(&mut self, now: Timestamp) {
        if self.sent.len() >= self.messages {
            self.sent.pop_front();
        }
        self.sent.push_back(now);
    }

    /// When a message that was turned away is to come back: those that wait are spread out, or all of them would come
    /// at once and all but one in vain.
    pub(super) fn turn_away(&mut self, now: Timestamp) -> Timestamp {
        let messages = u32::try_from(self.messages).unwrap_or(u32::MAX).max(1);
        self.hinted = self.next(now).max(self.hinted.plus(self.per / messages));
        self.hinted
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_micros(0).plus(Duration::from_millis(millis))
    }

    #[test]
    fn what_is_too_much_is_spread_over_the_time_that_follows() {
        let mut rate = Rate::new(2, Duration::from_secs(1));
        for millis in [0, 100] {
            assert_eq!(rate.next(at(millis)), at(millis));
            rate.count(at(millis));
        }
        assert_eq!(
            [rate.turn_away(at(200)), rate.turn_away(at(200)), rate.turn_away(at(300))],
            [at(1_000), at(1_500), at(2_000)]
        );
        assert_eq!(rate.next(at(999)), at(1_000));
        assert_eq!(rate.next(at(1_000)), at(1_000));
        rate.count(at(1_000));
        assert_eq!(rate.next(at(1_000)), at(1_100));
        // Long after, nobody waits for what was told then.
        assert_eq!(rate.turn_away(at(60_000)), at(60_000).max(rate.next(at(60_000))));
    }

    proptest! {
        #[test]
        fn no_span_of_its_length_sees_more(
            messages in 1_u32..5,
            pauses in prop::collection::vec(0_u64..400, 1..100),
        ) {
            let per = Duration::from_secs(1);
            let (mut rate, mut now, mut sent) = (Rate::new(messages, per), 0, Vec::new());
            for pause in pauses {
                now += pause;
                if rate.next(at(now)) <= at(now) {
                    rate.count(at(now));
                    sent.push(now);
                }
            }
            for window in sent.windows(messages as usize + 1) {
                prop_assert!(window[messages as usize] - window[0] >= 1_000, "{window:?}");
            }
        }
    }
}
