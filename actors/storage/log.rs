//! The log: where it begins and ends, how large it is, and which of its places belongs to which time.
//!
//! Every so many signals a mark notes, for a place, how many bytes were written before it and the latest time that any
//! signal before it carries. Signals stand in the order of their commits and carry the time at which they were decided,
//! so a time may be earlier than the one before it, by as long as a flow or an outage took. The latest time so far never
//! falls: it is what can be searched, and the first signal that is not before a time is the first that raises it there.

use majordomo_model::{Envelope, SignalKind, Start, Timestamp};
use serde::Deserialize;

use super::batch::NEXT_SEQ;
use super::lookup::{Lookup, ReadError};
use super::progress::CursorRow;
use super::redb::{View, WriteView};
use super::row::{decode, decode_signal};
use super::table::{Key, KeyReader, Table};

/// How many bytes of signals were ever written.
pub(super) const LOG_BYTES: &str = "log_bytes";
/// The latest time that any signal carries.
pub(super) const LOG_LATEST: &str = "log_latest";
/// How many bytes of signals were pruned.
pub(super) const LOG_PRUNED: &str = "log_pruned";

/// There is a mark at every place that is a multiple of this...
pub(super) const MARK_SIGNALS: u64 = 1_024;
/// ...and wherever the bytes written pass a multiple of this, so that few bytes lie between two marks.
pub(super) const MARK_BYTES: u64 = 1_024 * 1_024;

/// The end of the log within a transaction, which signals are appended to.
pub(super) struct LogEnd {
    next_seq: u64,
    bytes: u64,
    latest: Timestamp,
    appended: bool,
}

/// What is known of everything before a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    bytes: u64,
    latest: Timestamp,
}

impl Mark {
    fn encode(self) -> Key {
        Key::new().u64(self.bytes).i64(self.latest.as_micros())
    }

    fn decode(bytes: &[u8]) -> Result<Self, ReadError> {
        let mut reader = KeyReader::new(bytes);
        Ok(Self { bytes: reader.u64()?, latest: Timestamp::from_micros(reader.i64()?) })
    }
}

impl LogEnd {
    pub(super) fn read<V: View>(view: &V) -> Result<Self, ReadError> {
        let latest = view.get(Table::Meta, LOG_LATEST.as_bytes())?.map(|bytes| KeyReader::new(&bytes).i64());
        Ok(Self {
            next_seq: view.meta_u64(NEXT_SEQ)?.unwrap_or(1),
            bytes: view.meta_u64(LOG_BYTES)?.unwrap_or(0),
            latest: Timestamp::from_micros(latest.transpose()?.unwrap_or(i64::MIN)),
            appended: false,
        })
    }

    /// The place that the next signal gets.
    pub(super) const fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Appends an encoded signal of this time.
    pub(super) fn append(
        &mut self,
        transaction: &mut WriteView<'_>,
        encoded: &[u8],
        at: Timestamp,
    ) -> Result<(), ReadError> {
        transaction.put(Table::SignalLog, &Key::new().u64(self.next_seq), encoded)?;
        let before = self.bytes;
        self.bytes = before.saturating_add(encoded.len() as u64);
        self.next_seq = self.next_seq.saturating_add(1);
        self.latest = self.latest.max(at);
        self.appended = true;
        if self.next_seq.is_multiple_of(MARK_SIGNALS) || before / MARK_BYTES != self.bytes / MARK_BYTES {
            let mark = Mark { bytes: self.bytes, latest: self.latest };
            transaction.put(Table::LogMarks, &Key::new().u64(self.next_seq), &mark.encode())?;
        }
        Ok(())
    }

    /// Stores the end, so that the next transaction goes on from it.
    pub(super) fn store(&self, transaction: &mut WriteView<'_>) -> Result<(), ReadError> {
        transaction.put(Table::Meta, NEXT_SEQ.as_bytes(), &Key::new().u64(self.next_seq))?;
        if self.appended {
            transaction.put(Table::Meta, LOG_BYTES.as_bytes(), &Key::new().u64(self.bytes))?;
            transaction.put(Table::Meta, LOG_LATEST.as_bytes(), &Key::new().i64(self.latest.as_micros()))?;
        }
        Ok(())
    }
}

/// Removes the signals up to and with `seq`, at most so many, but none that a subscription which has not lapsed still
/// has to handle: it may have been made, or moved back, since somebody looked.
pub(super) fn prune(transaction: &mut WriteView<'_>, seq: u64, limit: usize) -> Result<(), ReadError> {
    let oldest = oldest(transaction)?;
    let most = oldest.saturating_add(limit as u64);
    let kept = lowest_floor(transaction)?.map_or(seq, |floor| floor.min(seq)).saturating_add(1);
    let end = kept.min(most).min(next_seq(transaction)?);
    if end <= oldest {
        return Ok(());
    }
    let (mut bytes, end) = (transaction.meta_u64(LOG_PRUNED)?.unwrap_or(0), Key::new().u64(end));
    transaction.clear(Table::SignalLog, &Key::new().u64(oldest), &end, |value| {
        bytes = bytes.saturating_add(value.len() as u64);
    })?;
    transaction.clear(Table::LogMarks, &[], &end, |_| {})?;
    Ok(transaction.put(Table::Meta, LOG_PRUNED.as_bytes(), &Key::new().u64(bytes))?)
}

/// The lowest floor of the cursors that have not lapsed.
pub(super) fn lowest_floor<V: View>(view: &V) -> Result<Option<u64>, ReadError> {
    let mut lowest = None;
    for row in view.range(Table::Cursors, &[], None)? {
        let cursor: CursorRow = decode(row?.value())?;
        if cursor.lapsed_at.is_none() {
            lowest = Some(lowest.map_or(cursor.floor(), |floor: u64| floor.min(cursor.floor())));
        }
    }
    Ok(lowest)
}

/// The place that the next signal gets.
pub(super) fn next_seq<V: View>(view: &V) -> Result<u64, ReadError> {
    Ok(view.meta_u64(NEXT_SEQ)?.unwrap_or(1))
}

/// The first place that is kept; the next place where the log is empty.
pub(super) fn oldest<V: View>(view: &V) -> Result<u64, ReadError> {
    match view.range(Table::SignalLog, &[], None)?.next() {
        Some(row) => Ok(KeyReader::new(row?.key()).u64()?),
        None => next_seq(view),
    }
}

/// The size of the log that is kept, in bytes.
pub(super) fn kept_bytes<V: View>(view: &V) -> Result<u64, ReadError> {
    let (written, pruned) = (view.meta_u64(LOG_BYTES)?, view.meta_u64(LOG_PRUNED)?);
    Ok(written.unwrap_or(0).saturating_sub(pruned.unwrap_or(0)))
}

/// The size of the signals from a place on, in bytes, as far as they are kept: a look at a mark, and at the signals up
/// to it without decoding them.
pub(super) fn bytes_from<V: View>(view: &V, place: u64) -> Result<u64, ReadError> {
    let mark = first_mark(view, place, u64::MAX)?;
    let written = view.meta_u64(LOG_BYTES)?.unwrap_or(0);
    let (mut bytes, end) = match mark {
        Some((end, mark)) => (written.saturating_sub(mark.bytes), end),
        None => (0, u64::MAX),
    };
    for row in view.range(Table::SignalLog, &Key::new().u64(place), Some(&Key::new().u64(end)))? {
        bytes = bytes.saturating_add(row?.value().len() as u64);
    }
    Ok(bytes)
}

/// The first place to be handled by whoever begins there. Places ahead of the log are the next place.
pub(super) fn place<V: View>(view: &V, start: Start) -> Result<u64, ReadError> {
    match start {
        Start::Now => next_seq(view),
        Start::Beginning => oldest(view),
        Start::Seq(seq) => Ok(seq.max(1).min(next_seq(view)?)),
        Start::Time(time) => first_not_before(view, time),
    }
}

/// The first place that is kept whose signal's time is not before `time`; the next place where there is none.
pub(super) fn first_not_before<V: View>(view: &V, time: Timestamp) -> Result<u64, ReadError> {
    let next = next_seq(view)?;
    // Everything that is kept before `from` is earlier than `time`; the first mark that is not lies before `end`.
    let mut from = oldest(view)?;
    let (mut low, mut end) = (from, next.saturating_add(1));
    while low < end {
        let middle = low + (end - low) / 2;
        match first_mark(view, middle, end)? {
            Some((place, mark)) if mark.latest < time => {
                from = from.max(place);
                low = place.saturating_add(1);
            }
            _ => end = middle,
        }
    }
    for row in view.range(Table::SignalLog, &Key::new().u64(from), None)? {
        let row = row?;
        if decode::<Dated>(row.value())?.at >= time {
            return Ok(KeyReader::new(row.key()).u64()?);
        }
    }
    Ok(next)
}

/// The time of the first signal at a place or behind it.
pub(super) fn time_from<V: View>(view: &V, place: u64) -> Result<Option<Timestamp>, ReadError> {
    let first = view.range(Table::SignalLog, &Key::new().u64(place), None)?.next();
    first.map(|row| Ok(decode::<Dated>(row?.value())?.at)).transpose()
}

/// A signal of which only the time matters.
#[derive(Deserialize)]
struct Dated {
    at: Timestamp,
}

fn first_mark<V: View>(view: &V, from: u64, end: u64) -> Result<Option<(u64, Mark)>, ReadError> {
    let first = view.range(Table::LogMarks, &Key::new().u64(from), Some(&Key::new().u64(end)))?.next();
    let read = |row: super::redb::Row<'_>| Ok((KeyReader::new(row.key()).u64()?, Mark::decode(row.value())?));
    first.map(|row| read(row?)).transpose()
}

/// The signals behind a place, in order: at most so many, and none behind the one that makes them so many bytes of the
/// log or more. Personal data still sealed.
pub(super) fn page_after<V: View>(view: &V, seq: u64, limit: usize, bytes: usize) -> Result<Vec<Envelope>, ReadError> {
    let places = places_after(view, seq, limit, bytes, None)?;
    Ok(places.into_iter().filter_map(|(_, signal)| signal).collect())
}

/// As [`page_after`], place by place. With `admits` the signals of kinds that it does not admit are passed over, and no
/// more than [`PLACES`] places are looked at.
pub(super) fn places_after<V: View>(
    view: &V,
    seq: u64,
    limit: usize,
    bytes: usize,
    admits: Option<&dyn Fn(SignalKind) -> bool>,
) -> Result<Places, ReadError> {
    let (mut places, mut signals, mut size) = (Vec::new(), 0_usize, 0_usize);
    let most = if admits.is_some() { PLACES } else { limit };
    for row in view.range(Table::SignalLog, &Key::new().u64(seq.saturating_add(1)), None)?.take(most) {
        let row = row?;
        let seq = KeyReader::new(row.key()).u64()?;
        size = size.saturating_add(row.value().len());
        let is_admitted = match admits {
            Some(admits) => admits(decode::<OfKind>(row.value())?.signal.kind),
            None => true,
        };
        let signal = is_admitted.then(|| decode_signal(seq, row.value())).transpose()?;
        signals = signals.saturating_add(usize::from(is_admitted));
        places.push((seq, signal));
        if signals >= limit || size >= bytes {
            break;
        }
    }
    Ok(places)
}

/// Places, each with its signal unless that was passed over.
pub(super) type Places = Vec<(u64, Option<Envelope>)>;

/// How many places are looked at for one page at most.
const PLACES: usize = 4_096;

/// A signal of which only the kind matters.
#[derive(Deserialize)]
struct OfKind {
    signal: Tag,
}

#[derive(Deserialize)]
struct Tag {
    #[serde(rename = "type")]
    kind: SignalKind,
}

/// The signals at these places, as far as they are kept. Personal data still sealed.
pub(super) fn signals_at<V: View>(view: &V, places: &[u64]) -> Result<Vec<Envelope>, ReadError> {
    let mut signals = Vec::with_capacity(places.len());
    for place in places {
        if let Some(bytes) = view.get(Table::SignalLog, &Key::new().u64(*place))? {
            signals.push(decode_signal(*place, &bytes)?);
        }
    }
    Ok(signals)
}
