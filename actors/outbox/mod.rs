//! The outbox: the roster of subscriptions, each of which hands the signals of the log to its subscriber, durably.

mod answer;
mod claim;
mod conclusion;
mod cursor;
mod delivery;
mod desk;
mod doorbell;
mod feed;
mod follow_up;
mod gap;
mod halt;
mod hand_over;
mod intake;
mod lease;
mod ledger;
mod letters;
mod operations;
mod progress;
mod rebuild;
mod registration;
mod state;
mod subscription;
mod worker;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use majordomo_model::SignalKind;

pub use self::answer::{DeadLetter, FailedAttempt, Moved, OperationError, RebuildStarted, UnattachedSubscription};
pub use self::doorbell::Doorbell;
use self::feed::Feed;
pub use self::registration::{
    IN_HAND_LIMIT, LINGER_LIMIT, RegistrationError, SUBSCRIPTION_NAME_LIMIT, Subscription, SubscriptionSettings,
};
pub use self::state::{LastFailure, RebuildState, SubscriptionState, SubscriptionStatus};
use crate::clock::Clock;
pub use crate::storage::LetterState;
use crate::storage::{Storage, Unreadable};
use crate::subscriber::Capability;
use crate::supervision::{Child, OnMeltdown};
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

    /// Takes a subscription off the roster, so that its name can be registered again; answers whether there was one. Its
    /// actor must have ended. Its cursor stays.
    pub fn withdraw(&self, name: &str) -> bool {
        let mut subscriptions = self.shared.subscriptions.write().unwrap_or_else(PoisonError::into_inner);
        let place = subscriptions.iter().position(|subscription| subscription.registration.name == name);
        let withdrawn = place.map(|place| subscriptions.remove(place));
        drop(subscriptions);
        if let Some(subscription) = &withdrawn {
            // Whoever waits for it waits no more.
            subscription.withdrawn();
        }
        withdrawn.is_some()
    }

    /// Whether a subscription of this name is on the roster.
    #[must_use]
    pub fn is_attached(&self, name: &str) -> bool {
        self.subscriptions().iter().any(|subscription| subscription.registration.name == name)
    }

    /// The names on the roster, in the order of registration.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.subscriptions().iter().map(|subscription| subscription.registration.name.clone()).collect()
    }

    /// Whether a subscription takes signals of this kind that may deliver the messages which they ask for.
    #[must_use]
    pub fn delivers(&self, kind: SignalKind) -> bool {
        self.subscriptions().iter().any(|subscription| {
            let Subscription { capabilities, filter, .. } = &subscription.registration;
            capabilities.contains(&Capability::Deliver) && filter.admits(kind)
        })
    }

    /// How the subscriptions are, in the order of their registration.
    #[must_use]
    pub fn state(&self) -> Vec<SubscriptionState> {
        let head = self.shared.storage.reader().head().unwrap_or(0);
        self.subscriptions().iter().map(|subscription| subscription.observe(head)).collect()
    }

    /// Waits until every subscription has handled everything up to `up_to` and to the end of the log, what they emit
    /// themselves included, and its progress and projections are at the store: its next flush makes them durable. It
    /// waits as long as one of them is stopped, or keeps failing on a signal; but not for what was put off, what is held
    /// after it was given up, and who is quarantined.
    ///
    /// # Errors
    /// [`Unreadable`] while the store is out.
    pub async fn drained(&self, up_to: u64) -> Result<(), Unreadable> {
        let reader = self.shared.storage.reader();
        loop {
            let target = reader.head()?.max(up_to);
            // What is due by now is found by looking only.
            let looks = self.subscriptions().into_iter().map(|subscription| (subscription.ask_look(), subscription));
            let looks: Vec<_> = looks.collect();
            self.shared.doorbell.ring();
            for (look, subscription) in &looks {
                subscription.until_settled(*look, target).await;
            }
            if reader.head()? <= target {
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

#[cfg(test)]
mod tests;
