//! Update: profile, attributes or username change.

use majordomo_model::{
    Actor, Change, Changed, Error, Failure, InvalidIdentifier, LimitedAction, Profile, Signal, Timestamp, Update,
    UpdateReason, UserId, Username,
};

use super::authority::{Permit, gather};
use super::contacts::Terms;
use super::flow::{Answer, Decision, Fault, Perform, Run, Services, recall, remember};
use super::policy::{Policy, Requirement, seal_key};
use super::throttle::Counted;
use crate::guard::{Amendment, Proposal};
use crate::storage::{Check, Lookup, ReadError, ReadView, UniqueKey, UserRow, UsernameRow, Write};

/// What is asked for, parsed.
struct Request<'a> {
    message: &'a Update,
    username: Result<Change<Username>, InvalidIdentifier>,
}

impl<'a> Request<'a> {
    fn of(message: &'a Update) -> Self {
        let username = match &message.username {
            Change::Set(typed) => Username::parse(typed).map(Change::Set),
            Change::Keep => Ok(Change::Keep),
            Change::Clear => Ok(Change::Clear),
        };
        Self { message, username }
    }
}

/// What the store says.
#[derive(Clone, Debug, Default)]
struct Facts {
    user: Option<UserRow>,
    /// Who has the username that is asked for.
    username_owner: Option<UserId>,
    /// Who has a username that looks like it.
    skeleton_owner: Option<UserId>,
}

impl Facts {
    fn read(view: &ReadView, request: &Request<'_>) -> Result<Self, ReadError> {
        let user = view.user(request.message.user)?;
        let Ok(Change::Set(name)) = &request.username else { return Ok(Self { user, ..Self::default() }) };
        Ok(Self {
            user,
            username_owner: view.owner(&UniqueKey::username(name.canonical()))?,
            skeleton_owner: view.owner(&UniqueKey::skeleton(name.skeleton()))?,
        })
    }
}

/// Why an update is refused, with the fields concerned.
struct Refusal {
    reason: UpdateReason,
    failure: Failure,
    fields: Vec<&'static str>,
}

/// Whether whoever asks has to show that the username is theirs to change. Operators and the system need not: the app
/// vouches for them. Nobody known does, as a user would.
fn needs_permit(message: &Update, actor: &Actor) -> bool {
    message.username != Change::Keep && !matches!(actor, Actor::Admin(_) | Actor::System)
}

/// Facts in, batch out. There are terms where a permit is needed.
fn decide(
    request: &Request<'_>,
    facts: &Facts,
    (policy, terms): (&Policy, Option<&Terms<'_>>),
    amendment: &Amendment,
) -> Decision<Update> {
    let message = request.message;
    let Some(before) = &facts.user else {
        return Decision::refuse(UpdateReason::UserNotFound, failed(message, Failure::UserNotFound, named(message)));
    };
    let Some(terms) = terms else { return decide_permitted(request, facts, before, (policy, amendment)) };
    let denied = UpdateReason::NotAuthorised;
    let decision = match terms.admit(before, denied, denied) {
        Ok(()) => decide_permitted(request, facts, before, (policy, amendment)),
        Err((reason, failure)) => Decision::refuse(reason, failed(message, failure, vec!["username"])),
    };
    terms.complete(decision, before)
}

fn decide_permitted(
    request: &Request<'_>,
    facts: &Facts,
    before: &UserRow,
    terms: (&Policy, &Amendment),
) -> Decision<Update> {
    let message = request.message;
    match change(request, facts, before, terms) {
        Ok(after) => updated(facts, before, after),
        Err(Refusal { reason, failure, fields }) => {
            Decision::refuse(reason, failed(message, failure, fields)).about(before.id, seal_key(before))
        }
    }
}

/// The user as they would be.
fn change(
    request: &Request<'_>,
    facts: &Facts,
    before: &UserRow,
    terms: (&Policy, &Amendment),
) -> Result<UserRow, Refusal> {
    let (policy, amendment) = terms;
    let message = request.message;
    let refuse = |reason, failure, fields| Err(Refusal { reason, failure, fields });
    if message.version.is_some_and(|version| version != before.version) {
        return refuse(UpdateReason::VersionConflict, Failure::VersionConflict, named(message));
    }
    let username = match rename(request, facts, before, policy) {
        Ok(username) => username,
        Err((reason, failure)) => return refuse(reason, failure, vec!["username"]),
    };
    let profile = amendment.profile(&change_profile(message, &before.profile));
    let faults = profile.faults();
    if !faults.is_empty() {
        return refuse(UpdateReason::ProfileInvalid, Failure::ProfileInvalid, faults);
    }
    let after = UserRow { username, profile, version: before.version.saturating_add(1), ..before.clone() };
    if changed(before, &after).is_empty() {
        return refuse(UpdateReason::NothingToDo, Failure::NothingToDo, named(message));
    }
    Ok(after)
}

/// The username that the user would have.
fn rename(
    request: &Request<'_>,
    facts: &Facts,
    before: &UserRow,
    policy: &Policy,
) -> Result<Option<UsernameRow>, (UpdateReason, Failure)> {
    let others = |owner: Option<UserId>| owner.is_some_and(|owner| owner != before.id);
    let is_own = |name: &Username| before.username.as_ref().is_some_and(|own| own.canonical == name.canonical());
    match &request.username {
        Ok(Change::Keep) => Ok(before.username.clone()),
        // Without a proven address, the username is all that the user can sign in with.
        Ok(Change::Clear)
            if before.username.is_some() && (policy.username == Requirement::Required || !before.is_verified()) =>
        {
            Err((UpdateReason::UsernameRequired, Failure::UsernameRequired))
        }
        Ok(Change::Clear) => Ok(None),
        _ if policy.username == Requirement::Forbidden => {
            Err((UpdateReason::IdentifierNotAllowed, Failure::IdentifierNotAllowed))
        }
        Err(_) => Err((UpdateReason::UsernameInvalid, Failure::UsernameInvalid)),
        Ok(Change::Set(username)) if policy.reserved_usernames.hold(username) && !is_own(username) => {
            Err((UpdateReason::UsernameReserved, Failure::UsernameReserved))
        }
        Ok(Change::Set(_)) if others(facts.username_owner) || others(facts.skeleton_owner) => {
            Err((UpdateReason::UsernameTaken, Failure::UsernameTaken))
        }
        Ok(Change::Set(username)) => Ok(Some(UsernameRow::from(username))),
    }
}

fn change_profile(message: &Update, before: &Profile) -> Profile {
    let mut profile = before.clone();
    for (field, change) in [
        (&mut profile.display_name, &message.display_name),
        (&mut profile.given_name, &message.given_name),
        (&mut profile.family_name, &message.family_name),
        (&mut profile.locale, &message.locale),
        (&mut profile.time_zone, &message.time_zone),
    ] {
        match change {
            Change::Keep => {}
            Change::Set(text) => *field = Some(text.clone()),
            Change::Clear => *field = None,
        }
    }
    for (name, change) in &message.attributes {
        match change {
            Change::Keep => {}
            Change::Set(value) => {
                profile.attributes.insert(name.clone(), value.clone());
            }
            Change::Clear => {
                profile.attributes.remove(name);
            }
        }
    }
    profile
}

fn updated(facts: &Facts, before: &UserRow, after: UserRow) -> Decision<Update> {
    let mut checks = vec![Check::UserVersion(before.id, before.version)];
    let mut writes = vec![Write::PutUser(Box::new(after.clone()))];
    if before.username != after.username {
        writes.extend(before.username.iter().flat_map(unique_keys).map(Write::RemoveOwner));
        let owners = [facts.username_owner, facts.skeleton_owner];
        for (key, owner) in after.username.iter().flat_map(unique_keys).zip(owners) {
            checks.push(Check::Owner(key.clone(), owner));
            writes.push(Write::PutOwner(key, after.id));
        }
    }
    let (user, version) = (after.id, after.version);
    Decision {
        checks,
        writes,
        told: Vec::new(),
        end: Signal::UserUpdated { user, version, fields: owned(changed(before, &after)) },
        subject: Some((user, seal_key(before))),
        answer: Ok(Changed { version }),
    }
}

/// What must be unique about a username.
fn unique_keys(username: &UsernameRow) -> [UniqueKey; 2] {
    [UniqueKey::username(&username.canonical), UniqueKey::skeleton(&username.skeleton)]
}

/// The fields that differ, sorted.
fn changed(before: &UserRow, after: &UserRow) -> Vec<&'static str> {
    let (old, new) = (&before.profile, &after.profile);
    let differ = [
        ("attributes", old.attributes != new.attributes),
        ("display_name", old.display_name != new.display_name),
        ("family_name", old.family_name != new.family_name),
        ("given_name", old.given_name != new.given_name),
        ("locale", old.locale != new.locale),
        ("time_zone", old.time_zone != new.time_zone),
        ("username", before.username != after.username),
    ];
    differ.into_iter().filter_map(|(name, differs)| differs.then_some(name)).collect()
}

/// The fields that a message is about, sorted. Attributes go by one name: theirs are not checked yet.
fn named(message: &Update) -> Vec<&'static str> {
    let about = |change: &Change<String>| *change != Change::Keep;
    let named = [
        ("attributes", message.attributes.values().any(|change| *change != Change::Keep)),
        ("display_name", about(&message.display_name)),
        ("family_name", about(&message.family_name)),
        ("given_name", about(&message.given_name)),
        ("locale", about(&message.locale)),
        ("time_zone", about(&message.time_zone)),
        ("username", about(&message.username)),
    ];
    named.into_iter().filter_map(|(name, about)| about.then_some(name)).collect()
}

fn owned(fields: Vec<&str>) -> Vec<String> {
    fields.into_iter().map(str::to_owned).collect()
}

fn failed(message: &Update, reason: Failure, fields: Vec<&str>) -> Signal {
    let (user, error_type) = (message.user, reason.error_type());
    Signal::UserUpdateFailed { user, fields: owned(fields), error_type, reason }
}

impl Perform for Update {
    fn started(&self, _services: &Services) -> Signal {
        Signal::UserUpdateStarted { user: self.user, fields: owned(named(self)) }
    }

    fn failed(&self, _services: &Services, why: Failure) -> Signal {
        failed(self, why, named(self))
    }

    fn proposal(&self, decision: &Decision<Self>) -> Option<Proposal> {
        let after = decision.user_after()?;
        let username = match (&self.username, &after.username) {
            (Change::Keep, _) => Change::Keep,
            (_, Some(username)) => Change::Set(username.word()),
            (_, None) => Change::Clear,
        };
        Some(Proposal::Update { username, profile: Box::new(after.profile.clone()) })
    }

    fn counted(&self) -> Vec<Counted<'_>> {
        if self.username == Change::Keep {
            return Vec::new();
        }
        // A name that is taken is told, as at a registration.
        let then = Some(LimitedAction::Register);
        let authority = self.authority.as_ref();
        let guessed = authority.map(|authority| Counted::by_authority(self.user, authority, then));
        guessed.unwrap_or_else(|| vec![Counted::of(LimitedAction::Register)])
    }

    fn counts(action: LimitedAction, answer: &Answer<Self>) -> bool {
        match action {
            LimitedAction::Register => matches!(answer, Err(Error::Refused(UpdateReason::UsernameTaken))),
            _ => matches!(answer, Err(Error::Refused(UpdateReason::NotAuthorised))),
        }
    }

    async fn perform(&self, run: &Run<'_, Self>) -> Result<Answer<Self>, Fault> {
        let Services { policy, keys, .. } = run.services;
        let permit = match &self.authority {
            _ if !needs_permit(self, &run.command.actor) => None,
            Some(authority) => Some(gather(run, self.user, authority).await?),
            None => Some(Permit::Session(None)),
        };
        let request = Request::of(self);
        let decide = |view: &ReadView, now: Timestamp, amendment: &Amendment| {
            let permit = permit.as_ref().map(|permit| permit.anew(view)).transpose()?;
            let terms = permit.as_ref().map(|permit| Terms { permit, policy, keys, now });
            Ok(decide(&request, &Facts::read(view, &request)?, (policy, terms.as_ref()), amendment))
        };
        run.settle_amended(decide).await
    }

    fn remember(answer: &Result<Changed, UpdateReason>) -> Vec<u8> {
        remember(answer)
    }

    fn recall(remembered: &[u8]) -> Option<Result<Changed, UpdateReason>> {
        recall(remembered)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use majordomo_model::{Authority, Error, Password, Reason, Register, RegisterReason, ReservedNames, SignalKind};
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::super::fixture::{
        Fixture, OTHER_PASSWORD, PASSWORD, assert_well_formed, authority, recent_session, user_row,
    };
    use super::*;
    use crate::keys::Keyring;

    fn permitted(user: UserId) -> Update {
        Update { authority: Some(authority()), ..Update::new(user) }
    }

    fn named_anew(user: UserId, name: &str) -> Update {
        Update { username: Change::Set(name.to_owned()), ..permitted(user) }
    }

    fn attribute(user: UserId, name: &str, value: Change<Value>) -> Update {
        Update { attributes: BTreeMap::from([(name.to_owned(), value)]), ..Update::new(user) }
    }

    async fn refused(fixture: &Fixture, update: Update) -> (UpdateReason, Vec<String>) {
        let (head, commits) = (fixture.head(), fixture.services.storage.observe().batches);
        let Err(Error::Refused(reason)) = fixture.run(update).await else { panic!("not refused") };
        let mut kinds = fixture.kinds_after(head);
        kinds.retain(|kind| *kind != SignalKind::UserPasswordChecked);
        assert_eq!(kinds, [SignalKind::UserUpdateStarted, SignalKind::UserUpdateFailed]);
        assert_eq!(fixture.services.storage.observe().batches - commits, 1);
        let Signal::UserUpdateFailed { fields, reason: told, error_type, .. } = fixture.last_signal() else { panic!() };
        assert_eq!((told.as_str(), error_type), (reason.as_str(), told.error_type()));
        (reason, fields)
    }

    #[tokio::test]
    async fn the_named_fields_change_and_no_other() {
        let fixture = Fixture::new().await;
        let user = fixture.register("ada", None, None).await.user;
        let (head, commits) = (fixture.head(), fixture.services.storage.observe().batches);
        let update = Update {
            display_name: Change::Set("Ada".to_owned()),
            locale: Change::Set("de-AT".to_owned()),
            given_name: Change::Clear,
            ..attribute(user, "theme", Change::Set(json!({ "dark": true })))
        };
        assert_eq!(fixture.run(update).await.unwrap(), Changed { version: 2 });
        assert_eq!(fixture.services.storage.observe().batches - commits, 1);
        assert_eq!(fixture.kinds_after(head), [SignalKind::UserUpdateStarted, SignalKind::UserUpdated]);
        let fields = ["attributes", "display_name", "locale"].map(str::to_owned).to_vec();
        assert_eq!(fixture.last_signal(), Signal::UserUpdated { user, version: 2, fields });
        let Signal::UserUpdateStarted { fields, .. } = &fixture.signals()[usize::try_from(head).unwrap()].signal else {
            panic!()
        };
        assert_eq!(fields, &["attributes", "display_name", "given_name", "locale"]);
        let row = fixture.user(user);
        assert_eq!((row.profile.display_name.as_deref(), row.profile.given_name.as_deref()), (Some("Ada"), None));
        assert_eq!(row.profile.attributes["theme"], json!({ "dark": true }));
        let cleared = fixture.run(attribute(user, "theme", Change::Clear)).await.unwrap();
        assert_eq!((cleared.version, fixture.user(user).profile.attributes.len()), (3, 0));
    }

    #[tokio::test]
    async fn refusals_are_told_by_name_and_change_nothing() {
        let fixture = Fixture::new().await;
        let user = fixture.register("ada", None, None).await.user;
        fixture.register("paypal", None, None).await;
        let all = |fields: &[&str]| owned(fields.to_vec());
        let long = Change::Set("x".repeat(257));
        for (update, reason, fields) in [
            (named_anew(UserId::new(), "eve"), UpdateReason::UserNotFound, all(&["username"])),
            (Update { version: Some(2), ..named_anew(user, "eve") }, UpdateReason::VersionConflict, all(&["username"])),
            (named_anew(user, "a b"), UpdateReason::UsernameInvalid, all(&["username"])),
            (named_anew(user, "PayPal"), UpdateReason::UsernameTaken, all(&["username"])),
            (named_anew(user, "p\u{430}ypal"), UpdateReason::UsernameTaken, all(&["username"])),
            (Update { username: Change::Clear, ..permitted(user) }, UpdateReason::UsernameRequired, all(&["username"])),
            (
                Update { family_name: long, locale: Change::Set("de".into()), ..Update::new(user) },
                UpdateReason::ProfileInvalid,
                all(&["family_name"]),
            ),
            (attribute(user, "no spaces", Change::Set(json!(1))), UpdateReason::ProfileInvalid, all(&["attributes"])),
            (Update::new(user), UpdateReason::NothingToDo, all(&[])),
            (attribute(user, "absent", Change::Clear), UpdateReason::NothingToDo, all(&["attributes"])),
            (named_anew(user, "ada"), UpdateReason::NothingToDo, all(&["username"])),
        ] {
            let before = fixture.user(user);
            assert_eq!(refused(&fixture, update).await, (reason, fields));
            assert!(fixture.user(user) == before, "{reason:?}");
        }
    }

    /// The user's own name is theirs alone to change; what else there is of the profile needs no proof (ASVS 7.5.1).
    #[tokio::test]
    async fn a_rename_needs_the_password_or_a_recent_session_unless_an_operator_asks() {
        let fixture = Fixture::new().await;
        let user = fixture.register("ada", None, None).await.user;
        let rename = |name: &str, authority| Update { authority, ..named_anew(user, name) };
        let wrong = Authority::Password(Password::new(OTHER_PASSWORD));
        for authority in [None, Some(wrong)] {
            let refused = fixture.run(rename("eve", authority)).await.unwrap_err();
            assert_eq!(refused, Error::Refused(UpdateReason::NotAuthorised));
        }
        let subject = super::super::lock::subject_of(&fixture.services.keys, user);
        let failures = fixture.services.reader.snapshot(|view| view.attempts(&subject)).unwrap();
        assert!(failures.is_some_and(|failures| failures.failures == 1), "a guess is a guess");
        for actor in [Actor::User(user), Actor::Anonymous] {
            assert!(needs_permit(&rename("eve", None), &actor), "{actor:?}");
        }
        for actor in [Actor::Admin("help desk".to_owned()), Actor::System] {
            assert!(!needs_permit(&rename("eve", None), &actor), "{actor:?}");
        }
        assert!(!needs_permit(&attribute(user, "theme", Change::Clear), &Actor::User(user)));

        let session = fixture.session("ada").await.token;
        fixture.run(rename("countess", Some(Authority::RecentSession(session)))).await.unwrap();
        let session = fixture.session("countess").await.token;
        fixture.pass(fixture.services.policy.session_recent);
        let refused = fixture.run(rename("eve", Some(Authority::RecentSession(session)))).await.unwrap_err();
        assert_eq!(refused, Error::Refused(UpdateReason::NotAuthorised));
        fixture.run(rename("eve", Some(authority()))).await.unwrap();
    }

    #[tokio::test]
    async fn who_has_a_name_that_is_reserved_later_keeps_it_and_may_spell_it_anew() {
        let mut fixture = Fixture::new().await;
        let user = fixture.register("majordomo", None, None).await.user;
        fixture.services.policy.reserved_usernames = ReservedNames::none().and(["majordomo"]);
        fixture.run(named_anew(user, "MajorDomo")).await.unwrap();
        fixture.sign_in("majordomo").await.unwrap();
        let (reason, fields) = refused(&fixture, named_anew(user, "maj\u{43e}rdomo")).await;
        assert_eq!((reason, fields), (UpdateReason::UsernameReserved, owned(vec!["username"])));
        fixture.run(named_anew(user, "ada")).await.unwrap();
        assert_eq!(refused(&fixture, named_anew(user, "majordomo")).await.0, UpdateReason::UsernameReserved);
    }

    #[tokio::test]
    async fn a_rename_frees_the_old_name_and_its_lookalikes() {
        let fixture = Fixture::new().await;
        let user = fixture.register("paypal", None, None).await.user;
        for own in ["PayPal", "p\u{430}ypal", "paypal", "ada"] {
            fixture.run(named_anew(user, own)).await.unwrap();
            assert_eq!(fixture.user(user).username.unwrap().original, own);
            fixture.session(own).await;
        }
        fixture.sign_in("paypal").await.unwrap_err();
        fixture.register("p\u{430}ypal", None, None).await;
        let taken = Register { username: Some("ADA".to_owned()), ..Register::new(PASSWORD) };
        assert_eq!(fixture.run(taken).await.unwrap_err(), Error::Refused(RegisterReason::UsernameTaken));
    }

    #[tokio::test]
    async fn a_username_goes_only_where_a_proven_address_stays() {
        let fixture = Fixture::new().await;
        let user = fixture.register("ada", Some("ada@example.com"), None).await.user;
        let clear = || Update { username: Change::Clear, ..permitted(user) };
        assert_eq!(refused(&fixture, clear()).await.0, UpdateReason::UsernameRequired);
        fixture.prove(user, "ada@example.com").await;
        fixture.run(clear()).await.unwrap();
        fixture.session("ada@example.com").await;
        fixture.sign_in("ada").await.unwrap_err();
        fixture.register("ada", None, None).await;
    }

    #[tokio::test]
    async fn policy_requires_or_forbids_usernames() {
        for (username, update, reason) in [
            (Requirement::Required, Change::Clear, UpdateReason::UsernameRequired),
            (Requirement::Forbidden, Change::Set("eve".to_owned()), UpdateReason::IdentifierNotAllowed),
            (Requirement::Forbidden, Change::Set("a b".to_owned()), UpdateReason::IdentifierNotAllowed),
        ] {
            let mut fixture = Fixture::new().await;
            let user = fixture.register("ada", Some("ada@example.com"), None).await.user;
            fixture.prove(user, "ada@example.com").await;
            fixture.services.policy.username = username;
            assert_eq!(refused(&fixture, Update { username: update, ..permitted(user) }).await.0, reason);
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn two_hundred_updates_at_once_all_count() {
        let fixture = Arc::new(Fixture::new().await);
        let user = fixture.register("ada", None, None).await.user;
        let updates = (0..200).map(|number| {
            let fixture = Arc::clone(&fixture);
            let update = attribute(user, &format!("a{number}"), Change::Set(json!(number)));
            tokio::spawn(async move { fixture.run(update).await })
        });
        for update in updates.collect::<Vec<_>>() {
            update.await.unwrap().unwrap();
        }
        let row = fixture.user(user);
        assert_eq!((row.version, row.profile.attributes.len()), (201, 200));
    }

    fn won<T, R: Reason>(answer: Result<T, Error<R>>) -> bool {
        answer.map_err(|error| assert_eq!(error.as_str(), "username_taken")).is_ok()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn of_two_hundred_who_want_one_name_one_gets_it() {
        let fixture = Arc::new(Fixture::new().await);
        let mut wanted = Vec::new();
        for number in 0..100 {
            let user = fixture.register(&format!("user-{number}"), None, None).await.user;
            let spelling = ["paypal", "PAYPAL", "p\u{430}ypal", "pa\u{443}pal", "ＰａｙＰａｌ"][number % 5];
            let (renamer, newcomer) = (Arc::clone(&fixture), Arc::clone(&fixture));
            wanted.push(tokio::spawn(async move { won(renamer.run(named_anew(user, spelling)).await) }));
            let register = Register { username: Some(spelling.to_owned()), ..Register::new(PASSWORD) };
            wanted.push(tokio::spawn(async move { won(newcomer.run(register).await) }));
        }
        let mut winners = 0;
        for wanted in wanted {
            winners += usize::from(wanted.await.unwrap());
        }
        assert_eq!(winners, 1);
    }

    fn change_of(name: &'static str) -> impl Strategy<Value = Change<String>> {
        prop_oneof![
            Just(Change::Keep),
            Just(Change::Clear),
            Just(Change::Set(name.to_owned())),
            ".{0,300}".prop_map(Change::Set)
        ]
    }

    proptest! {
        #[test]
        fn whatever_the_facts_it_ends_once(
            (found, proven) in any::<(bool, bool)>(),
            (asked_by_user, permitted) in any::<(bool, bool)>(),
            version in proptest::option::of(6_u64..9),
            username in change_of("ada"),
            display_name in change_of("Ada"),
            attribute_name in "[a-z ]{0,3}",
            owners in (0_usize..3, 0_usize..3),
            requirement in 0_usize..3,
        ) {
            let user = user_row("ada", proven.then_some("ada@example.com"));
            let owner = |which: usize| [None, Some(user.id), Some(UserId::new())][which];
            let message = Update {
                version,
                username,
                display_name,
                ..attribute(user.id, &attribute_name, Change::Set(json!(1)))
            };
            let facts = Facts {
                username_owner: owner(owners.0),
                skeleton_owner: owner(owners.1),
                user: found.then_some(user.clone()),
            };
            let requirement = [Requirement::Required, Requirement::Optional, Requirement::Forbidden][requirement];
            let policy = Policy { username: requirement, ..Policy::default() };
            let keys = Keyring::ephemeral().unwrap();
            let permit = if permitted { recent_session(&user, user.created_at) } else { Permit::Session(None) };
            let terms = Terms { permit: &permit, policy: &policy, keys: &keys, now: user.created_at };
            let terms = asked_by_user.then_some(&terms);
            let decision = decide(&Request::of(&message), &facts, (&policy, terms), &Amendment::new());
            assert_well_formed(&decision);
            prop_assert_eq!(decision.answer.is_ok(), decision.end.kind() == SignalKind::UserUpdated);
            prop_assert_eq!(decision.answer.is_ok(), !decision.writes.is_empty());
            prop_assert!(permitted || !asked_by_user || decision.answer.is_err());
        }
    }
}
