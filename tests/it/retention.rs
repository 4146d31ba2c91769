//! Retention: how long the log is kept, whom it waits for, and what becomes of a subscription that is too far behind.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use majordomo::notifier::NotifierSettings;
use majordomo::testing::{BASE_URL, Counts, Operation, TestAccounts};
use majordomo::{
    Command, Config, Envelope, Error, Filter, Gap, HashParameters, MaxLag, OnFailure, Outcome, Register, RetryPolicy,
    Signal, SignalKind, Start, Subscriber, SubscriberContext, Subscription,
};

use super::faults::{Plan, report, steps, until};
use super::listening::{PASSWORD, Recorder, register};

const DAY: Duration = Duration::from_secs(24 * 3_600);

/// Signals are kept for a day, and nobody may lie ten days behind.
fn config() -> Config {
    let mut config = Config::default();
    config.hashing.parameters = HashParameters::cheap_for_tests();
    config.messages = Some(NotifierSettings::new("Example", BASE_URL));
    config.storage.keep_signals = DAY;
    config.storage.max_lag = MaxLag { age: Some(DAY * 10), bytes: None };
    config
}

/// A system on which a subscription has handled everything so far, and is given no more; and how far it has come.
async fn with_one_gone(config: Config) -> (TestAccounts, u64) {
    let test = TestAccounts::with(config, |builder| {
        builder.subscriber("mail", Filter::all(), Start::Beginning, Recorder::default())
    })
    .await;
    register(&test, "ada").await;
    test.drain().await;
    let floor = test.head();
    let test = test.restart().await.unwrap();
    register(&test, "grace").await;
    test.drain().await;
    (test, floor)
}

fn lapses(test: &TestAccounts) -> Vec<Envelope> {
    test.recorded().into_iter().filter(|told| told.signal.kind() == SignalKind::SubscriberLapsed).collect()
}

#[tokio::test]
async fn what_is_not_older_than_the_app_keeps_it_stays() {
    let test = TestAccounts::with(config(), |builder| builder).await;
    register(&test, "ada").await;
    let old = test.head();
    test.drain().await;
    test.advance(DAY);
    register(&test, "grace").await;
    test.drain().await;
    test.sweep().await;
    assert_eq!(test.storage_state().log.first, 1, "of exactly that age");
    test.advance(Duration::from_micros(1));
    test.sweep().await;
    let (state, log) = (test.storage_state().log, test.recorded());
    assert_eq!((state.first, state.head), (old + 1, test.head()));
    assert_eq!(log[0].seq, Some(old + 1));
    assert!(state.bytes > 0);
    test.advance(DAY * 2);
    test.sweep().await;
    let state = test.storage_state().log;
    assert_eq!((state.first, state.bytes), (state.head + 1, 0), "nothing is left");
    register(&test, "mary").await;
    assert_eq!(test.recorded()[0].seq, Some(state.head + 1), "and no place is given twice");
}

#[tokio::test]
async fn pruning_waits_for_the_slowest_subscription_until_it_lapses_and_then_no_longer() {
    let (test, floor) = with_one_gone(config()).await;
    test.advance(DAY * 9);
    test.sweep().await;
    assert_eq!(test.storage_state().log.first, floor + 1);
    assert!(lapses(&test).is_empty());
    let head = test.head();

    test.advance(DAY + Duration::from_micros(1));
    let bytes = test.storage_state().log.bytes;
    test.sweep().await;
    let told = lapses(&test);
    let [told] = told.as_slice() else { panic!("{told:?}") };
    let (subscriber, count) = ("mail".to_owned(), head - floor);
    assert_eq!(told.signal, Signal::SubscriberLapsed { subscriber, place: floor, count, bytes });
    assert_eq!(told.path.iter().map(|sender| sender.as_str()).collect::<Vec<_>>(), ["mail"]);
    assert_eq!(test.storage_state().log.first, head + 1);
    for _ in 0..3 {
        test.advance(Duration::from_secs(60));
        test.sweep().await;
    }
    assert_eq!(lapses(&test).len(), 1, "it is told once");
}

#[tokio::test]
async fn a_subscription_lapses_by_bytes_and_nothing_young_is_pruned_for_it() {
    let mut config = config();
    config.storage.max_lag = MaxLag { age: None, bytes: Some(20_000) };
    let (test, floor) = with_one_gone(config).await;
    let mut names = 0;
    while lapses(&test).is_empty() {
        names += 1;
        assert!(names < 200, "it never lapsed");
        register(&test, &format!("user.{names}")).await;
        test.drain().await;
        test.sweep().await;
    }
    let Signal::SubscriberLapsed { place, count, bytes, .. } = lapses(&test)[0].signal.clone() else { panic!() };
    assert_eq!(place, floor);
    assert!((20_001..24_000).contains(&bytes), "{bytes}");
    assert_eq!(count, lapses(&test)[0].seq.unwrap() - 1 - floor);
    assert_eq!(test.storage_state().log.first, 1);
}

/// A subscriber that never comes through.
struct Stuck;

impl Subscriber for Stuck {
    async fn handle(&self, _envelope: &Envelope, _context: &SubscriberContext) -> Outcome {
        Outcome::retry("nobody is there")
    }
}

#[tokio::test]
async fn a_subscription_that_is_fed_and_gets_nowhere_lapses_too() {
    let test = TestAccounts::with(config(), |builder| {
        builder.subscriber("stuck", Filter::kinds([SignalKind::UserRegistered]), Start::Beginning, Stuck)
    })
    .await;
    register(&test, "ada").await;
    let others_are_done = async || {
        let tree = test.tree().await;
        tree.subscriptions().iter().all(|state| state.name == "stuck" || state.lag == 0).then_some(())
    };
    until("the others have handled everything", others_are_done).await;
    test.advance(DAY * 11);
    // The progress of the others is stored with the next commit, and what it tells is young.
    register(&test, "grace").await;
    for _ in 0..2 {
        test.sweep().await;
    }
    let lapsed: Vec<_> = lapses(&test).into_iter().map(|told| told.signal).collect();
    let [Signal::SubscriberLapsed { subscriber, .. }] = lapsed.as_slice() else { panic!("{lapsed:?}") };
    assert_eq!(subscriber, "stuck");
}

#[tokio::test]
async fn a_lapsed_subscription_that_returns_goes_on_with_the_oldest_place_that_is_kept() {
    let (test, floor) = with_one_gone(config()).await;
    test.advance(DAY * 11);
    test.sweep().await;
    let oldest = test.storage_state().log.first;
    assert!(oldest > floor + 1, "{floor} {oldest}");
    let recorder = Recorder::default();
    let mail = recorder.clone();
    let test = test
        .restart_with(|builder| {
            builder.subscriber(
                "mail",
                Filter::kinds([SignalKind::UserRegistered, SignalKind::UserPreRegister]),
                Start::Beginning,
                mail,
            )
        })
        .await
        .unwrap();
    register(&test, "mary").await;
    test.drain().await;
    // It missed floor + 1 to oldest - 1: the log begins where the gap ends.
    assert_eq!(test.recorded()[0].seq, Some(oldest));
    let filter = Filter::kinds([SignalKind::UserRegistered, SignalKind::UserPreRegister]);
    let kept = test.recorded().into_iter().filter(|told| filter.passes(told)).map(|told| told.seq.unwrap());
    assert_eq!(recorder.places(), kept.collect::<Vec<_>>());
    assert!(!recorder.places().is_empty());
}

// Faults.

/// A subscription that is gone, one that is there, and what is old enough to go: all that a sweep has to do is left.
async fn before_the_sweep(uncached: bool) -> (TestAccounts, Recorder, u64) {
    let mut config = config();
    if uncached {
        config.storage.engine.cache_bytes = 0;
    }
    let (witness, mail) = (Recorder::default(), Recorder::default());
    let test = TestAccounts::with(config, |builder| {
        builder.subscriber("witness", Filter::all(), Start::Beginning, witness.clone()).subscriber(
            "mail",
            Filter::all(),
            Start::Beginning,
            mail,
        )
    })
    .await;
    register(&test, "ada").await;
    test.drain().await;
    let test = test
        .restart_with(|builder| builder.subscriber("witness", Filter::all(), Start::Beginning, witness.clone()))
        .await
        .unwrap();
    register(&test, "grace").await;
    test.drain().await;
    test.advance(DAY * 11);
    let young = test.head() + 1;
    register(&test, "mary").await;
    test.drain().await;
    (test, witness, young)
}

/// Sweeps on a disk that fails so, and sees to what must be true of it. Answers how often the store was reopened.
async fn sweep_with(plan: Plan, nth: u64, uncached: bool) -> (u64, Counts) {
    let (test, witness, young) = before_the_sweep(uncached).await;
    let before = test.disk().counts();
    plan(test.disk(), nth);
    until("the log is pruned", async || {
        test.sweep().await;
        (test.storage_state().log.first == young).then_some(())
    })
    .await;
    let late = Command::new(Register { username: Some("eve".to_owned()), ..Register::new(PASSWORD) });
    until("a registration", async || match test.ask(late.clone()).await {
        Ok(accepted) => Some(accepted),
        Err(Error::StorageUnavailable) => None,
        Err(other) => panic!("{other:?}"),
    })
    .await;
    let calls = test.disk().counts().since(before);
    test.disk().heal();
    until("everything is handled", async || {
        test.sweep().await;
        test.drain().await;
        let tree = test.tree().await;
        (tree.storage().is_some_and(|storage| storage.available)
            && tree.subscriptions().iter().all(|state| state.lag == 0))
        .then_some(())
    })
    .await;
    assert_eq!(lapses(&test).len(), 1, "{nth}");
    let (log, state) = (test.recorded(), test.storage_state());
    assert!(log.iter().map(|told| told.seq.unwrap()).eq(young..=test.head()), "{nth}");
    let mut handled = witness.places();
    handled.sort_unstable();
    handled.dedup();
    assert!(handled.into_iter().eq(1..=test.head()), "{nth}: it was pruned before it was handled");
    let test = test.restart().await.unwrap();
    let again = test.storage_state().log;
    assert_eq!((again.first, again.head, again.bytes), (state.log.first, state.log.head, state.log.bytes));
    for name in ["ada", "grace", "mary", "eve"] {
        assert!(test.find_user(name).unwrap().is_some());
    }
    test.shutdown().await;
    (state.reopenings, calls)
}

#[tokio::test(flavor = "multi_thread")]
async fn whichever_call_of_the_disk_fails_while_it_lapses_and_prunes_both_are_done_once_and_nothing_is_skipped() {
    let (reopenings, cached) = sweep_with(|_, _| {}, 0, false).await;
    let (_, uncached) = sweep_with(|_, _| {}, 0, true).await;
    assert_eq!(reopenings, 0);
    let faults: [(&str, u64, bool, Plan); 5] = [
        ("a write tears", cached.writes, false, |disk, nth| disk.tear_nth_write(nth)),
        ("there is no room for a while", cached.writes, false, |disk, nth| {
            disk.fail_span(Operation::Write, nth, 3, ErrorKind::StorageFull);
        }),
        ("syncs fail", cached.syncs, false, |disk, nth| disk.fail_span(Operation::Sync, nth, 2, ErrorKind::Other)),
        ("a read fails", uncached.reads, true, |disk, nth| disk.fail_nth(Operation::Read, nth, ErrorKind::Other)),
        ("reads fail, while healing too", uncached.reads, true, |disk, nth| {
            disk.fail_span(Operation::Read, nth, 4, ErrorKind::Other);
        }),
    ];
    for (name, most, uncached, plan) in faults {
        let steps = steps(most, 6);
        let mut met = 0;
        for nth in &steps {
            met += usize::from(sweep_with(plan, *nth, uncached).await.0 > 0);
        }
        report(&format!("lapse and prune, {name}: {} of {most} steps, {met} faults met", steps.len()));
        assert!(met * 2 >= steps.len(), "{name}: {met} of {} faults were met", steps.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_power_cut_leaves_of_a_sweep_is_swept_as_if_there_had_been_none() {
    let (_, calls) = sweep_with(|_, _| {}, 0, false).await;
    let most = calls.writes + calls.syncs;
    for nth in steps(most, 8) {
        let (test, _, young) = before_the_sweep(false).await;
        test.disk().cut_power_after(nth - 1);
        let sweeping = async {
            while test.storage_state().log.first != young {
                test.sweep().await;
            }
        };
        tokio::select! {
            () = sweeping => {}
            () = until("the outage", async || (!test.storage_state().available).then_some(())) => {}
        }
        for seed in 0..3 {
            let found = test.crashed(nth * 3 + seed).await.unwrap();
            let (log, first) = (found.recorded(), found.storage_state().log.first);
            assert!(log.iter().map(|told| told.seq.unwrap()).eq(first..=found.head()), "{nth} {seed}");
            assert!(first == young || lapses(&found).len() == 1 || first == 1, "pruned past one that had not lapsed");
            found.sweep().await;
            assert_eq!((lapses(&found).len(), found.storage_state().log.first), (1, young), "{nth} {seed}");
            assert!(found.shutdown().await);
        }
        test.disk().heal();
        test.shutdown().await;
    }
}

/// Gets nowhere until it is let loose; keeps what it is handed, and what it is told to have missed.
#[derive(Clone, Default)]
struct Slow {
    loose: Arc<AtomicBool>,
    seen: Recorder,
    missed: Arc<Mutex<Vec<(Gap, usize)>>>,
}

impl Subscriber for Slow {
    async fn handle(&self, envelope: &Envelope, context: &SubscriberContext) -> Outcome {
        match self.loose.load(Ordering::SeqCst) {
            true => self.seen.handle(envelope, context).await,
            false => Outcome::retry("not yet"),
        }
    }

    async fn missed(&self, gap: Gap, _context: &SubscriberContext) -> Outcome {
        self.missed.lock().unwrap().push((gap, self.seen.places().len()));
        Outcome::done()
    }
}

#[tokio::test]
async fn who_lapsed_and_comes_back_is_told_exactly_what_it_missed_and_keeps_the_log_again() {
    let slow = Slow::default();
    let quick = RetryPolicy { cap: Duration::from_millis(20), ..RetryPolicy::endless() };
    let test = TestAccounts::with(config(), |builder| {
        let slow = Subscription::new("slow", slow.clone()).start(Start::Beginning).retry(quick);
        builder.subscription(slow.on_failure(OnFailure::StallAll))
    })
    .await;
    // More than it looks ahead.
    for number in 0..150 {
        register(&test, &format!("user.{number}")).await;
    }
    let old = test.head();
    test.advance(DAY * 11);
    register(&test, "grace").await;
    until("the others have handled everything", async || {
        let tree = test.tree().await;
        tree.subscriptions().iter().all(|state| state.name == "slow" || state.lag == 0).then_some(())
    })
    .await;
    // The others' progress is stored by and by.
    until("the old signals are pruned", async || {
        test.sweep().await;
        (test.storage_state().log.first > old - 20).then_some(())
    })
    .await;
    for _ in 0..3 {
        test.sweep().await;
    }
    assert_eq!(lapses(&test).len(), 1, "it is told once, though it is fed all the while");
    assert!(test.storage_state().log.first <= old + 1, "the young ones stay");
    assert!(test.tree().await.subscription("slow").unwrap().lapsed_at.is_some());

    slow.loose.store(true, Ordering::SeqCst);
    test.drain().await;
    let (seen, missed) = (slow.seen.places(), slow.missed.lock().unwrap().clone());
    let missing: BTreeSet<u64> = missed.iter().flat_map(|(gap, _)| gap.from..=gap.to).collect();
    let got: BTreeSet<u64> = seen.iter().copied().collect();
    assert!(got.is_disjoint(&missing) && !missing.is_empty());
    assert!(seen.is_sorted(), "in order: {seen:?}");
    for (gap, seen_before) in &missed {
        assert!(seen.iter().take(*seen_before).all(|place| *place < gap.from), "told before what follows");
    }
    let about_itself = |told: &&Envelope| told.path.iter().any(|sender| sender.as_str() == "slow");
    let not_for_it: BTreeSet<u64> = test.recorded().iter().filter(about_itself).map(|told| told.seq.unwrap()).collect();
    let everything: BTreeSet<u64> = got.union(&missing).chain(&not_for_it).copied().collect();
    assert!(everything.into_iter().eq(1..=test.head()), "nothing is skipped silently");
    let told = |told: &Envelope| match told.signal {
        Signal::SubscriberMissed { from, to, .. } => Some(Gap { from, to }),
        _ => None,
    };
    assert!(test.recorded().iter().filter_map(told).eq(missed.iter().map(|(gap, _)| *gap)));
    assert_eq!(test.tree().await.subscription("slow").unwrap().lapsed_at, None);
    assert!(!test.health().await.faults.iter().any(|fault| fault.as_str() == "subscription_lapsed"));
}
