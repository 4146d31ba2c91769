//! The worker: reads the log from the cursor and hands signals to the subscriber, on the subscriber's own thread.

use std::collections::HashMap;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use majordomo_model::Envelope;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Feed;
use super::conclusion::{Completed, Conclusion};
use super::cursor::Cursor;
use super::doorbell::Bell;
use super::follow_up::FollowUps;
use super::gap::Missing;
use super::intake::REFILL;
use super::lease::{Pace, Renewal, arrival};
use super::ledger::{Ledger, Now};
use crate::storage::{CursorRow, FailureRow, Unreadable};
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
    /// What is to be answered whenever it looks.
    pub(super) bell: Bell,
    /// To stop in order. Gone without that, the worker ends at once.
    pub(super) stop: watch::Receiver<bool>,
    /// To be told once the cursor is read.
    pub(super) opened: mpsc::Sender<()>,
    /// The worker's number.
    pub(super) worker: u64,
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
    bell: Bell,
    /// Which of the subscription's workers it is.
    pub(super) number: u64,
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
    /// Why the subscriber is to be quarantined, until that is told.
    pub(super) failing: Option<String>,
    /// What is to be told with the next commit.
    pub(super) asides: Vec<Envelope>,
    /// Places that were pruned before they were handled, and that the subscriber is not told of yet.
    pub(super) gap: Option<Missing>,
    /// Signals whose effects cannot be stored, with their attempts: known when the cursor is read again.
    pub(super) blamed: HashMap<u64, u32>,
    pub(super) pace: Pace,
    pub(super) renewal: Option<Renewal>,
    next_id: u64,
    pub(super) looks: bool,
    /// The look that was made last, for whoever waits: what had been asked for by then is taken in.
    pub(super) look: u64,
    /// Whether the next turn follows at once.
    pub(super) more: bool,
    /// The last place of the log when it was read last.
    pub(super) head: u64,
    /// Whether the log went on behind what was read of it last.
    pub(super) behind: bool,
    pub(super) settled_at: Instant,
    disturbances: u32,
}

/// Works until it is told to stop, or nobody is left to tell it.
pub(super) async fn run(feed: Arc<Feed>, orders: Orders) {
    let Orders { look, bell, mut stop, opened, worker } = orders;
    let mut opened = Some(opened);
    let (mut worker, mut renewed) = (Worker::new(feed, bell, worker), Ok(()));
    loop {
        let turn = match renewed {
            Ok(()) => worker.turn().await,
            Err(cut) => Err(cut),
        };
        renewed = Ok(());
        if worker.cursor.is_some()
            && let Some(opened) = opened.take()
        {
            let _ = opened.send(());
        }
        let Some(wake) = worker.after(turn) else { return };
        let mut rung = false;
        tokio::select! {
            biased;
            order = stop.wait_for(|stop| *stop) => match order {
                Ok(_) => break,
                Err(_) => return,
            },
            Some(done) = worker.running.join_next() => worker.completed.extend(done),
            committed = arrival(&mut worker.renewal) => renewed = worker.conclude_renewal(committed),
            () = look.notified() => rung = true,
            () = std::future::ready(()), if worker.more => {}
            () = tokio::time::sleep_until(wake), if !worker.more => worker.looks = true,
        }
        if worker.more {
            // Whoever else is on the thread has a turn in between, however often the bell is rung.
            tokio::task::yield_now().await;
        }
        if rung {
            match linger(worker.linger(), worker.look, &worker.feed, &mut stop).await {
                Some(true) => break,
                Some(false) => return,
                None => worker.looks = true,
            }
        }
        while let Some(done) = worker.running.try_join_next() {
            worker.completed.extend(done);
        }
    }
    worker.finish().await;
}

/// Waits for so long, unless a look was asked for after the last one. If it is to stop meanwhile, answers whether in order.
async fn linger(linger: Duration, look: u64, feed: &Feed, stop: &mut watch::Receiver<bool>) -> Option<bool> {
    if linger.is_zero() {
        return None;
    }
    tokio::select! {
        biased;
        order = stop.wait_for(|stop| *stop) => Some(order.is_ok()),
        () = feed.until_asked_after(look) => None,
        () = tokio::time::sleep(linger) => None,
    }
}

impl Worker {
    fn new(feed: Arc<Feed>, bell: Bell, number: u64) -> Self {
        let (now, terms) = (Now::of(&feed), feed.registration.settings.clone());
        Self {
            feed,
            bell,
            number,
            ledger: Ledger::new(&CursorRow::default(), now, 0, HashMap::new(), &terms),
            cursor: None,
            running: JoinSet::new(),
            completed: Vec::new(),
            unstored: Vec::new(),
            halting: None,
            failing: None,
            asides: Vec::new(),
            gap: None,
            blamed: HashMap::new(),
            pace: Pace::new(),
            renewal: None,
            next_id: 0,
            looks: true,
            look: 0,
            more: false,
            head: 0,
            behind: false,
            settled_at: Instant::now(),
            disturbances: 0,
        }
    }

    /// How long it is to wait for more: not at all while it has something to do.
    fn linger(&self) -> Duration {
        let is_busy = self.more || !self.running.is_empty() || self.renewal.is_some() || !self.ledger.is_idle();
        if is_busy || self.feed.is_awaited() {
            return Duration::ZERO;
        }
        let (now, linger) = (Now::of(&self.feed), self.feed.registration.settings.linger);
        let left = self.rests(now).map(|rest| rest.saturating_duration_since(now.instant));
        left.fold(linger, Duration::min)
    }

    /// When the next turn is due, given how this one went; `None` once the system is stopped.
    fn after(&mut self, turn: Result<(), Cut>) -> Option<Instant> {
        let now = Now::of(&self.feed);
        match turn {
            Ok(()) => {
                self.disturbances = 0;
                self.show();
                telemetry::lag(&self.feed.registration.name, self.head.saturating_sub(self.ledger.floor()));
                Some(self.next_turn(now))
            }
            Err(Cut::Stopped) => None,
            Err(cut) => {
                self.more = false;
                // What this turn was to look at, nobody has.
                self.looks = true;
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
        // What is over and yet not in hand waits for what is, whose end wakes this.
        for rest in self.rests(now).filter(|rest| *rest > now.instant || self.running.is_empty()) {
            wake = wake.min(rest.max(now.instant + Duration::from_millis(1)));
        }
        wake
    }

    /// When what rests is to be handed over again: the first of the signals, and a gap.
    fn rests(&self, now: Now) -> impl Iterator<Item = Instant> {
        let told = self.gap.and_then(|missing| missing.rests_until);
        let rests = [self.ledger.next_rest(now), told];
        rests.into_iter().flatten().filter(|_| !self.feed.is_quarantined())
    }

    /// Shows how the ledger stands.
    pub(super) fn show(&self) {
        self.feed.show(&self.ledger, self.is_stalled());
    }

    fn is_stalled(&self) -> bool {
        self.ledger.room() < REFILL && self.running.is_empty()
    }

    async fn turn(&mut self) -> Result<(), Cut> {
        self.more = false;
        let mut look = self.look;
        if self.looks || self.cursor.is_none() {
            self.bell.answer();
            look = self.feed.asked();
        }
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
            self.look = look;
            self.tell_missed();
            self.hand_over().await?;
        }
        self.look = look;
        self.settle().await?;
        self.tend_projection().await
    }

    /// Lets go of everything that is only in memory. What is in hand is handed over again.
    fn forget(&mut self) {
        self.running = JoinSet::new();
        self.completed.clear();
        self.unstored.clear();
        self.renewal = None;
        self.gap = None;
        self.cursor = None;
        self.feed.hands().clear();
    }

    pub(super) fn next_id(&mut self) -> u64 {
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

impl Now {
    pub(super) fn of(feed: &Feed) -> Self {
        Self { instant: Instant::now(), clock: feed.now() }
    }
}
