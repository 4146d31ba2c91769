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
    values: HashMap<Vec<u8>, Written>,
    /// How often nothing was in hand.
    rests: u64,
    /// How often what was written was left to be stored.
    spans: u64,
}

/// A value that was written.
struct Written {
    /// The value as long as it is not known to be stored, in it `None` where it is removed. A handler reads what the
    /// signals before left, or what it adds up would be wrong.
    unstored: Option<Option<Vec<u8>>>,
    /// How often it was written since nothing was in hand, and when that was: what tells that it changed under a handler.
    times: u64,
    rests: u64,
    /// With which span it is stored.
    span: u64,
}

impl Projection {
    /// Forgets what is not stored, and goes on with this generation.
    pub(super) fn restart(&mut self, generation: u32) {
        *self = Self { generation, ..Self::default() };
    }

    /// Takes a value as written; `None` as removed.
    pub(super) fn write(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) {
        let times = self.number(&key).saturating_add(1);
        self.values.insert(key, Written { unstored: Some(value), times, rests: self.rests, span: self.spans });
    }

    /// Notes that what was written is left to be stored, as the span that is answered.
    pub(super) const fn leave(&mut self) -> u64 {
        let span = self.spans;
        self.spans = span.saturating_add(1);
        span
    }

    /// Takes everything that was written as stored.
    pub(super) fn stored(&mut self) {
        self.stored_until(self.spans);
    }

    /// Takes what was left up to and with this span as stored.
    pub(super) fn stored_until(&mut self, span: u64) {
        let rests = self.rests;
        self.values.retain(|_, written| {
            if written.span <= span {
                written.unstored = None;
            }
            written.unstored.is_some() || written.rests == rests
        });
    }

    /// Notes that no handler is at work, so that nothing can change under one.
    pub(super) const fn rest(&mut self) {
        self.rests = self.rests.saturating_add(1);
    }

    /// Whether nothing that was read has been written since.
    pub(super) fn is_unchanged(&self, read: &[(Vec<u8>, u64)]) -> bool {
        read.iter().all(|(key, number)| self.number(key) == *number)
    }

    fn number(&self, key: &[u8]) -> u64 {
        self.values.get(key).filter(|written| written.rests == self.rests).map_or(0, |written| written.times)
    }

    fn unstored(&self, key: &[u8]) -> Option<Option<Vec<u8>>> {
        self.values.get(key).and_then(|written| written.unstored.clone())
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
        let path = OneTimeToken::new(self.tokens.path(&claims)?.as_str());
        Some(DueMessage {
            user,
            purpose: token.purpose,
            address,
            path: Some(path).filter(|_| !token.code_only),
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
            (projection.unstored(key), projection.number(key), projection.generation)
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
