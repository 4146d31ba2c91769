//! Pumping: whoever has text messages sent to many numbers, or the same notice sent again and again, is sent few.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use majordomo::notifier::{CapturedOutbox, SendError};
use majordomo::testing::{START, TestAccounts};
use majordomo::{
    Accounts, Change, Channel, Claimant, Clock, Command, Config, ConfirmPhone, Context, Failure, MessageKind, Phone,
    Register, RequestPhoneVerification, Signal, SignalKind, TextBreaker, TextLimits, TokenId, Update, UserId,
};

use crate::laws::assert_laws;
use crate::person::*;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);

/// Numbers of a region, each of a prefix of its own.
fn numbers(region: &str, count: usize) -> Vec<String> {
    let number = |of: u32| match region {
        "GB" => format!("+4474{of:04}3456"),
        _ => format!("+336{of:04}3456"),
    };
    let belongs = |text: &String| Phone::parse(text).is_ok_and(|phone| phone.region().as_deref() == Some(region));
    let found: Vec<_> = (0..10_000).map(number).filter(belongs).take(count).collect();
    assert_eq!(found.len(), count);
    found
}

/// A source by its number, each in a network of its own.
fn source(number: usize) -> Context {
    let number = u16::try_from(number).unwrap();
    Context::new().client_ip(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, number, 0, 0, 0, 0, 1)))
}

/// Registers with a number; everybody is accepted, and answered alike.
async fn register_with(accounts: &Accounts, phone: &str, number: usize) -> TokenId {
    let register = Register { phone: Some(phone.to_owned()), ..Register::new(PASSWORD) };
    let accepted = soon(accounts.register(Command::new(register).context(source(number)))).await.unwrap();
    accepted.phone_challenge.unwrap()
}

/// Whom messages were sent to since this was asked last, in order.
async fn sent(test: &TestAccounts) -> Vec<String> {
    soon(test.drain()).await;
    let mut all: Vec<_> = test.messages().take().iter().map(|message| message.to.clone()).collect();
    all.sort();
    all
}

/// A breaker that a test can reach: of ten messages, one has to be answered, and of five that are let through one.
fn easy() -> TextBreaker {
    let mut breaker = TextBreaker::default();
    (breaker.window, breaker.least, breaker.trials) = (10, 10, 5);
    breaker
}

fn with_easy_breaker(config: &mut Config) {
    config.policy.messages.texts = TextLimits::none();
    config.policy.messages.texts.breaker = Some(easy());
}

/// The same, and any number of messages to one number.
fn with_breaker_alone(config: &mut Config) {
    with_easy_breaker(config);
    (config.policy.messages.per_hour, config.policy.messages.per_day) = (None, None);
}

fn breakers(test: &TestAccounts) -> Vec<(SignalKind, String, u32, u32)> {
    let told = |signal: Signal| match &signal {
        Signal::MessageBreakerOpened { region, started, answered }
        | Signal::MessageBreakerClosed { region, started, answered } => {
            Some((signal.kind(), region.clone(), *started, *answered))
        }
        _ => None,
    };
    test.recorded().into_iter().filter_map(|envelope| told(envelope.signal)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_of_as_many_prefixes_and_sources_share_one_budget_that_is_exact() {
    let (most, each) = (30, 200);
    let test = Arc::new(TestAccounts::configured(|config| config.policy.messages.texts.per_hour = Some(30)).await);
    let registering = numbers("GB", each).into_iter().enumerate().map(|(number, phone)| {
        let test = Arc::clone(&test);
        tokio::spawn(async move { register_with(&test, &phone, number).await })
    });
    let mut challenges = BTreeSet::new();
    for registered in registering.collect::<Vec<_>>() {
        challenges.insert(soon(registered).await.unwrap());
    }
    assert_eq!(challenges.len(), each, "all are answered the same");
    let to = sent(&test).await;
    assert_eq!((to.len(), to.iter().collect::<BTreeSet<_>>().len()), (most, most));
    let reasons = test.recorded().into_iter().filter_map(|envelope| match envelope.signal {
        Signal::UserPhoneVerificationFailed { reason, .. } => Some(reason),
        _ => None,
    });
    assert_eq!(reasons.collect::<Vec<_>>(), vec![Failure::MessageLimitReached; each - most], "and each delivery ends");

    // One comes back every two minutes.
    test.advance(6 * MINUTE);
    for (number, phone) in numbers("FR", 8).iter().enumerate() {
        register_with(&test, phone, 1_000 + number).await;
    }
    assert_eq!(sent(&test).await.len(), 3);
    assert_laws(&test);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_and_mails_have_budgets_of_their_own() {
    let limited = |config: &mut Config| {
        config.policy.messages.texts.per_day = Some(12);
        config.policy.messages.mails_per_hour = Some(3);
    };
    let test = TestAccounts::configured(limited).await;
    for (number, phone) in numbers("GB", 20).iter().enumerate() {
        register_with(&test, phone, number).await;
    }
    assert_eq!(sent(&test).await.len(), 12);
    test.advance(6 * HOUR);
    for number in 0..6 {
        register(&test, None, Some(&format!("ada-{number}@example.com")), None).await;
    }
    assert_eq!(sent(&test).await.len(), 3);
    for (number, phone) in numbers("FR", 20).iter().enumerate() {
        register_with(&test, phone, 1_000 + number).await;
    }
    assert_eq!(sent(&test).await.len(), 3, "a quarter of a day later");
    assert_laws(&test);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_answers_texts_are_withheld_until_some_that_are_let_through_are_answered() {
    let test = TestAccounts::configured(with_easy_breaker).await;
    let (british, french) = (numbers("GB", 40), numbers("FR", 3));
    for (number, phone) in british[..12].iter().enumerate() {
        register_with(&test, phone, number).await;
    }
    assert_eq!(sent(&test).await.len(), 12);
    test.advance(20 * MINUTE);

    let commits = test.storage_state().commands;
    register_with(&test, &british[12], 12).await;
    let withheld = test.storage_state().commands - commits;
    let commits = test.storage_state().commands;
    register_with(&test, &french[0], 13).await;
    assert_eq!(withheld, test.storage_state().commands - commits, "who asks sees nothing of it");
    assert_eq!(sent(&test).await, french[..1], "another country goes on");
    let opened = (SignalKind::MessageBreakerOpened, "GB".to_owned(), 12, 0);
    assert_eq!(breakers(&test), std::slice::from_ref(&opened));
    for (number, phone) in (14..).zip(&british[13..20]) {
        let challenge = register_with(&test, phone, number).await;
        let proof = code_proof(challenge, "000000");
        test.confirm_phone(ConfirmPhone { proof }).await.unwrap_err();
    }
    let claimant = Claimant::Address(british[0].clone());
    let asked = test.request_phone_verification(RequestPhoneVerification { claimant }).await.unwrap();
    let unknown = RequestPhoneVerification { claimant: Claimant::Address("+447400999999".to_owned()) };
    let of_nobody = test.request_phone_verification(unknown).await.unwrap();
    assert_eq!(asked.code_expires_at, of_nobody.code_expires_at);
    assert!(sent(&test).await.is_empty());
    assert_eq!(breakers(&test), std::slice::from_ref(&opened), "it is told once");

    test.advance(HOUR);
    let mut challenges = Vec::new();
    for (number, phone) in (30..).zip(&british[20..28]) {
        challenges.push(register_with(&test, phone, number).await);
    }
    soon(test.drain()).await;
    let code = code_to(&test, &british[20]);
    assert_eq!(sent(&test).await, british[20..25], "a few are let through");
    let proof = code_proof(challenges[0], &code);
    test.confirm_phone(ConfirmPhone { proof }).await.unwrap();
    for (number, phone) in (40..).zip(&british[28..38]) {
        register_with(&test, phone, number).await;
    }
    assert_eq!(sent(&test).await, british[28..38], "one of them was answered");
    assert_eq!(breakers(&test), [opened, (SignalKind::MessageBreakerClosed, "GB".to_owned(), 5, 1)]);
    assert_laws(&test);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_people_answer_nothing_is_withheld() {
    let test = TestAccounts::configured(with_easy_breaker).await;
    for (number, phone) in numbers("GB", 40).iter().enumerate() {
        let challenge = register_with(&test, phone, number).await;
        soon(test.drain()).await;
        let code = code_to(&test, phone);
        if number % 5 != 0 {
            test.confirm_phone(ConfirmPhone { proof: code_proof(challenge, &code) }).await.unwrap();
        }
        test.advance(MINUTE);
    }
    assert_eq!(sent(&test).await.len(), 40);
    assert_eq!(breakers(&test), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_was_out_or_refused_speaks_against_no_region() {
    let out = SendError::Unavailable { reason: "no connection".to_owned(), retry_after: Some(15 * MINUTE) };
    for (fault, times) in [(out, 1), (SendError::Permanent("no such number".to_owned()), 20)] {
        let test = TestAccounts::configured(with_easy_breaker).await;
        test.messages().fail_next(times, fault.clone());
        let british = numbers("GB", 40);
        for (number, phone) in british[..20].iter().enumerate() {
            register_with(&test, phone, number).await;
        }
        for _ in 0..4 {
            soon(test.drain()).await;
            test.advance(5 * MINUTE);
        }
        assert!(sent(&test).await.is_empty(), "nobody was asked for an answer: {fault}");
        for (number, phone) in (20..).zip(&british[20..32]) {
            register_with(&test, phone, number).await;
        }
        assert_eq!(sent(&test).await, british[20..32], "{fault}");
        test.advance(20 * MINUTE);
        register_with(&test, &british[32], 32).await;
        assert!(sent(&test).await.is_empty(), "those were sent, and answered by nobody: {fault}");
        assert_eq!(breakers(&test), [(SignalKind::MessageBreakerOpened, "GB".to_owned(), 12, 0)]);
        assert_laws(&test);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn notices_speak_against_no_region_and_are_withheld_with_all_else() {
    let test = TestAccounts::configured(with_breaker_alone).await;
    let british = numbers("GB", 20);
    proven(&test, None, None, Some(&british[0])).await;
    drop(sent(&test).await);
    for number in 0..12 {
        register_with(&test, &british[0], number).await;
    }
    assert_eq!(sent(&test).await.len(), 12, "notices");
    test.advance(20 * MINUTE);
    for (number, phone) in (20..).zip(&british[1..14]) {
        register_with(&test, phone, number).await;
    }
    assert_eq!(sent(&test).await.len(), 13);
    test.advance(20 * MINUTE);
    register_with(&test, &british[14], 40).await;
    register_with(&test, &british[0], 41).await;
    assert!(sent(&test).await.is_empty());
    assert_laws(&test);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_that_is_answered_speaks_for_its_region() {
    let test = TestAccounts::configured(with_breaker_alone).await;
    let british = numbers("GB", 2);
    proven(&test, None, None, Some(&british[0])).await;
    for turn in 0..12 {
        test.advance(2 * MINUTE);
        let challenge = request_reset(&test, &british[0], Channel::Phone).await.challenge;
        soon(test.drain()).await;
        let proof = code_proof(challenge, &code_to(&test, &british[0]));
        reset(&test, proof, [PASSWORD, NEW_PASSWORD][turn % 2]).await.unwrap();
    }
    drop(sent(&test).await);
    test.advance(20 * MINUTE);
    register_with(&test, &british[1], 1).await;
    assert_eq!(sent(&test).await, british[1..]);
    assert_laws(&test);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_any_number_at_once_one_opens_the_breaker_and_a_few_are_let_through() {
    let daily = |config: &mut Config| {
        with_easy_breaker(config);
        (config.policy.messages.per_hour, config.policy.messages.per_day) = (None, Some(1));
    };
    let test = Arc::new(TestAccounts::configured(daily).await);
    let british = numbers("GB", 60);
    for (number, phone) in british[..10].iter().enumerate() {
        register_with(&test, phone, number).await;
    }
    assert_eq!(sent(&test).await.len(), 10);
    test.advance(20 * MINUTE);
    // The same numbers again: what was withheld did not use up the one message that each is sent a day.
    for expected in [0, 5] {
        let registering = british[10..].iter().cloned().enumerate().map(|(number, phone)| {
            let test = Arc::clone(&test);
            tokio::spawn(async move { register_with(&test, &phone, 100 + number).await })
        });
        for registered in registering.collect::<Vec<_>>() {
            soon(registered).await.unwrap();
        }
        assert_eq!(sent(&test).await.len(), expected);
        assert_eq!(breakers(&test), [(SignalKind::MessageBreakerOpened, "GB".to_owned(), 10, 0)]);
        test.advance(HOUR);
    }
    assert_laws(&test);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_registers_with_the_numbers_next_to_one_keeps_its_owner_from_no_reset() {
    let test = TestAccounts::start().await;
    proven(&test, None, None, Some(PHONE)).await;
    drop(sent(&test).await);
    for of in 0..40 {
        register_with(&test, &format!("+4479111290{of:02}"), of).await;
    }
    assert_eq!(sent(&test).await.len(), 19, "all that its prefix has left");
    request_reset(&test, PHONE, Channel::Phone).await;
    assert_eq!(sent(&test).await, [PHONE]);
    assert_laws(&test);
}

/// A system over a file, with a clock that is moved by hand.
async fn filed(folder: &tempfile::TempDir, messages: &CapturedOutbox, clock: &Clock) -> Accounts {
    let mut config = cheap();
    with_easy_breaker(&mut config);
    config.policy.messages.texts.per_prefix = Some(2);
    let builder = Accounts::builder().file(folder.path().join("accounts.redb")).config(config);
    builder.transport(messages.transport(Channel::Phone)).clock(clock.clone()).spawn().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_forgets_neither_budgets_nor_the_breaker() {
    let (folder, messages) = (tempfile::tempdir().unwrap(), CapturedOutbox::new());
    let clock = Clock::manual(START);
    let (british, adjacent) = (numbers("GB", 14), ["+33612345601", "+33612345602", "+33612345603", "+33612345604"]);
    let accounts = filed(&folder, &messages, &clock).await;
    for (number, phone) in british[..10].iter().map(String::as_str).chain([adjacent[0], adjacent[1]]).enumerate() {
        register_with(&accounts, phone, number).await;
    }
    soon(accounts.drain()).await;
    assert_eq!(messages.take().len(), 12);
    accounts.shutdown().await;

    let accounts = filed(&folder, &messages, &clock).await;
    register_with(&accounts, adjacent[2], 20).await;
    clock.advance(20 * MINUTE);
    register_with(&accounts, &british[10], 21).await;
    accounts.shutdown().await;

    let accounts = filed(&folder, &messages, &clock).await;
    register_with(&accounts, &british[11], 22).await;
    soon(accounts.drain()).await;
    assert!(messages.take().is_empty());
    clock.advance(HOUR);
    register_with(&accounts, &british[12], 23).await;
    register_with(&accounts, adjacent[3], 24).await;
    soon(accounts.drain()).await;
    assert_eq!(messages.take().len(), 2);
    accounts.shutdown().await;
}

async fn rename(test: &TestAccounts, user: UserId, name: &str) {
    let update =
        Update { username: Change::Set(name.to_owned()), authority: Some(by_password(PASSWORD)), ..Update::new(user) };
    soon(test.update(update)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_signed_in_floods_nobody_with_notices() {
    let test = TestAccounts::start().await;
    let user = proven(&test, Some("ada"), Some(EMAIL), None).await;
    drop(sent(&test).await);
    for turn in 0..25 {
        rename(&test, user, &format!("ada-{turn}")).await;
    }
    assert_eq!(sent(&test).await.len(), 10);
    let given_up = test.recorded().into_iter().filter(|envelope| {
        let (message, reason) = (MessageKind::UsernameChanged, Failure::MessageLimitReached);
        matches!(&envelope.signal, Signal::NotificationFailed { message: kind, reason: why, .. } if *kind == message && *why == reason)
    });
    assert_eq!(given_up.count(), 15, "the log tells");
    test.advance(24 * HOUR);
    rename(&test, user, "ada").await;
    assert_eq!(sent(&test).await.len(), 1);
    assert_laws(&test);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_changes_a_password_again_and_again_is_sent_ten_texts_a_day_of_it() {
    let test = TestAccounts::start().await;
    let user = proven(&test, Some("ada"), None, Some(PHONE)).await;
    drop(sent(&test).await);
    let passwords = [PASSWORD, NEW_PASSWORD];
    for turn in 0..14 {
        let (current, new) = (password(passwords[turn % 2]), password(passwords[(turn + 1) % 2]));
        let change = majordomo::ChangePassword { user, current, new, keep: None };
        soon(test.change_password(change)).await.unwrap();
    }
    assert_eq!(sent(&test).await.len(), 10);
    assert_laws(&test);
}
