//! The rebuild: a projection that is built anew beside the one that is read, takes its place, and lets the old one go.

use majordomo_model::{Actor, FlowId, Signal};

use super::follow_up::{FollowUps, concerning};
use super::progress::commit;
use super::worker::{Cut, Worker};
use crate::storage::{Batch, Write};

/// How many values of a generation that nobody reads any more are removed at a time.
const DROPPED: usize = 1_000;

impl Worker {
    /// Whether the signal of this place is only handled to build the projection anew.
    pub(super) fn is_rebuilding(&self, seq: u64) -> bool {
        let projection = self.cursor.as_ref().map(|cursor| cursor.told().projection).unwrap_or_default();
        projection.is_rebuilding() && seq <= projection.rebuild_to
    }

    /// Whether a rebuild has to end before this place is looked at.
    pub(super) fn is_after_rebuild(&self, seq: u64) -> bool {
        let projection = self.cursor.as_ref().map(|cursor| cursor.told().projection).unwrap_or_default();
        projection.is_rebuilding() && seq > projection.rebuild_to
    }

    /// Whether a rebuild passes over this place: what was not finished before it, or was given up, is no part of it.
    pub(super) fn is_left_out_of_rebuild(&self, seq: u64) -> Result<bool, Cut> {
        let Some(cursor) = self.cursor.as_ref().filter(|_| self.is_rebuilding(seq)) else { return Ok(false) };
        let is_aside = cursor.told().set_aside.iter().any(|open| open.seq == seq);
        Ok(is_aside || self.feed.desk.reader.letter(&self.feed.registration.name, seq)?.is_some())
    }

    /// Lets a rebuilt projection take the place of the one before once it has come as far, and removes what nobody
    /// reads any more.
    pub(super) async fn tend_projection(&mut self) -> Result<(), Cut> {
        let Some(cursor) = &self.cursor else { return Ok(()) };
        let projection = cursor.told().projection;
        let name = self.feed.registration.name.clone();
        if projection.is_rebuilding() {
            if self.ledger.floor() < projection.rebuild_to {
                return Ok(());
            }
            let mut row = self.row();
            row.projection.served = projection.written;
            let told = Signal::ProjectionRebuilt { subscriber: name.clone(), place: self.ledger.floor() };
            let told = concerning(&name, Actor::System, self.feed.now(), told);
            let follow_ups = FollowUps { signals: vec![told], ..FollowUps::default() };
            self.more = true;
            let aside = std::mem::take(&mut row.set_aside);
            let is_whole = aside.is_empty();
            row.open.extend(aside);
            row.open.sort_by_key(|open| open.seq);
            // What was set aside is read anew, with the row.
            return if self.commit_row(row, follow_ups).await? && is_whole { Ok(()) } else { Err(Cut::Lost) };
        }
        if projection.kept_from >= projection.served {
            return Ok(());
        }
        self.more = true;
        if self.feed.desk.reader.has_projection(&name, projection.kept_from)? {
            let writes = vec![Write::DropProjection(name, projection.kept_from, DROPPED)];
            let (flow, outcome) = (FlowId::new(), None);
            let (checks, signals) = (Vec::new(), Vec::new());
            let batch = Batch { flow, outcome, checks, writes, signals };
            return commit(&self.feed.storage, batch).await.map(drop);
        }
        let mut row = self.row();
        row.projection.kept_from = projection.kept_from.saturating_add(1);
        if self.commit_row(row, FollowUps::default()).await? { Ok(()) } else { Err(Cut::Lost) }
    }
}
