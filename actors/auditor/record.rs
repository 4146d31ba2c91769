//! The records of the trail: what they hold, how they are written, and the keys they are found under.

use majordomo_model::{
    Actor, CONTEXT_TEXT_LIMIT, Context, Envelope, FlowId, Lane, Sender, SignalId, SignalKind, Timestamp, UserId,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::chain::{AuditGap, Body, StoredLink, fields, written};
use super::vocabulary;

/// The first byte of a record of an earlier build, which no chain covers: JSON with named fields follows.
pub(super) const UNCHAINED: u8 = 1;
/// The most that the body of a link may hold: the value of a projection, without what stands before the body.
const BODY_LIMIT: usize = 64 * 1024 - 41;

const RECORD: &[u8] = b"s";
const BY_USER: &[u8] = b"u";
const BY_KIND: &[u8] = b"k";
const BY_FLOW: &[u8] = b"f";
const BY_ACTOR: &[u8] = b"a";

/// One signal, as the trail keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AuditRecord {
    /// The place in the log.
    pub seq: u64,
    /// When it happened.
    pub at: Timestamp,
    /// The signal's name for life.
    pub id: SignalId,
    /// The run of the flow that emitted it.
    pub flow: FlowId,
    /// The run that led to this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<FlowId>,
    /// The kind of signal.
    pub kind: SignalKind,
    /// What it is in the OWASP Logging Vocabulary, such as `authn_login_success:` and the user's id; `None` if the
    /// vocabulary has no word for it, or an earlier build wrote the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
    /// The user that it speaks of, else the one in whose lane it stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<UserId>,
    /// On whose behalf the flow ran, as the app asserted it.
    pub actor: Actor,
    /// The part that emitted it.
    pub sender: Sender,
    /// The request behind it, as far as the app told; of a known user's, what is personal is sealed.
    #[serde(default, skip_serializing_if = "Context::is_empty")]
    pub context: Context,
    /// The version of the catalogue that the signal was written under.
    pub schema: u16,
    /// The signal in its stored form, `{"type": name, "data": fields}`: personal data redacted and sealed. A signal
    /// that would take the record beyond 64 KiB is kept without its `data`.
    pub signal: Value,
}

/// A stored record that this build cannot read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuditFault {
    /// It is in another format: a newer build wrote it, or it is no record.
    #[error("the record is in an unknown format")]
    UnknownFormat,
    /// It is in this format and yet cannot be read or written.
    #[error("the record is malformed")]
    Malformed,
}

impl AuditFault {
    /// The stable snake_case name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UnknownFormat => "unknown_format",
            Self::Malformed => "malformed",
        }
    }
}

impl AuditRecord {
    /// The record of a signal; `None` for one without a place in the log.
    pub(super) fn of(envelope: &Envelope) -> Option<Self> {
        let in_lane = match envelope.lane {
            Lane::User(user) => Some(user),
            Lane::Flow(_) => None,
        };
        let kind = envelope.signal.kind();
        let user = envelope.signal.user().or(in_lane);
        Some(Self {
            seq: envelope.seq?,
            at: envelope.at,
            id: envelope.id,
            flow: envelope.flow,
            cause: envelope.cause,
            kind,
            event: vocabulary::event(&envelope.signal, user, &envelope.actor),
            user,
            actor: envelope.actor.clone(),
            sender: envelope.sender.clone(),
            context: envelope.context.clone(),
            schema: envelope.schema,
            signal: serde_json::to_value(&envelope.signal).unwrap_or_else(|_| without_data(kind)),
        })
    }

    /// The body of its link, which fits a projection's value.
    pub(super) fn bounded_body(self) -> Result<Vec<u8>, AuditFault> {
        let body = written(&Body::Record(&self))?;
        if body.len() <= BODY_LIMIT {
            return Ok(body);
        }
        let actor = match &self.actor {
            Actor::Admin(name) => Actor::Admin(bounded(name).to_owned()),
            actor => actor.clone(),
        };
        let event = self.event.as_ref().and_then(|event| event.split(':').next()).map(ToOwned::to_owned);
        written(&Body::Record(&Self { actor, event, signal: without_data(self.kind), ..self }))
    }

    /// The keys, beside its own, under which it is found.
    pub(super) fn index_keys(&self) -> impl Iterator<Item = Vec<u8>> + use<> {
        let prefixes = [
            Some(kind_prefix(self.kind)),
            Some(flow_prefix(self.flow)),
            Some(actor_prefix(&self.actor)),
            self.user.map(user_prefix),
        ];
        let seq = self.seq;
        prefixes.into_iter().flatten().map(move |prefix| at_place(&prefix, seq))
    }
}

/// What stands at a place of the trail.
#[derive(Debug)]
pub(super) enum Entry {
    Record(Box<AuditRecord>),
    Gap(AuditGap),
    Checkpoint,
}

impl Entry {
    /// Reads what is stored, by this build or an earlier one.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, AuditFault> {
        match StoredLink::decode(bytes)? {
            None => {
                let json = bytes.get(1..).unwrap_or_default();
                serde_json::from_slice(json).map(Self::Record).map_err(|_| AuditFault::Malformed)
            }
            Some(link) => Ok(match link.body()? {
                Body::Record(record) => Self::Record(record),
                Body::Gap(gap) => Self::Gap(gap),
                Body::Checkpoint(_) => Self::Checkpoint,
            }),
        }
    }
}

fn without_data(kind: SignalKind) -> Value {
    json!({ "type": kind.as_str() })
}

fn bounded(name: &str) -> &str {
    let end = name.char_indices().map(|(start, character)| start + character.len_utf8());
    name.get(..end.take_while(|end| *end <= CONTEXT_TEXT_LIMIT).last().unwrap_or(0)).unwrap_or_default()
}

/// The key of the record of a place; keys sort as places do.
pub(super) fn record_key(seq: u64) -> Vec<u8> {
    at_place(RECORD, seq)
}

pub(super) fn record_prefix() -> Vec<u8> {
    RECORD.to_vec()
}

pub(super) fn user_prefix(user: UserId) -> Vec<u8> {
    [BY_USER, user.as_bytes()].concat()
}

pub(super) fn flow_prefix(flow: FlowId) -> Vec<u8> {
    [BY_FLOW, flow.as_bytes()].concat()
}

/// The zero byte keeps a kind apart from another one whose name begins with its own.
pub(super) fn kind_prefix(kind: SignalKind) -> Vec<u8> {
    [BY_KIND, kind.as_str().as_bytes(), &[0]].concat()
}

/// An operator may have a name of any length, so an actor is found by a digest.
pub(super) fn actor_prefix(actor: &Actor) -> Vec<u8> {
    let (kind, name): (&[u8], &[u8]) = match actor {
        Actor::Anonymous => (b"anonymous", b""),
        Actor::User(user) => (b"user", user.as_bytes()),
        Actor::Admin(name) => (b"admin", name.as_bytes()),
        Actor::System => (b"system", b""),
    };
    let digest: [u8; 32] = Sha256::digest(fields(&[kind, name])).into();
    BY_ACTOR.iter().chain(digest.iter().take(16)).copied().collect()
}

/// The key of a place below a prefix.
pub(super) fn at_place(prefix: &[u8], seq: u64) -> Vec<u8> {
    [prefix, &seq.to_be_bytes()].concat()
}

/// The place that follows a prefix in a key.
pub(super) fn place_behind(prefix: &[u8], key: &[u8]) -> Option<u64> {
    key.strip_prefix(prefix)?.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}
