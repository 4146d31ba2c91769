//! Budgets: the same message is not asked for twice in a minute, and no address is sent more than it is allowed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use majordomo::notifier::CapturedOutbox;
use majordomo::testing::{START, TestAccounts};
use majordomo::{
    Accounts, AddContact, Channel, Claimant, Clock, ConfirmEmail, ContactClaim, Envelope, Failure, FlowId, FlowKind,
    MessageKind, Register, RequestEmailVerification, RequestPasswordReset, Signal, SignalKind, Timestamp, TokenId,
    UserId,
};

use crate::laws::assert_laws;
use crate::person::{
    EMAIL, PASSWORD, PHONE, ada, by_password, cheap, code_proof, code_to, link_proof, link_to, proven, register, reset,
    soon,
};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
/// Bounds what could otherwise wait for ever; the handling of ten thousand signals takes a while.
const PATIENCE: Duration = Duration::from_secs(300);
const NEW_PASSWORD: &str = "seventeen purple elephants";

/// A request for a message.
#[derive(Clone, Debug)]
enum Ask {
    Reset(&'static str, Channel),
    Verify(Claimant),
}

/// What a caller gets, to the last byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reply {
    challenge: TokenId,
    expires_at: Timestamp,
    code_expires_at: Timestamp,
}

async fn ask(accounts: &Accounts, ask: Ask) -> Reply {
    match ask {
        Ask::Reset(identifier, channel) => {
            let request = RequestPasswordReset { identifier: identifier.to_owned(), channel };
            let reply = accounts.request_password_reset(request).await.unwrap();
            let (expires_at, code_expires_at) = (reply.expires_at, reply.code_expires_at);
            Reply { challenge: reply.challenge, expires_at, code_expires_at }
        }
        Ask::Verify(claimant) => {
            let reply = accounts.request_email_verification(RequestEmailVerification { claimant }).await.unwrap();
            let (expires_at, code_expires_at) = (reply.expires_at, reply.code_expires_at);
            Reply { challenge: reply.challenge, expires_at, code_expires_at }
        }
    }
}

fn by_address(address: &str) -> Ask {
    Ask::Verify(Claimant::Address(address.to_owned()))
}

const fn by_user(user: UserId) -> Ask {
    Ask::Verify(Claimant::User { user, contact: None })
}

/// How many messages were sent to an address, of all that are there now.
async fn sent_to(test: &TestAccounts, address: &str) -> usize {
    tokio::time::timeout(PATIENCE, test.drain()).await.unwrap();
    test.messages().take().iter().filter(|message| message.to.eq_ignore_ascii_case(address)).count()
}

/// The reason that a failed request, or a failed delivery, is told with.
fn reason(signal: &Signal) -> Option<Failure> {
    match signal {
        Signal::PasswordResetRequestFailed { reason, .. }
        | Signal::UserEmailVerificationFailed { reason, .. }
        | Signal::UserPhoneVerificationFailed { reason, .. } => Some(*reason),
        _ => None,
    }
}

/// The deliveries, each with the reason of its failure: none if it succeeded. Each must have ended, once.
fn deliveries(test: &TestAccounts) -> BTreeMap<FlowId, Option<Failure>> {
    let recorded = test.recorded();
    let starts = |envelope: &&Envelope| envelope.signal.kind().starts().contains(&FlowKind::Delivery);
    let flows: BTreeSet<_> = recorded.iter().filter(starts).map(|envelope| envelope.flow).collect();
    let end = |flow: FlowId| {
        let of_flow: Vec<_> = recorded.iter().filter(|envelope| envelope.flow == flow).collect();
        let [_, end] = of_flow.as_slice() else { panic!("not one start and one end: {of_flow:?}") };
        assert!(end.signal.kind().ends().contains(&FlowKind::Delivery), "{end:?}");
        (flow, reason(&end.signal))
    };
    flows.into_iter().map(end).collect()
}

fn count(deliveries: &BTreeMap<FlowId, Option<Failure>>, reason: Option<Failure>) -> usize {
    deliveries.values().filter(|end| **end == reason).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn within_the_cool_down_known_and_unknown_are_answered_what_they_were_answered_before() {
    let test = TestAccounts::configured(|config| config.storage.idle_flush = 24 * HOUR).await;
    ada(&test).await;
    let bob = register(&test, Some("bob"), Some("bob@example.com"), None).await.user;
    soon(test.drain()).await;
    drop(test.messages().take());
    let known = [
        Ask::Reset("ada", Channel::Email),
        Ask::Reset("ada", Channel::Phone),
        Ask::Reset("ADA@Example.com", Channel::Email),
        by_address("Bob@example.com"),
        by_user(bob),
    ];
    let unknown = [
        Ask::Reset("nobody", Channel::Email),
        Ask::Reset("nobody", Channel::Phone),
        Ask::Reset("nobody@example.com", Channel::Email),
        Ask::Reset("bob@example.com", Channel::Email),
        by_address("nobody@example.com"),
        by_address(EMAIL),
        by_user(UserId::new()),
    ];
    let all: Vec<_> = known.iter().chain(&unknown).cloned().collect();
    let mut first = Vec::new();
    for question in &all {
        first.push(ask(&test, question.clone()).await);
        soon(test.drain()).await;
    }
    assert_eq!(test.messages().messages().len(), known.len());
    for seconds in [0, 30, 29] {
        test.advance(Duration::from_secs(seconds));
        for (question, first) in all.iter().zip(&first) {
            let (head, commits) = (test.head(), test.storage_state().commands);
            assert_eq!(ask(&test, question.clone()).await, *first, "{question:?}");
            assert_eq!(test.storage_state().commands - commits, 1, "{question:?}");
            let told = test.recorded().split_off(usize::try_from(head).unwrap());
            let [start, end] = told.as_slice() else { panic!("{question:?}: {told:?}") };
            assert_eq!(start.flow, end.flow);
            assert_eq!(reason(&end.signal), Some(Failure::CoolDown), "the truth, {question:?}");
        }
    }
    soon(test.drain()).await;
    assert_eq!(test.messages().messages().len(), known.len(), "and nothing is sent");

    // What was answered fits what was sent.
    let code = code_to(&test, PHONE);
    reset(&test, code_proof(ask(&test, known[1].clone()).await.challenge, &code), NEW_PASSWORD).await.unwrap();
    let proof = link_proof(&link_to(&test, "bob@example.com"));
    test.confirm_email(ConfirmEmail { proof }).await.unwrap();
    for (question, first) in all.iter().zip(&first) {
        assert_eq!(ask(&test, question.clone()).await, *first, "that a token was used does not show: {question:?}");
    }
    test.advance(Duration::from_secs(1));
    for (question, first) in all.iter().zip(&first) {
        assert_ne!(ask(&test, question.clone()).await.challenge, first.challenge, "{question:?}");
    }
    assert_laws(&test);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_hundred_requests_at_once_one_is_sent_and_all_are_answered_the_same() {
    let test = Arc::new(TestAccounts::start().await);
    ada(&test).await;
    register(&test, Some("bob"), Some("bob@example.com"), None).await;
    drop(test.messages().take());
    let questions = [
        (Ask::Reset("ada", Channel::Email), EMAIL),
        (by_address("bob@example.com"), "bob@example.com"),
        (Ask::Reset("nobody@example.com", Channel::Email), "nobody@example.com"),
    ];
    for (question, address) in questions {
        let requests = (0..100).map(|_| {
            let (test, question) = (Arc::clone(&test), question.clone());
            tokio::spawn(async move { ask(&test, question).await.challenge })
        });
        let mut challenges = BTreeSet::new();
        for request in requests.collect::<Vec<_>>() {
            challenges.insert(soon(request).await.unwrap());
        }
        assert_eq!(challenges.len(), 1, "{question:?}");
        let expected = usize::from(address != "nobody@example.com");
        assert_eq!(sent_to(&test, address).await, expected, "{question:?}");
    }
    assert_laws(&test);
}

/// Registers so many users with this address, if any, a hundred at once; each is accepted.
async fn register_many(
    test: &Arc<TestAccounts>,
    name: &'static str,
    number: usize,
    email: Option<&str>,
) -> Vec<UserId> {
    let mut users = Vec::new();
    let all: Vec<_> = (0..number).collect();
    for numbers in all.chunks(100) {
        let registrations = numbers.iter().map(|number| {
            let (test, email) = (Arc::clone(test), email.map(str::to_owned));
            let request = Register { username: Some(format!("{name}-{number}")), email, ..Register::new(PASSWORD) };
            tokio::spawn(async move { test.register(request).await.unwrap() })
        });
        for registration in registrations.collect::<Vec<_>>() {
            let accepted = soon(registration).await.unwrap();
            assert_eq!(accepted.email_challenge.is_some(), email.is_some(), "all are answered the same");
            users.push(accepted.user);
        }
    }
    users
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_cannot_be_bombed_by_whichever_flow() {
    let victim = "victim@example.com";
    let test = Arc::new(TestAccounts::start().await);
    register_many(&test, "eve", 1_000, Some(victim)).await;
    let adders = register_many(&test, "mallory", 50, None).await;
    for (number, user) in (0..).zip(&adders) {
        let address = ContactClaim::Email(victim.to_uppercase());
        test.add_contact(AddContact { user: *user, address, authority: by_password(PASSWORD) }).await.unwrap();
        if number % 10 == 0 {
            test.advance(MINUTE);
            ask(&test, by_address(victim)).await;
            ask(&test, by_user(*user)).await;
        }
    }
    assert_eq!(sent_to(&test, victim).await, 5, "of the first hour");
    let ends = deliveries(&test);
    assert_eq!((count(&ends, None), ends.len()), (5, 1_060), "each message that was due started, and ended once");
    assert_eq!(count(&ends, Some(Failure::MessageLimitReached)), 1_055);

    for hour in 0..30 {
        test.advance(HOUR);
        for user in &adders[..8] {
            ask(&test, by_user(*user)).await;
        }
        // Five more, and then none until the first ones are a day old.
        let expected = if [0, 23, 24].contains(&hour) { 5 } else { 0 };
        assert_eq!(sent_to(&test, victim).await, expected, "hour {hour}");
    }
    assert_laws(&test);
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_that_are_added_count_though_nobody_registers_with_them() {
    let test = Arc::new(TestAccounts::start().await);
    for user in register_many(&test, "mallory", 8, None).await {
        let address = ContactClaim::Email("victim@example.com".to_owned());
        test.add_contact(AddContact { user, address, authority: by_password(PASSWORD) }).await.unwrap();
    }
    assert_eq!(sent_to(&test, "victim@example.com").await, 5);
    assert_laws(&test);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mailbox_is_sent_no_more_however_its_address_is_extended_or_dotted() {
    let test = Arc::new(TestAccounts::start().await);
    for number in 0..20 {
        let dotted = if number % 2 == 0 { "vic.tim" } else { "VICTIM" };
        register(&test, None, Some(&format!("{dotted}+{number}@example.com")), None).await;
    }
    register(&test, None, Some("victim@example.org"), None).await;
    soon(test.drain()).await;
    let sent = test.messages().take();
    let there = sent.iter().filter(|message| message.to.ends_with("@example.com")).count();
    assert_eq!((there, sent.len()), (5, 6));
    assert_laws(&test);
}

#[tokio::test(flavor = "multi_thread")]
async fn notices_have_a_budget_with_proofs_and_resets_one_of_their_own_that_nobody_else_touches() {
    let test = Arc::new(TestAccounts::start().await);
    let owner = ada(&test).await;
    drop(test.messages().take());
    // One message was the verification; four more within the hour, whatever becomes of resets.
    register_many(&test, "eve", 4, Some(EMAIL)).await;
    let last = ask(&test, Ask::Reset("ada", Channel::Email)).await;
    soon(test.drain()).await;
    let sent = test.messages().take();
    let notices = sent.iter().filter(|message| message.kind == MessageKind::AddressTaken).count();
    assert_eq!((sent.len(), notices), (5, 4));
    assert!(sent.iter().any(|message| message.kind == MessageKind::ResetPasswordEmail));

    let before = test.head();
    register_many(&test, "mallory", 20, Some(EMAIL)).await;
    assert!(!test.kinds_after(before).contains(&SignalKind::AddressTaken), "a notice that is not sent is not told");
    // Resets are to be had all the same, five of them.
    for _ in 0..4 {
        test.advance(Duration::from_secs(61));
        ask(&test, Ask::Reset("ada", Channel::Email)).await;
        soon(test.drain()).await;
    }
    let mail = test.messages().last_to(EMAIL).unwrap();
    let link = link_proof(mail.link().unwrap());
    assert_eq!(sent_to(&test, EMAIL).await, 4);
    let head = test.head();
    let denied = ask(&test, Ask::Reset(EMAIL, Channel::Email)).await;
    assert!(denied.expires_at > last.expires_at && denied.code_expires_at > last.code_expires_at, "as ever");
    assert_eq!(
        test.kinds_after(head),
        [
            SignalKind::PasswordResetRequestStarted,
            SignalKind::ResetPasswordEmail,
            SignalKind::PasswordResetRequestFailed,
            SignalKind::PasswordResetRequestAccepted,
        ]
    );
    let told = test.recorded().split_off(usize::try_from(head).unwrap());
    assert!((told[1].flow, told[1].cause) == (told[2].flow, told[2].cause) && told[1].cause == Some(told[0].flow));
    assert_eq!(reason(&told[2].signal), Some(Failure::MessageLimitReached));
    assert_eq!(sent_to(&test, EMAIL).await, 0);

    // Neither is a phone number touched, nor anybody else; and the link that was sent still works.
    ask(&test, Ask::Reset("ada", Channel::Phone)).await;
    assert_eq!(sent_to(&test, PHONE).await, 1);
    proven(&test, Some("bob"), Some("bob@example.com"), None).await;
    ask(&test, Ask::Reset("bob", Channel::Email)).await;
    assert_eq!(sent_to(&test, "bob@example.com").await, 2);
    assert_eq!(reset(&test, link, NEW_PASSWORD).await.unwrap().user, owner);

    test.advance(HOUR);
    ask(&test, Ask::Reset(EMAIL, Channel::Email)).await;
    assert_eq!(sent_to(&test, EMAIL).await, 2, "with the notice of the new password, which is in no budget");
    let ends = deliveries(&test);
    assert_eq!(count(&ends, Some(Failure::MessageLimitReached)), 1);
    assert_eq!(count(&ends, None), ends.len() - 1);
    assert_laws(&test);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_guesses_a_code_that_was_not_sent() {
    let test = TestAccounts::configured(|config| config.policy.messages.per_hour = Some(1)).await;
    let accepted = register(&test, Some("ada"), None, Some(PHONE)).await;
    let code = code_to(&test, PHONE);
    let asked = majordomo::RequestPhoneVerification { claimant: Claimant::Address(PHONE.to_owned()) };
    let challenge = test.request_phone_verification(asked).await.unwrap().challenge;
    soon(test.drain()).await;
    assert_eq!(test.messages().messages().len(), 1);
    for guess in 0..20 {
        let proof = code_proof(challenge, &format!("{guess:06}"));
        test.confirm_phone(majordomo::ConfirmPhone { proof }).await.unwrap_err();
    }
    let proof = code_proof(accepted.phone_challenge.unwrap(), &code);
    test.confirm_phone(majordomo::ConfirmPhone { proof }).await.unwrap();
    assert_laws(&test);
}

/// A system over a file, with a clock that is moved by hand.
struct Filed {
    folder: tempfile::TempDir,
    messages: CapturedOutbox,
}

impl Filed {
    async fn spawn(&self, clock: &Clock) -> Accounts {
        let builder = Accounts::builder().file(self.folder.path().join("accounts.redb")).config(cheap());
        builder.transport(self.messages.transport(Channel::Email)).clock(clock.clone()).spawn().await.unwrap()
    }

    async fn sent(&self, accounts: &Accounts) -> usize {
        soon(accounts.drain()).await;
        self.messages.take().len()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_outlive_a_restart_and_a_clock_that_was_set_back_delays_them_no_longer_than_it_was_set_back() {
    let filed = Filed { folder: tempfile::tempdir().unwrap(), messages: CapturedOutbox::new() };
    let victim = "victim@example.com";
    let registration = |name: &str| Register {
        username: Some(name.to_owned()),
        email: Some(victim.to_owned()),
        ..Register::new(PASSWORD)
    };
    let clock = Clock::manual(START.plus(HOUR));
    let accounts = filed.spawn(&clock).await;
    let user = accounts.register(registration("ada")).await.unwrap().user;
    assert_eq!(filed.sent(&accounts).await, 1);
    let first = ask(&accounts, by_user(user)).await;
    for name in ["bob", "eve", "kim", "dan"] {
        accounts.register(registration(name)).await.unwrap();
    }
    assert_eq!(filed.sent(&accounts).await, 4);
    accounts.shutdown().await;

    let accounts = filed.spawn(&clock).await;
    assert_eq!(ask(&accounts, by_user(user)).await, first);
    accounts.register(registration("joe")).await.unwrap();
    ask(&accounts, by_address(victim)).await;
    assert_eq!(filed.sent(&accounts).await, 0);
    accounts.shutdown().await;

    let behind = Clock::manual(START);
    let accounts = filed.spawn(&behind).await;
    assert_eq!(ask(&accounts, by_user(user)).await, first);
    behind.advance(HOUR + MINUTE);
    assert_ne!(ask(&accounts, by_user(user)).await.challenge, first.challenge);
    behind.advance(HOUR);
    ask(&accounts, by_user(user)).await;
    assert_eq!(filed.sent(&accounts).await, 1);
    accounts.shutdown().await;
}
