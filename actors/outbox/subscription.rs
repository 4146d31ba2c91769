//! A subscription: the actor that reads the log from its cursor and hands each signal to its subscriber.

use std::sync::Arc;
use std::time::Duration;

use majordomo_model::{Envelope, Start};
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, ActorStatus, SpawnErr};
use tokio::time::Instant;

use super::attempt::{AbortOnDrop, PANICKED, caught, pause_after};
use super::cursor::Cursor;
use super::doorbell::Bell;
use super::follow_up::{self, FollowUps};
use super::{Feed, LastFailure};
use crate::storage::{Batch, Check, CommitError, CursorRow, Unreadable, Verdict, Write};
use crate::subscriber::{Desk, Effect, Outcome, SubscriberContext};

/// Signals read at a time: what one message may keep the actor from its other ones.
const PAGE: usize = 256;
/// How often it looks although nobody rang.
const BELT: Duration = Duration::from_secs(30);
/// How long progress may stay in memory while a page is worked through.
const SETTLE_AFTER: Duration = Duration::from_secs(1);
/// How many batches may be left for later before one is committed at once, which tells whether they arrived.
const UNCONFIRMED_LIMIT: usize = 8;
/// How long a start waits for the cursor; what takes longer is done later.
const OPEN_WITHIN: Duration = Duration::from_secs(5);

/// What a subscription is told.
#[derive(Debug)]
pub(super) enum SubscriptionMessage {
    /// The log may have grown.
    Look,
    /// A while has passed: look, and see whether all that was left for later has arrived.
    Review,
}

/// Starts an incarnation. A subscription that is new gets its cursor before it returns, unless the store is out.
pub(super) async fn start(subscription: Arc<Feed>, supervisor: ActorCell) -> Result<ActorCell, SpawnErr> {
    let (actor, _) = Actor::spawn_linked(None, SubscriptionActor, subscription, supervisor).await?;
    Ok(actor.get_cell())
}

struct SubscriptionActor;

struct State {
    subscription: Arc<Feed>,
    bell: Bell,
    /// `None` until it is read, and again whenever what is in memory no longer follows from what is stored.
    cursor: Option<Cursor>,
    /// A signal that is handled while its effects could not be committed yet.
    held: Option<(Arc<Envelope>, Vec<Effect>)>,
    /// How often the signal behind the cursor was handed over in vain.
    attempts: u32,
    /// How many turns in a row were cut short by the store.
    disturbances: u32,
    /// Until when the signal behind the cursor rests.
    rests_until: Option<Instant>,
    next_look: Option<AbortOnDrop<()>>,
}

/// How a turn ended.
enum Turn {
    /// Everything in the log is handled.
    CaughtUp,
    /// There is more.
    More,
}

/// Why a turn was cut short.
enum Cut {
    /// The subscriber failed on a signal.
    Failed,
    /// The store is out.
    StoreOut,
    /// What is in memory no longer follows from what is stored.
    Lost,
    /// The system is stopped.
    Stopped,
}

impl From<Unreadable> for Cut {
    fn from(Unreadable: Unreadable) -> Self {
        Self::StoreOut
    }
}

#[ractor::actor(message = SubscriptionMessage, state = State, arguments = Arc<Feed>)]
impl SubscriptionActor {
    async fn pre_start(
        &self,
        myself: ActorRef<SubscriptionMessage>,
        subscription: Arc<Feed>,
    ) -> Result<State, ActorProcessingErr> {
        let bell = subscription.doorbell.join(&myself);
        let mut state = State {
            subscription,
            bell,
            cursor: None,
            held: None,
            attempts: 0,
            disturbances: 0,
            rests_until: None,
            next_look: None,
        };
        state.forget();
        if let Ok(Ok(cursor)) = tokio::time::timeout(OPEN_WITHIN, state.open()).await {
            state.cursor = Some(cursor);
        }
        Ok(state)
    }

    async fn post_start(
        &self,
        myself: ActorRef<SubscriptionMessage>,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        state.bell.wake();
        myself.send_after(BELT, || SubscriptionMessage::Review);
        Ok(())
    }

    async fn handle(
        &self,
        myself: ActorRef<SubscriptionMessage>,
        message: SubscriptionMessage,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        let review = match message {
            SubscriptionMessage::Look => {
                state.bell.answer();
                false
            }
            SubscriptionMessage::Review => {
                myself.send_after(BELT, || SubscriptionMessage::Review);
                true
            }
        };
        state.look(&myself, review).await;
        Ok(())
    }
}

impl State {
    /// Takes a turn, and sees to it that the next one comes when it is due.
    async fn look(&mut self, myself: &ActorRef<SubscriptionMessage>, review: bool) {
        if self.rests_until.is_some_and(|until| Instant::now() < until) {
            return;
        }
        self.rests_until = None;
        let turn = self.turn(myself, review).await;
        match turn {
            Ok(_) => self.disturbances = 0,
            Err(Cut::Failed) => {}
            Err(_) => self.disturbances = self.disturbances.saturating_add(1),
        }
        match turn {
            Ok(Turn::CaughtUp) | Err(Cut::Stopped) => {}
            Ok(Turn::More) => {
                self.bell.wake();
            }
            Err(Cut::Failed) => {
                let pause = pause_after(self.attempts, getrandom::u32().unwrap_or(u32::MAX));
                self.rests_until = Some(Instant::now() + pause);
                self.look_after(pause);
            }
            Err(Cut::StoreOut | Cut::Lost) => {
                self.look_after(pause_after(self.disturbances, getrandom::u32().unwrap_or(u32::MAX)));
            }
        }
    }

    fn look_after(&mut self, pause: Duration) {
        let bell = self.bell.clone();
        let timer = tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            bell.wake();
        });
        self.next_look = Some(AbortOnDrop::new(timer));
    }

    async fn turn(&mut self, myself: &ActorRef<SubscriptionMessage>, review: bool) -> Result<Turn, Cut> {
        let mut cursor = match self.cursor.take() {
            Some(cursor) => cursor,
            None => self.open().await?,
        };
        let turn = self.page(&mut cursor, myself, review).await;
        if matches!(turn, Err(Cut::Lost)) {
            self.forget();
        } else {
            self.subscription.reached(cursor.reached());
            self.subscription.settled(cursor.told());
            self.cursor = Some(cursor);
        }
        turn
    }

    /// Lets go of everything that is only in memory.
    fn forget(&mut self) {
        self.cursor = None;
        self.held = None;
        self.attempts = 0;
        self.subscription.desk.unstored().clear();
        self.subscription.figures().attempts_on_current = 0;
    }

    /// Reads the cursor, and makes it for a new subscription.
    ///
    /// The commit is awaited even if there is nothing to write: batches that an earlier incarnation left for later
    /// precede it, so the cursor is what they made of it.
    async fn open(&self) -> Result<Cursor, Cut> {
        let (name, reader) = (&self.subscription.registration.name, &self.subscription.desk.reader);
        loop {
            let (row, check, writes) = match reader.cursor(name)? {
                Some(row) => {
                    let check = Check::Cursor(name.clone(), row.revision);
                    (row, check, Vec::new())
                }
                None => {
                    let floor = match self.subscription.registration.start {
                        Start::Now => reader.head()?,
                        _ => 0,
                    };
                    let row =
                        CursorRow { taken: floor, created_at: self.subscription.desk.now(), ..CursorRow::default() };
                    let made = Write::PutCursor(name.clone(), row.clone());
                    (row, Check::NoCursor(name.clone()), vec![made])
                }
            };
            let flow = majordomo_model::FlowId::new();
            let batch = Batch { flow, outcome: None, checks: vec![check], writes, signals: Vec::new() };
            match self.commit(batch).await {
                Ok(true) => {
                    self.subscription.reached(row.floor());
                    self.subscription.settled(row.floor());
                    return Ok(Cursor::new(name, &row));
                }
                Ok(false) => {}
                Err(CommitError::Stopped) => return Err(Cut::Stopped),
                Err(_) => return Err(Cut::StoreOut),
            }
        }
    }

    /// Works through one page of the log.
    async fn page(
        &mut self,
        cursor: &mut Cursor,
        myself: &ActorRef<SubscriptionMessage>,
        review: bool,
    ) -> Result<Turn, Cut> {
        self.see_what_arrived(cursor, review).await?;
        if let Some((handled, effects)) = self.held.take() {
            self.conclude(cursor, handled, effects).await?;
        }
        let signals = self.subscription.desk.reader.signals_after(cursor.reached(), PAGE)?;
        let full = signals.len() == PAGE;
        let mut settled = Instant::now();
        for envelope in signals {
            // A stop need not wait for the rest of the page.
            if myself.get_status() >= ActorStatus::Draining {
                break;
            }
            let handed_over = self.hand_over(cursor, Arc::new(envelope)).await;
            if let Err(Cut::Failed) = handed_over {
                self.settle(cursor).await?;
            }
            handed_over?;
            if cursor.is_heavy() || settled.elapsed() > SETTLE_AFTER {
                self.settle(cursor).await?;
                settled = Instant::now();
            }
        }
        self.settle(cursor).await?;
        Ok(if full { Turn::More } else { Turn::CaughtUp })
    }

    /// Nobody tells whether a batch that was left for later was committed: the stored cursor does.
    async fn see_what_arrived(&self, cursor: &mut Cursor, review: bool) -> Result<(), Cut> {
        if cursor.unconfirmed() == 0 {
            return Ok(());
        }
        let stored = self.subscription.desk.reader.cursor(&self.subscription.registration.name)?;
        if cursor.saw(stored.ok_or(Cut::Lost)?.revision) {
            if cursor.is_settled() {
                self.subscription.desk.unstored().clear();
            }
        } else if review {
            self.settle_now(cursor).await?;
        }
        Ok(())
    }

    /// Hands one signal to the subscriber, if it passes the filter.
    async fn hand_over(&mut self, cursor: &mut Cursor, envelope: Arc<Envelope>) -> Result<(), Cut> {
        if !self.subscription.registration.filter.passes(&envelope) {
            cursor.pass(envelope.seq.unwrap_or_default());
            return Ok(());
        }
        self.attempts = self.attempts.saturating_add(1);
        self.subscription.figures().attempts_on_current = self.attempts;
        let desk = Arc::clone(&self.subscription.desk);
        let context = SubscriberContext::new(desk, self.attempts, false);
        let (subscriber, signal) = (Arc::clone(&self.subscription.registration.subscriber), Arc::clone(&envelope));
        // In a task of its own: a panic ends that task only, and a handler that blocks its thread stalls nobody else.
        let handling = caught(async move { subscriber.handle(&signal, &context).await });
        match handling.await {
            Some(Outcome::Done(effects)) => match follow_up::refusal(&effects, self.subscription.desk.may_deliver()) {
                None => self.conclude(cursor, envelope, effects).await,
                Some(refusal) => {
                    let subscription = &self.subscription.registration.name;
                    tracing::error!(subscription, signal = %envelope.id, refusal, "effects were refused");
                    Err(self.failed(refusal.to_owned()))
                }
            },
            Some(Outcome::Retry { reason } | Outcome::Reject { reason }) => Err(self.failed(reason)),
            Some(Outcome::Defer { .. }) => Err(self.failed(String::new())),
            None => {
                self.tell_panic(&envelope).await;
                Err(self.failed(PANICKED.to_owned()))
            }
        }
    }

    fn failed(&self, reason: String) -> Cut {
        let subscription = &self.subscription.registration.name;
        tracing::warn!(subscription, attempt = self.attempts, reason, "a signal was not handled");
        let mut figures = self.subscription.figures();
        figures.failures = figures.failures.saturating_add(1);
        figures.last_failure = Some(LastFailure { at: self.subscription.desk.now(), failure: reason });
        Cut::Failed
    }

    /// Tells that the subscriber panicked: once a signal, or its retries would fill the log.
    async fn tell_panic(&self, envelope: &Envelope) {
        let seq = envelope.seq.unwrap_or_default();
        let earlier = self.subscription.figures().panic_told.replace(seq);
        if earlier == Some(seq) {
            return;
        }
        let name = &self.subscription.registration.name;
        let signal = follow_up::restarted(name, envelope, PANICKED, self.subscription.desk.now());
        let flow = signal.flow;
        let batch = Batch { flow, outcome: None, checks: Vec::new(), writes: Vec::new(), signals: vec![signal] };
        if let Err(error) = self.commit(batch).await {
            tracing::error!(subscription = name, ?error, "a panic of the subscriber could not be told");
        }
    }

    /// Makes a handled signal's effects and the progress durable, or leaves them for later where that is safe.
    async fn conclude(
        &mut self,
        cursor: &mut Cursor,
        envelope: Arc<Envelope>,
        effects: Vec<Effect>,
    ) -> Result<(), Cut> {
        let seq = envelope.seq.unwrap_or_default();
        if follow_up::are_private(&effects) {
            for effect in effects {
                if let Effect::Project { key, value } = effect {
                    self.subscription.desk.unstored().insert(key.clone(), value.clone());
                    cursor.project(key, value);
                }
            }
            cursor.pass(seq);
            self.done();
            return Ok(());
        }
        let name = &self.subscription.registration.name;
        let desk = Arc::clone(&self.subscription.desk);
        loop {
            let assembled = follow_up::assemble(name, &envelope, &effects, &desk.reader, desk.now());
            let Ok(follow_ups) = assembled else {
                self.held = Some((envelope, effects));
                return Err(Cut::StoreOut);
            };
            match self.commit(cursor.batch(seq, follow_ups)).await {
                Ok(true) => {
                    cursor.confirm(seq);
                    desk.unstored().clear();
                    self.done();
                    self.subscription.reached(seq);
                    return Ok(());
                }
                // A delivery has ended meanwhile: assembled anew, its end is left out.
                Ok(false) if self.stands_at(cursor.told())? => {}
                Ok(false) => return Err(Cut::Lost),
                Err(CommitError::Stopped) => return Err(Cut::Stopped),
                Err(CommitError::Failed) => return Err(self.failed("the effects cannot be stored".to_owned())),
                Err(_) => {
                    self.held = Some((envelope, effects));
                    return Err(Cut::StoreOut);
                }
            }
        }
    }

    /// Whether the stored cursor is at this floor.
    fn stands_at(&self, floor: u64) -> Result<bool, Cut> {
        // With the store gone again, reading everything anew is the way out as well.
        let stored = self.subscription.desk.reader.cursor(&self.subscription.registration.name);
        stored.map(|row| row.is_some_and(|row| row.revision == floor)).map_err(|_| Cut::Lost)
    }

    fn done(&mut self) {
        self.attempts = 0;
        self.subscription.progress.advance();
        let mut figures = self.subscription.figures();
        figures.attempts_on_current = 0;
        figures.handled = figures.handled.saturating_add(1);
    }

    /// Leaves the span for the next commit; a crash before it only repeats deliveries. That it is handled is told after
    /// that, so that whoever was told and lets storage flush finds it stored.
    async fn settle(&self, cursor: &mut Cursor) -> Result<(), Cut> {
        if cursor.is_settled() {
            return Ok(());
        }
        if cursor.unconfirmed() >= UNCONFIRMED_LIMIT {
            return self.settle_now(cursor).await;
        }
        self.subscription.storage.commit_with_next(cursor.leave());
        self.subscription.reached(cursor.reached());
        Ok(())
    }

    async fn settle_now(&self, cursor: &mut Cursor) -> Result<(), Cut> {
        let reached = cursor.reached();
        match self.commit(cursor.batch(reached, FollowUps::default())).await {
            Ok(true) => {
                cursor.confirm(reached);
                self.subscription.desk.unstored().clear();
                Ok(())
            }
            Ok(false) | Err(CommitError::Failed) => Err(Cut::Lost),
            Err(CommitError::Stopped) => Err(Cut::Stopped),
            Err(_) => Err(Cut::StoreOut),
        }
    }

    /// Answers whether every check held.
    async fn commit(&self, batch: Batch) -> Result<bool, CommitError> {
        Ok(matches!(self.subscription.storage.commit(batch).await?, Verdict::Committed(_)))
    }
}
