//! Rows: what the tables hold, in an encoding that can grow without rewriting what is stored.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use majordomo_model::{
    Channel, Contact, ContactId, Context, Email, Envelope, FlowId, FlowKind, Phone, Profile, Session, SessionId,
    Timestamp, TokenId, TokenPurpose, User, UserContact, UserId, UserStatus, Username,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::bytes::Bytes;
use crate::token::{Binding, KeyId, TokenClaims};

/// The first byte of every row: how the rest is encoded. 1 is MessagePack with named fields, so a field may be added
/// with a default, and a reader skips fields it does not know.
const FORMAT: u8 = 1;

/// As many bytes as most rows take, so that none of these grows step by step.
const USUAL_BYTES: usize = 512;

/// A stored row that cannot be read: corruption, or a newer build's format.
#[derive(Debug, thiserror::Error)]
#[error("a stored {what} cannot be decoded: {fault}")]
pub struct RowError {
    what: &'static str,
    fault: String,
}

/// Encodes a row: the format byte, then its named fields.
pub(crate) fn encode<T: Serialize>(row: &T) -> Result<Vec<u8>, RowError> {
    let mut bytes = Vec::with_capacity(USUAL_BYTES);
    bytes.push(FORMAT);
    rmp_serde::encode::write_named(&mut bytes, row).map_err(|fault| row_error::<T>(&fault))?;
    Ok(bytes)
}

/// Decodes what [`encode`] wrote, in this build or an earlier one.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, RowError> {
    match bytes.split_first() {
        Some((&FORMAT, fields)) => rmp_serde::from_slice(fields).map_err(|fault| row_error::<T>(&fault)),
        Some((format, _)) => Err(row_error::<T>(&format!("unknown format {format}"))),
        None => Err(row_error::<T>(&"no bytes")),
    }
}

fn row_error<T>(fault: &dyn fmt::Display) -> RowError {
    RowError { what: std::any::type_name::<T>().rsplit("::").next().unwrap_or("row"), fault: fault.to_string() }
}

/// A user as stored.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct UserRow {
    /// The name for life.
    pub id: UserId,
    /// Grows with every write of this row.
    pub version: u64,
    /// When the user registered.
    pub created_at: Timestamp,
    /// Whether the user is let in.
    pub status: UserStatus,
    /// The username in its three forms.
    pub username: Option<UsernameRow>,
    /// Addresses, proven and claimed.
    pub contacts: Vec<ContactRow>,
    /// Names and preferences.
    #[serde(default)]
    pub profile: Profile,
    /// Groups.
    #[serde(default)]
    pub groups: BTreeSet<String>,
    /// The credential epoch: grows with a password set other than a rehash, with disable, with delete, and with a change
    /// that is undone. Sessions and reset tokens of another epoch are dead.
    pub epoch: u64,
    /// When the account goes unless an address is proven by then.
    #[serde(default)]
    pub verify_by: Option<Timestamp>,
    /// The key that the user's personal data in the log is sealed under; it goes with the row.
    pub seal_key: Bytes<32>,
}

/// The part of a user's row that says whether it has changed; the rest is not even copied.
#[derive(Deserialize)]
pub(crate) struct Standing {
    /// As [`UserRow::version`].
    pub(crate) version: u64,
    /// As [`UserRow::epoch`].
    pub(crate) epoch: u64,
}

/// A username as stored.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsernameRow {
    /// The form that is unique.
    pub canonical: String,
    /// The form that was typed.
    pub original: String,
    /// The form that lookalikes share; unique too.
    pub skeleton: String,
}

/// An address of a user as stored.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContactRow {
    /// The name of the contact.
    pub id: ContactId,
    /// E-mail or phone.
    pub channel: Channel,
    /// The form that is unique.
    pub canonical: String,
    /// The form that was typed.
    pub original: String,
    /// Grows whenever what was proven before must not count any more; verification tokens are bound to it.
    pub revision: u32,
    /// When it was proven.
    pub proven_at: Option<Timestamp>,
    /// Whether messages of the channel go here.
    pub primary: bool,
    /// When it was added.
    pub added_at: Timestamp,
    /// The contact that gives way once this one is proven.
    #[serde(default)]
    pub replaces: Option<ContactId>,
}

/// A password credential as stored.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialRow {
    /// The hash with its parameters: a PHC string, or the text of another system that it was taken in from.
    pub phc: String,
    /// Grows with every write of this row.
    pub revision: u64,
    /// When it was set.
    pub set_at: Timestamp,
}

/// What a user did, written without raising the user's version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActivityRow {
    /// When the user last signed in.
    pub last_login_at: Option<Timestamp>,
    /// How often the user signed in.
    pub logins: u64,
}

/// Failed attempts at one identifier, whether or not it names a user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptRow {
    /// How many since the last success.
    pub failures: u64,
    /// When the last one was.
    pub last_at: Timestamp,
    /// When the row goes.
    pub expires_at: Timestamp,
}

/// A one-time token as stored: everything about it but the secret, which is derived.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRow {
    /// The name.
    pub id: TokenId,
    /// What it is good for.
    pub purpose: TokenPurpose,
    /// Whose it is; nobody's for an address that no user has, so that the row's presence tells nothing.
    pub user: Option<UserId>,
    /// The exact canonical address; the keyed hash of it where there is no user.
    pub address: String,
    /// What must not have changed since.
    pub binding: Binding,
    /// The master key that the secret is derived from.
    pub key: KeyId,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends.
    pub expires_at: Timestamp,
    /// How many wrong codes were presented.
    pub attempts: u32,
    /// How it ended before its time.
    pub end: Option<TokenEnd>,
    /// The flow that delivers its message.
    pub delivery: FlowId,
    /// How far the delivery is.
    pub delivered: DeliveryState,
}

/// How a token ended before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenEnd {
    /// It was used.
    Used,
    /// A newer one took its place, or what it was for is gone.
    Superseded,
}

/// How far a delivery is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryState {
    /// Due, or under way.
    Pending,
    /// Accepted by the transport.
    Sent,
    /// Given up.
    Failed,
    /// There never was one: the row is kept for its likeness to others, and nobody is sent a message.
    Withheld,
    /// It has none of its own: the link is enclosed in a notice that is due anyway.
    Enclosed,
}

impl TokenRow {
    /// The row of a token that no message is sent for.
    pub fn withheld(self) -> Self {
        Self { delivered: DeliveryState::Withheld, ..self }
    }

    /// The row of a token whose link is enclosed in a notice.
    pub fn enclosed(self) -> Self {
        Self { delivered: DeliveryState::Enclosed, ..self }
    }

    /// When the code ends, given how long codes work; never after the link.
    pub fn code_expires_at(&self, lifetime: Duration) -> Timestamp {
        self.created_at.plus(lifetime).min(self.expires_at)
    }

    /// What the secret is derived from.
    pub fn claims(&self) -> TokenClaims<'_> {
        TokenClaims {
            token: self.id,
            purpose: self.purpose,
            user: self.user,
            address: &self.address,
            binding: self.binding,
            expires_at: self.expires_at,
            key: self.key,
        }
    }
}

/// A session as stored, under the hash of its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRow {
    /// The public name.
    pub id: SessionId,
    /// Whose.
    pub user: UserId,
    /// The credential epoch it was opened in.
    pub epoch: u64,
    /// When it was opened.
    pub created_at: Timestamp,
    /// When it was last checked, coarsely.
    pub last_seen_at: Timestamp,
    /// When it ends.
    pub expires_at: Timestamp,
    /// The request that opened it.
    #[serde(default)]
    pub context: Context,
}

/// The outcome of a command, so that repeating it is safe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppliedRow {
    /// The flow it started.
    pub kind: FlowKind,
    /// The run that did it.
    pub flow: FlowId,
    /// The keyed hash of its fields that are no secret.
    pub fingerprint: Bytes<32>,
    /// Whether the flow decided; if not, the same command is to be done again.
    pub settled: bool,
    /// The answer, without secrets, as the flow encodes it.
    #[serde(with = "crate::bytes::buffer")]
    pub outcome: Vec<u8>,
    /// The place of its first signal in the log.
    pub first_seq: u64,
    /// When the row goes.
    pub expires_at: Timestamp,
}

impl UserRow {
    /// The contact of this name.
    pub fn contact(&self, id: ContactId) -> Option<&ContactRow> {
        self.contacts.iter().find(|contact| contact.id == id)
    }

    /// The contact with this address.
    pub fn contact_at(&self, channel: Channel, canonical: &str) -> Option<&ContactRow> {
        self.contacts.iter().find(|contact| contact.channel == channel && contact.canonical == canonical)
    }

    /// Whether any address is proven.
    pub fn is_verified(&self) -> bool {
        self.contacts.iter().any(|contact| contact.proven_at.is_some())
    }

    /// The user as the app sees one.
    pub fn view(&self, activity: Option<&ActivityRow>) -> User {
        User {
            id: self.id,
            version: self.version,
            created_at: self.created_at,
            status: self.status,
            username: self.username.as_ref().map(UsernameRow::word),
            contacts: self.contacts.iter().map(ContactRow::view).collect(),
            profile: self.profile.clone(),
            groups: self.groups.clone(),
            last_login_at: activity.and_then(|activity| activity.last_login_at),
        }
    }
}

impl UsernameRow {
    /// The username as a word.
    pub fn word(&self) -> Username {
        Username::from_stored(self.canonical.clone(), self.original.clone(), self.skeleton.clone())
    }
}

impl From<&Username> for UsernameRow {
    fn from(username: &Username) -> Self {
        Self {
            canonical: username.canonical().to_owned(),
            original: username.original().to_owned(),
            skeleton: username.skeleton().to_owned(),
        }
    }
}

impl ContactRow {
    /// An address that is claimed and not proven.
    pub fn claim(id: ContactId, address: &Contact, now: Timestamp) -> Self {
        let original = match address {
            Contact::Email(email) => email.original(),
            Contact::Phone(phone) => phone.original(),
        };
        Self {
            id,
            channel: address.channel(),
            canonical: address.canonical().to_owned(),
            original: original.to_owned(),
            revision: 0,
            proven_at: None,
            primary: false,
            added_at: now,
            replaces: None,
        }
    }

    /// The address as a word.
    pub fn address(&self) -> Contact {
        let (canonical, original) = (self.canonical.clone(), self.original.clone());
        match self.channel {
            Channel::Email => Contact::Email(Email::from_stored(canonical, original)),
            Channel::Phone => Contact::Phone(Phone::from_stored(canonical, original)),
        }
    }

    fn view(&self) -> UserContact {
        UserContact {
            id: self.id,
            address: self.address(),
            proven_at: self.proven_at,
            primary: self.primary,
            replaces: self.replaces,
        }
    }
}

impl SessionRow {
    /// Whether it was opened by this user, in the epoch that they are in, and they are let in (ASVS 7.4.2).
    pub fn is_of(&self, user: &UserRow) -> bool {
        self.user == user.id && self.epoch == user.epoch && user.status == UserStatus::Active
    }

    /// The session as a list shows it.
    pub fn view(&self) -> Session {
        Session {
            id: self.id,
            user: self.user,
            created_at: self.created_at,
            last_seen_at: self.last_seen_at,
            expires_at: self.expires_at,
            context: self.context.clone(),
        }
    }
}

#[cfg(test)]
impl UserRow {
    /// A user of whom nothing is known, registered at this time, for tests to change.
    pub(crate) fn unknown(id: UserId, created_at: Timestamp) -> Self {
        Self {
            id,
            version: 1,
            created_at,
            status: UserStatus::Active,
            username: None,
            contacts: Vec::new(),
            profile: Profile::default(),
            groups: BTreeSet::new(),
            epoch: 1,
            verify_by: None,
            seal_key: Bytes([9; 32]),
        }
    }
}

macro_rules! shows_name_only {
    ($($row:ident)*) => {$(
        /// Shows nothing of its content, which is personal or secret.
        impl fmt::Debug for $row {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.debug_struct(stringify!($row)).finish_non_exhaustive()
            }
        }
    )*};
}

shows_name_only! { UserRow UsernameRow ContactRow CredentialRow }

/// Encodes a signal for the log; its place is the key, so it is not part of the bytes.
pub(crate) fn encode_signal(envelope: &Envelope) -> Result<Vec<u8>, RowError> {
    encode(envelope)
}

/// Decodes a signal of the log and puts its place back.
pub(crate) fn decode_signal(seq: u64, bytes: &[u8]) -> Result<Envelope, RowError> {
    let mut envelope: Envelope = decode(bytes)?;
    envelope.seq = Some(seq);
    Ok(envelope)
}
