//! Sessions: what makes one live, and what became of the one that a token names.

use std::time::Duration;

use majordomo_model::{FlowId, Session, SessionToken, Timestamp, User, UserId};

use super::flow::Services;
use super::policy::Policy;
use crate::session_secret;
use crate::storage::{Batch, Check, SessionRow, Unreadable, UserRow, Write};

/// How coarsely the last use of a session is noted.
const TOUCH_EVERY: Duration = Duration::from_secs(60);

/// Whether a session opens anything now: its user is let in and in the epoch that it was opened in, and it has neither
/// expired nor lain idle (ASVS 7.3.1, 7.3.2, 7.4.2).
pub(crate) fn is_live(session: &SessionRow, user: &UserRow, now: Timestamp, policy: &Policy) -> bool {
    session.is_of(user) && is_in_time(session.last_seen_at, session.expires_at, now, policy)
}

fn is_in_time(last_seen_at: Timestamp, expires_at: Timestamp, now: Timestamp, policy: &Policy) -> bool {
    now < expires_at && now < last_seen_at.plus(policy.session_idle)
}

/// The live session that a token opens, and its user; that it was used is noted with the next commit.
///
/// # Errors
/// Storage is out, and the session is none of those that were checked lately: nothing is known about it.
pub(crate) fn check(services: &Services, token: &SessionToken) -> Result<Option<(Session, User)>, Unreadable> {
    let Some(hash) = session_secret::hash(token.expose()) else { return Ok(None) };
    let now = services.clock.now();
    let Some(known) = services.storage.known_session(&hash)? else { return Ok(None) };
    let session = &known.session;
    if !is_in_time(known.used_at(), session.expires_at, now, &services.policy) {
        return Ok(None);
    }
    // While storage is out, memory alone knows of it: what waits for the writer then is to be what must not be lost.
    if known.is_use_to_note(now, TOUCH_EVERY) && services.storage.is_available() {
        services.storage.commit_with_next(Batch {
            flow: FlowId::new(),
            outcome: None,
            checks: vec![Check::Session(hash, session.id)],
            writes: vec![Write::TouchSession(hash, now)],
            signals: Vec::new(),
        });
    }
    Ok(Some((session.clone(), known.user.clone())))
}

/// The checks that hold as long as a user has exactly these sessions.
pub(super) fn exactly(user: UserId, sessions: &[([u8; 32], SessionRow)]) -> Vec<Check> {
    let each = sessions.iter().map(|(hash, session)| Check::Session(*hash, session.id));
    std::iter::once(Check::SessionCount(user, sessions.len())).chain(each).collect()
}

/// How many, as signals and replies tell it.
pub(super) fn count<T>(sessions: &[T]) -> u32 {
    u32::try_from(sessions.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use majordomo_model::UserStatus;
    use proptest::prelude::*;

    use super::super::fixture::{Fixture, NOW, any_sessions, any_user};
    use super::*;

    #[tokio::test]
    async fn a_session_lives_until_it_lay_idle_or_its_time_is_over() {
        let fixture = Fixture::new().await;
        fixture.register_proven("ada", None, None).await;
        let opened = fixture.session("ada").await;
        let day = Duration::from_secs(24 * 3600);
        let found = || check(&fixture.services, &opened.token).unwrap().is_some();
        for _ in 0..2 {
            fixture.pass(14 * day - Duration::from_micros(1));
            assert!(found());
            fixture.services.storage.flush().await;
        }
        fixture.pass(2 * day);
        assert!(found());
        fixture.pass(Duration::from_micros(2));
        assert!(!found());
        let idle = fixture.session("ada").await;
        fixture.pass(14 * day);
        assert_eq!(check(&fixture.services, &idle.token).unwrap(), None);
        assert_eq!(check(&fixture.services, &SessionToken::new("mds_")).unwrap(), None);
    }

    #[tokio::test]
    async fn its_use_is_noted_by_the_minute_and_revives_nothing() {
        let fixture = Fixture::new().await;
        fixture.register_proven("ada", None, None).await;
        let opened = fixture.session("ada").await;
        let seen = || async {
            let (session, _) = check(&fixture.services, &opened.token).unwrap().unwrap();
            fixture.services.storage.flush().await;
            session.last_seen_at
        };
        let first = seen().await;
        fixture.pass(Duration::from_secs(59));
        assert_eq!([seen().await, seen().await], [first, first]);
        fixture.pass(Duration::from_secs(1));
        assert_eq!([seen().await, seen().await], [first, fixture.clock.now()]);
        fixture.pass(TOUCH_EVERY);
        let hash = session_secret::hash(opened.token.expose()).unwrap();
        check(&fixture.services, &opened.token).unwrap().unwrap();
        fixture.write(Vec::new(), vec![Write::RemoveSession(hash)]).await;
        fixture.services.storage.flush().await;
        assert_eq!(check(&fixture.services, &opened.token).unwrap(), None);
    }

    #[tokio::test]
    async fn a_session_that_was_checked_is_looked_up_again_only_once_something_changed() {
        let fixture = Fixture::new().await;
        let user = fixture.register_proven("ada", None, None).await;
        let opened = fixture.session("ada").await;
        let looked_up = || fixture.services.storage.observe().sessions_looked_up;
        let shown = || check(&fixture.services, &opened.token).unwrap().unwrap();
        let before = looked_up();
        for _ in 0..100 {
            assert_eq!(shown().1.version, fixture.user(user).version);
        }
        assert_eq!(looked_up(), before + 1);
        let row = UserRow { version: 9, ..fixture.user(user) };
        fixture.write(Vec::new(), vec![Write::PutUser(Box::new(row))]).await;
        assert_eq!(shown().1.version, 9);
        assert_eq!(looked_up(), before + 2);
    }

    #[tokio::test]
    async fn its_use_is_noted_once_however_often_it_is_checked_before_the_next_commit() {
        let fixture = Fixture::new().await;
        fixture.register_proven("ada", None, None).await;
        let opened = fixture.session("ada").await;
        fixture.pass(TOUCH_EVERY);
        fixture.services.storage.flush().await;
        let before = fixture.services.storage.observe().batches;
        for _ in 0..100 {
            check(&fixture.services, &opened.token).unwrap().unwrap();
        }
        fixture.services.storage.flush().await;
        assert_eq!(fixture.services.storage.observe().batches, before + 1);
    }

    proptest! {
        #[test]
        fn no_session_of_another_epoch_or_of_a_disabled_user_is_live(user in any_user(), sessions in any_sessions()) {
            for (_, session) in sessions {
                let live = is_live(&session, &user, NOW, &Policy::default());
                let same = session.epoch == user.epoch && user.status == UserStatus::Active;
                prop_assert_eq!(live, same && session.expires_at > NOW);
                let stranger = UserRow { id: UserId::new(), ..user.clone() };
                prop_assert!(!is_live(&session, &stranger, NOW, &Policy::default()));
            }
        }
    }
}
