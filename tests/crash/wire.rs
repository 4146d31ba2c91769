//! The wire: what the parent asks its child and what it is answered, one line of JSON each, and the files of lines.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use majordomo::{CommandId, Envelope, FlowId, FlowKind, Lane, Sender, Signal, SignalId, SignalKind, TokenId, UserId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The file that is to survive.
pub(crate) const DATABASE: &str = "accounts.redb";
/// The file that the first subscriber notes every signal in.
pub(crate) const WITNESS: &str = "witness";
/// The file of the subscriber that asked for registrations and deletions only.
pub(crate) const REGISTER: &str = "register";
/// The file of the subscriber that is handed several signals at once, in several lanes.
pub(crate) const LANES: &str = "lanes";
/// The file of the subscriber that one kind of signal kills the process of.
pub(crate) const PILL: &str = "pill";
/// What kills it.
pub(crate) const POISON: SignalKind = SignalKind::UserDisabled;
/// How often it is handed a signal.
pub(crate) const PILL_ATTEMPTS: u32 = 3;
/// The file of messages that were sent.
pub(crate) const MESSAGES: &str = "messages";
/// The subscription whose projection counts and folds.
pub(crate) const TALLY: &str = "tally";
/// The subscription that adds a signal to every registration.
pub(crate) const ECHO: &str = "echo";
/// Those that are moved to earlier places.
pub(crate) const REWOUND: [&str; 2] = [REGISTER, LANES];
/// What [`REGISTER`] asked for.
pub(crate) const REGISTER_KINDS: [SignalKind; 2] = [SignalKind::UserRegistered, SignalKind::UserDeleted];

/// On which terms a child serves.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Terms {
    /// What everybody has handled goes with the next sweep.
    Prunes,
    /// The log is kept.
    Keeps,
    /// The log is kept, and [`PILL`] is attached with these lanes and batches.
    Poisoned { concurrency: usize, batch: usize },
}

/// A line to the child.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Question {
    pub(crate) number: u64,
    pub(crate) ask: Ask,
}

/// A line from the child. The first one, of number 0, tells that it is ready or why it never will be.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Reply {
    pub(crate) number: u64,
    pub(crate) answer: Answer,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// Done, with what there is to tell.
    Done(Value),
    /// The flow refused, for this reason.
    Refused(String),
    /// It was not done, or nobody knows.
    Failed(String),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Ask {
    Act {
        id: CommandId,
        source: u8,
        act: Act,
    },
    Users,
    Log {
        after: u64,
    },
    Trail {
        after: u64,
    },
    Projection {
        keys: Vec<String>,
    },
    Sessions {
        tokens: Vec<String>,
    },
    Drain,
    Sweep,
    /// Up to where a subscription has handled everything.
    Floor {
        name: String,
    },
    /// Moves a subscription to a place.
    Move {
        name: String,
        to: u64,
    },
    /// Has the tally built anew.
    Rebuild,
    /// The dead letters of a subscription.
    Letters {
        name: String,
    },
    Shutdown,
}

/// A flow.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Act {
    Register { username: String, email: Option<String>, password: String },
    LogIn { username: String, password: String },
    LogOut { token: String },
    EndSessions { user: UserId },
    ChangePassword { user: UserId, current: String, new: String },
    Rename { user: UserId, display_name: String },
    ChangeGroups { user: UserId, join: String, leave: String },
    Disable { user: UserId },
    Enable { user: UserId },
    Delete { user: UserId },
    RequestVerification { user: UserId },
    Confirm { link: String },
    RequestReset { username: String },
    Reset { link: String, new: String },
}

impl Act {
    pub(crate) const fn flow(&self) -> FlowKind {
        match self {
            Self::Register { .. } => FlowKind::Register,
            Self::LogIn { .. } => FlowKind::Authenticate,
            Self::LogOut { .. } => FlowKind::LogOut,
            Self::EndSessions { .. } => FlowKind::EndSessions,
            Self::ChangePassword { .. } => FlowKind::ChangePassword,
            Self::Rename { .. } => FlowKind::Update,
            Self::ChangeGroups { .. } => FlowKind::ChangeGroups,
            Self::Disable { .. } => FlowKind::Disable,
            Self::Enable { .. } => FlowKind::Enable,
            Self::Delete { .. } => FlowKind::Delete,
            Self::RequestVerification { .. } => FlowKind::RequestEmailVerification,
            Self::Confirm { .. } => FlowKind::ConfirmEmail,
            Self::RequestReset { .. } => FlowKind::RequestPasswordReset,
            Self::Reset { .. } => FlowKind::ResetPassword,
        }
    }

    /// The end of the flow that makes the change.
    pub(crate) const fn success(&self) -> SignalKind {
        match self {
            Self::Register { .. } => SignalKind::UserRegistered,
            Self::LogIn { .. } => SignalKind::UserAuthenticated,
            Self::LogOut { .. } => SignalKind::UserLoggedOut,
            Self::EndSessions { .. } => SignalKind::SessionsEnded,
            Self::ChangePassword { .. } => SignalKind::PasswordChanged,
            Self::Rename { .. } => SignalKind::UserUpdated,
            Self::ChangeGroups { .. } => SignalKind::GroupsChanged,
            Self::Disable { .. } => SignalKind::UserDisabled,
            Self::Enable { .. } => SignalKind::UserEnabled,
            Self::Delete { .. } => SignalKind::UserDeleted,
            Self::RequestVerification { .. } => SignalKind::UserEmailVerificationRequestAccepted,
            Self::Confirm { .. } => SignalKind::UserEmailVerificationSuccessful,
            Self::RequestReset { .. } => SignalKind::PasswordResetRequestAccepted,
            Self::Reset { .. } => SignalKind::PasswordResetSuccessful,
        }
    }
}

/// What is compared of a signal: everything that tells it from another and says what it belongs to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) seq: u64,
    pub(crate) id: SignalId,
    pub(crate) flow: FlowId,
    pub(crate) cause: Option<FlowId>,
    pub(crate) lane: Lane,
    pub(crate) kind: SignalKind,
    pub(crate) sender: Sender,
    /// The subscriptions that it goes back to, which are not handed it.
    pub(crate) path: Vec<Sender>,
    pub(crate) user: Option<UserId>,
    /// The command behind it, which is told as the id of the request.
    pub(crate) request: Option<String>,
    /// The token whose message is due.
    pub(crate) token: Option<TokenId>,
}

impl Entry {
    pub(crate) fn of(envelope: &Envelope) -> Self {
        let token = match &envelope.signal {
            Signal::VerifyEmail { token, .. } | Signal::ResetPasswordEmail { token, .. } => Some(*token),
            _ => None,
        };
        Self {
            seq: envelope.seq.unwrap_or_default(),
            id: envelope.id,
            flow: envelope.flow,
            cause: envelope.cause,
            lane: envelope.lane,
            kind: envelope.signal.kind(),
            sender: envelope.sender.clone(),
            path: envelope.path.clone(),
            user: envelope.signal.user(),
            request: envelope.context.told_request_id().map(str::to_owned),
            token,
        }
    }

    /// Whether it goes back to this subscription.
    pub(crate) fn descends_from(&self, name: &str) -> bool {
        self.path.iter().any(|sender| sender.as_str() == name)
    }
}

/// A message that was sent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Sent {
    pub(crate) signal: SignalId,
    pub(crate) link: Option<String>,
}

/// The keys of the tally that a signal counts for.
pub(crate) fn tally_keys(entry: &Entry) -> impl Iterator<Item = String> {
    let kind = format!("kind {}", entry.kind.as_str());
    [kind].into_iter().chain(entry.user.map(|user| format!("user {user}")))
}

/// The key of the tally under which all signals are folded, in order.
pub(crate) const FOLD: &str = "fold";

/// Folds one more signal into what the earlier ones came to (FNV-1a, 64 bits): an order of its own for every history.
pub(crate) fn fold(before: u64, entry: &Entry) -> u64 {
    let bytes = before.to_be_bytes().into_iter().chain(entry.seq.to_be_bytes()).chain(*entry.id.as_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Appends lines to a file, each in one write between two line feeds: a kill tears at most the last one, which then
/// stands alone.
pub(crate) struct Lines(std::sync::Mutex<File>);

impl Lines {
    pub(crate) fn open(path: &Path) -> std::io::Result<Self> {
        Ok(Self(std::sync::Mutex::new(OpenOptions::new().create(true).append(true).open(path)?)))
    }

    pub(crate) fn append(&self, line: &impl Serialize) -> std::io::Result<()> {
        let text = format!("\n{}\n", serde_json::to_string(line)?);
        let mut file = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        file.write_all(text.as_bytes())?;
        file.flush()
    }
}

/// Reads the whole lines that were appended since it was last asked.
pub(crate) struct Tail {
    path: PathBuf,
    offset: u64,
}

impl Tail {
    pub(crate) const fn new(path: PathBuf) -> Self {
        Self { path, offset: 0 }
    }

    pub(crate) fn read<T: DeserializeOwned>(&mut self) -> Vec<T> {
        let Ok(mut file) = File::open(&self.path) else { return Vec::new() };
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(self.offset)).unwrap();
        file.read_to_end(&mut bytes).unwrap();
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        self.offset += whole as u64;
        // What is torn was not seen to its end, and will be handed over again.
        bytes[..whole].split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect()
    }
}
