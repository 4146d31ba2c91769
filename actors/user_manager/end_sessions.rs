//! End sessions: sessions are ended from the list.

use majordomo_model::{
    EndSessions, EndSessionsReason, Failure, RevocationCause, SessionsEnded, SessionsToEnd, Signal, Timestamp, UserId,
};

use super::flow::{Answer, Decision, Fault, Perform, Run, Services, Told, recall, remember};
use super::policy::{Policy, revoked, seal_key};
use super::session::{count, exactly, is_live};
use crate::storage::{Check, Lookup, ReadError, ReadView, SessionRow, UserRow, Write};

/// What the store says.
struct Facts {
    user: Option<UserRow>,
    sessions: Vec<([u8; 32], SessionRow)>,
    now: Timestamp,
}

impl Facts {
    fn read(view: &ReadView, user: UserId, now: Timestamp) -> Result<Self, ReadError> {
        Ok(Self { user: view.user(user)?, sessions: view.sessions_of(user)?, now })
    }
}

/// Facts in, batch out. Only live sessions are ended; what is dead already is no session any more.
fn decide(message: &EndSessions, facts: &Facts, policy: &Policy) -> Decision<EndSessions> {
    let Some(user) = &facts.user else {
        return Decision::refuse(EndSessionsReason::UserNotFound, failed(message.user, Failure::UserNotFound));
    };
    let ended = |session: &SessionRow| {
        let meant = match message.which {
            SessionsToEnd::One(id) => session.id == id,
            SessionsToEnd::All => true,
            SessionsToEnd::AllExcept(id) => session.id != id,
        };
        meant && is_live(session, user, facts.now, policy)
    };
    let ended: Vec<_> = facts.sessions.iter().filter(|(_, session)| ended(session)).collect();
    let mut checks = vec![Check::Epoch(user.id, user.epoch)];
    checks.extend(exactly(user.id, &facts.sessions));
    if ended.is_empty() && matches!(message.which, SessionsToEnd::One(_)) {
        let end = failed(user.id, Failure::SessionNotFound);
        let refusal = Decision::refuse(EndSessionsReason::SessionNotFound, end);
        return Decision { checks, ..refusal }.about(user.id, seal_key(user));
    }
    let count = count(&ended);
    let told = revoked(ended.iter().map(|(_, session)| session), RevocationCause::Ended);
    Decision {
        checks,
        writes: ended.iter().map(|(hash, _)| Write::RemoveSession(*hash)).collect(),
        told: told.into_iter().map(Told::from).collect(),
        end: Signal::SessionsEnded { user: user.id, count },
        subject: Some((user.id, seal_key(user))),
        answer: Ok(SessionsEnded { count }),
    }
}

fn failed(user: UserId, reason: Failure) -> Signal {
    Signal::SessionsEndFailed { user, reason }
}

impl Perform for EndSessions {
    fn started(&self, _services: &Services) -> Signal {
        Signal::SessionsEndStarted { user: self.user }
    }

    fn failed(&self, _services: &Services, why: Failure) -> Signal {
        failed(self.user, why)
    }

    async fn perform(&self, run: &Run<'_, Self>) -> Result<Answer<Self>, Fault> {
        let policy = &run.services.policy;
        run.settle(|view, now| Ok(decide(self, &Facts::read(view, self.user, now)?, policy))).await
    }

    fn remember(answer: &Result<SessionsEnded, EndSessionsReason>) -> Vec<u8> {
        remember(answer)
    }

    fn recall(remembered: &[u8]) -> Option<Result<SessionsEnded, EndSessionsReason>> {
        recall(remembered)
    }
}

#[cfg(test)]
mod tests {
    use majordomo_model::{Error, SessionId, SignalKind};
    use proptest::prelude::*;

    use super::super::fixture::{Fixture, NOW, any_sessions, any_user, assert_one_end};
    use super::*;

    #[tokio::test]
    async fn one_or_all_or_all_others_are_ended_each_in_one_commit() {
        let fixture = Fixture::new().await;
        let user = fixture.register_proven("ada", None, None).await;
        let mut opened = Vec::new();
        for _ in 0..4 {
            opened.push(fixture.session("ada").await.session);
        }
        for (which, count, left) in [
            (SessionsToEnd::One(opened[0]), 1, 3),
            (SessionsToEnd::AllExcept(opened[2]), 2, 1),
            (SessionsToEnd::All, 1, 0),
            (SessionsToEnd::All, 0, 0),
            (SessionsToEnd::AllExcept(opened[2]), 0, 0),
        ] {
            let (head, commits) = (fixture.head(), fixture.services.storage.observe().batches);
            assert_eq!(fixture.run(EndSessions { user, which }).await.unwrap(), SessionsEnded { count });
            assert_eq!(fixture.services.storage.observe().batches - commits, 1);
            let mut kinds = vec![SignalKind::SessionsEndStarted];
            kinds.extend((0..count).map(|_| SignalKind::SessionRevoked));
            kinds.push(SignalKind::SessionsEnded);
            assert_eq!(fixture.kinds_after(head), kinds);
            assert_eq!(fixture.services.reader.sessions_of(user).unwrap().len(), left);
        }
    }

    #[tokio::test]
    async fn a_session_of_somebody_else_is_not_found() {
        let fixture = Fixture::new().await;
        let user = fixture.register_proven("ada", None, None).await;
        fixture.register_proven("grace", None, None).await;
        let foreign = SessionsToEnd::One(fixture.session("grace").await.session);
        for (user, which, reason, failure) in [
            (user, foreign, EndSessionsReason::SessionNotFound, Failure::SessionNotFound),
            (UserId::new(), SessionsToEnd::All, EndSessionsReason::UserNotFound, Failure::UserNotFound),
        ] {
            let head = fixture.head();
            let refused = fixture.run(EndSessions { user, which }).await.unwrap_err();
            assert_eq!(refused, Error::Refused(reason));
            assert_eq!(fixture.kinds_after(head), [SignalKind::SessionsEndStarted, SignalKind::SessionsEndFailed]);
            assert_eq!(fixture.last_signal(), Signal::SessionsEndFailed { user, reason: failure });
        }
    }

    proptest! {
        #[test]
        fn whatever_the_facts_it_ends_once_and_counts_what_it_tells(
            user in prop::option::of(any_user()),
            sessions in any_sessions(),
            which in 0_u8..3,
        ) {
            let session = SessionId::from_bytes([0; 16]);
            let which = [SessionsToEnd::One(session), SessionsToEnd::All, SessionsToEnd::AllExcept(session)]
                [usize::from(which)];
            let message = EndSessions { user: UserId::from_bytes([1; 16]), which };
            let decision = decide(&message, &Facts { user, sessions, now: NOW }, &Policy::default());
            assert_one_end(&decision);
            prop_assert_eq!(decision.told.len(), decision.writes.len());
            if let Ok(ended) = &decision.answer {
                prop_assert_eq!(usize::try_from(ended.count).unwrap(), decision.told.len());
            }
        }
    }
}
