//! Delete: a user and what belongs to them is removed.

use majordomo_model::{
    Delete, DeleteReason, Deleted, DeletionCause, Failure, Personal, RevocationCause, Signal, Timestamp, UserId,
};

use super::authority::forget_failures;
use super::epoch::Bound;
use super::flow::{Answer, Decision, Fault, Perform, Run, Services, Told, recall, remember};
use super::policy::{Policy, personal_username, seal_key};
use crate::delivery_end;
use crate::guard::Proposal;
use crate::keys::Keyring;
use crate::storage::{Check, Lookup, ReadError, ReadView, TokenRow, UniqueKey, UserRow, Write};

/// What the store says.
struct Facts {
    user: Option<UserRow>,
    bound: Bound,
    /// The tokens whose message is due.
    due: Vec<TokenRow>,
    now: Timestamp,
}

impl Facts {
    fn read(view: &ReadView, user: UserId, now: Timestamp) -> Result<Self, ReadError> {
        Ok(Self { user: view.user(user)?, bound: Bound::read(view, user)?, due: view.due_tokens(user)?, now })
    }
}

/// Facts in, batch out.
fn decide(message: &Delete, facts: &Facts, keys: &Keyring, policy: &Policy) -> Decision<Delete> {
    let Some(user) = &facts.user else {
        return Decision::refuse(DeleteReason::UserNotFound, failed(message.user, None, Failure::UserNotFound));
    };
    if message.cause == DeletionCause::NeverVerified && !is_overdue(user, facts.now) {
        let checks = vec![Check::UserVersion(user.id, user.version)];
        let end = failed(user.id, user.username.as_ref().map(personal_username), Failure::NothingToDo);
        let refusal = Decision::refuse(DeleteReason::NothingToDo, end);
        return Decision { checks, ..refusal }.about(user.id, seal_key(user));
    }
    let ending = facts.bound.end(user, None, RevocationCause::Deleted, facts.now, policy);
    let sessions_revoked = ending.sessions_revoked;
    let (mut checks, mut told) = (ending.checks, ending.told);
    checks.push(Check::DueTokens(user.id, facts.due.iter().map(|token| token.id).collect()));
    told.extend(facts.due.iter().filter_map(undeliverable));
    let mut writes: Vec<_> = owned(user).map(Write::RemoveOwner).collect();
    writes.extend(user.verify_by.map(|_| Write::ForgetVerification(user.id)));
    writes.push(forget_failures(keys, user.id));
    writes.push(Write::RemoveUser(user.id));
    let username = user.username.as_ref().map(|username| Personal::redacted_only(username.word().redacted()));
    Decision {
        checks,
        writes,
        told,
        end: Signal::UserDeleted { user: user.id, username, sessions_revoked, cause: message.cause },
        subject: Some((user.id, seal_key(user))),
        answer: Ok(Deleted { sessions_revoked }),
    }
}

/// The end of a delivery whose user is gone: with the token's row goes the last chance to end it.
fn undeliverable(token: &TokenRow) -> Option<Told> {
    let reason = Failure::UserNotFound;
    let end = delivery_end::failed(token, reason.error_type(), reason)?;
    Some(Told::of(end, token.delivery))
}

/// Whether the time to prove an address is over and none is proven.
fn is_overdue(user: &UserRow, now: Timestamp) -> bool {
    !user.is_verified() && user.verify_by.is_some_and(|at| at <= now)
}

/// The names and proven addresses of a user.
fn owned(user: &UserRow) -> impl Iterator<Item = UniqueKey> {
    let names = user.username.iter();
    let names = names.flat_map(|name| [UniqueKey::username(&name.canonical), UniqueKey::skeleton(&name.skeleton)]);
    let proven = user.contacts.iter().filter(|contact| contact.proven_at.is_some());
    names.chain(proven.map(|contact| UniqueKey::address(contact.channel, &contact.canonical)))
}

fn failed(user: UserId, username: Option<Personal>, reason: Failure) -> Signal {
    Signal::UserDeletionFailed { user, username, error_type: reason.error_type(), reason }
}

impl Perform for Delete {
    fn started(&self, _services: &Services) -> Signal {
        Signal::UserDeletionStarted { user: self.user }
    }

    fn failed(&self, _services: &Services, why: Failure) -> Signal {
        failed(self.user, None, why)
    }

    /// What the sweep deletes is maintenance: nobody is asked.
    fn proposal(&self, _decision: &Decision<Self>) -> Option<Proposal> {
        (self.cause != DeletionCause::NeverVerified).then_some(Proposal::Delete { cause: self.cause })
    }

    async fn perform(&self, run: &Run<'_, Self>) -> Result<Answer<Self>, Fault> {
        let Services { keys, policy, .. } = run.services;
        run.settle(|view, now| Ok(decide(self, &Facts::read(view, self.user, now)?, keys, policy))).await
    }

    fn remember(answer: &Result<Deleted, DeleteReason>) -> Vec<u8> {
        remember(answer)
    }

    fn recall(remembered: &[u8]) -> Option<Result<Deleted, DeleteReason>> {
        recall(remembered)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use majordomo_model::{AddContact, AuthenticateReason, ContactClaim, Error, FlowKind, Lane, SignalKind};
    use proptest::prelude::*;

    use super::super::fixture::{Fixture, NOW, any_sessions, any_user, assert_one_end, authority};
    use super::*;
    use crate::storage::DeliveryState;

    fn overdue(user: UserId) -> Delete {
        Delete { user, cause: DeletionCause::NeverVerified }
    }

    #[tokio::test]
    async fn a_deletion_tells_its_story_in_one_commit_and_frees_every_name() {
        let fixture = Fixture::new().await;
        let user = fixture.register_proven("ada", Some("ada@example.com"), Some("+447911123456")).await;
        let opened = fixture.session("ada").await;
        let token = fixture.reset_token("ada").await;
        let (head, commits) = (fixture.head(), fixture.services.storage.observe().batches);
        assert_eq!(fixture.run(Delete::new(user)).await.unwrap(), Deleted { sessions_revoked: 1 });
        assert_eq!(fixture.services.storage.observe().batches - commits, 1);
        assert_eq!(
            fixture.kinds_after(head),
            [
                SignalKind::UserDeletionStarted,
                SignalKind::SessionRevoked,
                SignalKind::UserEmailVerificationFailed,
                SignalKind::UserPhoneVerificationFailed,
                SignalKind::PasswordResetRequestFailed,
                SignalKind::UserDeleted
            ]
        );
        assert_eq!(super::super::session::check(&fixture.services, &opened.token).unwrap(), None);
        assert_eq!(fixture.services.reader.token(token).unwrap(), None);
        let refused = fixture.sign_in("ada@example.com").await.unwrap_err();
        assert_eq!(refused, Error::Refused(AuthenticateReason::InvalidCredentials));
        let again = fixture.register_proven("ada", Some("ada@example.com"), Some("+447911123456")).await;
        assert_ne!(again, user);
        assert_eq!(fixture.session("+447911123456").await.user, again);
    }

    #[tokio::test]
    async fn every_delivery_that_is_due_ends_once_and_no_other() {
        let fixture = Fixture::new().await;
        let owner = fixture.register_proven("eve", Some("eve@example.com"), None).await;
        let user = fixture.register_proven("ada", Some("ada@example.com"), None).await;
        let superseded = fixture.reset_token("ada").await;
        fixture.cool_down();
        let sent = fixture.reset_token("ada").await;
        fixture.write(Vec::new(), vec![Write::EndDelivery(sent, DeliveryState::Sent)]).await;
        fixture.cool_down();
        let due = fixture.reset_token("ada").await;
        // Taken: the row is like any other, and no delivery was started.
        let taken =
            AddContact { user, address: ContactClaim::Email("eve@example.com".to_owned()), authority: authority() };
        fixture.run(taken).await.unwrap();
        let flow = |token| fixture.services.reader.token(token).unwrap().unwrap().delivery;
        let (superseded, due) = (flow(superseded), flow(due));
        let head = fixture.head();
        fixture.run(Delete::new(user)).await.unwrap();
        let told = fixture.services.reader.signals_after(head, usize::MAX).unwrap();
        let ends: Vec<_> = told.iter().filter(|told| told.signal.kind().ends().contains(&FlowKind::Delivery)).collect();
        assert!(ends.iter().all(|end| end.cause == Some(told[0].flow) && end.lane == Lane::User(user)));
        let flows: Vec<_> = ends.iter().map(|end| end.flow).collect();
        assert_eq!(flows.len(), 3, "the verification at registration, and two resets");
        assert!(flows.contains(&superseded) && flows.contains(&due));
        let started: Vec<_> = fixture.signals().into_iter().filter(|told| flows.contains(&told.flow)).collect();
        assert_eq!(started.len(), 6, "each was started");
        for end in ends {
            match &end.signal {
                Signal::UserEmailVerificationFailed { reason, .. }
                | Signal::PasswordResetRequestFailed { reason, .. } => assert_eq!(*reason, Failure::UserNotFound),
                other => panic!("{other:?}"),
            }
        }
        assert!(fixture.services.reader.user(owner).unwrap().is_some());
    }

    #[tokio::test]
    async fn a_delivery_that_ends_or_starts_meanwhile_is_noticed() {
        let fixture = Fixture::new().await;
        let user = fixture.register_proven("ada", Some("ada@example.com"), None).await;
        let decided = || {
            let (keys, policy) = (&fixture.services.keys, &fixture.services.policy);
            let now = fixture.clock.now();
            let facts = fixture.services.reader.snapshot(|view| Facts::read(view, user, now)).unwrap();
            decide(&Delete::new(user), &facts, keys, policy)
        };
        let before = decided();
        let token = fixture.reset_token("ada").await;
        assert!(!fixture.commit(before).await);
        let before = decided();
        fixture.write(Vec::new(), vec![Write::EndDelivery(token, DeliveryState::Sent)]).await;
        assert!(!fixture.commit(before).await);
        assert!(fixture.commit(decided()).await);
    }

    #[tokio::test]
    async fn it_is_the_last_of_its_lane_and_nothing_personal_can_be_opened_after_it() {
        let fixture = Fixture::new().await;
        let user = fixture.register_proven("ada", Some("ada@example.com"), None).await;
        let exposed = |fixture: &Fixture| {
            let mut exposed = 0;
            for mut told in fixture.signals() {
                told.signal.visit_personal(&mut |personal| exposed += usize::from(personal.expose().is_some()));
            }
            exposed
        };
        assert!(exposed(&fixture) > 0);
        fixture.run(Delete::new(user)).await.unwrap();
        assert_eq!(exposed(&fixture), 0);
        let Signal::UserDeleted { username: Some(username), .. } = fixture.last_signal() else { panic!() };
        assert_eq!((username.redacted(), username.sealed()), ("a***", None));
        // What is asked for later is no matter of that user's lane any more.
        fixture.run(Delete::new(user)).await.unwrap_err();
        let lane = Lane::User(user);
        let last = fixture.signals().into_iter().rfind(|told| told.lane == lane).unwrap();
        assert_eq!(last.signal.kind(), SignalKind::UserDeleted);
    }

    #[tokio::test]
    async fn who_is_in_time_or_verified_is_not_deleted_as_never_verified() {
        let fixture = Fixture::new().await;
        let late = fixture.register("ada", Some("ada@example.com"), None).await.user;
        let proven = fixture.register_proven("grace", Some("grace@example.com"), None).await;
        let nameless = fixture.register("edsger", None, None).await.user;
        let refused = |answer: Answer<Delete>| answer.unwrap_err() == Error::Refused(DeleteReason::NothingToDo);
        let head = fixture.head();
        assert!(refused(fixture.run(overdue(late)).await));
        assert_eq!(fixture.kinds_after(head), [SignalKind::UserDeletionStarted, SignalKind::UserDeletionFailed]);
        fixture.pass(Duration::from_secs(7 * 24 * 3600));
        assert_eq!(fixture.services.reader.never_verified(fixture.clock.now(), 9).unwrap().len(), 0);
        fixture.pass(Duration::from_micros(1));
        assert_eq!(fixture.services.reader.never_verified(fixture.clock.now(), 9).unwrap().len(), 1);
        assert!(refused(fixture.run(overdue(proven)).await));
        assert!(refused(fixture.run(overdue(nameless)).await));
        fixture.run(overdue(late)).await.unwrap();
        assert_eq!(fixture.services.reader.never_verified(fixture.clock.now(), 9).unwrap(), []);
        let gone = fixture.run(overdue(late)).await.unwrap_err();
        assert_eq!(gone, Error::Refused(DeleteReason::UserNotFound));
        let kinds = fixture.kinds_after(fixture.head() - 2);
        assert_eq!(kinds, [SignalKind::UserDeletionStarted, SignalKind::UserDeletionFailed]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn of_many_deletions_at_once_one_does_it() {
        let fixture = std::sync::Arc::new(Fixture::new().await);
        let user = fixture.register_proven("ada", None, None).await;
        let deletions = (0..20).map(|_| {
            let fixture = std::sync::Arc::clone(&fixture);
            tokio::spawn(async move { (fixture.sign_in("ada").await, fixture.run(Delete::new(user)).await) })
        });
        let mut done = 0;
        for deletion in deletions.collect::<Vec<_>>() {
            let (opened, answer) = deletion.await.unwrap();
            done += usize::from(answer.is_ok());
            if let Ok(opened) = opened {
                assert_eq!(super::super::session::check(&fixture.services, &opened.token).unwrap(), None);
            }
        }
        assert_eq!(done, 1);
    }

    proptest! {
        #[test]
        fn whatever_the_facts_it_ends_once_and_spares_who_may_stay(
            user in prop::option::of(any_user()),
            sessions in any_sessions(),
            requested: bool,
        ) {
            let (keys, policy) = (Keyring::ephemeral().unwrap(), Policy::default());
            let cause = if requested { DeletionCause::Requested } else { DeletionCause::NeverVerified };
            let message = Delete { user: UserId::from_bytes([1; 16]), cause };
            let may_go = user.as_ref().is_some_and(|user| {
                requested || (user.verify_by.is_some_and(|at| at <= NOW) && !user.is_verified())
            });
            let facts = Facts { user, bound: Bound { sessions, ..Bound::default() }, due: Vec::new(), now: NOW };
            let decision = decide(&message, &facts, &keys, &policy);
            assert_one_end(&decision);
            prop_assert_eq!(decision.answer.is_ok(), may_go);
            prop_assert_eq!(decision.writes.is_empty(), !may_go);
        }
    }
}
