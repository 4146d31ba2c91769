//! The fresh token: what makes a one-time token, and what is told of it.

use majordomo_model::{FlowId, Personal, Signal, Timestamp, TokenId, TokenPurpose, UserId};

use super::policy::{Policy, Verification, verification_purpose};
use crate::storage::{ContactRow, DeliveryState, TokenEnd, TokenRow, Write};
use crate::token::{Binding, KeyId};

/// What makes a token: names and times that are not decided but drawn.
#[derive(Clone, Copy, Debug)]
pub(super) struct FreshToken {
    /// The token's name.
    pub(super) token: TokenId,
    /// The flow that will deliver its message.
    pub(super) delivery: FlowId,
    /// The master key that its secret is derived from.
    pub(super) key: KeyId,
}

impl FreshToken {
    /// Draws a token under the current key.
    pub(super) fn draw(key: KeyId) -> Self {
        Self { token: TokenId::new(), delivery: FlowId::new(), key }
    }

    /// The row of a token that proves a contact of a user.
    pub(super) fn verification(self, user: UserId, contact: &ContactRow, now: Timestamp, policy: &Policy) -> TokenRow {
        let binding = Binding::ContactRevision { contact: contact.id, revision: contact.revision };
        let purpose = verification_purpose(contact.channel);
        let span = policy.verification_span(contact.channel, now);
        let row = self.row(purpose, Some(user), &contact.canonical, binding, span);
        TokenRow { code_only: policy.verification == Verification::Code, ..row }
    }

    /// A row of any purpose; `span` is when it begins and ends.
    pub(super) fn row(
        self,
        purpose: TokenPurpose,
        user: Option<UserId>,
        address: &str,
        binding: Binding,
        span: (Timestamp, Timestamp),
    ) -> TokenRow {
        TokenRow {
            id: self.token,
            purpose,
            user,
            address: address.to_owned(),
            binding,
            key: self.key,
            created_at: span.0,
            expires_at: span.1,
            attempts: 0,
            end: None,
            delivery: self.delivery,
            delivered: if user.is_some() { DeliveryState::Pending } else { DeliveryState::Withheld },
            code_only: false,
        }
    }
}

/// The signals that tell of a new verification token and start its delivery: 5 and 31, or their phone counterparts.
pub(super) fn verification_signals(
    user: UserId,
    row: &TokenRow,
    address: &Personal,
    supersedes: Option<TokenId>,
) -> [Signal; 2] {
    let (token, expires_at) = (row.id, row.expires_at);
    let address = address.clone();
    if row.purpose == TokenPurpose::VerifyPhone {
        [
            Signal::UserPhoneVerificationTokenGenerated {
                user,
                address: address.clone(),
                token,
                expires_at,
                supersedes,
            },
            Signal::VerifyPhone { user, phone: address, token },
        ]
    } else {
        [
            Signal::UserEmailVerificationTokenGenerated {
                user,
                address: address.clone(),
                token,
                expires_at,
                supersedes,
            },
            Signal::VerifyEmail { user, address, token },
        ]
    }
}

/// The writes that end tokens because something took their place.
pub(super) fn supersede(tokens: &[TokenRow]) -> Vec<Write> {
    tokens.iter().map(|token| Write::EndToken(token.id, TokenEnd::Superseded)).collect()
}
