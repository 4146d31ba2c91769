//! One end: however an admitted flow ends, it ends once; what is not admitted begins nothing and is counted.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::time::Duration;

use majordomo::testing::{Operation, TestAccounts};
use majordomo::{
    AddContact, Answer, Authenticate, AuthenticateReason, Authority, ChangePassword, Channel, Command, CommandId,
    Config, ConfirmEmail, ContactClaim, Context, Disable, Enable, Envelope, Error, FlowKind, Limits, Password, Proof,
    Question, Reason, RefusalCause, Register, RequestPasswordReset, ResetPassword, Signal, SignalKind, Update, UserId,
};

use super::flow_table::stage::{Heard, OTHER_PASSWORD, PASSWORD, assert_lawful, email, login, run_of};

const WAIT: Duration = Duration::from_secs(180);

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(WAIT, future).await.expect("it came in time")
}

async fn until(condition: impl Fn() -> bool) {
    within(async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// So that many at once are under way for one account.
fn unlimited(config: &mut Config) {
    config.policy.limits = Limits::none();
}

/// Registers somebody who proves an e-mail address.
async fn verified(test: &TestAccounts, name: &str) -> UserId {
    let request = Register { username: Some(name.into()), email: Some(email(name)), ..Register::new(PASSWORD) };
    let user = test.register(request).await.unwrap().user;
    test.drain().await;
    test.confirm_email(ConfirmEmail { proof: mailed(test, name) }).await.unwrap();
    user
}

/// The proof in the last message.
fn mailed(test: &TestAccounts, name: &str) -> Proof {
    Proof::from_link(test.messages().last_to(&email(name)).unwrap().link().unwrap()).unwrap()
}

/// A command whose runs are found again by the name of its request.
fn named<F: Question>(name: &str, message: F) -> Command<F> {
    Command::new(message).id(CommandId::new()).context(Context::new().request_id(name))
}

/// A message that costs a hash, for every kind of flow that does.
struct Hashing {
    register: Command<Register>,
    authenticate: Command<Authenticate>,
    change: Command<ChangePassword>,
    reset: Command<ResetPassword>,
    add: Command<AddContact>,
}

impl Hashing {
    async fn new(test: &TestAccounts) -> Self {
        let (bob, eve) = (verified(test, "bob").await, verified(test, "eve").await);
        verified(test, "ada").await;
        let asked = RequestPasswordReset { identifier: "ada".into(), channel: Channel::Email };
        test.request_password_reset(asked).await.unwrap();
        test.drain().await;
        let (current, new) = (Password::new(PASSWORD), Password::new(OTHER_PASSWORD));
        let address = ContactClaim::Email(email("bell"));
        let authority = Authority::Password(current.clone());
        Self {
            register: named("register", Register { username: Some("new".into()), ..Register::new(PASSWORD) }),
            authenticate: named("authenticate", login("eve", PASSWORD)),
            change: named("change", ChangePassword { user: bob, current, new: new.clone(), keep: None }),
            reset: named("reset", ResetPassword { proof: mailed(test, "ada"), new }),
            add: named("add", AddContact { user: eve, address, authority }),
        }
    }
}

/// The ends of a command's runs, in the order of the log, each with its reason if it is a failure. Every run is whole.
fn ends(log: &[Envelope], name: &str) -> Vec<(SignalKind, String)> {
    let own = |envelope: &&Envelope| envelope.context.told_request_id() == Some(name);
    let starts = log
        .iter()
        .filter(own)
        .filter(|envelope| envelope.signal.kind().starts().first().is_some_and(|flow| *flow != FlowKind::Delivery));
    let runs = starts.map(|start| run_of(log, |envelope| envelope.id == start.id));
    runs.map(|run| told(run.last().unwrap())).collect()
}

/// The kind of a signal and its reason, if it tells one.
fn told(envelope: &Envelope) -> (SignalKind, String) {
    let value = serde_json::to_value(&envelope.signal).unwrap();
    let reason = value["data"]["reason"].as_str().unwrap_or_default().to_owned();
    (envelope.signal.kind(), reason)
}

fn is_end(envelope: &Envelope, name: &str) -> bool {
    envelope.context.told_request_id() == Some(name)
        && envelope.signal.kind().ends().iter().any(|flow| *flow != FlowKind::Delivery)
}

/// What became of a fault: the error of the caller, and whether the same command may well succeed later.
#[track_caller]
fn assert_error<T, R: Reason>(answer: Result<T, Error<R>>, error: &str, transient: bool) {
    match answer {
        Ok(_) => panic!("it succeeded instead of {error}"),
        Err(found) => assert_eq!((found.as_str(), found.is_transient()), (error, transient)),
    }
}

/// The fault ended the first run, once; the same command again ran anew and succeeded.
async fn assert_runs_again<F: Question + Clone>(test: &TestAccounts, command: &Command<F>, why: &str)
where
    F::Reply: Debug,
{
    let name = command.context.told_request_id().unwrap();
    within(test.ask(command.clone())).await.unwrap();
    let ends = ends(&test.recorded(), name);
    let [(failed, reason), (succeeded, none)] = &ends[..] else { panic!("{ends:?}") };
    assert!(failed.as_str().ends_with("_failed") && reason == why, "{failed:?} {reason}");
    assert!(!succeeded.as_str().ends_with("_failed") && none.is_empty(), "{succeeded:?} {none}");
}

async fn assert_panic_ends<F: Question + Clone>(test: &TestAccounts, command: &Command<F>)
where
    F::Reply: Debug,
{
    test.fail_hashing(1);
    assert_error(within(test.ask(command.clone())).await, "unexpected_exception", false);
    assert_runs_again(test, command, "password_hashing_error").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_hashing_ends_a_flow_once_and_the_same_command_runs_again() {
    let test = TestAccounts::start().await;
    let all = Hashing::new(&test).await;
    assert_panic_ends(&test, &all.register).await;
    assert_panic_ends(&test, &all.authenticate).await;
    assert_panic_ends(&test, &all.change).await;
    assert_panic_ends(&test, &all.reset).await;
    assert_panic_ends(&test, &all.add).await;
    assert_eq!(test.hasher_state().panics, 5);
    test.drain().await;
    assert_lawful(&test.recorded());
}

async fn assert_overload_ends<F: Question + Clone>(test: &TestAccounts, command: &Command<F>)
where
    F::Reply: Debug,
{
    test.hold_hashing(true);
    let first = test.tell(login("nobody", PASSWORD)).unwrap();
    until(|| test.hasher_state().queued == 1).await;
    assert_error(within(test.ask(command.clone())).await, "overloaded", true);
    test.hold_hashing(false);
    assert_eq!(within(first).await.unwrap().unwrap_err().as_str(), "invalid_credentials", "the first keeps its place");
    assert_runs_again(test, command, "overloaded").await;
}

/// Of floods: what finds no place in the queue begins no flow at all.
async fn assert_turned_away<F: Question + Clone>(test: &TestAccounts, command: &Command<F>)
where
    F::Reply: Debug,
{
    let name = command.context.told_request_id().unwrap();
    test.hold_hashing(true);
    let first = test.tell(login("nobody", PASSWORD)).unwrap();
    until(|| test.hasher_state().queued == 1).await;
    let (head, refused) = (test.head(), test.hasher_state().refused);
    assert_error(within(test.ask(command.clone())).await, "overloaded", true);
    assert_eq!((test.head(), test.hasher_state().refused), (head, refused + 1));
    test.hold_hashing(false);
    assert_eq!(within(first).await.unwrap().unwrap_err().as_str(), "invalid_credentials", "the first keeps its place");
    within(test.ask(command.clone())).await.unwrap();
    assert_eq!(ends(&test.recorded(), name).len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_login_that_was_let_in_is_never_turned_away_at_the_hasher() {
    let test = TestAccounts::configured(|config| {
        config.hashing.queue = Some(3);
        unlimited(config);
    })
    .await;
    test.register(Register { username: Some("ada".into()), ..Register::new(PASSWORD) }).await.unwrap();
    let logins = (0..400).map(|_| {
        let accounts = test.accounts().clone();
        tokio::spawn(async move { accounts.authenticate(login("ada", PASSWORD)).await })
    });
    let (mut signed_in, mut refused) = (0, 0);
    for login in logins.collect::<Vec<_>>() {
        match login.await.unwrap() {
            Ok(_) => signed_in += 1,
            Err(Error::Overloaded) => refused += 1,
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!(signed_in + refused, 400);
    let begun = |kind| test.recorded().iter().filter(|told| told.signal.kind() == kind).count();
    assert_eq!(begun(SignalKind::UserAuthenticationStarted), signed_in, "who is refused begins nothing");
    assert_eq!(begun(SignalKind::UserAuthenticated), signed_in);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_of_hashes_ends_a_flow_once_and_the_same_command_runs_again() {
    let test = TestAccounts::configured(|config| {
        config.hashing.workers = Some(1);
        config.hashing.queue = Some(1);
    })
    .await;
    let all = Hashing::new(&test).await;
    assert_turned_away(&test, &all.register).await;
    assert_turned_away(&test, &all.authenticate).await;
    assert_overload_ends(&test, &all.change).await;
    assert_overload_ends(&test, &all.reset).await;
    assert_overload_ends(&test, &all.add).await;
    until(|| refusals(&test, RefusalCause::Overloaded) == 2).await;
    test.drain().await;
    assert_lawful(&test.recorded());
}

async fn assert_deadline_ends<F: Question + Clone>(test: &TestAccounts, command: &Command<F>)
where
    F::Reply: Debug,
{
    let name = command.context.told_request_id().unwrap();
    test.hold_hashing(true);
    let hasty = command.clone().deadline(Duration::from_millis(300));
    assert_error(within(test.ask(hasty)).await, "deadline_exceeded", true);
    // The caller's own patience may end a moment before the flow's.
    until(|| ends(&closed_runs(test, name), name).len() == 1).await;
    test.hold_hashing(false);
    assert_runs_again(test, command, "deadline_exceeded").await;
}

/// The log as far as it can be asked for the ends of a command: nothing while there is none.
fn closed_runs(test: &TestAccounts, name: &str) -> Vec<Envelope> {
    let log = test.recorded();
    if log.iter().any(|envelope| is_end(envelope, name)) { log } else { Vec::new() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_that_passes_ends_a_flow_once_and_the_same_command_runs_again() {
    let test = TestAccounts::start().await;
    let all = Hashing::new(&test).await;
    assert_deadline_ends(&test, &all.register).await;
    assert_deadline_ends(&test, &all.authenticate).await;
    assert_deadline_ends(&test, &all.change).await;
    assert_deadline_ends(&test, &all.reset).await;
    assert_deadline_ends(&test, &all.add).await;
    test.drain().await;
    assert_lawful(&test.recorded());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_leaves_does_not_keep_a_flow_from_its_end() {
    let test = TestAccounts::start().await;
    verified(&test, "ada").await;
    test.hold_hashing(true);
    let (accounts, command) = (test.accounts().clone(), named("left", login("ada", PASSWORD)));
    let caller = tokio::spawn(async move { accounts.authenticate(command).await });
    until(|| test.hasher_state().queued == 1).await;
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    test.hold_hashing(false);
    until(|| !closed_runs(&test, "left").is_empty()).await;
    assert_eq!(ends(&test.recorded(), "left"), [(SignalKind::UserAuthenticated, String::new())]);
    test.drain().await;
    assert_lawful(&test.recorded());
}

/// Takes storage out: a flow whose commit meets the fault is given back, for it waits until storage is back.
async fn take_out(test: &TestAccounts, user: UserId) -> impl Future<Output = Answer<Update>> {
    test.disk().fail_all(ErrorKind::Other);
    let update = Update { display_name: majordomo::Change::Set("Ada".into()), ..Update::new(user) };
    let met = test.tell(named("met", update)).unwrap();
    until(|| !test.storage_state().available).await;
    async move { met.await.unwrap() }
}

async fn heal(test: &TestAccounts) {
    test.disk().heal();
    until(|| test.storage_state().available).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_in_the_middle_ends_a_flow_live_and_after_healing_in_the_log() {
    let test = TestAccounts::start().await;
    let all = Hashing::new(&test).await;
    let eve = test.find_user("eve").unwrap().unwrap().id;
    test.drain().await;
    let mut heard = Heard::listen(&test).await;
    test.hold_hashing(true);
    let before = test.head();
    let begun = (
        test.tell(all.register.clone()).unwrap(),
        test.tell(all.authenticate.clone()).unwrap(),
        test.tell(all.change.clone()).unwrap(),
        test.tell(all.reset.clone()).unwrap(),
        test.tell(all.add.clone()).unwrap(),
    );
    until(|| test.hasher_state().queued == 5).await;
    let met = take_out(&test, eve).await;
    test.hold_hashing(false);
    assert_error(within(begun.0).await.unwrap(), "storage_unavailable", true);
    assert_error(within(begun.1).await.unwrap(), "storage_unavailable", true);
    assert_error(within(begun.2).await.unwrap(), "storage_unavailable", true);
    assert_error(within(begun.3).await.unwrap(), "storage_unavailable", true);
    assert_error(within(begun.4).await.unwrap(), "storage_unavailable", true);
    let mut live = Vec::new();
    for _ in 0..5 {
        let end = heard.next(|envelope| !envelope.signal.kind().ends().is_empty()).await;
        assert_eq!((end.seq, told(&end).1.as_str()), (None, "repository_error"));
        live.push((end.id, end.flow, end.at));
    }
    heal(&test).await;
    within(met).await.unwrap();
    test.drain().await;
    let log = test.signals(before, 100).await.unwrap();
    for (id, flow, at) in live {
        let ends: Vec<_> = log.iter().filter(|envelope| envelope.id == id).collect();
        assert!(ends.len() == 1 && ends[0].flow == flow && ends[0].at == at, "the durable copy is the same signal");
    }
    assert_eq!(ends(&log, "met"), [(SignalKind::UserUpdated, String::new())]);
    assert_runs_again(&test, &all.register, "repository_error").await;
    assert_runs_again(&test, &all.authenticate, "repository_error").await;
    assert_runs_again(&test, &all.change, "repository_error").await;
    assert_runs_again(&test, &all.reset, "repository_error").await;
    assert_runs_again(&test, &all.add, "repository_error").await;
    assert_eq!(test.storage_state().lost, 0);
    test.drain().await;
    assert_lawful(&test.recorded());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_of_one_sync_is_healed_behind_the_caller_and_the_flow_ends_once() {
    let test = TestAccounts::start().await;
    let user = verified(&test, "ada").await;
    for operation in [Operation::Sync, Operation::Write] {
        // Nothing else is to meet the fault.
        test.drain().await;
        let name = format!("{operation:?}");
        let reopenings = test.storage_state().reopenings;
        test.disk().fail_nth(operation, 1, ErrorKind::Other);
        within(test.ask(named(&name, Disable { user }))).await.unwrap();
        assert_eq!(test.storage_state().reopenings, reopenings + 1);
        assert_eq!(ends(&test.recorded(), &name), [(SignalKind::UserDisabled, String::new())]);
        test.enable(Enable { user }).await.unwrap();
    }
    test.drain().await;
    assert_lawful(&test.recorded());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_lets_admitted_flows_end_and_they_are_in_the_log_of_the_next_start() {
    let test = TestAccounts::configured(unlimited).await;
    verified(&test, "ada").await;
    test.hold_hashing(true);
    let name = |number: usize| format!("login-{number}");
    let flows: Vec<_> =
        (0..20).map(|number| test.tell(named(&name(number), login("ada", PASSWORD))).unwrap()).collect();
    until(|| test.hasher_state().queued == 20).await;
    let accounts = test.accounts().clone();
    let shutdown = tokio::spawn(async move { accounts.shutdown().await });
    // Admission is closed before anything is waited for.
    let refused = || matches!(test.tell(Enable { user: UserId::new() }), Err(Error::Stopped));
    until(refused).await;
    assert!(refused() && refused());
    test.hold_hashing(false);
    for flow in flows {
        let ended = within(flow).await.unwrap();
        assert!(ended.is_ok(), "{:?}", ended.err());
    }
    assert!(within(shutdown).await.unwrap());
    let test = test.restart().await.unwrap();
    let log = test.recorded();
    for number in 0..20 {
        assert_eq!(ends(&log, &name(number)), [(SignalKind::UserAuthenticated, String::new())]);
    }
    assert_eq!(refusals(&test, RefusalCause::Stopped), 3, "those that came too late are counted");
    test.drain().await;
    assert_lawful(&test.recorded());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_that_a_shutdown_cut_off_is_told_so_left_no_half_in_the_log_and_runs_again() {
    let test = TestAccounts::configured(|config| config.shutdown_within = Duration::from_millis(300)).await;
    verified(&test, "ada").await;
    test.drain().await;
    let mut heard = Heard::listen(&test).await;
    test.hold_hashing(true);
    let command = named("cut", login("ada", PASSWORD));
    let flow = test.tell(command.clone()).unwrap();
    until(|| test.hasher_state().queued == 1).await;
    assert!(!within(test.shutdown()).await, "it was not done in time");
    assert_error(within(flow).await.unwrap(), "stopped", false);
    let end = heard.next(|envelope| is_end(envelope, "cut")).await;
    assert_eq!((end.seq, told(&end)), (None, (SignalKind::UserAuthenticationFailed, "interrupted".to_owned())));
    test.hold_hashing(false);
    let test = test.restart().await.unwrap();
    assert_eq!(ends(&test.recorded(), "cut"), []);
    test.authenticate(command).await.unwrap();
    assert_eq!(ends(&test.recorded(), "cut"), [(SignalKind::UserAuthenticated, String::new())]);
    test.drain().await;
    assert_lawful(&test.recorded());
}

/// How many requests were refused for this cause, as the log tells.
fn refusals(test: &TestAccounts, cause: RefusalCause) -> u64 {
    let counts = test.recorded().into_iter().map(|envelope| match envelope.signal {
        Signal::RequestsRefused { reason, count } if reason == cause => count,
        _ => 0,
    });
    counts.sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_without_a_place_are_refused_at_once_begin_no_flow_and_are_counted() {
    let test = TestAccounts::configured(|config| config.requests = 1).await;
    let user = verified(&test, "ada").await;
    test.drain().await;
    test.hold_hashing(true);
    let before = test.head();
    let flow = test.tell(named("admitted", login("ada", PASSWORD))).unwrap();
    until(|| test.hasher_state().queued == 1).await;
    for number in 0..17 {
        if number % 2 == 0 {
            assert_error(within(test.ask(named("refused", login("ada", PASSWORD)))).await, "overloaded", true);
        } else {
            assert_eq!(test.tell(named("refused", Disable { user })).unwrap_err(), Error::Overloaded);
        }
    }
    test.drain().await;
    assert_eq!(refusals(&test, RefusalCause::Overloaded), 17);
    test.hold_hashing(false);
    within(flow).await.unwrap().unwrap();
    test.drain().await;
    let log = test.signals(before, 100).await.unwrap();
    assert!(log.iter().all(|envelope| envelope.context.told_request_id() != Some("refused")));
    assert_eq!(ends(&log, "admitted"), [(SignalKind::UserAuthenticated, String::new())]);
    assert_eq!(refusals(&test, RefusalCause::Overloaded), 17, "told once");
    assert_lawful(&test.recorded());
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_during_an_outage_are_refused_at_once_begin_no_flow_and_are_counted() {
    let test = TestAccounts::start().await;
    let user = verified(&test, "ada").await;
    test.drain().await;
    let met = take_out(&test, user).await;
    for _ in 0..9 {
        assert_error(within(test.ask(named("refused", Disable { user }))).await, "storage_unavailable", true);
        assert_error(within(test.ask(named("refused", login("nobody", "x")))).await, "storage_unavailable", true);
    }
    heal(&test).await;
    within(met).await.unwrap();
    test.drain().await;
    assert_eq!(refusals(&test, RefusalCause::StorageUnavailable), 18);
    assert_eq!(ends(&test.recorded(), "refused"), []);
    assert_lawful(&test.recorded());
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_after_the_shutdown_are_answered_stopped() {
    let test = TestAccounts::start().await;
    let user = verified(&test, "ada").await;
    assert!(within(test.shutdown()).await);
    assert_error(within(test.ask(named("late", login("ada", PASSWORD)))).await, "stopped", false);
    assert_error(within(test.ask(named("late", Disable { user }))).await, "stopped", false);
    assert_eq!(test.tell(named("late", Disable { user })).unwrap_err(), Error::Stopped);
    let test = test.restart().await.unwrap();
    assert_eq!(ends(&test.recorded(), "late"), []);
    test.drain().await;
    assert_lawful(&test.recorded());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_id_used_for_something_else_begins_no_flow() {
    let test = TestAccounts::start().await;
    let user = verified(&test, "ada").await;
    let first = named("first", Disable { user });
    test.ask(first.clone()).await.unwrap();
    let other = named("reused", Enable { user }).id(first.id);
    assert_error(test.ask(other).await, "command_id_reused", false);
    assert_eq!(test.ask(first).await.unwrap().version, 3, "answered again, not run again");
    assert_eq!(ends(&test.recorded(), "first"), [(SignalKind::UserDisabled, String::new())]);
    assert_eq!(ends(&test.recorded(), "reused"), []);
    test.drain().await;
    assert_lawful(&test.recorded());
}

const BUDGET: u32 = 5;

fn few_failures(config: &mut Config) {
    config.policy.failures_per_source = BUDGET;
    unlimited(config);
}

/// A login with the wrong password from an address.
async fn mistype(test: &TestAccounts, identifier: &str, from: &str) {
    let source: IpAddr = from.parse().unwrap();
    let command = Command::new(login(identifier, OTHER_PASSWORD));
    let command = command.context(Context::new().request_id(from).client_ip(source));
    let refused = within(test.authenticate(command)).await.unwrap_err();
    assert_eq!(refused, Error::Refused(AuthenticateReason::InvalidCredentials));
}

/// How many failures were counted instead of recorded, as the log tells.
fn aggregated(test: &TestAccounts) -> u64 {
    let counts = test.recorded().into_iter().map(|envelope| match envelope.signal {
        Signal::FailuresAggregated { flow: FlowKind::Authenticate, count } => count,
        _ => 0,
    });
    counts.sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_failures_of_one_source_is_recorded_up_to_its_budget_and_counted_beyond() {
    for identifier in ["ada", "nobody"] {
        let test = TestAccounts::configured(few_failures).await;
        verified(&test, "ada").await;
        test.drain().await;
        let mut heard = Heard::listen(&test).await;
        for _ in 0..20 {
            mistype(&test, identifier, "192.0.2.1").await;
        }
        let mut live = BTreeSet::new();
        while live.len() < 20 {
            let end = heard.next(|envelope| is_end(envelope, "192.0.2.1")).await;
            assert!(live.insert(end.id.to_string()), "each end is told once");
        }
        test.drain().await;
        assert_eq!(ends(&test.recorded(), "192.0.2.1").len(), BUDGET as usize, "{identifier}");
        assert_eq!(aggregated(&test), 15, "{identifier}");
        mistype(&test, identifier, "192.0.2.2").await;
        assert_eq!(ends(&test.recorded(), "192.0.2.2").len(), 1, "another source has its own budget");
        test.advance(Duration::from_secs(60));
        mistype(&test, identifier, "192.0.2.1").await;
        assert_eq!(ends(&test.recorded(), "192.0.2.1").len(), BUDGET as usize + 1, "the next minute is a new one");
        test.drain().await;
        assert_eq!(aggregated(&test), 15, "{identifier}");
        assert_lawful(&test.recorded());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_from_one_network_of_64_bits_is_one_source_and_a_right_password_still_opens() {
    let test = TestAccounts::configured(few_failures).await;
    verified(&test, "ada").await;
    for number in 0..20 {
        mistype(&test, "ada", &format!("2001:db8::{number:x}")).await;
    }
    let source: IpAddr = "2001:db8::1".parse().unwrap();
    let right = named("right", login("ada", PASSWORD)).context(Context::new().request_id("right").client_ip(source));
    test.authenticate(right).await.unwrap();
    test.drain().await;
    assert_eq!(aggregated(&test), 15);
    assert_eq!(ends(&test.recorded(), "right"), [(SignalKind::UserAuthenticated, String::new())]);
    assert_lawful(&test.recorded());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_fifty_flows_at_once_ten_panic_and_forty_succeed() {
    let test = TestAccounts::configured(unlimited).await;
    verified(&test, "ada").await;
    test.hold_hashing(true);
    let registering = |number: usize| Register { username: Some(format!("user-{number}")), ..Register::new(PASSWORD) };
    let logins: Vec<_> = (0..25).map(|_| test.tell(login("ada", PASSWORD)).unwrap()).collect();
    let registrations: Vec<_> = (0..25).map(|number| test.tell(registering(number)).unwrap()).collect();
    until(|| test.hasher_state().queued == 50).await;
    test.fail_hashing(10);
    test.hold_hashing(false);
    let (mut succeeded, mut failed) = (0, 0);
    for flow in logins {
        match within(flow).await.unwrap() {
            Ok(_) => succeeded += 1,
            Err(error) => failed += usize::from(error == Error::Unexpected),
        }
    }
    let mut users = 1;
    for flow in registrations {
        match within(flow).await.unwrap() {
            Ok(_) => users += 1,
            Err(error) => failed += usize::from(error == Error::Unexpected),
        }
    }
    assert_eq!((succeeded + users - 1, failed), (40, 10));
    assert_eq!(test.users(None, 100).await.unwrap().len(), users);
    test.drain().await;
    let log = test.recorded();
    let count = |kind| log.iter().filter(|envelope| envelope.signal.kind() == kind).count();
    assert_eq!(count(SignalKind::UserAuthenticated), succeeded);
    assert_eq!(count(SignalKind::UserAuthenticated) + count(SignalKind::UserAuthenticationFailed), 25);
    assert_eq!(count(SignalKind::UserRegistered) + count(SignalKind::UserRegistrationFailed), 26);
    assert_lawful(&log);
}
