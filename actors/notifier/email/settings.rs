//! What the transport of e-mail has to be told about the mail server.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use majordomo_model::Password;
use serde::{Deserialize, Serialize};

use crate::notifier::SEND_DEADLINE;

const HOST_BYTES: usize = 253;
const LABEL_BYTES: usize = 63;
const CREDENTIAL_BYTES: usize = 1_024;
const IDLE_CONNECTIONS_LIMIT: usize = 16;
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----";

/// How the way to the mail server is protected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SmtpEncryption {
    /// TLS from the first byte on, as RFC 8314 recommends for submission; port 465 unless told.
    #[default]
    ImplicitTls,
    /// The connection is made in clear and turned into TLS before anything is said (RFC 3207); port 587 unless told.
    ///
    /// A server that does not offer it gets nothing: there is no falling back to clear text.
    StartTls,
    /// No TLS; port 25 unless told. Only for a server on this very machine: the host is `localhost` or a loopback
    /// address, and there are no credentials.
    Plain,
}

impl SmtpEncryption {
    const fn port(self) -> u16 {
        match self {
            Self::ImplicitTls => 465,
            Self::StartTls => 587,
            Self::Plain => 25,
        }
    }
}

/// Where the mail server is and how it is spoken to. No field is a secret; see [`SmtpCredentials`] for those.
///
/// ```
/// use majordomo_actors::notifier::{SmtpEncryption, SmtpSettings};
///
/// let settings = SmtpSettings { encryption: SmtpEncryption::StartTls, ..SmtpSettings::new("mail.example.com") };
/// assert_eq!(settings.port(), 587);
/// assert!(settings.validate().is_ok());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SmtpSettings {
    /// The name or IP address of the server. With TLS its certificate has to be valid for exactly this.
    pub host: String,
    /// The port; the usual one of the encryption unless told.
    #[serde(default)]
    pub port: Option<u16>,
    /// How the way is protected; TLS from the first byte on unless told.
    #[serde(default)]
    pub encryption: SmtpEncryption,
    /// One or several certificates (PEM) of authorities that are trusted beside those of the system: for a server whose
    /// certificate is from an authority of one's own. None unless told.
    #[serde(default)]
    pub root_certificates: Option<String>,
    /// The name that this side gives itself (EHLO), in full. Unless told, the domain of the address that the mail comes
    /// from: some servers refuse what is no name of the public DNS, and the machine may have none.
    #[serde(default)]
    pub hello_name: Option<String>,
    /// How long opening a session may take altogether: name, connection, TLS, greeting and login. 15 s unless told; a
    /// server that needs longer is out.
    #[serde(default = "connect_timeout")]
    pub connect_timeout: Duration,
    /// How long the server may take over sender and recipient together. 10 s unless told.
    #[serde(default = "command_timeout")]
    pub command_timeout: Duration,
    /// How long the server may take over the content, until it has taken charge of it. 20 s unless told. RFC 5321,
    /// section 4.5.3.2, would have ten minutes waited; here the message is sent again, under the same Message-ID.
    #[serde(default = "accept_timeout")]
    pub accept_timeout: Duration,
    /// How many connections are kept for the next message, 0 to 16; 2 unless told, as messages come few at a time.
    #[serde(default = "idle_connections")]
    pub idle_connections: usize,
    /// How long a connection is kept for the next message. 30 s unless told: less than servers and routers keep one
    /// that is silent.
    #[serde(default = "idle_timeout")]
    pub idle_timeout: Duration,
    /// How many messages go over one connection, at least 1. 100 unless told: many servers close it after as many.
    #[serde(default = "messages_per_connection")]
    pub messages_per_connection: u32,
}

const fn connect_timeout() -> Duration {
    Duration::from_secs(15)
}

const fn command_timeout() -> Duration {
    Duration::from_secs(10)
}

const fn accept_timeout() -> Duration {
    Duration::from_secs(20)
}

const fn idle_connections() -> usize {
    2
}

const fn idle_timeout() -> Duration {
    Duration::from_secs(30)
}

const fn messages_per_connection() -> u32 {
    100
}

/// Why a transport of e-mail cannot be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SmtpFault {
    /// The host is neither a name nor an address.
    #[error("the host must be a name of the DNS in ASCII, or an IP address")]
    Host,
    /// The port is 0.
    #[error("the port must be 1 to 65535")]
    Port,
    /// Clear text would leave the machine.
    #[error("without TLS the host must be localhost or a loopback address")]
    PlainNotLoopback,
    /// The certificates cannot be read.
    #[error("the root certificates must be certificates in PEM")]
    RootCertificates,
    /// The name of this side is none.
    #[error("the name of this side must be a name of the DNS in ASCII")]
    HelloName,
    /// A limit of time is nothing, or they are together more than a message has.
    #[error(
        "each timeout must be more than nothing, and connecting, two rounds of commands and the content less than {} s together",
        SEND_DEADLINE.as_secs()
    )]
    Timeouts,
    /// Too many idle connections.
    #[error("at most {IDLE_CONNECTIONS_LIMIT} connections are kept")]
    IdleConnections,
    /// No message may go over a connection.
    #[error("at least one message must go over a connection")]
    MessagesPerConnection,
    /// User name or password cannot be sent.
    #[error("user name and password must have 1 to {CREDENTIAL_BYTES} bytes and no control characters")]
    Credentials,
    /// Credentials would be sent in clear.
    #[error("credentials need TLS")]
    CredentialsInClear,
    /// TLS cannot be set up: the system trusts nobody, or its store cannot be read.
    #[error("TLS cannot be set up: the system's root certificates cannot be read")]
    Tls,
}

impl SmtpFault {
    /// The stable snake_case name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Port => "port",
            Self::PlainNotLoopback => "plain_not_loopback",
            Self::RootCertificates => "root_certificates",
            Self::HelloName => "hello_name",
            Self::Timeouts => "timeouts",
            Self::IdleConnections => "idle_connections",
            Self::MessagesPerConnection => "messages_per_connection",
            Self::Credentials => "credentials",
            Self::CredentialsInClear => "credentials_in_clear",
            Self::Tls => "tls",
        }
    }
}

impl SmtpSettings {
    /// Settings with every default.
    #[must_use]
    pub fn new(host: impl Into<String>) -> Self {
        Self {
            host: host.into(),
            port: None,
            encryption: SmtpEncryption::default(),
            root_certificates: None,
            hello_name: None,
            connect_timeout: connect_timeout(),
            command_timeout: command_timeout(),
            accept_timeout: accept_timeout(),
            idle_connections: idle_connections(),
            idle_timeout: idle_timeout(),
            messages_per_connection: messages_per_connection(),
        }
    }

    /// The port that is connected to.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.unwrap_or_else(|| self.encryption.port())
    }

    /// Whether a transport can be built of them, as far as they tell by themselves.
    ///
    /// # Errors
    /// The first [`SmtpFault`], in the order of the fields.
    pub fn validate(&self) -> Result<(), SmtpFault> {
        if self.host.parse::<IpAddr>().is_err() && !is_name(&self.host) {
            return Err(SmtpFault::Host);
        }
        if self.port == Some(0) {
            return Err(SmtpFault::Port);
        }
        if self.encryption == SmtpEncryption::Plain && self.loopback().is_none() {
            return Err(SmtpFault::PlainNotLoopback);
        }
        if self.root_certificates.as_ref().is_some_and(|pem| !pem.contains(CERTIFICATE)) {
            return Err(SmtpFault::RootCertificates);
        }
        if self.hello_name.as_ref().is_some_and(|name| !is_name(name)) {
            return Err(SmtpFault::HelloName);
        }
        let limits = [self.connect_timeout, self.command_timeout, self.accept_timeout, self.idle_timeout];
        // A message may find that a kept connection is dead before it gets a new one.
        let rounds = [self.command_timeout, self.connect_timeout, self.command_timeout, self.accept_timeout];
        let longest = rounds.iter().fold(Duration::ZERO, |sum, limit| sum.saturating_add(*limit));
        if limits.iter().any(Duration::is_zero) || longest >= SEND_DEADLINE {
            return Err(SmtpFault::Timeouts);
        }
        if self.idle_connections > IDLE_CONNECTIONS_LIMIT {
            return Err(SmtpFault::IdleConnections);
        }
        if self.messages_per_connection == 0 {
            return Err(SmtpFault::MessagesPerConnection);
        }
        Ok(())
    }

    /// The addresses of a host that is this machine whatever a resolver says; `None` of any other.
    pub(super) fn loopback(&self) -> Option<Vec<IpAddr>> {
        if self.host.eq_ignore_ascii_case("localhost") {
            return Some(vec![IpAddr::from([127, 0, 0, 1]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])]);
        }
        let address = self.host.parse::<IpAddr>().ok()?;
        address.is_loopback().then(|| vec![address])
    }
}

/// Whether a text is a name of the DNS: it goes into a command of its own line.
fn is_name(text: &str) -> bool {
    let label = |label: &str| {
        (1..=LABEL_BYTES).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    text.len() <= HOST_BYTES && text.split('.').all(label)
}

/// The user name and the password that the server knows this app by.
///
/// Given to the transport beside its settings, so that these can be written to a file. Read in, never written out, and
/// not shown.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SmtpCredentials {
    /// The user name, often an e-mail address.
    pub user_name: String,
    /// The password, or the token that the provider has in its place.
    pub password: Password,
}

impl SmtpCredentials {
    /// Takes charge of them.
    #[must_use]
    pub fn new(user_name: impl Into<String>, password: impl Into<String>) -> Self {
        Self { user_name: user_name.into(), password: Password::new(password) }
    }

    pub(super) fn validate(&self) -> Result<(), SmtpFault> {
        let fits = |text: &str| (1..=CREDENTIAL_BYTES).contains(&text.len()) && !text.chars().any(char::is_control);
        if fits(&self.user_name) && fits(self.password.expose()) { Ok(()) } else { Err(SmtpFault::Credentials) }
    }
}

impl fmt::Debug for SmtpCredentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SmtpCredentials([REDACTED])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(change: impl FnOnce(&mut SmtpSettings)) -> Option<SmtpFault> {
        let mut settings = SmtpSettings::new("mail.example.com");
        change(&mut settings);
        settings.validate().err()
    }

    #[test]
    fn settings_that_would_fail_later_are_refused() {
        assert_eq!(fault(|_| ()), None);
        for host in ["localhost", "127.0.0.1", "::1", "mail-1.example.com", "10.0.0.7"] {
            assert_eq!(fault(|settings| settings.host = host.into()), None, "{host}");
        }
        for host in ["", ".", "a..b", "a b", "a\r\nb", "mail.example.com\n", "mäil.example.com", &"a".repeat(64)] {
            assert_eq!(fault(|settings| settings.host = host.into()), Some(SmtpFault::Host), "{host:?}");
            let named = fault(|settings| settings.hello_name = Some(host.into()));
            assert_eq!(named, Some(SmtpFault::HelloName), "{host:?}");
        }
        assert_eq!(fault(|settings| settings.port = Some(0)), Some(SmtpFault::Port));
        for pem in ["", "garbage", "-----BEGIN PRIVATE KEY-----"] {
            let found = fault(|settings| settings.root_certificates = Some(pem.into()));
            assert_eq!(found, Some(SmtpFault::RootCertificates));
        }
        for seconds in [0, 60, u64::MAX] {
            let limit = Duration::from_secs(seconds);
            assert_eq!(fault(|settings| settings.connect_timeout = limit), Some(SmtpFault::Timeouts));
            assert_eq!(fault(|settings| settings.command_timeout = limit), Some(SmtpFault::Timeouts));
            assert_eq!(fault(|settings| settings.accept_timeout = limit), Some(SmtpFault::Timeouts));
        }
        assert_eq!(fault(|settings| settings.idle_timeout = Duration::ZERO), Some(SmtpFault::Timeouts));
        assert_eq!(fault(|settings| settings.idle_connections = 17), Some(SmtpFault::IdleConnections));
        let none = fault(|settings| settings.messages_per_connection = 0);
        assert_eq!(none, Some(SmtpFault::MessagesPerConnection));
    }

    #[test]
    fn clear_text_stays_on_the_machine() {
        for (host, fits) in [
            ("localhost", true),
            ("LocalHost", true),
            ("127.0.0.1", true),
            ("127.9.9.9", true),
            ("::1", true),
            ("localhost.example.com", false),
            ("mail.example.com", false),
            ("10.0.0.1", false),
            ("0.0.0.0", false),
        ] {
            let found = fault(|settings| {
                settings.host = host.into();
                settings.encryption = SmtpEncryption::Plain;
            });
            assert_eq!(found, (!fits).then_some(SmtpFault::PlainNotLoopback), "{host}");
        }
    }

    #[test]
    fn settings_are_read_with_their_defaults_and_a_secret_is_none_of_them() {
        let settings: SmtpSettings = serde_json::from_str(r#"{"host": "mail.example.com"}"#).unwrap();
        assert_eq!(settings, SmtpSettings::new("mail.example.com"));
        assert_eq!(settings.port(), 465);
        let written = serde_json::to_string(&settings).unwrap();
        assert_eq!(serde_json::from_str::<SmtpSettings>(&written).unwrap(), settings);
        let with_password = r#"{"host": "mail.example.com", "password": "hunter2"}"#;
        assert!(serde_json::from_str::<SmtpSettings>(with_password).is_err());
        let start_tls = r#"{"host": "mail.example.com", "encryption": "start_tls"}"#;
        assert_eq!(serde_json::from_str::<SmtpSettings>(start_tls).unwrap().port(), 587);
    }

    #[test]
    fn credentials_are_not_shown_and_not_split() {
        let read: SmtpCredentials = serde_json::from_str(r#"{"user_name": "ada", "password": "hunter2"}"#).unwrap();
        assert_eq!(format!("{read:?}"), "SmtpCredentials([REDACTED])");
        assert_eq!(read.validate(), Ok(()));
        for (user_name, password) in [("", "x"), ("x", ""), ("a\0b", "x"), ("x", "a\r\nb"), ("x", &"y".repeat(1_025))] {
            let credentials = SmtpCredentials::new(user_name, password);
            assert_eq!(credentials.validate(), Err(SmtpFault::Credentials));
        }
    }
}
