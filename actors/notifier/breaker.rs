//! The circuit breaker of a transport: once it is out it is left alone for a growing pause, then one message tries.

use std::time::Duration;

use majordomo_model::Timestamp;

use super::terms::TransportTerms;

/// The longest pause that the other side may ask for.
pub(super) const RETRY_AFTER_LIMIT: Duration = Duration::from_secs(3_600);
/// When it is asked again while the one message that tries is under way.
const TRIAL: Duration = Duration::from_secs(5);

/// Whether a transport may be given a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// As always.
    Usual,
    /// As the one trial after a pause.
    Probe,
}

/// What a transport did lately, as far as it matters. The caller brings time and chance.
#[derive(Debug)]
pub(super) struct Breaker {
    limit: u32,
    pause: Duration,
    longest_pause: Duration,
    /// How often in a row it was out.
    failures: u32,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed,
    Open { until: Timestamp },
    Probing,
}

impl Breaker {
    pub(super) const fn new(terms: &TransportTerms) -> Self {
        Self {
            limit: terms.failures,
            pause: terms.pause,
            longest_pause: terms.longest_pause,
            failures: 0,
            state: State::Closed,
        }
    }

    /// Whether a message may be tried now, or else when to ask again.
    pub(super) fn when(&self, now: Timestamp) -> Result<Admission, Timestamp> {
        match self.state {
            State::Closed => Ok(Admission::Usual),
            State::Open { until } if until <= now => Ok(Admission::Probe),
            State::Open { until } => Err(until),
            State::Probing => Err(now.plus(TRIAL)),
        }
    }

    /// As [`Breaker::when`], and takes the chance; each `Ok` is to be followed by one of the methods below.
    pub(super) fn admit(&mut self, now: Timestamp) -> Result<Admission, Timestamp> {
        let admission = self.when(now)?;
        if admission == Admission::Probe {
            self.state = State::Probing;
        }
        Ok(admission)
    }

    /// It answered, whatever it said of the message; whether that closes the breaker. What was sent before the breaker
    /// opened does not close it.
    pub(super) fn answered(&mut self, admission: Admission) -> bool {
        let closes = self.state == State::Probing && admission == Admission::Probe;
        if closes || self.state == State::Closed {
            (self.failures, self.state) = (0, State::Closed);
        }
        closes
    }

    /// It was out. `told` is when the other side said to come back: then nothing is sent before, whatever the count.
    /// Answers when a message may be tried again, and whether this opens the breaker.
    pub(super) fn unavailable(
        &mut self,
        admission: Admission,
        now: Timestamp,
        told: Option<Duration>,
        chance: u32,
    ) -> (Timestamp, bool) {
        let late = match self.state {
            State::Closed => false,
            State::Probing => admission != Admission::Probe,
            State::Open { .. } => true,
        };
        if late {
            return (self.when(now).err().unwrap_or(now), false);
        }
        self.failures = self.failures.saturating_add(1);
        let pause = jittered(self.grown(), chance).max(told.unwrap_or_default().min(RETRY_AFTER_LIMIT));
        let until = now.plus(pause);
        let opens = self.failures >= self.limit || told.is_some();
        self.state = if opens { State::Open { until } } else { State::Closed };
        (until, opens)
    }

    /// The pause after as many failures as there are, before chance has its say.
    fn grown(&self) -> Duration {
        let beyond = self.failures.saturating_sub(self.limit).min(30);
        self.pause.saturating_mul(1 << beyond).min(self.longest_pause)
    }

    /// How often in a row it was out.
    pub(super) const fn failures(&self) -> u32 {
        self.failures
    }

    /// Until when it is left alone, if it is.
    pub(super) const fn open_until(&self) -> Option<Timestamp> {
        match self.state {
            State::Open { until } => Some(until),
            State::Closed | State::Probing => None,
        }
    }

    /// Whether one message is trying.
    pub(super) fn is_probing(&self) -> bool {
        self.state == State::Probing
    }
}

/// Between half of the pause and all of it, so that systems which failed together do not come back together.
fn jittered(pause: Duration, chance: u32) -> Duration {
    pause.div_f64(2.0).saturating_add(pause.mul_f64(f64::from(chance) / f64::from(u32::MAX) / 2.0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: Timestamp = Timestamp::from_micros(0);

    fn at(seconds: u64) -> Timestamp {
        START.plus(Duration::from_secs(seconds))
    }

    fn terms() -> TransportTerms {
        TransportTerms {
            failures: 3,
            pause: Duration::from_secs(10),
            longest_pause: Duration::from_secs(60),
            ..TransportTerms::default()
        }
    }

    #[test]
    fn it_opens_after_failures_in_a_row_and_closes_after_a_trial_that_is_answered() {
        let mut breaker = Breaker::new(&terms());
        for is_out in [true, true, false, true, true] {
            let admission = breaker.admit(START).unwrap();
            if is_out {
                assert_eq!(breaker.unavailable(admission, START, None, u32::MAX), (at(10), false));
            } else {
                assert!(!breaker.answered(admission), "it was not open; the count begins anew");
            }
        }
        assert_eq!(breaker.unavailable(Admission::Usual, START, None, u32::MAX), (at(10), true));
        assert_eq!(breaker.admit(at(9)), Err(at(10)));
        assert_eq!(breaker.admit(at(10)), Ok(Admission::Probe));
        assert_eq!(breaker.admit(at(10)), Err(at(15)), "one at a time");
        // What was sent before it opened comes late, and tells nothing of now.
        assert!(!breaker.answered(Admission::Usual));
        assert_eq!(breaker.unavailable(Admission::Usual, at(10), None, 0), (at(15), false));
        let mut now = at(10);
        for pause in [20, 40, 60, 60] {
            let until = now.plus(Duration::from_secs(pause));
            assert_eq!(breaker.unavailable(Admission::Probe, now, None, u32::MAX), (until, true));
            now = until;
            assert_eq!(breaker.admit(now), Ok(Admission::Probe));
        }
        assert!(breaker.answered(Admission::Probe));
        assert_eq!((breaker.admit(now), breaker.failures()), (Ok(Admission::Usual), 0));
    }

    #[test]
    fn whoever_says_when_to_come_back_is_left_alone_until_then_within_reason() {
        for (told, until) in [(30, 30), (1, 10), (1_000_000, 3_600)] {
            let mut breaker = Breaker::new(&terms());
            let told = Some(Duration::from_secs(told));
            assert_eq!(breaker.unavailable(Admission::Usual, START, told, u32::MAX), (at(until), true));
        }
    }

    proptest! {
        /// Whatever happens: one trial at a time, none before the pause is over, and never closed without an answer.
        #[test]
        fn it_is_tried_once_at_a_time_and_not_too_early(
            steps in prop::collection::vec((0_u8..3, 0_u64..20, any::<u32>()), 1..200),
        ) {
            let (mut breaker, mut now) = (Breaker::new(&terms()), START);
            let mut in_hand: Vec<Admission> = Vec::new();
            for (step, pause, chance) in steps {
                now = now.plus(Duration::from_secs(pause));
                let open_until = breaker.open_until();
                match (step, in_hand.pop()) {
                    (0, popped) => {
                        in_hand.extend(popped);
                        if let Ok(admission) = breaker.admit(now) {
                            prop_assert!(admission == Admission::Usual || !in_hand.contains(&Admission::Probe));
                            prop_assert!(open_until.is_none_or(|until| until <= now));
                            in_hand.push(admission);
                        }
                    }
                    (1, Some(admission)) => {
                        let closes = breaker.answered(admission);
                        prop_assert!(!closes || admission == Admission::Probe);
                        prop_assert!(open_until.is_none() || breaker.open_until() == open_until);
                    }
                    (_, Some(admission)) => {
                        let (until, _) = breaker.unavailable(admission, now, None, chance);
                        prop_assert!(until >= now && until <= now.plus(Duration::from_secs(60)).max(open_until.unwrap_or(now)));
                    }
                    (_, None) => {}
                }
            }
        }
    }
}
