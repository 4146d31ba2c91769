//! Authority: whether whoever asks has shown that they may change how the account is reached (ASVS 7.5.1).

use majordomo_model::{Authority, Failure, Password, Signal, Timestamp, UserId, UserStatus};

use super::flow::{Fault, Perform, Run};
use super::lock::{self, Failures};
use super::policy::Policy;
use super::session::is_live;
use crate::hasher::{HashError, Verified};
use crate::keys::Keyring;
use crate::session_secret;
use crate::storage::{Check, Lookup, ReadError, ReadView, SessionRow, UserRow, Write};

/// What was shown, gathered before anything is decided; what it is worth is for [`holds`] to say, each time anew.
#[derive(Clone)]
pub(super) enum Permit {
    /// A password, compared.
    Password(Box<Compared>),
    /// The session that a token names, if it names one, with the hash of its secret.
    Session(Option<([u8; 32], SessionRow)>),
}

/// A password, compared with a user's credential.
#[derive(Clone)]
pub(super) struct Compared {
    /// The user, as they were then.
    user: Option<UserRow>,
    /// What the comparison showed.
    verdict: Result<Verified, HashError>,
}

/// Gathers what an authority is worth: one hashing job for a password, one look-up for a session.
///
/// # Errors
/// Storage is out, or the hasher could not compare.
pub(super) async fn gather<F: Perform>(run: &Run<'_, F>, user: UserId, authority: &Authority) -> Result<Permit, Fault> {
    match authority {
        Authority::Password(password) => {
            let compared = compare(run, user, password).await?;
            compared.verdict.map_err(Fault::from)?;
            Ok(Permit::Password(Box::new(compared)))
        }
        Authority::RecentSession(token) => {
            let hash = session_secret::hash(token.expose());
            Ok(Permit::Session(run.services.reader.snapshot(|view| hash.map_or(Ok(None), |hash| session(view, hash)))?))
        }
    }
}

fn session(view: &ReadView, hash: [u8; 32]) -> Result<Option<([u8; 32], SessionRow)>, ReadError> {
    Ok(view.session(&hash)?.map(|row| (hash, row)))
}

/// Whether a permit is good for the user as they are now: one of an older epoch is not.
pub(super) fn holds(permit: &Permit, user: &UserRow, now: Timestamp, policy: &Policy) -> bool {
    match permit {
        Permit::Password(compared) => user.status == UserStatus::Active && compared.is_right_for(user),
        Permit::Session(session) => session.as_ref().is_some_and(|(_, session)| {
            is_live(session, user, now, policy) && now < session.created_at.plus(policy.session_recent)
        }),
    }
}

/// Compares a password with a user's credential: one job, against a decoy where there is no user or no credential.
///
/// # Errors
/// Storage is out. That the hasher could not compare is a verdict.
pub(super) async fn compare<F: Perform>(
    run: &Run<'_, F>,
    user: UserId,
    password: &Password,
) -> Result<Compared, Fault> {
    let services = run.services;
    let subject = lock::subject_of(&services.keys, user);
    let (row, stored) = services.reader.snapshot(|view| Ok((view.user(user)?, view.credential(user)?)))?;
    // What the keys do not open is as malformed as a text that is no hash.
    let stored = stored.map(|credential| credential.open(&services.keys, user).unwrap_or_default());
    let decoy = services.keys.decoy_seed(&user.to_string());
    let password = services.policy.password_to_compare(password);
    run.take_guess(subject, row.is_some()).await?;
    let verdict = run.verify(password, stored, decoy).await;
    // A lock takes no password as right, wherever it is asked for, but from a known device. Whoever this waited for may
    // have put it on.
    let failures = services.reader.snapshot(|view| Failures::read(view, subject))?;
    let is_locked = failures.is_locked(services.clock.now()) && run.known_device().is_none();
    let verdict = match verdict {
        Ok(Verified::Match { .. }) if is_locked => Ok(Verified::Mismatch),
        verdict => verdict,
    };
    if matches!(verdict, Ok(Verified::Match { .. })) {
        run.give_back_guess();
    }
    Ok(Compared { user: row, verdict })
}

impl Permit {
    /// The permit as it is now: the session may have been ended since it was gathered.
    pub(super) fn anew(&self, view: &ReadView) -> Result<Self, ReadError> {
        match self {
            Self::Session(Some((hash, _))) => session(view, *hash).map(Self::Session),
            other => Ok(other.clone()),
        }
    }

    /// What must still hold when a decision is committed that relies on it. The user's epoch is not part of it.
    pub(super) fn check(&self) -> Option<Check> {
        match self {
            Self::Session(Some((hash, session))) => Some(Check::Session(*hash, session.id)),
            _ => None,
        }
    }

    /// The signal that tells of the comparison, if there was one.
    pub(super) fn told(&self, user: &UserRow) -> Option<Signal> {
        match self {
            Self::Password(compared) => compared.told(user),
            Self::Session(_) => None,
        }
    }

    /// What signals call it when it does not hold.
    pub(super) fn failure(&self) -> Failure {
        match self {
            Self::Password(compared) => compared.failure(),
            Self::Session(_) => Failure::SessionNotFound,
        }
    }

    /// Counts a wrong password as a failed login; nothing for a session, which nobody guesses.
    pub(super) fn count_failure(
        &self,
        keys: &Keyring,
        user: &UserRow,
        now: Timestamp,
        policy: &Policy,
    ) -> Option<Write> {
        match self {
            Self::Password(_) => Some(count_failure(keys, user, now, policy)),
            Self::Session(_) => None,
        }
    }
}

impl Compared {
    #[cfg(test)]
    pub(super) const fn of(user: Option<UserRow>, verdict: Result<Verified, HashError>) -> Self {
        Self { user, verdict }
    }

    /// Whether the password is that of the user as they are now: it matched, and the epoch is still the same.
    pub(super) fn is_right_for(&self, user: &UserRow) -> bool {
        let same = self.user.as_ref().is_some_and(|then| then.id == user.id && then.epoch == user.epoch);
        same && matches!(self.verdict, Ok(Verified::Match { .. }))
    }

    /// The user whose password it was when it was compared.
    pub(super) fn matched(&self) -> Option<&UserRow> {
        self.user.as_ref().filter(|user| self.is_right_for(user))
    }

    /// Why the hasher could not compare, if it could not.
    pub(super) fn error(&self) -> Option<HashError> {
        self.verdict.err()
    }

    /// The signal that tells of the comparison, unless it was with a decoy alone.
    pub(super) fn told(&self, user: &UserRow) -> Option<Signal> {
        let (user, success) = (user.id, self.is_right_for(user));
        match self.verdict {
            Ok(Verified::Decoy) => None,
            Ok(Verified::Malformed) => Some(Signal::UserPasswordCheckFailed { user, reason: Failure::MalformedHash }),
            Ok(Verified::Match { needs_rehash }) => {
                Some(Signal::UserPasswordChecked { user, success, needs_rehash: success && needs_rehash })
            }
            Ok(_) => Some(Signal::UserPasswordChecked { user, success: false, needs_rehash: false }),
            Err(error) => Some(Signal::UserPasswordCheckFailed { user, reason: Fault::from(error).failure() }),
        }
    }

    /// What signals call it when the password is not right.
    pub(super) fn failure(&self) -> Failure {
        match self.verdict {
            Ok(Verified::Decoy) => Failure::NoPassword,
            Ok(Verified::Malformed) => Failure::MalformedHash,
            Ok(_) => Failure::IncorrectPassword,
            Err(error) => Fault::from(error).failure(),
        }
    }
}

/// Counts a wrong password as a login does.
pub(super) fn count_failure(keys: &Keyring, user: &UserRow, now: Timestamp, policy: &Policy) -> Write {
    lock::count(lock::subject_of(keys, user.id), true, now, policy)
}

/// Forgets the wrong passwords of a user, and with them a lock.
pub(super) fn forget_failures(keys: &Keyring, user: UserId) -> Write {
    Write::ClearFailures(lock::subject_of(keys, user))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::poll;
    use majordomo_model::{
        ChangePassword, ChangePasswordReason, Command, Context, Disable, Enable, Error, SessionToken, SignalKind,
    };

    use super::super::fixture::{Fixture, OTHER_PASSWORD, PASSWORD};
    use super::*;

    async fn gathered(fixture: &Fixture, user: UserId, authority: &Authority) -> Permit {
        let command = Command::new(Enable { user });
        gather(&Run::new(&fixture.services, &command, majordomo_model::FlowId::new(), None, None), user, authority)
            .await
            .unwrap()
    }

    async fn permits(fixture: &Fixture, user: UserId, authority: &Authority) -> bool {
        let permit = gathered(fixture, user, authority).await;
        still(fixture, user, &permit)
    }

    fn still(fixture: &Fixture, user: UserId, permit: &Permit) -> bool {
        let row = fixture.services.reader.user_row(user).unwrap().unwrap();
        holds(permit, &row, fixture.clock.now(), &fixture.services.policy)
    }

    #[tokio::test]
    async fn the_current_password_or_a_recent_session_of_the_same_user_permits() {
        let fixture = Fixture::new().await;
        let user = fixture.register_proven("ada", None, None).await;
        let stranger = fixture.register_proven("grace", None, None).await;
        let recent = Authority::RecentSession(fixture.session("ada").await.token);
        let jobs = fixture.services.hasher.observe().jobs_done;
        assert!(permits(&fixture, user, &Authority::Password(Password::new(PASSWORD))).await);
        let wrong = gathered(&fixture, user, &Authority::Password(Password::new("wrong"))).await;
        assert!(!still(&fixture, user, &wrong));
        assert_eq!(wrong.failure(), Failure::IncorrectPassword);
        let row = fixture.services.reader.user_row(user).unwrap().unwrap();
        let told = Signal::UserPasswordChecked { user, success: false, needs_rehash: false };
        assert_eq!(wrong.told(&row), Some(told));
        let counted = wrong.count_failure(&fixture.services.keys, &row, fixture.clock.now(), &fixture.services.policy);
        assert!(matches!(counted, Some(Write::RecordFailure(..))));
        assert_eq!(fixture.services.hasher.observe().jobs_done - jobs, 2, "one job a password, none a session");
        assert!(permits(&fixture, user, &recent).await);
        assert!(!permits(&fixture, stranger, &recent).await);
        assert!(!permits(&fixture, user, &Authority::RecentSession(SessionToken::new("mds_"))).await);
        fixture.pass(Duration::from_secs(600));
        assert!(!permits(&fixture, user, &recent).await);
    }

    #[tokio::test]
    async fn a_permit_of_an_older_epoch_does_not_hold() {
        let fixture = Fixture::new().await;
        let user = fixture.register_proven("ada", None, None).await;
        let session = fixture.session("ada").await;
        let password = gathered(&fixture, user, &Authority::Password(Password::new(PASSWORD))).await;
        let recent = gathered(&fixture, user, &Authority::RecentSession(session.token)).await;
        assert!(still(&fixture, user, &password) && still(&fixture, user, &recent));
        let (current, new) = (Password::new(PASSWORD), Password::new(OTHER_PASSWORD));
        fixture.run(ChangePassword { user, current, new, keep: Some(session.session) }).await.unwrap();
        assert!(!still(&fixture, user, &password) && !still(&fixture, user, &recent));
        let password = gathered(&fixture, user, &Authority::Password(Password::new(OTHER_PASSWORD))).await;
        fixture.run(Disable { user }).await.unwrap();
        assert!(!still(&fixture, user, &password));
        assert!(!permits(&fixture, user, &Authority::Password(Password::new(OTHER_PASSWORD))).await);
    }

    #[tokio::test]
    async fn who_waited_behind_the_guess_that_put_the_lock_on_is_not_taken_as_right() {
        let fixture = Fixture::with(Policy { lock_after: 1, ..Policy::default() }).await;
        let user = fixture.register_proven("ada", None, None).await;
        let change = |current: &str, address: &str| {
            let (current, new) = (Password::new(current), Password::new(OTHER_PASSWORD));
            let message = ChangePassword { user, current, new, keep: None };
            Command::new(message).context(Context::new().client_ip(address.parse().unwrap()))
        };
        fixture.services.hasher.hold(true);
        let mut wrong = Box::pin(fixture.run(change("wrong", "192.0.2.1")));
        let mut right = Box::pin(fixture.run(change(PASSWORD, "192.0.2.2")));
        assert!(poll!(wrong.as_mut()).is_pending() && poll!(right.as_mut()).is_pending());
        fixture.services.hasher.hold(false);
        let incorrect = Err(Error::Refused(ChangePasswordReason::IncorrectPassword));
        assert_eq!(wrong.await, incorrect);
        assert_eq!(right.await, incorrect);
        assert!(fixture.kinds_after(0).contains(&SignalKind::UserLocked));
    }
}
