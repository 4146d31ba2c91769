//! Disable: a user is shut out.

use majordomo_model::{
    Changed, Disable, DisableReason, Failure, RevocationCause, Signal, Timestamp, UserId, UserStatus,
};

use super::epoch::Bound;
use super::flow::{Answer, Decision, Fault, Perform, Run, Services, recall, remember};
use super::policy::{Policy, seal_key};
use crate::storage::{Check, Lookup, ReadError, ReadView, UserRow, Write};

/// What the store says.
struct Facts {
    user: Option<UserRow>,
    bound: Bound,
    now: Timestamp,
}

impl Facts {
    fn read(view: &ReadView, user: UserId, now: Timestamp) -> Result<Self, ReadError> {
        Ok(Self { user: view.user(user)?, bound: Bound::read(view, user)?, now })
    }
}

/// Facts in, batch out.
fn decide(id: UserId, facts: &Facts, policy: &Policy) -> Decision<Disable> {
    let Some(user) = &facts.user else {
        return Decision::refuse(DisableReason::UserNotFound, failed(id, Failure::UserNotFound));
    };
    if user.status == UserStatus::Disabled {
        let checks = vec![Check::UserVersion(id, user.version)];
        let refusal = Decision::refuse(DisableReason::NothingToDo, failed(id, Failure::NothingToDo));
        return Decision { checks, ..refusal }.about(id, seal_key(user));
    }
    let mut ending = facts.bound.end(user, None, RevocationCause::Disabled, facts.now, policy);
    ending.user.status = UserStatus::Disabled;
    let (version, sessions_revoked) = (ending.user.version, ending.sessions_revoked);
    ending.writes.push(Write::PutUser(Box::new(ending.user)));
    Decision {
        checks: ending.checks,
        writes: ending.writes,
        told: ending.told,
        end: Signal::UserDisabled { user: id, version, sessions_revoked },
        subject: Some((id, seal_key(user))),
        answer: Ok(Changed { version }),
    }
}

fn failed(user: UserId, reason: Failure) -> Signal {
    Signal::UserDisableFailed { user, reason }
}

impl Perform for Disable {
    fn started(&self, _services: &Services) -> Signal {
        Signal::UserDisableStarted { user: self.user }
    }

    fn failed(&self, _services: &Services, why: Failure) -> Signal {
        failed(self.user, why)
    }

    async fn perform(&self, run: &Run<'_, Self>) -> Result<Answer<Self>, Fault> {
        let policy = &run.services.policy;
        run.settle(|view, now| Ok(decide(self.user, &Facts::read(view, self.user, now)?, policy))).await
    }

    fn remember(answer: &Result<Changed, DisableReason>) -> Vec<u8> {
        remember(answer)
    }

    fn recall(remembered: &[u8]) -> Option<Result<Changed, DisableReason>> {
        recall(remembered)
    }
}

#[cfg(test)]
mod tests {
    use majordomo_model::{Error, SignalKind};
    use proptest::prelude::*;

    use super::super::fixture::{Fixture, NOW, any_sessions, any_user, assert_one_end};
    use super::*;

    #[tokio::test]
    async fn a_disabled_user_is_out_at_once_and_the_story_is_one_commit() {
        let fixture = Fixture::new().await;
        let user = fixture.register_proven("ada", Some("ada@example.com"), None).await;
        let (first, second) = (fixture.session("ada").await, fixture.session("ada").await);
        let (head, commits) = (fixture.head(), fixture.services.storage.observe().batches);
        let version = fixture.run(Disable { user }).await.unwrap().version;
        assert_eq!(fixture.services.storage.observe().batches - commits, 1);
        assert_eq!(
            fixture.kinds_after(head),
            [
                SignalKind::UserDisableStarted,
                SignalKind::SessionRevoked,
                SignalKind::SessionRevoked,
                SignalKind::UserDisabled
            ]
        );
        assert_eq!(fixture.last_signal(), Signal::UserDisabled { user, version, sessions_revoked: 2 });
        for opened in [first, second] {
            assert_eq!(super::super::session::check(&fixture.services, &opened.token).unwrap(), None);
        }
        assert!(fixture.sign_in("ada").await.is_err());
    }

    #[tokio::test]
    async fn who_is_disabled_already_or_unknown_is_refused() {
        let fixture = Fixture::new().await;
        let user = fixture.register_proven("ada", None, None).await;
        fixture.run(Disable { user }).await.unwrap();
        for (user, reason, failure) in [
            (user, DisableReason::NothingToDo, Failure::NothingToDo),
            (UserId::new(), DisableReason::UserNotFound, Failure::UserNotFound),
        ] {
            let head = fixture.head();
            assert_eq!(fixture.run(Disable { user }).await.unwrap_err(), Error::Refused(reason));
            let kinds = fixture.kinds_after(head);
            assert_eq!(kinds, [SignalKind::UserDisableStarted, SignalKind::UserDisableFailed]);
            assert_eq!(fixture.last_signal(), Signal::UserDisableFailed { user, reason: failure });
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn of_many_disablings_at_once_one_does_it_and_no_login_survives() {
        let fixture = std::sync::Arc::new(Fixture::new().await);
        let user = fixture.register_proven("ada", None, None).await;
        let logins: Vec<_> = (0..40)
            .map(|_| {
                let fixture = std::sync::Arc::clone(&fixture);
                tokio::spawn(async move { fixture.sign_in("ada").await })
            })
            .collect();
        let disablings: Vec<_> = (0..10)
            .map(|_| {
                let fixture = std::sync::Arc::clone(&fixture);
                tokio::spawn(async move { fixture.run(Disable { user }).await })
            })
            .collect();
        let mut done = 0;
        for disabling in disablings {
            done += usize::from(disabling.await.unwrap().is_ok());
        }
        assert_eq!(done, 1);
        for login in logins {
            if let Ok(opened) = login.await.unwrap() {
                assert_eq!(super::super::session::check(&fixture.services, &opened.token).unwrap(), None);
            }
        }
        assert!(fixture.services.reader.sessions_of(user).unwrap().is_empty());
        let signals = fixture.signals();
        let count = |kind| signals.iter().filter(|told| told.signal.kind() == kind).count();
        assert_eq!(count(SignalKind::SessionRevoked), count(SignalKind::UserAuthenticated));
    }

    proptest! {
        #[test]
        fn whatever_the_facts_it_ends_once(user in prop::option::of(any_user()), sessions in any_sessions()) {
            let facts = Facts { user, bound: Bound { sessions, ..Bound::default() }, now: NOW };
            assert_one_end(&decide(UserId::from_bytes([1; 16]), &facts, &Policy::default()));
        }
    }
}
