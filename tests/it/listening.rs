//! Listening: live members hear at once and lossily, durable subscribers hear everything in order, and neither disturbs a flow.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use majordomo::ractor::{self, Actor, ActorProcessingErr, ActorRef};
use majordomo::testing::TestAccounts;
use majordomo::{
    Authenticate, BuildError, Delete, Disable, Effect, Enable, Envelope, Filter, Lane, Live, OnFailure, Outcome,
    Password, Register, RegistrationError, Signal, SignalId, SignalKind, SpawnError, Start, Subscriber,
    SubscriberContext, Subscription, Unanswered, User, UserId,
};
use tokio::sync::{Semaphore, mpsc};

pub(crate) const PASSWORD: &str = "nine lanterns over a quiet harbour";

/// Bounds a wait, so that a fault fails and does not hang.
pub(crate) async fn soon<T>(waiting: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(180), waiting).await.expect("it did not come to pass within three minutes")
}

/// Yields until a condition holds.
pub(crate) async fn until(condition: impl Fn() -> bool) {
    soon(async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

pub(crate) async fn register(test: &TestAccounts, username: &str) -> UserId {
    let request = Register { username: Some(username.to_owned()), ..Register::new(PASSWORD) };
    soon(test.register(request)).await.unwrap().user
}

pub(crate) fn login(username: &str) -> Authenticate {
    Authenticate { identifier: username.to_owned(), password: Password::new(PASSWORD) }
}

async fn sign_in(test: &TestAccounts, username: &str) {
    soon(test.authenticate(login(username))).await.unwrap();
}

/// A durable subscriber that keeps what it is handed.
#[derive(Clone, Default)]
pub(crate) struct Recorder {
    seen: Arc<Mutex<Vec<Envelope>>>,
}

impl Recorder {
    pub(crate) fn seen(&self) -> Vec<Envelope> {
        self.seen.lock().unwrap().clone()
    }

    pub(crate) fn places(&self) -> Vec<u64> {
        self.seen().iter().map(|envelope| envelope.seq.unwrap()).collect()
    }
}

impl Subscriber for Recorder {
    async fn handle(&self, envelope: &Envelope, _context: &SubscriberContext) -> Outcome {
        self.seen.lock().unwrap().push(envelope.clone());
        Outcome::done()
    }
}

/// The places of the log that pass a filter.
fn places(test: &TestAccounts, filter: &Filter) -> Vec<u64> {
    test.recorded().iter().filter(|envelope| filter.passes(envelope)).map(|envelope| envelope.seq.unwrap()).collect()
}

// Live members.

enum Heard {
    Live(Live),
}

impl From<Live> for Heard {
    fn from(live: Live) -> Self {
        Self::Live(live)
    }
}

/// An actor of an app, which hands on what it hears once its gate lets it.
struct Ear;

struct EarState {
    told: mpsc::UnboundedSender<(Arc<Envelope>, u64)>,
    gate: Arc<Semaphore>,
}

#[ractor::actor(message = Heard, state = EarState, arguments = EarState)]
impl Ear {
    async fn pre_start(&self, _myself: ActorRef<Heard>, state: EarState) -> Result<EarState, ActorProcessingErr> {
        Ok(state)
    }

    async fn handle(
        &self,
        _myself: ActorRef<Heard>,
        Heard::Live(live): Heard,
        state: &mut EarState,
    ) -> Result<(), ActorProcessingErr> {
        state.gate.acquire().await?.forget();
        state.told.send((Arc::clone(&live.envelope), live.missed))?;
        Ok(())
    }
}

struct Member {
    actor: ActorRef<Heard>,
    told: mpsc::UnboundedReceiver<(Arc<Envelope>, u64)>,
    gate: Arc<Semaphore>,
}

const OPEN: usize = 1_000_000;

async fn member(permits: usize) -> Member {
    let (sender, told) = mpsc::unbounded_channel();
    let gate = Arc::new(Semaphore::new(permits));
    let (actor, _) = Actor::spawn(None, Ear, EarState { told: sender, gate: Arc::clone(&gate) }).await.unwrap();
    Member { actor, told, gate }
}

impl Member {
    async fn next(&mut self) -> (Arc<Envelope>, u64) {
        soon(self.told.recv()).await.unwrap()
    }

    async fn take(&mut self, count: usize) -> Vec<Arc<Envelope>> {
        let mut heard = Vec::new();
        for _ in 0..count {
            let (envelope, missed) = self.next().await;
            assert_eq!(missed, 0);
            heard.push(envelope);
        }
        heard
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_actor_joins_in_one_call_and_hears_what_its_filter_asks_for_in_order_per_user() {
    let test = TestAccounts::start().await;
    let mut users = Vec::new();
    for name in ["ada", "bob", "eve"] {
        users.push((register(&test, name).await, name));
    }
    let (mut all, mut ada) = (member(OPEN).await, member(OPEN).await);
    let after = test.head();
    test.listen(&all.actor, Filter::kinds([SignalKind::UserAuthenticated]), 1_000);
    test.listen(&ada.actor, Filter::all().users([users[0].0]), 1_000);
    let logins = users.iter().flat_map(|(_, name)| std::iter::repeat_n(*name, 10)).map(|name| {
        let accounts = test.accounts().clone();
        tokio::spawn(async move { accounts.authenticate(login(name)).await.map(|session| session.user) })
    });
    for login in logins.collect::<Vec<_>>() {
        soon(login).await.unwrap().unwrap();
    }
    let told: Vec<_> = test.recorded().into_iter().filter(|envelope| envelope.seq > Some(after)).collect();
    let heard = all.take(30).await;
    let expected = told.iter().filter(|envelope| envelope.signal.kind() == SignalKind::UserAuthenticated);
    assert!(heard.iter().map(|envelope| envelope.id).eq(expected.map(|envelope| envelope.id)), "each, in order");
    for (user, _) in &users {
        let of_user =
            heard.iter().filter(|envelope| envelope.signal.user() == Some(*user)).map(|envelope| envelope.seq);
        let of_user: Vec<_> = of_user.collect();
        assert!(of_user.len() == 10 && of_user.is_sorted());
    }
    let expected: Vec<_> = told.iter().filter(|envelope| envelope.signal.user() == Some(users[0].0)).collect();
    let heard = ada.take(expected.len()).await;
    assert!(heard.iter().map(|envelope| envelope.seq).eq(expected.iter().map(|envelope| envelope.seq)));
    // And an actor that leaves hears nothing more: whatever was on its way would precede what a new member hears.
    test.unlisten(&all.actor);
    let mut witness = member(OPEN).await;
    test.listen(&witness.actor, Filter::all(), 1_000);
    sign_in(&test, "bob").await;
    while witness.next().await.0.signal.kind() != SignalKind::UserAuthenticated {}
    assert!(all.told.try_recv().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_is_heard_at_once_without_a_place_and_again_with_its_place() {
    let test = TestAccounts::start().await;
    register(&test, "ada").await;
    let mut ear = member(OPEN).await;
    test.listen(&ear.actor, Filter::kinds([SignalKind::UserAuthenticationStarted]), 1_000);
    test.hold_hashing(true);
    let accounts = test.accounts().clone();
    let under_way = tokio::spawn(async move { accounts.authenticate(login("ada")).await });
    let (live, _) = ear.next().await;
    assert!(live.seq.is_none() && !under_way.is_finished());
    test.hold_hashing(false);
    soon(under_way).await.unwrap().unwrap();
    let (durable, _) = ear.next().await;
    assert_eq!((durable.id, durable.at, &durable.signal), (live.id, live.at, &live.signal));
    assert!(durable.seq.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_slow_live_member_misses_is_counted_exactly() {
    let test = TestAccounts::start().await;
    register(&test, "ada").await;
    let (mut slow, mut witness) = (member(0).await, member(OPEN).await);
    let filter = Filter::kinds([SignalKind::UserAuthenticated]);
    test.listen(&slow.actor, filter.clone(), 2);
    test.listen(&witness.actor, filter.clone(), 1_000);
    for _ in 0..11 {
        sign_in(&test, "ada").await;
    }
    // Commits are told one after the other: with the eleventh heard, ten have been told to everybody.
    witness.take(11).await;
    slow.gate.add_permits(OPEN);
    let logins = places(&test, &filter);
    let (first, second) = (slow.next().await, slow.next().await);
    assert_eq!([(first.0.seq, first.1), (second.0.seq, second.1)], [(Some(logins[0]), 0), (Some(logins[1]), 0)]);
    let mut last = logins[1];
    for round in 0..5 {
        sign_in(&test, "ada").await;
        let (envelope, missed) = slow.next().await;
        let seq = envelope.seq.unwrap();
        let between = places(&test, &filter).iter().filter(|place| (last + 1..seq).contains(place)).count();
        assert_eq!(missed, between as u64);
        assert!(round > 0 || missed >= 8, "ten less the two that had a place: {missed}");
        last = seq;
    }
}

/// Counts every signal that is turned into a message for it.
struct Counted;

static COUNTED: AtomicUsize = AtomicUsize::new(0);

impl From<Live> for Counted {
    fn from(_: Live) -> Self {
        COUNTED.fetch_add(1, Ordering::SeqCst);
        Self
    }
}

struct Mortal;

#[ractor::actor(message = Counted, state = (), arguments = ())]
impl Mortal {
    async fn pre_start(&self, _myself: ActorRef<Counted>, _arguments: ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_live_member_is_forgotten() {
    let test = TestAccounts::start().await;
    register(&test, "ada").await;
    let (mortal, _) = Actor::spawn(None, Mortal, ()).await.unwrap();
    let mut witness = member(OPEN).await;
    let filter = Filter::kinds([SignalKind::UserAuthenticated]);
    test.listen(&mortal, filter.clone(), 1_000);
    test.listen(&witness.actor, filter, 1_000);
    sign_in(&test, "ada").await;
    until(|| COUNTED.load(Ordering::SeqCst) == 1).await;
    mortal.kill();
    soon(mortal.wait(None)).await.unwrap();
    for _ in 0..3 {
        sign_in(&test, "ada").await;
    }
    witness.take(4).await;
    assert_eq!(COUNTED.load(Ordering::SeqCst), 1, "nothing is made for the dead");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_logins_are_answered_though_a_live_member_hangs() {
    let test = TestAccounts::start().await;
    register(&test, "ada").await;
    let hung = member(0).await;
    test.listen(&hung.actor, Filter::all(), 10);
    let logins = (0..100).map(|_| {
        let accounts = test.accounts().clone();
        tokio::spawn(async move { accounts.authenticate(login("ada")).await.is_ok() })
    });
    let mut answered = 0;
    for login in logins.collect::<Vec<_>>() {
        answered += usize::from(soon(login).await.unwrap());
    }
    assert_eq!(answered, 100);
    assert!(soon(test.shutdown()).await, "nor does it hold up the shutdown");
    drop(hung);
}

// Durable subscribers.

#[tokio::test(flavor = "multi_thread")]
async fn a_durable_subscriber_hears_every_signal_of_its_filter_in_order_from_the_beginning_or_from_now() {
    let (all, registrations) = (Recorder::default(), Recorder::default());
    let test = TestAccounts::start().await;
    let only = Filter::kinds([SignalKind::UserRegistered]);
    let builder_made = (all.clone(), registrations.clone(), only.clone());
    let test = test
        .restart_with(|builder| {
            let (all, registrations, only) = builder_made;
            builder.subscriber("all", Filter::all(), Start::Beginning, all).subscriber(
                "registrations",
                only,
                Start::Now,
                registrations,
            )
        })
        .await
        .unwrap();
    let ada = register(&test, "ada").await;
    sign_in(&test, "ada").await;
    let (late, from_now, of_bob) = (Recorder::default(), Recorder::default(), Recorder::default());
    soon(test.subscribe("late", Filter::all(), Start::Beginning, late.clone())).await.unwrap();
    soon(test.subscribe("from_now", Filter::all(), Start::Now, from_now.clone())).await.unwrap();
    let head = test.head();
    let bob = register(&test, "bob").await;
    let filter = Filter::kinds([SignalKind::UserRegistered, SignalKind::UserAuthenticated]).users([bob]);
    soon(test.subscribe("of_bob", filter.clone(), Start::Beginning, of_bob.clone())).await.unwrap();
    for name in ["bob", "ada", "bob"] {
        sign_in(&test, name).await;
    }
    soon(test.drain()).await;
    let everything = places(&test, &Filter::all());
    assert_eq!(everything, (1..=test.head()).collect::<Vec<_>>(), "the log has no gap");
    assert_eq!(all.places(), everything);
    assert_eq!(late.places(), everything, "added later, it sees the past");
    assert_eq!(from_now.places(), (head + 1..=test.head()).collect::<Vec<_>>());
    assert_eq!(registrations.places(), places(&test, &only));
    assert_eq!(registrations.seen().len(), 2);
    assert_eq!((of_bob.places(), of_bob.seen().len()), (places(&test, &filter), 3));
    assert!(of_bob.seen().iter().all(|envelope| envelope.lane == Lane::User(bob) && bob != ada));
}

#[tokio::test(flavor = "multi_thread")]
async fn across_restarts_a_durable_subscriber_goes_on_from_its_cursor() {
    let recorder = Recorder::default();
    let test = TestAccounts::start().await;
    soon(test.subscribe("books", Filter::all(), Start::Now, recorder.clone())).await.unwrap();
    let after = test.head();
    let mut users = 0;
    let mut test = test;
    for round in 0..3 {
        for _ in 0..5 {
            register(&test, &format!("user{users}")).await;
            users += 1;
        }
        // Absent, it misses nothing; present again, it asks for `Beginning` and is not given the past once more.
        test = soon(test.restart()).await.unwrap();
        register(&test, &format!("absent{round}")).await;
        let again = recorder.clone();
        let coming_back =
            move |builder: majordomo::Builder| builder.subscriber("books", Filter::all(), Start::Beginning, again);
        test = soon(test.restart_with(coming_back)).await.unwrap();
        register(&test, &format!("back{round}")).await;
    }
    soon(test.drain()).await;
    assert_eq!(recorder.places(), (after + 1..=test.head()).collect::<Vec<_>>(), "nothing twice, nothing missed");
}

/// Panics or asks for a retry as often as told at each signal.
#[derive(Clone)]
struct Clumsy {
    falls: u32,
    panics: bool,
    recorder: Recorder,
    attempts: Arc<Mutex<HashMap<SignalId, Vec<u32>>>>,
}

impl Clumsy {
    fn new(falls: u32, panics: bool) -> Self {
        Self { falls, panics, recorder: Recorder::default(), attempts: Arc::default() }
    }
}

impl Subscriber for Clumsy {
    async fn handle(&self, envelope: &Envelope, context: &SubscriberContext) -> Outcome {
        self.attempts.lock().unwrap().entry(envelope.id).or_default().push(context.attempt());
        if context.attempt() > self.falls {
            return self.recorder.handle(envelope, context).await;
        }
        assert!(!self.panics, "falls over on purpose");
        Outcome::retry("not yet")
    }
}

/// Blocks its thread until it is let go.
#[derive(Clone, Default)]
struct Blocking {
    entered: Arc<AtomicBool>,
    open: Arc<(Mutex<bool>, Condvar)>,
}

impl Blocking {
    fn let_go(&self) {
        *self.open.0.lock().unwrap() = true;
        self.open.1.notify_all();
    }
}

impl Subscriber for Blocking {
    async fn handle(&self, _envelope: &Envelope, _context: &SubscriberContext) -> Outcome {
        self.entered.store(true, Ordering::SeqCst);
        let open = self.open.0.lock().unwrap();
        drop(self.open.1.wait_while(open, |open| !*open).unwrap());
        Outcome::done()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_panicking_a_retrying_and_a_blocking_subscriber_disturb_neither_flows_nor_neighbours() {
    let test = TestAccounts::start().await;
    let (blocking, neighbour) = (Blocking::default(), Recorder::default());
    let (panicking, retrying) = (Clumsy::new(u32::MAX, true), Clumsy::new(u32::MAX, false));
    for (name, clumsy) in [("panicking", &panicking), ("retrying", &retrying)] {
        let subscription = Subscription::new(name, clumsy.clone()).on_failure(OnFailure::StallAll);
        soon(test.add(subscription)).await.unwrap();
    }
    soon(test.subscribe("blocking", Filter::all(), Start::Now, blocking.clone())).await.unwrap();
    soon(test.subscribe("neighbour", Filter::all(), Start::Now, neighbour.clone())).await.unwrap();
    let first = test.head() + 1;
    register(&test, "ada").await;
    until(|| blocking.entered.load(Ordering::SeqCst)).await;
    for _ in 0..20 {
        sign_in(&test, "ada").await;
    }
    // Each of the two is handed its first signal again and again.
    let attempts = |clumsy: &Clumsy| clumsy.attempts.lock().unwrap().values().map(Vec::len).max().unwrap_or(0);
    until(|| attempts(&panicking) >= 3 && attempts(&retrying) >= 3).await;
    for clumsy in [&panicking, &retrying] {
        let attempts = clumsy.attempts.lock().unwrap().clone();
        assert_eq!(attempts.len(), 1, "what follows waits");
        let handed_over = attempts.values().next().unwrap();
        assert_eq!(*handed_over, (1..=u32::try_from(handed_over.len()).unwrap()).collect::<Vec<_>>());
    }
    until(|| neighbour.places().len() as u64 == test.head() + 1 - first).await;
    assert_eq!(neighbour.places(), (first..=test.head()).collect::<Vec<_>>());
    let told = test.recorded().into_iter().filter_map(|told| match told.signal {
        Signal::SubscriberRestarted { subscriber, signal, failure } => Some((subscriber, signal, failure)),
        _ => None,
    });
    let told: Vec<_> = told.collect();
    let stumbled = test.recorded()[usize::try_from(first).unwrap() - 1].id;
    assert_eq!(told, [("panicking".to_owned(), stumbled, "the handler panicked".to_owned())], "told once a signal");
    let tree = soon(test.tree()).await;
    let state = |name: &str| tree.subscription(name).unwrap().clone();
    for (name, failure) in [("panicking", "the handler panicked"), ("retrying", "not yet")] {
        assert_eq!(state(name).last_failure.unwrap().failure, failure);
        assert!(state(name).failures >= 2 && state(name).handled == 0 && state(name).lag > 0);
    }
    assert_eq!(state("neighbour").failures, 0);
    blocking.let_go();
    assert!(soon(test.shutdown()).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_for_a_while_is_handed_over_until_it_is_done_and_each_panic_is_told_once_a_signal() {
    let test = TestAccounts::start().await;
    let filter = Filter::kinds([SignalKind::UserRegistered, SignalKind::UserAuthenticated]);
    let (panicking, retrying) = (Clumsy::new(2, true), Clumsy::new(2, false));
    soon(test.subscribe("panicking", filter.clone(), Start::Beginning, panicking.clone())).await.unwrap();
    soon(test.subscribe("retrying", filter.clone(), Start::Beginning, retrying.clone())).await.unwrap();
    register(&test, "ada").await;
    sign_in(&test, "ada").await;
    soon(test.drain()).await;
    for clumsy in [&panicking, &retrying] {
        assert_eq!(clumsy.recorder.places(), places(&test, &filter));
        assert!(clumsy.attempts.lock().unwrap().values().all(|attempts| *attempts == [1, 2, 3]));
    }
    let mut told = BTreeMap::new();
    for envelope in test.recorded() {
        if let Signal::SubscriberRestarted { subscriber, signal, .. } = &envelope.signal {
            *told.entry((subscriber.clone(), *signal)).or_insert(0) += 1;
            assert_eq!(envelope.sender.as_str(), "system");
        }
    }
    let expected = panicking.recorder.seen().iter().map(|seen| (("panicking".to_owned(), seen.id), 1)).collect();
    assert_eq!(told, expected);
}

/// Counts logins in its projection, and asks for the user at each.
#[derive(Clone, Default)]
struct Counter {
    users: Arc<Mutex<Vec<Option<User>>>>,
}

impl Subscriber for Counter {
    async fn handle(&self, envelope: &Envelope, context: &SubscriberContext) -> Outcome {
        let Signal::UserAuthenticated { user, .. } = &envelope.signal else { return Outcome::done() };
        let (Ok(found), Ok(kept)) = (context.user(*user), context.projection(user.as_bytes())) else {
            return Outcome::retry("storage is out");
        };
        self.users.lock().unwrap().push(found);
        let count = kept.map_or(0, |bytes| u64::from_be_bytes(bytes.try_into().unwrap())) + 1;
        Outcome::Done(vec![
            Effect::Project { key: user.as_bytes().to_vec(), value: count.to_be_bytes().to_vec() },
            Effect::Project { key: b"last".to_vec(), value: envelope.id.as_bytes().to_vec() },
        ])
    }
}

/// Tells what another incarnation under the same name finds in the projection.
struct Reading {
    told: mpsc::UnboundedSender<Option<Vec<u8>>>,
    key: Vec<u8>,
}

impl Subscriber for Reading {
    async fn handle(&self, _envelope: &Envelope, context: &SubscriberContext) -> Outcome {
        self.told.send(context.projection(&self.key).unwrap()).unwrap();
        Outcome::done()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_reads_users_as_of_now_and_its_own_projection_as_it_left_it() {
    let counter = Counter::default();
    let test = TestAccounts::start().await;
    let filter = Filter::kinds([SignalKind::UserAuthenticated]);
    soon(test.subscribe("counter", filter.clone(), Start::Beginning, counter.clone())).await.unwrap();
    let ada = register(&test, "ada").await;
    for _ in 0..3 {
        sign_in(&test, "ada").await;
    }
    soon(test.drain()).await;
    let again = counter.clone();
    let with_counter = filter.clone();
    let restarted = test.restart_with(move |b| b.subscriber("counter", with_counter, Start::Beginning, again));
    let test = soon(restarted).await.unwrap();
    for _ in 0..2 {
        sign_in(&test, "ada").await;
    }
    soon(test.drain()).await;
    let users = counter.users.lock().unwrap().clone();
    assert_eq!(users.len(), 5);
    assert!(users.iter().flatten().all(|user| user.id == ada && user.username.is_some()));

    // Another subscriber's projection is not its own; the same name's is.
    let (told, mut found) = mpsc::unbounded_channel();
    let (elsewhere, mut other) = mpsc::unbounded_channel();
    let key = ada.as_bytes().to_vec();
    let restarted =
        test.restart_with(|builder| {
            let (filter, key) = (Filter::kinds([SignalKind::UserDisabled]), key.clone());
            builder
                .subscriber("counter", filter.clone(), Start::Beginning, Reading { told, key: key.clone() })
                .subscriber("stranger", filter, Start::Beginning, Reading { told: elsewhere, key })
        });
    let test = soon(restarted).await.unwrap();
    soon(test.disable(Disable { user: ada })).await.unwrap();
    assert_eq!(soon(found.recv()).await.unwrap(), Some(5_u64.to_be_bytes().to_vec()));
    assert_eq!(soon(other.recv()).await.unwrap(), None);

    // A user who is gone by the time of the handling is `None`.
    soon(test.enable(Enable { user: ada })).await.unwrap();
    soon(test.delete(Delete::new(ada))).await.unwrap();
    let later = Counter::default();
    soon(test.subscribe("later", filter, Start::Beginning, later.clone())).await.unwrap();
    soon(test.drain()).await;
    assert_eq!(later.users.lock().unwrap().iter().filter(|user| user.is_none()).count(), 5);
}

/// Emits a signal for each that it is handed.
struct Echo;

impl Subscriber for Echo {
    async fn handle(&self, envelope: &Envelope, _context: &SubscriberContext) -> Outcome {
        let Signal::UserRegistered { user, .. } = envelope.signal else { return Outcome::done() };
        Outcome::Done(vec![Effect::Emit(Box::new(Signal::GroupsChangeStarted { user }))])
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follow_up_is_told_once_in_the_lane_of_its_cause_under_the_subscribers_name() {
    let test = TestAccounts::start().await;
    soon(test.subscribe("echo", Filter::all(), Start::Beginning, Echo)).await.unwrap();
    let ada = register(&test, "ada").await;
    soon(test.drain()).await;
    let recorded = test.recorded();
    let registered = recorded.iter().find(|told| told.signal.kind() == SignalKind::UserRegistered).unwrap();
    let echoes: Vec<_> = recorded.iter().filter(|told| told.sender.as_str() == "echo").collect();
    let [echo] = echoes.as_slice() else { panic!("{echoes:?}") };
    assert_eq!((echo.cause, echo.lane), (Some(registered.flow), Lane::User(ada)));
    assert!(echo.seq > registered.seq);
}

/// Asks for what it was not granted.
#[derive(Clone, Default)]
struct Nosy {
    answers: Arc<Mutex<Vec<Unanswered>>>,
}

impl Subscriber for Nosy {
    async fn handle(&self, envelope: &Envelope, context: &SubscriberContext) -> Outcome {
        let Signal::VerifyEmail { token, .. } = &envelope.signal else { return Outcome::done() };
        self.answers.lock().unwrap().extend(context.delivery(*token).err());
        if context.attempt() == 1 { Outcome::Done(vec![Effect::Delivered(*token)]) } else { Outcome::done() }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ordinary_subscriber_is_granted_neither_link_nor_the_end_of_a_delivery() {
    let test = TestAccounts::start().await;
    let nosy = Nosy::default();
    soon(test.subscribe("nosy", Filter::all(), Start::Beginning, nosy.clone())).await.unwrap();
    let request = Register { email: Some("ada@example.com".to_owned()), ..Register::new(PASSWORD) };
    let ada = soon(test.register(request)).await.unwrap().user;
    soon(test.drain()).await;
    assert_eq!(*nosy.answers.lock().unwrap(), [Unanswered::NotGranted; 2], "refused, handed over again, refused");
    let tree = soon(test.tree()).await;
    let state = tree.subscription("nosy").unwrap();
    assert!(state.failures == 1 && state.last_failure.as_ref().unwrap().failure.contains("capability"));
    let ends = test.recorded().into_iter().filter(|told| told.signal.user() == Some(ada)).filter(|told| {
        told.signal.kind() == SignalKind::UserEmailVerificationInitiated && told.sender.as_str() != "notifier"
    });
    assert_eq!(ends.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_are_taken_or_not_acceptable_are_refused_at_spawn_naming_them() {
    let spawn = |names: &[&str], file: &std::path::Path| {
        let builder = majordomo::Accounts::builder().file(file);
        let books = |builder: majordomo::Builder, name: &&str| {
            builder.subscriber(*name, Filter::all(), Start::Beginning, Recorder::default())
        };
        names.iter().fold(builder, books).spawn()
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("accounts.redb");
    for names in [["books", "books"], ["books", "auditor"]] {
        let refused = soon(spawn(&names, &file)).await.unwrap_err();
        let BuildError::Configuration(faults) = refused else { panic!("{refused:?}") };
        assert_eq!(faults, [format!("subscriber {:?}: the name is taken", names[1])]);
    }
    let long = "x".repeat(65);
    for name in ["", "Books", "bo oks", "b/ooks", "büch", long.as_str()] {
        let refused = soon(spawn(&["fine", name], &file)).await.unwrap_err();
        assert!(refused.to_string().contains(&format!("{name:?}")), "{refused}");
        let BuildError::Spawn(SpawnError::Subscription { name: told, fault }) = refused else { panic!("{refused:?}") };
        assert_eq!((told.as_str(), fault), (name, RegistrationError::InvalidName));
    }
    // Refused, a start leaves nothing behind that would hold the file.
    let accounts = soon(spawn(&["fine"], &file)).await.unwrap();
    assert!(soon(accounts.shutdown()).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_are_taken_or_not_acceptable_are_refused_at_run_time_and_change_nothing() {
    let test = TestAccounts::start().await;
    let first = Recorder::default();
    soon(test.subscribe("books", Filter::all(), Start::Beginning, first.clone())).await.unwrap();
    let long = "x".repeat(65);
    for (name, expected) in [
        ("books", RegistrationError::NameTaken),
        ("auditor", RegistrationError::NameTaken),
        ("notifier", RegistrationError::NameTaken),
        ("", RegistrationError::InvalidName),
        ("Books", RegistrationError::InvalidName),
        ("b/ooks", RegistrationError::InvalidName),
        (long.as_str(), RegistrationError::InvalidName),
    ] {
        let second = Recorder::default();
        let refused = soon(test.subscribe(name, Filter::all(), Start::Beginning, second.clone())).await.unwrap_err();
        let shown = refused.to_string();
        let SpawnError::Subscription { name: told, fault } = refused else { panic!("{refused:?}") };
        assert_eq!((told.as_str(), fault), (name, expected));
        assert!(shown.contains(&format!("{name:?}")), "{shown}");
        register(&test, &format!("user{}", test.head())).await;
        assert!(second.seen().is_empty());
    }
    let tree = soon(test.tree()).await;
    let names: Vec<_> = tree.subscriptions().into_iter().map(|state| state.name.as_str()).collect();
    assert_eq!(names, ["auditor", "notifier", "books"]);
    soon(test.drain()).await;
    assert_eq!(first.places(), places(&test, &Filter::all()));
}

#[tokio::test(flavor = "multi_thread")]
async fn envelopes_round_trip_through_json_and_show_nobody_in_full() {
    let test = TestAccounts::start().await;
    let recorder = Recorder::default();
    soon(test.subscribe("books", Filter::all(), Start::Beginning, recorder.clone())).await.unwrap();
    let request = Register {
        username: Some("ada.lovelace".to_owned()),
        email: Some("ada.lovelace@example.com".to_owned()),
        phone: Some("+44 7911 123456".to_owned()),
        ..Register::new(PASSWORD)
    };
    let ada = soon(test.register(request)).await.unwrap().user;
    let _ = soon(test.authenticate(login("nobody.at.all"))).await;
    soon(test.delete(Delete::new(ada))).await.unwrap();
    soon(test.drain()).await;
    let seen = recorder.seen();
    assert!(seen.len() > 10);
    for envelope in seen {
        let json = serde_json::to_string(&envelope).unwrap();
        assert_eq!(serde_json::from_str::<Envelope>(&json).unwrap(), envelope);
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value["signal"]["type"], envelope.signal.kind().as_str());
        for full in ["lovelace", "7911123", "nobody.at"] {
            assert!(!json.contains(full), "{json}");
        }
    }
}
