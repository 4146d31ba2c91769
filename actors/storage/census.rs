//! The census: how many credentials there are, by the key that seals them and by what their hashes cost.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use super::batch::Write;
use super::credential::StoredCredential;
use super::lookup::ReadError;
use super::redb::{View, WriteView};
use super::row::decode;
use super::table::{Key, KeyReader, Table};
use crate::keys::KeyId;

/// How many classes are told apart; hashes of further ones are counted together.
const CLASSES: usize = 64;
/// The class of hashes whose costs are not told, or not told apart.
const OTHERS: &str = "";
/// Stands for a key where there is none: the hash is not sealed.
const UNSEALED: KeyId = KeyId::from_bytes([0; 8]);
/// Rows read at once when all of them are counted.
const CHUNK: usize = 1_000;

/// What a hash of argon2 costs, such as `argon2id$v=19$m=19456,t=2,p=1`, whether it is one of ours or came with an import
/// (behind `argon2`). It is written anew from the numbers that were read, so that nothing else of a text can be in it: the
/// class lies in the open, beside what is sealed. Every other text is among the others.
pub(super) fn class_of(hash: &str) -> String {
    costs_of(hash).unwrap_or_else(|| OTHERS.to_owned())
}

fn costs_of(hash: &str) -> Option<String> {
    let mut fields = hash.strip_prefix("argon2").unwrap_or(hash).strip_prefix('$')?.split('$');
    let name = fields.next().filter(|name| ["argon2d", "argon2i", "argon2id"].contains(name))?;
    let (mut costs, mut version) = (fields.next()?, String::new());
    if let Some(number) = costs.strip_prefix("v=") {
        version = format!("v={}$", number_of(number)?);
        costs = fields.next()?;
    }
    let mut costs = costs.split(',');
    let mut cost = |name: &str| number_of(costs.next()?.strip_prefix(name)?);
    let (memory, passes, lanes) = (cost("m=")?, cost("t=")?, cost("p=")?);
    costs.next().is_none().then(|| format!("{name}${version}m={memory},t={passes},p={lanes}"))
}

/// A decimal number in its one spelling.
fn number_of(text: &str) -> Option<u32> {
    let number: u32 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

fn place(key: Option<KeyId>, class: &str) -> Vec<u8> {
    Key::new().fixed(key.unwrap_or(UNSEALED).as_bytes()).last_text(class)
}

fn count_at<V: View>(view: &V, place: &[u8]) -> Result<u64, ReadError> {
    let count = view.get(Table::CredentialCounts, place)?;
    Ok(count.map(|count| KeyReader::new(&count).u64()).transpose()?.unwrap_or(0))
}

fn set(transaction: &mut WriteView<'_>, place: &[u8], count: u64) -> Result<(), ReadError> {
    if count == 0 {
        transaction.remove(Table::CredentialCounts, place)?;
    } else {
        transaction.put(Table::CredentialCounts, place, &Key::new().u64(count))?;
    }
    Ok(())
}

/// The class itself if there is one of it already or room for one more, else that of the others.
pub(super) fn admitted(transaction: &WriteView<'_>, class: String) -> Result<String, ReadError> {
    let known = Census::read(transaction)?.classes;
    let is_room = known.contains_key(&class) || known.len() < CLASSES;
    Ok(if is_room { class } else { OTHERS.to_owned() })
}

/// Counts one more.
pub(super) fn add(transaction: &mut WriteView<'_>, key: Option<KeyId>, class: &str) -> Result<(), ReadError> {
    let place = place(key, class);
    let count = count_at(transaction, &place)?;
    set(transaction, &place, count.saturating_add(1))
}

/// Counts one less. One whose class was not told apart when all were counted is among the others.
pub(super) fn remove(transaction: &mut WriteView<'_>, key: Option<KeyId>, class: &str) -> Result<(), ReadError> {
    for place in [place(key, class), place(key, OTHERS)] {
        let count = count_at(transaction, &place)?;
        if count > 0 {
            return set(transaction, &place, count.saturating_sub(1));
        }
    }
    Ok(())
}

/// Counts every credential that there is, once: from then on each change is counted.
pub(super) fn take(transaction: &mut WriteView<'_>) -> Result<(), ReadError> {
    let (mut from, mut counts) = (Vec::new(), BTreeMap::<Vec<u8>, u64>::new());
    let mut classes = std::collections::BTreeSet::new();
    loop {
        let mut last = None;
        for row in transaction.range(Table::Credentials, &from, None)?.take(CHUNK) {
            let row = row?;
            last = Some(row.key().to_vec());
            let Ok(stored) = decode::<StoredCredential>(row.value()) else { continue };
            let (key, mut class) = stored.kind();
            if classes.len() >= CLASSES && !classes.contains(&class) {
                OTHERS.clone_into(&mut class);
            }
            let count = counts.entry(place(key, &class)).or_default();
            *count = count.saturating_add(1);
            classes.insert(class);
        }
        let Some(last) = last else { break };
        from = [last.as_slice(), &[0]].concat();
    }
    counts.into_iter().try_for_each(|(place, count)| set(transaction, &place, count))
}

/// How many credentials there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Census {
    classes: BTreeMap<String, u64>,
    keys: BTreeMap<[u8; 8], u64>,
}

impl Census {
    /// Reads the counts: a handful of rows, however many credentials there are.
    pub(super) fn read<V: View>(view: &V) -> Result<Self, ReadError> {
        let mut census = Self::default();
        for row in view.range(Table::CredentialCounts, &[], None)? {
            let row = row?;
            let count = KeyReader::new(row.value()).u64()?;
            let (key, class) = row.key().split_first_chunk::<8>().ok_or(ReadError::Key)?;
            let class = std::str::from_utf8(class).map_err(|_| ReadError::Key)?;
            let of_class = census.classes.entry(class.to_owned()).or_default();
            *of_class = of_class.saturating_add(count);
            let of_key = census.keys.entry(*key).or_default();
            *of_key = of_key.saturating_add(count);
        }
        Ok(census)
    }

    /// Draws a class by its share, from a seed that is as good as random: the same for the same seed and shares. Nothing
    /// where there is no credential.
    pub(crate) fn draw(&self, seed: &[u8; 32]) -> Option<&str> {
        let total = self.classes.values().fold(0, |total: u64, count| total.saturating_add(*count));
        // The decoy's salt is taken from the other end.
        let (_, last) = seed.split_last_chunk::<8>()?;
        let point = (u128::from(u64::from_be_bytes(*last)) * u128::from(total)) >> 64;
        let mut passed = 0_u128;
        for (class, count) in &self.classes {
            passed += u128::from(*count);
            if point < passed {
                return Some(class);
            }
        }
        None
    }

    /// How many are not sealed under this key.
    pub(crate) fn outdated(&self, current: KeyId) -> u64 {
        self.keys.iter().filter(|(key, _)| *key != current.as_bytes()).map(|(_, count)| count).sum()
    }

    /// Counts every credential anew, for tests that hold the counts against it.
    #[cfg(test)]
    pub(crate) fn recount(view: &super::redb::ReadView) -> Result<Self, ReadError> {
        let mut census = Self::default();
        for row in view.range(Table::Credentials, &[], None)? {
            let (key, class) = decode::<StoredCredential>(row?.value())?.kind();
            *census.classes.entry(class).or_default() += 1;
            *census.keys.entry(*key.unwrap_or(UNSEALED).as_bytes()).or_default() += 1;
        }
        Ok(census)
    }

    /// How many there are of each class.
    #[cfg(test)]
    pub(crate) fn classes(&self) -> Vec<(&str, u64)> {
        self.classes.iter().map(|(class, count)| (class.as_str(), *count)).collect()
    }
}

/// The census as of the last commit, in memory.
#[derive(Debug, Default)]
pub(super) struct KnownCensus(RwLock<Arc<Census>>);

impl KnownCensus {
    pub(super) fn now(&self) -> Arc<Census> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn replace(&self, census: Census) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(census);
    }
}

/// Whether a change of rows may change the counts.
pub(super) const fn is_counted(write: &Write) -> bool {
    matches!(write, Write::PutCredential(..) | Write::RemoveCredential(_) | Write::RemoveUser(_))
}
