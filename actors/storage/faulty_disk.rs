//! A disk that fails on demand and shows what a crash would leave of it.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::redb::{Disk, MemoryDisk};

/// What a [`FaultyDisk`] is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// [`Disk::read`].
    Read,
    /// [`Disk::write`].
    Write,
    /// [`Disk::set_len`].
    SetLen,
    /// [`Disk::sync`].
    Sync,
    /// [`Disk::claim`], which then answers that another store has the disk.
    Claim,
}

/// How often a [`FaultyDisk`] was asked, failures included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Calls of [`Disk::read`].
    pub reads: u64,
    /// Calls of [`Disk::write`].
    pub writes: u64,
    /// Calls of [`Disk::set_len`].
    pub set_lens: u64,
    /// Calls of [`Disk::sync`].
    pub syncs: u64,
    /// Calls of [`Disk::claim`].
    pub claims: u64,
}

impl Counts {
    /// What was counted since an earlier reading.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Self {
        Self {
            reads: self.reads.saturating_sub(earlier.reads),
            writes: self.writes.saturating_sub(earlier.writes),
            set_lens: self.set_lens.saturating_sub(earlier.set_lens),
            syncs: self.syncs.saturating_sub(earlier.syncs),
            claims: self.claims.saturating_sub(earlier.claims),
        }
    }
}

/// A disk over another one, for tests. Clones share everything, so a test keeps one and gives one to the store.
///
/// It knows which 512-byte sectors have been synced: [`FaultyDisk::crash`] answers what a power cut could leave.
#[derive(Clone, Debug)]
pub struct FaultyDisk {
    inner: Arc<dyn Disk>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    counts: Counts,
    /// Faults to come, each a number of calls of its operation from now; 1 is the next.
    planned: Vec<Planned>,
    /// Every call fails so, until healed.
    broken: Option<io::ErrorKind>,
    /// How many more changing calls (write, set_len, sync) succeed before the power is cut.
    power_left: Option<u64>,
    durable: Vec<u8>,
    unsynced: BTreeSet<usize>,
}

#[derive(Clone, Copy, Debug)]
struct Planned {
    operation: Operation,
    calls_left: u64,
    /// How many calls it meets from then on.
    span: u64,
    fault: Fault,
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    Fails(io::ErrorKind),
    /// A write that stops half way.
    Torn,
}

const SECTOR: usize = 512;

impl FaultyDisk {
    /// A disk over `inner`, whose present content counts as durable.
    ///
    /// # Errors
    /// What `inner` reports while it is read.
    pub fn new(inner: Arc<dyn Disk>) -> io::Result<Self> {
        let durable = content(&*inner)?;
        Ok(Self { inner, state: Arc::new(Mutex::new(State { durable, ..State::default() })) })
    }

    /// Makes the `nth` call of `operation` from now on fail with `kind`; 1 is the next. It changes nothing on the disk.
    pub fn fail_nth(&self, operation: Operation, nth: u64, kind: io::ErrorKind) {
        self.fail_span(operation, nth, 1, kind);
    }

    /// Makes `calls` calls of `operation` fail with `kind`, the `nth` from now on being the first. `u64::MAX` of them
    /// fail until [`FaultyDisk::heal`].
    pub fn fail_span(&self, operation: Operation, nth: u64, calls: u64, kind: io::ErrorKind) {
        self.state().planned.push(Planned { operation, calls_left: nth, span: calls, fault: Fault::Fails(kind) });
    }

    /// Makes the `nth` write from now on write its first half only, and fail.
    pub fn tear_nth_write(&self, nth: u64) {
        self.state().planned.push(Planned {
            operation: Operation::Write,
            calls_left: nth,
            span: 1,
            fault: Fault::Torn,
        });
    }

    /// Makes every call fail with `kind` until [`FaultyDisk::heal`].
    pub fn fail_all(&self, kind: io::ErrorKind) {
        self.state().broken = Some(kind);
    }

    /// Lets `changes` more writes, syncs and changes of length pass, tears the one after them if it is a write, and
    /// fails everything from then on until [`FaultyDisk::heal`].
    pub fn cut_power_after(&self, changes: u64) {
        self.state().power_left = Some(changes);
    }

    /// Forgets every fault, planned or present.
    pub fn heal(&self) {
        let mut state = self.state();
        state.planned.clear();
        state.broken = None;
        state.power_left = None;
    }

    /// How often the disk was asked.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.state().counts
    }

    /// What could be found after a crash at this moment: all that is durable, and of what was written since the last
    /// sync a random part, sector by sector. The same `seed` chooses the same part.
    ///
    /// # Errors
    /// What the inner disk reports while it is read.
    pub fn crash(&self, seed: u64) -> io::Result<MemoryDisk> {
        let state = self.state();
        let live = content(&*self.inner)?;
        let mut random = SplitMix64(seed);
        let mut image = state.durable.clone();
        if random.coin() {
            image.resize(live.len(), 0);
        }
        for sector in &state.unsynced {
            if random.coin() {
                copy_sector(&live, &mut image, *sector);
            }
        }
        Ok(MemoryDisk::with_bytes(image))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Counts a call and answers the fault that it meets.
    fn meet(&mut self, operation: Operation) -> Option<Fault> {
        let count = match operation {
            Operation::Read => &mut self.counts.reads,
            Operation::Write => &mut self.counts.writes,
            Operation::SetLen => &mut self.counts.set_lens,
            Operation::Sync => &mut self.counts.syncs,
            Operation::Claim => &mut self.counts.claims,
        };
        *count += 1;
        let mut planned = None;
        for due in self.planned.iter_mut().filter(|planned| planned.operation == operation) {
            due.calls_left = due.calls_left.saturating_sub(1);
            if due.calls_left == 0 && planned.is_none() {
                planned = Some(due.fault);
                due.span = due.span.saturating_sub(1);
                // The next call meets it again.
                due.calls_left = 1;
            }
        }
        self.planned.retain(|planned| planned.span > 0);
        self.broken.map(Fault::Fails).or_else(|| self.spend_power(operation)).or(planned)
    }

    fn spend_power(&mut self, operation: Operation) -> Option<Fault> {
        let left = self.power_left.as_mut()?;
        if matches!(operation, Operation::Read | Operation::Claim) {
            return None;
        }
        if let Some(fewer) = left.checked_sub(1) {
            *left = fewer;
            return None;
        }
        self.broken = Some(io::ErrorKind::Other);
        Some(if operation == Operation::Write { Fault::Torn } else { Fault::Fails(io::ErrorKind::Other) })
    }

    fn mark_unsynced(&mut self, offset: u64, length: usize) {
        if let Ok(start) = usize::try_from(offset) {
            self.unsynced.extend(start / SECTOR..(start + length).div_ceil(SECTOR));
        }
    }
}

impl Disk for FaultyDisk {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut state = self.state();
        if let Some(fault) = state.meet(Operation::SetLen) {
            return Err(fault.into_error());
        }
        let before = self.inner.len()?;
        self.inner.set_len(length)?;
        // What is cut off and comes back is zeros, and the durable sectors beneath are not.
        let (shorter, longer) = (before.min(length), before.max(length));
        state.mark_unsynced(shorter, usize::try_from(longer - shorter).unwrap_or(usize::MAX));
        Ok(())
    }

    fn read(&self, offset: u64, target: &mut [u8]) -> io::Result<()> {
        let fault = self.state().meet(Operation::Read);
        fault.map_or_else(|| self.inner.read(offset, target), |fault| Err(fault.into_error()))
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        let fault = state.meet(Operation::Write);
        let reaching = match fault {
            None => bytes,
            Some(Fault::Torn) => bytes.split_at_checked(bytes.len() / 2).map_or(bytes, |(half, _)| half),
            Some(fault @ Fault::Fails(_)) => return Err(fault.into_error()),
        };
        self.inner.write(offset, reaching)?;
        state.mark_unsynced(offset, reaching.len());
        fault.map_or(Ok(()), |fault| Err(fault.into_error()))
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state();
        if let Some(fault) = state.meet(Operation::Sync) {
            return Err(fault.into_error());
        }
        self.inner.sync()?;
        let length = usize::try_from(self.inner.len()?).map_err(|_| io::ErrorKind::FileTooLarge)?;
        state.durable.resize(length, 0);
        // Only what changed is read: copying the whole disk at every sync would dwarf the test.
        for sector in std::mem::take(&mut state.unsynced) {
            let start = sector * SECTOR;
            let end = (start + SECTOR).min(length);
            if let Some(durable) = state.durable.get_mut(start..end) {
                self.inner.read(u64::try_from(start).unwrap_or(u64::MAX), durable)?;
            }
        }
        Ok(())
    }

    fn claim(&self) -> bool {
        let fault = self.state().meet(Operation::Claim);
        fault.is_none() && self.inner.claim()
    }

    fn release(&self) {
        self.inner.release();
    }
}

impl Fault {
    fn into_error(self) -> io::Error {
        match self {
            Self::Fails(kind) => io::Error::new(kind, "an injected fault"),
            Self::Torn => io::Error::new(io::ErrorKind::WriteZero, "an injected short write"),
        }
    }
}

/// Copies one sector as far as both images reach; what was cut off in `source` stays cut off only with the length.
fn copy_sector(source: &[u8], target: &mut [u8], sector: usize) {
    let start = sector * SECTOR;
    let end = (start + SECTOR).min(source.len()).min(target.len());
    if let (Some(from), Some(to)) = (source.get(start..end), target.get_mut(start..end)) {
        to.copy_from_slice(from);
    }
}

fn content(disk: &dyn Disk) -> io::Result<Vec<u8>> {
    let length = usize::try_from(disk.len()?).map_err(|_| io::ErrorKind::FileTooLarge)?;
    let mut bytes = vec![0; length];
    disk.read(0, &mut bytes)?;
    Ok(bytes)
}

/// Steele, Lea and Flood's generator: small, and good enough to choose sectors.
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn coin(&mut self) -> bool {
        self.next() & 1 == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(length: usize) -> FaultyDisk {
        FaultyDisk::new(Arc::new(MemoryDisk::with_bytes(vec![0; length]))).unwrap()
    }

    #[test]
    fn the_nth_call_fails_and_the_others_do_not() {
        let disk = disk(1024);
        disk.fail_nth(Operation::Write, 2, io::ErrorKind::StorageFull);
        disk.fail_nth(Operation::Sync, 1, io::ErrorKind::Other);
        disk.write(0, &[1]).unwrap();
        assert_eq!(disk.write(1, &[1]).unwrap_err().kind(), io::ErrorKind::StorageFull);
        disk.write(2, &[1]).unwrap();
        assert_eq!(disk.sync().unwrap_err().kind(), io::ErrorKind::Other);
        disk.sync().unwrap();
        assert_eq!(disk.counts(), Counts { writes: 3, syncs: 2, ..Counts::default() });
        assert_eq!(disk.crash(0).unwrap().to_bytes().get(..3), Some(&[1, 0, 1][..]));
    }

    #[test]
    fn a_fault_may_last_for_some_calls_or_until_it_is_healed() {
        let disk = disk(1024);
        disk.fail_span(Operation::Read, 2, 2, io::ErrorKind::Other);
        let outcomes = [(); 5].map(|()| disk.read(0, &mut [0]).is_ok());
        assert_eq!(outcomes, [true, false, false, true, true]);
        disk.fail_span(Operation::Claim, 1, u64::MAX, io::ErrorKind::Other);
        assert_eq!([(); 3].map(|()| disk.claim()), [false; 3]);
        disk.heal();
        assert!(disk.claim());
    }

    #[test]
    fn a_torn_write_reaches_half_way_and_fails() {
        let disk = disk(1024);
        disk.tear_nth_write(1);
        assert_eq!(disk.write(0, &[9; 4]).unwrap_err().kind(), io::ErrorKind::WriteZero);
        let mut found = [0; 4];
        disk.read(0, &mut found).unwrap();
        assert_eq!(found, [9, 9, 0, 0]);
    }

    #[test]
    fn without_power_everything_fails_until_healed() {
        let disk = disk(1024);
        disk.cut_power_after(1);
        disk.sync().unwrap();
        disk.set_len(2048).unwrap_err();
        disk.sync().unwrap_err();
        disk.read(0, &mut [0]).unwrap_err();
        disk.heal();
        disk.sync().unwrap();
        disk.fail_all(io::ErrorKind::Other);
        disk.read(0, &mut [0]).unwrap_err();
    }

    #[test]
    fn a_crash_keeps_what_was_synced_and_any_part_of_the_rest() {
        let disk = disk(4 * SECTOR);
        disk.write(0, &[1; SECTOR]).unwrap();
        disk.sync().unwrap();
        disk.write(0, &[2; 2 * SECTOR]).unwrap();
        let mut outcomes = BTreeSet::new();
        for seed in 0..64 {
            let image = disk.crash(seed).unwrap().to_bytes();
            assert_eq!(image, disk.crash(seed).unwrap().to_bytes());
            assert!(image.chunks(SECTOR).all(|sector| sector.iter().all(|byte| *byte == sector[0])));
            outcomes.insert((image[0], image[SECTOR]));
        }
        assert_eq!(outcomes, BTreeSet::from([(1, 0), (1, 2), (2, 0), (2, 2)]));
    }

    #[test]
    fn a_length_that_was_not_synced_may_be_lost() {
        let disk = disk(SECTOR);
        disk.set_len(3 * SECTOR as u64).unwrap();
        let lengths: BTreeSet<_> = (0..32).map(|seed| disk.crash(seed).unwrap().to_bytes().len()).collect();
        assert_eq!(lengths, BTreeSet::from([SECTOR, 3 * SECTOR]));
    }
}
