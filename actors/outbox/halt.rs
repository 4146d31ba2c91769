//! The halt: a subscriber that failed too often, or asks to be handed nothing more, which is stored; and its release.

use majordomo_model::{Actor, Envelope, Signal};

use super::follow_up::{self, FollowUps};
use super::ledger::shortened;
use super::worker::{Cut, Worker};
use super::{Feed, OperationError, Outbox};
use crate::storage::{Batch, Check, CursorRow, FailureRow, Write};

/// What tells that a subscriber is handed nothing more.
pub(super) fn quarantined(feed: &Feed, failure: String) -> Envelope {
    let name = &feed.registration.name;
    let told = Signal::SubscriberQuarantined { subscriber: name.clone(), failure };
    follow_up::concerning(name, Actor::System, feed.now(), told)
}

impl Worker {
    /// Tells that a subscriber failed too often, and hands it nothing more from then on: who sees that it is quarantined can
    /// read of it.
    pub(super) async fn quarantine(&mut self) -> Result<(), Cut> {
        let Some(failure) = self.failing.clone() else { return Ok(()) };
        if !self.feed.is_quarantined() {
            let subscription = &self.feed.registration.name;
            tracing::error!(subscription, failure, "a subscriber failed too often and is quarantined");
            let told = quarantined(&self.feed, failure);
            self.settle_now(FollowUps { signals: vec![told], ..FollowUps::default() }).await?;
            self.feed.quarantine();
        }
        self.failing = None;
        Ok(())
    }

    /// Notes that the subscriber asks to be handed nothing more; the next commit stores it.
    pub(super) fn note_halt(&mut self, reason: &str) {
        self.note_failure(reason);
        self.halting = Some(FailureRow { at: self.feed.now(), failure: shortened(reason).to_owned() });
    }

    /// Stores that the subscriber asked to be handed nothing more, in one commit with the signal that tells of it.
    pub(super) async fn halt(&mut self) -> Result<(), Cut> {
        let Some(halted) = self.halting.clone() else { return Ok(()) };
        let name = self.feed.registration.name.clone();
        let mut follow_ups = FollowUps::default();
        if !self.feed.is_quarantined() {
            follow_ups.signals.push(quarantined(&self.feed, halted.failure.clone()));
        }
        let row = CursorRow { halted: Some(halted.clone()), ..self.row() };
        if !self.commit_row(row, follow_ups).await? {
            return Err(Cut::Lost);
        }
        self.halting = None;
        tracing::error!(subscription = name, failure = halted.failure, "a subscriber asked to be handed nothing more");
        self.feed.halt(&halted);
        Ok(())
    }
}

impl Outbox {
    /// Lets a subscriber that was quarantined be handed signals again; whether it was. That one which halted is
    /// released is durable when this returns.
    ///
    /// # Errors
    /// Why it could not be stored; it is as quarantined as before then.
    pub async fn release(&self, name: &str) -> Result<bool, OperationError> {
        let Some(feed) = self.subscriptions().into_iter().find(|feed| feed.registration.name == name) else {
            return Ok(false);
        };
        let told = Signal::SubscriberReleased { subscriber: name.to_owned() };
        let told = follow_up::concerning(name, Actor::System, self.shared.clock.now(), told);
        let (flow, signals) = (told.flow, vec![told]);
        loop {
            let stored = self.seen(self.shared.storage.reader().cursor(name))?;
            let Some(row) = stored.filter(|row| row.halted.is_some()) else { break };
            let checks = vec![Check::Cursor(name.to_owned(), row.revision)];
            let row = CursorRow { revision: row.foreign_revision(), halted: None, ..row };
            let writes = vec![Write::PutCursor(name.to_owned(), row)];
            if self.commit(Batch { flow, outcome: None, checks, writes, signals: signals.clone() }).await? {
                feed.release();
                self.shared.doorbell.ring();
                return Ok(true);
            }
        }
        let released = feed.release();
        if released {
            let (checks, writes) = (Vec::new(), Vec::new());
            self.shared.storage.commit_with_next(Batch { flow, outcome: None, checks, writes, signals });
            self.shared.doorbell.ring();
        }
        Ok(released)
    }
}
