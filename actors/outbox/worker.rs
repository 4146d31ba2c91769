//! The worker: reads the log from the cursor and hands signals to the subscriber, on the subscriber's own thread.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use futures_util::FutureExt;
use majordomo_model::Envelope;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::Instrument;

use super::Feed;
use super::conclusion::{Completed, Conclusion, Handled};
use super::cursor::Cursor;
use super::follow_up::FollowUps;
use super::gap::Missing;
use super::intake::REFILL;
use super::ledger::{HandOver, Ledger, Now};
use crate::storage::{CursorRow, FailureRow, Unreadable};
use crate::subscriber::{Desk, SubscriberContext};
use crate::telemetry;

/// How often it looks although nobody rang.
const BELT: Duration = Duration::from_secs(30);
/// When it looks whether what was left for later has arrived.
pub(super) const ARRIVAL: Duration = Duration::from_secs(2);
/// How long what is in hand may take when the subscription stops.
const STOP_GRACE: Duration = Duration::from_secs(1);
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// What a worker is told.
pub(super) struct Orders {
    /// The log may have grown, or the rows been changed.
    pub(super) look: Arc<Notify>,
    /// To stop in order. Gone without that, the worker ends at once.
    pub(super) stop: watch::Receiver<bool>,
    /// To be told once the cursor is read.
    pub(super) opened: mpsc::Sender<()>,
}

/// Why a turn was cut short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
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

pub(super) struct Worker {
    pub(super) feed: Arc<Feed>,
    pub(super) ledger: Ledger,
    /// `None` until it is read, and again whenever what is in memory no longer follows from what is stored.
    pub(super) cursor: Option<Cursor>,
    pub(super) running: JoinSet<Completed>,
    /// What handlers came to and is not concluded yet.
    pub(super) completed: Vec<Completed>,
    /// What is concluded while it could not be stored yet.
    pub(super) unstored: Vec<Conclusion>,
    /// Why the subscriber is to be handed nothing more, until that is stored.
    pub(super) halting: Option<FailureRow>,
    /// What is to be told with the next commit.
    pub(super) asides: Vec<Envelope>,
    /// Places that were pruned before they were handled, and that the subscriber is not told of yet.
    pub(super) gap: Option<Missing>,
    /// Signals whose effects cannot be stored, with their attempts: known when the cursor is read again.
    pub(super) blamed: HashMap<u64, u32>,
    next_id: u64,
    pub(super) looks: bool,
    /// The look that this turn is, for whoever waits.
    pub(super) look: u64,
    pub(super) more: bool,
    pub(super) settled_at: Instant,
    disturbances: u32,
}

/// Works until it is told to stop, or nobody is left to tell it.
pub(super) async fn run(feed: Arc<Feed>, orders: Orders) {
    let Orders { look, mut stop, opened } = orders;
    let mut opened = Some(opened);
    let mut worker = Worker::new(feed);
    loop {
        let turn = worker.turn().await;
        if worker.cursor.is_some()
            && let Some(opened) = opened.take()
        {
            let _ = opened.send(());
        }
        let Some(wake) = worker.after(turn) else { return };
        tokio::select! {
            biased;
            order = stop.wait_for(|stop| *stop) => match order {
                Ok(_) => break,
                Err(_) => return,
            },
            Some(done) = worker.running.join_next() => worker.completed.extend(done),
            () = look.notified() => worker.looks = true,
            () = tokio::time::sleep_until(wake) => worker.looks = true,
        }
        while let Some(done) = worker.running.try_join_next() {
            worker.completed.extend(done);
        }
    }
    worker.finish().await;
}

impl Worker {
    fn new(feed: Arc<Feed>) -> Self {
        let (now, terms) = (Now::of(&feed), feed.registration.settings.clone());
        Self {
            feed,
            ledger: Ledger::new(&CursorRow::default(), now, 0, HashMap::new(), &terms),
            cursor: None,
            running: JoinSet::new(),
            completed: Vec::new(),
            unstored: Vec::new(),
            halting: None,
            asides: Vec::new(),
            gap: None,
            blamed: HashMap::new(),
            next_id: 0,
            looks: true,
            look: 0,
            more: false,
            settled_at: Instant::now(),
            disturbances: 0,
        }
    }

    /// When the next turn is due, given how this one went; `None` once the system is stopped.
    fn after(&mut self, turn: Result<(), Cut>) -> Option<Instant> {
        let now = Now::of(&self.feed);
        match turn {
            Ok(()) => {
                self.disturbances = 0;
                self.feed.show(&self.ledger, self.is_stalled());
                Some(self.next_turn(now))
            }
            Err(Cut::Stopped) => None,
            Err(cut) => {
                if cut == Cut::Lost {
                    self.forget();
                }
                self.disturbances = self.disturbances.saturating_add(1);
                let pause = PAUSE_MIN.saturating_mul(1 << self.disturbances.min(10)).min(PAUSE_MAX);
                // Somebody else wrote the row: to be read again at once, unless that goes on.
                Some(if self.disturbances == 1 && cut == Cut::Lost { now.instant } else { now.instant + pause })
            }
        }
    }

    fn next_turn(&self, now: Now) -> Instant {
        if self.more {
            return now.instant;
        }
        let belt = if self.cursor.as_ref().is_some_and(|cursor| cursor.unconfirmed() > 0) { ARRIVAL } else { BELT };
        let mut wake = now.instant + belt;
        if !self.feed.is_quarantined() {
            let told = self.gap.and_then(|missing| missing.rests_until);
            for rest in [self.ledger.next_rest(now), told].into_iter().flatten() {
                // What is over and yet not in hand waits for what is, whose end wakes this.
                if rest > now.instant || self.running.is_empty() {
                    wake = wake.min(rest.max(now.instant + Duration::from_millis(1)));
                }
            }
        }
        wake
    }

    fn is_stalled(&self) -> bool {
        self.ledger.room() < REFILL && self.running.is_empty()
    }

    async fn turn(&mut self) -> Result<(), Cut> {
        self.more = false;
        self.look = self.feed.asked();
        if self.cursor.is_none() {
            self.open().await?;
        }
        if std::mem::take(&mut self.looks) {
            self.compare().await?;
        }
        self.conclude().await?;
        if !self.feed.is_quarantined() {
            self.tend_letters().await?;
            self.fill()?;
            self.tell_missed();
            self.hand_over().await?;
        }
        self.settle().await?;
        self.tend_projection().await
    }

    /// Lets go of everything that is only in memory. What is in hand is handed over again.
    fn forget(&mut self) {
        self.running = JoinSet::new();
        self.completed.clear();
        self.unstored.clear();
        self.gap = None;
        self.cursor = None;
        self.feed.hands().clear();
    }

    /// Hands over what may be.
    async fn hand_over(&mut self) -> Result<(), Cut> {
        let is_told = self.gap.is_some_and(|missing| missing.rests_until.is_none());
        if self.ledger.is_idle() && !is_told {
            self.feed.desk.projection().rest();
        }
        while let Some(next) = self.ledger.next(Now::of(&self.feed)) {
            if self.give_up_the_guilty(&next) {
                // Before progress says that it is finished.
                self.conclude().await?;
                continue;
            }
            let recorded = self.put_on_record(&next).await;
            if recorded != Ok(true) {
                next.places.iter().for_each(|seq| self.ledger.take_back(*seq));
                self.ledger.close_hand_over();
                recorded?;
                continue;
            }
            self.begin(next);
        }
        Ok(())
    }

    /// Sees to it that the store knows what it has to before signals are handed over. `false` if a letter is gone.
    async fn put_on_record(&mut self, next: &HandOver) -> Result<bool, Cut> {
        let Some((last, cursor)) = next.places.last().zip(self.cursor.as_ref()) else { return Err(Cut::Lost) };
        let entry = self.ledger.get(*last);
        if let Some(letter) = entry.and_then(|entry| entry.letter.clone()) {
            return self.take_up_letter(*last, *letter).await;
        }
        if next.on_record || *last > cursor.leased() {
            self.settle_now(FollowUps::default()).await?;
        }
        Ok(true)
    }

    fn begin(&mut self, next: HandOver) {
        let feed = Arc::clone(&self.feed);
        let entries: Vec<_> = next.places.iter().filter_map(|seq| self.ledger.get(*seq)).collect();
        let signals: Vec<_> = entries.iter().filter_map(|entry| entry.signal.clone()).collect();
        let attempt = entries.iter().map(|entry| entry.attempts).max().unwrap_or(1);
        let rebuilding = next.places.last().is_some_and(|seq| self.is_rebuilding(*seq));
        let context = SubscriberContext::new(Arc::clone(&feed.desk) as Arc<dyn Desk>, attempt, rebuilding);
        let id = self.number();
        feed.take_in_hand(id, self.ledger.hands());
        let deadline = feed.registration.settings.deadline;
        let span = hand_over_span(&feed.registration.name, &signals, attempt);
        let handled = async move {
            let (handling, begun) = (feed.gauge.begin(), Instant::now());
            let work = async {
                if feed.registration.settings.batch > 1 {
                    return feed.registration.subscriber.handle_batch(&signals, &context).await;
                }
                match signals.first() {
                    Some(signal) => vec![feed.registration.subscriber.handle(signal, &context).await],
                    None => Vec::new(),
                }
            };
            let handled = match tokio::time::timeout(deadline, AssertUnwindSafe(work).catch_unwind()).await {
                Ok(Ok(outcomes)) => Handled::Outcomes(outcomes),
                Ok(Err(_)) => Handled::Panicked,
                Err(_) => Handled::Overdue,
            };
            drop(handling);
            telemetry::handed_over(&feed.registration.name, begun.elapsed());
            Completed { id, places: next.places, handled, read: context.read(), recorded: context.recorded() }
        };
        self.running.spawn(handled.instrument(span));
    }

    pub(super) fn number(&mut self) -> u64 {
        self.next_id = self.next_id.wrapping_add(1);
        self.next_id
    }

    /// Ends in order: what is in hand may end soon, and the store learns that nothing is in hand any more.
    async fn finish(mut self) {
        let until = Instant::now() + STOP_GRACE;
        while let Ok(Some(done)) = tokio::time::timeout_at(until, self.running.join_next()).await {
            self.completed.extend(done);
        }
        self.running.abort_all();
        let concluded = self.conclude().await;
        let hands = self.ledger.hands();
        hands.keys().for_each(|seq| self.ledger.take_back(*seq));
        self.feed.hands().clear();
        if concluded.is_err() || self.cursor.is_none() {
            return;
        }
        // A letter that is discarded at this moment has it done again without them.
        for follow_ups in [self.letters_put_down(), FollowUps::default()] {
            let mut row = self.row();
            row.leased = 0;
            match self.commit_row(row, follow_ups).await {
                Ok(true) => return,
                Ok(false) => {}
                Err(cut) => return tracing::debug!(?cut, "a subscription ended without its last progress"),
            }
        }
    }
}

/// The span of a hand-over. The flow that emitted a signal is over, so its id is what leads back to it.
fn hand_over_span(subscription: &str, signals: &[Arc<Envelope>], attempt: u32) -> tracing::Span {
    let Some(first) = signals.first() else { return tracing::Span::none() };
    let (kind, user) = (first.signal.kind().as_str(), first.signal.user().map(tracing::field::display));
    let (flow, seq, signals) = (first.flow, first.seq, signals.len());
    tracing::debug_span!(parent: None, "handle", subscription, kind, seq, %flow, user, signals, attempt)
}

impl Now {
    pub(super) fn of(feed: &Feed) -> Self {
        Self { instant: Instant::now(), clock: feed.desk.now() }
    }
}
