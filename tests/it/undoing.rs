//! Undoing: the address from before a change takes it back, whatever an attacker did since, and is kept for it meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use majordomo::testing::TestAccounts;
use majordomo::{
    AddContact, AuthenticateReason, ChangeContact, ChangeKind, ChangePassword, Channel, Claimant, ConfirmEmail,
    ConfirmPhone, ContactClaim, Delete, Disable, Enable, Error, Failure, Keyring, MakePrimary, MessageKind, Proof,
    RegisterReason, Registration, RemoveContact, RequestEmailVerification, RequestPasswordReset, Signal, SignalKind,
    TokenId, UndoChange, UndoChangeReason, Undone, User, UserContact, UserId,
};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::laws::assert_laws;
use crate::person::*;

const WEEK: Duration = Duration::from_secs(7 * 24 * 3_600);
const INVALID: Error<UndoChangeReason> = Error::Refused(UndoChangeReason::InvalidToken);
const EVIL: &str = "eve@evil.example";

/// A notice with a link that undoes a change.
#[derive(Clone, Debug)]
struct Notice {
    kind: MessageKind,
    to: String,
    link: String,
}

/// Every such notice that was sent, oldest first.
fn notices(test: &TestAccounts) -> Vec<Notice> {
    let undoes = |link: &&str| link.contains("/accounts/change_undo_confirm/");
    let messages = test.messages().messages().into_iter();
    messages
        .filter_map(|message| {
            let link = message.link().filter(undoes)?.to_owned();
            Some(Notice { kind: message.kind, to: message.to.clone(), link })
        })
        .collect()
}

fn last_notice(test: &TestAccounts) -> Notice {
    notices(test).pop().expect("a notice with a link")
}

async fn undo(test: &TestAccounts, link: &str) -> Result<Undone, Error<UndoChangeReason>> {
    soon(test.undo_change(UndoChange { proof: link_proof(link) })).await
}

fn user(test: &TestAccounts, user: UserId) -> User {
    test.user(user).unwrap().expect("the user")
}

fn claim(address: &str) -> ContactClaim {
    if address.contains('@') {
        ContactClaim::Email(address.to_owned())
    } else {
        ContactClaim::Phone(address.to_owned())
    }
}

/// The token of the last verification message, whose link or code whoever reads it presents.
async fn prove_last(test: &TestAccounts, address: &str) -> bool {
    soon(test.drain()).await;
    let Some(message) = test.messages().last_to(address) else { return false };
    match message.kind {
        MessageKind::VerifyEmail => {
            test.confirm_email(ConfirmEmail { proof: link_proof(message.link().unwrap()) }).await.is_ok()
        }
        MessageKind::VerifyPhone => {
            let challenge = token_of(test, message.id);
            let proof = code_proof(challenge, message.code().unwrap());
            test.confirm_phone(ConfirmPhone { proof }).await.is_ok()
        }
        _ => false,
    }
}

/// The token that the message for a signal was made of.
fn token_of(test: &TestAccounts, signal: majordomo::SignalId) -> TokenId {
    let told = test.recorded().into_iter().find(|told| told.id == signal).unwrap();
    match told.signal {
        Signal::VerifyEmail { token, .. }
        | Signal::VerifyPhone { token, .. }
        | Signal::ResetPasswordEmail { token, .. }
        | Signal::ResetPasswordPhone { token, .. } => token,
        other => panic!("{other:?}"),
    }
}

/// Replaces an address by another, and proves that.
async fn replace(test: &TestAccounts, user: UserId, old: &str, new: &str, secret: &str) {
    let change =
        ChangeContact { user, contact: contact(test, user, old), address: claim(new), authority: by_password(secret) };
    test.change_contact(change).await.unwrap();
    assert!(prove_last(test, new).await);
    soon(test.drain()).await;
}

fn truth(test: &TestAccounts) -> Failure {
    let last = test.recorded().into_iter().rev().find_map(|told| match told.signal {
        Signal::UndoFailed { reason, .. } => Some(reason),
        _ => None,
    });
    last.expect("an undo that failed")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_old_address_gets_its_account_back_and_a_new_password() {
    let test = TestAccounts::start().await;
    let ada = ada(&test).await;
    let before = user(&test, ada).contacts;
    replace(&test, ada, EMAIL, EVIL, PASSWORD).await;
    let notice = last_notice(&test);
    assert_eq!((notice.kind, notice.to.as_str()), (MessageKind::ContactChanged, EMAIL));
    let session = sign_in(&test, "ada", PASSWORD).await.unwrap();
    let asked = sign_in(&test, EMAIL, PASSWORD).await.unwrap_err();
    assert_eq!(asked, Error::Refused(AuthenticateReason::InvalidCredentials), "it is no name of an account meanwhile");

    let undone = undo(&test, &notice.link).await.unwrap();
    assert_eq!((undone.user, undone.sessions_revoked, undone.already), (ada, 1, false));
    assert!(!is_open(&test, &session));
    assert_eq!(user(&test, ada).contacts, before);
    let jobs = test.hasher_state().jobs_done;
    for identifier in ["ada", EMAIL, PHONE, EVIL] {
        let refused = sign_in(&test, identifier, PASSWORD).await.unwrap_err();
        assert_eq!(refused, Error::Refused(AuthenticateReason::InvalidCredentials), "{identifier}");
    }
    assert_eq!(test.hasher_state().jobs_done - jobs, 4, "each costs what a wrong password costs");

    soon(test.drain()).await;
    let message = test.messages().last_to(EMAIL).unwrap();
    assert_eq!(message.kind, MessageKind::ResetPasswordEmail);
    let code = code_proof(undone.reset.unwrap().challenge, message.code().unwrap());
    reset(&test, code, NEW_PASSWORD).await.unwrap();
    sign_in(&test, EMAIL, NEW_PASSWORD).await.unwrap();
    assert_eq!(undo(&test, &notice.link).await.map(|undone| undone.already), Ok(true));
    sign_in(&test, EMAIL, NEW_PASSWORD).await.unwrap();
    let told = test.recorded().into_iter().find_map(|told| match told.signal {
        Signal::ChangeUndone { change, .. } => change,
        _ => None,
    });
    assert_eq!(told, Some(ChangeKind::ContactReplaced));
    assert_laws(&test);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_at_an_address_that_came_by_a_change_does_not_outlast_the_one_that_takes_it_back() {
    let test = TestAccounts::start().await;
    let ada = ada(&test).await;
    replace(&test, ada, EMAIL, EVIL, PASSWORD).await;
    test.advance(Duration::from_secs(24 * 3600));
    // The owner, who is still signed in, changes back, which is told to the address that came in between.
    replace(&test, ada, EVIL, EMAIL, PASSWORD).await;
    let notice = last_notice(&test);
    assert_eq!(notice.to, EVIL);
    test.advance(Duration::from_secs(6 * 24 * 3600));
    assert_eq!((undo(&test, &notice.link).await, truth(&test)), (Err(INVALID), Failure::TokenMismatchOrExpired));
    assert_eq!(test.find_user(EMAIL).unwrap().map(|user| user.id), Some(ada));
    assert_laws(&test);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_was_only_claimed_is_not_told_that_it_was_replaced() {
    let test = TestAccounts::start().await;
    let eve = proven(&test, Some("eve"), Some(EVIL), None).await;
    let stranger = "stranger@example.com";
    let authority = by_password(PASSWORD);
    test.add_contact(AddContact { user: eve, address: claim(stranger), authority }).await.unwrap();
    soon(test.drain()).await;
    drop(test.messages().take());
    replace(&test, eve, stranger, "more@example.net", PASSWORD).await;
    assert!(test.messages().last_to(stranger).is_none());
    assert!(!test.recorded().iter().any(|told| told.signal.kind() == SignalKind::ContactChanged));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_change_is_told_where_it_can_be_taken_back() {
    let test = TestAccounts::start().await;
    let ada = proven(&test, Some("ada"), Some(EMAIL), None).await;
    assert_eq!(notices(&test).len(), 0, "the first address that is proven is no change");
    let authority = || by_password(PASSWORD);
    test.add_contact(AddContact { user: ada, address: claim(PHONE), authority: authority() }).await.unwrap();
    assert!(prove_last(&test, PHONE).await);
    soon(test.drain()).await;
    let new = password(NEW_PASSWORD);
    test.change_password(ChangePassword { user: ada, current: password(PASSWORD), new, keep: None }).await.unwrap();
    soon(test.drain()).await;
    request_reset(&test, PHONE, Channel::Phone).await;
    let message = test.messages().last_to(PHONE).unwrap();
    let proof = code_proof(token_of(&test, message.id), message.code().unwrap());
    reset(&test, proof, PASSWORD).await.unwrap();
    soon(test.drain()).await;
    let removal = RemoveContact { user: ada, contact: contact(&test, ada, PHONE), authority: authority() };
    test.remove_contact(removal).await.unwrap();
    soon(test.drain()).await;
    let told: Vec<_> = notices(&test).into_iter().map(|notice| (notice.kind, notice.to)).collect();
    let (mail, text) = (EMAIL.to_owned(), PHONE.to_owned());
    assert_eq!(
        told,
        [
            (MessageKind::ContactAdded, mail.clone()),
            (MessageKind::PasswordChanged, mail.clone()),
            (MessageKind::PasswordChanged, mail),
            (MessageKind::ContactRemoved, text),
        ]
    );
    // By text message as well.
    let undone = undo(&test, &last_notice(&test).link).await.unwrap();
    assert_eq!(user(&test, ada).contacts.len(), 2);
    soon(test.drain()).await;
    let message = test.messages().last_to(PHONE).unwrap();
    assert_eq!((message.kind, undone.reset.is_some()), (MessageKind::ResetPasswordPhone, true));
    assert_laws(&test);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_link_of_a_password_change_ends_what_the_change_let_in_and_never_brings_a_password_back() {
    let test = TestAccounts::start().await;
    let ada = ada(&test).await;
    let change = ChangePassword { user: ada, current: password(PASSWORD), new: password(NEW_PASSWORD), keep: None };
    test.change_password(change).await.unwrap();
    let session = sign_in(&test, "ada", NEW_PASSWORD).await.unwrap();
    soon(test.drain()).await;
    let link = last_notice(&test).link;
    replace(&test, ada, EMAIL, EVIL, NEW_PASSWORD).await;
    undo(&test, &link).await.unwrap();
    assert!(!is_open(&test, &session));
    for secret in [PASSWORD, NEW_PASSWORD] {
        sign_in(&test, "ada", secret).await.unwrap_err();
    }
    assert_eq!(contact(&test, ada, EMAIL), user(&test, ada).contacts[0].id, "what followed is taken back too");
    soon(test.drain()).await;
    assert_eq!(test.messages().last_to(EMAIL).unwrap().kind, MessageKind::ResetPasswordEmail);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_works_until_its_time_is_over_and_not_a_moment_longer() {
    for (after, works) in [(WEEK - Duration::from_secs(1), true), (WEEK, false)] {
        let test = TestAccounts::start().await;
        let ada = ada(&test).await;
        replace(&test, ada, EMAIL, EVIL, PASSWORD).await;
        let link = last_notice(&test).link;
        test.advance(after);
        let answer = undo(&test, &link).await;
        assert_eq!(answer.is_ok(), works, "after {after:?}");
        if !works {
            assert_eq!((answer, truth(&test)), (Err(INVALID), Failure::TokenMismatchOrExpired));
            assert!(test.find_user(EVIL).unwrap().is_some());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_is_good_for_one_purpose_and_one_user() {
    let test = TestAccounts::start().await;
    let ada = ada(&test).await;
    let bob = proven(&test, Some("bob"), Some("bob@example.com"), None).await;
    let verification = link_to(&test, "bob@example.com");
    replace(&test, ada, EMAIL, EVIL, PASSWORD).await;
    let of_ada = last_notice(&test).link;
    replace(&test, bob, "bob@example.com", "bob@example.org", PASSWORD).await;
    let of_bob = last_notice(&test).link;
    request_reset(&test, "bob", Channel::Email).await;
    let reset_link = link_to(&test, "bob@example.org");
    let swapped = |one: &str, other: &str| {
        let token = one.trim_end_matches('/').rsplit('/').next().unwrap();
        let user = other.trim_end_matches('/').rsplit('/').nth(1).unwrap();
        format!("/accounts/change_undo_confirm/{user}/{token}/")
    };
    for link in [swapped(&of_ada, &of_bob), swapped(&of_bob, &of_ada), verification, reset_link.clone()] {
        assert_eq!((undo(&test, &link).await, truth(&test)), (Err(INVALID), Failure::InvalidToken));
    }
    for proof in [link_proof(&of_bob), link_proof(&of_ada)] {
        assert!(test.confirm_email(ConfirmEmail { proof: proof.clone() }).await.is_err());
        assert!(reset(&test, proof, NEW_PASSWORD).await.is_err());
    }
    reset(&test, link_proof(&reset_link), NEW_PASSWORD).await.unwrap();
    undo(&test, &of_ada).await.unwrap();
    undo(&test, &of_bob).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_hundred_clicks_at_once_one_undoes_and_one_message_goes_out() {
    let test = TestAccounts::start().await;
    let ada = ada(&test).await;
    replace(&test, ada, EMAIL, EVIL, PASSWORD).await;
    let link = last_notice(&test).link;
    drop(test.messages().take());
    let clicks: Vec<_> = (0..100)
        .map(|_| {
            let (accounts, proof) = (test.accounts().clone(), link_proof(&link));
            tokio::spawn(async move { accounts.undo_change(UndoChange { proof }).await.unwrap() })
        })
        .collect();
    let mut firsts = 0;
    for click in clicks {
        firsts += usize::from(!soon(click).await.unwrap().already);
    }
    soon(test.drain()).await;
    let sent: Vec<_> = test.messages().take().into_iter().map(|message| (message.kind, message.to.clone())).collect();
    assert_eq!((firsts, sent), (1, vec![(MessageKind::ResetPasswordEmail, EMAIL.to_owned())]));
    assert_laws(&test);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_was_given_up_is_nobody_elses_until_its_time_is_over() {
    let test = TestAccounts::start().await;
    let ada = ada(&test).await;
    replace(&test, ada, EMAIL, "ada@example.org", PASSWORD).await;
    drop(test.messages().take());
    let registered = |name: &'static str| {
        let request = majordomo::Register {
            username: Some(name.to_owned()),
            email: Some(EMAIL.to_owned()),
            ..majordomo::Register::new(PASSWORD)
        };
        test.register(request)
    };
    let early = registered("eve").await.unwrap();
    assert!(early.email_challenge.is_some(), "the caller sees nothing of it");
    soon(test.drain()).await;
    assert_eq!(test.messages().take().len(), 0, "it is no address of the account any more, and not eve's either");
    let resend = || {
        let claimant = Claimant::User { user: early.user, contact: None };
        test.request_email_verification(RequestEmailVerification { claimant })
    };
    resend().await.unwrap();
    let asked = RequestPasswordReset { identifier: EMAIL.to_owned(), channel: Channel::Email };
    test.request_password_reset(asked).await.unwrap();
    test.advance(WEEK - Duration::from_secs(3_600));
    soon(test.drain()).await;
    assert_eq!(test.messages().take().len(), 0);
    assert!(test.find_user(EMAIL).unwrap().is_none());

    test.advance(Duration::from_secs(3_600));
    let late = registered("mallory").await.unwrap();
    assert!(late.email_challenge.is_some());
    assert!(prove_last(&test, EMAIL).await);
    assert_eq!(test.find_user(EMAIL).unwrap().map(|user| user.id), Some(late.user));
    assert_laws(&test);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_kept_is_told_as_taken_in_open_mode_and_can_be_proven_by_whom_it_is_kept_for() {
    let test = TestAccounts::configured(|config| config.policy.registration = Registration::Open).await;
    let ada = ada(&test).await;
    replace(&test, ada, EMAIL, "ada@example.org", PASSWORD).await;
    let request = || majordomo::Register { email: Some(EMAIL.to_owned()), ..majordomo::Register::new(PASSWORD) };
    let refused = test.register(request()).await.unwrap_err();
    assert_eq!(refused, Error::Refused(RegisterReason::EmailTaken));
    replace(&test, ada, "ada@example.org", EMAIL, PASSWORD).await;
    assert_eq!(test.find_user(EMAIL).unwrap().map(|user| user.id), Some(ada));
    assert_eq!(notices(&test).len(), 3, "the number that ada proved second, there, and back");
}

/// A claim that is older than the proof of another does not become good because that other gives the address up.
#[tokio::test(flavor = "multi_thread")]
async fn a_claim_from_before_waits_as_well() {
    let test = TestAccounts::start().await;
    let eve = register(&test, Some("eve"), Some("shared@example.com"), None).await;
    let early = link_to(&test, "shared@example.com");
    let ada = proven(&test, Some("ada"), Some("shared@example.com"), None).await;
    replace(&test, ada, "shared@example.com", EMAIL, PASSWORD).await;
    let confirm = || test.confirm_email(ConfirmEmail { proof: link_proof(&early) });
    assert!(confirm().await.is_err());
    undo(&test, &last_notice(&test).link).await.unwrap();
    assert!(confirm().await.is_err());
    assert_eq!(test.find_user("shared@example.com").unwrap().map(|user| user.id), Some(ada));
    assert!(!user(&test, eve.user).is_verified());
}

#[tokio::test(flavor = "multi_thread")]
async fn disabled_and_deleted_users() {
    let test = TestAccounts::start().await;
    let ada = ada(&test).await;
    replace(&test, ada, EMAIL, EVIL, PASSWORD).await;
    let link = last_notice(&test).link;
    test.disable(Disable { user: ada }).await.unwrap();
    drop(test.messages().take());
    let undone = undo(&test, &link).await.unwrap();
    assert_eq!(undone.reset, None);
    soon(test.drain()).await;
    assert_eq!(test.messages().take().len(), 0, "a disabled user is sent nothing");
    test.enable(Enable { user: ada }).await.unwrap();
    request_reset(&test, EMAIL, Channel::Email).await;
    reset(&test, link_proof(&link_to(&test, EMAIL)), NEW_PASSWORD).await.unwrap();
    sign_in(&test, EMAIL, NEW_PASSWORD).await.unwrap();

    replace(&test, ada, EMAIL, EVIL, NEW_PASSWORD).await;
    let link = last_notice(&test).link;
    test.delete(Delete::new(ada)).await.unwrap();
    assert_eq!((undo(&test, &link).await, truth(&test)), (Err(INVALID), Failure::InvalidToken));
    proven(&test, Some("eve"), Some(EMAIL), None).await;
    assert_laws(&test);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_survives_restarts_and_new_keys() {
    let (old, new) = ([1; 32], [2; 32]);
    let test = TestAccounts::with(cheap(), |builder| builder.keys(Keyring::from_keys(vec![old]).unwrap())).await;
    let ada = ada(&test).await;
    let before = user(&test, ada).contacts;
    replace(&test, ada, EMAIL, EVIL, PASSWORD).await;
    let link = last_notice(&test).link;
    let keys = || Keyring::from_keys(vec![new, old]).unwrap();
    let test = test.restart_with(|builder| builder.keys(keys())).await.unwrap();
    undo(&test, &link).await.unwrap();
    let test = test.restart_with(|builder| builder.keys(keys())).await.unwrap();
    assert_eq!(user(&test, ada).contacts, before, "what was answered is durable");
    assert!(undo(&test, &link).await.unwrap().already);
    request_reset(&test, EMAIL, Channel::Email).await;
    reset(&test, link_proof(&link_to(&test, EMAIL)), NEW_PASSWORD).await.unwrap();
    sign_in(&test, EMAIL, NEW_PASSWORD).await.unwrap();
}

/// What an attacker does who knows the password and reads mailboxes of their own.
#[derive(Clone, Debug)]
enum Deed {
    Replace(Index),
    Add(Channel),
    Remove(Index),
    MakePrimary(Index),
    ChangePassword,
    Reset,
    SignIn,
    /// Leaves a claim unproven.
    Claim,
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let deed = prop_oneof![
        4 => any::<Index>().prop_map(Deed::Replace),
        2 => select(vec![Channel::Email, Channel::Phone]).prop_map(Deed::Add),
        2 => any::<Index>().prop_map(Deed::Remove),
        1 => any::<Index>().prop_map(Deed::MakePrimary),
        2 => Just(Deed::ChangePassword),
        1 => Just(Deed::Reset),
        1 => Just(Deed::SignIn),
        1 => Just(Deed::Claim),
    ];
    prop::collection::vec(deed, 1..8)
}

/// An attacker at work on an account.
struct Attacker<'a> {
    test: &'a TestAccounts,
    user: UserId,
    secret: String,
    addresses: Vec<String>,
    sessions: Vec<majordomo::LoggedIn>,
}

impl Attacker<'_> {
    fn fresh(&mut self, channel: Channel) -> String {
        let number = self.addresses.len();
        let address = match channel {
            Channel::Email => format!("eve{number}@evil.example"),
            Channel::Phone => format!("+4479111234{:02}", 60 + number),
        };
        self.addresses.push(address.clone());
        address
    }

    fn chosen(&self, index: Index) -> Option<UserContact> {
        let contacts = user(self.test, self.user).contacts;
        (!contacts.is_empty()).then(|| index.get(&contacts).clone())
    }

    async fn act(&mut self, deed: &Deed) {
        let (test, user_id, authority) = (self.test, self.user, by_password(&self.secret));
        match deed {
            Deed::Replace(index) => {
                let Some(old) = self.chosen(*index) else { return };
                let address = self.fresh(old.address.channel());
                let change = ChangeContact { user: user_id, contact: old.id, address: claim(&address), authority };
                if test.change_contact(change).await.is_ok() {
                    assert!(prove_last(test, &address).await);
                }
            }
            Deed::Add(channel) => {
                let address = self.fresh(*channel);
                let add = AddContact { user: user_id, address: claim(&address), authority };
                if test.add_contact(add).await.is_ok() {
                    assert!(prove_last(test, &address).await);
                }
            }
            Deed::Claim => {
                let address = self.fresh(Channel::Email);
                let _ = test.add_contact(AddContact { user: user_id, address: claim(&address), authority }).await;
            }
            Deed::Remove(index) => {
                let Some(gone) = self.chosen(*index) else { return };
                let _ = test.remove_contact(RemoveContact { user: user_id, contact: gone.id, authority }).await;
            }
            Deed::MakePrimary(index) => {
                let Some(first) = self.chosen(*index) else { return };
                let _ = test.make_primary(MakePrimary { user: user_id, contact: first.id, authority }).await;
            }
            Deed::ChangePassword => {
                let new = format!("{} and then some", self.secret);
                let (current, offered) = (password(&self.secret), password(&new));
                let change = ChangePassword { user: user_id, current, new: offered, keep: None };
                test.change_password(change).await.unwrap();
                self.secret = new;
            }
            Deed::Reset => {
                // Of what the attacker reads, whichever the account has.
                let contacts = user(test, user_id).contacts;
                let read = |contact: &&UserContact| {
                    contact.proven_at.is_some() && self.addresses.iter().any(|own| own == contact.address.canonical())
                };
                let Some(own) = contacts.iter().find(read).map(|contact| contact.address.clone()) else { return };
                let asked = request_reset(test, own.canonical(), own.channel()).await;
                let proof = code_proof(asked.challenge, &code_to(test, own.canonical()));
                let new = format!("{} once more", self.secret);
                reset(test, proof, &new).await.unwrap();
                self.secret = new;
            }
            Deed::SignIn => self.sessions.push(sign_in(test, "ada", &self.secret).await.unwrap()),
        }
        soon(test.drain()).await;
    }
}

/// The links and codes of every message that was sent but the notices, as proofs.
fn proofs(test: &TestAccounts) -> Vec<(MessageKind, Proof)> {
    let messages = test.messages().messages();
    let bears = |kind| {
        use MessageKind::{ResetPasswordEmail, ResetPasswordPhone, VerifyEmail, VerifyPhone};
        matches!(kind, VerifyEmail | VerifyPhone | ResetPasswordEmail | ResetPasswordPhone)
    };
    messages
        .into_iter()
        .filter(|message| bears(message.kind))
        .map(|message| (message.kind, code_proof(token_of(test, message.id), message.code().unwrap())))
        .collect()
}

async fn play(deeds: &[Deed]) -> (BTreeSet<MessageKind>, usize) {
    let test = TestAccounts::start().await;
    let ada = ada(&test).await;
    // What is known from before is none of the attack.
    drop(test.messages().take());
    let before = user(&test, ada).contacts;
    let session = sign_in(&test, "ada", PASSWORD).await.unwrap();
    let (secret, addresses, sessions) = (PASSWORD.to_owned(), Vec::new(), vec![session]);
    let mut attacker = Attacker { test: &test, user: ada, secret, addresses, sessions };
    for deed in deeds {
        attacker.act(deed).await;
    }
    let Attacker { secret, addresses, sessions, .. } = attacker;
    let all = notices(&test);
    let Some((first, later)) = all.split_first() else { return (BTreeSet::new(), 0) };
    assert!([EMAIL, PHONE].contains(&first.to.as_str()), "the first to hear of it is the owner: {deeds:?}");
    let (theirs, old) = (proofs(&test), test.messages().messages().len());

    let undone = undo(&test, &first.link).await.unwrap();
    let after = user(&test, ada).contacts;
    let known = |contacts: &[UserContact]| {
        let shown = contacts.iter().map(|contact| (contact.address.canonical().to_owned(), contact.clone()));
        shown.collect::<BTreeMap<_, _>>()
    };
    // What was done without a trace before, choosing another first address, stays as it was when the change was made.
    let (mut before, mut after) = (known(&before), known(&after));
    before.values_mut().chain(after.values_mut()).for_each(|contact| contact.primary = true);
    assert_eq!(after, before, "{deeds:?}");
    for session in &sessions {
        assert!(!is_open(&test, session));
    }
    for notice in later {
        assert_eq!(undo(&test, &notice.link).await, Err(INVALID), "{deeds:?}");
    }
    for (kind, proof) in theirs {
        let refused = match kind {
            MessageKind::VerifyEmail => test.confirm_email(ConfirmEmail { proof }).await.is_err(),
            MessageKind::VerifyPhone => test.confirm_phone(ConfirmPhone { proof }).await.is_err(),
            _ => reset(&test, proof, &secret).await.is_err(),
        };
        assert!(refused, "{kind:?} after {deeds:?}");
    }
    for secret in [PASSWORD, secret.as_str()] {
        let refused = sign_in(&test, "ada", secret).await.unwrap_err();
        assert_eq!(refused, Error::Refused(AuthenticateReason::InvalidCredentials));
    }
    soon(test.drain()).await;
    let sent = test.messages().messages().split_off(old);
    let [message] = sent.as_slice() else { panic!("{} messages after {deeds:?}", sent.len()) };
    assert_eq!(message.to, first.to);
    let proof = code_proof(undone.reset.unwrap().challenge, message.code().unwrap());
    reset(&test, proof, NEW_PASSWORD).await.unwrap();
    sign_in(&test, &first.to, NEW_PASSWORD).await.unwrap();
    for address in &addresses {
        assert!(test.find_user(address).unwrap().is_none(), "{address} after {deeds:?}");
    }
    assert_laws(&test);
    test.shutdown().await;
    (all.iter().map(|notice| notice.kind).collect(), later.len())
}

#[test]
fn whatever_an_attacker_changes_and_in_whatever_order_the_first_link_gives_the_account_back() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let config = Config { cases: 40, failure_persistence: None, max_shrink_iters: 100, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let seen = std::cell::RefCell::new((BTreeSet::new(), 0));
    runner
        .run(&deeds(), |deeds| {
            let (kinds, later) = runtime.block_on(async { Box::pin(soon(play(&deeds))).await });
            let mut seen = seen.borrow_mut();
            seen.0.extend(kinds);
            seen.1 = later.max(seen.1);
            Ok(())
        })
        .unwrap();
    let (kinds, most) = seen.into_inner();
    use MessageKind::{ContactAdded, ContactChanged, ContactRemoved, PasswordChanged};
    assert_eq!(kinds, [ContactAdded, ContactChanged, ContactRemoved, PasswordChanged].into());
    assert!(most >= 3, "long attacks came up");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_undo_leaves_no_trace_but_its_signals() {
    let test = TestAccounts::start().await;
    let ada = ada(&test).await;
    let head = test.head();
    let unknown = "/accounts/change_undo_confirm/AAAAAAAAAAAAAAAAAAAAAA/mdt_x/";
    assert_eq!(undo(&test, unknown).await, Err(INVALID));
    assert_eq!(test.kinds_after(head), [SignalKind::UndoStarted, SignalKind::UndoFailed]);
    assert!(user(&test, ada).is_verified());
}
