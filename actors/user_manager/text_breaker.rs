//! Text breaker: whether text messages to a region go on being sent, by how many of them were answered.
//!
//! Who pumps text messages has them sent to numbers where nobody waits for one. So of the messages to a region too few
//! are answered by their link or code, and further ones are withheld, until a few that are let through are answered.

use std::time::Duration;

use majordomo_model::Timestamp;
use serde::{Deserialize, Serialize};

use crate::storage::{SLOT, TextSlot, TextsRow};

/// How long an answer may take: nothing that a text message carries works for longer.
const GRACE: Duration = Duration::from_secs(600);
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3_600);

/// When text messages to a region are withheld because too few of them are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct TextBreaker {
    /// Of how many messages, the latest that are old enough to be answered, the answers are counted; or a few more. 10 to
    /// 10,000, default 100.
    pub window: u32,
    /// Of how many at least, before anything is withheld. At most as many as `window`; default 50.
    pub least: u32,
    /// How many of a hundred have to be answered. 1 to 90, default 10.
    pub percent: u32,
    /// For how long all are withheld before a few are let through, again and again until enough of those are answered.
    /// 1 minute to 7 days, default 1 hour.
    pub pause: Duration,
    /// How many are let through then. 1 to 1,000, default 20.
    pub trials: u32,
}

impl Default for TextBreaker {
    fn default() -> Self {
        Self { window: 100, least: 50, percent: 10, pause: Duration::from_secs(3_600), trials: 20 }
    }
}

/// What is to become of one more message to a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ruling {
    /// It is sent.
    Pass,
    /// It is sent, to see whether it is answered.
    Try,
    /// It is sent: enough of those that were let through were answered.
    Close(Tally),
    /// It is withheld, and so are those after it.
    Open(Tally),
    /// It is withheld, and so are those after it once more: too few of those that were let through were answered.
    Reopen,
    /// It is withheld.
    Withhold,
}

impl Ruling {
    /// What is known after it, and whether the message is sent.
    pub(super) fn apply(self, row: &TextsRow, now: Timestamp, breaker: &TextBreaker) -> (TextsRow, bool) {
        let (mut row, is_sent) = match self {
            Self::Pass | Self::Try => (row.clone(), true),
            Self::Close(_) => (TextsRow::default(), true),
            Self::Open(_) | Self::Reopen => (TextsRow { slots: Vec::new(), opened_at: Some(now) }, false),
            Self::Withhold => (row.clone(), false),
        };
        if is_sent {
            row.start(now, breaker.window);
        }
        (row, is_sent)
    }
}

/// How many messages were started, and how many of them answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) started: u32,
    pub(super) answered: u32,
}

impl Tally {
    const fn and(self, slot: &TextSlot) -> Self {
        let started = self.started.saturating_add(slot.started);
        Self { started, answered: self.answered.saturating_add(slot.answered) }
    }
}

impl TextBreaker {
    /// Every fault, as sentences for whoever wrote it.
    pub(super) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for (name, fits, words) in [
            ("window", (10..=10_000).contains(&self.window), "10 to 10000"),
            ("least", (1..=self.window).contains(&self.least), "1 to as many as the window"),
            ("percent", (1..=90).contains(&self.percent), "1 to 90"),
            ("pause", (Duration::from_secs(60)..=LONGEST).contains(&self.pause), "1 minute to 7 days"),
            ("trials", (1..=1_000).contains(&self.trials), "1 to 1000"),
        ] {
            if !fits {
                faults.push(format!("policy.messages.texts.breaker.{name}: {words}"));
            }
        }
        faults
    }

    /// Rules by what is known of the messages to the region.
    pub(super) fn rule(&self, row: &TextsRow, now: Timestamp) -> Ruling {
        match row.opened_at {
            None => {
                let tally = self.settled(row, now);
                let too_few = u64::from(tally.answered) * 100 < u64::from(self.percent) * u64::from(tally.started);
                if tally.started >= self.least && too_few { Ruling::Open(tally) } else { Ruling::Pass }
            }
            // Nobody waits for a time in the future, which a clock that was ahead has left.
            Some(opened_at) if opened_at <= now && now < opened_at.plus(self.pause) => Ruling::Withhold,
            Some(_) => {
                let tally = row.slots.iter().fold(Tally::default(), Tally::and);
                if tally.answered >= self.needed() {
                    Ruling::Close(tally)
                } else if tally.started < self.trials {
                    Ruling::Try
                } else if row.slots.iter().all(|slot| is_settled(slot, now)) {
                    Ruling::Reopen
                } else {
                    Ruling::Withhold
                }
            }
        }
    }

    /// How many of those that were let through have to be answered.
    fn needed(&self) -> u32 {
        self.trials.saturating_mul(self.percent).div_ceil(100).max(1)
    }

    /// The latest messages that are answered by now, or never will be.
    fn settled(&self, row: &TextsRow, now: Timestamp) -> Tally {
        let mut tally = Tally::default();
        for slot in row.slots.iter().rev().filter(|slot| is_settled(slot, now)) {
            if tally.started >= self.window {
                break;
            }
            tally = tally.and(slot);
        }
        tally
    }
}

fn is_settled(slot: &TextSlot, now: Timestamp) -> bool {
    slot.from.plus(SLOT).plus(GRACE) <= now
}

/// What may be known, of every shape.
#[cfg(test)]
pub(super) mod cases {
    use proptest::prelude::*;

    use super::*;

    pub(in super::super) fn texts(now: Timestamp) -> impl Strategy<Value = Option<TextsRow>> {
        let at = move |ago: u64| Timestamp::from_micros(now.as_micros() - i64::try_from(ago).unwrap() * 1_000_000);
        let slot = (0_u64..9_000, 0_u32..90, 0_u32..90).prop_map(move |(ago, started, answered)| TextSlot {
            from: at(ago),
            started,
            answered: answered.min(started),
        });
        let row = (prop::collection::vec(slot, 0..4), prop::option::of((0_u64..9_000).prop_map(at)));
        prop::option::of(row.prop_map(|(mut slots, opened_at)| {
            slots.sort_by_key(|slot| slot.from);
            TextsRow { slots, opened_at }
        }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);

    fn after(seconds: u64) -> Timestamp {
        START.plus(Duration::from_secs(seconds))
    }

    /// A region, with whatever its rulings made of its row.
    #[derive(Default)]
    struct Region {
        row: TextsRow,
        opened: usize,
        closed: usize,
    }

    impl Region {
        /// Asks for a message; whether it is sent.
        fn ask(&mut self, now: Timestamp, breaker: &TextBreaker) -> bool {
            let ruling = breaker.rule(&self.row, now);
            let (row, is_sent) = ruling.apply(&self.row, now, breaker);
            self.row = row;
            self.opened += usize::from(matches!(ruling, Ruling::Open(_)));
            self.closed += usize::from(matches!(ruling, Ruling::Close(_)));
            is_sent
        }
    }

    #[test]
    fn fifty_that_nobody_answers_open_it_and_the_answers_to_a_few_close_it() {
        let (breaker, mut region) = (TextBreaker::default(), Region::default());
        assert!((0..50).all(|second| region.ask(after(second), &breaker)));
        assert!(region.ask(after(899), &breaker), "they may still be answered");
        assert!(!region.ask(after(900), &breaker));
        assert!((901..4_500).step_by(100).all(|second| !region.ask(after(second), &breaker)));
        let sent = (4_500..4_600).filter(|second| region.ask(after(*second), &breaker)).count();
        assert_eq!((sent, region.opened, region.closed), (20, 1, 0), "a few are let through");
        assert!(!region.ask(after(5_600), &breaker), "none was answered");
        assert!(!region.ask(after(9_100), &breaker), "so that the pause began anew");
        assert!((9_201..9_221).all(|second| region.ask(after(second), &breaker)));
        region.row.answer(after(9_202));
        assert!(!region.ask(after(9_222), &breaker), "one of twenty is too few");
        region.row.answer(after(9_203));
        assert!((9_223..9_300).all(|second| region.ask(after(second), &breaker)));
        assert_eq!((region.opened, region.closed), (1, 1));
    }

    #[test]
    fn a_burst_is_not_judged_before_it_can_be_answered_and_a_tenth_is_enough() {
        let (breaker, mut region) = (TextBreaker::default(), Region::default());
        assert!((0..1_000).all(|_| region.ask(START, &breaker)));
        (0..100).for_each(|_| region.row.answer(START));
        assert!((0..9).all(|minute| region.ask(after(890 + minute), &breaker)));
        assert!(region.ask(after(900), &breaker));
        region.row.slots[0].answered -= 1;
        assert!(!region.ask(after(901), &breaker));
    }

    #[test]
    fn a_clock_that_was_ahead_withholds_nothing_for_ever() {
        let years = START.plus(LONGEST * 500);
        let breaker = TextBreaker::default();
        let row = TextsRow { opened_at: Some(years), ..TextsRow::default() };
        assert_eq!(breaker.rule(&row, START), Ruling::Try);
    }

    #[test]
    fn faults_are_named_and_the_default_has_none() {
        assert_eq!(TextBreaker::default().faults(), Vec::<String>::new());
        let wrong = TextBreaker { window: 9, least: 10, percent: 0, pause: Duration::ZERO, trials: 0 };
        assert_eq!(wrong.faults().len(), 5, "{:?}", wrong.faults());
    }

    proptest! {
        /// Four of five are answered, each within the time that its code works, whatever the traffic is like.
        #[test]
        fn honest_traffic_never_opens_it(
            messages in prop::collection::vec((0_u64..900, 1_u64..600), 1..600),
        ) {
            let (breaker, mut region) = (TextBreaker::default(), Region::default());
            let (mut now, mut due) = (0, Vec::new());
            for (number, (gap, delay)) in messages.into_iter().enumerate() {
                now += gap;
                let (answers, later): (Vec<_>, _) = due.into_iter().partition(|(_, at)| *at <= now);
                due = later;
                answers.into_iter().for_each(|(started, _)| region.row.answer(after(started)));
                prop_assert!(region.ask(after(now), &breaker), "the {number}th");
                if number % 5 != 4 {
                    due.push((now, now + delay));
                }
            }
            prop_assert!(region.row.slots.len() <= 32);
        }

        /// However messages are asked for, of those that nobody answers few are sent: those of a quarter of an hour and the
        /// last ones before it, and as many as are tried in each pause.
        #[test]
        fn what_nobody_answers_stops(gaps in prop::collection::vec(0_u64..120, 400)) {
            let (breaker, mut region) = (TextBreaker::default(), Region::default());
            let (mut now, mut sent) = (0, Vec::new());
            for gap in gaps {
                now += gap;
                sent.extend(region.ask(after(now), &breaker).then_some(now));
            }
            if let Some(fiftieth) = sent.get(49).copied() {
                let later = sent.iter().filter(|at| **at > fiftieth + 1_200).count() as u64;
                let pauses = now.saturating_sub(fiftieth) / 3_600 + 1;
                prop_assert!(later <= pauses * u64::from(breaker.trials), "{later} in {pauses} pauses");
            }
        }
    }
}
