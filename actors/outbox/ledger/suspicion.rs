//! Suspicion: of many signals that may have ended a process the store is told of a share at once.

use super::{Entry, Ledger};

/// So few suspects are each known to the store before they are handed over.
const FEW: u64 = 32;
/// The share of more suspects that it is told of at once.
const SHARES: u64 = 16;

impl Ledger {
    /// Notes that the store is about to be told of the suspect of this place. Of many it is told of a share at once: if
    /// the process ends over them, it is these that are suspected next, until they are few enough to be told of one by one.
    pub(in crate::outbox) fn vouch(&mut self, suspect: u64) {
        let left = self.suspects.saturating_sub(suspect).saturating_add(1);
        let is_guilty = self.entries.get(&suspect).is_some_and(|entry| entry.guilty);
        if left > FEW && !is_guilty {
            self.vouched = suspect.saturating_add((left / SHARES).max(FEW)).saturating_sub(1);
        }
    }

    /// Up to where signals are in hand at most while suspects are handed over many at a time.
    pub(in crate::outbox) fn vouched(&self) -> Option<u64> {
        let is_suspect = |(_, entry): (_, &Entry)| entry.suspect;
        let goes_on = self.taken < self.vouched || self.entries.range(..=self.vouched).any(is_suspect);
        goes_on.then_some(self.vouched)
    }

    pub(super) const fn is_vouched_for(&self, seq: u64, entry: &Entry) -> bool {
        seq <= self.vouched && !entry.guilty
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};
    use std::sync::Arc;

    use majordomo_model::{Actor, Context, Envelope, FlowId, Lane, Signal, SignalId, Timestamp};
    use tokio::time::Instant;

    use super::super::{HandOver, Now};
    use super::*;
    use crate::outbox::registration::SubscriptionSettings;
    use crate::stamp::Stamp;
    use crate::storage::{CursorRow, OpenState};

    const GUILTY: u64 = 700;

    fn now() -> Now {
        Now { instant: Instant::now(), clock: Timestamp::from_micros(0) }
    }

    fn signal() -> Arc<Envelope> {
        let flow = FlowId::new();
        let (actor, context) = (Actor::System, Context::new());
        let stamp = Stamp { flow, cause: None, lane: Lane::Flow(flow), actor, context };
        let signal = Signal::UserLogoutStarted { session: None };
        Arc::new(stamp.envelope(SignalId::new(), Timestamp::from_micros(0), signal, None))
    }

    /// Handles everything up to the guilty one, over which the process ends; what is stored then, and after how many
    /// commits.
    fn crash(row: &CursorRow) -> (CursorRow, usize) {
        let mut ledger = Ledger::new(row, now(), row.leased, HashMap::new(), &SubscriptionSettings::default());
        row.open.iter().for_each(|open| ledger.supply(open.seq, signal()));
        let (mut stored, mut commits) = (row.clone(), 0);
        loop {
            while ledger.room() > 0 && ledger.taken() < 1_000 {
                ledger.take(ledger.taken() + 1, Some(signal()));
            }
            let HandOver { places, on_record } = ledger.next(now()).unwrap();
            if on_record {
                ledger.vouch(places[0]);
                ledger.enter(now(), &mut stored);
                stored.leased = ledger.vouched().unwrap_or(stored.taken + 256);
                commits += 1;
            }
            assert!(places[0] <= stored.leased);
            if places == [GUILTY] {
                return (stored, commits);
            }
            ledger.finish(places[0]);
            ledger.close_hand_over();
        }
    }

    #[test]
    fn of_a_thousand_suspects_the_guilty_one_is_found_in_few_ends_and_commits() {
        let mut row = CursorRow { leased: 1_000, ..CursorRow::default() };
        let mut narrower = BTreeMap::new();
        for end in 1_u64.. {
            let (stored, commits) = crash(&row);
            assert!(commits <= 40, "{commits}");
            narrower.insert(end, stored.leased);
            row = stored;
            let open = row.open.iter().find(|open| open.seq == GUILTY);
            if open.is_some_and(|open| open.state == OpenState::InHand) {
                assert!(end <= 4, "{narrower:?}");
                return;
            }
        }
    }
}
