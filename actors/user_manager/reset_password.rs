//! Reset password: a token or code buys a new password.

use majordomo_model::{
    ChangeKind, Channel, Error, Failure, LimitedAction, PasswordCause, PasswordReplaced, ResetPassword,
    ResetPasswordReason, RevocationCause, Signal, Timestamp, TokenId, TokenPurpose, UserStatus,
};

use super::authority::forget_failures;
use super::common_budget::answered;
use super::epoch::{Bound, RESETS};
use super::flow::{Answer, Decision, Fault, Perform, Run, Services, recall, remember};
use super::new_password::{Offer, Unusable};
use super::policy::{Policy, password_failure, password_reason, seal_key};
use super::proof::{Judgement, Parsed, judge};
use super::throttle::Counted;
use super::undo::{Undo, told_first};
use crate::keys::Keyring;
use crate::storage::{
    ChangeRow, Check, Lookup, ReadError, ReadView, StoredCredential, TokenEnd, TokenRow, UserRow, Write,
};
use crate::token::{Binding, Tokens};

/// What the store says about a token and its user.
#[derive(Default)]
struct Facts {
    token: Option<TokenRow>,
    user: Option<UserRow>,
    credential: Option<StoredCredential>,
    bound: Bound,
    /// The user's changes that can be undone.
    changes: Vec<ChangeRow>,
    now: Timestamp,
}

impl Facts {
    fn read(view: &ReadView, token: Option<TokenId>, now: Timestamp) -> Result<Self, ReadError> {
        let token = token.map_or(Ok(None), |token| view.token(token))?;
        let Some(id) = token.as_ref().and_then(|token| token.user) else {
            return Ok(Self { token, now, ..Self::default() });
        };
        let (user, credential, bound) = (view.user(id)?, view.credential(id)?, Bound::read(view, id)?);
        Ok(Self { token, user, credential, bound, changes: view.changes_of(id)?, now })
    }
}

/// What a decision is bound to beside facts.
struct Terms<'a> {
    tokens: &'a Tokens,
    keys: &'a Keyring,
    policy: &'a Policy,
    undo: Undo<'a>,
}

/// What the proof is worth now.
enum Standing<'a> {
    /// It buys this user a new password.
    Good(&'a TokenRow, &'a UserRow),
    /// A wrong code, to be counted.
    WrongCode(&'a TokenRow),
    /// Nothing.
    Bad(Failure),
}

fn standing<'a>(parsed: &Parsed<'_>, facts: &'a Facts, terms: &Terms<'_>) -> Standing<'a> {
    let token = facts.token.as_ref();
    match (judge(terms.tokens, parsed, token, &RESETS, facts.now, terms.policy), token, &facts.user) {
        (Judgement::Good, Some(token), Some(user)) if still_binds(token, user) => Standing::Good(token, user),
        // What was used is not guessed at any more: there is nothing left to count for.
        (Judgement::WrongCode, Some(token), _) if token.end.is_none() => Standing::WrongCode(token),
        (Judgement::Used, ..) => Standing::Bad(Failure::TokenUsed),
        (Judgement::Bad(failure), ..) => Standing::Bad(failure),
        _ => Standing::Bad(Failure::TokenMismatchOrExpired),
    }
}

/// Whether a token is of the user's present epoch, and was sent to an address that is still theirs.
fn still_binds(token: &TokenRow, user: &UserRow) -> bool {
    let channel = if token.purpose == TokenPurpose::ResetByPhone { Channel::Phone } else { Channel::Email };
    let theirs = user.contact_at(channel, &token.address).is_some_and(|contact| contact.proven_at.is_some());
    theirs && token.binding == Binding::CredentialEpoch(user.epoch) && user.status == UserStatus::Active
}

/// Facts in, batch out.
fn decide(parsed: &Parsed<'_>, offer: &Offer<'_>, facts: &Facts, terms: &Terms<'_>) -> Decision<ResetPassword> {
    let invalid = |reason| refused(parsed, facts, ResetPasswordReason::InvalidToken, reason);
    let (token, user) = match standing(parsed, facts, terms) {
        Standing::Good(token, user) => (token, user),
        Standing::WrongCode(token) => {
            let mut refusal = invalid(Failure::InvalidToken);
            refusal.checks.push(Check::TokenOpen(token.id, token.attempts));
            refusal.writes.push(Write::CountAttempt(token.id));
            return refusal;
        }
        Standing::Bad(reason) => return invalid(reason),
    };
    match offer.phc(user, terms.policy) {
        Ok(phc) => reset(token, user, phc, facts, terms),
        Err(Unusable::Unpermitted) => invalid(Failure::TokenMismatchOrExpired),
        Err(Unusable::Unfit(problem)) => {
            refused(parsed, facts, password_reason!(ResetPasswordReason, problem), password_failure(problem))
        }
        Err(Unusable::Unhashed(error)) => {
            let fault = Fault::from(error);
            let (id, reason) = (user.id, fault.failure());
            let told = vec![Signal::UserPasswordSetFailed { user: Some(id), reason }.into()];
            let end = failed(parsed.token(), facts, reason);
            Decision { told, end, answer: Err(fault.error()), ..invalid(reason) }
        }
    }
}

fn reset(token: &TokenRow, user: &UserRow, phc: &str, facts: &Facts, terms: &Terms<'_>) -> Decision<ResetPassword> {
    let ending = facts.bound.end(user, None, RevocationCause::PasswordReset, facts.now, terms.policy);
    let ending = ending.with_password(facts.credential.as_ref(), phc, PasswordCause::Reset, facts.now);
    let (mut checks, mut writes, sessions_revoked) = (ending.checks, ending.writes, ending.sessions_revoked);
    checks.push(Check::TokenOpen(token.id, token.attempts));
    // Superseded a moment ago with all the others: this one was used.
    writes.push(Write::EndToken(token.id, TokenEnd::Used));
    writes.extend(answered(token));
    writes.push(forget_failures(terms.keys, user.id));
    let undo = terms.undo.record(user, ChangeKind::PasswordReset, told_first(user), &facts.changes, facts.now);
    writes.extend(undo.writes);
    Decision {
        checks,
        writes,
        told: ending.told,
        end: Signal::PasswordResetSuccessful { user: user.id, token: token.id, sessions_revoked, undo: undo.token },
        subject: Some((user.id, seal_key(user))),
        answer: Ok(PasswordReplaced { user: user.id, sessions_revoked }),
    }
}

/// A refusal, in the lane of the token's user if there is one.
fn refused(
    parsed: &Parsed<'_>,
    facts: &Facts,
    answer: ResetPasswordReason,
    reason: Failure,
) -> Decision<ResetPassword> {
    let user = facts.user.as_ref();
    Decision {
        checks: user.map(|user| Check::Epoch(user.id, user.epoch)).into_iter().collect(),
        writes: Vec::new(),
        told: Vec::new(),
        end: failed(parsed.token(), facts, reason),
        subject: user.map(|user| (user.id, seal_key(user))),
        answer: Err(Error::Refused(answer)),
    }
}

fn failed(token: Option<TokenId>, facts: &Facts, reason: Failure) -> Signal {
    let user = facts.user.as_ref().map(|user| user.id);
    Signal::PasswordResetFailed { token, user, error_type: reason.error_type(), reason }
}

impl Perform for ResetPassword {
    fn started(&self, _services: &Services) -> Signal {
        Signal::PasswordResetStarted { token: Parsed::of(&self.proof).token() }
    }

    fn failed(&self, _services: &Services, why: Failure) -> Signal {
        failed(Parsed::of(&self.proof).token(), &Facts::default(), why)
    }

    fn counted(&self) -> Vec<Counted<'_>> {
        vec![Counted::by_proof(&self.proof)]
    }

    fn counts(_action: LimitedAction, answer: &Answer<Self>) -> bool {
        matches!(answer, Err(Error::Refused(ResetPasswordReason::InvalidToken)))
    }

    async fn perform(&self, run: &Run<'_, Self>) -> Result<Answer<Self>, Fault> {
        let Services { tokens, keys, policy, reader, clock, .. } = run.services;
        let terms = Terms { tokens, keys, policy, undo: Undo::draw(tokens.current_key(), policy) };
        let parsed = Parsed::of(&self.proof);
        let seen = reader.snapshot(|view| Facts::read(view, parsed.token(), clock.now()))?;
        let bearer = match standing(&parsed, &seen, &terms) {
            Standing::Good(_, user) => Some(user),
            Standing::WrongCode(_) | Standing::Bad(_) => None,
        };
        let offer = Offer::hash(run, &self.new, bearer).await;
        run.settle(|view, now| Ok(decide(&parsed, &offer, &Facts::read(view, parsed.token(), now)?, &terms))).await
    }

    fn remember(answer: &Result<PasswordReplaced, ResetPasswordReason>) -> Vec<u8> {
        remember(answer)
    }

    fn recall(remembered: &[u8]) -> Option<Result<PasswordReplaced, ResetPasswordReason>> {
        recall(remembered)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use majordomo_model::{Password, PasswordProblem, Proof, RequestPasswordReset, SignalKind};
    use proptest::prelude::*;

    use super::super::fixture::{Fixture, NOW, OTHER_PASSWORD, any_sessions, any_user, assert_one_end};
    use super::super::fresh_token::FreshToken;
    use super::*;

    fn reset_with(proof: Proof, new: &str) -> ResetPassword {
        ResetPassword { proof, new: Password::new(new) }
    }

    async fn refusal(fixture: &Fixture, proof: Proof) -> Failure {
        let (head, commits) = (fixture.head(), fixture.services.storage.observe().batches);
        let refused = fixture.run(reset_with(proof, OTHER_PASSWORD)).await.unwrap_err();
        assert_eq!(refused, Error::Refused(ResetPasswordReason::InvalidToken));
        assert_eq!(fixture.services.storage.observe().batches - commits, 1);
        assert_eq!(fixture.kinds_after(head), [SignalKind::PasswordResetStarted, SignalKind::PasswordResetFailed]);
        let Signal::PasswordResetFailed { reason, .. } = fixture.last_signal() else { panic!() };
        reason
    }

    #[tokio::test]
    async fn link_and_code_buy_a_new_password_in_one_commit() {
        for by_code in [false, true] {
            let fixture = Fixture::new().await;
            let user = fixture.register_proven("ada", Some("ada@example.com"), Some("+447911123456")).await;
            let opened = fixture.session("ada").await;
            fixture.sign_in_with("ada", "a password that is wrong").await.unwrap_err();
            let by_phone = RequestPasswordReset { identifier: "ada".to_owned(), channel: Channel::Phone };
            let sibling = fixture.run(by_phone).await.unwrap().challenge;
            let token = fixture.reset_token("ada").await;
            let proof = if by_code { fixture.code(token) } else { fixture.link(token) };
            let (head, commits) = (fixture.head(), fixture.services.storage.observe().batches);
            let replaced = fixture.run(reset_with(proof, OTHER_PASSWORD)).await.unwrap();
            assert_eq!(replaced, PasswordReplaced { user, sessions_revoked: 1 });
            assert_eq!(fixture.services.storage.observe().batches - commits, 1);
            assert_eq!(
                fixture.kinds_after(head),
                [
                    SignalKind::PasswordResetStarted,
                    SignalKind::UserPasswordSet,
                    SignalKind::SessionRevoked,
                    SignalKind::PasswordResetSuccessful
                ]
            );
            let end = |token| fixture.services.reader.token(token).unwrap().unwrap().end;
            assert_eq!([end(token), end(sibling)], [Some(TokenEnd::Used), Some(TokenEnd::Superseded)]);
            assert!(fixture.services.reader.sessions_of(user).unwrap().is_empty(), "it opens no session");
            assert_eq!(super::super::session::check(&fixture.services, &opened.token).unwrap(), None);
            let subject = fixture.services.keys.identifier_hash("username", "ada");
            assert_eq!(fixture.services.reader.snapshot(|view| view.attempts(&subject)).unwrap(), None);
            assert!(fixture.sign_in("ada").await.is_err());
            fixture.sign_in_with("ada", OTHER_PASSWORD).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_proof_that_is_worth_nothing_costs_no_hash() {
        let fixture = Fixture::new().await;
        let accepted = fixture.register("grace", Some("grace@example.com"), None).await;
        let user = fixture.register_proven("ada", Some("ada@example.com"), None).await;
        let superseded = fixture.reset_token("ada").await;
        fixture.cool_down();
        let token = fixture.reset_token("ada").await;
        let (link, code) = (fixture.link(token), fixture.code(token));
        let Proof::Link { user: segment, token: secret } = link.clone() else { panic!() };
        let Proof::Link { user: stranger, .. } = fixture.link(accepted.email_challenge.unwrap()) else { panic!() };
        let unknown = fixture.reset_token("nobody").await;
        let jobs = fixture.services.hasher.observe().jobs_done;
        for (proof, failure) in [
            (Fixture::foreign_link(&segment), Failure::InvalidToken),
            (Proof::Link { user: stranger, token: secret.clone() }, Failure::InvalidToken),
            (Proof::Link { user: String::new(), token: secret }, Failure::InvalidToken),
            (fixture.link(accepted.email_challenge.unwrap()), Failure::InvalidToken),
            (fixture.code(accepted.email_challenge.unwrap()), Failure::InvalidToken),
            (fixture.code(unknown), Failure::InvalidToken),
            (fixture.link(superseded), Failure::TokenMismatchOrExpired),
            (fixture.code(superseded), Failure::TokenMismatchOrExpired),
        ] {
            assert_eq!(refusal(&fixture, proof).await, failure);
        }
        fixture.pass(fixture.services.policy.code_lifetime);
        assert_eq!(refusal(&fixture, code).await, Failure::TokenMismatchOrExpired);
        fixture.pass(fixture.services.policy.reset_lifetime - fixture.services.policy.code_lifetime);
        assert_eq!(refusal(&fixture, link).await, Failure::TokenMismatchOrExpired);
        assert_eq!(fixture.services.hasher.observe().jobs_done, jobs);
        let token = fixture.reset_token("ada").await;
        let link = fixture.link(token);
        fixture.run(reset_with(link.clone(), OTHER_PASSWORD)).await.unwrap();
        assert_eq!(refusal(&fixture, link).await, Failure::TokenUsed);
        assert_eq!(refusal(&fixture, fixture.wrong_code(token)).await, Failure::TokenMismatchOrExpired);
        assert_eq!(fixture.services.reader.user_row(user).unwrap().unwrap().epoch, 2);
    }

    #[tokio::test]
    async fn a_link_to_an_address_that_was_given_up_is_dead() {
        let fixture = Fixture::new().await;
        let user = fixture.register_proven("ada", Some("ada@example.com"), None).await;
        let link = fixture.link(fixture.reset_token("ada").await);
        let mut row = fixture.services.reader.user_row(user).unwrap().unwrap();
        row.contacts.clear();
        fixture.write(Vec::new(), vec![Write::PutUser(Box::new(row))]).await;
        assert_eq!(refusal(&fixture, link).await, Failure::TokenMismatchOrExpired);
    }

    #[tokio::test]
    async fn an_unfit_password_and_a_failing_hasher_leave_the_token_good() {
        let fixture = Fixture::new().await;
        let user = fixture.register_proven("ada", Some("ada.lovelace@example.com"), None).await;
        let link = fixture.link(fixture.reset_token("ada").await);
        for (new, reason, failure) in [
            ("short", ResetPasswordReason::PasswordTooShort, Failure::PasswordTooShort),
            (&"x".repeat(1025), ResetPasswordReason::PasswordTooLong, Failure::PasswordTooLong),
            ("ada.lovelace 123", ResetPasswordReason::PasswordContainsOwnName, Failure::PasswordContainsOwnName),
        ] {
            let (head, jobs) = (fixture.head(), fixture.services.hasher.observe().jobs_done);
            let refused = fixture.run(reset_with(link.clone(), new)).await.unwrap_err();
            assert_eq!(refused, Error::Refused(reason));
            assert_eq!(fixture.services.hasher.observe().jobs_done, jobs);
            assert_eq!(fixture.kinds_after(head), [SignalKind::PasswordResetStarted, SignalKind::PasswordResetFailed]);
            let Signal::PasswordResetFailed { reason, user: Some(told), .. } = fixture.last_signal() else { panic!() };
            assert_eq!((reason, told), (failure, user));
        }
        let head = fixture.head();
        fixture.services.hasher.fail_next(1);
        let failed = fixture.run(reset_with(link.clone(), OTHER_PASSWORD)).await.unwrap_err();
        assert_eq!(failed, Error::Unexpected);
        assert_eq!(
            fixture.kinds_after(head),
            [SignalKind::PasswordResetStarted, SignalKind::UserPasswordSetFailed, SignalKind::PasswordResetFailed]
        );
        fixture.run(reset_with(link, OTHER_PASSWORD)).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn of_two_hundred_uses_at_once_one_wins() {
        let fixture = Arc::new(Fixture::new().await);
        let user = fixture.register_proven("ada", Some("ada@example.com"), None).await;
        let token = fixture.reset_token("ada").await;
        let uses = (0..200).map(|number| {
            let fixture = Arc::clone(&fixture);
            let proof = if number % 2 == 0 { fixture.link(token) } else { fixture.code(token) };
            tokio::spawn(async move { fixture.run(reset_with(proof, &format!("{OTHER_PASSWORD} {number}"))).await })
        });
        let mut winners = Vec::new();
        for (number, used) in uses.collect::<Vec<_>>().into_iter().enumerate() {
            match used.await.unwrap() {
                Ok(_) => winners.push(number),
                Err(error) => assert_eq!(error, Error::Refused(ResetPasswordReason::InvalidToken)),
            }
        }
        let [winner] = winners.as_slice() else { panic!("{winners:?} won") };
        fixture.sign_in_with("ada", &format!("{OTHER_PASSWORD} {winner}")).await.unwrap();
        let row = fixture.services.reader.user_row(user).unwrap().unwrap();
        assert_eq!(row.epoch, 2);
        let ends = fixture.signals().into_iter().filter(|told| {
            matches!(told.signal.kind(), SignalKind::PasswordResetFailed | SignalKind::PasswordResetSuccessful)
        });
        assert_eq!(ends.count(), 200);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn parallel_guesses_do_not_pass_the_cap_and_then_the_right_code_is_worth_nothing() {
        let fixture = Arc::new(Fixture::new().await);
        fixture.register_proven("ada", Some("ada@example.com"), None).await;
        let token = fixture.reset_token("ada").await;
        let guesses = (0..100).map(|_| {
            let (fixture, proof) = (Arc::clone(&fixture), fixture.wrong_code(token));
            tokio::spawn(async move { fixture.run(reset_with(proof, OTHER_PASSWORD)).await })
        });
        for guess in guesses.collect::<Vec<_>>() {
            assert_eq!(guess.await.unwrap().unwrap_err(), Error::Refused(ResetPasswordReason::InvalidToken));
        }
        assert_eq!(fixture.services.reader.token(token).unwrap().unwrap().attempts, 5);
        let compared = fixture
            .signals()
            .into_iter()
            .filter(|told| matches!(told.signal, Signal::PasswordResetFailed { reason: Failure::InvalidToken, .. }));
        assert_eq!(compared.count(), 5);
        assert_eq!(refusal(&fixture, fixture.code(token)).await, Failure::TooManyAttempts);
        // The link is no guess.
        fixture.run(reset_with(fixture.link(token), OTHER_PASSWORD)).await.unwrap();
    }

    proptest! {
        #[test]
        fn whatever_the_facts_it_ends_once_and_changes_only_what_a_good_token_may(
            user in any_user(),
            sessions in any_sessions(),
            (epoch, wrong, by_phone, age) in (0_u64..3, any::<bool>(), any::<bool>(), 0_u64..100),
            (end, attempts) in (prop::option::of(any::<bool>()), 0_u32..7),
            hashed in prop_oneof![
                Just(Ok("phc".to_owned())),
                Just(Err(Unusable::Unpermitted)),
                Just(Err(Unusable::Unfit(PasswordProblem::TooShort))),
                Just(Err(Unusable::Unhashed(crate::hasher::HashError::Overloaded))),
            ],
        ) {
            let (keys, policy) = (Keyring::ephemeral().unwrap(), Policy::default());
            let tokens = Tokens::new(keys.clone());
            let purpose = RESETS[usize::from(by_phone)];
            let address = if by_phone { "+447911123456" } else { "ada@example.com" };
            let begun = NOW.minus(Duration::from_secs(60 * age));
            let span = (begun, begun.plus(policy.reset_lifetime));
            let fresh = FreshToken::draw(keys.current());
            let row = fresh.row(purpose, Some(user.id), address, Binding::CredentialEpoch(epoch), span);
            let end = end.map(|used| if used { TokenEnd::Used } else { TokenEnd::Superseded });
            let row = TokenRow { end, attempts, ..row };
            let code = if wrong { "x".to_owned() } else { tokens.code(&row.claims()).unwrap().to_string() };
            let proof = Proof::Code { challenge: row.id, code: majordomo_model::OneTimeCode::new(code) };
            let open = end.is_none() && attempts < 5 && age < 10;
            let (good, guessed) = (open && !wrong && still_binds(&row, &user) && hashed.is_ok(), open && wrong);
            let bound = Bound { sessions, resets: vec![row.clone()], ..Bound::default() };
            let facts = Facts { token: Some(row), user: Some(user), bound, now: NOW, ..Facts::default() };
            let undo = Undo::draw(keys.current(), &policy);
            let terms = Terms { tokens: &tokens, keys: &keys, policy: &policy, undo };
            let new = Password::new(OTHER_PASSWORD);
            let decision = decide(&Parsed::of(&proof), &Offer::of(&new, hashed), &facts, &terms);
            assert_one_end(&decision);
            prop_assert_eq!(decision.answer.is_ok(), good);
            prop_assert_eq!(decision.writes.is_empty(), !good && !guessed);
        }
    }
}
