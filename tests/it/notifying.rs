//! Notifying: each due message is sent once to its exact address, and the signals tell truly what became of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use majordomo::notifier::{
    CapturedMessage, CapturedOutbox, Maildir, Notifier, NotifierSettings, OutgoingMessage, SendError, Templates,
    Transport,
};
use majordomo::testing::{BASE_URL, TestAccounts};
use majordomo::{
    Accounts, AddContact, Authority, BuildError, Builder, Capability, ChangeContact, ChangePassword, Channel, Claimant,
    Clock, Config, ConfirmEmail, ConfirmPhone, ContactClaim, Delete, Envelope, ErrorType, Failure, Filter, FlowKind,
    HashParameters, MessageKind, OneTimeCode, Password, Proof, Register, RequestEmailVerification,
    RequestPasswordReset, ResetPassword, Signal, SignalId, SignalKind, Start, Subscription, TokenId, UserId,
};
use tokio::sync::Semaphore;

use crate::listening::{PASSWORD, soon, until};

const NEW_PASSWORD: &str = "seventeen purple elephants";

async fn register(accounts: &Accounts, email: Option<&str>, phone: Option<&str>) -> majordomo::Accepted {
    let request =
        Register { email: email.map(str::to_owned), phone: phone.map(str::to_owned), ..Register::new(PASSWORD) };
    soon(accounts.register(request)).await.unwrap()
}

async fn confirm(accounts: &Accounts, link: &str) -> UserId {
    let proof = Proof::from_link(link).unwrap();
    soon(accounts.confirm_email(ConfirmEmail { proof })).await.unwrap().user
}

/// Registers a user and proves the address; the messages until then are taken away.
async fn proven(test: &TestAccounts, email: &str) -> UserId {
    register(test, Some(email), None).await;
    soon(test.drain()).await;
    let user = confirm(test, test.messages().last_to(email).unwrap().link().unwrap()).await;
    soon(test.drain()).await;
    let _ = test.messages().take();
    user
}

async fn request_verification(accounts: &Accounts, user: UserId) -> TokenId {
    let claimant = Claimant::User { user, contact: None };
    soon(accounts.request_email_verification(RequestEmailVerification { claimant })).await.unwrap().challenge
}

async fn request_reset(accounts: &Accounts, identifier: &str, channel: Channel) -> TokenId {
    let request = RequestPasswordReset { identifier: identifier.to_owned(), channel };
    soon(accounts.request_password_reset(request)).await.unwrap().challenge
}

/// The signals that start deliveries, and the kinds that end each.
fn deliveries(recorded: &[Envelope]) -> Vec<(Envelope, Vec<Envelope>)> {
    let starts = recorded.iter().filter(|told| told.signal.kind().starts().contains(&FlowKind::Delivery));
    let ends = |start: &Envelope| {
        recorded.iter().filter(|told| told.flow == start.flow && told.id != start.id).cloned().collect()
    };
    starts.map(|start| (start.clone(), ends(start))).collect()
}

fn kinds(envelopes: &[Envelope]) -> Vec<SignalKind> {
    envelopes.iter().map(|envelope| envelope.signal.kind()).collect()
}

/// A system of its own over a file, for what the kit's transports would hide.
fn builder(file: &Path, clock: &Clock) -> Builder {
    let configure = |config: &mut Config| {
        config.hashing.parameters = HashParameters::cheap_for_tests();
        config.hashing.queue = Some(1_000);
        config.messages = Some(NotifierSettings::new("Example", "https://example.com/app/"));
    };
    Accounts::builder().file(file).clock(clock.clone()).configure(configure)
}

fn clock() -> Clock {
    Clock::manual(majordomo::testing::START)
}

/// A transport that answers as its gate says: it waits at a closed one.
#[derive(Clone)]
struct Gate {
    open: Arc<Semaphore>,
    entered: Arc<AtomicUsize>,
    outbox: CapturedOutbox,
}

impl Gate {
    fn closed() -> Self {
        Self { open: Arc::new(Semaphore::new(0)), entered: Arc::default(), outbox: CapturedOutbox::new() }
    }

    async fn entered(&self, count: usize) {
        until(|| self.entered.load(Ordering::SeqCst) >= count).await;
    }
}

impl Transport for Gate {
    fn channel(&self) -> Channel {
        Channel::Email
    }

    async fn send(&self, message: &OutgoingMessage) -> Result<(), SendError> {
        self.entered.fetch_add(1, Ordering::SeqCst);
        self.open.acquire().await.unwrap().forget();
        self.outbox.transport(Channel::Email).send(message).await
    }
}

/// A transport that refuses everything for now, until it is repaired.
#[derive(Clone, Default)]
struct Broken {
    attempted: Arc<Mutex<Vec<SignalId>>>,
    repaired: Arc<AtomicBool>,
    outbox: CapturedOutbox,
}

impl Transport for Broken {
    fn channel(&self) -> Channel {
        Channel::Email
    }

    async fn send(&self, message: &OutgoingMessage) -> Result<(), SendError> {
        self.attempted.lock().unwrap().push(message.id);
        if self.repaired.load(Ordering::SeqCst) {
            return self.outbox.transport(Channel::Email).send(message).await;
        }
        Err(SendError::Transient("421".to_owned()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_due_message_is_sent_once_to_the_exact_address_with_a_link_and_a_code_that_work() {
    let test = TestAccounts::start().await;
    let accepted = register(&test, Some("Ada.Lovelace@Example.com"), Some("+44 7911 123456")).await;
    soon(test.drain()).await;
    let mail = test.messages().last_to("Ada.Lovelace@example.com").unwrap();
    let text = test.messages().last_to("+447911123456").unwrap();
    confirm(&test, mail.link().unwrap()).await;
    let (challenge, code) = (accepted.phone_challenge.unwrap(), OneTimeCode::new(text.code().unwrap()));
    soon(test.confirm_phone(ConfirmPhone { proof: Proof::Code { challenge, code } })).await.unwrap();
    request_reset(&test, "ada.lovelace@example.com", Channel::Email).await;
    let challenge = request_reset(&test, "+447911123456", Channel::Phone).await;
    soon(test.drain()).await;

    let mut sent = test.messages().messages();
    // A further address that is proven is told to the first one.
    sent.retain(|message| message.kind != MessageKind::ContactAdded);
    let deliveries = deliveries(&test.recorded());
    assert_eq!((sent.len(), deliveries.len()), (4, 4));
    let verification = format!("{BASE_URL}/accounts/user_verification_confirm/");
    let reset = format!("{BASE_URL}/accounts/password_reset_confirm/");
    let (mail, text) = ("Ada.Lovelace@example.com", "+447911123456");
    let expected = BTreeMap::from([
        (MessageKind::VerifyEmail, (SignalKind::VerifyEmail, mail, Some(&verification), 6)),
        (MessageKind::VerifyPhone, (SignalKind::VerifyPhone, text, None, 6)),
        (MessageKind::ResetPasswordEmail, (SignalKind::ResetPasswordEmail, mail, Some(&reset), 8)),
        (MessageKind::ResetPasswordPhone, (SignalKind::ResetPasswordPhone, text, None, 8)),
    ]);
    assert_eq!(sent.iter().map(|message| message.kind).collect::<BTreeSet<_>>().len(), 4);
    for message in &sent {
        let (signal, to, path, digits) = expected[&message.kind];
        let (start, _) = deliveries.iter().find(|(start, _)| start.id == message.id).unwrap();
        assert_eq!((start.signal.kind(), message.to.as_str(), message.at), (signal, to, start.at));
        assert_eq!(message.code().map(str::len), Some(digits));
        assert_eq!(message.link().is_some(), path.is_some(), "a text message bears the code");
        assert!(message.link().is_none_or(|link| link.starts_with(path.unwrap()) && link.ends_with('/')));
        assert_eq!(
            message.from.as_ref().map(|from| from.address.as_str()),
            path.map(|_| "no-reply@accounts.example.com")
        );
    }
    let code = sent.iter().find(|message| message.kind == MessageKind::ResetPasswordPhone).unwrap().code().unwrap();
    let proof = Proof::Code { challenge, code: OneTimeCode::new(code) };
    soon(test.reset_password(ResetPassword { proof, new: Password::new(NEW_PASSWORD) })).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_is_the_configured_base_url_and_a_path_whatever_the_request_said() {
    let (folder, outbox) = (tempfile::tempdir().unwrap(), CapturedOutbox::new());
    let builder = builder(&folder.path().join("a.redb"), &clock()).transport(outbox.transport(Channel::Email));
    let accounts = soon(builder.spawn()).await.unwrap();
    register(&accounts, Some("ada@example.com"), None).await;
    soon(accounts.drain()).await;
    let mail = outbox.last_to("ada@example.com").unwrap();
    assert!(mail.link().unwrap().starts_with("https://example.com/app/accounts/user_verification_confirm/"));
    confirm(&accounts, mail.link().unwrap()).await;
    assert!(soon(accounts.shutdown()).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn initiated_and_processed_are_told_only_after_the_transport_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let gate = Gate::closed();
    let builder = builder(&folder.path().join("a.redb"), &clock()).transport(gate.clone());
    let accounts = soon(builder.spawn()).await.unwrap();
    let log = async || soon(accounts.signals(0, 1_000)).await.unwrap();
    register(&accounts, Some("ada@example.com"), None).await;
    gate.entered(1).await;
    let [(start, ends)] = <[_; 1]>::try_from(deliveries(&log().await)).unwrap();
    assert_eq!((start.signal.kind(), ends.len()), (SignalKind::VerifyEmail, 0), "due, and not yet sent");
    gate.open.add_permits(1);
    soon(accounts.drain()).await;
    let [(start, ends)] = <[_; 1]>::try_from(deliveries(&log().await)).unwrap();
    let [end] = ends.as_slice() else { panic!("{ends:?}") };
    let Signal::UserEmailVerificationInitiated { delivery, address, .. } = &end.signal else { panic!("{end:?}") };
    assert_eq!(
        (*delivery, end.flow, end.cause, end.sender.as_str()),
        (start.flow, start.flow, start.cause, "notifier")
    );
    assert_eq!(address.expose(), Some("ada@example.com"));
    let registration = log().await.into_iter().find(|told| told.signal.kind() == SignalKind::UserRegistered).unwrap();
    assert_eq!(start.cause, Some(registration.flow));

    confirm(&accounts, gate.outbox.messages()[0].link().unwrap()).await;
    request_reset(&accounts, "ada@example.com", Channel::Email).await;
    gate.entered(2).await;
    assert!(deliveries(&log().await)[1].1.is_empty());
    gate.open.add_permits(1);
    soon(accounts.drain()).await;
    let (start, ends) = deliveries(&log().await).remove(1);
    assert_eq!(start.signal.kind(), SignalKind::ResetPasswordEmail);
    assert_eq!(kinds(&ends), [SignalKind::PasswordResetRequestProcessed]);
    assert_eq!(gate.outbox.messages().len(), 2);
    assert!(soon(accounts.shutdown()).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_refused_for_good_ends_as_failed_and_the_account_stands() {
    let test = TestAccounts::start().await;
    let refused = SendError::Permanent("550".to_owned());
    test.messages().fail_next(1, refused.clone());
    let ada = register(&test, Some("ada@example.com"), None).await.user;
    soon(test.drain()).await;
    let [(_, ends)] = <[_; 1]>::try_from(deliveries(&test.recorded())).unwrap();
    let [end] = ends.as_slice() else { panic!("{ends:?}") };
    let Signal::UserEmailVerificationFailed { user, token, reason, .. } = &end.signal else { panic!("{end:?}") };
    assert_eq!((*user, token.is_some(), *reason), (Some(ada), true, Failure::EmailSendFailed));
    assert!(test.messages().messages().is_empty() && test.user(ada).unwrap().is_some());

    // Asked for again, it arrives.
    request_verification(&test, ada).await;
    soon(test.drain()).await;
    confirm(&test, test.messages().take()[0].link().unwrap()).await;
    test.messages().fail_next(1, refused);
    request_reset(&test, "ada@example.com", Channel::Email).await;
    soon(test.drain()).await;
    let (_, ends) = deliveries(&test.recorded()).pop().unwrap();
    let [end] = ends.as_slice() else { panic!("{ends:?}") };
    let Signal::PasswordResetRequestFailed { user, error_type, reason, .. } = &end.signal else { panic!("{end:?}") };
    assert_eq!((*user, *error_type, *reason), (Some(ada), ErrorType::EmailSendFailed, Failure::EmailSendFailed));
    assert!(test.messages().messages().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_fails_for_a_while_is_sent_once_and_told_once() {
    let test = TestAccounts::start().await;
    test.messages().fail_next(3, SendError::Transient("421".to_owned()));
    register(&test, Some("ada@example.com"), None).await;
    soon(test.drain()).await;
    let [(start, ends)] = <[_; 1]>::try_from(deliveries(&test.recorded())).unwrap();
    assert_eq!(kinds(&ends), [SignalKind::UserEmailVerificationInitiated]);
    let sent = test.messages().messages();
    assert_eq!(sent.iter().map(|message| message.id).collect::<Vec<_>>(), [start.id]);
    let tree = soon(test.tree()).await;
    let notifier = tree.subscription("notifier").unwrap();
    assert_eq!(notifier.failures, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_message_of_a_superseded_token_is_not_sent_and_its_delivery_ends() {
    let (folder, broken) = (tempfile::tempdir().unwrap(), Broken::default());
    let clock = clock();
    let builder = builder(&folder.path().join("a.redb"), &clock).transport(broken.clone());
    let accounts = soon(builder.spawn()).await.unwrap();
    let log = async || soon(accounts.signals(0, 1_000)).await.unwrap();
    let ada = register(&accounts, Some("ada@example.com"), None).await.user;
    let first = request_verification(&accounts, ada).await;
    clock.advance(majordomo::Policy::default().messages.cool_down);
    let challenges = [first, request_verification(&accounts, ada).await];
    let newest = deliveries(&log().await)[2].0.id;
    // With the newest attempted, the others are settled.
    until(|| broken.attempted.lock().unwrap().contains(&newest)).await;
    broken.repaired.store(true, Ordering::SeqCst);
    soon(accounts.drain()).await;
    let sent = broken.outbox.messages();
    assert_eq!(sent.iter().map(|message| message.id).collect::<Vec<_>>(), [newest]);
    let deliveries = deliveries(&log().await);
    for (_, ends) in &deliveries[..2] {
        let [end] = ends.as_slice() else { panic!("{ends:?}") };
        assert!(matches!(
            end.signal,
            Signal::UserEmailVerificationFailed { reason: Failure::EmailSendFailed, user, .. } if user == Some(ada)
        ));
    }
    assert_eq!(kinds(&deliveries[2].1), [SignalKind::UserEmailVerificationInitiated]);
    let code = || OneTimeCode::new(sent[0].code().unwrap());
    let stale = Proof::Code { challenge: challenges[0], code: code() };
    assert!(soon(accounts.confirm_email(ConfirmEmail { proof: stale })).await.is_err());
    let proof = Proof::Code { challenge: challenges[1], code: code() };
    assert_eq!(soon(accounts.confirm_email(ConfirmEmail { proof })).await.unwrap().user, ada);
    assert!(soon(accounts.shutdown()).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_expired_while_the_system_was_down_ends_as_failed_and_is_not_sent() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), clock());
    let file = folder.path().join("a.redb");
    let accounts = soon(builder(&file, &clock).spawn()).await.unwrap();
    let ada = register(&accounts, Some("ada@example.com"), None).await.user;
    assert!(soon(accounts.shutdown()).await);
    clock.advance(Duration::from_secs(24 * 3_600));
    let outbox = CapturedOutbox::new();
    let accounts = soon(builder(&file, &clock).transport(outbox.transport(Channel::Email)).spawn()).await.unwrap();
    soon(accounts.drain()).await;
    let [(_, ends)] = <[_; 1]>::try_from(deliveries(&soon(accounts.signals(0, 1_000)).await.unwrap())).unwrap();
    let [end] = ends.as_slice() else { panic!("{ends:?}") };
    assert!(matches!(
        end.signal,
        Signal::UserEmailVerificationFailed { reason: Failure::EmailSendFailed, user, .. } if user == Some(ada)
    ));
    assert!(outbox.messages().is_empty());
    assert!(soon(accounts.shutdown()).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn restarts_do_not_send_again_what_was_sent() {
    let mut test = TestAccounts::start().await;
    let ada = proven(&test, "ada@example.com").await;
    let change =
        ChangePassword { user: ada, current: Password::new(PASSWORD), new: Password::new(NEW_PASSWORD), keep: None };
    soon(test.change_password(change)).await.unwrap();
    request_reset(&test, "ada@example.com", Channel::Email).await;
    soon(test.drain()).await;
    let sent: Vec<SignalId> = test.messages().messages().iter().map(|message| message.id).collect();
    assert_eq!(sent.len(), 2);
    for _ in 0..3 {
        test = soon(test.restart()).await.unwrap();
        soon(test.drain()).await;
    }
    assert_eq!(test.messages().messages().iter().map(|message| message.id).collect::<Vec<_>>(), sent);
    assert!(deliveries(&test.recorded()).iter().all(|(_, ends)| ends.len() == 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_notifier_flows_work_and_what_is_due_goes_out_when_a_transport_is_added() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), clock());
    let file = folder.path().join("a.redb");
    let accounts = soon(builder(&file, &clock).configure(|config| config.messages = None).spawn()).await.unwrap();
    let ada = register(&accounts, Some("ada@example.com"), Some("+447911123456")).await.user;
    soon(accounts.drain()).await;
    let pending = deliveries(&soon(accounts.signals(0, 1_000)).await.unwrap());
    assert!(pending.len() == 2 && pending.iter().all(|(_, ends)| ends.is_empty()));
    assert!(soon(accounts.shutdown()).await);

    let outbox = CapturedOutbox::new();
    let with_both = builder(&file, &clock).transport(outbox.transport(Channel::Email));
    let accounts = soon(with_both.transport(outbox.transport(Channel::Phone)).spawn()).await.unwrap();
    soon(accounts.drain()).await;
    let sent = outbox.messages();
    assert_eq!(
        sent.iter().map(|message| message.id).collect::<BTreeSet<_>>(),
        pending.iter().map(|(start, _)| start.id).collect()
    );
    let ended = deliveries(&soon(accounts.signals(0, 1_000)).await.unwrap());
    assert!(ended.iter().all(|(_, ends)| ends.len() == 1));
    assert_eq!(confirm(&accounts, outbox.last_to("ada@example.com").unwrap().link().unwrap()).await, ada);
    assert!(soon(accounts.shutdown()).await);
}

/// A user with a proven e-mail address and a phone number that is not proven, in a system that sends e-mail only.
async fn with_a_phone(accounts: &Accounts, outbox: &CapturedOutbox) -> UserId {
    let user = register(accounts, Some("ada@example.com"), Some("+447911123456")).await.user;
    soon(accounts.drain()).await;
    assert_eq!(confirm(accounts, outbox.last_to("ada@example.com").unwrap().link().unwrap()).await, user);
    user
}

async fn texts(accounts: &Accounts) -> Vec<(Envelope, Vec<Envelope>)> {
    let mut due = deliveries(&soon(accounts.signals(0, 1_000)).await.unwrap());
    due.retain(|(start, _)| start.signal.kind() == SignalKind::VerifyPhone);
    due
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notifier_without_a_transport_for_texts_leaves_them_to_one_that_comes_later() {
    let (folder, clock, outbox) = (tempfile::tempdir().unwrap(), clock(), CapturedOutbox::new());
    let builder = builder(&folder.path().join("a.redb"), &clock).transport(outbox.transport(Channel::Email));
    let accounts = soon(builder.spawn()).await.unwrap();
    with_a_phone(&accounts, &outbox).await;
    let due = texts(&accounts).await;
    assert!(due.len() == 1 && due.iter().all(|(_, ends)| ends.is_empty()), "{due:?}");

    let settings = NotifierSettings::new("Example", "https://example.com/app/");
    let notifier = Notifier::new(settings, Templates::embedded()).unwrap();
    let notifier = notifier.with_transport(outbox.transport(Channel::Phone));
    let only = Filter::kinds([SignalKind::VerifyPhone, SignalKind::ResetPasswordPhone]);
    let subscription = Subscription::new("texts", notifier).filter(only).start(Start::Beginning);
    soon(accounts.add(subscription.capability(Capability::Deliver))).await.unwrap();
    soon(accounts.drain()).await;
    let sent = outbox.last_to("+447911123456").unwrap();
    let [(start, ends)] = <[_; 1]>::try_from(texts(&accounts).await).unwrap();
    assert_eq!((sent.id, kinds(&ends)), (start.id, vec![SignalKind::UserPhoneVerificationInitiated]));
    assert!(soon(accounts.shutdown()).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_that_nobody_sends_end_as_expired_once_their_link_is_long_over() {
    let (folder, clock, outbox) = (tempfile::tempdir().unwrap(), clock(), CapturedOutbox::new());
    let builder = builder(&folder.path().join("a.redb"), &clock).transport(outbox.transport(Channel::Email));
    let accounts = soon(builder.spawn()).await.unwrap();
    let ada = with_a_phone(&accounts, &outbox).await;
    clock.advance(Duration::from_secs(9 * 24 * 3_600));
    for _ in 0..2 {
        soon(accounts.sweep()).await;
        soon(accounts.drain()).await;
    }
    let [(_, ends)] = <[_; 1]>::try_from(texts(&accounts).await).unwrap();
    let [end] = ends.as_slice() else { panic!("{ends:?}") };
    assert!(matches!(
        end.signal,
        Signal::UserPhoneVerificationFailed { reason: Failure::Expired, user, .. } if user == Some(ada)
    ));
    assert!(soon(accounts.shutdown()).await);
}

fn assert_notice(message: &CapturedMessage, kind: MessageKind, to: &str) {
    assert_eq!((message.kind, message.to.as_str()), (kind, to));
    // The only token that a notice bears takes back what it tells of.
    let undoes = message.link().map(|link| link.contains("/accounts/change_undo_confirm/"));
    let expected = (kind != MessageKind::AddressTaken).then_some(true);
    assert_eq!((undoes, message.code()), (expected, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_owner_of_an_address_is_told_when_somebody_else_claims_it() {
    let test = TestAccounts::start().await;
    let ada = proven(&test, "Ada@example.com").await;
    let other = register(&test, Some("ada@EXAMPLE.com"), None).await.user;
    soon(test.drain()).await;
    let sent = test.messages().take();
    assert_eq!(sent.len(), 1, "and nothing that could prove the address");
    assert_notice(&sent[0], MessageKind::AddressTaken, "Ada@example.com");
    assert_ne!(ada, other, "in the spelling that was proven");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_old_address_is_told_when_a_new_one_has_replaced_it() {
    let test = TestAccounts::start().await;
    let ada = proven(&test, "Old@example.com").await;
    let contact = test.user(ada).unwrap().unwrap().contacts[0].id;
    let authority = || Authority::Password(Password::new(PASSWORD));
    let address = ContactClaim::Email("new@example.com".to_owned());
    let change = ChangeContact { user: ada, contact, address, authority: authority() };
    soon(test.change_contact(change)).await.unwrap();
    soon(test.drain()).await;
    let asked = test.messages().take();
    assert_eq!((asked.len(), asked[0].kind, asked[0].to.as_str()), (1, MessageKind::VerifyEmail, "new@example.com"));
    confirm(&test, asked[0].link().unwrap()).await;
    soon(test.drain()).await;
    let sent = test.messages().take();
    assert_eq!(sent.len(), 1);
    assert_notice(&sent[0], MessageKind::ContactChanged, "Old@example.com");
    assert!(!sent[0].text.contains("new@"), "the old address learns nothing of the new one");

    // Merely adding an address tells nobody else.
    let address = ContactClaim::Email("third@example.com".to_owned());
    soon(test.add_contact(AddContact { user: ada, address, authority: authority() })).await.unwrap();
    soon(test.drain()).await;
    assert!(test.messages().take().iter().all(|message| message.to == "third@example.com"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_primary_address_is_told_when_the_password_changed_or_was_reset() {
    let test = TestAccounts::start().await;
    let ada = proven(&test, "ada@example.com").await;
    let (current, new) = (Password::new(PASSWORD), Password::new(NEW_PASSWORD));
    soon(test.change_password(ChangePassword { user: ada, current, new, keep: None })).await.unwrap();
    soon(test.drain()).await;
    let sent = test.messages().take();
    assert_eq!(sent.len(), 1);
    assert_notice(&sent[0], MessageKind::PasswordChanged, "ada@example.com");

    request_reset(&test, "ada@example.com", Channel::Email).await;
    soon(test.drain()).await;
    let proof = Proof::from_link(test.messages().take()[0].link().unwrap()).unwrap();
    soon(test.reset_password(ResetPassword { proof, new: Password::new(PASSWORD) })).await.unwrap();
    soon(test.drain()).await;
    let sent = test.messages().take();
    assert_eq!(sent.len(), 1);
    assert_notice(&sent[0], MessageKind::PasswordChanged, "ada@example.com");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notice_that_is_refused_for_good_is_told_once() {
    let mut test = TestAccounts::start().await;
    let ada = proven(&test, "ada@example.com").await;
    test.messages().fail_next(1, SendError::Permanent("550".to_owned()));
    let (current, new) = (Password::new(PASSWORD), Password::new(NEW_PASSWORD));
    soon(test.change_password(ChangePassword { user: ada, current, new, keep: None })).await.unwrap();
    soon(test.drain()).await;
    test = soon(test.restart()).await.unwrap();
    soon(test.drain()).await;
    let failures = test.recorded().into_iter().filter_map(|told| match told.signal {
        Signal::NotificationFailed { user, message, reason, .. } => Some((user, message, reason)),
        _ => None,
    });
    assert_eq!(failures.collect::<Vec<_>>(), [(ada, MessageKind::PasswordChanged, Failure::EmailSendFailed)]);
    assert!(test.messages().messages().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_who_is_gone_is_written_to() {
    let (folder, broken) = (tempfile::tempdir().unwrap(), Broken::default());
    let builder = builder(&folder.path().join("a.redb"), &clock()).transport(broken.clone());
    let accounts = soon(builder.spawn()).await.unwrap();
    let ada = register(&accounts, Some("ada@example.com"), None).await.user;
    soon(accounts.delete(Delete::new(ada))).await.unwrap();
    // It is not tried for ever: the notifier gets to the end although nothing goes out.
    soon(accounts.drain()).await;
    broken.repaired.store(true, Ordering::SeqCst);
    register(&accounts, Some("bob@example.com"), None).await;
    soon(accounts.drain()).await;
    let sent = broken.outbox.messages();
    assert_eq!(sent.iter().map(|message| message.to.as_str()).collect::<Vec<_>>(), ["bob@example.com"]);
    assert!(soon(accounts.shutdown()).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn templates_are_replaced_in_code_and_from_a_folder() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), clock());
    let words = folder.path().join("words");
    std::fs::create_dir(&words).unwrap();
    std::fs::write(words.join("verify_email.html"), "<p>{{ app_name }} & <a href=\"{{ link or code }}\">so</a></p>")
        .unwrap();
    std::fs::write(words.join("verify_email.txt"), "from the folder\n{{ link or code }}\n").unwrap();
    std::fs::write(words.join("notes.md"), "{% not a template").unwrap();
    let templates = Templates::embedded()
        .with_template("verify_email.txt", "overridden by the folder {{ link or code }}")
        .with_template("verify_phone.txt", "in code\n{{ code or link }}\n{{ app_name }} {{ host }} {{ locale }}")
        .with_folder(&words)
        .with_template("verify_email.subject.txt", "Willkommen bei {{ app_name }}");
    let outbox = CapturedOutbox::new();
    let builder = builder(&folder.path().join("a.redb"), &clock).templates(templates);
    let builder = builder.configure(|config| config.messages.as_mut().unwrap().app_name = "A <b>".to_owned());
    let builder = builder.transport(outbox.transport(Channel::Email)).transport(outbox.transport(Channel::Phone));
    let accounts = soon(builder.spawn()).await.unwrap();
    register(&accounts, Some("ada@example.com"), Some("+447911123456")).await;
    soon(accounts.drain()).await;
    let mail = outbox.last_to("ada@example.com").unwrap();
    let link = mail.link().unwrap();
    assert_eq!(mail.subject.as_deref(), Some("Willkommen bei A <b>"));
    assert_eq!(mail.text.trim_end(), format!("from the folder\n{link}"));
    assert_eq!(mail.html.as_deref(), Some(format!("<p>A &lt;b&gt; & <a href=\"{link}\">so</a></p>").as_str()));
    let text = outbox.last_to("+447911123456").unwrap();
    assert_eq!(text.text.trim_end(), format!("in code\n{}\nA <b> example.com en", text.code().unwrap()));
    assert!(soon(accounts.shutdown()).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_template_is_refused_at_spawn_by_its_name_and_a_sound_start_follows() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), clock());
    let (file, missing) = (folder.path().join("a.redb"), folder.path().join("missing"));
    let embedded = Templates::embedded;
    for (templates, named) in [
        (embedded().with_template("verify_email.html", "{% if %}"), vec!["verify_email.html"]),
        (embedded().with_template("verify_email.txt", "{{ nonsense }}"), vec!["verify_email.txt"]),
        (embedded().with_template("verify_phone.txt", "neither of them"), vec!["verify_phone.txt"]),
        (embedded().with_template("welcome.txt", "hello"), vec!["welcome.txt"]),
        (embedded().with_folder(&missing), vec!["missing"]),
        (
            embedded().with_template("verify_email.html", "{{").with_template("password_changed.txt", "{{ link }}"),
            vec!["verify_email.html", "password_changed.txt"],
        ),
    ] {
        let outbox = CapturedOutbox::new();
        let builder = builder(&file, &clock).templates(templates).transport(outbox.transport(Channel::Email));
        let BuildError::Configuration(faults) = soon(builder.spawn()).await.unwrap_err() else { panic!("{named:?}") };
        assert!(named.iter().all(|name| faults.concat().contains(name)), "{named:?}: {faults:?}");
        assert!(!file.exists(), "nothing was opened");
    }
    let unsaid = builder(&file, &clock).configure(|config| config.messages = None);
    let refused = soon(unsaid.transport(CapturedOutbox::new().transport(Channel::Email)).spawn()).await.unwrap_err();
    assert!(refused.to_string().contains("messages"), "{refused}");
    let accounts = soon(builder(&file, &clock).spawn()).await.unwrap();
    assert!(soon(accounts.shutdown()).await);
}

/// The headers of a message file and its body, as RFC 5322 separates them.
fn parsed(text: &str) -> (BTreeMap<String, String>, String) {
    assert!(text.split("\r\n").all(|line| line.len() <= 998 && !line.contains(['\r', '\n'])));
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let unfolded = head.replace("\r\n ", " ");
    let headers = unfolded.split("\r\n").map(|line| line.split_once(": ").unwrap());
    (headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(), body.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_maildir_holds_one_parseable_file_a_message() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), clock());
    let (mail, texts) = (folder.path().join("mail"), folder.path().join("texts"));
    let builder = builder(&folder.path().join("a.redb"), &clock);
    let builder = builder.transport(Maildir::email(&mail)).transport(Maildir::phone(&texts));
    let accounts = soon(builder.spawn()).await.unwrap();
    register(&accounts, Some("Ada@example.com"), Some("+447911123456")).await;
    register(&accounts, Some("bob@example.com"), None).await;
    soon(accounts.drain()).await;
    let due: Vec<_> = deliveries(&soon(accounts.signals(0, 1_000)).await.unwrap());
    assert!(due.len() == 3 && due.iter().all(|(_, ends)| ends.len() == 1));
    let files = |folder: &Path| {
        let files = std::fs::read_dir(folder.join("new")).unwrap().map(|file| file.unwrap().path());
        files
            .map(|file| {
                (file.file_stem().unwrap().to_str().unwrap().to_owned(), std::fs::read_to_string(&file).unwrap())
            })
            .collect::<BTreeMap<_, _>>()
    };
    let (mails, texts) = (files(&mail), files(&texts));
    assert_eq!((mails.len(), texts.len()), (2, 1));
    for (start, _) in &due {
        let id = start.id.to_string();
        if start.signal.kind() == SignalKind::VerifyPhone {
            let (head, body) = texts[&id].split_once("\n\n").unwrap();
            assert_eq!(head, "To: +447911123456");
            assert!(body.lines().any(|line| line.len() == 6 && line.bytes().all(|digit| digit.is_ascii_digit())));
            continue;
        }
        let (headers, body) = parsed(&mails[&id]);
        assert!(["Ada@example.com", "bob@example.com"].contains(&headers["To"].as_str()), "{headers:?}");
        assert_eq!(headers["From"], "\"Example\" <no-reply@example.com>");
        assert_eq!(headers["Message-ID"], format!("<{id}@example.com>"));
        assert_eq!(headers["Date"], "Fri, 15 Jan 2027 08:00:00 +0000");
        let boundary = headers["Content-Type"].split('"').nth(1).unwrap();
        let parts: Vec<_> = body.split(&format!("--{boundary}")).collect();
        assert_eq!((parts.len(), parts[3].trim()), (4, "--"), "two alternatives");
        let (plain, text) = parsed(parts[1].trim_start());
        assert!(plain["Content-Type"].starts_with("text/plain"));
        let link = text.lines().find(|line| line.starts_with("https://example.com/app/accounts/")).unwrap();
        let (html, body) = parsed(parts[2].trim_start());
        assert!(html["Content-Type"].starts_with("text/html") && body.contains(link));
        confirm(&accounts, link).await;
    }
    assert!(soon(accounts.shutdown()).await);
}
