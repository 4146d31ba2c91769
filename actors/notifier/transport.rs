//! Transports: what carries a finished message to its recipient.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use majordomo_model::{Channel, MessageKind, SignalId, Timestamp};

/// Carries messages of one channel: a mail server, a text message gateway, a folder.
///
/// At least once: after a crash between the sending and the commit of the progress the same message is handed over
/// again, and after a lost answer too. [`OutgoingMessage::id`] is the same then; pass it on as the idempotency key of
/// the service behind, if it has one.
///
/// ```
/// use majordomo_actors::notifier::{OutgoingMessage, SendError, Transport};
/// use majordomo_model::Channel;
///
/// struct Gateway;
///
/// impl Transport for Gateway {
///     fn channel(&self) -> Channel {
///         Channel::Phone
///     }
///
///     async fn send(&self, message: &OutgoingMessage) -> Result<(), SendError> {
///         if message.text.len() > 1_000 {
///             return Err(SendError::Permanent("the gateway takes 1,000 bytes".to_owned()));
///         }
///         Ok(())
///     }
/// }
/// ```
pub trait Transport: Send + Sync + 'static {
    /// The channel that it serves.
    fn channel(&self) -> Channel;

    /// Sends one message, and answers when the other side has taken charge of it. An answer is awaited for
    /// [`SEND_DEADLINE`](super::SEND_DEADLINE); the future is dropped then.
    ///
    /// # Errors
    /// [`SendError`], whose class decides what becomes of the message; a panic is taken as a lost answer.
    fn send(&self, message: &OutgoingMessage) -> impl Future<Output = Result<(), SendError>> + Send;
}

/// A transport of any type.
pub type BoxedTransport = Arc<dyn ErasedTransport>;

/// [`Transport`] in a form that can be boxed.
pub trait ErasedTransport: Send + Sync + 'static {
    /// As [`Transport::channel`].
    fn channel(&self) -> Channel;
    /// As [`Transport::send`].
    fn send<'a>(
        &'a self,
        message: &'a OutgoingMessage,
    ) -> Pin<Box<dyn Future<Output = Result<(), SendError>> + Send + 'a>>;
}

impl<T: Transport> ErasedTransport for T {
    fn channel(&self) -> Channel {
        Transport::channel(self)
    }

    fn send<'a>(
        &'a self,
        message: &'a OutgoingMessage,
    ) -> Pin<Box<dyn Future<Output = Result<(), SendError>> + Send + 'a>> {
        Box::pin(Transport::send(self, message))
    }
}

/// Why a message was not sent. The text is logged: no address, no part of the message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The transport takes nothing now, this message or another: no connection, no TLS, wrong credentials, a spent
    /// quota (SMTP 421, HTTP 429 and 503). It speaks against the transport, never against the message.
    #[error("the transport is out: {reason}")]
    Unavailable {
        /// What is wrong.
        reason: String,
        /// When the other side said to come back, if it did.
        retry_after: Option<Duration>,
    },
    /// This message may go through later: greylisting, a full mailbox (SMTP 4xx), an answer that was lost.
    #[error("not sent for now: {0}")]
    Transient(String),
    /// This message never will: no such mailbox, a refusal (SMTP 5xx, HTTP 4xx).
    #[error("not sent: {0}")]
    Permanent(String),
}

impl SendError {
    /// The transport is out, and nobody said for how long.
    #[must_use]
    pub fn unavailable(reason: impl Into<String>) -> Self {
        Self::Unavailable { reason: reason.into(), retry_after: None }
    }

    /// Whether the message may go through later.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        !matches!(self, Self::Permanent(_))
    }

    /// Whether it speaks against the transport rather than against the message.
    #[must_use]
    pub const fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }

    /// The stable snake_case name of the class.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Unavailable { .. } => "unavailable",
            Self::Transient(_) => "transient",
            Self::Permanent(_) => "permanent",
        }
    }
}

/// A name and an address (RFC 5322, section 3.4), as a From header shows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mailbox {
    /// What a mail program shows.
    pub name: String,
    /// The address.
    pub address: String,
}

/// A message that is ready to be sent. It may hold a link or a code that works: never log it, never store it.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OutgoingMessage {
    /// The signal that it is for: the idempotency key, and what a Message-ID is made of.
    pub id: SignalId,
    /// When the signal was emitted; the same at every attempt.
    pub at: Timestamp,
    /// What it tells.
    pub kind: MessageKind,
    /// How it travels.
    pub channel: Channel,
    /// Who sends it; only for e-mail.
    pub from: Option<Mailbox>,
    /// The one recipient: an e-mail address in ASCII, or a phone number in E.164.
    pub to: String,
    /// The subject, one line; only for e-mail.
    pub subject: Option<String>,
    /// The message as plain text. A link or a code stands on a line of its own.
    pub text: String,
    /// The same as HTML; only for e-mail.
    pub html: Option<String>,
    /// The language it is in (BCP 47).
    pub locale: String,
}

/// Shows neither the text nor the address.
impl fmt::Debug for OutgoingMessage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("OutgoingMessage")
            .field("id", &self.id)
            .field("kind", &self.kind)
            .field("channel", &self.channel)
            .field("locale", &self.locale)
            .finish_non_exhaustive()
    }
}

/// A message such as a transport gets.
#[cfg(test)]
pub(super) fn sample_message(channel: Channel) -> OutgoingMessage {
    let is_mail = channel == Channel::Email;
    OutgoingMessage {
        id: SignalId::new(),
        at: Timestamp::from_micros(1_767_225_607_123_456),
        kind: if is_mail { MessageKind::VerifyEmail } else { MessageKind::VerifyPhone },
        channel,
        from: is_mail
            .then(|| Mailbox { name: "Example \"One\"".to_owned(), address: "no-reply@example.com".to_owned() }),
        to: if is_mail { "Alice@example.org" } else { "+447911123412" }.to_owned(),
        subject: is_mail.then(|| "Confirm".to_owned()),
        text: "Grüße\n\n123456".to_owned(),
        html: is_mail.then(|| "<p>Grüße</p>".to_owned()),
        locale: "en".to_owned(),
    }
}
