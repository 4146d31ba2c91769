//! Health: what the tree comes to for whoever watches the process, and every fault that somebody should look into.

use std::collections::BTreeSet;

use majordomo_model::{Channel, SignalKind};
use serde::{Deserialize, Serialize};

use super::tree::{ActorState, ActorStatus, Tree};
use crate::outbox::{SubscriptionState, SubscriptionStatus};

/// How the system is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Whether the supervisor runs. Where it does not, nothing will mend itself: start the process anew.
    pub live: bool,
    /// Whether requests can be served now: storage is there, the core actors run, and the system is not stopping.
    pub ready: bool,
    /// What somebody should look into, those that hold up requests first. While there is any, the system is degraded,
    /// though it may be ready.
    pub faults: Vec<HealthFault>,
}

impl Health {
    /// Whether there is any fault.
    #[must_use]
    pub const fn is_degraded(&self) -> bool {
        !self.faults.is_empty()
    }
}

/// One reason why the system is degraded. It is told as long as its cause is there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "snake_case")]
#[non_exhaustive]
pub enum HealthFault {
    /// The store cannot be read or written; it is opened again by itself.
    StorageUnavailable,
    /// An actor failed and waits for its restart, or has stopped.
    ActorRestarting {
        /// Its name.
        name: String,
    },
    /// An actor did not answer in time.
    ActorNotAnswering {
        /// Its name.
        name: String,
    },
    /// The actor of a subscription failed too often. It stays stopped until it is released; its cursor waits.
    ActorQuarantined {
        /// Its name.
        name: String,
    },
    /// A subscriber failed too often. It is handed nothing until it is released; its cursor waits.
    SubscriptionQuarantined {
        /// Its name.
        name: String,
    },
    /// A subscription can take nothing more before something that failed is handled.
    SubscriptionStalled {
        /// Its name.
        name: String,
    },
    /// A subscription lies so far behind that it no longer keeps the log from being pruned.
    SubscriptionLapsed {
        /// Its name.
        name: String,
    },
    /// The store has the cursor of a subscription that nobody gave to this process. It keeps the log from being pruned.
    SubscriptionUnattached {
        /// Its name.
        name: String,
        /// Every signal up to and with this place is handled.
        floor: u64,
        /// How many places of the log lie behind it.
        lag: u64,
    },
    /// A subscription gave signals up, and they wait for an operator.
    DeadLetters {
        /// The name of the subscription.
        name: String,
        /// How many.
        count: u64,
    },
    /// Messages that are due on this channel are delivered by nobody, though users may have such addresses.
    NoNotifier {
        /// The channel.
        channel: Channel,
    },
    /// A guard is not asked: it failed too often, or blocks its threads. Its failure mode decides for it meanwhile.
    GuardUnavailable {
        /// Its name.
        name: String,
    },
    /// Signals were dropped while the store was out, and the log does not tell of it yet.
    SignalsLost {
        /// How many.
        count: u64,
    },
}

impl HealthFault {
    /// The stable name, in `snake_case`: the same as in its serialised form.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::StorageUnavailable => "storage_unavailable",
            Self::ActorRestarting { .. } => "actor_restarting",
            Self::ActorNotAnswering { .. } => "actor_not_answering",
            Self::ActorQuarantined { .. } => "actor_quarantined",
            Self::SubscriptionQuarantined { .. } => "subscription_quarantined",
            Self::SubscriptionStalled { .. } => "subscription_stalled",
            Self::SubscriptionLapsed { .. } => "subscription_lapsed",
            Self::SubscriptionUnattached { .. } => "subscription_unattached",
            Self::DeadLetters { .. } => "dead_letters",
            Self::NoNotifier { .. } => "no_notifier",
            Self::GuardUnavailable { .. } => "guard_unavailable",
            Self::SignalsLost { .. } => "signals_lost",
        }
    }
}

/// What is known beside the tree.
#[derive(Default)]
pub(super) struct Findings {
    /// The names of the subscriptions that were given to this process.
    pub(super) attached: BTreeSet<String>,
    /// The cursors in the store: name and floor.
    pub(super) cursors: Vec<(String, u64)>,
    /// The place of the last signal.
    pub(super) head: u64,
    /// How many dead letters the subscriptions have that have any.
    pub(super) letters: Vec<(String, u64)>,
    /// The channels on which nobody delivers.
    pub(super) silent: Vec<Channel>,
    /// How many signals were lost without the log telling of it.
    pub(super) lost: u64,
}

/// Whether the store answers, by the tree.
fn has_storage(tree: &Tree) -> bool {
    tree.storage().is_some_and(|storage| storage.available)
}

/// Draws the conclusions.
pub(super) fn judge(tree: &Tree, findings: Findings) -> Health {
    let runs = |name: &str| tree.actor(name).is_some_and(|actor| actor.status == ActorStatus::Running);
    let live = tree.root.status != ActorStatus::Stopped;
    let admits = tree.user_manager().is_some_and(|manager| manager.admits);
    let core = ["storage", "hasher", "user_manager"].into_iter().all(runs);
    let mut faults = Vec::new();
    // Once the root has stopped, so has everybody, the writer too.
    faults.extend((!live || !has_storage(tree)).then_some(HealthFault::StorageUnavailable));
    faults.extend(tree.actors().into_iter().filter(|_| live).filter_map(of_actor));
    faults.extend(tree.subscriptions().into_iter().flat_map(of_subscription));
    let silent = tree.guards.iter().filter(|guard| guard.open || guard.out_of_service);
    faults.extend(silent.map(|guard| HealthFault::GuardUnavailable { name: guard.name.clone() }));
    faults.extend(of_findings(findings));
    Health { live, ready: live && admits && core && has_storage(tree), faults }
}

fn of_actor(actor: &ActorState) -> Option<HealthFault> {
    let name = actor.name.clone();
    match actor.status {
        ActorStatus::Running | ActorStatus::Stopping => None,
        ActorStatus::NotAnswering => Some(HealthFault::ActorNotAnswering { name }),
        ActorStatus::Quarantined => Some(HealthFault::ActorQuarantined { name }),
        ActorStatus::BackingOff | ActorStatus::Stopped => Some(HealthFault::ActorRestarting { name }),
    }
}

fn of_subscription(state: &SubscriptionState) -> impl Iterator<Item = HealthFault> {
    let name = || state.name.clone();
    let by_status = match state.status {
        SubscriptionStatus::Quarantined => Some(HealthFault::SubscriptionQuarantined { name: name() }),
        SubscriptionStatus::Stalled => Some(HealthFault::SubscriptionStalled { name: name() }),
        _ => None,
    };
    let lapsed = state.lapsed_at.map(|_| HealthFault::SubscriptionLapsed { name: name() });
    by_status.into_iter().chain(lapsed)
}

fn of_findings(findings: Findings) -> Vec<HealthFault> {
    let Findings { attached, cursors, head, letters, silent, lost } = findings;
    let unattached = cursors.into_iter().filter(|(name, _)| !attached.contains(name));
    let unattached = unattached.map(|(name, floor)| {
        let lag = head.saturating_sub(floor);
        HealthFault::SubscriptionUnattached { name, floor, lag }
    });
    let letters = letters.into_iter().map(|(name, count)| HealthFault::DeadLetters { name, count });
    let silent = silent.into_iter().map(|channel| HealthFault::NoNotifier { channel });
    let lost = (lost > 0).then_some(HealthFault::SignalsLost { count: lost });
    unattached.chain(letters).chain(silent).chain(lost).collect()
}

/// The signals that ask for a message on a channel, each of which starts a delivery.
pub(super) const fn delivered_on(channel: Channel) -> [SignalKind; 2] {
    match channel {
        Channel::Email => [SignalKind::ResetPasswordEmail, SignalKind::VerifyEmail],
        Channel::Phone => [SignalKind::ResetPasswordPhone, SignalKind::VerifyPhone],
    }
}

#[cfg(test)]
mod tests {
    use majordomo_model::FlowKind;

    use super::*;

    #[test]
    fn a_fault_is_named_as_it_is_serialised() {
        let name = || "books".to_owned();
        let faults = [
            HealthFault::StorageUnavailable,
            HealthFault::ActorRestarting { name: name() },
            HealthFault::ActorNotAnswering { name: name() },
            HealthFault::ActorQuarantined { name: name() },
            HealthFault::SubscriptionQuarantined { name: name() },
            HealthFault::SubscriptionStalled { name: name() },
            HealthFault::SubscriptionLapsed { name: name() },
            HealthFault::SubscriptionUnattached { name: name(), floor: 3, lag: 4 },
            HealthFault::DeadLetters { name: name(), count: 1 },
            HealthFault::NoNotifier { channel: Channel::Phone },
            HealthFault::SignalsLost { count: 1 },
        ];
        for fault in faults {
            let json = serde_json::to_value(&fault).unwrap();
            assert_eq!(json.get("fault").unwrap(), fault.as_str());
            assert_eq!(serde_json::from_value::<HealthFault>(json).unwrap(), fault);
        }
    }

    #[test]
    fn every_signal_that_starts_a_delivery_is_of_one_channel() {
        let of_channels = [Channel::Email, Channel::Phone].map(delivered_on).concat();
        for kind in SignalKind::ALL {
            let starts = kind.starts().contains(&FlowKind::Delivery);
            assert_eq!(of_channels.contains(kind), starts, "{kind:?}");
        }
    }

    #[test]
    fn what_is_in_the_store_and_not_in_the_process_is_a_fault_and_what_is_in_both_is_none() {
        let findings = Findings {
            attached: BTreeSet::from(["books".to_owned()]),
            cursors: vec![("books".to_owned(), 5), ("gone".to_owned(), 3)],
            head: 9,
            letters: vec![("books".to_owned(), 2)],
            silent: vec![Channel::Phone],
            lost: 4,
        };
        let expected = [
            HealthFault::SubscriptionUnattached { name: "gone".to_owned(), floor: 3, lag: 6 },
            HealthFault::DeadLetters { name: "books".to_owned(), count: 2 },
            HealthFault::NoNotifier { channel: Channel::Phone },
            HealthFault::SignalsLost { count: 4 },
        ];
        assert_eq!(of_findings(findings), expected);
        assert!(of_findings(Findings::default()).is_empty());
    }

    #[test]
    fn a_subscription_may_have_two_faults() {
        let mut state = subscription();
        assert_eq!(of_subscription(&state).count(), 0);
        state.status = SubscriptionStatus::Stalled;
        state.lapsed_at = Some(majordomo_model::Timestamp::from_micros(1));
        let faults: Vec<_> = of_subscription(&state).map(|fault| fault.as_str()).collect();
        assert_eq!(faults, ["subscription_stalled", "subscription_lapsed"]);
        state.status = SubscriptionStatus::Quarantined;
        assert_eq!(of_subscription(&state).next().unwrap().as_str(), "subscription_quarantined");
    }

    fn subscription() -> SubscriptionState {
        SubscriptionState {
            name: "books".to_owned(),
            status: SubscriptionStatus::CaughtUp,
            floor: 0,
            head: 0,
            lag: 0,
            in_hand: 0,
            retrying: 0,
            held: 0,
            attempts_on_current: 0,
            handled: 0,
            given_up: 0,
            failures: 0,
            restarts: 0,
            last_failure: None,
            lapsed_at: None,
            rebuild: None,
            gauge: crate::gauge::GaugeReading::default(),
        }
    }
}
