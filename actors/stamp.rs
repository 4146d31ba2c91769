//! The stamp: makes an envelope of a signal, with what is the same for a whole run of a flow, personal data sealed.

use majordomo_model::{
    Actor, Context, Envelope, FlowId, Lane, Personal, SCHEMA_VERSION, Signal, SignalId, Timestamp, Unseal,
};
use zeroize::Zeroizing;

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

/// The key of one signal's user, which opens what is sealed in it.
pub(crate) struct SignalKey {
    key: Zeroizing<[u8; 32]>,
    signal: SignalId,
}

impl SignalKey {
    pub(crate) fn new(key: [u8; 32], signal: SignalId) -> Self {
        Self { key: Zeroizing::new(key), signal }
    }
}

impl Unseal for SignalKey {
    fn personal(&self, sealed: &[u8]) -> Option<String> {
        seal::open(&self.key, sealed, self.signal.as_bytes())
    }

    fn context(&self, sealed: &[u8]) -> Option<String> {
        seal::open(&self.key, sealed, &context_place(self.signal))
    }
}

impl Stamp {
    /// The envelope of a signal, without a place yet. Personal data is sealed; without a key only redactions are kept, and
    /// the context as [`seal_context`] says.
    #[must_use]
    pub fn envelope(&self, id: SignalId, at: Timestamp, mut signal: Signal, key: Option<SealKey>) -> Envelope {
        signal.visit_personal(&mut |personal| seal_one(personal, id, key));
        let mut envelope = Envelope {
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
        };
        seal_context(&mut envelope, key);
        envelope
    }
}

/// Seals what is personal in an envelope's context for this signal alone. Without a key it stays as it is, unless it
/// was sealed before: then it is withheld, as where it cannot be sealed.
pub fn seal_context(envelope: &mut Envelope, key: Option<SealKey>) {
    let context = &mut envelope.context;
    if key.is_none() && context.sealed().is_none() {
        return;
    }
    let sealed = match (context.personal(), key) {
        (Some(text), Some(key)) => seal::seal(&key.0, &text, &context_place(envelope.id)).ok(),
        _ => None,
    };
    match sealed {
        Some(sealed) => context.set_sealed(sealed),
        None => context.withhold_personal(),
    }
}

/// Of signals that name a user whose key is not at hand, what is personal in the context is not stored rather than
/// stored in clear.
pub fn withhold_unsealed(envelopes: &mut [Envelope]) {
    let names_user = envelopes.iter().any(|envelope| envelope.signal.user().is_some());
    for envelope in envelopes.iter_mut().filter(|envelope| names_user && envelope.context.sealed().is_none()) {
        envelope.context.withhold_personal();
    }
}

/// What the sealed context of a signal is bound to.
#[must_use]
pub fn context_place(signal: SignalId) -> Vec<u8> {
    [signal.as_bytes().as_slice(), b"context"].concat()
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

    #[test]
    fn a_context_is_sealed_with_its_signal_and_never_laid_open_again() {
        let context = Context::new().request_id("r-1").client_ip([192, 0, 2, 7].into()).user_agent("browser");
        let stamp = |context: &Context| {
            let (flow, context) = (FlowId::new(), context.clone());
            Stamp { flow, cause: None, lane: Lane::Flow(flow), actor: Actor::System, context }
        };
        let envelope = |context: &Context, key: Option<SealKey>| {
            let signal = Signal::UserLogoutStarted { session: None };
            stamp(context).envelope(SignalId::new(), Timestamp::from_micros(0), signal, key)
        };
        assert_eq!(envelope(&context, None).context, context, "there is no key of a user to seal it under");
        let first = envelope(&context, Some(SealKey([7; 32])));
        let open =
            |envelope: &Envelope, key| seal::open(key, envelope.context.sealed().unwrap(), &context_place(envelope.id));
        assert_eq!(open(&first, &[7; 32]), context.personal());
        assert_eq!(seal::open(&[7; 32], first.context.sealed().unwrap(), first.id.as_bytes()), None);
        assert_eq!(first.context.told_user_agent(), Some("browser"), "whoever is told of it now can read it");
        // A follow-up takes the context over.
        let second = envelope(&first.context, Some(SealKey([7; 32])));
        assert_eq!(open(&second, &[7; 32]), context.personal());
        assert_ne!(second.context, first.context);
        assert_eq!(envelope(&first.context, None).context, Context::new().request_id("r-1"), "the user was deleted");
        let mut unreadable = Context::new();
        unreadable.set_sealed(vec![1; 50]);
        assert!(envelope(&unreadable, Some(SealKey([7; 32]))).context.is_empty());
    }
}
