//! A registration: who subscribes under which name, to what, and on which terms.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use majordomo_model::{Filter, MaxLag, OnFailure, RetryPolicy, Start};
use serde::{Deserialize, Serialize};

use crate::subscriber::{BoxedSubscriber, Capability, Subscriber};

/// The longest name of a subscription, in bytes.
pub const SUBSCRIPTION_NAME_LIMIT: usize = 64;
/// The most signals in the hands of one subscription: lanes times the size of a batch.
pub const IN_HAND_LIMIT: usize = 256;
/// The longest that a subscription may wait for more.
pub const LINGER_LIMIT: Duration = Duration::from_secs(10);

/// On which terms a subscription is fed. Every field has a default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SubscriptionSettings {
    /// How many hand-overs may be under way at once, each of another lane: 1 to 256. Default 1.
    pub concurrency: usize,
    /// How many signals are handed over at once at most: 1 to 256. Above 1 it is [`Subscriber::handle_batch`] that is
    /// called. Default 1.
    pub batch: usize,
    /// How long it waits for more, once the log has grown behind what it has handled; not while there is more already,
    /// or somebody waits for it. With a `batch` it is woken less often and handed more at once: at most 10 s. Default 0.
    pub linger: Duration,
    /// How long a handler may take. Default 1 minute.
    pub deadline: Duration,
    /// When a signal that was not handled is handed over again, and when it is given up.
    pub retry: RetryPolicy,
    /// What a signal that was not handled holds up.
    pub on_failure: OnFailure,
    /// After how many signals given up in a row, none being handled in between, the subscriber is taken for broken and
    /// quarantined, so that it does not give up the whole log. Default 10; 0 is never.
    pub quarantine_after: u32,
    /// How far it may lie behind before it lapses; the store's own limit holds beside it.
    pub max_lag: MaxLag,
    /// Whether its projection is a record in its own right, which may reach further back than the log: then it is neither
    /// rebuilt nor forgotten, attached or not. It holds from the first time that the subscription is attached so until it
    /// is attached otherwise. Default no.
    pub keep_projection: bool,
}

impl Default for SubscriptionSettings {
    fn default() -> Self {
        Self {
            concurrency: 1,
            batch: 1,
            linger: Duration::ZERO,
            deadline: Duration::from_secs(60),
            retry: RetryPolicy::default(),
            on_failure: OnFailure::default(),
            quarantine_after: 10,
            max_lag: MaxLag::default(),
            keep_projection: false,
        }
    }
}

/// A subscription, as it is asked for: a durable one, with a cursor of its own.
///
/// ```
/// use std::time::Duration;
///
/// use majordomo_actors::outbox::Subscription;
/// use majordomo_actors::subscriber::{Outcome, Subscriber, SubscriberContext};
/// use majordomo_model::{Envelope, Filter, RetryPolicy, SignalKind, Start};
///
/// struct Welcome;
///
/// impl Subscriber for Welcome {
///     async fn handle(&self, _envelope: &Envelope, _context: &SubscriberContext) -> Outcome {
///         Outcome::done()
///     }
/// }
///
/// let subscription = Subscription::new("welcome", Welcome)
///     .filter(Filter::kinds([SignalKind::UserRegistered]))
///     .start(Start::Beginning)
///     .concurrency(8)
///     .retry(RetryPolicy { attempts: Some(5), ..RetryPolicy::default() })
///     .deadline(Duration::from_secs(10));
/// ```
#[derive(Clone)]
#[must_use = "it is fed only once it is given to the builder or to the running system"]
pub struct Subscription {
    pub(super) name: String,
    pub(super) filter: Filter,
    pub(super) start: Start,
    pub(super) capabilities: Vec<Capability>,
    pub(super) subscriber: BoxedSubscriber,
    pub(super) settings: SubscriptionSettings,
}

impl Subscription {
    /// A subscription of everything from now on, on the default terms. Its cursor, its projection and its follow-up
    /// signals go under the name: 1 to 64 of `a-z 0-9 _ . -`.
    pub fn new(name: impl Into<String>, subscriber: impl Subscriber) -> Self {
        Self {
            name: name.into(),
            filter: Filter::all(),
            start: Start::Now,
            capabilities: Vec::new(),
            subscriber: Arc::new(subscriber),
            settings: SubscriptionSettings::default(),
        }
    }

    /// Which signals it is handed. A filter that is changed later holds from the cursor on.
    pub fn filter(self, filter: Filter) -> Self {
        Self { filter, ..self }
    }

    /// Where it begins the first time that it is started. Later it goes on where it was.
    pub fn start(self, start: Start) -> Self {
        Self { start, ..self }
    }

    /// Grants it what reading alone does not permit.
    pub fn capability(mut self, capability: Capability) -> Self {
        self.capabilities.push(capability);
        self
    }

    /// On these terms.
    pub fn settings(self, settings: SubscriptionSettings) -> Self {
        Self { settings, ..self }
    }

    /// Sets [`SubscriptionSettings::concurrency`].
    pub fn concurrency(mut self, lanes: usize) -> Self {
        self.settings.concurrency = lanes;
        self
    }

    /// Sets [`SubscriptionSettings::batch`].
    pub fn batch(mut self, signals: usize) -> Self {
        self.settings.batch = signals;
        self
    }

    /// Sets [`SubscriptionSettings::linger`].
    pub fn linger(mut self, linger: Duration) -> Self {
        self.settings.linger = linger;
        self
    }

    /// Sets [`SubscriptionSettings::deadline`].
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.settings.deadline = deadline;
        self
    }

    /// Sets [`SubscriptionSettings::retry`].
    pub fn retry(mut self, retry: RetryPolicy) -> Self {
        self.settings.retry = retry;
        self
    }

    /// Sets [`SubscriptionSettings::on_failure`].
    pub fn on_failure(mut self, on_failure: OnFailure) -> Self {
        self.settings.on_failure = on_failure;
        self
    }

    /// Sets [`SubscriptionSettings::quarantine_after`].
    pub fn quarantine_after(mut self, signals: u32) -> Self {
        self.settings.quarantine_after = signals;
        self
    }

    /// Sets [`SubscriptionSettings::max_lag`].
    pub fn max_lag(mut self, max_lag: MaxLag) -> Self {
        self.settings.max_lag = max_lag;
        self
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What is wrong with it, if anything.
    ///
    /// # Errors
    /// [`RegistrationError`].
    pub fn check(&self) -> Result<(), RegistrationError> {
        let SubscriptionSettings { concurrency, batch, linger, deadline, on_failure, .. } = self.settings;
        if !is_valid(&self.name) {
            return Err(RegistrationError::InvalidName);
        }
        if concurrency == 0 || batch == 0 || concurrency.saturating_mul(batch) > IN_HAND_LIMIT {
            return Err(RegistrationError::InvalidConcurrency);
        }
        if on_failure == OnFailure::StallAll && concurrency > 1 {
            return Err(RegistrationError::OrderNeedsOneLane);
        }
        if deadline.is_zero() {
            return Err(RegistrationError::InvalidDeadline);
        }
        if linger > LINGER_LIMIT {
            return Err(RegistrationError::InvalidLinger);
        }
        Ok(())
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Subscription")
            .field("name", &self.name)
            .field("start", &self.start)
            .field("capabilities", &self.capabilities)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// Why a subscription was not registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum RegistrationError {
    /// The name is empty, too long, or holds another character than `a-z 0-9 _ . -`.
    #[error("a subscription's name has 1 to 64 of a-z 0-9 _ . -")]
    InvalidName,
    /// A subscription of that name exists, or is being forgotten.
    #[error("a subscription of that name exists")]
    NameTaken,
    /// Concurrency and batch are not at least 1, or more than 256 signals would be in hand.
    #[error("concurrency and batch are at least 1, and their product is 256 at most")]
    InvalidConcurrency,
    /// Everything is to wait for a failure, and yet lanes are to run side by side.
    #[error("a subscription that stalls altogether has one lane")]
    OrderNeedsOneLane,
    /// The deadline is zero.
    #[error("a handler's deadline is longer than nothing")]
    InvalidDeadline,
    /// It would linger for longer than 10 seconds.
    #[error("a subscription lingers for 10 seconds at most")]
    InvalidLinger,
}

impl RegistrationError {
    /// The stable name, in `snake_case`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidName => "invalid_name",
            Self::NameTaken => "name_taken",
            Self::InvalidConcurrency => "invalid_concurrency",
            Self::OrderNeedsOneLane => "order_needs_one_lane",
            Self::InvalidDeadline => "invalid_deadline",
            Self::InvalidLinger => "invalid_linger",
        }
    }
}

fn is_valid(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_.-".contains(&byte);
    (1..=SUBSCRIPTION_NAME_LIMIT).contains(&name.len()) && name.bytes().all(fits)
}
