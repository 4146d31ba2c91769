//! Due: the signal that a message is to be sent for, and what may be asked about it.

use majordomo_model::{Envelope, Failure, MessageKind, Signal, TokenId, UserId};

use crate::subscriber::{Claim, Delivery, Effect, Outcome, SubscriberContext, Unanswered};

/// What is handled at the moment.
#[derive(Clone, Copy)]
pub(super) struct Due<'a> {
    pub(super) envelope: &'a Envelope,
    pub(super) context: &'a SubscriberContext,
}

impl Due<'_> {
    /// The state of a token.
    pub(super) fn delivery(self, token: TokenId) -> Result<Delivery, Outcome> {
        self.context.delivery(token).map_err(unanswered)
    }

    /// Makes sure that nobody else sends this message; an error is what it comes to where somebody does, or did.
    pub(super) async fn claim(self) -> Result<(), Outcome> {
        match self.context.claim(self.envelope).await.map_err(unanswered)? {
            Claim::Yours => Ok(()),
            Claim::Held { until } => Err(Outcome::defer(until)),
            Claim::Settled => Err(Outcome::done()),
        }
    }
}

/// What comes of a question that was not answered.
pub(super) fn unanswered(unanswered: Unanswered) -> Outcome {
    Outcome::retry(unanswered.to_string())
}

/// The end of a notice that will not be sent, told and settled.
pub(super) fn given_up(message: MessageKind, user: UserId, reason: Failure, envelope: &Envelope) -> Outcome {
    let failed = Signal::NotificationFailed { user, message, signal: envelope.id, reason };
    Outcome::Done(vec![Effect::Emit(Box::new(failed)), Effect::Settle])
}
