//! The outbox: the roster of subscriptions, each of which hands the signals of the log to its subscriber, durably.

mod attempt;
mod cursor;
mod delivery;
mod desk;
mod doorbell;
mod follow_up;
mod subscription;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use majordomo_model::Filter;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use self::desk::SubscriptionDesk;
pub use self::doorbell::Doorbell;
use crate::clock::Clock;
use crate::storage::{Storage, Unreadable};
use crate::subscriber::{BoxedSubscriber, Capability};
use crate::supervision::{Child, OnMeltdown, Progress};
use crate::token::Tokens;

/// The longest name of a subscription, in bytes.
pub const SUBSCRIPTION_NAME_LIMIT: usize = 64;

/// Where a subscription begins the first time that it is started. Later it goes on where it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// With the first signal after it.
    Now,
    /// With the oldest signal that is kept.
    Beginning,
}

/// A subscription, as it is asked for.
pub struct Registration {
    /// The name that its cursor, its projection and its follow-up signals go under: 1 to 64 of `a-z 0-9 _ . -`.
    pub name: String,
    /// Which signals it is handed.
    pub filter: Filter,
    /// Where it begins.
    pub start: Start,
    /// What it may do beyond reading.
    pub capabilities: Vec<Capability>,
    /// Who handles the signals.
    pub subscriber: BoxedSubscriber,
}

impl fmt::Debug for Registration {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Registration")
            .field("name", &self.name)
            .field("start", &self.start)
            .field("capabilities", &self.capabilities)
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
    /// A subscription of that name exists.
    #[error("a subscription of that name exists")]
    NameTaken,
}

impl RegistrationError {
    /// The stable name, in `snake_case`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidName => "invalid_name",
            Self::NameTaken => "name_taken",
        }
    }
}

/// How a subscription is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscriptionState {
    /// Its name.
    pub name: String,
    /// Every signal up to and with this place is handled; 0 before its first start too.
    pub floor: u64,
    /// The place of the log's last signal; the floor while the store is out.
    pub head: u64,
    /// How many places lie between the two, those it does not ask for included.
    pub lag: u64,
    /// How often the signal that it is at was handed over, if it is at one; otherwise 0.
    pub attempts_on_current: u32,
    /// How many signals were handled since the system was started.
    pub handled: u64,
    /// How often its subscriber asked for a retry, panicked, or had its effects refused since then.
    pub failures: u64,
    /// What the last failure was.
    pub last_failure: Option<String>,
}

/// The handle of the outbox. Cloning shares it.
#[derive(Clone)]
pub struct Outbox {
    shared: Arc<Shared>,
}

struct Shared {
    storage: Storage,
    tokens: Tokens,
    clock: Clock,
    doorbell: Doorbell,
    code_lifetime: Duration,
    subscriptions: RwLock<Vec<Arc<Subscription>>>,
}

/// What is common to all incarnations of one subscription.
struct Subscription {
    registration: Registration,
    storage: Storage,
    doorbell: Doorbell,
    desk: Arc<SubscriptionDesk>,
    progress: Progress,
    figures: Mutex<Figures>,
    reached: watch::Sender<u64>,
    /// Up to where the store was told what handling came to; at or behind `reached`.
    settled: watch::Sender<u64>,
}

#[derive(Default)]
struct Figures {
    attempts_on_current: u32,
    handled: u64,
    failures: u64,
    last_failure: Option<String>,
    /// The place of the last signal that a panic was told of.
    panic_told: Option<u64>,
}

impl Outbox {
    /// An outbox without subscriptions, over a store whose commits ring this doorbell. Messages tell how long a code
    /// works, which is for whoever judges it to say.
    #[must_use]
    pub fn new(storage: Storage, tokens: Tokens, clock: Clock, doorbell: Doorbell, code_lifetime: Duration) -> Self {
        let subscriptions = RwLock::default();
        Self { shared: Arc::new(Shared { storage, tokens, clock, doorbell, code_lifetime, subscriptions }) }
    }

    /// Takes a subscription on the roster. The child that is returned runs it, under a supervisor of the caller's; it
    /// has the subscription's name, and is quarantined if it fails too often.
    ///
    /// # Errors
    /// [`RegistrationError`].
    pub fn register(&self, registration: Registration) -> Result<Child, RegistrationError> {
        if !is_valid(&registration.name) {
            return Err(RegistrationError::InvalidName);
        }
        let mut subscriptions = self.shared.subscriptions.write().unwrap_or_else(PoisonError::into_inner);
        if subscriptions.iter().any(|subscription| subscription.registration.name == registration.name) {
            return Err(RegistrationError::NameTaken);
        }
        let subscription = Arc::new(Subscription::new(&self.shared, registration));
        subscriptions.push(Arc::clone(&subscription));
        let (name, progress) = (subscription.registration.name.clone(), subscription.progress.clone());
        let start = move |supervisor| subscription::start(Arc::clone(&subscription), supervisor);
        Ok(Child::new(name, start).progress(progress).on_meltdown(OnMeltdown::Quarantine))
    }

    /// How the subscriptions are, in the order of their registration.
    #[must_use]
    pub fn state(&self) -> Vec<SubscriptionState> {
        let head = self.shared.storage.reader().head().unwrap_or(0);
        self.subscriptions().iter().map(|subscription| subscription.observe(head)).collect()
    }

    /// Waits until every subscription has handled everything up to `up_to` and to the end of the log, what they emit
    /// themselves included, and its progress and projections are at the store: its next flush makes them durable. It
    /// waits as long as one of them is stopped, or keeps failing on a signal.
    ///
    /// # Errors
    /// [`Unreadable`] while the store is out.
    pub async fn drained(&self, up_to: u64) -> Result<(), Unreadable> {
        let reader = self.shared.storage.reader();
        loop {
            let target = reader.head()?.max(up_to);
            let subscriptions = self.subscriptions();
            self.shared.doorbell.ring();
            for subscription in &subscriptions {
                // It ends only with the subscription, which is held here.
                let _ = subscription.settled.subscribe().wait_for(|settled| *settled >= target).await;
            }
            let all_there = subscriptions.iter().all(|subscription| *subscription.settled.borrow() >= target);
            if all_there && reader.head()? <= target {
                return Ok(());
            }
        }
    }

    fn subscriptions(&self) -> Vec<Arc<Subscription>> {
        self.shared.subscriptions.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Debug for Outbox {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Outbox").field("subscriptions", &self.state()).finish_non_exhaustive()
    }
}

impl Subscription {
    fn new(shared: &Shared, registration: Registration) -> Self {
        let desk = SubscriptionDesk {
            name: registration.name.clone(),
            capabilities: registration.capabilities.clone(),
            reader: shared.storage.reader(),
            tokens: shared.tokens.clone(),
            clock: shared.clock.clone(),
            code_lifetime: shared.code_lifetime,
            unstored: Mutex::new(HashMap::new()),
        };
        Self {
            registration,
            storage: shared.storage.clone(),
            doorbell: shared.doorbell.clone(),
            desk: Arc::new(desk),
            progress: Progress::default(),
            figures: Mutex::default(),
            reached: watch::Sender::new(0),
            settled: watch::Sender::new(0),
        }
    }

    /// Notes, for whoever waits, that everything up to this place is handled.
    fn reached(&self, seq: u64) {
        self.reached.send_if_modified(|reached| std::mem::replace(reached, seq) != seq);
    }

    /// Notes, for whoever waits, that the store was told of everything up to this place.
    fn settled(&self, seq: u64) {
        self.settled.send_if_modified(|settled| std::mem::replace(settled, seq) != seq);
    }

    fn figures(&self) -> MutexGuard<'_, Figures> {
        self.figures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn observe(&self, head: u64) -> SubscriptionState {
        let floor = *self.reached.borrow();
        let figures = self.figures();
        SubscriptionState {
            name: self.registration.name.clone(),
            floor,
            head: head.max(floor),
            lag: head.saturating_sub(floor),
            attempts_on_current: figures.attempts_on_current,
            handled: figures.handled,
            failures: figures.failures,
            last_failure: figures.last_failure.clone(),
        }
    }
}

fn is_valid(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_.-".contains(&byte);
    (1..=SUBSCRIPTION_NAME_LIMIT).contains(&name.len()) && name.bytes().all(fits)
}

#[cfg(test)]
mod tests;
