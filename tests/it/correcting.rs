//! Correcting: effects that happen once, dead letters from their beginning to their end, replay, rebuilds.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use majordomo::testing::TestAccounts;
use majordomo::{
    Effect, Envelope, Filter, Gap, LetterState, MaxLag, OnFailure, Outcome, RetryPolicy, Signal, SignalKind, Start,
    Subscriber, SubscriberContext, Subscription, UserId,
};
use tokio::sync::Semaphore;

use crate::listening::{Recorder, register, soon, until};
use crate::subscribing::{
    Act, Scripted, Tally, admin, attempts, done, fail, logins, on_logins, places_of, sign_in, state, tally, told,
    with_logins,
};

const DAY: Duration = Duration::from_secs(24 * 3_600);

// Exactly once.

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_number_that_all_lanes_share_is_exact_though_actors_are_killed_and_the_store_fails() {
    let names = ["ada", "bob", "eve", "joe"];
    let (test, _) = with_logins(&names, 10).await;
    soon(test.add(on_logins("tally", Tally).concurrency(8))).await.unwrap();
    for round in 0..3 {
        sign_in(&test, &names, 2).await;
        soon(test.kill("tally")).await;
        if round == 1 {
            soon(test.kill("storage")).await;
        }
        sign_in(&test, &names, 1).await;
    }
    test.disk().fail_all(ErrorKind::Other);
    tokio::task::yield_now().await;
    test.disk().heal();
    soon(async {
        while test.authenticate(crate::listening::login("ada")).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    soon(async {
        loop {
            test.drain().await;
            if state(&test, "tally").await.lag == 0 {
                break;
            }
        }
    })
    .await;
    assert_eq!(tally(&test, "tally"), places_of(&test, &logins()).len() as u64);
}

/// Keeps a user's last login, and forgets it at the next.
struct Toggle;

impl Subscriber for Toggle {
    async fn handle(&self, envelope: &Envelope, context: &SubscriberContext) -> Outcome {
        let key = envelope.signal.user().unwrap().as_bytes().to_vec();
        match context.projection(&key) {
            Ok(Some(_)) => Outcome::Done(vec![Effect::Forget { key }]),
            Ok(None) => Outcome::Done(vec![Effect::Project { key, value: vec![1] }]),
            Err(_) => Outcome::retry("storage is out"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_forgotten_is_gone_for_the_handler_and_for_the_app() {
    let (test, users) = with_logins(&["ada", "bob"], 4).await;
    sign_in(&test, &["ada"], 1).await;
    soon(test.add(on_logins("toggle", Toggle).concurrency(2))).await.unwrap();
    soon(test.drain()).await;
    let kept = soon(test.projection_page("toggle", &[], None, 10)).await.unwrap();
    assert_eq!(kept, [(users[0].as_bytes().to_vec(), vec![1])]);
}

/// Emits so many signals for each that it is handed.
#[derive(Clone)]
struct Emitting {
    count: usize,
    handed: Arc<AtomicU32>,
}

impl Emitting {
    fn new(count: usize) -> Self {
        Self { count, handed: Arc::default() }
    }
}

fn emitted(user: UserId) -> Effect {
    Effect::Emit(Box::new(Signal::GroupsChangeStarted { user }))
}

impl Subscriber for Emitting {
    async fn handle(&self, envelope: &Envelope, _context: &SubscriberContext) -> Outcome {
        self.handed.fetch_add(1, Ordering::SeqCst);
        let user = envelope.signal.user().unwrap();
        Outcome::Done((0..self.count).map(|_| emitted(user)).collect())
    }
}

fn echoes(test: &TestAccounts, name: &str) -> Vec<Envelope> {
    test.recorded().into_iter().filter(|told| told.sender.as_str() == name).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn follow_ups_are_emitted_once_though_the_subscriber_is_killed_and_the_system_restarted() {
    let (test, _) = with_logins(&["ada", "bob"], 10).await;
    let emitting = Emitting::new(2);
    let subscription = || on_logins("echo", emitting.clone()).concurrency(4);
    soon(test.add(subscription())).await.unwrap();
    for _ in 0..3 {
        sign_in(&test, &["ada", "bob"], 1).await;
        soon(test.kill("echo")).await;
    }
    let test = soon(test.restart_with(|builder| builder.subscription(subscription()))).await.unwrap();
    sign_in(&test, &["ada"], 1).await;
    soon(test.drain()).await;
    let echoes = echoes(&test, "echo");
    let ids: BTreeSet<_> = echoes.iter().map(|told| told.id).collect();
    assert_eq!((echoes.len(), ids.len()), (54, 54));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_subscriptions_that_answer_each_other_come_to_an_end() {
    let (test, _) = with_logins(&["ada"], 1).await;
    let kinds = Filter::kinds([SignalKind::UserAuthenticated, SignalKind::GroupsChangeStarted]);
    let (ping, pong) = (Emitting::new(1), Emitting::new(1));
    for (name, subscriber) in [("ping", &ping), ("pong", &pong)] {
        let subscription = Subscription::new(name, subscriber.clone()).filter(kinds.clone()).start(Start::Beginning);
        soon(test.add(subscription)).await.unwrap();
    }
    soon(test.drain()).await;
    // Each is handed the login and what the other says to that, and never what descends from itself.
    assert_eq!((ping.handed.load(Ordering::SeqCst), pong.handed.load(Ordering::SeqCst)), (2, 2));
    assert_eq!((echoes(&test, "ping").len(), echoes(&test, "pong").len()), (2, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_sixteen_follow_ups_are_refused_altogether() {
    let (test, _) = with_logins(&["ada"], 1).await;
    for (name, count) in [("sixteen", 16), ("seventeen", 17)] {
        soon(test.add(on_logins(name, Emitting::new(count)).retry(attempts(2)))).await.unwrap();
    }
    soon(test.drain()).await;
    assert_eq!((echoes(&test, "sixteen").len(), echoes(&test, "seventeen").len()), (16, 0));
    let letters = soon(test.dead_letters("seventeen", None, 10)).await.unwrap();
    assert!(letters.len() == 1 && letters[0].reason.contains("16"), "{letters:?}");
}

// Dead letters.

type Mended = Option<fn(UserId) -> Act>;

/// A subscription that gives up every login until it is mended, and then does as told.
struct Broken {
    scripted: Scripted,
    mended: Arc<Mutex<Mended>>,
}

impl Broken {
    fn new() -> Self {
        let mended: Arc<Mutex<Mended>> = Arc::default();
        let play = Arc::clone(&mended);
        let scripted = Scripted::new(move |told, _| {
            play.lock().unwrap().map_or_else(fail, |act| act(told.signal.user().unwrap()))
        });
        Self { scripted, mended }
    }

    fn mend(&self, act: fn(UserId) -> Act) {
        *self.mended.lock().unwrap() = Some(act);
    }

    fn subscription(&self) -> Subscription {
        on_logins("books", self.scripted.clone()).retry(attempts(2)).quarantine_after(0)
    }
}

fn emits(user: UserId) -> Act {
    let project = Effect::Project { key: b"done".to_vec(), value: vec![1] };
    Act::Answer(Outcome::Done(vec![project, emitted(user)]))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_that_fails_again_has_the_longer_history_and_one_that_is_done_is_gone_with_its_effects() {
    let (test, _) = with_logins(&["ada", "bob"], 1).await;
    let places = places_of(&test, &logins());
    let broken = Broken::new();
    soon(test.add(broken.subscription())).await.unwrap();
    soon(test.drain()).await;
    assert_eq!(test.dead_letter_count("books"), Ok(2));
    soon(test.retry_dead_letter("books", places[0], admin())).await.unwrap();
    soon(test.drain()).await;
    let letters = soon(test.dead_letters("books", None, 10)).await.unwrap();
    let seen: Vec<_> = letters.iter().map(|letter| (letter.place, letter.attempts, letter.failures.len())).collect();
    assert_eq!(seen, [(places[0], 4, 4), (places[1], 2, 2)]);
    assert!(letters.iter().all(|letter| letter.state == LetterState::Dead && letter.reason == "on request"));
    assert_eq!(broken.scripted.attempts_at(places[0]), [1, 2, 1, 2]);
    let dead = told(&test, SignalKind::SubscriberDeadLetter);
    let counts = dead.iter().map(|told| match told {
        Signal::SubscriberDeadLetter { place, attempts, .. } => (*place, *attempts),
        other => panic!("{other:?}"),
    });
    // Two users' signals are two lanes: which of them is given up first is chance.
    let counts: BTreeSet<_> = counts.collect();
    assert_eq!(counts, BTreeSet::from([(places[0], 2), (places[1], 2), (places[0], 4)]));
    assert_eq!(dead.len(), 3);

    broken.mend(emits);
    assert_eq!(soon(test.retry_dead_letters("books", admin())).await, Ok(2));
    soon(test.drain()).await;
    assert_eq!(test.dead_letter_count("books"), Ok(0));
    assert_eq!(echoes(&test, "books").len(), 2);
    assert_eq!(test.projection("books", b"done").unwrap(), Some(vec![1]));
    assert_eq!(told(&test, SignalKind::DeadLetterRetried).len(), 3);
}

static GATE: Semaphore = Semaphore::const_new(0);

/// Emits once it is let through.
struct Slow {
    dead: AtomicBool,
    entered: Arc<AtomicU32>,
}

impl Subscriber for Slow {
    async fn handle(&self, envelope: &Envelope, _context: &SubscriberContext) -> Outcome {
        if !self.dead.swap(true, Ordering::SeqCst) {
            return Outcome::reject("at first");
        }
        self.entered.fetch_add(1, Ordering::SeqCst);
        GATE.acquire().await.unwrap().forget();
        let project = Effect::Project { key: b"done".to_vec(), value: vec![1] };
        Outcome::Done(vec![project, emitted(envelope.signal.user().unwrap())])
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_comes_of_a_letter_that_is_discarded_while_it_is_tried_again() {
    let (test, _) = with_logins(&["ada"], 1).await;
    let place = places_of(&test, &logins())[0];
    let entered = Arc::new(AtomicU32::new(0));
    let slow = Slow { dead: AtomicBool::new(false), entered: Arc::clone(&entered) };
    soon(test.add(on_logins("books", slow))).await.unwrap();
    soon(test.drain()).await;
    soon(test.retry_dead_letter("books", place, admin())).await.unwrap();
    until(|| entered.load(Ordering::SeqCst) == 1).await;
    let letters = soon(test.dead_letters("books", None, 1)).await.unwrap();
    assert_eq!(letters[0].state, LetterState::InHand);
    soon(test.discard_dead_letter("books", place, admin())).await.unwrap();
    GATE.add_permits(1);
    soon(test.drain()).await;
    assert_eq!((test.dead_letter_count("books"), echoes(&test, "books").len()), (Ok(0), 0));
    assert_eq!(test.projection("books", b"done").unwrap(), None);
    assert_eq!(told(&test, SignalKind::DeadLetterDiscarded).len(), 1);
    assert_eq!(entered.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_that_is_retried_without_its_subscriber_waits_for_it_and_survives_the_log() {
    let mut config = majordomo::Config::default();
    config.hashing.parameters = majordomo::HashParameters::cheap_for_tests();
    config.messages = Some(majordomo::notifier::NotifierSettings::new("Example", majordomo::testing::BASE_URL));
    config.storage.keep_signals = DAY;
    let test = TestAccounts::with(config, |builder| builder).await;
    register(&test, "ada").await;
    sign_in(&test, &["ada"], 1).await;
    let place = places_of(&test, &logins())[0];
    let broken = Broken::new();
    soon(test.add(broken.subscription())).await.unwrap();
    soon(test.drain()).await;
    let test = soon(test.restart()).await.unwrap();
    test.advance(DAY * 30);
    soon(test.move_subscription("books", Start::Now, admin())).await.unwrap();
    soon(test.drain()).await;
    register(&test, "bob").await;
    soon(test.drain()).await;
    soon(test.sweep()).await;
    assert_eq!(test.signal_at(place).unwrap(), None, "it is pruned");
    soon(test.retry_dead_letter("books", place, admin())).await.unwrap();
    let letters = soon(test.dead_letters("books", None, 1)).await.unwrap();
    assert_eq!((letters[0].state, letters[0].place), (LetterState::Due, place));
    broken.mend(emits);
    soon(test.add(broken.subscription())).await.unwrap();
    soon(test.drain()).await;
    assert_eq!((test.dead_letter_count("books"), echoes(&test, "books").len()), (Ok(0), 1));
    assert_eq!(broken.scripted.attempts_at(place), [1, 2, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_that_waits_for_its_lane_moves_the_cursor_nowhere() {
    let (test, _) = with_logins(&["ada", "bob"], 3).await;
    let places = places_of(&test, &logins());
    let (dead, resting, begun) = (places[0], places[2], Arc::new(AtomicBool::new(false)));
    let later = test.recorded().last().unwrap().at.plus(Duration::from_secs(3_600));
    let has_begun = Arc::clone(&begun);
    // The first of a lane is a dead letter, put off once it is tried again.
    let scripted = Scripted::new(move |told, context| match told.seq {
        Some(place) if place == dead && !has_begun.load(Ordering::SeqCst) => Act::Answer(Outcome::reject("at first")),
        Some(place) if place == dead || place == resting => match context.now() < later {
            true => Act::Answer(Outcome::defer(later)),
            false => done(),
        },
        _ => done(),
    });
    soon(test.add(on_logins("books", scripted.clone()))).await.unwrap();
    soon(test.drain()).await;
    begun.store(true, Ordering::SeqCst);
    soon(test.retry_dead_letter("books", dead, admin())).await.unwrap();
    soon(test.drain()).await;
    let before = scripted.handed().len();
    sign_in(&test, &["bob"], 1).await;
    soon(test.drain()).await;
    let crashed = soon(test.crashed(1)).await.unwrap();
    let again = Scripted::new(|_, _| done());
    soon(crashed.add(on_logins("books", again.clone()))).await.unwrap();
    crashed.advance(Duration::from_secs(7_200));
    soon(crashed.drain()).await;
    assert_eq!(scripted.handed().len(), before + 1);
    let handled = [places[1], places[3], places[5]];
    assert!(again.places().iter().all(|place| !handled.contains(place)), "{:?} {handled:?}", again.places());
    assert_eq!(
        again.places().into_iter().filter(|place| places.contains(place)).collect::<Vec<_>>(),
        [dead, resting, places[4]]
    );
}

// Replay.

#[tokio::test(flavor = "multi_thread")]
async fn a_live_subscription_that_is_moved_handles_exactly_the_span_from_there() {
    let (test, _) = with_logins(&["ada", "bob"], 3).await;
    let places = places_of(&test, &logins());
    let recorder = Recorder::default();
    soon(test.add(on_logins("books", recorder.clone()).concurrency(2))).await.unwrap();
    soon(test.drain()).await;
    let mut expected = places.clone();
    for (to, span) in [(places[3], &places[3..]), (places[3] + 1, &places[4..]), (1, &places[..])] {
        soon(test.move_subscription("books", Start::Seq(to), admin())).await.unwrap();
        soon(test.drain()).await;
        expected.extend(span);
        let (mut seen, mut wanted) = (recorder.places(), expected.clone());
        seen.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(seen, wanted);
    }
    assert_eq!(told(&test, SignalKind::SubscriptionMoved).len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_forward_leaves_out_what_lies_between_though_the_subscriber_is_at_it() {
    let (test, _) = with_logins(&["ada"], 4).await;
    let places = places_of(&test, &logins());
    let broken = Broken::new();
    let endless = RetryPolicy { attempts: None, ..attempts(1) };
    soon(test.add(broken.subscription().retry(endless))).await.unwrap();
    until(|| broken.scripted.handed().len() > 2).await;
    soon(test.move_subscription("books", Start::Seq(places[2]), admin())).await.unwrap();
    until(|| broken.scripted.places().contains(&places[2])).await;
    broken.mend(|_| done());
    soon(test.drain()).await;
    let handled: BTreeSet<_> = broken.scripted.places().into_iter().collect();
    assert_eq!(handled, [places[0], places[2], places[3]].into_iter().collect());
}

fn keeping_a_day() -> majordomo::Config {
    let mut config = majordomo::Config::default();
    config.hashing.parameters = majordomo::HashParameters::cheap_for_tests();
    config.messages = Some(majordomo::notifier::NotifierSettings::new("Example", majordomo::testing::BASE_URL));
    config.storage.keep_signals = DAY;
    config.storage.max_lag = MaxLag { age: Some(DAY * 10), bytes: None };
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_places_that_are_pruned_is_told_the_gap_before_anything_else_until_it_takes_note() {
    let test = TestAccounts::with(keeping_a_day(), |builder| builder).await;
    register(&test, "ada").await;
    sign_in(&test, &["ada"], 2).await;
    soon(test.drain()).await;
    test.advance(DAY * 2);
    soon(test.sweep()).await;
    let first = test.storage_state().log.first;
    assert!(first > 3);
    sign_in(&test, &["ada"], 2).await;
    let scripted = Scripted::new(|_, _| done());
    let subscription = on_logins("books", scripted.clone()).start(Start::Seq(3)).concurrency(4).retry(attempts(9));
    soon(test.add(subscription)).await.unwrap();
    soon(test.drain()).await;
    let gap = Gap { from: 3, to: first - 1 };
    assert_eq!(scripted.gaps(), [(gap, 1), (gap, 2), (gap, 3)]);
    assert_eq!(scripted.places(), places_of(&test, &logins()));
    assert_eq!(test.projection("books", b"gap").unwrap(), Some(vec![1]), "the effects are committed");
    let missed = Signal::SubscriberMissed { subscriber: "books".to_owned(), from: gap.from, to: gap.to };
    assert_eq!(told(&test, SignalKind::SubscriberMissed), [missed]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_that_lapsed_is_told_exactly_what_it_missed_when_it_returns() {
    let test = TestAccounts::with(keeping_a_day(), |builder| builder).await;
    register(&test, "ada").await;
    sign_in(&test, &["ada"], 1).await;
    let scripted = Scripted::new(|_, _| done());
    soon(test.add(on_logins("books", scripted.clone()).retry(attempts(9)))).await.unwrap();
    soon(test.drain()).await;
    let floor = test.head();
    let test = soon(test.restart()).await.unwrap();
    sign_in(&test, &["ada"], 2).await;
    soon(test.drain()).await;
    test.advance(DAY * 11);
    soon(test.sweep()).await;
    let first = test.storage_state().log.first;
    assert_eq!(told(&test, SignalKind::SubscriberLapsed).len(), 1);
    let before = scripted.handed().len();
    let returned = Scripted::new(|_, _| done());
    soon(test.add(on_logins("books", returned.clone()).retry(attempts(9)))).await.unwrap();
    sign_in(&test, &["ada"], 1).await;
    soon(test.drain()).await;
    assert_eq!(returned.gaps().last(), Some(&(Gap { from: floor + 1, to: first - 1 }, 3)));
    assert_eq!((returned.places(), before), (places_of(&test, &logins()), 1));
    assert_eq!(state(&test, "books").await.lapsed_at, None);
}

// Rebuilds.

/// Counts logins as [`Tally`], emits one signal for each, and stops at a gate while it rebuilds.
#[derive(Clone, Default)]
struct Counting {
    gate: Option<Arc<Semaphore>>,
    rebuilt: Arc<AtomicU32>,
    step: u64,
}

impl Subscriber for Counting {
    async fn handle(&self, envelope: &Envelope, context: &SubscriberContext) -> Outcome {
        if let (true, Some(gate)) = (context.is_rebuilding(), &self.gate) {
            gate.acquire().await.unwrap().forget();
        }
        self.rebuilt.fetch_add(u32::from(context.is_rebuilding()), Ordering::SeqCst);
        let Ok(count) = context.projection(b"count") else { return Outcome::retry("storage is out") };
        let count = count.map_or(0, |bytes| u64::from_be_bytes(bytes.try_into().unwrap())) + self.step;
        let project = Effect::Project { key: b"count".to_vec(), value: count.to_be_bytes().to_vec() };
        Outcome::Done(vec![project, emitted(envelope.signal.user().unwrap())])
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projection_is_read_as_it_was_until_it_is_rebuilt_across_restarts_and_nothing_is_emitted_twice() {
    let (test, _) = with_logins(&["ada", "bob"], 5).await;
    soon(test.add(on_logins("tally", Counting { step: 1, ..Counting::default() }))).await.unwrap();
    soon(test.drain()).await;
    let test = soon(test.restart()).await.unwrap();
    let gate = Arc::new(Semaphore::new(3));
    let counting = Counting { gate: Some(Arc::clone(&gate)), step: 10, ..Counting::default() };
    soon(test.rebuild_projection("tally", admin())).await.unwrap();
    soon(test.add(on_logins("tally", counting.clone()))).await.unwrap();
    until(|| counting.rebuilt.load(Ordering::SeqCst) == 3).await;
    assert_eq!((tally(&test, "tally"), echoes(&test, "tally").len()), (10, 10));
    let progress = state(&test, "tally").await.rebuild.unwrap();
    assert!(progress.from == 1 && progress.at < progress.to, "{progress:?}");
    // Behind the rebuild the log grows.
    sign_in(&test, &["ada"], 2).await;
    let again = on_logins("tally", counting.clone());
    let test = soon(test.restart_with(|builder| builder.subscription(again))).await.unwrap();
    assert_eq!(tally(&test, "tally"), 10);
    gate.add_permits(1_000);
    soon(test.drain()).await;
    assert_eq!(counting.rebuilt.load(Ordering::SeqCst), 10, "it went on where it was");
    assert_eq!((tally(&test, "tally"), echoes(&test, "tally").len()), (120, 12));
    assert_eq!(state(&test, "tally").await.rebuild, None);
    assert_eq!(told(&test, SignalKind::ProjectionRebuilt).len(), 1);
    soon(test.rebuild_projection("tally", admin())).await.unwrap();
    soon(test.drain()).await;
    assert_eq!((tally(&test, "tally"), echoes(&test, "tally").len()), (120, 12));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_projection_is_rebuilt_too() {
    let test = TestAccounts::start().await;
    soon(test.subscribe("tally", logins(), Start::Now, Tally)).await.unwrap();
    soon(test.rebuild_projection("tally", admin())).await.unwrap();
    soon(test.drain()).await;
    assert_eq!(told(&test, SignalKind::ProjectionRebuilt).len(), 1);
    register(&test, "ada").await;
    sign_in(&test, &["ada"], 2).await;
    soon(test.drain()).await;
    assert_eq!(tally(&test, "tally"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_leaves_out_what_was_not_finished_and_that_has_all_its_effects_afterwards() {
    for on_failure in [OnFailure::SkipToDeadLetter, OnFailure::StallLane] {
        let (test, users) = with_logins(&["ada", "bob"], 3).await;
        let places = places_of(&test, &logins());
        let (poison, mended) = (places[0], Arc::new(AtomicBool::new(false)));
        let is_mended = Arc::clone(&mended);
        let handled = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&handled);
        let scripted = Scripted::new(move |told, context| {
            let place = told.seq.unwrap();
            if place == poison && !is_mended.load(Ordering::SeqCst) {
                return fail();
            }
            seen.lock().unwrap().push((place, context.is_rebuilding()));
            let count = context.projection(b"count").unwrap();
            let count = count.map_or(0, |bytes| u64::from_be_bytes(bytes.try_into().unwrap())) + 1;
            let project = Effect::Project { key: b"count".to_vec(), value: count.to_be_bytes().to_vec() };
            Act::Answer(Outcome::Done(vec![project, emitted(told.signal.user().unwrap())]))
        });
        soon(test.add(on_logins("tally", scripted.clone()).on_failure(on_failure).retry(attempts(1)))).await.unwrap();
        soon(test.drain()).await;
        let stalls = on_failure == OnFailure::StallLane;
        let finished = if stalls { 3 } else { 5 };
        assert_eq!((tally(&test, "tally"), echoes(&test, "tally").len()), (finished, finished as usize));
        assert_eq!(users.len(), 2);
        handled.lock().unwrap().clear();
        mended.store(true, Ordering::SeqCst);
        soon(test.rebuild_projection("tally", admin())).await.unwrap();
        soon(test.drain()).await;
        assert_eq!((tally(&test, "tally"), echoes(&test, "tally").len()), (finished, finished as usize));
        assert!(handled.lock().unwrap().iter().all(|(place, rebuilding)| *rebuilding && *place != poison));
        soon(test.retry_dead_letter("tally", poison, admin())).await.unwrap();
        soon(test.drain()).await;
        assert_eq!((tally(&test, "tally"), echoes(&test, "tally").len()), (6, 6), "{on_failure:?}");
        assert_eq!(test.dead_letter_count("tally"), Ok(0));
    }
}
