//! The chain: how a link is stored, what its hash covers, and how the trail grows by one.

use majordomo_model::{Gap, StoreId, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::head::{AuditHead, AuditSigner, HeadPurpose, Unsigned};
use super::hex::Hex;
use super::record::{AuditFault, AuditRecord, at_place, record_key};
use crate::subscriber::Effect;

/// The hash of a link: SHA-256.
pub type AuditHash = Hex<32>;

/// The first byte of a stored link: its number (8 bytes, big-endian), its hash (32 bytes) and its body follow.
const FORMAT: u8 = 2;
const GENESIS: &[u8] = b"majordomo/v1/audit_genesis";
const LINK: &[u8] = b"majordomo/v1/audit_link";
/// The key of the head.
pub(super) const HEAD: &[u8] = b"h";
/// What the keys begin with that tell at which place the trail had come to a time.
pub(super) const BY_TIME: &[u8] = b"t";
/// How far times lie apart that are found by key.
const MARK: i64 = 1_000_000;
/// How long the trail goes unsigned at most while records come, by their own time.
const HOUR: i64 = 3_600_000_000;

/// What a link says: a JSON object of one field, which tells which kind it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Body<R = Box<AuditRecord>> {
    /// A signal.
    Record(R),
    /// Places that have no record.
    Gap(AuditGap),
    /// A signature over everything before.
    Checkpoint(AuditHead),
}

/// Places of the log that have no record in the chain, so that a hole is told and not hidden.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AuditGap {
    /// The first place.
    pub from: u64,
    /// The last place.
    pub to: u64,
    /// Why, as far as the auditor knows.
    pub cause: GapCause,
    /// When it was noted.
    pub at: Timestamp,
}

/// Why places have no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum GapCause {
    /// The log was pruned before the auditor came there.
    Pruned,
    /// They were not handed to the auditor: they tell about its own subscription, which no subscription is handed; or an
    /// operator moved it past them; or the log did not reach further back when the trail began.
    NotHanded,
    /// The chain begins behind them. They have records of an earlier build, which the chain does not cover.
    Unchained,
}

impl GapCause {
    /// The stable snake_case name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pruned => "pruned",
            Self::NotHanded => "not_handed",
            Self::Unchained => "unchained",
        }
    }
}

/// A link as it is stored.
#[derive(Clone, Copy, Debug)]
pub(super) struct StoredLink<'a> {
    pub(super) number: u64,
    pub(super) hash: AuditHash,
    pub(super) body: &'a [u8],
}

impl<'a> StoredLink<'a> {
    /// The parts of a stored link; `None` for a record that an earlier build left outside the chain.
    pub(super) fn decode(bytes: &'a [u8]) -> Result<Option<Self>, AuditFault> {
        match bytes.split_first() {
            Some((&super::record::UNCHAINED, _)) => Ok(None),
            Some((&FORMAT, rest)) => {
                let (number, rest) = rest.split_first_chunk().ok_or(AuditFault::Malformed)?;
                let (hash, body) = rest.split_first_chunk().ok_or(AuditFault::Malformed)?;
                Ok(Some(Self { number: u64::from_be_bytes(*number), hash: Hex(*hash), body }))
            }
            _ => Err(AuditFault::UnknownFormat),
        }
    }

    pub(super) fn body(&self) -> Result<Body, AuditFault> {
        serde_json::from_slice(self.body).map_err(|_| AuditFault::Malformed)
    }
}

/// Every field preceded by its length in bytes (64 bits, big-endian), so that no two lists share an encoding.
pub(super) fn fields(fields: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(fields.iter().map(|field| field.len().saturating_add(size_of::<u64>())).sum());
    for field in fields {
        bytes.extend_from_slice(&(field.len() as u64).to_be_bytes());
        bytes.extend_from_slice(field);
    }
    bytes
}

/// SHA-256.
pub(super) fn digest(bytes: &[u8]) -> AuditHash {
    Hex(Sha256::digest(bytes).into())
}

/// What the first link of a store's chain takes for the hash before it.
pub(super) fn genesis(store: StoreId) -> AuditHash {
    digest(&fields(&[GENESIS, store.as_bytes()]))
}

/// The hash of a link.
pub(super) fn link_hash(previous: AuditHash, number: u64, body: &[u8]) -> AuditHash {
    let mut hash = Sha256::new();
    for field in [LINK, previous.as_bytes(), &number.to_be_bytes(), body] {
        hash.update((field.len() as u64).to_be_bytes());
        hash.update(field);
    }
    Hex(hash.finalize().into())
}

/// How far the trail goes, and what it takes to go on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Head {
    pub(super) store: StoreId,
    pub(super) seq: u64,
    pub(super) number: u64,
    pub(super) hash: AuditHash,
    /// The number of the last checkpoint.
    checkpoint: u64,
    /// The time of the record before which it was due.
    checkpoint_at: Option<Timestamp>,
    /// The latest time of a record.
    latest: Option<Timestamp>,
    /// How far at most a record's time lay before the latest one, in microseconds.
    pub(super) lateness: i64,
    /// The last time that is found by key.
    marked: Option<Timestamp>,
}

impl Head {
    pub(super) fn new(store: StoreId) -> Self {
        Self {
            store,
            seq: 0,
            number: 0,
            hash: genesis(store),
            checkpoint: 0,
            checkpoint_at: None,
            latest: None,
            lateness: 0,
            marked: None,
        }
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, AuditFault> {
        serde_json::from_slice(bytes).map_err(|_| AuditFault::Malformed)
    }

    pub(super) const fn end(&self) -> Unsigned {
        Unsigned { store: self.store, seq: self.seq, number: self.number, hash: self.hash }
    }
}

/// A trail that is about to grow: its head, and what is to be stored.
pub(super) struct Growth {
    pub(super) head: Head,
    effects: Vec<Effect>,
}

impl Growth {
    pub(super) const fn new(head: Head) -> Self {
        Self { head, effects: Vec::new() }
    }

    /// Adds a record, and what it is found by.
    pub(super) fn record(&mut self, record: AuditRecord) -> Result<(), AuditFault> {
        let (seq, at) = (record.seq, record.at);
        let keys = record.index_keys();
        let body = record.bounded_body()?;
        self.head.seq = seq;
        self.append(record_key(seq), &body);
        self.effects.extend(keys.map(|key| Effect::Project { key, value: Vec::new() }));
        self.mark(seq, at);
        Ok(())
    }

    /// Accounts for the places up to and with `to`, for which there will be no record.
    pub(super) fn gap(&mut self, to: u64, cause: GapCause, at: Timestamp) -> Result<(), AuditFault> {
        let Gap { from, to } = Gap { from: self.head.seq.saturating_add(1), to };
        if from > to {
            return Ok(());
        }
        let body = written::<()>(&Body::Gap(AuditGap { from, to, cause, at }))?;
        self.head.seq = to;
        self.append(gap_key(to), &body);
        Ok(())
    }

    /// Signs the trail if it is long since it was: so many links, or an hour by the time of the records.
    pub(super) fn checkpoint(
        &mut self,
        signer: &AuditSigner,
        every: u64,
        record_at: Timestamp,
        now: Timestamp,
    ) -> Result<(), AuditFault> {
        let since = *self.head.checkpoint_at.get_or_insert(record_at);
        let is_late = record_at.as_micros().saturating_sub(since.as_micros()) >= HOUR;
        if !is_late && self.head.number.saturating_sub(self.head.checkpoint) < every {
            return Ok(());
        }
        let signed = signer.sign(HeadPurpose::Checkpoint, self.head.end(), now, None);
        let body = written::<()>(&Body::Checkpoint(signed))?;
        self.append(checkpoint_key(self.head.seq), &body);
        self.head.checkpoint = self.head.number;
        self.head.checkpoint_at = Some(since.max(record_at));
        Ok(())
    }

    /// What is to be stored of what was added since it was asked last, the head aside.
    pub(super) fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// The head, to be stored with whatever was added last.
    pub(super) fn head_effect(&self) -> Result<Effect, AuditFault> {
        let value = serde_json::to_vec(&self.head).map_err(|_| AuditFault::Malformed)?;
        Ok(Effect::Project { key: HEAD.to_vec(), value })
    }

    /// What is to be stored, the head included.
    pub(super) fn effects(mut self) -> Result<Vec<Effect>, AuditFault> {
        let head = self.head_effect()?;
        self.effects.push(head);
        Ok(self.effects)
    }

    fn append(&mut self, key: Vec<u8>, body: &[u8]) {
        let number = self.head.number.saturating_add(1);
        let hash = link_hash(self.head.hash, number, body);
        let value = [&[FORMAT], &number.to_be_bytes()[..], hash.as_bytes(), body].concat();
        (self.head.number, self.head.hash) = (number, hash);
        self.effects.push(Effect::Project { key, value });
    }

    /// Notes at which place the trail came to a time. Records are in the order in which they were decided upon, not in
    /// that of their times; but the latest time so far never falls.
    fn mark(&mut self, seq: u64, at: Timestamp) {
        let latest = self.head.latest.map_or(at, |latest| latest.max(at));
        self.head.latest = Some(latest);
        self.head.lateness = self.head.lateness.max(latest.as_micros().saturating_sub(at.as_micros()));
        let is_far = |marked: Timestamp| latest.as_micros().saturating_sub(marked.as_micros()) >= MARK;
        if self.head.marked.is_none_or(is_far) {
            self.head.marked = Some(latest);
            self.effects.push(Effect::Project { key: at_place(&time_key(latest.as_micros()), seq), value: Vec::new() });
        }
    }
}

pub(super) fn written<R: Serialize>(body: &Body<R>) -> Result<Vec<u8>, AuditFault> {
    serde_json::to_vec(body).map_err(|_| AuditFault::Malformed)
}

/// The key of a time; keys sort as times do.
pub(super) fn time_key(micros: i64) -> Vec<u8> {
    [BY_TIME, &(micros.cast_unsigned() ^ (1 << 63)).to_be_bytes()].concat()
}

/// The key of a gap: behind the record of its last place, which only an earlier build may have left.
fn gap_key(to: u64) -> Vec<u8> {
    [record_key(to).as_slice(), &[0]].concat()
}

/// The key of a checkpoint: behind whatever else ends with the same place.
fn checkpoint_key(seq: u64) -> Vec<u8> {
    [record_key(seq).as_slice(), &[1]].concat()
}
