//! Dead letters: found by subscription, stage and place, and counted as they come and go.

use majordomo_model::Envelope;

use super::lookup::{Lookup, ReadError};
use super::progress::{LetterRow, LetterState};
use super::reader::{Reader, Unreadable, open_personal};
use super::redb::{View, WriteView};
use super::row::{decode, decode_signal, encode};
use super::table::{Key, KeyReader, NulInText, Table};

/// Whether a letter waits for an operator or for its subscriber; it comes before the place in the key, so that what
/// is due is found without a look at what is dead. Part of the file, never renumbered.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Given up.
    Dead = 0,
    /// To be tried again, or being tried again.
    Due = 1,
}

impl Stage {
    const fn of(state: LetterState) -> Self {
        match state {
            LetterState::Dead => Self::Dead,
            LetterState::Due | LetterState::InHand => Self::Due,
        }
    }

    const fn other(self) -> Self {
        match self {
            Self::Dead => Self::Due,
            Self::Due => Self::Dead,
        }
    }
}

/// The key of a subscription's number of letters, and what the key of each of them starts with.
fn count_key(subscription: &str) -> Result<Key, NulInText> {
    Key::new().text(subscription)
}

fn stage_prefix(subscription: &str, stage: Stage) -> Result<Key, NulInText> {
    Ok(count_key(subscription)?.u8(stage as u8))
}

fn letter_key(subscription: &str, stage: Stage, seq: u64) -> Result<Key, NulInText> {
    Ok(stage_prefix(subscription, stage)?.u64(seq))
}

/// A letter, at whichever stage it is.
pub(super) fn find<V: View>(view: &V, subscription: &str, seq: u64) -> Result<Option<LetterRow>, ReadError> {
    for stage in [Stage::Dead, Stage::Due] {
        if let Some(letter) = view.row(Table::DeadLetters, &letter_key(subscription, stage, seq)?)? {
            return Ok(Some(letter));
        }
    }
    Ok(None)
}

/// The letters of a stage behind a place, in the order of places, at most so many.
fn page<V: View>(
    view: &V,
    subscription: &str,
    stage: Stage,
    after: Option<u64>,
    limit: usize,
) -> Result<Vec<(u64, LetterRow)>, ReadError> {
    let prefix = stage_prefix(subscription, stage)?;
    let end = super::table::prefix_end(&prefix);
    let from = match after {
        Some(u64::MAX) => return Ok(Vec::new()),
        Some(after) => letter_key(subscription, stage, after.saturating_add(1))?,
        None => prefix.clone(),
    };
    let mut letters = Vec::new();
    for row in view.range(Table::DeadLetters, &from, end.as_deref())?.take(limit) {
        let row = row?;
        let seq = KeyReader::new(row.key().strip_prefix(&*prefix).ok_or(ReadError::Key)?).u64()?;
        letters.push((seq, decode(row.value())?));
    }
    Ok(letters)
}

fn count<V: View>(view: &V, subscription: &str) -> Result<u64, ReadError> {
    let stored = view.get(Table::DeadLetters, &count_key(subscription)?)?;
    Ok(stored.map(|bytes| KeyReader::new(&bytes).u64()).transpose()?.unwrap_or(0))
}

fn set_count(transaction: &mut WriteView<'_>, subscription: &str, count: u64) -> Result<(), ReadError> {
    let key = count_key(subscription)?;
    if count == 0 {
        transaction.remove(Table::DeadLetters, &key)?;
    } else {
        transaction.put(Table::DeadLetters, &key, &Key::new().u64(count))?;
    }
    Ok(())
}

/// Stores a letter at its stage, in the place of an earlier one of the same signal.
pub(super) fn put(
    transaction: &mut WriteView<'_>,
    subscription: &str,
    seq: u64,
    letter: &LetterRow,
) -> Result<(), ReadError> {
    let stage = Stage::of(letter.state);
    let key = letter_key(subscription, stage, seq)?;
    let moved = transaction.remove(Table::DeadLetters, &letter_key(subscription, stage.other(), seq)?)?;
    if !moved && transaction.get(Table::DeadLetters, &key)?.is_none() {
        let letters = count(transaction, subscription)?;
        set_count(transaction, subscription, letters.saturating_add(1))?;
    }
    Ok(transaction.put(Table::DeadLetters, &key, &encode(letter)?)?)
}

/// Forgets a letter, at whichever stage it is.
pub(super) fn remove(transaction: &mut WriteView<'_>, subscription: &str, seq: u64) -> Result<(), ReadError> {
    for stage in [Stage::Dead, Stage::Due] {
        if transaction.remove(Table::DeadLetters, &letter_key(subscription, stage, seq)?)? {
            let letters = count(transaction, subscription)?;
            set_count(transaction, subscription, letters.saturating_sub(1))?;
        }
    }
    Ok(())
}

impl Reader {
    /// A dead letter of a subscription, by its signal's place.
    pub fn letter(&self, subscription: &str, seq: u64) -> Result<Option<LetterRow>, Unreadable> {
        self.snapshot(|view| find(view, subscription, seq))
    }

    /// The letters of a subscription that are to be tried again or are being tried again, each with its place and in
    /// the order of places, at most so many.
    pub fn due_letters(&self, subscription: &str, limit: usize) -> Result<Vec<(u64, LetterRow)>, Unreadable> {
        self.snapshot(|view| page(view, subscription, Stage::Due, None, limit))
    }

    /// The letters of a subscription that wait for an operator, behind a place, at most so many.
    pub fn given_up(
        &self,
        subscription: &str,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<(u64, LetterRow)>, Unreadable> {
        self.snapshot(|view| page(view, subscription, Stage::Dead, after, limit))
    }

    /// The letters of a subscription behind a place, however they stand, in the order of places, at most so many.
    pub fn letters(
        &self,
        subscription: &str,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<(u64, LetterRow)>, Unreadable> {
        self.snapshot(|view| {
            let mut letters = page(view, subscription, Stage::Dead, after, limit)?;
            letters.extend(page(view, subscription, Stage::Due, after, limit)?);
            letters.sort_unstable_by_key(|(seq, _)| *seq);
            letters.truncate(limit);
            Ok(letters)
        })
    }

    /// How many letters a subscription has, however they stand; one look.
    pub fn letter_count(&self, subscription: &str) -> Result<u64, Unreadable> {
        self.snapshot(|view| count(view, subscription))
    }

    /// The signal of the letter at a place, with personal data opened where its user lives.
    pub fn open_letter(&self, letter: &LetterRow, seq: u64) -> Result<Envelope, Unreadable> {
        self.snapshot(|view| {
            let mut signals = [decode_signal(seq, &letter.envelope)?];
            open_personal(view, &mut signals)?;
            let [envelope] = signals;
            Ok(envelope)
        })
    }
}
