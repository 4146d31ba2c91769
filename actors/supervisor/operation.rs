//! Operation: what an operator asks of the system: how it is, and what becomes of a subscription.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use majordomo_model::Channel;
use tokio::time::{Instant, timeout};

use super::health::{self, Health, delivered_on};
use super::tree::{self, ActorStatus, Sight, Tree, UserManagerState};
use super::{Parts, Supervised, System, locked};
use crate::address::{AskError, Reply};
use crate::outbox::OperationError;
use crate::storage::Unreadable;
use crate::supervision::{ChildState, ChildStatus, SupervisionError, SupervisorMessage};
use crate::user_manager::Requirement;

/// How long whoever looks at the system waits for a supervisor, and for the store.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// Why an order concerning a subscription was not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum OrderError {
    /// No subscription of that name was given to this process.
    #[error("no subscription of that name is attached")]
    UnknownName,
    /// The subscription is not in quarantine.
    #[error("the subscription is not in quarantine")]
    NotQuarantined,
    /// The subscribers' supervisor did not answer; whether the order will be carried out is not known.
    #[error("the subscribers' supervisor does not answer")]
    NotAnswering,
    /// The order could not be stored, and nothing has changed; repeat it later.
    #[error("the order could not be stored")]
    NotStored,
    /// The system is stopped.
    #[error("the system has stopped")]
    Stopped,
}

impl OrderError {
    /// The stable name, in `snake_case`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UnknownName => "unknown_name",
            Self::NotQuarantined => "not_quarantined",
            Self::NotAnswering => "not_answering",
            Self::NotStored => "not_stored",
            Self::Stopped => "stopped",
        }
    }
}

impl From<AskError> for OrderError {
    fn from(error: AskError) -> Self {
        if error == AskError::Stopped { Self::Stopped } else { Self::NotAnswering }
    }
}

impl From<SupervisionError> for OrderError {
    fn from(error: SupervisionError) -> Self {
        match error {
            SupervisionError::NotQuarantined => Self::NotQuarantined,
            _ => Self::UnknownName,
        }
    }
}

impl Supervised {
    /// How the supervisor and its children are: now, or when it had last done something.
    pub(super) async fn sight(&self) -> Sight {
        let asked = self.address.ask(Some(Instant::now() + ANSWER_WITHIN), SupervisorMessage::Observe).await;
        let status = match &asked {
            Ok(_) => ActorStatus::Running,
            Err(AskError::Stopped) => ActorStatus::Stopped,
            Err(_) => ActorStatus::NotAnswering,
        };
        let shown = self.shown(status);
        Sight { children: asked.unwrap_or(shown.children), ..shown }
    }

    /// What the supervisor has on its board.
    fn shown(&self, status: ActorStatus) -> Sight {
        let gauge = self.board.gauge();
        gauge.set_queue_depth(self.address.taken());
        Sight { status, gauge: gauge.reading(), children: self.board.state() }
    }

    async fn order(
        &self,
        deadline: Option<Instant>,
        mut order: impl FnMut(Reply<Result<(), SupervisionError>>) -> SupervisorMessage,
    ) -> Result<(), OrderError> {
        Ok(self.address.ask_repeatable(deadline, &mut order).await??)
    }
}

impl System {
    /// What the whole tree is doing. It waits for nobody longer than [`ANSWER_WITHIN`].
    pub async fn tree(&self) -> Tree {
        let looked = self.look(|parts| (parts.services.storage.observe(), parts.outbox.state()));
        let ((root, subscribers), looked) = tokio::join!(self.sights(), looked);
        let (storage, subscriptions) = looked.unzip();
        let parts = &self.0;
        let services = &parts.services;
        let findings = tree::Findings {
            root,
            subscribers,
            storage,
            storage_gauge: services.storage.gauge(),
            storage_failure: services.storage.last_failure(),
            hasher: services.hasher.observe(),
            hasher_gauge: services.hasher.gauge(),
            user_manager: UserManagerState {
                admits: !parts.address.is_closed(),
                places: parts.address.places(),
                taken: parts.address.taken(),
                under_way: parts.manager.flows_under_way(),
            },
            user_manager_gauge: parts.manager.gauge(),
            subscriptions: subscriptions.unwrap_or_default(),
        };
        Tree {
            system: parts.id.to_string(),
            at: services.clock.now(),
            root: tree::draw(findings),
            guards: self.guards(),
        }
    }

    /// How the system is. It waits for nobody longer than [`ANSWER_WITHIN`].
    pub async fn health(&self) -> Health {
        let (tree, findings) = tokio::join!(self.tree(), self.look(findings));
        health::judge(&tree, findings.unwrap_or_default())
    }

    async fn sights(&self) -> (Sight, Sight) {
        let parts = &self.0;
        if parts.root_cell.get_status() > ractor::ActorStatus::Draining {
            let stopped = ActorStatus::Stopped;
            return (parts.root.shown(stopped), parts.subscribers.shown(stopped));
        }
        let runs = |child: &ChildState| child.name == "subscribers" && child.status == ChildStatus::Running;
        if !parts.root.board.state().children.iter().any(runs) {
            // Nobody is there to answer; the root's own picture tells why.
            return (parts.root.sight().await, parts.subscribers.shown(ActorStatus::Running));
        }
        tokio::join!(parts.root.sight(), parts.subscribers.sight())
    }

    /// Looks at the store where that may block; one look at a time, so that a store that hangs holds up one thread.
    async fn look<T: Send + 'static>(&self, look: impl FnOnce(&Parts) -> T + Send + 'static) -> Option<T> {
        let parts = Arc::clone(&self.0);
        let looked = async move {
            let turn = Arc::clone(&parts.looking).lock_owned().await;
            let looking = move || {
                let _turn = turn;
                look(&parts)
            };
            tokio::task::spawn_blocking(looking).await.ok()
        };
        timeout(ANSWER_WITHIN, looked).await.ok().flatten()
    }

    /// Releases a subscription from quarantine, its subscriber's or its actor's: it goes on from its cursor, with no
    /// failure on record.
    ///
    /// # Errors
    /// [`OrderError`].
    pub async fn release(&self, name: &str) -> Result<(), OrderError> {
        if !self.is_attached(name) {
            return Err(OrderError::UnknownName);
        }
        let released = self.0.outbox.release(name).await.map_err(|error| match error {
            OperationError::Stopped => OrderError::Stopped,
            _ => OrderError::NotStored,
        })?;
        let deadline = Some(Instant::now() + self.0.patience);
        let order =
            self.0.subscribers.order(deadline, |reply| SupervisorMessage::Release(name.to_owned(), reply)).await;
        if released && order == Err(OrderError::NotQuarantined) { Ok(()) } else { order }
    }

    /// Stops a subscription and lets go of its subscriber. Its cursor stays: a subscription that is added under its name
    /// later goes on from there.
    ///
    /// Once begun, it is carried out even if nobody waits for it.
    ///
    /// # Errors
    /// [`OrderError`].
    pub async fn detach(&self, name: &str) -> Result<(), OrderError> {
        let (system, name) = (self.clone(), name.to_owned());
        let detached = tokio::spawn(async move { system.detach_whole(&name).await }).await;
        detached.unwrap_or(Err(OrderError::NotAnswering))
    }

    async fn detach_whole(&self, name: &str) -> Result<(), OrderError> {
        if !self.is_attached(name) {
            return Err(OrderError::UnknownName);
        }
        // Off the roster first: a supervisor that is started anew meanwhile does not start it again.
        locked(&self.0.roster).retain(|child| child.name() != name);
        match self.0.subscribers.order(None, |reply| SupervisorMessage::Remove(name.to_owned(), reply)).await {
            Ok(()) | Err(OrderError::UnknownName) => {}
            Err(error) => return Err(error),
        }
        if self.0.outbox.withdraw(name) { Ok(()) } else { Err(OrderError::UnknownName) }
    }

    fn is_attached(&self, name: &str) -> bool {
        self.0.outbox.is_attached(name)
    }
}

/// What health needs to know beside the tree; what the store cannot tell now is left out.
fn findings(parts: &Parts) -> health::Findings {
    let (policy, outbox) = (&parts.services.policy, &parts.outbox);
    let wanted = [(Channel::Email, policy.email), (Channel::Phone, policy.phone)].into_iter();
    let wanted = wanted.filter(|(_, requirement)| *requirement != Requirement::Forbidden);
    let silent = wanted.filter(|(channel, _)| !delivered_on(*channel).into_iter().all(|kind| outbox.delivers(kind)));
    let mut findings = health::Findings {
        attached: outbox.names().into_iter().collect::<BTreeSet<_>>(),
        silent: silent.map(|(channel, _)| channel).collect(),
        lost: parts.services.storage.untold_losses(),
        ..health::Findings::default()
    };
    if let Err(Unreadable) = read(parts, &mut findings) {
        tracing::debug!("the store could not be looked into");
    }
    findings
}

fn read(parts: &Parts, findings: &mut health::Findings) -> Result<(), Unreadable> {
    let reader = &parts.services.reader;
    findings.head = reader.head()?;
    for (name, row) in reader.cursors()? {
        let count = reader.letter_count(&name)?;
        if count > 0 {
            findings.letters.push((name.clone(), count));
        }
        findings.cursors.push((name, row.floor()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervision::{Child, Limits, Plan, spawn_supervisor};

    #[tokio::test(start_paused = true)]
    async fn a_supervisor_that_hangs_is_seen_in_time_with_what_it_had_last_shown() {
        let supervised = Supervised::new();
        let hanging = Child::new("hanging", |_| std::future::pending());
        let plan = Plan::new(Limits::default()).board(supervised.board.clone());
        let (actor, _) = spawn_supervisor(plan, None).await.unwrap();
        supervised.binder.bind(actor);
        assert_eq!(supervised.sight().await.status, ActorStatus::Running);
        let _added = supervised.address.tell(|reply| SupervisorMessage::Add(hanging, reply)).unwrap();
        let began = Instant::now();
        let sight = supervised.sight().await;
        assert_eq!((sight.status, began.elapsed()), (ActorStatus::NotAnswering, ANSWER_WITHIN), "on the paused clock");
        assert!(sight.children.children.is_empty() && sight.gauge.queue_depth >= 1);
        // The start is given up after ten seconds, and the supervisor answers again.
        tokio::time::advance(Limits::default().start_within).await;
        let sight = supervised.sight().await;
        assert_eq!(sight.status, ActorStatus::Running);
        assert_eq!(sight.children.children.first().unwrap().status, ChildStatus::BackingOff);
        supervised.binder.close();
        assert_eq!(supervised.sight().await.status, ActorStatus::Stopped);
    }
}
