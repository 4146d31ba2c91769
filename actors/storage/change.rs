//! Changes that can be undone: found by their user and the version that they made, with the addresses they keep.

use majordomo_model::{ChangeKind, Timestamp, TokenId, UserId};
use serde::{Deserialize, Serialize};

use super::lookup::{Lookup, ReadError, UniqueKey};
use super::redb::{View, WriteView};
use super::row::{ContactRow, decode, encode};
use super::table::{Key, KeyReader, Table};

/// A change of how a user is reached or signs in, kept until it can no longer be undone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeRow {
    /// Whose.
    pub user: UserId,
    /// The version of the user that it made, which is its name among the changes of the user.
    pub version: u64,
    /// What changed.
    pub kind: ChangeKind,
    /// When.
    pub at: Timestamp,
    /// When it can no longer be undone.
    pub expires_at: Timestamp,
    /// The proven addresses of the user before it.
    pub contacts: Vec<ContactRow>,
    /// The address from before it that is sent the link.
    pub told: ContactRow,
    /// The token of the link.
    pub token: TokenId,
}

impl ChangeRow {
    /// The address that left the user with it, and is kept for them as long as it can be undone.
    pub fn reserved(&self) -> Option<UniqueKey> {
        let leaves = matches!(self.kind, ChangeKind::ContactReplaced | ChangeKind::ContactRemoved);
        leaves.then(|| UniqueKey::address(self.told.channel, &self.told.canonical))
    }

    /// Whether it can still be undone.
    pub fn is_open(&self, now: Timestamp) -> bool {
        now < self.expires_at
    }

    /// What an entry of the expiry table says of it.
    pub(super) fn subject(&self) -> Vec<u8> {
        change_key(self.user, self.version).into_bytes()
    }
}

fn change_key(user: UserId, version: u64) -> Key {
    Key::new().fixed(user.as_bytes()).u64(version)
}

/// The change that a key, or an entry of the expiry table, names.
pub(super) fn named(key: &[u8]) -> Result<(UserId, u64), ReadError> {
    let mut reader = KeyReader::new(key);
    Ok((UserId::from_bytes(reader.fixed()?), reader.u64()?))
}

/// What an address's reservations start with: no address contains NUL, so none is the beginning of another.
fn reservation_prefix(address: &UniqueKey) -> Vec<u8> {
    [address.bytes(), &[0]].concat()
}

fn reservation_key(address: &UniqueKey, user: UserId, version: u64) -> Vec<u8> {
    [reservation_prefix(address).as_slice(), &change_key(user, version)].concat()
}

/// A change by its name, whether or not it can still be undone.
pub(super) fn find<V: View>(view: &V, user: UserId, version: u64) -> Result<Option<ChangeRow>, ReadError> {
    view.row(Table::Changes, &change_key(user, version))
}

/// The changes of a user, the earliest first.
pub(super) fn of<V: View>(view: &V, user: UserId) -> Result<Vec<ChangeRow>, ReadError> {
    view.prefix(Table::Changes, user.as_bytes())?.map(|row| Ok(decode(row?.value())?)).collect()
}

/// Whom an address is kept for that they gave up. By the time of whoever asks, however late the sweeper is.
pub(super) fn reserved_for<V: View>(
    view: &V,
    address: &UniqueKey,
    now: Timestamp,
) -> Result<Option<UserId>, ReadError> {
    let prefix = reservation_prefix(address);
    for row in view.prefix(Table::Reservations, &prefix)? {
        let row = row?;
        if now < Timestamp::from_micros(KeyReader::new(row.value()).i64()?) {
            let name = row.key().strip_prefix(prefix.as_slice()).ok_or(ReadError::Key)?;
            return Ok(Some(UserId::from_bytes(KeyReader::new(name).fixed()?)));
        }
    }
    Ok(None)
}

/// Stores a change, and keeps the address that it took from the user.
pub(super) fn put(transaction: &mut WriteView<'_>, row: &ChangeRow) -> Result<(), ReadError> {
    if let Some(address) = row.reserved() {
        let until = Key::new().i64(row.expires_at.as_micros());
        transaction.put(Table::Reservations, &reservation_key(&address, row.user, row.version), &until)?;
    }
    Ok(transaction.put(Table::Changes, &row.subject(), &encode(row)?)?)
}

/// Forgets a change, and frees the address that it kept.
pub(super) fn remove(
    transaction: &mut WriteView<'_>,
    user: UserId,
    version: u64,
) -> Result<Option<ChangeRow>, ReadError> {
    let Some(row) = find(transaction, user, version)? else { return Ok(None) };
    if let Some(address) = row.reserved() {
        transaction.remove(Table::Reservations, &reservation_key(&address, user, version))?;
    }
    transaction.remove(Table::Changes, &change_key(user, version))?;
    Ok(Some(row))
}
