//! Letters: signals that were given up, taken in again when somebody asks for it.

use std::sync::Arc;

use majordomo_model::{Envelope, Signal};

use super::follow_up::{self, FollowUps};
use super::ledger::{Entry, push_failure};
use super::worker::{Cut, Worker};
use crate::storage::{Check, LetterRow, LetterState, Write, encode_signal};

/// How many dead letters are tried again at a time.
const DUE_LETTERS: usize = 16;

impl Worker {
    /// The dead letter of a signal that is given up, and the signal that tells of it.
    pub(super) fn letter(
        &self,
        seq: u64,
        entry: &Entry,
        signal: &Arc<Envelope>,
        reason: &str,
    ) -> Result<FollowUps, Cut> {
        let name = &self.feed.registration.name;
        let now = self.feed.now();
        let (mut failures, earlier) = match &entry.letter {
            Some(letter) => (letter.failures.clone(), letter.attempts),
            None => (Vec::new(), 0),
        };
        for failure in &entry.failures {
            push_failure(&mut failures, failure.at, &failure.failure);
        }
        let envelope = match &entry.letter {
            Some(letter) => letter.envelope.clone(),
            None => encode_signal(signal).map_err(|_| Cut::Lost)?,
        };
        // Of a letter that is tried again the attempts so far are in it, the last one included.
        let attempts = if entry.letter.is_some() { earlier } else { entry.attempts };
        let (reason, state) = (reason.to_owned(), LetterState::Dead);
        let told = Signal::SubscriberDeadLetter {
            subscriber: name.clone(),
            signal: signal.id,
            place: seq,
            attempts,
            failure: reason.clone(),
        };
        let row = LetterRow { envelope, reason, attempts, tries: 0, failures, dead_at: now, state };
        Ok(FollowUps {
            checks: Vec::new(),
            writes: vec![Write::PutLetter(name.clone(), seq, Box::new(row))],
            signals: vec![follow_up::about(name, signal, now, told)],
        })
    }

    /// Takes dead letters in that somebody asked to be tried again, and lets go of what an operator discarded.
    pub(super) async fn tend_letters(&mut self) -> Result<(), Cut> {
        let feed = Arc::clone(&self.feed);
        let (name, reader) = (&feed.registration.name, &feed.desk.reader);
        for seq in self.ledger.held() {
            match reader.letter(name, seq)? {
                None => drop(self.ledger.finish(seq)),
                // It has its place already: there is room for it, however many others wait behind it.
                Some(letter) if letter.state != LetterState::Dead => {
                    let signal = reader.open_letter(&letter, seq)?;
                    self.ledger.retry_letter(seq, Arc::new(signal), letter);
                }
                Some(_) => {}
            }
        }
        for (seq, letter) in reader.due_letters(name, DUE_LETTERS)? {
            // What was given up before a rebuild has to have all its effects, and waits for the end.
            let waits = self.is_rebuilding(seq) && self.ledger.get(seq).is_none();
            if waits || !self.ledger.admits_letter(seq) {
                continue;
            }
            let signal = reader.open_letter(&letter, seq)?;
            self.ledger.retry_letter(seq, Arc::new(signal), letter);
        }
        Ok(())
    }

    /// Notes in a letter that it is being tried again: if the process ends meanwhile, it was this one. `false` if it was
    /// discarded.
    pub(super) async fn take_up_letter(&mut self, seq: u64, letter: LetterRow) -> Result<bool, Cut> {
        let name = self.feed.registration.name.clone();
        let before = letter.state;
        let tries = self.ledger.get(seq).map_or(letter.tries, |entry| entry.attempts);
        let mut letter = LetterRow { state: LetterState::InHand, ..letter };
        letter.attempts = letter.attempts.saturating_add(1);
        letter.tries = tries;
        let follow_ups = FollowUps {
            checks: vec![Check::Letter(name.clone(), seq, Some(before))],
            writes: vec![Write::PutLetter(name, seq, Box::new(letter.clone()))],
            signals: Vec::new(),
        };
        let row = self.row();
        if self.commit_row(row, follow_ups).await? {
            self.ledger.set_letter(seq, letter);
            return Ok(true);
        }
        if !self.is_at_cursor()? {
            return Err(Cut::Lost);
        }
        self.ledger.finish(seq);
        Ok(false)
    }

    /// What notes, at a stop in order, that no letter is being tried, and how often each has been: what was put off or
    /// cut short is not counted.
    pub(super) fn letters_put_down(&self) -> FollowUps {
        let name = &self.feed.registration.name;
        let mut follow_ups = FollowUps::default();
        for (seq, letter, tries) in self.ledger.letters().filter(|(_, letter, _)| letter.state == LetterState::InHand) {
            let row = LetterRow { state: LetterState::Due, tries, ..letter.clone() };
            follow_ups.checks.push(Check::Letter(name.clone(), seq, Some(letter.state)));
            follow_ups.writes.push(Write::PutLetter(name.clone(), seq, Box::new(row)));
        }
        follow_ups
    }
}
