//! Storage: users, tokens, sessions and signals in one ordered, transactional store.

#[cfg(any(test, feature = "testing"))]
pub(crate) mod faulty_disk;
#[allow(dead_code, unused_imports, reason = "the storage actor on top is its user")]
pub(crate) mod redb;
#[allow(dead_code, reason = "the storage actor on top is its user")]
pub(crate) mod table;

#[cfg(any(test, feature = "testing"))]
pub use self::faulty_disk::{Counts, FaultyDisk, Operation};
pub use self::redb::{Disk, EngineSettings, Location, MemoryDisk};
