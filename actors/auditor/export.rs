//! The export: the trail as lines of JSON, each of which stands for itself, with a signature at the end.

use std::sync::Arc;

use majordomo_model::{StoreId, Timestamp};
use serde::{Deserialize, Serialize};

use super::chain::{AuditHash, Body, HEAD, Head, StoredLink, digest, genesis};
use super::head::{AuditHead, AuditPublicKey, AuditSigner, HeadPurpose, Unsigned};
use super::query::{AuditReadError, TrailRange, behind, beyond};
use super::record::{AuditFault, place_behind, record_key, record_prefix};

/// The version of the format of an export.
pub(super) const VERSION: u32 = 1;
/// How many links are read at a time: of 64 KiB each at most.
const PAGE: usize = 256;
/// What a line of a link is put together of, around its number, hash and body.
pub(super) const NUMBER: &str = "{\"number\":";
pub(super) const HASH: &str = ",\"hash\":\"";
pub(super) const BODY: &str = "\",\"body\":";

/// Which part of the trail to export: whole, unless told otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AuditRange {
    /// From this place of the log on.
    pub from: Option<u64>,
    /// Up to and with this place of the log.
    pub to: Option<u64>,
}

/// The first line of an export.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Header {
    /// The version of the format.
    pub(super) majordomo_audit: u32,
    pub(super) store: StoreId,
    /// How many links precede the export, up to which place of the log they go, and the hash of the last of them.
    pub(super) number: u64,
    pub(super) seq: u64,
    pub(super) previous: AuditHash,
    /// The public keys, for convenience: whoever verifies has to know them from elsewhere.
    pub(super) keys: Vec<AuditPublicKey>,
}

/// The last line of an export.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ending {
    pub(super) head: AuditHead,
}

/// The values of the auditor's projection that lie in a range of keys, in its order.
type Rows<E> = Result<Vec<(Vec<u8>, Vec<u8>)>, E>;

/// Where the trail of a store is read from: a way to its rows, and its name.
pub struct TrailEnd {
    /// Whose trail it is.
    pub store: StoreId,
    /// The present time.
    pub now: Timestamp,
}

impl TrailEnd {
    /// The signed head of the trail as it is now, to be held outside.
    ///
    /// # Errors
    /// [`AuditReadError`].
    pub fn held<E>(
        &self,
        signer: &AuditSigner,
        mut scan: impl FnMut(&TrailRange) -> Rows<E>,
    ) -> Result<AuditHead, AuditReadError<E>> {
        let head = self.head(&mut scan)?;
        Ok(signer.sign(HeadPurpose::Held, head.end(), self.now, None))
    }

    fn head<E>(&self, scan: &mut impl FnMut(&TrailRange) -> Rows<E>) -> Result<Head, AuditReadError<E>> {
        let key = HEAD.to_vec();
        let until = [HEAD, &[0]].concat();
        let range = TrailRange { prefix: key.clone(), from: key, until, newest_first: false, limit: 1 };
        match scan(&range).map_err(AuditReadError::Unreadable)?.into_iter().next() {
            Some((_, value)) => Head::decode(&value).map_err(|fault| AuditReadError::Record { seq: 0, fault }),
            None => Ok(Head::new(self.store)),
        }
    }
}

/// An export under way. It reads a page of links at a time, and holds no more.
pub struct AuditExport {
    signer: Arc<AuditSigner>,
    now: Timestamp,
    header: Header,
    range: TrailRange,
    /// The last link that was given.
    last: Unsigned,
    /// What is signed in the end, unless it is the last link that was given.
    end: Option<Unsigned>,
}

impl AuditExport {
    /// Begins an export. `scan` answers with the keys and values of the auditor's projection that lie in a range, in its
    /// order.
    ///
    /// # Errors
    /// [`AuditReadError`].
    pub fn begin<E>(
        trail: &TrailEnd,
        signer: Arc<AuditSigner>,
        range: AuditRange,
        mut scan: impl FnMut(&TrailRange) -> Rows<E>,
    ) -> Result<Self, AuditReadError<E>> {
        let head = trail.head(&mut scan)?;
        let before = preceding(trail.store, range.from, &mut scan)?;
        let header = Header {
            majordomo_audit: VERSION,
            store: trail.store,
            number: before.number,
            seq: before.seq,
            previous: before.hash,
            keys: signer.public_keys(),
        };
        let to = range.to.filter(|to| *to < head.seq);
        let range = TrailRange {
            prefix: record_prefix(),
            from: range.from.map_or_else(record_prefix, record_key),
            until: beyond(&record_prefix(), to.unwrap_or(head.seq)),
            newest_first: false,
            limit: PAGE,
        };
        // Up to its end the trail ends as the head says, whatever is left of it: nothing else may be signed.
        let end = to.is_none().then(|| head.end());
        Ok(Self { signer, now: trail.now, header, range, last: before, end })
    }

    /// Gives every line to `line`, without its line feed, and stops where that fails.
    ///
    /// # Errors
    /// [`AuditReadError`], or what `line` answered.
    pub fn run<E, S>(
        mut self,
        mut scan: impl FnMut(&TrailRange) -> Rows<E>,
        mut line: impl FnMut(&[u8]) -> Result<(), S>,
    ) -> Result<Result<AuditHead, S>, AuditReadError<E>> {
        let malformed = |seq| AuditReadError::Record { seq, fault: AuditFault::Malformed };
        let header = serde_json::to_vec(&self.header).map_err(|_| malformed(0))?;
        if let Err(stopped) = line(&header) {
            return Ok(Err(stopped));
        }
        while self.range.from < self.range.until {
            let rows = scan(&self.range).map_err(AuditReadError::Unreadable)?;
            let is_last = rows.len() < self.range.limit;
            for (key, value) in rows {
                self.range.go_on(&key);
                let seq = place_behind(&record_prefix(), &key).unwrap_or_default();
                let Some(link) = StoredLink::decode(&value).map_err(|fault| AuditReadError::Record { seq, fault })?
                else {
                    continue;
                };
                self.last = Unsigned { seq, number: link.number, hash: link.hash, ..self.last };
                if let Err(stopped) = line(&link_line(&link)) {
                    return Ok(Err(stopped));
                }
            }
            if is_last {
                break;
            }
        }
        let end = self.end.unwrap_or(self.last);
        let head = self.signer.sign(HeadPurpose::Export, end, self.now, Some(digest(&header)));
        let ending = serde_json::to_vec(&Ending { head: head.clone() }).map_err(|_| malformed(end.seq))?;
        Ok(line(&ending).map(|()| head))
    }
}

/// The line of a link.
pub(super) fn link_line(link: &StoredLink<'_>) -> Vec<u8> {
    let before = format!("{NUMBER}{}{HASH}{}{BODY}", link.number, link.hash);
    [before.as_bytes(), link.body, b"}"].concat()
}

/// The last link before a place.
fn preceding<E>(
    store: StoreId,
    from: Option<u64>,
    scan: &mut impl FnMut(&TrailRange) -> Rows<E>,
) -> Result<Unsigned, AuditReadError<E>> {
    let nothing = Unsigned { store, seq: 0, number: 0, hash: genesis(store) };
    let Some(before) = from.and_then(|from| from.checked_sub(1)) else { return Ok(nothing) };
    let until = behind(&record_prefix(), before).into_iter().chain([u8::MAX]).collect();
    let (prefix, from) = (record_prefix(), record_prefix());
    let range = TrailRange { prefix, from, until, newest_first: true, limit: 1 };
    let Some((key, value)) = scan(&range).map_err(AuditReadError::Unreadable)?.into_iter().next() else {
        return Ok(nothing);
    };
    let seq = place_behind(&record_prefix(), &key).unwrap_or_default();
    let link = StoredLink::decode(&value).map_err(|fault| AuditReadError::Record { seq, fault })?;
    Ok(link.map_or(nothing, |link| Unsigned { store, seq, number: link.number, hash: link.hash }))
}

/// The place that a link goes up to, after one that went up to `before`; `None` if it does not follow on that.
pub(super) fn following(body: &Body, before: u64) -> Option<u64> {
    let next = before.saturating_add(1);
    match body {
        Body::Record(record) => (record.seq == next).then_some(next),
        Body::Gap(gap) => (gap.from == next && gap.to >= next).then_some(gap.to),
        Body::Checkpoint(_) => Some(before),
    }
}
