//! Listening and its operation: subscriptions, live members, projections, dead letters, replay.

use majordomo_actors::live::Live;
use majordomo_actors::outbox::{
    DeadLetter, Moved, OperationError, RebuildStarted, Subscription, UnattachedSubscription,
};
use majordomo_actors::storage::{ProjectionRange, ProjectionValues, Unreadable};
use majordomo_actors::subscriber::Subscriber;
use majordomo_actors::supervisor::{OrderError, SpawnError};
use majordomo_model::{Actor, Envelope, Filter, Start};
use ractor::{ActorRef, Message};

use crate::accounts::{Accounts, PAGE_LIMIT, blocking};
use crate::builder::registration;

/// Listening.
impl Accounts {
    /// Adds a durable subscriber to the running system: it is fed the signals that pass `filter`, at least once, in
    /// order, from its own cursor, from `start` on the first time. The subscriber must be given again at every start
    /// of the process, here or to the builder; its cursor waits meanwhile.
    ///
    /// # Errors
    /// [`SpawnError::Subscription`] if the name is taken or not acceptable.
    pub async fn subscribe(
        &self,
        name: impl Into<String>,
        filter: Filter,
        start: Start,
        subscriber: impl Subscriber,
    ) -> Result<(), SpawnError> {
        self.add(registration(name, filter, start, subscriber)).await
    }

    /// Adds a durable subscription, on terms of its own, to the running system.
    ///
    /// Every subscription has a cursor of its own: a second one may read the same span of the log without touching
    /// the first.
    ///
    /// # Errors
    /// [`SpawnError::Subscription`] if the name is taken, or the terms are not acceptable.
    pub async fn add(&self, subscription: Subscription) -> Result<(), SpawnError> {
        self.system().subscribe(subscription).await
    }

    /// Stops a subscriber and lets go of it. Its cursor stays, and keeps the log: a subscription that is added under the
    /// same name later goes on from there. Until then it is told as
    /// [`HealthFault::SubscriptionUnattached`](crate::HealthFault::SubscriptionUnattached).
    ///
    /// # Errors
    /// [`OrderError`].
    pub async fn detach(&self, name: &str) -> Result<(), OrderError> {
        self.system().detach(name).await
    }

    /// Releases a subscription from quarantine: it goes on from its cursor, with no failure on record.
    ///
    /// # Errors
    /// [`OrderError`].
    pub async fn release(&self, name: &str) -> Result<(), OrderError> {
        self.system().release(name).await
    }

    /// Lets an actor hear signals at once, as [`Live`]: lossily, at most `places` of them waiting, not across restarts.
    pub fn listen<M: Message + From<Live>>(&self, actor: &ActorRef<M>, filter: Filter, places: usize) {
        self.system().live().join(actor, filter, places);
    }

    /// Sends an actor nothing more.
    pub fn unlisten<M: Message>(&self, actor: &ActorRef<M>) {
        self.system().live().leave(&actor.get_cell());
    }

    /// The signal at a place of the log; `None` if it is pruned, or not there yet.
    ///
    /// # Errors
    /// [`Unreadable`] while storage is out.
    pub fn signal_at(&self, place: u64) -> Result<Option<Envelope>, Unreadable> {
        let Some(before) = place.checked_sub(1) else { return Ok(None) };
        let next = self.system().reader().signals_after(before, 1)?;
        Ok(next.into_iter().find(|envelope| envelope.seq == Some(place)))
    }
}

/// Projections: what subscribers keep beside their progress (see [`Effect::Project`](crate::Effect::Project)), as last
/// committed. While one is rebuilt, it is read as it was before.
impl Accounts {
    /// A value of a subscriber's own projection.
    ///
    /// # Errors
    /// [`Unreadable`] while storage is out.
    pub fn projection(&self, subscription: &str, key: &[u8]) -> Result<Option<Vec<u8>>, Unreadable> {
        self.system().reader().projected(subscription, key)
    }

    /// A page of a subscriber's own projection: the keys that start with `prefix` and lie behind `after`, in the order
    /// of their bytes, with their values; at most `limit` and [`PAGE_LIMIT`]. The last key of a page is the `after` of
    /// the next one. Each page is a snapshot of its own.
    ///
    /// ```
    /// # use majordomo::testing::TestAccounts;
    /// # tokio::runtime::Runtime::new()?.block_on(async {
    /// # let accounts = TestAccounts::start().await;
    /// let (mut after, mut count): (Option<Vec<u8>>, _) = (None, 0);
    /// loop {
    ///     let page = accounts.projection_page("visits", b"2027-", after.as_deref(), 500).await?;
    ///     let Some((last, _)) = page.last() else { break };
    ///     after = Some(last.clone());
    ///     count += page.len();
    /// }
    /// # assert_eq!(count, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Unreadable`] while storage is out.
    pub async fn projection_page(
        &self,
        subscription: &str,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<ProjectionValues, Unreadable> {
        let (reader, name, prefix) = (self.system().reader().clone(), subscription.to_owned(), prefix.to_vec());
        // The first key behind another one is the same with a zero at its end.
        let from = after.map_or_else(|| prefix.clone(), |after| [after, &[0]].concat());
        let limit = limit.min(PAGE_LIMIT);
        blocking(move || {
            let range = ProjectionRange { prefix: &prefix, from: &from, until: None, newest_first: false, limit };
            reader.projection(&name, range)
        })
        .await
    }

    /// Has a subscription's projection built anew from the oldest signal that is kept. What its subscriber had finished
    /// is handed to it again, and of what it answers only what it projects or forgets counts: no mail is sent twice.
    /// Then it goes on where it was, and the new projection takes the place of the old one, which is read until then.
    /// It survives restarts and tells how far it is in [`Tree::subscriptions`](crate::Tree); a rebuild that is asked for
    /// during another begins anew.
    ///
    /// It is as complete as the log: see [`RebuildStarted::complete`]. For a subscription that is not attached it begins
    /// once that is.
    ///
    /// # Errors
    /// [`OperationError`].
    pub async fn rebuild_projection(&self, subscription: &str, actor: Actor) -> Result<RebuildStarted, OperationError> {
        self.system().outbox().rebuild(subscription, actor).await
    }
}

/// Operating subscriptions. What changes something takes the [`Actor`] who asked for it, as the app asserts it, and is
/// told by a signal in the same commit; the subscription itself is not handed that signal.
impl Accounts {
    /// A page of a subscription's dead letters, the signals that it gave up: those behind the place `after`, in the
    /// order of places, at most `limit` and [`PAGE_LIMIT`].
    ///
    /// ```
    /// # use majordomo::testing::TestAccounts;
    /// # use majordomo::{Filter, Outcome, Start, Subscriber, SubscriberContext};
    /// use majordomo::{Actor, Envelope};
    /// # struct Mirror;
    /// # impl Subscriber for Mirror {
    /// #     async fn handle(&self, _: &Envelope, _: &SubscriberContext) -> Outcome { Outcome::done() }
    /// # }
    /// # tokio::runtime::Runtime::new()?.block_on(async {
    /// # let accounts = TestAccounts::start().await;
    /// # accounts.subscribe("mirror", Filter::all(), Start::Now, Mirror).await?;
    /// let admin = Actor::Admin("ada".to_owned());
    /// for letter in accounts.dead_letters("mirror", None, 100).await? {
    ///     println!("{} at {}: {} after {} attempts", letter.envelope.id, letter.place, letter.reason, letter.attempts);
    ///     accounts.retry_dead_letter("mirror", letter.place, admin.clone()).await?;
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`OperationError::UnknownSubscription`], or while storage is out.
    pub async fn dead_letters(
        &self,
        subscription: &str,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, OperationError> {
        let (outbox, name) = (self.system().outbox().clone(), subscription.to_owned());
        let read = tokio::task::spawn_blocking(move || outbox.dead_letters(&name, after, limit.min(PAGE_LIMIT)));
        read.await.unwrap_or(Err(OperationError::Unexpected))
    }

    /// How many dead letters a subscription has, those included that are to be tried again; one look.
    ///
    /// # Errors
    /// [`OperationError::UnknownSubscription`], or while storage is out.
    pub fn dead_letter_count(&self, subscription: &str) -> Result<u64, OperationError> {
        self.system().outbox().dead_letter_count(subscription)
    }

    /// Has a dead letter tried again, at once or as soon as its subscriber is attached. If that fails, it is a dead
    /// letter once more, with the longer history.
    ///
    /// # Errors
    /// [`OperationError::NoSuchLetter`], [`OperationError::AlreadyDue`], or why it could not be done.
    pub async fn retry_dead_letter(&self, subscription: &str, place: u64, actor: Actor) -> Result<(), OperationError> {
        self.system().outbox().retry_dead_letter(subscription, place, actor).await
    }

    /// Has every dead letter that there is now tried again, and answers how many. Done in several commits.
    ///
    /// # Errors
    /// Why it could not be done, or not to the end; repeat it then.
    pub async fn retry_dead_letters(&self, subscription: &str, actor: Actor) -> Result<u64, OperationError> {
        self.system().outbox().retry_dead_letters(subscription, actor).await
    }

    /// Discards a dead letter: its signal will not be handled, and what waited for it goes on.
    ///
    /// # Errors
    /// [`OperationError::NoSuchLetter`], or why it could not be done.
    pub async fn discard_dead_letter(
        &self,
        subscription: &str,
        place: u64,
        actor: Actor,
    ) -> Result<(), OperationError> {
        self.system().outbox().discard_dead_letter(subscription, place, actor).await
    }

    /// Discards every dead letter that there is now, and answers how many. Done in several commits.
    ///
    /// # Errors
    /// Why it could not be done, or not to the end; repeat it then.
    pub async fn discard_dead_letters(&self, subscription: &str, actor: Actor) -> Result<u64, OperationError> {
        self.system().outbox().discard_dead_letters(subscription, actor).await
    }

    /// Moves a subscription back to hand it signals again, with everything that handling them does, or forth to leave
    /// signals out. It need not be attached. Its dead letters and its projection stay as they are.
    ///
    /// ```
    /// # use majordomo::testing::TestAccounts;
    /// # use majordomo::{Envelope, Filter, Outcome, Subscriber, SubscriberContext};
    /// use majordomo::{Actor, Start};
    /// # struct Mirror;
    /// # impl Subscriber for Mirror {
    /// #     async fn handle(&self, _: &Envelope, _: &SubscriberContext) -> Outcome { Outcome::done() }
    /// # }
    /// # tokio::runtime::Runtime::new()?.block_on(async {
    /// # let accounts = TestAccounts::start().await;
    /// # accounts.subscribe("mirror", Filter::all(), Start::Now, Mirror).await?;
    /// let moved = accounts.move_subscription("mirror", Start::Beginning, Actor::System).await?;
    /// assert_eq!(moved.to, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`OperationError::Rebuilding`] while its projection is rebuilt, or why it could not be done.
    pub async fn move_subscription(
        &self,
        subscription: &str,
        to: Start,
        actor: Actor,
    ) -> Result<Moved, OperationError> {
        self.system().outbox().move_to(subscription, to, actor).await
    }

    /// The subscriptions that are stored and have no subscriber in this process. Each keeps its cursor and its letters
    /// until it is attached again or forgotten, and keeps the log from being pruned until it lapses.
    ///
    /// # Errors
    /// While storage is out.
    pub fn unattached_subscriptions(&self) -> Result<Vec<UnattachedSubscription>, OperationError> {
        self.system().outbox().unattached()
    }

    /// Forgets a subscription that has no subscriber in this process, with its cursor, dead letters and projection.
    /// Where it is cut short it stays listed, and is to be repeated.
    ///
    /// # Errors
    /// [`OperationError::StillAttached`], [`OperationError::UnknownSubscription`], or why it could not be done.
    pub async fn forget_subscription(&self, subscription: &str) -> Result<(), OperationError> {
        self.system().outbox().forget(subscription).await
    }
}
