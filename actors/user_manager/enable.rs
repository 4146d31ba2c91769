//! Enable: a user is let in again.

use majordomo_model::{Changed, Enable, EnableReason, Failure, Signal, UserId, UserStatus};

use super::flow::{Answer, Decision, Fault, Perform, Run, Services, recall, remember};
use super::policy::seal_key;
use crate::storage::{Check, Lookup, UserRow, Write};

/// Facts in, batch out. The epoch stays as the disabling left it, so what that killed stays dead.
fn decide(id: UserId, user: Option<&UserRow>) -> Decision<Enable> {
    let Some(user) = user else {
        return Decision::refuse(EnableReason::UserNotFound, failed(id, Failure::UserNotFound));
    };
    let checks = vec![Check::UserVersion(id, user.version)];
    if user.status == UserStatus::Active {
        let refusal = Decision::refuse(EnableReason::NothingToDo, failed(id, Failure::NothingToDo));
        return Decision { checks, ..refusal }.about(id, seal_key(user));
    }
    let version = user.version.saturating_add(1);
    let row = UserRow { version, status: UserStatus::Active, ..user.clone() };
    Decision {
        checks,
        writes: vec![Write::PutUser(Box::new(row))],
        told: Vec::new(),
        end: Signal::UserEnabled { user: id, version },
        subject: Some((id, seal_key(user))),
        answer: Ok(Changed { version }),
    }
}

fn failed(user: UserId, reason: Failure) -> Signal {
    Signal::UserEnableFailed { user, reason }
}

impl Perform for Enable {
    fn started(&self, _services: &Services) -> Signal {
        Signal::UserEnableStarted { user: self.user }
    }

    fn failed(&self, _services: &Services, why: Failure) -> Signal {
        failed(self.user, why)
    }

    async fn perform(&self, run: &Run<'_, Self>) -> Result<Answer<Self>, Fault> {
        run.settle(|view, _| Ok(decide(self.user, view.user(self.user)?.as_ref()))).await
    }

    fn remember(answer: &Result<Changed, EnableReason>) -> Vec<u8> {
        remember(answer)
    }

    fn recall(remembered: &[u8]) -> Option<Result<Changed, EnableReason>> {
        recall(remembered)
    }
}

#[cfg(test)]
mod tests {
    use majordomo_model::{Disable, Error, SignalKind};
    use proptest::prelude::*;

    use super::super::fixture::{Fixture, any_user, assert_one_end};
    use super::*;

    #[tokio::test]
    async fn who_is_enabled_gets_in_by_the_same_password_and_by_no_old_session() {
        let fixture = Fixture::new().await;
        let user = fixture.register_proven("ada", None, None).await;
        let opened = fixture.session("ada").await;
        fixture.run(Disable { user }).await.unwrap();
        let (head, commits) = (fixture.head(), fixture.services.storage.observe().batches);
        let version = fixture.run(Enable { user }).await.unwrap().version;
        assert_eq!(fixture.services.storage.observe().batches - commits, 1);
        assert_eq!(fixture.kinds_after(head), [SignalKind::UserEnableStarted, SignalKind::UserEnabled]);
        assert_eq!(fixture.last_signal(), Signal::UserEnabled { user, version });
        assert_eq!(super::super::session::check(&fixture.services, &opened.token).unwrap(), None);
        fixture.session("ada").await;
    }

    #[tokio::test]
    async fn who_is_not_disabled_or_unknown_is_refused() {
        let fixture = Fixture::new().await;
        let user = fixture.register_proven("ada", None, None).await;
        for (user, reason, failure) in [
            (user, EnableReason::NothingToDo, Failure::NothingToDo),
            (UserId::new(), EnableReason::UserNotFound, Failure::UserNotFound),
        ] {
            let head = fixture.head();
            assert_eq!(fixture.run(Enable { user }).await.unwrap_err(), Error::Refused(reason));
            let kinds = fixture.kinds_after(head);
            assert_eq!(kinds, [SignalKind::UserEnableStarted, SignalKind::UserEnableFailed]);
            assert_eq!(fixture.last_signal(), Signal::UserEnableFailed { user, reason: failure });
        }
    }

    proptest! {
        #[test]
        fn whatever_the_facts_it_ends_once(user in prop::option::of(any_user())) {
            assert_one_end(&decide(UserId::from_bytes([1; 16]), user.as_ref()));
        }
    }
}
