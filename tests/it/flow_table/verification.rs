//! Verification: ask for a message that proves an address, and prove it.

use std::time::Duration;

use majordomo::SignalKind::{
    UserEmailVerificationFailed, UserEmailVerificationRequestAccepted, UserEmailVerificationRequested,
    UserEmailVerificationStarted, UserEmailVerificationSuccessful, UserEmailVerificationTokenGenerated,
    UserEmailVerified, UserPhoneVerificationFailed, UserPhoneVerificationRequestAccepted,
    UserPhoneVerificationRequested, UserPhoneVerificationStarted, UserPhoneVerificationSuccessful,
    UserPhoneVerificationTokenGenerated, UserPhoneVerified, VerifyEmail, VerifyPhone,
};
use majordomo::{
    Claimant, ConfirmEmail, ConfirmEmailReason, ConfirmPhone, ConfirmPhoneReason, Delete, Disable, Proof, Register,
    RequestEmailVerification, RequestEmailVerificationReason, RequestPhoneVerification, RequestPhoneVerificationReason,
    UserId,
};
use serde_json::json;

use super::scenarios;
use super::stage::{OTHER_PHONE, PASSWORD, PHONE, Stage, Table, email, malformed, wrong_code};

scenarios! {
    a_fresh_email_message_supersedes_the_one_before
    an_email_message_that_is_not_due_gets_the_same_answer_and_tells_the_truth
    an_email_address_is_proven_once_by_link_or_code
    a_proof_of_an_email_address_that_is_worth_nothing_is_refused
    a_fresh_text_message_supersedes_the_one_before
    a_text_message_that_is_not_due_gets_the_same_answer_and_tells_the_truth
    a_phone_number_is_proven_once_by_link_or_code
    a_proof_of_a_phone_number_that_is_worth_nothing_is_refused
}

fn address(text: &str) -> Claimant {
    Claimant::Address(text.to_owned())
}

fn of(user: UserId) -> Claimant {
    Claimant::User { user, contact: None }
}

async fn a_fresh_email_message_supersedes_the_one_before(table: &mut Table) {
    let mut stage = Stage::new().await;
    let request = Register { email: Some(email("ada")), ..Register::new(PASSWORD) };
    let accepted = stage.test.register(request).await.unwrap();
    let (user, mut before) = (accepted.user, accepted.email_challenge.unwrap());
    for (claimant, named) in [(address("ADA@example.com"), None), (of(user), Some(user))] {
        let ran = stage.run(RequestEmailVerification { claimant }).await;
        let token = ran.granted().challenge;
        let told = json!({ "user": user, "address": "a***@e***.com", "token": token });
        ran.tells(&[
            (UserEmailVerificationRequested, json!({ "user": named })),
            (
                UserEmailVerificationTokenGenerated,
                json!({ "user": user, "token": token, "supersedes": before, "address": "a***@e***.com" }),
            ),
            (VerifyEmail, told.clone()),
            (UserEmailVerificationRequestAccepted, told),
        ]);
        assert!(ran.lane_of(user) && ran.deliveries().len() == 1);
        before = token;
    }
    table.close(stage).await;
}

async fn an_email_message_that_is_not_due_gets_the_same_answer_and_tells_the_truth(table: &mut Table) {
    let mut stage = Stage::new().await;
    let shadow = stage.claimed("shadow").await;
    let owner = Register { email: Some(email("shadow")), ..Register::new(PASSWORD) };
    let owner = stage.test.register(owner).await.unwrap().user;
    stage.test.drain().await;
    stage.test.confirm_email(ConfirmEmail { proof: stage.link(&email("shadow")) }).await.unwrap();
    let (barred, phoned, nobody) = (stage.claimed("barred").await, stage.phoned(PHONE).await, UserId::new());
    stage.test.disable(Disable { user: barred }).await.unwrap();
    let rows = [
        (address("nobody@example.com"), None, "user_not_found"),
        (of(nobody), None, "user_not_found"),
        (of(phoned), Some(phoned), "contact_not_found"),
        (address(&email("shadow")), Some(owner), "already_verified"),
        (of(shadow), Some(shadow), "email_taken"),
        (of(barred), Some(barred), "user_inactive"),
    ];
    for (claimant, user, truth) in rows {
        let ran = stage.run(RequestEmailVerification { claimant }).await;
        let token = ran.granted().challenge;
        ran.tells(&[
            (UserEmailVerificationRequested, json!({})),
            (UserEmailVerificationFailed, json!({ "user": user, "token": token, "reason": truth })),
        ]);
    }
    let ran = stage.run(RequestEmailVerification { claimant: address("ada@") }).await;
    ran.refused(RequestEmailVerificationReason::EmailInvalid).tells(&[
        (UserEmailVerificationRequested, json!({ "user": null, "identifier": "***" })),
        (UserEmailVerificationFailed, json!({ "address": "***", "token": null, "reason": "email_invalid" })),
    ]);
    table.close(stage).await;
}

async fn an_email_address_is_proven_once_by_link_or_code(table: &mut Table) {
    let mut stage = Stage::new().await;
    for (name, shown, by_link) in [("ada", "a***@e***.com", true), ("bob", "b***@e***.com", false)] {
        let request = Register { email: Some(email(name)), ..Register::new(PASSWORD) };
        let accepted = stage.test.register(request).await.unwrap();
        stage.test.drain().await;
        let (user, token) = (accepted.user, accepted.email_challenge.unwrap());
        let code = stage.code(&email(name), token);
        let proof = if by_link { stage.link(&email(name)) } else { code };
        let via = if by_link { "link" } else { "code" };
        let ran = stage.run(ConfirmEmail { proof: proof.clone() }).await;
        ran.tells(&[
            (UserEmailVerificationStarted, json!({ "token": token })),
            (UserEmailVerified, json!({ "user": user, "address": shown, "via": via })),
            (UserEmailVerificationSuccessful, json!({ "user": user, "address": shown, "reason": null })),
        ]);
        assert!(ran.lane_of(user) && !ran.granted().already && ran.granted().user == user);
        let again = stage.run(ConfirmEmail { proof }).await;
        again.tells(&[
            (UserEmailVerificationStarted, json!({ "token": token })),
            (UserEmailVerificationSuccessful, json!({ "user": user, "reason": "already_verified" })),
        ]);
        assert!(again.granted().already && again.granted().contact == ran.granted().contact);
    }
    table.close(stage).await;
}

/// Registers somebody with a claim to an address of either channel, and gives both proofs of it.
async fn proofs(stage: &Stage, request: Register, to: &str) -> (UserId, Proof, Proof) {
    let accepted = stage.test.register(request).await.unwrap();
    stage.test.drain().await;
    let challenge = accepted.email_challenge.or(accepted.phone_challenge).unwrap();
    (accepted.user, stage.link(to), stage.code(to, challenge))
}

async fn mail_proofs(stage: &Stage, name: &str) -> (UserId, Proof, Proof) {
    let request = Register { email: Some(email(name)), ..Register::new(PASSWORD) };
    proofs(stage, request, &email(name)).await
}

async fn text_proofs(stage: &Stage, phone: &str) -> (UserId, Proof, Proof) {
    let request = Register { phone: Some(phone.to_owned()), ..Register::new(PASSWORD) };
    proofs(stage, request, phone).await
}

async fn a_proof_of_an_email_address_that_is_worth_nothing_is_refused(table: &mut Table) {
    let mut stage = Stage::new().await;
    let (ada, superseded, _) = mail_proofs(&stage, "ada").await;
    stage.test.request_email_verification(RequestEmailVerification { claimant: of(ada) }).await.unwrap();
    let (barred, of_barred, _) = mail_proofs(&stage, "barred").await;
    stage.test.disable(Disable { user: barred }).await.unwrap();
    let (gone, of_gone, _) = mail_proofs(&stage, "gone").await;
    stage.test.delete(Delete::new(gone)).await.unwrap();
    let (shadow, of_shadow, _) = mail_proofs(&stage, "shadow").await;
    let (_, of_owner, _) = mail_proofs(&stage, "shadow").await;
    stage.test.confirm_email(ConfirmEmail { proof: of_owner }).await.unwrap();
    let (eve, expired, guessed) = mail_proofs(&stage, "eve").await;
    let (texted, of_other_channel, _) = text_proofs(&stage, PHONE).await;
    let mut rows = vec![
        (malformed(), None, "invalid_token"),
        (of_other_channel, Some(texted), "invalid_token"),
        (superseded, Some(ada), "token_mismatch_or_expired"),
        (of_barred, Some(barred), "user_inactive"),
        (of_gone, None, "invalid_token"),
        (of_shadow, Some(shadow), "email_taken"),
    ];
    rows.extend((0..5).map(|_| (wrong_code(&guessed), Some(eve), "invalid_token")));
    rows.push((guessed, Some(eve), "too_many_attempts"));
    rows.push((expired, Some(eve), "token_mismatch_or_expired"));
    let last = rows.len() - 1;
    for (place, (proof, user, truth)) in rows.into_iter().enumerate() {
        if place == last {
            stage.test.advance(Duration::from_secs(24 * 3_600));
        }
        stage.run(ConfirmEmail { proof }).await.refused(ConfirmEmailReason::InvalidToken).tells(&[
            (UserEmailVerificationStarted, json!({})),
            (UserEmailVerificationFailed, json!({ "user": user, "reason": truth })),
        ]);
    }
    table.close(stage).await;
}

async fn a_fresh_text_message_supersedes_the_one_before(table: &mut Table) {
    let mut stage = Stage::new().await;
    let request = Register { phone: Some(PHONE.to_owned()), ..Register::new(PASSWORD) };
    let accepted = stage.test.register(request).await.unwrap();
    let (user, mut before) = (accepted.user, accepted.phone_challenge.unwrap());
    for (claimant, named) in [(address("+44 7911 123456"), None), (of(user), Some(user))] {
        let ran = stage.run(RequestPhoneVerification { claimant }).await;
        let token = ran.granted().challenge;
        ran.tells(&[
            (UserPhoneVerificationRequested, json!({ "user": named })),
            (
                UserPhoneVerificationTokenGenerated,
                json!({ "user": user, "address": "+44***56", "token": token, "supersedes": before }),
            ),
            (VerifyPhone, json!({ "user": user, "phone": "+44***56", "token": token })),
            (UserPhoneVerificationRequestAccepted, json!({ "user": user, "address": "+44***56", "token": token })),
        ]);
        assert!(ran.lane_of(user) && ran.deliveries().len() == 1);
        before = token;
    }
    table.close(stage).await;
}

async fn a_text_message_that_is_not_due_gets_the_same_answer_and_tells_the_truth(table: &mut Table) {
    let mut stage = Stage::new().await;
    let (shadow, ..) = text_proofs(&stage, PHONE).await;
    let owner = stage.phoned(PHONE).await;
    let (barred, ..) = text_proofs(&stage, OTHER_PHONE).await;
    stage.test.disable(Disable { user: barred }).await.unwrap();
    let mailed = stage.verified("ada").await;
    let rows = [
        (address("+447911123458"), None, "user_not_found"),
        (of(mailed), Some(mailed), "contact_not_found"),
        (address(PHONE), Some(owner), "already_verified"),
        (of(shadow), Some(shadow), "phone_taken"),
        (of(barred), Some(barred), "user_inactive"),
    ];
    for (claimant, user, truth) in rows {
        let ran = stage.run(RequestPhoneVerification { claimant }).await;
        let token = ran.granted().challenge;
        ran.tells(&[
            (UserPhoneVerificationRequested, json!({})),
            (UserPhoneVerificationFailed, json!({ "user": user, "token": token, "reason": truth })),
        ]);
    }
    let ran = stage.run(RequestPhoneVerification { claimant: address("+44") }).await;
    ran.refused(RequestPhoneVerificationReason::PhoneInvalid).tells(&[
        (UserPhoneVerificationRequested, json!({ "user": null })),
        (UserPhoneVerificationFailed, json!({ "token": null, "reason": "phone_invalid" })),
    ]);
    table.close(stage).await;
}

async fn a_phone_number_is_proven_once_by_link_or_code(table: &mut Table) {
    let mut stage = Stage::new().await;
    for (phone, shown, by_link) in [(PHONE, "+44***56", true), (OTHER_PHONE, "+44***57", false)] {
        let (user, link, code) = text_proofs(&stage, phone).await;
        let (proof, via) = if by_link { (link, "link") } else { (code, "code") };
        let ran = stage.run(ConfirmPhone { proof: proof.clone() }).await;
        ran.tells(&[
            (UserPhoneVerificationStarted, json!({})),
            (UserPhoneVerified, json!({ "user": user, "address": shown, "via": via })),
            (UserPhoneVerificationSuccessful, json!({ "user": user, "address": shown, "reason": null })),
        ]);
        assert!(ran.lane_of(user) && !ran.granted().already && ran.granted().user == user);
        let again = stage.run(ConfirmPhone { proof }).await;
        again.tells(&[
            (UserPhoneVerificationStarted, json!({})),
            (UserPhoneVerificationSuccessful, json!({ "user": user, "reason": "already_verified" })),
        ]);
        assert!(again.granted().already);
    }
    table.close(stage).await;
}

async fn a_proof_of_a_phone_number_that_is_worth_nothing_is_refused(table: &mut Table) {
    let mut stage = Stage::new().await;
    let (user, link, code) = text_proofs(&stage, PHONE).await;
    let mut rows = vec![(malformed(), None, "invalid_token")];
    rows.extend((0..5).map(|_| (wrong_code(&code), Some(user), "invalid_token")));
    rows.push((code, Some(user), "too_many_attempts"));
    for (proof, user, truth) in rows {
        stage.run(ConfirmPhone { proof }).await.refused(ConfirmPhoneReason::InvalidToken).tells(&[
            (UserPhoneVerificationStarted, json!({})),
            (UserPhoneVerificationFailed, json!({ "user": user, "reason": truth })),
        ]);
    }
    stage.test.advance(Duration::from_secs(24 * 3_600));
    let ran = stage.run(ConfirmPhone { proof: link }).await;
    ran.refused(ConfirmPhoneReason::InvalidToken).tells(&[
        (UserPhoneVerificationStarted, json!({})),
        (UserPhoneVerificationFailed, json!({ "user": user, "reason": "token_mismatch_or_expired" })),
    ]);
    table.close(stage).await;
}
