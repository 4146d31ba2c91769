//! Every kind of proof against every flow that takes one, in every state that it can be in; and who may choose a password.

use std::time::Duration;

use majordomo::testing::TestAccounts;
use majordomo::{
    Actor, AddContact, Authority, Change, ChangeContact, ChangeGroups, ChangePassword, Channel, Claimant, Command,
    ConfirmEmail, ConfirmPhone, ContactClaim, ContactId, Context, Delete, Disable, Enable, EndSessions, Error,
    FlowKind, Import, LogOut, MakePrimary, PasswordCause, Proof, Reason, Register, RemoveContact,
    RequestEmailVerification, RequestPasswordReset, RequestPhoneVerification, ResetPassword, SessionToken,
    SessionsToEnd, Signal, UndoChange, Unlock, Update, UserId,
};
use majordomo_model::TokenPurpose;

use crate::person::*;

const PURPOSES: [TokenPurpose; 6] = [
    TokenPurpose::VerifyEmail,
    TokenPurpose::VerifyPhone,
    TokenPurpose::ResetByEmail,
    TokenPurpose::ResetByPhone,
    TokenPurpose::UndoChange,
    TokenPurpose::Unlock,
];
/// How many proofs of them there are: what undoes and what unlocks comes as a link alone.
const PROOFS: usize = 10;
const THIRD_PASSWORD: &str = "three kettles on a cold roof";
const EVE: &str = "eve@example.com";
const EVES_PHONE: &str = "+447911123457";

/// The flows that take a proof.
const TAKERS: [FlowKind; 5] =
    [FlowKind::ConfirmEmail, FlowKind::ConfirmPhone, FlowKind::ResetPassword, FlowKind::UndoChange, FlowKind::Unlock];

const fn taker(purpose: TokenPurpose) -> FlowKind {
    match purpose {
        TokenPurpose::VerifyEmail => FlowKind::ConfirmEmail,
        TokenPurpose::VerifyPhone => FlowKind::ConfirmPhone,
        TokenPurpose::ResetByEmail | TokenPurpose::ResetByPhone => FlowKind::ResetPassword,
        TokenPurpose::UndoChange => FlowKind::UndoChange,
        TokenPurpose::Unlock => FlowKind::Unlock,
        _ => panic!("say which flow takes it"),
    }
}

/// What came of a proof that was presented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Came {
    /// It did what it is for.
    Done,
    /// It had been done by it before, and nothing was done now.
    Already,
    Refused,
}

const fn came(already: bool) -> Came {
    if already { Came::Already } else { Came::Done }
}

async fn present(test: &TestAccounts, taker: FlowKind, proof: Proof) -> Came {
    let came = match taker {
        FlowKind::ConfirmEmail => came_of(test.confirm_email(ConfirmEmail { proof }).await, |done| done.already),
        FlowKind::ConfirmPhone => came_of(test.confirm_phone(ConfirmPhone { proof }).await, |done| done.already),
        FlowKind::ResetPassword => came_of(reset(test, proof, THIRD_PASSWORD).await, |_| false),
        FlowKind::UndoChange => came_of(test.undo_change(UndoChange { proof }).await, |done| done.already),
        FlowKind::Unlock => came_of(test.unlock(Unlock::Link(proof)).await, |done| done.already),
        other => panic!("{other:?} takes no proof"),
    };
    came.unwrap_or_else(|why| {
        assert_eq!(why, "invalid_token", "a refusal names the proof, and is no failure");
        Came::Refused
    })
}

fn came_of<T, R: Reason>(answer: Result<T, Error<R>>, already: impl Fn(&T) -> bool) -> Result<Came, &'static str> {
    match answer {
        Ok(done) => Ok(came(already(&done))),
        Err(error) => Err(error.as_str()),
    }
}

/// A proof that is good, and whose.
struct Held {
    purpose: TokenPurpose,
    by: &'static str,
    user: UserId,
    proof: Proof,
}

/// A system with two users and a good proof of each purpose, by link and by code: Ada's are of what she has proven, and
/// Eve has proven nothing yet.
async fn held() -> (TestAccounts, Vec<Held>) {
    // Short messages carry a link here too.
    let both = "{% if link %}{{ link }}{% endif %}\n{% if code %}{{ code }}{% endif %}";
    let mut templates = majordomo::notifier::Templates::embedded();
    for name in ["verify_phone.txt", "reset_password_phone.txt"] {
        templates = templates.with_template(name, both);
    }
    let mut config = cheap();
    // The first wrong password puts the lock on.
    config.policy.lock_after = 1;
    let test = TestAccounts::with(config, |builder| builder.templates(templates)).await;
    let ada = ada(&test).await;
    let change = ChangePassword { user: ada, current: password(PASSWORD), new: password(NEW_PASSWORD), keep: None };
    test.change_password(change).await.unwrap();
    soon(test.drain()).await;
    let undo = test.messages().messages().into_iter().rev().find_map(|message| {
        message.link().filter(|link| link.contains("/accounts/change_undo_confirm/")).map(str::to_owned)
    });
    let (purpose, proof) = (TokenPurpose::UndoChange, link_proof(&undo.unwrap()));
    let mut all = vec![Held { purpose, by: "link", user: ada, proof }];
    sign_in(&test, "ada", "an altogether different phrase").await.unwrap_err();
    soon(test.drain()).await;
    let (purpose, proof) = (TokenPurpose::Unlock, link_proof(&link_to(&test, EMAIL)));
    all.push(Held { purpose, by: "link", user: ada, proof });
    let eve = register(&test, Some("eve"), Some(EVE), Some(EVES_PHONE)).await;
    let by_email = request_reset(&test, EMAIL, Channel::Email).await.challenge;
    let by_phone = request_reset(&test, PHONE, Channel::Phone).await.challenge;
    for (purpose, user, address, challenge) in [
        (TokenPurpose::VerifyEmail, eve.user, EVE, eve.email_challenge.unwrap()),
        (TokenPurpose::VerifyPhone, eve.user, EVES_PHONE, eve.phone_challenge.unwrap()),
        (TokenPurpose::ResetByEmail, ada, EMAIL, by_email),
        (TokenPurpose::ResetByPhone, ada, PHONE, by_phone),
    ] {
        let (link, code) = (link_proof(&link_to(&test, address)), code_proof(challenge, &code_to(&test, address)));
        all.extend([("link", link), ("code", code)].map(|(by, proof)| Held { purpose, by, user, proof }));
    }
    assert!(PURPOSES.iter().all(|purpose| all.iter().any(|held| held.purpose == *purpose)));
    (test, all)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proof_of_whatever_purpose_is_taken_by_its_own_flow_and_by_no_other() {
    for place in 0..PROOFS {
        let (test, all) = held().await;
        assert_eq!(all.len(), PROOFS);
        let Held { purpose, by, proof, .. } = &all[place];
        for other in TAKERS.into_iter().filter(|flow| *flow != taker(*purpose)) {
            assert_eq!(present(&test, other, proof.clone()).await, Came::Refused, "{purpose:?} by {by} at {other:?}");
        }
        assert_eq!(present(&test, taker(*purpose), proof.clone()).await, Came::Done, "{purpose:?} by {by}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_of_whatever_purpose_with_the_user_or_the_secret_of_another_is_worth_nothing() {
    let (test, all) = held().await;
    let links: Vec<_> = all.iter().filter(|held| held.by == "link").collect();
    for one in &links {
        for other in &links {
            let (Proof::Link { user, token }, Proof::Link { user: of_other, token: instead }) =
                (&one.proof, &other.proof)
            else {
                panic!("no links");
            };
            if one.user != other.user {
                let swapped = Proof::Link { user: of_other.clone(), token: token.clone() };
                let came = present(&test, taker(one.purpose), swapped).await;
                assert_eq!(came, Came::Refused, "{:?} for the user of {:?}", one.purpose, other.purpose);
            }
            if one.purpose != other.purpose {
                // The row that one names, with what is secret in the other.
                let (head, _) = token.expose().split_at(4 + 24);
                let (_, tail) = instead.expose().split_at(4 + 24);
                let spliced =
                    Proof::Link { user: user.clone(), token: majordomo::OneTimeToken::new(format!("{head}{tail}")) };
                let came = present(&test, taker(one.purpose), spliced).await;
                assert_eq!(came, Came::Refused, "{:?} with the secret of {:?}", one.purpose, other.purpose);
            }
        }
    }
    for held in links.iter().filter(|held| held.purpose != TokenPurpose::UndoChange) {
        if held.purpose == TokenPurpose::ResetByPhone {
            // The one by e-mail was taken, and ended the epoch.
            assert_eq!(present(&test, taker(held.purpose), held.proof.clone()).await, Came::Refused);
        } else {
            assert_eq!(present(&test, taker(held.purpose), held.proof.clone()).await, Came::Done, "{:?}", held.purpose);
        }
    }
}

/// What makes a proof stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Past {
    Used,
    /// The same was asked for again.
    Superseded,
    /// The longest lifetime there is has passed.
    Expired,
    /// Its user was disabled, and enabled again.
    Disabled,
    /// Its user has a new password.
    Replaced,
    /// Its address was given up.
    GivenUp,
    Deleted,
}

impl Past {
    const ALL: [Self; 7] =
        [Self::Used, Self::Superseded, Self::Expired, Self::Disabled, Self::Replaced, Self::GivenUp, Self::Deleted];

    /// What is left of a proof. A verification is bound to its address and not to the password, and what undoes a change
    /// must outlive whatever the attacker does. What lifts a lock is bound to the password: a new one has lifted it.
    fn leaves(self, purpose: TokenPurpose) -> Came {
        let is_reset = taker(purpose) == FlowKind::ResetPassword;
        let is_undo = purpose == TokenPurpose::UndoChange;
        let is_unlock = purpose == TokenPurpose::Unlock;
        match self {
            Self::Used if is_reset => Came::Refused,
            Self::Used => Came::Already,
            // An operator has lifted the lock by then, so that a password is taken.
            Self::GivenUp if is_unlock => Came::Already,
            // Nothing asks for it a second time.
            Self::Superseded | Self::GivenUp if is_undo || is_unlock => Came::Done,
            Self::Disabled | Self::Replaced if !is_reset && !is_unlock => Came::Done,
            _ => Came::Refused,
        }
    }

    async fn pass(self, test: &TestAccounts, held: &Held) {
        let (user, is_email) =
            (held.user, !matches!(held.purpose, TokenPurpose::VerifyPhone | TokenPurpose::ResetByPhone));
        let is_eve = taker(held.purpose) == FlowKind::ConfirmEmail || taker(held.purpose) == FlowKind::ConfirmPhone;
        let current = if is_eve { PASSWORD } else { NEW_PASSWORD };
        match self {
            Self::Used => assert_eq!(present(test, taker(held.purpose), held.proof.clone()).await, Came::Done),
            Self::Superseded => {
                test.advance(majordomo::Policy::default().messages.cool_down);
                ask_again(test, held).await;
                soon(test.drain()).await;
            }
            Self::Expired => test.advance(Duration::from_secs(7 * 24 * 3600)),
            Self::Disabled => {
                test.disable(Disable { user }).await.unwrap();
                test.enable(Enable { user }).await.unwrap();
            }
            Self::Replaced => {
                // While the lock is on, no password is taken as right.
                test.unlock(Unlock::Operator(user)).await.unwrap();
                let (current, new) = (password(current), password("nobody knows this one yet"));
                test.change_password(ChangePassword { user, current, new, keep: None }).await.unwrap();
            }
            Self::GivenUp => {
                test.unlock(Unlock::Operator(user)).await.unwrap();
                let address = match (is_eve, is_email) {
                    (true, true) => EVE,
                    (true, false) => EVES_PHONE,
                    (false, true) => EMAIL,
                    (false, false) => PHONE,
                };
                let contact = contact(test, user, address);
                test.remove_contact(RemoveContact { user, contact, authority: by_password(current) }).await.unwrap();
            }
            Self::Deleted => drop(test.delete(Delete::new(user)).await.unwrap()),
        }
    }
}

async fn ask_again(test: &TestAccounts, held: &Held) {
    let claimant = Claimant::User { user: held.user, contact: None };
    match held.purpose {
        TokenPurpose::VerifyEmail => {
            test.request_email_verification(RequestEmailVerification { claimant }).await.unwrap();
        }
        TokenPurpose::VerifyPhone => {
            test.request_phone_verification(RequestPhoneVerification { claimant }).await.unwrap();
        }
        TokenPurpose::ResetByEmail => drop(request_reset(test, EMAIL, Channel::Email).await),
        TokenPurpose::ResetByPhone => drop(request_reset(test, PHONE, Channel::Phone).await),
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_proof_of_whatever_purpose_does_nothing() {
    for past in Past::ALL {
        for place in 0..PROOFS {
            let (test, all) = held().await;
            let held = &all[place];
            past.pass(&test, held).await;
            let came = present(&test, taker(held.purpose), held.proof.clone()).await;
            assert_eq!(came, past.leaves(held.purpose), "{:?} by {}, {past:?}", held.purpose, held.by);
        }
    }
}

fn as_operator<F>(message: F) -> Command<F> {
    Command::new(message).actor(Actor::Admin("operator".to_owned())).context(Context::new())
}

/// Runs a flow as an operator who knows no secret of the user, and has none of their messages.
async fn operate(test: &TestAccounts, flow: FlowKind, user: UserId, contact: ContactId) {
    let claimant = Claimant::User { user, contact: None };
    match flow {
        FlowKind::Register => {
            let request = Register { username: Some("another".to_owned()), ..Register::new(THIRD_PASSWORD) };
            assert_ne!(test.register(as_operator(request)).await.unwrap().user, user);
        }
        FlowKind::Import => {
            let hash =
                "$argon2id$v=19$m=19456,t=2,p=1$YWFhYWFhYWFhYWFhYWFhYQ$YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWE";
            let same = Import { username: Some("ada".to_owned()), ..Import::new(hash) };
            test.import(as_operator(same)).await.unwrap_err();
        }
        FlowKind::EndSessions => {
            test.end_sessions(as_operator(EndSessions { user, which: SessionsToEnd::All })).await.unwrap();
        }
        FlowKind::RequestEmailVerification => {
            test.request_email_verification(as_operator(RequestEmailVerification { claimant })).await.unwrap();
        }
        FlowKind::RequestPhoneVerification => {
            test.request_phone_verification(as_operator(RequestPhoneVerification { claimant })).await.unwrap();
        }
        FlowKind::Update => {
            let display_name = Change::Set("Renamed".to_owned());
            test.update(as_operator(Update { display_name, ..Update::new(user) })).await.unwrap();
        }
        FlowKind::ChangeGroups => {
            let (join, leave) = (["admins".to_owned()].into(), [].into());
            test.change_groups(as_operator(ChangeGroups { user, join, leave })).await.unwrap();
        }
        FlowKind::Disable => drop(test.disable(as_operator(Disable { user })).await.unwrap()),
        FlowKind::Enable => drop(test.enable(as_operator(Enable { user })).await.unwrap()),
        FlowKind::Unlock => drop(test.unlock(as_operator(Unlock::Operator(user))).await.unwrap()),
        FlowKind::RequestPasswordReset => {
            let request = RequestPasswordReset { identifier: "ada".to_owned(), channel: Channel::Email };
            test.request_password_reset(as_operator(request)).await.unwrap();
        }
        // Of users who are gone nothing is left to choose; of messages and new hashes no caller decides.
        FlowKind::Delete | FlowKind::Delivery | FlowKind::Rehash => {}
        other => guess(test, other, user, contact).await,
    }
}

/// The flows that ask for a secret, as an operator who has none.
async fn guess(test: &TestAccounts, flow: FlowKind, user: UserId, contact: ContactId) {
    let claim = || ContactClaim::Email("operator@example.org".to_owned());
    let made_up = || link_proof("/accounts/password_reset_confirm/BAQEBAQEBAQEBAQEBAQEBA/mdt_none/");
    let no_token = || SessionToken::new("mds_none");
    for authority in [by_password(THIRD_PASSWORD), Authority::RecentSession(no_token())] {
        match flow {
            FlowKind::Authenticate => drop(sign_in(test, "ada", THIRD_PASSWORD).await.unwrap_err()),
            FlowKind::LogOut => drop(test.log_out(as_operator(LogOut { token: no_token() })).await),
            FlowKind::ChangePassword => {
                let (current, new) = (password(THIRD_PASSWORD), password(THIRD_PASSWORD));
                let change = ChangePassword { user, current, new, keep: None };
                test.change_password(as_operator(change)).await.unwrap_err();
            }
            FlowKind::ConfirmEmail => {
                test.confirm_email(as_operator(ConfirmEmail { proof: made_up() })).await.unwrap_err();
            }
            FlowKind::ConfirmPhone => {
                test.confirm_phone(as_operator(ConfirmPhone { proof: made_up() })).await.unwrap_err();
            }
            FlowKind::AddContact => {
                test.add_contact(as_operator(AddContact { user, address: claim(), authority })).await.unwrap_err();
            }
            FlowKind::ChangeContact => {
                let change = ChangeContact { user, contact, address: claim(), authority };
                test.change_contact(as_operator(change)).await.unwrap_err();
            }
            FlowKind::RemoveContact => {
                test.remove_contact(as_operator(RemoveContact { user, contact, authority })).await.unwrap_err();
            }
            FlowKind::MakePrimary => {
                test.make_primary(as_operator(MakePrimary { user, contact, authority })).await.unwrap_err();
            }
            FlowKind::ResetPassword => {
                let reset = ResetPassword { proof: made_up(), new: password(THIRD_PASSWORD) };
                test.reset_password(as_operator(reset)).await.unwrap_err();
            }
            FlowKind::UndoChange => {
                test.undo_change(as_operator(UndoChange { proof: made_up() })).await.unwrap_err();
            }
            other => panic!("say who may choose a password by {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn by_no_flow_does_anybody_but_the_user_choose_a_password() {
    let test = TestAccounts::start().await;
    let user = ada(&test).await;
    let contact = contact(&test, user, EMAIL);
    for flow in FlowKind::ALL {
        operate(&test, *flow, user, contact).await;
    }
    sign_in(&test, "ada", PASSWORD).await.unwrap();
    let causes = test.recorded().into_iter().filter_map(|envelope| match envelope.signal {
        Signal::UserPasswordSet { user: of, cause, .. } if of == user => Some(cause),
        _ => None,
    });
    assert_eq!(causes.collect::<Vec<_>>(), [PasswordCause::Registration], "set once, by whoever registered");
}
