//! The bounded queue between callers and hash threads; it outlives both.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound::{self, Excluded, Included, Unbounded};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::HashError;

/// Whose turn comes first: the order of this is theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Priority {
    /// Somebody waits at the door on a device that their account knows: what strangers cannot keep out.
    KnownDevice,
    /// Somebody waits at the door: a password is checked.
    Login(Rank),
    /// A new hash that somebody waits for: registration, a changed password.
    Background,
    /// A new hash that nobody waits for: a password is kept under the present parameters.
    Rehash,
}

/// Where a login stands among the others: the more failed or wait where it comes from, the later its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank(u32);

impl Rank {
    /// Before all other logins.
    pub(crate) const FIRST: Self = Self(0);

    /// Where somebody stands who finds so many attempts of the same source in their budget: a step behind with 1, and one
    /// more each time that they double. So there are few ranks, and a mistyped password costs little.
    pub(crate) const fn of(attempts: u32) -> Self {
        Self(u32::BITS - attempts.leading_zeros())
    }
}

/// How many jobs of known devices are taken in a row while another login waits.
const IN_A_ROW: u32 = 7;
/// Known devices have room of their own, a part in so many of the bound, and at least for one.
const PART_FOR_KNOWN_DEVICES: usize = 4;

/// A bounded queue by priority, first in first out within each.
///
/// The bound counts all but known devices, and may change; who waits by then stays. Who finds no place takes that of the
/// youngest of the last priority behind their own: so neither a flood of registrations nor one of guesses from sources
/// that failed before can shut the door. Known devices have room beside it, so that nobody who was let in is displaced for
/// them and no flood of strangers shuts them out; and one turn in eight is another login's, so that they do not shut out
/// strangers either.
pub(super) struct Queue<T> {
    waiting: Mutex<Waiting<T>>,
    ready: Condvar,
}

struct Waiting<T> {
    bound: usize,
    lines: BTreeMap<Priority, Line<T>>,
    /// How many jobs of known devices were taken since the last other one.
    in_a_row: u32,
    closed: bool,
    held: bool,
    rehashes_held: bool,
}

/// Those of one priority.
struct Line<T> {
    jobs: VecDeque<T>,
    /// For how many more there is room kept.
    reserved: usize,
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self { jobs: VecDeque::new(), reserved: 0 }
    }
}

impl<T> Queue<T> {
    pub(super) fn new(bound: usize) -> Self {
        let lines = BTreeMap::new();
        let waiting = Waiting { bound, lines, in_a_row: 0, closed: false, held: false, rehashes_held: false };
        Self { waiting: Mutex::new(waiting), ready: Condvar::new() }
    }

    pub(super) fn bound(&self) -> usize {
        self.lock().bound
    }

    pub(super) fn set_bound(&self, bound: usize) {
        self.lock().bound = bound;
    }

    pub(super) fn len(&self) -> usize {
        self.lock().lines.values().map(|line| line.jobs.len()).sum()
    }

    /// Keeps room for a job of this priority, until it comes or [`Queue::release`] is told that it does not. Answers
    /// whether there is any; of a closed queue, too, since the stop is what is to be told.
    pub(super) fn reserve(&self, priority: Priority) -> bool {
        let mut waiting = self.lock();
        let has_room = waiting.closed || waiting.has_room_for(priority);
        if has_room {
            waiting.lines.entry(priority).or_default().reserved += 1;
        }
        has_room
    }

    /// Gives back the room that was kept.
    pub(super) fn release(&self, priority: Priority) {
        self.lock().take_back(priority);
    }

    /// Puts `job` in line, `reserved` if room was kept for it. Who finds no place is handed back with the reason: `job`
    /// itself or the one it displaced. A login of the first rank for which room was kept finds one, though the bound may
    /// be lower by now.
    #[must_use]
    pub(super) fn push(&self, priority: Priority, job: T, reserved: bool) -> Option<(T, HashError)> {
        let mut waiting = self.lock();
        if reserved {
            waiting.take_back(priority);
        }
        if waiting.closed {
            return Some((job, HashError::Stopped));
        }
        if !reserved && !waiting.has_room_for(priority) {
            return Some((job, HashError::Overloaded));
        }
        let mut displaced = None;
        if priority != Priority::KnownDevice && waiting.within_bound() >= waiting.bound {
            displaced = waiting.give_way_to(priority).map(|youngest| (youngest, HashError::Overloaded));
            if displaced.is_none() && priority != Priority::Login(Rank::FIRST) {
                return Some((job, HashError::Overloaded));
            }
        }
        waiting.lines.entry(priority).or_default().jobs.push_back(job);
        self.ready.notify_one();
        displaced
    }

    /// The next job, if one may be taken at once.
    pub(super) fn take_at_once(&self, ended: &AtomicBool) -> Option<T> {
        let mut waiting = self.lock();
        if ended.load(Ordering::SeqCst) { None } else { waiting.next() }
    }

    /// Waits for the next job; `None` once `ended` is set by [`Queue::dismiss`].
    pub(super) fn take(&self, ended: &AtomicBool) -> Option<T> {
        let mut waiting = self.lock();
        loop {
            if ended.load(Ordering::SeqCst) {
                return None;
            }
            if let Some(job) = waiting.next() {
                return Some(job);
            }
            waiting = self.ready.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Sends home the threads that watch `ended`. The flag is set under the lock, so that none of them goes to sleep
    /// after it, and none of them swallows a wake-up meant for a successor.
    pub(super) fn dismiss(&self, ended: &AtomicBool) {
        let _waiting = self.lock();
        ended.store(true, Ordering::SeqCst);
        self.ready.notify_all();
    }

    /// Lets jobs in again.
    pub(super) fn open(&self) {
        self.lock().closed = false;
    }

    /// Lets no job in until [`Queue::open`], and hands back those that wait.
    pub(super) fn close(&self) -> Vec<T> {
        let mut waiting = self.lock();
        waiting.closed = true;
        waiting.lines.values_mut().flat_map(|line| line.jobs.drain(..)).collect()
    }

    /// Keeps every waiting job where it is while `held`.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn hold(&self, held: bool) {
        self.lock().held = held;
        self.ready.notify_all();
    }

    /// Keeps every waiting rehash where it is while `held`.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn hold_rehashes(&self, held: bool) {
        self.lock().rehashes_held = held;
        self.ready.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Waiting<T>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Waiting<T> {
    /// How many of those that the bound counts wait.
    fn within_bound(&self) -> usize {
        let others = self.lines.iter().filter(|(priority, _)| **priority != Priority::KnownDevice);
        others.map(|(_, line)| line.jobs.len()).sum()
    }

    /// Each takes the place of one of a lower priority, if it must, but not the room that is kept for one of its own or
    /// a higher one. The room for known devices is nobody else's.
    fn has_room_for(&self, priority: Priority) -> bool {
        let (before, bound) = match priority {
            Priority::KnownDevice => (Unbounded, self.bound.div_ceil(PART_FOR_KNOWN_DEVICES)),
            _ => (Excluded(Priority::KnownDevice), self.bound),
        };
        let lines = self.lines.range((before, Included(priority)));
        lines.map(|(_, line)| line.jobs.len() + line.reserved).sum::<usize>() < bound
    }

    /// The youngest job of the last priority behind this one.
    fn give_way_to(&mut self, priority: Priority) -> Option<T> {
        let behind = self.lines.range_mut((Excluded(priority), Unbounded));
        behind.rev().find_map(|(_, line)| line.jobs.pop_back())
    }

    fn take_back(&mut self, priority: Priority) {
        if let Some(line) = self.lines.get_mut(&priority) {
            line.reserved = line.reserved.saturating_sub(1);
        }
    }

    fn next(&mut self) -> Option<T> {
        if self.held {
            return None;
        }
        let logins = (Excluded(Priority::KnownDevice), Excluded(Priority::Background));
        let others = if self.in_a_row >= IN_A_ROW { self.first(logins) } else { None };
        let last = if self.rehashes_held { Excluded(Priority::Rehash) } else { Unbounded };
        let next = others.or_else(|| self.first((Unbounded, last)));
        self.in_a_row = match &next {
            Some((Priority::KnownDevice, _)) => self.in_a_row.saturating_add(1),
            _ => 0,
        };
        next.map(|(_, job)| job)
    }

    /// Takes the first of these priorities.
    fn first(&mut self, among: (Bound<Priority>, Bound<Priority>)) -> Option<(Priority, T)> {
        self.lines.range_mut(among).find_map(|(priority, line)| Some((*priority, line.jobs.pop_front()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGIN: Priority = Priority::Login(Rank::FIRST);

    fn drain(queue: &Queue<u8>) -> Vec<u8> {
        let ended = AtomicBool::new(false);
        (0..queue.len()).filter_map(|_| queue.take(&ended)).collect()
    }

    #[test]
    fn logins_come_first_and_each_priority_keeps_its_order() {
        let queue = Queue::new(8);
        for (priority, job) in [(Priority::Background, 1), (LOGIN, 2), (Priority::Background, 3), (LOGIN, 4)] {
            assert_eq!(queue.push(priority, job, false), None);
        }
        assert_eq!(drain(&queue), [2, 4, 1, 3]);
    }

    #[test]
    fn beyond_the_bound_the_newcomer_is_turned_away() {
        let queue = Queue::new(2);
        assert_eq!(queue.push(Priority::Background, 1, false), None);
        assert_eq!(queue.push(Priority::Background, 2, false), None);
        assert_eq!(queue.push(Priority::Background, 3, false), Some((3, HashError::Overloaded)));
        assert_eq!(drain(&queue), [1, 2]);
    }

    #[test]
    fn a_login_displaces_the_youngest_background_job_but_no_login() {
        let queue = Queue::new(2);
        assert_eq!(queue.push(Priority::Background, 1, false), None);
        assert_eq!(queue.push(Priority::Background, 2, false), None);
        assert_eq!(queue.push(LOGIN, 3, false), Some((2, HashError::Overloaded)));
        assert_eq!(queue.push(LOGIN, 4, false), Some((1, HashError::Overloaded)));
        assert_eq!(queue.push(LOGIN, 5, false), Some((5, HashError::Overloaded)));
        assert_eq!(drain(&queue), [3, 4]);
    }

    #[test]
    fn who_has_a_place_finds_one_and_nobody_else_takes_it() {
        let queue = Queue::new(2);
        let overloaded = |job| Some((job, HashError::Overloaded));
        assert!(queue.reserve(LOGIN) && queue.reserve(Priority::Background));
        assert!(!queue.reserve(Priority::Background), "both are kept");
        assert_eq!(queue.push(Priority::Background, 1, false), overloaded(1));
        assert_eq!(queue.push(Priority::Background, 2, true), None);
        assert!(queue.reserve(LOGIN), "a login takes the other's place");
        assert!(!queue.reserve(LOGIN));
        assert_eq!(queue.push(LOGIN, 3, true), None);
        assert_eq!(queue.push(LOGIN, 4, true), overloaded(2));
        assert_eq!(queue.push(LOGIN, 5, false), overloaded(5));
        assert_eq!(drain(&queue), [3, 4]);
        assert!(queue.reserve(LOGIN) && queue.reserve(LOGIN));
        queue.release(LOGIN);
        assert!(queue.reserve(Priority::Background));
        queue.set_bound(0);
        assert_eq!(queue.push(LOGIN, 6, true), None, "the bound fell meanwhile");
        queue.close();
        assert!(queue.reserve(LOGIN), "the stop is what is to be told");
        assert_eq!(queue.push(LOGIN, 7, true), Some((7, HashError::Stopped)));
    }

    #[test]
    fn a_rehash_comes_last_and_gives_way_to_everybody() {
        let queue = Queue::new(3);
        let overloaded = |job| Some((job, HashError::Overloaded));
        for (priority, job) in [(Priority::Rehash, 1), (Priority::Background, 2), (Priority::Rehash, 3)] {
            assert_eq!(queue.push(priority, job, false), None);
        }
        assert!(!queue.reserve(Priority::Rehash));
        assert_eq!(queue.push(Priority::Rehash, 4, false), overloaded(4));
        assert_eq!(queue.push(Priority::Background, 5, false), overloaded(3), "the youngest rehash");
        assert_eq!(queue.push(LOGIN, 6, false), overloaded(1), "before any background job");
        assert_eq!(queue.push(Priority::Background, 7, false), overloaded(7));
        assert_eq!(queue.push(LOGIN, 8, false), overloaded(5));
        assert_eq!(drain(&queue), [6, 8, 2]);
        // Room that is kept for others is no room, and one that comes for it finds it.
        assert!(queue.reserve(LOGIN) && queue.reserve(Priority::Background));
        assert_eq!(queue.push(Priority::Rehash, 1, false), None);
        assert_eq!(queue.push(Priority::Rehash, 2, false), overloaded(2));
        assert_eq!(queue.push(LOGIN, 3, true), None);
        assert_eq!(queue.push(Priority::Background, 4, true), None);
        queue.hold_rehashes(true);
        let ended = AtomicBool::new(false);
        assert_eq!([queue.take(&ended), queue.take(&ended)], [Some(3), Some(4)]);
        queue.hold_rehashes(false);
        assert_eq!(drain(&queue), [1]);
    }

    #[test]
    fn the_more_failed_or_wait_where_a_login_comes_from_the_later_is_its_turn() {
        let ranks: Vec<_> = [0, 1, 2, 3, 4, 7, 8, 1_000_000].map(|attempts| Rank::of(attempts).0).into();
        assert_eq!(ranks, [0, 1, 2, 2, 3, 3, 4, 20]);
        let queue = Queue::new(5);
        let (overloaded, behind) = (|job| Some((job, HashError::Overloaded)), |rank| Priority::Login(Rank(rank)));
        for (priority, job) in [(behind(3), 1), (Priority::Background, 2), (behind(1), 3), (behind(3), 4), (LOGIN, 5)] {
            assert_eq!(queue.push(priority, job, false), None);
        }
        assert_eq!(queue.push(behind(1), 6, false), overloaded(2), "a registration gives way to any login");
        assert_eq!(queue.push(behind(3), 7, false), overloaded(7), "nobody gives way to their own rank");
        assert_eq!(queue.push(behind(2), 8, false), overloaded(4), "the youngest of the last rank");
        assert!(queue.reserve(behind(2)), "one of a later rank can still be displaced");
        assert!(!queue.reserve(behind(2)) && queue.reserve(LOGIN));
        assert_eq!(queue.push(LOGIN, 9, true), overloaded(1));
        assert_eq!(queue.push(LOGIN, 10, false), overloaded(8));
        assert_eq!(queue.push(behind(2), 11, true), overloaded(11), "room that is kept gives way, too");
        assert_eq!(drain(&queue), [5, 9, 10, 3, 6]);
        queue.set_bound(1);
        for job in 0..10 {
            assert_eq!(queue.push(Priority::KnownDevice, job, false), if job == 0 { None } else { overloaded(job) });
        }
        assert_eq!((queue.push(behind(2), 10, false), drain(&queue)), (None, vec![0, 10]));
    }

    #[test]
    fn a_known_device_passes_a_full_line_takes_nobodys_place_and_its_room_is_bounded() {
        let queue = Queue::new(5);
        let overloaded = |job| Some((job, HashError::Overloaded));
        for job in [1, 2, 3] {
            assert!(queue.reserve(LOGIN));
            assert_eq!(queue.push(LOGIN, job, true), None);
        }
        assert_eq!(queue.push(Priority::Background, 4, false), None);
        assert_eq!(queue.push(Priority::Rehash, 5, false), None);
        assert_eq!(queue.push(Priority::KnownDevice, 6, false), None, "though the line is full");
        assert!(queue.reserve(Priority::KnownDevice) && !queue.reserve(Priority::KnownDevice));
        assert_eq!(queue.push(Priority::KnownDevice, 7, false), overloaded(7), "a place is kept");
        assert_eq!(queue.push(Priority::KnownDevice, 8, true), None);
        assert_eq!(queue.push(Priority::KnownDevice, 9, false), overloaded(9), "a part of the bound, and no more");
        assert_eq!((queue.len(), queue.bound()), (7, 5));
        assert_eq!(queue.push(LOGIN, 10, false), overloaded(5), "their room is beside that of others");
        assert_eq!(drain(&queue), [6, 8, 1, 2, 3, 10, 4]);
        assert!(queue.reserve(Priority::KnownDevice));
        queue.set_bound(0);
        assert_eq!(queue.push(Priority::KnownDevice, 1, true), None, "the bound fell meanwhile");
        assert!(!queue.reserve(Priority::KnownDevice));
        queue.set_bound(1);
        assert_eq!(queue.push(LOGIN, 2, false), None);
        assert!(!queue.reserve(Priority::KnownDevice), "there is one already");
        assert_eq!(queue.close(), [1, 2]);
        assert_eq!(queue.push(Priority::KnownDevice, 3, false), Some((3, HashError::Stopped)));
        assert!(queue.reserve(Priority::KnownDevice), "the stop is what is to be told");
        queue.release(Priority::KnownDevice);
        queue.open();
        assert!(queue.reserve(Priority::KnownDevice), "and there is always room for one");
    }

    #[test]
    fn one_turn_in_eight_is_another_logins_however_many_known_devices_come() {
        let queue = Queue::new(80);
        for job in 0..20 {
            assert_eq!(queue.push(Priority::KnownDevice, job, false), None);
        }
        for job in [100, 101, 102, 103] {
            assert_eq!(queue.push(LOGIN, job, false), None);
        }
        assert_eq!(queue.push(Priority::Background, 200, false), None);
        let served = drain(&queue);
        let others: Vec<_> = served.iter().enumerate().filter(|(_, job)| **job >= 100).collect();
        assert_eq!(others, [(7, &100), (15, &101), (22, &102), (23, &103), (24, &200)]);
    }

    #[test]
    fn a_lower_bound_turns_nobody_away_who_waits_and_a_higher_one_makes_room() {
        let queue = Queue::new(3);
        for job in [1, 2, 3] {
            assert_eq!(queue.push(Priority::Background, job, false), None);
        }
        queue.set_bound(1);
        assert_eq!(queue.push(Priority::Background, 4, false), Some((4, HashError::Overloaded)));
        assert_eq!(queue.push(LOGIN, 5, false), Some((3, HashError::Overloaded)));
        queue.set_bound(4);
        assert_eq!((queue.push(Priority::Background, 6, false), queue.bound()), (None, 4));
        assert_eq!(drain(&queue), [5, 1, 2, 6]);
    }

    #[test]
    fn a_closed_queue_hands_back_its_jobs_and_takes_none_until_it_opens() {
        let queue = Queue::new(4);
        assert_eq!(queue.push(Priority::Background, 1, false), None);
        assert_eq!(queue.push(LOGIN, 2, false), None);
        assert_eq!(queue.close(), [2, 1]);
        assert_eq!(queue.push(LOGIN, 3, false), Some((3, HashError::Stopped)));
        queue.open();
        assert_eq!(queue.push(LOGIN, 4, false), None);
        assert_eq!(drain(&queue), [4]);
    }

    #[test]
    fn a_dismissed_thread_leaves_the_jobs_to_its_successor() {
        let queue = Queue::new(4);
        let (old, new) = (AtomicBool::new(false), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let sleeper = scope.spawn(|| queue.take(&old));
            queue.dismiss(&old);
            assert_eq!(sleeper.join().unwrap(), None);
        });
        assert_eq!(queue.push(LOGIN, 1, false), None);
        assert_eq!(queue.take(&old), None);
        assert_eq!(queue.take(&new), Some(1));
    }
}
