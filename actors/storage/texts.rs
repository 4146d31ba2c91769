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
        let slot = self.slots.iter_mut().rev().find(|slot| slot.from <= started_at);
        if let Some(slot) = slot.filter(|slot| slot.answered < slot.started) {
            slot.answered = slot.answered.saturating_add(1);
        }
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
        TextEvent::None => {}
    }
    put(transaction, region, &row)
}

/// Stores what is known of the text messages to a region.
pub(super) fn put(transaction: &mut WriteView<'_>, region: &str, row: &TextsRow) -> Result<(), ReadError> {
    Ok(transaction.put(Table::Texts, region.as_bytes(), &encode(row)?)?)
}
