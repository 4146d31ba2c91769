//! Takeover: what a stranger can and cannot keep who had an account with somebody's address before its owner did (A16).

use std::time::Duration;

use majordomo::testing::TestAccounts;
use majordomo::{
    Accepted, AddContact, AuthenticateReason, Channel, ConfirmEmail, ConfirmEmailReason, ConfirmPhone, ContactClaim,
    Delete, Error, LoggedIn, MessageKind, Register, ResetPasswordReason, UndoChange, UndoChangeReason, Verification,
};

use crate::person::*;

/// What the stranger reads.
const STRANGERS_PHONE: &str = "+447911123457";
const STRANGERS_EMAIL: &str = "eve@evil.example";

/// A stranger registers with somebody's address beside a number of their own, proves the number, and signs in.
async fn planted(test: &TestAccounts) -> (Accepted, LoggedIn) {
    let accepted = register(test, Some("eve"), Some(EMAIL), Some(STRANGERS_PHONE)).await;
    let proof = code_proof(accepted.phone_challenge.unwrap(), &code_to(test, STRANGERS_PHONE));
    test.confirm_phone(ConfirmPhone { proof }).await.unwrap();
    (accepted, sign_in(test, "eve", PASSWORD).await.unwrap())
}

/// Everything that the stranger was sent and could follow.
fn links_to_the_stranger(test: &TestAccounts) -> Vec<String> {
    let messages = test.messages().messages().into_iter();
    let theirs = messages.filter(|message| [STRANGERS_PHONE, STRANGERS_EMAIL].contains(&message.to.as_str()));
    theirs.filter_map(|message| message.link().map(str::to_owned)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn where_codes_alone_count_an_owner_who_follows_what_they_are_sent_proves_nothing_for_a_stranger() {
    let test = TestAccounts::configured(|config| config.policy.verification = Verification::Code).await;
    let (stranger, _) = planted(&test).await;
    let message = test.messages().last_to(EMAIL).unwrap();
    assert_eq!((message.kind, message.link()), (MessageKind::VerifyEmail, None), "there is nothing to follow");
    assert!(message.text.contains(message.code().unwrap()) && !message.html.as_ref().unwrap().contains("/accounts/"));
    let strangers = code_proof(stranger.email_challenge.unwrap(), message.code().unwrap());

    // The owner comes, and has an account of their own, whatever the stranger holds.
    test.advance(Duration::from_secs(60));
    let accepted = register(&test, Some("ada"), Some(EMAIL), None).await;
    let right = code_proof(accepted.email_challenge.unwrap(), &code_to(&test, EMAIL));
    assert_eq!(test.confirm_email(ConfirmEmail { proof: right }).await.unwrap().user, accepted.user);
    request_reset(&test, EMAIL, Channel::Email).await;
    reset(&test, link_proof(&link_to(&test, EMAIL)), NEW_PASSWORD).await.unwrap();
    sign_in(&test, EMAIL, NEW_PASSWORD).await.unwrap();
    let late = test.confirm_email(ConfirmEmail { proof: strangers }).await.unwrap_err();
    assert_eq!(
        late,
        Error::Refused(ConfirmEmailReason::InvalidToken),
        "not even if the owner were talked out of the code"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_which_the_code_alone_counts_ends_with_its_code() {
    let test = TestAccounts::configured(|config| config.policy.verification = Verification::Code).await;
    let accepted = register(&test, Some("ada"), Some(EMAIL), None).await;
    let proof = code_proof(accepted.email_challenge.unwrap(), &code_to(&test, EMAIL));
    test.advance(Duration::from_secs(600));
    let late = test.confirm_email(ConfirmEmail { proof }).await.unwrap_err();
    assert_eq!(late, Error::Refused(ConfirmEmailReason::InvalidToken));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_stranger_planted_and_did_not_prove_dies_with_the_reset_of_whoever_reads_the_address() {
    let test = TestAccounts::start().await;
    let accepted = register(&test, Some("eve"), Some(EMAIL), None).await;
    let stranger = accepted.user;
    // The owner follows the link of the stranger's registration.
    test.confirm_email(ConfirmEmail { proof: link_proof(&link_to(&test, EMAIL)) }).await.unwrap();
    let session = sign_in(&test, "eve", PASSWORD).await.unwrap();
    for address in [ContactClaim::Email(STRANGERS_EMAIL.to_owned()), ContactClaim::Phone(STRANGERS_PHONE.to_owned())] {
        let add = AddContact { user: stranger, address, authority: by_password(PASSWORD) };
        test.add_contact(add).await.unwrap();
    }
    soon(test.drain()).await;
    let planted = link_to(&test, STRANGERS_EMAIL);

    request_reset(&test, EMAIL, Channel::Email).await;
    reset(&test, link_proof(&link_to(&test, EMAIL)), NEW_PASSWORD).await.unwrap();
    soon(test.drain()).await;
    assert!(!is_open(&test, &session));
    let refused = sign_in(&test, "eve", PASSWORD).await.unwrap_err();
    assert_eq!(refused, Error::Refused(AuthenticateReason::InvalidCredentials));
    let late = test.confirm_email(ConfirmEmail { proof: link_proof(&planted) }).await.unwrap_err();
    assert_eq!(late, Error::Refused(ConfirmEmailReason::InvalidToken));
    let left = test.user(stranger).unwrap().unwrap().contacts;
    assert_eq!(left.iter().map(|contact| contact.address.canonical()).collect::<Vec<_>>(), [EMAIL]);
    assert!(links_to_the_stranger(&test).iter().all(|link| !link.contains("change_undo")), "the owner alone can undo");
    let notice = test.messages().last_to(EMAIL).unwrap();
    assert_eq!(notice.kind, MessageKind::PasswordChanged);
    sign_in(&test, EMAIL, NEW_PASSWORD).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_a_stranger_can_take_back_is_deleted_and_its_address_is_free_at_once() {
    let test = TestAccounts::start().await;
    let (account, session) = planted(&test).await;
    test.confirm_email(ConfirmEmail { proof: link_proof(&link_to(&test, EMAIL)) }).await.unwrap();
    request_reset(&test, EMAIL, Channel::Email).await;
    reset(&test, link_proof(&link_to(&test, EMAIL)), NEW_PASSWORD).await.unwrap();
    assert!(!is_open(&test, &session));
    // The number that the stranger proved is older, so by the law of undoing they keep it: nobody can say whose the
    // account is. Whoever is signed in can give it up.
    test.delete(Delete::new(account.user)).await.unwrap();
    soon(test.drain()).await;
    for link in links_to_the_stranger(&test).iter().filter(|link| link.contains("change_undo")) {
        let refused = test.undo_change(UndoChange { proof: link_proof(link) }).await.unwrap_err();
        assert_eq!(refused, Error::Refused(UndoChangeReason::InvalidToken));
    }
    let requested = request_reset(&test, STRANGERS_PHONE, Channel::Phone).await;
    let refused = reset(&test, code_proof(requested.challenge, "00000000"), PASSWORD).await.unwrap_err();
    assert_eq!(refused, Error::Refused(ResetPasswordReason::InvalidToken));
    test.advance(Duration::from_secs(60));
    let accepted = test.register(Register { email: Some(EMAIL.to_owned()), ..Register::new(PASSWORD) }).await.unwrap();
    soon(test.drain()).await;
    let confirmed = test.confirm_email(ConfirmEmail { proof: link_proof(&link_to(&test, EMAIL)) }).await.unwrap();
    assert_eq!(confirmed.user, accepted.user);
}
