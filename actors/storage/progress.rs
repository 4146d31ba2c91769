//! The rows of subscriptions: how far each has come, and the dead letters that it left.

use majordomo_model::{MaxLag, Timestamp};
use serde::{Deserialize, Serialize};

/// How far a subscription has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CursorRow {
    /// Grows with every write of this row: by one with those of the subscription itself.
    #[serde(default)]
    pub revision: u64,
    /// Every signal up to and with this place was looked at: it is finished unless it is listed as open.
    #[serde(alias = "floor")]
    pub taken: u64,
    /// The signals up to `taken` that are not finished, in their order. Few: their number is bounded.
    #[serde(default)]
    pub open: Vec<OpenRow>,
    /// The signals that were not finished when a rebuild of the projection began, in their order. They wait for its end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set_aside: Vec<OpenRow>,
    /// Up to and with this place signals may be in a handler's hands; 0 once the subscription has stopped in order.
    #[serde(default)]
    pub leased: u64,
    /// Since when the subscription no longer holds up pruning.
    #[serde(default)]
    pub lapsed_at: Option<Timestamp>,
    /// How far behind it may lie before it lapses.
    #[serde(default)]
    pub max_lag: MaxLag,
    /// Whether its projection is neither rebuilt nor forgotten.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keeps_projection: bool,
    /// Which generation of its projection is read, and which is written.
    #[serde(default)]
    pub projection: ProjectionRow,
    /// Why its subscriber asked to be handed nothing more, until an operator releases it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub halted: Option<FailureRow>,
    /// When the subscription was made.
    pub created_at: Timestamp,
}

impl CursorRow {
    /// Every signal up to and with this place is finished.
    #[must_use]
    pub fn floor(&self) -> u64 {
        let aside = self.set_aside.first().map_or(u64::MAX, |open| open.seq.saturating_sub(1));
        self.rebuilt().min(aside)
    }

    /// As [`CursorRow::floor`], apart from what waits for the end of a rebuild.
    #[must_use]
    pub fn rebuilt(&self) -> u64 {
        self.open.first().map_or(self.taken, |open| open.seq.saturating_sub(1))
    }

    /// The revision to be written by anybody but the subscription itself. It lies beyond those of all batches that the
    /// subscription may have left for later, or one of them could take this write for its own predecessor.
    #[must_use]
    pub const fn foreign_revision(&self) -> u64 {
        self.revision.saturating_add(1 << 16)
    }
}

/// A signal that is not finished.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenRow {
    /// Its place.
    pub seq: u64,
    /// How often it was handed over.
    #[serde(default)]
    pub attempts: u32,
    /// When it was handed over first.
    #[serde(default)]
    pub first_at: Option<Timestamp>,
    /// Until when it rests.
    #[serde(default)]
    pub not_before: Option<Timestamp>,
    /// Whether it was put off to that time, which costs no attempt.
    #[serde(default)]
    pub deferred: bool,
    /// How it stands.
    #[serde(default)]
    pub state: OpenState,
    /// The last failures, oldest first; few.
    #[serde(default)]
    pub failures: Vec<FailureRow>,
}

/// How a signal that is not finished stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OpenState {
    /// To be handed over, or resting.
    #[default]
    Waiting,
    /// Handed over alone, the last attempt being counted: if the process ends meanwhile, it was this signal.
    InHand,
    /// Given up, a dead letter, and still holding up what follows it.
    Held,
}

/// One failed attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureRow {
    /// When.
    pub at: Timestamp,
    /// What went wrong, as the handler said it, cut to 200 bytes.
    pub failure: String,
}

/// Which generation of a projection is which. They differ while it is rebuilt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProjectionRow {
    /// The generation that handlers read and write.
    pub written: u32,
    /// The generation that the app reads.
    pub served: u32,
    /// The generations before this one are being removed, or are gone.
    pub kept_from: u32,
    /// Where the rebuild began, while there is one.
    pub rebuild_from: u64,
    /// Once everything up to this place is handled, the rebuilt generation is served.
    pub rebuild_to: u64,
}

impl ProjectionRow {
    /// Whether a rebuild is under way.
    #[must_use]
    pub const fn is_rebuilding(&self) -> bool {
        self.written != self.served
    }
}

/// A signal that a subscription gave up, with everything that is needed to try again when the log has forgotten it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LetterRow {
    /// The signal as the log held it, personal data sealed.
    #[serde(with = "crate::bytes::buffer")]
    pub envelope: Vec<u8>,
    /// Why it was given up.
    pub reason: String,
    /// How often it was handed over, over its whole life.
    pub attempts: u32,
    /// How often it was handed over since somebody asked for it to be tried again.
    #[serde(default)]
    pub tries: u32,
    /// The last failures, oldest first; few.
    pub failures: Vec<FailureRow>,
    /// When it was given up.
    pub dead_at: Timestamp,
    /// How it stands.
    pub state: LetterState,
}

/// How a dead letter stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LetterState {
    /// Given up.
    Dead,
    /// Somebody asked for it to be tried again.
    Due,
    /// It is being tried again: if the process ends meanwhile, it was this signal.
    InHand,
}
