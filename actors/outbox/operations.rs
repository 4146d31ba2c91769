//! Operations: what an operator does to subscriptions.
//!
//! Each writes rows and tells it in one commit, then rings; the subscription itself, if it is attached, reads what was
//! written.

use majordomo_model::{Actor, Envelope, FlowId, Lane, Signal, Start};

use super::answer::{DeadLetter, FailedAttempt, Moved, OperationError, RebuildStarted, UnattachedSubscription};
use super::{Outbox, Shared, follow_up};
use crate::storage::{Batch, Check, CursorRow, LetterRow, LetterState, ProjectionRow, Unreadable, Verdict, Write};

/// Letters changed in one commit: few enough to be read inline.
const LETTERS: usize = 100;
/// Values of a projection removed in one commit.
const VALUES: usize = 1_000;

/// What becomes of a dead letter.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LetterChange {
    Retry,
    Discard,
}

/// Dead letters.
impl Outbox {
    /// The dead letters of a subscription behind a place, in the order of places, at most `limit`. Reads inline: from
    /// an async task, ask for a hundred at most or use a blocking thread.
    ///
    /// # Errors
    /// [`OperationError::UnknownSubscription`], or while the store is out.
    pub fn dead_letters(
        &self,
        name: &str,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, OperationError> {
        self.known(name)?;
        let reader = self.shared.storage.reader();
        let letters = self.seen(reader.letters(name, after, limit))?;
        let opened = letters.into_iter().map(|(place, letter)| {
            let envelope = reader.open_letter(&letter, place)?;
            let LetterRow { reason, attempts, failures, dead_at, state, .. } = letter;
            let failures = failures.into_iter().map(|row| FailedAttempt { at: row.at, failure: row.failure }).collect();
            Ok(DeadLetter { place, envelope, reason, attempts, failures, dead_at, state })
        });
        self.seen(opened.collect())
    }

    /// How many dead letters a subscription has, those included that are to be tried again.
    ///
    /// # Errors
    /// [`OperationError::UnknownSubscription`], or while the store is out.
    pub fn dead_letter_count(&self, name: &str) -> Result<u64, OperationError> {
        self.known(name)?;
        self.seen(self.shared.storage.reader().letter_count(name))
    }

    /// Has a dead letter tried again, as soon as its subscriber is attached. Its history stays.
    ///
    /// # Errors
    /// [`OperationError::NoSuchLetter`], [`OperationError::AlreadyDue`], or why it could not be done.
    pub async fn retry_dead_letter(&self, name: &str, place: u64, actor: Actor) -> Result<(), OperationError> {
        self.change_letter(name, place, LetterChange::Retry, &actor).await
    }

    /// Has every dead letter of a subscription tried again that there is now, and answers how many. Done in several
    /// commits.
    ///
    /// # Errors
    /// Why it could not be done, or not to the end; repeat it then.
    pub async fn retry_dead_letters(&self, name: &str, actor: Actor) -> Result<u64, OperationError> {
        self.change_letters(name, LetterChange::Retry, &actor).await
    }

    /// Discards a dead letter, however it stands: its signal is finished and will not be handled. If it is being tried
    /// at this moment, what its handler asks for is not done.
    ///
    /// # Errors
    /// [`OperationError::NoSuchLetter`], or why it could not be done.
    pub async fn discard_dead_letter(&self, name: &str, place: u64, actor: Actor) -> Result<(), OperationError> {
        self.change_letter(name, place, LetterChange::Discard, &actor).await
    }

    /// Discards every dead letter of a subscription that there is now, however it stands, and answers how many. Done in
    /// several commits.
    ///
    /// # Errors
    /// Why it could not be done, or not to the end; repeat it then.
    pub async fn discard_dead_letters(&self, name: &str, actor: Actor) -> Result<u64, OperationError> {
        self.change_letters(name, LetterChange::Discard, &actor).await
    }

    async fn change_letter(
        &self,
        name: &str,
        place: u64,
        change: LetterChange,
        actor: &Actor,
    ) -> Result<(), OperationError> {
        self.known(name)?;
        let reader = self.shared.storage.reader();
        loop {
            let letter = self.seen(reader.letter(name, place))?.ok_or(OperationError::NoSuchLetter)?;
            if change == LetterChange::Retry && letter.state != LetterState::Dead {
                return Err(OperationError::AlreadyDue);
            }
            if self.commit(self.letters_changed(name, vec![(place, letter)], change, actor)?).await? {
                return Ok(());
            }
        }
    }

    /// Passes through the letters once: those that die again meanwhile are not met again, nor are new ones.
    async fn change_letters(&self, name: &str, change: LetterChange, actor: &Actor) -> Result<u64, OperationError> {
        self.known(name)?;
        let reader = self.shared.storage.reader();
        let last = self.seen(reader.head())?;
        let (mut changed, mut after) = (0_u64, None);
        loop {
            let mut letters = self.seen(match change {
                LetterChange::Retry => reader.given_up(name, after, LETTERS),
                LetterChange::Discard => reader.letters(name, after, LETTERS),
            })?;
            letters.retain(|(place, _)| *place <= last);
            let Some((through, _)) = letters.last() else { return Ok(changed) };
            let (through, count) = (*through, letters.len() as u64);
            if self.commit(self.letters_changed(name, letters, change, actor)?).await? {
                changed = changed.saturating_add(count);
                after = Some(through);
            }
        }
    }

    /// The batch that changes letters, if each of them still stands as it was read.
    fn letters_changed(
        &self,
        name: &str,
        letters: Vec<(u64, LetterRow)>,
        change: LetterChange,
        actor: &Actor,
    ) -> Result<Batch, OperationError> {
        let reader = self.shared.storage.reader();
        let flow = FlowId::new();
        let mut batch = Batch { flow, outcome: None, checks: Vec::new(), writes: Vec::new(), signals: Vec::new() };
        for (place, mut letter) in letters {
            let given_up = self.seen(reader.open_letter(&letter, place))?;
            let (subscriber, signal) = (name.to_owned(), given_up.id);
            batch.checks.push(Check::Letter(name.to_owned(), place, Some(letter.state)));
            let (write, told) = match change {
                LetterChange::Retry => {
                    letter.state = LetterState::Due;
                    let write = Write::PutLetter(name.to_owned(), place, Box::new(letter));
                    (write, Signal::DeadLetterRetried { subscriber, signal, place })
                }
                LetterChange::Discard => {
                    let write = Write::RemoveLetter(name.to_owned(), place);
                    (write, Signal::DeadLetterDiscarded { subscriber, signal, place })
                }
            };
            batch.writes.push(write);
            batch.signals.push(self.told(flow, Some(given_up.flow), name, told, actor));
        }
        Ok(batch)
    }
}

/// Replay.
impl Outbox {
    /// Moves a subscription, back or forth: the next signal that it is handed is the first at or behind `to` that
    /// passes its filter. A place that the log has not reached yet is taken for the next one. Signals that it has
    /// finished and that lie ahead of it now are handled again with everything that handling does; those that were in
    /// hand or waited for a retry are let go. Its dead letters stay, and so does its projection; a subscription that
    /// had lapsed is judged anew.
    ///
    /// # Errors
    /// [`OperationError::Rebuilding`] while its projection is rebuilt, or why it could not be done.
    pub async fn move_to(&self, name: &str, to: Start, actor: Actor) -> Result<Moved, OperationError> {
        loop {
            let row = self.started(name)?;
            if row.projection.is_rebuilding() {
                return Err(OperationError::Rebuilding);
            }
            let next = self.seen(self.shared.storage.reader().head())?.saturating_add(1);
            let to = self.place(to).await?.clamp(1, next);
            let moved = Moved { from: row.floor().saturating_add(1), to };
            // Whether places before `to` are gone the subscription finds out by reading.
            let row = CursorRow { lapsed_at: None, ..begun_anew(row, to) };
            let told = Signal::SubscriptionMoved { subscriber: name.to_owned(), from: moved.from, to };
            if self.put_cursor(name, row, told, &actor).await? {
                return Ok(moved);
            }
        }
    }

    /// Has a subscription's projection built anew from the oldest signal that is kept. What was finished before is
    /// handed to the subscriber again, and of what it answers only what it projects counts; then it goes on where it
    /// was. Until then the app reads the projection as it was. A rebuild that is asked for during another begins anew.
    ///
    /// It is as complete as the log: where signals are pruned, what came of them is missing afterwards.
    ///
    /// # Errors
    /// [`OperationError::ProjectionKept`], or why it could not be done.
    pub async fn rebuild(&self, name: &str, actor: Actor) -> Result<RebuildStarted, OperationError> {
        loop {
            let row = self.started(name)?;
            if row.keeps_projection {
                return Err(OperationError::ProjectionKept);
            }
            let oldest = self.place(Start::Beginning).await?;
            let (row, started) = rebuilding(row, oldest);
            let RebuildStarted { from, to, .. } = started;
            let told = Signal::ProjectionRebuildStarted { subscriber: name.to_owned(), from, to };
            if self.put_cursor(name, row, told, &actor).await? {
                return Ok(started);
            }
        }
    }

    async fn put_cursor(
        &self,
        name: &str,
        row: CursorRow,
        told: Signal,
        actor: &Actor,
    ) -> Result<bool, OperationError> {
        let flow = FlowId::new();
        let read = Check::Cursor(name.to_owned(), row.revision);
        let row = CursorRow { revision: row.foreign_revision(), ..row };
        let writes = vec![Write::PutCursor(name.to_owned(), row)];
        let signals = vec![self.told(flow, None, name, told, actor)];
        self.commit(Batch { flow, outcome: None, checks: vec![read], writes, signals }).await
    }

    async fn place(&self, start: Start) -> Result<u64, OperationError> {
        let reader = self.shared.storage.reader();
        // By time it looks at a thousand signals, which is long for a thread that serves others.
        let looked = tokio::task::spawn_blocking(move || reader.place(start)).await;
        self.seen(looked.unwrap_or(Err(Unreadable)))
    }
}

/// Subscriptions whose subscriber is not there.
impl Outbox {
    /// The subscriptions that the store knows and that are not attached, by name.
    ///
    /// # Errors
    /// While the store is out.
    pub fn unattached(&self) -> Result<Vec<UnattachedSubscription>, OperationError> {
        let reader = self.shared.storage.reader();
        let (cursors, head) = (self.seen(reader.cursors())?, self.seen(reader.head())?);
        let unattached = cursors.into_iter().filter(|(name, _)| !self.is_attached(name)).map(|(name, row)| {
            let (floor, dead_letters) = (row.floor(), reader.letter_count(&name)?);
            let lag = head.saturating_sub(floor);
            Ok(UnattachedSubscription { name, floor, lag, dead_letters, lapsed_at: row.lapsed_at })
        });
        self.seen(unattached.collect())
    }

    /// Forgets a subscription that is not attached: its letters, its projection, its cursor. Done in several commits,
    /// the cursor last: where it is cut short, the subscription stays listed with what is left, and it is to be
    /// repeated. Until it is done nobody can be registered under the name.
    ///
    /// # Errors
    /// [`OperationError::StillAttached`], [`OperationError::ProjectionKept`], [`OperationError::UnknownSubscription`] once
    /// it is forgotten, or why it could not be done.
    pub async fn forget(&self, name: &str) -> Result<(), OperationError> {
        let _leaving = Leaving::begin(&self.shared, name)?;
        let reader = self.shared.storage.reader();
        loop {
            let row = self.seen(reader.cursor(name))?.ok_or(OperationError::UnknownSubscription)?;
            if row.keeps_projection {
                return Err(OperationError::ProjectionKept);
            }
            let letters = self.seen(reader.letters(name, None, LETTERS))?;
            let generation = self.seen(reader.oldest_generation(name))?;
            let mut last = false;
            let writes = if !letters.is_empty() {
                letters.into_iter().map(|(place, _)| Write::RemoveLetter(name.to_owned(), place)).collect()
            } else if let Some(generation) = generation {
                vec![Write::DropProjection(name.to_owned(), generation, VALUES)]
            } else {
                last = true;
                vec![Write::RemoveCursor(name.to_owned())]
            };
            let checks = vec![Check::Cursor(name.to_owned(), row.revision)];
            let batch = Batch { flow: FlowId::new(), outcome: None, checks, writes, signals: Vec::new() };
            if self.commit(batch).await? && last {
                return Ok(());
            }
        }
    }
}

impl Outbox {
    /// Refuses a name that nobody goes by.
    fn known(&self, name: &str) -> Result<(), OperationError> {
        match self.started(name) {
            Ok(_) | Err(OperationError::NotStarted) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// How far a subscription has come.
    fn started(&self, name: &str) -> Result<CursorRow, OperationError> {
        match self.seen(self.shared.storage.reader().cursor(name))? {
            Some(row) => Ok(row),
            None if self.is_attached(name) => Err(OperationError::NotStarted),
            None => Err(OperationError::UnknownSubscription),
        }
    }

    pub(super) fn seen<T>(&self, read: Result<T, Unreadable>) -> Result<T, OperationError> {
        read.map_err(|Unreadable| match self.shared.storage.is_released() {
            true => OperationError::Stopped,
            false => OperationError::StorageUnavailable,
        })
    }

    /// Answers whether everything that the batch relied upon still held.
    pub(super) async fn commit(&self, batch: Batch) -> Result<bool, OperationError> {
        let committed = matches!(self.shared.storage.commit(batch).await?, Verdict::Committed(_));
        for subscription in self.subscriptions() {
            subscription.ask_look();
        }
        self.shared.doorbell.ring();
        Ok(committed)
    }

    /// What tells of an operation on a subscription, which itself is not handed it.
    fn told(&self, flow: FlowId, cause: Option<FlowId>, name: &str, signal: Signal, actor: &Actor) -> Envelope {
        let told = follow_up::concerning(name, actor.clone(), self.shared.clock.now(), signal);
        Envelope { flow, cause, lane: Lane::Flow(flow), ..told }
    }
}

/// A subscription's row once it is to begin at this place: nothing that was in hand is trusted.
fn begun_anew(row: CursorRow, place: u64) -> CursorRow {
    CursorRow { taken: place.saturating_sub(1), open: Vec::new(), set_aside: Vec::new(), leased: 0, ..row }
}

/// A subscription's row once its projection is being rebuilt from the oldest place that is kept.
///
/// The rebuild ends with the last signal that was looked at before, not with the log, and what was not finished is set
/// aside: neither has had its other effects yet, and during a rebuild it would not get them.
fn rebuilding(row: CursorRow, oldest: u64) -> (CursorRow, RebuildStarted) {
    let floor = row.floor();
    let (finished, set_aside) = match row.projection.is_rebuilding() {
        true => (row.projection.rebuild_to, row.set_aside.clone()),
        false => (row.taken, row.open.clone()),
    };
    // Never ahead of where it was: that would pass over what was pruned before it came to it, and tell nobody.
    let from = oldest.min(floor.saturating_add(1));
    let projection = ProjectionRow {
        written: row.projection.written.max(row.projection.served).saturating_add(1),
        rebuild_from: from,
        rebuild_to: finished,
        ..row.projection
    };
    let started = RebuildStarted { from, to: finished, complete: oldest <= 1 };
    (CursorRow { projection, set_aside, ..begun_anew(row, from) }, started)
}

/// A name that is being forgotten: nobody is registered under it meanwhile.
struct Leaving<'a> {
    shared: &'a Shared,
    name: &'a str,
}

impl<'a> Leaving<'a> {
    fn begin(shared: &'a Shared, name: &'a str) -> Result<Self, OperationError> {
        let subscriptions = shared.subscriptions.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        if subscriptions.iter().any(|feed| feed.registration.name == name) {
            return Err(OperationError::StillAttached);
        }
        shared.leaving().push(name.to_owned());
        Ok(Self { shared, name })
    }
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        let mut leaving = self.shared.leaving();
        if let Some(place) = leaving.iter().position(|name| name == self.name) {
            leaving.swap_remove(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use majordomo_model::{Context, Filter, Sender, SignalId, SignalKind, SystemId, Timestamp, UserId};
    use ractor::{ActorProcessingErr, ActorRef};

    use super::super::{Doorbell, Subscription};
    use super::*;
    use crate::clock::Clock;
    use crate::keys::Keyring;
    use crate::stamp::Stamp;
    use crate::storage::{Committed, FailureRow, Location, MemoryDisk, OpenRow, OpenState, Storage, StorageSettings};
    use crate::subscriber::{Outcome, Subscriber, SubscriberContext};
    use crate::token::Tokens;

    const NOW: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

    struct Nobody;

    #[ractor::actor(message = (), state = (), arguments = ())]
    impl Nobody {
        async fn pre_start(&self, _myself: ActorRef<()>, _arguments: ()) -> Result<(), ActorProcessingErr> {
            Ok(())
        }
    }

    impl Subscriber for Nobody {
        async fn handle(&self, _envelope: &Envelope, _context: &SubscriberContext) -> Outcome {
            Outcome::done()
        }
    }

    /// A store and an outbox whose subscriptions are on the roster and never started: only the rows are looked at.
    struct Desk {
        storage: Storage,
        outbox: Outbox,
    }

    impl Desk {
        async fn new() -> Self {
            let (clock, keys) = (Clock::manual(NOW), Keyring::ephemeral().unwrap());
            let location = Location::Memory(MemoryDisk::new());
            let hook = Arc::new(|_: &Committed<'_>| {});
            let storage = Storage::open(location, StorageSettings::default(), &keys, clock.clone(), hook).unwrap();
            let (supervisor, _) = ractor::Actor::spawn(None, Nobody, ()).await.unwrap();
            storage.start(supervisor.get_cell()).await.unwrap();
            let doorbell = Doorbell::new(SystemId::new());
            let outbox = Outbox::new(storage.clone(), Tokens::new(keys), clock, doorbell, Duration::from_secs(600));
            Self { storage, outbox }
        }

        /// A store with ten signals, a second apart, and a subscription `mail` that has finished seven of them.
        async fn with_mail() -> Self {
            let desk = Self::new().await;
            desk.commit(vec![], (0..10).map(update).collect()).await;
            desk.write(vec![Write::PutCursor("mail".to_owned(), mail())]).await;
            desk
        }

        async fn commit(&self, writes: Vec<Write>, signals: Vec<Envelope>) {
            let batch = Batch { flow: FlowId::new(), outcome: None, checks: Vec::new(), writes, signals };
            assert!(matches!(self.storage.commit(batch).await, Ok(Verdict::Committed(_))));
        }

        async fn write(&self, writes: Vec<Write>) {
            self.commit(writes, Vec::new()).await;
        }

        async fn give_up(&self, name: &str, places: impl IntoIterator<Item = u64>) {
            let letters =
                places.into_iter().map(|place| Write::PutLetter(name.to_owned(), place, Box::new(letter(place))));
            self.write(letters.collect()).await;
        }

        fn cursor(&self) -> CursorRow {
            self.storage.reader().cursor("mail").unwrap().unwrap()
        }

        fn state(&self, place: u64) -> Option<LetterState> {
            self.storage.reader().letter("mail", place).unwrap().map(|letter| letter.state)
        }

        /// What was told behind the ten signals.
        fn told(&self) -> Vec<Envelope> {
            self.storage.reader().signals_after(10, 1_000).unwrap()
        }

        fn kinds(&self) -> Vec<SignalKind> {
            self.told().iter().map(|envelope| envelope.signal.kind()).collect()
        }
    }

    fn update(second: i64) -> Envelope {
        let (user, flow) = (UserId::new(), FlowId::new());
        let (lane, at) = (Lane::User(user), Timestamp::from_micros(NOW.as_micros() + second * 1_000_000));
        let stamp = Stamp { flow, cause: None, lane, actor: Actor::System, context: Context::new() };
        stamp.envelope(SignalId::new(), at, Signal::UserUpdateStarted { user, fields: vec![] }, None)
    }

    fn mail() -> CursorRow {
        CursorRow {
            revision: 5,
            taken: 9,
            open: vec![OpenRow { seq: 8, state: OpenState::Held, ..OpenRow::default() }],
            leased: 10,
            lapsed_at: Some(NOW),
            created_at: NOW,
            ..CursorRow::default()
        }
    }

    fn letter(place: u64) -> LetterRow {
        LetterRow {
            envelope: crate::storage::encode_signal(&update(i64::try_from(place).unwrap())).unwrap(),
            reason: "refused".to_owned(),
            tries: 0,
            attempts: 3,
            failures: vec![FailureRow { at: NOW, failure: "refused".to_owned() }],
            dead_at: NOW,
            state: LetterState::Dead,
        }
    }

    fn admin() -> Actor {
        Actor::Admin("ada".to_owned())
    }

    fn attached(desk: &Desk, name: &str) {
        let _never_started = desk.outbox.register(Subscription::new(name, Nobody)).unwrap();
    }

    #[tokio::test]
    async fn a_dead_letter_is_listed_with_its_reason_and_history() {
        let desk = Desk::with_mail().await;
        desk.give_up("mail", [3, 8, 5]).await;
        let letters = desk.outbox.dead_letters("mail", None, 10).unwrap();
        assert_eq!(letters.iter().map(|letter| letter.place).collect::<Vec<_>>(), [3, 5, 8]);
        let first = &letters[0];
        assert_eq!((first.reason.as_str(), first.attempts, first.dead_at), ("refused", 3, NOW));
        assert_eq!(first.failures, [FailedAttempt { at: NOW, failure: "refused".to_owned() }]);
        assert_eq!((first.envelope.seq, first.state), (Some(3), LetterState::Dead));
        assert_eq!(desk.outbox.dead_letters("mail", Some(3), 1).unwrap()[0].place, 5);
        assert_eq!(desk.outbox.dead_letter_count("mail"), Ok(3));
    }

    #[tokio::test]
    async fn a_retry_makes_a_letter_due_keeps_its_history_and_is_told_once() {
        let desk = Desk::with_mail().await;
        desk.give_up("mail", [3]).await;
        let before = desk.outbox.dead_letters("mail", None, 1).unwrap().remove(0);
        desk.outbox.retry_dead_letter("mail", 3, admin()).await.unwrap();
        let after = desk.outbox.dead_letters("mail", None, 1).unwrap().remove(0);
        assert_eq!(after, DeadLetter { state: LetterState::Due, ..before.clone() });
        let again = desk.outbox.retry_dead_letter("mail", 3, admin()).await;
        assert_eq!(again, Err(OperationError::AlreadyDue));
        let told = desk.told();
        let [retried] = told.as_slice() else { panic!("{told:?}") };
        let signal = before.envelope.id;
        assert_eq!(retried.signal, Signal::DeadLetterRetried { subscriber: "mail".to_owned(), signal, place: 3 });
        assert_eq!((&retried.actor, &retried.sender), (&admin(), &Sender::SYSTEM));
        assert_eq!(retried.cause, Some(before.envelope.flow));
        let own = Subscription::new("mail", Nobody);
        assert_eq!(retried.path, [Sender::subscriber(own.name())], "a subscription is not handed what is about itself");
        assert_eq!(desk.cursor(), mail(), "the cursor is its worker's");
    }

    #[tokio::test]
    async fn a_discarded_letter_is_gone_however_it_stood() {
        let desk = Desk::with_mail().await;
        desk.give_up("mail", [3]).await;
        for (place, state) in [(4, LetterState::Due), (5, LetterState::InHand)] {
            let row = LetterRow { state, ..letter(place) };
            desk.write(vec![Write::PutLetter("mail".to_owned(), place, Box::new(row))]).await;
        }
        for place in [3, 4, 5] {
            desk.outbox.discard_dead_letter("mail", place, admin()).await.unwrap();
            let again = desk.outbox.discard_dead_letter("mail", place, admin()).await;
            assert_eq!(again, Err(OperationError::NoSuchLetter));
        }
        assert_eq!(desk.outbox.dead_letter_count("mail"), Ok(0));
        assert_eq!(desk.kinds(), [SignalKind::DeadLetterDiscarded; 3]);
    }

    #[tokio::test]
    async fn all_letters_are_changed_in_chunks_each_told_once() {
        let desk = Desk::with_mail().await;
        desk.commit(vec![], (0..250).map(update).collect()).await;
        let many = 2 * LETTERS as u64 + 5;
        desk.give_up("mail", 1..=many).await;
        desk.give_up("audit", [1]).await;
        desk.write(vec![Write::PutLetter(
            "mail".to_owned(),
            2,
            Box::new(LetterRow { state: LetterState::Due, ..letter(2) }),
        )])
        .await;
        assert_eq!(desk.outbox.retry_dead_letters("mail", admin()).await, Ok(many - 1));
        assert_eq!(desk.outbox.retry_dead_letters("mail", admin()).await, Ok(0));
        let told = |kind| desk.kinds().iter().filter(|found| **found == kind).count() as u64;
        assert_eq!(told(SignalKind::DeadLetterRetried), many - 1);
        assert!((1..=many).all(|place| desk.state(place) == Some(LetterState::Due)));
        assert_eq!(desk.outbox.discard_dead_letters("mail", admin()).await, Ok(many));
        assert_eq!(told(SignalKind::DeadLetterDiscarded), many);
        assert_eq!(desk.outbox.dead_letter_count("mail"), Ok(0));
        assert_eq!(desk.storage.reader().letter_count("audit").unwrap(), 1);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn of_many_who_retry_or_discard_a_letter_one_wins() {
        let desk = Desk::with_mail().await;
        desk.give_up("mail", [3, 4]).await;
        let tasks = (0..16).map(|_| {
            let outbox = desk.outbox.clone();
            tokio::spawn(async move {
                let retried = outbox.retry_dead_letter("mail", 3, admin()).await;
                (retried, outbox.discard_dead_letter("mail", 4, admin()).await)
            })
        });
        let (mut retried, mut discarded) = (0, 0);
        for task in tasks.collect::<Vec<_>>() {
            let (retry, discard) = task.await.unwrap();
            retried += usize::from(retry.is_ok());
            discarded += usize::from(discard.is_ok());
            assert!(matches!(retry, Ok(()) | Err(OperationError::AlreadyDue)));
            assert!(matches!(discard, Ok(()) | Err(OperationError::NoSuchLetter)));
        }
        assert_eq!((retried, discarded, desk.told().len()), (1, 1, 2));
    }

    #[tokio::test]
    async fn a_move_writes_where_to_go_on_and_trusts_nothing_that_was_in_hand() {
        let second = |second: i64| Timestamp::from_micros(NOW.as_micros() + second * 1_000_000);
        let table = [
            (Start::Now, 11),
            (Start::Beginning, 1),
            (Start::Seq(4), 4),
            (Start::Seq(0), 1),
            (Start::Seq(u64::MAX), 11),
            (Start::Time(second(6)), 7),
            (Start::Time(second(-1)), 1),
            (Start::Time(second(60)), 11),
        ];
        for (start, to) in table {
            let desk = Desk::with_mail().await;
            desk.give_up("mail", [8]).await;
            assert_eq!(desk.outbox.move_to("mail", start, admin()).await, Ok(Moved { from: 8, to }), "{start:?}");
            let expected = CursorRow {
                revision: mail().foreign_revision(),
                taken: to - 1,
                created_at: NOW,
                ..CursorRow::default()
            };
            assert_eq!(desk.cursor(), expected, "{start:?}");
            assert_eq!(desk.state(8), Some(LetterState::Dead), "letters stay");
            let told = desk.told();
            let [moved] = told.as_slice() else { panic!("{told:?}") };
            assert_eq!(moved.signal, Signal::SubscriptionMoved { subscriber: "mail".to_owned(), from: 8, to });
            assert_eq!((&moved.actor, moved.path.as_slice()), (&admin(), &[Sender::subscriber("mail")][..]));
        }
    }

    #[tokio::test]
    async fn the_beginning_is_the_oldest_place_that_is_kept() {
        let desk = Desk::with_mail().await;
        desk.write(vec![Write::PruneLog(4, 100)]).await;
        assert_eq!(desk.outbox.move_to("mail", Start::Beginning, admin()).await.unwrap().to, 5);
        // What is gone is asked for all the same: the subscription finds the gap, and tells its subscriber.
        assert_eq!(desk.outbox.move_to("mail", Start::Seq(2), admin()).await.unwrap().to, 2);
        assert_eq!(desk.cursor().taken, 1);
    }

    #[tokio::test]
    async fn a_rebuild_ends_where_the_subscription_was_and_writes_a_generation_of_its_own() {
        let desk = Desk::with_mail().await;
        let started = desk.outbox.rebuild("mail", admin()).await.unwrap();
        assert_eq!(started, RebuildStarted { from: 1, to: 9, complete: true });
        let row = desk.cursor();
        let projection = ProjectionRow { written: 1, served: 0, kept_from: 0, rebuild_from: 1, rebuild_to: 9 };
        assert_eq!(
            (row.revision, row.taken, row.leased, row.projection),
            (mail().foreign_revision(), 0, 0, projection)
        );
        assert_eq!((row.open.as_slice(), &row.set_aside, row.floor()), (&[][..], &mail().open, 0));
        let moved = desk.outbox.move_to("mail", Start::Now, admin()).await;
        assert_eq!(moved, Err(OperationError::Rebuilding));

        // Another one while it has come to 3 begins anew, and still ends at 9.
        desk.write(vec![Write::PutCursor("mail".to_owned(), CursorRow { taken: 3, ..row })]).await;
        let anew = desk.outbox.rebuild("mail", admin()).await.unwrap();
        assert_eq!(anew, started);
        assert_eq!((desk.cursor().projection.written, desk.cursor().taken), (2, 0));
        let rebuild = Signal::ProjectionRebuildStarted { subscriber: "mail".to_owned(), from: 1, to: 9 };
        assert!(desk.told().iter().all(|told| told.signal == rebuild && told.actor == admin()));
        assert_eq!(desk.told().len(), 2);
    }

    #[test]
    fn a_rebuild_begins_with_what_is_kept_and_never_passes_over_a_gap() {
        let at = |taken| CursorRow { taken, ..CursorRow::default() };
        let (row, started) = rebuilding(at(9), 5);
        assert_eq!((row.taken, started), (4, RebuildStarted { from: 5, to: 9, complete: false }));
        // It lies behind what is pruned: nothing that it has finished is left.
        let (row, started) = rebuilding(at(2), 5);
        assert_eq!((row.taken, started), (2, RebuildStarted { from: 3, to: 2, complete: false }));
        let (row, started) = rebuilding(at(0), 1);
        assert_eq!((row.taken, started), (0, RebuildStarted { from: 1, to: 0, complete: true }));
        assert!(row.projection.is_rebuilding());
    }

    #[tokio::test]
    async fn only_what_is_not_attached_is_listed_and_can_be_forgotten() {
        let desk = Desk::with_mail().await;
        let values = |generation| (0..1_500_u32).map(move |key| (generation, key.to_be_bytes().to_vec()));
        let put = |(generation, key)| Write::PutProjection("old".to_owned(), generation, key, vec![1]);
        let row = CursorRow { taken: 4, created_at: NOW, ..CursorRow::default() };
        desk.write(vec![Write::PutCursor("old".to_owned(), row)]).await;
        desk.write(values(0).chain(values(2)).map(put).collect()).await;
        desk.give_up("old", 1..=LETTERS as u64 + 1).await;
        desk.give_up("mail", [1]).await;
        desk.write(vec![Write::PutProjection("mail".to_owned(), 0, vec![1], vec![1])]).await;
        attached(&desk, "mail");

        let unattached = desk.outbox.unattached().unwrap();
        let dead_letters = LETTERS as u64 + 1;
        let old = UnattachedSubscription { name: "old".to_owned(), floor: 4, lag: 6, dead_letters, lapsed_at: None };
        assert_eq!(unattached, [old]);
        assert_eq!(desk.outbox.forget("mail").await, Err(OperationError::StillAttached));
        desk.outbox.forget("old").await.unwrap();
        let reader = desk.storage.reader();
        assert_eq!(reader.cursor("old").unwrap(), None);
        assert_eq!((reader.letter_count("old").unwrap(), reader.oldest_generation("old").unwrap()), (0, None));
        assert_eq!((reader.letter_count("mail").unwrap(), reader.oldest_generation("mail").unwrap()), (1, Some(0)));
        assert_eq!(desk.outbox.forget("old").await, Err(OperationError::UnknownSubscription));
        assert_eq!(desk.outbox.unattached().unwrap(), []);
        attached(&desk, "old");
    }

    #[tokio::test]
    async fn a_name_that_is_being_forgotten_is_taken() {
        let desk = Desk::with_mail().await;
        {
            let mut forgetting = Box::pin(desk.outbox.forget("mail"));
            assert!(futures_now(&mut forgetting).is_none());
            let refused = desk.outbox.register(Subscription::new("mail", Nobody).filter(Filter::all()));
            assert!(refused.is_err());
        }
        // Cut short, it stays listed, and its name is free again.
        assert_eq!(desk.outbox.unattached().unwrap().len(), 1);
        attached(&desk, "mail");
    }

    /// What a future answers if it is polled once.
    fn futures_now<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        let mut task = std::task::Context::from_waker(std::task::Waker::noop());
        match std::pin::Pin::new(future).poll(&mut task) {
            std::task::Poll::Ready(answer) => Some(answer),
            std::task::Poll::Pending => None,
        }
    }

    #[tokio::test]
    async fn a_name_that_nobody_goes_by_is_unknown_and_one_without_a_cursor_not_started() {
        let desk = Desk::with_mail().await;
        attached(&desk, "new");
        for (name, refused) in
            [("mai", OperationError::UnknownSubscription), ("a\0b", OperationError::UnknownSubscription)]
        {
            assert_eq!(desk.outbox.dead_letters(name, None, 1), Err(refused));
            assert_eq!(desk.outbox.retry_dead_letter(name, 1, admin()).await, Err(refused));
            assert_eq!(desk.outbox.discard_dead_letters(name, admin()).await, Err(refused));
            assert_eq!(desk.outbox.move_to(name, Start::Now, admin()).await, Err(refused));
            assert_eq!(desk.outbox.rebuild(name, admin()).await, Err(refused));
            assert_eq!(desk.outbox.forget(name).await, Err(refused));
        }
        assert_eq!(desk.outbox.dead_letter_count("new"), Ok(0));
        assert_eq!(desk.outbox.move_to("new", Start::Now, admin()).await, Err(OperationError::NotStarted));
        assert_eq!(desk.told(), []);
    }

    #[tokio::test]
    async fn a_stopped_system_says_so() {
        let desk = Desk::with_mail().await;
        desk.storage.close();
        assert_eq!(desk.outbox.move_to("mail", Start::Now, admin()).await, Err(OperationError::Stopped));
        desk.storage.release();
        assert_eq!(desk.outbox.dead_letter_count("mail"), Err(OperationError::Stopped));
    }
}
