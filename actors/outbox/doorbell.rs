//! The doorbell: tells the subscriptions that the log has grown; what it holds they read themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use majordomo_model::SystemId;
use ractor::ActorRef;

use super::subscription::SubscriptionMessage;
use crate::live::Group;

/// Wakes the subscriptions of one system. Cloning shares it.
///
/// However often it rings, at most one wake-up is queued in each of them.
#[derive(Clone, Debug)]
pub struct Doorbell {
    members: Arc<Group<Bell>>,
}

/// The bell of one subscription.
#[derive(Clone)]
pub(super) struct Bell {
    actor: ActorRef<SubscriptionMessage>,
    rung: Arc<AtomicBool>,
}

impl Doorbell {
    /// A doorbell that nobody hears yet.
    #[must_use]
    pub fn new(system: SystemId) -> Self {
        Self { members: Arc::new(Group::new(system, "doorbell")) }
    }

    /// Wakes every subscription that has not been woken since it last looked. To be called after each commit that
    /// carried signals; waits for nobody.
    pub fn ring(&self) {
        for (actor, bell) in self.members.present() {
            if !bell.wake() {
                self.members.leave(&actor);
            }
        }
    }

    /// Lets an actor hear it. The actor joins, looks, then waits: so nothing is missed in between.
    pub(super) fn join(&self, actor: &ActorRef<SubscriptionMessage>) -> Bell {
        let bell = Bell { actor: actor.clone(), rung: Arc::default() };
        self.members.join(actor.get_cell(), bell.clone());
        bell
    }
}

impl Bell {
    /// Queues a wake-up unless one is queued. Answers whether the actor takes messages.
    pub(super) fn wake(&self) -> bool {
        self.rung.swap(true, Ordering::SeqCst) || self.actor.cast(SubscriptionMessage::Look).is_ok()
    }

    /// To be called before the actor looks: what is committed from then on rings again.
    pub(super) fn answer(&self) {
        self.rung.store(false, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use ractor::{Actor, ActorProcessingErr};

    use super::*;

    /// Counts its wake-ups, and answers none.
    struct Sleeper;

    #[ractor::actor(message = SubscriptionMessage, state = Arc<AtomicU32>, arguments = Arc<AtomicU32>)]
    impl Sleeper {
        async fn pre_start(
            &self,
            _myself: ActorRef<SubscriptionMessage>,
            count: Arc<AtomicU32>,
        ) -> Result<Arc<AtomicU32>, ActorProcessingErr> {
            Ok(count)
        }

        async fn handle(
            &self,
            _myself: ActorRef<SubscriptionMessage>,
            _message: SubscriptionMessage,
            count: &mut Arc<AtomicU32>,
        ) -> Result<(), ActorProcessingErr> {
            count.fetch_add(1, Ordering::SeqCst);
            Ok(())
        }
    }

    #[tokio::test]
    async fn one_wake_up_is_queued_however_often_it_rings() {
        let (ours, theirs) = (Doorbell::new(SystemId::new()), Doorbell::new(SystemId::new()));
        let count = Arc::new(AtomicU32::new(0));
        let (actor, _) = Actor::spawn(None, Sleeper, Arc::clone(&count)).await.unwrap();
        let bell = ours.join(&actor);
        for _ in 0..100 {
            ours.ring();
            theirs.ring();
        }
        bell.answer();
        theirs.ring();
        ours.ring();
        ours.ring();
        actor.drain_and_wait(None).await.unwrap();
        assert_eq!(count.load(Ordering::SeqCst), 2);
        ours.ring();
        assert_eq!(ours.members.count(), 0);
    }
}
