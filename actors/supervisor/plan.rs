//! The plan of the tree: which actors there are, in which order, and how patiently each is supervised.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{CHILD_STOP, Supervised, locked};
use crate::address::Binder;
use crate::supervision::{Child, Limits, Plan, SupervisionNote, spawn_supervisor};
use crate::user_manager::{Manager, Services, UserManagerMessage};

/// The tree: started from the top, stopped from the bottom.
///
/// ```text
/// supervisor
/// ├── storage        the only writer
/// ├── hasher         argon2 threads behind a bounded queue
/// ├── user_manager   a task a flow
/// └── subscribers    a supervisor of its own: notifier, auditor and the app's, each isolated
/// ```
pub(super) fn plan(
    services: &Arc<Services>,
    manager: &Manager,
    admission: &Binder<UserManagerMessage>,
    (root, subscribers): (&Supervised, &Supervised),
    roster: &Arc<Mutex<Vec<Child>>>,
) -> Plan {
    let (storage, hasher) = (services.storage.clone(), services.hasher.clone());
    let storage = Child::new("storage", move |supervisor| {
        let storage = storage.clone();
        async move { storage.start(supervisor).await }
    });
    let hasher = Child::new("hasher", move |supervisor| {
        let hasher = hasher.clone();
        async move { Ok(hasher.start(Some(supervisor)).await?.get_cell()) }
    });
    let (manager, admission) = (manager.clone(), admission.clone());
    let user_manager = Child::new("user_manager", move |supervisor| {
        let (manager, admission) = (manager.clone(), admission.clone());
        async move { Ok(admission.bind(manager.start(supervisor).await?)) }
    });
    let (binder, board, roster) = (subscribers.binder.clone(), subscribers.board.clone(), Arc::clone(roster));
    let clock = services.clock.clone();
    let subscribers = Child::new("subscribers", move |supervisor| {
        let children = locked(&roster).clone();
        let (binder, board, clock) = (binder.clone(), board.clone(), clock.clone());
        async move {
            let plan = Plan::new(subscriber_limits()).board(board).clock(clock).on_event(note);
            let plan = children.into_iter().fold(plan, Plan::child);
            let (actor, _) = spawn_supervisor(plan, Some(supervisor)).await?;
            Ok(binder.bind(actor))
        }
    });
    let limits = Limits { stop_within: CHILD_STOP, ..Limits::default() };
    [storage, hasher, user_manager, subscribers.stop_within(2 * CHILD_STOP)]
        .into_iter()
        .fold(Plan::new(limits), Plan::child)
        .board(root.board.clone())
        .clock(services.clock.clone())
        .on_event(note)
}

/// A subscriber may fail often before it is quarantined; it disturbs nobody.
fn subscriber_limits() -> Limits {
    Limits { restarts: 20, within: Duration::from_secs(60), stop_within: Duration::from_secs(2), ..Limits::default() }
}

fn note(note: SupervisionNote) {
    match note {
        SupervisionNote::Restarted { name, attempt, failure } => {
            tracing::warn!(actor = %name, attempt, %failure, "an actor was restarted");
        }
        SupervisionNote::Quarantined { name, failure } => {
            tracing::error!(actor = %name, %failure, "a subscriber failed too often and is quarantined");
        }
    }
}
