//! What subscriptions promise, on an in-memory store, with subscribers that fail in every way.

mod halting;
mod script;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use majordomo_model::{
    Actor, Channel, ContactId, Context, Envelope, Failure, Filter, FlowId, Lane, OnFailure, RetryPolicy, Signal,
    SignalId, SignalKind, Start, SystemId, Timestamp, TokenId, TokenPurpose, UserId,
};
use ractor::{ActorCell, ActorRef};
use tokio::sync::mpsc;

use super::*;
use crate::address::Address;
use crate::keys::Keyring;
use crate::stamp::Stamp;
use crate::storage::{
    Batch, Committed, ContactRow, DeliveryState, FaultyDisk, Location, MemoryDisk, StorageSettings, TokenRow,
    UniqueKey, UserRow, Verdict, Write,
};
use crate::subscriber::{Capability, Claim, Delivery, Effect, Outcome, Subscriber, SubscriberContext, Unanswered};
use crate::supervision::{Limits, Plan, SupervisorMessage, spawn_supervisor};
use crate::token::Binding;

const CODE_LIFETIME: Duration = Duration::from_secs(600);
const NOW: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

fn patient() -> Limits {
    Limits { restarts: 10_000, back_off_max: Duration::from_millis(100), ..Limits::default() }
}

/// A system of storage and outbox, without flows.
struct System {
    storage: Storage,
    outbox: Outbox,
    clock: Clock,
    supervisors: Vec<ActorRef<SupervisorMessage>>,
}

impl System {
    async fn on(location: Location, keys: &Keyring) -> Self {
        Self::with(location, StorageSettings::default(), keys).await
    }

    async fn with(location: Location, settings: StorageSettings, keys: &Keyring) -> Self {
        let (clock, doorbell) = (Clock::manual(NOW), Doorbell::new(SystemId::new()));
        let bell = doorbell.clone();
        let ring = Arc::new(move |_: &Committed<'_>| bell.ring());
        let storage = Storage::open(location, settings, keys, clock.clone(), ring).unwrap();
        let outbox = Outbox::new(storage.clone(), Tokens::new(keys.clone()), clock.clone(), doorbell, CODE_LIFETIME);
        let mut system = Self { storage: storage.clone(), outbox, clock, supervisors: Vec::new() };
        let child = Child::new("storage", move |supervisor| {
            let storage = storage.clone();
            async move { storage.start(supervisor).await }
        });
        system.supervise(child).await;
        system
    }

    async fn new() -> Self {
        Self::on(Location::Memory(MemoryDisk::new()), &Keyring::ephemeral().unwrap()).await
    }

    /// Runs a child under a supervisor of its own, and answers where that one stands.
    async fn supervise(&mut self, child: Child) -> usize {
        let (supervisor, _) = spawn_supervisor(Plan::new(patient()).child(child), None).await.unwrap();
        // It answers only after it has tried to start the child.
        let (address, binder) = Address::new(1);
        binder.bind(supervisor.clone());
        address.ask(None, SupervisorMessage::Observe).await.unwrap();
        self.supervisors.push(supervisor);
        self.supervisors.len() - 1
    }

    async fn subscribe(&mut self, registration: Subscription) -> usize {
        let child = self.outbox.register(registration).unwrap();
        self.supervise(child).await
    }

    /// Ends the actor under a supervisor without any ceremony; one that is being started, once it is.
    async fn kill(&self, supervisor: usize) {
        let children = || self.supervisors[supervisor].get_children();
        until(|| !children().is_empty()).await;
        for actor in children() {
            actor.kill();
            actor.wait(None).await.unwrap();
        }
    }

    async fn stop(self) {
        for supervisor in self.supervisors.iter().rev() {
            let cell: ActorCell = supervisor.get_cell();
            cell.stop(None);
            cell.wait(None).await.unwrap();
        }
        self.storage.close();
        tokio::task::spawn_blocking(move || self.storage.release()).await.unwrap();
    }

    /// Commits signals, and answers the place of the first.
    async fn tell(&self, signals: Vec<Envelope>) -> u64 {
        match self.storage.commit(batch(vec![], signals)).await.unwrap() {
            Verdict::Committed(first) => first,
            other => panic!("{other:?}"),
        }
    }

    async fn write(&self, writes: Vec<Write>) {
        self.storage.commit(batch(writes, vec![])).await.unwrap();
    }

    fn log(&self) -> Vec<Envelope> {
        self.storage.reader().signals_after(0, 100_000).unwrap()
    }

    fn named(&self, name: &str) -> SubscriptionState {
        self.outbox.state().into_iter().find(|state| state.name == name).unwrap()
    }
}

fn batch(writes: Vec<Write>, signals: Vec<Envelope>) -> Batch {
    Batch { flow: FlowId::new(), outcome: None, checks: vec![], writes, signals }
}

fn stamped(user: UserId, signal: Signal) -> Envelope {
    let stamp = Stamp {
        flow: FlowId::new(),
        cause: None,
        lane: Lane::User(user),
        actor: Actor::System,
        context: Context::new(),
    };
    stamp.envelope(SignalId::new(), NOW, signal, None)
}

fn update() -> Envelope {
    let user = UserId::new();
    stamped(user, Signal::UserUpdateStarted { user, fields: vec![] })
}

fn deletion() -> Envelope {
    let user = UserId::new();
    stamped(user, Signal::UserDeletionStarted { user })
}

fn updates() -> Filter {
    Filter::kinds([SignalKind::UserUpdateStarted])
}

/// What a scripted subscriber does with a signal.
enum Act {
    Answer(Outcome),
    Panic,
    Hang,
}

type Play = Box<dyn Fn(&Envelope, &SubscriberContext) -> Act + Send + Sync>;

/// Tells the place and the attempt of each signal, then does what its play says.
struct Scripted {
    told: mpsc::UnboundedSender<(u64, u32)>,
    play: Play,
}

impl Subscriber for Scripted {
    async fn handle(&self, envelope: &Envelope, context: &SubscriberContext) -> Outcome {
        let act = (self.play)(envelope, context);
        self.told.send((envelope.seq.unwrap(), context.attempt())).unwrap();
        match act {
            Act::Answer(outcome) => outcome,
            Act::Panic => panic!("on request"),
            Act::Hang => std::future::pending().await,
        }
    }
}

type Told = mpsc::UnboundedReceiver<(u64, u32)>;

fn scripted(
    name: &str,
    filter: Filter,
    play: impl Fn(&Envelope, &SubscriberContext) -> Act + Send + Sync + 'static,
) -> (Subscription, Told) {
    let (told, heard) = mpsc::unbounded_channel();
    let subscriber = Arc::new(Scripted { told, play: Box::new(play) });
    let (name, start) = (name.to_owned(), Start::Beginning);
    (
        Subscription {
            name,
            filter,
            start,
            capabilities: vec![],
            subscriber,
            settings: SubscriptionSettings { retry: prompt(), ..SubscriptionSettings::default() },
        },
        heard,
    )
}

/// Tries again after next to no pause.
fn prompt() -> RetryPolicy {
    let pause = Duration::from_millis(1);
    RetryPolicy { first: pause, cap: pause, ..RetryPolicy::default() }
}

fn done(_: &Envelope, _: &SubscriberContext) -> Act {
    Act::Answer(Outcome::done())
}

fn heard_now(told: &mut Told) -> Vec<(u64, u32)> {
    std::iter::from_fn(|| told.try_recv().ok()).collect()
}

/// Waits, but not for ever.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("it never happened")
}

/// Looks again and again until it is so.
async fn until(condition: impl Fn() -> bool) {
    soon(async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_signal_that_passes_is_handed_over_once_and_in_order() {
    let mut system = System::new().await;
    let (registration, mut told) = scripted("audit", updates(), done);
    system.subscribe(registration).await;
    for _ in 0..300 {
        system.tell(vec![update(), deletion(), update()]).await;
    }
    soon(system.outbox.drained(900)).await.unwrap();
    let expected: Vec<_> = (1..=900).filter(|seq| seq % 3 != 2).map(|seq| (seq, 1)).collect();
    assert_eq!(heard_now(&mut told), expected);
    let state = system.named("audit");
    assert_eq!((state.floor, state.head, state.lag, state.handled, state.failures), (900, 900, 0, 600, 0));
    assert_eq!(serde_json::to_value(&state).unwrap()["attempts_on_current"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_later_sees_the_past_from_the_beginning_and_not_from_now() {
    let mut system = System::new().await;
    system.tell(vec![update(), update()]).await;
    let (past, mut past_told) = scripted("past", Filter::all(), done);
    let (present, mut present_told) = scripted("present", Filter::all(), done);
    system.subscribe(past).await;
    system.subscribe(Subscription { start: Start::Now, ..present }).await;
    system.tell(vec![update()]).await;
    soon(system.outbox.drained(3)).await.unwrap();
    assert_eq!(heard_now(&mut past_told), [(1, 1), (2, 1), (3, 1)]);
    assert_eq!(heard_now(&mut present_told), [(3, 1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_actor_and_a_restarted_store_leave_no_gap() {
    let (disk, keys) = (MemoryDisk::new(), Keyring::ephemeral().unwrap());
    let mut seen = Vec::new();
    for round in 0..3_u64 {
        let mut system = System::on(Location::Memory(disk.clone()), &keys).await;
        // Begins at "now" the first time only: what is told while it is down is not lost to it.
        system.tell(vec![update()]).await;
        let (registration, mut told) = scripted("audit", Filter::all(), done);
        let actor = system.subscribe(Subscription { start: Start::Now, ..registration }).await;
        for _ in 0..20 {
            system.tell(vec![update()]).await;
            system.kill(actor).await;
        }
        soon(system.outbox.drained(21 * (round + 1))).await.unwrap();
        seen.extend(heard_now(&mut told).into_iter().map(|(seq, _)| seq));
        system.stop().await;
    }
    let mut distinct = seen.clone();
    distinct.dedup();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct, (2..=63).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn panics_and_retries_skip_nothing_and_disturb_nobody() {
    let mut system = System::new().await;
    let (troubled, mut told) =
        scripted("troubled", updates(), |envelope, context| match (envelope.seq.unwrap(), context.attempt()) {
            (2, 1..=3) => Act::Panic,
            (4, 1..=5) => Act::Answer(Outcome::retry("not yet")),
            _ => Act::Answer(Outcome::done()),
        });
    let (neighbour, mut neighbour_told) = scripted("neighbour", updates(), done);
    system.subscribe(troubled.on_failure(OnFailure::StallAll)).await;
    system.subscribe(neighbour).await;
    system.tell((0..5).map(|_| update()).collect()).await;
    soon(system.outbox.drained(5)).await.unwrap();
    let expected =
        [(1, 1), (2, 1), (2, 2), (2, 3), (2, 4), (3, 1), (4, 1), (4, 2), (4, 3), (4, 4), (4, 5), (4, 6), (5, 1)];
    assert_eq!(heard_now(&mut told), expected);
    assert_eq!(heard_now(&mut neighbour_told), [(1, 1), (2, 1), (3, 1), (4, 1), (5, 1)]);
    let state = system.named("troubled");
    assert_eq!(
        (state.handled, state.failures, state.last_failure.map(|last| last.failure).as_deref()),
        (5, 8, Some("not yet"))
    );

    let log = system.log();
    let restarts: Vec<_> = log.iter().filter(|told| told.signal.kind() == SignalKind::SubscriberRestarted).collect();
    let [restart] = restarts.as_slice() else { panic!("{restarts:?}") };
    assert_eq!((restart.lane, restart.sender.as_str()), (Lane::Flow(restart.flow), "system"));
    let Signal::SubscriberRestarted { subscriber, signal, failure } = &restart.signal else { panic!() };
    assert_eq!((subscriber.as_str(), *signal, failure.as_str()), ("troubled", log[1].id, "the handler panicked"));
}

/// Emits a follow-up of every third signal, and counts all of them in its projection.
fn counting(envelope: &Envelope, context: &SubscriberContext) -> Act {
    let count = context.projection(b"count").unwrap().map_or(0, |bytes| u64::from_be_bytes(bytes.try_into().unwrap()));
    let value = (count + 1).to_be_bytes().to_vec();
    let mut effects = vec![Effect::Project { key: b"count".to_vec(), value }];
    if envelope.seq.unwrap().is_multiple_of(3) {
        effects.push(Effect::Emit(Box::new(Signal::UserDeletionStarted { user: envelope.signal.user().unwrap() })));
    }
    Act::Answer(Outcome::Done(effects))
}

fn count(system: &System) -> u64 {
    let bytes = system.storage.reader().projected("counter", b"count").unwrap().unwrap();
    u64::from_be_bytes(bytes.try_into().unwrap())
}

/// Every update has its follow-up exactly once if it should, and is counted exactly once.
fn assert_exactly_once(system: &System) {
    let log = system.log();
    let updates: Vec<_> = log.iter().filter(|told| told.signal.kind() == SignalKind::UserUpdateStarted).collect();
    let mut follow_ups = BTreeMap::<FlowId, u32>::new();
    for told in log.iter().filter(|told| told.sender.as_str() == "counter") {
        *follow_ups.entry(told.cause.unwrap()).or_default() += 1;
    }
    let due: BTreeMap<_, _> =
        updates.iter().filter(|told| told.seq.unwrap().is_multiple_of(3)).map(|told| (told.flow, 1)).collect();
    assert_eq!(follow_ups, due);
    assert_eq!(count(system), updates.len() as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn effects_are_exactly_once_though_actors_are_killed() {
    let mut system = System::new().await;
    let calls = AtomicU32::new(0);
    let (registration, mut told) = scripted("counter", updates(), move |envelope, context| {
        // Every seventh call never comes back.
        if calls.fetch_add(1, Ordering::SeqCst) % 7 == 6 { Act::Hang } else { counting(envelope, context) }
    });
    let actor = system.subscribe(registration).await;
    system.tell((0..40).map(|_| update()).collect()).await;
    let mut calls = 0_u32;
    while system.named("counter").floor < system.storage.reader().head().unwrap() {
        let Ok(heard) = tokio::time::timeout(Duration::from_secs(1), told.recv()).await else { continue };
        assert!(heard.is_some());
        calls += 1;
        if calls.is_multiple_of(7) {
            // Now and then the store dies as well, with all that was left to it for later.
            if calls.is_multiple_of(21) {
                system.kill(0).await;
            }
            system.kill(actor).await;
        }
    }
    system.storage.flush().await;
    assert_exactly_once(&system);
    assert!(calls > 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn effects_are_exactly_once_though_the_disk_fails() {
    let disk = FaultyDisk::new(Arc::new(MemoryDisk::new())).unwrap();
    let mut system = System::on(Location::Disk(Arc::new(disk.clone())), &Keyring::ephemeral().unwrap()).await;
    let changes_left = Arc::new(Mutex::new(None));
    let (registration, _told) = scripted("counter", updates(), {
        let (disk, changes_left) = (disk.clone(), Arc::clone(&changes_left));
        move |envelope, context| {
            if envelope.seq.unwrap().is_multiple_of(3)
                && let Some(changes) = changes_left.lock().unwrap().take()
            {
                disk.cut_power_after(changes);
            }
            counting(envelope, context)
        }
    });
    let actor = system.subscribe(registration).await;
    // Each round, the commit that follows upon handling comes a bit further.
    for changes in 0..24 {
        *changes_left.lock().unwrap() = Some(changes);
        let first = system.tell((0..3).map(|_| update()).collect()).await;
        let emitting = first.next_multiple_of(3);
        let stored = || system.storage.reader().cursor("counter").is_ok_and(|row| row.unwrap().floor() >= emitting);
        until(|| !system.storage.observe().available || stored()).await;
        // The commit that met the fault may have been made or not: nobody was told.
        if changes % 2 == 0 {
            system.kill(actor).await;
        }
        disk.heal();
        until(|| system.storage.observe().available).await;
        soon(system.storage.flush()).await;
        soon(system.outbox.drained(0)).await.unwrap();
    }
    system.storage.flush().await;
    assert_exactly_once(&system);
    assert!(system.storage.observe().reopenings > 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_hands_over_nothing_again_that_was_handled() {
    const SIGNALS: u64 = 3_000;
    for fails_at in [100, 129, 700, 1_500] {
        let disk = FaultyDisk::new(Arc::new(MemoryDisk::new())).unwrap();
        let mut system = System::on(Location::Disk(Arc::new(disk.clone())), &Keyring::ephemeral().unwrap()).await;
        system.tell((0..SIGNALS).map(|_| update()).collect()).await;
        let (registration, mut told) = scripted("books", updates(), {
            let (disk, storage) = (disk.clone(), system.storage.clone());
            let runtime = tokio::runtime::Handle::current();
            move |envelope, context| {
                if envelope.seq == Some(fails_at) {
                    disk.fail_all(std::io::ErrorKind::Other);
                    // Somebody else finds it out, so that what comes of this turn is refused at once.
                    let finding = storage.clone();
                    runtime.spawn(async move { finding.commit(batch(vec![], vec![deletion()])).await });
                    while storage.is_available() {
                        std::thread::yield_now();
                    }
                }
                done(envelope, context)
            }
        });
        system.subscribe(registration).await;
        until(|| !system.storage.is_available()).await;
        // Long enough for what is refused to be sent again in vain.
        tokio::time::sleep(Duration::from_millis(300)).await;
        disk.heal();
        until(|| system.storage.is_available()).await;
        soon(system.outbox.drained(0)).await.unwrap();
        assert!(heard_now(&mut told).into_iter().eq((1..=SIGNALS).map(|seq| (seq, 1))), "{fails_at}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn handlers_that_wait_go_on_beside_a_backlog_of_others_however_often_the_bell_is_rung() {
    const OTHERS: u64 = 4_000;
    let mut system = System::new().await;
    let waiting = deletion();
    let others = (0..OTHERS).map(|_| update());
    system.tell(std::iter::once(waiting).chain(others).collect()).await;
    let (bell, handled) = (system.outbox.shared.doorbell.clone(), Arc::new(AtomicU64::new(0)));
    struct Mixed {
        bell: Doorbell,
        handled: Arc<AtomicU64>,
        meanwhile: Arc<AtomicU64>,
    }
    impl Subscriber for Mixed {
        async fn handle(&self, envelope: &Envelope, _: &SubscriberContext) -> Outcome {
            if envelope.signal.kind() == SignalKind::UserDeletionStarted {
                for _ in 0..3 {
                    tokio::task::yield_now().await;
                }
                self.meanwhile.store(self.handled.load(Ordering::SeqCst), Ordering::SeqCst);
            } else {
                let begun = std::time::Instant::now();
                while begun.elapsed() < Duration::from_micros(50) {
                    std::hint::spin_loop();
                }
                self.handled.fetch_add(1, Ordering::SeqCst);
                self.bell.ring();
            }
            Outcome::done()
        }
    }
    let meanwhile = Arc::new(AtomicU64::new(u64::MAX));
    let mixed = Mixed { bell, handled: Arc::clone(&handled), meanwhile: Arc::clone(&meanwhile) };
    system.subscribe(Subscription::new("mixed", mixed).start(Start::Beginning).concurrency(64)).await;
    soon(system.outbox.drained(0)).await.unwrap();
    let (meanwhile, handled) = (meanwhile.load(Ordering::SeqCst), handled.load(Ordering::SeqCst));
    assert_eq!(handled, OTHERS);
    assert!(meanwhile < OTHERS / 2, "{meanwhile} were handled before it could go on");
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_waits_for_follow_ups_of_follow_ups() {
    let mut system = System::new().await;
    let emit = |signal: fn(UserId) -> Signal| {
        move |envelope: &Envelope, _: &SubscriberContext| {
            Act::Answer(Outcome::Done(vec![Effect::Emit(Box::new(signal(envelope.signal.user().unwrap())))]))
        }
    };
    let (first, _first_told) = scripted("first", updates(), emit(|user| Signal::UserDeletionStarted { user }));
    let kinds = Filter::kinds([SignalKind::UserDeletionStarted]);
    let (second, _second_told) = scripted("second", kinds, emit(|user| Signal::SessionsEndStarted { user }));
    let kinds = Filter::kinds([SignalKind::SessionsEndStarted]);
    let (third, mut third_told) = scripted("third", kinds, done);
    for registration in [third, second, first] {
        system.subscribe(registration).await;
    }
    system.tell(vec![update()]).await;
    soon(system.outbox.drained(1)).await.unwrap();
    assert_eq!(heard_now(&mut third_told), [(3, 1)]);
    let log = system.log();
    assert_eq!([log[1].cause, log[2].cause], [Some(log[0].flow), Some(log[1].flow)]);
    assert!(log.iter().all(|told| told.lane == log[0].lane));
    assert_eq!([log[1].sender.as_str(), log[2].sender.as_str()], ["first", "second"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn effects_beyond_the_limits_are_refused() {
    let mut system = System::new().await;
    let effect = |attempt: u32| match attempt {
        1 => Effect::Delivered(TokenId::new()),
        2 => Effect::DeliveryFailed(TokenId::new(), Failure::Expired),
        3 => Effect::Project { key: vec![], value: vec![] },
        4 => Effect::Project { key: vec![0; 513], value: vec![] },
        5 => Effect::Project { key: vec![0], value: vec![0; 64 * 1_024 + 1] },
        _ => Effect::Project { key: vec![0; 512], value: vec![0; 64 * 1_024] },
    };
    let (registration, mut told) = scripted("greedy", updates(), move |_, context| {
        assert!(matches!(context.delivery(TokenId::new()), Err(Unanswered::NotGranted)));
        Act::Answer(Outcome::Done(vec![effect(context.attempt())]))
    });
    system.subscribe(registration).await;
    system.tell(vec![update()]).await;
    soon(system.outbox.drained(1)).await.unwrap();
    assert_eq!(heard_now(&mut told), [(1, 1), (1, 2), (1, 3), (1, 4), (1, 5), (1, 6)]);
    assert_eq!(system.named("greedy").failures, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_a_hung_handler() {
    struct Hung(Arc<AtomicU64>, mpsc::UnboundedSender<()>);
    struct Ended(Arc<AtomicU64>);
    impl Drop for Ended {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    impl Subscriber for Hung {
        async fn handle(&self, _: &Envelope, _: &SubscriberContext) -> Outcome {
            let _ended = Ended(Arc::clone(&self.0));
            self.1.send(()).unwrap();
            std::future::pending().await
        }
    }
    let mut system = System::new().await;
    let ((began, mut beginning), ended) = (mpsc::unbounded_channel(), Arc::<AtomicU64>::default());
    let subscriber = Arc::new(Hung(Arc::clone(&ended), began));
    let (registration, _) = scripted("hung", Filter::all(), done);
    system.subscribe(Subscription { subscriber, ..registration }).await;
    system.tell(vec![update()]).await;
    soon(beginning.recv()).await.unwrap();
    soon(system.stop()).await;
    until(|| ended.load(Ordering::SeqCst) == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_handler_that_blocks_its_thread_stalls_nobody_else() {
    let mut system = System::new().await;
    let (go, gate) = std::sync::mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let (blocking, mut blocking_told) = scripted("blocking", updates(), move |_, _| {
        gate.lock().unwrap().recv().unwrap();
        Act::Answer(Outcome::done())
    });
    let (neighbour, mut neighbour_told) = scripted("neighbour", updates(), done);
    system.subscribe(blocking).await;
    system.subscribe(neighbour).await;
    system.tell(vec![update(), update()]).await;
    assert_eq!(neighbour_told.recv().await, Some((1, 1)));
    assert_eq!(neighbour_told.recv().await, Some((2, 1)));
    assert_eq!(heard_now(&mut blocking_told), []);
    go.send(()).unwrap();
    go.send(()).unwrap();
    assert_eq!(blocking_told.recv().await, Some((1, 1)));
}

thread_local! {
    /// Dropped when the thread ends.
    static ON_THREAD: std::cell::RefCell<Option<mpsc::UnboundedSender<()>>> = const { std::cell::RefCell::new(None) };
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_was_left_behind_on_its_thread_goes_on_with_nothing() {
    let mut system = System::new().await;
    let (go, gate) = std::sync::mpsc::channel::<()>();
    let (on_thread, mut ended) = mpsc::unbounded_channel();
    let blocked = Mutex::new(Some((gate, on_thread)));
    let (registration, mut told) = scripted("counter", updates(), move |envelope, context| {
        let first = blocked.lock().unwrap().take();
        if let Some((gate, on_thread)) = first {
            ON_THREAD.set(Some(on_thread));
            gate.recv().unwrap();
        }
        counting(envelope, context)
    });
    system.subscribe(registration.deadline(Duration::from_millis(1))).await;
    system.tell((0..40).map(|_| update()).collect()).await;
    soon(system.outbox.drained(40)).await.unwrap();
    assert_eq!(heard_now(&mut told).len(), 40, "another thread goes on");
    go.send(()).unwrap();
    assert_eq!(soon(ended.recv()).await, None);
    assert_eq!(heard_now(&mut told).len(), 1, "it comes to no more than what it had in hand");
    soon(system.outbox.drained(40)).await.unwrap();
    system.storage.flush().await;
    assert_exactly_once(&system);
}

fn user_row(contact: ContactId) -> UserRow {
    let contacts = vec![ContactRow {
        id: contact,
        channel: Channel::Email,
        canonical: "ada@example.com".into(),
        original: "Ada@example.com".into(),
        revision: 3,
        proven_at: None,
        primary: true,
        added_at: NOW,
        replaces: None,
    }];
    UserRow { contacts, epoch: 5, ..UserRow::unknown(UserId::new(), NOW) }
}

fn token_row(user: &UserRow, purpose: TokenPurpose, binding: Binding, keys: &Keyring) -> TokenRow {
    TokenRow {
        id: TokenId::new(),
        purpose,
        user: Some(user.id),
        address: user.contacts[0].canonical.clone(),
        binding,
        key: keys.current(),
        created_at: NOW,
        expires_at: NOW.plus(Duration::from_secs(3_600)),
        attempts: 0,
        end: None,
        delivery: FlowId::new(),
        delivered: DeliveryState::Pending,
        code_only: false,
    }
}

/// A system with one user whose address is being verified.
async fn with_token() -> (System, UserRow, TokenRow) {
    let keys = Keyring::ephemeral().unwrap();
    let system = System::on(Location::Memory(MemoryDisk::new()), &keys).await;
    let contact = ContactId::new();
    let user = user_row(contact);
    let binding = Binding::ContactRevision { contact, revision: 3 };
    let token = token_row(&user, TokenPurpose::VerifyEmail, binding, &keys);
    system.write(vec![Write::PutUser(Box::new(user.clone())), Write::PutToken(Box::new(token.clone()))]).await;
    (system, user, token)
}

fn due(user: UserId, token: TokenId) -> Envelope {
    let address = majordomo_model::Personal::redacted_only("a***@e***.com");
    stamped(user, Signal::VerifyEmail { user, address, token })
}

fn notifier(name: &str, sends: impl Fn(TokenId) -> Effect + Send + Sync + 'static) -> (Subscription, Told) {
    let filter = Filter::kinds([SignalKind::VerifyEmail]);
    let (registration, told) = scripted(name, filter, move |envelope, context| {
        let Signal::VerifyEmail { token, .. } = &envelope.signal else { return Act::Panic };
        match context.delivery(*token) {
            Ok(Delivery::Ended) => Act::Answer(Outcome::done()),
            // Both effects name the same delivery, as one that is careless may.
            Ok(_) => Act::Answer(Outcome::Done(vec![sends(*token), Effect::Delivered(*token)])),
            Err(_) => Act::Panic,
        }
    });
    (Subscription { capabilities: vec![Capability::Deliver], ..registration }, told)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_ends_once_though_two_notifiers_try() {
    let (mut system, user, token) = with_token().await;
    let (one, _one_told) = notifier("one", Effect::Delivered);
    let (other, _other_told) = notifier("other", |token| Effect::DeliveryFailed(token, Failure::EmailSendFailed));
    system.subscribe(one).await;
    system.subscribe(other).await;
    system.tell(vec![due(user.id, token.id), due(user.id, token.id), due(user.id, token.id)]).await;
    soon(system.outbox.drained(3)).await.unwrap();
    let log = system.log();
    let ends: Vec<_> = log.iter().filter(|told| told.flow == token.delivery).collect();
    let [end] = ends.as_slice() else { panic!("{ends:?}") };
    assert_eq!((end.cause, end.lane), (Some(log[0].flow), Lane::User(user.id)));
    let delivered = system.storage.reader().token(token.id).unwrap().unwrap().delivered;
    match &end.signal {
        Signal::UserEmailVerificationInitiated { address, delivery, .. } => {
            assert_eq!((end.sender.as_str(), *delivery, delivered), ("one", token.delivery, DeliveryState::Sent));
            assert_eq!(address.expose(), Some("ada@example.com"));
            assert!(address.sealed().is_some());
        }
        Signal::UserEmailVerificationFailed { address, reason, .. } => {
            assert_eq!((end.sender.as_str(), *reason), ("other", Failure::EmailSendFailed));
            assert_eq!(
                (address.as_ref().unwrap().expose(), delivered),
                (Some("ada@example.com"), DeliveryState::Failed)
            );
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(system.outbox.state().iter().map(|state| state.handled).collect::<Vec<_>>(), [3, 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_desk_tells_how_a_token_stands() {
    let (mut system, user, token) = with_token().await;
    let (told, mut standings) = mpsc::unbounded_channel();
    let (registration, _told) = scripted("notifier", Filter::all(), move |envelope, context| {
        if let Signal::VerifyEmail { token, .. } = &envelope.signal {
            told.send(context.delivery(*token).unwrap()).unwrap();
        }
        Act::Answer(Outcome::done())
    });
    system.subscribe(Subscription { capabilities: vec![Capability::Deliver], ..registration }).await;

    system.tell(vec![due(user.id, token.id), due(user.id, TokenId::new())]).await;
    let Delivery::Live(message) = soon(standings.recv()).await.unwrap() else { panic!("not live") };
    assert!(message.path.as_ref().unwrap().expose().starts_with("/accounts/user_verification_confirm/"));
    assert_eq!((message.code.unwrap().expose().len(), message.address.canonical()), (6, "ada@example.com"));
    assert_eq!((message.delivery, message.expires_at), (token.delivery, token.expires_at));
    assert_eq!(message.code_expires_at, token.created_at.plus(CODE_LIFETIME));
    assert!(matches!(soon(standings.recv()).await, Some(Delivery::Superseded)), "no such token");

    let somebody = UniqueKey::address(Channel::Email, "ada@example.com");
    system.write(vec![Write::PutOwner(somebody.clone(), UserId::new())]).await;
    system.tell(vec![due(user.id, token.id)]).await;
    assert!(matches!(soon(standings.recv()).await, Some(Delivery::Superseded)), "proven by somebody else");

    system.write(vec![Write::RemoveOwner(somebody)]).await;
    system.clock.advance(Duration::from_secs(3_600));
    system.tell(vec![due(user.id, token.id)]).await;
    assert!(matches!(soon(standings.recv()).await, Some(Delivery::Expired)));
}

/// Claims the message of every signal, gives it up, and settles it; it tells whether it was granted the claim.
struct GivesUp(mpsc::UnboundedSender<Result<Claim, Unanswered>>);

impl Subscriber for GivesUp {
    async fn handle(&self, envelope: &Envelope, context: &SubscriberContext) -> Outcome {
        self.0.send(context.claim(envelope).await).unwrap();
        let (user, reason) = (envelope.signal.user().unwrap(), Failure::Expired);
        let failed = Signal::NotificationFailed {
            user,
            message: majordomo_model::MessageKind::PasswordChanged,
            signal: envelope.id,
            reason,
        };
        Outcome::Done(vec![Effect::Emit(Box::new(failed)), Effect::Settle])
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_became_of_a_message_is_told_once_though_two_settle_it() {
    let mut system = System::new().await;
    let (told, mut claims) = mpsc::unbounded_channel();
    for name in ["one", "other"] {
        let registration = Subscription::new(name, GivesUp(told.clone())).filter(updates()).start(Start::Beginning);
        system.subscribe(registration.capability(Capability::Deliver)).await;
    }
    system.tell((0..20).map(|_| update()).collect()).await;
    soon(system.outbox.drained(20)).await.unwrap();
    let log = system.log();
    let told: Vec<SignalId> = log
        .iter()
        .filter_map(|told| match told.signal {
            Signal::NotificationFailed { signal, .. } => Some(signal),
            _ => None,
        })
        .collect();
    assert_eq!((told.len(), told.iter().collect::<std::collections::BTreeSet<_>>().len()), (20, 20));
    let mut yours = 0;
    while let Ok(claim) = claims.try_recv() {
        yours += u32::from(claim == Ok(Claim::Yours));
    }
    assert_eq!(yours, 20, "a message is one subscription's only");
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_delivery_can_be_ended() {
    let (mut system, user, token) = with_token().await;
    system.clock.advance(Duration::from_secs(7_200));
    let (registration, _told) = notifier("notifier", |token| Effect::DeliveryFailed(token, Failure::Expired));
    system.subscribe(registration).await;
    system.tell(vec![due(user.id, token.id)]).await;
    soon(system.outbox.drained(1)).await.unwrap();
    let log = system.log();
    let Signal::UserEmailVerificationFailed { reason, .. } = &log[1].signal else { panic!("{:?}", log[1].signal) };
    assert_eq!(*reason, Failure::EmailSendFailed);
}

/// Tells how many signals it is handed at once.
struct Counting(mpsc::UnboundedSender<usize>);

impl Subscriber for Counting {
    async fn handle(&self, _: &Envelope, _: &SubscriberContext) -> Outcome {
        Outcome::done()
    }

    async fn handle_batch(&self, batch: &[Arc<Envelope>], _: &SubscriberContext) -> Vec<Outcome> {
        self.0.send(batch.len()).unwrap();
        batch.iter().map(|_| Outcome::done()).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_lingers_is_handed_at_once_what_came_meanwhile_unless_somebody_waits() {
    let mut system = System::new().await;
    let (told, mut heard) = mpsc::unbounded_channel();
    let lingering = Subscription::new("lingering", Counting(told)).batch(64).linger(LINGER_LIMIT);
    system.subscribe(lingering).await;
    soon(system.outbox.drained(0)).await.unwrap();
    for round in 1..4 {
        for _ in 0..round {
            system.tell(vec![update(), deletion()]).await;
        }
        soon(system.outbox.drained(0)).await.unwrap();
        assert_eq!(heard.try_recv(), Ok(2 * round));
        assert!(heard.try_recv().is_err());
    }
    let lingers = |linger| Subscription::new("late", Counting(mpsc::unbounded_channel().0)).linger(linger).check();
    let late = LINGER_LIMIT + Duration::from_nanos(1);
    assert_eq!((lingers(LINGER_LIMIT), lingers(late)), (Ok(()), Err(RegistrationError::InvalidLinger)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_while_it_lingered_is_handed_over_after_a_restart() {
    let (disk, keys) = (MemoryDisk::new(), Keyring::ephemeral().unwrap());
    let (told, mut heard) = mpsc::unbounded_channel();
    for run in 0..2 {
        let mut system = System::on(Location::Memory(disk.clone()), &keys).await;
        let lingering = Subscription::new("lingering", Counting(told.clone())).batch(64).linger(LINGER_LIMIT);
        system.subscribe(lingering).await;
        if run == 0 {
            system.tell(vec![update()]).await;
        }
        soon(system.stop()).await;
        assert_eq!(heard.try_recv().ok(), [None, Some(1)][run], "a stop ends the lingering and begins nothing");
    }
    assert!(heard.is_empty());
}

#[tokio::test]
async fn names_are_checked() {
    let system = System::new().await;
    let register = |name: &str| system.outbox.register(scripted(name, Filter::all(), done).0).err();
    for name in ["a", "notifier.email_1-x", &"n".repeat(64)] {
        assert_eq!(register(name), None);
        assert_eq!(register(name), Some(RegistrationError::NameTaken));
    }
    for name in ["", "Audit", "a b", "ä", "a/b", &"n".repeat(65)] {
        assert_eq!(register(name), Some(RegistrationError::InvalidName), "{name}");
    }
}
