//! The circuit breaker: after failures in a row code of the app is left alone for a while, then tried once.

use std::time::Duration;

use tokio::time::Instant;

/// When a breaker opens, and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// How many failures in a row open it.
    pub(crate) failures: u32,
    /// How long it stays open before it is tried.
    pub(crate) cool_down: Duration,
}

/// Whether code of the app may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// As always.
    Usual,
    /// As the one trial after a pause; its outcome closes the breaker or opens it again.
    Probe,
}

/// What code of the app did lately, as far as it matters. The caller brings the time, so that it can be tested without any.
#[derive(Debug)]
pub(crate) struct Breaker {
    terms: Terms,
    state: State,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Closed { failures: u32 },
    Open { until: Instant },
    Probing,
}

impl Breaker {
    pub(crate) const fn new(terms: Terms) -> Self {
        Self { terms, state: State::Closed { failures: 0 } }
    }

    /// Whether it may be asked now; each `Some` is to be followed by one of the methods below.
    pub(crate) fn admit(&mut self, now: Instant) -> Option<Admission> {
        match self.state {
            State::Closed { .. } => Some(Admission::Usual),
            State::Open { until } if until <= now => {
                self.state = State::Probing;
                Some(Admission::Probe)
            }
            State::Open { .. } | State::Probing => None,
        }
    }

    /// It answered. What was asked before the breaker opened does not close it again.
    pub(crate) const fn answered(&mut self, admission: Admission) {
        if matches!((&self.state, admission), (State::Closed { .. }, _) | (State::Probing, Admission::Probe)) {
            self.state = State::Closed { failures: 0 };
        }
    }

    /// It failed.
    pub(crate) fn failed(&mut self, admission: Admission, now: Instant) {
        let failures = match (&self.state, admission) {
            (State::Closed { failures }, _) => failures.saturating_add(1),
            (State::Probing, Admission::Probe) => self.terms.failures,
            _ => return,
        };
        self.state = if failures >= self.terms.failures {
            State::Open { until: now.checked_add(self.terms.cool_down).unwrap_or(now) }
        } else {
            State::Closed { failures }
        };
    }

    /// Nobody waited for the answer: nothing is known. A probe is to be had again at once.
    pub(crate) fn abandoned(&mut self, admission: Admission, now: Instant) {
        if (&self.state, admission) == (&State::Probing, Admission::Probe) {
            self.state = State::Open { until: now };
        }
    }

    /// Whether it is being left alone, or is on trial.
    pub(crate) const fn is_open(&self) -> bool {
        !matches!(self.state, State::Closed { .. })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TERMS: Terms = Terms { failures: 3, cool_down: Duration::from_secs(10) };

    #[test]
    fn it_opens_after_failures_in_a_row_and_closes_after_a_probe_that_is_answered() {
        let (mut breaker, start) = (Breaker::new(TERMS), Instant::now());
        for answered in [false, false, true, false, false] {
            let admission = breaker.admit(start).unwrap();
            if answered { breaker.answered(admission) } else { breaker.failed(admission, start) }
        }
        assert!(!breaker.is_open(), "an answer between begins the count anew");
        breaker.failed(Admission::Usual, start);
        assert!(breaker.is_open());
        let later = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(breaker.admit(later(9)), None);
        assert_eq!([breaker.admit(later(10)), breaker.admit(later(10))], [Some(Admission::Probe), None]);
        breaker.failed(Admission::Probe, later(11));
        assert_eq!([breaker.admit(later(20)), breaker.admit(later(21))], [None, Some(Admission::Probe)]);
        // What was asked before it opened comes late, and tells nothing of now.
        breaker.answered(Admission::Usual);
        breaker.failed(Admission::Usual, later(21));
        assert!(breaker.is_open());
        breaker.abandoned(Admission::Probe, later(22));
        assert_eq!(breaker.admit(later(22)), Some(Admission::Probe));
        breaker.answered(Admission::Probe);
        assert!(!breaker.is_open());
        assert_eq!(breaker.admit(later(22)), Some(Admission::Usual));
    }

    proptest! {
        /// Whatever happens: one probe at a time, none before the pause is over, and never closed without an answer.
        #[test]
        fn it_is_tried_once_at_a_time_and_not_too_early(steps in prop::collection::vec((0_u8..4, 0_u64..6), 1..200)) {
            let (mut breaker, mut now) = (Breaker::new(TERMS), Instant::now());
            let mut in_hand: Vec<Admission> = Vec::new();
            let mut opened: Option<Instant> = None;
            for (step, pause) in steps {
                now += Duration::from_secs(pause);
                let was_open = breaker.is_open();
                match step {
                    0 => if let Some(admission) = breaker.admit(now) {
                        prop_assert_eq!(admission == Admission::Probe, was_open);
                        prop_assert!(admission == Admission::Usual || !in_hand.contains(&Admission::Probe));
                        let pause_is_over = opened.is_none_or(|at| now >= at + TERMS.cool_down);
                        prop_assert!(admission == Admission::Usual || pause_is_over);
                        in_hand.push(admission);
                    },
                    step => if let Some(admission) = in_hand.pop() {
                        match step {
                            1 => breaker.answered(admission),
                            2 => breaker.failed(admission, now),
                            _ => {
                                breaker.abandoned(admission, now);
                                if admission == Admission::Probe { opened = None; }
                            }
                        }
                        prop_assert!(!was_open || breaker.is_open() || (step == 1 && admission == Admission::Probe));
                        if step == 2 && breaker.is_open() && (!was_open || admission == Admission::Probe) {
                            opened = Some(now);
                        }
                    },
                }
            }
        }
    }
}
