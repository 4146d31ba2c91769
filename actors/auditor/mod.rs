//! The auditor: the subscriber that keeps a durable, queryable trail of every signal.

mod query;
mod record;

use majordomo_model::Envelope;

pub use query::{AuditPage, AuditQuery, AuditReadError, TrailRange};
pub use record::{AuditFault, AuditRecord};

use crate::subscriber::{Effect, Outcome, Subscriber, SubscriberContext};

/// Keeps a record of every signal, and tells it to `tracing` under the target `audit`.
///
/// The records are effects: they commit with the auditor's progress, so each signal has exactly one, however often it
/// is handed over. The `tracing` event comes once for each attempt. It names kinds, ids and the actor, and holds no
/// personal data; a record holds what the log holds, which is contact data redacted and sealed, and the context with
/// the client's address.
///
/// The trail is never pruned. Deleting a user destroys the key of what is sealed; the redacted rest stays.
#[derive(Clone, Copy, Debug, Default)]
pub struct Auditor;

impl Auditor {
    /// An auditor.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }
}

impl Subscriber for Auditor {
    async fn handle(&self, envelope: &Envelope, _context: &SubscriberContext) -> Outcome {
        // A live start has no place yet; its durable copy follows.
        let Some(record) = AuditRecord::of(envelope) else { return Outcome::done() };
        let value = match record.encode() {
            Ok(value) => value,
            Err(fault) => return Outcome::retry(fault.to_string()),
        };
        tell(&record);
        let entries = record.index_keys().into_iter().map(|key| Effect::Project { key, value: Vec::new() });
        let kept = Effect::Project { key: record::record_key(record.seq), value };
        Outcome::Done(std::iter::once(kept).chain(entries).collect())
    }
}

/// The actor is shown as `Debug` shows it, escaped: an operator's name cannot forge a line.
fn tell(record: &AuditRecord) {
    tracing::info!(
        target: "audit",
        seq = record.seq,
        kind = record.kind.as_str(),
        signal = %record.id,
        flow = %record.flow,
        user = record.user.map(tracing::field::display),
        actor = ?record.actor,
        "signal"
    );
}

#[cfg(test)]
mod tests;
