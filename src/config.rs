//! Config: every knob, with its default and the reason for it.

use std::time::Duration;

use majordomo_actors::auditor::CHECKPOINT_LIMIT;
use majordomo_actors::hasher::HasherSettings;
use majordomo_actors::notifier::NotifierSettings;
use majordomo_actors::storage::StorageSettings;
use majordomo_actors::user_manager::Policy;
use serde::{Deserialize, Serialize};

/// How an account system behaves. Every field has a default; unknown fields are refused when it is deserialised.
///
/// It reads no file and no environment: the app deserialises it from wherever it keeps its own configuration.
///
/// ```
/// use majordomo::Config;
///
/// let config: Config = serde_json::from_str(r#"{ "policy": { "email": "required" } }"#)?;
/// assert!(config.faults().is_empty());
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What is asked of users: identifiers, passwords, sessions, lifetimes.
    pub policy: Policy,
    /// How passwords are hashed, and how much hashing may wait.
    pub hashing: HasherSettings,
    /// How storage commits, caches and forgets.
    pub storage: StorageSettings,
    /// What messages say of the app and where their links lead. Needed where the builder is given a transport.
    pub messages: Option<NotifierSettings>,
    /// After how many links the audit trail is signed, besides once an hour: what is not signed yet can be cut off unseen
    /// by whoever can write the file and not the keys. Default 1,024, at most 4,000.
    pub audit_checkpoint_every: u64,
    /// How many requests may be under way; one more is refused with `Overloaded`. Default 4,096: each holds a few
    /// kilobytes, and what cannot be done soon is better refused at once.
    pub requests: usize,
    /// How long a caller waits who gives no deadline. Default 30 seconds.
    pub patience: Duration,
    /// How long a shutdown may take before what still runs is cut off. Default 10 seconds.
    pub shutdown_within: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            policy: Policy::default(),
            hashing: HasherSettings::default(),
            storage: StorageSettings::default(),
            messages: None,
            audit_checkpoint_every: 1_024,
            requests: 4_096,
            patience: Duration::from_secs(30),
            shutdown_within: Duration::from_secs(10),
        }
    }
}

impl Config {
    /// Every fault, as sentences for whoever wrote it; none if it can be used.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let mut faults = self.policy.faults();
        faults.extend(self.hashing.validate().err().map(|fault| format!("hashing: {fault}")));
        let messages = self.messages.as_ref().and_then(|messages| messages.validate().err());
        faults.extend(messages.map(|fault| format!("messages: {fault}")));
        if !(1..=1_000_000).contains(&self.requests) {
            faults.push("requests: 1 to 1,000,000".to_owned());
        }
        if !(1..=CHECKPOINT_LIMIT).contains(&self.audit_checkpoint_every) {
            faults.push("audit_checkpoint_every: 1 to 4,000".to_owned());
        }
        if self.storage.queue == 0 || self.storage.group == 0 {
            faults.push("storage.queue and storage.group: at least 1".to_owned());
        }
        if self.storage.queue < self.requests {
            faults.push(
                "storage.queue: at least as many as requests, or an admitted flow could find no place".to_owned(),
            );
        }
        if self.storage.max_lag.age.is_some_and(|age| age.is_zero()) || self.storage.max_lag.bytes == Some(0) {
            faults.push("storage.max_lag: more than nothing, or every subscription lapses at once".to_owned());
        }
        for (name, span) in [("patience", self.patience), ("shutdown_within", self.shutdown_within)] {
            if span.is_zero() {
                faults.push(format!("{name}: must be longer than nothing"));
            }
        }
        faults
    }
}
