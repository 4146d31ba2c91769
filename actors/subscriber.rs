//! The subscriber: what an app, the notifier and the auditor implement to be fed signals durably.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use majordomo_model::{
    Contact, Envelope, Failure, FlowId, Gap, OneTimeCode, OneTimeToken, Signal, SignalId, StoreId, Timestamp, TokenId,
    TokenPurpose, User, UserId,
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
    /// Handles one signal. A panic counts as [`Outcome::Retry`], as does a deadline that passes.
    fn handle(&self, envelope: &Envelope, context: &SubscriberContext) -> impl Future<Output = Outcome> + Send;

    /// Handles several signals at once, and answers an outcome for each, in their order; what has none is handed over
    /// again, at no cost unless none has one. Called where the subscription asks for batches. A panic, or a deadline that passes, counts as an
    /// attempt at each, and they are handed over one by one from then on, so that only the one at fault is given up.
    ///
    /// Unless it is implemented, it handles one after the other, up to the first that is not done.
    fn handle_batch(
        &self,
        batch: &[Arc<Envelope>],
        context: &SubscriberContext,
    ) -> impl Future<Output = Vec<Outcome>> + Send {
        async move {
            let mut outcomes = Vec::with_capacity(batch.len());
            for envelope in batch {
                let outcome = self.handle(envelope, context).await;
                let is_done = matches!(&outcome, Outcome::Done(effects) if context.foresee(effects));
                outcomes.push(outcome);
                if !is_done {
                    break;
                }
            }
            outcomes
        }
    }

    /// Learns of signals that it will never get, before it is handed what follows them: the log had to forget them.
    /// What it projects or forgets is committed with the note that it was told; with any other effect it is told again, as
    /// where it asks for a retry.
    ///
    /// Unless it is implemented, it takes note and does nothing; the system tells `subscriber_missed` in any case.
    fn missed(&self, _gap: Gap, _context: &SubscriberContext) -> impl Future<Output = Outcome> + Send {
        async { Outcome::done() }
    }
}

/// What became of a signal in a handler.
#[derive(Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// It is done; the effects are committed together with the subscription's progress.
    Done(Vec<Effect>),
    /// It failed: it is to be handed over again, after a growing pause. It costs an attempt.
    Retry {
        /// Why, for the operator; at most 200 bytes are kept. Without personal data or secrets.
        reason: String,
    },
    /// Not now: it is to be handed over again at a certain time, which a restart does not change. It
    /// costs no attempt: for a server that is down, or that says when to come back.
    Defer {
        /// Until when it rests, by the system's clock. What lies further ahead than a day is taken as a day.
        until: Timestamp,
    },
    /// Nothing more is to be handed over until an operator releases the subscription, in another process neither: for
    /// a counterpart that says that it is gone for good. It costs no attempt; this signal comes again then.
    Halt {
        /// Why, for the operator; at most 200 bytes are kept. Without personal data or secrets.
        reason: String,
    },
    /// It cannot be handled, however often it is tried: it becomes a dead letter at once.
    Reject {
        /// Why, for the operator; at most 200 bytes are kept. Without personal data or secrets.
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

    /// Not done, and not to be tried before this time.
    #[must_use]
    pub const fn defer(until: Timestamp) -> Self {
        Self::Defer { until }
    }

    /// Not done, and nothing more is to be handed over before an operator says so.
    #[must_use]
    pub fn halt(reason: impl Into<String>) -> Self {
        Self::Halt { reason: reason.into() }
    }

    /// Never to be done.
    #[must_use]
    pub fn reject(reason: impl Into<String>) -> Self {
        Self::Reject { reason: reason.into() }
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
    /// Removes a value from the subscription's own projection.
    Forget {
        /// The key.
        key: Vec<u8>,
    },
    /// Emits a further signal, in the lane of the one that is handled and caused by its flow.
    Emit(Box<Signal>),
    /// Ends the delivery of a token's message: the transport accepted it. Needs [`Capability::Deliver`].
    Delivered(TokenId),
    /// Ends the delivery of a token's message: it was given up, for this reason. Needs [`Capability::Deliver`].
    DeliveryFailed(TokenId, Failure),
    /// Settles the message that the handled signal asks for: whoever claims it from now on is told so
    /// ([`Claim::Settled`]). If it was settled before, the signals that are emitted beside this are left out: what became
    /// of the message is told once. Needs [`Capability::Deliver`].
    Settle,
}

/// What a subscription may do beyond reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Capability {
    /// Turn a token's id into its link and code, end its delivery, and claim messages. For notifiers.
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

/// Whose the message is that a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Claim {
    /// The subscription's own: nobody else sends it for as long as this handler may be at work.
    Yours,
    /// Another subscription is sending it.
    Held {
        /// Until when; from then on it can be claimed anew.
        until: Timestamp,
    },
    /// It is told already what became of it.
    Settled,
}

/// What a live token's message needs.
pub struct DueMessage {
    /// The user.
    pub user: UserId,
    /// What the token is good for.
    pub purpose: TokenPurpose,
    /// The exact address that it is bound to, and the only one that it may be sent to. Of a link that takes a change back
    /// it is the one from before, whether or not it is still the user's.
    pub address: Contact,
    /// The path of the link, to be put behind the configured base URL; none for what has a code only.
    pub path: Option<OneTimeToken>,
    /// The code; none for what has a link only.
    pub code: Option<OneTimeCode>,
    /// When the link ends.
    pub expires_at: Timestamp,
    /// When the code ends, which is sooner as a rule.
    pub code_expires_at: Timestamp,
    /// The flow that this delivery is; a link that takes a change back has none, as it comes with a notice.
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
    /// A value of the subscription's own projection, and a number that changes whenever the value does.
    fn projection(&self, key: &[u8]) -> Result<(Option<Vec<u8>>, u64), Unanswered>;
    /// The name of the store.
    fn store(&self) -> Result<StoreId, Unanswered>;
    /// Claims the message that the signal of a place asks for.
    fn claim(&self, signal: SignalId, place: u64) -> Claiming<'_>;
    /// The present time.
    fn now(&self) -> Timestamp;
}

/// The answer to a claim, which takes a commit.
pub(crate) type Claiming<'a> = Pin<Box<dyn Future<Output = Result<Claim, Unanswered>> + Send + 'a>>;

/// What a handler may ask while it handles a signal.
#[derive(Clone)]
pub struct SubscriberContext {
    desk: Arc<dyn Desk>,
    attempt: u32,
    rebuilding: bool,
    seen: Arc<Mutex<Seen>>,
}

/// How many values one hand-over may record.
const RECORDED_LIMIT: usize = 16;

/// What a handler has read of the projection, and what the signals before in its batch will have written.
#[derive(Default)]
struct Seen {
    read: HashMap<Vec<u8>, u64>,
    foreseen: HashMap<Vec<u8>, Option<Vec<u8>>>,
    recorded: Vec<(Vec<u8>, Vec<u8>)>,
}

impl SubscriberContext {
    /// A context over a desk, for the given attempt at the signal (the first is 1).
    pub(crate) fn new(desk: Arc<dyn Desk>, attempt: u32, rebuilding: bool) -> Self {
        Self { desk, attempt, rebuilding, seen: Arc::default() }
    }

    /// Which attempt at this signal it is; the first is 1. Attempts are counted across restarts; of a batch it is the
    /// highest.
    #[must_use]
    pub const fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Whether the projection is being built anew from signals that were handled before. Then only what is projected
    /// counts: signals that are emitted and ends of deliveries are left out, and a handler should do nothing outside.
    #[must_use]
    pub const fn is_rebuilding(&self) -> bool {
        self.rebuilding
    }

    /// What was read of the projection, each key with the number it had.
    pub(crate) fn read(&self) -> Vec<(Vec<u8>, u64)> {
        self.seen().read.iter().map(|(key, number)| (key.clone(), *number)).collect()
    }

    /// What is to be projected whatever comes of the signal.
    pub(crate) fn recorded(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        std::mem::take(&mut self.seen().recorded)
    }

    /// Shows what effects will have done to the projection to the signals that follow in the same batch.
    fn foresee(&self, effects: &[Effect]) -> bool {
        let mut seen = self.seen();
        for effect in effects {
            match effect {
                Effect::Project { key, value } => drop(seen.foreseen.insert(key.clone(), Some(value.clone()))),
                Effect::Forget { key } => drop(seen.foreseen.insert(key.clone(), None)),
                _ => {}
            }
        }
        true
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Claims the message that the signal at hand asks for, so that of several subscriptions one sends it. The claim is
    /// durable when this answers; it lasts for twice the subscription's deadline, or until it is settled by
    /// [`Effect::Settle`]. After a crash a subscription finds its own claim again and goes on; once a claim's time is
    /// over, another subscription may take the message over. Costs a small commit, unless the claim is its own already.
    ///
    /// # Errors
    /// [`Unanswered::NotGranted`] without [`Capability::Deliver`]; [`Unanswered::StorageUnavailable`].
    pub async fn claim(&self, envelope: &Envelope) -> Result<Claim, Unanswered> {
        self.desk.claim(envelope.id, envelope.seq.unwrap_or_default()).await
    }

    /// A value of this subscription's own projection, as the signals handled before this one left it.
    ///
    /// # Errors
    /// [`Unanswered::StorageUnavailable`].
    pub fn projection(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Unanswered> {
        if let Some(value) = self.seen().foreseen.get(key) {
            return Ok(value.clone());
        }
        let (value, number) = self.desk.projection(key)?;
        self.seen().read.entry(key.to_vec()).or_insert(number);
        Ok(value)
    }

    /// The name of the store that the signals come from: the same for its whole life, and in every copy of it.
    ///
    /// # Errors
    /// [`Unanswered::StorageUnavailable`].
    pub fn store(&self) -> Result<StoreId, Unanswered> {
        self.desk.store()
    }

    /// Stores a value in this subscription's own projection whatever the outcome is, such as what became of an attempt
    /// that failed. It rides with the progress that is stored next, and is lost if the process ends before. The limits
    /// of [`Effect::Project`] hold; what exceeds them is left out, and so is what is recorded after 16 values.
    pub fn record(&self, key: Vec<u8>, value: Vec<u8>) {
        let mut seen = self.seen();
        if seen.recorded.len() < RECORDED_LIMIT {
            seen.recorded.push((key, value));
        }
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

    /// As [`Subscriber::handle_batch`].
    fn handle_batch<'a>(
        &'a self,
        batch: &'a [Arc<Envelope>],
        context: &'a SubscriberContext,
    ) -> Pin<Box<dyn Future<Output = Vec<Outcome>> + Send + 'a>>;

    /// As [`Subscriber::missed`].
    fn missed<'a>(
        &'a self,
        gap: Gap,
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

    fn handle_batch<'a>(
        &'a self,
        batch: &'a [Arc<Envelope>],
        context: &'a SubscriberContext,
    ) -> Pin<Box<dyn Future<Output = Vec<Outcome>> + Send + 'a>> {
        Box::pin(Subscriber::handle_batch(self, batch, context))
    }

    fn missed<'a>(
        &'a self,
        gap: Gap,
        context: &'a SubscriberContext,
    ) -> Pin<Box<dyn Future<Output = Outcome> + Send + 'a>> {
        Box::pin(Subscriber::missed(self, gap, context))
    }
}
