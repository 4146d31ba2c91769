//! Authenticate: an identifier and a password become a session.

use majordomo_model::{
    Authenticate, AuthenticateReason, DeviceToken, Error, Failure, Identifier, IdentifierKind, LimitedAction, LoggedIn,
    LoginMethod, Personal, RevocationCause, SessionId, SessionToken, Signal, Timestamp, UserId, UserStatus,
};
use serde::{Deserialize, Serialize};

use super::flow::{Answer, Decision, Fault, Perform, Run, Services, Told};
use super::known_device;
use super::lock::{self, Failures};
use super::policy::{Policy, revoked, seal_key, shown, typed};
use super::rehash::Rehash;
use super::throttle::{Counted, Reservation, Subject};
use crate::guard::Proposal;
use crate::hasher::{HashError, Place, Rank, Verified};
use crate::session_secret;
use crate::storage::{Check, Lookup, ReadError, ReadView, SessionRow, StoredCredential, UniqueKey, UserRow, Write};

/// What is drawn, not decided.
struct Fresh {
    token: SessionToken,
    hash: [u8; 32],
    session: SessionId,
    /// What the client keeps, if it gets in.
    device: DeviceToken,
}

/// What is known about the attempt, whatever the store says when it is decided.
struct Attempt {
    /// What was typed, if it can name a user at all.
    identifier: Option<Identifier>,
    /// The keyed hash that failures are counted under: the user's, or that of a name that is nobody's.
    subject: [u8; 32],
    /// What failures of the device that it comes from are counted under, if the user signed in from that before.
    device: Option<[u8; 32]>,
    /// What was typed, as signals show it.
    shown: Personal,
    /// The user and the credential that the password was compared with.
    compared: Option<(UserRow, Option<StoredCredential>)>,
    /// What the comparison showed.
    verdict: Result<Verified, HashError>,
    /// The session that the same command opened before.
    repeated: Option<[u8; 32]>,
}

impl Attempt {
    /// Leaves the password to be hashed anew, once the caller is answered, if the stored hash has other parameters.
    fn note_rehash(&self, message: &Authenticate, services: &Services) {
        if let (Some((user, Some(credential))), Ok(Verified::Match { needs_rehash: true })) =
            (&self.compared, &self.verdict)
        {
            let (user, epoch, revision) = (user.id, user.epoch, credential.revision);
            let password = services.policy.password_to_compare(&message.password).normalised;
            services.rehashes.note(Rehash { user, password, revision, epoch });
        }
    }
}

/// What the store says.
struct Facts {
    user: Option<UserRow>,
    failures: Failures,
    /// The user's oldest sessions, as many as may have to give way.
    sessions: Vec<([u8; 32], SessionRow)>,
    /// How many they have beside those.
    more_sessions: usize,
    now: Timestamp,
}

impl Facts {
    fn read(view: &ReadView, attempt: &Attempt, policy: &Policy, now: Timestamp) -> Result<Self, ReadError> {
        let user = attempt.identifier.as_ref().map_or(Ok(None), |identifier| view.user_named(identifier))?;
        let failures = Failures::read(view, attempt.subject)?;
        let mut facts = Self { user, failures, sessions: Vec::new(), more_sessions: 0, now };
        // Only for whoever may enter: a wrong password costs the same with sessions as without a user.
        let is_locked = facts.failures.is_locked(now) && attempt.device.is_none();
        let matched = matches!(attempt.verdict, Ok(Verified::Match { .. })) && !is_locked;
        if let Some(user) = facts.user.as_ref().filter(|_| matched) {
            let kept = if attempt.repeated.is_some() { 0 } else { policy.sessions_per_user.saturating_sub(1) };
            (facts.sessions, facts.more_sessions) = view.oldest_sessions(user.id, kept)?;
        }
        Ok(facts)
    }
}

/// Facts in, batch out.
fn decide(attempt: &Attempt, fresh: &Fresh, facts: &Facts, run: &Terms<'_>) -> Decision<Authenticate> {
    let compared = attempt.compared.as_ref().map(|(user, _)| user);
    // The password was right if it matched the credential of the epoch that the user is in now.
    let current = match (compared, &facts.user) {
        (Some(compared), Some(user)) => compared.id == user.id && compared.epoch == user.epoch,
        _ => false,
    };
    // Whoever guesses is not told that the last guess was right.
    let is_locked = facts.failures.is_locked(facts.now) && attempt.device.is_none();
    match (&attempt.verdict, &facts.user) {
        (Err(error), _) => unhashed(attempt, facts, *error),
        (Ok(_), Some(user)) if is_locked => locked(attempt, facts, user, run.policy),
        (Ok(Verified::Match { needs_rehash }), Some(user)) if current => {
            if user.status == UserStatus::Active && (!run.policy.must_verify || may_enter(user)) {
                signed_in(attempt, fresh, facts, user, *needs_rehash, run)
            } else {
                shut_out(attempt, facts, user, *needs_rehash, run.policy)
            }
        }
        (Ok(verdict), _) => wrong(attempt, facts, *verdict, run.policy),
    }
}

/// What a decision is bound to beside facts.
struct Terms<'a> {
    policy: &'a Policy,
    context: &'a majordomo_model::Context,
}

/// A user who registered with addresses must prove one first. What is claimed later shuts nobody out.
const fn may_enter(user: &UserRow) -> bool {
    user.verify_by.is_none()
}

fn signed_in(
    attempt: &Attempt,
    fresh: &Fresh,
    facts: &Facts,
    user: &UserRow,
    needs_rehash: bool,
    terms: &Terms<'_>,
) -> Decision<Authenticate> {
    let (now, policy) = (facts.now, terms.policy);
    let session = SessionRow {
        id: fresh.session,
        user: user.id,
        epoch: user.epoch,
        created_at: now,
        last_seen_at: now,
        expires_at: now.plus(policy.session_lifetime),
        context: terms.context.clone(),
    };
    let mut checks = vec![Check::Epoch(user.id, user.epoch)];
    checks.extend(attempt.identifier.iter().map(|name| Check::Owner(UniqueKey::identifier(name), Some(user.id))));
    let mut writes = vec![Write::RecordLogin(user.id, now)];
    writes.push(facts.failures.forget(attempt.device, now));
    let mut told = vec![Told::from(Signal::UserPasswordChecked { user: user.id, success: true, needs_rehash })];
    let repeated = |hash: &[u8; 32]| Some(*hash) == attempt.repeated;
    let others: Vec<_> = facts.sessions.iter().filter(|(hash, _)| !repeated(hash)).collect();
    let surplus = (others.len() + facts.more_sessions + 1).saturating_sub(policy.sessions_per_user);
    let again = facts.sessions.iter().filter(|(hash, _)| repeated(hash)).map(|old| (old, RevocationCause::Repeated));
    let evicted = others.into_iter().take(surplus).map(|old| (old, RevocationCause::Evicted));
    let ended: Vec<_> = again.chain(evicted).collect();
    // As long as there is room for one more, logins do not disturb each other; each session that gives way does so once.
    let most = policy.sessions_per_user.saturating_sub(1).saturating_add(ended.len());
    checks.push(Check::SessionsAtMost(user.id, most));
    for ((hash, old), cause) in ended {
        checks.push(Check::Session(*hash, old.id));
        writes.push(Write::RemoveSession(*hash));
        told.extend(revoked([old], cause).into_iter().map(Told::from));
    }
    writes.push(Write::PutSession(fresh.hash, Box::new(session.clone())));
    let (method, session_id, failures) = (LoginMethod::Password, Some(session.id), facts.failures.counted(now));
    let end = Signal::UserAuthenticated { user: user.id, method, session: session_id, failures };
    let (token, device, expires_at) = (fresh.token.clone(), fresh.device.clone(), session.expires_at);
    let answer = Ok(LoggedIn { user: user.id, token, session: session.id, expires_at, device });
    Decision { checks, writes, told, end, subject: Some((user.id, seal_key(user))), answer }
}

/// The right password, and still no entry: disabled looks like a wrong password, unverified is told.
fn shut_out(
    attempt: &Attempt,
    facts: &Facts,
    user: &UserRow,
    needs_rehash: bool,
    policy: &Policy,
) -> Decision<Authenticate> {
    let (reason, answer) = if user.status == UserStatus::Active {
        (Failure::EmailNotVerified, AuthenticateReason::EmailNotVerified)
    } else {
        (Failure::UserInactive, AuthenticateReason::InvalidCredentials)
    };
    let checked = Signal::UserPasswordChecked { user: user.id, success: true, needs_rehash };
    let counted = if answer == AuthenticateReason::InvalidCredentials {
        Some(lock::count(attempt.subject, true, facts.now, policy))
    } else {
        Some(facts.failures.forget(attempt.device, facts.now))
    };
    let refusal = refused(attempt, Some(user), Some(checked), reason, answer, counted);
    let mut checks = refusal.checks;
    checks.push(Check::UserVersion(user.id, user.version));
    Decision { checks, ..refusal }
}

/// Nobody but a known device gets in: it looks like a wrong password, and what the right one is worth is not told.
fn locked(attempt: &Attempt, facts: &Facts, user: &UserRow, policy: &Policy) -> Decision<Authenticate> {
    let (reason, answer) = (Failure::UserLocked, AuthenticateReason::InvalidCredentials);
    // Counted at the name, as if it were nobody's, so that it costs what any wrong password costs.
    let typed = attempt.shown.hash().copied().unwrap_or_default();
    let counted = Some(lock::count(typed, false, facts.now, policy));
    refused(attempt, Some(user), None, reason, answer, counted)
}

fn wrong(attempt: &Attempt, facts: &Facts, verdict: Verified, policy: &Policy) -> Decision<Authenticate> {
    // A user who was deleted since, or lost the name, is none that this attempt could be told of.
    let compared = attempt.compared.as_ref().map(|(user, _)| user.id);
    let user = facts.user.as_ref().filter(|user| Some(user.id) == compared);
    let (checked, reason) = match (user, verdict) {
        (Some(user), Verified::Malformed) => (
            Some(Signal::UserPasswordCheckFailed { user: user.id, reason: Failure::MalformedHash }),
            Failure::MalformedHash,
        ),
        (Some(_), Verified::Decoy) => (None, Failure::NoPassword),
        (Some(user), _) => (
            Some(Signal::UserPasswordChecked { user: user.id, success: false, needs_rehash: false }),
            Failure::IncorrectPassword,
        ),
        (None, _) => (None, Failure::UserNotFound),
    };
    let counted = Some(lock::count(attempt.subject, compared.is_some(), facts.now, policy));
    refused(attempt, user, checked, reason, AuthenticateReason::InvalidCredentials, counted)
}

fn refused(
    attempt: &Attempt,
    user: Option<&UserRow>,
    checked: Option<Signal>,
    reason: Failure,
    answer: AuthenticateReason,
    counted: Option<Write>,
) -> Decision<Authenticate> {
    Decision {
        checks: user.map(|user| Check::Epoch(user.id, user.epoch)).into_iter().collect(),
        writes: counted.into_iter().collect(),
        told: checked.into_iter().map(Told::from).collect(),
        end: failed(attempt, user, reason),
        subject: user.map(|user| (user.id, seal_key(user))),
        answer: Err(Error::Refused(answer)),
    }
}

/// The hasher could not compare: nothing is known about the password.
fn unhashed(attempt: &Attempt, facts: &Facts, error: HashError) -> Decision<Authenticate> {
    let fault = Fault::from(error);
    let user = facts.user.as_ref();
    let told = user.map(|user| Signal::UserPasswordCheckFailed { user: user.id, reason: fault.failure() });
    Decision {
        checks: user.map(|user| Check::Epoch(user.id, user.epoch)).into_iter().collect(),
        writes: Vec::new(),
        told: told.into_iter().map(Told::from).collect(),
        end: failed(attempt, user, fault.failure()),
        subject: user.map(|user| (user.id, seal_key(user))),
        answer: Err(fault.error()),
    }
}

fn failed(attempt: &Attempt, user: Option<&UserRow>, reason: Failure) -> Signal {
    Signal::UserAuthenticationFailed { identifier: attempt.shown.clone(), user: user.map(|user| user.id), reason }
}

impl Perform for Authenticate {
    fn started(&self, services: &Services) -> Signal {
        let identifier = Identifier::guess(&self.identifier).ok();
        let identifier_kind = identifier.as_ref().map_or(IdentifierKind::Username, Identifier::kind);
        let identifier = shown(&services.keys, &self.identifier, identifier.as_ref());
        Signal::UserAuthenticationStarted { identifier_kind, identifier }
    }

    fn admit(
        services: &Services,
        reservation: Option<&Reservation>,
    ) -> Result<Option<Place>, Error<AuthenticateReason>> {
        services.placed(match reservation {
            Some(Reservation { precedence: Some(_), rank, .. }) => services.hasher.keep_place_for_known_device(*rank),
            Some(Reservation { rank, .. }) => services.hasher.keep_place_for_login(*rank),
            None => services.hasher.keep_place_for_login(Rank::FIRST),
        })
    }

    fn failed(&self, services: &Services, why: Failure) -> Signal {
        let identifier = typed(&services.keys, &self.identifier);
        Signal::UserAuthenticationFailed { identifier, user: None, reason: why }
    }

    fn proposal(&self, _decision: &Decision<Self>) -> Option<Proposal> {
        let identifier_kind = Identifier::guess(&self.identifier).ok()?.kind();
        Some(Proposal::Authenticate { identifier_kind })
    }

    /// The password was right all the same, and whose it is is known.
    fn stopped(&self, services: &Services, decision: &Decision<Self>, why: Failure) -> (Vec<Told>, Signal) {
        let is_checked = |told: &&Told| matches!(told.signal, Signal::UserPasswordChecked { .. });
        let told = decision.told.iter().filter(is_checked).cloned().collect();
        let (identifier, user) = (typed(&services.keys, &self.identifier), decision.subject.map(|(user, _)| user));
        (told, Signal::UserAuthenticationFailed { identifier, user, reason: why })
    }

    fn counted(&self) -> Vec<Counted<'_>> {
        vec![Counted::login(Subject::Named(&self.identifier))]
    }

    fn counts(_action: LimitedAction, answer: &Answer<Self>) -> bool {
        matches!(answer, Err(Error::Refused(AuthenticateReason::InvalidCredentials)))
    }

    fn is_discreet(answer: &Answer<Self>) -> bool {
        matches!(answer, Err(Error::Refused(AuthenticateReason::InvalidCredentials)))
    }

    async fn perform(&self, run: &Run<'_, Self>) -> Result<Answer<Self>, Fault> {
        let services = run.services;
        let attempt = attempt(self, run).await?;
        let (token, hash) = session_secret::generate(services.clock.now())?;
        let known = run.known_device();
        // Drawn for nobody as well, so that it costs the same.
        let compared = attempt.compared.as_ref().map_or((UserId::new(), 0), |(user, _)| (user.id, user.epoch));
        let device = known_device::issue(services, compared, known)?;
        let (token, session) = (SessionToken::new(token.as_str()), SessionId::new());
        let fresh = Fresh { token, hash, session, device };
        let terms = Terms { policy: &services.policy, context: &run.command.context };
        let facts = |view: &ReadView, now| Facts::read(view, &attempt, &services.policy, now);
        let answer = run.settle(|view, now| Ok(decide(&attempt, &fresh, &facts(view, now)?, &terms))).await?;
        if answer.is_ok() {
            attempt.note_rehash(self, services);
        }
        Ok(answer)
    }

    fn remember(answer: &Result<LoggedIn, AuthenticateReason>) -> Vec<u8> {
        let opened = answer.as_ref().ok().map(|opened| Opened { user: opened.user, session: opened.session });
        rmp_serde::to_vec_named(&opened).unwrap_or_default()
    }

    /// A repeated login is a new login: the secret of the first cannot be told again.
    fn recall(_remembered: &[u8]) -> Option<Result<LoggedIn, AuthenticateReason>> {
        None
    }
}

/// What is remembered of a login.
#[derive(Serialize, Deserialize)]
struct Opened {
    user: UserId,
    session: SessionId,
}

/// Looks the user up and compares the password: one job of the same cost, whether or not there is a user.
async fn attempt(message: &Authenticate, run: &Run<'_, Authenticate>) -> Result<Attempt, Fault> {
    let services = run.services;
    let identifier = Identifier::guess(&message.identifier).ok();
    let shown = shown(&services.keys, &message.identifier, identifier.as_ref());
    let repeated = run.earlier.as_ref().and_then(|row| rmp_serde::from_slice::<Option<Opened>>(&row.outcome).ok()?);
    let (compared, repeated) = services.reader.snapshot(|view| {
        let user = identifier.as_ref().map_or(Ok(None), |identifier| view.user_named(identifier))?;
        let compared = match user {
            Some(user) => Some((view.credential(user.id)?, user)),
            None => None,
        };
        let sessions = repeated.as_ref().map_or(Ok(Vec::new()), |opened| view.sessions_of(opened.user))?;
        let same = |session: &SessionRow| repeated.as_ref().is_some_and(|opened| opened.session == session.id);
        let repeated = sessions.into_iter().find(|(_, session)| same(session)).map(|(hash, _)| hash);
        Ok((compared.map(|(credential, user)| (user, credential)), repeated))
    })?;
    let password = services.policy.password_to_compare(&message.password);
    // What the keys do not open is as malformed as a text that is no hash.
    let stored = compared
        .as_ref()
        .and_then(|(user, credential)| Some(credential.as_ref()?.open(&services.keys, user.id).unwrap_or_default()));
    let decoy =
        services.keys.decoy_seed(identifier.as_ref().map_or(message.identifier.as_str(), Identifier::canonical));
    let subject = compared.as_ref().map(|(user, _)| lock::subject_of(&services.keys, user.id));
    let subject = subject.or_else(|| shown.hash().copied()).unwrap_or_default();
    run.take_guess(subject, compared.is_some()).await?;
    let device = run.known_device().map(|device| device.subject(&services.keys));
    let verdict = run.verify(password, stored, decoy).await;
    if matches!(verdict, Ok(Verified::Match { .. })) {
        run.give_back_guess();
    }
    Ok(Attempt { identifier, subject, device, shown, compared, verdict, repeated })
}

#[cfg(test)]
mod tests {
    use majordomo_model::{Context, SignalKind, TokenPurpose};
    use proptest::prelude::*;

    use super::super::fixture::{Fixture, NOW, any_sessions, any_user, assert_one_end};
    use super::*;
    use crate::keys::Keyring;
    use crate::storage::AttemptRow;

    #[tokio::test]
    async fn the_right_password_opens_a_session_and_tells_so() {
        let fixture = Fixture::new().await;
        fixture.register("ada", None, None).await;
        let head = fixture.head();
        let opened = fixture.session("ADA").await;
        assert_eq!(
            fixture.kinds_after(head),
            [SignalKind::UserAuthenticationStarted, SignalKind::UserPasswordChecked, SignalKind::UserAuthenticated]
        );
        let hash = session_secret::hash(opened.token.expose()).unwrap();
        let (session, user) = fixture.services.reader.session(&hash).unwrap().unwrap();
        assert_eq!((session.id, user.id), (opened.session, opened.user));
    }

    #[tokio::test]
    async fn unknown_wrong_and_disabled_answer_alike_with_one_job_and_one_commit() {
        let fixture = Fixture::new().await;
        fixture.register("ada", None, None).await;
        for (identifier, password) in
            [("nobody", "a password that is wrong"), ("ada", "a password that is wrong"), ("@@", "x")]
        {
            let (jobs, commits) =
                (fixture.services.hasher.observe().jobs_done, fixture.services.storage.observe().batches);
            let answer = fixture.sign_in_with(identifier, password).await;
            assert_eq!(answer.unwrap_err(), Error::Refused(AuthenticateReason::InvalidCredentials));
            assert_eq!(fixture.services.hasher.observe().jobs_done - jobs, 1);
            assert_eq!(fixture.services.storage.observe().batches - commits, 1);
        }
    }

    #[tokio::test]
    async fn whatever_looks_like_a_wrong_password_is_counted_like_one() {
        let fixture = Fixture::with(Policy { lock_after: 2, ..Policy::default() }).await;
        let user = fixture.register("ada", None, None).await.user;
        fixture.disable(user).await;
        let name = typed(&fixture.services.keys, "ada").hash().copied().unwrap();
        let counted = |subject| {
            let row = fixture.services.reader.snapshot(|view| view.attempts(&subject)).unwrap();
            row.map_or(0, |row| row.failures)
        };
        let subject = lock::subject_of(&fixture.services.keys, user);
        // Right, of somebody who is disabled, until there is a lock; then at the name, as of nobody.
        for expected in [(1, 0), (2, 0), (2, 1)] {
            fixture.sign_in("ada").await.unwrap_err();
            assert_eq!((counted(subject), counted(name)), expected);
        }
    }

    #[tokio::test]
    async fn unverified_is_told_after_the_right_password_only() {
        let fixture = Fixture::new().await;
        let accepted = fixture.register("ada", Some("ada@example.com"), None).await;
        assert_eq!(accepted.email_challenge, Some(fixture.newest_token(accepted.user, TokenPurpose::VerifyEmail)));
        let wrong = fixture.sign_in_with("ada", "a password that is wrong").await;
        assert_eq!(wrong.unwrap_err(), Error::Refused(AuthenticateReason::InvalidCredentials));
        let right = fixture.sign_in("ada").await;
        assert_eq!(right.unwrap_err(), Error::Refused(AuthenticateReason::EmailNotVerified));
    }

    #[tokio::test]
    async fn fifty_parallel_right_logins_all_pass() {
        let fixture = std::sync::Arc::new(Fixture::new().await);
        fixture.register("ada", None, None).await;
        let logins = (0..50).map(|_| {
            let fixture = std::sync::Arc::clone(&fixture);
            tokio::spawn(async move { fixture.sign_in("ada").await })
        });
        for login in logins.collect::<Vec<_>>() {
            login.await.unwrap().unwrap();
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn parallel_right_logins_at_the_limit_all_pass_and_each_session_gives_way_once() {
        let policy = Policy { sessions_per_user: 10, ..Policy::default() };
        let fixture = std::sync::Arc::new(Fixture::with(policy).await);
        let user = fixture.register("ada", None, None).await.user;
        let head = fixture.head();
        let logins = (0..50).map(|_| {
            let fixture = std::sync::Arc::clone(&fixture);
            tokio::spawn(async move { fixture.sign_in("ada").await })
        });
        let mut opened = std::collections::BTreeSet::new();
        for login in logins.collect::<Vec<_>>() {
            opened.insert(login.await.unwrap().unwrap().session);
        }
        let left: Vec<_> = fixture.services.reader.sessions_of(user).unwrap().iter().map(|left| left.id).collect();
        let mut evicted: Vec<_> = fixture.services.reader.signals_after(head, usize::MAX).unwrap();
        evicted.retain(|told| told.signal.kind() == SignalKind::SessionRevoked);
        let gone: std::collections::BTreeSet<_> = evicted
            .iter()
            .filter_map(|told| match told.signal {
                Signal::SessionRevoked { session, cause: RevocationCause::Evicted, .. } => Some(session),
                _ => None,
            })
            .collect();
        assert_eq!((opened.len(), left.len(), evicted.len(), gone.len()), (50, 10, 40, 40));
        assert!(gone.is_subset(&opened) && left.iter().all(|left| !gone.contains(left)));
    }

    #[tokio::test]
    async fn a_failed_login_that_a_deletion_overtakes_is_no_matter_of_that_user() {
        let fixture = Fixture::new().await;
        let user = fixture.register("ada", None, None).await.user;
        let (identifier, password) = ("ada".to_owned(), majordomo_model::Password::new("wrong"));
        let command = majordomo_model::Command::new(Authenticate { identifier, password });
        let run = Run::new(&fixture.services, &command, majordomo_model::FlowId::new(), None, None);
        let attempt = attempt(&command.message, &run).await.unwrap();
        let (token, hash) = session_secret::generate(fixture.clock.now()).unwrap();
        let (token, session) = (SessionToken::new(token.as_str()), SessionId::new());
        let fresh = Fresh { token, hash, session, device: DeviceToken::new("device") };
        let terms = Terms { policy: &fixture.services.policy, context: &command.context };
        let decided = || {
            let now = fixture.clock.now();
            let facts =
                fixture.services.reader.snapshot(|view| Facts::read(view, &attempt, terms.policy, now)).unwrap();
            decide(&attempt, &fresh, &facts, &terms)
        };
        let before = decided();
        assert_eq!(before.subject.map(|(user, _)| user), Some(user));
        fixture.run(majordomo_model::Delete::new(user)).await.unwrap();
        assert!(!fixture.commit(before).await);
        let after = decided();
        assert!(after.subject.is_none() && after.told.is_empty());
        let Signal::UserAuthenticationFailed { user: None, reason: Failure::UserNotFound, .. } = after.end else {
            panic!("{:?}", after.end);
        };
    }

    proptest! {
        #[test]
        fn whatever_the_facts_it_ends_once_and_lets_in_only_who_may_enter(
            (then, user) in (prop::option::of(any_user()), prop::option::of(any_user())),
            sessions in any_sessions(),
            more_sessions in 0_usize..3,
            (sessions_per_user, repeated) in (1_usize..4, prop::option::of((0_u8..5).prop_map(|first| [first; 32]))),
            (is_known_device, count, locked_for) in (any::<bool>(), 0_u64..120, prop::option::of(-9_i64..9)),
            verdict in prop_oneof![
                Just(Ok(Verified::Match { needs_rehash: true })),
                Just(Ok(Verified::Match { needs_rehash: false })),
                Just(Ok(Verified::Mismatch)),
                Just(Ok(Verified::Malformed)),
                Just(Ok(Verified::Decoy)),
                Just(Err(HashError::Overloaded)),
                Just(Err(HashError::Failed)),
            ],
        ) {
            let policy = Policy { sessions_per_user, ..Policy::default() };
            let more_sessions = if repeated.is_some() { 0 } else { more_sessions.min(sessions_per_user - 1) };
            let had = sessions.len() + more_sessions;
            let is_locked = count > 0 && locked_for.is_some_and(|seconds| seconds > 0) && !is_known_device;
            let may = !is_locked
                && matches!(verdict, Ok(Verified::Match { .. }))
                && then.as_ref().zip(user.as_ref()).is_some_and(|(then, user)| {
                    then.epoch == user.epoch && user.status == UserStatus::Active && user.verify_by.is_none()
                });
            let credential = StoredCredential::unsealed(&crate::storage::CredentialRow::new("old", 1, NOW));
            let attempt = Attempt {
                identifier: Identifier::guess("ada").ok(),
                subject: [3; 32],
                device: is_known_device.then_some([4; 32]),
                shown: typed(&Keyring::ephemeral().unwrap(), "ada"),
                compared: then.map(|then| (then, Some(credential))),
                verdict,
                repeated,
            };
            let fresh = Fresh {
                token: SessionToken::new("token"),
                hash: [9; 32],
                session: SessionId::new(),
                device: DeviceToken::new("device"),
            };
            let locked_until = locked_for.map(|seconds| Timestamp::from_micros(NOW.as_micros() + seconds * 1_000_000));
            let row = AttemptRow { failures: count, expires_at: NOW.plus(std::time::Duration::from_secs(9)), locked_until, ..AttemptRow::default() };
            let failures = Failures::of([3; 32], (count > 0).then_some(row));
            let facts = Facts { user, failures, sessions, more_sessions, now: NOW };
            let decision = decide(&attempt, &fresh, &facts, &Terms { policy: &policy, context: &Context::new() });
            assert_one_end(&decision);
            prop_assert_eq!(decision.answer.is_ok(), may);
            prop_assert_eq!(decision.end.kind() == SignalKind::UserAuthenticated, may);
            let opened = decision.writes.iter().filter(|write| matches!(write, Write::PutSession(..))).count();
            prop_assert_eq!(opened, usize::from(may));
            if may {
                let ended = decision.writes.iter().filter(|write| matches!(write, Write::RemoveSession(_))).count();
                prop_assert!(had < sessions_per_user + ended, "there is room for one more");
            }
        }
    }
}
