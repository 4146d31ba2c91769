//! Credentials: what opens an account, what ends with what, and how a user is reached.

use std::collections::BTreeSet;
use std::time::Duration;

use majordomo::testing::TestAccounts;
use majordomo::{
    AddContact, AddContactReason, Authenticate, AuthenticateReason, Authority, Change, ChangeContact,
    ChangeContactReason, ChangeGroups, ChangeGroupsReason, ChangePassword, ChangePasswordReason, Changed, Channel,
    Claimant, ConfirmEmail, ConfirmEmailReason, ConfirmPhone, ContactClaim, ContactId, Delete, Disable, Enable,
    EndSessions, EndSessionsReason, Error, HashParameters, LogOut, LogOutReason, LoggedIn, MakePrimary,
    MakePrimaryReason, MessageKind, Password, PasswordCause, Proof, Register, RemoveContact, RemoveContactReason,
    RequestEmailVerification, ResetPasswordReason, SessionId, SessionsToEnd, Signal, SignalKind, Update, UpdateReason,
    UserId,
};

use crate::person::*;

const INVALID: Error<AuthenticateReason> = Error::Refused(AuthenticateReason::InvalidCredentials);
const OTHER_EMAIL: &str = "lovelace@example.org";
const OTHER_PHONE: &str = "+4915112345678";
const DAY: Duration = Duration::from_secs(24 * 3600);

async fn open(test: &TestAccounts) -> LoggedIn {
    sign_in(test, "ada", PASSWORD).await.unwrap()
}

async fn change(
    test: &TestAccounts,
    user: UserId,
    (current, new): (&str, &str),
    keep: Option<SessionId>,
) -> majordomo::Answer<ChangePassword> {
    test.change_password(ChangePassword { user, current: password(current), new: password(new), keep }).await
}

/// What ends every credential of a user.
#[derive(Clone, Copy, Debug)]
enum Ending {
    Reset,
    Change,
    Disable,
    Delete,
}

impl Ending {
    const ALL: [Self; 4] = [Self::Reset, Self::Change, Self::Disable, Self::Delete];

    async fn bring_about(self, test: &TestAccounts, user: UserId, proof: &Proof) {
        match self {
            Self::Reset => drop(reset(test, proof.clone(), NEW_PASSWORD).await.unwrap()),
            Self::Change => drop(change(test, user, (PASSWORD, NEW_PASSWORD), None).await.unwrap()),
            Self::Disable => drop(test.disable(Disable { user }).await.unwrap()),
            Self::Delete => drop(test.delete(Delete::new(user)).await.unwrap()),
        }
    }
}

#[tokio::test]
async fn the_old_password_dies_with_a_reset_a_change_a_disabling_and_a_deletion() {
    for ending in Ending::ALL {
        let test = TestAccounts::start().await;
        let user = ada(&test).await;
        request_reset(&test, EMAIL, Channel::Email).await;
        ending.bring_about(&test, user, &link_proof(&link_to(&test, EMAIL))).await;
        for identifier in ["ada", EMAIL, PHONE] {
            assert_eq!(sign_in(&test, identifier, PASSWORD).await.unwrap_err(), INVALID, "{ending:?}");
        }
        let new = sign_in(&test, "ada", NEW_PASSWORD).await;
        assert_eq!(new.is_ok(), matches!(ending, Ending::Reset | Ending::Change), "{ending:?}");
    }
}

#[tokio::test]
async fn sessions_die_in_the_same_call_with_a_reset_a_change_a_disabling_and_a_deletion() {
    for ending in Ending::ALL {
        let test = TestAccounts::start().await;
        let user = ada(&test).await;
        let opened = [open(&test).await, open(&test).await];
        request_reset(&test, EMAIL, Channel::Email).await;
        let proof = link_proof(&link_to(&test, EMAIL));
        assert!(opened.iter().all(|session| is_open(&test, session)));
        let head = test.head();
        ending.bring_about(&test, user, &proof).await;
        assert!(!opened.iter().any(|session| is_open(&test, session)), "{ending:?}");
        assert_eq!(test.sessions(user).unwrap(), [], "{ending:?}");
        let kinds = test.kinds_after(head);
        assert_eq!(kinds.iter().filter(|kind| **kind == SignalKind::SessionRevoked).count(), 2, "{ending:?}");
    }
}

#[tokio::test]
async fn reset_links_and_codes_die_with_a_reset_a_change_a_disabling_and_a_deletion() {
    for ending in Ending::ALL {
        let test = TestAccounts::start().await;
        let user = ada(&test).await;
        let by_email = request_reset(&test, EMAIL, Channel::Email).await;
        let by_phone = request_reset(&test, PHONE, Channel::Phone).await;
        let proofs = [
            link_proof(&link_to(&test, EMAIL)),
            code_proof(by_email.challenge, &code_to(&test, EMAIL)),
            code_proof(by_phone.challenge, &code_to(&test, PHONE)),
        ];
        ending.bring_about(&test, user, &proofs[0]).await;
        for proof in proofs {
            let again = reset(&test, proof, "a third password, one more time").await;
            assert_eq!(again.unwrap_err(), Error::Refused(ResetPasswordReason::InvalidToken), "{ending:?}");
        }
    }
}

#[tokio::test]
async fn what_a_disabling_killed_stays_dead_after_enabling_and_the_password_works_again() {
    let test = TestAccounts::start().await;
    let user = ada(&test).await;
    let opened = open(&test).await;
    request_reset(&test, EMAIL, Channel::Email).await;
    let proof = link_proof(&link_to(&test, EMAIL));
    test.disable(Disable { user }).await.unwrap();
    test.enable(Enable { user }).await.unwrap();
    assert!(!is_open(&test, &opened));
    assert!(reset(&test, proof, NEW_PASSWORD).await.is_err());
    open(&test).await;
}

#[tokio::test]
async fn the_session_to_keep_survives_a_change_of_password_and_no_other_does() {
    let test = TestAccounts::start().await;
    let user = ada(&test).await;
    let (kept, other) = (open(&test).await, open(&test).await);
    let replaced = change(&test, user, (PASSWORD, NEW_PASSWORD), Some(kept.session)).await.unwrap();
    assert_eq!((replaced.sessions_revoked, is_open(&test, &kept), is_open(&test, &other)), (1, true, false));
    // It is kept once more, and not for good.
    change(&test, user, (NEW_PASSWORD, PASSWORD), Some(kept.session)).await.unwrap();
    assert!(is_open(&test, &kept));
    change(&test, user, (PASSWORD, NEW_PASSWORD), None).await.unwrap();
    assert!(!is_open(&test, &kept));
}

#[tokio::test]
async fn the_session_of_another_user_is_not_kept_in_place_of_ones_own() {
    let test = TestAccounts::start().await;
    let user = ada(&test).await;
    proven(&test, Some("eve"), None, None).await;
    let (own, foreign) = (open(&test).await, sign_in(&test, "eve", PASSWORD).await.unwrap());
    change(&test, user, (PASSWORD, NEW_PASSWORD), Some(foreign.session)).await.unwrap();
    assert_eq!((is_open(&test, &own), is_open(&test, &foreign)), (false, true));
}

#[tokio::test]
async fn a_wrong_current_password_changes_nothing() {
    let test = TestAccounts::start().await;
    let user = ada(&test).await;
    let opened = open(&test).await;
    let refused = change(&test, user, (NEW_PASSWORD, "another one, longer still"), None).await.unwrap_err();
    assert_eq!(refused, Error::Refused(ChangePasswordReason::IncorrectPassword));
    assert!(is_open(&test, &opened));
    open(&test).await;
}

#[tokio::test]
async fn verifying_one_address_kills_nothing_else() {
    let test = TestAccounts::start().await;
    let accepted = register(&test, Some("ada"), Some(EMAIL), Some(PHONE)).await;
    let phone = code_proof(accepted.phone_challenge.unwrap(), &code_to(&test, PHONE));
    test.confirm_email(ConfirmEmail { proof: link_proof(&link_to(&test, EMAIL)) }).await.unwrap();
    let opened = open(&test).await;
    request_reset(&test, EMAIL, Channel::Email).await;
    let proof = link_proof(&link_to(&test, EMAIL));
    let claimed = add(&test, accepted.user, ContactClaim::Email(OTHER_EMAIL.to_owned())).await.unwrap();
    soon(test.drain()).await;
    test.confirm_phone(ConfirmPhone { proof: phone }).await.unwrap();
    assert!(is_open(&test, &opened));
    let other = code_proof(claimed.challenge, &code_to(&test, OTHER_EMAIL));
    test.confirm_email(ConfirmEmail { proof: other }).await.unwrap();
    assert!(is_open(&test, &opened));
    reset(&test, proof, NEW_PASSWORD).await.unwrap();
}

async fn add(test: &TestAccounts, user: UserId, address: ContactClaim) -> majordomo::Answer<AddContact> {
    test.add_contact(AddContact { user, address, authority: by_password(PASSWORD) }).await
}

async fn replace_email(
    test: &TestAccounts,
    user: UserId,
    contact: ContactId,
    address: &str,
) -> majordomo::Answer<ChangeContact> {
    let address = ContactClaim::Email(address.to_owned());
    test.change_contact(ChangeContact { user, contact, address, authority: by_password(PASSWORD) }).await
}

fn emails(test: &TestAccounts, user: UserId) -> Vec<(String, bool, bool)> {
    let user = test.user(user).unwrap().unwrap();
    let contacts = user.contacts.into_iter().filter(|contact| contact.address.channel() == Channel::Email);
    contacts.map(|it| (it.address.canonical().to_owned(), it.proven_at.is_some(), it.primary)).collect()
}

#[tokio::test]
async fn an_address_stays_in_force_until_the_new_one_is_proven_and_is_told_and_freed_then() {
    let test = TestAccounts::start().await;
    let user = ada(&test).await;
    let old = contact(&test, user, EMAIL);
    replace_email(&test, user, old, OTHER_EMAIL).await.unwrap();
    soon(test.drain()).await;
    let own = |text: &str| text.to_owned();
    assert_eq!(emails(&test, user), [(own(EMAIL), true, true), (own(OTHER_EMAIL), false, false)]);
    sign_in(&test, EMAIL, PASSWORD).await.unwrap();
    assert_eq!(sign_in(&test, OTHER_EMAIL, PASSWORD).await.unwrap_err(), INVALID);
    // A typing error is sent the message that proves it, and never one that resets.
    drop(test.messages().take());
    request_reset(&test, OTHER_EMAIL, Channel::Email).await;
    assert!(test.messages().last_to(OTHER_EMAIL).is_none());
    request_reset(&test, "ada", Channel::Email).await;
    let stale = link_proof(&link_to(&test, EMAIL));
    let claimant = Claimant::Address(OTHER_EMAIL.to_owned());
    test.request_email_verification(RequestEmailVerification { claimant }).await.unwrap();
    soon(test.drain()).await;
    let proof = link_proof(&link_to(&test, OTHER_EMAIL));

    drop(test.messages().take());
    test.confirm_email(ConfirmEmail { proof }).await.unwrap();
    soon(test.drain()).await;
    assert_eq!(emails(&test, user), [(own(OTHER_EMAIL), true, true)]);
    let told: Vec<_> = test.messages().messages().iter().map(|message| (message.to.clone(), message.kind)).collect();
    assert_eq!(told, [(own(EMAIL), MessageKind::ContactChanged)]);
    assert!(test.messages().messages()[0].code().is_none());
    sign_in(&test, OTHER_EMAIL, PASSWORD).await.unwrap();
    assert_eq!(sign_in(&test, EMAIL, PASSWORD).await.unwrap_err(), INVALID);
    assert!(reset(&test, stale, NEW_PASSWORD).await.is_err());
    // The old one is free for others once it can no longer take the account back.
    test.advance(Duration::from_secs(7 * 24 * 3_600));
    let other = proven(&test, None, Some(EMAIL), None).await;
    assert_eq!(test.find_user(EMAIL).unwrap().map(|user| user.id), Some(other));
}

/// Whoever had the account for a moment may have asked for a change of address: it must not outlive their access.
#[tokio::test]
async fn a_pending_change_and_every_claim_die_with_a_reset_a_change_and_a_disabling() {
    for ending in [Ending::Reset, Ending::Change, Ending::Disable] {
        let test = TestAccounts::start().await;
        let user = ada(&test).await;
        replace_email(&test, user, contact(&test, user, EMAIL), OTHER_EMAIL).await.unwrap();
        add(&test, user, ContactClaim::Phone(OTHER_PHONE.to_owned())).await.unwrap();
        request_reset(&test, EMAIL, Channel::Email).await;
        let pending = link_proof(&link_to(&test, OTHER_EMAIL));
        ending.bring_about(&test, user, &link_proof(&link_to(&test, EMAIL))).await;
        if matches!(ending, Ending::Disable) {
            test.enable(Enable { user }).await.unwrap();
        }
        let refused = test.confirm_email(ConfirmEmail { proof: pending }).await.unwrap_err();
        assert_eq!(refused, Error::Refused(ConfirmEmailReason::InvalidToken), "{ending:?}");
        // Nobody can ask for another message that would bring it about, and the address is claimed no more.
        drop(test.messages().take());
        let claimant = Claimant::Address(OTHER_EMAIL.to_owned());
        test.request_email_verification(RequestEmailVerification { claimant }).await.unwrap();
        soon(test.drain()).await;
        assert!(test.messages().last_to(OTHER_EMAIL).is_none(), "{ending:?}");
        assert_eq!(emails(&test, user), [(EMAIL.to_owned(), true, true)], "{ending:?}");
        // So does every other claim: whoever had the password could have made it.
        let left = test.user(user).unwrap().unwrap().contacts;
        assert!(left.iter().all(|contact| contact.address.canonical() != OTHER_PHONE), "{ending:?}");
        let opened =
            sign_in(&test, EMAIL, if matches!(ending, Ending::Disable) { PASSWORD } else { NEW_PASSWORD }).await;
        assert_eq!(opened.unwrap().user, user);
    }
}

#[tokio::test]
async fn a_change_of_address_needs_the_password_or_a_recent_session() {
    let test = TestAccounts::start().await;
    let user = ada(&test).await;
    let old = contact(&test, user, EMAIL);
    let refused = |authority: Authority| {
        let address = ContactClaim::Email(OTHER_EMAIL.to_owned());
        test.change_contact(ChangeContact { user, contact: old, address, authority })
    };
    let not_authorised = Error::Refused(ChangeContactReason::NotAuthorised);
    assert_eq!(refused(by_password(NEW_PASSWORD)).await.unwrap_err(), not_authorised);
    proven(&test, Some("eve"), None, None).await;
    let foreign = sign_in(&test, "eve", PASSWORD).await.unwrap();
    assert_eq!(refused(Authority::RecentSession(foreign.token)).await.unwrap_err(), not_authorised);
    let opened = open(&test).await;
    test.advance(Duration::from_secs(600));
    assert_eq!(refused(Authority::RecentSession(opened.token)).await.unwrap_err(), not_authorised);
    let recent = open(&test).await;
    test.advance(Duration::from_secs(600) - MICROSECOND);
    refused(Authority::RecentSession(recent.token)).await.unwrap();
}

#[tokio::test]
async fn that_nothing_is_verified_is_told_only_after_the_right_password() {
    let test = TestAccounts::start().await;
    register(&test, Some("ada"), Some(EMAIL), None).await;
    assert_eq!(sign_in(&test, "ada", NEW_PASSWORD).await.unwrap_err(), INVALID);
    let told = Error::Refused(AuthenticateReason::EmailNotVerified);
    assert_eq!(sign_in(&test, "ada", PASSWORD).await.unwrap_err(), told);
    // By the address itself nobody is known before it is proven.
    assert_eq!(sign_in(&test, EMAIL, PASSWORD).await.unwrap_err(), INVALID);
    test.confirm_email(ConfirmEmail { proof: link_proof(&link_to(&test, EMAIL)) }).await.unwrap();
    sign_in(&test, EMAIL, PASSWORD).await.unwrap();
}

/// Commits something, so that what waits for company is committed too.
async fn commit(test: &TestAccounts) {
    assert_eq!(sign_in(test, "nobody", PASSWORD).await.unwrap_err(), INVALID);
}

#[tokio::test]
async fn a_session_ends_when_it_lay_idle_and_when_its_time_is_over() {
    let test = TestAccounts::start().await;
    ada(&test).await;
    let idle = open(&test).await;
    test.advance(14 * DAY);
    assert!(!is_open(&test, &idle));

    let used = open(&test).await;
    for _ in 0..2 {
        test.advance(14 * DAY - MICROSECOND);
        assert!(is_open(&test, &used));
        commit(&test).await;
    }
    test.advance(2 * DAY + MICROSECOND);
    assert!(is_open(&test, &used));
    test.advance(MICROSECOND);
    assert!(!is_open(&test, &used));
}

#[tokio::test]
async fn session_limits_are_configuration() {
    let test = TestAccounts::configured(|config| {
        config.policy.session_lifetime = Duration::from_secs(60);
        config.policy.session_idle = Duration::from_secs(20);
        config.policy.sessions_per_user = 2;
    })
    .await;
    let user = ada(&test).await;
    let opened = [open(&test).await, open(&test).await, open(&test).await];
    let alive = opened.each_ref().map(|session| is_open(&test, session));
    assert_eq!((alive, test.sessions(user).unwrap().len()), ([false, true, true], 2));
    test.advance(Duration::from_secs(20));
    assert!(!is_open(&test, &opened[2]));
}

#[tokio::test]
async fn every_login_opens_a_session_with_a_token_of_its_own() {
    let test = TestAccounts::start().await;
    ada(&test).await;
    let mut tokens = BTreeSet::new();
    let mut sessions = BTreeSet::new();
    for _ in 0..20 {
        let opened = open(&test).await;
        tokens.insert(opened.token.expose().to_owned());
        sessions.insert(opened.session);
    }
    assert_eq!((tokens.len(), sessions.len()), (20, 20));
    // 256 bits and a time in base64url behind a prefix that scanners know.
    assert!(tokens.iter().all(|token| token.len() == 55 && token.starts_with("mds_")));
}

#[tokio::test]
async fn the_same_login_command_repeated_is_a_new_session_and_ends_the_first() {
    let test = TestAccounts::start().await;
    let user = ada(&test).await;
    let login = Authenticate { identifier: "ada".to_owned(), password: password(PASSWORD) };
    let command = majordomo::Command::new(login);
    let first = test.authenticate(command.clone()).await.unwrap();
    let second = test.authenticate(command).await.unwrap();
    assert_ne!(first.token.expose(), second.token.expose());
    assert_eq!((is_open(&test, &first), is_open(&test, &second)), (false, true));
    assert_eq!(test.sessions(user).unwrap().len(), 1);
}

#[tokio::test]
async fn a_logout_ends_that_session_alone() {
    let test = TestAccounts::start().await;
    let user = ada(&test).await;
    let (one, other) = (open(&test).await, open(&test).await);
    let ended = test.log_out(LogOut { token: one.token.clone() }).await.unwrap();
    assert_eq!((ended.user, ended.session), (user, one.session));
    assert_eq!((is_open(&test, &one), is_open(&test, &other)), (false, true));
    let again = test.log_out(LogOut { token: one.token }).await.unwrap_err();
    assert_eq!(again, Error::Refused(LogOutReason::SessionNotFound));
}

#[tokio::test]
async fn sessions_are_ended_one_all_but_one_and_all() {
    let test = TestAccounts::start().await;
    let user = ada(&test).await;
    proven(&test, Some("eve"), None, None).await;
    let foreign = sign_in(&test, "eve", PASSWORD).await.unwrap();
    let opened = [open(&test).await, open(&test).await, open(&test).await, open(&test).await];
    let alive = || opened.each_ref().map(|session| is_open(&test, session));
    let end = |which| test.end_sessions(EndSessions { user, which });
    assert_eq!(end(SessionsToEnd::One(opened[0].session)).await.unwrap().count, 1);
    assert_eq!(alive(), [false, true, true, true]);
    let missing = Error::Refused(EndSessionsReason::SessionNotFound);
    for session in [opened[0].session, foreign.session] {
        assert_eq!(end(SessionsToEnd::One(session)).await.unwrap_err(), missing);
    }
    assert_eq!(end(SessionsToEnd::AllExcept(opened[1].session)).await.unwrap().count, 2);
    assert_eq!(alive(), [false, true, false, false]);
    assert_eq!(end(SessionsToEnd::All).await.unwrap().count, 1);
    assert_eq!((alive(), is_open(&test, &foreign)), ([false; 4], true));
    assert_eq!(end(SessionsToEnd::All).await.unwrap().count, 0);
}

#[tokio::test]
async fn people_sign_in_by_username_address_or_number_however_they_spell_it() {
    let test = TestAccounts::start().await;
    let (email, phone) = ("Ada@Bücher.example", "+44 7911-123456");
    let accepted = register(&test, Some("Ada.Lovelace"), Some(email), Some(phone)).await;
    let user = accepted.user;
    let link = link_to(&test, "Ada@xn--bcher-kva.example");
    test.confirm_email(ConfirmEmail { proof: link_proof(&link) }).await.unwrap();
    let proof = code_proof(accepted.phone_challenge.unwrap(), &code_to(&test, PHONE));
    test.confirm_phone(ConfirmPhone { proof }).await.unwrap();
    for identifier in [
        "Ada.Lovelace",
        "ada.lovelace",
        "ADA.LOVELACE",
        "Ａda.Lovelace",
        "Ada@Bücher.example",
        "ada@bücher.example",
        "ADA@BÜCHER.EXAMPLE",
        "ada@xn--bcher-kva.example",
        "ada@bu\u{308}cher.example",
        "+447911123456",
        "+44 7911 123456",
        "+44 (7911) 123.456",
        "+44-7911-123-456",
    ] {
        let opened = sign_in(&test, identifier, PASSWORD).await;
        assert_eq!(opened.map(|opened| opened.user).map_err(|error| error.as_str()), Ok(user), "{identifier}");
        assert_eq!(test.find_user(identifier).unwrap().map(|user| user.id), Some(user), "{identifier}");
    }
    for identifier in
        ["", " ", "ada", "ada.lovelace ", "ada@example.com", "07911123456", "+447911123457", "аda.lovelace"]
    {
        assert_eq!(sign_in(&test, identifier, PASSWORD).await.unwrap_err(), INVALID, "{identifier}");
        assert_eq!(test.find_user(identifier).unwrap(), None, "{identifier}");
    }
}

#[tokio::test]
async fn passwords_are_compared_as_typed_but_for_their_normal_form() {
    let test = TestAccounts::start().await;
    let typed = " Caf\u{e9} at the quiet harbour ";
    let user = test.register(Register { username: Some("ada".to_owned()), ..Register::new(typed) }).await.unwrap().user;
    assert_eq!(sign_in(&test, "ada", &typed.replace('\u{e9}', "e\u{301}")).await.unwrap().user, user);
    for wrong in [typed.trim().to_owned(), typed.to_uppercase(), format!("{typed}\0"), typed.replace('\u{e9}', "e")] {
        assert_eq!(sign_in(&test, "ada", &wrong).await.unwrap_err(), INVALID, "{wrong}");
    }
}

#[tokio::test]
async fn a_password_is_reset_by_mail_or_text_by_link_or_code() {
    for (identifier, channel, by_link) in [
        (EMAIL, Channel::Email, true),
        (EMAIL, Channel::Email, false),
        ("ada", Channel::Email, true),
        (PHONE, Channel::Email, false),
        (PHONE, Channel::Phone, false),
        ("ada", Channel::Phone, false),
        (EMAIL, Channel::Phone, false),
    ] {
        let test = TestAccounts::start().await;
        let user = ada(&test).await;
        let requested = request_reset(&test, identifier, channel).await;
        let address = if channel == Channel::Email { EMAIL } else { PHONE };
        let proof = if by_link {
            link_proof(&link_to(&test, address))
        } else {
            code_proof(requested.challenge, &code_to(&test, address))
        };
        // Nothing changes before it is presented, and it opens no session itself.
        open(&test).await;
        let replaced = reset(&test, proof, NEW_PASSWORD).await.unwrap();
        assert_eq!((replaced.user, replaced.sessions_revoked), (user, 1), "{identifier} {channel:?}");
        assert_eq!(test.sessions(user).unwrap(), []);
        sign_in(&test, "ada", NEW_PASSWORD).await.unwrap();
    }
}

#[tokio::test]
async fn a_reset_that_is_refused_for_its_password_leaves_the_link_good() {
    let test = TestAccounts::start().await;
    ada(&test).await;
    request_reset(&test, EMAIL, Channel::Email).await;
    let proof = link_proof(&link_to(&test, EMAIL));
    for (new, reason) in [
        ("short", ResetPasswordReason::PasswordTooShort),
        ("passwordpassword", ResetPasswordReason::PasswordCommon),
        ("ada@example.com!", ResetPasswordReason::PasswordContainsOwnName),
    ] {
        assert_eq!(reset(&test, proof.clone(), new).await.unwrap_err(), Error::Refused(reason));
    }
    let long = "x".repeat(1_025);
    let refused = reset(&test, proof.clone(), &long).await.unwrap_err();
    assert_eq!(refused, Error::Refused(ResetPasswordReason::PasswordTooLong));
    reset(&test, proof, NEW_PASSWORD).await.unwrap();
}

#[tokio::test]
async fn under_dearer_parameters_the_first_login_hashes_anew_and_no_later_one_does() {
    let test = TestAccounts::start().await;
    let user = ada(&test).await;
    open(&test).await;
    let rehashes = |test: &TestAccounts| {
        let is_rehash = |signal: &Signal| matches!(signal, Signal::UserPasswordSet { cause: PasswordCause::Rehash, user: told, .. } if *told == user);
        test.recorded().iter().filter(|envelope| is_rehash(&envelope.signal)).count()
    };
    assert_eq!(rehashes(&test), 0);
    let opened = open(&test).await;
    let dearer = HashParameters { memory_kib: 7_168, passes: 5, lanes: 1 };
    let test = test.restart_with(|builder| builder.configure(|config| config.hashing.parameters = dearer));
    let test = test.await.unwrap();
    assert_eq!(sign_in(&test, "ada", NEW_PASSWORD).await.unwrap_err(), INVALID);
    soon(test.drain()).await;
    assert_eq!(rehashes(&test), 0);
    let mut jobs = Vec::new();
    for _ in 0..3 {
        let before = test.hasher_state().jobs_done;
        open(&test).await;
        soon(test.drain()).await;
        assert_eq!(rehashes(&test), 1);
        jobs.push(test.hasher_state().jobs_done - before);
    }
    assert_eq!(jobs, [2, 1, 1]);
    // The password is the same, so what hangs on it goes on.
    assert!(is_open(&test, &opened));
}

#[tokio::test]
async fn a_login_with_an_old_hash_is_answered_while_the_rehash_is_held_and_a_shutdown_waits_for_its_end() {
    let test = TestAccounts::start().await;
    let user = ada(&test).await;
    let dearer = HashParameters { memory_kib: 7_168, passes: 5, lanes: 1 };
    let test = test.restart_with(|builder| builder.configure(|config| config.hashing.parameters = dearer));
    let test = test.await.unwrap();
    test.hold_rehashing(true);
    soon(open(&test)).await;
    soon(open(&test)).await;
    let told = |test: &TestAccounts, wanted| test.kinds_of(user).iter().filter(|kind| **kind == wanted).count();
    assert_eq!(told(&test, SignalKind::PasswordRehashed), 0);
    let begun = async {
        while test.hasher_state().queued == 0 {
            tokio::task::yield_now().await;
        }
    };
    soon(begun).await;
    test.hold_rehashing(false);
    let test = test.restart().await.unwrap();
    // Of two logins one is followed by a rehash, which ended before the file was closed.
    assert_eq!([SignalKind::PasswordRehashStarted, SignalKind::PasswordRehashed].map(|kind| told(&test, kind)), [1, 1]);
}

#[tokio::test]
async fn who_registers_with_the_address_of_another_never_proves_it() {
    let test = TestAccounts::start().await;
    let of_attacker = "the attacker knows this one";
    let attack = Register {
        username: Some("mallory".to_owned()),
        email: Some(EMAIL.to_owned()),
        phone: Some(OTHER_PHONE.to_owned()),
        ..Register::new(of_attacker)
    };
    let attacker = test.register(attack).await.unwrap();
    soon(test.drain()).await;
    let planted = link_proof(&link_to(&test, EMAIL));
    let planted_code = code_proof(attacker.email_challenge.unwrap(), &code_to(&test, EMAIL));
    // The attacker proves a number of their own, and is let in: not by the address.
    let own = code_proof(attacker.phone_challenge.unwrap(), &code_to(&test, OTHER_PHONE));
    test.confirm_phone(ConfirmPhone { proof: own }).await.unwrap();
    let session = sign_in(&test, "mallory", of_attacker).await.unwrap();
    assert_eq!(sign_in(&test, EMAIL, of_attacker).await.unwrap_err(), INVALID);
    // A reset goes to no address that was only claimed.
    drop(test.messages().take());
    request_reset(&test, EMAIL, Channel::Email).await;
    assert!(test.messages().messages().is_empty());

    let victim = proven(&test, None, Some(EMAIL), None).await;
    for proof in [planted, planted_code] {
        let refused = test.confirm_email(ConfirmEmail { proof }).await.unwrap_err();
        assert_eq!(refused, Error::Refused(ConfirmEmailReason::InvalidToken));
    }
    drop(test.messages().take());
    for claimant in [Claimant::User { user: attacker.user, contact: None }, Claimant::Address(EMAIL.to_owned())] {
        test.request_email_verification(RequestEmailVerification { claimant }).await.unwrap();
    }
    soon(test.drain()).await;
    assert!(test.messages().messages().iter().all(|message| message.link().is_none()));
    assert_eq!(sign_in(&test, EMAIL, PASSWORD).await.unwrap().user, victim);
    assert_eq!(sign_in(&test, EMAIL, of_attacker).await.unwrap_err(), INVALID);
    assert_eq!(test.find_user(EMAIL).unwrap().map(|user| user.id), Some(victim));
    // What is the attacker's own stays the attacker's, and reaches nothing of the victim's.
    assert!(is_open(&test, &session));
    request_reset(&test, "mallory", Channel::Email).await;
    assert!(test.messages().messages().iter().all(|message| message.code().is_none()));
    test.advance(majordomo::Policy::default().messages.cool_down);
    let reset_of_victim = request_reset(&test, EMAIL, Channel::Email).await;
    let proof = code_proof(reset_of_victim.challenge, &code_to(&test, EMAIL));
    assert_eq!(reset(&test, proof, NEW_PASSWORD).await.unwrap().user, victim);
}

#[tokio::test]
async fn the_first_proof_wins_whoever_registered_first() {
    for first_wins in [true, false] {
        let test = TestAccounts::start().await;
        let one = register(&test, Some("one"), Some(EMAIL), None).await;
        let one_proof = link_proof(&link_to(&test, EMAIL));
        let two = register(&test, Some("two"), Some(EMAIL), None).await;
        let two_proof = link_proof(&link_to(&test, EMAIL));
        let order =
            if first_wins { [(one, one_proof), (two, two_proof)] } else { [(two, two_proof), (one, one_proof)] };
        let [(winner, proof), (loser, late)] = order;
        test.confirm_email(ConfirmEmail { proof }).await.unwrap();
        assert!(test.confirm_email(ConfirmEmail { proof: late }).await.is_err());
        assert_eq!(test.find_user(EMAIL).unwrap().map(|user| user.id), Some(winner.user));
        assert!(!test.user(loser.user).unwrap().unwrap().is_verified());
    }
}

#[tokio::test]
async fn groups_are_joined_and_left() {
    let test = TestAccounts::start().await;
    let user = ada(&test).await;
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    let change = |join: &[&str], leave: &[&str]| {
        test.change_groups(ChangeGroups { user, join: names(join), leave: names(leave) })
    };
    let groups = || test.user(user).unwrap().unwrap().groups;
    assert_eq!(groups(), names(&["users"]));
    change(&["staff", "editors"], &["users"]).await.unwrap();
    assert_eq!(groups(), names(&["editors", "staff"]));
    let refused = change(&["staff"], &["absent"]).await.unwrap_err();
    assert_eq!(refused, Error::Refused(ChangeGroupsReason::NothingToDo));
    for bad in ["", "two words", "a/b", "é", &"x".repeat(65)] {
        let refused = change(&[bad], &[]).await.unwrap_err();
        assert_eq!(refused, Error::Refused(ChangeGroupsReason::GroupInvalid), "{bad}");
    }
    assert_eq!(groups(), names(&["editors", "staff"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_updates_that_name_one_version_one_is_done() {
    let test = TestAccounts::start().await;
    let user = ada(&test).await;
    let version = test.user(user).unwrap().unwrap().version;
    let tasks: Vec<_> = (0..50)
        .map(|number| {
            let accounts = test.accounts().clone();
            let display_name = Change::Set(format!("Ada {number}"));
            let update = Update { version: Some(version), display_name, ..Update::new(user) };
            tokio::spawn(async move { accounts.update(update).await })
        })
        .collect();
    let mut done = 0;
    for task in tasks {
        match soon(task).await.unwrap() {
            Ok(changed) => {
                assert_eq!(changed, Changed { version: version + 1 });
                done += 1;
            }
            Err(error) => assert_eq!(error, Error::Refused(UpdateReason::VersionConflict)),
        }
    }
    assert_eq!((done, test.user(user).unwrap().unwrap().version), (1, version + 1));
}

#[tokio::test]
async fn an_update_changes_the_named_fields_and_no_other() {
    let test = TestAccounts::start().await;
    let user = ada(&test).await;
    let set = |text: &str| Change::Set(text.to_owned());
    let update = Update { display_name: set("Ada"), locale: set("en-GB"), ..Update::new(user) };
    let version = test.update(update).await.unwrap().version;
    let authority = Some(by_password(PASSWORD));
    let rename = Update { username: set("Countess"), version: Some(version), authority, ..Update::new(user) };
    test.update(rename).await.unwrap();
    soon(test.drain()).await;
    let notice = test.messages().last_to(EMAIL).unwrap();
    assert_eq!((notice.kind, notice.link()), (MessageKind::UsernameChanged, None));
    assert!(!notice.text.contains("ountess"), "what a user typed is in no message");
    let after = test.user(user).unwrap().unwrap();
    assert_eq!((after.profile.display_name.as_deref(), after.profile.locale.as_deref()), (Some("Ada"), Some("en-GB")));
    assert_eq!(after.profile.given_name, None);
    sign_in(&test, "countess", PASSWORD).await.unwrap();
    assert_eq!(sign_in(&test, "ada", PASSWORD).await.unwrap_err(), INVALID);
    // The name that was given up is free, one that looks like the new one is not.
    register(&test, Some("ada"), None, None).await;
    let lookalike = Register { username: Some("Cоuntess".to_owned()), ..Register::new(PASSWORD) };
    assert!(test.register(lookalike).await.is_err());
    let nothing = test.update(Update { display_name: set("Ada"), ..Update::new(user) }).await.unwrap_err();
    assert_eq!(nothing, Error::Refused(UpdateReason::NothingToDo));
}

#[tokio::test]
async fn a_user_has_several_addresses_one_of_each_channel_being_primary() {
    let test = TestAccounts::start().await;
    let user = ada(&test).await;
    for claim in [ContactClaim::Email(OTHER_EMAIL.to_owned()), ContactClaim::Phone(OTHER_PHONE.to_owned())] {
        add(&test, user, claim.clone()).await.unwrap();
        let again = add(&test, user, claim).await.unwrap_err();
        assert_eq!(again, Error::Refused(AddContactReason::ContactExists));
    }
    soon(test.drain()).await;
    let primary = |contact| test.make_primary(MakePrimary { user, contact, authority: by_password(PASSWORD) });
    let (email, phone) = (contact(&test, user, OTHER_EMAIL), contact(&test, user, OTHER_PHONE));
    let unproven = Error::Refused(MakePrimaryReason::ContactNotVerified);
    assert_eq!([primary(email).await.unwrap_err(), primary(phone).await.unwrap_err()], [unproven, unproven]);
    test.confirm_email(ConfirmEmail { proof: link_proof(&link_to(&test, OTHER_EMAIL)) }).await.unwrap();
    soon(test.drain()).await;
    for identifier in ["ada", EMAIL, OTHER_EMAIL, PHONE] {
        assert_eq!(sign_in(&test, identifier, PASSWORD).await.unwrap().user, user, "{identifier}");
    }
    assert_eq!(sign_in(&test, OTHER_PHONE, PASSWORD).await.unwrap_err(), INVALID);
    // Messages go to the primary one, unless another one was typed.
    let sent_to = async |identifier: &str| {
        drop(test.messages().take());
        test.advance(majordomo::Policy::default().messages.cool_down);
        request_reset(&test, identifier, Channel::Email).await;
        test.messages().messages().iter().map(|message| message.to.clone()).collect::<Vec<_>>()
    };
    assert_eq!([sent_to("ada").await, sent_to(OTHER_EMAIL).await], [[EMAIL], [OTHER_EMAIL]]);
    primary(email).await.unwrap();
    assert_eq!([sent_to("ada").await, sent_to(EMAIL).await], [[OTHER_EMAIL], [EMAIL]]);
    let after = test.user(user).unwrap().unwrap();
    assert_eq!(after.primary(Channel::Email).unwrap().id, email);
    assert_eq!(after.primary(Channel::Phone).unwrap().address.canonical(), PHONE);
    assert_eq!(primary(email).await.unwrap_err(), Error::Refused(MakePrimaryReason::NothingToDo));

    let remove = |contact| test.remove_contact(RemoveContact { user, contact, authority: by_password(PASSWORD) });
    remove(email).await.unwrap();
    soon(test.drain()).await;
    assert_eq!(sent_to("ada").await, [EMAIL]);
    assert_eq!(sign_in(&test, OTHER_EMAIL, PASSWORD).await.unwrap_err(), INVALID);
    assert_eq!(remove(email).await.unwrap_err(), Error::Refused(RemoveContactReason::ContactNotFound));
    test.advance(Duration::from_secs(7 * 24 * 3_600));
    let other = proven(&test, None, Some(OTHER_EMAIL), None).await;
    assert_eq!(test.find_user(OTHER_EMAIL).unwrap().map(|user| user.id), Some(other));
}

#[tokio::test]
async fn the_last_means_to_sign_in_is_not_removed_and_addresses_are_limited() {
    let test = TestAccounts::configured(|config| config.policy.contacts_per_user = 2).await;
    let user = proven(&test, None, Some(EMAIL), None).await;
    let contact = contact(&test, user, EMAIL);
    let refused = test.remove_contact(RemoveContact { user, contact, authority: by_password(PASSWORD) }).await;
    assert_eq!(refused.unwrap_err(), Error::Refused(RemoveContactReason::LastIdentifier));
    add(&test, user, ContactClaim::Phone(PHONE.to_owned())).await.unwrap();
    let refused = add(&test, user, ContactClaim::Email(OTHER_EMAIL.to_owned())).await.unwrap_err();
    assert_eq!(refused, Error::Refused(AddContactReason::ContactLimitReached));
    let refused = replace_email(&test, user, contact, OTHER_EMAIL).await.unwrap_err();
    assert_eq!(refused, Error::Refused(ChangeContactReason::ContactLimitReached));
}

#[tokio::test]
async fn users_are_listed_by_pages_in_the_order_of_their_registration() {
    let test = TestAccounts::start().await;
    let mut registered = Vec::new();
    for number in 0..25 {
        let request = Register { username: Some(format!("user{number}")), ..Register::new(PASSWORD) };
        registered.push(test.register(request).await.unwrap().user);
    }
    let (mut listed, mut after) = (Vec::new(), None);
    loop {
        let page = test.users(after, 7).await.unwrap();
        assert!(page.len() <= 7);
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        listed.extend(page.iter().map(|user| user.id));
    }
    assert_eq!(listed, registered);
    assert_eq!(test.users(None, usize::MAX).await.unwrap().len(), 25);
    assert_eq!(test.users(None, 0).await.unwrap(), []);
    test.delete(Delete::new(registered[3])).await.unwrap();
    assert_eq!(test.find_user("user3").unwrap(), None);
    assert_eq!(test.users(Some(registered[2]), 1).await.unwrap()[0].id, registered[4]);
    assert_eq!(test.user(UserId::new()).unwrap(), None);
}

#[tokio::test]
async fn an_account_without_addresses_needs_no_proof() {
    let test = TestAccounts::start().await;
    let accepted = register(&test, Some("ada"), None, None).await;
    assert_eq!((accepted.email_challenge, accepted.phone_challenge), (None, None));
    open(&test).await;
    let empty = Password::new("");
    let refused = test.authenticate(Authenticate { identifier: "ada".to_owned(), password: empty }).await;
    assert_eq!(refused.unwrap_err(), INVALID);
}
