//! The outbox: the roster of subscriptions, each of which hands the signals of the log to its subscriber, durably.

mod answer;
mod attempt;
mod cursor;
mod delivery;
mod desk;
mod doorbell;
mod follow_up;
mod operations;
mod registration;
mod state;
mod subscription;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::watch;

pub use self::answer::{DeadLetter, FailedAttempt, Moved, OperationError, RebuildStarted, UnattachedSubscription};
use self::desk::SubscriptionDesk;
pub use self::doorbell::Doorbell;
pub use self::registration::{
    IN_HAND_LIMIT, RegistrationError, SUBSCRIPTION_NAME_LIMIT, Subscription, SubscriptionSettings,
};
pub use self::state::{LastFailure, RebuildState, SubscriptionState, SubscriptionStatus};
use crate::clock::Clock;
pub use crate::storage::LetterState;
use crate::storage::{Storage, Unreadable};
use crate::supervision::{Child, OnMeltdown, Progress};
use crate::token::Tokens;

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
    subscriptions: RwLock<Vec<Arc<Feed>>>,
    /// The names that are being forgotten; locked after the subscriptions.
    leaving: Mutex<Vec<String>>,
}

impl Shared {
    fn leaving(&self) -> MutexGuard<'_, Vec<String>> {
        self.leaving.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is common to all incarnations of one subscription.
struct Feed {
    registration: Subscription,
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
    last_failure: Option<LastFailure>,
    /// The place of the last signal that a panic was told of.
    panic_told: Option<u64>,
}

impl Outbox {
    /// An outbox without subscriptions, over a store whose commits ring this doorbell. Messages tell how long a code
    /// works, which is for whoever judges it to say.
    #[must_use]
    pub fn new(storage: Storage, tokens: Tokens, clock: Clock, doorbell: Doorbell, code_lifetime: Duration) -> Self {
        let (subscriptions, leaving) = Default::default();
        let shared = Shared { storage, tokens, clock, doorbell, code_lifetime, subscriptions, leaving };
        Self { shared: Arc::new(shared) }
    }

    /// Takes a subscription on the roster. The child that is returned runs it, under a supervisor of the caller's; it
    /// has the subscription's name, and is quarantined if it fails too often.
    ///
    /// # Errors
    /// [`RegistrationError`].
    pub fn register(&self, registration: Subscription) -> Result<Child, RegistrationError> {
        registration.check()?;
        let mut subscriptions = self.shared.subscriptions.write().unwrap_or_else(PoisonError::into_inner);
        let taken = subscriptions.iter().any(|subscription| subscription.registration.name == registration.name);
        if taken || self.shared.leaving().contains(&registration.name) {
            return Err(RegistrationError::NameTaken);
        }
        let subscription = Arc::new(Feed::new(&self.shared, registration));
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

    fn subscriptions(&self) -> Vec<Arc<Feed>> {
        self.shared.subscriptions.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Debug for Outbox {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Outbox").field("subscriptions", &self.state()).finish_non_exhaustive()
    }
}

impl Feed {
    fn new(shared: &Shared, registration: Subscription) -> Self {
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
            status: SubscriptionStatus::default(),
            floor,
            head: head.max(floor),
            lag: head.saturating_sub(floor),
            in_hand: 0,
            retrying: 0,
            held: 0,
            attempts_on_current: figures.attempts_on_current,
            handled: figures.handled,
            given_up: 0,
            failures: figures.failures,
            restarts: 0,
            last_failure: figures.last_failure.clone(),
            lapsed_at: None,
            rebuild: None,
            gauge: crate::gauge::GaugeReading::default(),
        }
    }
}

#[cfg(test)]
mod tests;
