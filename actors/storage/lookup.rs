//! Typed look-ups: what the tables hold under which key, the same in a snapshot and in a transaction.

use majordomo_model::{
    Channel, CommandId, ContactId, Identifier, IdentifierKind, SignalId, Timestamp, TokenId, TokenPurpose, UserId,
};
use serde::de::DeserializeOwned;

use super::change::ChangeRow;
use super::credential::StoredCredential;
use super::dispatch::DispatchRow;
use super::limit::{AttemptRow, LimitRow};
use super::message::MessagesRow;
use super::progress::{CursorRow, LetterRow};
use super::redb::{EngineError, Rows, View};
use super::row::{ActivityRow, AppliedRow, DeliveryState, RowError, SessionRow, Standing, TokenRow, UserRow, decode};
use super::table::{Key, KeyReader, MalformedKey, NulInText, Table, prefix_end};
use super::texts::TextsRow;
use crate::seal::SealError;

/// Why a read answered nothing: the store is out or broken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// The store.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A row.
    #[error(transparent)]
    Row(#[from] RowError),
    /// A key.
    #[error("a stored key is malformed")]
    Key,
    /// What is to be stored cannot be sealed.
    #[error(transparent)]
    Seal(#[from] SealError),
}

impl From<MalformedKey> for ReadError {
    fn from(_: MalformedKey) -> Self {
        Self::Key
    }
}

impl From<NulInText> for ReadError {
    fn from(_: NulInText) -> Self {
        Self::Key
    }
}

/// A name or address that one user at most may have.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct UniqueKey(Vec<u8>);

impl UniqueKey {
    /// The canonical username.
    pub fn username(canonical: &str) -> Self {
        Self(Key::new().u8(1).last_text(canonical))
    }

    /// The skeleton that lookalike usernames share.
    pub fn skeleton(skeleton: &str) -> Self {
        Self(Key::new().u8(4).last_text(skeleton))
    }

    /// A proven address.
    pub fn address(channel: Channel, canonical: &str) -> Self {
        Self(Key::new().u8(channel_byte(channel)).last_text(canonical))
    }

    /// What a person signs in with.
    pub fn identifier(identifier: &Identifier) -> Self {
        match identifier.kind() {
            IdentifierKind::Email => Self::address(Channel::Email, identifier.canonical()),
            IdentifierKind::Phone => Self::address(Channel::Phone, identifier.canonical()),
            _ => Self::username(identifier.canonical()),
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Shows that there is a key, not which.
impl std::fmt::Debug for UniqueKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("UniqueKey(..)")
    }
}

fn channel_byte(channel: Channel) -> u8 {
    match channel {
        Channel::Email => 2,
        Channel::Phone => 3,
    }
}

pub(super) fn claim_key(channel: Channel, canonical: &str, user: UserId) -> Result<Key, NulInText> {
    Ok(claim_prefix(channel, canonical)?.fixed(user.as_bytes()))
}

fn claim_prefix(channel: Channel, canonical: &str) -> Result<Key, NulInText> {
    Key::new().u8(channel_byte(channel)).text(canonical)
}

/// How far a token of a user is, which comes before its name in their index: the open ones are found without a look
/// at those that have ended, which are remembered for a while. Part of the file, never renumbered.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It has not ended.
    Open = 0,
    /// It has ended while its message was due.
    Due = 1,
    /// It has ended, and so has its delivery, if it had one.
    Over = 2,
}

/// The key under which a token is found by its user; nothing for nobody's.
pub(super) fn token_index(row: &TokenRow) -> Option<Key> {
    let stage = match (row.end, row.delivered) {
        (None, _) => Stage::Open,
        (Some(_), DeliveryState::Pending) => Stage::Due,
        (Some(_), _) => Stage::Over,
    };
    Some(stage_prefix(row.user?, stage).fixed(row.id.as_bytes()))
}

fn stage_prefix(user: UserId, stage: Stage) -> Key {
    Key::new().fixed(user.as_bytes()).u8(stage as u8)
}

/// The token that a key of [`token_index`] names.
pub(super) fn indexed_token(user: UserId, key: &[u8]) -> Result<TokenId, ReadError> {
    let mut rest = KeyReader::new(key.strip_prefix(user.as_bytes().as_slice()).ok_or(ReadError::Key)?);
    rest.u8()?;
    Ok(TokenId::from_bytes(rest.fixed()?))
}

/// What the keys of a subscriber's projection start with, whatever their generation.
pub(super) fn projection_prefix(subscription: &str) -> Result<Key, NulInText> {
    Key::new().text(subscription)
}

/// The key of a value in a generation of a subscriber's projection.
pub(super) fn projection_key(subscription: &str, generation: u32, key: &[u8]) -> Result<Vec<u8>, NulInText> {
    let mut bytes = projection_prefix(subscription)?.fixed(&generation.to_be_bytes()).into_bytes();
    bytes.extend_from_slice(key);
    Ok(bytes)
}

/// Sessions, each with the hash of its secret.
type HashedSessions = Vec<([u8; 32], SessionRow)>;

/// The look-ups. `ReadError` is the only way they fail; what is not there is `None` or empty.
pub(crate) trait Lookup: View + Sized {
    /// A row by its key.
    fn row<T: DeserializeOwned>(&self, table: Table, key: &[u8]) -> Result<Option<T>, ReadError> {
        self.get(table, key)?.map(|bytes| decode(&bytes)).transpose().map_err(ReadError::from)
    }

    /// A number of the meta table.
    fn meta_u64(&self, name: &str) -> Result<Option<u64>, ReadError> {
        let bytes = self.get(Table::Meta, name.as_bytes())?;
        Ok(bytes.map(|bytes| KeyReader::new(&bytes).u64()).transpose()?)
    }

    /// A user.
    fn user(&self, id: UserId) -> Result<Option<UserRow>, ReadError> {
        self.row(Table::Users, id.as_bytes())
    }

    /// What checks compare of a user.
    fn standing(&self, id: UserId) -> Result<Option<Standing>, ReadError> {
        self.row(Table::Users, id.as_bytes())
    }

    /// Who has this name or proven address.
    fn owner(&self, key: &UniqueKey) -> Result<Option<UserId>, ReadError> {
        let bytes = self.get(Table::Unique, key.bytes())?;
        Ok(bytes.map(|bytes| KeyReader::new(&bytes).fixed().map(UserId::from_bytes)).transpose()?)
    }

    /// Whom this name or address is kept for: who has it, else who gave it up in a change that can still be undone.
    /// Nobody else may claim it successfully.
    fn holder(&self, key: &UniqueKey, now: Timestamp) -> Result<Option<UserId>, ReadError> {
        match self.owner(key)? {
            Some(owner) => Ok(Some(owner)),
            None => super::change::reserved_for(self, key, now),
        }
    }

    /// A change of a user, by the version that it made.
    fn change(&self, user: UserId, version: u64) -> Result<Option<ChangeRow>, ReadError> {
        super::change::find(self, user, version)
    }

    /// The changes of a user that can be undone, or could until now; the earliest first.
    fn changes_of(&self, user: UserId) -> Result<Vec<ChangeRow>, ReadError> {
        super::change::of(self, user)
    }

    /// The user that this identifier names: by username or proven address.
    fn user_named(&self, identifier: &Identifier) -> Result<Option<UserRow>, ReadError> {
        match self.owner(&UniqueKey::identifier(identifier))? {
            Some(id) => self.user(id),
            None => Ok(None),
        }
    }

    /// The newest user who claims this address without having proven it.
    fn newest_claimant(&self, channel: Channel, canonical: &str) -> Result<Option<UserId>, ReadError> {
        let prefix = claim_prefix(channel, canonical)?;
        match self.prefix(Table::Claims, &prefix)?.next_back() {
            Some(row) => {
                let row = row?;
                let id = row.key().strip_prefix(&*prefix).ok_or(ReadError::Key)?;
                Ok(Some(UserId::from_bytes(KeyReader::new(id).fixed()?)))
            }
            None => Ok(None),
        }
    }

    /// A user's password credential.
    fn credential(&self, user: UserId) -> Result<Option<StoredCredential>, ReadError> {
        self.row(Table::Credentials, user.as_bytes())
    }

    /// What a user did.
    fn activity(&self, user: UserId) -> Result<Option<ActivityRow>, ReadError> {
        self.row(Table::Activity, user.as_bytes())
    }

    /// The failed attempts to sign in as somebody, by a keyed hash.
    fn attempts(&self, subject: &[u8; 32]) -> Result<Option<AttemptRow>, ReadError> {
        self.row(Table::Attempts, subject)
    }

    /// How far a budget is spent, by its keyed hash.
    fn limit(&self, key: &[u8; 32]) -> Result<Option<LimitRow>, ReadError> {
        self.row(Table::Limits, key)
    }

    /// The text messages to a region of late.
    fn texts(&self, region: &str) -> Result<Option<TextsRow>, ReadError> {
        self.row(Table::Texts, region.as_bytes())
    }

    /// What is remembered of messages, by the keyed hash of what they were asked for by or of where they go.
    fn messages(&self, subject: &[u8; 32]) -> Result<Option<MessagesRow>, ReadError> {
        self.row(Table::Messages, subject)
    }

    /// A one-time token.
    fn token(&self, id: TokenId) -> Result<Option<TokenRow>, ReadError> {
        self.row(Table::Tokens, id.as_bytes())
    }

    /// The tokens of a user for a purpose that have not ended; for one contact if given.
    fn open_tokens(
        &self,
        user: UserId,
        purpose: TokenPurpose,
        contact: Option<ContactId>,
    ) -> Result<Vec<TokenRow>, ReadError> {
        let mut open = self.tokens_at(user, Stage::Open)?;
        open.retain(|token| {
            token.purpose == purpose && contact.is_none_or(|contact| token.binding.contact() == Some(contact))
        });
        Ok(open)
    }

    /// The tokens of a user whose message is due: neither sent nor given up, whether or not the token has ended.
    fn due_tokens(&self, user: UserId) -> Result<Vec<TokenRow>, ReadError> {
        let mut due = self.tokens_at(user, Stage::Open)?;
        due.retain(|token| token.delivered == DeliveryState::Pending);
        due.extend(self.tokens_at(user, Stage::Due)?);
        Ok(due)
    }

    /// The tokens of a user at a stage, in the order of their index.
    fn tokens_at(&self, user: UserId, stage: Stage) -> Result<Vec<TokenRow>, ReadError> {
        let mut tokens = Vec::new();
        for row in self.prefix(Table::TokensByUser, &stage_prefix(user, stage))? {
            tokens.extend(self.token(indexed_token(user, row?.key())?)?);
        }
        Ok(tokens)
    }

    /// A session, by the hash of its secret.
    fn session(&self, hash: &[u8; 32]) -> Result<Option<SessionRow>, ReadError> {
        self.row(Table::Sessions, hash)
    }

    /// The index of a user's sessions, oldest first: as values the hashes of their secrets.
    fn session_index(&self, user: UserId) -> Result<Rows<'_>, ReadError> {
        // Their keys are longer than that of what the user did, which stands before them.
        let from = Key::new().fixed(user.as_bytes()).u8(0);
        Ok(self.range(Table::Activity, &from, prefix_end(user.as_bytes()).as_deref())?)
    }

    /// The sessions of a user, with the hash of their secret, oldest first.
    fn sessions_of(&self, user: UserId) -> Result<HashedSessions, ReadError> {
        Ok(self.oldest_sessions(user, 0)?.0)
    }

    /// The sessions of a user but so many of the youngest, which are only counted; and how many those are.
    fn oldest_sessions(&self, user: UserId, kept: usize) -> Result<(HashedSessions, usize), ReadError> {
        let mut hashes = Vec::new();
        for row in self.session_index(user)? {
            hashes.push(KeyReader::new(row?.value()).fixed()?);
        }
        let oldest = hashes.len().saturating_sub(kept);
        let mut sessions = Vec::with_capacity(oldest);
        for hash in hashes.iter().take(oldest) {
            if let Some(session) = self.session(hash)? {
                sessions.push((*hash, session));
            }
        }
        Ok((sessions, hashes.len().saturating_sub(oldest)))
    }

    /// Whether a user has more than so many sessions: a look at their index only.
    fn has_more_sessions(&self, user: UserId, many: usize) -> Result<bool, ReadError> {
        Ok(self.session_index(user)?.nth(many).transpose()?.is_some())
    }

    /// The outcome of a command.
    fn applied(&self, command: CommandId) -> Result<Option<AppliedRow>, ReadError> {
        self.row(Table::Applied, command.as_bytes())
    }

    /// How far a subscription has come.
    fn cursor(&self, subscription: &str) -> Result<Option<CursorRow>, ReadError> {
        self.row(Table::Cursors, subscription.as_bytes())
    }

    /// A dead letter of a subscription, by its signal's place.
    fn letter(&self, subscription: &str, seq: u64) -> Result<Option<LetterRow>, ReadError> {
        super::letter::find(self, subscription, seq)
    }

    /// Who is sending the message that a signal asks for, if anybody is or has settled it.
    fn dispatch(&self, signal: SignalId) -> Result<Option<DispatchRow>, ReadError> {
        self.row(Table::Dispatches, signal.as_bytes())
    }

    /// The place of the last signal; 0 where there never was one.
    fn head(&self) -> Result<u64, ReadError> {
        Ok(self.meta_u64(super::batch::NEXT_SEQ)?.unwrap_or(1).saturating_sub(1))
    }
}

impl<V: View> Lookup for V {}
