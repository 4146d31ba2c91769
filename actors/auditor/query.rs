//! Questions to the trail: which keys to read, and which records answer.

use majordomo_model::{Actor, FlowId, SignalKind, Timestamp, UserId};

use super::chain::{AuditGap, BY_TIME, HEAD, Head, time_key};
use super::record::{
    AuditFault, AuditRecord, Entry, actor_prefix, at_place, flow_prefix, kind_prefix, place_behind, record_key,
    record_prefix, user_prefix,
};

/// The most records of one page.
pub(super) const MAX_PAGE: usize = 1_000;
/// Index entries looked at for one page, so that a rare combination in a long trail cannot hold its reader up.
const MAX_LOOKED_AT: usize = 10_000;

/// Which records to read. Conditions add up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditQuery {
    /// Only of this user.
    pub user: Option<UserId>,
    /// Only of this kind.
    pub kind: Option<SignalKind>,
    /// Only of this run of a flow.
    pub flow: Option<FlowId>,
    /// Only on this one's behalf.
    pub actor: Option<Actor>,
    /// Only of what happened then or later.
    pub since: Option<Timestamp>,
    /// Only of what happened before.
    pub until: Option<Timestamp>,
    /// Only behind this place of the log.
    pub after: Option<u64>,
    /// Only ahead of this place of the log.
    pub before: Option<u64>,
    /// The newest record first.
    pub newest_first: bool,
    /// At most so many, 1 to 1,000.
    pub limit: usize,
}

/// The newest hundred of everything.
impl Default for AuditQuery {
    fn default() -> Self {
        Self {
            user: None,
            kind: None,
            flow: None,
            actor: None,
            since: None,
            until: None,
            after: None,
            before: None,
            newest_first: true,
            limit: 100,
        }
    }
}

/// A range of keys in the auditor's projection that is to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrailRange {
    /// What every key starts with.
    pub prefix: Vec<u8>,
    /// The first key, inclusive.
    pub from: Vec<u8>,
    /// The end, exclusive.
    pub until: Vec<u8>,
    /// The last key first.
    pub newest_first: bool,
    /// At most so many.
    pub limit: usize,
}

impl TrailRange {
    /// Leaves out what was read up to and with this key.
    pub(super) fn go_on(&mut self, key: &[u8]) {
        if self.newest_first {
            self.until = key.to_vec();
        } else {
            self.from = [key, &[0]].concat();
        }
    }
}

/// Records that answer a query.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AuditPage {
    /// The records, in the order asked for.
    pub records: Vec<AuditRecord>,
    /// The gaps that were passed: only where everything is asked for, or everything of a span of places or time.
    pub gaps: Vec<AuditGap>,
    /// Where to go on, with [`AuditQuery::going_on`]; `None` at the end. A page may hold fewer records than the limit,
    /// or none, and yet not be the last.
    pub next: Option<u64>,
}

/// Why a query was not answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuditReadError<E> {
    /// The projection could not be read.
    #[error("the trail could not be read")]
    Unreadable(#[source] E),
    /// A record could not be decoded.
    #[error("the record of place {seq}: {fault}")]
    Record {
        /// Its place in the log.
        seq: u64,
        /// What is wrong with it.
        fault: AuditFault,
    },
}

impl AuditQuery {
    /// The same question, from the place on where a page ended.
    #[must_use]
    pub fn going_on(mut self, next: u64) -> Self {
        if self.newest_first {
            self.before = Some(next);
        } else {
            self.after = Some(next);
        }
        self
    }

    /// Whether a record answers; the limit aside.
    #[must_use]
    pub fn matches(&self, record: &AuditRecord) -> bool {
        self.user.is_none_or(|user| record.user == Some(user))
            && self.kind.is_none_or(|kind| record.kind == kind)
            && self.flow.is_none_or(|flow| record.flow == flow)
            && self.actor.as_ref().is_none_or(|actor| record.actor == *actor)
            && self.since.is_none_or(|since| record.at >= since)
            && self.until.is_none_or(|until| record.at < until)
            && self.after.is_none_or(|after| record.seq > after)
            && self.before.is_none_or(|before| record.seq < before)
    }

    /// Reads a page. `scan` answers with the keys and values of the auditor's projection that lie in a range, in its
    /// order; of the indexes the narrowest is used, and within it the places that a span of time can be in.
    ///
    /// # Errors
    /// [`AuditReadError`].
    pub fn read<E>(
        &self,
        mut scan: impl FnMut(&TrailRange) -> Result<Vec<(Vec<u8>, Vec<u8>)>, E>,
    ) -> Result<AuditPage, AuditReadError<E>> {
        let limit = self.limit.clamp(1, MAX_PAGE);
        let mut range = self.within_time(&mut scan)?.range(limit);
        let (mut page, mut looked_at) = (AuditPage::default(), 0);
        while range.from < range.until {
            let rows = scan(&range).map_err(AuditReadError::Unreadable)?;
            let is_last = rows.len() < range.limit;
            for (key, value) in rows {
                range.go_on(&key);
                let Some(seq) = place_behind(&range.prefix, &key) else { continue };
                let value = if value.is_empty() { scan(&one(seq)).map(first_value) } else { Ok(Some(value)) };
                if let Some(value) = value.map_err(AuditReadError::Unreadable)? {
                    match Entry::decode(&value).map_err(|fault| AuditReadError::Record { seq, fault })? {
                        Entry::Record(record) => page.records.extend(Some(*record).filter(|found| self.matches(found))),
                        Entry::Gap(gap) => page.gaps.push(gap),
                        Entry::Checkpoint => {}
                    }
                }
                looked_at += 1;
                // Behind the key of a place may come others of the same place, which a page does not part from it.
                let is_whole = key.len() == range.prefix.len().saturating_add(size_of::<u64>());
                if is_whole && (page.records.len() == limit || looked_at >= MAX_LOOKED_AT) {
                    return Ok(AuditPage { next: Some(seq), ..page });
                }
            }
            if is_last {
                break;
            }
        }
        Ok(page)
    }

    /// The same question, its span of time turned into the narrowest span of places that is known to hold it.
    ///
    /// The time that a key tells is the latest so far, which never falls; no record lies further before it than the head
    /// tells. What an earlier build recorded has no such keys, and is looked through.
    fn within_time<E>(
        &self,
        scan: &mut impl FnMut(&TrailRange) -> Result<Vec<(Vec<u8>, Vec<u8>)>, E>,
    ) -> Result<Self, AuditReadError<E>> {
        let mut query = self.clone();
        let mut first = |prefix: &[u8], from: Vec<u8>, until: Vec<u8>, newest_first| {
            let range = TrailRange { prefix: prefix.to_vec(), from, until, newest_first, limit: 1 };
            Ok(scan(&range).map_err(AuditReadError::Unreadable)?.into_iter().next())
        };
        let place = |(key, _): (Vec<u8>, Vec<u8>)| key.last_chunk().map(|place| u64::from_be_bytes(*place));
        if let Some(since) = self.since {
            let mark = first(BY_TIME, BY_TIME.to_vec(), time_key(since.as_micros()), true)?;
            let before = mark.and_then(place).map(|place| place.saturating_sub(1));
            query.after = query.after.max(before);
        }
        if let Some(until) = self.until {
            let head = first(HEAD, HEAD.to_vec(), [HEAD, &[0]].concat(), false)?;
            let lateness = head.and_then(|(_, value)| Head::decode(&value).ok()).map_or(0, |head| head.lateness);
            let from = time_key(until.as_micros().saturating_add(lateness));
            let mark = first(BY_TIME, from, behind(&time_key(i64::MAX), u64::MAX), false)?;
            query.before = mark.and_then(place).into_iter().chain(query.before).min();
        }
        Ok(query)
    }

    /// The keys to read for the next so many entries.
    fn range(&self, limit: usize) -> TrailRange {
        let prefix = match (self.flow, self.user, self.kind, &self.actor) {
            (Some(flow), ..) => flow_prefix(flow),
            (None, Some(user), ..) => user_prefix(user),
            (None, None, _, Some(actor @ (Actor::User(_) | Actor::Admin(_)))) => actor_prefix(actor),
            (None, None, Some(kind), _) => kind_prefix(kind),
            (None, None, None, Some(actor)) => actor_prefix(actor),
            (None, None, None, None) => record_prefix(),
        };
        TrailRange {
            from: self.after.map_or_else(|| prefix.clone(), |after| beyond(&prefix, after)),
            until: self.before.map_or_else(|| beyond(&prefix, u64::MAX), |before| at_place(&prefix, before)),
            prefix,
            newest_first: self.newest_first,
            limit,
        }
    }
}

/// The first key behind that of a place.
pub(super) fn behind(prefix: &[u8], seq: u64) -> Vec<u8> {
    let mut key = at_place(prefix, seq);
    key.push(0);
    key
}

/// The first key that cannot belong to a place any more: what ends with it may have keys behind its own.
pub(super) fn beyond(prefix: &[u8], seq: u64) -> Vec<u8> {
    let mut key = at_place(prefix, seq);
    key.push(u8::MAX);
    key
}

fn one(seq: u64) -> TrailRange {
    let key = record_key(seq);
    TrailRange { prefix: key.clone(), until: behind(&record_prefix(), seq), from: key, newest_first: false, limit: 1 }
}

fn first_value(rows: Vec<(Vec<u8>, Vec<u8>)>) -> Option<Vec<u8>> {
    rows.into_iter().next().map(|(_, value)| value)
}
