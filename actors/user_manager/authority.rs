//! Authority: whether whoever asks has shown that they may change how the account is reached (ASVS 7.5.1).

use majordomo_model::{Authority, Failure, Identifier, Password, Signal, Timestamp, UserId, UserStatus};

use super::flow::{Fault, Perform, Run};
use super::policy::Policy;
use super::session::is_live;
use crate::hasher::{HashError, Verified};
use crate::keys::Keyring;
use crate::session_secret;
use crate::storage::{Lookup, SessionRow, UserRow, Write};

/// What was shown, gathered before anything is decided; what it is worth is for [`holds`] to say, each time anew.
pub(super) enum Permit {
    /// A password, compared.
    Password(Compared),
    /// The session that a token names, if it names one.
    Session(Option<SessionRow>),
}

/// A password, compared with a user's credential.
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
            Ok(Permit::Password(compared))
        }
        Authority::RecentSession(token) => {
            let hash = session_secret::hash(token.expose());
            let session = run.services.reader.snapshot(|view| hash.map_or(Ok(None), |hash| view.session(&hash)))?;
            Ok(Permit::Session(session))
        }
    }
}

/// Whether a permit is good for the user as they are now: one of an older epoch is not.
pub(super) fn holds(permit: &Permit, user: &UserRow, now: Timestamp, policy: &Policy) -> bool {
    match permit {
        Permit::Password(compared) => user.status == UserStatus::Active && compared.is_right_for(user),
        Permit::Session(session) => session.as_ref().is_some_and(|session| {
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
    let (row, stored) = services.reader.snapshot(|view| Ok((view.user(user)?, view.credential(user)?)))?;
    let stored = stored.map(|credential| credential.phc);
    let decoy = services.keys.decoy_seed(&user.to_string());
    let password = services.policy.password_to_compare(password);
    let verdict = services.hasher.verify(password, stored, decoy, run.deadline).await;
    Ok(Compared { user: row, verdict })
}

impl Permit {
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
            Self::Password(_) => count_failure(keys, user, now, policy),
            Self::Session(_) => None,
        }
    }
}

impl Compared {
    /// Whether the password is that of the user as they are now: it matched, and the epoch is still the same.
    pub(super) fn is_right_for(&self, user: &UserRow) -> bool {
        let same = self.user.as_ref().is_some_and(|then| then.id == user.id && then.epoch == user.epoch);
        same && matches!(self.verdict, Ok(Verified::Match { .. }))
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

/// Counts a wrong password where a login by the user's first name would count it.
pub(super) fn count_failure(keys: &Keyring, user: &UserRow, now: Timestamp, policy: &Policy) -> Option<Write> {
    failure_subjects(keys, user).next().map(|subject| Write::RecordFailure(subject, now, policy.failures_keep))
}

/// Forgets the failed attempts at each name of a user.
pub(super) fn forget_failures(keys: &Keyring, user: &UserRow) -> Vec<Write> {
    failure_subjects(keys, user).map(Write::ClearFailures).collect()
}

/// The keyed hashes that failed logins are counted under: of the username, then of each proven address.
fn failure_subjects(keys: &Keyring, user: &UserRow) -> impl Iterator<Item = [u8; 32]> {
    let username = user.username.iter().map(|username| Identifier::from(username.word()));
    let proven = user.contacts.iter().filter(|contact| contact.proven_at.is_some());
    let names = username.chain(proven.map(|contact| Identifier::from(contact.address())));
    names.map(|name| keys.identifier_hash(name.kind().as_str(), name.canonical()))
}
