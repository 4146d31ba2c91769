//! Throttling: how often anybody may guess or ask, and the lock that keeps out guessers and not its owner.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use majordomo::testing::TestAccounts;
use majordomo::{
    ActionLimits, Actor, Answer, Authenticate, AuthenticateReason, Authority, Change, ChangeContact, ChangePassword,
    Channel, Command, Config, ConfirmEmail, ContactClaim, Context, DeviceToken, Error, Failure, Limit, LimitScope,
    LimitedAction, Limits, LoggedIn, MakePrimary, MakePrimaryReason, MessageKind, Register, RequestPasswordReset,
    Signal, SignalKind, Unlock, UnlockReason, Unlocked, Update, UpdateReason, UserId,
};

use crate::laws::assert_laws;
use crate::person::*;

const INVALID: Error<AuthenticateReason> = Error::Refused(AuthenticateReason::InvalidCredentials);
const HOME: &str = "192.0.2.1";
const WRONG: &str = "an altogether different phrase";

fn from(address: &str) -> Context {
    Context::new().client_ip(address.parse().unwrap())
}

fn login(identifier: &str, text: &str, address: &str) -> Command<Authenticate> {
    let message = Authenticate { identifier: identifier.to_owned(), password: password(text) };
    Command::new(message).context(from(address))
}

async fn sign_in_from(test: &TestAccounts, text: &str, address: &str) -> Answer<Authenticate> {
    soon(test.authenticate(login("ada", text, address))).await
}

/// How long to wait, if it was refused for having been tried too often.
fn throttled<T, R: majordomo::Reason>(answer: Result<T, Error<R>>) -> Option<Duration> {
    answer.err().and_then(|error| error.retry_after())
}

/// The network of the nth attacker.
fn elsewhere(number: u32) -> String {
    IpAddr::from([203, 0, u8::try_from(number / 250).unwrap(), u8::try_from(number % 250).unwrap()]).to_string()
}

/// Puts the lock on, from as many sources as it takes.
async fn lock_out(test: &TestAccounts) {
    for number in 0..100 {
        assert_eq!(sign_in_from(test, WRONG, &elsewhere(number)).await.unwrap_err(), INVALID);
    }
    soon(test.drain()).await;
}

fn told(test: &TestAccounts, kind: SignalKind) -> Vec<Signal> {
    let all = test.recorded().into_iter().map(|told| told.signal);
    all.filter(|signal| signal.kind() == kind).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_500_parallel_wrong_passwords_5_are_verified_and_the_others_are_told_when_to_come_back() {
    for identifier in ["ada", "nobody", "not a name at all"] {
        let test = TestAccounts::start().await;
        ada(&test).await;
        let (jobs, head) = (test.hasher_state().jobs_done, test.head());
        let guess = |_| {
            let accounts = test.accounts().clone();
            tokio::spawn(async move { accounts.authenticate(login(identifier, WRONG, HOME)).await })
        };
        let guesses: Vec<_> = (0..500).map(guess).collect();
        let (mut invalid, mut waits) = (0, BTreeSet::new());
        for guess in guesses {
            match soon(guess).await.unwrap().unwrap_err() {
                Error::Throttled { retry_after } => drop(waits.insert(retry_after)),
                error => {
                    assert_eq!(error, INVALID);
                    invalid += 1;
                }
            }
        }
        assert_eq!((invalid, test.hasher_state().jobs_done - jobs), (5, 5), "{identifier}");
        // One comes back every two minutes; who finds the line full is told to come back soon.
        let expected: BTreeSet<_> = [1, 120].map(Duration::from_secs).into();
        assert!(waits.contains(&Duration::from_secs(120)) && waits.is_subset(&expected), "{waits:?}");
        soon(test.drain()).await;
        let begun = test.kinds_after(head);
        let begun = begun.iter().filter(|kind| **kind == SignalKind::UserAuthenticationStarted).count();
        assert_eq!(begun, 5, "the others began no flow");
        let reached = Signal::LimitReached { action: LimitedAction::Login, scope: LimitScope::AccountAndSource };
        assert_eq!(told(&test, SignalKind::LimitReached), [reached], "told once");
        test.advance(Duration::from_secs(120));
        assert_eq!(soon(test.authenticate(login(identifier, WRONG, HOME))).await.unwrap_err(), INVALID);
        assert!(throttled(soon(test.authenticate(login(identifier, WRONG, HOME))).await).is_some());
        assert_laws(&test);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_parallel_right_logins_all_pass_where_five_wrong_ones_are_the_most() {
    let test = TestAccounts::start().await;
    ada(&test).await;
    let log_in = |number: usize| {
        let accounts = test.accounts().clone();
        let identifier = ["ada", EMAIL, PHONE][number % 3];
        tokio::spawn(async move { accounts.authenticate(login(identifier, PASSWORD, HOME)).await })
    };
    let logins: Vec<_> = (0..50).map(log_in).collect();
    for login in logins {
        soon(login).await.unwrap().unwrap();
    }
    for _ in 0..4 {
        assert_eq!(sign_in_from(&test, WRONG, HOME).await.unwrap_err(), INVALID);
    }
    for _ in 0..50 {
        sign_in_from(&test, PASSWORD, HOME).await.unwrap();
    }
}

#[tokio::test]
async fn spellings_of_a_name_and_of_an_address_multiply_no_attempts() {
    let test = TestAccounts::start().await;
    ada(&test).await;
    let spellings = ["ada@example.com", "ADA@example.com", "Ada@EXAMPLE.com", "ada@Example.COM", "aDa@example.com"];
    let homes = ["192.0.2.1", "::ffff:192.0.2.1", "::ffff:c000:201", "192.0.2.1", "0:0:0:0:0:ffff:192.0.2.1"];
    for (spelling, home) in spellings.into_iter().zip(homes) {
        assert_eq!(soon(test.authenticate(login(spelling, WRONG, home))).await.unwrap_err(), INVALID);
    }
    assert!(throttled(soon(test.authenticate(login(EMAIL, PASSWORD, HOME))).await).is_some());
    assert!(soon(test.authenticate(login(EMAIL, PASSWORD, "192.0.2.2"))).await.is_ok(), "elsewhere it is not");
}

#[tokio::test]
async fn a_thousand_addresses_of_one_ipv6_network_are_one_source_and_its_neighbours_are_a_network() {
    let test = TestAccounts::start().await;
    let fail = async |address: String, name: usize| {
        soon(test.authenticate(login(&format!("nobody{name}"), WRONG, &address))).await.unwrap_err()
    };
    let mut invalid = 0;
    for number in 0..1_000 {
        invalid += usize::from(fail(format!("2001:db8:0:1::{number:x}"), number).await == INVALID);
    }
    assert_eq!(invalid, 50, "of one network of 64 bits");
    for number in 0..1_000 {
        invalid += usize::from(fail(format!("2001:db8:0:{:x}::1", number + 2), number).await == INVALID);
    }
    assert_eq!(invalid, 200, "of one network of 48 bits");
    assert_eq!(fail("2001:db8:1::1".to_owned(), 0).await, INVALID, "of its neighbour");
}

#[tokio::test]
async fn what_was_spent_outlives_a_restart_and_comes_back_with_time() {
    let test = TestAccounts::start().await;
    ada(&test).await;
    for _ in 0..5 {
        assert_eq!(sign_in_from(&test, WRONG, HOME).await.unwrap_err(), INVALID);
    }
    let test = soon(test.restart()).await.unwrap();
    assert_eq!(throttled(sign_in_from(&test, PASSWORD, HOME).await), Some(Duration::from_secs(120)));
    test.advance(Duration::from_secs(119));
    assert_eq!(throttled(sign_in_from(&test, PASSWORD, HOME).await), Some(Duration::from_secs(1)));
    test.advance(Duration::from_secs(1));
    sign_in_from(&test, PASSWORD, HOME).await.unwrap();
}

/// One attempt of everything, for everybody.
fn strict(config: &mut Config) {
    let mut one = ActionLimits::default();
    one.source = Some(Limit { attempts: 2, per: Duration::from_secs(3_600) });
    let limits = &mut config.policy.limits;
    for action in [&mut limits.register, &mut limits.reset, &mut limits.resend, &mut limits.verify, &mut limits.code] {
        *action = one;
    }
}

#[tokio::test]
async fn registrations_requests_links_and_codes_have_limits_of_their_own() {
    let test = TestAccounts::configured(strict).await;
    ada(&test).await;
    let register = |name: &str| Register { username: Some(name.to_owned()), ..Register::new(PASSWORD) };
    let reset_of = |name: &str| RequestPasswordReset { identifier: name.to_owned(), channel: Channel::Email };
    let resend =
        |email: &str| majordomo::RequestEmailVerification { claimant: majordomo::Claimant::Address(email.to_owned()) };
    let bad_link = link_proof(&link_to(&test, EMAIL).replace("mdt_A", "mdt_B"));
    let bad_code = || code_proof(majordomo::TokenId::new(), "123456");
    let jobs = test.hasher_state().jobs_done;
    for round in 0..4 {
        let free = round < 2;
        let at = |message| Command::new(message).context(from(HOME));
        let registered = soon(test.register(at(register(&format!("user{round}"))))).await;
        assert_eq!(registered.is_ok(), free);
        let asked = Command::new(reset_of(&format!("user{round}"))).context(from(HOME));
        assert_eq!(soon(test.request_password_reset(asked)).await.is_ok(), free);
        let asked = Command::new(resend(&format!("u{round}@example.com"))).context(from(HOME));
        assert_eq!(soon(test.request_email_verification(asked)).await.is_ok(), free);
        let shown = Command::new(ConfirmEmail { proof: bad_link.clone() }).context(from(HOME));
        assert_eq!(throttled(soon(test.confirm_email(shown)).await).is_none(), free);
        let shown = Command::new(ConfirmEmail { proof: bad_code() }).context(from(HOME));
        assert_eq!(throttled(soon(test.confirm_email(shown)).await).is_none(), free);
    }
    assert_eq!(test.hasher_state().jobs_done - jobs, 2, "who is refused costs no hash");
    // An operator registers as many as there are.
    for round in 4..9 {
        let command = Command::new(register(&format!("user{round}"))).context(from(HOME));
        soon(test.register(command.actor(Actor::Admin("desk".to_owned())))).await.unwrap();
    }
    soon(test.drain()).await;
    assert_laws(&test);
}

#[tokio::test]
async fn the_current_password_is_guessed_at_no_more_often_than_at_the_door() {
    let test = TestAccounts::start().await;
    let user = ada(&test).await;
    let contact = contact(&test, user, EMAIL);
    for round in 0..4 {
        let (current, new) = (password(WRONG), password(NEW_PASSWORD));
        let change = Command::new(ChangePassword { user, current, new, keep: None }).context(from(HOME));
        let choice = MakePrimary { user, contact, authority: Authority::Password(password(WRONG)) };
        let choice = Command::new(choice).context(from(HOME));
        let (changed, chosen) = (soon(test.change_password(change)).await, soon(test.make_primary(choice)).await);
        let [changed, chosen] = [throttled(changed), throttled(chosen)];
        assert_eq!((changed.is_none(), chosen.is_none()), (round < 3, round < 2), "round {round}");
    }
    let session = sign_in(&test, "ada", PASSWORD).await.unwrap();
    let authority = Authority::RecentSession(session.token);
    let choice = Command::new(MakePrimary { user, contact, authority }).context(from(HOME));
    let chosen = soon(test.make_primary(choice)).await;
    assert_eq!(chosen, Err(Error::Refused(MakePrimaryReason::NothingToDo)), "a session is guessed at by nobody");
}

#[tokio::test]
async fn names_that_are_taken_are_asked_for_no_more_often_by_a_rename_than_by_a_registration() {
    let test = TestAccounts::start().await;
    let user = ada(&test).await;
    proven(&test, Some("eve"), None, None).await;
    let session = sign_in(&test, "ada", PASSWORD).await.unwrap().token;
    let rename = |name: &str| {
        let (username, authority) = (Change::Set(name.to_owned()), Some(Authority::RecentSession(session.clone())));
        Command::new(Update { username, authority, ..Update::new(user) }).context(from(HOME))
    };
    let mut taken = 0;
    for _ in 0..30 {
        let refused = soon(test.update(rename("eve"))).await.unwrap_err();
        taken += usize::from(refused == Error::Refused(UpdateReason::UsernameTaken));
    }
    assert_eq!(taken, 20);
}

#[tokio::test]
async fn a_known_device_is_spared_no_limit_but_those_of_the_password() {
    let test = TestAccounts::start().await;
    let user = ada(&test).await;
    let mut asked = 0;
    for number in 0..30 {
        if number % 10 == 0 {
            test.advance(Duration::from_secs(1));
        }
        let device = sign_in_from(&test, PASSWORD, "192.0.2.9").await.unwrap().device;
        let address = ContactClaim::Email(format!("a{number}@example.net"));
        let contact = contact(&test, user, EMAIL);
        let authority = Authority::Password(password(PASSWORD));
        let change = ChangeContact { user, contact, address, authority };
        let change = Command::new(change).context(from(HOME)).device(device);
        asked += usize::from(soon(test.change_contact(change)).await.is_ok());
    }
    assert_eq!(asked, 20, "messages to strangers are limited by where they are asked for");
}

#[tokio::test]
async fn wrong_passwords_at_prompts_put_the_lock_on_and_it_holds_there_too() {
    let test = TestAccounts::start().await;
    let user = ada(&test).await;
    let opened = sign_in_from(&test, PASSWORD, HOME).await.unwrap();
    let change = |text: &str, new: &str, address: &str| {
        let (current, new) = (password(text), password(new));
        Command::new(ChangePassword { user, current, new, keep: None }).context(from(address))
    };
    let incorrect = Err(Error::Refused(majordomo::ChangePasswordReason::IncorrectPassword));
    for number in 0..100 {
        let guess = soon(test.change_password(change(WRONG, NEW_PASSWORD, &elsewhere(number)))).await;
        assert_eq!(guess, incorrect);
    }
    assert_eq!(told(&test, SignalKind::UserLocked).len(), 1);
    let right = soon(test.change_password(change(PASSWORD, NEW_PASSWORD, "198.51.100.1"))).await;
    assert_eq!(right, incorrect, "the 101st is refused though it is right");
    assert!(test.check_session(&opened.token).unwrap().is_some());
    let known = change(PASSWORD, NEW_PASSWORD, "198.51.100.2").device(opened.device);
    soon(test.change_password(known)).await.unwrap();
    assert_eq!(told(&test, SignalKind::UserUnlocked).len(), 1, "a new password lifts it");
    sign_in_from(&test, NEW_PASSWORD, "198.51.100.3").await.unwrap();
    soon(test.drain()).await;
    assert_laws(&test);
}

#[tokio::test]
async fn a_device_that_is_guessed_from_is_known_no_longer() {
    let test = TestAccounts::start().await;
    ada(&test).await;
    let device = sign_in_from(&test, PASSWORD, HOME).await.unwrap().device;
    let from_device = |name: &str, text: &str| login(name, text, HOME).device(device.clone());
    lock_out(&test).await;
    let mut guesses = 0;
    while guesses < 100 {
        let name = ["ada", EMAIL, PHONE][guesses % 3];
        match soon(test.authenticate(from_device(name, WRONG))).await.unwrap_err() {
            Error::Throttled { retry_after } => test.advance(retry_after),
            error => {
                assert_eq!(error, INVALID);
                guesses += 1;
            }
        }
    }
    // The lock has lapsed meanwhile, and one more guess puts it on again.
    assert_eq!(sign_in_from(&test, WRONG, "198.51.100.1").await.unwrap_err(), INVALID);
    test.advance(Duration::from_secs(600));
    assert_eq!(soon(test.authenticate(from_device("ada", PASSWORD))).await.unwrap_err(), INVALID);
    // Nor is it once what was counted of others is forgotten.
    test.advance(Duration::from_secs(31 * 24 * 3_600));
    lock_out(&test).await;
    assert_eq!(soon(test.authenticate(from_device("ada", PASSWORD))).await.unwrap_err(), INVALID);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_many_lift_at_once_is_told_to_be_lifted_once() {
    let test = TestAccounts::start().await;
    let user = ada(&test).await;
    lock_out(&test).await;
    let lift = |_| {
        let accounts = test.accounts().clone();
        tokio::spawn(async move { accounts.unlock(Unlock::Operator(user)).await.unwrap().already })
    };
    let lifted: Vec<_> = (0..20).map(lift).collect();
    let mut first = 0;
    for lift in lifted {
        first += usize::from(!soon(lift).await.unwrap());
    }
    assert_eq!((first, told(&test, SignalKind::UserUnlocked).len()), (1, 1));
}

#[tokio::test]
async fn the_link_of_a_lock_that_is_over_does_not_say_that_the_next_one_is_lifted() {
    let test = TestAccounts::start().await;
    ada(&test).await;
    lock_out(&test).await;
    let proof = link_proof(test.messages().last_to(EMAIL).unwrap().link().unwrap());
    assert!(!soon(test.unlock(Unlock::Link(proof.clone()))).await.unwrap().already);
    test.advance(Duration::from_secs(600));
    lock_out(&test).await;
    let again = soon(test.unlock(Unlock::Link(proof))).await;
    assert_eq!(again, Err(Error::Refused(UnlockReason::InvalidToken)));
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_that_are_only_counted_put_the_lock_on_at_the_same_place() {
    let test = TestAccounts::configured(|config| {
        config.policy.failures_per_source = 1;
        config.policy.limits = Limits::none();
    })
    .await;
    ada(&test).await;
    let guess = |_| {
        let accounts = test.accounts().clone();
        tokio::spawn(async move { accounts.authenticate(login("ada", WRONG, HOME)).await.unwrap_err() })
    };
    for _ in 0..2 {
        let guesses: Vec<_> = (0..60).map(guess).collect();
        for guess in guesses {
            assert_eq!(soon(guess).await.unwrap(), INVALID);
        }
    }
    assert_eq!(told(&test, SignalKind::UserLocked).len(), 1);
    assert_eq!(sign_in_from(&test, PASSWORD, "198.51.100.1").await.unwrap_err(), INVALID);
}

#[tokio::test]
async fn without_limits_nobody_is_told_to_wait() {
    let test = TestAccounts::configured(|config| config.policy.limits = Limits::none()).await;
    for _ in 0..99 {
        assert_eq!(soon(test.authenticate(login("nobody", WRONG, HOME))).await.unwrap_err(), INVALID);
    }
}

#[tokio::test]
async fn the_101st_guess_is_refused_though_it_is_right_and_a_known_device_gets_in() {
    let test = TestAccounts::start().await;
    let user = ada(&test).await;
    let LoggedIn { device, token, .. } = sign_in_from(&test, PASSWORD, HOME).await.unwrap();
    lock_out(&test).await;
    let locked = told(&test, SignalKind::UserLocked);
    assert!(
        matches!(locked[..], [Signal::UserLocked { user: whose, unlock: Some(_), .. }] if whose == user),
        "{locked:?}"
    );
    let (jobs, commits) = (test.hasher_state().jobs_done, test.storage_state().batches);
    let right = sign_in_from(&test, PASSWORD, "198.51.100.1").await.unwrap_err();
    assert_eq!(right, INVALID, "and nothing tells that it was right");
    assert_eq!(
        (test.hasher_state().jobs_done - jobs, test.storage_state().batches - commits),
        (1, 1),
        "as a wrong one"
    );
    let ended = told(&test, SignalKind::UserAuthenticationFailed).pop();
    let why = |signal| matches!(signal, Signal::UserAuthenticationFailed { reason: Failure::UserLocked, .. });
    assert!(ended.is_some_and(why));
    assert!(test.check_session(&token).unwrap().is_some(), "no session ends");
    let known = || login("ada", PASSWORD, "198.51.100.2").device(device.clone());
    let again = soon(test.authenticate(known())).await.unwrap();
    let strange = sign_in_from(&test, PASSWORD, "198.51.100.3").await.unwrap_err();
    assert_eq!(strange, INVALID, "which leaves the lock to whoever guesses");
    // The device of another user opens nothing here, and neither does one from before a new password.
    proven(&test, Some("eve"), Some("eve@example.com"), None).await;
    let eve = soon(test.authenticate(login("eve", PASSWORD, "198.51.100.4"))).await.unwrap();
    for device in [eve.device, DeviceToken::new(""), DeviceToken::new(again.token.expose())] {
        let command = login("ada", PASSWORD, "198.51.100.5").device(device);
        assert_eq!(soon(test.authenticate(command)).await.unwrap_err(), INVALID);
    }
    test.advance(Duration::from_secs(24 * 3_600));
    sign_in_from(&test, PASSWORD, "198.51.100.6").await.unwrap();
    soon(test.drain()).await;
    assert_laws(&test);
}

#[tokio::test]
async fn the_device_of_another_user_has_no_budget_of_its_own() {
    let test = TestAccounts::start().await;
    ada(&test).await;
    proven(&test, Some("eve"), Some("eve@example.com"), None).await;
    let mut invalid = 0;
    for _ in 0..4 {
        let eve = soon(test.authenticate(login("eve", PASSWORD, HOME))).await.unwrap();
        for _ in 0..4 {
            let guess = soon(test.authenticate(login("ada", WRONG, HOME).device(eve.device.clone()))).await;
            invalid += usize::from(guess.unwrap_err() == INVALID);
        }
    }
    assert_eq!(invalid, 5);
    // Nor has one's own device, however often it signs in.
    let mut device = sign_in_from(&test, PASSWORD, "192.0.2.2").await.unwrap().device;
    for round in 0..8 {
        let guess = soon(test.authenticate(login("ada", WRONG, HOME).device(device.clone()))).await.unwrap_err();
        assert_eq!(guess == INVALID, round < 5, "round {round}");
        if round < 4 {
            let again = login("ada", PASSWORD, HOME).device(device);
            device = soon(test.authenticate(again)).await.unwrap().device;
        }
    }
}

#[tokio::test]
async fn a_new_password_and_time_make_a_device_unknown() {
    for reset_password in [true, false] {
        let test = TestAccounts::start().await;
        ada(&test).await;
        let device = sign_in_from(&test, PASSWORD, HOME).await.unwrap().device;
        let mut text = PASSWORD;
        if reset_password {
            request_reset(&test, EMAIL, Channel::Email).await;
            reset(&test, link_proof(&link_to(&test, EMAIL)), NEW_PASSWORD).await.unwrap();
            text = NEW_PASSWORD;
        } else {
            test.advance(Duration::from_secs(180 * 24 * 3_600));
        }
        lock_out(&test).await;
        let known = login("ada", text, "198.51.100.1").device(device);
        assert_eq!(soon(test.authenticate(known)).await.unwrap_err(), INVALID);
    }
}

#[tokio::test]
async fn a_lock_is_lifted_by_its_mail_by_a_new_password_by_an_operator_and_by_time() {
    for way in ["mail", "reset", "operator", "time"] {
        let test = TestAccounts::start().await;
        let user = ada(&test).await;
        lock_out(&test).await;
        let head = test.head();
        let notice = test.messages().last_to(EMAIL).unwrap();
        assert_eq!(notice.kind, MessageKind::AccountLocked);
        let proof = link_proof(notice.link().unwrap());
        let mut text = PASSWORD;
        match way {
            "mail" => {
                let unlocked = soon(test.unlock(Unlock::Link(proof.clone()))).await.unwrap();
                assert_eq!(unlocked, Unlocked { user, already: false });
                let again = soon(test.unlock(Unlock::Link(proof.clone()))).await.unwrap();
                assert_eq!(again, Unlocked { user, already: true });
            }
            "reset" => {
                request_reset(&test, EMAIL, Channel::Email).await;
                reset(&test, link_proof(&link_to(&test, EMAIL)), NEW_PASSWORD).await.unwrap();
                text = NEW_PASSWORD;
            }
            "operator" => drop(soon(test.unlock(Unlock::Operator(user))).await.unwrap()),
            _ => test.advance(Duration::from_secs(24 * 3_600)),
        }
        let unlocked = test.kinds_after(head).iter().filter(|kind| **kind == SignalKind::UserUnlocked).count();
        assert_eq!(unlocked, usize::from(way != "time"), "{way}");
        if way == "time" {
            // It counted on: the next wrong one puts the lock on again.
            assert_eq!(sign_in_from(&test, WRONG, "198.51.100.8").await.unwrap_err(), INVALID);
            assert_eq!(sign_in_from(&test, PASSWORD, "198.51.100.9").await.unwrap_err(), INVALID);
            assert_eq!(told(&test, SignalKind::UserLocked).len(), 2);
            let late = soon(test.unlock(Unlock::Link(proof))).await;
            assert_eq!(late, Err(Error::Refused(UnlockReason::InvalidToken)), "the first link is over");
            test.advance(Duration::from_secs(24 * 3_600));
        } else if way == "reset" {
            let late = soon(test.unlock(Unlock::Link(proof))).await;
            assert_eq!(late, Err(Error::Refused(UnlockReason::InvalidToken)), "a new password voids it");
        }
        sign_in_from(&test, text, "198.51.100.7").await.unwrap();
        soon(test.drain()).await;
        assert_laws(&test);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_200_guesses_at_once_the_lock_is_put_on_once_and_no_right_one_behind_it_gets_in() {
    let test = TestAccounts::start().await;
    ada(&test).await;
    test.hold_hashing(true);
    let guess = |number: u32, text: &'static str| {
        let accounts = test.accounts().clone();
        tokio::spawn(async move { accounts.authenticate(login("ada", text, &elsewhere(number))).await })
    };
    let guesses: Vec<_> = (0..200).map(|number| guess(number, WRONG)).collect();
    let queued = async {
        while test.hasher_state().queued < 100 {
            tokio::task::yield_now().await;
        }
    };
    soon(queued).await;
    let late: Vec<_> = (200..260).map(|number| guess(number, PASSWORD)).collect();
    test.hold_hashing(false);
    let mut answers = BTreeMap::new();
    for guess in guesses.into_iter().chain(late) {
        *answers.entry(soon(guess).await.unwrap().unwrap_err().as_str()).or_insert(0) += 1;
    }
    // The line is full for some: they are told nothing of their password either.
    let count = |answer| answers.get(answer).copied().unwrap_or_default();
    let (refused, turned_away) = (count("invalid_credentials"), count("overloaded"));
    assert!(refused >= 200 && refused + turned_away == 260, "{answers:?}");
    soon(test.drain()).await;
    let ended = told(&test, SignalKind::UserAuthenticationFailed).into_iter();
    let mut reasons = BTreeMap::new();
    for signal in ended {
        let Signal::UserAuthenticationFailed { reason, .. } = signal else { unreachable!() };
        *reasons.entry(reason.as_str()).or_insert(0) += 1;
    }
    let mut told_so = BTreeMap::from([("incorrect_password", 100), ("user_locked", refused - 100)]);
    told_so.extend((turned_away > 0).then_some(("overloaded", turned_away)));
    assert_eq!(reasons, told_so);
    assert_eq!(told(&test, SignalKind::UserLocked).len(), 1);
    assert_laws(&test);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_10_000_wrong_passwords_from_50_sources_the_owner_signs_in_on_a_known_device() {
    let test = TestAccounts::start().await;
    let user = ada(&test).await;
    let LoggedIn { device, token, .. } = sign_in_from(&test, PASSWORD, HOME).await.unwrap();
    let jobs = test.hasher_state().jobs_done;
    let attack = |source: u32| {
        let accounts = test.accounts().clone();
        tokio::spawn(async move {
            for _ in 0..200 {
                accounts.authenticate(login("ada", WRONG, &elsewhere(source))).await.unwrap_err();
            }
        })
    };
    let attackers: Vec<_> = (0..50).map(attack).collect();
    for attacker in attackers {
        soon(attacker).await.unwrap();
    }
    assert_eq!(test.hasher_state().jobs_done - jobs, 250, "five of each source");
    let known = login("ada", PASSWORD, HOME).device(device);
    soon(test.authenticate(known)).await.unwrap();
    assert!(test.check_session(&token).unwrap().is_some());
    assert_eq!(test.sessions(user).unwrap().len(), 2);
    request_reset(&test, EMAIL, Channel::Email).await;
    reset(&test, link_proof(&link_to(&test, EMAIL)), NEW_PASSWORD).await.unwrap();
    sign_in_from(&test, NEW_PASSWORD, "198.51.100.1").await.unwrap();
    let notices = test.messages().messages().into_iter().filter(|sent| sent.kind == MessageKind::AccountLocked);
    assert_eq!(notices.count(), 1, "the owner is told once");
}

#[tokio::test]
async fn who_is_refused_for_too_many_attempts_is_counted_and_leaves_no_flow() {
    let test = TestAccounts::start().await;
    for _ in 0..9 {
        soon(test.authenticate(login("nobody", WRONG, HOME))).await.unwrap_err();
    }
    let counted = async {
        loop {
            let counts = told(&test, SignalKind::RequestsRefused).into_iter().map(|signal| match signal {
                Signal::RequestsRefused { reason: majordomo::RefusalCause::Throttled, count } => count,
                other => panic!("{other:?}"),
            });
            if counts.sum::<u64>() == 4 {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    soon(counted).await;
    assert_eq!(told(&test, SignalKind::UserAuthenticationStarted).len(), 5);
}

#[tokio::test]
async fn an_operator_unlocks_whoever_there_is() {
    let test = TestAccounts::start().await;
    let user = ada(&test).await;
    assert_eq!(soon(test.unlock(Unlock::Operator(user))).await, Ok(Unlocked { user, already: true }));
    let nobody = soon(test.unlock(Unlock::Operator(UserId::new()))).await;
    assert_eq!(nobody, Err(Error::Refused(UnlockReason::UserNotFound)));
    assert_eq!(told(&test, SignalKind::UserUnlocked), []);
}
