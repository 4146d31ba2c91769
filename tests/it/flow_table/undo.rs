//! Taking a change back.

use majordomo::SignalKind::{
    ChangeUndone, ContactRestored, ContactRevoked, ResetPasswordEmail, SessionRevoked, UndoFailed, UndoStarted,
    UserPasswordRemoved, UserUnlockFailed, UserUnlockStarted, UserUnlockSuccessful,
};
use majordomo::{
    ChangeContact, ChangePassword, ConfirmEmail, ContactClaim, Password, UndoChange, UndoChangeReason, Unlock,
    UnlockReason, UserId,
};
use serde_json::json;

use super::scenarios;
use super::stage::{OTHER_PASSWORD, PASSWORD, Stage, Table, email, malformed};

scenarios! {
    a_change_that_is_undone_tells_all_that_goes_and_comes_back
    a_change_that_was_undone_before_is_told_so
    a_change_of_a_disabled_user_is_undone_without_a_message
    a_link_that_undoes_nothing_is_refused
    a_lock_is_lifted_by_an_operator_or_a_link_and_by_nothing_else
}

/// Replaces the address of a verified user by another one, which is proven.
async fn replaced(stage: &Stage, user: UserId) {
    let contact = stage.test.user(user).unwrap().unwrap().contacts[0].id;
    let authority = majordomo::Authority::Password(Password::new(PASSWORD));
    let address = ContactClaim::Email(email("bell"));
    stage.test.change_contact(ChangeContact { user, contact, address, authority }).await.unwrap();
    stage.test.drain().await;
    stage.test.confirm_email(ConfirmEmail { proof: stage.link(&email("bell")) }).await.unwrap();
    stage.test.drain().await;
}

async fn a_change_that_is_undone_tells_all_that_goes_and_comes_back(table: &mut Table) {
    let mut stage = Stage::new().await;
    let user = stage.verified("ada").await;
    replaced(&stage, user).await;
    let session = stage.login("ada").await.session;
    let ran = stage.run(UndoChange { proof: stage.link(&email("ada")) }).await;
    let undone = ran.granted();
    let token = undone.reset.unwrap().challenge;
    let (ada, bell) = ("a***@e***.com", "b***@e***.com");
    let version = stage.test.user(user).unwrap().unwrap().version;
    ran.tells(&[
        (UndoStarted, json!({})),
        (UserPasswordRemoved, json!({ "user": user })),
        (SessionRevoked, json!({ "user": user, "session": session, "cause": "undone" })),
        (ContactRevoked, json!({ "user": user, "address": bell, "channel": "email" })),
        (ContactRestored, json!({ "user": user, "address": ada, "channel": "email" })),
        (ResetPasswordEmail, json!({ "user": user, "address": ada, "token": token })),
        (
            ChangeUndone,
            json!({
                "user": user, "version": version, "change": "contact_replaced", "sessions_revoked": 1,
                "reset": token, "reason": null,
            }),
        ),
    ]);
    assert!(ran.lane_of(user) && ran.deliveries().len() == 1 && undone.sessions_revoked == 1);
    table.close(stage).await;
}

async fn a_change_that_was_undone_before_is_told_so(table: &mut Table) {
    let mut stage = Stage::new().await;
    let user = stage.verified("ada").await;
    let (current, new) = (Password::new(PASSWORD), Password::new(OTHER_PASSWORD));
    stage.test.change_password(ChangePassword { user, current, new, keep: None }).await.unwrap();
    stage.test.drain().await;
    let proof = stage.link(&email("ada"));
    let change = stage.run(UndoChange { proof: proof.clone() }).await;
    change.tells(&[
        (UndoStarted, json!({})),
        (UserPasswordRemoved, json!({ "user": user })),
        (ResetPasswordEmail, json!({ "user": user })),
        (ChangeUndone, json!({ "user": user, "change": "password_changed", "sessions_revoked": 0 })),
    ]);
    let ran = stage.run(UndoChange { proof }).await;
    assert!(ran.granted().already);
    ran.tells(&[
        (UndoStarted, json!({})),
        (ChangeUndone, json!({ "user": user, "change": null, "reset": null, "reason": "nothing_to_do" })),
    ]);
    table.close(stage).await;
}

async fn a_change_of_a_disabled_user_is_undone_without_a_message(table: &mut Table) {
    let mut stage = Stage::new().await;
    let user = stage.verified("ada").await;
    replaced(&stage, user).await;
    stage.test.disable(majordomo::Disable { user }).await.unwrap();
    let ran = stage.run(UndoChange { proof: stage.link(&email("ada")) }).await;
    ran.tells(&[
        (UndoStarted, json!({})),
        (UserPasswordRemoved, json!({ "user": user })),
        (ContactRevoked, json!({ "user": user })),
        (ContactRestored, json!({ "user": user })),
        (ChangeUndone, json!({ "user": user, "change": "contact_replaced", "reset": null })),
    ]);
    assert!(ran.granted().reset.is_none() && ran.deliveries().is_empty());
    table.close(stage).await;
}

async fn a_link_that_undoes_nothing_is_refused(table: &mut Table) {
    let mut stage = Stage::new().await;
    let user = stage.verified("ada").await;
    stage.test.drain().await;
    let verifies = stage.link(&email("ada"));
    let unknown = json!({ "token": null, "user": null, "reason": "invalid_token" });
    for (proof, told) in [(malformed(), unknown), (verifies, json!({ "reason": "invalid_token" }))] {
        let ran = stage.run(UndoChange { proof }).await;
        ran.refused(UndoChangeReason::InvalidToken).tells(&[(UndoStarted, json!({})), (UndoFailed, told)]);
    }
    replaced(&stage, user).await;
    let proof = stage.link(&email("ada"));
    stage.test.advance(std::time::Duration::from_secs(7 * 24 * 3_600));
    let told = json!({ "user": user, "reason": "token_mismatch_or_expired" });
    let ran = stage.run(UndoChange { proof }).await;
    ran.refused(UndoChangeReason::InvalidToken).tells(&[(UndoStarted, json!({})), (UndoFailed, told)]);
    table.close(stage).await;
}

async fn a_lock_is_lifted_by_an_operator_or_a_link_and_by_nothing_else(table: &mut Table) {
    let mut stage = Stage::new().await;
    let user = stage.verified("ada").await;
    let ran = stage.run(Unlock::Operator(user)).await;
    assert!(ran.granted().already);
    ran.tells(&[
        (UserUnlockStarted, json!({ "user": user, "token": null })),
        (UserUnlockSuccessful, json!({ "user": user, "reason": "nothing_to_do" })),
    ]);
    let somebody = UserId::new();
    let ran = stage.run(Unlock::Operator(somebody)).await;
    ran.refused(UnlockReason::UserNotFound).tells(&[
        (UserUnlockStarted, json!({ "user": somebody })),
        (UserUnlockFailed, json!({ "user": null, "token": null, "reason": "user_not_found" })),
    ]);
    let ran = stage.run(Unlock::Link(malformed())).await;
    ran.refused(UnlockReason::InvalidToken)
        .tells(&[(UserUnlockStarted, json!({})), (UserUnlockFailed, json!({ "reason": "invalid_token" }))]);
    table.close(stage).await;
}
