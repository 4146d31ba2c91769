//! Migrations: what an older build wrote is brought, step by numbered step, to what this one reads.

use super::lookup::ReadError;
use super::opening::{SCHEMA, SCHEMA_NAME};
use super::redb::{CommitError, Engine, View, WriteView};
use super::table::{Key, Table};

/// Rows read before they are rewritten: what a step holds in memory.
const CHUNK: usize = 1_000;
/// The first generation of a projection, as its keys have it.
const FIRST_GENERATION: [u8; 4] = [0; 4];

/// One step, from the version before it.
type Step = fn(&mut WriteView<'_>) -> Result<(), ReadError>;

/// Every step with the version that it leads to.
const STEPS: &[(u64, Step)] = &[(2, number_projections), (4, move_sessions), (5, super::census::take)];

/// Brings a store of version `found` up to this build's. Takes time in proportion to what has to be rewritten.
///
/// All steps and the new version are one transaction: keys of the old and the new layout cannot be told apart, so a
/// store that is half of each must never be seen, neither by this build after a crash nor by the older one.
pub(super) fn run(engine: &Engine, found: u64) -> Result<(), ReadError> {
    if found >= SCHEMA {
        return Ok(());
    }
    tracing::info!(found, to = SCHEMA, "the database is brought up to this build's schema");
    let migrated = engine.write(|transaction| {
        for (_, step) in STEPS.iter().filter(|(to, _)| *to > found) {
            step(transaction)?;
        }
        Ok(transaction.put(Table::Meta, SCHEMA_NAME.as_bytes(), &Key::new().u64(SCHEMA))?)
    });
    migrated.map_err(|error| match error {
        CommitError::Aborted(error) => error,
        CommitError::Failed(error) => error.into(),
    })
}

/// To version 2: a projection's key was its subscription's name and the subscriber's key; now a generation stands
/// between them. Rows of cursors need no rewriting: the fields that are new have defaults, the renamed one an alias.
///
/// Rows are taken in the order of keys. A new key is lower than the old one, and so among those that are done with:
/// unless the subscriber's key is all zeros, which only such new keys can meet. Those few are put last.
fn number_projections(transaction: &mut WriteView<'_>) -> Result<(), ReadError> {
    let (mut from, mut zeros) = (Vec::new(), Vec::new());
    loop {
        let rows: Vec<(Vec<u8>, Vec<u8>)> = transaction
            .range(Table::Projections, &from, None)?
            .take(CHUNK)
            .map(|row| row.map(|row| (row.key().to_vec(), row.value().to_vec())))
            .collect::<Result<_, _>>()?;
        let Some((last, _)) = rows.last() else { break };
        from = [last.as_slice(), &[0]].concat();
        for (old, value) in rows {
            transaction.remove(Table::Projections, &old)?;
            let name_end = old.iter().position(|byte| *byte == 0).ok_or(ReadError::Key)?.saturating_add(1);
            let (name, key) = old.split_at_checked(name_end).ok_or(ReadError::Key)?;
            let new = [name, &FIRST_GENERATION, key].concat();
            if key.iter().all(|byte| *byte == 0) {
                zeros.push((new, value));
            } else {
                transaction.put(Table::Projections, &new, &value)?;
            }
        }
    }
    for (key, value) in zeros {
        transaction.put(Table::Projections, &key, &value)?;
    }
    Ok(())
}

/// To version 4: the index of users' sessions moves beside what the users did; its keys do not change.
fn move_sessions(transaction: &mut WriteView<'_>) -> Result<(), ReadError> {
    loop {
        let rows: Vec<(Vec<u8>, Vec<u8>)> = transaction
            .range(Table::SessionsByUser, &[], None)?
            .take(CHUNK)
            .map(|row| row.map(|row| (row.key().to_vec(), row.value().to_vec())))
            .collect::<Result<_, _>>()?;
        if rows.is_empty() {
            return Ok(());
        }
        for (key, hash) in rows {
            transaction.put(Table::Activity, &key, &hash)?;
            transaction.remove(Table::SessionsByUser, &key)?;
        }
    }
}
