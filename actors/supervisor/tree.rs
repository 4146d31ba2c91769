//! The tree: every actor of the system as one serialisable picture, drawn without waiting for any of them.

use std::collections::HashMap;

use majordomo_model::Timestamp;
use serde::{Deserialize, Serialize};

use crate::gauge::{GaugeReading, LastFailure};
use crate::guard::GuardState;
use crate::hasher::HasherState;
use crate::outbox::SubscriptionState;
use crate::storage::StorageState;
use crate::supervision::{ChildState, ChildStatus, SupervisorState};

/// What the whole system is doing, in one picture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tree {
    /// The system's name, which scopes its groups.
    pub system: String,
    /// When it was drawn.
    pub at: Timestamp,
    /// The supervisor, with everybody under it.
    pub root: ActorState,
    /// The guards, in the order in which they are asked; they are no actors, and nobody supervises them.
    pub guards: Vec<GuardState>,
}

/// One actor of the tree. All of them have this shape.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActorState {
    /// Its name, unique under its supervisor. A subscription's actor has the subscription's name.
    pub name: String,
    /// How it is.
    pub status: ActorStatus,
    /// How often it was restarted since the system was spawned.
    pub restarts: u64,
    /// Its failures within its supervisor's window and since it last made progress.
    pub recent_failures: usize,
    /// What failed last: the actor itself, or what it runs (the store, a handler).
    pub last_failure: Option<LastFailure>,
    /// Its queue, and how long it takes over what it does: a supervisor over an order, storage over a transaction, the
    /// hasher over a hash, the user manager over a flow, a subscription over a signal.
    pub gauge: GaugeReading,
    /// What it tells of itself; nothing for a supervisor, and while it does not answer.
    pub state: Option<ActorDetail>,
    /// Those it supervises, in the order of their start.
    pub children: Vec<ActorState>,
}

/// How an actor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ActorStatus {
    /// It runs.
    Running,
    /// It runs, and did not answer in time. Of those under it the last that is known is shown.
    NotAnswering,
    /// It failed and waits for its restart.
    BackingOff,
    /// It failed too often and waits for its release.
    Quarantined,
    /// It is being stopped.
    Stopping,
    /// It has stopped.
    Stopped,
}

/// What an actor tells of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum ActorDetail {
    /// Storage.
    Storage(StorageState),
    /// The hasher.
    Hasher(HasherState),
    /// The user manager.
    UserManager(UserManagerState),
    /// A subscription.
    Subscription(Box<SubscriptionState>),
}

/// What the user manager tells of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserManagerState {
    /// Whether it takes requests; not once the system stops.
    pub admits: bool,
    /// How many requests may wait or be under way; more are refused.
    pub places: usize,
    /// How many of these places are taken.
    pub taken: usize,
    /// How many flows are under way, its own sweeps included.
    pub under_way: usize,
}

impl Tree {
    /// Every actor, each before those that it supervises.
    #[must_use]
    pub fn actors(&self) -> Vec<&ActorState> {
        let mut actors = Vec::new();
        let mut waiting = vec![&self.root];
        while let Some(actor) = waiting.pop() {
            actors.push(actor);
            waiting.extend(actor.children.iter().rev());
        }
        actors
    }

    /// The actor of this name; of the system's own and a subscription of one name, the system's own.
    #[must_use]
    pub fn actor(&self, name: &str) -> Option<&ActorState> {
        self.actors().into_iter().find(|actor| actor.name == name)
    }

    /// What storage tells of itself; nothing while it does not answer.
    #[must_use]
    pub fn storage(&self) -> Option<&StorageState> {
        self.details().find_map(|detail| if let ActorDetail::Storage(state) = detail { Some(state) } else { None })
    }

    /// What the hasher tells of itself.
    #[must_use]
    pub fn hasher(&self) -> Option<&HasherState> {
        self.details().find_map(|detail| if let ActorDetail::Hasher(state) = detail { Some(state) } else { None })
    }

    /// What the user manager tells of itself.
    #[must_use]
    pub fn user_manager(&self) -> Option<&UserManagerState> {
        self.details().find_map(|detail| if let ActorDetail::UserManager(state) = detail { Some(state) } else { None })
    }

    /// How the subscriptions are, in the order of their start.
    #[must_use]
    pub fn subscriptions(&self) -> Vec<&SubscriptionState> {
        let details = self.details();
        details
            .filter_map(|detail| if let ActorDetail::Subscription(state) = detail { Some(&**state) } else { None })
            .collect()
    }

    /// How a subscription is.
    #[must_use]
    pub fn subscription(&self, name: &str) -> Option<&SubscriptionState> {
        self.subscriptions().into_iter().find(|state| state.name == name)
    }

    fn details(&self) -> impl Iterator<Item = &ActorDetail> {
        self.actors().into_iter().filter_map(|actor| actor.state.as_ref())
    }
}

impl From<ChildStatus> for ActorStatus {
    fn from(status: ChildStatus) -> Self {
        match status {
            ChildStatus::Running => Self::Running,
            ChildStatus::BackingOff => Self::BackingOff,
            ChildStatus::Quarantined => Self::Quarantined,
            ChildStatus::Stopping => Self::Stopping,
            ChildStatus::Stopped => Self::Stopped,
        }
    }
}

/// A supervisor as it was found.
pub(super) struct Sight {
    pub(super) status: ActorStatus,
    pub(super) gauge: GaugeReading,
    /// Its children, now or when it had last done something.
    pub(super) children: SupervisorState,
}

/// Everything that was found, of which the tree is drawn.
pub(super) struct Findings {
    pub(super) root: Sight,
    pub(super) subscribers: Sight,
    /// Nothing where the store did not answer.
    pub(super) storage: Option<StorageState>,
    pub(super) storage_gauge: GaugeReading,
    pub(super) storage_failure: Option<LastFailure>,
    pub(super) hasher: HasherState,
    pub(super) hasher_gauge: GaugeReading,
    pub(super) user_manager: UserManagerState,
    pub(super) user_manager_gauge: GaugeReading,
    /// Nothing where the store did not answer.
    pub(super) subscriptions: Vec<SubscriptionState>,
}

/// What one actor shows beside what its supervisor knows of it.
#[derive(Default)]
struct Own {
    gauge: GaugeReading,
    failure: Option<LastFailure>,
    state: Option<ActorDetail>,
    answers: bool,
}

/// Draws the root and everybody under it.
pub(super) fn draw(findings: Findings) -> ActorState {
    let Findings { root, subscribers, storage, hasher, user_manager, subscriptions, .. } = findings;
    let of_subscription = |state: SubscriptionState| {
        let (gauge, failure) = (state.gauge, state.last_failure.clone());
        let name = state.name.clone();
        (name, Own { gauge, failure, state: Some(ActorDetail::Subscription(Box::new(state))), answers: true })
    };
    let mut subscriptions: HashMap<_, _> = subscriptions.into_iter().map(of_subscription).collect();
    let mut own = HashMap::from([
        (
            "storage".to_owned(),
            Own {
                gauge: findings.storage_gauge,
                failure: findings.storage_failure,
                answers: storage.is_some(),
                state: storage.map(ActorDetail::Storage),
            },
        ),
        ("hasher".to_owned(), answering(findings.hasher_gauge, ActorDetail::Hasher(hasher))),
        ("user_manager".to_owned(), answering(findings.user_manager_gauge, ActorDetail::UserManager(user_manager))),
        (
            "subscribers".to_owned(),
            Own {
                gauge: subscribers.gauge,
                answers: subscribers.status != ActorStatus::NotAnswering,
                ..Own::default()
            },
        ),
    ]);
    let mut children = under(root.status, root.children, &mut own);
    if let Some(supervisor) = children.iter_mut().find(|child| child.name == "subscribers") {
        supervisor.children = under(supervisor.status, subscribers.children, &mut subscriptions);
    }
    ActorState {
        name: "supervisor".to_owned(),
        status: root.status,
        restarts: 0,
        recent_failures: 0,
        last_failure: None,
        gauge: root.gauge,
        state: None,
        children,
    }
}

fn answering(gauge: GaugeReading, state: ActorDetail) -> Own {
    Own { gauge, failure: None, state: Some(state), answers: true }
}

/// The children of a supervisor, each with what it shows itself.
fn under(supervisor: ActorStatus, children: SupervisorState, own: &mut HashMap<String, Own>) -> Vec<ActorState> {
    let merged = |child: ChildState| {
        let own = own.remove(&child.name).unwrap_or(Own { answers: true, ..Own::default() });
        ActorState {
            status: status(supervisor, child.status, own.answers),
            name: child.name,
            restarts: child.restarts,
            recent_failures: child.recent_failures,
            last_failure: later(child.last_failure, own.failure),
            gauge: own.gauge,
            state: own.state,
            children: Vec::new(),
        }
    };
    children.children.into_iter().map(merged).collect()
}

/// Nobody outlives their supervisor, whatever it had last shown.
fn status(supervisor: ActorStatus, child: ChildStatus, answers: bool) -> ActorStatus {
    match (supervisor, child) {
        (ActorStatus::BackingOff | ActorStatus::Quarantined | ActorStatus::Stopped, _) => ActorStatus::Stopped,
        (_, ChildStatus::Running) if !answers => ActorStatus::NotAnswering,
        (_, child) => child.into(),
    }
}

fn later(one: Option<LastFailure>, other: Option<LastFailure>) -> Option<LastFailure> {
    match (one, other) {
        (Some(one), Some(other)) => Some(if other.at > one.at { other } else { one }),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hasher::HashKernel;

    fn child(name: &str, status: ChildStatus, failed_at: Option<i64>) -> ChildState {
        let failure = |micros| LastFailure { at: Timestamp::from_micros(micros), failure: "killed".to_owned() };
        let last_failure = failed_at.map(failure);
        ChildState { name: name.to_owned(), status, restarts: 2, recent_failures: 1, last_failure }
    }

    fn sight(status: ActorStatus, children: Vec<ChildState>) -> Sight {
        Sight { status, gauge: GaugeReading::default(), children: SupervisorState { children } }
    }

    fn findings() -> Findings {
        let core = ["storage", "hasher", "user_manager", "subscribers"];
        let core = core.map(|name| child(name, ChildStatus::Running, Some(5))).into();
        let hasher = HasherState {
            kernel: HashKernel::Argon2,
            queued: 0,
            bound: 8,
            workers: 1,
            jobs_done: 0,
            jobs_skipped: 0,
            refused: 0,
            panics: 0,
            memory_bytes: 0,
        };
        Findings {
            root: sight(ActorStatus::Running, core),
            subscribers: sight(ActorStatus::Running, vec![child("books", ChildStatus::Running, None)]),
            storage: Some(StorageState { available: true, ..StorageState::default() }),
            storage_gauge: GaugeReading { handled: 7, ..GaugeReading::default() },
            storage_failure: Some(LastFailure { at: Timestamp::from_micros(9), failure: "no disk".to_owned() }),
            hasher,
            hasher_gauge: GaugeReading::default(),
            user_manager: UserManagerState { admits: true, places: 8, taken: 0, under_way: 0 },
            user_manager_gauge: GaugeReading::default(),
            subscriptions: Vec::new(),
        }
    }

    fn statuses(root: ActorState) -> Vec<(String, ActorStatus)> {
        let tree = Tree { system: String::new(), at: Timestamp::from_micros(0), root, guards: Vec::new() };
        tree.actors().into_iter().map(|actor| (actor.name.clone(), actor.status)).collect()
    }

    fn of(root: ActorState, name: &str) -> ActorStatus {
        statuses(root).into_iter().find(|(actor, _)| actor == name).unwrap().1
    }

    #[test]
    fn every_actor_is_drawn_under_its_supervisor_with_its_later_failure() {
        let root = draw(findings());
        let tree = Tree { system: "s".to_owned(), at: Timestamp::from_micros(0), root, guards: Vec::new() };
        let names: Vec<_> = tree.actors().into_iter().map(|actor| actor.name.as_str()).collect();
        assert_eq!(names, ["supervisor", "storage", "hasher", "user_manager", "subscribers", "books"]);
        let storage = tree.actor("storage").unwrap();
        assert_eq!((storage.restarts, storage.gauge.handled), (2, 7));
        assert_eq!(storage.last_failure.as_ref().unwrap().failure, "no disk");
        assert_eq!(tree.actor("hasher").unwrap().last_failure.as_ref().unwrap().failure, "killed");
        let json = serde_json::to_string(&tree).unwrap();
        assert_eq!(serde_json::from_str::<Tree>(&json).unwrap(), tree);
    }

    #[test]
    fn who_does_not_answer_is_shown_so_with_the_last_that_is_known_of_those_under_it() {
        let mut found = findings();
        found.subscribers.status = ActorStatus::NotAnswering;
        found.storage = None;
        let root = draw(found);
        for (name, expected) in [
            ("subscribers", ActorStatus::NotAnswering),
            ("books", ActorStatus::Running),
            ("storage", ActorStatus::NotAnswering),
            ("hasher", ActorStatus::Running),
        ] {
            assert_eq!(of(root.clone(), name), expected, "{name}");
        }
    }

    #[test]
    fn nobody_is_shown_as_outliving_their_supervisor() {
        let mut found = findings();
        for child in &mut found.root.children.children {
            child.status = ChildStatus::BackingOff;
        }
        assert_eq!(of(draw(found), "books"), ActorStatus::Stopped);
        let mut found = findings();
        found.root.status = ActorStatus::Stopped;
        assert!(statuses(draw(found)).into_iter().all(|(_, status)| status == ActorStatus::Stopped));
    }
}
