//! Credentials: password hashes, sealed under a key that is not in the database.

use majordomo_model::{Timestamp, UserId};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::census;
use super::lookup::{Lookup, ReadError};
use super::redb::WriteView;
use super::row::{decode, encode};
use super::table::{Key, KeyReader, Table};
use crate::keys::{KeyId, Keyring, Purpose};
use crate::seal::{self, SealError};

/// A password credential as a flow sets it. Storage seals it before it is written.
#[derive(Clone, PartialEq, Eq)]
pub struct CredentialRow {
    /// The hash with its parameters, as a PHC string.
    pub phc: Zeroizing<String>,
    /// Grows with every hash that is set; sealing the same one anew leaves it.
    pub revision: u64,
    /// When it was set.
    pub set_at: Timestamp,
    /// Which normalisation the password went through before it was hashed: [`NORMALISATION`](super::NORMALISATION) is
    /// that of this build.
    pub norm: u8,
}

/// A password credential as stored: without the keys its hash cannot even be guessed at.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredCredential {
    /// The hash itself, as builds before version 5 of the schema wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    phc: Option<String>,
    /// The hash, sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sealed: Option<SealedHash>,
    /// As [`CredentialRow::revision`].
    pub revision: u64,
    /// As [`CredentialRow::set_at`].
    pub set_at: Timestamp,
    /// As [`CredentialRow::norm`].
    #[serde(default = "super::normalisation::first")]
    pub norm: u8,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct SealedHash {
    /// The master key that the sealing key is derived from.
    key: KeyId,
    /// What the hash costs, as it was counted.
    class: String,
    /// The sealed PHC string.
    #[serde(with = "crate::bytes::buffer")]
    hash: Vec<u8>,
}

/// A credential with whose it is, as of one snapshot.
pub(crate) struct ReadCredential {
    pub(crate) user: UserId,
    /// The epoch that the user was in; nothing where there is no user, or none that can be read.
    pub(crate) epoch: Option<u64>,
    /// Nothing if it cannot be read.
    pub(crate) stored: Option<StoredCredential>,
}

impl CredentialRow {
    /// Seals the hash under the current key, for this user: in the row of another one it does not open.
    fn seal(&self, keys: &Keyring, user: UserId, class: String) -> Result<StoredCredential, SealError> {
        let (key, derived) = keys.derive_current(Purpose::Credential);
        let hash = seal::seal(derived.expose(), &self.phc, user.as_bytes())?;
        let sealed = Some(SealedHash { key, class, hash });
        Ok(StoredCredential { phc: None, sealed, revision: self.revision, set_at: self.set_at, norm: self.norm })
    }
}

impl StoredCredential {
    /// The hash, or `None` if none of these keys opens it for this user.
    pub(crate) fn open(&self, keys: &Keyring, user: UserId) -> Option<Zeroizing<String>> {
        let Some(SealedHash { key, hash, .. }) = &self.sealed else { return self.phc.clone().map(Zeroizing::new) };
        let derived = keys.derive(*key, Purpose::Credential)?;
        seal::open(derived.expose(), hash, user.as_bytes()).map(Zeroizing::new)
    }

    /// Whether its hash is sealed under this key.
    pub(crate) fn is_sealed_under(&self, key: KeyId) -> bool {
        self.sealed.as_ref().is_some_and(|sealed| sealed.key == key)
    }

    /// Where it is counted.
    pub(super) fn kind(&self) -> (Option<KeyId>, String) {
        match &self.sealed {
            Some(sealed) => (Some(sealed.key), sealed.class.clone()),
            None => (None, census::class_of(self.phc.as_deref().unwrap_or_default())),
        }
    }

    /// One whose hash is not sealed, as earlier builds wrote it.
    #[cfg(test)]
    pub(crate) fn unsealed(row: &CredentialRow) -> Self {
        Self {
            phc: Some(row.phc.to_string()),
            sealed: None,
            revision: row.revision,
            set_at: row.set_at,
            norm: row.norm,
        }
    }

    /// One whose hash is sealed so, for the golden bytes.
    #[cfg(test)]
    pub(super) fn sealed(key: KeyId, class: &str, hash: Vec<u8>, revision: u64, set_at: Timestamp) -> Self {
        Self {
            phc: None,
            sealed: Some(SealedHash { key, class: class.to_owned(), hash }),
            revision,
            set_at,
            norm: super::NORMALISATION,
        }
    }
}

/// Stores a credential, sealed, in the place of an earlier one.
pub(super) fn put(
    transaction: &mut WriteView<'_>,
    keys: &Keyring,
    user: UserId,
    row: &CredentialRow,
) -> Result<(), ReadError> {
    uncount(transaction, user)?;
    let class = census::admitted(transaction, census::class_of(&row.phc))?;
    let stored = row.seal(keys, user, class)?;
    let (key, class) = stored.kind();
    census::add(transaction, key, &class)?;
    Ok(transaction.put(Table::Credentials, user.as_bytes(), &encode(&stored)?)?)
}

/// The credentials after one, in the order of users, at most so many.
pub(super) fn after<V: Lookup>(
    view: &V,
    after: Option<UserId>,
    limit: usize,
) -> Result<Vec<ReadCredential>, ReadError> {
    let from = after.map(|id| Key::new().fixed(id.as_bytes()).u8(0)).unwrap_or_default();
    let rows = view.range(Table::Credentials, &from, None)?.take(limit);
    let read = rows.map(|row| {
        let row = row?;
        let user = UserId::from_bytes(KeyReader::new(row.key()).fixed()?);
        let epoch = match view.standing(user) {
            Ok(standing) => standing.map(|standing| standing.epoch),
            Err(ReadError::Row(_)) => None,
            Err(error) => return Err(error),
        };
        Ok(ReadCredential { user, epoch, stored: decode(row.value()).ok() })
    });
    read.collect()
}

/// Removes a credential.
pub(super) fn remove(transaction: &mut WriteView<'_>, user: UserId) -> Result<(), ReadError> {
    uncount(transaction, user)?;
    transaction.remove(Table::Credentials, user.as_bytes())?;
    Ok(())
}

/// A row that cannot be read was never counted, and must not stand in the way of what takes its place.
fn uncount(transaction: &mut WriteView<'_>, user: UserId) -> Result<(), ReadError> {
    match transaction.credential(user) {
        Ok(Some(stored)) => {
            let (key, class) = stored.kind();
            census::remove(transaction, key, &class)
        }
        Ok(None) | Err(ReadError::Row(_)) => Ok(()),
        Err(error) => Err(error),
    }
}
