//! Links and codes: used once, for one purpose, by one user, in time, and guessed at five times.

use std::time::Duration;

use majordomo::notifier::Templates;
use majordomo::testing::{BASE_URL, TestAccounts};
use majordomo::{
    AddContact, Authenticate, BuildError, ChangeContact, Channel, Claimant, Config, ConfirmEmail, ConfirmEmailReason,
    ConfirmPhone, ContactClaim, Context, Error, Failure, Keyring, OneTimeToken, OpenError, PasswordCause, Proof,
    RequestEmailVerification, RequestPhoneVerification, ResetPassword, ResetPasswordReason, Signal, SignalKind,
    SpawnError, TokenId,
};

use crate::person::*;

const INVALID_EMAIL: Error<ConfirmEmailReason> = Error::Refused(ConfirmEmailReason::InvalidToken);
const INVALID_RESET: Error<ResetPasswordReason> = Error::Refused(ResetPasswordReason::InvalidToken);

async fn confirm(test: &TestAccounts, proof: Proof) -> Result<bool, Error<ConfirmEmailReason>> {
    test.confirm_email(ConfirmEmail { proof }).await.map(|confirmed| confirmed.already)
}

/// Runs so many at once, each with its number.
async fn at_once<T, F>(test: &TestAccounts, count: usize, run: impl Fn(majordomo::Accounts, usize) -> F) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let tasks: Vec<_> = (0..count).map(|number| tokio::spawn(run(test.accounts().clone(), number))).collect();
    let mut answers = Vec::new();
    for task in tasks {
        answers.push(soon(task).await.unwrap());
    }
    answers
}

fn count(test: &TestAccounts, kind: SignalKind) -> usize {
    test.recorded().iter().filter(|envelope| envelope.signal.kind() == kind).count()
}

/// The parts of a link: the user's segment and the secret.
fn parts(link: &str) -> (String, String) {
    let mut segments = link.trim_end_matches('/').rsplit('/').map(str::to_owned);
    let token = segments.next().unwrap();
    (segments.next().unwrap(), token)
}

fn link_of(user: &str, token: &str) -> Proof {
    Proof::Link { user: user.to_owned(), token: OneTimeToken::new(token) }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_hundred_uses_of_one_reset_link_one_wins_and_its_password_is_in_force() {
    let test = TestAccounts::start().await;
    ada(&test).await;
    request_reset(&test, EMAIL, Channel::Email).await;
    let proof = link_proof(&link_to(&test, EMAIL));
    let new = |number: usize| format!("{NEW_PASSWORD} number {number}");
    let answers = at_once(&test, 200, |accounts, number| {
        let message = ResetPassword { proof: proof.clone(), new: password(&new(number)) };
        async move { accounts.reset_password(message).await.map(|_| number) }
    })
    .await;
    let winners: Vec<_> = answers.iter().filter_map(|answer| answer.ok()).collect();
    let [winner] = winners.as_slice() else { panic!("{winners:?} won") };
    assert!(answers.iter().all(|answer| answer.is_ok() || *answer == Err(INVALID_RESET)), "{answers:?}");
    sign_in(&test, "ada", &new(*winner)).await.unwrap();
    assert!(sign_in(&test, "ada", PASSWORD).await.is_err());
    assert!(sign_in(&test, "ada", &new((winner + 1) % 200)).await.is_err());
    let sets = test
        .recorded()
        .into_iter()
        .filter(|envelope| matches!(envelope.signal, Signal::UserPasswordSet { cause: PasswordCause::Reset, .. }));
    assert_eq!(sets.count(), 1);
    assert_eq!(count(&test, SignalKind::PasswordResetSuccessful), 1);
    assert_eq!(count(&test, SignalKind::PasswordResetFailed), 199);
    assert_eq!(reset(&test, proof, NEW_PASSWORD).await.unwrap_err(), INVALID_RESET);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_hundred_confirmations_of_one_link_one_verifies_and_the_others_say_already() {
    let test = TestAccounts::start().await;
    register(&test, Some("ada"), Some(EMAIL), None).await;
    let proof = link_proof(&link_to(&test, EMAIL));
    let answers = at_once(&test, 200, |accounts, _| {
        let message = ConfirmEmail { proof: proof.clone() };
        async move { accounts.confirm_email(message).await.unwrap().already }
    })
    .await;
    assert_eq!(answers.iter().filter(|already| !**already).count(), 1);
    assert_eq!(count(&test, SignalKind::UserEmailVerified), 1);
    assert_eq!(count(&test, SignalKind::UserEmailVerificationSuccessful), 200);
    assert_eq!(confirm(&test, proof).await, Ok(true));
}

#[tokio::test]
async fn a_second_click_on_a_used_verification_link_says_already_and_its_code_too() {
    let test = TestAccounts::start().await;
    let accepted = register(&test, None, Some(EMAIL), Some(PHONE)).await;
    let (link, code) = (link_proof(&link_to(&test, EMAIL)), code_to(&test, EMAIL));
    let version = || test.user(accepted.user).unwrap().unwrap().version;
    assert_eq!(confirm(&test, link.clone()).await, Ok(false));
    let (before, head) = (version(), test.head());
    assert_eq!(confirm(&test, link).await, Ok(true));
    assert_eq!(confirm(&test, code_proof(accepted.email_challenge.unwrap(), &code)).await, Ok(true));
    assert_eq!(version(), before);
    let again = [SignalKind::UserEmailVerificationStarted, SignalKind::UserEmailVerificationSuccessful];
    assert_eq!(told_by_flows(&test, head), [again, again].concat());

    let phone = code_proof(accepted.phone_challenge.unwrap(), &code_to(&test, PHONE));
    let confirmed = || test.confirm_phone(ConfirmPhone { proof: phone.clone() });
    assert_eq!([confirmed().await.unwrap().already, confirmed().await.unwrap().already], [false, true]);
}

/// The kinds behind a place of the log, without what is told of messages.
fn told_by_flows(test: &TestAccounts, head: u64) -> Vec<SignalKind> {
    let of_messages = [SignalKind::UserEmailVerificationInitiated, SignalKind::UserPhoneVerificationInitiated];
    test.kinds_after(head).into_iter().filter(|kind| !of_messages.contains(kind)).collect()
}

#[tokio::test]
async fn a_link_serves_the_one_purpose_that_it_was_sent_for() {
    let test = TestAccounts::start().await;
    ada(&test).await;
    register(&test, None, Some("eve@example.com"), None).await;
    let verify = link_proof(&link_to(&test, "eve@example.com"));
    request_reset(&test, EMAIL, Channel::Email).await;
    let for_reset = link_proof(&link_to(&test, EMAIL));
    assert_eq!(reset(&test, verify.clone(), NEW_PASSWORD).await.unwrap_err(), INVALID_RESET);
    assert_eq!(confirm(&test, for_reset.clone()).await, Err(INVALID_EMAIL));
    for proof in [&verify, &for_reset] {
        assert!(test.confirm_phone(ConfirmPhone { proof: proof.clone() }).await.is_err());
    }
    // Presented in vain elsewhere, each still serves its own.
    assert_eq!(confirm(&test, verify).await, Ok(false));
    reset(&test, for_reset, NEW_PASSWORD).await.unwrap();
}

#[tokio::test]
async fn a_link_serves_the_one_user_that_it_was_sent_to() {
    let test = TestAccounts::start().await;
    register(&test, None, Some(EMAIL), None).await;
    register(&test, None, Some("eve@example.com"), None).await;
    let (ada, ada_token) = parts(&link_to(&test, EMAIL));
    let (eve, eve_token) = parts(&link_to(&test, "eve@example.com"));
    for (user, token) in [(&ada, &eve_token), (&eve, &ada_token)] {
        assert_eq!(confirm(&test, link_of(user, token)).await, Err(INVALID_EMAIL));
    }
    // The row that one token names, with all but two bytes of the secret of the other.
    let spliced = format!("{}{}", ada_token.split_at(4 + 24).0, eve_token.split_at(4 + 24).1);
    assert_eq!(spliced.len(), ada_token.len());
    for user in [&ada, &eve] {
        assert_eq!(confirm(&test, link_of(user, &spliced)).await, Err(INVALID_EMAIL));
    }
    for (user, token) in [(&ada, &ada_token), (&eve, &eve_token)] {
        assert_eq!(confirm(&test, link_of(user, token)).await, Ok(false));
    }
}

#[tokio::test]
async fn a_code_answers_the_one_challenge_that_it_was_sent_for() {
    let test = TestAccounts::start().await;
    let ada = register(&test, Some("ada"), Some(EMAIL), Some(PHONE)).await;
    let eve = register(&test, None, Some("eve@example.com"), None).await;
    let (ada_challenge, eve_challenge) = (ada.email_challenge.unwrap(), eve.email_challenge.unwrap());
    let (ada_code, eve_code) = (code_to(&test, EMAIL), code_to(&test, "eve@example.com"));
    let (phone_challenge, phone_code) = (ada.phone_challenge.unwrap(), code_to(&test, PHONE));
    assert_eq!(confirm(&test, code_proof(eve_challenge, &ada_code)).await, Err(INVALID_EMAIL));
    assert_eq!(confirm(&test, code_proof(ada_challenge, &eve_code)).await, Err(INVALID_EMAIL));
    assert_eq!(confirm(&test, code_proof(ada_challenge, &phone_code)).await, Err(INVALID_EMAIL));
    // The right code of the right challenge, in the flow of another purpose.
    assert_eq!(confirm(&test, code_proof(phone_challenge, &phone_code)).await, Err(INVALID_EMAIL));
    let proof = code_proof(ada_challenge, &ada_code);
    assert!(test.confirm_phone(ConfirmPhone { proof: proof.clone() }).await.is_err());
    assert_eq!(reset(&test, proof.clone(), NEW_PASSWORD).await.unwrap_err(), INVALID_RESET);
    assert_eq!(confirm(&test, proof).await, Ok(false));
    let requested = request_reset(&test, EMAIL, Channel::Email).await;
    let for_reset = code_proof(requested.challenge, &code_to(&test, EMAIL));
    assert_eq!(confirm(&test, for_reset.clone()).await, Err(INVALID_EMAIL));
    reset(&test, for_reset, NEW_PASSWORD).await.unwrap();
}

#[tokio::test]
async fn a_link_proves_the_one_address_that_it_was_sent_to() {
    let test = TestAccounts::start().await;
    let user = ada(&test).await;
    let add = |address: &str| AddContact {
        user,
        address: ContactClaim::Email(address.to_owned()),
        authority: by_password(PASSWORD),
    };
    for address in ["one@example.com", "two@example.com"] {
        test.add_contact(add(address)).await.unwrap();
    }
    soon(test.drain()).await;
    let one = link_proof(&link_to(&test, "one@example.com"));
    assert_eq!(confirm(&test, one).await, Ok(false));
    let proven = |address: &str| {
        let user = test.user(user).unwrap().unwrap();
        user.contacts.iter().any(|contact| contact.address.canonical() == address && contact.proven_at.is_some())
    };
    assert_eq!([proven("one@example.com"), proven("two@example.com"), proven(EMAIL)], [true, false, true]);
}

/// Two changes of an address that cross: a link proves the address that it was sent to, or nothing.
#[tokio::test]
async fn the_link_of_an_abandoned_change_proves_neither_address() {
    let test = TestAccounts::start().await;
    let user = ada(&test).await;
    let old = contact(&test, user, EMAIL);
    let change = |address: &str| ChangeContact {
        user,
        contact: old,
        address: ContactClaim::Email(address.to_owned()),
        authority: by_password(PASSWORD),
    };
    test.change_contact(change("first@example.com")).await.unwrap();
    soon(test.drain()).await;
    let first = link_proof(&link_to(&test, "first@example.com"));
    test.change_contact(change("second@example.com")).await.unwrap();
    soon(test.drain()).await;
    let second = link_proof(&link_to(&test, "second@example.com"));
    assert_eq!(confirm(&test, second).await, Ok(false));
    assert_eq!(confirm(&test, first).await, Err(INVALID_EMAIL));
    let addresses: Vec<_> = test.user(user).unwrap().unwrap().contacts.into_iter().map(|it| it.address).collect();
    let addresses: Vec<_> = addresses.iter().map(|address| address.canonical()).collect();
    assert_eq!(addresses, [PHONE, "second@example.com"]);
}

#[tokio::test]
async fn a_reset_link_dies_with_the_credential_epoch_that_it_was_sent_in() {
    let test = TestAccounts::start().await;
    let user = ada(&test).await;
    request_reset(&test, EMAIL, Channel::Email).await;
    let by_email = link_proof(&link_to(&test, EMAIL));
    let requested = request_reset(&test, PHONE, Channel::Phone).await;
    let by_phone = code_proof(requested.challenge, &code_to(&test, PHONE));
    test.disable(majordomo::Disable { user }).await.unwrap();
    test.enable(majordomo::Enable { user }).await.unwrap();
    for proof in [by_email, by_phone] {
        assert_eq!(reset(&test, proof, NEW_PASSWORD).await.unwrap_err(), INVALID_RESET);
    }
    sign_in(&test, "ada", PASSWORD).await.unwrap();
}

#[tokio::test]
async fn what_is_not_spelled_as_a_token_is_refused_with_one_start_and_one_end() {
    let test = TestAccounts::start().await;
    register(&test, None, Some(EMAIL), None).await;
    let (user, token) = parts(&link_to(&test, EMAIL));
    let tail = token.split_at(4).1.to_owned();
    let proofs = [
        ("empty", link_of(&user, "")),
        ("blank", link_of(&user, " ")),
        ("prefix alone", link_of(&user, "mdt_")),
        ("without its prefix", link_of(&user, &tail)),
        ("another prefix", link_of(&user, &format!("mds_{tail}"))),
        ("prefix in capitals", link_of(&user, &format!("MDT_{tail}"))),
        ("one less", link_of(&user, token.split_at(token.len() - 1).0)),
        ("one more", link_of(&user, &format!("{token}A"))),
        ("padded", link_of(&user, &format!("{token}="))),
        ("with white space", link_of(&user, &format!("{token}\n"))),
        ("not base64url", link_of(&user, &format!("mdt_{}", "+".repeat(64)))),
        ("not ASCII", link_of(&user, &format!("mdt_{}", "é".repeat(32)))),
        ("over-long", link_of(&user, &"mdt_".repeat(256 * 1024))),
        ("zeros", link_of(&user, &format!("mdt_{}", "A".repeat(64)))),
        ("no user", link_of("", &token)),
        ("a user that is none", link_of("nobody", &token)),
        ("a user too long", link_of(&format!("{user}A"), &token)),
        ("an unknown challenge", code_proof(TokenId::new(), "123456")),
        ("an empty code", code_proof(TokenId::new(), "")),
        ("an over-long code", code_proof(TokenId::new(), &"1".repeat(1024 * 1024))),
    ];
    for (name, proof) in proofs {
        let (head, conflicts) = (test.head(), test.storage_state().conflicts);
        assert_eq!(confirm(&test, proof.clone()).await, Err(INVALID_EMAIL), "{name}");
        let kinds = [SignalKind::UserEmailVerificationStarted, SignalKind::UserEmailVerificationFailed];
        assert_eq!(test.kinds_after(head), kinds, "{name}");
        assert_eq!(reset(&test, proof, NEW_PASSWORD).await.unwrap_err(), INVALID_RESET, "{name}");
        let resets = [SignalKind::PasswordResetStarted, SignalKind::PasswordResetFailed];
        assert_eq!(test.kinds_after(head), [kinds, resets].concat(), "{name}");
        let flows: Vec<_> = test.recorded().iter().filter(|it| it.seq > Some(head)).map(|it| it.flow).collect();
        assert_eq!((flows[0], flows[2]), (flows[1], flows[3]), "{name}");
        assert_eq!(test.storage_state().conflicts, conflicts, "{name}");
    }
    assert_eq!(confirm(&test, link_of(&user, &token)).await, Ok(false));
}

#[test]
fn what_has_no_two_segments_is_no_link() {
    for text in ["", "/", "mdt_x", "/mdt_x/", "https:"] {
        assert!(Proof::from_link(text).is_none(), "{text}");
    }
}

#[tokio::test]
async fn links_and_codes_work_until_the_microsecond_of_their_end() {
    let hour = Duration::from_secs(3600);
    let ten_minutes = Duration::from_secs(600);
    for (by_link, lifetime) in [(true, 24 * hour), (false, ten_minutes)] {
        for in_time in [true, false] {
            let test = TestAccounts::start().await;
            let accepted = register(&test, None, Some(EMAIL), None).await;
            let code = code_proof(accepted.email_challenge.unwrap(), &code_to(&test, EMAIL));
            let proof = if by_link { link_proof(&link_to(&test, EMAIL)) } else { code };
            test.advance(if in_time { lifetime - MICROSECOND } else { lifetime });
            let expected = if in_time { Ok(false) } else { Err(INVALID_EMAIL) };
            assert_eq!(confirm(&test, proof).await, expected, "link: {by_link}");
        }
    }
    for (by_link, lifetime) in [(true, hour), (false, ten_minutes)] {
        for in_time in [true, false] {
            let test = TestAccounts::start().await;
            ada(&test).await;
            let requested = request_reset(&test, EMAIL, Channel::Email).await;
            let code = code_proof(requested.challenge, &code_to(&test, EMAIL));
            let proof = if by_link { link_proof(&link_to(&test, EMAIL)) } else { code };
            test.advance(if in_time { lifetime - MICROSECOND } else { lifetime });
            let answer = reset(&test, proof, NEW_PASSWORD).await;
            assert_eq!(answer.is_ok(), in_time, "link: {by_link}, {answer:?}");
        }
    }
}

#[tokio::test]
async fn a_new_request_supersedes_the_old_link_and_code() {
    let test = TestAccounts::start().await;
    let accepted = register(&test, Some("ada"), Some(EMAIL), Some(PHONE)).await;
    let old_code = code_proof(accepted.email_challenge.unwrap(), &code_to(&test, EMAIL));
    let old_phone = code_proof(accepted.phone_challenge.unwrap(), &code_to(&test, PHONE));
    let old_link = link_proof(&link_to(&test, EMAIL));
    let claimant = || Claimant::Address(EMAIL.to_owned());
    let requested = test.request_email_verification(RequestEmailVerification { claimant: claimant() }).await.unwrap();
    soon(test.drain()).await;
    for proof in [old_link, old_code] {
        assert_eq!(confirm(&test, proof).await, Err(INVALID_EMAIL));
    }
    // Asking for the e-mail again leaves the text message alone, and the other way round.
    let new_code = code_proof(requested.challenge, &code_to(&test, EMAIL));
    let claimant = Claimant::User { user: accepted.user, contact: None };
    test.request_phone_verification(RequestPhoneVerification { claimant }).await.unwrap();
    soon(test.drain()).await;
    assert!(test.confirm_phone(ConfirmPhone { proof: old_phone }).await.is_err());
    assert_eq!(confirm(&test, new_code).await, Ok(false));

    let requested = request_reset(&test, EMAIL, Channel::Email).await;
    let older = [link_proof(&link_to(&test, EMAIL)), code_proof(requested.challenge, &code_to(&test, EMAIL))];
    request_reset(&test, "ada", Channel::Email).await;
    for proof in older {
        assert_eq!(reset(&test, proof, NEW_PASSWORD).await.unwrap_err(), INVALID_RESET);
    }
    reset(&test, link_proof(&link_to(&test, EMAIL)), NEW_PASSWORD).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_five_hundred_parallel_wrong_codes_five_are_counted_and_then_the_right_one_is_refused() {
    let test = TestAccounts::start().await;
    let accepted = register(&test, None, Some(EMAIL), None).await;
    let (challenge, right) = (accepted.email_challenge.unwrap(), code_to(&test, EMAIL));
    let wrong = wrong_code(&right);
    let answers = at_once(&test, 500, |accounts, _| {
        let message = ConfirmEmail { proof: code_proof(challenge, &wrong) };
        async move { accounts.confirm_email(message).await.unwrap_err() }
    })
    .await;
    assert!(answers.iter().all(|answer| *answer == INVALID_EMAIL), "{answers:?}");
    let failed = |reason: Failure| {
        let of_reason = |signal: &Signal| matches!(signal, Signal::UserEmailVerificationFailed { reason: told, .. } if *told == reason);
        test.recorded().iter().filter(|envelope| of_reason(&envelope.signal)).count()
    };
    assert_eq!([failed(Failure::InvalidToken), failed(Failure::TooManyAttempts)], [5, 495]);
    assert_eq!(confirm(&test, code_proof(challenge, &right)).await, Err(INVALID_EMAIL));
    assert_eq!(failed(Failure::TooManyAttempts), 496);
    assert_eq!(count(&test, SignalKind::UserEmailVerified), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_five_hundred_parallel_wrong_codes_for_a_reset_five_are_counted_and_no_password_is_set() {
    let test = TestAccounts::start().await;
    ada(&test).await;
    let challenge = request_reset(&test, PHONE, Channel::Phone).await.challenge;
    let right = code_to(&test, PHONE);
    assert_eq!(right.len(), 8);
    let wrong = wrong_code(&right);
    let answers = at_once(&test, 500, |accounts, _| {
        let message = ResetPassword { proof: code_proof(challenge, &wrong), new: password(NEW_PASSWORD) };
        async move { accounts.reset_password(message).await.unwrap_err() }
    })
    .await;
    assert!(answers.iter().all(|answer| *answer == INVALID_RESET), "{answers:?}");
    let failed = |reason: Failure| {
        let of_reason =
            |signal: &Signal| matches!(signal, Signal::PasswordResetFailed { reason: told, .. } if *told == reason);
        test.recorded().iter().filter(|envelope| of_reason(&envelope.signal)).count()
    };
    assert_eq!([failed(Failure::InvalidToken), failed(Failure::TooManyAttempts)], [5, 495]);
    assert_eq!(reset(&test, code_proof(challenge, &right), NEW_PASSWORD).await.unwrap_err(), INVALID_RESET);
    assert!(sign_in(&test, "ada", NEW_PASSWORD).await.is_err());
    // A new request, once the last one has cooled down, is a new challenge with attempts of its own.
    test.advance(majordomo::Policy::default().messages.cool_down);
    let challenge = request_reset(&test, PHONE, Channel::Phone).await.challenge;
    reset(&test, code_proof(challenge, &code_to(&test, PHONE)), NEW_PASSWORD).await.unwrap();
}

#[tokio::test]
async fn four_wrong_codes_leave_a_fifth_try() {
    let test = TestAccounts::start().await;
    let accepted = register(&test, None, Some(EMAIL), None).await;
    let (challenge, right) = (accepted.email_challenge.unwrap(), code_to(&test, EMAIL));
    for _ in 0..4 {
        assert_eq!(confirm(&test, code_proof(challenge, &wrong_code(&right))).await, Err(INVALID_EMAIL));
    }
    // As people copy it.
    let (one, other) = right.split_at(3);
    assert_eq!(confirm(&test, code_proof(challenge, &format!(" {one}-{other}\n"))).await, Ok(false));
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_parallel_right_logins_all_pass() {
    let test = TestAccounts::start().await;
    let user = ada(&test).await;
    let answers = at_once(&test, 50, |accounts, _| {
        let message = Authenticate { identifier: "ada".to_owned(), password: password(PASSWORD) };
        async move { accounts.authenticate(message).await }
    })
    .await;
    let opened: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
    assert!(opened.iter().all(|session| session.user == user && is_open(&test, session)));
    assert_eq!(test.sessions(user).unwrap().len(), 50);
    assert_eq!(count(&test, SignalKind::UserAuthenticated), 50);
}

#[tokio::test]
async fn with_other_keys_a_stolen_database_is_refused() {
    let test = TestAccounts::start().await;
    register(&test, None, Some(EMAIL), None).await;
    let refused = test.restart_with(|builder| builder.keys(Keyring::ephemeral().unwrap())).await;
    match refused {
        Err(BuildError::Spawn(SpawnError::Open(OpenError::ForeignKeys))) => {}
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn with_its_own_keys_a_database_honours_its_links_after_a_restart() {
    let test = TestAccounts::start().await;
    register(&test, None, Some(EMAIL), None).await;
    let proof = link_proof(&link_to(&test, EMAIL));
    let test = test.restart().await.unwrap();
    assert_eq!(confirm(&test, proof).await, Ok(false));
}

/// Every URL of a text.
fn urls(text: &str) -> Vec<&str> {
    let starts = text.match_indices("http").map(|(place, _)| place);
    let end = |rest: &str| rest.find(|c: char| c.is_whitespace() || "\"<>'".contains(c)).unwrap_or(rest.len());
    starts.map(|start| text.split_at(start).1).map(|rest| rest.split_at(end(rest)).0).collect()
}

#[tokio::test]
async fn links_lead_to_the_configured_place_and_nowhere_else() {
    for base in [BASE_URL.to_owned(), format!("{BASE_URL}/app/"), "https://login.example.org:8443".to_owned()] {
        let test = TestAccounts::configured(|config: &mut Config| {
            config.messages.as_mut().unwrap().base_url.clone_from(&base);
        })
        .await;
        let hostile = Context::new()
            .request_id("https://evil.example/\r\nHost: evil.example")
            .user_agent("x\nX-Forwarded-Host: evil.example\r\n\r\nhttps://evil.example/?user=");
        let mut request = majordomo::Register {
            email: Some(EMAIL.to_owned()),
            phone: Some(PHONE.to_owned()),
            ..majordomo::Register::new(PASSWORD)
        };
        request.profile.display_name = Some("https://evil.example/".to_owned());
        request.profile.locale = Some("https://evil.example/".to_owned());
        test.register(majordomo::Command::new(request.clone()).context(hostile.clone())).await.unwrap();
        soon(test.drain()).await;
        assert_eq!(confirm(&test, link_proof(&link_to(&test, EMAIL))).await, Ok(false));
        // The owner of a taken address, one who forgot, and one who changed the password are told too.
        test.register(majordomo::Command::new(request).context(hostile)).await.unwrap();
        // What tells the owner is about somebody else, and in no order with what is about the owner.
        soon(test.drain()).await;
        request_reset(&test, EMAIL, Channel::Email).await;
        reset(&test, link_proof(&link_to(&test, EMAIL)), NEW_PASSWORD).await.unwrap();
        soon(test.drain()).await;
        let messages = test.messages().messages();
        assert!(messages.len() >= 6, "{}", messages.len());
        let mut seen = 0;
        for message in &messages {
            let all = [Some(&message.text), message.html.as_ref(), message.subject.as_ref()];
            for text in all.into_iter().flatten() {
                assert!(!text.contains("evil"), "{text}");
                for url in urls(text) {
                    let rest = url.strip_prefix(base.trim_end_matches('/')).unwrap_or_else(|| panic!("{url}"));
                    assert!(rest.is_empty() || rest.starts_with('/'), "{url}");
                    seen += 1;
                }
            }
        }
        assert!(seen >= 4, "{seen}");
    }
}

#[tokio::test]
async fn a_link_to_reset_by_text_message_works_where_the_template_shows_one() {
    let templates = Templates::embedded()
        .with_template("reset_password_phone.txt", "{{ link }}\n{% if code %}{{ code }}{% endif %}");
    let test = TestAccounts::with(cheap(), |builder| builder.templates(templates)).await;
    ada(&test).await;
    request_reset(&test, PHONE, Channel::Phone).await;
    reset(&test, link_proof(&link_to(&test, PHONE)), NEW_PASSWORD).await.unwrap();
    sign_in(&test, "ada", NEW_PASSWORD).await.unwrap();
}
