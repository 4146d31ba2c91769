//! Texts: how many text messages to a region were started, how many were answered, and whether they are withheld.

use std::time::Duration;

use majordomo_model::Timestamp;
use serde::{Deserialize, Serialize};

use super::lookup::{Lookup, ReadError};
use super::redb::WriteView;
use super::row::encode;
use super::table::Table;

/// How long messages are counted together.
pub const SLOT: Duration = Duration::from_secs(300);
/// The most slots of a row; beyond them the two oldest are counted together.
const SLOTS: usize = 32;
/// The newest slots, whose messages may still be answered, take no older one's place.
const YOUNG: usize = 4;

/// The text messages to a region of late.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextsRow {
    /// By the time at which they were started, oldest first.
    #[serde(default)]
    pub slots: Vec<TextSlot>,
    /// Since when further ones are withheld; the slots count what was started after that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opened_at: Option<Timestamp>,
}

/// The text messages that were started from one time on until the next slot begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextSlot {
    /// When it begins.
    pub from: Timestamp,
    /// How many were started.
    pub started: u32,
    /// The link or code of how many of those was used.
    pub answered: u32,
}

/// What happened to a text message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextEvent {
    /// It was started; of those before it, at least so many of the latest are remembered.
    Started(u32),
    /// Its link or code was used.
    Answered,
    /// It was started, and never sent.
    Unsent,
    /// Nothing: the row is written as it is, so that it does not show.
    None,
}

impl TextsRow {
    /// Counts a message that was started now.
    pub fn start(&mut self, at: Timestamp, window: u32) {
        let slot = i64::try_from(SLOT.as_micros()).unwrap_or(i64::MAX);
        let from = Timestamp::from_micros(at.as_micros().div_euclid(slot).saturating_mul(slot));
        match self.slots.last_mut() {
            // A clock that was set back begins no slot before the last one.
            Some(last) if last.from >= from => last.started = last.started.saturating_add(1),
            _ => self.slots.push(TextSlot { from, started: 1, answered: 0 }),
        }
        self.shorten(window);
    }

    /// Counts an answer to a message by the time at which that was started.
    pub fn answer(&mut self, started_at: Timestamp) {
        if let Some(slot) = self.unanswered(started_at) {
            slot.answered = slot.answered.saturating_add(1);
        }
    }

    /// Counts a message no longer that was started at this time.
    pub fn withdraw(&mut self, started_at: Timestamp) {
        if let Some(slot) = self.unanswered(started_at) {
            slot.started = slot.started.saturating_sub(1);
        }
    }

    /// Where a message counts that was started at this time, if one of those there has no answer.
    fn unanswered(&mut self, started_at: Timestamp) -> Option<&mut TextSlot> {
        let slot = self.slots.iter_mut().rev().find(|slot| slot.from <= started_at);
        slot.filter(|slot| slot.answered < slot.started)
    }

    fn shorten(&mut self, window: u32) {
        loop {
            let settled = self.slots.len().saturating_sub(YOUNG);
            let newer = self.slots.iter().take(settled).skip(1).map(|slot| u64::from(slot.started)).sum::<u64>();
            if newer < u64::from(window) {
                break;
            }
            self.slots.remove(0);
        }
        while self.slots.len() > SLOTS {
            let oldest = self.slots.remove(0);
            if let Some(next) = self.slots.first_mut() {
                next.from = oldest.from;
                next.started = next.started.saturating_add(oldest.started);
                next.answered = next.answered.saturating_add(oldest.answered);
            }
        }
    }
}

/// Counts what happened to a text message to a region that was started at this time. Counting commutes, so that no batch
/// is refused for another's.
pub(super) fn count(
    transaction: &mut WriteView<'_>,
    region: &str,
    at: Timestamp,
    event: TextEvent,
) -> Result<(), ReadError> {
    let mut row = transaction.texts(region)?.unwrap_or_default();
    match event {
        TextEvent::Started(window) => row.start(at, window),
        TextEvent::Answered => row.answer(at),
        TextEvent::Unsent => row.withdraw(at),
        TextEvent::None => {}
    }
    put(transaction, region, &row)
}

/// Stores what is known of the text messages to a region.
pub(super) fn put(transaction: &mut WriteView<'_>, region: &str, row: &TextsRow) -> Result<(), ReadError> {
    Ok(transaction.put(Table::Texts, region.as_bytes(), &encode(row)?)?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);

    proptest! {
        #[test]
        fn the_row_is_bounded_and_holds_the_latest_and_each_answer_that_comes_in_time(
            messages in prop::collection::vec((0_u64..2_000, any::<bool>()), 1..200),
            window in 10_u32..200,
        ) {
            let (mut row, mut now, mut started) = (TextsRow::default(), START, 0);
            for (gap, is_answered) in messages {
                let sum = |row: &TextsRow| row.slots.iter().map(|slot| slot.answered).sum::<u32>();
                now = now.plus(Duration::from_secs(gap));
                row.start(now, window);
                started += 1;
                if is_answered {
                    let before = sum(&row);
                    row.answer(now);
                    prop_assert_eq!(sum(&row), before + 1);
                }
                prop_assert!(row.slots.len() <= SLOTS);
                prop_assert!(row.slots.is_sorted_by_key(|slot| slot.from));
                prop_assert!(row.slots.iter().all(|slot| slot.answered <= slot.started));
                let kept = row.slots.iter().map(|slot| slot.started).sum::<u32>();
                prop_assert!(kept >= window.min(started), "{kept} of {started}");
            }
        }
    }

    #[test]
    fn an_answer_counts_for_the_slot_that_its_message_was_started_in_and_not_twice() {
        let at = |seconds: u64| START.plus(Duration::from_secs(seconds));
        let mut row = TextsRow::default();
        for second in [0, 1, 400] {
            row.start(at(second), 10);
        }
        row.answer(at(1));
        row.answer(at(400));
        row.answer(at(401));
        assert_eq!(row.slots.iter().map(|slot| slot.answered).collect::<Vec<_>>(), [1, 1]);
        row.answer(Timestamp::from_micros(0));
        assert_eq!(row.slots.iter().map(|slot| (slot.started, slot.answered)).collect::<Vec<_>>(), [(2, 1), (1, 1)]);
        row.withdraw(at(1));
        row.withdraw(at(1));
        row.withdraw(at(400));
        let counts = |row: &TextsRow| row.slots.iter().map(|slot| (slot.started, slot.answered)).collect::<Vec<_>>();
        assert_eq!(counts(&row), [(1, 1), (1, 1)], "what was answered was sent");
        row.start(START, 10);
        assert_eq!(row.slots.len(), 2, "a clock that was set back");
    }
}
