//! The lease: how far ahead signals may be handed over before the store is told again, and its renewal without a wait.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;

use super::Feed;
use super::progress;
use super::worker::{Cut, Worker};
use crate::storage::Work;

/// How far a lease reaches at least: so many signals are suspected when a process ends, fewer if the log ends before.
pub(super) const LEASE: u64 = 256;
/// How far it reaches at most.
const LEASE_LIMIT: u64 = 2_048;
/// For how long a lease is to last: for longer than two commits as a rule, so that it is renewed before it is used up.
const LASTS: Duration = Duration::from_millis(30);

/// How far leases reach, by how fast signals were handled since the last one.
#[derive(Debug)]
pub(super) struct Pace {
    reach: u64,
    place: u64,
    since: Instant,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self { reach: LEASE, place: u64::MAX, since: Instant::now() }
    }

    /// How far a lease reaches.
    pub(super) const fn reach(&self) -> u64 {
        self.reach
    }

    /// Notes that a lease is taken once everything up to a place was handed over.
    fn take(&mut self, place: u64, now: Instant) {
        let (handled, took) = (place.saturating_sub(self.place), now.saturating_duration_since(self.since));
        let lasting = u128::from(handled).saturating_mul(LASTS.as_micros()) / took.as_micros().max(1);
        self.reach = u64::try_from(lasting).unwrap_or(LEASE_LIMIT).clamp(LEASE, LEASE_LIMIT);
        (self.place, self.since) = (place, now);
    }

    /// Notes that there is nothing more to hand over for now.
    fn rest(&mut self) {
        (self.reach, self.place) = (LEASE, u64::MAX);
    }
}

/// How long after the store refused a renewal it is sent again.
const AGAIN_AFTER: Duration = Duration::from_millis(250);

/// A lease on its way to the store.
pub(super) struct Renewal {
    commit: Pin<Box<dyn Future<Output = Result<bool, Cut>> + Send>>,
    /// What is on its way.
    work: Work,
    /// Whether the store has refused it, and it is to be sent again before anything that follows it.
    refused: bool,
    revision: u64,
    leased: u64,
    /// What of the projection goes with it.
    span: u64,
}

/// Waits for what comes of a renewal; for ever where there is none.
pub(super) async fn arrival(renewal: &mut Option<Renewal>) -> Result<bool, Cut> {
    match renewal {
        Some(renewal) => renewal.commit.as_mut().await,
        None => std::future::pending().await,
    }
}

fn send(feed: &Arc<Feed>, work: Work, after: Duration) -> Pin<Box<dyn Future<Output = Result<bool, Cut>> + Send>> {
    let feed = Arc::clone(feed);
    Box::pin(async move {
        if !after.is_zero() {
            tokio::time::sleep(after).await;
        }
        progress::came_to(feed.storage.commit_work(&work, Duration::ZERO).await)
    })
}

impl Worker {
    /// Renews the lease once half of it is used, while there is more to hand over. Nothing waits for it until it is used
    /// up.
    pub(super) fn renew(&mut self) -> Result<(), Cut> {
        if !self.more {
            self.pace.rest();
            return Ok(());
        }
        let touched = self.ledger.touched();
        let used_up = |leased: u64| leased.saturating_sub(touched) < self.pace.reach() / 2;
        if self.renewal.is_some() || !self.cursor.as_ref().is_some_and(|cursor| used_up(cursor.leased())) {
            return Ok(());
        }
        self.pace.take(touched, Instant::now());
        let row = self.row();
        let Some(cursor) = &mut self.cursor else { return Err(Cut::Lost) };
        let (revision, leased) = (row.revision, row.leased);
        let work = Work::prepare(cursor.renew(row)).map_err(|_| Cut::Lost)?;
        let commit = send(&self.feed, work.clone(), Duration::ZERO);
        let span = self.feed.desk.projection().leave();
        let mut renewal = Renewal { commit, work, refused: false, revision, leased, span };
        // Sent at once: what is left for later from now on expects it.
        let sent = renewal.commit.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        self.renewal = Some(renewal);
        self.note_settled();
        match sent {
            Poll::Ready(committed) => self.conclude_renewal(committed),
            Poll::Pending => Ok(()),
        }
    }

    /// Waits for a renewal that the store had refused, which has to be there before what follows it.
    pub(super) async fn renewed_again(&mut self) -> Result<(), Cut> {
        if self.renewal.as_ref().is_some_and(|renewal| renewal.refused) { self.renewed().await } else { Ok(()) }
    }

    /// Waits for the renewal that is under way, if there is one, and goes on from it.
    pub(super) async fn renewed(&mut self) -> Result<(), Cut> {
        if self.renewal.is_none() {
            return Ok(());
        }
        let committed = arrival(&mut self.renewal).await;
        self.conclude_renewal(committed)
    }

    /// Goes on from a renewal that has come to its end.
    pub(super) fn conclude_renewal(&mut self, committed: Result<bool, Cut>) -> Result<(), Cut> {
        let Some(mut renewal) = self.renewal.take() else { return Ok(()) };
        if committed == Err(Cut::StoreOut) {
            // All that it carries is kept, so nothing is handed over again for the sake of an outage. If it is in the
            // store after all, it will not be taken twice.
            renewal.commit = send(&self.feed, renewal.work.clone(), AGAIN_AFTER);
            renewal.refused = true;
            self.renewal = Some(renewal);
            return Err(Cut::StoreOut);
        }
        if !committed? {
            return Err(Cut::Lost);
        }
        let Renewal { revision, leased, span, .. } = renewal;
        if let Some(cursor) = &mut self.cursor {
            cursor.renewed(revision, leased);
        }
        self.feed.desk.projection().stored_until(span);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_reaches_as_far_as_is_handled_while_it_lasts() {
        let (mut pace, origin) = (Pace::new(), Instant::now());
        let mut reach = |place, millis| {
            pace.take(place, origin + Duration::from_millis(millis));
            pace.reach()
        };
        assert_eq!(reach(0, 0), LEASE, "nothing is known yet");
        assert_eq!(reach(500, 10), 1_500);
        assert_eq!(reach(600, 40), LEASE);
        assert_eq!(reach(1_000_600, 70), LEASE_LIMIT);
        pace.rest();
        assert_eq!(pace.reach(), LEASE);
    }
}
