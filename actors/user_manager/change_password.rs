//! Change password: a new password, the old one being known (ASVS 6.2.2, 6.2.3).

use majordomo_model::{
    ChangeKind, ChangePassword, ChangePasswordReason, Error, Failure, LimitedAction, PasswordCause, PasswordReplaced,
    RevocationCause, Signal, Timestamp, UserId, UserStatus,
};

use super::authority::{Compared, compare, count_failure, forget_failures};
use super::epoch::Bound;
use super::flow::{Answer, Decision, Fault, Perform, Run, Services, Told, recall, remember};
use super::new_password::{Offer, Unusable};
use super::policy::{Policy, password_failure, password_reason, seal_key};
use super::throttle::{Counted, Subject};
use super::undo::{Undo, told_first};
use crate::keys::Keyring;
use crate::storage::{ChangeRow, Check, Lookup, ReadError, ReadView, StoredCredential, UserRow};

/// What is known about the attempt, whatever the store says when it is decided.
struct Attempt<'a> {
    message: &'a ChangePassword,
    compared: Compared,
    offer: Offer<'a>,
    undo: Undo<'a>,
}

/// What the store says.
struct Facts {
    user: Option<UserRow>,
    credential: Option<StoredCredential>,
    bound: Bound,
    /// The user's changes that can be undone.
    changes: Vec<ChangeRow>,
    now: Timestamp,
}

impl Facts {
    fn read(view: &ReadView, user: UserId, now: Timestamp) -> Result<Self, ReadError> {
        let (row, credential) = (view.user(user)?, view.credential(user)?);
        Ok(Self { user: row, credential, bound: Bound::read(view, user)?, changes: view.changes_of(user)?, now })
    }
}

/// Facts in, batch out.
fn decide(attempt: &Attempt<'_>, facts: &Facts, keys: &Keyring, policy: &Policy) -> Decision<ChangePassword> {
    let Some(user) = &facts.user else {
        let end = failed(attempt.message.user, Failure::UserNotFound);
        return Decision::refuse(ChangePasswordReason::UserNotFound, end);
    };
    let Attempt { compared, offer, .. } = attempt;
    if let Some(error) = compared.error() {
        return undone(attempt, user, Fault::from(error), None);
    }
    if !compared.is_right_for(user) {
        let mut refusal = refused(attempt, user, ChangePasswordReason::IncorrectPassword, compared.failure());
        refusal.writes.push(count_failure(keys, user, facts.now, policy));
        return refusal;
    }
    if user.status != UserStatus::Active {
        return refused(attempt, user, ChangePasswordReason::UserInactive, Failure::UserInactive);
    }
    match offer.phc(user, policy) {
        Ok(phc) => changed(attempt, user, phc, facts, (keys, policy)),
        Err(Unusable::Unfit(problem)) => {
            refused(attempt, user, password_reason!(ChangePasswordReason, problem), password_failure(problem))
        }
        Err(Unusable::Unhashed(error)) => {
            let fault = Fault::from(error);
            let set_failed = Signal::UserPasswordSetFailed { user: Some(user.id), reason: fault.failure() };
            undone(attempt, user, fault, Some(set_failed))
        }
        // The password was right all along, so the user was disabled when it was compared.
        Err(Unusable::Unpermitted) => refused(attempt, user, ChangePasswordReason::UserInactive, Failure::UserInactive),
    }
}

fn changed(
    attempt: &Attempt<'_>,
    user: &UserRow,
    phc: &str,
    facts: &Facts,
    (keys, policy): (&Keyring, &Policy),
) -> Decision<ChangePassword> {
    let (keep, now) = (attempt.message.keep, facts.now);
    let ending = facts.bound.end(user, keep, RevocationCause::PasswordChange, now, policy);
    let ending = ending.with_password(facts.credential.as_ref(), phc, PasswordCause::Change, now);
    let (mut writes, sessions_revoked) = (ending.writes, ending.sessions_revoked);
    writes.push(forget_failures(keys, user.id));
    let kind = ChangeKind::PasswordChanged;
    let undo = attempt.undo.record(user, kind, told_first(user), &facts.changes, now);
    writes.extend(undo.writes);
    Decision {
        checks: ending.checks,
        writes,
        told: attempt.compared.told(user).into_iter().map(Told::from).chain(ending.told).collect(),
        end: Signal::PasswordChanged { user: user.id, sessions_revoked, undo: undo.token },
        subject: Some((user.id, seal_key(user))),
        answer: Ok(PasswordReplaced { user: user.id, sessions_revoked }),
    }
}

/// A refusal, after what the comparison showed.
fn refused(
    attempt: &Attempt<'_>,
    user: &UserRow,
    answer: ChangePasswordReason,
    reason: Failure,
) -> Decision<ChangePassword> {
    Decision {
        checks: vec![Check::Epoch(user.id, user.epoch)],
        writes: Vec::new(),
        told: attempt.compared.told(user).into_iter().map(Told::from).collect(),
        end: failed(user.id, reason),
        subject: Some((user.id, seal_key(user))),
        answer: Err(Error::Refused(answer)),
    }
}

/// The hasher failed: nothing was decided about the password.
fn undone(attempt: &Attempt<'_>, user: &UserRow, fault: Fault, told: Option<Signal>) -> Decision<ChangePassword> {
    let mut decision = refused(attempt, user, ChangePasswordReason::IncorrectPassword, fault.failure());
    decision.told.extend(told.map(Told::from));
    Decision { answer: Err(fault.error()), ..decision }
}

fn failed(user: UserId, reason: Failure) -> Signal {
    Signal::PasswordChangeFailed { user, error_type: reason.error_type(), reason }
}

impl Perform for ChangePassword {
    fn started(&self, _services: &Services) -> Signal {
        Signal::PasswordChangeStarted { user: self.user }
    }

    fn failed(&self, _services: &Services, why: Failure) -> Signal {
        failed(self.user, why)
    }

    fn counted(&self) -> Vec<Counted<'_>> {
        vec![Counted::login(Subject::User(self.user))]
    }

    fn counts(_action: LimitedAction, answer: &Answer<Self>) -> bool {
        matches!(answer, Err(Error::Refused(ChangePasswordReason::IncorrectPassword)))
    }

    async fn perform(&self, run: &Run<'_, Self>) -> Result<Answer<Self>, Fault> {
        let Services { keys, policy, tokens, .. } = run.services;
        let compared = compare(run, self.user, &self.current).await?;
        let owner = compared.matched().filter(|user| user.status == UserStatus::Active);
        let offer = Offer::hash(run, &self.new, owner).await;
        let attempt = Attempt { message: self, offer, compared, undo: Undo::draw(tokens.current_key(), policy) };
        run.settle(|view, now| Ok(decide(&attempt, &Facts::read(view, self.user, now)?, keys, policy))).await
    }

    fn remember(answer: &Result<PasswordReplaced, ChangePasswordReason>) -> Vec<u8> {
        remember(answer)
    }

    fn recall(remembered: &[u8]) -> Option<Result<PasswordReplaced, ChangePasswordReason>> {
        recall(remembered)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use majordomo_model::{Disable, Password, PasswordProblem, SessionId, SignalKind};
    use proptest::prelude::*;

    use super::super::fixture::{Fixture, NOW, OTHER_PASSWORD, PASSWORD, any_sessions, any_user, assert_one_end};
    use super::super::session::check;
    use super::*;
    use crate::hasher::{HashError, Verified};

    fn change(user: UserId, current: &str, new: &str, keep: Option<SessionId>) -> ChangePassword {
        ChangePassword { user, current: Password::new(current), new: Password::new(new), keep }
    }

    #[tokio::test]
    async fn a_change_tells_its_story_in_one_commit_and_spares_the_session_it_is_made_in() {
        let fixture = Fixture::new().await;
        let user = fixture.register_proven("ada", Some("ada@example.com"), None).await;
        let (kept, other) = (fixture.session("ada").await, fixture.session("ada").await);
        let token = fixture.reset_token("ada").await;
        let (head, commits) = (fixture.head(), fixture.services.storage.observe().batches);
        let jobs = fixture.services.hasher.observe().jobs_done;
        let message = change(user, PASSWORD, OTHER_PASSWORD, Some(kept.session));
        assert_eq!(fixture.run(message).await.unwrap(), PasswordReplaced { user, sessions_revoked: 1 });
        assert_eq!(fixture.services.storage.observe().batches - commits, 1);
        assert_eq!(fixture.services.hasher.observe().jobs_done - jobs, 2);
        assert_eq!(
            fixture.kinds_after(head),
            [
                SignalKind::PasswordChangeStarted,
                SignalKind::UserPasswordChecked,
                SignalKind::UserPasswordSet,
                SignalKind::SessionRevoked,
                SignalKind::PasswordChanged
            ]
        );
        assert_eq!(check(&fixture.services, &kept.token).unwrap().unwrap().0.id, kept.session);
        assert_eq!(check(&fixture.services, &other.token).unwrap(), None);
        assert!(fixture.services.reader.token(token).unwrap().unwrap().end.is_some());
        assert!(fixture.sign_in("ada").await.is_err());
        fixture.sign_in_with("ada", OTHER_PASSWORD).await.unwrap();
    }

    #[tokio::test]
    async fn a_dead_session_is_not_revived_by_keeping_it() {
        let fixture = Fixture::new().await;
        let user = fixture.register_proven("ada", None, None).await;
        let idle = fixture.session("ada").await;
        fixture.pass(fixture.services.policy.session_idle);
        fixture.run(change(user, PASSWORD, OTHER_PASSWORD, Some(idle.session))).await.unwrap();
        assert_eq!(check(&fixture.services, &idle.token).unwrap(), None);
        assert!(fixture.services.reader.sessions_of(user).unwrap().is_empty());
    }

    #[tokio::test]
    async fn each_refusal_has_its_reason_and_a_wrong_password_is_counted() {
        let fixture = Fixture::new().await;
        let user = fixture.register_proven("ada", Some("ada@example.com"), None).await;
        let disabled = fixture.register_proven("grace", None, None).await;
        fixture.run(Disable { user: disabled }).await.unwrap();
        let passwordless = fixture.register_proven("edsger", None, None).await;
        let row = crate::storage::CredentialRow::new("!", 2, NOW);
        fixture.write(Vec::new(), vec![crate::storage::Write::PutCredential(passwordless, row)]).await;
        let (started, failed) = (SignalKind::PasswordChangeStarted, SignalKind::PasswordChangeFailed);
        let checked = vec![started, SignalKind::UserPasswordChecked, failed];
        let malformed = vec![started, SignalKind::UserPasswordCheckFailed, failed];
        for (user, current, new, reason, failure, kinds) in [
            (UserId::new(), PASSWORD, OTHER_PASSWORD, "user_not_found", Failure::UserNotFound, vec![started, failed]),
            (user, "wrong", OTHER_PASSWORD, "incorrect_password", Failure::IncorrectPassword, checked.clone()),
            (user, "wrong", "short", "incorrect_password", Failure::IncorrectPassword, checked.clone()),
            (passwordless, PASSWORD, OTHER_PASSWORD, "incorrect_password", Failure::MalformedHash, malformed),
            (disabled, PASSWORD, OTHER_PASSWORD, "user_inactive", Failure::UserInactive, checked.clone()),
            (user, PASSWORD, "short", "password_too_short", Failure::PasswordTooShort, checked),
        ] {
            let (head, jobs) = (fixture.head(), fixture.services.hasher.observe().jobs_done);
            let Error::Refused(refused) = fixture.run(change(user, current, new, None)).await.unwrap_err() else {
                panic!("{reason}");
            };
            assert_eq!(refused.as_str(), reason);
            assert_eq!(fixture.services.hasher.observe().jobs_done - jobs, 1, "{reason}");
            assert_eq!(fixture.kinds_after(head), kinds, "{reason}");
            let Signal::PasswordChangeFailed { reason: told, .. } = fixture.last_signal() else { panic!() };
            assert_eq!(told, failure);
        }
        let subject = super::super::lock::subject_of(&fixture.services.keys, user);
        let counted = fixture.services.reader.snapshot(|view| view.attempts(&subject)).unwrap().unwrap();
        assert_eq!(counted.failures, 2);
        fixture.sign_in_with("ada", "wrong").await.unwrap_err();
        let counted = fixture.services.reader.snapshot(|view| view.attempts(&subject)).unwrap().unwrap();
        assert_eq!(counted.failures, 3, "a wrong login counts in the same place");
    }

    #[tokio::test]
    async fn a_failing_hasher_is_told_and_nothing_is_counted() {
        let fixture = Fixture::new().await;
        let user = fixture.register_proven("ada", None, None).await;
        let head = fixture.head();
        fixture.services.hasher.fail_next(1);
        let failed = fixture.run(change(user, PASSWORD, OTHER_PASSWORD, None)).await.unwrap_err();
        assert_eq!(failed, Error::Unexpected);
        assert_eq!(
            fixture.kinds_after(head),
            [SignalKind::PasswordChangeStarted, SignalKind::UserPasswordCheckFailed, SignalKind::PasswordChangeFailed]
        );
        let subject = fixture.services.keys.identifier_hash("username", "ada");
        assert_eq!(fixture.services.reader.snapshot(|view| view.attempts(&subject)).unwrap(), None);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn of_many_changes_at_once_one_wins_and_no_login_by_the_old_password_survives() {
        let fixture = Arc::new(Fixture::new().await);
        let user = fixture.register_proven("ada", None, None).await;
        let changes = (0..20).map(|number| {
            let fixture = Arc::clone(&fixture);
            tokio::spawn(async move {
                let new = format!("{OTHER_PASSWORD} {number}");
                (fixture.sign_in("ada").await, fixture.run(change(user, PASSWORD, &new, None)).await)
            })
        });
        let mut done = 0;
        for changed in changes.collect::<Vec<_>>() {
            let (opened, answer) = changed.await.unwrap();
            done += usize::from(answer.is_ok());
            if let Ok(opened) = opened {
                assert_eq!(check(&fixture.services, &opened.token).unwrap(), None);
            }
        }
        assert_eq!(done, 1);
    }

    proptest! {
        #[test]
        fn whatever_the_facts_it_ends_once_and_only_the_right_password_changes_anything(
            (then, user) in (prop::option::of(any_user()), prop::option::of(any_user())),
            sessions in any_sessions(),
            verdict in prop_oneof![
                Just(Ok(Verified::Match { needs_rehash: true })),
                Just(Ok(Verified::Mismatch)),
                Just(Ok(Verified::Malformed)),
                Just(Ok(Verified::Decoy)),
                Just(Err(HashError::Failed)),
            ],
            hashed in prop_oneof![
                Just(Ok("phc".to_owned())),
                Just(Err(Unusable::Unpermitted)),
                Just(Err(Unusable::Unfit(PasswordProblem::Common))),
                Just(Err(Unusable::Unhashed(HashError::Overloaded))),
            ],
        ) {
            let (keys, policy) = (Keyring::ephemeral().unwrap(), Policy::default());
            let id = UserId::from_bytes([1; 16]);
            let message = change(id, PASSWORD, OTHER_PASSWORD, Some(SessionId::from_bytes([0; 16])));
            let right = matches!(verdict, Ok(Verified::Match { .. })) && hashed.is_ok()
                && then.as_ref().zip(user.as_ref()).is_some_and(|(then, user)| {
                    then.epoch == user.epoch && user.status == UserStatus::Active
                });
            let offer = Offer::of(&message.new, hashed);
            let undo = Undo::draw(keys.current(), &policy);
            let attempt = Attempt { message: &message, offer, compared: Compared::of(then, verdict), undo };
            let bound = Bound { sessions, ..Bound::default() };
            let facts = Facts { user, credential: None, bound, changes: Vec::new(), now: NOW };
            let decision = decide(&attempt, &facts, &keys, &policy);
            assert_one_end(&decision);
            prop_assert_eq!(decision.answer.is_ok(), right);
            let sets = decision.writes.iter().any(|write| matches!(write, crate::storage::Write::PutCredential(..)));
            prop_assert_eq!(sets, right);
        }
    }
}
