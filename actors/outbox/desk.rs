//! The desk: what a handler may ask, answered for one subscription.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use majordomo_model::{OneTimeCode, OneTimeToken, SignalId, StoreId, Timestamp, TokenId, User, UserId};

use super::delivery::{Bound, Standing, standing};
use crate::clock::Clock;
use crate::storage::{Lookup, Reader, Storage, TokenRow, UniqueKey, Unreadable};
use crate::subscriber::{Capability, Claiming, Delivery, Desk, DueMessage, Unanswered};
use crate::token::{Binding, Tokens};

/// The desk of one subscription.
pub(super) struct SubscriptionDesk {
    pub(super) name: String,
    pub(super) capabilities: Vec<Capability>,
    pub(super) storage: Storage,
    pub(super) reader: Reader,
    pub(super) tokens: Tokens,
    pub(super) clock: Clock,
    /// How long the code of a token works.
    pub(super) code_lifetime: Duration,
    /// How long a handler may be at work.
    pub(super) deadline: Duration,
    pub(super) projection: Mutex<Projection>,
}

/// What handlers see of the projection beyond what is stored.
#[derive(Default)]
pub(super) struct Projection {
    /// The generation that is read and written.
    generation: u32,
    /// Values that are not known to be stored yet, `None` where one is removed. A handler reads what the signals before
    /// left, or what it adds up would be wrong.
    unstored: HashMap<Vec<u8>, Option<Vec<u8>>>,
    /// How often each value was written since nothing was in hand: what tells that it changed under a handler.
    written: HashMap<Vec<u8>, u64>,
}

impl Projection {
    /// Forgets what is not stored, and goes on with this generation.
    pub(super) fn restart(&mut self, generation: u32) {
        *self = Self { generation, ..Self::default() };
    }

    /// Takes a value as written; `None` as removed.
    pub(super) fn write(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) {
        *self.written.entry(key.clone()).or_default() += 1;
        self.unstored.insert(key, value);
    }

    /// Takes everything that was written as stored.
    pub(super) fn stored(&mut self) {
        self.unstored.clear();
    }

    /// Notes that no handler is at work, so that nothing can change under one.
    pub(super) fn rest(&mut self) {
        self.written.clear();
    }

    /// Whether nothing that was read has been written since.
    pub(super) fn is_unchanged(&self, read: &[(Vec<u8>, u64)]) -> bool {
        read.iter().all(|(key, number)| self.number(key) == *number)
    }

    fn number(&self, key: &[u8]) -> u64 {
        self.written.get(key).copied().unwrap_or_default()
    }
}

impl From<Unreadable> for Unanswered {
    fn from(Unreadable: Unreadable) -> Self {
        Self::StorageUnavailable
    }
}

impl SubscriptionDesk {
    pub(super) fn projection(&self) -> MutexGuard<'_, Projection> {
        self.projection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the subscription may turn a token into a message, and end its delivery.
    pub(super) fn may_deliver(&self) -> bool {
        self.capabilities.contains(&Capability::Deliver)
    }

    fn message(&self, token: &TokenRow, user: UserId, address: majordomo_model::Contact) -> Option<DueMessage> {
        let claims = token.claims();
        let code = self.tokens.code(&claims).map(|code| OneTimeCode::new(code.as_str()));
        Some(DueMessage {
            user,
            purpose: token.purpose,
            address,
            path: OneTimeToken::new(self.tokens.path(&claims)?.as_str()),
            code,
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
        let now = self.clock.now();
        let rows = self.reader.snapshot(|view| {
            let Some(token) = view.token(token)? else { return Ok(None) };
            let user = token.user.map(|user| view.user(user)).transpose()?.flatten();
            let contact = token.binding.contact().and_then(|contact| user.as_ref()?.contact(contact));
            let key = contact.map(|contact| UniqueKey::address(contact.channel, &contact.canonical));
            let holder = key.map(|key| view.holder(&key, now)).transpose()?.flatten();
            let change = match (token.user, token.binding) {
                (Some(user), Binding::Change(version)) => view.change(user, version)?,
                _ => None,
            };
            Ok(Some((token, user, holder, change)))
        })?;
        let Some((token, user, holder, change)) = rows else { return Ok(Delivery::Superseded) };
        let bound = Bound { user: user.as_ref(), holder, change: change.as_ref() };
        Ok(match standing(&token, bound, now) {
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
        let (unstored, number, generation) = {
            let projection = self.projection();
            (projection.unstored.get(key).cloned(), projection.number(key), projection.generation)
        };
        match unstored {
            Some(value) => Ok((value, number)),
            None => Ok((self.reader.projected_in(&self.name, generation, key)?, number)),
        }
    }

    fn store(&self) -> Result<StoreId, Unanswered> {
        Ok(self.reader.store()?)
    }

    fn claim(&self, signal: SignalId, place: u64) -> Claiming<'_> {
        Box::pin(super::claim::claim(self, signal, place))
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }
}
