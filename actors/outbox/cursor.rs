//! The cursor: where a subscription stands, what is stored of it, and what waits to be stored.

use majordomo_model::{FlowId, Timestamp};

use super::follow_up::FollowUps;
use crate::storage::{Batch, Check, CursorRow, Write};

/// How much of a projection may wait, in bytes, before it is stored.
const WEIGHT_LIMIT: usize = 256 * 1_024;

/// Three places in the log, each at or behind the next: what the store is known to hold, what it was told, and what is
/// handled. What lies between the last two is the span that the next batch carries.
///
/// Every batch expects the floor that the one before it leaves, so none can be applied twice or out of order.
#[derive(Debug)]
pub(super) struct Cursor {
    subscription: String,
    created_at: Timestamp,
    told: u64,
    reached: u64,
    projected: Vec<Write>,
    weight: usize,
    unconfirmed: usize,
}

impl Cursor {
    /// The cursor as stored.
    pub(super) fn new(subscription: &str, row: &CursorRow) -> Self {
        Self {
            subscription: subscription.to_owned(),
            created_at: row.created_at,
            told: row.floor(),
            reached: row.floor(),
            projected: Vec::new(),
            weight: 0,
            unconfirmed: 0,
        }
    }

    /// The last place that is handled.
    pub(super) const fn reached(&self) -> u64 {
        self.reached
    }

    /// The floor that the store holds once it has committed everything that it was told.
    pub(super) const fn told(&self) -> u64 {
        self.told
    }

    /// How many batches were left for later since the store was last seen to hold them all.
    pub(super) const fn unconfirmed(&self) -> usize {
        self.unconfirmed
    }

    /// Whether nothing waits for the next batch.
    pub(super) const fn is_settled(&self) -> bool {
        self.told == self.reached
    }

    /// Whether so much waits that it should be stored.
    pub(super) const fn is_heavy(&self) -> bool {
        self.weight > WEIGHT_LIMIT
    }

    /// Notes that everything up to this place is handled.
    pub(super) const fn pass(&mut self, seq: u64) {
        if seq > self.reached {
            self.reached = seq;
        }
    }

    /// Keeps a value for the next batch. To be followed by [`Cursor::pass`] of the signal it belongs to.
    pub(super) fn project(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.weight = self.weight.saturating_add(key.len()).saturating_add(value.len());
        self.projected.push(Write::PutProjection(self.subscription.clone(), 0, key, value));
    }

    /// The batch that carries the span and, with them, the follow-ups of the signal at `seq`. Whoever commits it
    /// reports [`Cursor::confirm`].
    pub(super) fn batch(&self, seq: u64, follow_ups: FollowUps) -> Batch {
        let FollowUps { checks: further, writes, signals } = follow_ups;
        let mut checks = vec![Check::Cursor(self.subscription.clone(), self.told)];
        checks.extend(further);
        let row = CursorRow { revision: seq, taken: seq, created_at: self.created_at, ..CursorRow::default() };
        let moved = Write::PutCursor(self.subscription.clone(), row);
        let writes = self.projected.iter().cloned().chain(writes).chain([moved]).collect();
        Batch { flow: FlowId::new(), outcome: None, checks, writes, signals }
    }

    /// The batch that carries the span, to be left for later.
    pub(super) fn leave(&mut self) -> Batch {
        let batch = self.batch(self.reached, FollowUps::default());
        self.told = self.reached;
        self.forget_span();
        self.unconfirmed = self.unconfirmed.saturating_add(1);
        batch
    }

    /// Notes that the store holds everything up to and with this place, which is all that is handled.
    pub(super) fn confirm(&mut self, seq: u64) {
        self.told = seq;
        self.reached = seq;
        self.unconfirmed = 0;
        self.forget_span();
    }

    /// Notes the floor that was seen in the store, and answers whether nothing is under way to it.
    pub(super) const fn saw(&mut self, floor: u64) -> bool {
        if floor == self.told {
            self.unconfirmed = 0;
        }
        self.unconfirmed == 0
    }

    fn forget_span(&mut self) {
        self.projected.clear();
        self.weight = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floors(batch: &Batch) -> (u64, u64) {
        let [Check::Cursor(name, expected)] = batch.checks.as_slice() else { panic!("{:?}", batch.checks) };
        let Some(Write::PutCursor(_, row)) = batch.writes.last() else { panic!("{:?}", batch.writes) };
        assert_eq!(name, "audit");
        (*expected, row.taken)
    }

    #[test]
    fn batches_are_chained_by_their_floors() {
        let mut cursor = Cursor::new("audit", &CursorRow { taken: 4, ..CursorRow::default() });
        assert!(cursor.is_settled());
        cursor.project(b"key".to_vec(), b"value".to_vec());
        cursor.pass(6);
        let span = cursor.leave();
        assert_eq!((floors(&span), span.writes.len()), ((4, 6), 2));
        cursor.pass(9);
        let span = cursor.leave();
        assert_eq!((floors(&span), span.writes.len(), cursor.unconfirmed()), ((6, 9), 1, 2));
        assert!(!cursor.saw(6));
        assert!(cursor.saw(9));
        assert_eq!(floors(&cursor.batch(10, FollowUps::default())), (9, 10));
        cursor.confirm(10);
        assert_eq!((cursor.told(), cursor.reached(), cursor.unconfirmed()), (10, 10, 0));
    }

    #[test]
    fn a_batch_that_was_not_committed_leaves_the_span_as_it_was() {
        let mut cursor = Cursor::new("audit", &CursorRow::default());
        cursor.project(vec![0; WEIGHT_LIMIT], vec![1]);
        assert!(cursor.is_heavy());
        cursor.pass(1);
        for _ in 0..2 {
            let batch = cursor.batch(2, FollowUps::default());
            assert_eq!((floors(&batch), batch.writes.len()), ((0, 2), 2));
        }
        cursor.confirm(2);
        assert!(cursor.is_settled() && !cursor.is_heavy());
    }
}
