//! The gap: what was pruned before a subscription came to it, and how its subscriber is told.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use majordomo_model::{Gap, Signal};
use tokio::time::Instant;

use super::conclusion::{Completed, Handled};
use super::follow_up;
use super::worker::Worker;
use crate::subscriber::{Desk, Effect, Outcome, SubscriberContext};

/// A gap that the subscriber is to be told of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Missing {
    pub(super) gap: Gap,
    pub(super) attempts: u32,
    /// Until when it rests; `None` while the subscriber is being told.
    pub(super) rests_until: Option<Instant>,
}

impl Missing {
    pub(super) fn new(gap: Gap) -> Self {
        Self { gap, attempts: 0, rests_until: Some(Instant::now()) }
    }
}

impl Worker {
    /// Tells the subscriber what it will not get.
    pub(super) fn tell_missed(&mut self) {
        let Some(missing) = &mut self.gap else { return };
        if missing.rests_until.is_none_or(|until| until > Instant::now()) {
            return;
        }
        missing.rests_until = None;
        missing.attempts = missing.attempts.saturating_add(1);
        let (gap, attempt) = (missing.gap, missing.attempts);
        self.begin_missed(gap, attempt);
    }

    /// Hands a gap over.
    pub(super) fn begin_missed(&mut self, gap: Gap, attempt: u32) {
        let feed = Arc::clone(&self.feed);
        let context = SubscriberContext::new(Arc::clone(&feed.desk) as Arc<dyn Desk>, attempt, false);
        let id = self.next_id();
        feed.take_in_hand(self.number, id, Vec::new());
        let deadline: Duration = feed.registration.settings.deadline;
        self.running.spawn(async move {
            let work = async { feed.registration.subscriber.missed(gap, &context).await };
            let caught = std::panic::AssertUnwindSafe(work).catch_unwind();
            let outcome = tokio::time::timeout(deadline, caught).await.ok().and_then(Result::ok);
            let (read, recorded) = (context.read(), context.recorded());
            Completed { id, places: Vec::new(), handled: Handled::Missed(outcome), read, recorded }
        });
    }

    pub(super) fn missed(&mut self, outcome: Option<Outcome>) {
        let Some(mut missing) = self.gap else { return };
        let (policy, name) = (&self.feed.registration.settings.retry, &self.feed.registration.name);
        let effects = match outcome {
            Some(Outcome::Done(effects))
                if follow_up::are_private(&effects) && follow_up::refusal(&effects, false).is_none() =>
            {
                Some(effects)
            }
            Some(Outcome::Reject { .. }) => Some(Vec::new()),
            Some(Outcome::Halt { reason }) => {
                // It is told again once it is released.
                self.gap = Some(Missing::new(missing.gap));
                return self.note_halt(&reason);
            }
            // It was told as often as a signal would have been, and the gap is in the log too.
            _ if policy.is_exhausted(missing.attempts, Duration::ZERO) => Some(Vec::new()),
            _ => None,
        };
        let Some(effects) = effects else {
            self.note_failure("the subscriber did not take note of a gap");
            let pause = policy.pause(missing.attempts, getrandom::u32().unwrap_or(u32::MAX));
            missing.rests_until = Some(Instant::now() + pause);
            self.gap = Some(missing);
            return;
        };
        let gap = missing.gap;
        let told = Signal::SubscriberMissed { subscriber: name.clone(), from: gap.from, to: gap.to };
        let told = follow_up::concerning(name, majordomo_model::Actor::System, self.feed.now(), told);
        self.asides.push(told);
        for effect in effects {
            match effect {
                Effect::Project { key, value } => self.project(key, Some(value)),
                Effect::Forget { key } => self.project(key, None),
                _ => {}
            }
        }
        self.ledger.pass_missing(gap.to);
        self.gap = None;
    }
}
