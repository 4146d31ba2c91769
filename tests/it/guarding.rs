//! Guards: asked before a registration, login, update or deletion is committed; they fail for themselves alone.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::Duration;

use majordomo::SignalKind::{
    GuardDenied, GuardFailed, UserAuthenticated, UserAuthenticationFailed, UserAuthenticationStarted, UserDeleted,
    UserDeletionFailed, UserDeletionStarted, UserEmailVerificationTokenGenerated, UserPasswordChecked, UserPasswordSet,
    UserPreRegister, UserRegistered, UserRegistrationFailed, UserRegistrationStarted, UserUpdateFailed,
    UserUpdateStarted, UserUpdated, VerifyEmail,
};
use majordomo::testing::TestAccounts;
use majordomo::{
    Accounts, Amendment, Authenticate, BuildError, Change, Command, CommandId, Delete, DenialCode, Envelope, Error,
    FailMode, FlowKind, GUARDED_FLOWS, Guard, GuardFailure, GuardRegistration, GuardRequest, GuardState, Proposal,
    Question, RefusalCause, Register, Ruling, Signal, SignalKind, Update, User, UserId,
};
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::flow_table::stage::{PASSWORD, Stage, assert_lawful, email, login};

const WAIT: Duration = Duration::from_secs(180);
const HOUR: Duration = Duration::from_secs(3600);
const SOON: Duration = Duration::from_millis(30);

/// What a guard does when it is asked.
#[derive(Clone)]
enum Deed {
    Rule(Ruling),
    Panic,
    Hang,
    /// Blocks its thread until the gate opens.
    Block,
    /// Takes and gives back memory.
    Allocate,
    /// Asks the system that asks it; denies with the name of the error.
    CallBack,
    /// The same from a thread of its runtime that may block.
    CallBackBlocking,
}

/// A guard that does what it is told, and keeps what it saw.
#[derive(Clone)]
struct Puppet(Arc<Strings>);

struct Strings {
    deed: Mutex<Deed>,
    seen: Mutex<Vec<GuardRequest>>,
    gate: (Mutex<bool>, Condvar),
    blocked: AtomicUsize,
    go_on: Notify,
    accounts: OnceLock<Accounts>,
}

impl Puppet {
    fn new(deed: Deed) -> Self {
        Self(Arc::new(Strings {
            deed: Mutex::new(deed),
            seen: Mutex::default(),
            gate: (Mutex::new(false), Condvar::new()),
            blocked: AtomicUsize::new(0),
            go_on: Notify::new(),
            accounts: OnceLock::new(),
        }))
    }

    fn allowing() -> Self {
        Self::new(Deed::Rule(Ruling::Allow))
    }

    fn now(&self, deed: Deed) {
        *self.0.deed.lock().unwrap() = deed;
    }

    fn seen(&self) -> Vec<GuardRequest> {
        self.0.seen.lock().unwrap().clone()
    }

    fn last(&self) -> GuardRequest {
        self.seen().pop().expect("it was asked")
    }

    fn open_gate(&self) {
        *self.0.gate.0.lock().unwrap() = true;
        self.0.gate.1.notify_all();
    }

    /// Of every flow, patient, and never left alone.
    fn registration(&self, name: &str, on_failure: FailMode) -> GuardRegistration {
        GuardRegistration::new(name, GUARDED_FLOWS, on_failure, self.clone()).deadline(WAIT).breaker(1_000, HOUR)
    }
}

impl Guard for Puppet {
    async fn check(&self, request: &GuardRequest) -> Ruling {
        self.0.seen.lock().unwrap().push(request.clone());
        let deed = self.0.deed.lock().unwrap().clone();
        match deed {
            Deed::Rule(ruling) => return ruling,
            Deed::Panic => panic!("on purpose"),
            Deed::Hang => self.0.go_on.notified().await,
            Deed::Block => {
                self.0.blocked.fetch_add(1, Ordering::SeqCst);
                let (open, changed) = &self.0.gate;
                drop(changed.wait_timeout_while(open.lock().unwrap(), 2 * WAIT, |open| !*open));
                self.0.blocked.fetch_sub(1, Ordering::SeqCst);
            }
            Deed::Allocate => {
                let memory = vec![1_u8; 256 << 20];
                assert_eq!(memory.iter().step_by(1 << 20).map(|byte| u32::from(*byte)).sum::<u32>(), 256);
            }
            Deed::CallBack => return call_back(self.0.accounts.get().unwrap().clone(), request).await,
            Deed::CallBackBlocking => {
                let (accounts, request) = (self.0.accounts.get().unwrap().clone(), request.clone());
                let handle = tokio::runtime::Handle::current();
                let blocking = tokio::task::spawn_blocking(move || handle.block_on(call_back(accounts, &request)));
                return blocking.await.unwrap();
            }
        }
        Ruling::Allow
    }
}

/// Asks and tells, neither of which may wait for the flow that waits for it; what it reads is a snapshot.
async fn call_back(accounts: Accounts, request: &GuardRequest) -> Ruling {
    let asked = accounts.register(Register { username: Some("intruder".into()), ..Register::new(PASSWORD) }).await;
    let told = accounts.tell(Update::new(UserId::new())).map(drop).unwrap_err();
    assert_eq!(told.as_str(), "called_from_guard");
    let user = request.user.as_ref().map(|user| user.id);
    assert_eq!(user.and_then(|user| accounts.user(user).unwrap()).map(|user| user.id), user);
    assert!(accounts.find_user("intruder").unwrap().is_none());
    Ruling::deny(asked.unwrap_err().as_str())
}

async fn staged(registrations: impl IntoIterator<Item = GuardRegistration>) -> Stage {
    Stage::made(|_| {}, |builder| registrations.into_iter().fold(builder, majordomo::Builder::guard)).await
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(WAIT, future).await.expect("it came in time")
}

async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let waiting = async {
        while !condition().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(WAIT, waiting).await.unwrap_or_else(|_| panic!("{what}"));
}

async fn state(test: &TestAccounts) -> GuardState {
    test.tree().await.guards.remove(0)
}

/// Without an address: no message is on its way beside what a test does.
fn named(name: &str) -> Register {
    Register { username: Some(name.into()), ..Register::new(PASSWORD) }
}

fn renaming(user: UserId) -> Update {
    Update { display_name: Change::Set("Ada".to_owned()), ..Update::new(user) }
}

fn denied(code: &str) -> DenialCode {
    DenialCode::fitted(code)
}

/// Everything of a user that a flow could have changed, with the number of sessions.
fn everything(test: &TestAccounts, user: UserId) -> (User, usize) {
    (test.user(user).unwrap().expect("the user is there"), test.sessions(user).unwrap().len())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_guard_allows_is_as_if_there_were_none_and_it_sees_a_snapshot_without_secrets() {
    let puppet = Puppet::allowing();
    let mut stage = staged([puppet.registration("guard", FailMode::Closed)]).await;
    let registered = stage.run(Register { email: Some(email("ada")), ..named("ada") }).await;
    registered.tells(&[
        (UserRegistrationStarted, json!({})),
        (UserPreRegister, json!({})),
        (UserPasswordSet, json!({})),
        (UserEmailVerificationTokenGenerated, json!({})),
        (VerifyEmail, json!({})),
        (UserRegistered, json!({})),
    ]);
    let user = registered.granted().user;
    let request = puppet.last();
    let Proposal::Register { username, email: address, phone, groups, .. } = request.proposal else { panic!() };
    assert_eq!((username.unwrap().original(), address.unwrap().canonical()), ("ada", "ada@example.com"));
    assert!(phone.is_none() && request.user.is_none() && groups.contains("users"));
    assert_eq!(request.context.told_user_agent(), Some("flow table"));
    let user_is = |request: &GuardRequest, version| {
        assert_eq!(request.user.as_ref().map(|user| (user.id, user.version)), Some((user, version)));
    };
    stage.test.drain().await;
    stage.test.confirm_email(majordomo::ConfirmEmail { proof: stage.link(&email("ada")) }).await.unwrap();
    assert_eq!(puppet.seen().len(), 1, "other flows are not guarded");
    stage.run(login("ada", PASSWORD)).await.tells(&[
        (UserAuthenticationStarted, json!({})),
        (UserPasswordChecked, json!({ "success": true })),
        (UserAuthenticated, json!({})),
    ]);
    user_is(&puppet.last(), 2);
    assert!(matches!(puppet.last().proposal, Proposal::Authenticate { .. }));
    stage.run(renaming(user)).await.tells(&[(UserUpdateStarted, json!({})), (UserUpdated, json!({}))]);
    user_is(&puppet.last(), 2);
    let Proposal::Update { username, profile } = puppet.last().proposal else { panic!() };
    assert_eq!((username, profile.display_name.as_deref()), (Change::Keep, Some("Ada")));
    let deleted = stage.run(Delete::new(user)).await;
    assert_eq!(deleted.signals.last().unwrap().signal.kind(), UserDeleted);
    user_is(&puppet.last(), 3);
    assert_eq!(puppet.seen().iter().map(GuardRequest::flow).collect::<Vec<_>>(), GUARDED_FLOWS);
    let state = state(&stage.test).await;
    assert_eq!((state.asked, state.allowed, state.failed, state.gauge.handled), (4, 4, 0, 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denial_ends_each_flow_once_with_its_own_reason_and_nothing_is_written() {
    let puppet = Puppet::allowing();
    let mut stage = staged([puppet.registration("bouncer", FailMode::Open)]).await;
    let user = stage.verified("ada").await;
    let before = everything(&stage.test, user);
    puppet.now(Deed::Rule(Ruling::deny("not_today")));
    let told = |flow: FlowKind, user: Value| {
        (GuardDenied, json!({ "guard": "bouncer", "flow": flow.as_str(), "code": "not_today", "user": user }))
    };
    let reason = json!({ "reason": "denied_by_guard" });
    let register = stage.run(named("eve")).await;
    register.failed(Error::Denied(denied("not_today"))).tells(&[
        (UserRegistrationStarted, json!({})),
        told(FlowKind::Register, Value::Null),
        (UserRegistrationFailed, json!({ "reason": "denied_by_guard", "error_type": "validation_error" })),
    ]);
    assert!(stage.test.find_user("eve").unwrap().is_none(), "the name is free");
    let authenticate = stage.run(login("ada", PASSWORD)).await;
    assert!(matches!(authenticate.answer, Err(Error::Denied(code)) if code == denied("not_today")));
    authenticate.tells(&[
        (UserAuthenticationStarted, json!({})),
        (UserPasswordChecked, json!({ "success": true })),
        told(FlowKind::Authenticate, json!(user)),
        (UserAuthenticationFailed, json!({ "reason": "denied_by_guard", "user": user })),
    ]);
    assert!(authenticate.lane_of(user));
    let update = stage.run(renaming(user)).await;
    update.failed(Error::Denied(denied("not_today"))).tells(&[
        (UserUpdateStarted, json!({})),
        told(FlowKind::Update, json!(user)),
        (UserUpdateFailed, reason.clone()),
    ]);
    assert!(update.lane_of(user));
    stage.run(Delete::new(user)).await.failed(Error::Denied(denied("not_today"))).tells(&[
        (UserDeletionStarted, json!({})),
        told(FlowKind::Delete, json!(user)),
        (UserDeletionFailed, reason),
    ]);
    assert!(everything(&stage.test, user) == before, "nothing of the user changed");
    assert_eq!(before.1, 0, "no session was opened");
    let state = state(&stage.test).await;
    assert_eq!((state.denied, state.failed, state.open), (4, 0, false));
    assert_lawful(&stage.test.recorded());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guard_is_never_asked_about_what_is_refused_anyway() {
    let puppet = Puppet::allowing();
    let stage = staged([puppet.registration("guard", FailMode::Closed)]).await;
    let user = stage.disabled("ada").await;
    stage.claimed("eve").await;
    let asked = puppet.seen().len();
    for (name, password) in [("nobody", PASSWORD), ("eve", "a wrong password"), ("ada", PASSWORD), ("eve", PASSWORD)] {
        assert!(matches!(stage.test.authenticate(login(name, password)).await, Err(Error::Refused(_))));
    }
    assert!(matches!(stage.test.register(named("ada")).await, Err(Error::Refused(_))));
    assert!(matches!(stage.test.register(Register::new(PASSWORD)).await, Err(Error::Refused(_))));
    assert!(matches!(stage.test.update(Update::new(user)).await, Err(Error::Refused(_))));
    assert!(matches!(stage.test.delete(Delete::new(UserId::new())).await, Err(Error::Refused(_))));
    assert_eq!(puppet.seen().len(), asked);
    // Accounts that were never verified go without asking anybody.
    puppet.now(Deed::Rule(Ruling::deny("stay")));
    stage.test.advance(Duration::from_secs(8 * 24 * 3600));
    stage.test.sweep().await;
    assert!(stage.test.find_user("eve").unwrap().is_none());
    assert_eq!(puppet.seen().len(), asked);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_guards_amend_is_committed_with_the_flow_in_their_order() {
    let amendment = Amendment::new().display_name(Some("Countess")).attribute("plan", Some(json!("free"))).join("beta");
    let first = Puppet::new(Deed::Rule(Ruling::Amend(amendment)));
    let second =
        Puppet::new(Deed::Rule(Ruling::Amend(Amendment::new().attribute("plan", Some(json!("gold"))).leave("users"))));
    let mut stage =
        staged([first.registration("first", FailMode::Closed), second.registration("second", FailMode::Closed)]).await;
    let ran = stage.run(named("ada")).await;
    let end = ran.signals.last().unwrap();
    assert!(matches!(&end.signal, Signal::UserRegistered { groups, .. } if *groups == ["beta"]), "{:?}", end.signal);
    let user = ran.granted().user;
    let (row, _) = everything(&stage.test, user);
    assert_eq!(
        (row.profile.display_name.as_deref(), &row.profile.attributes["plan"]),
        (Some("Countess"), &json!("gold"))
    );
    assert!(row.groups.contains("beta") && !row.groups.contains("users"));
    let Proposal::Register { profile, .. } = second.last().proposal else { panic!() };
    assert_eq!(profile.attributes["plan"], "free", "the second one sees what the first amended");
    first.now(Deed::Rule(Ruling::Amend(Amendment::new().locale(Some("de-AT")).attribute("plan", None))));
    second.now(Deed::Rule(Ruling::Allow));
    let ran = stage.run(renaming(user)).await;
    let fields = json!(["attributes", "display_name", "locale"]);
    ran.tells(&[
        (UserUpdateStarted, json!({ "fields": ["display_name"] })),
        (UserUpdated, json!({ "fields": fields })),
    ]);
    let (row, _) = everything(&stage.test, user);
    assert_eq!((row.version, row.profile.locale.as_deref(), row.profile.attributes.len()), (2, Some("de-AT"), 0));
    let state = state(&stage.test).await;
    assert_eq!((state.amended, state.failed), (2, 0));
}

/// Runs a guarded flow that its guard does not judge, once open and once closed.
async fn assert_lapse<F: Question + Clone>(
    deed: &Deed,
    failure: GuardFailure,
    make: impl Fn(UserId) -> F,
    (start, end): (SignalKind, SignalKind),
) where
    F::Reply: std::fmt::Debug,
{
    for mode in [FailMode::Open, FailMode::Closed] {
        let puppet = Puppet::allowing();
        let deadline = if failure == GuardFailure::DeadlineExceeded { SOON } else { WAIT };
        let flows = [F::KIND];
        let registration = GuardRegistration::new("guard", flows, mode, puppet.clone()).deadline(deadline);
        let mut stage = staged([registration.breaker(1_000, HOUR)]).await;
        puppet.now(Deed::Rule(Ruling::Allow));
        let user = stage.verified("ada").await;
        let before = everything(&stage.test, user);
        puppet.now(deed.clone());
        let ran = stage.run(make(user)).await;
        let allowed = mode == FailMode::Open;
        let lapse = ran.signals.iter().find(|told| told.signal.kind() == GuardFailed).expect("it is told");
        let Signal::GuardFailed { guard, flow, failure: told, allowed: went_on, user: about } = &lapse.signal else {
            panic!()
        };
        assert_eq!((guard.as_str(), *flow, *told, *went_on), ("guard", F::KIND, failure, allowed));
        assert_eq!(*about, (F::KIND != FlowKind::Register).then_some(user));
        if allowed {
            assert!(ran.answer.is_ok(), "{:?} {failure:?}", F::KIND);
        } else {
            ran.failed(Error::GuardUnavailable);
            let kinds = [ran.signals[0].signal.kind(), ran.signals.last().unwrap().signal.kind()];
            assert_eq!(kinds, [start, end]);
            let value = serde_json::to_value(&ran.signals.last().unwrap().signal).unwrap();
            assert_eq!(value["data"]["reason"], "guard_unavailable");
            assert!(everything(&stage.test, user) == before);
        }
        puppet.open_gate();
        assert_lawful(&stage.test.recorded());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guard_that_panics_hangs_blocks_or_amends_badly_ends_each_flow_as_its_mode_says() {
    let bad = Deed::Rule(Ruling::Amend(Amendment::new().attribute("no spaces", Some(json!(1)))));
    let deeds = [
        (Deed::Panic, GuardFailure::Panicked),
        (Deed::Hang, GuardFailure::DeadlineExceeded),
        (Deed::Block, GuardFailure::DeadlineExceeded),
        (bad, GuardFailure::InvalidAmendment),
    ];
    for (deed, failure) in &deeds {
        let register = (UserRegistrationStarted, UserRegistrationFailed);
        assert_lapse(deed, *failure, |_| named("eve"), register).await;
        let authenticate = (UserAuthenticationStarted, UserAuthenticationFailed);
        assert_lapse(deed, *failure, |_| login("ada", PASSWORD), authenticate).await;
        assert_lapse(deed, *failure, renaming, (UserUpdateStarted, UserUpdateFailed)).await;
        assert_lapse(deed, *failure, Delete::new, (UserDeletionStarted, UserDeletionFailed)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_or_a_deletion_has_nothing_to_amend_and_an_update_may_not_be_annulled() {
    let puppet = Puppet::allowing();
    let mut stage = staged([puppet.registration("guard", FailMode::Closed)]).await;
    let user = stage.verified("ada").await;
    puppet.now(Deed::Rule(Ruling::Amend(Amendment::new().attribute("seen", Some(json!(1))))));
    stage.run(login("ada", PASSWORD)).await.failed(Error::GuardUnavailable);
    stage.run(Delete::new(user)).await.failed(Error::GuardUnavailable);
    puppet.now(Deed::Rule(Ruling::Amend(Amendment::new().display_name(None))));
    stage.run(renaming(user)).await.failed(Error::GuardUnavailable);
    puppet.now(Deed::Rule(Ruling::Amend(Amendment::new().join("admins"))));
    stage.run(renaming(user)).await.failed(Error::GuardUnavailable);
    assert_eq!(everything(&stage.test, user).0.version, 2);
    puppet.now(Deed::Rule(Ruling::Amend(Amendment::new())));
    stage.run(login("ada", PASSWORD)).await.granted();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guard_that_takes_much_memory_gives_it_back_and_is_heard() {
    let puppet = Puppet::new(Deed::Allocate);
    let mut stage = staged([puppet.registration("guard", FailMode::Closed)]).await;
    stage.run(named("ada")).await.granted();
    assert_eq!(state(&stage.test).await.allowed, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guard_that_asks_the_system_in_turn_is_refused_at_once_and_may_read() {
    let puppet = Puppet::allowing();
    let mut stage = staged([puppet.registration("guard", FailMode::Open)]).await;
    let user = stage.verified("ada").await;
    assert!(puppet.0.accounts.set(stage.test.accounts().clone()).is_ok());
    for deed in [Deed::CallBack, Deed::CallBackBlocking] {
        puppet.now(deed);
        within(stage.run(login("ada", PASSWORD))).await.failed(Error::Denied(denied("called_from_guard")));
        within(stage.run(renaming(user))).await.failed(Error::Denied(denied("called_from_guard")));
    }
    assert!(stage.test.find_user("intruder").unwrap().is_none());
    stage.test.drain().await;
    let refused = |envelope: &Envelope| match &envelope.signal {
        Signal::RequestsRefused { reason: RefusalCause::CalledFromGuard, count } => *count,
        _ => 0,
    };
    assert_eq!(stage.test.recorded().iter().map(refused).sum::<u64>(), 8, "an ask and a tell each time");
    assert_lawful(&stage.test.recorded());
}

#[tokio::test(flavor = "multi_thread")]
async fn logins_at_a_guard_that_hangs_are_answered_as_its_mode_says_and_nobody_else_is_disturbed() {
    for mode in [FailMode::Open, FailMode::Closed] {
        let puppet = Puppet::new(Deed::Hang);
        let registration = GuardRegistration::new("guard", [FlowKind::Authenticate], mode, puppet.clone());
        let stage = staged([registration.deadline(SOON).breaker(3, HOUR).concurrency(8)]).await;
        let user = stage.verified("ada").await;
        let logins: Vec<_> = (0..20).map(|_| stage.test.tell(login("ada", PASSWORD)).unwrap()).collect();
        for number in 0..5 {
            let update = Update { display_name: Change::Set(format!("Ada {number}")), ..Update::new(user) };
            within(stage.test.update(update)).await.unwrap();
        }
        for login in logins {
            match (mode, within(login).await.unwrap()) {
                (FailMode::Open, Ok(_)) | (FailMode::Closed, Err(Error::GuardUnavailable)) => {}
                (_, other) => panic!("{mode:?}: {:?}", other.map(|opened| opened.session)),
            }
        }
        let (_, sessions) = everything(&stage.test, user);
        assert_eq!(sessions, if mode == FailMode::Open { 20 } else { 0 });
        let state = state(&stage.test).await;
        assert!(state.open && state.failed >= 20 && state.asked < 20, "{state:?}");
        assert_lawful(&stage.test.recorded());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guard_that_fails_in_a_row_is_left_alone_and_asked_again_once_it_works() {
    let puppet = Puppet::new(Deed::Panic);
    let registration = puppet.registration("guard", FailMode::Closed).breaker(2, Duration::from_millis(1));
    let stage = staged([registration]).await;
    let register = |number: usize| stage.test.register(named(&format!("user{number}")));
    for number in 0..2 {
        assert_eq!(register(number).await.unwrap_err(), Error::GuardUnavailable);
    }
    assert!(state(&stage.test).await.open);
    puppet.now(Deed::Rule(Ruling::Allow));
    until("a probe closes the breaker", async || register(7).await.is_ok()).await;
    assert!(!state(&stage.test).await.open);
    assert_lawful(&stage.test.recorded());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guard_blocks_at_most_four_threads_and_then_its_mode_applies() {
    let puppet = Puppet::new(Deed::Block);
    let registration = puppet.registration("guard", FailMode::Open).deadline(SOON);
    let stage = staged([registration.breaker(1, Duration::from_millis(1))]).await;
    let name = AtomicUsize::new(0);
    let register = || stage.test.register(named(&format!("user{}", name.fetch_add(1, Ordering::SeqCst))));
    until("all its threads are blocked", async || {
        register().await.expect("it fails open");
        state(&stage.test).await.out_of_service
    })
    .await;
    register().await.unwrap();
    let out = state(&stage.test).await;
    assert_eq!((puppet.0.blocked.load(Ordering::SeqCst), out.threads_abandoned, out.asked), (4, 4, 4));
    assert_eq!(stage.test.users(None, 1_000).await.unwrap().len(), name.load(Ordering::SeqCst), "nobody else noticed");
    puppet.open_gate();
    until("its threads are back", async || state(&stage.test).await.threads_abandoned == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guard_in_shadow_mode_changes_nothing_and_what_it_would_have_denied_is_told_counted() {
    let puppet = Puppet::new(Deed::Rule(Ruling::deny("no")));
    let mut stage = staged([puppet.registration("trial", FailMode::Closed).shadow()]).await;
    for number in 0..3 {
        stage.run(named(&format!("user{number}"))).await.granted();
    }
    until("it was heard", async || state(&stage.test).await.denied == 3).await;
    stage.test.drain().await;
    let counted = |envelope: &Envelope| match &envelope.signal {
        Signal::GuardWouldDeny { guard, flow: FlowKind::Register, count } if guard == "trial" => *count,
        _ => 0,
    };
    assert_eq!(stage.test.recorded().iter().map(counted).sum::<u64>(), 3);
    for deed in [Deed::Panic, Deed::Hang, Deed::Block] {
        puppet.now(deed);
        let user = stage.run(named("eve")).await.granted().user;
        stage.run(Delete::new(user)).await.granted();
    }
    puppet.open_gate();
    let kinds: Vec<_> = stage.test.recorded().iter().map(|told| told.signal.kind()).collect();
    assert!(!kinds.contains(&GuardFailed) && !kinds.contains(&GuardDenied));
    assert_lawful(&stage.test.recorded());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_command_after_a_denial_is_judged_again_and_after_a_success_is_not() {
    let puppet = Puppet::new(Deed::Rule(Ruling::deny("not_yet")));
    let mut stage = staged([puppet.registration("guard", FailMode::Closed)]).await;
    let command = Command::new(named("ada")).id(CommandId::new());
    for _ in 0..2 {
        stage.run(command.clone()).await.failed(Error::Denied(denied("not_yet")));
    }
    puppet.now(Deed::Panic);
    stage.run(command.clone()).await.failed(Error::GuardUnavailable);
    puppet.now(Deed::Rule(Ruling::Allow));
    let user = stage.run(command.clone()).await.granted().user;
    puppet.now(Deed::Rule(Ruling::deny("too_late")));
    assert_eq!(stage.test.register(command).await.unwrap().user, user);
    assert_eq!(puppet.seen().len(), 4);
    assert_lawful(&stage.test.recorded());
}

#[tokio::test(flavor = "multi_thread")]
async fn guards_belong_to_the_run_of_the_system_that_they_were_given_to() {
    let stage = staged([Puppet::new(Deed::Rule(Ruling::deny("no"))).registration("guard", FailMode::Closed)]).await;
    stage.test.register(named("ada")).await.unwrap_err();
    let stage = stage.restart_with(|builder| builder).await;
    stage.test.register(named("ada")).await.unwrap();
    let puppet = Puppet::new(Deed::Rule(Ruling::deny("not_now")));
    let stage = stage.restart_with(|builder| builder.guard(puppet.registration("guard", FailMode::Closed))).await;
    assert_eq!(stage.test.register(named("eve")).await.unwrap_err(), Error::Denied(denied("not_now")));
    assert_eq!(state(&stage.test).await.asked, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_while_a_guard_is_asked_leaves_nothing_of_the_flow() {
    let puppet = Puppet::new(Deed::Hang);
    let test = Stage::made(|_| {}, |builder| builder.guard(puppet.registration("guard", FailMode::Closed))).await.test;
    let waiting = test.tell(named("ada")).unwrap();
    until("it is asked", async || puppet.seen().len() == 1).await;
    let crashed = test.crashed(7).await.unwrap();
    assert!(crashed.find_user("ada").unwrap().is_none());
    assert_eq!(crashed.recorded(), []);
    puppet.0.go_on.notify_one();
    within(waiting).await.unwrap().unwrap();
    assert!(test.find_user("ada").unwrap().is_some());
    let crashed = test.crashed(8).await.unwrap();
    assert!(crashed.find_user("ada").unwrap().is_some(), "after the commit it is done");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_flows_own_deadline_bounds_the_wait_too() {
    let puppet = Puppet::new(Deed::Hang);
    let mut stage = staged([puppet.registration("guard", FailMode::Closed)]).await;
    let ran = within(stage.test.register(Command::new(named("ada")).deadline(SOON))).await;
    assert_eq!(ran.unwrap_err(), Error::DeadlineExceeded);
    until("the flow ends", async || {
        stage.test.tree().await.user_manager().is_some_and(|manager| manager.under_way == 0)
    })
    .await;
    assert!(stage.test.find_user("ada").unwrap().is_none());
    let state = state(&stage.test).await;
    assert_eq!((state.failed, state.open), (0, false), "a caller in a hurry is no failure of the guard");
    puppet.now(Deed::Rule(Ruling::Allow));
    stage.run(named("ada")).await.granted();
    assert_lawful(&stage.test.recorded());
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_cannot_be_used_are_refused_with_every_fault_at_once() {
    let guard = |name: &str| Puppet::allowing().registration(name, FailMode::Closed);
    let builder = Accounts::builder().in_memory().guard(guard("one")).guard(guard("one"));
    let builder = builder.guard(guard("No Name")).guard(guard("two").concurrency(0));
    let other = GuardRegistration::new("three", [FlowKind::LogOut], FailMode::Open, Puppet::allowing());
    let Err(BuildError::Configuration(faults)) = builder.guard(other).spawn().await else { panic!("it was spawned") };
    assert_eq!(faults.len(), 4, "{faults:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn logins_beside_each_other_are_judged_once_each() {
    let puppet = Puppet::allowing();
    let stage = staged([puppet.registration("guard", FailMode::Closed)]).await;
    let user = stage.verified("ada").await;
    let before = puppet.seen().len();
    let login = || stage.test.tell::<Authenticate>(login("ada", PASSWORD)).unwrap();
    for login in (0..30).map(|_| login()).collect::<Vec<_>>() {
        within(login).await.unwrap().unwrap();
    }
    assert_eq!((puppet.seen().len() - before, everything(&stage.test, user).1), (30, 30));
}
