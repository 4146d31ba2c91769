//! The user manager: admits typed messages and runs each as a flow of its own, so that a panic ends that flow alone.

mod add_contact;
mod authenticate;
mod authority;
mod budget;
mod change_contact;
mod change_groups;
mod change_password;
mod confirm_email;
mod confirm_phone;
mod contacts;
mod delete;
mod disable;
mod enable;
mod end_sessions;
mod epoch;
#[cfg(test)]
mod fixture;
mod flow;
mod log_out;
mod make_primary;
mod new_password;
mod policy;
mod proof;
mod register;
mod remove_contact;
mod request_email_verification;
mod request_password_reset;
mod request_phone_verification;
mod reset_password;
pub(crate) mod session;
mod update;
mod verification;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use majordomo_model::{
    Actor as OnBehalfOf, AddContact, Authenticate, ChangeContact, ChangeGroups, ChangePassword, Command, CommandId,
    ConfirmEmail, ConfirmPhone, Context, Delete, DeletionCause, Disable, Enable, EndSessions, Flow, FlowId, Lane,
    LogOut, MakePrimary, Register, RemoveContact, RequestEmailVerification, RequestPasswordReset,
    RequestPhoneVerification, ResetPassword, SignalId, Update,
};
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SpawnErr};
use tokio::sync::watch;

pub(crate) use self::budget::Budget;
pub use self::flow::Answer;
use self::flow::Perform;
pub(crate) use self::flow::Services;
pub use self::policy::{GROUPS_LIMIT, Policy, Registration, Requirement};
use crate::address::Reply;
use crate::stamp::Stamp;
use crate::storage::Batch;

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
                    Self::Tell => manager.tell(),
                    Self::Sweep => manager.begin_sweep(),
                }
            }
        }
    };
}

mailbox! {
    Register Authenticate LogOut EndSessions ChangePassword RequestEmailVerification ConfirmEmail
    RequestPhoneVerification ConfirmPhone AddContact ChangeContact RemoveContact MakePrimary Update ChangeGroups
    Disable Enable Delete RequestPasswordReset ResetPassword
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
}

impl Manager {
    pub(crate) fn new(services: Arc<Services>) -> Self {
        Self { services, under_way: Arc::default(), count: Arc::new(watch::Sender::new(0)) }
    }

    /// Starts an incarnation of the actor, linked to its supervisor.
    ///
    /// # Errors
    /// As ractor's spawning.
    pub async fn start(&self, supervisor: ActorCell) -> Result<ActorRef<UserManagerMessage>, SpawnErr> {
        let (actor, _) = Actor::spawn_linked(None, UserManager, self.clone(), supervisor).await?;
        Ok(actor)
    }

    /// Waits until no flow is under way.
    pub async fn idle(&self) {
        let _ = self.count.subscribe().wait_for(|count| *count == 0).await;
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
        let mut under_way = self.under_way();
        if let Some(waiting) = under_way.get_mut(&command.id) {
            waiting.push(F::question(command, reply));
            return;
        }
        under_way.insert(command.id, Vec::new());
        drop(under_way);
        self.count.send_modify(|count| *count += 1);
        let manager = self.clone();
        tokio::spawn(async move {
            let answer = flow::run(&manager.services, &command, reply.deadline()).await;
            reply.send(answer);
            manager.ended(command.id);
            manager.count.send_modify(|count| *count = count.saturating_sub(1));
        });
    }

    /// Gives whoever sent the same command meanwhile their turn. Not by way of the actor: a mailbox may die with what
    /// is in it, and those who wait here would never be answered.
    fn ended(&self, command: CommandId) {
        let waiting = self.under_way().remove(&command).unwrap_or_default();
        for message in waiting {
            message.begin(self);
        }
    }

    /// Removes what has ended by time, deletes accounts that were never verified, and prunes the log.
    pub async fn sweep(&self) {
        let services = &self.services;
        let due = services.reader.never_verified(services.clock.now(), SWEEP_USERS).unwrap_or_default();
        for (user, _) in due {
            let deletion = Delete { user, cause: DeletionCause::NeverVerified };
            let command = Command::new(deletion).actor(OnBehalfOf::System);
            if let Err(error) = flow::run(services, &command, None).await {
                tracing::warn!(%user, %error, "an account that was never verified could not be deleted");
            }
        }
        if let Err(error) = services.storage.maintain().await {
            tracing::debug!(?error, "maintenance is put off");
        }
    }

    /// Commits the signals that tell what was only counted.
    pub(crate) fn tell(&self) {
        let counted = self.services.budget.take();
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

    fn begin_sweep(&self) {
        let manager = self.clone();
        tokio::spawn(async move { manager.sweep().await });
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
    use std::task::Poll;

    use ractor::SupervisionEvent;

    use super::fixture::Fixture;
    use super::*;
    use crate::address::Address;

    /// Outlives its children.
    struct Parent;

    #[ractor::actor(message = (), state = (), arguments = ())]
    impl Parent {
        async fn pre_start(&self, _myself: ActorRef<()>, _arguments: ()) -> Result<(), ActorProcessingErr> {
            Ok(())
        }

        async fn handle_supervisor_evt(
            &self,
            _myself: ActorRef<()>,
            _event: SupervisionEvent,
            _state: &mut (),
        ) -> Result<(), ActorProcessingErr> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_command_is_answered_twice_though_the_actor_dies_just_as_its_flow_ends() {
        let fixture = Fixture::new().await;
        let user = fixture.register("ada", None, None).await.user;
        let services = Arc::new(fixture.services);
        let manager = Manager::new(Arc::clone(&services));
        let (parent, _) = Actor::spawn(None, Parent, ()).await.unwrap();
        let command = Arc::new(Command::new(Disable { user }));
        let (address, binder) = Address::new(8);
        let ask = |command: &Arc<Command<Disable>>| {
            let (address, command) = (address.clone(), Arc::clone(command));
            tokio::spawn(async move {
                let asked = address.ask_repeatable(None, |reply| Disable::question(Arc::clone(&command), reply));
                tokio::time::timeout(Duration::from_secs(10), asked).await.expect("it is never answered").unwrap()
            })
        };
        let actor = manager.start(parent.get_cell()).await.unwrap();
        binder.bind(actor.clone());
        let before = services.storage.observe().transactions;
        let (first, second) = (ask(&command), ask(&command));
        // On one thread, and always back in the queue behind what is ready, this sees the commit before the flow goes
        // on: whatever the flow tells the actor then finds a mailbox that nobody empties.
        let (storage, doomed) = (services.storage.clone(), actor.get_cell());
        let killing = tokio::spawn(std::future::poll_fn(move |turn| {
            if storage.observe().transactions == before {
                turn.waker().wake_by_ref();
                return Poll::Pending;
            }
            doomed.kill();
            Poll::Ready(())
        }));
        killing.await.unwrap();
        actor.wait(None).await.unwrap();
        binder.bind(manager.start(parent.get_cell()).await.unwrap());
        let third = ask(&command);
        let answers = [first.await.unwrap(), second.await.unwrap(), third.await.unwrap()];
        assert!(answers.iter().all(|answer| answer.is_ok() && *answer == answers[0]), "{answers:?}");
        assert_eq!(manager.flows_under_way(), 0);
    }
}
