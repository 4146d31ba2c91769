//! Rehash: after its login was answered, a right password is hashed anew under the present parameters.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use majordomo_model::{
    Actor as OnBehalfOf, Command, Error, Failure, Flow, FlowKind, PasswordCause, Reason, Signal, Timestamp, UserId,
};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::flow::{self, Answer, Decision, Fault, Perform, Run, Services, recall, remember};
use super::policy::seal_key;
use super::throttle::Reservation;
use crate::hasher::Place;
use crate::storage::{Check, CredentialRow, Lookup, ReadError, ReadView, StoredCredential, UserRow, Write};

/// How many may be due or under way, each with a password in memory: beyond it the next login of the user tries again.
const AT_ONCE: usize = 16;
/// How long one may take, which bounds how long a password is kept and a shutdown waits.
const WITHIN: Duration = Duration::from_secs(30);

/// Stores the same password under the present parameters, unless another one was set since.
pub(crate) struct Rehash {
    pub(super) user: UserId,
    /// The password, as it was compared.
    pub(super) password: Zeroizing<Vec<u8>>,
    /// The credential that it was compared with.
    pub(super) revision: u64,
    /// The user's epoch then: where a credential was removed, revisions begin anew, and epochs never do.
    pub(super) epoch: u64,
}

/// Why a password was not hashed anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RehashReason {
    /// The user is gone.
    #[error("there is no such user")]
    UserNotFound,
    /// Another password was set, or none is left.
    #[error("another password was set meanwhile")]
    Superseded,
}

impl Reason for RehashReason {
    fn as_str(&self) -> &'static str {
        match self {
            Self::UserNotFound => "user_not_found",
            Self::Superseded => "superseded",
        }
    }
}

impl Flow for Rehash {
    const KIND: FlowKind = FlowKind::Rehash;
    type Reply = ();
    type Reason = RehashReason;

    fn visible(&self) -> String {
        format!("{:?}", (self.user, self.revision, self.epoch))
    }
}

/// Shows whose it is alone.
impl fmt::Debug for Rehash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Rehash").field("user", &self.user).finish_non_exhaustive()
    }
}

/// What the store says.
struct Facts {
    user: Option<UserRow>,
    credential: Option<StoredCredential>,
    now: Timestamp,
}

impl Facts {
    fn read(view: &ReadView, user: UserId, now: Timestamp) -> Result<Self, ReadError> {
        Ok(Self { user: view.user(user)?, credential: view.credential(user)?, now })
    }
}

/// Facts in, batch out.
fn decide(asked: &Rehash, phc: &str, facts: &Facts) -> Decision<Rehash> {
    let failed = |reason| Signal::PasswordRehashFailed { user: asked.user, reason };
    let Some(user) = &facts.user else {
        return Decision::refuse(RehashReason::UserNotFound, failed(Failure::UserNotFound));
    };
    let (epoch, revision) = (asked.epoch, asked.revision);
    let is_compared = |credential: &StoredCredential| user.epoch == epoch && credential.revision == revision;
    if !facts.credential.as_ref().is_some_and(is_compared) {
        let refused = Decision::refuse(RehashReason::Superseded, failed(Failure::VersionConflict));
        return refused.about(user.id, seal_key(user));
    }
    let row = CredentialRow::new(phc.to_owned(), revision.saturating_add(1), facts.now);
    let (cause, scheme) = (PasswordCause::Rehash, "argon2id".to_owned());
    Decision {
        checks: vec![Check::Epoch(user.id, epoch), Check::CredentialRevision(user.id, Some(revision))],
        writes: vec![Write::PutCredential(user.id, row)],
        told: vec![Signal::UserPasswordSet { user: user.id, cause, scheme }.into()],
        end: Signal::PasswordRehashed { user: user.id },
        subject: Some((user.id, seal_key(user))),
        answer: Ok(()),
    }
}

impl Perform for Rehash {
    fn started(&self, _services: &Services) -> Signal {
        Signal::PasswordRehashStarted { user: self.user }
    }

    /// Nobody asked for it, so nobody is refused: where there is no room, it is left to the next login.
    fn admit(services: &Services, _: Option<&Reservation>) -> Result<Option<Place>, Error<RehashReason>> {
        services.hasher.keep_place_for_rehash().map(Some).ok_or(Error::Overloaded)
    }

    fn failed(&self, _services: &Services, why: Failure) -> Signal {
        Signal::PasswordRehashFailed { user: self.user, reason: why }
    }

    async fn perform(&self, run: &Run<'_, Self>) -> Result<Answer<Self>, Fault> {
        let phc = run.rehash(self.password.clone()).await?;
        run.settle(|view, now| Ok(decide(self, phc.as_str(), &Facts::read(view, self.user, now)?))).await
    }

    fn remember(answer: &Result<(), RehashReason>) -> Vec<u8> {
        remember(answer)
    }

    fn recall(remembered: &[u8]) -> Option<Result<(), RehashReason>> {
        recall(remembered)
    }
}

/// The rehashes that are due or under way: a bounded number, and one a user. Cloning shares them.
#[derive(Clone)]
pub(crate) struct Rehashes(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    count: watch::Sender<usize>,
}

#[derive(Default)]
struct State {
    users: BTreeSet<UserId>,
    due: Vec<Due>,
    closed: bool,
}

/// A rehash that was noted; its place is free once it is dropped.
pub(super) struct Due {
    rehash: Rehash,
    place: Noted,
}

struct Noted {
    user: UserId,
    among: Rehashes,
}

impl Drop for Noted {
    fn drop(&mut self) {
        let mut state = self.among.state();
        state.users.remove(&self.user);
        self.among.0.count.send_replace(state.users.len());
    }
}

impl Rehashes {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Shared { state: Mutex::default(), count: watch::Sender::new(0) }))
    }

    /// Notes one that is to follow a login, if there is room and none of that user is noted.
    pub(super) fn note(&self, rehash: Rehash) {
        let mut state = self.state();
        if state.closed || state.users.len() >= AT_ONCE || !state.users.insert(rehash.user) {
            return;
        }
        self.0.count.send_replace(state.users.len());
        let place = Noted { user: rehash.user, among: self.clone() };
        state.due.push(Due { rehash, place });
    }

    /// Those that are due, for whoever runs them.
    pub(super) fn take(&self) -> Vec<Due> {
        std::mem::take(&mut self.state().due)
    }

    /// Forgets those that are due, and lets none be noted any more.
    pub(super) fn close(&self) {
        self.state().closed = true;
        drop(self.take());
    }

    /// Waits until none is due or under way.
    pub(crate) async fn idle(&self) {
        let _ = self.0.count.subscribe().wait_for(|count| *count == 0).await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs one that was due, as a flow of its own.
pub(super) async fn run(services: &Services, due: Due) {
    let Due { rehash, place } = due;
    let command = Command::new(rehash).actor(OnBehalfOf::System);
    if let Err(error) = flow::run(services, &command, Some(Instant::now() + WITHIN)).await {
        tracing::debug!(%error, "a password is hashed anew later");
    }
    // Only now: the password goes with the command.
    drop((command, place));
}

#[cfg(test)]
mod tests {
    use majordomo_model::{
        Authenticate, ChangeContact, ChangePassword, ConfirmEmail, ContactClaim, Delete, Password, ResetPassword,
        SignalKind, TokenPurpose, UndoChange,
    };
    use proptest::prelude::*;

    use super::super::Manager;
    use super::super::Question;
    use super::super::fixture::{
        Fixture, NOW, OTHER_PASSWORD, PASSWORD, any_user, assert_one_end, assert_well_formed, authority,
    };
    use super::*;
    use crate::address::Address;
    use crate::supervision::{Limits, Plan, spawn_supervisor};

    /// [`PASSWORD`] under parameters that are not the present ones: of 72 KiB, which only a test would compute.
    const OLD: &str = "$argon2id$v=19$m=72,t=1,p=1$";

    /// A user whose hash is an old one.
    async fn with_an_old_hash(fixture: &Fixture, name: &str) -> UserId {
        let user = fixture.register(name, None, None).await.user;
        let row = CredentialRow::new(old_hash(), 1, fixture.clock.now());
        fixture.write(Vec::new(), vec![Write::PutCredential(user, row)]).await;
        user
    }

    fn old_hash() -> String {
        use argon2::{Algorithm, Argon2, Params, Version};

        let (salt, mut tag) = ([7; 16], [0; 32]);
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(72, 1, 1, None).unwrap());
        argon2.hash_password_into(PASSWORD.as_bytes(), &salt, &mut tag).unwrap();
        let encode = |bytes: &[u8]| base64::Engine::encode(&base64::engine::general_purpose::STANDARD_NO_PAD, bytes);
        format!("{OLD}{}${}", encode(&salt), encode(&tag))
    }

    fn stored(fixture: &Fixture, user: UserId) -> (String, u64) {
        let stored = fixture.services.reader.snapshot(|view| view.credential(user)).unwrap().unwrap();
        (stored.open(&fixture.services.keys, user).unwrap().to_string(), stored.revision)
    }

    fn jobs(fixture: &Fixture) -> u64 {
        fixture.services.hasher.observe().jobs_done
    }

    #[tokio::test]
    async fn a_login_leaves_its_old_hash_to_a_flow_of_its_own_which_no_later_login_needs() {
        let fixture = Fixture::new().await;
        let user = with_an_old_hash(&fixture, "ada").await;
        let (head, before) = (fixture.head(), jobs(&fixture));
        fixture.session("ada").await;
        assert_eq!(jobs(&fixture) - before, 1, "the login costs what any login costs");
        assert!(stored(&fixture, user).0.starts_with(OLD));
        let login =
            [SignalKind::UserAuthenticationStarted, SignalKind::UserPasswordChecked, SignalKind::UserAuthenticated];
        assert_eq!(fixture.kinds_after(head), login);
        fixture.rehash().await;
        let rehash = [SignalKind::PasswordRehashStarted, SignalKind::UserPasswordSet, SignalKind::PasswordRehashed];
        assert_eq!(fixture.kinds_after(head + 3), rehash);
        assert_eq!((jobs(&fixture) - before, stored(&fixture, user).1), (2, 2));
        assert!(!stored(&fixture, user).0.starts_with(OLD));
        fixture.session("ada").await;
        fixture.rehash().await;
        assert_eq!((jobs(&fixture) - before, fixture.kinds_after(head + 6)), (3, login.to_vec()));
    }

    #[tokio::test]
    async fn a_password_that_was_set_meanwhile_and_a_user_who_is_gone_are_left_alone() {
        let fixture = Fixture::new().await;
        let user = with_an_old_hash(&fixture, "ada").await;
        fixture.session("ada").await;
        let (current, new) = (Password::new(PASSWORD), Password::new(OTHER_PASSWORD));
        fixture.run(ChangePassword { user, current, new, keep: None }).await.unwrap();
        let set = stored(&fixture, user);
        fixture.rehash().await;
        assert_eq!(stored(&fixture, user), set);
        let reason = Failure::VersionConflict;
        assert_eq!(fixture.last_signal(), Signal::PasswordRehashFailed { user, reason });

        let user = with_an_old_hash(&fixture, "eve").await;
        fixture.session("eve").await;
        fixture.run(Delete::new(user)).await.unwrap();
        fixture.rehash().await;
        let reason = Failure::UserNotFound;
        assert_eq!(fixture.last_signal(), Signal::PasswordRehashFailed { user, reason });
    }

    /// The change that is undone removes the credential, so that the next one has the revision of the first again.
    #[tokio::test]
    async fn a_password_that_was_reset_after_an_undone_change_is_left_alone() {
        let fixture = Fixture::new().await;
        let user = fixture.register_proven("ada", Some("ada@example.com"), None).await;
        let address = ContactClaim::Email("eve@example.com".to_owned());
        let contact = fixture.contact(user, "ada@example.com").id;
        let claimed = fixture.run(ChangeContact { user, contact, address, authority: authority() }).await.unwrap();
        fixture.run(ConfirmEmail { proof: fixture.link(claimed.challenge) }).await.unwrap();
        let row = CredentialRow::new(old_hash(), 1, fixture.clock.now());
        fixture.write(Vec::new(), vec![Write::PutCredential(user, row)]).await;
        fixture.session("ada").await;

        let proof = fixture.link(fixture.newest_token(user, TokenPurpose::UndoChange));
        let challenge = fixture.run(UndoChange { proof }).await.unwrap().reset.unwrap().challenge;
        let new = Password::new(OTHER_PASSWORD);
        fixture.run(ResetPassword { proof: fixture.link(challenge), new }).await.unwrap();
        let reset = stored(&fixture, user);
        assert_eq!(reset.1, 1);
        fixture.rehash().await;
        assert_eq!(stored(&fixture, user), reset);
        let reason = Failure::VersionConflict;
        assert_eq!(fixture.last_signal(), Signal::PasswordRehashFailed { user, reason });
        fixture.sign_in_with("ada", OTHER_PASSWORD).await.unwrap();
        fixture.sign_in("ada").await.unwrap_err();
    }

    #[tokio::test]
    async fn without_room_or_luck_it_is_left_to_the_next_login() {
        let fixture = Fixture::new().await;
        let user = with_an_old_hash(&fixture, "ada").await;
        fixture.session("ada").await;
        let head = fixture.head();
        // Every place is kept for somebody who waits.
        let places: Vec<_> = (0..1_000).map(|_| fixture.services.hasher.keep_place_for_new_hash().unwrap()).collect();
        fixture.rehash().await;
        assert_eq!(fixture.head(), head, "no flow begins");
        drop(places);
        fixture.session("ada").await;
        fixture.services.hasher.fail_next(1);
        fixture.rehash().await;
        let reason = Failure::PasswordHashingError;
        assert_eq!(fixture.last_signal(), Signal::PasswordRehashFailed { user, reason });
        assert!(stored(&fixture, user).0.starts_with(OLD));
        fixture.session("ada").await;
        fixture.rehash().await;
        assert_eq!(fixture.last_signal(), Signal::PasswordRehashed { user });
    }

    #[test]
    fn those_that_are_due_are_bounded_one_a_user_and_gone_with_the_system() {
        let rehashes = Rehashes::new();
        let note = |last: u8| {
            let (user, password) = (UserId::from_bytes([last; 16]), Zeroizing::default());
            rehashes.note(Rehash { user, password, revision: 1, epoch: 1 });
            rehashes.state().due.len()
        };
        assert_eq!([note(1), note(1), note(2)], [1, 1, 2]);
        assert_eq!((3..40).map(note).max(), Some(AT_ONCE));
        let mut taken = rehashes.take();
        assert_eq!((taken.len(), note(99)), (AT_ONCE, 0), "they count until they are done");
        drop(taken.pop());
        assert_eq!((note(99), *rehashes.0.count.borrow()), (1, AT_ONCE));
        rehashes.close();
        assert_eq!((note(98), *rehashes.0.count.borrow()), (0, AT_ONCE - 1));
        drop(taken);
        assert_eq!(*rehashes.0.count.borrow(), 0);
    }

    #[tokio::test]
    async fn the_answer_comes_while_the_rehash_is_held_and_whoever_waits_for_it_waits() {
        let fixture = Fixture::new().await;
        let user = with_an_old_hash(&fixture, "ada").await;
        let manager = Manager::new(Arc::new(fixture.services));
        let (root, _ended) = spawn_supervisor(Plan::new(Limits::default()), None).await.unwrap();
        let (address, binder) = Address::new(8);
        binder.bind(manager.start(root.get_cell()).await.unwrap());
        let hasher = &manager.services.hasher;
        hasher.hold_rehashes(true);
        let login = Authenticate { identifier: "ada".to_owned(), password: Password::new(PASSWORD) };
        let command = Arc::new(Command::new(login));
        address.tell(|reply| Authenticate::question(command, reply)).unwrap().await.unwrap().unwrap();
        let waits = async {
            while hasher.observe().queued == 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), waits).await.unwrap();
        assert_eq!(manager.flows_under_way(), 1);
        let mut idle = std::pin::pin!(manager.rehashed());
        assert!(futures_util::poll!(&mut idle).is_pending());
        hasher.hold_rehashes(false);
        tokio::time::timeout(Duration::from_secs(60), idle).await.unwrap();
        let last = manager.services.reader.signals_after(0, usize::MAX).unwrap().pop().unwrap().signal;
        assert_eq!(last, Signal::PasswordRehashed { user });
        root.stop(None);
    }

    proptest! {
        #[test]
        fn whatever_the_facts_it_ends_once_and_takes_the_place_of_what_was_compared_alone(
            user in prop::option::of(any_user()),
            revision in prop::option::of(0_u64..3),
            epoch in 0_u64..3,
        ) {
            let (id, password) = (UserId::from_bytes([1; 16]), Zeroizing::default());
            let asked = Rehash { user: id, password, revision: 1, epoch };
            let row = |revision| CredentialRow::new("old".to_owned(), revision, NOW);
            let credential = revision.map(|revision| StoredCredential::unsealed(&row(revision)));
            let may = user.as_ref().is_some_and(|user| user.epoch == epoch) && revision == Some(1);
            let decision = decide(&asked, "new", &Facts { user, credential, now: NOW });
            assert_one_end(&decision);
            assert_well_formed(&decision);
            prop_assert_eq!(decision.answer.is_ok(), may);
            prop_assert_eq!(decision.writes.len(), usize::from(may));
            let is_bound = decision.checks.iter().any(|check| matches!(check, Check::Epoch(_, bound) if *bound == epoch));
            prop_assert_eq!(is_bound, may);
            let compared = |check: &Check| matches!(check, Check::CredentialRevision(_, Some(1)));
            prop_assert_eq!(decision.checks.iter().any(compared), may);
        }
    }
}
