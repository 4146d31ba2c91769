//! The ledger and the cursor against a reference that is slow and obviously right, through interleavings left to chance.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use majordomo_model::{Actor, Context, FlowId, Signal, SignalId, UserId};
use proptest::prelude::*;

use super::super::cursor::{Cursor, Seen};
use super::super::follow_up::FollowUps;
use super::failure::FAILURES_KEPT;
use super::*;
use crate::stamp::Stamp;
use crate::storage::{Batch, Check, Write};

const START: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);
const NAME: &str = "model";
const LANES: usize = 5;
/// After so many attempts a signal is given up.
const ATTEMPTS: u32 = 4;
/// How far ahead of what was looked at signals may be in hand: little, so that many are beyond it.
const LEASE: u64 = 6;

/// What happens next. Numbers are taken as they fit.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// The log grows.
    Commit(u8, u16),
    /// The subscription takes in what the log holds, and the letters that are due.
    Take(u8),
    /// Something is handed over.
    Next,
    /// A hand-over ends, each signal of it in its own way.
    Conclude(u8, u16),
    /// A hand-over panics.
    Panic(u8),
    /// Time passes, in milliseconds.
    Wait(u16),
    /// Progress is left for the next commit.
    Leave,
    /// Progress is committed.
    Settle,
    /// So many of the batches that were left arrive.
    Arrive(u8),
    /// The batches that were left are lost.
    Lose,
    /// The subscription looks at what is stored.
    Look,
    /// The actor ends and another takes its place.
    Kill,
    /// The process ends, after so many of the batches that were left have arrived, and another takes its place.
    Crash(u8),
    /// The subscription stops in order, and is started again.
    Stop,
    /// An operator moves it.
    Move(u16),
    /// The log is pruned.
    Prune(u8),
    /// An operator has a letter tried again.
    Retry(u8),
    /// An operator discards a letter.
    Discard(u8),
}

fn step() -> impl Strategy<Value = Step> {
    use Step::*;
    prop_oneof![
        6 => (any::<u8>(), any::<u16>()).prop_map(|(count, dice)| Commit(count, dice)),
        8 => any::<u8>().prop_map(Take),
        24 => Just(Next),
        20 => (any::<u8>(), any::<u16>()).prop_map(|(hand, dice)| Conclude(hand, dice)),
        2 => any::<u8>().prop_map(Panic),
        6 => any::<u16>().prop_map(Wait),
        6 => Just(Leave),
        2 => Just(Settle),
        3 => any::<u8>().prop_map(Arrive),
        1 => Just(Lose),
        3 => Just(Look),
        2 => Just(Kill),
        2 => any::<u8>().prop_map(Crash),
        1 => Just(Stop),
        1 => any::<u16>().prop_map(Move),
        1 => any::<u8>().prop_map(Prune),
        4 => any::<u8>().prop_map(Retry),
        1 => any::<u8>().prop_map(Discard),
    ]
}

fn terms() -> impl Strategy<Value = SubscriptionSettings> {
    let with = |concurrency, batch, on_failure| SubscriptionSettings {
        concurrency,
        batch,
        on_failure,
        ..SubscriptionSettings::default()
    };
    let policy = prop_oneof![Just(OnFailure::SkipToDeadLetter), Just(OnFailure::StallLane)];
    prop_oneof![
        3 => (1_usize..5, 1_usize..4, policy).prop_map(move |(lanes, batch, policy)| with(lanes, batch, policy)),
        1 => (1_usize..4).prop_map(move |batch| with(1, batch, OnFailure::StallAll)),
    ]
}

/// How often each script is played: `SEEDS` times as many for a long run.
fn cases() -> u32 {
    std::env::var("SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(96)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_subscription_does_what_a_simple_reference_does(
        terms in terms(),
        steps in prop::collection::vec(step(), 100..400),
    ) {
        let mut world = World::new(terms);
        for step in steps {
            world.play(step);
            world.agree();
        }
        world.drain();
    }
}

/// How a signal stands that is not finished.
#[derive(Clone, Copy, Debug, PartialEq)]
enum How {
    Ready,
    /// After a failure, until then.
    Resting(u64),
    /// Put off until then.
    Deferred(u64),
    InHand,
    Held,
}

#[derive(Clone, Debug, PartialEq)]
struct Known {
    lane: usize,
    how: How,
    attempts: u32,
    alone: bool,
    suspect: bool,
    guilty: bool,
    letter: bool,
    /// A letter that holds up its lane while it is tried again.
    holds: bool,
    lost: bool,
}

/// What has happened to signals, as a store would know it.
#[derive(Clone, Debug, Default)]
struct History {
    open: BTreeMap<u64, Known>,
    /// Handled, or given up.
    finished: BTreeSet<u64>,
    /// How often each was handled.
    counts: BTreeMap<u64, u32>,
}

/// The reference: every rule as it is told, and no thought of speed.
#[derive(Debug)]
struct Reference {
    history: History,
    hands: Vec<Vec<u64>>,
    suspects: u64,
    interrupted: BTreeMap<u64, u32>,
    /// Whether that was one signal only, which is then at fault.
    was_alone: bool,
    terms: SubscriptionSettings,
}

impl Reference {
    /// A signal as nobody has touched it, but that an earlier process or thread may have.
    fn fresh(&self, seq: u64, lane: usize) -> Known {
        let interrupted = self.interrupted.get(&seq).copied();
        let suspect = seq <= self.suspects || interrupted.is_some();
        Known {
            lane,
            how: How::Ready,
            attempts: interrupted.unwrap_or(u32::from(suspect)),
            alone: false,
            suspect,
            guilty: interrupted.is_some() && self.was_alone,
            letter: false,
            holds: false,
            lost: false,
        }
    }

    /// Begins anew from what is stored: only what was stored is known, and who may have been in hand is suspected.
    fn reopen(&mut self, stored: &History, taken: u64, suspects: u64, interrupted: BTreeMap<u64, u32>) {
        self.was_alone = interrupted.len() == 1;
        (self.suspects, self.interrupted) = (suspects, interrupted);
        self.hands.clear();
        self.history = History { open: BTreeMap::new(), ..stored.clone() };
        for (seq, known) in stored.open.range(..=taken).filter(|(_, known)| !known.letter || known.holds) {
            let mut again = self.fresh(*seq, known.lane);
            let in_hand = known.how == How::InHand && known.suspect;
            again.attempts = again.attempts.max(known.attempts);
            again.guilty |= in_hand;
            again.suspect |= in_hand;
            again.how = match known.how {
                _ if known.holds => How::Held,
                How::InHand => How::Ready,
                how => how,
            };
            self.history.open.insert(*seq, again);
        }
    }

    /// The signals that are not finished, by lane; nothing behind one that is lost and not passed yet.
    fn lanes(&self) -> Vec<Vec<u64>> {
        let mut lanes = vec![Vec::new(); LANES];
        for (seq, known) in self.history.open.iter().take_while(|(_, known)| !known.lost) {
            let lane = if self.terms.on_failure == OnFailure::StallAll { 0 } else { known.lane };
            lanes[lane].push(*seq);
        }
        lanes
    }

    /// What may be handed over: of the signals that are first in their lane and ready the earliest, then, for a batch,
    /// the next in the same way. Who is suspect waits for all hands to be empty, and nobody overtakes it.
    fn next(&self, now: u64) -> Vec<u64> {
        let open = &self.history.open;
        let suspect_in_hand = self.hands.iter().flatten().any(|seq| open[seq].suspect);
        if suspect_in_hand || self.hands.len() >= self.terms.concurrency {
            return Vec::new();
        }
        let (mut lanes, mut batch) = (self.lanes(), Vec::new());
        let ready = |seq: &u64| match open[seq].how {
            How::Ready => true,
            How::Resting(until) | How::Deferred(until) => until <= now,
            How::InHand | How::Held => false,
        };
        while batch.len() < self.terms.batch {
            let firsts = lanes.iter().filter_map(|lane| lane.first().copied());
            let Some(first) = firsts.filter(ready).min() else { break };
            let known = &open[&first];
            if known.suspect || known.alone || known.letter {
                let waits = known.suspect && !self.hands.is_empty();
                return if batch.is_empty() && !waits { vec![first] } else { batch };
            }
            batch.push(first);
            lanes.iter_mut().for_each(|lane| lane.retain(|seq| *seq != first));
        }
        batch
    }

    fn floor(&self, taken: u64) -> u64 {
        let counts = |known: &Known| !known.letter || known.holds;
        let first = self.history.open.iter().find(|(_, known)| counts(known));
        first.map_or(taken, |(seq, _)| seq - 1)
    }

    /// When the first of those who only wait for time to pass has waited enough.
    fn next_rest(&self) -> Option<u64> {
        let firsts = self.lanes().into_iter().filter_map(|lane| lane.first().copied());
        firsts
            .filter_map(|seq| match self.history.open[&seq].how {
                How::Resting(until) | How::Deferred(until) => Some(until),
                _ => None,
            })
            .min()
    }
}

struct Logged {
    lane: usize,
    passes: bool,
    signal: Arc<Envelope>,
}

/// The real ledger and cursor, the reference beside them, and a store, a log and an operator around them.
struct World {
    ledger: Ledger,
    cursor: Cursor,
    reference: Reference,
    origin: Instant,
    millis: u64,
    users: Vec<UserId>,
    log: Vec<Logged>,
    pruned: u64,
    stored: CursorRow,
    /// What was the case when `stored` was written.
    history: History,
    /// The projection at the store: how often each signal is counted.
    counted: BTreeMap<u64, u32>,
    letters: BTreeMap<u64, LetterRow>,
    left: Vec<(Batch, History)>,
    /// Passed by because an operator moved the subscription beyond it, or the log did not hold it any more.
    passed: BTreeSet<u64>,
    /// Discarded as a letter: whether it was to be handled once more or not, it is finished.
    discarded: BTreeSet<u64>,
}

impl World {
    fn new(terms: SubscriptionSettings) -> Self {
        let (origin, row) = (Instant::now(), CursorRow { leased: LEASE, ..CursorRow::default() });
        let now = Now { instant: origin, clock: START };
        let reference = Reference {
            history: History::default(),
            hands: Vec::new(),
            suspects: 0,
            interrupted: BTreeMap::new(),
            was_alone: false,
            terms: terms.clone(),
        };
        Self {
            ledger: Ledger::new(&row, now, 0, HashMap::new(), &terms),
            cursor: Cursor::new(NAME, row.clone()),
            reference,
            origin,
            millis: 0,
            users: (0..LANES).map(|_| UserId::new()).collect(),
            log: Vec::new(),
            pruned: 0,
            stored: row,
            history: History::default(),
            counted: BTreeMap::new(),
            letters: BTreeMap::new(),
            left: Vec::new(),
            passed: BTreeSet::new(),
            discarded: BTreeSet::new(),
        }
    }

    fn now(&self) -> Now {
        let since = Duration::from_millis(self.millis);
        Now { instant: self.origin + since, clock: START.plus(since) }
    }

    fn head(&self) -> u64 {
        self.log.len() as u64
    }

    fn logged(&self, seq: u64) -> &Logged {
        &self.log[usize::try_from(seq).unwrap() - 1]
    }

    fn open(&mut self, seq: u64) -> &mut Known {
        self.reference.history.open.get_mut(&seq).unwrap()
    }

    fn play(&mut self, step: Step) {
        match step {
            Step::Commit(count, dice) => {
                (0..count % 12).for_each(|one| self.commit_signal(dice.rotate_left(one.into())))
            }
            Step::Take(room) => self.take(usize::from(room)),
            Step::Next => self.hand_over(),
            Step::Conclude(hand, dice) => self.conclude(hand, |world, seq, place| {
                world.outcome(seq, dice.rotate_left(3 * place));
            }),
            Step::Panic(hand) => self.panic(hand),
            Step::Wait(millis) => self.millis += u64::from(millis) % 400,
            Step::Leave => self.leave(),
            Step::Settle => drop(self.settle(None)),
            Step::Arrive(count) => self.arrive(usize::from(count % 4)),
            Step::Lose => self.left.clear(),
            Step::Look => self.look(),
            Step::Kill => self.kill(),
            Step::Crash(arriving) => self.crash(usize::from(arriving % 4)),
            Step::Stop => self.stop(),
            Step::Move(place) => self.move_to(u64::from(place)),
            Step::Prune(share) => {
                let to = self.head() * u64::from(share) / 255;
                // Pruned is what all have handled, and what they lapsed over.
                self.pruned = self.pruned.max(if share % 3 == 0 { to } else { to.min(self.stored.floor()) });
            }
            Step::Retry(which) => {
                if let Some((_, letter)) = nth(&mut self.letters, which)
                    && letter.state == LetterState::Dead
                {
                    letter.state = LetterState::Due;
                }
            }
            Step::Discard(which) => {
                if let Some(seq) = nth(&mut self.letters, which).map(|(seq, _)| seq) {
                    self.letters.remove(&seq);
                    self.discarded.insert(seq);
                }
            }
        }
    }

    fn commit_signal(&mut self, dice: u16) {
        let lane = usize::from(dice) % LANES;
        let user = self.users[lane];
        let (flow, actor, context) = (FlowId::new(), Actor::System, Context::new());
        let stamp = Stamp { flow, cause: None, lane: Lane::User(user), actor, context };
        let signal = Signal::UserUpdateStarted { user, fields: vec![] };
        let mut signal = stamp.envelope(SignalId::new(), START, signal, None);
        signal.seq = Some(self.head() + 1);
        self.log.push(Logged { lane, passes: !dice.is_multiple_of(7), signal: Arc::new(signal) });
    }

    /// As the worker does it in one turn: letters first, then what is missing, then the log.
    fn take(&mut self, most: usize) {
        self.tend_letters();
        let wanting = self.ledger.wanting();
        if let Some(from) = wanting.first().copied() {
            let run = wanting.iter().zip(from..).take_while(|(seq, next)| *seq == next).count() as u64;
            return self.pass_missing(from, from + run - 1);
        }
        for _ in 0..most.min(self.ledger.room()) {
            let seq = self.ledger.taken() + 1;
            if seq > self.head() {
                return;
            }
            if seq <= self.pruned {
                return self.pass_missing(seq, self.pruned);
            }
            let Logged { lane, passes, signal } = self.logged(seq);
            let (lane, signal) = (*lane, passes.then(|| Arc::clone(signal)));
            // A letter ahead of the place to which an operator moved it is there already.
            if signal.is_some() && !self.reference.history.open.contains_key(&seq) {
                let finished = self.reference.history.finished.contains(&seq);
                assert!(!finished, "{seq} is taken in again though it is stored that it is finished");
                let fresh = self.reference.fresh(seq, lane);
                self.reference.history.open.insert(seq, fresh);
            }
            self.ledger.take(seq, signal);
        }
    }

    fn pass_missing(&mut self, from: u64, to: u64) {
        assert!(to <= self.pruned);
        self.ledger.pass_missing(to);
        self.reference.history.open.retain(|seq, known| *seq > to || !known.lost);
        self.passed.extend(from..=to);
    }

    fn tend_letters(&mut self) {
        for seq in self.ledger.held() {
            match self.letters.get(&seq) {
                None => {
                    self.note_finished(seq);
                    self.ledger.finish(seq);
                    self.reference.history.open.remove(&seq);
                }
                Some(letter) if letter.state != LetterState::Dead => self.try_letter(seq),
                Some(_) => {}
            }
        }
        let due = self.letters.iter().filter(|(_, letter)| letter.state != LetterState::Dead);
        let due: Vec<_> = due.map(|(seq, _)| *seq).take(self.ledger.room().min(16)).collect();
        for seq in due {
            if self.ledger.get(seq).is_none_or(|entry| entry.letter.is_none()) {
                self.try_letter(seq);
            }
        }
    }

    fn try_letter(&mut self, seq: u64) {
        let letter = self.letters[&seq].clone();
        let Logged { lane, signal, .. } = self.logged(seq);
        let (lane, signal) = (*lane, Arc::clone(signal));
        let in_hand = self.reference.history.open.get(&seq).is_some_and(|known| known.how == How::InHand);
        if !in_hand {
            let (attempts, guilty) = (letter.tries, letter.state == LetterState::InHand);
            let fresh = self.reference.fresh(seq, lane);
            let holds = self.reference.history.open.get(&seq).is_some_and(|known| known.how == How::Held);
            let known = Known { attempts, guilty, letter: true, holds, suspect: false, ..fresh };
            self.reference.history.open.insert(seq, known);
        }
        self.ledger.retry_letter(seq, signal, letter);
    }

    fn hand_over(&mut self) {
        let (expected, now) = (self.reference.next(self.millis), self.now());
        let next = self.ledger.next(now);
        let places = next.as_ref().map(|next| next.places.clone()).unwrap_or_default();
        assert_eq!(places, expected, "what is handed over");
        let Some(next) = next else { return };
        for seq in &places {
            let known = self.open(*seq);
            known.how = How::InHand;
            known.attempts += 1;
        }
        let known = self.open(places[0]).clone();
        assert_eq!(next.on_record, known.suspect || known.letter);
        self.reference.hands.push(places.clone());
        if self.give_up_the_guilty(places[0], &known) {
            return;
        }
        let recorded = if known.letter {
            self.take_up_letter(places[0])
        } else {
            let ahead = next.on_record || places.iter().any(|seq| *seq > self.cursor.leased());
            !ahead || self.settle(None)
        };
        // Otherwise it was begun anew, or the letter is gone.
        assert!(recorded || self.reference.hands.is_empty() || known.letter);
    }

    fn give_up_the_guilty(&mut self, seq: u64, known: &Known) -> bool {
        assert_eq!(self.ledger.get(seq).unwrap().guilty, known.guilty);
        if !known.guilty || known.attempts - 1 < ATTEMPTS {
            return false;
        }
        self.ledger.close_hand_over();
        self.reference.hands.pop();
        self.give_up(seq);
        true
    }

    fn take_up_letter(&mut self, seq: u64) -> bool {
        let Some(letter) = self.letters.get(&seq).cloned() else {
            // It was discarded, and with it whatever was still to come of its signal.
            self.note_finished(seq);
            self.ledger.finish(seq);
            self.ledger.close_hand_over();
            self.reference.hands.pop();
            self.reference.history.open.remove(&seq);
            return false;
        };
        let letter = LetterRow { state: LetterState::InHand, tries: letter.tries + 1, ..letter };
        let taken_up = self.settle(Some((seq, Some(letter.clone()))));
        if taken_up {
            self.ledger.set_letter(seq, letter);
        }
        taken_up
    }

    fn conclude(&mut self, hand: u8, outcome: impl Fn(&mut Self, u64, u32)) {
        if self.reference.hands.is_empty() {
            return;
        }
        let hand = usize::from(hand) % self.reference.hands.len();
        let places = self.reference.hands.remove(hand);
        self.ledger.close_hand_over();
        for (place, seq) in (0..).zip(places) {
            // What is to be stored at once may find that everything is to begin anew.
            if self.reference.history.open.get(&seq).is_some_and(|known| known.how == How::InHand) {
                outcome(self, seq, place);
            }
        }
    }

    fn panic(&mut self, hand: u8) {
        let hands = self.reference.hands.len().max(1);
        let together = self.reference.hands.get(usize::from(hand) % hands).is_some_and(|places| places.len() > 1);
        self.conclude(hand, |world, seq, _| world.fail(seq, together));
    }

    fn outcome(&mut self, seq: u64, dice: u16) {
        match dice % 8 {
            0..=2 => self.finish(seq),
            3 | 4 => self.fail(seq, false),
            5 => {
                let until = self.millis + u64::from(dice / 8 % 4) * 50;
                let known = self.open(seq);
                known.how = How::Deferred(until);
                known.attempts -= 1;
                known.suspect = false;
                self.ledger.defer(seq, START.plus(Duration::from_millis(until)));
            }
            6 => self.give_up(seq),
            _ => {
                let known = self.open(seq);
                known.how = How::Ready;
                known.attempts -= 1;
                self.ledger.take_back(seq);
            }
        }
    }

    fn finish(&mut self, seq: u64) {
        let entry = self.ledger.finish(seq).unwrap();
        let known = self.reference.history.open.remove(&seq).unwrap();
        assert_eq!(entry.letter.is_some(), known.letter);
        self.note_finished(seq);
        *self.reference.history.counts.entry(seq).or_default() += 1;
        self.cursor.project(seq.to_be_bytes().to_vec(), Some(Vec::new()));
        if known.letter {
            self.settle(Some((seq, None)));
        }
    }

    /// A letter may lie ahead of the place to which an operator moved the subscription: its signal is still to come.
    fn note_finished(&mut self, seq: u64) {
        if seq <= self.ledger.taken() {
            self.reference.history.finished.insert(seq);
        }
    }

    fn fail(&mut self, seq: u64, together: bool) {
        let attempts = self.open(seq).attempts;
        if attempts >= ATTEMPTS && !together {
            return self.give_up(seq);
        }
        let pause = u64::from(attempts) * 20;
        let until = self.millis + pause;
        let known = self.open(seq);
        (known.how, known.suspect) = (How::Resting(until), false);
        known.alone |= together;
        let now = self.now();
        self.ledger.fail(seq, now.clock, "no", Rest::Pause(now.instant + Duration::from_millis(pause)), together);
    }

    fn give_up(&mut self, seq: u64) {
        let mut known = self.reference.history.open.remove(&seq).unwrap();
        self.note_finished(seq);
        let entry = self.ledger.finish(seq).unwrap();
        let attempts = entry.attempts;
        assert_eq!(attempts, known.attempts);
        if self.reference.terms.on_failure != OnFailure::SkipToDeadLetter {
            (known.how, known.letter, known.holds) = (How::Held, false, false);
            self.reference.history.open.insert(seq, known);
            self.ledger.hold(seq, entry);
        }
        let letter = LetterRow {
            envelope: Vec::new(),
            reason: String::new(),
            attempts,
            tries: 0,
            failures: Vec::new(),
            dead_at: START,
            state: LetterState::Dead,
        };
        self.settle(Some((seq, Some(letter))));
    }

    fn row(&self) -> CursorRow {
        let mut row = self.cursor.next_row();
        self.ledger.enter(self.now(), &mut row);
        row.leased = row.taken + LEASE;
        let open: Vec<_> = row.open.iter().map(|open| open.seq).collect();
        assert!(open.is_sorted() && open.len() <= WINDOW + 16 && open.last().is_none_or(|last| *last <= row.taken));
        assert!(row.open.iter().all(|open| open.failures.len() <= FAILURES_KEPT));
        let finished = self.reference.history.finished.last();
        assert!(finished.is_none_or(|last| *last <= row.taken), "{finished:?} would be handled again: {row:?}");
        row
    }

    fn leave(&mut self) {
        let row = self.row();
        if !self.cursor.is_settled(&row) {
            let batch = self.cursor.leave(row);
            self.left.push((batch, self.reference.history.clone()));
        }
    }

    /// Commits progress, behind what was left before. Otherwise somebody else wrote the row, and all begins anew.
    fn settle(&mut self, letter: Option<(u64, Option<LetterRow>)>) -> bool {
        self.arrive(usize::MAX);
        let row = self.row();
        let batch = self.cursor.batch(row.clone(), FollowUps::default());
        if !self.apply(batch, self.reference.history.clone()) {
            self.begin_anew(0, BTreeMap::new());
            return false;
        }
        match letter {
            Some((seq, Some(letter))) => drop(self.letters.insert(seq, letter)),
            Some((seq, None)) => drop(self.letters.remove(&seq)),
            None => {}
        }
        self.cursor.confirm(row);
        true
    }

    fn arrive(&mut self, count: usize) {
        let count = count.min(self.left.len());
        for (batch, history) in self.left.drain(..count).collect::<Vec<_>>() {
            self.apply(batch, history);
        }
    }

    fn apply(&mut self, batch: Batch, history: History) -> bool {
        let [Check::Cursor(_, expected)] = batch.checks.as_slice() else { panic!("{:?}", batch.checks) };
        if *expected != self.stored.revision {
            return false;
        }
        for write in batch.writes {
            match write {
                Write::PutCursor(_, row) => self.stored = row,
                Write::PutProjection(_, _, key, _) => {
                    *self.counted.entry(u64::from_be_bytes(key.try_into().unwrap())).or_default() += 1;
                }
                other => panic!("{other:?}"),
            }
        }
        self.history = history;
        assert_eq!(self.counted, self.history.counts, "each is counted with the progress that it is");
        true
    }

    fn look(&mut self) {
        if self.cursor.saw(self.stored.revision) == Seen::SomebodyElse {
            self.begin_anew(0, BTreeMap::new());
        } else if self.left.is_empty() {
            self.settle(None);
        }
    }

    fn kill(&mut self) {
        let hands = self.ledger.hands();
        let in_hand: BTreeSet<_> = self.reference.hands.iter().flatten().copied().collect();
        assert_eq!(hands.keys().copied().collect::<BTreeSet<_>>(), in_hand);
        self.begin_anew(0, hands.into_iter().collect());
    }

    fn crash(&mut self, arriving: usize) {
        self.arrive(arriving);
        self.left.clear();
        self.begin_anew(self.stored.leased.min(self.head()), BTreeMap::new());
    }

    fn stop(&mut self) {
        for seq in self.ledger.hands().into_keys() {
            self.ledger.take_back(seq);
            let known = self.open(seq);
            known.how = How::Ready;
            known.attempts -= 1;
        }
        self.arrive(usize::MAX);
        let row = CursorRow { leased: 0, ..self.row() };
        let batch = self.cursor.batch(row, FollowUps::default());
        let stopped = self.apply(batch, self.reference.history.clone());
        let suspects = if stopped { 0 } else { self.stored.leased.min(self.head()) };
        self.begin_anew(suspects, BTreeMap::new());
    }

    /// Another incarnation: all it knows is what is stored, and what it is told was in hand.
    fn begin_anew(&mut self, suspects: u64, interrupted: BTreeMap<u64, u32>) {
        self.arrive(usize::MAX);
        let taken = self.stored.taken;
        self.stored.revision += 1;
        self.stored.leased = taken + LEASE;
        let terms = self.reference.terms.clone();
        let in_hand = interrupted.clone().into_iter().collect();
        self.ledger = Ledger::new(&self.stored, self.now(), suspects, in_hand, &terms);
        self.cursor = Cursor::new(NAME, self.stored.clone());
        self.reference.reopen(&self.history, taken, suspects, interrupted);
        for seq in self.ledger.wanting() {
            if seq > self.pruned {
                let signal = Arc::clone(&self.logged(seq).signal);
                self.ledger.supply(seq, signal);
            } else {
                self.open(seq).lost = true;
            }
        }
    }

    fn move_to(&mut self, place: u64) {
        let taken = (place % (self.head() + 2)).max(1) - 1;
        let finished = |seq: &u64| self.history.finished.contains(seq);
        self.passed = (1..=taken).filter(|seq| !finished(seq)).collect();
        self.history.open.clear();
        self.history.finished.retain(|seq| *seq <= taken);
        let revision = self.stored.foreign_revision();
        self.stored = CursorRow { revision, taken, open: Vec::new(), leased: 0, ..self.stored.clone() };
    }

    /// Whether the ledger says of every signal what the reference says.
    fn agree(&self) {
        let now = self.now();
        let millis = |until: Instant| u64::try_from(until.saturating_duration_since(self.origin).as_millis()).unwrap();
        let seen = |(seq, entry): (&u64, &Entry)| {
            let how = match entry.phase {
                Phase::Ready => How::Ready,
                Phase::Resting(Rest::Pause(until)) => How::Resting(millis(until).max(self.millis)),
                Phase::Resting(rest) => How::Deferred(millis(rest.end(now)).max(self.millis)),
                Phase::InHand => How::InHand,
                Phase::Held => How::Held,
            };
            let Entry { attempts, alone, suspect, guilty, .. } = *entry;
            let (letter, lost, lane) = (entry.letter.is_some(), entry.signal.is_none(), self.logged(*seq).lane);
            (*seq, Known { lane, how, attempts, alone, suspect, guilty, letter, holds: entry.holds, lost })
        };
        let expected = self.reference.history.open.iter().map(|(seq, known)| {
            let how = match known.how {
                How::Resting(until) => How::Resting(until.max(self.millis)),
                How::Deferred(until) => How::Deferred(until.max(self.millis)),
                how => how,
            };
            (*seq, Known { how, ..known.clone() })
        });
        let seen: BTreeMap<_, _> = self.ledger.entries.iter().map(seen).collect();
        assert_eq!(seen, expected.collect());
        let (ledger, reference) = (&self.ledger, &self.reference);
        let taken = ledger.taken();
        assert_eq!(ledger.floor(), reference.floor(taken));
        assert_eq!((ledger.hand_overs, ledger.in_hand), (reference.hands.len(), reference.hands.concat().len()));
        assert_eq!(ledger.is_idle(), reference.hands.is_empty());
        let rest = ledger.next_rest(now).map(|until| millis(until).max(self.millis));
        assert_eq!(rest, reference.next_rest().map(|until| until.max(self.millis)));
    }

    /// Everything goes well from now on, and all that can be handled is.
    fn drain(&mut self) {
        self.look();
        loop {
            let before = (self.ledger.taken(), self.reference.history.open.clone(), self.reference.hands.len());
            self.take(usize::MAX);
            self.millis += 1_000;
            self.hand_over();
            self.agree();
            while !self.reference.hands.is_empty() {
                self.conclude(0, |world, seq, _| world.finish(seq));
            }
            let after = (self.ledger.taken(), self.reference.history.open.clone(), self.reference.hands.len());
            if before == after && self.reference.next(self.millis).is_empty() {
                break;
            }
        }
        self.settle(None);
        let open = &self.reference.history.open;
        let holding: Vec<_> = open.iter().filter(|(_, known)| known.how == How::Held).collect();
        let waits = |(seq, known): (&u64, &Known)| {
            holding.iter().any(|(held, holds)| {
                *held <= seq && (holds.lane == known.lane || self.reference.terms.on_failure == OnFailure::StallAll)
            })
        };
        assert!(open.iter().all(waits), "nothing holds it up, and it is not handed over");
        if holding.is_empty() {
            let History { finished, .. } = &self.reference.history;
            let finished = |seq: &u64| [finished, &self.passed, &self.discarded].iter().any(|set| set.contains(seq));
            let missed: Vec<_> = (1..=self.head()).filter(|seq| self.logged(*seq).passes && !finished(seq)).collect();
            assert_eq!((missed, self.stored.floor()), (vec![], self.head()), "it was neither handled nor given up");
            assert!(self.letters.values().all(|letter| letter.state == LetterState::Dead));
        }
    }
}

fn nth(letters: &mut BTreeMap<u64, LetterRow>, which: u8) -> Option<(u64, &mut LetterRow)> {
    let count = letters.len().max(1);
    letters.iter_mut().nth(usize::from(which) % count).map(|(seq, letter)| (*seq, letter))
}
