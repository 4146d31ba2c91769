//! Snapshot reads: inline, never waiting for the writer, never held across an await.

use std::collections::BTreeSet;
use std::sync::Arc;

use majordomo_model::{
    CommandId, Context, Envelope, Identifier, Lane, Session, SignalId, SignalKind, Start, StoreId, TokenId, Unseal,
    User, UserId,
};
use serde::Deserialize;

use super::LogState;
use super::census::{Census, KnownCensus};
use super::credential::ReadCredential;
use super::dispatch::DispatchRow;
use super::log;
use super::lookup::{Lookup, ReadError};
use super::progress::CursorRow;
use super::redb::{EngineHandle, ReadView, View};
use super::retention::Lag;
use super::row::{AppliedRow, SessionRow, TokenRow, UserRow};
use super::table::{Key, Table};
use crate::bytes::Bytes;
use crate::stamp::SignalKey;

/// Reads snapshots. Cloning shares the store.
#[derive(Clone, Debug)]
pub struct Reader {
    engine: EngineHandle,
    census: Arc<KnownCensus>,
}

/// The store is out or broken: nothing is known, least of all that something is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("storage is unavailable")]
pub struct Unreadable;

impl From<ReadError> for Unreadable {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Engine(error) if error.is_unavailable() => {}
            error => tracing::error!(%error, "a read failed"),
        }
        Self
    }
}

impl Reader {
    pub(super) const fn new(engine: EngineHandle, census: Arc<KnownCensus>) -> Self {
        Self { engine, census }
    }

    /// How many credentials there are of each kind, as of the last commit: from memory.
    pub(crate) fn census(&self) -> Arc<Census> {
        self.census.now()
    }

    /// The credentials after one, in the order in which their users registered, at most so many. One that cannot be
    /// read is passed over.
    pub(crate) fn credentials_after(
        &self,
        after: Option<UserId>,
        limit: usize,
    ) -> Result<Vec<ReadCredential>, Unreadable> {
        self.snapshot(|view| super::credential::after(view, after, limit))
    }

    /// Looks at one snapshot. `look` must be short: a page of rows, not a scan.
    pub(crate) fn snapshot<T>(&self, look: impl FnOnce(&ReadView) -> Result<T, ReadError>) -> Result<T, Unreadable> {
        let generation = self.engine.generation();
        let looked = self.engine.read(look);
        if let Err(ReadError::Engine(error)) = &looked
            && error.needs_reopen()
        {
            // The writer may have nothing to write for long, and would not find out by itself.
            self.engine.suspect(generation);
        }
        Ok(looked?)
    }

    /// A user as the app sees one.
    pub fn user(&self, id: UserId) -> Result<Option<User>, Unreadable> {
        self.snapshot(|view| {
            let Some(row) = view.user(id)? else { return Ok(None) };
            Ok(Some(row.view(view.activity(id)?.as_ref())))
        })
    }

    /// The user that a username or a proven address names.
    pub fn user_named(&self, identifier: &Identifier) -> Result<Option<User>, Unreadable> {
        self.snapshot(|view| {
            let Some(row) = view.user_named(identifier)? else { return Ok(None) };
            Ok(Some(row.view(view.activity(row.id)?.as_ref())))
        })
    }

    /// The users after one, in the order in which they registered, at most so many.
    pub fn users_after(&self, after: Option<UserId>, limit: usize) -> Result<Vec<User>, Unreadable> {
        self.snapshot(|view| {
            let from = after.map(|id| Key::new().fixed(id.as_bytes()).u8(0)).unwrap_or_default();
            let mut users = Vec::new();
            for row in view.range(Table::Users, &from, None)?.take(limit) {
                let row: UserRow = super::row::decode(row?.value())?;
                users.push(row.view(view.activity(row.id)?.as_ref()));
            }
            Ok(users)
        })
    }

    /// The stored row of a user.
    pub fn user_row(&self, id: UserId) -> Result<Option<UserRow>, Unreadable> {
        self.snapshot(|view| view.user(id))
    }

    /// The groups that a user is in; none of one who does not exist.
    pub fn groups_of(&self, id: UserId) -> Result<BTreeSet<String>, Unreadable> {
        self.snapshot(|view| Ok(view.user(id)?.map(|row| row.groups).unwrap_or_default()))
    }

    /// A session and its user, by the hash of the session's secret.
    pub fn session(&self, hash: &[u8; 32]) -> Result<Option<(SessionRow, UserRow)>, Unreadable> {
        self.snapshot(|view| {
            let Some(session) = view.session(hash)? else { return Ok(None) };
            Ok(view.user(session.user)?.map(|user| (session, user)))
        })
    }

    /// The sessions of a user, oldest first.
    pub fn sessions_of(&self, user: UserId) -> Result<Vec<Session>, Unreadable> {
        self.snapshot(|view| Ok(view.sessions_of(user)?.into_iter().map(|(_, session)| session.view()).collect()))
    }

    /// A one-time token's row.
    pub fn token(&self, id: TokenId) -> Result<Option<TokenRow>, Unreadable> {
        self.snapshot(|view| view.token(id))
    }

    /// The outcome of a command.
    pub fn applied(&self, command: CommandId) -> Result<Option<AppliedRow>, Unreadable> {
        self.snapshot(|view| view.applied(command))
    }

    /// Who is sending the message that a signal asks for, if anybody is or has settled it.
    pub fn dispatch(&self, signal: SignalId) -> Result<Option<DispatchRow>, Unreadable> {
        self.snapshot(|view| view.dispatch(signal))
    }

    /// How far a subscription has come.
    pub fn cursor(&self, subscription: &str) -> Result<Option<CursorRow>, Unreadable> {
        self.snapshot(|view| view.cursor(subscription))
    }

    /// Every subscription that the store knows, attached or not, by name, with how far it has come.
    pub fn cursors(&self) -> Result<Vec<(String, CursorRow)>, Unreadable> {
        self.snapshot(|view| {
            let mut cursors = Vec::new();
            for row in view.range(Table::Cursors, &[], None)? {
                let row = row?;
                let name = std::str::from_utf8(row.key()).map_err(|_| ReadError::Key)?;
                cursors.push((name.to_owned(), super::row::decode(row.value())?));
            }
            Ok(cursors)
        })
    }

    /// The place of the last signal; 0 where there never was one.
    pub fn head(&self) -> Result<u64, Unreadable> {
        self.snapshot(Lookup::head)
    }

    /// How much of the log is kept.
    pub(super) fn log_state(&self) -> Result<LogState, Unreadable> {
        self.snapshot(|view| {
            Ok(LogState { first: log::oldest(view)?, head: view.head()?, bytes: log::kept_bytes(view)? })
        })
    }

    /// The first place that is kept; the next place where the log is empty.
    pub fn oldest(&self) -> Result<u64, Unreadable> {
        self.snapshot(log::oldest)
    }

    /// The first place to be handled by whoever begins so. Of [`Start::Seq`] the place itself, kept or not, but the next
    /// place at most; of [`Start::Time`] the first whose signal is not before that time, or the next place.
    ///
    /// It searches by time among few marks and then looks at 1,024 signals at most, however long the log is.
    pub fn place(&self, start: Start) -> Result<u64, Unreadable> {
        self.snapshot(|view| log::place(view, start))
    }

    /// The size of the signals behind a place that are kept, in bytes of the log.
    pub fn bytes_behind(&self, floor: u64) -> Result<u64, Unreadable> {
        self.snapshot(|view| log::bytes_from(view, floor.saturating_add(1)))
    }

    /// How far a cursor lies behind the end of the log.
    pub fn lag(&self, cursor: &CursorRow) -> Result<Lag, Unreadable> {
        self.snapshot(|view| Lag::of(view, cursor))
    }

    /// The signals behind a place, in order, at most so many; personal data within reach where the user lives.
    pub fn signals_after(&self, seq: u64, limit: usize) -> Result<Vec<Envelope>, Unreadable> {
        self.page_after(seq, limit, usize::MAX)
    }

    /// As [`Reader::signals_after`], ending with the signal that makes it so many bytes of the log: a page is as large
    /// as that and one signal more, and holds at least one signal where there is one and `limit` is not 0.
    pub fn page_after(&self, seq: u64, limit: usize, bytes: usize) -> Result<Vec<Envelope>, Unreadable> {
        self.snapshot(|view| {
            let mut signals = log::page_after(view, seq, limit, bytes)?;
            open_personal(view, &mut signals)?;
            Ok(signals)
        })
    }

    /// What the log holds behind a place and where it ends, of one snapshot: at most so many signals, and not many more
    /// bytes; one place at least if there is one. With `admits` only signals of kinds that it admits are decoded.
    pub(crate) fn log_page(
        &self,
        seq: u64,
        limit: usize,
        bytes: usize,
        admits: Option<&dyn Fn(SignalKind) -> bool>,
    ) -> Result<LogPage, Unreadable> {
        self.snapshot(|view| {
            let mut places = log::places_after(view, seq, limit, bytes, admits)?;
            open_personal(view, places.iter_mut().filter_map(|(_, signal)| signal.as_mut()))?;
            Ok(LogPage { places, head: view.head()? })
        })
    }

    /// The signals at these places, in their order, as far as they are kept; personal data within reach where the user lives.
    pub fn signals_at(&self, places: &[u64]) -> Result<Vec<Envelope>, Unreadable> {
        self.snapshot(|view| {
            let mut signals = log::signals_at(view, places)?;
            open_personal(view, &mut signals)?;
            Ok(signals)
        })
    }

    /// Puts within reach what is sealed in the context of a signal in this user's lane, if they still live.
    pub fn open_context(&self, user: UserId, signal: SignalId, context: &mut Context) -> Result<(), Unreadable> {
        if context.sealed().is_some()
            && let Some(key) = self.snapshot(|view| seal_key(view, user))?
        {
            context.open_with(Arc::new(SignalKey::new(key, signal)));
        }
        Ok(())
    }

    /// Names the store, from when it was made and in every copy of it.
    pub fn store(&self) -> Result<StoreId, Unreadable> {
        self.snapshot(|view| {
            let name = view.get(Table::Meta, super::opening::DATABASE.as_bytes())?.ok_or(ReadError::Key)?;
            Ok(StoreId::from_bytes(super::table::KeyReader::new(&name).fixed()?))
        })
    }

    /// Users whose time to verify an address is over, at most so many, each with that time.
    pub fn never_verified(
        &self,
        now: majordomo_model::Timestamp,
        limit: usize,
    ) -> Result<Vec<(UserId, majordomo_model::Timestamp)>, Unreadable> {
        self.snapshot(|view| super::write::never_verified(view, now, limit))
    }

    /// Tokens that ended by time so long ago that their row would go, and whose message is neither sent nor given up;
    /// looked for among the `limit` that ended first.
    pub fn undelivered(&self, now: majordomo_model::Timestamp, limit: usize) -> Result<Vec<TokenRow>, Unreadable> {
        self.snapshot(|view| super::write::undelivered(view, now, limit))
    }

    /// Whether a generation of a subscriber's projection holds anything.
    pub(crate) fn has_projection(&self, subscription: &str, generation: u32) -> Result<bool, Unreadable> {
        self.snapshot(|view| {
            let space = super::lookup::projection_key(subscription, generation, &[])?;
            Ok(view.prefix(Table::Projections, &space)?.next().transpose()?.is_some())
        })
    }

    /// The oldest generation of a subscriber's projection that holds a value.
    pub fn oldest_generation(&self, subscription: &str) -> Result<Option<u32>, Unreadable> {
        self.snapshot(|view| {
            let prefix = super::lookup::projection_prefix(subscription)?;
            let Some(first) = view.prefix(Table::Projections, &prefix)?.next().transpose()? else { return Ok(None) };
            let rest = first.key().strip_prefix(&*prefix).ok_or(ReadError::Key)?;
            Ok(Some(u32::from_be_bytes(super::table::KeyReader::new(rest).fixed()?)))
        })
    }

    /// One value of a subscriber's projection: of the generation that is served.
    pub fn projected(&self, subscription: &str, key: &[u8]) -> Result<Option<Vec<u8>>, Unreadable> {
        self.snapshot(|view| {
            let generation = served(view, subscription)?;
            projected_in(view, subscription, generation, key)
        })
    }

    /// One value of a generation of a subscriber's projection.
    pub fn projected_in(&self, subscription: &str, generation: u32, key: &[u8]) -> Result<Option<Vec<u8>>, Unreadable> {
        self.snapshot(|view| projected_in(view, subscription, generation, key))
    }

    /// The values of a subscriber's projection whose key starts with `prefix`, from `from` on, at most so many.
    pub fn projection(&self, subscription: &str, range: ProjectionRange<'_>) -> Result<ProjectionValues, Unreadable> {
        self.snapshot(|view| {
            let generation = served(view, subscription)?;
            let key = |key: &[u8]| super::lookup::projection_key(subscription, generation, key);
            let space = key(&[])?;
            let (from, mut end) = (key(range.from)?, super::table::prefix_end(&key(range.prefix)?));
            if let Some(until) = range.until {
                let until = key(until)?;
                end = Some(match end {
                    Some(end) => end.min(until),
                    None => until,
                });
            }
            let mut values = Vec::new();
            let rows = view.range(Table::Projections, &from.max(key(range.prefix)?), end.as_deref())?;
            let pushed = |values: &mut Vec<_>, row: super::redb::Row<'_>| {
                let key = row.key().get(space.len()..).unwrap_or_default().to_vec();
                values.push((key, row.value().to_vec()));
            };
            if range.newest_first {
                for row in rows.rev().take(range.limit) {
                    pushed(&mut values, row?);
                }
            } else {
                for row in rows.take(range.limit) {
                    pushed(&mut values, row?);
                }
            }
            Ok(values)
        })
    }
}

/// The generation of a subscriber's projection that the app reads.
fn served(view: &ReadView, subscription: &str) -> Result<u32, ReadError> {
    Ok(view.cursor(subscription)?.map_or(0, |row| row.projection.served))
}

fn projected_in(
    view: &ReadView,
    subscription: &str,
    generation: u32,
    key: &[u8],
) -> Result<Option<Vec<u8>>, ReadError> {
    let key = super::lookup::projection_key(subscription, generation, key)?;
    Ok(view.get(Table::Projections, &key)?.map(|value| value.to_vec()))
}

/// A page of the log.
#[derive(Debug)]
pub(crate) struct LogPage {
    /// The places, in order, each with its signal unless that was passed over.
    pub(crate) places: log::Places,
    /// The place of the log's last signal.
    pub(crate) head: u64,
}

/// Keys and values of a projection.
pub type ProjectionValues = Vec<(Vec<u8>, Vec<u8>)>;

/// Which values of a projection to read.
#[derive(Clone, Copy, Debug)]
pub struct ProjectionRange<'a> {
    /// What every key starts with.
    pub prefix: &'a [u8],
    /// The first key, inclusive; the prefix itself for all of them.
    pub from: &'a [u8],
    /// The end, exclusive; `None` for the last key with the prefix.
    pub until: Option<&'a [u8]>,
    /// The last key first.
    pub newest_first: bool,
    /// At most so many.
    pub limit: usize,
}

/// Puts the full form of personal data within reach, as far as its user's key still exists.
pub(super) fn open_personal<'a>(
    view: &ReadView,
    signals: impl IntoIterator<Item = &'a mut Envelope>,
) -> Result<(), ReadError> {
    let mut known: Option<(UserId, Option<[u8; 32]>)> = None;
    for envelope in signals {
        let Lane::User(user) = envelope.lane else { continue };
        if !is_sealed(envelope) {
            continue;
        }
        let key = match known {
            Some((last, key)) if last == user => key,
            _ => seal_key(view, user)?,
        };
        known = Some((user, key));
        let Some(key) = key else { continue };
        let opener: Arc<dyn Unseal> = Arc::new(SignalKey::new(key, envelope.id));
        if envelope.context.sealed().is_some() {
            envelope.context.open_with(Arc::clone(&opener));
        }
        envelope.signal.visit_personal(&mut |personal| {
            if personal.sealed().is_some() {
                personal.open_with(Arc::clone(&opener));
            }
        });
    }
    Ok(())
}

fn is_sealed(envelope: &mut Envelope) -> bool {
    let mut is_sealed = envelope.context.sealed().is_some();
    envelope.signal.visit_personal(&mut |personal| is_sealed |= personal.sealed().is_some());
    is_sealed
}

fn seal_key(view: &ReadView, user: UserId) -> Result<Option<[u8; 32]>, ReadError> {
    Ok(view.row::<Sealing>(Table::Users, user.as_bytes())?.map(|row| row.seal_key.0))
}

/// A user's row of which only the key matters.
#[derive(Deserialize)]
struct Sealing {
    seal_key: Bytes<32>,
}
