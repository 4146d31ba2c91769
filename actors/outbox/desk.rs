//! The desk: what a handler may ask, answered for one subscription.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use majordomo_model::{OneTimeCode, OneTimeToken, Timestamp, TokenId, User, UserId};

use super::delivery::{Standing, standing};
use crate::clock::Clock;
use crate::storage::{Lookup, Reader, TokenRow, UniqueKey, Unreadable};
use crate::subscriber::{Capability, Delivery, Desk, DueMessage, Unanswered};
use crate::token::Tokens;

/// The desk of one subscription.
pub(super) struct SubscriptionDesk {
    pub(super) name: String,
    pub(super) capabilities: Vec<Capability>,
    pub(super) reader: Reader,
    pub(super) tokens: Tokens,
    pub(super) clock: Clock,
    /// How long the code of a token works.
    pub(super) code_lifetime: Duration,
    /// Values of the projection that are not known to be stored yet. A handler reads what the signals before left, or
    /// what it adds up would be wrong.
    pub(super) unstored: Mutex<HashMap<Vec<u8>, Vec<u8>>>,
}

impl From<Unreadable> for Unanswered {
    fn from(Unreadable: Unreadable) -> Self {
        Self::StorageUnavailable
    }
}

impl SubscriptionDesk {
    pub(super) fn unstored(&self) -> MutexGuard<'_, HashMap<Vec<u8>, Vec<u8>>> {
        self.unstored.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the subscription may turn a token into a message, and end its delivery.
    pub(super) fn may_deliver(&self) -> bool {
        self.capabilities.contains(&Capability::Deliver)
    }

    fn message(&self, token: &TokenRow, user: UserId, address: majordomo_model::Contact) -> Option<DueMessage> {
        let claims = token.claims();
        Some(DueMessage {
            user,
            purpose: token.purpose,
            address,
            path: OneTimeToken::new(self.tokens.path(&claims)?.as_str()),
            code: OneTimeCode::new(self.tokens.code(&claims)?.as_str()),
            expires_at: token.expires_at,
            code_expires_at: token.code_expires_at(self.code_lifetime),
            delivery: token.delivery,
        })
    }
}

impl Desk for SubscriptionDesk {
    fn user(&self, id: UserId) -> Result<Option<User>, Unanswered> {
        Ok(self.reader.user(id)?)
    }

    fn delivery(&self, token: TokenId) -> Result<Delivery, Unanswered> {
        if !self.may_deliver() {
            return Err(Unanswered::NotGranted);
        }
        let rows = self.reader.snapshot(|view| {
            let Some(token) = view.token(token)? else { return Ok(None) };
            let user = token.user.map(|user| view.user(user)).transpose()?.flatten();
            let contact = token.binding.contact().and_then(|contact| user.as_ref()?.contact(contact));
            let key = contact.map(|contact| UniqueKey::address(contact.channel, &contact.canonical));
            let owner = key.map(|key| view.owner(&key)).transpose()?.flatten();
            Ok(Some((token, user, owner)))
        })?;
        let Some((token, user, owner)) = rows else { return Ok(Delivery::Superseded) };
        Ok(match standing(&token, user.as_ref(), owner, self.clock.now()) {
            Standing::Live(contact) => {
                let message = user.as_ref().and_then(|user| self.message(&token, user.id, contact.address()));
                if message.is_none() {
                    tracing::error!(token = %token.id, key = %token.key, "the key of a token is gone, so it has no link");
                }
                message.map_or(Delivery::Superseded, Delivery::Live)
            }
            Standing::Superseded => Delivery::Superseded,
            Standing::Used => Delivery::Used,
            Standing::Expired => Delivery::Expired,
            Standing::Ended => Delivery::Ended,
        })
    }

    fn projection(&self, key: &[u8]) -> Result<(Option<Vec<u8>>, u64), Unanswered> {
        let unstored = self.unstored().get(key).cloned();
        match unstored {
            Some(value) => Ok((Some(value), 0)),
            None => Ok((self.reader.projected(&self.name, key)?, 0)),
        }
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }
}
