//! What a closure sees of the store: one snapshot to read, or one transaction to read and write.

use std::ops::{Bound, Deref};
use std::sync::OnceLock;

use redb::{AccessGuard, ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};

use super::error::EngineError;
use crate::storage::table::{Table, prefix_end};

type Bytes = &'static [u8];
type Guard<'view> = AccessGuard<'view, Bytes>;

/// The definition of a table of bytes; its types are part of the file and never change.
pub(super) const fn definition(name: &str) -> TableDefinition<'_, Bytes, Bytes> {
    TableDefinition::new(name)
}

/// Reading, the same in a snapshot and in a transaction, which sees its own writes.
///
/// Every method fails with the store's fault and with nothing else.
pub(crate) trait View {
    /// The value under `key`, borrowed from the store's cache.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Value<'_>>, EngineError>;

    /// The rows from `from` (inclusive) to `to` (exclusive; `None` is the end of the table), in the order of keys.
    ///
    /// `rev()` walks them backwards and `take(n)` bounds them; none is read before it is asked for.
    fn range(&self, table: Table, from: &[u8], to: Option<&[u8]>) -> Result<Rows<'_>, EngineError>;

    /// The rows whose key starts with `prefix`, in the order of keys.
    fn prefix(&self, table: Table, prefix: &[u8]) -> Result<Rows<'_>, EngineError> {
        self.range(table, prefix, prefix_end(prefix).as_deref())
    }
}

/// Opens tables once each, when they are first asked for.
pub(crate) trait OpenTables {
    /// The engine's form of an open table.
    type Opened: ReadableTable<Bytes, Bytes>;

    /// The open table.
    fn opened(&self, table: Table) -> Result<&Self::Opened, EngineError>;
}

impl<V: OpenTables> View for V {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Value<'_>>, EngineError> {
        Ok(self.opened(table)?.get(key).map_err(EngineError::from_redb)?.map(Value))
    }

    fn range(&self, table: Table, from: &[u8], to: Option<&[u8]>) -> Result<Rows<'_>, EngineError> {
        if to.is_some_and(|to| to <= from) {
            return Ok(Rows(None));
        }
        let bounds = (Bound::Included(from), to.map_or(Bound::Unbounded, Bound::Excluded));
        let rows = self.opened(table)?.range::<&[u8]>(bounds).map_err(EngineError::from_redb)?;
        Ok(Rows(Some(rows)))
    }
}

/// A stored value.
pub(crate) struct Value<'view>(Guard<'view>);

impl Deref for Value<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.value()
    }
}

/// A stored key and its value.
pub(crate) struct Row<'view> {
    key: Guard<'view>,
    value: Guard<'view>,
}

impl Row<'_> {
    /// The key.
    pub(crate) fn key(&self) -> &[u8] {
        self.key.value()
    }

    /// The value.
    pub(crate) fn value(&self) -> &[u8] {
        self.value.value()
    }
}

impl<'view> From<(Guard<'view>, Guard<'view>)> for Row<'view> {
    fn from((key, value): (Guard<'view>, Guard<'view>)) -> Self {
        Self { key, value }
    }
}

/// Rows of one range, from both ends.
pub(crate) struct Rows<'view>(Option<redb::Range<'view, Bytes, Bytes>>);

impl<'view> Iterator for Rows<'view> {
    type Item = Result<Row<'view>, EngineError>;

    fn next(&mut self) -> Option<Self::Item> {
        let row = self.0.as_mut()?.next()?;
        Some(row.map(Row::from).map_err(EngineError::from_redb))
    }
}

impl DoubleEndedIterator for Rows<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        let row = self.0.as_mut()?.next_back()?;
        Some(row.map(Row::from).map_err(EngineError::from_redb))
    }
}

/// One place a table.
struct Opened<T>([OnceLock<T>; Table::COUNT]);

impl<T> Opened<T> {
    fn new() -> Self {
        Self(std::array::from_fn(|_| OnceLock::new()))
    }

    fn get(&self, table: Table, open: impl FnOnce() -> Result<T, redb::TableError>) -> Result<&T, EngineError> {
        let place = self.0.get(table as usize).ok_or_else(|| no_place(table))?;
        if let Some(opened) = place.get() {
            return Ok(opened);
        }
        let opened = open().map_err(EngineError::from_redb)?;
        Ok(place.get_or_init(|| opened))
    }

    fn get_mut(&mut self, table: Table) -> Option<&mut T> {
        self.0.get_mut(table as usize)?.get_mut()
    }
}

fn no_place(table: Table) -> EngineError {
    EngineError::from_redb(redb::TableError::TableDoesNotExist(table.name().to_owned()))
}

/// One snapshot of the whole store: it does not see what is committed after it began. Threads may share it.
pub(crate) struct ReadView {
    transaction: ReadTransaction,
    tables: Opened<redb::ReadOnlyTable<Bytes, Bytes>>,
}

impl ReadView {
    pub(super) fn new(transaction: ReadTransaction) -> Self {
        Self { transaction, tables: Opened::new() }
    }
}

impl OpenTables for ReadView {
    type Opened = redb::ReadOnlyTable<Bytes, Bytes>;

    fn opened(&self, table: Table) -> Result<&Self::Opened, EngineError> {
        self.tables.get(table, || self.transaction.open_table(definition(table.name())))
    }
}

/// One write transaction: nothing of it is seen by anyone else before it is committed.
pub(crate) struct WriteView<'transaction> {
    transaction: &'transaction WriteTransaction,
    tables: Opened<redb::Table<'transaction, Bytes, Bytes>>,
    changed: bool,
}

impl<'transaction> WriteView<'transaction> {
    pub(super) fn new(transaction: &'transaction WriteTransaction) -> Self {
        Self { transaction, tables: Opened::new(), changed: false }
    }

    /// Whether there is anything to commit.
    pub(crate) fn is_changed(&self) -> bool {
        self.changed
    }

    /// Stores `value` under `key`, in the place of what was there.
    pub(crate) fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), EngineError> {
        self.changed = true;
        self.opened_mut(table)?.insert(key, value).map_err(EngineError::from_redb)?;
        Ok(())
    }

    /// Removes `key`; answers whether it was there.
    pub(crate) fn remove(&mut self, table: Table, key: &[u8]) -> Result<bool, EngineError> {
        let removed = self.opened_mut(table)?.remove(key).map_err(EngineError::from_redb)?.is_some();
        if removed {
            self.changed = true;
        }
        Ok(removed)
    }

    /// Removes the rows from `from` (inclusive) to `to` (exclusive), once `look` has seen the value of each. Many
    /// times faster than removing them one by one.
    pub(crate) fn clear(
        &mut self,
        table: Table,
        from: &[u8],
        to: &[u8],
        mut look: impl FnMut(&[u8]),
    ) -> Result<(), EngineError> {
        if to <= from {
            return Ok(());
        }
        self.changed = true;
        let remove = |_: &[u8], value: &[u8]| {
            look(value);
            false
        };
        self.opened_mut(table)?.retain_in::<&[u8], _>(from..to, remove).map_err(EngineError::from_redb)
    }

    fn opened_mut(&mut self, table: Table) -> Result<&mut redb::Table<'transaction, Bytes, Bytes>, EngineError> {
        self.opened(table)?;
        self.tables.get_mut(table).ok_or_else(|| no_place(table))
    }
}

impl<'transaction> OpenTables for WriteView<'transaction> {
    type Opened = redb::Table<'transaction, Bytes, Bytes>;

    fn opened(&self, table: Table) -> Result<&Self::Opened, EngineError> {
        self.tables.get(table, || self.transaction.open_table(definition(table.name())))
    }
}
