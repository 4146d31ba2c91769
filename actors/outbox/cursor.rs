//! The cursor: what the store is to know of a subscription, what it was told, and what waits to be told.

use super::follow_up::FollowUps;
use crate::storage::{Batch, Check, CursorRow, Write};
use majordomo_model::FlowId;

/// How much of a projection may wait, in bytes, before it is stored.
const WEIGHT_LIMIT: usize = 1_024 * 1_024;

/// The row as the store was last told it, and the values that the next batch carries.
///
/// Every batch expects the revision that the one before it leaves, so none can be applied twice or out of order, and
/// none after somebody else wrote the row.
#[derive(Debug)]
pub(super) struct Cursor {
    name: String,
    told: CursorRow,
    /// Keys and values in the order in which they were written, `None` where one is to be removed.
    projected: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    weight: usize,
    unconfirmed: usize,
    leased: u64,
    /// The revision that the store is known to hold at least.
    stored: u64,
    /// The least lease of all rows that were left for later since the last renewal.
    left: u64,
}

impl Cursor {
    /// The cursor as it is known to be stored.
    pub(super) fn new(name: &str, row: CursorRow) -> Self {
        let (name, leased, stored) = (name.to_owned(), row.leased, row.revision);
        Self { name, told: row, projected: Vec::new(), weight: 0, unconfirmed: 0, leased, stored, left: u64::MAX }
    }

    /// The row as the store was last told it.
    pub(super) const fn told(&self) -> &CursorRow {
        &self.told
    }

    /// Up to where signals may be handed over: the store is known to know of it.
    pub(super) const fn leased(&self) -> u64 {
        self.leased
    }

    /// How many batches were left for later since the store was last seen to hold them all.
    pub(super) const fn unconfirmed(&self) -> usize {
        self.unconfirmed
    }

    /// Whether so much waits that it should be stored.
    pub(super) const fn is_heavy(&self) -> bool {
        self.weight > WEIGHT_LIMIT
    }

    /// Whether this row says nothing that the store was not told, and nothing waits.
    pub(super) fn is_settled(&self, row: &CursorRow) -> bool {
        self.projected.is_empty() && self.told.taken == row.taken && self.told.open == row.open
    }

    /// Keeps a value for the next batch; `None` is to be removed.
    pub(super) fn project(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) {
        self.weight = self.weight.saturating_add(key.len()).saturating_add(value.as_ref().map_or(0, Vec::len));
        self.projected.push((key, value));
    }

    /// The row that is to follow what the store was told: at the next revision, its lease renewed.
    pub(super) fn next_row(&self) -> CursorRow {
        CursorRow { revision: self.told.revision.saturating_add(1), ..self.told.clone() }
    }

    /// The batch that makes `row` follow what the store was told, with what waits and with the follow-ups of signals that
    /// are finished by it. Whoever commits it reports [`Cursor::confirm`].
    pub(super) fn batch(&self, row: CursorRow, follow_ups: FollowUps) -> Batch {
        self.with(self.projected.clone(), row, follow_ups)
    }

    fn with(&self, mut projected: Vec<(Vec<u8>, Option<Vec<u8>>)>, row: CursorRow, follow_ups: FollowUps) -> Batch {
        let FollowUps { mut checks, writes: following, signals } = follow_ups;
        checks.insert(0, Check::Cursor(self.name.clone(), self.told.revision));
        // Of a key that was written often the last value counts; in the order of keys they are quicker to store.
        projected.sort_by(|(one, _), (other, _)| one.cmp(other));
        let mut writes: Vec<Write> = Vec::with_capacity(projected.len().saturating_add(following.len() + 1));
        let mut values = projected.into_iter().peekable();
        while let Some((key, value)) = values.next() {
            if values.peek().is_some_and(|(next, _)| *next == key) {
                continue;
            }
            let (name, generation) = (self.name.clone(), self.told.projection.written);
            writes.push(match value {
                Some(value) => Write::PutProjection(name, generation, key, value),
                None => Write::RemoveProjection(name, generation, key),
            });
        }
        writes.extend(following);
        writes.push(Write::PutCursor(self.name.clone(), row));
        Batch { flow: FlowId::new(), outcome: None, checks, writes, signals }
    }

    /// The batch that makes `row` follow, to be left for later.
    pub(super) fn leave(&mut self, row: CursorRow) -> Batch {
        let projected = std::mem::take(&mut self.projected);
        let batch = self.with(projected, row.clone(), FollowUps::default());
        // Once it is stored, it is this lease that counts.
        self.leased = self.leased.min(row.leased);
        self.left = self.left.min(row.leased);
        self.told = row;
        self.forget_span();
        self.unconfirmed = self.unconfirmed.saturating_add(1);
        batch
    }

    /// Notes that the store holds this row.
    pub(super) fn confirm(&mut self, row: CursorRow) {
        self.leased = row.leased;
        self.stored = row.revision;
        self.told = row;
        self.unconfirmed = 0;
        self.forget_span();
    }

    /// The batch that makes `row` follow, whose arrival [`Cursor::renewed`] notes.
    pub(super) fn renew(&mut self, row: CursorRow) -> Batch {
        let batch = self.leave(row);
        self.left = u64::MAX;
        batch
    }

    /// Notes that the store holds the row of this revision, which takes this lease; and that of others may follow.
    pub(super) fn renewed(&mut self, revision: u64, leased: u64) {
        if revision <= self.stored {
            return;
        }
        self.stored = revision;
        self.leased = leased.min(self.left);
        if self.told.revision == revision {
            self.unconfirmed = 0;
        }
    }

    /// Notes the revision that was seen in the store: whether it can be, and whether nothing is under way to it.
    pub(super) fn saw(&mut self, revision: u64) -> Seen {
        let told = self.told.revision;
        if revision == told {
            self.unconfirmed = 0;
            (self.leased, self.stored) = (self.told.leased, revision);
            return Seen::Everything;
        }
        let earliest = told.saturating_sub(self.unconfirmed as u64);
        if (earliest..told).contains(&revision) { Seen::Part } else { Seen::SomebodyElse }
    }

    fn forget_span(&mut self) {
        self.projected.clear();
        self.weight = 0;
    }
}

/// What the store was seen to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// Everything that it was told.
    Everything,
    /// A part of it; the rest is under way, or lost.
    Part,
    /// What somebody else wrote.
    SomebodyElse,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revisions(batch: &Batch) -> (u64, u64) {
        let [Check::Cursor(name, expected)] = batch.checks.as_slice() else { panic!("{:?}", batch.checks) };
        let Some(Write::PutCursor(_, row)) = batch.writes.last() else { panic!("{:?}", batch.writes) };
        assert_eq!(name, "audit");
        (*expected, row.revision)
    }

    fn cursor(revision: u64) -> Cursor {
        Cursor::new("audit", CursorRow { revision, ..CursorRow::default() })
    }

    #[test]
    fn batches_are_chained_by_their_revisions() {
        let mut cursor = cursor(4);
        cursor.project(b"key".to_vec(), Some(b"value".to_vec()));
        let span = cursor.leave(cursor.next_row());
        assert_eq!((revisions(&span), span.writes.len()), ((4, 5), 2));
        let span = cursor.leave(cursor.next_row());
        assert_eq!((revisions(&span), span.writes.len(), cursor.unconfirmed()), ((5, 6), 1, 2));
        assert_eq!(
            [3, 4, 5, 7].map(|seen| cursor.saw(seen)),
            [Seen::SomebodyElse, Seen::Part, Seen::Part, Seen::SomebodyElse]
        );
        assert_eq!(cursor.saw(6), Seen::Everything);
        assert_eq!(cursor.unconfirmed(), 0);
        assert_eq!(cursor.saw(5), Seen::SomebodyElse);
    }

    #[test]
    fn of_a_key_that_is_written_often_the_last_value_is_stored() {
        let mut cursor = cursor(0);
        for (key, value) in [(7, Some(1)), (3, Some(2)), (7, None), (3, Some(4)), (5, Some(5))] {
            cursor.project(vec![key], value.map(|value| vec![value]));
        }
        let batch = cursor.leave(cursor.next_row());
        let [
            Write::PutProjection(_, _, three, four),
            Write::PutProjection(_, _, five, _),
            Write::RemoveProjection(_, _, seven),
            Write::PutCursor(..),
        ] = batch.writes.as_slice()
        else {
            panic!("{:?}", batch.writes)
        };
        assert_eq!([three, four, five, seven], [&[3], &[4], &[5], &[7]]);
        assert!(cursor.is_settled(cursor.told()));
    }

    #[test]
    fn a_batch_that_was_not_committed_leaves_the_span_as_it_was() {
        let mut cursor = cursor(0);
        cursor.project(vec![0; WEIGHT_LIMIT], Some(vec![1]));
        cursor.project(vec![1], None);
        assert!(cursor.is_heavy() && !cursor.is_settled(&CursorRow::default()));
        for _ in 0..2 {
            let batch = cursor.batch(cursor.next_row(), FollowUps::default());
            assert_eq!((revisions(&batch), batch.writes.len()), ((0, 1), 3));
        }
        cursor.confirm(cursor.next_row());
        assert!(!cursor.is_heavy() && cursor.is_settled(&CursorRow::default()));
    }

    #[test]
    fn a_renewal_counts_as_far_as_what_follows_it_does_not_take_it_back() {
        let row = |cursor: &Cursor, leased| CursorRow { leased, ..cursor.next_row() };
        let mut cursor = Cursor::new("audit", CursorRow { leased: 100, ..CursorRow::default() });
        let _renewal = cursor.renew(row(&cursor, 900));
        assert_eq!(cursor.leased(), 100, "it is not known to be stored");
        let _left = cursor.leave(row(&cursor, 700));
        cursor.renewed(1, 900);
        assert_eq!((cursor.leased(), cursor.unconfirmed()), (700, 2));
        let _renewal = cursor.renew(row(&cursor, 2_000));
        cursor.confirm(row(&cursor, 1_000));
        cursor.renewed(3, 2_000);
        assert_eq!(cursor.leased(), 1_000, "the store holds what came later");
        let _left = cursor.leave(row(&cursor, 300));
        assert_eq!(cursor.leased(), 300);
    }

    #[test]
    fn a_lease_counts_once_it_is_known_to_be_stored() {
        let mut cursor = cursor(0);
        let _left = cursor.leave(CursorRow { leased: 300, ..cursor.next_row() });
        assert_eq!(cursor.leased(), 0);
        assert_eq!(cursor.saw(1), Seen::Everything);
        assert_eq!(cursor.leased(), 300);
    }
}
