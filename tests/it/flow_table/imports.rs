//! Imports: users of another system come with the hashes that are stored there.

use std::collections::BTreeSet;

use majordomo::SignalKind::{
    UserAuthenticated, UserAuthenticationStarted, UserEmailVerificationTokenGenerated, UserEmailVerified,
    UserImportFailed, UserImportStarted, UserImported, UserPasswordChecked, UserPasswordSet,
    UserPhoneVerificationTokenGenerated, UserPhoneVerified, VerifyEmail, VerifyPhone,
};
use majordomo::{Import, ImportReason, ImportedAddress, PasswordHash, Profile, Requirement};
use serde_json::{Value, json};

use super::scenarios;
use super::stage::{PHONE, Stage, Table, email, login};

scenarios! {
    an_import_of_proven_addresses_tells_every_fact_and_sends_nothing
    an_import_of_claimed_addresses_sends_what_a_registration_sends
    an_import_is_refused_for_every_reason_that_needs_no_other_policy
    an_import_without_what_policy_requires_or_with_what_it_forbids_is_refused
    the_first_login_after_an_import_rehashes_once
}

/// Of `test`, as passlib's own tests have it.
const HASH: &str = "$5$rounds=11858$WH1ABM5sKhxbkgCK$aTQsjPkz0rBsH3lQlJxw9HDTDXPKBxC0LlVeV69P.t1";

fn everything(address: fn(String) -> ImportedAddress) -> Import {
    let (email, phone) = (Some(address(email("ada"))), Some(address(PHONE.to_owned())));
    Import { username: Some("ada".into()), email, phone, ..Import::new(HASH) }
}

async fn an_import_of_proven_addresses_tells_every_fact_and_sends_nothing(table: &mut Table) {
    let mut stage = Stage::new().await;
    let groups = Some(BTreeSet::from(["staff".to_owned()]));
    let ran = stage.run(Import { groups, ..everything(ImportedAddress::Proven) }).await;
    let accepted = ran.granted();
    assert_eq!((accepted.email_challenge, accepted.phone_challenge), (None, None));
    let user = accepted.user;
    ran.tells(&[
        (UserImportStarted, json!({ "username": "***", "email": "a***@e***.com", "phone": "+44***56" })),
        (UserPasswordSet, json!({ "user": user, "cause": "import", "scheme": "sha256-crypt" })),
        (UserEmailVerified, json!({ "user": user, "address": "a***@e***.com", "via": "admin", "undo": null })),
        (UserPhoneVerified, json!({ "user": user, "address": "+44***56", "via": "admin", "undo": null })),
        (
            UserImported,
            json!({ "user": user, "username": "a***", "addresses": ["a***@e***.com", "+44***56"], "groups": ["staff"] }),
        ),
    ]);
    assert!(ran.lane_of(user) && ran.deliveries().is_empty());
    table.close(stage).await;
}

async fn an_import_of_claimed_addresses_sends_what_a_registration_sends(table: &mut Table) {
    let mut stage = Stage::new().await;
    let ran = stage.run(everything(ImportedAddress::Claimed)).await;
    let accepted = ran.granted();
    let (user, mail, text) = (accepted.user, accepted.email_challenge, accepted.phone_challenge);
    assert!(mail.is_some() && text.is_some());
    ran.tells(&[
        (UserImportStarted, json!({})),
        (UserPasswordSet, json!({ "user": user })),
        (UserEmailVerificationTokenGenerated, json!({ "user": user, "token": mail, "supersedes": null })),
        (VerifyEmail, json!({ "user": user, "token": mail })),
        (UserPhoneVerificationTokenGenerated, json!({ "user": user, "token": text, "supersedes": null })),
        (VerifyPhone, json!({ "user": user, "token": text })),
        (UserImported, json!({ "user": user, "groups": ["users"] })),
    ]);
    assert!(ran.lane_of(user) && ran.deliveries().len() == 2);
    table.close(stage).await;
}

fn refusal(reason: ImportReason, field: &str) -> Value {
    json!({ "error_type": "validation_error", "reason": reason.as_str(), "fields": [field] })
}

async fn assert_refused(stage: &mut Stage, rows: Vec<(Import, ImportReason, &str)>) {
    for (message, reason, field) in rows {
        let ran = stage.run(message).await;
        ran.refused(reason).tells(&[(UserImportStarted, json!({})), (UserImportFailed, refusal(reason, field))]);
    }
}

async fn an_import_is_refused_for_every_reason_that_needs_no_other_policy(table: &mut Table) {
    // In discreet mode: whoever imports is told all the same.
    let mut stage = Stage::new().await;
    stage.verified("ada").await;
    stage.phoned(PHONE).await;
    let free = || Import { username: Some("alicesmith".into()), ..Import::new(HASH) };
    let hash = |text: &str| Import { hash: PasswordHash::new(text), ..free() };
    let named = Profile { display_name: Some("bell \u{7}".into()), ..Profile::default() };
    let proven = |text: &str| Some(ImportedAddress::Proven(text.to_owned()));
    let claimed = |text: &str| Some(ImportedAddress::Claimed(text.to_owned()));
    let rows = vec![
        (Import::new(HASH), ImportReason::IdentifierRequired, "username"),
        (Import { username: Some("a b".into()), ..free() }, ImportReason::UsernameInvalid, "username"),
        (Import { username: Some("аdmin".into()), ..free() }, ImportReason::UsernameReserved, "username"),
        (Import { email: proven("ada@"), ..free() }, ImportReason::EmailInvalid, "email"),
        (Import { phone: claimed("+44"), ..free() }, ImportReason::PhoneInvalid, "phone"),
        (hash("not a hash"), ImportReason::HashUnrecognised, "hash"),
        (hash(&HASH.replace("11858", "1000001")), ImportReason::HashTooDear, "hash"),
        (Import { profile: named, ..free() }, ImportReason::ProfileInvalid, "display_name"),
        (Import { groups: Some(BTreeSet::from(["a b".into()])), ..free() }, ImportReason::GroupInvalid, "groups"),
        (Import { username: Some("ADA".into()), ..free() }, ImportReason::UsernameTaken, "username"),
        (Import { email: claimed(&email("ADA")), ..free() }, ImportReason::EmailTaken, "email"),
        (Import { phone: proven(PHONE), ..free() }, ImportReason::PhoneTaken, "phone"),
    ];
    assert_refused(&mut stage, rows).await;
    assert_eq!(stage.test.users(None, 10).await.unwrap().len(), 2, "a refusal leaves no user");
    table.close(stage).await;
}

async fn an_import_without_what_policy_requires_or_with_what_it_forbids_is_refused(table: &mut Table) {
    let mut stage = Stage::with(|config| {
        config.policy.username = Requirement::Required;
        config.policy.email = Requirement::Required;
        config.policy.phone = Requirement::Required;
    })
    .await;
    let all = || everything(ImportedAddress::Proven);
    let rows = vec![
        (Import { username: None, ..all() }, ImportReason::UsernameRequired, "username"),
        (Import { email: None, ..all() }, ImportReason::EmailRequired, "email"),
        (Import { phone: None, ..all() }, ImportReason::PhoneRequired, "phone"),
    ];
    assert_refused(&mut stage, rows).await;
    table.close(stage).await;
    let mut stage = Stage::with(|config| config.policy.phone = Requirement::Forbidden).await;
    assert_refused(&mut stage, vec![(all(), ImportReason::IdentifierNotAllowed, "phone")]).await;
    table.close(stage).await;
}

async fn the_first_login_after_an_import_rehashes_once(table: &mut Table) {
    let mut stage = Stage::new().await;
    let user = stage.run(everything(ImportedAddress::Proven)).await.granted().user;
    for needs_rehash in [true, false] {
        let ran = stage.run(login("ada", "test")).await;
        ran.tells(&[
            (UserAuthenticationStarted, json!({})),
            (UserPasswordChecked, json!({ "user": user, "success": true, "needs_rehash": needs_rehash })),
            (UserAuthenticated, json!({ "user": user })),
        ]);
        stage.test.drain().await;
    }
    let anew = |envelope: &&majordomo::Envelope| {
        let told = json!({ "user": user, "cause": "rehash", "scheme": "argon2id" });
        serde_json::to_value(&envelope.signal).unwrap()["data"] == told
    };
    assert_eq!(stage.test.recorded().iter().filter(anew).count(), 1);
    table.close(stage).await;
}
