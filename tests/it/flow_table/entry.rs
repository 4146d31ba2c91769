//! Coming in and going out: register, authenticate, log out, end sessions.

use std::time::Duration;

use majordomo::SignalKind::{
    AddressTaken, PasswordRehashFailed, PasswordRehashStarted, PasswordRehashed, SessionRevoked, SessionsEndFailed,
    SessionsEndStarted, SessionsEnded, UserAuthenticated, UserAuthenticationFailed, UserAuthenticationStarted,
    UserEmailVerificationTokenGenerated, UserLoggedOut, UserLogoutFailed, UserLogoutStarted, UserPasswordCheckFailed,
    UserPasswordChecked, UserPasswordSet, UserPasswordSetFailed, UserPhoneVerificationTokenGenerated, UserPreRegister,
    UserRegistered, UserRegistrationFailed, UserRegistrationStarted, VerifyEmail, VerifyPhone,
};
use majordomo::breach::BreachCheck;
use majordomo::{
    AuthenticateReason, Command, CommandId, Config, EndSessions, EndSessionsReason, Error, HashParameters, LogOut,
    LogOutReason, Password, Profile, Register, RegisterReason, Registration, Requirement, SessionToken, SessionsToEnd,
    UserId,
};
use serde_json::{Value, json};

use super::scenarios;
use super::stage::{OTHER_PASSWORD, PASSWORD, PHONE, Stage, Table, assert_tells, email, login, run_of, shows};
use crate::person::{BREACHED, Known};

scenarios! {
    a_registration_tells_every_fact_in_order
    a_registration_by_name_alone_sends_nothing
    a_registration_with_a_taken_address_looks_the_same_and_tells_the_truth
    a_registration_is_refused_for_every_reason_that_needs_no_other_policy
    a_registration_without_what_policy_requires_or_with_what_it_forbids_is_refused
    a_registration_whose_hashing_failed_ends_with_that
    a_login_tells_the_check_before_its_end
    a_login_that_is_refused_tells_the_truth_and_one_answer
    a_login_whose_hashing_failed_is_unexpected_and_told
    a_login_again_or_one_too_many_ends_an_older_session
    a_login_after_the_parameters_grew_rehashes
    a_logout_ends_its_session_once
    ending_sessions_ends_those_that_were_meant
}

fn everything() -> Register {
    let (username, email, phone) = (Some("ada".into()), Some(email("ada")), Some(PHONE.into()));
    Register { username, email, phone, ..Register::new(PASSWORD) }
}

async fn a_registration_tells_every_fact_in_order(table: &mut Table) {
    let mut stage = Stage::new().await;
    let ran = stage.run(everything()).await;
    let accepted = ran.granted();
    let (user, mail, text) = (accepted.user, accepted.email_challenge, accepted.phone_challenge);
    let typed = json!({ "username": "***", "email": "a***@e***.com", "phone": "+44***56" });
    ran.tells(&[
        (UserRegistrationStarted, typed.clone()),
        (UserPreRegister, typed),
        (UserPasswordSet, json!({ "user": user, "cause": "registration", "scheme": "argon2id" })),
        (
            UserEmailVerificationTokenGenerated,
            json!({ "user": user, "address": "a***@e***.com", "token": mail, "supersedes": null }),
        ),
        (VerifyEmail, json!({ "user": user, "address": "a***@e***.com", "token": mail })),
        (
            UserPhoneVerificationTokenGenerated,
            json!({ "user": user, "address": "+44***56", "token": text, "supersedes": null }),
        ),
        (VerifyPhone, json!({ "user": user, "phone": "+44***56", "token": text })),
        (
            UserRegistered,
            json!({ "user": user, "username": "a***", "addresses": ["a***@e***.com", "+44***56"], "groups": ["users"] }),
        ),
    ]);
    assert!(ran.lane_of(user) && ran.deliveries().len() == 2);
    table.close(stage).await;
}

async fn a_registration_by_name_alone_sends_nothing(table: &mut Table) {
    let mut stage = Stage::new().await;
    let ran = stage.run(Register { username: Some("ada".into()), ..Register::new(PASSWORD) }).await;
    let user = ran.granted().user;
    ran.tells(&[
        (UserRegistrationStarted, json!({ "username": "***", "email": null, "phone": null })),
        (UserPreRegister, json!({ "email": null })),
        (UserPasswordSet, json!({ "user": user })),
        (UserRegistered, json!({ "user": user, "addresses": [] })),
    ]);
    table.close(stage).await;
}

async fn a_registration_with_a_taken_address_looks_the_same_and_tells_the_truth(table: &mut Table) {
    let mut stage = Stage::new().await;
    let owner = stage.verified("ada").await;
    let ran = stage.run(Register { email: Some(email("ada")), ..Register::new(PASSWORD) }).await;
    let accepted = ran.granted();
    assert!(accepted.email_challenge.is_some() && accepted.phone_challenge.is_none());
    ran.tells(&[
        (UserRegistrationStarted, json!({})),
        (UserPreRegister, json!({})),
        (UserPasswordSet, json!({ "user": accepted.user })),
        (AddressTaken, json!({ "owner": owner, "address": "a***@e***.com", "channel": "email" })),
        (UserRegistrationFailed, refusal("email_taken", "email")),
    ]);
    assert!(ran.lane_of(accepted.user));
    table.close(stage).await;
}

fn refusal(reason: &str, field: &str) -> Value {
    json!({ "error_type": "validation_error", "reason": reason, "fields": [field] })
}

async fn assert_registrations_refused(stage: &mut Stage, rows: Vec<(Register, RegisterReason, &str)>) {
    for (message, reason, field) in rows {
        let ran = stage.run(message).await;
        ran.refused(reason)
            .tells(&[(UserRegistrationStarted, json!({})), (UserRegistrationFailed, refusal(reason.as_str(), field))]);
    }
}

async fn a_registration_is_refused_for_every_reason_that_needs_no_other_policy(table: &mut Table) {
    let open = |config: &mut Config| config.policy.registration = Registration::Open;
    let mut stage = Stage::made(open, |builder| builder.breached_passwords(BreachCheck::new(Known(BREACHED)))).await;
    stage.verified("ada").await;
    stage.phoned(PHONE).await;
    let free = || Register { username: Some("alicesmith".into()), ..Register::new(PASSWORD) };
    let password = |text: &str| Register { password: Password::new(text), ..free() };
    let named = Profile { display_name: Some("bell \u{7}".into()), ..Profile::default() };
    let rows = vec![
        (Register::new(PASSWORD), RegisterReason::IdentifierRequired, "username"),
        (Register { username: Some("a b".into()), ..free() }, RegisterReason::UsernameInvalid, "username"),
        (Register { username: Some("аdmin".into()), ..free() }, RegisterReason::UsernameReserved, "username"),
        (Register { email: Some("ada@".into()), ..free() }, RegisterReason::EmailInvalid, "email"),
        (Register { phone: Some("+44".into()), ..free() }, RegisterReason::PhoneInvalid, "phone"),
        (password("short"), RegisterReason::PasswordTooShort, "password"),
        (password(&"long ".repeat(300)), RegisterReason::PasswordTooLong, "password"),
        (password("qwertyuiopasdfghjkl"), RegisterReason::PasswordCommon, "password"),
        (password("AliceSmithAlice"), RegisterReason::PasswordContainsOwnName, "password"),
        (password(BREACHED), RegisterReason::PasswordBreached, "password"),
        (Register { profile: named, ..free() }, RegisterReason::ProfileInvalid, "display_name"),
        (Register { username: Some("ADA".into()), ..free() }, RegisterReason::UsernameTaken, "username"),
        (Register { email: Some(email("ADA")), ..free() }, RegisterReason::EmailTaken, "email"),
        (Register { phone: Some(PHONE.into()), ..free() }, RegisterReason::PhoneTaken, "phone"),
    ];
    assert_registrations_refused(&mut stage, rows).await;
    assert_eq!(stage.test.users(None, 10).await.unwrap().len(), 2, "a refusal leaves no user");
    table.close(stage).await;
}

async fn a_registration_without_what_policy_requires_or_with_what_it_forbids_is_refused(table: &mut Table) {
    let mut stage = Stage::with(|config| {
        config.policy.username = Requirement::Required;
        config.policy.email = Requirement::Required;
        config.policy.phone = Requirement::Required;
    })
    .await;
    let rows = vec![
        (Register { username: None, ..everything() }, RegisterReason::UsernameRequired, "username"),
        (Register { email: None, ..everything() }, RegisterReason::EmailRequired, "email"),
        (Register { phone: None, ..everything() }, RegisterReason::PhoneRequired, "phone"),
    ];
    assert_registrations_refused(&mut stage, rows).await;
    table.close(stage).await;
    let mut stage = Stage::with(|config| config.policy.phone = Requirement::Forbidden).await;
    let rows = vec![(everything(), RegisterReason::IdentifierNotAllowed, "phone")];
    assert_registrations_refused(&mut stage, rows).await;
    table.close(stage).await;
}

async fn a_registration_whose_hashing_failed_ends_with_that(table: &mut Table) {
    let mut stage = Stage::new().await;
    stage.test.fail_hashing(1);
    let why =
        json!({ "error_type": "password_hashing_error", "reason": "password_hashing_error", "fields": ["password"] });
    stage.run(everything()).await.failed(Error::Unexpected).tells(&[
        (UserRegistrationStarted, json!({})),
        (UserPasswordSetFailed, json!({ "user": null, "reason": "password_hashing_error" })),
        (UserRegistrationFailed, why),
    ]);
    table.close(stage).await;
}

async fn a_login_tells_the_check_before_its_end(table: &mut Table) {
    let mut stage = Stage::new().await;
    let user = stage.verified("ada").await;
    for (identifier, kind, shown) in [("Ada", "username", "***"), ("ADA@Example.com", "email", "a***@e***.com")] {
        let ran = stage.run(login(identifier, PASSWORD)).await;
        let opened = ran.granted();
        ran.tells(&[
            (UserAuthenticationStarted, json!({ "identifier_kind": kind, "identifier": shown })),
            (UserPasswordChecked, json!({ "user": user, "success": true, "needs_rehash": false })),
            (UserAuthenticated, json!({ "user": user, "method": "password", "session": opened.session })),
        ]);
        assert!(ran.lane_of(user) && stage.test.check_session(&opened.token).unwrap().is_some());
    }
    table.close(stage).await;
}

async fn a_login_that_is_refused_tells_the_truth_and_one_answer(table: &mut Table) {
    let mut stage = Stage::new().await;
    let (ada, bob, eve) = (stage.verified("ada").await, stage.disabled("bob").await, stage.claimed("eve").await);
    let (invalid, unverified) = (AuthenticateReason::InvalidCredentials, AuthenticateReason::EmailNotVerified);
    let nobody: Option<UserId> = None;
    let rows = [
        ("nobody", PASSWORD, nobody, None, invalid, "user_not_found"),
        ("eve@example.com", PASSWORD, None, None, invalid, "user_not_found"),
        ("what is this?", PASSWORD, None, None, invalid, "user_not_found"),
        ("ada", OTHER_PASSWORD, Some(ada), Some(false), invalid, "incorrect_password"),
        ("bob", PASSWORD, Some(bob), Some(true), invalid, "user_inactive"),
        ("bob", OTHER_PASSWORD, Some(bob), Some(false), invalid, "incorrect_password"),
        ("eve", PASSWORD, Some(eve), Some(true), unverified, "email_not_verified"),
        ("eve", OTHER_PASSWORD, Some(eve), Some(false), invalid, "incorrect_password"),
    ];
    for (identifier, password, user, checked, reason, truth) in rows {
        let ran = stage.run(login(identifier, password)).await;
        let mut expected = vec![(UserAuthenticationStarted, json!({}))];
        expected.extend(checked.map(|success| (UserPasswordChecked, json!({ "user": user, "success": success }))));
        expected.push((UserAuthenticationFailed, json!({ "user": user, "reason": truth })));
        ran.refused(reason).tells(&expected);
        assert!(user.is_none_or(|user| ran.lane_of(user)));
    }
    table.close(stage).await;
}

async fn a_login_whose_hashing_failed_is_unexpected_and_told(table: &mut Table) {
    let mut stage = Stage::new().await;
    let user = stage.verified("ada").await;
    stage.test.fail_hashing(1);
    stage.run(login("ada", PASSWORD)).await.failed(Error::Unexpected).tells(&[
        (UserAuthenticationStarted, json!({})),
        (UserPasswordCheckFailed, json!({ "user": user, "reason": "password_hashing_error" })),
        (UserAuthenticationFailed, json!({ "user": user, "reason": "password_hashing_error" })),
    ]);
    table.close(stage).await;
}

async fn a_login_again_or_one_too_many_ends_an_older_session(table: &mut Table) {
    let mut stage = Stage::with(|config| config.policy.sessions_per_user = 1).await;
    let user = stage.verified("ada").await;
    let command = Command::new(login("ada", PASSWORD)).id(CommandId::new());
    let mut older = stage.run(command.clone()).await.granted();
    for (command, cause) in [(command, "repeated"), (login("ada", PASSWORD).into(), "evicted")] {
        let ran = stage.run(command).await;
        ran.tells(&[
            (UserAuthenticationStarted, json!({})),
            (UserPasswordChecked, json!({ "success": true })),
            (SessionRevoked, json!({ "user": user, "session": older.session, "cause": cause })),
            (UserAuthenticated, json!({ "user": user, "session": ran.granted().session })),
        ]);
        assert_eq!(stage.test.check_session(&older.token).unwrap(), None);
        older = ran.granted();
    }
    table.close(stage).await;
}

async fn a_login_after_the_parameters_grew_rehashes(table: &mut Table) {
    let stage = Stage::new().await;
    let user = stage.verified("ada").await;
    let grown = HashParameters::default();
    let mut stage = stage.restart_with(|builder| builder.configure(|config| config.hashing.parameters = grown)).await;
    // First the machine fails, then it does not, and then there is nothing left to do.
    let outcomes = [Some(Some("password_hashing_error")), Some(None), None];
    for outcome in outcomes {
        stage.test.hold_rehashing(true);
        let ran = stage.run(login("ada", PASSWORD)).await;
        ran.tells(&[
            (UserAuthenticationStarted, json!({})),
            (UserPasswordChecked, json!({ "success": true, "needs_rehash": outcome.is_some() })),
            (UserAuthenticated, json!({ "user": user })),
        ]);
        stage.test.fail_hashing(outcome.flatten().map_or(0, |_| 1));
        let before = stage.test.head();
        stage.test.hold_rehashing(false);
        stage.test.drain().await;
        let log = stage.test.signals(before, 100).await.unwrap();
        let Some(failure) = outcome else {
            assert_eq!(log, []);
            continue;
        };
        let run = run_of(&log, |envelope| envelope.signal.kind() == PasswordRehashStarted);
        let mut expected = vec![(PasswordRehashStarted, json!({ "user": user }))];
        match failure {
            Some(reason) => expected.push((PasswordRehashFailed, json!({ "user": user, "reason": reason }))),
            None => {
                let set = json!({ "user": user, "cause": "rehash", "scheme": "argon2id" });
                expected.extend([(UserPasswordSet, set), (PasswordRehashed, json!({ "user": user }))]);
            }
        }
        assert_tells(&run, &expected);
    }
    table.close(stage).await;
}

async fn a_logout_ends_its_session_once(table: &mut Table) {
    let mut stage = Stage::new().await;
    let user = stage.verified("ada").await;
    let (opened, stale) = (stage.login("ada").await, stage.login("ada").await);
    let message = || LogOut { token: opened.token.clone() };
    let session = opened.session;
    let ran = stage.run(message()).await;
    ran.tells(&[
        (UserLogoutStarted, json!({ "session": session })),
        (SessionRevoked, json!({ "user": user, "session": session, "cause": "log_out" })),
        (UserLoggedOut, json!({ "user": user, "session": session })),
    ]);
    assert_eq!((ran.granted().user, ran.granted().session), (user, session));
    stage.test.advance(Duration::from_secs(15 * 24 * 3600));
    let rows = [
        (message(), None, None),
        (LogOut { token: SessionToken::new("no token at all") }, None, None),
        (LogOut { token: stale.token }, Some(stale.session), Some(user)),
    ];
    for (message, session, user) in rows {
        stage.run(message).await.refused(LogOutReason::SessionNotFound).tells(&[
            (UserLogoutStarted, json!({ "session": session })),
            (UserLogoutFailed, json!({ "user": user, "reason": "session_not_found" })),
        ]);
    }
    table.close(stage).await;
}

async fn ending_sessions_ends_those_that_were_meant(table: &mut Table) {
    let mut stage = Stage::new().await;
    let user = stage.verified("ada").await;
    let mut open = Vec::new();
    for _ in 0..4 {
        open.push(stage.login("ada").await.session);
    }
    let rows = [
        (SessionsToEnd::One(open[0]), vec![open[0]]),
        (SessionsToEnd::AllExcept(open[3]), vec![open[1], open[2]]),
        (SessionsToEnd::All, vec![open[3]]),
        (SessionsToEnd::All, vec![]),
    ];
    for (which, ended) in rows {
        let ran = stage.run(EndSessions { user, which }).await;
        let revoked = |session| (SessionRevoked, json!({ "user": user, "session": session, "cause": "ended" }));
        let mut expected = vec![(SessionsEndStarted, json!({ "user": user }))];
        let mut told: Vec<_> = ended.iter().map(revoked).collect();
        // Of several sessions the order is that of their index.
        told.sort_by_key(|(_, fields)| ran.signals.iter().position(|envelope| shows(envelope, fields)));
        expected.extend(told);
        expected.push((SessionsEnded, json!({ "user": user, "count": ended.len() })));
        ran.tells(&expected);
        assert_eq!(ran.granted().count as usize, ended.len());
    }
    let rows = [
        (EndSessions { user: UserId::new(), which: SessionsToEnd::All }, EndSessionsReason::UserNotFound),
        (EndSessions { user, which: SessionsToEnd::One(open[0]) }, EndSessionsReason::SessionNotFound),
    ];
    for (message, reason) in rows {
        let user = message.user;
        stage.run(message).await.refused(reason).tells(&[
            (SessionsEndStarted, json!({ "user": user })),
            (SessionsEndFailed, json!({ "user": user, "reason": reason.as_str() })),
        ]);
    }
    table.close(stage).await;
}
