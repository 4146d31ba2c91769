//! The worker: reads the log from the cursor and hands signals to the subscriber, on the subscriber's own thread.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use futures_util::FutureExt;
use majordomo_model::{Envelope, Gap, UserId};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Feed;
use super::conclusion::{Completed, Conclusion, Handled};
use super::cursor::{Cursor, LEASE, Seen};
use super::follow_up::{self, FollowUps};
use super::ledger::{HandOver, Ledger, Now, WINDOW};
use crate::storage::{Batch, Check, CommitError, CursorRow, Unreadable, Verdict, Write};
use crate::subscriber::{Desk, SubscriberContext};

/// How many places are looked at in one turn at most, so that orders are heard.
const PAGES: usize = 16;
/// How many signals have to find room before more are read.
const REFILL: usize = WINDOW / 4;
/// How much of the log is read at a time, in bytes.
const PAGE_BYTES: usize = 4 << 20;
/// How often it looks although nobody rang.
const BELT: Duration = Duration::from_secs(30);
/// When it looks whether what was left for later has arrived.
const ARRIVAL: Duration = Duration::from_secs(2);
/// How long progress may stay in memory while there is work.
const SETTLE_AFTER: Duration = Duration::from_secs(1);
/// How many batches may be left for later before one is committed at once, which tells whether they arrived.
const UNCONFIRMED_LIMIT: usize = 8;
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
    /// What is to be told with the next commit.
    pub(super) asides: Vec<Envelope>,
    /// Places that were pruned before they were handled, and that the subscriber is not told of yet.
    pub(super) gap: Option<Missing>,
    /// Signals whose effects cannot be stored, with their attempts: known when the cursor is read again.
    pub(super) blamed: HashMap<u64, u32>,
    next_id: u64,
    looks: bool,
    /// The look that this turn is, for whoever waits.
    look: u64,
    pub(super) more: bool,
    settled_at: Instant,
    disturbances: u32,
}

/// A gap that the subscriber is to be told of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Missing {
    pub(super) gap: Gap,
    pub(super) attempts: u32,
    /// Until when it rests; `None` while the subscriber is being told.
    pub(super) rests_until: Option<Instant>,
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

    /// Reads the cursor, or makes it, and takes the lease.
    ///
    /// It is a commit of its own: batches that an earlier incarnation left for later precede it, so the cursor is what
    /// they made of it.
    async fn open(&mut self) -> Result<(), Cut> {
        let feed = Arc::clone(&self.feed);
        let (name, reader) = (&feed.registration.name, &feed.desk.reader);
        let (check, stored) = match reader.cursor(name)? {
            Some(row) => (Check::Cursor(name.clone(), row.revision), row),
            None => {
                let taken = reader.place(feed.registration.start)?.saturating_sub(1);
                let row = CursorRow { taken, created_at: feed.desk.now(), ..CursorRow::default() };
                (Check::NoCursor(name.clone()), row)
            }
        };
        let mut row = stored.clone();
        row.revision = stored.revision.saturating_add(1);
        row.leased = row.taken.saturating_add(LEASE);
        let first = !feed.opened.load(Ordering::SeqCst);
        row.max_lag = feed.registration.settings.max_lag;
        if row.lapsed_at.is_some() && !feed.storage.is_overdue(&row)? {
            row.lapsed_at = None;
        }
        let writes = vec![Write::PutCursor(name.clone(), row.clone())];
        let flow = majordomo_model::FlowId::new();
        let batch = Batch { flow, outcome: None, checks: vec![check], writes, signals: Vec::new() };
        if !self.commit(batch).await? {
            return Err(Cut::Lost);
        }
        // Within a process it is known what was in hand; of a process that ended only what may have been.
        feed.opened.store(true, Ordering::SeqCst);
        let suspects = if first { stored.leased.min(reader.head()?) } else { 0 };
        let mut interrupted = feed.hands().clear();
        interrupted.extend(self.blamed.drain());
        let now = Now::of(&feed);
        self.ledger = Ledger::new(&row, now, suspects, interrupted, &feed.registration.settings);
        feed.desk.projection().restart(row.projection.written);
        self.cursor = Some(Cursor::new(name, row));
        for signal in reader.signals_at(&self.ledger.wanting())? {
            self.ledger.supply(signal.seq.unwrap_or_default(), Arc::new(signal));
        }
        self.looks = false;
        self.note_settled();
        Ok(())
    }

    /// Compares what is stored with what the store was told: nobody tells whether a batch that was left for later
    /// arrived, and an operator may have written the row.
    async fn compare(&mut self) -> Result<(), Cut> {
        let stored = self.feed.desk.reader.cursor(&self.feed.registration.name)?;
        let Some(cursor) = &mut self.cursor else { return Err(Cut::Lost) };
        match cursor.saw(stored.ok_or(Cut::Lost)?.revision) {
            Seen::SomebodyElse => Err(Cut::Lost),
            Seen::Everything => {
                if cursor.is_settled(cursor.told()) {
                    self.feed.desk.projection().stored();
                }
                Ok(())
            }
            Seen::Part if self.settled_at.elapsed() >= ARRIVAL => self.settle_now(FollowUps::default()).await,
            Seen::Part => Ok(()),
        }
    }

    /// Takes in what the log holds, as far as there is room.
    fn fill(&mut self) -> Result<(), Cut> {
        let feed = Arc::clone(&self.feed);
        if self.gap.is_some() {
            return Ok(());
        }
        if let Some(from) = self.ledger.wanting().first().copied() {
            let to = self.ledger.wanting().into_iter().zip(from..).take_while(|(seq, next)| seq == next).count() as u64;
            self.gap = Some(Missing::new(Gap { from, to: from.saturating_add(to).saturating_sub(1) }));
            return Ok(());
        }
        for _ in 0..PAGES {
            if self.ledger.room() < REFILL {
                return Ok(());
            }
            let taken = self.ledger.taken();
            let page = feed.desk.reader.log_page(taken, self.ledger.room(), PAGE_BYTES)?;
            let next = page.signals.first().map_or(page.head.saturating_add(1), |first| first.seq.unwrap_or_default());
            if next > taken.saturating_add(1) {
                // The log has no holes, so what is not there was pruned.
                self.gap = Some(Missing::new(Gap { from: taken.saturating_add(1), to: next.saturating_sub(1) }));
                return Ok(());
            }
            if page.signals.is_empty() {
                return Ok(());
            }
            for signal in page.signals {
                let seq = signal.seq.unwrap_or_default();
                if self.is_after_rebuild(seq) {
                    return Ok(());
                }
                let passes = feed.passes(&signal)? && !self.is_left_out_of_rebuild(seq)?;
                self.ledger.take(seq, passes.then(|| Arc::new(signal)));
            }
        }
        self.more = true;
        Ok(())
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
        self.running.spawn(async move {
            let handling = feed.gauge.begin();
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
            Completed { id, places: next.places, handled, read: context.read() }
        });
    }

    pub(super) fn number(&mut self) -> u64 {
        self.next_id = self.next_id.wrapping_add(1);
        self.next_id
    }

    /// The row as it is to be now.
    pub(super) fn row(&self) -> CursorRow {
        let Some(cursor) = &self.cursor else { return CursorRow::default() };
        let mut row = cursor.next_row();
        self.ledger.enter(Now::of(&self.feed), &mut row);
        row.leased = row.taken.saturating_add(LEASE);
        row
    }

    /// Leaves progress for the next commit; a crash before it only repeats deliveries.
    async fn settle(&mut self) -> Result<(), Cut> {
        if !self.asides.is_empty() {
            return self.settle_now(FollowUps::default()).await;
        }
        let row = self.row();
        let Some(cursor) = &mut self.cursor else { return Err(Cut::Lost) };
        if row.lapsed_at.is_some() && !self.feed.storage.is_overdue(&row)? {
            // It has caught up: the log is kept for it again.
            let row = CursorRow { lapsed_at: None, ..row };
            return if self.commit_row(row, FollowUps::default()).await? { Ok(()) } else { Err(Cut::Lost) };
        }
        if cursor.is_settled(&row) {
            self.note_settled();
            return Ok(());
        }
        let is_time = self.ledger.is_idle() || cursor.is_heavy() || self.settled_at.elapsed() > SETTLE_AFTER;
        if !is_time {
            return Ok(());
        }
        if cursor.unconfirmed() >= UNCONFIRMED_LIMIT {
            return self.settle_now(FollowUps::default()).await;
        }
        let batch = cursor.leave(row);
        self.feed.storage.commit_with_next(batch);
        self.note_settled();
        Ok(())
    }

    /// Makes progress durable, with what is to be told.
    pub(super) async fn settle_now(&mut self, follow_ups: FollowUps) -> Result<(), Cut> {
        let row = self.row();
        if self.commit_row(row, follow_ups).await? { Ok(()) } else { Err(Cut::Lost) }
    }

    /// Commits a row with what belongs to it, and with what is to be told; `false` if a check failed.
    pub(super) async fn commit_row(&mut self, row: CursorRow, mut follow_ups: FollowUps) -> Result<bool, Cut> {
        follow_ups.signals.extend(self.asides.iter().cloned());
        let Some(cursor) = &self.cursor else { return Err(Cut::Lost) };
        if !self.commit(cursor.batch(row.clone(), follow_ups)).await? {
            return Ok(false);
        }
        if let Some(cursor) = &mut self.cursor {
            cursor.confirm(row);
        }
        self.asides.clear();
        self.feed.desk.projection().stored();
        self.note_settled();
        Ok(true)
    }

    /// Notes, for whoever waits, how far the store was told.
    fn note_settled(&mut self) {
        self.settled_at = Instant::now();
        let floor = self.cursor.as_ref().map_or(0, |cursor| cursor.told().floor());
        self.feed.reached(floor);
        let full = self.ledger.room() < REFILL;
        let calm = self.ledger.calm_floor(Now::of(&self.feed));
        self.feed.settled(self.look, calm.unwrap_or(if full { u64::MAX } else { self.ledger.taken() }));
    }

    /// Answers whether every check held.
    pub(super) async fn commit(&self, batch: Batch) -> Result<bool, Cut> {
        match self.feed.storage.commit(batch).await {
            Ok(verdict) => Ok(matches!(verdict, Verdict::Committed(_))),
            Err(CommitError::Stopped) => Err(Cut::Stopped),
            Err(CommitError::Failed) => Err(Cut::Lost),
            Err(_) => Err(Cut::StoreOut),
        }
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

impl Missing {
    pub(super) fn new(gap: Gap) -> Self {
        Self { gap, attempts: 0, rests_until: Some(Instant::now()) }
    }
}

impl Now {
    pub(super) fn of(feed: &Feed) -> Self {
        Self { instant: Instant::now(), clock: feed.desk.now() }
    }
}

impl Feed {
    /// Whether a signal is to be handed over at all.
    fn passes(&self, signal: &Envelope) -> Result<bool, Unreadable> {
        let filter = &self.registration.filter;
        if !filter.passes(signal) || follow_up::descends(signal, &self.registration.name) {
            return Ok(false);
        }
        let groups = |user: UserId| Ok(self.desk.reader.user_row(user)?.map(|row| row.groups).unwrap_or_default());
        filter.passes_groups(signal, groups)
    }
}
