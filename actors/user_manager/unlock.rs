//! Unlock: a lock on an account is lifted before its time.

use majordomo_model::{
    Error, Failure, LimitedAction, Signal, Timestamp, TokenId, TokenPurpose, Unlock, UnlockReason, Unlocked, UserId,
};

use super::flow::{Answer, Decision, Fault, Perform, Run, Services, recall, remember};
use super::lock::{Failures, subject_of};
use super::policy::{Policy, seal_key};
use super::proof::{Judgement, Parsed, judge};
use super::throttle::Counted;
use crate::keys::Keyring;
use crate::storage::{Check, Lookup, ReadError, ReadView, TokenEnd, TokenRow, UserRow, Write};
use crate::token::{Binding, Tokens};

/// What the store says.
struct Facts {
    token: Option<TokenRow>,
    user: Option<UserRow>,
    failures: Option<Failures>,
    now: Timestamp,
}

impl Facts {
    fn read(
        view: &ReadView,
        keys: &Keyring,
        message: &Unlock,
        token: Option<TokenId>,
        now: Timestamp,
    ) -> Result<Self, ReadError> {
        let token = token.map_or(Ok(None), |token| view.token(token))?;
        let user = match message {
            Unlock::Operator(user) => Some(*user),
            Unlock::Link(_) => token.as_ref().and_then(|token| token.user),
        };
        let user = user.map_or(Ok(None), |user| view.user(user))?;
        let read = |user: &UserRow| Failures::read(view, subject_of(keys, user.id));
        let failures = user.as_ref().map(read).transpose()?;
        Ok(Self { token, user, failures, now })
    }
}

/// Facts in, batch out.
fn decide(parsed: Option<&Parsed<'_>>, facts: &Facts, tokens: &Tokens, policy: &Policy) -> Decision<Unlock> {
    let (Some(user), Some(failures)) = (&facts.user, &facts.failures) else {
        return match parsed {
            Some(parsed) => refused(UnlockReason::InvalidToken, parsed.token(), None, Failure::InvalidToken),
            None => refused(UnlockReason::UserNotFound, None, None, Failure::UserNotFound),
        };
    };
    let is_locked = failures.is_locked(facts.now);
    let Some(parsed) = parsed else { return lifted(user, Vec::new(), vec![failures.lift()], !is_locked) };
    match standing(parsed, facts, user, tokens, policy) {
        // It lifted another lock than there is now.
        Ok((_, Judgement::Used)) if is_locked => {
            refused(UnlockReason::InvalidToken, parsed.token(), Some(user), Failure::TokenUsed)
        }
        Ok((_, Judgement::Used)) => lifted(user, Vec::new(), Vec::new(), true),
        Ok((token, _)) => {
            let checks = vec![Check::TokenOpen(token.id, token.attempts), Check::Epoch(user.id, user.epoch)];
            let writes = vec![Write::EndToken(token.id, TokenEnd::Used), failures.lift()];
            lifted(user, checks, writes, !is_locked)
        }
        Err(why) => refused(UnlockReason::InvalidToken, parsed.token(), Some(user), why),
    }
}

/// What a link is worth for a user as they are now: a new password has lifted the lock, and voids it.
fn standing<'a>(
    parsed: &Parsed<'_>,
    facts: &'a Facts,
    user: &UserRow,
    tokens: &Tokens,
    policy: &Policy,
) -> Result<(&'a TokenRow, Judgement), Failure> {
    // A code is compared with nothing, so there is nothing to count.
    let token = facts.token.as_ref().filter(|_| parsed.is_link()).ok_or(Failure::InvalidToken)?;
    let judgement = judge(tokens, parsed, Some(token), &[TokenPurpose::Unlock], facts.now, policy);
    match judgement {
        Judgement::Good if token.binding != Binding::CredentialEpoch(user.epoch) => {
            Err(Failure::TokenMismatchOrExpired)
        }
        Judgement::Good | Judgement::Used => Ok((token, judgement)),
        Judgement::Bad(why) => Err(why),
        Judgement::WrongCode => Err(Failure::InvalidToken),
    }
}

fn lifted(user: &UserRow, checks: Vec<Check>, writes: Vec<Write>, already: bool) -> Decision<Unlock> {
    Decision {
        checks,
        writes,
        told: Vec::new(),
        end: Signal::UserUnlockSuccessful { user: user.id, reason: already.then_some(Failure::NothingToDo) },
        subject: Some((user.id, seal_key(user))),
        answer: Ok(Unlocked { user: user.id, already }),
    }
}

fn refused(answer: UnlockReason, token: Option<TokenId>, user: Option<&UserRow>, why: Failure) -> Decision<Unlock> {
    let end = Signal::UserUnlockFailed { user: user.map(|user| user.id), token, reason: why };
    Decision { subject: user.map(|user| (user.id, seal_key(user))), ..Decision::refuse(answer, end) }
}

/// The proof, parsed; none from an operator.
fn parsed(message: &Unlock) -> Option<Parsed<'_>> {
    match message {
        Unlock::Link(proof) => Some(Parsed::of(proof)),
        Unlock::Operator(_) => None,
    }
}

/// The user and the token that a message names.
fn named(message: &Unlock) -> (Option<UserId>, Option<TokenId>) {
    match message {
        Unlock::Operator(user) => (Some(*user), None),
        Unlock::Link(_) => (None, parsed(message).and_then(|parsed| parsed.token())),
    }
}

impl Perform for Unlock {
    fn started(&self, _services: &Services) -> Signal {
        let (user, token) = named(self);
        Signal::UserUnlockStarted { user, token }
    }

    fn failed(&self, _services: &Services, why: Failure) -> Signal {
        let (user, token) = named(self);
        Signal::UserUnlockFailed { user, token, reason: why }
    }

    fn counted(&self) -> Vec<Counted<'_>> {
        match self {
            Self::Link(proof) => vec![Counted::by_proof(proof)],
            Self::Operator(_) => Vec::new(),
        }
    }

    fn counts(_action: LimitedAction, answer: &Answer<Self>) -> bool {
        matches!(answer, Err(Error::Refused(UnlockReason::InvalidToken)))
    }

    async fn perform(&self, run: &Run<'_, Self>) -> Result<Answer<Self>, Fault> {
        let Services { tokens, keys, policy, .. } = run.services;
        let (parsed, token) = (parsed(self), named(self).1);
        run.settle(|view, now| Ok(decide(parsed.as_ref(), &Facts::read(view, keys, self, token, now)?, tokens, policy)))
            .await
    }

    fn remember(answer: &Result<Unlocked, UnlockReason>) -> Vec<u8> {
        remember(answer)
    }

    fn recall(remembered: &[u8]) -> Option<Result<Unlocked, UnlockReason>> {
        recall(remembered)
    }
}
