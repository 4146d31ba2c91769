//! The stamp: makes an envelope of a signal, with what is the same for a whole run of a flow, personal data sealed.

use majordomo_model::{Actor, Context, Envelope, FlowId, Lane, Personal, SCHEMA_VERSION, Signal, SignalId, Timestamp};

use crate::seal;

/// What all signals of one run share.
#[derive(Clone, Debug)]
pub struct Stamp {
    /// The run.
    pub flow: FlowId,
    /// The run that led to it.
    pub cause: Option<FlowId>,
    /// What the signals are ordered within.
    pub lane: Lane,
    /// On whose behalf.
    pub actor: Actor,
    /// The request behind it.
    pub context: Context,
}

/// The key that a user's personal data is sealed under.
#[derive(Clone, Copy)]
pub struct SealKey(pub [u8; 32]);

impl std::fmt::Debug for SealKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("SealKey(..)")
    }
}

impl Stamp {
    /// The envelope of a signal, without a place yet. Personal data is sealed; without a key only redactions are kept.
    #[must_use]
    pub fn envelope(&self, id: SignalId, at: Timestamp, mut signal: Signal, key: Option<SealKey>) -> Envelope {
        signal.visit_personal(&mut |personal| seal_one(personal, id, key));
        Envelope {
            seq: None,
            id,
            flow: self.flow,
            cause: self.cause,
            lane: self.lane,
            at,
            sender: signal.kind().sender(),
            actor: self.actor.clone(),
            path: Vec::new(),
            context: self.context.clone(),
            schema: SCHEMA_VERSION,
            signal,
        }
    }
}

fn seal_one(personal: &mut Personal, id: SignalId, key: Option<SealKey>) {
    let sealed = match (personal.expose(), key) {
        (Some(full), Some(key)) => seal::seal(&key.0, full, id.as_bytes()).ok(),
        _ => None,
    };
    if let Some(sealed) = sealed {
        personal.set_sealed(sealed);
    }
}

#[cfg(test)]
mod tests {
    use majordomo_model::{ProofMethod, UserId};

    use super::*;

    #[test]
    fn personal_data_is_sealed_for_its_signal_alone() {
        let (user, id) = (UserId::new(), SignalId::new());
        let stamp = Stamp {
            flow: FlowId::new(),
            cause: None,
            lane: Lane::User(user),
            actor: Actor::System,
            context: Context::new(),
        };
        let address = Personal::known("a***@e***.com", "ada@example.com");
        let signal = Signal::UserEmailVerified { user, address, via: ProofMethod::Link, undo: None };
        let mut envelope = stamp.envelope(id, Timestamp::from_micros(0), signal, Some(SealKey([7; 32])));
        assert_eq!((envelope.seq, envelope.schema), (None, SCHEMA_VERSION));
        envelope.signal.visit_personal(&mut |address| {
            let sealed = address.sealed().unwrap();
            assert_eq!(seal::open(&[7; 32], sealed, id.as_bytes()).as_deref(), Some("ada@example.com"));
            assert_eq!(seal::open(&[7; 32], sealed, SignalId::new().as_bytes()), None);
        });
    }
}
