//! Accounts: the handle of an account system, one typed method a flow.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use majordomo_actors::auditor::AuditSigner;
use majordomo_actors::notifier::{Route, TransportState};
use majordomo_actors::storage::Unreadable;
use majordomo_actors::supervisor::{Health, System, Tree};
use majordomo_actors::user_manager::{Answer, Question};
use majordomo_model::*;
use ractor::RpcReplyPort;

use crate::builder::Builder;

/// The most users, signals or audit records of one page.
pub const PAGE_LIMIT: usize = 1_000;
/// After how many bytes of the log a page of signals ends.
const PAGE_BYTES: usize = 4 * 1_024 * 1_024;

/// The handle of a running account system: cheap to clone, and usable from any task or actor.
///
/// It is also the stable address of the user manager: whatever actor behind it is restarted, the handle stays good.
/// Every method of a flow takes the flow's message, or a [`Command`] that adds an id, who acts, a context and a
/// deadline. When it answers, the change and its signals are durable. Dropping the future of a flow does not undo the
/// flow: once admitted, it runs to its end.
///
/// When the last handle is dropped the system shuts down in the background; [`Accounts::shutdown`] waits for it.
#[derive(Clone, Debug)]
pub struct Accounts {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    system: System,
    shutdown_within: Duration,
    signer: Arc<AuditSigner>,
    route: Route,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (system, limit) = (self.system.clone(), self.shutdown_within);
            runtime.spawn(async move { system.shutdown(limit).await });
        }
    }
}

impl Accounts {
    /// Begins to put an account system together.
    pub fn builder() -> Builder {
        Builder::new()
    }

    pub(crate) fn new(system: System, shutdown_within: Duration, signer: Arc<AuditSigner>, route: Route) -> Self {
        Self { inner: Arc::new(Inner { system, shutdown_within, signer, route }) }
    }

    pub(crate) fn signer(&self) -> &Arc<AuditSigner> {
        &self.inner.signer
    }

    pub(crate) fn system(&self) -> &System {
        &self.inner.system
    }

    /// Runs any flow: what the methods named after the flows do.
    ///
    /// # Errors
    /// [`Error::Refused`] with the flow's reason, or why the flow could not be done.
    pub async fn ask<F: Question>(&self, command: impl Into<Command<F>>) -> Answer<F> {
        self.system().ask(command.into()).await
    }

    /// Sends a message without waiting, for actors: fire and forget, or await the receiver elsewhere.
    ///
    /// # Errors
    /// [`Error::Overloaded`], [`Error::Stopped`] or [`Error::CalledFromGuard`]; nothing was sent then.
    pub fn tell<F: Question>(
        &self,
        command: impl Into<Command<F>>,
    ) -> Result<tokio::sync::oneshot::Receiver<Answer<F>>, Error<F::Reason>> {
        self.system().tell(command.into())
    }

    /// Sends a message and has the answer sent to a reply port, such as one that an actor's message carries.
    pub fn tell_to<F: Question>(&self, command: impl Into<Command<F>>, port: RpcReplyPort<Answer<F>>) {
        match self.tell(command) {
            Ok(answer) => {
                tokio::spawn(async move {
                    // Whoever asked may be gone; the flow has run all the same.
                    let _ = port.send(answer.await.unwrap_or(Err(Error::Interrupted)));
                });
            }
            Err(refused) => {
                let _ = port.send(Err(refused));
            }
        }
    }
}

/// The flows.
impl Accounts {
    /// Registers a user; see [`Register`].
    ///
    /// # Errors
    /// [`RegisterReason`], or why it could not be done.
    pub async fn register(&self, command: impl Into<Command<Register>>) -> Answer<Register> {
        self.ask(command).await
    }

    /// Makes a user of somebody who had a password in another system; see [`Import`].
    ///
    /// # Errors
    /// [`ImportReason`], or why it could not be done.
    pub async fn import(&self, command: impl Into<Command<Import>>) -> Answer<Import> {
        self.ask(command).await
    }

    /// Signs a user in and opens a session; see [`Authenticate`].
    ///
    /// # Errors
    /// [`AuthenticateReason`], or why it could not be done.
    pub async fn authenticate(&self, command: impl Into<Command<Authenticate>>) -> Answer<Authenticate> {
        self.ask(command).await
    }

    /// Ends the session that a token opens; see [`LogOut`].
    ///
    /// # Errors
    /// [`LogOutReason`], or why it could not be done.
    pub async fn log_out(&self, command: impl Into<Command<LogOut>>) -> Answer<LogOut> {
        self.ask(command).await
    }

    /// Ends sessions of a user from the list; see [`EndSessions`].
    ///
    /// # Errors
    /// [`EndSessionsReason`], or why it could not be done.
    pub async fn end_sessions(&self, command: impl Into<Command<EndSessions>>) -> Answer<EndSessions> {
        self.ask(command).await
    }

    /// Replaces a password, the old one being known; see [`ChangePassword`].
    ///
    /// # Errors
    /// [`ChangePasswordReason`], or why it could not be done.
    pub async fn change_password(&self, command: impl Into<Command<ChangePassword>>) -> Answer<ChangePassword> {
        self.ask(command).await
    }

    /// Asks for a fresh message that proves an e-mail address; see [`RequestEmailVerification`].
    ///
    /// # Errors
    /// [`RequestEmailVerificationReason`], or why it could not be done.
    pub async fn request_email_verification(
        &self,
        command: impl Into<Command<RequestEmailVerification>>,
    ) -> Answer<RequestEmailVerification> {
        self.ask(command).await
    }

    /// Proves an e-mail address by link or code; see [`ConfirmEmail`].
    ///
    /// # Errors
    /// [`ConfirmEmailReason`], or why it could not be done.
    pub async fn confirm_email(&self, command: impl Into<Command<ConfirmEmail>>) -> Answer<ConfirmEmail> {
        self.ask(command).await
    }

    /// Asks for a fresh message that proves a phone number; see [`RequestPhoneVerification`].
    ///
    /// # Errors
    /// [`RequestPhoneVerificationReason`], or why it could not be done.
    pub async fn request_phone_verification(
        &self,
        command: impl Into<Command<RequestPhoneVerification>>,
    ) -> Answer<RequestPhoneVerification> {
        self.ask(command).await
    }

    /// Proves a phone number by link or code; see [`ConfirmPhone`].
    ///
    /// # Errors
    /// [`ConfirmPhoneReason`], or why it could not be done.
    pub async fn confirm_phone(&self, command: impl Into<Command<ConfirmPhone>>) -> Answer<ConfirmPhone> {
        self.ask(command).await
    }

    /// Takes back a change of how a user is reached or signs in, by the link that the address from before it was sent;
    /// see [`UndoChange`].
    ///
    /// # Errors
    /// [`UndoChangeReason`], or why it could not be done.
    pub async fn undo_change(&self, command: impl Into<Command<UndoChange>>) -> Answer<UndoChange> {
        self.ask(command).await
    }

    /// Lifts the lock that too many wrong passwords put on an account; see [`Unlock`].
    ///
    /// # Errors
    /// [`UnlockReason`], or why it could not be done.
    pub async fn unlock(&self, command: impl Into<Command<Unlock>>) -> Answer<Unlock> {
        self.ask(command).await
    }

    /// Claims a further address for a user; see [`AddContact`].
    ///
    /// # Errors
    /// [`AddContactReason`], or why it could not be done.
    pub async fn add_contact(&self, command: impl Into<Command<AddContact>>) -> Answer<AddContact> {
        self.ask(command).await
    }

    /// Replaces an address once the new one is proven; see [`ChangeContact`].
    ///
    /// # Errors
    /// [`ChangeContactReason`], or why it could not be done.
    pub async fn change_contact(&self, command: impl Into<Command<ChangeContact>>) -> Answer<ChangeContact> {
        self.ask(command).await
    }

    /// Gives up an address; see [`RemoveContact`].
    ///
    /// # Errors
    /// [`RemoveContactReason`], or why it could not be done.
    pub async fn remove_contact(&self, command: impl Into<Command<RemoveContact>>) -> Answer<RemoveContact> {
        self.ask(command).await
    }

    /// Makes a proven address the first of its channel; see [`MakePrimary`].
    ///
    /// # Errors
    /// [`MakePrimaryReason`], or why it could not be done.
    pub async fn make_primary(&self, command: impl Into<Command<MakePrimary>>) -> Answer<MakePrimary> {
        self.ask(command).await
    }

    /// Changes profile, attributes or username; see [`Update`].
    ///
    /// # Errors
    /// [`UpdateReason`], or why it could not be done.
    pub async fn update(&self, command: impl Into<Command<Update>>) -> Answer<Update> {
        self.ask(command).await
    }

    /// Adds a user to groups and takes them out of others; see [`ChangeGroups`].
    ///
    /// # Errors
    /// [`ChangeGroupsReason`], or why it could not be done.
    pub async fn change_groups(&self, command: impl Into<Command<ChangeGroups>>) -> Answer<ChangeGroups> {
        self.ask(command).await
    }

    /// Shuts a user out; see [`Disable`].
    ///
    /// # Errors
    /// [`DisableReason`], or why it could not be done.
    pub async fn disable(&self, command: impl Into<Command<Disable>>) -> Answer<Disable> {
        self.ask(command).await
    }

    /// Lets a disabled user in again; see [`Enable`].
    ///
    /// # Errors
    /// [`EnableReason`], or why it could not be done.
    pub async fn enable(&self, command: impl Into<Command<Enable>>) -> Answer<Enable> {
        self.ask(command).await
    }

    /// Removes a user with everything that is theirs; see [`Delete`].
    ///
    /// # Errors
    /// [`DeleteReason`], or why it could not be done.
    pub async fn delete(&self, command: impl Into<Command<Delete>>) -> Answer<Delete> {
        self.ask(command).await
    }

    /// Asks for a message that permits a new password; see [`RequestPasswordReset`].
    ///
    /// # Errors
    /// [`RequestPasswordResetReason`], or why it could not be done.
    pub async fn request_password_reset(
        &self,
        command: impl Into<Command<RequestPasswordReset>>,
    ) -> Answer<RequestPasswordReset> {
        self.ask(command).await
    }

    /// Sets a new password by link or code; see [`ResetPassword`].
    ///
    /// # Errors
    /// [`ResetPasswordReason`], or why it could not be done.
    pub async fn reset_password(&self, command: impl Into<Command<ResetPassword>>) -> Answer<ResetPassword> {
        self.ask(command).await
    }
}

/// Reading. Every method reads one snapshot, without waiting for writes.
impl Accounts {
    /// The session that a token opens and its user, if it is alive: not ended, not expired, not idle too long, its user
    /// let in and in the same credential epoch. Its use is noted, to the minute.
    ///
    /// # Errors
    /// [`Unreadable`] while storage is out, unless the session was checked lately: then nobody is known to be signed in, or
    /// not to be.
    pub fn check_session(&self, token: &SessionToken) -> Result<Option<(Session, User)>, Unreadable> {
        self.system().check_session(token)
    }

    /// The sessions of a user that can be ended, oldest first.
    ///
    /// # Errors
    /// [`Unreadable`] while storage is out.
    pub fn sessions(&self, user: UserId) -> Result<Vec<Session>, Unreadable> {
        self.system().reader().sessions_of(user)
    }

    /// A user.
    ///
    /// # Errors
    /// [`Unreadable`] while storage is out, which is not the same as `None`.
    pub fn user(&self, user: UserId) -> Result<Option<User>, Unreadable> {
        self.system().reader().user(user)
    }

    /// The user that a username or a proven address names, as typed.
    ///
    /// # Errors
    /// [`Unreadable`] while storage is out.
    pub fn find_user(&self, identifier: &str) -> Result<Option<User>, Unreadable> {
        match Identifier::guess(identifier) {
            Ok(identifier) => self.system().reader().user_named(&identifier),
            Err(_) => Ok(None),
        }
    }

    /// A page of users in the order of their registration: those after `after`, at most `limit` and [`PAGE_LIMIT`].
    ///
    /// # Errors
    /// [`Unreadable`] while storage is out.
    pub async fn users(&self, after: Option<UserId>, limit: usize) -> Result<Vec<User>, Unreadable> {
        let reader = self.system().reader().clone();
        blocking(move || reader.users_after(after, limit.min(PAGE_LIMIT))).await
    }

    /// Signals of the log after a place, at most `limit` and [`PAGE_LIMIT`], with personal data opened where its user
    /// lives. A page is never empty where there are more, but it ends early once it holds 4 MiB of the log.
    ///
    /// # Errors
    /// [`Unreadable`] while storage is out.
    pub async fn signals(&self, after: u64, limit: usize) -> Result<Vec<Envelope>, Unreadable> {
        let reader = self.system().reader().clone();
        blocking(move || reader.page_after(after, limit.min(PAGE_LIMIT), PAGE_BYTES)).await
    }
}

pub(crate) async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, Unreadable> + Send + 'static,
) -> Result<T, Unreadable> {
    tokio::task::spawn_blocking(read).await.unwrap_or(Err(Unreadable))
}

/// Operating.
impl Accounts {
    /// What every actor is doing, in one serialisable picture. It holds up nobody, and it is drawn within about a second
    /// even if an actor or the disk hangs.
    pub async fn tree(&self) -> Tree {
        self.system().tree().await
    }

    /// How the transports that the builder was given stand, in their order: which is out, and until when it is left
    /// alone.
    #[must_use]
    pub fn transports(&self) -> Vec<TransportState> {
        self.inner.route.states()
    }

    /// Whether the process lives, whether requests can be served, and what somebody should look into. Drawn as
    /// [`Accounts::tree`] is.
    pub async fn health(&self) -> Health {
        self.system().health().await
    }

    /// Copies the store, as it is now, to a new file, while it goes on being used. The keys are not in it.
    ///
    /// # Errors
    /// A sentence for the operator: the target exists, the disk is full, storage is out.
    pub async fn backup(&self, target: impl Into<PathBuf>) -> Result<(), String> {
        self.system().storage().backup(target.into()).await
    }

    /// Waits until every subscriber has handled everything that is in the log now, and what they emitted themselves; and
    /// before that until no password is being hashed anew behind a login.
    pub async fn drain(&self) {
        self.system().drained().await;
    }

    /// Removes what has ended by time, which the system does by itself once a minute.
    pub async fn sweep(&self) {
        self.system().sweep().await;
    }

    /// Admits nothing more, lets flows end, commits, closes the file; what takes longer than
    /// [`Config::shutdown_within`](crate::Config::shutdown_within) is cut off. Everything answered is durable anyway.
    ///
    /// Answers whether it was done in time.
    pub async fn shutdown(&self) -> bool {
        self.system().shutdown(self.inner.shutdown_within).await
    }
}
