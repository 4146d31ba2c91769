//! The doorbell: tells the subscriptions that the log has grown; what it holds they read themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use majordomo_model::SystemId;
use ractor::{ActorRef, ActorStatus};

use super::subscription::SubscriptionMessage;
use crate::live::Group;

/// Wakes the subscriptions of one system. Cloning shares it.
///
/// However often it rings, at most one wake-up is queued in each of them until it looks.
#[derive(Clone, Debug)]
pub struct Doorbell {
    members: Arc<Group<Bell>>,
}

/// The bell of one subscription: its actor is woken, its worker answers.
#[derive(Clone)]
pub(super) struct Bell {
    actor: ActorRef<SubscriptionMessage>,
    rung: Arc<Flag>,
}

/// Whether a wake-up is queued.
///
/// Generic, so that a test can go through every order in which threads may meet at it.
#[derive(Default)]
struct Flag<A = AtomicBool>(A);

/// What the flag is made of.
trait Bit {
    /// Sets it, and answers what it was. Whoever sets it sees what was done before it was set last.
    fn swap(&self, to: bool) -> bool;
}

impl Bit for AtomicBool {
    fn swap(&self, to: bool) -> bool {
        self.swap(to, Ordering::AcqRel)
    }
}

impl<A: Bit> Flag<A> {
    /// Raises it. Answers whether it was down: whoever raised it queues the wake-up.
    fn raise(&self) -> bool {
        !self.0.swap(true)
    }

    /// Lowers it. A mere store would not do: it would not see what was committed by those who found it raised.
    fn lower(&self) {
        self.0.swap(false);
    }
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
        for (actor, bell) in self.members.roster().iter() {
            if !bell.wake() {
                self.members.leave(actor);
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
    /// Queues a wake-up unless one is queued, or not answered yet. Answers whether the actor takes messages.
    pub(super) fn wake(&self) -> bool {
        if self.rung.raise() {
            return self.actor.cast(SubscriptionMessage::Look).is_ok();
        }
        self.actor.get_status() != ActorStatus::Stopped
    }

    /// To be called before the worker looks: what is committed from then on rings again.
    pub(super) fn answer(&self) {
        self.rung.lower();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use ractor::{Actor, ActorProcessingErr};

    use super::*;

    impl Bit for loom::sync::atomic::AtomicBool {
        fn swap(&self, to: bool) -> bool {
            self.swap(to, Ordering::AcqRel)
        }
    }

    /// The protocol between those who commit and the one who reads, with the flag of the bell.
    #[derive(Default)]
    struct Protocol {
        flag: Flag<loom::sync::atomic::AtomicBool>,
        /// How much the log holds: nothing but the flag orders who looks at it.
        log: loom::sync::atomic::AtomicUsize,
        queued: loom::sync::Mutex<usize>,
        queue: loom::sync::Condvar,
    }

    impl Protocol {
        fn commit(&self) {
            self.log.fetch_add(1, Ordering::Relaxed);
            if self.flag.raise() {
                let mut queued = self.queued.lock().unwrap();
                *queued += 1;
                assert_eq!(*queued, 1, "more than one wake-up is queued");
                self.queue.notify_one();
            }
        }

        /// Waits for wake-ups until it has seen everything: a wake-up that is lost leaves it waiting for ever.
        fn read(&self, everything: usize) {
            while self.log.load(Ordering::Relaxed) < everything {
                let mut queued = self.queued.lock().unwrap();
                while *queued == 0 {
                    queued = self.queue.wait(queued).unwrap();
                }
                *queued -= 1;
                drop(queued);
                self.flag.lower();
            }
        }
    }

    #[test]
    fn no_wake_up_is_lost_in_whatever_order_threads_meet_at_the_bell() {
        for committing in [1, 2] {
            let mut orders = loom::model::Builder::new();
            orders.preemption_bound = Some(4);
            orders.check(move || {
                let protocol = loom::sync::Arc::new(Protocol::default());
                let threads: Vec<_> = (0..committing)
                    .map(|_| {
                        let protocol = loom::sync::Arc::clone(&protocol);
                        loom::thread::spawn(move || protocol.commit())
                    })
                    .collect();
                protocol.read(committing);
                threads.into_iter().for_each(|thread| thread.join().unwrap());
            });
        }
    }

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
