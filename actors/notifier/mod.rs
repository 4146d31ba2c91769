//! The notifier: the subscriber that sends the messages which signals ask for.

mod captured;
#[cfg(feature = "webhook")]
mod gateway;
#[cfg(feature = "webhook")]
mod http;
mod internet_message;
mod maildir;
mod message;
mod settings;
mod sms;
mod transport;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use majordomo_model::{
    Channel, Contact, Email, Envelope, Failure, Filter, MessageKind, Personal, Phone, Signal, SignalKind, TokenId,
    User, UserId,
};

pub use captured::{CapturedMessage, CapturedOutbox, CapturedTransport};
#[cfg(feature = "webhook")]
pub use gateway::{
    AnswerRule, EmailApi, FailureClass, FailureRule, GatewayAuthorization, GatewayBody, GatewayDescription,
    GatewayFault, HttpSmsGateway, StatusRange,
};
#[cfg(feature = "webhook")]
pub use http::{HttpFault, HttpMethod, HttpSettings, Unreached};
pub use maildir::Maildir;
pub use message::{TemplateFault, TemplateFaults, Templates};
pub use settings::{NotifierFault, NotifierSettings};
pub use sms::{Sms, SmsFault, SmsGateway, SmsMessage, SmsSettings};
pub use transport::{BoxedTransport, ErasedTransport, Mailbox, OutgoingMessage, SendError, Transport};

use crate::subscriber::{Delivery, Effect, Outcome, Subscriber, SubscriberContext, Unanswered};
use message::{Composer, Facts, TokenFacts};

/// How long a transport may take over one message. A later answer is not heard, and the message is tried again.
pub const SEND_DEADLINE: Duration = Duration::from_secs(60);

const SETTLED: &[u8] = b"settled/";

/// Sends the messages that signals ask for. Needs [`Capability::Deliver`](crate::subscriber::Capability::Deliver).
///
/// A message with a link or code is sent while its token is live and tried until that expires; its end is an effect.
/// A notice without one is tried for [`NotifierSettings::give_up_after`]; that it was settled is noted in the
/// projection, so that a notifier that is set back to an earlier place does not send it again.
///
/// At least once: a crash between sending and committing sends the message again, under the same
/// [`OutgoingMessage::id`].
pub struct Notifier {
    settings: NotifierSettings,
    composer: Composer,
    transports: Vec<BoxedTransport>,
}

impl Notifier {
    /// A notifier without transports: every message fails for good until it has one of its channel.
    ///
    /// # Errors
    /// [`NotifierFault`], for settings or templates that would fail when a message is due.
    pub fn new(settings: NotifierSettings, templates: Templates) -> Result<Self, NotifierFault> {
        settings.validate()?;
        Ok(Self { settings, composer: Composer::new(templates)?, transports: Vec::new() })
    }

    /// Adds a transport. Of several of one channel, one that was added later is asked when all before it have refused
    /// a message for good.
    #[must_use]
    pub fn with_transport(self, transport: impl Transport) -> Self {
        self.with_boxed_transport(Arc::new(transport))
    }

    /// As [`Notifier::with_transport`].
    #[must_use]
    pub fn with_boxed_transport(mut self, transport: BoxedTransport) -> Self {
        self.transports.push(transport);
        self
    }

    /// The signals that it acts on: notices, and what asks for a link or code on a channel that it has a transport for.
    /// The rest is left to another notifier, or ends as expired.
    #[must_use]
    pub fn filter(&self) -> Filter {
        let notices = [
            SignalKind::AddressTaken,
            SignalKind::ContactChanged,
            SignalKind::PasswordChanged,
            SignalKind::PasswordResetSuccessful,
        ];
        let channels = self.transports.iter().map(|transport| transport.channel());
        let due = channels.flat_map(|channel| match channel {
            Channel::Email => [SignalKind::ResetPasswordEmail, SignalKind::VerifyEmail],
            Channel::Phone => [SignalKind::ResetPasswordPhone, SignalKind::VerifyPhone],
        });
        Filter::kinds(due.chain(notices))
    }

    /// Sends the link and code of a token, if that is still wanted.
    async fn deliver(&self, token: TokenId, kind: MessageKind, due: Due<'_>) -> Outcome {
        let live = match due.context.delivery(token) {
            Ok(Delivery::Live(live)) => live,
            Ok(Delivery::Expired) => return Outcome::Done(vec![Effect::DeliveryFailed(token, Failure::Expired)]),
            // No message follows, and the delivery is a flow that has to end all the same.
            Ok(Delivery::Superseded) => {
                return Outcome::Done(vec![Effect::DeliveryFailed(token, Failure::TokenMismatchOrExpired)]);
            }
            // Whoever used the token has read the message: the answer of the transport had been lost.
            Ok(Delivery::Used) => return Outcome::Done(vec![Effect::Delivered(token)]),
            Ok(Delivery::Ended) => return Outcome::done(),
            Err(unanswered) => return Outcome::retry(unanswered.to_string()),
        };
        let user = match due.context.user(live.user) {
            Ok(user) => user,
            Err(unanswered) => return Outcome::retry(unanswered.to_string()),
        };
        let link = [self.settings.home(), live.path.expose()].concat();
        let (code, expires_at, code_expires_at) = (live.code.expose(), live.expires_at, live.code_expires_at);
        let token_facts = TokenFacts { link: &link, code, expires_at, code_expires_at };
        let recipient = Recipient { address: &live.address, locale: user.as_ref().and_then(locale_of) };
        match self.send(kind, recipient, Some(token_facts), due.envelope).await {
            Ok(()) => Outcome::Done(vec![Effect::Delivered(token)]),
            Err(error) if error.is_transient() => Outcome::retry(error.to_string()),
            Err(_) => Outcome::Done(vec![Effect::DeliveryFailed(token, Failure::EmailSendFailed)]),
        }
    }

    /// Sends a notice that bears no token, once.
    async fn notify(&self, kind: MessageKind, user: UserId, to: Whereto<'_>, due: Due<'_>) -> Outcome {
        let known = match due.unsettled(user) {
            Ok(Some(known)) => known,
            Ok(None) => return Outcome::done(),
            Err(unanswered) => return Outcome::retry(unanswered.to_string()),
        };
        let address = match to.resolve(&known) {
            Ok(Some(address)) => address,
            Ok(None) => return Outcome::done(),
            Err(reason) => return given_up(kind, user, reason, due.envelope),
        };
        if due.context.now().since(due.envelope.at) > self.settings.give_up_after {
            return given_up(kind, user, Failure::Expired, due.envelope);
        }
        let recipient = Recipient { address: &address, locale: locale_of(&known) };
        match self.send(kind, recipient, None, due.envelope).await {
            Ok(()) => Outcome::Done(vec![settled(due.envelope)]),
            Err(error) if error.is_transient() => Outcome::retry(error.to_string()),
            Err(_) => given_up(kind, user, Failure::EmailSendFailed, due.envelope),
        }
    }

    /// Renders a message and hands it to the transports of its channel until one does not refuse it for good.
    async fn send(
        &self,
        kind: MessageKind,
        recipient: Recipient<'_>,
        token: Option<TokenFacts<'_>>,
        envelope: &Envelope,
    ) -> Result<(), SendError> {
        let sent = match self.compose(kind, recipient, token, envelope) {
            Ok(message) => self.transmit(&message).await,
            Err(error) => Err(error),
        };
        match &sent {
            Ok(()) => tracing::debug!(signal = %envelope.id, kind = ?kind, "a message was sent"),
            Err(error) => {
                tracing::warn!(signal = %envelope.id, kind = ?kind, class = error.as_str(), ?error, "a message was not sent");
            }
        }
        sent
    }

    fn compose(
        &self,
        kind: MessageKind,
        recipient: Recipient<'_>,
        token: Option<TokenFacts<'_>>,
        envelope: &Envelope,
    ) -> Result<OutgoingMessage, SendError> {
        let facts = Facts {
            app_name: &self.settings.app_name,
            base_url: self.settings.home(),
            host: self.settings.host(),
            default_locale: &self.settings.default_locale,
            token,
        };
        let channel = recipient.address.channel();
        let rendered = self
            .composer
            .render(kind, channel, recipient.locale, &facts)
            .map_err(|fault| SendError::Permanent(fault.to_string()))?;
        Ok(OutgoingMessage {
            id: envelope.id,
            at: envelope.at,
            kind,
            channel,
            from: (channel == Channel::Email).then(|| self.settings.mailbox()),
            to: match recipient.address {
                Contact::Email(email) => email.deliverable(),
                Contact::Phone(phone) => phone.canonical().to_owned(),
            },
            subject: rendered.subject,
            text: rendered.text,
            html: rendered.html,
            locale: rendered.locale,
        })
    }

    async fn transmit(&self, message: &OutgoingMessage) -> Result<(), SendError> {
        let mut refusal = SendError::Permanent("there is no transport for this channel".to_owned());
        for transport in self.transports.iter().filter(|transport| transport.channel() == message.channel) {
            match tokio::time::timeout(SEND_DEADLINE, transport.send(message)).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) if error.is_transient() => return Err(error),
                Ok(Err(error)) => refusal = error,
                Err(_) => return Err(SendError::Transient("the transport did not answer in time".to_owned())),
            }
        }
        Err(refusal)
    }
}

impl Subscriber for Notifier {
    async fn handle(&self, envelope: &Envelope, context: &SubscriberContext) -> Outcome {
        let due = Due { envelope, context };
        match &envelope.signal {
            Signal::VerifyEmail { token, .. } => self.deliver(*token, MessageKind::VerifyEmail, due).await,
            Signal::VerifyPhone { token, .. } => self.deliver(*token, MessageKind::VerifyPhone, due).await,
            Signal::ResetPasswordEmail { token, .. } => {
                self.deliver(*token, MessageKind::ResetPasswordEmail, due).await
            }
            Signal::ResetPasswordPhone { token, .. } => {
                self.deliver(*token, MessageKind::ResetPasswordPhone, due).await
            }
            Signal::AddressTaken { owner, address, channel } => {
                self.notify(MessageKind::AddressTaken, *owner, Whereto::Owned(*channel, address), due).await
            }
            Signal::ContactChanged { user, previous, channel, .. } => {
                self.notify(MessageKind::ContactChanged, *user, Whereto::Told(*channel, previous), due).await
            }
            Signal::PasswordChanged { user, .. } | Signal::PasswordResetSuccessful { user, .. } => {
                self.notify(MessageKind::PasswordChanged, *user, Whereto::Primary, due).await
            }
            _ => Outcome::done(),
        }
    }
}

/// Shows the settings and how many transports there are.
impl fmt::Debug for Notifier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Notifier")
            .field("settings", &self.settings)
            .field("transports", &self.transports.len())
            .finish_non_exhaustive()
    }
}

/// What is handled at the moment.
#[derive(Clone, Copy)]
struct Due<'a> {
    envelope: &'a Envelope,
    context: &'a SubscriberContext,
}

impl Due<'_> {
    /// The user that a notice is for; `None` if the user is gone or the notice was settled before.
    fn unsettled(self, user: UserId) -> Result<Option<User>, Unanswered> {
        if self.context.projection(&settled_key(self.envelope))?.is_some() {
            return Ok(None);
        }
        self.context.user(user)
    }
}

/// Whom a message goes to, in which language.
struct Recipient<'a> {
    address: &'a Contact,
    locale: Option<&'a str>,
}

/// Where a notice goes.
enum Whereto<'a> {
    /// To the address in the signal.
    Told(Channel, &'a Personal),
    /// To the user's own address that the one in the signal is equal to: somebody else typed that one, and on its host
    /// another spelling may be another mailbox.
    Owned(Channel, &'a Personal),
    /// To the user's proven e-mail address, else the phone number.
    Primary,
}

impl Whereto<'_> {
    /// The address; `None` if there is none any more.
    fn resolve(&self, user: &User) -> Result<Option<Contact>, Failure> {
        match self {
            Self::Primary => {
                let primary = user.primary(Channel::Email).or_else(|| user.primary(Channel::Phone));
                Ok(primary.map(|contact| contact.address.clone()))
            }
            Self::Told(channel, address) => parsed(*channel, address),
            Self::Owned(channel, address) => {
                let Some(typed) = parsed(*channel, address)? else { return Ok(None) };
                let same = |own: &&Contact| own.channel() == *channel && own.canonical() == typed.canonical();
                Ok(user.contacts.iter().map(|contact| &contact.address).find(same).cloned())
            }
        }
    }
}

/// The address that a signal tells; `None` once its key is destroyed.
fn parsed(channel: Channel, address: &Personal) -> Result<Option<Contact>, Failure> {
    let Some(address) = address.expose() else { return Ok(None) };
    let parsed = match channel {
        Channel::Email => Email::parse(address).map(Contact::from).map_err(|_| Failure::EmailInvalid),
        Channel::Phone => Phone::parse(address).map(Contact::from).map_err(|_| Failure::PhoneInvalid),
    };
    parsed.map(Some)
}

fn locale_of(user: &User) -> Option<&str> {
    user.profile.locale.as_deref()
}

fn settled_key(envelope: &Envelope) -> Vec<u8> {
    [SETTLED, envelope.id.as_bytes()].concat()
}

fn settled(envelope: &Envelope) -> Effect {
    Effect::Project { key: settled_key(envelope), value: Vec::new() }
}

fn given_up(message: MessageKind, user: UserId, reason: Failure, envelope: &Envelope) -> Outcome {
    let failed = Signal::NotificationFailed { user, message, signal: envelope.id, reason };
    Outcome::Done(vec![Effect::Emit(Box::new(failed)), settled(envelope)])
}

/// A message such as a transport gets.
#[cfg(test)]
fn sample_message(channel: Channel) -> OutgoingMessage {
    let is_mail = channel == Channel::Email;
    OutgoingMessage {
        id: majordomo_model::SignalId::new(),
        at: majordomo_model::Timestamp::from_micros(1_767_225_607_123_456),
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

#[cfg(test)]
mod tests;
