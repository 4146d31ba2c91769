//! Judging a proof: what a presented link or code is worth, by its token's row alone.

use majordomo_model::{Failure, OneTimeCode, Proof, Timestamp, TokenId, TokenPurpose, UserId};

use super::policy::Policy;
use crate::storage::{TokenEnd, TokenRow};
use crate::token::{Presented, Tokens, parse_link, parse_user_segment};

/// A proof, parsed before anything is looked up.
pub(super) enum Parsed<'a> {
    /// A link with its user and its token's name and secret.
    Link(UserId, TokenId, Presented),
    /// A code and the challenge it answers.
    Code(TokenId, &'a OneTimeCode),
    /// Neither.
    Malformed,
}

impl<'a> Parsed<'a> {
    pub(super) fn of(proof: &'a Proof) -> Self {
        match proof {
            Proof::Link { user, token } => match (parse_user_segment(user), parse_link(token.expose())) {
                (Some(user), Some((token, secret))) => Self::Link(user, token, secret),
                _ => Self::Malformed,
            },
            Proof::Code { challenge, code } => Self::Code(*challenge, code),
        }
    }

    /// The name of the token that it is about.
    pub(super) const fn token(&self) -> Option<TokenId> {
        match self {
            Self::Link(_, token, _) | Self::Code(token, _) => Some(*token),
            Self::Malformed => None,
        }
    }

    /// Whether it is a link; a code otherwise.
    pub(super) const fn is_link(&self) -> bool {
        matches!(self, Self::Link(..))
    }
}

/// What a proof is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// It is genuine, in time and unused; what its token is bound to is for the flow to compare.
    Good,
    /// It is genuine and was used before.
    Used,
    /// A wrong code, to be counted in the commit that refuses it.
    WrongCode,
    /// It is worth nothing.
    Bad(Failure),
}

/// Judges a proof for one purpose.
pub(super) fn judge(
    tokens: &Tokens,
    parsed: &Parsed<'_>,
    row: Option<&TokenRow>,
    purposes: &[TokenPurpose],
    now: Timestamp,
    policy: &Policy,
) -> Judgement {
    let Some(row) = row.filter(|row| purposes.contains(&row.purpose)) else {
        return Judgement::Bad(Failure::InvalidToken);
    };
    let in_time = match parsed {
        Parsed::Malformed => return Judgement::Bad(Failure::InvalidToken),
        Parsed::Link(user, _, secret) => {
            if row.code_only || row.user != Some(*user) || !tokens.verify_link(&row.claims(), secret) {
                return Judgement::Bad(Failure::InvalidToken);
            }
            now < row.expires_at
        }
        Parsed::Code(_, code) => {
            // An ended or guessed-out token is not compared, so that guessing at it tells nothing.
            if row.attempts >= policy.code_attempts {
                return Judgement::Bad(Failure::TooManyAttempts);
            }
            let ended = now >= row.code_expires_at(policy.code_lifetime);
            if row.end == Some(TokenEnd::Superseded) || ended {
                return Judgement::Bad(Failure::TokenMismatchOrExpired);
            }
            // The row of an unknown address has a code too, which nobody was told.
            if !tokens.verify_code(&row.claims(), code.expose()) || row.user.is_none() {
                return Judgement::WrongCode;
            }
            true
        }
    };
    match row.end {
        Some(TokenEnd::Used) => Judgement::Used,
        Some(TokenEnd::Superseded) => Judgement::Bad(Failure::TokenMismatchOrExpired),
        None if in_time => Judgement::Good,
        None => Judgement::Bad(Failure::TokenMismatchOrExpired),
    }
}
