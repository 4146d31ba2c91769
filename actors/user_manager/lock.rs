//! The lock: after too many wrong passwords in a row only a known device signs in as a user, for a while (SP 800-63B, 3.2.2).

use std::time::Duration;

use majordomo_model::{Signal, Timestamp, TokenPurpose, UserId};

use super::flow::{Decision, Perform, Run, Services, Told};
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

/// What a wrong password leaves behind.
#[derive(Debug, Default)]
struct Counted {
    checks: Vec<Check>,
    writes: Vec<Write>,
    told: Vec<Told>,
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
    fn one_more(&self, user: &UserRow, unlock: FreshToken, now: Timestamp, policy: &Policy) -> Counted {
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

    /// Forgets them after a success. A known device passes a lock, and leaves it to whoever guesses: then only its own are
    /// forgotten.
    pub(super) fn forget(&self, device: Option<[u8; 32]>, now: Timestamp) -> Write {
        match device {
            Some(device) if self.is_locked(now) => Write::ClearFailures(device),
            _ => self.lift(),
        }
    }

    /// Forgets them, and lifts the lock, whoever asks.
    pub(super) const fn lift(&self) -> Write {
        Write::ClearFailures(self.subject)
    }
}

/// A wrong password as a flow counts it, of a user or at a name that is nobody's. What that comes to for a user is for
/// [`completed`] to say, whichever flow it is.
pub(super) fn count(subject: [u8; 32], is_somebody: bool, now: Timestamp, policy: &Policy) -> Write {
    Write::RecordFailure(subject, now, if is_somebody { policy.failures_keep } else { NOBODYS_KEEP })
}

/// Completes a decision that counts a wrong password of its user, or forgets those that were counted: with what puts a
/// lock on, and with what tells that one is lifted.
pub(super) fn completed<F: Perform>(
    run: &Run<'_, F>,
    view: &ReadView,
    mut decision: Decision<F>,
    now: Timestamp,
) -> Result<Decision<F>, ReadError> {
    // Most flows do neither, and are spared the keyed hashes.
    let is_concerned = |write: &Write| matches!(write, Write::RecordFailure(..) | Write::ClearFailures(_));
    let Some((id, _)) = decision.subject.filter(|_| decision.writes.iter().any(is_concerned)) else {
        return Ok(decision);
    };
    let Services { keys, policy, tokens, .. } = run.services;
    let subject = subject_of(keys, id);
    let device = run.known_device().map(|device| device.subject(keys));
    let counts = |write: &Write| matches!(write, Write::RecordFailure(of, ..) if *of == subject);
    let forgets = |write: &Write| matches!(write, Write::ClearFailures(of) if *of == subject);
    let is_gone = decision.writes.iter().any(|write| matches!(write, Write::RemoveUser(_)));
    if decision.writes.iter().any(counts)
        && let Some(user) = view.user(id)?
    {
        decision.writes.retain(|write| !counts(write));
        let unlock = FreshToken::draw(tokens.current_key());
        let counted = Failures::read(view, subject)?.one_more(&user, unlock, now, policy);
        decision.checks.extend(counted.checks);
        decision.writes.extend(counted.writes);
        decision.told.extend(counted.told);
        // A device ends with what is counted here, and not for a while: it is counted for as long as that may be known.
        let keep = policy.failures_keep.max(policy.device_lifetime);
        decision.writes.extend(device.map(|device| Write::RecordFailure(device, now, keep)));
    } else if decision.writes.iter().any(forgets) && !is_gone {
        let failures = Failures::read(view, subject)?;
        if failures.is_locked(now) {
            decision.told.push(Signal::UserUnlocked { user: id }.into());
            decision.checks.push(Check::Attempts(subject, failures.row));
        } else {
            decision.checks.push(Check::Unlocked(subject, now));
        }
        decision.writes.extend(device.map(Write::ClearFailures));
    }
    Ok(decision)
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;
    use majordomo_model::{Authenticate, Command, DeviceToken, Failure, Password};

    use super::super::fixture::{Fixture, PASSWORD};
    use super::super::flow::Answer;
    use super::super::limits::Limits;
    use super::*;

    /// With nothing but a lock, after three wrong passwords.
    async fn locking(policy: Policy) -> Fixture {
        let fixture = Fixture::with(Policy { lock_after: 3, limits: Limits::none(), ..policy }).await;
        fixture.register_proven("ada", None, None).await;
        fixture
    }

    async fn lock(fixture: &Fixture) {
        for _ in 0..3 {
            fixture.sign_in_with("ada", "wrong").await.unwrap_err();
        }
    }

    async fn from(fixture: &Fixture, device: &DeviceToken, text: &str) -> Answer<Authenticate> {
        let message = Authenticate { identifier: "ada".to_owned(), password: Password::new(text) };
        fixture.run(Command::new(message).device(device.clone())).await
    }

    /// How many guesses were compared with the password, and how many were refused whatever they were.
    fn judged(fixture: &Fixture) -> [usize; 2] {
        let ended = |wanted: Failure| {
            let is_so = |signal: &Signal| matches!(signal, Signal::UserAuthenticationFailed { reason, .. } if *reason == wanted);
            fixture.signals().iter().filter(|told| is_so(&told.signal)).count()
        };
        [Failure::IncorrectPassword, Failure::UserLocked].map(ended)
    }

    #[tokio::test]
    async fn of_guesses_at_once_from_one_device_no_more_are_compared_than_make_it_unknown() {
        let fixture = locking(Policy::default()).await;
        let device = fixture.sign_in("ada").await.unwrap().device;
        lock(&fixture).await;
        assert_eq!(judged(&fixture), [3, 0]);
        fixture.services.hasher.hold(true);
        let guesses = join_all((0..20).map(|_| from(&fixture, &device, "wrong")));
        tokio::pin!(guesses);
        assert!(futures_util::poll!(&mut guesses).is_pending());
        fixture.services.hasher.hold(false);
        assert!(guesses.await.iter().all(Result::is_err));
        assert_eq!(judged(&fixture), [3 + 3, 20 - 3]);
        from(&fixture, &device, PASSWORD).await.unwrap_err();
    }

    #[tokio::test]
    async fn a_device_that_signs_in_begins_to_count_anew_also_while_there_is_a_lock() {
        for is_locked in [false, true] {
            let fixture = locking(Policy::default()).await;
            let device = fixture.sign_in("ada").await.unwrap().device;
            if is_locked {
                lock(&fixture).await;
            }
            for _ in 0..3 {
                for _ in 0..2 {
                    from(&fixture, &device, "wrong").await.unwrap_err();
                }
                from(&fixture, &device, PASSWORD).await.unwrap();
            }
            lock(&fixture).await;
            from(&fixture, &device, PASSWORD).await.unwrap();
            fixture.sign_in("ada").await.unwrap_err();
        }
    }

    #[tokio::test]
    async fn a_lock_outlasts_what_it_was_put_on_for() {
        let hour = Duration::from_secs(3_600);
        let fixture = locking(Policy { failures_keep: hour, lock_lifetime: 3 * hour, ..Policy::default() }).await;
        lock(&fixture).await;
        fixture.pass(2 * hour);
        fixture.write(Vec::new(), vec![Write::Sweep(fixture.clock.now(), 100)]).await;
        fixture.sign_in("ada").await.unwrap_err();
        fixture.pass(hour);
        fixture.write(Vec::new(), vec![Write::Sweep(fixture.clock.now(), 100)]).await;
        fixture.sign_in("ada").await.unwrap();
    }
}
