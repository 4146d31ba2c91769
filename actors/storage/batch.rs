//! A batch: preconditions, row changes and signals that are committed together or not at all.

use std::sync::Arc;
use std::time::Duration;

use majordomo_model::{
    Channel, CommandId, Envelope, FlowId, FlowKind, SessionId, SignalId, Timestamp, TokenId, TokenPurpose, UserId,
};

use super::change::ChangeRow;
use super::credential::CredentialRow;
use super::dispatch::DispatchRow;
use super::limit::AttemptRow;
use super::log::LogEnd;
use super::lookup::{Lookup, ReadError, UniqueKey};
use super::message::MessagesRow;
use super::progress::{CursorRow, LetterRow, LetterState};
use super::redb::{View, WriteView};
use super::row::{AppliedRow, DeliveryState, SessionRow, TokenEnd, TokenRow, UserRow};
use super::table::Table;
use super::texts::{TextEvent, TextsRow};
use super::write;
use crate::bytes::Bytes;
use crate::keys::Keyring;

/// The place that the next signal gets. Kept by itself: derived from the log it would restart once the log is pruned,
/// and every cursor would skip signals.
pub(crate) const NEXT_SEQ: &str = "next_seq";
/// How many transactions there were: the number of the last one. After a commit that failed it tells, once the store is
/// open again, whether that transaction took place.
pub(super) const COMMITS: &str = "commits";
/// The latest instant that any commit carried; the clock's floor after a restart.
pub(super) const HIGH_WATER: &str = "high_water";

/// What a flow decided. The storage actor commits it whole, or refuses it whole because a check failed.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The run of the flow that decided it.
    pub flow: FlowId,
    /// The outcome to be remembered, so that the same command is not done twice.
    pub outcome: Option<Outcome>,
    /// What must hold for it to be right.
    pub checks: Vec<Check>,
    /// What changes.
    pub writes: Vec<Write>,
    /// What is told, in order; their places are given at commit.
    pub signals: Vec<Envelope>,
}

/// The outcome of a command, to be remembered with its batch.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The command.
    pub command: CommandId,
    /// The flow it started.
    pub kind: FlowKind,
    /// The keyed hash of its fields that are no secret.
    pub fingerprint: [u8; 32],
    /// Whether the flow decided. If not, the outcome only sees to it that the run ends once.
    pub settled: bool,
    /// The answer without secrets, as the flow encodes it.
    pub answer: Vec<u8>,
    /// Whether it takes the place of an earlier outcome of the same command.
    pub renew: bool,
    /// How long it is remembered.
    pub keep: Duration,
    /// When it was decided.
    pub at: Timestamp,
}

/// A precondition: what the flow read and relied on.
#[derive(Clone, Debug)]
pub enum Check {
    /// The user's row is at this version.
    UserVersion(UserId, u64),
    /// There is such a user.
    UserExists(UserId),
    /// The user is in this credential epoch.
    Epoch(UserId, u64),
    /// The user's credential is at this revision, or there is none.
    CredentialRevision(UserId, Option<u64>),
    /// The name or address belongs to this user, or to nobody.
    Owner(UniqueKey, Option<UserId>),
    /// At this time the address is kept for this user, or for nobody: owned, or given up in a change that can be undone.
    Holder(UniqueKey, Option<UserId>, Timestamp),
    /// The token has not ended, and this many wrong codes were presented.
    TokenOpen(TokenId, u32),
    /// The user's tokens for this purpose that have not ended are exactly these, in the order of their index.
    OpenTokens(UserId, TokenPurpose, Vec<TokenId>),
    /// The token's message is neither sent nor given up.
    DeliveryPending(TokenId),
    /// The user's tokens whose message is neither sent nor given up are exactly these, in the order of their index.
    DueTokens(UserId, Vec<TokenId>),
    /// What is remembered of messages under this keyed hash is exactly this.
    Messages([u8; 32], Option<MessagesRow>),
    /// This much can be taken from a budget of attempts.
    Room {
        /// The budget, by its keyed hash.
        key: [u8; 32],
        /// When.
        at: Timestamp,
        /// How long it takes until this much is there again.
        cost: Duration,
        /// How long it takes until all of it is there again.
        most: Duration,
    },
    /// What is known of the text messages to a region is exactly this.
    Texts(String, Option<TextsRow>),
    /// Text messages to the region are not withheld.
    TextsPass(String),
    /// The user has exactly this many sessions.
    SessionCount(UserId, usize),
    /// The user has this many sessions, or fewer.
    SessionsAtMost(UserId, usize),
    /// The session is this one.
    Session([u8; 32], SessionId),
    /// The failed attempts to sign in as somebody that count at this time are fewer than so many.
    FailuresBelow([u8; 32], u64, Timestamp),
    /// The failed attempts are exactly these.
    Attempts([u8; 32], Option<AttemptRow>),
    /// At this time there is no lock on signing in.
    Unlocked([u8; 32], Timestamp),
    /// The subscription's cursor is at this revision.
    Cursor(String, u64),
    /// The subscription has no cursor yet.
    NoCursor(String),
    /// The subscription's dead letter of this place stands so; `None` where there is none.
    Letter(String, u64, Option<LetterState>),
    /// The message that the signal asks for is claimed so; `None` where nobody has.
    Dispatch(SignalId, Option<DispatchRow>),
}

/// A change of rows. Applied after every check held, in order.
#[derive(Clone, Debug)]
pub enum Write {
    /// Stores a user.
    PutUser(Box<UserRow>),
    /// Removes a user with everything that is theirs: names and addresses, claims, credential, activity, tokens,
    /// sessions, changes that can be undone, and the note that verification is expected.
    RemoveUser(UserId),
    /// Stores a credential, sealed under the current key.
    PutCredential(UserId, CredentialRow),
    /// Removes a credential.
    RemoveCredential(UserId),
    /// Gives a name or address to a user.
    PutOwner(UniqueKey, UserId),
    /// Frees a name or address.
    RemoveOwner(UniqueKey),
    /// Notes that a user claims an address.
    PutClaim(Channel, String, UserId),
    /// Forgets the claim.
    RemoveClaim(Channel, String, UserId),
    /// Notes that a user is to be deleted at this time unless verified, in the place of an earlier note.
    ExpectVerification(UserId, Timestamp),
    /// Forgets the note.
    ForgetVerification(UserId),
    /// Notes a change that can be undone, and keeps the address that it takes from the user.
    PutChange(Box<ChangeRow>),
    /// Forgets the change that made this version of a user, and frees the address that it kept.
    RemoveChange(UserId, u64),
    /// Stores a new token.
    PutToken(Box<TokenRow>),
    /// Ends a token.
    EndToken(TokenId, TokenEnd),
    /// Counts a wrong code.
    CountAttempt(TokenId),
    /// Notes what became of a token's message.
    EndDelivery(TokenId, DeliveryState),
    /// Remembers messages under a keyed hash, in the place of what was remembered there.
    PutMessages([u8; 32], Box<MessagesRow>),
    /// Opens a session.
    PutSession([u8; 32], Box<SessionRow>),
    /// Ends a session.
    RemoveSession([u8; 32]),
    /// Ends every session of a user, but this one.
    RemoveSessionsOf(UserId, Option<SessionId>),
    /// Notes that a session was used.
    TouchSession([u8; 32], Timestamp),
    /// Notes a login.
    RecordLogin(UserId, Timestamp),
    /// Counts a failed attempt to sign in, by a keyed hash; forgotten after the given time without another.
    RecordFailure([u8; 32], Timestamp, Duration),
    /// Stores failed attempts, in the place of those that were counted.
    PutAttempts([u8; 32], AttemptRow),
    /// Forgets the failed attempts.
    ClearFailures([u8; 32]),
    /// Takes from a budget of attempts.
    Spend {
        /// The budget, by its keyed hash.
        key: [u8; 32],
        /// When.
        at: Timestamp,
        /// How long it takes until this much is there again.
        cost: Duration,
        /// How long it takes until all of it is there again.
        most: Duration,
    },
    /// Counts what happened to a text message to a region that was started at this time.
    CountText(String, Timestamp, TextEvent),
    /// Stores what is known of the text messages to a region.
    PutTexts(String, Box<TextsRow>),
    /// Moves a subscription's cursor.
    PutCursor(String, CursorRow),
    /// Forgets a subscription's cursor.
    RemoveCursor(String),
    /// Stores a value in a generation of a subscriber's own projection.
    PutProjection(String, u32, Vec<u8>, Vec<u8>),
    /// Removes a value from a generation of a subscriber's own projection.
    RemoveProjection(String, u32, Vec<u8>),
    /// Removes values of a generation of a subscriber's own projection, at most so many.
    DropProjection(String, u32, usize),
    /// Stores a dead letter of a subscription, in the place of an earlier one of the same signal.
    PutLetter(String, u64, Box<LetterRow>),
    /// Forgets a dead letter.
    RemoveLetter(String, u64),
    /// Stores a claim on the message that a signal asks for, in the place of an earlier one.
    PutDispatch(SignalId, DispatchRow),
    /// Removes everything that ended before this time, at most so many rows.
    Sweep(Timestamp, usize),
    /// Removes signals up to and with this place, at most so many, and none that a subscription which has not lapsed
    /// still has to handle.
    PruneLog(u64, usize),
}

/// What became of a batch within its transaction.
#[derive(Debug)]
pub enum Verdict {
    /// Committed; its first signal has this place.
    Committed(u64),
    /// A check failed: nothing of it was written.
    Conflict,
    /// Its command was done before: nothing of it was written.
    AlreadyApplied(Box<AppliedRow>),
}

/// What a batch did within its transaction.
pub(super) struct Applied {
    pub(super) verdict: Verdict,
    /// Whether it did so in an earlier transaction already, when its question was asked for the first time.
    pub(super) repeated: bool,
}

impl From<Verdict> for Applied {
    fn from(verdict: Verdict) -> Self {
        Self { verdict, repeated: false }
    }
}

/// A batch with its signals encoded, made outside the writer.
pub(super) struct Prepared {
    pub(super) batch: Batch,
    pub(super) encoded: Vec<Vec<u8>>,
}

impl Prepared {
    pub(super) fn new(batch: Batch) -> Result<Arc<Self>, super::row::RowError> {
        let encoded = batch.signals.iter().map(super::row::encode_signal).collect::<Result<_, _>>()?;
        Ok(Arc::new(Self { batch, encoded }))
    }

    /// Checks, then writes, within a transaction that others share. Every check precedes the first write, so a refused
    /// batch leaves no trace and its neighbours commit.
    pub(super) fn apply(
        &self,
        transaction: &mut WriteView<'_>,
        log: &mut LogEnd,
        keys: &Keyring,
    ) -> Result<Applied, ReadError> {
        let mut earlier = None;
        if let Some(outcome) = &self.batch.outcome
            && let Some(applied) = transaction.applied(outcome.command)?
        {
            if applied.flow == self.batch.flow {
                return Ok(Applied { verdict: Verdict::Committed(applied.first_seq), repeated: true });
            }
            if applied.settled && !outcome.renew {
                return Ok(Verdict::AlreadyApplied(Box::new(applied)).into());
            }
            earlier = Some(applied);
        }
        for check in &self.batch.checks {
            if !check.holds(transaction)? {
                return Ok(Verdict::Conflict.into());
            }
        }
        let first_seq = log.next_seq();
        for write in &self.batch.writes {
            write::apply(transaction, write, keys)?;
        }
        for (envelope, bytes) in self.batch.signals.iter().zip(&self.encoded) {
            log.append(transaction, bytes, envelope.at)?;
        }
        if let Some(outcome) = &self.batch.outcome {
            let row = outcome.row(self.batch.flow, first_seq);
            write::remember(transaction, outcome.command, earlier.as_ref(), &row)?;
        }
        Ok(Verdict::Committed(first_seq).into())
    }
}

impl Outcome {
    fn row(&self, flow: FlowId, first_seq: u64) -> AppliedRow {
        AppliedRow {
            kind: self.kind,
            flow,
            fingerprint: Bytes(self.fingerprint),
            settled: self.settled,
            outcome: self.answer.clone(),
            first_seq,
            expires_at: self.at.plus(self.keep),
        }
    }
}

impl Check {
    fn holds<V: View>(&self, view: &V) -> Result<bool, ReadError> {
        Ok(match self {
            Self::UserVersion(user, version) => view.standing(*user)?.is_some_and(|row| row.version == *version),
            Self::UserExists(user) => view.get(Table::Users, user.as_bytes())?.is_some(),
            Self::Epoch(user, epoch) => view.standing(*user)?.is_some_and(|row| row.epoch == *epoch),
            Self::CredentialRevision(user, revision) => {
                view.credential(*user)?.map(|credential| credential.revision) == *revision
            }
            Self::Owner(key, owner) => view.owner(key)? == *owner,
            Self::Holder(key, holder, now) => view.holder(key, *now)? == *holder,
            Self::TokenOpen(token, attempts) => {
                view.token(*token)?.is_some_and(|row| row.end.is_none() && row.attempts == *attempts)
            }
            Self::OpenTokens(user, purpose, tokens) => {
                view.open_tokens(*user, *purpose, None)?.iter().map(|row| row.id).eq(tokens.iter().copied())
            }
            Self::DeliveryPending(token) => {
                view.token(*token)?.is_some_and(|row| row.delivered == DeliveryState::Pending)
            }
            Self::DueTokens(user, tokens) => {
                view.due_tokens(*user)?.iter().map(|row| row.id).eq(tokens.iter().copied())
            }
            Self::Messages(subject, row) => view.messages(subject)? == *row,
            Self::Room { key, at, cost, most } => view.limit(key)?.is_none_or(|row| row.has_room(*at, *cost, *most)),
            Self::Texts(region, row) => view.texts(region)? == *row,
            Self::TextsPass(region) => view.texts(region)?.is_none_or(|row| row.opened_at.is_none()),
            Self::SessionCount(user, count) => {
                let sessions = view.session_index(*user)?.take(count.saturating_add(1));
                sessions.map(|row| row.map(|_| 1)).sum::<Result<usize, _>>()? == *count
            }
            Self::SessionsAtMost(user, most) => !view.has_more_sessions(*user, *most)?,
            Self::FailuresBelow(subject, most, now) => {
                view.attempts(subject)?.map_or(0, |row| row.counted(*now)) < *most
            }
            Self::Attempts(subject, row) => view.attempts(subject)? == *row,
            Self::Unlocked(subject, now) => !view.attempts(subject)?.is_some_and(|row| row.is_locked(*now)),
            Self::Session(hash, id) => view.session(hash)?.is_some_and(|session| session.id == *id),
            Self::Cursor(subscription, revision) => {
                view.cursor(subscription)?.is_some_and(|row| row.revision == *revision)
            }
            Self::NoCursor(subscription) => view.cursor(subscription)?.is_none(),
            Self::Letter(subscription, seq, state) => {
                view.letter(subscription, *seq)?.map(|letter| letter.state) == *state
            }
            Self::Dispatch(signal, row) => view.dispatch(*signal)? == *row,
        })
    }
}
