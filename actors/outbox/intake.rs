//! The intake: reads the cursor, sees what became of what was left for later, and takes in what the log holds.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use majordomo_model::{Envelope, Gap, SignalKind};

use super::cursor::{Cursor, Seen};
use super::feed::Feed;
use super::follow_up::{self, FollowUps};
use super::gap::Missing;
use super::lease::LEASE;
use super::ledger::{Ledger, Now, WINDOW};
use super::progress::commit;
use super::worker::{ARRIVAL, Cut, Worker};
use crate::storage::{Batch, Check, CursorRow, Unreadable, Write};

/// How many places are looked at in one turn at most, so that orders are heard.
const PAGES: usize = 16;
/// How many signals have to find room before more are read.
pub(super) const REFILL: usize = WINDOW / 4;
/// How much of the log is read at a time, in bytes.
const PAGE_BYTES: usize = 4 << 20;

impl Worker {
    /// Reads the cursor, or makes it, and takes the lease.
    ///
    /// It is a commit of its own: batches that an earlier incarnation left for later precede it, so the cursor is what
    /// they made of it.
    pub(super) async fn open(&mut self) -> Result<(), Cut> {
        let feed = Arc::clone(&self.feed);
        let (name, reader) = (&feed.registration.name, &feed.desk.reader);
        let (check, stored) = match reader.cursor(name)? {
            Some(row) => (Check::Cursor(name.clone(), row.revision), row),
            None => {
                let taken = reader.place(feed.registration.start)?.saturating_sub(1);
                let row = CursorRow { taken, created_at: feed.now(), ..CursorRow::default() };
                (Check::NoCursor(name.clone()), row)
            }
        };
        let mut row = stored.clone();
        row.revision = stored.revision.saturating_add(1);
        row.leased = row.taken.saturating_add(LEASE);
        let first = !feed.opened.load(Ordering::SeqCst);
        row.max_lag = feed.registration.settings.max_lag;
        row.keeps_projection = feed.registration.settings.keep_projection;
        if feed.has_recovered(&row)? {
            row.lapsed_at = None;
        }
        let writes = vec![Write::PutCursor(name.clone(), row.clone())];
        let flow = majordomo_model::FlowId::new();
        let batch = Batch { flow, outcome: None, checks: vec![check], writes, signals: Vec::new() };
        if !commit(&feed.storage, batch).await? {
            return Err(Cut::Lost);
        }
        // Within a process it is known what was in hand; of a process that ended only what may have been.
        feed.opened.store(true, Ordering::SeqCst);
        let suspects = if first { stored.leased.min(reader.head()?) } else { 0 };
        let mut interrupted = feed.hands().clear();
        interrupted.extend(self.blamed.drain());
        if let Some(halted) = &row.halted {
            feed.halt(halted);
        }
        let now = Now::of(&feed);
        self.ledger = Ledger::new(&row, now, suspects, interrupted, &feed.registration.settings);
        feed.desk.projection().restart(row.projection.written);
        self.cursor = Some(Cursor::new(name, row));
        for signal in reader.signals_at(&self.ledger.wanting())? {
            self.ledger.supply(signal.seq.unwrap_or_default(), Arc::new(signal));
        }
        self.looks = false;
        self.note_settled();
        Ok(())
    }

    /// Compares what is stored with what the store was told: nobody tells whether a batch that was left for later
    /// arrived, and an operator may have written the row.
    pub(super) async fn compare(&mut self) -> Result<(), Cut> {
        let stored = self.feed.desk.reader.cursor(&self.feed.registration.name)?;
        let Some(cursor) = &mut self.cursor else { return Err(Cut::Lost) };
        match cursor.saw(stored.ok_or(Cut::Lost)?.revision) {
            Seen::SomebodyElse => Err(Cut::Lost),
            Seen::Everything => {
                if cursor.is_settled(cursor.told()) {
                    self.feed.desk.projection().stored();
                }
                Ok(())
            }
            // Nothing is told as finished whose effects are not stored yet; and what is on its way may still arrive.
            Seen::Part if !self.unstored.is_empty() || self.renewal.is_some() => Ok(()),
            Seen::Part if self.settled_at.elapsed() >= ARRIVAL => self.settle_now(FollowUps::default()).await,
            Seen::Part => Ok(()),
        }
    }

    /// Takes in what the log holds, as far as there is room.
    pub(super) fn fill(&mut self) -> Result<(), Cut> {
        let feed = Arc::clone(&self.feed);
        if self.gap.is_some() {
            self.behind = false;
            return Ok(());
        }
        if let Some(from) = self.ledger.wanting().first().copied() {
            let to = self.ledger.wanting().into_iter().zip(from..).take_while(|(seq, next)| seq == next).count() as u64;
            self.gap = Some(Missing::new(Gap { from, to: from.saturating_add(to).saturating_sub(1) }));
            return Ok(());
        }
        for _ in 0..PAGES {
            if self.ledger.room() < REFILL {
                return Ok(());
            }
            let taken = self.ledger.taken();
            let admits = |kind| feed.registration.filter.admits(kind);
            let admits: Option<&dyn Fn(SignalKind) -> bool> = if feed.is_selective { Some(&admits) } else { None };
            let page = feed.desk.reader.log_page(taken, self.ledger.room(), PAGE_BYTES, admits)?;
            self.behind = page.places.last().is_some_and(|(last, _)| *last < page.head);
            self.head = page.head;
            let next = page.places.first().map_or(page.head.saturating_add(1), |(first, _)| *first);
            if next > taken.saturating_add(1) {
                // The log has no holes, so what is not there was pruned.
                self.gap = Some(Missing::new(Gap { from: taken.saturating_add(1), to: next.saturating_sub(1) }));
                return Ok(());
            }
            if page.places.is_empty() {
                return Ok(());
            }
            for (seq, signal) in page.places {
                if self.is_after_rebuild(seq) {
                    self.behind = false;
                    return Ok(());
                }
                let passes = match &signal {
                    Some(signal) => feed.passes(signal)? && !self.is_left_out_of_rebuild(seq)?,
                    None => false,
                };
                self.ledger.take(seq, signal.filter(|_| passes).map(Arc::new));
            }
        }
        self.more = true;
        Ok(())
    }
}

impl Feed {
    /// Whether a subscription that lapsed has come past what was pruned, and lies no longer too far behind.
    pub(super) fn has_recovered(&self, row: &CursorRow) -> Result<bool, Unreadable> {
        Ok(row.lapsed_at.is_some()
            && self.desk.reader.oldest()? <= row.floor().saturating_add(1)
            && !self.storage.is_overdue(row)?)
    }

    /// Whether a signal is to be handed over at all.
    fn passes(&self, signal: &Envelope) -> Result<bool, Unreadable> {
        let filter = &self.registration.filter;
        if !filter.passes(signal) || follow_up::descends(signal, &self.registration.name) {
            return Ok(false);
        }
        filter.passes_groups(signal, |user| self.desk.reader.groups_of(user))
    }
}
