//! How a subscription is, for whoever operates the system.

use majordomo_model::Timestamp;
use serde::{Deserialize, Serialize};

use crate::gauge::GaugeReading;
pub use crate::gauge::LastFailure;

/// How a subscription is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscriptionState {
    /// Its name.
    pub name: String,
    /// What it is doing.
    pub status: SubscriptionStatus,
    /// Every signal up to and with this place is handled, or given up; 0 before its first start too.
    pub floor: u64,
    /// The place of the log's last signal; the floor while the store is out.
    pub head: u64,
    /// How many places lie between the two, those it does not ask for included.
    pub lag: u64,
    /// How many signals are in the handler's hands.
    pub in_hand: usize,
    /// How many signals were handed over in vain and are to be handed over again.
    pub retrying: usize,
    /// How many signals were given up and still hold up their lane ([`OnFailure::StallLane`](majordomo_model::OnFailure)).
    pub held: usize,
    /// How often the signal that failed most was handed over, of those that are not finished; 0 if none was in vain.
    pub attempts_on_current: u32,
    /// How many signals were handled since the system was started.
    pub handled: u64,
    /// How many signals were given up since then.
    pub given_up: u64,
    /// How often a handler failed since then: it asked for a retry, panicked, took too long, or had its effects refused.
    pub failures: u64,
    /// How often the subscriber was started anew since then, because it panicked or blocked its thread.
    pub restarts: u64,
    /// What the last failure was, and when.
    pub last_failure: Option<LastFailure>,
    /// Since when it no longer keeps the log from being pruned, if it lies too far behind.
    pub lapsed_at: Option<Timestamp>,
    /// How far a rebuild of its projection is, if there is one.
    pub rebuild: Option<RebuildState>,
    /// How long handlers take.
    pub gauge: GaugeReading,
}

/// What a subscription is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SubscriptionStatus {
    /// It has not read its cursor yet.
    #[default]
    Starting,
    /// It has handled everything.
    CaughtUp,
    /// It is working through the log.
    Working,
    /// It can take nothing more before something that failed is handled.
    Stalled,
    /// Its subscriber failed too often, and is handed nothing until it is released.
    Quarantined,
}

/// How far a rebuild is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RebuildState {
    /// Where it began.
    pub from: u64,
    /// Where it is.
    pub at: u64,
    /// Where it ends.
    pub to: u64,
}
