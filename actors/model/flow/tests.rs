//! What messages show of themselves, and the words of their reasons.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use super::*;
use crate::{
    Channel, ContactId, DeletionCause, Flow, OneTimeCode, OneTimeToken, Password, Profile, Reason, SessionId,
    SessionToken, TokenId, UserId,
};

/// In every field that is personal or secret, so that a `Debug` which shows any of them is caught.
const CANARY: &str = "canary";

fn id<T>(from_bytes: fn([u8; 16]) -> T, last: u8) -> T {
    let mut bytes = [0xca; 16];
    bytes[15] = last;
    from_bytes(bytes)
}

fn user(last: u8) -> UserId {
    id(UserId::from_bytes, last)
}

fn contact(last: u8) -> ContactId {
    id(ContactId::from_bytes, last)
}

fn session(last: u8) -> SessionId {
    id(SessionId::from_bytes, last)
}

fn text(suffix: u8) -> String {
    format!("{CANARY}{suffix}")
}

fn password(secret: &str) -> Authority {
    Authority::Password(Password::new(secret))
}

/// A message in several forms, of which each differs from every other in one field that is no secret or more.
/// `build` puts its argument into every secret field.
fn check<M: Flow + Debug>(build: impl Fn(&str) -> Vec<M>) {
    let messages = build("correct-horse-1");
    let visible: Vec<_> = messages.iter().map(Flow::visible).collect();
    for (message, visible) in messages.iter().zip(&visible) {
        let shown = format!("{message:?} {message:#?}");
        for hidden in [CANARY, "correct-horse", "cacaca"] {
            assert!(!shown.contains(hidden), "{shown}");
        }
        assert!(!visible.contains("correct-horse"), "{visible}");
    }
    let other_secrets: Vec<_> = build("correct-horse-2").iter().map(Flow::visible).collect();
    assert_eq!(visible, other_secrets, "a secret shows in {:?}", M::KIND);
    let distinct: BTreeSet<_> = visible.iter().collect();
    assert_eq!(distinct.len(), visible.len(), "two forms of {:?} look the same: {visible:#?}", M::KIND);
}

fn claims() -> [ContactClaim; 3] {
    [ContactClaim::Email(text(0)), ContactClaim::Email(text(1)), ContactClaim::Phone(text(0))]
}

fn proofs(secret: &str) -> Vec<Proof> {
    let link = |user| Proof::Link { user: text(user), token: OneTimeToken::new(secret) };
    let code = |last| Proof::Code { challenge: id(TokenId::from_bytes, last), code: OneTimeCode::new(secret) };
    vec![link(0), link(1), code(0), code(1)]
}

fn claimants() -> Vec<Claimant> {
    vec![
        Claimant::Address(text(0)),
        Claimant::Address(text(1)),
        Claimant::User { user: user(0), contact: None },
        Claimant::User { user: user(1), contact: None },
        Claimant::User { user: user(0), contact: Some(contact(0)) },
        Claimant::User { user: user(0), contact: Some(contact(1)) },
    ]
}

#[test]
fn registrations_show_what_tells_them_apart_and_no_secret() {
    let profile = |profile: fn(&mut Profile)| {
        let mut changed = Profile::default();
        profile(&mut changed);
        changed
    };
    check(|secret| {
        let base = || Register::new(secret);
        let mut messages = vec![
            base(),
            Register { username: Some(text(0)), ..base() },
            Register { username: Some(text(1)), ..base() },
            Register { email: Some(text(0)), ..base() },
            Register { phone: Some(text(0)), ..base() },
        ];
        let profiles: [fn(&mut Profile); 6] = [
            |profile| profile.display_name = Some(text(0)),
            |profile| profile.given_name = Some(text(0)),
            |profile| profile.family_name = Some(text(0)),
            |profile| profile.locale = Some(text(0)),
            |profile| profile.time_zone = Some(text(0)),
            |profile| profile.attributes = BTreeMap::from([(text(0), text(0).into())]),
        ];
        messages.extend(profiles.map(|change| Register { profile: profile(change), ..base() }));
        messages
    });
}

#[test]
fn imports_show_what_tells_them_apart_and_no_secret() {
    check(|secret| {
        let base = || Import::new(secret);
        let profile = Profile { display_name: Some(text(0)), ..Profile::default() };
        vec![
            base(),
            Import { username: Some(text(0)), ..base() },
            Import { email: Some(ImportedAddress::Proven(text(0))), ..base() },
            Import { email: Some(ImportedAddress::Claimed(text(0))), ..base() },
            Import { email: Some(ImportedAddress::Proven(text(1))), ..base() },
            Import { phone: Some(ImportedAddress::Proven(text(0))), ..base() },
            Import { profile, ..base() },
            Import { groups: Some(BTreeSet::new()), ..base() },
            Import { groups: Some(BTreeSet::from([text(0)])), ..base() },
        ]
    });
    let address = ImportedAddress::Proven(text(0));
    assert_eq!(format!("{address:?}"), "ImportedAddress { .. }");
}

#[test]
fn logins_and_passwords_show_what_tells_them_apart_and_no_secret() {
    check(|secret| [0, 1].map(|last| Authenticate { identifier: text(last), password: Password::new(secret) }).into());
    check(|secret| vec![LogOut { token: SessionToken::new(secret) }]);
    check(|secret| {
        let change = |user, keep| ChangePassword {
            user,
            current: Password::new(secret),
            new: Password::new(format!("{secret}-new")),
            keep,
        };
        vec![
            change(user(0), None),
            change(user(1), None),
            change(user(0), Some(session(0))),
            change(user(0), Some(session(1))),
        ]
    });
    check(|secret| {
        let reset = |proof| ResetPassword { proof, new: Password::new(secret) };
        proofs(secret).into_iter().map(reset).collect()
    });
    check(|_| {
        let request = |last, channel| RequestPasswordReset { identifier: text(last), channel };
        vec![request(0, Channel::Email), request(1, Channel::Email), request(0, Channel::Phone)]
    });
}

#[test]
fn verifications_show_what_tells_them_apart_and_no_secret() {
    check(|_| claimants().into_iter().map(|claimant| RequestEmailVerification { claimant }).collect());
    check(|_| claimants().into_iter().map(|claimant| RequestPhoneVerification { claimant }).collect());
    check(|secret| proofs(secret).into_iter().map(|proof| ConfirmEmail { proof }).collect());
    check(|secret| proofs(secret).into_iter().map(|proof| ConfirmPhone { proof }).collect());
    check(|secret| proofs(secret).into_iter().map(|proof| UndoChange { proof }).collect());
}

#[test]
fn changes_of_contacts_show_what_tells_them_apart_and_no_secret() {
    let pairs = || [(user(0), contact(0)), (user(1), contact(0)), (user(0), contact(1))];
    check(|secret| {
        let add = |user, address| AddContact { user, address, authority: password(secret) };
        let mut messages: Vec<_> = claims().map(|address| add(user(0), address)).into();
        messages.push(add(user(1), ContactClaim::Email(text(0))));
        messages
    });
    check(|secret| {
        let change = |user, contact, address| ChangeContact { user, contact, address, authority: password(secret) };
        let mut messages: Vec<_> = claims().map(|address| change(user(0), contact(0), address)).into();
        messages.push(change(user(1), contact(0), ContactClaim::Email(text(0))));
        messages.push(change(user(0), contact(1), ContactClaim::Email(text(0))));
        messages
    });
    check(|secret| {
        let authority = || Authority::RecentSession(SessionToken::new(secret));
        pairs().map(|(user, contact)| RemoveContact { user, contact, authority: authority() }).into()
    });
    check(|secret| pairs().map(|(user, contact)| MakePrimary { user, contact, authority: password(secret) }).into());
}

#[test]
fn changes_of_a_user_show_what_tells_them_apart() {
    let groups = |names: &[u8]| names.iter().map(|name| text(*name)).collect::<BTreeSet<_>>();
    check(|_| [0, 1].map(|last| Disable { user: user(last) }).into());
    check(|_| [0, 1].map(|last| Enable { user: user(last) }).into());
    check(|_| {
        vec![Delete::new(user(0)), Delete::new(user(1)), Delete { user: user(0), cause: DeletionCause::NeverVerified }]
    });
    check(|_| {
        let end = |user, which| EndSessions { user, which };
        let kinds = [
            SessionsToEnd::All,
            SessionsToEnd::One(session(0)),
            SessionsToEnd::One(session(1)),
            SessionsToEnd::AllExcept(session(0)),
        ];
        kinds.map(|which| end(user(0), which)).into_iter().chain([end(user(1), SessionsToEnd::All)]).collect()
    });
    check(|_| {
        let change = |user, join: &[u8], leave: &[u8]| ChangeGroups { user, join: groups(join), leave: groups(leave) };
        vec![
            change(user(0), &[], &[]),
            change(user(1), &[], &[]),
            change(user(0), &[1], &[]),
            change(user(0), &[], &[1]),
            change(user(0), &[1, 2], &[]),
        ]
    });
}

#[test]
fn updates_show_every_field_and_what_becomes_of_it() {
    let fields: [fn(&mut Update, Change<String>); 6] = [
        |update, change| update.username = change,
        |update, change| update.display_name = change,
        |update, change| update.given_name = change,
        |update, change| update.family_name = change,
        |update, change| update.locale = change,
        |update, change| update.time_zone = change,
    ];
    check(|_| {
        let mut messages =
            vec![Update::new(user(0)), Update::new(user(1)), Update { version: Some(1), ..Update::new(user(0)) }];
        for field in fields {
            for change in [Change::Clear, Change::Set(text(0)), Change::Set(text(1))] {
                let mut update = Update::new(user(0));
                field(&mut update, change);
                messages.push(update);
            }
        }
        for (name, change) in [(0, Change::Clear), (1, Change::Clear), (0, Change::Set(text(0).into()))] {
            let attributes = BTreeMap::from([(text(name), change)]);
            messages.push(Update { attributes, ..Update::new(user(0)) });
        }
        messages
    });
}

#[test]
fn what_messages_are_made_of_shows_nothing_either() {
    let shown =
        format!("{:?} {:?} {:?} {:?}", proofs("correct-horse"), password("correct-horse"), claims(), claimants());
    for hidden in [CANARY, "correct-horse"] {
        assert!(!shown.contains(hidden), "{shown}");
    }
}

#[test]
fn a_link_is_read_from_its_last_two_segments() {
    for link in [
        "https://example.com/accounts/password_reset_confirm/dXNlcg/mdt_x/",
        "https://example.com/accounts/change_undo_confirm/dXNlcg/mdt_x/",
        "dXNlcg/mdt_x",
        "/a/dXNlcg/mdt_x//",
    ] {
        let Some(Proof::Link { user, token }) = Proof::from_link(link) else { panic!("{link}") };
        assert_eq!((user.as_str(), token.expose()), ("dXNlcg", "mdt_x"));
    }
    for link in ["", "/", "mdt_x", "/mdt_x", "a//"] {
        assert!(Proof::from_link(link).is_none(), "{link}");
    }
}

#[test]
fn the_words_of_every_flow_are_distinct_and_stable() {
    fn check_words<R: Reason>(all: &[R]) {
        let words: BTreeSet<_> = all.iter().map(Reason::as_str).collect();
        assert!(!all.is_empty() && words.len() == all.len(), "{all:?}");
        for reason in all {
            let word = reason.as_str();
            assert!(word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{word}");
            assert_eq!(serde_json::to_value(reason).unwrap(), word);
            assert!(serde_json::from_value::<R>(word.into()).unwrap() == *reason);
            assert!(!reason.to_string().is_empty());
        }
    }
    check_words(AddContactReason::ALL);
    check_words(AuthenticateReason::ALL);
    check_words(ChangeContactReason::ALL);
    check_words(ChangeGroupsReason::ALL);
    check_words(ChangePasswordReason::ALL);
    check_words(ConfirmEmailReason::ALL);
    check_words(ConfirmPhoneReason::ALL);
    check_words(DeleteReason::ALL);
    check_words(DisableReason::ALL);
    check_words(EnableReason::ALL);
    check_words(EndSessionsReason::ALL);
    check_words(ImportReason::ALL);
    check_words(LogOutReason::ALL);
    check_words(MakePrimaryReason::ALL);
    check_words(RegisterReason::ALL);
    check_words(RemoveContactReason::ALL);
    check_words(RequestEmailVerificationReason::ALL);
    check_words(RequestPasswordResetReason::ALL);
    check_words(RequestPhoneVerificationReason::ALL);
    check_words(ResetPasswordReason::ALL);
    check_words(UndoChangeReason::ALL);
    check_words(UpdateReason::ALL);
}
