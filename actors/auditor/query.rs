//! Questions to the trail: which keys to read, and which records answer.

use majordomo_model::{FlowId, SignalKind, UserId};

use super::record::{
    AuditFault, AuditRecord, at_place, flow_prefix, kind_prefix, place_of, record_key, record_prefix, user_prefix,
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
        Self { user: None, kind: None, flow: None, after: None, before: None, newest_first: true, limit: 100 }
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

/// Records that answer a query.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AuditPage {
    /// The records, in the order asked for.
    pub records: Vec<AuditRecord>,
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
            && self.after.is_none_or(|after| record.seq > after)
            && self.before.is_none_or(|before| record.seq < before)
    }

    /// Reads a page. `scan` answers with the keys and values of the auditor's projection that lie in a range, in its
    /// order; of the indexes the narrowest is used.
    ///
    /// # Errors
    /// [`AuditReadError`].
    pub fn read<E>(
        &self,
        mut scan: impl FnMut(&TrailRange) -> Result<Vec<(Vec<u8>, Vec<u8>)>, E>,
    ) -> Result<AuditPage, AuditReadError<E>> {
        let limit = self.limit.clamp(1, MAX_PAGE);
        let (mut query, mut page, mut looked_at) = (self.clone(), AuditPage::default(), 0);
        loop {
            let range = query.range(limit);
            if range.from >= range.until {
                return Ok(AuditPage { next: None, ..page });
            }
            let rows = scan(&range).map_err(AuditReadError::Unreadable)?;
            let is_last = rows.len() < range.limit;
            for (key, value) in rows {
                let Some(seq) = place_of(&key) else { continue };
                let value = if value.is_empty() { scan(&one(seq)).map(first_value) } else { Ok(Some(value)) };
                if let Some(value) = value.map_err(AuditReadError::Unreadable)? {
                    let record = AuditRecord::decode(&value).map_err(|fault| AuditReadError::Record { seq, fault })?;
                    page.records.extend(Some(record).filter(|record| self.matches(record)));
                }
                looked_at += 1;
                page.next = Some(seq);
                if page.records.len() == limit || looked_at == MAX_LOOKED_AT {
                    return Ok(page);
                }
            }
            match page.next.filter(|_| !is_last) {
                Some(seq) => query = query.going_on(seq),
                None => return Ok(AuditPage { next: None, ..page }),
            }
        }
    }

    /// The keys to read for the next so many entries.
    fn range(&self, limit: usize) -> TrailRange {
        let prefix = match (self.flow, self.user, self.kind) {
            (Some(flow), _, _) => flow_prefix(flow),
            (None, Some(user), _) => user_prefix(user),
            (None, None, Some(kind)) => kind_prefix(kind),
            (None, None, None) => record_prefix(),
        };
        TrailRange {
            from: self.after.map_or_else(|| prefix.clone(), |after| behind(&prefix, after)),
            until: self.before.map_or_else(|| behind(&prefix, u64::MAX), |before| at_place(&prefix, before)),
            prefix,
            newest_first: self.newest_first,
            limit,
        }
    }
}

/// The first key behind that of a place.
fn behind(prefix: &[u8], seq: u64) -> Vec<u8> {
    let mut key = at_place(prefix, seq);
    key.push(0);
    key
}

fn one(seq: u64) -> TrailRange {
    let key = record_key(seq);
    TrailRange { prefix: key.clone(), until: behind(&record_prefix(), seq), from: key, newest_first: false, limit: 1 }
}

fn first_value(rows: Vec<(Vec<u8>, Vec<u8>)>) -> Option<Vec<u8>> {
    rows.into_iter().next().map(|(_, value)| value)
}
