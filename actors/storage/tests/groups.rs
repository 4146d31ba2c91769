//! Groups: many batches in one transaction, each committed whole or refused whole, and each answered once.

use std::collections::BTreeSet;

use super::*;

fn commit(storage: &Storage, batch: Batch) -> tokio::task::JoinHandle<Result<Verdict, CommitError>> {
    let storage = storage.clone();
    tokio::spawn(async move { storage.commit(batch).await })
}

/// Keeps the writer from beginning, so that what is submitted meanwhile becomes one group.
async fn held() -> (Store, impl FnOnce()) {
    held_with(StorageSettings::default()).await
}

async fn held_with(settings: StorageSettings) -> (Store, impl FnOnce()) {
    let hook_told = Arc::new(Mutex::new(Vec::new()));
    let note = Arc::clone(&hook_told);
    let hook: CommitHook = Arc::new(move |signals| {
        note.lock().unwrap().extend(signals.envelopes().iter().filter_map(|envelope| envelope.seq));
    });
    let location = Location::Memory(MemoryDisk::new());
    let storage = Storage::open(location, settings, &keys(7), Clock::manual(at(0)), hook).unwrap();
    let (hold, mut held) = tokio::sync::mpsc::channel::<()>(1);
    let (taken, is_taken) = tokio::sync::oneshot::channel();
    let shared = Arc::clone(&storage.shared);
    tokio::spawn(async move {
        let _turn = shared.writing.lock().await;
        taken.send(()).unwrap();
        held.recv().await;
    });
    is_taken.await.unwrap();
    (Store::start(storage, hook_told).await, move || drop(hold))
}

#[tokio::test]
async fn a_thousand_callers_share_a_transaction() {
    let (store, release) = held().await;
    let before = store.storage.observe().transactions;
    let calls: Vec<_> = (0..1_000).map(|_| commit(&store.storage, telling())).collect();
    store.queued(1_000).await;
    release();
    let mut places = BTreeSet::new();
    for call in calls {
        let Verdict::Committed(place) = call.await.unwrap().unwrap() else { panic!("not committed") };
        places.insert(place);
    }
    assert!(places.into_iter().eq(1..=1_000));
    assert!(store.log().into_iter().eq(1..=1_000));
    let state = store.storage.observe();
    assert_eq!((state.transactions - before, state.batches, state.queued), (1, 1_000, 0));
    assert!(store.told.lock().unwrap().iter().copied().eq(1..=1_000));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_find_company_without_waiting_for_it() {
    let store = Store::new().await;
    let calls: Vec<_> = (0..1_000).map(|_| commit(&store.storage, telling())).collect();
    for call in calls {
        assert!(matches!(call.await.unwrap(), Ok(Verdict::Committed(_))));
    }
    assert!(store.log().into_iter().eq(1..=1_000));
    let transactions = store.storage.observe().transactions;
    assert!(transactions < 300, "{transactions} transactions for 1,000 batches");
    assert!(store.told.lock().unwrap().iter().copied().eq(1..=1_000), "told in the order of commits");
}

#[tokio::test(start_paused = true)]
async fn the_patient_wait_for_company_until_the_least_patient_no_longer_does() {
    let store = Store::new().await;
    let seconds = Duration::from_secs;
    let patient = |patience| {
        let storage = store.storage.clone();
        tokio::spawn(async move { storage.commit_within(telling(), patience).await })
    };
    let transactions = || store.storage.observe().transactions;
    let (begun, before) = (Instant::now(), transactions());
    let calls = [patient(seconds(20)), patient(seconds(5)), patient(seconds(10))];
    store.queued(3).await;
    assert_eq!((transactions(), begun.elapsed()), (before, Duration::ZERO));
    for call in calls {
        assert!(matches!(call.await.unwrap(), Ok(Verdict::Committed(_))));
    }
    assert_eq!((transactions(), begun.elapsed().as_secs()), (before + 1, 5));
    let waiting = patient(seconds(20));
    store.queued(1).await;
    store.commit(telling()).await;
    assert!(matches!(waiting.await.unwrap(), Ok(Verdict::Committed(_))));
    assert_eq!((transactions(), begun.elapsed().as_secs()), (before + 2, 5), "who cannot wait takes it along");
    assert!(store.log().into_iter().eq(1..=5));
}

#[tokio::test]
async fn a_group_has_a_limit() {
    let settings = StorageSettings { group: 10, ..StorageSettings::default() };
    let (store, release) = held_with(settings).await;
    for _ in 0..7 {
        store.storage.commit_with_next(telling());
    }
    store.queued(7).await;
    let calls: Vec<_> = (0..28).map(|_| commit(&store.storage, telling())).collect();
    store.queued(35).await;
    release();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!((store.storage.observe().transactions, store.log().len()), (4, 35));
}

#[tokio::test]
async fn a_refused_batch_leaves_no_trace_and_its_neighbours_commit() {
    let (store, release) = held().await;
    let user = UserId::new();
    let refused = Batch {
        checks: vec![Check::Owner(UniqueKey::username("ada"), None), Check::UserVersion(user, 1)],
        writes: vec![put_user(user_row(user)), put_session(1, user)],
        signals: vec![signal(user)],
        outcome: Some(outcome(CommandId::new())),
        ..batch()
    };
    let calls = [telling(), refused, telling()].map(|batch| commit(&store.storage, batch));
    store.queued(3).await;
    release();
    let mut verdicts = Vec::new();
    for call in calls {
        verdicts.push(call.await.unwrap().unwrap());
    }
    assert!(matches!(verdicts[..], [Verdict::Committed(1), Verdict::Conflict, Verdict::Committed(2)]), "{verdicts:?}");
    assert_eq!(store.tables_with(user.as_bytes()), []);
    assert_eq!((store.count(Table::Applied), store.count(Table::Expiry), store.log()), (0, 0, vec![1, 2]));
    let state = store.storage.observe();
    assert_eq!((state.transactions, state.batches, state.conflicts), (1, 2, 1));
}

#[tokio::test]
async fn what_one_batch_of_a_group_writes_the_next_one_sees() {
    let (store, release) = held().await;
    let user = UserId::new();
    let put = |version| put_user(UserRow { version, ..user_row(user) });
    let step = |expected, version| Batch {
        checks: vec![Check::UserVersion(user, expected)],
        writes: vec![put(version)],
        ..batch()
    };
    let first = Batch { writes: vec![put(1)], ..batch() };
    let calls = [first, step(1, 2), step(1, 9), step(2, 3)].map(|batch| commit(&store.storage, batch));
    store.queued(4).await;
    release();
    let mut committed = Vec::new();
    for call in calls {
        committed.push(matches!(call.await.unwrap().unwrap(), Verdict::Committed(_)));
    }
    assert_eq!(committed, [true, true, false, true]);
    assert_eq!(store.user(user).unwrap().version, 3);
}

#[tokio::test]
async fn a_batch_that_cannot_be_written_fails_alone() {
    let (store, release) = held().await;
    // NUL ends a text within a key, so no address may hold one.
    let spoilt = || Batch {
        writes: vec![Write::PutClaim(Channel::Email, "a\0b".to_owned(), user_id(3))],
        signals: vec![signal(user_id(3))],
        ..batch()
    };
    let calls = [telling(), spoilt(), telling(), spoilt(), telling()].map(|batch| commit(&store.storage, batch));
    store.queued(5).await;
    release();
    let mut places = Vec::new();
    for call in calls {
        places.push(match call.await.unwrap() {
            Ok(Verdict::Committed(place)) => Some(place),
            Err(CommitError::Failed) => None,
            other => panic!("{other:?}"),
        });
    }
    assert_eq!(places, [Some(1), None, Some(2), None, Some(3)]);
    assert_eq!((store.log(), store.tables_with(user_id(3).as_bytes())), (vec![1, 2, 3], vec![]));
    assert_eq!(store.storage.observe().reopenings, 0);
}

#[tokio::test]
async fn the_same_command_is_committed_once() {
    let store = Store::new().await;
    let command = CommandId::new();
    let user = UserId::new();
    let first = Batch {
        outcome: Some(outcome(command)),
        writes: vec![Write::RecordLogin(user, at(1))],
        signals: vec![signal(user)],
        ..batch()
    };
    store.commit(telling()).await;
    assert_eq!(store.commit(first.clone()).await, 2);
    assert_eq!(store.commit(first.clone()).await, 2, "the same run, asked again");
    assert_eq!(store.look(|view| view.activity(user)).unwrap().logins, 1);
    assert_eq!(*store.told.lock().unwrap(), [1, 2], "what was told is not told again");
    assert_eq!(store.storage.observe().batches, 2);

    let other = Batch { flow: FlowId::new(), ..first.clone() };
    let Verdict::AlreadyApplied(applied) = store.storage.commit(other.clone()).await.unwrap() else {
        panic!("another run of the command")
    };
    assert_eq!((applied.flow, applied.first_seq), (first.flow, 2));
    assert_eq!((applied.outcome.as_slice(), applied.expires_at), (&b"answer"[..], at(10)));
    assert_eq!(store.log(), [1, 2]);

    let later = Outcome { renew: true, answer: b"anew".to_vec(), at: at(5), ..outcome(command) };
    let renewed = Batch { outcome: Some(later), ..other };
    assert_eq!(store.commit(renewed.clone()).await, 3);
    assert_eq!(store.commit(renewed.clone()).await, 3, "a renewal is committed once, too");
    let row = store.storage.reader().applied(command).unwrap().unwrap();
    assert_eq!((row.flow, row.outcome.as_slice(), row.first_seq), (renewed.flow, &b"anew"[..], 3));
    assert_eq!((store.count(Table::Applied), store.count(Table::Expiry)), (1, 1));
    store.write(vec![Write::Sweep(at(11), 9)]).await;
    assert_eq!(store.count(Table::Applied), 1, "the renewed term counts");
}

#[tokio::test]
async fn a_batch_without_an_effect_costs_no_transaction() {
    let store = Store::new().await;
    store.write(vec![Write::RemoveSession([1; 32]), Write::ClearFailures([1; 32])]).await;
    assert!(!store.holds(Check::UserVersion(user_id(1), 1)).await);
    assert_eq!(store.storage.observe().transactions, 0);
}

#[tokio::test(start_paused = true)]
async fn progress_for_later_rides_with_the_next_batch_or_is_flushed() {
    let store = Store::new().await;
    let cursor = |floor| Batch {
        writes: vec![Write::PutCursor(
            "mail".to_owned(),
            CursorRow { taken: floor, created_at: at(1), ..CursorRow::default() },
        )],
        ..batch()
    };
    let floor = || store.storage.reader().cursor("mail").unwrap().map(|row| row.floor());
    store.storage.commit_with_next(cursor(1));
    store.storage.commit_with_next(cursor(2));
    store.queued(2).await;
    assert_eq!((floor(), store.storage.observe().transactions), (None, 0));
    store.commit(telling()).await;
    assert_eq!((floor(), store.storage.observe().transactions), (Some(2), 1));

    store.storage.commit_with_next(cursor(3));
    store.storage.flush().await;
    assert_eq!((floor(), store.storage.observe().transactions), (Some(3), 2));
    store.storage.flush().await;
    assert_eq!(store.storage.observe().transactions, 2);

    // Alone, it waits for the idle flush and no longer.
    store.storage.commit_with_next(cursor(4));
    store.queued(1).await;
    assert_eq!(floor(), Some(3));
    tokio::time::advance(StorageSettings::default().idle_flush).await;
    while floor() != Some(4) {
        tokio::task::yield_now().await;
    }
    assert_eq!(store.storage.observe().lost, 0);
}

#[tokio::test]
async fn a_full_queue_refuses_and_counts() {
    let settings = StorageSettings { queue: 4, ..StorageSettings::default() };
    let (store, release) = held_with(settings).await;
    let calls: Vec<_> = (0..4).map(|_| commit(&store.storage, telling())).collect();
    store.queued(4).await;
    assert_eq!(store.storage.commit(telling()).await.unwrap_err(), CommitError::Overloaded);
    store.storage.commit_with_next(telling());
    assert_eq!(store.storage.observe().lost, 1);
    release();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!((store.log().len(), store.storage.observe().queued), (4, 0));
}

#[tokio::test]
async fn stopping_commits_what_was_admitted() {
    let (store, release) = held().await;
    let calls: Vec<_> = (0..50).map(|_| commit(&store.storage, telling())).collect();
    store.queued(50).await;
    store.storage.commit_with_next(telling());
    store.queued(51).await;
    store.actor.drain().unwrap();
    release();
    store.actor.wait(None).await.unwrap();
    for call in calls {
        assert!(matches!(call.await.unwrap(), Ok(Verdict::Committed(_))));
    }
    assert!(store.log().into_iter().eq(1..=51));
    store.storage.close();
    assert_eq!(store.storage.commit(telling()).await.unwrap_err(), CommitError::Stopped);
}

#[tokio::test]
async fn what_a_killed_actor_had_admitted_is_committed_before_the_next_begins() {
    let (mut store, release) = held().await;
    let of_the_first: Vec<_> = (0..20).map(|_| commit(&store.storage, telling())).collect();
    store.queued(20).await;
    store.kill().await;
    let between: Vec<_> = (0..20).map(|_| commit(&store.storage, telling())).collect();
    store.restart().await;
    store.queued(40).await;
    assert_eq!(store.log(), [0; 0]);
    release();
    let mut places = Vec::new();
    for call in of_the_first.into_iter().chain(between) {
        let Ok(Verdict::Committed(place)) = call.await.unwrap() else { panic!("not committed") };
        places.push(place);
    }
    assert!(places.into_iter().eq(1..=40));
    assert!(store.told.lock().unwrap().iter().copied().eq(1..=40), "told in the order of commits");
    assert_eq!(store.storage.observe().queued, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_asks_while_the_actor_is_killed_is_answered_once() {
    let mut store = Store::new().await;
    let user = UserId::new();
    let ask = || Batch {
        outcome: Some(outcome(CommandId::new())),
        writes: vec![Write::RecordLogin(user, at(1))],
        signals: vec![signal(user)],
        ..batch()
    };
    let mut calls = Vec::new();
    for _ in 0..3 {
        calls.extend((0..60).map(|_| commit(&store.storage, ask())));
        tokio::task::yield_now().await;
        store.kill().await;
        store.restart().await;
    }
    let mut places = BTreeSet::new();
    for call in calls {
        let Ok(Verdict::Committed(place)) = call.await.unwrap() else { panic!("not committed") };
        places.insert(place);
    }
    assert!(places.into_iter().eq(1..=180));
    assert!(store.log().into_iter().eq(1..=180));
    assert_eq!(store.look(|view| view.activity(user)).unwrap().logins, 180);
    assert!(store.told.lock().unwrap().iter().copied().eq(1..=180));
}

#[tokio::test]
async fn a_writer_that_panics_ends_its_actor_and_the_next_goes_on() {
    let armed = Arc::new(AtomicBool::new(true));
    let fuse = Arc::clone(&armed);
    let hook: CommitHook = Arc::new(move |_| assert!(!fuse.swap(false, Ordering::SeqCst), "a panic on purpose"));
    let location = Location::Memory(MemoryDisk::new());
    let opened = Storage::open(location, StorageSettings::default(), &keys(7), Clock::manual(at(0)), hook);
    let mut store = Store::start(opened.unwrap(), Arc::default()).await;
    assert_eq!(store.commit(telling()).await, 1);
    store.actor.wait(None).await.unwrap();
    store.restart().await;
    assert_eq!(store.commit(telling()).await, 2);
    assert_eq!((store.log(), store.storage.observe().queued), (vec![1, 2], 0));
}
