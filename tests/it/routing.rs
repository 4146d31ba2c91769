//! Routing: a transport that is out costs nothing but time, one of several notifiers sends, and what is told stays true.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use majordomo::notifier::{
    CapturedOutbox, Notifier, NotifierSettings, OutgoingMessage, SendError, Templates, Transport, TransportStatus,
    TransportTerms,
};
use majordomo::testing::{BASE_URL, TestAccounts};
use majordomo::{
    Accounts, Actor, Authenticate, Capability, ChangePassword, Channel, Claimant, Command, Config, ConfirmEmail,
    Context, Envelope, Failure, FlowKind, HashParameters, MessageKind, Password, Proof, Register,
    RequestEmailVerification, Signal, SignalId, SignalKind, Start, Subscription, UserId,
};
use tokio::sync::Semaphore;

use crate::listening::{PASSWORD, soon, until};

const HOUR: Duration = Duration::from_secs(3_600);
/// Longer than any breaker or claim lasts.
const LATER: Duration = Duration::from_secs(15 * 60);

/// A mail server that is up or out, and counts who knocks.
#[derive(Clone)]
struct Server {
    is_up: Arc<AtomicBool>,
    panics: Arc<AtomicBool>,
    knocks: Arc<AtomicUsize>,
    outbox: CapturedOutbox,
}

impl Server {
    fn new(is_up: bool) -> Self {
        let is_up = Arc::new(AtomicBool::new(is_up));
        Self { is_up, panics: Arc::default(), knocks: Arc::default(), outbox: CapturedOutbox::new() }
    }

    fn sent(&self) -> Vec<SignalId> {
        self.outbox.messages().iter().map(|message| message.id).collect()
    }

    fn knocks(&self) -> usize {
        self.knocks.load(Ordering::SeqCst)
    }
}

impl Transport for Server {
    fn channel(&self) -> Channel {
        Channel::Email
    }

    async fn send(&self, message: &OutgoingMessage) -> Result<(), SendError> {
        self.knocks.fetch_add(1, Ordering::SeqCst);
        assert!(!self.panics.load(Ordering::SeqCst), "on purpose");
        if self.is_up.load(Ordering::SeqCst) {
            return self.outbox.transport(Channel::Email).send(message).await;
        }
        Err(SendError::unavailable("connection refused"))
    }
}

/// A transport that holds messages until its gate is opened.
#[derive(Clone)]
struct Gate {
    open: Arc<Semaphore>,
    entered: Arc<Mutex<Vec<SignalId>>>,
    outbox: CapturedOutbox,
}

impl Gate {
    fn closed() -> Self {
        Self { open: Arc::new(Semaphore::new(0)), entered: Arc::default(), outbox: CapturedOutbox::new() }
    }

    async fn entered(&self) {
        until(|| !self.entered.lock().unwrap().is_empty()).await;
    }
}

impl Transport for Gate {
    fn channel(&self) -> Channel {
        Channel::Email
    }

    async fn send(&self, message: &OutgoingMessage) -> Result<(), SendError> {
        self.entered.lock().unwrap().push(message.id);
        self.open.acquire().await.unwrap().forget();
        self.outbox.transport(Channel::Email).send(message).await
    }
}

fn config() -> Config {
    let mut config = Config::default();
    config.hashing.parameters = HashParameters::cheap_for_tests();
    config.hashing.queue = Some(10_000);
    config.messages = Some(NotifierSettings::new("Example", BASE_URL));
    config
}

/// A system that sends by these servers, in this order, once the kit's own transport for mail is out of the way.
async fn with_servers(config: Config, servers: &[Server]) -> TestAccounts {
    let test = TestAccounts::with(config, |builder| {
        servers.iter().fold(builder, |builder, server| builder.transport(server.clone()))
    });
    let test = soon(test).await;
    shut_out_the_kit(&test);
    test
}

/// The kit's own transport comes first; it is out whenever it is asked.
fn shut_out_the_kit(test: &TestAccounts) {
    test.messages().fail_next(10_000, SendError::unavailable("the kit's own"));
}

async fn register(accounts: &Accounts, email: &str) -> UserId {
    soon(accounts.register(Register { email: Some(email.to_owned()), ..Register::new(PASSWORD) })).await.unwrap().user
}

async fn change_password(accounts: &Accounts, user: UserId) {
    let (current, new) = (Password::new(PASSWORD), Password::new(PASSWORD.to_uppercase()));
    soon(accounts.change_password(ChangePassword { user, current, new, keep: None })).await.unwrap();
}

fn sign_in(identifier: &str, address: &str) -> Command<Authenticate> {
    let context = Context::new().client_ip(address.parse().unwrap()).user_agent("Firefox/139.0 (Windows)");
    let (identifier, password) = (identifier.to_owned(), Password::new(PASSWORD));
    Command::new(Authenticate { identifier, password }).context(context)
}

/// Lets as much time pass as it takes until nothing waits for a transport or a claim any more.
async fn settle(test: &TestAccounts) {
    for _ in 0..6 {
        soon(test.drain()).await;
        test.advance(LATER);
    }
    soon(test.drain()).await;
}

/// What ended each delivery, by the signal that started it.
fn ends(recorded: &[Envelope]) -> BTreeMap<SignalId, Vec<SignalKind>> {
    let starts = recorded.iter().filter(|told| told.signal.kind().starts().contains(&FlowKind::Delivery));
    let ends_of = |start: &Envelope| {
        let same = recorded.iter().filter(|told| told.flow == start.flow && told.id != start.id);
        same.map(|told| told.signal.kind()).collect()
    };
    starts.map(|start| (start.id, ends_of(start))).collect()
}

/// Whether each delivery has exactly this one end.
fn all_ended(recorded: &[Envelope], kind: SignalKind) -> bool {
    ends(recorded).values().all(|ends| *ends == [kind])
}

fn notifications_failed(recorded: &[Envelope]) -> Vec<(MessageKind, Failure)> {
    let failed = recorded.iter().filter_map(|told| match told.signal {
        Signal::NotificationFailed { message, reason, .. } => Some((message, reason)),
        _ => None,
    });
    failed.collect()
}

/// A further notifier that sends by the same server.
fn further(name: &str, transport: impl Transport) -> Subscription {
    let notifier = Notifier::new(NotifierSettings::new("Example", BASE_URL), Templates::embedded()).unwrap();
    let notifier = notifier.with_transport(transport);
    let subscription = Subscription::new(name, notifier).start(Start::Beginning).concurrency(16);
    subscription.capability(Capability::Deliver)
}

fn is_unique(ids: &[SignalId]) -> bool {
    ids.iter().collect::<BTreeSet<_>>().len() == ids.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_transport_has_what_the_first_is_out_for_and_only_the_truth_is_told() {
    let servers = [Server::new(false), Server::new(true)];
    let test = with_servers(config(), &servers).await;
    for number in 0..12 {
        register(&test, &format!("user{number}@example.com")).await;
    }
    soon(test.drain()).await;
    assert_eq!((servers[0].sent().len(), servers[1].sent().len()), (0, 12));
    assert!(is_unique(&servers[1].sent()));
    assert!(all_ended(&test.recorded(), SignalKind::UserEmailVerificationInitiated));
    let states: Vec<_> = test.transports().into_iter().filter(|state| state.channel == Channel::Email).collect();
    assert_eq!(
        states.iter().map(|state| state.status).collect::<Vec<_>>(),
        [TransportStatus::Open, TransportStatus::Open, TransportStatus::Closed]
    );
    assert!(servers[0].knocks() < 12 + 16, "it is left alone");
    assert_eq!(soon(test.tree()).await.subscription("notifier").unwrap().failures, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_server_that_is_out_for_three_days_loses_nothing_and_delays_no_login() {
    let mut config = config();
    // A link that verifies is over after a day; what tells of a change can wait.
    config.messages.as_mut().unwrap().give_up_after = 7 * 24 * HOUR;
    let server = Server::new(true);
    let mut test = with_servers(config, std::slice::from_ref(&server)).await;
    let mut users = Vec::new();
    for number in 0..24 {
        let email = format!("user{number}@example.com");
        users.push(register(&test, &email).await);
        soon(test.drain()).await;
        let proof = Proof::from_link(server.outbox.last_to(&email).unwrap().link().unwrap()).unwrap();
        soon(test.confirm_email(ConfirmEmail { proof })).await.unwrap();
    }
    soon(test.drain()).await;
    server.is_up.store(false, Ordering::SeqCst);
    let (before, knocks) = (server.sent().len(), server.knocks());
    assert_eq!(before, 24);
    soon(test.register(Register { username: Some("ada".to_owned()), ..Register::new(PASSWORD) })).await.unwrap();
    let mut hours = 0;
    for day in 0..3 {
        for number in 0..8 {
            change_password(&test, users[8 * day + number]).await;
            // Answered, whatever becomes of the mail.
            let (identifier, password) = ("ada".to_owned(), Password::new(PASSWORD));
            soon(test.authenticate(Authenticate { identifier, password })).await.unwrap();
        }
        for _ in 0..24 {
            test.advance(HOUR);
            hours += 1;
            soon(test.drain()).await;
        }
        let told = notifications_failed(&test.recorded()).len();
        assert_eq!((server.sent().len(), told), (before, 0), "nothing is told of what is not known");
        let notifier = soon(test.tree()).await.subscription("notifier").unwrap().clone();
        assert_eq!((notifier.failures, notifier.given_up), (0, 0), "no attempt is burnt");
        let again = server.clone();
        test = soon(test.restart_with(|builder| builder.transport(again))).await.unwrap();
    }
    let logins = test.recorded().iter().filter(|told| told.signal.kind() == SignalKind::UserAuthenticated).count();
    assert_eq!(logins, 24);
    let knocks = server.knocks() - knocks;
    assert!(knocks <= 5 * 16 + 4 * hours, "{knocks} knocks in {hours} hours");
    register(&test, "late@example.com").await;
    server.is_up.store(true, Ordering::SeqCst);
    settle(&test).await;
    let sent = server.sent();
    assert_eq!((sent.len(), is_unique(&sent)), (before + 24 + 1, true));
    let changed = test.recorded().into_iter().filter(|told| told.signal.kind() == SignalKind::PasswordChanged);
    let due: BTreeSet<_> = ends(&test.recorded()).into_keys().chain(changed.map(|told| told.id)).collect();
    assert_eq!(sent.into_iter().collect::<BTreeSet<_>>(), due);
    assert!(all_ended(&test.recorded(), SignalKind::UserEmailVerificationInitiated));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_over_before_the_server_is_back_ends_as_failed_and_is_not_sent() {
    let server = Server::new(false);
    let test = with_servers(config(), std::slice::from_ref(&server)).await;
    let ada = register(&test, "ada@example.com").await;
    soon(test.drain()).await;
    // Superseded while it waits: the newest alone is of use.
    let claimant = Claimant::User { user: ada, contact: None };
    soon(test.request_email_verification(RequestEmailVerification { claimant })).await.unwrap();
    soon(test.drain()).await;
    assert!(ends(&test.recorded()).values().all(Vec::is_empty));
    test.advance(LATER);
    soon(test.drain()).await;
    let ended: Vec<_> = ends(&test.recorded()).into_values().collect();
    assert_eq!(ended, [vec![SignalKind::UserEmailVerificationFailed], vec![]]);
    // Expired while it waits, as is the notice that follows.
    change_password(&test, ada).await;
    soon(test.drain()).await;
    for _ in 0..80 {
        test.advance(HOUR);
        soon(test.drain()).await;
    }
    server.is_up.store(true, Ordering::SeqCst);
    settle(&test).await;
    assert!(all_ended(&test.recorded(), SignalKind::UserEmailVerificationFailed));
    assert!(server.sent().is_empty());
    // Nobody has proven an address: there is none to tell of the password.
    assert!(notifications_failed(&test.recorded()).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_given_up_only_once_every_transport_has_refused_it() {
    let test = TestAccounts::with(config(), |builder| {
        let second = CapturedOutbox::new();
        second.fail_next(1, SendError::Permanent("554".to_owned()));
        builder.transport_with(second.transport(Channel::Email), TransportTerms::named("second"))
    });
    let test = soon(test).await;
    test.messages().fail_next(1, SendError::Permanent("550".to_owned()));
    register(&test, "ada@example.com").await;
    soon(test.drain()).await;
    assert!(all_ended(&test.recorded(), SignalKind::UserEmailVerificationFailed));
    let second = test.transports().into_iter().find(|state| state.name == "second").unwrap();
    assert_eq!((second.refused, second.status), (1, TransportStatus::Closed), "a refusal is no outage");

    // Refused by one and accepted by the other is accepted.
    test.messages().fail_next(1, SendError::Permanent("550".to_owned()));
    let bob = register(&test, "bob@example.com").await;
    soon(test.drain()).await;
    let kinds = test.kinds_of(bob);
    assert!(kinds.contains(&SignalKind::UserEmailVerificationInitiated));
    assert!(!kinds.contains(&SignalKind::UserEmailVerificationFailed));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transport_that_panics_is_passed_by() {
    let servers = [Server::new(true), Server::new(true)];
    servers[0].panics.store(true, Ordering::SeqCst);
    let test = with_servers(config(), &servers).await;
    register(&test, "ada@example.com").await;
    soon(test.drain()).await;
    assert_eq!((servers[0].sent().len(), servers[1].sent().len()), (0, 1));
    assert!(all_ended(&test.recorded(), SignalKind::UserEmailVerificationInitiated));
    assert!(!test.recorded().iter().any(|told| told.signal.kind() == SignalKind::SubscriberRestarted));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_notifiers_at_once_send_each_message_once_and_end_it_once() {
    let server = Server::new(true);
    let test = with_servers(config(), std::slice::from_ref(&server)).await;
    soon(test.add(further("second", server.clone()))).await.unwrap();
    for number in 0..50 {
        let email = format!("user{number}@example.com");
        register(&test, &email).await;
    }
    settle(&test).await;
    let links: Vec<_> = server.outbox.messages().iter().map(|message| message.link().unwrap().to_owned()).collect();
    for link in links {
        let proof = Proof::from_link(&link).unwrap();
        let user = soon(test.confirm_email(ConfirmEmail { proof })).await.unwrap().user;
        change_password(&test, user).await;
    }
    settle(&test).await;
    let sent = server.sent();
    assert_eq!((sent.len(), is_unique(&sent)), (100, true));
    assert!(all_ended(&test.recorded(), SignalKind::UserEmailVerificationInitiated));
    assert!(notifications_failed(&test.recorded()).is_empty());
    let tree = soon(test.tree()).await;
    for name in ["notifier", "second"] {
        let subscription = tree.subscription(name).unwrap();
        assert_eq!((subscription.failures, subscription.retrying), (0, 0), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notifier_that_is_set_back_sends_nothing_again() {
    let server = Server::new(true);
    let mut test = with_servers(config(), std::slice::from_ref(&server)).await;
    let ada = register(&test, "ada@example.com").await;
    soon(test.drain()).await;
    let proof = Proof::from_link(server.outbox.messages()[0].link().unwrap()).unwrap();
    soon(test.confirm_email(ConfirmEmail { proof })).await.unwrap();
    change_password(&test, ada).await;
    settle(&test).await;
    let (sent, ended) = (server.sent(), ends(&test.recorded()));
    assert_eq!(sent.len(), 2);
    // Long after too, when the messages would be given up as too late.
    for days in [0, 10] {
        test.advance(days * 24 * HOUR);
        soon(test.move_subscription("notifier", Start::Beginning, Actor::System)).await.unwrap();
        settle(&test).await;
        soon(test.sweep()).await;
        let again = server.clone();
        test = soon(test.restart_with(|builder| builder.transport(again))).await.unwrap();
        shut_out_the_kit(&test);
    }
    soon(test.rebuild_projection("notifier", Actor::System)).await.unwrap();
    soon(test.add(further("another", server.clone()))).await.unwrap();
    settle(&test).await;
    assert_eq!((server.sent(), ends(&test.recorded())), (sent, ended));
    assert!(notifications_failed(&test.recorded()).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_notifier_takes_over_once_the_claim_of_one_that_hangs_is_over() {
    let (gate, server) = (Gate::closed(), Server::new(true));
    let inner = gate.clone();
    let test = soon(TestAccounts::with(config(), |builder| builder.transport(inner))).await;
    shut_out_the_kit(&test);
    register(&test, "ada@example.com").await;
    gate.entered().await;
    soon(test.add(further("second", server.clone()))).await.unwrap();
    soon(test.detach("notifier")).await.unwrap();
    soon(test.drain()).await;
    assert!(server.sent().is_empty() && ends(&test.recorded()).values().all(Vec::is_empty), "it is claimed");
    test.advance(LATER);
    soon(test.drain()).await;
    assert_eq!((server.sent().len(), gate.outbox.messages().len()), (1, 0));
    assert!(all_ended(&test.recorded(), SignalKind::UserEmailVerificationInitiated));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_crash_a_notifier_goes_on_with_its_own_claim_at_once() {
    let gate = Gate::closed();
    let inner = gate.clone();
    let test = soon(TestAccounts::with(config(), |builder| builder.transport(inner))).await;
    test.messages().fail_next(1, SendError::unavailable("the kit's own"));
    register(&test, "ada@example.com").await;
    gate.entered().await;
    let crashed = soon(test.crashed(7)).await.unwrap();
    soon(crashed.drain()).await;
    let sent = test.messages().messages();
    assert_eq!(sent.iter().map(|message| message.id).collect::<Vec<_>>(), *gate.entered.lock().unwrap());
    assert!(all_ended(&crashed.recorded(), SignalKind::UserEmailVerificationInitiated));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_slow_message_does_not_hold_up_those_of_others() {
    let gate = Gate::closed();
    let inner = gate.clone();
    let test = soon(TestAccounts::with(config(), |builder| builder.transport(inner))).await;
    test.messages().fail_next(1, SendError::unavailable("the kit's own"));
    register(&test, "ada@example.com").await;
    gate.entered().await;
    register(&test, "bob@example.com").await;
    soon(test.messages().wait_for(1)).await;
    assert!(test.messages().last_to("bob@example.com").is_some());
    gate.open.add_permits(1);
    soon(test.drain()).await;
    assert_eq!(gate.outbox.messages().len(), 1);
    assert!(all_ended(&test.recorded(), SignalKind::UserEmailVerificationInitiated));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_in_from_elsewhere_is_told_to_its_user() {
    let test = TestAccounts::start().await;
    let ada = register(&test, "ada@example.com").await;
    soon(test.drain()).await;
    let proof = Proof::from_link(test.messages().take()[0].link().unwrap()).unwrap();
    soon(test.confirm_email(ConfirmEmail { proof })).await.unwrap();
    for address in ["203.0.113.7", "203.0.113.200", "198.51.100.1", "203.0.113.7"] {
        soon(test.authenticate(sign_in("ada@example.com", address))).await.unwrap();
    }
    soon(test.drain()).await;
    let sent = test.messages().take();
    let [message] = sent.as_slice() else { panic!("{sent:?}") };
    assert_eq!((message.kind, message.to.as_str()), (MessageKind::NewSignIn, "ada@example.com"));
    assert!(message.text.contains("Firefox on Windows") && message.text.contains("198.51.100.*"), "{}", message.text);
    assert!(test.user(ada).unwrap().is_some());
}
