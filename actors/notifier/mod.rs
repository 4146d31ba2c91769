//! The notifier: the subscriber that sends the messages which signals ask for.

mod breaker;
mod captured;
mod clients;
mod composer;
mod due;
#[cfg(feature = "email")]
mod email;
mod facts;
mod forms;
#[cfg(feature = "webhook")]
mod gateway;
mod internet_message;
mod maildir;
mod notices;
mod rate;
mod route;
mod samples;
mod settings;
mod shapes;
mod sms;
mod templates;
mod terms;
mod transport;
#[cfg(feature = "webhook")]
mod webhook;
mod whereto;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use majordomo_model::{
    Channel, Contact, Envelope, Failure, Filter, MessageKind, OneTimeCode, OneTimeToken, Signal, SignalKind, Timestamp,
    TokenId, User, UserId,
};

pub use captured::{CapturedMessage, CapturedOutbox, CapturedTransport};
#[cfg(feature = "email")]
pub use email::{Smtp, SmtpCredentials, SmtpEncryption, SmtpFault, SmtpSettings};
#[cfg(feature = "webhook")]
pub use gateway::{
    AnswerRule, EmailApi, FailureClass, FailureRule, GatewayAuthorization, GatewayBody, GatewayDescription,
    GatewayFault, HttpSmsGateway, StatusRange,
};
pub use maildir::Maildir;
pub use route::Route;
pub use samples::Sample;
pub use settings::{NotifierFault, NotifierSettings};
pub use sms::{Sms, SmsFault, SmsGateway, SmsMessage, SmsSettings};
pub use templates::{TemplateFault, TemplateFaults, Templates};
pub use terms::{TransportState, TransportStatus, TransportTerms};
pub use transport::{BoxedTransport, ErasedTransport, Mailbox, OutgoingMessage, SendError, Transport};
#[cfg(feature = "webhook")]
pub use webhook::{
    ATTEMPT_PREFIX, ATTEMPTS_KEPT, Webhook, WebhookAttempt, WebhookFault, WebhookFormat, WebhookSecret, WebhookSettings,
};

#[cfg(feature = "webhook")]
pub use crate::http::{HttpFault, HttpMethod, HttpSettings, Unreached};
use crate::subscriber::{Delivery, Effect, Outcome, Subscriber, SubscriberContext};
use composer::Composer;
use due::{Due, given_up, unanswered};
use facts::{Detail, Facts, TokenFacts, UndoFacts};
use notices::Room;
use route::Carried;
#[cfg(test)]
use transport::sample_message;
use whereto::Whereto;

/// How long a transport may take over one message. A later answer is not heard, and the message is tried again.
pub const SEND_DEADLINE: Duration = Duration::from_secs(60);

/// Sends the messages that signals ask for. Needs [`Capability::Deliver`](crate::subscriber::Capability::Deliver).
///
/// A message with a link or code is sent while its token is live and tried until that expires; its end is an effect.
/// A notice is tried for [`NotifierSettings::give_up_after`]; of a change that can be undone it encloses the link for that,
/// and goes to the address that the link is bound to.
///
/// Before it sends, it claims the message in the store: of several notifiers one sends it, and the others take it over
/// only once the claim's time is over. What was settled is not sent again by one that is set back to an earlier place.
/// At least once: a crash between sending and committing sends the message again, under the same
/// [`OutgoingMessage::id`].
///
/// Give its subscription a deadline of [`Notifier::patience`] and lanes, as the builder does.
pub struct Notifier {
    settings: NotifierSettings,
    composer: Composer,
    route: Route,
}

impl Notifier {
    /// A notifier without transports: every message fails for good until it has one of its channel.
    ///
    /// # Errors
    /// [`NotifierFault`], for settings or templates that would fail when a message is due.
    pub fn new(settings: NotifierSettings, templates: Templates) -> Result<Self, NotifierFault> {
        settings.validate()?;
        Ok(Self { settings, composer: Composer::new(templates)?, route: Route::default() })
    }

    /// Adds a transport on the default terms. Of several of one channel, one that was added later is asked when those
    /// before it are out, or have refused a message for good.
    #[must_use]
    pub fn with_transport(mut self, transport: impl Transport) -> Self {
        self.route.add(Arc::new(transport), TransportTerms::default());
        self
    }

    /// As [`Notifier::with_transport`], on terms of its own.
    ///
    /// # Errors
    /// [`NotifierFault::Terms`].
    pub fn with_transport_on(
        mut self,
        transport: BoxedTransport,
        terms: TransportTerms,
    ) -> Result<Self, NotifierFault> {
        let faults = terms.faults();
        if !faults.is_empty() {
            return Err(NotifierFault::Terms(faults.join("; ")));
        }
        self.route.add(transport, terms);
        Ok(self)
    }

    /// The transports, to look at how they stand ([`Route::states`]).
    #[must_use]
    pub fn route(&self) -> Route {
        self.route.clone()
    }

    /// How long its handler may take at most: each transport of a channel is waited for as long as [`SEND_DEADLINE`].
    #[must_use]
    pub fn patience(&self) -> Duration {
        self.route.patience()
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
            SignalKind::UserLocked,
            SignalKind::ContactRemoved,
            SignalKind::UserEmailVerified,
            SignalKind::UserPhoneVerified,
            SignalKind::UserUpdated,
            SignalKind::UserDeleted,
        ];
        let sign_ins = self.settings.new_sign_in.then_some(SignalKind::UserAuthenticated);
        let due = self.route.channels().flat_map(|channel| match channel {
            Channel::Email => [SignalKind::ResetPasswordEmail, SignalKind::VerifyEmail],
            Channel::Phone => [SignalKind::ResetPasswordPhone, SignalKind::VerifyPhone],
        });
        Filter::kinds(due.chain(notices).chain(sign_ins))
    }

    /// Sends the link and code of a token, if that is still wanted.
    async fn deliver(&self, token: TokenId, kind: MessageKind, due: Due<'_>) -> Result<Outcome, Outcome> {
        // Looked at again once the message is claimed: another notifier may have ended it before.
        let delivery = match due.delivery(token)? {
            Delivery::Live(live) => {
                self.wait_for_transport(live.address.channel(), due, live.expires_at)?;
                due.claim().await?;
                due.delivery(token)?
            }
            Delivery::Expired | Delivery::Superseded => {
                due.claim().await?;
                due.delivery(token)?
            }
            other => other,
        };
        let live = match delivery {
            Delivery::Live(live) => live,
            Delivery::Expired => return Ok(Outcome::Done(vec![Effect::DeliveryFailed(token, Failure::Expired)])),
            // No message follows, and the delivery is a flow that has to end all the same.
            Delivery::Superseded => {
                return Ok(Outcome::Done(vec![Effect::DeliveryFailed(token, Failure::TokenMismatchOrExpired)]));
            }
            // Whoever used the token has read the message: the answer of the transport had been lost.
            Delivery::Used => return Ok(Outcome::Done(vec![Effect::Delivered(token)])),
            Delivery::Ended => return Ok(Outcome::done()),
        };
        let user = due.context.user(live.user).map_err(unanswered)?;
        let link = live.path.as_ref().map(|path| self.link(path));
        // A code that is over is of no use to anybody.
        let code = live.code.as_ref().filter(|_| live.code_expires_at > due.context.now()).map(OneTimeCode::expose);
        let code = code.map(|code| (code, live.code_expires_at));
        let detail = Detail::Token(TokenFacts { link: link.as_deref(), expires_at: live.expires_at, code });
        let recipient = Recipient { address: &live.address, locale: user.as_ref().and_then(locale_of) };
        let message = self.compose(kind, recipient, detail, due);
        Ok(match self.send(message, due, live.expires_at).await? {
            true => Outcome::Done(vec![Effect::Delivered(token)]),
            false => Outcome::Done(vec![Effect::DeliveryFailed(token, Failure::EmailSendFailed)]),
        })
    }

    fn link(&self, path: &OneTimeToken) -> String {
        [self.settings.home(), path.expose()].concat()
    }

    /// Sends a notice, once; with the link that it encloses, as long as that works.
    async fn notify(
        &self,
        kind: MessageKind,
        user: UserId,
        to: Whereto<'_>,
        detail: Detail<'_>,
        enclosed: Option<TokenId>,
        due: Due<'_>,
    ) -> Result<Outcome, Outcome> {
        let Some(known) = due.context.user(user).map_err(unanswered)? else { return Ok(Outcome::done()) };
        let enclosed = match enclosed.map(|token| due.delivery(token)).transpose()? {
            Some(Delivery::Live(live)) => Some(live),
            _ => None,
        };
        // The link goes to the address that it is bound to and to no other.
        let bound = enclosed.as_ref().map(|live| live.address.clone());
        let address = match bound.map_or_else(|| to.resolve(&known), |address| Ok(Some(address))) {
            Ok(Some(address)) => address,
            Ok(None) => return Ok(Outcome::done()),
            Err(reason) => {
                due.claim().await?;
                return Ok(given_up(kind, user, reason, due.envelope));
            }
        };
        let last = due.envelope.at.plus(self.settings.give_up_after);
        if due.context.now() > last {
            due.claim().await?;
            return Ok(given_up(kind, user, Failure::Expired, due.envelope));
        }
        let Room::Some(remembered) = notices::room(kind, address.channel(), user, due)? else {
            due.claim().await?;
            return Ok(given_up(kind, user, Failure::MessageLimitReached, due.envelope));
        };
        let end = last.plus(Duration::from_micros(1));
        self.wait_for_transport(address.channel(), due, end)?;
        due.claim().await?;
        let recipient = Recipient { address: &address, locale: locale_of(&known) };
        let link = enclosed.as_ref().and_then(|live| live.path.as_ref()).map(|path| self.link(path));
        let detail = match (detail, enclosed.as_ref().zip(link.as_deref())) {
            (Detail::Lock { until, .. }, Some((_, link))) => Detail::Lock { until, link: Some(link) },
            (_, Some((live, link))) => Detail::Undo(UndoFacts { link, expires_at: live.expires_at }),
            (detail, None) => detail,
        };
        let message = self.compose(kind, recipient, detail, due);
        Ok(match self.send(message, due, end).await? {
            true => Outcome::Done(std::iter::once(Effect::Settle).chain(remembered).collect()),
            false => given_up(kind, user, Failure::EmailSendFailed, due.envelope),
        })
    }

    /// Puts a message off, without a claim, while no transport of its channel may be tried; until it is over at most.
    fn wait_for_transport(&self, channel: Channel, due: Due<'_>, over: Timestamp) -> Result<(), Outcome> {
        match self.route.closed_until(channel, due.context.now()) {
            Some(until) => Err(Outcome::defer(until.min(over))),
            None => Ok(()),
        }
    }

    /// Hands a message to the transports of its channel: `true` if one accepted it, `false` if it is to be given up, and
    /// an error if it is to be tried again.
    async fn send(
        &self,
        message: Result<OutgoingMessage, TemplateFault>,
        due: Due<'_>,
        over: Timestamp,
    ) -> Result<bool, Outcome> {
        let signal = due.envelope.id;
        let message = match message {
            Ok(message) => message,
            Err(fault) => {
                tracing::error!(%signal, %fault, "a message could not be composed and is given up");
                return Ok(false);
            }
        };
        let kind = message.kind;
        match self.route.carry(&message, due.context).await {
            Carried::Accepted => {
                tracing::debug!(%signal, ?kind, "a message was sent");
                Ok(true)
            }
            Carried::Refused => {
                tracing::warn!(%signal, ?kind, "a message was not sent: no transport takes it");
                Ok(false)
            }
            Carried::Later(reason) => {
                tracing::warn!(%signal, ?kind, reason, "a message was not sent for now");
                Err(Outcome::retry(reason))
            }
            Carried::Waits(until) => {
                tracing::warn!(%signal, ?kind, %until, "a message was not sent: every transport is out");
                Err(Outcome::defer(until.min(over)))
            }
        }
    }

    fn compose(
        &self,
        kind: MessageKind,
        recipient: Recipient<'_>,
        detail: Detail<'_>,
        due: Due<'_>,
    ) -> Result<OutgoingMessage, TemplateFault> {
        let facts = Facts {
            app_name: &self.settings.app_name,
            base_url: self.settings.home(),
            host: self.settings.host(),
            default_locale: &self.settings.default_locale,
            happened_at: due.envelope.at,
            detail,
        };
        let channel = recipient.address.channel();
        let rendered = self.composer.render(kind, channel, recipient.locale, &facts)?;
        Ok(OutgoingMessage {
            id: due.envelope.id,
            at: due.envelope.at,
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

    /// What a signal comes to; an error is what it comes to before anything was sent.
    async fn act(&self, due: Due<'_>) -> Result<Outcome, Outcome> {
        match &due.envelope.signal {
            Signal::VerifyEmail { token, .. } => self.deliver(*token, MessageKind::VerifyEmail, due).await,
            Signal::VerifyPhone { token, .. } => self.deliver(*token, MessageKind::VerifyPhone, due).await,
            Signal::ResetPasswordEmail { token, .. } => {
                self.deliver(*token, MessageKind::ResetPasswordEmail, due).await
            }
            Signal::ResetPasswordPhone { token, .. } => {
                self.deliver(*token, MessageKind::ResetPasswordPhone, due).await
            }
            Signal::AddressTaken { owner, address, channel } => {
                self.notify(
                    MessageKind::AddressTaken,
                    *owner,
                    Whereto::Owned(*channel, address),
                    Detail::None,
                    None,
                    due,
                )
                .await
            }
            Signal::ContactChanged { user, previous, channel, undo, .. } => {
                self.notify(
                    MessageKind::ContactChanged,
                    *user,
                    Whereto::Told(*channel, previous),
                    Detail::None,
                    *undo,
                    due,
                )
                .await
            }
            Signal::PasswordChanged { user, undo, .. } | Signal::PasswordResetSuccessful { user, undo, .. } => {
                self.notify(MessageKind::PasswordChanged, *user, Whereto::Primary, Detail::None, *undo, due).await
            }
            Signal::ContactRemoved { user, undo: Some(undo), .. } => {
                self.notify(MessageKind::ContactRemoved, *user, Whereto::Bound, Detail::None, Some(*undo), due).await
            }
            Signal::UserEmailVerified { user, undo: Some(undo), .. }
            | Signal::UserPhoneVerified { user, undo: Some(undo), .. } => {
                self.notify(MessageKind::ContactAdded, *user, Whereto::Bound, Detail::None, Some(*undo), due).await
            }
            Signal::UserUpdated { user, fields, .. } if fields.iter().any(|field| field == "username") => {
                self.notify(MessageKind::UsernameChanged, *user, Whereto::Primary, Detail::None, None, due).await
            }
            // A lock that is over by now is no news.
            Signal::UserLocked { user, until, unlock } if *until > due.context.now() => {
                let detail = Detail::Lock { until: *until, link: None };
                self.notify(MessageKind::AccountLocked, *user, Whereto::Primary, detail, *unlock, due).await
            }
            Signal::UserAuthenticated { user, .. } if self.settings.new_sign_in => self.sign_in(*user, due).await,
            Signal::UserDeleted { user, .. } => Ok(Outcome::Done(notices::forgotten(*user))),
            _ => Ok(Outcome::done()),
        }
    }
}

impl Subscriber for Notifier {
    async fn handle(&self, envelope: &Envelope, context: &SubscriberContext) -> Outcome {
        // What was sent once is not sent again because a projection is built anew.
        let is_remembered = matches!(envelope.signal.kind(), SignalKind::UserAuthenticated | SignalKind::UserDeleted);
        if context.is_rebuilding() && !is_remembered {
            return Outcome::done();
        }
        self.act(Due { envelope, context }).await.unwrap_or_else(|outcome| outcome)
    }
}

/// Shows the settings and the names of the transports.
impl fmt::Debug for Notifier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Notifier")
            .field("settings", &self.settings)
            .field("route", &self.route)
            .finish_non_exhaustive()
    }
}

/// Whom a message goes to, in which language.
struct Recipient<'a> {
    address: &'a Contact,
    locale: Option<&'a str>,
}

fn locale_of(user: &User) -> Option<&str> {
    user.profile.locale.as_deref()
}

#[cfg(test)]
mod tests;
