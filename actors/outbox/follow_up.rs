//! Follow-ups: the checks, writes and signals that a handler's effects come to.

use majordomo_model::{Actor, Context, Envelope, FlowId, Lane, Sender, Signal, SignalId, Timestamp, TokenId};
use sha2::{Digest, Sha256};

use super::delivery::{self, Sending};
use crate::bytes::Bytes;
use crate::stamp::{SealKey, Stamp};
use crate::storage::{Check, DispatchRow, Reader, Unreadable, Write};
use crate::subscriber::Effect;

/// The longest key of a projection, in bytes.
const KEY_LIMIT: usize = 512;
/// The longest value of a projection, in bytes.
const VALUE_LIMIT: usize = 64 * 1_024;
/// How many effects a handler may have on one signal, and how many of them may be signals.
const EFFECTS_LIMIT: usize = 256;
const EMITTED_LIMIT: usize = 16;

/// What is committed together with the subscription's progress.
#[derive(Debug, Default)]
pub(super) struct FollowUps {
    pub(super) checks: Vec<Check>,
    pub(super) writes: Vec<Write>,
    pub(super) signals: Vec<Envelope>,
}

impl FollowUps {
    /// Adds those of another signal.
    pub(super) fn join(&mut self, others: Self) {
        self.checks.extend(others.checks);
        self.writes.extend(others.writes);
        self.signals.extend(others.signals);
    }
}

/// Why effects are refused; `None` if each is in order.
pub(super) fn refusal(effects: &[Effect], may_deliver: bool) -> Option<&'static str> {
    let emitted = effects.iter().filter(|effect| matches!(effect, Effect::Emit(_))).count();
    if effects.len() > EFFECTS_LIMIT || emitted > EMITTED_LIMIT {
        return Some("a signal may have 256 effects at most, 16 of them signals");
    }
    effects.iter().find_map(|effect| match effect {
        Effect::Project { key, .. } | Effect::Forget { key } if key.is_empty() || key.len() > KEY_LIMIT => {
            Some("the key of a projection has to be 1 to 512 bytes long")
        }
        Effect::Project { value, .. } if value.len() > VALUE_LIMIT => {
            Some("a value of a projection may be 64 KiB long at most")
        }
        Effect::Delivered(_) | Effect::DeliveryFailed(..) | Effect::Settle if !may_deliver => {
            Some("the subscription was not granted the capability to deliver")
        }
        _ => None,
    })
}

/// Whether effects change nothing but the subscription's own projection.
pub(super) fn are_private(effects: &[Effect]) -> bool {
    effects.iter().all(|effect| matches!(effect, Effect::Project { .. } | Effect::Forget { .. }))
}

/// Follow-ups under construction.
struct Assembly<'signal> {
    subscription: &'signal str,
    ended: &'signal mut Vec<TokenId>,
    handled: &'signal Envelope,
    at: Timestamp,
    key: Option<SealKey>,
    follow_ups: FollowUps,
}

/// What the effects of handling a signal come to beside its projection, on the rows as they are now. A delivery that
/// has ended already, or whose token is gone, is left out; so is one that another signal of the same batch ends, which
/// `ended` tells.
pub(super) fn assemble<'signal>(
    subscription: &'signal str,
    handled: &'signal Envelope,
    effects: &[Effect],
    reader: &Reader,
    at: Timestamp,
    ended: &'signal mut Vec<TokenId>,
) -> Result<FollowUps, Unreadable> {
    let user = match handled.lane {
        Lane::User(user) => reader.user_row(user)?,
        Lane::Flow(_) => None,
    };
    let key = user.map(|user| {
        let Bytes(key) = user.seal_key;
        SealKey(key)
    });
    let follow_ups = FollowUps::default();
    let mut assembly = Assembly { subscription, ended, handled, at, key, follow_ups };
    let settles = effects.iter().any(|effect| matches!(effect, Effect::Settle));
    let is_told = settles && !assembly.settle(reader)?;
    for (index, effect) in (0..).zip(effects) {
        match effect {
            // Told to the cursor, which knows the generation.
            Effect::Project { .. } | Effect::Forget { .. } | Effect::Settle => {}
            Effect::Emit(_) if is_told => {}
            Effect::Emit(signal) => assembly.emit(index, Signal::clone(signal)),
            Effect::Delivered(token) => assembly.end_delivery(index, *token, Sending::Sent, reader)?,
            Effect::DeliveryFailed(token, failure) => {
                assembly.end_delivery(index, *token, Sending::GaveUp(*failure), reader)?;
            }
        }
    }
    Ok(assembly.follow_ups)
}

impl Assembly<'_> {
    /// Settles the message of the handled signal; whether it was not settled before.
    fn settle(&mut self, reader: &Reader) -> Result<bool, Unreadable> {
        let stored = reader.dispatch(self.handled.id)?;
        if stored.as_ref().is_some_and(|row| row.settled) {
            tracing::debug!(subscription = self.subscription, signal = %self.handled.id, "a message had been settled before");
            return Ok(false);
        }
        let row = DispatchRow::settled(self.handled.seq.unwrap_or_default(), self.subscription, self.at);
        self.follow_ups.checks.push(Check::Dispatch(self.handled.id, stored));
        self.follow_ups.writes.push(Write::PutDispatch(self.handled.id, row));
        Ok(true)
    }

    fn emit(&mut self, index: u32, signal: Signal) {
        let flow = FlowId::from_bytes(derived(self.subscription, self.handled.id, "flow", 0));
        self.push(index, flow, Some(self.handled.flow), signal);
    }

    fn end_delivery(
        &mut self,
        index: u32,
        token: TokenId,
        sending: Sending,
        reader: &Reader,
    ) -> Result<(), Unreadable> {
        // All checks precede all writes: a second end in the same batch would pass its own.
        if self.ended.contains(&token) {
            return Ok(());
        }
        let row = reader.token(token)?.filter(|row| row.delivered == crate::storage::DeliveryState::Pending);
        let Some((row, end)) = row.and_then(|row| delivery::end(&row, sending).map(|end| (row, end))) else {
            tracing::debug!(subscription = self.subscription, %token, "a delivery had ended before");
            return Ok(());
        };
        self.ended.push(token);
        self.follow_ups.checks.extend(end.checks);
        self.follow_ups.writes.extend(end.writes);
        // The signal that started a delivery belongs to the delivery's own flow, which is not its own cause.
        let started_it = self.handled.flow == row.delivery;
        let cause = if started_it { self.handled.cause } else { Some(self.handled.flow) };
        self.push(index, row.delivery, cause, end.signal);
        Ok(())
    }

    fn push(&mut self, index: u32, flow: FlowId, cause: Option<FlowId>, signal: Signal) {
        let (actor, context) = (self.handled.actor.clone(), self.handled.context.clone());
        let stamp = Stamp { flow, cause, lane: self.handled.lane, actor, context };
        let id = SignalId::from_bytes(derived(self.subscription, self.handled.id, "signal", index));
        let mut envelope = stamp.envelope(id, self.at, signal, self.key);
        envelope.sender = Sender::subscriber(self.subscription);
        envelope.path = path(self.subscription, self.handled);
        self.follow_ups.signals.push(envelope);
    }
}

/// The subscriptions that a follow-up of a signal descends from.
fn path(subscription: &str, handled: &Envelope) -> Vec<Sender> {
    handled.path.iter().cloned().chain([Sender::subscriber(subscription)]).collect()
}

/// Whether a signal descends from a subscription, which is then not handed it.
pub(super) fn descends(signal: &Envelope, subscription: &str) -> bool {
    signal.path.iter().any(|sender| sender.as_str() == subscription)
}

/// What tells about a subscription and a signal that was handed to it: about the system, in a flow of its own.
pub(super) fn about(subscription: &str, handled: &Envelope, at: Timestamp, signal: Signal) -> Envelope {
    let flow = FlowId::new();
    let stamp = Stamp {
        flow,
        cause: Some(handled.flow),
        lane: Lane::Flow(flow),
        actor: Actor::System,
        context: Context::new(),
    };
    Envelope { path: path(subscription, handled), ..stamp.envelope(SignalId::new(), at, signal, None) }
}

/// What tells about a subscription itself.
pub(super) fn concerning(subscription: &str, actor: Actor, at: Timestamp, signal: Signal) -> Envelope {
    let flow = FlowId::new();
    let stamp = Stamp { flow, cause: None, lane: Lane::Flow(flow), actor, context: Context::new() };
    let path = vec![Sender::subscriber(subscription)];
    Envelope { path, ..stamp.envelope(SignalId::new(), at, signal, None) }
}

/// An identifier that handling the same signal again gives again: the first sixteen bytes of SHA-256 over the
/// length-prefixed name and `what`, the signal's id and the index, marked as a UUIDv8 (RFC 9562).
fn derived(subscription: &str, handled: SignalId, what: &str, index: u32) -> [u8; 16] {
    let mut hash = Sha256::new();
    for text in [subscription, what] {
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text);
    }
    hash.update(handled.as_bytes());
    hash.update(index.to_be_bytes());
    let digest: [u8; 32] = hash.finalize().into();
    let mut id = [0; 16];
    for (place, (to, from)) in id.iter_mut().zip(digest).enumerate() {
        *to = match place {
            6 => from & 0x0f | 0x80,
            8 => from & 0x3f | 0x80,
            _ => from,
        };
    }
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_fixed_for_life() {
        let handled = SignalId::from_bytes([7; 16]);
        let id =
            |subscription, what, index| SignalId::from_bytes(derived(subscription, handled, what, index)).to_string();
        // Computed apart from this code.
        assert_eq!(id("notifier", "signal", 0), "060ef2f5-19ac-83e4-a182-de42f2c092ec");
        assert_eq!(id("notifier", "signal", 1), "3056f335-1c1d-8e74-9dc0-82c0b9ac7d70");
        assert_ne!(id("notifier", "flow", 0), id("notifier", "signal", 0));
        assert_ne!(id("notifiers", "ignal", 0), id("notifier", "signal", 0));
    }

    #[test]
    fn effects_are_measured_and_need_their_capability() {
        let project = |key: usize, value: usize| [Effect::Project { key: vec![0; key], value: vec![0; value] }];
        for (key, value, refused) in
            [(0, 0, true), (1, 0, false), (512, 65_536, false), (513, 0, true), (1, 65_537, true)]
        {
            assert_eq!(refusal(&project(key, value), false).is_some(), refused, "{key} {value}");
        }
        let ends = [Effect::Delivered(TokenId::new())];
        assert!(refusal(&ends, false).is_some() && refusal(&ends, true).is_none());
        assert!(are_private(&project(1, 1)) && are_private(&[]) && !are_private(&ends));
    }
}
