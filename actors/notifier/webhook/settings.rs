//! The settings of a webhook: where it leads, what proves it, in which form, and what it shows.

use std::fmt;

use super::secret::WebhookSecret;
use crate::http::{HttpFault, HttpSettings};

/// How many secrets an endpoint may have at once.
const SECRETS_LIMIT: usize = 8;
/// The longest URL, source or prefix, in bytes.
const TEXT_LIMIT: usize = 2_048;

/// Where signals are sent, and how. `Debug` leaves out the URL and the secrets.
#[derive(Clone)]
pub struct WebhookSettings {
    /// The endpoint: `https`, without user and password.
    pub url: String,
    /// The secrets, 1 to 8. A delivery is signed with each of them, so that the endpoint may go over from one to the next
    /// at any time while it is rotated.
    pub secrets: Vec<WebhookSecret>,
    /// The form of the body. Default [`WebhookFormat::Standard`].
    pub format: WebhookFormat,
    /// Whether addresses and names are sent in full, as far as their user still exists. Default `false`: `a***@e***.com`.
    pub expose_personal_data: bool,
    /// How it is called, and whether targets that are not public may be.
    pub http: HttpSettings,
}

impl WebhookSettings {
    /// An endpoint with one secret, on the default terms.
    #[must_use]
    pub fn new(url: impl Into<String>, secret: WebhookSecret) -> Self {
        Self {
            url: url.into(),
            secrets: vec![secret],
            format: WebhookFormat::default(),
            expose_personal_data: false,
            http: HttpSettings::default(),
        }
    }

    /// What can be told without calling the endpoint.
    pub(super) fn validate(&self) -> Result<(), WebhookFault> {
        if self.secrets.is_empty() || self.secrets.len() > SECRETS_LIMIT {
            return Err(WebhookFault::SecretCount);
        }
        if self.url.len() > TEXT_LIMIT {
            return Err(WebhookFault::InvalidUrl);
        }
        let WebhookFormat::CloudEvents { source, type_prefix } = &self.format else { return Ok(()) };
        let is_visible =
            |text: &str| (1..=TEXT_LIMIT).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        if !is_visible(source) {
            return Err(WebhookFault::InvalidSource);
        }
        let is_label = |label: &str| {
            let fits = label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_');
            fits && !label.is_empty()
        };
        let is_reversed = type_prefix.contains('.') && type_prefix.split('.').all(is_label);
        if is_reversed && is_visible(type_prefix) { Ok(()) } else { Err(WebhookFault::InvalidTypePrefix) }
    }
}

impl fmt::Debug for WebhookSettings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("WebhookSettings")
            .field("secrets", &self.secrets.len())
            .field("format", &self.format)
            .field("expose_personal_data", &self.expose_personal_data)
            .field("http", &self.http)
            .finish_non_exhaustive()
    }
}

/// The form of a webhook's body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum WebhookFormat {
    /// `{"type", "timestamp", "data"}`, as Standard Webhooks recommends it.
    #[default]
    Standard,
    /// An event of CloudEvents 1.0 in the structured JSON form.
    CloudEvents {
        /// Where events come from: a URI, such as `https://accounts.example.com`.
        source: String,
        /// What stands before a signal's name in `type`: a domain, reversed, such as `com.example.accounts`.
        type_prefix: String,
    },
}

/// What is wrong with the settings of a webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum WebhookFault {
    /// The URL is none, or too long.
    #[error("the URL is malformed")]
    InvalidUrl,
    /// The URL is not `https`, holds a user or a password, or names an address that may not be called.
    #[error("the URL may not be called")]
    TargetRefused,
    /// There is no secret, or there are more than 8.
    #[error("a webhook has 1 to 8 secrets")]
    SecretCount,
    /// A secret is not `whsec_` and 24 to 64 bytes in base64.
    #[error("a secret is whsec_ and 24 to 64 bytes in base64")]
    InvalidSecret,
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes")]
    NoRandomness,
    /// The source of events is empty, or holds more than visible ASCII.
    #[error("the source of events is not a URI")]
    InvalidSource,
    /// The prefix of types is not a reversed domain in small letters.
    #[error("the prefix of types is not a reversed domain")]
    InvalidTypePrefix,
    /// How it is called cannot work.
    #[error(transparent)]
    Http(#[from] HttpFault),
}

impl WebhookFault {
    /// The stable name, in `snake_case`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidUrl => "invalid_url",
            Self::TargetRefused => "target_refused",
            Self::SecretCount => "secret_count",
            Self::InvalidSecret => "invalid_secret",
            Self::NoRandomness => "no_randomness",
            Self::InvalidSource => "invalid_source",
            Self::InvalidTypePrefix => "invalid_type_prefix",
            Self::Http(fault) => fault.as_str(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_work_is_refused_and_nothing_is_shown() {
        let secret = || WebhookSecret::generate().unwrap();
        let good = WebhookSettings::new("https://hooks.example.com/canary", secret());
        assert_eq!(good.validate(), Ok(()));
        let shown = format!("{good:?}");
        assert!(!shown.contains("canary") && !shown.contains("whsec_"), "{shown}");
        for secrets in [vec![], vec![secret(); 9]] {
            assert_eq!(WebhookSettings { secrets, ..good.clone() }.validate(), Err(WebhookFault::SecretCount));
        }
        let long = format!("https://hooks.example.com/{}", "x".repeat(TEXT_LIMIT));
        assert_eq!(WebhookSettings { url: long, ..good.clone() }.validate(), Err(WebhookFault::InvalidUrl));
        let events = |source: &str, type_prefix: &str| {
            let (source, type_prefix) = (source.to_owned(), type_prefix.to_owned());
            WebhookSettings { format: WebhookFormat::CloudEvents { source, type_prefix }, ..good.clone() }.validate()
        };
        assert_eq!(events("https://accounts.example.com", "com.example.accounts"), Ok(()));
        assert_eq!(events("", "com.example"), Err(WebhookFault::InvalidSource));
        assert_eq!(events("a b", "com.example"), Err(WebhookFault::InvalidSource));
        for prefix in ["", "com", "com.", ".com", "com..example", "Com.Example", "com.exa mple"] {
            assert_eq!(events("urn:example", prefix), Err(WebhookFault::InvalidTypePrefix), "{prefix}");
        }
    }
}
