//! The auditor: the subscriber that keeps a durable, queryable trail of every signal, which can be proved.

mod chain;
mod export;
mod head;
mod hex;
mod query;
mod record;
mod verify;
mod vocabulary;

use std::sync::Arc;

use majordomo_model::{Envelope, Gap};

pub use chain::{AuditGap, AuditHash, GapCause};
pub use export::{AuditExport, AuditRange, TrailEnd};
pub use head::{AuditHead, AuditKeyId, AuditPublicKey, AuditSigner, HeadPurpose};
pub use hex::{Hex, InvalidHex};
pub use query::{AuditPage, AuditQuery, AuditReadError, TrailRange};
pub use record::{AuditFault, AuditRecord};
pub use verify::{AuditFlaw, AuditVerifier, LINE_LIMIT, UNSIGNED_LIMIT, VerifiedAudit, verify_audit};

use self::chain::{Growth, HEAD, Head};
use self::record::record_key;
use crate::subscriber::{Outcome, Subscriber, SubscriberContext};

/// After how many links the trail is signed, unless told otherwise.
const CHECKPOINT_EVERY: u64 = 1_024;
/// The most links between two signatures: a gap and a record may come at once, before it is looked.
pub const CHECKPOINT_LIMIT: u64 = 4_000;

/// Keeps a record of every signal, chained to the one before it by a hash, and tells it to `tracing` under the target
/// `audit`.
///
/// The records are effects: they commit with the auditor's progress, so each signal has exactly one, however often it
/// is handed over, and however far back the auditor is moved. The `tracing` event comes once for each attempt. It names
/// kinds, ids and the actor, and holds no personal data; a record holds what the log holds: contact data redacted and
/// sealed, and what is personal in the context sealed, where its user is known.
///
/// The trail is never pruned. Deleting a user destroys the key of what is sealed; the redacted rest stays, and since the
/// chain covers what is sealed, it can be verified as before. It has to be fed in the order of the log, one signal after
/// the other, and its projection has to be kept (see `SubscriptionSettings::keep_projection`).
#[derive(Clone, Debug)]
pub struct Auditor {
    signer: Arc<AuditSigner>,
    checkpoint_every: u64,
}

impl Auditor {
    /// An auditor that signs its trail with these keys: after every 1,024 links, and with the first record that is an
    /// hour later than the one it signed last.
    #[must_use]
    pub const fn new(signer: Arc<AuditSigner>) -> Self {
        Self { signer, checkpoint_every: CHECKPOINT_EVERY }
    }

    /// Signs after every so many links: 1 to 4,000, so that there is no stretch that a verifier takes for unsigned.
    #[must_use]
    pub fn checkpoint_every(self, links: u64) -> Self {
        Self { checkpoint_every: links.clamp(1, CHECKPOINT_LIMIT), ..self }
    }

    /// Adds a signal to the trail, unless it is there; answers whether it was not.
    fn keep(&self, trail: &mut Growth, envelope: &Envelope, context: &SubscriberContext) -> Result<bool, Put> {
        // A live start has no place yet; its durable copy follows.
        let Some(seq) = envelope.seq.filter(|seq| *seq > trail.head.seq) else { return Ok(false) };
        let Some(record) = AuditRecord::of(envelope) else { return Ok(false) };
        let (before, now) = (seq.saturating_sub(1), context.now());
        let is_unchained = trail.head.number == 0 && context.projection(&record_key(before))?.is_some();
        trail.gap(before, if is_unchained { GapCause::Unchained } else { GapCause::NotHanded }, now)?;
        tell(&record);
        trail.record(record)?;
        trail.checkpoint(&self.signer, self.checkpoint_every, envelope.at, now)?;
        Ok(true)
    }

    /// Adds signals to the trail, up to the first that cannot be. The head is read once, and stored with the last: they
    /// are done together, or not at all.
    fn keep_all(&self, batch: &[Arc<Envelope>], context: &SubscriberContext) -> Result<Vec<Outcome>, Put> {
        let mut trail = grown(context)?;
        let (mut all, mut failure) = (Vec::with_capacity(batch.len()), None);
        for envelope in batch {
            let before = trail.head.clone();
            match self.keep(&mut trail, envelope, context) {
                Ok(_) => all.push(trail.take_effects()),
                Err(Put(reason)) => {
                    trail.head = before;
                    failure = Some(Outcome::retry(reason));
                    break;
                }
            }
        }
        let grew = all.iter().any(|effects| !effects.is_empty());
        if let Some(last) = all.last_mut().filter(|_| grew) {
            last.push(trail.head_effect()?);
        }
        Ok(all.into_iter().map(Outcome::Done).chain(failure).collect())
    }

    /// Adds to the trail that signals were missed.
    fn keep_gap(gap: Gap, context: &SubscriberContext) -> Result<Outcome, Put> {
        let mut trail = grown(context)?;
        if gap.to <= trail.head.seq {
            return Ok(Outcome::done());
        }
        let now = context.now();
        trail.gap(gap.from.saturating_sub(1), GapCause::NotHanded, now)?;
        trail.gap(gap.to, GapCause::Pruned, now)?;
        Ok(Outcome::Done(trail.effects()?))
    }
}

/// Why a signal has to be handed over again, in words.
struct Put(String);

impl<E: std::error::Error> From<E> for Put {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

/// The trail as it is, about to grow.
fn grown(context: &SubscriberContext) -> Result<Growth, Put> {
    Ok(Growth::new(match context.projection(HEAD)? {
        Some(stored) => Head::decode(&stored)?,
        None => Head::new(context.store()?),
    }))
}

impl Subscriber for Auditor {
    async fn handle(&self, envelope: &Envelope, context: &SubscriberContext) -> Outcome {
        let kept = grown(context).and_then(|mut trail| {
            if !self.keep(&mut trail, envelope, context)? {
                return Ok(Outcome::done());
            }
            Ok(Outcome::Done(trail.effects()?))
        });
        kept.unwrap_or_else(|Put(reason)| Outcome::retry(reason))
    }

    async fn handle_batch(&self, batch: &[Arc<Envelope>], context: &SubscriberContext) -> Vec<Outcome> {
        self.keep_all(batch, context).unwrap_or_else(|Put(reason)| vec![Outcome::retry(reason)])
    }

    async fn missed(&self, gap: Gap, context: &SubscriberContext) -> Outcome {
        Self::keep_gap(gap, context).unwrap_or_else(|Put(reason)| Outcome::retry(reason))
    }
}

/// The actor is shown as `Debug` shows it, escaped: an operator's name cannot forge a line.
fn tell(record: &AuditRecord) {
    tracing::info!(
        target: "audit",
        seq = record.seq,
        kind = record.kind.as_str(),
        event = record.event.as_deref(),
        signal = %record.id,
        flow = %record.flow,
        user = record.user.map(tracing::field::display),
        actor = ?record.actor,
        "signal"
    );
}

#[cfg(test)]
mod tests;
