//! Known sessions: those that were looked up lately, kept in memory for as long as nothing that they follow from changed.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use majordomo_model::{Session, Timestamp, User};
use quick_cache::sync::Cache;
use serde_json::Value;

use super::batch::Write;
use super::lookup::Lookup;
use super::row::{ActivityRow, SessionRow, UserRow};
use super::{Storage, Unreadable};

/// How many marks there are: users and sessions share them. A change of one makes those that share its mark be looked
/// up again, no more.
const MARKS: u64 = 1 << 16;

/// A session and its user, of one snapshot. The session was opened in the epoch that the user is in, and the user is
/// let in; whether it is too late for it is for whoever asks.
#[derive(Debug)]
pub(crate) struct KnownSession {
    /// The session.
    pub(crate) session: Session,
    /// Its user.
    pub(crate) user: User,
    /// The latest use, to within what is too little to be noted.
    used_at: AtomicI64,
    /// What [`Marks::latest`] was before the snapshot.
    looked_up: u64,
}

impl KnownSession {
    /// When it was used last, as far as is known: of what the store was not told, too.
    pub(crate) fn used_at(&self) -> Timestamp {
        Timestamp::from_micros(self.used_at.load(Ordering::Relaxed))
    }

    /// Whether `now` is the first use that is at least so much later than the one that was noted last: then the store is
    /// to be told, by this caller alone.
    pub(crate) fn is_use_to_note(&self, now: Timestamp, coarseness: std::time::Duration) -> bool {
        let noted = self.used_at.load(Ordering::Relaxed);
        now.since(Timestamp::from_micros(noted)) >= coarseness
            && self.used_at.compare_exchange(noted, now.as_micros(), Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

/// The sessions that are kept, and the marks that tell which of them may be believed.
///
/// A commit marks what it changes before anybody can see that it took place. So whoever is told that a session was ended,
/// or a user disabled, or reads it, finds nothing here that says otherwise.
pub(super) struct KnownSessions {
    marks: Marks,
    kept: Option<Cache<[u8; 32], Arc<KnownSession>, Weigher>>,
}

impl KnownSessions {
    /// Keeps at most so many, and fewer where their users are large.
    pub(super) fn new(limit: usize) -> Self {
        let cache = || Cache::with_weighter(limit, limit as u64, Weigher);
        Self { marks: Marks::new(), kept: (limit > 0).then(cache) }
    }

    /// What is known of a session, unless something that it follows from may have changed since.
    pub(super) fn get(&self, hash: &[u8; 32]) -> Option<Arc<KnownSession>> {
        let known = self.kept.as_ref()?.get(hash)?;
        let marks = [mark_of(hash), mark_of(known.user.id.as_bytes())];
        marks.into_iter().all(|mark| self.marks.last(mark) <= known.looked_up).then_some(known)
    }

    /// To be asked before the snapshot that [`KnownSessions::keep`] is given the rows of.
    pub(super) fn before_snapshot(&self) -> u64 {
        self.marks.latest()
    }

    /// Keeps a session that may be used.
    pub(super) fn keep(
        &self,
        looked_up: u64,
        hash: [u8; 32],
        session: &SessionRow,
        user: &UserRow,
        activity: Option<&ActivityRow>,
    ) -> Arc<KnownSession> {
        let known = Arc::new(KnownSession {
            session: session.view(),
            user: user.view(activity),
            used_at: AtomicI64::new(session.last_seen_at.as_micros()),
            looked_up,
        });
        if let Some(kept) = &self.kept {
            kept.insert(hash, Arc::clone(&known));
        }
        known
    }

    /// Marks what a transaction changes that is about to be committed. Until [`KnownSessions::changed`] is told that it was,
    /// all that is marked is looked up whenever it is asked for.
    pub(super) fn change<'a>(&self, writes: impl Iterator<Item = &'a Write>) -> Change {
        self.marks.set(writes.filter_map(changed_mark))
    }

    /// Notes that what was marked can be seen by everybody from now on.
    pub(super) fn changed(&self, change: Change) {
        self.marks.pass(change);
    }

    /// Believes nothing any more that was looked up so far: nobody knows what was changed. To be called while nothing can
    /// be looked up.
    pub(super) fn doubt_all(&self) {
        self.marks.pass(self.marks.set(0..MARKS));
    }
}

/// How many ordinary ones a session counts for, by the memory that it takes with its user.
#[derive(Clone)]
struct Weigher;

/// The memory that an ordinary session takes, in bytes.
const ORDINARY: usize = 2_048;

impl quick_cache::Weighter<[u8; 32], Arc<KnownSession>> for Weigher {
    fn weight(&self, _hash: &[u8; 32], known: &Arc<KnownSession>) -> u64 {
        let User { profile, groups, contacts, .. } = &known.user;
        let attributes = profile.attributes.iter().map(|(name, value)| named_bytes(name, value));
        // Contacts are few and their addresses short; so are the other parts of a profile.
        let others = groups.iter().map(|group| NAMED + group.len()).chain(contacts.iter().map(|_| 2 * NAMED));
        let beyond = attributes.chain(others).fold(0, usize::saturating_add);
        (1 + beyond / ORDINARY) as u64
    }
}

/// What a name takes in a map beside its text.
const NAMED: usize = 64;

fn named_bytes(name: &str, value: &Value) -> usize {
    NAMED.saturating_add(name.len()).saturating_add(value_bytes(value))
}

fn value_bytes(value: &Value) -> usize {
    let inside = match value {
        Value::String(text) => text.len(),
        Value::Array(values) => values.iter().map(value_bytes).fold(0, usize::saturating_add),
        Value::Object(named) => {
            named.iter().map(|(name, value)| named_bytes(name, value)).fold(0, usize::saturating_add)
        }
        _ => 0,
    };
    size_of::<Value>().saturating_add(inside)
}

impl Storage {
    /// A session and its user, by the hash of the session's secret, if the session was opened in the epoch that the user is
    /// in and the user is let in; whether its time is over is for the caller to see. Answered from memory where nothing
    /// that it follows from has changed since it was looked up, and then also while the store is out.
    ///
    /// # Errors
    /// [`Unreadable`].
    pub(crate) fn known_session(&self, hash: &[u8; 32]) -> Result<Option<Arc<KnownSession>>, Unreadable> {
        let sessions = &self.shared.sessions;
        if !self.is_released()
            && let Some(known) = sessions.get(hash)
        {
            return Ok(Some(known));
        }
        self.shared.counters.sessions_looked_up.fetch_add(1, Ordering::Relaxed);
        let looked_up = sessions.before_snapshot();
        self.reader().snapshot(|view| {
            let Some(session) = view.session(hash)? else { return Ok(None) };
            let Some(user) = view.user(session.user)?.filter(|user| session.is_of(user)) else { return Ok(None) };
            let activity = view.activity(user.id)?;
            Ok(Some(sessions.keep(looked_up, *hash, &session, &user, activity.as_ref())))
        })
    }
}

/// The mark of the session or user that a write changes; `None` for a write that no session's answer depends on.
fn changed_mark(write: &Write) -> Option<u64> {
    match write {
        Write::PutUser(row) => Some(mark_of(row.id.as_bytes())),
        Write::RemoveUser(user) | Write::RemoveSessionsOf(user, _) | Write::RecordLogin(user, _) => {
            Some(mark_of(user.as_bytes()))
        }
        Write::PutSession(hash, _) | Write::RemoveSession(hash) | Write::TouchSession(hash, _) => Some(mark_of(hash)),
        // What is swept ended by time, which is looked at whenever a session is asked for.
        Write::Sweep(..)
        | Write::PutCredential(..)
        | Write::RemoveCredential(_)
        | Write::PutOwner(..)
        | Write::RemoveOwner(_)
        | Write::PutClaim(..)
        | Write::RemoveClaim(..)
        | Write::ExpectVerification(..)
        | Write::ForgetVerification(_)
        | Write::PutChange(_)
        | Write::RemoveChange(..)
        | Write::PutToken(_)
        | Write::EndToken(..)
        | Write::CountAttempt(_)
        | Write::EndDelivery(..)
        | Write::PutMessages(..)
        | Write::PutAttempts(..)
        | Write::Spend { .. }
        | Write::CountText(..)
        | Write::PutTexts(..)
        | Write::RecordFailure(..)
        | Write::ClearFailures(_)
        | Write::PutCursor(..)
        | Write::RemoveCursor(_)
        | Write::PutProjection(..)
        | Write::RemoveProjection(..)
        | Write::DropProjection(..)
        | Write::PutLetter(..)
        | Write::RemoveLetter(..)
        | Write::PutDispatch(..)
        | Write::PruneLog(..) => None,
    }
}

/// The last bytes are random both in the hash of a session and in the name of a user (`UUIDv7`, which counts in others).
fn mark_of(name: &[u8]) -> u64 {
    name.iter().skip(name.len().saturating_sub(8)).fold(0, |number, byte| number << 8 | u64::from(*byte)) % MARKS
}

/// Which change last touched what, coarsely.
///
/// Changes are numbered before they can be seen in a snapshot, and passed once they can. A snapshot that was begun after
/// [`Marks::latest`] answered n therefore shows every change up to n; it may be out of date as soon as a mark is higher.
struct Marks {
    last: Box<[AtomicU64]>,
    numbered: AtomicU64,
    latest: AtomicU64,
}

impl Marks {
    fn new() -> Self {
        let last = std::iter::repeat_with(AtomicU64::default).take(MARKS as usize).collect();
        Self { last, numbered: AtomicU64::new(0), latest: AtomicU64::new(0) }
    }

    fn latest(&self) -> u64 {
        self.latest.load(Ordering::SeqCst)
    }

    /// A mark that does not exist is believed by nobody.
    fn last(&self, mark: u64) -> u64 {
        let mark = usize::try_from(mark).ok().and_then(|mark| self.last.get(mark));
        mark.map_or(u64::MAX, |last| last.load(Ordering::SeqCst))
    }

    fn set(&self, marks: impl Iterator<Item = u64>) -> Change {
        let number = self.numbered.fetch_add(1, Ordering::SeqCst).saturating_add(1);
        for mark in marks.filter_map(|mark| usize::try_from(mark).ok()) {
            if let Some(last) = self.last.get(mark) {
                last.fetch_max(number, Ordering::SeqCst);
            }
        }
        Change(number)
    }

    fn pass(&self, Change(number): Change) {
        self.latest.fetch_max(number, Ordering::SeqCst);
    }
}

/// A change that is marked and cannot be seen yet.
#[must_use]
pub(super) struct Change(u64);

#[cfg(test)]
mod tests {

    use std::sync::atomic::AtomicBool;
    use std::time::Duration;

    use majordomo_model::{Context, SessionId, UserId};
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);

    fn user() -> UserRow {
        UserRow::unknown(UserId::new(), NOW)
    }

    fn session_of(user: &UserRow) -> SessionRow {
        SessionRow {
            id: SessionId::new(),
            user: user.id,
            epoch: user.epoch,
            created_at: NOW,
            last_seen_at: NOW,
            expires_at: NOW.plus(Duration::from_secs(3_600)),
            context: Context::new(),
        }
    }

    fn kept(sessions: &KnownSessions, hash: [u8; 32], user: &UserRow) {
        sessions.keep(sessions.before_snapshot(), hash, &session_of(user), user, None);
    }

    #[test]
    fn each_change_of_a_session_or_its_user_ends_what_is_known_of_it_and_no_other_does() {
        let (user, other, hash) = (user(), user(), [7; 32]);
        let session = session_of(&user);
        let ending = [
            Write::PutUser(Box::new(user.clone())),
            Write::RemoveUser(user.id),
            Write::RemoveSessionsOf(user.id, None),
            Write::RecordLogin(user.id, NOW),
            Write::PutSession(hash, Box::new(session)),
            Write::RemoveSession(hash),
            Write::TouchSession(hash, NOW),
        ];
        let sessions = KnownSessions::new(10);
        for write in ending {
            kept(&sessions, hash, &user);
            assert!(sessions.get(&hash).is_some());
            let change = sessions.change([&write].into_iter());
            assert!(sessions.get(&hash).is_none(), "{write:?}");
            kept(&sessions, hash, &user);
            assert!(sessions.get(&hash).is_none(), "{write:?} may show or not show in what was looked up");
            sessions.changed(change);
            assert!(sessions.get(&hash).is_none(), "{write:?}");
        }
        kept(&sessions, hash, &user);
        for write in [Write::PutUser(Box::new(other)), Write::RemoveSession([8; 32]), Write::Sweep(NOW, 9)] {
            sessions.changed(sessions.change([&write].into_iter()));
            assert!(sessions.get(&hash).is_some(), "{write:?}");
        }
        sessions.doubt_all();
        assert!(sessions.get(&hash).is_none());
    }

    #[test]
    fn what_changed_between_the_snapshot_and_its_keeping_is_not_believed() {
        let (sessions, user, hash) = (KnownSessions::new(10), user(), [7; 32]);
        let looked_up = sessions.before_snapshot();
        sessions.changed(sessions.change([&Write::RemoveSession(hash)].into_iter()));
        sessions.keep(looked_up, hash, &session_of(&user), &user, None);
        assert!(sessions.get(&hash).is_none());
    }

    #[test]
    fn so_many_are_kept_and_no_more() {
        let (sessions, user) = (KnownSessions::new(100), user());
        let hashes: Vec<[u8; 32]> =
            (0..10_000_u16).map(|number| std::array::from_fn(|at| number.to_le_bytes()[at % 2])).collect();
        hashes.iter().for_each(|hash| kept(&sessions, *hash, &user));
        assert!(hashes.iter().filter(|hash| sessions.get(hash).is_some()).count() <= 100);
        let mut large = user.clone();
        let many = Value::from(vec![0; 4_000]);
        large.profile.attributes.insert("many".to_owned(), many);
        hashes.iter().for_each(|hash| kept(&sessions, *hash, &large));
        let left = hashes.iter().filter(|hash| sessions.get(hash).is_some()).count();
        assert!(left <= 1, "{left} of 128 KiB each are kept where 200 KiB may be taken");
        let none = KnownSessions::new(0);
        kept(&none, [7; 32], &user);
        assert!(none.get(&[7; 32]).is_none());
    }

    #[test]
    fn a_use_is_noted_by_one_of_many_who_see_it() {
        let (sessions, user) = (KnownSessions::new(10), user());
        let known = sessions.keep(0, [7; 32], &session_of(&user), &user, None);
        let (minute, later) = (Duration::from_secs(60), NOW.plus(Duration::from_secs(60)));
        assert!(!known.is_use_to_note(NOW, minute));
        let noted = std::thread::scope(|scope| {
            let all: Vec<_> = (0..8).map(|_| scope.spawn(|| known.is_use_to_note(later, minute))).collect();
            all.into_iter().map(|one| usize::from(one.join().unwrap())).sum::<usize>()
        });
        assert_eq!(noted, 1);
    }

    /// The store is one number, which everybody can read.
    #[test]
    fn nobody_who_read_a_change_is_answered_as_before_it() {
        let (sessions, user, hash) = (KnownSessions::new(10), user(), [7; 32]);
        let (stored, over) = (AtomicU64::new(0), AtomicBool::new(false));
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while !over.load(Ordering::SeqCst) {
                        let expected = stored.load(Ordering::SeqCst);
                        let known = sessions.get(&hash).unwrap_or_else(|| {
                            let looked_up = sessions.before_snapshot();
                            let row = UserRow { version: stored.load(Ordering::SeqCst), ..user.clone() };
                            sessions.keep(looked_up, hash, &session_of(&row), &row, None)
                        });
                        assert!(known.user.version >= expected);
                    }
                });
            }
            for version in 1..=20_000 {
                let change = sessions.change([&Write::RecordLogin(user.id, NOW)].into_iter());
                stored.store(version, Ordering::SeqCst);
                sessions.changed(change);
            }
            over.store(true, Ordering::SeqCst);
        });
    }

    proptest! {
        #[test]
        fn every_name_has_a_mark(name: [u8; 32]) {
            prop_assert!(mark_of(&name) < MARKS);
            prop_assert!(Marks::new().last(mark_of(&name)) == 0);
        }
    }
}
