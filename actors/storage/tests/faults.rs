//! Faults of the disk: everybody is answered, nothing acknowledged is lost, and nothing is written twice.

use std::io;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use super::*;
use crate::storage::faulty_disk::Operation;
use crate::storage::reader::Unreadable;

async fn faulty() -> (Store, FaultyDisk) {
    let disk = FaultyDisk::new(Arc::new(MemoryDisk::new())).unwrap();
    (Store::on(Location::Disk(Arc::new(disk.clone()))).await, disk)
}

fn commit(storage: &Storage, batch: Batch) -> tokio::task::JoinHandle<Result<Verdict, CommitError>> {
    let storage = storage.clone();
    tokio::spawn(async move { storage.commit(batch).await })
}

/// A batch that no outcome guards: written twice, it would show.
fn counting(user: UserId) -> Batch {
    Batch { writes: vec![Write::RecordLogin(user, at(1))], signals: vec![signal(user)], ..batch() }
}

#[tokio::test(start_paused = true)]
async fn whichever_call_of_the_disk_fails_a_batch_is_committed_once() {
    let user = UserId::new();
    for operation in [Operation::Sync, Operation::Write] {
        for nth in 1..=6 {
            let (store, disk) = faulty().await;
            store.commit(counting(user)).await;
            disk.fail_nth(operation, nth, io::ErrorKind::Other);
            for place in 2..=5 {
                assert_eq!(store.commit(counting(user)).await, place, "{operation:?} {nth}");
            }
            assert_eq!(store.look(|view| view.activity(user)).unwrap().logins, 5, "{operation:?} {nth}");
            assert!(store.log().into_iter().eq(1..=5), "{operation:?} {nth}");
            assert!(store.told.lock().unwrap().iter().copied().eq(1..=5), "{operation:?} {nth}");
            let state = store.storage.observe();
            assert_eq!((state.batches, state.reopenings, state.available), (5, 1, true), "{operation:?} {nth}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_whose_end_was_stored_though_the_commit_failed_is_not_taken_from_memory() {
    let (ada, hash) = (user_id(1), [7; 32]);
    for nth in 1..=2 {
        let (store, disk) = faulty().await;
        store.write(vec![put_user(user_row(ada)), put_session(7, ada)]).await;
        assert!(store.storage.known_session(&hash).unwrap().is_some());
        disk.fail_nth(Operation::Sync, nth, io::ErrorKind::Other);
        store.write(vec![Write::RemoveSession(hash)]).await;
        assert_eq!(store.storage.observe().reopenings, 1, "{nth}");
        assert!(store.storage.known_session(&hash).unwrap().is_none(), "{nth}");
    }
}

#[tokio::test(start_paused = true)]
async fn credentials_are_counted_once_and_in_memory_too_whichever_call_of_the_disk_fails() {
    let hash = |lanes: u8| format!("$argon2id$v=19$m=64,t=1,p={lanes}$c29tZXNhbHQ$AJFIsNZTMKTAewB4+ETN1A");
    let put = |seed: u8, lanes: u8| Write::PutCredential(user_id(seed), CredentialRow::new(hash(lanes), 1, at(1)));
    for operation in [Operation::Sync, Operation::Write] {
        for nth in 1..=6 {
            let (store, disk) = faulty().await;
            store.write(vec![put(1, 1), put(2, 1)]).await;
            disk.fail_nth(operation, nth, io::ErrorKind::Other);
            // Wherever it fails, the census that memory has then is that of what was committed.
            for writes in [vec![put(3, 1)], vec![put(1, 2)], vec![Write::RemoveCredential(user_id(2))]] {
                store.write(writes).await;
                assert_eq!(*store.storage.reader().census(), store.look(Census::recount), "{operation:?} {nth}");
            }
            assert_eq!(store.storage.observe().reopenings, 1, "{operation:?} {nth}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn while_the_disk_is_out_everybody_is_answered_and_nothing_is_denied() {
    let (store, disk) = faulty().await;
    let (ada, count) = (user_id(1), 100);
    store.write(vec![put_user(user_row(ada))]).await;
    let reader = store.storage.reader();
    disk.fail_all(io::ErrorKind::Other);
    let calls: Vec<_> = (0..count).map(|_| commit(&store.storage, counting(ada))).collect();
    while store.storage.observe().available {
        // Cached or not, the user is there or nothing is known.
        assert!(!matches!(reader.user(ada), Ok(None)));
        tokio::task::yield_now().await;
    }
    assert_eq!(reader.user(ada), Err(Unreadable));
    assert_eq!(reader.session(&[1; 32]).unwrap_err(), Unreadable);
    assert_eq!(store.storage.commit(counting(ada)).await.unwrap_err(), CommitError::Unavailable);
    store.storage.flush().await;
    let later = CursorRow { revision: 1, taken: 1, created_at: at(1), ..CursorRow::default() };
    store.storage.commit_with_next(Batch { writes: vec![Write::PutCursor("mail".to_owned(), later)], ..batch() });
    // Several attempts to reopen fail.
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!((store.storage.observe().available, store.storage.observe().reopenings), (false, 0));

    disk.heal();
    let mut acknowledged = 0;
    for call in calls {
        match call.await.unwrap() {
            Ok(Verdict::Committed(_)) => acknowledged += 1,
            Err(CommitError::Unavailable) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(acknowledged > 0);
    assert_eq!(store.look(|view| view.activity(ada)).unwrap().logins, acknowledged);
    assert!(store.log().into_iter().eq(1..=acknowledged));
    store.storage.flush().await;
    assert_eq!(reader.cursor("mail").unwrap().unwrap().floor(), 1, "what was left for later waited");
    let state = store.storage.observe();
    assert_eq!((state.available, state.reopenings, state.queued, state.lost), (true, 1, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_loses_what_was_acknowledged_stays_out() {
    let disk = MemoryDisk::new();
    let faulty = FaultyDisk::new(Arc::new(disk.clone())).unwrap();
    let store = Store::on(Location::Disk(Arc::new(faulty.clone()))).await;
    store.commit(telling()).await;
    let old = disk.to_bytes();
    store.write(vec![Write::RecordLogin(user_id(1), at(1))]).await;
    faulty.fail_nth(Operation::Sync, 1, io::ErrorKind::Other);
    faulty.fail_nth(Operation::Read, 1, io::ErrorKind::Other);
    let call = commit(&store.storage, telling());
    while store.storage.observe().available {
        tokio::task::yield_now().await;
    }
    // The disk comes back as it was before the last acknowledged transaction, which told no signal.
    disk.set_len(old.len() as u64).unwrap();
    disk.write(0, &old).unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!store.storage.observe().available);
    store.actor.drain().unwrap();
    store.actor.wait(None).await.unwrap();
    assert_eq!(call.await.unwrap().unwrap_err(), CommitError::Interrupted, "whether it was written is not known");
}

#[tokio::test(start_paused = true)]
async fn stopping_does_not_wait_for_a_disk_that_is_out() {
    let (store, disk) = faulty().await;
    disk.fail_all(io::ErrorKind::Other);
    let calls: Vec<_> = (0..10).map(|_| commit(&store.storage, telling())).collect();
    while store.storage.observe().available {
        tokio::task::yield_now().await;
    }
    store.storage.commit_with_next(telling());
    store.queued(11).await;
    store.actor.drain().unwrap();
    store.actor.wait(None).await.unwrap();
    for call in calls {
        let refused = call.await.unwrap().unwrap_err();
        assert!(matches!(refused, CommitError::Unavailable | CommitError::Interrupted), "{refused:?}");
    }
    assert_eq!((store.storage.observe().queued, store.storage.observe().lost), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_read_that_fails_is_healed_though_nobody_writes() {
    for calls in [1, 2, 3, 10] {
        let disk = FaultyDisk::new(Arc::new(MemoryDisk::new())).unwrap();
        // Without a cache every read reaches the disk.
        let settings = StorageSettings { engine: EngineSettings { cache_bytes: 0 }, ..StorageSettings::default() };
        let store = Store::with(Location::Disk(Arc::new(disk.clone())), settings).await;
        let ada = user_id(1);
        store.write(vec![put_user(user_row(ada))]).await;
        disk.fail_span(Operation::Read, 1, calls, io::ErrorKind::Other);
        let reader = store.storage.reader();
        let mut denied = 0;
        let found = loop {
            match reader.user(ada) {
                Ok(found) => break found,
                Err(Unreadable) => denied += 1,
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        assert!(found.is_some() && denied > 0, "{calls}: {denied}");
        assert_eq!(store.storage.observe().reopenings, 1, "{calls}");
        assert_eq!(store.commit(counting(ada)).await, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_another_has_taken_meanwhile_is_waited_for() {
    let (store, disk) = faulty().await;
    store.commit(telling()).await;
    disk.fail_nth(Operation::Sync, 1, io::ErrorKind::Other);
    disk.fail_span(Operation::Claim, 1, 4, io::ErrorKind::Other);
    assert_eq!(store.commit(telling()).await, 2);
    assert_eq!((store.storage.observe().reopenings, disk.counts().claims), (1, 6));
}

#[tokio::test(start_paused = true)]
async fn what_an_incarnation_committed_and_did_not_tell_the_next_one_tells() {
    let mut store = Store::new().await;
    store.commit(telling()).await;
    store.kill().await;
    // The transaction of a writer that died before it told it.
    let signal = signal(user_id(1));
    let lost = batch::Prepared::new(Batch { signals: vec![signal], ..batch() }).unwrap();
    let written = store.storage.shared.engine.write(|transaction| {
        let mut log = log::LogEnd::read(transaction)?;
        lost.apply(transaction, &mut log, &keys(7))?;
        log.store(transaction)
    });
    assert!(written.is_ok());
    store.restart().await;
    store.commit(telling()).await;
    assert_eq!(*store.told.lock().unwrap(), [1, 2, 3]);
}

/// A disk with a fixed number of bytes, or one that panics.
#[derive(Debug)]
struct OddDisk {
    inner: MemoryDisk,
    capacity: AtomicU64,
    panics: AtomicBool,
}

impl OddDisk {
    fn new() -> Arc<Self> {
        Arc::new(Self { inner: MemoryDisk::new(), capacity: AtomicU64::new(u64::MAX), panics: AtomicBool::new(false) })
    }
}

impl Disk for OddDisk {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let room = length <= self.capacity.load(Ordering::SeqCst);
        if room { self.inner.set_len(length) } else { Err(io::ErrorKind::StorageFull.into()) }
    }

    fn read(&self, offset: u64, target: &mut [u8]) -> io::Result<()> {
        self.inner.read(offset, target)
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.inner.write(offset, bytes)
    }

    fn sync(&self) -> io::Result<()> {
        assert!(!self.panics.swap(false, Ordering::SeqCst), "a panic on purpose");
        self.inner.sync()
    }

    fn claim(&self) -> bool {
        self.inner.claim()
    }

    fn release(&self) {
        self.inner.release();
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_full_disk_has_no_room_for_is_refused_and_the_rest_goes_on() {
    let disk = OddDisk::new();
    let store = Store::on(Location::Disk(Arc::clone(&disk) as _)).await;
    store.commit(telling()).await;
    disk.capacity.store(disk.inner.len().unwrap(), Ordering::SeqCst);
    let huge = || Write::PutProjection("p".to_owned(), 0, Vec::new(), vec![7; 16 << 20]);
    let refused = store.storage.commit(Batch { writes: vec![huge()], ..batch() }).await;
    assert_eq!(refused.unwrap_err(), CommitError::Unavailable);
    assert_eq!(store.commit(telling()).await, 2, "what has room is written");
    disk.capacity.store(u64::MAX, Ordering::SeqCst);
    store.write(vec![huge()]).await;
    assert_eq!(store.count(Table::Projections), 1);
}

#[tokio::test(start_paused = true)]
async fn a_panic_beneath_a_transaction_loses_nothing() {
    let disk = OddDisk::new();
    let store = Store::on(Location::Disk(Arc::clone(&disk) as _)).await;
    let user = UserId::new();
    store.commit(counting(user)).await;
    disk.panics.store(true, Ordering::SeqCst);
    let calls: Vec<_> = (0..5).map(|_| commit(&store.storage, counting(user))).collect();
    for call in calls {
        assert!(matches!(call.await.unwrap(), Ok(Verdict::Committed(_))));
    }
    assert_eq!(store.look(|view| view.activity(user)).unwrap().logins, 6);
    assert!(store.log().into_iter().eq(1..=6));
}

#[tokio::test(start_paused = true)]
async fn a_released_store_is_not_opened_again() {
    let disk = MemoryDisk::new();
    let store = Store::on(Location::Memory(disk.clone())).await;
    store.commit(telling()).await;
    store.storage.release();
    assert_eq!(store.storage.commit(telling()).await.unwrap_err(), CommitError::Unavailable);
    // The actor still runs, and what was left for later reaches its writer.
    store.storage.commit_with_next(telling());
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!store.storage.observe().available);
    assert_eq!(store.storage.observe().lost, 1);
    let reopened = Store::on(Location::Memory(disk)).await;
    assert_eq!(reopened.log(), [1]);
}
