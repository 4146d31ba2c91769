//! Opening: whether a file is a store of ours, and what it is refused for.

use std::path::Path;

use super::lookup::{Lookup, ReadError};
use super::redb::{self, Engine, EngineError, EngineSettings, Integrity, Location, View};
use super::table::{self, Table};
use super::{migration, names};
use crate::keys::{KeyId, Keyring};

/// The version of tables and rows that this build writes. A file of a newer one is refused, one of an older one is
/// brought up to it.
///
/// 1: the first. 2: the keys of projections carry a generation. 3: further tables, which an older build would leave
/// unread. 4: the sessions of a user lie beside what the user did. 5: the store says which tables of Unicode made the
/// keys of usernames, which an older build would leave as they are; credentials are sealed, and counted: those that are
/// there are counted once, and sealed by the sweep.
pub(super) const SCHEMA: u64 = 5;
pub(super) const SCHEMA_NAME: &str = "schema";
pub(super) const DATABASE: &str = "database";
pub(super) const KEY_PROOF: &str = "key_proof";

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process, or this one, has it open.
    #[error("the database is open already, here or in another process")]
    AlreadyOpen,
    /// The file is none of ours.
    #[error("the file is not a majordomo database")]
    NotADatabase,
    /// A newer build wrote it.
    #[error("the database has schema {found}, newer than the {known} that this build knows")]
    NewerSchema {
        /// The version in the file.
        found: u64,
        /// The newest version this build can read.
        known: u64,
    },
    /// The keys are not those it was made with; every link would be dead and every identifier hash wrong.
    #[error("the keys do not belong to this database")]
    ForeignKeys,
    /// The file has a format that this build cannot read: of the wrong version of the byte store beneath.
    #[error("the database has a file format that this build cannot read")]
    UnsupportedFormat,
    /// The content contradicts itself and cannot be repaired.
    #[error("the database is corrupt: {0}")]
    Corrupt(String),
    /// The disk or the file failed.
    #[error("the database cannot be opened: {0}")]
    Failed(String),
}

impl From<EngineError> for OpenError {
    fn from(error: EngineError) -> Self {
        if error.is_already_open() {
            Self::AlreadyOpen
        } else if error.is_not_a_database() {
            Self::NotADatabase
        } else if error.is_unsupported_format() {
            Self::UnsupportedFormat
        } else if error.is_corruption() {
            Self::Corrupt(error.to_string())
        } else {
            Self::Failed(error.to_string())
        }
    }
}

impl From<ReadError> for OpenError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Engine(error) => error.into(),
            error => Self::Failed(error.to_string()),
        }
    }
}

/// Marks a fresh store as ours, or checks the mark.
pub(super) fn prepare(engine: &Engine, keys: &Keyring) -> Result<(), OpenError> {
    let marked = engine.read(|view| {
        let schema = view.meta_u64(SCHEMA_NAME)?;
        let database = view.get(Table::Meta, DATABASE.as_bytes())?.map(|bytes| bytes.to_vec());
        let proof = view.get(Table::Meta, KEY_PROOF.as_bytes())?.map(|bytes| bytes.to_vec());
        Ok::<_, ReadError>((schema, database, proof))
    })?;
    let (schema, database, proof) = marked;
    if let Some(found) = schema.filter(|found| *found > SCHEMA) {
        return Err(OpenError::NewerSchema { found, known: SCHEMA });
    }
    match (schema, database, proof) {
        (None, None, None) if is_blank(engine)? => mark(engine, keys),
        (None, None, None) => Err(OpenError::NotADatabase),
        // A mark is written whole; half of one is not made good with whatever keys are at hand.
        (Some(found), Some(database), Some(proof)) => match read_mark(&database, &proof) {
            Ok((database, key, proof)) if keys.recognises(database, key, &proof) => {
                migration::run(engine, found)?;
                Ok(names::follow_tables(engine)?)
            }
            _ => Err(OpenError::ForeignKeys),
        },
        _ => Err(OpenError::ForeignKeys),
    }
}

/// Whether no table holds a row: a store that was made, and not marked yet.
fn is_blank(engine: &Engine) -> Result<bool, ReadError> {
    engine.read(|view| {
        for table in Table::ALL {
            if let Some(row) = view.range(table, &[], None)?.next() {
                row?;
                return Ok(false);
            }
        }
        Ok(true)
    })
}

/// Reads every page of a closed store's file, and repairs what can be repaired. Blocks, in proportion to the file.
///
/// # Errors
/// Any [`OpenError`] but those of schema and keys, which are not looked at; a missing file is not made.
pub fn check_integrity(path: impl AsRef<Path>) -> Result<Integrity, OpenError> {
    Ok(redb::check_integrity(&Location::File(path.as_ref().to_owned()), &EngineSettings::default())?)
}

fn read_mark(database: &[u8], proof: &[u8]) -> Result<([u8; 16], KeyId, [u8; 32]), table::MalformedKey> {
    let mut proof = table::KeyReader::new(proof);
    let key = KeyId::from_bytes(proof.fixed()?);
    Ok((table::KeyReader::new(database).fixed()?, key, proof.fixed()?))
}

fn mark(engine: &Engine, keys: &Keyring) -> Result<(), OpenError> {
    let database = *majordomo_model::StoreId::new().as_bytes();
    let (key, proof) = keys.proof_for(database);
    let proof = table::Key::new().fixed(key.as_bytes()).fixed(&proof);
    let marked = engine.write(|transaction| {
        transaction.put(Table::Meta, SCHEMA_NAME.as_bytes(), &table::Key::new().u64(SCHEMA))?;
        transaction.put(Table::Meta, DATABASE.as_bytes(), &database)?;
        names::mark(transaction)?;
        transaction.put(Table::Meta, KEY_PROOF.as_bytes(), &proof)
    });
    marked.map_err(|error| match error {
        redb::CommitError::Aborted(error) | redb::CommitError::Failed(error) => error.into(),
    })
}
