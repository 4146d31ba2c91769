//! Chaos: subscribers and guards that do the worst they can, one by one and all at once, while everybody else is served.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, Once};
use std::time::Duration;

use majordomo::testing::TestAccounts;
use majordomo::{
    Accounts, Change, ChangeGroups, Effect, Envelope, FailMode, Filter, GUARDED_FLOWS, Guard, GuardRegistration,
    GuardRequest, HealthFault, Outcome, Password, Register, RetryPolicy, Ruling, Signal, SignalKind, Start, Subscriber,
    SubscriberContext, Subscription, SubscriptionStatus, Update, UserId,
};

use crate::laws::assert_laws;
use crate::listening::{PASSWORD, Recorder, login};

/// Whose panics are not shown: the threads of subscriptions and guards of these names.
const HOSTILE: &str = "hostile";
const CALLERS: usize = 4;
const LOGINS: usize = 2;
const HOUR: Duration = Duration::from_secs(3_600);
/// How many signals may be emitted for one, and how many effects it may have.
const EMITTED: usize = 16;
const EFFECTS: usize = 256;
/// What a flood and an allocation follow.
const OCCASION: SignalKind = SignalKind::UserAuthenticated;
/// After how many signals given up a subscriber is quarantined, and how often it is tried here.
const PATIENCE: u64 = 10;
const ATTEMPTS: u32 = 2;

/// One at a time: they would otherwise starve each other.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Bounds what could otherwise wait for ever; there is much to do at once here.
async fn soon<T>(waiting: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(240), waiting).await.expect("it takes too long")
}

/// Looks until a condition holds.
async fn until(condition: impl Fn() -> bool) {
    soon(async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

/// Keeps the panics that are meant out of the output.
fn silence() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let here = std::thread::current();
            if !here.name().is_some_and(|name| name.starts_with("majordomo-hostile")) {
                usual(panic);
            }
        }));
    });
}

/// What a guest does whenever it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    Nothing,
    Panic,
    /// Asks for a retry.
    Fail,
    Reject,
    /// Asks for more effects than there may be.
    Overreach,
    Hang,
    /// A thread that it waits for dies.
    ThreadDies,
    /// A task that it waits for panics.
    ChildPanics,
    /// Its work is aborted under it.
    Cancelled,
    /// Blocks on a future in a runtime.
    BlockOn,
    /// Waits for all subscribers, itself included.
    WaitForItself,
    /// Blocks its thread.
    Block,
    /// 64 MiB for each signal.
    Allocate,
    /// As many follow-ups as there may be.
    Flood,
    /// Asks the system for flows.
    CallBack,
}

/// What none of them gets away with.
const FAILING: [Deed; 9] = [
    Deed::Panic,
    Deed::Fail,
    Deed::Overreach,
    Deed::Hang,
    Deed::ThreadDies,
    Deed::ChildPanics,
    Deed::Cancelled,
    Deed::BlockOn,
    Deed::WaitForItself,
];

/// Shut until it is opened; nobody is kept for ever.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    fn pass(&self) {
        drop(self.0.1.wait_timeout_while(self.0.0.lock().unwrap(), HOUR, |open| !*open));
    }
}

/// A subscriber, or a guard, that does one of these deeds.
#[derive(Clone)]
struct Guest {
    deed: Deed,
    gate: Gate,
    called: Arc<AtomicU64>,
    accounts: Accounts,
}

impl Guest {
    fn new(deed: Deed, gate: &Gate, accounts: &Accounts) -> Self {
        Self { deed, gate: gate.clone(), called: Arc::default(), accounts: accounts.clone() }
    }

    fn name(&self) -> String {
        name(self.deed)
    }

    async fn misbehave(&self) {
        self.called.fetch_add(1, Ordering::SeqCst);
        match self.deed {
            Deed::Panic => panic!("on purpose"),
            Deed::Hang => std::future::pending().await,
            Deed::ThreadDies => {
                let thread = std::thread::Builder::new().name(format!("majordomo-{HOSTILE}-thread"));
                thread.spawn(|| panic!("on purpose")).unwrap().join().unwrap();
            }
            Deed::ChildPanics => tokio::task::spawn(async { panic!("on purpose") }).await.unwrap(),
            Deed::Cancelled => {
                let work = tokio::task::spawn(std::future::pending::<()>());
                work.abort();
                work.await.unwrap();
            }
            Deed::BlockOn => tokio::runtime::Handle::current().block_on(std::future::ready(())),
            Deed::WaitForItself => self.accounts.drain().await,
            Deed::Block => self.gate.pass(),
            Deed::Allocate => drop(std::hint::black_box(vec![1_u8; 64 << 20])),
            Deed::Nothing | Deed::Fail | Deed::Reject | Deed::Overreach | Deed::Flood | Deed::CallBack => {}
        }
    }
}

fn name(deed: Deed) -> String {
    format!("{HOSTILE}-{deed:?}").to_lowercase()
}

fn emitted(user: UserId) -> Effect {
    Effect::Emit(Box::new(Signal::UserPasswordChecked { user, success: true, needs_rehash: false }))
}

impl Subscriber for Guest {
    async fn handle(&self, envelope: &Envelope, _context: &SubscriberContext) -> Outcome {
        self.misbehave().await;
        match (self.deed, &envelope.signal) {
            (Deed::Fail, _) => Outcome::retry("never"),
            (Deed::Reject, _) => Outcome::reject("not for me"),
            (Deed::Overreach, _) => {
                Outcome::Done((0..=EFFECTS).map(|_| Effect::Forget { key: b"key".to_vec() }).collect())
            }
            (Deed::Flood, signal) => {
                let user = signal.user().unwrap_or_else(UserId::new);
                Outcome::Done((0..EMITTED).map(|_| emitted(user)).collect())
            }
            (Deed::CallBack, Signal::UserAuthenticated { user, .. }) => {
                let join = ChangeGroups { user: *user, join: ["visitors".to_owned()].into(), leave: [].into() };
                // The second time there is nothing to do.
                let joined = self.accounts.change_groups(join).await;
                assert!(joined.map_err(|error| error.as_str()).is_ok_and(|_| true) || self.is_visitor(*user));
                assert!(self.accounts.tree().await.subscription(&self.name()).unwrap().in_hand >= 1);
                Outcome::done()
            }
            _ => Outcome::done(),
        }
    }
}

impl Guest {
    fn is_visitor(&self, user: UserId) -> bool {
        self.accounts.user(user).unwrap().unwrap().groups.contains("visitors")
    }

    fn subscription(&self) -> Subscription {
        let millisecond = Duration::from_millis(1);
        let retry = RetryPolicy { attempts: Some(ATTEMPTS), first: millisecond, ..RetryPolicy::default() };
        let subscription = Subscription::new(self.name(), self.clone()).start(Start::Beginning).retry(retry);
        match self.deed {
            Deed::Hang | Deed::WaitForItself | Deed::Block => subscription.deadline(Duration::from_millis(20)),
            // What they do is much already: not for each other's signals too.
            Deed::Allocate | Deed::Flood => subscription.filter(Filter::kinds([OCCASION])),
            _ => subscription,
        }
    }

    fn guard(&self, on_failure: FailMode) -> GuardRegistration {
        let guard = GuardRegistration::new(self.name(), GUARDED_FLOWS, on_failure, self.clone());
        match self.deed {
            Deed::Hang | Deed::Block | Deed::WaitForItself => guard.deadline(Duration::from_millis(50)),
            _ => guard.deadline(Duration::from_secs(30)),
        }
        .breaker(3, HOUR)
    }
}

impl Guard for Guest {
    async fn check(&self, request: &GuardRequest) -> Ruling {
        self.misbehave().await;
        if self.deed == Deed::CallBack {
            let intruder = Register { username: Some("intruder".to_owned()), ..Register::new(PASSWORD) };
            let refused = self.accounts.register(intruder).await.unwrap_err();
            assert_eq!(refused.as_str(), "called_from_guard");
            assert!(request.user.iter().all(|user| self.accounts.user(user.id).unwrap().is_none()));
        }
        if self.deed == Deed::Reject { Ruling::deny("not_today") } else { Ruling::Allow }
    }
}

/// Registrations, logins right and wrong, and changes, by several at once: each answered as it has to be.
async fn serve(accounts: &Accounts, round: &str) -> Vec<UserId> {
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let (accounts, name) = (accounts.clone(), format!("{round}.{caller}"));
            tokio::spawn(async move { serve_one(&accounts, &name).await })
        })
        .collect();
    let mut users = Vec::new();
    for caller in callers {
        users.push(soon(caller).await.unwrap());
    }
    users
}

async fn serve_one(accounts: &Accounts, name: &str) -> UserId {
    let register = Register { username: Some(name.to_owned()), ..Register::new(PASSWORD) };
    let user = accounts.register(register).await.unwrap().user;
    for _ in 0..LOGINS {
        let session = accounts.authenticate(login(name)).await.unwrap();
        let (_, shown) = accounts.check_session(&session.token).unwrap().unwrap();
        assert_eq!((session.user, shown.id), (user, user));
    }
    let wrong = majordomo::Authenticate { password: Password::new("wrong, and long enough"), ..login(name) };
    assert_eq!(accounts.authenticate(wrong).await.unwrap_err().as_str(), "invalid_credentials");
    let display_name = format!("Name of {name}");
    let update = Update { display_name: Change::Set(display_name.clone()), ..Update::new(user) };
    let version = accounts.update(update).await.unwrap().version;
    let shown = accounts.user(user).unwrap().unwrap();
    assert!(shown.version >= version && shown.profile.display_name == Some(display_name));
    user
}

/// A system with these subscribers, and a neighbour who means no harm.
struct House {
    test: TestAccounts,
    guests: Vec<Guest>,
    neighbour: Recorder,
    gate: Gate,
}

impl House {
    async fn with(deeds: &[Deed]) -> Self {
        silence();
        let (test, gate, neighbour) = (TestAccounts::start().await, Gate::default(), Recorder::default());
        let guests: Vec<_> = deeds.iter().map(|deed| Guest::new(*deed, &gate, test.accounts())).collect();
        for guest in &guests {
            soon(test.add(guest.subscription())).await.unwrap();
        }
        soon(test.subscribe("neighbour", Filter::all(), Start::Beginning, neighbour.clone())).await.unwrap();
        Self { test, guests, neighbour, gate }
    }

    /// Whether the health names a guest, in one of these faults.
    async fn is_named(&self, guest: &Guest, fault: &str) {
        let named = async {
            loop {
                let health = self.test.health().await;
                assert!(health.live, "{health:?}");
                let names = |told: &HealthFault| match told {
                    HealthFault::SubscriptionQuarantined { name } | HealthFault::DeadLetters { name, .. } => {
                        told.as_str() == fault && *name == guest.name()
                    }
                    _ => false,
                };
                if health.faults.iter().any(names) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        soon(named).await;
    }

    /// What is left behind is counted, and the tree tells who did what.
    async fn judge(&self, guest: &Guest) {
        let (name, called) = (guest.name(), || guest.called.load(Ordering::SeqCst));
        let state = || async { soon(self.test.tree()).await.subscription(&name).unwrap().clone() };
        match guest.deed {
            // Whoever runs into deadlines may be taken for one who blocks, where the machine is slow.
            Deed::Hang | Deed::WaitForItself => {
                self.is_named(guest, "subscription_quarantined").await;
                let state = state().await;
                assert!(state.handled == 0 && state.failures > 0 && state.last_failure.is_some(), "{state:?}");
                assert!(state.given_up <= PATIENCE, "{state:?}");
            }
            deed if FAILING.contains(&deed) => {
                self.is_named(guest, "subscription_quarantined").await;
                self.is_named(guest, "dead_letters").await;
                let state = state().await;
                assert_eq!((state.status, state.given_up), (SubscriptionStatus::Quarantined, PATIENCE), "{state:?}");
                assert!(state.failures >= PATIENCE * u64::from(ATTEMPTS) && state.last_failure.is_some(), "{state:?}");
                assert_eq!((state.handled, self.test.dead_letter_count(&name).unwrap()), (0, PATIENCE));
            }
            Deed::Block => {
                self.is_named(guest, "subscription_quarantined").await;
                let state = state().await;
                assert!(state.restarts > 0 && state.last_failure.unwrap().failure.contains("blocked"));
                // It has as many threads to block as it is given, and no more.
                assert!((1..=5).contains(&called()), "{}", called());
            }
            Deed::Reject => {
                self.is_named(guest, "dead_letters").await;
                let state = state().await;
                assert!(self.test.dead_letter_count(&name).unwrap() > 0 && state.handled == 0, "{state:?}");
            }
            _ => {
                let state = state().await;
                let known = [SubscriptionStatus::CaughtUp, SubscriptionStatus::Working];
                assert!(state.failures == 0 && known.contains(&state.status), "{state:?}");
            }
        }
        let state = state().await;
        assert!(state.in_hand <= EFFECTS && state.gauge.queue_depth <= EFFECTS as u64, "{state:?}");
    }

    /// The log is lawful and has no more of anybody than it may.
    fn judge_log(&self) {
        assert_laws(&self.test);
        let (recorded, mut told) = (self.test.recorded(), HashSet::new());
        for envelope in &recorded {
            let once = match &envelope.signal {
                Signal::SubscriberRestarted { subscriber, signal, .. }
                | Signal::SubscriberDeadLetter { subscriber, signal, .. } => Some((subscriber, Some(*signal))),
                Signal::SubscriberQuarantined { subscriber, .. } => Some((subscriber, None)),
                _ => None,
            };
            let Some((subscriber, signal)) = once else { continue };
            assert!(told.insert((envelope.signal.kind(), subscriber.clone(), signal)), "told twice: {envelope:?}");
        }
        let flood = name(Deed::Flood);
        let emitted = recorded.iter().filter(|envelope| envelope.sender.as_str() == flood).count();
        let occasions = recorded.iter().filter(|envelope| envelope.signal.kind() == OCCASION).count();
        let floods = self.guests.iter().any(|guest| guest.deed == Deed::Flood);
        assert_eq!(emitted, if floods { occasions * EMITTED } else { 0 });
    }

    /// Serves everybody, and judges what came of it.
    async fn endure(self) {
        let mut users = serve(self.test.accounts(), "before").await;
        for _ in 0..1 {
            if self.guests.iter().any(|guest| guest.deed == Deed::Nothing) {
                soon(self.test.kill(&name(Deed::Nothing))).await;
            }
            users.extend(serve(self.test.accounts(), &format!("round{}", users.len())).await);
        }
        for guest in &self.guests {
            self.judge(guest).await;
        }
        soon(self.test.drain()).await;
        until(|| self.neighbour.places().len() as u64 == self.test.head()).await;
        assert_eq!(self.neighbour.places(), (1..=self.test.head()).collect::<Vec<_>>());
        self.judge_log();
        if let Some(guest) = self.guests.iter().find(|guest| guest.deed == Deed::CallBack) {
            assert!(users.iter().all(|user| guest.is_visitor(*user)));
        }
        let tree = soon(self.test.tree()).await;
        assert_eq!((tree.user_manager().unwrap().taken, tree.storage().unwrap().lost), (0, 0));
        assert!(soon(self.test.shutdown()).await, "in time, whoever blocks");
        self.gate.open();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn subscribers_that_panic_fail_hang_or_end_are_quarantined_alone_and_named() {
    let _turn = TURN.lock().await;
    for deed in FAILING {
        House::with(&[deed]).await.endure().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn subscribers_that_flood_allocate_reject_call_back_or_are_killed_disturb_nobody() {
    let _turn = TURN.lock().await;
    for deed in [Deed::Flood, Deed::Allocate, Deed::Reject, Deed::CallBack, Deed::Nothing] {
        House::with(&[deed]).await.endure().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_that_blocks_its_threads_is_quarantined_and_holds_up_neither_neighbours_nor_the_shutdown() {
    let _turn = TURN.lock().await;
    House::with(&[Deed::Block]).await.endure().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_hostile_subscribers_at_once_disturb_nobody() {
    let _turn = TURN.lock().await;
    let others = [Deed::Block, Deed::Flood, Deed::Allocate, Deed::CallBack, Deed::Nothing];
    House::with(&[&FAILING[..], &others].concat()).await.endure().await;
}

/// What guards may do to themselves; those that fail are left alone.
const GUARDS: [(Deed, bool); 10] = [
    (Deed::Panic, true),
    (Deed::Hang, true),
    (Deed::ThreadDies, true),
    (Deed::ChildPanics, true),
    (Deed::Cancelled, true),
    (Deed::BlockOn, true),
    (Deed::Block, true),
    (Deed::Allocate, false),
    (Deed::CallBack, false),
    (Deed::Nothing, false),
];

/// A handle that nobody uses before it is known: guards are given to the builder.
async fn guarded(deeds: &[(Deed, bool)], on_failure: FailMode, gate: &Gate) -> TestAccounts {
    silence();
    // Any system refuses to be asked from the thread of a guard.
    let other = TestAccounts::start().await;
    let guests = deeds.iter().map(|(deed, _)| Guest::new(*deed, gate, other.accounts()));
    let guards: Vec<_> = guests.map(|guest| guest.guard(on_failure)).collect();
    let add = |builder| guards.into_iter().fold(builder, majordomo::Builder::guard);
    soon(TestAccounts::with(crate::person::cheap(), add)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_guards_that_are_a_convenience_deny_nobody_and_are_left_alone_and_named() {
    let _turn = TURN.lock().await;
    let each = GUARDS.iter().map(std::slice::from_ref).chain([&GUARDS[..]]);
    for deeds in each {
        let gate = Gate::default();
        let test = guarded(deeds, FailMode::Open, &gate).await;
        let neighbour = Recorder::default();
        soon(test.subscribe("neighbour", Filter::all(), Start::Beginning, neighbour.clone())).await.unwrap();
        serve(test.accounts(), "guarded").await;
        let (tree, health) = (soon(test.tree()).await, soon(test.health()).await);
        for (guard, (deed, fails)) in tree.guards.iter().zip(deeds) {
            assert_eq!((guard.failed > 0, guard.open), (*fails, *fails), "{deed:?}: {guard:?}");
            assert!(guard.threads_abandoned <= 4 && guard.in_hand <= 64, "{guard:?}");
            let fault = HealthFault::GuardUnavailable { name: name(*deed) };
            assert_eq!(health.faults.contains(&fault), *fails, "{deed:?}: {health:?}");
        }
        soon(test.drain()).await;
        assert_eq!(neighbour.places(), (1..=test.head()).collect::<Vec<_>>());
        assert!(test.recorded().iter().all(|told| told.signal.kind() != SignalKind::GuardDenied));
        assert_laws(&test);
        assert!(soon(test.shutdown()).await, "in time, whoever blocks");
        gate.open();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_guards_that_are_a_protection_let_nobody_past_and_what_they_do_not_guard_goes_on() {
    let _turn = TURN.lock().await;
    for deeds in GUARDS.iter().filter(|(_, fails)| *fails).map(std::slice::from_ref) {
        let gate = Gate::default();
        let test = guarded(deeds, FailMode::Closed, &gate).await;
        for caller in 0..CALLERS {
            let register = Register { username: Some(format!("user{caller}")), ..Register::new(PASSWORD) };
            let refused = soon(test.register(register)).await.unwrap_err();
            assert_eq!(refused.as_str(), "guard_unavailable", "{deeds:?}");
            assert!(test.find_user(&format!("user{caller}")).unwrap().is_none());
        }
        let nobody = majordomo::Disable { user: UserId::new() };
        assert_eq!(soon(test.disable(nobody)).await.unwrap_err().as_str(), "user_not_found");
        soon(test.drain()).await;
        assert_laws(&test);
        assert!(soon(test.shutdown()).await);
        gate.open();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_guards_and_hostile_subscribers_at_once_disturb_nobody() {
    let _turn = TURN.lock().await;
    let gate = Gate::default();
    let test = guarded(&GUARDS, FailMode::Open, &gate).await;
    let deeds = FAILING.into_iter().chain([Deed::Block, Deed::Flood, Deed::Allocate, Deed::CallBack]);
    let guests: Vec<_> = deeds.map(|deed| Guest::new(deed, &gate, test.accounts())).collect();
    for guest in &guests {
        soon(test.add(guest.subscription())).await.unwrap();
    }
    let neighbour = Recorder::default();
    soon(test.subscribe("neighbour", Filter::all(), Start::Beginning, neighbour.clone())).await.unwrap();
    for round in 0..3 {
        serve(test.accounts(), &format!("round{round}")).await;
    }
    let house = House { test, guests, neighbour, gate };
    house.endure().await;
}

// The soak.

/// Panics until it is told to behave.
#[derive(Clone, Default)]
struct Bomb {
    panics: Arc<AtomicU64>,
    behaves: Arc<AtomicBool>,
}

impl Subscriber for Bomb {
    async fn handle(&self, _envelope: &Envelope, _context: &SubscriberContext) -> Outcome {
        if self.behaves.load(Ordering::SeqCst) {
            return Outcome::done();
        }
        self.panics.fetch_add(1, Ordering::SeqCst);
        panic!("on purpose");
    }
}

/// Resident memory in KiB, and threads; nothing where the system does not tell.
fn footprint() -> Option<(u64, usize)> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some((pages * 4, std::fs::read_dir("/proc/self/task").ok()?.count()))
}

/// `PANICS=1000000 cargo test --release --test it chaos::soak -- --nocapture` prints the figures of the long one.
#[tokio::test(flavor = "multi_thread")]
async fn soak_panics_without_end_cost_neither_threads_nor_signals_and_logins_go_on() {
    let _turn = TURN.lock().await;
    const LANES: usize = 64;
    silence();
    let wanted = std::env::var("PANICS").map_or(20_000, |text| text.parse::<u64>().unwrap());
    let test = TestAccounts::start().await;
    for lane in 0..LANES {
        let register = Register { username: Some(format!("user{lane}")), ..Register::new(PASSWORD) };
        soon(test.register(register)).await.unwrap();
    }
    soon(test.drain()).await;
    let bomb = Bomb::default();
    let retry = RetryPolicy { attempts: None, first: Duration::ZERO, cap: Duration::ZERO, ..RetryPolicy::default() };
    let subscription = Subscription::new("hostile-bomb", bomb.clone())
        .filter(Filter::kinds([SignalKind::UserRegistered]))
        .start(Start::Beginning)
        .concurrency(LANES)
        .retry(retry);
    soon(test.add(subscription)).await.unwrap();
    let panics = || bomb.panics.load(Ordering::SeqCst);
    // Everything there is to warm up is warm.
    until(|| panics() >= wanted / 10).await;
    let before = footprint();
    let mut logins = 0_usize;
    while panics() < wanted {
        let session = soon(test.authenticate(login(&format!("user{}", logins % LANES)))).await.unwrap();
        assert!(test.check_session(&session.token).unwrap().is_some());
        logins += 1;
        let next = panics() + 1_000;
        until(|| panics() >= next.min(wanted)).await;
    }
    let (after, panics) = (footprint(), panics());
    println!(
        "soak: panics {panics}, logins meanwhile {logins}, (resident KiB, threads) {before:?} before, {after:?} after"
    );
    let told = test.recorded();
    let restarts = told.iter().filter(|told| told.signal.kind() == SignalKind::SubscriberRestarted).count();
    assert_eq!(restarts, LANES, "told once a signal");
    bomb.behaves.store(true, Ordering::SeqCst);
    soon(test.drain()).await;
    let state = soon(test.tree()).await.subscription("hostile-bomb").unwrap().clone();
    assert_eq!((state.handled, state.given_up, state.failures), (LANES as u64, 0, bomb.panics.load(Ordering::SeqCst)));
    assert_laws(&test);
    assert!(soon(test.shutdown()).await);
}
