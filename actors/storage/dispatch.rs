//! Dispatches: which subscription is sending the message that a signal asks for, and which messages are settled.

use std::time::Duration;

use majordomo_model::{SignalId, Timestamp};
use serde::{Deserialize, Serialize};

use super::lookup::{Lookup, ReadError};
use super::redb::WriteView;
use super::row::encode;
use super::table::Table;
use super::write::{Expiring, expire, forget};

/// When it is looked again whether the signal of a settled message is still in the log.
const LOOKED_AGAIN: Duration = Duration::from_secs(30 * 24 * 3_600);

/// A claim on the message that a signal asks for, as stored under the signal's id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DispatchRow {
    /// The signal's place in the log.
    pub place: u64,
    /// The subscription that sends it.
    pub holder: String,
    /// Until when nobody else sends it; of a settled one, when it is looked whether the row may go.
    pub until: Timestamp,
    /// Whether it is told what became of the message: then nobody sends it any more.
    pub settled: bool,
}

impl DispatchRow {
    /// The row of a message that is settled.
    pub fn settled(place: u64, holder: &str, now: Timestamp) -> Self {
        Self { place, holder: holder.to_owned(), until: now.plus(LOOKED_AGAIN), settled: true }
    }
}

/// Stores a claim, in the place of an earlier one.
pub(super) fn put(transaction: &mut WriteView<'_>, signal: SignalId, row: &DispatchRow) -> Result<(), ReadError> {
    if let Some(earlier) = transaction.dispatch(signal)? {
        forget(transaction, earlier.until, Expiring::Dispatch, signal.as_bytes())?;
    }
    expire(transaction, row.until, Expiring::Dispatch, signal.as_bytes())?;
    Ok(transaction.put(Table::Dispatches, signal.as_bytes(), &encode(row)?)?)
}

/// Removes a claim whose time is over. A settled one stays as long as its signal is in the log, where a subscription
/// that is set back finds it again.
pub(super) fn sweep(
    transaction: &mut WriteView<'_>,
    signal: SignalId,
    oldest: u64,
    now: Timestamp,
) -> Result<(), ReadError> {
    match transaction.dispatch(signal)? {
        Some(row) if row.settled && row.place >= oldest => {
            put(transaction, signal, &DispatchRow { until: now.plus(LOOKED_AGAIN), ..row })
        }
        _ => {
            transaction.remove(Table::Dispatches, signal.as_bytes())?;
            Ok(())
        }
    }
}
