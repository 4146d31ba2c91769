//! Subscribing: what is handed over, in which order, how often it is tried, and what a crash makes of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use majordomo::testing::TestAccounts;
use majordomo::{
    Actor, ChangeGroups, Effect, Envelope, Filter, Gap, HealthFault, Lane, OnFailure, Outcome, RetryPolicy, Signal,
    SignalKind, Start, Subscriber, SubscriberContext, Subscription, SubscriptionSettings, SubscriptionState, UserId,
};
use tokio::sync::Semaphore;

use crate::listening::{Recorder, login, register, soon, until};

pub(crate) fn admin() -> Actor {
    Actor::Admin("ada".to_owned())
}

/// Gives a signal up after so many attempts, with next to no pause between them.
pub(crate) fn attempts(limit: u32) -> RetryPolicy {
    let pause = Duration::from_millis(1);
    RetryPolicy { attempts: Some(limit), first: pause, cap: pause, ..RetryPolicy::default() }
}

/// Blocks the thread of whoever passes it, until it is opened.
#[derive(Default)]
pub(crate) struct Barrier(Mutex<bool>, Condvar);

impl Barrier {
    fn pass(&self) {
        let open = self.0.lock().unwrap();
        drop(self.1.wait_while(open, |open| !*open).unwrap());
    }

    fn open(&self) {
        *self.0.lock().unwrap() = true;
        self.1.notify_all();
    }
}

/// What a scripted subscriber does.
pub(crate) enum Act {
    Answer(Outcome),
    Panic,
    Hang,
    /// Takes a permit, and is done.
    Wait(Arc<Semaphore>),
    Block(Arc<Barrier>),
}

pub(crate) const fn done() -> Act {
    Act::Answer(Outcome::done())
}

pub(crate) fn fail() -> Act {
    Act::Answer(Outcome::retry("on request"))
}

/// What was handed over: the place, its lane, the attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Handed {
    pub(crate) place: u64,
    pub(crate) lane: Lane,
    pub(crate) attempt: u32,
}

type Play = Box<dyn Fn(&Envelope, &SubscriberContext) -> Act + Send + Sync>;

/// Notes what it is handed, then does what its play says; and counts who is at work at the same time.
#[derive(Clone)]
pub(crate) struct Scripted {
    play: Arc<Play>,
    handed: Arc<Mutex<Vec<Handed>>>,
    at_work: Arc<Mutex<HashMap<Lane, usize>>>,
    most: Arc<AtomicUsize>,
    clashed: Arc<AtomicBool>,
    gaps: Arc<Mutex<Vec<(Gap, u32)>>>,
}

struct AtWork<'a>(&'a Scripted, Lane);

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        self.0.at_work.lock().unwrap().remove(&self.1);
    }
}

impl Scripted {
    pub(crate) fn new(play: impl Fn(&Envelope, &SubscriberContext) -> Act + Send + Sync + 'static) -> Self {
        Self {
            play: Arc::new(Box::new(play)),
            handed: Arc::default(),
            at_work: Arc::default(),
            most: Arc::default(),
            clashed: Arc::default(),
            gaps: Arc::default(),
        }
    }

    pub(crate) fn handed(&self) -> Vec<Handed> {
        self.handed.lock().unwrap().clone()
    }

    pub(crate) fn places(&self) -> Vec<u64> {
        self.handed().into_iter().map(|handed| handed.place).collect()
    }

    pub(crate) fn attempts_at(&self, place: u64) -> Vec<u32> {
        self.handed().into_iter().filter(|handed| handed.place == place).map(|handed| handed.attempt).collect()
    }

    pub(crate) fn gaps(&self) -> Vec<(Gap, u32)> {
        self.gaps.lock().unwrap().clone()
    }

    fn at_work(&self) -> usize {
        self.at_work.lock().unwrap().len()
    }

    /// Whether every lane was handed over in order, one at a time; repeats aside.
    fn kept_order(&self) -> bool {
        let mut last: HashMap<Lane, u64> = HashMap::new();
        let in_order = self
            .handed()
            .into_iter()
            .all(|handed| last.insert(handed.lane, handed.place).is_none_or(|before| before <= handed.place));
        in_order && !self.clashed.load(Ordering::SeqCst)
    }
}

impl Subscriber for Scripted {
    async fn handle(&self, envelope: &Envelope, context: &SubscriberContext) -> Outcome {
        let lane = envelope.lane;
        let handed = Handed { place: envelope.seq.unwrap(), lane, attempt: context.attempt() };
        self.handed.lock().unwrap().push(handed);
        let before = self.at_work.lock().unwrap().insert(lane, 1);
        let _at_work = AtWork(self, lane);
        self.clashed.fetch_or(before.is_some(), Ordering::SeqCst);
        self.most.fetch_max(self.at_work(), Ordering::SeqCst);
        match (self.play)(envelope, context) {
            Act::Answer(outcome) => outcome,
            Act::Panic => panic!("on request"),
            Act::Hang => std::future::pending().await,
            Act::Wait(gate) => {
                gate.acquire().await.unwrap().forget();
                Outcome::done()
            }
            Act::Block(barrier) => {
                barrier.pass();
                Outcome::done()
            }
        }
    }

    async fn missed(&self, gap: Gap, context: &SubscriberContext) -> Outcome {
        assert!(self.handed().iter().all(|handed| handed.place < gap.from), "the gap comes first");
        self.gaps.lock().unwrap().push((gap, context.attempt()));
        if context.attempt() < 3 {
            return Outcome::retry("say it again");
        }
        Outcome::Done(vec![Effect::Project { key: b"gap".to_vec(), value: vec![1] }])
    }
}

pub(crate) fn logins() -> Filter {
    Filter::kinds([SignalKind::UserAuthenticated])
}

/// Every user signs in so often, by turns.
pub(crate) async fn sign_in(test: &TestAccounts, names: &[&str], times: usize) {
    for _ in 0..times {
        for name in names {
            soon(test.authenticate(login(name))).await.unwrap();
        }
    }
}

/// A system with these users, each of whom has signed in so often.
pub(crate) async fn with_logins(names: &[&str], times: usize) -> (TestAccounts, Vec<UserId>) {
    let test = TestAccounts::start().await;
    let mut users = Vec::new();
    for name in names {
        users.push(register(&test, name).await);
    }
    sign_in(&test, names, times).await;
    (test, users)
}

pub(crate) fn places_of(test: &TestAccounts, filter: &Filter) -> Vec<u64> {
    test.recorded().iter().filter(|told| filter.passes(told)).map(|told| told.seq.unwrap()).collect()
}

pub(crate) fn on_logins(name: &str, subscriber: impl Subscriber) -> Subscription {
    Subscription::new(name, subscriber).filter(logins()).start(Start::Beginning)
}

pub(crate) async fn state(test: &TestAccounts, name: &str) -> SubscriptionState {
    soon(test.tree()).await.subscription(name).unwrap().clone()
}

async fn faults(test: &TestAccounts) -> Vec<&'static str> {
    soon(test.health()).await.faults.iter().map(HealthFault::as_str).collect()
}

async fn until_fault(test: &TestAccounts, fault: &str, is_there: bool) {
    soon(async {
        while faults(test).await.contains(&fault) != is_there {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

pub(crate) fn told(test: &TestAccounts, kind: SignalKind) -> Vec<Signal> {
    test.recorded().into_iter().map(|told| told.signal).filter(|signal| signal.kind() == kind).collect()
}

// What is handed over.

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_begins_where_it_asks_to() {
    let (test, _) = with_logins(&["ada", "bob"], 2).await;
    test.advance(Duration::from_secs(60));
    let later = test.recorded().last().unwrap().at.plus(Duration::from_secs(1));
    sign_in(&test, &["ada", "bob"], 2).await;
    let all = places_of(&test, &logins());
    let behind = |place: u64| all.iter().copied().filter(|seq| *seq >= place).collect::<Vec<_>>();
    let starts = [
        ("now", Start::Now, test.head() + 1),
        ("beginning", Start::Beginning, 1),
        ("seq", Start::Seq(all[1]), all[1]),
        ("behind", Start::Seq(all[1] + 1), all[1] + 1),
        ("zero", Start::Seq(0), 1),
        ("time", Start::Time(later), all[4]),
    ];
    let mut recorders = Vec::new();
    for (name, start, first) in starts {
        let recorder = Recorder::default();
        soon(test.add(on_logins(name, recorder.clone()).start(start))).await.unwrap();
        recorders.push((name, recorder, behind(first)));
    }
    sign_in(&test, &["bob"], 1).await;
    soon(test.drain()).await;
    let last = *places_of(&test, &logins()).last().unwrap();
    for (name, recorder, mut expected) in recorders {
        expected.push(last);
        assert_eq!(recorder.places(), expected, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_passes_kinds_users_and_groups_and_nothing_else() {
    let (test, users) = with_logins(&["ada", "bob", "eve"], 1).await;
    for (user, group) in users.iter().zip(["staff", "guests"]) {
        let (join, leave) = (BTreeSet::from([group.to_owned()]), BTreeSet::new());
        soon(test.change_groups(ChangeGroups { user: *user, join, leave })).await.unwrap();
    }
    let (staff, both, nobody) = (Recorder::default(), Recorder::default(), Recorder::default());
    let filters = [
        ("staff", Filter::all().groups(["staff"]), &staff),
        ("both", logins().users([users[0], users[2]]).groups(["staff", "guests"]), &both),
        ("nobody", logins().groups(["nobody"]), &nobody),
    ];
    for (name, filter, recorder) in filters {
        let subscription = Subscription::new(name, recorder.clone()).filter(filter).start(Start::Beginning);
        soon(test.add(subscription)).await.unwrap();
    }
    soon(test.drain()).await;
    assert_eq!(staff.places(), places_of(&test, &Filter::all().users([users[0]])));
    assert_eq!(both.places(), places_of(&test, &logins().users([users[0]])));
    assert!(nobody.places().is_empty());
}

// Lanes.

#[tokio::test(flavor = "multi_thread")]
async fn signals_of_one_user_are_handled_one_at_a_time_in_order_and_those_of_others_side_by_side() {
    let (test, _) = with_logins(&["ada", "bob", "eve"], 5).await;
    let gate = Arc::new(Semaphore::new(0));
    let through = Arc::clone(&gate);
    let scripted = Scripted::new(move |_, _| Act::Wait(Arc::clone(&through)));
    soon(test.add(on_logins("books", scripted.clone()).concurrency(8))).await.unwrap();
    until(|| scripted.at_work() == 3).await;
    gate.add_permits(1_000);
    soon(test.drain()).await;
    assert!(scripted.kept_order());
    assert_eq!(scripted.most.load(Ordering::SeqCst), 3);
    let mut places = scripted.places();
    places.sort_unstable();
    assert_eq!(places, places_of(&test, &logins()));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_are_handled_side_by_side_than_was_asked_for() {
    let (test, _) = with_logins(&["ada", "bob", "eve", "joe"], 4).await;
    for lanes in 1..=3 {
        let gate = Arc::new(Semaphore::new(0));
        let through = Arc::clone(&gate);
        let scripted = Scripted::new(move |_, _| Act::Wait(Arc::clone(&through)));
        let subscription = on_logins(&format!("books{lanes}"), scripted.clone()).concurrency(lanes);
        soon(test.add(subscription)).await.unwrap();
        until(|| scripted.at_work() == lanes).await;
        gate.add_permits(1_000);
        soon(test.drain()).await;
        assert!(scripted.kept_order());
        assert_eq!((scripted.most.load(Ordering::SeqCst), scripted.handed().len()), (lanes, 16));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_user_fails_the_users_lane_waits_and_others_go_on() {
    let (test, users) = with_logins(&["ada", "bob", "eve"], 4).await;
    for lanes in [1, 4] {
        let broken = Arc::new(AtomicBool::new(true));
        let (is_broken, ada) = (Arc::clone(&broken), Lane::User(users[0]));
        let scripted =
            Scripted::new(
                move |told, _| {
                    if told.lane == ada && is_broken.load(Ordering::SeqCst) { Act::Panic } else { done() }
                },
            );
        let endless = RetryPolicy { attempts: None, ..attempts(1) };
        let subscription = on_logins(&format!("books{lanes}"), scripted.clone()).retry(endless).concurrency(lanes);
        soon(test.add(subscription)).await.unwrap();
        let others = || scripted.handed().iter().filter(|handed| handed.lane != ada).count();
        until(|| others() == 8 && scripted.handed().len() > 12).await;
        let of_ada: BTreeSet<_> =
            scripted.handed().into_iter().filter(|handed| handed.lane == ada).map(|handed| handed.place).collect();
        assert_eq!(of_ada.len(), 1, "what follows waits");
        broken.store(false, Ordering::SeqCst);
        soon(test.drain()).await;
        assert!(scripted.kept_order());
        assert_eq!(others(), 8);
        assert_eq!(scripted.places().into_iter().collect::<BTreeSet<_>>().len(), 12);
    }
}

/// A system on which one user's first login was given up, and how it was ordered.
async fn given_up(on_failure: OnFailure) -> (TestAccounts, Scripted, Vec<u64>, Lane) {
    let (test, users) = with_logins(&["ada", "bob"], 3).await;
    let places = places_of(&test, &logins());
    let first = places[0];
    let healed = Arc::new(AtomicBool::new(false));
    let is_healed = Arc::clone(&healed);
    let scripted = Scripted::new(move |told, context| {
        // The third attempt is the first after it was given up.
        let heals = told.seq == Some(first) && is_healed.swap(true, Ordering::SeqCst) && context.attempt() == 1;
        if told.seq != Some(first) || heals { done() } else { fail() }
    });
    let subscription = on_logins("books", scripted.clone()).on_failure(on_failure).retry(attempts(2));
    soon(test.add(subscription)).await.unwrap();
    soon(test.drain()).await;
    assert_eq!(test.dead_letter_count("books"), Ok(1));
    (test, scripted, places, Lane::User(users[0]))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_that_is_stalled_stays_so_across_restarts_until_its_letter_is_retried_or_discarded() {
    for discards in [false, true] {
        let (test, scripted, places, ada) = given_up(OnFailure::StallLane).await;
        let handed = [places[0], places[0], places[1], places[3], places[5]];
        assert_eq!(scripted.places().into_iter().collect::<BTreeSet<_>>(), handed.into_iter().collect());
        assert_eq!(scripted.handed().iter().filter(|handed| handed.lane == ada).count(), 2);
        assert_eq!(state(&test, "books").await.held, 1);
        assert!(faults(&test).await.contains(&"dead_letters"));
        let again = on_logins("books", scripted.clone()).on_failure(OnFailure::StallLane).retry(attempts(2));
        let test = soon(test.restart_with(|builder| builder.subscription(again))).await.unwrap();
        soon(test.drain()).await;
        assert_eq!((scripted.handed().len(), state(&test, "books").await.held), (5, 1), "nothing is handed over");
        if discards {
            soon(test.discard_dead_letter("books", places[0], admin())).await.unwrap();
        } else {
            soon(test.retry_dead_letter("books", places[0], admin())).await.unwrap();
        }
        soon(test.drain()).await;
        let freed = &scripted.places()[5..];
        let expected = if discards { vec![places[2], places[4]] } else { vec![places[0], places[2], places[4]] };
        assert_eq!(freed, expected, "in order");
        assert_eq!((test.dead_letter_count("books"), state(&test, "books").await.held), (Ok(0), 0));
        assert!(!faults(&test).await.contains(&"dead_letters"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_all_stalls_everything_waits_in_the_order_of_the_log() {
    for discards in [false, true] {
        let (test, scripted, places, _) = given_up(OnFailure::StallAll).await;
        assert_eq!(scripted.places(), [places[0]; 2]);
        if discards {
            soon(test.discard_dead_letters("books", admin())).await.unwrap();
        } else {
            soon(test.retry_dead_letters("books", admin())).await.unwrap();
        }
        soon(test.drain()).await;
        assert_eq!(scripted.places()[2..], places[usize::from(discards)..]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_window_full_of_held_signals_stalls_is_told_and_goes_on_once_they_are_done() {
    let test = TestAccounts::start().await;
    let registering: Vec<_> = (0..300)
        .map(|number| {
            let accounts = test.accounts().clone();
            let request = majordomo::Register {
                username: Some(format!("user{number}")),
                ..majordomo::Register::new(crate::listening::PASSWORD)
            };
            tokio::spawn(async move { accounts.register(request).await.unwrap() })
        })
        .collect();
    for registered in registering {
        soon(registered).await.unwrap();
    }
    let broken = Arc::new(AtomicBool::new(true));
    let is_broken = Arc::clone(&broken);
    let scripted = Scripted::new(move |_, _| match is_broken.load(Ordering::SeqCst) {
        true => Act::Answer(Outcome::reject("on request")),
        false => done(),
    });
    let registrations = Filter::kinds([SignalKind::UserRegistered]);
    let subscription = Subscription::new("books", scripted.clone()).filter(registrations.clone());
    let subscription = subscription.start(Start::Beginning).on_failure(OnFailure::StallLane).concurrency(16);
    soon(test.add(subscription)).await.unwrap();
    until_fault(&test, "subscription_stalled", true).await;
    soon(test.drain()).await;
    let held = state(&test, "books").await.held;
    assert!((192..=256).contains(&held) && scripted.handed().len() == held, "{held}");
    broken.store(false, Ordering::SeqCst);
    assert_eq!(soon(test.retry_dead_letters("books", admin())).await, Ok(held as u64));
    soon(test.drain()).await;
    until_fault(&test, "subscription_stalled", false).await;
    assert_eq!(test.dead_letter_count("books"), Ok(0));
    let handled: BTreeSet<_> = scripted.places().into_iter().collect();
    assert_eq!(handled.into_iter().collect::<Vec<_>>(), places_of(&test, &registrations));
    assert_eq!(scripted.handed().len(), 300 + held);
}

// Batches.

type BatchPlay = Box<dyn Fn(&[Arc<Envelope>]) -> Vec<Outcome> + Send + Sync>;

/// Answers whole batches.
#[derive(Clone)]
struct Batches {
    play: Arc<BatchPlay>,
    handed: Arc<Mutex<Vec<Vec<u64>>>>,
}

impl Batches {
    fn new(play: impl Fn(&[Arc<Envelope>]) -> Vec<Outcome> + Send + Sync + 'static) -> Self {
        Self { play: Arc::new(Box::new(play)), handed: Arc::default() }
    }

    fn handed(&self) -> Vec<Vec<u64>> {
        self.handed.lock().unwrap().clone()
    }
}

impl Subscriber for Batches {
    async fn handle(&self, _envelope: &Envelope, _context: &SubscriberContext) -> Outcome {
        panic!("only batches were asked for")
    }

    async fn handle_batch(&self, batch: &[Arc<Envelope>], _context: &SubscriberContext) -> Vec<Outcome> {
        self.handed.lock().unwrap().push(batch.iter().map(|told| told.seq.unwrap()).collect());
        (self.play)(batch)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_holds_what_there_is_up_to_its_size_and_each_has_an_outcome_of_its_own() {
    let (test, _) = with_logins(&["ada", "bob"], 5).await;
    let places = places_of(&test, &logins());
    let (second, failed) = (places[1], AtomicBool::new(false));
    let batches = Batches::new(move |batch| {
        let outcome = |told: &Arc<Envelope>| match told.seq == Some(second) && !failed.swap(true, Ordering::SeqCst) {
            true => Outcome::retry("once"),
            false => Outcome::done(),
        };
        batch.iter().map(outcome).collect()
    });
    soon(test.add(on_logins("books", batches.clone()).batch(4).retry(attempts(5)))).await.unwrap();
    soon(test.drain()).await;
    let handed = batches.handed();
    assert_eq!(handed[0], places[..4]);
    assert!(handed.iter().all(|batch| (1..=4).contains(&batch.len())));
    let mut counts = BTreeMap::new();
    handed.concat().into_iter().for_each(|place| *counts.entry(place).or_insert(0) += 1);
    let expected = places.iter().map(|place| (*place, 1 + usize::from(*place == second))).collect();
    assert_eq!(counts, expected, "only what failed is handed over again");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_batch_that_panics_only_the_signal_at_fault_is_given_up() {
    let (test, _) = with_logins(&["ada", "bob"], 5).await;
    let places = places_of(&test, &logins());
    let poison = places[2];
    let batches = Batches::new(move |batch| {
        assert!(batch.iter().all(|told| told.seq != Some(poison)), "on request");
        batch.iter().map(|_| Outcome::done()).collect()
    });
    soon(test.add(on_logins("books", batches.clone()).batch(8).retry(attempts(1)))).await.unwrap();
    soon(test.drain()).await;
    let letters = soon(test.dead_letters("books", None, 10)).await.unwrap();
    assert_eq!(letters.iter().map(|letter| letter.place).collect::<Vec<_>>(), [poison]);
    let handled: BTreeSet<_> =
        batches.handed().into_iter().filter(|batch| !batch.contains(&poison)).flatten().collect();
    assert_eq!(handled.len(), 9);
    assert!(batches.handed().contains(&vec![poison]), "it was tried by itself");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_batch_did_not_come_to_is_handed_over_again_at_no_cost() {
    let (test, _) = with_logins(&["ada", "bob"], 4).await;
    let places = places_of(&test, &logins());
    let poison = places[0];
    // The default goes on up to the first that fails.
    let scripted = Scripted::new(move |told, _| if told.seq == Some(poison) { fail() } else { done() });
    soon(test.add(on_logins("books", scripted.clone()).batch(8).retry(attempts(2)))).await.unwrap();
    // One that answers nothing at all fails.
    let silent = Batches::new(|_| Vec::new());
    soon(test.add(on_logins("silent", silent.clone()).batch(8).retry(attempts(2)).quarantine_after(0))).await.unwrap();
    // One that answers for the first only comes through, one by one.
    let slow = Batches::new(|_| vec![Outcome::done()]);
    soon(test.add(on_logins("slow", slow.clone()).batch(8).retry(attempts(1)))).await.unwrap();
    soon(test.drain()).await;
    let dead = async |name: &str| {
        let letters = soon(test.dead_letters(name, None, 10)).await.unwrap();
        letters.into_iter().map(|letter| letter.place).collect::<Vec<_>>()
    };
    assert_eq!(dead("books").await, [poison]);
    assert!(places[1..].iter().all(|place| scripted.attempts_at(*place).len() == 1));
    assert_eq!(dead("silent").await, places);
    assert_eq!((dead("slow").await, slow.handed().len()), (vec![], 8));
}

/// Adds one to a number that all users share.
pub(crate) struct Tally;

impl Subscriber for Tally {
    async fn handle(&self, _envelope: &Envelope, context: &SubscriberContext) -> Outcome {
        let Ok(count) = context.projection(b"count") else { return Outcome::retry("storage is out") };
        // Others run meanwhile.
        tokio::task::yield_now().await;
        let count = count.map_or(0, |bytes| u64::from_be_bytes(bytes.try_into().unwrap())) + 1;
        Outcome::Done(vec![Effect::Project { key: b"count".to_vec(), value: count.to_be_bytes().to_vec() }])
    }
}

pub(crate) fn tally(test: &TestAccounts, name: &str) -> u64 {
    test.projection(name, b"count").unwrap().map_or(0, |bytes| u64::from_be_bytes(bytes.try_into().unwrap()))
}

/// Adds the size of each batch to a number, at its first signal.
struct Sums;

impl Subscriber for Sums {
    async fn handle(&self, _envelope: &Envelope, _context: &SubscriberContext) -> Outcome {
        Outcome::reject("only batches were asked for")
    }

    async fn handle_batch(&self, batch: &[Arc<Envelope>], context: &SubscriberContext) -> Vec<Outcome> {
        let count = context.projection(b"count").unwrap();
        tokio::task::yield_now().await;
        let count = count.map_or(0, |bytes| u64::from_be_bytes(bytes.try_into().unwrap())) + batch.len() as u64;
        let project = Effect::Project { key: b"count".to_vec(), value: count.to_be_bytes().to_vec() };
        let first = Outcome::Done(vec![project]);
        std::iter::once(first).chain(batch.iter().skip(1).map(|_| Outcome::done())).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_sees_what_its_signals_before_have_projected_and_counts_exactly_on_every_lane() {
    let (test, _) = with_logins(&["ada", "bob", "eve", "joe"], 10).await;
    for (lanes, batch) in [(1, 16), (4, 8)] {
        let (one_by_one, whole) = (format!("each{lanes}"), format!("sums{lanes}"));
        soon(test.add(on_logins(&one_by_one, Tally).concurrency(lanes).batch(batch))).await.unwrap();
        soon(test.add(on_logins(&whole, Sums).concurrency(lanes).batch(batch))).await.unwrap();
        soon(test.drain()).await;
        assert_eq!((tally(&test, &one_by_one), tally(&test, &whole)), (40, 40), "{lanes}");
    }
}

// Attempts.

#[tokio::test(flavor = "multi_thread")]
async fn attempts_are_counted_across_restarts_and_a_restart_in_order_counts_none() {
    let (test, _) = with_logins(&["ada"], 1).await;
    let place = places_of(&test, &logins())[0];
    let hold = Arc::new(AtomicBool::new(true));
    let holds = Arc::clone(&hold);
    // The fourth attempt never ends by itself.
    let scripted =
        Scripted::new(
            move |_, context| {
                if context.attempt() == 4 && holds.load(Ordering::SeqCst) { Act::Hang } else { fail() }
            },
        );
    let subscription = || on_logins("books", scripted.clone()).retry(attempts(6));
    soon(test.add(subscription())).await.unwrap();
    until(|| scripted.at_work() == 1 && scripted.handed().len() == 4).await;
    let test = soon(test.restart()).await.unwrap();
    hold.store(false, Ordering::SeqCst);
    soon(test.add(subscription())).await.unwrap();
    soon(test.drain()).await;
    assert_eq!(scripted.attempts_at(place), [1, 2, 3, 4, 4, 5, 6]);
    let letters = soon(test.dead_letters("books", None, 10)).await.unwrap();
    let [letter] = letters.as_slice() else { panic!("{letters:?}") };
    assert_eq!((letter.place, letter.attempts, letter.reason.as_str()), (place, 6, "on request"));
    assert_eq!(letter.failures.len(), 5, "the last ones are kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_its_horizon_a_signal_is_given_up_however_often_it_was_tried() {
    let (test, _) = with_logins(&["ada"], 1).await;
    let scripted = Scripted::new(|_, _| fail());
    let hour = Duration::from_secs(3_600);
    let retry = RetryPolicy { attempts: None, horizon: Some(hour), ..attempts(1) };
    soon(test.add(on_logins("books", scripted.clone()).retry(retry))).await.unwrap();
    until(|| scripted.handed().len() > 3).await;
    assert_eq!(test.dead_letter_count("books"), Ok(0));
    test.advance(hour);
    soon(test.drain()).await;
    assert_eq!(test.dead_letter_count("books"), Ok(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_put_off_costs_no_attempt_and_comes_at_its_time_after_a_restart_too() {
    let (test, _) = with_logins(&["ada", "bob"], 2).await;
    let places = places_of(&test, &logins());
    let first = places[0];
    let hour = Duration::from_secs(3_600);
    let until = test.recorded().last().unwrap().at.plus(hour);
    let scripted = Scripted::new(move |told, context| match told.seq == Some(first) && context.now() < until {
        true => Act::Answer(Outcome::defer(until)),
        false => done(),
    });
    let subscription = || on_logins("books", scripted.clone()).retry(attempts(1));
    soon(test.add(subscription())).await.unwrap();
    soon(test.drain()).await;
    assert_eq!(scripted.places(), [first, places[1], places[3]], "others go on, and it is not waited for");
    test.advance(hour - Duration::from_secs(60));
    soon(test.drain()).await;
    let test = soon(test.restart_with(|builder| builder.subscription(subscription()))).await.unwrap();
    soon(test.drain()).await;
    assert_eq!(scripted.handed().len(), 3, "not before its time");
    test.advance(Duration::from_secs(60));
    soon(test.drain()).await;
    assert_eq!(scripted.places()[3..], [first, places[2]]);
    assert_eq!(scripted.attempts_at(first), [1, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_and_an_overdue_signal_become_dead_letters_and_say_why() {
    let (test, _) = with_logins(&["ada", "bob"], 1).await;
    let places = places_of(&test, &logins());
    let (rejected, overdue) = (places[0], places[1]);
    let scripted = Scripted::new(move |told, _| match told.seq {
        Some(place) if place == rejected => Act::Answer(Outcome::reject("never")),
        _ => Act::Hang,
    });
    let subscription = on_logins("books", scripted.clone()).retry(attempts(2)).deadline(Duration::from_millis(5));
    soon(test.add(subscription)).await.unwrap();
    soon(test.drain()).await;
    let letters = soon(test.dead_letters("books", None, 10)).await.unwrap();
    let seen: Vec<_> = letters.iter().map(|letter| (letter.place, letter.attempts, letter.reason.as_str())).collect();
    assert_eq!(seen, [(rejected, 1, "never"), (overdue, 2, "the handler took longer than its deadline")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_handler_that_blocks_its_thread_is_left_behind_and_after_four_such_threads_quarantined() {
    let (test, _) = with_logins(&["ada", "bob"], 2).await;
    let places = places_of(&test, &logins());
    let poison = places[0];
    let barrier = Arc::new(Barrier::default());
    let blocks = Arc::clone(&barrier);
    let blocked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&blocked);
    let scripted = Scripted::new(move |told, _| {
        if told.seq != Some(poison) || count.fetch_add(1, Ordering::SeqCst) >= 5 {
            return done();
        }
        Act::Block(Arc::clone(&blocks))
    });
    let endless = RetryPolicy { attempts: None, ..attempts(1) };
    let subscription = on_logins("books", scripted.clone()).retry(endless).deadline(Duration::from_millis(10));
    soon(test.add(subscription)).await.unwrap();
    until_fault(&test, "subscription_quarantined", true).await;
    assert_eq!(scripted.attempts_at(poison), [1, 2, 3, 4, 5], "each counts");
    soon(test.drain()).await;
    assert_eq!(state(&test, "books").await.restarts, 5);
    assert_eq!(told(&test, SignalKind::SubscriberQuarantined).len(), 1);
    barrier.open();
    soon(test.release("books")).await.unwrap();
    soon(test.drain()).await;
    until_fault(&test, "subscription_quarantined", false).await;
    let handled: BTreeSet<_> = scripted.places().into_iter().collect();
    assert_eq!(handled, places.iter().copied().collect());
    assert_eq!(told(&test, SignalKind::SubscriberReleased).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn neighbours_of_a_handler_that_blocks_its_thread_are_not_given_up_with_it() {
    let (test, users) = with_logins(&["ada", "bob", "eve"], 1).await;
    let (barrier, blocked) = (Arc::new(Barrier::default()), AtomicBool::new(false));
    let (blocks, eve) = (Arc::clone(&barrier), Lane::User(users[2]));
    let scripted = Scripted::new(move |told, _| {
        if told.lane == eve {
            blocked.store(true, Ordering::SeqCst);
            return Act::Block(Arc::clone(&blocks));
        }
        if blocked.load(Ordering::SeqCst) { done() } else { Act::Hang }
    });
    let subscription = on_logins("books", scripted.clone()).concurrency(4).retry(attempts(1));
    soon(test.add(subscription.deadline(Duration::from_millis(200)))).await.unwrap();
    // All three were in hand when the thread was given up; only one is found to be at fault.
    let place = places_of(&test, &logins())[2];
    soon(test.drain()).await;
    let letters = soon(test.dead_letters("books", None, 10)).await.unwrap();
    assert_eq!(letters.iter().map(|letter| letter.place).collect::<Vec<_>>(), [place]);
    assert!(scripted.handed().len() > 4);
    barrier.open();
}

#[tokio::test(flavor = "multi_thread")]
async fn after_so_many_letters_in_a_row_a_subscriber_is_quarantined_and_rejecting_is_no_fault() {
    let (test, _) = with_logins(&["ada"], 8).await;
    let places = places_of(&test, &logins());
    let (rejected, broken) = (places[3], Arc::new(AtomicBool::new(true)));
    let is_broken = Arc::clone(&broken);
    let scripted = Scripted::new(move |told, _| match told.seq {
        Some(place) if place <= rejected => Act::Answer(Outcome::reject("never")),
        _ if is_broken.load(Ordering::SeqCst) => fail(),
        _ => done(),
    });
    soon(test.add(on_logins("books", scripted.clone()).retry(attempts(1)).quarantine_after(2))).await.unwrap();
    until_fault(&test, "subscription_quarantined", true).await;
    // Who sees it can read of it at once.
    let quarantined = told(&test, SignalKind::SubscriberQuarantined);
    let expected = Signal::SubscriberQuarantined { subscriber: "books".to_owned(), failure: "on request".to_owned() };
    assert_eq!(quarantined, [expected]);
    soon(test.drain()).await;
    assert_eq!(scripted.places(), places[..6]);
    broken.store(false, Ordering::SeqCst);
    soon(test.release("books")).await.unwrap();
    soon(test.drain()).await;
    assert_eq!(scripted.places(), places);
    assert!(!faults(&test).await.contains(&"subscription_quarantined"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_waits_does_not_spin() {
    let (test, _) = with_logins(&["ada", "bob"], 2).await;
    let until = test.recorded().last().unwrap().at.plus(Duration::from_secs(3_600));
    let scripted = Scripted::new(move |_, _| Act::Answer(Outcome::defer(until)));
    soon(test.add(on_logins("books", scripted.clone()))).await.unwrap();
    soon(test.drain()).await;
    let before = test.storage_state().transactions;
    for _ in 0..50 {
        soon(test.drain()).await;
    }
    assert_eq!((scripted.handed().len(), test.storage_state().transactions), (2, before));
}

// Leases.

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_signal_during_which_the_process_dies_twice_is_given_up_and_its_neighbours_are_handled() {
    let (test, users) = with_logins(&["ada", "bob", "eve"], 3).await;
    let places = places_of(&test, &logins());
    let poison = places[4];
    assert_eq!(test.recorded()[usize::try_from(poison).unwrap() - 1].lane, Lane::User(users[1]));
    let deadly = || Scripted::new(move |told, _| if told.seq == Some(poison) { Act::Hang } else { done() });
    let subscription = |scripted: &Scripted| on_logins("books", scripted.clone()).concurrency(4).retry(attempts(2));
    let in_hand = async |test: &TestAccounts, scripted: &Scripted| {
        soon(test.add(subscription(scripted))).await.unwrap();
        until(|| scripted.places().contains(&poison)).await;
    };
    let (first, second, third) = (deadly(), deadly(), deadly());
    in_hand(&test, &first).await;
    let after_one = soon(test.crashed(1)).await.unwrap();
    in_hand(&after_one, &second).await;
    assert_eq!(second.attempts_at(poison), [2], "the attempt under way counted");
    assert_eq!(second.most.load(Ordering::SeqCst), 1, "it is handed over alone");
    let after_two = soon(after_one.crashed(2)).await.unwrap();
    soon(after_two.add(subscription(&third))).await.unwrap();
    soon(after_two.drain()).await;
    assert_eq!(third.attempts_at(poison), Vec::<u32>::new());
    let letters = soon(after_two.dead_letters("books", None, 10)).await.unwrap();
    let [letter] = letters.as_slice() else { panic!("{letters:?}") };
    assert_eq!((letter.place, letter.attempts), (poison, 2));
    let handled: BTreeSet<_> = third.places().into_iter().chain([poison]).collect();
    assert_eq!(handled.len() + 1, 1 + places.iter().filter(|place| handled.contains(place)).count());
    let ever: BTreeSet<_> = [&first, &second, &third].into_iter().flat_map(|scripted| scripted.places()).collect();
    assert_eq!(ever, places.iter().copied().collect(), "every neighbour was handled");
    assert!(third.kept_order());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_terms_of_a_subscription_are_checked_when_it_is_added() {
    let test = TestAccounts::start().await;
    let settings = SubscriptionSettings { concurrency: 16, batch: 17, ..SubscriptionSettings::default() };
    assert!(soon(test.add(on_logins("books", Recorder::default()).settings(settings))).await.is_err());
    let both = on_logins("books", Recorder::default()).on_failure(OnFailure::StallAll).concurrency(2);
    assert!(soon(test.add(both)).await.is_err());
    soon(test.add(on_logins("books", Recorder::default()).concurrency(16).batch(16))).await.unwrap();
}
