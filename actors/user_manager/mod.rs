//! The user manager: admits typed messages and runs each as a flow of its own, so that a panic ends that flow alone.

mod add_contact;
mod authenticate;
mod authority;
mod beat;
mod breaches;
mod budget;
mod change_contact;
mod change_groups;
mod change_password;
mod common_budget;
mod confirm_email;
mod confirm_phone;
mod contacts;
mod delete;
mod disable;
mod enable;
mod end_sessions;
mod epoch;
mod fault;
#[cfg(test)]
mod fixture;
mod flow;
mod fresh_token;
mod guarding;
mod hashing;
mod import;
mod known_device;
mod lapse;
mod limits;
mod lock;
mod log_out;
mod make_primary;
mod message_budget;
mod new_password;
mod newcomer;
mod places;
mod policy;
mod proof;
mod proven;
mod register;
mod rehash;
mod remove_contact;
mod request_email_verification;
mod request_password_reset;
mod request_phone_verification;
mod reseal;
mod reset_password;
mod services;
pub(crate) mod session;
mod source;
mod text_breaker;
mod throttle;
mod undelivered;
mod undo;
mod undo_change;
mod unlock;
mod update;
mod verification;
mod verification_request;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use majordomo_model::{
    Actor as OnBehalfOf, AddContact, Authenticate, ChangeContact, ChangeGroups, ChangePassword, Command, CommandId,
    ConfirmEmail, ConfirmPhone, Context, Delete, DeletionCause, Disable, Enable, EndSessions, Flow, FlowId, Import,
    Lane, LogOut, MakePrimary, Register, RemoveContact, RequestEmailVerification, RequestPasswordReset,
    RequestPhoneVerification, ResetPassword, Signal, SignalId, UndoChange, Unlock, Update,
};
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SpawnErr};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::Instrument;

pub(crate) use self::budget::Budget;
pub use self::common_budget::TextLimits;
pub use self::flow::Answer;
use self::flow::Perform;
pub(crate) use self::flow::Services;
pub use self::limits::{ActionLimits, Limit, Limits};
pub use self::message_budget::MessageLimits;
pub use self::policy::{GROUPS_LIMIT, Policy, Registration, Requirement, Verification};
pub(crate) use self::rehash::Rehashes;
use self::reseal::Resealing;
pub use self::text_breaker::TextBreaker;
pub(crate) use self::throttle::Throttle;
use crate::address::Reply;
use crate::gauge::{Gauge, GaugeReading, Handling};
use crate::stamp::Stamp;
use crate::storage::Batch;
use crate::telemetry::{self, Levels};

/// How often what was only counted is told.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// How often what has ended by time is removed.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// How many accounts that were never verified one sweep deletes.
const SWEEP_USERS: usize = 1_000;

macro_rules! mailbox {
    ($($flow:ident)+) => {
        /// What the user manager is asked: a message a flow.
        pub enum UserManagerMessage {
            $(
                #[doc = concat!("Runs the flow of [`", stringify!($flow), "`].")]
                $flow(Arc<Command<$flow>>, Reply<Answer<$flow>>),
            )+
            /// Tell what was only counted.
            Tell,
            /// Remove what has ended by time.
            Sweep,
        }

        $(impl Question for $flow {
            fn question(command: Arc<Command<Self>>, reply: Reply<Answer<Self>>) -> UserManagerMessage {
                UserManagerMessage::$flow(command, reply)
            }
        })+

        impl UserManagerMessage {
            fn begin(self, manager: &Manager) {
                match self {
                    $(Self::$flow(command, reply) => manager.begin(command, reply),)+
                    Self::Tell => {
                        manager.tell_levels();
                        manager.tell();
                    }
                    Self::Sweep => manager.begin_sweep(),
                }
            }
        }
    };
}

mailbox! {
    Register Authenticate LogOut EndSessions ChangePassword RequestEmailVerification ConfirmEmail
    RequestPhoneVerification ConfirmPhone AddContact ChangeContact RemoveContact MakePrimary Update ChangeGroups
    Disable Enable Delete RequestPasswordReset ResetPassword UndoChange Unlock Import
}

/// A flow's message as the mailbox takes it.
pub trait Question: Flow {
    /// The message for the mailbox.
    fn question(command: Arc<Command<Self>>, reply: Reply<Answer<Self>>) -> UserManagerMessage;
}

impl fmt::Debug for UserManagerMessage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("UserManagerMessage")
    }
}

/// What outlives an incarnation of the actor: the flows under way.
#[derive(Clone)]
pub struct Manager {
    services: Arc<Services>,
    under_way: Arc<Mutex<HashMap<CommandId, Vec<UserManagerMessage>>>>,
    count: Arc<watch::Sender<usize>>,
    gauge: Gauge,
    /// Held by a sweep: one at a time.
    sweeping: Arc<tokio::sync::Mutex<Resealing>>,
    closing: Arc<AtomicBool>,
}

/// A command that is being run. However its run ends, whoever sent the same command meanwhile gets their turn then.
struct UnderWay {
    manager: Manager,
    command: CommandId,
    _handling: Handling,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let waiting = self.manager.under_way().remove(&self.command).unwrap_or_default();
        for message in waiting {
            message.begin(&self.manager);
        }
        self.manager.count.send_modify(|count| *count = count.saturating_sub(1));
    }
}

impl Manager {
    pub(crate) fn new(services: Arc<Services>) -> Self {
        let count = Arc::new(watch::Sender::new(0));
        let (sweeping, closing) = (Arc::default(), Arc::default());
        Self { services, under_way: Arc::default(), count, gauge: Gauge::new(), sweeping, closing }
    }

    /// Starts an incarnation of the actor, linked to its supervisor.
    ///
    /// # Errors
    /// As ractor's spawning.
    pub async fn start(&self, supervisor: ActorCell) -> Result<ActorRef<UserManagerMessage>, SpawnErr> {
        let (actor, _) = Actor::spawn_linked(None, UserManager, self.clone(), supervisor).await?;
        Ok(actor)
    }

    /// Lets a sweep that is under way end soon, and none begin, nor a rehash.
    pub fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
        self.services.rehashes.close();
    }

    /// Waits until no flow is under way.
    pub async fn idle(&self) {
        let _ = self.count.subscribe().wait_for(|count| *count == 0).await;
    }

    /// Waits until no password is being hashed anew behind a login.
    pub async fn rehashed(&self) {
        self.services.rehashes.idle().await;
    }

    /// How many flows were run, and how long they took.
    #[must_use]
    pub fn gauge(&self) -> GaugeReading {
        self.gauge.set_queue_depth(self.flows_under_way());
        self.gauge.reading()
    }

    /// How many flows are under way.
    #[must_use]
    pub fn flows_under_way(&self) -> usize {
        *self.count.borrow()
    }

    /// Runs a flow as a task of its own, unless the same command is being run: then it waits for that outcome.
    fn begin<F: Perform + Question>(&self, command: Arc<Command<F>>, reply: Reply<Answer<F>>) {
        if reply.is_stale() {
            return;
        }
        // Looked up and entered under one lock: a run that ends begins the next one from its own task.
        let mut under_way = self.under_way();
        if let Some(waiting) = under_way.get_mut(&command.id) {
            waiting.push(F::question(command, reply));
            return;
        }
        let run = self.enter(&mut under_way, command.id);
        drop(under_way);
        let asked = reply.span().clone();
        let running = async move {
            let asked = Instant::now();
            let answer = flow::run(&run.manager.services, &command, reply.deadline()).await;
            if F::is_discreet(&answer) {
                beat::next(asked, reply.deadline()).await;
            }
            reply.send(answer);
            run.manager.begin_rehashes();
        };
        tokio::spawn(running.instrument(asked));
    }

    /// Runs what logins left to be hashed anew, each as a task of its own, which a shutdown waits for.
    fn begin_rehashes(&self) {
        for due in self.services.rehashes.take() {
            let run = self.enter(&mut self.under_way(), CommandId::new());
            tokio::spawn(async move { rehash::run(&run.manager.services, due).await });
        }
    }

    fn enter(&self, under_way: &mut HashMap<CommandId, Vec<UserManagerMessage>>, command: CommandId) -> UnderWay {
        under_way.insert(command, Vec::new());
        self.count.send_modify(|count| *count += 1);
        UnderWay { manager: self.clone(), command, _handling: self.gauge.begin() }
    }

    /// Removes what has ended by time, deletes accounts that were never verified, prunes the log, and seals credentials
    /// under the current key.
    pub async fn sweep(&self) {
        let mut resealing = self.sweeping.lock().await;
        self.sweep_through(&mut resealing).await;
    }

    async fn sweep_through(&self, resealing: &mut Resealing) {
        let services = &self.services;
        let due = match services.reader.never_verified(services.clock.now(), SWEEP_USERS) {
            Ok(due) => due,
            Err(error) => return tracing::debug!(%error, "the sweep is put off"),
        };
        for (user, _) in due {
            if self.closing.load(Ordering::Relaxed) {
                return;
            }
            let deletion = Delete { user, cause: DeletionCause::NeverVerified };
            let command = Command::new(deletion).actor(OnBehalfOf::System);
            if let Err(error) = flow::run(services, &command, None).await {
                tracing::warn!(%user, %error, "an account that was never verified could not be deleted");
            }
        }
        undelivered::end(services).await;
        lapse::tell(services).await;
        let swept = services.storage.sweep().await;
        let pruned = services.storage.prune(|| self.closing.load(Ordering::Relaxed)).await;
        if let Err(error) = swept.and(pruned) {
            tracing::debug!(?error, "the rest of the sweep is put off");
        }
        resealing.go_on(services, || self.closing.load(Ordering::Relaxed)).await;
    }

    /// Tells the figures that are what they are at the moment.
    fn tell_levels(&self) {
        if !telemetry::IS_TOLD {
            return;
        }
        let Services { storage, hasher, .. } = &*self.services;
        let store = storage.observe();
        telemetry::levels(Levels {
            flows_under_way: self.flows_under_way(),
            hash_queue: hasher.observe().queued,
            store_available: store.available,
            store_queue: store.queued,
            store_bytes: store.size_bytes,
            log_bytes: store.log.bytes,
        });
    }

    /// Commits the signals that tell what was only counted.
    pub(crate) fn tell(&self) {
        // What cannot be stored now stays counted.
        if !self.services.storage.is_available() {
            return;
        }
        let mut counted = self.services.budget.take();
        let count = self.services.storage.take_lost_signals();
        counted.extend((count > 0).then_some(Signal::SignalsLost { count }));
        counted.extend(self.services.guards.take_would_deny());
        if counted.is_empty() {
            return;
        }
        let (flow, now) = (FlowId::new(), self.services.clock.now());
        let stamp =
            Stamp { flow, cause: None, lane: Lane::Flow(flow), actor: OnBehalfOf::System, context: Context::new() };
        let signals = counted.into_iter().map(|signal| stamp.envelope(SignalId::new(), now, signal, None)).collect();
        let batch = Batch { flow, outcome: None, checks: Vec::new(), writes: Vec::new(), signals };
        self.services.storage.commit_with_next(batch);
    }

    /// Sweeps as a task of its own, which a shutdown waits for, unless a sweep is under way.
    fn begin_sweep(&self) {
        let Ok(mut resealing) = Arc::clone(&self.sweeping).try_lock_owned() else { return };
        let run = self.enter(&mut self.under_way(), CommandId::new());
        tokio::spawn(async move {
            run.manager.sweep_through(&mut resealing).await;
            drop(resealing);
        });
    }

    fn under_way(&self) -> MutexGuard<'_, HashMap<CommandId, Vec<UserManagerMessage>>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Manager {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Manager").field("flows_under_way", &self.flows_under_way()).finish_non_exhaustive()
    }
}

struct UserManager;

#[ractor::actor(message = UserManagerMessage, state = Manager, arguments = Manager)]
impl UserManager {
    async fn pre_start(
        &self,
        myself: ActorRef<UserManagerMessage>,
        manager: Manager,
    ) -> Result<Manager, ActorProcessingErr> {
        myself.send_interval(TELL_EVERY, || UserManagerMessage::Tell);
        myself.send_interval(SWEEP_EVERY, || UserManagerMessage::Sweep);
        Ok(manager)
    }

    async fn handle(
        &self,
        _myself: ActorRef<UserManagerMessage>,
        message: UserManagerMessage,
        manager: &mut Manager,
    ) -> Result<(), ActorProcessingErr> {
        message.begin(manager);
        Ok(())
    }

    async fn post_stop(
        &self,
        _myself: ActorRef<UserManagerMessage>,
        manager: &mut Manager,
    ) -> Result<(), ActorProcessingErr> {
        manager.idle().await;
        manager.tell();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use majordomo_model::{Failure, Filter, SignalClass, SignalKind};

    use super::fixture::Fixture;
    use super::*;
    use crate::address::Address;
    use crate::live::Live;
    use crate::supervision::{Limits, Plan, spawn_supervisor};

    /// Passes what it hears on.
    struct Ear;

    #[ractor::actor(message = Live, state = tokio::sync::mpsc::UnboundedSender<Live>, arguments = tokio::sync::mpsc::UnboundedSender<Live>)]
    impl Ear {
        async fn pre_start(
            &self,
            _myself: ActorRef<Live>,
            heard: tokio::sync::mpsc::UnboundedSender<Live>,
        ) -> Result<tokio::sync::mpsc::UnboundedSender<Live>, ActorProcessingErr> {
            Ok(heard)
        }

        async fn handle(
            &self,
            _myself: ActorRef<Live>,
            live: Live,
            heard: &mut tokio::sync::mpsc::UnboundedSender<Live>,
        ) -> Result<(), ActorProcessingErr> {
            Ok(heard.send(live)?)
        }
    }

    #[tokio::test]
    async fn what_is_told_ahead_is_the_signal_that_is_stored() {
        let fixture = Fixture::new().await;
        let (heard, mut ear) = tokio::sync::mpsc::unbounded_channel();
        let (actor, _) = Actor::spawn(None, Ear, heard).await.unwrap();
        fixture.services.live.join(&actor, Filter::all(), 100);
        fixture.register("ada", None, None).await;
        let stored = fixture.signals();
        let ahead = stored.iter().filter(|told| told.signal.kind().class() == SignalClass::Start);
        for stored in ahead {
            let live = ear.recv().await.unwrap().envelope;
            assert_eq!((live.seq, live.id, live.at), (None, stored.id, stored.at), "{:?}", stored.signal.kind());
        }
        assert!(stored.iter().any(|told| told.signal.kind() == SignalKind::UserPreRegister));
    }

    #[tokio::test]
    async fn signals_that_were_lost_are_told_once_storage_works() {
        let fixture = Fixture::new().await;
        let manager = Manager::new(Arc::new(fixture.services));
        manager.services.storage.lose(3);
        manager.tell();
        manager.tell();
        manager.services.storage.flush().await;
        let stored = manager.services.reader.signals_after(0, 10).unwrap();
        assert_eq!(stored.into_iter().map(|told| told.signal).collect::<Vec<_>>(), [Signal::SignalsLost { count: 3 }]);
    }

    #[test]
    fn an_unknown_outcome_is_not_told_as_nothing_done() {
        use majordomo_model::{Error, RegisterReason};

        let fault = flow::Fault::from(crate::storage::CommitError::Interrupted);
        assert_eq!(fault.failure(), Failure::Interrupted);
        assert!(fault.error::<RegisterReason>().is_unknown());
        assert_eq!(flow::Fault::Storage.error::<RegisterReason>(), Error::StorageUnavailable);
    }

    #[tokio::test]
    async fn a_run_that_dies_holds_up_neither_the_same_command_nor_the_shutdown() {
        let manager = Manager::new(Arc::new(Fixture::new().await.services));
        let (root, _ended) = spawn_supervisor(Plan::new(Limits::default()), None).await.unwrap();
        let (address, binder) = Address::new(8);
        binder.bind(manager.start(root.get_cell()).await.unwrap());
        let command = Arc::new(Command::new(Delete::new(majordomo_model::UserId::new())));
        let run = manager.enter(&mut manager.under_way(), command.id);
        let same = address.tell(|reply| Delete::question(Arc::clone(&command), reply)).unwrap();
        while manager.under_way().get(&command.id).is_none_or(Vec::is_empty) {
            tokio::task::yield_now().await;
        }
        let died = tokio::spawn(async move {
            let _run = run;
            std::panic::resume_unwind(Box::new("outside of what a flow catches"));
        });
        assert!(died.await.is_err());
        let refused = tokio::time::timeout(Duration::from_secs(10), same).await.unwrap().unwrap();
        assert_eq!(refused, Err(majordomo_model::Error::Refused(majordomo_model::DeleteReason::UserNotFound)));
        tokio::time::timeout(Duration::from_secs(10), manager.idle()).await.unwrap();
        assert!(manager.under_way().is_empty());
        root.stop(None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_login_that_fails_is_answered_at_a_beat_after_the_question() {
        let manager = Manager::new(Arc::new(Fixture::new().await.services));
        let (root, _ended) = spawn_supervisor(Plan::new(Limits::default()), None).await.unwrap();
        let (address, binder) = Address::new(8);
        binder.bind(manager.start(root.get_cell()).await.unwrap());
        // As long as it is busy, the clock moves only as it is told to.
        let (release, busy) = std::sync::mpsc::channel::<()>();
        let busy = tokio::task::spawn_blocking(move || busy.recv());
        let (asked, password) = (Instant::now(), majordomo_model::Password::new("wrong"));
        let command = Arc::new(Command::new(Authenticate { identifier: "nobody".to_owned(), password }));
        let answer = address.tell(|reply| Authenticate::question(command, reply)).unwrap();
        let answered = tokio::spawn(async move { (answer.await.unwrap().is_err(), asked.elapsed().as_millis()) });
        while manager.services.storage.observe().batches == 0 {
            tokio::task::yield_now().await;
        }
        while !answered.is_finished() {
            tokio::time::advance(Duration::from_millis(1)).await;
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
        }
        let (is_refused, millis) = answered.await.unwrap();
        assert!(is_refused && millis >= 5 && millis % 5 == 0, "{millis}");
        drop(release);
        busy.await.unwrap().unwrap_err();
        root.stop(None);
    }

    #[tokio::test]
    async fn one_sweep_is_under_way_at_a_time_and_none_once_the_system_closes() {
        let fixture = Fixture::new().await;
        let user = fixture.register("ada", Some("ada@example.com"), None).await.user;
        fixture.pass(Duration::from_secs(8 * 24 * 3600));
        let manager = Manager::new(Arc::new(fixture.services));
        let turn = manager.sweeping.lock().await;
        manager.begin_sweep();
        assert_eq!(manager.flows_under_way(), 0);
        drop(turn);
        manager.close();
        manager.begin_sweep();
        manager.idle().await;
        let there = || manager.services.reader.user(user).unwrap().is_some();
        assert!(there());
        manager.closing.store(false, Ordering::Relaxed);
        manager.begin_sweep();
        manager.idle().await;
        assert!(!there());
    }
}
