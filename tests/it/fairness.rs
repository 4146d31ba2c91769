//! Fairness: whom a flood at the hasher keeps out, and whom it does not, counted while no hash is computed.

use majordomo::testing::TestAccounts;
use majordomo::{
    Accounts, Answer, Authenticate, AuthenticateReason, Command, Config, Context, DeviceToken, Error, Register,
};
use tokio::task::JoinSet;

use crate::person::*;

const INVALID: Error<AuthenticateReason> = Error::Refused(AuthenticateReason::InvalidCredentials);
const HOME: &str = "192.0.2.1";
const WRONG: &str = "an altogether different phrase";
/// How many wait at the hasher.
const LINE: usize = 60;

/// One thread, and a line that many more want to be in than can.
fn narrow(config: &mut Config) {
    config.hashing.workers = Some(1);
    config.hashing.queue = Some(LINE);
}

fn login(identifier: &str, text: &str, address: &str) -> Command<Authenticate> {
    let message = Authenticate { identifier: identifier.to_owned(), password: password(text) };
    Command::new(message).context(Context::new().client_ip(address.parse().unwrap()))
}

fn by_device(device: &DeviceToken) -> Command<Authenticate> {
    login("ada", PASSWORD, HOME).device(device.clone())
}

fn begin(to: &mut JoinSet<Answer<Authenticate>>, accounts: &Accounts, command: Command<Authenticate>) {
    let accounts = accounts.clone();
    to.spawn(async move { accounts.authenticate(command).await });
}

async fn queued(test: &TestAccounts, number: usize) {
    let waiting = async {
        while test.hasher_state().queued != number {
            tokio::task::yield_now().await;
        }
    };
    soon(waiting).await;
}

/// Whoever fills the line, each from a network of its own and at a name of its own.
fn strangers(test: &TestAccounts) -> JoinSet<Answer<Authenticate>> {
    let mut strangers = JoinSet::new();
    for number in 0..LINE {
        let (name, address) = (format!("stranger{number}"), format!("2001:db8:{number:x}::1"));
        begin(&mut strangers, test.accounts(), login(&name, WRONG, &address));
    }
    strangers
}

/// As [`strangers`], once all of them wait.
async fn line_of_strangers(test: &TestAccounts) -> JoinSet<Answer<Authenticate>> {
    let strangers = strangers(test);
    queued(test, LINE).await;
    strangers
}

#[tokio::test(flavor = "multi_thread")]
async fn a_known_device_passes_a_line_full_of_strangers_is_served_first_and_displaces_nobody() {
    let test = TestAccounts::configured(narrow).await;
    ada(&test).await;
    let device = soon(test.authenticate(login("ada", PASSWORD, HOME))).await.unwrap().device;
    test.hold_hashing(true);
    let strangers = line_of_strangers(&test).await;
    let elsewhere = login("ada", PASSWORD, "192.0.2.2");
    assert_eq!(soon(test.authenticate(elsewhere)).await.unwrap_err(), Error::Overloaded, "the line is full");
    let mut owner = JoinSet::new();
    for number in 1..=2 {
        begin(&mut owner, test.accounts(), by_device(&device));
        queued(&test, LINE + number).await;
    }
    let third = soon(test.authenticate(by_device(&device))).await.unwrap_err();
    assert_eq!(third, Error::Overloaded, "two of a user go first, others wait as strangers do");
    // Whoever is served first is who meets the fault.
    test.fail_hashing(1);
    test.hold_hashing(false);
    let answers = [soon(owner.join_next()).await, soon(owner.join_next()).await].map(|answer| answer.unwrap().unwrap());
    let failed = answers.iter().filter_map(|answer| answer.as_ref().err());
    assert_eq!(failed.collect::<Vec<_>>(), [&Error::Unexpected]);
    assert!(answers.iter().any(Result::is_ok));
    let strangers = soon(strangers.join_all()).await;
    assert!(strangers.into_iter().all(|answer| answer.unwrap_err() == INVALID), "nobody lost a place");
    soon(test.authenticate(by_device(&device))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_failed_lately_waits_behind_those_who_did_not_and_gives_way_to_them() {
    let test = TestAccounts::configured(narrow).await;
    ada(&test).await;
    soon(strangers(&test).join_all()).await;
    test.hold_hashing(true);
    let mut again = line_of_strangers(&test).await;
    let mut owner = JoinSet::new();
    begin(&mut owner, test.accounts(), login("ada", PASSWORD, HOME));
    let displaced = soon(again.join_next()).await.unwrap().unwrap();
    assert_eq!(displaced.unwrap_err(), Error::Overloaded, "the line is full, and somebody has to go");
    queued(&test, LINE).await;
    // Whoever is served first is who meets the fault.
    test.fail_hashing(1);
    test.hold_hashing(false);
    assert_eq!(soon(owner.join_next()).await.unwrap().unwrap().unwrap_err(), Error::Unexpected);
    let rest = soon(again.join_all()).await;
    assert_eq!(rest.iter().filter(|answer| answer.as_ref().is_err_and(|error| *error == INVALID)).count(), LINE - 1);
    // What failed long ago counts no more.
    test.advance(std::time::Duration::from_secs(600));
    test.hold_hashing(true);
    let later = line_of_strangers(&test).await;
    assert_eq!(soon(test.authenticate(login("ada", PASSWORD, HOME))).await.unwrap_err(), Error::Overloaded);
    test.hold_hashing(false);
    soon(later.join_all()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_of_somebody_else_passes_nobody() {
    let test = TestAccounts::configured(narrow).await;
    ada(&test).await;
    proven(&test, Some("eve"), Some("eve@example.com"), None).await;
    let of_eve = soon(test.authenticate(login("eve", PASSWORD, HOME))).await.unwrap().device;
    test.hold_hashing(true);
    let strangers = line_of_strangers(&test).await;
    for device in [of_eve, DeviceToken::new("")] {
        assert_eq!(soon(test.authenticate(by_device(&device))).await.unwrap_err(), Error::Overloaded);
    }
    test.hold_hashing(false);
    assert_eq!(soon(strangers.join_all()).await.len(), LINE);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_thousand_logins_of_one_source_50_are_in_line_and_another_source_finds_a_place() {
    let test = TestAccounts::configured(narrow).await;
    ada(&test).await;
    let jobs = test.hasher_state().jobs_done;
    test.hold_hashing(true);
    let mut flood = JoinSet::new();
    for number in 0..1_000 {
        let (name, address) = (format!("victim{number}"), format!("2001:db8:0:1::{number:x}"));
        begin(&mut flood, test.accounts(), login(&name, WRONG, &address));
    }
    // 50 are in line, 512 wait for one of their places, and the others are refused.
    for _ in 0..1_000 - 512 - 50 {
        let answer = soon(flood.join_next()).await.unwrap().unwrap();
        assert!(matches!(answer, Err(Error::Throttled { .. })));
    }
    queued(&test, 50).await;
    let mut other = JoinSet::new();
    begin(&mut other, test.accounts(), login("ada", PASSWORD, HOME));
    queued(&test, 51).await;
    test.hold_hashing(false);
    assert!(soon(other.join_next()).await.unwrap().unwrap().is_ok());
    let answers = soon(flood.join_all()).await;
    assert_eq!(answers.iter().filter(|answer| answer.as_ref().is_err_and(|error| *error == INVALID)).count(), 50);
    assert!(answers.iter().all(Result::is_err));
    assert_eq!(test.hasher_state().jobs_done - jobs, 51);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_thousand_registrations_of_one_source_20_are_in_line_and_another_source_finds_a_place() {
    let test = TestAccounts::configured(narrow).await;
    let begin = |to: &mut JoinSet<_>, name: String, address: String| {
        let accounts = test.accounts().clone();
        let message = Register { username: Some(name), ..Register::new(PASSWORD) };
        let command = Command::new(message).context(Context::new().client_ip(address.parse().unwrap()));
        to.spawn(async move { accounts.register(command).await });
    };
    test.hold_hashing(true);
    let (mut flood, mut other) = (JoinSet::new(), JoinSet::new());
    for number in 0..1_000 {
        begin(&mut flood, format!("puppet{number}"), format!("2001:db8:0:1::{number:x}"));
    }
    for _ in 0..1_000 - 512 - 20 {
        let answer = soon(flood.join_next()).await.unwrap().unwrap();
        assert!(matches!(answer, Err(Error::Throttled { .. })));
    }
    queued(&test, 20).await;
    begin(&mut other, "ada".to_owned(), HOME.to_owned());
    queued(&test, 21).await;
    test.hold_hashing(false);
    assert!(soon(other.join_next()).await.unwrap().unwrap().is_ok());
    assert_eq!(soon(flood.join_all()).await.iter().filter(|answer| answer.is_ok()).count(), 20);
}
