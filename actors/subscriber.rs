//! The subscriber: what an app, the notifier and the auditor implement to be fed signals durably.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use majordomo_model::{
    Contact, Envelope, Failure, FlowId, OneTimeCode, OneTimeToken, Signal, Timestamp, TokenId, TokenPurpose, User,
    UserId,
};

/// Handles the signals that its subscription lets through, each at least once, in the order of the log.
///
/// A handler may be called again with a signal it has seen: after a crash, after it asked for a retry. The envelope's
/// `id` is the idempotency key; it never changes. What a handler does can neither fail nor delay the flow that emitted
/// the signal, which is committed and answered already.
///
/// ```
/// use majordomo_actors::subscriber::{Outcome, Subscriber, SubscriberContext};
/// use majordomo_model::{Envelope, Signal};
///
/// struct Welcome;
///
/// impl Subscriber for Welcome {
///     async fn handle(&self, envelope: &Envelope, _context: &SubscriberContext) -> Outcome {
///         if let Signal::UserRegistered { user, .. } = &envelope.signal {
///             println!("welcome, {user}");
///         }
///         Outcome::done()
///     }
/// }
/// ```
pub trait Subscriber: Send + Sync + 'static {
    /// Handles one signal. A panic counts as [`Outcome::Retry`].
    fn handle(&self, envelope: &Envelope, context: &SubscriberContext) -> impl Future<Output = Outcome> + Send;
}

/// What became of a signal in a handler.
#[derive(Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// It is done; the effects are committed together with the subscription's progress.
    Done(Vec<Effect>),
    /// It is to be handed over again, after a growing pause; what follows it waits.
    Retry {
        /// Why, for the log. Without personal data or secrets.
        reason: String,
    },
}

impl Outcome {
    /// Done, without effects.
    #[must_use]
    pub const fn done() -> Self {
        Self::Done(Vec::new())
    }

    /// Not done; to be handed over again.
    #[must_use]
    pub fn retry(reason: impl Into<String>) -> Self {
        Self::Retry { reason: reason.into() }
    }
}

/// Something that is committed in the same transaction as the subscription's progress: exactly once.
#[derive(Debug)]
#[non_exhaustive]
pub enum Effect {
    /// Stores a value in the subscription's own projection, which [`SubscriberContext::projection`] reads.
    Project {
        /// The key, 1 to 512 bytes.
        key: Vec<u8>,
        /// The value, at most 64 KiB.
        value: Vec<u8>,
    },
    /// Emits a further signal, in the lane of the one that is handled and caused by its flow.
    Emit(Box<Signal>),
    /// Ends the delivery of a token's message: the transport accepted it. Needs [`Capability::Deliver`].
    Delivered(TokenId),
    /// Ends the delivery of a token's message: it was given up, for this reason. Needs [`Capability::Deliver`].
    DeliveryFailed(TokenId, Failure),
}

/// What a subscription may do beyond reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Capability {
    /// Turn a token's id into its link and code, and end its delivery. For notifiers.
    Deliver,
}

/// Why a handler's question was not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unanswered {
    /// Storage is out; retry later.
    #[error("storage is unavailable")]
    StorageUnavailable,
    /// The subscription was not granted the capability.
    #[error("the subscription has no such capability")]
    NotGranted,
}

/// The state of a one-time token, for a notifier that is about to send its message.
#[non_exhaustive]
pub enum Delivery {
    /// It is to be sent.
    Live(DueMessage),
    /// A newer token took its place, or what it was for is gone: nothing is to be sent.
    Superseded,
    /// It was used already.
    Used,
    /// It ended by time.
    Expired,
    /// Its delivery ended before, in success or failure.
    Ended,
}

/// What a live token's message needs.
pub struct DueMessage {
    /// The user.
    pub user: UserId,
    /// What the token is good for.
    pub purpose: TokenPurpose,
    /// The exact address that it is bound to, and the only one that it may be sent to.
    pub address: Contact,
    /// The path of the link, to be put behind the configured base URL.
    pub path: OneTimeToken,
    /// The code.
    pub code: OneTimeCode,
    /// When the link ends.
    pub expires_at: Timestamp,
    /// When the code ends, which is sooner as a rule.
    pub code_expires_at: Timestamp,
    /// The flow that this delivery is.
    pub delivery: FlowId,
}

/// Shows the state, never a link or a code.
impl fmt::Debug for Delivery {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Live(_) => "Live(..)",
            Self::Superseded => "Superseded",
            Self::Used => "Used",
            Self::Expired => "Expired",
            Self::Ended => "Ended",
        })
    }
}

/// What the system answers to a handler; implemented by the outbox.
pub(crate) trait Desk: Send + Sync + 'static {
    /// A user.
    fn user(&self, id: UserId) -> Result<Option<User>, Unanswered>;
    /// The state of a token, with its link and code.
    fn delivery(&self, token: TokenId) -> Result<Delivery, Unanswered>;
    /// A value of the subscription's own projection.
    fn projection(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Unanswered>;
    /// The present time.
    fn now(&self) -> Timestamp;
}

/// What a handler may ask while it handles a signal.
#[derive(Clone)]
pub struct SubscriberContext {
    desk: Arc<dyn Desk>,
    attempt: u32,
}

impl SubscriberContext {
    /// A context over a desk, for the given attempt at the signal (the first is 1).
    pub(crate) fn new(desk: Arc<dyn Desk>, attempt: u32) -> Self {
        Self { desk, attempt }
    }

    /// Which attempt at this signal it is; the first is 1. A restart of the process starts anew.
    #[must_use]
    pub const fn attempt(&self) -> u32 {
        self.attempt
    }

    /// A user as of now, which may be later than the signal; `None` if deleted since.
    ///
    /// # Errors
    /// [`Unanswered::StorageUnavailable`].
    pub fn user(&self, id: UserId) -> Result<Option<User>, Unanswered> {
        self.desk.user(id)
    }

    /// The state of a token and, if it is live, its link and code.
    ///
    /// # Errors
    /// [`Unanswered::NotGranted`] without [`Capability::Deliver`]; [`Unanswered::StorageUnavailable`].
    pub fn delivery(&self, token: TokenId) -> Result<Delivery, Unanswered> {
        self.desk.delivery(token)
    }

    /// A value of this subscription's own projection, as the signals handled before this one left it.
    ///
    /// # Errors
    /// [`Unanswered::StorageUnavailable`].
    pub fn projection(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Unanswered> {
        self.desk.projection(key)
    }

    /// The present time, by the system's clock.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.desk.now()
    }
}

/// A subscriber of any type.
pub type BoxedSubscriber = Arc<dyn ErasedSubscriber>;

/// [`Subscriber`] in a form that can be boxed.
pub trait ErasedSubscriber: Send + Sync + 'static {
    /// As [`Subscriber::handle`].
    fn handle<'a>(
        &'a self,
        envelope: &'a Envelope,
        context: &'a SubscriberContext,
    ) -> Pin<Box<dyn Future<Output = Outcome> + Send + 'a>>;
}

impl<S: Subscriber> ErasedSubscriber for S {
    fn handle<'a>(
        &'a self,
        envelope: &'a Envelope,
        context: &'a SubscriberContext,
    ) -> Pin<Box<dyn Future<Output = Outcome> + Send + 'a>> {
        Box::pin(Subscriber::handle(self, envelope, context))
    }
}
