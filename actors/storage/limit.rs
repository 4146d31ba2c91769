//! Limits: how far each budget of attempts is spent, and how often users failed to sign in since they last did.

use std::time::Duration;

use majordomo_model::Timestamp;
use serde::{Deserialize, Serialize};

use super::lookup::{Lookup, ReadError};
use super::redb::WriteView;
use super::row::encode;
use super::table::Table;
use super::write::{Expiring, expire, forget};

/// How far a budget is spent: the one instant of the generic cell rate algorithm (ITU-T I.371).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitRow {
    /// When nothing of it is spent any more.
    pub whole_at: Timestamp,
}

impl LimitRow {
    /// Whether `cost` can be taken from a budget that is whole again `most` after it was spent altogether.
    #[must_use]
    pub fn has_room(&self, at: Timestamp, cost: Duration, most: Duration) -> bool {
        // What lies beyond that was written by a clock that was ahead.
        let spent_until = self.whole_at.min(at.plus(most));
        spent_until.plus(cost) <= at.plus(most)
    }
}

/// Failed attempts to sign in as one user, or as somebody who does not exist.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptRow {
    /// How many since the last success.
    pub failures: u64,
    /// When the last one was.
    pub last_at: Timestamp,
    /// When the row goes.
    pub expires_at: Timestamp,
    /// Until when only a device that is known may sign in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locked_until: Option<Timestamp>,
}

impl AttemptRow {
    /// Whether only a device that is known may sign in.
    #[must_use]
    pub fn is_locked(&self, now: Timestamp) -> bool {
        self.locked_until.is_some_and(|until| now < until)
    }

    /// How many count at this time.
    #[must_use]
    pub fn counted(&self, now: Timestamp) -> u64 {
        if now < self.expires_at { self.failures } else { 0 }
    }
}

/// Takes `cost` from a budget that is whole again `most` after it was spent altogether. Spending commutes, so that no
/// batch is refused for another's.
pub(super) fn spend(
    transaction: &mut WriteView<'_>,
    key: &[u8; 32],
    at: Timestamp,
    cost: Duration,
    most: Duration,
) -> Result<(), ReadError> {
    let earlier = transaction.limit(key)?;
    // What lies beyond that was written by a clock that was ahead.
    let from = earlier.map_or(at, |row| row.whole_at.max(at).min(at.plus(most)));
    let row = LimitRow { whole_at: from.plus(cost) };
    // Its entry stays where it was first: the sweeper moves it on, once, instead of every spending.
    if earlier.is_none() {
        expire(transaction, row.whole_at, Expiring::Limit, key)?;
    }
    Ok(transaction.put(Table::Limits, key, &encode(&row)?)?)
}

/// Removes a budget that is whole again, or puts it off until it is.
pub(super) fn sweep(transaction: &mut WriteView<'_>, key: &[u8; 32], now: Timestamp) -> Result<(), ReadError> {
    match transaction.limit(key)? {
        Some(row) if row.whole_at > now => expire(transaction, row.whole_at, Expiring::Limit, key),
        _ => {
            transaction.remove(Table::Limits, key)?;
            Ok(())
        }
    }
}

/// Counts a failed attempt; what had expired is forgotten, whether or not the sweeper has come by.
pub(super) fn record_failure(
    transaction: &mut WriteView<'_>,
    subject: &[u8; 32],
    at: Timestamp,
    expires_at: Timestamp,
) -> Result<(), ReadError> {
    let earlier = transaction.attempts(subject)?;
    let counted = earlier.filter(|row| row.expires_at > at);
    let locked_until = counted.as_ref().and_then(|row| row.locked_until);
    let row = AttemptRow {
        failures: counted.as_ref().map_or(0, |row| row.failures).saturating_add(1),
        last_at: at,
        expires_at: expires_at.max(locked_until.unwrap_or(expires_at)),
        locked_until,
    };
    put_attempts(transaction, subject, &row)
}

/// Stores failed attempts, in the place of what was stored of them.
pub(super) fn put_attempts(
    transaction: &mut WriteView<'_>,
    subject: &[u8; 32],
    row: &AttemptRow,
) -> Result<(), ReadError> {
    clear_failures(transaction, subject)?;
    expire(transaction, row.expires_at, Expiring::Attempt, subject)?;
    Ok(transaction.put(Table::Attempts, subject, &encode(row)?)?)
}

/// Forgets failed attempts.
pub(super) fn clear_failures(transaction: &mut WriteView<'_>, subject: &[u8; 32]) -> Result<(), ReadError> {
    let Some(row) = transaction.attempts(subject)? else { return Ok(()) };
    forget(transaction, row.expires_at, Expiring::Attempt, subject)?;
    transaction.remove(Table::Attempts, subject)?;
    Ok(())
}
