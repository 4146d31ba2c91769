//! The conclusion: what becomes of a signal that came back from its handler.

use majordomo_model::{OnFailure, Signal, TokenId};

use super::follow_up::{self, FollowUps};
use super::gap::Missing;
use super::ledger::{Entry, HandOver, Now, REST_LIMIT, Rest, push_failure, shortened};
use super::worker::{Cut, Worker};
use crate::storage::{Check, Write};
use crate::subscriber::{Effect, Outcome};
use crate::telemetry;

/// Told instead of a panic's own words, which may hold anything.
pub(super) const PANICKED: &str = "the handler panicked";
const OVERDUE: &str = "the handler took longer than its deadline";
const NO_OUTCOME: &str = "the handler answered no outcome for it";
const INTERRUPTED: &str = "the handler's thread or process ended while it was handled";
const UNSTORABLE: &str = "the effects cannot be stored";

/// What came back of a hand-over.
pub(super) struct Completed {
    pub(super) id: u64,
    pub(super) places: Vec<u64>,
    pub(super) handled: Handled,
    /// What was read of the projection, and how often each had been written then.
    pub(super) read: Vec<(Vec<u8>, u64)>,
    /// What is to be projected whatever came of it.
    pub(super) recorded: Vec<(Vec<u8>, Vec<u8>)>,
}

/// How a hand-over ended.
pub(super) enum Handled {
    /// An outcome for each signal, in their order.
    Outcomes(Vec<Outcome>),
    /// The subscriber was told of a gap.
    Missed(Option<Outcome>),
    Panicked,
    Overdue,
}

/// A signal that is finished, or given up, and what is to be stored of it.
pub(super) struct Conclusion {
    seq: u64,
    entry: Entry,
    effects: Vec<Effect>,
    /// Why it is given up, and whether that counts against the subscriber.
    given_up: Option<(String, bool)>,
}

impl Worker {
    /// Concludes what came back, and stores what has to be stored at once: as one commit, if the store takes it so.
    pub(super) async fn conclude(&mut self) -> Result<(), Cut> {
        for completed in std::mem::take(&mut self.completed) {
            if !self.feed.put_down(self.number, completed.id) {
                return Err(Cut::Stopped);
            }
            self.take_down(completed);
        }
        if !self.unstored.is_empty() {
            let conclusions = std::mem::take(&mut self.unstored);
            self.store(conclusions).await?;
        }
        self.quarantine().await?;
        self.halt().await
    }

    fn take_down(&mut self, completed: Completed) {
        let Completed { places, handled, read, recorded, .. } = completed;
        if !matches!(handled, Handled::Missed(_)) {
            self.ledger.close_hand_over();
        }
        let lanes = self.feed.registration.settings.concurrency > 1;
        let outdated = !self.feed.desk.projection().is_unchanged(&read);
        match handled {
            // Told again at once, on what is there now.
            Handled::Missed(_) if outdated => self.gap = self.gap.map(|missing| Missing::new(missing.gap)),
            Handled::Missed(outcome) => self.missed(outcome),
            Handled::Panicked => {
                self.feed.figures().restarts += 1;
                if let Some(first) = places.first() {
                    self.tell_restart(*first, PANICKED);
                }
                self.fail_together(&places, PANICKED);
            }
            Handled::Overdue => self.fail_together(&places, OVERDUE),
            Handled::Outcomes(outcomes) => {
                let any = !outcomes.is_empty();
                let outcomes = outcomes.into_iter().map(Some).chain(std::iter::repeat_with(|| None));
                for (seq, outcome) in places.iter().zip(outcomes) {
                    match outcome {
                        // Another lane wrote what this one had read: to be done again, on what is there now.
                        Some(Outcome::Done(_)) if lanes && outdated => self.ledger.take_back(*seq),
                        // Those before it in its batch were handled, this one not.
                        None if any => self.ledger.take_back(*seq),
                        outcome => self.weigh(*seq, outcome),
                    }
                }
            }
        }
        self.record(recorded);
    }

    fn record(&mut self, recorded: Vec<(Vec<u8>, Vec<u8>)>) {
        for (key, value) in recorded {
            let effect = Effect::Project { key: key.clone(), value: value.clone() };
            match follow_up::refusal(&[effect], false) {
                Some(refusal) => self.note_failure(refusal),
                None => self.project(key, Some(value)),
            }
        }
    }

    fn weigh(&mut self, seq: u64, outcome: Option<Outcome>) {
        match outcome {
            Some(Outcome::Done(effects)) => self.weigh_effects(seq, effects),
            Some(Outcome::Retry { reason }) => self.fail(seq, &reason, false),
            Some(Outcome::Defer { until }) => {
                let latest = self.feed.now().plus(REST_LIMIT);
                self.ledger.defer(seq, until.min(latest));
                telemetry::handled(&self.feed.registration.name, "deferred");
            }
            Some(Outcome::Halt { reason }) => {
                self.ledger.take_back(seq);
                self.note_halt(&reason);
            }
            Some(Outcome::Reject { reason }) => {
                self.note_failure(&reason);
                self.give_up(seq, &reason, false);
            }
            None => self.fail(seq, NO_OUTCOME, false),
        }
    }

    fn weigh_effects(&mut self, seq: u64, mut effects: Vec<Effect>) {
        if let Some(refusal) = follow_up::refusal(&effects, self.feed.desk.may_deliver()) {
            let subscription = &self.feed.registration.name;
            tracing::error!(subscription, seq, refusal, "effects were refused");
            return self.fail(seq, refusal, false);
        }
        let is_rebuilding = self.is_rebuilding(seq);
        let Some(entry) = self.ledger.finish(seq) else { return };
        let name = &self.feed.registration.name;
        if entry.letter.is_some() && matches!(self.feed.desk.reader.letter(name, seq), Ok(None)) {
            // Discarded while it was tried again: nothing comes of it.
            return;
        }
        for effect in &mut effects {
            match effect {
                Effect::Project { key, value } => self.project(key.clone(), Some(std::mem::take(value))),
                Effect::Forget { key } => self.project(key.clone(), None),
                _ => {}
            }
        }
        let private = follow_up::are_private(&effects) || is_rebuilding;
        if private && entry.letter.is_none() {
            self.feed.note_handled();
        } else {
            let effects = if private { Vec::new() } else { effects };
            self.unstored.push(Conclusion { seq, entry, effects, given_up: None });
        }
    }

    pub(super) fn project(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) {
        self.feed.desk.projection().write(key.clone(), value.clone());
        if let Some(cursor) = &mut self.cursor {
            cursor.project(key, value);
        }
    }

    fn fail_together(&mut self, places: &[u64], failure: &str) {
        for seq in places {
            self.fail(*seq, failure, places.len() > 1);
        }
    }

    fn fail(&mut self, seq: u64, failure: &str, together: bool) {
        self.note_failure(failure);
        let Some((attempts, first_at)) = self.ledger.get(seq).map(|entry| (entry.attempts, entry.first_at)) else {
            return;
        };
        let (policy, now) = (&self.feed.registration.settings.retry, Now::of(&self.feed));
        let since = first_at.map(|first| now.clock.since(first)).unwrap_or_default();
        // Of several that failed together each has to fail by itself before it is given up.
        if policy.is_exhausted(attempts, since) && !together {
            return self.give_up(seq, failure, true);
        }
        let rest = Rest::Pause(now.instant + policy.pause(attempts, getrandom::u32().unwrap_or(u32::MAX)));
        self.ledger.fail(seq, now.clock, failure, rest, together);
    }

    pub(super) fn note_failure(&self, failure: &str) {
        let subscription = &self.feed.registration.name;
        tracing::warn!(subscription, failure = shortened(failure), "a signal was not handled");
        self.feed.note_failure(shortened(failure));
    }

    /// Gives a signal up, `counts` if that speaks against the subscriber.
    fn give_up(&mut self, seq: u64, reason: &str, counts: bool) {
        let Some(mut entry) = self.ledger.finish(seq) else { return };
        push_failure(&mut entry.failures, self.feed.now(), reason);
        let holds = matches!(self.feed.registration.settings.on_failure, OnFailure::StallLane | OnFailure::StallAll);
        if holds {
            self.ledger.hold(seq, entry.clone());
        }
        let given_up = Some((shortened(reason).to_owned(), counts));
        self.unstored.push(Conclusion { seq, entry, effects: Vec::new(), given_up });
    }

    /// Gives up what is about to be handed over once too often, though nobody came back to say that it failed. Answers
    /// whether it did.
    pub(super) fn give_up_the_guilty(&mut self, next: &HandOver) -> bool {
        let [seq] = next.places.as_slice() else { return false };
        let Some(entry) = self.ledger.get(*seq).filter(|entry| entry.guilty) else { return false };
        let since = entry.first_at.map(|first| self.feed.now().since(first)).unwrap_or_default();
        let attempts = entry.attempts.saturating_sub(1);
        if !self.feed.registration.settings.retry.is_exhausted(attempts, since) {
            return false;
        }
        self.note_failure(INTERRUPTED);
        // This attempt is not made.
        self.ledger.take_back(*seq);
        self.give_up(*seq, INTERRUPTED, true);
        self.ledger.close_hand_over();
        true
    }

    /// Tells that the subscriber panicked: once a signal, or its retries would fill the log.
    fn tell_restart(&mut self, seq: u64, failure: &str) {
        let Some(signal) = self.ledger.tell_restart(seq) else { return };
        let (subscriber, failure) = (self.feed.registration.name.clone(), failure.to_owned());
        let told = Signal::SubscriberRestarted { subscriber, signal: signal.id, failure };
        self.asides.push(follow_up::about(&self.feed.registration.name, &signal, self.feed.now(), told));
    }

    /// Stores conclusions with the progress that they are. They stay if the store is out.
    async fn store(&mut self, conclusions: Vec<Conclusion>) -> Result<(), Cut> {
        loop {
            let assembled = match self.assemble(&conclusions) {
                Ok(assembled) => assembled,
                Err(cut) => {
                    self.unstored = conclusions;
                    return Err(cut);
                }
            };
            let row = self.row();
            match self.commit_row(row, assembled).await {
                Ok(true) => {
                    conclusions.into_iter().for_each(|conclusion| self.stored(&conclusion));
                    return Ok(());
                }
                // A delivery has ended meanwhile, or a letter was discarded: assembled anew, that is left out.
                Ok(false) if self.is_at_cursor()? => {}
                Ok(false) => return Err(Cut::Lost),
                Err(Cut::Lost) => {
                    self.blame(&conclusions);
                    return Err(Cut::Lost);
                }
                Err(cut) => {
                    self.unstored = conclusions;
                    return Err(cut);
                }
            }
        }
    }

    /// What cannot be stored counts as a failed attempt of the signal at fault: with several of them each is done by
    /// itself first.
    fn blame(&mut self, conclusions: &[Conclusion]) {
        self.note_failure(UNSTORABLE);
        let several = u32::from(conclusions.len() > 1);
        let counted = |conclusion: &Conclusion| (conclusion.seq, conclusion.entry.attempts.saturating_sub(several));
        self.blamed = conclusions.iter().map(counted).collect();
    }

    pub(super) fn is_at_cursor(&self) -> Result<bool, Cut> {
        // With the store gone again, reading everything anew is the way out as well.
        let stored = self.feed.desk.reader.cursor(&self.feed.registration.name).map_err(|_| Cut::Lost)?;
        let told = self.cursor.as_ref().map(|cursor| cursor.told().revision);
        Ok(stored.map(|row| row.revision) == told)
    }

    fn assemble(&self, conclusions: &[Conclusion]) -> Result<FollowUps, Cut> {
        let (name, reader) = (&self.feed.registration.name, &self.feed.desk.reader);
        let mut follow_ups = FollowUps::default();
        let mut ended: Vec<TokenId> = Vec::new();
        for Conclusion { seq, entry, effects, given_up } in conclusions {
            let Some(signal) = &entry.signal else { continue };
            if entry.letter.is_some() {
                match (reader.letter(name, *seq)?, given_up) {
                    (Some(letter), _) => {
                        follow_ups.checks.push(Check::Letter(name.clone(), *seq, Some(letter.state)));
                    }
                    // Discarded while it was tried again, which failed.
                    (None, Some(_)) => continue,
                    // Discarded since its effects were weighed, which are not to be: everything is read anew.
                    (None, None) => return Err(Cut::Lost),
                }
            }
            match given_up {
                Some((reason, _)) => follow_ups.join(self.letter(*seq, entry, signal, reason)?),
                None => {
                    if entry.letter.is_some() {
                        follow_ups.writes.push(Write::RemoveLetter(name.clone(), *seq));
                    }
                    let now = self.feed.now();
                    follow_ups.join(follow_up::assemble(name, signal, effects, reader, now, &mut ended)?);
                }
            }
        }
        Ok(follow_ups)
    }

    fn stored(&mut self, conclusion: &Conclusion) {
        match conclusion.given_up {
            None => self.feed.note_handled(),
            Some((_, counts)) => {
                if let Some(failure) = self.feed.note_given_up(counts) {
                    self.failing = Some(failure);
                }
            }
        }
    }
}
