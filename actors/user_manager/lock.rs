//! The lock: after too many wrong passwords in a row only a known device signs in as a user, for a while (SP 800-63B, 3.2.2).

use std::time::Duration;

use majordomo_model::{Flow, Signal, Timestamp, TokenPurpose, UserId};

use super::flow::{Decision, Services, Told};
use super::fresh_token::FreshToken;
use super::policy::Policy;
use super::undo::told_first;
use crate::keys::Keyring;
use crate::storage::{AttemptRow, Check, Lookup, ReadError, ReadView, UserRow, Write};
use crate::token::Binding;

/// How long failures are remembered at a name that is nobody's.
const NOBODYS_KEEP: Duration = Duration::from_secs(24 * 3_600);

/// What failures of a user are counted under, whatever they were named by.
pub(super) fn subject_of(keys: &Keyring, user: UserId) -> [u8; 32] {
    keys.identifier_hash("account", &user.to_string())
}

/// The failed attempts to sign in as somebody.
#[derive(Clone, Debug)]
pub(super) struct Failures {
    subject: [u8; 32],
    row: Option<AttemptRow>,
}

/// What an attempt leaves behind.
#[derive(Debug, Default)]
pub(super) struct Counted {
    pub(super) checks: Vec<Check>,
    pub(super) writes: Vec<Write>,
    pub(super) told: Vec<Told>,
}

impl Failures {
    #[cfg(test)]
    pub(super) const fn of(subject: [u8; 32], row: Option<AttemptRow>) -> Self {
        Self { subject, row }
    }

    pub(super) fn read<V: Lookup>(view: &V, subject: [u8; 32]) -> Result<Self, ReadError> {
        Ok(Self { subject, row: view.attempts(&subject)? })
    }

    /// Whether only a known device may sign in.
    pub(super) fn is_locked(&self, now: Timestamp) -> bool {
        self.row.as_ref().is_some_and(|row| row.is_locked(now))
    }

    /// How many count, if any do.
    pub(super) fn counted(&self, now: Timestamp) -> Option<u64> {
        self.row.as_ref().map(|row| row.counted(now)).filter(|failures| *failures > 0)
    }

    /// How many more may fail before the lock is put on, or on again; nothing while it is. A name that is nobody's bears as
    /// many.
    pub(super) fn left(&self, is_somebody: bool, now: Timestamp, policy: &Policy) -> Option<u32> {
        let failures = self.row.as_ref().map_or(0, |row| row.counted(now));
        let left = u64::from(policy.lock_after).saturating_sub(failures);
        if self.is_locked(now) || (left == 0 && !is_somebody) {
            return None;
        }
        Some(u32::try_from(left).unwrap_or(u32::MAX).max(1))
    }

    /// Counts one more. The one that reaches the limit puts the lock on, exactly once, however many fail at a time: near
    /// the limit each expects what it read.
    pub(super) fn one_more(
        &self,
        user: Option<&UserRow>,
        unlock: FreshToken,
        now: Timestamp,
        policy: &Policy,
    ) -> Counted {
        let Some(user) = user else {
            let write = Write::RecordFailure(self.subject, now, NOBODYS_KEEP);
            return Counted { writes: vec![write], ..Counted::default() };
        };
        if self.is_locked(now) {
            return Counted::default();
        }
        let most = u64::from(policy.lock_after);
        let failures = self.row.as_ref().map_or(0, |row| row.counted(now)).saturating_add(1);
        if failures < most {
            let below = most.saturating_sub(1);
            return Counted {
                checks: vec![Check::FailuresBelow(self.subject, below, now)],
                writes: vec![Write::RecordFailure(self.subject, now, policy.failures_keep)],
                told: Vec::new(),
            };
        }
        let until = now.plus(policy.lock_lifetime);
        let expires_at = now.plus(policy.failures_keep.max(policy.lock_lifetime));
        let row = AttemptRow { failures, last_at: now, expires_at, locked_until: Some(until) };
        let mut writes = vec![Write::PutAttempts(self.subject, row)];
        // The message that tells of it encloses the link that lifts it.
        let told = told_first(user).map(|contact| {
            let binding = Binding::CredentialEpoch(user.epoch);
            unlock.row(TokenPurpose::Unlock, Some(user.id), &contact.canonical, binding, (now, until)).enclosed()
        });
        let unlock = told.as_ref().map(|token| token.id);
        writes.extend(told.map(|token| Write::PutToken(Box::new(token))));
        let checks = vec![Check::Attempts(self.subject, self.row.clone()), Check::UserVersion(user.id, user.version)];
        Counted { checks, writes, told: vec![Signal::UserLocked { user: user.id, until, unlock }.into()] }
    }

    /// Forgets them after a success. It may be from a known device, which passes a lock and leaves it to whoever guesses.
    pub(super) fn forget(&self, is_known_device: bool, now: Timestamp) -> Counted {
        if is_known_device && self.is_locked(now) {
            return Counted::default();
        }
        let lock = (!is_known_device).then_some(Check::Unlocked(self.subject, now));
        Counted {
            checks: lock.into_iter().collect(),
            writes: vec![Write::ClearFailures(self.subject)],
            told: Vec::new(),
        }
    }

    /// Forgets them, and lifts the lock, whoever asks.
    pub(super) fn lift(&self) -> Write {
        Write::ClearFailures(self.subject)
    }
}

/// Tells of a change that lifts a lock, since it forgets the failures of a user who is locked.
pub(super) fn told_of_unlocking<F: Flow>(
    services: &Services,
    view: &ReadView,
    mut decision: Decision<F>,
    now: Timestamp,
) -> Result<Decision<F>, ReadError> {
    let Some((user, _)) = decision.subject.filter(|_| decision.answer.is_ok()) else { return Ok(decision) };
    let forgets = |write: &Write| matches!(write, Write::ClearFailures(_));
    let is_gone = decision.writes.iter().any(|write| matches!(write, Write::RemoveUser(_)));
    if !is_gone && decision.writes.iter().any(forgets) {
        let failures = Failures::read(view, subject_of(&services.keys, user))?;
        decision.told.extend(failures.is_locked(now).then(|| Signal::UserUnlocked { user }.into()));
    }
    Ok(decision)
}
