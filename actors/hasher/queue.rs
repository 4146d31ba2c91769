//! The bounded queue between callers and hash threads; it outlives both.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::HashError;

/// Whose turn comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Priority {
    /// Somebody waits at the door: a password is checked.
    Login,
    /// A new hash: registration, a changed password, a rehash.
    Background,
}

/// A bounded queue with two priorities, first in first out within each.
///
/// The bound counts both priorities, and may change; who waits by then stays. A login that finds no place takes that of
/// the youngest background job, so a flood of registrations cannot shut the door.
pub(super) struct Queue<T> {
    waiting: Mutex<Waiting<T>>,
    ready: Condvar,
}

struct Waiting<T> {
    bound: usize,
    login: VecDeque<T>,
    background: VecDeque<T>,
    /// How many logins, and how many background jobs, there is room kept for.
    reserved: [usize; 2],
    closed: bool,
    held: bool,
}

impl<T> Queue<T> {
    pub(super) fn new(bound: usize) -> Self {
        let (login, background) = (VecDeque::new(), VecDeque::new());
        let waiting = Waiting { bound, login, background, reserved: [0; 2], closed: false, held: false };
        Self { waiting: Mutex::new(waiting), ready: Condvar::new() }
    }

    pub(super) fn bound(&self) -> usize {
        self.lock().bound
    }

    pub(super) fn set_bound(&self, bound: usize) {
        self.lock().bound = bound;
    }

    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    /// Keeps room for a job of this priority, until it comes or [`Queue::release`] is told that it does not. Answers
    /// whether there is any; of a closed queue, too, since the stop is what is to be told.
    pub(super) fn reserve(&self, priority: Priority) -> bool {
        let mut waiting = self.lock();
        let has_room = waiting.closed || waiting.has_room_for(priority);
        if has_room {
            *waiting.reserved(priority) += 1;
        }
        has_room
    }

    /// Gives back the room that was kept.
    pub(super) fn release(&self, priority: Priority) {
        self.lock().take_back(priority);
    }

    /// Puts `job` in line, `reserved` if room was kept for it. Who finds no place is handed back with the reason: `job`
    /// itself or the one it displaced. A login for which room was kept finds one, though the bound may be lower by now.
    #[must_use]
    pub(super) fn push(&self, priority: Priority, job: T, reserved: bool) -> Option<(T, HashError)> {
        let mut waiting = self.lock();
        if reserved {
            waiting.take_back(priority);
        }
        if waiting.closed {
            return Some((job, HashError::Stopped));
        }
        let (is_login, mut displaced) = (priority == Priority::Login, None);
        if waiting.len() >= waiting.bound || !(reserved || waiting.has_room_for(priority)) {
            match waiting.background.pop_back() {
                Some(youngest) if is_login => displaced = Some((youngest, HashError::Overloaded)),
                None if is_login && reserved => {}
                youngest => {
                    waiting.background.extend(youngest);
                    return Some((job, HashError::Overloaded));
                }
            }
        }
        match priority {
            Priority::Login => waiting.login.push_back(job),
            Priority::Background => waiting.background.push_back(job),
        }
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
        let Waiting { login, background, .. } = &mut *waiting;
        login.drain(..).chain(background.drain(..)).collect()
    }

    /// Keeps every waiting job where it is while `held`.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn hold(&self, held: bool) {
        self.lock().held = held;
        self.ready.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Waiting<T>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Waiting<T> {
    fn len(&self) -> usize {
        self.login.len() + self.background.len()
    }

    /// A login takes the place of a background job, if it must, but not the room that is kept for another login.
    fn has_room_for(&self, priority: Priority) -> bool {
        let [logins, others] = self.reserved;
        match priority {
            Priority::Login => self.login.len() + logins < self.bound,
            Priority::Background => self.len() + logins + others < self.bound,
        }
    }

    const fn reserved(&mut self, priority: Priority) -> &mut usize {
        let [logins, others] = &mut self.reserved;
        match priority {
            Priority::Login => logins,
            Priority::Background => others,
        }
    }

    fn take_back(&mut self, priority: Priority) {
        let reserved = self.reserved(priority);
        *reserved = reserved.saturating_sub(1);
    }

    fn next(&mut self) -> Option<T> {
        if self.held {
            return None;
        }
        self.login.pop_front().or_else(|| self.background.pop_front())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(queue: &Queue<u8>) -> Vec<u8> {
        let ended = AtomicBool::new(false);
        (0..queue.len()).filter_map(|_| queue.take(&ended)).collect()
    }

    #[test]
    fn logins_come_first_and_each_priority_keeps_its_order() {
        let queue = Queue::new(8);
        for (priority, job) in
            [(Priority::Background, 1), (Priority::Login, 2), (Priority::Background, 3), (Priority::Login, 4)]
        {
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
        assert_eq!(queue.push(Priority::Login, 3, false), Some((2, HashError::Overloaded)));
        assert_eq!(queue.push(Priority::Login, 4, false), Some((1, HashError::Overloaded)));
        assert_eq!(queue.push(Priority::Login, 5, false), Some((5, HashError::Overloaded)));
        assert_eq!(drain(&queue), [3, 4]);
    }

    #[test]
    fn who_has_a_place_finds_one_and_nobody_else_takes_it() {
        let queue = Queue::new(2);
        let overloaded = |job| Some((job, HashError::Overloaded));
        assert!(queue.reserve(Priority::Login) && queue.reserve(Priority::Background));
        assert!(!queue.reserve(Priority::Background), "both are kept");
        assert_eq!(queue.push(Priority::Background, 1, false), overloaded(1));
        assert_eq!(queue.push(Priority::Background, 2, true), None);
        assert!(queue.reserve(Priority::Login), "a login takes the other's place");
        assert!(!queue.reserve(Priority::Login));
        assert_eq!(queue.push(Priority::Login, 3, true), None);
        assert_eq!(queue.push(Priority::Login, 4, true), overloaded(2));
        assert_eq!(queue.push(Priority::Login, 5, false), overloaded(5));
        assert_eq!(drain(&queue), [3, 4]);
        assert!(queue.reserve(Priority::Login) && queue.reserve(Priority::Login));
        queue.release(Priority::Login);
        assert!(queue.reserve(Priority::Background));
        queue.set_bound(0);
        assert_eq!(queue.push(Priority::Login, 6, true), None, "the bound fell meanwhile");
        queue.close();
        assert!(queue.reserve(Priority::Login), "the stop is what is to be told");
        assert_eq!(queue.push(Priority::Login, 7, true), Some((7, HashError::Stopped)));
    }

    #[test]
    fn a_lower_bound_turns_nobody_away_who_waits_and_a_higher_one_makes_room() {
        let queue = Queue::new(3);
        for job in [1, 2, 3] {
            assert_eq!(queue.push(Priority::Background, job, false), None);
        }
        queue.set_bound(1);
        assert_eq!(queue.push(Priority::Background, 4, false), Some((4, HashError::Overloaded)));
        assert_eq!(queue.push(Priority::Login, 5, false), Some((3, HashError::Overloaded)));
        queue.set_bound(4);
        assert_eq!((queue.push(Priority::Background, 6, false), queue.bound()), (None, 4));
        assert_eq!(drain(&queue), [5, 1, 2, 6]);
    }

    #[test]
    fn a_closed_queue_hands_back_its_jobs_and_takes_none_until_it_opens() {
        let queue = Queue::new(4);
        assert_eq!(queue.push(Priority::Background, 1, false), None);
        assert_eq!(queue.push(Priority::Login, 2, false), None);
        assert_eq!(queue.close(), [2, 1]);
        assert_eq!(queue.push(Priority::Login, 3, false), Some((3, HashError::Stopped)));
        queue.open();
        assert_eq!(queue.push(Priority::Login, 4, false), None);
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
        assert_eq!(queue.push(Priority::Login, 1, false), None);
        assert_eq!(queue.take(&old), None);
        assert_eq!(queue.take(&new), Some(1));
    }
}
