//! Breaches: what a service for breached passwords learns, what it can refuse, and what its failure costs.

use std::time::Duration;

use majordomo::breach::{
    BreachCheck, BreachedPasswords, BreachedSuffix, HashPrefix, HttpSettings, PwnedPasswords, PwnedSettings,
};
use majordomo::testing::TestAccounts;
use majordomo::{
    BreachCheckFailure, ChangePassword, ChangePasswordReason, Channel, Error, FlowKind, Register, RegisterReason,
    ResetPassword, ResetPasswordReason, Signal, SignalKind, UserId,
};

use crate::gateways::{Received, Reply, Server, answer, loopback};
use crate::person::*;

/// The service at this port.
fn service(port: u16) -> PwnedPasswords {
    let http = HttpSettings { timeout: Duration::from_secs(40), ..loopback() };
    PwnedPasswords::new(PwnedSettings { base_url: format!("http://127.0.0.1:{port}/range"), http }).unwrap()
}

/// What is given time enough, and is never left alone.
fn patient(service: impl BreachedPasswords) -> BreachCheck {
    BreachCheck::new(service).deadline(Duration::from_secs(30)).breaker(1_000, Duration::from_secs(1))
}

async fn system(check: BreachCheck) -> TestAccounts {
    TestAccounts::with(cheap(), |builder| builder.breached_passwords(check)).await
}

/// An answer that knows the password so often, among padding.
fn knowing(text: &str, count: u64) -> Reply {
    let (padding, suffix) = ("0".repeat(35), sha1(text).split_off(5));
    answer(200, "", &format!("{padding}:0\r\n{suffix}:{count}\r\n{}:0", padding.replace('0', "F")))
}

fn named(name: &str, text: &str) -> Register {
    Register { username: Some(name.to_owned()), ..Register::new(text) }
}

fn change(user: UserId, new: &str) -> ChangePassword {
    ChangePassword { user, current: password(PASSWORD), new: password(new), keep: None }
}

/// What was told of checks that failed, after a place in the log.
fn failed_checks(test: &TestAccounts, after: u64) -> Vec<(FlowKind, BreachCheckFailure, Option<UserId>)> {
    let later = test.recorded().into_iter().filter(|envelope| envelope.seq.is_some_and(|seq| seq > after));
    let told = later.filter_map(|envelope| match envelope.signal {
        Signal::BreachCheckFailed { flow, failure, user } => Some((flow, failure, user)),
        _ => None,
    });
    told.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn five_digits_of_the_hash_are_all_that_is_sent() {
    let mut server = Server::start([knowing(BREACHED, 1)]);
    let test = system(patient(service(server.port))).await;
    let refused = test.register(named("ada", BREACHED)).await;
    assert_eq!(refused.unwrap_err(), Error::Refused(RegisterReason::PasswordBreached));
    let [Received { method, target, headers, body }] = &server.taken()[..] else { panic!("not one call") };
    let digits = sha1(BREACHED);
    assert_eq!((method.as_str(), target.as_str()), ("GET", format!("/range/{}", digits.split_at(5).0).as_str()));
    assert_eq!(body, "");
    let host = format!("127.0.0.1:{}", server.port);
    let agent = format!("majordomo/{}", env!("CARGO_PKG_VERSION"));
    let expected = [("accept", "*/*"), ("add-padding", "true"), ("host", &host), ("user-agent", &agent)];
    let sent: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(sent, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_breached_password_is_refused_in_a_registration_a_change_and_a_reset() {
    let server = Server::start([knowing(BREACHED, 1)]);
    let test = system(patient(service(server.port))).await;
    let refused = test.register(named("eve", BREACHED)).await;
    assert_eq!(refused.unwrap_err(), Error::Refused(RegisterReason::PasswordBreached));
    let user = ada(&test).await;
    let refused = test.change_password(change(user, BREACHED)).await;
    assert_eq!(refused.unwrap_err(), Error::Refused(ChangePasswordReason::PasswordBreached));
    request_reset(&test, "ada", Channel::Email).await;
    let proof = link_proof(&link_to(&test, EMAIL));
    let refused = reset(&test, proof.clone(), BREACHED).await;
    assert_eq!(refused.unwrap_err(), Error::Refused(ResetPasswordReason::PasswordBreached));
    assert!(sign_in(&test, "ada", PASSWORD).await.is_ok(), "nothing has changed");
    reset(&test, proof, NEW_PASSWORD).await.unwrap();
    assert_eq!(failed_checks(&test, 0), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn padding_fits_no_password() {
    let server = Server::start([knowing(BREACHED, 0)]);
    let test = system(patient(service(server.port))).await;
    test.register(named("ada", BREACHED)).await.unwrap();
    assert_eq!(failed_checks(&test, 0), []);
}

/// Registers, changes and resets under a service that fails so: all is done, and told.
async fn assert_passes(check: BreachCheck, failure: BreachCheckFailure) {
    let test = system(check).await;
    let user = ada(&test).await;
    assert_eq!(failed_checks(&test, 0), [(FlowKind::Register, failure, Some(user))]);
    let before = test.head();
    test.change_password(change(user, NEW_PASSWORD)).await.unwrap();
    assert_eq!(failed_checks(&test, before), [(FlowKind::ChangePassword, failure, Some(user))]);
    request_reset(&test, "ada", Channel::Email).await;
    let before = test.head();
    reset(&test, link_proof(&link_to(&test, EMAIL)), BREACHED).await.unwrap();
    assert_eq!(failed_checks(&test, before), [(FlowKind::ResetPassword, failure, Some(user))]);
    let log = test.recorded();
    for told in log.iter().filter(|told| told.signal.kind() == SignalKind::BreachCheckFailed) {
        let run: Vec<_> = log.iter().filter(|other| other.flow == told.flow).map(|other| other.signal.kind()).collect();
        let place = run.iter().position(|kind| *kind == SignalKind::BreachCheckFailed).unwrap();
        assert_eq!(place, run.len() - 2, "just before the end of its flow: {run:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_answers_badly_lets_the_password_pass_and_is_told() {
    let suffix = sha1(BREACHED).split_off(5);
    for (reply, failure) in [
        (answer(503, "Retry-After: 7\r\n", &format!("{suffix}:1")), BreachCheckFailure::Refused),
        (answer(302, "Location: /elsewhere\r\n", ""), BreachCheckFailure::Refused),
        (answer(200, "", ""), BreachCheckFailure::Malformed),
        (answer(200, "", "<html>You have reached the proxy</html>"), BreachCheckFailure::Malformed),
        (answer(200, "", &format!("{suffix}:many")), BreachCheckFailure::Malformed),
        (Reply::Endless(200), BreachCheckFailure::TooLarge),
        (Reply::Bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n0".to_vec()), BreachCheckFailure::Unreachable),
        (Reply::Bytes(b"nonsense\r\n\r\n".to_vec()), BreachCheckFailure::Unreachable),
    ] {
        let server = Server::start([reply]);
        assert_passes(patient(service(server.port)), failure).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_out_or_silent_lets_the_password_pass_and_is_told() {
    let port = Server::start([answer(200, "", "")]).port;
    assert_passes(patient(service(port)), BreachCheckFailure::Unreachable).await;
    let silent = Server::start([Reply::Silence]);
    let check = patient(service(silent.port)).deadline(Duration::from_millis(20));
    assert_passes(check, BreachCheckFailure::DeadlineExceeded).await;
}

/// Does that when it is asked.
struct Asked(fn());

impl BreachedPasswords for Asked {
    async fn range(&self, _prefix: HashPrefix) -> Result<Vec<BreachedSuffix>, BreachCheckFailure> {
        (self.0)();
        Ok(Vec::new())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn code_of_the_app_that_panics_or_blocks_its_thread_lets_the_password_pass_and_is_told() {
    assert_passes(patient(Asked(|| panic!("fell over"))), BreachCheckFailure::Panicked).await;
    let blocking = patient(Asked(|| {
        loop {
            std::thread::park()
        }
    }))
    .deadline(Duration::from_millis(20));
    assert_passes(blocking, BreachCheckFailure::DeadlineExceeded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_asked_alike_whoever_owns_the_address_and_only_about_what_may_be_set() {
    let mut server = Server::start([knowing(BREACHED, 1)]);
    let test = system(patient(service(server.port))).await;
    let user = ada(&test).await;
    let mut calls = |what: &str| (what.to_owned(), server.taken().len());
    assert_eq!(calls("a registration").1, 1);
    for (email, text) in
        [(EMAIL, BREACHED), ("free@example.com", BREACHED), (EMAIL, PASSWORD), ("eve@example.com", PASSWORD)]
    {
        let answer = test.register(Register { email: Some(email.to_owned()), ..Register::new(text) }).await;
        assert_eq!(answer.is_err(), text == BREACHED, "{email}");
        assert_eq!(calls(email), (email.to_owned(), 1));
    }
    test.register(named("bob", "short")).await.unwrap_err();
    test.register(named("bob", "qwertyuiopasdfghjkl")).await.unwrap_err();
    sign_in(&test, "ada", BREACHED).await.unwrap_err();
    sign_in(&test, "ada", PASSWORD).await.unwrap();
    let wrong = ChangePassword { current: password(NEW_PASSWORD), ..change(user, BREACHED) };
    test.change_password(wrong).await.unwrap_err();
    let guessed = ResetPassword { proof: link_proof("/accounts/nobody/nothing/"), new: password(BREACHED) };
    test.reset_password(guessed).await.unwrap_err();
    assert_eq!(calls("nothing that may be set").1, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_asked_unless_the_host_gives_somebody() {
    let test = TestAccounts::start().await;
    test.register(named("ada", BREACHED)).await.unwrap();
    assert_eq!(failed_checks(&test, 0), []);
    let terms = BreachCheck::new(Known(BREACHED)).deadline(Duration::ZERO);
    let refused = majordomo::Accounts::builder().in_memory().breached_passwords(terms).spawn().await;
    assert!(refused.unwrap_err().to_string().contains("breached_passwords: the deadline"));
}
