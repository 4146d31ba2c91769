//! The hand-over: gives signals to the subscriber, and sees to it that the store knows before what it has to know.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::FutureExt;
use majordomo_model::Envelope;
use tokio::time::Instant;
use tracing::Instrument;

use super::Feed;
use super::conclusion::{Completed, Handled};
use super::follow_up::FollowUps;
use super::intake::REFILL;
use super::ledger::{HandOver, Now};
use super::worker::{Cut, Worker};
use crate::subscriber::{Desk, SubscriberContext};
use crate::telemetry;

/// How long handlers that answer at once may go on without a look at orders.
const TURN: Duration = Duration::from_millis(10);

impl Worker {
    /// Hands over what may be, and goes on for as long as handlers answer at once.
    pub(super) async fn hand_over(&mut self) -> Result<(), Cut> {
        let begun = Instant::now();
        loop {
            let is_told = self.gap.is_some_and(|missing| missing.rests_until.is_none());
            if self.ledger.is_idle() && !is_told {
                self.feed.desk.projection().rest();
            }
            self.hand_over_now(begun).await?;
            if self.completed.is_empty() {
                break;
            }
            self.conclude().await?;
            if self.feed.is_quarantined() {
                break;
            }
            if begun.elapsed() > TURN {
                self.more = true;
                break;
            }
        }
        // Nobody's end will wake this.
        self.more |= self.behind && self.ledger.room() >= REFILL;
        Ok(())
    }

    /// Hands over what may be until something has to be concluded first, or the turn is over.
    async fn hand_over_now(&mut self, begun: Instant) -> Result<(), Cut> {
        let now = Now::of(&self.feed);
        while self.completed.is_empty() || begun.elapsed() <= TURN {
            let Some(next) = self.ledger.next(now) else { break };
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
            self.begin(next)?;
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
        let last = *last;
        if !next.on_record {
            if last > cursor.leased() {
                self.renewed().await?;
            }
            if self.cursor.as_ref().is_some_and(|cursor| last <= cursor.leased()) {
                return Ok(true);
            }
        }
        self.settle_now(FollowUps::default()).await?;
        Ok(true)
    }

    /// Hands over. What answers at once is completed by then; what waits for something becomes a task.
    fn begin(&mut self, next: HandOver) -> Result<(), Cut> {
        let HandOver { places, .. } = next;
        let (mut signals, mut hands) = (Vec::with_capacity(places.len()), Vec::with_capacity(places.len()));
        let mut attempt = 1;
        for seq in &places {
            let Some(entry) = self.ledger.get(*seq) else { continue };
            signals.extend(entry.signal.clone());
            hands.push((*seq, entry.attempts));
            attempt = attempt.max(entry.attempts);
        }
        let rebuilding = places.last().is_some_and(|seq| self.is_rebuilding(*seq));
        let id = self.next_id();
        if !self.feed.take_in_hand(self.number, id, hands) {
            return Err(Cut::Stopped);
        }
        let mut handling = Box::pin(handle(Arc::clone(&self.feed), signals, attempt, rebuilding));
        match poll_at_once(handling.as_mut()) {
            Some(answer) => self.completed.push(answer.of(id, places)),
            None => drop(self.running.spawn(async move {
                // Here, too, what is dropped at its deadline may panic.
                let answer = AssertUnwindSafe(handling).catch_unwind().await;
                answer.unwrap_or_else(|_| Answer::panicked()).of(id, places)
            })),
        }
        Ok(())
    }
}

/// What came of a hand-over, whichever it was.
pub(super) struct Answer {
    pub(super) handled: Handled,
    pub(super) read: Vec<(Vec<u8>, u64)>,
    pub(super) recorded: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Answer {
    const fn panicked() -> Self {
        Self { handled: Handled::Panicked, read: Vec::new(), recorded: Vec::new() }
    }

    pub(super) fn of(self, id: u64, places: Vec<u64>) -> Completed {
        let Self { handled, read, recorded } = self;
        Completed { id, places, handled, read, recorded }
    }
}

/// Polls once, so that whoever answers at once costs no task. A future that waits is polled again by its task, which
/// is whom it is to wake.
fn poll_at_once(handling: Pin<&mut impl Future<Output = Answer>>) -> Option<Answer> {
    let mut nobody = Context::from_waker(Waker::noop());
    // What a handler leaves behind may panic when it is dropped.
    match catch_unwind(AssertUnwindSafe(|| handling.poll(&mut nobody))) {
        Ok(Poll::Ready(answer)) => Some(answer),
        Ok(Poll::Pending) => None,
        Err(_) => Some(Answer::panicked()),
    }
}

async fn handle(feed: Arc<Feed>, signals: Vec<Arc<Envelope>>, attempt: u32, rebuilding: bool) -> Answer {
    let context = SubscriberContext::new(Arc::clone(&feed.desk) as Arc<dyn Desk>, attempt, rebuilding);
    let registration = &feed.registration;
    let (measured, begun) = (feed.gauge.begin(), telemetry::IS_TOLD.then(Instant::now));
    let work = async {
        if registration.settings.batch > 1 {
            return registration.subscriber.handle_batch(&signals, &context).await;
        }
        match signals.first() {
            Some(signal) => vec![registration.subscriber.handle(signal, &context).await],
            None => Vec::new(),
        }
    };
    let work = AssertUnwindSafe(work).catch_unwind().instrument(span(&registration.name, &signals, attempt));
    let handled = match tokio::time::timeout(registration.settings.deadline, work).await {
        Ok(Ok(outcomes)) => Handled::Outcomes(outcomes),
        Ok(Err(_)) => Handled::Panicked,
        Err(_) => Handled::Overdue,
    };
    drop(measured);
    if let Some(begun) = begun {
        telemetry::handed_over(&registration.name, begun.elapsed());
    }
    Answer { handled, read: context.read(), recorded: context.recorded() }
}

/// The span of a hand-over. The flow that emitted a signal is over, so its id is what leads back to it.
fn span(subscription: &str, signals: &[Arc<Envelope>], attempt: u32) -> tracing::Span {
    let Some(first) = signals.first() else { return tracing::Span::none() };
    let (kind, user) = (first.signal.kind().as_str(), first.signal.user().map(tracing::field::display));
    let (flow, seq, signals) = (first.flow, first.seq, signals.len());
    tracing::debug_span!(parent: None, "handle", subscription, kind, seq, %flow, user, signals, attempt)
}
