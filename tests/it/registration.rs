//! Registration: one name and one address have one owner, a password counts whole, a command is done once.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use majordomo::testing::TestAccounts;
use majordomo::{
    Accounts, Authenticate, BuildError, ChangePassword, Channel, Command, CommandId, DeletionCause, Error, Failure,
    ForbiddenWords, OneTimeCode, Password, Proof, Register, RegisterReason, RequestEmailVerification,
    RequestPasswordReset, RequestPhoneVerification, Requirement, ResetPassword, RevocationCause, SessionToken, Signal,
    SignalKind, UserId, Username,
};

use crate::laws::assert_laws;
use crate::steps::{OTHER_PASSWORD, PASSWORD, Verification, confirm, due, log_in, proven, registration};

/// Whatever races here is done long before; a test that is stuck ends.
const PATIENCE: Duration = Duration::from_secs(180);

/// A text with the letters that `choice` has a bit for in upper case.
fn in_mixed_case(text: &str, choice: u32) -> String {
    let cased = |(place, letter): (u32, char)| {
        if choice >> (place % 32) & 1 == 1 { letter.to_uppercase().collect::<String>() } else { letter.to_string() }
    };
    (0..).zip(text.chars()).map(cased).collect()
}

/// How often a signal of this kind is in the log.
fn count(test: &TestAccounts, kind: SignalKind) -> usize {
    test.recorded().iter().filter(|envelope| envelope.signal.kind() == kind).count()
}

/// The ways to write one username: cased otherwise, decomposed, in full width, with letters that only look the same.
fn username_variants() -> Vec<String> {
    let variant = |choice: u32| {
        let cased = in_mixed_case("zoë.keller", choice.wrapping_mul(2_654_435_761) >> 7);
        match choice % 4 {
            0 => cased,
            1 => cased.replace('ë', "e\u{308}").replace('Ë', "E\u{308}"),
            2 => cased.replace('k', "\u{ff4b}").replace('K', "\u{ff2b}"),
            _ => cased.replace('e', "\u{435}").replace('E', "\u{415}"),
        }
    };
    let mut variants: Vec<_> = (0..2_000).map(variant).collect();
    variants.sort();
    variants.dedup();
    assert!(variants.len() >= 200, "{}", variants.len());
    let step = variants.len() / 200;
    variants.into_iter().step_by(step).take(200).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_200_concurrent_registrations_of_one_username_written_in_many_ways_exactly_one_wins() {
    let variants = username_variants();
    let parsed: Vec<_> = variants.iter().map(|variant| Username::parse(variant).unwrap()).collect();
    let canonical: HashSet<_> = parsed.iter().map(Username::canonical).collect();
    let skeletons: HashSet<_> = parsed.iter().map(Username::skeleton).collect();
    assert!(canonical.len() > 1 && skeletons.len() == 1, "equal ones and look-alikes: {canonical:?} {skeletons:?}");

    let test = TestAccounts::start().await;
    let tasks: Vec<_> = variants
        .iter()
        .map(|variant| {
            let (accounts, request) = (test.accounts().clone(), registration(Some(variant), None, None));
            tokio::spawn(async move { accounts.register(request).await })
        })
        .collect();
    let mut winners = Vec::new();
    for task in tasks {
        match tokio::time::timeout(PATIENCE, task).await.unwrap().unwrap() {
            Ok(accepted) => winners.push(accepted.user),
            Err(error) => assert_eq!(error, Error::Refused(RegisterReason::UsernameTaken)),
        }
    }
    assert_eq!(winners.len(), 1);
    let users = test.users(None, 1_000).await.unwrap();
    assert_eq!(users.iter().map(|user| user.id).collect::<Vec<_>>(), winners);
    assert_eq!(count(&test, SignalKind::UserRegistered), 1);
    assert_eq!(count(&test, SignalKind::UserRegistrationFailed), 199);
    assert_laws(&test);
}

/// A system that sends an address as many messages as are asked for.
async fn without_budget() -> TestAccounts {
    TestAccounts::configured(|config| {
        let limits = &mut config.policy.messages;
        (limits.per_hour, limits.per_day, limits.texts) = (None, None, majordomo::TextLimits::none());
    })
    .await
}

/// Has 200 users claim one address, each writing it otherwise, and answers the messages that they got.
async fn claimed_by_200(test: &TestAccounts, claim: impl Fn(u32) -> Register) -> Vec<Verification> {
    let tasks: Vec<_> = (0..200)
        .map(|number| {
            let accounts = test.accounts().clone();
            let request = Register { username: Some(format!("claimant-{number}-x")), ..claim(number) };
            tokio::spawn(async move { accounts.register(request).await })
        })
        .collect();
    for task in tasks {
        tokio::time::timeout(PATIENCE, task).await.unwrap().unwrap().unwrap();
    }
    tokio::time::timeout(PATIENCE, test.drain()).await.unwrap();
    let messages = due(test);
    assert_eq!(messages.len(), 200);
    messages
}

/// Presents every proof at once: exactly one user has the address then, and nobody else ever gets it.
async fn assert_one_proof_wins(test: &TestAccounts, messages: Vec<Verification>, identifier: &str, fact: SignalKind) {
    let tasks: Vec<_> = messages
        .iter()
        .cloned()
        .map(|message| {
            let accounts = test.accounts().clone();
            tokio::spawn(async move { confirm(&accounts, &message).await })
        })
        .collect();
    let mut winners = Vec::new();
    for task in tasks {
        match tokio::time::timeout(PATIENCE, task).await.unwrap().unwrap() {
            Ok(user) => winners.push(user),
            Err(reason) => assert_eq!(reason, "invalid_token"),
        }
    }
    let &[winner] = winners.as_slice() else { panic!("{} users have proven it", winners.len()) };
    assert_eq!(test.find_user(identifier).unwrap().unwrap().id, winner);
    assert_eq!(count(test, fact), 1);

    let sent = test.messages().messages().len();
    for message in messages.iter().filter(|message| message.user != winner) {
        assert_eq!(confirm(test, message).await, Err("invalid_token"), "the link or code of a claim that is void");
        ask_again(test, message.user, message.channel).await;
    }
    test.drain().await;
    assert_eq!(test.messages().messages().len(), sent, "a void claim gets no message");
    assert_eq!((count(test, fact), test.find_user(identifier).unwrap().unwrap().id), (1, winner));
    for user in test.users(None, 1_000).await.unwrap() {
        assert_eq!(user.is_verified(), user.id == winner);
    }
    assert_laws(test);
}

async fn ask_again(test: &TestAccounts, user: UserId, channel: Channel) {
    let claimant = majordomo::Claimant::User { user, contact: None };
    match channel {
        Channel::Email => {
            test.request_email_verification(RequestEmailVerification { claimant }).await.unwrap();
        }
        Channel::Phone => {
            test.request_phone_verification(RequestPhoneVerification { claimant }).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_200_concurrent_proofs_of_one_email_address_written_in_many_ways_the_first_wins_and_voids_the_others() {
    let test = without_budget().await;
    let domains = ["exämple.com", "EXÄMPLE.com", "xn--exmple-cua.com", "exa\u{308}mple.COM"];
    let messages = claimed_by_200(&test, |number| {
        let local = in_mixed_case("mara.lindt", number);
        registration(None, Some(&format!("{local}@{}", domains[number as usize % 4])), None)
    });
    let messages = messages.await;
    let addressed: HashSet<_> = messages.iter().map(|message| message.to.as_str()).collect();
    assert!(addressed.len() > 100 && addressed.iter().all(|to| to.ends_with("@xn--exmple-cua.com")), "as typed");
    assert_one_proof_wins(&test, messages, "MARA.LINDT@exämple.com", SignalKind::UserEmailVerified).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_200_concurrent_proofs_of_one_phone_number_written_in_many_ways_the_first_wins_and_voids_the_others() {
    let test = without_budget().await;
    let messages = claimed_by_200(&test, |number| {
        let mut typed = "+44".to_owned();
        for (place, digit) in (0..).zip("7911123456".chars()) {
            match number >> place & 1 {
                1 => typed.extend([[' ', '-', '.'][number as usize % 3], digit]),
                _ => typed.push(digit),
            }
        }
        registration(None, None, Some(&typed))
    });
    let messages = messages.await;
    assert!(messages.iter().all(|message| message.to == "+447911123456"));
    assert_one_proof_wins(&test, messages, "+44 (7911) 123-456", SignalKind::UserPhoneVerified).await;
}

/// A text of so many bytes that differs from another only in its last one.
fn long_password(bytes: usize, last: char) -> String {
    let mut text: String = "nine lanterns over a quiet harbour; ".chars().cycle().take(bytes - 1).collect();
    text.push(last);
    text
}

/// Registers somebody who has a username only, under this password.
async fn with_password(test: &TestAccounts, username: &str, password: &str) -> UserId {
    let request = Register { username: Some(username.to_owned()), ..Register::new(password) };
    test.register(request).await.unwrap().user
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_of_73_and_of_1024_bytes_count_to_their_last_byte() {
    let test = TestAccounts::start().await;
    for bytes in [73, 1_024] {
        let (right, wrong) = (long_password(bytes, 'X'), long_password(bytes, 'Y'));
        assert_eq!((right.len(), wrong.len()), (bytes, bytes));
        let name = format!("long-{bytes}-x");
        let user = with_password(&test, &name, &right).await;
        log_in(&test, &name, &right).await.unwrap();
        assert_eq!(log_in(&test, &name, &wrong).await.unwrap_err().as_str(), "invalid_credentials");

        let change = |current: &str, new: &str| ChangePassword {
            user,
            current: Password::new(current),
            new: Password::new(new),
            keep: None,
        };
        let refused = test.change_password(change(&wrong, OTHER_PASSWORD)).await.unwrap_err();
        assert_eq!(refused.as_str(), "incorrect_password");
        test.change_password(change(&right, &wrong)).await.unwrap();
        assert_eq!(log_in(&test, &name, &right).await.unwrap_err().as_str(), "invalid_credentials");
        log_in(&test, &name, &wrong).await.unwrap();
    }
    assert_laws(&test);
}

/// Asks for a reset by mail and takes the proof from the message.
async fn reset_proof(test: &TestAccounts, address: &str) -> Proof {
    let request = RequestPasswordReset { identifier: address.to_owned(), channel: Channel::Email };
    test.request_password_reset(request).await.unwrap();
    test.drain().await;
    Proof::from_link(test.messages().last_to(address).unwrap().link().unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_of_1025_bytes_is_refused_before_it_is_hashed() {
    let test = TestAccounts::start().await;
    let user = proven(&test, "ada", Some("ada@example.com"), None).await;
    let proof = reset_proof(&test, "ada@example.com").await;
    let jobs = || test.hasher_state().jobs_done;
    let too_long = long_password(1_025, 'X');

    let before = jobs();
    let request = Register { username: Some("grace".to_owned()), ..Register::new(too_long.clone()) };
    assert_eq!(test.register(request).await.unwrap_err().as_str(), "password_too_long");
    let reset = ResetPassword { proof: proof.clone(), new: Password::new(too_long.clone()) };
    assert_eq!(test.reset_password(reset).await.unwrap_err().as_str(), "password_too_long");
    assert_eq!(jobs(), before, "neither cost a job");

    let change = ChangePassword { user, current: Password::new(PASSWORD), new: Password::new(too_long), keep: None };
    assert_eq!(test.change_password(change).await.unwrap_err().as_str(), "password_too_long");
    assert_eq!(jobs(), before + 1, "the current one was compared, the new one not hashed");

    // The refusal used nothing up, and one byte less will do.
    let longest = long_password(1_024, 'X');
    test.reset_password(ResetPassword { proof, new: Password::new(longest.clone()) }).await.unwrap();
    log_in(&test, "ada", &longest).await.unwrap();
    assert_laws(&test);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_password_of_1_mib_costs_one_job_and_is_refused() {
    let test = TestAccounts::start().await;
    with_password(&test, "ada", PASSWORD).await;
    let huge = long_password(1 << 20, 'X');
    for name in ["ada", "nobody"] {
        let before = test.hasher_state();
        assert_eq!(log_in(&test, name, &huge).await.unwrap_err().as_str(), "invalid_credentials");
        let after = test.hasher_state();
        assert_eq!((after.jobs_done - before.jobs_done, after.refused), (1, before.refused), "{name}");
    }
    assert_laws(&test);
}

/// What a registration with these identifiers is answered with; `ok` if it is accepted.
async fn outcome(
    test: &TestAccounts,
    username: Option<&str>,
    email: Option<&str>,
    phone: Option<&str>,
) -> &'static str {
    match test.register(registration(username, email, phone)).await {
        Ok(_) => "ok",
        Err(error) => error.as_str(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn which_identifiers_are_required_or_forbidden_is_configuration() {
    use Requirement::{Forbidden, Optional, Required};
    let (name, mail, number) = (Some("ada"), Some("ada@example.com"), Some("+447911123456"));
    let table = [
        ([Optional, Optional, Optional], [None, None, None], "identifier_required"),
        ([Optional, Optional, Optional], [name, None, None], "ok"),
        ([Optional, Optional, Optional], [None, None, number], "ok"),
        ([Required, Optional, Optional], [None, mail, number], "username_required"),
        ([Optional, Required, Optional], [name, None, number], "email_required"),
        ([Optional, Optional, Required], [name, mail, None], "phone_required"),
        ([Required, Required, Required], [name, mail, number], "ok"),
        ([Forbidden, Required, Optional], [name, mail, None], "identifier_not_allowed"),
        ([Required, Forbidden, Optional], [name, mail, None], "identifier_not_allowed"),
        ([Required, Optional, Forbidden], [name, None, number], "identifier_not_allowed"),
        ([Forbidden, Required, Forbidden], [None, mail, None], "ok"),
    ];
    for (requirements, [username, email, phone], expected) in table {
        let test = TestAccounts::configured(|config| {
            [config.policy.username, config.policy.email, config.policy.phone] = requirements;
        });
        let test = test.await;
        let jobs = test.hasher_state().jobs_done;
        assert_eq!(outcome(&test, username, email, phone).await, expected, "{requirements:?}");
        assert_eq!(test.hasher_state().jobs_done - jobs, u64::from(expected == "ok"));
        assert_laws(&test);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn new_users_are_in_the_default_groups() {
    let groups = BTreeSet::from(["members".to_owned(), "readers".to_owned()]);
    let test = TestAccounts::configured(|config| config.policy.default_groups = groups.clone()).await;
    let user = with_password(&test, "ada", PASSWORD).await;
    assert_eq!(test.user(user).unwrap().unwrap().groups, groups);
    let told = test.recorded().into_iter().find_map(|envelope| match envelope.signal {
        Signal::UserRegistered { groups, .. } => Some(groups),
        _ => None,
    });
    assert_eq!(told.unwrap(), ["members", "readers"]);
    let usual = TestAccounts::start().await;
    let user = with_password(&usual, "ada", PASSWORD).await;
    assert_eq!(usual.user(user).unwrap().unwrap().groups, BTreeSet::from(["users".to_owned()]));
}

#[tokio::test]
async fn every_fault_of_a_wrong_configuration_is_named_at_once() {
    let spawned = Accounts::builder().configure(|config| {
        config.policy.must_verify = false;
        config.policy.code_attempts = 0;
        config.policy.session_lifetime = Duration::ZERO;
        config.policy.default_groups.insert("not a name".to_owned());
        config.requests = 0;
        config.patience = Duration::ZERO;
        config.storage.group = 0;
    });
    let Err(BuildError::Configuration(faults)) = spawned.spawn().await else { panic!("it was accepted") };
    let named = ["policy.must_verify", "policy.code_attempts", "policy.session_lifetime", "policy.default_groups"];
    for name in named.into_iter().chain(["requests", "patience", "storage.group", "place"]) {
        assert_eq!(faults.iter().filter(|fault| fault.contains(name)).count(), 1, "{name}: {faults:?}");
    }
    let all = BuildError::Configuration(faults.clone()).to_string();
    assert!(faults.iter().all(|fault| all.contains(fault)), "{all}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_command_is_done_once_and_answered_twice() {
    let test = TestAccounts::start().await;
    let command = Command::new(registration(Some("ada"), Some("ada@example.com"), None));
    let first = test.register(command.clone()).await.unwrap();
    test.drain().await;
    let (head, jobs) = (test.head(), test.hasher_state().jobs_done);
    assert_eq!(test.register(command.clone()).await.unwrap(), first);
    assert_eq!((test.head(), test.hasher_state().jobs_done), (head, jobs), "neither signals nor a hash");
    assert_eq!(test.users(None, 10).await.unwrap().len(), 1);

    let other = Command::new(registration(Some("grace"), None, None)).id(command.id);
    assert_eq!(test.register(other).await.unwrap_err(), Error::CommandIdReused);
    let login = Authenticate { identifier: "ada".to_owned(), password: Password::new(PASSWORD) };
    assert_eq!(test.authenticate(Command::new(login).id(command.id)).await.unwrap_err().as_str(), "command_id_reused");
    assert_eq!((test.head(), test.find_user("grace").unwrap()), (head, None));

    // A refusal is an outcome as well, whatever has changed since.
    let refused = Command::new(registration(Some("ADA"), None, None));
    assert_eq!(test.register(refused.clone()).await.unwrap_err(), Error::Refused(RegisterReason::UsernameTaken));
    test.delete(majordomo::Delete::new(first.user)).await.unwrap();
    let head = test.head();
    assert_eq!(test.register(refused).await.unwrap_err(), Error::Refused(RegisterReason::UsernameTaken));
    assert_eq!(test.register(command).await.unwrap(), first);
    assert_eq!((test.head(), test.find_user("ada").unwrap()), (head, None));
    assert_laws(&test);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_command_sent_20_times_at_once_makes_one_user_and_20_equal_answers() {
    let test = TestAccounts::start().await;
    let command = Command::new(registration(Some("ada"), Some("ada@example.com"), None)).id(CommandId::new());
    let tasks: Vec<_> = (0..20)
        .map(|_| {
            let (accounts, command) = (test.accounts().clone(), command.clone());
            tokio::spawn(async move { accounts.register(command).await.unwrap() })
        })
        .collect();
    let mut answers = Vec::new();
    for task in tasks {
        answers.push(tokio::time::timeout(PATIENCE, task).await.unwrap().unwrap());
    }
    answers.dedup();
    assert_eq!(answers.len(), 1);
    assert_eq!(test.users(None, 10).await.unwrap().len(), 1);
    assert_eq!(count(&test, SignalKind::UserRegistrationStarted), 1);
    assert_eq!(count(&test, SignalKind::UserRegistered), 1);
    assert_eq!(test.hasher_state().jobs_done, 1);
    assert_laws(&test);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_login_is_a_new_login_that_ends_the_session_of_the_first() {
    let test = TestAccounts::start().await;
    let user = with_password(&test, "ada", PASSWORD).await;
    let other = log_in(&test, "ada", PASSWORD).await.unwrap();
    let login = Command::new(Authenticate { identifier: "ada".to_owned(), password: Password::new(PASSWORD) });
    let mut last = test.authenticate(login.clone()).await.unwrap();
    for _ in 0..2 {
        let again = test.authenticate(login.clone()).await.unwrap();
        assert_ne!((again.session, again.token.expose()), (last.session, last.token.expose()));
        let lives = |token: &SessionToken| test.check_session(token).unwrap().is_some();
        assert_eq!((lives(&last.token), lives(&again.token), lives(&other.token)), (false, true, true));
        let ended = test.recorded().into_iter().rev().find_map(|envelope| match envelope.signal {
            Signal::SessionRevoked { user, session, cause } => Some((user, session, cause)),
            _ => None,
        });
        assert_eq!(ended, Some((user, last.session, RevocationCause::Repeated)));
        last = again;
    }
    assert_eq!(test.sessions(user).unwrap().len(), 2);
    assert_laws(&test);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_is_never_verified_is_deleted_in_time_and_a_verified_one_stays() {
    let test = TestAccounts::start().await;
    let verified = proven(&test, "vera", Some("vera@example.com"), None).await;
    let nameless = with_password(&test, "norma", PASSWORD).await;
    let claim = || registration(Some("ada"), Some("ada@example.com"), Some("+447911123456"));
    let never = test.register(claim()).await.unwrap().user;
    test.drain().await;
    let lifetime = majordomo::Policy::default().unverified_lifetime;

    test.advance(lifetime - Duration::from_secs(1));
    test.sweep().await;
    assert!(test.user(never).unwrap().is_some(), "its time is not over");
    assert_eq!(test.register(claim()).await.unwrap_err(), Error::Refused(RegisterReason::UsernameTaken));

    test.advance(Duration::from_secs(2));
    test.sweep().await;
    let left: Vec<_> = test.users(None, 10).await.unwrap().iter().map(|user| user.id).collect();
    assert_eq!(left, [verified, nameless]);
    let deleted = |envelope: &majordomo::Envelope| match envelope.signal {
        Signal::UserDeleted { user, cause, .. } => Some((user, cause)),
        _ => None,
    };
    let told: Vec<_> = test.recorded().iter().filter_map(deleted).collect();
    assert_eq!(told, [(never, DeletionCause::NeverVerified)]);

    let again = proven(&test, "ada", Some("ada@example.com"), Some("+447911123456")).await;
    assert_ne!(again, never);
    test.advance(2 * lifetime);
    test.sweep().await;
    assert_eq!(test.users(None, 10).await.unwrap().len(), 3, "nobody else was due");
    assert_laws(&test);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_of_a_claim_that_became_void_is_told_as_taken_in_the_signals_alone() {
    let test = TestAccounts::start().await;
    let claim = |name| registration(Some(name), None, Some("+447911123456"));
    let loser = test.register(claim("loser")).await.unwrap();
    proven(&test, "winner", None, Some("+44 7911 123456")).await;
    let late = due(&test).into_iter().find(|message| message.user == loser.user).unwrap();
    for code in [late.proof, Proof::Code { challenge: late.token, code: OneTimeCode::new("000000") }] {
        let refused = test.confirm_phone(majordomo::ConfirmPhone { proof: code }).await.unwrap_err();
        assert_eq!(refused.as_str(), "invalid_token");
    }
    let failures = test.recorded().into_iter().filter_map(|envelope| match envelope.signal {
        Signal::UserPhoneVerificationFailed { user, reason, .. } => Some((user, reason)),
        _ => None,
    });
    let failures: Vec<_> = failures.collect();
    assert_eq!(failures, [(Some(loser.user), Failure::PhoneTaken), (Some(loser.user), Failure::InvalidToken)]);
    assert_laws(&test);
}

#[tokio::test(flavor = "multi_thread")]
async fn any_character_is_welcome_in_a_password_and_none_is_required() {
    let test = TestAccounts::start().await;
    let accepted = [
        "\u{e9}".repeat(20),
        "tide lemon rocket harbour".to_owned(),
        "\u{1f980}\u{1f422}\u{1f419}\u{1f991}\u{1f41a}\u{1f420}\u{1f42c}\u{1f433}".repeat(2),
        "\u{0} \u{202e} \u{200b} \u{7f} \u{ffff} x y z".to_owned(),
    ];
    for (place, text) in accepted.iter().enumerate() {
        let name = format!("person{place}");
        let request = Register { username: Some(name.clone()), ..Register::new(text.as_str()) };
        test.register(request).await.unwrap();
        let login = Authenticate { identifier: name, password: Password::new(text.as_str()) };
        test.authenticate(login).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_of_ones_own_name_or_the_apps_words_is_refused() {
    let test = TestAccounts::configured(|config| {
        config.messages.as_mut().unwrap().app_name = "Lighthouse".to_owned();
        config.policy.passwords.words = ForbiddenWords::new(["Harbour Ltd", "lighthouse.example"]);
    })
    .await;
    let register = |text: &str| {
        let email = Some("alice.smith@example.com".to_owned());
        test.register(Register { email, ..Register::new(text) })
    };
    for text in [
        "alice.smith2026!",
        "@l1ce.5mith2026!",
        "Lighthouse-2026",
        "L1ghth0use!!!!!!",
        "harbour.ltd.2026",
        "lighthouse.example1",
    ] {
        let refused = register(text).await.unwrap_err();
        assert_eq!(refused, Error::Refused(RegisterReason::PasswordContainsOwnName), "{text}");
    }
    register("what alice.smith saw from a lighthouse").await.unwrap();
    let overlong = ForbiddenWords::new(["x".repeat(101)]);
    let built = Accounts::builder().in_memory().configure(|config| config.policy.passwords.words = overlong).spawn();
    let Err(BuildError::Configuration(faults)) = built.await else { panic!("it was spawned") };
    assert!(faults.iter().any(|fault| fault.starts_with("policy.passwords.words: ")), "{faults:?}");
}
