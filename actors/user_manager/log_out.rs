//! Log out: a session's holder ends it.

use majordomo_model::{
    Error, Failure, LogOut, LogOutReason, LoggedOut, RevocationCause, SessionId, Signal, Timestamp, UserId,
};

use super::flow::{Answer, Decision, Fault, Perform, Run, Services, Told, recall, remember};
use super::policy::{Policy, revoked, seal_key};
use super::session::is_live;
use crate::session_secret;
use crate::storage::{Check, Lookup, ReadError, ReadView, SessionRow, UserRow, Write};

/// What the store says.
struct Facts {
    /// The session under its hash, whatever its state, and its user.
    found: Option<([u8; 32], SessionRow, UserRow)>,
    now: Timestamp,
}

impl Facts {
    fn read(view: &ReadView, hash: Option<[u8; 32]>, now: Timestamp) -> Result<Self, ReadError> {
        let Some(hash) = hash else { return Ok(Self { found: None, now }) };
        let Some(session) = view.session(&hash)? else { return Ok(Self { found: None, now }) };
        Ok(Self { found: view.user(session.user)?.map(|user| (hash, session, user)), now })
    }
}

/// Facts in, batch out.
fn decide(facts: &Facts, policy: &Policy) -> Decision<LogOut> {
    let Some((hash, session, user)) = &facts.found else {
        return Decision::refuse(LogOutReason::SessionNotFound, failed(None, Failure::SessionNotFound));
    };
    let checks = vec![Check::Epoch(user.id, user.epoch), Check::Session(*hash, session.id)];
    let decision = Decision {
        checks,
        writes: Vec::new(),
        told: Vec::new(),
        end: failed(Some(user.id), Failure::SessionNotFound),
        subject: Some((user.id, seal_key(user))),
        answer: Err(Error::Refused(LogOutReason::SessionNotFound)),
    };
    if !is_live(session, user, facts.now, policy) {
        return decision;
    }
    Decision {
        writes: vec![Write::RemoveSession(*hash)],
        told: revoked([session], RevocationCause::LogOut).into_iter().map(Told::from).collect(),
        end: Signal::UserLoggedOut { user: user.id, session: session.id },
        answer: Ok(LoggedOut { user: user.id, session: session.id }),
        ..decision
    }
}

fn failed(user: Option<UserId>, reason: Failure) -> Signal {
    Signal::UserLogoutFailed { user, reason }
}

/// The session that a token names, live or not.
fn named(message: &LogOut, services: &Services) -> Option<SessionId> {
    let hash = session_secret::hash(message.token.expose())?;
    services.reader.session(&hash).ok().flatten().map(|(session, _)| session.id)
}

impl Perform for LogOut {
    fn started(&self, services: &Services) -> Signal {
        Signal::UserLogoutStarted { session: named(self, services) }
    }

    fn failed(&self, _services: &Services, why: Failure) -> Signal {
        failed(None, why)
    }

    async fn perform(&self, run: &Run<'_, Self>) -> Result<Answer<Self>, Fault> {
        let hash = session_secret::hash(self.token.expose());
        run.settle(|view, now| Ok(decide(&Facts::read(view, hash, now)?, &run.services.policy))).await
    }

    fn remember(answer: &Result<LoggedOut, LogOutReason>) -> Vec<u8> {
        remember(answer)
    }

    fn recall(remembered: &[u8]) -> Option<Result<LoggedOut, LogOutReason>> {
        recall(remembered)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use majordomo_model::{Disable, SessionToken, SignalKind};
    use proptest::prelude::*;

    use super::super::fixture::{Fixture, NOW, any_sessions, any_user, assert_one_end};
    use super::*;

    #[tokio::test]
    async fn a_logout_ends_its_session_alone() {
        let fixture = Fixture::new().await;
        let user = fixture.register_proven("ada", None, None).await;
        let (opened, other) = (fixture.session("ada").await, fixture.session("ada").await);
        let (head, commits) = (fixture.head(), fixture.services.storage.observe().batches);
        let answer = fixture.run(LogOut { token: opened.token.clone() }).await.unwrap();
        assert_eq!(answer, LoggedOut { user, session: opened.session });
        assert_eq!(fixture.services.storage.observe().batches - commits, 1);
        assert_eq!(
            fixture.kinds_after(head),
            [SignalKind::UserLogoutStarted, SignalKind::SessionRevoked, SignalKind::UserLoggedOut]
        );
        let started = fixture.services.reader.signals_after(head, 1).unwrap().remove(0);
        assert_eq!(started.signal, Signal::UserLogoutStarted { session: Some(opened.session) });
        assert_eq!(super::super::session::check(&fixture.services, &opened.token).unwrap(), None);
        assert!(super::super::session::check(&fixture.services, &other.token).unwrap().is_some());
    }

    #[tokio::test]
    async fn what_is_no_live_session_is_refused() {
        let fixture = Fixture::new().await;
        let user = fixture.register_proven("ada", None, None).await;
        let (idle, ended) = (fixture.session("ada").await, fixture.session("ada").await);
        fixture.run(LogOut { token: ended.token.clone() }).await.unwrap();
        fixture.pass(Duration::from_secs(14 * 24 * 3600));
        let disabled = fixture.session("ada").await;
        fixture.run(Disable { user }).await.unwrap();
        let (foreign, _) = session_secret::generate(fixture.clock.now()).unwrap();
        let foreign = SessionToken::new(foreign.as_str());
        for token in [idle.token, ended.token, disabled.token, foreign, SessionToken::new(""), SessionToken::new("x")] {
            let head = fixture.head();
            let refused = fixture.run(LogOut { token }).await.unwrap_err();
            assert_eq!(refused, Error::Refused(LogOutReason::SessionNotFound));
            assert_eq!(fixture.kinds_after(head), [SignalKind::UserLogoutStarted, SignalKind::UserLogoutFailed]);
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn of_many_logouts_at_once_one_wins() {
        let fixture = std::sync::Arc::new(Fixture::new().await);
        fixture.register_proven("ada", None, None).await;
        let opened = fixture.session("ada").await;
        let logouts = (0..50).map(|_| {
            let (fixture, token) = (std::sync::Arc::clone(&fixture), opened.token.clone());
            tokio::spawn(async move { fixture.run(LogOut { token }).await })
        });
        let mut done = 0;
        for logout in logouts.collect::<Vec<_>>() {
            done += usize::from(logout.await.unwrap().is_ok());
        }
        assert_eq!(done, 1);
        let signals = fixture.signals();
        let revoked = signals.iter().filter(|told| told.signal.kind() == SignalKind::SessionRevoked);
        assert_eq!(revoked.count(), 1);
    }

    proptest! {
        #[test]
        fn whatever_the_facts_it_ends_once(user in any_user(), sessions in any_sessions()) {
            let found = sessions.into_iter().next().map(|(hash, session)| (hash, session, user));
            let decision = decide(&Facts { found, now: NOW }, &Policy::default());
            assert_one_end(&decision);
            prop_assert_eq!(decision.answer.is_ok(), !decision.writes.is_empty());
        }
    }
}
