//! Addresses: add one, replace one, give one up, make one primary.

use majordomo::SignalKind::{
    AddressTaken, ContactAddFailed, ContactAddStarted, ContactAdded, ContactChangeAccepted, ContactChangeFailed,
    ContactChangeStarted, ContactChanged, ContactPrimaryChanged, ContactPrimaryFailed, ContactPrimaryStarted,
    ContactRemoveFailed, ContactRemoveStarted, ContactRemoved, UserEmailVerificationStarted,
    UserEmailVerificationSuccessful, UserEmailVerificationTokenGenerated, UserEmailVerified, UserPasswordChecked,
    UserPhoneVerificationTokenGenerated, VerifyEmail, VerifyPhone,
};
use majordomo::{
    AddContact, AddContactReason, Authority, ChangeContact, ChangeContactReason, ConfirmEmail, ContactClaim, ContactId,
    MakePrimary, MakePrimaryReason, Password, Registration, RemoveContact, RemoveContactReason, Requirement, UserId,
};
use serde_json::json;

use super::scenarios;
use super::stage::{OTHER_PASSWORD, OTHER_PHONE, PASSWORD, PHONE, Stage, Table, email};

scenarios! {
    an_address_that_is_added_is_a_claim_with_a_message_on_its_way
    an_address_of_somebody_else_is_added_in_appearance_only
    an_address_is_not_added_for_every_reason
    a_replacement_takes_its_place_when_it_is_proven
    an_address_is_not_replaced_for_every_reason
    an_address_that_is_given_up_is_gone
    an_address_is_not_given_up_for_every_reason
    a_proven_address_becomes_primary
    an_address_does_not_become_primary_for_every_reason
}

fn right() -> Authority {
    Authority::Password(Password::new(PASSWORD))
}

fn wrong() -> Authority {
    Authority::Password(Password::new(OTHER_PASSWORD))
}

fn mail(name: &str) -> ContactClaim {
    ContactClaim::Email(email(name))
}

fn text(phone: &str) -> ContactClaim {
    ContactClaim::Phone(phone.to_owned())
}

fn contact(stage: &Stage, user: UserId, place: usize) -> ContactId {
    stage.test.user(user).unwrap().unwrap().contacts[place].id
}

fn add(user: UserId, address: ContactClaim) -> AddContact {
    AddContact { user, address, authority: right() }
}

/// Adds an address and proves it.
async fn prove(stage: &Stage, user: UserId, name: &str) -> ContactId {
    let claimed = stage.test.add_contact(add(user, mail(name))).await.unwrap();
    stage.test.drain().await;
    stage.test.confirm_email(ConfirmEmail { proof: stage.link(&email(name)) }).await.unwrap();
    claimed.contact
}

async fn an_address_that_is_added_is_a_claim_with_a_message_on_its_way(table: &mut Table) {
    let mut stage = Stage::new().await;
    let user = stage.verified("ada").await;
    let ran = stage.run(add(user, mail("bell"))).await;
    let reply = ran.granted();
    let (contact, token) = (reply.contact, reply.challenge);
    ran.tells(&[
        (ContactAddStarted, json!({ "user": user, "address": "b***@e***.com" })),
        (UserPasswordChecked, json!({ "user": user, "success": true })),
        (UserEmailVerificationTokenGenerated, json!({ "user": user, "token": token, "supersedes": null })),
        (VerifyEmail, json!({ "user": user, "address": "b***@e***.com", "token": token })),
        (ContactAdded, json!({ "user": user, "version": 3, "contact": contact, "address": "b***@e***.com" })),
    ]);
    assert!(ran.lane_of(user) && ran.deliveries().len() == 1);
    let authority = Authority::RecentSession(stage.login("ada").await.token);
    let ran = stage.run(AddContact { authority, ..add(user, text(PHONE)) }).await;
    let token = ran.granted().challenge;
    ran.tells(&[
        (ContactAddStarted, json!({ "address": "+44***56" })),
        (UserPhoneVerificationTokenGenerated, json!({ "user": user, "token": token })),
        (VerifyPhone, json!({ "user": user, "phone": "+44***56", "token": token })),
        (ContactAdded, json!({ "version": 4, "address": "+44***56" })),
    ]);
    table.close(stage).await;
}

async fn an_address_of_somebody_else_is_added_in_appearance_only(table: &mut Table) {
    let mut stage = Stage::new().await;
    let (owner, user) = (stage.verified("bell").await, stage.verified("ada").await);
    let ran = stage.run(add(user, mail("bell"))).await;
    ran.granted();
    ran.tells(&[
        (ContactAddStarted, json!({})),
        (UserPasswordChecked, json!({ "success": true })),
        (AddressTaken, json!({ "owner": owner, "address": "b***@e***.com", "channel": "email" })),
        (ContactAddFailed, json!({ "user": user, "address": "b***@e***.com", "reason": "email_taken" })),
    ]);
    assert!(ran.lane_of(user) && ran.deliveries().is_empty());
    table.close(stage).await;
}

async fn an_address_is_not_added_for_every_reason(table: &mut Table) {
    let mut stage = Stage::with(|config| {
        config.policy.registration = Registration::Open;
        config.policy.contacts_per_user = 2;
    })
    .await;
    stage.verified("bell").await;
    stage.phoned(PHONE).await;
    let (user, full, nobody) = (stage.verified("ada").await, stage.verified("full").await, UserId::new());
    let disabled = stage.disabled("bob").await;
    stage.test.add_contact(add(full, mail("fuller"))).await.unwrap();
    let unauthorised = AddContact { authority: wrong(), ..add(user, mail("new")) };
    let rows = [
        (add(nobody, mail("new")), None, AddContactReason::UserNotFound, "user_not_found"),
        (add(disabled, mail("new")), Some(true), AddContactReason::UserInactive, "user_inactive"),
        (unauthorised, Some(false), AddContactReason::NotAuthorised, "incorrect_password"),
        (add(user, mail("@")), Some(true), AddContactReason::EmailInvalid, "email_invalid"),
        (add(user, text("+44")), Some(true), AddContactReason::PhoneInvalid, "phone_invalid"),
        (add(user, mail("ADA")), Some(true), AddContactReason::ContactExists, "contact_exists"),
        (add(full, mail("new")), Some(true), AddContactReason::ContactLimitReached, "contact_limit_reached"),
        (add(user, mail("bell")), Some(true), AddContactReason::EmailTaken, "email_taken"),
        (add(user, text(PHONE)), Some(true), AddContactReason::PhoneTaken, "phone_taken"),
    ];
    for (message, checked, reason, truth) in rows {
        let user = message.user;
        let mut expected = vec![(ContactAddStarted, json!({ "user": user }))];
        expected.extend(checked.map(|success| (UserPasswordChecked, json!({ "user": user, "success": success }))));
        expected.push((ContactAddFailed, json!({ "user": user, "reason": truth })));
        stage.run(message).await.refused(reason).tells(&expected);
    }
    table.close(stage).await;
    let mut stage = Stage::with(|config| config.policy.phone = Requirement::Forbidden).await;
    let user = stage.verified("ada").await;
    stage.run(add(user, text(PHONE))).await.refused(AddContactReason::IdentifierNotAllowed).tells(&[
        (ContactAddStarted, json!({})),
        (UserPasswordChecked, json!({})),
        (ContactAddFailed, json!({ "user": user, "address": "+44***56", "reason": "identifier_not_allowed" })),
    ]);
    table.close(stage).await;
}

async fn a_replacement_takes_its_place_when_it_is_proven(table: &mut Table) {
    let mut stage = Stage::new().await;
    let user = stage.verified("ada").await;
    let message = ChangeContact { user, contact: contact(&stage, user, 0), address: mail("bell"), authority: right() };
    let ran = stage.run(message).await;
    let (contact, token) = (ran.granted().contact, ran.granted().challenge);
    let (new, old) = ("b***@e***.com", "a***@e***.com");
    ran.tells(&[
        (ContactChangeStarted, json!({ "user": user, "address": new })),
        (UserPasswordChecked, json!({ "success": true })),
        (UserEmailVerificationTokenGenerated, json!({ "user": user, "address": new, "token": token })),
        (VerifyEmail, json!({ "user": user, "address": new, "token": token })),
        (
            ContactChangeAccepted,
            json!({ "user": user, "version": 3, "contact": contact, "address": new, "previous": old }),
        ),
    ]);
    stage.test.drain().await;
    let proof = stage.link(&email("bell"));
    let changed = json!({ "user": user, "contact": contact, "address": new, "previous": old, "channel": "email" });
    stage.run(ConfirmEmail { proof }).await.tells(&[
        (UserEmailVerificationStarted, json!({ "token": token })),
        (UserEmailVerified, json!({ "user": user, "address": new, "via": "link" })),
        (ContactChanged, changed),
        (UserEmailVerificationSuccessful, json!({ "user": user, "address": new })),
    ]);
    table.close(stage).await;
}

async fn an_address_is_not_replaced_for_every_reason(table: &mut Table) {
    let mut stage = Stage::with(|config| {
        config.policy.registration = Registration::Open;
        config.policy.contacts_per_user = 2;
    })
    .await;
    stage.verified("bell").await;
    stage.phoned(PHONE).await;
    let (user, full, nobody) = (stage.verified("ada").await, stage.verified("full").await, UserId::new());
    let (disabled, phoned) = (stage.disabled("bob").await, stage.phoned(OTHER_PHONE).await);
    stage.test.add_contact(add(full, mail("fuller"))).await.unwrap();
    let first = |user| contact(&stage, user, 0);
    let change = |user, contact, address| ChangeContact { user, contact, address, authority: right() };
    let mine = |address| change(user, first(user), address);
    let texts = |phone| change(phoned, first(phoned), text(phone));
    let (unauthorised, checked) = (ChangeContact { authority: wrong(), ..mine(mail("new")) }, Some(true));
    let rows = [
        (change(nobody, first(user), mail("new")), None, ChangeContactReason::UserNotFound, "user_not_found"),
        (change(disabled, first(disabled), mail("new")), checked, ChangeContactReason::UserInactive, "user_inactive"),
        (change(user, first(full), mail("new")), checked, ChangeContactReason::ContactNotFound, "contact_not_found"),
        (mine(text(OTHER_PHONE)), checked, ChangeContactReason::ContactNotFound, "contact_not_found"),
        (unauthorised, Some(false), ChangeContactReason::NotAuthorised, "incorrect_password"),
        (mine(mail("@")), checked, ChangeContactReason::EmailInvalid, "email_invalid"),
        (texts("+44"), checked, ChangeContactReason::PhoneInvalid, "phone_invalid"),
        (mine(mail("ada")), checked, ChangeContactReason::ContactExists, "contact_exists"),
        (
            change(full, first(full), mail("new")),
            checked,
            ChangeContactReason::ContactLimitReached,
            "contact_limit_reached",
        ),
        (mine(mail("bell")), checked, ChangeContactReason::EmailTaken, "email_taken"),
        (texts(PHONE), checked, ChangeContactReason::PhoneTaken, "phone_taken"),
    ];
    for (message, checked, reason, truth) in rows {
        let user = message.user;
        let mut expected = vec![(ContactChangeStarted, json!({ "user": user }))];
        expected.extend(checked.map(|success| (UserPasswordChecked, json!({ "user": user, "success": success }))));
        expected.push((ContactChangeFailed, json!({ "user": user, "reason": truth })));
        stage.run(message).await.refused(reason).tells(&expected);
    }
    table.close(stage).await;
}

async fn an_address_that_is_given_up_is_gone(table: &mut Table) {
    let mut stage = Stage::new().await;
    let user = stage.verified("ada").await;
    let contact = contact(&stage, user, 0);
    let ran = stage.run(RemoveContact { user, contact, authority: right() }).await;
    ran.tells(&[
        (ContactRemoveStarted, json!({ "user": user })),
        (UserPasswordChecked, json!({ "success": true })),
        (ContactRemoved, json!({ "user": user, "version": 3, "contact": contact, "address": "a***@e***.com" })),
    ]);
    assert!(ran.lane_of(user) && ran.granted().version == 3);
    assert!(stage.test.user(user).unwrap().unwrap().contacts.is_empty());
    table.close(stage).await;
}

async fn an_address_is_not_given_up_for_every_reason(table: &mut Table) {
    let mut stage = Stage::new().await;
    let (user, disabled, nobody) = (stage.verified("ada").await, stage.disabled("bob").await, UserId::new());
    let phoned = stage.phoned(PHONE).await;
    let first = |user| contact(&stage, user, 0);
    let remove = |user, contact, authority| RemoveContact { user, contact, authority };
    let rows = [
        (remove(nobody, first(user), right()), None, RemoveContactReason::UserNotFound, "user_not_found"),
        (remove(disabled, first(disabled), right()), Some(true), RemoveContactReason::UserInactive, "user_inactive"),
        (remove(user, first(phoned), right()), Some(true), RemoveContactReason::ContactNotFound, "contact_not_found"),
        (remove(user, first(user), wrong()), Some(false), RemoveContactReason::NotAuthorised, "incorrect_password"),
        (remove(phoned, first(phoned), right()), Some(true), RemoveContactReason::LastIdentifier, "last_identifier"),
    ];
    for (message, checked, reason, truth) in rows {
        let user = message.user;
        let mut expected = vec![(ContactRemoveStarted, json!({ "user": user }))];
        expected.extend(checked.map(|success| (UserPasswordChecked, json!({ "user": user, "success": success }))));
        expected.push((ContactRemoveFailed, json!({ "user": user, "reason": truth })));
        stage.run(message).await.refused(reason).tells(&expected);
    }
    table.close(stage).await;
}

async fn a_proven_address_becomes_primary(table: &mut Table) {
    let mut stage = Stage::new().await;
    let user = stage.verified("ada").await;
    let contact = prove(&stage, user, "bell").await;
    let ran = stage.run(MakePrimary { user, contact, authority: right() }).await;
    let version = ran.granted().version;
    ran.tells(&[
        (ContactPrimaryStarted, json!({ "user": user })),
        (UserPasswordChecked, json!({ "success": true })),
        (
            ContactPrimaryChanged,
            json!({ "user": user, "version": version, "contact": contact, "address": "b***@e***.com" }),
        ),
    ]);
    assert_eq!(stage.test.user(user).unwrap().unwrap().version, version);
    table.close(stage).await;
}

async fn an_address_does_not_become_primary_for_every_reason(table: &mut Table) {
    let mut stage = Stage::new().await;
    let (user, disabled, nobody) = (stage.verified("ada").await, stage.disabled("bob").await, UserId::new());
    let unproven = stage.test.add_contact(add(user, mail("bell"))).await.unwrap().contact;
    let first = |user| contact(&stage, user, 0);
    let choose = |user, contact, authority| MakePrimary { user, contact, authority };
    let rows = [
        (choose(nobody, unproven, right()), None, MakePrimaryReason::UserNotFound, "user_not_found"),
        (choose(disabled, first(disabled), right()), Some(true), MakePrimaryReason::UserInactive, "user_inactive"),
        (choose(user, ContactId::new(), right()), Some(true), MakePrimaryReason::ContactNotFound, "contact_not_found"),
        (choose(user, unproven, right()), Some(true), MakePrimaryReason::ContactNotVerified, "contact_not_verified"),
        (choose(user, first(user), wrong()), Some(false), MakePrimaryReason::NotAuthorised, "incorrect_password"),
        (choose(user, first(user), right()), Some(true), MakePrimaryReason::NothingToDo, "nothing_to_do"),
    ];
    for (message, checked, reason, truth) in rows {
        let user = message.user;
        let mut expected = vec![(ContactPrimaryStarted, json!({ "user": user }))];
        expected.extend(checked.map(|success| (UserPasswordChecked, json!({ "user": user, "success": success }))));
        expected.push((ContactPrimaryFailed, json!({ "user": user, "reason": truth })));
        stage.run(message).await.refused(reason).tells(&expected);
    }
    table.close(stage).await;
}
