//! Faults of the disk and of the mail: nothing answered is lost, nothing is told or sent that was not committed, and
//! the system works again by itself.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io::ErrorKind;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use majordomo::notifier::{CapturedOutbox, NotifierSettings, SendError};
use majordomo::ractor::{self, Actor, ActorProcessingErr, ActorRef};
use majordomo::testing::{BASE_URL, Counts, FaultyDisk, Operation, START, TestAccounts};
use majordomo::{
    Accounts, Answer, AuditQuery, Authenticate, Change, Channel, Claimant, Command, Config, ConfirmEmail, ConfirmPhone,
    Delete, Envelope, Error, Failure, Filter, FlowKind, HashParameters, Live, LogOut, LoggedIn, MessageKind,
    OneTimeCode, Outcome, Password, Proof, Question, Register, RequestEmailVerification, RequestPasswordReset,
    ResetPassword, SessionToken, Signal, SignalClass, SignalKind, Start, Subscriber, SubscriberContext, Unreadable,
    Update, UserId,
};

const PASSWORD: &str = "nine lanterns over a quiet harbour";
const NEW_PASSWORD: &str = "seventeen purple elephants";
const EMAIL: &str = "ada@example.com";
const PHONE: &str = "+447911123456";

/// Longer than anything here takes; a test that reaches it hangs.
const PATIENCE: Duration = Duration::from_secs(180);

/// Looks again and again until there is something to see.
pub(super) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(seen) = look().await {
                return seen;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, looking).await.unwrap_or_else(|_| panic!("it never happened: {what}"))
}

/// What every log must be like: gapless, no signal twice, and a flow that is told of has one start and one end, the
/// start before the end. A delivery may have no end yet.
pub(super) fn assert_lawful(log: &[Envelope]) {
    let first = log.first().and_then(|envelope| envelope.seq).unwrap_or(1);
    assert!(log.iter().map(|envelope| envelope.seq.unwrap()).eq((first..).take(log.len())), "the log has a gap");
    assert_eq!(
        log.iter().map(|envelope| envelope.id).collect::<HashSet<_>>().len(),
        log.len(),
        "a signal stands twice"
    );
    let mut flows: BTreeMap<_, Vec<SignalKind>> = BTreeMap::new();
    for envelope in log.iter().filter(|envelope| envelope.signal.kind().class() != SignalClass::Operation) {
        flows.entry(envelope.flow).or_default().push(envelope.signal.kind());
    }
    for (flow, kinds) in flows {
        let [kind] = kinds[0].starts() else { panic!("{flow} begins with {:?}", kinds[0]) };
        assert_eq!(kinds.iter().filter(|kind| !kind.starts().is_empty()).count(), 1, "{flow} starts twice: {kinds:?}");
        let ends = kinds.iter().filter(|signal| signal.ends().contains(kind)).count();
        let is_over = *kind != FlowKind::Delivery || kinds.len() > 1;
        assert_eq!(ends, usize::from(is_over), "{flow} does not end once: {kinds:?}");
        assert!(!is_over || kinds[kinds.len() - 1].ends().contains(kind), "{flow} goes on after its end: {kinds:?}");
    }
}

/// The users that the signals speak of as registered and not deleted.
pub(super) fn told_users(log: &[Envelope]) -> BTreeSet<UserId> {
    let mut users = BTreeSet::new();
    for envelope in log {
        match &envelope.signal {
            Signal::UserRegistered { user, .. } => assert!(users.insert(*user)),
            Signal::UserDeleted { user, .. } => assert!(users.remove(user)),
            _ => {}
        }
    }
    users
}

/// Rows and signals tell the same story, messages were sent for committed signals only, and what ends a delivery as
/// sent has its message.
async fn assert_consistent(test: &TestAccounts) {
    let log = test.recorded();
    assert_lawful(&log);
    let users = test.users(None, 1_000).await.unwrap();
    assert_eq!(users.iter().map(|user| user.id).collect::<BTreeSet<_>>(), told_users(&log));
    for user in &users {
        let updates = log.iter().filter_map(|envelope| match &envelope.signal {
            Signal::UserUpdated { user: of, version, .. } if *of == user.id => Some(*version),
            _ => None,
        });
        assert!(updates.max().is_none_or(|version| version <= user.version));
        let proven = user.contacts.iter().filter(|contact| contact.proven_at.is_some()).count();
        let kinds = test.kinds_of(user.id);
        let told =
            kinds.iter().filter(|kind| matches!(kind, SignalKind::UserEmailVerified | SignalKind::UserPhoneVerified));
        assert_eq!(proven, told.count(), "{kinds:?}");
    }
    let messages: HashMap<_, _> = test.messages().messages().iter().map(|message| (message.id, message.kind)).collect();
    for (id, kind) in &messages {
        assert!(log.iter().any(|envelope| envelope.id == *id), "a message {kind:?} for a signal that is not there");
    }
    for envelope in &log {
        if let Some(delivery) = delivered(&envelope.signal) {
            let due = log.iter().find(|due| due.flow == delivery).unwrap();
            assert!(due.seq < envelope.seq && messages.contains_key(&due.id), "{envelope:?}");
        }
    }
}

/// The delivery that a signal ends as accepted by the transport.
fn delivered(signal: &Signal) -> Option<majordomo::FlowId> {
    match signal {
        Signal::UserEmailVerificationInitiated { delivery, .. }
        | Signal::UserPhoneVerificationInitiated { delivery, .. }
        | Signal::PasswordResetRequestProcessed { delivery, .. } => Some(*delivery),
        _ => None,
    }
}

/// A durable subscriber that notes what it is handed, and what was told before its time.
#[derive(Clone, Default)]
struct Witness(Arc<Notes>);

#[derive(Default)]
struct Notes {
    handed: Mutex<Vec<Envelope>>,
    messages: OnceLock<CapturedOutbox>,
    premature: Mutex<Vec<String>>,
}

impl Witness {
    fn handed(&self) -> Vec<Envelope> {
        self.0.handed.lock().unwrap().clone()
    }
}

impl Subscriber for Witness {
    async fn handle(&self, envelope: &Envelope, _context: &SubscriberContext) -> Outcome {
        let mut handed = self.0.handed.lock().unwrap();
        if let Some(delivery) = delivered(&envelope.signal) {
            let due = handed.iter().find(|due| due.flow == delivery);
            let messages = self.0.messages.get().map(CapturedOutbox::messages).unwrap_or_default();
            if !due.is_some_and(|due| messages.iter().any(|message| message.id == due.id)) {
                self.0.premature.lock().unwrap().push(format!("{envelope:?}"));
            }
        }
        handed.push(envelope.clone());
        Outcome::done()
    }
}

/// A live subscriber that notes what it hears.
struct Ear;

type Heard = Arc<Mutex<Vec<Envelope>>>;

#[ractor::actor(message = Live, state = Heard, arguments = Heard)]
impl Ear {
    async fn pre_start(&self, _myself: ActorRef<Live>, heard: Heard) -> Result<Heard, ActorProcessingErr> {
        Ok(heard)
    }

    async fn handle(&self, _myself: ActorRef<Live>, live: Live, heard: &mut Heard) -> Result<(), ActorProcessingErr> {
        heard.lock().unwrap().push((*live.envelope).clone());
        Ok(())
    }
}

fn config() -> Config {
    let mut config = Config::default();
    config.hashing.parameters = HashParameters::cheap_for_tests();
    config.messages = Some(NotifierSettings::new("Example", BASE_URL));
    config
}

/// What a stubborn client learns while it goes through the whole life of a user, repeating under the same command id
/// whatever failed for now.
#[derive(Clone, Default)]
struct Story(Arc<StoryFacts>);

#[derive(Default)]
struct StoryFacts {
    /// How often a call was answered that storage is out.
    outages: AtomicU64,
    /// What was answered with `Ok`: the user and what must be so from then on.
    answered: Mutex<Vec<Answered>>,
}

/// A reply that was given.
#[derive(Clone)]
enum Answered {
    Registered(UserId),
    Proven(UserId, Channel),
    LoggedIn(LoggedIn),
    Renamed(UserId, u64),
    Replaced(UserId),
    Deleted(UserId),
}

impl Story {
    fn note(&self, answered: Answered) {
        self.0.answered.lock().unwrap().push(answered);
    }

    fn answered(&self) -> Vec<Answered> {
        self.0.answered.lock().unwrap().clone()
    }

    /// Asks until it is answered; storage being out is the only excuse.
    async fn insist<F: Question + Clone>(&self, accounts: &Accounts, message: F) -> F::Reply {
        let command = Command::new(message);
        until(F::KIND.as_str(), async || match accounts.ask(command.clone()).await {
            Ok(reply) => Some(reply),
            Err(Error::StorageUnavailable) => {
                self.0.outages.fetch_add(1, Ordering::Relaxed);
                None
            }
            Err(other) => panic!("{}: {other:?}", F::KIND.as_str()),
        })
        .await
    }

    /// From registration to deletion.
    async fn live(&self, accounts: &Accounts, messages: &CapturedOutbox) {
        let register = Register {
            username: Some("ada".into()),
            email: Some(EMAIL.into()),
            phone: Some(PHONE.into()),
            ..Register::new(PASSWORD)
        };
        let ada = self.insist(accounts, register).await;
        let user = ada.user;
        self.note(Answered::Registered(user));

        let link = self.message(messages, EMAIL, MessageKind::VerifyEmail).await;
        let proof = Proof::from_link(link.link().unwrap()).unwrap();
        self.insist(accounts, ConfirmEmail { proof }).await;
        self.note(Answered::Proven(user, Channel::Email));
        let code = self.message(messages, PHONE, MessageKind::VerifyPhone).await;
        let (challenge, code) = (ada.phone_challenge.unwrap(), OneTimeCode::new(code.code().unwrap()));
        self.insist(accounts, ConfirmPhone { proof: Proof::Code { challenge, code } }).await;
        self.note(Answered::Proven(user, Channel::Phone));

        let login = self.insist(accounts, sign_in("ada", PASSWORD)).await;
        self.note(Answered::LoggedIn(login));
        let update = Update { display_name: Change::Set("Ada".into()), ..Update::new(user) };
        let changed = self.insist(accounts, update).await;
        self.note(Answered::Renamed(user, changed.version));

        let request = RequestPasswordReset { identifier: EMAIL.into(), channel: Channel::Email };
        self.insist(accounts, request).await;
        let link = self.message(messages, EMAIL, MessageKind::ResetPasswordEmail).await;
        let proof = Proof::from_link(link.link().unwrap()).unwrap();
        self.insist(accounts, ResetPassword { proof, new: Password::new(NEW_PASSWORD) }).await;
        self.note(Answered::Replaced(user));
        let login = self.insist(accounts, sign_in(EMAIL, NEW_PASSWORD)).await;
        self.note(Answered::LoggedIn(login));

        let register = Register { username: Some("grace".into()), ..Register::new(PASSWORD) };
        let grace = self.insist(accounts, register).await;
        self.note(Answered::Registered(grace.user));
        let login = self.insist(accounts, sign_in("grace", PASSWORD)).await;
        self.note(Answered::LoggedIn(login));
        until("the end of every delivery", async || {
            let log = accounts.signals(0, 1_000).await.ok()?;
            let of_class = |class| log.iter().filter(|envelope| envelope.signal.kind().class() == class).count();
            (of_class(SignalClass::Delivery) >= 3).then_some(())
        })
        .await;
        self.insist(accounts, Delete::new(user)).await;
        self.note(Answered::Deleted(user));
    }

    async fn message(
        &self,
        messages: &CapturedOutbox,
        to: &str,
        kind: MessageKind,
    ) -> majordomo::notifier::CapturedMessage {
        let is_it = |message: &majordomo::notifier::CapturedMessage| message.to == to && message.kind == kind;
        until("the message", async || messages.messages().into_iter().rfind(is_it)).await
    }
}

fn sign_in(identifier: &str, password: &str) -> Authenticate {
    Authenticate { identifier: identifier.into(), password: Password::new(password) }
}

/// Whether everything that was answered is there. What was not answered may have been done too: then the log tells it.
fn assert_kept(test: &TestAccounts, answered: &[Answered]) {
    let log = test.recorded();
    let deleted =
        |id: &UserId| log.iter().any(|told| matches!(&told.signal, Signal::UserDeleted { user, .. } if user == id));
    for answer in answered {
        match answer {
            Answered::Registered(user) => assert_eq!(test.user(*user).unwrap().is_some(), !deleted(user)),
            Answered::Proven(user, channel) if !deleted(user) => {
                let user = test.user(*user).unwrap().unwrap();
                assert!(
                    user.contacts
                        .iter()
                        .any(|contact| { contact.address.channel() == *channel && contact.proven_at.is_some() })
                );
            }
            Answered::Renamed(user, version) if !deleted(user) => {
                let user = test.user(*user).unwrap().unwrap();
                assert!(user.version >= *version && user.profile.display_name.as_deref() == Some("Ada"));
            }
            Answered::LoggedIn(login) => {
                let told = |envelope: &Envelope| match &envelope.signal {
                    Signal::UserAuthenticated { session, .. } => *session == Some(login.session),
                    _ => false,
                };
                let place = log.iter().position(told).expect("a login without its signal");
                // A session ends with its user, and with the password that opened it.
                let over = log[place..].iter().any(|later| match &later.signal {
                    Signal::UserDeleted { user, .. } | Signal::PasswordResetSuccessful { user, .. } => {
                        *user == login.user
                    }
                    _ => false,
                });
                assert_eq!(test.check_session(&login.token).unwrap().is_none(), over);
            }
            Answered::Replaced(user) => assert!(test.kinds_of(*user).contains(&SignalKind::PasswordResetSuccessful)),
            Answered::Deleted(user) => assert!(deleted(user) && test.sessions(*user).unwrap().is_empty()),
            Answered::Proven(..) | Answered::Renamed(..) => {}
        }
    }
}

/// One run of the story on a disk that fails so, and everything that must be true of it. Answers how often the store
/// was opened again, and how often a caller was told of an outage.
async fn story_with(step: Step, calls: Option<Arc<Mutex<Counts>>>) -> Hit {
    let witness = Witness::default();
    let mut config = config();
    if step.uncached {
        // Every read reaches the disk.
        config.storage.engine.cache_bytes = 0;
    }
    let test = TestAccounts::with(config, |builder| {
        builder.subscriber("witness", Filter::all(), Start::Beginning, witness.clone())
    })
    .await;
    witness.0.messages.set(test.messages().clone()).ok().unwrap();
    let heard = Heard::default();
    let (ear, _) = Actor::spawn(None, Ear, Arc::clone(&heard)).await.unwrap();
    test.listen(&ear, Filter::all(), 100_000);
    let story = Story::default();
    (step.plan)(test.disk(), step.nth);
    let before = test.disk().counts();
    {
        let living = story.live(test.accounts(), test.messages());
        let watching = async {
            if step.mends {
                watch_the_outage(&test).await;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = living => {}
            () = watching => {}
        }
    }
    if let Some(calls) = calls {
        *calls.lock().unwrap() = test.disk().counts().since(before);
    }
    test.disk().heal();
    until("storage is back", async || {
        test.drain().await;
        test.signals(0, 1).await.ok()
    })
    .await;
    until("everything is handled", async || {
        test.drain().await;
        let tree = test.tree().await;
        let caught_up = tree.subscriptions().iter().all(|subscription| subscription.lag == 0);
        (caught_up && tree.storage().unwrap().available).then_some(())
    })
    .await;

    assert_told(&test, &story, &witness, &heard).await;
    let log = test.recorded();
    ear.stop(None);

    let hit = Hit { reopenings: test.storage_state().reopenings, outages: story.0.outages.load(Ordering::Relaxed) };
    let test = test.restart().await.unwrap();
    assert_kept(&test, &story.answered());
    let again = test.recorded();
    assert_eq!(serde_json::to_string(&again[..log.len()]).unwrap(), serde_json::to_string(&log).unwrap());
    test.shutdown().await;
    hit
}

/// Rows, log, witness and ear agree.
async fn assert_told(test: &TestAccounts, story: &Story, witness: &Witness, heard: &Heard) {
    assert_consistent(test).await;
    assert_kept(test, &story.answered());
    let log = test.recorded();
    let handed = witness.handed();
    assert!(witness.0.premature.lock().unwrap().is_empty(), "{:?}", witness.0.premature.lock().unwrap());
    let distinct: BTreeSet<_> = handed.iter().map(|envelope| (envelope.seq, envelope.id)).collect();
    assert!(distinct.into_iter().eq(log.iter().map(|envelope| (envelope.seq, envelope.id))), "the witness missed some");
    for heard in heard.lock().unwrap().iter().filter(|envelope| envelope.seq.is_some()) {
        assert!(log.iter().any(|envelope| (envelope.seq, envelope.id) == (heard.seq, heard.id)), "told, not committed");
    }
}

/// What a fault came to.
#[derive(Clone, Copy, Debug)]
struct Hit {
    reopenings: u64,
    outages: u64,
}

/// Waits for the outage, looks at what callers are told meanwhile, and mends the disk.
async fn watch_the_outage(test: &TestAccounts) {
    until("the outage", async || (!test.storage_state().available).then_some(())).await;
    assert_eq!(test.authenticate(sign_in("ada", PASSWORD)).await.unwrap_err(), Error::StorageUnavailable);
    assert_eq!(test.find_user("ada").unwrap_err(), Unreadable);
    let update = Update { display_name: Change::Set("Ada".into()), ..Update::new(UserId::new()) };
    assert_eq!(test.update(update).await.unwrap_err(), Error::StorageUnavailable, "never user_not_found");
    test.disk().heal();
}

/// What was covered, for whoever runs the tests with `--nocapture`.
#[allow(clippy::print_stdout, reason = "a test may tell what it covered")]
pub(super) fn report(covered: &str) {
    println!("{covered}");
}

/// Plans a fault for the nth call from now on.
pub(super) type Plan = fn(&FaultyDisk, u64);

/// A fault, and from which call of the disk on.
#[derive(Clone, Copy)]
struct Step {
    nth: u64,
    plan: Plan,
    /// Whether it lasts until callers were seen to be told of the outage.
    mends: bool,
    uncached: bool,
}

/// Every step, if the environment has `FAULTS=all`; else so many, spread over them by a fixed seed.
pub(super) fn steps(most: u64, sampled: u64) -> Vec<u64> {
    if std::env::var("FAULTS").is_ok_and(|which| which == "all") {
        return (1..=most).collect();
    }
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let count = sampled.min(most);
    let one_of = |part: u64| {
        let (from, end) = (most * part / count + 1, most * (part + 1) / count);
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        from + (seed >> 33) % (end - from + 1)
    };
    (0..count).map(one_of).collect()
}

/// How often the disk is asked in a run of the story without a fault.
async fn calls_of_a_story(uncached: bool) -> Counts {
    let calls = Arc::new(Mutex::new(Counts::default()));
    let none = Step { nth: 0, plan: |_, _| {}, mends: false, uncached };
    let hit = tokio::task::LocalSet::new().run_until(story_with(none, Some(Arc::clone(&calls)))).await;
    assert_eq!((hit.reopenings, hit.outages), (0, 0));
    *calls.lock().unwrap()
}

/// Runs the story once for each fault, a few at a time, and sees to it that most faults are met, or it shows nothing.
async fn stories(name: &str, of: u64, steps: Vec<Step>) {
    let telling = async {
        let mut running = tokio::task::JoinSet::new();
        let mut hits = Vec::new();
        for step in steps {
            if running.len() >= 8 {
                hits.push(running.join_next().await.unwrap().unwrap());
            }
            running.spawn_local(story_with(step, None));
        }
        hits.extend(running.join_all().await);
        hits
    };
    let hits = tokio::task::LocalSet::new().run_until(telling).await;
    let met = hits.iter().filter(|hit| hit.reopenings > 0).count();
    let outages = hits.iter().filter(|hit| hit.outages > 0).count();
    let steps = hits.len();
    report(&format!("{name}: {steps} of {of} steps, {met} faults met, callers told of an outage in {outages}"));
    assert!(met * 4 > hits.len() * 3, "{name}: {met} of {} faults were met", hits.len());
}

fn planned(nth: Vec<u64>, plan: Plan) -> Vec<Step> {
    nth.into_iter().map(|nth| Step { nth, plan, mends: false, uncached: false }).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn whichever_write_fails_or_tears_nothing_answered_is_lost_and_nothing_unwritten_is_told() {
    let most = calls_of_a_story(false).await.writes;
    let plan = |disk: &FaultyDisk, nth| match nth % 3 {
        0 => disk.fail_nth(Operation::Write, nth, ErrorKind::Other),
        1 => disk.fail_nth(Operation::Write, nth, ErrorKind::StorageFull),
        _ => disk.tear_nth_write(nth),
    };
    stories("a write fails, finds no room or tears", most, planned(steps(most, 30), plan)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_for_a_while_is_waited_for_whenever_that_is() {
    let most = calls_of_a_story(false).await.writes;
    let plan = |disk: &FaultyDisk, nth| {
        // It comes back for one write, as where others on the disk delete and write too.
        disk.fail_span(Operation::Write, nth, 2, ErrorKind::StorageFull);
        disk.fail_span(Operation::Write, nth + 3, 3, ErrorKind::StorageFull);
        disk.fail_span(Operation::SetLen, 1, 2, ErrorKind::StorageFull);
    };
    stories("the disk is full for a while", most, planned(steps(most, 12), plan)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whichever_sync_fails_nothing_answered_is_lost_and_nothing_unsynced_is_told() {
    let most = calls_of_a_story(false).await.syncs;
    let once = |disk: &FaultyDisk, nth| disk.fail_nth(Operation::Sync, nth, ErrorKind::Other);
    stories("a sync fails", most, planned(steps(most, 12), once)).await;
    // What heals it meets the next fault: reopening syncs too, and finds the store taken.
    let while_healing = |disk: &FaultyDisk, nth| {
        disk.fail_span(Operation::Sync, nth, 3, ErrorKind::Other);
        disk.fail_nth(Operation::Sync, nth + 4, ErrorKind::StorageFull);
        disk.fail_span(Operation::Claim, 2, 2, ErrorKind::Other);
    };
    stories("syncs fail, while healing too", most, planned(steps(most, 12), while_healing)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whichever_read_fails_nothing_is_denied_and_reading_works_again_by_itself() {
    let most = calls_of_a_story(true).await.reads;
    let uncached = |nth: Vec<u64>, plan: fn(&FaultyDisk, u64)| {
        planned(nth, plan).into_iter().map(|step| Step { uncached: true, ..step }).collect()
    };
    let once = |disk: &FaultyDisk, nth| disk.fail_nth(Operation::Read, nth, ErrorKind::Other);
    stories("a read fails", most, uncached(steps(most, 16), once)).await;
    let while_healing = |disk: &FaultyDisk, nth| disk.fail_span(Operation::Read, nth, 4, ErrorKind::Other);
    stories("reads fail, while healing too", most, uncached(steps(most, 12), while_healing)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_fault_lasts_callers_are_told_of_an_outage_and_the_rest_goes_on_after_it() {
    let (cached, uncached) = (calls_of_a_story(false).await, calls_of_a_story(true).await.reads);
    let lasting = |nth: Vec<u64>, plan: fn(&FaultyDisk, u64)| -> Vec<Step> {
        planned(nth, plan).into_iter().map(|step| Step { mends: true, ..step }).collect()
    };
    let changes = cached.writes + cached.syncs;
    let power = lasting(steps(changes, 20), |disk, nth| disk.cut_power_after(nth - 1));
    stories("the power is cut", changes, power).await;
    let sync = lasting(steps(cached.syncs, 6), |disk, nth| {
        disk.fail_span(Operation::Sync, nth, u64::MAX, ErrorKind::Other);
    });
    stories("no sync succeeds any more", cached.syncs, sync).await;
    let full = lasting(steps(cached.writes, 6), |disk, nth| {
        disk.fail_span(Operation::Write, nth, u64::MAX, ErrorKind::StorageFull);
    });
    stories("the disk is full", cached.writes, full).await;
    let read = lasting(steps(uncached, 8), |disk, nth| {
        disk.fail_span(Operation::Read, nth, u64::MAX, ErrorKind::Other);
    });
    let read = read.into_iter().map(|step| Step { uncached: true, ..step }).collect();
    stories("no read succeeds any more", uncached, read).await;
}

/// The story until the power is cut, and then what a crash at that moment would have left, once a seed.
async fn crash_after(changes: u64) {
    let test = TestAccounts::with(config(), |builder| builder).await;
    let heard = Heard::default();
    let (ear, _) = Actor::spawn(None, Ear, Arc::clone(&heard)).await.unwrap();
    test.listen(&ear, Filter::all(), 100_000);
    let story = Story::default();
    test.disk().cut_power_after(changes);
    tokio::select! {
        () = story.live(test.accounts(), test.messages()) => {}
        _ = until("the outage", async || (!test.storage_state().available).then_some(())) => {}
    }
    let (answered, messages) = (story.answered(), test.messages().messages());
    let heard: Vec<_> = heard.lock().unwrap().iter().filter_map(|heard| Some((heard.seq?, heard.id))).collect();
    for seed in 0..3 {
        let found = test.crashed(changes * 3 + seed).await.unwrap();
        let log = found.recorded();
        assert_lawful(&log);
        assert_kept(&found, &answered);
        let users = found.users(None, 1_000).await.unwrap();
        assert_eq!(users.iter().map(|user| user.id).collect::<BTreeSet<_>>(), told_users(&log));
        for message in &messages {
            assert!(log.iter().any(|envelope| envelope.id == message.id), "a message for a signal that is gone");
        }
        for heard in &heard {
            assert!(log.iter().any(|found| (found.seq, found.id) == (Some(heard.0), heard.1)), "told, and gone");
        }
        let late = Register { username: Some("mary".into()), ..Register::new(PASSWORD) };
        assert!(found.register(late).await.is_ok());
        assert!(found.shutdown().await);
    }
    ear.stop(None);
    test.disk().heal();
    test.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_power_cut_leaves_holds_everything_answered_told_and_sent() {
    let calls = calls_of_a_story(false).await;
    let most = calls.writes + calls.syncs;
    let crashing = async {
        let mut running = tokio::task::JoinSet::new();
        for nth in steps(most, 24) {
            if running.len() >= 8 {
                running.join_next().await.unwrap().unwrap();
            }
            running.spawn_local(crash_after(nth - 1));
        }
        running.join_all().await;
    };
    tokio::task::LocalSet::new().run_until(crashing).await;
    let crashed = steps(most, 24).len();
    report(&format!("a power cut, unsynced writes reordered: {crashed} of {most} steps, 3 images each"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_when_the_file_must_grow_refuses_and_goes_on_when_there_is_room() {
    let test = TestAccounts::start().await;
    let story = Story::default();
    let big = |name: String| {
        let mut register = Register { username: Some(name), ..Register::new(PASSWORD) };
        register.profile.attributes.insert("notes".into(), "x".repeat(16_000).into());
        register
    };
    let before = test.disk().counts().set_lens;
    test.disk().fail_nth(Operation::SetLen, 1, ErrorKind::StorageFull);
    test.disk().fail_nth(Operation::SetLen, 2, ErrorKind::StorageFull);
    let mut users = Vec::new();
    while test.disk().counts().set_lens < before + 3 {
        assert!(users.len() < 2_000, "the file never grew");
        users.push(story.insist(test.accounts(), big(format!("user.{}", users.len()))).await.user);
    }
    assert!(test.storage_state().reopenings > 0);
    let found = test.users(None, 2_000).await.unwrap();
    assert_eq!(found.iter().map(|user| user.id).collect::<BTreeSet<_>>(), users.iter().copied().collect());
    test.drain().await;
    assert_consistent(&test).await;
}

/// A system with one user who is signed in, and whose session was just checked, whose storage is out.
async fn out_of_storage() -> (TestAccounts, UserId, SessionToken, tokio::task::JoinHandle<Answer<Register>>) {
    let test = TestAccounts::configured(|config| config.shutdown_within = Duration::from_millis(200)).await;
    let register = Register { username: Some("ada".into()), ..Register::new(PASSWORD) };
    let user = test.register(register).await.unwrap().user;
    let token = test.authenticate(sign_in("ada", PASSWORD)).await.unwrap().token;
    test.drain().await;
    assert!(test.check_session(&token).unwrap().is_some());
    test.disk().fail_all(ErrorKind::Other);
    let accounts = test.accounts().clone();
    let waiting = tokio::spawn(async move {
        accounts.register(Register { username: Some("grace".into()), ..Register::new(PASSWORD) }).await
    });
    until("the outage", async || {
        // On the way there a read knows the user, or knows nothing; it never denies.
        assert!(!matches!(test.user(user), Ok(None)) && !matches!(test.find_user("ada"), Ok(None)));
        assert!(test.check_session(&token).unwrap().is_some());
        assert!(test.sessions(user).is_ok_and(|sessions| sessions.len() == 1) || test.sessions(user).is_err());
        (!test.storage_state().available).then_some(())
    })
    .await;
    (test, user, token, waiting)
}

#[tokio::test(flavor = "multi_thread")]
async fn during_an_outage_reads_answer_unreadable_and_never_that_something_is_not_there() {
    let (test, user, token, waiting) = out_of_storage().await;
    assert_eq!(test.user(user), Err(Unreadable));
    assert_eq!(test.user(UserId::new()), Err(Unreadable));
    assert_eq!(test.find_user("ada"), Err(Unreadable));
    assert_eq!(test.find_user("nobody"), Err(Unreadable));
    assert_eq!(test.check_session(&token).unwrap().unwrap().1.id, user, "what was checked lately needs no store");
    let unknown = SessionToken::new("mds_BgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgY");
    assert_eq!(test.check_session(&unknown).unwrap_err(), Unreadable);
    assert_eq!(test.sessions(user), Err(Unreadable));
    assert_eq!(test.users(None, 10).await, Err(Unreadable));
    assert_eq!(test.signals(0, 10).await, Err(Unreadable));
    assert!(test.audit(AuditQuery::default()).await.is_err());
    assert!(!test.tree().await.storage().unwrap().available);
    tokio::time::timeout(PATIENCE, test.drain()).await.unwrap();
    tokio::time::timeout(PATIENCE, test.sweep()).await.unwrap();

    test.disk().heal();
    assert!(tokio::time::timeout(PATIENCE, waiting).await.unwrap().unwrap().is_ok());
    assert_eq!(test.find_user("ada").unwrap().unwrap().id, user);
    assert_eq!(test.check_session(&token).unwrap().unwrap().1.id, user);
    assert_eq!((test.sessions(user).unwrap().len(), test.users(None, 10).await.unwrap().len()), (1, 2));
    test.drain().await;
    assert_consistent(&test).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn during_an_outage_a_session_that_is_used_does_not_lie_idle() {
    let (test, user, token, waiting) = out_of_storage().await;
    let ten_days = Duration::from_secs(10 * 24 * 3_600);
    for _ in 0..2 {
        test.advance(ten_days);
        assert_eq!(test.check_session(&token).unwrap().unwrap().1.id, user);
    }
    let queued = test.storage_state().queued;
    test.advance(ten_days);
    assert_eq!(test.check_session(&token).unwrap(), None, "it lasts 30 days at most");
    assert!(queued <= 2, "{queued} wait for the writer, and none of them a note of a use");
    test.disk().heal();
    assert!(tokio::time::timeout(PATIENCE, waiting).await.unwrap().unwrap().is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn during_an_outage_every_flow_is_answered_storage_unavailable() {
    let (test, user, token, waiting) = out_of_storage().await;
    let password = || Password::new(PASSWORD);
    let proof = || Proof::Code { challenge: majordomo::TokenId::new(), code: OneTimeCode::new("12345678") };
    let answers = [
        test.register(Register::new(PASSWORD)).await.map(drop).map_err(|error| error.as_str()),
        test.authenticate(sign_in("ada", PASSWORD)).await.map(drop).map_err(|error| error.as_str()),
        test.authenticate(sign_in("nobody", PASSWORD)).await.map(drop).map_err(|error| error.as_str()),
        test.confirm_email(ConfirmEmail { proof: proof() }).await.map(drop).map_err(|error| error.as_str()),
        test.confirm_phone(ConfirmPhone { proof: proof() }).await.map(drop).map_err(|error| error.as_str()),
        test.update(Update::new(UserId::new())).await.map(drop).map_err(|error| error.as_str()),
        test.delete(Delete::new(user)).await.map(drop).map_err(|error| error.as_str()),
        test.delete(Delete::new(UserId::new())).await.map(drop).map_err(|error| error.as_str()),
        test.log_out(LogOut { token: token.clone() }).await.map(drop).map_err(|error| error.as_str()),
        test.request_password_reset(RequestPasswordReset { identifier: EMAIL.into(), channel: Channel::Email })
            .await
            .map(drop)
            .map_err(|error| error.as_str()),
        test.reset_password(ResetPassword { proof: proof(), new: password() })
            .await
            .map(drop)
            .map_err(|error| error.as_str()),
    ];
    assert_eq!(answers, [Err("storage_unavailable"); 11]);
    test.disk().heal();
    assert!(tokio::time::timeout(PATIENCE, waiting).await.unwrap().unwrap().is_ok());
    test.drain().await;
    assert!(test.user(user).unwrap().is_some() && test.check_session(&token).unwrap().is_some());
    assert_consistent(&test).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_system_whose_disk_is_out_shuts_down_and_is_whole_when_the_disk_is_back() {
    let (test, user, token, waiting) = out_of_storage().await;
    tokio::time::timeout(PATIENCE, test.shutdown()).await.expect("the shutdown is bounded");
    let unanswered = tokio::time::timeout(PATIENCE, waiting).await.unwrap().unwrap();
    test.disk().heal();
    let test = test.restart().await.unwrap();
    assert!(test.user(user).unwrap().is_some() && test.check_session(&token).unwrap().is_some());
    assert!(unanswered.is_err() || test.find_user("grace").unwrap().is_some());
    test.drain().await;
    assert_consistent(&test).await;
}

fn register_with_addresses() -> Register {
    Register { email: Some(EMAIL.into()), phone: Some(PHONE.into()), ..Register::new(PASSWORD) }
}

/// The signals of the delivery flows, by their names.
fn deliveries(test: &TestAccounts) -> Vec<&'static str> {
    let log = test.recorded();
    let starts = |envelope: &&Envelope| envelope.signal.kind().starts().contains(&FlowKind::Delivery);
    let flows: BTreeSet<_> = log.iter().filter(starts).map(|envelope| envelope.flow).collect();
    let of_delivery = |envelope: &&Envelope| flows.contains(&envelope.flow) && !starts(envelope);
    let mut names: Vec<_> = log.iter().filter(of_delivery).map(|envelope| envelope.signal.kind().as_str()).collect();
    names.sort_unstable();
    names
}

fn transient() -> SendError {
    SendError::Transient("no connection".into())
}

fn permanent() -> SendError {
    SendError::Permanent("no such mailbox".into())
}

async fn drained(test: &TestAccounts) {
    tokio::time::timeout(PATIENCE, test.drain()).await.expect("the subscribers never came to an end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transport_that_fails_for_now_sends_later_and_the_registration_never_knew() {
    let test = TestAccounts::start().await;
    test.messages().fail_next(3, transient());
    let accepted = test.register(register_with_addresses()).await.unwrap();
    assert!(accepted.email_challenge.is_some() && accepted.phone_challenge.is_some());
    drained(&test).await;
    assert_eq!(test.messages().messages().len(), 2);
    assert_eq!(deliveries(&test), ["user_email_verification_initiated", "user_phone_verification_initiated"]);
    assert_consistent(&test).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transport_that_refuses_for_good_ends_the_delivery_as_failed_and_loses_no_registration() {
    let test = TestAccounts::start().await;
    test.messages().fail_next(2, permanent());
    let accepted = test.register(register_with_addresses()).await.unwrap();
    assert!(accepted.email_challenge.is_some() && accepted.phone_challenge.is_some());
    drained(&test).await;
    assert!(test.messages().messages().is_empty());
    assert_eq!(deliveries(&test), ["user_email_verification_failed", "user_phone_verification_failed"]);
    for envelope in test.recorded() {
        if let Signal::UserEmailVerificationFailed { user, reason, .. } = envelope.signal {
            assert_eq!((user, reason), (Some(accepted.user), Failure::EmailSendFailed));
        }
    }
    assert!(test.user(accepted.user).unwrap().is_some());

    let request = RequestEmailVerification { claimant: Claimant::Address(EMAIL.into()) };
    test.request_email_verification(request).await.unwrap();
    drained(&test).await;
    let link = test.messages().last_to(EMAIL).unwrap().link().unwrap().to_owned();
    test.confirm_email(ConfirmEmail { proof: Proof::from_link(&link).unwrap() }).await.unwrap();
    drained(&test).await;
    assert_consistent(&test).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_was_not_sent_before_its_link_expired_ends_as_failed() {
    let test = TestAccounts::start().await;
    test.messages().fail_next(1_000, transient());
    test.register(register_with_addresses()).await.unwrap();
    until("an attempt to send", async || {
        test.tree().await.subscriptions().iter().any(|subscription| subscription.failures > 0).then_some(())
    })
    .await;
    test.advance(Duration::from_secs(25 * 3_600));
    drained(&test).await;
    assert!(test.messages().messages().is_empty());
    assert_eq!(deliveries(&test), ["user_email_verification_failed", "user_phone_verification_failed"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_is_answered_the_same_whatever_becomes_of_its_message() {
    for (fault, end) in [
        (None, "password_reset_request_processed"),
        (Some(transient()), "password_reset_request_processed"),
        (Some(permanent()), "password_reset_request_failed"),
    ] {
        let test = TestAccounts::start().await;
        test.register(register_with_addresses()).await.unwrap();
        drained(&test).await;
        let link = test.messages().last_to(EMAIL).unwrap().link().unwrap().to_owned();
        test.confirm_email(ConfirmEmail { proof: Proof::from_link(&link).unwrap() }).await.unwrap();
        drained(&test).await;
        let before = deliveries(&test);
        let sent = test.messages().take().len();
        if let Some(fault) = fault.clone() {
            test.messages().fail_next(1, fault);
        }
        let request = RequestPasswordReset { identifier: EMAIL.into(), channel: Channel::Email };
        let answer = test.request_password_reset(request).await.unwrap();
        assert_eq!(answer.expires_at, START.plus(Duration::from_secs(3_600)));
        drained(&test).await;
        let after = deliveries(&test);
        assert_eq!(after.len(), before.len() + 1);
        assert!(after.contains(&end), "{fault:?}: {after:?}");
        assert_eq!(test.messages().messages().len(), usize::from(end.ends_with("processed")), "{sent} before");
        assert_lawful(&test.recorded());
    }
}
