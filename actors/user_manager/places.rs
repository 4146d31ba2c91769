//! Places: what is reserved in memory before any work is spent, and the lines of those who wait for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;

/// How many wait for places under one key; more are refused at once.
const LINE: usize = 128;
/// How many wait for places in all: a small part of the requests that may be under way, so that waiting keeps nobody out.
const LINES: usize = 512;

/// What places are reserved under.
type Key = [u8; 32];

/// Places by key. Their number is bounded by that of the flows under way.
#[derive(Clone, Debug, Default)]
pub(super) struct Places(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    slots: HashMap<Key, Slot>,
    waiting: usize,
}

#[derive(Debug, Default)]
struct Slot {
    reserved: u32,
    waiting: usize,
    /// Tells the first in line of a place that was given back.
    freed: Arc<Notify>,
    /// Whether it was told that the last place is taken, since there were more than one.
    is_told: bool,
}

impl Slot {
    /// Tells the first in line.
    fn tell(&self) {
        if self.waiting > 0 {
            self.freed.notify_one();
        }
    }
}

impl Places {
    /// All of them, as they are until this is dropped.
    pub(super) fn lock(&self) -> Open<'_> {
        Open { places: self, state: self.state() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nobody has told yet that the last place is taken; whoever asks does.
    pub(super) fn tell(&self, key: &Key) -> bool {
        let mut state = self.state();
        state.slots.get_mut(key).is_some_and(|slot| !std::mem::replace(&mut slot.is_told, true))
    }

    #[cfg(test)]
    pub(super) fn keys(&self) -> usize {
        self.state().slots.len()
    }

    fn change(&self, key: &Key, change: impl FnOnce(&mut Slot)) {
        let mut state = self.state();
        let Some(slot) = state.slots.get_mut(key) else { return };
        change(slot);
        if slot.reserved == 0 && slot.waiting == 0 {
            state.slots.remove(key);
        }
    }
}

/// All places, locked.
pub(super) struct Open<'a> {
    places: &'a Places,
    state: MutexGuard<'a, State>,
}

impl Open<'_> {
    /// How many of so many are free for who comes now, behind whoever waits, or for who has waited.
    pub(super) fn free(&self, key: &Key, left: u32, has_waited: bool) -> u32 {
        match self.state.slots.get(key) {
            Some(slot) if slot.waiting > 0 && !has_waited => 0,
            Some(slot) => left.saturating_sub(slot.reserved),
            None => left,
        }
    }

    /// There is a place beside the one that is taken now: the first in line may have it, also if time gave it back and
    /// nobody else does; and that the last one is taken may be told again.
    pub(super) fn has_more(&mut self, key: &Key) {
        if let Some(slot) = self.state.slots.get_mut(key) {
            slot.is_told = false;
            slot.tell();
        }
    }

    /// Reserves a place.
    pub(super) fn hold(&mut self, key: Key) -> Held {
        let slot = self.state.slots.entry(key).or_default();
        slot.reserved = slot.reserved.saturating_add(1);
        Held { places: self.places.clone(), key }
    }

    /// Takes a turn in the line for a place, or keeps the one that it has there, unless the line is full. A turn elsewhere
    /// is to be dropped once this is.
    pub(super) fn line_up(&mut self, key: Key, turn: &mut Option<Waiting>) -> Option<Waiting> {
        if turn.as_ref().is_some_and(|turn| turn.key == key) {
            return turn.take();
        }
        if self.state.waiting >= LINES || self.state.slots.get(&key).is_some_and(|slot| slot.waiting >= LINE) {
            return None;
        }
        self.state.waiting += 1;
        let slot = self.state.slots.entry(key).or_default();
        slot.waiting += 1;
        Some(Waiting { freed: Arc::clone(&slot.freed), places: self.places.clone(), key, is_served: false })
    }
}

/// A place, given back when this is dropped.
#[derive(Debug)]
pub(super) struct Held {
    places: Places,
    key: Key,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.places.change(&self.key, |slot| {
            slot.reserved = slot.reserved.saturating_sub(1);
            slot.tell();
        });
    }
}

/// A turn in a line.
pub(super) struct Waiting {
    freed: Arc<Notify>,
    places: Places,
    key: Key,
    is_served: bool,
}

impl Waiting {
    /// Whether a place was given back before the deadline.
    pub(super) async fn until_freed(&self, deadline: Option<Instant>) -> bool {
        let freed = self.freed.notified();
        match deadline {
            Some(deadline) => tokio::time::timeout_at(deadline, freed).await.is_ok(),
            None => {
                freed.await;
                true
            }
        }
    }

    /// Notes that it took the place that it was told of.
    pub(super) fn served(mut self) {
        self.is_served = true;
    }
}

/// Who leaves without the place that they may have been told of tells the next one.
impl Drop for Waiting {
    fn drop(&mut self) {
        self.places.change(&self.key, |slot| {
            slot.waiting = slot.waiting.saturating_sub(1);
            if !self.is_served {
                slot.tell();
            }
        });
        let mut state = self.places.state();
        state.waiting = state.waiting.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::poll;

    use super::*;

    const KEY: Key = [7; 32];

    /// Unlocked by the time that it is dropped.
    fn line_up(places: &Places, key: Key) -> Option<Waiting> {
        let mut open = places.lock();
        open.line_up(key, &mut None)
    }

    #[tokio::test]
    async fn places_are_given_to_who_waits_in_order_and_nobody_overtakes() {
        let places = Places::default();
        let first = {
            let mut open = places.lock();
            open.hold(KEY)
        };
        assert_eq!([1, 2].map(|left| places.lock().free(&KEY, left, false)), [0, 1]);
        let line: Vec<_> = (0..3).map(|_| line_up(&places, KEY).unwrap()).collect();
        let mut turns: Vec<_> = line.iter().map(|waiting| Box::pin(waiting.until_freed(None))).collect();
        for turn in &mut turns {
            assert!(poll!(turn.as_mut()).is_pending());
        }
        drop(first);
        assert_eq!(places.lock().free(&KEY, 1, false), 0, "others wait");
        assert_eq!(places.lock().free(&KEY, 1, true), 1);
        let told: Vec<_> = turns.iter_mut().map(|turn| futures_util::FutureExt::now_or_never(turn.as_mut())).collect();
        assert_eq!(told, [Some(true), None, None]);
        drop(turns);
        let mut line = line.into_iter();
        drop(line.next());
        let second = line.next().unwrap();
        assert!(second.until_freed(Some(Instant::now())).await, "who left told the next one");
        second.served();
        drop(line);
        assert_eq!(places.keys(), 0);
    }

    #[test]
    fn lines_are_bounded_each_and_in_all() {
        let places = Places::default();
        let mut lines = Vec::new();
        for number in 0..LINES / LINE {
            let key = [u8::try_from(number).unwrap(); 32];
            lines.extend((0..LINE).map(|_| line_up(&places, key).unwrap()));
            assert!(line_up(&places, key).is_none());
        }
        assert!(line_up(&places, [99; 32]).is_none(), "they are {LINES} in all");
        lines.pop();
        assert!(line_up(&places, [99; 32]).is_some());
        lines.clear();
        assert_eq!((places.keys(), places.state().waiting), (0, 0));
    }
}
