//! The ledger: which signals of the log are finished, in hand, resting or waiting, and which may be handed over next.
//!
//! Pure: it knows neither the store nor the handler. What it cannot lose is in the row that [`Ledger::enter`] fills.

mod entry;
mod failure;
mod rest;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use majordomo_model::{Envelope, Lane, OnFailure, Timestamp};
use tokio::time::Instant;

pub(super) use self::entry::Entry;
use self::entry::Phase;
pub(super) use self::failure::{push_failure, shortened};
pub(super) use self::rest::{Now, REST_LIMIT, Rest};
use super::registration::{IN_HAND_LIMIT, SubscriptionSettings};
use crate::storage::{CursorRow, LetterRow, LetterState, OpenRow, OpenState};

/// How many signals it holds at a time: those in hand, those that wait for them, and those that failed.
pub(super) const WINDOW: usize = IN_HAND_LIMIT;

/// What is to be handed over together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct HandOver {
    /// The places, in their order; one unless batches are asked for.
    pub(super) places: Vec<u64>,
    /// Whether the store has to know before it is done.
    pub(super) on_record: bool,
}

/// What one subscription has under way.
#[derive(Debug)]
pub(super) struct Ledger {
    /// Every place up to and with this one was looked at.
    taken: u64,
    /// The last place that was ever handed over, or finished: up to there it is not to be looked at anew, or what is
    /// finished would be handled again.
    touched: u64,
    entries: BTreeMap<u64, Entry>,
    /// Up to where a process that ended may have had signals in hand.
    suspects: u64,
    /// What an earlier incarnation in this process had in hand when it ended, and at which attempt.
    interrupted: HashMap<u64, u32>,
    /// Whether that was one signal only, which is then known to be at fault.
    was_alone: bool,
    in_hand: usize,
    hand_overs: usize,
    exclusive: bool,
    concurrency: usize,
    batch: usize,
    on_failure: OnFailure,
}

impl Ledger {
    /// The ledger of a stored row, without signals: [`Ledger::supply`] brings them.
    pub(super) fn new(
        row: &CursorRow,
        now: Now,
        suspects: u64,
        interrupted: HashMap<u64, u32>,
        terms: &SubscriptionSettings,
    ) -> Self {
        let mut ledger = Self {
            taken: row.taken,
            touched: row.taken,
            entries: BTreeMap::new(),
            suspects,
            was_alone: interrupted.len() == 1,
            interrupted,
            in_hand: 0,
            hand_overs: 0,
            exclusive: false,
            concurrency: terms.concurrency,
            batch: terms.batch,
            on_failure: terms.on_failure,
        };
        for open in &row.open {
            let entry = ledger.reopened(open, now);
            ledger.entries.insert(open.seq, entry);
        }
        ledger
    }

    fn reopened(&self, open: &OpenRow, now: Now) -> Entry {
        let mut entry = self.fresh(open.seq, None);
        entry.attempts = entry.attempts.max(open.attempts);
        entry.first_at = open.first_at;
        entry.failures.clone_from(&open.failures);
        entry.guilty |= open.state == OpenState::InHand;
        entry.suspect |= entry.guilty;
        entry.phase = match (open.state, open.not_before) {
            (OpenState::Held, _) => Phase::Held,
            (OpenState::Waiting, Some(until)) if open.deferred => Phase::Resting(Rest::Until(until)),
            (OpenState::Waiting, Some(until)) => {
                Phase::Resting(Rest::Pause(now.instant + until.since(now.clock).min(REST_LIMIT)))
            }
            (OpenState::Waiting | OpenState::InHand, _) => Phase::Ready,
        };
        entry
    }

    fn fresh(&self, seq: u64, signal: Option<Arc<Envelope>>) -> Entry {
        let interrupted = self.interrupted.get(&seq).copied();
        // Whoever may have been in hand when a process ended has that attempt counted.
        let suspect = seq <= self.suspects || interrupted.is_some();
        Entry {
            signal,
            attempts: interrupted.unwrap_or_else(|| u32::from(suspect)),
            first_at: None,
            failures: Vec::new(),
            letter: None,
            holds: false,
            restart_told: false,
            phase: Phase::Ready,
            alone: false,
            suspect,
            guilty: interrupted.is_some() && self.was_alone,
        }
    }

    /// Every place up to and with this one was looked at.
    pub(super) const fn taken(&self) -> u64 {
        self.taken
    }

    /// The last place that was ever handed over, or finished.
    pub(super) const fn touched(&self) -> u64 {
        self.touched
    }

    /// Every signal up to and with this place is finished; dead letters aside that are tried again and hold up nothing.
    pub(super) fn floor(&self) -> u64 {
        let first = self.entries.iter().find(|(_, entry)| entry.letter.is_none() || entry.holds);
        first.map_or(self.taken, |(seq, _)| seq.saturating_sub(1))
    }

    /// As [`Ledger::floor`], but for what will not move by itself: what is held, what was put off, and what waits for
    /// either. `None` if nothing moves; more is taken in then if there is room.
    pub(super) fn calm_floor(&self, now: Now) -> Option<u64> {
        let mut blocked: HashSet<Lane> = HashSet::new();
        for (seq, entry) in &self.entries {
            let stays = match entry.phase {
                Phase::Held => true,
                Phase::Resting(rest @ Rest::Until(_)) => !rest.is_over(now),
                Phase::Ready | Phase::InHand | Phase::Resting(Rest::Pause(_)) => false,
            };
            let Some(signal) = &entry.signal else { return Some(seq.saturating_sub(1)) };
            if !stays && !blocked.contains(&signal.lane) {
                return Some(seq.saturating_sub(1));
            }
            if self.on_failure == OnFailure::StallAll {
                return None;
            }
            blocked.insert(signal.lane);
        }
        None
    }

    /// How many signals may be taken in.
    pub(super) fn room(&self) -> usize {
        WINDOW.saturating_sub(self.entries.len())
    }

    /// Whether nothing is in hand.
    pub(super) const fn is_idle(&self) -> bool {
        self.in_hand == 0
    }

    /// How many signals were handed over in vain and rest, and how many are held.
    pub(super) fn troubled(&self) -> (usize, usize) {
        let retrying =
            self.entries.values().filter(|entry| entry.attempts > 0 && matches!(entry.phase, Phase::Resting(_)));
        let held = self.entries.values().filter(|entry| entry.phase == Phase::Held);
        (retrying.count(), held.count())
    }

    /// The most attempts of any signal that is not finished and failed before.
    pub(super) fn most_attempts(&self) -> u32 {
        let failed = self.entries.values().filter(|entry| !entry.failures.is_empty());
        failed.map(|entry| entry.attempts).max().unwrap_or(0)
    }

    /// Looks at the next place: takes its signal in, or passes by. A dead letter of that place that is being tried again
    /// stands for it.
    pub(super) fn take(&mut self, seq: u64, signal: Option<Arc<Envelope>>) {
        self.taken = self.taken.max(seq);
        if let Some(signal) = signal
            && !self.entries.contains_key(&seq)
        {
            let entry = self.fresh(seq, Some(signal));
            self.entries.insert(seq, entry);
        }
    }

    /// The places whose signals are still to be brought.
    pub(super) fn wanting(&self) -> Vec<u64> {
        self.entries.iter().filter(|(_, entry)| entry.signal.is_none()).map(|(seq, _)| *seq).collect()
    }

    /// Brings the signal of an entry.
    pub(super) fn supply(&mut self, seq: u64, signal: Arc<Envelope>) {
        if let Some(entry) = self.entries.get_mut(&seq) {
            entry.signal = Some(signal);
        }
    }

    /// Finishes the signals up to a place that are not there any more, and takes the places as looked at.
    pub(super) fn pass_missing(&mut self, to: u64) {
        self.entries.retain(|seq, entry| *seq > to || entry.signal.is_some());
        self.taken = self.taken.max(to);
        self.touched = self.touched.max(to);
    }

    /// Takes in a dead letter that is to be tried again. Not while its signal is in hand, handled anew since an operator
    /// moved the subscription back.
    pub(super) fn retry_letter(&mut self, seq: u64, signal: Arc<Envelope>, letter: LetterRow) {
        let phase = self.entries.get(&seq).map(|entry| entry.phase);
        if phase == Some(Phase::InHand) {
            return;
        }
        let mut entry = self.fresh(seq, Some(signal));
        entry.suspect = false;
        entry.attempts = letter.tries;
        entry.guilty = letter.state == LetterState::InHand;
        entry.letter = Some(Box::new(letter));
        entry.holds = phase == Some(Phase::Held);
        self.entries.insert(seq, entry);
    }

    /// Notes that it is told that the subscriber was started anew for a signal; which one, if it was not told before.
    pub(super) fn tell_restart(&mut self, seq: u64) -> Option<Arc<Envelope>> {
        let entry = self.entries.get_mut(&seq).filter(|entry| !entry.restart_told)?;
        entry.restart_told = true;
        entry.signal.clone()
    }

    /// Brings a dead letter up to date.
    pub(super) fn set_letter(&mut self, seq: u64, letter: LetterRow) {
        if let Some(entry) = self.entries.get_mut(&seq) {
            entry.letter = Some(Box::new(letter));
        }
    }

    /// The dead letters that are tried again, and how often each has been.
    pub(super) fn letters(&self) -> impl Iterator<Item = (u64, &LetterRow, u32)> {
        self.entries.iter().filter_map(|(seq, entry)| Some((*seq, entry.letter.as_deref()?, entry.attempts)))
    }

    /// Whether a place is under way or held.
    pub(super) fn get(&self, seq: u64) -> Option<&Entry> {
        self.entries.get(&seq)
    }

    /// Whether a dead letter of this place can be taken in: unless the signal itself is under way.
    pub(super) fn admits_letter(&self, seq: u64) -> bool {
        self.entries.get(&seq).is_none_or(|entry| entry.phase == Phase::Held)
    }

    /// The places that are held.
    pub(super) fn held(&self) -> Vec<u64> {
        self.entries.iter().filter(|(_, entry)| entry.phase == Phase::Held).map(|(seq, _)| *seq).collect()
    }

    /// What is to be handed over next, if anything may be; it is in hand from then on, and its attempt is counted.
    pub(super) fn next(&mut self, now: Now) -> Option<HandOver> {
        if self.exclusive || self.hand_overs >= self.concurrency {
            return None;
        }
        let next = self.choose(now);
        if next.places.is_empty() {
            return None;
        }
        for seq in &next.places {
            if let Some(entry) = self.entries.get_mut(seq) {
                entry.phase = Phase::InHand;
                self.touched = self.touched.max(*seq);
                entry.attempts = entry.attempts.saturating_add(1);
                entry.first_at.get_or_insert(now.clock);
                self.exclusive |= entry.suspect;
            }
        }
        self.in_hand = self.in_hand.saturating_add(next.places.len());
        self.hand_overs = self.hand_overs.saturating_add(1);
        Some(next)
    }

    fn choose(&self, now: Now) -> HandOver {
        let mut next = HandOver::default();
        let mut blocked: HashSet<Lane> = HashSet::new();
        for (seq, entry) in &self.entries {
            let Some(signal) = &entry.signal else { break };
            let may = match entry.phase {
                Phase::Ready => true,
                Phase::Resting(rest) => rest.is_over(now),
                Phase::InHand | Phase::Held => false,
            };
            if !may || blocked.contains(&signal.lane) {
                blocked.insert(signal.lane);
                if self.on_failure == OnFailure::StallAll {
                    break;
                }
                continue;
            }
            if entry.suspect || entry.alone || entry.letter.is_some() {
                // By itself, and a suspect only once nothing else is in hand.
                if next.places.is_empty() && (!entry.suspect || self.in_hand == 0) {
                    next = HandOver { places: vec![*seq], on_record: entry.suspect || entry.letter.is_some() };
                }
                break;
            }
            next.places.push(*seq);
            if next.places.len() >= self.batch {
                break;
            }
        }
        next
    }

    /// Takes a signal back that was not handed over after all, or whose handling does not count.
    pub(super) fn take_back(&mut self, seq: u64) {
        if let Some(entry) = self.put_down(seq) {
            entry.attempts = entry.attempts.saturating_sub(1);
            entry.phase = Phase::Ready;
        }
    }

    /// Notes that a hand-over is over; each of its signals is to be finished, or put off, before or after.
    pub(super) const fn close_hand_over(&mut self) {
        self.hand_overs = self.hand_overs.saturating_sub(1);
    }

    fn put_down(&mut self, seq: u64) -> Option<&mut Entry> {
        let entry = self.entries.get_mut(&seq)?;
        if entry.phase == Phase::InHand {
            self.in_hand = self.in_hand.saturating_sub(1);
            if entry.suspect {
                self.exclusive = false;
            }
        }
        Some(entry)
    }

    /// Finishes a signal, and answers what was known of it.
    pub(super) fn finish(&mut self, seq: u64) -> Option<Entry> {
        self.put_down(seq);
        self.interrupted.remove(&seq);
        if seq <= self.taken {
            self.touched = self.touched.max(seq);
        }
        self.entries.remove(&seq)
    }

    /// Notes a failed attempt. `alone` where it failed together with others, and it is not known which was at fault.
    pub(super) fn fail(&mut self, seq: u64, at: Timestamp, failure: &str, rest: Rest, alone: bool) {
        if let Some(entry) = self.put_down(seq) {
            push_failure(&mut entry.failures, at, failure);
            entry.phase = Phase::Resting(rest);
            entry.alone |= alone;
            entry.suspect = false;
        }
    }

    /// Puts a signal off, at no cost.
    pub(super) fn defer(&mut self, seq: u64, until: Timestamp) {
        if let Some(entry) = self.put_down(seq) {
            entry.attempts = entry.attempts.saturating_sub(1);
            entry.phase = Phase::Resting(Rest::Until(until));
            entry.suspect = false;
        }
    }

    /// Takes a signal as given up that still holds up what follows it.
    pub(super) fn hold(&mut self, seq: u64, mut entry: Entry) {
        entry.phase = Phase::Held;
        (entry.letter, entry.holds) = (None, false);
        self.entries.insert(seq, entry);
    }

    /// When the next of the signals that nothing else holds up has rested enough.
    pub(super) fn next_rest(&self, now: Now) -> Option<Instant> {
        let mut next: Option<Instant> = None;
        let mut blocked: HashSet<Lane> = HashSet::new();
        for entry in self.entries.values() {
            let Some(signal) = &entry.signal else { break };
            if let Phase::Resting(rest) = entry.phase
                && !blocked.contains(&signal.lane)
            {
                let end = rest.end(now);
                next = Some(next.map_or(end, |least| least.min(end)));
            }
            if self.on_failure == OnFailure::StallAll {
                break;
            }
            blocked.insert(signal.lane);
        }
        next
    }

    /// What is in hand, and at which attempt.
    pub(super) fn hands(&self) -> HashMap<u64, u32> {
        let in_hand = self.entries.iter().filter(|(_, entry)| entry.phase == Phase::InHand);
        in_hand.map(|(seq, entry)| (*seq, entry.attempts)).collect()
    }

    /// Enters where it stands into a row: what has to be known if everything else is lost. Signals behind all that were
    /// touched are left to be taken in again. Letters have rows of their own; but one that holds up its lane does so while
    /// it is tried again too.
    pub(super) fn enter(&self, now: Now, row: &mut CursorRow) {
        let untouched = |entry: &Entry| entry.attempts == 0 && entry.phase == Phase::Ready && !entry.alone;
        let behind = self.entries.range(self.touched.saturating_add(1)..).rev();
        let signals = behind.filter(|(_, entry)| entry.letter.is_none());
        let tail = signals.take_while(|(_, entry)| untouched(entry)).last();
        row.taken = tail.map_or(self.taken, |(seq, _)| seq.saturating_sub(1));
        let open = self.entries.range(..=row.taken).filter(|(_, entry)| entry.letter.is_none() || entry.holds);
        row.open = open.map(|(seq, entry)| entry.row(*seq, now)).collect();
    }
}

#[cfg(test)]
mod tests;
