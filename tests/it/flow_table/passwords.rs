//! Passwords: change one, ask for a reset, reset one.

use std::time::Duration;

use majordomo::SignalKind::{
    PasswordChangeFailed, PasswordChangeStarted, PasswordChanged, PasswordResetFailed, PasswordResetRequestAccepted,
    PasswordResetRequestFailed, PasswordResetRequestStarted, PasswordResetStarted, PasswordResetSuccessful,
    ResetPasswordEmail, ResetPasswordPhone, SessionRevoked, UserPasswordCheckFailed, UserPasswordChecked,
    UserPasswordSet, UserPasswordSetFailed,
};
use majordomo::breach::BreachCheck;
use majordomo::{
    ChangePassword, ChangePasswordReason, Channel, Disable, Error, Password, Proof, RequestPasswordReset,
    RequestPasswordResetReason, ResetPassword, ResetPasswordReason, SignalKind, UserId,
};
use serde_json::{Value, json};

use super::scenarios;
use super::stage::{OTHER_PASSWORD, PASSWORD, PHONE, Stage, Table, email, login, malformed, wrong_code};
use crate::person::{BREACHED, Known};

scenarios! {
    a_changed_password_is_told_before_the_sessions_that_it_ends
    a_change_of_password_is_refused_for_every_reason
    a_change_of_password_whose_check_failed_is_unexpected_and_told
    a_reset_that_was_asked_for_goes_to_the_channel_that_was_chosen
    a_reset_asked_for_in_vain_gets_the_same_answer_and_tells_the_truth
    a_reset_by_link_and_by_code_tells_the_password_and_the_sessions
    a_reset_is_refused_for_every_worth_that_its_proof_may_lack
    a_reset_is_refused_for_every_rule_that_its_password_breaks
    a_reset_whose_hashing_failed_leaves_its_token_good
}

/// A password of each fault, and its name.
const UNFIT: [(&str, &str); 5] = [
    ("short", "password_too_short"),
    (LONG, "password_too_long"),
    ("qwertyuiopasdfghjkl", "password_common"),
    ("alicesmith2026!", "password_contains_own_name"),
    (BREACHED, "password_breached"),
];
const LONG: &str = match std::str::from_utf8(&[b'q'; 1_025]) {
    Ok(text) => text,
    Err(_) => "",
};

/// A stage whose service for breached passwords knows one.
async fn knowing() -> Stage {
    Stage::made(|_| {}, |builder| builder.breached_passwords(BreachCheck::new(Known(BREACHED)))).await
}

fn change(user: UserId, current: &str, new: &str) -> ChangePassword {
    ChangePassword { user, current: Password::new(current), new: Password::new(new), keep: None }
}

async fn a_changed_password_is_told_before_the_sessions_that_it_ends(table: &mut Table) {
    let mut stage = Stage::new().await;
    let user = stage.verified("ada").await;
    let (kept, ended) = (stage.login("ada").await, stage.login("ada").await);
    let message = ChangePassword { keep: Some(kept.session), ..change(user, PASSWORD, OTHER_PASSWORD) };
    let ran = stage.run(message).await;
    ran.tells(&[
        (PasswordChangeStarted, json!({ "user": user })),
        (UserPasswordChecked, json!({ "user": user, "success": true, "needs_rehash": false })),
        (UserPasswordSet, json!({ "user": user, "cause": "change", "scheme": "argon2id" })),
        (SessionRevoked, json!({ "user": user, "session": ended.session, "cause": "password_change" })),
        (PasswordChanged, json!({ "user": user, "sessions_revoked": 1 })),
    ]);
    assert_eq!((ran.granted().user, ran.granted().sessions_revoked), (user, 1));
    assert!(ran.lane_of(user) && stage.test.check_session(&kept.token).unwrap().is_some());
    table.close(stage).await;
}

async fn a_change_of_password_is_refused_for_every_reason(table: &mut Table) {
    let mut stage = knowing().await;
    let (user, nobody) = (stage.verified("alicesmith").await, UserId::new());
    let disabled = stage.disabled("bob").await;
    let mut rows = vec![
        (nobody, change(nobody, PASSWORD, OTHER_PASSWORD), None, ChangePasswordReason::UserNotFound),
        (user, change(user, OTHER_PASSWORD, "short"), Some(false), ChangePasswordReason::IncorrectPassword),
        (disabled, change(disabled, PASSWORD, OTHER_PASSWORD), Some(true), ChangePasswordReason::UserInactive),
    ];
    for (password, name) in UNFIT {
        let reason = ChangePasswordReason::ALL.iter().find(|reason| reason.as_str() == name).unwrap();
        rows.push((user, change(user, PASSWORD, password), Some(true), *reason));
    }
    for (user, message, checked, reason) in rows {
        let error_type = if user == nobody { "user_not_found" } else { "validation_error" };
        let mut expected = vec![(PasswordChangeStarted, json!({ "user": user }))];
        expected.extend(checked.map(|success| (UserPasswordChecked, json!({ "user": user, "success": success }))));
        let end = json!({ "user": user, "error_type": error_type, "reason": reason.as_str() });
        expected.push((PasswordChangeFailed, end));
        stage.run(message).await.refused(reason).tells(&expected);
    }
    table.close(stage).await;
}

async fn a_change_of_password_whose_check_failed_is_unexpected_and_told(table: &mut Table) {
    let mut stage = Stage::new().await;
    let user = stage.verified("ada").await;
    stage.test.fail_hashing(1);
    let reason = "password_hashing_error";
    stage.run(change(user, PASSWORD, OTHER_PASSWORD)).await.failed(Error::Unexpected).tells(&[
        (PasswordChangeStarted, json!({})),
        (UserPasswordCheckFailed, json!({ "user": user, "reason": reason })),
        (PasswordChangeFailed, json!({ "user": user, "error_type": reason, "reason": reason })),
    ]);
    table.close(stage).await;
}

fn ask(identifier: &str, channel: Channel) -> RequestPasswordReset {
    RequestPasswordReset { identifier: identifier.to_owned(), channel }
}

async fn a_reset_that_was_asked_for_goes_to_the_channel_that_was_chosen(table: &mut Table) {
    let mut stage = Stage::new().await;
    let (ada, phoned) = (stage.verified("ada").await, stage.phoned(PHONE).await);
    let mail = (ResetPasswordEmail, "email", "address", "a***@e***.com");
    let text = (ResetPasswordPhone, "phone", "phone", "+44***56");
    let rows = [
        ("ada", "***", ada, Channel::Email, mail),
        ("Ada@Example.com", "a***@e***.com", ada, Channel::Email, mail),
        (PHONE, "+44***56", phoned, Channel::Phone, text),
    ];
    for (identifier, shown, user, channel, (due, name, field, address)) in rows {
        let ran = stage.run(ask(identifier, channel)).await;
        let token = ran.granted().challenge;
        ran.tells(&[
            (PasswordResetRequestStarted, json!({ "channel": name, "identifier": shown })),
            (due, json!({ "user": user, field: address, "token": token })),
            (PasswordResetRequestAccepted, json!({ "user": user, "channel": name, "token": token })),
        ]);
        assert!(ran.lane_of(user) && ran.deliveries().len() == 1);
    }
    table.close(stage).await;
}

async fn a_reset_asked_for_in_vain_gets_the_same_answer_and_tells_the_truth(table: &mut Table) {
    let mut stage = Stage::new().await;
    let (ada, eve, bob) = (stage.verified("ada").await, stage.claimed("eve").await, stage.disabled("bob").await);
    let rows = [
        ("nobody@example.com", Channel::Email, None, "user_not_found", "user_not_found"),
        ("bob", Channel::Email, Some(bob), "validation_error", "user_inactive"),
        ("eve", Channel::Email, Some(eve), "validation_error", "contact_not_verified"),
        ("ada", Channel::Phone, Some(ada), "validation_error", "contact_not_found"),
    ];
    for (identifier, channel, user, error_type, truth) in rows {
        let ran = stage.run(ask(identifier, channel)).await;
        ran.granted();
        ran.tells(&[
            (PasswordResetRequestStarted, json!({ "channel": channel })),
            (
                PasswordResetRequestFailed,
                json!({ "user": user, "channel": channel, "error_type": error_type, "reason": truth }),
            ),
        ]);
        assert!(ran.deliveries().is_empty());
    }
    let end = json!({ "user": null, "error_type": "validation_error", "reason": "identifier_invalid" });
    let ran = stage.run(ask("what is this?", Channel::Email)).await;
    ran.refused(RequestPasswordResetReason::IdentifierInvalid)
        .tells(&[(PasswordResetRequestStarted, json!({ "identifier": "***" })), (PasswordResetRequestFailed, end)]);
    table.close(stage).await;
}

/// Asks for a reset by e-mail, a while after the last one, and gives both proofs.
async fn asked(stage: &Stage, name: &str) -> (Proof, Proof) {
    stage.test.advance(majordomo::Policy::default().messages.cool_down);
    let challenge = stage.test.request_password_reset(ask(name, Channel::Email)).await.unwrap().challenge;
    stage.test.drain().await;
    (stage.link(&email(name)), stage.code(&email(name), challenge))
}

fn reset(proof: &Proof, password: &str) -> ResetPassword {
    ResetPassword { proof: proof.clone(), new: Password::new(password) }
}

async fn a_reset_by_link_and_by_code_tells_the_password_and_the_sessions(table: &mut Table) {
    let mut stage = Stage::new().await;
    let user = stage.verified("ada").await;
    for (by_link, password, old) in [(true, OTHER_PASSWORD, PASSWORD), (false, PASSWORD, OTHER_PASSWORD)] {
        let session = stage.test.authenticate(login("ada", old)).await.unwrap().session;
        let (link, code) = asked(&stage, "ada").await;
        let Proof::Code { challenge: token, .. } = code else { panic!("not a code") };
        let ran = stage.run(reset(if by_link { &link } else { &code }, password)).await;
        ran.tells(&[
            (PasswordResetStarted, json!({ "token": token })),
            (UserPasswordSet, json!({ "user": user, "cause": "reset", "scheme": "argon2id" })),
            (SessionRevoked, json!({ "user": user, "session": session, "cause": "password_reset" })),
            (PasswordResetSuccessful, json!({ "user": user, "token": token, "sessions_revoked": 1 })),
        ]);
        assert!(ran.lane_of(user) && ran.granted().sessions_revoked == 1);
    }
    table.close(stage).await;
}

fn invalid(user: Option<UserId>, error_type: &str, reason: &str) -> [(SignalKind, Value); 2] {
    let end = json!({ "user": user, "error_type": error_type, "reason": reason });
    [(PasswordResetStarted, json!({})), (PasswordResetFailed, end)]
}

async fn a_reset_is_refused_for_every_worth_that_its_proof_may_lack(table: &mut Table) {
    let mut stage = Stage::new().await;
    let (ada, bob, eve) = (stage.verified("ada").await, stage.verified("bob").await, stage.verified("eve").await);
    let (superseded, _) = asked(&stage, "ada").await;
    let (link, code) = asked(&stage, "ada").await;
    let (of_disabled, _) = asked(&stage, "bob").await;
    let (_, guessed) = asked(&stage, "eve").await;
    stage.test.disable(Disable { user: bob }).await.unwrap();
    let mut rows = vec![
        (malformed(), None, "invalid_token"),
        (superseded, Some(ada), "token_mismatch_or_expired"),
        (of_disabled, Some(bob), "token_mismatch_or_expired"),
        (wrong_code(&code), Some(ada), "invalid_token"),
    ];
    rows.extend((0..5).map(|_| (wrong_code(&guessed), Some(eve), "invalid_token")));
    rows.push((guessed, Some(eve), "too_many_attempts"));
    for (proof, user, truth) in rows {
        let ran = stage.run(reset(&proof, OTHER_PASSWORD)).await;
        ran.refused(ResetPasswordReason::InvalidToken).tells(&invalid(user, "invalid_token", truth));
    }
    stage.test.reset_password(reset(&link, OTHER_PASSWORD)).await.unwrap();
    let (expiring, expiring_code) = asked(&stage, "ada").await;
    stage.test.advance(Duration::from_secs(3_600));
    let over = "token_mismatch_or_expired";
    for (proof, truth) in [(link, "token_used"), (expiring, over), (expiring_code, over)] {
        let ran = stage.run(reset(&proof, PASSWORD)).await;
        let expected = invalid(Some(ada), "invalid_token", truth);
        ran.refused(ResetPasswordReason::InvalidToken).tells(&expected);
    }
    table.close(stage).await;
}

async fn a_reset_is_refused_for_every_rule_that_its_password_breaks(table: &mut Table) {
    let mut stage = knowing().await;
    let user = stage.verified("alicesmith").await;
    let (link, _) = asked(&stage, "alicesmith").await;
    for (password, name) in UNFIT {
        let reason = ResetPasswordReason::ALL.iter().find(|reason| reason.as_str() == name).unwrap();
        let ran = stage.run(reset(&link, password)).await;
        ran.refused(*reason).tells(&invalid(Some(user), "validation_error", name));
    }
    stage.run(reset(&link, OTHER_PASSWORD)).await.granted();
    table.close(stage).await;
}

async fn a_reset_whose_hashing_failed_leaves_its_token_good(table: &mut Table) {
    let mut stage = Stage::new().await;
    let user = stage.verified("ada").await;
    let (link, _) = asked(&stage, "ada").await;
    stage.test.fail_hashing(1);
    let reason = "password_hashing_error";
    stage.run(reset(&link, OTHER_PASSWORD)).await.failed(Error::Unexpected).tells(&[
        (PasswordResetStarted, json!({})),
        (UserPasswordSetFailed, json!({ "user": user, "reason": reason })),
        (PasswordResetFailed, json!({ "user": user, "error_type": reason, "reason": reason })),
    ]);
    stage.run(reset(&link, OTHER_PASSWORD)).await.granted();
    table.close(stage).await;
}
