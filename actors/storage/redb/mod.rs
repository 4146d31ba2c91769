//! The byte store: tables of ordered keys, snapshots to read and durable transactions to write.

mod disk;
mod error;
mod file;
mod handle;
mod view;

use std::fmt;
use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use redb::backends::FileBackend;
use redb::{Builder, Database, Durability, ReadTransaction, ReadableDatabase, ReadableTable, TableHandle};
use serde::{Deserialize, Serialize};

pub use self::disk::{Disk, MemoryDisk};
pub(crate) use self::error::{CommitError, EngineError};
pub(crate) use self::handle::EngineHandle;
pub(crate) use self::view::{ReadView, Row, Rows, View, WriteView};

use self::disk::DiskBackend;
use self::view::definition;
use super::opening::SCHEMA_NAME;
use super::table::Table;

/// Where a store lies.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Location {
    /// In a file, made with its tables on first use, for its owner alone (mode 0600). Its folder must exist.
    File(PathBuf),
    /// In memory; a clone of the disk opens the same store again.
    Memory(MemoryDisk),
    /// On a device of the caller's making.
    Disk(Arc<dyn Disk>),
}

impl Location {
    /// How many bytes are left around the store; `None` where that is not known.
    pub(crate) fn free_bytes(&self) -> Option<u64> {
        match self {
            Self::File(path) => file::free_bytes(path),
            Self::Memory(_) | Self::Disk(_) => None,
        }
    }
}

/// How the byte store runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct EngineSettings {
    /// Memory for cached pages, in bytes; 128 MiB. A store that fits is read without touching the device.
    pub cache_bytes: usize,
}

impl Default for EngineSettings {
    fn default() -> Self {
        Self { cache_bytes: 128 * 1024 * 1024 }
    }
}

/// What checking a whole store found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Integrity {
    /// Every page is as it was written.
    Sound,
    /// Something was wrong and has been repaired.
    Repaired,
}

/// How much a backup puts into one transaction, in bytes of keys and values.
const BACKUP_CHUNK_BYTES: usize = 4 * 1024 * 1024;

/// An open store. All its work blocks the calling thread.
///
/// One engine at a time has a store open, in this process and in all others.
pub(crate) struct Engine {
    /// The snapshot that everybody reads who reads before the next commit: beginning one, and finding its tables, costs
    /// more than most looks do. Stands first, to be let go of before the database is.
    latest: RwLock<Option<Arc<ReadView>>>,
    database: Database,
    location: Location,
}

impl Engine {
    /// Opens the store, and makes it where there is none.
    ///
    /// # Errors
    /// [`EngineError::is_already_open`], [`EngineError::is_not_a_database`], [`EngineError::is_unsupported_format`],
    /// [`EngineError::is_corruption`], or the fault of the device.
    pub(crate) fn open(location: &Location, settings: &EngineSettings) -> Result<Self, EngineError> {
        if let Location::File(path) = location
            && !path.try_exists()?
        {
            // Where another maker was faster, its file is opened.
            let _ = file::publish(path, |file| fill(file, settings, make_tables))?;
        }
        Self::open_with(location, &builder(settings), Absent::Make)
    }

    /// Opens a store after its device failed: nothing of it is taken from the system's memory, and every page is checked.
    ///
    /// Takes time in proportion to the store. A store that has vanished is not made anew.
    ///
    /// # Errors
    /// As [`Engine::open`]; content that cannot be repaired is [`EngineError::is_corruption`].
    pub(crate) fn reopen_distrustful(location: &Location, settings: &EngineSettings) -> Result<Self, EngineError> {
        if let Location::File(path) = location {
            file::drop_page_cache(path)?;
        }
        Self::open_with(location, builder(settings).set_check_integrity_on_open(true), Absent::Refuse)
    }

    fn open_with(location: &Location, builder: &Builder, absent: Absent) -> Result<Self, EngineError> {
        let database = open_database(location, builder, absent)?;
        refuse_foreign(&database)?;
        make_tables(&database)?;
        Ok(Self { latest: RwLock::default(), database, location: location.clone() })
    }

    /// Reads one snapshot, which holds whatever was committed before the call. The closure returns soon: while it runs,
    /// no page of its snapshot is reused.
    ///
    /// # Errors
    /// The fault of the store, and what `look` answers.
    pub(crate) fn read<T, E: From<EngineError>>(&self, look: impl FnOnce(&ReadView) -> Result<T, E>) -> Result<T, E> {
        let latest = self.latest.read().unwrap_or_else(PoisonError::into_inner).clone();
        let view = match latest {
            Some(view) => view,
            None => self.begin_latest()?,
        };
        look(&view)
    }

    /// Begins the snapshot under the lock, so that none which a commit made old is put in its place after that commit.
    fn begin_latest(&self) -> Result<Arc<ReadView>, EngineError> {
        let mut latest = self.latest.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(view) = &*latest {
            return Ok(Arc::clone(view));
        }
        let transaction = self.database.begin_read().map_err(EngineError::from_redb)?;
        Ok(Arc::clone(latest.insert(Arc::new(ReadView::new(transaction)))))
    }

    /// Lets go of the snapshot: whoever reads from now on begins another.
    fn forget_latest(&self) {
        *self.latest.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Runs one transaction; when this answers `Ok`, its changes are durable. Writers take turns.
    ///
    /// A closure that answers an error or panics leaves no trace, and the panic goes on. One that changed nothing
    /// costs no sync.
    ///
    /// # Errors
    /// [`CommitError::Aborted`] with what `change` answered; [`CommitError::Failed`] with the fault of the store.
    pub(crate) fn write<T, E>(
        &self,
        change: impl FnOnce(&mut WriteView<'_>) -> Result<T, E>,
    ) -> Result<T, CommitError<E>> {
        let mut transaction = self.database.begin_write().map_err(EngineError::from_redb)?;
        transaction.set_durability(Durability::Immediate).map_err(EngineError::from_redb)?;
        // Implies two-phase commit; reopening after a crash then takes no walk over the file.
        transaction.set_quick_repair(true);
        let (outcome, changed) = {
            let mut view = WriteView::new(&transaction);
            // Dropped while a panic unwinds, the transaction would leak its pages; so it is aborted in between.
            let outcome = catch_unwind(AssertUnwindSafe(|| change(&mut view)));
            (outcome, view.is_changed())
        };
        match outcome {
            Ok(Ok(value)) if changed => {
                // Before, so that it keeps no page from being reused that the commit frees; after, so that nobody who
                // was told of the commit reads what was there before it.
                self.forget_latest();
                let committed = transaction.commit();
                self.forget_latest();
                committed.map_err(EngineError::from_commit)?;
                Ok(value)
            }
            Ok(Ok(value)) => {
                transaction.abort().map_err(EngineError::from_redb)?;
                Ok(value)
            }
            Ok(Err(error)) => {
                // A fault here has poisoned the store, and the next transaction says so; nothing was committed.
                let _ = transaction.abort();
                Err(CommitError::Aborted(error))
            }
            Err(panic) => {
                let _ = transaction.abort();
                resume_unwind(panic)
            }
        }
    }

    /// Copies one snapshot into a new file at `path`, made as a new store is; others go on writing meanwhile.
    ///
    /// Until it ends the store cannot reuse the pages of that snapshot and may grow.
    ///
    /// # Errors
    /// [`EngineError::is_target_exists`] where `path` exists, and the faults of both stores.
    pub(crate) fn backup_to(&self, path: &Path) -> Result<(), EngineError> {
        let made = file::publish(path, |file| {
            let snapshot = self.database.begin_read().map_err(EngineError::from_redb)?;
            fill(file, &EngineSettings::default(), |copy| copy_tables(&snapshot, copy))
        })?;
        if made { Ok(()) } else { Err(EngineError::target_exists()) }
    }

    /// The size of the store on its device, in bytes; it grows in steps and seldom shrinks.
    ///
    /// # Errors
    /// The fault of the device.
    pub(crate) fn size_bytes(&self) -> Result<u64, EngineError> {
        Ok(match &self.location {
            Location::File(path) => path.metadata()?.len(),
            Location::Memory(disk) => disk.len()?,
            Location::Disk(disk) => disk.len()?,
        })
    }

    /// Closes the store, as dropping it does, and tells whether that went well. The store is released either way.
    ///
    /// # Errors
    /// The fault of the device; the next opening repairs what closing left undone.
    pub(crate) fn close(self) -> Result<(), EngineError> {
        self.forget_latest();
        self.database.close().map_err(EngineError::from_redb)
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Engine").field("location", &self.location).finish_non_exhaustive()
    }
}

/// Reads every page of a closed store and repairs what can be repaired.
///
/// # Errors
/// As [`Engine::open`]; content that cannot be repaired is [`EngineError::is_corruption`]. A missing file is not made.
pub(crate) fn check_integrity(location: &Location, settings: &EngineSettings) -> Result<Integrity, EngineError> {
    let mut database = open_database(location, &builder(settings), Absent::Refuse)?;
    let sound = guarded(|| database.check_integrity().map_err(EngineError::from_redb))?;
    database.close().map_err(EngineError::from_redb)?;
    Ok(if sound { Integrity::Sound } else { Integrity::Repaired })
}

fn builder(settings: &EngineSettings) -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(settings.cache_bytes);
    builder
}

/// What to do about a store that is not there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Absent {
    Make,
    Refuse,
}

fn open_database(location: &Location, builder: &Builder, absent: Absent) -> Result<Database, EngineError> {
    let disk: Arc<dyn Disk> = match location {
        Location::File(path) => return guarded(|| builder.open(path).map_err(EngineError::from_opening)),
        Location::Memory(disk) => Arc::new(disk.clone()),
        Location::Disk(disk) => Arc::clone(disk),
    };
    if absent == Absent::Refuse && disk.is_empty()? {
        return Err(io::Error::from(io::ErrorKind::NotFound).into());
    }
    guarded(|| builder.create_with_backend(DiskBackend::new(disk)).map_err(EngineError::from_opening))
}

/// The engine may panic over a file that was altered behind its back; to the caller that is corruption.
fn guarded<T>(open: impl FnOnce() -> Result<T, EngineError>) -> Result<T, EngineError> {
    catch_unwind(AssertUnwindSafe(open))
        .unwrap_or_else(|_| Err(EngineError::corrupt("the engine panicked over its content")))
}

/// Makes a store in an empty file, fills it, and closes it.
fn fill(
    file: File,
    settings: &EngineSettings,
    content: impl FnOnce(&Database) -> Result<(), EngineError>,
) -> Result<(), EngineError> {
    let backend = FileBackend::new(file).map_err(EngineError::from_redb)?;
    let database = builder(settings).create_with_backend(backend).map_err(EngineError::from_redb)?;
    content(&database)?;
    database.close().map_err(EngineError::from_redb)
}

/// Refuses what another application keeps in the same format, before anything is written to it.
///
/// A store that bears our mark may hold tables of another version of ours. One without it is ours only if it is fresh:
/// every table it has, if any, is one that we make.
fn refuse_foreign(database: &Database) -> Result<(), EngineError> {
    let snapshot = database.begin_read().map_err(EngineError::from_redb)?;
    let marked = match snapshot.open_table(definition(Table::Meta.name())) {
        Ok(meta) => meta.get(SCHEMA_NAME.as_bytes()).map_err(EngineError::from_redb)?.is_some(),
        Err(redb::TableError::Storage(error)) => return Err(EngineError::from_redb(error)),
        Err(_) => false,
    };
    if marked {
        return Ok(());
    }
    if snapshot.list_multimap_tables().map_err(EngineError::from_redb)?.next().is_some() {
        return Err(EngineError::foreign());
    }
    for table in snapshot.list_tables().map_err(EngineError::from_redb)? {
        let known = Table::ALL.iter().any(|ours| ours.name() == table.name());
        match snapshot.open_table(definition(table.name())) {
            Ok(_) if known => {}
            Err(redb::TableError::Storage(error)) => return Err(EngineError::from_redb(error)),
            _ => return Err(EngineError::foreign()),
        }
    }
    Ok(())
}

/// Makes the tables that the store does not have yet, so that every snapshot has them all.
fn make_tables(database: &Database) -> Result<(), EngineError> {
    let snapshot = database.begin_read().map_err(EngineError::from_redb)?;
    let present: Vec<String> =
        snapshot.list_tables().map_err(EngineError::from_redb)?.map(|table| table.name().to_owned()).collect();
    drop(snapshot);
    let missing: Vec<_> = Table::ALL.iter().filter(|table| present.iter().all(|name| name != table.name())).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let mut transaction = database.begin_write().map_err(EngineError::from_redb)?;
    transaction.set_quick_repair(true);
    for table in missing {
        transaction.open_table(definition(table.name())).map_err(EngineError::from_redb)?;
    }
    transaction.commit().map_err(EngineError::from_redb)
}

/// Copies every table of the snapshot, those of other versions too.
fn copy_tables(snapshot: &ReadTransaction, copy: &Database) -> Result<(), EngineError> {
    for table in snapshot.list_tables().map_err(EngineError::from_redb)? {
        copy_table(snapshot, copy, table.name())?;
    }
    Ok(())
}

fn copy_table(snapshot: &ReadTransaction, copy: &Database, name: &str) -> Result<(), EngineError> {
    let source = snapshot.open_table(definition(name)).map_err(EngineError::from_redb)?;
    let mut rows = source.iter().map_err(EngineError::from_redb)?;
    let mut exhausted = false;
    while !exhausted {
        let mut transaction = copy.begin_write().map_err(EngineError::from_redb)?;
        transaction.set_quick_repair(true);
        let mut target = transaction.open_table(definition(name)).map_err(EngineError::from_redb)?;
        let mut bytes = 0;
        while bytes < BACKUP_CHUNK_BYTES && !exhausted {
            let Some(row) = rows.next() else {
                exhausted = true;
                continue;
            };
            let (key, value) = row.map_err(EngineError::from_redb)?;
            target.insert(key.value(), value.value()).map_err(EngineError::from_redb)?;
            bytes += key.value().len() + value.value().len();
        }
        drop(target);
        transaction.commit().map_err(EngineError::from_redb)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::ErrorKind;
    use std::sync::mpsc;

    use super::*;
    use crate::storage::faulty_disk::{FaultyDisk, Operation};

    fn open(location: &Location) -> Result<Engine, EngineError> {
        Engine::open(location, &EngineSettings::default())
    }

    fn memory() -> Location {
        Location::Memory(MemoryDisk::new())
    }

    fn put(engine: &Engine, key: &[u8], value: &[u8]) -> Result<(), CommitError<EngineError>> {
        engine.write(|view| view.put(Table::Users, key, value))
    }

    fn get(engine: &Engine, key: &[u8]) -> Option<Vec<u8>> {
        let read: Result<_, EngineError> =
            engine.read(|view| Ok(view.get(Table::Users, key)?.map(|value| value.to_vec())));
        read.unwrap()
    }

    /// Every row of every table.
    fn content(engine: &Engine) -> Vec<(Table, Vec<u8>, Vec<u8>)> {
        let read: Result<_, EngineError> = engine.read(|view| {
            let mut rows = Vec::new();
            for table in Table::ALL {
                for row in view.range(table, &[], None)? {
                    let row = row?;
                    rows.push((table, row.key().to_vec(), row.value().to_vec()));
                }
            }
            Ok(rows)
        });
        read.unwrap()
    }

    fn keys(rows: Rows<'_>) -> Vec<u8> {
        rows.map(|row| row.unwrap().key()[0]).collect()
    }

    #[test]
    fn readers_share_a_snapshot_until_a_commit_and_none_outlives_it() {
        let engine = open(&memory()).unwrap();
        let address = || engine.read(|view| Ok::<_, EngineError>(std::ptr::from_ref(view) as usize)).unwrap();
        put(&engine, b"k", b"1").unwrap();
        assert!(engine.latest.read().unwrap().is_none());
        assert_eq!(address(), address());
        let held = Arc::clone(engine.latest.read().unwrap().as_ref().unwrap());
        put(&engine, b"k", b"2").unwrap();
        assert!(engine.latest.read().unwrap().is_none());
        assert_eq!(held.get(Table::Users, b"k").unwrap().unwrap().to_vec(), b"1");
        assert_eq!(get(&engine, b"k").unwrap(), b"2");
        drop(held);
        assert!(engine.write(|_| Err::<(), _>(EngineError::foreign())).is_err());
        assert!(engine.latest.read().unwrap().is_some(), "nothing was committed");
        engine.close().unwrap();
    }

    #[test]
    fn whoever_is_told_of_a_commit_reads_it_however_many_read_meanwhile() {
        let (engine, ended) = (open(&memory()).unwrap(), std::sync::atomic::AtomicBool::new(false));
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !ended.load(std::sync::atomic::Ordering::Relaxed) {
                        get(&engine, b"k");
                    }
                });
            }
            for number in 0..200_u8 {
                put(&engine, b"k", &[number]).unwrap();
                assert_eq!(get(&engine, b"k").unwrap(), [number]);
            }
            ended.store(true, std::sync::atomic::Ordering::Relaxed);
        });
    }

    #[test]
    fn what_another_application_keeps_in_the_same_format_is_refused_and_left_as_it_was() {
        use redb::{MultimapTableDefinition, TableDefinition};
        type Fill = fn(&redb::WriteTransaction);
        let fills: [(&str, Fill); 4] = [
            ("foreign name, no row", |made| drop(made.open_table(definition("orders")).unwrap())),
            ("our name, other types", |made| {
                drop(made.open_table(TableDefinition::<&str, u64>::new("users")).unwrap());
            }),
            ("several values a key", |made| {
                drop(made.open_multimap_table(MultimapTableDefinition::<u64, u64>::new("orders")).unwrap());
            }),
            ("our meta beside foreign ones", |made| {
                drop(made.open_table(definition("meta")).unwrap());
                drop(made.open_table(definition("orders")).unwrap());
            }),
        ];
        let folder = tempfile::tempdir().unwrap();
        for (number, (what, fill)) in fills.into_iter().enumerate() {
            let path = folder.path().join(number.to_string());
            let database = Database::create(&path).unwrap();
            let transaction = database.begin_write().unwrap();
            fill(&transaction);
            transaction.commit().unwrap();
            drop(database);
            assert!(open(&Location::File(path.clone())).unwrap_err().is_not_a_database(), "{what}");
            let database = Database::open(&path).unwrap();
            let tables = database.begin_read().unwrap().list_tables().unwrap().count();
            assert!(tables <= 2, "{what}: {tables} tables");
        }
    }

    #[test]
    fn rows_come_back_in_the_order_of_their_keys() {
        let engine = open(&memory()).unwrap();
        let written: Result<(), CommitError<EngineError>> = engine.write(|view| {
            for key in [3_u8, 1, 2, 200] {
                view.put(Table::Users, &[key], &[key, key])?;
            }
            assert!(view.remove(Table::Users, &[200])?);
            assert!(!view.remove(Table::Users, &[200])?);
            assert_eq!(keys(view.range(Table::Users, &[2], None)?), [2, 3]);
            Ok(())
        });
        written.unwrap();
        let read: Result<(), EngineError> = engine.read(|view| {
            assert_eq!(keys(view.range(Table::Users, &[], None)?), [1, 2, 3]);
            assert_eq!(keys(view.range(Table::Users, &[1], Some(&[3]))?), [1, 2]);
            assert_eq!(keys(view.range(Table::Users, &[3], Some(&[1]))?), Vec::<u8>::new());
            assert_eq!(keys(view.prefix(Table::Users, &[2])?), [2]);
            let latest = view.range(Table::Users, &[], None)?.next_back().unwrap()?;
            assert_eq!((latest.key(), latest.value()), (&[3][..], &[3, 3][..]));
            assert!(view.range(Table::Meta, &[], None)?.next().is_none() && view.get(Table::Meta, &[1])?.is_none());
            Ok(())
        });
        read.unwrap();
    }

    #[test]
    fn a_snapshot_does_not_move() {
        let engine = open(&memory()).unwrap();
        put(&engine, b"a", b"1").unwrap();
        let read: Result<(), EngineError> = engine.read(|view| {
            put(&engine, b"a", b"2").unwrap();
            assert_eq!(&*view.get(Table::Users, b"a")?.unwrap(), b"1");
            Ok(())
        });
        read.unwrap();
        assert_eq!(get(&engine, b"a").unwrap(), b"2");
    }

    #[test]
    fn an_aborted_transaction_leaves_no_trace() {
        #[derive(Debug, PartialEq)]
        struct Refused;
        impl From<EngineError> for Refused {
            fn from(_: EngineError) -> Self {
                Self
            }
        }
        let engine = open(&memory()).unwrap();
        let refused: Result<(), _> = engine.write(|view| {
            view.put(Table::Users, b"a", b"1")?;
            Err(Refused)
        });
        assert!(matches!(refused, Err(CommitError::Aborted(Refused))));

        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let _: Result<(), CommitError<EngineError>> = engine.write(|view| {
                view.put(Table::Users, b"b", b"1")?;
                panic!("a closure may panic");
            });
        }));
        assert_eq!(*panicked.unwrap_err().downcast::<&str>().unwrap(), "a closure may panic");

        assert_eq!(content(&engine), []);
        put(&engine, b"c", b"1").unwrap();
        assert_eq!(content(&engine).len(), 1);
    }

    #[test]
    fn what_changes_nothing_costs_no_sync() {
        let disk = FaultyDisk::new(Arc::new(MemoryDisk::new())).unwrap();
        let engine = open(&Location::Disk(Arc::new(disk.clone()))).unwrap();
        let before = disk.counts();
        let looked: Result<bool, CommitError<EngineError>> = engine.write(|view| view.remove(Table::Users, b"a"));
        assert!(!looked.unwrap());
        assert_eq!(disk.counts().syncs, before.syncs);
        put(&engine, b"a", b"1").unwrap();
        assert!(disk.counts().syncs >= before.syncs + 2, "a commit has two phases");
    }

    #[test]
    fn a_store_is_open_once_and_can_be_reopened() {
        let folder = tempfile::tempdir().unwrap();
        for location in [Location::File(folder.path().join("store")), memory()] {
            let engine = open(&location).unwrap();
            put(&engine, b"a", b"1").unwrap();
            let second = open(&location).unwrap_err();
            assert!(second.is_already_open() && !second.needs_reopen());
            assert!(check_integrity(&location, &EngineSettings::default()).unwrap_err().is_already_open());
            assert!(engine.size_bytes().unwrap() > 0);
            engine.close().unwrap();
            let engine = open(&location).unwrap();
            assert_eq!(get(&engine, b"a").unwrap(), b"1");
            drop(engine);
            assert_eq!(check_integrity(&location, &EngineSettings::default()).unwrap(), Integrity::Sound);
            let engine = Engine::reopen_distrustful(&location, &EngineSettings::default()).unwrap();
            assert_eq!(get(&engine, b"a").unwrap(), b"1");
        }
    }

    #[test]
    fn what_is_missing_is_not_made_by_looking_at_it() {
        let folder = tempfile::tempdir().unwrap();
        for location in [Location::File(folder.path().join("store")), memory()] {
            assert!(check_integrity(&location, &EngineSettings::default()).unwrap_err().is_io());
            assert!(Engine::reopen_distrustful(&location, &EngineSettings::default()).unwrap_err().is_io());
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_of_something_else_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        for garbage in [Vec::new(), b"short".to_vec(), vec![0x5a; 100_000]] {
            fs::write(&path, &garbage).unwrap();
            let refused = open(&Location::File(path.clone())).unwrap_err();
            assert!(refused.is_not_a_database(), "{refused:?}");
            assert_eq!(fs::read(&path).unwrap(), garbage);
        }
    }

    #[test]
    fn a_file_of_another_version_is_refused() {
        let disk = MemoryDisk::new();
        drop(open(&Location::Memory(disk.clone())).unwrap());
        for version in [1, 99] {
            let mut bytes = disk.to_bytes();
            // The first byte of either commit slot (redb's design.md).
            (bytes[64], bytes[192]) = (version, version);
            let refused = open(&Location::Memory(MemoryDisk::with_bytes(bytes))).unwrap_err();
            assert!(refused.is_unsupported_format(), "{refused:?}");
            assert!(refused.to_string().contains(&version.to_string()));
        }
    }

    #[test]
    fn altered_content_is_found_and_reported() {
        let disk = MemoryDisk::new();
        let engine = open(&Location::Memory(disk.clone())).unwrap();
        put(&engine, b"needle", b"in a haystack").unwrap();
        engine.close().unwrap();
        let mut bytes = disk.to_bytes();
        let places: Vec<_> = bytes.windows(8).enumerate().filter(|(_, part)| *part == b"haystack").collect();
        for place in places.into_iter().map(|(place, _)| place).collect::<Vec<_>>() {
            bytes[place] ^= 1;
        }
        let location = Location::Memory(MemoryDisk::with_bytes(bytes));
        let reopened = Engine::reopen_distrustful(&location, &EngineSettings::default());
        assert!(reopened.unwrap_err().is_corruption());
    }

    #[test]
    fn a_draft_left_by_a_crash_is_no_obstacle() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        fs::write(folder.path().join("store.tmp"), "half a store").unwrap();
        put(&open(&Location::File(path)).unwrap(), b"a", b"1").unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_backup_is_one_snapshot_of_a_living_store() {
        let folder = tempfile::tempdir().unwrap();
        let engine = open(&memory()).unwrap();
        let filled: Result<(), CommitError<EngineError>> = engine.write(|view| {
            for number in 0..2_000_u32 {
                // More than one chunk.
                view.put(Table::Users, &number.to_be_bytes(), &vec![7; 3_000])?;
                view.put(Table::Expiry, &number.to_be_bytes(), &[])?;
            }
            Ok(())
        });
        filled.unwrap();
        let target = folder.path().join("backup");
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut number = 0_u32;
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    // Both rows or neither belong to any snapshot.
                    let written: Result<(), CommitError<EngineError>> = engine.write(|view| {
                        view.put(Table::Meta, &number.to_be_bytes(), b"x")?;
                        view.put(Table::Tokens, &number.to_be_bytes(), b"x")
                    });
                    written.unwrap();
                    number += 1;
                }
            });
            engine.backup_to(&target).unwrap();
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        assert!(engine.backup_to(&target).unwrap_err().is_target_exists());

        let copy = content(&open(&Location::File(target)).unwrap());
        let rows = |wanted: Table| copy.iter().filter(|(table, ..)| *table == wanted).count();
        assert_eq!((rows(Table::Users), rows(Table::Expiry)), (2_000, 2_000));
        assert_eq!(rows(Table::Meta), rows(Table::Tokens));
        let original: std::collections::HashSet<_> = content(&engine).into_iter().collect();
        assert!(copy.iter().all(|row| original.contains(row)));
    }

    #[test]
    fn after_a_failed_sync_the_store_is_reopened_with_its_data() {
        let disk = FaultyDisk::new(Arc::new(MemoryDisk::new())).unwrap();
        let location = Location::Disk(Arc::new(disk.clone()));
        let handle = EngineHandle::unavailable();
        handle.install(open(&location).unwrap());
        let write = |key: &[u8]| handle.write(|view| view.put(Table::Users, key, b"1"));
        write(b"before").unwrap();

        disk.fail_nth(Operation::Sync, 1, ErrorKind::Other);
        let Err(CommitError::Failed(first)) = write(b"unknown") else { panic!("the sync fails") };
        assert!(first.is_io() && first.is_outcome_unknown() && first.needs_reopen() && !first.is_full());
        let Err(CommitError::Failed(later)) = write(b"later") else { panic!("the store is shut") };
        assert!(later.is_io() && !later.is_outcome_unknown() && later.needs_reopen());

        assert!(open(&location).unwrap_err().is_already_open());
        let _ = handle.revoke();
        assert!(!handle.is_available());
        handle.install(Engine::reopen_distrustful(&location, &EngineSettings::default()).unwrap());
        write(b"after").unwrap();
        let kept = handle.with_engine(|engine| Ok::<_, EngineError>(content(engine))).unwrap();
        let kept: Vec<_> = kept.iter().map(|(_, key, _)| key.as_slice()).filter(|key| *key != b"unknown").collect();
        assert_eq!(kept, [&b"after"[..], b"before"]);
    }

    #[test]
    fn a_full_device_is_told_apart_and_survived() {
        let disk = FaultyDisk::new(Arc::new(MemoryDisk::new())).unwrap();
        let location = Location::Disk(Arc::new(disk.clone()));
        let engine = open(&location).unwrap();
        put(&engine, b"before", b"1").unwrap();
        disk.fail_nth(Operation::SetLen, 1, ErrorKind::StorageFull);
        let full = (0..100_u32)
            .find_map(|number| put(&engine, &number.to_be_bytes(), &vec![1; 1 << 20]).err())
            .expect("the store must grow");
        let (CommitError::Aborted(full) | CommitError::Failed(full)) = full;
        assert!(full.is_full() && full.needs_reopen());
        drop(engine);
        let engine = open(&location).unwrap();
        assert_eq!(get(&engine, b"before").unwrap(), b"1");
        put(&engine, b"after", b"1").unwrap();
    }

    #[test]
    fn revoking_waits_for_readers_and_refuses_newcomers() {
        let location = memory();
        let handle = EngineHandle::unavailable();
        let look = |view: &ReadView| view.get(Table::Users, b"a").map(|value| value.is_some());
        let unavailable = handle.read(look).unwrap_err();
        assert!(unavailable.is_unavailable() && !unavailable.needs_reopen());
        handle.install(open(&location).unwrap());
        let (entered, inside) = mpsc::channel();
        let finished = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let read: Result<(), EngineError> = handle.read(|view| {
                    entered.send(()).unwrap();
                    while handle.is_available() {
                        std::thread::yield_now();
                    }
                    assert!(!look(view)?);
                    finished.store(true, std::sync::atomic::Ordering::SeqCst);
                    Ok(())
                });
                read.unwrap();
            });
            inside.recv().unwrap();
            handle.revoke().unwrap();
            assert!(finished.load(std::sync::atomic::Ordering::SeqCst));
        });
        assert!(handle.read(look).unwrap_err().is_unavailable());
        let refused = handle.write(|view| view.put(Table::Users, b"a", b"1"));
        assert!(matches!(refused, Err(CommitError::Failed(error)) if error.is_unavailable()));
        open(&location).unwrap();
    }

    const CRASH_TABLES: [Table; 3] = [Table::Users, Table::Unique, Table::SignalLog];

    fn write_step(engine: &Engine, step: u32) -> Result<(), CommitError<EngineError>> {
        engine.write(|view| {
            let value = vec![step.to_le_bytes()[0]; 200 + 700 * (step as usize % 4)];
            CRASH_TABLES.iter().try_for_each(|table| {
                // Scattered keys dirty many pages.
                let key = u64::from(step).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ *table as u64;
                view.put(*table, &[&key.to_be_bytes()[..], &step.to_be_bytes()].concat(), &value)
            })
        })
    }

    /// In how many of the three tables the row of a step stands.
    fn traces(engine: &Engine) -> std::collections::BTreeMap<u32, usize> {
        let mut traces = std::collections::BTreeMap::new();
        for (_, key, value) in content(engine) {
            let step = u32::from_be_bytes(key[8..].try_into().unwrap());
            assert_eq!(value, vec![step.to_le_bytes()[0]; 200 + 700 * (step as usize % 4)]);
            *traces.entry(step).or_default() += 1;
        }
        traces
    }

    #[test]
    fn a_crash_loses_nothing_acknowledged_and_splits_nothing() {
        let template = MemoryDisk::new();
        let engine = open(&Location::Memory(template.clone())).unwrap();
        (0..20).for_each(|step| write_step(&engine, step).unwrap());
        engine.close().unwrap();
        let template = template.to_bytes();

        let (mut present, mut absent) = (0, 0);
        for seed in 0..200_u64 {
            let disk = FaultyDisk::new(Arc::new(MemoryDisk::with_bytes(template.clone()))).unwrap();
            let engine = open(&Location::Disk(Arc::new(disk.clone()))).unwrap();
            disk.cut_power_after(seed % 67);
            let interrupted = (20..60).find(|step| write_step(&engine, *step).is_err()).expect("the power is cut");
            let image = disk.crash(seed).unwrap();
            drop(engine);
            // The power fails again while the store recovers.
            let recovering = FaultyDisk::new(Arc::new(image)).unwrap();
            recovering.cut_power_after(seed % 5);
            drop(open(&Location::Disk(Arc::new(recovering.clone()))));
            let image = Location::Memory(recovering.crash(!seed).unwrap());

            let engine = open(&image).unwrap();
            let traces = traces(&engine);
            assert!((0..interrupted).all(|step| traces.get(&step) == Some(&3)), "seed {seed}: lost");
            assert!(traces.keys().all(|step| *step <= interrupted), "seed {seed}: invented");
            match traces.get(&interrupted) {
                None => absent += 1,
                Some(3) => present += 1,
                Some(part) => panic!("seed {seed}: {part} rows of 3"),
            }
            write_step(&engine, 1_000).unwrap();
            drop(engine);
            assert_eq!(check_integrity(&image, &EngineSettings::default()).unwrap(), Integrity::Sound, "seed {seed}");
        }
        assert!(present > 0 && absent > 0, "the harness must meet both ends: {present} present, {absent} absent");
    }
}
