//! The feed: what is common to all incarnations of one subscription, and what they show of themselves.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use majordomo_model::{SignalKind, Timestamp};
use tokio::sync::{Notify, watch};

use super::Shared;
use super::desk::{Projection, SubscriptionDesk};
use super::doorbell::Doorbell;
use super::ledger::Ledger;
use super::registration::Subscription;
use super::state::{LastFailure, RebuildState, SubscriptionState, SubscriptionStatus};
use crate::gauge::Gauge;
use crate::storage::{FailureRow, Storage};
use crate::subscriber::Desk;
use crate::supervision::Progress;
use crate::telemetry;

/// What is common to all incarnations of one subscription.
pub(super) struct Feed {
    pub(super) registration: Subscription,
    pub(super) storage: Storage,
    pub(super) doorbell: Doorbell,
    pub(super) desk: Arc<SubscriptionDesk>,
    pub(super) progress: Progress,
    pub(super) gauge: Gauge,
    /// Whether the filter asks for some kinds only.
    pub(super) is_selective: bool,
    /// Whether an incarnation of this process has read the cursor.
    pub(super) opened: AtomicBool,
    /// Up to where everything is known to be handled.
    pub(super) reached: watch::Sender<u64>,
    /// Up to where nothing will move by itself, and by which look that was found.
    settled: watch::Sender<Settled>,
    looks: AtomicU64,
    /// A look was asked for.
    hurry: Notify,
    /// How many wait for one.
    waiting: AtomicUsize,
    figures: Mutex<Figures>,
    hands: Mutex<Hands>,
}

/// What is in the handler's hands, kept where it outlives the thread that it is on.
#[derive(Default)]
pub(super) struct Hands {
    /// Which worker hands over. One that was left behind on its thread goes on only to find that it is not that one.
    worker: u64,
    /// Each hand-over, the oldest first.
    under_way: Vec<Hand>,
}

/// A hand-over that is under way.
struct Hand {
    id: u64,
    /// When it began; `None` once its thread is left behind.
    begun: Option<Instant>,
    /// Each place, and at which attempt.
    places: Vec<(u64, u32)>,
}

impl Hands {
    /// Empties them, and answers what was in them.
    pub(super) fn clear(&mut self) -> HashMap<u64, u32> {
        self.under_way.drain(..).flat_map(|hand| hand.places).collect()
    }

    fn count(&self) -> usize {
        self.under_way.iter().map(|hand| hand.places.len()).sum()
    }
}

/// Somebody who waits, for as long as they do.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// How a worker was found by whoever waits for it.
#[derive(Clone, Copy, Default)]
struct Settled {
    look: u64,
    seq: u64,
    withdrawn: bool,
}

#[derive(Default)]
pub(super) struct Figures {
    status: SubscriptionStatus,
    quarantined: bool,
    retrying: usize,
    held: usize,
    most_attempts: u32,
    handled: u64,
    given_up: u64,
    given_up_in_row: u32,
    failures: u64,
    /// How often the subscriber was started anew.
    pub(super) restarts: u64,
    last_failure: Option<LastFailure>,
}

impl Feed {
    pub(super) fn new(shared: &Shared, registration: Subscription) -> Self {
        let desk = SubscriptionDesk {
            name: registration.name.clone(),
            capabilities: registration.capabilities.clone(),
            storage: shared.storage.clone(),
            reader: shared.storage.reader(),
            tokens: shared.tokens.clone(),
            clock: shared.clock.clone(),
            code_lifetime: shared.code_lifetime,
            deadline: registration.settings.deadline,
            projection: Mutex::new(Projection::default()),
        };
        let is_selective = SignalKind::ALL.iter().any(|kind| !registration.filter.admits(*kind));
        Self {
            registration,
            is_selective,
            storage: shared.storage.clone(),
            doorbell: shared.doorbell.clone(),
            desk: Arc::new(desk),
            progress: Progress::default(),
            gauge: Gauge::new(),
            opened: AtomicBool::new(false),
            reached: watch::Sender::new(0),
            settled: watch::Sender::default(),
            looks: AtomicU64::new(0),
            hurry: Notify::new(),
            waiting: AtomicUsize::new(0),
            figures: Mutex::default(),
            hands: Mutex::default(),
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.desk.now()
    }

    /// Notes, for whoever waits, that everything up to this place is handled.
    pub(super) fn reached(&self, seq: u64) {
        self.reached.send_if_modified(|reached| std::mem::replace(reached, seq) != seq);
    }

    /// Asks that the worker looks anew once the bell is rung, without lingering; answers which look that is.
    pub(super) fn ask_look(&self) -> u64 {
        let look = self.looks.fetch_add(1, Ordering::SeqCst).saturating_add(1);
        self.hurry.notify_one();
        look
    }

    /// Waits until a later look than this one was asked for.
    pub(super) async fn until_asked_after(&self, look: u64) {
        while self.asked() == look {
            self.hurry.notified().await;
        }
    }

    /// Whether anybody waits for the worker.
    pub(super) fn is_awaited(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    /// The look that was asked for last.
    pub(super) fn asked(&self) -> u64 {
        self.looks.load(Ordering::SeqCst)
    }

    /// Notes, for whoever waits, that this look has found nothing up to this place that will move by itself.
    pub(super) fn settled(&self, look: u64, seq: u64) {
        self.settled.send_if_modified(|settled| {
            let changed = (settled.look, settled.seq) != (look, seq);
            (settled.look, settled.seq) = (look, seq);
            changed
        });
    }

    /// Notes, for whoever waits, that the subscription is off the roster.
    pub(super) fn withdrawn(&self) {
        self.settled.send_modify(|settled| settled.withdrawn = true);
    }

    /// Waits until this look, or a later one, has found nothing up to this place that will move by itself; not if the
    /// subscriber is quarantined, or off the roster.
    pub(super) async fn until_settled(&self, look: u64, seq: u64) {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let _waiting = Waiting(&self.waiting);
        let is_settled = |settled: &Settled| {
            settled.withdrawn || self.is_quarantined() || (settled.look >= look && settled.seq >= seq)
        };
        // It ends only with the feed.
        let _ = self.settled.subscribe().wait_for(is_settled).await;
    }

    pub(super) fn figures(&self) -> MutexGuard<'_, Figures> {
        self.figures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn hands(&self) -> MutexGuard<'_, Hands> {
        self.hands.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a new worker hand over from now on, and answers its number. The thread of whatever is in hand is left behind;
    /// the new worker takes over what that was.
    pub(super) fn next_worker(&self) -> u64 {
        let mut hands = self.hands();
        hands.under_way.iter_mut().for_each(|hand| hand.begun = None);
        hands.worker = hands.worker.saturating_add(1);
        hands.worker
    }

    /// Notes that a hand-over begins, of these places at these attempts; `false` if another worker hands over now.
    pub(super) fn take_in_hand(&self, worker: u64, id: u64, places: Vec<(u64, u32)>) -> bool {
        let mut hands = self.hands();
        if hands.worker != worker {
            return false;
        }
        hands.under_way.push(Hand { id, begun: Some(Instant::now()), places });
        self.gauge.set_queue_depth(hands.count());
        true
    }

    /// Notes that a hand-over is over; `false` if another worker hands over now, which has what was in hand.
    pub(super) fn put_down(&self, worker: u64, id: u64) -> bool {
        let mut hands = self.hands();
        if hands.worker != worker {
            return false;
        }
        hands.under_way.retain(|hand| hand.id != id);
        self.gauge.set_queue_depth(hands.count());
        true
    }

    /// How long the oldest hand-over is under way.
    pub(super) fn longest_hold(&self) -> Duration {
        self.hands().under_way.iter().find_map(|hand| hand.begun).map(|begun| begun.elapsed()).unwrap_or_default()
    }

    pub(super) fn note_handled(&self) {
        self.progress.advance();
        telemetry::handled(&self.registration.name, "done");
        let mut figures = self.figures();
        figures.handled = figures.handled.saturating_add(1);
        figures.given_up_in_row = 0;
    }

    pub(super) fn note_failure(&self, failure: &str) {
        telemetry::handled(&self.registration.name, "failed");
        let last = LastFailure { at: self.now(), failure: failure.to_owned() };
        let mut figures = self.figures();
        figures.failures = figures.failures.saturating_add(1);
        figures.last_failure = Some(last);
    }

    /// Notes a signal that was given up, `counts` if that speaks against the subscriber. Answers why, if it is to be
    /// quarantined for it.
    pub(super) fn note_given_up(&self, counts: bool) -> Option<String> {
        telemetry::handled(&self.registration.name, "given_up");
        let limit = self.registration.settings.quarantine_after;
        let mut figures = self.figures();
        figures.given_up = figures.given_up.saturating_add(1);
        if !counts {
            return None;
        }
        figures.given_up_in_row = figures.given_up_in_row.saturating_add(1);
        if limit == 0 || figures.given_up_in_row < limit || figures.quarantined {
            return None;
        }
        Some(figures.last_failure.as_ref().map(|last| last.failure.clone()).unwrap_or_default())
    }

    /// Takes the subscriber for broken: it is handed nothing more.
    pub(super) fn quarantine(&self) {
        self.figures().quarantined = true;
        self.settled.send_modify(|_| ());
    }

    /// Takes the subscriber for one that asked to be handed nothing more.
    pub(super) fn halt(&self, halted: &FailureRow) {
        self.figures().last_failure = Some(LastFailure { at: halted.at, failure: halted.failure.clone() });
        self.quarantine();
    }

    /// Whether the subscriber is handed nothing more.
    pub(super) fn is_quarantined(&self) -> bool {
        self.figures().quarantined
    }

    /// Lets a quarantined subscriber be handed signals again; whether it was one.
    pub(super) fn release(&self) -> bool {
        let mut figures = self.figures();
        figures.given_up_in_row = 0;
        std::mem::take(&mut figures.quarantined)
    }

    /// Shows how the ledger stands.
    pub(super) fn show(&self, ledger: &Ledger, stalled: bool) {
        let (retrying, held) = ledger.troubled();
        let caught_up = ledger.floor() == ledger.taken();
        let mut figures = self.figures();
        figures.most_attempts = ledger.most_attempts();
        (figures.retrying, figures.held) = (retrying, held);
        figures.status = match (stalled, caught_up) {
            (true, _) => SubscriptionStatus::Stalled,
            (false, true) => SubscriptionStatus::CaughtUp,
            (false, false) => SubscriptionStatus::Working,
        };
    }

    /// How it is, given the place of the log's last signal.
    pub(super) fn observe(&self, head: u64) -> SubscriptionState {
        let floor = *self.reached.borrow();
        let row = self.desk.reader.cursor(&self.registration.name).ok().flatten().unwrap_or_default();
        let projection = row.projection;
        let rebuild = RebuildState { from: projection.rebuild_from, at: row.rebuilt(), to: projection.rebuild_to };
        // Not as the worker shows it after its turns: a handler that asks finds itself, however soon it does.
        let in_hand = self.hands().count();
        let figures = self.figures();
        SubscriptionState {
            name: self.registration.name.clone(),
            status: if figures.quarantined { SubscriptionStatus::Quarantined } else { figures.status },
            floor,
            head: head.max(floor),
            lag: head.saturating_sub(floor),
            in_hand,
            retrying: figures.retrying,
            held: figures.held,
            attempts_on_current: figures.most_attempts,
            handled: figures.handled,
            given_up: figures.given_up,
            failures: figures.failures,
            restarts: figures.restarts,
            last_failure: figures.last_failure.clone(),
            lapsed_at: row.lapsed_at,
            rebuild: projection.is_rebuilding().then_some(rebuild),
            gauge: self.gauge.reading(),
        }
    }
}
