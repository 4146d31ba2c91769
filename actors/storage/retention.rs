//! Retention: which subscriptions lie too far behind to hold up pruning any longer, and how far the log is pruned.
//!
//! A signal is pruned once it is older than the app keeps signals and every subscription that has not lapsed has
//! handled it. A subscription lapses when its first unhandled signal is too old, or what it has not handled is too
//! large, whether or not it is being fed. Nothing else is noted about it: the log has no gaps, so whoever reads a place
//! that is not the next one knows exactly what it missed. Whoever feeds a lapsed subscription takes
//! [`CursorRow::lapsed_at`] back once [`Storage::is_overdue`] denies that it lies too far behind; taken back earlier, it
//! lapses again at the next look, and tells so again.

use majordomo_model::{FlowId, MaxLag, Timestamp};

use super::log;
use super::lookup::ReadError;
use super::progress::CursorRow;
use super::redb::View;
use super::row::decode;
use super::table::Table;
use super::{Batch, CommitError, Storage, Unreadable, Write};

/// How many signals one transaction prunes. What waits meanwhile waits a few milliseconds longer.
const PRUNE_CHUNK: usize = 4_096;
/// How many transactions one call prunes in at most: two million signals, which takes some seconds.
const PRUNE_CHUNKS: usize = 512;

/// How far a subscription lies behind the end of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// How many signals it has not handled and can still get.
    pub signals: u64,
    /// Their size, in bytes of the log.
    pub bytes: u64,
    /// The time of the first of them.
    pub since: Option<Timestamp>,
}

impl Lag {
    pub(super) fn of<V: View>(view: &V, cursor: &CursorRow) -> Result<Self, ReadError> {
        let first = cursor.floor().saturating_add(1).max(log::oldest(view)?);
        let signals = log::next_seq(view)?.saturating_sub(first);
        if signals == 0 {
            return Ok(Self::default());
        }
        Ok(Self { signals, bytes: log::bytes_from(view, first)?, since: log::time_from(view, first)? })
    }

    /// Whether it is more than one of these limits allows.
    #[must_use]
    pub fn exceeds(&self, limit: MaxLag, now: Timestamp) -> bool {
        let too_old = |age| self.since.is_some_and(|since| since < now.minus(age));
        limit.age.is_some_and(too_old) || limit.bytes.is_some_and(|bytes| self.bytes > bytes)
    }
}

/// A subscription as retention sees it.
#[derive(Clone, Debug)]
pub(crate) struct Follower {
    pub(crate) name: String,
    pub(crate) cursor: CursorRow,
    pub(crate) lag: Lag,
}

/// Whether a cursor lies further behind than its own limit or the store's allows. One that goes through the log again to
/// build its projection anew is not: it would have the log pruned under its own feet.
fn is_overdue(cursor: &CursorRow, lag: &Lag, limit: MaxLag, now: Timestamp) -> bool {
    if cursor.projection.is_rebuilding() {
        return false;
    }
    lag.exceeds(cursor.max_lag, now) || lag.exceeds(limit, now)
}

/// What is to be done about the log.
#[derive(Debug)]
pub(crate) struct Decision {
    /// The subscriptions that lapse.
    pub(crate) lapses: Vec<Follower>,
    /// The last place that is pruned once they have lapsed.
    pub(crate) prune_to: u64,
}

/// Decides, `young` being the first place of a signal that is not old enough to go.
fn decide(followers: Vec<Follower>, young: u64, limit: MaxLag, now: Timestamp) -> Decision {
    let live = followers.into_iter().filter(|follower| follower.cursor.lapsed_at.is_none());
    let (lapses, holding): (Vec<_>, Vec<_>) =
        live.partition(|follower| is_overdue(&follower.cursor, &follower.lag, limit, now));
    let old = young.saturating_sub(1);
    let prune_to = holding.iter().map(|follower| follower.cursor.floor()).fold(old, u64::min);
    Decision { lapses, prune_to }
}

impl Storage {
    /// The subscriptions that lie too far behind and are to lapse.
    ///
    /// # Errors
    /// [`CommitError::Unavailable`] while the store is out.
    pub(crate) async fn lapses(&self) -> Result<Vec<Follower>, CommitError> {
        Ok(self.decision().await?.lapses)
    }

    /// Whether a subscription lies further behind than its own limit or the store's allows.
    ///
    /// # Errors
    /// [`Unreadable`] while the store is out.
    pub fn is_overdue(&self, cursor: &CursorRow) -> Result<bool, Unreadable> {
        let (limit, now) = (self.shared.settings.max_lag, self.shared.clock.now());
        Ok(is_overdue(cursor, &self.reader().lag(cursor)?, limit, now))
    }

    /// Removes the signals that are older than [`StorageSettings::keep_signals`](super::StorageSettings::keep_signals)
    /// and that every subscription which has not lapsed has handled: chunk by chunk, each a transaction of its own,
    /// before which goes whoever waits. It ends when nothing is left, after two million signals, or when `is_over`
    /// says so; the next call goes on.
    ///
    /// # Errors
    /// Any [`CommitError`].
    pub async fn prune(&self, is_over: impl Fn() -> bool + Send) -> Result<(), CommitError> {
        let prune_to = self.decision().await?.prune_to;
        for _ in 0..PRUNE_CHUNKS {
            let oldest = self.reader().oldest().map_err(|_| CommitError::Unavailable)?;
            if is_over() || oldest > prune_to {
                break;
            }
            let writes = vec![Write::PruneLog(prune_to, PRUNE_CHUNK)];
            self.commit(Batch { writes, ..empty() }).await?;
            if self.reader().oldest().is_ok_and(|now| now == oldest) {
                // A subscription has come, or gone back, that needs the rest.
                break;
            }
            if self.is_waited_for() {
                self.flush().await;
            }
        }
        Ok(())
    }

    async fn decision(&self) -> Result<Decision, CommitError> {
        let (reader, now) = (self.reader(), self.shared.clock.now());
        let (keep, limit) = (self.shared.settings.keep_signals, self.shared.settings.max_lag);
        let look = move || {
            reader.snapshot(|view| {
                let young = log::first_not_before(view, now.minus(keep))?;
                Ok(decide(followers(view)?, young, limit, now))
            })
        };
        // Each cursor costs a look at up to a thousand signals.
        let looked = tokio::task::spawn_blocking(look).await.unwrap_or(Err(Unreadable));
        looked.map_err(|Unreadable| CommitError::Unavailable)
    }
}

fn followers<V: View>(view: &V) -> Result<Vec<Follower>, ReadError> {
    let mut followers = Vec::new();
    for row in view.range(Table::Cursors, &[], None)? {
        let row = row?;
        let cursor: CursorRow = decode(row.value())?;
        let name = String::from_utf8_lossy(row.key()).into_owned();
        followers.push(Follower { name, lag: Lag::of(view, &cursor)?, cursor });
    }
    Ok(followers)
}

pub(super) fn empty() -> Batch {
    Batch { flow: FlowId::new(), outcome: None, checks: Vec::new(), writes: Vec::new(), signals: Vec::new() }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::from_micros(1_000_000_000);

    fn seconds_ago(seconds: u64) -> Timestamp {
        NOW.minus(Duration::from_secs(seconds))
    }

    fn age(seconds: u64) -> MaxLag {
        MaxLag { age: Some(Duration::from_secs(seconds)), bytes: None }
    }

    fn bytes(bytes: u64) -> MaxLag {
        MaxLag { age: None, bytes: Some(bytes) }
    }

    fn follower(taken: u64, lag: Lag, max_lag: MaxLag) -> Follower {
        Follower { name: "mail".to_owned(), cursor: CursorRow { taken, max_lag, ..CursorRow::default() }, lag }
    }

    #[test]
    fn a_limit_is_exceeded_by_age_or_by_bytes_and_only_beyond_it() {
        let lag = Lag { signals: 3, bytes: 100, since: Some(seconds_ago(10)) };
        let over = |limit| lag.exceeds(limit, NOW);
        assert_eq!([over(age(9)), over(age(10)), over(age(11))], [true, false, false]);
        assert_eq!([over(bytes(99)), over(bytes(100)), over(MaxLag::default())], [true, false, false]);
        assert!(
            !Lag::default().exceeds(MaxLag { age: Some(Duration::ZERO), bytes: Some(0) }, NOW),
            "nothing is behind"
        );
    }

    #[test]
    fn a_subscription_lapses_beyond_its_own_limit_and_beyond_the_stores() {
        let lag = Lag { signals: 3, bytes: 100, since: Some(seconds_ago(10)) };
        let lapses = |own, limit| decide(vec![follower(4, lag, own)], 1, limit, NOW).lapses.len();
        assert_eq!(lapses(bytes(99), MaxLag::default()), 1);
        assert_eq!(lapses(bytes(1_000), age(9)), 1, "a generous limit of its own does not lift the store's");
        assert_eq!(lapses(bytes(1_000), age(60)), 0);
    }

    fn followers() -> impl Strategy<Value = Vec<Follower>> {
        let span = || prop::option::of(0_u64..40);
        let one = (0_u64..30, 0_u64..40, 0_u64..40, any::<bool>(), span(), span()).prop_map(
            |(taken, bytes, since, lapsed, age, most)| Follower {
                name: String::new(),
                lag: Lag { signals: 1, bytes, since: Some(seconds_ago(since)) },
                cursor: CursorRow {
                    taken,
                    lapsed_at: lapsed.then_some(NOW),
                    max_lag: MaxLag { age: age.map(Duration::from_secs), bytes: most },
                    ..CursorRow::default()
                },
            },
        );
        let named = |(place, follower): (u8, Follower)| Follower { name: format!("{place}"), ..follower };
        prop::collection::vec(one, 0..6).prop_map(move |all| (0_u8..).zip(all).map(named).collect())
    }

    proptest! {
        #[test]
        fn pruning_stops_below_what_is_young_and_at_the_floor_of_whoever_has_not_lapsed(
            followers in followers(), young in 1_u64..30, limit in prop::option::of(0_u64..40),
        ) {
            let limit = MaxLag { age: None, bytes: limit };
            let Decision { lapses, prune_to } = decide(followers.clone(), young, limit, NOW);
            prop_assert!(prune_to < young);
            let mut floors = Vec::new();
            for follower in &followers {
                let lapsing = lapses.iter().filter(|lapse| lapse.name == follower.name).count();
                let live = follower.cursor.lapsed_at.is_none();
                let overdue = follower.lag.exceeds(limit, NOW) || follower.lag.exceeds(follower.cursor.max_lag, NOW);
                prop_assert_eq!(lapsing > 0, live && overdue);
                if live && !overdue {
                    prop_assert!(prune_to <= follower.cursor.floor());
                    floors.push(follower.cursor.floor());
                }
            }
            prop_assert!(prune_to == young - 1 || floors.contains(&prune_to), "it goes as far as it may");
        }
    }
}
