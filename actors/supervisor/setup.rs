//! The setup: everything that a system is made of.

use std::time::Duration;

use crate::breach::BreachCheck;
use crate::clock::Clock;
use crate::guard::GuardRegistration;
use crate::hasher::HasherSettings;
use crate::keys::Keyring;
use crate::outbox::Subscription;
use crate::storage::{Location, StorageSettings};
use crate::user_manager::Policy;

/// Everything that a system is made of.
pub struct Setup {
    /// Where the store lies.
    pub location: Location,
    /// How storage works.
    pub storage: StorageSettings,
    /// How passwords are hashed.
    pub hashing: HasherSettings,
    /// What is asked of users.
    pub policy: Policy,
    /// How many requests may be under way; more are refused.
    pub places: usize,
    /// How long a caller waits who gives no deadline.
    pub patience: Duration,
    /// The master keys.
    pub keys: Keyring,
    /// Where time comes from.
    pub clock: Clock,
    /// Who is fed signals from the start.
    pub subscriptions: Vec<Subscription>,
    /// Who is asked before a commit, in this order.
    pub guards: Vec<GuardRegistration>,
    /// What new passwords are held against beyond the rules.
    pub breaches: Option<BreachCheck>,
}
