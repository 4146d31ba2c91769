//! Places of the log: by time, by size, page by page, and what pruning leaves of them.

use majordomo_model::{Envelope, Start};
use proptest::prelude::*;
use serde::Serialize;
use std::time::Duration;

use super::*;
use crate::storage::log::{LogEnd, MARK_BYTES, MARK_SIGNALS, bytes_from, kept_bytes, oldest, place, prune};
use crate::storage::redb::WriteView;
use crate::storage::row::{encode, encode_signal};

/// A signal of which only the time and the size matter.
#[derive(Serialize)]
struct Plain {
    at: Timestamp,
    filling: String,
}

fn plain(at: i64, size: usize) -> (Vec<u8>, Timestamp) {
    let at = Timestamp::from_micros(at);
    (encode(&Plain { at, filling: "x".repeat(size) }).unwrap(), at)
}

fn change(engine: &Engine, change: impl FnOnce(&mut WriteView<'_>) -> Result<(), ReadError>) {
    engine.write(change).map_err(|_| "not written").unwrap();
}

fn append(engine: &Engine, signals: &[(Vec<u8>, Timestamp)]) {
    change(engine, |transaction| {
        let mut end = LogEnd::read(transaction)?;
        for (encoded, at) in signals {
            end.append(transaction, encoded, *at)?;
        }
        end.store(transaction)
    });
}

fn memory() -> Engine {
    Engine::open(&Location::Memory(MemoryDisk::new()), &EngineSettings::default()).unwrap()
}

fn marks(engine: &Engine) -> usize {
    rows_of(engine).iter().filter(|(table, ..)| *table == Table::LogMarks).count()
}

/// Signals that mostly follow each other in time: some carry a time that is long past when they are stored, as after an
/// outage, and many a time that is a little earlier than that of the signal before.
fn times() -> impl Strategy<Value = Vec<i64>> {
    let late = prop_oneof![8 => 0_i64..30, 1 => 0_i64..20_000];
    prop::collection::vec(late, 0..3_500).prop_map(|late| {
        let places = (0_i64..).map(|place| place * 10);
        places.zip(late).map(|(time, late)| time - late).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn places_and_sizes_are_those_that_a_scan_of_the_whole_log_finds(
        times in times(), chunk in 1_usize..1_500, cut in 0_u64..2_500,
        looked_for in prop::collection::vec((-100_i64..36_000, 0_u64..4_000), 8),
    ) {
        let engine = memory();
        let signals: Vec<_> = times.iter().map(|at| plain(*at, usize::try_from(*at).unwrap_or(0) % 7)).collect();
        for chunk in signals.chunks(chunk) {
            append(&engine, chunk);
        }
        change(&engine, |transaction| prune(transaction, cut, usize::MAX));
        let next = signals.len() as u64 + 1;
        let first = cut.min(next - 1) + 1;
        let kept: Vec<_> = (1..).zip(&signals).filter(|(place, _)| *place >= first).collect();
        let size = |from: u64| kept.iter().filter(|(place, _)| *place >= from).map(|(_, (bytes, _))| bytes.len() as u64).sum::<u64>();
        let look = |start| engine.read(|view| place(view, start)).unwrap();
        prop_assert_eq!(engine.read(oldest).unwrap(), first);
        prop_assert_eq!(engine.read(kept_bytes).unwrap(), size(0));
        prop_assert_eq!(marks(&engine), (first..=next).filter(|place| place % MARK_SIGNALS == 0).count());
        prop_assert_eq!((look(Start::Now), look(Start::Beginning)), (next, first));
        for (time, seq) in looked_for {
            let time = Timestamp::from_micros(time);
            let found = kept.iter().find(|(_, (_, at))| *at >= time).map_or(next, |(place, _)| *place);
            prop_assert_eq!(look(Start::Time(time)), found);
            prop_assert_eq!(look(Start::Seq(seq)), seq.clamp(1, next));
            prop_assert_eq!(engine.read(|view| bytes_from(view, seq)).unwrap(), size(seq));
        }
    }
}

#[test]
fn large_signals_have_marks_of_their_own_so_that_few_bytes_are_looked_at() {
    let engine = memory();
    let size = usize::try_from(MARK_BYTES).unwrap() / 3;
    let signals: Vec<_> = (0..10).map(|at| plain(at, size)).collect();
    append(&engine, &signals);
    assert_eq!(marks(&engine), 3);
    let expected: usize = signals.iter().skip(4).map(|(bytes, _)| bytes.len()).sum();
    assert_eq!(engine.read(|view| bytes_from(view, 5)).unwrap(), expected as u64);
}

#[test]
fn the_marks_of_version_1_are_read_for_ever() {
    let engine = memory();
    let count = MARK_SIGNALS - 1;
    append(&engine, &(0..count).map(|at| plain(i64::try_from(at).unwrap() + 5, 0)).collect::<Vec<_>>());
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let stored: Vec<_> = rows_of(&engine).into_iter().filter(|(table, ..)| *table == Table::LogMarks).collect();
    let [(_, key, value)] = stored.as_slice() else { panic!("{} marks", stored.len()) };
    assert_eq!((hex(key), hex(value)), ("0000000000000400".to_owned(), "00000000000042798000000000000403".to_owned()));
}

/// A store with ten signals, their times 1 to 10 seconds, of known sizes.
async fn ten() -> (Store, Vec<usize>) {
    let store = Store::new().await;
    let told: Vec<_> =
        (1..=10).map(|second| Envelope { at: at(second), ..signal(user_id(u8::try_from(second).unwrap())) }).collect();
    let sizes = told.iter().map(|envelope| encode_signal(envelope).unwrap().len()).collect();
    store.commit(Batch { signals: told, ..batch() }).await;
    (store, sizes)
}

#[tokio::test]
async fn a_page_ends_where_its_bytes_are_used_up_and_always_holds_one() {
    let (store, sizes) = ten().await;
    let reader = store.storage.reader();
    let places = |signals: Vec<Envelope>| signals.iter().filter_map(|envelope| envelope.seq).collect::<Vec<_>>();
    let page = |seq, limit, bytes| places(reader.page_after(seq, limit, bytes).unwrap());
    assert_eq!(page(0, 3, usize::MAX), [1, 2, 3]);
    assert_eq!(page(4, 99, 0), [5]);
    assert_eq!(page(4, 99, sizes[4]), [5]);
    assert_eq!(page(4, 99, sizes[4] + 1), [5, 6]);
    assert_eq!((page(10, 99, 99), page(0, 0, 99)), (vec![], vec![]));
    assert_eq!(places(reader.signals_at(&[7, 2, 99, 0, 10]).unwrap()), [7, 2, 10]);
    assert_eq!(reader.bytes_behind(8).unwrap(), (sizes[8] + sizes[9]) as u64);
    let log = store.storage.observe().log;
    assert_eq!(log, LogState { first: 1, head: 10, bytes: sizes.iter().sum::<usize>() as u64 });
}

#[tokio::test]
async fn pruning_stops_at_the_lowest_cursor_that_has_not_lapsed_whatever_was_asked() {
    let (store, sizes) = ten().await;
    let cursor = |taken, lapsed_at| CursorRow { taken, lapsed_at, ..CursorRow::default() };
    let put = |name: &str, row| Write::PutCursor(name.to_owned(), row);
    store.write(vec![put("mail", cursor(4, None)), put("gone", cursor(1, Some(at(0))))]).await;
    // Its cursor comes to stand below in the very transaction that prunes.
    store.write(vec![put("moved", cursor(2, None)), Write::PruneLog(9, 100)]).await;
    assert_eq!(store.log(), (3..=10).collect::<Vec<_>>());
    store.write(vec![put("moved", cursor(9, None)), Write::PruneLog(9, 100)]).await;
    assert_eq!(store.log(), (5..=10).collect::<Vec<_>>());
    let reader = store.storage.reader();
    let gone = reader.cursor("gone").unwrap().unwrap();
    assert_eq!((gone.floor(), reader.oldest().unwrap()), (1, 5), "it missed 2 to 4, exactly");
    let bytes: usize = sizes.iter().skip(4).sum();
    assert_eq!(reader.lag(&gone).unwrap(), Lag { signals: 6, bytes: bytes as u64, since: Some(at(5)) });
    assert_eq!(store.storage.observe().log, LogState { first: 5, head: 10, bytes: bytes as u64 });
    assert_eq!(reader.lag(&cursor(10, None)).unwrap(), Lag::default());
}

#[tokio::test]
async fn pruning_takes_what_is_old_and_handled_and_ends_when_it_is_told_to() {
    let keep = Duration::from_secs(100);
    let settings = StorageSettings { keep_signals: keep, ..StorageSettings::default() };
    let clock = Clock::manual(at(0));
    let storage =
        Storage::open(Location::Memory(MemoryDisk::new()), settings, &keys(7), clock.clone(), Arc::new(|_| {}));
    let store = Store::start(storage.unwrap(), Arc::default()).await;
    let signals = (1..=9_000).map(|place| Envelope { at: at(place / 1_000), ..signal(user_id(1)) }).collect();
    store.commit(Batch { signals, ..batch() }).await;
    let oldest = || store.storage.reader().oldest().unwrap();
    clock.advance(keep);
    store.storage.prune(|| false).await.unwrap();
    assert_eq!(oldest(), 1, "nothing is older than is kept");
    clock.advance(Duration::from_secs(5));
    store.storage.prune(|| true).await.unwrap();
    assert_eq!(oldest(), 1);
    store.storage.prune(|| false).await.unwrap();
    assert_eq!(oldest(), 5_000, "the first of the fifth second");
    let mail = CursorRow { taken: 5_500, ..CursorRow::default() };
    store.write(vec![Write::PutCursor("mail".to_owned(), mail)]).await;
    clock.advance(keep);
    store.storage.prune(|| false).await.unwrap();
    assert_eq!(oldest(), 5_501);
    assert_eq!(store.commit(telling()).await, 9_001);
}

/// Prints how long a million signals take to prune, and how long commits take meanwhile.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn a_million_signals_are_pruned_while_others_commit() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::manual(at(0));
    let location = Location::File(folder.path().join("store"));
    let hook: CommitHook = Arc::new(|_| {});
    let storage = Storage::open(location, StorageSettings::default(), &keys(7), clock.clone(), hook).unwrap();
    let store = Store::start(storage, Arc::default()).await;
    for _ in 0..1_000 {
        store.commit(Batch { signals: (0..1_000).map(|_| signal(user_id(1))).collect(), ..batch() }).await;
    }
    let timed = async |over: &AtomicBool, most: usize| {
        let mut spans = Vec::new();
        while !over.load(Ordering::Relaxed) && spans.len() < most {
            let start = std::time::Instant::now();
            store.commit(telling()).await;
            spans.push(start.elapsed());
        }
        spans.sort_unstable();
        let share = |share: usize| spans[(spans.len() - 1) * share / 1_000];
        (spans.len(), share(500), share(990), share(1_000))
    };
    let log = store.storage.observe().log;
    println!("{log:?}; alone: {:?}", timed(&AtomicBool::new(false), 2_000).await);
    let (over, reader) = (Arc::new(AtomicBool::new(false)), store.storage.reader());
    let done = Arc::clone(&over);
    let catching_up = tokio::task::spawn_blocking(move || {
        let (start, mut place) = (std::time::Instant::now(), 0);
        while let Some(last) = reader.page_after(place, 256, 1 << 20).unwrap().last() {
            place = last.seq.unwrap();
        }
        done.store(true, Ordering::Relaxed);
        (place, start.elapsed())
    });
    let meanwhile = timed(&over, usize::MAX).await;
    println!("caught up: {:?}; meanwhile: {meanwhile:?}", catching_up.await.unwrap());
    clock.advance(Duration::from_secs(91 * 24 * 3_600));
    let start = std::time::Instant::now();
    let looked = store.storage.reader().place(Start::Time(at(1_000_000))).unwrap();
    println!("a place by time, {looked}: {:?}", start.elapsed());
    let (over, start) = (AtomicBool::new(false), std::time::Instant::now());
    let pruning = async {
        store.storage.prune(|| false).await.unwrap();
        over.store(true, Ordering::Relaxed);
        start.elapsed()
    };
    let (pruned_in, spans) = tokio::join!(pruning, timed(&over, usize::MAX));
    println!("pruned in {pruned_in:?}; meanwhile: {spans:?}; {:?}", store.storage.observe().log);
}
