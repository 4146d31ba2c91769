//! Progress: what the store is to know of a subscription, told with the next commit of anybody, or at once.

use std::time::Duration;

use tokio::time::Instant;

use super::follow_up::FollowUps;
use super::intake::REFILL;
use super::ledger::Now;
use super::worker::{Cut, Worker};
use crate::storage::{Batch, CommitError, CursorRow, Storage, Verdict};

/// How long progress may stay in memory while there is work.
const SETTLE_AFTER: Duration = Duration::from_secs(1);
/// How many batches may be left for later before one is committed at once, which tells whether they arrived.
const UNCONFIRMED_LIMIT: usize = 8;

impl Worker {
    /// The row as it is to be now.
    pub(super) fn row(&self) -> CursorRow {
        let Some(cursor) = &self.cursor else { return CursorRow::default() };
        let mut row = cursor.next_row();
        self.ledger.enter(Now::of(&self.feed), &mut row);
        // Of a log of which little is handed over, all that was looked at: it is places that are leased.
        row.leased = row.taken.saturating_add(self.pace.reach()).max(self.ledger.taken());
        row
    }

    /// Leaves progress for the next commit; a crash before it only repeats deliveries.
    pub(super) async fn settle(&mut self) -> Result<(), Cut> {
        if !self.asides.is_empty() {
            return self.settle_now(FollowUps::default()).await;
        }
        self.renew()?;
        if self.renewal.is_some() {
            // What follows it can only be stored once it is; its end wakes this.
            return Ok(());
        }
        let row = self.row();
        let Some(cursor) = &mut self.cursor else { return Err(Cut::Lost) };
        if self.feed.has_recovered(&row)? {
            // It has caught up: the log is kept for it again.
            let row = CursorRow { lapsed_at: None, ..row };
            return if self.commit_row(row, FollowUps::default()).await? { Ok(()) } else { Err(Cut::Lost) };
        }
        if cursor.is_settled(&row) {
            self.note_settled();
            return Ok(());
        }
        let is_calm = self.ledger.is_idle() && !self.more;
        let is_time = is_calm || cursor.is_heavy() || self.settled_at.elapsed() > SETTLE_AFTER;
        if !is_time {
            return Ok(());
        }
        if cursor.unconfirmed() >= UNCONFIRMED_LIMIT {
            return self.settle_now(FollowUps::default()).await;
        }
        let batch = cursor.leave(row);
        self.feed.storage.commit_with_next(batch);
        self.note_settled();
        Ok(())
    }

    /// Makes progress durable, with what is to be told.
    pub(super) async fn settle_now(&mut self, follow_ups: FollowUps) -> Result<(), Cut> {
        let row = self.row();
        if self.commit_row(row, follow_ups).await? { Ok(()) } else { Err(Cut::Lost) }
    }

    /// Commits a row with what belongs to it, and with what is to be told; `false` if a check failed.
    pub(super) async fn commit_row(&mut self, row: CursorRow, mut follow_ups: FollowUps) -> Result<bool, Cut> {
        self.renewed_again().await?;
        follow_ups.signals.extend(self.asides.iter().cloned());
        let Some(cursor) = &self.cursor else { return Err(Cut::Lost) };
        let batch = cursor.batch(row.clone(), follow_ups);
        if !commit(&self.feed.storage, batch).await? {
            return Ok(false);
        }
        if let Some(cursor) = &mut self.cursor {
            cursor.confirm(row);
        }
        self.asides.clear();
        self.feed.desk.projection().stored();
        self.note_settled();
        Ok(true)
    }

    /// Notes, for whoever waits, how far the store was told. They see how that was come to, for it is shown before.
    pub(super) fn note_settled(&mut self) {
        self.settled_at = Instant::now();
        self.show();
        let floor = self.cursor.as_ref().map_or(0, |cursor| cursor.told().floor());
        self.feed.reached(floor);
        let full = self.ledger.room() < REFILL;
        let calm = self.ledger.calm_floor(Now::of(&self.feed));
        self.feed.settled(self.look, calm.unwrap_or(if full { u64::MAX } else { self.ledger.taken() }));
    }
}

/// Commits a batch; answers whether every check held.
pub(super) async fn commit(storage: &Storage, batch: Batch) -> Result<bool, Cut> {
    came_to(storage.commit(batch).await)
}

/// Whether every check of a commit held.
pub(super) fn came_to(committed: Result<Verdict, CommitError>) -> Result<bool, Cut> {
    match committed {
        Ok(verdict) => Ok(matches!(verdict, Verdict::Committed(_))),
        Err(CommitError::Stopped) => Err(Cut::Stopped),
        Err(CommitError::Failed) => Err(Cut::Lost),
        Err(_) => Err(Cut::StoreOut),
    }
}
