//! E-mail by SMTP (RFC 5321): each message is handed to a mail server, over TLS, on connections that are kept.

mod answer;
mod settings;

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lettre::Address;
use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{AsyncSmtpConnection, Certificate, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail, Rcpt};
use lettre::transport::smtp::extension::ClientId;
use majordomo_model::Channel;
use tokio::runtime::{Handle, Id};
use tokio::time::{Instant, timeout, timeout_at};

pub use settings::{SmtpCredentials, SmtpEncryption, SmtpFault, SmtpSettings};

use super::internet_message;
use super::transport::{OutgoingMessage, SendError, Transport};
use answer::Stage;

/// How long a goodbye may take. It delays the next message, and nothing depends on it.
const FAREWELL: Duration = Duration::from_secs(1);

/// Hands e-mails to a mail server.
///
/// It is done when the server has taken charge of the message, which says nothing of the recipient's mailbox. An answer
/// that is lost after the content leads to a second copy with the same Message-ID, by which mail programs tell it.
/// Dropping the future of a message drops its connection.
///
/// Content is in ASCII (base64 where it has to be), so that a server without 8BITMIME (RFC 6152) takes it too.
///
/// ```
/// use majordomo_actors::notifier::{Smtp, SmtpCredentials, SmtpSettings};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let password = "from the app's store of secrets";
/// let smtp = Smtp::new(SmtpSettings::new("mail.example.com"))?
///     .with_credentials(SmtpCredentials::new("accounts@example.com", password))?;
/// # let _ = smtp;
/// # Ok(())
/// # }
/// ```
pub struct Smtp {
    settings: SmtpSettings,
    /// `None` where there is no TLS.
    tls: Option<TlsParameters>,
    credentials: Option<SmtpCredentials>,
    idle: Mutex<Vec<Session>>,
}

impl Smtp {
    /// A transport to this server. Nothing is connected to before the first message.
    ///
    /// # Errors
    /// [`SmtpFault`], for settings that would fail when a message is due.
    pub fn new(settings: SmtpSettings) -> Result<Self, SmtpFault> {
        settings.validate()?;
        let tls = match settings.encryption {
            SmtpEncryption::Plain => None,
            SmtpEncryption::ImplicitTls | SmtpEncryption::StartTls => Some(tls(&settings)?),
        };
        Ok(Self { settings, tls, credentials: None, idle: Mutex::default() })
    }

    /// Logs in (RFC 4954: PLAIN or LOGIN, over TLS).
    ///
    /// # Errors
    /// [`SmtpFault::Credentials`], [`SmtpFault::CredentialsInClear`].
    pub fn with_credentials(mut self, credentials: SmtpCredentials) -> Result<Self, SmtpFault> {
        credentials.validate()?;
        if self.tls.is_none() {
            return Err(SmtpFault::CredentialsInClear);
        }
        self.credentials = Some(credentials);
        Ok(self)
    }

    /// A session in which the server has accepted the sender: one that was kept if it still serves, else a new one.
    async fn begin(&self, sender: &Address) -> Result<Session, SendError> {
        let mail = || Mail::new(Some(sender.clone()), Vec::new());
        if let Some(mut kept) = self.kept() {
            kept.deadline = Instant::now() + self.settings.command_timeout;
            if kept.say(Stage::Sender, mail()).await.is_ok() {
                return Ok(kept);
            }
            // It was closed meanwhile, and the others are as old.
            self.idle().clear();
        }
        let mut session = self.open(sender.domain()).await?;
        session.deadline = Instant::now() + self.settings.command_timeout;
        match session.say(Stage::Sender, mail()).await {
            Ok(()) => Ok(session),
            Err(error) => {
                session.leave().await;
                Err(error)
            }
        }
    }

    async fn open(&self, domain: &str) -> Result<Session, SendError> {
        let name = self.settings.hello_name.as_deref().unwrap_or(domain);
        let opening = Box::pin(self.connect(ClientId::Domain(name.to_owned())));
        match timeout(self.settings.connect_timeout, opening).await {
            Ok(Ok(connection)) => Ok(Session::new(connection)),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(SendError::unavailable("no session in time")),
        }
    }

    async fn connect(&self, name: ClientId) -> Result<AsyncSmtpConnection, SendError> {
        let fault = |error: Error| Stage::Opening.fault(&error);
        let port = self.settings.port();
        let Some(tls) = &self.tls else {
            // Without a resolver, which could lead off the machine.
            let addresses = self.settings.loopback().unwrap_or_default();
            let addresses: Vec<_> = addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect();
            let connected = AsyncSmtpConnection::connect_tokio1(&addresses[..], None, &name, None, None);
            return connected.await.map_err(fault);
        };
        let from_the_start = (self.settings.encryption == SmtpEncryption::ImplicitTls).then(|| tls.clone());
        let server = (self.settings.host.as_str(), port);
        let connected = AsyncSmtpConnection::connect_tokio1(server, None, &name, from_the_start, None);
        let mut connection = connected.await.map_err(fault)?;
        if !connection.is_encrypted() {
            connection.starttls(tls.clone(), &name).await.map_err(fault)?;
        }
        if let Some(credentials) = &self.credentials {
            let password = credentials.password.expose().to_owned();
            let credentials = Credentials::new(credentials.user_name.clone(), password);
            let answer = connection.auth(&[Mechanism::Plain, Mechanism::Login], &credentials).await;
            Stage::Opening.judge(Ok(answer))?;
        }
        Ok(connection)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Session>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A session that was kept, and is young enough.
    ///
    /// A connection is woken by the runtime that it was made on. The worker that sends may have been replaced by one with
    /// a runtime of its own, and on that a connection of the old one would wait for ever: it is dropped.
    fn kept(&self) -> Option<Session> {
        let (here, now) = (Handle::current().id(), Instant::now());
        let mut idle = self.idle();
        idle.retain(|session| session.runtime == here && now - session.kept_since <= self.settings.idle_timeout);
        idle.pop()
    }

    /// Keeps a session for the next message, if there is room and it has not served long enough.
    async fn keep(&self, mut session: Session) {
        session.messages += 1;
        session.kept_since = Instant::now();
        if session.messages < self.settings.messages_per_connection {
            let mut idle = self.idle();
            if idle.len() < self.settings.idle_connections {
                idle.push(session);
                return;
            }
        }
        session.leave().await;
    }
}

impl Transport for Smtp {
    fn channel(&self) -> Channel {
        Channel::Email
    }

    async fn send(&self, message: &OutgoingMessage) -> Result<(), SendError> {
        let content = internet_message::mail(message)?;
        let sender = address(message.from.as_ref().map_or("", |from| &from.address))?;
        let recipient = address(&message.to)?;
        let mut session = Box::pin(self.begin(&sender)).await?;
        match session.hand_over(recipient, &content, self.settings.accept_timeout).await {
            Ok(()) => {
                self.keep(session).await;
                Ok(())
            }
            Err(error) => {
                session.leave().await;
                Err(error)
            }
        }
    }
}

/// Shows the settings, which hold no secret.
impl fmt::Debug for Smtp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Smtp")
            .field("settings", &self.settings)
            .field("logs_in", &self.credentials.is_some())
            .finish_non_exhaustive()
    }
}

/// A connection that is logged in.
struct Session {
    connection: AsyncSmtpConnection,
    /// The runtime that wakes it.
    runtime: Id,
    messages: u32,
    /// When the answers that are awaited have to be there.
    deadline: Instant,
    kept_since: Instant,
}

impl Session {
    fn new(connection: AsyncSmtpConnection) -> Self {
        let (runtime, now) = (Handle::current().id(), Instant::now());
        Self { connection, runtime, messages: 0, deadline: now, kept_since: now }
    }

    async fn say(&mut self, stage: Stage, command: impl fmt::Display) -> Result<(), SendError> {
        stage.judge(timeout_at(self.deadline, self.connection.command(command)).await)
    }

    /// Names the recipient and sends the content, behind an accepted sender.
    async fn hand_over(&mut self, recipient: Address, content: &str, within: Duration) -> Result<(), SendError> {
        self.say(Stage::Recipient, Rcpt::new(recipient, Vec::new())).await?;
        self.say(Stage::Data, Data).await?;
        // The end of the content is written with a line end of its own.
        let content = content.strip_suffix("\r\n").unwrap_or(content);
        Stage::Content.judge(timeout(within, self.connection.message(content.as_bytes())).await)
    }

    /// Says goodbye, if the server still listens.
    async fn leave(mut self) {
        // Whatever comes of it, the connection is gone.
        let _ = timeout(FAREWELL, self.connection.abort()).await;
    }
}

fn address(text: &str) -> Result<Address, SendError> {
    text.parse().map_err(|_| SendError::Permanent("the address is not fit for an envelope".to_owned()))
}

fn tls(settings: &SmtpSettings) -> Result<TlsParameters, SmtpFault> {
    let builder = TlsParameters::builder(settings.host.clone());
    let Some(pem) = &settings.root_certificates else {
        return builder.build_rustls().map_err(|_| SmtpFault::Tls);
    };
    let certificates = Certificate::from_pem(pem.as_bytes()).map_err(|_| SmtpFault::RootCertificates)?;
    builder.add_root_certificate(certificates).build_rustls().map_err(|_| SmtpFault::RootCertificates)
}

#[cfg(test)]
mod tests;
