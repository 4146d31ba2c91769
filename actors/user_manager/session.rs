//! Sessions: what makes one live, and what became of the one that a token names.

use std::time::Duration;

use majordomo_model::{FlowId, Session, SessionToken, Timestamp, User, UserStatus};

use super::flow::Services;
use super::policy::Policy;
use crate::session_secret;
use crate::storage::{Batch, Check, Lookup, SessionRow, Unreadable, UserRow, Write};

/// How coarsely the last use of a session is noted.
const TOUCH_EVERY: Duration = Duration::from_secs(60);

/// Whether a session opens anything now: its user is let in and in the epoch that it was opened in, and it has neither
/// expired nor lain idle (ASVS 7.3.1, 7.3.2, 7.4.2).
pub(crate) fn is_live(session: &SessionRow, user: &UserRow, now: Timestamp, policy: &Policy) -> bool {
    session.user == user.id
        && session.epoch == user.epoch
        && user.status == UserStatus::Active
        && now < session.expires_at
        && now < session.last_seen_at.plus(policy.session_idle)
}

/// The live session that a token opens, and its user; that it was used is noted with the next commit.
///
/// # Errors
/// Storage is out: nothing is known about the session.
pub(crate) fn check(services: &Services, token: &SessionToken) -> Result<Option<(Session, User)>, Unreadable> {
    let Some(hash) = session_secret::hash(token.expose()) else { return Ok(None) };
    let now = services.clock.now();
    let found = services.reader.snapshot(|view| {
        let Some(session) = view.session(&hash)? else { return Ok(None) };
        let Some(user) = view.user(session.user)? else { return Ok(None) };
        Ok(Some((session, user.view(view.activity(user.id)?.as_ref()), user)))
    })?;
    let Some((session, shown, user)) = found else { return Ok(None) };
    if !is_live(&session, &user, now, &services.policy) {
        return Ok(None);
    }
    if now.since(session.last_seen_at) >= TOUCH_EVERY {
        services.storage.commit_with_next(Batch {
            flow: FlowId::new(),
            outcome: None,
            checks: vec![Check::Session(hash, session.id)],
            writes: vec![Write::TouchSession(hash, now)],
            signals: Vec::new(),
        });
    }
    Ok(Some((session.view(), shown)))
}
