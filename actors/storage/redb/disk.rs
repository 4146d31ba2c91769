//! Where the bytes lie when they do not lie in a file: an interface that tests can break, and memory.

use std::fmt;
use std::io;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// A device of bytes that grows and shrinks. Everything written before a successful [`Disk::sync`] outlives a crash;
/// of what was written after it, any part may.
pub trait Disk: fmt::Debug + Send + Sync + 'static {
    /// The length in bytes.
    ///
    /// # Errors
    /// Whatever the device reports.
    fn len(&self) -> io::Result<u64>;

    /// Whether the device holds nothing yet.
    ///
    /// # Errors
    /// Whatever the device reports.
    fn is_empty(&self) -> io::Result<bool> {
        self.len().map(|length| length == 0)
    }

    /// Cuts the device off at `length` bytes, or extends it with zeros.
    ///
    /// # Errors
    /// Whatever the device reports; [`io::ErrorKind::StorageFull`] where there is no room.
    fn set_len(&self, length: u64) -> io::Result<()>;

    /// Fills `target` from `offset` on.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] where the range ends beyond the device, and whatever the device reports.
    fn read(&self, offset: u64, target: &mut [u8]) -> io::Result<()>;

    /// Writes all of `bytes` at `offset`. The range lies within the device.
    ///
    /// # Errors
    /// Whatever the device reports; a part of the bytes may have been written.
    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Answers when everything written so far is durable.
    ///
    /// # Errors
    /// Whatever the device reports; what was written since the last success may then be durable or not.
    fn sync(&self) -> io::Result<()>;

    /// Reserves the device for one open store; `false` where another has it.
    fn claim(&self) -> bool;

    /// Gives the device back.
    fn release(&self);
}

/// A device in memory. Clones share its bytes, so a store that is dropped can be opened again on a clone.
#[derive(Clone, Default)]
pub struct MemoryDisk(Arc<Memory>);

#[derive(Default)]
struct Memory {
    bytes: RwLock<Vec<u8>>,
    claimed: AtomicBool,
}

impl MemoryDisk {
    /// An empty device.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A device that holds `bytes`.
    #[must_use]
    pub fn with_bytes(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Memory { bytes: RwLock::new(bytes), claimed: AtomicBool::new(false) }))
    }

    /// A copy of all that the device holds.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.bytes.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Debug for MemoryDisk {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = self.0.bytes.read().unwrap_or_else(PoisonError::into_inner).len();
        formatter.debug_struct("MemoryDisk").field("length", &length).finish_non_exhaustive()
    }
}

impl Disk for MemoryDisk {
    fn len(&self) -> io::Result<u64> {
        let bytes = self.0.bytes.read().unwrap_or_else(PoisonError::into_inner);
        u64::try_from(bytes.len()).map_err(|_| beyond_memory())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let length = usize::try_from(length).map_err(|_| beyond_memory())?;
        self.0.bytes.write().unwrap_or_else(PoisonError::into_inner).resize(length, 0);
        Ok(())
    }

    fn read(&self, offset: u64, target: &mut [u8]) -> io::Result<()> {
        let bytes = self.0.bytes.read().unwrap_or_else(PoisonError::into_inner);
        let (start, end) = span(offset, target.len())?;
        target.copy_from_slice(bytes.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write(&self, offset: u64, source: &[u8]) -> io::Result<()> {
        let mut bytes = self.0.bytes.write().unwrap_or_else(PoisonError::into_inner);
        let (start, end) = span(offset, source.len())?;
        bytes.get_mut(start..end).ok_or_else(beyond_memory)?.copy_from_slice(source);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn claim(&self) -> bool {
        !self.0.claimed.swap(true, Ordering::AcqRel)
    }

    fn release(&self) {
        self.0.claimed.store(false, Ordering::Release);
    }
}

fn span(offset: u64, length: usize) -> io::Result<(usize, usize)> {
    let start = usize::try_from(offset).map_err(|_| beyond_memory())?;
    let end = start.checked_add(length).ok_or_else(beyond_memory)?;
    Ok((start, end))
}

fn beyond_memory() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "the range lies beyond the device")
}

/// Lets the engine work on a [`Disk`].
#[derive(Debug)]
pub(super) struct DiskBackend {
    disk: Arc<dyn Disk>,
    claimed: AtomicBool,
}

impl DiskBackend {
    pub(super) fn new(disk: Arc<dyn Disk>) -> Self {
        Self { disk, claimed: AtomicBool::new(false) }
    }

    fn release(&self) {
        if self.claimed.swap(false, Ordering::AcqRel) {
            self.disk.release();
        }
    }
}

impl redb::StorageBackend for DiskBackend {
    fn len(&self) -> io::Result<u64> {
        self.disk.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.disk.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.disk.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.release();
        Ok(())
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, redb::BackendError> {
        if !is_whole(start, end) {
            return Err(redb::BackendError::Unsupported);
        }
        let claimed = self.disk.claim();
        if claimed {
            self.claimed.store(true, Ordering::Release);
        }
        Ok(claimed)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), redb::BackendError> {
        if !is_whole(start, end) {
            return Err(redb::BackendError::Unsupported);
        }
        self.release();
        Ok(())
    }
}

fn is_whole(start: Bound<u64>, end: Bound<u64>) -> bool {
    matches!(start, Bound::Unbounded | Bound::Included(0)) && end == Bound::Unbounded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_share_their_bytes_and_their_claim() {
        let disk = MemoryDisk::new();
        let clone = disk.clone();
        disk.set_len(8).unwrap();
        disk.write(4, b"abcd").unwrap();
        assert_eq!(clone.to_bytes(), b"\0\0\0\0abcd");
        assert!(disk.claim());
        assert!(!clone.claim());
        disk.release();
        assert!(clone.claim());
    }

    #[test]
    fn a_range_beyond_the_device_is_an_error() {
        let disk = MemoryDisk::with_bytes(vec![1, 2, 3, 4]);
        assert_eq!(disk.read(2, &mut [0; 4]).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(disk.write(u64::MAX, &[0]).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert!(!format!("{disk:?}").contains("1, 2"));
    }
}
