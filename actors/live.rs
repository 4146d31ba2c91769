//! The pub-sub group: live members hear of signals at once, lossily and within bounds.
//!
//! ractor's process groups keep the roster: a dead actor leaves by itself, and the scope is the system's id, so two
//! systems of one process never hear each other. What a process group lacks is kept beside it, an entry a member.

use std::collections::{BTreeSet, HashSet};
use std::convert::Infallible;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use majordomo_model::{Envelope, Filter, SystemId, UserId};
use ractor::{ActorCell, ActorId, ActorRef, Message, pg};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A signal on its way to a live member, and the place that it takes there.
///
/// Dropping it frees the place. A start signal has no `seq`; its durable copy follows with its flow's end.
#[derive(Debug)]
pub struct Live {
    /// The signal.
    pub envelope: Arc<Envelope>,
    /// How many signals that passed the member's filter were dropped since the last one that it was sent.
    pub missed: u64,
    _place: OwnedSemaphorePermit,
}

/// The live members of one system. Cloning shares them.
#[derive(Clone)]
pub struct LiveGroup {
    members: Arc<Group<Listener>>,
    groups_of: Arc<OnceLock<GroupsOf>>,
}

/// Tells which groups a user is in now. Called while signals are published, so it must be quick.
pub type GroupsOf = Box<dyn Fn(UserId) -> BTreeSet<String> + Send + Sync>;

struct Listener {
    filter: Filter,
    places: Arc<Semaphore>,
    missed: AtomicU64,
    send: Box<dyn Fn(Live) -> bool + Send + Sync>,
}

impl LiveGroup {
    /// A group without members.
    #[must_use]
    pub fn new(system: SystemId) -> Self {
        Self { members: Arc::new(Group::new(system, "live")), groups_of: Arc::default() }
    }

    /// Says where to learn the groups of users, which filters may ask for; until then nobody is in any. Said once.
    pub fn know_groups(&self, groups_of: GroupsOf) {
        let _ = self.groups_of.set(groups_of);
    }

    /// Lets an actor hear the signals that pass `filter`; at most `places` of them (at least one) lie in its mailbox or
    /// are being handled, and what finds no place is counted and dropped. An actor that joins again is heard as new.
    pub fn join<M: Message + From<Live>>(&self, actor: &ActorRef<M>, filter: Filter, places: usize) {
        let places = Arc::new(Semaphore::new(places.clamp(1, Semaphore::MAX_PERMITS)));
        let member = actor.clone();
        let send = Box::new(move |live| member.cast(M::from(live)).is_ok());
        self.members.join(actor.get_cell(), Listener { filter, places, missed: AtomicU64::new(0), send });
    }

    /// Sends an actor nothing more.
    pub fn leave(&self, actor: &ActorCell) {
        self.members.leave(actor);
    }

    /// Whether nobody listens, so that there is nothing to publish.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Sends signals to whom they concern. Waits for nobody; without members it costs one look.
    pub fn publish(&self, signals: &[Arc<Envelope>]) {
        for (actor, listener) in self.members.present().iter() {
            let groups_of = self.groups_of.get();
            let sending = AssertUnwindSafe(|| signals.iter().all(|signal| listener.offer(signal, groups_of)));
            // The member's own conversion runs here, and must not unwind into whoever publishes.
            if !catch_unwind(sending).unwrap_or(false) {
                self.members.leave(actor);
            }
        }
    }
}

impl fmt::Debug for LiveGroup {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("LiveGroup").field("members", &self.members).finish_non_exhaustive()
    }
}

impl Listener {
    /// Answers whether the member lives.
    fn offer(&self, signal: &Arc<Envelope>, groups_of: Option<&GroupsOf>) -> bool {
        let groups = |user| Ok::<_, Infallible>(groups_of.map(|groups_of| groups_of(user)).unwrap_or_default());
        if !self.filter.passes(signal) || self.filter.passes_groups(signal, groups) != Ok(true) {
            return true;
        }
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            self.missed.fetch_add(1, Ordering::Relaxed);
            return true;
        };
        let missed = self.missed.swap(0, Ordering::Relaxed);
        (self.send)(Live { envelope: Arc::clone(signal), missed, _place: place })
    }
}

/// A process group of one system, with an entry for each member.
pub(crate) struct Group<E> {
    scope: String,
    name: String,
    members: Mutex<Roster<E>>,
    count: AtomicUsize,
}

/// Members with their entries, in the order in which they joined.
pub(crate) type Roster<E> = Arc<Vec<(ActorCell, Arc<E>)>>;

impl<E> Group<E> {
    /// A group without members. Its name is unique among the system's groups.
    pub(crate) fn new(system: SystemId, name: &str) -> Self {
        let (scope, name) = (system.to_string(), name.to_owned());
        Self { scope, name, members: Mutex::default(), count: AtomicUsize::new(0) }
    }

    /// Adds an actor, which leaves by itself when it ends.
    pub(crate) fn join(&self, actor: ActorCell, entry: E) {
        let mut members = self.members();
        let others = members.iter().filter(|(other, _)| other.get_id() != actor.get_id()).cloned();
        let all = others.chain([(actor.clone(), Arc::new(entry))]).collect();
        pg::join_scoped(self.scope.clone(), self.name.clone(), vec![actor]);
        self.enlist(&mut members, all);
    }

    /// Removes an actor.
    pub(crate) fn leave(&self, actor: &ActorCell) {
        let mut members = self.members();
        let others = members.iter().filter(|(other, _)| other.get_id() != actor.get_id()).cloned().collect();
        pg::leave_scoped(self.scope.clone(), self.name.clone(), vec![actor.clone()]);
        self.enlist(&mut members, others);
    }

    /// The members that live, with their entries; the entries of all others are forgotten.
    pub(crate) fn present(&self) -> Roster<E> {
        if self.is_empty() {
            return Roster::default();
        }
        let mut members = self.members();
        let actors = pg::get_scoped_members(&self.scope, &self.name);
        let alive: HashSet<ActorId> = actors.iter().map(ActorCell::get_id).collect();
        if !members.iter().all(|(actor, _)| alive.contains(&actor.get_id())) {
            let living = members.iter().filter(|(actor, _)| alive.contains(&actor.get_id())).cloned().collect();
            self.enlist(&mut members, living);
        }
        Arc::clone(&members)
    }

    /// The members as they last joined and left: some may have ended without a word.
    pub(crate) fn roster(&self) -> Roster<E> {
        Arc::clone(&self.members())
    }

    fn enlist(&self, members: &mut Roster<E>, all: Vec<(ActorCell, Arc<E>)>) {
        self.count.store(all.len(), Ordering::SeqCst);
        *members = Arc::new(all);
    }

    /// Whether no entry is kept; one look, without the lock.
    pub(crate) fn is_empty(&self) -> bool {
        self.count.load(Ordering::SeqCst) == 0
    }

    /// How many entries are kept.
    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// Held across the group's own change too, so that no look in between forgets who is just joining.
    fn members(&self) -> MutexGuard<'_, Roster<E>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<E> fmt::Debug for Group<E> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.count.load(Ordering::SeqCst);
        formatter.debug_struct("Group").field("name", &self.name).field("members", &count).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use majordomo_model::{
        Actor as OnBehalfOf, Context, FlowId, Lane, SCHEMA_VERSION, Sender, Signal, SignalId, SignalKind, Timestamp,
        UserId,
    };
    use ractor::{Actor, ActorProcessingErr};
    use tokio::sync::{mpsc, oneshot};

    use super::*;

    enum Heard {
        Live(Live),
        /// Answered once everything before it was handled.
        Mark(oneshot::Sender<()>),
    }

    impl From<Live> for Heard {
        fn from(live: Live) -> Self {
            Self::Live(live)
        }
    }

    /// Hands on what it hears, once the gate lets it.
    struct Ear;

    struct EarState {
        told: mpsc::UnboundedSender<(u64, u64)>,
        gate: Arc<Semaphore>,
    }

    #[ractor::actor(message = Heard, state = EarState, arguments = EarState)]
    impl Ear {
        async fn pre_start(&self, _myself: ActorRef<Heard>, state: EarState) -> Result<EarState, ActorProcessingErr> {
            Ok(state)
        }

        async fn handle(
            &self,
            _myself: ActorRef<Heard>,
            message: Heard,
            state: &mut EarState,
        ) -> Result<(), ActorProcessingErr> {
            match message {
                Heard::Live(live) => {
                    state.gate.acquire().await?.forget();
                    state.told.send((live.envelope.seq.unwrap_or(0), live.missed))?;
                }
                Heard::Mark(reached) => {
                    let _ = reached.send(());
                }
            }
            Ok(())
        }
    }

    struct Member {
        actor: ActorRef<Heard>,
        told: mpsc::UnboundedReceiver<(u64, u64)>,
        gate: Arc<Semaphore>,
    }

    async fn member(open: usize) -> Member {
        let (sender, told) = mpsc::unbounded_channel();
        let gate = Arc::new(Semaphore::new(open));
        let state = EarState { told: sender, gate: Arc::clone(&gate) };
        let (actor, _) = Actor::spawn(None, Ear, state).await.unwrap();
        Member { actor, told, gate }
    }

    impl Member {
        /// Everything told so far; a barrier, not a pause.
        async fn all(&mut self) -> Vec<(u64, u64)> {
            let (reached, mark) = oneshot::channel();
            self.actor.cast(Heard::Mark(reached)).unwrap();
            mark.await.unwrap();
            std::iter::from_fn(|| self.told.try_recv().ok()).collect()
        }
    }

    fn signal(seq: u64, user: UserId) -> Arc<Envelope> {
        Arc::new(Envelope {
            seq: Some(seq),
            id: SignalId::new(),
            flow: FlowId::new(),
            cause: None,
            lane: Lane::User(user),
            at: Timestamp::from_micros(0),
            sender: Sender::USER_MANAGER,
            actor: OnBehalfOf::System,
            path: Vec::new(),
            context: Context::new(),
            schema: SCHEMA_VERSION,
            signal: Signal::UserDeletionStarted { user },
        })
    }

    fn signals(range: std::ops::RangeInclusive<u64>) -> Vec<Arc<Envelope>> {
        let user = UserId::new();
        range.map(|seq| signal(seq, user)).collect()
    }

    const MANY: usize = 1_000;

    #[tokio::test]
    async fn a_member_hears_what_passes_its_filter_until_it_leaves() {
        let group = LiveGroup::new(SystemId::new());
        let (mut all, mut none) = (member(MANY).await, member(MANY).await);
        group.publish(&signals(1..=1));
        group.join(&all.actor, Filter::all(), 8);
        group.join(&none.actor, Filter::kinds([SignalKind::UserDeleted]), 8);
        group.publish(&signals(2..=4));
        assert_eq!(all.all().await, [(2, 0), (3, 0), (4, 0)]);
        assert_eq!(none.all().await, []);
        group.leave(&all.actor.get_cell());
        group.publish(&signals(5..=5));
        assert_eq!(all.all().await, []);
    }

    #[tokio::test]
    async fn a_member_hears_of_the_users_of_its_groups() {
        let group = LiveGroup::new(SystemId::new());
        let mut staff = member(MANY).await;
        group.join(&staff.actor, Filter::all().groups(["staff"]), 8);
        let heard = signals(1..=2);
        group.publish(&heard[..1]);
        let one = heard[1].signal.user();
        group
            .know_groups(Box::new(move |user| if Some(user) == one { ["staff".to_owned()].into() } else { [].into() }));
        group.publish(&[Arc::clone(&heard[1]), signal(3, UserId::new())]);
        assert_eq!(staff.all().await, [(2, 0)]);
    }

    #[tokio::test]
    async fn two_systems_do_not_hear_each_other() {
        let (one, other) = (LiveGroup::new(SystemId::new()), LiveGroup::new(SystemId::new()));
        let (mut of_one, mut of_other) = (member(MANY).await, member(MANY).await);
        one.join(&of_one.actor, Filter::all(), 8);
        other.join(&of_other.actor, Filter::all(), 8);
        one.publish(&signals(1..=2));
        other.publish(&signals(7..=7));
        assert_eq!(of_one.all().await, [(1, 0), (2, 0)]);
        assert_eq!(of_other.all().await, [(7, 0)]);
    }

    #[tokio::test]
    async fn a_slow_member_loses_and_is_told_how_many() {
        let group = LiveGroup::new(SystemId::new());
        let mut slow = member(0).await;
        group.join(&slow.actor, Filter::all(), 3);
        group.publish(&signals(1..=10));
        slow.gate.add_permits(MANY);
        assert_eq!(slow.all().await, [(1, 0), (2, 0), (3, 0)]);
        group.publish(&signals(11..=12));
        assert_eq!(slow.all().await, [(11, 7), (12, 0)]);
    }

    #[tokio::test]
    async fn a_hung_member_holds_no_more_than_its_places() {
        let group = LiveGroup::new(SystemId::new());
        let hung = member(0).await;
        group.join(&hung.actor, Filter::all(), 5);
        let published = signals(1..=10_000);
        group.publish(&published);
        let held = published.iter().filter(|signal| Arc::strong_count(signal) > 1).count();
        assert_eq!(held, 5);
        hung.actor.kill();
        hung.actor.wait(None).await.unwrap();
    }

    #[tokio::test]
    async fn a_dead_member_is_forgotten() {
        let group = LiveGroup::new(SystemId::new());
        let (dead, mut alive) = (member(MANY).await, member(MANY).await);
        group.join(&dead.actor, Filter::all(), 8);
        group.join(&alive.actor, Filter::all(), 8);
        dead.actor.kill();
        dead.actor.wait(None).await.unwrap();
        group.publish(&signals(1..=1));
        assert_eq!(group.members.count(), 1);
        assert_eq!(alive.all().await, [(1, 0)]);
        alive.actor.stop(None);
        alive.actor.wait(None).await.unwrap();
        group.publish(&signals(2..=2));
        assert_eq!(group.members.count(), 0);
    }

    #[tokio::test]
    async fn a_member_whose_conversion_panics_is_dropped_alone() {
        struct Fragile;
        struct Refusing;
        impl From<Live> for Refusing {
            fn from(_: Live) -> Self {
                panic!("no conversion")
            }
        }
        #[ractor::actor(message = Refusing, state = (), arguments = ())]
        impl Fragile {
            async fn pre_start(&self, _myself: ActorRef<Refusing>, _arguments: ()) -> Result<(), ActorProcessingErr> {
                Ok(())
            }
        }
        let group = LiveGroup::new(SystemId::new());
        let (fragile, _) = Actor::spawn(None, Fragile, ()).await.unwrap();
        let mut sound = member(MANY).await;
        group.join(&fragile, Filter::all(), 8);
        group.join(&sound.actor, Filter::all(), 8);
        group.publish(&signals(1..=2));
        assert_eq!(sound.all().await, [(1, 0), (2, 0)]);
        assert_eq!(group.members.count(), 1);
    }
}
